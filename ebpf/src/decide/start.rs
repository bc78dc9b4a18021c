//! The first step: form, and the fast path for packets of admitted flows.

use super::{
    ask::{go_on, has_flow, is_current},
    denials::{denied_before, first, lanes},
    parts::{begins_anew, follow_part, leaving_part},
    work::{ENTERS, INNER, OWN, Verdict, Work},
};
use crate::{
    abi::{Forwarding, MAX_IFINDEX, MAX_ZONES, Port, Reason, ethertype_key, vlan_key, zone},
    cell::bit,
    flows,
    packet::{self, Bytes, Packet, Shape, number},
    tables::Tables,
};

/// The first step for a packet that enters; nothing when [`enter`](super::enter()) has to go on.
#[inline(always)]
pub fn start_ingress<B: Bytes + ?Sized, T: Tables + ?Sized>(
    bytes: &B,
    tag: Option<u16>,
    ifindex: u32,
    tables: &T,
    work: &mut Work,
) -> Option<Verdict> {
    if !context(tables, ifindex, ENTERS, work) {
        return Some(not_ready(work));
    }
    if let Err(reason) = parse(bytes, tag, tables, work) {
        return Some(Verdict::of(reason));
    }
    if work.packet.shape == Shape::Part {
        return Some(follow_part(tables, work));
    }
    if work.packet.fragment.is_first() && begins_anew(tables, work) {
        return Some(Verdict::of(Reason::Fragment));
    }
    established(tables, work)
}

/// The first step for a packet that leaves; nothing when [`leave`](super::leave()) has to go on.
#[inline(always)]
pub fn start_egress<B: Bytes + ?Sized, T: Tables + ?Sized>(
    bytes: &B,
    tag: Option<u16>,
    ifindex: u32,
    from: u32,
    tables: &T,
    work: &mut Work,
) -> Option<Verdict> {
    if !context(tables, ifindex, if from == 0 { OWN } else { 0 }, work) {
        return Some(not_ready(work));
    }
    if from != 0
        && from < MAX_IFINDEX
        && let Some(port) = tables.port(Port::index(from, work.slot))
        && port.flags & (Port::GUARDED | Port::ABOVE) != 0
    {
        work.way = INNER;
    }
    if let Err(reason) = parse(bytes, tag, tables, work) {
        return Some(Verdict::of(reason));
    }
    if work.packet.shape == Shape::Part {
        let inner = work.inner();
        let verdict = if inner {
            leaving_part(tables, work)
        } else {
            follow_part(tables, work)
        };
        // The form of what entered through a guarded port was judged there, with its first part.
        let formed = inner || verdict.reason.passes();
        return Some(if formed && work.zone == 0 {
            Verdict::of(Reason::WrongVlan)
        } else {
            verdict
        });
    }
    let first = work.packet.fragment.is_first() && !work.inner();
    if first && begins_anew(tables, work) {
        return Some(Verdict::of(Reason::Fragment));
    }
    None
}

/// The verdict for a packet that can't even be parsed: its headers are out of reach, or its tag is
/// of a kind that no policy can name.
pub fn refuse<T: Tables + ?Sized>(
    ifindex: u32,
    reason: Reason,
    tables: &T,
    work: &mut Work,
) -> Verdict {
    work.packet = Packet::default();
    let ready = context(tables, ifindex, 0, work);
    Verdict::of(if ready { reason } else { Reason::NotReady })
}

/// The verdict for a packet that nothing is known of: there is nothing to judge it by.
#[inline(always)]
fn not_ready(work: &mut Work) -> Verdict {
    work.packet = Packet::default();
    Verdict::of(Reason::NotReady)
}

/// What judges packets of an interface; false when no revision guards it.
#[inline(always)]
fn context<T: Tables + ?Sized>(tables: &T, ifindex: u32, way: u16, work: &mut Work) -> bool {
    work.way = way;
    work.ifindex = ifindex;
    work.device = 0;
    work.settings = 0;
    work.zone = 0;
    work.adopts = 0;
    work.at = 0;
    work.fast = 0;
    work.held = 0;
    work.denied = 0;
    work.hop = 0;
    let Some(slot) = tables.active() else {
        return false;
    };
    work.slot = slot & 1;
    work.tick = tables.tick();
    if ifindex >= MAX_IFINDEX {
        return false;
    }
    let Some(port) = tables.port(Port::index(ifindex, slot & 1)) else {
        return false;
    };
    work.port = port.flags;
    work.zone = port.zone;
    port.flags & Port::GUARDED != 0
}

/// Form: everything about a packet that can be said without knowing who sent it.
#[inline(always)]
fn parse<B: Bytes + ?Sized, T: Tables + ?Sized>(
    bytes: &B,
    tag: Option<u16>,
    tables: &T,
    work: &mut Work,
) -> Result<(), Reason> {
    packet::ethernet(bytes, tag, &mut work.packet)?;
    if work.packet.vlan != 0 {
        let key = vlan_key(work.slot, work.ifindex, work.packet.vlan);
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
    // What entered through a guarded port was judged by that port's zone, and what the router
    // sends is for the router to form.
    let judged = work.inner() || work.own();
    let lenient = if judged {
        zone::FRAGMENTS | zone::IP_OPTIONS
    } else {
        0
    };
    packet::network(
        bytes,
        &mut work.packet,
        work.settings | lenient,
        &work.place,
    )?;
    match work.packet.ethertype {
        number::IPV4 | number::IPV6 | number::ARP | number::EAPOL => Ok(()),
        _ if judged => Ok(()),
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

/// The fast path: a packet of a flow that was admitted under what holds now, from where its
/// packets come from. One flow lookup, compares, no policy.
#[inline(always)]
fn established<T: Tables + ?Sized>(tables: &T, work: &mut Work) -> Option<Verdict> {
    if !has_flow(&work.packet) {
        return None;
    }
    let settings = tables.settings()?;
    let (key, leg) = flows::key(&work.packet);
    work.sought.set(key, settings.seed);
    work.leg = leg as u32;
    // Then no flow needs to be looked for: no denial outlives the opening of one.
    if let Some(tags) = tables.refused(work.sought.denials())
        && let lanes = lanes(tags.load(), work.sought.denial_tag())
        && lanes != 0
        && let Some(verdict) = denied_before(tables, settings, work, first(lanes))
    {
        return Some(verdict);
    }
    let Some(found) = flows::find(tables, settings, &work.sought, work.tick) else {
        // Read before anything that it tells of.
        work.generation = tables.generation(work.slot)?;
        return None;
    };
    work.at = found.at.wrapping_add(1);
    // Here, so that the memory is waited for while that of the flow is.
    if let Some(entry) = tables.forwarding(work.ifindex)
        && entry.flags & Forwarding::ENTERS != 0
    {
        (work.hop, work.looked) = flows::hop(&found, leg ^ 1);
    }
    if found.flow.bind[bit(leg)].load() != work.bind()
        || flows::vlan(found.state, leg) != work.packet.vlan
        || !is_current(tables, work, &found)
        || flows::reopens(found.state, &work.packet)
    {
        return None;
    }
    let verdict = go_on(tables, work, &found, leg)?;
    work.fast = 1;
    Some(verdict)
}
