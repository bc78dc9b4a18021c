//! The first step: form, and the fast path for packets of admitted flows.

use super::{
    ask::{has_flow, is_current, pass_established},
    denials::{denied_before, first_way, matching_lanes},
    parts::{follow_part, part_from_guarded, repeats_first_part},
    rewritten::opens,
    work::{FROM_GUARDED, FROM_ROUTER, HOSTED, INGRESS, Verdict, Work},
};
use crate::{
    abi::{
        Forwarding, INTERFACES, MAX_ZONES, NEVER, Port, ROUTER, Reason, ethertype_key, mac_key,
        vlan_key, zone,
    },
    cell::bit,
    flows, guards,
    lookup::Lookup,
    packet::{self, Bytes, Packet, Shape, number},
};

/// The first step for a packet that enters; no verdict when [`enter`](super::enter()) has to go on.
#[inline(always)]
pub fn start_ingress<B: Bytes + ?Sized, T: Lookup + ?Sized>(
    bytes: &B,
    tag: Option<u16>,
    interface: u32,
    tables: &T,
    work: &mut Work,
) -> Option<Verdict> {
    if !find_port(tables, interface, INGRESS, work) {
        return Some(not_ready(work));
    }
    if let Err(reason) = parse(bytes, tag, tables, work) {
        return Some(Verdict::of(reason));
    }
    if work.packet.shape == Shape::Part {
        // Its first part may have passed before the port was cut off.
        if work.is_cut_off() {
            return Some(Verdict::of(Reason::Quarantined));
        }
        return Some(follow_part(tables, work));
    }
    if work.packet.fragment.is_first() && repeats_first_part(tables, work) {
        return Some(Verdict::of(Reason::Fragment));
    }
    established(tables, work)
}

/// The first step for a packet that leaves; no verdict when [`leave`](super::leave()) has to go on.
#[inline(always)]
pub fn start_egress<B: Bytes + ?Sized, T: Lookup + ?Sized>(
    bytes: &B,
    tag: Option<u16>,
    interface: u32,
    from: u32,
    tables: &T,
    work: &mut Work,
) -> Option<Verdict> {
    if !find_port(
        tables,
        interface,
        if from == 0 { FROM_ROUTER } else { 0 },
        work,
    ) {
        return Some(not_ready(work));
    }
    // Without a MAC, what comes from no interface is the router's.
    if !work.is_bare() && is_of_hosted(bytes, from, tables, work) {
        work.path = INGRESS | HOSTED;
    } else if from != 0
        && from < INTERFACES
        && let Some(port) = tables.port(Port::index(from, work.slot))
    {
        work.origin = port.flags;
        if port.flags & (Port::GUARDED | Port::ABOVE) != 0 {
            work.path = FROM_GUARDED;
        }
    }
    if let Err(reason) = parse(bytes, tag, tables, work) {
        return Some(Verdict::of(reason));
    }
    if work.packet.shape == Shape::Part {
        if work.is_cut_off() {
            return Some(Verdict::of(Reason::Quarantined));
        }
        let from_guarded = work.is_from_guarded();
        let verdict = if from_guarded {
            part_from_guarded(tables, work)
        } else {
            follow_part(tables, work)
        };
        // The form of a packet from a guarded port was checked there, with its first part.
        let formed = from_guarded || verdict.reason.passes();
        return Some(if formed && work.zone == 0 {
            Verdict::of(Reason::WrongVlan)
        } else {
            verdict
        });
    }
    let first = work.packet.fragment.is_first() && !work.is_from_guarded();
    if first && repeats_first_part(tables, work) {
        return Some(Verdict::of(Reason::Fragment));
    }
    None
}

/// Whether a frame that leaves has been sent by a host above the port; see [`hosted`](super::hosted).
/// What the router sends or routes has one of its MACs, and only a bridge passes on other frames.
///
/// That it comes from an interface (`from` is not 0) means nothing where no bridge may have passed
/// it on: it may be one of the namespace of a container that forwards.
#[inline(always)]
fn is_of_hosted<B: Bytes + ?Sized, T: Lookup + ?Sized>(
    bytes: &B,
    from: u32,
    tables: &T,
    work: &Work,
) -> bool {
    (from == 0 || work.port & Port::MEMBER == 0)
        && match bytes.read::<6>(6) {
            Some(source) => !guards::is_routers_mac(tables, work.slot, packet::mac(source)),
            None => false,
        }
}

/// The first step for a packet that can't be parsed: its headers can't be read, or its VLAN tag is
/// of a kind that no policy can name.
pub fn start_unreadable<T: Lookup + ?Sized>(
    interface: u32,
    reason: Reason,
    tables: &T,
    work: &mut Work,
) -> Verdict {
    work.packet = Packet::default();
    let ready = find_port(tables, interface, 0, work);
    Verdict::of(if ready { reason } else { Reason::NotReady })
}

/// The verdict when there is no revision or port to judge a packet by.
#[inline(always)]
fn not_ready(work: &mut Work) -> Verdict {
    work.packet = Packet::default();
    Verdict::of(Reason::NotReady)
}

/// Finds the revision and the port that a packet is judged by, and clears what an earlier packet
/// left behind; false when no revision guards the interface.
#[inline(always)]
fn find_port<T: Lookup + ?Sized>(tables: &T, interface: u32, path: u16, work: &mut Work) -> bool {
    work.path = path;
    work.interface = interface;
    work.device = 0;
    work.settings = 0;
    work.zone = 0;
    work.origin = 0;
    work.beside = 0;
    work.adopts = 0;
    work.rewritten = 0;
    work.opens = 0;
    work.asks = 0;
    work.answers = 0;
    work.answers_end = NEVER;
    work.at = 0;
    work.established = 0;
    work.counted_by_flow = 0;
    work.lasting_denial = 0;
    work.hop = 0;
    work.control = 0;
    // An event tells which devices a packet is between, also when no step has looked them up.
    work.source.device = 0;
    work.destination.device = 0;
    let Some(slot) = tables.active() else {
        return false;
    };
    work.slot = slot & 1;
    work.tick = tables.tick();
    if interface >= INTERFACES {
        return false;
    }
    let Some(port) = tables.port(Port::index(interface, slot & 1)) else {
        return false;
    };
    work.port = port.flags;
    work.zone = port.zone;
    work.link = port.link;
    work.own = port.mac;
    port.flags & Port::GUARDED != 0
}

/// Form: everything about a packet that can be checked without knowing its sender.
#[inline(always)]
fn parse<B: Bytes + ?Sized, T: Lookup + ?Sized>(
    bytes: &B,
    tag: Option<u16>,
    tables: &T,
    work: &mut Work,
) -> Result<(), Reason> {
    let bytes = &work.framed(bytes);
    if B::MAY_BE_BARE && work.is_bare() {
        packet::bare(bytes, tag, &mut work.packet)?;
    } else {
        packet::ethernet(bytes, tag, &mut work.packet)?;
    }
    if work.packet.vlan != 0 {
        let key = vlan_key(work.slot, work.interface, work.packet.vlan);
        work.zone = match tables.place(key) {
            Some(zone) => zone as u16,
            None => 0,
        };
    }
    if work.zone != 0 {
        let zone = work.zone as u32 & (MAX_ZONES - 1);
        if let Some(settings) = tables.zone(work.slot * MAX_ZONES + zone) {
            work.settings = settings;
        }
    }
    // The form of a packet from a guarded port was checked there, by that port's zone, and the form
    // of the router's own packets is not restricted.
    let formed = work.is_from_guarded() || work.is_from_router();
    let lenient = if formed {
        zone::FRAGMENTS | zone::IP_OPTIONS
    } else {
        0
    };
    let network = packet::network(
        bytes,
        &mut work.packet,
        work.settings | lenient,
        &work.scratch,
    );
    work.packet.source = work.packet.source.on_link(work.link);
    work.packet.destination = work.packet.destination.on_link(work.link);
    network?;
    match work.packet.ethertype {
        number::IPV4 | number::IPV6 => Ok(()),
        number::ARP if !work.is_bare() => Ok(()),
        _ if work.is_from_router() => Ok(()),
        _ if work.is_bare() => Err(Reason::UnknownEthertype),
        number::EAPOL if is_for_the_port(tables, work) => Ok(()),
        // Both zones have to let it pass: that of the port where it enters, and that of the port
        // where it leaves.
        ethertype => {
            let key = ethertype_key(work.slot, work.zone, ethertype);
            if tables.place(key).is_some() {
                Ok(())
            } else {
                Err(Reason::UnknownEthertype)
            }
        }
    }
}

/// Whether EAPOL is for the port itself, not for a host behind another port: to the group of
/// authenticators, which no bridge passes on (IEEE 802.1X section 11.1.1), or to the router.
#[inline(always)]
fn is_for_the_port<T: Lookup + ?Sized>(tables: &T, work: &Work) -> bool {
    const PAE_GROUP: u64 = 0x0180_c200_0003;
    work.packet.destination_mac == PAE_GROUP
        || guards::is_routers_mac(tables, work.slot, work.packet.destination_mac)
}

/// Whether a packet of a flow goes to the MAC of a listed device other than the one that the flow
/// is with, at a place where nothing looks at that later. A look at the MAC is needed only for what
/// goes neither to the port's own MAC nor to where the other end has sent from.
#[inline(always)]
fn may_be_misdirected<T: Lookup + ?Sized>(
    tables: &T,
    work: &Work,
    found: &flows::Found<'_>,
    leg: usize,
) -> bool {
    let to = work.packet.destination_mac;
    work.may_end_here()
        && to != work.own
        && to != found.flow.bind[bit(leg ^ 1)].load() >> 16
        && match tables.mac(mac_key(work.slot, to)) {
            Some(mac) => mac.device != ROUTER && mac.device != flows::account_of(found, leg ^ 1),
            None => false,
        }
}

/// The fast path: passes a packet of a flow that was admitted under the current policy, if it comes
/// from where that end's packets come from. It costs one lookup of the flow and a few comparisons,
/// and does not ask policy.
#[inline(always)]
pub(super) fn established<T: Lookup + ?Sized>(tables: &T, work: &mut Work) -> Option<Verdict> {
    if !has_flow(&work.packet) {
        return None;
    }
    let settings = tables.settings()?;
    let (key, leg) = flows::key(&work.packet);
    work.sought.set(key, settings.seed);
    work.leg = leg as u32;
    // With a valid denial there is no flow to look for: opening one invalidates the denials of its
    // set.
    if let Some(tags) = tables.denial_tags(work.sought.denials())
        && let lanes = matching_lanes(tags.load(), work.sought.denial_tag())
        && lanes != 0
        && let Some(verdict) = denied_before(tables, settings, work, first_way(lanes))
    {
        return Some(verdict);
    }
    let Some(found) = flows::find(tables, settings, &work.sought, work.tick) else {
        // Read before policy is asked: if it changes meanwhile, the denial counts as an old one.
        work.generation = tables.generation(work.slot)?;
        return None;
    };
    work.at = found.at.wrapping_add(1);
    // Read early, because the processor can fetch this memory while it waits for the flow's.
    if let Some(entry) = tables.forwarding(work.interface)
        && entry.flags & Forwarding::ENTERS != 0
    {
        (work.hop, work.looked) = flows::hop(&found, leg ^ 1);
    }
    // A port in quarantine is cut off without a look at the flows through it.
    if work.is_cut_off()
        || may_be_misdirected(tables, work, &found, leg)
        || found.flow.bind[bit(leg)].load() != work.bind()
        || flows::vlan(found.state, leg) != work.packet.vlan
        || !is_current(tables, work, &found)
        || flows::reopens(found.state, &work.packet)
    {
        return None;
    }
    let verdict = pass_established(tables, work, &found, leg)?;
    work.established = 1;
    work.opens = opens(found.state, leg);
    Some(verdict)
}
