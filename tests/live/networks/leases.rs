//! A relay on the router, and the DHCP server behind a port: do devices get their leases?

use std::collections::BTreeMap;

use wardline_tests::{
    End,
    ward::{Guard, Ward, mac, v4, v6, zone},
};

use crate::live::servers::{dnsmasq, global_address, has, has_dnsmasq, takes_lease};

const SERVER: &str = "10.20.9.10";

#[test]
fn a_lease_comes_through_a_relay_on_the_router() {
    if !has_dnsmasq("DHCP relay") || !has("DHCP relay", "busybox", "--list") {
        return;
    }
    let ward = Ward::new("relay");
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
    let [zones, ports, devices] = [0, 1, 2].map(|list| {
        let lines = [zone(1, "", ""), zone(9, "", ", dhcp_server: true")];
        lines.map(|lines| lines[list].clone()).concat()
    });
    let learned = format!(", addresses: [{}, \"{}\"]", v4(1), v6(1));
    let listed = [v4(9), SERVER.to_owned()];
    let devices = devices
        .replace(&learned, "")
        .replace(&listed[0], &listed[1]);
    let policy = |ports: &str| {
        format!("version: 1\nzones:\n{zones}ports:\n{ports}devices:\n{devices}rules: []\n")
    };
    guard.apply(&policy(&ports));
    assert!(takes(), "no lease: {:?}", guard.drops());
    assert_eq!(guard.drops(), BTreeMap::new());

    // From a port that is not named as a server's, the server's answers to the relay are dropped.
    guard.apply(&policy(&ports.replace(", dhcp_server: true", "")));
    assert!(!takes());
    let drops = guard.drops();
    assert_eq!(drops.keys().collect::<Vec<_>>(), ["no_rule"], "{drops:?}");
    guard.told(&[("reason", "no_rule"), ("service", "udp/67")]);
}
