//! The engine: what people and time ask to be changed, and whether it may be. How it is changed is
//! the business of `in_force`.
//!
//! It lives on a thread of its own ([`thread`](crate::thread)), because store and kernel block, and
//! does one thing at a time. How it begins is in [`start`]. Nothing that only reads asks it: states, [`Reader`] and
//! `prepare::prepare` are for any thread.

pub mod grants;
mod guard;
mod hooks;
pub mod hooks_first;
mod in_force;
mod lost;
mod names;
pub mod pending;
pub(crate) mod prepare;
mod quarantine;
mod reconcile;
mod records;
pub mod refusal;
mod rename;
pub mod start;
pub mod state;
pub mod terms;

use std::{sync::Arc, time::Instant};

use jiff::{Timestamp, Unit};
use tokio::sync::watch;
use tracing::{info, warn};
use wardline_datapath::{
    Reader,
    error::DatapathError,
    ring::{Clients, Ring},
};
use wardline_policy::{
    document::{Document as Policy, diff, edit::Edit, end_at},
    intent::Device,
    inventory::Inventory,
    limits::Limits,
    numbers::{number_of, numbered},
    quarantine::Whom,
    snapshot::Snapshot,
};

use self::{
    grants::{GrantRequest, Granted},
    hooks_first::HooksFirst,
    in_force::{Beside, Haste, InForce, Origin},
    pending::Pending,
    prepare::{Compiled, Fit, Prepared, on_interfaces, prepare},
    quarantine::Target,
    refusal::Refusal,
    state::State,
    terms::{Applied, Author, Terms},
};
use crate::{
    config::Config,
    parts::{Part, Parts},
    store::revision::Fact,
    telemetry::events::Events,
};

/// Most MACs, addresses and ports in quarantine.
const MOST_HELD: usize = 65_536;

/// What is in force, and what changes it.
pub struct Engine {
    config: Config,
    in_force: InForce,
    events: Events,
    parts: Parts,
    running_grants: grants::Running,
    /// Whether a document has been read since [`Engine::has_read_a_document`] was asked.
    read_a_document: bool,
}

// ── life ───────────────────────────────────────────────────────────────────────────────────────

impl Engine {
    /// What happens.
    pub fn events(&self) -> Events {
        self.events.clone()
    }

    /// What is in force, now and from now on.
    pub fn states(&self) -> watch::Receiver<State> {
        self.in_force.state.subscribe()
    }

    /// How much the tables hold: as configured, or as much as what was in force at the start needs.
    pub fn limits(&self) -> &Limits {
        &self.config.limits
    }

    /// Reads the kernel's side, on any thread.
    pub fn reader(&self) -> Arc<Reader> {
        Arc::clone(self.in_force.datapath.reader())
    }

    /// Guards what appears, on any thread.
    pub fn hooks_first(&self) -> HooksFirst {
        self.in_force.first.clone()
    }

    /// The ring of events, once.
    ///
    /// # Errors
    ///
    /// When it was taken before.
    pub fn ring(&mut self) -> Result<Ring, DatapathError> {
        self.in_force.datapath.events()
    }

    /// The ring of what DHCP clients say, once.
    ///
    /// # Errors
    ///
    /// When it was taken before.
    pub fn clients(&mut self) -> Result<Clients, DatapathError> {
        self.in_force.datapath.clients()
    }

    /// What is in force.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.in_force.snapshot()
    }

    /// Waits out the grace period of the last change, so that the next one need not.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn finish_change(&mut self) -> Result<(), DatapathError> {
        self.in_force.datapath.finish_change()
    }

    /// Whether a document has been read since this was asked last.
    pub(crate) fn has_read_a_document(&mut self) -> bool {
        std::mem::take(&mut self.read_a_document)
    }
}

// ── changes that people make ───────────────────────────────────────────────────────────────────

impl Engine {
    /// Puts a document in force. `compiled` is what was made of it on another thread, if that went well.
    ///
    /// # Errors
    ///
    /// Why it was refused.
    pub(crate) fn apply(
        &mut self,
        policy: Arc<Policy>,
        compiled: Option<Compiled>,
        terms: &Terms,
        author: &Author,
    ) -> Result<Applied, Refusal> {
        self.accepts(terms)?;
        let haste = Haste::RecordedFirst;
        let current = self.snapshot();
        let prepared = match compiled.filter(|compiled| compiled.follows(&current)) {
            Some(compiled) => {
                self.read_a_document = true;
                let reader = self.in_force.datapath.reader();
                on_interfaces(compiled, &current, reader, Fit::AllPorts)?
            }
            None => self.prepare(policy, haste)?,
        };
        if let Some(unchanged) = self.unchanged(&prepared) {
            return Ok(unchanged);
        }
        let applied = self.in_force.change(
            &Origin::Whole,
            prepared,
            Beside::default(),
            terms,
            author,
            haste,
        )?;
        self.parts.works(Part::Policy);
        Ok(applied)
    }

    /// Puts and deletes objects of the document in force.
    ///
    /// # Errors
    ///
    /// Why it was refused.
    pub fn edit(&mut self, edit: Edit, terms: &Terms, author: &Author) -> Result<Applied, Refusal> {
        self.edit_with(edit, &[], terms, author, Haste::RecordedFirst)
    }

    /// Edits the document in force by an edit that is made of it at that moment.
    ///
    /// # Errors
    ///
    /// Why it was refused.
    pub fn edit_by(
        &mut self,
        make: impl FnOnce(&Policy) -> Result<Edit, Refusal>,
        terms: &Terms,
        author: &Author,
    ) -> Result<Applied, Refusal> {
        let edit = make(&self.snapshot().policy)?;
        self.edit(edit, terms, author)
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
            0 => self.in_force.records.history().previous_document(current)?,
            revision => revision,
        };
        let stored = match to {
            0 => return Err(Refusal::NothingBefore(current)),
            to => self
                .in_force
                .records
                .history()
                .get(to)?
                .ok_or(Refusal::NoRevision(to))?,
        };
        if stored.policy.version == 0 {
            return Err(Refusal::NothingBefore(current));
        }
        let (origin, haste) = (Origin::Of(to), Haste::RecordedFirst);
        let prepared = self.prepare(stored.policy, haste)?;
        let applied =
            self.in_force
                .change(&origin, prepared, Beside::default(), &terms, author, haste)?;
        self.parts.works(Part::Policy);
        Ok(applied)
    }

    /// Keeps the change that waits for this.
    ///
    /// `arrived` is when the connection was made that the call came on.
    ///
    /// # Errors
    ///
    /// When another change waits, or none, or the connection is older than the change.
    pub fn confirm(&mut self, revision: u64, arrived: Instant) -> Result<Applied, Refusal> {
        let Some(pending) = self.in_force.state.borrow().pending.clone() else {
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
        self.in_force.records.set_meta(Pending::KEY, None)?;
        self.in_force.state.send_modify(|state| {
            state.pending = None;
            state.previous = None;
        });
        info!(revision, "confirmed");
        Ok(Applied {
            revision,
            parent: revision,
            ..Applied::default()
        })
    }

    /// Cuts a device or a port off, or ends that. The fewest writes: nothing is compiled, no slot is
    /// filled.
    ///
    /// # Errors
    ///
    /// Why it was refused.
    pub fn set_quarantine(
        &mut self,
        whom: &Whom,
        quarantined: bool,
        author: &Author,
    ) -> Result<Applied, Refusal> {
        // Nothing may be recorded as what follows a makeshift.
        self.has_policy()?;
        let current = self.snapshot();
        let target = Target::of(&current, whom, quarantined)?;
        let more = current.quarantined.len() + target.identities.len();
        if quarantined && more > MOST_HELD {
            return Err(Refusal::QuarantineFull(MOST_HELD));
        }
        self.hold(&target, quarantined, author)
    }

    /// Cuts off or releases who is known by these identities.
    fn hold(
        &mut self,
        target: &Target,
        quarantined: bool,
        author: &Author,
    ) -> Result<Applied, Refusal> {
        let current = self.snapshot();
        let mut applied = self.in_force.set_quarantine(target, quarantined, author)?;
        if quarantined {
            let mut devices = target.devices(&current);
            let seen = devices.next();
            let seen = seen.map_or_else(String::new, |it| self.last_seen_at(&current, it));
            let warnings = quarantine::warnings(&current, target, &seen, &self.config.failsafe);
            applied.warnings.extend(warnings);
        }
        info!(
            revision = applied.revision,
            whom = target.subject,
            quarantined,
            actor = author.actor,
            reason = author.reason,
            "quarantine"
        );
        Ok(applied)
    }

    /// The interface where a device was last seen; empty when that is not known.
    fn last_seen_at(&self, current: &Snapshot, device: &Device) -> String {
        let number = number_of(&current.ids, numbered::DEVICE, &device.name);
        let seen = self.in_force.datapath.reader().seen(number).ok().flatten();
        seen.map_or_else(String::new, |(_, ifindex)| {
            current.interface(ifindex).to_owned()
        })
    }

    /// Adds an allow rule with a lifetime.
    ///
    /// # Errors
    ///
    /// Why it was refused.
    pub fn grant(&mut self, request: GrantRequest, author: &Author) -> Result<Granted, Refusal> {
        let name = || Ok(format!("grant-{}", self.in_force.records.next()));
        let policy = &self.snapshot().policy;
        let lifetime = request.lifetime;
        let rule = grants::rule(request, name, policy, Timestamp::now())?;
        let (name, expires) = (rule.name.clone(), rule.expires);
        let facts = [Fact::Grant(&name, expires)];
        let (terms, haste) = (Terms::default(), Haste::RecordedFirst);
        let applied = self
            .edit_with(rule.put(), &facts, &terms, author, haste)
            .map_err(grants::in_request)?;
        self.running_grants.begin(&name, lifetime);
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
        let state = self.in_force.state.borrow().clone();
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
    pub fn set_inventory(&mut self, mut inventory: Inventory) -> Result<(), Refusal> {
        self.in_force.datapath.number(&mut inventory)?;
        if inventory == *self.snapshot().inventory {
            self.in_force.guard();
            return Ok(());
        }
        self.in_force.set_inventory(inventory)
    }

    /// Puts hooks and tables right if interfaces or addresses changed.
    ///
    /// # Errors
    ///
    /// When the kernel refuses. Then what interfaces there are is as unknown as before, and the next
    /// call tries again.
    pub fn catch_up(&mut self, mut inventory: Inventory) -> Result<(), Refusal> {
        self.in_force.datapath.number(&mut inventory)?;
        if inventory == *self.snapshot().inventory {
            return Ok(());
        }
        self.in_force.set_inventory(inventory)
    }

    /// Ends flows that have timed out, also in buckets where no packet comes by, and does what else
    /// is due. To be called once a second.
    ///
    /// # Errors
    ///
    /// When the kernel or the store refuses; it is tried again the next time.
    pub fn sweep(&mut self) -> Result<(), Refusal> {
        self.do_what_is_due()?;
        let buckets = self.in_force.datapath.reader().buckets();
        Ok(self
            .in_force
            .datapath
            .sweep((buckets / 4).clamp(64, 65_536))?)
    }

    /// Has rules end at the right time after the wall clock was set: the kernel counts in a time of
    /// its own.
    ///
    /// # Errors
    ///
    /// When the kernel refuses; the rules end as before then.
    pub fn clock_was_set(&mut self) -> Result<(), Refusal> {
        let clock = self.in_force.datapath.reader().clock()?;
        let ahead = clock.ahead_of(&self.snapshot().clock).round(Unit::Second);
        let ahead = ahead.unwrap_or_default();
        if ahead.is_zero() {
            return Ok(());
        }
        let direction = if ahead.is_positive() {
            "forward"
        } else {
            "back"
        };
        warn!(
            "the clock was set {direction} by {:#}; rules end by the new time",
            ahead.abs()
        );
        // What waits for a confirm comes first, and grants are moved when it is over.
        if self.in_force.state.borrow().pending.is_none()
            && let Err(refusal) = self.move_running_grants()
        {
            warn!(%refusal, "grants end by the new time, and not after the time they were given for");
        }
        self.in_force.set_clock(clock)
    }

    /// Says why the wall clock is not believed; none: it is.
    pub fn set_clock_doubt(&mut self, doubt: Option<String>) {
        self.in_force.state.send_if_modified(|state| {
            let changed = state.clock_doubt.as_deref() != doubt.as_deref();
            state.clock_doubt = doubt.map(Arc::from);
            changed
        });
    }

    /// Has next hops be looked up again: routes or neighbours have changed.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn routes_changed(&mut self) -> Result<(), Refusal> {
        Ok(self.in_force.datapath.routes_changed()?)
    }

    /// Lets flows trust the next hops that they remember for one more second: after every change
    /// [`routes_changed`](Self::routes_changed) is called.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn extend_route_lease(&mut self) -> Result<(), Refusal> {
        Ok(self.in_force.datapath.extend_route_lease()?)
    }

    /// Does what is due: takes back a change that was not confirmed in time, lets grants go that have
    /// ended, and records what could not be recorded.
    ///
    /// # Errors
    ///
    /// When something could not be done; it is tried again the next time.
    pub fn do_what_is_due(&mut self) -> Result<(), Refusal> {
        let pending = self.in_force.state.borrow().pending.clone();
        let done = match pending {
            Some(pending) if pending.is_over(Instant::now()) => self.take_back(&pending),
            Some(_) => Ok(()),
            None => self
                .move_running_grants()
                .and_then(|()| self.forget_ended_grants(Timestamp::now())),
        };
        let ids = Arc::clone(&self.snapshot().ids);
        self.in_force.records.try_again(&ids);
        self.in_force.publish_records();
        done
    }

    /// Puts what was in force before a change back in force.
    fn take_back(&mut self, pending: &Pending) -> Result<(), Refusal> {
        let Pending {
            revision, previous, ..
        } = *pending;
        // The document is in memory, because what takes back must not have to read.
        let kept = self.in_force.state.borrow().previous.clone();
        let returns = match (previous, kept) {
            // Before the first document there was nothing, which has a revision when it has returned.
            (0, _) => None,
            (_, Some(policy)) => Some(policy),
            (previous, None) => {
                let stored = self.in_force.records.history().get(previous)?;
                let stored = stored.ok_or(Refusal::NoRevision(previous))?;
                Some(Arc::new(stored.policy))
            }
        };
        let (prepared, origin) = match returns.filter(|policy| policy.version != 0) {
            None => {
                let nothing = prepare::nothing(&self.snapshot(), self.in_force.datapath.reader())?;
                (nothing, Origin::Whole)
            }
            Some(policy) => (self.prepare(policy, Haste::AtOnce)?, Origin::Of(previous)),
        };
        let author = Author::daemon(
            "revert",
            format!("revision {revision} was not confirmed in time"),
        );
        let facts = [Fact::Meta(Pending::KEY, None)];
        let (terms, haste) = (Terms::default(), Haste::AtOnce);
        let applied = self.in_force.change(
            &origin,
            prepared,
            Beside::of(&facts),
            &terms,
            &author,
            haste,
        )?;
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

    /// Has grants that were made since the start end when they should, after the wall clock was set.
    fn move_running_grants(&mut self) -> Result<(), Refusal> {
        let grants = Arc::clone(&self.in_force.state.borrow().grants);
        let now = Timestamp::now();
        let moved = self.running_grants.moved(&grants, now);
        if moved.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = moved.keys().map(String::as_str).collect();
        let reason = format!(
            "the clock was set: the grants {} last as long as they were given for",
            names.join(", ")
        );
        let author = Author::daemon("clock", reason);
        let facts: Vec<Fact<'_>> = moved
            .iter()
            .map(|(it, end)| Fact::Grant(it, *end))
            .collect();
        let edit = end_at(&self.snapshot().policy, &moved);
        let terms = Terms::default();
        let applied = self.edit_with(edit, &facts, &terms, &author, Haste::AtOnce)?;
        self.events.note(applied.revision, author.reason, now);
        Ok(())
    }

    /// Takes grants that have ended out of the document.
    fn forget_ended_grants(&mut self, now: Timestamp) -> Result<(), Refusal> {
        let grants = Arc::clone(&self.in_force.state.borrow().grants);
        let ended = grants.iter().filter(|grant| grant.expires <= now);
        let ended: Vec<String> = ended.map(|grant| grant.name.clone()).collect();
        if ended.is_empty() {
            return Ok(());
        }
        let reason = format!("the grants {} have ended", ended.join(", "));
        let author = Author::daemon("expire", reason);
        let (edit, terms) = (grants::delete(ended), Terms::default());
        let applied = self.edit_with(edit, &[], &terms, &author, Haste::AtOnce)?;
        self.events.note(applied.revision, author.reason, now);
        Ok(())
    }
}

// ── what they have in common ───────────────────────────────────────────────────────────────────

impl Engine {
    /// Whether what is in force is a policy, and no makeshift in its place.
    fn has_policy(&self) -> Result<(), Refusal> {
        match &self.in_force.state.borrow().failure {
            Some(why) => Err(Refusal::NoPolicy(Arc::clone(why))),
            None => Ok(()),
        }
    }

    /// Whether a change of the document may be made at all.
    fn accepts(&self, terms: &Terms) -> Result<(), Refusal> {
        // Without a confirm what was before would return, and that is no policy.
        if terms.confirm_within.is_some() {
            self.has_policy()?;
        }
        let state = self.in_force.state.borrow();
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

    /// The answer to a change that changes nothing, if this is one: it makes no revision. Ports are looked
    /// at again, because somebody may have mended what one of them lacked.
    fn unchanged(&mut self, prepared: &Prepared) -> Option<Applied> {
        let state = self.in_force.state.borrow().clone();
        let current = &state.snapshot;
        let is_policy =
            state.failure.is_none() && current.revision != 0 && current.policy.version != 0;
        let is_same = || diff::changes(&current.policy, &prepared.policy).is_empty();
        if !is_policy || !is_same() {
            return None;
        }
        self.in_force.guard();
        let state = self.in_force.state.borrow();
        let current = &state.snapshot;
        let mut warnings = prepared.intent.warnings.clone();
        warnings.extend(state.unguarded());
        Some(Applied {
            revision: current.revision,
            parent: current.revision,
            confirm_by: None,
            warnings,
            unchanged: true,
        })
    }

    fn prepare(
        &mut self,
        policy: impl Into<Arc<Policy>>,
        haste: Haste,
    ) -> Result<Prepared, Refusal> {
        self.read_a_document = true;
        let current = self.snapshot();
        let (limits, reader) = (&self.config.limits, self.in_force.datapath.reader());
        // What must not wait must not fail for a port that has appeared either.
        let fit = match haste {
            Haste::RecordedFirst => Fit::AllPorts,
            Haste::AtOnce => Fit::SomePorts,
        };
        prepare(policy.into(), &current, limits, reader, fit)
    }

    fn edit_with(
        &mut self,
        edit: Edit,
        facts: &[Fact<'_>],
        terms: &Terms,
        author: &Author,
        haste: Haste,
    ) -> Result<Applied, Refusal> {
        self.accepts(terms)?;
        self.has_policy()?;
        let (policy, edited) = Refusal::or_edited(&self.snapshot().policy, &edit)?;
        let prepared = self.prepare(Arc::clone(&policy), haste);
        let prepared = prepared.map_err(|refusal| refusal.in_edit(&policy, &edit, &edited))?;
        if haste == Haste::RecordedFirst
            && facts.is_empty()
            && let Some(unchanged) = self.unchanged(&prepared)
        {
            return Ok(unchanged);
        }
        self.in_force.change(
            &Origin::Edit(edit),
            prepared,
            Beside::of(facts),
            terms,
            author,
            haste,
        )
    }
}
