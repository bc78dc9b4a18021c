//! Are frames written as the RFCs say?

use std::net::Ipv4Addr;

use super::*;

const A: Mac = [2, 0, 0, 0, 0, 0xa];
const B: Mac = [2, 0, 0, 0, 0, 0xb];
const A4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const B4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const A6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
const B6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);

/// A sum over data that includes its own checksum is zero.
fn assert_upper_sum(packet: &Packet, header: usize, protocol: u8) {
    let (_, bytes) = packet.encode();
    let upper = &bytes[header..];
    let (source, destination): (IpAddr, IpAddr) = match packet {
        Packet::Ipv4(packet) => (packet.source.into(), packet.destination.into()),
        Packet::Ipv6(packet) => (packet.source.into(), packet.destination.into()),
        Packet::Arp(_) | Packet::Bytes(..) => panic!("not IP"),
    };
    let sum = match protocol {
        1 => checksum(&[upper]),
        _ => checksum(&[&pseudo_header(source, destination, protocol, upper), upper]),
    };
    assert_eq!(sum, 0, "{packet:?}");
}

#[test]
fn writes_a_known_frame() {
    // Summed by hand: 4500+14+40fd+a00+1+a00+2 = 9a14.
    let packet = Ipv4 {
        identification: 0,
        ..Ipv4::new(A4, B4, Upper::Bytes(253, vec![]))
    };
    let frame = Ethernet::new(B, A, packet).tagged(20).bytes();
    let expected: Vec<u8> = [
        B.as_slice(),
        &A,
        &[0x81, 0x00, 0x00, 20, 0x08, 0x00],
        &[
            0x45, 0, 0, 20, 0, 0, 0, 0, 64, 253, 0x65, 0xeb, 10, 0, 0, 1, 10, 0, 0, 2,
        ],
    ]
    .concat();
    assert_eq!(frame, expected);
}

#[test]
fn writes_what_is_not_ip() {
    let bridge: Mac = mac("01:80:c2:00:00:00");
    let llc = vec![0x42, 0x42, 3];
    let frame = Ethernet::new(bridge, A, Packet::Bytes(3, llc)).bytes();
    assert_eq!(frame[12..], [0, 3, 0x42, 0x42, 3]);
}

#[test]
fn checksums_are_right_for_every_protocol_and_family() {
    let tcp = Tcp {
        options: vec![2, 4, 5, 0xb4, 1],
        data: vec![7; 3],
        ..Tcp::new(1, 2, SYN)
    };
    for (upper, protocol) in [
        (tcp.into(), 6),
        (Udp::new(5, 6, *b"odd").into(), 17),
        (icmpv6::request(7, 1), 58),
        (
            icmpv6::neighbour_solicitation(B6, &[icmpv6::source_link(A)]),
            58,
        ),
    ] {
        assert_upper_sum(
            &ip(A6.into(), B6.into(), Upper::clone(&upper)),
            40,
            protocol,
        );
        if protocol != 58 {
            assert_upper_sum(&ip(A4.into(), B4.into(), upper), 20, protocol);
        }
    }
    assert_upper_sum(&ip(A4.into(), B4.into(), icmp::request(7, 1)), 20, 1);
    assert_upper_sum(&ip(A4.into(), B4.into(), icmp::reply(7, 1)), 20, 1);
    let header = &Ipv4 {
        options: ROUTER_ALERT.to_vec(),
        ..Ipv4::new(A4, B4, igmp_report(B4))
    }
    .bytes()[..24];
    assert_eq!((header[0], checksum(&[header])), (0x46, 0));
}

#[test]
fn what_is_given_wins_over_what_is_computed() {
    let upper = Udp {
        length: Some(99),
        checksum: Some(0),
        ..Udp::new(1, 2, [])
    };
    let mut packet = Ipv4::new(A4, B4, upper);
    (packet.version, packet.header_words, packet.length) = (5, Some(4), Some(7));
    (packet.protocol, packet.checksum, packet.ttl) = (Some(6), Some(0xbeef), 1);
    (
        packet.dont_fragment,
        packet.more_fragments,
        packet.fragment_offset,
    ) = (true, true, 1);
    let bytes = packet.bytes();
    assert_eq!(bytes[..4], [0x54, 0, 0, 7]);
    assert_eq!(bytes[6..12], [0x60, 1, 1, 6, 0xbe, 0xef]);
    assert_eq!(bytes[24..], [0, 99, 0, 0]);

    let tcp = Tcp {
        header_words: Some(15),
        checksum: Some(1),
        ..Tcp::new(1, 2, FIN | RST)
    };
    let tcp = Tcp {
        sequence: 9,
        acknowledgement: 8,
        ..tcp
    };
    let (length, next_header) = (Some(3), Some(59));
    let packet = Ipv6 {
        version: 7,
        length,
        next_header,
        ..Ipv6::new(A6, B6, tcp)
    };
    let frame = Ethernet {
        ethertype: Some(0x0800),
        ..Ethernet::new(B, A, packet)
    };
    let bytes = Ethernet {
        padded_to: 90,
        ..frame.tagged(1).tagged_as(0x88a8, 2)
    }
    .bytes();
    assert_eq!(bytes[12..23], [0x88, 0xa8, 0, 2, 0x81, 0, 0, 1, 8, 0, 0x70]);
    assert_eq!(bytes[26..30], [0, 3, 59, 64]);
    assert_eq!(
        bytes[66..80],
        [0, 0, 0, 9, 0, 0, 0, 8, 0xf0, 5, 0xff, 0xff, 0, 1]
    );
    assert_eq!(bytes.len(), 90);
}

#[test]
fn fragments_add_up_to_the_whole() {
    let whole = Ipv4::new(A4, B4, Udp::new(1, 2, vec![3; 20]));
    let [first, second] = whole.fragmented(16).map(|fragment| fragment.bytes());
    assert_eq!((first[6], second[6], second[7]), (0x20, 0, 2));
    assert_eq!([&first[20..], &second[20..]].concat(), whole.bytes()[20..]);

    let whole = Ipv6::new(A6, B6, Tcp::new(1, 2, PSH | ACK | URG));
    let [first, second] = whole.fragmented(8).map(|fragment| fragment.bytes());
    assert_eq!((first[6], &first[40..44]), (44, [6, 0, 0, 1].as_slice()));
    assert_eq!((second[6], &second[40..44]), (44, [6, 0, 0, 8].as_slice()));
    assert_eq!([&first[48..], &second[48..]].concat(), whole.bytes()[40..]);
}

#[test]
fn extension_headers_chain_and_measure_themselves() {
    let packet = Ipv6::new(A6, B6, Tcp::new(1, 2, SYN))
        .with(Extension::router_alert())
        .with(Extension::routing(0, 1, &[0; 20]))
        .with(Extension::authentication(&[1; 12]))
        .with(Extension::destination(&[1, 7]))
        .bytes();
    assert_eq!(packet[6], 0);
    assert_eq!(packet[40..48], [43, 0, 5, 2, 0, 0, 1, 0]);
    assert_eq!(packet[48..52], [51, 2, 0, 1]);
    assert_eq!(packet[72..74], [60, 4]);
    assert_eq!(packet[96..100], [6, 0, 1, 7]);
    assert_eq!(packet.len(), 104 + 20);
}

#[test]
fn errors_quote_what_they_are_about() {
    let about = ip(A4.into(), B4.into(), Udp::new(1, 2, vec![0; 100]));
    let (_, error) = ip(B4.into(), A4.into(), icmp::error(3, 1, &about)).encode();
    assert_eq!(error[20..22], [3, 1]);
    assert_eq!(error[28..], about.encode().1[..28]);
    let about = ip(A6.into(), B6.into(), icmpv6::reply(1, 1));
    let (_, error) = ip(B6.into(), A6.into(), icmpv6::error(1, 4, &about)).encode();
    assert_eq!(error[48..], about.encode().1[..]);
}

#[test]
fn writes_arp_and_neighbour_discovery() {
    let (_, request) = Packet::from(Arp::request(A, A4, B4)).encode();
    assert_eq!(request[..8], [0, 1, 8, 0, 6, 4, 0, 1]);
    let frame = Ethernet::new(A, B, Arp::reply(B, B4, A, A4)).bytes();
    assert_eq!(frame[12..22], [8, 6, 0, 1, 8, 0, 6, 4, 0, 2]);
    assert_eq!(
        frame[22..],
        [&B[..], &B4.octets(), &A, &A4.octets()].concat()
    );

    let upper = |upper: Upper| Packet::from(Ipv6::new(A6, B6, upper)).encode().1[40..].to_vec();
    let link = icmpv6::target_link(B);
    let advertisement = upper(icmpv6::neighbour_advertisement(B6, 0x60, &[link]));
    assert_eq!(
        (advertisement[0], advertisement[4], advertisement[24]),
        (136, 0x60, 2)
    );
    assert_eq!(upper(icmpv6::router_solicitation(&[]))[0], 133);
    assert_eq!(
        upper(icmpv6::router_advertisement(&[icmpv6::source_link(A)])).len(),
        24
    );
    assert_eq!(upper(icmpv6::redirect(A6, B6)).len(), 40);
    assert_eq!(upper(icmpv6::listener_report(solicited_node(B6))).len(), 28);
    assert_eq!(group_mac(solicited_node(B6)), mac("33:33:ff:00:00:02"));
}

#[test]
fn writes_dhcp() {
    let discover = Ethernet::new(
        BROADCAST,
        A,
        Ipv4::new(
            Ipv4Addr::UNSPECIFIED,
            Ipv4Addr::BROADCAST,
            Dhcp::client(1, A).udp(),
        ),
    )
    .bytes();
    assert_eq!(discover[34..38], [0, 68, 0, 67]);
    assert_eq!(discover[42 + 236..], [99, 130, 83, 99, 53, 1, 1, 255]);
    let offer = Dhcp {
        client: A4,
        transaction: 1,
        ..Dhcp::server(2, B4, A, A4)
    };
    assert_eq!(
        (offer.udp().source_port, offer.bytes()[16..20].to_vec()),
        (67, vec![10, 0, 0, 1])
    );
    assert_eq!(
        (dhcpv6(1, A).source_port, dhcpv6(7, A).source_port),
        (546, 547)
    );
}
