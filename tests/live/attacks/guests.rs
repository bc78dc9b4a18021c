//! A guest takes another guest's place on a bridge where any MAC may speak: its address by ARP and
//! neighbour discovery, and its connection by forged segments and resets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use wardline_oracle::frames::{
    ACK, Arp, BROADCAST, Ethernet, Ipv6, PSH, RST, Tcp, group_mac, icmpv6, ip, mac as parsed,
};
use wardline_tests::{
    Host, Session, Sniffer, eventually,
    ward::{Guard, PATIENCE, TRIED, Ward, mac},
};

const POLICY: &str = "
version: 1
zones:
  - {name: guests, admit: any, subnets: [10.20.0.0/16, \"fd20::/32\"]}
ports:
  - {interface: lan*, zone: guests, attach: HOOK}
rules:
  - {name: talk, from: [zone:guests], to: [zone:guests], services: [tcp/7], action: allow}
";

/// The addresses of the n-th host.
fn own(net: u16) -> [IpAddr; 2] {
    [
        Ipv4Addr::new(10, 20, 0, net as u8).into(),
        Ipv6Addr::new(0xfd20, 0, 0, 0, 0, 0, 0, net).into(),
    ]
}

/// The MAC that a host believes an address to be at is this one.
fn believes(host: &Host, address: IpAddr, mac: &str) -> bool {
    let shown = host.ip(&format!("neighbour show {address} dev eth0"));
    shown.unwrap().contains(mac)
}

/// The attacker's frame that claims an address.
fn claims(address: IpAddr) -> Vec<u8> {
    let own = parsed(&mac(2));
    match address {
        IpAddr::V4(address) => {
            Ethernet::new(BROADCAST, own, Arp::request(own, address, address)).bytes()
        }
        IpAddr::V6(address) => {
            let all: Ipv6Addr = "ff02::1".parse().unwrap();
            let option = icmpv6::target_link(own);
            let says = icmpv6::neighbour_advertisement(address, 0x20, &[option]);
            let packet = Ipv6 {
                hop_limit: 255,
                ..Ipv6::new(address, all, says)
            };
            Ethernet::new(group_mac(all), own, packet).bytes()
        }
    }
}

/// Where a connection stands: the ports, and the numbers of the next byte each way.
struct Place {
    ports: [u16; 2],
    next: u32,
    awaits: u32,
}

/// Says something on a connection, and reads from the frame where it stands after it.
fn place(session: &mut Session, sniffer: &Sniffer) -> Place {
    const WORD: &[u8] = b"where are we";
    assert!(session.echo(WORD));
    let frame = sniffer.wait_for(PATIENCE, |frame| frame.ends_with(WORD));
    let frame = frame.unwrap();
    let tcp = if frame[12..14] == [8, 0] { 34 } else { 54 };
    let short = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
    let long = |at: usize| u32::from(short(at)) << 16 | u32::from(short(at + 2));
    let said = WORD.len() as u32;
    Place {
        ports: [short(tcp), short(tcp + 2)],
        next: long(tcp + 4).wrapping_add(said),
        // It has been echoed.
        awaits: long(tcp + 8).wrapping_add(said),
    }
}

/// The attacker's segment in the name of the other guest, which fits into the connection.
fn forged(place: &Place, [from, to]: [IpAddr; 2], flags: u8, data: &[u8]) -> Vec<u8> {
    let segment = Tcp {
        sequence: place.next,
        acknowledgement: place.awaits,
        data: data.to_vec(),
        ..Tcp::new(place.ports[0], place.ports[1], flags)
    };
    Ethernet::new(parsed(&mac(3)), parsed(&mac(2)), ip(from, to, segment)).bytes()
}

#[test]
fn a_guest_takes_neither_the_address_nor_the_connection_of_another() {
    let ward = Ward::new("guest-place");
    ward.lab.bridge(ward.lab.router(), "br0", &[]).unwrap();
    let [victim, attacker, other] = [1, 2, 3].map(|net| ward.bridged(net, "br0"));
    ward.lab.settle().unwrap();
    let _server = other.tcp_serve(7).unwrap();
    let sniffer = other.sniff("eth0").unwrap();
    let (victims, others) = (own(1), own(3));
    let opens = |family: usize| victim.session(&others[family].to_string(), 7).unwrap();
    // Whether the attacker's data is taken for the victim's, and whether its reset is.
    let attacked = |family: usize| {
        let ends = [victims[family], others[family]];
        let mut session = opens(family);
        let now = place(&mut session, &sniffer);
        let data = forged(&now, ends, PSH | ACK, TRIED);
        attacker.send_frame("eth0", &data).unwrap();
        // The victim's own bytes are then of the past.
        let injected = !session.echo(b"my own words");
        let mut session = opens(family);
        let now = place(&mut session, &sniffer);
        let reset = forged(&now, ends, RST | ACK, b"");
        attacker.send_frame("eth0", &reset).unwrap();
        [injected, !session.echo(b"are you there")]
    };
    let claimed = |family: usize| {
        let address = victims[family];
        let mut session = opens(family);
        assert!(session.echo(b"so the other knows the victim"));
        assert!(believes(&other, address, &mac(1)));
        attacker.send_frame("eth0", &claims(address)).unwrap();
    };
    // Without Wardline each of it works.
    for family in [0, 1] {
        assert_eq!(attacked(family), [true; 2], "{family}");
        claimed(family);
        let taken = || believes(&other, victims[family], &mac(2));
        assert!(eventually(PATIENCE, taken), "{family}");
    }
    for hook in ["xdp", "tc"] {
        for (host, family) in [(&other, "-4"), (&other, "-6")] {
            let flush = format!("{family} neighbour flush dev eth0");
            host.ip(&flush).unwrap();
        }
        let guard = Guard::start(&ward.lab, "");
        guard.apply(&POLICY.replace("HOOK", hook));
        assert_eq!(guard.attached()["lan2"], hook);
        for (family, reason) in [(0, "arp_spoof"), (1, "nd_spoof")] {
            // The victim has spoken before anybody takes its place.
            assert!(opens(family).echo(b"here I am"));
            let before = guard.packets("spoofed_source");
            assert_eq!(attacked(family), [false; 2], "{hook} {family}");
            assert_eq!(guard.packets("spoofed_source"), before + 2, "{hook}");
            let spoofs = || guard.packets(reason) + guard.packets("spoofed_source");
            let before = spoofs();
            claimed(family);
            let dropped = || spoofs() == before + 1;
            assert!(eventually(PATIENCE, dropped), "{hook} {:?}", guard.drops());
            assert!(believes(&other, victims[family], &mac(1)), "{hook}");
            // The attacker has an address and connections of its own.
            let to = others[family].to_string();
            assert!(attacker.session(&to, 7).unwrap().echo(b"honest"), "{hook}");
        }
        guard.told(&[("reason", "spoofed_source"), ("interface", "lan2")]);
    }
}
