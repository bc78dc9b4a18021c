//! A host behind the uplink sends what looks like control of the devices' link, and in the name of
//! hosts of their network.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket},
};

use wardline_oracle::frames::{Ethernet, Icmp, Ipv4, Ipv6, Packet, Udp, Upper};
use wardline_tests::{
    Host, TIMEOUT, eventually,
    ward::{
        ALWAYS, FAR, Guard, PATIENCE, TRIED, Ward, arrives, mac, policy, receives, v4, v6, zone,
    },
};

/// Ports of DHCP: source, destination.
const DHCP: [(u16, u16, usize); 4] = [(67, 68, 0), (68, 67, 0), (67, 67, 0), (547, 546, 1)];

#[test]
fn dhcp_that_the_router_has_forwarded_is_judged_by_policy() {
    let ward = Ward::new("uplink-dhcp");
    let device = ward.device(1);
    ward.lab.settle().unwrap();
    let own = [v4(1), v6(1)];
    let arrives = |(from, to, family): (u16, u16, usize)| {
        let bind = |host: &Host, address: &str, port: u16| {
            let at = (address.parse::<IpAddr>().unwrap(), port);
            host.run(|| UdpSocket::bind(at).unwrap()).unwrap()
        };
        let receiver = bind(&device, &own[family], to);
        receiver.set_read_timeout(Some(TIMEOUT)).unwrap();
        let sender = bind(&ward.far, FAR[family], from);
        let target = (own[family].parse::<IpAddr>().unwrap(), to);
        sender.send_to(b"a lease", target).unwrap();
        receiver.recv(&mut [0; 16]).is_ok()
    };
    // Without Wardline all of it arrives.
    for ports in DHCP {
        assert!(arrives(ports), "{ports:?}");
    }

    for hook in ["xdp", "tc"] {
        let guard = Guard::start(&ward.lab, "");
        let zones = |mode| [zone(1, mode, &format!(", attach: {hook}"))];
        guard.apply(&policy(&zones(", mode: observe"), "tcp/7"));
        guard.observes("no_rule", || {
            for ports in DHCP {
                assert!(arrives(ports), "{hook} {ports:?}");
            }
        });
        let zones = zones("");
        guard.apply(&policy(&zones, "tcp/7"));
        for ports in DHCP {
            assert!(!arrives(ports), "{hook} {ports:?}");
        }
        assert_eq!(
            guard.drops(),
            BTreeMap::from([("no_rule".to_owned(), DHCP.len() as u64)])
        );
        guard.told(&[("reason", "no_rule"), ("source", FAR[0])]);
        // A rule may allow it, as any other service.
        let rule = format!(
            "  - {{name: leases, from: [\"cidr:{}/32\"], to: [zone:zone-1], services: [udp/68], \
             action: allow}}\n",
            FAR[0]
        );
        guard.apply(&(policy(&zones, "tcp/7") + &rule));
        assert!(arrives(DHCP[0]) && !arrives(DHCP[1]), "{hook}");
        let quarantine = ["quarantine", "device-1", "--reason", "odd"];
        guard.ctl.run(&quarantine).unwrap().ok().unwrap();
        for ports in DHCP {
            assert!(!arrives(ports), "{hook} {ports:?}");
        }
        assert_eq!(guard.packets("quarantined"), DHCP.len() as u64);
    }
}

/// What belongs to the devices' link, from far away and for one device, and why it is dropped: ICMPv6 by
/// type, then IGMP. Neighbour discovery that has passed a router shows it by its hop limit.
fn astray() -> Vec<(String, Packet, &'static str)> {
    let [from, own]: [Ipv6Addr; 2] = [FAR[1], &v6(1)].map(|it| it.parse().unwrap());
    let discovery = [130, 131, 134, 135, 136, 143].map(|kind| {
        // An option that no node knows, where neighbour discovery has options.
        let mut option = vec![253, 3];
        option.extend(TRIED);
        option.resize(24, 0);
        let target = own.octets();
        let body = match kind {
            134 => [&[0; 12][..], &option].concat(),
            135 | 136 => [&[0; 4], &target[..], &option].concat(),
            _ => [&[0; 4], &target[..], TRIED].concat(),
        };
        let packet = Ipv6 {
            hop_limit: 255,
            ..Ipv6::new(from, own, Upper::Icmpv6(Icmp::new(kind, 0, body)))
        };
        let reason = if (134..=136).contains(&kind) {
            "nd_spoof"
        } else {
            "no_rule"
        };
        (format!("ICMPv6 {kind}"), packet.into(), reason)
    });
    let [from, own]: [Ipv4Addr; 2] = [FAR[0], &v4(1)].map(|it| it.parse().unwrap());
    let groups = [0x11, 0x16].map(|kind| {
        let body = [&[kind, 0, 0, 0, 239, 1, 2, 3][..], TRIED].concat();
        let packet = Ipv4::new(from, own, Upper::Bytes(2, body));
        (format!("IGMP {kind:#x}"), packet.into(), "no_rule")
    });
    discovery.into_iter().chain(groups).collect()
}

#[test]
fn control_of_a_link_does_not_come_over_a_router() {
    let ward = Ward::new("uplink-control");
    let device = ward.device(1);
    ward.lab.settle().unwrap();
    let (gateway, own) = (
        ward.lab.router().mac("uplink").unwrap(),
        ward.far.mac("eth0").unwrap(),
    );
    let frame = |packet: Packet| Ethernet::new(gateway, own, packet).bytes();
    let [from, to]: [Ipv4Addr; 2] = [FAR[0], &v4(1)].map(|it| it.parse().unwrap());
    let always = frame(Ipv4::new(from, to, Udp::new(7, 7, ALWAYS)).into());
    let comes = |packet: &Packet| {
        let frames = [frame(packet.clone()), always.clone()];
        arrives(&device, || {
            ward.far.flood("eth0", &frames).unwrap();
        })
    };
    // Without Wardline all of it arrives.
    for (what, packet, _) in &astray() {
        assert!(comes(packet), "{what}");
    }
    let rule =
        "  - {name: honest, from: [any], to: [zone:zone-1], services: [udp/7], action: allow}\n";
    for hook in ["xdp", "tc"] {
        let guard = Guard::start(&ward.lab, "");
        let zones = [zone(1, "", &format!(", attach: {hook}"))];
        guard.apply(&(policy(&zones, "tcp/7") + rule));
        assert_eq!(guard.attached()["lan1"], hook);
        for (what, packet, reason) in &astray() {
            let before = guard.packets(reason);
            assert!(!comes(packet), "{hook} {what}");
            let counted = || guard.packets(reason) > before;
            assert!(
                eventually(PATIENCE, counted),
                "{hook} {what}: {:?}",
                guard.drops()
            );
        }
        guard.told(&[("reason", "no_rule"), ("source", FAR[0])]);
    }
}

/// A rule for a whole zone, of which a part is behind the uplink.
const ZONES: &str = "  - {name: talk, from: [zone:zone-1], to: [zone:zone-2], services: [udp/2575], \
                     action: allow}\n";

#[test]
fn a_stranger_behind_the_uplink_has_no_zones_rights() {
    let ward = Ward::new("stranger");
    let [own, other] = [1, 2].map(|net| ward.device(net));
    // A part of the zone is beyond the uplink.
    let beyond = ["10.77.0.7", "fd77::7"];
    let free = ["10.20.1.77", "fd20:0:0:1::77"];
    ward.far.sysctl("ipv6/ip_nonlocal_bind", "1").unwrap();
    for address in [beyond[0], free[0]] {
        ward.far
            .ip(&format!("route add local {address} dev lo"))
            .unwrap();
    }
    for (remote, via) in [("10.77.0.0/24", FAR[0]), ("fd77::/64", FAR[1])] {
        ward.lab
            .router()
            .ip(&format!("route add {remote} via {via}"))
            .unwrap();
    }
    ward.lab.settle().unwrap();
    let arrives = |from: &Host, source: &str, family: usize| {
        let [source, to] = [source, &[v4(2), v6(2)][family]].map(|it| it.parse().unwrap());
        receives((from, source), (&other, to))
    };
    let all = |family: usize| {
        [
            arrives(&own, &[v4(1), v6(1)][family], family),
            arrives(&ward.far, beyond[family], family),
            arrives(&ward.far, free[family], family),
        ]
    };
    // Without Wardline all of it arrives.
    assert_eq!([0, 1].map(all), [[true; 3]; 2]);

    for hook in ["xdp", "tc"] {
        let guard = Guard::start(&ward.lab, "");
        let mut zones = [1, 2].map(|net| zone(net, "", &format!(", attach: {hook}")));
        zones[0][0] = zones[0][0].replace("subnets: [", "subnets: [10.77.0.0/24, \"fd77::/64\", ");
        guard.apply(&(policy(&zones, "tcp/7") + ZONES));
        assert_eq!([0, 1].map(all), [[true, true, false]; 2], "{hook}");
        assert_eq!(
            guard.drops(),
            BTreeMap::from([("spoofed_source".to_owned(), 2)])
        );
        guard.told(&[("reason", "spoofed_source"), ("source", free[0])]);
        guard.apply(
            &(policy(&zones, "tcp/7").replace("::/64\"]}", "::/64\"], mode: observe}") + ZONES),
        );
        guard.observes("spoofed_source", || {
            assert_eq!([0, 1].map(all), [[true; 3]; 2], "{hook}");
        });
        guard.apply(&(policy(&zones, "tcp/7") + ZONES));
        // When the network moves behind the uplink, its hosts are believed from there.
        let router = ward.lab.router();
        router.ip("address del 10.20.1.1/24 dev lan1").unwrap();
        assert!(eventually(PATIENCE, || arrives(&ward.far, free[0], 0)));
        router.ip("address add 10.20.1.1/24 dev lan1").unwrap();
        assert!(eventually(PATIENCE, || !arrives(&ward.far, free[0], 0)));
    }
}

#[test]
fn a_stranger_beside_a_guarded_bridge_has_no_zones_rights() {
    let ward = Ward::new("stranger-bridged");
    let router = ward.lab.router();
    let addresses = ["10.20.0.1/16", "fd20::1/32"];
    ward.lab.bridge(router, "br0", &addresses).unwrap();
    // The port of the ninth is of the bridge, too, and not guarded.
    let [own, other, beside] = [1, 2, 9].map(|net| ward.beside(net, "br0"));
    let free = ["10.20.1.77", "fd20:0:0:1::77"];
    let own_at = [v4(1), v6(1)];
    for (host, address) in [(&ward.far, free[0]), (&beside, &*own_at[0])] {
        host.sysctl("ipv6/ip_nonlocal_bind", "1").unwrap();
        host.ip(&format!("route add local {address} dev lo"))
            .unwrap();
    }
    ward.lab.settle().unwrap();
    let all = |family: usize| {
        [
            (&own, &*own_at[family]),
            (&beside, &[v4(9), v6(9)][family]),
            // The address of a device, and one that nobody has.
            (&beside, &own_at[family]),
            (&ward.far, free[family]),
        ]
        .map(|(from, source)| {
            let [source, to] = [source, &[v4(2), v6(2)][family]].map(|it| it.parse().unwrap());
            receives((from, source), (&other, to))
        })
    };
    // Without Wardline all of it arrives.
    assert_eq!([0, 1].map(all), [[true; 4]; 2]);
    let rule = "  - {name: beyond, from: [zone:zone-9], to: [zone:zone-2], services: [udp/2575], \
                action: allow}\n";
    for hook in ["xdp", "tc"] {
        let guard = Guard::start(&ward.lab, "");
        let mut zones = [1, 2, 9].map(|net| zone(net, "", &format!(", attach: {hook}")));
        zones[2][1].clear();
        zones[2][2] = zones[2][2].replace(&format!("macs: [\"{}\"], ", mac(9)), "");
        guard.apply(&(policy(&zones, "tcp/7") + ZONES + rule));
        assert_eq!(guard.attached()["lan2"], hook);
        assert_eq!(
            [0, 1].map(all),
            [[true, true, false, false]; 2],
            "{hook} {:?}",
            guard.drops()
        );
        let drops = guard.drops();
        assert_eq!(drops, [("spoofed_source".to_owned(), 4)].into(), "{hook}");
        for source in [free[0], &own_at[0]] {
            guard.told(&[("reason", "spoofed_source"), ("source", source)]);
        }
    }
}
