//! Tunnels would carry packets past every rule, so only a rule that names a tunnel allows it.

use super::{
    case::{DENIED_BY_RULE, NO_RULE, RULE, Table},
    network::{
        ARCHIVE, CAMERA, CLOSED, FAR, LAN1, LAN2, MEDIA, PUMP, Party, RECORDS, UPLINK, VPN, down,
        udp, up,
    },
};
use wardline_oracle::frames::Upper;

/// Protocols that carry packets in packets.
const PROTOCOLS: [(u8, &str); 7] = [
    (4, "IPv4 in IP"),
    (41, "IPv6 in IP"),
    (47, "GRE"),
    (94, "IP within IP"),
    (97, "Ethernet in IP"),
    (115, "L2TP"),
    (137, "MPLS in IP"),
];
const PORTS: [(u16, &str); 3] = [
    (4789, "VXLAN"),
    (6081, "Geneve"),
    (8472, "VXLAN's old port"),
];
const DEFECT: &str = "a tunnel passes under a rule for everything";

#[rustfmt::skip]
pub(crate) fn rows(t: &mut Table) {
    for (number, name) in PROTOCOLS {
        let to = |party: &Party, f| up(&PUMP, party, f, Upper::Bytes(number, vec![0x45; 32]));
        t.both(&format!("{name}, protocol {number}, under a rule for all services"), |c, f| {
            c.mirrors(DEFECT);
            c.enters(LAN1, to(&ARCHIVE, f)).is(NO_RULE);
        });
        t.both(&format!("{name}, protocol {number}, under a rule that names it"), |c, f| { c.enters(LAN1, to(&VPN, f)).is(RULE); });
    }
    t.both("a tunnel without any rule", |c, f| { c.enters(LAN1, up(&PUMP, &RECORDS, f, Upper::Bytes(47, vec![0; 32]))).is(NO_RULE); });
    t.both("a tunnel where a rule names it and another denies everything", |c, f| { c.enters(LAN1, up(&PUMP, &CLOSED, f, Upper::Bytes(47, vec![0; 32]))).is(DENIED_BY_RULE); });
    t.both("a tunnel from the uplink", |c, f| { c.leaves(LAN1, UPLINK, down(&VPN, &PUMP, f, Upper::Bytes(47, vec![0; 32]))).is(NO_RULE); });
    t.both("a tunnel to a network that a rule denies", |c, f| { c.enters(LAN1, up(&PUMP, &super::network::BLOCKED, f, Upper::Bytes(4, vec![0x45; 32]))).is(DENIED_BY_RULE); });
    t.both("a protocol that is no tunnel, under a rule for all services", |c, f| { c.enters(LAN1, up(&PUMP, &ARCHIVE, f, Upper::Bytes(50, vec![0; 32]))).is(RULE); });

    for (port, name) in PORTS {
        t.both(&format!("{name}, udp/{port}, under a rule for all services"), |c, f| {
            c.mirrors(DEFECT);
            c.enters(LAN1, up(&PUMP, &ARCHIVE, f, udp(port))).is(NO_RULE);
        });
        t.both(&format!("{name}, udp/{port}, under a rule for udp/*"), |c, f| {
            c.mirrors(DEFECT);
            c.enters(LAN1, up(&PUMP, &MEDIA, f, udp(port))).is(NO_RULE);
        });
        t.both(&format!("{name}, udp/{port}, under a rule that names it or a range"), |c, f| { c.enters(LAN1, up(&PUMP, &VPN, f, udp(port))).is(RULE); });
        t.both(&format!("{name}, udp/{port}, where another rule denies everything"), |c, f| { c.enters(LAN1, up(&PUMP, &CLOSED, f, udp(port))).is(DENIED_BY_RULE); });
    }
    for port in [4788, 4790] {
        t.case(format!("udp/{port}, beside a tunnel's port, under a rule for all services")).enters(LAN1, up(&PUMP, &ARCHIVE, super::case::Family::V4, udp(port))).is(RULE);
        t.case(format!("udp/{port}, beside a tunnel's port, under a rule for udp/*")).enters(LAN1, up(&PUMP, &MEDIA, super::case::Family::V4, udp(port))).is(RULE);
    }
    t.case("tcp/4789 is no tunnel").enters(LAN1, up(&PUMP, &ARCHIVE, super::case::Family::V4, super::network::syn(4789))).is(RULE);
    t.case("a datagram from a tunnel's port").enters(LAN1, up(&PUMP, &MEDIA, super::case::Family::V4, wardline_oracle::frames::Udp::new(4789, 5000, *b"data"))).is(RULE);
    t.case("VXLAN from a device that no rule names").enters(LAN2, up(&CAMERA, &FAR, super::case::Family::V4, udp(4789))).is(NO_RULE);
}
