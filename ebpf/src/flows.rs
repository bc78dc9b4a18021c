//! The flow table: finding, opening, following and ending flows.
//!
//! An array of buckets with [`WAYS`] flows each, indexed by a seeded hash. Reading takes no lock:
//! a flow that is replaced while it is read was, until that instant, admitted. What is written
//! without the lock (counters, time) may land in a successor and does no harm; everything else is
//! written under the bucket's lock, after the key was looked at again.

use crate::{
    abi::{
        Address, Bucket, Flow, FlowKey, NEVER, ROUTER, Reason, Settings, UNLISTED, WAYS, gauge,
        state,
    },
    cell::{Cell32, Cell64, bit},
    packet::{Packet, Quoted, Shape, number, query_kind, tcp},
    tables::Tables,
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

/// What is written of a flow when it opens, and when policy is asked about it again.
#[derive(Clone, Copy, Debug, Default)]
pub struct Opening {
    /// The key.
    pub key: FlowKey,
    /// The sender's end of the key: 0 low, 1 high.
    pub leg: u32,
    /// The opener's end of the key.
    pub opener: u32,
    /// The sender's MAC and interface; 0 when it did not come through a guarded port.
    pub bind: u64,
    /// The sender's VLAN.
    pub vlan: u32,
    /// The sender's [`account`].
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

/// The number under which an end's flows are counted and its epoch is kept: its device's, or for
/// an unlisted MAC one that it shares with few others.
#[inline(always)]
pub fn account(settings: &Settings, device: u32, bind: u64) -> u32 {
    if device != 0 || bind >> 16 == 0 {
        return device;
    }
    let hash = (bind >> 16).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    settings.unlisted + (hash as u32 & (UNLISTED - 1))
}

/// The key of a packet's flow and the packet's end of it, for packets that can be of one.
#[inline(always)]
pub fn key(packet: &Packet) -> (FlowKey, usize) {
    let (mut key, leg) = ordered(
        packet.source,
        packet.destination,
        packet.source_port,
        packet.destination_port,
        (query_kind(packet) as u64) << 8 | packet.protocol as u64,
    );
    key.ports |= match packet.shape {
        Shape::Query => asker(leg),
        Shape::Answer => asker(leg ^ 1),
        _ => 0,
    };
    (key, leg)
}

/// The key of the flow that an error is about.
#[inline(always)]
pub fn quoted_key(quoted: &Quoted) -> FlowKey {
    let (mut key, leg) = ordered(
        quoted.source,
        quoted.destination,
        quoted.source_port,
        quoted.destination_port,
        (quoted.kind as u64) << 8 | quoted.protocol as u64,
    );
    if quoted.kind != 0 {
        key.ports |= asker(if quoted.answers { leg ^ 1 } else { leg });
    }
    key
}

/// The key of the flow that a later part of a fragmented packet is of, and the packet's end of it;
/// `ports` is [`FlowKey::ports`].
#[inline(always)]
pub fn part_key(packet: &Packet, ports: u64) -> (FlowKey, usize) {
    let (key, leg) = ordered(packet.source, packet.destination, 0, 0, 0);
    (FlowKey { ports, ..key }, leg)
}

/// Which end asks is part of a query's key: both may ask each other with the same identifier.
#[inline(always)]
fn asker(leg: usize) -> u64 {
    (leg as u64 & 1) << 16
}

#[inline(always)]
fn ordered(
    source: Address,
    destination: Address,
    source_port: u16,
    destination_port: u16,
    rest: u64,
) -> (FlowKey, usize) {
    let source_is_low = if source.0[0] != destination.0[0] {
        source.0[0] < destination.0[0]
    } else {
        source.0[1] < destination.0[1]
    };
    let (from, to) = (source_port as u64, destination_port as u64);
    if source_is_low {
        (
            FlowKey {
                low: source,
                high: destination,
                ports: from << 48 | to << 32 | rest,
            },
            0,
        )
    } else {
        (
            FlowKey {
                low: destination,
                high: source,
                ports: to << 48 | from << 32 | rest,
            },
            1,
        )
    }
}

/// The key's hash: a multiply and a fold for each word, and once more, so that every bit of the key
/// reaches every bit of the hash. The low bits choose the bucket.
#[inline(always)]
pub fn hash(key: &FlowKey, seed: u64) -> u64 {
    let mut hash = seed;
    for word in key.words() {
        hash = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash ^= hash >> 32;
    }
    hash = hash.wrapping_mul(0xd6e8_feb8_6659_fd93);
    hash ^ hash >> 32
}

/// The part of the hash that stands in [`Bucket::tags`]; never 0.
#[inline(always)]
fn tag(hash: u64) -> u32 {
    (hash >> 32) as u32 | 1
}

/// Finds a live flow. `place` is where the way is kept from the verifier, which would go on with
/// each of them by itself.
#[inline(always)]
pub fn find<'a, T: Tables + ?Sized>(
    tables: &'a T,
    settings: &Settings,
    key: &FlowKey,
    tick: u32,
    place: &Cell32,
) -> Option<Found<'a>> {
    let hash = hash(key, settings.seed);
    let index = hash as u32 & settings.bucket_mask;
    let bucket = tables.bucket(index)?;
    let tag = tag(hash);
    // One bit for each way with our tag, without a branch: the verifier would follow each.
    let mut ways = 0u32;
    for way in 0..WAYS {
        let difference = (bucket.tags[way].load() ^ tag) as u64;
        ways |= ((difference.wrapping_sub(1) >> 63) as u32) << way;
    }
    // Two flows of a bucket share a tag once in 10^8; three never do.
    for _ in 0..2 {
        if ways == 0 {
            return None;
        }
        place.store(lowest(ways));
        let flow = &bucket.flows[(place.load() & 7) as usize];
        if is(flow, key) {
            let state = flow.state.load();
            let live = !is_over(flow, state, settings, tick);
            return if live {
                Some(Found {
                    bucket,
                    flow,
                    state,
                    at: index << 3 | place.load() & 7,
                })
            } else {
                None
            };
        }
        ways &= ways - 1;
    }
    None
}

/// The number of the lowest bit that is set, by arithmetic alone.
#[inline(always)]
fn lowest(ways: u32) -> u32 {
    let bit = ways & ways.wrapping_neg();
    let any = |mask: u32| (bit & mask).wrapping_add(0xff) >> 8 & 1;
    any(0xaa) | any(0xcc) << 1 | any(0xf0) << 2
}

#[inline(always)]
fn is(flow: &Flow, key: &FlowKey) -> bool {
    let words = key.words();
    let mut difference = 0;
    for (held, wanted) in flow.key.iter().zip(words) {
        difference |= held.load() ^ wanted;
    }
    difference == 0
}

/// Whether a flow has timed out.
#[inline(always)]
fn is_over(flow: &Flow, state: u32, settings: &Settings, tick: u32) -> bool {
    let idle = tick.wrapping_sub(flow.last.load()) as i32;
    idle > lifetime(flow.key[4].load() as u8, state, settings) as i32
}

/// Ticks that a flow lives without a packet.
#[inline(always)]
pub fn lifetime(protocol: u8, bits: u32, settings: &Settings) -> u32 {
    match protocol {
        number::TCP if is_closing(bits) => settings.tcp_closing,
        number::TCP if !is_answered(protocol, bits) => settings.tcp_unanswered,
        number::TCP => settings.tcp_established,
        number::ICMP | number::ICMPV6 => settings.icmp,
        _ if bits & state::ANSWERED != 0 => settings.udp_answered,
        _ => settings.udp,
    }
}

/// Whether the other end has answered; for TCP, whether the opener has acknowledged the answer.
#[inline(always)]
pub fn is_answered(protocol: u8, bits: u32) -> bool {
    let mark = if protocol == number::TCP {
        state::CONFIRMED
    } else {
        state::ANSWERED
    };
    bits & mark != 0
}

/// TCP: reset, or finished by both ends.
#[inline(always)]
pub fn is_closing(bits: u32) -> bool {
    const FINISHED: u32 = state::FIN_LOW | state::FIN_HIGH;
    bits & state::RESET != 0 || bits & FINISHED == FINISHED
}

/// The end that opened a flow: 0 low, 1 high.
#[inline(always)]
pub fn opener(bits: u32) -> usize {
    (bits & state::OPENER_HIGH) as usize
}

/// VLAN of an end's packets.
#[inline(always)]
pub fn vlan(bits: u32, leg: usize) -> u16 {
    (bits >> if leg == 0 { 20 } else { 8 } & 0xfff) as u16
}

/// The state with another VLAN for an end.
#[inline(always)]
pub fn with_vlan(bits: u32, leg: usize, vlan: u16) -> u32 {
    let shift = if leg == 0 { 20 } else { 8 };
    bits & !(0xfff << shift) | (vlan as u32) << shift
}

/// What [`follow`] answers when a packet may not be part of its flow; no state.
pub const NOWHERE: u32 = u32::MAX;

/// What a packet does to the state of its flow; [`NOWHERE`] when it may not be part of it.
///
/// A packet that asks to open the flow anew, after its end, is for the caller.
#[inline(always)]
pub fn follow(bits: u32, packet: &Packet, leg: usize) -> u32 {
    let from_opener = leg == opener(bits);
    let answered = bits & state::ANSWERED != 0;
    if packet.shape != Shape::Tcp {
        return match packet.shape {
            // Only the opener asks, and only the other end answers.
            Shape::Query if !from_opener => NOWHERE,
            Shape::Answer if from_opener => NOWHERE,
            _ if from_opener => bits,
            _ => bits | state::ANSWERED,
        };
    }
    if packet.flags & tcp::SYN != 0 {
        return match (packet.flags & tcp::ACK != 0, from_opener) {
            (false, true) => bits,
            (true, false) => bits | state::ANSWERED,
            // A reply can't open a connection the other way round.
            _ => NOWHERE,
        };
    }
    if packet.flags & tcp::RST != 0 {
        return bits | state::RESET | if from_opener { 0 } else { state::ANSWERED };
    }
    if !answered {
        // A challenge to a stale SYN (RFC 5961 section 4) passes, data before the answer does not.
        return if from_opener { NOWHERE } else { bits };
    }
    let mut next = bits;
    if from_opener {
        next |= state::CONFIRMED;
    }
    if packet.flags & tcp::FIN != 0 {
        next |= if leg == 0 {
            state::FIN_LOW
        } else {
            state::FIN_HIGH
        };
    }
    next
}

/// Whether a packet asks for a new flow where an old one has ended.
#[inline(always)]
pub fn reopens(bits: u32, packet: &Packet) -> bool {
    packet.shape == Shape::Tcp
        && packet.flags & (tcp::SYN | tcp::ACK) == tcp::SYN
        && is_closing(bits)
}

/// Whether a flow is that of a packet.
#[inline(always)]
pub fn is_of(flow: &Flow, packet: &Packet) -> bool {
    is(flow, &key(packet).0)
}

/// Notes the next hop towards an end of a flow, if it still is that of the packet. `at` is as
/// [`Found::at`].
#[inline(always)]
pub fn remember<T: Tables + ?Sized>(
    tables: &T,
    at: u32,
    packet: &Packet,
    to: usize,
    hop: u64,
    looked: u64,
) {
    let Some(bucket) = tables.bucket(at >> 3) else {
        return;
    };
    let (flow, key) = (&bucket.flows[(at & 7) as usize], key(packet).0);
    tables.lock(bucket);
    if is(flow, &key) {
        flow.hops[to & 1].store(hop);
        flow.looked[to & 1].store(looked);
    }
    tables.unlock(bucket);
}

/// Counts a packet of a flow.
#[inline(always)]
pub fn count(flow: &Flow, leg: usize, length: u32, tick: u32) {
    let leg = leg & 1;
    flow.packets[leg].add(1);
    flow.bytes[leg].add(length as u64);
    if flow.last.load() != tick {
        flow.last.store(tick);
    }
}

/// Changes a flow's state, if it still is that flow.
#[inline(always)]
pub fn set_state<T: Tables + ?Sized>(tables: &T, found: &Found<'_>, key: &FlowKey, bits: u32) {
    let protocol = key.ports as u8;
    let (mut owner, mut before) = (0, bits);
    tables.lock(found.bucket);
    if is(found.flow, key) {
        before = found.flow.state.load();
        owner = found.flow.devices[bit(opener(before))].load();
        found.flow.state.store(bits);
    }
    tables.unlock(found.bucket);
    if is_answered(protocol, before) != is_answered(protocol, bits) {
        book(tables, owner, is_answered(protocol, before), u32::MAX);
        book(tables, owner, is_answered(protocol, bits), 1);
    }
}

/// Notes what policy says of a flow that it was asked about again, if it still is that flow.
#[inline(always)]
pub fn renew<T: Tables + ?Sized>(tables: &T, found: &Found<'_>, renewed: &Opening, bits: u32) {
    let leg = (renewed.leg & 1) as usize;
    let protocol = renewed.key.ports as u8;
    let owner = if opener(bits) == leg {
        renewed.device
    } else {
        renewed.other
    };
    let (mut old_owner, mut before) = (owner, bits);
    tables.lock(found.bucket);
    if is(found.flow, &renewed.key) {
        before = found.flow.state.load();
        old_owner = found.flow.devices[bit(opener(before))].load();
        found.flow.rule.store(renewed.rule);
        found.flow.until.store(renewed.until);
        found.flow.stamp.store(renewed.stamp);
        found.flow.would.store(renewed.would);
        found.flow.bind[leg].store(renewed.bind);
        found.flow.devices[leg].store(renewed.device);
        found.flow.devices[1 - leg].store(renewed.other);
        found.flow.state.store(bits);
    }
    tables.unlock(found.bucket);
    let (was, is) = (is_answered(protocol, before), is_answered(protocol, bits));
    if old_owner != owner || was != is {
        book(tables, old_owner, was, u32::MAX);
        book(tables, owner, is, 1);
    }
}

/// Ends a flow.
#[inline(always)]
pub fn end<T: Tables + ?Sized>(tables: &T, found: &Found<'_>, key: &FlowKey) {
    let mut ended = false;
    let (mut owner, mut bits) = (0, 0);
    tables.lock(found.bucket);
    for way in 0..WAYS {
        let flow = &found.bucket.flows[way];
        if found.bucket.tags[way].load() != 0 && is(flow, key) {
            bits = flow.state.load();
            owner = flow.devices[bit(opener(bits))].load();
            found.bucket.tags[way].store(0);
            ended = true;
        }
    }
    tables.unlock(found.bucket);
    if ended {
        give_back(tables, owner, is_answered(key.ports as u8, bits));
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
    opening: &Opening,
    best: &Cell64,
    tick: u32,
) -> Result<(), Reason> {
    sweep(tables, settings, tick);
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
    let hash = hash(&opening.key, settings.seed);
    let bucket = tables
        .bucket(hash as u32 & settings.bucket_mask)
        .ok_or(Reason::FlowTableFull)?;
    let tag = tag(hash);
    let words = opening.key.words();
    let bits = with_vlan(opening.bits, leg, opening.vlan as u16)
        | opening.opener & state::OPENER_HIGH
        | if opening.would != 0 {
            state::OBSERVED
        } else {
            0
        };

    let (mut old_owner, mut old_protocol, mut old_bits) = (NEVER, 0, 0);
    tables.lock(bucket);
    // `rank << 32 | idle << 3 | way` of the best way so far, where the verifier does not look: it
    // would follow every order in which ways may come.
    best.store(0);
    for way in 0..WAYS {
        let flow = &bucket.flows[way];
        let used = bucket.tags[way].load();
        let bits = flow.state.load();
        let protocol = flow.key[4].load() as u8;
        let idle = tick.wrapping_sub(flow.last.load()) & 0xff_ffff;
        let rank = if used == 0 {
            if full { 0 } else { 3 }
        } else if used == tag && is(flow, &opening.key) {
            4
        } else if is_over(flow, bits, settings, tick) {
            2
        } else {
            u64::from(!is_answered(protocol, bits))
        };
        let candidate = rank << 32 | (idle as u64) << 3 | way as u64;
        if candidate > best.load() {
            best.store(candidate);
        }
    }
    let best = best.load();
    let room = best >> 32 != 0;
    if room {
        let way = (best & 7) as usize;
        let flow = &bucket.flows[way];
        if bucket.tags[way].load() != 0 {
            old_bits = flow.state.load();
            old_protocol = flow.key[4].load() as u8;
            old_owner = flow.devices[bit(opener(old_bits))].load();
        }
        bucket.tags[way].store(0);
        for (held, word) in flow.key.iter().zip(words) {
            held.store(word);
        }
        flow.bytes[leg].store(opening.length as u64);
        flow.bytes[1 - leg].store(0);
        flow.packets[leg].store(1);
        flow.packets[1 - leg].store(0);
        flow.bind[leg].store(opening.bind);
        flow.bind[1 - leg].store(0);
        flow.devices[leg].store(opening.device);
        flow.devices[1 - leg].store(opening.other);
        flow.stamp.store(opening.stamp);
        flow.rule.store(opening.rule);
        flow.until.store(opening.until);
        flow.would.store(opening.would);
        flow.hops[0].store(0);
        flow.hops[1].store(0);
        flow.last.store(tick);
        flow.state.store(bits);
        bucket.tags[way].store(tag);
    }
    tables.unlock(bucket);
    if !room {
        return Err(Reason::FlowTableFull);
    }
    book(tables, owner, is_answered(opening.key.ports as u8, bits), 1);
    flows.add(1);
    if old_owner != NEVER {
        give_back(tables, old_owner, is_answered(old_protocol, old_bits));
    }
    Ok(())
}

/// Ends what has timed out in one bucket, a different one each time: new flows pay for the old
/// ones' clean-up, so that it goes on when the daemon does not.
#[inline(always)]
pub fn sweep<T: Tables + ?Sized>(tables: &T, settings: &Settings, tick: u32) {
    let Some(cursor) = tables.gauge(gauge::SWEEP) else {
        return;
    };
    let index = cursor.load();
    cursor.store(index.wrapping_add(1));
    let Some(bucket) = tables.bucket(index & settings.bucket_mask) else {
        return;
    };
    for way in 0..WAYS {
        let flow = &bucket.flows[way];
        if bucket.tags[way].load() == 0 || !is_over(flow, flow.state.load(), settings, tick) {
            continue;
        }
        let mut owner = NEVER;
        tables.lock(bucket);
        let bits = flow.state.load();
        let protocol = flow.key[4].load() as u8;
        if bucket.tags[way].load() != 0 && is_over(flow, bits, settings, tick) {
            owner = flow.devices[bit(opener(bits))].load();
            bucket.tags[way].store(0);
        }
        tables.unlock(bucket);
        if owner != NEVER {
            give_back(tables, owner, is_answered(protocol, bits));
        }
    }
}

/// Takes a flow that has ended off the books.
#[inline(always)]
fn give_back<T: Tables + ?Sized>(tables: &T, owner: u32, answered: bool) {
    book(tables, owner, answered, u32::MAX);
    if let Some(flows) = tables.gauge(gauge::FLOWS) {
        flows.add(u32::MAX);
    }
}

/// Adds to the flows that an account has, and to those without an answer; [`u32::MAX`] takes one
/// away.
#[inline(always)]
fn book<T: Tables + ?Sized>(tables: &T, owner: u32, answered: bool, count: u32) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_spread_over_buckets() {
        // Whatever it is that differs: a port at either end, or an address.
        let address = |n: u8, host: u16| {
            let [high, low] = host.to_be_bytes();
            Address::v4([10, n, high, low])
        };
        let key = |low: u16, high: u16, host: u16| FlowKey {
            low: address(1, host),
            high: address(2, 1),
            ports: u64::from(low) << 48 | u64::from(high) << 32 | 6,
        };
        let spreads: [&dyn Fn(u16) -> FlowKey; 3] =
            [&|n| key(n, 443, 1), &|n| key(443, n, 1), &|n| key(1, 2, n)];
        for flow in spreads {
            let mut buckets = [0u32; 256];
            for n in 0..1024 {
                buckets[hash(&flow(n), 7) as usize % 256] += 1;
            }
            let fullest = buckets.into_iter().max().unwrap_or(0);
            assert!(
                fullest <= 14,
                "{fullest} of 1024 flows are in one of 256 buckets"
            );
        }
    }
}
