//! One flat subnet with devices of two zones in it, some of which learn their addresses.

use std::collections::BTreeMap;

use wardline_tests::{
    Outcome, TIMEOUT,
    ward::{Guard, Ward, mac},
};

const POLICY: &str = r#"version: 1
zones:
  - {name: pumps, subnets: [10.20.0.0/16, "fd20::/32"]MODE}
  - {name: monitors, subnets: [10.20.0.0/16, "fd20::/32"]MODE}
ports:
  - {interface: lan1, zone: pumps, attach: HOOK}
  - {interface: lan2, zone: monitors, attach: HOOK}
  - {interface: lan3, zone: monitors, attach: HOOK}
devices:
  - {name: pump, zone: pumps, macs: ["PUMP"], addresses: [10.20.0.1, "fd20::1"]}
  - {name: monitor, zone: monitors, macs: ["MONITOR"]}
  - {name: camera, zone: monitors, macs: ["CAMERA"]}
rules:
  - {name: report, from: [zone:pumps], to: [zone:monitors], services: [tcp/7], action: allow}
"#;

#[test]
fn zones_of_one_subnet_are_kept_apart_at_xdp() {
    flat("flat-xdp", "xdp");
}

#[test]
fn zones_of_one_subnet_are_kept_apart_at_tc() {
    flat("flat-tc", "tc");
}

fn flat(name: &str, hook: &str) {
    let ward = Ward::new(name);
    ward.lab
        .bridge(ward.lab.router(), "br0", &["10.20.0.254/16", "fd20::fe/32"])
        .unwrap();
    let [pump, monitor, camera] = [1, 2, 3].map(|net| ward.bridged(net, "br0"));
    ward.lab.settle().unwrap();
    let hosts = [&pump, &monitor, &camera];
    let _servers = hosts.map(|host| host.tcp_serve(7).unwrap());
    let connects = |from: usize, to: usize| {
        let at = [format!("10.20.0.{}", to + 1), format!("fd20::{}", to + 1)];
        at.map(|address| hosts[from].tcp_connect(&address, 7, TIMEOUT))
    };
    let connected = [Outcome::Connected; 2];
    let dropped = [Outcome::Dropped; 2];
    // Without Wardline each reaches each.
    for (from, to) in [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0)] {
        assert_eq!(connects(from, to), connected, "{from} {to}");
    }

    let guard = Guard::start(&ward.lab, "");
    let policy = POLICY
        .replace("HOOK", hook)
        .replace("PUMP", &mac(1))
        .replace("MONITOR", &mac(2))
        .replace("CAMERA", &mac(3));
    guard.apply(&policy.replace("MODE", ""));
    // They are of their zone as soon as they have spoken.
    assert_eq!(connects(1, 0), dropped);
    assert_eq!(connects(2, 0), dropped);
    assert_eq!(connects(0, 1), connected);
    assert_eq!(connects(0, 2), connected);
    assert_eq!(connects(1, 2), dropped);
    let drops = guard.drops();
    assert_eq!(drops.keys().collect::<Vec<_>>(), ["no_rule"], "{drops:?}");

    // Observed, everything passes again.
    guard.apply(&policy.replace("MODE", ", mode: observe"));
    for (from, to) in [(0, 1), (1, 0), (1, 2), (2, 0)] {
        assert_eq!(connects(from, to), connected, "{from} {to}");
    }
    let more = |reason: &str| drops.get(reason).copied().unwrap_or(0);
    let after: BTreeMap<String, u64> = guard.drops();
    assert!(
        after.iter().all(|(reason, n)| *n == more(reason)),
        "{after:?}"
    );
}
