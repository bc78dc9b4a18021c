//! Packets in a table: XDP and TC in the kernel, and `decide` on the host, say what the table says.

use std::net::{Ipv4Addr, Ipv6Addr};

use wardline_controller::datapath::{Datapath, Hook};
use wardline_ebpf::abi::Reason;
use wardline_proto::document;
use wardline_tests::Lab;

use crate::{
    frames::{
        ACK, Arp, BROADCAST, Dhcp, Ethernet, Extension, FIN, Ipv4, Ipv6, Mac, PSH, Packet,
        ROUTER_ALERT, RST, SYN, Tcp, Udp, Upper, dhcpv6, group_mac, icmp, icmpv6, igmp_report,
        solicited_node,
    },
    judges::{self, At, Compiled},
};

const POLICY: &str = r#"
version: 1
zones:
  - {name: pumps, subnets: [10.20.1.0/24, "fd20:0:0:1::/64"]}
  - {name: cameras, subnets: [10.20.2.0/24], ethertypes: [0x8892]}
  - {name: lab, subnets: [10.20.3.0/24], admit: any, ip_options: allow}
  - {name: watched, subnets: [10.20.4.0/24], mode: observe}
ports:
  - {interface: lan1, zone: pumps, vlans: [{id: 20, zone: cameras}]}
  - {interface: lan2, zone: cameras}
  - {interface: lan3, zone: lab, dhcp_server: true, router: true}
  - {interface: wifi1, zone: watched}
devices:
  - {name: pump, zone: pumps, macs: ["02:00:00:00:01:01"], addresses: [10.20.1.11, "fd20:0:0:1::11"]}
  - {name: pinned, zone: pumps, macs: ["02:00:00:00:01:02"], addresses: [10.20.1.12], port: lan1}
  - {name: camera, zone: cameras, macs: ["02:00:00:00:02:01"], addresses: [10.20.2.21]}
  - {name: shy, zone: cameras, macs: ["02:00:00:00:02:02"]}
  - {name: watched, zone: watched, macs: ["02:00:00:00:04:01"], addresses: [10.20.4.41]}
  - {name: records, zone: pumps, addresses: [10.20.1.200]}
services:
  - {name: hl7, ports: [tcp/2575]}
rules:
  - {name: pumps-to-records, from: [zone:pumps], to: [device:records], services: [hl7, tcp/8000-8010], action: allow}
  - {name: ping, from: [zone:pumps], to: [any], services: [icmp/8, icmpv6/128], action: allow}
  - {name: no-internet, from: [zone:pumps], to: ["cidr:198.51.100.0/24"], action: deny}
  - {name: web, from: [zone:pumps, zone:cameras], to: [any], services: [tcp/443], action: allow}
  - {name: over, from: [zone:pumps], to: [any], services: [udp/123], action: allow, expires: "2020-01-01T00:00:00Z"}
  - {name: gre, from: [zone:lab], to: [any], services: [proto/47, udp/7], action: allow}
"#;

const PUMP: Mac = [2, 0, 0, 0, 1, 1];
const PINNED: Mac = [2, 0, 0, 0, 1, 2];
const CAMERA: Mac = [2, 0, 0, 0, 2, 1];
const SHY: Mac = [2, 0, 0, 0, 2, 2];
const WATCHED: Mac = [2, 0, 0, 0, 4, 1];
const STRANGER: Mac = [2, 0, 0, 0, 0xee, 1];
const ROUTER: Mac = [2, 0, 0, 0, 0xff, 1];

const PUMP_4: Ipv4Addr = Ipv4Addr::new(10, 20, 1, 11);
const CAMERA_4: Ipv4Addr = Ipv4Addr::new(10, 20, 2, 21);
const RECORDS: Ipv4Addr = Ipv4Addr::new(10, 20, 1, 200);
const FAR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const PUMP_6: Ipv6Addr = Ipv6Addr::new(0xfd20, 0, 0, 1, 0, 0, 0, 0x11);
const FAR_6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const LINK: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x11);

/// One packet that enters, and what becomes of it.
struct Case {
    name: &'static str,
    port: &'static str,
    frame: Vec<u8>,
    reason: Reason,
}

fn case(name: &'static str, port: &'static str, frame: &Ethernet, reason: Reason) -> Case {
    Case {
        name,
        port,
        frame: frame.bytes(),
        reason,
    }
}

fn from_pump(packet: impl Into<Packet>) -> Ethernet {
    Ethernet::new(ROUTER, PUMP, packet)
}

fn tcp(source: Ipv4Addr, destination: Ipv4Addr, port: u16, flags: u8) -> Ipv4 {
    Ipv4::new(source, destination, Tcp::new(40_000, port, flags))
}

#[rustfmt::skip]
fn cases() -> Vec<Case> {
    let syn = |port| tcp(PUMP_4, RECORDS, port, SYN);
    let v6 = |upper: Upper| Ipv6::new(PUMP_6, FAR_6, upper);
    let syn6 = || Ipv6::new(PUMP_6, FAR_6, Tcp::new(40_000, 443, SYN));
    let udp = |length| {
        let mut bytes = Ethernet::new(ROUTER, PUMP, Ipv4::new(PUMP_4, FAR, Udp::new(1, 2, *b"data"))).bytes();
        bytes[14 + 20 + 4..14 + 20 + 6].copy_from_slice(&u16::to_be_bytes(length));
        bytes
    };
    let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let nd = |source: Ipv6Addr, destination: Ipv6Addr, upper| {
        Ethernet::new(group_mac(destination), PUMP, Ipv6 { hop_limit: 255, ..Ipv6::new(source, destination, upper) })
    };
    let own_link = &[icmpv6::target_link(PUMP)];
    let dhcp = |mac: Mac, message: Dhcp| Ethernet::new(BROADCAST, mac, Ipv4::new(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST, message.udp()));
    vec![
        // policy
        case("rule: a service by name", "lan1", &from_pump(syn(2575)), Reason::Rule),
        case("rule: the first port of a range", "lan1", &from_pump(syn(8000)), Reason::Rule),
        case("rule: the last port of a range", "lan1", &from_pump(syn(8010)), Reason::Rule),
        case("no rule: before a range", "lan1", &from_pump(syn(7999)), Reason::NoRule),
        case("no rule: behind a range", "lan1", &from_pump(syn(8011)), Reason::NoRule),
        case("deny beats allow", "lan1", &from_pump(tcp(PUMP_4, Ipv4Addr::new(198, 51, 100, 9), 443, SYN)), Reason::DeniedByRule),
        case("expired", "lan1", &from_pump(Ipv4::new(PUMP_4, FAR, Udp::new(123, 123, *b"x"))), Reason::Expired),
        case("ping", "lan1", &from_pump(Ipv4::new(PUMP_4, FAR, icmp::request(7, 1))), Reason::Rule),
        case("ping over IPv6", "lan1", &from_pump(v6(icmpv6::request(7, 1))), Reason::Rule),
        case("web over IPv6", "lan1", &from_pump(syn6()), Reason::Rule),
        case("a device to another of its zone needs a rule", "lan1", &from_pump(tcp(PUMP_4, Ipv4Addr::new(10, 20, 1, 12), 80, SYN)), Reason::NoRule),
        case("a priority tag is no tag", "lan1", &from_pump(syn(2575)).tagged(0), Reason::Established),
        // place
        case("unknown MAC", "lan1", &Ethernet::new(ROUTER, STRANGER, syn(2575)), Reason::UnknownDevice),
        case("another's address", "lan1", &from_pump(tcp(Ipv4Addr::new(10, 20, 1, 12), RECORDS, 2575, SYN)), Reason::SpoofedSource),
        case("an address of nobody", "lan1", &from_pump(tcp(Ipv4Addr::new(10, 20, 1, 99), RECORDS, 2575, SYN)), Reason::SpoofedSource),
        case("loopback source", "lan1", &from_pump(tcp(Ipv4Addr::LOCALHOST, RECORDS, 2575, SYN)), Reason::SpoofedSource),
        case("multicast source", "lan1", &from_pump(tcp(Ipv4Addr::new(224, 0, 0, 1), RECORDS, 2575, SYN)), Reason::SpoofedSource),
        case("broadcast source", "lan1", &from_pump(tcp(Ipv4Addr::BROADCAST, RECORDS, 2575, SYN)), Reason::SpoofedSource),
        case("unspecified source", "lan1", &from_pump(tcp(Ipv4Addr::UNSPECIFIED, RECORDS, 2575, SYN)), Reason::SpoofedSource),
        case("IPv4-mapped source in IPv6", "lan1", &from_pump(Ipv6::new(PUMP_4.to_ipv6_mapped(), FAR_6, Tcp::new(1, 443, SYN))), Reason::SpoofedSource),
        case("a device on a port of another zone", "lan2", &from_pump(syn(2575)), Reason::WrongPort),
        case("a device on a VLAN of another zone", "lan1", &from_pump(syn(2575)).tagged(20), Reason::WrongVlan),
        case("a device on the port that carries its zone on a VLAN", "lan1", &Ethernet::new(ROUTER, CAMERA, tcp(CAMERA_4, FAR, 443, SYN)), Reason::WrongVlan),
        case("a VLAN that the port has not", "lan1", &from_pump(syn(2575)).tagged(21), Reason::WrongVlan),
        case("a device on its VLAN", "lan1", &Ethernet::new(ROUTER, CAMERA, tcp(CAMERA_4, FAR, 443, SYN)).tagged(20), Reason::Rule),
        case("a device bound to its port, there", "lan1", &Ethernet::new(ROUTER, PINNED, tcp(Ipv4Addr::new(10, 20, 1, 12), RECORDS, 2575, SYN)), Reason::Rule),
        case("an unlisted MAC where any may speak", "lan3", &Ethernet::new(ROUTER, STRANGER, Ipv4::new(Ipv4Addr::new(10, 20, 3, 9), FAR, Udp::new(9, 7, *b"x"))), Reason::Rule),
        case("an unlisted MAC with an address of another zone", "lan3", &Ethernet::new(ROUTER, STRANGER, Ipv4::new(PUMP_4, FAR, Udp::new(9, 7, *b"x"))), Reason::SpoofedSource),
        case("a learned address", "lan2", &Ethernet::new(ROUTER, SHY, tcp(Ipv4Addr::new(10, 20, 2, 50), FAR, 443, SYN)), Reason::Rule),
        case("a learned address that is listed", "lan2", &Ethernet::new(ROUTER, SHY, tcp(CAMERA_4, FAR, 443, SYN)), Reason::SpoofedSource),
        case("a learned address outside the zone", "lan2", &Ethernet::new(ROUTER, SHY, tcp(FAR, CAMERA_4, 443, SYN)), Reason::SpoofedSource),
        // form
        Case { name: "no header", port: "lan1", frame: from_pump(syn(1)).bytes()[..14 + 12].to_vec(), reason: Reason::Malformed },
        case("a group as source MAC", "lan1", &Ethernet::new(ROUTER, [3, 0, 0, 0, 1, 1], syn(2575)), Reason::Malformed),
        case("IPv4 version 5", "lan1", &from_pump(Ipv4 { version: 5, ..syn(2575) }), Reason::Malformed),
        case("IPv4 header of four words", "lan1", &from_pump(Ipv4 { header_words: Some(4), ..syn(2575) }), Reason::Malformed),
        case("IPv4 longer than the frame", "lan1", &from_pump(Ipv4 { length: Some(1400), ..syn(2575) }), Reason::Malformed),
        case("IPv4 shorter than its header", "lan1", &from_pump(Ipv4 { length: Some(19), ..syn(2575) }), Reason::Malformed),
        case("IPv4 cuts the TCP header", "lan1", &from_pump(Ipv4 { length: Some(30), ..syn(2575) }), Reason::Malformed),
        case("IPv4 options", "lan1", &from_pump(Ipv4 { options: vec![7, 3, 4, 0], ..syn(2575) }), Reason::IpOptions),
        case("a loose source route, also where options may pass", "lan3", &Ethernet::new(ROUTER, STRANGER, Ipv4 { options: vec![131, 3, 4, 0], ..Ipv4::new(Ipv4Addr::new(10, 20, 3, 9), FAR, Udp::new(9, 7, *b"x")) }), Reason::IpOptions),
        case("options where they may pass", "lan3", &Ethernet::new(ROUTER, STRANGER, Ipv4 { options: vec![1, 1, 1, 0], ..Ipv4::new(Ipv4Addr::new(10, 20, 3, 9), FAR, Udp::new(10, 7, *b"x")) }), Reason::Rule),
        case("options do not shift the ports", "lan3", &Ethernet::new(ROUTER, STRANGER, Ipv4 { options: vec![1, 1, 0, 7, 1, 1, 0, 7], ..Ipv4::new(Ipv4Addr::new(10, 20, 3, 9), FAR, Udp::new(10, 8, *b"x")) }), Reason::NoRule),
        case("first fragment", "lan1", &from_pump(Ipv4 { more_fragments: true, ..syn(2575) }), Reason::Fragment),
        case("later fragment", "lan1", &from_pump(Ipv4 { fragment_offset: 185, ..syn(2575) }), Reason::Fragment),
        case("to itself", "lan1", &from_pump(tcp(PUMP_4, PUMP_4, 2575, SYN)), Reason::Malformed),
        case("TCP data offset of four words", "lan1", &from_pump(Ipv4::new(PUMP_4, RECORDS, Tcp { header_words: Some(4), ..Tcp::new(1, 2575, SYN) })), Reason::Malformed),
        case("TCP data offset behind the packet", "lan1", &from_pump(Ipv4::new(PUMP_4, RECORDS, Tcp { header_words: Some(15), ..Tcp::new(1, 2575, SYN) })), Reason::Malformed),
        case("no TCP flags", "lan1", &from_pump(tcp(PUMP_4, RECORDS, 2575, 0)), Reason::BadTcpFlags),
        case("SYN and FIN", "lan1", &from_pump(tcp(PUMP_4, RECORDS, 2575, SYN | FIN)), Reason::BadTcpFlags),
        case("SYN and RST", "lan1", &from_pump(tcp(PUMP_4, RECORDS, 2575, SYN | RST)), Reason::BadTcpFlags),
        case("FIN alone", "lan1", &from_pump(tcp(PUMP_4, RECORDS, 2575, FIN)), Reason::BadTcpFlags),
        Case { name: "UDP longer than the packet", port: "lan1", frame: udp(200), reason: Reason::Malformed },
        Case { name: "UDP shorter than the packet", port: "lan1", frame: udp(8), reason: Reason::Malformed },
        Case { name: "UDP shorter than its header", port: "lan1", frame: udp(7), reason: Reason::Malformed },
        case("padding behind the packet is fine", "lan1", &Ethernet { padded_to: 90, ..from_pump(Ipv4::new(PUMP_4, RECORDS, Tcp::new(41_000, 2575, SYN))) }, Reason::Rule),
        case("IPv6 longer than the frame", "lan1", &from_pump(Ipv6 { length: Some(900), ..syn6() }), Reason::Malformed),
        case("IPv6 destination options", "lan1", &from_pump(syn6().with(Extension::destination(&[1, 4, 0, 0, 0, 0]))), Reason::ExtensionHeader),
        case("IPv6 hop-by-hop options", "lan1", &from_pump(syn6().with(Extension::hop_by_hop(&[1, 4, 0, 0, 0, 0]))), Reason::ExtensionHeader),
        case("IPv6 routing header 0", "lan1", &from_pump(syn6().with(Extension::routing(0, 1, &[0; 20]))), Reason::ExtensionHeader),
        case("IPv6 authentication header", "lan1", &from_pump(syn6().with(Extension::authentication(&[0; 12]))), Reason::ExtensionHeader),
        case("an atomic fragment is a fragment", "lan1", &from_pump(syn6().with(Extension::fragment(0, false, 7))), Reason::Fragment),
        case("ICMP in IPv6", "lan1", &from_pump(v6(Upper::Bytes(1, vec![8, 0, 0, 0, 0, 1, 0, 1]))), Reason::Malformed),
        case("LLDP", "lan1", &from_pump(Packet::Bytes(0x88cc, vec![2, 7, 4])), Reason::UnknownEthertype),
        case("LLC", "lan1", &from_pump(Packet::Bytes(38, vec![0x42, 0x42, 3])), Reason::UnknownEthertype),
        case("802.1ad", "lan1", &from_pump(syn(2575)).tagged_as(0x88a8, 20), Reason::UnknownEthertype),
        case("two tags", "lan1", &from_pump(syn(2575)).tagged(20).tagged(20), Reason::UnknownEthertype),
        case("PROFINET where the zone names it", "lan2", &Ethernet::new(ROUTER, CAMERA, Packet::Bytes(0x8892, vec![0; 46])), Reason::Control),
        case("EAPOL", "lan1", &from_pump(Packet::Bytes(0x888e, vec![1, 1, 0, 0])), Reason::Control),
        // state
        case("ACK without a flow", "lan1", &from_pump(Ipv4::new(PUMP_4, FAR, Tcp::new(50_000, 443, ACK | PSH))), Reason::MidFlow),
        case("RST without a flow", "lan1", &from_pump(Ipv4::new(PUMP_4, FAR, Tcp::new(50_000, 443, RST))), Reason::MidFlow),
        case("SYN-ACK without a flow", "lan1", &from_pump(Ipv4::new(PUMP_4, FAR, Tcp::new(50_000, 443, SYN | ACK))), Reason::MidFlow),
        case("an echo reply nobody asked for", "lan1", &from_pump(Ipv4::new(PUMP_4, FAR, icmp::reply(9, 1))), Reason::MidFlow),
        case("an ICMP error about no flow", "lan1", &from_pump(Ipv4::new(PUMP_4, FAR, icmp::error(3, 1, &Ipv4::new(FAR, PUMP_4, Udp::new(5, 6, *b"x")).into()))), Reason::MidFlow),
        case("an ICMP redirect", "lan1", &from_pump(Ipv4::new(PUMP_4, FAR, icmp::error(5, 1, &Ipv4::new(FAR, PUMP_4, Udp::new(5, 6, *b"x")).into()))), Reason::RogueRa),
        // control
        case("ARP request of one's own", "lan1", &Ethernet::new(BROADCAST, PUMP, Arp::request(PUMP, PUMP_4, RECORDS)), Reason::Control),
        case("ARP probe", "lan1", &Ethernet::new(BROADCAST, PUMP, Arp::request(PUMP, Ipv4Addr::UNSPECIFIED, PUMP_4)), Reason::Control),
        case("ARP for another's address", "lan1", &Ethernet::new(BROADCAST, PUMP, Arp::request(PUMP, RECORDS, PUMP_4)), Reason::ArpSpoof),
        case("ARP for another MAC", "lan1", &Ethernet::new(BROADCAST, PUMP, Arp::request(CAMERA, PUMP_4, RECORDS)), Reason::ArpSpoof),
        case("ARP for other hardware", "lan1", &Ethernet::new(BROADCAST, PUMP, Arp { hardware: 6, ..Arp::request(PUMP, PUMP_4, RECORDS) }), Reason::Malformed),
        case("neighbour advertisement of one's own", "lan1", &nd(PUMP_6, all_nodes, icmpv6::neighbour_advertisement(PUMP_6, 0x20, own_link)), Reason::Control),
        case("neighbour advertisement of another's", "lan1", &nd(PUMP_6, all_nodes, icmpv6::neighbour_advertisement(FAR_6, 0x20, own_link)), Reason::NdSpoof),
        case("neighbour advertisement with another MAC", "lan1", &nd(PUMP_6, all_nodes, icmpv6::neighbour_advertisement(PUMP_6, 0x20, &[icmpv6::target_link(CAMERA)])), Reason::NdSpoof),
        case("neighbour solicitation", "lan1", &nd(LINK, solicited_node(FAR_6), icmpv6::neighbour_solicitation(FAR_6, &[icmpv6::source_link(PUMP)])), Reason::Control),
        case("duplicate address detection", "lan1", &nd(Ipv6Addr::UNSPECIFIED, solicited_node(PUMP_6), icmpv6::neighbour_solicitation(PUMP_6, &[])), Reason::Control),
        case("neighbour discovery that passed a router", "lan1", &Ethernet::new(ROUTER, PUMP, Ipv6 { hop_limit: 254, ..Ipv6::new(PUMP_6, all_nodes, icmpv6::neighbour_advertisement(PUMP_6, 0x20, own_link)) }), Reason::NdSpoof),
        case("router solicitation", "lan1", &nd(LINK, Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2), icmpv6::router_solicitation(&[])), Reason::Control),
        case("router advertisement", "lan1", &nd(LINK, all_nodes, icmpv6::router_advertisement(&[])), Reason::RogueRa),
        case("router advertisement where it may enter", "lan3", &Ethernet::new(group_mac(all_nodes), STRANGER, Ipv6 { hop_limit: 255, ..Ipv6::new(LINK, all_nodes, icmpv6::router_advertisement(&[])) }), Reason::Control),
        case("link-local data", "lan1", &Ethernet::new(ROUTER, PUMP, Ipv6::new(LINK, FAR_6, Tcp::new(1, 443, SYN))), Reason::NoRule),
        case("listener report", "lan1", &nd(LINK, Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16), icmpv6::listener_report(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 3))), Reason::Control),
        case("listener report with its router alert", "lan1", &Ethernet::new(ROUTER, PUMP, Ipv6::new(LINK, Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16), icmpv6::listener_report(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 3))).with(Extension::router_alert())), Reason::Control),
        case("ping with a router alert", "lan1", &from_pump(v6(icmpv6::request(8, 1)).with(Extension::router_alert())), Reason::ExtensionHeader),
        case("IGMP report with its router alert", "lan1", &from_pump(Ipv4 { options: ROUTER_ALERT.to_vec(), ..Ipv4::new(PUMP_4, Ipv4Addr::new(224, 0, 0, 22), igmp_report(Ipv4Addr::new(239, 1, 1, 1))) }), Reason::Control),
        case("DHCP client", "lan1", &dhcp(PUMP, Dhcp::client(1, PUMP)), Reason::Control),
        case("DHCP client for another MAC", "lan1", &dhcp(PUMP, Dhcp::client(1, CAMERA)), Reason::SpoofedSource),
        case("DHCP server", "lan1", &from_pump(Ipv4::new(PUMP_4, Ipv4Addr::BROADCAST, Dhcp::server(2, PUMP_4, CAMERA, FAR).udp())), Reason::RogueDhcp),
        case("DHCP server where it may enter", "lan3", &Ethernet::new(BROADCAST, STRANGER, Ipv4::new(Ipv4Addr::new(10, 20, 3, 9), Ipv4Addr::BROADCAST, Dhcp::server(2, PUMP_4, CAMERA, FAR).udp())), Reason::Control),
        case("DHCPv6 client", "lan1", &Ethernet::new(BROADCAST, PUMP, Ipv6::new(LINK, Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2), dhcpv6(1, PUMP))), Reason::Control),
        // observe
        case("what observe lets pass", "wifi1", &Ethernet::new(ROUTER, WATCHED, tcp(Ipv4Addr::new(10, 20, 4, 41), FAR, 80, SYN)), Reason::Observed),
        case("observe does not pass spoofing", "wifi1", &Ethernet::new(ROUTER, WATCHED, tcp(Ipv4Addr::new(10, 20, 4, 42), FAR, 80, SYN)), Reason::SpoofedSource),
        case("observe ends where another zone enforces", "wifi1", &Ethernet::new(ROUTER, WATCHED, tcp(Ipv4Addr::new(10, 20, 4, 41), PUMP_4, 80, SYN)), Reason::NoRule),
    ]
}

/// Runs work in a namespace that has the ports, with a datapath of its own.
fn on_ports<T: Send>(work: impl FnOnce(&Compiled, &mut Datapath) -> T + Send) -> T {
    let lab = Lab::new("packets").unwrap();
    let router = lab.router().clone();
    for interface in ["lan1", "lan2", "lan3", "wifi1", "uplink"] {
        router
            .ip(&format!(
                "link add {interface} type veth peer name {interface}-far"
            ))
            .unwrap();
    }
    router
        .run(|| {
            let (policy, problems) = document::parse(POLICY);
            assert!(problems.is_empty(), "{problems:?}");
            let mut datapath = judges::datapath();
            let inventory = judges::observed(&["10.20.1.1".parse().unwrap()]);
            let compiled = Compiled::new(&policy, &inventory, datapath.clock().unwrap());
            datapath.put(1, &compiled.tables).unwrap();
            work(&compiled, &mut datapath)
        })
        .unwrap()
}

#[test]
fn xdp_tc_and_host_say_what_the_table_says() {
    on_ports(|compiled, datapath| {
        let mut wrong = Vec::new();
        for hook in [Hook::Xdp, Hook::TcIngress] {
            datapath.forget().unwrap();
            let model = judges::model(compiled);
            for Case {
                name,
                port,
                frame,
                reason,
            } in cases()
            {
                let at = At::Entering {
                    ifindex: compiled.ifindex(port),
                };
                let said = judges::host(&model, at, &frame);
                if said.reason != reason {
                    wrong.push(format!("host: {name}: {:?}, not {reason:?}", said.reason));
                }
                // The kernel makes no packet at TC from less than an IP header.
                if hook == Hook::TcIngress && frame.len() < 14 + 20 && frame[12..14] == [8, 0] {
                    continue;
                }
                let (passed, counted) = judges::kernel(datapath, hook, at, &frame);
                if (passed, counted) != (reason.passes(), Some(reason)) {
                    wrong.push(format!(
                        "{hook:?}: {name}: {passed} {counted:?}, not {reason:?}"
                    ));
                }
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    });
}

#[test]
fn a_flow_lives_as_long_as_its_rule() {
    on_ports(|compiled, datapath| {
        let lan1 = compiled.ifindex("lan1");
        let there = |port: u16, flags| {
            from_pump(Ipv4::new(PUMP_4, RECORDS, Tcp::new(1000, port, flags))).bytes()
        };
        let back = |port: u16, flags| {
            Ethernet::new(
                PUMP,
                ROUTER,
                Ipv4::new(RECORDS, PUMP_4, Tcp::new(port, 1000, flags)),
            )
            .bytes()
        };
        let enters = At::Entering { ifindex: lan1 };
        let leaves = At::Leaving {
            ifindex: lan1,
            from: compiled.ifindex("uplink"),
        };
        let mut is = |at, frame: Vec<u8>, reason| {
            let hook = if matches!(at, At::Entering { .. }) {
                Hook::Xdp
            } else {
                Hook::TcEgress
            };
            assert_eq!(judges::kernel(datapath, hook, at, &frame).1, Some(reason));
        };
        is(leaves, back(2575, SYN | ACK), Reason::MidFlow);
        is(enters, there(2575, SYN), Reason::Rule);
        is(enters, there(2575, ACK), Reason::MidFlow);
        is(leaves, back(2575, SYN | ACK), Reason::Established);
        is(enters, there(2575, ACK), Reason::Established);
        is(leaves, back(2575, ACK | PSH), Reason::Established);
        // Nobody opens it the other way round, and nobody else speaks in it.
        is(leaves, back(2575, SYN), Reason::MidFlow);
        is(leaves, there(2575, ACK), Reason::SpoofedSource);
        let error = Ipv4::new(
            FAR,
            PUMP_4,
            icmp::error(
                3,
                4,
                &Ipv4::new(PUMP_4, RECORDS, Tcp::new(1000, 2575, ACK)).into(),
            ),
        );
        is(
            leaves,
            Ethernet::new(PUMP, ROUTER, error).bytes(),
            Reason::Related,
        );

        // Without its rule it is cut at the next packet, and another goes on.
        is(
            enters,
            from_pump(Ipv4::new(PUMP_4, FAR, icmp::request(3, 1))).bytes(),
            Reason::Rule,
        );
        let (mut policy, _) = document::parse(POLICY);
        policy.rules.retain(|rule| rule.name != "pumps-to-records");
        let next =
            Compiled::with_numbers(&policy, &compiled.inventory, compiled.clock, &compiled.ids);
        datapath.put(2, &next.tables).unwrap();
        let mut is = |at, frame: Vec<u8>, reason| {
            let hook = if matches!(at, At::Entering { .. }) {
                Hook::Xdp
            } else {
                Hook::TcEgress
            };
            assert_eq!(judges::kernel(datapath, hook, at, &frame).1, Some(reason));
        };
        is(leaves, back(2575, ACK | PSH), Reason::NoRule);
        is(enters, there(2575, ACK), Reason::MidFlow);
        let reply = Ethernet::new(PUMP, ROUTER, Ipv4::new(FAR, PUMP_4, icmp::reply(3, 1)));
        is(leaves, reply.bytes(), Reason::Established);
    });
}

#[test]
fn a_device_has_so_many_flows_and_no_more() {
    on_ports(|compiled, datapath| {
        let quota = judges::limits().flows_per_device;
        let at = At::Entering {
            ifindex: compiled.ifindex("lan1"),
        };
        let mut reasons = Vec::new();
        for port in 0..u16::try_from(quota).unwrap() + 4 {
            let frame = from_pump(Ipv4::new(PUMP_4, RECORDS, Tcp::new(2000 + port, 2575, SYN)));
            reasons.extend(judges::kernel(datapath, Hook::Xdp, at, &frame.bytes()).1);
        }
        let opened = reasons
            .iter()
            .filter(|reason| **reason == Reason::Rule)
            .count();
        assert_eq!(opened, quota as usize);
        assert!(
            reasons[quota as usize..]
                .iter()
                .all(|reason| *reason == Reason::DeviceQuota)
        );
        // Another device opens flows all the same.
        let frame = Ethernet::new(
            ROUTER,
            PINNED,
            tcp(Ipv4Addr::new(10, 20, 1, 12), RECORDS, 2575, SYN),
        );
        assert_eq!(
            judges::kernel(datapath, Hook::Xdp, at, &frame.bytes()).1,
            Some(Reason::Rule)
        );
    });
}

#[test]
fn what_leaves_is_judged_by_where_it_came_from() {
    on_ports(|compiled, datapath| {
        let (lan1, lan2) = (compiled.ifindex("lan1"), compiled.ifindex("lan2"));
        let uplink = compiled.ifindex("uplink");
        let mut is = |from, frame: Ethernet, reason: Option<Reason>, passes| {
            let at = At::Leaving {
                ifindex: lan1,
                from,
            };
            let said = judges::kernel(datapath, Hook::TcEgress, at, &frame.bytes());
            assert_eq!(said, (passes, reason));
        };
        let to_pump = |source: Ipv4Addr| Ethernet::new(PUMP, ROUTER, tcp(source, PUMP_4, 80, SYN));
        is(uplink, to_pump(FAR), Some(Reason::NoRule), false);
        is(
            uplink,
            to_pump(CAMERA_4),
            Some(Reason::SpoofedSource),
            false,
        );
        is(
            uplink,
            to_pump(Ipv4Addr::new(10, 20, 1, 1)),
            Some(Reason::SpoofedSource),
            false,
        );
        is(
            0,
            to_pump(Ipv4Addr::new(10, 20, 1, 1)),
            Some(Reason::NoRule),
            false,
        );
        let arp = |mac, address| Ethernet::new(BROADCAST, mac, Arp::request(mac, address, PUMP_4));
        is(
            0,
            arp(ROUTER, Ipv4Addr::new(10, 20, 1, 1)),
            Some(Reason::Control),
            true,
        );
        is(
            uplink,
            arp(STRANGER, Ipv4Addr::new(10, 20, 1, 1)),
            Some(Reason::ArpSpoof),
            false,
        );
        is(uplink, arp(STRANGER, RECORDS), Some(Reason::Control), true);
        // It was judged where it entered.
        is(lan2, arp(CAMERA, CAMERA_4), None, true);
    });
}

#[test]
fn programs_stay_within_their_budgets() {
    // Recorded on 6.18, with some room: a program that grows past it is looked at.
    const BUDGETS: [(&str, u32, u32); 5] = [
        ("xdp_ingress", 12_000, 330_000),
        ("tc_ingress", 12_000, 330_000),
        ("tc_egress", 10_800, 260_000),
        ("sweep", 260, 5_000),
        ("clock", 40, 20),
    ];
    for size in judges::datapath().sizes().unwrap() {
        println!(
            "{}: {} instructions, {} verified",
            size.name, size.instructions, size.verified
        );
        let (_, instructions, verified) = BUDGETS
            .into_iter()
            .find(|(name, ..)| *name == size.name)
            .unwrap();
        assert!(
            size.instructions <= instructions,
            "{size:?} of at most {instructions}"
        );
        assert!(
            size.verified <= verified,
            "{size:?} of at most {verified} verified"
        );
    }
}
