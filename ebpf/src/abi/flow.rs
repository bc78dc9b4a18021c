//! The state that packets leave behind: flows, quotas, denials, fragments, learned addresses.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Address, WAYS};
use crate::cell::{Cell32, Cell64};

/// The key of a flow: the same for both directions.
#[repr(C)]
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, Debug, Default, FromBytes, Immutable, IntoBytes, KnownLayout,
)]
pub struct FlowKey {
    /// The end with the lower (address, port).
    pub low: Address,
    /// The other end.
    pub high: Address,
    /// `low port << 48 | high port << 32 | asker << 16 | kind << 8 | protocol`. For an ICMP query
    /// both ports are its identifier, the kind is the request's type and the asker is the end that
    /// sends it: 0 low, 1 high.
    pub ports: u64,
}

impl FlowKey {
    /// Set in the ports of a key between IPv6 addresses, in the form that the table stores.
    pub const V6: u64 = 1 << 17;
}

/// A flow, both directions: one cache line with everything that a packet of an admitted flow needs.
/// Index 0 is the key's low end. [`FlowEnds`] and [`FlowHops`] hold what is needed less often.
///
/// Counters are written without the bucket's lock, the rest under it. `state` is written whole.
#[repr(C)]
#[derive(Debug, Default, FromBytes, IntoBytes, KnownLayout)]
pub struct Flow {
    /// The key in short. First both IPv4 addresses, `low << 32 | high`, or a hash of both IPv6
    /// addresses, which are in [`FlowEnds`]. Then [`FlowKey::ports`], with [`FlowKey::V6`] set for
    /// IPv6.
    pub key: [Cell64; 2],
    /// `cell << 52 | bytes`: the cell of each end's epoch, and bytes from it; whole frames.
    pub counts: [Cell64; 2],
    /// Where each end's packets come from: through a guarded port `mac << 16 | interface`, else
    /// [`Flow::OWN`], [`Flow::OUTSIDE`] or [`Flow::NAT`]; 0: no packet yet. Without an interface the
    /// end's next packet is judged by all steps.
    pub bind: [Cell64; 2],
    /// Packets from each end.
    pub packets: [Cell32; 2],
    /// Sum of both ends' epoch cells when policy was last asked.
    pub stamp: Cell32,
    /// `low vlan << 20 | high vlan << 8 | bits` of [`state`].
    pub state: Cell32,
}

impl Flow {
    /// In [`Flow::bind`]: the router itself sends the packets.
    pub const OWN: u64 = 1;
    /// In [`Flow::bind`]: the packets come from an interface that is not guarded.
    pub const OUTSIDE: u64 = 2;
    /// In [`Flow::bind`] of the end that opened the flow: packets that a guarded port has admitted,
    /// and that the router's NAT has rewritten since.
    pub const NAT: u64 = 3;
    /// Where the cell is in [`Flow::counts`].
    pub const CELL: u32 = 52;

    /// Bytes from an end.
    #[inline(always)]
    pub fn bytes(&self, leg: usize) -> u64 {
        self.counts[leg].load() & ((1 << Self::CELL) - 1)
    }

    /// The cell of an end's epoch.
    #[inline(always)]
    pub fn cell(&self, leg: usize) -> u32 {
        (self.counts[leg].load() >> Self::CELL) as u32
    }
}

/// The ends of a flow, and the rule that admitted it.
#[repr(C)]
#[derive(Debug, Default, FromBytes, IntoBytes, KnownLayout)]
pub struct FlowEnds {
    /// [`FlowKey::low`] and [`FlowKey::high`], word by word.
    pub addresses: [Cell64; 4],
    /// Account of each end; a device's account is its number.
    pub devices: [Cell32; 2],
    /// The rule that admitted it.
    pub rule: Cell32,
    /// Tick at which that rule ends.
    pub until: Cell32,
    /// [`FlowEnds::OTHER_PAYS`], and for a flow that exists only because of mode observe the
    /// [`Reason`](super::Reason) for which it would be dropped.
    pub would: Cell32,
    /// Packets that are already credited to rules that admitted the flow before.
    pub packets: Cell32,
    /// Bytes of those packets.
    pub bytes: Cell64,
}

impl FlowEnds {
    /// In [`FlowEnds::would`]: the flow is charged to the end that did not open it, because that end
    /// sent the first packet. Only a flow that was adopted can be.
    pub const OTHER_PAYS: u32 = 1 << 31;
}

/// A flow and its ends in a bucket: two cache lines side by side, which processors fetch together.
#[repr(C)]
#[derive(Debug, Default, FromBytes, IntoBytes, KnownLayout)]
pub struct FlowEntry {
    /// The flow.
    pub flow: Flow,
    /// Its ends.
    pub ends: FlowEnds,
}

/// The next hops of a flow, for fast-forward.
#[repr(C)]
#[derive(Debug, Default, FromBytes, IntoBytes, KnownLayout)]
pub struct FlowHops {
    /// The next hop towards each end, as [`Flow::bind`]; 0: not known.
    pub hops: [Cell64; 2],
    /// `tick << 32 | length << 16 | version`: when the routing table was asked, the length of the
    /// packet that it was asked about, and the low bits of
    /// [`Routes::version`](super::Routes::version) just before.
    pub looked: [Cell64; 2],
}

/// Bits of [`Flow::state`].
pub mod state {
    /// The high end opened the flow.
    pub const OPENER_HIGH: u32 = 1;
    /// The other end has answered. After [`RESET`], it has sent something since.
    pub const ANSWERED: u32 = 2;
    /// TCP: the opener has acknowledged the answer. After [`RESET`], it has sent something since.
    /// Without [`ANSWERED`] the flow was adopted: of a TCP flow only the opener has been heard, of
    /// another only the other end.
    pub const CONFIRMED: u32 = 4;
    /// TCP: the low end has sent FIN.
    pub const FIN_LOW: u32 = 8;
    /// TCP: the high end has sent FIN.
    pub const FIN_HIGH: u32 = 16;
    /// TCP: an end of an open connection has sent RST. Without a connection, RST sets the marks of
    /// both FINs.
    pub const RESET: u32 = 32;
    /// No rule admits it; it lives because its zones are in mode observe.
    pub const OBSERVED: u32 = 64;
    /// The rule that admits it ends.
    pub const ENDS: u32 = 128;
}

/// The kernel's lock. The kernel finds it in the map's type information by this name.
#[repr(C)]
#[derive(Debug, Default, FromBytes, IntoBytes, KnownLayout)]
pub struct bpf_spin_lock {
    /// Used by the kernel only.
    pub val: Cell32,
}

/// One bucket of the flow table, an array indexed by the key's hash. The array is page-aligned, so
/// no flow spans more cache lines than it has to. A bucket has nineteen lines, an odd number, so
/// that buckets spread over all sets of the cache. Everything about a flow is in its bucket,
/// because reaching another page would cost more than reading it.
///
/// The table is our own because the kernel's hash maps can't do all of this: one lookup for
/// answered and unanswered flows, eviction that spares answered ones, exact quotas, and cleaning up
/// without the daemon.
#[repr(C)]
#[derive(Debug, Default, FromBytes, IntoBytes, KnownLayout)]
pub struct Bucket {
    /// Held while a way is taken or freed, or a flow changes state.
    pub lock: bpf_spin_lock,
    /// Ways whose [`FlowHops`] are valid, not left by an earlier flow: one bit for each.
    pub hops_valid: Cell32,
    /// High bits of each way's hash; 0: the way is free.
    pub tags: [Cell32; WAYS],
    /// Tick of each way's last packet.
    pub last: [Cell32; WAYS],
    /// The flows.
    pub ways: [FlowEntry; WAYS],
    /// Their next hops.
    pub hops: [FlowHops; WAYS],
    /// Not used.
    pub reserved: [Cell64; 4],
}

/// Something that another version has counted or kept, on its way into this version's tables.
#[repr(C)]
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, Immutable, IntoBytes, KnownLayout,
)]
pub struct Carried {
    /// The flow; for counters nothing.
    pub key: FlowKey,
    /// As [`Flow::bind`].
    pub bind: [u64; 2],
    /// Bytes from each end; for counters packets, then bytes.
    pub bytes: [u64; 2],
    /// As [`FlowEnds::bytes`].
    pub counted_bytes: u64,
    /// As [`Flow::packets`].
    pub packets: [u32; 2],
    /// As [`FlowEnds::packets`].
    pub counted_packets: u32,
    /// As [`FlowEnds::devices`].
    pub devices: [u32; 2],
    /// As [`FlowEnds::rule`]; for counters the index of the counter.
    pub rule: u32,
    /// As [`FlowEnds::until`].
    pub until: u32,
    /// As [`FlowEnds::would`].
    pub would: u32,
    /// As [`Flow::state`].
    pub state: u32,
    /// Tick of its last packet.
    pub last: u32,
    /// What it is, and what becomes of it: [`Carried::OPEN`] and the numbers below it.
    pub what: u32,
    /// Zero.
    pub reserved: u32,
}

impl Carried {
    /// A flow, which is opened if it is not there. One that is there stays as it is.
    pub const OPEN: u32 = 0;
    /// The same, but what was counted is added to a flow that is there.
    pub const ADD: u32 = 1;
    /// A flow that was carried before, and what has been counted since. It has ended if it is not
    /// there.
    pub const SINCE: u32 = 2;
    /// Packets and bytes of a rule.
    pub const RULE: u32 = 3;
    /// Packets and bytes of a reason.
    pub const REASON: u32 = 4;
    /// Packets and bytes that were forwarded in the driver.
    pub const FORWARDED: u32 = 5;
    /// How many are carried with one call.
    pub const AT_ONCE: u32 = 1024;
}

/// What one account has used: the account of a device, or one that some unlisted MACs share.
#[repr(C)]
#[derive(Debug, Default, FromBytes, IntoBytes, KnownLayout)]
pub struct Quota {
    /// Flows without an answer.
    pub unanswered: Cell32,
    /// Flows with an answer; for TCP, only once the opener has acknowledged the answer.
    pub answered: Cell32,
    /// Tick at which the current second of its control began.
    pub since: Cell32,
    /// Packets of control that have passed in that second.
    pub control: Cell32,
}

/// Client identifiers of DHCP that one device uses.
pub const IDENTIFIERS: usize = 4;

/// The client identifiers that one device, or one unlisted MAC, gives to DHCP servers.
#[repr(C)]
#[derive(Debug, Default, FromBytes, IntoBytes, KnownLayout)]
pub struct Clients {
    /// A hash of each; 0: the place is free.
    pub hashes: [Cell32; IDENTIFIERS],
    /// Tick at which each was last used.
    pub last: [Cell32; IDENTIFIERS],
    /// The transaction of the last message.
    pub transaction: Cell32,
    /// Tick of that message.
    pub asked_at: Cell32,
    /// Number of the interface where it came in.
    pub asked_on: Cell32,
    /// DHCPv4: the address that it asked for, as its bytes are; 0: none.
    pub wanted: Cell32,
}

/// Questions to groups that one device may have open at a time.
pub const ASKINGS: usize = 8;

/// The questions that one device, or one unlisted MAC, has sent to groups by rules that let others
/// answer.
#[repr(C)]
#[derive(Debug, Default, FromBytes, IntoBytes, KnownLayout)]
pub struct Askings {
    /// `hash of the address << 16 | port`, of where each answer goes.
    pub places: [Cell64; ASKINGS],
    /// The rule of each; 0: the place is free.
    pub rules: [Cell32; ASKINGS],
    /// Tick until which each may be answered.
    pub until: [Cell32; ASKINGS],
}

/// A denial by policy, kept for a second by the processor that judged the packet: until then an
/// identical packet is denied without asking policy.
#[repr(C)]
#[derive(Debug, Default, FromBytes, IntoBytes, KnownLayout)]
pub struct Denial {
    /// Source and destination address, word by word.
    pub addresses: [Cell64; 4],
    /// As [`Flow::bind`].
    pub bind: Cell64,
    /// `source port << 48 | destination port << 32 | service key`.
    pub ports: Cell64,
    /// `generation << 16 | vlan`. The denial is valid only in the generation of policy that it came
    /// from.
    pub generation: Cell64,
    /// Tick from which policy is asked again.
    pub until: Cell32,
    /// The device that was denied.
    pub device: Cell32,
    /// The rule that denies; 0: none.
    pub rule: Cell32,
    /// The [`Reason`](super::Reason).
    pub reason: Cell32,
    /// Packets for which no event was sent.
    pub suppressed: Cell32,
    /// How many flows of its set had been opened when it was noted. Once another is opened, the
    /// denial is no longer valid.
    pub opened: Cell32,
    /// As [`EventKey::peer`](super::EventKey::peer).
    pub peer: Cell32,
    /// Not used.
    pub reserved: Cell32,
}

/// Sets of denials, for each processor.
pub const DENIAL_SETS: u32 = 2048;
/// Denials in a set: this many can share it without evicting each other.
pub const DENIAL_WAYS: u32 = 4;
/// Denials in one entry of the map.
pub const DENIALS_AT: usize = 256;

/// Identifies the parts of a fragmented packet at one port.
#[repr(C)]
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Debug,
    Default,
    FromBytes,
    Immutable,
    IntoBytes,
    KnownLayout,
)]
pub struct FragmentKey {
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// As [`Flow::bind`]; for a packet that leaves, with the interface that it leaves through in
    /// the bits above.
    pub bind: u64,
    /// Identification.
    pub identification: u32,
    /// VLAN; 0: untagged.
    pub vlan: u16,
    /// Protocol of the payload, which every part states.
    pub protocol: u16,
}

/// A fragmented packet whose first part has passed.
#[repr(C)]
#[derive(Debug, Default, FromBytes, IntoBytes, KnownLayout)]
pub struct Fragment {
    /// [`FlowKey::ports`] of its flow.
    pub ports: Cell64,
    /// Offset of the part that must come next, in bytes.
    pub next: Cell32,
    /// Tick of the first part.
    pub first: Cell32,
}

/// A learned address: who claimed it first.
#[repr(C)]
#[derive(Debug, Default, FromBytes, IntoBytes, KnownLayout)]
pub struct Learned {
    /// Who has it, as [`holder`] says.
    pub holder: Cell64,
    /// Tick of the last packet from this address that was judged by policy or by a guard. While a
    /// flow of the address is live, the daemon keeps it recent.
    pub last: Cell32,
    /// The interface that it is counted for: the one where it was claimed.
    pub interface: Cell32,
    /// The zone in which it was claimed.
    pub zone: Cell32,
    /// 1 when a DHCP server has given it, else 0.
    pub leased: Cell32,
}

/// In a [`holder`]: it is a device. In a MAC this bit means a group, which sends nothing.
const IS_DEVICE: u64 = 1 << 40;

/// Who may hold learned addresses: a device, or, where any MAC is admitted, an unlisted MAC.
#[inline(always)]
pub fn holder(device: u32, mac: u64) -> u64 {
    if device == 0 {
        mac & 0xffff_ffff_ffff
    } else {
        IS_DEVICE | device as u64
    }
}

/// The device that a holder is; 0: an unlisted MAC.
#[inline(always)]
pub fn holding_device(holder: u64) -> u32 {
    if holder & IS_DEVICE == 0 {
        0
    } else {
        holder as u32
    }
}

/// Key of a place in which a [`holder`] holds a learned address. It has so many places for each
/// family.
#[inline(always)]
pub fn held_key(holder: u64, v4: bool, place: u32) -> u64 {
    holder << 16 | (v4 as u64) << 8 | place as u64
}

/// The holder in the key of a place.
#[inline(always)]
pub fn held_by(key: u64) -> u64 {
    key >> 16
}

/// Index of the count of learned addresses of a family at an interface.
#[inline(always)]
pub fn learned_index(interface: u32, v4: bool) -> u32 {
    interface << 1 | v4 as u32
}

/// Where a device was last seen; array by device number.
#[repr(C)]
#[derive(Debug, Default, FromBytes, IntoBytes, KnownLayout)]
pub struct Seen {
    /// Tick.
    pub last: Cell32,
    /// The interface.
    pub interface: Cell32,
}

/// Cells of the table of gauges, shared by all processors.
pub mod gauge {
    /// Flows in the flow table.
    pub const FLOWS: u32 = 0;
    /// Events that the ring had no room for.
    pub const LOST_EVENTS: u32 = 1;
    /// The bucket that is swept next.
    pub const SWEEP: u32 = 2;
    /// Flows in the flow table without an answer.
    pub const UNANSWERED: u32 = 3;
    /// Learned addresses.
    pub const LEARNED: u32 = 4;
    /// Tick until which the daemon vouches that an address of a live flow does not look idle. It is
    /// always near, because a daemon that has died keeps nothing recent.
    pub const LEARNED_KEPT: u32 = 5;
    /// Which of [`Carried`](super::Carried) is carried next.
    pub const CARRIED: u32 = 6;
    /// Flows that could not be carried, for want of room.
    pub const NOT_CARRIED: u32 = 7;
    /// Addresses of names for which there was no room.
    pub const NAMES_NO_ROOM: u32 = 8;
    /// Addresses of names that were forgotten before their end, for want of places.
    pub const NAMES_CUT_SHORT: u32 = 9;
    /// Addresses of names.
    pub const NAMED: u32 = 10;
    /// Cells.
    pub const COUNT: u32 = 11;
}
