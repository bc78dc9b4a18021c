//! Does `explain` say of a packet what the kernel does with it, where rules alone do not decide?

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::Value;
use wardline_oracle::frames::{
    Ethernet, Extension, Ipv4, Ipv6, Packet, ROUTER_ALERT, Udp, group_mac, icmpv6, igmp_report, ip,
    mac as parsed,
};
use wardline_tests::{
    End, Host, eventually,
    ward::{Guard, PATIENCE, Ward, mac, policy, v4, v6, zone},
};

/// The group that the camera asks.
const GROUP: &str = "239.255.255.250";
/// The port that it asks from.
const ASKER: u16 = 40_000;

/// Two zones on one bridge; that of the first has two ports, and its device is at the second of them.
fn document(hook: &str) -> String {
    let attach = format!(", attach: {hook}");
    let mut zones = [1, 2].map(|net| zone(net, "", &attach));
    zones[0][1] += &format!("  - {{interface: lan4, zone: zone-1{attach}}}\n");
    policy(&zones, "udp/7")
        + &format!(
            "  - {{name: groups, from: [zone:zone-1], to: [any], services: [proto/2, \"icmpv6/*\"], \
             action: allow}}\n  - {{name: search, from: [zone:zone-2], to: [\"cidr:{GROUP}/32\"], \
             services: [udp/1900], answers_from: [zone:zone-1], action: allow}}\n"
        )
}

/// A packet of the device, how it is asked about, and why it passes or not.
struct Row {
    packet: Packet,
    to: &'static str,
    service: &'static str,
    reason: &'static str,
}

fn rows() -> Vec<Row> {
    let [own, other]: [Ipv4Addr; 2] = [v4(1), v4(2)].map(|it| it.parse().unwrap());
    let [own6, other6]: [Ipv6Addr; 2] = [v6(1), v6(2)].map(|it| it.parse().unwrap());
    let (group, group6) = ("239.1.1.1", "ff02::16");
    let igmp = |to: &str| {
        let to: Ipv4Addr = to.parse().unwrap();
        Packet::from(Ipv4 {
            ttl: 1,
            options: ROUTER_ALERT.to_vec(),
            ..Ipv4::new(own, to, igmp_report(to))
        })
    };
    let mld = |to: Ipv6Addr| {
        Packet::from(Ipv6 {
            hop_limit: 1,
            extensions: vec![Extension::router_alert()],
            ..Ipv6::new(
                own6,
                to,
                icmpv6::listener_report("ff15::1".parse().unwrap()),
            )
        })
    };
    let row = |packet, to, service, reason| Row {
        packet,
        to,
        service,
        reason,
    };
    let udp = |to: IpAddr, port| ip(own.into(), to, Udp::new(9, port, *b"x"));
    let far = Ipv4Addr::new(198, 51, 100, 7).into();
    vec![
        row(udp(far, 7), "198.51.100.7", "udp/7", "rule"),
        row(udp(other.into(), 7), "device:device-2", "udp/7", "no_rule"),
        row(igmp(group), group, "proto/2", "control"),
        row(igmp(&v4(2)), "10.20.2.11", "proto/2", "no_rule"),
        row(
            mld(group6.parse().unwrap()),
            group6,
            "icmpv6/143",
            "control",
        ),
        row(mld(other6), "fd20:0:0:2::11", "icmpv6/143", "no_rule"),
    ]
}

/// What `explain` says of a packet from somebody.
fn explains(guard: &Guard, from: &str, to: &str, service: &str) -> Value {
    let asked = ["-o", "json", "explain", "--from", from, "--to", to, service];
    let answer = guard.ctl.run(&asked).unwrap();
    assert!(matches!(answer.code, 0 | 3), "{answer:?}");
    serde_json::from_str(&answer.stdout).unwrap()
}

#[test]
fn explain_says_what_happens_to_a_packet() {
    let ward = Ward::new("explained");
    let addresses = ["10.20.0.1/16", "fd20::1/32"];
    let router = ward.lab.router();
    ward.lab.bridge(router, "br0", &addresses).unwrap();
    let camera = ward.beside(2, "br0");
    // The first port of the zone has nobody behind it.
    router
        .ip("link add lan1 type veth peer name spare")
        .unwrap();
    router.ip("link set lan1 master br0 up").unwrap();
    let device = ward.lab.host("device-1").unwrap();
    let port = End::new(router, "lan4").master("br0");
    ward.plug_in(&device, 1, &port);
    ward.lab.settle().unwrap();
    let (gateway, own) = (router.mac("br0").unwrap(), parsed(&mac(1)));
    let sends = |host: &Host, packet: Packet, to: IpAddr| {
        let mac = if to.is_multicast() {
            group_mac(to)
        } else {
            gateway
        };
        let from = host.mac("eth0").unwrap();
        let frame = Ethernet::new(mac, from, packet);
        host.send_frame("eth0", &frame.bytes()).unwrap();
    };
    for hook in ["xdp", "tc"] {
        let guard = Guard::start(&ward.lab, "");
        guard.apply(&document(hook));
        for Row {
            packet,
            to,
            service,
            reason,
        } in rows()
        {
            let what = format!("{hook} {to} {service}");
            let (before, drops) = (guard.packets(reason), guard.drops());
            let target = match to.strip_prefix("device:") {
                Some(_) => v4(2),
                None => to.to_owned(),
            };
            sends(&device, packet, target.parse().unwrap());
            let counted = || guard.packets(reason) > before;
            assert!(
                eventually(PATIENCE, counted),
                "{what} {:?}",
                guard.reasons()
            );
            let passes = reason != "no_rule";
            assert_eq!(guard.drops() == drops, passes, "{what} {:?}", guard.drops());
            let from = if target.contains(':') {
                v6(1)
            } else {
                "device:device-1".to_owned()
            };
            let said = explains(&guard, &from, to, service);
            assert_eq!(said["reason"], reason, "{what} {said}");
            // It is at the second port of its zone.
            let text = said["packet"].as_str().unwrap();
            assert!(text.contains("entering lan4"), "{what} {text}");
        }

        // IPv4 in IPv6 is nobody's source.
        let mapped = "::ffff:198.51.100.7";
        let from: Ipv6Addr = mapped.parse().unwrap();
        let to: Ipv6Addr = v6(2).parse().unwrap();
        let frame = Ethernet::new(gateway, own, Ipv6::new(from, to, Udp::new(9, 7, *b"x")));
        let before = guard.packets("spoofed_source");
        device.send_frame("eth0", &frame.bytes()).unwrap();
        let counted = || guard.packets("spoofed_source") > before;
        assert!(
            eventually(PATIENCE, counted),
            "{hook} {:?}",
            guard.reasons()
        );
        let said = explains(&guard, mapped, &v6(2), "udp/7");
        assert_eq!(said["reason"], "spoofed_source", "{hook} {said}");

        // What answers a question passes, and explain names the rule, also while nobody has asked.
        let [own, cameras]: [IpAddr; 2] = [v4(1), v4(2)].map(|it| it.parse().unwrap());
        let group: IpAddr = GROUP.parse().unwrap();
        let answer = || {
            sends(
                &device,
                ip(own, cameras, Udp::new(9, ASKER, *b"x")),
                cameras,
            )
        };
        let said = explains(&guard, "device:device-1", "device:device-2", "udp/40000");
        assert_eq!(said["reason"], "no_rule", "{hook} {said}");
        let text = said["packet"].as_str().unwrap();
        let note = "; if 10.20.2.11 has asked by search from port 40000 in the last 10 s, allow";
        assert!(text.contains(note), "{hook} {text}");
        let (drops, passes) = (guard.packets("no_rule"), guard.packets("rule"));
        answer();
        let dropped = || guard.packets("no_rule") > drops;
        assert!(eventually(PATIENCE, dropped), "{hook}");
        sends(
            &camera,
            ip(cameras, group, Udp::new(ASKER, 1900, *b"x")),
            group,
        );
        answer();
        let passed = || guard.packets("rule") >= passes + 2;
        assert!(eventually(PATIENCE, passed), "{hook} {:?}", guard.reasons());
    }
}
