//! The maps, and lookups in them. The daemon and the pins call the maps by these names.

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_NOEXIST},
    btf_maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf, lpm_trie::Key},
    helpers,
    macros::btf_map,
};
use wardline_ebpf::{
    abi::{
        ADMISSIONS, Address, AddressKey, Askings, Bucket, ClientMessage, Clients, Counter,
        DENIAL_SETS, DENIAL_WAYS, DENIALS_AT, Denial, EPOCH_CELLS, End, Event, EventBudget,
        EventKey, EventLimit, FAILSAFES, FAR, Failsafe, Forwarding, Fragment, FragmentKey,
        INQUIRERS, INTERFACES, Inquiry, Interval, Learned, MAX_ZONES, Mac, NameText, Named, Port,
        PrefixKey, Quota, Reason, Resolved, Routes, Seen, Set, Settings, TICK_SHIFT, Watched,
        gauge,
    },
    cell::{Cell32, Cell64, opaque},
    learning,
    lookup::Lookup,
    name_buffer::NameBuffer,
    policy::{self, Question},
};

// The daemon sets sizes that depend on its configuration before it loads the programs. Policy
// tables take memory as they fill; memory that packets write to is allocated at load.

const GROWS: usize = aya_ebpf::bindings::BPF_F_NO_PREALLOC as usize;
/// These arrays are never mapped, but the kernel page-aligns a mappable array, so no entry spans
/// more cache lines than it has to.
const ALIGNED: usize = aya_ebpf::bindings::BPF_F_MMAPABLE as usize;

#[btf_map]
static ACTIVE: Array<u32, 1> = Array::new();
#[btf_map]
pub(super) static REVISIONS: Array<u64, 2> = Array::new();
#[btf_map]
static GENERATIONS: Array<u64, 2> = Array::new();
#[btf_map]
static SETTINGS: Array<Settings, 1> = Array::new();
#[btf_map]
static FAILSAFE: Array<Failsafe, { FAILSAFES as usize }> = Array::new();
#[btf_map]
static FORWARDING: Array<Forwarding, { INTERFACES as usize }> = Array::new();
#[btf_map]
static ROUTES: Array<Routes, 1> = Array::new();
#[btf_map]
pub(super) static FORWARDED: PerCpuArray<Counter, 1> = PerCpuArray::new();
/// The number of each far interface, by its index.
#[btf_map]
static FAR_INTERFACES: HashMap<u32, u32, { (INTERFACES - FAR) as usize }, GROWS> = HashMap::new();
#[btf_map]
static PORTS: Array<Port, { (INTERFACES * 2) as usize }> = Array::new();
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
static DENIALS: PerCpuArray<
    [Denial; DENIALS_AT],
    { (DENIAL_SETS * DENIAL_WAYS) as usize / DENIALS_AT },
> = PerCpuArray::new();
#[btf_map]
static DENIAL_TAGS: PerCpuArray<[Cell64; DENIAL_SETS as usize], 1> = PerCpuArray::new();
#[btf_map]
static OPENED: Array<[Cell32; DENIAL_SETS as usize], 1> = Array::new();
#[btf_map]
static QUOTAS: Array<Quota, 1024> = Array::new();
#[btf_map]
static CLIENTS: Array<Clients, 1024> = Array::new();
#[btf_map]
static UNLISTED_CLIENTS: LruHashMap<u64, Clients, 16384> = LruHashMap::new();
#[btf_map]
static ASKINGS: HashMap<u32, Askings, 1024, GROWS> = HashMap::new();
#[btf_map]
static UNLISTED_ASKINGS: LruHashMap<u64, Askings, 4096> = LruHashMap::new();
#[btf_map]
static GAUGES: Array<Cell32, { gauge::COUNT as usize }> = Array::new();
#[btf_map]
static FRAGMENTS: LruHashMap<FragmentKey, Fragment, 8192> = LruHashMap::new();
#[btf_map]
static ADOPTION: Array<u32, { INTERFACES as usize }> = Array::new();
#[btf_map]
static NOTES: Array<Cell64, { ADMISSIONS as usize }> = Array::new();
#[btf_map]
static LEARNED: HashMap<Address, Learned, 1024> = HashMap::new();
#[btf_map]
static HELD: HashMap<u64, Address, 1024> = HashMap::new();
#[btf_map]
static LEARNED_AT: Array<Cell32, { (INTERFACES * 2) as usize }> = Array::new();
/// Names of the policy, one map for each slot: a key can't have a slot, because it is a part of a
/// longer name.
#[btf_map]
static NAMES: HashMap<NameText, Watched, 1024, GROWS> = HashMap::new();
#[btf_map]
static NAMES_OF_OTHER: HashMap<NameText, Watched, 1024, GROWS> = HashMap::new();
#[btf_map]
static RESOLVERS: HashMap<AddressKey, u32, 256, GROWS> = HashMap::new();
#[btf_map]
static INQUIRERS_AT: Array<Cell64, { INQUIRERS as usize }> = Array::new();
#[btf_map]
static INQUIRIES: LruHashMap<u64, Inquiry, 65536> = LruHashMap::new();
#[btf_map]
static RESOLVED: HashMap<Address, Resolved, 1024, GROWS> = HashMap::new();
#[btf_map]
static NAMED: HashMap<u64, Named, 1024, GROWS> = HashMap::new();
/// Always zero: an address without selectors is made of it, because the stack has no room for one.
#[btf_map]
static UNNAMED: PerCpuArray<Resolved, 1> = PerCpuArray::new();
#[btf_map]
static SEEN: Array<Seen, 1024> = Array::new();

#[btf_map]
pub(super) static REASONS: PerCpuArray<Counter, { Reason::COUNT as usize }> = PerCpuArray::new();
#[btf_map]
pub(super) static RULES: PerCpuArray<Counter, 1024> = PerCpuArray::new();
#[btf_map]
pub(super) static EVENTS: RingBuf<Event, { 1 << 20 }> = RingBuf::new();
#[btf_map]
pub(super) static CLIENT_MESSAGES: RingBuf<ClientMessage, { 1 << 18 }> = RingBuf::new();
#[btf_map]
pub(super) static EVENT_LIMITS: LruHashMap<EventKey, EventLimit, 16384> = LruHashMap::new();

#[btf_map]
pub(super) static EVENT_BUDGETS: LruHashMap<u64, EventBudget, 16384> = LruHashMap::new();

#[btf_map]
pub(super) static CLOCK: Array<u64, 1> = Array::new();

/// The maps, as [`Lookup`].
pub(super) struct Maps;

/// The result of a map's lookup, as a reference.
macro_rules! found {
    ($lookup:expr) => {
        // SAFETY: the kernel hands out a pointer to a whole, aligned value or none; values are
        // integers, and what programs write concurrently is atomic.
        $lookup.map(|value| unsafe { &*value })
    };
}

pub(super) use found;

impl Lookup for Maps {
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
    fn forwarding(&self, interface: u32) -> Option<&Forwarding> {
        found!(FORWARDING.get_ptr(interface))
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
    fn end(&self, slot: u32, address: &Address, end: &mut End) -> bool {
        let Some(asking) = asked() else {
            return false;
        };
        asking.question = Question::new(slot, address);
        if find_end(slot) == 0 {
            return false;
        }
        let Some(answer) = asked() else {
            return false;
        };
        end.take(&answer.end);
        true
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
        let denials: &[Denial; DENIALS_AT] = found!(DENIALS.get_ptr((index / DENIALS_AT) as u32))?;
        // Computed only after the check that the lookup has succeeded; the verifier requires that
        // order.
        denials.get(opaque(index % DENIALS_AT))
    }

    #[inline(always)]
    fn denial_tags(&self, set: u32) -> Option<&Cell64> {
        let tags: &[Cell64; DENIAL_SETS as usize] = found!(DENIAL_TAGS.get_ptr(0))?;
        tags.get(opaque(set as usize))
    }

    #[inline(always)]
    fn flows_opened(&self, set: u32) -> Option<&Cell32> {
        let opened: &[Cell32; DENIAL_SETS as usize] = found!(OPENED.get_ptr(0))?;
        opened.get(opaque(set as usize))
    }

    #[inline(always)]
    fn add_suppressed(&self, denial: &Denial, packets: u32) {
        let key = EventKey {
            device: denial.device.load(),
            rule: denial.rule.load(),
            reason: denial.reason.load(),
            interface: 0,
            peer: denial.peer.load(),
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
    fn clients(&self, device: u32, mac: u64) -> Option<&Clients> {
        if device != 0 {
            return found!(CLIENTS.get_ptr(device));
        }
        if let Some(clients) = found!(UNLISTED_CLIENTS.get_ptr(mac)) {
            return Some(clients);
        }
        let none = Clients::default();
        UNLISTED_CLIENTS.insert(mac, &none, BPF_ANY as u64).ok()?;
        found!(UNLISTED_CLIENTS.get_ptr(mac))
    }

    #[inline(always)]
    fn askings(&self, device: u32, mac: u64, makes: bool) -> Option<&Askings> {
        if device != 0 {
            if let Some(askings) = found!(ASKINGS.get_ptr(device)) {
                return Some(askings);
            }
            if !makes {
                return None;
            }
            // The map has room for every device. Another processor may be faster, so what the
            // attempt gives does not matter.
            let _there = ASKINGS.insert(device, Askings::default(), BPF_NOEXIST as u64);
            return found!(ASKINGS.get_ptr(device));
        }
        if let Some(askings) = found!(UNLISTED_ASKINGS.get_ptr(mac)) {
            return Some(askings);
        }
        if !makes {
            return None;
        }
        let _there = UNLISTED_ASKINGS.insert(mac, Askings::default(), BPF_NOEXIST as u64);
        found!(UNLISTED_ASKINGS.get_ptr(mac))
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
    fn find_place(&self, holder: u64, v4: bool) -> u32 {
        find_place(holder, u32::from(v4))
    }

    #[inline(always)]
    fn note_learned(&self, address: &Address, learned: Learned) -> bool {
        LEARNED
            .insert(address, &learned, BPF_NOEXIST as u64)
            .is_ok()
    }

    #[inline(always)]
    fn forget_learned(&self, address: &Address) -> bool {
        LEARNED.remove(address).is_ok()
    }

    #[inline(always)]
    fn held(&self, key: u64) -> Option<&Address> {
        found!(HELD.get_ptr(key))
    }

    #[inline(always)]
    fn hold(&self, key: u64, address: &Address) -> bool {
        HELD.insert(key, address, BPF_NOEXIST as u64).is_ok()
    }

    #[inline(always)]
    fn release(&self, key: u64) -> bool {
        HELD.remove(key).is_ok()
    }

    #[inline(always)]
    fn learned_at(&self, index: u32) -> Option<&Cell32> {
        found!(LEARNED_AT.get_ptr(index))
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
        // It may have been evicted, or another processor has removed it first.
        let _gone = FRAGMENTS.remove(key);
    }

    #[inline(always)]
    fn adopts_until(&self, interface: u32) -> u32 {
        found!(ADOPTION.get_ptr(interface)).copied().unwrap_or(0)
    }

    #[inline(always)]
    fn admission(&self, index: u32) -> Option<&Cell64> {
        found!(NOTES.get_ptr(index))
    }

    #[inline(always)]
    fn is_resolver(&self, key: &AddressKey) -> bool {
        RESOLVERS.get_ptr(key).is_some()
    }

    #[inline(always)]
    fn watched(&self, slot: u32, name: &NameBuffer, at: usize) -> Option<&Watched> {
        let name = (&raw const *name).cast::<u8>();
        // SAFETY: a buffer is twice as long as a name, the offset below the length of one, and bytes
        // have no alignment.
        let name: &NameText = unsafe { &*name.add(at & 0xff).cast() };
        if slot == 0 {
            found!(NAMES.get_ptr(name))
        } else {
            found!(NAMES_OF_OTHER.get_ptr(name))
        }
    }

    #[inline(always)]
    fn inquirer(&self, cell: u32) -> Option<&Cell64> {
        found!(INQUIRERS_AT.get_ptr(cell))
    }

    #[inline(always)]
    fn note_inquiry(&self, hash: u64, inquiry: &Inquiry) -> bool {
        INQUIRIES.insert(hash, inquiry, BPF_ANY as u64).is_ok()
    }

    #[inline(always)]
    fn inquiry(&self, hash: u64) -> Option<&Inquiry> {
        found!(INQUIRIES.get_ptr(hash))
    }

    #[inline(always)]
    fn forget_inquiry(&self, hash: u64) {
        // It may have been evicted.
        let _gone = INQUIRIES.remove(hash);
    }

    #[inline(always)]
    fn resolved(&self, address: &Address, makes: bool) -> Option<&Resolved> {
        if let Some(resolved) = found!(RESOLVED.get_ptr(address)) {
            return Some(resolved);
        }
        if !makes {
            return None;
        }
        let unnamed: &Resolved = found!(UNNAMED.get_ptr(0))?;
        // Another processor may be faster, so what the attempt gives does not matter.
        let _there = RESOLVED.insert(address, unnamed, BPF_NOEXIST as u64);
        found!(RESOLVED.get_ptr(address))
    }

    #[inline(always)]
    fn forget_resolved(&self, address: &Address) {
        // Another processor may have removed it first.
        let _gone = RESOLVED.remove(address);
    }

    #[inline(always)]
    fn named(&self, key: u64) -> Option<&Named> {
        found!(NAMED.get_ptr(key))
    }

    #[inline(always)]
    fn name_address(&self, key: u64, named: &Named) -> bool {
        NAMED.insert(key, named, BPF_ANY as u64).is_ok()
    }

    #[inline(always)]
    fn seen(&self, device: u32) -> Option<&Seen> {
        found!(SEEN.get_ptr(device))
    }
}

#[inline(always)]
pub(super) fn count(counter: Option<*mut Counter>, length: u64) {
    add(counter, 1, length);
}

#[inline(always)]
pub(super) fn add(counter: Option<*mut Counter>, packets: u64, bytes: u64) {
    if let Some(counter) = counter {
        // SAFETY: this processor's own value.
        unsafe {
            (*counter).packets += packets;
            (*counter).bytes += bytes;
        }
    }
}

/// The number of an interface, by its index; [`INTERFACES`] when the daemon has given it none.
#[inline(always)]
pub(super) fn number_of(ifindex: u32) -> u32 {
    if ifindex < FAR {
        return ifindex;
    }
    found!(FAR_INTERFACES.get_ptr(ifindex))
        .copied()
        .unwrap_or(INTERFACES)
}

#[inline(always)]
pub(super) fn jiffies() -> u64 {
    // SAFETY: takes nothing, reads a counter.
    unsafe { helpers::generated::bpf_jiffies64() }
}

/// A question and its answer.
#[repr(C)]
struct Asked {
    question: Question,
    end: End,
}

/// Where [`Maps::end`] asks, since a function of its own takes numbers only. No program is
/// interrupted between the question and its answer.
#[btf_map]
static ASKED: PerCpuArray<Asked, 1> = PerCpuArray::new();

#[inline(always)]
fn asked() -> Option<&'static mut Asked> {
    let asked = ASKED.get_ptr_mut(0)?;
    // SAFETY: this processor's own value.
    Some(unsafe { &mut *asked })
}

/// Finds out what the address stands for that is asked about: 1, or 0 when it stands for nothing. A
/// function of its own, because nearly every step asks, and the verifier would follow each.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn find_end(slot: u32) -> u32 {
    match asked() {
        Some(asked) => u32::from(policy::find_end(
            &Maps,
            slot & 1,
            &asked.question,
            &mut asked.end,
        )),
        None => 0,
    }
}

/// Finds a place for one more learned address. A function of its own, because the verifier would
/// follow what comes after for each place that it could find.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn find_place(holder: u64, v4: u32) -> u32 {
    learning::find_place(&Maps, holder, v4 != 0)
}
