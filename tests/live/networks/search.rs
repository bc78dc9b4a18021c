//! A phone looks for a TV by a group, and the TV answers to the port that asked: does the answer
//! arrive by the rule that allows the search, and nothing else?

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket},
};

use wardline_tests::{
    Host, TIMEOUT,
    ward::{Guard, Ward, mac},
};

const SSDP: Ipv4Addr = Ipv4Addr::new(239, 255, 255, 250);
const MDNS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb);
const SERVICE: [u16; 2] = [1900, 5353];

fn document(hook: &str, mode: &str, answers: &str) -> String {
    let (phone, tv) = (mac(1), mac(2));
    format!(
        r#"
version: 1
zones:
  - {{name: media, mode: {mode}, subnets: [10.20.0.0/16, "fd20::/32"]}}
ports:
  - {{interface: lan1, zone: media, attach: {hook}}}
  - {{interface: lan2, zone: media, attach: {hook}}}
devices:
  - {{name: phone, zone: media, macs: ["{phone}"], addresses: [10.20.0.1, "fd20::1"]}}
  - {{name: tv, zone: media, macs: ["{tv}"], addresses: [10.20.0.2, "fd20::2"]}}
rules:
  - {{name: find, from: [zone:media], to: ["cidr:239.255.255.250/32", "cidr:ff02::fb/128"], services: [udp/1900, udp/5353], action: allow{answers}}}
"#
    )
}

/// The index of a host's eth0.
fn index(host: &Host) -> u32 {
    let shown = host.ip("-oneline link show eth0").unwrap();
    shown.split(':').next().unwrap().trim().parse().unwrap()
}

fn bind(host: &Host, address: &str, port: u16) -> UdpSocket {
    let socket = host.run(|| UdpSocket::bind((address, port)).unwrap());
    let socket = socket.unwrap();
    socket.set_read_timeout(Some(TIMEOUT)).unwrap();
    socket
}

/// A phone that asks, and a TV that listens.
struct Pair {
    phones: [UdpSocket; 2],
    listens: [UdpSocket; 2],
    /// From a port of their own, as many devices answer.
    answers: [UdpSocket; 2],
    groups: [SocketAddr; 2],
}

impl Pair {
    fn new(phone: &Host, tv: &Host) -> Self {
        let listens = [bind(tv, "0.0.0.0", SERVICE[0]), bind(tv, "::", SERVICE[1])];
        let own = Ipv4Addr::new(10, 20, 0, 2);
        listens[0].join_multicast_v4(&SSDP, &own).unwrap();
        listens[1].join_multicast_v6(&MDNS, index(tv)).unwrap();
        let scoped = SocketAddrV6::new(MDNS, SERVICE[1], 0, index(phone));
        Self {
            phones: ["0.0.0.0", "::"].map(|any| bind(phone, any, 0)),
            listens,
            answers: ["0.0.0.0", "::"].map(|any| bind(tv, any, 0)),
            groups: [(SSDP, SERVICE[0]).into(), scoped.into()],
        }
    }

    /// Whether the question arrives, and its answer.
    fn search(&self, family: usize) -> [bool; 2] {
        let (phone, answers) = (&self.phones[family], &self.answers[family]);
        phone.send_to(b"who is there", self.groups[family]).unwrap();
        let Ok((_, asker)) = self.listens[family].recv_from(&mut [0; 64]) else {
            return [false; 2];
        };
        answers.send_to(b"a tv", asker).unwrap();
        [true, phone.recv(&mut [0; 64]).is_ok()]
    }

    fn searches(&self) -> [[bool; 2]; 2] {
        [0, 1].map(|family| self.search(family))
    }
}

#[test]
fn who_is_found_answers_to_the_port_that_asked() {
    let ward = Ward::new("search");
    ward.lab.bridge(ward.lab.router(), "br0", &[]).unwrap();
    let [phone, tv] = [1, 2].map(|net| ward.bridged(net, "br0"));
    phone.ip("route add 224.0.0.0/4 dev eth0").unwrap();
    ward.lab.settle().unwrap();
    let pair = Pair::new(&phone, &tv);
    // Without Wardline the network works.
    assert_eq!(pair.searches(), [[true; 2]; 2]);
    const ANSWERS: &str = ", answers_from: [device:tv]";
    for hook in ["xdp", "tc"] {
        let guard = Guard::start(&ward.lab, "");
        guard.apply(&document(hook, "observe", ""));
        guard.observes("no_rule", || {
            assert_eq!(pair.searches(), [[true; 2]; 2], "{hook}");
        });
        for mode in ["observe", "enforce"] {
            guard.apply(&document(hook, mode, ANSWERS));
            assert_eq!(pair.searches(), [[true; 2]; 2], "{hook} {mode}");
            assert_eq!(guard.drops(), BTreeMap::new(), "{hook} {mode}");
        }
        // Another port of the phone has asked nothing.
        let silent = bind(&phone, "0.0.0.0", 0);
        let own = (
            Ipv4Addr::new(10, 20, 0, 1),
            silent.local_addr().unwrap().port(),
        );
        pair.answers[0].send_to(b"a tv", own).unwrap();
        assert!(silent.recv(&mut [0; 64]).is_err());
        assert_eq!(guard.drops(), BTreeMap::from([("no_rule".to_owned(), 1)]));
        // Without the word no answer arrives, not even to what was asked a moment ago.
        guard.apply(&document(hook, "enforce", ""));
        assert_eq!(pair.searches(), [[true, false]; 2], "{hook}");
    }
}
