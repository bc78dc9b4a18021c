//! Answers to what went to a group, by a rule that lets others answer.

use super::{
    case::{
        ESTABLISHED, Family, Family::V4, NO_RULE, QUARANTINED, RULE, Setting::Quarantine, Table,
        again,
    },
    groups::mac_of,
    network::{
        CAMERA, FAR, FROM_LAN1, LAN1, LAN2, PINNED, PUMP, Party, RECORDS, ROUTER, ROUTER_ITSELF,
        SHY, SOUGHT, UPLINK, down, syn, up,
    },
};
use wardline_oracle::frames::{Ethernet, Udp, ip};

/// A search, from a port.
fn searches(from: &Party, f: Family, port: u16) -> Ethernet {
    let packet = ip(from.at(f), SOUGHT.at(f), Udp::new(port, 1900, *b"data"));
    Ethernet::new(mac_of(&SOUGHT, f), from.mac, packet)
}

/// An answer, to a port.
fn found(port: u16) -> Udp {
    Udp::new(1900, port, *b"here")
}

#[rustfmt::skip]
pub(crate) fn rows(t: &mut Table) {
    let e = ESTABLISHED;
    t.both("an answer to a search by a group", |c, f| {
        c.enters(LAN2, searches(&CAMERA, f, 40_000)).enters(LAN1, up(&PUMP, &CAMERA, f, found(40_000))).is([RULE, RULE]).under(Quarantine, [RULE, QUARANTINED]);
    });
    t.both("several answer, and each once more", |c, f| {
        c.enters(LAN2, searches(&CAMERA, f, 40_000)).enters(LAN1, up(&PUMP, &CAMERA, f, found(40_000))).enters(LAN1, up(&PINNED, &CAMERA, f, found(40_000))).enters(LAN1, up(&PUMP, &CAMERA, f, found(40_000))).is([RULE, RULE, RULE, e]);
    });
    t.both("an answer that nobody asked for", |c, f| { c.mirrors("who may answer may always send"); c.enters(LAN1, up(&PUMP, &CAMERA, f, found(40_000))).is(NO_RULE); });
    t.both("an answer to another port", |c, f| { c.mirrors("the port of the question does not count"); c.enters(LAN2, searches(&CAMERA, f, 40_000)).enters(LAN1, up(&PUMP, &CAMERA, f, found(40_001))).is([RULE, NO_RULE]); });
    t.both("an answer to a device that has not asked", |c, f| {
        c.mirrors("a question opens the way to the whole zone");
        c.enters(LAN2, searches(&SHY, f, 40_000)).enters(LAN1, up(&PUMP, &CAMERA, f, found(40_000))).enters(LAN1, up(&PUMP, &SHY, f, found(40_000))).is([RULE, NO_RULE, RULE]);
    });
    t.both("an answer by TCP", |c, f| { c.enters(LAN2, searches(&CAMERA, f, 40_000)).enters(LAN1, up(&PUMP, &CAMERA, f, syn(40_000))).is([RULE, NO_RULE]); });
    t.both("an answer from who may not answer", |c, f| { c.enters(LAN2, searches(&CAMERA, f, 40_000)).leaves(LAN2, UPLINK, down(&FAR, &CAMERA, f, found(40_000))).is([RULE, NO_RULE]); });
    t.both("an answer from behind the uplink", |c, f| { c.enters(LAN2, searches(&CAMERA, f, 40_000)).leaves(LAN2, UPLINK, down(&RECORDS, &CAMERA, f, found(40_000))).is([RULE, RULE]); });
    t.both("an answer to a search that no rule allows", |c, f| {
        let packet = ip(CAMERA.at(f), SOUGHT.at(f), Udp::new(40_000, 1901, *b"data"));
        c.enters(LAN2, Ethernet::new(mac_of(&SOUGHT, f), CAMERA.mac, packet)).enters(LAN1, up(&PUMP, &CAMERA, f, found(40_000))).is([NO_RULE, NO_RULE]);
    });
    t.both("an answer after nine seconds, and one after eleven", |c, f| {
        c.enters(LAN2, searches(&CAMERA, f, 40_000)).enters(LAN1, up(&PUMP, &CAMERA, f, found(40_000))).after(9).enters(LAN1, up(&PINNED, &CAMERA, f, found(40_000))).after(2).is([RULE, RULE, NO_RULE]);
    });
    t.both("an answer that goes on too long", |c, f| {
        c.mirrors("an answer opens a flow without an end");
        c.enters(LAN2, searches(&CAMERA, f, 40_000)).enters(LAN1, up(&PUMP, &CAMERA, f, found(40_000))).enters(LAN1, up(&PUMP, &CAMERA, f, found(40_000))).after(11).is([RULE, RULE, NO_RULE]);
    });
    t.both("a search that goes on is answered for as long", |c, f| {
        c.enters(LAN2, searches(&CAMERA, f, 40_000)).enters(LAN2, searches(&CAMERA, f, 40_000)).after(8).enters(LAN1, up(&PUMP, &CAMERA, f, found(40_000))).after(8).is([RULE, e, RULE]);
    });
    t.both("who has asked goes on with who answered", |c, f| {
        c.enters(LAN2, searches(&CAMERA, f, 40_000)).enters(LAN1, up(&PUMP, &CAMERA, f, found(40_000))).enters(LAN2, up(&CAMERA, &PUMP, f, Udp::new(40_000, 1900, *b"more"))).is([RULE, RULE, e]);
    });
    t.both("an answer leaves towards who asked", |c, f| {
        c.enters(LAN2, searches(&CAMERA, f, 40_000)).enters(LAN1, up(&PUMP, &CAMERA, f, found(40_000))).leaves(LAN2, FROM_LAN1, down(&PUMP, &CAMERA, f, found(40_000))).is([RULE, RULE, again(e)]);
    });
    t.case("the router's own search").leaves(LAN1, ROUTER_ITSELF, searches(&ROUTER, V4, 40_000)).enters(LAN1, up(&PUMP, &ROUTER, V4, found(40_000))).enters(LAN1, up(&PUMP, &ROUTER, V4, found(40_001))).is([RULE, RULE, NO_RULE]);
    // A ninth question takes the place of the first.
    let nine = t.case("a device has eight questions at a time").mirrors("questions fill a table that others need");
    for port in 40_000..40_009 {
        nine.enters(LAN2, searches(&CAMERA, V4, port));
    }
    nine.enters(LAN1, up(&PUMP, &CAMERA, V4, found(40_008))).enters(LAN1, up(&PUMP, &CAMERA, V4, found(40_000)))
        .is([[RULE; 10].to_vec(), vec![NO_RULE]].concat());
}
