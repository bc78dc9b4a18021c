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
    let answered = bits & state::ANSWERED != 0;
    if packet.shape != Shape::Tcp {
        return match packet.shape {
            // Only the opener sends queries, and only the other end answers.
            Shape::Query if !from_opener => NO_STATE,
            Shape::Answer if from_opener => NO_STATE,
            _ if from_opener => bits,
            _ => bits | state::ANSWERED,
        };
    }
    if packet.flags & tcp::SYN != 0 {
        return match (packet.flags & tcp::ACK != 0, from_opener) {
            (false, true) => bits,
            (true, false) => bits | state::ANSWERED,
            // A reply can't open a connection in the other direction.
            _ => NO_STATE,
        };
    }
    if packet.flags & tcp::RST != 0 {
        return bits | state::RESET | if from_opener { 0 } else { state::ANSWERED };
    }
    if !answered {
        // A challenge to a stale SYN (RFC 5961 section 4) passes; data before the answer does not.
        return if from_opener { NO_STATE } else { bits };
    }
    let mut next = bits;
    if from_opener {
        next |= state::CONFIRMED;
    }
    if packet.flags & tcp::FIN != 0 {
        next |= if leg == 0 {
            state::FIN_LOW
        } else {
            state::FIN_HIGH
        };
    }
    next
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
    let mark = if protocol == number::TCP {
        state::CONFIRMED
    } else {
        state::ANSWERED
    };
    bits & mark != 0
}

/// Whether a TCP flow is reset, or finished by both ends.
#[inline(always)]
pub fn is_closing(bits: u32) -> bool {
    const FINISHED: u32 = state::FIN_LOW | state::FIN_HIGH;
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
