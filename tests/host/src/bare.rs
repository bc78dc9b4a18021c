//! Ports without a link header (WireGuard, PPP, tun): what the decision says of bare IP packets.

use wardline_ebpf::abi::Reason;
use wardline_oracle::{
    frames::{ACK, Dhcp, Extension, Ipv4, Ipv6, SYN, Tcp, Udp, dhcpv6, icmp, icmpv6, igmp_report},
    random::ROUTER_MAC,
};
use wardline_policy::inventory::Header;

use crate::judge::{At, Compiled, clock, host, inventory, model, parsed};

const POLICY: &str = r#"version: 1
zones:
  - {name: pumps, subnets: [10.20.1.0/24, "fd20:1::/64"]}
  - {name: far, admit: ADMIT, subnets: [10.99.0.0/24, "fd99::/64"]}
ports:
  - {interface: lan1, zone: pumps}
  - {interface: wg0, zone: far}
  - {interface: wg1, zone: far}
devices:
  - {name: pump, zone: pumps, macs: ["02:00:00:00:01:11"], addresses: [10.20.1.11, "fd20:1::11"]}
  - {name: clinic, zone: far, port: wg0, addresses: [10.99.0.7, "fd99::7"]}
  - {name: office, zone: far, port: wg1, addresses: [10.99.0.8, "fd99::8"]}
  - {name: server, zone: far, addresses: [10.99.0.9]}
rules:
  - {name: out, from: [zone:pumps, router], to: [zone:far], services: [tcp/2575], action: allow}
  - {name: in, from: [zone:far], to: [zone:pumps, router], services: [tcp/22], action: allow}
"#;

/// Judges packets one after another, each at a place; their reasons.
fn reasons(admit: &str, packets: &[(At, Vec<u8>)]) -> Vec<Reason> {
    let addresses = ["10.20.1.1", "10.99.0.1", "fd99::1"].map(|it| it.parse().unwrap());
    let mut inventory = inventory(&["lan1", "wg0", "wg1", "uplink"], &addresses);
    for link in inventory.links.values_mut() {
        if link.name.starts_with("wg") {
            (link.header, link.mac) = (Header::Bare, None);
        }
    }
    let policy = parsed(&POLICY.replace("ADMIT", admit));
    let compiled = Compiled::new(&policy, &inventory, clock(jiff::Timestamp::now()));
    let model = model(&compiled);
    let said = packets.iter().map(|(at, packet)| host(&model, *at, packet));
    said.map(|said| said.would).collect()
}

const IN: At = At::Entering { ifindex: 11 };

fn v4(source: &str, upper: impl Into<wardline_oracle::frames::Upper>) -> Vec<u8> {
    Ipv4::new(source.parse().unwrap(), [10, 20, 1, 11].into(), upper).bytes()
}

fn v6(source: &str, upper: impl Into<wardline_oracle::frames::Upper>) -> Ipv6 {
    let pump = "fd20:1::11".parse().unwrap();
    Ipv6::new(source.parse().unwrap(), pump, upper)
}

fn syn(port: u16) -> Tcp {
    Tcp::new(40_000, port, SYN)
}

#[test]
fn senders_are_known_by_port_and_address() {
    use Reason::{Rule, SpoofedSource, UnknownDevice};
    for (source, any, listed) in [
        ("10.99.0.7", Rule, Rule),
        ("fd99::7", Rule, Rule),
        // Nobody has it: where any may speak, its host may.
        ("10.99.0.66", Rule, UnknownDevice),
        ("fd99::66", Rule, UnknownDevice),
        // Another port's device, and one that is behind no port.
        ("10.99.0.8", SpoofedSource, SpoofedSource),
        ("fd99::8", SpoofedSource, SpoofedSource),
        ("10.99.0.9", SpoofedSource, SpoofedSource),
        // Of other zones, of none, the router's, nobody's.
        ("10.20.1.11", Reason::Malformed, Reason::Malformed),
        ("10.20.1.12", SpoofedSource, SpoofedSource),
        ("fd20:1::12", SpoofedSource, SpoofedSource),
        ("198.51.100.1", SpoofedSource, SpoofedSource),
        ("2001:db8::1", SpoofedSource, SpoofedSource),
        ("10.99.0.1", SpoofedSource, SpoofedSource),
        ("fd99::1", SpoofedSource, SpoofedSource),
        ("127.0.0.1", SpoofedSource, SpoofedSource),
        ("0.0.0.0", SpoofedSource, SpoofedSource),
        ("::", SpoofedSource, SpoofedSource),
        ("::ffff:10.99.0.7", SpoofedSource, SpoofedSource),
        ("fe80::7", Rule, UnknownDevice),
    ] {
        let packet = if source.contains(':') {
            v6(source, syn(22)).bytes()
        } else {
            v4(source, syn(22))
        };
        for (admit, reason) in [("any", any), ("listed", listed)] {
            let said = reasons(admit, &[(IN, packet.clone())]);
            assert_eq!(said, [reason], "{source}, {admit}");
        }
    }
}

#[test]
fn nothing_is_control() {
    let target = "fd20:1::11".parse().unwrap();
    let near = |upper| {
        let packet = v6("fd99::7", upper);
        Ipv6 {
            hop_limit: 255,
            ..packet
        }
        .bytes()
    };
    let relayed = Dhcp::client(1, ROUTER_MAC).udp();
    for packet in [
        near(icmpv6::neighbour_solicitation(target, &[])),
        near(icmpv6::neighbour_advertisement(target, 0x20, &[])),
        near(icmpv6::router_solicitation(&[])),
        near(icmpv6::router_advertisement(&[])),
        near(dhcpv6(1, ROUTER_MAC).into()),
        v4("10.99.0.7", relayed),
        v4("10.99.0.7", Udp::new(67, 68, *b"offer")),
        v4("10.99.0.7", igmp_report([239, 1, 1, 1].into())),
    ] {
        assert_eq!(reasons("any", &[(IN, packet)]), [Reason::NoRule]);
    }
    // Nor is anything that is not IP.
    for start in [0x00, 0x50, 0xff] {
        let said = reasons("any", &[(IN, vec![start; 60])]);
        assert_eq!(said, [Reason::UnknownEthertype]);
    }
}

#[test]
fn form_is_that_of_any_packet() {
    let short = v4("10.99.0.7", syn(22))[..30].to_vec();
    let options = Ipv4 {
        options: vec![1; 4],
        ..Ipv4::new([10, 99, 0, 7].into(), [10, 20, 1, 11].into(), syn(22))
    };
    let chain = v6("fd99::7", syn(22)).with(Extension::destination(&[1, 4, 0, 0, 0, 0]));
    let flags = v4("10.99.0.7", Tcp::new(40_000, 22, 0));
    let part = Ipv4 {
        more_fragments: true,
        ..Ipv4::new([10, 99, 0, 7].into(), [10, 20, 1, 11].into(), syn(22))
    };
    for (packet, reason) in [
        (short, Reason::Malformed),
        (options.bytes(), Reason::IpOptions),
        (chain.bytes(), Reason::ExtensionHeader),
        (flags, Reason::BadTcpFlags),
        (part.bytes(), Reason::Fragment),
        (v4("10.99.0.7", syn(23)), Reason::NoRule),
        (v4("10.99.0.7", Tcp::new(40_000, 22, ACK)), Reason::MidFlow),
        (v4("10.99.0.7", icmp::reply(7, 1)), Reason::MidFlow),
    ] {
        assert_eq!(reasons("any", &[(IN, packet)]), [reason]);
    }
}

#[test]
fn flows_go_both_ways_and_belong_to_their_port() {
    let out = |from| At::Leaving { ifindex: 11, from };
    let packet = |source: &str, destination: &str, tcp| {
        let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
        Ipv4::new(source, destination, tcp).bytes()
    };
    let asks = packet("10.99.0.1", "10.99.0.66", syn(2575));
    let answers = packet("10.99.0.66", "10.99.0.1", Tcp::new(2575, 40_000, SYN | ACK));
    let goes_on = packet("10.99.0.1", "10.99.0.66", Tcp::new(40_000, 2575, ACK));
    let elsewhere = At::Entering { ifindex: 12 };
    let said = reasons(
        "any",
        &[
            (out(0), asks.clone()),
            (IN, answers.clone()),
            (out(0), goes_on),
            (IN, answers.clone()),
        ],
    );
    let established = Reason::Established;
    assert_eq!(said, [Reason::Rule, established, established, established]);
    // The router's own address, and its devices', from the uplink.
    let from_uplink = out(13);
    let said = reasons("any", &[(from_uplink, asks.clone())]);
    assert_eq!(said, [Reason::SpoofedSource]);
    // What the uplink's hosts send as DHCP is forwarded, so it is policy's.
    let offer = Ipv4::new(
        [198, 51, 100, 1].into(),
        [10, 99, 0, 7].into(),
        Udp::new(67, 68, *b"x"),
    );
    assert_eq!(
        reasons("any", &[(from_uplink, offer.bytes())]),
        [Reason::NoRule]
    );
    let clinic = packet("10.99.0.7", "10.99.0.66", syn(2575));
    assert_eq!(
        reasons("any", &[(from_uplink, clinic)]),
        [Reason::SpoofedSource]
    );
    let office = packet("10.99.0.8", "10.20.1.11", syn(22));
    assert_eq!(reasons("any", &[(elsewhere, office)]), [Reason::Rule]);
}
