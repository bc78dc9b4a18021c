//! The ports of a router that has lost its policy, while the kernel goes on by the tables that it has.
//!
//! These tables don't know an interface that appears. One with the name of a port is shut, unless
//! ports are to be open then: its hooks drop everything, because no table has an entry for it.

use std::{collections::BTreeSet, sync::Arc};

use wardline_datapath::{
    Hook,
    attach::{Hooks, Way},
};
use wardline_policy::{inventory::Link, snapshot::Snapshot};

use super::{
    hooks::way,
    state::{Attached, PortState, Shut},
};

/// The names of ports: those that are known, and those of interfaces that have hooks.
pub(super) fn names(
    hooks: &Hooks,
    snapshot: &Snapshot,
    known: &BTreeSet<String>,
) -> BTreeSet<String> {
    let attached = hooks.attached().unwrap_or_default();
    let links = snapshot.inventory.links.values();
    let guarded = links.filter(|link| attached.contains(&link.ifindex));
    let guarded = guarded.map(|link| link.name.clone());
    known.iter().cloned().chain(guarded).collect()
}

/// Shuts those of the ports that have no hooks, and returns how each is.
pub(super) fn shut_fresh(
    hooks: &Hooks,
    links: impl Iterator<Item = Link>,
    names: &BTreeSet<String>,
) -> Arc<[PortState]> {
    let ports: Vec<Link> = links.filter(|link| names.contains(&link.name)).collect();
    if ports.is_empty() {
        return Arc::default();
    }
    hooks.look();
    let way = way(ports.len());
    let mut states: Vec<PortState> = ports.into_iter().map(|it| state(hooks, way, it)).collect();
    states.sort_by(|a, b| a.interface.cmp(&b.interface));
    states.into()
}

fn state(hooks: &Hooks, way: Way, link: Link) -> PortState {
    let on = hooks.on(link.ifindex).unwrap_or_default();
    let is_judged = !on.is_empty() && !hooks.is_shut(link.ifindex).unwrap_or(false);
    let (attached, shut, reason) = if is_judged {
        let attached = if on.contains(&Hook::Xdp) {
            Attached::Xdp
        } else {
            Attached::Tc
        };
        (attached, Shut::No, "the policy is lost".to_owned())
    } else {
        match hooks.shut(way, link.ifindex) {
            Ok(()) => (
                Attached::None,
                Shut::Dropped,
                "the policy is lost, and the kernel's tables do not have this interface; shut until a \
                 policy is applied"
                    .to_owned(),
            ),
            Err(error) => (
                Attached::None,
                Shut::No,
                format!("the policy is lost, and it can't be shut: {error}"),
            ),
        }
    };
    PortState {
        interface: link.name,
        ifindex: link.ifindex,
        number: link.number,
        zone: String::new(),
        attached,
        reason,
        shut,
        fast_forward: false,
        warnings: Vec::new(),
    }
}
