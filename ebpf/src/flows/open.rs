//! Opening a flow: which place of its bucket it takes.

use super::{
    Sought, cell,
    end::{Due, book, due, give_back, is_over, pay, reclaim},
    follow::{is_answered, opener, with_vlan},
    lowest, ways,
};
use crate::{
    abi::{Flow, FlowKey, NEVER, ROUTER, Reason, Settings, WAYS, Way, gauge, state},
    cell::{Cell64, bit, way},
    tables::Tables,
};

/// What is written of a flow when it opens, and when policy is asked about it again.
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
    /// The other end's.
    pub other: u32,
    /// Bits of [`state`] that it has from the start.
    pub bits: u32,
    /// The rule that admits it.
    pub rule: u32,
    /// Tick at which that rule ends.
    pub until: u32,
    /// Sum of the ends' epochs.
    pub stamp: u32,
    /// Length of the first packet.
    pub length: u32,
    /// 0, or the reason that the sender would be dropped for if its zone enforced.
    pub would: u32,
}

impl Opening {
    /// The state, with whether the rule ends.
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
/// Takes a free way of the bucket, or one whose flow has timed out, or that of the flow that has
/// waited longest for its answer. Answered flows are never put out.
///
/// `best` is room to work in.
///
/// # Errors
///
/// [`Reason::DeviceQuota`] and [`Reason::FlowTableFull`].
#[inline(always)]
pub fn open<T: Tables + ?Sized>(
    tables: &T,
    settings: &Settings,
    sought: &Sought,
    opening: &Opening,
    best: &Cell64,
    tick: u32,
) -> Result<(), Reason> {
    let index = sought.bucket(settings);
    let bucket = tables.bucket(index).ok_or(Reason::FlowTableFull)?;
    // New flows pay for the old ones' clean-up, so that it goes on when the daemon does not: of this
    // bucket, as it is at hand, and flows come to all alike.
    reclaim(tables, settings, bucket, tick);
    let leg = (opening.leg & 1) as usize;
    let owner = if opening.opener == opening.leg {
        opening.device
    } else {
        opening.other
    };
    let quota = tables.quota(owner).ok_or(Reason::DeviceQuota)?;
    let open = quota.unanswered.load().wrapping_add(quota.answered.load());
    // What no device opened is bounded by the table alone.
    if owner > ROUTER && open >= settings.flows_per_device {
        return Err(Reason::DeviceQuota);
    }
    let flows = tables.gauge(gauge::FLOWS).ok_or(Reason::FlowTableFull)?;
    // Strangers, of whom there may be any number, leave the other half of the table to devices.
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
    // Before the flow is written: an addition waits until everything before it has reached memory.
    let answered = is_answered(sought.key.ports as u8, bits);
    book(tables, owner, answered, 1);
    flows.add(1);

    let (mut old_owner, mut old_answered, mut to_pay) = (NEVER, false, Due::default());
    tables.lock(bucket);
    // `rank << 32 | idle << 3 | way` of the best way so far, where the verifier does not look: it
    // would follow every order in which ways may come.
    best.store(0);
    let (same, free) = (ways(bucket, tag), ways(bucket, 0));
    if same != 0 {
        // It may have been opened just now, by another processor.
        best.store(lowest(same).into());
        let way = way(best.load() as u32);
        let there = match bucket.ways.get(way) {
            Some(Way { flow, ends }) => sought.is(flow, ends),
            _ => false,
        };
        best.store(if there { 4 << 32 | way as u64 } else { 0 });
    }
    if best.load() == 0 && free != 0 && !full {
        best.store(3 << 32 | lowest(free) as u64);
    }
    // Only then the flows themselves have to be looked at.
    if best.load() == 0 {
        for way in 0..WAYS {
            let flow = &bucket.ways[way].flow;
            let bits = flow.state.load();
            let last = bucket.last[way].load();
            let idle = tick.wrapping_sub(last) & 0xff_ffff;
            let rank = if bucket.tags[way].load() == 0 {
                0
            } else if is_over(flow, last, bits, settings, tick) {
                2
            } else {
                u64::from(!is_answered(flow.key[1].load() as u8, bits))
            };
            let candidate = rank << 32 | (idle as u64) << 3 | way as u64;
            if candidate > best.load() {
                best.store(candidate);
            }
        }
    }
    let best = best.load();
    let way = way(best as u32);
    let mut room = false;
    if best >> 32 != 0
        && let (Some(place), Some(last), Some(lines)) = (
            bucket.tags.get(way),
            bucket.last.get(way),
            bucket.ways.get(way),
        )
    {
        room = true;
        let Way { flow, ends } = lines;
        if place.load() != 0 {
            let old_bits = flow.state.load();
            old_owner = ends.devices[bit(opener(old_bits))].load();
            old_answered = is_answered(flow.key[1].load() as u8, old_bits);
            to_pay = due(flow, ends);
        }
        place.store(0);
        bucket
            .ahead
            .store(bucket.ahead.load() & !(1 << (best as u32 & 7)));
        write(lines, sought, opening, bits);
        last.store(tick);
        place.store(tag);
    }
    tables.unlock(bucket);
    if !room {
        give_back(tables, owner, answered);
        return Err(Reason::FlowTableFull);
    }
    // After the flow is there: what was refused on the way here goes by it from now on.
    if let Some(opened) = tables.opened(sought.denials()) {
        opened.add(1);
    }
    if old_owner != NEVER {
        pay(tables, &to_pay);
        give_back(tables, old_owner, old_answered);
    }
    Ok(())
}

/// Makes a way a new flow's.
#[inline(always)]
fn write(way: &Way, sought: &Sought, opening: &Opening, bits: u32) {
    let Way { flow, ends } = way;
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
    ends.would.store(opening.would);
    ends.packets.store(0);
    ends.bytes.store(0);
}
