//! The internet, address by address: the tables hold what IANA's registries say.

use std::net::{IpAddr, Ipv6Addr};

use wardline_ebpf::abi::Reason;
use wardline_oracle::{
    link,
    oracle::{Asks, Entry, Expected, Oracle, Probe, registry},
    random::NOW,
};

use crate::{
    bench::INTERFACES,
    judge::{self, Compiled},
};

const ROUTER: [IpAddr; 2] = [
    IpAddr::V4(std::net::Ipv4Addr::new(9, 9, 9, 1)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0, 0, 1, 0, 0, 0, 1)),
];

const POLICY: &str = r#"version: 1
zones:
  - {name: pumps, subnets: [10.20.1.0/24, "fd20:0:0:1::/64"]}
  - {name: others, subnets: SUBNETS}
ports: [{interface: lan1, zone: pumps}]
devices:
  - {name: pump, zone: pumps, macs: ["02:00:00:00:01:01"], addresses: [10.20.1.11, "fd20:0:0:1::11"]}
  - {name: server, zone: others, addresses: [198.17.255.255, "2001:4:112::"]}
rules:
  - {name: out, from: [zone:pumps], to: [internet], services: [udp/53], action: allow}
  - {name: part, from: [zone:pumps], to: NETWORKS, services: [udp/54], action: allow}
"#;

#[test]
fn host_and_oracle_agree_at_every_edge_of_the_registries() {
    let edges = registry::edges();
    let through = edges.iter().filter_map(|edge| match edge {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets().map(u16::from);
            let (high, low) = (a << 8 | b, c << 8 | d);
            Some(Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low).into())
        }
        IpAddr::V6(_) => None,
    });
    let edges: Vec<IpAddr> = edges.iter().copied().chain(through).chain(ROUTER).collect();
    let (mut passed, mut dropped) = (0, 0);
    for (subnets, networks) in [
        ("[10.0.0.0/8]", "[router]"),
        (
            "[192.0.0.0/8, \"2001::/16\"]",
            "[\"cidr:0.0.0.0/0\", \"cidr:::/0\"]",
        ),
        (
            "[192.0.0.8/29, 1.0.0.0/8]",
            "[\"cidr:192.0.0.0/9\", \"cidr:64:ff9b::/32\"]",
        ),
        ("[\"::/0\"]", "[\"cidr:192.31.196.0/25\", any]"),
        ("[0.0.0.0/0]", "[\"cidr:2001::/22\", internet]"),
    ] {
        let text = POLICY
            .replace("SUBNETS", subnets)
            .replace("NETWORKS", networks);
        let policy = judge::parsed(&text);
        let inventory = judge::inventory(&INTERFACES, &ROUTER);
        let compiled = Compiled::new(&policy, &inventory, judge::clock(NOW));
        let oracle = Oracle::new(&policy, &ROUTER);
        // What is malformed, or is judged as a group, is no question of the internet.
        let addresses = edges.iter().filter(|it| {
            let is_odd = match it {
                IpAddr::V4(v4) => v4.is_broadcast(),
                IpAddr::V6(v6) => v6.to_ipv4_mapped().is_some() || link::is_odd(**it),
            };
            !(is_odd || it.is_multicast() || it.is_loopback() || it.is_unspecified())
        });
        for (address, port) in addresses.flat_map(|it| [(it, 53), (it, 54)]) {
            let source = if address.is_ipv4() {
                "10.20.1.11"
            } else {
                "fd20:0:0:1::11"
            };
            let probe = Probe {
                entry: Entry::Guarded {
                    interface: "lan1".to_owned(),
                    vlan: 0,
                    mac: [2, 0, 0, 0, 1, 1],
                },
                source: source.parse().unwrap(),
                destination: *address,
                asks: Asks::Udp(port),
                now: NOW,
            };
            let (at, frame) = judge::shown(&compiled, &probe, 40_000).unwrap();
            let said = judge::host(&judge::model(&compiled), at, &frame);
            let expected = oracle.judge(&probe);
            let allowed = matches!(expected, Expected::Allowed(_));
            assert_eq!(
                said.passed, allowed,
                "{address} udp/{port}: {said:?}\n{text}"
            );
            assert_eq!(said.reason == Reason::Rule, allowed, "{address}: {said:?}");
            if allowed { passed += 1 } else { dropped += 1 }
        }
    }
    assert!(
        passed > 300 && dropped > 300,
        "{passed} pass, {dropped} are dropped"
    );
}
