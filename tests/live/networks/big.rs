//! BIG TCP: do connections work whose stack joins more segments to one frame than an IP header can
//! say the length of?

use std::{
    io::{self, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    thread,
};

use serde_json::Value;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use wardline_tests::{
    Host, TIMEOUT,
    ward::{FAR, Guard, PATIENCE, Ward, policy, skip, v4, v6, zone},
};

/// What a frame may hold, in bytes.
const SIZE: u32 = 180_000;
/// Bytes that a connection sends: it has to become fast before its stack joins so much.
const DATA: usize = 128 << 20;
/// A sniffer holds no more of a frame.
const MOST: usize = 65_536 + 14;

/// Lets an interface send such frames of a family; false when this kernel can't.
fn grow(host: &Host, interface: &str, ipv4: bool) -> bool {
    // IFLA_GSO_MAX_SIZE and IFLA_GRO_MAX_SIZE, IFLA_GSO_IPV4_MAX_SIZE and IFLA_GRO_IPV4_MAX_SIZE.
    let attributes = if ipv4 { [63u16, 64] } else { [41, 58] };
    let link: Value = {
        let text = host.ip(&format!("-json link show {interface}")).unwrap();
        serde_json::from_str(&text).unwrap()
    };
    let index = link[0]["ifindex"].as_u64().unwrap() as u32;
    let mut message = Vec::new();
    // struct nlmsghdr: RTM_SETLINK, to be acknowledged; struct ifinfomsg.
    message.extend(48u32.to_ne_bytes());
    message.extend(19u16.to_ne_bytes());
    message.extend(5u16.to_ne_bytes());
    message.extend([0; 8]);
    message.extend([0; 4]);
    message.extend(index.to_ne_bytes());
    message.extend([0; 8]);
    for attribute in attributes {
        message.extend(8u16.to_ne_bytes());
        message.extend(attribute.to_ne_bytes());
        message.extend(SIZE.to_ne_bytes());
    }
    let ask = || -> io::Result<i32> {
        let netlink = Domain::from(libc::AF_NETLINK);
        let mut socket = Socket::new(netlink, Type::RAW, Some(Protocol::from(0)))?;
        socket.send(&message)?;
        let mut answer = [0; 256];
        let _ = socket.read(&mut answer)?;
        Ok(i32::from_ne_bytes([
            answer[16], answer[17], answer[18], answer[19],
        ]))
    };
    host.run(ask).unwrap().unwrap() == 0
}

/// Sends much data over one connection; all of it arrives. Whether a frame was as long as that.
fn sends_big(from: &Host, to: &Host, address: &str) -> bool {
    let any = if address.contains(':') {
        "::"
    } else {
        "0.0.0.0"
    };
    let listener = to.run(|| TcpListener::bind((any, 5001)).unwrap()).unwrap();
    let sniffer = to.sniff("eth0").unwrap();
    let target = SocketAddr::new(address.parse().unwrap(), 5001);
    let connect = || TcpStream::connect_timeout(&target, TIMEOUT);
    let mut stream = from.run(connect).unwrap().unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    let receives = || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let (mut received, mut buffer) = (0, vec![0; 1 << 20]);
        loop {
            match stream.read(&mut buffer).unwrap() {
                0 => return received,
                length => received += length,
            }
        }
    };
    let mut sends = move || {
        let data = vec![7; 4 << 20];
        for _ in 0..DATA / data.len() {
            stream.write_all(&data).unwrap();
        }
        stream.shutdown(Shutdown::Write).unwrap();
    };
    thread::scope(|scope| {
        let received = scope.spawn(receives);
        let big = scope.spawn(|| sniffer.wait_for(PATIENCE, |it| it.len() == MOST));
        sends();
        assert_eq!(received.join().unwrap(), DATA, "{from} to {address}");
        // A program that another test is about to start may hold the socket a little longer.
        SockRef::from(&listener).shutdown(Shutdown::Both).unwrap();
        big.join().unwrap().is_some()
    })
}

#[test]
fn frames_longer_than_their_header_can_say_pass() {
    const NAME: &str = "big-tcp";
    let ward = Ward::new(NAME);
    let [one, two] = [1, 2].map(|net| ward.device(net));
    ward.lab.settle().unwrap();
    let router = ward.lab.router();
    let interfaces = [
        (&one, "eth0"),
        (&two, "eth0"),
        (&ward.far, "eth0"),
        (router, "lan1"),
        (router, "lan2"),
        (router, "uplink"),
    ];
    // The router measures IPv6 segments with the option that it takes out of them later.
    for host in [&one, &two, &ward.far] {
        host.ip("link set eth0 mtu 1400").unwrap();
    }
    let families = [false, true].map(|ipv4| interfaces.iter().all(|it| grow(it.0, it.1, ipv4)));
    if !families[0] {
        return skip(NAME, "this kernel has no BIG TCP");
    }
    let mut ways = vec![
        (&two, &one, v6(1)),
        (&ward.far, &one, v6(1)),
        (&one, &ward.far, FAR[1].to_owned()),
        (router, &one, v6(1)),
    ];
    if families[1] {
        ways.extend([(&two, &one, v4(1)), (&one, &ward.far, FAR[0].to_owned())]);
    } else {
        skip(NAME, "this kernel has no BIG TCP of IPv4");
    }
    // Without Wardline.
    for (from, to, address) in &ways {
        assert!(sends_big(from, to, address), "{from} to {address}");
    }
    let guard = Guard::start(&ward.lab, "");
    for mode in ["", ", mode: observe"] {
        let zones = [1, 2].map(|net| zone(net, mode, ", attach: tc"));
        let rule = "  - {name: bulk, from: [any, router], to: [any], services: [tcp/5001], action: allow}\n";
        guard.apply(&(policy(&zones, "icmp/8") + rule));
        for port in ["lan1", "lan2"] {
            guard.wait_until_guarded(port);
        }
        for (from, to, address) in &ways {
            assert!(sends_big(from, to, address), "{from} to {address}{mode}");
        }
        assert_eq!(guard.packets("malformed"), 0);
        assert_eq!(guard.drops(), [].into());
        assert_eq!(guard.packets("observed"), 0);
    }
}
