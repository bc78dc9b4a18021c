//! The state of a flow: what a packet does to it, and how long it lives.

use crate::{
    abi::{Settings, state},
    packet::{Packet, Shape, number, tcp},
};

/// What [`follow`] answers when a packet may not be part of its flow. No state has this value.
pub const NO_STATE: u32 = u32::MAX;

/// The state of a flow after a packet; [`NO_STATE`] when the packet may not be part of it.
///
/// The caller has to handle packets that open the flow anew after its end, see [`reopens`].
#[inline(always)]
pub fn follow(bits: u32, packet: &Packet, leg: usize) -> u32 {
    let from_opener = leg == opener(bits);
    if packet.shape != Shape::Tcp {
        // The end that has not been heard yet: of an adopted flow the one that asks.
        let awaited = from_opener == (bits & state::CONFIRMED != 0);
        return match packet.shape {
            // Only the opener sends queries, and only the other end answers.
            Shape::Query if !from_opener => NO_STATE,
            Shape::Answer if from_opener => NO_STATE,
            _ if awaited => bits | state::ANSWERED,
            _ => bits,
        };
    }
    if packet.flags & tcp::SYN != 0 {
        return match (packet.flags & tcp::ACK != 0, from_opener) {
            (false, true) => bits,
            // Nobody who still has the connection sends it again after a reset.
            (true, false) if bits & state::RESET != 0 => bits,
            (true, false) => bits | state::ANSWERED,
            // A reply can't open a connection in the other direction.
            _ => NO_STATE,
        };
    }
    if packet.flags & tcp::RST != 0 {
        return after_reset(bits, from_opener);
    }
    let begun = bits & (state::ANSWERED | state::CONFIRMED | state::RESET) != 0;
    if !begun {
        // A challenge to a stale SYN (RFC 5961 section 4) passes; data before the answer does not.
        return if from_opener { NO_STATE } else { bits };
    }
    let mut next = bits
        | if from_opener {
            state::CONFIRMED
        } else {
            state::ANSWERED
        };
    if packet.flags & tcp::FIN != 0 {
        next |= if leg == 0 {
            state::FIN_LOW
        } else {
            state::FIN_HIGH
        };
    }
    if packet.data && has_both(next) {
        next &= !state::RESET;
    }
    next
}

/// The state of a TCP flow after a reset.
///
/// A reset of an open connection may be forged: who receives it ignores it, unless it fits the
/// window (RFC 5961 section 3), which is not known here. So from then on the marks of both ends
/// mean that they have spoken since, and the connection goes on if both have and one sends data. No
/// end can make it go on alone.
#[inline(always)]
fn after_reset(bits: u32, from_opener: bool) -> u32 {
    if bits & state::RESET != 0 {
        bits
    } else if has_both(bits) {
        bits & !(state::ANSWERED | state::CONFIRMED) | state::RESET
    } else {
        // There is no connection yet that could go on.
        bits & !state::CONFIRMED | FINISHED | if from_opener { 0 } else { state::ANSWERED }
    }
}

/// Whether both ends of a TCP flow have spoken.
#[inline(always)]
fn has_both(bits: u32) -> bool {
    const BOTH: u32 = state::ANSWERED | state::CONFIRMED;
    bits & BOTH == BOTH
}

/// Whether a packet keeps its flow from timing out; `next` is the state after it.
///
/// A flow that ends is kept by nothing, and one that has no answer only by who opened it. Otherwise
/// one end could keep the other's flows for as long as it likes.
#[inline(always)]
pub(super) fn keeps(bits: u32, next: u32, protocol: u8, leg: usize) -> bool {
    if protocol == number::TCP && is_closing(bits) {
        return false;
    }
    let heard = (next ^ bits) & (state::ANSWERED | state::CONFIRMED) != 0;
    is_answered(protocol, bits) || heard || leg == opener(bits)
}

/// Whether a packet asks for a new flow where an old one has ended.
#[inline(always)]
pub fn reopens(bits: u32, packet: &Packet) -> bool {
    packet.shape == Shape::Tcp
        && packet.flags & (tcp::SYN | tcp::ACK) == tcp::SYN
        && is_closing(bits)
}

/// Whether the other end has answered; for TCP, whether the opener has acknowledged the answer.
#[inline(always)]
pub fn is_answered(protocol: u8, bits: u32) -> bool {
    let marks = if protocol == number::TCP {
        state::ANSWERED | state::CONFIRMED
    } else {
        state::ANSWERED
    };
    bits & marks == marks
}

/// The state with which a flow is adopted: only one end has been heard. That is the opener, or, when
/// `reversed`, the other end.
#[inline(always)]
pub fn adopted(protocol: u8, reversed: bool) -> u32 {
    if protocol == number::TCP && reversed {
        state::ANSWERED
    } else {
        state::CONFIRMED
    }
}

/// Both ends of a TCP flow have sent FIN. Also the state of one that was reset before it was open.
const FINISHED: u32 = state::FIN_LOW | state::FIN_HIGH;

/// Whether a TCP flow is reset, or finished by both ends.
#[inline(always)]
pub fn is_closing(bits: u32) -> bool {
    bits & state::RESET != 0 || bits & FINISHED == FINISHED
}

/// Ticks that a flow lives without a packet.
#[inline(always)]
pub fn lifetime(protocol: u8, bits: u32, settings: &Settings) -> u32 {
    match protocol {
        number::TCP if is_closing(bits) => settings.tcp_closing,
        number::TCP if !is_answered(protocol, bits) => settings.tcp_unanswered,
        number::TCP => settings.tcp_established,
        number::ICMP | number::ICMPV6 => settings.icmp,
        _ if bits & state::ANSWERED != 0 => settings.udp_answered,
        _ => settings.udp,
    }
}

/// The end that opened a flow: 0 low, 1 high.
#[inline(always)]
pub fn opener(bits: u32) -> usize {
    (bits & state::OPENER_HIGH) as usize
}

/// VLAN of an end's packets.
#[inline(always)]
pub fn vlan(bits: u32, leg: usize) -> u16 {
    (bits >> if leg == 0 { 20 } else { 8 } & 0xfff) as u16
}

/// The state with another VLAN for an end.
#[inline(always)]
pub fn with_vlan(bits: u32, leg: usize, vlan: u16) -> u32 {
    let shift = if leg == 0 { 20 } else { 8 };
    bits & !(0xfff << shift) | (vlan as u32) << shift
}
