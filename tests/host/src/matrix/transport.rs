//! The form of what IP carries: TCP, UDP, ICMP, IGMP and the rest.

use super::{
    case::{
        BAD_TCP_FLAGS, CONTROL, Family, IP_OPTIONS, MALFORMED, MID_FLOW, NO_RULE, ROGUE_RA, RULE,
        Setting::{Observe, Router},
        Table, would,
    },
    network::{ARCHIVE, LAN1, PUMP, RECORDS, pump, syn, tcp, udp, up, v4, v6},
};
use wardline_oracle::frames::{
    ACK, Ethernet, FIN, Icmp, Ipv4, PSH, ROUTER_ALERT, RST, SYN, Tcp, URG, Udp, Upper, group_mac,
    icmp, icmpv6, igmp_report,
};

const ECE: u8 = 0x40;
const CWR: u8 = 0x80;

#[rustfmt::skip]
pub(crate) fn rows(t: &mut Table) {
    // TCP.
    let segment = |f, segment: Tcp| up(&PUMP, &RECORDS, f, segment);
    t.both("TCP cut in the middle of its header", |c, f| {
        c.enters(LAN1, up(&PUMP, &RECORDS, f, Upper::Bytes(6, vec![0x9c, 0x40, 0x0a, 0x0f, 0, 0, 0, 1, 0, 0, 0, 0]))).is(MALFORMED);
    });
    t.both("TCP whose header is four words", |c, f| {
        c.enters(LAN1, segment(f, Tcp { header_words: Some(4), ..syn(2575) })).is(MALFORMED);
    });
    t.both("TCP whose header is no words", |c, f| {
        c.enters(LAN1, segment(f, Tcp { header_words: Some(0), ..syn(2575) })).is(MALFORMED);
    });
    t.both("TCP whose header ends behind the packet", |c, f| {
        c.enters(LAN1, segment(f, Tcp { header_words: Some(6), ..syn(2575) })).is(MALFORMED);
    });
    t.both("TCP with options", |c, f| {
        c.enters(LAN1, segment(f, Tcp { options: vec![2, 4, 5, 0xb4, 1, 3, 3, 7], ..syn(2575) })).is(RULE);
    });
    t.both("a SYN with data", |c, f| {
        c.mirrors("SYN with data")
            .enters(LAN1, segment(f, Tcp { data: b"GET / HTTP/1.0".to_vec(), ..syn(2575) })).is(RULE);
    });
    t.both("a SYN with data to a port that no rule allows", |c, f| {
        c.mirrors("SYN with data")
            .enters(LAN1, segment(f, Tcp { data: b"GET / HTTP/1.0".to_vec(), ..syn(23) })).is(NO_RULE);
    });
    t.case("a wrong TCP checksum is the receiver's to find").enters(LAN1, pump(v4(Tcp { checksum: Some(1), ..syn(2575) }))).is(RULE);

    // TCP flags that no stack sends.
    for (name, flags) in [
        ("no flags", 0),
        ("FIN alone", FIN),
        ("PSH alone", PSH),
        ("URG alone", URG),
        ("FIN, PSH, URG (Xmas)", FIN | PSH | URG),
        ("all flags", 0xff),
        ("SYN and FIN", SYN | FIN),
        ("SYN, FIN and ACK", SYN | FIN | ACK),
        ("SYN, FIN, RST and PSH", SYN | FIN | RST | PSH),
        ("SYN and RST", SYN | RST),
        ("SYN, RST and ACK", SYN | RST | ACK),
        ("FIN and RST", FIN | RST),
        ("FIN, RST and ACK", FIN | RST | ACK),
        ("RST and URG", RST | URG),
        ("SYN, ACK and URG", SYN | ACK | URG),
    ] {
        t.case(format!("TCP with {name}")).mirrors("flags that no stack sends are taken for a connection's")
            .enters(LAN1, pump(v4(tcp(2575, flags)))).is(BAD_TCP_FLAGS);
    }
    t.case("TCP with SYN and FIN over IPv6").mirrors("flags that no stack sends are taken for a connection's")
        .enters(LAN1, pump(v6(tcp(2575, SYN | FIN)))).is(BAD_TCP_FLAGS);
    t.case("TCP with no flags over IPv6").mirrors("flags that no stack sends are taken for a connection's")
        .enters(LAN1, pump(v6(tcp(2575, 0)))).is(BAD_TCP_FLAGS);
    t.case("TCP with SYN that asks for ECN").enters(LAN1, pump(v4(tcp(2575, SYN | ECE | CWR)))).is(RULE);
    t.case("TCP with SYN and PSH").enters(LAN1, pump(v4(tcp(2575, SYN | PSH)))).is(RULE);
    t.case("TCP with SYN and URG").enters(LAN1, pump(v4(tcp(2575, SYN | URG)))).is(RULE);
    for (name, flags) in [("ACK", ACK), ("FIN and ACK", FIN | ACK), ("RST", RST), ("RST and ACK", RST | ACK), ("SYN and ACK", SYN | ACK), ("ACK and URG", ACK | URG)] {
        t.both(&format!("TCP with {name}, of no flow"), |c, f| {
            c.enters(LAN1, segment(f, tcp(2575, flags))).is(MID_FLOW);
        });
    }
    t.case("TCP from port 0 to port 0").enters(LAN1, pump(v4(Tcp::new(0, 0, SYN)))).is(NO_RULE);
    t.case("TCP to port 65535").enters(LAN1, pump(v4(syn(65535)))).is(NO_RULE);

    // UDP.
    let datagram = |f, datagram: Udp| up(&PUMP, &RECORDS, f, datagram);
    t.both("UDP", |c, f| { c.enters(LAN1, datagram(f, udp(514))).is(RULE); });
    t.both("UDP without data", |c, f| { c.enters(LAN1, datagram(f, Udp::new(40_000, 514, []))).is(RULE); });
    t.both("UDP cut in the middle of its header", |c, f| {
        c.enters(LAN1, up(&PUMP, &RECORDS, f, Upper::Bytes(17, vec![0x9c, 0x40, 2, 2]))).is(MALFORMED);
    });
    for (name, length) in [
        ("0, as in a jumbogram", 0), ("7, shorter than its header", 7), ("8, so that data follows it", 8), ("11, one less than there is", 11), ("13, one more than there is", 13), ("65535", 65535),
    ] {
        t.both(&format!("UDP with length {name}"), |c, f| {
            c.enters(LAN1, datagram(f, Udp { length: Some(length), ..udp(514) })).is(MALFORMED);
        });
    }
    t.both("UDP without checksum", |c, f| { c.enters(LAN1, datagram(f, Udp { checksum: Some(0), ..udp(514) })).is(RULE); });
    t.case("UDP from port 0").enters(LAN1, pump(v4(Udp::new(0, 514, *b"data")))).is(RULE);

    // ICMP.
    t.both("an echo request", |c, f| { c.enters(LAN1, up(&PUMP, &RECORDS, f, echo(f))).is(RULE); });
    t.both("ICMP cut in the middle of its header", |c, f| {
        let (number, kind) = match f { Family::V4 => (1, 8), Family::V6 => (58, 128) };
        c.enters(LAN1, up(&PUMP, &RECORDS, f, Upper::Bytes(number, vec![kind, 0, 0, 0]))).is(MALFORMED);
    });
    t.case("ICMP in IPv6").mirrors("ICMP of the other family is judged as one's own")
        .enters(LAN1, pump(v6(Upper::Bytes(1, vec![8, 0, 0, 0, 0, 1, 0, 1])))).is(MALFORMED);
    t.case("ICMPv6 in IPv4").mirrors("ICMP of the other family is judged as one's own")
        .enters(LAN1, pump(v4(Upper::Bytes(58, vec![128, 0, 0, 0, 0, 1, 0, 1])))).is(MALFORMED);
    for (name, kind) in [("timestamp", 13), ("address mask", 17), ("traceroute", 30), ("router solicitation", 10)] {
        t.case(format!("ICMP {name} request")).enters(LAN1, pump(v4(Upper::Icmp(Icmp::new(kind, 0, [0; 8]))))).is(NO_RULE);
    }
    for (name, kind) in [("node information query", 139), ("inverse neighbour solicitation", 141)] {
        t.case(format!("ICMPv6 {name}")).enters(LAN1, pump(v6(Upper::Icmpv6(Icmp::new(kind, 0, [0; 24]))))).is(NO_RULE);
    }

    // IGMP.
    let group = [239, 1, 1, 1].into();
    let on_link = |packet: Ipv4| Ethernet { destination: group_mac(packet.destination), ..pump(Ipv4 { ttl: 1, ..packet }) };
    let igmp = |kind: u8, destination: [u8; 4]| {
        let message = Upper::Bytes(2, vec![kind, 0, 0, 0, 239, 1, 1, 1]);
        on_link(Ipv4 { options: ROUTER_ALERT.to_vec(), ..Ipv4::new(PUMP.v4, destination.into(), message) })
    };
    t.case("an IGMP report with its router alert")
        .enters(LAN1, on_link(Ipv4 { options: ROUTER_ALERT.to_vec(), ..Ipv4::new(PUMP.v4, group, igmp_report(group)) })).is(CONTROL);
    t.case("an IGMP report without it").enters(LAN1, on_link(Ipv4::new(PUMP.v4, group, igmp_report(group)))).is(CONTROL);
    t.case("an IGMP report that a router may forward").mirrors("membership reports are a way out past all rules")
        .enters(LAN1, Ethernet { destination: group_mac(group), ..pump(Ipv4 { ttl: 2, ..Ipv4::new(PUMP.v4, group, igmp_report(group)) }) }).is(NO_RULE);
    t.case("an IGMP report to a group, by a host's MAC").mirrors("membership reports are a way out past all rules")
        .enters(LAN1, pump(Ipv4 { ttl: 1, ..Ipv4::new(PUMP.v4, group, igmp_report(group)) })).is(NO_RULE);
    for (name, kind) in [("report of version 1", 0x12), ("report of version 3", 0x22), ("leave", 0x17)] {
        t.case(format!("an IGMP {name}")).enters(LAN1, igmp(kind, [224, 0, 0, 22])).is(CONTROL);
    }
    t.case("an IGMP query from a device").enters(LAN1, igmp(0x11, [224, 0, 0, 1])).is(ROGUE_RA).under(Router, CONTROL).under(Observe, would(ROGUE_RA));
    t.case("an IGMP report to a host").enters(LAN1, igmp(0x16, RECORDS.v4.octets())).is(NO_RULE);
    t.case("IGMP cut in the middle").enters(LAN1, pump(Ipv4::new(PUMP.v4, group, Upper::Bytes(2, vec![0x16, 0, 0, 0])))).is(MALFORMED);
    t.case("an IGMP report whose router alert is not 0")
        .enters(LAN1, pump(Ipv4 { options: vec![0x94, 4, 0, 1], ..Ipv4::new(PUMP.v4, group, igmp_report(group)) })).is(IP_OPTIONS);
    t.case("an IGMP report with a router alert and more")
        .enters(LAN1, pump(Ipv4 { options: vec![0x94, 4, 0, 0, 1, 1, 1, 0], ..Ipv4::new(PUMP.v4, group, igmp_report(group)) })).is(IP_OPTIONS);
    t.case("IGMP in IPv6").enters(LAN1, pump(v6(Upper::Bytes(2, vec![0x16, 0, 0, 0, 239, 1, 1, 1])))).is(NO_RULE);

    // The rest, which has no ports.
    for (name, number) in [("hop-by-hop in IPv4", 0), ("PIM", 103), ("ESP", 50), ("authentication", 51), ("SCTP", 132), ("UDP-Lite", 136), ("reserved", 255)] {
        t.case(format!("IP protocol {number}, {name}")).mirrors("a protocol without ports passes")
            .enters(LAN1, pump(v4(Upper::Bytes(number, vec![0x9c, 0x40, 0x0a, 0x0f, 0, 0, 0, 0])))).is(NO_RULE);
    }
    t.both("SCTP where a rule allows everything that is no tunnel", |c, f| {
        c.enters(LAN1, up(&PUMP, &ARCHIVE, f, Upper::Bytes(132, vec![0; 16]))).is(RULE);
    });
    t.case("SCTP over IPv6").mirrors("a protocol without ports passes").enters(LAN1, pump(v6(Upper::Bytes(132, vec![0; 16])))).is(NO_RULE);
}

fn echo(family: Family) -> Upper {
    match family {
        Family::V4 => icmp::request(7, 1),
        Family::V6 => icmpv6::request(7, 1),
    }
}
