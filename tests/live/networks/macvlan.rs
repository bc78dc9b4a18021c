//! Does it work when the gateway address is on a macvlan above a guarded port?

use wardline_tests::{
    End, Host, Lab, Outcome, TIMEOUT,
    ward::{Guard, skip},
};

/// As keepalived makes it with `use_vmac`: the virtual MAC of RFC 9568.
const VIRTUAL: &str = "00:00:5e:00:01:01";

/// Two devices, and a port for each; the first port has no address yet.
fn two_ports(name: &str) -> (Lab, [Host; 2]) {
    let lab = Lab::new(name).unwrap();
    let devices = [1, 2].map(|net| {
        let host = lab.host(&format!("device-{net}")).unwrap();
        let port = End::new(lab.router(), &format!("lan{net}"));
        let port = match net {
            1 => port,
            _ => port.address("10.20.2.1/24").address("fd20:2::1/64"),
        };
        lab.wire(
            &End::new(&host, "eth0")
                .mac(&format!("02:00:00:00:{net:02x}:11"))
                .address(&format!("10.20.{net}.11/24"))
                .address(&format!("fd20:{net}::11/64"))
                .gateway(&format!("10.20.{net}.1"))
                .gateway(&format!("fd20:{net}::1")),
            &port,
        )
        .unwrap();
        host
    });
    (lab, devices)
}

/// Makes an interface on another; false when this kernel has no such interfaces.
fn made(host: &Host, name: &str, link: &str, kind: &str) -> bool {
    match host.ip(&format!("link add {name} link {link} type {kind}")) {
        Ok(_) => true,
        Err(error) if error.to_string().contains("Unknown device type") => false,
        Err(error) => panic!("{error:#}"),
    }
}

fn policy(attach: &str, mode: &str, more: &str) -> String {
    format!(
        r#"
version: 1
zones:
  - {{name: plcs, mode: {mode}, subnets: [10.20.1.0/24, "fd20:1::/64"]}}
  - {{name: desks, mode: {mode}, subnets: [10.20.2.0/24, "fd20:2::/64"]}}
ports:
  - {{interface: lan1, zone: plcs, attach: {attach}}}
  - {{interface: lan2, zone: desks, attach: {attach}}}
devices:
  - {{name: plc, zone: plcs, macs: ["02:00:00:00:01:11"], addresses: [10.20.1.11, "fd20:1::11"]}}
  - {{name: desk, zone: desks, macs: ["02:00:00:00:02:11"], addresses: [10.20.2.11, "fd20:2::11"]}}
{more}"#
    )
}

/// Both families, both ways, and the gateway itself.
fn works(lab: &Lab, [plc, desk]: &[Host; 2]) {
    let servers = [plc, desk, lab.router()].map(|host| host.tcp_serve(2575).unwrap());
    for (from, to) in [
        (plc, "10.20.2.11"),
        (plc, "fd20:2::11"),
        (desk, "10.20.1.11"),
        (desk, "fd20:1::11"),
        (plc, "10.20.1.1"),
        (plc, "fd20:1::1"),
        (lab.router(), "10.20.1.11"),
        (lab.router(), "fd20:1::11"),
    ] {
        let outcome = from.tcp_connect(to, 2575, TIMEOUT);
        assert_eq!(outcome, Outcome::Connected, "{from} to {to}");
    }
    drop(servers);
}

const ALL: &str = "rules:
  - {name: all, from: [any, router], to: [any, router], services: [tcp/2575], action: allow}
";

fn gateway_above(name: &str, attach: &str, build: impl FnOnce(&Lab) -> Option<&'static str>) {
    let (lab, devices) = two_ports(name);
    let Some(gateway) = build(&lab) else {
        return skip(name, "no such interfaces in this kernel");
    };
    let router = lab.router();
    router
        .ip(&format!("addr add 10.20.1.1/24 dev {gateway}"))
        .unwrap();
    router
        .ip(&format!("addr add fd20:1::1/64 dev {gateway} nodad"))
        .unwrap();
    lab.settle().unwrap();
    works(&lab, &devices);

    let guard = Guard::start(&lab, "");
    for mode in ["enforce", "observe"] {
        guard.apply(&policy(attach, mode, ALL));
        for port in ["lan1", "lan2"] {
            guard.wait_until_guarded(port);
        }
        works(&lab, &devices);
        assert_eq!(guard.drops(), [].into(), "{mode}");
    }
    let (plc, desk) = (&devices[0], &devices[1]);
    guard.apply(&policy(attach, "enforce", ""));
    let _servers = [plc, desk].map(|host| host.tcp_serve(2576).unwrap());
    for (from, to) in [(plc, "10.20.2.11"), (desk, "10.20.1.11")] {
        assert_eq!(from.tcp_connect(to, 2576, TIMEOUT), Outcome::Dropped);
    }
    guard.apply(&policy(attach, "observe", ""));
    guard.observes("no_rule", || works(&lab, &devices));
    lab.close().unwrap();
}

fn macvlan(lab: &Lab, link: &str, mode: &str) -> Option<&'static str> {
    let router = lab.router();
    if !made(router, "gw1", link, &format!("macvlan mode {mode}")) {
        return None;
    }
    router
        .ip(&format!("link set gw1 address {VIRTUAL} up"))
        .unwrap();
    Some("gw1")
}

#[test]
fn gateway_on_a_macvlan_of_a_port_works_at_tc() {
    gateway_above("macvlan-tc", "tc", |lab| macvlan(lab, "lan1", "private"));
}

#[test]
fn gateway_on_a_macvlan_of_a_port_works_at_xdp() {
    gateway_above("macvlan-xdp", "xdp", |lab| macvlan(lab, "lan1", "bridge"));
}

#[test]
fn gateway_on_a_macvlan_of_a_bridge_of_a_port_works() {
    gateway_above("macvlan-br", "auto", |lab| {
        lab.bridge(lab.router(), "br0", &[]).unwrap();
        lab.router().ip("link set lan1 master br0").unwrap();
        macvlan(lab, "br0", "private")
    });
}
