//! The IPv4 header and its options (RFC 791).

use super::{
    Bytes, Packet,
    joined::{is_joined, is_segment},
    number,
};
use crate::{
    abi::{Address, Reason, zone},
    cell::Cell32,
};

/// RFC 791.
#[inline(always)]
pub(super) fn ipv4<B: Bytes + ?Sized>(
    bytes: &B,
    packet: &mut Packet,
    settings: u32,
    scratch: &Cell32,
) -> Result<(), Reason> {
    let at = packet.payload as usize;
    let Some(header) = bytes.read::<20>(at) else {
        return Err(Reason::Malformed);
    };
    let header_length = ((header[0] & 0xf) as usize) << 2;
    let total_length = u16::from_be_bytes([header[2], header[3]]) as usize;
    let joined = total_length == 0 && is_joined(bytes, at);
    if header[0] >> 4 != 4
        || header_length < 20
        || !joined && (total_length < header_length || at + total_length > bytes.len())
    {
        return Err(Reason::Malformed);
    }
    packet.protocol = header[9];
    packet.hop_limit = header[8];
    packet.source = Address::v4([header[12], header[13], header[14], header[15]]);
    packet.destination = Address::v4([header[16], header[17], header[18], header[19]]);
    packet.payload = (at + header_length) as u16;
    packet.end = if joined {
        u16::MAX
    } else {
        (at + total_length) as u16
    };
    let part = u16::from_be_bytes([header[6], header[7]]) & 0x3fff;
    if joined && !is_segment(packet, part) {
        return Err(Reason::Malformed);
    }
    let identification = u16::from_be_bytes([header[4], header[5]]);
    if header_length > 20 {
        options(
            bytes,
            packet,
            at + 20,
            header_length - 20,
            settings,
            scratch,
        )?;
    }
    if part == 0 {
        return Ok(());
    }
    packet.fragment.identification = identification as u32;
    packet.fragment.protocol = packet.protocol;
    let length = (total_length - header_length) as u32;
    let more = part & 0x2000 != 0;
    let offset = (part as u32 & 0x1fff) << 3;
    let whole = packet.fragment.read(offset, more, length);
    // Where fragments are dropped, the reason is the fragment, whatever its content.
    let allowed = settings & zone::FRAGMENTS != 0;
    if allowed && !whole {
        return Err(Reason::Malformed);
    }
    if !allowed || packet.fragment.hides() {
        return packet.fault(Reason::Fragment);
    }
    Ok(())
}

/// IPv4 options: the router alert of a membership report is always allowed; the zone decides on
/// others, except that a source route never passes (RFC 7126 sections 4.3 and 4.4).
#[inline(always)]
fn options<B: Bytes + ?Sized>(
    bytes: &B,
    packet: &mut Packet,
    at: usize,
    length: usize,
    settings: u32,
    scratch: &Cell32,
) -> Result<(), Reason> {
    if packet.protocol == number::IGMP && length == 4 {
        let Some(alert) = bytes.read::<4>(at) else {
            return Err(Reason::Malformed);
        };
        if *alert == [0x94, 4, 0, 0] {
            return Ok(());
        }
    }
    let mut forbidden = settings & zone::IP_OPTIONS == 0;
    scratch.store(0);
    for _ in 0..OPTIONS {
        let offset = (scratch.load() & 63) as usize;
        if offset >= length {
            break;
        }
        let Some(kind) = bytes.read::<1>(at + offset) else {
            return Err(Reason::Malformed);
        };
        match kind[0] {
            0 => {
                scratch.store(63);
                break;
            }
            1 => scratch.store(offset as u32 + 1),
            kind => {
                let Some(size) = bytes.read::<1>(at + offset + 1) else {
                    return Err(Reason::Malformed);
                };
                let size = size[0] as usize;
                if size < 2 || offset + size > length {
                    return Err(Reason::Malformed);
                }
                // Loose and strict source route, and the obsolete stream identifier.
                forbidden |= matches!(kind, 131 | 137 | 136);
                scratch.store((offset + size) as u32);
            }
        }
    }
    if forbidden || (scratch.load() as usize) < length {
        return packet.fault(Reason::IpOptions);
    }
    Ok(())
}

/// Most IPv4 options, padding included, that a packet may carry; with more it is dropped.
const OPTIONS: usize = 16;
