//! What the daemon sets besides policy: settings, failsafe, and what fast-forward may do.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Address, TICK_SHIFT};

/// Settings that hold for every packet. The daemon sets them once, at load.
#[repr(C)]
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, Immutable, IntoBytes, KnownLayout,
)]
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
    /// Ticks after which an unused learned address is free again.
    pub learned: u32,
    /// Ticks within which all parts of a fragmented packet must arrive.
    pub fragment: u32,
    /// Number of [`Failsafe`] entries in use.
    pub failsafe: u32,
    /// Packets of control that one device may send in a second.
    pub control: u32,
    /// The same for a device in quarantine.
    pub control_in_quarantine: u32,
    /// Learned addresses that one device may have in each family.
    pub learned_per_device: u32,
    /// Learned addresses that all devices at one port may have in each family.
    pub learned_per_port: u32,
    /// Addresses that one name of the policy may have; a multiple of [`NAMED_WAYS`](super::NAMED_WAYS).
    pub addresses_per_name: u32,
    /// Ticks for which an address of a name counts at least.
    pub name_least: u32,
    /// Seed of the flow table's hash; secret, so that an attacker can't aim flows at one bucket.
    pub seed: u64,
}

impl Settings {
    /// Flows for which one bucket is allotted.
    pub const IN_BUCKET: u32 = 3;

    /// The shortest time that any flow lives without a packet, in ticks.
    #[inline(always)]
    pub fn shortest(&self) -> u32 {
        let tcp = self.tcp_unanswered.min(self.tcp_established);
        let udp = self.udp.min(self.udp_answered);
        tcp.min(self.tcp_closing).min(udp).min(self.icmp)
    }

    /// The ticks of a second; rounded up.
    #[inline(always)]
    pub fn second(&self) -> u32 {
        self.jiffies_per_second.wrapping_add((1 << TICK_SHIFT) - 1) >> TICK_SHIFT
    }

    /// The ticks of a day.
    #[inline(always)]
    pub fn day(&self) -> u32 {
        ((self.jiffies_per_second as u64 * 86_400) >> TICK_SHIFT) as u32
    }

    /// Settings for so many flows, at 250 jiffies a second. Time-outs are those of RFC 5382, RFC
    /// 4787 and RFC 5508, or shorter.
    pub fn for_flows(flows: u32) -> Self {
        let ticks = |seconds: u32| (seconds * 250) >> TICK_SHIFT;
        Self {
            // More than twice the room that is needed: with a full table, one bucket in a hundred
            // is full. The 64 more are for small tables, where one full bucket turns away many
            // flows.
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
            control: 300,
            control_in_quarantine: 10,
            learned_per_device: 16,
            learned_per_port: 1024,
            addresses_per_name: 1024,
            name_least: ticks(60),
            seed: 0x5eed,
        }
    }
}

/// Hosts that may always reach the router, and on which service keys, by the daemon's own
/// configuration. Array of [`FAILSAFES`](super::FAILSAFES), of which the first
/// [`Settings::failsafe`] are in use.
#[repr(C)]
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, Immutable, IntoBytes, KnownLayout,
)]
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

/// Whether packets may be forwarded in the driver through an interface, as the daemon has found
/// out. Array by the interface's number.
#[repr(C)]
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, Immutable, IntoBytes, KnownLayout,
)]
pub struct Forwarding {
    /// Its own MAC.
    pub mac: u64,
    /// [`Forwarding::ENTERS`], [`Forwarding::LEAVES`].
    pub flags: u32,
    /// Its index, by which the kernel knows it.
    pub ifindex: u32,
}

impl Forwarding {
    /// Packets that enter here may be forwarded.
    pub const ENTERS: u32 = 1;
    /// Forwarded packets may leave here.
    pub const LEAVES: u32 = 2;
    /// Packets that enter may come from this machine itself, with checksums that are still
    /// incomplete.
    pub const PARTIAL: u32 = 4;
}

/// What the daemon reports of routes and neighbours, so that next hops can be kept.
#[repr(C)]
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, Immutable, IntoBytes, KnownLayout,
)]
pub struct Routes {
    /// Changes with every change of routes or neighbours.
    pub version: u32,
    /// Tick until which the daemon vouches that it reports every change. It is always near, because
    /// a daemon that has died reports nothing.
    pub until: u32,
}
