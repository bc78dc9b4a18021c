//! The flow table: finding, opening, following and ending flows.
//!
//! An array of buckets with [`WAYS`] flows each, indexed by a seeded hash. Reading takes no lock:
//! a flow that is replaced while it is read was, until that instant, admitted. What is written
//! without the lock (counters, time) may land in a successor and does no harm; everything else is
//! written under the bucket's lock, after the key was looked at again.

use crate::{
    abi::{
        Address, Bucket, DENIAL_SETS, EPOCH_CELLS, Flow, FlowEnds, FlowKey, LOG, NEVER, ROUTER,
        Reason, Settings, UNLISTED, WAYS, Way, gauge, state,
    },
    cell::{Cell32, Cell64, bit, way},
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

impl<'a> Found<'a> {
    /// Which of the bucket's ways.
    #[inline(always)]
    fn way(&self) -> usize {
        way(self.at)
    }

    /// What it is between, and on what ends.
    #[inline(always)]
    fn ends(&self) -> Option<&'a FlowEnds> {
        Some(&self.bucket.ways.get(self.way())?.ends)
    }
}

/// What a flow is looked for by. All steps share one, outside the kernel's stack.
#[derive(Debug, Default)]
pub struct Sought {
    /// The key.
    pub key: FlowKey,
    /// [`Flow::key`].
    words: [u64; 2],
    /// Their hash: the low half chooses the bucket, the high one is in [`Bucket::tags`].
    hash: u64,
    /// Where the way is kept from the verifier, which would go on with each of them by itself.
    way: Cell32,
}

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

impl Opening {
    /// The state, with whether the rule ends.
    #[inline(always)]
    fn with_end(&self, bits: u32) -> u32 {
        if self.until == NEVER {
            bits & !state::ENDS
        } else {
            bits | state::ENDS
        }
    }
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

impl Sought {
    /// Looks for a flow from now on. The hash is secret, by the seed, and every bit of the key
    /// reaches every bit of it.
    #[inline(always)]
    pub fn set(&mut self, key: FlowKey, seed: u64) {
        self.key = key;
        let [low_high, low] = key.low.number();
        let [high_high, high] = key.high.number();
        let is_v4 = low_high | high_high == 0 && low >> 32 == 0xffff && high >> 32 == 0xffff;
        if is_v4 {
            self.words = [low << 32 | high & 0xffff_ffff, key.ports];
        } else {
            let addresses = [low_high, low, high_high, high];
            let hash = addresses.into_iter().fold(seed, folded);
            self.words = [hash, key.ports | FlowKey::V6];
        }
        let hash = self.words.into_iter().fold(seed, folded);
        let hash = hash.wrapping_mul(0xd6e8_feb8_6659_fd93);
        self.hash = hash ^ hash >> 32;
    }

    /// The set where a denial of it is remembered.
    #[inline(always)]
    pub fn denials(&self) -> u32 {
        (self.hash >> 20) as u32 & (DENIAL_SETS - 1)
    }

    /// What a denial of it is known by in its set; never 0.
    #[inline(always)]
    pub fn denial_tag(&self) -> u64 {
        self.hash >> 48 | 1
    }

    #[inline(always)]
    fn bucket(&self, settings: &Settings) -> u32 {
        (((self.hash & 0xffff_ffff) * settings.buckets as u64) >> 32) as u32
    }

    /// The part of the hash that stands in [`Bucket::tags`]; never 0.
    #[inline(always)]
    fn tag(&self) -> u32 {
        (self.hash >> 32) as u32 | 1
    }

    /// Whether a flow is it; for IPv6 only, whether it may be.
    #[inline(always)]
    fn may_be(&self, flow: &Flow) -> bool {
        (flow.key[0].load() ^ self.words[0]) | (flow.key[1].load() ^ self.words[1]) == 0
    }

    /// Whether a flow is between the addresses.
    #[inline(always)]
    fn is_between(&self, ends: &FlowEnds) -> bool {
        let [a, b] = self.key.low.0;
        let [c, d] = self.key.high.0;
        let [e, f, g, h] = [0, 1, 2, 3].map(|word| ends.addresses[word].load());
        (a ^ e) | (b ^ f) | (c ^ g) | (d ^ h) == 0
    }

    /// Whether a flow is it. Of an IPv4 flow too the ends are there: one comparison for both spares
    /// the verifier a branch.
    #[inline(always)]
    fn is(&self, flow: &Flow, ends: &FlowEnds) -> bool {
        self.may_be(flow) && self.is_between(ends)
    }
}

/// A word more in a hash: a multiply and a fold.
#[inline(always)]
fn folded(hash: u64, word: u64) -> u64 {
    let hash = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    hash ^ hash >> 32
}

/// Finds a live flow.
#[inline(always)]
pub fn find<'a, T: Tables + ?Sized>(
    tables: &'a T,
    settings: &Settings,
    sought: &Sought,
    tick: u32,
) -> Option<Found<'a>> {
    let index = sought.bucket(settings);
    let bucket = tables.bucket(index)?;
    let mut ways = ways(bucket, sought.tag());
    // Two flows of a bucket share a tag once in 10^8; three never do.
    for _ in 0..2 {
        if ways == 0 {
            return None;
        }
        sought.way.store(lowest(ways));
        let way = way(sought.way.load());
        let flow = &bucket.ways.get(way)?.flow;
        if sought.may_be(flow)
            && (sought.words[1] & FlowKey::V6 == 0
                || sought.is_between(&bucket.ways.get(way)?.ends))
        {
            let state = flow.state.load();
            let last = bucket.last.get(way)?.load();
            let live = !is_over(flow, last, state, settings, tick);
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

/// The flow that has been found at a place before, if it still is there. `at` is one more than
/// [`Found::at`]; 0: none was found.
#[inline(always)]
pub fn again<'a, T: Tables + ?Sized>(tables: &'a T, sought: &Sought, at: u32) -> Option<Found<'a>> {
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

/// The ways with a tag, one bit for each: without a branch, as the verifier would follow each.
#[inline(always)]
fn ways(bucket: &Bucket, tag: u32) -> u32 {
    let mut ways = 0;
    for way in 0..WAYS {
        let difference = (bucket.tags[way].load() ^ tag) as u64;
        ways |= ((difference.wrapping_sub(1) >> 63) as u32) << way;
    }
    ways
}

/// The number of the lowest bit that is set, by arithmetic alone.
#[inline(always)]
fn lowest(ways: u32) -> u32 {
    let bit = ways & ways.wrapping_neg();
    let any = |mask: u32| (bit & mask).wrapping_add(0xff) >> 8 & 1;
    any(0xaa) | any(0xcc) << 1 | any(0xf0) << 2
}

/// Whether a flow has timed out.
#[inline(always)]
fn is_over(flow: &Flow, last: u32, state: u32, settings: &Settings, tick: u32) -> bool {
    let idle = tick.wrapping_sub(last) as i32;
    idle > lifetime(flow.key[1].load() as u8, state, settings) as i32
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

/// Notes the next hop towards an end of a flow, if it still is that flow. `at` is as
/// [`Found::at`].
#[inline(always)]
pub fn remember<T: Tables + ?Sized>(
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
    let (Some(Way { flow, ends }), Some(hops)) = (bucket.ways.get(way), bucket.hops.get(way))
    else {
        return;
    };
    tables.lock(bucket);
    if sought.is(flow, ends) {
        let known = bucket.ahead.load() >> way & 1 != 0;
        if !known {
            hops.hops[bit(to ^ 1)].store(0);
        }
        hops.hops[to & 1].store(hop);
        hops.looked[to & 1].store(looked);
        bucket.ahead.store(bucket.ahead.load() | 1 << way);
    }
    tables.unlock(bucket);
}

/// The next hop towards an end of a flow, and when that was asked; 0: not known.
#[inline(always)]
pub fn hop(found: &Found<'_>, to: usize) -> (u64, u64) {
    let to = bit(to);
    match found.bucket.hops.get(found.way()) {
        Some(hops) if found.bucket.ahead.load() >> (found.at & 7) & 1 != 0 => {
            (hops.hops[to].load(), hops.looked[to].load())
        }
        _ => (0, 0),
    }
}

/// Counts a packet of a flow.
#[inline(always)]
pub fn count(found: &Found<'_>, leg: usize, length: u32, tick: u32) {
    let leg = leg & 1;
    found.flow.packets[leg].add(1);
    found.flow.counts[leg].add(length as u64);
    if let Some(last) = found.bucket.last.get(found.way())
        && last.load() != tick
    {
        last.store(tick);
    }
}

/// Where the epoch of an account is kept, which it shares with few others.
#[inline(always)]
pub fn cell(account: u32) -> u32 {
    account & (EPOCH_CELLS - 1)
}

/// The account of an end of a flow.
#[inline(always)]
pub fn device(found: &Found<'_>, leg: usize) -> u32 {
    match found.ends() {
        Some(ends) => ends.devices[bit(leg)].load(),
        None => 0,
    }
}

/// Whether the rule that admits a flow has ended.
#[inline(always)]
pub fn has_ended(found: &Found<'_>, tick: u32) -> bool {
    found.state & state::ENDS != 0
        && match found.ends() {
            Some(ends) => tick >= ends.until.load(),
            None => true,
        }
}

/// The rule that admitted a flow, with what it has not counted yet of the flow.
///
/// Not inside an option: before 6.3 the verifier refuses to read what is none off the stack.
#[derive(Default)]
struct Due {
    rule: u32,
    packets: u32,
    bytes: u64,
}

/// What is due to the rule of a flow, which from now on counts for another. Under the bucket's lock.
#[inline(always)]
fn due(flow: &Flow, ends: &FlowEnds) -> Due {
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
fn pay<T: Tables + ?Sized>(tables: &T, due: &Due) {
    let rule = due.rule & !LOG;
    if rule != 0 {
        tables.credit(rule, due.packets, due.bytes);
    }
}

/// Changes a flow's state, if it still is that flow.
#[inline(always)]
pub fn set_state<T: Tables + ?Sized>(tables: &T, found: &Found<'_>, sought: &Sought, bits: u32) {
    let Some(ends) = found.ends() else {
        return;
    };
    let protocol = sought.key.ports as u8;
    let (mut owner, mut before) = (0, bits);
    tables.lock(found.bucket);
    if sought.is(found.flow, ends) {
        before = found.flow.state.load();
        owner = ends.devices[bit(opener(before))].load();
        found.flow.state.store(bits);
    }
    tables.unlock(found.bucket);
    if is_answered(protocol, before) != is_answered(protocol, bits) {
        book(tables, owner, is_answered(protocol, before), u32::MAX);
        book(tables, owner, is_answered(protocol, bits), 1);
    }
}

/// Notes what policy says of a flow that it was asked about again, if it still is that flow.
///
/// If it was not `current` the other end is asked too, where its next packet comes from: nothing here
/// has said that it still may send from there.
#[inline(always)]
pub fn renew<T: Tables + ?Sized>(
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
    let owner = if opener(bits) == leg {
        renewed.device
    } else {
        renewed.other
    };
    let bits = renewed.with_end(bits);
    let flow = found.flow;
    let (mut old_owner, mut before) = (owner, bits);
    let mut to_pay = Due::default();
    tables.lock(found.bucket);
    if sought.is(flow, ends) {
        before = flow.state.load();
        old_owner = ends.devices[bit(opener(before))].load();
        if ends.rule.load() != renewed.rule {
            to_pay = due(flow, ends);
        }
        ends.rule.store(renewed.rule);
        ends.until.store(renewed.until);
        ends.would.store(renewed.would);
        flow.stamp.store(renewed.stamp);
        flow.bind[leg].store(renewed.bind);
        let there = flow.bind[1 - leg].load();
        if !current && there >> 16 != 0 {
            // Of no interface, so of none that a packet comes from.
            flow.bind[1 - leg].store(there & !0xffff);
        }
        set_device(flow, ends, leg, renewed.device);
        set_device(flow, ends, 1 - leg, renewed.other);
        flow.state.store(bits);
    }
    tables.unlock(found.bucket);
    pay(tables, &to_pay);
    let (was, is) = (is_answered(protocol, before), is_answered(protocol, bits));
    if old_owner != owner || was != is {
        book(tables, old_owner, was, u32::MAX);
        book(tables, owner, is, 1);
    }
}

/// Notes the account of an end, beside counters that other processors may add to.
#[inline(always)]
fn set_device(flow: &Flow, ends: &FlowEnds, leg: usize, device: u32) {
    let change = cell(device).wrapping_sub(flow.cell(leg)) as u64;
    flow.counts[leg].add(change << Flow::CELL);
    ends.devices[leg].store(device);
}

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
fn reclaim<T: Tables + ?Sized>(tables: &T, settings: &Settings, bucket: &Bucket, tick: u32) {
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
        let settings = Settings {
            buckets: 256,
            ..Settings::for_flows(64)
        };
        for flow in spreads {
            let mut buckets = [0u32; 256];
            for n in 0..1024 {
                let mut sought = Sought::default();
                sought.set(flow(n), 7);
                buckets[sought.bucket(&settings) as usize] += 1;
            }
            let fullest = buckets.into_iter().max().unwrap_or(0);
            assert!(
                fullest <= 14,
                "{fullest} of 1024 flows are in one of 256 buckets"
            );
        }
    }
}
