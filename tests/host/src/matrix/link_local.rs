//! Link-local addresses: whose they are, and the rules that hold for them.

use std::net::Ipv6Addr;

use super::{
    case::{
        CONTROL, ESTABLISHED, MALFORMED, MISDIRECTED, ND_SPOOF, NO_RULE, QUARANTINED, RULE,
        SPOOFED_SOURCE,
        Setting::{AdmitAny, Quarantine},
        Table, UNKNOWN_DEVICE,
    },
    network::{
        ALL_NODES, CAMERA, FIXED, LAN1, LAN2, LINK, PINNED, PUMP, Party, ROUTER, ROUTER_ITSELF,
        ROUTER_LINK, SIDE, STRANGER, TRUNK, UPLINK, back, forwarded, sent, syn, udp,
    },
};
use wardline_oracle::frames::{
    ACK, Ethernet, Ipv6, SYN, Udp, Upper, group_mac, icmpv6, solicited_node,
};

/// The address that a host makes of its MAC (RFC 4291 appendix A).
fn made(of: &Party) -> Ipv6Addr {
    let [a, b, c, d, e, f] = of.mac;
    let half = [a ^ 2, b, c, 0xff, 0xfe, d, e, f];
    Ipv6Addr::from_bits(0xfe80 << 112 | u128::from(u64::from_be_bytes(half)))
}

/// A question to the router's resolver.
fn asks(from: &Party, source: Ipv6Addr) -> Ethernet {
    sent(from, Ipv6::new(source, ROUTER_LINK, udp(53)))
}

fn advertises(from: &Party, source: Ipv6Addr, target: Ipv6Addr) -> Ethernet {
    let upper = icmpv6::neighbour_advertisement(target, 0x20, &[icmpv6::target_link(from.mac)]);
    let packet = Ipv6 {
        hop_limit: 255,
        ..Ipv6::new(source, ALL_NODES, upper)
    };
    Ethernet::new(group_mac(ALL_NODES), from.mac, packet)
}

/// Duplicate address detection.
fn probes(from: &Party, target: Ipv6Addr) -> Ethernet {
    let group = solicited_node(target);
    let packet = Ipv6 {
        hop_limit: 255,
        ..Ipv6::new(
            Ipv6Addr::UNSPECIFIED,
            group,
            icmpv6::neighbour_solicitation(target, &[]),
        )
    };
    Ethernet::new(group_mac(group), from.mac, packet)
}

/// What VRRP is to a firewall.
fn vrrp(source: Ipv6Addr, destination: Ipv6Addr) -> Ipv6 {
    Ipv6::new(source, destination, Upper::Bytes(112, vec![0x31; 24]))
}

#[rustfmt::skip]
pub(crate) fn rows(t: &mut Table) {
    let nobody: &'static str = "link-local addresses belong to nobody";
    let other: Ipv6Addr = "fe80::99".parse().expect("an address");
    // Whose they are.
    t.case("from the link-local address that is made of its MAC").enters(LAN1, asks(&PUMP, made(&PUMP))).is(RULE).under(Quarantine, QUARANTINED);
    t.case("from the one that is made of another device's MAC").mirrors(nobody).enters(LAN1, asks(&PINNED, made(&PUMP))).is(SPOOFED_SOURCE);
    t.case("from the one that is made of another device's MAC, on another link").mirrors(nobody).enters(LAN2, asks(&CAMERA, made(&PUMP))).is(SPOOFED_SOURCE);
    t.case("advertises the one that is made of another device's MAC").mirrors(nobody).enters(LAN1, advertises(&PINNED, PINNED.v6, made(&PUMP))).is(ND_SPOOF);
    t.case("answers another device's duplicate address detection").mirrors(nobody).enters(LAN1, advertises(&PINNED, made(&PUMP), made(&PUMP))).is(SPOOFED_SOURCE);
    t.case("probes for the one that is made of another device's MAC").mirrors(nobody).enters(LAN1, probes(&PINNED, made(&PUMP))).is(ND_SPOOF);
    t.case("another link-local address is the first comer's").mirrors(nobody).enters(LAN1, asks(&PUMP, LINK)).enters(LAN1, asks(&PINNED, LINK)).enters(LAN1, asks(&PUMP, LINK)).is([RULE, SPOOFED_SOURCE, ESTABLISHED]);
    t.case("who probes for one first has it").mirrors(nobody).enters(LAN1, probes(&PUMP, LINK)).enters(LAN1, advertises(&PINNED, PINNED.v6, LINK)).enters(LAN1, asks(&PUMP, LINK)).is([CONTROL, ND_SPOOF, RULE]);
    t.case("the same address on two links is two hosts'").enters(LAN1, asks(&PUMP, LINK)).enters(LAN2, sent(&CAMERA, Ipv6::new(LINK, other, syn(443)))).enters(LAN1, asks(&PUMP, LINK)).is([RULE, RULE, ESTABLISHED]);
    t.case("on ports of one link it is one host's").mirrors(nobody).enters(TRUNK, asks(&PUMP, LINK).tagged(10)).leaves(TRUNK, SIDE, Ethernet::new(PUMP.mac, STRANGER.mac, vrrp(LINK, other)).tagged(10)).is([RULE, SPOOFED_SOURCE]);
    t.case("one that learns no address has link-local ones").enters(LAN2, sent(&FIXED, Ipv6::new(LINK, other, syn(443)))).is(RULE);
    t.case("an unlisted MAC's link-local address").enters(LAN1, asks(&STRANGER, LINK)).enters(LAN1, asks(&PUMP, LINK)).is([UNKNOWN_DEVICE, RULE]).under(AdmitAny, [RULE, SPOOFED_SOURCE]);
    t.case("from the router's link-local address").mirrors(nobody).enters(LAN1, sent(&PUMP, Ipv6::new(ROUTER_LINK, other, syn(443)))).is(SPOOFED_SOURCE);
    t.case("from the one that is made of the router's MAC").mirrors(nobody).enters(LAN1, sent(&PUMP, Ipv6::new(made(&ROUTER), other, syn(443)))).is(SPOOFED_SOURCE);
    t.case("advertises the one that is made of the router's MAC").mirrors(nobody).enters(LAN1, advertises(&PUMP, PUMP.v6, made(&ROUTER))).is(ND_SPOOF);
    for odd in ["fe80:0:0:1::11", "fe80:1::11", "febf::11"] {
        let odd: Ipv6Addr = odd.parse().expect("an address");
        t.case(format!("from {odd}, outside fe80::/64")).enters(LAN1, asks(&PUMP, odd)).is(MALFORMED);
        t.case(format!("to {odd}, outside fe80::/64")).enters(LAN1, sent(&PUMP, Ipv6::new(PUMP.v6, odd, syn(443)))).is(MALFORMED);
        t.case(format!("advertises {odd}, outside fe80::/64")).enters(LAN1, advertises(&PUMP, PUMP.v6, odd)).is(ND_SPOOF);
    }

    // Rules.
    t.case("to the router's link-local address without a rule").enters(LAN1, sent(&PUMP, Ipv6::new(LINK, ROUTER_LINK, syn(22)))).is(NO_RULE);
    t.case("the router's answer to a link-local address").enters(LAN1, asks(&PUMP, LINK)).leaves(LAN1, ROUTER_ITSELF, forwarded(&PUMP, Ipv6::new(ROUTER_LINK, LINK, Udp::new(53, 40_000, *b"data")))).is([RULE, ESTABLISHED]);
    t.case("from the router to a device's link-local address").leaves(LAN1, ROUTER_ITSELF, forwarded(&PUMP, Ipv6::new(ROUTER_LINK, made(&PUMP), syn(80)))).enters(LAN1, sent(&PUMP, Ipv6::new(made(&PUMP), ROUTER_LINK, back(80, SYN | ACK)))).is([RULE, ESTABLISHED]);
    t.case("from the router to a link-local address that a device has claimed").enters(LAN1, probes(&PUMP, LINK)).leaves(LAN1, ROUTER_ITSELF, forwarded(&PUMP, Ipv6::new(ROUTER_LINK, LINK, syn(80)))).is([CONTROL, RULE]);
    t.case("from the router to a link-local address that nobody has").leaves(LAN1, ROUTER_ITSELF, forwarded(&PUMP, Ipv6::new(ROUTER_LINK, LINK, syn(80)))).is(NO_RULE);
    t.case("a protocol between link-local addresses, by rule").enters(LAN1, sent(&PUMP, vrrp(LINK, other))).is(RULE);
    t.case("a protocol from another address, where the rule names link-local ones").enters(LAN1, sent(&PUMP, vrrp(PUMP.v6, other))).is(NO_RULE);
    let all_vrrp: Ipv6Addr = "ff02::12".parse().expect("an address");
    let to_group = Ethernet::new(group_mac(all_vrrp), PUMP.mac, vrrp(LINK, all_vrrp));
    t.case("a group's packet from a link-local address, by rule").enters(LAN1, to_group).is(RULE);
    t.case("from outside, by rule").leaves(LAN1, UPLINK, forwarded(&PUMP, vrrp(other, LINK))).is(RULE);
    t.case("from outside, in a device's link-local address").mirrors(nobody).leaves(LAN1, UPLINK, forwarded(&PINNED, vrrp(made(&PUMP), LINK))).is(SPOOFED_SOURCE);
    t.case("from outside, in the router's").mirrors(nobody).leaves(LAN1, UPLINK, forwarded(&PINNED, vrrp(ROUTER_LINK, LINK))).is(SPOOFED_SOURCE);
    t.case("from outside, advertises a device's").mirrors(nobody).leaves(TRUNK, SIDE, advertises(&STRANGER, STRANGER.v6, made(&PUMP)).tagged(10)).is(ND_SPOOF);
    t.case("to one device's link-local address and another's MAC").leaves(LAN1, UPLINK, forwarded(&PINNED, vrrp(other, made(&PUMP)))).is(MISDIRECTED);
    t.case("to the link-local address that one device has claimed, and another's MAC").enters(LAN1, probes(&PUMP, LINK)).leaves(LAN1, UPLINK, forwarded(&PINNED, vrrp(other, LINK))).is([CONTROL, MISDIRECTED]);
}
