//! Which interfaces are guarded, what they carry, and what is above them.

use std::collections::{BTreeMap, BTreeSet};

use wardline_ebpf::abi::{Address, INTERFACES, Port, carries_key, link_key, vlan_key};

use super::{Room, networks::prefix_of};
use crate::{
    intent::{self, Intent, ZoneIndex},
    inventory::{Header, Inventory, Link},
    quarantine::Quarantine,
    tables::Tables,
    words::mac::mac_number,
};

/// The places of devices that are behind an interface without a link header, by its number.
pub(super) type Behind = BTreeMap<u32, Vec<u64>>;

/// Guarded interfaces, what they carry, and what is above them.
pub(super) fn ports(
    intent: &Intent,
    inventory: &Inventory,
    quarantined: &Quarantine,
    zone_of: &impl Fn(ZoneIndex) -> u16,
    room: &Room<'_>,
    behind: &Behind,
    tables: &mut Tables,
) {
    let links = inventory.links.values();
    let mut found: Vec<(&Link, &intent::Port)> = links
        .filter(|link| link.number < INTERFACES)
        .filter_map(|link| Some((link, intent.port_for(&link.name)?)))
        .collect();
    // What is guarded stays guarded, whatever appears.
    let is_new = |link: &Link| room.before.is_none_or(|it| !it.admits(link.number));
    found.sort_by_key(|(link, _)| (is_new(link), link.number));
    for (link, port) in found {
        let mut flags = Port::GUARDED;
        if port.dhcp_server {
            flags |= Port::DHCP_SERVER;
        }
        if port.router {
            flags |= Port::ROUTER;
        }
        if link.header == Header::Bare {
            flags |= Port::BARE;
        }
        if is_member(inventory, link) {
            flags |= Port::MEMBER;
        }
        if quarantined.port(&link.name).is_some() {
            flags |= Port::QUARANTINED;
        }
        let on = link_of(inventory, link.number);
        let mut untagged = port.zone.map_or(0, zone_of);
        let mut places: BTreeMap<u64, u32> = BTreeMap::new();
        let tagged = port
            .vlans
            .iter()
            .map(|(vlan, zone)| (*vlan, zone_of(*zone)));
        for (vlan, zone) in tagged.chain([(0, untagged)]).filter(|(_, zone)| *zone != 0) {
            if vlan != 0 {
                places.insert(vlan_key(0, link.number, vlan), u32::from(zone));
            }
            places.insert(carries_key(0, link.number, zone), 1);
            if flags & Port::MEMBER != 0 && on < INTERFACES {
                places.insert(link_key(0, on, zone), 1);
            }
        }
        let hosts = behind.get(&link.number).into_iter().flatten();
        places.extend(hosts.map(|key| (*key, 1)));
        let is_shut = room.shut.is_some_and(|shut| shut.contains(&link.number));
        if let Some(refused) = room.refuses(&places, tables) {
            tables.refused.insert(link.number, refused);
            if !is_shut {
                continue;
            }
        }
        if is_shut {
            // Without a zone nothing passes there but the failsafe.
            untagged = 0;
            tables.shut.insert(link.number);
        } else {
            tables.places.extend(places);
        }
        tables.ports.insert(
            link.number,
            Port {
                zone: untagged,
                flags,
                link: on,
                mac: link.mac.map_or(0, |mac| mac_number(&mac)),
            },
        );
    }
    let stack = Stack::of(inventory);
    // A packet that arrives through an interface above a port may have entered through that port.
    // Whatever else such an interface takes in (another port of a bridge, another macvlan of the
    // same port) is believed as well, so only kinds count that pass frames on as they are.
    let mut below: Vec<u32> = tables.ports.keys().copied().collect();
    while let Some(index) = below.pop() {
        for index in stack.above(index) {
            let entry = tables.ports.entry(index).or_default();
            if entry.flags & Port::ABOVE == 0 {
                entry.flags |= Port::ABOVE;
                below.push(index);
            }
        }
    }
    mark_observing(intent, inventory, &stack, tables);
    mark_nat(intent, inventory, tables);
    mark_beside(inventory, tables);
}

/// Whether frames of others may leave through an interface: those that a bridge, a bond or the like
/// passes on. The members of a VRF take part in routing only.
fn is_member(inventory: &Inventory, link: &Link) -> bool {
    link.controller.is_some_and(|over| {
        let over = inventory.links.get(&over);
        over.and_then(|it| it.kind.as_deref()) != Some("vrf")
    })
}

/// The link that an interface is on, as [`Port::link`] has it. Bridges, bonds and the like join
/// their members to one link; the members of a VRF stay apart, and what opens the frames of its
/// members is no part of their link.
fn link_of(inventory: &Inventory, index: u32) -> u32 {
    let mut link = index;
    // Links are not all listed at one instant, so what is listed could be a circle.
    for _ in 0..DEEPEST {
        let Some(over) = inventory.links.get(&link).and_then(|it| it.controller) else {
            break;
        };
        let kind = inventory.links.get(&over).and_then(|it| it.kind.as_deref());
        if matches!(kind, Some("vrf" | "batadv" | "hsr")) {
            break;
        }
        link = over;
    }
    link
}

/// The networks that the router reaches directly; whether through guarded interfaces, or ones above,
/// and no others.
pub(super) fn connected(inventory: &Inventory, tables: &Tables) -> BTreeMap<(Address, u8), bool> {
    let mut connected = BTreeMap::new();
    for (index, net) in &inventory.connected {
        let port = tables.ports.get(index);
        let guarded = port.is_some_and(|it| it.flags & (Port::GUARDED | Port::ABOVE) != 0);
        let entry = connected.entry(prefix_of(*net)).or_insert(true);
        *entry &= guarded;
    }
    connected
}

/// Marks the interfaces that are not guarded, on a bridge with others that are.
fn mark_beside(inventory: &Inventory, tables: &mut Tables) {
    for link in inventory.links.values().filter(|it| it.number < INTERFACES) {
        let Some(over) = link.controller else {
            continue;
        };
        // The members of a VRF share no link.
        let kind = inventory.links.get(&over).and_then(|it| it.kind.as_deref());
        let flags = |index: &u32| tables.ports.get(index).map_or(0, |port| port.flags);
        let guarded = flags(&link.number) & (Port::GUARDED | Port::ABOVE) != 0;
        if flags(&over) & Port::ABOVE != 0 && kind != Some("vrf") && !guarded {
            tables.ports.entry(link.number).or_default().flags |= Port::BESIDE;
        }
    }
}

/// Which interfaces are directly above which, and pass on what those take in.
struct Stack(BTreeMap<u32, Vec<u32>>);

impl Stack {
    fn of(inventory: &Inventory) -> Self {
        let links = &inventory.links;
        let mut above: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for link in links.values() {
            let upper = link.parent.map(|lower| (lower, link.number));
            let controller = link.controller.filter(|index| {
                let of = links.get(index);
                // batman-adv and HSR open the frames of their members.
                of.is_none_or(|it| !matches!(it.kind.as_deref(), Some("batadv" | "hsr")))
            });
            let controller = controller.map(|over| (link.number, over));
            for (lower, over) in upper.into_iter().chain(controller) {
                if over < INTERFACES {
                    above.entry(lower).or_default().push(over);
                }
            }
        }
        Self(above)
    }

    fn above(&self, index: u32) -> impl Iterator<Item = u32> {
        self.0.get(&index).into_iter().flatten().copied()
    }
}

/// Marks the ports whose zones all observe, and those from which no frame reaches another port with
/// a zone that enforces, however a bridge passes it on.
fn mark_observing(intent: &Intent, inventory: &Inventory, stack: &Stack, tables: &mut Tables) {
    // A VRF passes on packets, never frames.
    let passes_frames = |index: &u32| {
        let link = inventory.links.get(index);
        link.is_none_or(|it| it.kind.as_deref() != Some("vrf"))
    };
    let all_above = |from: u32| {
        let (mut found, mut next) = (BTreeSet::from([from]), vec![from]);
        while let Some(index) = next.pop() {
            let more = stack.above(index).filter(passes_frames);
            next.extend(more.filter(|index| found.insert(*index)));
        }
        found
    };
    let observes = |index: u32| {
        let port = intent.port_for(&inventory.links.get(&index)?.name)?;
        let tagged = port.vlans.values().copied();
        let mut zones = port.zone.into_iter().chain(tagged);
        Some(zones.all(|zone| intent.zones[zone.0].observe))
    };
    let guarded = tables.ports.keys();
    let guarded: Vec<(u32, bool, BTreeSet<u32>)> = guarded
        .filter_map(|index| Some((*index, observes(*index)?, all_above(*index))))
        .collect();
    // For each interface, the ports below it that enforce.
    let mut enforcing: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for (index, _, segment) in guarded.iter().filter(|(_, observes, _)| !observes) {
        for above in segment {
            enforcing.entry(*above).or_default().push(*index);
        }
    }
    for (index, observes, segment) in &guarded {
        let Some(port) = tables.ports.get_mut(index) else {
            continue;
        };
        if *observes {
            port.flags |= Port::OBSERVES;
        }
        let mut near = segment.iter().filter_map(|above| enforcing.get(above));
        if near.all(|ports| ports.iter().all(|other| other == index)) {
            port.flags |= Port::NEIGHBOURS_OBSERVE;
        }
    }
}

/// Marks the interfaces from which the router takes packets that its NAT may rewrite, and those
/// where every packet was admitted by policy.
fn mark_nat(intent: &Intent, inventory: &Inventory, tables: &mut Tables) {
    let mut nat = 0;
    if inventory.nat.v4 {
        nat |= Port::NAT_V4;
    }
    if inventory.nat.v6 {
        nat |= Port::NAT_V6;
    }
    if nat == 0 {
        return;
    }
    let kind = |index: u32| inventory.links.get(&index)?.kind.as_deref();
    for link in inventory.links.values().filter(|it| it.number < INTERFACES) {
        let before = tables.ports.get(&link.number).map_or(0, |port| port.flags);
        let marks = if before & (Port::GUARDED | Port::ABOVE) != 0 {
            match sources(link.number, intent, inventory, tables, DEEPEST) {
                Some(true) => nat | Port::ADMITTED,
                Some(false) => nat,
                None => 0,
            }
        } else {
            // What a bridge or switch passes on from its port, the kernel does not route.
            let routed = link.controller.is_none_or(|over| kind(over) == Some("vrf"));
            if routed { nat } else { 0 }
        };
        if marks != 0 {
            tables.ports.entry(link.number).or_default().flags |= marks;
        }
    }
}

/// Interfaces that the kernel stacks on each other. Links are not all listed at one instant, so what
/// is listed could be a circle.
const DEEPEST: u32 = 8;

/// Whether policy admits every packet that arrives through an interface: false when a zone observes
/// below it, none when some come from elsewhere than from guarded ports.
fn sources(
    index: u32,
    intent: &Intent,
    inventory: &Inventory,
    tables: &Tables,
    depth: u32,
) -> Option<bool> {
    let depth = depth.checked_sub(1)?;
    let link = inventory.links.get(&index)?;
    let entry = tables.ports.get(&index)?;
    if entry.flags & Port::GUARDED != 0 {
        let port = intent.port_for(&link.name)?;
        let tagged = port.vlans.values().copied();
        let mut zones = port.zone.into_iter().chain(tagged);
        return Some(!zones.any(|zone| intent.zones[zone.0].observe));
    }
    // A macvlan or ipvlan also takes what comes from others on the same interface, in whichever
    // namespace, which no port sees.
    let is_split = matches!(
        link.kind.as_deref(),
        Some("macvlan" | "macvtap" | "ipvlan" | "ipvtap")
    );
    if entry.flags & Port::ABOVE == 0 || is_split {
        return None;
    }
    let members = inventory.links.values();
    let members = members.filter(|it| it.controller == Some(index));
    let below = members.map(|it| it.number).chain(link.parent);
    let mut enforces = None;
    for lower in below {
        let lower = sources(lower, intent, inventory, tables, depth)?;
        enforces = Some(enforces.unwrap_or(true) && lower);
    }
    enforces
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use wardline_proto::v1::PortVlan;

    use super::*;
    use crate::{
        compile::Base,
        inventory::{Link, Nat},
        ward::{BRIDGE, LAN1, LAN2, UPLINK, Ward},
        words::mac::Mac,
    };

    /// Adds an interface of a kind, above another or a member of one.
    fn add_link(
        inventory: &mut Inventory,
        index: u32,
        kind: &str,
        parent: Option<u32>,
        controller: Option<u32>,
    ) {
        let link = Link {
            number: index,
            ifindex: index,
            name: format!("if{index}"),
            kind: Some(kind.to_owned()),
            parent,
            controller,
            ..inventory.links[&UPLINK].clone()
        };
        inventory.links.insert(index, link);
    }

    #[test]
    fn a_port_has_its_zone_and_what_is_above_it_is_known() {
        let ward = Ward::new(|_| (), &[]);
        let port = |index: u32| ward.tables.ports.get(&index).copied();
        let guarded = |zone, mode, link| Port {
            zone: ward.zone(zone) as u16,
            flags: Port::GUARDED | Port::NEIGHBOURS_OBSERVE | mode,
            link,
            mac: 0,
        };
        let pumps = guarded("pumps", Port::MEMBER, BRIDGE);
        assert_eq!(port(LAN1), Some(pumps));
        let cameras = guarded("cameras", Port::OBSERVES, LAN2);
        assert_eq!(port(LAN2), Some(cameras));
        let above = Port {
            flags: Port::ABOVE,
            ..Port::default()
        };
        assert_eq!(port(BRIDGE), Some(above));
        assert_eq!(port(UPLINK), None);
    }

    #[test]
    fn a_link_carries_the_zones_of_all_its_ports_and_each_port_has_its_mac() {
        let ward = Ward::new(|_| (), &[]);
        let mut inventory = ward.inventory.clone();
        let lan2 = inventory.links.get_mut(&LAN2).expect("a port");
        (lan2.controller, lan2.mac) = (Some(BRIDGE), Some(Mac([2, 0, 0, 0, 0xff, 2])));
        let tables = ward.compiled(&inventory);
        let carries = |link, zone| {
            let key = link_key(0, link, ward.zone(zone) as u16);
            tables.places.contains_key(&key)
        };
        assert!(carries(BRIDGE, "pumps") && carries(BRIDGE, "cameras"));
        assert!(!carries(LAN1, "pumps") && !carries(BRIDGE, "servers"));
        let lan2 = &tables.ports[&LAN2];
        assert_eq!((lan2.link, lan2.mac), (BRIDGE, 0x0200_0000_ff02));
    }

    #[test]
    fn bridges_and_bonds_join_ports_to_one_link_and_a_vrf_does_not() {
        let ward = Ward::new(|_| (), &[]);
        let link = |kind: &str, over: Option<u32>| {
            let mut inventory = ward.inventory.clone();
            add_link(&mut inventory, 31, kind, None, over);
            for (_, link) in inventory.links.iter_mut().filter(|it| *it.0 == LAN2) {
                link.controller = Some(31);
            }
            ward.compiled(&inventory).ports[&LAN2].link
        };
        assert_eq!(link("bridge", None), 31);
        assert_eq!(link("bond", Some(BRIDGE)), BRIDGE);
        assert_eq!(link("vrf", None), LAN2);
        assert_eq!(link("batadv", None), LAN2);
    }

    #[test]
    fn a_port_knows_whether_all_observe_that_its_frames_may_reach() {
        let ward = Ward::new(|_| (), &[]);
        let marks = |kind: &str, lan2: Option<u32>| {
            let mut inventory = ward.inventory.clone();
            for (index, link) in &mut inventory.links {
                match *index {
                    LAN2 => link.controller = lan2,
                    BRIDGE => link.kind = Some(kind.to_owned()),
                    _ => {}
                }
            }
            let tables = ward.compiled(&inventory);
            [LAN1, LAN2].map(|index| tables.ports[&index].flags & !(Port::GUARDED | Port::MEMBER))
        };
        const BOTH: u16 = Port::OBSERVES | Port::NEIGHBOURS_OBSERVE;
        const NEIGHBOURS: u16 = Port::NEIGHBOURS_OBSERVE;
        assert_eq!(marks("bridge", None), [NEIGHBOURS, BOTH]);
        // Pumps enforce, on the other port of the bridge.
        assert_eq!(marks("bridge", Some(BRIDGE)), [NEIGHBOURS, Port::OBSERVES]);
        assert_eq!(marks("vrf", Some(BRIDGE)), [NEIGHBOURS, BOTH]);
    }

    #[test]
    fn nat_is_believed_of_what_is_routed_and_admitted_only() {
        let ward = Ward::new(|_| (), &[]);
        let marks = |inventory: &Inventory| {
            let tables = ward.compiled(inventory);
            const NAT: u16 = Port::NAT_V4 | Port::NAT_V6 | Port::ADMITTED;
            [LAN1, LAN2, BRIDGE, UPLINK, 30, 31, 32].map(|index| {
                let port = tables.ports.get(&index);
                port.map_or(0, |port| port.flags & NAT)
            })
        };
        const BOTH: u16 = Port::NAT_V4 | Port::NAT_V6;
        let mut inventory = ward.inventory.clone();
        let mut add = |index, kind, parent, controller| {
            add_link(&mut inventory, index, kind, parent, controller);
        };
        // A macvlan takes in what no port sees; what is in a VRF is routed, in a bridge it is not.
        add(30, "macvlan", Some(LAN1), None);
        add(31, "veth", None, Some(32));
        add(32, "vrf", None, None);
        assert_eq!(marks(&inventory), [0; 7]);
        inventory.nat = Nat { v4: true, v6: true };
        // The cameras, on the second port, only observe.
        const SURE: u16 = BOTH | Port::ADMITTED;
        assert_eq!(marks(&inventory), [SURE, BOTH, SURE, BOTH, 0, BOTH, BOTH]);
        let mut change = |change: &dyn Fn(&mut Link)| {
            change(inventory.links.get_mut(&31).expect("a link"));
            marks(&inventory)
        };
        let kind = |name: &'static str| {
            move |link: &mut Link| {
                link.controller = Some(BRIDGE);
                link.kind = Some(name.to_owned());
            }
        };
        // An unguarded port beside a guarded one: what comes through the bridge is anybody's.
        assert_eq!(change(&kind("veth")), [SURE, BOTH, 0, BOTH, 0, 0, BOTH]);
        inventory.nat = Nat {
            v4: true,
            v6: false,
        };
        assert_eq!(marks(&inventory)[3], Port::NAT_V4);
        // What is listed while links change may be a circle.
        let mut links = inventory.links.values_mut();
        let bridge = links.find(|link| link.number == BRIDGE).expect("a bridge");
        bridge.controller = Some(BRIDGE);
        assert_eq!(marks(&inventory)[2], 0);
    }

    #[test]
    fn what_is_above_a_port_is_known_however_high() {
        const ABOVE: [(u32, &str, u32); 3] =
            [(21, "vlan", LAN2), (22, "macvlan", 21), (23, "ipvlan", 22)];
        let ward = Ward::new(|_| (), &[]);
        let mut inventory = ward.inventory.clone();
        let mut add = |index, kind, parent, controller| {
            add_link(&mut inventory, index, kind, parent, controller);
        };
        for (index, kind, below) in ABOVE {
            add(index, kind, Some(below), None);
        }
        // A member of a bond, in a VRF.
        add(24, "macvlan", Some(LAN2), Some(25));
        add(25, "bond", None, Some(26));
        add(26, "vrf", None, None);
        // The members' frames are inside those of the mesh.
        add(27, "batadv", None, None);
        add(28, "macvlan", Some(LAN2), Some(27));
        add(29, "macvlan", Some(UPLINK), None);
        let tables = ward.compiled(&inventory);
        let above = |port: &Port| port.flags == Port::ABOVE;
        let found: Vec<u32> = tables
            .ports
            .iter()
            .filter(|(_, port)| above(port))
            .map(|it| *it.0)
            .collect();
        assert_eq!(found, [BRIDGE, 21, 22, 23, 24, 25, 26, 28]);
    }

    #[test]
    fn a_port_for_which_there_is_no_room_is_refused_by_itself() {
        let ward = Ward::new(
            |policy| {
                let tagged = |id| PortVlan {
                    id,
                    zone: "pumps".to_owned(),
                };
                policy.ports[1].vlans = (101..=110).map(tagged).collect();
            },
            &[],
        );
        let base = Base::of(&ward.intent, &ward.ids, &ward.clock);
        let on = |inventory: &Inventory, room: &Room<'_>| {
            base.on(&ward.intent, inventory, &Quarantine::default(), room)
        };
        assert!(Arc::ptr_eq(
            &on(&ward.inventory, &Room::default()).pairs,
            &on(&Inventory::default(), &Room::default()).pairs
        ));
        // Of lan2: ten VLANs and two zones. Of lan1: its zone, also for the bridge.
        let most = ward.tables.places.len() - 1;
        let room = Room {
            places: Some(most),
            ..Room::default()
        };
        let tables = on(&ward.inventory, &room);
        let refused = tables.refused[&LAN2];
        assert_eq!(
            (refused.needed, refused.left, refused.most),
            (12, 11, most),
            "{refused}"
        );
        assert!(tables.admits(LAN1) && !tables.guards(LAN2));

        // Whoever was there first keeps its place.
        let mut before = ward.inventory.clone();
        before.links.remove(&LAN1);
        let before = on(&before, &room);
        assert!(before.admits(LAN2) && before.refused.is_empty());
        let room_after = Room {
            before: Some(&before),
            ..room
        };
        let after = on(&ward.inventory, &room_after);
        assert!(after.admits(LAN2) && after.refused.contains_key(&LAN1));

        // A port that is shut has an entry, no zone, and no place before others.
        let shut = BTreeSet::from([LAN2]);
        let room = Room {
            shut: Some(&shut),
            ..room
        };
        let closed = on(&ward.inventory, &room);
        let port = closed.ports[&LAN2];
        assert_eq!((port.zone, port.flags & Port::GUARDED), (0, Port::GUARDED));
        assert_eq!(closed.places, tables.places);
        assert!(closed.refused.contains_key(&LAN2) && !closed.admits(LAN2));
        let room = Room {
            before: Some(&closed),
            ..room
        };
        assert_eq!(on(&ward.inventory, &room), closed);
    }
}
