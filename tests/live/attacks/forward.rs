//! A camera sends on a fast-forwarded flow what the stack would not forward as it is: bytes behind the
//! packet, and headers with a wrong checksum.

use std::net::IpAddr;

use wardline_oracle::frames::{Ethernet, Packet, Udp, ip, mac as parsed};
use wardline_tests::{
    eventually,
    ward::{ALWAYS, FAR, Guard, PATIENCE, TRIED, Ward, arrives, mac, policy, v4, v6, zone},
};

/// Bytes behind a packet.
const TRAILER: usize = 800;

#[test]
fn fast_forward_carries_nothing_that_the_stack_would_not() {
    let ward = Ward::new("ahead");
    let camera = ward.device(1);
    ward.lab.settle().unwrap();
    for host in [&camera, &ward.far] {
        host.meet_xdp("eth0").unwrap();
    }
    let server = ward.far.udp_serve(7).unwrap();
    let router = ward.lab.router().mac("lan1").unwrap();
    let packet = |family: usize, data: &[u8]| -> Packet {
        let [from, to]: [IpAddr; 2] =
            [&[v4(1), v6(1)][family], FAR[family]].map(|it| it.parse().unwrap());
        ip(from, to, Udp::new(4000, 7, data))
    };
    let frame = |packet: Packet| Ethernet::new(router, parsed(&mac(1)), packet).bytes();
    // The packet itself is good; what is behind it belongs to no packet.
    let trailed = |family: usize| {
        let mut frame = frame(packet(family, b"a good packet"));
        frame.extend(TRIED);
        frame.resize(frame.len() + TRAILER - TRIED.len(), 0);
        frame
    };
    let broken = || {
        let Packet::Ipv4(mut packet) = packet(0, TRIED) else {
            unreachable!("of IPv4")
        };
        packet.checksum = Some(0x5744);
        frame(packet.into())
    };
    let reaches = |family: usize, tried: Vec<u8>| {
        let frames = [tried, frame(packet(family, ALWAYS))];
        arrives(&ward.far, || {
            camera.flood("eth0", &frames).unwrap();
        })
    };
    // The stack forwards nothing of it.
    for family in [0, 1] {
        assert!(
            reaches(family, frame(packet(family, TRIED))),
            "the way is open"
        );
        assert!(!reaches(family, trailed(family)));
    }
    assert!(!reaches(0, broken()));

    let guard = Guard::start(&ward.lab, "");
    guard.apply(&policy(&[zone(1, "", ", fast_forward: true")], "udp/7"));
    let forwarded = || {
        let counters = guard.ctl.json(&["counters"]).unwrap();
        counters["forwarded"].as_u64().unwrap()
    };
    for family in [0, 1] {
        // An answered flow goes ahead of the stack.
        let ahead = || {
            let before = forwarded();
            let frames = vec![frame(packet(family, ALWAYS)); 4];
            camera.flood("eth0", &frames).unwrap();
            forwarded() >= before + 4
        };
        assert!(
            eventually(PATIENCE, ahead),
            "{family}: {:?}",
            guard.reasons()
        );
        let served = server.served();
        assert!(!reaches(family, trailed(family)), "{family}");
        // The good packet before the trailer has arrived without it.
        let both = || server.served() >= served + 2;
        assert!(eventually(PATIENCE, both), "{family}");
        assert!(eventually(PATIENCE, ahead), "{family}");
    }
    assert!(!reaches(0, broken()));
    assert_eq!(guard.drops(), [].into());
}
