//! Small random policies that are valid documents, and packets that are likely to meet their rules.
//!
//! Names, subnets, addresses and ports come from short lists that overlap on purpose: nested
//! prefixes, addresses at their borders, ranges that share an end.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::RangeInclusive,
};

use jiff::Timestamp;
use proptest::{
    bool::weighted,
    collection::vec,
    option,
    prelude::*,
    sample::{select, subsequence},
    strategy::ValueTree as _,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use prost_types::Timestamp as Time;
use wardline_proto::v1::{
    Action, Device, DropOrAllow, Policy, Port, PortVlan, Rule, Service, Zone, ZoneAdmit, ZoneMode,
};

use crate::{
    frames::{self, Ethernet, Mac, Packet, SYN, Tcp, Udp, Upper, icmp, icmpv6},
    oracle::{Asks, Entry, Probe, learns, prefix_length},
};

/// When every packet of a scenario is sent.
pub const NOW: Timestamp = Timestamp::constant(1_780_000_000, 0);

/// The router's addresses, most of them inside subnets that zones may have; one is public, one
/// link-local. By the last two it takes packets, too: a subnet's broadcast, and another's anycast
/// address.
pub const ROUTER: [IpAddr; 7] = [
    public([0xfe80, 0, 0, 0], 0, 1),
    v4(10, 1, 1, 1),
    v4(10, 9, 9, 1),
    v4(192, 31, 196, 1),
    v6(1, 1, 1),
    v4(10, 1, 1, 255),
    v6(1, 1, 0),
];

/// What the router reaches directly, and through which interface.
pub const CONNECTED: [(&str, &str); 2] = [("lan1", "10.1.1.0/24"), ("lan2", "fd00:1:1::/64")];

/// The MAC of every interface of the router.
pub const ROUTER_MAC: Mac = [2, 0, 0, 0, 0xff, 1];

const ZONES: [&str; 4] = ["pumps", "cameras", "guests", "plant"];
const INTERFACES: [&str; 4] = ["lan1", "lan2", "lan3", "wifi1"];
/// Neither matches an uplink, and they have different numbers of literal characters.
const GLOBS: [&str; 2] = ["lan*", "l*"];
const VLANS: [u32; 3] = [10, 20, 4094];

/// Nested, and with siblings; a subnet is of one zone or of none.
const SUBNETS: [&str; 14] = [
    "10.0.0.0/8",
    "10.1.0.0/16",
    "10.1.1.0/24",
    "10.1.1.128/25",
    "10.1.1.192/32",
    "10.2.0.0/15",
    "172.16.0.0/12",
    "fd00::/16",
    "fd00:1::/32",
    "fd00:1:1::/64",
    "fd00:1:1::c0/124",
    "192.31.196.0/28",
    "2001:4:112:1::/64",
    "64:ff9b::101:0/112",
];

/// Addresses at the borders of those subnets and a few beyond them; then public addresses, what is
/// beside them in the registries, and what a NAT64 makes of both.
const ADDRESSES: [IpAddr; 34] = [
    v4(10, 0, 0, 10),
    v4(10, 1, 0, 10),
    v4(10, 1, 1, 10),
    v4(10, 1, 1, 127),
    v4(10, 1, 1, 128),
    v4(10, 1, 1, 192),
    v4(10, 1, 1, 193),
    v4(10, 2, 0, 1),
    v4(10, 3, 255, 254),
    v4(172, 16, 0, 1),
    v4(192, 0, 2, 10),
    v4(192, 0, 2, 11),
    v6(0, 0, 10),
    v6(1, 0, 10),
    v6(1, 1, 10),
    v6(1, 1, 0xc0),
    v6(1, 1, 0xcf),
    v6(1, 1, 0xd0),
    v4(1, 1, 1, 1),
    v4(192, 31, 196, 10),
    v4(192, 31, 196, 16),
    v4(192, 0, 0, 9),
    v4(192, 88, 99, 1),
    v4(100, 64, 0, 10),
    public([0x2001, 4, 0x112, 0], 0, 1),
    public([0x2001, 4, 0x112, 1], 0, 1),
    public([0x2001, 0x3f, 0, 0], 0, 1),
    public([0x2001, 0xdb8, 0, 0], 0, 1),
    public([0x2002, 0x101, 0x101, 0], 0, 1),
    public([0x64, 0xff9b, 0, 0], 0x0101, 0x0101),
    public([0x64, 0xff9b, 0, 0], 0x0a00, 0x000a),
    public([0x64, 0xff9b, 0, 0], 0xc01f, 0xc401),
    public([0x64, 0xff9b, 0, 0], 0xc01f, 0xc40a),
    public([0x64, 0xff9b, 0, 0], 0xc01f, 0xc410),
];

const PREFIXES: [&str; 16] = [
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.1.1.0/24",
    "10.1.1.128/26",
    "10.1.1.192/32",
    "192.0.2.0/24",
    "::/0",
    "fd00:1::/32",
    "fd00:1:1::c0/124",
    "fd00:1:1::c0/128",
    "192.31.196.8/29",
    "192.0.0.0/8",
    "2000::/3",
    "64:ff9b::/96",
    "fe80::/10",
    "fe80::10/124",
];

/// Link-local addresses: made of no MAC, of MACs of devices, of the router's, of an unlisted one.
pub const LINK_LOCAL: [IpAddr; 6] = [
    public([0xfe80, 0, 0, 0], 0, 0x11),
    public([0xfe80, 0, 0, 0], 0, 0x20),
    made_of(0, 0),
    made_of(1, 0),
    made_of(0xff, 1),
    made_of(0xee, 0xee),
];

/// The link-local address made of the MAC `02:00:00:00:…`.
pub const fn made_of(e: u8, f: u8) -> IpAddr {
    let low = (e as u16) << 8 | f as u16;
    IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0xff, 0xfe00, low))
}

const PORTS: [&str; 18] = [
    "tcp/443",
    "tcp/80-443",
    "tcp/443-8443",
    "tcp/1-1023",
    "tcp/1024-65535",
    "tcp/*",
    "udp/53",
    "udp/53-5000",
    "udp/*",
    "udp/4789",
    "icmp/8",
    "icmp/13",
    "icmp/40",
    "icmpv6/128",
    "proto/47",
    "proto/50",
    "proto/4",
    "proto/132",
];

/// Services that nobody declares.
const KNOWN: [&str; 4] = ["dns", "http", "https", "ping"];

const ASKS: [Asks; 16] = [
    Asks::Tcp(1),
    Asks::Tcp(79),
    Asks::Tcp(80),
    Asks::Tcp(443),
    Asks::Tcp(444),
    Asks::Tcp(1023),
    Asks::Tcp(1024),
    Asks::Tcp(65535),
    Asks::Udp(53),
    Asks::Udp(443),
    Asks::Udp(5000),
    Asks::Udp(5001),
    Asks::Protocol(47),
    Asks::Protocol(50),
    Asks::Icmp { kind: 8, code: 0 },
    Asks::Icmpv6 { kind: 128, code: 0 },
];

// ── policies ───────────────────────────────────────────────────────────────────────────────────

/// The document that a seed draws.
pub fn policy_of(seed: &[u8; 32]) -> Policy {
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, seed);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let tree = policy().new_tree(&mut runner);
    tree.expect("a policy").current()
}

/// Names that resolvers have given addresses for: outside, in zones, behind ports, of the router.
pub const TOLD: [(&str, IpAddr); 8] = [
    ("a.example", v4(192, 0, 2, 10)),
    ("b.a.example", v4(192, 0, 2, 10)),
    ("b.a.example", v4(192, 0, 2, 11)),
    ("c.b.a.example", v4(192, 0, 2, 11)),
    ("a.example", v4(10, 1, 0, 10)),
    ("b.a.example", v4(172, 16, 0, 1)),
    ("c.b.a.example", v4(10, 3, 255, 254)),
    ("a.example", v6(0, 0, 10)),
];
/// Selectors of them, and one that nothing is known of.
const NAMES: [&str; 5] = [
    "name:a.example",
    "name:b.a.example",
    "name:*.a.example",
    "name:*.b.a.example",
    "name:other.example",
];

/// A valid document with two to four zones.
pub fn policy() -> impl Strategy<Value = Policy> {
    (2..=ZONES.len())
        .prop_flat_map(zones)
        .prop_flat_map(|zones| {
            let parts = (ports(zones.clone()), devices(zones.clone()), services());
            (Just(zones), parts).prop_flat_map(|(zones, (ports, devices, services))| {
                let rules = rules(&zones, &devices, &services);
                (Just((zones, ports, devices, services)), rules).prop_map(|(parts, rules)| {
                    let (zones, ports, mut devices, services) = parts;
                    bind_to_ports(&mut devices, &ports);
                    Policy {
                        version: 1,
                        zones,
                        ports,
                        devices,
                        services,
                        rules,
                        resolvers: Vec::new(),
                    }
                })
            })
        })
}

/// A valid document, and packets that go through its router one after the other.
pub fn scenario(packets: RangeInclusive<usize>) -> impl Strategy<Value = (Policy, Vec<Probe>)> {
    policy().prop_flat_map(move |policy| {
        let probes = vec(probe(&policy), packets.clone());
        (Just(policy), probes)
    })
}

/// Observe, admit any, fragments, options, EtherTypes, labels.
type ZoneSettings = (bool, bool, bool, bool, Vec<u32>, Labels);
type Labels = BTreeMap<String, String>;
/// The zone of a subnet, and perhaps another that shares it.
type Owners = (usize, Option<usize>);

fn zones(count: usize) -> impl Strategy<Value = Vec<Zone>> {
    let ethertypes = subsequence(vec![0x8892, 0x88cc, 0x0600], 0..=2);
    let settings = (
        weighted(0.2),
        weighted(0.3),
        weighted(0.4),
        weighted(0.3),
        ethertypes,
        labels(0.1),
    );
    let owners = (0..count, option::weighted(0.15, 0..count));
    (
        vec(settings, count),
        vec(option::weighted(0.7, owners), SUBNETS.len()),
    )
        .prop_map(|(settings, owners)| {
            // Zones that admit any share no prefix.
            let any: Vec<bool> = settings.iter().map(|(_, any, ..)| *any).collect();
            let owns = |at: usize, (first, second): Owners| {
                first == at || second == Some(at) && !any[first] && !any[at]
            };
            let zone = |(at, settings): (usize, ZoneSettings)| {
                let (observe, any, fragments, options, ethertypes, labels) = settings;
                let is_own = |&(_, owners): &(&&str, &Option<Owners>)| {
                    owners.is_some_and(|owners| owns(at, owners))
                };
                let subnets = SUBNETS.iter().zip(&owners).filter(is_own);
                let mode = if observe {
                    ZoneMode::Observe
                } else {
                    ZoneMode::Enforce
                };
                let admit = if any {
                    ZoneAdmit::Any
                } else {
                    ZoneAdmit::Unspecified
                };
                let allow = |is: bool| {
                    let answer = if is {
                        DropOrAllow::Allow
                    } else {
                        DropOrAllow::Unspecified
                    };
                    answer.into()
                };
                Zone {
                    name: ZONES[at].to_owned(),
                    fragments: allow(fragments),
                    ip_options: allow(options),
                    ethertypes,
                    mode: mode.into(),
                    admit: admit.into(),
                    subnets: subnets.map(|(subnet, _)| (*subnet).to_owned()).collect(),
                    labels,
                    ..Zone::default()
                }
            };
            settings.into_iter().enumerate().map(zone).collect()
        })
}

/// Labels of few keys and values, so that several objects have the same.
fn labels(often: f64) -> impl Strategy<Value = Labels> {
    let label = |key: &'static str| {
        let value = option::weighted(often, select(vec!["1", "2"]));
        value.prop_map(move |it| it.map(|value| (key.to_owned(), value.to_owned())))
    };
    (label("ward"), label("site"))
        .prop_map(|labels| <[_; 2]>::from(labels).into_iter().flatten().collect())
}

fn ports(zones: Vec<Zone>) -> impl Strategy<Value = Vec<Port>> {
    let names: Vec<&str> = INTERFACES.into_iter().chain(GLOBS).collect();
    let zone = select(zones).prop_map(|zone| zone.name);
    let vlans = subsequence(VLANS.to_vec(), 0..=2);
    let vlans = (vlans, vec(zone.clone(), 2)).prop_map(|(ids, zones)| {
        let vlan = |(id, zone)| PortVlan { id, zone };
        ids.into_iter().zip(zones).map(vlan).collect()
    });
    let may_send = (weighted(0.2), weighted(0.2));
    let port = (option::weighted(0.8, zone), vlans, may_send);
    let port = port.prop_map(|(zone, vlans, (router, dhcp_server))| Port {
        zone: zone.unwrap_or_default(),
        vlans,
        router,
        dhcp_server,
        ..Port::default()
    });
    (subsequence(names, 1..=4), vec(port, 4)).prop_map(|(names, ports)| {
        let named = |(name, port): (&str, Port)| Port {
            interface: name.to_owned(),
            ..port
        };
        names.into_iter().zip(ports).map(named).collect()
    })
}

/// Devices with MACs, addresses, or both; none has an address of another's zone or the router's.
fn devices(zones: Vec<Zone>) -> impl Strategy<Value = Vec<Device>> {
    let learn = option::weighted(0.1, weighted(0.5));
    let settings = (
        0..zones.len(),
        0..=2_usize,
        0..=3_usize,
        weighted(0.15),
        learn,
        labels(0.4),
    );
    let all = ADDRESSES.to_vec();
    (vec(settings, 1..=6), Just(all).prop_shuffle()).prop_map(move |(settings, mut free)| {
        type Drawn = (usize, usize, usize, bool, Option<bool>, Labels);
        let device = |(i, (zone, macs, addresses, bound, learn, labels)): (usize, Drawn)| {
            let zone = &zones[zone];
            let fits = |address: &IpAddr| {
                let owners = owners(&zones, *address);
                owners.is_empty() || owners.contains(&&zone.name)
            };
            let mut own = Vec::new();
            while own.len() < addresses
                && let Some(at) = free.iter().position(fits)
            {
                own.push(free.remove(at).to_string());
            }
            let learns = macs > 0 && !zone.subnets.is_empty() && learn != Some(false);
            if own.is_empty() && !learns {
                own.push(format!("198.51.100.{}", i + 1));
            }
            Device {
                name: format!("device-{i}"),
                zone: zone.name.clone(),
                macs: (0..macs)
                    .map(|j| format!("02:00:00:00:{i:02x}:{j:02x}"))
                    .collect(),
                addresses: own,
                // A mark that it is to be bound to a port, which `bind_to_ports` then chooses.
                port: if bound && macs > 0 {
                    "?".to_owned()
                } else {
                    String::new()
                },
                learn,
                labels,
                ..Device::default()
            }
        };
        settings.into_iter().enumerate().map(device).collect()
    })
}

/// Names an exact interface that carries the device's zone, where there is one.
fn bind_to_ports(devices: &mut [Device], ports: &[Port]) {
    for device in devices.iter_mut().filter(|device| !device.port.is_empty()) {
        let fits = |port: &&Port| {
            !port.interface.contains('*') && places(port).any(|(_, zone)| zone == device.zone)
        };
        let port = ports.iter().find(fits);
        device.port = port.map(|port| port.interface.clone()).unwrap_or_default();
    }
}

fn services() -> impl Strategy<Value = Vec<Service>> {
    vec(subsequence(PORTS.to_vec(), 1..=3), 0..=3).prop_map(|lists| {
        let service = |(i, ports): (usize, Vec<&str>)| Service {
            name: format!("service-{i}"),
            ports: ports.into_iter().map(str::to_owned).collect(),
            ..Service::default()
        };
        lists.into_iter().enumerate().map(service).collect()
    })
}

/// One end, with a name instead of some ends, or beside them.
fn with_name(mut to: Vec<String>, name: Option<&str>, deny: bool) -> Vec<String> {
    if let Some(name) = name.filter(|_| !deny) {
        to.truncate(1);
        if to[0] == "any" || to[0].starts_with("cidr:") {
            to.clear();
        }
        to.push(name.to_owned());
    }
    to
}

fn rules(
    zones: &[Zone],
    devices: &[Device],
    services: &[Service],
) -> impl Strategy<Value = Vec<Rule>> + use<> {
    let names: Vec<String> = devices
        .iter()
        .map(|it| format!("device:{}", it.name))
        .collect();
    let labels = zones.iter().map(|it| &it.labels);
    let labels = labels.chain(devices.iter().map(|it| &it.labels)).flatten();
    let labels: BTreeSet<String> = labels.map(|(k, v)| format!("label:{k}={v}")).collect();
    // A label that nobody has is refused.
    let labels = if labels.is_empty() {
        names.clone()
    } else {
        Vec::from_iter(labels)
    };
    let zones: Vec<String> = zones
        .iter()
        .map(|zone| format!("zone:{}", zone.name))
        .collect();
    let selector = prop_oneof![
        3 => select(zones),
        3 => select(names),
        2 => select(labels),
        2 => select(PREFIXES.to_vec()).prop_map(|prefix| format!("cidr:{prefix}")),
        1 => Just("router".to_owned()),
        2 => Just("internet".to_owned()),
        3 => Just("any".to_owned()),
    ];
    let selectors = vec(selector, 1..=2).prop_map(distinct);
    // Only where they may stand: an end of allow rules has one more.
    let name = option::weighted(0.25, select(NAMES.to_vec()));
    let named = services.iter().map(|service| service.name.clone());
    let written = PORTS.into_iter().chain(KNOWN).map(str::to_owned);
    let service = select(named.chain(written).collect::<Vec<_>>());
    let services = vec(service, 0..=4).prop_map(distinct);
    let expires = option::weighted(0.3, select(vec![-3600, -1, 0, 1, 3600]));
    let rule = (
        selectors.clone(),
        selectors,
        services,
        weighted(0.25),
        any::<bool>(),
        expires,
        weighted(0.3),
        name,
    );
    vec(rule, 0..=12).prop_map(|rules| {
        let rule = |(i, (from, to, services, deny, log, expires, kept, name))| Rule {
            name: format!("rule-{i}"),
            from,
            to: with_name(to, name, deny),
            services,
            action: if deny { Action::Deny } else { Action::Allow }.into(),
            log,
            expires: Option::map(expires, |after: i64| Time {
                seconds: NOW.as_second() + after,
                nanos: 0,
            }),
            keep_in_quarantine: kept && !deny,
            ..Rule::default()
        };
        let mut rules: Vec<Rule> = rules.into_iter().enumerate().map(rule).collect();
        // At most one, so that it is known which counts.
        if let Some(rule) = rules.iter_mut().find(|rule| may_be_answered(rule)) {
            // A name stands for nobody who answers.
            let answers = rule.to.iter().filter(|it| !it.starts_with("name:"));
            rule.answers_from = answers.cloned().collect();
        }
        rules
    })
}

/// Whether a rule lets UDP through to groups or broadcasts, and does not end.
fn may_be_answered(rule: &Rule) -> bool {
    let is_many = |to: &String| {
        to == "any" || to.starts_with("zone:") || to == "cidr:0.0.0.0/0" || to == "cidr:::/0"
    };
    let is_udp = |service: &String| service.starts_with("udp/");
    rule.action() == Action::Allow
        && rule.expires.is_none()
        && rule.to.iter().any(is_many)
        && (rule.services.is_empty() || rule.services.iter().any(is_udp))
}

fn distinct(list: Vec<String>) -> Vec<String> {
    BTreeSet::from_iter(list).into_iter().collect()
}

// ── packets ────────────────────────────────────────────────────────────────────────────────────

/// A packet that is likely to get past the place checks of the policy, and not always.
pub fn probe(policy: &Policy) -> impl Strategy<Value = Probe> + use<> {
    let anywhere = addresses(policy);
    let is_router = |address: &IpAddr| ROUTER.contains(address);
    // Multicast addresses are sources here, and no destinations: the oracle knows unicast only.
    let destinations: Vec<IpAddr> = anywhere
        .iter()
        .filter(|address| !address.is_multicast())
        .copied()
        .collect();
    // Nothing comes from the uplink with one of the router's own addresses.
    let remote: Vec<IpAddr> = anywhere
        .iter()
        .filter(|it| !is_router(it))
        .copied()
        .collect();
    let from = prop_oneof![
        9 => standing(policy, &anywhere),
        2 => guarded(policy, &anywhere),
        2 => select(remote).prop_map(|source| (Entry::Uplink, source)),
        1 => select(ROUTER.to_vec()).prop_map(|source| (Entry::Router, source)),
    ];
    (from, select(destinations), select(ASKS.to_vec())).prop_map(
        move |((entry, source), mut destination, mut asks)| {
            let is_itself = entry == Entry::Router && is_router(&destination);
            if destination.is_ipv4() != source.is_ipv4() || is_itself {
                destination = if source.is_ipv4() {
                    v4(192, 0, 2, 99)
                } else {
                    v6(9, 9, 99)
                };
            }
            if matches!(asks, Asks::Icmp { .. } | Asks::Icmpv6 { .. }) {
                asks = match source {
                    IpAddr::V4(_) => Asks::Icmp { kind: 8, code: 0 },
                    IpAddr::V6(_) => Asks::Icmpv6 { kind: 128, code: 0 },
                };
            }
            Probe {
                entry,
                source,
                destination,
                asks,
                now: NOW,
            }
        },
    )
}

/// The frame of a probe. A device sends from the probe's MAC and with its tag, uplink and router
/// from `source` and without.
pub fn frame(probe: &Probe, number: u16, source: Mac, destination: Mac) -> Vec<u8> {
    let packet = packet(probe, number);
    match probe.entry {
        Entry::Guarded { vlan: 0, mac, .. } => Ethernet::new(destination, mac, packet),
        Entry::Guarded { vlan, mac, .. } => Ethernet::new(destination, mac, packet).tagged(vlan),
        Entry::Uplink | Entry::Router => Ethernet::new(destination, source, packet),
    }
    .bytes()
}

/// The packet of a probe, which opens a flow if any may. The number, its source port or echo
/// identifier, keeps the flows of a scenario apart; protocols without either have no such thing.
pub fn packet(probe: &Probe, number: u16) -> Packet {
    let upper: Upper = match probe.asks {
        Asks::Tcp(port) => Tcp::new(number, port, SYN).into(),
        Asks::Udp(port) => Udp::new(number, port, *b"wardline").into(),
        Asks::Icmp { .. } => icmp::request(number, 1),
        Asks::Icmpv6 { .. } => icmpv6::request(number, 1),
        Asks::Protocol(protocol) => Upper::Bytes(protocol, b"wardline".to_vec()),
    };
    frames::ip(probe.source, probe.destination, upper)
}

/// A device where it belongs, mostly with an address of its own.
fn standing(policy: &Policy, anywhere: &[IpAddr]) -> BoxedStrategy<(Entry, IpAddr)> {
    let mut places_of = Vec::new();
    for device in &policy.devices {
        let interfaces = interfaces(policy).into_iter();
        for (interface, port) in
            interfaces.filter(|(name, _)| device.port.is_empty() || device.port == **name)
        {
            for (vlan, _) in places(port).filter(|(_, zone)| *zone == device.zone) {
                for mac in &device.macs {
                    let (interface, mac) = (interface.to_owned(), frames::mac(mac));
                    places_of.push((
                        Entry::Guarded {
                            interface,
                            vlan,
                            mac,
                        },
                        device.clone(),
                    ));
                }
            }
        }
    }
    if places_of.is_empty() {
        return guarded(policy, anywhere);
    }
    let anywhere = anywhere.to_vec();
    let zones = policy.zones.clone();
    select(places_of)
        .prop_flat_map(move |(entry, device)| {
            let own = |address: &IpAddr| device.addresses.contains(&address.to_string());
            let learnable = |address: &IpAddr| owners(&zones, *address).contains(&&device.zone);
            let is_likely = |address: &&IpAddr| {
                if learns(&device, **address) {
                    learnable(address)
                } else {
                    own(address)
                }
            };
            let likely: Vec<IpAddr> = anywhere.iter().filter(is_likely).copied().collect();
            let likely = if likely.is_empty() {
                anywhere.clone()
            } else {
                likely
            };
            let source = prop_oneof![6 => select(likely), 1 => select(anywhere.clone())];
            (Just(entry), source)
        })
        .boxed()
}

/// Any MAC with any address on any port.
fn guarded(policy: &Policy, anywhere: &[IpAddr]) -> BoxedStrategy<(Entry, IpAddr)> {
    let names = interfaces(policy)
        .into_iter()
        .map(|(name, _)| name.to_owned());
    let listed = policy
        .devices
        .iter()
        .flat_map(|it| &it.macs)
        .map(|mac| frames::mac(mac));
    let macs: Vec<Mac> = listed
        .chain([[2, 0, 0, 0, 0xee, 0xee], ROUTER_MAC])
        .collect();
    let vlan = prop_oneof![3 => Just(0), 2 => select(VLANS.map(|id| id as u16).to_vec())];
    (
        select(names.collect::<Vec<_>>()),
        vlan,
        select(macs),
        select(anywhere.to_vec()),
    )
        .prop_map(|(interface, vlan, mac, source)| {
            (
                Entry::Guarded {
                    interface,
                    vlan,
                    mac,
                },
                source,
            )
        })
        .boxed()
}

/// The addresses that policies use, a multicast and link-local ones.
pub fn addresses(policy: &Policy) -> Vec<IpAddr> {
    let own = policy.devices.iter().flat_map(|device| &device.addresses);
    let own = own.map(|address| address.parse().expect("a device's address"));
    let group = [v4(224, 0, 0, 251)];
    let more = ADDRESSES.into_iter().chain(ROUTER).chain(group);
    let all: BTreeSet<IpAddr> = own.chain(more).chain(LINK_LOCAL).collect();
    all.into_iter().collect()
}

/// Interfaces that exist and the ports whose settings hold there.
pub fn interfaces(policy: &Policy) -> Vec<(&'static str, &Port)> {
    let port_of = |name: &'static str| {
        let of = |pattern: &str| policy.ports.iter().find(|port| port.interface == pattern);
        let lan = if name.starts_with("lan") {
            of("lan*").or(of("l*"))
        } else {
            None
        };
        Some((name, of(name).or(lan)?))
    };
    INTERFACES.into_iter().filter_map(port_of).collect()
}

/// The VLANs of a port, 0 for untagged, and their zones.
pub fn places(port: &Port) -> impl Iterator<Item = (u16, &str)> {
    let untagged = Some((0, port.zone.as_str())).filter(|_| !port.zone.is_empty());
    let tagged = port
        .vlans
        .iter()
        .map(|vlan| (vlan.id as u16, vlan.zone.as_str()));
    untagged.into_iter().chain(tagged)
}

/// The zones whose subnets hold the address most closely.
pub fn owners(zones: &[Zone], address: IpAddr) -> Vec<&String> {
    let pairs = zones
        .iter()
        .flat_map(|zone| zone.subnets.iter().map(move |it| (it, &zone.name)));
    let pairs: Vec<(u32, &String)> = pairs
        .filter_map(|(subnet, zone)| Some((prefix_length(subnet, address)?, zone)))
        .collect();
    let longest = pairs.iter().map(|(length, _)| *length).max();
    let closest = pairs
        .into_iter()
        .filter(|(length, _)| Some(*length) == longest);
    closest.map(|(_, zone)| zone).collect()
}

const fn v4(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

const fn v6(site: u16, net: u16, host: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0xfd00, site, net, 0, 0, 0, 0, host))
}

const fn public(net: [u16; 4], high: u16, low: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(
        net[0], net[1], net[2], net[3], 0, 0, high, low,
    ))
}

#[cfg(test)]
mod tests;
