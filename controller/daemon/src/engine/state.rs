//! What is in force and the rest of the engine's state: published as a whole, read by any thread.

use std::{collections::BTreeSet, sync::Arc};

use wardline_policy::{
    absent::absent,
    document::{Document, EndingRule},
    intent::Intent,
    snapshot::Snapshot,
};

use super::{pending::Pending, records::Grants};
use crate::store::{enforced::Enforced, owed::Owed};

/// Whether there is no policy, and nothing in its place, so that no hook is the daemon's matter.
pub(super) fn guards_nothing(snapshot: &Snapshot) -> bool {
    snapshot.revision == 0 && snapshot.policy.version == 0
}

/// The state that the engine published last. Never changed, only replaced.
#[derive(Clone, Debug)]
pub struct State {
    /// The revision in force, on the interfaces that exist.
    pub snapshot: Arc<Snapshot>,
    /// The ports that exist, by interface.
    pub ports: Arc<[PortState]>,
    /// The change that waits for its confirmation.
    pub pending: Option<Pending>,
    /// The document that returns when that change is not confirmed; none: no policy returns.
    pub previous: Option<Arc<Document>>,
    /// The grants of the document in force.
    pub grants: Arc<[EndingRule]>,
    /// All rules that a grant ever made, with their ends.
    pub known_grants: Arc<Grants>,
    /// What is in force and not in the database yet.
    pub owed: Arc<[Owed]>,
    /// The names of the interfaces that this policy guards or has guarded.
    pub guarded: Arc<BTreeSet<String>>,
    /// Why the last policy in force could not be enforced; then no copy is made of what is.
    pub failure: Option<Arc<str>>,
    /// The names of the ports that are shut when they appear, while the policy is lost.
    pub lost_ports: Arc<BTreeSet<String>>,
    /// Why the wall clock is not believed; none: it is.
    pub clock_doubt: Option<Arc<str>>,
    /// What the operator should know of the start.
    pub notices: Arc<[String]>,
}

/// A port of the policy whose interface exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortState {
    /// Its interface.
    pub interface: String,
    /// The interface's index in the kernel.
    pub ifindex: u32,
    /// Its number in Wardline's tables.
    pub number: u32,
    /// The zone of its untagged frames; empty: none.
    pub zone: String,
    /// The hook that judges packets that enter.
    pub attached: Attached,
    /// Why it is attached so, or not at all.
    pub reason: String,
    /// What keeps packets from passing while it is not guarded.
    pub shut: Shut,
    /// Whether packets of answered flows may be forwarded in the driver.
    pub fast_forward: bool,
    /// What its far end may do that changes what was judged, and how to turn it off.
    pub warnings: Vec<String>,
}

/// The hook that judges packets that enter a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attached {
    /// In the driver.
    Xdp,
    /// Above the driver.
    Tc,
    /// Nowhere: the port is not guarded.
    None,
}

/// What keeps packets from passing a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shut {
    /// Nothing: it is guarded, or open.
    No,
    /// Hooks at TC that drop all but the failsafe.
    Dropped,
    /// The daemon has taken it down.
    Down,
}

impl State {
    /// The state of a revision before anything else is known.
    pub fn of(snapshot: Arc<Snapshot>) -> Self {
        Self {
            snapshot,
            ports: Arc::default(),
            pending: None,
            previous: None,
            grants: Arc::default(),
            known_grants: Arc::default(),
            owed: Arc::default(),
            guarded: Arc::default(),
            failure: None,
            lost_ports: Arc::default(),
            clock_doubt: None,
            notices: Arc::default(),
        }
    }

    /// All that is needed to put the same in force without the database; none: no policy was ever in
    /// force, or what is in force is only a makeshift.
    pub fn enforced(&self) -> Option<Enforced> {
        if self.snapshot.revision == 0 || self.failure.is_some() {
            return None;
        }
        Some(Enforced {
            revision: self.snapshot.revision,
            policy: Arc::clone(&self.snapshot.policy),
            ids: Arc::clone(&self.snapshot.ids),
            quarantined: self.snapshot.quarantined.clone(),
            grants: Grants::clone(&self.known_grants),
            pending: self.pending.as_ref().map(Pending::to_string),
            previous: self.previous.clone(),
            guarded: BTreeSet::clone(&self.guarded),
            owed: self.owed.to_vec(),
        })
    }

    /// Warnings about ports of the policy in force that are not guarded, or not there.
    pub fn unguarded(&self) -> Vec<String> {
        self.unguarded_in(&self.snapshot.intent)
    }

    /// The same for another policy: of its ports, those that are not guarded at present or not there.
    pub fn unguarded_in(&self, intent: &Intent) -> Vec<String> {
        let unguarded = self.ports.iter().filter(|port| {
            port.attached == Attached::None && intent.port_for(&port.interface).is_some()
        });
        let unguarded = unguarded
            .map(|port| format!("port {} is not guarded: {}", port.interface, port.reason));
        let absent = absent(intent, &self.snapshot.inventory);
        unguarded.chain(absent).collect()
    }
}
