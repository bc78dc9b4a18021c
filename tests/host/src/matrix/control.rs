//! Control: ARP, neighbour discovery, router advertisements, DHCP, listener reports. A device may
//! send them for itself without a rule, and not for others.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{
    case::{
        ARP_SPOOF, CONTROL, DEVICE_QUOTA, EXTENSION_HEADER, FRAGMENT, MALFORMED, ND_SPOOF, NO_RULE,
        QUARANTINED, ROGUE_DHCP, ROGUE_RA, RULE, SPOOFED_SOURCE,
        Setting::{AdmitAny, DhcpServer, Fragments, Observe, Options, Quarantine, Router, Written},
        Table, UNKNOWN_DEVICE, Verdicts, WRONG_PORT, cut, would,
    },
    network::{
        ALL_NODES, ALL_ROUTERS, CAMERA, FAR, LAN1, LAN2, LINK, PINNED, PUMP, RECORDS, ROUTER,
        ROUTER_2, SHY, STRANGER, TRUNK, UPLINK, pump, sent, syn, v4,
    },
};
use wardline_oracle::frames::{
    Arp, BROADCAST, Dhcp, Ethernet, Extension, Icmp, Ipv4, Ipv6, Mac, Packet, Udp, Upper, dhcpv6,
    group_mac, icmp, icmpv6, solicited_node,
};

#[rustfmt::skip]
pub(crate) fn arp(t: &mut Table) {
    let said = |mac: Mac, arp: Arp| Ethernet::new(BROADCAST, mac, arp);
    let claim = |address| said(PUMP.mac, Arp::request(PUMP.mac, address, ROUTER.v4));

    t.case("an ARP request").enters(LAN1, claim(PUMP.v4)).is(CONTROL);
    t.case("an ARP request, padded as wires pad").enters(LAN1, Ethernet { padded_to: 60, ..claim(PUMP.v4) }).is(CONTROL);
    t.case("an ARP reply").enters(LAN1, Ethernet { destination: ROUTER.mac, ..said(PUMP.mac, Arp::reply(PUMP.mac, PUMP.v4, ROUTER.mac, ROUTER.v4)) }).is(CONTROL);
    t.case("an ARP probe").enters(LAN1, said(PUMP.mac, Arp::request(PUMP.mac, Ipv4Addr::UNSPECIFIED, PUMP.v4))).is(CONTROL);
    t.case("an ARP probe for another's address, which claims nothing").enters(LAN1, said(PUMP.mac, Arp::request(PUMP.mac, Ipv4Addr::UNSPECIFIED, PINNED.v4))).is(CONTROL);
    t.case("an ARP announcement").enters(LAN1, said(PUMP.mac, Arp::request(PUMP.mac, PUMP.v4, PUMP.v4))).is(CONTROL);
    t.case("a gratuitous ARP reply").enters(LAN1, said(PUMP.mac, Arp::reply(PUMP.mac, PUMP.v4, BROADCAST, PUMP.v4))).is(CONTROL);

    t.case("a gateway ARP reply").mirrors("gateway ARP reply").enters(LAN1, said(PUMP.mac, Arp::reply(PUMP.mac, ROUTER.v4, PINNED.mac, PINNED.v4))).is(ARP_SPOOF).under(Observe, would(ARP_SPOOF)).under(AdmitAny, ARP_SPOOF);
    t.case("a gratuitous ARP for the gateway").mirrors("gateway ARP reply").enters(LAN1, said(PUMP.mac, Arp::request(PUMP.mac, ROUTER.v4, ROUTER.v4))).is(ARP_SPOOF);
    t.case("ARP for the gateway's other address").mirrors("gateway ARP reply").enters(LAN1, claim(ROUTER_2.v4)).is(ARP_SPOOF);
    t.case("ARP for another device's address").mirrors("ARP is not judged").enters(LAN1, claim(PINNED.v4)).is(ARP_SPOOF);
    t.case("ARP for a server's address").mirrors("ARP is not judged").enters(LAN1, claim(RECORDS.v4)).is(ARP_SPOOF);
    t.case("ARP for a free address of the zone, from a device with its own").enters(LAN1, claim(STRANGER.v4)).is(ARP_SPOOF);
    t.case("ARP for an address of no zone").enters(LAN1, claim(FAR.v4)).is(ARP_SPOOF);
    t.case("an ARP reply in the name of the router's MAC").mirrors("the MAC in the ARP packet is believed").enters(LAN1, said(PUMP.mac, Arp::reply(ROUTER.mac, ROUTER.v4, PINNED.mac, PINNED.v4))).is(ARP_SPOOF);
    t.case("ARP with one's own address and another's MAC").mirrors("the MAC in the ARP packet is believed").enters(LAN1, said(PUMP.mac, Arp::request(PINNED.mac, PUMP.v4, ROUTER.v4))).is(ARP_SPOOF);
    for (name, address) in [("a group's", [224, 0, 0, 1]), ("the broadcast", [255; 4]), ("the loopback's", [127, 0, 0, 1])] {
        t.case(format!("ARP for {name} address")).enters(LAN1, claim(address.into())).is(ARP_SPOOF);
    }

    let odd = |arp: Arp| said(PUMP.mac, arp);
    let own = || Arp::request(PUMP.mac, PUMP.v4, ROUTER.v4);
    t.case("ARP for other hardware").enters(LAN1, odd(Arp { hardware: 6, ..own() })).is(MALFORMED);
    t.case("ARP for another protocol").enters(LAN1, odd(Arp { protocol: 0x86dd, ..own() })).is(MALFORMED);
    t.case("ARP with hardware addresses of eight bytes").enters(LAN1, odd(Arp { hardware_length: 8, ..own() })).is(MALFORMED);
    t.case("ARP with addresses of sixteen bytes").enters(LAN1, odd(Arp { protocol_length: 16, ..own() })).is(MALFORMED);
    for operation in [0, 3, 8, 65535] {
        t.case(format!("ARP operation {operation}")).enters(LAN1, odd(Arp { operation, ..own() })).is(MALFORMED);
    }
    t.case("ARP one byte short").enters(LAN1, cut(odd(own()), 14 + 27)).is(MALFORMED);
    t.case("ARP without a byte").enters(LAN1, cut(odd(own()), 14 + 4)).is(MALFORMED);

    t.case("ARP from an unlisted MAC, for a free address").enters(LAN1, said(STRANGER.mac, Arp::request(STRANGER.mac, STRANGER.v4, ROUTER.v4))).is(UNKNOWN_DEVICE).under(AdmitAny, CONTROL);
    t.case("ARP from an unlisted MAC, for a device's address").enters(LAN1, said(STRANGER.mac, Arp::request(STRANGER.mac, PUMP.v4, ROUTER.v4))).is(UNKNOWN_DEVICE).under(AdmitAny, ARP_SPOOF);
    t.case("an ARP probe from an unlisted MAC").enters(LAN1, said(STRANGER.mac, Arp::request(STRANGER.mac, Ipv4Addr::UNSPECIFIED, STRANGER.v4))).is(UNKNOWN_DEVICE).under(AdmitAny, CONTROL);
    t.case("ARP on a port of another zone").enters(LAN2, claim(PUMP.v4)).is(WRONG_PORT);
    t.case("ARP for an address that the device may take").enters(LAN2, said(SHY.mac, Arp::request(SHY.mac, SHY.v4, ROUTER_2.v4))).is(CONTROL);
    t.case("ARP for a listed address, from a device that takes them").enters(LAN2, said(SHY.mac, Arp::request(SHY.mac, CAMERA.v4, ROUTER_2.v4))).is(ARP_SPOOF);
}

#[rustfmt::skip]
pub(crate) fn discovery(t: &mut Table) {
    let packet = |source: Ipv6Addr, destination: Ipv6Addr, upper: Upper| Ipv6 { hop_limit: 255, ..Ipv6::new(source, destination, upper) };
    let nd = |source: Ipv6Addr, destination: Ipv6Addr, upper: Upper| {
        Ethernet { destination: group_mac(destination), ..pump(packet(source, destination, upper)) }
    };
    let own = &[icmpv6::target_link(PUMP.mac)];
    let source = &[icmpv6::source_link(PUMP.mac)];
    let says = |target: Ipv6Addr| nd(PUMP.v6, ALL_NODES, icmpv6::neighbour_advertisement(target, 0x20, own));

    // Advertisements.
    t.case("a neighbour advertisement").enters(LAN1, says(PUMP.v6)).is(CONTROL);
    t.case("a neighbour advertisement that was asked for").enters(LAN1, pump(packet(PUMP.v6, ROUTER.v6, icmpv6::neighbour_advertisement(PUMP.v6, 0x60, own)))).is(CONTROL);
    t.case("a neighbour advertisement without options").enters(LAN1, pump(packet(PUMP.v6, ROUTER.v6, icmpv6::neighbour_advertisement(PUMP.v6, 0x40, &[])))).is(CONTROL);
    t.case("a neighbour advertisement of the link-local address").enters(LAN1, nd(LINK, ALL_NODES, icmpv6::neighbour_advertisement(LINK, 0x20, own))).is(CONTROL);
    t.case("a neighbour advertisement of another device").mirrors("neighbour discovery is not judged").enters(LAN1, says(PINNED.v6)).is(ND_SPOOF).under(Observe, would(ND_SPOOF));
    t.case("a neighbour advertisement of the router").mirrors("neighbour discovery is not judged").enters(LAN1, says(ROUTER.v6)).is(ND_SPOOF);
    t.case("a neighbour advertisement of a server").mirrors("neighbour discovery is not judged").enters(LAN1, says(RECORDS.v6)).is(ND_SPOOF);
    t.case("a neighbour advertisement of a free address, from a device with its own").enters(LAN1, says(STRANGER.v6)).is(ND_SPOOF);
    t.case("a neighbour advertisement of a group").enters(LAN1, says(ALL_NODES)).is(ND_SPOOF);
    t.case("a neighbour advertisement with another's MAC").mirrors("the MAC in the option is believed").enters(LAN1, nd(PUMP.v6, ALL_NODES, icmpv6::neighbour_advertisement(PUMP.v6, 0x20, &[icmpv6::target_link(PINNED.mac)]))).is(ND_SPOOF);
    t.case("a neighbour advertisement with another's MAC behind its own").mirrors("only the first option is looked at").enters(LAN1, nd(PUMP.v6, ALL_NODES, icmpv6::neighbour_advertisement(PUMP.v6, 0x20, &[icmpv6::target_link(PUMP.mac), icmpv6::target_link(PINNED.mac)]))).is(ND_SPOOF);
    t.case("a neighbour advertisement that says it is a router").enters(LAN1, nd(PUMP.v6, ALL_NODES, icmpv6::neighbour_advertisement(PUMP.v6, 0xa0, own))).is(CONTROL);

    // Solicitations.
    t.case("a neighbour solicitation").enters(LAN1, nd(PUMP.v6, solicited_node(ROUTER.v6), icmpv6::neighbour_solicitation(ROUTER.v6, source))).is(CONTROL);
    t.case("a neighbour solicitation from the link-local address").enters(LAN1, nd(LINK, solicited_node(ROUTER.v6), icmpv6::neighbour_solicitation(ROUTER.v6, source))).is(CONTROL);
    t.case("a neighbour solicitation with another's MAC").mirrors("the MAC in the option is believed").enters(LAN1, nd(PUMP.v6, solicited_node(ROUTER.v6), icmpv6::neighbour_solicitation(ROUTER.v6, &[icmpv6::source_link(PINNED.mac)]))).is(ND_SPOOF);
    t.case("a neighbour solicitation from another's address").enters(LAN1, nd(PINNED.v6, solicited_node(ROUTER.v6), icmpv6::neighbour_solicitation(ROUTER.v6, source))).is(SPOOFED_SOURCE);
    t.case("duplicate address detection").enters(LAN1, nd(Ipv6Addr::UNSPECIFIED, solicited_node(PUMP.v6), icmpv6::neighbour_solicitation(PUMP.v6, &[]))).is(CONTROL);
    t.case("duplicate address detection of the link-local address").enters(LAN1, nd(Ipv6Addr::UNSPECIFIED, solicited_node(LINK), icmpv6::neighbour_solicitation(LINK, &[]))).is(CONTROL);
    t.case("duplicate address detection for another's address").mirrors("detection of duplicates denies others their address").enters(LAN1, nd(Ipv6Addr::UNSPECIFIED, solicited_node(PINNED.v6), icmpv6::neighbour_solicitation(PINNED.v6, &[]))).is(ND_SPOOF);
    t.case("duplicate address detection for the router's address").mirrors("detection of duplicates denies others their address").enters(LAN1, nd(Ipv6Addr::UNSPECIFIED, solicited_node(ROUTER.v6), icmpv6::neighbour_solicitation(ROUTER.v6, &[]))).is(ND_SPOOF);

    // Form.
    let advertisement = || icmpv6::neighbour_advertisement(PUMP.v6, 0x20, own);
    for hop_limit in [1, 64, 254] {
        t.case(format!("a neighbour advertisement with hop limit {hop_limit}")).mirrors("neighbour discovery from beyond the link is believed")
            .enters(LAN1, pump(Ipv6 { hop_limit, ..packet(PUMP.v6, ALL_NODES, advertisement()) })).is(ND_SPOOF);
    }
    let body = |target: &[u8], options: &[u8]| Upper::Icmpv6(Icmp::new(136, 0, [&[0x20, 0, 0, 0], target, options].concat()));
    let target = PUMP.v6.octets();
    t.case("a neighbour advertisement with a code").enters(LAN1, nd(PUMP.v6, ALL_NODES, Upper::Icmpv6(Icmp::new(136, 1, [&[0x20, 0, 0, 0][..], &target].concat())))).is(ND_SPOOF);
    t.case("a neighbour advertisement without its target").enters(LAN1, nd(PUMP.v6, ALL_NODES, body(&[], &[]))).is(MALFORMED);
    t.case("a neighbour advertisement with half of its target").enters(LAN1, nd(PUMP.v6, ALL_NODES, body(&target[..8], &[]))).is(MALFORMED);
    t.case("a neighbour advertisement whose target is in the padding").mirrors("a header is read behind the end of the packet")
        .enters(LAN1, Ethernet { padded_to: 100, ..nd(PUMP.v6, ALL_NODES, body(&[], &[])) }).is(MALFORMED);
    t.case("a neighbour advertisement with an option of length 0").mirrors("an option of length 0 is walked for ever").enters(LAN1, nd(PUMP.v6, ALL_NODES, body(&target, &[2, 0, 0, 0, 0, 0, 0, 0]))).is(MALFORMED);
    t.case("a neighbour advertisement with an option longer than the packet").enters(LAN1, nd(PUMP.v6, ALL_NODES, body(&target, &[14, 5, 0, 0, 0, 0, 0, 0]))).is(MALFORMED);
    t.case("a neighbour advertisement with half an option").enters(LAN1, nd(PUMP.v6, ALL_NODES, body(&target, &[14, 1, 0, 0]))).is(MALFORMED);
    t.case("a neighbour advertisement with half an option, padded").enters(LAN1, Ethernet { padded_to: 100, ..nd(PUMP.v6, ALL_NODES, body(&target, &[14, 1, 0, 0])) }).is(MALFORMED);
    t.case("a neighbour advertisement with a link-layer address of sixteen bytes").enters(LAN1, nd(PUMP.v6, ALL_NODES, body(&target, &[&[2, 2][..], &PUMP.mac, &[0; 8]].concat()))).is(ND_SPOOF);
    t.case("a neighbour advertisement with seven options").enters(LAN1, nd(PUMP.v6, ALL_NODES, body(&target, &[14, 1, 0, 0, 0, 0, 0, 0].repeat(7)))).is(CONTROL);
    t.case("a neighbour advertisement with as many options as fit into 1500 bytes").enters(LAN1, nd(PUMP.v6, ALL_NODES, body(&target, &[14, 1, 0, 0, 0, 0, 0, 0].repeat(179)))).is(CONTROL);
    t.case("a neighbour advertisement whose last of many options names another MAC")
        .enters(LAN1, nd(PUMP.v6, ALL_NODES, body(&target, &[&[14, 1, 0, 0, 0, 0, 0, 0].repeat(178)[..], &icmpv6::target_link(PINNED.mac)].concat()))).is(ND_SPOOF);
    t.case("a neighbour advertisement whose last of many options is empty")
        .enters(LAN1, nd(PUMP.v6, ALL_NODES, body(&target, &[&[14, 1, 0, 0, 0, 0, 0, 0].repeat(178)[..], &[14, 0, 0, 0, 0, 0, 0, 0]].concat()))).is(MALFORMED);
    let prefixes = [&[3, 4, 64, 0xc0][..], &[0; 28]].concat().repeat(7);
    t.case("a router advertisement with seven prefixes")
        .enters(LAN1, nd(LINK, ALL_NODES, Upper::Icmpv6(Icmp::new(134, 0, [&[64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0][..], &prefixes].concat())))).is(ROGUE_RA).under(Router, CONTROL);
    t.case("a neighbour advertisement behind destination options").mirrors("neighbour discovery behind an extension header is not judged")
        .enters(LAN1, pump(packet(PUMP.v6, ALL_NODES, icmpv6::neighbour_advertisement(PINNED.v6, 0x20, own)).with(Extension::destination(&[1, 4, 0, 0, 0, 0])))).is(EXTENSION_HEADER).under(Options, ND_SPOOF);
    t.case("a neighbour solicitation that the router would forward to a host of a zone").mirrors("neighbour discovery is a way out past all rules")
        .enters(LAN1, Ethernet { destination: ROUTER.mac, ..pump(packet(PUMP.v6, CAMERA.v6, icmpv6::neighbour_solicitation(CAMERA.v6, source))) }).is(NO_RULE);
    t.case("a neighbour solicitation to a host of a zone on the same link")
        .enters(LAN1, Ethernet { destination: CAMERA.mac, ..pump(packet(PUMP.v6, CAMERA.v6, icmpv6::neighbour_solicitation(CAMERA.v6, source))) }).is(CONTROL);
    t.case("a neighbour solicitation to a host far away").enters(LAN1, pump(packet(PUMP.v6, FAR.v6, icmpv6::neighbour_solicitation(FAR.v6, source)))).is(NO_RULE);

    // Unlisted MACs, and devices that take addresses.
    t.case("a neighbour advertisement from an unlisted MAC").enters(LAN1, sent(&STRANGER, packet(STRANGER.v6, ALL_NODES, icmpv6::neighbour_advertisement(STRANGER.v6, 0x20, &[icmpv6::target_link(STRANGER.mac)])))).is(UNKNOWN_DEVICE).under(AdmitAny, CONTROL);
    t.case("a neighbour advertisement of a device, from an unlisted MAC").enters(LAN1, sent(&STRANGER, packet(STRANGER.v6, ALL_NODES, icmpv6::neighbour_advertisement(PUMP.v6, 0x20, &[icmpv6::target_link(STRANGER.mac)])))).is(UNKNOWN_DEVICE).under(AdmitAny, ND_SPOOF);
    t.case("duplicate address detection of an address that the device may take").enters(LAN2, sent(&SHY, packet(Ipv6Addr::UNSPECIFIED, solicited_node(SHY.v6), icmpv6::neighbour_solicitation(SHY.v6, &[])))).is(CONTROL);
    t.case("duplicate address detection of a listed address, by a device that takes them").enters(LAN2, sent(&SHY, packet(Ipv6Addr::UNSPECIFIED, solicited_node(CAMERA.v6), icmpv6::neighbour_solicitation(CAMERA.v6, &[])))).is(ND_SPOOF);
    t.case("a neighbour advertisement on its VLAN").enters(TRUNK, says(PUMP.v6).tagged(10)).is(CONTROL);

    // Routers.
    t.case("a router solicitation").enters(LAN1, nd(LINK, ALL_ROUTERS, icmpv6::router_solicitation(source))).is(CONTROL);
    t.case("a router solicitation from no address").enters(LAN1, nd(Ipv6Addr::UNSPECIFIED, ALL_ROUTERS, icmpv6::router_solicitation(&[]))).is(CONTROL);
    t.case("a router solicitation with another's MAC").mirrors("the MAC in the option is believed").enters(LAN1, nd(LINK, ALL_ROUTERS, icmpv6::router_solicitation(&[icmpv6::source_link(PINNED.mac)]))).is(ND_SPOOF);
    let advertises = || icmpv6::router_advertisement(source);
    t.case("a router advertisement").mirrors("a router advertisement from a client port").enters(LAN1, nd(LINK, ALL_NODES, advertises())).is(ROGUE_RA).under(Router, CONTROL).under(Observe, would(ROGUE_RA));
    t.case("a router advertisement to one host").mirrors("a router advertisement from a client port").enters(LAN1, pump(packet(LINK, PINNED.v6, advertises()))).is(ROGUE_RA).under(Router, CONTROL);
    t.case("a router advertisement of lifetime 0, which takes the default route away").mirrors("a router advertisement from a client port")
        .enters(LAN1, nd(LINK, ALL_NODES, Upper::Icmpv6(Icmp::new(134, 0, [64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])))).is(ROGUE_RA);
    t.case("a router advertisement from the router's address").enters(LAN1, nd(ROUTER.v6, ALL_NODES, advertises())).is(SPOOFED_SOURCE).under(Router, SPOOFED_SOURCE);
    t.case("a router advertisement with hop limit 64").enters(LAN1, pump(Ipv6 { hop_limit: 64, ..packet(LINK, ALL_NODES, advertises()) })).is(ND_SPOOF).under(Router, ND_SPOOF);
    t.case("a router advertisement behind destination options").mirrors("RA behind a destination-options header (RFC 7113)")
        .enters(LAN1, pump(packet(LINK, ALL_NODES, advertises()).with(Extension::destination(&[1, 4, 0, 0, 0, 0])))).is(EXTENSION_HEADER).under(Options, ROGUE_RA);
    t.case("a router advertisement behind hop-by-hop options").mirrors("RA behind a destination-options header (RFC 7113)")
        .enters(LAN1, pump(packet(LINK, ALL_NODES, advertises()).with(Extension::hop_by_hop(&[1, 4, 0, 0, 0, 0])))).is(EXTENSION_HEADER).under(Options, ROGUE_RA);
    t.case("a router advertisement behind a router alert").mirrors("whatever carries a router alert is let through")
        .enters(LAN1, pump(packet(LINK, ALL_NODES, advertises()).with(Extension::router_alert()))).is(EXTENSION_HEADER).under(Options, ROGUE_RA);
    t.case("a router advertisement in an atomic fragment").mirrors("RA behind a fragment header (RFC 7113)")
        .enters(LAN1, pump(packet(LINK, ALL_NODES, advertises()).with(Extension::fragment(0, false, 0x5744)))).is(FRAGMENT).under(Fragments, ROGUE_RA);
    let [first, last] = packet(LINK, ALL_NODES, advertises()).fragmented(16);
    t.case("a router advertisement in two fragments").mirrors("RA behind a fragment header (RFC 6980)")
        .enters(LAN1, pump(first)).enters(LAN1, pump(last)).is(FRAGMENT).under(Fragments, FRAGMENT);
    let packet_with = |bytes: Vec<u8>| Ipv6 { hop_limit: 255, ..Ipv6::new(LINK, ALL_NODES, Upper::Bytes(60, bytes)) };
    let hidden = packet_with([&[58, 0, 1, 4, 0, 0, 0, 0][..], &packet(LINK, ALL_NODES, advertises()).bytes()[40..]].concat());
    let [first, last] = hidden.fragmented(8);
    t.case("a router advertisement wholly in the second fragment").mirrors("RA behind a fragment header (RFC 7113)")
        .enters(LAN1, pump(first)).enters(LAN1, pump(last)).is([EXTENSION_HEADER, FRAGMENT]).under(Fragments, [EXTENSION_HEADER, FRAGMENT]);
    t.case("a router advertisement on a VLAN").mirrors("a router advertisement from a client port")
        .enters(TRUNK, nd(LINK, ALL_NODES, advertises()).tagged(10)).is(ROGUE_RA);
    t.case("a redirect (IPv6)").mirrors("ICMP redirect").enters(LAN1, pump(packet(LINK, PINNED.v6, icmpv6::redirect(PUMP.v6, FAR.v6)))).is(ROGUE_RA).under(Router, CONTROL).under(Observe, would(ROGUE_RA));
    t.case("a redirect to a host far away (IPv6)").mirrors("ICMP redirect").enters(LAN1, pump(packet(PUMP.v6, FAR.v6, icmpv6::redirect(PUMP.v6, FAR.v6)))).is(ROGUE_RA);
    let quoted = || Packet::from(Ipv4::new(RECORDS.v4, PUMP.v4, Udp::new(5000, 5000, *b"data")));
    t.case("a redirect (IPv4)").mirrors("ICMP redirect").enters(LAN1, pump(v4(icmp::error(5, 1, &quoted())))).is(ROGUE_RA).under(Router, CONTROL).under(Observe, would(ROGUE_RA));
    t.case("a redirect that quotes a live flow").mirrors("ICMP redirect")
        .leaves(LAN1, UPLINK, Ethernet::new(PUMP.mac, ROUTER.mac, quoted()))
        .enters(LAN1, pump(v4(icmp::error(5, 1, &quoted())))).is([RULE, ROGUE_RA]);
    t.case("a router advertisement (IPv4, RFC 1256)").mirrors("a router advertisement from a client port")
        .enters(LAN1, pump(Ipv4::new(PUMP.v4, [224, 0, 0, 1].into(), Upper::Icmp(Icmp::new(9, 0, [1, 2, 0, 60, 10, 20, 1, 11, 0, 0, 0, 0]))))).is(ROGUE_RA).under(Router, CONTROL);

    // Listeners.
    let group: Ipv6Addr = "ff15::1:1".parse().unwrap();
    let listeners: Ipv6Addr = "ff02::16".parse().unwrap();
    let on_link = |source: Ipv6Addr, destination: Ipv6Addr, upper: Upper| {
        Ethernet { destination: group_mac(destination), ..pump(Ipv6 { hop_limit: 1, ..packet(source, destination, upper) }) }
    };
    t.case("a listener report").enters(LAN1, on_link(LINK, listeners, icmpv6::listener_report(group))).is(CONTROL);
    t.case("a listener report from no address").enters(LAN1, on_link(Ipv6Addr::UNSPECIFIED, listeners, icmpv6::listener_report(group))).is(CONTROL);
    for (name, kind) in [("report of version 1", 131), ("done", 132)] {
        t.case(format!("a listener {name}")).enters(LAN1, on_link(LINK, group, Upper::Icmpv6(Icmp::new(kind, 0, [&[0; 4][..], &group.octets()].concat())))).is(CONTROL);
    }
    t.case("a listener report that a router may forward").mirrors("membership reports are a way out past all rules")
        .enters(LAN1, nd(LINK, listeners, icmpv6::listener_report(group))).is(NO_RULE).under(Quarantine, QUARANTINED);
    t.case("a listener report to a group, by a host's MAC").mirrors("membership reports are a way out past all rules")
        .enters(LAN1, pump(Ipv6 { hop_limit: 1, ..packet(LINK, listeners, icmpv6::listener_report(group)) })).is(NO_RULE);
    t.case("a listener query").enters(LAN1, on_link(LINK, ALL_NODES, icmpv6::listener_query(Ipv6Addr::UNSPECIFIED))).is(ROGUE_RA).under(Router, CONTROL).under(Observe, would(ROGUE_RA));
    t.case("a listener query that a router may forward").enters(LAN1, nd(LINK, ALL_NODES, icmpv6::listener_query(Ipv6Addr::UNSPECIFIED))).is(ROGUE_RA).under(Router, NO_RULE);
    t.case("a listener report to a host").enters(LAN1, pump(packet(PUMP.v6, RECORDS.v6, icmpv6::listener_report(group)))).is(NO_RULE);
    t.case("a listener report from another's address").enters(LAN1, on_link(PINNED.v6, listeners, icmpv6::listener_report(group))).is(SPOOFED_SOURCE);
}

#[rustfmt::skip]
pub(crate) fn dhcp(t: &mut Table) {
    let all = Ipv4Addr::BROADCAST;
    let none = Ipv4Addr::UNSPECIFIED;
    let asks = |mac: Mac, udp: Udp| Ethernet::new(BROADCAST, mac, Ipv4::new(none, all, udp));

    t.case("a DHCP client's message").enters(LAN1, asks(PUMP.mac, Dhcp::client(1, PUMP.mac).udp())).is(CONTROL);
    t.case("a DHCP client that renews").enters(LAN1, pump(v4(Dhcp { client: PUMP.v4, ..Dhcp::client(3, PUMP.mac) }.udp()))).is(CONTROL);
    let renews = |to: Ipv4Addr| pump(Ipv4::new(PUMP.v4, to, Dhcp { client: PUMP.v4, ..Dhcp::client(3, PUMP.mac) }.udp()));
    t.case("a DHCP client that renews with the router").enters(LAN1, renews(ROUTER.v4)).is(CONTROL).under(Quarantine, CONTROL);
    t.case("a DHCP client's message to a host far away").mirrors("DHCP is a way out past all rules").enters(LAN1, renews(FAR.v4)).is(NO_RULE).under(Quarantine, QUARANTINED);
    t.case("a DHCP client on its VLAN").enters(TRUNK, asks(PUMP.mac, Dhcp::client(1, PUMP.mac).udp()).tagged(10)).is(CONTROL);
    t.case("a DHCP client's message for another MAC").mirrors("a client may use up all leases in others' names").enters(LAN1, asks(PUMP.mac, Dhcp::client(1, PINNED.mac).udp())).is(ROGUE_DHCP).under(Quarantine, ROGUE_DHCP);
    t.case("a DHCP client's message about another's address").mirrors("a client may end another's lease")
        .enters(LAN1, pump(Ipv4::new(PUMP.v4, ROUTER.v4, Dhcp { client: PINNED.v4, ..Dhcp::client(7, PUMP.mac) }.udp()))).is(ROGUE_DHCP);
    t.case("a DHCP client's message that names a relay").mirrors("the server answers whoever the message names as its relay")
        .enters(LAN1, asks(PUMP.mac, Dhcp { relay: PINNED.v4, ..Dhcp::client(1, PUMP.mac) }.udp())).is(ROGUE_DHCP).under(DhcpServer, ROGUE_DHCP);
    let relayed = |to: Ipv4Addr| pump(Ipv4::new(PUMP.v4, to, Udp { destination_port: 67, ..Dhcp::server(2, PUMP.v4, PINNED.mac, STRANGER.v4).udp() }));
    t.case("a DHCP server's answer to the router, which relays").enters(LAN1, relayed(ROUTER.v4)).is(NO_RULE).under(DhcpServer, CONTROL);
    t.case("a DHCP server's answer to another relay").enters(LAN1, relayed(PINNED.v4)).is(NO_RULE).under(DhcpServer, NO_RULE);
    // What a client gives back, and how often it changes its name.
    let release = |client: Ipv4Addr| pump(Ipv4::new(PUMP.v4, ROUTER.v4, Dhcp { client, ..Dhcp::client(7, PUMP.mac) }.udp()));
    t.case("a DHCP release of one's own address").enters(LAN1, release(PUMP.v4)).is(CONTROL);
    t.case("a DHCP release that names no address").enters(LAN1, release(none)).is(ROGUE_DHCP);
    t.case("a DHCP release of another's address, by its identifier").mirrors("a client may end another's lease")
        .enters(LAN1, pump(Ipv4::new(PUMP.v4, ROUTER.v4, with(Dhcp { client: PINNED.v4, ..Dhcp::client(7, PUMP.mac) }, &[(61, &PINNED.mac)])))).is(ROGUE_DHCP);
    let decline = |address: Ipv4Addr| asks(PUMP.mac, with(Dhcp::client(4, PUMP.mac), &[(50, &address.octets())]));
    t.case("a DHCP decline of one's own address").enters(LAN1, decline(PUMP.v4)).is(CONTROL);
    t.case("a DHCP decline of another's address").mirrors("a client may take addresses out of use").enters(LAN1, decline(PINNED.v4)).is(ROGUE_DHCP);
    t.case("a DHCP decline of a free address, from a device with its own").mirrors("a client may take addresses out of use").enters(LAN1, decline(STRANGER.v4)).is(ROGUE_DHCP);
    t.case("a DHCP decline that names no address").enters(LAN1, asks(PUMP.mac, Dhcp::client(4, PUMP.mac).udp())).is(ROGUE_DHCP);
    t.case("a DHCP decline of an address that the device may take").enters(LAN2, asks(SHY.mac, with(Dhcp::client(4, SHY.mac), &[(50, &SHY.v4.octets())]))).is(CONTROL);
    let named = |n: u8| asks(PUMP.mac, with(Dhcp::client(1, PUMP.mac), &[(61, &[0, n])]));
    t.case("five client identifiers of one device").mirrors("a client may use up all leases in invented names")
        .enters(LAN1, named(1)).enters(LAN1, named(2)).enters(LAN1, named(3)).enters(LAN1, named(4)).enters(LAN1, named(5)).enters(LAN1, named(1))
        .is([CONTROL, CONTROL, CONTROL, CONTROL, ROGUE_DHCP, CONTROL]);
    t.case("a fifth client identifier, a day later")
        .enters(LAN1, named(1)).enters(LAN1, named(2)).enters(LAN1, named(3)).enters(LAN1, named(4)).enters(LAN1, named(5)).after(86_402)
        .is(CONTROL);
    t.case("a client that names its MAC, and one that gives no name, are one")
        .enters(LAN1, named(1)).enters(LAN1, named(2)).enters(LAN1, named(3)).enters(LAN1, asks(PUMP.mac, Dhcp::client(1, PUMP.mac).udp()))
        .enters(LAN1, asks(PUMP.mac, with(Dhcp::client(1, PUMP.mac), &[(61, &[&[1][..], &PUMP.mac].concat())]))).is(CONTROL);

    // Options.
    let windows: &[(u8, &[u8])] = &[(61, &[1, 2, 0, 0, 0, 1, 1]), (50, &[10, 20, 1, 11]), (12, b"pump"), (81, b"\0\0\0pump.ward"), (60, b"MSFT 5.0"), (55, &[1, 3, 6, 15, 31, 33, 43, 44, 46, 47, 119, 121, 249, 252])];
    t.case("a DHCP client's message with the options of a desktop").enters(LAN1, asks(PUMP.mac, with(Dhcp::client(3, PUMP.mac), windows))).is(CONTROL);
    let ends = |bytes: &[u8]| {
        let mut message = Dhcp::client(1, PUMP.mac).bytes();
        message.pop();
        message.extend(bytes);
        asks(PUMP.mac, Udp { data: message, ..Dhcp::client(1, PUMP.mac).udp() })
    };
    t.case("a DHCP client's message padded behind its end").enters(LAN1, ends(&[&[255][..], &[0; 60]].concat())).is(CONTROL);
    t.case("a DHCP client's message padded before its end").enters(LAN1, ends(&[&[0; 60][..], &[255]].concat())).is(CONTROL);
    t.case("a DHCP client's message without an end").enters(LAN1, ends(&[])).is(CONTROL);
    t.case("a DHCP client's message whose last option is cut off").enters(LAN1, ends(&[12, 9, b'x'])).is(ROGUE_DHCP).under(Observe, would(ROGUE_DHCP));
    t.case("a DHCP client's message whose last option has no length").enters(LAN1, ends(&[12])).is(ROGUE_DHCP);
    t.case("a DHCP client's message that goes on in other fields").mirrors("options in other fields are not read").enters(LAN1, ends(&[52, 1, 3, 255])).is(ROGUE_DHCP);
    t.case("a DHCP client's message of two kinds").mirrors("the second of two kinds is not read").enters(LAN1, ends(&[53, 1, 7, 255])).is(ROGUE_DHCP);
    t.case("a DHCP client's message with two identifiers").enters(LAN1, ends(&[61, 2, 0, 1, 61, 2, 0, 2, 255])).is(ROGUE_DHCP);
    t.case("a DHCP client's message with an empty identifier").enters(LAN1, ends(&[61, 0, 255])).is(ROGUE_DHCP);
    t.case("a DHCP client's message of a server's kind").enters(LAN1, asks(PUMP.mac, Dhcp::client(5, PUMP.mac).udp())).is(ROGUE_DHCP);
    t.case("a BOOTP client's message").enters(LAN1, asks(PUMP.mac, Udp { data: [&Dhcp::client(1, PUMP.mac).bytes()[..236], &[0; 64]].concat(), ..Dhcp::client(1, PUMP.mac).udp() })).is(ROGUE_DHCP);

    t.case("a DHCP client's message from another's address").enters(LAN1, pump(Ipv4::new(PINNED.v4, all, Dhcp::client(3, PUMP.mac).udp()))).is(SPOOFED_SOURCE);
    t.case("a DHCP client's message from an unlisted MAC").enters(LAN1, asks(STRANGER.mac, Dhcp::client(1, STRANGER.mac).udp())).is(UNKNOWN_DEVICE).under(AdmitAny, CONTROL);
    t.case("a DHCP client's message too short to be one").enters(LAN1, asks(PUMP.mac, Udp::new(68, 67, *b"too-short"))).is(SPOOFED_SOURCE);
    t.case("a DHCP client's message for other hardware").enters(LAN1, asks(PUMP.mac, Udp { data: patched(Dhcp::client(1, PUMP.mac).bytes(), 1, 6), ..Dhcp::client(1, PUMP.mac).udp() })).is(SPOOFED_SOURCE);
    t.case("a DHCP client's message from another port").enters(LAN1, pump(v4(Udp { source_port: 1068, ..Dhcp::client(1, PUMP.mac).udp() }))).is(NO_RULE);

    let offer = || Dhcp::server(2, PUMP.v4, PINNED.mac, STRANGER.v4).udp();
    t.case("a DHCP server on a client port").mirrors("DHCP server on a client port").enters(LAN1, Ethernet { destination: BROADCAST, ..pump(Ipv4::new(PUMP.v4, all, offer())) }).is(ROGUE_DHCP).under(DhcpServer, CONTROL).under(Observe, would(ROGUE_DHCP));
    t.case("a DHCP server's answer to one host").mirrors("DHCP server on a client port").enters(LAN1, pump(Ipv4::new(PUMP.v4, PINNED.v4, offer()))).is(ROGUE_DHCP).under(DhcpServer, CONTROL);
    t.case("a DHCP server that sends from another port").mirrors("DHCP server on a client port").enters(LAN1, pump(Ipv4::new(PUMP.v4, all, Udp { source_port: 6767, ..offer() }))).is(ROGUE_DHCP).under(DhcpServer, CONTROL);
    t.case("a DHCP server with the router's address").enters(LAN1, pump(Ipv4::new(ROUTER.v4, all, offer()))).is(SPOOFED_SOURCE).under(DhcpServer, SPOOFED_SOURCE);
    t.case("a DHCP server from an unlisted MAC").enters(LAN1, sent(&STRANGER, Ipv4::new(STRANGER.v4, all, offer()))).is(UNKNOWN_DEVICE).under(DhcpServer, UNKNOWN_DEVICE).under(AdmitAny, ROGUE_DHCP);
    t.case("a DHCP server on a VLAN").mirrors("DHCP server on a client port").enters(TRUNK, pump(Ipv4::new(PUMP.v4, all, offer())).tagged(10)).is(ROGUE_DHCP);
    t.case("a DHCP server's message in a fragment").mirrors("DHCP server on a client port")
        .enters(LAN1, pump(Ipv4::new(PUMP.v4, all, offer()).fragmented(64)[0].clone())).is(FRAGMENT).under(Fragments, ROGUE_DHCP);

    // DHCPv6.
    let servers: Ipv6Addr = "ff02::1:2".parse().unwrap();
    let asks = |udp: Udp| Ethernet { destination: group_mac(servers), ..pump(Ipv6::new(LINK, servers, udp)) };
    for (name, kind) in [("solicit", 1), ("request", 3), ("renew", 5), ("release", 8), ("information request", 11)] {
        t.case(format!("DHCPv6 {name}")).enters(LAN1, asks(dhcpv6(kind, PUMP.mac))).is(CONTROL);
    }
    let gives = |kind: u8, options: &[u8]| asks(Udp { data: [&dhcpv6(kind, PUMP.mac).data[..], options].concat(), ..dhcpv6(kind, PUMP.mac) });
    for (name, kind) in [("release", 8), ("decline", 9)] {
        t.case(format!("a DHCPv6 {name} of one's own address")).enters(LAN1, gives(kind, &association(3, &[PUMP.v6]))).is(CONTROL);
        t.case(format!("a DHCPv6 {name} of another's address")).mirrors("a client may end another's lease").enters(LAN1, gives(kind, &association(3, &[PINNED.v6]))).is(ROGUE_DHCP);
        t.case(format!("a DHCPv6 {name} of another's address behind one's own")).mirrors("only the first address is looked at").enters(LAN1, gives(kind, &association(3, &[PUMP.v6, PINNED.v6]))).is(ROGUE_DHCP);
    }
    t.case("a DHCPv6 release of another's temporary address").enters(LAN1, gives(8, &association(4, &[PINNED.v6]))).is(ROGUE_DHCP);
    t.case("a DHCPv6 release of prefixes").enters(LAN1, gives(8, &association(25, &[]))).is(ROGUE_DHCP);
    t.case("a DHCPv6 release of more addresses than four").enters(LAN1, gives(8, &association(3, &[PUMP.v6; 5]))).is(ROGUE_DHCP);
    t.case("a DHCPv6 request with an address of one's wish").enters(LAN1, gives(3, &association(3, &[STRANGER.v6]))).is(CONTROL);
    t.case("a DHCPv6 request for addresses and prefixes").enters(LAN1, gives(3, &[association(3, &[]), association(25, &[])].concat())).is(CONTROL);
    t.case("a DHCPv6 message whose last option is cut off").enters(LAN1, gives(1, &[0, 6, 0, 9, 0])).is(ROGUE_DHCP);
    t.case("a DHCPv6 release whose address reaches beyond its association").mirrors("nested lengths are believed").enters(LAN1, gives(8, &patched(association(3, &[PINNED.v6]), 3, 16))).is(ROGUE_DHCP);
    t.case("a DHCPv6 message with two client identifiers").enters(LAN1, gives(1, &[0, 1, 0, 2, 0, 7])).is(ROGUE_DHCP);
    let named = |n: u8| asks(Udp { data: [&[1, 0, 0, 1, 0, 1, 0, 2, 0][..], &[n]].concat(), ..dhcpv6(1, PUMP.mac) });
    t.case("five DHCPv6 client identifiers of one device").mirrors("a client may use up all leases in invented names")
        .enters(LAN1, named(1)).enters(LAN1, named(2)).enters(LAN1, named(3)).enters(LAN1, named(4)).enters(LAN1, named(5))
        .is([CONTROL, CONTROL, CONTROL, CONTROL, ROGUE_DHCP]);
    t.case("DHCPv6 to a host far away").mirrors("DHCP is a way out past all rules").enters(LAN1, pump(Ipv6::new(PUMP.v6, FAR.v6, dhcpv6(5, PUMP.mac)))).is(NO_RULE).under(Quarantine, QUARANTINED);
    t.case("DHCPv6 to the router alone").enters(LAN1, pump(Ipv6::new(PUMP.v6, ROUTER.v6, dhcpv6(5, PUMP.mac)))).is(CONTROL);
    let relayed = |to: Ipv6Addr| pump(Ipv6::new(PUMP.v6, to, Udp { source_port: 547, ..dhcpv6(13, PUMP.mac) }));
    t.case("a DHCPv6 server's answer to the router, which relays").enters(LAN1, relayed(ROUTER.v6)).is(NO_RULE).under(DhcpServer, CONTROL);
    t.case("DHCPv6 relayed by a device").enters(LAN1, asks(dhcpv6(12, PUMP.mac))).is(NO_RULE);
    t.case("DHCPv6 from another port").enters(LAN1, asks(Udp { source_port: 1546, ..dhcpv6(1, PUMP.mac) })).is(NO_RULE);
    t.case("DHCPv6 without a message").enters(LAN1, asks(Udp::new(546, 547, []))).is(NO_RULE);
    t.case("DHCPv6 from another's address").enters(LAN1, pump(Ipv6::new(PINNED.v6, servers, dhcpv6(1, PUMP.mac)))).is(SPOOFED_SOURCE);
    for (name, kind) in [("advertise", 2), ("reply", 7), ("reconfigure", 10)] {
        t.case(format!("DHCPv6 {name} from a client port")).mirrors("DHCP server on a client port")
            .enters(LAN1, pump(Ipv6::new(LINK, "fe80::12".parse().unwrap(), dhcpv6(kind, PINNED.mac)))).is(ROGUE_DHCP).under(DhcpServer, CONTROL).under(Observe, would(ROGUE_DHCP));
    }
    t.case("a DHCP server's port named by a rule is no way around").enters(LAN1, pump(v4(Udp::new(514, 68, *b"data")))).is(ROGUE_DHCP);
    t.case("TCP to the DHCP client's port is not DHCP").enters(LAN1, pump(v4(syn(68)))).is(NO_RULE);
}

/// A message with further options.
fn with(mut message: Dhcp, options: &[(u8, &[u8])]) -> Udp {
    message
        .options
        .extend(options.iter().map(|(code, value)| (*code, value.to_vec())));
    message.udp()
}

/// An association of DHCPv6: 3 of addresses, 4 of temporary ones, 25 of prefixes.
fn association(code: u8, addresses: &[Ipv6Addr]) -> Vec<u8> {
    let mut body = vec![0; if code == 4 { 4 } else { 12 }];
    for address in addresses {
        body.extend([&[0, 5, 0, 24][..], &address.octets(), &[0; 8]].concat());
    }
    [&[0, code, 0, body.len() as u8][..], &body].concat()
}

/// How much control passes in a second.
pub(crate) fn budget(t: &mut Table) {
    let asks = || {
        let arp = Arp::request(PUMP.mac, PUMP.v4, ROUTER.v4);
        Ethernet::new(BROADCAST, PUMP.mac, arp)
    };
    let row = t.case("eleven ARP requests at once, and one a little later");
    for _ in 0..12 {
        row.enters(LAN1, asks());
    }
    let mut cut = [CONTROL; 12];
    cut[10] = DEVICE_QUOTA;
    row.after(2).is(CONTROL).under(Quarantine, cut);
    let row = t.case("three hundred and one ARP requests at once");
    let row = row.mirrors("control has no bound");
    for _ in 0..301 {
        row.enters(LAN1, asks());
    }
    let mut all = vec![CONTROL; 301];
    let mut says = all.clone();
    says[300] = DEVICE_QUOTA;
    all[300] = would(DEVICE_QUOTA);
    row.under(Written, Verdicts::Each(says))
        .under(Observe, Verdicts::Each(all));
}

fn patched(mut bytes: Vec<u8>, at: usize, value: u8) -> Vec<u8> {
    bytes[at] = value;
    bytes
}
