//! What a document may say, and which problems are reported otherwise.

use std::collections::BTreeMap;

use ipnet::IpNet;
use jiff::Timestamp;
use proptest::prelude::*;
use wardline_proto::v1;

use crate::{
    intent::{Attach, DeviceIndex, Intent, LabelIndex, Rule, Selector, ZoneIndex},
    limits::Limits,
    words::{mac::Mac, service::Service},
};

const LIMITS: Limits = Limits {
    devices: 1000,
    flows: 1024,
    flows_per_device: 64,
    control: 300,
    control_in_quarantine: 10,
    learned_per_device: 16,
    learned_per_port: 1024,
    names: 16,
    addresses_per_name: 64,
    rules: 1000,
};

#[test]
fn reads_a_whole_document() {
    let intent = read(&clinic());
    let [cameras, pumps, servers] = [0, 1, 2].map(ZoneIndex);
    assert_eq!(
        names(&intent.zones, |zone| &zone.name),
        ["cameras", "pumps", "servers"]
    );
    assert!(intent.zones[0].observe && intent.zones[0].admit_any);
    assert!(!intent.zones[1].observe && !intent.zones[1].fragments);
    assert_eq!(
        intent.zones[1].subnets,
        [net("10.20.1.0/24"), net("2001:db8:1::/64")]
    );
    assert_eq!(intent.zones[0].ethertypes, [0x8892]);
    assert_eq!(intent.ports[1].zone, Some(pumps));
    assert_eq!(intent.ports[1].vlans, BTreeMap::from([(20, cameras)]));
    assert_eq!(intent.ports[1].attach, Attach::Tc);
    let ehr = &intent.devices[0];
    assert_eq!(
        (ehr.name.as_str(), ehr.zone, &ehr.macs[..]),
        ("ehr", servers, &[][..])
    );
    let pump = &intent.devices[1];
    assert_eq!(pump.macs, [Mac([2, 0, 0, 0, 1, 1])]);
    assert_eq!(pump.port.as_deref(), Some("lan1"));
    let rule = &intent.rules[0];
    assert_eq!(rule.name, "pumps-to-ehr");
    assert_eq!(rule.from, [Selector::Zone(pumps)]);
    assert_eq!(
        rule.to,
        [
            Selector::Device(DeviceIndex(0)),
            Selector::Cidr(net("0.0.0.0/0"))
        ]
    );
    assert_eq!(
        rule.services,
        [Service::of(6, 443, 443), Service::of(6, 2575, 2575)]
    );
    assert_eq!(intent.rules[1].services, [Service::ALL]);
    assert_eq!(intent.warnings, Vec::<String>::new());
}

#[test]
fn names_what_is_wrong_and_what_would_be_right() {
    for (spoil, expected) in refusals() {
        let mut policy = clinic();
        spoil(&mut policy);
        assert_eq!(problems(&policy), [expected], "{expected}");
    }
}

type Spoil = fn(&mut v1::Policy);

fn refusals() -> Vec<(Spoil, &'static str)> {
    vec![
        (|p| p.version = 2, "version: 2 is not known; write 1"),
        // Names.
        (
            |p| p.zones[1].name.clear(),
            r#"zones[1].name: missing; give the zone a name
ports[0].vlans[0].zone: no zone "cameras"; there is "pumps", "servers"
ports[1].zone: no zone "cameras"; there is "pumps", "servers""#,
        ),
        (
            |p| p.rules[0].name = "a b".to_owned(),
            r#"rules[0].name: "a b" has more than letters, digits, `.`, `_` and `-`"#,
        ),
        (
            |p| p.services[0].name = "x".repeat(64),
            r#"services[0].name: "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx" has 64 characters; at most 63"#,
        ),
        (
            |p| p.devices.extend_from_within(1..),
            r#"devices[2].name: "ehr" is the name of devices[1] already
devices[2].addresses[0]: 10.9.0.5 is already of devices[1], "ehr""#,
        ),
        // Notes.
        (
            |p| p.rules[0].owner = "x".repeat(201),
            "rules[0].owner: 201 characters; at most 200",
        ),
        (
            |p| p.ports[1].ticket = "a\nb".to_owned(),
            "ports[1].ticket: has control characters; leave them out",
        ),
        (
            |p| p.devices[0].labels = (0..33).map(|i| (format!("k{i}"), "x".to_owned())).collect(),
            "devices[0].labels: 33 labels; at most 32",
        ),
        (
            |p| p.services[0].labels = labels(&[("a b", "x"), ("c", "")]),
            r#"services[0].labels: the key "a b" has more than letters, digits, `.`, `_`, `-` and `/`
services[0].labels.c: a label without a value; write KEY: VALUE"#,
        ),
        (
            |p| {
                p.zones[0].labels = labels(&[("ward", "3")]);
                p.rules[0].from = ["label:ward", "label:ward=4", "label:site=x"]
                    .map(str::to_owned)
                    .to_vec();
            },
            r#"rules[0].from[0]: "ward" has no value; write label:KEY=VALUE
rules[0].from[1]: no device and no zone has the label "ward=4"; of ward there is "3"
rules[0].from[2]: no device and no zone has a label site; give it to one, or correct it here"#,
        ),
        (
            |p| p.rules[0].services.clear(),
            "rules[0].services: missing; an allow rule lists what it allows, as a service's name or \
             tcp/443; everything is tcp/*, udp/*, icmp/* and icmpv6/*",
        ),
        // Zones.
        (
            |p| p.zones[0].mode = 7,
            "zones[0].mode: 7 is not known; one of enforce, observe",
        ),
        (
            |p| p.zones[0].fragments = 9,
            "zones[0].fragments: 9 is not known; one of drop, allow",
        ),
        (
            |p| p.zones[0].subnets[0] = "10.20.1.9/24".to_owned(),
            r#"zones[0].subnets[0]: "10.20.1.9/24" has host bits set; the prefix is 10.20.1.0/24"#,
        ),
        (
            |p| p.zones[0].subnets.push("10.1.2.3".to_owned()),
            r#"zones[0].subnets[2]: "10.1.2.3" has no prefix length; write 10.1.2.3/32"#,
        ),
        (
            |p| p.zones[0].subnets.push("10.0.0.0/33".to_owned()),
            r#"zones[0].subnets[2]: "10.0.0.0/33" is not a prefix; write it as 10.20.0.0/16 or 2001:db8::/32"#,
        ),
        (
            |p| p.zones[0].subnets.push("10.20.1.0/24".to_owned()),
            "zones[0].subnets[2]: 10.20.1.0/24 is already listed at zones[0].subnets[0]",
        ),
        (
            |p| {
                p.zones[2].subnets.push("10.20.1.0/24".to_owned());
                p.zones[2].admit = v1::ZoneAdmit::Any.into();
            },
            r#"zones[2].subnets[1]: 10.20.1.0/24 is listed at zones[0].subnets[0] too, and zone "servers" has admit: any; who admits any needs a prefix of its own"#,
        ),
        (
            |p| p.zones[0].subnets.push("::ffff:10.0.0.0/104".to_owned()),
            r#"zones[0].subnets[2]: "::ffff:10.0.0.0/104" is IPv4 in IPv6; write 10.0.0.0/8"#,
        ),
        (
            |p| p.zones[0].subnets.push("fe80::/64".to_owned()),
            "zones[0].subnets[2]: fe80::/64 is link-local, which is every device's own and never listed",
        ),
        (
            |p| p.zones[0].subnets.push("239.1.0.0/16".to_owned()),
            "zones[0].subnets[2]: 239.1.0.0/16 is multicast, which is in no zone",
        ),
        (
            |p| p.zones[0].ethertypes = vec![0x05ff],
            "zones[0].ethertypes[0]: 0x05ff is no EtherType; they go from 0x0600 to 0xffff",
        ),
        (
            |p| p.zones[0].ethertypes = vec![0x1_0000],
            "zones[0].ethertypes[0]: 0x10000 is no EtherType; they go from 0x0600 to 0xffff",
        ),
        (
            |p| p.zones[0].ethertypes = vec![0x86dd],
            "zones[0].ethertypes[0]: 0x86dd is IP, ARP or a VLAN tag, which rules and ports decide",
        ),
        (
            |p| p.zones[0].ethertypes = (0x9000..0x9041).collect(),
            "zones[0].ethertypes: 65 ethertypes; a zone has at most 64",
        ),
        // Ports.
        (
            |p| p.ports[1].interface = "a-name-of-16-byt".to_owned(),
            r#"ports[1].interface: "a-name-of-16-byt" is too long; an interface has at most 15 characters"#,
        ),
        (
            |p| p.ports[1].interface = "lan 2".to_owned(),
            r#"ports[1].interface: "lan 2" is no interface's name; it has no `/`, `:` or spaces"#,
        ),
        (
            |p| p.ports[1].interface = "lan1".to_owned(),
            r#"ports[1].interface: "lan1" is listed at ports[0]"#,
        ),
        (
            |p| p.ports[0].zone = "pmps".to_owned(),
            r#"ports[0].zone: no zone "pmps"; did you mean "pumps"?"#,
        ),
        (
            |p| p.ports[0].vlans[0].id = 4095,
            "ports[0].vlans[0].id: 4095 is no VLAN id; they go from 0 to 4094",
        ),
        (
            |p| p.ports[0].vlans[0].id = 0,
            "ports[0].vlans[0].id: 0 is untagged, as ports[0].zone is; leave one of them out",
        ),
        (
            |p| p.ports[0].vlans = vec![p.ports[0].vlans[0].clone(); 2],
            "ports[0].vlans[1].id: 20 is listed at ports[0].vlans[0]",
        ),
        (
            |p| p.ports[0].vlans[0].zone.clear(),
            "ports[0].vlans[0].zone: missing; name the zone of this VLAN",
        ),
        (
            |p| p.ports[0].attach = 5,
            "ports[0].attach: 5 is not known; one of auto, xdp, tc",
        ),
        // Devices.
        (
            |p| p.devices[0].zone = "Pumsp".to_owned(),
            r#"devices[0].zone: no zone "Pumsp"; did you mean "pumps"?"#,
        ),
        (
            |p| p.devices[0].zone.clear(),
            "devices[0].zone: missing; name the device's zone",
        ),
        (
            |p| p.devices[0].macs[0] = "02:00:00:00:01".to_owned(),
            r#"devices[0].macs[0]: "02:00:00:00:01" is not a MAC address; write it as 02:00:00:00:01:01"#,
        ),
        (
            |p| p.devices[0].macs.push("ff:ff:ff:ff:ff:ff".to_owned()),
            r#"devices[0].macs[1]: "ff:ff:ff:ff:ff:ff" is a group's MAC; write the device's own"#,
        ),
        (
            |p| p.devices[0].macs.push("00:00:00:00:00:00".to_owned()),
            "devices[0].macs[1]: the zero MAC is nobody's; write the device's own",
        ),
        (
            |p| p.devices[1].macs.push("02-00-00-00-01-01".to_owned()),
            r#"devices[1].macs[0]: 02:00:00:00:01:01 is already of devices[0], "pump-1""#,
        ),
        (
            |p| p.devices[1].addresses.push("10.20.1.11".to_owned()),
            r#"devices[1].addresses[1]: 10.20.1.11 is already of devices[0], "pump-1"
devices[1].addresses[1]: 10.20.1.11 is in 10.20.1.0/24 of zone "pumps", the device in zone "servers"; move one of them"#,
        ),
        (
            |p| p.devices[0].addresses[0] = "10.20.1.130".to_owned(),
            r#"devices[0].addresses[0]: 10.20.1.130 is in 10.20.1.128/25 of zone "cameras", the device in zone "pumps"; move one of them"#,
        ),
        (
            |p| p.devices[0].addresses[0] = "10.20.1.11/24".to_owned(),
            r#"devices[0].addresses[0]: "10.20.1.11/24" is a prefix; write the address, as 10.20.1.11"#,
        ),
        (
            |p| p.devices[0].addresses.push("fe80::1".to_owned()),
            "devices[0].addresses[1]: fe80::1 is link-local, which is the device's own and never listed; leave it out",
        ),
        (
            |p| p.devices[0].addresses.push("::ffff:10.20.1.12".to_owned()),
            "devices[0].addresses[1]: ::ffff:10.20.1.12 is IPv4 in IPv6; write 10.20.1.12",
        ),
        (
            |p| p.devices[0].addresses.push("224.0.0.1".to_owned()),
            "devices[0].addresses[1]: 224.0.0.1 is multicast; write the device's own address",
        ),
        (
            |p| p.devices[1].addresses.clear(),
            "devices[1].addresses: missing, and so are macs; a device has addresses, a MAC, or both",
        ),
        (
            |p| {
                p.devices[0].addresses.clear();
                p.zones[0].subnets.clear();
            },
            r#"devices[0].addresses: missing, and none can be learned: zone "pumps" has no subnets; list the addresses or give the zone a subnet"#,
        ),
        (
            |p| {
                p.devices[0].addresses.clear();
                p.devices[0].learn = Some(false);
            },
            "devices[0].addresses: missing, and learn is false; list the addresses, or leave learn out",
        ),
        (
            |p| p.devices[0].port = "wan0".to_owned(),
            r#"devices[0].port: no port matches "wan0"; list it under ports or leave it out here"#,
        ),
        (
            |p| p.devices[0].port = "lan9".to_owned(),
            r#"devices[0].port: "lan9" is ports[1], which does not carry zone "pumps""#,
        ),
        (
            |p| p.devices[0].port = "lan*".to_owned(),
            r#"devices[0].port: "lan*" is a glob; name one interface"#,
        ),
        // Services.
        (
            |p| p.services[0].ports.clear(),
            "services[0].ports: missing; list at least one, as tcp/443",
        ),
        (
            |p| p.services[0].ports[0] = "tcp/5100-5000".to_owned(),
            r#"services[0].ports[0]: "tcp/5100-5000" is a range from high to low; write 5000-5100"#,
        ),
        (
            |p| p.services[0].ports[0] = "sctp/5".to_owned(),
            r#"services[0].ports[0]: "sctp/5" names no known protocol; one of tcp, udp, icmp, icmpv6, proto"#,
        ),
        // Rules.
        (
            |p| p.rules[0].from.clear(),
            "rules[0].from: missing; list at least one end, or `any` for everything but the router",
        ),
        (
            |p| p.rules[0].to[0] = "pumps".to_owned(),
            r#"rules[0].to[0]: "pumps" is no selector; did you mean "zone:pumps"?"#,
        ),
        (
            |p| p.rules[0].to[0] = "10.0.0.1".to_owned(),
            r#"rules[0].to[0]: "10.0.0.1" is no selector; did you mean "cidr:10.0.0.1/32"?"#,
        ),
        (
            |p| p.rules[0].to[0] = "everyone".to_owned(),
            r#"rules[0].to[0]: "everyone" is no selector; one of zone:NAME, device:NAME, label:KEY=VALUE, cidr:PREFIX, name:NAME, internet, router, any"#,
        ),
        (
            |p| p.rules[0].to[0] = "device:er".to_owned(),
            r#"rules[0].to[0]: no device "er"; did you mean "ehr"?"#,
        ),
        (
            |p| p.rules[0].to[0] = "cidr:10.0.0.1/8".to_owned(),
            r#"rules[0].to[0]: "10.0.0.1/8" has host bits set; the prefix is 10.0.0.0/8"#,
        ),
        (
            |p| p.rules[0].services[1] = "posgresql".to_owned(),
            r#"rules[0].services[1]: no service "posgresql"; did you mean "postgresql"?"#,
        ),
        (
            |p| p.rules[0].services[1] = "tcp/65536".to_owned(),
            r#"rules[0].services[1]: "tcp/65536" has no port from 0 to 65535; write one, a range as 5000-5100, or * for all"#,
        ),
        (
            |p| {
                p.rules[0].to = vec!["any".to_owned()];
                p.rules[0].answers_from = vec!["zone:pumps".to_owned()];
            },
            "rules[0].answers_from: is for UDP, which is none of the rule's services",
        ),
        (
            |p| {
                p.rules[0].services = vec!["udp/1900".to_owned()];
                p.rules[0].to = vec!["cidr:10.20.0.0/16".to_owned()];
                p.rules[0].answers_from = vec!["zone:pumps".to_owned()];
            },
            "rules[0].answers_from: is for rules to a group or broadcast address; `to` names none, as cidr:224.0.0.251/32",
        ),
        (
            |p| {
                p.rules[0].services = vec!["udp/1900".to_owned()];
                p.rules[0].to = vec!["cidr:224.0.0.251/32".to_owned()];
                p.rules[0].action = v1::Action::Deny.into();
                p.rules[0].answers_from = vec!["zone:pumps".to_owned()];
            },
            "rules[0].answers_from: is for allow rules; a deny rule asks nobody",
        ),
        (
            |p| p.rules[0].action = 0,
            "rules[0].action: missing; one of allow, deny",
        ),
        (
            |p| p.rules[0].action = 3,
            "rules[0].action: 3 is not known; one of allow, deny",
        ),
        (
            |p| {
                p.rules[0].expires = Some(prost_types::Timestamp {
                    seconds: i64::MAX,
                    nanos: 0,
                })
            },
            "rules[0].expires: not a time; write it as 2026-12-01T00:00:00Z",
        ),
        // Limits.
        (
            |p| {
                let device = |i: u32| v1::Device {
                    name: format!("many-{i}"),
                    zone: "servers".to_owned(),
                    addresses: vec![std::net::Ipv4Addr::from(0x0b00_0000 + i).to_string()],
                    ..Default::default()
                };
                p.devices.extend((0..999).map(device));
            },
            "devices: 1001 devices, but limits.devices is 1000",
        ),
    ]
}

#[test]
fn tells_every_problem_in_the_order_of_the_document() {
    let mut policy = clinic();
    policy.rules[1].action = 0;
    policy.rules[0].to = vec!["zone:nowhere".to_owned()];
    policy.devices[1].zone = "nowhere".to_owned();
    policy.zones[2].mode = 9;
    policy.ports[0].zone = "nowhere".to_owned();
    let found = problems(&policy).join("\n");
    let paths: Vec<_> = found
        .lines()
        .filter_map(|line| line.split(": ").next())
        .collect();
    let expected = [
        "zones[2].mode",
        "ports[0].zone",
        "devices[1].zone",
        "rules[0].to[0]",
        "rules[1].action",
    ];
    assert_eq!(paths, expected);
}

#[test]
fn stops_after_a_thousand_problems() {
    let mut policy = clinic();
    policy.rules[0].to = vec!["zone:nowhere".to_owned(); 5000];
    let found =
        Intent::from_policy(&policy, &LIMITS, Timestamp::UNIX_EPOCH).expect_err("must be refused");
    assert_eq!(found.len(), 1001);
    assert_eq!(found[1000].path, "rules[0].to[1000]");
    assert!(found[1000].message.contains("after 1000 problems"));
}

#[test]
fn warns_of_what_is_accepted_but_useless() {
    let mut policy = clinic();
    policy.zones.push(v1::Zone {
        name: "attic".to_owned(),
        ..Default::default()
    });
    policy.devices[1].macs = vec!["02:00:00:00:01:09".to_owned()];
    policy.ports.push(v1::Port {
        interface: "wan0".to_owned(),
        ..Default::default()
    });
    policy.rules[1].expires = Some(prost_types::Timestamp {
        seconds: 0,
        nanos: 0,
    });
    let expected = [
        r#"port "wan0": has no zone: every frame is dropped"#,
        r#"rule "replies": expired at 1970-01-01T00:00:00Z and denies nothing"#,
        r#"zone "attic": is empty: no device and no subnet"#,
        r#"zone "attic": is unused: no port carries it and no rule names it"#,
        r#"zone "servers": no port carries it, where device "ehr" could appear"#,
    ];
    assert_eq!(read(&policy).warnings, expected);
}

#[test]
fn warns_where_zones_leave_nothing_of_the_internet() {
    let texts = |list: &[&str]| -> Vec<String> { list.iter().map(|it| (*it).to_owned()).collect() };
    let mut policy = clinic();
    policy.zones.push(v1::Zone {
        name: "internet".to_owned(),
        subnets: texts(&["0.0.0.0/0", "2000::/3"]),
        ..Default::default()
    });
    let about = |policy: &v1::Policy| -> Vec<String> {
        let warnings = read(policy).warnings.into_iter();
        let about = warnings.filter(|it| it.contains("`internet`"));
        about.collect()
    };
    policy.rules[0].to = texts(&["zone:internet"]);
    assert_eq!(about(&policy), [""; 0]);
    policy.rules[0].to = texts(&["internet", "zone:internet"]);
    assert_eq!(
        about(&policy),
        [
            r#"zone "internet": `internet` in a rule is not this zone but what is in no zone"#,
            r#"zone "internet": has all of IPv4, so `internet` in a rule means none of it"#,
            r#"zone "internet": has all of IPv6, so `internet` in a rule means none of it"#,
        ]
    );
    let zone = policy.zones.last_mut().expect("the zone above");
    zone.name = "far".to_owned();
    zone.subnets = texts(&["128.0.0.0/1", "fd00::/8"]);
    policy.rules[0].to = texts(&["internet"]);
    assert_eq!(about(&policy), [""; 0]);
}

#[test]
fn learns_the_addresses_of_a_device_in_a_zone_with_a_subnet() {
    let mut policy = clinic();
    policy.devices[0].addresses.clear();
    assert!(read(&policy).devices[1].addresses.is_empty());
}

#[test]
fn zones_may_share_a_prefix() {
    let mut policy = clinic();
    policy.zones[2].subnets.push("10.20.1.0/24".to_owned());
    // A device of either zone may have an address in it.
    policy.devices[1].addresses = vec!["10.20.1.12".to_owned()];
    let intent = read(&policy);
    let shared = "10.20.1.0/24".parse().expect("a prefix");
    let sharers = intent
        .zones
        .iter()
        .filter(|it| it.subnets.contains(&shared));
    assert_eq!(sharers.count(), 2);
}

#[test]
fn takes_vlan_0_for_untagged() {
    let mut policy = clinic();
    let untagged = read(&policy);
    let zone = std::mem::take(&mut policy.ports[0].zone);
    policy.ports[0].vlans.push(v1::PortVlan { id: 0, zone });
    assert_eq!(read(&policy), untagged);
}

#[test]
fn only_a_service_that_names_a_tunnel_allows_it() {
    let covers = |action: v1::Action, services: &[&str], key: u32| {
        let mut policy = clinic();
        policy.rules[0].action = action.into();
        policy.rules[0].services = services.iter().map(|it| (*it).to_owned()).collect();
        // An allow rule without services is accepted no more, and goes on where it was.
        let intent = Intent::from_accepted(&policy, &LIMITS, Timestamp::UNIX_EPOCH)
            .expect("the document is right");
        let named = |rule: &&Rule| rule.name == policy.rules[0].name;
        let rules = intent.rules.iter().filter(named);
        let mut services = rules.flat_map(|rule| &rule.services);
        services.any(|service| (service.first..=service.last).contains(&key))
    };
    let (gre, vxlan, ntp) = (47 << 16, 17 << 16 | 4789, 17 << 16 | 123);
    let allow = |services: &[&str], key| covers(v1::Action::Allow, services, key);
    assert!(!allow(&[], gre) && !allow(&[], vxlan) && allow(&[], ntp));
    assert!(!allow(&["udp/*"], vxlan) && allow(&["udp/*"], ntp));
    assert!(allow(&["udp/*", "udp/4789"], vxlan) && allow(&["udp/4000-5000"], vxlan));
    assert!(allow(&["proto/47"], gre));
    assert!(covers(v1::Action::Deny, &[], gre) && covers(v1::Action::Deny, &["udp/*"], vxlan));
}

proptest! {
    #[test]
    fn order_means_nothing(policy in Just(clinic()).prop_flat_map(|policy| {
        let v1::Policy { version, zones, ports, devices, services, rules, resolvers } = policy;
        (
            Just(zones).prop_shuffle(),
            Just(ports).prop_shuffle(),
            Just(devices).prop_shuffle(),
            Just(services).prop_shuffle(),
            Just(rules).prop_shuffle(),
            any::<bool>(),
        ).prop_map(move |(mut zones, ports, devices, services, mut rules, reverse)| {
            if reverse {
                zones.iter_mut().for_each(|zone| zone.subnets.reverse());
                rules.iter_mut().for_each(|rule| {
                    rule.to.reverse();
                    rule.services.reverse();
                });
            }
            v1::Policy { version, zones, ports, devices, services, rules, resolvers: resolvers.clone() }
        })
    })) {
        prop_assert_eq!(read(&policy), read(&clinic()));
    }

    #[test]
    fn any_text_is_read_or_refused(text in ".{0,20}") {
        let mut policy = clinic();
        policy.zones[0].subnets.push(text.clone());
        policy.devices[0].macs.push(text.clone());
        policy.devices[0].addresses.push(text.clone());
        policy.devices[0].port = text.clone();
        policy.rules[0].from.push(text.clone());
        policy.rules[0].services.push(text);
        prop_assert!(Intent::from_policy(&policy, &LIMITS, Timestamp::UNIX_EPOCH).is_err());
    }
}

#[test]
fn a_label_means_the_devices_that_have_it_themselves_or_by_their_zone() {
    let mut policy = clinic();
    policy.rules[0].from = vec!["label:ward=3".to_owned()];
    policy.devices[1].labels = labels(&[("ward", "3")]);
    assert_eq!(
        labelled(&read(&policy)),
        [("ward=3".to_owned(), vec!["ehr"])]
    );
    policy.zones[0].labels = labels(&[("ward", "3"), ("site", "north")]);
    let all = vec!["ehr", "pump-1"];
    assert_eq!(labelled(&read(&policy)), [("ward=3".to_owned(), all)]);
    // A zone may have it before it has devices.
    policy.rules[0].to = vec!["label:ward=4".to_owned()];
    policy.zones[1].labels = labels(&[("ward", "4")]);
    let intent = read(&policy);
    assert_eq!(labelled(&intent)[1], ("ward=4".to_owned(), vec![]));
    assert_eq!(intent.rules[0].to, [Selector::Label(LabelIndex(1))]);
}

fn labelled(intent: &Intent) -> Vec<(String, Vec<&str>)> {
    let name = |at: &DeviceIndex| intent.devices[at.0].name.as_str();
    let labels = intent.labels.iter();
    let labels = labels.map(|it| (it.label.to_string(), it.devices.iter().map(name).collect()));
    labels.collect()
}

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let pairs = pairs.iter();
    pairs
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

#[test]
fn a_service_of_the_catalogue_needs_no_declaration_and_the_documents_own_comes_first() {
    let services = |policy: &v1::Policy| read(policy).rules[0].services.clone();
    let mut policy = clinic();
    policy.rules[0].services = vec!["dicom".to_owned()];
    assert_eq!(
        services(&policy),
        [Service::of(6, 104, 104), Service::of(6, 11112, 11112)]
    );
    policy.services[0].name = "dicom".to_owned();
    assert_eq!(services(&policy), [Service::of(6, 2575, 2575)]);
    policy.rules[0].services = vec!["dicon".to_owned()];
    assert_eq!(
        problems(&policy),
        [r#"rules[0].services[0]: no service "dicon"; did you mean "dicom"?"#]
    );
}

#[test]
fn what_was_accepted_before_is_not_refused_for_the_length_of_its_notes() {
    let mut policy = clinic();
    policy.zones[0].description = "x".repeat(1001);
    assert_eq!(
        problems(&policy),
        ["zones[0].description: 1001 characters; at most 1000"]
    );
    assert!(Intent::from_accepted(&policy, &LIMITS, Timestamp::UNIX_EPOCH).is_ok());
}

fn clinic() -> v1::Policy {
    let texts = |texts: &[&str]| {
        texts
            .iter()
            .map(|&text| text.to_owned())
            .collect::<Vec<_>>()
    };
    v1::Policy {
        version: 1,
        zones: vec![
            v1::Zone {
                name: "pumps".to_owned(),
                subnets: texts(&["10.20.1.0/24", "2001:db8:1::/64"]),
                ..Default::default()
            },
            v1::Zone {
                name: "cameras".to_owned(),
                mode: v1::ZoneMode::Observe.into(),
                admit: v1::ZoneAdmit::Any.into(),
                subnets: texts(&["10.20.1.128/25"]),
                ethertypes: vec![0x8892],
                ..Default::default()
            },
            v1::Zone {
                name: "servers".to_owned(),
                subnets: texts(&["10.9.0.0/16"]),
                ..Default::default()
            },
        ],
        ports: vec![
            v1::Port {
                interface: "lan1".to_owned(),
                zone: "pumps".to_owned(),
                vlans: vec![v1::PortVlan {
                    id: 20,
                    zone: "cameras".to_owned(),
                }],
                attach: v1::Attach::Tc.into(),
                ..Default::default()
            },
            v1::Port {
                interface: "lan*".to_owned(),
                zone: "cameras".to_owned(),
                ..Default::default()
            },
        ],
        devices: vec![
            v1::Device {
                name: "pump-1".to_owned(),
                zone: "pumps".to_owned(),
                macs: texts(&["02:00:00:00:01:01"]),
                addresses: texts(&["10.20.1.11"]),
                port: "lan1".to_owned(),
                ..Default::default()
            },
            v1::Device {
                name: "ehr".to_owned(),
                zone: "servers".to_owned(),
                addresses: texts(&["10.9.0.5"]),
                ..Default::default()
            },
        ],
        services: vec![v1::Service {
            name: "hl7".to_owned(),
            ports: texts(&["tcp/2575"]),
            ..Default::default()
        }],
        rules: vec![
            v1::Rule {
                name: "pumps-to-ehr".to_owned(),
                from: texts(&["zone:pumps", "zone:pumps"]),
                to: texts(&["cidr:0.0.0.0/0", "device:ehr"]),
                services: texts(&["hl7", "tcp/443"]),
                action: v1::Action::Allow.into(),
                ..Default::default()
            },
            v1::Rule {
                name: "replies".to_owned(),
                from: texts(&["any"]),
                to: texts(&["router"]),
                action: v1::Action::Deny.into(),
                ..Default::default()
            },
        ],
        ..Default::default()
    }
}

fn read(policy: &v1::Policy) -> Intent {
    Intent::from_policy(policy, &LIMITS, Timestamp::UNIX_EPOCH).expect("the document is right")
}

/// All problems as one text, or none.
fn problems(policy: &v1::Policy) -> Vec<String> {
    let found = Intent::from_policy(policy, &LIMITS, Timestamp::UNIX_EPOCH)
        .err()
        .unwrap_or_default();
    if found.is_empty() {
        return Vec::new();
    }
    vec![
        found
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("\n"),
    ]
}

fn net(text: &str) -> IpNet {
    text.parse().expect("a prefix")
}

fn names<T>(items: &[T], name: impl Fn(&T) -> &str) -> Vec<&str> {
    items.iter().map(name).collect()
}

#[test]
fn a_name_may_only_stand_where_it_can_be_kept() {
    let with = |change: &dyn Fn(&mut v1::Policy)| {
        let mut policy = clinic();
        policy.rules[0].to = vec!["name:Updates.Vendor.example".to_owned()];
        change(&mut policy);
        policy
    };
    let policy = with(&|_| ());
    let name = "updates.vendor.example".parse().expect("a name");
    assert_eq!(read(&policy).rules[0].to, [Selector::Name(name)]);
    let refused = |change: &dyn Fn(&mut v1::Policy), told: &str| {
        let found = problems(&with(change));
        assert!(
            found.first().is_some_and(|it| it.contains(told)),
            "{found:?}"
        );
    };
    refused(
        &|it| it.rules[0].from = vec!["name:a.example".to_owned()],
        "rules[0].from[0]: a name may only stand in `to`",
    );
    refused(
        &|it| it.rules[0].action = v1::Action::Deny.into(),
        "rules[0].to[0]: a name is for allow rules",
    );
    refused(
        &|it| it.rules[0].to = vec!["name:10.0.0.1".to_owned()],
        "did you mean \"cidr:10.0.0.1/32\"?",
    );
    let nested = ["*.e", "*.d.e", "*.c.d.e", "a.c.d.e"].map(|it| format!("name:{it}"));
    assert!(problems(&with(&|it| it.rules[0].to = nested.to_vec())).is_empty());
    let deeper = ["*.e", "*.d.e", "*.c.d.e", "*.b.c.d.e"].map(|it| format!("name:{it}"));
    assert!(problems(&with(&|it| it.rules[0].to = deeper.to_vec())).is_empty());
    let deepest = [&deeper[..], &["name:a.b.c.d.e".to_owned()]].concat();
    refused(
        &|it| it.rules[0].to.clone_from(&deepest),
        "name:a.b.c.d.e is inside 4 others",
    );
}

#[test]
fn resolvers_are_addresses_of_single_hosts() {
    let with = |addresses: &[&str]| {
        let resolver = |address: &&str| v1::Resolver {
            address: (*address).to_owned(),
            ..Default::default()
        };
        v1::Policy {
            resolvers: addresses.iter().map(resolver).collect(),
            ..clinic()
        }
    };
    let intent = read(&with(&["2001:db8::53", "192.0.2.53"]));
    assert_eq!(intent.resolvers.len(), 2);
    for (addresses, told) in [
        (
            &["resolver.example"][..],
            "resolvers[0].address: \"resolver.example\" is no address",
        ),
        (&["224.0.0.251"], "is not the address of one host"),
        (
            &["192.0.2.53", "192.0.2.53"],
            "resolvers[1].address: \"192.0.2.53\" is listed twice",
        ),
        (
            &["192.0.2.53"; 65],
            "65 resolvers; a document has at most 64",
        ),
    ] {
        let found = problems(&with(addresses));
        assert!(
            found.first().is_some_and(|it| it.contains(told)),
            "{found:?}"
        );
    }
}
