//! Raw frames, right by default and wrong on demand.
//!
//! Each header is a plain struct: a constructor takes what has no default, struct update syntax or
//! assignment overrides the rest. Lengths, checksums, next headers and EtherTypes are computed when
//! the frame is written, unless they are given.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A hardware address.
pub type Mac = [u8; 6];

pub const BROADCAST: Mac = [0xff; 6];

pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const PSH: u8 = 0x08;
pub const ACK: u8 = 0x10;
pub const URG: u8 = 0x20;

// ── Ethernet ───────────────────────────────────────────────────────────────────────────────────

/// An Ethernet frame.
#[derive(Clone, Debug)]
pub struct Ethernet {
    pub destination: Mac,
    pub source: Mac,
    pub tags: Vec<Tag>,
    /// What follows the addresses and tags; else the packet's own EtherType.
    pub ethertype: Option<u16>,
    pub packet: Packet,
    /// Zeroes are appended until the frame has this length; wires pad to 60.
    pub padded_to: usize,
}

/// A VLAN tag.
#[derive(Clone, Copy, Debug)]
pub struct Tag {
    /// 0x8100 for 802.1Q, 0x88a8 for 802.1ad.
    pub ethertype: u16,
    /// Priority, drop eligibility and VLAN id.
    pub control: u16,
}

/// What a frame carries.
#[derive(Clone, Debug)]
pub enum Packet {
    Arp(Arp),
    Ipv4(Ipv4),
    Ipv6(Ipv6),
    /// EtherType and bytes; a number below 0x0600 is the length of an LLC frame.
    Bytes(u16, Vec<u8>),
}

impl Ethernet {
    pub fn new(destination: Mac, source: Mac, packet: impl Into<Packet>) -> Self {
        let packet = packet.into();
        let (tags, ethertype, padded_to) = (Vec::new(), None, 0);
        Self {
            destination,
            source,
            tags,
            ethertype,
            packet,
            padded_to,
        }
    }

    /// Puts an 802.1Q tag before the tags that are there.
    pub fn tagged(self, id: u16) -> Self {
        self.tagged_as(0x8100, id)
    }

    /// Puts a tag of any EtherType before the tags that are there.
    pub fn tagged_as(mut self, ethertype: u16, control: u16) -> Self {
        self.tags.insert(0, Tag { ethertype, control });
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut frame = [self.destination, self.source].concat();
        for tag in &self.tags {
            frame.extend(tag.ethertype.to_be_bytes());
            frame.extend(tag.control.to_be_bytes());
        }
        let (ethertype, packet) = self.packet.encode();
        frame.extend(self.ethertype.unwrap_or(ethertype).to_be_bytes());
        frame.extend(packet);
        frame.resize(frame.len().max(self.padded_to), 0);
        frame
    }
}

impl Packet {
    /// The EtherType and the packet without the frame, as an ICMP error quotes it.
    pub fn encode(&self) -> (u16, Vec<u8>) {
        match self {
            Self::Arp(arp) => (0x0806, arp.bytes()),
            Self::Ipv4(packet) => (0x0800, packet.bytes()),
            Self::Ipv6(packet) => (0x86dd, packet.bytes()),
            Self::Bytes(ethertype, bytes) => (*ethertype, bytes.clone()),
        }
    }
}

/// An IP packet between addresses of one family.
pub fn ip(source: IpAddr, destination: IpAddr, upper: impl Into<Upper>) -> Packet {
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            Ipv4::new(source, destination, upper).into()
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            Ipv6::new(source, destination, upper).into()
        }
        _ => panic!("{source} and {destination} are of different families"),
    }
}

// ── ARP ────────────────────────────────────────────────────────────────────────────────────────

/// An ARP packet for IPv4 over Ethernet.
#[derive(Clone, Copy, Debug)]
pub struct Arp {
    pub hardware: u16,
    pub protocol: u16,
    pub hardware_length: u8,
    pub protocol_length: u8,
    pub operation: u16,
    pub sender_mac: Mac,
    pub sender: Ipv4Addr,
    pub target_mac: Mac,
    pub target: Ipv4Addr,
}

impl Arp {
    /// Asks who has `target`. A probe has the unspecified address as sender, an announcement has
    /// the sender's as target.
    pub fn request(sender_mac: Mac, sender: Ipv4Addr, target: Ipv4Addr) -> Self {
        Self {
            hardware: 1,
            protocol: 0x0800,
            hardware_length: 6,
            protocol_length: 4,
            operation: 1,
            sender_mac,
            sender,
            target_mac: [0; 6],
            target,
        }
    }

    pub fn reply(sender_mac: Mac, sender: Ipv4Addr, target_mac: Mac, target: Ipv4Addr) -> Self {
        Self {
            operation: 2,
            target_mac,
            ..Self::request(sender_mac, sender, target)
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut arp = Vec::new();
        arp.extend(self.hardware.to_be_bytes());
        arp.extend(self.protocol.to_be_bytes());
        arp.extend([self.hardware_length, self.protocol_length]);
        arp.extend(self.operation.to_be_bytes());
        arp.extend(self.sender_mac);
        arp.extend(self.sender.octets());
        arp.extend(self.target_mac);
        arp.extend(self.target.octets());
        arp
    }
}

// ── IPv4 ───────────────────────────────────────────────────────────────────────────────────────

/// An IPv4 packet.
#[derive(Clone, Debug)]
pub struct Ipv4 {
    pub version: u8,
    /// In words of four bytes; else what the options make it.
    pub header_words: Option<u8>,
    pub length: Option<u16>,
    pub identification: u16,
    pub dont_fragment: bool,
    pub more_fragments: bool,
    /// In units of eight bytes.
    pub fragment_offset: u16,
    pub ttl: u8,
    pub protocol: Option<u8>,
    pub checksum: Option<u16>,
    pub source: Ipv4Addr,
    pub destination: Ipv4Addr,
    /// Padded with end-of-options to whole words.
    pub options: Vec<u8>,
    pub upper: Upper,
}

impl Ipv4 {
    pub fn new(source: Ipv4Addr, destination: Ipv4Addr, upper: impl Into<Upper>) -> Self {
        Self {
            version: 4,
            header_words: None,
            length: None,
            identification: 0x5744,
            dont_fragment: false,
            more_fragments: false,
            fragment_offset: 0,
            ttl: 64,
            protocol: None,
            checksum: None,
            source,
            destination,
            options: Vec::new(),
            upper: upper.into(),
        }
    }

    /// Cuts the payload after `at` bytes, a multiple of eight, into two fragments.
    pub fn fragmented(&self, at: usize) -> [Self; 2] {
        let (protocol, payload) = self.payload();
        let (first, rest) = payload.split_at(at);
        let upper = |bytes: &[u8]| Upper::Bytes(protocol, bytes.to_vec());
        let offset = self.fragment_offset + in_eights(at);
        [
            Self {
                more_fragments: true,
                upper: upper(first),
                ..self.clone()
            },
            Self {
                fragment_offset: offset,
                upper: upper(rest),
                ..self.clone()
            },
        ]
    }

    fn payload(&self) -> (u8, Vec<u8>) {
        self.upper
            .encode(self.source.into(), self.destination.into())
    }

    pub fn bytes(&self) -> Vec<u8> {
        let (protocol, payload) = self.payload();
        let options = padded(&self.options, 4);
        let header_length = 20 + options.len();
        let words = self.header_words.unwrap_or((header_length / 4) as u8);
        let length = self
            .length
            .unwrap_or((header_length + payload.len()) as u16);
        let fragment = u16::from(self.dont_fragment) << 14
            | u16::from(self.more_fragments) << 13
            | self.fragment_offset;

        let mut packet = vec![self.version << 4 | words, 0];
        packet.extend(length.to_be_bytes());
        packet.extend(self.identification.to_be_bytes());
        packet.extend(fragment.to_be_bytes());
        packet.extend([self.ttl, self.protocol.unwrap_or(protocol), 0, 0]);
        packet.extend(self.source.octets());
        packet.extend(self.destination.octets());
        packet.extend(options);
        let sum = self.checksum.unwrap_or_else(|| checksum(&[&packet]));
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        packet.extend(payload);
        packet
    }
}

// ── IPv6 ───────────────────────────────────────────────────────────────────────────────────────

/// An IPv6 packet.
#[derive(Clone, Debug)]
pub struct Ipv6 {
    pub version: u8,
    pub length: Option<u16>,
    /// Of the fixed header; else the first extension's or the payload's.
    pub next_header: Option<u8>,
    pub hop_limit: u8,
    pub source: Ipv6Addr,
    pub destination: Ipv6Addr,
    pub extensions: Vec<Extension>,
    pub upper: Upper,
}

/// An extension header: its number, and all of its bytes but the next header.
#[derive(Clone, Debug)]
pub struct Extension {
    pub number: u8,
    pub body: Vec<u8>,
}

impl Ipv6 {
    pub fn new(source: Ipv6Addr, destination: Ipv6Addr, upper: impl Into<Upper>) -> Self {
        Self {
            version: 6,
            length: None,
            next_header: None,
            hop_limit: 64,
            source,
            destination,
            extensions: Vec::new(),
            upper: upper.into(),
        }
    }

    /// Appends an extension header.
    pub fn with(mut self, extension: Extension) -> Self {
        self.extensions.push(extension);
        self
    }

    /// Cuts the payload after `at` bytes, a multiple of eight, into two fragments.
    pub fn fragmented(&self, at: usize) -> [Self; 2] {
        let (protocol, payload) = self.payload();
        let (first, rest) = payload.split_at(at);
        let fragment = |offset, more, bytes: &[u8]| {
            let upper = Upper::Bytes(protocol, bytes.to_vec());
            Self {
                upper,
                ..self.clone()
            }
            .with(Extension::fragment(offset, more, 0x5744_6172))
        };
        [
            fragment(0, true, first),
            fragment(in_eights(at), false, rest),
        ]
    }

    fn payload(&self) -> (u8, Vec<u8>) {
        self.upper
            .encode(self.source.into(), self.destination.into())
    }

    pub fn bytes(&self) -> Vec<u8> {
        let (protocol, payload) = self.payload();
        let mut rest = payload;
        let mut next = protocol;
        for extension in self.extensions.iter().rev() {
            rest = [&[next], extension.body.as_slice(), rest.as_slice()].concat();
            next = extension.number;
        }

        let mut packet = vec![self.version << 4, 0, 0, 0];
        packet.extend(self.length.unwrap_or(rest.len() as u16).to_be_bytes());
        packet.extend([self.next_header.unwrap_or(next), self.hop_limit]);
        packet.extend(self.source.octets());
        packet.extend(self.destination.octets());
        packet.extend(rest);
        packet
    }
}

impl Extension {
    pub fn hop_by_hop(options: &[u8]) -> Self {
        Self::measured(0, options)
    }

    /// What MLD reports carry.
    pub fn router_alert() -> Self {
        Self::hop_by_hop(&[5, 2, 0, 0, 1, 0])
    }

    pub fn destination(options: &[u8]) -> Self {
        Self::measured(60, options)
    }

    pub fn routing(kind: u8, segments_left: u8, data: &[u8]) -> Self {
        Self::measured(43, &[&[kind, segments_left], data].concat())
    }

    /// `offset` is in units of eight bytes.
    pub fn fragment(offset: u16, more: bool, identification: u32) -> Self {
        let mut body = vec![0];
        body.extend((offset << 3 | u16::from(more)).to_be_bytes());
        body.extend(identification.to_be_bytes());
        Self { number: 44, body }
    }

    /// Its length is counted in words of four bytes less two, unlike that of the others.
    pub fn authentication(data: &[u8]) -> Self {
        let mut body = vec![0; 11];
        body.extend(padded(data, 4));
        body[0] = (body.len().div_ceil(4) - 2) as u8;
        Self { number: 51, body }
    }

    /// A header with the usual length byte, filled up to a multiple of eight bytes.
    fn measured(number: u8, data: &[u8]) -> Self {
        let mut body = vec![0];
        body.extend(data);
        body.resize((body.len() + 1).next_multiple_of(8) - 1, 0);
        body[0] = ((body.len() + 1) / 8 - 1) as u8;
        Self { number, body }
    }
}

// ── what IP carries ────────────────────────────────────────────────────────────────────────────

/// What an IP packet carries.
#[derive(Clone, Debug)]
pub enum Upper {
    Tcp(Tcp),
    Udp(Udp),
    Icmp(Icmp),
    Icmpv6(Icmp),
    /// Protocol number and bytes.
    Bytes(u8, Vec<u8>),
}

impl Upper {
    /// The protocol number and the bytes; checksums cover the addresses.
    fn encode(&self, source: IpAddr, destination: IpAddr) -> (u8, Vec<u8>) {
        let (protocol, mut bytes, place, given) = match self {
            Self::Tcp(tcp) => (6, tcp.bytes(), 16, tcp.checksum),
            Self::Udp(udp) => (17, udp.bytes(), 6, udp.checksum),
            Self::Icmp(icmp) => (1, icmp.bytes(), 2, icmp.checksum),
            Self::Icmpv6(icmp) => (58, icmp.bytes(), 2, icmp.checksum),
            Self::Bytes(protocol, bytes) => return (*protocol, bytes.clone()),
        };
        let sum = given.unwrap_or_else(|| match protocol {
            1 => checksum(&[&bytes]),
            _ => match checksum(&[
                &pseudo_header(source, destination, protocol, &bytes),
                &bytes,
            ]) {
                // In UDP zero means that there is none.
                0 if protocol == 17 => 0xffff,
                sum => sum,
            },
        });
        bytes[place..place + 2].copy_from_slice(&sum.to_be_bytes());
        (protocol, bytes)
    }
}

/// A TCP segment.
#[derive(Clone, Debug)]
pub struct Tcp {
    pub source_port: u16,
    pub destination_port: u16,
    pub sequence: u32,
    pub acknowledgement: u32,
    /// In words of four bytes; else what the options make it.
    pub header_words: Option<u8>,
    pub flags: u8,
    pub checksum: Option<u16>,
    /// Padded with end-of-options to whole words.
    pub options: Vec<u8>,
    pub data: Vec<u8>,
}

impl Tcp {
    pub fn new(source_port: u16, destination_port: u16, flags: u8) -> Self {
        Self {
            source_port,
            destination_port,
            sequence: 1,
            acknowledgement: u32::from(flags & ACK != 0),
            header_words: None,
            flags,
            checksum: None,
            options: Vec::new(),
            data: Vec::new(),
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let options = padded(&self.options, 4);
        let words = self.header_words.unwrap_or((5 + options.len() / 4) as u8);
        let mut segment = Vec::new();
        segment.extend(self.source_port.to_be_bytes());
        segment.extend(self.destination_port.to_be_bytes());
        segment.extend(self.sequence.to_be_bytes());
        segment.extend(self.acknowledgement.to_be_bytes());
        segment.extend([words << 4, self.flags]);
        segment.extend(0xffff_u16.to_be_bytes());
        segment.extend([0; 4]);
        segment.extend(options);
        segment.extend(&self.data);
        segment
    }
}

/// A UDP datagram.
#[derive(Clone, Debug)]
pub struct Udp {
    pub source_port: u16,
    pub destination_port: u16,
    pub length: Option<u16>,
    pub checksum: Option<u16>,
    pub data: Vec<u8>,
}

impl Udp {
    pub fn new(source_port: u16, destination_port: u16, data: impl Into<Vec<u8>>) -> Self {
        let (length, checksum, data) = (None, None, data.into());
        Self {
            source_port,
            destination_port,
            length,
            checksum,
            data,
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let length = self.length.unwrap_or((8 + self.data.len()) as u16);
        let mut datagram = Vec::new();
        datagram.extend(self.source_port.to_be_bytes());
        datagram.extend(self.destination_port.to_be_bytes());
        datagram.extend(length.to_be_bytes());
        datagram.extend([0; 2]);
        datagram.extend(&self.data);
        datagram
    }
}

/// An ICMP or ICMPv6 message.
#[derive(Clone, Debug)]
pub struct Icmp {
    pub kind: u8,
    pub code: u8,
    pub checksum: Option<u16>,
    /// What follows the checksum.
    pub body: Vec<u8>,
}

impl Icmp {
    pub fn new(kind: u8, code: u8, body: impl Into<Vec<u8>>) -> Self {
        Self {
            kind,
            code,
            checksum: None,
            body: body.into(),
        }
    }

    fn bytes(&self) -> Vec<u8> {
        [&[self.kind, self.code, 0, 0], self.body.as_slice()].concat()
    }
}

/// ICMP, for IPv4.
pub mod icmp {
    use super::{Icmp, Packet, Upper, echo_body, error_body};

    pub fn request(identifier: u16, sequence: u16) -> Upper {
        Upper::Icmp(Icmp::new(8, 0, echo_body(identifier, sequence)))
    }

    pub fn reply(identifier: u16, sequence: u16) -> Upper {
        Upper::Icmp(Icmp::new(0, 0, echo_body(identifier, sequence)))
    }

    /// An error about `packet`, of which it quotes the header and eight bytes.
    pub fn error(kind: u8, code: u8, packet: &Packet) -> Upper {
        let (_, quoted) = packet.encode();
        let header = usize::from(quoted[0] & 0x0f) * 4;
        Upper::Icmp(Icmp::new(
            kind,
            code,
            error_body(&quoted[..quoted.len().min(header + 8)]),
        ))
    }
}

/// ICMPv6: echo, errors, neighbour discovery, multicast listeners.
pub mod icmpv6 {
    use std::net::Ipv6Addr;

    use super::{Icmp, Mac, Packet, Upper, echo_body, error_body};

    /// Options of neighbour discovery, one after the other.
    pub type Options<'a> = &'a [[u8; 8]];

    pub fn request(identifier: u16, sequence: u16) -> Upper {
        Upper::Icmpv6(Icmp::new(128, 0, echo_body(identifier, sequence)))
    }

    pub fn reply(identifier: u16, sequence: u16) -> Upper {
        Upper::Icmpv6(Icmp::new(129, 0, echo_body(identifier, sequence)))
    }

    /// An error about `packet`, all of which it quotes.
    pub fn error(kind: u8, code: u8, packet: &Packet) -> Upper {
        Upper::Icmpv6(Icmp::new(kind, code, error_body(&packet.encode().1)))
    }

    /// The option that names the link-layer address of who sends.
    pub fn source_link(mac: Mac) -> [u8; 8] {
        link(1, mac)
    }

    /// The option that names the link-layer address of the target.
    pub fn target_link(mac: Mac) -> [u8; 8] {
        link(2, mac)
    }

    pub fn router_solicitation(options: Options<'_>) -> Upper {
        discovery(133, &[0; 4], options)
    }

    pub fn router_advertisement(options: Options<'_>) -> Upper {
        discovery(134, &[64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0], options)
    }

    pub fn neighbour_solicitation(target: Ipv6Addr, options: Options<'_>) -> Upper {
        discovery(
            135,
            &[&[0; 4], target.octets().as_slice()].concat(),
            options,
        )
    }

    /// Flags: 0x80 from a router, 0x40 solicited, 0x20 overrides.
    pub fn neighbour_advertisement(target: Ipv6Addr, flags: u8, options: Options<'_>) -> Upper {
        discovery(
            136,
            &[&[flags, 0, 0, 0], target.octets().as_slice()].concat(),
            options,
        )
    }

    pub fn redirect(target: Ipv6Addr, destination: Ipv6Addr) -> Upper {
        let addresses = [target.octets(), destination.octets()].concat();
        discovery(137, &[&[0; 4], addresses.as_slice()].concat(), &[])
    }

    /// An MLDv2 report of joining one group; it goes with [`super::Extension::router_alert`].
    pub fn listener_report(group: Ipv6Addr) -> Upper {
        let record = [&[4, 0, 0, 0], group.octets().as_slice()].concat();
        discovery(143, &[&[0, 0, 0, 1], record.as_slice()].concat(), &[])
    }

    fn discovery(kind: u8, body: &[u8], options: Options<'_>) -> Upper {
        Upper::Icmpv6(Icmp::new(kind, 0, [body, options.as_flattened()].concat()))
    }

    fn link(kind: u8, mac: Mac) -> [u8; 8] {
        let [a, b, c, d, e, f] = mac;
        [kind, 1, a, b, c, d, e, f]
    }
}

/// An IGMPv2 report of joining a group; it goes with [`ROUTER_ALERT`].
pub fn igmp_report(group: Ipv4Addr) -> Upper {
    let mut report = [&[0x16, 0, 0, 0], group.octets().as_slice()].concat();
    let sum = checksum(&[&report]);
    report[2..4].copy_from_slice(&sum.to_be_bytes());
    Upper::Bytes(2, report)
}

/// The IPv4 option of IGMP reports.
pub const ROUTER_ALERT: [u8; 4] = [0x94, 4, 0, 0];

fn echo_body(identifier: u16, sequence: u16) -> Vec<u8> {
    [
        &identifier.to_be_bytes(),
        &sequence.to_be_bytes(),
        b"wardline".as_slice(),
    ]
    .concat()
}

fn error_body(quoted: &[u8]) -> Vec<u8> {
    [&[0; 4], quoted].concat()
}

// ── DHCP ───────────────────────────────────────────────────────────────────────────────────────

/// A DHCPv4 message.
#[derive(Clone, Debug)]
pub struct Dhcp {
    /// 1 from a client, 2 from a server.
    pub operation: u8,
    pub transaction: u32,
    /// The client's own, when it has one.
    pub client: Ipv4Addr,
    /// What the server offers.
    pub yours: Ipv4Addr,
    pub mac: Mac,
    /// Code and value, in order; the end option follows.
    pub options: Vec<(u8, Vec<u8>)>,
}

impl Dhcp {
    /// A client's message: 1 discover, 3 request, 4 decline, 7 release, 8 inform.
    pub fn client(kind: u8, mac: Mac) -> Self {
        Self {
            operation: 1,
            transaction: 0x5744_0001,
            client: Ipv4Addr::UNSPECIFIED,
            yours: Ipv4Addr::UNSPECIFIED,
            mac,
            options: vec![(53, vec![kind])],
        }
    }

    /// A server's message: 2 offer, 5 acknowledge, 6 refuse. The lease is an hour.
    pub fn server(kind: u8, server: Ipv4Addr, mac: Mac, yours: Ipv4Addr) -> Self {
        let mut message = Self {
            operation: 2,
            yours,
            ..Self::client(kind, mac)
        };
        message.options.push((54, server.octets().to_vec()));
        message.options.push((51, 3600_u32.to_be_bytes().to_vec()));
        message
    }

    /// In UDP between the ports that the operation uses.
    pub fn udp(&self) -> Udp {
        let (source, destination) = if self.operation == 2 {
            (67, 68)
        } else {
            (68, 67)
        };
        Udp::new(source, destination, self.bytes())
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut message = vec![self.operation, 1, 6, 0];
        message.extend(self.transaction.to_be_bytes());
        message.extend([0; 4]);
        message.extend(self.client.octets());
        message.extend(self.yours.octets());
        message.extend([0; 8]);
        message.extend(self.mac);
        // The rest of the hardware address, the server's name and the file's.
        message.resize(236, 0);
        message.extend([99, 130, 83, 99]);
        for (code, value) in &self.options {
            message.extend([*code, value.len() as u8]);
            message.extend(value);
        }
        message.push(255);
        message
    }
}

/// A DHCPv6 message with its client identifier: 1 solicit, 3 request, 7 reply.
pub fn dhcpv6(kind: u8, mac: Mac) -> Udp {
    let (source, destination) = if matches!(kind, 2 | 7 | 10) {
        (547, 546)
    } else {
        (546, 547)
    };
    let identifier = [&[0, 1, 0, 10, 0, 3, 0, 1], mac.as_slice()].concat();
    Udp::new(
        source,
        destination,
        [&[kind, 0x57, 0x44, 0x01], identifier.as_slice()].concat(),
    )
}

// ── conversions and sums ───────────────────────────────────────────────────────────────────────

macro_rules! from {
    ($($variant:ident($part:ty) => $whole:ident),* $(,)?) => {$(
        impl From<$part> for $whole {
            fn from(part: $part) -> Self {
                Self::$variant(part)
            }
        }
    )*};
}

from! {
    Arp(Arp) => Packet,
    Ipv4(Ipv4) => Packet,
    Ipv6(Ipv6) => Packet,
    Tcp(Tcp) => Upper,
    Udp(Udp) => Upper,
}

/// Reads `02:00:00:00:01:01`.
pub fn mac(text: &str) -> Mac {
    let bytes: Vec<u8> = text
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16).expect("a MAC"))
        .collect();
    bytes.try_into().expect("a MAC of six bytes")
}

/// The multicast MAC of an IPv6 group.
pub fn group_mac(group: Ipv6Addr) -> Mac {
    let [.., a, b, c, d] = group.octets();
    [0x33, 0x33, a, b, c, d]
}

/// The group that an address's neighbour solicitations go to.
pub fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c])
}

fn pseudo_header(source: IpAddr, destination: IpAddr, protocol: u8, upper: &[u8]) -> Vec<u8> {
    let mut header = Vec::new();
    for address in [source, destination] {
        match address {
            IpAddr::V4(address) => header.extend(address.octets()),
            IpAddr::V6(address) => header.extend(address.octets()),
        }
    }
    header.extend((upper.len() as u32).to_be_bytes());
    header.extend([0, 0, 0, protocol]);
    header
}

/// The Internet checksum; every part but the last has an even length.
fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0_u32;
    for word in parts.iter().flat_map(|part| part.chunks(2)) {
        sum += u32::from(u16::from_be_bytes([
            word[0],
            word.get(1).copied().unwrap_or(0),
        ]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn padded(bytes: &[u8], to: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes.resize(bytes.len().next_multiple_of(to), 0);
    bytes
}

fn in_eights(bytes: usize) -> u16 {
    assert_eq!(
        bytes % 8,
        0,
        "fragments are cut at multiples of eight bytes"
    );
    (bytes / 8) as u16
}

#[cfg(test)]
mod tests {
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
}
