//! Ending a flow: its rule is credited with the packets not yet counted, and its quota is released.

use super::{
    Found, Sought,
    follow::{is_answered, lifetime, opener},
};
use crate::{
    abi::{Bucket, Flow, FlowEnds, FlowEntry, NEVER, RULE_FLAGS, Settings, WAYS, gauge},
    cell::bit,
    lookup::Lookup,
};

/// Ends a flow.
#[inline(always)]
pub fn end<T: Lookup + ?Sized>(tables: &T, found: &Found<'_>, sought: &Sought) {
    let (Some(ends), Some(tag)) = (found.ends(), found.bucket.tags.get(found.way())) else {
        return;
    };
    let (mut owner, mut bits, mut owed) = (NEVER, 0, Uncounted::default());
    tables.lock(found.bucket);
    if tag.load() != 0 && sought.is(found.flow, ends) {
        bits = found.flow.state.load();
        owner = ends.devices[bit(payer(ends, bits))].load();
        owed = take_uncounted(found.flow, ends);
        tag.store(0);
    }
    tables.unlock(found.bucket);
    if owner != NEVER {
        credit_rule(tables, &owed);
        release(tables, owner, is_answered(sought.key.ports as u8, bits));
    }
}

/// Ends the flows that have timed out in one bucket, the next one each time.
#[inline(always)]
pub fn sweep<T: Lookup + ?Sized>(tables: &T, settings: &Settings, tick: u32) {
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

/// Ends the flows that have timed out in a bucket.
#[inline(always)]
pub(super) fn reclaim<T: Lookup + ?Sized>(
    tables: &T,
    settings: &Settings,
    bucket: &Bucket,
    tick: u32,
) {
    let shortest = settings.shortest();
    for way in 0..WAYS {
        let FlowEntry { flow, ends } = &bucket.ways[way];
        let idle = tick.wrapping_sub(bucket.last[way].load()) as i32;
        // Most ways are free or in use; the tags and times that show it are in one cache line.
        if bucket.tags[way].load() == 0 || idle <= shortest as i32 {
            continue;
        }
        if !has_timed_out(
            flow,
            bucket.last[way].load(),
            flow.state.load(),
            settings,
            tick,
        ) {
            continue;
        }
        let (mut owner, mut owed) = (NEVER, Uncounted::default());
        tables.lock(bucket);
        let (bits, last) = (flow.state.load(), bucket.last[way].load());
        let answered = is_answered(flow.key[1].load() as u8, bits);
        if bucket.tags[way].load() != 0 && has_timed_out(flow, last, bits, settings, tick) {
            owner = ends.devices[bit(payer(ends, bits))].load();
            owed = take_uncounted(flow, ends);
            bucket.tags[way].store(0);
        }
        tables.unlock(bucket);
        if owner != NEVER {
            credit_rule(tables, &owed);
            release(tables, owner, answered);
        }
    }
}

/// The end that a flow is charged to: the one that sent the first packet. Called under the bucket's
/// lock.
#[inline(always)]
pub(super) fn payer(ends: &FlowEnds, bits: u32) -> usize {
    opener(bits) ^ (ends.would.load() >> 31) as usize
}

/// Whether a flow has timed out.
#[inline(always)]
pub(super) fn has_timed_out(
    flow: &Flow,
    last: u32,
    state: u32,
    settings: &Settings,
    tick: u32,
) -> bool {
    let idle = tick.wrapping_sub(last) as i32;
    idle > lifetime(flow.key[1].load() as u8, state, settings) as i32
}

/// The rule that admitted a flow, and the packets that it has not been credited with yet.
///
/// Not an `Option`: before 6.3 the verifier does not let a program read the part of the stack that
/// a `None` leaves unwritten.
#[derive(Default)]
pub(super) struct Uncounted {
    pub(super) rule: u32,
    pub(super) packets: u32,
    pub(super) bytes: u64,
}

/// Takes the packets that the rule of a flow has not been credited with yet, and marks them as
/// counted. Later packets are credited to the flow's next rule. Called under the bucket's lock.
#[inline(always)]
pub(super) fn take_uncounted(flow: &Flow, ends: &FlowEnds) -> Uncounted {
    let packets = flow.packets[0].load().wrapping_add(flow.packets[1].load());
    let bytes = flow.bytes(0).wrapping_add(flow.bytes(1));
    let uncounted = Uncounted {
        rule: ends.rule.load(),
        packets: packets.wrapping_sub(ends.packets.load()),
        bytes: bytes.wrapping_sub(ends.bytes.load()),
    };
    ends.packets.store(packets);
    ends.bytes.store(bytes);
    uncounted
}

#[inline(always)]
pub(super) fn credit_rule<T: Lookup + ?Sized>(tables: &T, owed: &Uncounted) {
    let rule = owed.rule & !RULE_FLAGS;
    if rule != 0 {
        tables.credit(rule, owed.packets, owed.bytes);
    }
}

/// Releases one flow of an account.
#[inline(always)]
pub(super) fn release<T: Lookup + ?Sized>(tables: &T, owner: u32, answered: bool) {
    adjust_quota(tables, owner, answered, u32::MAX);
    if let Some(flows) = tables.gauge(gauge::FLOWS) {
        flows.add(u32::MAX);
    }
}

/// Changes how many flows an account has, and how many are without an answer; [`u32::MAX`] takes
/// one away.
#[inline(always)]
pub(super) fn adjust_quota<T: Lookup + ?Sized>(tables: &T, owner: u32, answered: bool, count: u32) {
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
