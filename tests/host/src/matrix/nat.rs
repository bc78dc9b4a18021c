//! What the router's NAT has rewritten, before it leaves through a guarded port.

use std::net::IpAddr;

use super::{
    case::{
        DENIED_BY_RULE, ESTABLISHED, Family, NO_RULE, RELATED, RULE, SPOOFED_SOURCE,
        Setting::{Nat, NatObserve},
        Table, again, would,
    },
    network::{
        BRIDGE, CAMERA, FAR, FROM_LAN1, FROM_LAN2, LAN1, LAN2, LAN3, PINNED, PUMP, ROUTER,
        ROUTER_2, ROUTER_ITSELF, UPLINK, WILD, back, down, syn, tcp, udp, up,
    },
};
use wardline_oracle::frames::{ACK, Packet, SYN, Udp, Upper, icmp, icmpv6, ip};

/// A datagram in answer to [`udp`].
fn answer(port: u16) -> Udp {
    Udp::new(port, 40_000, *b"data")
}

/// An error that says that a port is closed.
fn closed(family: Family, from: IpAddr, to: IpAddr, port: u16) -> Upper {
    let about: Packet = ip(from, to, udp(port));
    match family {
        Family::V4 => icmp::error(3, 3, &about),
        Family::V6 => icmpv6::error(1, 4, &about),
    }
}

#[rustfmt::skip]
pub(crate) fn rows(t: &mut Table) {
    // From an interface that is not guarded.
    t.both("NAT from the uplink, as the router that a rule allows", |c, f| { c.leaves(LAN1, UPLINK, down(&ROUTER, &PUMP, f, syn(80))).is(SPOOFED_SOURCE).under(Nat, RULE); });
    t.both("NAT from the uplink, as the router that no rule allows", |c, f| { c.leaves(LAN1, UPLINK, down(&ROUTER, &PUMP, f, syn(81))).is(SPOOFED_SOURCE).under(Nat, NO_RULE).under(NatObserve, would(NO_RULE)); });
    t.both("the router's address from a port of a bridge, which nothing routes", |c, f| { c.mirrors("the router's address is believed from the uplink"); c.leaves(LAN1, WILD, down(&ROUTER, &PUMP, f, syn(80))).is(SPOOFED_SOURCE).under(Nat, SPOOFED_SOURCE); });
    t.both("a device's address from the uplink of a router with NAT", |c, f| { c.leaves(LAN1, UPLINK, down(&CAMERA, &PUMP, f, syn(443))).is(SPOOFED_SOURCE).under(Nat, SPOOFED_SOURCE); });
    t.both("the router's address through a guarded port of a router with NAT", |c, f| { c.enters(LAN1, up(&ROUTER, &CAMERA, f, syn(443))).is(super::case::UNKNOWN_DEVICE).under(Nat, super::case::UNKNOWN_DEVICE); });
    t.both("the router's address from a device of a router with NAT", |c, f| { c.enters(LAN1, wardline_oracle::frames::Ethernet { source: PUMP.mac, ..up(&ROUTER, &CAMERA, f, syn(443)) }).is(SPOOFED_SOURCE).under(Nat, SPOOFED_SOURCE); });
    t.both("a server behind NAT answers", |c, f| {
        c.enters(LAN1, up(&PUMP, &ROUTER, f, udp(53))).leaves(LAN1, UPLINK, down(&ROUTER, &PUMP, f, answer(53))).leaves(LAN1, UPLINK, down(&ROUTER, &PUMP, f, answer(53)))
            .is([RULE, SPOOFED_SOURCE, SPOOFED_SOURCE]).under(Nat, [RULE, ESTABLISHED, ESTABLISHED]);
    });
    t.both("a server behind NAT says that a port is closed", |c, f| {
        c.enters(LAN1, up(&PUMP, &ROUTER, f, udp(53))).leaves(LAN1, UPLINK, down(&ROUTER, &PUMP, f, closed(f, PUMP.at(f), ROUTER.at(f), 53)))
            .is([RULE, SPOOFED_SOURCE]).under(Nat, [RULE, RELATED]);
    });
    t.both("the router answers in another's name, as a redirect has it", |c, f| {
        c.enters(LAN2, up(&CAMERA, &FAR, f, syn(443))).leaves(LAN2, ROUTER_ITSELF, down(&FAR, &CAMERA, f, back(443, SYN | ACK)))
            .is([RULE, ESTABLISHED]).under(Nat, [RULE, ESTABLISHED]);
    });

    // From a guarded port, with the router's address as the source.
    t.both("masqueraded from another port, and answered", |c, f| {
        c.enters(LAN2, up(&CAMERA, &PUMP, f, syn(443))).leaves(LAN1, FROM_LAN2, down(&ROUTER, &PUMP, f, syn(443)))
            .enters(LAN1, up(&PUMP, &ROUTER, f, back(443, SYN | ACK))).leaves(LAN2, FROM_LAN1, down(&PUMP, &CAMERA, f, back(443, SYN | ACK)))
            .enters(LAN2, up(&CAMERA, &PUMP, f, tcp(443, ACK))).leaves(LAN1, FROM_LAN2, down(&ROUTER, &PUMP, f, tcp(443, ACK)))
            .is([RULE, NO_RULE, super::case::MID_FLOW, ESTABLISHED, ESTABLISHED, super::case::MID_FLOW])
            .under(Nat, [RULE, again(ESTABLISHED), ESTABLISHED, ESTABLISHED, ESTABLISHED, again(ESTABLISHED)])
            .under(NatObserve, [RULE, again(ESTABLISHED), ESTABLISHED, ESTABLISHED, ESTABLISHED, again(ESTABLISHED)]);
    });
    t.both("masqueraded from another port, which admitted it long ago", |c, f| {
        c.enters(LAN2, up(&CAMERA, &PUMP, f, syn(443))).leaves(LAN1, FROM_LAN2, down(&ROUTER, &PUMP, f, syn(443))).after(2)
            .enters(LAN2, up(&CAMERA, &PUMP, f, syn(443))).leaves(LAN1, FROM_LAN2, down(&ROUTER, &PUMP, f, syn(443)))
            .under(Nat, [RULE, NO_RULE, ESTABLISHED, again(ESTABLISHED)]);
    });
    t.both("masqueraded from another port, but not to whom it was admitted", |c, f| {
        c.enters(LAN2, up(&CAMERA, &PUMP, f, syn(443))).leaves(LAN1, FROM_LAN2, down(&ROUTER, &PINNED, f, syn(443))).leaves(LAN1, FROM_LAN2, down(&ROUTER, &PUMP, f, syn(444)))
            .under(Nat, [RULE, NO_RULE, NO_RULE]);
    });
    t.both("masqueraded from another port, and refused", |c, f| {
        c.enters(LAN1, up(&PUMP, &CAMERA, f, udp(3700))).is(NO_RULE).under(NatObserve, NO_RULE);
    });
    t.both("through a bridge above a guarded port, masqueraded", |c, f| {
        c.enters(LAN3, up(&PUMP, &CAMERA, f, syn(443))).leaves(LAN2, BRIDGE, down(&ROUTER_2, &CAMERA, f, syn(443)))
            .is([RULE, NO_RULE]).under(Nat, [RULE, again(ESTABLISHED)]).under(NatObserve, [RULE, NO_RULE]);
    });
    t.both("a ping, masqueraded and answered", |c, f| {
        c.enters(LAN1, up(&PUMP, &CAMERA, f, icmp_request(f))).leaves(LAN2, FROM_LAN1, down(&ROUTER_2, &CAMERA, f, icmp_request(f))).enters(LAN2, up(&CAMERA, &ROUTER_2, f, icmp_reply(f)))
            .leaves(LAN1, FROM_LAN2, down(&CAMERA, &PUMP, f, icmp_reply(f)))
            .under(Nat, [RULE, again(ESTABLISHED), ESTABLISHED, ESTABLISHED]);
    });

    // From a guarded port to another one than it was for.
    t.both("sent on by NAT to another guarded device, and answered", |c, f| {
        c.enters(LAN1, up(&PUMP, &ROUTER, f, udp(53))).leaves(LAN2, FROM_LAN1, down(&PUMP, &CAMERA, f, udp(5353)))
            .enters(LAN2, up(&CAMERA, &PUMP, f, answer(5353))).leaves(LAN1, FROM_LAN2, down(&ROUTER, &PUMP, f, answer(53)))
            .enters(LAN2, up(&CAMERA, &PUMP, f, closed(f, PUMP.at(f), CAMERA.at(f), 5353))).leaves(LAN1, FROM_LAN2, down(&ROUTER, &PUMP, f, closed(f, PUMP.at(f), ROUTER.at(f), 53)))
            .under(Nat, [RULE, again(ESTABLISHED), ESTABLISHED, ESTABLISHED, RELATED, again(RELATED)])
            .under(NatObserve, [RULE, NO_RULE, NO_RULE, ESTABLISHED, super::case::MID_FLOW, again(RELATED)]);
    });
    t.both("sent on by NAT to a guarded device that a rule denies", |c, f| {
        c.enters(LAN1, up(&PUMP, &ROUTER, f, udp(53))).leaves(LAN2, FROM_LAN1, down(&PUMP, &CAMERA, f, udp(5354))).under(Nat, [RULE, DENIED_BY_RULE]);
    });
    t.both("observed, sent on by NAT into a zone that enforces", |c, f| {
        c.mirrors("NAT carries what is only observed into a zone that enforces");
        c.enters(LAN1, up(&PUMP, &ROUTER, f, udp(99))).leaves(LAN2, FROM_LAN1, down(&PUMP, &CAMERA, f, udp(5353))).under(NatObserve, [would(NO_RULE), NO_RULE]);
    });
    t.both("observed, sent on by NAT into a zone that enforces, as the router that a rule allows", |c, f| {
        c.mirrors("NAT carries what is only observed into a zone that enforces");
        c.enters(LAN1, up(&PUMP, &ROUTER, f, syn(9999))).leaves(LAN2, FROM_LAN1, down(&ROUTER_2, &CAMERA, f, syn(555)))
            .under(Nat, [NO_RULE, RULE]).under(NatObserve, [would(NO_RULE), NO_RULE]);
    });
    t.both("an answer to nobody, which NAT might have sent on", |c, f| {
        c.leaves(LAN2, FROM_LAN1, down(&PUMP, &CAMERA, f, udp(5353))).leaves(LAN1, FROM_LAN2, down(&ROUTER, &PUMP, f, udp(5353))).under(Nat, [NO_RULE, NO_RULE]);
    });
}

fn icmp_request(family: Family) -> Upper {
    match family {
        Family::V4 => icmp::request(7, 1),
        Family::V6 => icmpv6::request(7, 1),
    }
}

fn icmp_reply(family: Family) -> Upper {
    match family {
        Family::V4 => icmp::reply(7, 1),
        Family::V6 => icmpv6::reply(7, 1),
    }
}
