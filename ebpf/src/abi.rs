//! Every byte that crosses between the kernel's programs and the daemon.
//!
//! Integers are in the machine's order. Addresses are in network order, an IPv4 address as
//! `::ffff:a.b.c.d`. A MAC is the number that its six bytes make, first byte highest. No type has
//! padding that the compiler could leave unset. Any change to what is here changes
//! [`ABI_VERSION`], which names the pin directory: pinned maps of another version are never read
//! as these.
//!
//! Tables of a revision hold two revisions at once, told apart by a **slot** (0 or 1) in each key.
//! A packet reads the active slot once and looks up everything with it.

use crate::cell::{Cell32, Cell64};

/// The version of everything in this file.
pub const ABI_VERSION: u32 = 4;

/// Interfaces with an index from here up can't be guarded: [`Port`] is an array by index.
pub const MAX_IFINDEX: u32 = 16_384;
/// Zones are numbered from 1 to below this.
pub const MAX_ZONES: u32 = 4_096;
/// Cells of the epoch table; a device's cell is its number modulo this.
pub const EPOCH_CELLS: u32 = 4_096;
/// Flows in one bucket of the flow table.
pub const WAYS: usize = 7;
/// Accounts that unlisted MACs share by hash, behind those of devices; a power of two.
pub const UNLISTED: u32 = 4_096;
/// Entries of [`Failsafe`].
pub const FAILSAFES: u32 = 32;
/// Ticks are this many bits coarser than jiffies: 64 ms at 1000 Hz, 0.64 s at 100 Hz.
pub const TICK_SHIFT: u32 = 6;
/// A deadline that never comes.
pub const NEVER: u32 = u32::MAX;
/// The device number of the router itself; policy numbers devices from 2.
pub const ROUTER: u32 = 1;

/// An address of either family, in network order.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Address(pub [u64; 2]);

impl Address {
    /// `::`, which is also what a packet without an address carries.
    pub const UNSPECIFIED: Self = Self([0; 2]);

    /// The IPv4 address with these four bytes.
    #[inline(always)]
    pub fn v4(a: [u8; 4]) -> Self {
        Self([
            0,
            u64::from_ne_bytes([0, 0, 0xff, 0xff, a[0], a[1], a[2], a[3]]),
        ])
    }

    /// The IPv6 address with these sixteen bytes.
    #[inline(always)]
    pub fn v6(a: &[u8; 16]) -> Self {
        Self([
            u64::from_ne_bytes([a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7]]),
            u64::from_ne_bytes([a[8], a[9], a[10], a[11], a[12], a[13], a[14], a[15]]),
        ])
    }

    /// The sixteen bytes.
    #[inline(always)]
    pub fn octets(self) -> [u8; 16] {
        let (a, b) = (self.0[0].to_ne_bytes(), self.0[1].to_ne_bytes());
        [
            a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], b[0], b[1], b[2], b[3], b[4], b[5],
            b[6], b[7],
        ]
    }

    /// The address as two numbers, most significant first.
    #[inline(always)]
    pub fn number(self) -> [u64; 2] {
        [u64::from_be(self.0[0]), u64::from_be(self.0[1])]
    }

    /// Whether this stands for an IPv4 address.
    #[inline(always)]
    pub fn is_v4(self) -> bool {
        let [high, low] = self.number();
        high == 0 && low >> 32 == 0xffff
    }

    /// Whether no host may send from it: multicast, broadcast, loopback, "this network", reserved
    /// (RFC 6890), except that `0.0.0.0` and `::` are for the caller to judge.
    #[inline(always)]
    pub fn is_martian_source(self) -> bool {
        let [high, low] = self.number();
        if self.is_v4() {
            let first = (low >> 24) as u8;
            return first == 127 || first >= 224 || first == 0;
        }
        // Loopback and the IPv4-compatible addresses (RFC 4291 section 2.5.5.1), not `::` itself.
        high >> 56 == 0xff || (high == 0 && low != 0 && low >> 32 == 0)
    }

    /// Whether no packet on a wire is for it: unspecified or loopback (RFC 6890).
    #[inline(always)]
    pub fn is_martian_destination(self) -> bool {
        let [high, low] = self.number();
        let loopback = if self.is_v4() {
            (low >> 24) as u8 == 127
        } else {
            high == 0 && low == 1
        };
        loopback || self.is_unspecified()
    }

    /// `0.0.0.0` or `::`.
    #[inline(always)]
    pub fn is_unspecified(self) -> bool {
        let [high, low] = self.number();
        high == 0 && (low == 0 || low == 0xffff_0000_0000)
    }

    /// Whether this is an IPv6 link-local unicast address (RFC 4291 section 2.5.6).
    #[inline(always)]
    pub fn is_link_local(self) -> bool {
        self.number()[0] >> 54 == 0x3fa
    }

    /// Whether this is a multicast group, or the IPv4 broadcast address.
    #[inline(always)]
    pub fn is_group(self) -> bool {
        let [high, low] = self.number();
        if self.is_v4() {
            return (low >> 28) & 0xf == 0xe || low as u32 == u32::MAX;
        }
        high >> 56 == 0xff
    }

    /// Whether this is an IPv6 group of link scope or less (RFC 4291 section 2.7), or an IPv4
    /// group of the local network block (RFC 5771 section 4).
    #[inline(always)]
    pub fn is_link_scope_group(self) -> bool {
        let [high, low] = self.number();
        if self.is_v4() {
            return low as u32 >> 8 == 0xe0_0000;
        }
        high >> 56 == 0xff && (high >> 48) & 0xf <= 2
    }
}

/// Why a packet passed or was dropped. The numbers are those of the proto.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Reason {
    /// No rule allows it.
    NoRule = 1,
    /// A rule denies it.
    DeniedByRule = 2,
    /// Every rule that would allow it has expired.
    Expired = 3,
    /// The source MAC belongs to no device.
    UnknownDevice = 4,
    /// The source address is not the device's.
    SpoofedSource = 5,
    /// The device may not appear on this port.
    WrongPort = 6,
    /// The VLAN is not one of the port's, or not the device's.
    WrongVlan = 7,
    /// A header is short, inconsistent or nonsense.
    Malformed = 8,
    /// IPv4 options in a zone that drops them.
    IpOptions = 9,
    /// A fragment in a zone that drops them, or one that can't be judged.
    Fragment = 10,
    /// An IPv6 extension header that is not allowed.
    ExtensionHeader = 11,
    /// Neither IP, ARP nor one of the zone's ethertypes.
    UnknownEthertype = 12,
    /// Belongs to no admitted flow, and opens none.
    MidFlow = 13,
    /// A combination of TCP flags that no stack sends.
    BadTcpFlags = 14,
    /// An ARP claim that is not the device's.
    ArpSpoof = 15,
    /// An ND claim that is not the device's.
    NdSpoof = 16,
    /// A router advertisement or redirect from a port that may not send them.
    RogueRa = 17,
    /// A DHCP server message from a port that may not send them.
    RogueDhcp = 18,
    /// An end is in quarantine.
    Quarantined = 19,
    /// The flow table is full.
    FlowTableFull = 20,
    /// The device has as many flows as it may have.
    DeviceQuota = 21,
    /// No policy has taken force on this port.
    NotReady = 22,
    /// A rule allows the flow that this packet opens.
    Rule = 32,
    /// Part of an admitted flow.
    Established = 33,
    /// An ICMP error about an admitted flow.
    Related = 34,
    /// ARP, ND, DHCP and the like, within the device's own bounds.
    Control = 35,
    /// Passed only because the zones are in mode observe.
    Observed = 36,
}

impl Reason {
    /// One more than the highest number of a reason.
    pub const COUNT: u32 = 37;

    /// Every reason, drops first.
    pub const ALL: [Self; 27] = [
        Self::NoRule,
        Self::DeniedByRule,
        Self::Expired,
        Self::UnknownDevice,
        Self::SpoofedSource,
        Self::WrongPort,
        Self::WrongVlan,
        Self::Malformed,
        Self::IpOptions,
        Self::Fragment,
        Self::ExtensionHeader,
        Self::UnknownEthertype,
        Self::MidFlow,
        Self::BadTcpFlags,
        Self::ArpSpoof,
        Self::NdSpoof,
        Self::RogueRa,
        Self::RogueDhcp,
        Self::Quarantined,
        Self::FlowTableFull,
        Self::DeviceQuota,
        Self::NotReady,
        Self::Rule,
        Self::Established,
        Self::Related,
        Self::Control,
        Self::Observed,
    ];

    /// Whether a packet with this reason goes on.
    #[inline(always)]
    pub fn passes(self) -> bool {
        self as u8 >= Self::Rule as u8
    }

    /// Whether a zone in mode observe lets this pass: what policy, state or room drop, never what
    /// fails by form or place.
    #[inline(always)]
    pub fn is_observable(self) -> bool {
        matches!(
            self,
            Self::NoRule
                | Self::DeniedByRule
                | Self::Expired
                | Self::MidFlow
                | Self::FlowTableFull
                | Self::DeviceQuota
        )
    }

    /// The reason with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| *reason as u8 == number)
    }
}

/// A guarded interface, or one that carries what guarded interfaces let in (the bridge above a
/// port, a VLAN interface on it). Array of `ifindex * 2 + slot`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Port {
    /// Zone of untagged frames; 0: none.
    pub zone: u16,
    /// [`Port::GUARDED`] and the like.
    pub flags: u16,
}

impl Port {
    /// Packets are judged here.
    pub const GUARDED: u16 = 1;
    /// What arrives through this interface entered through a guarded port below it.
    pub const ABOVE: u16 = 2;
    /// DHCP server messages may enter.
    pub const DHCP_SERVER: u16 = 4;
    /// Router advertisements and redirects may enter.
    pub const ROUTER: u16 = 8;

    /// Where the entry of an interface is.
    #[inline(always)]
    pub fn index(ifindex: u32, slot: u32) -> u32 {
        ifindex * 2 + slot
    }
}

/// Whether packets may be forwarded in the driver through an interface, which the daemon finds out.
/// Array by index.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Forwarding {
    /// Its own MAC.
    pub mac: u64,
    /// [`Forwarding::ENTERS`], [`Forwarding::LEAVES`].
    pub flags: u32,
    /// Not used.
    pub reserved: u32,
}

impl Forwarding {
    /// What enters here may be forwarded.
    pub const ENTERS: u32 = 1;
    /// What is forwarded may leave here.
    pub const LEAVES: u32 = 2;
    /// What enters may come from this machine, with checksums that the stack has to complete.
    pub const PARTIAL: u32 = 4;
}

/// What the daemon says of routes and neighbours, so that next hops need not be asked for again.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Routes {
    /// Another number with every change of them.
    pub change: u32,
    /// Tick until which every change is told. It is never far off: a daemon that dies says nothing.
    pub until: u32,
}

/// Key of the zone of a tagged frame: what (interface, VLAN) carries.
#[inline(always)]
pub fn vlan_key(slot: u32, ifindex: u32, vlan: u16) -> u64 {
    (slot as u64) << 63 | (ifindex as u64) << 32 | vlan as u64
}

/// Key that exists when a zone is on an interface, on whatever VLAN.
#[inline(always)]
pub fn carries_key(slot: u32, ifindex: u32, zone: u16) -> u64 {
    (slot as u64) << 63 | (ifindex as u64) << 32 | 1 << 16 | zone as u64
}

/// Key that exists when a zone lets a non-IP protocol pass.
#[inline(always)]
pub fn ethertype_key(slot: u32, zone: u16, ethertype: u16) -> u64 {
    (slot as u64) << 63 | 1 << 62 | (zone as u64) << 16 | ethertype as u64
}

/// Zone settings; array of `slot * MAX_ZONES + zone`.
pub mod zone {
    /// The zone exists.
    pub const EXISTS: u32 = 1;
    /// What policy or state would drop passes, and is reported.
    pub const OBSERVE: u32 = 2;
    /// The zone is on some guarded port.
    pub const HAS_PORTS: u32 = 4;
    /// Unlisted MACs may speak.
    pub const ADMIT_ANY: u32 = 8;
    /// Fragments may pass.
    pub const FRAGMENTS: u32 = 16;
    /// IPv4 options and IPv6 extension headers may pass.
    pub const IP_OPTIONS: u32 = 32;

    /// What stands in the place of zone 0, which no zone has: the kinds of pairs that exist with
    /// `any` as the opener and as the other end. Each end but the router has them besides its own
    /// [`End::from`](super::End::from) and [`End::to`](super::End::to).
    #[inline(always)]
    pub fn pairs_of_any(from: u16, to: u16) -> u32 {
        (from as u32) << 16 | to as u32
    }
}

/// Key of a MAC.
#[inline(always)]
pub fn mac_key(slot: u32, mac: u64) -> u64 {
    (slot as u64) << 63 | mac
}

/// The device that a MAC belongs to.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Mac {
    /// The device's number.
    pub device: u32,
    /// The only interface where it may appear; 0: any of its zone.
    pub ifindex: u32,
    /// Its zone.
    pub zone: u16,
    /// [`End::QUARANTINED`], [`End::LEARNS`].
    pub flags: u16,
    /// What [`Mac::address`] is; no device's: there is none.
    pub end: End,
    /// The first of the device's listed addresses: most have no other, and it needs not be looked up.
    pub address: Address,
}

/// Key of an exact address.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct AddressKey {
    /// The address.
    pub address: Address,
    /// The slot.
    pub slot: u64,
}

/// Key of a prefix: the slot, big-endian, then the address, as the trie compares bytes. The
/// prefix length counts the slot's 32 bits.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PrefixKey {
    /// The slot, big-endian.
    pub slot: [u8; 4],
    /// The address.
    pub address: [u8; 16],
}

/// One end of a flow, as policy sees it: what an address is.
///
/// An end has up to four names, one of each kind: the class of its device (devices that rules name
/// alike share one), its zone, its region (addresses inside the same `cidr:` selectors) and `any`.
/// Policy is looked up for pairs of names. `from` and `to` say which kinds of pairs exist at all
/// with the first three, one bit for each [`pair_bit`], so that a lookup that can't hit is not made;
/// [`zone::pairs_of_any`] says it of the fourth.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct End {
    /// The device's number; 0: no device; [`ROUTER`]: the router.
    pub device: u32,
    /// Class of the device; 0: none.
    pub class: u32,
    /// Region of the address; 0: in no `cidr:` selector.
    pub region: u32,
    /// Zone; 0: none.
    pub zone: u16,
    /// [`End::QUARANTINED`] and the like.
    pub flags: u16,
    /// Pairs that exist with this end as the opener.
    pub from: u16,
    /// Pairs that exist with this end as the other.
    pub to: u16,
}

impl End {
    /// Becomes another's copy, field by field: of a whole structure the compiler makes a call, whose frame
    /// the verifier counts into the stack.
    #[inline(always)]
    pub fn take(&mut self, other: &End) {
        self.device = other.device;
        self.class = other.class;
        self.region = other.region;
        self.zone = other.zone;
        self.flags = other.flags;
        self.from = other.from;
        self.to = other.to;
    }

    /// The device is cut off.
    pub const QUARANTINED: u16 = 1;
    /// The device has MACs: its addresses can't be on the far side of an uplink.
    pub const GUARDED: u16 = 2;
    /// The device has no listed address; it may take free ones of its zone.
    pub const LEARNS: u16 = 4;

    /// Whether this is the router.
    #[inline(always)]
    pub fn is_router(&self) -> bool {
        self.device == ROUTER
    }

    /// This end's name of a kind, as it stands in a pair; 0 when it has none.
    #[inline(always)]
    pub fn name(&self, kind: u32) -> u32 {
        let id = match kind {
            kind::CLASS => self.class,
            kind::ZONE => self.zone as u32,
            kind::REGION => self.region,
            _ => {
                return if self.is_router() {
                    0
                } else {
                    name(kind::ANY, 1)
                };
            }
        };
        if id == 0 { 0 } else { name(kind, id) }
    }
}

/// Kinds of names.
pub mod kind {
    /// Everything but the router.
    pub const ANY: u32 = 0;
    /// A class of devices.
    pub const CLASS: u32 = 1;
    /// A zone.
    pub const ZONE: u32 = 2;
    /// A region of addresses.
    pub const REGION: u32 = 3;
}

/// A name of an end: its kind and its number.
#[inline(always)]
pub fn name(kind: u32, id: u32) -> u32 {
    kind << 28 | (id & 0x0fff_ffff)
}

/// The bit of a pair of kinds in [`End::from`] and [`End::to`].
#[inline(always)]
pub fn pair_bit(from: u32, to: u32) -> u16 {
    1 << (from * 4 + to)
}

/// Set in the opener's name of a pair that holds when one end is in quarantine.
pub const KEPT: u32 = 1 << 30;

/// Key of a pair of names: opener, which may have [`KEPT`], then the other end.
#[inline(always)]
pub fn pair_key(slot: u32, from: u32, to: u32) -> u64 {
    (slot as u64) << 63 | (from as u64) << 32 | to as u64
}

/// The part of the interval table that says what a pair may do.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Set {
    /// Index of the first interval.
    pub first: u32,
    /// Intervals; at least one, and the first starts at 0.
    pub count: u32,
}

/// What a pair may do from one service key up to the next interval's.
///
/// A service key is `protocol << 16 | port`, for ICMP `protocol << 16 | type << 8 | code`, and
/// `protocol << 16` for what has no ports. Order-free policy fits in one deny and one allow: of
/// several that match, the one that lasts longest is kept.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Interval {
    /// First service key.
    pub start: u32,
    /// Rule that denies; 0: none.
    pub deny: u32,
    /// Tick at which it ends.
    pub deny_until: u32,
    /// Rule that allows, with [`LOG`]; 0: none.
    pub allow: u32,
    /// Tick at which it ends.
    pub allow_until: u32,
}

/// Set in a rule number whose new flows make an event.
pub const LOG: u32 = 1 << 31;

/// What holds for every packet. Only what the daemon sets once, at load.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Settings {
    /// Buckets of the flow table.
    pub buckets: u32,
    /// Flows that the table may hold.
    pub flows: u32,
    /// Flows that one device may have open.
    pub flows_per_device: u32,
    /// The first account of unlisted MACs, behind those of devices.
    pub unlisted: u32,
    /// Jiffies in a second.
    pub jiffies_per_second: u32,
    /// Ticks that a TCP flow without answer lives.
    pub tcp_unanswered: u32,
    /// Ticks that an established TCP flow lives without a packet.
    pub tcp_established: u32,
    /// Ticks that a TCP flow lives after its end.
    pub tcp_closing: u32,
    /// Ticks that a UDP flow without answer lives.
    pub udp: u32,
    /// Ticks that an answered UDP flow lives without a packet.
    pub udp_answered: u32,
    /// Ticks that an ICMP flow lives without a packet.
    pub icmp: u32,
    /// Ticks that a learned address belongs to its device without being used.
    pub learned: u32,
    /// Ticks within which the parts of a fragmented packet must come.
    pub fragment: u32,
    /// Entries of [`Failsafe`] that count.
    pub failsafe: u32,
    /// What the flow table's hash starts from; secret, so that nobody can fill one bucket.
    pub seed: u64,
}

impl Settings {
    /// Flows for which there is a bucket.
    pub const IN_BUCKET: u32 = 3;

    /// The shortest time that any flow lives without a packet, in ticks.
    #[inline(always)]
    pub fn shortest(&self) -> u32 {
        let tcp = self.tcp_unanswered.min(self.tcp_established);
        let udp = self.udp.min(self.udp_answered);
        tcp.min(self.tcp_closing).min(udp).min(self.icmp)
    }

    /// Settings for so many flows, with the time-outs that RFC 5382, RFC 4787 and RFC 5508 ask
    /// for or that are shorter where a device's flows are better forgotten, at 250 jiffies a
    /// second.
    pub fn for_flows(flows: u32) -> Self {
        let ticks = |seconds: u32| (seconds * 250) >> TICK_SHIFT;
        Self {
            // More than twice the room: of a hundred buckets one is full when the table is. And
            // some more: in a small table a full bucket turns away many.
            buckets: flows.div_ceil(Self::IN_BUCKET) + 64,
            flows,
            flows_per_device: flows,
            unlisted: 1 << 24,
            jiffies_per_second: 250,
            tcp_unanswered: ticks(30),
            tcp_established: ticks(7440),
            tcp_closing: ticks(10),
            udp: ticks(30),
            udp_answered: ticks(180),
            icmp: ticks(30),
            learned: ticks(3600),
            fragment: ticks(5),
            failsafe: 0,
            seed: 0x5eed,
        }
    }
}

/// Who may always reach the router, and on which service keys, by the daemon's own configuration.
/// Array of [`FAILSAFES`], of which [`Settings::failsafe`] count.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Failsafe {
    /// The prefix.
    pub network: Address,
    /// The bits of an address that the prefix has.
    pub mask: Address,
    /// First service key.
    pub first: u32,
    /// Last service key.
    pub last: u32,
}

impl Failsafe {
    /// Whether an address is inside the prefix; never one of the other family.
    #[inline(always)]
    pub fn has(&self, address: &Address) -> bool {
        address.is_v4() == self.network.is_v4()
            && address.0[0] & self.mask.0[0] == self.network.0[0]
            && address.0[1] & self.mask.0[1] == self.network.0[1]
    }
}

/// What a flow is found by: both directions have the same key.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
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

/// A flow, both directions: one line of the cache, and all that a packet of an admitted flow needs.
/// Index 0 is the key's low end. What is needed less often is in [`FlowEnds`] and [`FlowHops`].
///
/// Counters are written without the bucket's lock, the rest under it. `state` is written whole.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Flow {
    /// The key, shortened: both IPv4 addresses, `low << 32 | high`, or a hash of the IPv6 addresses,
    /// which are in [`FlowEnds`]; and [`FlowKey::ports`], with [`FlowKey::V6`] for the latter.
    pub key: [Cell64; 2],
    /// `cell << 52 | bytes`: the cell of each end's epoch, and bytes from it; whole frames.
    pub counts: [Cell64; 2],
    /// Where each end's packets come from: through a guarded port `mac << 16 | ifindex`, else
    /// [`Flow::OWN`] or [`Flow::OUTSIDE`]; 0: no packet yet. Without an interface: it has to be asked
    /// about anew.
    pub bind: [Cell64; 2],
    /// Packets from each end.
    pub packets: [Cell32; 2],
    /// Sum of both ends' epoch cells when policy was last asked.
    pub stamp: Cell32,
    /// `low vlan << 20 | high vlan << 8 | bits` of [`state`].
    pub state: Cell32,
}

/// What a flow is between, and on what terms it was admitted.
#[repr(C)]
#[derive(Debug, Default)]
pub struct FlowEnds {
    /// [`FlowKey::low`] and [`FlowKey::high`], word by word.
    pub addresses: [Cell64; 4],
    /// Account of each end, of which a device's is its number.
    pub devices: [Cell32; 2],
    /// The rule that admitted it.
    pub rule: Cell32,
    /// Tick at which that rule ends.
    pub until: Cell32,
    /// For a flow that lives only by mode observe: the [`Reason`] it would be dropped for.
    pub would: Cell32,
    /// Packets that are counted for a rule that admitted it before.
    pub packets: Cell32,
    /// Bytes of these.
    pub bytes: Cell64,
}

/// What stands of a flow in its bucket: two lines of the cache side by side, which come together.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Way {
    /// The flow.
    pub flow: Flow,
    /// What it is between.
    pub ends: FlowEnds,
}

/// Where the ends of a flow are, for fast-forward.
#[repr(C)]
#[derive(Debug, Default)]
pub struct FlowHops {
    /// The next hop towards each end, as [`Flow::bind`]; 0: not known.
    pub hops: [Cell64; 2],
    /// `tick << 32 | length << 16 | change`: when that was asked, for how long a packet, and the low
    /// bits of [`Routes::change`] before.
    pub looked: [Cell64; 2],
}

/// Bits of [`Flow::state`].
pub mod state {
    /// The high end opened the flow.
    pub const OPENER_HIGH: u32 = 1;
    /// The other end has answered.
    pub const ANSWERED: u32 = 2;
    /// TCP: the opener has acknowledged the answer.
    pub const CONFIRMED: u32 = 4;
    /// TCP: the low end has sent FIN.
    pub const FIN_LOW: u32 = 8;
    /// TCP: the high end has sent FIN.
    pub const FIN_HIGH: u32 = 16;
    /// TCP: an end has sent RST.
    pub const RESET: u32 = 32;
    /// No rule admits it; it lives because its zones are in mode observe.
    pub const OBSERVED: u32 = 64;
    /// The rule that admits it ends.
    pub const ENDS: u32 = 128;
}

/// The kernel's lock; the name is how the kernel finds it in the map's type information.
#[repr(C)]
#[derive(Debug, Default)]
pub struct bpf_spin_lock {
    /// The kernel's.
    pub val: Cell32,
}

/// One bucket of the flow table: an array indexed by the key's hash, that begins at a page, so that no
/// flow is in two lines of the cache. Nineteen lines, an odd number, so that buckets do not crowd in
/// a few of its sets. All that is known of a flow is here: to find a page that is not in use costs
/// more than to read it.
///
/// A table of our own, because the kernel's can't do all of: one lookup for answered and
/// unanswered flows, eviction that spares answered ones, exact quotas, and reclaiming without the
/// daemon.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Bucket {
    /// Held while ways are taken, given back, or change state.
    pub lock: bpf_spin_lock,
    /// Ways whose [`FlowHops`] are theirs, not an earlier flow's: one bit for each.
    pub ahead: Cell32,
    /// High bits of each way's hash; 0: the way is free.
    pub tags: [Cell32; WAYS],
    /// Tick of each way's last packet.
    pub last: [Cell32; WAYS],
    /// The flows.
    pub ways: [Way; WAYS],
    /// Where that is.
    pub hops: [FlowHops; WAYS],
    /// Not used.
    pub rest: [Cell64; 4],
}

/// How many flows one account has open: a device's, or that of some unlisted MACs.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Quota {
    /// Flows without an answer.
    pub unanswered: Cell32,
    /// Flows that have been answered; for TCP, whose answer the opener has acknowledged.
    pub answered: Cell32,
}

/// A refusal by policy, remembered for a second by the processor that met it: whoever tries the same
/// again meanwhile is refused at once.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Denial {
    /// Source and destination address, word by word.
    pub addresses: [Cell64; 4],
    /// As [`Flow::bind`].
    pub bind: Cell64,
    /// `source port << 48 | destination port << 32 | service key`.
    pub ports: Cell64,
    /// `generation << 16 | vlan`: what policy said then is known by its generation.
    pub generation: Cell64,
    /// Tick from which on policy is asked again.
    pub until: Cell32,
    /// The device that was refused.
    pub device: Cell32,
    /// The rule that denies; 0: none.
    pub rule: Cell32,
    /// The [`Reason`].
    pub reason: Cell32,
    /// Packets that no event has told of.
    pub untold: Cell32,
    /// How many flows had been opened that share its place, when none was found.
    pub opened: Cell32,
}

/// Sets of denials that each processor has places for.
pub const DENIAL_SETS: u32 = 2048;
/// Denials in a set: so many that share it do not put each other out.
pub const DENIAL_WAYS: u32 = 4;
/// Denials in one entry of the map.
pub const DENIALS_AT: usize = 256;

/// What the parts of a fragmented packet are known by: the packet, and the port.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct FragmentKey {
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// As [`Flow::bind`]; for what leaves, with the interface above.
    pub bind: u64,
    /// Identification.
    pub identification: u32,
    /// VLAN; 0: untagged.
    pub vlan: u16,
    /// What the parts carry, as all of them say.
    pub protocol: u16,
}

/// A fragmented packet whose first part has passed.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Fragment {
    /// [`FlowKey::ports`] of its flow.
    pub ports: Cell64,
    /// Offset of the part that must come next, in bytes.
    pub next: Cell32,
    /// Tick of the first part.
    pub first: Cell32,
}

/// Packets and bytes.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counter {
    /// Packets.
    pub packets: u64,
    /// Bytes; whole frames.
    pub bytes: u64,
}

/// Cells of the table of gauges, shared by all processors.
pub mod gauge {
    /// Flows in the flow table.
    pub const FLOWS: u32 = 0;
    /// Events that the ring had no room for.
    pub const LOST_EVENTS: u32 = 1;
    /// The bucket that is looked at next for flows that have timed out.
    pub const SWEEP: u32 = 2;
    /// Flows in the flow table without an answer.
    pub const UNANSWERED: u32 = 3;
    /// Cells.
    pub const COUNT: u32 = 4;
}

/// A learned address: which device claimed it first.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Learned {
    /// The device's number.
    pub device: Cell32,
    /// Tick of the last packet from it that was judged by policy or by a guard.
    pub last: Cell32,
}

/// Where a device was last seen; array by device number.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Seen {
    /// Tick.
    pub last: Cell32,
    /// The interface.
    pub ifindex: Cell32,
}

/// What events are limited by: at most one a second for each.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct EventKey {
    /// The device; 0: none.
    pub device: u32,
    /// The rule; 0: none.
    pub rule: u32,
    /// The reason.
    pub reason: u32,
    /// The interface when there is no device, else 0.
    pub ifindex: u32,
}

/// When an event was last sent, and packets since that it did not count.
#[repr(C)]
#[derive(Debug, Default)]
pub struct EventLimit {
    /// Jiffies.
    pub last: Cell64,
    /// Packets since.
    pub suppressed: Cell64,
}

/// One verdict, told to the daemon.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Event {
    /// Revision that judged it.
    pub revision: u64,
    /// Packets that it stands for.
    pub count: u64,
    /// Source address; unspecified when the frame has none.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// Source MAC.
    pub source_mac: u64,
    /// Destination MAC.
    pub destination_mac: u64,
    /// The rule, without [`LOG`]; 0: none.
    pub rule: u32,
    /// The device; 0: none.
    pub device: u32,
    /// The interface.
    pub ifindex: u32,
    /// Source port, or an echo's identifier.
    pub source_port: u16,
    /// Destination port, or ICMP `type << 8 | code`.
    pub destination_port: u16,
    /// VLAN; 0: untagged.
    pub vlan: u16,
    /// Zone of the device, or of the port's VLAN.
    pub zone: u16,
    /// EtherType.
    pub ethertype: u16,
    /// IP protocol.
    pub protocol: u8,
    /// [`Reason`]; when [`Event::OBSERVED`] is set, what it would have been dropped for.
    pub reason: u8,
    /// [`Event::OBSERVED`], [`Event::EGRESS`].
    pub flags: u32,
    /// Not used.
    pub reserved: u32,
}

impl Event {
    /// It passed only because the zones are in mode observe.
    pub const OBSERVED: u32 = 1;
    /// It was judged on its way out of the interface.
    pub const EGRESS: u32 = 2;
}

macro_rules! sizes {
    ($($type:ty = $size:literal),* $(,)?) => {
        $(const _: () = assert!(size_of::<$type>() == $size);)*
    };
}

sizes! {
    Address = 16, Port = 4, Mac = 48, AddressKey = 24, PrefixKey = 20, End = 20, Set = 8,
    Interval = 20, Settings = 64, Failsafe = 40, Forwarding = 16, Routes = 8, FlowKey = 40, Flow = 64,
    FlowEnds = 64, FlowHops = 32, Bucket = 1216, Quota = 8, Denial = 80,
    FragmentKey = 48, Fragment = 16, Counter = 16,
    Learned = 8, Seen = 8, EventKey = 16, EventLimit = 16, Event = 96,
}

impl FlowKey {
    /// Set in the ports of a key that is between IPv6 addresses, where the table holds it.
    pub const V6: u64 = 1 << 17;
}

impl Flow {
    /// In [`Flow::bind`]: the router itself sends them.
    pub const OWN: u64 = 1;
    /// In [`Flow::bind`]: they come from where no port is guarded.
    pub const OUTSIDE: u64 = 2;
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

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn v6(text: &str) -> Address {
        Address::v6(&text.parse::<std::net::Ipv6Addr>().unwrap().octets())
    }

    #[test]
    fn addresses_are_told_apart() {
        let v4 = Address::v4([10, 0, 0, 1]);
        assert!(v4.is_v4() && !v4.is_group() && !v4.is_martian_source());
        assert_eq!(v4, v6("::ffff:10.0.0.1"));
        assert!(Address::v4([224, 0, 0, 251]).is_group());
        assert!(Address::v4([224, 0, 0, 251]).is_link_scope_group());
        assert!(!Address::v4([239, 1, 1, 1]).is_link_scope_group());
        assert!(Address::v4([255; 4]).is_group());
        assert!(Address::v4([127, 0, 0, 1]).is_martian_source());
        assert!(Address::v4([0; 4]).is_unspecified());
        assert!(v6("::").is_unspecified() && !v6("::2").is_unspecified());
        assert!(v6("fe80::1").is_link_local() && v6("febf::1").is_link_local());
        assert!(!v6("fec0::1").is_link_local() && !v6("2001:db8::1").is_link_local());
        assert!(v6("ff02::1").is_group() && v6("ff02::1").is_link_scope_group());
        assert!(!v6("ff05::1").is_link_scope_group());
        assert!(v6("::1").is_martian_source() && v6("ff02::1").is_martian_source());
        assert!(v6("::10.0.0.1").is_martian_source() && !v6("::1:0:0:1").is_martian_source());
        assert!(v6("::1").is_martian_destination() && v6("::").is_martian_destination());
        assert!(Address::v4([127, 0, 0, 1]).is_martian_destination());
        assert!(!v4.is_martian_destination() && !v6("ff02::1").is_martian_destination());
    }

    #[test]
    fn reasons_keep_their_numbers() {
        for reason in Reason::ALL {
            assert_eq!(Reason::from_number(reason as u8), Some(reason));
            assert!((reason as u32) < Reason::COUNT);
        }
        assert_eq!(Reason::from_number(0), None);
        assert!(!Reason::NotReady.passes() && Reason::Rule.passes());
    }
}
