//! Notes what devices ask resolvers for, so that only an answer to a question counts.
//!
//! Only questions for names that the policy has are noted, and only those to the router or to a resolver
//! that the policy lists. What is noted says who asks whom, from which port and with which identifier,
//! and has the question byte by byte: a device that mixes upper and lower case needs the same mix in the
//! answer.

use super::{ask::find_destination, work::Work};
use crate::{
    abi::{Address, AddressKey, INQUIRERS, Inquiry, SELECTORS, zone},
    cell::opaque,
    flows::folded,
    lookup::Lookup,
    names::{self, Message},
    packet::{Bytes, Shape},
};

/// Labels at which a name is looked up: its own and those of names around it.
const LABELS: usize = 32;
/// Questions of one sender that are noted in a second.
const PER_SECOND: u32 = 4_096;

/// Whether [`note_inquiry`] has to run.
#[inline(always)]
pub(super) fn inquires(work: &Work) -> bool {
    work.packet.destination_port == names::PORT
        && work.packet.shape == Shape::Udp
        && work.settings & zone::NAMES != 0
        && work.is_ingress()
        && !work.is_hosted()
        && !work.packet.is_to_group()
        && work.packet.fragment.identification == 0
}

/// The last step for a question to a resolver that passes: notes it.
#[inline(always)]
pub fn note_inquiry<B: Bytes + ?Sized, T: Lookup + ?Sized>(bytes: &B, tables: &T, work: &mut Work) {
    let Some(settings) = tables.settings() else {
        return;
    };
    let resolver = AddressKey {
        address: work.packet.destination.without_link(),
        slot: work.slot as u64,
    };
    if !tables.is_resolver(&resolver) {
        find_destination(tables, work);
        if !work.destination.is_router() {
            return;
        }
    }
    let ports = (work.packet.source_port as u64) << 16 | work.packet.destination_port as u64;
    begin(
        &work.message,
        settings.seed,
        [&work.packet.source, &work.packet.destination],
        ports,
    );
    let start = work.packet.payload as usize + 8;
    let end = work.packet.end as usize;
    if !names::read_question(&work.framed(bytes), start, end, false, &work.message) {
        return;
    }
    find_selectors(tables, work.slot, &work.message);
    if work.message.count.load() == 0 || !has_room(tables, settings.second(), work) {
        return;
    }
    let mut inquiry = Inquiry {
        asked: work.tick,
        ..Inquiry::default()
    };
    for at in 0..SELECTORS {
        inquiry.selectors[at] = work.message.selectors[at].load();
    }
    // Without room the answer counts for nothing, as if it had not been asked for.
    let _noted = tables.note_inquiry(work.message.hash.load(), &inquiry);
}

/// Begins the hash of a question: who asks whom, and from which port.
#[inline(always)]
pub(super) fn begin(message: &Message, seed: u64, ends: [&Address; 2], ports: u64) {
    let words = [
        ends[0].0[0],
        ends[0].0[1],
        ends[1].0[0],
        ends[1].0[1],
        ports,
    ];
    message.hash.store(words.into_iter().fold(seed, folded));
}

/// Finds the selectors that a name is of: the one of this name, and those of all names below one that
/// is around it.
#[inline(always)]
fn find_selectors<T: Lookup + ?Sized>(tables: &T, slot: u32, message: &Message) {
    message.at.store(0);
    message.count.store(0);
    for selector in &message.selectors {
        selector.store(0);
    }
    for label in 0..LABELS {
        let at = opaque(message.at.load() as usize) & 0xff;
        if let Some(watched) = tables.watched(slot, &message.name, at) {
            let selector = if label == 0 {
                watched.exact
            } else {
                watched.below
            };
            let count = message.count.load();
            if selector != 0 && count < SELECTORS as u32 {
                message.selectors[opaque(count as usize) & (SELECTORS - 1)].store(selector);
                message.count.store(count + 1);
            }
        }
        let length = message.name.byte(at);
        if length == 0 {
            break;
        }
        message.at.store(at as u32 + 1 + length as u32);
    }
}

/// Whether a sender has asked less than it may in this second. Some senders share a count.
#[inline(always)]
fn has_room<T: Lookup + ?Sized>(tables: &T, second: u32, work: &Work) -> bool {
    let bind = work.bind();
    let cell = folded(bind, bind >> 16) as u32 & (INQUIRERS - 1);
    let Some(count) = tables.inquirer(cell) else {
        return false;
    };
    let was = count.load();
    let (since, asked) = ((was >> 32) as u32, was as u32);
    if work.tick.wrapping_sub(since) >= second {
        count.store((work.tick as u64) << 32 | 1);
        return true;
    }
    count.store(was + 1);
    asked < PER_SECOND
}
