//! Puts hooks on the ports that exist, and takes them off all other interfaces.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tracing::warn;
use wardline_datapath::{Datapath, Hook, error::AttachError, far_end, fast_forward, offload};
use wardline_ebpf::abi;
use wardline_policy::{
    intent::{Attach, Port},
    inventory::{Header, Link},
    numbers::numbered,
    snapshot::Snapshot,
};

use super::state::{Attached, PortState};

/// Why a port is not guarded when [`abi::INTERFACES`] are not enough.
const NO_NUMBER: &str = "4096 other interfaces have an index of 16384 or more, and there is no room \
                         for another; remove interfaces that are not used";

/// Guards the ports of a snapshot, and returns how each is guarded. `before` is how they were
/// guarded, so that a port which stays unguarded is logged only once.
pub(super) fn guard(
    datapath: &mut Datapath,
    snapshot: &Snapshot,
    before: &[PortState],
) -> Arc<[PortState]> {
    let mut states = Vec::new();
    let mut forwards = BTreeMap::new();
    for link in snapshot.inventory.links.values() {
        let Some(port) = snapshot.intent.port_for(&link.name) else {
            continue;
        };
        let entry = snapshot.tables.ports.get(&link.number);
        let (attached, reason) = match entry {
            Some(_) => guard_port(datapath, link, port),
            None => (Attached::None, NO_NUMBER.to_owned()),
        };
        if port.fast_forward {
            forwards.insert(link.number, attached == Attached::Xdp);
        }
        let zone = entry.map_or(0, |entry| entry.zone);
        let zone = snapshot.name(numbered::ZONE, u32::from(zone));
        states.push(PortState {
            interface: link.name.clone(),
            ifindex: link.ifindex,
            number: link.number,
            zone: zone.to_owned(),
            attached,
            reason,
            fast_forward: false,
            warnings: Vec::new(),
        });
    }
    for state in &states {
        let known = before.iter().any(|it| {
            it.ifindex == state.ifindex
                && it.attached == Attached::None
                && it.reason == state.reason
        });
        if state.attached == Attached::None && !known {
            warn!(
                port = state.interface,
                reason = state.reason,
                "port is not guarded"
            );
        }
    }
    release_others(datapath, snapshot);
    // After the hooks, because a driver accepts frames sent from XDP only once XDP is on the port.
    let roads = fast_forward::roads(&forwards, &snapshot.inventory, &snapshot.tables);
    if let Err(error) = datapath.set_forwarding(&roads.open) {
        warn!(%error, "what may be forwarded in the driver is not as it should be");
    }
    for state in &mut states {
        state.fast_forward =
            forwards.contains_key(&state.number) && roads.open.contains_key(&state.number);
        if let Some(why) = roads.refused.get(&state.number) {
            let and = if state.reason.is_empty() { "" } else { "; " };
            state.reason += &format!("{and}no fast-forward: {why}");
        }
    }
    warn_of_far_ends(&mut states, snapshot);
    states.sort_by(|a, b| a.interface.cmp(&b.interface));
    states.into()
}

/// Adds what the far ends of guarded virtual ports may do.
fn warn_of_far_ends(states: &mut [PortState], snapshot: &Snapshot) {
    let guarded = states.iter().filter(|it| it.attached != Attached::None);
    let ports: Vec<(&Link, bool)> = guarded
        .filter_map(|it| {
            let link = snapshot.inventory.links.get(&it.number)?;
            Some((link, it.fast_forward))
        })
        .collect();
    let mut warnings = far_end::warnings(&ports);
    for state in states {
        state.warnings = warnings.remove(&state.ifindex).unwrap_or_default();
    }
}

/// Takes hooks off interfaces that are not ports.
fn release_others(datapath: &mut Datapath, snapshot: &Snapshot) {
    let links = snapshot.inventory.links.values();
    let guarded = links.filter(|link| {
        let port = snapshot.tables.ports.get(&link.number);
        port.is_some_and(|port| port.flags & abi::Port::GUARDED != 0)
    });
    let guarded: BTreeSet<u32> = guarded.map(|link| link.ifindex).collect();
    let attached = match datapath.attached() {
        Ok(attached) => attached,
        Err(error) => {
            warn!(%error, "hooks may stay on interfaces that are no ports");
            return;
        }
    };
    for index in attached.difference(&guarded) {
        if let Err(error) = datapath.attach(*index, &[]) {
            warn!(ifindex = index, %error, "hooks stay on an interface");
        }
    }
}

/// Attaches a port in the best way that its policy and its interface allow; returns which, and why.
fn guard_port(datapath: &mut Datapath, link: &Link, port: &Port) -> (Attached, String) {
    const TC: &[Hook] = &[Hook::TcIngress, Hook::TcEgress];
    let ifindex = link.ifindex;
    let bare = match link.header {
        Header::Ethernet => None,
        Header::Bare => Some("no XDP: its packets have no Ethernet header".to_owned()),
        Header::Other(kind) => {
            let why = format!("its packets begin neither with Ethernet nor with IP (type {kind})");
            return (Attached::None, why);
        }
    };
    let outside = offload::tags_outside(link);
    let tagged = !port.vlans.is_empty();
    // A port without VLANs drops tagged frames. XDP does that only for tags that it sees, so
    // another hook drops the rest.
    let xdp: &[Hook] = match &outside {
        Some(_) if !tagged => &[Hook::Tags, Hook::Xdp, Hook::TcEgress],
        _ => &[Hook::Xdp, Hook::TcEgress],
    };
    let blind = bare.or(outside.filter(|_| tagged));
    // If TC judges already, a foreign program that appears on the XDP hook is no reason to stop
    // guarding.
    let at_tc = TC
        .iter()
        .all(|hook| datapath.is_attached(ifindex, *hook).unwrap_or(false));
    let mut attach = |hooks: &[Hook]| datapath.attach(ifindex, hooks);
    let failed = match (port.attach, blind) {
        (Attach::Auto, Some(blind)) => match attach(TC) {
            Ok(()) => return (Attached::Tc, blind),
            Err(error) => error.to_string(),
        },
        (Attach::Auto, None) => match attach(xdp) {
            Ok(()) => return (Attached::Xdp, String::new()),
            Err(taken @ AttachError::Taken(_)) if !at_tc => taken.to_string(),
            Err(no_xdp) => match attach(TC) {
                Ok(()) => return (Attached::Tc, format!("no XDP: {no_xdp}")),
                Err(error) => error.to_string(),
            },
        },
        (Attach::Tc, _) => match attach(TC) {
            Ok(()) => return (Attached::Tc, "asked for".to_owned()),
            Err(error) => error.to_string(),
        },
        (Attach::Xdp, Some(blind)) if link.header == Header::Bare => {
            format!("{blind}; leave out `attach: xdp`, and it is judged at TC")
        }
        (Attach::Xdp, Some(blind)) => blind,
        (Attach::Xdp, None) => match attach(xdp) {
            Ok(()) => return (Attached::Xdp, "asked for".to_owned()),
            Err(error) => error.to_string(),
        },
    };
    // A port with only some of its hooks would judge replies without having seen the requests.
    match datapath.attach(ifindex, &[]) {
        Ok(()) => (Attached::None, failed),
        Err(error) => (Attached::None, format!("{failed}; {error}")),
    }
}
