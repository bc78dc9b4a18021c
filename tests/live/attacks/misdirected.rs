//! On a bridge a camera sends to a pump's MAC what is for an allowed address, and what is not IP at all.

use std::net::IpAddr;

use wardline_oracle::frames::{BROADCAST, Ethernet, Mac, Packet, Udp, ip, mac as parsed};
use wardline_tests::{
    Host, eventually,
    ward::{ALWAYS, FAR, Guard, PATIENCE, TRIED, Ward, arrives, mac, policy, v4, v6, zone},
};

/// A camera, a server that it may use, and a pump, on ports of one bridge.
fn bridged(name: &str) -> (Ward, [Host; 3]) {
    let ward = Ward::new(name);
    let addresses = ["10.20.0.1/16", "fd20::1/32"];
    ward.lab
        .bridge(ward.lab.router(), "br0", &addresses)
        .unwrap();
    let hosts = [1, 2, 3].map(|net| ward.beside(net, "br0"));
    ward.lab.settle().unwrap();
    (ward, hosts)
}

/// The frame of a datagram of the camera's.
fn datagram(to: Mac, address: &str, port: u16, data: &[u8]) -> Vec<u8> {
    let address: IpAddr = address.parse().unwrap();
    let own = if address.is_ipv4() { v4(1) } else { v6(1) };
    let packet = ip(own.parse().unwrap(), address, Udp::new(7, port, data));
    Ethernet::new(to, parsed(&mac(1)), packet).bytes()
}

#[test]
fn an_allowed_address_is_no_way_to_another_mac() {
    let (ward, [camera, server, pump]) = bridged("misdirected");
    let [servers, pumps] = [2, 3].map(|net| parsed(&mac(net)));
    let allowed = [
        v4(2),
        v6(2),
        FAR[0].to_owned(),
        FAR[1].to_owned(),
        "10.20.0.1".to_owned(),
        "fd20::1".to_owned(),
    ];
    // The camera may say something to the pump itself, by another port.
    let always = datagram(pumps, &v4(3), 8, ALWAYS);
    let reaches = |address: &str| {
        let frames = [datagram(pumps, address, 7, TRIED), always.clone()];
        arrives(&pump, || {
            camera.flood("eth0", &frames).unwrap();
        })
    };
    let serves = || {
        [v4(2), v6(2)].map(|address| {
            let frames = [datagram(servers, &address, 7, TRIED)];
            let last = datagram(servers, &address, 7, ALWAYS);
            arrives(&server, || {
                camera
                    .flood("eth0", &[&frames[..], &[last]].concat())
                    .unwrap();
            })
        })
    };
    // Without Wardline each of them is a way to the pump.
    for address in &allowed {
        assert!(reaches(address), "{address}");
    }
    for hook in ["xdp", "tc"] {
        let guard = Guard::start(&ward.lab, "");
        let zones = [1, 2, 3].map(|net| zone(net, "", &format!(", attach: {hook}")));
        let rules = "  - {name: use, from: [zone:zone-1], to: [zone:zone-2, router], services: [udp/7], action: allow}
  - {name: say, from: [zone:zone-1], to: [zone:zone-3], services: [udp/8], action: allow}\n";
        guard.apply(&(policy(&zones, "udp/7") + rules));
        assert_eq!(guard.attached()["lan3"], hook);
        for address in &allowed {
            let before = guard.packets("misdirected");
            assert!(!reaches(address), "{hook} {address}");
            let counted = || guard.packets("misdirected") > before;
            assert!(
                eventually(PATIENCE, counted),
                "{hook} {address}: {:?}",
                guard.drops()
            );
        }
        guard.told(&[("reason", "misdirected"), ("interface", "lan3")]);
        // The server is reached at its own MAC.
        assert_eq!(serves(), [true; 2], "{hook}");
        let drops = guard.drops();
        assert_eq!(
            drops.keys().collect::<Vec<_>>(),
            ["misdirected"],
            "{drops:?}"
        );
    }
}

#[test]
fn a_protocol_beside_ip_crosses_only_into_zones_that_have_it() {
    const PROFINET: u16 = 0x8892;
    const IDENTIFY: Mac = [0x01, 0x0e, 0xcf, 0, 0, 0];
    let (ward, [camera, server, pump]) = bridged("ethertypes");
    let [servers, pumps] = [2, 3].map(|net| parsed(&mac(net)));
    let own = parsed(&mac(1));
    let reaches = |host: &Host, net: u8, to: Mac| {
        let frame = Ethernet::new(to, own, Packet::Bytes(PROFINET, TRIED.to_vec())).bytes();
        let always = datagram(parsed(&mac(net)), &v4(net), 8, ALWAYS);
        arrives(host, || {
            camera.flood("eth0", &[frame, always]).unwrap();
        })
    };
    // Whether the server hears it, and whether the pump does, each by its own MAC, by a group's, by all.
    let heard = || {
        [(&server, 2, servers), (&pump, 3, pumps)]
            .map(|(host, net, own)| [own, IDENTIFY, BROADCAST].map(|to| reaches(host, net, to)))
    };
    assert_eq!(heard(), [[true; 3]; 2], "without Wardline");
    for hook in ["xdp", "tc"] {
        let guard = Guard::start(&ward.lab, "");
        let attach = format!(", attach: {hook}");
        for (has, expected) in [
            ([true, true, false], [[true; 3], [false; 3]]),
            ([false, true, true], [[false; 3]; 2]),
            ([true; 3], [[true; 3]; 2]),
        ] {
            let zones = [0, 1, 2].map(|at: u8| {
                let own = if has[usize::from(at)] {
                    ", ethertypes: [0x8892]"
                } else {
                    ""
                };
                zone(at + 1, own, &attach)
            });
            let rule = "  - {name: say, from: [zone:zone-1], to: [zone:zone-2, zone:zone-3], services: [udp/8], action: allow}\n";
            guard.apply(&(policy(&zones, "udp/7") + rule));
            let before = guard.packets("unknown_ethertype");
            assert_eq!(heard(), expected, "{hook} {has:?}");
            let dropped = guard.packets("unknown_ethertype") > before;
            assert_eq!(
                dropped,
                has != [true; 3],
                "{hook} {has:?}: {:?}",
                guard.drops()
            );
        }
    }
}
