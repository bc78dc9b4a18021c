//! A camera hides data in what looks like control: out to a host behind the uplink, over to a pump of
//! another zone, and both from quarantine.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

use wardline_oracle::frames::{
    BROADCAST, Dhcp, Ethernet, Icmp, Ipv4, Ipv6, Mac, Packet, Udp, Upper, dhcpv6, group_mac, ip,
    mac as parsed,
};
use wardline_tests::{
    Host, eventually,
    ward::{ALWAYS, FAR, Guard, PATIENCE, TRIED, Ward, arrives, mac, policy, v4, v6, zone},
};

/// Whom the camera tries to reach.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whom {
    Far,
    Pump,
}

/// What it tries.
struct Way {
    what: &'static str,
    whom: Whom,
    frame: Vec<u8>,
    reason: &'static str,
}

/// A camera and a pump, each on a network of its own or both on ports of one bridge.
struct Scene {
    ward: Ward,
    camera: Host,
    pump: Host,
    bridged: bool,
    /// The router's MAC on the camera's network.
    gateway: Mac,
}

impl Scene {
    fn new(name: &str, bridged: bool) -> Self {
        let ward = Ward::new(name);
        let router = ward.lab.router();
        if bridged {
            let addresses = ["10.20.0.1/16", "fd20::1/32"];
            ward.lab.bridge(router, "br0", &addresses).unwrap();
        }
        let device = |net| {
            if bridged {
                ward.beside(net, "br0")
            } else {
                ward.device(net)
            }
        };
        let [camera, pump] = [1, 2].map(device);
        ward.lab.settle().unwrap();
        let gateway = router.mac(if bridged { "br0" } else { "lan1" }).unwrap();
        Self {
            ward,
            camera,
            pump,
            bridged,
            gateway,
        }
    }

    fn host(&self, whom: Whom) -> &Host {
        match whom {
            Whom::Far => &self.ward.far,
            Whom::Pump => &self.pump,
        }
    }

    /// A host's addresses, and the MAC by which the camera sends to it.
    fn place(&self, whom: Whom) -> (Ipv4Addr, Ipv6Addr, Mac) {
        let [four, six] = match whom {
            Whom::Far => FAR.map(str::to_owned),
            Whom::Pump => [v4(2), v6(2)],
        };
        let hop = match whom {
            Whom::Pump if self.bridged => parsed(&mac(2)),
            _ => self.gateway,
        };
        (four.parse().unwrap(), six.parse().unwrap(), hop)
    }

    /// A datagram of the camera's that a rule allows.
    fn honest(&self, whom: Whom) -> Vec<u8> {
        let (four, _, hop) = self.place(whom);
        let camera: Ipv4Addr = v4(1).parse().unwrap();
        let datagram = Ipv4::new(camera, four, Udp::new(7, 7, ALWAYS));
        Ethernet::new(hop, parsed(&mac(1)), datagram).bytes()
    }

    fn arrives(&self, way: &Way) -> bool {
        let frames = [way.frame.clone(), self.honest(way.whom)];
        arrives(self.host(way.whom), || {
            self.camera.flood("eth0", &frames).unwrap();
        })
    }

    fn ways(&self) -> Vec<Way> {
        let own: (Mac, Ipv4Addr, Ipv6Addr) = (
            parsed(&mac(1)),
            v4(1).parse().unwrap(),
            v6(1).parse().unwrap(),
        );
        let mut ways = Vec::new();
        let mut add = |what, whom, hop: Mac, packet: Packet, reason| {
            let frame = Ethernet::new(hop, own.0, packet).bytes();
            ways.push(Way {
                what,
                whom,
                frame,
                reason,
            });
        };
        let discovers = |to: Ipv6Addr| {
            // An option of 1 KiB that no node knows, so that all of them pass over it.
            let mut option = vec![253, 128];
            option.extend(TRIED);
            option.resize(1024, 0);
            let body = [&[0; 4][..], &to.octets(), &option].concat();
            Ipv6 {
                hop_limit: 255,
                ..Ipv6::new(own.2, to, Upper::Icmpv6(Icmp::new(135, 0, body)))
            }
        };
        let listens = |to: Ipv6Addr, hop_limit| {
            let body = [&[0; 4][..], TRIED].concat();
            Ipv6 {
                hop_limit,
                ..Ipv6::new(own.2, to, Upper::Icmpv6(Icmp::new(143, 0, body)))
            }
        };
        let joins = |to: Ipv4Addr, ttl| {
            let body = [&[0x16, 0, 0, 0, 239, 1, 2, 3][..], TRIED].concat();
            Ipv4 {
                ttl,
                ..Ipv4::new(own.1, to, Upper::Bytes(2, body))
            }
        };
        for whom in [Whom::Far, Whom::Pump] {
            let (four, six, hop) = self.place(whom);
            let (lists, reports) = ("listener report", "membership report");
            add(lists, whom, hop, listens(six, 64).into(), "no_rule");
            add(reports, whom, hop, joins(four, 64).into(), "no_rule");
            // What goes over a router is no neighbour's.
            if hop == self.gateway {
                let what = "neighbour solicitation";
                add(what, whom, hop, discovers(six).into(), "no_rule");
            }
        }
        let (four, six, hop) = self.place(Whom::Far);
        let mut renews = Dhcp {
            client: own.1,
            ..Dhcp::client(3, own.0)
        };
        renews.options.push((43, TRIED.to_vec()));
        let renews = Ipv4::new(own.1, four, renews.udp());
        add("DHCP", Whom::Far, hop, renews.into(), "no_rule");
        let mut asks = dhcpv6(5, own.0);
        asks.data.extend([0, 15, 0, TRIED.len() as u8]);
        asks.data.extend(TRIED);
        let asks = Ipv6::new(own.2, six, asks);
        add("DHCPv6", Whom::Far, hop, asks.into(), "no_rule");
        if self.bridged {
            // To a group, and yet to one host.
            let (.., hop) = self.place(Whom::Pump);
            let listeners = "ff02::16".parse().unwrap();
            let reports = listens(listeners, 1).into();
            let what = "listener report by MAC";
            add(what, Whom::Pump, hop, reports, "no_rule");
            let reports = joins([239, 1, 2, 3].into(), 1).into();
            let what = "membership report by MAC";
            add(what, Whom::Pump, hop, reports, "no_rule");
            let login = Packet::Bytes(0x888e, TRIED.to_vec());
            add("EAPOL", Whom::Pump, hop, login, "unknown_ethertype");
        }
        ways
    }
}

fn covert(name: &str, bridged: bool) {
    let scene = Scene::new(name, bridged);
    let Scene {
        ward, camera, pump, ..
    } = &scene;
    let ways = scene.ways();
    // Without Wardline all of it arrives.
    for way in &ways {
        assert!(scene.arrives(way), "{}", way.what);
    }
    for hook in ["xdp", "tc"] {
        let guard = Guard::start(&ward.lab, "");
        let zones = [1, 2].map(|net| zone(net, "", &format!(", attach: {hook}")));
        let honest = "  - {name: honest, from: [any, router], to: [zone:zone-2], services: [udp/7], action: allow}\n";
        guard.apply(&(policy(&zones, "udp/7, icmp/8, icmpv6/128") + honest));
        assert_eq!(guard.attached()["lan1"], hook);
        for way in &ways {
            let before = guard.packets(way.reason);
            assert!(!scene.arrives(way), "{hook} {}", way.what);
            let counted = || guard.packets(way.reason) > before;
            assert!(eventually(PATIENCE, counted), "{hook} {}", way.what);
        }
        guard.told(&[("reason", "no_rule"), ("device", "device-1")]);
        // Beside it, honest control: neighbours are found, and DHCP is for the router and for all.
        for family in ["-4", "-6"] {
            let flush = format!("{family} neighbour flush dev eth0");
            camera.ip(&flush).unwrap();
        }
        assert!(FAR.iter().all(|far| camera.ping(far)), "{hook}");
        asks_for_leases(&scene, &guard);

        let quarantine = ["quarantine", "device-1", "--reason", "odd"];
        guard.ctl.run(&quarantine).unwrap().ok().unwrap();
        let router = ward.lab.router();
        for (whom, host, to) in [
            (Whom::Far, &ward.far, FAR[0].to_owned()),
            (Whom::Pump, pump, v4(2)),
        ] {
            let frames: Vec<_> = ways
                .iter()
                .filter(|way| way.whom == whom)
                .map(|way| way.frame.clone())
                .collect();
            let dropped = || guard.drops().values().sum::<u64>();
            let before = dropped();
            let arrived = arrives(host, || {
                camera.flood("eth0", &frames).unwrap();
                let all = || dropped() >= before + frames.len() as u64;
                assert!(eventually(PATIENCE, all), "{hook} {:?}", guard.drops());
                router.udp_send(&to, 7, ALWAYS).unwrap();
            });
            assert!(!arrived, "{hook}: from quarantine to {to}");
        }
        assert_ne!(guard.packets("quarantined"), 0, "{hook}");
    }
}

/// What a client of DHCP sends passes as control: to all, to the group of servers, to the router.
fn asks_for_leases(scene: &Scene, guard: &Guard) {
    let own = parsed(&mac(1));
    let asks = |hop: Mac, from: IpAddr, to: IpAddr, udp: Udp| {
        Ethernet::new(hop, own, ip(from, to, udp)).bytes()
    };
    let [four, six]: [IpAddr; 2] = [v4(1), v6(1)].map(|it| it.parse().unwrap());
    let renews = Dhcp {
        client: v4(1).parse().unwrap(),
        ..Dhcp::client(3, own)
    };
    let (all, servers) = (Ipv4Addr::BROADCAST, "ff02::1:2".parse().unwrap());
    let router: [IpAddr; 2] = if scene.bridged {
        ["10.20.0.1", "fd20::1"]
    } else {
        ["10.20.1.1", "fd20:0:0:1::1"]
    }
    .map(|it| it.parse().unwrap());
    let discover = Dhcp::client(1, own).udp();
    let none = Ipv4Addr::UNSPECIFIED.into();
    let frames = [
        asks(BROADCAST, none, all.into(), discover),
        asks(scene.gateway, four, router[0], renews.udp()),
        asks(group_mac(servers), six, servers, dhcpv6(1, own)),
        asks(scene.gateway, six, router[1], dhcpv6(5, own)),
    ];
    // A server that listens, so that the router reports no closed port.
    let binds = || [67, 547].map(|port| UdpSocket::bind(("::", port)).unwrap());
    let _servers = scene.ward.lab.router().run(binds).unwrap();
    let (passed, drops) = (guard.packets("control"), guard.drops());
    scene.camera.flood("eth0", &frames).unwrap();
    let counted = || guard.packets("control") >= passed + frames.len() as u64;
    assert!(eventually(PATIENCE, counted), "{:?}", guard.reasons());
    assert_eq!(guard.drops(), drops);
}

#[test]
fn control_carries_nothing_past_the_rules_over_a_router() {
    covert("covert-routed", false);
}

#[test]
fn control_carries_nothing_past_the_rules_on_a_bridge() {
    covert("covert-bridged", true);
}
