//! Makes what is in force and the database agree, when the database is opened after the start.

use std::{collections::BTreeSet, sync::Arc};

use jiff::Timestamp;
use tracing::{error, info, warn};
use wardline_policy::{
    document::diff::Extent,
    quarantine::{Identity, Quarantine},
};

use super::{Engine, pending::Pending, quarantine::Target, refusal::Refusal, terms::Author};
use crate::{
    parts::Part,
    store::{
        Store,
        enforced::Enforced,
        owed::Owed,
        revision::{Document, Fact, Held, NewRevision},
    },
};

impl Engine {
    /// Uses a database from now on.
    ///
    /// The higher revision counts. A database that is ahead has what the copy missed: it is put in
    /// force. One that is behind has lost something: what is in force is recorded again. When both
    /// have the same revision, the database knows what holds beside the document.
    ///
    /// # Errors
    ///
    /// When the database can't be read or written. Then it is closed again, to be tried later.
    pub fn attach(&mut self, store: Store) -> Result<(), Refusal> {
        let history = store.history().clone();
        let attached = self.reconcile(store);
        if attached.is_err() {
            history.close();
        }
        attached
    }

    fn reconcile(&mut self, store: Store) -> Result<(), Refusal> {
        let history = store.history().clone();
        let newest = history.next()? - 1;
        let mut recorded = BTreeSet::new();
        for owed in self.in_force.records.owed() {
            if history
                .change(owed.revision)?
                .is_some_and(|it| owed.is(&it))
            {
                recorded.insert(owed.revision);
            }
        }
        let records = &mut self.in_force.records;
        records.forget_owed(|owed| recorded.contains(&owed.revision));
        let current = self.in_force.state.borrow().snapshot.revision;
        let first = self.in_force.records.owed().first();
        let expected = first.map_or(current, |owed| owed.revision - 1);
        if newest > expected {
            self.follow(store, newest)?;
        } else if newest < expected {
            self.record_again(store, newest)?;
        } else {
            self.agree(store)?;
        }
        let ids = Arc::clone(&self.snapshot().ids);
        if let Err(error) = self.in_force.records.settle(&ids) {
            warn!(%error, "what is in force is recorded later");
        }
        self.in_force.publish_records();
        Ok(())
    }

    /// Puts in force what the database has.
    fn follow(&mut self, store: Store, newest: u64) -> Result<(), Refusal> {
        let Some(enforced) = store.enforced()? else {
            // The document is lost: only the numbers go on.
            self.in_force.records.go_on_after(newest);
            self.in_force.records.write_to(store);
            return Ok(());
        };
        let owed = self.in_force.records.owed().to_vec();
        self.in_force.records.write_to(store);
        info!(
            revision = newest,
            "the database has a later revision than what is in force"
        );
        self.in_force.records.go_on_from(&enforced);
        if let Err(refusal) = self.take_over(&enforced) {
            let why = format!(
                "revision {newest} of the database can't be enforced: {}",
                refusal.in_full()
            );
            error!("{why}");
            // Unless a start without a policy has told more.
            if self.parts.has(Part::Policy) {
                self.parts.breaks(Part::Policy, &why, None);
            }
        }
        // Who was cut off meanwhile stays cut off.
        for Owed {
            cut,
            actor,
            reason,
            request_id,
            ..
        } in owed
        {
            let Some(cut) = cut else { continue };
            let author = Author {
                actor,
                reason,
                request_id,
                kind: if cut.quarantined {
                    "quarantine"
                } else {
                    "release"
                },
            };
            let kind = if cut.is_port { "port" } else { "device" };
            let current = self.snapshot();
            let target = Target::known(&current, cut.identities(), &cut.name, kind);
            if let Err(refusal) = self.hold(&target, cut.quarantined, &author) {
                warn!(%refusal, whom = target.subject, "a quarantine could not be taken over");
            }
        }
        Ok(())
    }

    /// Adds what is in force to a database that does not have it.
    fn record_again(&mut self, mut store: Store, newest: u64) -> Result<(), Refusal> {
        let state = self.in_force.state.borrow().clone();
        let snapshot = &state.snapshot;
        let (wanted, has) = (&snapshot.quarantined, store.quarantined().clone());
        let cuts = differences(&has, wanted);
        let pending = state.pending.as_ref().map(Pending::to_string);
        let cuts = cuts.iter().map(|identity| {
            Fact::Held(Held {
                subject: "",
                identities: std::slice::from_ref(identity),
                hold: wanted.get(identity),
            })
        });
        let grants = state.known_grants.iter();
        let grants = grants.map(|(rule, expires)| Fact::Grant(rule, *expires));
        let facts: Vec<Fact<'_>> = [Fact::Meta(Pending::KEY, pending.as_deref())]
            .into_iter()
            .chain(cuts)
            .chain(grants)
            .collect();
        let lost = match newest {
            0 => "the database had no revision".to_owned(),
            newest => format!("the database ended with revision {newest}"),
        };
        let notice = format!(
            "{lost}, while revision {} is in force: what was between is lost, and what is in force \
             is recorded anew",
            snapshot.revision
        );
        error!("{notice}");
        store.append(
            &NewRevision {
                number: Some(snapshot.revision),
                parent: newest,
                time: Timestamp::now(),
                actor: "wardlined",
                reason: &notice,
                kind: "recover",
                request_id: "",
                document: Document::Whole(&snapshot.policy),
                extent: Extent::default(),
                facts: &facts,
            },
            &snapshot.ids,
        )?;
        self.in_force.records.forget_owed(|_| true);
        self.in_force.records.write_to(store);
        self.events
            .note(snapshot.revision, notice.clone(), Timestamp::now());
        self.in_force
            .state
            .send_modify(|state| state.notices = [&*state.notices, &[notice]].concat().into());
        Ok(())
    }

    /// Takes over what the database knows beside the document that both have.
    fn agree(&mut self, store: Store) -> Result<(), Refusal> {
        let meta = store.history().meta(Pending::KEY)?;
        let mut quarantined = store.quarantined().clone();
        let grants = store.grants().clone();
        let records = &mut self.in_force.records;
        records.write_to(store);
        records.add_grants(&grants);
        let mut was_taken_back = false;
        for owed in records.owed() {
            was_taken_back |= owed.ends_pending;
            if let Some(cut) = &owed.cut {
                let hold = owed.hold(cut);
                for identity in cut.identities() {
                    quarantined.set(&identity, hold.as_ref());
                }
            }
        }
        records.set_quarantined(quarantined.clone());
        let state = self.in_force.state.borrow().clone();
        let waits = state.pending.as_ref().map(Pending::to_string);
        let differs = meta != waits && !was_taken_back;
        if differs && meta.is_none() {
            // It was confirmed, and the copy had not noted that.
            self.in_force.state.send_modify(|state| {
                state.pending = None;
                state.previous = None;
            });
        }
        let is_missed = differs && meta.is_some();
        if state.snapshot.revision == 0 || (quarantined == state.snapshot.quarantined && !is_missed)
        {
            return Ok(());
        }
        let enforced = state.enforced().map(|enforced| Enforced {
            quarantined,
            pending: if is_missed {
                meta
            } else {
                enforced.pending.clone()
            },
            ..enforced
        });
        if let Some(enforced) = enforced
            && let Err(refusal) = self.take_over(&enforced)
        {
            error!(%refusal, "what the database knows beside the document is not in force");
        }
        Ok(())
    }
}

/// Who has to be cut off or released to get from one to the other.
fn differences(has: &Quarantine, wanted: &Quarantine) -> Vec<Identity> {
    let all: BTreeSet<&Identity> = has.iter().chain(wanted.iter()).map(|(it, _)| it).collect();
    let differ = all.into_iter().filter(|it| has.get(it) != wanted.get(it));
    differ.cloned().collect()
}
