//! Mode observe: what would be dropped passes when the port's zone observes, and every other zone
//! with ports that the packet touches.

use super::{
    case::{
        ARP_SPOOF, BAD_TCP_FLAGS, DENIED_BY_RULE, ESTABLISHED, EXPIRED, EXTENSION_HEADER, FRAGMENT,
        Family::V4,
        IP_OPTIONS, MALFORMED, MID_FLOW, NO_RULE, RULE, SPOOFED_SOURCE,
        Setting::{Observe, ObserveAll},
        Table, UNKNOWN_DEVICE, UNKNOWN_ETHERTYPE, WRONG_PORT, WRONG_VLAN, cut, would,
    },
    network::{
        ARCHIVE, BLOCKED, CAMERA, FAR, LAN1, LAN2, LINK, PINNED, PUMP, RECORDS, ROUTER,
        ROUTER_ITSELF, STRANGER, UNNAMED, UPLINK, back, down, pump, sent, syn, tcp, udp, up, v4,
        v6,
    },
};
use std::net::Ipv4Addr;

use wardline_oracle::frames::{
    ACK, Arp, BROADCAST, Dhcp, Ethernet, Extension, Ipv4, Ipv6, Packet, SYN, Upper, icmp,
};

#[rustfmt::skip]
pub(crate) fn rows(t: &mut Table) {
    t.both("observe: no rule", |c, f| { c.enters(LAN1, up(&PUMP, &RECORDS, f, syn(23))).is(NO_RULE).under(Observe, would(NO_RULE)); });
    t.both("observe: a rule allows it", |c, f| { c.enters(LAN1, up(&PUMP, &RECORDS, f, syn(2575))).is(RULE).under(Observe, RULE); });
    t.both("observe: a rule denies it", |c, f| { c.enters(LAN1, up(&PUMP, &BLOCKED, f, syn(443))).is(DENIED_BY_RULE).under(Observe, would(DENIED_BY_RULE)); });
    t.both("observe: the rule has expired", |c, f| { c.enters(LAN1, up(&PUMP, &FAR, f, udp(123))).is(EXPIRED).under(Observe, would(EXPIRED)); });
    t.both("observe: the middle of no connection", |c, f| { c.enters(LAN1, up(&PUMP, &RECORDS, f, tcp(2575, ACK))).is(MID_FLOW).under(Observe, would(MID_FLOW)); });
    t.both("observe: a tunnel", |c, f| { c.enters(LAN1, up(&PUMP, &ARCHIVE, f, Upper::Bytes(47, vec![0; 32]))).is(NO_RULE).under(Observe, would(NO_RULE)); });
    t.case("observe: a group that no rule names").enters(LAN1, up(&PUMP, &UNNAMED, V4, udp(5004))).is(NO_RULE).under(Observe, would(NO_RULE));
    t.case("observe: an echo reply that nobody asked for").enters(LAN1, up(&PUMP, &FAR, V4, icmp::reply(7, 1))).is(MID_FLOW).under(Observe, would(MID_FLOW));
    t.case("observe: an error about no flow").enters(LAN1, up(&PUMP, &FAR, V4, icmp::error(3, 1, &Ipv4::new(FAR.v4, PUMP.v4, udp(9)).into()))).is(MID_FLOW).under(Observe, would(MID_FLOW));
    t.case("observe: data from a link-local address").enters(LAN1, pump(Ipv6::new(LINK, RECORDS.v6, syn(23)))).is(NO_RULE).under(Observe, would(NO_RULE));
    t.both("observe ends where another zone enforces", |c, f| {
        c.mirrors("observing one zone opens another");
        c.enters(LAN1, up(&PUMP, &CAMERA, f, syn(23))).is(NO_RULE).under(Observe, NO_RULE).under(ObserveAll, would(NO_RULE));
    });
    t.both("observe ends where the opener's zone enforces", |c, f| {
        c.mirrors("observing one zone opens another");
        c.enters(LAN2, up(&CAMERA, &PUMP, f, syn(23))).is(NO_RULE).under(Observe, NO_RULE).under(ObserveAll, would(NO_RULE));
    });
    t.both("observe inside the zone", |c, f| { c.enters(LAN1, up(&PUMP, &PINNED, f, syn(22))).is(NO_RULE).under(Observe, would(NO_RULE)); });
    t.both("observe: from outside", |c, f| { c.leaves(LAN1, UPLINK, down(&FAR, &PUMP, f, syn(23))).is(NO_RULE).under(Observe, would(NO_RULE)); });
    t.both("observe: from the router", |c, f| { c.leaves(LAN1, ROUTER_ITSELF, down(&ROUTER, &PUMP, f, syn(23))).is(NO_RULE).under(Observe, would(NO_RULE)); });
    t.both("observe: to the router", |c, f| { c.enters(LAN1, up(&PUMP, &ROUTER, f, syn(23))).is(NO_RULE).under(Observe, would(NO_RULE)); });
    t.both("observe: a connection that no rule allows", |c, f| {
        c.enters(LAN1, up(&PUMP, &RECORDS, f, syn(23))).leaves(LAN1, UPLINK, down(&RECORDS, &PUMP, f, back(23, SYN | ACK))).enters(LAN1, up(&PUMP, &RECORDS, f, tcp(23, ACK)))
            .is([NO_RULE, MID_FLOW, MID_FLOW]).under(Observe, [would(NO_RULE), would(NO_RULE), would(NO_RULE)]);
    });
    t.both("observe: a connection that a rule allows", |c, f| {
        c.enters(LAN1, up(&PUMP, &RECORDS, f, syn(2575))).leaves(LAN1, UPLINK, down(&RECORDS, &PUMP, f, back(2575, SYN | ACK)))
            .is([RULE, ESTABLISHED]).under(Observe, [RULE, ESTABLISHED]);
    });

    // Form and place.
    t.case("observe: malformed").enters(LAN1, pump(Ipv4 { version: 5, ..v4(syn(2575)) })).is(MALFORMED).under(Observe, would(MALFORMED));
    t.case("observe: shorter than an Ethernet header").enters(LAN1, cut(pump(v4(syn(2575))), 13)).is(MALFORMED).under(Observe, MALFORMED).under(ObserveAll, would(MALFORMED));
    t.case("observe: TCP flags").enters(LAN1, pump(v4(tcp(2575, 0)))).is(BAD_TCP_FLAGS).under(Observe, would(BAD_TCP_FLAGS));
    t.case("observe: options").enters(LAN1, pump(Ipv4 { options: vec![1; 4], ..v4(syn(2575)) })).is(IP_OPTIONS).under(Observe, would(IP_OPTIONS));
    t.case("observe: extension headers").enters(LAN1, pump(v6(syn(2575)).with(Extension::destination(&[1, 4, 0, 0, 0, 0])))).is(EXTENSION_HEADER).under(Observe, would(EXTENSION_HEADER));
    t.case("observe: fragments").enters(LAN1, pump(Ipv4 { more_fragments: true, ..v4(syn(2575)) })).enters(LAN1, pump(Ipv4 { fragment_offset: 3, ..v4(Upper::Bytes(6, vec![0; 8])) })).is([FRAGMENT, FRAGMENT]).under(Observe, [would(FRAGMENT), would(FRAGMENT)]);
    t.case("observe: EtherTypes").enters(LAN1, pump(Packet::Bytes(0x88cc, vec![2, 7, 4]))).is(UNKNOWN_ETHERTYPE).under(Observe, would(UNKNOWN_ETHERTYPE));
    t.case("observe: unlisted MACs").enters(LAN1, sent(&STRANGER, v4(syn(2575)))).is(UNKNOWN_DEVICE).under(Observe, would(UNKNOWN_DEVICE));
    t.case("observe: a DHCP client with an unlisted MAC").enters(LAN1, Ethernet::new(BROADCAST, STRANGER.mac, Ipv4::new(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST, Dhcp::client(1, STRANGER.mac).udp()))).is(UNKNOWN_DEVICE).under(Observe, would(UNKNOWN_DEVICE));
    t.case("observe: spoofed sources").enters(LAN1, sent(&PINNED, v4(syn(2575)))).is(SPOOFED_SOURCE).under(Observe, would(SPOOFED_SOURCE));
    t.case("observe: ARP spoofing").enters(LAN1, Ethernet::new(BROADCAST, PUMP.mac, Arp::request(PUMP.mac, PINNED.v4, ROUTER.v4))).is(ARP_SPOOF).under(Observe, would(ARP_SPOOF));
    t.case("observe: spoofed sources from outside").leaves(LAN1, UPLINK, down(&PINNED, &PUMP, V4, syn(443))).is(SPOOFED_SOURCE).under(Observe, would(SPOOFED_SOURCE));
    t.both("observe ends at the address of a zone that enforces", |c, f| {
        c.enters(LAN1, sent(&STRANGER, up(&PUMP, &CAMERA, f, syn(443)).packet)).is(UNKNOWN_DEVICE).under(Observe, UNKNOWN_DEVICE).under(ObserveAll, would(UNKNOWN_DEVICE));
    });
    t.both("observe ends at a source in a zone that enforces", |c, f| {
        c.enters(LAN1, Ethernet { source: PUMP.mac, ..up(&CAMERA, &RECORDS, f, syn(443)) }).is(SPOOFED_SOURCE).under(Observe, SPOOFED_SOURCE).under(ObserveAll, would(SPOOFED_SOURCE));
    });
    t.case("observe ends at the MAC of a zone that enforces").enters(LAN1, Ethernet { destination: CAMERA.mac, ..pump(v4(tcp(2575, 0))) }).is(BAD_TCP_FLAGS).under(Observe, BAD_TCP_FLAGS).under(ObserveAll, would(BAD_TCP_FLAGS));
    t.case("observe ends where a device of another zone appears").enters(LAN1, Ethernet { source: CAMERA.mac, ..pump(v4(syn(2575))) }).is(WRONG_VLAN).under(Observe, WRONG_VLAN).under(ObserveAll, would(WRONG_VLAN));
    t.case("observe ends at a VLAN beside a zone that enforces").enters(LAN1, pump(v4(syn(2575))).tagged(21)).is(WRONG_VLAN).under(Observe, WRONG_VLAN).under(ObserveAll, would(WRONG_VLAN));
    t.case("observe ends at a port of a zone that enforces").enters(LAN2, pump(v4(syn(2575)))).is(WRONG_PORT).under(Observe, WRONG_PORT).under(ObserveAll, would(WRONG_PORT));
    t.case("observe ends at an enforcing sender from outside").leaves(LAN1, UPLINK, down(&CAMERA, &PUMP, V4, syn(443))).is(SPOOFED_SOURCE).under(Observe, SPOOFED_SOURCE).under(ObserveAll, would(SPOOFED_SOURCE));
}
