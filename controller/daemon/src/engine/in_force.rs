//! What is in force: the store, the datapath, and the [`State`] that is published of both.
//!
//! Every change goes one way, [`InForce::commit`]: it is stored, then enforced. When the kernel
//! refuses it, what was in force is stored again as the newest revision, because the newest revision
//! is what the next daemon puts in force.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::sync::watch;
use tracing::{error, info, warn};
use wardline_datapath::{Datapath, error::DatapathError, fault};
use wardline_ebpf::abi;
use wardline_policy::{
    document::{
        diff::{self, Extent},
        edit::Edit,
        ending_rules,
    },
    inventory::Inventory,
    numbers::{Ids, number_of, numbered},
    quarantine::Whom,
    snapshot::Snapshot,
    tables::{Amendment, Tables},
};

use super::{
    guard::guard,
    pending::Pending,
    prepare::{self, Prepared},
    quarantine::Known,
    refusal::Refusal,
    state::State,
    terms::{Applied, Author, Terms},
};
use crate::store::{
    Store,
    revision::{Document, Fact, NewRevision},
};

/// What is in force.
pub(super) struct InForce {
    pub(super) store: Store,
    pub(super) datapath: Datapath,
    pub(super) state: watch::Sender<State>,
}

/// Where the next document comes from, for the store.
pub(super) enum Origin {
    Whole,
    Of(u64),
    Edit(Edit),
}

/// A change as the store keeps it.
struct Change<'a> {
    document: Document<'a>,
    extent: Extent,
    /// What the store keeps beside the document.
    facts: &'a [Fact<'a>],
    /// What it keeps again if the kernel refuses the change.
    undo: &'a [Fact<'a>],
    ids: &'a Arc<Ids>,
    author: &'a Author,
}

impl InForce {
    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.state.borrow().snapshot)
    }

    /// Keeps a prepared document as the next revision, then puts it in force.
    pub(super) fn change(
        &mut self,
        origin: &Origin,
        prepared: Prepared,
        facts: &[Fact<'_>],
        terms: &Terms,
        author: &Author,
    ) -> Result<Applied, Refusal> {
        let State {
            snapshot: current,
            pending: waiting,
            ..
        } = self.state.borrow().clone();
        let extent = diff::extent(&diff::changes(&current.policy, &prepared.policy));
        let policy = Arc::clone(&prepared.policy);
        let document = match origin {
            Origin::Whole => Document::Whole(&policy),
            Origin::Of(revision) => Document::Of(*revision),
            Origin::Edit(edit) => Document::Edited {
                edit,
                whole: &policy,
            },
        };
        let pending = match terms.confirm_within {
            Some(within) => Some(self.pending_after(current.revision, within)?),
            None => None,
        };
        let kept = pending.as_ref().map(Pending::to_string);
        let kept = kept
            .as_deref()
            .map(|kept| Fact::Meta(Pending::KEY, Some(kept)));
        let facts: Vec<Fact<'_>> = facts.iter().copied().chain(kept).collect();
        let waited = waiting.as_ref().map(Pending::to_string);
        let ids = Arc::clone(&prepared.ids);
        let mut warnings = prepared.intent.warnings.clone();
        let change = Change {
            document,
            extent,
            facts: &facts,
            undo: &[Fact::Meta(Pending::KEY, waited.as_deref())],
            ids: &ids,
            author,
        };
        let fresh = fresh_ports(&current, &prepared);
        let revision = self.commit(&change, |in_force, revision| {
            in_force.datapath.adopt(fresh);
            in_force.enforce(revision, prepared)
        })?;
        fault::point("in-force");
        info!(
            revision,
            actor = author.actor,
            reason = author.reason,
            "policy in force"
        );
        let confirm_by = pending.as_ref().map(|pending| pending.confirm_by);
        // Only a connection that is made from now on shows that the router can be reached.
        let pending = pending.map(Pending::in_force);
        self.state.send_modify(|state| state.pending = pending);
        warnings.extend(self.state.borrow().unguarded());
        Ok(Applied {
            revision,
            parent: current.revision,
            confirm_by,
            warnings,
        })
    }

    /// Cuts a device or a port off, or ends that; `known` is what is there of it. The fewest writes:
    /// nothing is compiled, no slot is filled.
    pub(super) fn set_quarantine(
        &mut self,
        whom: &Whom,
        known: &Known<'_>,
        quarantined: bool,
        author: &Author,
    ) -> Result<Applied, Refusal> {
        let current = self.snapshot();
        let was = current.quarantined.has(whom);
        let change = Change {
            document: Document::Of(current.revision),
            extent: Extent::default(),
            facts: &[Fact::Quarantined(whom, quarantined)],
            undo: &[Fact::Quarantined(whom, was)],
            ids: &current.ids,
            author,
        };
        let revision = self.commit(&change, |in_force, revision| {
            let amended = in_force.amend(revision, known, quarantined);
            if amended.is_err()
                && let Err(error) = in_force.amend(current.revision, known, was)
            {
                error!(%error, %whom, "the kernel may have a part of a refused quarantine");
            }
            let mut next = Snapshot::clone(&current);
            next.amended.extend(amended?);
            next.revision = revision;
            next.quarantined.clone_from(in_force.store.quarantined());
            in_force.publish(next);
            Ok(())
        })?;
        Ok(Applied {
            revision,
            parent: current.revision,
            ..Applied::default()
        })
    }

    /// Puts tables and hooks right for the interfaces that there are now.
    pub(super) fn set_inventory(&mut self, inventory: Inventory) -> Result<(), Refusal> {
        let mut current = Snapshot::clone(&self.snapshot());
        self.datapath
            .keep_adopting(|interface| inventory.links.contains_key(&interface));
        current.inventory = Arc::new(inventory);
        if current.revision == 0 {
            self.publish(current);
            return Ok(());
        }
        let prepared = prepare::recompile(&current);
        self.enforce_on(&current, current.revision, prepared)
    }

    /// Puts hooks right: one may have been taken off or become free, and an offload switched.
    pub(super) fn guard(&mut self) {
        let state = self.state.borrow().clone();
        if state.snapshot.revision != 0 {
            let ports = guard(&mut self.datapath, &state.snapshot, &state.ports);
            self.state.send_modify(|state| state.ports = ports);
        }
    }

    fn publish(&self, snapshot: Snapshot) {
        self.state
            .send_modify(|state| state.snapshot = Arc::new(snapshot));
    }

    /// Stores a change, then enforces it. When the kernel refuses it, what was in force is stored
    /// again.
    fn commit(
        &mut self,
        change: &Change<'_>,
        enforce: impl FnOnce(&mut Self, u64) -> Result<(), Refusal>,
    ) -> Result<u64, Refusal> {
        let current = self.snapshot();
        fault::point("before-store");
        let revision = self.append(change)?;
        fault::point("after-store");
        let Err(refusal) = enforce(self, revision) else {
            return Ok(revision);
        };
        error!(%refusal, revision, "the kernel did not take a stored revision");
        let document = match current.revision {
            0 => Document::Whole(&current.policy),
            revision => Document::Of(revision),
        };
        let reason = "the kernel did not take the revision before".to_owned();
        self.append(&Change {
            document,
            extent: Extent::default(),
            facts: change.undo,
            undo: &[],
            ids: &current.ids,
            author: &Author::daemon("revert", reason),
        })?;
        Err(refusal)
    }

    fn append(&mut self, change: &Change<'_>) -> Result<u64, Refusal> {
        let Author {
            actor,
            reason,
            request_id,
            kind,
        } = change.author;
        let new = NewRevision {
            parent: self.snapshot().revision,
            time: Timestamp::now(),
            actor,
            reason,
            kind,
            request_id,
            document: change.document,
            extent: change.extent,
            facts: change.facts,
        };
        Ok(self.store.append(&new, change.ids)?)
    }

    fn pending_after(&self, previous: u64, within: Duration) -> Result<Pending, Refusal> {
        let revision = self.store.history().next()?;
        Ok(Pending::new(revision, previous, within, Timestamp::now()))
    }

    /// Has the kernel cut a device or a port off where its entries stand, or end that.
    fn amend(
        &mut self,
        revision: u64,
        known: &Known<'_>,
        quarantined: bool,
    ) -> Result<Amendment, DatapathError> {
        let current = self.snapshot();
        let (device, amendment) = match known {
            Known::Device(Some(device)) => {
                let number = number_of(&current.ids, numbered::DEVICE, &device.name);
                let tables = &current.tables;
                let amendment = Amendment::quarantine(tables, device, number, quarantined);
                (Some(number), amendment)
            }
            Known::Port(Some(ifindex)) => {
                let amendment = Amendment::port(&current.tables, *ifindex, quarantined);
                (None, amendment)
            }
            Known::Device(None) | Known::Port(None) => return Ok(Amendment::default()),
        };
        self.datapath.amend(revision, device, &amendment)?;
        Ok(amendment)
    }

    pub(super) fn enforce(&mut self, revision: u64, prepared: Prepared) -> Result<(), Refusal> {
        let current = self.snapshot();
        self.enforce_on(&current, revision, prepared)
    }

    /// Makes tables the ones that judge, puts hooks where they belong, and publishes both. `current`
    /// is what was in force, with the interfaces that there are now.
    pub(super) fn enforce_on(
        &mut self,
        current: &Snapshot,
        revision: u64,
        prepared: Prepared,
    ) -> Result<(), Refusal> {
        let Prepared {
            policy,
            intent,
            ids,
            tables,
            clock,
        } = prepared;
        self.datapath.put(revision, &tables)?;
        fault::point("judges");
        // From here on the tables are in force, and nothing may refuse them any more.
        if !Arc::ptr_eq(&ids, &current.ids) && current.revision != 0 {
            let fresh = ids
                .iter()
                .filter(|(key, _)| key.0 == numbered::RULE && !current.ids.contains_key(key));
            for ((_, rule), number) in fresh {
                if let Err(error) = self.datapath.reset_rule(*number) {
                    warn!(%error, rule, "the rule's counters go on from another's");
                }
            }
        }
        let mut snapshot = Snapshot::new(
            revision,
            policy,
            intent,
            Arc::clone(&current.inventory),
            self.store.quarantined().clone(),
            ids,
            tables,
            clock,
            Some(current),
        );
        snapshot.failsafe = Arc::clone(&current.failsafe);
        let before = Arc::clone(&self.state.borrow().ports);
        let ports = guard(&mut self.datapath, &snapshot, &before);
        let grants: Arc<[_]> = ending_rules(&snapshot.policy)
            .filter(|rule| self.store.is_grant(&rule.name, rule.expires))
            .collect();
        self.state.send_modify(|state| {
            state.snapshot = Arc::new(snapshot);
            state.ports = ports;
            state.grants = grants;
        });
        Ok(())
    }
}

/// The interfaces that a change makes ports. Only these adopt the flows that run through them: what
/// ran before is then what ran unguarded, and nobody but who changes the policy can bring it about.
pub(super) fn fresh_ports(current: &Snapshot, next: &Prepared) -> Vec<u32> {
    let is_port = |tables: &Tables, interface: u32| {
        let port = tables.ports.get(&interface);
        port.is_some_and(|port| port.flags & abi::Port::GUARDED != 0)
    };
    let interfaces = current.inventory.links.keys().copied();
    interfaces
        .filter(|it| is_port(&next.tables, *it) && !is_port(&current.tables, *it))
        .collect()
}
