//! Taking over a flow that another version's table has.

use super::{
    Found, Opening, Sought, cell,
    end::{Uncounted, credit_rule},
    find,
    follow::{lifetime, opener, vlan},
    open, set_state,
};
use crate::{
    abi::{Carried, EPOCH_CELLS, FlowEnds, Settings, gauge, state},
    cell::{Cell64, bit},
    lookup::Lookup,
};

/// The marks that packets leave in a flow's state.
const MARKS: u32 =
    state::ANSWERED | state::CONFIRMED | state::FIN_LOW | state::FIN_HIGH | state::RESET;

/// Memory outside the stack for the work on one flow.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Carrying {
    sought: Sought,
    opening: Opening,
    candidate: Cell64,
}

/// Takes a flow over. Its next packet is judged by all steps, as after a change of the policy, so it
/// is enough that another version has admitted it once.
#[inline(always)]
pub fn carry<T: Lookup + ?Sized>(
    tables: &T,
    settings: &Settings,
    carrying: &mut Carrying,
    carried: &Carried,
) {
    let Carrying {
        sought,
        opening,
        candidate,
    } = carrying;
    let tick = tables.tick();
    sought.set(carried.key, settings.seed);
    if let Some(found) = find(tables, settings, sought, tick) {
        if carried.what != Carried::OPEN {
            add(tables, &found, sought, carried);
        }
        return;
    }
    let idle = tick.wrapping_sub(carried.last) as i32;
    let lives = idle <= lifetime(carried.key.ports as u8, carried.state, settings) as i32;
    if carried.what == Carried::SINCE || !lives {
        credit_rule(tables, &uncounted(carried));
        return;
    }
    let payer = opener(carried.state) ^ (carried.would >> 31) as usize;
    let (payer, other) = (bit(payer), bit(payer ^ 1));
    let epoch = |device: u32| {
        let slot = tables.active().unwrap_or(0) & 1;
        tables.epoch(slot * EPOCH_CELLS + cell(device)).unwrap_or(0)
    };
    let stamp = epoch(carried.devices[0]).wrapping_add(epoch(carried.devices[1]));
    opening.leg = payer as u32;
    opening.opener = opener(carried.state) as u32;
    opening.bind = carried.bind[payer];
    opening.vlan = vlan(carried.state, payer) as u32;
    opening.device = carried.devices[payer];
    opening.other = carried.devices[other];
    opening.bits = carried.state;
    opening.adopts = 0;
    opening.rule = carried.rule;
    opening.until = carried.until;
    // Epochs only grow, so a sum from before never comes again.
    opening.stamp = stamp.wrapping_sub(1);
    opening.length = 0;
    opening.would = carried.would & !FlowEnds::OTHER_PAYS;
    if open(tables, settings, sought, opening, candidate, tick).is_err() {
        credit_rule(tables, &uncounted(carried));
        if let Some(missed) = tables.gauge(gauge::NOT_CARRIED) {
            missed.add(1);
        }
        return;
    }
    if let Some(found) = find(tables, settings, sought, tick) {
        complete(tables, &found, sought, carried, payer);
    }
}

/// Writes what [`open`] does not: it has made a flow that begins now, with one packet.
#[inline(always)]
fn complete<T: Lookup + ?Sized>(
    tables: &T,
    found: &Found<'_>,
    sought: &Sought,
    carried: &Carried,
    payer: usize,
) {
    let (Some(ends), Some(last)) = (found.ends(), found.bucket.last.get(found.way())) else {
        return;
    };
    let (flow, other) = (found.flow, bit(payer ^ 1));
    tables.lock(found.bucket);
    if sought.is(flow, ends) {
        flow.bind[other].store(carried.bind[other]);
        // Added, because packets may have been counted already.
        flow.packets[payer].add(carried.packets[payer].wrapping_sub(1));
        flow.packets[other].add(carried.packets[other]);
        flow.counts[payer].add(carried.bytes[payer]);
        flow.counts[other].add(carried.bytes[other]);
        ends.packets.store(carried.counted_packets);
        ends.bytes.store(carried.counted_bytes);
        last.store(carried.last);
    }
    tables.unlock(found.bucket);
}

/// Adds to a flow what another version has seen of it since.
#[inline(always)]
fn add<T: Lookup + ?Sized>(tables: &T, found: &Found<'_>, sought: &Sought, carried: &Carried) {
    for leg in 0..2 {
        found.flow.packets[leg].add(carried.packets[leg]);
        found.flow.counts[leg].add(carried.bytes[leg]);
    }
    if opener(found.state) == opener(carried.state) {
        let bits = found.state & !MARKS | marks(found.state & MARKS, carried.state & MARKS);
        if bits != found.state {
            set_state(tables, found, sought, bits);
        }
    }
}

/// The marks of a flow of which each version has seen a part. A reset takes marks away, so those
/// count that one version has set since.
#[inline(always)]
fn marks(here: u32, there: u32) -> u32 {
    match (here & state::RESET != 0, there & state::RESET != 0) {
        (false, false) => here | there,
        (false, true) => there,
        (true, _) => here,
    }
}

/// What the rule of a flow is due that is not in the table.
#[inline(always)]
fn uncounted(carried: &Carried) -> Uncounted {
    let packets = carried.packets[0].wrapping_add(carried.packets[1]);
    let bytes = carried.bytes[0].wrapping_add(carried.bytes[1]);
    Uncounted {
        rule: carried.rule,
        packets: packets.wrapping_sub(carried.counted_packets),
        bytes: bytes.wrapping_sub(carried.counted_bytes),
    }
}
