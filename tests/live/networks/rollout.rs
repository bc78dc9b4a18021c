//! A first rollout: does a PC that nobody has listed go on working while its zone observes, and is the
//! zone beside it protected all the same?

use std::collections::BTreeMap;

use serde_json::{Value, json};
use wardline_tests::{
    Host, Outcome, TIMEOUT, eventually,
    ward::{FAR, Guard, PATIENCE, Ward, mac, v4},
};

use crate::live::servers::{dnsmasq, global_address, has, has_dnsmasq, takes_lease};

/// `device-1` is the PC. It is listed nowhere.
const POLICY: &str = r#"version: 1
zones:
  - {name: ward, subnets: [10.20.1.0/24, "fd20:0:0:1::/64"]MODE}
  - {name: pumps, subnets: [10.20.2.0/24, "fd20:0:0:2::/64"]}
ports:
  - {interface: lan1, zone: ward, attach: HOOK}
  - {interface: lan2, zone: pumps, attach: HOOK}
devices:
  - {name: pump, zone: pumps, macs: ["PUMP"], addresses: [10.20.2.11, "fd20:0:0:2::11"]}
  - {name: old-pc, zone: ward, macs: ["02:00:00:00:01:99"], addresses: [10.20.1.99]}
rules:
  - {name: web, from: [zone:ward], to: [any], services: [tcp/7], action: allow}
"#;

#[test]
fn an_unlisted_pc_works_while_its_zone_observes_at_xdp() {
    rollout("rollout-xdp", "xdp");
}

#[test]
fn an_unlisted_pc_works_while_its_zone_observes_at_tc() {
    rollout("rollout-tc", "tc");
}

fn rollout(name: &str, hook: &str) {
    if !has_dnsmasq("rollout") || !has("rollout", "busybox", "--list") {
        return;
    }
    let ward = Ward::new(name);
    let pc = ward.bare(1, &ward.port(1));
    let pump = ward.device(2);
    ward.lab.settle().unwrap();
    let _leases = dnsmasq(
        &ward.lab,
        ward.lab.router(),
        &[
            "--interface=lan1",
            "--dhcp-range=10.20.1.100,10.20.1.150,255.255.255.0,1h",
            "--dhcp-option=option:router,10.20.1.1",
            "--dhcp-authoritative",
            "--no-ping",
        ],
    );
    let _servers = [
        ward.far.tcp_serve(7).unwrap(),
        ward.far.tcp_serve(8).unwrap(),
        pump.tcp_serve(7).unwrap(),
    ];
    let takes = |host: &Host| {
        host.ip("address flush dev eth0").unwrap();
        takes_lease(&ward.lab, host) && global_address(host, "inet").is_some()
    };
    let reaches = |to: &str, port: u16| pc.tcp_connect(to, port, TIMEOUT);
    // Without Wardline the network works.
    assert!(takes(&pc));
    assert_eq!(reaches(FAR[0], 8), Outcome::Connected);
    assert_eq!(reaches(&v4(2), 7), Outcome::Connected);

    let guard = Guard::start(&ward.lab, "");
    let policy = POLICY.replace("HOOK", hook).replace("PUMP", &mac(2));
    let observing = policy.replace("MODE", ", mode: observe");
    let enforcing = policy.replace("MODE", "");
    guard.apply(&observing);
    assert_eq!(guard.attached()["lan1"], hook);

    assert!(takes(&pc), "no lease: {:?}", guard.drops());
    assert_eq!(reaches(FAR[0], 7), Outcome::Connected);
    assert_eq!(reaches(FAR[0], 8), Outcome::Connected);
    // Its address is another device's, and then one of no zone.
    for odd in ["10.20.1.99/24", "192.168.77.5/24"] {
        pc.ip("address flush dev eth0").unwrap();
        pc.ip(&format!("address add {odd} dev eth0")).unwrap();
        let router = ward.lab.router();
        let gateway = if odd.starts_with("10.") {
            "10.20.1.1"
        } else {
            router
                .ip("address replace 192.168.77.1/24 dev lan1")
                .unwrap();
            "192.168.77.1"
        };
        pc.ip(&format!("route replace default via {gateway}"))
            .unwrap();
        let arrives = eventually(PATIENCE, || {
            pc.udp_exchange(gateway, 9, TIMEOUT) == Outcome::Refused
        });
        assert!(arrives, "{odd}: {:?}", guard.drops());
    }
    assert_eq!(guard.drops(), BTreeMap::new(), "observe drops nothing");
    guard.told(&[
        ("reason", "unknown_device"),
        ("verdict", "pass"),
        ("interface", "lan1"),
    ]);

    // The zone of pumps enforces, whatever the sender's zone does.
    assert!(takes(&pc));
    assert_eq!(reaches(&v4(2), 7), Outcome::Dropped);
    let drops = guard.drops();
    let reasons: Vec<&str> = drops.keys().map(String::as_str).collect();
    assert_eq!(reasons, ["unknown_device"], "{drops:?}");

    // What enforcing would drop is known before.
    let file = ward.lab.dir().join("enforcing.yaml");
    std::fs::write(&file, &enforcing).unwrap();
    let plan = guard
        .ctl
        .json(&["plan", "-f", file.to_str().unwrap()])
        .unwrap();
    let is_the_pc = |it: &&Value| it["device"] == json!(mac(1));
    let observed = plan["observed"].as_array().unwrap();
    let of_pc: Vec<&Value> = observed.iter().filter(is_the_pc).collect();
    assert!(
        of_pc
            .iter()
            .any(|it| it["reason"] == json!("unknown_device")),
        "{plan:#}"
    );

    guard.apply(&enforcing);
    assert!(!takes(&pc));
    assert_ne!(reaches(FAR[0], 7), Outcome::Connected);
    // Listed, it works.
    let listed = enforcing.replace(
        "rules:",
        &format!(
            "  - {{name: pc, zone: ward, macs: [\"{}\"]}}\nrules:",
            mac(1)
        ),
    );
    guard.apply(&listed);
    assert!(takes(&pc), "no lease: {:?}", guard.drops());
    assert_eq!(reaches(FAR[0], 7), Outcome::Connected);
}
