//! A guest network: do guests reach the internet, and neither a private network that no zone lists nor
//! a server of the house with a public address?

use std::collections::BTreeMap;

use serde_json::{Value, json};
use wardline_tests::{
    End, Host, Outcome, TIMEOUT, eventually,
    ward::{Guard, PATIENCE, Ward, v4, v6},
};

/// On the internet, in both families; what is there in these blocks is name servers only (RFC 7535).
const PUBLIC: [&str; 2] = ["192.31.196.7", "2001:4:112::7"];
/// Behind a tunnel; no zone lists these networks.
const PRIVATE: [&str; 4] = ["10.99.0.7", "100.64.9.7", "fd99::7", "64:ff9b::a63:7"];
/// A server of the house, in a zone.
const OWN: [&str; 2] = ["192.175.48.7", "2620:4f:8000::7"];

const POLICY: &str = r#"version: 1
zones:
  - {name: guests, admit: any, subnets: [10.20.1.0/24, "fd20:0:0:1::/64"]MODE}
  - {name: dmz, subnets: [192.175.48.0/24, "2620:4f:8000::/48"]}
ports:
  - {interface: lan1, zone: guests, attach: HOOK}
rules:
  - {name: guests-out, from: [zone:guests], to: [internet], services: [tcp/7, udp/7], action: allow}
"#;

#[test]
fn guests_reach_the_internet_and_no_private_network_at_xdp() {
    guests("guests-xdp", "xdp");
}

#[test]
fn guests_reach_the_internet_and_no_private_network_at_tc() {
    guests("guests-tc", "tc");
}

fn guests(name: &str, hook: &str) {
    let ward = Ward::new(name);
    let guest = ward.device(1);
    let [internet, tunnel, dmz] = [
        ("internet", &PUBLIC[..]),
        ("tunnel", &PRIVATE[..]),
        ("dmz", &OWN[..]),
    ]
    .map(|(name, addresses)| beyond(&ward, name, addresses));
    ward.lab.settle().unwrap();
    let served = [
        (&internet, &PUBLIC[..]),
        (&tunnel, &PRIVATE[..]),
        (&dmz, &OWN[..]),
    ];
    let mut servers = Vec::new();
    for (host, addresses) in served {
        servers.push(host.tcp_serve(7).unwrap());
        // One for each address, because a datagram is answered from the address of the socket.
        servers.extend(addresses.iter().map(|it| host.udp_serve_at(it, 7).unwrap()));
    }
    let outcomes = |addresses: &[&str]| -> Vec<(Outcome, Outcome)> {
        let outcome = |address: &&str| {
            let tcp = guest.tcp_connect(address, 7, TIMEOUT);
            (tcp, guest.udp_exchange(address, 7, TIMEOUT))
        };
        addresses.iter().map(outcome).collect()
    };
    let all = |outcome: Outcome, addresses: &[&str]| vec![(outcome, outcome); addresses.len()];
    let told = |guard: &Guard, verdict: &str| {
        let is_one = |event: &Value| {
            let ends = (&event["source"], &event["destination"]);
            (&event["verdict"], &event["reason"]) == (&json!(verdict), &json!("no_rule"))
                && ends == (&json!(v4(1)), &json!(PRIVATE[0]))
        };
        // Events are limited to one a second: another address may have used it.
        let told = eventually(PATIENCE, || {
            outcomes(&PRIVATE[..1]);
            guard.ctl.events().unwrap().iter().any(is_one)
        });
        assert!(told, "{verdict}: {:#?}", guard.ctl.events());
    };
    let inside = [&PRIVATE[..], &OWN[..]].concat();

    // Without Wardline everything is reached.
    let everything = [&PUBLIC[..], &inside].concat();
    let connected = all(Outcome::Connected, &everything);
    assert_eq!(outcomes(&everything), connected);

    let guard = Guard::start(&ward.lab, "");
    let policy = POLICY.replace("HOOK", hook);
    guard.apply(&policy.replace("MODE", ""));
    assert_eq!(guard.attached()["lan1"], hook);
    assert_eq!(outcomes(&PUBLIC), all(Outcome::Connected, &PUBLIC));
    assert_eq!(guard.drops(), BTreeMap::new());
    assert_eq!(outcomes(&inside), all(Outcome::Dropped, &inside));
    let drops = guard.drops();
    assert_eq!(drops.keys().collect::<Vec<_>>(), ["no_rule"], "{drops:?}");
    told(&guard, "drop");
    for (to, verdict, reason) in [
        ("internet", "allow", "rule"),
        (PUBLIC[1], "allow", "rule"),
        (PRIVATE[1], "drop", "no_rule"),
        (PRIVATE[3], "drop", "no_rule"),
        ("zone:dmz", "drop", "no_rule"),
    ] {
        let from = if to.contains("::") { v6(1) } else { v4(1) };
        let asked = [
            "-o", "json", "explain", "--from", &from, "--to", to, "udp/7",
        ];
        let answer = guard.ctl.run(&asked).unwrap();
        let answer: Value = serde_json::from_str(&answer.stdout).unwrap();
        assert_eq!(answer["verdict"], json!(verdict), "{to}: {answer}");
        assert_eq!(answer["reason"], json!(reason), "{to}: {answer}");
    }

    let drops = guard.drops();
    // Observed, everything is reached again, and what would be dropped is told.
    guard.apply(&policy.replace("MODE", ", mode: observe"));
    assert_eq!(outcomes(&everything), connected);
    assert_eq!(guard.drops(), drops, "nothing more is dropped");
    told(&guard, "pass");
    let served: u64 = servers.iter().map(|server| server.served()).sum();
    assert!(served >= 4 * everything.len() as u64, "{served}");
}

/// A host with these addresses behind a link of the router's own; no port is on it.
fn beyond(ward: &Ward, name: &str, addresses: &[&str]) -> Host {
    let host = ward.lab.host(name).unwrap();
    let net = ward.lab.hosts().len();
    let mut end = End::new(&host, "eth0")
        .address(&format!("192.168.{net}.7/24"))
        .address(&format!("fd68:{net}::7/64"))
        .gateway(&format!("192.168.{net}.1"))
        .gateway(&format!("fd68:{net}::1"));
    for address in addresses {
        let length = if address.contains(':') { 128 } else { 32 };
        end = end.address(&format!("{address}/{length}"));
    }
    let router = End::new(ward.lab.router(), name)
        .address(&format!("192.168.{net}.1/24"))
        .address(&format!("fd68:{net}::1/64"));
    ward.lab.wire(&end, &router).unwrap();
    for address in addresses {
        let via = if address.contains(':') {
            format!("fd68:{net}::7")
        } else {
            format!("192.168.{net}.7")
        };
        let router = ward.lab.router();
        router
            .ip(&format!("route add {address} via {via}"))
            .unwrap();
    }
    host
}
