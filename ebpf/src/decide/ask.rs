//! What several steps ask: of a packet, of its flow, of its ends.

use super::work::{Verdict, Work};
use crate::{
    abi::{EPOCH_CELLS, End, MAX_ZONES, Reason, state, zone},
    flows::{self, Found},
    packet::{self, Packet, Shape, tcp},
    policy,
    tables::Tables,
};

/// Whether packets of this shape belong to flows.
#[inline(always)]
pub(super) fn has_flow(packet: &Packet) -> bool {
    matches!(
        packet.shape,
        Shape::Tcp | Shape::Udp | Shape::Query | Shape::Answer | Shape::Other
    )
}

/// Whether a packet may open a flow.
#[inline(always)]
pub(super) fn opens(packet: &Packet) -> bool {
    match packet.shape {
        Shape::Tcp => packet.flags & (tcp::SYN | tcp::ACK | tcp::RST | tcp::FIN) == tcp::SYN,
        Shape::Answer => false,
        _ => true,
    }
}

/// Whether a packet shows that its flow has been running.
#[inline(always)]
pub(super) fn runs(packet: &Packet) -> bool {
    match packet.shape {
        Shape::Tcp => packet.flags & (tcp::SYN | tcp::ACK | tcp::RST | tcp::FIN) == tcp::ACK,
        Shape::Answer => true,
        _ => false,
    }
}

/// The service that the opener of a flow asked for, read from the other end's packet.
#[inline(always)]
pub(super) fn asked_service(packet: &Packet) -> u32 {
    let low = match packet.shape {
        Shape::Tcp | Shape::Udp => packet.source_port,
        Shape::Query | Shape::Answer => (packet::query_kind(packet) as u16) << 8,
        _ => packet.icmp,
    };
    (packet.protocol as u32) << 16 | low as u32
}

/// Whether policy was asked under the epochs that hold, and the rule has not ended.
#[inline(always)]
pub(super) fn is_current<T: Tables + ?Sized>(tables: &T, work: &Work, found: &Found<'_>) -> bool {
    let flow = found.flow;
    let (Some(low), Some(high)) = (
        tables.epoch(epoch(work.slot, flow.cell(0))),
        tables.epoch(epoch(work.slot, flow.cell(1))),
    ) else {
        return false;
    };
    flow.stamp.load() == low.wrapping_add(high) && !flows::has_ended(found, work.tick)
}

/// Where the epoch of a device is. Two epochs are compared by their sum, which changes when either
/// does, because they only grow.
#[inline(always)]
pub(super) fn epoch(slot: u32, account: u32) -> u32 {
    slot * EPOCH_CELLS + flows::cell(account)
}

/// Lets a packet of a current flow pass; nothing when the flow's state has no place for it, which
/// is for the other steps to judge.
#[inline(always)]
pub(super) fn go_on<T: Tables + ?Sized>(
    tables: &T,
    work: &Work,
    found: &Found<'_>,
    leg: usize,
) -> Option<Verdict> {
    let next = flows::follow(found.state, &work.packet, leg);
    if next == flows::NOWHERE {
        return None;
    }
    if next != found.state {
        flows::set_state(tables, found, &work.sought, next);
    }
    flows::count(found, leg, work.packet.length, work.tick);
    Some(passed(found))
}

/// The verdict for a packet that has its place in a current flow, which knows its rule and counts
/// for it.
#[inline(always)]
pub(super) fn passed(found: &Found<'_>) -> Verdict {
    if found.state & state::OBSERVED != 0 {
        // Told when it opened.
        return Verdict {
            tells: false,
            ..Verdict::observed(Reason::NoRule, 0)
        };
    }
    Verdict::of(Reason::Established)
}

/// A drop by policy or state, unless mode observe lets it pass. With an end in quarantine that is the
/// reason: it comes before these.
#[inline(always)]
pub(super) fn refused<T: Tables + ?Sized>(tables: &T, work: &Work, reason: Reason) -> Verdict {
    if is_cut_off(work) {
        Verdict::of(Reason::Quarantined)
    } else {
        dropped(tables, work, reason)
    }
}

/// A drop, unless mode observe lets it pass.
#[inline(always)]
pub(super) fn dropped<T: Tables + ?Sized>(tables: &T, work: &Work, reason: Reason) -> Verdict {
    if is_observed(tables, work) {
        Verdict::observed(reason, 0)
    } else {
        Verdict::of(reason)
    }
}

/// Whether an end is in quarantine.
#[inline(always)]
pub(super) fn is_cut_off(work: &Work) -> bool {
    (work.source.flags | work.destination.flags) & End::QUARANTINED != 0
}

/// Whether every end that is a zone with ports is in mode observe, and one is.
#[inline(always)]
pub(super) fn is_observed<T: Tables + ?Sized>(tables: &T, work: &Work) -> bool {
    const EITHER: u32 = zone::HAS_PORTS | zone::OBSERVE;
    let (mut ends, mut observing) = (0, 0);
    for end in [&work.source, &work.destination] {
        let zone = end.zone as u32 & (MAX_ZONES - 1);
        if zone != 0
            && let Some(settings) = tables.zone(work.slot * MAX_ZONES + zone)
            && settings & zone::HAS_PORTS != 0
        {
            ends += 1;
            observing += u32::from(settings & EITHER == EITHER);
        }
    }
    ends != 0 && ends == observing
}

/// Notes what the destination is; for what no rule can name, an end without names.
#[inline(always)]
pub(super) fn find_destination<T: Tables + ?Sized>(tables: &T, work: &mut Work) {
    let destination = work.packet.destination;
    if destination.is_link_local()
        || !policy::end(tables, work.slot, &destination, &mut work.destination)
    {
        work.destination = End::default();
    }
}
