//! The form of IPv6: the header, its length, its addresses, and the chain of extension headers.

use std::net::Ipv6Addr;

use super::{
    case::{
        CONTROL, EXTENSION_HEADER, MALFORMED, NO_RULE, ROGUE_RA, RULE, SPOOFED_SOURCE,
        Setting::{Options, Quarantine, Router},
        Table, UNKNOWN_ETHERTYPE, cut,
    },
    network::{CAMERA, LAN1, LAN2, LINK, PUMP, RECORDS, pump, sent, syn, udp, v4, v6},
};
use wardline_oracle::frames::{Ethernet, Extension, Ipv6, Packet, SYN, Upper, group_mac, icmpv6};

#[rustfmt::skip]
pub(crate) fn rows(t: &mut Table) {
    let hl7 = || v6(syn(2575));

    t.case("a whole IPv6 packet").enters(LAN1, pump(hl7())).is(RULE);
    t.case("IPv6 cut in the middle of its header").enters(LAN1, cut(pump(hl7()), 14 + 20)).is(MALFORMED);
    t.case("IPv6 one byte short of its header").enters(LAN1, cut(pump(hl7()), 14 + 39)).is(MALFORMED);
    for version in [0, 4, 7] {
        t.case(format!("IPv6 that says version {version}")).enters(LAN1, pump(Ipv6 { version, ..hl7() })).is(MALFORMED);
    }
    t.case("IPv4 behind the EtherType of IPv6")
        .enters(LAN1, Ethernet { ethertype: Some(0x86dd), ..pump(v4(syn(2575))) }).is(MALFORMED);
    t.case("IPv6 in LLC and SNAP").mirrors("IP in an 802.3 frame is not seen").enters(LAN1, pump(snap(&hl7()))).is(UNKNOWN_ETHERTYPE);

    // Lengths.
    t.case("an IPv6 payload length of 0, as a jumbogram has")
        .enters(LAN1, pump(Ipv6 { length: Some(0), ..hl7() })).is(MALFORMED).under(Options, MALFORMED);
    t.case("an IPv6 jumbogram with its option (RFC 2675)")
        .enters(LAN1, pump(Ipv6 { length: Some(0), ..hl7() }.with(Extension::hop_by_hop(&[0xc2, 4, 0, 1, 0, 0]))))
        .is(MALFORMED).under(Options, MALFORMED);
    t.case("an IPv6 payload length that ends within the TCP header").enters(LAN1, pump(Ipv6 { length: Some(19), ..hl7() })).is(MALFORMED);
    t.case("an IPv6 payload length one beyond the frame").enters(LAN1, pump(Ipv6 { length: Some(21), ..hl7() })).is(MALFORMED);
    t.case("an IPv6 payload length far beyond the frame").enters(LAN1, pump(Ipv6 { length: Some(900), ..hl7() })).is(MALFORMED);
    t.case("padding behind IPv6").enters(LAN1, Ethernet { padded_to: 120, ..pump(hl7()) }).is(RULE);
    t.case("IPv6 at the end of its hop limit").enters(LAN1, pump(Ipv6 { hop_limit: 1, ..hl7() })).is(RULE);

    // Addresses.
    let from = |source: Ipv6Addr| pump(Ipv6::new(source, RECORDS.v6, syn(2575)));
    t.case("an IPv4-mapped source in IPv6").mirrors("v4-mapped source").enters(LAN1, from(PUMP.v4.to_ipv6_mapped())).is(SPOOFED_SOURCE);
    t.case("another's IPv4-mapped address as source").mirrors("v4-mapped source").enters(LAN1, from(CAMERA.v4.to_ipv6_mapped())).is(SPOOFED_SOURCE);
    let compatible: Ipv6Addr = "::10.20.1.11".parse().unwrap();
    t.case("an IPv4-compatible source in IPv6").enters(LAN1, from(compatible)).is(SPOOFED_SOURCE);
    t.case("the pump's IPv4 address as 6to4 source").enters(LAN1, from("2002:a14:10b::11".parse().unwrap())).is(SPOOFED_SOURCE);
    t.case("the pump's IPv4 address behind the NAT64 prefix").enters(LAN1, from("64:ff9b::a14:10b".parse().unwrap())).is(SPOOFED_SOURCE);
    let to = |destination: Ipv6Addr| pump(Ipv6::new(PUMP.v6, destination, syn(443)));
    t.case("an IPv4-mapped destination in IPv6").mirrors("v4-mapped source").enters(LAN1, to(RECORDS.v4.to_ipv6_mapped())).is(MALFORMED);
    t.case("IPv6 to ::").enters(LAN1, to(Ipv6Addr::UNSPECIFIED)).is(MALFORMED);
    t.case("IPv6 to ::1").enters(LAN1, to(Ipv6Addr::LOCALHOST)).is(MALFORMED);
    t.case("IPv6 to its own sender (land)").mirrors("a packet to oneself hangs the receiver (CVE-1999-0016)").enters(LAN1, to(PUMP.v6)).is(MALFORMED);

    // Extension headers.
    let with = |extension: Extension| pump(hl7().with(extension));
    let hop = || Extension::hop_by_hop(&[1, 4, 0, 0, 0, 0]);
    let destination = || Extension::destination(&[1, 4, 0, 0, 0, 0]);
    t.case("IPv6 hop-by-hop options").enters(LAN1, with(hop())).is(EXTENSION_HEADER).under(Options, RULE);
    t.case("IPv6 destination options").mirrors("a packet with an extension header is of no known protocol, and passes")
        .enters(LAN1, with(destination())).is(EXTENSION_HEADER).under(Options, RULE);
    t.case("IPv6 destination options before a forbidden port").mirrors("a packet with an extension header is of no known protocol, and passes")
        .enters(LAN1, pump(v6(syn(23)).with(destination()))).is(EXTENSION_HEADER).under(Options, NO_RULE);
    t.case("IPv6 hop-by-hop and destination options").enters(LAN1, pump(hl7().with(hop()).with(destination()))).is(EXTENSION_HEADER).under(Options, RULE);
    t.case("IPv6 hop-by-hop options that are not first").enters(LAN1, pump(hl7().with(destination()).with(hop()))).is(EXTENSION_HEADER).under(Options, EXTENSION_HEADER);
    t.case("long IPv6 destination options").enters(LAN1, with(Extension::destination(&[&[1, 68][..], &[0; 68]].concat()))).is(EXTENSION_HEADER).under(Options, RULE);
    // With the header's own two bytes, a TCP header with SYN to 2575 where TCP starts without
    // options.
    let look_alike = [10, 15, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, SYN, 0xff, 0xff, 0, 0, 0, 0];
    t.case("IPv6 destination options that are a header for an allowed port, before a forbidden one")
        .mirrors("ports read at a fixed offset behind the IPv6 header")
        .enters(LAN1, pump(v6(syn(23)).with(Extension::destination(&look_alike)))).is(EXTENSION_HEADER).under(Options, NO_RULE);

    for (name, kind) in [
        ("source route, type 0", 0), ("mobility, type 2", 2), ("RPL, type 3", 3), ("segments, type 4", 4), ("an unknown type", 253),
    ] {
        t.case(format!("IPv6 routing header: {name}"))
            .enters(LAN1, with(Extension::routing(kind, 1, &[&[0; 4][..], &CAMERA.v6.octets()].concat())))
            .is(EXTENSION_HEADER).under(Options, EXTENSION_HEADER);
    }
    t.case("IPv6 routing header of type 0 with no segments left").enters(LAN1, with(Extension::routing(0, 0, &[0; 20]))).is(EXTENSION_HEADER).under(Options, EXTENSION_HEADER);
    t.case("IPv6 routing header behind destination options").enters(LAN1, pump(hl7().with(destination()).with(Extension::routing(0, 1, &[0; 20])))).is(EXTENSION_HEADER).under(Options, EXTENSION_HEADER);
    for (name, number) in [("mobility", 135), ("host identity", 139), ("shim6", 140), ("experiment 253", 253), ("experiment 254", 254)] {
        t.case(format!("IPv6 extension header: {name}"))
            .enters(LAN1, with(Extension { number, body: vec![0; 7] })).is(EXTENSION_HEADER).under(Options, EXTENSION_HEADER);
    }

    // Lengths of extension headers, each counted in its own way.
    t.case("IPv6 authentication header").enters(LAN1, with(Extension::authentication(&[0; 12]))).is(EXTENSION_HEADER).under(Options, RULE);
    // 24 bytes long; read as options it would be 40, and end at the look-alike.
    let payload = [&syn_bytes(23)[..16], &syn_bytes(2575)].concat();
    t.case("IPv6 authentication header before a forbidden port, with an allowed one where options would end")
        .mirrors("AH length read as an option header's")
        .enters(LAN1, pump(v6(Upper::Bytes(6, payload)).with(Extension::authentication(&[0; 12])))).is(EXTENSION_HEADER).under(Options, NO_RULE);
    t.case("IPv6 ESP is a protocol of its own").mirrors("ESP read as an option header")
        .enters(LAN1, pump(v6(Upper::Bytes(50, [&[6, 0][..], &[0; 6], &syn_bytes(2575)].concat())))).is(NO_RULE).under(Options, NO_RULE);
    t.case("IPv6 GRE is a protocol of its own").mirrors("GRE read as an option header")
        .enters(LAN1, pump(v6(Upper::Bytes(47, [&[6, 0][..], &[0; 6], &syn_bytes(2575)].concat())))).is(NO_RULE).under(Options, NO_RULE);
    t.case("IPv6 with no next header").mirrors("an unknown next header is not judged")
        .enters(LAN1, pump(v6(Upper::Bytes(59, syn_bytes(2575))))).is(NO_RULE).under(Options, NO_RULE);
    t.case("IPv6 with a next header that nobody knows").mirrors("an unknown next header is not judged")
        .enters(LAN1, pump(v6(Upper::Bytes(200, syn_bytes(2575))))).is(NO_RULE);

    // The chain's length.
    let chain = |length: usize| {
        (0..length).fold(hl7(), |packet, _| packet.with(destination()))
    };
    t.case("six IPv6 extension headers").enters(LAN1, pump(chain(6))).is(EXTENSION_HEADER).under(Options, RULE);
    for length in [7, 16] {
        t.case(format!("{length} IPv6 extension headers")).mirrors("extension chain too long falls out as unknown and passes")
            .enters(LAN1, pump(chain(length))).is(EXTENSION_HEADER).under(Options, EXTENSION_HEADER);
    }
    t.case("an IPv6 extension header longer than the packet")
        .enters(LAN1, with(Extension { number: 60, body: [&[20][..], &[0; 6]].concat() })).is(MALFORMED).under(Options, MALFORMED);
    t.case("an IPv6 extension header that goes on in the padding").mirrors("a header is read behind the end of the packet")
        .enters(LAN1, Ethernet { padded_to: 140, ..pump(Ipv6 { length: Some(8), ..hl7().with(Extension::destination(&[&[1, 20][..], &[0; 20]].concat())) }) })
        .is(MALFORMED).under(Options, MALFORMED);
    t.case("an IPv6 extension header cut by the frame").enters(LAN1, cut(with(destination()), 14 + 40 + 4)).is(MALFORMED).under(Options, MALFORMED);
    t.case("an IPv6 chain without its TCP header").enters(LAN1, pump(v6(Upper::Bytes(6, vec![])).with(destination()))).is(MALFORMED).under(Options, MALFORMED);
    t.case("an IPv6 next header that skips the chain's end")
        .enters(LAN1, pump(Ipv6 { next_header: Some(6), ..v6(udp(514)).with(Extension::destination(&[1, 20, 0, 0, 0, 0])) })).is(MALFORMED);

    // The router alert, which listener reports carry.
    let report = || icmpv6::listener_report("ff02::1:3".parse().unwrap());
    let routers: Ipv6Addr = "ff02::16".parse().unwrap();
    let listener = |upper: Upper| Ipv6 { hop_limit: 1, ..Ipv6::new(LINK, routers, upper) };
    let to_routers = |packet: Ipv6| Ethernet { destination: group_mac(routers), ..pump(packet) };
    t.case("a listener report with its router alert").enters(LAN1, to_routers(listener(report()).with(Extension::router_alert()))).is(CONTROL).under(Options, CONTROL);
    t.case("a ping with a router alert").mirrors("whatever carries a router alert is let through")
        .enters(LAN1, pump(v6(icmpv6::request(8, 1)).with(Extension::router_alert()))).is(EXTENSION_HEADER).under(Options, RULE);
    t.case("TCP with a router alert").mirrors("whatever carries a router alert is let through")
        .enters(LAN1, with(Extension::router_alert())).is(EXTENSION_HEADER).under(Options, RULE);
    t.case("a listener report with its router alert and more")
        .enters(LAN1, to_routers(listener(report()).with(Extension::router_alert()).with(destination()))).is(EXTENSION_HEADER).under(Options, CONTROL);
    t.case("a listener report with hop-by-hop options that are no router alert")
        .enters(LAN1, to_routers(listener(report()).with(hop()))).is(EXTENSION_HEADER).under(Options, CONTROL);
    t.case("a listener query from a device, with its router alert")
        .enters(LAN1, to_routers(listener(icmpv6::listener_query(Ipv6Addr::UNSPECIFIED)).with(Extension::router_alert()))).is(ROGUE_RA).under(Router, CONTROL).under(Quarantine, ROGUE_RA);

    t.case("IPv6 extension headers of another zone, which drops them")
        .enters(LAN2, sent(&CAMERA, Ipv6::new(CAMERA.v6, RECORDS.v6, syn(443)).with(destination()))).is(EXTENSION_HEADER).under(Options, EXTENSION_HEADER);
    t.case("IPv6 extension headers do not hide a spoofed source")
        .enters(LAN1, pump(Ipv6::new(CAMERA.v6, RECORDS.v6, syn(443)).with(destination()))).is(EXTENSION_HEADER).under(Options, SPOOFED_SOURCE);
    t.case("an IPv6 home address option, which names another source")
        .enters(LAN1, with(Extension::destination(&[&[1, 2, 0, 0, 201, 16][..], &CAMERA.v6.octets()].concat()))).is(EXTENSION_HEADER).under(Options, RULE);
}

/// A TCP header without checksum, 20 bytes.
fn syn_bytes(port: u16) -> Vec<u8> {
    let [high, low] = port.to_be_bytes();
    vec![
        0x9c, 0x40, high, low, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, SYN, 0xff, 0xff, 0, 0, 0, 0,
    ]
}

/// The packet behind an 802.3 length and a SNAP header.
fn snap(packet: &Ipv6) -> Packet {
    let bytes = [
        &[0xaa, 0xaa, 3, 0, 0, 0, 0x86, 0xdd],
        packet.bytes().as_slice(),
    ]
    .concat();
    Packet::Bytes(bytes.len() as u16, bytes)
}
