//! A port in quarantine: whoever is behind it is cut off, whatever MAC they use.

use std::net::Ipv6Addr;

use super::{
    case::{
        BAD_TCP_FLAGS, CONTROL, Case, ESTABLISHED,
        Family::V4,
        MID_FLOW, NO_RULE, Origin, QUARANTINED, RULE, SPOOFED_SOURCE,
        Setting::{PortCut, PortCutObserve},
        Table, UNKNOWN_DEVICE, Verdicts, again, would,
    },
    network::{
        ALL_NODES, ANNOUNCED, CAMERA, LAN1, LAN3, PINNED, PUMP, RECORDS, ROUTER, ROUTER_ITSELF,
        STRANGER, TWOFOLD, UPLINK, back, down, pump, sent, syn, tcp, udp, up,
    },
};
use wardline_oracle::frames::{
    ACK, Arp, BROADCAST, Dhcp, Ethernet, Extension, FIN, Ipv4, Ipv6, Packet, SYN, group_mac, icmp,
    icmpv6, ip,
};

const FROM_LAN3: Origin = Origin::Interface(LAN3);

/// The port in quarantine drops it, and where the zone observes, too.
fn cut(c: &mut Case, says: impl Into<Verdicts> + Copy) {
    c.under(PortCut, says).under(PortCutObserve, says);
}

#[rustfmt::skip]
pub(crate) fn rows(t: &mut Table) {
    // What enters.
    t.both("what a rule allows, through a port in quarantine", |c, f| cut(c.enters(LAN1, up(&PUMP, &RECORDS, f, syn(2575))).is(RULE), QUARANTINED));
    t.both("a whole connection, through a port in quarantine", |c, f| cut(c
        .enters(LAN1, up(&PUMP, &RECORDS, f, syn(2575)))
        .leaves(LAN1, UPLINK, down(&RECORDS, &PUMP, f, back(2575, SYN | ACK)))
        .enters(LAN1, up(&PUMP, &RECORDS, f, tcp(2575, ACK))).is([RULE, ESTABLISHED, ESTABLISHED]), QUARANTINED));
    t.both("what no rule allows, through a port in quarantine", |c, f| cut(c.enters(LAN1, up(&PUMP, &RECORDS, f, syn(23))).is(NO_RULE), QUARANTINED));
    t.both("the middle of no flow, through a port in quarantine", |c, f| cut(c.enters(LAN1, up(&PUMP, &RECORDS, f, tcp(2575, ACK))).is(MID_FLOW), QUARANTINED));
    t.both("to the router, through a port in quarantine", |c, f| cut(c.enters(LAN1, up(&PUMP, &ROUTER, f, udp(53))).is(RULE), QUARANTINED));
    t.both("what a kept rule allows, through a port in quarantine", |c, f| cut(c
        .enters(LAN1, up(&PUMP, &RECORDS, f, syn(2222)))
        .leaves(LAN1, UPLINK, down(&RECORDS, &PUMP, f, back(2222, SYN | ACK)))
        .enters(LAN1, up(&PUMP, &RECORDS, f, tcp(2222, ACK))).is([RULE, ESTABLISHED, ESTABLISHED]), [RULE, ESTABLISHED, ESTABLISHED]));
    t.both("an unlisted MAC, through a port in quarantine", |c, f| cut(c.enters(LAN1, up(&STRANGER, &RECORDS, f, syn(2575))).is(UNKNOWN_DEVICE), QUARANTINED));
    t.both("an unlisted MAC by a kept rule, through a port in quarantine", |c, f| cut(c.enters(LAN1, up(&STRANGER, &RECORDS, f, syn(2222))).is(UNKNOWN_DEVICE), QUARANTINED));
    t.case("ARP of an unlisted MAC, through a port in quarantine").enters(LAN1, Ethernet::new(BROADCAST, STRANGER.mac, Arp::request(STRANGER.mac, STRANGER.v4, ROUTER.v4))).is(UNKNOWN_DEVICE);
    cut(t.last(), QUARANTINED);
    let discover = |mac| Ethernet::new(BROADCAST, mac, Ipv4::new([0; 4].into(), [255; 4].into(), Dhcp::client(1, mac).udp()));
    t.case("DHCP of an unlisted MAC, through a port in quarantine").enters(LAN1, discover(STRANGER.mac)).is(UNKNOWN_DEVICE);
    cut(t.last(), QUARANTINED);
    t.case("DHCP, through a port in quarantine").enters(LAN1, discover(PUMP.mac)).is(CONTROL);
    cut(t.last(), CONTROL);
    t.case("ARP, through a port in quarantine").enters(LAN1, Ethernet::new(BROADCAST, PUMP.mac, Arp::request(PUMP.mac, PUMP.v4, ROUTER.v4))).is(CONTROL);
    cut(t.last(), CONTROL);
    let asks = Ipv6 { hop_limit: 255, ..Ipv6::new(PUMP.v6, ROUTER.v6, icmpv6::neighbour_solicitation(ROUTER.v6, &[icmpv6::source_link(PUMP.mac)])) };
    t.case("neighbour discovery, through a port in quarantine").enters(LAN1, pump(asks)).is(CONTROL);
    cut(t.last(), CONTROL);
    t.case("another's address, through a port in quarantine").enters(LAN1, Ethernet { source: PUMP.mac, ..up(&PINNED, &RECORDS, V4, syn(2575)) }).is(SPOOFED_SOURCE);
    cut(t.last(), SPOOFED_SOURCE);
    t.case("a fault of form, through a port in quarantine").enters(LAN1, up(&PUMP, &RECORDS, V4, tcp(2575, SYN | FIN))).is(BAD_TCP_FLAGS);
    cut(t.last(), BAD_TCP_FLAGS);
    t.case("on a VLAN of a port in quarantine").enters(LAN1, up(&CAMERA, &RECORDS, V4, syn(443)).tagged(20)).is(RULE);
    cut(t.last(), QUARANTINED);
    let quoted = ip(RECORDS.v4.into(), PUMP.v4.into(), back(2575, SYN | ACK));
    let told = |packet: &Packet| pump(Ipv4::new(PUMP.v4, RECORDS.v4, icmp::error(3, 1, packet)));
    t.case("an error about a flow, through a port in quarantine").enters(LAN1, told(&quoted)).is(MID_FLOW);
    cut(t.last(), QUARANTINED);

    // What leaves.
    t.both("from the uplink, into a port in quarantine", |c, f| cut(c.leaves(LAN1, UPLINK, down(&RECORDS, &PUMP, f, syn(5000))).is(RULE), QUARANTINED));
    t.both("from the uplink by a kept rule, into a port in quarantine", |c, f| cut(c
        .leaves(LAN1, UPLINK, down(&RECORDS, &PUMP, f, syn(2222)))
        .enters(LAN1, up(&PUMP, &RECORDS, f, back(2222, SYN | ACK)))
        .leaves(LAN1, UPLINK, down(&RECORDS, &PUMP, f, tcp(2222, ACK))).is([RULE, ESTABLISHED, ESTABLISHED]), [RULE, ESTABLISHED, ESTABLISHED]));
    t.both("from the router, into a port in quarantine", |c, f| cut(c.leaves(LAN1, ROUTER_ITSELF, down(&ROUTER, &PUMP, f, syn(80))).is(RULE), QUARANTINED));
    t.both("from another port, into a port in quarantine", |c, f| {
        let open = |port| Ethernet { destination: PUMP.mac, ..up(&TWOFOLD, &PUMP, f, syn(port)) };
        c.enters(LAN3, open(443)).leaves(LAN1, FROM_LAN3, open(443)).is([RULE, again(ESTABLISHED)]);
        c.under(PortCut, [RULE, QUARANTINED]).under(PortCutObserve, [RULE, QUARANTINED]);
    });
    t.both("from another port by a kept rule, into a port in quarantine", |c, f| {
        let open = |port| Ethernet { destination: PUMP.mac, ..up(&TWOFOLD, &PUMP, f, syn(port)) };
        let answer = Ethernet { destination: TWOFOLD.mac, ..up(&PUMP, &TWOFOLD, f, back(2222, SYN | ACK)) };
        let goes_on = Ethernet { destination: PUMP.mac, ..up(&TWOFOLD, &PUMP, f, tcp(2222, ACK)) };
        c.enters(LAN3, open(2222)).leaves(LAN1, FROM_LAN3, open(2222)).enters(LAN1, answer)
            .enters(LAN3, goes_on.clone()).leaves(LAN1, FROM_LAN3, goes_on)
            .is([RULE, again(ESTABLISHED), ESTABLISHED, ESTABLISHED, again(ESTABLISHED)]);
        let kept = [RULE, again(RULE), ESTABLISHED, ESTABLISHED, again(RULE)];
        c.under(PortCut, kept).under(PortCutObserve, kept);
    });
    t.both("what the zone would only observe, into a port in quarantine", |c, f| {
        let frame = Ethernet { destination: PUMP.mac, ..up(&TWOFOLD, &PUMP, f, syn(23)) };
        c.enters(LAN3, frame.clone()).leaves(LAN1, FROM_LAN3, frame).is([NO_RULE, NO_RULE]);
        c.under(PortCut, [NO_RULE, QUARANTINED]).under(PortCutObserve, [would(NO_RULE), QUARANTINED]);
    });
    t.both("to a group, into a port in quarantine", |c, f| {
        let mac = if f == V4 { [1, 0, 0x5e, 1, 0, 1] } else { group_mac(ANNOUNCED.v6) };
        let frame = Ethernet::new(mac, TWOFOLD.mac, ip(TWOFOLD.at(f), ANNOUNCED.at(f), udp(5004)));
        c.enters(LAN3, frame.clone()).leaves(LAN1, FROM_LAN3, frame).is([RULE, again(RULE)]);
        c.under(PortCut, [RULE, QUARANTINED]).under(PortCutObserve, [RULE, QUARANTINED]);
    });
    let arp = |mac| Ethernet::new(mac, ROUTER.mac, Arp::request(ROUTER.mac, ROUTER.v4, PUMP.v4));
    for (name, mac, says) in [("everybody", BROADCAST, CONTROL), ("a device", PUMP.mac, CONTROL), ("an unlisted MAC", STRANGER.mac, QUARANTINED)] {
        t.case(format!("ARP to {name}, into a port in quarantine")).leaves(LAN1, ROUTER_ITSELF, arp(mac)).is(CONTROL);
        cut(t.last(), says);
    }
    t.case("another protocol, into a port in quarantine").leaves(LAN1, ROUTER_ITSELF, Ethernet::new(BROADCAST, ROUTER.mac, Packet::Bytes(0x88cc, vec![0; 46]))).is(CONTROL);
    cut(t.last(), QUARANTINED);
    let query = Ipv6::new("fe80::1".parse().unwrap(), ALL_NODES, icmpv6::listener_query(Ipv6Addr::UNSPECIFIED)).with(Extension::router_alert());
    t.case("a query for members, into a port in quarantine").leaves(LAN1, ROUTER_ITSELF, Ethernet::new(group_mac(ALL_NODES), ROUTER.mac, query)).is(CONTROL);
    cut(t.last(), QUARANTINED);
    t.both("through another port", |c, f| cut(c.enters(LAN3, sent(&PUMP, ip(PUMP.at(f), RECORDS.at(f), syn(2575)))).is(RULE), RULE));
}
