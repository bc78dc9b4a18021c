//! Maps and entry points. Map names are what the daemon and the pins call them.
#![expect(
    unsafe_code,
    reason = "packet memory, map values and helpers are raw pointers here"
)]

use aya_ebpf::{
    bindings::{
        __sk_buff, BPF_ANY, BPF_NOEXIST, TC_ACT_SHOT, TC_ACT_UNSPEC, bpf_fib_lookup, xdp_action,
        xdp_md,
    },
    btf_maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf, lpm_trie::Key},
    helpers,
    macros::{btf_map, classifier, xdp},
    programs::{TcContext, XdpContext},
};
use wardline_ebpf::{
    abi::{
        Address, AddressKey, Bucket, Counter, DENIAL_SETS, DENIAL_WAYS, DENIALS_AT, Denial,
        EPOCH_CELLS, End, Event, EventKey, EventLimit, FAILSAFES, Failsafe, Forwarding, Fragment,
        FragmentKey, Interval, Learned, MAX_IFINDEX, MAX_ZONES, Mac, Port, PrefixKey, Quota,
        Reason, Routes, Seen, Set, Settings, TICK_SHIFT, gauge, mac_key,
    },
    cell::{Cell32, Cell64, opaque},
    decide::{self, Verdict, Work},
    flows, forward,
    packet::{self, Bytes, REACH, Shape, number},
    tables::Tables,
};

// Sizes that depend on configuration are set by the daemon before it loads. Tables of policy take
// memory as they fill; what packets write is allocated at load.

const GROWS: usize = aya_ebpf::bindings::BPF_F_NO_PREALLOC as usize;
/// What nobody maps, but what is mappable begins at a page: no entry is in more lines of the cache
/// than it has to be.
const ALIGNED: usize = aya_ebpf::bindings::BPF_F_MMAPABLE as usize;

#[btf_map]
static ACTIVE: Array<u32, 1> = Array::new();
#[btf_map]
static REVISIONS: Array<u64, 2> = Array::new();
#[btf_map]
static GENERATIONS: Array<u64, 2> = Array::new();
#[btf_map]
static SETTINGS: Array<Settings, 1> = Array::new();
#[btf_map]
static FAILSAFE: Array<Failsafe, { FAILSAFES as usize }> = Array::new();
#[btf_map]
static FORWARDING: Array<Forwarding, { MAX_IFINDEX as usize }> = Array::new();
#[btf_map]
static ROUTES: Array<Routes, 1> = Array::new();
#[btf_map]
static FORWARDED: PerCpuArray<Counter, 1> = PerCpuArray::new();
#[btf_map]
static PORTS: Array<Port, { (MAX_IFINDEX * 2) as usize }> = Array::new();
#[btf_map]
static ZONES: Array<u32, { (MAX_ZONES * 2) as usize }> = Array::new();
#[btf_map]
static PLACES: HashMap<u64, u32, 65536, GROWS> = HashMap::new();
#[btf_map]
static MACS: HashMap<u64, Mac, 1024, GROWS> = HashMap::new();
#[btf_map]
static ADDRESSES: HashMap<AddressKey, End, 1024, GROWS> = HashMap::new();
#[btf_map]
static PREFIXES: LpmTrie<PrefixKey, End, 1024> = LpmTrie::new();
#[btf_map]
static DEVICES: HashMap<u32, End, 1024, GROWS> = HashMap::new();
#[btf_map]
static PAIRS: HashMap<u64, Set, 1024, GROWS> = HashMap::new();
#[btf_map]
static INTERVALS: Array<Interval, 1024> = Array::new();
#[btf_map]
static EPOCHS: Array<u32, { (EPOCH_CELLS * 2) as usize }> = Array::new();

#[btf_map]
static FLOWS: Array<Bucket, 64, ALIGNED> = Array::new();
#[btf_map]
static DENIED: PerCpuArray<
    [Denial; DENIALS_AT],
    { (DENIAL_SETS * DENIAL_WAYS) as usize / DENIALS_AT },
> = PerCpuArray::new();
#[btf_map]
static REFUSED: PerCpuArray<[Cell64; DENIAL_SETS as usize], 1> = PerCpuArray::new();
#[btf_map]
static OPENED: Array<[Cell32; DENIAL_SETS as usize], 1> = Array::new();
#[btf_map]
static QUOTAS: Array<Quota, 1024> = Array::new();
#[btf_map]
static GAUGES: Array<Cell32, { gauge::COUNT as usize }> = Array::new();
#[btf_map]
static FRAGMENTS: LruHashMap<FragmentKey, Fragment, 8192> = LruHashMap::new();
#[btf_map]
static ADOPTION: Array<u32, { MAX_IFINDEX as usize }> = Array::new();
#[btf_map]
static LEARNED: LruHashMap<Address, Learned, 1024> = LruHashMap::new();
#[btf_map]
static SEEN: Array<Seen, 1024> = Array::new();

#[btf_map]
static REASONS: PerCpuArray<Counter, { Reason::COUNT as usize }> = PerCpuArray::new();
#[btf_map]
static RULES: PerCpuArray<Counter, 1024> = PerCpuArray::new();
#[btf_map]
static EVENTS: RingBuf<Event, { 1 << 20 }> = RingBuf::new();
#[btf_map]
static EVENT_LIMITS: LruHashMap<EventKey, EventLimit, 16384> = LruHashMap::new();

#[btf_map]
static CLOCK: Array<u64, 1> = Array::new();
#[btf_map]
static DESKS: PerCpuArray<Desk, 2> = PerCpuArray::new();

/// The maps, as [`Tables`].
struct Maps;

/// What a map's lookup found, as a reference.
macro_rules! found {
    ($lookup:expr) => {
        // SAFETY: the kernel hands out a pointer to a whole, aligned value or none; values are
        // integers, and what programs write concurrently is atomic.
        $lookup.map(|value| unsafe { &*value })
    };
}

impl Tables for Maps {
    #[inline(always)]
    fn active(&self) -> Option<u32> {
        let active = ACTIVE.get_ptr(0)?;
        // SAFETY: as above; volatile, so that it is read once.
        let active = unsafe { core::ptr::read_volatile(active) };
        // 0 until the first policy takes force, then 1 + slot.
        active.checked_sub(1)
    }

    #[inline(always)]
    fn settings(&self) -> Option<&Settings> {
        found!(SETTINGS.get_ptr(0))
    }

    #[inline(always)]
    fn failsafe(&self, index: u32) -> Option<&Failsafe> {
        found!(FAILSAFE.get_ptr(index))
    }

    #[inline(always)]
    fn tick(&self) -> u32 {
        (jiffies() >> TICK_SHIFT) as u32
    }

    #[inline(always)]
    fn port(&self, index: u32) -> Option<&Port> {
        found!(PORTS.get_ptr(index))
    }

    #[inline(always)]
    fn forwarding(&self, ifindex: u32) -> Option<&Forwarding> {
        found!(FORWARDING.get_ptr(ifindex))
    }

    #[inline(always)]
    fn routes(&self) -> Option<&Routes> {
        found!(ROUTES.get_ptr(0))
    }

    #[inline(always)]
    fn place(&self, key: u64) -> Option<u32> {
        found!(PLACES.get_ptr(key)).copied()
    }

    #[inline(always)]
    fn zone(&self, index: u32) -> Option<u32> {
        found!(ZONES.get_ptr(index)).copied()
    }

    #[inline(always)]
    fn mac(&self, key: u64) -> Option<&Mac> {
        found!(MACS.get_ptr(key))
    }

    #[inline(always)]
    fn address(&self, key: &AddressKey) -> Option<&End> {
        found!(ADDRESSES.get_ptr(key))
    }

    #[inline(always)]
    fn prefix(&self, key: &PrefixKey) -> Option<&End> {
        PREFIXES.get(&Key {
            prefix_len: 160,
            data: *key,
        })
    }

    #[inline(always)]
    fn device(&self, key: u32) -> Option<&End> {
        found!(DEVICES.get_ptr(key))
    }

    #[inline(always)]
    fn pair(&self, key: u64) -> Option<&Set> {
        found!(PAIRS.get_ptr(key))
    }

    #[inline(always)]
    fn interval(&self, index: u32) -> Option<&Interval> {
        found!(INTERVALS.get_ptr(index))
    }

    #[inline(always)]
    fn epoch(&self, index: u32) -> Option<u32> {
        found!(EPOCHS.get_ptr(index)).copied()
    }

    #[inline(always)]
    fn bucket(&self, index: u32) -> Option<&Bucket> {
        found!(FLOWS.get_ptr(index))
    }

    #[inline(always)]
    fn generation(&self, slot: u32) -> Option<u64> {
        found!(GENERATIONS.get_ptr(slot)).copied()
    }

    #[inline(always)]
    fn denial(&self, set: u32, way: u32) -> Option<&Denial> {
        let index = (set * DENIAL_WAYS + way) as usize;
        let denials: &[Denial; DENIALS_AT] = found!(DENIED.get_ptr((index / DENIALS_AT) as u32))?;
        // Not before the lookup is known to have found it.
        denials.get(opaque(index % DENIALS_AT))
    }

    #[inline(always)]
    fn refused(&self, set: u32) -> Option<&Cell64> {
        let tags: &[Cell64; DENIAL_SETS as usize] = found!(REFUSED.get_ptr(0))?;
        tags.get(opaque(set as usize))
    }

    #[inline(always)]
    fn opened(&self, set: u32) -> Option<&Cell32> {
        let opened: &[Cell32; DENIAL_SETS as usize] = found!(OPENED.get_ptr(0))?;
        opened.get(opaque(set as usize))
    }

    #[inline(always)]
    fn hold(&self, denial: &Denial, packets: u32) {
        let key = EventKey {
            device: denial.device.load(),
            rule: denial.rule.load(),
            reason: denial.reason.load(),
            ifindex: 0,
        };
        if packets != 0
            && let Some(limit) = found!(EVENT_LIMITS.get_ptr(key))
        {
            limit.suppressed.add(packets as u64);
        }
    }

    #[inline(always)]
    fn credit(&self, rule: u32, packets: u32, bytes: u64) {
        add(RULES.get_ptr_mut(rule), packets as u64, bytes);
    }

    #[inline(always)]
    fn lock(&self, bucket: &Bucket) {
        // SAFETY: the lock is where the map's type information says.
        unsafe { helpers::generated::bpf_spin_lock((&raw const bucket.lock).cast_mut().cast()) };
    }

    #[inline(always)]
    fn unlock(&self, bucket: &Bucket) {
        // SAFETY: as in `lock`.
        unsafe { helpers::generated::bpf_spin_unlock((&raw const bucket.lock).cast_mut().cast()) };
    }

    #[inline(always)]
    fn quota(&self, account: u32) -> Option<&Quota> {
        found!(QUOTAS.get_ptr(account))
    }

    #[inline(always)]
    fn gauge(&self, cell: u32) -> Option<&Cell32> {
        found!(GAUGES.get_ptr(cell))
    }

    #[inline(always)]
    fn learned(&self, address: &Address) -> Option<&Learned> {
        found!(LEARNED.get_ptr(address))
    }

    #[inline(always)]
    fn learn(&self, address: &Address, device: u32, tick: u32) -> bool {
        let learned = Learned {
            device: Cell32::new(device),
            last: Cell32::new(tick),
        };
        LEARNED.insert(address, &learned, BPF_ANY as u64).is_ok()
    }

    #[inline(always)]
    fn fragment(&self, key: &FragmentKey) -> Option<&Fragment> {
        found!(FRAGMENTS.get_ptr(key))
    }

    #[inline(always)]
    fn note_fragment(&self, key: &FragmentKey, fragment: &Fragment) -> bool {
        FRAGMENTS.insert(key, fragment, BPF_ANY as u64).is_ok()
    }

    #[inline(always)]
    fn forget_fragment(&self, key: &FragmentKey) {
        // It may have been put out, or another processor was faster.
        let _gone = FRAGMENTS.remove(key);
    }

    #[inline(always)]
    fn adopts_until(&self, ifindex: u32) -> u32 {
        found!(ADOPTION.get_ptr(ifindex)).copied().unwrap_or(0)
    }

    #[inline(always)]
    fn seen(&self, device: u32) -> Option<&Seen> {
        found!(SEEN.get_ptr(device))
    }
}

/// The packet's memory between two addresses that the kernel gave.
struct Frame {
    start: usize,
    end: usize,
    length: usize,
}

impl Bytes for Frame {
    #[inline(always)]
    fn read<const N: usize>(&self, at: usize) -> Option<&[u8; N]> {
        let mut at = at;
        // SAFETY: copies a register to itself. It keeps the compiler from comparing another number
        // than the one that is added: before 6.10 the verifier does not know how they are related.
        unsafe { core::arch::asm!("{0} = {0}", inout(reg) at) };
        // The verifier wants to see that an offset can't be large.
        if at > REACH {
            return None;
        }
        let mut place = self.start + at;
        // SAFETY: as above, for the sum that is compared and the one that is read from.
        unsafe { core::arch::asm!("{0} = {0}", inout(reg) place) };
        if place + N > self.end {
            return None;
        }
        // SAFETY: the comparison above is the bounds check; bytes have no alignment.
        Some(unsafe { &*(place as *const [u8; N]) })
    }

    #[inline(always)]
    fn len(&self) -> usize {
        self.length
    }
}

/// One packet's work: what is known of it, and the verdict.
#[repr(C)]
struct Desk {
    work: Work,
    verdict: Verdict,
}

/// Desks: what enters and what leaves has its own, and each processor.
const ENTERING: u32 = 0;
const LEAVING: u32 = 1;

#[inline(always)]
fn desk(index: u32) -> Option<&'static mut Desk> {
    let desk = DESKS.get_ptr_mut(index)?;
    // SAFETY: this processor's own value, and a program is not interrupted by another of its kind.
    Some(unsafe { &mut *desk })
}

/// What a step answers when the next has to go on; no reason's number.
const GO_ON: u32 = u32::MAX;

/// Judges what enters, as soon as the driver has it.
#[xdp]
fn xdp_ingress(context: XdpContext) -> u32 {
    let Some(desk) = desk(ENTERING) else {
        return xdp_action::XDP_DROP;
    };
    // SAFETY: the context is the kernel's.
    let ifindex = unsafe { (*context.ctx).ingress_ifindex };
    let started = decide::start_ingress(&xdp_frame(&context), None, ifindex, &Maps, &mut desk.work);
    let mut reason = note(&mut desk.verdict, started);
    if reason == GO_ON {
        reason = xdp_enter(context.ctx);
    }
    if reason == GO_ON {
        reason = xdp_admit(context.ctx);
    }
    let reason = conclude(reason, ENTERING, || xdp_spare(context.ctx));
    #[cfg(feature = "log")]
    aya_log_ebpf::debug!(&context, "interface {}: reason {}", ifindex, reason);
    if !is_pass(reason) {
        xdp_action::XDP_DROP
    } else if reason == Reason::Established as u32
        && forward::may(&xdp_frame(&context), &Maps, &desk.work)
    {
        xdp_forward(context.ctx)
    } else {
        xdp_action::XDP_PASS
    }
}

/// Judges what enters where XDP can't.
#[classifier]
fn tc_ingress(context: TcContext) -> i32 {
    let Some(desk) = desk(ENTERING) else {
        return TC_ACT_SHOT;
    };
    // SAFETY: the context is the kernel's.
    let ifindex = unsafe { (*context.skb.skb).ifindex };
    let started = match pull(&context) {
        Ok(tag) => {
            let frame = tc_frame(&context);
            decide::start_ingress(&frame, tag, ifindex, &Maps, &mut desk.work)
        }
        Err(reason) => Some(decide::refuse(ifindex, reason, &Maps, &mut desk.work)),
    };
    let mut reason = note(&mut desk.verdict, started);
    if reason == GO_ON {
        reason = tc_enter(context.skb.skb);
    }
    if reason == GO_ON {
        reason = tc_admit(context.skb.skb);
    }
    let reason = conclude(reason, ENTERING, || tc_spare(context.skb.skb));
    #[cfg(feature = "log")]
    aya_log_ebpf::debug!(&context, "interface {}: reason {}", ifindex, reason);
    if is_pass(reason) {
        TC_ACT_UNSPEC
    } else {
        TC_ACT_SHOT
    }
}

/// Judges what leaves.
#[classifier]
fn tc_egress(context: TcContext) -> i32 {
    let Some(desk) = desk(LEAVING) else {
        return TC_ACT_SHOT;
    };
    // SAFETY: the context is the kernel's.
    let (ifindex, from) = unsafe {
        (
            (*context.skb.skb).ifindex,
            (*context.skb.skb).ingress_ifindex,
        )
    };
    let started = match pull(&context) {
        Ok(tag) => {
            let frame = tc_frame(&context);
            decide::start_egress(&frame, tag, ifindex, from, &Maps, &mut desk.work)
        }
        Err(reason) => Some(decide::refuse(ifindex, reason, &Maps, &mut desk.work)),
    };
    let mut reason = note(&mut desk.verdict, started);
    if reason == GO_ON {
        reason = tc_leave(context.skb.skb);
    }
    if reason == GO_ON {
        reason = tc_leave_admit(context.skb.skb);
    }
    let reason = conclude(reason, LEAVING, || tc_leave_spare(context.skb.skb));
    #[cfg(feature = "log")]
    aya_log_ebpf::debug!(&context, "interface {}: reason {}", ifindex, reason);
    if is_pass(reason) {
        TC_ACT_UNSPEC
    } else {
        TC_ACT_SHOT
    }
}

/// Place and control at XDP; answers a reason's number, or [`GO_ON`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn xdp_enter(context: *mut xdp_md) -> u32 {
    let Some(desk) = desk(ENTERING) else { return 0 };
    note(
        &mut desk.verdict,
        decide::enter(&xdp_frame(&XdpContext::new(context)), &Maps, &mut desk.work),
    )
}

/// Quarantine and state at XDP; answers a reason's number, or [`GO_ON`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn xdp_admit(context: *mut xdp_md) -> u32 {
    let Some(desk) = desk(ENTERING) else { return 0 };
    note(
        &mut desk.verdict,
        decide::admit(&xdp_frame(&XdpContext::new(context)), &Maps, &mut desk.work),
    )
}

/// Place and control at TC ingress; answers a reason's number, or [`GO_ON`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tc_enter(context: *mut __sk_buff) -> u32 {
    let Some(desk) = desk(ENTERING) else { return 0 };
    note(
        &mut desk.verdict,
        decide::enter(&tc_frame(&TcContext::new(context)), &Maps, &mut desk.work),
    )
}

/// Quarantine and state at TC ingress; answers a reason's number, or [`GO_ON`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tc_admit(context: *mut __sk_buff) -> u32 {
    let Some(desk) = desk(ENTERING) else { return 0 };
    note(
        &mut desk.verdict,
        decide::admit(&tc_frame(&TcContext::new(context)), &Maps, &mut desk.work),
    )
}

/// Place and control at TC egress; answers a reason's number, or [`GO_ON`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tc_leave(context: *mut __sk_buff) -> u32 {
    let Some(desk) = desk(LEAVING) else { return 0 };
    note(
        &mut desk.verdict,
        decide::leave(&tc_frame(&TcContext::new(context)), &Maps, &mut desk.work),
    )
}

/// Quarantine and state at TC egress; answers a reason's number, or [`GO_ON`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tc_leave_admit(context: *mut __sk_buff) -> u32 {
    let Some(desk) = desk(LEAVING) else { return 0 };
    note(
        &mut desk.verdict,
        decide::admit(&tc_frame(&TcContext::new(context)), &Maps, &mut desk.work),
    )
}

/// A second look at a drop at XDP; answers a reason's number.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn xdp_spare(context: *mut xdp_md) -> u32 {
    let Some(desk) = desk(ENTERING) else { return 0 };
    let frame = xdp_frame(&XdpContext::new(context));
    let verdict = decide::spare(&frame, &Maps, &mut desk.work, desk.verdict);
    note(&mut desk.verdict, Some(verdict))
}

/// A second look at a drop at TC ingress; answers a reason's number.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tc_spare(context: *mut __sk_buff) -> u32 {
    let Some(desk) = desk(ENTERING) else { return 0 };
    let frame = tc_frame(&TcContext::new(context));
    let verdict = decide::spare(&frame, &Maps, &mut desk.work, desk.verdict);
    note(&mut desk.verdict, Some(verdict))
}

/// A second look at a drop at TC egress; answers a reason's number.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tc_leave_spare(context: *mut __sk_buff) -> u32 {
    let Some(desk) = desk(LEAVING) else { return 0 };
    let frame = tc_frame(&TcContext::new(context));
    let verdict = decide::spare(&frame, &Maps, &mut desk.work, desk.verdict);
    note(&mut desk.verdict, Some(verdict))
}

/// Sends a packet that may go on in the driver to its next hop, or up the stack; answers an action.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn xdp_forward(context: *mut xdp_md) -> u32 {
    let Some(desk) = desk(ENTERING) else {
        return xdp_action::XDP_DROP;
    };
    let work = &desk.work;
    // Before anything is asked: what changes meanwhile makes it old.
    let change = forward::change(&Maps);
    let hop = match forward::known(&Maps, work, change) {
        Some(hop) => hop,
        None => {
            let hop = next_hop(context, work);
            // What the stack has to do (a neighbour to be asked for, a packet too long) it does each
            // time: only what leads somewhere is remembered.
            if hop == 0 || !forward::leads(&Maps, work, hop) {
                return xdp_action::XDP_PASS;
            }
            forward::remember(&Maps, work, hop, change);
            hop
        }
    };
    let ifindex = hop as u32 & 0xffff;
    let Some(own) = Maps.forwarding(ifindex).map(|exit| exit.mac) else {
        return xdp_action::XDP_PASS;
    };
    if !forward::leads(&Maps, work, hop) || !rewrite(context, work, hop >> 16, own) {
        return xdp_action::XDP_PASS;
    }
    count(FORWARDED.get_ptr_mut(0), work.packet.length as u64);
    // SAFETY: takes no pointer.
    unsafe { helpers::generated::bpf_redirect(ifindex, 0) as u32 }
}

/// Asks the routing table for the next hop, as `mac << 16 | ifindex`; 0: the stack must be asked.
#[inline(always)]
fn next_hop(context: *mut xdp_md, work: &Work) -> u64 {
    let packet = &work.packet;
    let frame = xdp_frame(&XdpContext::new(context));
    let Some(head) = frame.read::<4>(14) else {
        return 0;
    };
    // SAFETY: integers, for which zero is a value.
    let mut asked = Aligned(unsafe { core::mem::zeroed() });
    let asked = &mut asked.0;
    asked.l4_protocol = packet.protocol;
    asked.sport = packet.source_port.to_be();
    asked.dport = packet.destination_port.to_be();
    asked.ifindex = work.ifindex;
    asked.__bindgen_anon_1.tot_len = packet.end.wrapping_sub(14);
    let (source, destination) = (packet.source.0, packet.destination.0);
    if packet.ethertype == number::IPV4 {
        asked.family = AF_INET;
        asked.__bindgen_anon_2.tos = head[1];
        asked.__bindgen_anon_3.ipv4_src = (source[1] >> 32) as u32;
        asked.__bindgen_anon_4.ipv4_dst = (destination[1] >> 32) as u32;
    } else {
        asked.family = AF_INET6;
        let flow_info = u32::from_be_bytes(*head) & 0x0fff_ffff;
        asked.__bindgen_anon_2.flowinfo = flow_info.to_be();
        let words = |it: [u64; 2]| {
            [
                it[0] as u32,
                (it[0] >> 32) as u32,
                it[1] as u32,
                (it[1] >> 32) as u32,
            ]
        };
        asked.__bindgen_anon_3.ipv6_src = words(source);
        asked.__bindgen_anon_4.ipv6_dst = words(destination);
    }
    // SAFETY: the context is the kernel's, the structure ours and as long as we say.
    let answer = unsafe {
        helpers::generated::bpf_fib_lookup(
            context.cast(),
            &raw mut *asked,
            size_of::<bpf_fib_lookup>() as i32,
            0,
        )
    };
    if answer != 0 || asked.ifindex >= MAX_IFINDEX {
        return 0;
    }
    // The receiver's MAC ends the structure, and the verifier wants aligned reads.
    // SAFETY: 64 bytes, of which these are the last eight, as aligned as the whole.
    let last = unsafe { (&raw const *asked).cast::<u64>().add(7).read() };
    u64::from_be(last) << 16 | asked.ifindex as u64
}

/// What the routing table is asked, where its last eight bytes can be read at once.
#[repr(C, align(8))]
struct Aligned(bpf_fib_lookup);

const _: () = assert!(size_of::<Aligned>() == 64);

/// Rewrites a frame for its next hop: MACs, and one hop less to live; false when it is out of reach.
#[inline(always)]
fn rewrite(context: *mut xdp_md, work: &Work, to: u64, from: u64) -> bool {
    let context = XdpContext::new(context);
    let (start, end) = (context.data(), context.data_end());
    if start + 14 + 20 > end {
        return false;
    }
    let [_, _, a, b, c, d, e, f] = to.to_be_bytes();
    let [_, _, g, h, i, j, k, l] = from.to_be_bytes();
    // SAFETY: 34 bytes were found to be there, and bytes have no alignment.
    unsafe {
        (start as *mut [u8; 12]).write([a, b, c, d, e, f, g, h, i, j, k, l]);
        let ip = (start + 14) as *mut u8;
        if work.packet.ethertype == number::IPV4 {
            let hops = ip.add(8);
            hops.write(hops.read().wrapping_sub(1));
            // RFC 1141: the checksum grows by what the sum of the header loses.
            let check = ip.add(10) as *mut [u8; 2];
            let sum = u16::from_be_bytes(check.read()) as u32 + 0x0100;
            check.write(((sum + (sum >= 0xffff) as u32) as u16).to_be_bytes());
        } else {
            let hops = ip.add(7);
            hops.write(hops.read().wrapping_sub(1));
        }
    }
    true
}

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// Policy; answers the desk that it was asked for.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn judge(index: u32) -> u32 {
    if let Some(desk) = desk(index) {
        decide::judge(&Maps, &mut desk.work);
    }
    index
}

/// Whether policy has to be asked once more.
#[inline(always)]
fn turns(index: u32) -> bool {
    match desk(index) {
        Some(desk) => decide::turns(&mut desk.work),
        None => false,
    }
}

/// Notes the first part of a packet that passes; answers a reason's number.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn note_first(index: u32) -> u32 {
    let Some(desk) = desk(index) else { return 0 };
    let verdict = decide::note_first(&Maps, &desk.work, desk.verdict);
    note(&mut desk.verdict, Some(verdict))
}

/// Remembers what policy has refused; answers the desk that it was asked for.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn note_denial(index: u32) -> u32 {
    if let Some(desk) = desk(index) {
        decide::remember(&Maps, &desk.work, &desk.verdict);
    }
    index
}

/// Does what policy says to a flow that exists; answers a reason's number, or [`GO_ON`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn settle(index: u32) -> u32 {
    let Some(desk) = desk(index) else { return 0 };
    note(&mut desk.verdict, decide::settle(&Maps, &mut desk.work))
}

/// Opens a flow; answers a reason's number.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn open(index: u32) -> u32 {
    let Some(desk) = desk(index) else { return 0 };
    note(&mut desk.verdict, Some(decide::open(&Maps, &mut desk.work)))
}

/// Writes a step's verdict down; answers its reason's number, or [`GO_ON`].
#[inline(always)]
fn note(place: &mut Verdict, verdict: Option<Verdict>) -> u32 {
    match verdict {
        Some(verdict) => {
            *place = verdict;
            verdict.reason as u32
        }
        None => GO_ON,
    }
}

/// The steps that need no packet, then a second look at a drop where there is somebody to spare;
/// counts and tells; answers the reason's number.
#[inline(always)]
fn conclude(reason: u32, index: u32, spare: impl FnOnce() -> u32) -> u32 {
    let mut reason = reason;
    if reason == GO_ON {
        judge(index);
        if turns(index) {
            judge(index);
        }
        reason = settle(index);
    }
    if reason == GO_ON {
        reason = open(index);
    }
    if !is_pass(reason)
        && let Some(settings) = Maps.settings()
        && settings.failsafe != 0
    {
        reason = spare();
    }
    let Some(desk) = desk(index) else { return 0 };
    if is_pass(reason) && desk.work.packet.fragment.is_first() {
        reason = note_first(index);
    }
    if !is_pass(reason) && desk.work.denied != 0 {
        note_denial(index);
    }
    if desk.verdict.counts {
        let length = desk.work.packet.length as u64;
        count(REASONS.get_ptr_mut(reason), length);
        if desk.verdict.rule != 0 && desk.work.held == 0 {
            count(RULES.get_ptr_mut(desk.verdict.rule), length);
        }
        if desk.verdict.tells {
            tell(index);
        }
    }
    reason
}

/// Whether the number of a reason, as the steps hand it on, lets a packet pass.
#[inline(always)]
fn is_pass(reason: u32) -> bool {
    reason >= Reason::Rule as u32 && reason < Reason::COUNT
}

/// Tells the daemon the kernel's time in its own unit: run by `BPF_PROG_TEST_RUN`.
#[classifier]
fn clock(_context: TcContext) -> i32 {
    if let Some(clock) = CLOCK.get_ptr_mut(0) {
        // SAFETY: a whole, aligned value, which only this program writes.
        unsafe { *clock = jiffies() };
    }
    0
}

/// Ends flows that have timed out, in one bucket for each run: run by `BPF_PROG_TEST_RUN`.
#[classifier]
fn sweep(_context: TcContext) -> i32 {
    if let Some(settings) = Maps.settings() {
        flows::sweep(&Maps, settings, Maps.tick());
    }
    0
}

#[inline(always)]
fn xdp_frame(context: &XdpContext) -> Frame {
    let (start, end) = (context.data(), context.data_end());
    Frame {
        start,
        end,
        length: end - start,
    }
}

#[inline(always)]
fn tc_frame(context: &TcContext) -> Frame {
    // SAFETY: the context is the kernel's.
    let length = unsafe { (*context.skb.skb).len };
    Frame {
        start: context.data(),
        end: context.data_end(),
        length: length as usize,
    }
}

/// Makes a packet's headers readable at TC, and tells the tag that the kernel took out of them.
///
/// # Errors
///
/// Headers may be in pages that a program can't read and that can't be pulled in; a tag that is not
/// 802.1Q is one that no policy can name.
#[inline(always)]
fn pull(context: &TcContext) -> Result<Option<u16>, Reason> {
    let skb = context.skb.skb;
    // SAFETY: the context is the kernel's.
    let length = unsafe { (*skb).len };
    let wanted = if length < HEADERS { length } else { HEADERS };
    if context.data() + wanted as usize > context.data_end() && context.pull_data(wanted).is_err() {
        return Err(Reason::Malformed);
    }
    // SAFETY: the context is the kernel's.
    let (present, tag, protocol) =
        unsafe { ((*skb).vlan_present, (*skb).vlan_tci, (*skb).vlan_proto) };
    if present == 0 {
        Ok(None)
    } else if protocol == u32::from(0x8100u16.to_be()) {
        Ok(Some(tag as u16))
    } else {
        Err(Reason::UnknownEthertype)
    }
}

/// Bytes of a packet that are made readable at TC: every header that is looked at, quoted ones too.
const HEADERS: u32 = 256;

#[inline(always)]
fn count(counter: Option<*mut Counter>, length: u64) {
    add(counter, 1, length);
}

#[inline(always)]
fn add(counter: Option<*mut Counter>, packets: u64, bytes: u64) {
    if let Some(counter) = counter {
        // SAFETY: this processor's own value.
        unsafe {
            (*counter).packets += packets;
            (*counter).bytes += bytes;
        }
    }
}

/// Tells the daemon of a verdict, at most once a second for each (device, reason, rule).
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tell(index: u32) -> u32 {
    let Some(desk) = desk(index) else { return 0 };
    let (work, packet, verdict) = (&desk.work, &desk.work.packet, &desk.verdict);
    let mut device = work.device;
    // What fails by form is dropped before anybody asks who sent it.
    if device == 0
        && index != LEAVING
        && let Some(mac) = Maps.mac(mac_key(work.slot, packet.source_mac))
    {
        device = mac.device;
    }
    let key = EventKey {
        device,
        rule: verdict.rule,
        reason: verdict.would as u32,
        ifindex: if device == 0 { work.ifindex } else { 0 },
    };
    let now = jiffies();
    let mut packets = 1;
    if let Some(limit) = found!(EVENT_LIMITS.get_ptr(key)) {
        let second = match Maps.settings() {
            Some(settings) => settings.jiffies_per_second as u64,
            None => 1000,
        };
        if now.wrapping_sub(limit.last.load()) < second {
            limit.suppressed.add(1);
            return 0;
        }
        packets += limit.suppressed.load();
        limit.suppressed.store(0);
        limit.last.store(now);
    } else {
        let limit = EventLimit {
            last: Cell64::new(now),
            suppressed: Cell64::new(0),
        };
        // Another processor may just have sent it.
        if EVENT_LIMITS
            .insert(key, &limit, BPF_NOEXIST as u64)
            .is_err()
        {
            return 0;
        }
    }
    let revision = found!(REVISIONS.get_ptr(work.slot)).copied().unwrap_or(0);
    let Some(mut entry) = EVENTS.reserve(0) else {
        if let Some(lost) = Maps.gauge(gauge::LOST_EVENTS) {
            lost.add(1);
        }
        return 0;
    };
    let observed = if verdict.reason == Reason::Observed {
        Event::OBSERVED
    } else {
        0
    };
    let egress = if index == LEAVING { Event::EGRESS } else { 0 };
    let ports = matches!(packet.shape, Shape::Tcp | Shape::Udp);
    entry.write(Event {
        revision,
        count: packets,
        source: packet.source,
        destination: packet.destination,
        source_mac: packet.source_mac,
        destination_mac: packet.destination_mac,
        rule: verdict.rule,
        device,
        ifindex: work.ifindex,
        source_port: packet.source_port,
        destination_port: if ports {
            packet.destination_port
        } else {
            packet.icmp
        },
        vlan: packet.vlan,
        zone: work.zone,
        ethertype: packet.ethertype,
        protocol: packet.protocol,
        reason: verdict.would as u8,
        flags: egress | observed,
        reserved: 0,
    });
    entry.submit(0);
    1
}

#[inline(always)]
fn jiffies() -> u64 {
    // SAFETY: takes nothing, reads a counter.
    unsafe { helpers::generated::bpf_jiffies64() }
}

/// Drops what carries a VLAN tag outside the frame, on a port without VLANs that XDP judges: XDP
/// has taken it for untagged.
#[classifier]
fn tag_ingress(context: TcContext) -> i32 {
    let skb = context.skb.skb;
    // SAFETY: the context is the kernel's.
    let (present, tag, protocol) =
        unsafe { ((*skb).vlan_present, (*skb).vlan_tci, (*skb).vlan_proto) };
    // A priority tag is no tag, if it is one that a policy could name.
    if present == 0 || tag & 0xfff == 0 && protocol == u32::from(0x8100u16.to_be()) {
        return TC_ACT_UNSPEC;
    }
    let Some(desk) = desk(ENTERING) else {
        return TC_ACT_SHOT;
    };
    let work = &mut desk.work;
    work.slot = Maps.active().unwrap_or(0) & 1;
    // SAFETY: the context is the kernel's.
    work.ifindex = unsafe { (*skb).ifindex };
    (work.device, work.zone) = (0, 0);
    // What follows is for the event: whatever the frame is, it is dropped.
    let (frame, packet) = (tc_frame(&context), &mut work.packet);
    let _ = packet::ethernet(&frame, Some(tag as u16), packet);
    let (v4, v6) = (
        packet.ethertype == number::IPV4,
        packet.ethertype == number::IPV6,
    );
    if v4 && let Some(source) = frame.read::<4>(14 + 12) {
        packet.source = Address::v4(*source);
    }
    if v4 && let Some(destination) = frame.read::<4>(14 + 16) {
        packet.destination = Address::v4(*destination);
    }
    if v6 && let Some(source) = frame.read::<16>(14 + 8) {
        packet.source = Address::v6(source);
    }
    if v6 && let Some(destination) = frame.read::<16>(14 + 24) {
        packet.destination = Address::v6(destination);
    }
    desk.verdict = Verdict {
        reason: Reason::WrongVlan,
        would: Reason::WrongVlan,
        counts: true,
        tells: true,
        rule: 0,
    };
    let wrong = Reason::WrongVlan as u32;
    conclude(wrong, ENTERING, || wrong);
    TC_ACT_SHOT
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
