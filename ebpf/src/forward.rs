//! Fast-forward: which packets go on to their next hop in the driver, without the kernel's stack.
//!
//! Only what has passed already, as part of an answered flow, by the fast path; so this is no
//! verdict. Where it is not sure the packet goes up the stack, as it would have without it, and is
//! judged again where it leaves. What leaves here is not: so the flow itself must say that its
//! other end is where the packet goes.
//!
//! A flow remembers the next hop, for packets that are no longer than those that the routing table
//! was asked about, until the daemon tells of a change of routes or neighbours. It has to say again
//! and again that it tells: without a daemon the table is asked once a second. So a change is
//! followed within a second, with or without one.

use crate::{
    abi::{Flow, Forwarding, Port, TICK_SHIFT},
    cell::bit,
    decide::Work,
    flows,
    packet::{Bytes, Packet, Shape, number},
    tables::Tables,
};

/// Whether a packet may leave in the driver at all: an established one, plain IP, for the router's
/// own MAC, with a hop to live and a whole checksum.
#[inline(always)]
pub fn may<B: Bytes + ?Sized, T: Tables + ?Sized>(bytes: &B, tables: &T, work: &Work) -> bool {
    let packet = &work.packet;
    let header = if packet.ethertype == number::IPV4 {
        20
    } else {
        40
    };
    let plain = packet.payload == 14 + header && packet.fragment.identification == 0;
    let entry = match tables.forwarding(work.ifindex) {
        Some(entry) => entry,
        None => return false,
    };
    work.fast != 0
        && entry.flags & Forwarding::ENTERS != 0
        && entry.mac == packet.destination_mac
        && plain
        && matches!(packet.shape, Shape::Tcp | Shape::Udp)
        && packet.hop_limit > 1
        && (entry.flags & Forwarding::PARTIAL == 0 || is_whole(bytes, packet))
}

/// Whether a checksum covers the packet. One that is left to the stack, or to a network card, is the
/// sum of the pseudo header alone (RFC 9293 section 3.1, RFC 768, RFC 8200 section 8.1).
#[inline(always)]
fn is_whole<B: Bytes + ?Sized>(bytes: &B, packet: &Packet) -> bool {
    let at = packet.payload as usize + if packet.shape == Shape::Tcp { 16 } else { 6 };
    let Some(check) = bytes.read::<2>(at) else {
        return false;
    };
    let length = packet.end.wrapping_sub(packet.payload) as u64;
    let mut sum = packet.protocol as u64 + length;
    for address in [packet.source, packet.destination] {
        let [high, low] = address.number();
        // Of an IPv4 address only its four bytes.
        let (high, low) = if packet.ethertype == number::IPV4 {
            (0, low & 0xffff_ffff)
        } else {
            (high, low)
        };
        for word in [high, low] {
            sum += (word >> 48) + (word >> 32 & 0xffff) + (word >> 16 & 0xffff) + (word & 0xffff);
        }
    }
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    u16::from_be_bytes(*check) as u64 != sum
}

/// The low bits of the number of the last change of routes and neighbours.
#[inline(always)]
pub fn change<T: Tables + ?Sized>(tables: &T) -> u16 {
    match tables.routes() {
        Some(routes) => routes.change as u16,
        None => 0,
    }
}

/// Seconds for which a next hop is remembered at most: long before changes have the same low bits.
const AT_MOST: u32 = 60;

/// The next hop that the packet's flow remembers, as `mac << 16 | ifindex`; none when the routing
/// table has to be asked. `change` is the last that the daemon has told of.
#[inline(always)]
pub fn known<T: Tables + ?Sized>(tables: &T, work: &Work, change: u16) -> Option<u64> {
    let age = work.tick.wrapping_sub((work.looked >> 32) as u32);
    let second = tables.settings()?.jiffies_per_second >> TICK_SHIFT;
    let told = tables.routes()?.until.wrapping_sub(work.tick) as i32 > 0
        && work.looked as u16 == change
        && age <= second * AT_MOST;
    let long = length(work) > (work.looked >> 16) as u16 as u32;
    if work.hop == 0 || age > second && !told || long {
        return None;
    }
    Some(work.hop)
}

/// Remembers the next hop for packets of this length.
#[inline(always)]
pub fn remember<T: Tables + ?Sized>(tables: &T, work: &Work, hop: u64, change: u16) {
    let when = (work.tick as u64) << 32;
    let looked = when | (length(work) as u64 & 0xffff) << 16 | change as u64;
    let to = bit(work.leg as usize ^ 1);
    flows::remember(
        tables,
        work.at.wrapping_sub(1),
        &work.sought,
        to,
        hop,
        looked,
    );
}

/// Whether a packet may leave to a next hop: to the flow's other end, where packets may leave.
///
/// Asked last, after the hop was read: the flow may have made way for another meanwhile.
#[inline(always)]
pub fn leads<T: Tables + ?Sized>(tables: &T, work: &Work, hop: u64) -> bool {
    let ifindex = hop as u32 & 0xffff;
    let (Some(exit), Some(port)) = (
        tables.forwarding(ifindex),
        tables.port(Port::index(ifindex, work.slot)),
    ) else {
        return false;
    };
    if exit.flags & Forwarding::LEAVES == 0 || ifindex == work.ifindex {
        return false;
    }
    let Some(found) = flows::again(tables, &work.sought, work.at) else {
        return false;
    };
    let to = bit(work.leg as usize ^ 1);
    let bind = found.flow.bind[to].load();
    if port.flags & (Port::GUARDED | Port::ABOVE) != 0 {
        // As where it leaves: a zone for untagged frames, and the device that has answered.
        bind == hop && flows::vlan(found.state, to) == 0 && port.zone != 0
    } else {
        bind == Flow::OUTSIDE
    }
}

/// Bytes of the IP packet.
#[inline(always)]
fn length(work: &Work) -> u32 {
    (work.packet.end as u32).wrapping_sub(14)
}
