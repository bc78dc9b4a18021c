//! What the oracle says of policies that were worked out by hand.

use prost_types::Timestamp as Time;
use wardline_proto::v1::{Action, PortVlan, Rule, Service, ZoneMode};

use super::*;

const PUMP: [u8; 6] = [2, 0, 0, 0, 1, 1];
const CAMERA: [u8; 6] = [2, 0, 0, 0, 2, 1];
const LAPTOP: [u8; 6] = [2, 0, 0, 0, 3, 1];
const STRANGER: [u8; 6] = [2, 0, 0, 0, 9, 9];
const ROUTER: &str = "10.1.0.1";
const HL7: Asks = Asks::Tcp(2575);

fn strings(list: &str) -> Vec<String> {
    list.split_whitespace().map(str::to_owned).collect()
}

fn zone(name: &str, subnets: &str) -> Zone {
    Zone {
        name: name.to_owned(),
        subnets: strings(subnets),
        ..Zone::default()
    }
}

fn device(name: &str, zone: &str, macs: &str, addresses: &str) -> Device {
    Device {
        name: name.to_owned(),
        zone: zone.to_owned(),
        macs: strings(macs),
        addresses: strings(addresses),
        ..Device::default()
    }
}

fn rule(name: &str, action: Action, from: &str, to: &str, services: &str) -> Rule {
    Rule {
        name: name.to_owned(),
        from: strings(from),
        to: strings(to),
        services: strings(services),
        action: action.into(),
        ..Rule::default()
    }
}

fn until(seconds: i64, rule: Rule) -> Rule {
    Rule {
        expires: Some(Time { seconds, nanos: 0 }),
        ..rule
    }
}

/// A ward: pumps on lan1, cameras on its VLAN 20, guests on lan2, a server beyond the uplink.
fn ward(rules: Vec<Rule>) -> Policy {
    let guests = Zone {
        admit: ZoneAdmit::Any.into(),
        ..zone("guests", "10.1.0.128/25")
    };
    let vlans = vec![PortVlan {
        id: 20,
        zone: "cameras".to_owned(),
    }];
    let port = |interface: &str, zone: &str, vlans| Port {
        interface: interface.to_owned(),
        zone: zone.to_owned(),
        vlans,
        ..Port::default()
    };
    Policy {
        version: 1,
        zones: vec![
            zone("pumps", "10.1.0.0/16 fd01::/16"),
            zone("cameras", "10.2.0.0/16"),
            guests,
            zone("records", ""),
        ],
        ports: vec![
            port("lan*", "cameras", vec![]),
            port("lan1", "pumps", vlans),
            port("guest*", "guests", vec![]),
            port(
                "tagged",
                "",
                vec![PortVlan {
                    id: 30,
                    zone: "pumps".to_owned(),
                }],
            ),
        ],
        devices: vec![
            device("pump", "pumps", "02:00:00:00:01:01", "10.1.0.11 fd01::11"),
            device("camera", "cameras", "02-00-00-00-02-01", ""),
            device("laptop", "guests", "02:00:00:00:03:01", "10.1.0.200"),
            device("ehr", "records", "", "192.0.2.5"),
        ],
        services: vec![Service {
            name: "hl7".to_owned(),
            ports: strings("tcp/2575"),
            ..Service::default()
        }],
        rules,
        resolvers: Vec::new(),
    }
}

fn from(place: &str, mac: [u8; 6], source: &str, destination: &str, asks: Asks) -> Probe {
    let (interface, vlan) = place.split_once('.').unwrap_or((place, "0"));
    let (interface, vlan) = (interface.to_owned(), vlan.parse().expect("a VLAN id"));
    Probe {
        entry: Entry::Guarded {
            interface,
            vlan,
            mac,
        },
        ..up(source, destination, asks)
    }
}

fn up(source: &str, destination: &str, asks: Asks) -> Probe {
    Probe {
        entry: Entry::Uplink,
        source: source.parse().expect("a source"),
        destination: destination.parse().expect("a destination"),
        asks,
        now: Timestamp::constant(1000, 0),
    }
}

fn judge(policy: &Policy, probe: &Probe) -> Expected {
    Oracle::new(policy, &[ROUTER.parse().expect("an address")]).judge(probe)
}

fn dropped(reason: Reason, rules: &str) -> Expected {
    Expected::Dropped(Drop {
        reason,
        rules: strings(rules).into_iter().collect(),
    })
}

fn allowed(rules: &str) -> Expected {
    Expected::Allowed(strings(rules).into_iter().collect())
}

/// Judges each probe of a policy whose only rule allows everything.
#[track_caller]
fn assert_places(cases: &[(&str, [u8; 6], &str, Reason)]) {
    let policy = ward(vec![rule("all", Action::Allow, "any", "any router", "")]);
    for &(place, mac, source, reason) in cases {
        let answer = judge(&policy, &from(place, mac, source, "192.0.2.5", HL7));
        let expected = match reason {
            Reason::Rule => allowed("all"),
            reason => dropped(reason, ""),
        };
        assert_eq!(answer, expected, "{place} {mac:x?} {source}");
    }
}

#[test]
fn a_device_may_appear_only_in_its_zone() {
    assert_places(&[
        ("lan1", PUMP, "10.1.0.11", Reason::Rule),
        ("tagged.30", PUMP, "10.1.0.11", Reason::Rule),
        ("lan1.20", PUMP, "10.1.0.11", Reason::WrongVlan),
        ("lan1.21", PUMP, "10.1.0.11", Reason::WrongVlan),
        ("lan1.21", STRANGER, "10.1.0.11", Reason::WrongVlan),
        ("lan2", PUMP, "10.1.0.11", Reason::WrongPort),
        ("tagged", PUMP, "10.1.0.11", Reason::WrongVlan),
        ("lan1", CAMERA, "10.2.0.9", Reason::WrongVlan),
        ("lan1.20", CAMERA, "10.2.0.9", Reason::Rule),
        ("lan9", CAMERA, "10.2.0.9", Reason::Rule),
        ("lan1", STRANGER, "10.1.0.12", Reason::UnknownDevice),
    ]);
}

#[test]
fn a_port_of_its_own_binds_a_device() {
    let mut policy = ward(vec![]);
    policy.devices[1].port = "lan3".to_owned();
    let judge = |place| judge(&policy, &from(place, CAMERA, "10.2.0.9", "192.0.2.5", HL7));
    assert_eq!(judge("lan3"), dropped(Reason::NoRule, ""));
    assert_eq!(judge("lan2"), dropped(Reason::WrongPort, ""));
    assert_eq!(judge("lan1"), dropped(Reason::WrongVlan, ""));
}

#[test]
fn a_source_address_must_be_the_senders() {
    assert_places(&[
        ("lan1", PUMP, "fd01::11", Reason::Rule),
        ("lan1", PUMP, "10.1.0.12", Reason::SpoofedSource),
        ("lan1", PUMP, ROUTER, Reason::SpoofedSource),
        ("lan1", PUMP, "224.0.0.1", Reason::SpoofedSource),
        ("lan1", PUMP, "255.255.255.255", Reason::SpoofedSource),
        ("lan2", CAMERA, "10.2.0.77", Reason::Rule),
        ("lan2", CAMERA, "10.3.0.77", Reason::SpoofedSource),
        ("lan2", CAMERA, "192.0.2.5", Reason::SpoofedSource),
        ("guest1", STRANGER, "10.1.0.129", Reason::Rule),
        ("guest1", STRANGER, "10.1.0.200", Reason::SpoofedSource),
        ("guest1", STRANGER, "10.1.0.12", Reason::SpoofedSource),
        ("guest1", LAPTOP, "10.1.0.200", Reason::Rule),
    ]);
}

#[test]
fn an_uplink_may_not_speak_for_a_guarded_device() {
    let policy = ward(vec![rule("all", Action::Allow, "any", "any", "")]);
    let judge = |source| judge(&policy, &up(source, "10.1.0.11", HL7));
    assert_eq!(judge("192.0.2.5"), allowed("all"));
    assert_eq!(judge("10.1.0.12"), allowed("all"));
    assert_eq!(judge("10.1.0.200"), dropped(Reason::SpoofedSource, ""));
    assert_eq!(judge("127.0.0.1"), dropped(Reason::SpoofedSource, ""));
}

#[test]
fn a_learned_address_is_its_devices() {
    let policy = ward(vec![rule(
        "camera",
        Action::Allow,
        "device:ehr",
        "device:camera",
        "",
    )]);
    let mut oracle = Oracle::new(&policy, &[]);
    let probe = up("192.0.2.5", "10.2.0.77", HL7);
    assert_eq!(oracle.judge(&probe), dropped(Reason::NoRule, ""));
    let camera = Sender::Device("camera".to_owned());
    oracle.learn(probe.destination, camera, "cameras");
    assert_eq!(oracle.judge(&probe), allowed("camera"));
    let probe = up("10.2.0.77", "10.1.0.11", HL7);
    assert_eq!(oracle.judge(&probe), dropped(Reason::SpoofedSource, ""));
}

#[test]
fn a_matching_deny_beats_every_allow() {
    let policy = ward(vec![
        rule("a", Action::Allow, "zone:pumps", "device:ehr", "hl7"),
        rule(
            "b",
            Action::Allow,
            "cidr:10.1.0.0/24",
            "cidr:192.0.2.0/24",
            "tcp/2000-3000",
        ),
        rule(
            "c",
            Action::Deny,
            "any",
            "zone:records",
            "tcp/2576-2600 icmp/8",
        ),
        rule("d", Action::Deny, "zone:pumps", "device:ehr", "proto/1"),
    ]);
    let judge = |asks| judge(&policy, &from("lan1", PUMP, "10.1.0.11", "192.0.2.5", asks));
    assert_eq!(judge(HL7), allowed("a b"));
    assert_eq!(judge(Asks::Tcp(2000)), allowed("b"));
    assert_eq!(judge(Asks::Tcp(2576)), dropped(Reason::DeniedByRule, "c"));
    assert_eq!(
        judge(Asks::Icmp { kind: 8, code: 0 }),
        dropped(Reason::DeniedByRule, "c d")
    );
    assert_eq!(judge(Asks::Udp(2575)), dropped(Reason::NoRule, ""));
    assert_eq!(
        judge(Asks::Icmp { kind: 3, code: 4 }),
        dropped(Reason::MidFlow, "")
    );
    assert_eq!(judge(Asks::Protocol(47)), dropped(Reason::NoRule, ""));
}

#[test]
fn only_router_is_the_router() {
    let policy = ward(vec![
        rule(
            "any",
            Action::Allow,
            "any",
            "any zone:pumps cidr:10.0.0.0/8",
            "",
        ),
        rule("ntp", Action::Allow, "zone:pumps", "router", "udp/123"),
        rule("poll", Action::Allow, "router", "device:pump", "udp/161"),
    ]);
    let to_router = |asks| judge(&policy, &from("lan1", PUMP, "10.1.0.11", ROUTER, asks));
    assert_eq!(to_router(Asks::Udp(123)), allowed("ntp"));
    assert_eq!(to_router(HL7), dropped(Reason::NoRule, ""));
    let by_router = |asks| {
        judge(
            &policy,
            &Probe {
                entry: Entry::Router,
                ..up(ROUTER, "10.1.0.11", asks)
            },
        )
    };
    assert_eq!(by_router(Asks::Udp(161)), allowed("poll"));
    assert_eq!(by_router(HL7), dropped(Reason::NoRule, ""));
}

#[test]
fn the_longest_subnet_decides_unless_a_device_claims_the_address() {
    let policy = ward(vec![
        rule("pumps", Action::Allow, "any", "zone:pumps", ""),
        rule("guests", Action::Allow, "any", "zone:guests", ""),
        rule("records", Action::Allow, "any", "zone:records", ""),
    ]);
    let judge = |to| judge(&policy, &from("lan1", PUMP, "10.1.0.11", to, HL7));
    assert_eq!(judge("10.1.0.127"), allowed("pumps"));
    assert_eq!(judge("10.1.0.129"), allowed("guests"));
    assert_eq!(judge("192.0.2.5"), allowed("records"));
    assert_eq!(judge("192.0.2.6"), dropped(Reason::NoRule, ""));
}

#[test]
fn the_internet_is_what_is_global_and_nobodys() {
    let mut policy = ward(vec![rule("out", Action::Allow, "any", "internet", "")]);
    policy.zones[3].subnets = strings("198.0.0.0/24 2600::/32");
    policy.devices[3].addresses = strings("9.9.9.9");
    let router = [ROUTER, "8.8.8.8"].map(|it| it.parse().expect("an address"));
    let judge = |source: &str, to: &str| {
        let probe = from("lan1", PUMP, source, to, HL7);
        Oracle::new(&policy, &router).judge(&probe)
    };
    for to in ["1.1.1.1", "100.128.0.1", "192.0.0.9", "198.0.1.1"] {
        assert_eq!(judge("10.1.0.11", to), allowed("out"), "{to}");
    }
    for to in [
        "10.9.0.1",
        "100.64.0.1",
        "192.0.0.8",
        "192.88.99.1",
        "198.18.0.1",
        "198.0.0.1",
        "9.9.9.9",
        "8.8.8.8",
    ] {
        assert_eq!(judge("10.1.0.11", to), dropped(Reason::NoRule, ""), "{to}");
    }
    for to in [
        "2601::1",
        "2001:3f::1",
        "64:ff9b::101:101",
        "64:ff9b::c600:101",
    ] {
        assert_eq!(judge("fd01::11", to), allowed("out"), "{to}");
    }
    for to in [
        "2600::1",
        "2001:40::1",
        "2001:db8::1",
        "fd02::1",
        "4000::1",
        "64:ff9b::a09:1",
        "64:ff9b::c600:1",
        "64:ff9b::909:909",
        "64:ff9b::808:808",
        "64:ff9b:1::1",
    ] {
        assert_eq!(judge("fd01::11", to), dropped(Reason::NoRule, ""), "{to}");
    }
}

#[test]
fn an_expired_rule_neither_allows_nor_denies() {
    let policy = ward(vec![
        until(1000, rule("past", Action::Allow, "any", "any", "hl7")),
        until(1001, rule("soon", Action::Allow, "any", "any", "tcp/80")),
        until(999, rule("ban", Action::Deny, "any", "any", "")),
        rule("dns", Action::Deny, "any", "any", "udp/53"),
        until(1000, rule("was", Action::Allow, "any", "any", "udp/53")),
    ]);
    let judge = |asks| judge(&policy, &from("lan1", PUMP, "10.1.0.11", "192.0.2.5", asks));
    assert_eq!(judge(HL7), dropped(Reason::Expired, "past"));
    assert_eq!(judge(Asks::Tcp(80)), allowed("soon"));
    assert_eq!(judge(Asks::Udp(53)), dropped(Reason::DeniedByRule, "dns"));
    assert_eq!(judge(Asks::Tcp(81)), dropped(Reason::NoRule, ""));
}

#[test]
fn link_local_addresses_have_owners_and_rules() {
    let link = "cidr:fe80::/10";
    let policy = ward(vec![rule("link", Action::Allow, link, link, "hl7")]);
    let judge = |source, to, asks| judge(&policy, &from("lan1", PUMP, source, to, asks));
    assert_eq!(judge("fe80::1", "fe80::2", HL7), allowed("link"));
    assert_eq!(
        judge("fe80::1", "fd01::12", HL7),
        dropped(Reason::NoRule, "")
    );
    // It is made of the camera's MAC.
    assert_eq!(
        judge("fe80::ff:fe00:201", "fe80::2", HL7),
        dropped(Reason::SpoofedSource, "")
    );
}

#[test]
fn observe_passes_what_is_dropped_when_both_zones_observe() {
    let mut policy = ward(vec![rule("no", Action::Deny, "any", "any", "tcp/23")]);
    policy.zones[0].mode = ZoneMode::Observe.into();
    let to = |policy: &Policy, destination, asks| {
        judge(policy, &from("lan1", PUMP, "10.1.0.11", destination, asks))
    };
    // Records has no port, guests has.
    let answer = to(&policy, "192.0.2.5", HL7);
    assert_eq!(answer, Expected::Observed(Drop::because(Reason::NoRule)));
    assert!(answer.accepts(true, Reason::Observed, None));
    assert!(!answer.accepts(false, Reason::NoRule, None));
    let denied = to(&policy, "192.0.2.5", Asks::Tcp(23));
    assert!(denied.accepts(true, Reason::DeniedByRule, Some("no")));
    assert_eq!(to(&policy, "10.1.0.200", HL7), dropped(Reason::NoRule, ""));
    policy.zones[2].mode = ZoneMode::Observe.into();
    assert!(matches!(
        to(&policy, "10.1.0.200", HL7),
        Expected::Observed(_)
    ));
    let place = judge(
        &policy,
        &from("lan1", STRANGER, "10.1.0.11", "192.0.2.5", HL7),
    );
    let unknown = Drop::because(Reason::UnknownDevice);
    assert_eq!(place, Expected::Observed(unknown));
    // The zone of cameras enforces.
    let to_camera = judge(
        &policy,
        &from("lan1", STRANGER, "10.1.0.11", "10.2.0.21", HL7),
    );
    assert_eq!(to_camera, dropped(Reason::UnknownDevice, ""));
}

#[test]
fn a_label_is_of_devices_and_of_the_devices_of_a_zone() {
    let mut policy = ward(vec![rule(
        "all",
        Action::Allow,
        "label:ward=3",
        "any",
        "hl7",
    )]);
    let pump = from("lan1", PUMP, "10.1.0.11", "192.0.2.5", HL7);
    let label = ("ward".to_owned(), "3".to_owned());
    assert_eq!(judge(&policy, &pump), dropped(Reason::NoRule, ""));
    policy.devices[0].labels.extend([label.clone()]);
    assert_eq!(judge(&policy, &pump), allowed("all"));
    policy.devices[0]
        .labels
        .insert("ward".to_owned(), "4".to_owned());
    assert_eq!(judge(&policy, &pump), dropped(Reason::NoRule, ""));
    policy.zones[0].labels.extend([label]);
    assert_eq!(judge(&policy, &pump), allowed("all"));
}

#[test]
fn quarantine_cuts_both_directions_in_every_mode() {
    let mut policy = ward(vec![rule("all", Action::Allow, "any", "any", "")]);
    policy.zones[0].mode = ZoneMode::Observe.into();
    let mut oracle = Oracle::new(&policy, &[]);
    let out = from("lan1", PUMP, "10.1.0.11", "192.0.2.5", HL7);
    let back = up("192.0.2.5", "10.1.0.11", HL7);
    assert_eq!(oracle.judge(&out), allowed("all"));
    oracle.quarantine("pump");
    assert_eq!(oracle.judge(&out), dropped(Reason::Quarantined, ""));
    assert_eq!(oracle.judge(&back), dropped(Reason::Quarantined, ""));
}

#[test]
fn an_answer_must_have_the_reason_and_a_rule_that_decided() {
    let answer = allowed("a b");
    assert!(answer.accepts(true, Reason::Rule, Some("b")));
    assert!(!answer.accepts(true, Reason::Rule, Some("c")));
    assert!(!answer.accepts(true, Reason::Rule, None));
    assert!(!answer.accepts(true, Reason::Established, Some("b")));
    let answer = dropped(Reason::Expired, "a");
    assert!(answer.accepts(false, Reason::Expired, Some("a")));
    assert!(answer.accepts(false, Reason::Expired, None));
    assert!(!answer.accepts(false, Reason::NoRule, None));
    assert!(!dropped(Reason::DeniedByRule, "a").accepts(false, Reason::DeniedByRule, None));
}
