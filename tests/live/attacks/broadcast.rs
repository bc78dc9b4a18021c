//! A device looks for services of the router by the broadcast and anycast addresses of its subnets.

use std::{
    io::ErrorKind,
    net::{IpAddr, UdpSocket},
    time::{Duration, Instant},
};

use serde_json::Value;
use wardline_tests::{
    End, Host, TIMEOUT, eventually,
    ward::{Guard, PATIENCE, Ward, mac, policy, zone},
};

const PORT: u16 = 7000;

/// A socket for datagrams to every address of a host.
fn listens(host: &Host) -> UdpSocket {
    let bind = || UdpSocket::bind(("::", PORT)).unwrap();
    let socket = host.run(bind).unwrap();
    socket.set_read_timeout(Some(TIMEOUT)).unwrap();
    socket
}

/// Sends a datagram that says whom it is for. On a link where nobody answers for an address, the
/// stack can't.
fn says(host: &Host, target: &str) {
    let address: IpAddr = target.parse().unwrap();
    let any = if address.is_ipv4() { "0.0.0.0" } else { "::" };
    let send = || {
        let socket = UdpSocket::bind((any, 0)).unwrap();
        socket.set_broadcast(true).unwrap();
        socket.send_to(target.as_bytes(), (address, PORT)).unwrap();
    };
    host.run(send).unwrap();
}

/// Whether the datagram to a target arrives; earlier ones to others may be waiting.
fn hears(socket: &UdpSocket, target: &str) -> bool {
    let until = Instant::now() + TIMEOUT;
    let mut buffer = [0; 64];
    while Instant::now() < until {
        match socket.recv(&mut buffer) {
            Ok(length) if buffer[..length] == *target.as_bytes() => return true,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Err(error) => panic!("{error}"),
        }
    }
    false
}

/// A rule for the port of these tests.
fn rule(name: &str, to: &str) -> String {
    format!(
        "  - {{name: {name}, from: [zone:zone-1], to: [{to}], services: [udp/{PORT}], action: allow}}\n"
    )
}

#[test]
fn no_rule_but_one_for_the_router_reaches_its_sockets_by_other_addresses() {
    const TARGETS: [&str; 4] = ["10.20.1.255", "10.20.2.255", "fd20:0:0:1::", "fd20:0:0:2::"];
    const BESIDES: &str = "any, zone:zone-1, zone:zone-2, \"cidr:10.20.0.0/16\", \
                           \"cidr:10.20.1.255/32\", \"cidr:fd20::/32\"";
    let ward = Ward::new("broadcasts");
    let camera = ward.device(1);
    let _pump = ward.device(2);
    ward.lab.settle().unwrap();
    let router = ward.lab.router();
    let socket = listens(router);
    for target in TARGETS {
        // The kernel answers for an anycast address after a random while (RFC 4861, section 7.2.7).
        let arrives = eventually(PATIENCE, || {
            says(&camera, target);
            hears(&socket, target)
        });
        assert!(arrives, "without Wardline: {target}");
    }
    for hook in ["xdp", "tc"] {
        let attach = format!(", attach: {hook}");
        let zones = [zone(1, "", &attach), zone(2, "", &attach)];
        let guard = Guard::start(&ward.lab, "");
        guard.apply(&(policy(&zones, "tcp/7") + &rule("wide", BESIDES)));
        for target in TARGETS {
            says(&camera, target);
        }
        let all = TARGETS.len() as u64;
        assert!(
            eventually(PATIENCE, || guard.packets("no_rule") == all),
            "{hook}"
        );
        guard.told(&[("reason", "no_rule"), ("device", "device-1")]);
        assert!(!hears(&socket, "none of them"), "{hook}");

        // An address that the router gets is its own soon, and so is the broadcast of its subnet.
        router
            .ip("address add 10.20.77.1/24 brd + dev lan2")
            .unwrap();
        let unnamed = || {
            let asked = [
                "--from",
                "device:device-1",
                "--to",
                "10.20.77.255",
                "udp/7000",
            ];
            let asked = [&["-o", "json", "explain"], &asked[..]].concat();
            let answer = guard.ctl.run(&asked).unwrap();
            let answer: Value = serde_json::from_str(&answer.stdout).unwrap();
            answer["reason"] == "no_rule"
        };
        assert!(eventually(Duration::from_secs(5), unnamed), "{hook}");
        says(&camera, "10.20.77.255");
        assert!(!hears(&socket, "10.20.77.255"), "{hook}");

        guard.apply(&(policy(&zones, "tcp/7") + &rule("own", "router")));
        for target in TARGETS.into_iter().chain(["10.20.77.255"]) {
            says(&camera, target);
            assert!(hears(&socket, target), "{hook}: {target}");
        }
        router.ip("address del 10.20.77.1/24 dev lan2").unwrap();
    }
}

#[test]
fn a_broadcast_on_a_bridge_needs_a_rule_for_the_router_and_for_the_zone() {
    const ALL: &str = "10.20.255.255";
    let ward = Ward::new("bridge-broadcast");
    let router = ward.lab.router();
    ward.lab
        .bridge(router, "br0", &["10.20.0.254/16", "fd20::ff/32"])
        .unwrap();
    let camera = ward.bridged(1, "br0");
    let pump = ward.bridged(2, "br0");
    let other = ward.bare(3, &End::new(router, "lan3").master("br0"));
    other.ip("address add 10.20.0.3/16 dev eth0").unwrap();
    ward.lab.settle().unwrap();
    let sockets = [router, &pump, &other].map(listens);
    let heard = || {
        says(&camera, ALL);
        // Each waits for as long as a datagram may take.
        sockets.each_ref().map(|socket| hears(socket, ALL))
    };
    assert_eq!(heard(), [true; 3], "without Wardline");
    for hook in ["xdp", "tc"] {
        let document = |to: &str| {
            let port = |net: u8, zone: u8| {
                format!("  - {{interface: lan{net}, zone: zone-{zone}, attach: {hook}}}\n")
            };
            let device = |net: u8| {
                let name = format!("  - {{name: device-{net}, zone: zone-1, ");
                format!(
                    "{name}macs: [\"{}\"], addresses: [10.20.0.{net}]}}\n",
                    mac(net)
                )
            };
            format!(
                "version: 1\nzones:\n  - {{name: zone-1, subnets: [10.20.0.0/16]}}\n  \
                 - {{name: zone-3}}\nports:\n{}devices:\n{}rules:\n{}",
                [port(1, 1), port(2, 1), port(3, 3)].concat(),
                [device(1), device(2)].concat(),
                rule("who-is", to),
            )
        };
        let guard = Guard::start(&ward.lab, "");
        for (to, expected) in [
            ("router, zone:zone-1", [true, true, false]),
            ("router", [true, false, false]),
            ("zone:zone-1", [false; 3]),
            ("router, any", [true; 3]),
        ] {
            guard.apply(&document(to));
            assert_eq!(heard(), expected, "{hook}: to {to}");
        }
        assert!(eventually(PATIENCE, || guard.packets("no_rule") >= 1));
    }
}
