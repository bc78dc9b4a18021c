//! Do hosts talk by their link-local addresses where a rule allows it, and only there?

use std::collections::BTreeMap;

use wardline_tests::{
    Outcome, TIMEOUT,
    ward::{Guard, Ward, zone},
};

fn document(hook: &str, mode: &str, rules: &str) -> String {
    let zones = [1, 2].map(|net| zone(net, mode, &format!(", attach: {hook}")));
    let list = |index: usize| [&*zones[0][index], &*zones[1][index]].concat();
    let (zones, ports, devices) = (list(0), list(1), list(2));
    format!("version: 1\nzones:\n{zones}ports:\n{ports}devices:\n{devices}rules:\n{rules}")
}

#[test]
fn a_device_and_its_router_talk_by_rule() {
    let ward = Ward::new("link-local");
    let [one, _two] = [1, 2].map(|net| ward.device(net));
    ward.lab.settle().unwrap();
    let router = ward.lab.router();
    let (to_router, to_device) = (
        format!("{}%eth0", router.link_local("lan1").unwrap()),
        format!("{}%lan1", one.link_local("eth0").unwrap()),
    );
    let _servers = (router.udp_serve(53).unwrap(), one.tcp_serve(80).unwrap());
    let outcomes = || {
        [
            one.udp_exchange(&to_router, 53, TIMEOUT),
            router.tcp_connect(&to_device, 80, TIMEOUT),
        ]
    };
    // Without Wardline the network works.
    assert_eq!(outcomes(), [Outcome::Connected; 2]);
    const RULES: &str =
        "  - {name: dns, from: [zone:zone-1], to: [router], services: [udp/53], action: allow}
  - {name: set, from: [router], to: [device:device-1], services: [tcp/80], action: allow}\n";
    for hook in ["xdp", "tc"] {
        let guard = Guard::start(&ward.lab, "");
        for mode in ["", ", mode: observe"] {
            guard.apply(&document(hook, mode, RULES));
            assert_eq!(outcomes(), [Outcome::Connected; 2], "{hook}{mode}");
            assert_eq!(guard.drops(), BTreeMap::new(), "{hook}{mode}");
        }
        guard.apply(&document(hook, "", "  []\n"));
        assert_eq!(outcomes(), [Outcome::Dropped; 2], "{hook}");
        assert_eq!(guard.drops().keys().collect::<Vec<_>>(), ["no_rule"]);
        guard.apply(&document(hook, ", mode: observe", "  []\n"));
        guard.observes("no_rule", || {
            assert_eq!(outcomes(), [Outcome::Connected; 2], "{hook}");
        });
        guard.apply(&document(hook, "", RULES));
        let quarantine = ["quarantine", "device-1", "--reason", "odd"];
        guard.ctl.run(&quarantine).unwrap().ok().unwrap();
        assert_eq!(outcomes(), [Outcome::Dropped; 2], "{hook}");
        let release = ["release", "device-1"];
        guard.ctl.run(&release).unwrap().ok().unwrap();
    }
}

#[test]
fn devices_of_a_bridge_talk_by_a_rule_for_the_prefix() {
    let ward = Ward::new("link-prefix");
    ward.lab.bridge(ward.lab.router(), "br0", &[]).unwrap();
    let [one, two] = [1, 2].map(|net| ward.bridged(net, "br0"));
    ward.lab.settle().unwrap();
    let to_two = format!("{}%eth0", two.link_local("eth0").unwrap());
    let _server = two.tcp_serve(2575).unwrap();
    let connects = || one.tcp_connect(&to_two, 2575, TIMEOUT);
    assert_eq!(connects(), Outcome::Connected);
    for hook in ["xdp", "tc"] {
        let guard = Guard::start(&ward.lab, "");
        for (from, to) in [
            ("cidr:fe80::/10", "cidr:fe80::/10"),
            ("zone:zone-1", "zone:zone-2"),
            ("device:device-1", "device:device-2"),
        ] {
            guard.apply(&document(hook, "", &format!("  - {{name: talk, from: [\"{from}\"], to: [\"{to}\"], services: [tcp/2575], action: allow}}\n")));
            assert_eq!(
                connects(),
                Outcome::Connected,
                "{hook} {from}: {:?}",
                guard.drops()
            );
        }
        guard.apply(&document(hook, "", "  []\n"));
        assert_eq!(connects(), Outcome::Dropped, "{hook}");
        guard.apply(&document(hook, ", mode: observe", "  []\n"));
        guard.observes("no_rule", || {
            assert_eq!(connects(), Outcome::Connected, "{hook}");
        });
    }
}
