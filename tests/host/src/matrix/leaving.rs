//! Frames that leave a guarded port: from the uplink, from the router, from another guarded port.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{
    case::{
        ARP_SPOOF, BAD_TCP_FLAGS, CONTROL, ESTABLISHED, EXTENSION_HEADER,
        Family::V4,
        IP_OPTIONS, MALFORMED, MID_FLOW, MISDIRECTED, ND_SPOOF, NO_RULE, QUARANTINED, ROGUE_RA,
        RULE, SPOOFED_SOURCE,
        Setting::{Ethertypes, Observe, Options, Quarantine, Router},
        Table, UNKNOWN_ETHERTYPE, WRONG_VLAN, again, would,
    },
    network::{
        ALL_NODES, BRIDGE, CAMERA, FAR, FROM_LAN1, FROM_LAN2, LAN1, LAN2, LAN3, LINK, PINNED, PUMP,
        RECORDS, ROUTER, ROUTER_ITSELF, SERVER, SHY, SIDE, STRANGER, TRUNK, UPLINK, back, down,
        forwarded, sent, syn, tcp, udp, up,
    },
};
use wardline_oracle::frames::{
    ACK, Arp, BROADCAST, Dhcp, Ethernet, Extension, Icmp, Ipv4, Ipv6, Mac, Packet, SYN, Upper,
    dhcpv6, group_mac, icmp, icmpv6, igmp_query, igmp_report, solicited_node,
};

/// What other products let through.
const BY_MAC: &str = "who knows a MAC reaches it by any allowed address";

#[rustfmt::skip]
pub(crate) fn rows(t: &mut Table) {
    // From the uplink.
    t.both("from the uplink, where a rule allows it", |c, f| { c.leaves(LAN1, UPLINK, down(&RECORDS, &PUMP, f, syn(5000))).is(RULE); });
    t.both("from the uplink, where no rule allows it", |c, f| { c.leaves(LAN1, UPLINK, down(&FAR, &PUMP, f, syn(5000))).is(NO_RULE); });
    t.both("from the uplink, in the middle of no connection", |c, f| { c.leaves(LAN1, UPLINK, down(&RECORDS, &PUMP, f, tcp(5000, ACK))).is(MID_FLOW); });
    t.both("from the uplink, with a guarded device's address", |c, f| { c.mirrors("a device's address is believed from the uplink"); c.leaves(LAN1, UPLINK, down(&CAMERA, &PUMP, f, syn(443))).is(SPOOFED_SOURCE); });
    t.both("from the uplink, with the receiver's own zone's device", |c, f| { c.leaves(LAN1, UPLINK, down(&PINNED, &PUMP, f, syn(9100))).is(SPOOFED_SOURCE); });
    t.both("from the uplink, with a free address of a guarded network", |c, f| {
        c.mirrors("a stranger behind the uplink has a zone's rights").leaves(LAN1, UPLINK, down(&STRANGER, &PUMP, f, syn(443))).is(SPOOFED_SOURCE);
    });
    t.both("from the uplink, with a free address of another guarded network", |c, f| {
        c.mirrors("a stranger behind the uplink has a zone's rights").leaves(LAN1, UPLINK, down(&SHY, &PUMP, f, syn(443))).is(SPOOFED_SOURCE);
    });
    t.both("from beside guarded ports on their bridge, with a free address", |c, f| { c.leaves(TRUNK, SIDE, down(&STRANGER, &PUMP, f, syn(443)).tagged(10)).is(RULE); });
    t.both("from the router, with a free address of a guarded network", |c, f| { c.leaves(LAN1, ROUTER_ITSELF, down(&STRANGER, &PUMP, f, syn(443))).is(SPOOFED_SOURCE); });
    t.both("from the uplink, with the router's address", |c, f| { c.mirrors("the router's address is believed from the uplink"); c.leaves(LAN1, UPLINK, down(&ROUTER, &PUMP, f, syn(80))).is(SPOOFED_SOURCE); });
    t.both("from the uplink, with a zone's address that no device claims", |c, f| { c.leaves(LAN1, UPLINK, down(&SERVER, &PUMP, f, syn(5000))).is(NO_RULE); });
    for (name, source) in [("127.0.0.1", [127, 0, 0, 1]), ("0.0.0.0", [0, 0, 0, 0]), ("a group", [224, 0, 0, 1]), ("the broadcast", [255; 4])] {
        t.case(format!("from the uplink, TCP from {name}")).leaves(LAN1, UPLINK, forwarded(&PUMP, Ipv4::new(source.into(), PUMP.v4, syn(5000)))).is(SPOOFED_SOURCE);
    }
    for source in ["::1", "::", "ff02::1", "::ffff:10.20.9.10", "::10.20.9.10"] {
        t.case(format!("from the uplink, TCP from {source}")).leaves(LAN1, UPLINK, forwarded(&PUMP, Ipv6::new(source.parse().unwrap(), PUMP.v6, syn(5000)))).is(SPOOFED_SOURCE);
    }
    t.case("from the uplink, TCP from a link-local address").leaves(LAN1, UPLINK, forwarded(&PUMP, Ipv6::new("fe80::1".parse().unwrap(), PUMP.v6, syn(5000)))).is(NO_RULE);
    t.both("from the uplink, to a VLAN's device", |c, f| { c.leaves(LAN1, UPLINK, down(&FAR, &CAMERA, f, syn(443)).tagged(20)).is(NO_RULE); });
    t.case("out of a VLAN that the port has not").leaves(LAN1, UPLINK, down(&RECORDS, &PUMP, V4, syn(5000)).tagged(30)).is(WRONG_VLAN);
    t.case("out untagged where no zone is untagged").leaves(TRUNK, UPLINK, down(&RECORDS, &PUMP, V4, syn(5000))).is(WRONG_VLAN);
    t.case("out of VLAN 4095").leaves(LAN1, UPLINK, down(&RECORDS, &PUMP, V4, syn(5000)).tagged(0xfff)).is(MALFORMED);
    t.case("out with two tags").mirrors("a second tag hops VLANs").leaves(LAN1, UPLINK, down(&RECORDS, &PUMP, V4, syn(5000)).tagged(20).tagged(20)).is(UNKNOWN_ETHERTYPE);

    // Form, from the uplink and from the router.
    t.case("from the uplink, malformed").leaves(LAN1, UPLINK, forwarded(&PUMP, Ipv4 { version: 5, ..Ipv4::new(RECORDS.v4, PUMP.v4, syn(5000)) })).is(MALFORMED);
    t.case("from the router, malformed").leaves(LAN1, ROUTER_ITSELF, forwarded(&PUMP, Ipv4 { version: 5, ..Ipv4::new(ROUTER.v4, PUMP.v4, syn(80)) })).is(MALFORMED);
    t.case("from the uplink, TCP flags that no stack sends").leaves(LAN1, UPLINK, down(&RECORDS, &PUMP, V4, tcp(5000, 0))).is(BAD_TCP_FLAGS);
    let options = |source: Ipv4Addr, port| forwarded(&PUMP, Ipv4 { options: vec![1; 4], ..Ipv4::new(source, PUMP.v4, syn(port)) });
    t.case("from the uplink, with IPv4 options").leaves(LAN1, UPLINK, options(RECORDS.v4, 5000)).is(IP_OPTIONS).under(Options, RULE);
    t.case("from the router, with IPv4 options").leaves(LAN1, ROUTER_ITSELF, options(ROUTER.v4, 80)).is(RULE);
    t.case("from the uplink, with a source route").leaves(LAN1, UPLINK, forwarded(&PUMP, Ipv4 { options: vec![131, 3, 4, 0], ..Ipv4::new(RECORDS.v4, PUMP.v4, syn(5000)) })).is(IP_OPTIONS).under(Options, IP_OPTIONS);
    t.case("from the uplink, with extension headers").leaves(LAN1, UPLINK, forwarded(&PUMP, Ipv6::new(RECORDS.v6, PUMP.v6, syn(5000)).with(Extension::destination(&[1, 4, 0, 0, 0, 0])))).is(EXTENSION_HEADER).under(Options, RULE);
    t.case("from the uplink, with a routing header").leaves(LAN1, UPLINK, forwarded(&PUMP, Ipv6::new(RECORDS.v6, PUMP.v6, syn(5000)).with(Extension::routing(0, 1, &[0; 20])))).is(EXTENSION_HEADER).under(Options, EXTENSION_HEADER);
    t.case("from the uplink, PROFINET").leaves(LAN1, UPLINK, Ethernet::new(PUMP.mac, FAR.mac, Packet::Bytes(0x8892, vec![0; 46]))).is(UNKNOWN_ETHERTYPE).under(Ethertypes, CONTROL);
    t.case("from the uplink, a bridge's spanning tree").leaves(LAN1, UPLINK, Ethernet::new([1, 0x80, 0xc2, 0, 0, 0], FAR.mac, Packet::Bytes(38, vec![0x42, 0x42, 3]))).is(UNKNOWN_ETHERTYPE);
    t.case("from the router, LLDP").leaves(LAN1, ROUTER_ITSELF, Ethernet::new([1, 0x80, 0xc2, 0, 0, 0x0e], ROUTER.mac, Packet::Bytes(0x88cc, vec![2, 7, 4]))).is(CONTROL);
    t.case("from the router, EAPOL").leaves(LAN1, ROUTER_ITSELF, Ethernet::new(PUMP.mac, ROUTER.mac, Packet::Bytes(0x888e, vec![1, 0, 0, 0]))).is(CONTROL);

    // Control from the router.
    let arp = |mac: Mac, address: Ipv4Addr| Ethernet::new(BROADCAST, mac, Arp::request(mac, address, PUMP.v4));
    let nd = |mac: Mac, source: Ipv6Addr, upper: Upper| Ethernet::new(group_mac(ALL_NODES), mac, Ipv6 { hop_limit: 255, ..Ipv6::new(source, ALL_NODES, upper) });
    let router_link: Ipv6Addr = "fe80::1".parse().unwrap();
    let solicits = |mac: Mac, source: Ipv6Addr| Ethernet::new(group_mac(solicited_node(PUMP.v6)), mac, Ipv6 { hop_limit: 255, ..Ipv6::new(source, solicited_node(PUMP.v6), icmpv6::neighbour_solicitation(PUMP.v6, &[icmpv6::source_link(mac)])) });
    t.case("from the router, ARP").leaves(LAN1, ROUTER_ITSELF, arp(ROUTER.mac, ROUTER.v4)).is(CONTROL);
    t.case("from the router, a neighbour solicitation").leaves(LAN1, ROUTER_ITSELF, solicits(ROUTER.mac, ROUTER.v6)).is(CONTROL);
    t.case("from the router, a router advertisement").leaves(LAN1, ROUTER_ITSELF, nd(ROUTER.mac, router_link, icmpv6::router_advertisement(&[]))).is(CONTROL);
    let offer = |source: Ipv4Addr| Ethernet::new(PUMP.mac, ROUTER.mac, Ipv4::new(source, PUMP.v4, Dhcp::server(2, source, PUMP.mac, PUMP.v4).udp()));
    t.case("from the router, DHCP").leaves(LAN1, ROUTER_ITSELF, offer(ROUTER.v4)).is(CONTROL);
    t.case("from the router, DHCPv6").leaves(LAN1, ROUTER_ITSELF, forwarded(&PUMP, Ipv6::new(router_link, LINK, dhcpv6(7, PUMP.mac)))).is(CONTROL);
    t.case("from the router, a redirect").leaves(LAN1, ROUTER_ITSELF, forwarded(&PUMP, Ipv4::new(ROUTER.v4, PUMP.v4, icmp::error(5, 1, &Ipv4::new(PUMP.v4, FAR.v4, udp(9)).into())))).is(CONTROL);
    t.case("from the router, a ping that a rule allows").leaves(LAN1, ROUTER_ITSELF, down(&ROUTER, &PUMP, V4, icmp::request(7, 1))).is(RULE);
    t.case("from the router, in the name of a guarded device").leaves(LAN1, ROUTER_ITSELF, down(&CAMERA, &PUMP, V4, syn(443))).is(SPOOFED_SOURCE);
    t.case("from the router, an echo reply that nobody asked for").leaves(LAN1, ROUTER_ITSELF, down(&ROUTER, &PUMP, V4, icmp::reply(7, 1))).is(MID_FLOW);

    // Control from a bridged uplink.
    t.case("from the uplink, ARP of a server").leaves(LAN1, UPLINK, arp(FAR.mac, RECORDS.v4)).is(CONTROL);
    t.case("from the uplink, ARP in the router's name").mirrors("gateway ARP reply").leaves(LAN1, UPLINK, arp(FAR.mac, ROUTER.v4)).is(ARP_SPOOF);
    t.case("from the uplink, ARP in a device's name").mirrors("ARP is not judged").leaves(LAN1, UPLINK, arp(FAR.mac, PINNED.v4)).is(ARP_SPOOF);
    t.case("from the uplink, ARP for another MAC").mirrors("the MAC in the ARP packet is believed").leaves(LAN1, UPLINK, Ethernet { source: FAR.mac, ..arp(ROUTER.mac, RECORDS.v4) }).is(ARP_SPOOF);
    t.case("from the uplink, ARP of another form").leaves(LAN1, UPLINK, Ethernet::new(BROADCAST, FAR.mac, Arp { operation: 3, ..Arp::request(FAR.mac, RECORDS.v4, PUMP.v4) })).is(MALFORMED);
    let says = |target| nd(FAR.mac, RECORDS.v6, icmpv6::neighbour_advertisement(target, 0x20, &[icmpv6::target_link(FAR.mac)]));
    t.case("from the uplink, a neighbour advertisement of a server").leaves(LAN1, UPLINK, says(RECORDS.v6)).is(CONTROL);
    t.case("from the uplink, a neighbour advertisement of the router").mirrors("neighbour discovery is not judged").leaves(LAN1, UPLINK, says(ROUTER.v6)).is(ND_SPOOF);
    t.case("from the uplink, a neighbour advertisement of a device").mirrors("neighbour discovery is not judged").leaves(LAN1, UPLINK, says(PINNED.v6)).is(ND_SPOOF);
    t.case("from the uplink, a neighbour advertisement with hop limit 64").mirrors("neighbour discovery from beyond the link is believed").leaves(LAN1, UPLINK, forwarded(&PUMP, Ipv6::new(RECORDS.v6, PUMP.v6, icmpv6::neighbour_advertisement(RECORDS.v6, 0x20, &[])))).is(ND_SPOOF);
    t.case("from the uplink, a neighbour solicitation in a device's name").leaves(LAN1, UPLINK, solicits(FAR.mac, PINNED.v6)).is(SPOOFED_SOURCE);
    t.case("from the uplink, a router advertisement").leaves(LAN1, UPLINK, nd(FAR.mac, router_link, icmpv6::router_advertisement(&[]))).is(CONTROL);
    t.case("from the uplink, a redirect (IPv6)").mirrors("ICMP redirect").leaves(LAN1, UPLINK, nd(FAR.mac, router_link, icmpv6::redirect(FAR.v6, RECORDS.v6))).is(ROGUE_RA);
    t.case("from the uplink, a redirect (IPv4)").mirrors("ICMP redirect").leaves(LAN1, UPLINK, forwarded(&PUMP, Ipv4::new(FAR.v4, PUMP.v4, icmp::error(5, 1, &Ipv4::new(PUMP.v4, RECORDS.v4, udp(9)).into())))).is(ROGUE_RA);
    t.case("from the uplink, DHCP").leaves(LAN1, UPLINK, Ethernet { source: FAR.mac, ..offer(RECORDS.v4) }).is(CONTROL);
    t.case("from the uplink, DHCP that the router has forwarded").mirrors("DHCP is a way in past all rules").leaves(LAN1, UPLINK, offer(RECORDS.v4)).is(NO_RULE).under(Quarantine, QUARANTINED);
    t.case("from the uplink, DHCP in the router's name").mirrors("DHCP server on a client port").leaves(LAN1, UPLINK, offer(ROUTER.v4)).is(SPOOFED_SOURCE);
    t.case("from the uplink, DHCP in a device's name").mirrors("DHCP server on a client port").leaves(LAN1, UPLINK, offer(CAMERA.v4)).is(SPOOFED_SOURCE);
    t.case("from the uplink, an IGMP report").leaves(LAN1, UPLINK, Ethernet::new([1, 0, 0x5e, 1, 1, 1], FAR.mac, Ipv4 { ttl: 1, ..Ipv4::new(RECORDS.v4, [239, 1, 1, 1].into(), igmp_report([239, 1, 1, 1].into())) })).is(CONTROL);
    t.case("from the uplink, an IGMP report that a router may forward").leaves(LAN1, UPLINK, Ethernet::new([1, 0, 0x5e, 1, 1, 1], FAR.mac, Ipv4::new(RECORDS.v4, [239, 1, 1, 1].into(), igmp_report([239, 1, 1, 1].into())))).is(NO_RULE);
    t.case("from the uplink, an IGMP query for this link").leaves(LAN1, UPLINK, Ethernet::new([1, 0, 0x5e, 0, 0, 1], FAR.mac, Ipv4 { ttl: 1, ..Ipv4::new(RECORDS.v4, [224, 0, 0, 1].into(), igmp_query([0; 4].into())) })).is(CONTROL);
    t.case("from the uplink, an IGMP query").leaves(LAN1, UPLINK, Ethernet::new([1, 0, 0x5e, 0, 0, 1], FAR.mac, Ipv4::new(RECORDS.v4, [224, 0, 0, 1].into(), Upper::Bytes(2, vec![0x11, 0, 0, 0, 0, 0, 0, 0])))).is(NO_RULE);
    t.case("from the router, an IGMP query").leaves(LAN1, ROUTER_ITSELF, Ethernet::new([1, 0, 0x5e, 0, 0, 1], ROUTER.mac, Ipv4 { options: wardline_oracle::frames::ROUTER_ALERT.to_vec(), ..Ipv4::new(ROUTER.v4, [224, 0, 0, 1].into(), Upper::Bytes(2, vec![0x11, 0, 0, 0, 0, 0, 0, 0])) })).is(CONTROL);
    t.case("from the router, a listener query").leaves(LAN1, ROUTER_ITSELF, Ethernet::new(group_mac(ALL_NODES), ROUTER.mac, Ipv6::new(router_link, ALL_NODES, icmpv6::listener_query(Ipv6Addr::UNSPECIFIED)).with(Extension::router_alert()))).is(CONTROL);
    t.case("from the router, a router advertisement with seven prefixes").leaves(LAN1, ROUTER_ITSELF, nd(ROUTER.mac, router_link, Upper::Icmpv6(Icmp::new(134, 0, [&[64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0][..], &[&[3, 4, 64, 0xc0][..], &[0; 28]].concat().repeat(7)].concat())))).is(CONTROL);

    // From another guarded port, where it was judged.
    t.both("from another guarded port, what entered there", |c, f| {
        c.enters(LAN2, up(&CAMERA, &PUMP, f, syn(443))).leaves(LAN1, FROM_LAN2, down(&CAMERA, &PUMP, f, syn(443))).is([RULE, again(ESTABLISHED)]);
    });
    t.both("through a bridge above a guarded port, what entered there", |c, f| {
        c.enters(LAN3, up(&PUMP, &CAMERA, f, syn(554))).leaves(LAN2, BRIDGE, down(&PUMP, &CAMERA, f, syn(554))).is([RULE, again(ESTABLISHED)]);
    });
    t.both("from another guarded port, what no rule allows", |c, f| { c.leaves(LAN1, FROM_LAN2, down(&CAMERA, &PUMP, f, syn(23))).is(NO_RULE); });
    t.case("from another guarded port, ARP").leaves(LAN3, FROM_LAN1, arp(PUMP.mac, PUMP.v4)).is(again(CONTROL));
    t.case("from another guarded port, neighbour discovery").leaves(LAN3, FROM_LAN1, solicits(PUMP.mac, PUMP.v6)).is(again(CONTROL));
    t.case("from another guarded port, DHCP").leaves(LAN3, FROM_LAN1, Ethernet::new(BROADCAST, PUMP.mac, Ipv4::new(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST, Dhcp::client(1, PUMP.mac).udp()))).is(again(CONTROL));
    t.case("from another guarded port, PROFINET").leaves(LAN3, FROM_LAN1, sent(&PUMP, Packet::Bytes(0x8892, vec![0; 46]))).is(UNKNOWN_ETHERTYPE).under(Ethertypes, again(CONTROL));
    t.case("from another guarded port, PROFINET into a zone without it").mirrors("one zone's protocols cross into another").leaves(LAN2, FROM_LAN1, sent(&PUMP, Packet::Bytes(0x8892, vec![0; 46]))).is(UNKNOWN_ETHERTYPE).under(Ethertypes, UNKNOWN_ETHERTYPE);

    // MAC and address of the receiver.
    t.both("a flow's packet to another device's MAC", |c, f| {
        c.mirrors(BY_MAC);
        c.enters(LAN2, up(&CAMERA, &PUMP, f, syn(443))).leaves(LAN1, FROM_LAN2, Ethernet { destination: PINNED.mac, source: CAMERA.mac, ..down(&CAMERA, &PUMP, f, syn(443)) }).is([RULE, MISDIRECTED]);
    });
    t.both("a flow's packet to another device's MAC, after an answer", |c, f| {
        c.mirrors(BY_MAC);
        c.enters(LAN2, up(&CAMERA, &PUMP, f, syn(443))).enters(LAN1, up(&PUMP, &CAMERA, f, back(443, SYN | ACK))).enters(LAN2, up(&CAMERA, &PUMP, f, tcp(443, ACK)))
            .leaves(LAN1, FROM_LAN2, down(&CAMERA, &PUMP, f, tcp(443, ACK))).leaves(LAN1, FROM_LAN2, Ethernet { destination: PINNED.mac, ..down(&CAMERA, &PUMP, f, tcp(443, ACK)) })
            .is([RULE, ESTABLISHED, ESTABLISHED, again(ESTABLISHED), MISDIRECTED]);
    });
    t.both("a packet that opens a flow, to another device's MAC", |c, f| { c.mirrors(BY_MAC); c.leaves(LAN1, UPLINK, Ethernet { destination: PINNED.mac, ..down(&RECORDS, &PUMP, f, syn(5000)) }).is(MISDIRECTED).under(Observe, would(MISDIRECTED)); });
    t.both("a packet for the router to a device's MAC", |c, f| {
        c.mirrors(BY_MAC);
        c.enters(LAN1, up(&PUMP, &ROUTER, f, udp(53))).leaves(LAN3, FROM_LAN1, Ethernet { destination: PINNED.mac, ..up(&PUMP, &ROUTER, f, udp(53)) }).is([RULE, MISDIRECTED]);
    });
    t.both("a packet for a host far away to a device's MAC", |c, f| {
        c.mirrors(BY_MAC);
        c.enters(LAN1, up(&PUMP, &FAR, f, syn(443))).leaves(LAN3, FROM_LAN1, Ethernet { destination: PINNED.mac, ..up(&PUMP, &FAR, f, syn(443)) }).is([RULE, MISDIRECTED]);
    });
    t.both("the router's packet for a host far away to a device, its next hop", |c, f| {
        c.enters(LAN2, up(&CAMERA, &FAR, f, syn(443))).leaves(LAN1, FROM_LAN2, Ethernet { destination: PINNED.mac, ..down(&CAMERA, &FAR, f, syn(443)) }).is([RULE, again(ESTABLISHED)]);
    });
    t.both("a packet for a host far away to a device behind a port with routers", |c, f| {
        c.enters(LAN2, up(&CAMERA, &FAR, f, syn(443))).leaves(LAN1, FROM_LAN2, Ethernet { destination: PINNED.mac, source: CAMERA.mac, ..down(&CAMERA, &FAR, f, syn(443)) }).is([RULE, MISDIRECTED]).under(Router, [RULE, again(ESTABLISHED)]);
    });
    t.case("to a device that learns its addresses, one of its zone").leaves(LAN2, UPLINK, Ethernet { source: FAR.mac, ..forwarded(&SHY, Ipv4::new(RECORDS.v4, Ipv4Addr::new(10, 20, 2, 99), syn(23))) }).is(NO_RULE);
    t.case("a flow's packet that comes back from the uplink").mirrors("packets of a known flow are not asked where they come from")
        .enters(LAN1, up(&PUMP, &CAMERA, V4, syn(554))).leaves(LAN2, UPLINK, down(&PUMP, &CAMERA, V4, syn(554))).is([RULE, SPOOFED_SOURCE]);
    t.case("an answer that comes back from the uplink").mirrors("packets of a known flow are not asked where they come from")
        .enters(LAN1, up(&PUMP, &CAMERA, V4, syn(554))).enters(LAN2, up(&CAMERA, &PUMP, V4, back(554, 0x12))).leaves(LAN1, UPLINK, down(&CAMERA, &PUMP, V4, back(554, 0x10))).is([RULE, ESTABLISHED, SPOOFED_SOURCE]);
}
