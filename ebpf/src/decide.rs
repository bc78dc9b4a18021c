//! The decision: a packet and the tables give a verdict.
//!
//! Reasons have an order: form, place, quarantine, state, policy, room. The first that applies is
//! the packet's reason.
//!
//! A judgement has steps. The first parses, and passes what belongs to a flow that is admitted
//! under what holds now; for everything else the others follow: [`enter`] or [`leave`], [`admit`],
//! [`judge`], [`settle`], [`open`]. Between them all that is known is in [`Work`], which the kernel keeps
//! outside its stack: what the verifier can't see it can't follow, and each step is verified once
//! instead of for every way through the ones before.

use crate::{
    abi::{
        Address, DENIAL_WAYS, Denial, EPOCH_CELLS, End, FAILSAFES, Flow, Forwarding, Fragment,
        FragmentKey, LOG, MAX_IFINDEX, MAX_ZONES, NEVER, Port, Reason, Settings, TICK_SHIFT,
        carries_key, ethertype_key, mac_key, state, vlan_key, zone,
    },
    cell::{Cell32, Cell64, bit},
    flows::{self, Found, Opening, Sought},
    guards::{self, Sender},
    packet::{self, Bytes, Packet, Shape, number, tcp},
    policy::{self, Decision},
    tables::Tables,
};

/// What happens to a packet, and why.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub struct Verdict {
    /// The reason, which also says whether it passes.
    pub reason: Reason,
    /// For [`Reason::Observed`], what it would have been dropped for; else the reason.
    pub would: Reason,
    /// Whether it is counted and told here; what entered through a guarded port was, there.
    pub counts: bool,
    /// Whether it makes an event.
    pub tells: bool,
    /// The rule that decided; 0: none.
    pub rule: u32,
}

impl Verdict {
    #[inline(always)]
    fn of(reason: Reason) -> Self {
        Self {
            reason,
            would: reason,
            rule: 0,
            counts: true,
            tells: !reason.passes(),
        }
    }

    #[inline(always)]
    fn by_rule(reason: Reason, rule: u32) -> Self {
        let tells = !reason.passes() || rule & LOG != 0;
        Self {
            rule: policy::rule_number(rule),
            tells,
            ..Self::of(reason)
        }
    }

    /// A pass that another hook has already counted.
    #[inline(always)]
    fn again(reason: Reason) -> Self {
        Self {
            counts: false,
            ..Self::of(reason)
        }
    }

    /// A pass that would be a drop if the zones enforced.
    #[inline(always)]
    fn observed(would: Reason, rule: u32) -> Self {
        let rule = policy::rule_number(rule);
        Self {
            reason: Reason::Observed,
            would,
            rule,
            counts: true,
            tells: true,
        }
    }
}

impl From<Result<(), Reason>> for Verdict {
    #[inline(always)]
    fn from(control: Result<(), Reason>) -> Self {
        match control {
            Ok(()) => Self::of(Reason::Control),
            Err(reason) => Self::of(reason),
        }
    }
}

/// Everything known about a packet while it is judged. Starts as zeros.
#[derive(Debug, Default)]
pub struct Work {
    /// The packet, as far as it could be parsed.
    pub packet: Packet,
    /// What the source address is.
    pub source: End,
    /// What the destination address is.
    pub destination: End,
    /// The slot of the revision that judges.
    pub slot: u32,
    /// The present.
    pub tick: u32,
    /// The interface where it is judged.
    pub ifindex: u32,
    /// The device that it is about: the sender, or for what comes from elsewhere the receiver.
    pub device: u32,
    /// Settings of the zone.
    settings: u32,
    /// Zone of the port's VLAN; 0: none.
    pub zone: u16,
    /// Flags of the port.
    port: u16,
    /// [`ENTERS`], [`INNER`], [`OWN`], [`FANS`].
    way: u16,
    /// What policy says of the flow.
    decision: Decision,
    /// 1 when the destination opened the flow, else 0.
    reversed: u32,
    /// 1 when the flow ran before the port was guarded and may be adopted, else 0.
    adopts: u32,
    /// What its flow is looked for by.
    pub sought: Sought,
    /// The sender's end of that.
    pub leg: u32,
    /// One more than where the flow is; 0: there is none.
    pub at: u32,
    /// 1 when the first step has passed it as part of that flow, else 0.
    pub fast: u32,
    /// 1 when its flow counts it for the rule, else 0.
    pub held: u32,
    /// Of what may be forwarded in the driver, the next hop that its flow remembers, as
    /// [`Flow::bind`](crate::abi::Flow::bind); 0: none.
    pub hop: u64,
    /// When that was asked, as [`FlowHops::looked`](crate::abi::FlowHops::looked).
    pub looked: u64,
    /// The generation of what it is judged by.
    generation: u64,
    /// 1 when policy has refused it, and would again within that generation, else 0.
    pub denied: u32,
    /// The flow to open.
    opening: Opening,
    /// Room for [`policy::judge`] and [`packet::network`].
    place: Cell32,
    /// Room for [`flows::open`].
    best: Cell64,
}

/// It enters through a guarded port; else it leaves through one.
const ENTERS: u16 = 1;
/// It leaves, and came from an interface behind which there are guarded ports.
const INNER: u16 = 2;
/// It leaves, and the router itself sent it.
const OWN: u16 = 4;
/// It leaves to a group, so through several ports, for each of which it is judged.
const FANS: u16 = 8;

impl Work {
    #[inline(always)]
    fn enters(&self) -> bool {
        self.way & ENTERS != 0
    }

    #[inline(always)]
    fn inner(&self) -> bool {
        self.way & INNER != 0
    }

    #[inline(always)]
    fn own(&self) -> bool {
        self.way & OWN != 0
    }

    #[inline(always)]
    fn fans(&self) -> bool {
        self.way & FANS != 0
    }

    /// Where a packet comes from, as a flow remembers it.
    #[inline(always)]
    fn bind(&self) -> u64 {
        if self.enters() {
            self.packet.source_mac << 16 | self.ifindex as u64
        } else if self.own() {
            Flow::OWN
        } else {
            Flow::OUTSIDE
        }
    }
}

/// Judges a packet that enters through an interface: all steps.
///
/// `tag` is the VLAN tag that the kernel took out of the frame.
pub fn ingress<B: Bytes + ?Sized, T: Tables + ?Sized>(
    bytes: &B,
    tag: Option<u16>,
    ifindex: u32,
    tables: &T,
    work: &mut Work,
) -> Verdict {
    let verdict = start_ingress(bytes, tag, ifindex, tables, work)
        .or_else(|| enter(bytes, tables, work))
        .unwrap_or_else(|| judged(bytes, tables, work));
    let verdict = spare(bytes, tables, work, verdict);
    finish(tables, work, verdict)
}

/// Judges a packet that leaves through an interface: all steps.
///
/// `from` is the index of the interface that it came from; 0: the router sent it.
pub fn egress<B: Bytes + ?Sized, T: Tables + ?Sized>(
    bytes: &B,
    tag: Option<u16>,
    ifindex: u32,
    from: u32,
    tables: &T,
    work: &mut Work,
) -> Verdict {
    let verdict = start_egress(bytes, tag, ifindex, from, tables, work)
        .or_else(|| leave(bytes, tables, work))
        .unwrap_or_else(|| judged(bytes, tables, work));
    let verdict = spare(bytes, tables, work, verdict);
    finish(tables, work, verdict)
}

fn judged<B: Bytes + ?Sized, T: Tables + ?Sized>(
    bytes: &B,
    tables: &T,
    work: &mut Work,
) -> Verdict {
    admit(bytes, tables, work)
        .or_else(|| {
            judge(tables, work);
            if turns(work) {
                judge(tables, work);
            }
            settle(tables, work)
        })
        .unwrap_or_else(|| open(tables, work))
}

fn finish<T: Tables + ?Sized>(tables: &T, work: &Work, verdict: Verdict) -> Verdict {
    if work.denied != 0 && !verdict.reason.passes() {
        remember(tables, work, &verdict);
    }
    if verdict.reason.passes() && work.packet.fragment.is_first() {
        note_first(tables, work, verdict)
    } else {
        verdict
    }
}

/// The first step for a packet that enters; nothing when [`enter`] has to go on.
#[inline(always)]
pub fn start_ingress<B: Bytes + ?Sized, T: Tables + ?Sized>(
    bytes: &B,
    tag: Option<u16>,
    ifindex: u32,
    tables: &T,
    work: &mut Work,
) -> Option<Verdict> {
    if !context(tables, ifindex, ENTERS, work) {
        return Some(not_ready(work));
    }
    if let Err(reason) = parse(bytes, tag, tables, work) {
        return Some(Verdict::of(reason));
    }
    if work.packet.shape == Shape::Part {
        return Some(follow_part(tables, work));
    }
    if work.packet.fragment.is_first() && begins_anew(tables, work) {
        return Some(Verdict::of(Reason::Fragment));
    }
    established(tables, work)
}

/// The first step for a packet that leaves; nothing when [`leave`] has to go on.
#[inline(always)]
pub fn start_egress<B: Bytes + ?Sized, T: Tables + ?Sized>(
    bytes: &B,
    tag: Option<u16>,
    ifindex: u32,
    from: u32,
    tables: &T,
    work: &mut Work,
) -> Option<Verdict> {
    if !context(tables, ifindex, if from == 0 { OWN } else { 0 }, work) {
        return Some(not_ready(work));
    }
    if from != 0
        && from < MAX_IFINDEX
        && let Some(port) = tables.port(Port::index(from, work.slot))
        && port.flags & (Port::GUARDED | Port::ABOVE) != 0
    {
        work.way = INNER;
    }
    if let Err(reason) = parse(bytes, tag, tables, work) {
        return Some(Verdict::of(reason));
    }
    if work.packet.shape == Shape::Part {
        let inner = work.inner();
        let verdict = if inner {
            leaving_part(tables, work)
        } else {
            follow_part(tables, work)
        };
        // The form of what entered through a guarded port was judged there, with its first part.
        let formed = inner || verdict.reason.passes();
        return Some(if formed && work.zone == 0 {
            Verdict::of(Reason::WrongVlan)
        } else {
            verdict
        });
    }
    let first = work.packet.fragment.is_first() && !work.inner();
    if first && begins_anew(tables, work) {
        return Some(Verdict::of(Reason::Fragment));
    }
    None
}

/// The verdict for a packet that can't even be parsed: its headers are out of reach, or its tag is
/// of a kind that no policy can name.
pub fn refuse<T: Tables + ?Sized>(
    ifindex: u32,
    reason: Reason,
    tables: &T,
    work: &mut Work,
) -> Verdict {
    work.packet = Packet::default();
    let ready = context(tables, ifindex, 0, work);
    Verdict::of(if ready { reason } else { Reason::NotReady })
}

/// The verdict for a packet that nothing is known of: there is nothing to judge it by.
#[inline(always)]
fn not_ready(work: &mut Work) -> Verdict {
    work.packet = Packet::default();
    Verdict::of(Reason::NotReady)
}

/// What judges packets of an interface; false when no revision guards it.
#[inline(always)]
fn context<T: Tables + ?Sized>(tables: &T, ifindex: u32, way: u16, work: &mut Work) -> bool {
    work.way = way;
    work.ifindex = ifindex;
    work.device = 0;
    work.settings = 0;
    work.zone = 0;
    work.adopts = 0;
    work.at = 0;
    work.fast = 0;
    work.held = 0;
    work.denied = 0;
    work.hop = 0;
    let Some(slot) = tables.active() else {
        return false;
    };
    work.slot = slot & 1;
    work.tick = tables.tick();
    if ifindex >= MAX_IFINDEX {
        return false;
    }
    let Some(port) = tables.port(Port::index(ifindex, slot & 1)) else {
        return false;
    };
    work.port = port.flags;
    work.zone = port.zone;
    port.flags & Port::GUARDED != 0
}

/// Form: everything about a packet that can be said without knowing who sent it.
#[inline(always)]
fn parse<B: Bytes + ?Sized, T: Tables + ?Sized>(
    bytes: &B,
    tag: Option<u16>,
    tables: &T,
    work: &mut Work,
) -> Result<(), Reason> {
    packet::ethernet(bytes, tag, &mut work.packet)?;
    if work.packet.vlan != 0 {
        let key = vlan_key(work.slot, work.ifindex, work.packet.vlan);
        work.zone = match tables.place(key) {
            Some(zone) => zone as u16,
            None => 0,
        };
    }
    if work.zone != 0 {
        let zone = work.zone as u32 & (MAX_ZONES - 1);
        if let Some(settings) = tables.zone(work.slot * MAX_ZONES + zone) {
            work.settings = settings;
        }
    }
    // What entered through a guarded port was judged by that port's zone, and what the router
    // sends is for the router to form.
    let judged = work.inner() || work.own();
    let lenient = if judged {
        zone::FRAGMENTS | zone::IP_OPTIONS
    } else {
        0
    };
    packet::network(
        bytes,
        &mut work.packet,
        work.settings | lenient,
        &work.place,
    )?;
    match work.packet.ethertype {
        number::IPV4 | number::IPV6 | number::ARP | number::EAPOL => Ok(()),
        _ if judged => Ok(()),
        ethertype => {
            let key = ethertype_key(work.slot, work.zone, ethertype);
            if tables.place(key).is_some() {
                Ok(())
            } else {
                Err(Reason::UnknownEthertype)
            }
        }
    }
}

/// The fast path: a packet of a flow that was admitted under what holds now, from where its
/// packets come from. One flow lookup, compares, no policy.
#[inline(always)]
fn established<T: Tables + ?Sized>(tables: &T, work: &mut Work) -> Option<Verdict> {
    if !has_flow(&work.packet) {
        return None;
    }
    let settings = tables.settings()?;
    let (key, leg) = flows::key(&work.packet);
    work.sought.set(key, settings.seed);
    work.leg = leg as u32;
    // Then no flow needs to be looked for: no denial outlives the opening of one.
    if let Some(tags) = tables.refused(work.sought.denials())
        && let lanes = lanes(tags.load(), work.sought.denial_tag())
        && lanes != 0
        && let Some(verdict) = denied_before(tables, settings, work, first(lanes))
    {
        return Some(verdict);
    }
    let Some(found) = flows::find(tables, settings, &work.sought, work.tick) else {
        // Read before anything that it tells of.
        work.generation = tables.generation(work.slot)?;
        return None;
    };
    work.at = found.at.wrapping_add(1);
    // Here, so that the memory is waited for while that of the flow is.
    if let Some(entry) = tables.forwarding(work.ifindex)
        && entry.flags & Forwarding::ENTERS != 0
    {
        (work.hop, work.looked) = flows::hop(&found, leg ^ 1);
    }
    if found.flow.bind[bit(leg)].load() != work.bind()
        || flows::vlan(found.state, leg) != work.packet.vlan
        || !is_current(tables, work, &found)
        || flows::reopens(found.state, &work.packet)
    {
        return None;
    }
    let verdict = go_on(tables, work, &found, leg)?;
    work.fast = 1;
    Some(verdict)
}

/// What policy has said within the last second of a packet just like this one, when it was no.
#[inline(always)]
fn denied_before<T: Tables + ?Sized>(
    tables: &T,
    settings: &Settings,
    work: &mut Work,
    way: u32,
) -> Option<Verdict> {
    if !opens(&work.packet) {
        return None;
    }
    let set = work.sought.denials();
    work.generation = tables.generation(work.slot)?;
    let opened = tables.opened(set)?.load();
    let denial = tables.denial(set, way)?;
    let left = denial.until.load().wrapping_sub(work.tick);
    // Nothing is left is less than nothing.
    let over = left.wrapping_sub(1) >= second(settings);
    if over || denial.opened.load() != opened || !is_of(denial, work) {
        return None;
    }
    denial.untold.store(denial.untold.load().wrapping_add(1));
    work.device = denial.device.load();
    let reason = match denial.reason.load() as u8 {
        DENIED_BY_RULE => Reason::DeniedByRule,
        QUARANTINED => Reason::Quarantined,
        _ => Reason::NoRule,
    };
    Some(Verdict {
        tells: false,
        rule: denial.rule.load(),
        ..Verdict::of(reason)
    })
}

const DENIED_BY_RULE: u8 = Reason::DeniedByRule as u8;
const QUARANTINED: u8 = Reason::Quarantined as u8;

/// Ticks in a second.
#[inline(always)]
fn second(settings: &Settings) -> u32 {
    settings.jiffies_per_second >> TICK_SHIFT
}

/// Whether a denial is of a packet just like this one.
#[inline(always)]
fn is_of(denial: &Denial, work: &Work) -> bool {
    let (source, destination) = (work.packet.source.0, work.packet.destination.0);
    let words = [source[0], source[1], destination[0], destination[1]];
    let mut difference = denial.bind.load() ^ work.bind();
    for (held, word) in denial.addresses.iter().zip(words) {
        difference |= held.load() ^ word;
    }
    difference |= denial.ports.load() ^ denial_ports(&work.packet);
    difference |= denial.generation.load() ^ denial_generation(work);
    difference == 0
}

#[inline(always)]
fn denial_ports(packet: &Packet) -> u64 {
    let ports = (packet.source_port as u64) << 16 | packet.destination_port as u64;
    ports << 32 | packet.service() as u64
}

#[inline(always)]
fn denial_generation(work: &Work) -> u64 {
    work.generation << 16 | work.packet.vlan as u64
}

/// The last step for a packet that is dropped: remembers that policy has refused it.
#[inline(always)]
pub fn remember<T: Tables + ?Sized>(tables: &T, work: &Work, verdict: &Verdict) {
    let set = work.sought.denials();
    let (Some(settings), Some(opened), Some(tags)) =
        (tables.settings(), tables.opened(set), tables.refused(set))
    else {
        return;
    };
    // Read before the flow is looked for once more: if another processor opens it after that, this
    // is old.
    let opened = opened.load();
    if flows::find(tables, settings, &work.sought, work.tick).is_some() {
        return;
    }
    let tag = work.sought.denial_tag();
    let (own, free) = (lanes(tags.load(), tag), lanes(tags.load(), 0));
    let way = if own != 0 {
        first(own)
    } else if free != 0 {
        first(free)
    } else {
        work.tick & (DENIAL_WAYS - 1)
    };
    let Some(denial) = tables.denial(set, way) else {
        return;
    };
    // Another's place is taken over, but not what is still to be told of it.
    tables.hold(denial, denial.untold.load());
    let (source, destination) = (work.packet.source.0, work.packet.destination.0);
    let words = [source[0], source[1], destination[0], destination[1]];
    for (cell, word) in denial.addresses.iter().zip(words) {
        cell.store(word);
    }
    denial.bind.store(work.bind());
    denial.ports.store(denial_ports(&work.packet));
    denial.generation.store(denial_generation(work));
    denial.until.store(work.tick.wrapping_add(second(settings)));
    denial.device.store(work.device);
    denial.rule.store(verdict.rule);
    denial.reason.store(verdict.reason as u32);
    denial.untold.store(0);
    denial.opened.store(opened);
    let lane = way * 16;
    tags.store(tags.load() & !(0xffff << lane) | tag << lane);
}

/// The ways of a set of denials that have a tag, by the highest bit of each lane; of those that
/// it finds the first is right.
#[inline(always)]
fn lanes(tags: u64, tag: u64) -> u64 {
    const ONES: u64 = 0x0001_0001_0001_0001;
    let difference = tags ^ tag.wrapping_mul(ONES);
    difference.wrapping_sub(ONES) & !difference & (ONES << 15)
}

/// The first of [`lanes`], by arithmetic alone.
#[inline(always)]
fn first(lanes: u64) -> u32 {
    let lane = lanes & lanes.wrapping_neg();
    let bit = |at: u32| lane >> at & 1;
    (bit(31) + bit(47) * 2 + bit(63) * 3) as u32
}

/// Whether policy refuses this packet as long as its generation lasts: nothing that it was asked
/// about may change otherwise.
#[inline(always)]
fn is_final(work: &Work) -> bool {
    let Decision { reason, until, .. } = work.decision;
    let (source, destination) = (&work.source, &work.destination);
    let lasts = match reason {
        Reason::NoRule | Reason::Quarantined => true,
        Reason::DeniedByRule => until == NEVER,
        _ => false,
    };
    // Nobody can have learned an address that is listed, or in no zone.
    let listed = |end: &End| end.device != 0 && end.flags & End::LEARNS == 0;
    lasts
        && work.enters()
        && work.device != 0
        && listed(source)
        && (listed(destination) || destination.zone == 0 && destination.device == 0)
        && !work.packet.is_to_group()
        && !work.packet.fragment.is_first()
        && opens(&work.packet)
}

/// The note that the parts of a packet share, at one port.
#[inline(always)]
fn fragment_key(work: &Work) -> FragmentKey {
    let leaves_through = if work.enters() { 0 } else { work.ifindex };
    FragmentKey {
        source: work.packet.source,
        destination: work.packet.destination,
        bind: work.bind() | (leaves_through as u64) << 16,
        identification: work.packet.fragment.identification,
        vlan: work.packet.vlan,
        protocol: work.packet.fragment.protocol as u16,
    }
}

/// Whether a first part comes while others of its packet may still follow an earlier one, which it
/// could overwrite in the receiver. Then none follows any more.
#[inline(always)]
fn begins_anew<T: Tables + ?Sized>(tables: &T, work: &Work) -> bool {
    let key = fragment_key(work);
    let (Some(settings), Some(noted)) = (tables.settings(), tables.fragment(&key)) else {
        return false;
    };
    let age = work.tick.wrapping_sub(noted.first.load());
    tables.forget_fragment(&key);
    age <= settings.fragment
}

/// The last step for a packet that passes as the first part of several: notes it, so that the
/// others can follow.
#[inline(always)]
pub fn note_first<T: Tables + ?Sized>(tables: &T, work: &Work, verdict: Verdict) -> Verdict {
    if work.inner() || work.fans() {
        return verdict;
    }
    let (flow, _) = flows::key(&work.packet);
    let noted = Fragment {
        ports: Cell64::new(flow.ports),
        next: Cell32::new(work.packet.fragment.next),
        first: Cell32::new(work.tick),
    };
    if tables.note_fragment(&fragment_key(work), &noted) {
        verdict
    } else {
        Verdict::of(Reason::Fragment)
    }
}

/// Judges a later part of a packet: it must go on exactly where the last one ended, and its flow
/// must be current.
#[inline(always)]
fn follow_part<T: Tables + ?Sized>(tables: &T, work: &mut Work) -> Verdict {
    let dropped = Verdict::of(Reason::Fragment);
    let Some(settings) = tables.settings() else {
        return Verdict::of(Reason::NotReady);
    };
    let key = fragment_key(work);
    let Some(noted) = tables.fragment(&key) else {
        return dropped;
    };
    let part = &work.packet.fragment;
    let age = work.tick.wrapping_sub(noted.first.load());
    if age > settings.fragment || noted.next.load() != part.offset {
        return dropped;
    }
    let (flow_key, leg) = flows::part_key(&work.packet, noted.ports.load());
    if part.more {
        noted.next.store(part.next);
    } else {
        tables.forget_fragment(&key);
    }
    work.sought.set(flow_key, settings.seed);
    let Some(found) = flows::find(tables, settings, &work.sought, work.tick) else {
        return dropped;
    };
    if found.flow.bind[bit(leg)].load() != work.bind() || !is_current(tables, work, &found) {
        return dropped;
    }
    flows::count(&found, leg, work.packet.length, work.tick);
    passed(&found)
}

/// A later part that entered through a guarded port leaves freely, but to a group only within the
/// sender's own zone: what it is of is not known here.
#[inline(always)]
fn leaving_part<T: Tables + ?Sized>(tables: &T, work: &mut Work) -> Verdict {
    let source = work.packet.source;
    if work.packet.ethertype == number::IPV6 && source.is_v4() {
        return Verdict::of(Reason::SpoofedSource);
    }
    let own_zone = !work.packet.is_to_group()
        || policy::end(tables, work.slot, &source, &mut work.source)
            && work.source.zone == work.zone;
    if own_zone {
        Verdict::again(Reason::Established)
    } else {
        Verdict::of(Reason::Fragment)
    }
}

/// Lets a packet of a current flow pass; nothing when the flow's state has no place for it, which
/// is for the other steps to judge.
#[inline(always)]
fn go_on<T: Tables + ?Sized>(
    tables: &T,
    work: &Work,
    found: &Found<'_>,
    leg: usize,
) -> Option<Verdict> {
    let next = flows::follow(found.state, &work.packet, leg);
    if next == flows::NOWHERE {
        return None;
    }
    if next != found.state {
        flows::set_state(tables, found, &work.sought, next);
    }
    flows::count(found, leg, work.packet.length, work.tick);
    Some(passed(found))
}

/// The verdict for a packet that has its place in a current flow, which knows its rule and counts
/// for it.
#[inline(always)]
fn passed(found: &Found<'_>) -> Verdict {
    if found.state & state::OBSERVED != 0 {
        // Told when it opened.
        return Verdict {
            tells: false,
            ..Verdict::observed(Reason::NoRule, 0)
        };
    }
    Verdict::of(Reason::Established)
}

/// Whether policy was asked under the epochs that hold, and the rule has not ended.
#[inline(always)]
fn is_current<T: Tables + ?Sized>(tables: &T, work: &Work, found: &Found<'_>) -> bool {
    let flow = found.flow;
    let (Some(low), Some(high)) = (
        tables.epoch(epoch(work.slot, flow.cell(0))),
        tables.epoch(epoch(work.slot, flow.cell(1))),
    ) else {
        return false;
    };
    flow.stamp.load() == low.wrapping_add(high) && !flows::has_ended(found, work.tick)
}

/// Where the epoch of a device is. Two epochs are compared by their sum, which changes when either
/// does, because they only grow.
#[inline(always)]
fn epoch(slot: u32, account: u32) -> u32 {
    slot * EPOCH_CELLS + flows::cell(account)
}

/// Whether packets of this shape belong to flows.
#[inline(always)]
fn has_flow(packet: &Packet) -> bool {
    matches!(
        packet.shape,
        Shape::Tcp | Shape::Udp | Shape::Query | Shape::Answer | Shape::Other
    )
}

/// Place and control, for a packet that enters; nothing when [`admit`] has to go on.
#[inline(always)]
pub fn enter<B: Bytes + ?Sized, T: Tables + ?Sized>(
    bytes: &B,
    tables: &T,
    work: &mut Work,
) -> Option<Verdict> {
    let mut sender = Sender {
        slot: work.slot,
        device: 0,
        zone: work.zone,
        flags: 0,
        owns: false,
        port: work.port,
        tick: work.tick,
    };
    if let Err(reason) = place(tables, work, &mut sender) {
        return Some(Verdict::of(reason));
    }
    if let Some(seen) = tables.seen(sender.device) {
        seen.last.store(work.tick);
        seen.ifindex.store(work.ifindex);
    }
    let quarantined = sender.flags & End::QUARANTINED != 0;
    if work.packet.shape == Shape::Frame {
        if work.packet.ethertype != number::ARP {
            // Of a device in quarantine only ARP, ND and DHCP go on.
            return Some(Verdict::of(if quarantined {
                Reason::Quarantined
            } else {
                Reason::Control
            }));
        }
        let control = guards::arp(bytes, tables, &work.packet, &sender, &mut work.source);
        return Some(control.into());
    }
    let source = work.packet.source;
    if work.packet.shape == Shape::Mapped {
        return Some(Verdict::of(Reason::SpoofedSource));
    }
    if source.is_link_local()
        && guards::is_the_routers(tables, work.slot, &source, &mut work.source)
    {
        return Some(Verdict::of(Reason::SpoofedSource));
    }
    let control_only = source.is_link_local() || source.is_unspecified();
    if !control_only
        && (source.is_martian_source()
            || !sender.owns && !guards::owns(tables, &sender, &source, &mut work.source))
    {
        return Some(Verdict::of(Reason::SpoofedSource));
    }
    let control = guards::control(bytes, tables, &work.packet, &sender, &mut work.destination);
    if let Some(verdict) = control {
        // Control is small: a message that comes in parts hides something.
        let verdict = verdict.and(if work.packet.fragment.is_first() {
            Err(Reason::Fragment)
        } else if quarantined && work.packet.shape == Shape::Membership {
            Err(Reason::Quarantined)
        } else {
            Ok(())
        });
        return Some(verdict.into());
    }
    if source.is_unspecified() {
        return Some(Verdict::of(Reason::SpoofedSource));
    }
    if control_only {
        work.source = End {
            device: sender.device,
            zone: work.zone,
            flags: sender.flags,
            ..End::default()
        };
    }
    None
}

/// Place: the device of a MAC, where it may be.
#[inline(always)]
fn place<T: Tables + ?Sized>(
    tables: &T,
    work: &mut Work,
    sender: &mut Sender,
) -> Result<(), Reason> {
    if work.zone == 0 {
        return Err(Reason::WrongVlan);
    }
    let Some(mac) = tables.mac(mac_key(work.slot, work.packet.source_mac)) else {
        let admitted = work.settings & zone::ADMIT_ANY != 0;
        return if admitted {
            Ok(())
        } else {
            Err(Reason::UnknownDevice)
        };
    };
    work.device = mac.device;
    sender.device = mac.device;
    sender.flags = mac.flags;
    if mac.zone != work.zone {
        let elsewhere = tables
            .place(carries_key(work.slot, work.ifindex, mac.zone))
            .is_some();
        return Err(if elsewhere {
            Reason::WrongVlan
        } else {
            Reason::WrongPort
        });
    }
    if mac.ifindex != 0 && mac.ifindex != work.ifindex {
        return Err(Reason::WrongPort);
    }
    if mac.end.device != 0 && mac.address == work.packet.source {
        work.source.take(&mac.end);
        sender.owns = true;
    }
    Ok(())
}

/// Place and control, for a packet that leaves; nothing when [`admit`] has to go on.
#[inline(always)]
pub fn leave<B: Bytes + ?Sized, T: Tables + ?Sized>(
    bytes: &B,
    tables: &T,
    work: &mut Work,
) -> Option<Verdict> {
    if work.zone == 0 {
        return Some(Verdict::of(Reason::WrongVlan));
    }
    if guards::is_control(&work.packet) {
        if work.inner() {
            return Some(Verdict::again(Reason::Control));
        }
        if work.own() {
            return Some(Verdict::of(Reason::Control));
        }
        return Some(from_outside(bytes, tables, work).into());
    }
    if work.packet.is_to_group() {
        work.way |= FANS;
    } else if has_flow(&work.packet)
        && let Some(settings) = tables.settings()
    {
        let (key, leg) = flows::key(&work.packet);
        work.sought.set(key, settings.seed);
        work.leg = leg as u32;
        if let Some(found) = flows::find(tables, settings, &work.sought, work.tick) {
            work.at = found.at.wrapping_add(1);
            let bind = found.flow.bind[bit(leg)].load();
            if bind >> 16 != 0 {
                // This end is behind a guarded port. Through it, it was judged there; from
                // elsewhere, somebody borrows its address.
                return Some(if work.inner() {
                    Verdict::again(Reason::Established)
                } else {
                    work.device = flows::device(&found, leg ^ 1);
                    Verdict::of(Reason::SpoofedSource)
                });
            }
            if bind == work.bind()
                && is_current(tables, work, &found)
                && !flows::reopens(found.state, &work.packet)
                && let Some(verdict) = go_on(tables, work, &found, leg)
            {
                return Some(verdict);
            }
        }
    }
    let source = work.packet.source;
    let mapped = work.packet.shape == Shape::Mapped;
    if mapped || source.is_martian_source() || source.is_unspecified() {
        return Some(Verdict::of(Reason::SpoofedSource));
    }
    if source.is_link_local() || !policy::end(tables, work.slot, &source, &mut work.source) {
        work.source = End::default();
        find_destination(tables, work);
        return Some(refused(tables, work, Reason::NoRule));
    }
    // A device that is on a guarded port sends through it, and nobody else is the router.
    let elsewhere = work.source.flags & End::GUARDED != 0 || work.source.is_router() && !work.own();
    if elsewhere && !work.inner() {
        return Some(Verdict::of(Reason::SpoofedSource));
    }
    None
}

/// Control from an interface that is not guarded (a bridged uplink): it may be anybody's, except
/// a guarded device's or the router's.
#[inline(always)]
fn from_outside<B: Bytes + ?Sized, T: Tables + ?Sized>(
    bytes: &B,
    tables: &T,
    work: &mut Work,
) -> Result<(), Reason> {
    if work.packet.ethertype == number::ARP {
        guards::arp_claim(bytes, &work.packet)?;
        let claim = work.packet.source;
        let nobodys = claim.is_martian_source() && !claim.is_unspecified();
        return if nobodys || is_ours(tables, work, &claim) {
            Err(Reason::ArpSpoof)
        } else {
            Ok(())
        };
    }
    if work.packet.shape == Shape::Frame {
        return Ok(());
    }
    let source = work.packet.source;
    if is_ours(tables, work, &source) {
        return Err(Reason::SpoofedSource);
    }
    if work.packet.shape != Shape::Discovery {
        return Ok(());
    }
    let kind = work.packet.icmp >> 8;
    if source.is_v4() || kind == 137 {
        return Err(Reason::RogueRa);
    }
    if work.packet.hop_limit != 255 {
        return Err(Reason::NdSpoof);
    }
    if kind == 136 || kind == 135 && source.is_unspecified() {
        let Some(target) = bytes.read::<16>(work.packet.payload as usize + 8) else {
            return Err(Reason::Malformed);
        };
        let target = Address::v6(target);
        if is_ours(tables, work, &target) {
            return Err(Reason::NdSpoof);
        }
    }
    Ok(())
}

/// Whether an address is a guarded device's or the router's.
#[inline(always)]
fn is_ours<T: Tables + ?Sized>(tables: &T, work: &mut Work, address: &Address) -> bool {
    policy::end(tables, work.slot, address, &mut work.source)
        && (work.source.flags & End::GUARDED != 0 || work.source.is_router())
}

/// Quarantine and state, for a packet whose source is what it says; nothing when [`judge`] and
/// [`settle`] have to go on.
#[inline(always)]
pub fn admit<B: Bytes + ?Sized, T: Tables + ?Sized>(
    bytes: &B,
    tables: &T,
    work: &mut Work,
) -> Option<Verdict> {
    find_destination(tables, work);
    if work.fans() {
        fan(work);
    } else if !work.enters() {
        work.device = work.destination.device;
    }
    // Between two devices in quarantine nothing passes; with one, what rules keep.
    if work.source.flags & work.destination.flags & End::QUARANTINED != 0 {
        return Some(Verdict::of(Reason::Quarantined));
    }
    // No rule can name a link-local address.
    if work.packet.source.is_link_local() || work.packet.destination.is_link_local() {
        return Some(refused(tables, work, Reason::NoRule));
    }
    if work.packet.shape == Shape::Error {
        let quoted = packet::quoted(bytes, &work.packet);
        return Some(match quoted {
            Some(quoted) if is_related(tables, work, &quoted) => Verdict {
                counts: !work.inner(),
                ..Verdict::of(Reason::Related)
            },
            _ => refused(tables, work, Reason::MidFlow),
        });
    }
    if !has_flow(&work.packet) {
        // Membership and discovery that no guard has passed.
        return Some(refused(tables, work, Reason::NoRule));
    }
    // Policy speaks of who opened the flow, whoever sent this packet.
    work.reversed = 0;
    if work.fans() {
        return if opens(&work.packet) {
            None
        } else {
            Some(refused(tables, work, Reason::MidFlow))
        };
    }
    match flows::again(tables, &work.sought, work.at) {
        Some(found) if !flows::reopens(found.state, &work.packet) => {
            work.reversed = u32::from(flows::opener(found.state) != work.leg as usize);
            None
        }
        _ if opens(&work.packet) => None,
        _ if runs(&work.packet) && work.tick < tables.adopts_until(work.ifindex) => {
            work.adopts = 1;
            work.reversed = u32::from(work.packet.shape == Shape::Answer);
            None
        }
        _ => Some(refused(tables, work, Reason::MidFlow)),
    }
}

/// What receives a packet to a group behind this port: for a sender of the port's zone, or one
/// that is not behind a guarded port, the group and the zone; for another, the zone alone, which a
/// rule must name.
#[inline(always)]
fn fan(work: &mut Work) {
    if work.inner() && work.source.zone != work.zone {
        work.destination = End::default();
    }
    work.device = work.source.device;
    work.destination.zone = work.zone;
    // Nobody has worked out which pairs exist with this end.
    work.destination.to = u16::MAX;
}

/// For a flow that may be adopted: whether policy has to be asked once more, with the destination
/// as the one who opened it. Nobody saw who did.
#[inline(always)]
pub fn turns(work: &mut Work) -> bool {
    let turns = work.adopts != 0 && work.reversed == 0 && work.decision.reason != Reason::Rule;
    if turns {
        work.reversed = 1;
    }
    turns
}

/// Notes what the destination is; for what no rule can name, an end without names.
#[inline(always)]
fn find_destination<T: Tables + ?Sized>(tables: &T, work: &mut Work) {
    let destination = work.packet.destination;
    if destination.is_link_local()
        || !policy::end(tables, work.slot, &destination, &mut work.destination)
    {
        work.destination = End::default();
    }
}

/// Whether an ICMP error is about a packet of a live flow, sent to whom it is sent to, by somebody
/// who can have met that packet.
#[inline(always)]
fn is_related<T: Tables + ?Sized>(tables: &T, work: &mut Work, quoted: &packet::Quoted) -> bool {
    if quoted.source != work.packet.destination {
        return false;
    }
    let Some(settings) = tables.settings() else {
        return false;
    };
    work.sought.set(flows::quoted_key(quoted), settings.seed);
    match flows::find(tables, settings, &work.sought, work.tick) {
        Some(found) if is_current(tables, work, &found) => met(tables, work, quoted),
        _ => false,
    }
}

/// Whether the sender of an error can have met the packet that it quotes: any hop of the path may
/// have. But no path leads through a guarded port, unless a router is there; so from one only the
/// device that the packet was for tells of it, and nobody upsets the flows of its neighbours.
#[inline(always)]
fn met<T: Tables + ?Sized>(tables: &T, work: &mut Work, quoted: &packet::Quoted) -> bool {
    if !work.enters() || work.port & Port::ROUTER != 0 || work.packet.source == quoted.destination {
        return true;
    }
    // It may speak by another address of its own.
    let own = work.source.device != 0
        && policy::end(
            tables,
            work.slot,
            &quoted.destination,
            &mut work.destination,
        )
        && work.destination.device == work.source.device;
    find_destination(tables, work);
    own
}

/// Policy, for the flow that a packet is of or opens.
#[inline(always)]
pub fn judge<T: Tables + ?Sized>(tables: &T, work: &mut Work) {
    work.decision = if work.reversed == 0 {
        let service = work.packet.service();
        let (from, to) = (&work.source, &work.destination);
        policy::judge(tables, work.slot, from, to, service, work.tick, &work.place)
    } else {
        let service = asked_service(&work.packet);
        let (from, to) = (&work.destination, &work.source);
        policy::judge(tables, work.slot, from, to, service, work.tick, &work.place)
    };
}

/// Does what policy says to a flow that exists; nothing when [`open`] has to make one.
#[inline(always)]
pub fn settle<T: Tables + ?Sized>(tables: &T, work: &mut Work) -> Option<Verdict> {
    let Some(settings) = tables.settings() else {
        return Some(Verdict::of(Reason::NotReady));
    };
    let Decision {
        reason,
        rule,
        until,
    } = work.decision;
    let allowed = reason == Reason::Rule;
    if work.fans() {
        return Some(fanned(tables, work));
    }
    if work.adopts != 0 && !allowed {
        return Some(refused(tables, work, Reason::MidFlow));
    }
    let leg = work.leg as usize;
    // Its place, not the flow itself: before 6.3 the verifier refuses to read of the stack what is
    // there only when there is a flow.
    let (mut at, mut there, mut current) = (0, 0, false);
    if let Some(found) = flows::again(tables, &work.sought, work.at)
        && !flows::reopens(found.state, &work.packet)
    {
        at = work.at;
        there = found.flow.bind[bit(leg ^ 1)].load();
        current = is_current(tables, work, &found);
    }
    if !allowed && (is_cut_off(work) || !is_observed(tables, work)) {
        match flows::again(tables, &work.sought, at) {
            Some(found) => flows::end(tables, &found, &work.sought),
            None => work.denied = u32::from(work.at == 0 && is_final(work)),
        }
        return Some(Verdict::by_rule(reason, rule));
    }
    if !current && !is_still_its(tables, work, there) {
        return Some(refused(tables, work, Reason::MidFlow));
    }
    let bind = work.bind();
    let device = flows::account(settings, work.source.device, bind);
    let other = flows::account(settings, work.destination.device, there);
    let (Some(mine), Some(theirs)) = (
        tables.epoch(epoch(work.slot, device)),
        tables.epoch(epoch(work.slot, other)),
    ) else {
        return Some(Verdict::of(Reason::NotReady));
    };
    // Field by field: of a whole structure the compiler makes two, one of them on the stack.
    let opening = &mut work.opening;
    opening.leg = leg as u32;
    opening.opener = (leg as u32 ^ work.reversed) & 1;
    opening.bind = bind;
    opening.vlan = work.packet.vlan as u32;
    opening.device = device;
    opening.other = other;
    opening.bits = if work.adopts == 0 {
        0
    } else {
        state::ANSWERED | state::CONFIRMED
    };
    opening.rule = rule;
    opening.until = if allowed { until } else { NEVER };
    opening.stamp = mine.wrapping_add(theirs);
    opening.length = work.packet.length;
    opening.would = if allowed { 0 } else { reason as u32 };
    let found = flows::again(tables, &work.sought, at)?;
    let next = flows::follow(found.state, &work.packet, leg);
    if next == flows::NOWHERE {
        return Some(refused(tables, work, Reason::MidFlow));
    }
    let next = flows::with_vlan(next & !state::OBSERVED, leg, work.packet.vlan);
    let next = next | if allowed { 0 } else { state::OBSERVED };
    flows::renew(tables, &found, &work.sought, &work.opening, next, current);
    flows::count(&found, leg, work.packet.length, work.tick);
    work.held = 1;
    Some(if allowed {
        Verdict::of(Reason::Established)
    } else {
        Verdict::observed(reason, rule)
    })
}

/// Whether the destination's address still is of who has sent from there through a guarded port, as
/// far as that can be said without a packet of theirs.
#[inline(always)]
fn is_still_its<T: Tables + ?Sized>(tables: &T, work: &Work, there: u64) -> bool {
    if there >> 16 == 0 {
        return true;
    }
    if let Some(mac) = tables.mac(mac_key(work.slot, there >> 16)) {
        return mac.device == work.destination.device;
    }
    let zone = work.destination.zone as u32 & (MAX_ZONES - 1);
    let settings = tables.zone(work.slot * MAX_ZONES + zone).unwrap_or(0);
    work.destination.device == 0 && settings & zone::ADMIT_ANY != 0
}

/// What policy says of a packet to a group, for one of the ports that it leaves through.
#[inline(always)]
fn fanned<T: Tables + ?Sized>(tables: &T, work: &Work) -> Verdict {
    let Decision { reason, rule, .. } = work.decision;
    let counts = !work.inner();
    if reason == Reason::Rule {
        Verdict {
            counts,
            ..Verdict::by_rule(reason, rule)
        }
    } else if !is_cut_off(work) && is_observed(tables, work) {
        Verdict::observed(reason, rule)
    } else {
        Verdict::by_rule(reason, rule)
    }
}

/// Opens the flow that policy allows, or lets pass.
#[inline(always)]
pub fn open<T: Tables + ?Sized>(tables: &T, work: &mut Work) -> Verdict {
    let Some(settings) = tables.settings() else {
        return Verdict::of(Reason::NotReady);
    };
    let Decision { reason, rule, .. } = work.decision;
    let room = flows::open(
        tables,
        settings,
        &work.sought,
        &work.opening,
        &work.best,
        work.tick,
    );
    work.held = u32::from(room.is_ok());
    if reason != Reason::Rule {
        return Verdict::observed(reason, rule);
    }
    match room {
        Ok(()) => Verdict::by_rule(Reason::Rule, rule),
        Err(reason) => dropped(tables, work, reason),
    }
}

/// A second look at what is dropped by place, quarantine, state, policy or room: between the router
/// and those who may always reach it, it passes as control. So may what they need for it, ARP and
/// neighbour discovery. No flow is opened: it holds however full the tables are.
///
/// No policy has a say in this, so neither has the device that a policy takes a sender for.
#[inline(always)]
pub fn spare<B: Bytes + ?Sized, T: Tables + ?Sized>(
    bytes: &B,
    tables: &T,
    work: &mut Work,
    verdict: Verdict,
) -> Verdict {
    let count = match tables.settings() {
        Some(settings) => settings.failsafe,
        None => 0,
    };
    let by_form = matches!(
        verdict.reason,
        Reason::Malformed
            | Reason::UnknownEthertype
            | Reason::IpOptions
            | Reason::Fragment
            | Reason::ExtensionHeader
            | Reason::BadTcpFlags
            | Reason::NotReady
    );
    let aside = !work.enters() && !work.own() || work.packet.fragment.is_first();
    if count == 0 || verdict.reason.passes() || by_form || aside {
        return verdict;
    }
    let (source, destination) = (work.packet.source, work.packet.destination);
    let (mut other, mut router) = if work.enters() {
        (source, destination)
    } else {
        (destination, source)
    };
    let service = if work.packet.ethertype == number::ARP {
        if guards::arp_claim(bytes, &work.packet).is_err() {
            return verdict;
        }
        None
    } else if work.packet.shape == Shape::Discovery {
        let Some(target) = bytes.read::<16>(work.packet.payload as usize + 8) else {
            return verdict;
        };
        let target = Address::v6(target);
        let asks = match work.packet.icmp >> 8 {
            135 => true,
            136 => false,
            _ => return verdict,
        };
        if work.packet.hop_limit != 255 || source.is_v4() {
            return verdict;
        }
        if asks == work.enters() {
            // Who asks for the router, or whom the router tells of itself: of both it is the
            // router's address that is spoken of.
            router = target;
        } else if asks {
            // The router asks for somebody, through a group.
            other = target;
        } else if target != source {
            return verdict;
        }
        None
    } else if has_flow(&work.packet) {
        Some(if work.enters() {
            work.packet.service()
        } else {
            asked_service(&work.packet)
        })
    } else {
        return verdict;
    };
    let is_router =
        work.own() || guards::is_the_routers(tables, work.slot, &router, &mut work.destination);
    // Who has no address yet asks whether one is free: that the router's is not, it may not say.
    if !is_router || other.is_martian_source() || other.is_unspecified() {
        return verdict;
    }
    for index in 0..FAILSAFES {
        if index >= count {
            break;
        }
        if let Some(entry) = tables.failsafe(index)
            && entry.has(&other)
            && service.is_none_or(|service| (entry.first..=entry.last).contains(&service))
        {
            return Verdict::of(Reason::Control);
        }
    }
    verdict
}

/// Whether a packet may open a flow.
#[inline(always)]
fn opens(packet: &Packet) -> bool {
    match packet.shape {
        Shape::Tcp => packet.flags & (tcp::SYN | tcp::ACK | tcp::RST | tcp::FIN) == tcp::SYN,
        Shape::Answer => false,
        _ => true,
    }
}

/// Whether a packet shows that its flow has been running.
#[inline(always)]
fn runs(packet: &Packet) -> bool {
    match packet.shape {
        Shape::Tcp => packet.flags & (tcp::SYN | tcp::ACK | tcp::RST | tcp::FIN) == tcp::ACK,
        Shape::Answer => true,
        _ => false,
    }
}

/// The service that the opener of a flow asked for, read from the other end's packet.
#[inline(always)]
fn asked_service(packet: &Packet) -> u32 {
    let low = match packet.shape {
        Shape::Tcp | Shape::Udp => packet.source_port,
        Shape::Query | Shape::Answer => (packet::query_kind(packet) as u16) << 8,
        _ => packet.icmp,
    };
    (packet.protocol as u32) << 16 | low as u32
}

/// A drop by policy or state, unless mode observe lets it pass. With an end in quarantine that is the
/// reason: it comes before these.
#[inline(always)]
fn refused<T: Tables + ?Sized>(tables: &T, work: &Work, reason: Reason) -> Verdict {
    if is_cut_off(work) {
        Verdict::of(Reason::Quarantined)
    } else {
        dropped(tables, work, reason)
    }
}

/// A drop, unless mode observe lets it pass.
#[inline(always)]
fn dropped<T: Tables + ?Sized>(tables: &T, work: &Work, reason: Reason) -> Verdict {
    if is_observed(tables, work) {
        Verdict::observed(reason, 0)
    } else {
        Verdict::of(reason)
    }
}

/// Whether an end is in quarantine.
#[inline(always)]
fn is_cut_off(work: &Work) -> bool {
    (work.source.flags | work.destination.flags) & End::QUARANTINED != 0
}

/// Whether every end that is a zone with ports is in mode observe, and one is.
#[inline(always)]
fn is_observed<T: Tables + ?Sized>(tables: &T, work: &Work) -> bool {
    const EITHER: u32 = zone::HAS_PORTS | zone::OBSERVE;
    let (mut ends, mut observing) = (0, 0);
    for end in [&work.source, &work.destination] {
        let zone = end.zone as u32 & (MAX_ZONES - 1);
        if zone != 0
            && let Some(settings) = tables.zone(work.slot * MAX_ZONES + zone)
            && settings & zone::HAS_PORTS != 0
        {
            ends += 1;
            observing += u32::from(settings & EITHER == EITHER);
        }
    }
    ends != 0 && ends == observing
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_way_with_a_tag_is_found_and_no_other() {
        const OTHERS: [u64; 6] = [0, 1, 0x7fff, 0x8001, 0xfffd, 0xffff];
        for wanted in [0, 1, 3, 0x8001, 0xffff] {
            for other in OTHERS.into_iter().filter(|it| *it != wanted) {
                for has in 0..1u32 << DENIAL_WAYS {
                    let ways = 0..DENIAL_WAYS;
                    let tag = |way| if has >> way & 1 != 0 { wanted } else { other };
                    let tags = ways.map(|way| tag(way) << (way * 16)).sum();
                    let found = lanes(tags, wanted);
                    assert_eq!(found != 0, has != 0, "{wanted:x} in {tags:x}");
                    if has != 0 {
                        assert_eq!(first(found), has.trailing_zeros(), "{wanted:x} in {tags:x}");
                    }
                }
            }
        }
    }
}
