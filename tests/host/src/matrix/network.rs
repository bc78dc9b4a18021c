//! The network of the matrix's rows: its policy, its hosts, and their frames.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::case::{Family, Origin};
use wardline_oracle::frames::{Ethernet, Ipv4, Ipv6, Mac, Packet, Tcp, Udp, Upper, ip};

/// The policy as written. Settings change it ([`super::case::Setting`]).
pub const POLICY: &str = r#"version: 1
zones:
  - {name: pumps, subnets: [10.20.1.0/24, "fd20:0:0:1::/64"]}
  - {name: cameras, subnets: [10.20.2.0/24, "fd20:0:0:2::/64"]}
  - {name: infusions, subnets: [10.20.4.0/24, "fd20:0:0:4::/64"]}
  - {name: monitors, subnets: [10.20.4.0/24, "fd20:0:0:4::/64"]}
  - {name: servers, subnets: [10.20.9.0/24, "fd20:0:0:9::/64", 192.31.196.128/25, "2001:4:112:80::/64"]}
ports:
  - {interface: lan1, zone: pumps, vlans: [{id: 20, zone: cameras}]}
  - {interface: lan2, zone: cameras}
  - {interface: lan3, zone: pumps}
  - {interface: trunk, vlans: [{id: 10, zone: pumps}, {id: 20, zone: cameras}]}
  - {interface: lan4, zone: cameras}
  - {interface: flat1, zone: infusions}
  - {interface: flat2, zone: monitors}
devices:
  - {name: pump, zone: pumps, macs: ["02:00:00:00:01:01"], addresses: [10.20.1.11, "fd20:0:0:1::11"]}
  - {name: pinned, zone: pumps, macs: ["02:00:00:00:01:02"], addresses: [10.20.1.12, "fd20:0:0:1::12"], port: lan1}
  - {name: twofold, zone: pumps, macs: ["02:00:00:00:01:03", "02:00:00:00:01:04"], addresses: [10.20.1.13, "fd20:0:0:1::13"]}
  - {name: camera, zone: cameras, macs: ["02:00:00:00:02:01"], addresses: [10.20.2.21, "fd20:0:0:2::21"]}
  - {name: bedside, zone: cameras, macs: ["02:00:00:00:02:06"], addresses: [10.20.2.56, "fd20:0:0:2::56"], port: lan4}
  - {name: shy, zone: cameras, macs: ["02:00:00:00:02:02"]}
  - {name: coy, zone: cameras, macs: ["02:00:00:00:02:03"]}
  - {name: half, zone: cameras, macs: ["02:00:00:00:02:04"], addresses: [10.20.2.54]}
  - {name: fixed, zone: cameras, macs: ["02:00:00:00:02:05"], addresses: [10.20.2.55], learn: false}
  - {name: flat-pump, zone: infusions, macs: ["02:00:00:00:04:01"], addresses: [10.20.4.41, "fd20:0:0:4::41"]}
  - {name: flat-dhcp-pump, zone: infusions, macs: ["02:00:00:00:04:02"]}
  - {name: flat-monitor, zone: monitors, macs: ["02:00:00:00:04:03"]}
  - {name: records, zone: servers, addresses: [10.20.9.10, "fd20:0:0:9::10"]}
  - {name: archive, zone: servers, addresses: [10.20.9.11, "fd20:0:0:9::11"]}
  - {name: media, zone: servers, addresses: [10.20.9.12, "fd20:0:0:9::12"]}
  - {name: vpn, zone: servers, addresses: [10.20.9.13, "fd20:0:0:9::13"]}
  - {name: closed, zone: servers, addresses: [10.20.9.14, "fd20:0:0:9::14"]}
  - {name: published, zone: servers, addresses: [192.175.48.6, "2620:4f:8000::6"]}
services:
  - {name: hl7, ports: [tcp/2575]}
  - {name: tunnels, ports: [proto/4, proto/41, proto/47, proto/94, proto/97, proto/115, proto/137, udp/4000-5000, udp/6081, udp/8472]}
rules:
  - {name: to-records, from: [zone:pumps], to: [device:records], services: [hl7, tcp/8000-8010, udp/514], action: allow}
  - {name: no-maintenance, from: [device:pump], to: [device:records], services: [tcp/8005], action: deny}
  - {name: was-denied, from: [device:pump], to: [device:records], services: [tcp/8006], action: deny, expires: "2020-01-01T00:00:00Z"}
  - {name: ping, from: [zone:pumps], to: [any], services: [icmp/8, icmpv6/128], action: allow}
  - {name: web, from: [zone:pumps, zone:cameras], to: [any], services: [tcp/443], action: allow}
  - {name: blocked, from: [zone:pumps], to: ["cidr:198.51.100.0/24", "cidr:2001:db8:bad::/48"], action: deny}
  - {name: was-allowed, from: [zone:pumps], to: [any], services: [udp/123], action: allow, expires: "2020-01-01T00:00:00Z"}
  - {name: no-answers, from: [zone:pumps], to: [zone:cameras], services: [udp/5354], action: deny}
  - {name: watch, from: [router], to: [zone:cameras], services: [tcp/555], action: allow}
  - {name: to-router, from: [zone:pumps], to: [router], services: [udp/53], action: allow}
  - {name: from-router, from: [router], to: [zone:pumps], services: [tcp/80, icmp/8, icmpv6/128], action: allow}
  - {name: queries, from: [device:records], to: [zone:pumps], services: [tcp/5000, udp/5000], action: allow}
  - {name: view, from: [device:pump], to: [device:camera], services: [tcp/554], action: allow}
  - {name: flat-report, from: [zone:infusions], to: [zone:monitors], services: [tcp/2575], action: allow}
  - {name: flat-out, from: [zone:infusions], to: [device:records], services: [tcp/2575], action: allow}
  - {name: infusion, from: [device:pump], to: [device:pinned], services: [tcp/9100], action: allow}
  - {name: to-servers, from: [zone:pumps], to: [zone:servers], services: [tcp/22], action: allow}
  # the internet
  - {name: browse, from: [zone:pumps], to: [internet], services: [tcp/8443], action: allow}
  - {name: visits, from: [internet], to: [zone:pumps], services: [tcp/8444], action: allow}
  - {name: outside-only, from: [zone:pumps], to: [internet], services: [tcp/9443], action: deny}
  - {name: everywhere, from: [zone:pumps], to: [any], services: [tcp/9443], action: allow}
  # tunnels
  - {name: all-of-archive, from: [zone:pumps], to: [device:archive], services: ["tcp/*", "udp/*", "icmp/*", "icmpv6/*", proto/50, proto/132], action: allow}
  - {name: all-udp-of-media, from: [zone:pumps], to: [device:media], services: ["udp/*"], action: allow}
  - {name: tunnels-to-vpn, from: [zone:pumps], to: [device:vpn], services: [tunnels], action: allow}
  - {name: tunnels-to-closed, from: [zone:pumps], to: [device:closed], services: [tunnels], action: allow}
  - {name: nothing-to-closed, from: [zone:pumps], to: [device:closed], action: deny}
  # groups
  - {name: announce, from: [zone:pumps], to: ["cidr:239.1.0.0/16", "cidr:ff15::1:0/112"], services: [udp/5004], action: allow}
  - {name: router-announces, from: [router], to: ["cidr:239.1.0.0/16", "cidr:ff15::1:0/112"], services: [udp/5005], action: allow}
  - {name: records-announce, from: [device:records], to: ["cidr:239.1.0.0/16", "cidr:ff15::1:0/112"], services: [udp/5006], action: allow}
  - {name: find-by-group, from: [zone:cameras], to: ["cidr:239.2.0.0/16", "cidr:ff15::2:0/112"], services: [udp/3702], action: allow}
  - {name: find-in-pumps, from: [zone:cameras], to: [zone:pumps, "cidr:239.2.0.0/16", "cidr:ff15::2:0/112"], services: [udp/3703], action: allow}
  - {name: find-anywhere, from: [zone:cameras], to: [any], services: [udp/3704-3705], action: allow}
  - {name: not-in-pumps, from: [zone:cameras], to: [zone:pumps], services: [udp/3705], action: deny}
  - {name: search, from: [zone:cameras, router], to: ["cidr:239.3.0.0/16", "cidr:ff15::3:0/112"], services: [udp/1900], answers_from: [zone:pumps, device:records], action: allow}
  - {name: mend, from: [zone:pumps, device:records], to: [zone:pumps, device:records], services: [tcp/2222], action: allow, keep_in_quarantine: true}
  # link-local
  - {name: on-link, from: ["cidr:fe80::/10"], to: ["cidr:fe80::/10", "cidr:ff02::/16"], services: [proto/112], action: allow}
  # broadcasts
  - {name: who-is, from: [zone:pumps], to: [router, zone:pumps], services: [udp/47808], action: allow}
  - {name: who-is-in-pumps, from: [zone:pumps], to: [zone:pumps], services: [udp/47809], action: allow}
  - {name: wake, from: [zone:pumps, router], to: ["cidr:10.20.1.0/24", "cidr:fd20:0:0:1::/64"], services: [udp/9], action: allow}
  # names
  - {name: updates, from: [zone:pumps], to: ["name:updates.vendor.example"], services: [tcp/7443, tcp/9443], action: allow}
  - {name: mirrors, from: [zone:pumps], to: ["name:*.mirrors.example"], services: [tcp/7444], action: allow}
  - {name: was-updated, from: [zone:pumps], to: ["name:updates.vendor.example"], services: [tcp/7446], action: allow, expires: "2020-01-01T00:00:00Z"}
  - {name: not-that-group, from: [any], to: ["cidr:239.9.0.0/16", "cidr:ff15::9:0/112"], action: deny}
resolvers: [{address: 10.20.9.12}, {address: "fd20:0:0:9::12"}]
"#;

/// Interfaces of the router: those that the policy guards, and an uplink.
pub const GUARDED: [&str; 7] = [LAN1, LAN2, LAN3, LAN4, TRUNK, FLAT1, FLAT2];
/// Untagged the zone pumps, VLAN 20 the zone cameras.
pub const LAN1: &str = "lan1";
/// Untagged the zone cameras.
pub const LAN2: &str = "lan2";
/// Untagged the zone pumps; in the bridge `br0`.
pub const LAN3: &str = "lan3";
/// Untagged the zone cameras; in the same bridge.
pub const LAN4: &str = "lan4";
/// Untagged the zone infusions.
pub const FLAT1: &str = "flat1";
/// Untagged the zone monitors, which has the same prefixes.
pub const FLAT2: &str = "flat2";
/// VLAN 10 the zone pumps, VLAN 20 the zone cameras, nothing untagged.
pub const TRUNK: &str = "trunk";

pub const ROUTER_ITSELF: Origin = Origin::Router;
pub const UPLINK: Origin = Origin::Interface("uplink");
pub const BRIDGE: Origin = Origin::Interface("br0");
/// A port of another bridge, which is not guarded.
pub const WILD: Origin = Origin::Interface("wild");
/// Not guarded, on a bridge with `trunk`.
pub const SIDE: Origin = Origin::Interface("side");
pub const FROM_LAN1: Origin = Origin::Interface(LAN1);
pub const FROM_LAN2: Origin = Origin::Interface(LAN2);

/// A device, server, router or group on the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Party {
    pub name: &'static str,
    pub mac: Mac,
    pub v4: Ipv4Addr,
    pub v6: Ipv6Addr,
}

impl Party {
    pub fn at(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.v4.into(),
            Family::V6 => self.v6.into(),
        }
    }
}

const fn party(name: &'static str, mac: [u8; 2], net: u8, host: u8) -> Party {
    Party {
        name,
        mac: [2, 0, 0, 0, mac[0], mac[1]],
        v4: Ipv4Addr::new(10, 20, net, host),
        // The digits of 10.20.1.11 and fd20:0:0:1::11 look the same.
        v6: Ipv6Addr::new(0xfd20, 0, 0, net as u16, 0, 0, 0, as_written(host)),
    }
}

/// The number whose hexadecimal digits are the decimal ones of another.
const fn as_written(number: u8) -> u16 {
    (number / 100 % 10) as u16 * 256 + (number / 10 % 10) as u16 * 16 + (number % 10) as u16
}

pub const PUMP: Party = party("pump", [1, 1], 1, 11);
pub const PINNED: Party = party("pinned", [1, 2], 1, 12);
pub const TWOFOLD: Party = party("twofold", [1, 3], 1, 13);
pub const TWOFOLDS_OTHER_MAC: Mac = [2, 0, 0, 0, 1, 4];
pub const CAMERA: Party = party("camera", [2, 1], 2, 21);
/// Belongs to the port `lan4`.
pub const BEDSIDE: Party = party("bedside", [2, 6], 2, 56);
/// Devices without listed addresses, each with an address that it takes.
pub const SHY: Party = party("shy", [2, 2], 2, 50);
pub const COY: Party = party("coy", [2, 3], 2, 51);
/// Lists an IPv4 address only.
pub const HALF: Party = party("half", [2, 4], 2, 54);
/// The same, and learns none.
pub const FIXED: Party = party("fixed", [2, 5], 2, 55);
/// In zones that share their prefixes.
pub const FLAT_PUMP: Party = party("flat pump", [4, 1], 4, 41);
/// Lists no address.
pub const FLAT_DHCP_PUMP: Party = party("flat pump on DHCP", [4, 2], 4, 42);
/// The same, in the other zone.
pub const FLAT_MONITOR: Party = party("flat monitor", [4, 3], 4, 43);
/// An unlisted MAC, with an address of the zone pumps that no device has.
pub const STRANGER: Party = party("stranger", [0xee, 1], 1, 77);
/// Behind the uplink; none of them has a MAC in the policy.
pub const RECORDS: Party = party("records", [0xff, 2], 9, 10);
pub const ARCHIVE: Party = party("archive", [0xff, 2], 9, 11);
pub const MEDIA: Party = party("media", [0xff, 2], 9, 12);
pub const VPN: Party = party("vpn", [0xff, 2], 9, 13);
pub const CLOSED: Party = party("closed", [0xff, 2], 9, 14);
/// In the subnet of the servers, but no device.
pub const SERVER: Party = party("some server", [0xff, 2], 9, 99);
/// In no zone.
pub const FAR: Party = Party {
    name: "far",
    mac: [2, 0, 0, 0, 0xff, 2],
    v4: Ipv4Addr::new(192, 0, 2, 1),
    v6: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1),
};
/// In a network that a rule denies.
pub const BLOCKED: Party = Party {
    name: "blocked",
    v4: Ipv4Addr::new(198, 51, 100, 9),
    v6: Ipv6Addr::new(0x2001, 0xdb8, 0xbad, 0, 0, 0, 0, 9),
    ..FAR
};
/// Public, and in no zone.
pub const PUBLIC: Party = Party {
    name: "public",
    v4: Ipv4Addr::new(192, 31, 196, 7),
    v6: Ipv6Addr::new(0x2001, 4, 0x112, 0, 0, 0, 0, 7),
    ..FAR
};
/// Private, and in no zone.
pub const PRIVATE: Party = Party {
    name: "private",
    v4: Ipv4Addr::new(10, 99, 0, 1),
    v6: Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 1),
    ..FAR
};
/// Public, in a subnet of the servers.
pub const OWN: Party = Party {
    name: "own",
    v4: Ipv4Addr::new(192, 31, 196, 200),
    v6: Ipv6Addr::new(0x2001, 4, 0x112, 0x80, 0, 0, 0, 0xc8),
    ..FAR
};
/// A server with public addresses outside the subnets of its zone.
pub const PUBLISHED: Party = Party {
    name: "published",
    v4: Ipv4Addr::new(192, 175, 48, 6),
    v6: Ipv6Addr::new(0x2620, 0x4f, 0x8000, 0, 0, 0, 0, 6),
    ..FAR
};
pub const ROUTER: Party = party("router", [0xff, 1], 1, 1);
/// The router's address among the cameras.
pub const ROUTER_2: Party = party("router", [0xff, 1], 2, 1);

/// What the router takes packets by in the subnets of the pumps and of the cameras: their broadcast
/// and their anycast address.
pub const PUMPS_ALL: Party = all("pumps' subnet", 1);
pub const CAMERAS_ALL: Party = all("cameras' subnet", 2);
/// In prefixes that are local to the router, inside the subnets of the servers.
pub const LOCAL: Party = party("local", [0xff, 1], 9, 202);

const fn all(name: &'static str, net: u8) -> Party {
    Party {
        name,
        mac: [0xff; 6],
        v4: Ipv4Addr::new(10, 20, net, 255),
        v6: Ipv6Addr::new(0xfd20, 0, 0, net as u16, 0, 0, 0, 0),
    }
}

/// What the router takes packets by, besides its addresses.
pub const TAKEN: [&str; 6] = [
    "10.20.1.255/32",
    "fd20:0:0:1::/128",
    "10.20.2.255/32",
    "fd20:0:0:2::/128",
    "10.20.9.200/30",
    "fd20:0:0:9::200/120",
];

/// Groups, by what the rules say of them.
pub const ANNOUNCED: Party = group("239.1.0.1", [239, 1, 0, 1], 1);
pub const SEARCHED: Party = group("239.2.0.1", [239, 2, 0, 1], 2);
pub const FORBIDDEN: Party = group("239.9.0.1", [239, 9, 0, 1], 9);
pub const SOUGHT: Party = group("239.3.0.1", [239, 3, 0, 1], 3);
pub const UNNAMED: Party = group("239.7.0.1", [239, 7, 0, 1], 7);

const fn group(name: &'static str, v4: [u8; 4], v6: u16) -> Party {
    Party {
        name,
        mac: [0; 6],
        v4: Ipv4Addr::new(v4[0], v4[1], v4[2], v4[3]),
        v6: Ipv6Addr::new(0xff15, 0, 0, 0, 0, 0, v6, 1),
    }
}

/// The parties whose addresses the page calls by name.
pub const KNOWN: [&Party; 28] = [
    &PUMP,
    &PINNED,
    &TWOFOLD,
    &CAMERA,
    &SHY,
    &COY,
    &HALF,
    &FIXED,
    &FLAT_PUMP,
    &FLAT_DHCP_PUMP,
    &FLAT_MONITOR,
    &STRANGER,
    &RECORDS,
    &ARCHIVE,
    &MEDIA,
    &VPN,
    &CLOSED,
    &FAR,
    &BLOCKED,
    &ROUTER,
    &ROUTER_2,
    &PUBLIC,
    &PRIVATE,
    &OWN,
    &PUBLISHED,
    &PUMPS_ALL,
    &CAMERAS_ALL,
    &LOCAL,
];

/// The router's link-local address.
pub const ROUTER_LINK: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xa);
/// A link-local address that is made of no MAC.
pub const LINK: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x11);
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
pub const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);

/// A frame from a device towards the router.
pub fn up(from: &Party, to: &Party, family: Family, upper: impl Into<Upper>) -> Ethernet {
    sent(from, ip(from.at(family), to.at(family), upper))
}

/// A frame from the router towards a device.
pub fn down(from: &Party, to: &Party, family: Family, upper: impl Into<Upper>) -> Ethernet {
    forwarded(to, ip(from.at(family), to.at(family), upper))
}

/// A packet in a frame from a device to the router.
pub fn sent(from: &Party, packet: impl Into<Packet>) -> Ethernet {
    Ethernet::new(ROUTER.mac, from.mac, packet)
}

/// A packet in a frame from the router to a device.
pub fn forwarded(to: &Party, packet: impl Into<Packet>) -> Ethernet {
    Ethernet::new(to.mac, ROUTER.mac, packet)
}

/// An IPv4 packet from the pump to the records.
pub fn v4(upper: impl Into<Upper>) -> Ipv4 {
    Ipv4::new(PUMP.v4, RECORDS.v4, upper)
}

/// An IPv6 packet from the pump to the records.
pub fn v6(upper: impl Into<Upper>) -> Ipv6 {
    Ipv6::new(PUMP.v6, RECORDS.v6, upper)
}

/// A packet of the pump's, in a frame to the router.
pub fn pump(packet: impl Into<Packet>) -> Ethernet {
    sent(&PUMP, packet)
}

/// A segment from the port that all openers here use.
pub fn tcp(port: u16, flags: u8) -> Tcp {
    Tcp::new(40_000, port, flags)
}

pub fn syn(port: u16) -> Tcp {
    tcp(port, wardline_oracle::frames::SYN)
}

/// A segment of the other end.
pub fn back(port: u16, flags: u8) -> Tcp {
    Tcp::new(port, 40_000, flags)
}

pub fn udp(port: u16) -> Udp {
    Udp::new(40_000, port, *b"data")
}
