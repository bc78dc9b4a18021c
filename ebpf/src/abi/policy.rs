//! The compiled form of a revision: ports, zones, devices, ends, and what pairs of ends may do.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Address, ROUTER};

/// A guarded interface, or one above guarded ports that passes on what they let in (the bridge
/// above a port, a VLAN interface on it). Array of `interface * 2 + slot`.
#[repr(C)]
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, Immutable, IntoBytes, KnownLayout,
)]
pub struct Port {
    /// Zone of untagged frames; 0: none.
    pub zone: u16,
    /// [`Port::GUARDED`] and the like.
    pub flags: u16,
    /// The link that it is on: the interface's own number, or that of the bridge or bond above it. On
    /// one link a link-local address is one host's.
    pub link: u32,
    /// Its MAC; 0: none. What it is sent by hosts on a link of its own mostly goes there.
    pub mac: u64,
}

impl Port {
    /// Packets are judged here.
    pub const GUARDED: u16 = 1;
    /// Packets that arrive through this interface may have entered through a guarded port below it,
    /// and are judged as if they had.
    pub const ABOVE: u16 = 2;
    /// DHCP server messages may enter.
    pub const DHCP_SERVER: u16 = 4;
    /// Router advertisements and redirects may enter.
    pub const ROUTER: u16 = 8;
    /// Every zone on this port is in mode observe.
    pub const OBSERVES: u16 = 16;
    /// Every zone is in mode observe that is on another port to which a bridge may pass on frames
    /// of this one.
    pub const NEIGHBOURS_OBSERVE: u16 = 32;
    /// The port is in quarantine, and so is whoever is behind it.
    pub const QUARANTINED: u16 = 64;
    /// The router has NAT of IPv4, and packets that arrive here are for it to route: each was judged
    /// at a guarded port, or the interface is neither above one nor a port of a bridge.
    pub const NAT_V4: u16 = 128;
    /// The same of IPv6.
    pub const NAT_V6: u16 = 256;
    /// No zone observes through which packets may have come that arrive here: policy has admitted
    /// each of them.
    pub const ADMITTED: u16 = 512;
    /// It is not guarded, but on a bridge with guarded ports: a host behind it may have an address
    /// of the bridge's network.
    pub const BESIDE: u16 = 1024;

    /// It has no link header: packets begin with IP, and no MAC tells their senders.
    pub const BARE: u16 = 2048;
    /// It is a port of a bridge or a bond, which may send the frames of others through it.
    pub const MEMBER: u16 = 4096;

    /// Index of an interface's entry.
    #[inline(always)]
    pub fn index(interface: u32, slot: u32) -> u32 {
        interface * 2 + slot
    }
}

/// Key of the zone of tagged frames on one (interface, VLAN).
#[inline(always)]
pub fn vlan_key(slot: u32, interface: u32, vlan: u16) -> u64 {
    (slot as u64) << 63 | (interface as u64) << 32 | vlan as u64
}

/// Key that exists when an interface carries a zone, on any VLAN.
#[inline(always)]
pub fn carries_key(slot: u32, interface: u32, zone: u16) -> u64 {
    (slot as u64) << 63 | (interface as u64) << 32 | 1 << 16 | zone as u64
}

/// Key that exists when some guarded port of a link carries a zone, on any VLAN. The ports of the link
/// are members of a bridge or a bond.
#[inline(always)]
pub fn link_key(slot: u32, link: u32, zone: u16) -> u64 {
    (slot as u64) << 63 | (link as u64) << 32 | 1 << 17 | zone as u64
}

/// Key that exists when a device without MACs is behind an interface without a link header.
#[inline(always)]
pub fn behind_key(slot: u32, interface: u32, device: u32) -> u64 {
    (slot as u64) << 63 | 1 << 61 | (interface as u64) << 32 | device as u64
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
    /// What would be dropped passes, and is reported.
    pub const OBSERVE: u32 = 2;
    /// The zone is on some guarded port.
    pub const HAS_PORTS: u32 = 4;
    /// Unlisted MACs may send.
    pub const ADMIT_ANY: u32 = 8;
    /// Fragments may pass.
    pub const FRAGMENTS: u32 = 16;
    /// IPv4 options and IPv6 extension headers may pass.
    pub const IP_OPTIONS: u32 = 32;
    /// Some rule lets others answer what goes to groups.
    pub const ANSWERS: u32 = 64;
    /// Some rule names others by their names.
    pub const NAMES: u32 = 128;
    /// Such a rule is for any opener but the router.
    pub const ANY_NAMES: u32 = 256;

    /// The value at index 0, which no zone has: the kinds of pairs that exist with `any` as the
    /// opener and as the other end. They hold for every end but the router, besides its own
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

/// The device that a MAC belongs to; [`ROUTER`]: one of the router's own interfaces.
#[repr(C)]
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, Immutable, IntoBytes, KnownLayout,
)]
pub struct Mac {
    /// The device's number.
    pub device: u32,
    /// The only interface where it may appear; 0: any of its zone.
    pub interface: u32,
    /// Its zone.
    pub zone: u16,
    /// [`End::QUARANTINED`], [`End::LEARNS`], [`Mac::ROUTERS`].
    pub flags: u16,
    /// What [`Mac::address`] stands for; its device is 0 when the device has no listed address.
    pub end: End,
    /// The first of the device's listed addresses. Most devices have only one, and finding it here
    /// saves a lookup.
    pub address: Address,
}

impl Mac {
    /// An interface of the router has this MAC, whichever device lists it. Two routers that share an
    /// address also share the MAC of it (RFC 9568 section 7.3).
    pub const ROUTERS: u16 = 1 << 15;
}

/// One end of a flow, as policy sees it: what an address stands for.
///
/// An end has up to four names, one of each kind: the class of its device (devices that the same
/// rules name share one), its zone, its region (addresses inside the same `cidr:` selectors) and
/// `any`. Policy is looked up for pairs of names. `from` and `to` say which kinds of pairs exist at
/// all with the first three, one bit for each [`pair_bit`], so that no lookup is made that can't
/// succeed; [`zone::pairs_of_any`] does the same for the fourth.
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
    /// Copies another end, field by field: to copy the whole structure the compiler makes a call,
    /// and the verifier adds the callee's frame to the stack.
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

    /// The device is in quarantine.
    pub const QUARANTINED: u16 = 1;
    /// The device has MACs, so it is behind a guarded port, never behind an unguarded one.
    pub const GUARDED: u16 = 2;
    /// The device has no listed IPv4 address, and may take free ones of its zone.
    pub const LEARNS_V4: u16 = 4;
    /// The same for IPv6.
    pub const LEARNS_V6: u16 = 8;
    /// Of a prefix: a network that the router reaches directly, through a guarded interface or one
    /// above. Its hosts are believed only from there.
    pub const CONNECTED: u16 = 16;
    /// Of a prefix: several zones have it, and only its device tells of which one an address is.
    pub const SHARED: u16 = 32;
    /// Some rule lets it open flows to ends that are known by their names.
    pub const NAMES: u16 = 64;
    /// Of a prefix: its zone has all addresses that are in no other, and no port. So nothing inside is meant.
    pub const ELSEWHERE: u16 = 128;
    /// It may take addresses of either family.
    pub const LEARNS: u16 = Self::LEARNS_V4 | Self::LEARNS_V6;

    /// The flag of a device that may take addresses of the family that this one is of.
    #[inline(always)]
    pub fn learns(address: &Address) -> u16 {
        if address.is_v4() {
            Self::LEARNS_V4
        } else {
            Self::LEARNS_V6
        }
    }

    /// Whether this is the router.
    #[inline(always)]
    pub fn is_router(&self) -> bool {
        self.device == ROUTER
    }

    /// This end's name of a kind, as pairs hold it; 0 when it has none.
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
    /// A name of DNS, as a rule selects it. Only the other end has names of this kind, any number of
    /// them, and no [`pair_bit`](super::pair_bit) stands for them.
    pub const DOMAIN: u32 = 4;
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

/// Set in the opener's name of a pair that also holds while one end is in quarantine.
pub const KEPT: u32 = 1 << 30;

/// Key of a pair of names: opener, which may have [`KEPT`], then the other end.
#[inline(always)]
pub fn pair_key(slot: u32, from: u32, to: u32) -> u64 {
    (slot as u64) << 63 | (from as u64) << 32 | to as u64
}

/// The part of the interval table that says what a pair may do.
#[repr(C)]
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, Immutable, IntoBytes, KnownLayout,
)]
pub struct Set {
    /// Index of the first interval.
    pub first: u32,
    /// Intervals; at least one, and the first starts at 0.
    pub count: u32,
}

/// What a pair may do from one service key up to the start of the next interval.
///
/// A service key is `protocol << 16 | port`, for ICMP `protocol << 16 | type << 8 | code`, and
/// `protocol << 16` for protocols without ports. The order of rules has no effect, so one deny and
/// one allow suffice: of several that match, the one that lasts longest is kept.
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

/// Set in the number of a rule that lets others answer what it lets through to a group.
pub const ASKS: u32 = 1 << 30;

/// What a rule number carries besides the number.
pub const RULE_FLAGS: u32 = LOG | ASKS;

/// The service key of the answers to what a rule has let through to a group. It is above the keys of
/// all services.
#[inline(always)]
pub fn answer_key(rule: u32) -> u32 {
    1 << 24 | (rule & 0xff_ffff)
}
