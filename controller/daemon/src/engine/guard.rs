//! Puts hooks on the ports that exist, and takes them off all other interfaces.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tracing::{info, warn};
use wardline_datapath::{Datapath, Hook, error::AttachError, far_end, fast_forward, offload};
use wardline_policy::{
    intent::{Attach, Intent, Port},
    inventory::{Header, Link},
    snapshot::Snapshot,
};

use super::state::{Attached, PortState, Shut};
use crate::config::OnFailure;

/// Why a port is not guarded when the numbers for interfaces are not enough.
const NO_NUMBER: &str = "4096 other interfaces have an index of 16384 or more, and there is no room \
                         for another; remove interfaces that are not used";

/// How the ports of a snapshot are guarded.
pub(super) struct Guarded {
    pub(super) states: Arc<[PortState]>,
    /// The ports at which the tables are to let nothing pass, by number.
    pub(super) shut: BTreeSet<u32>,
}

/// Guards the ports of a snapshot, those first that are not guarded yet. `before` is how they were
/// guarded, so that a port which stays unguarded is logged only once. `met` tells of interfaces that
/// have hooks and may be missing in the snapshot because they are newer.
pub(super) fn guard(
    datapath: &mut Datapath,
    snapshot: &Snapshot,
    before: &[PortState],
    on_failure: OnFailure,
    met: &impl Fn(u32) -> bool,
) -> Guarded {
    let (mut states, mut shut) = (Vec::new(), BTreeSet::new());
    let mut forwards = BTreeMap::new();
    let (intent, tables) = (&snapshot.intent, &snapshot.tables);
    let was_guarded = before.iter().filter(|it| it.attached != Attached::None);
    let was_guarded: BTreeSet<u32> = was_guarded.map(|it| it.ifindex).collect();
    let mut links: Vec<&Link> = snapshot.inventory.links.values().collect();
    links.sort_by_key(|link| was_guarded.contains(&link.ifindex));
    for link in links {
        let Some(port) = intent.port_for(&link.name) else {
            continue;
        };
        let refused = match tables.refused.get(&link.number) {
            Some(no_room) => Some(no_room.to_string()),
            None => (!tables.guards(link.number)).then(|| NO_NUMBER.to_owned()),
        };
        let attached = match refused {
            None => attach(datapath, link, port),
            Some(why) => Err(why),
        };
        let (attached, reason, closed) = match attached {
            Ok((hook, why)) => (hook, open(datapath, link, why), Shut::No),
            Err(why) => {
                let is_open = on_failure == OnFailure::Open || observes(intent, port);
                let (closed, reason) = give_up(datapath, link, is_open, &why);
                (Attached::None, reason, closed)
            }
        };
        if closed == Shut::Dropped {
            shut.insert(link.number);
        }
        if port.fast_forward {
            forwards.insert(link.number, attached == Attached::Xdp);
        }
        let zone = port.zone.map(|zone| intent.zones[zone.0].name.clone());
        states.push(PortState {
            interface: link.name.clone(),
            ifindex: link.ifindex,
            number: link.number,
            zone: zone.unwrap_or_default(),
            attached,
            reason,
            shut: closed,
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
    release_others(datapath, snapshot, &states, met);
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
    Guarded {
        states: states.into(),
        shut,
    }
}

/// Whether everything at a port is only observed, so that nothing may be dropped there.
pub(super) fn observes(intent: &Intent, port: &Port) -> bool {
    let mut zones = port.zone.iter().chain(port.vlans.values());
    zones.all(|zone| intent.zones[zone.0].observe)
}

/// Lets packets pass a port that was taken down and is guarded now; returns why it is as it is.
fn open(datapath: &mut Datapath, link: &Link, why: String) -> String {
    if !datapath.is_taken_down(link.ifindex, &link.name) {
        return why;
    }
    match datapath.bring_up(link.ifindex, &link.name) {
        Ok(()) => {
            info!(port = link.name, "brought up again");
            why
        }
        Err(error) => format!("{why}; it was taken down, and {error}"),
    }
}

/// Shuts a port that can't be guarded, unless such ports are to be open. Returns how, and why.
fn give_up(datapath: &mut Datapath, link: &Link, is_open: bool, why: &str) -> (Shut, String) {
    let ifindex = link.ifindex;
    if is_open {
        // A port with only some of its hooks would judge replies without having seen the requests.
        let why = match datapath.attach(ifindex, &[]) {
            Ok(()) => why.to_owned(),
            Err(error) => format!("{why}; {error}"),
        };
        return (Shut::No, open(datapath, link, why));
    }
    let no_drop = match datapath.shut(ifindex) {
        Ok(()) => {
            let why = format!("{why}; shut until then: all but the failsafe is dropped at TC");
            return (Shut::Dropped, open(datapath, link, why));
        }
        Err(error) => format!("{why}; nor can it be dropped at TC: {error}"),
    };
    if !link.up {
        let is_ours = datapath.is_taken_down(ifindex, &link.name);
        return if is_ours {
            (
                Shut::Down,
                format!("{no_drop}; shut until then: taken down"),
            )
        } else {
            (Shut::No, format!("{no_drop}; it is down, and stays so"))
        };
    }
    match datapath.take_down(ifindex, &link.name) {
        Ok(()) => (
            Shut::Down,
            format!("{no_drop}; shut until then: taken down"),
        ),
        Err(error) => (Shut::No, format!("{no_drop}; {error}; it is open")),
    }
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

/// Takes hooks off interfaces that are not ports, and brings those up that were taken down as such.
fn release_others(
    datapath: &mut Datapath,
    snapshot: &Snapshot,
    states: &[PortState],
    met: &impl Fn(u32) -> bool,
) {
    let inventory = &snapshot.inventory;
    let listed: BTreeSet<u32> = inventory.links.values().map(|it| it.ifindex).collect();
    for (ifindex, name) in datapath.taken_down() {
        let mut links = snapshot.inventory.links.values();
        let exists = links.any(|link| link.ifindex == ifindex && link.name == name);
        let done = if states
            .iter()
            .any(|it| it.ifindex == ifindex && it.interface == name)
        {
            continue;
        } else if exists {
            datapath.bring_up(ifindex, &name)
        } else {
            datapath.forget_down(ifindex, &name)
        };
        if let Err(error) = done {
            warn!(port = name, %error, "an interface that is no port stays down");
        }
    }
    let links = snapshot.inventory.links.values();
    let guarded = links.filter(|link| snapshot.tables.guards(link.number));
    let shut = states.iter().filter(|it| it.shut == Shut::Dropped);
    let guarded: BTreeSet<u32> = guarded
        .map(|link| link.ifindex)
        .chain(shut.map(|it| it.ifindex))
        .collect();
    let attached = match datapath.attached() {
        Ok(attached) => attached,
        Err(error) => {
            warn!(%error, "hooks may stay on interfaces that are no ports");
            return;
        }
    };
    let is_newer = |index: &&u32| !listed.contains(*index) && met(**index);
    for index in attached.difference(&guarded).filter(|it| !is_newer(it)) {
        if let Err(error) = datapath.attach(*index, &[]) {
            warn!(ifindex = index, %error, "hooks stay on an interface");
        }
    }
}

/// Attaches a port in the best way that its policy and its interface allow; returns which, and why.
///
/// # Errors
///
/// Why it can't be attached; then it has the hooks that it had before.
pub(super) fn attach(
    datapath: &mut Datapath,
    link: &Link,
    port: &Port,
) -> Result<(Attached, String), String> {
    const TC: &[Hook] = &[Hook::TcIngress, Hook::TcEgress];
    let ifindex = link.ifindex;
    let bare = match link.header {
        Header::Ethernet => None,
        Header::Bare => Some("no XDP: its packets have no Ethernet header".to_owned()),
        Header::Other(kind) => {
            let why = format!("its packets begin neither with Ethernet nor with IP (type {kind})");
            return Err(why);
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
        .all(|hook| datapath.is_attached(ifindex, *hook).unwrap_or(false))
        && !datapath.is_shut(ifindex).unwrap_or(false);
    let mut attach = |hooks: &[Hook]| datapath.attach(ifindex, hooks);
    let failed = match (port.attach, blind) {
        (Attach::Auto, Some(blind)) => match attach(TC) {
            Ok(()) => return Ok((Attached::Tc, blind)),
            Err(error) => error.to_string(),
        },
        (Attach::Auto, None) => match attach(xdp) {
            Ok(()) => return Ok((Attached::Xdp, String::new())),
            Err(taken @ AttachError::Taken(_)) if !at_tc => taken.to_string(),
            Err(no_xdp) => match attach(TC) {
                Ok(()) => return Ok((Attached::Tc, format!("no XDP: {no_xdp}"))),
                Err(error) => error.to_string(),
            },
        },
        (Attach::Tc, _) => match attach(TC) {
            Ok(()) => return Ok((Attached::Tc, "asked for".to_owned())),
            Err(error) => error.to_string(),
        },
        (Attach::Xdp, Some(blind)) if link.header == Header::Bare => {
            format!("{blind}; leave out `attach: xdp`, and it is judged at TC")
        }
        (Attach::Xdp, Some(blind)) => blind,
        (Attach::Xdp, None) => match attach(xdp) {
            Ok(()) => return Ok((Attached::Xdp, "asked for".to_owned())),
            Err(error) => error.to_string(),
        },
    };
    Err(failed)
}
