//! Opening a flow: which place of its bucket it takes.

use super::{
    Sought, cell,
    end::{
        Uncounted, adjust_quota, credit_rule, has_timed_out, payer, reclaim, release,
        take_uncounted,
    },
    follow::{is_answered, with_vlan},
    lowest_way, ways_with_tag,
};
use crate::{
    abi::{
        Flow, FlowEnds, FlowEntry, FlowKey, NEVER, ROUTER, Reason, Settings, WAYS, gauge, state,
    },
    cell::{Cell64, bit, way},
    lookup::Lookup,
};

/// The fields of a flow that are written when it opens, and when policy is asked about it again.
#[derive(Clone, Copy, Debug, Default)]
pub struct Opening {
    /// The sender's end of the key: 0 low, 1 high.
    pub leg: u32,
    /// The opener's end of the key.
    pub opener: u32,
    /// The sender's MAC and interface; 0 when it did not come through a guarded port.
    pub bind: u64,
    /// The sender's VLAN.
    pub vlan: u32,
    /// The sender's [`account`](super::account).
    pub device: u32,
    /// The other end's account.
    pub other: u32,
    /// Bits of [`state`] that it has from the start.
    pub bits: u32,
    /// 1 when it is adopted, else 0: half of a device's quota is for flows that it opens itself.
    pub adopts: u32,
    /// The rule that admits it.
    pub rule: u32,
    /// Tick at which that rule ends.
    pub until: u32,
    /// Sum of the ends' epochs.
    pub stamp: u32,
    /// Length of the first packet.
    pub length: u32,
    /// 0, or the reason for which the flow would be dropped if the zones enforced.
    pub would: u32,
}

impl Opening {
    /// The state, with the bit that says whether the rule ends.
    #[inline(always)]
    pub(super) fn with_end(&self, bits: u32) -> u32 {
        if self.until == NEVER {
            bits & !state::ENDS
        } else {
            bits | state::ENDS
        }
    }
}

/// Opens a flow.
///
/// Takes a free way of the bucket, else one whose flow has timed out, else that of the flow that
/// has waited longest for its answer. Answered flows are never evicted.
///
/// `candidate` is scratch memory.
///
/// # Errors
///
/// [`Reason::DeviceQuota`] and [`Reason::FlowTableFull`].
#[inline(always)]
pub fn open<T: Lookup + ?Sized>(
    tables: &T,
    settings: &Settings,
    sought: &Sought,
    opening: &Opening,
    candidate: &Cell64,
    tick: u32,
) -> Result<(), Reason> {
    let index = sought.bucket(settings);
    let bucket = tables.bucket(index).ok_or(Reason::FlowTableFull)?;
    // Opening a flow also cleans up timed-out ones, so that this goes on when the daemon does not
    // run. It cleans this bucket, which is read anyway; new flows spread evenly over all buckets.
    reclaim(tables, settings, bucket, tick);
    let leg = (opening.leg & 1) as usize;
    // Who sends the first packet pays, whichever end rules name as the opener: else one end could
    // use up the other's quota.
    let owner = opening.device;
    let quota = tables.quota(owner).ok_or(Reason::DeviceQuota)?;
    let open = quota.unanswered.load().wrapping_add(quota.answered.load());
    // Flows that no device opened are limited by the size of the table only.
    let most = settings.flows_per_device >> (opening.adopts & 1);
    if owner > ROUTER && open >= most {
        return Err(Reason::DeviceQuota);
    }
    let flows = tables.gauge(gauge::FLOWS).ok_or(Reason::FlowTableFull)?;
    // An attacker can use any number of MACs, so unlisted ones may fill only half of the table.
    if owner >= settings.unlisted && flows.load() >= settings.flows / 2 {
        return Err(Reason::DeviceQuota);
    }
    let full = flows.load() >= settings.flows;
    let tag = sought.tag();
    let bits = with_vlan(opening.bits, leg, opening.vlan as u16)
        | opening.opener & state::OPENER_HIGH
        | if opening.would != 0 {
            state::OBSERVED
        } else {
            0
        };
    let bits = opening.with_end(bits);
    // Counted before the flow is written: an atomic addition waits for all writes before it.
    let answered = is_answered(sought.key.ports as u8, bits);
    adjust_quota(tables, owner, answered, 1);
    flows.add(1);

    let (mut old_owner, mut old_answered, mut owed) = (NEVER, false, Uncounted::default());
    tables.lock(bucket);
    // `rank << 32 | idle << 3 | way` of the best way so far, kept where the verifier does not track
    // it, because it would follow every order in which ways may come.
    candidate.store(0);
    let (same, free) = (ways_with_tag(bucket, tag), ways_with_tag(bucket, 0));
    if same != 0 {
        // Another processor may have just opened the same flow.
        candidate.store(lowest_way(same).into());
        let way = way(candidate.load() as u32);
        let there = match bucket.ways.get(way) {
            Some(FlowEntry { flow, ends }) => sought.is(flow, ends),
            _ => false,
        };
        candidate.store(if there { 4 << 32 | way as u64 } else { 0 });
    }
    if candidate.load() == 0 && free != 0 && !full {
        candidate.store(3 << 32 | lowest_way(free) as u64);
    }
    // The flows themselves are read only if none is this flow and no way is free.
    if candidate.load() == 0 {
        for way in 0..WAYS {
            let flow = &bucket.ways[way].flow;
            let bits = flow.state.load();
            let last = bucket.last[way].load();
            let idle = tick.wrapping_sub(last) & 0xff_ffff;
            let rank = if bucket.tags[way].load() == 0 {
                0
            } else if has_timed_out(flow, last, bits, settings, tick) {
                2
            } else {
                u64::from(!is_answered(flow.key[1].load() as u8, bits))
            };
            let this = rank << 32 | (idle as u64) << 3 | way as u64;
            if this > candidate.load() {
                candidate.store(this);
            }
        }
    }
    let candidate = candidate.load();
    let way = way(candidate as u32);
    let mut room = false;
    if candidate >> 32 != 0
        && let (Some(place), Some(last), Some(lines)) = (
            bucket.tags.get(way),
            bucket.last.get(way),
            bucket.ways.get(way),
        )
    {
        room = true;
        let FlowEntry { flow, ends } = lines;
        if place.load() != 0 {
            let old_bits = flow.state.load();
            old_owner = ends.devices[bit(payer(ends, old_bits))].load();
            old_answered = is_answered(flow.key[1].load() as u8, old_bits);
            owed = take_uncounted(flow, ends);
        }
        place.store(0);
        bucket
            .hops_valid
            .store(bucket.hops_valid.load() & !(1 << (candidate as u32 & 7)));
        write_flow(lines, sought, opening, bits);
        last.store(tick);
        place.store(tag);
    }
    tables.unlock(bucket);
    if !room {
        release(tables, owner, answered);
        return Err(Reason::FlowTableFull);
    }
    // Counted after the flow is written: from now on denials of this set are no longer valid.
    if let Some(opened) = tables.flows_opened(sought.denials()) {
        opened.add(1);
    }
    if old_owner != NEVER {
        credit_rule(tables, &owed);
        release(tables, old_owner, old_answered);
    }
    Ok(())
}

/// Writes a new flow into a way of a bucket.
#[inline(always)]
fn write_flow(way: &FlowEntry, sought: &Sought, opening: &Opening, bits: u32) {
    let FlowEntry { flow, ends } = way;
    let leg = (opening.leg & 1) as usize;
    let cells = [opening.device, opening.other].map(|it| (cell(it) as u64) << Flow::CELL);
    flow.key[0].store(sought.words[0]);
    flow.key[1].store(sought.words[1]);
    flow.counts[leg].store(cells[0] | opening.length as u64);
    flow.counts[1 - leg].store(cells[1]);
    flow.packets[leg].store(1);
    flow.packets[1 - leg].store(0);
    flow.bind[leg].store(opening.bind);
    flow.bind[1 - leg].store(0);
    flow.stamp.store(opening.stamp);
    flow.state.store(bits);
    let FlowKey { low, high, .. } = sought.key;
    let addresses = [low.0[0], low.0[1], high.0[0], high.0[1]];
    for (cell, word) in ends.addresses.iter().zip(addresses) {
        cell.store(word);
    }
    ends.devices[leg].store(opening.device);
    ends.devices[1 - leg].store(opening.other);
    ends.rule.store(opening.rule);
    ends.until.store(opening.until);
    let pays = if opening.opener == opening.leg {
        0
    } else {
        FlowEnds::OTHER_PAYS
    };
    ends.would.store(opening.would | pays);
    ends.packets.store(0);
    ends.bytes.store(0);
}
