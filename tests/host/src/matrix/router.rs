//! The addresses by which the router takes packets, besides its own: broadcasts of its subnets,
//! anycast addresses and local prefixes.

use super::{
    case::{
        ARP_SPOOF, CONTROL, ESTABLISHED, Family, Family::V4, MISDIRECTED, ND_SPOOF, NO_RULE, RULE,
        SPOOFED_SOURCE, Table, again,
    },
    network::{
        ALL_NODES, CAMERA, CAMERAS_ALL, FAR, FROM_LAN1, FROM_LAN2, LAN1, LAN2, LAN3, LOCAL, PINNED,
        PUMP, PUMPS_ALL, Party, ROUTER, ROUTER_ITSELF, SHY, UPLINK, pump, sent, syn, udp, up,
    },
};
use wardline_oracle::frames::{
    Arp, BROADCAST, Ethernet, Ipv6, Mac, Upper, group_mac, icmp, icmpv6, ip,
};

/// A frame to one of the router's other addresses, as hosts send it.
fn to_all(from: &Party, all: &Party, f: Family, upper: impl Into<Upper>) -> Ethernet {
    let mac = if f == V4 { BROADCAST } else { ROUTER.mac };
    Ethernet::new(mac, from.mac, ip(from.at(f), all.at(f), upper))
}

/// The same in a frame that a bridge sends through all its ports.
fn to_ports(from: &Party, mac: Mac, all: &Party, f: Family, upper: impl Into<Upper>) -> Ethernet {
    Ethernet::new(BROADCAST, mac, ip(from.at(f), all.at(f), upper))
}

fn echo(f: Family) -> Upper {
    if f == V4 {
        icmp::request(7, 1)
    } else {
        icmpv6::request(7, 1)
    }
}

#[rustfmt::skip]
pub(crate) fn rows(t: &mut Table) {
    // Where they enter: only a rule for the router names them.
    t.both("by any, to the subnet's broadcast or anycast address", |c, f| { c.enters(LAN1, to_all(&PUMP, &PUMPS_ALL, f, echo(f))).is(NO_RULE); });
    t.both("by any, to another zone's", |c, f| { c.enters(LAN1, to_all(&PUMP, &CAMERAS_ALL, f, echo(f))).is(NO_RULE); });
    t.both("by any, TCP", |c, f| { c.enters(LAN1, up(&PUMP, &PUMPS_ALL, f, syn(443))).is(NO_RULE); });
    t.both("by a rule for the zone", |c, f| { c.enters(LAN2, up(&CAMERA, &PUMPS_ALL, f, udp(3703))).is(NO_RULE); });
    t.both("by a rule for the sender's own zone", |c, f| { c.enters(LAN1, to_all(&PUMP, &PUMPS_ALL, f, udp(47_809))).is(NO_RULE); });
    t.both("by a rule for its network", |c, f| { c.enters(LAN1, to_all(&PUMP, &PUMPS_ALL, f, udp(9))).is(NO_RULE); });
    t.both("by a rule for the router", |c, f| { c.enters(LAN1, to_all(&PUMP, &PUMPS_ALL, f, udp(53))).enters(LAN1, to_all(&PUMP, &PUMPS_ALL, f, udp(53))).is([RULE, ESTABLISHED]); });
    t.both("by a rule for the router, to another zone's", |c, f| { c.enters(LAN1, up(&PUMP, &CAMERAS_ALL, f, udp(53))).is(RULE); });
    t.both("by any, to a prefix that is local to the router", |c, f| { c.enters(LAN1, up(&PUMP, &LOCAL, f, syn(443))).is(NO_RULE); });
    t.both("by a rule for the router, to a prefix that is local to it", |c, f| { c.enters(LAN1, up(&PUMP, &LOCAL, f, udp(53))).is(RULE); });
    t.both("in a device's name", |c, f| { c.enters(LAN1, Ethernet { source: PUMP.mac, ..up(&PINNED, &PUMPS_ALL, f, udp(53)) }).is(SPOOFED_SOURCE); });

    // Nobody else has them.
    t.both("from the subnet's broadcast or anycast address", |c, f| { c.enters(LAN1, sent(&PUMP, ip(PUMPS_ALL.at(f), PINNED.at(f), udp(9100)))).is(SPOOFED_SOURCE); });
    t.both("from it, by a device that may take free addresses", |c, f| { c.enters(LAN2, sent(&SHY, ip(CAMERAS_ALL.at(f), FAR.at(f), syn(443)))).is(SPOOFED_SOURCE); });
    t.both("from it, from the uplink", |c, f| { c.leaves(LAN1, UPLINK, Ethernet::new(PUMP.mac, FAR.mac, ip(PUMPS_ALL.at(f), PUMP.at(f), udp(9)))).is(SPOOFED_SOURCE); });
    t.case("ARP that claims the broadcast").enters(LAN2, Ethernet::new(BROADCAST, SHY.mac, Arp::request(SHY.mac, CAMERAS_ALL.v4, FAR.v4))).is(ARP_SPOOF);
    let claims = |target: &Party| Ethernet::new(group_mac(ALL_NODES), SHY.mac, Ipv6 { hop_limit: 255, ..Ipv6::new(SHY.v6, ALL_NODES, icmpv6::neighbour_advertisement(target.v6, 0x20, &[icmpv6::target_link(SHY.mac)])) });
    t.case("an advertisement that claims the anycast address").enters(LAN2, claims(&SHY)).enters(LAN2, claims(&CAMERAS_ALL)).is([CONTROL, ND_SPOOF]);

    // Where they leave, the receivers are the hosts behind the port.
    t.both("a rule for the router does not reach the zone", |c, f| {
        let frame = to_ports(&PUMP, PUMP.mac, &PUMPS_ALL, f, udp(53));
        c.enters(LAN1, frame.clone()).leaves(LAN3, FROM_LAN1, frame).is([RULE, NO_RULE]);
    });
    t.both("a rule for the router and the zone reaches both, and no other zone", |c, f| {
        let frame = to_ports(&PUMP, PUMP.mac, &PUMPS_ALL, f, udp(47_808));
        c.enters(LAN1, frame.clone()).leaves(LAN3, FROM_LAN1, frame.clone()).leaves(LAN2, FROM_LAN1, frame).is([RULE, again(RULE), NO_RULE]);
    });
    t.both("a rule for the router, and any for the zone", |c, f| {
        let frame = to_ports(&CAMERA, CAMERA.mac, &PUMPS_ALL, f, udp(3704));
        c.enters(LAN2, frame.clone()).leaves(LAN3, FROM_LAN2, frame).is([NO_RULE, again(RULE)]);
    });
    t.both("a network's rule for the router's own address reaches the zone, not the router", |c, f| {
        let frame = to_ports(&PUMP, PUMP.mac, &ROUTER, f, udp(9));
        c.enters(LAN1, frame.clone()).leaves(LAN3, FROM_LAN1, frame).is([NO_RULE, again(RULE)]);
    });
    t.both("from the router to the zone", |c, f| { c.leaves(LAN1, ROUTER_ITSELF, to_ports(&ROUTER, ROUTER.mac, &PUMPS_ALL, f, echo(f))).is(RULE); });
    t.both("from the router by a rule for the network", |c, f| { c.leaves(LAN1, ROUTER_ITSELF, to_ports(&ROUTER, ROUTER.mac, &PUMPS_ALL, f, udp(9))).is(RULE); });
    t.both("from the router without a rule", |c, f| { c.leaves(LAN1, ROUTER_ITSELF, to_ports(&ROUTER, ROUTER.mac, &PUMPS_ALL, f, udp(53))).is(NO_RULE); });
    t.both("in a frame to one device", |c, f| {
        let frame = Ethernet { destination: PINNED.mac, ..pump(ip(PUMP.at(f), PUMPS_ALL.at(f), udp(53))) };
        c.enters(LAN1, frame.clone()).leaves(LAN1, FROM_LAN1, frame).is([RULE, MISDIRECTED]);
    });
}
