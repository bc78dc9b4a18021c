//! State: which packets open a flow, which belong to one, and which may not.

use super::{
    case::{
        Case, ESTABLISHED, Family, Family::V4, MID_FLOW, NO_RULE, Origin, RELATED, RULE,
        SPOOFED_SOURCE, Setting::Router, Table, again,
    },
    network::{
        CAMERA, FAR, FROM_LAN1, FROM_LAN2, LAN1, LAN2, PINNED, PUMP, Party, RECORDS, ROUTER,
        ROUTER_ITSELF, TRUNK, UPLINK, back, down, forwarded, pump, syn, tcp, udp, up, v4, v6,
    },
};
use wardline_oracle::frames::{
    ACK, Ethernet, Extension, FIN, Icmp, Ipv4, Ipv6, PSH, Packet, RST, SYN, Tcp, Udp, Upper, icmp,
    icmpv6, ip,
};

#[rustfmt::skip]
pub(crate) fn rows(t: &mut Table) {
    // Connections: the pump opens, the records answer.
    let there = |f, flags| up(&PUMP, &RECORDS, f, tcp(2575, flags));
    let here = |f, flags| down(&RECORDS, &PUMP, f, back(2575, flags));
    fn opened(c: &mut Case, f: Family) -> &mut Case {
        c.enters(LAN1, up(&PUMP, &RECORDS, f, syn(2575)))
            .leaves(LAN1, UPLINK, down(&RECORDS, &PUMP, f, back(2575, SYN | ACK)))
            .enters(LAN1, up(&PUMP, &RECORDS, f, tcp(2575, ACK)))
    }
    let e = ESTABLISHED;
    /// A segment with data.
    fn sent(from: &Party, to: &Party, f: Family, port: u16) -> Ethernet {
        up(from, to, f, Tcp { data: b"data".to_vec(), ..Tcp::new(40_000, port, ACK | PSH) })
    }

    t.both("a connection from its SYN to its last ACK", |c, f| {
        opened(c, f).leaves(LAN1, UPLINK, here(f, ACK | PSH)).enters(LAN1, there(f, FIN | ACK))
            .leaves(LAN1, UPLINK, here(f, FIN | ACK)).enters(LAN1, there(f, ACK)).is([RULE, e, e, e, e, e, e]);
    });
    t.both("a SYN that is sent again", |c, f| { c.enters(LAN1, there(f, SYN)).enters(LAN1, there(f, SYN)).is([RULE, e]); });
    t.both("a SYN-ACK that nobody asked for", |c, f| { c.leaves(LAN1, UPLINK, here(f, SYN | ACK)).is(MID_FLOW); });
    t.both("a SYN-ACK from the opener", |c, f| {
        c.mirrors("any packet of a connection opens it");
        c.enters(LAN1, there(f, SYN)).enters(LAN1, there(f, SYN | ACK)).is([RULE, MID_FLOW]);
    });
    t.both("data before the answer", |c, f| { c.enters(LAN1, there(f, SYN)).enters(LAN1, there(f, ACK | PSH)).is([RULE, MID_FLOW]); });
    t.both("a FIN before the answer", |c, f| { c.enters(LAN1, there(f, SYN)).enters(LAN1, there(f, FIN | ACK)).is([RULE, MID_FLOW]); });
    t.both("a challenge to a SYN (RFC 5961)", |c, f| { c.enters(LAN1, there(f, SYN)).leaves(LAN1, UPLINK, here(f, ACK)).enters(LAN1, there(f, RST)).is([RULE, e, e]); });
    t.both("a refusal", |c, f| { c.enters(LAN1, there(f, SYN)).leaves(LAN1, UPLINK, here(f, RST | ACK)).is([RULE, e]); });
    t.both("the other end opens the same connection", |c, f| {
        c.mirrors("a reply opens a connection the other way round");
        c.enters(LAN1, there(f, SYN)).leaves(LAN1, UPLINK, here(f, SYN)).is([RULE, MID_FLOW]);
    });
    t.both("the other end sends a SYN into an open connection", |c, f| {
        c.mirrors("a reply opens a connection the other way round");
        opened(c, f).leaves(LAN1, UPLINK, here(f, SYN)).is([RULE, e, e, MID_FLOW]);
    });
    t.both("a connection half closed", |c, f| {
        opened(c, f).enters(LAN1, there(f, FIN | ACK)).leaves(LAN1, UPLINK, here(f, ACK | PSH)).enters(LAN1, there(f, ACK)).is([RULE, e, e, e, e, e]);
    });
    t.both("a SYN after both have finished", |c, f| {
        opened(c, f).enters(LAN1, there(f, FIN | ACK)).leaves(LAN1, UPLINK, here(f, FIN | ACK)).enters(LAN1, there(f, SYN)).is([RULE, e, e, e, e, RULE]);
    });
    t.both("the other end sends a SYN after both have finished", |c, f| {
        c.mirrors("a reply opens a connection the other way round");
        opened(c, f).enters(LAN1, there(f, FIN | ACK)).leaves(LAN1, UPLINK, here(f, FIN | ACK)).leaves(LAN1, UPLINK, here(f, SYN)).is([RULE, e, e, e, e, NO_RULE]);
    });
    t.both("a SYN after a reset", |c, f| { opened(c, f).enters(LAN1, there(f, RST)).enters(LAN1, there(f, SYN)).is([RULE, e, e, e, RULE]); });
    t.both("data behind a reset, which may be forged", |c, f| {
        c.mirrors("a bare RST ends a flow at once");
        opened(c, f).leaves(LAN1, UPLINK, here(f, RST)).enters(LAN1, there(f, ACK | PSH)).is([RULE, e, e, e, e]);
    });
    t.case("data eleven seconds behind a reset").enters(LAN1, there(V4, SYN)).leaves(LAN1, UPLINK, here(V4, SYN | ACK)).enters(LAN1, there(V4, ACK))
        .leaves(LAN1, UPLINK, here(V4, RST)).enters(LAN1, there(V4, ACK | PSH)).after(12).is([RULE, e, e, e, MID_FLOW]);
    // What is over ends on time, whatever arrives.
    t.both("a finished connection that one end keeps sending on", |c, f| {
        c.mirrors("closing flows live as long as somebody sends on them");
        opened(c, f).enters(LAN1, there(f, FIN | ACK)).leaves(LAN1, UPLINK, here(f, FIN | ACK)).leaves(LAN1, UPLINK, here(f, ACK)).after(5)
            .leaves(LAN1, UPLINK, here(f, ACK)).after(5).leaves(LAN1, UPLINK, here(f, ACK)).after(5).is([RULE, e, e, e, e, e, e, MID_FLOW]);
    });
    t.both("a reset connection that the other end keeps sending on", |c, f| {
        c.mirrors("closing flows live as long as somebody sends on them");
        opened(c, f).enters(LAN1, there(f, RST)).leaves(LAN1, UPLINK, here(f, ACK | PSH)).after(5).enters(LAN1, there(f, RST))
            .leaves(LAN1, UPLINK, here(f, ACK | PSH)).after(7).is([RULE, e, e, e, e, e, MID_FLOW]);
    });
    t.both("a reset connection with which both ends go on, so it was forged", |c, f| {
        c.mirrors("a bare RST ends a flow at once");
        opened(c, f).leaves(LAN1, UPLINK, here(f, RST)).enters(LAN1, sent(&PUMP, &RECORDS, f, 2575)).leaves(LAN1, UPLINK, here(f, ACK)).enters(LAN1, sent(&PUMP, &RECORDS, f, 2575))
            .leaves(LAN1, UPLINK, here(f, ACK)).after(60).is([RULE, e, e, e, e, e, e, e]);
    });
    t.both("a reset connection on which both ends only acknowledge", |c, f| {
        opened(c, f).leaves(LAN1, UPLINK, here(f, RST)).enters(LAN1, there(f, ACK)).leaves(LAN1, UPLINK, here(f, ACK)).enters(LAN1, there(f, ACK)).after(12).is([RULE, e, e, e, e, e, MID_FLOW]);
    });
    t.both("a refused connection that the other end keeps sending on", |c, f| {
        c.enters(LAN1, there(f, SYN)).leaves(LAN1, UPLINK, here(f, RST | ACK)).leaves(LAN1, UPLINK, here(f, ACK)).after(5)
            .leaves(LAN1, UPLINK, here(f, ACK)).after(7).is([RULE, e, e, MID_FLOW]);
    });
    t.both("a connection without an answer that the other end keeps sending on", |c, f| {
        c.mirrors("one end keeps the other's flows");
        c.enters(LAN1, there(f, SYN)).leaves(LAN1, UPLINK, here(f, ACK)).after(20).leaves(LAN1, UPLINK, here(f, ACK)).after(20).is([RULE, e, MID_FLOW]);
    });
    t.both("a connection without an answer that its opener keeps asking for", |c, f| {
        c.enters(LAN1, there(f, SYN)).enters(LAN1, there(f, SYN)).after(20).leaves(LAN1, UPLINK, here(f, SYN | ACK)).after(20).enters(LAN1, there(f, ACK)).after(20).is([RULE, e, e, e]);
    });
    t.case("an answer after the SYN was given up").enters(LAN1, there(V4, SYN)).leaves(LAN1, UPLINK, here(V4, SYN | ACK)).after(31).is([RULE, MID_FLOW]);
    t.case("an open connection after an hour of silence").enters(LAN1, there(V4, SYN)).leaves(LAN1, UPLINK, here(V4, SYN | ACK)).enters(LAN1, there(V4, ACK))
        .leaves(LAN1, UPLINK, here(V4, ACK | PSH)).after(3600).is([RULE, e, e, e]);
    t.both("a reset from outside in the pump's name", |c, f| {
        c.mirrors("RST closes a flow from the wrong side");
        opened(c, f).leaves(LAN1, UPLINK, Ethernet { destination: PUMP.mac, source: ROUTER.mac, ..there(f, RST) })
            .leaves(LAN1, UPLINK, here(f, ACK | PSH)).is([RULE, e, e, SPOOFED_SOURCE, e]);
    });
    t.both("an answer from another address", |c, f| {
        c.enters(LAN1, there(f, SYN)).leaves(LAN1, UPLINK, down(&FAR, &PUMP, f, back(2575, SYN | ACK))).is([RULE, MID_FLOW]);
    });
    t.both("an answer from another port", |c, f| {
        c.enters(LAN1, there(f, SYN)).leaves(LAN1, UPLINK, down(&RECORDS, &PUMP, f, back(2576, SYN | ACK))).is([RULE, MID_FLOW]);
    });
    t.both("an answer to another device", |c, f| {
        c.enters(LAN1, there(f, SYN)).leaves(LAN1, UPLINK, down(&RECORDS, &PINNED, f, back(2575, SYN | ACK))).is([RULE, MID_FLOW]);
    });
    t.both("a connection from outside, where a rule allows it", |c, f| {
        c.leaves(LAN1, UPLINK, down(&RECORDS, &PUMP, f, syn(5000))).enters(LAN1, up(&PUMP, &RECORDS, f, back(5000, SYN | ACK)))
            .leaves(LAN1, UPLINK, down(&RECORDS, &PUMP, f, tcp(5000, ACK))).is([RULE, e, e]);
    });
    t.both("a connection from the router", |c, f| {
        c.leaves(LAN1, ROUTER_ITSELF, down(&ROUTER, &PUMP, f, syn(80))).enters(LAN1, up(&PUMP, &ROUTER, f, back(80, SYN | ACK)))
            .leaves(LAN1, ROUTER_ITSELF, down(&ROUTER, &PUMP, f, tcp(80, ACK))).is([RULE, e, e]);
    });
    t.both("a connection between two guarded ports", |c, f| {
        c.enters(LAN1, up(&PUMP, &CAMERA, f, syn(554))).leaves(LAN2, FROM_LAN1, down(&PUMP, &CAMERA, f, syn(554)))
            .enters(LAN2, up(&CAMERA, &PUMP, f, back(554, SYN | ACK))).leaves(LAN1, FROM_LAN2, down(&CAMERA, &PUMP, f, back(554, SYN | ACK)))
            .enters(LAN1, up(&PUMP, &CAMERA, f, tcp(554, ACK))).is([RULE, again(e), e, again(e), e]);
    });
    t.both("the other end of such a connection opens one itself", |c, f| {
        c.enters(LAN1, up(&PUMP, &CAMERA, f, syn(554))).enters(LAN2, up(&CAMERA, &PUMP, f, syn(554))).is([RULE, NO_RULE]);
    });
    t.both("the other end of such a connection, from another device's MAC", |c, f| {
        c.mirrors("packets of a known flow are not asked where they come from");
        c.enters(LAN1, up(&PUMP, &CAMERA, f, syn(554))).enters(LAN1, Ethernet { source: PINNED.mac, ..up(&CAMERA, &PUMP, f, back(554, SYN | ACK)) }).is([RULE, SPOOFED_SOURCE]);
    });
    t.case("a flow's device moves to another VLAN of its zone").enters(LAN1, up(&CAMERA, &FAR, V4, syn(443)).tagged(20)).leaves(LAN1, UPLINK, down(&FAR, &CAMERA, V4, back(443, SYN | ACK)).tagged(20))
        .enters(TRUNK, up(&CAMERA, &FAR, V4, tcp(443, ACK)).tagged(20)).enters(LAN2, up(&CAMERA, &FAR, V4, tcp(443, ACK))).is([RULE, e, e, e]);

    // Datagrams.
    t.both("a datagram and its reply", |c, f| {
        c.enters(LAN1, up(&PUMP, &RECORDS, f, udp(514))).leaves(LAN1, UPLINK, down(&RECORDS, &PUMP, f, Udp::new(514, 40_000, *b"data"))).enters(LAN1, up(&PUMP, &RECORDS, f, udp(514))).is([RULE, e, e]);
    });
    t.both("a datagram that nobody asked for", |c, f| { c.leaves(LAN1, UPLINK, down(&RECORDS, &PUMP, f, Udp::new(514, 40_000, *b"data"))).is(NO_RULE); });
    t.both("a datagram's reply from another port", |c, f| {
        c.enters(LAN1, up(&PUMP, &RECORDS, f, udp(514))).leaves(LAN1, UPLINK, down(&RECORDS, &PUMP, f, Udp::new(515, 40_000, *b"data"))).is([RULE, NO_RULE]);
    });
    t.both("a datagram's reply from another address", |c, f| {
        c.enters(LAN1, up(&PUMP, &RECORDS, f, udp(514))).leaves(LAN1, UPLINK, down(&FAR, &PUMP, f, Udp::new(514, 40_000, *b"data"))).is([RULE, NO_RULE]);
    });
    t.case("a datagram's reply after half a minute").enters(LAN1, up(&PUMP, &RECORDS, V4, udp(514))).leaves(LAN1, UPLINK, down(&RECORDS, &PUMP, V4, Udp::new(514, 40_000, *b"data"))).after(32).is([RULE, NO_RULE]);
    t.case("a datagram's second reply after two minutes").enters(LAN1, up(&PUMP, &RECORDS, V4, udp(514))).leaves(LAN1, UPLINK, down(&RECORDS, &PUMP, V4, Udp::new(514, 40_000, *b"data")))
        .leaves(LAN1, UPLINK, down(&RECORDS, &PUMP, V4, Udp::new(514, 40_000, *b"data"))).after(120).is([RULE, e, e]);

    // Pings.
    let ping = |f, id| if f == V4 { icmp::request(id, 1) } else { icmpv6::request(id, 1) };
    let pong = |f, id| if f == V4 { icmp::reply(id, 1) } else { icmpv6::reply(id, 1) };
    t.both("a ping and its reply", |c, f| { c.enters(LAN1, up(&PUMP, &FAR, f, ping(f, 7))).leaves(LAN1, UPLINK, down(&FAR, &PUMP, f, pong(f, 7))).is([RULE, e]); });
    t.both("a ping's reply with another identifier", |c, f| { c.enters(LAN1, up(&PUMP, &FAR, f, ping(f, 7))).leaves(LAN1, UPLINK, down(&FAR, &PUMP, f, pong(f, 8))).is([RULE, MID_FLOW]); });
    t.both("a ping's reply that nobody asked for", |c, f| { c.mirrors("echo replies carry a tunnel"); c.enters(LAN1, up(&PUMP, &FAR, f, pong(f, 9))).is(MID_FLOW); });
    t.both("a ping's reply from the one who asked", |c, f| { c.enters(LAN1, up(&PUMP, &FAR, f, ping(f, 7))).enters(LAN1, up(&PUMP, &FAR, f, pong(f, 7))).is([RULE, MID_FLOW]); });
    t.both("a ping back with the same identifier", |c, f| { c.enters(LAN1, up(&PUMP, &FAR, f, ping(f, 7))).leaves(LAN1, UPLINK, down(&FAR, &PUMP, f, ping(f, 7))).is([RULE, NO_RULE]); });
    t.case("a timestamp's reply to a ping").enters(LAN1, up(&PUMP, &FAR, V4, icmp::request(7, 1))).leaves(LAN1, UPLINK, down(&FAR, &PUMP, V4, Upper::Icmp(Icmp::new(14, 0, [0, 7, 0, 1, 0, 0, 0, 0])))).is([RULE, MID_FLOW]);
}

#[rustfmt::skip]
pub(crate) fn errors(t: &mut Table) {
    let e = ESTABLISHED;
    /// An error that quotes a packet.
    fn error(f: Family, kind: [u8; 2], packet: &Packet) -> Upper {
        if f == V4 { icmp::error(kind[0], 1, packet) } else { icmpv6::error(kind[1], 0, packet) }
    }
    let sent = |f, port| ip(PUMP.at(f), RECORDS.at(f), syn(port));
    let about = |c: &mut Case, origin: Origin, from: &Party, to: &Party, f, kind, packet: &Packet| {
        c.enters(LAN1, up(&PUMP, &RECORDS, f, syn(2575))).leaves(LAN1, origin, down(from, to, f, error(f, kind, packet)));
    };

    for (name, kind) in [("unreachable", [3, 1]), ("time exceeded", [11, 3]), ("a parameter problem", [12, 4])] {
        t.both(&format!("{name}, about a live flow"), |c, f| { about(c, UPLINK, &RECORDS, &PUMP, f, kind, &sent(f, 2575)); c.is([RULE, RELATED]); });
    }
    t.case("packet too big, about a live flow").enters(LAN1, pump(v6(syn(2575)))).leaves(LAN1, UPLINK, forwarded(&PUMP, Ipv6::new(FAR.v6, PUMP.v6, icmpv6::error(2, 0, &v6(syn(2575)).into())))).is([RULE, RELATED]);
    t.case("fragmentation needed, about a live flow").enters(LAN1, pump(v4(syn(2575)))).leaves(LAN1, UPLINK, forwarded(&PUMP, Ipv4::new(FAR.v4, PUMP.v4, icmp::error(3, 4, &v4(syn(2575)).into())))).is([RULE, RELATED]);
    t.case("source quench, about a live flow").enters(LAN1, pump(v4(syn(2575)))).leaves(LAN1, UPLINK, forwarded(&PUMP, Ipv4::new(FAR.v4, PUMP.v4, icmp::error(4, 0, &v4(syn(2575)).into())))).is([RULE, RELATED]);
    t.both("an error from a hop of the path", |c, f| { about(c, UPLINK, &FAR, &PUMP, f, [11, 3], &sent(f, 2575)); c.is([RULE, RELATED]); });
    t.both("an error from the router", |c, f| { about(c, ROUTER_ITSELF, &ROUTER, &PUMP, f, [11, 3], &sent(f, 2575)); c.is([RULE, RELATED]); });
    t.both("an error about no flow", |c, f| {
        c.mirrors("an ICMP error passes whatever it quotes");
        about(c, UPLINK, &RECORDS, &PUMP, f, [3, 1], &sent(f, 2576)); c.is([RULE, MID_FLOW]);
    });
    t.both("an error to somebody else than the sender it quotes", |c, f| {
        c.mirrors("an ICMP error passes whatever it quotes");
        about(c, UPLINK, &RECORDS, &PINNED, f, [3, 1], &sent(f, 2575)); c.is([RULE, MID_FLOW]);
    });
    t.both("an error that quotes the other direction", |c, f| {
        about(c, UPLINK, &RECORDS, &PUMP, f, [3, 1], &ip(RECORDS.at(f), PUMP.at(f), back(2575, SYN | ACK))); c.is([RULE, MID_FLOW]);
    });
    t.both("an error about an error", |c, f| {
        about(c, UPLINK, &RECORDS, &PUMP, f, [3, 1], &ip(PUMP.at(f), RECORDS.at(f), error(f, [3, 1], &sent(f, 2575)))); c.is([RULE, MID_FLOW]);
    });
    t.both("an error about a ping", |c, f| {
        let ping = || if f == V4 { icmp::request(7, 1) } else { icmpv6::request(7, 1) };
        c.enters(LAN1, up(&PUMP, &FAR, f, ping())).leaves(LAN1, UPLINK, down(&FAR, &PUMP, f, error(f, [3, 1], &ip(PUMP.at(f), FAR.at(f), ping())))).is([RULE, RELATED]);
    });
    t.both("an error about a ping with another identifier", |c, f| {
        let ping = |id| if f == V4 { icmp::request(id, 1) } else { icmpv6::request(id, 1) };
        c.enters(LAN1, up(&PUMP, &FAR, f, ping(7))).leaves(LAN1, UPLINK, down(&FAR, &PUMP, f, error(f, [3, 1], &ip(PUMP.at(f), FAR.at(f), ping(8))))).is([RULE, MID_FLOW]);
    });
    t.both("the device's own error, about what came in", |c, f| {
        c.leaves(LAN1, UPLINK, down(&RECORDS, &PUMP, f, udp(5000))).enters(LAN1, up(&PUMP, &RECORDS, f, error(f, [3, 1], &ip(RECORDS.at(f), PUMP.at(f), udp(5000))))).is([RULE, RELATED]);
    });
    t.both("the device's own error, about no flow", |c, f| {
        c.mirrors("an ICMP error passes whatever it quotes");
        c.enters(LAN1, up(&PUMP, &RECORDS, f, error(f, [3, 1], &ip(RECORDS.at(f), PUMP.at(f), udp(5000))))).is(MID_FLOW);
    });
    t.both("an error between two guarded ports", |c, f| {
        let about = || error(f, [3, 1], &ip(PUMP.at(f), CAMERA.at(f), syn(554)));
        c.enters(LAN1, up(&PUMP, &CAMERA, f, syn(554))).enters(LAN2, up(&CAMERA, &PUMP, f, about())).leaves(LAN1, FROM_LAN2, down(&CAMERA, &PUMP, f, about())).is([RULE, RELATED, again(RELATED)]);
    });

    t.both("an error about a neighbour's flow, from a device that is not on its path", |c, f| {
        c.mirrors("anybody on the link may send an error about another's flow");
        let about = error(f, [3, 1], &ip(PUMP.at(f), CAMERA.at(f), syn(554)));
        c.enters(LAN1, up(&PUMP, &CAMERA, f, syn(554))).enters(LAN1, up(&PINNED, &PUMP, f, about)).is([RULE, MID_FLOW]).under(Router, [RULE, RELATED]);
    });
    t.both("an error about a flow to a server, from a neighbour", |c, f| {
        c.mirrors("anybody on the link may send an error about another's flow");
        let about = error(f, [11, 3], &ip(RECORDS.at(f), PUMP.at(f), back(2575, SYN | ACK)));
        c.enters(LAN1, up(&PUMP, &RECORDS, f, syn(2575))).enters(LAN1, up(&PINNED, &RECORDS, f, about)).is([RULE, MID_FLOW]).under(Router, [RULE, RELATED]);
    });

    // The quoted packet.
    let quoted = |c: &mut Case, bytes: &[u8]| {
        let body = [&[0; 4][..], bytes].concat();
        c.enters(LAN1, pump(v4(syn(2575)))).leaves(LAN1, UPLINK, forwarded(&PUMP, Ipv4::new(FAR.v4, PUMP.v4, Upper::Icmp(Icmp::new(3, 1, body)))));
    };
    let bytes = v4(syn(2575)).bytes();
    quoted(t.case("an error that quotes eight bytes of TCP"), &bytes[..28]);
    t.last().is([RULE, RELATED]);
    quoted(t.case("an error that quotes seven bytes of TCP"), &bytes[..27]);
    t.last().is([RULE, MID_FLOW]);
    quoted(t.case("an error that quotes half a header"), &bytes[..12]);
    t.last().is([RULE, MID_FLOW]);
    quoted(t.case("an error that quotes nothing"), &[]);
    t.last().is([RULE, MID_FLOW]);
    quoted(t.case("an error that quotes IPv6"), &v6(syn(2575)).bytes());
    t.last().is([RULE, MID_FLOW]);
    quoted(t.case("an error that quotes options before TCP"), &Ipv4 { options: vec![1; 4], ..v4(syn(2575)) }.bytes());
    t.last().is([RULE, RELATED]);
    quoted(t.case("an error that quotes a header of four words"), &Ipv4 { header_words: Some(4), ..v4(syn(2575)) }.bytes());
    t.last().is([RULE, MID_FLOW]);
    quoted(t.case("an error that quotes a later fragment").mirrors("later fragments judged by payload bytes"), &Ipv4 { fragment_offset: 3, ..v4(syn(2575)) }.bytes());
    t.last().is([RULE, MID_FLOW]);
    let disguised = Ipv4 { options: [&[1, 1, 10, 15][..], &[0; 13]].concat(), ..v4(syn(23)) };
    t.case("an error that quotes options which look like the ports of a live flow").mirrors("ports read at a fixed offset behind IPv4 options")
        .enters(LAN1, pump(v4(Tcp::new(257, 2575, SYN))))
        .leaves(LAN1, UPLINK, forwarded(&PUMP, Ipv4::new(FAR.v4, PUMP.v4, icmp::error(3, 1, &disguised.into())))).is([RULE, MID_FLOW]);
    t.case("an IPv6 error that quotes an extension header").enters(LAN1, pump(v6(syn(2575))))
        .leaves(LAN1, UPLINK, forwarded(&PUMP, Ipv6::new(FAR.v6, PUMP.v6, icmpv6::error(1, 0, &v6(syn(2575)).with(Extension::destination(&[1, 4, 0, 0, 0, 0])).into())))).is([RULE, MID_FLOW]);
    t.case("an error in the name of another device").mirrors("an ICMP error passes whatever it quotes")
        .leaves(LAN1, UPLINK, down(&RECORDS, &PUMP, V4, udp(5000)))
        .enters(LAN1, Ethernet { source: PINNED.mac, ..up(&PUMP, &RECORDS, V4, error(V4, [3, 1], &ip(RECORDS.at(V4), PUMP.at(V4), udp(5000)))) }).is([RULE, SPOOFED_SOURCE]);
    t.case("an error from a guarded device's address, at the uplink")
        .enters(LAN1, up(&PUMP, &RECORDS, V4, syn(2575))).leaves(LAN1, UPLINK, down(&CAMERA, &PUMP, V4, error(V4, [3, 1], &sent(V4, 2575)))).is([RULE, SPOOFED_SOURCE]);
    t.case("an answer after an error").enters(LAN1, up(&PUMP, &RECORDS, V4, syn(2575))).leaves(LAN1, UPLINK, down(&RECORDS, &PUMP, V4, error(V4, [3, 1], &sent(V4, 2575))))
        .leaves(LAN1, UPLINK, down(&RECORDS, &PUMP, V4, back(2575, SYN | ACK))).is([RULE, RELATED, e]);
}
