//! Are devices on ports of one bridge segmented like any others, tagged or not?
//!
//! The router only bridges here: what is not judged at the port is not judged at all.

use std::{
    net::{Ipv4Addr, Ipv6Addr, UdpSocket},
    time::Duration,
};

use socket2::SockRef;
use wardline_oracle::frames::{
    Arp, BROADCAST, Dhcp, Ethernet, Ipv4, Ipv6, Mac, Udp, dhcpv6, group_mac, icmpv6, mac,
};
use wardline_tests::{
    End, Host, Lab, Outcome, Sniffer, TIMEOUT,
    ward::{Guard, PATIENCE, skip},
};

const GATEWAY_4: Ipv4Addr = Ipv4Addr::new(10, 20, 1, 1);
const GATEWAY_6: Ipv6Addr = Ipv6Addr::new(0xfd20, 0, 0, 1, 0, 0, 0, 1);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const GROUP: Ipv4Addr = Ipv4Addr::new(239, 1, 2, 3);
const GROUP_MAC: Mac = [1, 0, 0x5e, 1, 2, 3];

/// A device and where it is plugged in.
struct Device {
    name: &'static str,
    port: &'static str,
    mac: &'static str,
    v4: &'static str,
    v6: &'static str,
}

const PUMP_1: Device = Device {
    name: "pump-1",
    port: "p1",
    mac: "02:00:00:00:01:11",
    v4: "10.20.1.11",
    v6: "fd20:0:0:1::11",
};
const PUMP_2: Device = Device {
    name: "pump-2",
    port: "p2",
    mac: "02:00:00:00:01:12",
    v4: "10.20.1.12",
    v6: "fd20:0:0:1::12",
};
const CAMERA: Device = Device {
    name: "camera",
    port: "c1",
    mac: "02:00:00:00:02:21",
    v4: "10.20.1.140",
    v6: "fd20:0:0:1:8000::140",
};
const STRANGER: Device = Device {
    name: "stranger",
    port: "p3",
    mac: "02:00:00:00:ee:01",
    v4: "10.20.1.99",
    v6: "fd20:0:0:1::99",
};

impl Device {
    fn mac(&self) -> Mac {
        mac(self.mac)
    }

    fn v4(&self) -> Ipv4Addr {
        self.v4.parse().unwrap()
    }

    fn v6(&self) -> Ipv6Addr {
        self.v6.parse().unwrap()
    }
}

/// The policy of that bridge; two ports are judged at XDP, two at TC.
fn policy(rules: &str) -> String {
    let mut text = String::from(
        r#"
version: 1
zones:
  - {name: pumps, subnets: [10.20.1.0/24, "fd20:0:0:1::/64"]}
  - {name: cameras, subnets: [10.20.1.128/25, "fd20:0:0:1:8000::/65"]}
ports:
  - {interface: p1, zone: pumps, attach: xdp}
  - {interface: p2, zone: pumps, attach: tc}
  - {interface: p3, zone: pumps, attach: xdp}
  - {interface: c1, zone: cameras, attach: tc}
devices:
"#,
    );
    for (device, zone) in [(PUMP_1, "pumps"), (PUMP_2, "pumps"), (CAMERA, "cameras")] {
        let Device {
            name,
            port,
            mac,
            v4,
            v6,
        } = device;
        text.push_str(&format!(
            "  - {{name: {name}, zone: {zone}, macs: [\"{mac}\"], addresses: [{v4}, \"{v6}\"], \
             port: {port}}}\n"
        ));
    }
    text.push_str("rules:\n");
    text.push_str(rules);
    text
}

/// Plugs devices into one bridge on the router.
fn plug_in(lab: &Lab, devices: &[&Device]) -> Vec<Host> {
    let router = lab.router();
    lab.bridge(router, "br0", &["10.20.1.1/24", "fd20:0:0:1::1/64"])
        .unwrap();
    let hosts = devices.iter().map(|device| {
        let host = lab.host(device.name).unwrap();
        lab.wire(
            &End::new(&host, "eth0")
                .mac(device.mac)
                .address(&format!("{}/24", device.v4))
                .address(&format!("{}/64", device.v6)),
            &End::new(router, device.port).master("br0"),
        )
        .unwrap();
        host
    });
    let hosts = hosts.collect();
    lab.settle().unwrap();
    hosts
}

#[test]
fn ports_of_a_bridge_are_judged_like_others() {
    judged(&Lab::new("bridge").unwrap(), |_| true);
}

#[test]
fn ports_of_a_bridge_that_filters_vlans_are_judged_like_others() {
    let lab = Lab::new("filtering").unwrap();
    judged(&lab, |router| {
        let filters = router.ip("link set br0 type bridge vlan_filtering 1");
        if let Err(problem) = &filters {
            skip("VLAN filtering bridge", &format!("{problem:#}"));
        }
        filters.is_ok()
    });
}

fn judged(lab: &Lab, prepare: impl FnOnce(&Host) -> bool) {
    let hosts = plug_in(lab, &[&PUMP_1, &PUMP_2, &CAMERA, &STRANGER]);
    if !prepare(lab.router()) {
        return;
    }
    let [pump_1, pump_2, camera, stranger] = &hosts[..] else {
        unreachable!("as many as were asked for")
    };
    let guard = Guard::start(lab, "");
    guard.apply(&policy(
        "  - {name: pumps, from: [zone:pumps], to: [zone:pumps], services: [tcp/5000], \
         action: allow}\n  \
         - {name: video, from: [zone:pumps], to: [zone:cameras], services: [tcp/554], \
         action: allow}\n  \
         - {name: not-this-one, from: [device:pump-2], to: [zone:cameras], action: deny}\n",
    ));
    let servers: Vec<_> = hosts
        .iter()
        .flat_map(|host| [5000, 554].map(|port| host.tcp_serve(port).unwrap()))
        .collect();
    for (from, to, port, reason) in [
        (pump_1, &PUMP_2, 5000, "rule"),
        (pump_2, &PUMP_1, 5000, "rule"),
        (pump_1, &CAMERA, 554, "rule"),
        (pump_1, &PUMP_2, 554, "no_rule"),
        (pump_2, &CAMERA, 554, "denied_by_rule"),
        (camera, &PUMP_1, 5000, "no_rule"),
        (stranger, &PUMP_1, 5000, "unknown_device"),
    ] {
        for address in [to.v4, to.v6] {
            let before = guard.packets(reason);
            let connected = from.tcp_connect(address, port, TIMEOUT) == Outcome::Connected;
            assert_eq!(connected, reason == "rule", "{from} to {address}, {port}");
            assert!(
                guard.packets(reason) > before,
                "{from} to {address}: {reason}"
            );
        }
    }
    guard.told(&[
        ("device", "pump-1"),
        ("reason", "no_rule"),
        ("interface", "p1"),
        ("destination", PUMP_2.v4),
    ]);
    guard.told(&[
        ("device", "pump-2"),
        ("reason", "denied_by_rule"),
        ("rule", "not-this-one"),
    ]);
    guard.told(&[
        ("device", "camera"),
        ("reason", "no_rule"),
        ("zone", "cameras"),
    ]);
    guard.told(&[("reason", "unknown_device"), ("interface", "p3")]);
    let served: u64 = servers.iter().map(|server| server.served()).sum();
    assert_eq!(served, 6);
}

/// Sends frames in this order, then the marker; answers which of them were heard before it.
fn heard(from: &Host, frames: &[Vec<u8>], marker: &Ethernet, at: &[&Sniffer]) -> Vec<Vec<usize>> {
    let mut all = frames.to_vec();
    all.push(marker.bytes());
    from.flood("eth0", &all).unwrap();
    let heard = |sniffer: &&Sniffer| {
        let mut heard = Vec::new();
        let marked = sniffer.wait_for(PATIENCE, |frame| {
            let number = all.iter().position(|sent| sent == frame);
            heard.extend(number.filter(|number| *number < frames.len()));
            number == Some(frames.len())
        });
        assert!(marked.is_some(), "the marker was not heard");
        heard
    };
    at.iter().map(heard).collect()
}

/// An ARP announcement of a device, which every port of the zone may hear.
fn announcement(device: &Device) -> Ethernet {
    let arp = Arp::request(device.mac(), device.v4(), device.v4());
    Ethernet::new(BROADCAST, device.mac(), arp)
}

#[test]
fn a_neighbour_cannot_be_impersonated() {
    let lab = Lab::new("impersonation").unwrap();
    let hosts = plug_in(&lab, &[&PUMP_1, &PUMP_2]);
    let gateway = lab.router().mac("br0").unwrap();
    // Router advertisements come from it.
    let link_local = lab.router().link_local("br0").unwrap();
    let guard = Guard::start(&lab, "");
    guard.apply(&policy(
        "  - {name: all, from: [any, router], to: [any, router], services: [tcp/*, udp/*, icmp/*, icmpv6/*], action: allow}\n",
    ));
    let (own, other) = (PUMP_2.mac(), PUMP_1.mac());
    let arp = |to: Mac, arp: Arp| Ethernet::new(to, own, arp);
    let nd = |to: Ipv6Addr, upper| {
        let packet = Ipv6 {
            hop_limit: 255,
            ..Ipv6::new(PUMP_2.v6(), to, upper)
        };
        let to = if to.is_multicast() {
            group_mac(to)
        } else {
            other
        };
        Ethernet::new(to, own, packet)
    };
    let here = &[icmpv6::target_link(own)];
    let claim = |target| icmpv6::neighbour_advertisement(target, 0xa0, here);
    let udp = |from: Mac, address: Ipv4Addr| {
        Ethernet::new(
            other,
            from,
            Ipv4::new(address, PUMP_1.v4(), Udp::new(9, 9, *b"x")),
        )
    };
    let frames = [
        (
            "arp_spoof",
            arp(other, Arp::reply(own, GATEWAY_4, other, PUMP_1.v4())),
        ),
        (
            "arp_spoof",
            arp(BROADCAST, Arp::request(own, GATEWAY_4, GATEWAY_4)),
        ),
        (
            "arp_spoof",
            arp(BROADCAST, Arp::request(own, PUMP_1.v4(), GATEWAY_4)),
        ),
        (
            "arp_spoof",
            arp(other, Arp::reply(gateway, GATEWAY_4, other, PUMP_1.v4())),
        ),
        ("nd_spoof", nd(ALL_NODES, claim(GATEWAY_6))),
        ("nd_spoof", nd(PUMP_1.v6(), claim(GATEWAY_6))),
        ("nd_spoof", nd(ALL_NODES, claim(PUMP_1.v6()))),
        ("nd_spoof", nd(ALL_NODES, claim(link_local))),
        ("nd_spoof", nd(PUMP_1.v6(), claim(link_local))),
        (
            "nd_spoof",
            nd(
                PUMP_1.v6(),
                icmpv6::neighbour_solicitation(PUMP_1.v6(), &[icmpv6::source_link(gateway)]),
            ),
        ),
        ("rogue_ra", nd(ALL_NODES, icmpv6::router_advertisement(&[]))),
        (
            "rogue_ra",
            nd(PUMP_1.v6(), icmpv6::redirect(PUMP_2.v6(), GATEWAY_6)),
        ),
        (
            "rogue_dhcp",
            Ethernet::new(
                BROADCAST,
                own,
                Ipv4::new(
                    PUMP_2.v4(),
                    Ipv4Addr::BROADCAST,
                    Dhcp::server(2, PUMP_2.v4(), other, Ipv4Addr::new(10, 20, 1, 77)).udp(),
                ),
            ),
        ),
        (
            "rogue_dhcp",
            Ethernet::new(
                other,
                own,
                Ipv6::new(PUMP_2.v6(), PUMP_1.v6(), dhcpv6(7, other)),
            ),
        ),
        ("spoofed_source", udp(own, GATEWAY_4)),
        ("unknown_device", udp(gateway, GATEWAY_4)),
        (
            "wrong_port",
            Ethernet::new(
                BROADCAST,
                other,
                Ipv4::new(PUMP_1.v4(), GATEWAY_4, Udp::new(9, 9, *b"x")),
            ),
        ),
    ];
    let sniffer = hosts[0].sniff("eth0").unwrap();
    let sent: Vec<_> = frames.iter().map(|(_, frame)| frame.bytes()).collect();
    let heard = heard(&hosts[1], &sent, &announcement(&PUMP_2), &[&sniffer]);
    let heard: Vec<&str> = heard[0].iter().map(|number| frames[*number].0).collect();
    assert!(heard.is_empty(), "{heard:?}");
    let mut expected = std::collections::BTreeMap::new();
    for (reason, _) in &frames {
        *expected.entry((*reason).to_owned()).or_default() += 1_u64;
    }
    assert_eq!(guard.drops(), expected);
    // Both devices still have their own addresses.
    assert!(hosts[0].ping("10.20.1.1") && hosts[0].ping("fd20:0:0:1::1"));
    assert!(hosts[0].ping(PUMP_2.v4) && hosts[1].ping(PUMP_1.v6));
}

#[test]
fn a_group_is_judged_for_each_port() {
    let lab = Lab::new("groups").unwrap();
    let hosts = plug_in(&lab, &[&PUMP_1, &PUMP_2, &CAMERA]);
    let guard = Guard::start(&lab, "");
    let sniffers = [1, 2].map(|number: usize| hosts[number].sniff("eth0").unwrap());
    let at = sniffers.each_ref();
    let question = Ipv4 {
        ttl: 1,
        ..Ipv4::new(PUMP_1.v4(), GROUP, Udp::new(9, 9999, *b"who is there"))
    };
    let question = Ethernet::new(GROUP_MAC, PUMP_1.mac(), question).bytes();
    let rule = |name: &str, from: &str, to: &str, action: &str| {
        format!(
            "  - {{name: {name}, from: [\"{from}\"], to: [\"{to}\"], services: [udp/9999], \
             action: {action}}}\n"
        )
    };
    let group = "cidr:239.1.2.3/32";
    let to_group = rule("group", "zone:pumps", group, "allow");
    let to_cameras = rule("cameras", "zone:pumps", "zone:cameras", "allow");
    let to_any = rule("any", "zone:pumps", "any", "allow");
    // Whether the other pump and the camera hear the frame, and the reason of the drop, if any.
    for (rules, hears, reason) in [
        (String::new(), [false, false], "no_rule"),
        (to_group.clone(), [true, false], "no_rule"),
        (to_cameras.clone(), [false, false], "no_rule"),
        (format!("{to_group}{to_cameras}"), [true, true], ""),
        (to_any.clone(), [true, true], ""),
        (
            to_any.clone() + &rule("not", "device:pump-1", "zone:cameras", "deny"),
            [true, false],
            "denied_by_rule",
        ),
        (
            to_any.clone() + &rule("not", "zone:pumps", group, "deny"),
            [false, false],
            "denied_by_rule",
        ),
    ] {
        guard.apply(&policy(&rules));
        let before = guard.drops();
        let question = std::slice::from_ref(&question);
        let heard = heard(&hosts[0], question, &announcement(&PUMP_1), &at);
        let heard = [!heard[0].is_empty(), !heard[1].is_empty()];
        assert_eq!(heard, hears, "{rules}");
        let mut after = guard.drops();
        if !reason.is_empty() {
            *after.get_mut(reason).unwrap() -= 1;
            after.retain(|_, packets| *packets != 0);
        }
        assert_eq!(after, before, "{rules}");
    }

    // A frame from the router to a group reaches all ports, if a rule allows it.
    let say = || {
        lab.router()
            .run(|| {
                let socket = UdpSocket::bind((GATEWAY_4, 9)).unwrap();
                let socket_of = SockRef::from(&socket);
                socket_of.set_multicast_if_v4(&GATEWAY_4).unwrap();
                socket.send_to(b"it is me", (GROUP, 9999)).unwrap();
            })
            .unwrap();
        at.map(|sniffer| {
            let said = |frame: &[u8]| frame.ends_with(b"it is me");
            sniffer.wait_for(Duration::from_millis(300), said).is_some()
        })
    };
    assert_eq!(say(), [false, false]);
    guard.apply(&policy(&rule("router", "router", group, "allow")));
    assert_eq!(say(), [true, true]);
}

/// Frames from one device to another, and whether they may arrive where both are on VLAN 20 of
/// ports that carry it beside another zone's untagged frames.
fn tagged(from: &Device, to: &Device) -> Vec<(&'static str, Ethernet, bool)> {
    let frame = |text: &str| {
        let packet = Ipv4::new(from.v4(), to.v4(), Udp::new(9, 9, text.as_bytes()));
        Ethernet::new(to.mac(), from.mac(), packet)
    };
    vec![
        ("its VLAN", frame("a").tagged(20), true),
        ("another VLAN", frame("b").tagged(30), false),
        ("no tag", frame("c"), false),
        ("a priority tag", frame("d").tagged(0), false),
        ("a priority on its VLAN", frame("e").tagged(0x6014), true),
        ("two tags", frame("f").tagged(20).tagged(20), false),
        (
            "two tags, the outer for priority",
            frame("g").tagged(20).tagged(0),
            false,
        ),
        ("802.1ad", frame("h").tagged_as(0x88a8, 20), false),
        (
            "802.1ad around it",
            frame("i").tagged(20).tagged_as(0x88a8, 20),
            false,
        ),
    ]
}

const TAGGED: &str = r#"
version: 1
zones:
  - {name: pumps, subnets: [10.20.1.0/24]}
  - {name: cameras, subnets: [10.20.2.0/24]}
ports:
  - {interface: t1, zone: pumps, vlans: [{id: 20, zone: cameras}]}
  - {interface: t2, zone: pumps, vlans: [{id: 20, zone: cameras}]}
devices:
  - {name: camera-1, zone: cameras, macs: ["02:00:00:00:02:21"], addresses: [10.20.2.21]}
  - {name: camera-2, zone: cameras, macs: ["02:00:00:00:02:22"], addresses: [10.20.2.22]}
rules:
  - {name: all, from: [any], to: [any], services: [tcp/*, udp/*, icmp/*, icmpv6/*], action: allow}
"#;

const CAMERA_1: Device = Device {
    name: "camera-1",
    port: "t1",
    mac: "02:00:00:00:02:21",
    v4: "10.20.2.21",
    v6: "",
};
const CAMERA_2: Device = Device {
    name: "camera-2",
    port: "t2",
    mac: "02:00:00:00:02:22",
    v4: "10.20.2.22",
    v6: "",
};

/// Connects a device to a port of the router's bridge, directly or through a switch. The switch
/// takes the tag out of the frame, and sends it on beside the frame (`true`) or in it again
/// (`false`).
fn plug_in_tagged(lab: &Lab, device: &Device, switch: Option<bool>) -> Host {
    let host = lab.host(device.name).unwrap();
    let near = End::new(&host, "eth0").mac(device.mac);
    let port = End::new(lab.router(), device.port).master("br0");
    let Some(beside) = switch else {
        lab.wire(&near, &port).unwrap();
        return host;
    };
    let switch = lab.host(&format!("switch-{}", device.name)).unwrap();
    lab.bridge(&switch, "br0", &[]).unwrap();
    lab.wire(&near, &End::new(&switch, "device").master("br0"))
        .unwrap();
    let up = End::new(&switch, "router").master("br0").tx_vlan(beside);
    lab.wire(&up, &port).unwrap();
    host
}

#[test]
fn tags_in_the_frame_are_judged() {
    tags(None);
}

#[test]
fn tags_beside_the_frame_are_judged() {
    tags(Some(true));
}

#[test]
fn tags_that_a_switch_puts_back_are_judged() {
    tags(Some(false));
}

fn tags(switch: Option<bool>) {
    let lab = Lab::new("tags").unwrap();
    lab.bridge(lab.router(), "br0", &[]).unwrap();
    let one = plug_in_tagged(&lab, &CAMERA_1, switch);
    let two = plug_in_tagged(&lab, &CAMERA_2, None);
    lab.settle().unwrap();
    let guard = Guard::start(&lab, "");
    guard.apply(TAGGED);
    assert!(guard.attached().values().all(|hook| hook == "tc"));
    let sniffer = two.sniff("eth0").unwrap();
    let frames = tagged(&CAMERA_1, &CAMERA_2);
    let sent: Vec<_> = frames.iter().map(|(_, frame, _)| frame.bytes()).collect();
    let marker = announcement(&CAMERA_1).tagged(20);
    let heard = heard(&one, &sent, &marker, &[&sniffer]);
    let heard: Vec<&str> = heard[0].iter().map(|number| frames[*number].0).collect();
    let may: Vec<&str> = frames
        .iter()
        .filter(|(.., may)| *may)
        .map(|(name, ..)| *name)
        .collect();
    assert_eq!(heard, may);
    // The answer passes as well.
    let sniffer = one.sniff("eth0").unwrap();
    let answer = Ipv4::new(CAMERA_2.v4(), CAMERA_1.v4(), Udp::new(9, 9, *b"answer"));
    let answer = Ethernet::new(CAMERA_1.mac(), CAMERA_2.mac(), answer).tagged(20);
    two.send_frame("eth0", &answer.bytes()).unwrap();
    let came = sniffer.wait_for(PATIENCE, |frame| frame == answer.bytes());
    assert!(came.is_some());
    assert_eq!(guard.packets("wrong_vlan"), 3, "{:?}", guard.drops());
    guard.told(&[("reason", "wrong_vlan"), ("interface", "t1")]);
}

#[test]
fn a_tag_in_the_frame_is_no_way_around_an_untagged_port() {
    untagged(None);
}

#[test]
fn a_tag_beside_the_frame_is_no_way_around_an_untagged_port() {
    untagged(Some(true));
}

fn untagged(switch: Option<bool>) {
    let lab = Lab::new("untagged").unwrap();
    lab.bridge(lab.router(), "br0", &[]).unwrap();
    let one = plug_in_tagged(&lab, &CAMERA_1, switch);
    let two = plug_in_tagged(&lab, &CAMERA_2, None);
    // A host behind an unguarded port, where frames are not judged as they leave.
    let outside = lab.host("outside").unwrap();
    lab.wire(
        &End::new(&outside, "eth0"),
        &End::new(lab.router(), "uplink").master("br0"),
    )
    .unwrap();
    lab.settle().unwrap();
    let guard = Guard::start(&lab, "");
    guard.apply(&TAGGED.replace(
        "zone: pumps, vlans: [{id: 20, zone: cameras}]",
        "zone: cameras",
    ));
    assert!(guard.attached().values().all(|hook| hook == "xdp"));
    let sniffers = [&two, &outside].map(|host| host.sniff("eth0").unwrap());
    // To a MAC that the bridge does not know, so that it floods all ports.
    let mut frames = tagged(&CAMERA_1, &CAMERA_2);
    for (_, frame, _) in &mut frames {
        frame.destination = [2, 0, 0, 0, 0xdd, 1];
    }
    let sent: Vec<_> = frames.iter().map(|(_, frame, _)| frame.bytes()).collect();
    let at = sniffers.each_ref();
    for heard in heard(&one, &sent, &announcement(&CAMERA_1), &at) {
        let heard: Vec<&str> = heard.iter().map(|number| frames[*number].0).collect();
        // A priority tag counts as no tag.
        assert_eq!(heard, ["no tag", "a priority tag"], "{switch:?}");
    }
    let drops: u64 = guard.drops().values().sum();
    assert_eq!(drops as usize, frames.len() - 2);
    assert!(guard.packets("wrong_vlan") >= 3, "{:?}", guard.drops());
}
