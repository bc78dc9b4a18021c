//! Takes the addresses of names from the answers that devices get, before the devices have them.
//!
//! An answer counts when it leaves towards the device and was asked for, and it counts once. Every
//! address in its section of answers is one of the name that was asked for, whatever names of the
//! resolver's lie between.

use super::{inquire::begin, work::Work};
use crate::{
    abi::{
        Address, KNOWN_FOR, NAMED_WAYS, Named, Resolved, SELECTORS, TICK_SHIFT, gauge, named_key,
        named_set, zone,
    },
    cell::opaque,
    lookup::Lookup,
    names,
    packet::{Bytes, Shape},
};

/// Seconds for which an answer is waited for. Resolvers give up before.
const WAITS: u32 = 30;
/// Seconds for which an address counts at most: a day.
const LONGEST: u32 = 86_400;

/// Whether [`read_resolution`] has to run.
#[inline(always)]
pub(super) fn resolves(work: &Work) -> bool {
    work.packet.source_port == names::PORT
        && work.packet.shape == Shape::Udp
        && work.settings & zone::NAMES != 0
        && (!work.is_ingress() || work.is_hosted())
        && work.packet.fragment.identification == 0
}

/// The last step for an answer of a resolver that passes on its way to a device: takes the addresses.
/// `take` runs [`take_address`] with the place of a record.
#[inline(always)]
pub fn read_resolution<B: Bytes + ?Sized, T: Lookup + ?Sized>(
    bytes: &B,
    tables: &T,
    work: &Work,
    mut take: impl FnMut(&Work, u32),
) {
    let Some(settings) = tables.settings() else {
        return;
    };
    let ports = (work.packet.destination_port as u64) << 16 | work.packet.source_port as u64;
    begin(
        &work.message,
        settings.seed,
        [&work.packet.destination, &work.packet.source],
        ports,
    );
    let start = work.packet.payload as usize + 8;
    let end = work.packet.end as usize;
    let bytes = &work.framed(bytes);
    if !names::read_question(bytes, start, end, true, &work.message) {
        return;
    }
    let key = work.message.hash.load();
    let Some(inquiry) = tables.inquiry(key) else {
        return;
    };
    let asked = inquiry.asked;
    for at in 0..SELECTORS {
        work.message.selectors[at].store(inquiry.selectors[at]);
    }
    tables.forget_inquiry(key);
    if work.tick.wrapping_sub(asked) > settings.second() * WAITS {
        return;
    }
    names::find_addresses(bytes, start, end, &work.message, |at| take(work, at));
}

/// Takes the address in a record of an answer. `note` runs [`note_address`] with a selector.
#[inline(always)]
pub fn take_address<B: Bytes + ?Sized>(bytes: &B, at: u32, work: &Work, mut note: impl FnMut(u32)) {
    if !names::read_address(&work.framed(bytes), at as usize, &work.message) {
        return;
    }
    for selector in &work.message.selectors {
        let selector = selector.load();
        if selector != 0 {
            note(selector);
        }
    }
}

/// Notes an address of a selector: among the addresses of the selector, and among the selectors of the
/// address.
#[inline(always)]
pub fn note_address<T: Lookup + ?Sized>(tables: &T, work: &Work, selector: u32) {
    let Some(settings) = tables.settings() else {
        return;
    };
    let message = &work.message;
    let seconds = message.seconds.load().min(LONGEST) as u64;
    let own = ((seconds * settings.jiffies_per_second as u64) >> TICK_SHIFT) as u32;
    // A device may connect at the last moment, and takes some time for it.
    let until = work
        .tick
        .wrapping_add(own.max(settings.name_least))
        .wrapping_add(settings.name_least / 2);
    let address = &message.address();
    let Some(resolved) = tables.resolved(address, true) else {
        count(tables, gauge::NAMES_NO_ROOM);
        return;
    };
    let first = named_set(address, settings.addresses_per_name);
    // `rank << 8 | place` of the best so far: the address itself, then a free place, then what ends
    // first.
    work.candidate.store(u64::MAX);
    for way in 0..NAMED_WAYS {
        let rank = match tables.named(named_key(selector, first + way)) {
            Some(named) if named.address == *address => 0,
            Some(named) => left(named.until, work.tick),
            None => 1,
        };
        note_best(work, rank, way);
    }
    let best = work.candidate.load();
    let key = named_key(selector, first + (best as u32 & (NAMED_WAYS - 1)));
    if best >> 8 > 1 {
        if best >> 8 > ENDED {
            count(tables, gauge::NAMES_CUT_SHORT);
        }
        if let Some(named) = tables.named(key) {
            let gone = named.address;
            forget_address(tables, &gone, selector);
        }
    }
    let named = Named {
        address: *address,
        resolver: work.packet.source,
        asker: work.packet.destination,
        until,
        reserved: 0,
    };
    if !tables.name_address(key, &named) {
        count(tables, gauge::NAMES_NO_ROOM);
        return;
    }
    note_selector(tables, work, resolved, selector, until);
}

/// Ranks of what has ended are up to this.
const ENDED: u64 = 2;

/// The rank of something that ends at a tick.
#[inline(always)]
fn left(until: u32, tick: u32) -> u64 {
    let left = until.wrapping_sub(tick) as i32;
    if left <= 0 {
        ENDED
    } else {
        left as u64 + ENDED
    }
}

#[inline(always)]
fn note_best(work: &Work, rank: u64, place: u32) {
    let rank = rank << 8 | place as u64;
    if rank < work.candidate.load() {
        work.candidate.store(rank);
    }
}

/// Notes a selector of an address: where it is noted, else where a place is free, else in place of the
/// one that ends first.
#[inline(always)]
fn note_selector<T: Lookup + ?Sized>(
    tables: &T,
    work: &Work,
    resolved: &Resolved,
    selector: u32,
    until: u32,
) {
    work.candidate.store(u64::MAX);
    for at in 0..KNOWN_FOR {
        let there = resolved.selectors[at].load();
        let rank = if there == selector {
            0
        } else if there == 0 {
            1
        } else {
            left(resolved.until[at].load(), work.tick)
        };
        note_best(work, rank, at as u32);
    }
    let best = work.candidate.load();
    if best >> 8 > ENDED {
        count(tables, gauge::NAMES_CUT_SHORT);
    }
    let at = opaque(best as usize) & (KNOWN_FOR - 1);
    // In this order no packet takes the time of one selector for that of another.
    if best >> 8 != 0 {
        resolved.selectors[at].store(0);
    }
    resolved.until[at].store(until);
    resolved.selectors[at].store(selector);
}

/// Forgets that an address is one of a selector.
#[inline(always)]
fn forget_address<T: Lookup + ?Sized>(tables: &T, address: &Address, selector: u32) {
    let Some(resolved) = tables.resolved(address, false) else {
        return;
    };
    let mut others = 0;
    for cell in &resolved.selectors {
        let there = cell.load();
        if there == selector {
            cell.store(0);
        } else {
            others |= there;
        }
    }
    if others == 0 {
        tables.forget_resolved(address);
    }
}

#[inline(always)]
fn count<T: Lookup + ?Sized>(tables: &T, cell: u32) {
    if let Some(gauge) = tables.gauge(cell) {
        gauge.add(1);
    }
}
