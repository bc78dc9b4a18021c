//! What is in force: the records, the datapath, and the [`State`] that is published of both.
//!
//! A change goes one of two ways. Most are recorded, then enforced ([`InForce::commit`]): when the
//! kernel refuses one, what was in force is recorded again as the newest revision, because the newest
//! revision is what the next daemon puts in force. What must not wait for a disk (quarantine,
//! release, taking back, ended grants) is enforced, then recorded, at once or when the database can
//! be written again ([`InForce::act`]).

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::sync::watch;
use tracing::{error, info, warn};
use wardline_datapath::{Datapath, carry::Report, error::DatapathError, fault};
use wardline_policy::{
    clock::Clock,
    compile::{Base, Room},
    document::{
        Document as Policy,
        diff::{self, Extent},
        edit::Edit,
        ending_rules,
    },
    inventory::{Inventory, Link},
    numbers::{number_of, numbered},
    quarantine::Hold,
    snapshot::Snapshot,
    tables::{Amendment, Tables},
};

use super::{
    guard::{self, guard},
    hooks_first::HooksFirst,
    lost,
    pending::Pending,
    prepare::{self, Prepared},
    quarantine::Target,
    records::{Change, Records},
    refusal::Refusal,
    state::{Attached, PortState, Shut, State, guards_nothing},
    terms::{Applied, Author, Terms},
};
use crate::{
    config::OnFailure,
    store::{
        error::StoreError,
        revision::{Document, Fact, Held},
    },
    telemetry::events::Events,
};

/// Most names of guarded ports that are kept; beyond that, only those of interfaces that exist.
const MOST_NAMES: usize = 65_536;

/// What is in force.
pub(super) struct InForce {
    pub(super) records: Records,
    pub(super) datapath: Datapath,
    /// What the document in force was compiled to; none: there was none yet.
    pub(super) base: Option<Arc<Base>>,
    /// What becomes of a port that can't be guarded.
    pub(super) on_failure: OnFailure,
    /// Guards what appears.
    pub(super) first: HooksFirst,
    /// Where is told which ports are not guarded any more.
    pub(super) events: Events,
    pub(super) state: watch::Sender<State>,
}

/// Where the next document comes from, for the store.
pub(super) enum Origin {
    Whole,
    Of(u64),
    Edit(Edit),
}

/// Whether a change waits for the disk.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Haste {
    /// It is recorded before it is enforced, and refused if it can't be.
    RecordedFirst,
    /// It is enforced whether or not it can be recorded.
    AtOnce,
}

/// What a change sets beside the document, and what holds again if the kernel refuses it.
#[derive(Clone, Copy, Default)]
pub(super) struct Beside<'a> {
    pub(super) facts: &'a [Fact<'a>],
    pub(super) undo: &'a [Fact<'a>],
}

impl<'a> Beside<'a> {
    /// Facts that need not be undone.
    pub(super) fn of(facts: &'a [Fact<'a>]) -> Self {
        Self { facts, undo: &[] }
    }
}

/// The change that waits for its confirmation, and the document that returns without that.
#[derive(Clone, Default)]
pub(super) struct Waiting {
    pub(super) pending: Option<Pending>,
    pub(super) previous: Option<Arc<Policy>>,
    /// Whether it takes force now, and not before an earlier process has ended.
    pub(super) is_fresh: bool,
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
        beside: Beside<'_>,
        terms: &Terms,
        author: &Author,
        haste: Haste,
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
        let pending = terms
            .confirm_within
            .map(|within| self.pending_after(current.revision, within));
        let kept = pending.as_ref().map(Pending::to_string);
        let kept = kept
            .as_deref()
            .map(|kept| Fact::Meta(Pending::KEY, Some(kept)));
        let facts: Vec<Fact<'_>> = beside.facts.iter().copied().chain(kept).collect();
        let waited = waiting.as_ref().map(Pending::to_string);
        let undo: Vec<Fact<'_>> = [Fact::Meta(Pending::KEY, waited.as_deref())]
            .into_iter()
            .chain(beside.undo.iter().copied())
            .collect();
        let ids = Arc::clone(&prepared.ids);
        let mut warnings = prepared.intent.warnings.clone();
        let change = Change {
            document,
            extent,
            facts: &facts,
            undo: &undo,
            ids: &ids,
            author,
        };
        let fresh = fresh_ports(&current, &prepared);
        let confirm_by = pending.as_ref().map(|pending| pending.confirm_by);
        let next = Waiting {
            previous: pending.as_ref().map(|_| Arc::clone(&current.policy)),
            pending,
            is_fresh: true,
        };
        let enforce = |in_force: &mut Self, revision| {
            in_force.datapath.hooks().adopt(fresh);
            in_force.enforce_on(&current, revision, prepared, Some(next))
        };
        let revision = match haste {
            Haste::RecordedFirst => self.commit(&change, enforce)?,
            Haste::AtOnce => self.act(&change, enforce)?,
        };
        fault::point("in-force");
        info!(
            revision,
            actor = author.actor,
            reason = author.reason,
            "policy in force"
        );
        warnings.extend(self.state.borrow().unguarded());
        Ok(Applied {
            revision,
            parent: current.revision,
            confirm_by,
            warnings,
            unchanged: false,
        })
    }

    /// Cuts somebody off, or ends that. The fewest writes: nothing is compiled, no slot is filled, unless
    /// what is released is nobody's by now.
    pub(super) fn set_quarantine(
        &mut self,
        target: &Target,
        quarantined: bool,
        author: &Author,
    ) -> Result<Applied, Refusal> {
        let current = self.snapshot();
        let hold = quarantined.then(|| Hold {
            name: target.name.clone(),
            actor: author.actor.clone(),
            reason: author.reason.clone(),
            since: Timestamp::now(),
        });
        let held = Held {
            subject: &target.subject,
            identities: &target.identities,
            hold: hold.as_ref(),
        };
        let before = target.identities.iter().map(|identity| {
            Fact::Held(Held {
                subject: "",
                identities: std::slice::from_ref(identity),
                hold: current.quarantined.get(identity),
            })
        });
        let change = Change {
            document: Document::Of(current.revision),
            extent: Extent::default(),
            facts: &[Fact::Held(held)],
            undo: &before.collect::<Vec<_>>(),
            ids: &current.ids,
            author,
        };
        let revision = self.act(&change, |in_force, revision| {
            if target.has_strangers {
                // Their entries stand for nobody, so they are not amended but go.
                let mut next = Snapshot::clone(&current);
                next.quarantined.clone_from(in_force.records.quarantined());
                let base = base_of(&mut in_force.base, &next);
                let prepared = prepare::recompile(&next, base, in_force.datapath.reader());
                return in_force.enforce_on(&current, revision, prepared, None);
            }
            let amended = in_force.amend(revision, target, quarantined);
            if amended.is_err()
                && let Err(error) = in_force.amend(current.revision, target, !quarantined)
            {
                let whom = &target.subject;
                error!(%error, whom, "the kernel may have a part of a refused quarantine");
            }
            let mut next = Snapshot::clone(&current);
            next.amended.extend(amended?);
            next.revision = revision;
            next.quarantined.clone_from(in_force.records.quarantined());
            in_force.publish(next);
            Ok(())
        })?;
        Ok(Applied {
            revision,
            parent: current.revision,
            warnings: self.not_recorded().into_iter().collect(),
            ..Applied::default()
        })
    }

    /// A warning about changes that are in force and not recorded.
    pub(super) fn not_recorded(&self) -> Option<String> {
        let owed = self.records.owed();
        let revisions: Vec<_> = owed.iter().map(|it| it.revision.to_string()).collect();
        (!owed.is_empty()).then(|| {
            format!(
                "in force, but not in the history until the database can be written: revision {}",
                revisions.join(", ")
            )
        })
    }

    /// Puts tables and hooks right for the interfaces that there are now.
    pub(super) fn set_inventory(&mut self, inventory: Inventory) -> Result<(), Refusal> {
        let before = self.snapshot();
        let is_fresh = |link: &&Link| before.inventory.link_at(link.number) != Some(&link.name);
        let fresh: Vec<Link> = inventory.links.values().filter(is_fresh).cloned().collect();
        let unmet = fresh.iter().filter(|link| !self.first.has_met(link));
        self.first.meet(&unmet.cloned().collect::<Vec<_>>());
        let mut current = Snapshot::clone(&before);
        self.datapath
            .hooks()
            .keep_adopting(|interface| inventory.links.contains_key(&interface));
        current.inventory = Arc::new(inventory);
        if guards_nothing(&current) {
            self.publish(current);
            self.shut_fresh_ports();
            return Ok(());
        }
        let prepared = prepare::recompile(
            &current,
            base_of(&mut self.base, &current),
            self.datapath.reader(),
        );
        let done = self.enforce_on(&current, current.revision, prepared, None);
        if let Err(refusal) = &done {
            self.tell_without_tables(&fresh, refusal);
        }
        done
    }

    /// Tells of ports that have appeared and have hooks, but no tables by which something could pass.
    fn tell_without_tables(&self, fresh: &[Link], refusal: &Refusal) {
        let state = self.state.borrow().clone();
        let is_port = |link: &&Link| state.snapshot.intent.port_for(&link.name).is_some();
        let mut ports = state.ports.to_vec();
        ports.retain(|port| fresh.iter().all(|link| link.name != port.interface));
        ports.extend(fresh.iter().filter(is_port).map(|link| PortState {
            interface: link.name.clone(),
            ifindex: link.ifindex,
            number: link.number,
            zone: String::new(),
            attached: Attached::None,
            reason: format!("shut: its tables can't be written: {refusal}"),
            shut: Shut::Dropped,
            fast_forward: false,
            warnings: Vec::new(),
        }));
        ports.sort_by(|a, b| a.interface.cmp(&b.interface));
        self.state.send_modify(|state| state.ports = ports.into());
    }

    /// Has rules end by a wall clock that was set.
    pub(super) fn set_clock(&mut self, clock: Clock) -> Result<(), Refusal> {
        let mut current = Snapshot::clone(&self.snapshot());
        current.clock = clock;
        let rules = &current.intent.rules;
        if rules.iter().all(|rule| rule.expires.is_none()) {
            self.publish(current);
            return Ok(());
        }
        // When rules end is part of what does not depend on interfaces.
        let base = Arc::new(Base::of(&current.intent, &current.ids, &clock));
        let prepared = prepare::recompile(&current, base, self.datapath.reader());
        self.enforce_on(&current, current.revision, prepared, None)
    }

    /// Puts hooks right: one may have been taken off or become free, and an offload switched.
    pub(super) fn guard(&mut self) {
        let state = self.state.borrow().clone();
        if guards_nothing(&state.snapshot) {
            self.shut_fresh_ports();
        } else {
            let mut snapshot = Snapshot::clone(&state.snapshot);
            let ports = self.guard_ports(&mut snapshot, &state.ports);
            let changed = !Arc::ptr_eq(&snapshot.tables, &state.snapshot.tables);
            self.state.send_modify(|state| {
                state.ports = ports;
                if changed {
                    state.snapshot = Arc::new(snapshot);
                }
            });
        }
    }

    /// Shuts ports that have appeared while the policy is lost.
    pub(super) fn shut_fresh_ports(&self) {
        let state = self.state.borrow().clone();
        let links = state.snapshot.inventory.links.values().cloned();
        let ports = lost::shut_fresh(self.first.hooks(), links, &state.lost_ports);
        for told in guard::changes(&ports, &state.ports) {
            self.events.note(0, told, Timestamp::now());
        }
        self.state.send_if_modified(|state| {
            let changed = state.ports != ports;
            state.ports = ports;
            changed
        });
    }

    /// Puts hooks on the ports of a snapshot whose tables are in force. The tables change when a port
    /// has to be shut, or can be opened again.
    fn guard_ports(&mut self, snapshot: &mut Snapshot, before: &[PortState]) -> Arc<[PortState]> {
        // Once more for what is shut, and for what then does not fit.
        const ROUNDS: u32 = 3;
        let (first, on_failure) = (&self.first, self.on_failure);
        let mut guarded = guard(&mut self.datapath, snapshot, before, on_failure, first);
        for _ in 0..ROUNDS {
            if guarded.shut == snapshot.tables.shut {
                break;
            }
            let room = Room {
                shut: Some(&guarded.shut),
                ..prepare::room(snapshot, self.datapath.reader())
            };
            let base = base_of(&mut self.base, snapshot);
            let (intent, inventory) = (&snapshot.intent, &snapshot.inventory);
            let tables = base.on(intent, inventory, &snapshot.quarantined, &room);
            if let Err(error) = self.datapath.put(snapshot.revision, &tables) {
                error!(%error, "a port that can't be guarded is judged by its zones still");
                break;
            }
            snapshot.tables = Arc::new(tables);
            snapshot.amended = Amendment::default();
            let states = &guarded.states;
            guarded = guard(&mut self.datapath, snapshot, states, on_failure, first);
        }
        for told in guard::changes(&guarded.states, before) {
            self.events.note(snapshot.revision, told, Timestamp::now());
        }
        for report in self.datapath.finish_carrying() {
            told(&report, "took over from another version");
        }
        guarded.states
    }

    fn publish(&self, snapshot: Snapshot) {
        self.state.send_modify(|state| {
            state.snapshot = Arc::new(snapshot);
            state.owed = self.records.owed().into();
        });
    }

    /// Publishes what is recorded, if that has changed.
    pub(super) fn publish_records(&self) {
        self.state.send_if_modified(|state| {
            let changed = *state.owed != *self.records.owed();
            if changed {
                state.owed = self.records.owed().into();
            }
            changed
        });
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

    /// Enforces a change, then records it, now or when that can be done.
    fn act(
        &mut self,
        change: &Change<'_>,
        enforce: impl FnOnce(&mut Self, u64) -> Result<(), Refusal>,
    ) -> Result<u64, Refusal> {
        let parent = self.snapshot().revision;
        // Known before it is published, because the copy must not have one without the other.
        let revision = self.records.owe(parent, change);
        if let Err(refusal) = enforce(self, revision) {
            self.records.disown(change.undo);
            self.publish_records();
            return Err(refusal);
        }
        if let Err(error) = self.records.settle(change.ids) {
            warn!(%error, revision, "in force, and recorded when the database can be written");
        }
        self.publish_records();
        Ok(revision)
    }

    fn append(&mut self, change: &Change<'_>) -> Result<u64, StoreError> {
        let appended = self.records.append(self.snapshot().revision, change);
        self.publish_records();
        appended
    }

    fn pending_after(&self, previous: u64, within: Duration) -> Pending {
        Pending::new(self.records.next(), previous, within, Timestamp::now())
    }

    /// Has the kernel cut devices or a port off where their entries stand, or end that.
    fn amend(
        &mut self,
        revision: u64,
        target: &Target,
        quarantined: bool,
    ) -> Result<Amendment, DatapathError> {
        let current = self.snapshot();
        let mut all = Amendment::default();
        for device in target.devices(&current) {
            let number = number_of(&current.ids, numbered::DEVICE, &device.name);
            let tables = &current.tables;
            let amendment = Amendment::quarantine(tables, device, number, quarantined);
            self.datapath.amend(revision, Some(number), &amendment)?;
            all.extend(amendment);
        }
        if let Some(port) = target.port {
            let amendment = Amendment::port(&current.tables, port, quarantined);
            self.datapath.amend(revision, None, &amendment)?;
            all.extend(amendment);
        }
        Ok(all)
    }

    /// Makes tables the ones that judge, puts hooks where they belong, and publishes both. `current`
    /// is what was in force, with the interfaces that there are now; `waiting` replaces the change that
    /// waits for its confirmation.
    pub(super) fn enforce_on(
        &mut self,
        current: &Snapshot,
        revision: u64,
        prepared: Prepared,
        waiting: Option<Waiting>,
    ) -> Result<(), Refusal> {
        let Prepared {
            base,
            policy,
            intent,
            ids,
            tables,
            clock,
            goes_on,
        } = prepared;
        self.datapath.put(revision, &tables)?;
        self.base = Some(base);
        for report in self.datapath.begin_carrying() {
            told(&report, "takes over from another version");
        }
        fault::point("judges");
        // From here on the tables are in force, and nothing may refuse them any more.
        if !Arc::ptr_eq(&ids, &current.ids) && current.revision != 0 {
            let fresh = ids
                .iter()
                .filter(|(key, _)| key.0 == numbered::RULE && !current.ids.contains_key(key))
                .filter(|(_, number)| goes_on != Some(**number));
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
            self.records.quarantined().clone(),
            ids,
            tables,
            clock,
            Some(current),
        );
        snapshot.failsafe = Arc::clone(&current.failsafe);
        let before = Arc::clone(&self.state.borrow().ports);
        let ports = self.guard_ports(&mut snapshot, &before);
        let grants: Arc<[_]> = ending_rules(&snapshot.policy)
            .filter(|rule| self.records.is_grant(&rule.name, rule.expires))
            .collect();
        self.state.send_modify(|state| {
            state.guarded = guarded(&state.guarded, &snapshot).into();
            state.snapshot = Arc::new(snapshot);
            state.ports = ports;
            state.grants = grants;
            state.known_grants = Arc::clone(self.records.grants());
            state.owed = self.records.owed().into();
            if revision != 0 {
                state.failure = None;
                state.lost_ports = Arc::default();
            }
            if let Some(waiting) = waiting {
                let Waiting {
                    pending,
                    previous,
                    is_fresh,
                } = waiting;
                state.previous = previous;
                state.pending = match pending {
                    // Only a connection that is made from now on shows that the router can be
                    // reached.
                    Some(pending) if is_fresh => Some(pending.in_force()),
                    pending => pending,
                };
            }
        });
        Ok(())
    }
}

/// Tells in the log what was taken over from another version.
fn told(report: &Report, what: &str) {
    let Report {
        version,
        flows,
        left,
        learned,
        problems,
    } = report;
    info!(version, flows, left, learned, "{what}");
    for problem in problems {
        warn!(version, "not taken over: {problem}");
    }
}

/// What the document in force was compiled to.
fn base_of(known: &mut Option<Arc<Base>>, current: &Snapshot) -> Arc<Base> {
    let base = known
        .get_or_insert_with(|| Arc::new(Base::of(&current.intent, &current.ids, &current.clock)));
    Arc::clone(base)
}

/// The names of the interfaces that a policy guards, and of those that it has guarded and that are
/// not there at present.
fn guarded(before: &BTreeSet<String>, snapshot: &Snapshot) -> BTreeSet<String> {
    let links = snapshot.inventory.links.values();
    let names = links.map(|link| &link.name).chain(before);
    let mut names: BTreeSet<String> = names
        .filter(|name| snapshot.intent.port_for(name).is_some())
        .cloned()
        .collect();
    if names.len() > MOST_NAMES {
        let links = snapshot.inventory.links.values();
        let there: BTreeSet<&String> = links.map(|link| &link.name).collect();
        names.retain(|name| there.contains(name));
    }
    names
}

/// The interfaces that a change makes ports. Only these adopt the flows that run through them: what
/// ran before is then what ran unguarded, and nobody but who changes the policy can bring it about.
pub(super) fn fresh_ports(current: &Snapshot, next: &Prepared) -> Vec<u32> {
    let is_port = Tables::guards;
    let interfaces = current.inventory.links.keys().copied();
    interfaces
        .filter(|it| is_port(&next.tables, *it) && !is_port(&current.tables, *it))
        .collect()
}
