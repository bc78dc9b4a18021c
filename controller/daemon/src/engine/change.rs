//! The calls that change what is in force: each is a revision, on disk before it takes force.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tracing::{error, info, warn};
use wardline_datapath::fault;
use wardline_policy::{
    document::{
        diff::{self, Extent},
        edit,
    },
    intent::{Action, Device, Intent, Selector},
    numbers::{Ids, number_of, numbered},
    snapshot::Snapshot,
    tables::Amendment,
};
use wardline_proto::v1;

use super::{Engine, pending::Pending, prepare::Prepared, refusal::Refusal};
use crate::store::revision::{Document, Fact, NewRevision};

/// Who makes a change, and why.
#[derive(Clone, Debug, Default)]
pub struct Author {
    /// Who.
    pub actor: String,
    /// Why, in the actor's words.
    pub reason: String,
    /// The request's id.
    pub request_id: String,
    /// The call: apply, edit, rollback …
    pub kind: &'static str,
}

impl Author {
    /// The daemon itself.
    pub(crate) fn daemon(kind: &'static str, reason: String) -> Self {
        Self {
            actor: "wardlined".to_owned(),
            reason,
            request_id: String::new(),
            kind,
        }
    }
}

/// A change that took force.
#[derive(Clone, Debug, Default)]
pub struct Applied {
    /// Its revision.
    pub revision: u64,
    /// The revision that was in force before.
    pub parent: u64,
    /// When it is taken back unless confirmed.
    pub confirm_by: Option<Timestamp>,
    /// What deserves a look.
    pub warnings: Vec<String>,
}

/// What goes with a change of the document.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// The revision that it was made from; 0: whatever is in force.
    pub base: u64,
    /// How long it waits for its confirmation; none: it needs none.
    pub confirm_within: Option<Duration>,
}

/// Where the next document comes from, for the store.
enum Origin {
    Whole,
    Of(u64),
    Edit(v1::EditRequest),
}

impl Engine {
    /// Puts a document in force.
    ///
    /// # Errors
    ///
    /// Why it was refused.
    pub fn apply(
        &mut self,
        policy: v1::Policy,
        terms: &Terms,
        author: &Author,
    ) -> Result<Applied, Refusal> {
        self.accepts(terms)?;
        let prepared = self.prepare(Arc::new(policy))?;
        self.change(Origin::Whole, prepared, &[], terms, author)
    }

    /// Puts and deletes objects of the document in force.
    ///
    /// # Errors
    ///
    /// Why it was refused.
    pub fn edit(
        &mut self,
        edit: v1::EditRequest,
        terms: &Terms,
        author: &Author,
    ) -> Result<Applied, Refusal> {
        self.edit_with(edit, &[], terms, author)
    }

    pub(crate) fn edit_with(
        &mut self,
        edit: v1::EditRequest,
        facts: &[Fact<'_>],
        terms: &Terms,
        author: &Author,
    ) -> Result<Applied, Refusal> {
        self.accepts(terms)?;
        let mut policy = v1::Policy::clone(&self.snapshot().policy);
        let edited = edit::change(&mut policy, &edit).map_err(|problems| {
            if problems
                .iter()
                .all(|problem| problem.message == edit::MISSING)
            {
                Refusal::Missing(problems)
            } else {
                Refusal::Invalid(problems)
            }
        })?;
        let policy = Arc::new(policy);
        let prepared = self
            .prepare(Arc::clone(&policy))
            .map_err(|refusal| match refusal {
                Refusal::Invalid(problems) => {
                    let used = edit::used(&policy, &edit);
                    if used.is_empty() {
                        Refusal::Invalid(edit::placed(&policy, &edited, problems))
                    } else {
                        Refusal::Used(used)
                    }
                }
                other => other,
            })?;
        let kept = v1::EditRequest {
            put: edit.put,
            delete: edit.delete,
            ..v1::EditRequest::default()
        };
        self.change(Origin::Edit(kept), prepared, facts, terms, author)
    }

    /// Returns to the document of an earlier revision; 0: to the one that was in force before.
    ///
    /// # Errors
    ///
    /// Why it was refused.
    pub fn rollback(&mut self, revision: u64, author: &Author) -> Result<Applied, Refusal> {
        let terms = Terms::default();
        self.accepts(&terms)?;
        let current = self.snapshot().revision;
        let to = match revision {
            0 => self.store.before(current)?,
            revision => revision,
        };
        let stored = match to {
            0 => return Err(Refusal::NothingBefore(current)),
            to => self.store.get(to)?.ok_or(Refusal::NoRevision(to))?,
        };
        if stored.policy.version == 0 {
            return Err(Refusal::NothingBefore(current));
        }
        let prepared = self.prepare(Arc::new(stored.policy))?;
        self.change(Origin::Of(to), prepared, &[], &terms, author)
    }

    /// Keeps the change that waits for this.
    ///
    /// `arrived` is when the connection was made that the call came on.
    ///
    /// # Errors
    ///
    /// When another change waits, or none, or the connection is older than the change.
    pub fn confirm(&mut self, revision: u64, arrived: Instant) -> Result<Applied, Refusal> {
        let Some(pending) = &self.pending else {
            return Err(Refusal::NothingPending);
        };
        if revision != pending.revision {
            return Err(Refusal::OtherPending {
                revision,
                pending: pending.revision,
            });
        }
        if !pending.is_proved_by(arrived) {
            return Err(Refusal::OldConnection(revision));
        }
        self.store.set_meta(Pending::KEY, None)?;
        self.pending = None;
        info!(revision, "confirmed");
        Ok(Applied {
            revision,
            parent: revision,
            ..Applied::default()
        })
    }

    /// Cuts a device off, or ends that. The fewest writes: nothing is compiled, no slot is filled.
    ///
    /// # Errors
    ///
    /// Why it was refused.
    pub fn set_quarantine(
        &mut self,
        device: &str,
        quarantined: bool,
        author: &Author,
    ) -> Result<Applied, Refusal> {
        let current = self.snapshot();
        let devices = &current.intent.devices;
        let known = devices
            .binary_search_by(|known| known.name.as_str().cmp(device))
            .ok()
            .map(|at| &devices[at]);
        if !quarantined && !current.quarantined.contains(device) {
            return Err(match known {
                Some(_) => Refusal::NotInQuarantine(device.to_owned()),
                None => Refusal::missing("device", device),
            });
        }
        if quarantined && known.is_none() {
            return Err(Refusal::missing("device", device));
        }
        let facts = [Fact::Quarantined(device, quarantined)];
        let document = Document::Of(current.revision);
        let revision = self.append(document, Extent::default(), &facts, &current.ids, author)?;
        let mut next = Snapshot::clone(&current);
        next.revision = revision;
        next.quarantined.clone_from(self.store.quarantined());
        if let Some(known) = known {
            let number = number_of(&current.ids, numbered::DEVICE, device);
            let amendment = Amendment::quarantine(&current.tables, known, number, quarantined);
            self.datapath.amend(revision, number, &amendment)?;
            next.amended.extend(amendment);
        }
        let warnings = match known {
            Some(known) if quarantined => self.goes_on(&current.intent, known),
            _ => Vec::new(),
        };
        self.publish(next);
        info!(
            revision,
            device,
            quarantined,
            actor = author.actor,
            reason = author.reason,
            "quarantine"
        );
        Ok(Applied {
            revision,
            parent: current.revision,
            warnings,
            ..Applied::default()
        })
    }

    /// What a device in quarantine may do all the same.
    fn goes_on(&self, intent: &Intent, device: &Device) -> Vec<String> {
        let names = |selectors: &[Selector]| {
            selectors.iter().any(|selector| match selector {
                Selector::Any => true,
                Selector::Router => false,
                Selector::Zone(zone) => *zone == device.zone,
                Selector::Device(at) => intent.devices[at.0].name == device.name,
                Selector::Cidr(net) => device.addresses.iter().any(|it| net.contains(it)),
            })
        };
        let kept = intent.rules.iter().filter(|rule| {
            let keeps = rule.kept && rule.action == Action::Allow;
            keeps && (names(&rule.from) || names(&rule.to))
        });
        let kept = kept.map(|rule| format!("rule {} holds in quarantine, too", rule.name));
        let spared = self.config.failsafe.iter().filter(|failsafe| {
            let mut addresses = device.addresses.iter();
            addresses.any(|address| failsafe.has(*address))
        });
        let spared = spared.map(|failsafe| {
            let services = failsafe.service_texts().join(", ");
            format!("by the router's failsafe it may still reach the router: {services}")
        });
        kept.chain(spared).collect()
    }

    /// Does what is due: takes back a change that was not confirmed in time, and lets grants go that
    /// have ended.
    ///
    /// # Errors
    ///
    /// When something could not be done; it is tried again the next time.
    pub fn do_what_is_due(&mut self) -> Result<(), Refusal> {
        if let Some(pending) = self.pending.clone()
            && pending.is_over(Instant::now())
        {
            self.take_back(&pending)?;
        }
        if self.pending.is_none() {
            self.forget_ended_grants(Timestamp::now())?;
        }
        Ok(())
    }

    /// Puts what was in force before a change back in force.
    fn take_back(&mut self, pending: &Pending) -> Result<(), Refusal> {
        let Pending {
            revision, previous, ..
        } = *pending;
        // Before the first document there was nothing, which has a revision when it has returned.
        let stored = match previous {
            0 => None,
            previous => Some(
                self.store
                    .get(previous)?
                    .ok_or(Refusal::NoRevision(previous))?,
            ),
        };
        let (prepared, origin) = match stored.filter(|stored| stored.policy.version != 0) {
            None => (self.prepare_nothing()?, Origin::Whole),
            Some(stored) => (self.prepare(Arc::new(stored.policy))?, Origin::Of(previous)),
        };
        let author = Author::daemon(
            "revert",
            format!("revision {revision} was not confirmed in time"),
        );
        let facts = [Fact::Meta(Pending::KEY, None)];
        let applied = self.change(origin, prepared, &facts, &Terms::default(), &author)?;
        self.pending = None;
        let back = match previous {
            0 => "no policy is in force again".to_owned(),
            previous => format!("what revision {previous} says is in force again"),
        };
        let message = format!(
            "{}: {back}, as revision {}",
            author.reason, applied.revision
        );
        warn!("{message}");
        self.events
            .note(applied.revision, message, Timestamp::now());
        Ok(())
    }

    /// Whether a change of the document may be made at all.
    fn accepts(&self, terms: &Terms) -> Result<(), Refusal> {
        if let Some(pending) = &self.pending {
            return Err(Refusal::Pending {
                revision: pending.revision,
                confirm_by: pending.confirm_by,
            });
        }
        let current = self.snapshot().revision;
        match terms.base {
            0 => Ok(()),
            base if base == current => Ok(()),
            base => Err(Refusal::Stale { base, current }),
        }
    }

    /// Keeps a prepared document as the next revision, then puts it in force.
    fn change(
        &mut self,
        origin: Origin,
        prepared: Prepared,
        facts: &[Fact<'_>],
        terms: &Terms,
        author: &Author,
    ) -> Result<Applied, Refusal> {
        let current = self.snapshot();
        let extent = diff::extent(&diff::changes(&current.policy, &prepared.policy));
        let document = match &origin {
            Origin::Whole => Document::Whole(&prepared.policy),
            Origin::Of(revision) => Document::Of(*revision),
            Origin::Edit(edit) => Document::Edited {
                edit,
                whole: &prepared.policy,
            },
        };
        let pending = match terms.confirm_within {
            Some(within) => Some(Pending::new(
                self.store.next()?,
                current.revision,
                within,
                Timestamp::now(),
            )),
            None => None,
        };
        let text = pending.as_ref().map(Pending::to_string);
        let waits = text
            .as_deref()
            .map(|text| Fact::Meta(Pending::KEY, Some(text)));
        let facts: Vec<Fact<'_>> = facts.iter().copied().chain(waits).collect();
        fault::point("before-store");
        let revision = self.append(document, extent, &facts, &prepared.ids, author)?;
        fault::point("after-store");
        let mut warnings = prepared.intent.warnings.clone();
        if let Err(refusal) = self.take_force(revision, prepared) {
            error!(%refusal, revision, "the kernel did not take a stored revision");
            // What is stored last is what the next daemon puts in force: it must be what is.
            let document = match current.revision {
                0 => Document::Whole(&current.policy),
                revision => Document::Of(revision),
            };
            let reason = "the kernel did not take the revision before".to_owned();
            let back = Author::daemon("revert", reason);
            let facts = [Fact::Meta(Pending::KEY, None)];
            self.append(document, Extent::default(), &facts, &current.ids, &back)?;
            return Err(refusal);
        }
        fault::point("in-force");
        info!(
            revision,
            actor = author.actor,
            reason = author.reason,
            "policy in force"
        );
        let confirm_by = pending.as_ref().map(|pending| pending.confirm_by);
        // Only a connection that is made from now on shows that the router can be reached.
        self.pending = pending.map(Pending::in_force);
        warnings.extend(self.unguarded());
        Ok(Applied {
            revision,
            parent: current.revision,
            confirm_by,
            warnings,
        })
    }

    fn append(
        &mut self,
        document: Document<'_>,
        extent: Extent,
        facts: &[Fact<'_>],
        ids: &Arc<Ids>,
        author: &Author,
    ) -> Result<u64, Refusal> {
        let new = NewRevision {
            parent: self.snapshot().revision,
            time: Timestamp::now(),
            actor: &author.actor,
            reason: &author.reason,
            kind: author.kind,
            request_id: &author.request_id,
            document,
            extent,
            facts,
        };
        Ok(self.store.append(&new, ids)?)
    }
}
