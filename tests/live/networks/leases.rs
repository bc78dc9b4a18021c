//! A relay on the router, and the DHCP server behind a port: do devices get their leases?

use std::collections::BTreeMap;

use wardline_tests::{
    End,
    ward::{Guard, Ward, mac, v4, v6, zone},
};

use crate::live::servers::{dnsmasq, global_address, has, has_dnsmasq, takes_lease};

const SERVER: &str = "10.20.9.10";

#[test]
fn a_lease_comes_through_a_relay_on_the_router_at_xdp() {
    relayed("relay-xdp", "xdp");
}

#[test]
fn a_lease_comes_through_a_relay_on_the_router_at_tc() {
    relayed("relay-tc", "tc");
}

fn relayed(name: &str, hook: &str) {
    if !has_dnsmasq("DHCP relay") || !has("DHCP relay", "busybox", "--list") {
        return;
    }
    let ward = Ward::new(name);
    let router = ward.lab.router();
    let device = ward.bare(1, &ward.port(1));
    let server = ward.lab.host("server").unwrap();
    ward.lab
        .wire(
            &End::new(&server, "eth0")
                .mac(&mac(9))
                .address(&format!("{SERVER}/24"))
                .gateway("10.20.9.1"),
            &ward.port(9),
        )
        .unwrap();
    ward.lab.settle().unwrap();
    let _relay = dnsmasq(
        &ward.lab,
        router,
        &[&format!("--dhcp-relay=10.20.1.1,{SERVER}")],
    );
    let _server = dnsmasq(
        &ward.lab,
        &server,
        &[
            "--interface=eth0",
            "--dhcp-range=10.20.1.100,10.20.1.150,255.255.255.0,1h",
            "--dhcp-option=option:router,10.20.1.1",
            "--dhcp-authoritative",
            "--no-ping",
        ],
    );
    let takes = || {
        let taken = takes_lease(&ward.lab, &device);
        let own = global_address(&device, "inet");
        device.ip("address flush dev eth0").unwrap();
        taken && own.is_some_and(|own| own.starts_with("10.20.1.1"))
    };
    // Without Wardline the network works.
    assert!(takes());

    let guard = Guard::start(&ward.lab, "");
    let attach = format!(", attach: {hook}");
    let server = format!("{attach}, dhcp_server: true");
    let [zones, ports, devices] = [0, 1, 2].map(|list| {
        let lines = [zone(1, "MODE", &attach), zone(9, "MODE", &server)];
        lines.map(|lines| lines[list].clone()).concat()
    });
    let learned = format!(", addresses: [{}, \"{}\"]", v4(1), v6(1));
    let listed = [v4(9), SERVER.to_owned()];
    let devices = devices
        .replace(&learned, "")
        .replace(&listed[0], &listed[1]);
    let policy = |mode: &str, ports: &str| {
        let zones = zones.replace("MODE", mode);
        format!("version: 1\nzones:\n{zones}ports:\n{ports}devices:\n{devices}rules: []\n")
    };
    for mode in ["", ", mode: observe"] {
        guard.apply(&policy(mode, &ports));
        assert_eq!(guard.attached()["lan9"], hook);
        assert!(takes(), "no lease{mode}: {:?}", guard.drops());
        assert_eq!(guard.drops(), BTreeMap::new(), "{mode}");
        assert_eq!(guard.packets("observed"), 0, "{mode}");
    }

    // From a port that is not named as a server's, the server's answers to the relay are dropped.
    let ports = ports.replace(", dhcp_server: true", "");
    guard.apply(&policy("", &ports));
    assert!(!takes());
    let drops = guard.drops();
    assert_eq!(drops.keys().collect::<Vec<_>>(), ["no_rule"], "{drops:?}");
    guard.told(&[("reason", "no_rule"), ("service", "udp/67")]);
    guard.apply(&policy(", mode: observe", &ports));
    guard.observes("no_rule", || assert!(takes()));
}
