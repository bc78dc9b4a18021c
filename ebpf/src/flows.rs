//! The flow table: finding, opening, following and ending flows.
//!
//! An array of buckets with [`WAYS`] flows each, indexed by a seeded hash. Reading takes no lock: a
//! flow that is replaced while it is read was still admitted an instant ago. Counters and times are
//! written without the lock; such a write may reach the flow that has taken the place, which does
//! no harm. Everything else is written under the bucket's lock, after the key was compared again.

mod carry;
mod end;
mod follow;
mod key;
mod open;

pub(crate) use self::key::folded;
pub use self::{
    carry::{Carrying, carry},
    end::{end, sweep},
    follow::{
        NO_STATE, adopted, follow, is_answered, is_closing, lifetime, opener, reopens, vlan,
        with_vlan,
    },
    key::{Sought, key, part_key, quoted_key},
    open::{Opening, open},
};
use self::{
    end::{Uncounted, adjust_quota, credit_rule, has_timed_out, payer, take_uncounted},
    follow::keeps,
};
use crate::{
    abi::{
        Bucket, EPOCH_CELLS, Flow, FlowEnds, FlowEntry, FlowKey, Settings, UNLISTED, WAYS, state,
    },
    cell::{bit, way},
    lookup::Lookup,
};

/// A flow of the table and where it is.
#[derive(Clone, Copy)]
pub struct Found<'a> {
    /// Its bucket.
    pub bucket: &'a Bucket,
    /// The flow.
    pub flow: &'a Flow,
    /// The state when it was found.
    pub state: u32,
    /// `bucket << 3 | way`.
    pub at: u32,
}

impl<'a> Found<'a> {
    /// Which of the bucket's ways.
    #[inline(always)]
    pub(super) fn way(&self) -> usize {
        way(self.at)
    }

    /// The addresses, accounts and rule of the flow.
    #[inline(always)]
    pub(super) fn ends(&self) -> Option<&'a FlowEnds> {
        Some(&self.bucket.ways.get(self.way())?.ends)
    }
}

/// The number under which an end's flows are counted and its epoch is kept: the number of its
/// device, or for an unlisted MAC an account that it shares with few others.
#[inline(always)]
pub fn account(settings: &Settings, device: u32, bind: u64) -> u32 {
    if device != 0 || bind >> 16 == 0 {
        return device;
    }
    let hash = (bind >> 16).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    settings.unlisted + (hash as u32 & (UNLISTED - 1))
}

/// Finds a live flow.
#[inline(always)]
pub fn find<'a, T: Lookup + ?Sized>(
    tables: &'a T,
    settings: &Settings,
    sought: &Sought,
    tick: u32,
) -> Option<Found<'a>> {
    let index = sought.bucket(settings);
    let bucket = tables.bucket(index)?;
    let mut ways = ways_with_tag(bucket, sought.tag());
    // Two flows of a bucket share a tag once in 10^8; three never do.
    for _ in 0..2 {
        if ways == 0 {
            return None;
        }
        sought.way.store(lowest_way(ways));
        let way = way(sought.way.load());
        let flow = &bucket.ways.get(way)?.flow;
        if sought.may_be(flow)
            && (sought.words[1] & FlowKey::V6 == 0
                || sought.is_between(&bucket.ways.get(way)?.ends))
        {
            let state = flow.state.load();
            let last = bucket.last.get(way)?.load();
            let live = !has_timed_out(flow, last, state, settings, tick);
            return if live {
                let at = index << 3 | way as u32;
                Some(Found {
                    bucket,
                    flow,
                    state,
                    at,
                })
            } else {
                None
            };
        }
        ways &= ways - 1;
    }
    None
}

/// The flow that was found before, if it is still there. `at` is one more than [`Found::at`]; 0:
/// none was found.
#[inline(always)]
pub fn find_again<'a, T: Lookup + ?Sized>(
    tables: &'a T,
    sought: &Sought,
    at: u32,
) -> Option<Found<'a>> {
    let at = at.checked_sub(1)?;
    let (index, way) = (at >> 3, way(at));
    let bucket = tables.bucket(index)?;
    let flow = &bucket.ways.get(way)?.flow;
    let there = bucket.tags.get(way)?.load() != 0 && sought.may_be(flow);
    if !there
        || sought.words[1] & FlowKey::V6 != 0 && !sought.is_between(&bucket.ways.get(way)?.ends)
    {
        return None;
    }
    Some(Found {
        bucket,
        flow,
        state: flow.state.load(),
        at,
    })
}

/// The ways with a tag, one bit for each. Computed without branches, because the verifier would
/// follow each of them.
#[inline(always)]
fn ways_with_tag(bucket: &Bucket, tag: u32) -> u32 {
    let mut ways = 0;
    for way in 0..WAYS {
        let difference = (bucket.tags[way].load() ^ tag) as u64;
        ways |= ((difference.wrapping_sub(1) >> 63) as u32) << way;
    }
    ways
}

/// The number of the lowest bit that is set, computed without branches.
#[inline(always)]
fn lowest_way(ways: u32) -> u32 {
    let bit = ways & ways.wrapping_neg();
    let any = |mask: u32| (bit & mask).wrapping_add(0xff) >> 8 & 1;
    any(0xaa) | any(0xcc) << 1 | any(0xf0) << 2
}

/// Notes the next hop towards an end of a flow, unless another flow has taken its place. `at` is as
/// [`Found::at`].
#[inline(always)]
pub fn note_hop<T: Lookup + ?Sized>(
    tables: &T,
    at: u32,
    sought: &Sought,
    to: usize,
    hop: u64,
    looked: u64,
) {
    let Some(bucket) = tables.bucket(at >> 3) else {
        return;
    };
    let way = way(at);
    let (Some(FlowEntry { flow, ends }), Some(hops)) = (bucket.ways.get(way), bucket.hops.get(way))
    else {
        return;
    };
    tables.lock(bucket);
    if sought.is(flow, ends) {
        let known = bucket.hops_valid.load() >> way & 1 != 0;
        if !known {
            hops.hops[bit(to ^ 1)].store(0);
        }
        hops.hops[to & 1].store(hop);
        hops.looked[to & 1].store(looked);
        bucket.hops_valid.store(bucket.hops_valid.load() | 1 << way);
    }
    tables.unlock(bucket);
}

/// The next hop towards an end of a flow, and when the routing table was asked; 0: not known.
#[inline(always)]
pub fn hop(found: &Found<'_>, to: usize) -> (u64, u64) {
    let to = bit(to);
    match found.bucket.hops.get(found.way()) {
        Some(hops) if found.bucket.hops_valid.load() >> (found.at & 7) & 1 != 0 => {
            (hops.hops[to].load(), hops.looked[to].load())
        }
        _ => (0, 0),
    }
}

/// Counts a packet of a flow, which has brought it into the state `next`.
#[inline(always)]
pub fn count_packet(found: &Found<'_>, leg: usize, next: u32, length: u32, tick: u32) {
    let leg = leg & 1;
    found.flow.packets[leg].add(1);
    found.flow.counts[leg].add(length as u64);
    if let Some(last) = found.bucket.last.get(found.way())
        && last.load() != tick
        && keeps(found.state, next, found.flow.key[1].load() as u8, leg)
    {
        last.store(tick);
    }
}

/// The cell that holds the epoch of an account, which few other accounts share.
#[inline(always)]
pub fn cell(account: u32) -> u32 {
    account & (EPOCH_CELLS - 1)
}

/// The account of an end of a flow.
#[inline(always)]
pub fn account_of(found: &Found<'_>, leg: usize) -> u32 {
    match found.ends() {
        Some(ends) => ends.devices[bit(leg)].load(),
        None => 0,
    }
}

/// Whether the rule that admits a flow has ended.
#[inline(always)]
pub fn rule_has_ended(found: &Found<'_>, tick: u32) -> bool {
    found.state & state::ENDS != 0
        && match found.ends() {
            Some(ends) => tick >= ends.until.load(),
            None => true,
        }
}

/// Tick at which the rule ends that admits a flow.
#[inline(always)]
pub fn rule_ends(found: &Found<'_>) -> u32 {
    match found.ends() {
        Some(ends) => ends.until.load(),
        None => 0,
    }
}

/// Changes a flow's state, unless another flow has taken its place.
#[inline(always)]
pub fn set_state<T: Lookup + ?Sized>(tables: &T, found: &Found<'_>, sought: &Sought, bits: u32) {
    let Some(ends) = found.ends() else {
        return;
    };
    let protocol = sought.key.ports as u8;
    let (mut owner, mut before) = (0, bits);
    tables.lock(found.bucket);
    if sought.is(found.flow, ends) {
        before = found.flow.state.load();
        owner = ends.devices[bit(payer(ends, before))].load();
        found.flow.state.store(bits);
    }
    tables.unlock(found.bucket);
    if is_answered(protocol, before) != is_answered(protocol, bits) {
        adjust_quota(tables, owner, is_answered(protocol, before), u32::MAX);
        adjust_quota(tables, owner, is_answered(protocol, bits), 1);
    }
}

/// Stores the new answer of policy about a flow, unless another flow has taken its place.
///
/// If the flow was not `current`, only this packet's sender has been checked again. So the
/// interface of the other end is cleared, and that end's next packet goes through all steps too.
#[inline(always)]
pub fn renew<T: Lookup + ?Sized>(
    tables: &T,
    found: &Found<'_>,
    sought: &Sought,
    renewed: &Opening,
    bits: u32,
    current: bool,
) {
    let Some(ends) = found.ends() else {
        return;
    };
    let leg = (renewed.leg & 1) as usize;
    let protocol = sought.key.ports as u8;
    let bits = renewed.with_end(bits);
    let flow = found.flow;
    let (mut owner, mut old_owner, mut before) = (0, 0, bits);
    let mut owed = Uncounted::default();
    tables.lock(found.bucket);
    if sought.is(flow, ends) {
        before = flow.state.load();
        let pays = payer(ends, before);
        old_owner = ends.devices[bit(pays)].load();
        owner = if pays == leg {
            renewed.device
        } else {
            renewed.other
        };
        if ends.rule.load() != renewed.rule {
            owed = take_uncounted(flow, ends);
        }
        ends.rule.store(renewed.rule);
        ends.until.store(renewed.until);
        ends.would
            .store(renewed.would | ends.would.load() & FlowEnds::OTHER_PAYS);
        flow.stamp.store(renewed.stamp);
        flow.bind[leg].store(renewed.bind);
        let there = flow.bind[1 - leg].load();
        if !current && there >> 16 != 0 {
            // Without an interface no packet matches.
            flow.bind[1 - leg].store(there & !0xffff);
        }
        set_device(flow, ends, leg, renewed.device);
        set_device(flow, ends, 1 - leg, renewed.other);
        flow.state.store(bits);
    }
    tables.unlock(found.bucket);
    credit_rule(tables, &owed);
    let (was, is) = (is_answered(protocol, before), is_answered(protocol, bits));
    if old_owner != owner || was != is {
        adjust_quota(tables, old_owner, was, u32::MAX);
        adjust_quota(tables, owner, is, 1);
    }
}

/// Sets the account of an end. Its cell shares a word with a counter to which other processors may
/// add, so the difference is added instead of a value stored.
#[inline(always)]
fn set_device(flow: &Flow, ends: &FlowEnds, leg: usize, device: u32) {
    let change = cell(device).wrapping_sub(flow.cell(leg)) as u64;
    flow.counts[leg].add(change << Flow::CELL);
    ends.devices[leg].store(device);
}
