//! Place: on which port and VLAN a device may send, and from which address.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{
    case::{
        ARP_SPOOF, CONTROL, Case, ESTABLISHED, Family,
        Family::V4,
        MID_FLOW, ND_SPOOF, NO_RULE, QUARANTINED, RULE, SPOOFED_SOURCE,
        Setting::{AdmitAny, Observe, Quarantine},
        Table, UNKNOWN_DEVICE, WRONG_PORT, WRONG_VLAN, would,
    },
    network::{
        ALL_NODES, CAMERA, COY, FAR, FIXED, FLAT_DHCP_PUMP, FLAT_MONITOR, FLAT_PUMP, FLAT1, FLAT2,
        HALF, LAN1, LAN2, LAN3, LINK, PINNED, PUMP, Party, RECORDS, ROUTER, ROUTER_2, SHY,
        STRANGER, TRUNK, TWOFOLD, TWOFOLDS_OTHER_MAC, UPLINK, back, down, pump, sent, syn, tcp, up,
    },
};
use wardline_oracle::frames::{
    ACK, Arp, BROADCAST, Dhcp, Ethernet, Ipv4, Ipv6, RST, SYN, icmpv6, solicited_node,
};

#[rustfmt::skip]
pub(crate) fn rows(t: &mut Table) {
    // MACs.
    t.both("an unlisted MAC with a free address of the zone", |c, f| {
        c.enters(LAN1, up(&STRANGER, &RECORDS, f, syn(2575))).is(UNKNOWN_DEVICE).under(AdmitAny, RULE).under(Observe, would(UNKNOWN_DEVICE));
    });
    t.both("an unlisted MAC with a device's address", |c, f| {
        c.enters(LAN1, borrowed(&STRANGER, &PUMP, f)).is(UNKNOWN_DEVICE).under(AdmitAny, SPOOFED_SOURCE);
    });
    t.both("an unlisted MAC with the router's address", |c, f| {
        c.enters(LAN1, borrowed(&STRANGER, &ROUTER, f)).is(UNKNOWN_DEVICE).under(AdmitAny, SPOOFED_SOURCE);
    });
    t.both("an unlisted MAC with a server's address", |c, f| {
        c.enters(LAN1, borrowed_to(&STRANGER, &RECORDS, &FAR, f)).is(UNKNOWN_DEVICE).under(AdmitAny, SPOOFED_SOURCE);
    });
    t.both("an unlisted MAC with an address of no zone", |c, f| {
        c.enters(LAN1, borrowed(&STRANGER, &FAR, f)).is(UNKNOWN_DEVICE).under(AdmitAny, SPOOFED_SOURCE);
    });
    t.case("an unlisted MAC where any may speak, but no rule").enters(LAN1, up(&STRANGER, &RECORDS, V4, syn(23))).is(UNKNOWN_DEVICE).under(AdmitAny, NO_RULE);
    t.case("an unlisted MAC on a VLAN of a zone that lists").enters(LAN1, up(&STRANGER, &RECORDS, V4, syn(2575)).tagged(20)).is(UNKNOWN_DEVICE).under(AdmitAny, UNKNOWN_DEVICE);
    t.case("the router's own MAC on a device's port").mirrors("the router's MAC is trusted wherever it appears")
        .enters(LAN1, Ethernet { source: ROUTER.mac, ..up(&PUMP, &RECORDS, V4, syn(2575)) }).is(UNKNOWN_DEVICE);
    t.both("the router's own MAC with a free address of the zone", |c, f| {
        c.mirrors("an attacker who sends from the router's MAC is taken for the router");
        c.enters(LAN1, borrowed(&ROUTER, &STRANGER, f)).is(UNKNOWN_DEVICE).under(AdmitAny, UNKNOWN_DEVICE).under(Observe, would(UNKNOWN_DEVICE));
    });
    t.both("the router's own MAC with the router's address", |c, f| {
        c.enters(LAN1, borrowed(&ROUTER, &ROUTER, f)).is(UNKNOWN_DEVICE).under(AdmitAny, UNKNOWN_DEVICE);
    });
    t.case("the router's own MAC claims the router's address by ARP")
        .enters(LAN1, Ethernet::new(BROADCAST, ROUTER.mac, Arp::request(ROUTER.mac, ROUTER.v4, PUMP.v4))).is(UNKNOWN_DEVICE).under(AdmitAny, UNKNOWN_DEVICE);
    t.case("the router's own MAC on a VLAN that the port does not carry")
        .enters(LAN1, Ethernet { source: ROUTER.mac, ..up(&PUMP, &RECORDS, V4, syn(2575)) }.tagged(30)).is(WRONG_VLAN);
    t.case("a device's other MAC").mirrors("only one of a device's MACs is known")
        .enters(LAN1, Ethernet { source: TWOFOLDS_OTHER_MAC, ..up(&TWOFOLD, &RECORDS, V4, syn(2575)) }).is(RULE);

    // Ports and VLANs.
    t.both("a device on another port of its zone", |c, f| { c.enters(LAN3, up(&PUMP, &RECORDS, f, syn(2575))).is(RULE); });
    t.both("a device on a port of another zone", |c, f| {
        c.enters(LAN2, up(&PUMP, &RECORDS, f, syn(2575))).is(WRONG_PORT).under(AdmitAny, WRONG_PORT).under(Observe, WRONG_PORT);
    });
    t.case("a device on a port that its zone is not on").enters(LAN3, up(&CAMERA, &FAR, V4, syn(443))).is(WRONG_PORT);
    t.both("a device untagged where its zone is on a VLAN", |c, f| { c.enters(LAN1, up(&CAMERA, &FAR, f, syn(443))).is(WRONG_VLAN); });
    t.both("a device on a VLAN where its zone is untagged", |c, f| { c.enters(LAN1, up(&PUMP, &RECORDS, f, syn(2575)).tagged(20)).is(WRONG_VLAN); });
    t.both("a device on its VLAN of a shared port", |c, f| { c.enters(LAN1, up(&CAMERA, &FAR, f, syn(443)).tagged(20)).is(RULE); });
    t.case("a device bound to a port, there").enters(LAN1, up(&PINNED, &RECORDS, V4, syn(2575))).is(RULE);
    t.case("a device bound to a port, on another of its zone").enters(LAN3, up(&PINNED, &RECORDS, V4, syn(2575))).is(WRONG_PORT);
    t.case("a device bound to a port, on a VLAN of its zone elsewhere").enters(TRUNK, up(&PINNED, &RECORDS, V4, syn(2575)).tagged(10)).is(WRONG_PORT);

    // Addresses.
    t.both("another device's address", |c, f| {
        c.enters(LAN1, borrowed(&PUMP, &PINNED, f)).is(SPOOFED_SOURCE).under(AdmitAny, SPOOFED_SOURCE).under(Observe, would(SPOOFED_SOURCE));
    });
    t.both("an address of another zone's device", |c, f| { c.enters(LAN1, borrowed(&PUMP, &CAMERA, f)).is(SPOOFED_SOURCE); });
    t.both("the router's address", |c, f| { c.enters(LAN1, borrowed(&PUMP, &ROUTER, f)).is(SPOOFED_SOURCE); });
    t.both("a server's address", |c, f| { c.enters(LAN1, borrowed_to(&PUMP, &RECORDS, &FAR, f)).is(SPOOFED_SOURCE); });
    t.both("an address of nobody in the device's zone", |c, f| { c.enters(LAN1, borrowed(&PUMP, &STRANGER, f)).is(SPOOFED_SOURCE); });
    t.both("an address of no zone", |c, f| { c.enters(LAN1, borrowed(&PUMP, &FAR, f)).is(SPOOFED_SOURCE); });
    for (name, source) in [
        ("0.0.0.0", [0, 0, 0, 0]), ("0.1.2.3, of this network", [0, 1, 2, 3]), ("127.0.0.1", [127, 0, 0, 1]), ("169.254.1.1, of the link", [169, 254, 1, 1]),
        ("224.0.0.1, a group", [224, 0, 0, 1]), ("240.0.0.1, reserved", [240, 0, 0, 1]), ("255.255.255.255", [255; 4]), ("the zone's last address", [10, 20, 1, 255]),
    ] {
        t.case(format!("TCP from {name}")).enters(LAN1, pump(Ipv4::new(source.into(), RECORDS.v4, syn(2575)))).is(SPOOFED_SOURCE);
    }
    for (name, source) in [("::", "::"), ("::1", "::1"), ("ff02::1, a group", "ff02::1"), ("fec0::11, of the site", "fec0::11"), ("fd20:0:0:1::, the zone's first", "fd20:0:0:1::")] {
        t.case(format!("TCP from {name}")).enters(LAN1, pump(Ipv6::new(source.parse().unwrap(), RECORDS.v6, syn(2575)))).is(SPOOFED_SOURCE);
    }
    t.case("TCP from the device's link-local address").enters(LAN1, pump(Ipv6::new(LINK, RECORDS.v6, syn(2575)))).is(RULE);
    t.case("ping from the device's link-local address").enters(LAN1, pump(Ipv6::new(LINK, "fe80::1".parse().unwrap(), icmpv6::request(7, 1)))).is(RULE);
    t.case("TCP to a link-local address").enters(LAN1, pump(Ipv6::new(PUMP.v6, "fe80::1".parse().unwrap(), syn(443)))).is(RULE);

    // Addresses that devices take.
    let shy = |f| up(&SHY, &FAR, f, syn(443));
    t.both("a device without listed addresses takes a free one", |c, f| { c.enters(LAN2, shy(f)).is(RULE); });
    t.both("a taken address is its taker's", |c, f| {
        c.enters(LAN2, shy(f)).enters(LAN2, Ethernet { source: COY.mac, ..up(&SHY, &RECORDS, f, syn(443)) }).is([RULE, SPOOFED_SOURCE]);
    });
    t.both("a taken address, and another", |c, f| {
        c.enters(LAN2, shy(f)).enters(LAN2, Ethernet { source: SHY.mac, ..up(&COY, &FAR, f, syn(443)) }).is([RULE, RULE]);
    });
    t.case("a taken address is free again after an hour of silence").enters(LAN2, shy(V4))
        .enters(LAN2, Ethernet { source: COY.mac, ..up(&SHY, &RECORDS, V4, syn(443)) }).after(3700).is([RULE, RULE]);
    t.case("a taken address is not free after half an hour").enters(LAN2, shy(V4))
        .enters(LAN2, Ethernet { source: COY.mac, ..up(&SHY, &RECORDS, V4, syn(443)) }).after(1800).is([RULE, SPOOFED_SOURCE]);
    t.both("a listed address is not free to take", |c, f| { c.enters(LAN2, Ethernet { source: SHY.mac, ..up(&CAMERA, &FAR, f, syn(443)) }).is(SPOOFED_SOURCE); });
    t.both("the router's address is not free to take", |c, f| { c.enters(LAN2, Ethernet { source: SHY.mac, ..up(&ROUTER_2, &FAR, f, syn(443)) }).is(SPOOFED_SOURCE); });
    t.both("an address outside the zone is not free to take", |c, f| { c.enters(LAN2, Ethernet { source: SHY.mac, ..up(&STRANGER, &FAR, f, syn(443)) }).is(SPOOFED_SOURCE); });
    t.case("an address taken by ARP is the device's").enters(LAN2, Ethernet::new(BROADCAST, SHY.mac, Arp::request(SHY.mac, SHY.v4, ROUTER_2.v4)))
        .enters(LAN2, shy(V4)).enters(LAN2, Ethernet { source: COY.mac, ..shy(V4) }).is([CONTROL, RULE, SPOOFED_SOURCE]);
    // How many a device may take.
    fn takes(c: &mut Case, numbers: impl IntoIterator<Item = u8>, f: Family) -> &mut Case {
        numbers.into_iter().fold(c, |c, n| {
            let taken = Party { v4: Ipv4Addr::new(10, 20, 2, n), v6: Ipv6Addr::new(0xfd20, 0, 0, 2, 0, 0, 0x77, n.into()), ..SHY };
            c.enters(LAN2, up(&taken, &FAR, f, syn(443)))
        })
    }
    t.both("sixteen free addresses, and one more", |c, f| {
        c.mirrors("a device that claims many addresses takes those of others");
        takes(c, 100..117, f).is([[RULE; 16].as_slice(), &[SPOOFED_SOURCE]].concat());
    });
    t.both("sixteen free addresses, and another device's", |c, f| {
        c.mirrors("a device that claims many addresses takes those of others");
        takes(c.enters(LAN2, up(&COY, &FAR, f, syn(443))), 100..116, f).enters(LAN2, Ethernet { source: SHY.mac, ..up(&COY, &RECORDS, f, syn(443)) })
            .enters(LAN2, up(&COY, &FAR, f, syn(23))).is([[RULE; 17].as_slice(), &[SPOOFED_SOURCE, NO_RULE]].concat());
    });
    t.both("a new address in place of one that is silent for twenty minutes", |c, f| {
        c.mirrors("a host that changes its addresses runs out of them");
        takes(takes(c, 100..116, f), 116..117, f).after(1200).is(RULE);
    });
    t.both("a new address in place of one that is silent for ten minutes", |c, f| {
        takes(takes(c, 100..116, f), 116..117, f).after(600).is([[RULE; 16].as_slice(), &[SPOOFED_SOURCE]].concat());
    });
    takes(t.case("ARP for a seventeenth address"), 100..116, V4)
        .enters(LAN2, Ethernet::new(BROADCAST, SHY.mac, Arp::request(SHY.mac, SHY.v4, ROUTER_2.v4))).is([[RULE; 16].as_slice(), &[ARP_SPOOF]].concat());
    takes(t.case("duplicate address detection of a seventeenth address"), 100..116, Family::V6)
        .enters(LAN2, sent(&SHY, Ipv6 { hop_limit: 255, ..Ipv6::new(Ipv6Addr::UNSPECIFIED, solicited_node(SHY.v6), icmpv6::neighbour_solicitation(SHY.v6, &[])) })).is([[RULE; 16].as_slice(), &[ND_SPOOF]].concat());

    // Family by family.
    let stray = Party { v4: Ipv4Addr::new(10, 20, 2, 99), ..HALF };
    t.case("an IPv6 address of a device that lists IPv4 only").mirrors("a device that lists one family has none of the other").enters(LAN2, up(&HALF, &FAR, Family::V6, syn(443)))
        .enters(LAN2, up(&HALF, &FAR, V4, syn(443))).is(RULE);
    t.case("another IPv4 address of a device that lists one").enters(LAN2, up(&stray, &FAR, V4, syn(443))).is(SPOOFED_SOURCE);
    t.case("the IPv6 address that such a device has learned, from another").enters(LAN2, up(&HALF, &FAR, Family::V6, syn(443)))
        .enters(LAN2, Ethernet { source: SHY.mac, ..up(&HALF, &RECORDS, Family::V6, syn(443)) }).is([RULE, SPOOFED_SOURCE]);
    t.case("an IPv6 address of a device that learns none").enters(LAN2, up(&FIXED, &FAR, Family::V6, syn(443))).is(SPOOFED_SOURCE);
    t.case("the IPv4 address that it lists").enters(LAN2, up(&FIXED, &FAR, V4, syn(443))).is(RULE);

    // Zones that share a prefix.
    let reports = |f| up(&FLAT_PUMP, &FLAT_MONITOR, f, syn(2575));
    let speaks = |f| up(&FLAT_MONITOR, &RECORDS, f, syn(2575));
    t.both("in a shared prefix, to a device that has spoken", |c, f| {
        c.mirrors("zones of one flat network can't be told apart").enters(FLAT2, speaks(f)).enters(FLAT1, reports(f)).is([NO_RULE, RULE]);
    });
    t.both("in a shared prefix, to an address that nobody has", |c, f| { c.enters(FLAT1, reports(f)).is(NO_RULE); });
    t.both("in a shared prefix, from an address that a device takes", |c, f| { c.enters(FLAT1, up(&FLAT_DHCP_PUMP, &RECORDS, f, syn(2575))).is(RULE); });
    t.both("in a shared prefix, from an address that a device of another zone has taken", |c, f| {
        c.enters(FLAT1, up(&FLAT_DHCP_PUMP, &RECORDS, f, syn(2575))).enters(FLAT2, Ethernet { source: FLAT_MONITOR.mac, ..up(&FLAT_DHCP_PUMP, &RECORDS, f, syn(2575)) })
            .is([RULE, SPOOFED_SOURCE]);
    });
    t.both("in a shared prefix, from an address that a device of another zone lists", |c, f| {
        c.enters(FLAT2, Ethernet { source: FLAT_MONITOR.mac, ..up(&FLAT_PUMP, &RECORDS, f, syn(2575)) }).is(SPOOFED_SOURCE);
    });
    t.both("in a shared prefix, on the port of another zone", |c, f| { c.enters(FLAT1, speaks(f)).is(WRONG_PORT); });
    t.both("in a shared prefix, from the uplink", |c, f| { c.leaves(FLAT2, UPLINK, down(&FLAT_DHCP_PUMP, &FLAT_MONITOR, f, syn(2575))).is(NO_RULE); });
    t.case("in a shared prefix, a solicitation of an address that nobody has").enters(FLAT1, Ethernet::new(FLAT_MONITOR.mac, FLAT_PUMP.mac, Ipv6 { hop_limit: 255, ..Ipv6::new(FLAT_PUMP.v6, FLAT_MONITOR.v6, icmpv6::neighbour_solicitation(FLAT_MONITOR.v6, &[])) }))
        .is(CONTROL);

    // Unlisted MACs, where any is admitted.
    let other = Party { mac: [0x02, 0, 0, 0, 0xee, 0x02], ..STRANGER };
    let guest = |f| up(&STRANGER, &FAR, f, syn(443));
    t.both("an unlisted MAC's address from another", |c, f| {
        c.mirrors("a guest uses another guest's address");
        c.enters(LAN1, guest(f)).enters(LAN1, Ethernet { source: other.mac, ..up(&STRANGER, &RECORDS, f, syn(443)) }).enters(LAN1, guest(f))
            .is(UNKNOWN_DEVICE).under(AdmitAny, [RULE, SPOOFED_SOURCE, ESTABLISHED]);
    });
    t.both("a reset in another unlisted MAC's connection", |c, f| {
        c.mirrors("a guest uses another guest's address");
        c.enters(LAN1, guest(f)).enters(LAN1, Ethernet { source: other.mac, ..up(&STRANGER, &FAR, f, tcp(443, RST)) }).enters(LAN1, guest(f))
            .is(UNKNOWN_DEVICE).under(AdmitAny, [RULE, SPOOFED_SOURCE, ESTABLISHED]);
    });
    t.case("ARP for another unlisted MAC's address").mirrors("a guest uses another guest's address").enters(LAN1, guest(V4))
        .enters(LAN1, Ethernet::new(BROADCAST, other.mac, Arp::request(other.mac, STRANGER.v4, ROUTER.v4))).is(UNKNOWN_DEVICE).under(AdmitAny, [RULE, ARP_SPOOF]);
    t.case("a neighbour advertisement for another unlisted MAC's address").mirrors("a guest uses another guest's address").enters(LAN1, guest(Family::V6))
        .enters(LAN1, sent(&other, Ipv6 { hop_limit: 255, ..Ipv6::new(STRANGER.v6, ALL_NODES, icmpv6::neighbour_advertisement(STRANGER.v6, 0x20, &[icmpv6::target_link(other.mac)])) }))
        .is(UNKNOWN_DEVICE).under(AdmitAny, [RULE, SPOOFED_SOURCE]);
    t.both("an unlisted MAC's address after twenty minutes of silence", |c, f| {
        c.enters(LAN1, guest(f)).enters(LAN1, Ethernet { source: other.mac, ..up(&STRANGER, &RECORDS, f, syn(443)) }).after(1200)
            .is(UNKNOWN_DEVICE).under(AdmitAny, [RULE, RULE]);
    });

    // Inside a flow.
    t.both("a flow's device moves to another port of its zone", |c, f| {
        opened(c, f).enters(LAN3, up(&PUMP, &RECORDS, f, tcp(2575, ACK))).is([RULE, ESTABLISHED, ESTABLISHED]);
    });
    t.both("a flow's MAC on a port of another zone", |c, f| {
        c.mirrors("packets of a known flow are not asked where they come from");
        opened(c, f).enters(LAN2, up(&PUMP, &RECORDS, f, tcp(2575, ACK))).is([RULE, ESTABLISHED, WRONG_PORT]);
    });
    t.both("a flow's addresses from another device's MAC", |c, f| {
        c.mirrors("packets of a known flow are not asked where they come from");
        opened(c, f).enters(LAN1, Ethernet { source: PINNED.mac, ..up(&PUMP, &RECORDS, f, tcp(2575, ACK)) }).is([RULE, ESTABLISHED, SPOOFED_SOURCE]);
    });
    t.case("a flow goes on from the device's other MAC")
        .enters(LAN1, up(&TWOFOLD, &RECORDS, V4, syn(2575)))
        .leaves(LAN1, UPLINK, down(&RECORDS, &TWOFOLD, V4, back(2575, SYN | ACK)))
        .enters(LAN1, Ethernet { source: TWOFOLDS_OTHER_MAC, ..up(&TWOFOLD, &RECORDS, V4, tcp(2575, ACK)) })
        .is([RULE, ESTABLISHED, ESTABLISHED]);
    t.both("a reset from another device's MAC does not end a flow", |c, f| {
        c.mirrors("RST closes a flow from the wrong side");
        opened(c, f).enters(LAN1, Ethernet { source: PINNED.mac, ..up(&PUMP, &RECORDS, f, tcp(2575, RST)) })
            .enters(LAN1, up(&PUMP, &RECORDS, f, tcp(2575, ACK))).is([RULE, ESTABLISHED, SPOOFED_SOURCE, ESTABLISHED]);
    });

    // Quarantine comes after place.
    t.both("a device in quarantine", |c, f| { c.enters(LAN1, up(&PUMP, &RECORDS, f, syn(2575))).is(RULE).under(Quarantine, QUARANTINED); });
    t.case("a device in quarantine, from its other MAC").mirrors("only one of a device's MACs is blocked")
        .enters(LAN1, Ethernet { source: TWOFOLDS_OTHER_MAC, ..up(&TWOFOLD, &RECORDS, V4, syn(2575)) }).is(RULE).under(Quarantine, QUARANTINED);
    t.case("to a device in quarantine, from its zone").mirrors("quarantined devices attack each other")
        .enters(LAN1, up(&PINNED, &PUMP, V4, syn(443))).is(RULE).under(Quarantine, QUARANTINED);
    t.case("between two devices in quarantine").mirrors("quarantined devices attack each other")
        .enters(LAN1, up(&PUMP, &TWOFOLD, V4, syn(443))).is(RULE).under(Quarantine, QUARANTINED);
    t.both("to a device in quarantine, from outside", |c, f| {
        c.leaves(LAN1, UPLINK, down(&RECORDS, &PUMP, f, syn(5000))).is(RULE).under(Quarantine, QUARANTINED);
    });
    t.case("a device in quarantine where no rule allows it").enters(LAN1, up(&PUMP, &RECORDS, V4, syn(23))).is(NO_RULE).under(Quarantine, QUARANTINED);
    t.case("a device in quarantine in the middle of no flow").enters(LAN1, up(&PUMP, &RECORDS, V4, tcp(2575, ACK))).is(MID_FLOW).under(Quarantine, QUARANTINED);
    t.case("a device in quarantine with another's address").enters(LAN1, borrowed(&PUMP, &PINNED, V4)).is(SPOOFED_SOURCE).under(Quarantine, SPOOFED_SOURCE);
    t.case("ARP of a device in quarantine").enters(LAN1, Ethernet::new(BROADCAST, PUMP.mac, Arp::request(PUMP.mac, PUMP.v4, ROUTER.v4))).is(CONTROL).under(Quarantine, CONTROL);
    t.case("neighbour discovery of a device in quarantine")
        .enters(LAN1, pump(Ipv6 { hop_limit: 255, ..Ipv6::new(PUMP.v6, ROUTER.v6, icmpv6::neighbour_solicitation(ROUTER.v6, &[icmpv6::source_link(PUMP.mac)])) }))
        .is(CONTROL).under(Quarantine, CONTROL);
    t.case("DHCP of a device in quarantine")
        .enters(LAN1, Ethernet::new(BROADCAST, PUMP.mac, Ipv4::new([0, 0, 0, 0].into(), [255; 4].into(), Dhcp::client(1, PUMP.mac).udp()))).is(CONTROL).under(Quarantine, CONTROL);
    t.case("ping of a device in quarantine to the router").enters(LAN1, sent(&PUMP, Ipv4::new(PUMP.v4, ROUTER.v4, wardline_oracle::frames::icmp::request(7, 1)))).is(NO_RULE).under(Quarantine, QUARANTINED);
}

/// An allowed packet from one party's MAC and another's address.
fn borrowed(mac: &Party, address: &Party, f: Family) -> Ethernet {
    borrowed_to(mac, address, &RECORDS, f)
}

fn borrowed_to(mac: &Party, address: &Party, to: &Party, f: Family) -> Ethernet {
    let port = if *to == RECORDS { 2575 } else { 443 };
    Ethernet {
        source: mac.mac,
        ..up(address, to, f, syn(port))
    }
}

/// A connection of the pump to the records, opened and answered.
fn opened(case: &mut Case, f: Family) -> &mut Case {
    case.enters(LAN1, up(&PUMP, &RECORDS, f, syn(2575))).leaves(
        LAN1,
        UPLINK,
        down(&RECORDS, &PUMP, f, back(2575, SYN | ACK)),
    )
}
