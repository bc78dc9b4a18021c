//! Ending a flow: what its rule is owed, and whose flows are fewer.

use super::{
    Found, Sought,
    follow::{is_answered, lifetime, opener},
};
use crate::{
    abi::{Bucket, Flow, FlowEnds, LOG, NEVER, Settings, WAYS, Way, gauge},
    cell::bit,
    tables::Tables,
};

/// Ends a flow.
#[inline(always)]
pub fn end<T: Tables + ?Sized>(tables: &T, found: &Found<'_>, sought: &Sought) {
    let (Some(ends), Some(tag)) = (found.ends(), found.bucket.tags.get(found.way())) else {
        return;
    };
    let (mut owner, mut bits, mut to_pay) = (NEVER, 0, Due::default());
    tables.lock(found.bucket);
    if tag.load() != 0 && sought.is(found.flow, ends) {
        bits = found.flow.state.load();
        owner = ends.devices[bit(opener(bits))].load();
        to_pay = due(found.flow, ends);
        tag.store(0);
    }
    tables.unlock(found.bucket);
    if owner != NEVER {
        pay(tables, &to_pay);
        give_back(tables, owner, is_answered(sought.key.ports as u8, bits));
    }
}

/// Ends what has timed out in one bucket, a different one each time.
#[inline(always)]
pub fn sweep<T: Tables + ?Sized>(tables: &T, settings: &Settings, tick: u32) {
    let Some(cursor) = tables.gauge(gauge::SWEEP) else {
        return;
    };
    let index = cursor.load();
    cursor.store(index.wrapping_add(1));
    let index = index % settings.buckets.max(1);
    if let Some(bucket) = tables.bucket(index) {
        reclaim(tables, settings, bucket, tick);
    }
}

/// Ends what has timed out in a bucket.
#[inline(always)]
pub(super) fn reclaim<T: Tables + ?Sized>(
    tables: &T,
    settings: &Settings,
    bucket: &Bucket,
    tick: u32,
) {
    let shortest = settings.shortest();
    for way in 0..WAYS {
        let Way { flow, ends } = &bucket.ways[way];
        let idle = tick.wrapping_sub(bucket.last[way].load()) as i32;
        // Most are in use, or not there: what says so is in one line of the cache for all.
        if bucket.tags[way].load() == 0 || idle <= shortest as i32 {
            continue;
        }
        if !is_over(
            flow,
            bucket.last[way].load(),
            flow.state.load(),
            settings,
            tick,
        ) {
            continue;
        }
        let (mut owner, mut to_pay) = (NEVER, Due::default());
        tables.lock(bucket);
        let (bits, last) = (flow.state.load(), bucket.last[way].load());
        let answered = is_answered(flow.key[1].load() as u8, bits);
        if bucket.tags[way].load() != 0 && is_over(flow, last, bits, settings, tick) {
            owner = ends.devices[bit(opener(bits))].load();
            to_pay = due(flow, ends);
            bucket.tags[way].store(0);
        }
        tables.unlock(bucket);
        if owner != NEVER {
            pay(tables, &to_pay);
            give_back(tables, owner, answered);
        }
    }
}

/// Whether a flow has timed out.
#[inline(always)]
pub(super) fn is_over(flow: &Flow, last: u32, state: u32, settings: &Settings, tick: u32) -> bool {
    let idle = tick.wrapping_sub(last) as i32;
    idle > lifetime(flow.key[1].load() as u8, state, settings) as i32
}

/// The rule that admitted a flow, with what it has not counted yet of the flow.
///
/// Not inside an option: before 6.3 the verifier refuses to read what is none off the stack.
#[derive(Default)]
pub(super) struct Due {
    rule: u32,
    packets: u32,
    bytes: u64,
}

/// What is due to the rule of a flow, which from now on counts for another. Under the bucket's lock.
#[inline(always)]
pub(super) fn due(flow: &Flow, ends: &FlowEnds) -> Due {
    let packets = flow.packets[0].load().wrapping_add(flow.packets[1].load());
    let bytes = flow.bytes(0).wrapping_add(flow.bytes(1));
    let due = Due {
        rule: ends.rule.load(),
        packets: packets.wrapping_sub(ends.packets.load()),
        bytes: bytes.wrapping_sub(ends.bytes.load()),
    };
    ends.packets.store(packets);
    ends.bytes.store(bytes);
    due
}

#[inline(always)]
pub(super) fn pay<T: Tables + ?Sized>(tables: &T, due: &Due) {
    let rule = due.rule & !LOG;
    if rule != 0 {
        tables.credit(rule, due.packets, due.bytes);
    }
}

/// Takes a flow that has ended off the books.
#[inline(always)]
pub(super) fn give_back<T: Tables + ?Sized>(tables: &T, owner: u32, answered: bool) {
    book(tables, owner, answered, u32::MAX);
    if let Some(flows) = tables.gauge(gauge::FLOWS) {
        flows.add(u32::MAX);
    }
}

/// Adds to the flows that an account has, and to those without an answer; [`u32::MAX`] takes one
/// away.
#[inline(always)]
pub(super) fn book<T: Tables + ?Sized>(tables: &T, owner: u32, answered: bool, count: u32) {
    if let Some(quota) = tables.quota(owner) {
        if answered {
            quota.answered.add(count);
        } else {
            quota.unanswered.add(count);
        }
    }
    if !answered && let Some(unanswered) = tables.gauge(gauge::UNANSWERED) {
        unanswered.add(count);
    }
}
