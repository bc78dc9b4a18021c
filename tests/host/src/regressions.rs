//! Faults that random frames once found: frames in order, and the verdict on each. The oracle and
//! the host are checked here, the kernel by the suite.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use wardline_oracle::{
    frames::{
        ACK, Arp, BROADCAST, Ethernet, Extension, Icmp, Ipv4, Ipv6, Mac, PSH, Packet, SYN, Tcp,
        Udp, Upper, group_mac, icmp, icmpv6,
    },
    sequence::{From, Where},
    streams::Step,
};
use wardline_proto::v1::Reason;

use crate::{
    bench::Bench,
    case::{Case, Ingress},
    judge::parsed,
    tally::Tally,
};

const POLICY: &str = r#"
version: 1
zones:
  - {name: pumps, subnets: [10.1.1.0/24, "fd00:1:1::/64"]}
  - {name: watched, subnets: [10.1.2.0/24], mode: observe}
  - {name: parts, subnets: [10.1.3.0/24, "fd00:1:3::/64"], fragments: allow, ip_options: allow}
  - {name: open, subnets: [10.1.4.0/24], admit: any}
ports:
  - {interface: lan1, zone: pumps}
  - {interface: lan2, zone: watched}
  - {interface: lan3, zone: parts, vlans: [{id: 20, zone: open}]}
  - {interface: wifi1, zone: parts}
devices:
  - {name: pump, zone: pumps, macs: ["02:00:00:00:01:01"], addresses: [10.1.1.10, "fd00:1:1::10"]}
  - {name: other, zone: pumps, macs: ["02:00:00:00:01:02"], addresses: [10.1.1.11]}
  - {name: watched, zone: watched, macs: ["02:00:00:00:02:01"], addresses: [10.1.2.10]}
  - {name: parted, zone: parts, macs: ["02:00:00:00:03:01"], addresses: [10.1.3.10, "fd00:1:3::10"]}
  - {name: learner, zone: open, macs: ["02:00:00:00:04:01"]}
rules:
  - {name: open, from: [zone:open], to: [any], services: [udp/514], action: allow}
  - {name: dns, from: [zone:pumps], to: [router], services: [udp/53], action: allow}
  - {name: web, from: [zone:pumps, zone:watched, zone:parts], to: [any], services: [tcp/443], action: allow}
  - {name: sum, from: [zone:parts], to: [any], services: [udp/514], action: allow}
  - {name: odd, from: [zone:pumps], to: [any], services: [icmp/40], action: allow}
"#;

const PUMP: Mac = [2, 0, 0, 0, 1, 1];
const PARTED: Mac = [2, 0, 0, 0, 3, 1];
const WATCHED: Mac = [2, 0, 0, 0, 2, 1];
const LEARNER: Mac = [2, 0, 0, 0, 4, 1];
const STRANGER: Mac = [2, 0, 0, 0, 0xee, 1];
const ROUTER: Mac = [2, 0, 0, 0, 0xff, 1];
const FAR: Mac = [2, 0, 0, 0, 9, 1];

const PUMP_4: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 10);
const OTHER_4: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 11);
const ROUTER_4: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 1);
const PARTED_4: Ipv4Addr = Ipv4Addr::new(10, 1, 3, 10);
const PARTED_6: Ipv6Addr = Ipv6Addr::new(0xfd00, 1, 3, 0, 0, 0, 0, 0x10);
const OPEN: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 1, 4, 5), Ipv4Addr::new(10, 1, 4, 6)];
const FAR_4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
const PUMP_6: Ipv6Addr = Ipv6Addr::new(0xfd00, 1, 1, 0, 0, 0, 0, 0x10);
const FAR_6: Ipv6Addr = Ipv6Addr::new(0xfd00, 9, 9, 0, 0, 0, 0, 1);
const LINK: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x11);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

struct Row {
    name: &'static str,
    frames: Vec<(Where, Vec<u8>, Reason)>,
}

fn enters(interface: &str, mac: Mac, packet: impl Into<Packet>) -> (Where, Vec<u8>) {
    let interface = interface.to_owned();
    let frame = Ethernet::new(ROUTER, mac, packet);
    (Where::Entering { interface }, frame.bytes())
}

/// With the tag of the zone `open`.
fn tagged(interface: &str, mac: Mac, packet: impl Into<Packet>) -> (Where, Vec<u8>) {
    let interface = interface.to_owned();
    let frame = Ethernet::new(ROUTER, mac, packet).tagged(20);
    (Where::Entering { interface }, frame.bytes())
}

/// From an uplink, out of lan1.
fn comes_up(packet: impl Into<Packet>) -> (Where, Vec<u8>) {
    leaves("lan1", From::Uplink, Ethernet::new(PUMP, FAR, packet))
}

fn leaves(interface: &str, from: From, frame: Ethernet) -> (Where, Vec<u8>) {
    let interface = interface.to_owned();
    (Where::Leaving { interface, from }, frame.bytes())
}

/// Padded to Ethernet's minimum.
fn padded((at, mut frame): (Where, Vec<u8>)) -> (Where, Vec<u8>) {
    frame.resize(60, 0);
    (at, frame)
}

fn row<const N: usize>(name: &'static str, frames: [((Where, Vec<u8>), Reason); N]) -> Row {
    let frames = frames
        .into_iter()
        .map(|((at, frame), reason)| (at, frame, reason));
    Row {
        name,
        frames: frames.collect(),
    }
}

#[rustfmt::skip]
fn rows() -> Vec<Row> {
    let pump = |packet: Packet| enters("lan1", PUMP, packet);
    let v4 = |from, to, upper: Upper| Packet::from(Ipv4::new(from, to, upper));
    let tcp = |from, to, flags| Upper::from(Tcp::new(from, to, flags));
    let udp = |from, to| Upper::from(Udp::new(from, to, *b"wardline"));
    let odd = |kind| Upper::Icmp(Icmp::new(kind, 0, vec![0; 8]));
    let discovery = |source, upper| Packet::from(Ipv6 { hop_limit: 255, ..Ipv6::new(source, ALL_NODES, upper) });
    let short_arp = |mac| {
        let (at, mut frame) = enters("lan1", mac, Arp::request(mac, PUMP_4, OTHER_4));
        frame.truncate(30);
        (at, frame)
    };
    let parts = Ipv4::new(PARTED_4, FAR_4, Udp::new(4000, 514, [7; 40])).fragmented(24);
    let other_parts = Ipv4::new(PARTED_4, FAR_4, Udp::new(4001, 514, [7; 40])).fragmented(24);
    // Eight bytes of a header that claims to have sixteen.
    let chain = |number| Ipv6::new(PARTED_6, FAR_6, Upper::Bytes(number, vec![17, 1, 1, 12, 0, 0, 0, 0])).with(Extension::fragment(0, true, 7));
    vec![
        row("an uplink does not speak as the router, also within a flow", [
            (pump(v4(PUMP_4, ROUTER_4, udp(4000, 53))), Reason::Rule),
            (comes_up(v4(ROUTER_4, PUMP_4, udp(53, 4000))), Reason::SpoofedSource),
        ]),
        row("an uplink does not speak as a device that has not answered yet", [
            (pump(v4(PUMP_4, OTHER_4, tcp(4000, 443, SYN))), Reason::Rule),
            (comes_up(v4(OTHER_4, PUMP_4, tcp(443, 4000, SYN | ACK))), Reason::SpoofedSource),
        ]),
        row("observe passes what has no place in a flow that is allowed", [
            (enters("lan2", WATCHED, v4(Ipv4Addr::new(10, 1, 2, 10), FAR_4, tcp(4000, 443, SYN))), Reason::Rule),
            (enters("lan2", WATCHED, v4(Ipv4Addr::new(10, 1, 2, 10), FAR_4, tcp(4000, 443, ACK | PSH))), Reason::Observed),
        ]),
        row("of two faults of form the first of the contract's list counts, not the first in the packet", [
            (pump(Ipv4 { options: vec![7, 3, 4, 0], ..Ipv4::new(PUMP_4, FAR_4, Tcp { header_words: Some(4), ..Tcp::new(4000, 443, SYN) }) }.into()), Reason::Malformed),
        ]),
        row("a short ARP header is malformed, whoever sends it", [
            (short_arp(STRANGER), Reason::Malformed),
        ]),
        row("an IPv4-mapped source waits until the sender is known", [
            (enters("lan1", STRANGER, Ipv6::new(PUMP_4.to_ipv6_mapped(), FAR_6, Tcp::new(4000, 443, SYN))), Reason::UnknownDevice),
        ]),
        row("nobody advertises from no address", [
            (pump(discovery(Ipv6Addr::UNSPECIFIED, icmpv6::neighbour_advertisement(PUMP_6, 0x20, &[]))), Reason::SpoofedSource),
        ]),
        row("a rule for one ICMP type opens no way for another", [
            (pump(v4(PUMP_4, FAR_4, odd(40))), Reason::Rule),
            (pump(v4(PUMP_4, FAR_4, odd(41))), Reason::NoRule),
            (comes_up(v4(FAR_4, PUMP_4, odd(41))), Reason::NoRule),
            (pump(v4(PUMP_4, FAR_4, odd(40))), Reason::Established),
        ]),
        row("an answer to a link-local address needs a flow as any other", [
            (pump(Ipv6::new(PUMP_6, LINK, icmpv6::reply(1, 1)).into()), Reason::MidFlow),
            (pump(Ipv6::new(PUMP_6, LINK, Tcp::new(4000, 443, ACK)).into()), Reason::MidFlow),
        ]),
        row("an echo reply has one code", [
            (pump(v4(PUMP_4, FAR_4, icmp::reply(1, 1))), Reason::MidFlow),
            (pump(v4(PUMP_4, FAR_4, Upper::Icmp(Icmp::new(0, 1, vec![0; 8])))), Reason::NoRule),
        ]),
        row("padding is no part of a header that a first fragment cuts", [
            (padded(enters("lan3", PARTED, Ipv4::new(PARTED_4, FAR_4, Tcp::new(4000, 443, SYN)).fragmented(8)[0].clone())), Reason::Fragment),
            (padded(pump(Ipv4::new(PUMP_4, FAR_4, Tcp::new(4000, 443, SYN)).fragmented(8)[0].clone().into())), Reason::Fragment),
        ]),
        row("a first fragment that ends within its headers does not lie", [
            (enters("lan3", PARTED, chain(60)), Reason::Fragment),
            (enters("lan3", PARTED, chain(0)), Reason::ExtensionHeader),
        ]),
        row("a part with a VLAN that its port has not", [
            (leaves("lan3", From::Guarded("lan1".to_owned()), Ethernet::new(PARTED, ROUTER, parts[1].clone()).tagged(9)), Reason::WrongVlan),
        ]),
        row("an address that an unlisted MAC uses is not free, and keeps its flows", [
            (tagged("lan3", STRANGER, Ipv4::new(OPEN[0], OPEN[1], Udp::new(4000, 514, *b"x"))), Reason::Rule),
            (tagged("lan3", LEARNER, Ipv4::new(OPEN[0], FAR_4, Udp::new(4000, 514, *b"x"))), Reason::SpoofedSource),
            (tagged("lan3", LEARNER, Ipv4::new(OPEN[1], OPEN[0], Udp::new(514, 4000, *b"x"))), Reason::Established),
        ]),
        row("a part with an IPv4-mapped source does not leave either", [
            (leaves("lan3", From::Guarded("wifi1".to_owned()), Ethernet::new(PARTED, ROUTER, Ipv6::new(PUMP_4.to_ipv6_mapped(), PARTED_6, Upper::Bytes(17, vec![0; 16])).with(Extension::fragment(4, true, 7)))), Reason::SpoofedSource),
        ]),
        row("the options of discovery from an IPv4-mapped source do not matter", [
            (pump(discovery(PUMP_4.to_ipv6_mapped(), icmpv6::neighbour_advertisement(PUMP_6, 0x20, &[[2, 0, 0, 0, 0, 0, 0, 0]]))), Reason::SpoofedSource),
            (pump(discovery(PUMP_6, icmpv6::neighbour_advertisement(PUMP_6, 0x20, &[[2, 0, 0, 0, 0, 0, 0, 0]]))), Reason::Malformed),
        ]),
        row("what is dropped for a second first part leaves no flow behind", [
            (enters("lan3", PARTED, parts[0].clone()), Reason::Rule),
            (enters("lan3", PARTED, other_parts[0].clone()), Reason::Fragment),
            (enters("lan3", PARTED, parts[1].clone()), Reason::Fragment),
        ]),
        row("parts follow through the port that their first part left through", [
            (leaves("lan3", From::Router, Ethernet::new(PARTED, ROUTER, Ipv4::new(ROUTER_4, PARTED_4, Udp::new(53, 53, *b"wardline")))), Reason::NoRule),
            (enters("lan3", PARTED, parts[0].clone()), Reason::Rule),
            (enters("wifi1", PARTED, parts[1].clone()), Reason::Fragment),
        ]),
        row("discovery to a host that is no neighbour is none, and has a source", [
            (enters("lan3", PARTED, Ipv6 { hop_limit: 255, ..Ipv6::new(Ipv6Addr::UNSPECIFIED, FAR_6, icmpv6::router_solicitation(&[])) }), Reason::SpoofedSource),
        ]),
        row("only who asks for an address has none: no DHCP server, no DHCPv6 client", [
            (pump(v4(Ipv4Addr::UNSPECIFIED, FAR_4, udp(67, 68))), Reason::SpoofedSource),
            (pump(Ipv6::new(Ipv6Addr::UNSPECIFIED, ALL_NODES, Udp::new(546, 547, *b"wardline")).into()), Reason::SpoofedSource),
        ]),
        row("an uplink's ARP does not claim a group", [
            (comes_up(Arp::reply(FAR, Ipv4Addr::new(224, 0, 0, 251), PUMP, PUMP_4)), Reason::ArpSpoof),
        ]),
        row("discovery to everybody and ARP still pass", [
            ((Where::Entering { interface: "lan1".to_owned() },
              Ethernet::new(BROADCAST, PUMP, Arp::request(PUMP, PUMP_4, OTHER_4)).bytes()), Reason::Control),
            ((Where::Entering { interface: "lan1".to_owned() },
              Ethernet::new(group_mac(ALL_NODES), PUMP, discovery(PUMP_6, icmpv6::neighbour_advertisement(PUMP_6, 0x20, &[icmpv6::target_link(PUMP)]))).bytes()), Reason::Control),
        ]),
    ]
}

/// The router's only address in these rows.
pub const ROUTERS: [IpAddr; 1] = [IpAddr::V4(ROUTER_4)];

/// Where the judges of a bench differ from the rows.
pub fn wrong(bench: &mut Bench) -> Vec<String> {
    let policy = parsed(POLICY);
    let mut wrong = Vec::new();
    for Row { name, frames } in rows() {
        let mut oracle = bench.oracle(&policy);
        for (number, (at, frame, reason)) in frames.iter().enumerate() {
            let must = oracle.judge(at, None, frame);
            if must.reason != *reason {
                wrong.push(format!(
                    "{name}: the oracle says {must:?} of frame {number}"
                ));
            }
        }
        let steps = frames.into_iter().map(|(at, frame, _)| Step {
            at,
            tag: None,
            frame,
        });
        let steps: Vec<Step> = steps.collect();
        for ingress in [Ingress::Xdp, Ingress::Tc] {
            let case = Case::written(policy.clone(), steps.clone(), ingress);
            let mut tally = Tally::default();
            if let Err(mismatch) = bench.run(&case, &mut tally) {
                wrong.push(format!("{name}: {ingress:?}: {}", mismatch.text));
            }
            wrong.extend(tally.left().map(|left| format!("{name}: left at {left}")));
        }
    }
    wrong
}

const ROUTER_6: Ipv6Addr = Ipv6Addr::new(0xfd00, 1, 1, 0, 0, 0, 0, 1);

/// The router's only address, for [`wrong_of_the_failsafe`].
pub const ROUTERS_6: [IpAddr; 1] = [IpAddr::V6(ROUTER_6)];

/// Where the judges of a bench are wrong on frames that a failsafe must not admit, as their source
/// is no address of a host.
pub fn wrong_of_the_failsafe(bench: &mut Bench) -> Vec<String> {
    let policy = parsed(POLICY);
    // Duplicate detection for the router's own address: the router would give the address up.
    let probe = icmpv6::neighbour_solicitation(ROUTER_6, &[]);
    let probe = Ipv6 {
        hop_limit: 255,
        ..Ipv6::new(Ipv6Addr::UNSPECIFIED, ALL_NODES, probe)
    };
    // An IPv4-mapped address, which no router has.
    let mapped = Ipv6::new(
        ROUTER_4.to_ipv6_mapped(),
        PUMP_6,
        Tcp::new(443, 4000, SYN | ACK),
    );
    let mapped = Ethernet::new(PUMP, ROUTER, mapped);
    let frames = [
        (enters("lan1", PUMP, probe), Reason::NdSpoof),
        (leaves("lan1", From::Router, mapped), Reason::SpoofedSource),
    ];
    let mut wrong = Vec::new();
    for ((at, frame), reason) in frames {
        let mut oracle = bench.oracle(&policy);
        oracle.spare(vec![("::/0".to_owned(), "tcp/443".to_owned())]);
        let must = oracle.judge(&at, None, &frame);
        if must.reason != reason {
            wrong.push(format!("{reason:?}: the oracle says {must:?}"));
        }
        let steps = vec![Step {
            at,
            tag: None,
            frame,
        }];
        for ingress in [Ingress::Xdp, Ingress::Tc] {
            let case = Case::written(policy.clone(), steps.clone(), ingress);
            let case = case.sparing("::/0", "tcp/443");
            if let Err(mismatch) = bench.run(&case, &mut Tally::default()) {
                wrong.push(format!("{reason:?}: {ingress:?}: {}", mismatch.text));
            }
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_wrong_once_is_right() {
        let wrong = wrong(&mut Bench::host(&ROUTERS));
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[test]
    fn the_failsafe_does_not_admit_who_has_no_address() {
        let wrong = wrong_of_the_failsafe(&mut Bench::host(&ROUTERS_6));
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}
