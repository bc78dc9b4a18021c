//! Frames of containers and virtual machines with a MAC of their own above a port: they only leave.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{
    case::{
        ARP_SPOOF, CONTROL, ESTABLISHED, FRAGMENT, Family,
        Family::V4,
        MALFORMED, MISDIRECTED, ND_SPOOF, NO_RULE, QUARANTINED, ROGUE_DHCP, ROGUE_RA, RULE,
        SPOOFED_SOURCE,
        Setting::{
            AdmitAny, DhcpServer, Ethertypes, Fragments, Observe, PortCut, Quarantine, Router,
        },
        Table, UNKNOWN_DEVICE, UNKNOWN_ETHERTYPE, WRONG_PORT, WRONG_VLAN, would,
    },
    network::{
        ALL_NODES, ANNOUNCED, BEDSIDE, CAMERA, FLAT_DHCP_PUMP, FLAT_PUMP, FLAT1, FROM_LAN2, LAN1,
        LAN2, LAN3, LAN4, PINNED, PUMP, Party, RECORDS, ROUTER, ROUTER_2, ROUTER_ITSELF, SEARCHED,
        STRANGER, UPLINK, back, down, syn, tcp, udp, up,
    },
};
use wardline_oracle::frames::{
    ACK, Arp, BROADCAST, Dhcp, Ethernet, Ipv4, Ipv6, Mac, Packet, SYN, Upper, group_mac, icmpv6, ip,
};

/// A frame straight from one to the other, not by way of the router.
fn across(from: &Party, to: &Party, f: Family, upper: impl Into<Upper>) -> Ethernet {
    Ethernet::new(to.mac, from.mac, ip(from.at(f), to.at(f), upper))
}

/// A frame to a group.
fn to_group(from: &Party, group: &Party, f: Family, port: u16) -> Ethernet {
    let [_, b, c, d] = group.v4.octets();
    let mac = match f {
        V4 => [1, 0, 0x5e, b & 0x7f, c, d],
        Family::V6 => group_mac(group.v6),
    };
    Ethernet::new(mac, from.mac, ip(from.at(f), group.at(f), udp(port)))
}

/// Part of a datagram of 48 bytes, from an allowed port.
fn part(at: usize, more: bool, length: usize) -> Ethernet {
    let mut whole = vec![0x9c, 0x40, 2, 2, 0, 48, 0, 0];
    whole.resize(48, b'.');
    let packet = Ipv4 {
        identification: 7,
        more_fragments: more,
        fragment_offset: (at / 8) as u16,
        ..Ipv4::new(
            PUMP.v4,
            RECORDS.v4,
            Upper::Bytes(17, whole[at..at + length].to_vec()),
        )
    };
    Ethernet::new(ROUTER.mac, PUMP.mac, packet)
}

/// The same from another's address.
fn as_if(from: &Party, owner: &Party, f: Family, upper: impl Into<Upper>) -> Ethernet {
    Ethernet::new(PINNED.mac, from.mac, ip(owner.at(f), PINNED.at(f), upper))
}

#[rustfmt::skip]
pub(crate) fn rows(t: &mut Table) {
    // A listed one is that device.
    t.both("a hosted device where a rule allows it, and the answer", |c, f| {
        c.leaves(LAN1, ROUTER_ITSELF, across(&PUMP, &PINNED, f, syn(9100)))
            .enters(LAN1, across(&PINNED, &PUMP, f, back(9100, SYN | ACK)))
            .leaves(LAN1, ROUTER_ITSELF, across(&PUMP, &PINNED, f, tcp(9100, ACK)))
            .is([RULE, ESTABLISHED, ESTABLISHED]);
    });
    t.both("a hosted device is asked, and answers", |c, f| {
        c.enters(LAN1, across(&PUMP, &PINNED, f, syn(9100)))
            .leaves(LAN1, ROUTER_ITSELF, across(&PINNED, &PUMP, f, back(9100, SYN | ACK)))
            .enters(LAN1, across(&PUMP, &PINNED, f, tcp(9100, ACK)))
            .is([RULE, ESTABLISHED, ESTABLISHED]);
    });
    t.both("a hosted device where no rule allows it", |c, f| {
        c.mirrors("a container on the firewall is the firewall").leaves(LAN1, ROUTER_ITSELF, across(&PUMP, &PINNED, f, syn(23))).is(NO_RULE).under(Observe, would(NO_RULE));
    });
    t.both("a hosted device in quarantine", |c, f| {
        c.leaves(LAN1, ROUTER_ITSELF, across(&PUMP, &PINNED, f, syn(9100))).is(RULE).under(Quarantine, QUARANTINED).under(PortCut, QUARANTINED);
    });
    t.both("a hosted device announces to a group", |c, f| {
        c.leaves(LAN1, ROUTER_ITSELF, to_group(&PUMP, &ANNOUNCED, f, 5004)).is(RULE);
    });
    t.both("a hosted device on a VLAN of its zone", |c, f| { c.leaves(LAN1, ROUTER_ITSELF, across(&CAMERA, &PUMP, f, syn(443)).tagged(20)).is(RULE); });
    t.both("a hosted device on a VLAN of another zone", |c, f| { c.leaves(LAN1, ROUTER_ITSELF, across(&CAMERA, &PUMP, f, syn(443))).is(WRONG_VLAN); });
    t.both("a hosted device of a zone that the port has not", |c, f| { c.leaves(LAN2, ROUTER_ITSELF, across(&PUMP, &CAMERA, f, syn(554))).is(WRONG_PORT); });
    t.both("a hosted device above another port than its own", |c, f| { c.leaves(LAN3, ROUTER_ITSELF, across(&PINNED, &PUMP, f, syn(443))).is(WRONG_PORT); });
    t.both("a hosted device, to itself", |c, f| { c.leaves(LAN1, ROUTER_ITSELF, across(&PUMP, &PUMP, f, syn(9100))).is(MALFORMED); });
    t.case("a hosted device, in fragments").leaves(LAN1, ROUTER_ITSELF, part(0, true, 32)).leaves(LAN1, ROUTER_ITSELF, part(32, false, 16)).is(FRAGMENT).under(Fragments, [RULE, ESTABLISHED]);

    // Above a bridge it may belong to any zone that one of the bridge's ports has.
    t.both("a device above a bridge, where a rule allows it", |c, f| {
        c.leaves(LAN3, ROUTER_ITSELF, across(&CAMERA, &PUMP, f, syn(443)))
            .enters(LAN3, across(&PUMP, &CAMERA, f, back(443, SYN | ACK)))
            .leaves(LAN3, ROUTER_ITSELF, across(&CAMERA, &PUMP, f, tcp(443, ACK)))
            .is([RULE, ESTABLISHED, ESTABLISHED])
            .under(Quarantine, QUARANTINED);
    });
    t.both("a device above a bridge, where no rule allows it", |c, f| { c.leaves(LAN3, ROUTER_ITSELF, across(&CAMERA, &PUMP, f, syn(23))).is(NO_RULE); });
    t.both("a device above a bridge that belongs to another of its ports", |c, f| {
        c.leaves(LAN3, ROUTER_ITSELF, across(&BEDSIDE, &PUMP, f, syn(443)))
            .enters(LAN3, across(&BEDSIDE, &PUMP, f, syn(80)))
            .is([RULE, WRONG_PORT]);
    });
    t.both("a device above a bridge that belongs to a port elsewhere", |c, f| { c.leaves(LAN3, ROUTER_ITSELF, across(&PINNED, &PUMP, f, syn(443))).is(WRONG_PORT); });
    t.both("a machine above a bridge that nobody lists", |c, f| { c.leaves(LAN3, ROUTER_ITSELF, across(&STRANGER, &PUMP, f, syn(443))).is(UNKNOWN_DEVICE); });
    t.both("a device above a bridge, to a group in its own zone", |c, f| { c.leaves(LAN4, ROUTER_ITSELF, to_group(&CAMERA, &SEARCHED, f, 3702)).is(RULE); });
    t.both("a device above a bridge, to a group in another zone, by a rule to the group", |c, f| { c.leaves(LAN3, ROUTER_ITSELF, to_group(&CAMERA, &SEARCHED, f, 3702)).is(NO_RULE); });
    t.both("a device above a bridge, to a group in another zone, by a rule to the zone", |c, f| { c.leaves(LAN3, ROUTER_ITSELF, to_group(&CAMERA, &SEARCHED, f, 3703)).is(RULE); });
    t.case("a device above a bridge, ARP towards another zone").leaves(LAN3, ROUTER_ITSELF, Ethernet::new(BROADCAST, CAMERA.mac, Arp::request(CAMERA.mac, CAMERA.v4, ROUTER_2.v4))).is(CONTROL);
    t.case("a device above a bridge, LLDP towards another zone").leaves(LAN3, ROUTER_ITSELF, Ethernet::new(PUMP.mac, CAMERA.mac, Packet::Bytes(0x88cc, vec![2, 7, 4]))).is(UNKNOWN_ETHERTYPE);

    // One that forwards in its namespace: its frames carry the number of an interface there.
    for (name, from) in [("a guarded port", FROM_LAN2), ("the uplink", UPLINK)] {
        let row = |what: &str| format!("a hosted {what}, with the number of {name}");
        t.both(&row("device where a rule allows it"), |c, f| { c.leaves(FLAT1, from, up(&FLAT_PUMP, &RECORDS, f, syn(2575))).is(RULE); });
        t.both(&row("device where no rule allows it"), |c, f| { c.leaves(FLAT1, from, up(&FLAT_PUMP, &RECORDS, f, syn(443))).is(NO_RULE); });
        t.both(&row("device, from the router's address"), |c, f| { c.leaves(FLAT1, from, as_if(&FLAT_PUMP, &ROUTER, f, syn(80))).is(SPOOFED_SOURCE); });
        t.both(&row("machine that nobody lists"), |c, f| { c.leaves(FLAT1, from, across(&STRANGER, &FLAT_DHCP_PUMP, f, syn(443))).is(UNKNOWN_DEVICE); });
    }

    // An unlisted one is anybody.
    t.both("a hosted machine that nobody lists", |c, f| {
        c.mirrors("a container on the firewall is the firewall").leaves(LAN1, ROUTER_ITSELF, across(&STRANGER, &PINNED, f, syn(443))).is(UNKNOWN_DEVICE).under(AdmitAny, RULE).under(Observe, would(UNKNOWN_DEVICE));
    });
    t.both("a hosted device, from the router's address", |c, f| {
        c.mirrors("a container on the firewall is the firewall").leaves(LAN1, ROUTER_ITSELF, as_if(&PUMP, &ROUTER, f, syn(80))).is(SPOOFED_SOURCE);
    });
    t.both("a hosted device, from another device's address", |c, f| { c.leaves(LAN1, ROUTER_ITSELF, as_if(&PUMP, &CAMERA, f, syn(443))).is(SPOOFED_SOURCE); });
    t.both("a hosted machine that nobody lists, from the router's address", |c, f| {
        c.mirrors("a container on the firewall is the firewall").leaves(LAN1, ROUTER_ITSELF, as_if(&STRANGER, &ROUTER, f, syn(80))).is(UNKNOWN_DEVICE).under(AdmitAny, SPOOFED_SOURCE);
    });

    // Control.
    let arp = |mac: Mac, address: Ipv4Addr| Ethernet::new(BROADCAST, mac, Arp::request(mac, address, PINNED.v4));
    let says = |mac: Mac, source: Ipv6Addr, target: Ipv6Addr| Ethernet::new(group_mac(ALL_NODES), mac, Ipv6 { hop_limit: 255, ..Ipv6::new(source, ALL_NODES, icmpv6::neighbour_advertisement(target, 0x20, &[icmpv6::target_link(mac)])) });
    let announces = |mac: Mac| Ethernet::new(group_mac(ALL_NODES), mac, Ipv6 { hop_limit: 255, ..Ipv6::new("fe80::2".parse().unwrap(), ALL_NODES, icmpv6::router_advertisement(&[])) });
    let offers = |mac: Mac| Ethernet::new(PINNED.mac, mac, Ipv4::new(PUMP.v4, PINNED.v4, Dhcp::server(2, PUMP.v4, PINNED.mac, PINNED.v4).udp()));
    t.case("a hosted device's own ARP").leaves(LAN1, ROUTER_ITSELF, arp(PUMP.mac, PUMP.v4)).is(CONTROL).under(Quarantine, CONTROL);
    t.case("a hosted device claims the gateway by ARP").mirrors("gateway ARP reply").leaves(LAN1, ROUTER_ITSELF, arp(PUMP.mac, ROUTER.v4)).is(ARP_SPOOF);
    t.case("a hosted machine that nobody lists claims the gateway by ARP").mirrors("gateway ARP reply").leaves(LAN1, ROUTER_ITSELF, arp(STRANGER.mac, ROUTER.v4)).is(UNKNOWN_DEVICE).under(AdmitAny, ARP_SPOOF);
    t.case("a hosted device's own neighbour advertisement").leaves(LAN1, ROUTER_ITSELF, says(PUMP.mac, PUMP.v6, PUMP.v6)).is(CONTROL);
    t.case("a hosted device claims the gateway by neighbour discovery").leaves(LAN1, ROUTER_ITSELF, says(PUMP.mac, PUMP.v6, ROUTER.v6)).is(ND_SPOOF);
    t.case("a hosted device, a router advertisement").mirrors("rogue router advertisement").leaves(LAN1, ROUTER_ITSELF, announces(PUMP.mac)).is(ROGUE_RA).under(Router, CONTROL);
    t.case("a hosted machine that nobody lists, a router advertisement").mirrors("rogue router advertisement").leaves(LAN1, ROUTER_ITSELF, announces(STRANGER.mac)).is(UNKNOWN_DEVICE).under(AdmitAny, ROGUE_RA);
    t.case("the router's own router advertisement").leaves(LAN1, ROUTER_ITSELF, Ethernet { source: ROUTER.mac, ..announces(ROUTER.mac) }).is(CONTROL);
    t.case("a hosted device, a DHCP offer").mirrors("DHCP server on a client port").leaves(LAN1, ROUTER_ITSELF, offers(PUMP.mac)).is(ROGUE_DHCP).under(DhcpServer, CONTROL);
    t.case("a hosted device, LLDP").leaves(LAN1, ROUTER_ITSELF, Ethernet::new([1, 0x80, 0xc2, 0, 0, 0x0e], PUMP.mac, Packet::Bytes(0x88cc, vec![2, 7, 4]))).is(UNKNOWN_ETHERTYPE).under(Ethertypes, CONTROL);
    t.case("a hosted device, a bridge's spanning tree").leaves(LAN1, ROUTER_ITSELF, Ethernet::new([1, 0x80, 0xc2, 0, 0, 0], PUMP.mac, Packet::Bytes(38, vec![0x42, 0x42, 3]))).is(UNKNOWN_ETHERTYPE);

    // The receiver.
    t.both("a hosted device, to an allowed address by another device's MAC", |c, f| {
        c.mirrors("who knows a MAC reaches it by any allowed address").leaves(LAN1, ROUTER_ITSELF, Ethernet { destination: PINNED.mac, ..across(&PUMP, &RECORDS, f, syn(2575)) }).is(MISDIRECTED).under(Router, RULE);
    });
    t.both("a hosted device's connection, moved to another device's MAC", |c, f| {
        c.leaves(LAN1, ROUTER_ITSELF, across(&PUMP, &PINNED, f, syn(9100)))
            .enters(LAN1, across(&PINNED, &PUMP, f, back(9100, SYN | ACK)))
            .leaves(LAN1, ROUTER_ITSELF, Ethernet { destination: CAMERA.mac, ..across(&PUMP, &PINNED, f, tcp(9100, ACK)) })
            .is([RULE, ESTABLISHED, MISDIRECTED]);
    });
    // Towards one above a port that no bridge has, nothing leaves through a hook.
    t.both("to a hosted device's MAC, and an allowed address of another", |c, f| {
        c.mirrors("who knows a MAC reaches it by any allowed address").enters(FLAT1, Ethernet { destination: FLAT_DHCP_PUMP.mac, ..up(&FLAT_PUMP, &RECORDS, f, syn(2575)) }).is(MISDIRECTED);
    });
    t.both("a connection by way of the router, moved to a hosted device's MAC", |c, f| {
        c.enters(FLAT1, up(&FLAT_PUMP, &RECORDS, f, syn(2575)))
            .leaves(FLAT1, UPLINK, down(&RECORDS, &FLAT_PUMP, f, back(2575, SYN | ACK)))
            .enters(FLAT1, up(&FLAT_PUMP, &RECORDS, f, tcp(2575, ACK)))
            .enters(FLAT1, Ethernet { destination: FLAT_DHCP_PUMP.mac, ..up(&FLAT_PUMP, &RECORDS, f, tcp(2575, ACK)) })
            .enters(FLAT1, up(&FLAT_PUMP, &RECORDS, f, tcp(2575, ACK)))
            .is([RULE, ESTABLISHED, ESTABLISHED, MISDIRECTED, ESTABLISHED]);
    });
    t.both("a hosted device, by way of the router's MAC", |c, f| { c.leaves(LAN1, ROUTER_ITSELF, Ethernet { destination: ROUTER.mac, ..across(&PUMP, &RECORDS, f, syn(2575)) }).is(RULE); });
}
