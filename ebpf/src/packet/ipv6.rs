//! The IPv6 header and its extension headers (RFC 8200).

use super::{Bytes, Packet, joined, number, transport::MEMBERSHIP_ONLY};
use crate::{
    abi::{Address, Reason, zone},
    cell::Cell32,
};

/// Most extension headers that a packet may carry; with more it is dropped.
const EXTENSIONS: usize = 6;

/// RFC 8200.
#[inline(always)]
pub(super) fn ipv6<B: Bytes + ?Sized>(
    bytes: &B,
    packet: &mut Packet,
    settings: u32,
    scratch: &Cell32,
) -> Result<(), Reason> {
    let at = packet.payload as usize;
    let Some(header) = bytes.read::<40>(at) else {
        return Err(Reason::Malformed);
    };
    let length = u16::from_be_bytes([header[4], header[5]]) as usize;
    if header[0] >> 4 != 6 || at + 40 + length > bytes.len() {
        return Err(Reason::Malformed);
    }
    let mut next = header[6];
    packet.hop_limit = header[7];
    packet.source = Address([word(header, 8), word(header, 16)]);
    packet.destination = Address([word(header, 24), word(header, 32)]);
    packet.end = (at + 40 + length) as u16;
    if packet.destination.is_v4() {
        return Err(Reason::Malformed);
    }
    if length == 0 && joined::is_joined(bytes, at) {
        return joined::ipv6(bytes, packet, next, at + 40);
    }
    scratch.store(at as u32 + 40);
    let allowed = settings & zone::IP_OPTIONS != 0;
    let mut extensions = 0usize;
    let mut alert = false;
    let mut forbidden = false;
    let mut fragmented = false;
    for position in 0..EXTENSIONS {
        // Hop-by-hop options, destination options, routing, fragment, authentication, mobility,
        // host identity, shim6. The experimental ones have no known form.
        if !matches!(next, 0 | 43 | 44 | 51 | 60 | 135 | 139 | 140) {
            break;
        }
        let offset = scratch.load() as usize;
        let start = bytes.read::<8>(offset);
        let size = start.map_or(u16::MAX as usize, |start| match next {
            44 => 8,
            // RFC 4302 section 2.2.
            51 => (start[1] as usize + 2) << 2,
            _ => (start[1] as usize + 1) << 3,
        });
        let Some(start) = start.filter(|_| offset + size <= packet.end as usize) else {
            if !packet.fragment.is_first() {
                return Err(Reason::Malformed);
            }
            // A first part that ends within its headers is not malformed, but it must hold all of
            // them (RFC 7112).
            if forbidden || !allowed || !matches!(next, 51 | 60) {
                packet.fault(Reason::ExtensionHeader)?;
            }
            return packet.fault(Reason::Fragment);
        };
        scratch.store((offset + size) as u32);
        match next {
            44 => {
                let part = u16::from_be_bytes([start[2], start[3]]);
                packet.fragment.identification =
                    u32::from_be_bytes([start[4], start[5], start[6], start[7]]);
                packet.fragment.protocol = start[0];
                // An atomic fragment (RFC 6946) counts as a fragment too.
                if settings & zone::FRAGMENTS == 0 {
                    packet.fault(Reason::Fragment)?;
                }
                forbidden |= fragmented;
                fragmented = true;
                next = start[0];
                // An atomic fragment: the packet is its only part.
                if part & 0xfff9 == 0 {
                    continue;
                }
                let length = packet.end as u32 - offset as u32 - 8;
                let more = part & 1 != 0;
                let whole = packet.fragment.read(part as u32 & 0xfff8, more, length);
                if !whole && settings & zone::FRAGMENTS != 0 {
                    return Err(Reason::Malformed);
                }
                if packet.fragment.hides() {
                    packet.fault(Reason::Fragment)?;
                }
                if packet.fragment.offset != 0 {
                    // A later part does not begin with a header.
                    break;
                }
                continue;
            }
            0 => {
                forbidden |= position != 0;
                // Only the router alert option and padding (RFC 2711, RFC 3810 section 5).
                alert = start[1] == 0
                    && matches!(
                        (start[2], start[3], start[6], start[7]),
                        (5, 2, 0, 0) | (5, 2, 1, 0)
                    );
            }
            51 | 60 => {}
            // Routing headers (type 0: RFC 5095; the other types can steer packets around the
            // router) and the rest.
            _ => forbidden = true,
        }
        next = start[0];
        extensions += 1;
    }
    packet.protocol = next;
    packet.payload = scratch.load() as u16;
    // Still no transport header: the chain is longer than any legitimate one, or it has an unknown
    // header.
    forbidden |= packet.fragment.offset == 0
        && matches!(next, 0 | 43 | 44 | 51 | 60 | 135 | 139 | 140 | 253 | 254);
    if forbidden || extensions > 1 && !allowed {
        return packet.fault(Reason::ExtensionHeader);
    }
    if extensions == 1 && !allowed {
        if alert && next == number::ICMPV6 {
            // Only membership messages may carry it; `transport` checks that.
            packet.flags = MEMBERSHIP_ONLY;
            return Ok(());
        }
        return packet.fault(Reason::ExtensionHeader);
    }
    Ok(())
}

/// The word at a constant offset of a header.
#[inline(always)]
pub(super) fn word(header: &[u8; 40], at: usize) -> u64 {
    u64::from_ne_bytes([
        header[at],
        header[at + 1],
        header[at + 2],
        header[at + 3],
        header[at + 4],
        header[at + 5],
        header[at + 6],
        header[at + 7],
    ])
}
