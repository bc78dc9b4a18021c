//! What is in force and the rest of the engine's state: published as a whole, read by any thread.

use std::sync::Arc;

use wardline_policy::{document::EndingRule, snapshot::Snapshot};

use super::pending::Pending;

/// The state that the engine published last. Never changed, only replaced.
#[derive(Clone, Debug)]
pub struct State {
    /// The revision in force, on the interfaces that exist.
    pub snapshot: Arc<Snapshot>,
    /// The ports that exist, by interface.
    pub ports: Arc<[PortState]>,
    /// The change that waits for its confirmation.
    pub pending: Option<Pending>,
    /// The grants of the document in force.
    pub grants: Arc<[EndingRule]>,
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

impl State {
    /// The state of a revision before anything else is known.
    pub fn of(snapshot: Arc<Snapshot>) -> Self {
        Self {
            snapshot,
            ports: Arc::default(),
            pending: None,
            grants: Arc::default(),
        }
    }

    /// Warnings about ports that are not guarded.
    pub fn unguarded(&self) -> impl Iterator<Item = String> {
        let unguarded = self
            .ports
            .iter()
            .filter(|port| port.attached == Attached::None);
        unguarded.map(|port| format!("port {} is not guarded: {}", port.interface, port.reason))
    }
}
