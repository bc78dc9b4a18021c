//! A device floods its link with control, and plays with other devices' leases.

use std::{collections::BTreeSet, fs, net::Ipv4Addr};

use wardline_oracle::frames::{Arp, BROADCAST, Dhcp, Ethernet, Ipv4, Mac, mac as parsed};
use wardline_tests::{
    End, Host, TIMEOUT, eventually,
    ward::{Guard, PATIENCE, Ward, mac, policy, v4, v6, zone},
};

use crate::live::servers::{dnsmasq, global_address, has, has_dnsmasq, takes_lease};

/// Frames that a camera sends at once; as many as 9,000 a second.
const FLOOD: usize = 9_000;

#[test]
fn a_flood_of_control_ends_at_the_devices_budget() {
    let ward = Ward::new("control-flood");
    let camera = ward.device(1);
    let pump = ward.device(2);
    ward.lab.settle().unwrap();
    let own: Mac = parsed(&mac(1));
    let address: Ipv4Addr = v4(1).parse().unwrap();
    // Nobody has it, so nobody answers: an answer of the router's is control too.
    let nobody = Ipv4Addr::new(10, 20, 1, 99);
    let arp = Ethernet::new(BROADCAST, own, Arp::request(own, address, nobody)).bytes();
    let discover = Dhcp::client(1, own).udp();
    let discover = Ipv4::new(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST, discover);
    let dhcp = Ethernet::new(BROADCAST, own, discover).bytes();
    for hook in ["xdp", "tc"] {
        for (frame, mode) in [(&arp, ""), (&dhcp, ""), (&arp, ", mode: observe")] {
            let guard = Guard::start(&ward.lab, "");
            let attach = format!(", attach: {hook}");
            let zones = [zone(1, mode, &attach), zone(2, "", &attach)];
            guard.apply(&policy(&zones, "icmp/8"));
            let before = guard.packets("control");
            let took = camera.flood("eth0", &vec![frame.clone(); FLOOD]).unwrap();
            // A second may begin just before the flood, and another end just after it.
            let seconds = took.as_secs() + 2;
            let beyond = if mode.is_empty() {
                "device_quota"
            } else {
                "observed"
            };
            assert!(eventually(PATIENCE, || {
                let passed = guard.packets("control") - before;
                passed + guard.packets(beyond) >= FLOOD as u64
            }));
            // The pump's own control, and the router's, are counted too: a few packets.
            let passed = guard.packets("control") - before;
            assert!(
                (300..=300 * seconds + 50).contains(&passed),
                "{hook}{mode}: {passed} of {FLOOD} passed in {took:?}"
            );
            guard.told(&[("reason", "device_quota"), ("device", "device-1")]);
            // Other devices have budgets of their own.
            pump.ip("neighbour flush dev eth0").unwrap();
            assert!(pump.ping("198.51.100.7"), "{hook}");
        }
    }
    // In quarantine the bound is narrow, and what is within it goes on.
    let guard = Guard::start(&ward.lab, "[limits]\ncontrol_in_quarantine = 5\n");
    guard.apply(&policy(&[zone(1, "", ""), zone(2, "", "")], "icmp/8"));
    let quarantine = ["quarantine", "device-1", "--reason", "odd"];
    guard.ctl.run(&quarantine).unwrap().ok().unwrap();
    let before = guard.packets("control");
    let seconds = camera.flood("eth0", &vec![arp; FLOOD]).unwrap().as_secs() + 2;
    let passed = || guard.packets("control") - before;
    let all = || guard.packets("device_quota") + passed() >= FLOOD as u64;
    assert!(eventually(PATIENCE, all), "{:?}", guard.reasons());
    // Others send some control of their own meanwhile: the pump, and the router.
    let passed = passed();
    assert!((5..=5 * seconds + 50).contains(&passed), "{passed} passed");
    guard.told(&[("reason", "device_quota"), ("device", "device-1")]);
}

#[test]
fn a_camera_takes_few_leases_and_ends_none_of_others() {
    if !has_dnsmasq("DHCP attacks") || !has("DHCP attacks", "busybox", "--list") {
        return;
    }
    for hook in [None, Some("xdp"), Some("tc")] {
        plays_with_leases(hook);
    }
}

/// Each attack works where nothing guards, and fails at a hook.
fn plays_with_leases(hook: Option<&str>) {
    let ward = Ward::new("lease-attack");
    let router = ward.lab.router();
    ward.lab.bridge(router, "br0", &["10.20.1.1/24"]).unwrap();
    let camera = ward.bare(1, &End::new(router, "lan1").master("br0"));
    let pump = ward.bare(2, &End::new(router, "lan2").master("br0"));
    ward.lab.settle().unwrap();
    let _dnsmasq = dnsmasq(
        &ward.lab,
        router,
        &[
            "--interface=br0",
            "--dhcp-range=10.20.1.100,10.20.1.150,255.255.255.0,1h",
            "--dhcp-option=option:router,10.20.1.1",
            "--dhcp-authoritative",
            "--no-ping",
        ],
    );
    let attach = format!(", attach: {}", hook.unwrap_or("auto"));
    let lines = policy(&[zone(1, "", &attach)], "icmp/8");
    let listed = format!(", addresses: [{}, \"{}\"]", v4(1), v6(1));
    let document = lines
        .replace(&listed, "")
        .replace(
            "devices:\n",
            &format!("  - {{interface: lan2, zone: zone-1{attach}}}\ndevices:\n"),
        )
        .replace(
            "rules:\n",
            &format!(
                "  - {{name: device-2, zone: zone-1, macs: [\"{}\"]}}\nrules:\n",
                mac(2)
            ),
        );
    let guard = hook.map(|_| Guard::start(&ward.lab, ""));
    if let Some(guard) = &guard {
        guard.apply(&document);
    }
    // Waits until so many messages are dropped, where they are.
    let dropped = |all: u64| {
        let all = |guard: &Guard| eventually(PATIENCE, || guard.packets("rogue_dhcp") == all);
        guard.as_ref().is_none_or(all)
    };
    let leases = || -> BTreeSet<String> {
        let path = ward.lab.dir().join(format!("leases-{}", router.name()));
        let text = fs::read_to_string(path).unwrap_or_default();
        let addresses = text.lines().filter_map(|line| line.split(' ').nth(2));
        addresses.map(str::to_owned).collect()
    };
    // The pump gets its lease, and renews it.
    assert!(takes_lease(&ward.lab, &pump), "{hook:?}");
    let lease = global_address(&pump, "inet").unwrap();
    assert!(takes_lease(&ward.lab, &pump), "{hook:?}");
    assert_eq!(global_address(&pump, "inet").as_deref(), Some(&*lease));
    assert!(leases().contains(&lease));

    // The camera asks under ten names, for a free address each.
    let own: Mac = parsed(&mac(1));
    let router_mac: Mac = router.mac("br0").unwrap();
    let sends = |host: &Host, source: Ipv4Addr, to: Ipv4Addr, message: &Dhcp| {
        let destination = if to.is_broadcast() {
            BROADCAST
        } else {
            router_mac
        };
        let packet = Ipv4::new(source, to, message.udp());
        let frame = Ethernet::new(destination, message.mac, packet);
        host.send_frame("eth0", &frame.bytes()).unwrap();
    };
    let server = Ipv4Addr::new(10, 20, 1, 1);
    let none = Ipv4Addr::UNSPECIFIED;
    let most = if guard.is_some() { 4 } else { 10 };
    for number in 0..10u8 {
        let mut asks = Dhcp::client(3, own);
        asks.options.extend([
            (61, vec![0, b'n', number]),
            (50, vec![10, 20, 1, 120 + number]),
            (54, server.octets().to_vec()),
        ]);
        sends(&camera, none, Ipv4Addr::BROADCAST, &asks);
        let counted = || leases().len() > usize::from(most.min(number + 1));
        assert!(eventually(PATIENCE, counted), "{number}: {:?}", leases());
    }
    assert!(dropped(6), "{hook:?}");
    assert_eq!(leases().len(), 1 + usize::from(most), "{:?}", leases());
    if let Some(guard) = &guard {
        guard.told(&[("reason", "rogue_dhcp"), ("device", "device-1")]);
    }

    // It names the pump as its relay, so that the server sends to it.
    let address: Ipv4Addr = lease.parse().unwrap();
    let mut asks = Dhcp {
        relay: address,
        ..Dhcp::client(1, own)
    };
    asks.options.push((61, vec![0, b'n', 0]));
    let sniffer = pump.sniff("eth0").unwrap();
    sends(&camera, none, Ipv4Addr::BROADCAST, &asks);
    assert!(dropped(7), "{hook:?}");
    let to_relay =
        |frame: &[u8]| frame[12..14] == [8, 0] && frame[23] == 17 && frame[36..38] == [0, 67];
    let sent = sniffer.wait_for(TIMEOUT, to_relay).is_some();
    assert_eq!(sent, guard.is_none(), "{hook:?}");

    // It gives the pump's lease back, in the pump's name.
    let pumps: Mac = parsed(&mac(2));
    let mut release = Dhcp {
        client: address,
        ..Dhcp::client(7, own)
    };
    let name = [&[1][..], &pumps].concat();
    release
        .options
        .extend([(61, name.clone()), (54, server.octets().to_vec())]);
    let source = Ipv4Addr::new(10, 20, 1, 120);
    sends(&camera, source, server, &release);
    let mut decline = Dhcp::client(4, own);
    decline.options = release.options.clone();
    decline.options[0].1 = vec![4];
    decline.options.push((50, address.octets().to_vec()));
    sends(&camera, none, Ipv4Addr::BROADCAST, &decline);
    assert!(dropped(9), "{hook:?}");
    let has = || leases().contains(&lease) == guard.is_some();
    assert!(eventually(PATIENCE, has), "{hook:?} {:?}", leases());
    let Some(guard) = guard else {
        return;
    };

    // The pump itself may.
    let release = Dhcp {
        mac: pumps,
        ..release
    };
    sends(&pump, address, server, &release);
    assert!(
        eventually(PATIENCE, || !leases().contains(&lease)),
        "{:?}",
        guard.drops()
    );
}
