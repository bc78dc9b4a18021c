//! What the engine enforces first: the last policy in force, or what stands in for it.
//!
//! Everything that it needs is an argument and in memory, so that neither a disk nor a network can
//! keep the router unguarded.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use jiff::Timestamp;
use tokio::sync::watch;
use tracing::{error, info, warn};
use wardline_datapath::{
    Datapath, fault, pinned,
    pins::{self, Life},
};
use wardline_policy::{
    document::{Document as Policy, closed::closed},
    failsafe::Failsafe,
    intent::Intent,
    inventory::Inventory,
    limits::Limits,
    snapshot::Snapshot,
    tables::Tables,
};

use super::{
    Engine,
    grants::Running,
    hooks_first::HooksFirst,
    in_force::{InForce, Waiting, fresh_ports},
    lost,
    pending::Pending,
    prepare::{Fit, prepare},
    records::Records,
    refusal::Refusal,
    state::State,
};
use crate::{
    config::{Config, OnFailure},
    parts::{Part, Parts},
    store::{enforced::Enforced, history::History},
    telemetry::{events::Events, journal::Journal},
};

/// What is known of the time before the start.
pub struct Before {
    /// What was in force; none: nothing was, or nothing of it can be read.
    pub enforced: Option<Enforced>,
    /// Why nothing can be read of what was in force, if something was.
    pub lost: Option<String>,
    /// The names of the ports that were guarded.
    pub guarded: BTreeSet<String>,
    /// The history, whose database need not be open.
    pub history: History,
}

impl Engine {
    /// Loads the datapath and enforces what was in force before. When that can't be had, what the
    /// kernel still judges by goes on; when it judges by nothing, the ports that were guarded are
    /// closed or open, as the configuration says.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to load.
    pub fn start(
        mut config: Config,
        mut inventory: Inventory,
        before: Before,
        parts: Parts,
    ) -> Result<Self, Refusal> {
        let pins: &Path = &config.pin_dir;
        if let Some(enforced) = &before.enforced {
            config.limits = raised(config.limits, &enforced.policy);
        }
        let mut datapath = Datapath::open(Some(pins), &config.limits, &config.timeouts)?;
        let notice = short_life(pins);
        let failsafe: Arc<[_]> = config.failsafe.iter().flat_map(Failsafe::entries).collect();
        datapath.set_failsafe(&failsafe)?;
        datapath.number(&mut inventory)?;
        let clock = datapath.reader().clock()?;
        // A port that is shut stays so until its hooks are looked at again.
        let hooks = datapath.hooks().clone();
        hooks.look();
        let links = inventory.links.values();
        let shut = links.filter(|link| hooks.is_shut(link.ifindex).unwrap_or(false));
        let tables = Tables {
            shut: shut.map(|link| link.number).collect(),
            ..Tables::default()
        };
        let mut nothing = Snapshot::new(
            0,
            Policy::default(),
            Intent::default(),
            inventory,
            Default::default(),
            Arc::default(),
            tables,
            clock,
            None,
        );
        nothing.failsafe = failsafe;
        let mut state = State::of(Arc::new(nothing));
        state.guarded = Arc::new(before.guarded.clone());
        state.notices = notice.into_iter().collect();
        let (state, states) = watch::channel(state);
        let on_failure = config.on_failure;
        let first = HooksFirst::new(hooks, states.clone());
        let events = Events::new(states, Journal::new(&config.state_dir, config.journal));
        let mut engine = Self {
            config,
            in_force: InForce {
                records: Records::new(before.history, parts.clone()),
                datapath,
                base: None,
                on_failure,
                first,
                events: events.clone(),
                state,
            },
            events,
            parts,
            running_grants: Running::default(),
            read_a_document: false,
        };
        let judged_by = match engine.in_force.datapath.judged_by()? {
            Some(revision) => Some(revision),
            None => pinned::judged_by(&engine.config.pin_dir)?,
        };
        match (before.enforced, before.lost) {
            (Some(enforced), _) => {
                engine.in_force.records.go_on_from(&enforced);
                if let Err(refusal) = engine.take_over(&enforced) {
                    let why = format!(
                        "revision {} can't be enforced: {}",
                        enforced.revision,
                        refusal.in_full()
                    );
                    engine.make_do(&why, judged_by, &before.guarded);
                }
            }
            (None, Some(lost)) => engine.make_do(&lost, judged_by, &before.guarded),
            (None, None) => {
                if let Some(revision) = judged_by {
                    let why = format!(
                        "the kernel judges by revision {revision}, and neither a copy nor the \
                         database has it"
                    );
                    engine.make_do(&why, judged_by, &before.guarded);
                }
            }
        }
        Ok(engine)
    }

    /// Does what became due before the start; the database has been tried by then, because it may
    /// know that a change was confirmed.
    ///
    /// # Errors
    ///
    /// When something could not be done; it is tried again once a second.
    pub fn begin(&mut self) -> Result<(), Refusal> {
        let done = self.do_what_is_due();
        fault::started();
        done
    }

    /// Puts in force what was in force before.
    ///
    /// # Errors
    ///
    /// When the document is refused, or the kernel refuses.
    pub(super) fn take_over(&mut self, enforced: &Enforced) -> Result<(), Refusal> {
        let Enforced {
            revision,
            policy,
            ids,
            quarantined,
            ..
        } = enforced;
        self.read_a_document = true;
        let base = {
            let current = self.snapshot();
            let mut base = Snapshot::new(
                current.revision,
                Arc::clone(&current.policy),
                Arc::clone(&current.intent),
                Arc::clone(&current.inventory),
                quarantined.clone(),
                Arc::clone(ids),
                Arc::clone(&current.tables),
                self.in_force.datapath.reader().clock()?,
                None,
            );
            base.failsafe = Arc::clone(&current.failsafe);
            base
        };
        let pending = match enforced.pending.as_deref().map(str::parse::<Pending>) {
            None => None,
            Some(Ok(pending)) => Some(pending.taken_over(base.clock.now)),
            // The rest is in force all the same; there is only nothing that could be taken back.
            Some(Err(_)) => {
                error!(pending = ?enforced.pending, "not a pending change");
                None
            }
        };
        let waiting = Waiting {
            pending,
            previous: enforced.previous.clone(),
            is_fresh: false,
        };
        if policy.version == 0 {
            // A document without a version is what is in force before the first.
            let mut nothing = base;
            nothing.revision = *revision;
            self.in_force.state.send_modify(|state| {
                state.snapshot = Arc::new(nothing);
                state.pending = waiting.pending;
                state.previous = waiting.previous;
                state.known_grants = Arc::clone(self.in_force.records.grants());
                state.owed = self.in_force.records.owed().into();
                state.failure = None;
            });
            return Ok(());
        }
        let (limits, reader) = (&self.config.limits, self.in_force.datapath.reader());
        let prepared = prepare(Arc::clone(policy), &base, limits, reader, Fit::SomePorts)?;
        if self.in_force.datapath.is_first() {
            self.restore_names(&prepared.ids);
            let ports = fresh_ports(&self.snapshot(), &prepared);
            self.in_force.datapath.hooks().adopt(ports);
        }
        self.in_force
            .enforce_on(&base, *revision, prepared, Some(waiting))?;
        self.parts.works(Part::Policy);
        info!(revision, "took over");
        Ok(())
    }

    /// Stands in for a policy that can't be had.
    fn make_do(&mut self, why: &str, judged_by: Option<u64>, guarded: &BTreeSet<String>) {
        self.in_force.datapath.distrust_numbers();
        let consequence = match (judged_by, self.config.on_failure) {
            (Some(revision), OnFailure::Open) => format!(
                "the kernel goes on judging by revision {revision}; ports that appear are not guarded"
            ),
            (Some(revision), OnFailure::Closed) => {
                let hooks = self.in_force.first.hooks();
                let names = lost::names(hooks, &self.snapshot(), guarded);
                self.in_force
                    .state
                    .send_modify(|state| state.lost_ports = names.into());
                self.in_force.shut_fresh_ports();
                format!(
                    "the kernel goes on judging by revision {revision}; a port that appears is shut"
                )
            }
            (None, OnFailure::Open) => "no port is guarded, as on_failure says".to_owned(),
            (None, OnFailure::Closed) if guarded.is_empty() => {
                "no port is known to have been guarded, so none is closed".to_owned()
            }
            (None, OnFailure::Closed) => {
                let names: Vec<&str> = guarded.iter().map(String::as_str).collect();
                match self.close(&names) {
                    Ok(()) => format!("closed: {}", names.join(", ")),
                    Err(refusal) => format!(
                        "ports can't be closed: {}; not guarded: {}",
                        refusal.in_full(),
                        names.join(", ")
                    ),
                }
            }
        };
        let failure = format!("{why}; {consequence}; apply a policy");
        self.parts.breaks(Part::Policy, &failure, None);
        let now = Timestamp::now();
        self.events.note(0, failure.clone(), now);
        self.in_force
            .state
            .send_modify(|state| state.failure = Some(failure.into()));
    }

    /// Lets nothing pass at these ports but the failsafe and the router's own control.
    fn close(&mut self, names: &[&str]) -> Result<(), Refusal> {
        let current = self.snapshot();
        let document = closed(names.iter().copied());
        let (limits, reader) = (&self.config.limits, self.in_force.datapath.reader());
        let prepared = prepare(Arc::new(document), &current, limits, reader, Fit::SomePorts)?;
        self.in_force.enforce_on(&current, 0, prepared, None)
    }
}

/// Tells in the log whether pins end with the daemon's mount namespace; returns what the operator should
/// see in the status.
fn short_life(pins: &Path) -> Option<String> {
    let path = pins.display();
    match pins::life(pins) {
        Life::Lasting => None,
        Life::Short => {
            let notice = format!(
                "{path} is in a BPF file system that only the daemon's own mount namespace has (ip netns \
                 exec, unshare -m, a container): when its last process ends, all ports are unguarded; \
                 start wardlined where the router's own /sys/fs/bpf is mounted"
            );
            warn!("{notice}");
            Some(notice)
        }
        // The unit of the package hides other processes, so this is no sign of anything wrong.
        Life::Unknown => {
            info!("{path}: whether its pins outlive this mount namespace can't be seen from here");
            None
        }
    }
}

/// The limits, raised to what is in force already: a limit refuses changes, and never leaves a router
/// without its policy.
fn raised(limits: Limits, policy: &Policy) -> Limits {
    let at_least = |name: &str, limit: u32, count: usize| {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        if count > limit {
            warn!(
                "limits.{name} is {limit}, and the policy in force has {count}; it stays in force"
            );
        }
        limit.max(count)
    };
    let ends = policy.rules.iter().flat_map(|rule| &rule.to);
    let names: BTreeSet<&String> = ends.filter(|it| it.starts_with("name:")).collect();
    Limits {
        names: at_least("names", limits.names, names.len()),
        devices: at_least("devices", limits.devices, policy.devices.len()),
        rules: at_least("rules", limits.rules, policy.rules.len()),
        ..limits
    }
}
