//! Fast-forward: which packets go on to their next hop in the driver, without the kernel's stack.
//!
//! This is no verdict: only packets that the fast path has passed, as part of an answered flow, get
//! here. In case of doubt a packet goes up the stack, and is judged again where it leaves. A packet
//! that leaves in the driver is not judged again, so it may only go where the flow says that its
//! other end is.
//!
//! A flow keeps its next hop, for packets no longer than the one for which the routing table was
//! asked, until the daemon reports a change of routes or neighbours. The daemon has to renew its
//! promise to report them; without it, the table is asked once a second. So a change takes effect
//! within a second, with or without a daemon.

use crate::{
    abi::{Flow, Forwarding, Port, TICK_SHIFT},
    cell::bit,
    decide::Work,
    flows,
    lookup::Lookup,
    names,
    packet::{Bytes, Packet, Shape, number},
};

/// Whether a packet may leave in the driver at all: it is established, plain TCP or UDP, for the
/// router's own MAC, its hop limit is not exhausted, its checksum is complete, and the stack would
/// neither drop nor trim it.
#[inline(always)]
pub fn may_forward<B: Bytes + ?Sized, T: Lookup + ?Sized>(
    bytes: &B,
    tables: &T,
    work: &Work,
) -> bool {
    let packet = &work.packet;
    let header = if packet.ethertype == number::IPV4 {
        20
    } else {
        40
    };
    let plain = packet.payload == 14 + header && packet.fragment.identification == 0;
    let entry = match tables.forwarding(work.interface) {
        Some(entry) => entry,
        None => return false,
    };
    work.established != 0
        && entry.flags & Forwarding::ENTERS != 0
        && entry.mac == packet.destination_mac
        && plain
        && matches!(packet.shape, Shape::Tcp | Shape::Udp)
        && packet.hop_limit > 1
        // Answers of resolvers are read where they leave.
        && (packet.shape != Shape::Udp || packet.source_port != names::PORT)
        && !packet.source.is_link_local()
        && !packet.destination.is_link_local()
        && has_no_trailer(packet)
        && (packet.ethertype != number::IPV4 || has_right_header(bytes))
        && (entry.flags & Forwarding::PARTIAL == 0 || has_whole_checksum(bytes, packet))
}

/// Whether nothing is behind the packet but what a short frame needs. The stack trims anything else,
/// and then forwards the packet alone.
#[inline(always)]
fn has_no_trailer(packet: &Packet) -> bool {
    /// The shortest frame of Ethernet, without its checksum (IEEE 802.3 section 3.2.7).
    const SHORTEST: u32 = 60;
    packet.length <= SHORTEST || packet.length == packet.end as u32
}

/// Whether the checksum of an IPv4 header without options is right. The stack drops a packet where
/// it is not (RFC 1812 section 5.2.2).
#[inline(always)]
fn has_right_header<B: Bytes + ?Sized>(bytes: &B) -> bool {
    let Some(header) = bytes.read::<20>(14) else {
        return false;
    };
    let mut sum = 0;
    for word in 0..10 {
        sum += u16::from_be_bytes([header[word * 2], header[word * 2 + 1]]) as u32;
    }
    sum = (sum & 0xffff) + (sum >> 16);
    sum + (sum >> 16) == 0xffff
}

/// Whether a checksum covers the packet. One that is left to the stack, or to a network card, is
/// only the sum of the pseudo header (RFC 9293 section 3.1, RFC 768, RFC 8200 section 8.1).
#[inline(always)]
fn has_whole_checksum<B: Bytes + ?Sized>(bytes: &B, packet: &Packet) -> bool {
    let at = packet.payload as usize + if packet.shape == Shape::Tcp { 16 } else { 6 };
    let Some(check) = bytes.read::<2>(at) else {
        return false;
    };
    let length = packet.end.wrapping_sub(packet.payload) as u64;
    let mut sum = packet.protocol as u64 + length;
    for address in [packet.source, packet.destination] {
        let [high, low] = address.number();
        // For an IPv4 address, only its four bytes.
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

/// The low bits of [`Routes::version`](crate::abi::Routes::version).
#[inline(always)]
pub fn routes_version<T: Lookup + ?Sized>(tables: &T) -> u16 {
    match tables.routes() {
        Some(routes) => routes.version as u16,
        None => 0,
    }
}

/// Seconds for which a next hop is kept at most, before the version's low bits could repeat.
const AT_MOST: u32 = 60;

/// The next hop that the packet's flow keeps, as `mac << 16 | interface`; none when the routing table
/// has to be asked. `version` is [`routes_version`].
#[inline(always)]
pub fn known_hop<T: Lookup + ?Sized>(tables: &T, work: &Work, version: u16) -> Option<u64> {
    let age = work.tick.wrapping_sub((work.looked >> 32) as u32);
    let second = tables.settings()?.jiffies_per_second >> TICK_SHIFT;
    let reported = tables.routes()?.until.wrapping_sub(work.tick) as i32 > 0
        && work.looked as u16 == version
        && age <= second * AT_MOST;
    let long = length(work) > (work.looked >> 16) as u16 as u32;
    if work.hop == 0 || age > second && !reported || long {
        return None;
    }
    Some(work.hop)
}

/// Keeps the next hop for packets of this length.
#[inline(always)]
pub fn note_hop<T: Lookup + ?Sized>(tables: &T, work: &Work, hop: u64, version: u16) {
    let when = (work.tick as u64) << 32;
    let looked = when | (length(work) as u64 & 0xffff) << 16 | version as u64;
    let to = bit(work.leg as usize ^ 1);
    flows::note_hop(
        tables,
        work.at.wrapping_sub(1),
        &work.sought,
        to,
        hop,
        looked,
    );
}

/// Whether a packet may leave to a next hop: the hop must be the flow's other end, on an interface
/// that packets may leave through.
///
/// Asked last, after the hop was read, because another flow may have taken this one's place.
#[inline(always)]
pub fn leads_to_other_end<T: Lookup + ?Sized>(tables: &T, work: &Work, hop: u64) -> bool {
    let interface = hop as u32 & 0xffff;
    let (Some(exit), Some(port)) = (
        tables.forwarding(interface),
        tables.port(Port::index(interface, work.slot)),
    ) else {
        return false;
    };
    if exit.flags & Forwarding::LEAVES == 0
        || interface == work.interface
        || port.flags & Port::QUARANTINED != 0
    {
        return false;
    }
    let Some(found) = flows::find_again(tables, &work.sought, work.at) else {
        return false;
    };
    let to = bit(work.leg as usize ^ 1);
    let bind = found.flow.bind[to].load();
    if port.flags & (Port::GUARDED | Port::ABOVE) != 0 {
        // The same conditions as when it is judged at that port: the port has a zone for untagged
        // frames, and the flow's other end has answered from there.
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

#[cfg(test)]
mod tests {
    use super::*;

    /// An IPv4 header with a right checksum, behind an Ethernet header.
    const FRAME: [u8; 34] = [
        2, 0, 0, 0, 0xff, 1, 2, 0, 0, 0, 1, 1, 8, 0, 0x45, 0, 0, 0x73, 0, 0, 0x40, 0, 0x40, 0x11,
        0xb8, 0x61, 0xc0, 0xa8, 0, 1, 0xc0, 0xa8, 0, 0xc7,
    ];

    #[test]
    fn only_a_right_header_goes_ahead() {
        assert!(has_right_header(FRAME.as_slice()));
        for at in 14..34 {
            let mut wrong = FRAME;
            wrong[at] ^= 0x10;
            assert!(!has_right_header(wrong.as_slice()), "{at}");
        }
        assert!(!has_right_header(&FRAME[..33]));
    }

    #[test]
    fn only_what_pads_a_short_frame_goes_along() {
        let frame = |length, end| Packet {
            length,
            end,
            ..Packet::default()
        };
        for (length, end, goes) in [
            (54, 54, true),
            (60, 54, true),
            (61, 54, false),
            (800, 800, true),
            (801, 800, false),
            (1600, 800, false),
        ] {
            assert_eq!(has_no_trailer(&frame(length, end)), goes, "{length} {end}");
        }
    }
}
