//! Does traffic that a rule allows, or that needs none, pass unharmed?
//!
//! With real stacks and servers, every test checks that only what it meant to be dropped was.

mod addresses;

use std::{
    collections::BTreeMap,
    fs,
    io::{ErrorKind, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use socket2::SockRef;
use wardline_tests::{
    End, Host, Outcome, TIMEOUT, eventually,
    ward::{FAR, Guard, PATIENCE, Ward, mac, policy, v4, v6, zone},
};

#[test]
fn bulk_tcp_is_whole_at_xdp() {
    bulk("xdp");
}

#[test]
fn bulk_tcp_is_whole_at_tc() {
    bulk("tc");
}

fn bulk(attach: &str) {
    const BYTES: u64 = 32 << 20;
    let ward = Ward::new("bulk");
    let device = ward.device(1);
    ward.lab.settle().unwrap();
    let guard = Guard::start(&ward.lab, "");
    let zone = zone(1, "", &format!(", attach: {attach}"));
    guard.apply(&policy(&[zone], "tcp/7"));
    assert_eq!(guard.attached()["lan1"], attach);
    let server = ward.far.tcp_serve(7).unwrap();
    for address in FAR {
        let transfer = device.session(address, 7).unwrap();
        let (start, transfer) = (Instant::now(), transfer.transfer(Duration::ZERO).unwrap());
        let done = eventually(Duration::from_secs(60), || transfer.echoed() >= BYTES);
        assert!(done, "{attach}: {} bytes", transfer.echoed());
        let bytes = transfer.finish(PATIENCE).unwrap();
        println!(
            "{attach}, {address}: {} MB each way, {:.0} MB/s",
            bytes >> 20,
            bytes as f64 / start.elapsed().as_secs_f64() / f64::from(1 << 20)
        );
    }
    assert_eq!(server.served(), 2);
    assert_eq!(guard.drops(), BTreeMap::new());
}

#[test]
fn large_datagrams_pass_where_fragments_may() {
    let ward = Ward::new("fragments");
    let devices = [1, 2, 3].map(|net| ward.device(net));
    ward.lab.settle().unwrap();
    let guard = Guard::start(&ward.lab, "");
    let zones = [
        zone(1, ", fragments: allow", ", attach: xdp"),
        zone(2, "", ", attach: xdp"),
        zone(3, ", fragments: allow", ", attach: tc"),
    ];
    let mut policy = policy(&zones, "udp/7, icmp/8, icmpv6/128");
    // Also from outside, and from the router itself.
    policy.push_str(
        "  - {name: in, from: [\"cidr:198.51.100.0/24\", \"cidr:2001:db8:100::/64\", router], \
         to: [zone:zone-1, zone:zone-2, zone:zone-3], services: [udp/7, icmp/8, icmpv6/128], \
         action: allow}\n",
    );
    guard.apply(&policy);
    let far_server = ward.far.udp_serve(7).unwrap();
    let servers: Vec<_> = devices.iter().map(|it| it.udp_serve(7).unwrap()).collect();

    for (net, device) in (1..).zip(&devices) {
        let own = [v4(net), v6(net)];
        for (far, own) in FAR.into_iter().zip(&own) {
            let expected = if net == 2 {
                Outcome::Dropped
            } else {
                Outcome::Connected
            };
            let exchange = |from: &Host, to: &str| {
                let udp = from.udp_exchange_of(8000, to, 7, TIMEOUT);
                let ping = from.ping_of(8000, to, TIMEOUT);
                assert_eq!((udp, ping), (expected, expected), "{from} to {to}");
            };
            exchange(device, far);
            exchange(&ward.far, own);
            exchange(ward.lab.router(), own);
            // An unfragmented datagram passes anyway.
            assert_eq!(
                device.udp_exchange_of(1400, far, 7, TIMEOUT),
                Outcome::Connected
            );
        }
    }
    assert_eq!((far_server.served(), servers[1].served()), (4 + 6, 2));
    let drops = guard.drops();
    assert_eq!(drops.keys().collect::<Vec<_>>(), ["fragment"], "{drops:?}");
    for source in [v4(2), FAR[0].to_owned()] {
        guard.told(&[
            ("interface", "lan2"),
            ("reason", "fragment"),
            ("source", &source),
        ]);
    }
}

#[test]
fn pings_come_back() {
    let ward = Ward::new("pings");
    let devices = [ward.device(1), ward.device(2)];
    ward.lab.settle().unwrap();
    let guard = Guard::start(&ward.lab, "");
    let zones = [zone(1, "", ", attach: xdp"), zone(2, "", ", attach: tc")];
    guard.apply(&policy(&zones, "icmp/8, icmpv6/128"));
    for device in &devices {
        for address in FAR {
            for length in [16, 56, 1400] {
                assert_eq!(
                    device.ping_of(length, address, TIMEOUT),
                    Outcome::Connected,
                    "{device} to {address}, {length} bytes"
                );
            }
        }
    }
    assert_eq!(guard.drops(), BTreeMap::new());
}

#[test]
fn the_path_mtu_is_found() {
    const MTU: usize = 1300;
    let ward = Ward::new("path-mtu");
    let devices = [ward.device(1), ward.device(2)];
    // Behind the far host, which is a router here, come a link with a smaller MTU and another host.
    // That host's own link has the full MTU, so it does not ask for smaller segments.
    let middle = ward.lab.host("middle").unwrap();
    let end = ward.lab.host("end").unwrap();
    for host in [&ward.far, &middle] {
        for key in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            host.sysctl(key, "1").unwrap();
        }
    }
    ward.lab
        .wire(
            &End::new(&middle, "far")
                .mtu(MTU as u32)
                .address("198.51.150.2/24")
                .address("2001:db8:150::2/64")
                .gateway("198.51.150.1")
                .gateway("2001:db8:150::1"),
            &End::new(&ward.far, "middle")
                .mtu(MTU as u32)
                .address("198.51.150.1/24")
                .address("2001:db8:150::1/64"),
        )
        .unwrap();
    ward.lab
        .wire(
            &End::new(&end, "eth0")
                .address("198.51.200.7/24")
                .address("2001:db8:200::7/64")
                .gateway("198.51.200.1")
                .gateway("2001:db8:200::1"),
            &End::new(&middle, "end")
                .address("198.51.200.1/24")
                .address("2001:db8:200::1/64"),
        )
        .unwrap();
    for (host, via) in [
        (ward.lab.router(), ["198.51.100.7", "2001:db8:100::7"]),
        (&ward.far, ["198.51.150.2", "2001:db8:150::2"]),
    ] {
        for (net, via) in ["198.51.200.0/24", "2001:db8:200::/64"].iter().zip(via) {
            host.ip(&format!("route add {net} via {via}")).unwrap();
        }
    }
    ward.lab.settle().unwrap();
    let guard = Guard::start(&ward.lab, "");
    let zones = [zone(1, "", ", attach: xdp"), zone(2, "", ", attach: tc")];
    let policy = policy(&zones, "tcp/7, udp/7")
        .replace("198.51.100.0/24", "198.51.200.0/24")
        .replace("2001:db8:100::/64", "2001:db8:200::/64");
    guard.apply(&policy);
    let _tcp = end.tcp_serve(7).unwrap();
    let _udp = end.udp_serve(7).unwrap();
    for device in &devices {
        for address in ["198.51.200.7", "2001:db8:200::7"] {
            let before = guard.packets("related");
            // TCP first, so that it has to discover the path MTU itself.
            let transfer = device.session(address, 7).unwrap();
            let transfer = transfer.transfer(Duration::ZERO).unwrap();
            let done = eventually(Duration::from_secs(30), || transfer.echoed() >= 4 << 20);
            assert!(done, "{device}, {address}: {} bytes", transfer.echoed());
            transfer.finish(PATIENCE).unwrap();
            assert!(guard.packets("related") > before, "{device}, {address}");
            device.ip("route flush cache").unwrap();
            device.ip("-6 route flush cache").unwrap();
            assert_eq!(device.path_mtu(address, 7, PATIENCE).unwrap(), MTU);
        }
    }
    assert_eq!(guard.drops(), BTreeMap::new());
}

#[test]
fn neighbours_are_found_without_any_rule() {
    let ward = Ward::new("neighbours");
    let router = ward.lab.router();
    let bridge = &["10.20.0.254/16", "fd20::254/32"];
    ward.lab.bridge(router, "br0", bridge).unwrap();
    let devices = [ward.bridged(1, "br0"), ward.bridged(2, "br0")];
    ward.lab.settle().unwrap();
    let guard = Guard::start(&ward.lab, "");
    guard.apply(&format!(
        "version: 1\nzones:\n  - {{name: a, subnets: [10.20.0.0/16, \"fd20::/32\"]}}\nports:\n  \
         - {{interface: lan1, zone: a, attach: xdp}}\n  \
         - {{interface: lan2, zone: a, attach: tc}}\ndevices:\n  \
         - {{name: one, zone: a, macs: [\"{}\"], addresses: [10.20.0.1, \"fd20::1\"]}}\n  \
         - {{name: two, zone: a, macs: [\"{}\"], addresses: [10.20.0.2, \"fd20::2\"]}}\n",
        mac(1),
        mac(2)
    ));
    let bridge_mac = text(&router.mac("br0").unwrap());
    for (device, other, other_mac) in [
        (&devices[0], ["10.20.0.2", "fd20::2"], mac(2)),
        (&devices[1], ["10.20.0.1", "fd20::1"], mac(1)),
        (
            &devices[0],
            ["10.20.0.254", "fd20::254"],
            bridge_mac.clone(),
        ),
        (&devices[1], ["10.20.0.254", "fd20::254"], bridge_mac),
    ] {
        for address in other {
            device.ip("neigh flush dev eth0").unwrap();
            // The datagram is dropped, but to send it the device must resolve the neighbour.
            device.udp_send(address, 9, b"where are you").unwrap();
            let found = eventually(PATIENCE, || {
                let known = device.ip(&format!("neigh show {address}")).unwrap();
                known.contains(&format!("lladdr {other_mac}"))
            });
            assert!(found, "{device}: {address}");
        }
    }
    let drops = guard.drops();
    assert_eq!(drops.keys().collect::<Vec<_>>(), ["no_rule"], "{drops:?}");
}

fn text(mac: &[u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

#[test]
fn names_are_asked_for_in_groups() {
    let ward = Ward::new("mdns");
    let router = ward.lab.router();
    ward.lab.bridge(router, "br0", &[]).unwrap();
    let devices = [1, 2, 3].map(|net| ward.bridged(net, "br0"));
    ward.lab.settle().unwrap();
    let guard = Guard::start(&ward.lab, "");
    let document = |more: &str| {
        let device = |net: u8, zone: &str| {
            format!(
                "  - {{name: device-{net}, zone: {zone}, macs: [\"{}\"], \
                 addresses: [10.20.0.{net}, \"fd20::{net}\"]}}\n",
                mac(net)
            )
        };
        format!(
            "version: 1\nzones:\n  - {{name: a, subnets: [10.20.0.0/16, \"fd20::/32\"]}}\n  \
             - {{name: b, subnets: [10.20.0.3/32, \"fd20::3/128\"]}}\nports:\n  \
             - {{interface: lan1, zone: a}}\n  - {{interface: lan2, zone: a, attach: tc}}\n  \
             - {{interface: lan3, zone: b}}\ndevices:\n{}{}{}rules:\n  \
             - {{name: mdns, from: [zone:a], to: [\"cidr:224.0.0.251/32\", \
             \"cidr:ff02::fb/128\"], services: [udp/5353], action: allow}}\n{more}",
            device(1, "a"),
            device(2, "a"),
            device(3, "b")
        )
    };
    let listeners = devices.each_ref().map(Listener::new);

    guard.apply(&document(""));
    for (one, reached) in [(1, [false, true, false]), (2, [true, false, false])] {
        for family in 0..2 {
            assert_eq!(heard(&devices, &listeners, one, family), reached, "{one}");
        }
    }
    // A device of another zone hears it only when a rule names that zone.
    guard.apply(&document(
        "  - {name: to-b, from: [zone:a], to: [zone:b], services: [udp/5353], action: allow}\n",
    ));
    for family in 0..2 {
        assert_eq!(heard(&devices, &listeners, 1, family), [false, true, true]);
    }
    // A query from that device itself reaches no other device: no rule allows it.
    for family in 0..2 {
        assert_eq!(heard(&devices, &listeners, 3, family), [false; 3]);
    }
    let drops = guard.drops();
    assert_eq!(drops.keys().collect::<Vec<_>>(), ["no_rule"], "{drops:?}");
}

/// Sockets that listen for multicast DNS, one for each family.
struct Listener([UdpSocket; 2]);

const GROUPS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(224, 0, 0, 251)),
    IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb)),
];

impl Listener {
    fn new(host: &Host) -> Self {
        let net = host.name().rsplit('-').next().unwrap();
        let own: Ipv4Addr = format!("10.20.0.{net}").parse().unwrap();
        let sockets = host.run(|| {
            GROUPS.map(|group| {
                let any: IpAddr = match group {
                    IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                    IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
                };
                let kind = socket2::Domain::for_address((any, 0).into());
                let socket = socket2::Socket::new(kind, socket2::Type::DGRAM, None).unwrap();
                if group.is_ipv6() {
                    socket.set_only_v6(true).unwrap();
                }
                socket.bind(&SocketAddr::new(any, 5353).into()).unwrap();
                match group {
                    IpAddr::V4(group) => socket.join_multicast_v4(&group, &own).unwrap(),
                    // Interface 0 lets the kernel choose: there is only one beside the loopback.
                    IpAddr::V6(group) => socket.join_multicast_v6(&group, 0).unwrap(),
                }
                UdpSocket::from(socket)
            })
        });
        Self(sockets.unwrap())
    }
}

/// Which devices hear a query that device `one` sends to the group.
fn heard(devices: &[Host; 3], listeners: &[Listener; 3], one: u8, family: usize) -> [bool; 3] {
    static COUNTER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let count = COUNTER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let question = format!("who is number {count}").into_bytes();
    let own: IpAddr = match family {
        0 => format!("10.20.0.{one}").parse().unwrap(),
        _ => format!("fd20::{one}").parse().unwrap(),
    };
    devices[usize::from(one) - 1]
        .run(|| {
            let socket = UdpSocket::bind((own, 0)).unwrap();
            let reference = SockRef::from(&socket);
            match own {
                IpAddr::V4(own) => {
                    reference.set_multicast_if_v4(&own).unwrap();
                    reference.set_multicast_loop_v4(false).unwrap();
                }
                IpAddr::V6(_) => reference.set_multicast_loop_v6(false).unwrap(),
            }
            socket.send_to(&question, (GROUPS[family], 5353)).unwrap();
        })
        .unwrap();
    let heard = |listener: &Listener| {
        let socket = &listener.0[family];
        // A query that is heard at all is heard at once, so a short wait is enough.
        socket
            .set_read_timeout(Some(Duration::from_millis(300)))
            .unwrap();
        let mut buffer = [0; 64];
        loop {
            match socket.recv(&mut buffer) {
                Ok(length) if buffer[..length] == question => return true,
                Ok(_) => {}
                Err(_) => return false,
            }
        }
    };
    listeners.each_ref().map(heard)
}

#[test]
fn connections_close_in_every_way() {
    let ward = Ward::new("closes");
    let device = ward.device(1);
    ward.lab.settle().unwrap();
    let guard = Guard::start(&ward.lab, "");
    guard.apply(&policy(&[zone(1, "", "")], "tcp/7"));
    let listener = ward
        .far
        .run(|| TcpListener::bind(("::", 7)).unwrap())
        .unwrap();
    for address in FAR {
        let pair = || -> (TcpStream, TcpStream) {
            let target = SocketAddr::new(address.parse().unwrap(), 7);
            let opener = device.run(|| TcpStream::connect(target).unwrap()).unwrap();
            let (other, _) = listener.accept().unwrap();
            for stream in [&opener, &other] {
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
            }
            (opener, other)
        };
        // Reads on when a signal interrupts it, which a read with a time-out is not spared.
        let ends = |stream: &mut TcpStream| stream.read_to_end(&mut Vec::new()).unwrap() == 0;

        // One end closes, then the other; each end is first once.
        let (mut opener, mut other) = pair();
        opener.write_all(b"last words").unwrap();
        drop(opener);
        let mut said = Vec::new();
        other.read_to_end(&mut said).unwrap();
        assert_eq!(said, b"last words");
        drop(other);
        let (mut opener, other) = pair();
        drop(other);
        assert!(ends(&mut opener));
        drop(opener);

        // One end closes its half, and the other sends on before it closes.
        let (mut opener, mut other) = pair();
        opener.shutdown(Shutdown::Write).unwrap();
        assert!(ends(&mut other));
        let sent = vec![0x57; 1 << 20];
        let mut came = Vec::new();
        thread::scope(|scope| {
            scope.spawn(|| {
                other.write_all(&sent).unwrap();
                drop(other);
            });
            opener.read_to_end(&mut came).unwrap();
        });
        assert!(came == sent);

        // A reset instead of a close, by either end.
        for opener_resets in [true, false] {
            let (opener, other) = pair();
            let (resets, mut stays) = if opener_resets {
                (opener, other)
            } else {
                (other, opener)
            };
            SockRef::from(&resets)
                .set_linger(Some(Duration::ZERO))
                .unwrap();
            drop(resets);
            let end = stays.read(&mut [0]).unwrap_err();
            assert_eq!(end.kind(), ErrorKind::ConnectionReset);
        }

        // Both close at once: with forwarding off, neither end sees the other's FIN first.
        let (mut opener, mut other) = pair();
        let key = match opener.local_addr().unwrap() {
            SocketAddr::V4(_) => "ipv4/ip_forward",
            SocketAddr::V6(_) => "ipv6/conf/all/forwarding",
        };
        ward.lab.router().sysctl(key, "0").unwrap();
        opener.shutdown(Shutdown::Write).unwrap();
        other.shutdown(Shutdown::Write).unwrap();
        ward.lab.router().sysctl(key, "1").unwrap();
        assert!(ends(&mut opener) && ends(&mut other));
        let port = opener.local_addr().unwrap().port();
        drop((opener, other));
        // Only an end that closes first enters TIME-WAIT; here both did.
        for host in [&device, &ward.far] {
            assert!(
                eventually(PATIENCE, || waits(host, port)),
                "{host}, {address}"
            );
        }
    }
    assert_eq!(guard.drops(), BTreeMap::new());
}

/// Whether a host has a connection with this port, at either end, in TIME-WAIT.
fn waits(host: &Host, port: u16) -> bool {
    let tables = host.run(|| {
        // The thread's own tables: the process is in another namespace.
        ["tcp", "tcp6"]
            .map(|table| fs::read_to_string(format!("/proc/thread-self/net/{table}")).unwrap())
    });
    let wanted = format!(":{port:04X}");
    tables
        .unwrap()
        .iter()
        .flat_map(|it| it.lines())
        .any(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            fields.len() > 3
                && fields[1..3].iter().any(|end| end.ends_with(&wanted))
                && fields[3] == "06"
        })
}

#[test]
fn an_answered_flow_may_be_silent() {
    let ward = Ward::new("silent");
    let device = ward.device(1);
    ward.lab.settle().unwrap();
    let guard = Guard::start(&ward.lab, "[timeouts]\nudp = 1\nudp_answered = 5\n");
    guard.apply(&policy(&[zone(1, "", "")], "udp/7, udp/9"));
    let far = ward
        .far
        .run(|| UdpSocket::bind((FAR[0], 7)).unwrap())
        .unwrap();
    let socket = device
        .run(|| {
            let socket = UdpSocket::bind((v4(1), 4000)).unwrap();
            socket.connect((FAR[0], 7)).unwrap();
            socket
        })
        .unwrap();
    let is_there = |port: u16| {
        let flows = guard.flows(&v4(1), FAR[0]);
        flows.iter().any(|flow| flow["destination_port"] == port)
    };
    let mut buffer = [0; 16];
    let mut arrives = |say: &[u8], within: Duration| {
        far.send_to(say, (v4(1), 4000)).unwrap();
        socket.set_read_timeout(Some(within)).unwrap();
        match socket.recv(&mut buffer) {
            Ok(length) => buffer[..length] == *say,
            Err(_) => false,
        }
    };

    socket.send(b"ask").unwrap();
    far.set_read_timeout(Some(PATIENCE)).unwrap();
    far.recv(&mut [0; 16]).unwrap();
    assert!(arrives(b"answer", PATIENCE));
    // Another flow gets no answer. Once it has timed out, this one has been silent for longer than
    // an unanswered flow may be.
    device.udp_send(FAR[0], 9, b"anybody?").unwrap();
    assert!(eventually(PATIENCE, || is_there(9)));
    assert!(eventually(PATIENCE, || !is_there(9)));
    assert!(is_there(7));
    assert!(arrives(b"late", PATIENCE));
    assert_eq!(guard.drops(), BTreeMap::new());
    // But it times out in the end.
    assert!(eventually(Duration::from_secs(20), || !is_there(7)));
    assert!(!arrives(b"too late", TIMEOUT));
    assert_eq!(guard.drops(), BTreeMap::from([("no_rule".to_owned(), 1)]));
}
