//! A relay on the router, and the DHCP server behind a port: do devices get their leases, of either
//! family?

use std::{
    collections::BTreeMap,
    net::{Ipv6Addr, SocketAddrV6, UdpSocket},
    time::{Duration, Instant},
};

use wardline_oracle::frames::{Ethernet, Ipv6, Udp, mac as parsed};
use wardline_tests::{
    End, Host, Outcome, TIMEOUT, eventually,
    ward::{FAR, Guard, PATIENCE, Ward, mac, policy, v4, v6, zone},
};

use crate::live::servers::{dnsmasq, global_address, has, has_dnsmasq, takes_lease};

const SERVER: &str = "10.20.9.10";

#[test]
fn a_lease_comes_through_a_relay_on_the_router_at_xdp() {
    relayed("relay-xdp", "xdp");
}

#[test]
fn a_lease_comes_through_a_relay_on_the_router_at_tc() {
    relayed("relay-tc", "tc");
}

fn relayed(name: &str, hook: &str) {
    if !has_dnsmasq("DHCP relay") || !has("DHCP relay", "busybox", "--list") {
        return;
    }
    let ward = Ward::new(name);
    let router = ward.lab.router();
    let device = ward.bare(1, &ward.port(1));
    let server = ward.lab.host("server").unwrap();
    ward.lab
        .wire(
            &End::new(&server, "eth0")
                .mac(&mac(9))
                .address(&format!("{SERVER}/24"))
                .gateway("10.20.9.1"),
            &ward.port(9),
        )
        .unwrap();
    ward.lab.settle().unwrap();
    let _relay = dnsmasq(
        &ward.lab,
        router,
        &[&format!("--dhcp-relay=10.20.1.1,{SERVER}")],
    );
    let _server = dnsmasq(
        &ward.lab,
        &server,
        &[
            "--interface=eth0",
            "--dhcp-range=10.20.1.100,10.20.1.150,255.255.255.0,1h",
            "--dhcp-option=option:router,10.20.1.1",
            "--dhcp-authoritative",
            "--no-ping",
        ],
    );
    let takes = || {
        let taken = takes_lease(&ward.lab, &device);
        let own = global_address(&device, "inet");
        device.ip("address flush dev eth0").unwrap();
        taken && own.is_some_and(|own| own.starts_with("10.20.1.1"))
    };
    // Without Wardline the network works.
    assert!(takes());

    let guard = Guard::start(&ward.lab, "");
    let attach = format!(", attach: {hook}");
    let server = format!("{attach}, dhcp_server: true");
    let [zones, ports, devices] = [0, 1, 2].map(|list| {
        let lines = [zone(1, "MODE", &attach), zone(9, "MODE", &server)];
        lines.map(|lines| lines[list].clone()).concat()
    });
    let learned = format!(", addresses: [{}, \"{}\"]", v4(1), v6(1));
    let listed = [v4(9), SERVER.to_owned()];
    let devices = devices
        .replace(&learned, "")
        .replace(&listed[0], &listed[1]);
    let policy = |mode: &str, ports: &str| {
        let zones = zones.replace("MODE", mode);
        format!("version: 1\nzones:\n{zones}ports:\n{ports}devices:\n{devices}rules: []\n")
    };
    for mode in ["", ", mode: observe"] {
        guard.apply(&policy(mode, &ports));
        assert_eq!(guard.attached()["lan9"], hook);
        assert!(takes(), "no lease{mode}: {:?}", guard.drops());
        assert_eq!(guard.drops(), BTreeMap::new(), "{mode}");
        assert_eq!(guard.packets("observed"), 0, "{mode}");
    }

    // From a port that is not named as a server's, the server's answers to the relay are dropped.
    let ports = ports.replace(", dhcp_server: true", "");
    guard.apply(&policy("", &ports));
    assert!(!takes());
    let drops = guard.drops();
    assert_eq!(drops.keys().collect::<Vec<_>>(), ["no_rule"], "{drops:?}");
    guard.told(&[("reason", "no_rule"), ("service", "udp/67")]);
    guard.apply(&policy(", mode: observe", &ports));
    guard.observes("no_rule", || assert!(takes()));
}

#[test]
fn a_lease_that_moves_to_another_device_works_with_its_first_packet_at_xdp() {
    moves("xdp");
}

#[test]
fn a_lease_that_moves_to_another_device_works_with_its_first_packet_at_tc() {
    moves("tc");
}

/// A server with one address gives it to a camera, and then, when it has forgotten the camera, to
/// another.
fn moves(hook: &str) {
    if !has_dnsmasq("moving lease") || !has("moving lease", "busybox", "--list") {
        return;
    }
    let ward = Ward::new(&format!("moves-{hook}"));
    let router = ward.lab.router();
    ward.lab.bridge(router, "br0", &["10.20.1.1/24"]).unwrap();
    let ports = ["lan1", "lan2"].map(|lan| End::new(router, lan).master("br0"));
    let [first, second] = [(1, &ports[0]), (2, &ports[1])].map(|(n, port)| ward.bare(n, port));
    ward.lab.settle().unwrap();
    let serve = || {
        let range = "--dhcp-range=10.20.1.100,10.20.1.100,255.255.255.0,1h";
        let options = [
            "--dhcp-option=option:router,10.20.1.1",
            "--dhcp-authoritative",
        ];
        let arguments = [
            "--interface=br0",
            range,
            options[0],
            options[1],
            "--no-ping",
        ];
        dnsmasq(&ward.lab, router, &arguments)
    };
    let server = serve();
    let attach = format!(", attach: {hook}");
    let listed = format!(", addresses: [{}, \"{}\"]", v4(1), v6(1));
    let document = policy(&[zone(1, "", &attach)], "tcp/7")
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
    let guard = Guard::start(&ward.lab, "");
    guard.apply(&document);
    let _records = ward.far.tcp_serve(7).unwrap();
    let reaches = |host: &Host| host.tcp_connect(FAR[0], 7, TIMEOUT);

    assert!(takes_lease(&ward.lab, &first), "{:?}", guard.drops());
    assert_eq!(reaches(&first), Outcome::Connected);
    // The server has lost its leases, and the address is asked for by another.
    drop(server);
    let leases = ward.lab.dir().join(format!("leases-{}", router.name()));
    std::fs::remove_file(leases).unwrap();
    let _server = serve();
    assert!(takes_lease(&ward.lab, &second), "{:?}", guard.drops());
    assert_eq!(
        global_address(&second, "inet").as_deref(),
        Some("10.20.1.100")
    );
    assert_eq!(reaches(&second), Outcome::Connected, "{:?}", guard.drops());
    assert_eq!(guard.packets("spoofed_source"), 0);
    // Who has it no more can't go on with it.
    assert_ne!(reaches(&first), Outcome::Connected);
    let told = || guard.packets("spoofed_source") + guard.packets("arp_spoof") > 0;
    assert!(eventually(PATIENCE, told), "{:?}", guard.drops());
}

#[test]
fn a_lease_of_ipv6_comes_through_a_relay_on_the_router_at_xdp() {
    relayed_v6("relay6-xdp", "xdp");
}

#[test]
fn a_lease_of_ipv6_comes_through_a_relay_on_the_router_at_tc() {
    relayed_v6("relay6-tc", "tc");
}

/// The server and the relays (RFC 8415 section 7.1).
const SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);

/// An option of DHCPv6.
fn option(kind: u16, data: &[u8]) -> Vec<u8> {
    let length = data.len() as u16;
    [&kind.to_be_bytes()[..], &length.to_be_bytes(), data].concat()
}

/// The first option of a kind.
fn find(mut options: &[u8], kind: u16) -> Option<&[u8]> {
    loop {
        let (head, rest) = options.split_at_checked(4)?;
        let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
        let (data, rest) = rest.split_at_checked(length)?;
        if head[..2] == kind.to_be_bytes() {
            return Some(data);
        }
        options = rest;
    }
}

/// Solicits an address and requests what is offered, as a client does (RFC 8415 section 18.2); the
/// address that the server has then given.
fn takes_lease_v6(host: &Host) -> Option<Ipv6Addr> {
    let [a, b, c, d, e, f] = host.mac("eth0").unwrap();
    let own = option(1, &[0, 3, 0, 1, a, b, c, d, e, f]);
    let local = host.link_local("eth0").unwrap();
    let shown = host.ip("-oneline link show eth0").unwrap();
    let index = shown.split(':').next()?.trim().parse().ok()?;
    let socket = host
        .run(|| UdpSocket::bind(SocketAddrV6::new(local, 546, 0, index)).unwrap())
        .unwrap();
    socket
        .set_read_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    let asks = |kind: u8, options: &[u8]| -> Option<Vec<u8>> {
        // The association, the time that has passed.
        let all = [&own, options, &option(8, &[0; 2])].concat();
        let message = [&[kind, 7, 7, kind][..], &all].concat();
        let until = Instant::now() + Duration::from_secs(3);
        while Instant::now() < until {
            let servers = SocketAddrV6::new(SERVERS, 547, 0, index);
            socket.send_to(&message, servers).unwrap();
            let mut answer = [0; 1500];
            if let Ok((length, _)) = socket.recv_from(&mut answer)
                && answer[1..4] == message[1..4]
            {
                return Some(answer[4..length].to_vec());
            }
        }
        None
    };
    let offered = asks(1, &option(3, &[0; 12]))?;
    let server = option(2, find(&offered, 2)?);
    let association = option(3, find(&offered, 3)?);
    let given = asks(3, &[server, association].concat())?;
    let address = find(find(&given, 3)?.get(12..)?, 5)?.get(..16)?;
    Some(Ipv6Addr::from(<[u8; 16]>::try_from(address).ok()?))
}

fn relayed_v6(name: &str, hook: &str) {
    if !has_dnsmasq("DHCPv6 relay") {
        return;
    }
    let ward = Ward::new(name);
    let router = ward.lab.router();
    let device = ward.bare(1, &ward.port(1));
    let server = ward.device(9);
    ward.lab.settle().unwrap();
    let relay = format!("--dhcp-relay=fd20:0:0:1::1,{}", v6(9));
    let _relay = dnsmasq(&ward.lab, router, &[&relay]);
    let _server = dnsmasq(
        &ward.lab,
        &server,
        &[
            "--interface=eth0",
            "--dhcp-range=fd20:0:0:1::100,fd20:0:0:1::1ff,64,1h",
        ],
    );
    let takes = || {
        let own = takes_lease_v6(&device);
        own.is_some_and(|own| own.to_string().starts_with("fd20:0:0:1::1"))
    };
    // Without Wardline the network works.
    assert!(takes());

    // A device as a server's relay, and as the server that answers the router.
    let forged = |destination: &str, kind: u8| {
        let destination: Ipv6Addr = destination.parse().unwrap();
        let local = device.link_local("eth0").unwrap();
        let body = [&[kind, 0][..], &[0; 32]].concat();
        let packet = Ipv6::new(local, destination, Udp::new(547, 547, body));
        let frame = Ethernet::new(router.mac("lan1").unwrap(), parsed(&mac(1)), packet);
        device.send_frame("eth0", &frame.bytes()).unwrap();
    };
    let attach = format!(", attach: {hook}");
    let serves = format!("{attach}, dhcp_server: true");
    let policy = |mode: &str, server: &str| {
        let lists = [zone(1, mode, &attach), zone(9, mode, server)];
        let [zones, ports, devices] =
            [0, 1, 2].map(|list| lists.each_ref().map(|lines| &*lines[list]).concat());
        let learned = format!(", addresses: [{}, \"{}\"]", v4(1), v6(1));
        let devices = devices.replace(&learned, "");
        format!("version: 1\nzones:\n{zones}ports:\n{ports}devices:\n{devices}rules: []\n")
    };
    let guard = Guard::start(&ward.lab, "");
    for mode in ["", ", mode: observe"] {
        guard.apply(&policy(mode, &serves));
        assert_eq!(guard.attached()["lan9"], hook);
        assert!(takes(), "no lease{mode}: {:?}", guard.drops());
        assert_eq!(guard.drops(), BTreeMap::new(), "{mode}");
        assert_eq!(guard.packets("observed"), 0, "{mode}");
    }

    // Only from the server's port, and no device is a relay.
    guard.apply(&policy("", &serves));
    for (to, kind) in [(v6(9), 12), ("fd20:0:0:1::1".to_owned(), 13)] {
        let before = guard.packets("no_rule");
        forged(&to, kind);
        let dropped = || guard.packets("no_rule") == before + 1;
        assert!(eventually(PATIENCE, dropped), "{to}: {:?}", guard.drops());
    }
    guard.told(&[("service", "udp/547"), ("device", "device-1")]);
    guard.apply(&policy("", &attach));
    assert!(!takes());
    let drops = guard.drops();
    assert_eq!(drops.keys().collect::<Vec<_>>(), ["no_rule"], "{drops:?}");
    guard.told(&[("service", "udp/547"), ("device", "device-9")]);
    guard.apply(&policy(", mode: observe", &attach));
    guard.observes("no_rule", || assert!(takes()));
}
