//! Questions that several steps ask about a packet, its flow and its ends.

use super::work::{Verdict, Work};
use crate::{
    abi::{EPOCH_CELLS, End, Reason, state},
    flows::{self, Found},
    lookup::Lookup,
    packet::{self, Packet, Shape, tcp},
    policy,
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
pub(super) fn may_open_flow(packet: &Packet) -> bool {
    match packet.shape {
        Shape::Tcp => packet.flags & (tcp::SYN | tcp::ACK | tcp::RST | tcp::FIN) == tcp::SYN,
        Shape::Answer => false,
        _ => true,
    }
}

/// Whether a packet shows that its flow was open before, so that the flow may be adopted.
#[inline(always)]
pub(super) fn shows_running_flow(packet: &Packet) -> bool {
    match packet.shape {
        Shape::Tcp => packet.flags & (tcp::SYN | tcp::ACK | tcp::RST | tcp::FIN) == tcp::ACK,
        Shape::Answer => true,
        _ => false,
    }
}

/// The service that the opener of a flow asked for, read from a packet of the other end.
#[inline(always)]
pub(super) fn asked_service(packet: &Packet) -> u32 {
    let low = match packet.shape {
        Shape::Tcp | Shape::Udp => packet.source_port,
        Shape::Query | Shape::Answer => (packet::query_kind(packet) as u16) << 8,
        _ => packet.icmp,
    };
    (packet.protocol as u32) << 16 | low as u32
}

/// Whether policy was last asked about a flow in the current epochs, and its rule has not ended.
#[inline(always)]
pub(super) fn is_current<T: Lookup + ?Sized>(tables: &T, work: &Work, found: &Found<'_>) -> bool {
    let flow = found.flow;
    let (Some(low), Some(high)) = (
        tables.epoch(epoch(work.slot, flow.cell(0))),
        tables.epoch(epoch(work.slot, flow.cell(1))),
    ) else {
        return false;
    };
    flow.stamp.load() == low.wrapping_add(high) && !flows::rule_has_ended(found, work.tick)
}

/// Index of the epoch of an account. Epochs only grow, so the sum of two changes whenever one of
/// them does. A flow keeps only that sum.
#[inline(always)]
pub(super) fn epoch(slot: u32, account: u32) -> u32 {
    slot * EPOCH_CELLS + flows::cell(account)
}

/// Passes a packet of a current flow; no verdict when it does not fit the flow's state, which the
/// other steps judge.
#[inline(always)]
pub(super) fn pass_established<T: Lookup + ?Sized>(
    tables: &T,
    work: &Work,
    found: &Found<'_>,
    leg: usize,
) -> Option<Verdict> {
    let next = flows::follow(found.state, &work.packet, leg);
    if next == flows::NO_STATE {
        return None;
    }
    Some(go_on(tables, work, found, leg, next))
}

/// Passes a packet of a current flow, which brings the flow into the state `next`.
#[inline(always)]
pub(super) fn go_on<T: Lookup + ?Sized>(
    tables: &T,
    work: &Work,
    found: &Found<'_>,
    leg: usize,
    next: u32,
) -> Verdict {
    if next != found.state {
        flows::set_state(tables, found, &work.sought, next);
    }
    flows::count_packet(found, leg, next, work.packet.length, work.tick);
    established_verdict(found)
}

/// The verdict for a packet that fits a current flow. The flow counts it for its rule, so the
/// verdict names none.
#[inline(always)]
pub(super) fn established_verdict(found: &Found<'_>) -> Verdict {
    if found.state & state::OBSERVED != 0 {
        // The event was sent when the flow opened.
        return Verdict {
            makes_event: false,
            ..Verdict::observed(Reason::NoRule, 0)
        };
    }
    Verdict::of(Reason::Established)
}

/// A drop by policy or state. If an end or the port is in quarantine, the reason is quarantine,
/// because it comes before state and policy.
#[inline(always)]
pub(super) fn drop_by_policy(work: &Work, reason: Reason) -> Verdict {
    Verdict::of(if work.is_cut_off() || has_quarantined_end(work) {
        Reason::Quarantined
    } else {
        reason
    })
}

/// Whether an end is in quarantine.
#[inline(always)]
pub(super) fn has_quarantined_end(work: &Work) -> bool {
    (work.source.flags | work.destination.flags) & End::QUARANTINED != 0
}

/// Finds out what the destination is. When no rule can name it, it is an end without names.
#[inline(always)]
pub(super) fn find_destination<T: Lookup + ?Sized>(tables: &T, work: &mut Work) {
    let destination = work.packet.destination;
    if !policy::end(tables, work.slot, &destination, &mut work.destination) {
        work.destination = End::default();
    }
}
