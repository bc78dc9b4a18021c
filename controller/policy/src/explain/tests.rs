//! Explanations for a clinic of pumps, cameras and phones.

mod evidence;

use std::sync::Arc;

use jiff::Timestamp;
use wardline_proto::document;

use super::*;
use crate::{
    clock::Clock,
    compile,
    intent::Intent,
    inventory::{Inventory, Link},
    limits::Limits,
    numbers::{self, Ids, number_of},
    words::mac::Mac,
};

const POLICY: &str = r#"
version: 1
zones:
  - {name: pumps, subnets: [10.20.1.0/24, "fd20:0:0:1::/64"]}
  - {name: cameras, subnets: [10.20.2.0/24]}
  - {name: lab, mode: observe, admit: any, subnets: [10.20.3.0/24]}
  - {name: phones, subnets: [10.20.4.0/24]}
  - {name: ghosts, subnets: [10.20.5.0/24]}
  - {name: records, subnets: [10.20.9.0/24, "fd20:0:0:9::/64"]}
  - {name: internet, subnets: [0.0.0.0/0]}
ports:
  - {interface: pump*, zone: pumps}
  - {interface: cam*, zone: cameras}
  - {interface: trunk, vlans: [{id: 20, zone: cameras}, {id: 30, zone: lab}, {id: 40, zone: phones}]}
  - {interface: gone, zone: ghosts}
devices:
  - {name: pump-1, zone: pumps, macs: ["02:00:00:00:01:11"], addresses: [10.20.1.11, "fd20:0:0:1::11"], port: pump1}
  - {name: pump-2, zone: pumps, macs: ["02:00:00:00:01:12"], addresses: [10.20.1.12], learn: false}
  - {name: camera-1, zone: cameras, macs: ["02:00:00:00:02:21"], addresses: [10.20.2.21]}
  - {name: camera-2, zone: cameras, macs: ["02:00:00:00:02:22"], addresses: [10.20.2.22]}
  - {name: phone-1, zone: phones, macs: ["02:00:00:00:04:41"]}
  - {name: phone-2, zone: phones, macs: ["02:00:00:00:04:42"]}
  - {name: ehr, zone: records, addresses: [10.20.9.10, "fd20:0:0:9::10"]}
services:
  - {name: hl7, ports: [tcp/2575]}
  - {name: ping, ports: [icmp/8, icmpv6/128]}
  - {name: media, ports: [udp/5000-5100]}
rules:
  - {name: pumps-to-ehr, from: [zone:pumps], to: [device:ehr], services: [hl7, ping], action: allow}
  - {name: any-to-ehr-web, from: [any], to: [device:ehr], services: [tcp/443], action: allow}
  - {name: cameras-stay, from: [zone:cameras], to: [any], services: [tcp/443], action: deny}
  - {name: router-watches, from: [router], to: [zone:cameras], services: [tcp/554], action: allow}
  - {name: router-announces, from: [router], to: ["cidr:224.0.0.18/32", "cidr:ff02::12/128"], services: [proto/112], action: allow}
  - {name: ask-router, from: [zone:pumps], to: [router], services: [udp/53], action: allow}
  - {name: ehr-calls, from: [device:ehr], to: [zone:pumps], services: [tcp/22], action: allow}
  - {name: pump-pump, from: [zone:pumps], to: [zone:pumps], services: [ping], action: allow}
  - {name: phone-talk, from: [device:phone-1], to: [device:phone-2], services: [media], action: allow}
  - {name: old, from: [zone:pumps], to: [device:ehr], services: [tcp/80], action: allow, expires: "2020-01-01T00:00:00Z"}
"#;

impl<const N: usize> Learned for [(IpAddr, u32); N] {
    fn device(&self, address: Address) -> Option<u32> {
        let address = IpAddr::from(address);
        let known = self.iter().find(|(known, _)| *known == address);
        known.map(|(_, device)| *device)
    }

    fn addresses(&self, device: u32) -> Vec<IpAddr> {
        let known = self.iter().filter(|(_, of)| *of == device);
        known.map(|(address, _)| *address).collect()
    }

    fn seen(&self, _device: u32) -> Option<u32> {
        None
    }

    fn learned_at(&self, _address: Address) -> Option<u32> {
        None
    }

    fn names(&self, _address: Address) -> Vec<(u32, u32)> {
        Vec::new()
    }

    fn named(&self, _selector: u32) -> Vec<(IpAddr, u32)> {
        Vec::new()
    }
}

#[test]
fn a_link_local_address_reaches_the_routers() {
    // It is made of the MAC of pump-1.
    let answer = ask("fe80::ff:fe00:111", "router", "udp/53").unwrap();
    assert_eq!(answer.rule, "ask-router", "{}", answer.packet);
    assert_eq!(answer.source_zone, "pumps");
}

#[test]
fn allows_what_a_rule_allows_and_says_which() {
    let answer = ask("device:pump-1", "device:ehr", "hl7").unwrap();
    assert!(answer.passes());
    assert_eq!(answer.reason, Reason::Rule);
    assert_eq!(answer.rule, "pumps-to-ehr");
    assert_eq!(answer.source_zone, "pumps");
    assert_eq!(answer.destination_zone, "records");
    assert_eq!(answer.revision, 7);
    assert_eq!(
        answer.packet,
        "tcp 10.20.1.11:49152 → 10.20.9.10:2575 from 02:00:00:00:01:11, entering pump1"
    );
}

#[test]
fn drops_what_no_rule_allows() {
    drops("device:pump-1", "device:ehr", "tcp/22", Reason::NoRule, "");
    drops(
        "device:pump-1",
        "device:camera-1",
        "hl7",
        Reason::NoRule,
        "",
    );
}

#[test]
fn a_label_is_represented_by_a_device_that_has_it() {
    let policy = POLICY
        .replace(
            "{name: cameras, subnets",
            "{name: cameras, labels: {kind: eye}, subnets",
        )
        .replace("port: pump1}", "port: pump1, labels: {ward: '3'}}")
        + "  - {name: seen, from: ['label:ward=3'], to: ['label:kind=eye'], services: [tcp/554], \
           action: allow}\n";
    let snapshot = snapshot_of(&policy, BTreeSet::new());
    let ask = |from: &str, to: &str| {
        let question = Question {
            from: from.to_owned(),
            to: to.to_owned(),
            service: "tcp/554".to_owned(),
            ..Question::default()
        };
        explain(&snapshot, &question, &[], 1)
    };
    let answer = ask("label:ward=3", "label:kind=eye").unwrap();
    assert_eq!(
        (answer.reason, answer.rule.as_str()),
        (Reason::Rule, "seen")
    );
    assert!(
        answer.packet.contains("10.20.1.11:49152 → 10.20.2.21:554"),
        "{answer:?}"
    );
    // No rule names this one, and nobody has the next.
    let other = ask("device:pump-2", "label:kind=eye").unwrap();
    assert_eq!(other.reason, Reason::NoRule);
    let problem = problem_of(ask("label:ward=4", "any"));
    assert_eq!(
        problem.to_string(),
        "from: a device with label ward=4 has no address to explain with"
    );
}

#[test]
fn a_service_of_the_catalogue_is_asked_for_by_its_name() {
    let answer = ask("device:pump-1", "device:ehr", "https").unwrap();
    assert_eq!(
        (answer.reason, answer.rule.as_str()),
        (Reason::Rule, "any-to-ehr-web")
    );
    assert_eq!(
        problem_of(ask("device:pump-1", "device:ehr", "htps")).path,
        "service"
    );
}

#[test]
fn drops_what_a_rule_denies_and_says_which() {
    drops(
        "device:camera-1",
        "device:ehr",
        "tcp/443",
        Reason::DeniedByRule,
        "cameras-stay",
    );
}

#[test]
fn drops_by_a_rule_that_has_expired() {
    drops(
        "device:pump-1",
        "device:ehr",
        "tcp/80",
        Reason::Expired,
        "old",
    );
}

#[test]
fn a_device_on_a_port_that_is_not_its_own_is_dropped_there() {
    let at = |from: &str, port: &str| {
        let answer = ask_at(from, "device:ehr", "hl7", port).unwrap();
        assert!(!answer.passes());
        answer.reason
    };
    assert_eq!(at("device:pump-1", "pump2"), Reason::WrongPort);
    assert_eq!(at("device:pump-1", "cam1"), Reason::WrongPort);
    assert_eq!(at("device:pump-1", "trunk"), Reason::WrongPort);
    assert_eq!(at("device:camera-1", "cam1"), Reason::NoRule);
    // A guarded device's address can't be on the far side of the router.
    assert_eq!(
        ask_at("device:pump-1", "device:pump-2", "ping", "up")
            .unwrap()
            .reason,
        { Reason::SpoofedSource }
    );
}

#[test]
fn an_address_of_a_guarded_zone_that_no_device_has_is_an_unknown_device() {
    drops("10.20.1.99", "device:ehr", "hl7", Reason::UnknownDevice, "");
    // The lab admits any MAC, but only with the lab's addresses.
    let answer = ask_at("10.20.9.77", "device:ehr", "hl7", "trunk").unwrap();
    assert_eq!(answer.reason, Reason::UnknownDevice);
    let answer = ask_at("10.20.3.5", "device:ehr", "tcp/443", "trunk").unwrap();
    assert_eq!(
        (answer.reason, answer.rule.as_str()),
        (Reason::Rule, "any-to-ehr-web")
    );
    assert!(
        answer
            .packet
            .ends_with("from 02:00:5e:00:53:00, entering trunk on VLAN 30")
    );
}

#[test]
fn what_the_router_sends_to_a_group_is_judged_at_a_port() {
    for group in ["224.0.0.18", "ff02::12"] {
        for port in ["pump1", "trunk"] {
            let answer = ask_at("router", group, "proto/112", port).unwrap();
            let told = (answer.reason, answer.rule.as_str());
            assert_eq!(
                told,
                (Reason::Rule, "router-announces"),
                "{}",
                answer.packet
            );
            let place = format!("from the router, leaving through {port}");
            assert!(answer.packet.contains(&place), "{}", answer.packet);
        }
        let answer = ask_at("router", group, "proto/89", "pump1").unwrap();
        assert_eq!(answer.reason, Reason::NoRule, "{}", answer.packet);
        for port in ["", "up", "nowhere"] {
            let problem = problem_of(ask_at("router", group, "proto/112", port));
            assert_eq!(problem.path, "port", "{problem}");
        }
    }
}

#[test]
fn the_router_is_judged_where_its_packets_leave() {
    let answer = ask("router", "device:camera-1", "tcp/554").unwrap();
    assert_eq!(
        (answer.reason, answer.rule.as_str()),
        (Reason::Rule, "router-watches")
    );
    assert_eq!(answer.source_zone, "");
    assert_eq!(
        answer.packet,
        "tcp 10.20.1.1:49152 → 10.20.2.21:554 from the router, leaving through cam1"
    );
    drops("router", "device:camera-1", "tcp/80", Reason::NoRule, "");
    // Named by its address it is the router too.
    assert_eq!(
        ask("10.20.2.1", "device:camera-1", "tcp/554").unwrap().rule,
        "router-watches"
    );
    let answer = ask("device:pump-2", "router", "udp/53").unwrap();
    assert_eq!(answer.rule, "ask-router");
    assert_eq!(
        problem_of(ask_at("router", "device:camera-1", "tcp/554", "cam1")).path,
        "port"
    );
}

#[test]
fn what_comes_from_the_uplink_is_judged_where_it_leaves() {
    let answer = ask("device:ehr", "device:pump-1", "tcp/22").unwrap();
    assert_eq!(
        (answer.reason, answer.rule.as_str()),
        (Reason::Rule, "ehr-calls")
    );
    assert_eq!(
        answer.packet,
        "tcp 10.20.9.10:49152 → 10.20.1.11:22 from elsewhere, leaving through pump1"
    );
    drops("8.8.8.8", "device:pump-1", "tcp/22", Reason::NoRule, "");
    // It is the same when the question names the uplink.
    let answer = ask_at("device:ehr", "device:pump-1", "tcp/22", "up").unwrap();
    assert_eq!(answer.rule, "ehr-calls");
}

#[test]
fn any_is_an_address_that_nothing_names() {
    let answer = ask("device:pump-1", "any", "tcp/443").unwrap();
    assert_eq!((answer.reason, answer.destination_zone.as_str()), {
        (Reason::NoRule, "internet")
    });
    assert!(
        answer.packet.contains("→ 203.0.113.1:443"),
        "{}",
        answer.packet
    );
    drops(
        "device:camera-1",
        "any",
        "tcp/443",
        Reason::DeniedByRule,
        "cameras-stay",
    );
    drops("any", "zone:pumps", "tcp/443", Reason::NoRule, "");
}

/// The clinic with `internet` in place of the zone for everything.
fn with_internet(policy: &str) -> String {
    let policy = policy.replace("  - {name: internet, subnets: [0.0.0.0/0]}\n", "");
    policy
        + "  - {name: browse, from: [zone:cameras, zone:pumps], to: [internet], services: [tcp/80], \
           action: allow}\n"
}

#[test]
fn the_internet_is_a_public_address_that_is_nobodys() {
    let asked = |policy: &str, from: &str, to: &str| {
        let question = Question {
            from: from.into(),
            to: to.into(),
            service: "tcp/80".into(),
            ..Question::default()
        };
        let snapshot = snapshot_of(policy, BTreeSet::new());
        let answer = explain(&snapshot, &question, &[], 1);
        answer.map(|answer| (answer.reason, answer.rule, answer.packet))
    };
    let policy = with_internet(POLICY);
    let (reason, rule, packet) = asked(&policy, "device:pump-1", "internet").unwrap();
    assert_eq!((reason, rule.as_str()), (Reason::Rule, "browse"));
    assert!(packet.contains("→ 192.31.196.1:80"), "{packet}");
    let (reason, rule, _) = asked(&policy, "internet", "device:pump-1").unwrap();
    assert_eq!((reason, rule.as_str()), (Reason::NoRule, ""));
    let (reason, _, packet) = asked(&policy, "fd20:0:0:1::11", "internet").unwrap();
    assert_eq!(reason, Reason::Rule);
    assert!(packet.contains("→ [2001:4:112::1]:80"), "{packet}");
    // What is public by no registry is `any` only.
    let (reason, _, packet) = asked(&policy, "device:pump-1", "any").unwrap();
    assert_eq!(reason, Reason::NoRule);
    assert!(packet.contains("→ 203.0.113.1:80"), "{packet}");

    // An address that a rule names more narrowly does not represent it, unless there is no other.
    let narrow = policy.clone()
        + "  - {name: no, from: [any], to: [\"cidr:192.31.196.0/24\"], action: deny}\n";
    let (reason, _, packet) = asked(&narrow, "device:pump-1", "internet").unwrap();
    assert_eq!(reason, Reason::Rule);
    assert!(packet.contains("→ 1.0.0.1:80"), "{packet}");
    let wide = policy + "  - {name: no, from: [any], to: [\"cidr:0.0.0.0/0\"], action: deny}\n";
    let (reason, rule, _) = asked(&wide, "device:pump-1", "internet").unwrap();
    assert_eq!((reason, rule.as_str()), (Reason::DeniedByRule, "no"));

    // The zone with all of IPv4 leaves none of it.
    let problem = problem_of(ask("device:camera-1", "internet", "tcp/80"));
    assert_eq!(problem.path, "to");
}

#[test]
fn a_prefix_is_represented_by_its_first_usable_address() {
    let answer = ask("cidr:10.20.9.0/24", "device:pump-1", "tcp/22").unwrap();
    assert!(
        answer.packet.starts_with("tcp 10.20.9.1:49152 →"),
        "{}",
        answer.packet
    );
    let answer = ask("device:pump-1", "cidr:0.0.0.0/0", "tcp/22").unwrap();
    assert!(
        answer.packet.contains("→ 203.0.113.1:22"),
        "{}",
        answer.packet
    );
}

#[test]
fn ends_of_both_families_use_ipv4_and_ends_of_one_use_it() {
    let answer = ask("fd20:0:0:1::11", "device:ehr", "ping").unwrap();
    assert_eq!(
        (answer.reason, answer.rule.as_str()),
        (Reason::Rule, "pumps-to-ehr")
    );
    assert_eq!(
        answer.packet,
        "icmpv6/128 fd20:0:0:1::11 → fd20:0:0:9::10 from 02:00:00:00:01:11, entering pump1"
    );
    let answer = ask("fd20:0:0:1::11", "device:ehr", "hl7").unwrap();
    assert!(
        answer
            .packet
            .starts_with("tcp [fd20:0:0:1::11]:49152 → [fd20:0:0:9::10]:2575 ")
    );
    assert!(answer.passes());
    let answer = ask("device:pump-1", "device:ehr", "ping").unwrap();
    assert!(answer.packet.starts_with("icmp/8 10.20.1.11 → 10.20.9.10"));
    assert!(answer.passes());
    let answer = ask("device:pump-1", "device:ehr", "icmpv6/128").unwrap();
    assert!(answer.packet.starts_with("icmpv6/128 fd20:0:0:1::11"));
    assert_eq!(
        problem_of(ask("fd20:0:0:1::11", "device:pump-2", "hl7")).path,
        "to"
    );
    assert_eq!(
        problem_of(ask("device:pump-2", "device:ehr", "icmpv6/128")).path,
        "service"
    );
}

#[test]
fn messages_that_open_nothing_get_their_true_verdict() {
    drops("device:pump-1", "device:ehr", "icmp/0", Reason::MidFlow, "");
    drops("device:pump-1", "device:ehr", "icmp/3", Reason::MidFlow, "");
    drops("device:pump-1", "device:ehr", "icmp/5", Reason::RogueRa, "");
    drops(
        "device:pump-1",
        "device:pump-2",
        "icmp/5",
        Reason::RogueRa,
        "",
    );
    drops(
        "device:pump-1",
        "device:ehr",
        "proto/47",
        Reason::NoRule,
        "",
    );
    let answer = ask("device:pump-1", "fd20:0:0:1::99", "icmpv6/135").unwrap();
    assert_eq!(answer.reason, Reason::Control);
    let question = |source_port| Question {
        from: "device:pump-1".into(),
        to: "router".into(),
        service: "udp/67".into(),
        source_port,
        ..Default::default()
    };
    let answer = explain(&snapshot(), &question(68), &[], 1).unwrap();
    assert_eq!(answer.reason, Reason::Control);
    let answer = explain(&snapshot(), &question(0), &[], 1).unwrap();
    assert_eq!(answer.reason, Reason::NoRule);
    let problems = explain(&snapshot(), &question(65_536), &[], 1).unwrap_err();
    assert_eq!(problems[0].path, "source_port");
}

#[test]
fn a_zone_is_represented_by_its_first_device_else_by_its_first_address() {
    let answer = ask("zone:pumps", "zone:pumps", "ping").unwrap();
    assert_eq!(
        (answer.reason, answer.rule.as_str()),
        (Reason::Rule, "pump-pump")
    );
    assert!(
        answer.packet.starts_with("icmp/8 10.20.1.11 → 10.20.1.12"),
        "{}",
        answer.packet
    );
    let answer = ask("zone:lab", "device:ehr", "tcp/443").unwrap();
    assert!(
        answer.packet.starts_with("tcp 10.20.3.1:49152 →"),
        "{}",
        answer.packet
    );
    assert_eq!(answer.rule, "any-to-ehr-web");
    let answer = ask("zone:lab", "zone:lab", "tcp/443").unwrap();
    assert!(
        answer
            .packet
            .starts_with("tcp 10.20.3.1:49152 → 10.20.3.2:443")
    );
    let answer = ask("device:camera-1", "zone:cameras", "tcp/1").unwrap();
    assert!(
        answer.packet.contains("→ 10.20.2.22:1"),
        "{}",
        answer.packet
    );
    let answer = ask("zone:internet", "zone:pumps", "tcp/1").unwrap();
    assert!(
        answer.packet.starts_with("tcp 203.0.113.1:49152"),
        "{}",
        answer.packet
    );
}

#[test]
fn what_zones_in_observe_let_pass_says_what_it_would_be_dropped_for() {
    let answer = ask("zone:lab", "zone:lab", "tcp/22").unwrap();
    assert_eq!((answer.passes(), answer.reason), (true, Reason::Observed));
    assert!(
        answer.packet.ends_with("would be dropped: no_rule"),
        "{}",
        answer.packet
    );
    // The other end is enforcing.
    drops("zone:lab", "device:pump-1", "tcp/22", Reason::NoRule, "");
}

#[test]
fn devices_without_listed_addresses_use_learned_ones_or_could_take_one() {
    let answer = ask("device:phone-1", "device:phone-2", "media").unwrap();
    assert_eq!(
        (answer.reason, answer.rule.as_str()),
        (Reason::Rule, "phone-talk")
    );
    assert!(
        answer
            .packet
            .starts_with("udp 10.20.4.1:49152 → 10.20.4.2:5000")
    );
    assert!(
        answer.packet.ends_with("entering trunk on VLAN 40"),
        "{}",
        answer.packet
    );
    let snapshot = snapshot();
    let number = number_of(&snapshot.ids, numbered::DEVICE, "phone-2");
    let learned: IpAddr = "10.20.4.77".parse().unwrap();
    let question = Question {
        from: "device:phone-1".into(),
        to: "device:phone-2".into(),
        service: "media".into(),
        ..Default::default()
    };
    let answer = explain(&snapshot, &question, &[(learned, number)], 1).unwrap();
    assert!(
        answer.packet.contains("→ 10.20.4.77:5000"),
        "{}",
        answer.packet
    );
    // Named by its address it is the device too.
    let question = Question {
        to: "10.20.4.77".into(),
        ..question
    };
    let answer = explain(&snapshot, &question, &[(learned, number)], 1).unwrap();
    assert_eq!(answer.rule, "phone-talk");
    assert_eq!(
        explain(&snapshot, &question, &[], 1).unwrap().reason,
        Reason::NoRule
    );
    // No other device may use the address.
    let question = Question {
        from: "10.20.4.77".into(),
        to: "device:ehr".into(),
        service: "tcp/443".into(),
        port: "cam1".into(),
        ..Default::default()
    };
    let answer = explain(&snapshot, &question, &[(learned, number)], 1).unwrap();
    assert_eq!(answer.reason, Reason::WrongPort);
}

#[test]
fn quarantine_drops_and_its_device_stands_for_no_zone() {
    let snapshot = snapshot_with(["pump-1".to_owned()].into());
    let ask = |from: &str| {
        let question = Question {
            from: from.into(),
            to: "device:ehr".into(),
            service: "hl7".into(),
            ..Default::default()
        };
        explain(&snapshot, &question, &[], 1).unwrap()
    };
    assert_eq!(ask("device:pump-1").reason, Reason::Quarantined);
    let answer = ask("zone:pumps");
    assert_eq!(answer.reason, Reason::Rule);
    assert!(answer.packet.starts_with("tcp 10.20.1.12:"));
}

#[test]
fn what_can_not_be_explained_says_why_by_field() {
    let path = |from: &str, to: &str, service: &str, port: &str| {
        problem_of(ask_at(from, to, service, port)).path
    };
    assert_eq!(path("device:nobody", "device:ehr", "hl7", ""), "from");
    assert_eq!(path("zone:nowhere", "device:ehr", "hl7", ""), "from");
    assert_eq!(path("10.20.1.300", "device:ehr", "hl7", ""), "from");
    assert_eq!(path("device:pump-1", "cidr:10.20", "hl7", ""), "to");
    assert_eq!(path("device:pump-1", "", "hl7", ""), "to");
    assert_eq!(path("device:pump-1", "device:ehr", "hl8", ""), "service");
    assert_eq!(path("device:pump-1", "device:ehr", "tcp/x", ""), "service");
    assert_eq!(path("device:pump-1", "device:ehr", "hl7", "eth9"), "port");
    assert_eq!(path("device:pump-1", "device:ehr", "hl7", "br0"), "port");
    assert_eq!(path("zone:ghosts", "device:ehr", "hl7", ""), "port");
    assert_eq!(path("device:ehr", "zone:ghosts", "hl7", ""), "to");
    let neither = problem_of(ask("device:ehr", "8.8.8.8", "hl7"));
    assert_eq!(neither.path, "to");
    assert!(
        neither
            .message
            .starts_with("neither end is behind a guarded port")
    );
    let all = ask("device:nobody", "zone:nowhere", "hl8").unwrap_err();
    assert_eq!(all.len(), 3);
}

#[test]
fn without_a_policy_there_is_nothing_to_explain() {
    let mut snapshot = snapshot();
    snapshot.revision = 0;
    let problems = explain(&snapshot, &Question::default(), &[], 1).unwrap_err();
    assert_eq!(problems, [problem("", "no policy is in force")]);
}

fn ask(from: &str, to: &str, service: &str) -> Result<Answer, Vec<Problem>> {
    ask_at(from, to, service, "")
}

fn ask_at(from: &str, to: &str, service: &str, port: &str) -> Result<Answer, Vec<Problem>> {
    let question = Question {
        from: from.into(),
        to: to.into(),
        service: service.into(),
        port: port.into(),
        source_port: 0,
        ..Question::default()
    };
    explain(&snapshot(), &question, &[], 1)
}

#[test]
fn a_mac_counts_as_the_kernel_sees_it() {
    let ask = |from: &str, to: &str, mac: &str| {
        let question = Question {
            from: from.into(),
            to: to.into(),
            service: "hl7".into(),
            mac: mac.into(),
            ..Question::default()
        };
        explain(&snapshot(), &question, &[], 1)
    };
    let pump = |mac: &str| ask("device:pump-1", "device:ehr", mac).unwrap().reason;
    assert_eq!(pump("02:00:00:00:01:11"), Reason::Rule);
    assert_eq!(pump("02-00-00-00-01-11"), Reason::Rule);
    assert_eq!(pump("02:00:00:00:99:99"), Reason::UnknownDevice);
    // That of a camera.
    assert_ne!(pump("02:00:00:00:02:21"), Reason::Rule);
    let path = |answer: Result<Answer, Vec<Problem>>| answer.unwrap_err()[0].path.clone();
    assert_eq!(path(ask("device:pump-1", "device:ehr", "02:00")), "mac");
    // Nobody sees the MAC of what comes from outside.
    assert_eq!(
        path(ask("device:ehr", "device:pump-1", "02:00:00:00:01:11")),
        "mac"
    );
}

#[track_caller]
fn drops(from: &str, to: &str, service: &str, reason: Reason, rule: &str) {
    let answer = ask(from, to, service).unwrap();
    assert_eq!((answer.passes(), answer.reason), (false, reason));
    assert_eq!(answer.rule, rule);
}

#[test]
fn says_what_nat_may_make_of_a_packet_where_the_verdict_may_be_another() {
    let mut snapshot = snapshot();
    let told = |snapshot: &Snapshot, from: &str, service: &str| {
        let question = Question {
            from: from.to_owned(),
            to: "device:camera-1".to_owned(),
            service: service.to_owned(),
            ..Question::default()
        };
        let answer = explain(snapshot, &question, &[], 1).unwrap();
        (answer.reason, answer.packet)
    };
    let (reason, packet) = told(&snapshot, "device:ehr", "tcp/554");
    assert_eq!(reason, Reason::NoRule);
    assert!(!packet.contains("NAT"), "{packet}");
    Arc::make_mut(&mut snapshot.inventory).nat.v4 = true;
    // Where NAT hides the server, it is the router, which has a rule.
    let (reason, packet) = told(&snapshot, "device:ehr", "tcp/554");
    assert_eq!(reason, Reason::NoRule);
    let end = "; the router has NAT: if that gives it the router's address, allow: rule";
    assert!(packet.ends_with(end), "{packet}");
    let (_, packet) = told(&snapshot, "device:ehr", "tcp/555");
    assert!(packet.ends_with("drop: no_rule"), "{packet}");
    // What enters a guarded port is judged there.
    for from in ["device:pump-1", "router"] {
        let (_, packet) = told(&snapshot, from, "tcp/554");
        assert!(!packet.contains("NAT"), "{packet}");
    }
}

#[track_caller]
fn problem_of(answer: Result<Answer, Vec<Problem>>) -> Problem {
    let problems = answer.unwrap_err();
    assert_eq!(problems.len(), 1, "{problems:?}");
    problems[0].clone()
}

fn snapshot() -> Snapshot {
    snapshot_with(BTreeSet::new())
}

fn snapshot_with(quarantined: BTreeSet<String>) -> Snapshot {
    snapshot_of(POLICY, quarantined)
}

fn snapshot_of(policy: &str, quarantined: BTreeSet<String>) -> Snapshot {
    let limits = Limits::default();
    let (policy, problems) = document::parse(policy);
    assert_eq!(problems, []);
    let intent = Intent::from_policy(&policy, &limits, Timestamp::UNIX_EPOCH).unwrap();
    let ids = numbers::number(&intent, &Ids::new(), &limits).unwrap();
    let names = ["pump1", "pump2", "cam1", "trunk", "up", "br0"];
    let links = names.into_iter().enumerate().map(|(at, name)| {
        let index = at as u32 + 2;
        let link = Link {
            number: index,
            ifindex: index,
            name: name.to_owned(),
            mac: Some(Mac([2, 0, 0, 0, 0xff, index as u8])),
            permanent: None,
            up: true,
            controller: (name == "cam1").then_some(7),
            parent: None,
            vlan: None,
            kind: None,
            header: Default::default(),
        };
        (index, link)
    });
    let addresses = ["10.20.1.1", "10.20.2.1", "fe80::1"];
    let inventory = Inventory {
        links: links.collect(),
        addresses: addresses
            .into_iter()
            .map(|address| address.parse().unwrap())
            .collect(),
        connected: [(2, "10.20.1.0/24".parse().unwrap())].into(),
        ..Inventory::default()
    };
    let clock = Clock {
        now: Timestamp::now(),
        jiffies: 1_000_000,
        per_second: 250,
    };
    let quarantined = quarantined.into();
    let tables = compile::compile(&intent, &inventory, &ids, &quarantined, &clock);
    Snapshot::new(
        7,
        policy,
        intent,
        inventory,
        quarantined,
        ids,
        tables,
        clock,
        None,
    )
}
