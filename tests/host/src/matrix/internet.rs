//! The internet: what IANA's registries call globally reachable unicast, and nobody's.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{
    case::{
        DENIED_BY_RULE,
        Family::{self, V4, V6},
        NO_RULE, RULE,
        Setting::Observe,
        Table, would,
    },
    network::{
        FAR, LAN1, OWN, PINNED, PRIVATE, PUBLIC, PUBLISHED, PUMP, Party, RECORDS, ROUTER, UPLINK,
        down, syn, up,
    },
};
use wardline_oracle::frames::Ethernet;

const DEFECT: &str = "the internet includes private networks";

/// Addresses of the registries that decide, each with the one beside it.
const BORDERS: [(&str, Ipv4Addr, bool); 12] = [
    (
        "a shared address, 100.64/10",
        Ipv4Addr::new(100, 64, 0, 1),
        false,
    ),
    (
        "the address behind the shared ones",
        Ipv4Addr::new(100, 128, 0, 0),
        true,
    ),
    (
        "an address of 172.16/12",
        Ipv4Addr::new(172, 31, 0, 1),
        false,
    ),
    (
        "the address behind 172.16/12",
        Ipv4Addr::new(172, 32, 0, 0),
        true,
    ),
    (
        "a link-local IPv4 address",
        Ipv4Addr::new(169, 254, 1, 1),
        false,
    ),
    ("a 6to4 relay", Ipv4Addr::new(192, 88, 99, 1), false),
    (
        "a benchmarking address",
        Ipv4Addr::new(198, 19, 255, 255),
        false,
    ),
    ("PCP's anycast address", Ipv4Addr::new(192, 0, 0, 9), true),
    (
        "the address before PCP's",
        Ipv4Addr::new(192, 0, 0, 8),
        false,
    ),
    (
        "an address of 192.168/16",
        Ipv4Addr::new(192, 168, 0, 1),
        false,
    ),
    ("a reserved address", Ipv4Addr::new(240, 0, 0, 1), false),
    (
        "the last address that is no group",
        Ipv4Addr::new(223, 255, 255, 255),
        true,
    ),
];
const BORDERS_6: [(&str, [u16; 4], bool); 8] = [
    ("an address before 2000::/3", [0x1fff, 0, 0, 0], false),
    ("an address behind 2000::/3", [0x4000, 0, 0, 0], false),
    ("a 6to4 address", [0x2002, 0x0101, 0x0101, 0], false),
    ("a Teredo address", [0x2001, 0, 0x0101, 0], false),
    ("an ORCHIDv2", [0x2001, 0x2f, 0, 0], true),
    (
        "an address behind ORCHIDv2 and drones",
        [0x2001, 0x40, 0, 0],
        false,
    ),
    (
        "a documentation address of the newer block",
        [0x3fff, 0x0fff, 0, 0],
        false,
    ),
    (
        "a NAT64 address of the local block",
        [0x64, 0xff9b, 1, 0],
        false,
    ),
];

/// A frame from the pump to what a NAT64 makes of an IPv4 address.
fn translated(to: Ipv4Addr) -> Ethernet {
    let [a, b, c, d] = to.octets().map(u16::from);
    let v6 = Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, a << 8 | b, c << 8 | d);
    browses(&Party { v6, ..FAR }, V6)
}

fn browses(to: &Party, family: Family) -> Ethernet {
    up(&PUMP, to, family, syn(8443))
}

#[rustfmt::skip]
pub(crate) fn rows(t: &mut Table) {
    t.both("a public address in no zone", |c, f| { c.enters(LAN1, browses(&PUBLIC, f)).is(RULE).under(Observe, RULE); });
    t.both("a private address in no zone", |c, f| { c.mirrors(DEFECT); c.enters(LAN1, browses(&PRIVATE, f)).is(NO_RULE).under(Observe, would(NO_RULE)); });
    t.both("a documentation address", |c, f| { c.mirrors(DEFECT); c.enters(LAN1, browses(&FAR, f)).is(NO_RULE); });
    t.both("a public address of a zone's subnet", |c, f| { c.enters(LAN1, browses(&OWN, f)).is(NO_RULE); });
    t.both("a public address of a device", |c, f| { c.enters(LAN1, browses(&PUBLISHED, f)).is(NO_RULE); });
    t.both("a private address of a device", |c, f| { c.enters(LAN1, browses(&RECORDS, f)).is(NO_RULE); });
    t.both("a device of the same zone", |c, f| { c.enters(LAN1, browses(&PINNED, f)).is(NO_RULE); });
    t.both("the router is not the internet", |c, f| { c.enters(LAN1, browses(&ROUTER, f)).is(NO_RULE); });
    t.both("a rule for the internet, on another port", |c, f| { c.enters(LAN1, up(&PUMP, &PUBLIC, f, syn(8442))).is(NO_RULE); });
    t.both("from the internet", |c, f| { c.leaves(LAN1, UPLINK, down(&PUBLIC, &PUMP, f, syn(8444))).is(RULE); });
    t.both("from a private address, by a rule for the internet", |c, f| { c.mirrors(DEFECT); c.leaves(LAN1, UPLINK, down(&PRIVATE, &PUMP, f, syn(8444))).is(NO_RULE); });
    t.both("from a public address of a device", |c, f| { c.leaves(LAN1, UPLINK, down(&PUBLISHED, &PUMP, f, syn(8444))).is(NO_RULE); });
    t.both("a deny of the internet beats an allow to any", |c, f| { c.enters(LAN1, up(&PUMP, &PUBLIC, f, syn(9443))).is(DENIED_BY_RULE); });
    t.both("a private address, where only the internet is denied", |c, f| { c.enters(LAN1, up(&PUMP, &PRIVATE, f, syn(9443))).is(RULE); });
    for (name, v4, public) in BORDERS {
        t.case(name).enters(LAN1, browses(&Party { v4, ..FAR }, V4)).is(if public { RULE } else { NO_RULE });
    }
    for (name, [a, b, c, d], public) in BORDERS_6 {
        let v6 = Ipv6Addr::new(a, b, c, d, 0, 0, 0, 1);
        t.case(name).enters(LAN1, browses(&Party { v6, ..FAR }, V6)).is(if public { RULE } else { NO_RULE });
    }
    t.case("a public address through a NAT64").enters(LAN1, translated(PUBLIC.v4)).is(RULE);
    t.case("a private address through a NAT64").mirrors(DEFECT).enters(LAN1, translated(PRIVATE.v4)).is(NO_RULE);
    t.case("a zone's public address through a NAT64").enters(LAN1, translated(OWN.v4)).is(NO_RULE);
    t.case("a device's public address through a NAT64").enters(LAN1, translated(PUBLISHED.v4)).is(NO_RULE);
}
