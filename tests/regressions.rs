//! What random frames once found wrong: frames in their order, and what must become of each by the
//! oracle, on the host, and in the kernel by XDP and by TC.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use wardline_controller::datapath::Hook;
use wardline_proto::{document, v1::Reason};

use crate::{
    frames::{
        ACK, Arp, BROADCAST, Ethernet, Icmp, Ipv4, Ipv6, Mac, PSH, Packet, SYN, Tcp, Udp, Upper,
        group_mac, icmp, icmpv6,
    },
    fuzz::{Bench, Case, Tally, in_namespace},
    sequence::{From, Where},
    streams::Step,
};

const POLICY: &str = r#"
version: 1
zones:
  - {name: pumps, subnets: [10.1.1.0/24, "fd00:1:1::/64"]}
  - {name: watched, subnets: [10.1.2.0/24], mode: observe}
ports:
  - {interface: lan1, zone: pumps}
  - {interface: lan2, zone: watched}
devices:
  - {name: pump, zone: pumps, macs: ["02:00:00:00:01:01"], addresses: [10.1.1.10, "fd00:1:1::10"]}
  - {name: other, zone: pumps, macs: ["02:00:00:00:01:02"], addresses: [10.1.1.11]}
  - {name: watched, zone: watched, macs: ["02:00:00:00:02:01"], addresses: [10.1.2.10]}
rules:
  - {name: dns, from: [zone:pumps], to: [router], services: [udp/53], action: allow}
  - {name: web, from: [zone:pumps, zone:watched], to: [any], services: [tcp/443], action: allow}
  - {name: odd, from: [zone:pumps], to: [any], services: [icmp/40], action: allow}
"#;

const PUMP: Mac = [2, 0, 0, 0, 1, 1];
const WATCHED: Mac = [2, 0, 0, 0, 2, 1];
const STRANGER: Mac = [2, 0, 0, 0, 0xee, 1];
const ROUTER: Mac = [2, 0, 0, 0, 0xff, 1];
const FAR: Mac = [2, 0, 0, 0, 9, 1];

const PUMP_4: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 10);
const OTHER_4: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 11);
const ROUTER_4: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 1);
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

/// From an uplink, out of lan1.
fn comes_up(packet: impl Into<Packet>) -> (Where, Vec<u8>) {
    let at = Where::Leaving {
        interface: "lan1".to_owned(),
        from: From::Uplink,
    };
    (at, Ethernet::new(PUMP, FAR, packet).bytes())
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
        row("link-local traffic is of no rule, an answer and an error as well", [
            (pump(Ipv6::new(PUMP_6, LINK, icmpv6::reply(1, 1)).into()), Reason::NoRule),
            (pump(Ipv6::new(PUMP_6, LINK, Tcp::new(4000, 443, ACK)).into()), Reason::NoRule),
        ]),
        row("an echo reply has one code", [
            (pump(v4(PUMP_4, FAR_4, icmp::reply(1, 1))), Reason::MidFlow),
            (pump(v4(PUMP_4, FAR_4, Upper::Icmp(Icmp::new(0, 1, vec![0; 8])))), Reason::NoRule),
        ]),
        row("discovery to everybody and ARP still pass", [
            ((Where::Entering { interface: "lan1".to_owned() },
              Ethernet::new(BROADCAST, PUMP, Arp::request(PUMP, PUMP_4, OTHER_4)).bytes()), Reason::Control),
            ((Where::Entering { interface: "lan1".to_owned() },
              Ethernet::new(group_mac(ALL_NODES), PUMP, discovery(PUMP_6, icmpv6::neighbour_advertisement(PUMP_6, 0x20, &[icmpv6::target_link(PUMP)]))).bytes()), Reason::Control),
        ]),
    ]
}

#[test]
fn what_was_wrong_once_is_right() {
    let (policy, problems) = document::parse(POLICY);
    assert!(problems.is_empty(), "{problems:?}");
    let wrong = in_namespace("regressions", || {
        let mut bench = Bench::with_kernel(&[IpAddr::V4(ROUTER_4)]);
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
            for hook in [Hook::Xdp, Hook::TcIngress] {
                let case = Case::written(policy.clone(), steps.clone(), hook);
                let mut tally = Tally::default();
                if let Err(mismatch) = bench.run(&case, &mut tally) {
                    wrong.push(format!("{name}: {hook:?}: {}", mismatch.text));
                }
                wrong.extend(tally.left().map(|left| format!("{name}: left at {left}")));
            }
        }
        wrong
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
