//! A guest takes another guest's place where any MAC may speak, on a bridge or behind the same port:
//! its address by ARP and neighbour discovery, and its connection by forged segments and resets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use wardline_oracle::frames::{
    ACK, Arp, BROADCAST, Ethernet, Ipv6, Mac, PSH, RST, Tcp, group_mac, icmpv6, ip, mac as parsed,
};
use wardline_tests::{
    Host, Lab, Session, Sniffer, eventually,
    ward::{Guard, PATIENCE, TRIED, Ward, mac, v4, v6},
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
fn believes((host, interface): (&Host, &str), address: IpAddr, mac: &str) -> bool {
    let shown = host.ip(&format!("neighbour show {address} dev {interface}"));
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
fn forged(
    place: &Place,
    next_hop: Mac,
    [from, to]: [IpAddr; 2],
    flags: u8,
    data: &[u8],
) -> Vec<u8> {
    let segment = Tcp {
        sequence: place.next,
        acknowledgement: place.awaits,
        data: data.to_vec(),
        ..Tcp::new(place.ports[0], place.ports[1], flags)
    };
    Ethernet::new(next_hop, parsed(&mac(2)), ip(from, to, segment)).bytes()
}

#[test]
fn a_guest_takes_neither_the_address_nor_the_connection_of_another() {
    let ward = Ward::new("guest-place");
    ward.lab.bridge(ward.lab.router(), "br0", &[]).unwrap();
    let guests = [1, 2, 3].map(|net| ward.bridged(net, "br0"));
    ward.lab.settle().unwrap();
    let place = Places {
        lab: &ward.lab,
        guests: &guests,
        addresses: [own(1), own(3)],
        next_hop: parsed(&mac(3)),
        believer: (&guests[2], "eth0"),
    };
    place.are_kept("lan2");
}

#[test]
fn a_guest_behind_the_same_routed_port_takes_neither() {
    let ward = Ward::new("guest-routed");
    let [victim, attacker] = ward.switched(1);
    let guests = [victim, attacker, ward.device(3)];
    ward.lab.settle().unwrap();
    let router = ward.lab.router();
    let of = |net| [v4(net), v6(net)].map(|it| it.parse().unwrap());
    let place = Places {
        lab: &ward.lab,
        guests: &guests,
        addresses: [of(1), of(3)],
        next_hop: router.mac("lan1").unwrap(),
        believer: (router, "lan1"),
    };
    place.are_kept("lan1");
    // A guest that was cut off returns with another MAC, so the port is cut off.
    let guard = Guard::start(&ward.lab, "");
    guard.apply(&POLICY.replace("HOOK", "auto"));
    let [far, free] = [v4(3), "10.20.1.99".to_owned()];
    let opens = |host: &Host| host.session(&far, 7).is_ok_and(|mut it| it.echo(b"hello"));
    let _server = guests[2].tcp_serve(7).unwrap();
    assert!(opens(&guests[1]));
    let quarantine = ["quarantine", "--port", "lan1", "--reason", "odd"];
    guard.ctl.run(&quarantine).unwrap().ok().unwrap();
    for change in [
        "link set eth0 address 02:00:00:00:77:77".to_owned(),
        format!("address replace {free}/24 dev eth0"),
        "route replace default via 10.20.1.1".to_owned(),
    ] {
        guests[1].ip(&change).unwrap();
    }
    assert!(!opens(&guests[1]), "{:?}", guard.drops());
    guard.told(&[("reason", "quarantined"), ("interface", "lan1")]);
}

/// Two guests, of which one takes the other's place, and a third that the other talks to.
struct Places<'a> {
    lab: &'a Lab,
    /// The victim, the attacker, and the third.
    guests: &'a [Host; 3],
    /// Those of the victim and of the third, by family.
    addresses: [[IpAddr; 2]; 2],
    /// By which the attacker reaches the third.
    next_hop: Mac,
    /// Who has to know where the victim is.
    believer: (&'a Host, &'a str),
}

impl Places<'_> {
    /// Without Wardline the attacker takes the victim's address and its connections; with it neither.
    /// The attacker's port is named.
    fn are_kept(&self, port: &str) {
        let [victim, attacker, other] = self.guests;
        let [victims, others] = self.addresses;
        let _server = other.tcp_serve(7).unwrap();
        let sniffer = other.sniff("eth0").unwrap();
        let opens = |family: usize| victim.session(&others[family].to_string(), 7).unwrap();
        // Whether the attacker's data is taken for the victim's, and whether its reset is.
        let attacked = |family: usize| {
            let ends = [victims[family], others[family]];
            let mut session = opens(family);
            let now = place(&mut session, &sniffer);
            let data = forged(&now, self.next_hop, ends, PSH | ACK, TRIED);
            attacker.send_frame("eth0", &data).unwrap();
            // The victim's own bytes are then of the past.
            let injected = !session.echo(b"my own words");
            let mut session = opens(family);
            let now = place(&mut session, &sniffer);
            let reset = forged(&now, self.next_hop, ends, RST | ACK, b"");
            attacker.send_frame("eth0", &reset).unwrap();
            [injected, !session.echo(b"are you there")]
        };
        let believes = |family: usize, net: u8| believes(self.believer, victims[family], &mac(net));
        let claimed = |family: usize| {
            let mut session = opens(family);
            assert!(session.echo(b"so the other knows the victim"));
            assert!(believes(family, 1));
            let claim = claims(victims[family]);
            attacker.send_frame("eth0", &claim).unwrap();
        };
        // Without Wardline each of it works.
        for family in [0, 1] {
            assert_eq!(attacked(family), [true; 2], "{family}");
            claimed(family);
            let taken = || believes(family, 2);
            assert!(eventually(PATIENCE, taken), "{family}");
        }
        for hook in ["xdp", "tc"] {
            let (host, interface) = self.believer;
            for family in ["-4", "-6"] {
                let flush = format!("{family} neighbour flush dev {interface}");
                host.ip(&flush).unwrap();
            }
            let guard = Guard::start(self.lab, "");
            guard.apply(&POLICY.replace("HOOK", hook));
            assert_eq!(guard.attached()[port], hook);
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
                assert!(believes(family, 1), "{hook}");
                // The attacker has an address and connections of its own.
                let to = others[family].to_string();
                assert!(attacker.session(&to, 7).unwrap().echo(b"honest"), "{hook}");
            }
            guard.told(&[("reason", "spoofed_source"), ("interface", port)]);
        }
    }
}
