//! A container has a macvlan on a bridge of two guarded ports, each with a zone of its own: does it
//! reach what its rules allow behind both, and nothing else?

use std::net::Ipv4Addr;

use wardline_oracle::frames::{Arp, BROADCAST, Ethernet, Mac};
use wardline_tests::{
    End, Host, Lab, Outcome, TIMEOUT, eventually,
    ward::{Guard, PATIENCE, skip},
};

use super::container::above;

const POLICY: &str = r#"version: 1
zones:
  - {name: plcs, mode: MODE, subnets: [10.20.1.0/24]}
  - {name: desks, mode: MODE, subnets: [10.20.1.0/24]}
ports:
  - {interface: lan1, zone: plcs, attach: HOOK}
  - {interface: lan2, zone: desks, attach: HOOK}
devices:
  - {name: plc, zone: plcs, macs: ["02:00:00:00:01:11"], addresses: [10.20.1.11]}
  - {name: desk, zone: desks, macs: ["02:00:00:00:01:21"], addresses: [10.20.1.21]}
  - {name: broker, zone: plcs, macs: ["02:42:ac:00:00:50"], addresses: [10.20.1.50]}
rules:
  - {name: poll, from: [device:broker], to: [device:plc], services: [tcp/502], action: allow}
  - {name: report, from: [device:broker], to: [device:desk], services: [tcp/8080], action: allow}
  - {name: mqtt, from: [device:plc, device:desk], to: [device:broker], services: [tcp/1883], action: allow}
"#;

const BROKER_MAC: Mac = [0x02, 0x42, 0xac, 0, 0, 0x50];
const BROKER: Ipv4Addr = Ipv4Addr::new(10, 20, 1, 50);

#[test]
fn a_container_above_a_bridge_reaches_what_it_may_behind_each_port_at_xdp() {
    above_bridge("above-bridge-xdp", "xdp");
}

#[test]
fn a_container_above_a_bridge_reaches_what_it_may_behind_each_port_at_tc() {
    above_bridge("above-bridge-tc", "tc");
}

fn above_bridge(name: &str, hook: &str) {
    let lab = Lab::new(name).unwrap();
    lab.bridge(lab.router(), "br0", &[]).unwrap();
    let [plc, desk] = [("lan1", 0x11), ("lan2", 0x21)].map(|(port, host)| {
        let device = lab.host(&format!("on-{port}")).unwrap();
        lab.wire(
            &End::new(lab.router(), port).master("br0"),
            &End::new(&device, "eth0")
                .mac(&format!("02:00:00:00:01:{host:02x}"))
                .address(&format!("10.20.1.{host:x}/24")),
        )
        .unwrap();
        device
    });
    let Some(broker) = above(&lab, "br0", "broker", &BROKER_MAC, "macvlan mode bridge") else {
        return skip(name, "no macvlan in this kernel");
    };
    for command in ["addr add 10.20.1.50/24 dev eth0", "link set eth0 up"] {
        broker.ip(command).unwrap();
    }
    lab.settle().unwrap();
    let _servers = [
        (&plc, 502),
        (&plc, 23),
        (&desk, 8080),
        (&desk, 23),
        (&broker, 1883),
    ]
    .map(|(host, port)| host.tcp_serve(port).unwrap());
    let reaches = |from: &Host, to: &str, port| from.tcp_connect(to, port, TIMEOUT);
    let works = || {
        for (from, to, port) in [
            (&broker, "10.20.1.11", 502),
            (&broker, "10.20.1.21", 8080),
            (&plc, "10.20.1.50", 1883),
            (&desk, "10.20.1.50", 1883),
        ] {
            assert_eq!(
                reaches(from, to, port),
                Outcome::Connected,
                "{from} to {to}:{port}"
            );
        }
    };
    let may_not = [
        (&broker, "10.20.1.11"),
        (&broker, "10.20.1.21"),
        (&plc, "10.20.1.21"),
    ];

    works();
    for (from, to) in may_not {
        assert_eq!(reaches(from, to, 23), Outcome::Connected);
    }

    let guard = Guard::start(&lab, "[limits]\ncontrol = 20\n");
    let policy = POLICY.replace("HOOK", hook);
    guard.apply(&policy.replace("MODE", "enforce"));
    assert_eq!(guard.attached()["lan2"], hook);
    works();
    // A copy of each leaves through each port, and each port has a budget for it.
    let own = Arp::request(BROKER_MAC, BROKER, [10, 20, 1, 99].into());
    let own = Ethernet::new(BROADCAST, BROKER_MAC, own).bytes();
    for _ in 0..16 {
        broker.send_frame("eth0", &own).unwrap();
    }
    let drops: Vec<String> = guard.drops().into_keys().collect();
    assert!(drops.iter().all(|it| it == "unknown_device"), "{drops:?}");
    for (from, to) in may_not {
        assert_eq!(reaches(from, to, 23), Outcome::Dropped, "{from} to {to}");
    }
    guard.told(&[("reason", "no_rule"), ("device", "broker")]);
    // More than a port's budget is too much.
    let too_much = || {
        for _ in 0..200 {
            // The kernel tells the sender at once when the port drops it.
            let _ = broker.send_frame("eth0", &own);
        }
        guard.packets("device_quota") > 0
    };
    assert!(eventually(PATIENCE, too_much), "{:?}", guard.drops());
    for command in [
        &["quarantine", "broker", "--reason", "odd"][..],
        &["release", "broker"],
    ] {
        guard.ctl.run(command).unwrap().ok().unwrap();
        let expected = match command[0] {
            "quarantine" => Outcome::Dropped,
            _ => Outcome::Connected,
        };
        for (to, port) in [("10.20.1.11", 502), ("10.20.1.21", 8080)] {
            assert_eq!(reaches(&broker, to, port), expected, "{command:?}: {to}");
        }
    }

    guard.apply(&policy.replace("MODE", "observe"));
    guard.observes("no_rule", || {
        works();
        for (from, to) in may_not {
            assert_eq!(reaches(from, to, 23), Outcome::Connected);
        }
    });
    lab.close().unwrap();
}
