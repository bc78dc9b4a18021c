//! Policy: which rule decides. Any matching deny wins, else any matching allow, else nothing.

use super::{
    case::{DENIED_BY_RULE, EXPIRED, Family::V4, MID_FLOW, NO_RULE, RULE, Table},
    network::{
        BLOCKED, CAMERA, FAR, LAN1, LAN2, PINNED, PUMP, RECORDS, ROUTER, ROUTER_2, SERVER, TWOFOLD,
        UPLINK, down, syn, udp, up,
    },
};
use wardline_oracle::frames::{ACK, Icmp, Upper};

#[rustfmt::skip]
pub(crate) fn rows(t: &mut Table) {
    t.both("a service by its name", |c, f| { c.enters(LAN1, up(&PUMP, &RECORDS, f, syn(2575))).is(RULE); });
    t.both("the same port of another protocol", |c, f| { c.enters(LAN1, up(&PUMP, &RECORDS, f, udp(2575))).is(NO_RULE); });
    t.both("the port before a range", |c, f| { c.enters(LAN1, up(&PUMP, &RECORDS, f, syn(7999))).is(NO_RULE); });
    t.both("the first port of a range", |c, f| { c.enters(LAN1, up(&PUMP, &RECORDS, f, syn(8000))).is(RULE); });
    t.both("the last port of a range", |c, f| { c.mirrors("a range leaves out its last port"); c.enters(LAN1, up(&PUMP, &RECORDS, f, syn(8010))).is(RULE); });
    t.both("the port behind a range", |c, f| { c.enters(LAN1, up(&PUMP, &RECORDS, f, syn(8011))).is(NO_RULE); });
    t.both("one port of a range that another rule denies", |c, f| { c.mirrors("the first rule that matches decides"); c.enters(LAN1, up(&PUMP, &RECORDS, f, syn(8005))).is(DENIED_BY_RULE); });
    t.case("the same port for a device that the deny does not name").enters(LAN1, up(&TWOFOLD, &RECORDS, V4, syn(8005))).is(RULE);
    t.both("a deny that has expired", |c, f| { c.enters(LAN1, up(&PUMP, &RECORDS, f, syn(8006))).is(RULE); });
    t.both("an allow that has expired", |c, f| { c.mirrors("a temporary rule becomes permanent"); c.enters(LAN1, up(&PUMP, &FAR, f, udp(123))).is(EXPIRED); });
    t.both("an expired allow where another rule denies", |c, f| { c.enters(LAN1, up(&PUMP, &BLOCKED, f, udp(123))).is(DENIED_BY_RULE); });
    t.both("a deny of a network beats an allow to any", |c, f| { c.mirrors("the first rule that matches decides"); c.enters(LAN1, up(&PUMP, &BLOCKED, f, syn(443))).is(DENIED_BY_RULE); });
    t.both("a deny without services covers every protocol", |c, f| { c.enters(LAN1, up(&PUMP, &BLOCKED, f, Upper::Bytes(132, vec![0; 16]))).is(DENIED_BY_RULE); });
    t.both("any is not the router", |c, f| { c.mirrors("a rule for any opens the router itself"); c.enters(LAN1, up(&PUMP, &ROUTER, f, syn(443))).is(NO_RULE); });
    t.both("the router, named", |c, f| { c.enters(LAN1, up(&PUMP, &ROUTER, f, udp(53))).is(RULE); });
    t.both("the router, by its address in another zone", |c, f| { c.enters(LAN1, up(&PUMP, &ROUTER_2, f, udp(53))).is(RULE); });
    t.both("the router, on a port that no rule names", |c, f| { c.enters(LAN1, up(&PUMP, &ROUTER, f, syn(22))).is(NO_RULE); });
    t.both("a device to another of its zone needs a rule", |c, f| { c.mirrors("lateral movement inside a zone is not judged"); c.enters(LAN1, up(&PUMP, &PINNED, f, syn(22))).is(NO_RULE); });
    t.both("a device to another of its zone, with a rule", |c, f| { c.enters(LAN1, up(&PUMP, &PINNED, f, syn(9100))).is(RULE); });
    t.both("that rule the other way round", |c, f| { c.enters(LAN1, up(&PINNED, &PUMP, f, syn(9100))).is(NO_RULE); });
    t.both("a rule for a device does not cover its zone", |c, f| { c.enters(LAN1, up(&TWOFOLD, &CAMERA, f, syn(554))).is(NO_RULE); });
    t.both("a rule for a device", |c, f| { c.enters(LAN1, up(&PUMP, &CAMERA, f, syn(554))).is(RULE); });
    t.both("a zone's address that no device claims", |c, f| { c.enters(LAN1, up(&PUMP, &SERVER, f, syn(22))).is(RULE); });
    t.both("a device of a zone, by a rule for the zone", |c, f| { c.enters(LAN1, up(&PUMP, &RECORDS, f, syn(22))).is(RULE); });
    t.both("a zone's rule does not cover what is in no zone", |c, f| { c.enters(LAN1, up(&PUMP, &FAR, f, syn(22))).is(NO_RULE); });
    t.both("a rule's other direction, from outside", |c, f| { c.leaves(LAN1, UPLINK, down(&RECORDS, &PUMP, f, syn(2575))).is(NO_RULE); });
    t.both("a server that the rule does not name", |c, f| { c.leaves(LAN1, UPLINK, down(&SERVER, &PUMP, f, syn(5000))).is(NO_RULE); });
    t.both("a zone without a rule to another", |c, f| { c.enters(LAN2, up(&CAMERA, &PUMP, f, syn(2575))).is(NO_RULE); });
    t.case("ICMP of a type that the rule names, with a code").enters(LAN1, up(&PUMP, &FAR, V4, Upper::Icmp(Icmp::new(8, 1, [0, 7, 0, 1])))).is(RULE);
    t.both("the middle of no connection, where a rule denies it", |c, f| { c.enters(LAN1, up(&PUMP, &BLOCKED, f, super::network::tcp(443, ACK))).is(MID_FLOW); });
}
