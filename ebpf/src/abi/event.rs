//! Events and counters: what the daemon learns about verdicts.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::Address;
use crate::cell::{Cell32, Cell64};

/// Packets and bytes.
#[repr(C)]
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, Immutable, IntoBytes, KnownLayout,
)]
pub struct Counter {
    /// Packets.
    pub packets: u64,
    /// Bytes; whole frames.
    pub bytes: u64,
}

/// The key by which events are limited: at most one event a second for each key.
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
    FromBytes,
    Immutable,
    IntoBytes,
    KnownLayout,
)]
pub struct EventKey {
    /// The device; 0: none.
    pub device: u32,
    /// The rule; 0: none.
    pub rule: u32,
    /// The reason.
    pub reason: u32,
    /// The interface when there is no device, else 0.
    pub interface: u32,
    /// The other end: the number of its device, or [`EventKey::ADDRESS`] and one of
    /// [`EventKey::SHARES`] that addresses of no device share by hash.
    pub peer: u32,
}

impl EventKey {
    /// In [`EventKey::peer`]: the other end is no device.
    pub const ADDRESS: u32 = 1 << 31;
    /// Shares of all other ends that are no device; a power of two.
    pub const SHARES: u32 = 4;
}

/// Words of [`EventLimit::marks`].
pub const MARKS: usize = 4;

/// When an event was last sent, and what has been suppressed since.
#[repr(C)]
#[derive(Debug, Default, FromBytes, IntoBytes, KnownLayout)]
pub struct EventLimit {
    /// Jiffies.
    pub last: Cell64,
    /// Packets since then for which no event was sent.
    pub suppressed: Cell64,
    /// One bit for each destination of those packets, by hash.
    pub marks: [Cell64; MARKS],
}

/// The events that one device, or an interface where the device is not known, has made in this
/// second.
#[repr(C)]
#[derive(Debug, Default, FromBytes, IntoBytes, KnownLayout)]
pub struct EventBudget {
    /// Jiffies at which the second began.
    pub since: Cell64,
    /// Events about other ends that are no device.
    pub elsewhere: Cell32,
    /// Events about devices of which another was sent a while before.
    pub again: Cell32,
    /// Events about devices of which none was.
    pub first: Cell32,
    /// Not used.
    pub reserved: Cell32,
}

/// Most bytes that are copied of a DHCP client's message.
pub const MESSAGE: usize = 1024;

/// A DHCP client's message, as it is copied to the daemon: what a device says of itself.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
pub struct ClientMessage {
    /// Source MAC.
    pub mac: u64,
    /// The interface where it has entered.
    pub interface: u32,
    /// [`ClientMessage::V4`], [`ClientMessage::PASSED`].
    pub flags: u32,
    /// VLAN; 0: untagged.
    pub vlan: u16,
    /// Zone of the device, or of the port's VLAN.
    pub zone: u16,
    /// How many bytes there are.
    pub length: u16,
    /// Not used.
    pub reserved: u16,
    /// What is behind the UDP header.
    pub bytes: [u8; MESSAGE],
}

impl ClientMessage {
    /// It is of DHCPv4, else of DHCPv6.
    pub const V4: u32 = 1;
    /// It passed.
    pub const PASSED: u32 = 2;
}

/// One verdict, as it is reported to the daemon.
#[repr(C)]
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, Immutable, IntoBytes, KnownLayout,
)]
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
    /// The rule, without [`LOG`](super::LOG); 0: none.
    pub rule: u32,
    /// The device; 0: none.
    pub device: u32,
    /// The interface.
    pub interface: u32,
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
    /// [`Reason`](super::Reason); when [`Event::OBSERVED`] is set, the reason for which the packet
    /// would have been dropped.
    pub reason: u8,
    /// [`Event::OBSERVED`], [`Event::EGRESS`].
    pub flags: u32,
    /// How many bits of [`EventLimit::marks`] the packets have set.
    pub destinations: u32,
}

impl Event {
    /// The packet passed only because the zones are in mode observe.
    pub const OBSERVED: u32 = 1;
    /// The packet was judged on its way out of the interface.
    pub const EGRESS: u32 = 2;
}
