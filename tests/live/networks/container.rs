//! A container has a macvlan on a guarded port, in its own namespace: does it work as the device that
//! it is, and does what it forges, and what is forged to it, stay away?

use std::net::{Ipv4Addr, Ipv6Addr};

use wardline_oracle::frames::{
    Arp, BROADCAST, Dhcp, Ethernet, Ipv4, Ipv6, Mac, Udp, group_mac, icmpv6,
};
use wardline_tests::{
    End, Host, Lab, Outcome, TIMEOUT, eventually,
    ward::{Guard, PATIENCE, skip},
};

pub(super) const POLICY: &str = r#"version: 1
zones:
  - {name: plcs, mode: MODE, subnets: [10.20.1.0/24, "fd20:1::/64"]}
  - {name: desks, mode: MODE, subnets: [10.20.2.0/24, "fd20:2::/64"]}
ports:
  - {interface: lan1, zone: plcs, attach: HOOK}
  - {interface: lan2, zone: desks, attach: HOOK}
devices:
  - {name: plc-1, zone: plcs, macs: ["02:00:00:00:01:11"], addresses: [10.20.1.11, "fd20:1::11"]}
  - {name: ws-1, zone: desks, macs: ["02:00:00:00:02:21"], addresses: [10.20.2.21, "fd20:2::21"]}
  - {name: broker, zone: plcs, macs: ["02:42:ac:00:00:50"], addresses: [10.20.1.50]}
rules:
  - {name: poll, from: [device:broker], to: [device:plc-1], services: [tcp/502], action: allow}
  - {name: mqtt, from: [zone:plcs, zone:desks], to: [device:broker], services: [tcp/1883, udp/1883], action: allow}
  - {name: log, from: [device:plc-1], to: [device:ws-1], services: [udp/514], action: allow}
  - {name: u, from: [router, device:ws-1, device:broker], to: [zone:plcs], services: [udp/502], action: allow}
"#;

const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 20, 1, 1);
pub(super) const PLC: Ipv4Addr = Ipv4Addr::new(10, 20, 1, 11);
pub(super) const BROKER: Ipv4Addr = Ipv4Addr::new(10, 20, 1, 50);
pub(super) const BROKER_MAC: Mac = [0x02, 0x42, 0xac, 0, 0, 0x50];
/// Of a container that nobody lists.
const STRANGER_MAC: Mac = [0x02, 0x42, 0xac, 0, 0, 0x66];
/// Of a host behind a container that bridges.
const INNER_MAC: Mac = [0x02, 0x42, 0xac, 0, 0, 0x77];

#[test]
fn a_container_above_a_port_is_a_device_and_not_the_router_at_xdp() {
    container("container-xdp", "xdp");
}

#[test]
fn a_container_above_a_port_is_a_device_and_not_the_router_at_tc() {
    container("container-tc", "tc");
}

fn container(name: &str, hook: &str) {
    let lab = Lab::new(name).unwrap();
    let [plc, desk] = [(1, 0x11), (2, 0x21)].map(|(net, host)| device(&lab, net, host));
    let (Some(broker), Some(stranger)) = (
        macvlan(&lab, "broker", &BROKER_MAC, "50"),
        macvlan(&lab, "stranger", &STRANGER_MAC, "66"),
    ) else {
        return skip(name, "no macvlan in this kernel");
    };
    let inner = behind_bridge(&lab);
    lab.settle().unwrap();
    let scene = Scene {
        lab: &lab,
        plc: &plc,
        broker: &broker,
        stranger: &stranger,
        inner: &inner,
    };
    let _servers = [
        plc.tcp_serve(502).unwrap(),
        broker.tcp_serve(1883).unwrap(),
        broker.tcp_serve(23).unwrap(),
        plc.tcp_serve(23).unwrap(),
    ];
    let _udp = plc.udp_serve(502).unwrap();
    let forged = forged(&plc);

    // Without Wardline everything arrives.
    scene.works();
    for (what, sender, frame, _) in &forged {
        assert!(scene.arrives(*sender, frame), "{what}");
    }
    assert!(scene.reaches_by_mac());
    let through = [(&broker, "10.20.1.11"), (&plc, "10.20.1.50")];
    for (from, to) in through {
        assert_eq!(from.tcp_connect(to, 23, TIMEOUT), Outcome::Connected);
    }

    // The forged claims have taken effect.
    for family in ["-4", "-6"] {
        plc.ip(&format!("{family} neighbour flush dev eth0"))
            .unwrap();
    }

    let guard = Guard::start(&lab, "");
    let policy = POLICY.replace("HOOK", hook);
    guard.apply(&policy.replace("MODE", "enforce"));
    assert_eq!(guard.attached()["lan1"], hook);
    scene.works();
    assert!(desk.udp_exchange("10.20.1.11", 502, TIMEOUT) == Outcome::Connected);
    // The stranger's own stack says something now and then.
    let mut drops = guard.drops();
    drops.remove("unknown_device");
    assert_eq!(drops, [].into(), "{hook}");
    for (what, sender, frame, reason) in &forged {
        let before = guard.packets(reason);
        assert!(!scene.arrives(*sender, frame), "{what}");
        let counted = || guard.packets(reason) > before;
        assert!(eventually(PATIENCE, counted), "{what}: {:?}", guard.drops());
    }
    guard.told(&[("reason", "arp_spoof"), ("device", "broker")]);
    assert!(!scene.reaches_by_mac());
    guard.told(&[("reason", "misdirected"), ("device", "plc-1")]);
    for (from, to) in through {
        assert_eq!(from.tcp_connect(to, 23, TIMEOUT), Outcome::Dropped);
    }
    let quarantine = ["quarantine", "broker", "--reason", "odd"];
    guard.ctl.run(&quarantine).unwrap().ok().unwrap();
    let polls = || broker.tcp_connect("10.20.1.11", 502, TIMEOUT);
    assert_eq!(polls(), Outcome::Dropped);
    guard.ctl.run(&["release", "broker"]).unwrap().ok().unwrap();
    assert_eq!(polls(), Outcome::Connected);

    // Observed, everything arrives again, and is told.
    guard.apply(&policy.replace("MODE", "observe"));
    let drops = guard.drops();
    scene.works();
    for (what, sender, frame, _) in &forged {
        assert!(scene.arrives(*sender, frame), "{what}");
    }
    assert!(scene.reaches_by_mac());
    guard.told(&[("reason", "unknown_device"), ("verdict", "pass")]);
    assert_eq!(guard.drops(), drops, "nothing more is dropped");
    lab.close().unwrap();
}

/// A device on a port of its own.
pub(super) fn device(lab: &Lab, net: u8, host: u8) -> Host {
    let device = lab.host(&format!("device-{net}")).unwrap();
    lab.wire(
        &End::new(lab.router(), &format!("lan{net}"))
            .index(PORT_INDEX + u32::from(net))
            .address(&format!("10.20.{net}.1/24"))
            .address(&format!("fd20:{net}::1/64")),
        &End::new(&device, "eth0")
            .mac(&format!("02:00:00:00:{net:02x}:{host:02x}"))
            .address(&format!("10.20.{net}.{host:x}/24"))
            .address(&format!("fd20:{net}::{host:x}/64"))
            .gateway(&format!("10.20.{net}.1"))
            .gateway(&format!("fd20:{net}::1")),
    )
    .unwrap();
    device
}

/// The index of a port is this and the number of its network.
const PORT_INDEX: u32 = 500;

/// A host behind a container that bridges what enters through an interface of its own, to which it
/// has given the index of the router's `lan2`.
fn behind_bridge(lab: &Lab) -> Host {
    let relay = macvlan(lab, "relay", &[2, 0x42, 0xac, 0, 0, 0x88], "88").unwrap();
    let inner = lab.host("inner").unwrap();
    lab.bridge(&relay, "br0", &[]).unwrap();
    relay.ip("link set eth0 master br0").unwrap();
    let mac = INNER_MAC.map(|byte| format!("{byte:02x}")).join(":");
    lab.wire(
        &End::new(&relay, "in0").index(PORT_INDEX + 2).master("br0"),
        &End::new(&inner, "eth0").mac(&mac),
    )
    .unwrap();
    inner
}

/// A container with a macvlan of lan1; none when this kernel has no such interfaces.
fn macvlan(lab: &Lab, name: &str, mac: &Mac, host: &str) -> Option<Host> {
    let container = above_lan1(lab, name, mac, "macvlan mode bridge")?;
    for command in [
        format!("addr add 10.20.1.{host}/24 dev eth0"),
        format!("addr add fd20:1::{host}/64 dev eth0 nodad"),
        "link set eth0 up".to_owned(),
    ] {
        container.ip(&command).unwrap();
    }
    Some(container)
}

/// A namespace with an eth0 of this kind above lan1; none when this kernel has no such interfaces.
pub(super) fn above_lan1(lab: &Lab, name: &str, mac: &Mac, kind: &str) -> Option<Host> {
    above(lab, "lan1", name, mac, kind)
}

/// The same, above any interface of the router.
pub(super) fn above(lab: &Lab, link: &str, name: &str, mac: &Mac, kind: &str) -> Option<Host> {
    let container = lab.host(name).unwrap();
    let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
    let netns = container.netns();
    let made = lab.router().ip(&format!(
        "link add {name} link {link} address {mac} netns {netns} type {kind}"
    ));
    match made {
        Ok(_) => {}
        Err(error) if error.to_string().contains("Unknown device type") => return None,
        Err(error) => panic!("{error:#}"),
    }
    container.ip(&format!("link set {name} name eth0")).unwrap();
    Some(container)
}

/// Who sends a forged frame.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum From {
    Broker,
    Stranger,
    Inner,
}

/// Frames that must not arrive, and for which reason.
pub(super) fn forged(plc: &Host) -> Vec<(&'static str, From, Vec<u8>, &'static str)> {
    let to: Mac = plc.mac("eth0").unwrap();
    let nodes: Ipv6Addr = "ff02::1".parse().unwrap();
    let link: Ipv6Addr = "fe80::66".parse().unwrap();
    let gateway: Ipv6Addr = "fd20:1::1".parse().unwrap();
    let broker6: Ipv6Addr = "fd20:1::50".parse().unwrap();
    let claim = |own| Ethernet::new(BROADCAST, own, Arp::request(own, GATEWAY, PLC));
    let udp = |own, source| {
        let datagram = Udp::new(9, 502, *b"forged");
        Ethernet::new(to, own, Ipv4::new(source, PLC, datagram))
    };
    let discovery = |own, source, upper| {
        let packet = Ipv6 {
            hop_limit: 255,
            ..Ipv6::new(source, nodes, upper)
        };
        Ethernet::new(group_mac(nodes), own, packet)
    };
    let announces = |own| discovery(own, link, icmpv6::router_advertisement(&[]));
    let target = icmpv6::target_link(BROKER_MAC);
    let takes = icmpv6::neighbour_advertisement(gateway, 0x20, &[target]);
    let offer = Dhcp::server(2, BROKER, to, Ipv4Addr::new(10, 20, 1, 99)).udp();
    let offer = Ethernet::new(to, BROKER_MAC, Ipv4::new(BROKER, PLC, offer));
    let (broker, stranger, inner) = (From::Broker, From::Stranger, From::Inner);
    let desk = [10, 20, 2, 21].into();
    let rows = [
        ("gateway's ARP", broker, claim(BROKER_MAC), "arp_spoof"),
        (
            "gateway's ARP",
            stranger,
            claim(STRANGER_MAC),
            "unknown_device",
        ),
        (
            "router advertisement",
            broker,
            announces(BROKER_MAC),
            "rogue_ra",
        ),
        (
            "router advertisement",
            stranger,
            announces(STRANGER_MAC),
            "unknown_device",
        ),
        (
            "gateway's ND",
            broker,
            discovery(BROKER_MAC, broker6, takes),
            "nd_spoof",
        ),
        ("DHCP offer", broker, offer, "rogue_dhcp"),
        (
            "UDP as the router",
            broker,
            udp(BROKER_MAC, GATEWAY),
            "spoofed_source",
        ),
        (
            "UDP as the router",
            stranger,
            udp(STRANGER_MAC, GATEWAY),
            "unknown_device",
        ),
        ("gateway's ARP", inner, claim(INNER_MAC), "unknown_device"),
        (
            "UDP as who may, from the port of that number",
            inner,
            udp(INNER_MAC, desk),
            "unknown_device",
        ),
        (
            "UDP of its own",
            stranger,
            udp(STRANGER_MAC, [10, 20, 1, 66].into()),
            "unknown_device",
        ),
    ];
    rows.map(|(what, from, frame, reason)| (what, from, frame.bytes(), reason))
        .into()
}

struct Scene<'a> {
    lab: &'a Lab,
    plc: &'a Host,
    broker: &'a Host,
    stranger: &'a Host,
    inner: &'a Host,
}

impl Scene<'_> {
    /// What the rules allow, in both directions and both families; the broker's IPv6 address is
    /// learned.
    fn works(&self) {
        for (from, to, port) in [
            (self.broker, "10.20.1.11", 502),
            (self.broker, "fd20:1::11", 502),
            (self.plc, "10.20.1.50", 1883),
            (self.plc, "fd20:1::50", 1883),
        ] {
            let outcome = from.tcp_connect(to, port, TIMEOUT);
            assert_eq!(outcome, Outcome::Connected, "{from} to {to}:{port}");
        }
        // The router itself.
        let outcome = self.lab.router().udp_exchange("10.20.1.11", 502, TIMEOUT);
        assert_eq!(outcome, Outcome::Connected, "the router");
    }

    /// Whether a packet that the PLC may send to a desk reaches the broker by its MAC, before one that
    /// it may send to the broker. The first packet of the flow goes by way of the router.
    fn reaches_by_mac(&self) -> bool {
        let own = self.plc.mac("eth0").unwrap();
        let gateway = self.lab.router().mac("lan1").unwrap();
        let sent = |to: Mac, address: [u8; 4], port| {
            let datagram = Udp::new(9, port, *b"log");
            Ethernet::new(to, own, Ipv4::new(PLC, address.into(), datagram)).bytes()
        };
        let astray = sent(BROKER_MAC, [10, 20, 2, 21], 514);
        let after = sent(BROKER_MAC, [10, 20, 1, 50], 1883);
        let sniffer = self.broker.sniff("eth0").unwrap();
        for frame in [&sent(gateway, [10, 20, 2, 21], 514), &astray, &after] {
            self.plc.send_frame("eth0", frame).unwrap();
        }
        let is_either = |it: &[u8]| it.starts_with(&astray) || it.starts_with(&after);
        let arrived = sniffer.wait_for(PATIENCE, is_either);
        arrived.expect("the frame after it").starts_with(&astray)
    }

    /// Whether a frame arrives at the PLC, before one that always does.
    fn arrives(&self, sender: From, frame: &[u8]) -> bool {
        let after = Ethernet::new(
            BROADCAST,
            BROKER_MAC,
            Arp::request(BROKER_MAC, BROKER, [10, 20, 1, 99].into()),
        );
        let after = after.bytes();
        let sniffer = self.plc.sniff("eth0").unwrap();
        let sender = match sender {
            From::Broker => self.broker,
            From::Stranger => self.stranger,
            From::Inner => self.inner,
        };
        // The kernel tells it at once when the port drops it.
        let _ = sender.send_frame("eth0", frame);
        self.broker.send_frame("eth0", &after).unwrap();
        let is_either = |it: &[u8]| it.starts_with(frame) || it.starts_with(&after);
        let arrived = sniffer.wait_for(PATIENCE, is_either);
        arrived.expect("the frame after it").starts_with(frame)
    }
}
