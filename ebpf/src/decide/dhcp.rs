//! The options of a DHCP client's message: does it speak only for itself?
//!
//! A server knows a client by an identifier that the client chooses, and frees the address that a
//! client names. So a device may use only a few identifiers, and name only its own addresses. What
//! can't be read is dropped, because a server may read it in another way.
//!
//! A message may have many options, so this is a step of its own, which the verifier checks once.

use super::work::{Verdict, Work};
use crate::{
    abi::{Address, Clients, IDENTIFIERS, Reason},
    cell::opaque,
    guards,
    lookup::Lookup,
    packet::Bytes,
};

/// Options of DHCPv4, padding among them. Clients send about ten.
const OPTIONS: usize = 128;
/// Options of DHCPv6. Clients send about ten.
const OPTIONS_V6: usize = 32;
/// The longest identifier: the longest of DHCPv6 (RFC 8415 section 11.1), and the five bytes that
/// DHCPv4 puts before it (RFC 4361 section 6.1).
const LONGEST: u32 = 135;

/// Places in [`Options::places`](super::work::Options). The first is for what does not matter, the
/// last four are for addresses.
const KIND: u32 = 1;
const IDENTIFIER: u32 = 2;
const REQUESTED: u32 = 3;
/// DHCPv4: the options go on elsewhere; DHCPv6: an association of prefixes.
const ELSEWHERE: u32 = 3;
pub(super) const ADDRESSES: u32 = 4;
const OVERLOAD: u32 = 4;

/// Reads the options of a DHCP client's message, and checks what they say.
#[inline(always)]
pub fn read_dhcp<B: Bytes + ?Sized, T: Lookup + ?Sized>(
    bytes: &B,
    tables: &T,
    work: &mut Work,
) -> Option<Verdict> {
    forget_options(work);
    let own = if work.packet.source.is_v4() {
        read_v4(bytes, work) && speaks_for_itself(bytes, tables, work)
    } else {
        read_v6(bytes, work) && speaks_for_itself_v6(bytes, tables, work)
    };
    if own && has_room(bytes, tables, work) {
        None
    } else {
        Some(Verdict::of(Reason::RogueDhcp))
    }
}

/// Forgets what was read of another message.
#[inline(always)]
pub(super) fn forget_options(work: &Work) {
    work.options.filled.store(0);
    work.options.inner.store(0);
    work.options.addresses.store(0);
    work.options.settles.store(0);
    work.options.refused.store(0);
}

/// Notes where a value is. One that is given twice has no clear meaning.
#[inline(always)]
fn note(work: &Work, place: u32, at: u32, length: u32) {
    let bit = (1 << place) & !1;
    let filled = work.options.filled.load();
    work.options
        .filled
        .store(filled | bit | (filled & bit) << 8);
    work.options.places[opaque(place as usize) & 7].store(at << 16 | length & 0xffff);
}

#[inline(always)]
fn is_filled(work: &Work, place: u32) -> bool {
    work.options.filled.load() >> place & 1 != 0
}

#[inline(always)]
pub(super) fn place(work: &Work, place: u32) -> (u32, u32) {
    let value = work.options.places[place as usize & 7].load();
    (value >> 16, value & 0xffff)
}

/// Reads the options of DHCPv4 (RFC 2132), behind the magic cookie; false when they do not end
/// where the message ends or with the end option, or one that matters is given twice.
#[inline(always)]
fn read_v4<B: Bytes + ?Sized>(bytes: &B, work: &Work) -> bool {
    let end = work.packet.end as u32;
    let start = work.packet.payload as u32 + 8 + 236;
    if start + 4 > end || bytes.read::<4>(start as usize) != Some(&[99, 130, 83, 99]) {
        return false;
    }
    work.scratch.store(start + 4);
    for _ in 0..OPTIONS {
        let at = work.scratch.load();
        if at >= end {
            break;
        }
        let Some([code]) = bytes.read::<1>(at as usize) else {
            break;
        };
        let code = *code;
        if code == 255 {
            work.scratch.store(end);
            break;
        }
        // Padding has no length.
        if code == 0 {
            work.scratch.store(at + 1);
            continue;
        }
        let Some([length]) = bytes.read::<1>(at as usize + 1) else {
            break;
        };
        let length = *length as u32;
        work.scratch.store(at + 2 + length);
        let matters = match code {
            53 => KIND,
            61 => IDENTIFIER,
            50 => REQUESTED,
            52 => OVERLOAD,
            _ => 0,
        };
        note(work, matters, at + 2, length);
    }
    work.scratch.load() == end && work.options.filled.load() >> 8 == 0 && !is_filled(work, OVERLOAD)
}

/// The kind of a message of DHCPv4, if its options can be read.
#[inline(always)]
pub(super) fn read_kind<B: Bytes + ?Sized>(bytes: &B, work: &Work) -> Option<u8> {
    if read_v4(bytes, work) {
        kind(bytes, work)
    } else {
        None
    }
}

/// The kind of a message of DHCPv4, after its options were read.
#[inline(always)]
fn kind<B: Bytes + ?Sized>(bytes: &B, work: &Work) -> Option<u8> {
    let (at, length) = place(work, KIND);
    if !is_filled(work, KIND) || length != 1 {
        return None;
    }
    let [kind] = bytes.read::<1>(at as usize)?;
    Some(*kind)
}

/// Notes the only address that a message settles.
#[inline(always)]
pub(super) fn settle_one(work: &Work, at: u32) {
    note(work, ADDRESSES, at, 4);
    work.options.settles.store(1);
}

/// The number that a client has given to an exchange of messages, which the server's answers repeat.
#[inline(always)]
pub(super) fn transaction<B: Bytes + ?Sized>(bytes: &B, work: &Work) -> Option<u32> {
    let at = work.packet.payload as usize + 8;
    if work.packet.source.is_v4() {
        Some(u32::from_ne_bytes(*bytes.read::<4>(at + 4)?))
    } else {
        let [_, a, b, c] = bytes.read::<4>(at)?;
        Some(u32::from_ne_bytes([0, *a, *b, *c]))
    }
}

/// Whether a message of DHCPv4 is of a kind that clients send, and gives back only the sender's own
/// address.
#[inline(always)]
fn speaks_for_itself<B: Bytes + ?Sized, T: Lookup + ?Sized>(
    bytes: &B,
    tables: &T,
    work: &mut Work,
) -> bool {
    let Some(kind) = kind(bytes, work) else {
        return false;
    };
    let given_back = match kind {
        // Discover, request, inform.
        1 | 3 | 8 => return true,
        // Decline names the address that was offered.
        4 => {
            let (at, length) = place(work, REQUESTED);
            if !is_filled(work, REQUESTED) || length != 4 {
                return false;
            }
            at
        }
        // Release names the client's own.
        7 => work.packet.payload as u32 + 8 + 12,
        _ => return false,
    };
    settle_one(work, given_back);
    match bytes.read::<4>(given_back as usize) {
        Some(address) => is_own(tables, work, &Address::v4(*address)),
        None => false,
    }
}

/// Reads the options of DHCPv6 (RFC 8415 section 21), and those in associations of addresses; false
/// when an option reaches beyond what it is in.
#[inline(always)]
pub(super) fn read_v6<B: Bytes + ?Sized>(bytes: &B, work: &Work) -> bool {
    let end = work.packet.end as u32;
    work.scratch.store(work.packet.payload as u32 + 8 + 4);
    for _ in 0..OPTIONS_V6 {
        let at = work.scratch.load();
        if at >= end {
            break;
        }
        let Some([a, b, c, d]) = bytes.read::<4>(at as usize) else {
            break;
        };
        let code = u16::from_be_bytes([*a, *b]);
        let length = u16::from_be_bytes([*c, *d]) as u32;
        let next = at + 4 + length;
        let inner = work.options.inner.load();
        let inside = at < inner;
        if next > if inside { inner } else { end } {
            break;
        }
        // What comes before the options of an association.
        let fixed = match code {
            3 | 25 => 12,
            4 => 4,
            _ => 0,
        };
        let matters = match code {
            1 => IDENTIFIER,
            25 => ELSEWHERE,
            5 => {
                let addresses = work.options.addresses.load();
                work.options.addresses.store(addresses + 1);
                ADDRESSES + (addresses & 3)
            }
            _ => 0,
        };
        // Identifiers and associations stand outside, addresses inside.
        let outside = fixed != 0 || code == 1;
        if inside && outside || !inside && code == 5 || length < fixed || code == 5 && length < 24 {
            break;
        }
        if fixed != 0 {
            work.options.inner.store(next);
        }
        work.scratch
            .store(if fixed != 0 { at + 4 + fixed } else { next });
        note(work, matters, at + 4, length);
    }
    // A device may have several associations, and an address in each.
    const TWICE: u32 = 1 << (8 + IDENTIFIER);
    work.scratch.load() == end && work.options.filled.load() & TWICE == 0
}

/// Whether a message of DHCPv6 gives back only the sender's own addresses. Whose a prefix is can't
/// be known, so none is given back.
#[inline(always)]
fn speaks_for_itself_v6<B: Bytes + ?Sized, T: Lookup + ?Sized>(
    bytes: &B,
    tables: &T,
    work: &mut Work,
) -> bool {
    let at = work.packet.payload as usize + 8;
    match bytes.read::<1>(at) {
        // Release, decline.
        Some([8 | 9]) => {}
        Some(_) => return true,
        None => return false,
    }
    let addresses = work.options.addresses.load();
    if is_filled(work, ELSEWHERE) || addresses > 4 {
        return false;
    }
    for n in 0..4 {
        if n >= addresses {
            break;
        }
        let (at, _) = place(work, ADDRESSES + n);
        let Some(address) = bytes.read::<16>(at as usize) else {
            return false;
        };
        if !is_own(tables, work, &Address::v6(address)) {
            return false;
        }
    }
    work.options.settles.store(addresses);
    true
}

/// Whether the sender may give an address back: its own, or one that it could have been offered.
#[inline(always)]
fn is_own<T: Lookup + ?Sized>(tables: &T, work: &mut Work, address: &Address) -> bool {
    guards::may_own(tables, &work.sender, address, &mut work.destination)
}

/// Whether the sender uses few enough identifiers, this one among them. A DHCPv4 client that gives
/// none is known by its MAC.
#[inline(always)]
fn has_room<B: Bytes + ?Sized, T: Lookup + ?Sized>(bytes: &B, tables: &T, work: &Work) -> bool {
    let Some(settings) = tables.settings() else {
        return false;
    };
    let given = is_filled(work, IDENTIFIER);
    if !given && !work.packet.source.is_v4() {
        return true;
    }
    work.candidate.store(settings.seed);
    let (at, length) = if given {
        place(work, IDENTIFIER)
    } else {
        // The hardware type, and the address, as most clients write it into the option.
        mix(work, 1);
        (work.packet.payload as u32 + 8 + 28, 6)
    };
    if length == 0 || length > LONGEST {
        return false;
    }
    for n in 0..LONGEST {
        if n >= length {
            break;
        }
        let Some([byte]) = bytes.read::<1>((at + n) as usize) else {
            return false;
        };
        mix(work, *byte);
    }
    let hash = (work.candidate.load() >> 32) as u32 | 1;
    match tables.clients(work.device, work.packet.source_mac) {
        Some(clients) => {
            let own = takes(clients, hash, work.tick, settings.day());
            if own {
                note_asked(bytes, work, clients);
            }
            own
        }
        None => false,
    }
}

/// Notes what a client asks for, so that the answer is believed.
#[inline(always)]
fn note_asked<B: Bytes + ?Sized>(bytes: &B, work: &Work, clients: &Clients) {
    let mut wanted = 0;
    if work.packet.source.is_v4() {
        // The requested address; who renews or rebinds names the one that it has.
        let (at, length) = place(work, REQUESTED);
        let at = if is_filled(work, REQUESTED) && length == 4 {
            at
        } else {
            work.packet.payload as u32 + 8 + 12
        };
        if let Some(address) = bytes.read::<4>(at as usize) {
            wanted = u32::from_ne_bytes(*address);
        }
    }
    clients.wanted.store(wanted);
    clients.asked_on.store(work.interface);
    clients.asked_at.store(work.tick);
    clients
        .transaction
        .store(transaction(bytes, work).unwrap_or(0));
}

/// Adds a byte to the hash of the identifier. It starts from a secret, so that no two identifiers
/// can be made to look the same.
#[inline(always)]
fn mix(work: &Work, byte: u8) {
    let hash = (work.candidate.load() ^ byte as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    work.candidate.store(hash ^ hash >> 29);
}

/// Whether an identifier is known, or takes a place that is free or was not used for a day.
#[inline(always)]
fn takes(clients: &Clients, hash: u32, tick: u32, day: u32) -> bool {
    for n in 0..IDENTIFIERS {
        if clients.hashes[n].load() == hash {
            clients.last[n].store(tick);
            return true;
        }
    }
    for n in 0..IDENTIFIERS {
        if clients.hashes[n].load() == 0 || tick.wrapping_sub(clients.last[n].load()) > day {
            clients.hashes[n].store(hash);
            clients.last[n].store(tick);
            return true;
        }
    }
    false
}
