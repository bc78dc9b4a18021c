//! Puts hooks on the ports that exist, and takes them off all other interfaces.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tracing::{info, warn};
use wardline_datapath::{
    Datapath,
    attach::{Hooks, Way},
    far_end, fast_forward,
};
use wardline_policy::{
    intent::Port,
    inventory::{Inventory, Link},
    snapshot::Snapshot,
};

use super::{
    hooks::{attach, observes, way},
    hooks_first::HooksFirst,
    state::{Attached, PortState, Shut},
};
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

/// Guards the ports of a snapshot, those first that are not guarded in `before`. `first` tells of interfaces that
/// have hooks and are newer than the snapshot.
pub(super) fn guard(
    datapath: &mut Datapath,
    snapshot: &Snapshot,
    before: &[PortState],
    on_failure: OnFailure,
    first: &HooksFirst,
) -> Guarded {
    let (mut states, mut shut) = (Vec::new(), BTreeSet::new());
    let mut forwards = BTreeMap::new();
    let (intent, tables) = (&snapshot.intent, &snapshot.tables);
    let was_guarded = before.iter().filter(|it| it.attached != Attached::None);
    let was_guarded: BTreeSet<u32> = was_guarded.map(|it| it.ifindex).collect();
    let links = snapshot.inventory.links.values();
    let mut ports: Vec<(&Link, &Port)> = links
        .filter_map(|link| Some((link, intent.port_for(&link.name)?)))
        .collect();
    ports.sort_by_key(|(link, _)| was_guarded.contains(&link.ifindex));
    let is_fresh = |(link, _): &&(&Link, &Port)| !was_guarded.contains(&link.ifindex);
    let way = way(ports.iter().filter(is_fresh).count());
    let hooks = first.hooks();
    hooks.look();
    follow_renames(hooks, &snapshot.inventory);
    for (link, port) in ports {
        let refused = match tables.refused.get(&link.number) {
            Some(no_room) => Some(no_room.to_string()),
            None => (!tables.guards(link.number)).then(|| NO_NUMBER.to_owned()),
        };
        let attached = match refused {
            None => attach(hooks, way, link, port),
            Some(why) => Err(why),
        };
        let (attached, reason, closed) = match attached {
            Ok((hook, why)) => (hook, open(hooks, link, why), Shut::No),
            Err(why) => {
                let is_open = on_failure == OnFailure::Open || observes(intent, port);
                let (closed, reason) = give_up(hooks, way, link, is_open, &why);
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
    release_others(snapshot, &states, first);
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

/// Tells which ports are not guarded that were, or for another reason than before, and which are guarded
/// again: in the log, and in words for events, of which there are no more than a few.
pub(super) fn changes(states: &[PortState], before: &[PortState]) -> Vec<String> {
    /// Most ports that are told of one by one.
    const NAMED: usize = 16;
    let before: BTreeMap<u32, &PortState> = before.iter().map(|it| (it.ifindex, it)).collect();
    let mut told = Vec::new();
    for state in states {
        let was = before.get(&state.ifindex).copied();
        let was_open = was.filter(|it| it.attached == Attached::None);
        let (port, reason) = (state.interface.as_str(), state.reason.as_str());
        match (state.attached, was_open) {
            (Attached::None, Some(was)) if was.reason == reason => {}
            (Attached::None, _) => {
                warn!(port, reason, "port is not guarded");
                told.push(format!("port {port} is not guarded: {reason}"));
            }
            (_, Some(_)) => {
                info!(port, "port is guarded again");
                told.push(format!("port {port} is guarded again"));
            }
            (_, None) => {}
        }
    }
    if told.len() > NAMED {
        let more = told.len() - NAMED;
        told.truncate(NAMED);
        told.push(format!(
            "the same of {more} more ports; status has them all"
        ));
    }
    told
}

/// Lets packets pass a port that was taken down and is guarded now; returns why it is as it is.
fn open(hooks: &Hooks, link: &Link, why: String) -> String {
    if !hooks.is_taken_down(link.ifindex, &link.name) {
        return why;
    }
    match hooks.bring_up(link.ifindex, &link.name) {
        Ok(()) => {
            info!(port = link.name, "brought up again");
            why
        }
        Err(error) => format!("{why}; it was taken down, and {error}"),
    }
}

/// Shuts a port that can't be guarded, unless such ports are to be open. Returns how, and why.
fn give_up(hooks: &Hooks, way: Way, link: &Link, is_open: bool, why: &str) -> (Shut, String) {
    let ifindex = link.ifindex;
    if is_open {
        // A port with only some of its hooks would judge replies without having seen the requests.
        let why = match hooks.attach(way, ifindex, &[]) {
            Ok(()) => why.to_owned(),
            Err(error) => format!("{why}; {error}"),
        };
        return (Shut::No, open(hooks, link, why));
    }
    let no_drop = match hooks.shut(way, ifindex) {
        Ok(()) => {
            let why = format!("{why}; shut until then: all but the failsafe is dropped at TC");
            return (Shut::Dropped, open(hooks, link, why));
        }
        Err(error) => format!("{why}; nor can it be dropped at TC: {error}"),
    };
    if !link.up {
        let is_ours = hooks.is_taken_down(ifindex, &link.name);
        return if is_ours {
            (
                Shut::Down,
                format!("{no_drop}; shut until then: taken down"),
            )
        } else {
            (Shut::No, format!("{no_drop}; it is down, and stays so"))
        };
    }
    match hooks.take_down(ifindex, &link.name) {
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

/// Notes the names of interfaces that were renamed after they were taken down, so that they are brought up
/// by these.
fn follow_renames(hooks: &Hooks, inventory: &Inventory) {
    for (ifindex, name) in hooks.taken_down() {
        let mut links = inventory.links.values();
        let renamed = links.find(|link| link.ifindex == ifindex && link.name != name);
        if let Some(link) = renamed
            && let Err(error) = hooks.rename_down(ifindex, &name, &link.name)
        {
            warn!(port = link.name, %error, "a renamed interface may stay down");
        }
    }
}

/// Takes hooks off interfaces that are not ports, and brings those up that were taken down as such.
fn release_others(snapshot: &Snapshot, states: &[PortState], first: &HooksFirst) {
    let hooks = first.hooks();
    for (ifindex, name) in hooks.taken_down() {
        let mut links = snapshot.inventory.links.values();
        let exists = links.any(|link| link.ifindex == ifindex && link.name == name);
        let done = if states
            .iter()
            .any(|it| it.ifindex == ifindex && it.interface == name)
        {
            continue;
        } else if exists {
            hooks.bring_up(ifindex, &name)
        } else {
            hooks.forget_down(ifindex, &name)
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
    let attached = match hooks.attached_beside(&guarded) {
        Ok(attached) => attached,
        Err(error) => {
            warn!(%error, "hooks may stay on interfaces that are no ports");
            return;
        }
    };
    if attached.is_empty() {
        return;
    }
    let links = snapshot.inventory.links.values();
    let names: BTreeMap<u32, &str> = links.map(|it| (it.ifindex, it.name.as_str())).collect();
    for index in attached {
        if first.is_newer(index, names.get(&index).copied()) {
            continue;
        }
        if let Err(error) = hooks.attach(Way::Best, index, &[]) {
            warn!(ifindex = index, %error, "hooks stay on an interface");
        }
    }
}
