//! The engine: the one that changes what is in force. It owns the store and the datapath, and
//! publishes a [`State`] after each change.
//!
//! It lives on a thread of its own ([`thread`](crate::thread)), because store and kernel block, and
//! does one thing at a time. Nothing that only reads asks it: states, [`Reader`] and
//! `prepare::prepare` are for any thread.
//!
//! Every change goes one way, `Engine::commit`: it is stored, then enforced. When the kernel refuses
//! it, what was in force is stored again as the newest revision, because the newest revision is what
//! the next daemon puts in force.

pub mod grants;
mod guard;
pub mod pending;
pub(crate) mod prepare;
mod quarantine;
pub mod refusal;
pub mod state;
pub mod terms;

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio::sync::watch;
use tracing::{error, info, warn};
use wardline_datapath::{Datapath, Reader, error::DatapathError, fault, ring::Ring};
use wardline_policy::{
    document::{
        Document as Policy,
        diff::{self, Extent},
        edit::{self, Edit},
        ending_rules,
    },
    failsafe::Failsafe,
    intent::{Device, Intent},
    inventory::Inventory,
    numbers::{Ids, number_of, numbered},
    snapshot::Snapshot,
    tables::{Amendment, Tables},
};

use self::{
    grants::{GrantRequest, Granted},
    guard::guard,
    pending::Pending,
    prepare::{Prepared, prepare},
    refusal::Refusal,
    state::State,
    terms::{Applied, Author, Terms},
};
use crate::{
    config::Config,
    store::{
        Store,
        revision::{Document, Fact, NewRevision},
    },
    telemetry::events::Events,
};

/// The store, the datapath, and what they hold as it was published last.
pub struct Engine {
    config: Config,
    store: Store,
    datapath: Datapath,
    state: watch::Sender<State>,
    events: Events,
    /// Whether a document has been read since [`Engine::has_read_a_document`] was asked.
    read_a_document: bool,
}

/// Where the next document comes from, for the store.
enum Origin {
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

// ── life ───────────────────────────────────────────────────────────────────────────────────────

impl Engine {
    /// Loads the datapath and takes over what is stored and pinned.
    ///
    /// # Errors
    ///
    /// When the store or the kernel refuses.
    pub fn start(config: Config, inventory: Inventory) -> Result<Self, Refusal> {
        let store = Store::open(&config.state_dir)?;
        let pins: &Path = &config.pin_dir;
        let mut datapath = Datapath::open(Some(pins), &config.limits, &config.timeouts)?;
        let failsafe: Arc<[_]> = config.failsafe.iter().flat_map(Failsafe::entries).collect();
        datapath.set_failsafe(&failsafe)?;
        let clock = datapath.reader().clock()?;
        let mut nothing = Snapshot::new(
            0,
            Policy::default(),
            Intent::default(),
            inventory,
            store.quarantined().clone(),
            Arc::clone(store.ids()),
            Tables::default(),
            clock,
            None,
        );
        nothing.failsafe = failsafe;
        let mut state = State::of(Arc::new(nothing));
        state.pending = match store.meta(Pending::KEY)?.as_deref().map(str::parse) {
            None => None,
            Some(Ok(pending)) => Some(Pending::taken_over(pending, clock.now)),
            Some(Err(_)) => {
                return Err(store.damaged("it tells of no known pending change").into());
            }
        };
        let (state, states) = watch::channel(state);
        let mut engine = Self {
            config,
            store,
            datapath,
            state,
            events: Events::new(states),
            read_a_document: false,
        };
        // A document without a version is what is in force before the first.
        let latest = engine.store.latest()?;
        if let Some(stored) = latest.filter(|stored| stored.policy.version != 0) {
            let revision = stored.revision.revision;
            let prepared = engine.prepare(stored.policy)?;
            engine.enforce(revision, prepared)?;
            info!(revision, "took over");
        }
        engine.do_what_is_due()?;
        fault::started();
        Ok(engine)
    }

    /// What happens.
    pub fn events(&self) -> Events {
        self.events.clone()
    }

    /// What is in force, now and from now on.
    pub fn states(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// Reads the kernel's side, on any thread.
    pub fn reader(&self) -> Arc<Reader> {
        Arc::clone(self.datapath.reader())
    }

    /// The ring of events, once.
    ///
    /// # Errors
    ///
    /// When it was taken before.
    pub fn ring(&mut self) -> Result<Ring, DatapathError> {
        self.datapath.events()
    }

    /// The history.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// What is in force.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.state.borrow().snapshot)
    }

    /// Waits out the grace period of the last change, so that the next one need not.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn finish_change(&mut self) -> Result<(), DatapathError> {
        self.datapath.finish_change()
    }

    /// Whether a document has been read since this was asked last.
    pub(crate) fn has_read_a_document(&mut self) -> bool {
        std::mem::take(&mut self.read_a_document)
    }
}

// ── changes that people make ───────────────────────────────────────────────────────────────────

impl Engine {
    /// Puts a document in force.
    ///
    /// # Errors
    ///
    /// Why it was refused.
    pub fn apply(
        &mut self,
        policy: Policy,
        terms: &Terms,
        author: &Author,
    ) -> Result<Applied, Refusal> {
        self.accepts(terms)?;
        let prepared = self.prepare(policy)?;
        self.change(&Origin::Whole, prepared, &[], terms, author)
    }

    /// Puts and deletes objects of the document in force.
    ///
    /// # Errors
    ///
    /// Why it was refused.
    pub fn edit(&mut self, edit: Edit, terms: &Terms, author: &Author) -> Result<Applied, Refusal> {
        self.edit_with(edit, &[], terms, author)
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
            0 => self.store.previous_document(current)?,
            revision => revision,
        };
        let stored = match to {
            0 => return Err(Refusal::NothingBefore(current)),
            to => self.store.get(to)?.ok_or(Refusal::NoRevision(to))?,
        };
        if stored.policy.version == 0 {
            return Err(Refusal::NothingBefore(current));
        }
        let prepared = self.prepare(stored.policy)?;
        self.change(&Origin::Of(to), prepared, &[], &terms, author)
    }

    /// Keeps the change that waits for this.
    ///
    /// `arrived` is when the connection was made that the call came on.
    ///
    /// # Errors
    ///
    /// When another change waits, or none, or the connection is older than the change.
    pub fn confirm(&mut self, revision: u64, arrived: Instant) -> Result<Applied, Refusal> {
        let Some(pending) = self.state.borrow().pending.clone() else {
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
        self.state.send_modify(|state| state.pending = None);
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
        let was = current.quarantined.contains(device);
        let revision = self.commit(
            &Change {
                document: Document::Of(current.revision),
                extent: Extent::default(),
                facts: &[Fact::Quarantined(device, quarantined)],
                undo: &[Fact::Quarantined(device, was)],
                ids: &current.ids,
                author,
            },
            |engine, revision| {
                let amended = engine.amend(revision, known, quarantined);
                if amended.is_err()
                    && let Err(error) = engine.amend(current.revision, known, was)
                {
                    error!(%error, device, "the kernel may have a part of a refused quarantine");
                }
                let mut next = Snapshot::clone(&current);
                next.amended.extend(amended?);
                next.revision = revision;
                next.quarantined.clone_from(engine.store.quarantined());
                engine
                    .state
                    .send_modify(|state| state.snapshot = Arc::new(next));
                Ok(())
            },
        )?;
        let warnings = match known {
            Some(known) if quarantined => {
                quarantine::goes_on(&current.intent, known, &self.config.failsafe)
            }
            _ => Vec::new(),
        };
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

    /// Adds an allow rule with a lifetime.
    ///
    /// # Errors
    ///
    /// Why it was refused.
    pub fn grant(&mut self, request: GrantRequest, author: &Author) -> Result<Granted, Refusal> {
        let name = || Ok(format!("grant-{}", self.store.next()?));
        let policy = &self.snapshot().policy;
        let rule = grants::rule(request, name, policy, Timestamp::now())?;
        let (name, expires) = (rule.name.clone(), rule.expires);
        let facts = [Fact::Grant(&name, expires)];
        let applied = self
            .edit_with(rule.put(), &facts, &Terms::default(), author)
            .map_err(grants::in_request)?;
        Ok(Granted {
            applied,
            name,
            expires,
        })
    }

    /// Ends a grant before its time.
    ///
    /// # Errors
    ///
    /// Why it was refused.
    pub fn revoke(&mut self, name: &str, author: &Author) -> Result<Applied, Refusal> {
        let state = self.state.borrow().clone();
        if !state
            .snapshot
            .intent
            .rules
            .iter()
            .any(|rule| rule.name == name)
        {
            return Err(Refusal::missing("rule", name));
        }
        if !state.grants.iter().any(|grant| grant.name == name) {
            return Err(Refusal::NoGrant(name.to_owned()));
        }
        let edit = grants::delete(vec![name.to_owned()]);
        self.edit(edit, &Terms::default(), author)
    }
}

// ── what changes by itself ─────────────────────────────────────────────────────────────────────

impl Engine {
    /// Puts hooks and tables right, whether interfaces or addresses changed or not: a hook may have
    /// been taken off or become free, and an offload switched.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn set_inventory(&mut self, inventory: Inventory) -> Result<(), Refusal> {
        let state = self.state.borrow().clone();
        if inventory != *state.snapshot.inventory {
            return self.catch_up(inventory);
        }
        if state.snapshot.revision != 0 {
            let ports = guard(&mut self.datapath, &state.snapshot, &state.ports);
            self.state.send_modify(|state| state.ports = ports);
        }
        Ok(())
    }

    /// Puts hooks and tables right if interfaces or addresses changed.
    ///
    /// # Errors
    ///
    /// When the kernel refuses. Then what interfaces there are is as unknown as before, and the next
    /// call tries again.
    pub fn catch_up(&mut self, inventory: Inventory) -> Result<(), Refusal> {
        let mut current = Snapshot::clone(&self.snapshot());
        if inventory == *current.inventory {
            return Ok(());
        }
        current.inventory = Arc::new(inventory);
        if current.revision == 0 {
            self.state
                .send_modify(|state| state.snapshot = Arc::new(current));
            return Ok(());
        }
        let prepared = prepare::recompile(&current);
        self.enforce_on(&current, current.revision, prepared)
    }

    /// Ends flows that have timed out, also in buckets where no packet comes by, and does what else
    /// is due. To be called once a second.
    ///
    /// # Errors
    ///
    /// When the kernel or the store refuses; it is tried again the next time.
    pub fn sweep(&mut self) -> Result<(), Refusal> {
        self.do_what_is_due()?;
        let buckets = self.datapath.reader().buckets();
        Ok(self.datapath.sweep((buckets / 4).clamp(64, 65_536))?)
    }

    /// Has next hops be looked up again: routes or neighbours have changed.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn routes_changed(&mut self) -> Result<(), Refusal> {
        Ok(self.datapath.routes_changed()?)
    }

    /// Lets flows trust the next hops that they remember for one more second: after every change
    /// [`routes_changed`](Self::routes_changed) is called.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn extend_route_lease(&mut self) -> Result<(), Refusal> {
        Ok(self.datapath.extend_route_lease()?)
    }

    /// Does what is due: takes back a change that was not confirmed in time, and lets grants go that
    /// have ended.
    ///
    /// # Errors
    ///
    /// When something could not be done; it is tried again the next time.
    pub fn do_what_is_due(&mut self) -> Result<(), Refusal> {
        let pending = self.state.borrow().pending.clone();
        match pending {
            Some(pending) if pending.is_over(Instant::now()) => self.take_back(&pending),
            Some(_) => Ok(()),
            None => self.forget_ended_grants(Timestamp::now()),
        }
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
            None => {
                let nothing = prepare::nothing(&self.snapshot(), self.datapath.reader())?;
                (nothing, Origin::Whole)
            }
            Some(stored) => (self.prepare(stored.policy)?, Origin::Of(previous)),
        };
        let author = Author::daemon(
            "revert",
            format!("revision {revision} was not confirmed in time"),
        );
        let facts = [Fact::Meta(Pending::KEY, None)];
        let applied = self.change(&origin, prepared, &facts, &Terms::default(), &author)?;
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

    /// Takes grants that have ended out of the document.
    fn forget_ended_grants(&mut self, now: Timestamp) -> Result<(), Refusal> {
        let grants = Arc::clone(&self.state.borrow().grants);
        let ended = grants.iter().filter(|grant| grant.expires <= now);
        let ended: Vec<String> = ended.map(|grant| grant.name.clone()).collect();
        if ended.is_empty() {
            return Ok(());
        }
        let reason = format!("the grants {} have ended", ended.join(", "));
        let author = Author::daemon("expire", reason);
        let applied = self.edit(grants::delete(ended), &Terms::default(), &author)?;
        self.events.note(applied.revision, author.reason, now);
        Ok(())
    }
}

// ── the way of every change ────────────────────────────────────────────────────────────────────

impl Engine {
    /// Whether a change of the document may be made at all.
    fn accepts(&self, terms: &Terms) -> Result<(), Refusal> {
        let state = self.state.borrow();
        if let Some(pending) = &state.pending {
            return Err(Refusal::Pending {
                revision: pending.revision,
                confirm_by: pending.confirm_by,
            });
        }
        let current = state.snapshot.revision;
        match terms.base {
            0 => Ok(()),
            base if base == current => Ok(()),
            base => Err(Refusal::Stale { base, current }),
        }
    }

    fn prepare(&mut self, policy: impl Into<Arc<Policy>>) -> Result<Prepared, Refusal> {
        self.read_a_document = true;
        let current = self.snapshot();
        let (limits, reader) = (&self.config.limits, self.datapath.reader());
        prepare(policy.into(), &current, limits, reader)
    }

    fn edit_with(
        &mut self,
        edit: Edit,
        facts: &[Fact<'_>],
        terms: &Terms,
        author: &Author,
    ) -> Result<Applied, Refusal> {
        self.accepts(terms)?;
        let mut policy = Policy::clone(&self.snapshot().policy);
        let edited = edit::change(&mut policy, &edit).map_err(Refusal::of_edit)?;
        let policy = Arc::new(policy);
        let prepared = match self.prepare(Arc::clone(&policy)) {
            Err(Refusal::Invalid(problems)) => {
                let used = edit::used(&policy, &edit);
                return Err(if used.is_empty() {
                    Refusal::Invalid(edit::placed(&policy, &edited, problems))
                } else {
                    Refusal::Used(used)
                });
            }
            prepared => prepared?,
        };
        self.change(&Origin::Edit(edit), prepared, facts, terms, author)
    }

    /// Keeps a prepared document as the next revision, then puts it in force.
    fn change(
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
            Some(within) => Some(self.pending(current.revision, within)?),
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
        let revision = self.commit(&change, |engine, revision| {
            engine.enforce(revision, prepared)
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

    fn pending(&self, previous: u64, within: Duration) -> Result<Pending, Refusal> {
        let revision = self.store.next()?;
        Ok(Pending::new(revision, previous, within, Timestamp::now()))
    }

    /// Has the kernel cut a device off where its entries stand, or end that.
    fn amend(
        &mut self,
        revision: u64,
        device: Option<&Device>,
        quarantined: bool,
    ) -> Result<Amendment, DatapathError> {
        let Some(device) = device else {
            return Ok(Amendment::default());
        };
        let current = self.snapshot();
        let number = number_of(&current.ids, numbered::DEVICE, &device.name);
        let amendment = Amendment::quarantine(&current.tables, device, number, quarantined);
        self.datapath.amend(revision, number, &amendment)?;
        Ok(amendment)
    }

    fn enforce(&mut self, revision: u64, prepared: Prepared) -> Result<(), Refusal> {
        let current = self.snapshot();
        self.enforce_on(&current, revision, prepared)
    }

    /// Makes tables the ones that judge, puts hooks where they belong, and publishes both. `current`
    /// is what was in force, with the interfaces that there are now.
    fn enforce_on(
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
