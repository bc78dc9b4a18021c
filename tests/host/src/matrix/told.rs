//! A frame in one line, for people: what it is, and how it differs from a usual one.

use std::{
    fmt::{self, Write as _},
    net::IpAddr,
};

use super::{
    case::Frame,
    network::{KNOWN, ROUTER, TWOFOLD, TWOFOLDS_OTHER_MAC},
};
use wardline_oracle::frames::{
    ACK, Arp, BROADCAST, Ethernet, Extension, FIN, Icmp, Ipv4, Ipv6, Mac, PSH, Packet, RST, SYN,
    Tcp, URG, Udp, Upper,
};

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        ethernet(&self.ethernet, &mut parts);
        if let Some(length) = self.cut {
            parts.push(format!("cut after {length} bytes"));
        }
        let told: Vec<String> = parts
            .chunk_by(|part, next| part == next)
            .map(|same| match same.len() {
                1 => same[0].clone(),
                count => format!("{count} × {}", same[0]),
            })
            .collect();
        f.write_str(&told.join(", "))
    }
}

fn ethernet(frame: &Ethernet, parts: &mut Vec<String>) {
    for tag in &frame.tags {
        let (priority, id) = (tag.control >> 12, tag.control & 0xfff);
        let mut text = match tag.ethertype {
            0x8100 => format!("VLAN {id}"),
            other => format!("tag {other:#06x} {id}"),
        };
        if priority != 0 {
            let _ = write!(text, " priority {priority:#x}");
        }
        parts.push(text);
    }
    match &frame.packet {
        Packet::Arp(packet) => arp(packet, frame, parts),
        Packet::Ipv4(packet) => {
            macs(frame, Some(packet.source.into()), parts);
            ipv4(packet, parts);
        }
        Packet::Ipv6(packet) => {
            macs(frame, Some(packet.source.into()), parts);
            ipv6(packet, parts);
        }
        Packet::Bytes(number, bytes) => {
            macs(frame, None, parts);
            parts.push(if *number < 0x0600 {
                format!("length {number} instead of an EtherType, {}", hex(bytes))
            } else {
                format!("EtherType {number:#06x}, {}", hex(bytes))
            });
        }
    }
    if let Some(ethertype) = frame.ethertype {
        parts.push(format!("EtherType says {ethertype:#06x}"));
    }
    if frame.padded_to > 0 {
        parts.push(format!("padded to {} bytes", frame.padded_to));
    }
}

/// MACs, when they do not match the IP addresses.
fn macs(frame: &Ethernet, source: Option<IpAddr>, parts: &mut Vec<String>) {
    let by_mac = mac_name(frame.source);
    // A frame that the router forwards has the router's MAC, whoever sent it.
    let forwarded = frame.source == ROUTER.mac && frame.destination != ROUTER.mac;
    if !forwarded && source.and_then(name) != Some(by_mac.as_str()) {
        parts.push(format!("from MAC `{by_mac}`"));
    }
    if frame.destination == BROADCAST {
        parts.push("to all MACs".to_owned());
    } else if frame.destination[0] & 1 == 1 {
        parts.push("to a group MAC".to_owned());
    }
}

fn mac_name(mac: Mac) -> String {
    if mac == TWOFOLDS_OTHER_MAC {
        return format!("{}'s other", TWOFOLD.name);
    }
    match KNOWN.iter().find(|party| party.mac == mac) {
        Some(party) => party.name.to_owned(),
        None => mac.map(|byte| format!("{byte:02x}")).join(":"),
    }
}

fn name(address: IpAddr) -> Option<&'static str> {
    let known = KNOWN.iter().find(|party| match address {
        IpAddr::V4(address) => party.v4 == address,
        IpAddr::V6(address) => party.v6 == address,
    });
    known.map(|party| party.name)
}

fn named(address: impl Into<IpAddr>) -> String {
    let address = address.into();
    name(address).map_or_else(|| address.to_string(), str::to_owned)
}

fn arp(packet: &Arp, frame: &Ethernet, parts: &mut Vec<String>) {
    let (sender, target) = (named(packet.sender), named(packet.target));
    let mac = mac_name(packet.sender_mac);
    parts.push(match packet.operation {
        1 => format!("ARP: who has {target}? tell {sender} at MAC `{mac}`"),
        2 => format!("ARP: {sender} is at MAC `{mac}`, told {target}"),
        other => format!("ARP operation {other}: {sender} at MAC `{mac}`, {target}"),
    });
    if packet.sender_mac != frame.source {
        parts.push(format!("from MAC `{}`", mac_name(frame.source)));
    }
    let fixed = (
        packet.hardware,
        packet.protocol,
        packet.hardware_length,
        packet.protocol_length,
    );
    if fixed != (1, 0x0800, 6, 4) {
        parts.push(format!(
            "hardware {}, protocol {:#06x}, lengths {} and {}",
            fixed.0, fixed.1, fixed.2, fixed.3
        ));
    }
}

fn ipv4(packet: &Ipv4, parts: &mut Vec<String>) {
    let (source, destination) = (named(packet.source), named(packet.destination));
    parts.push(format!("IPv4 {source} → {destination}"));
    says(
        parts,
        "version",
        &Some(packet.version).filter(|version| *version != 4),
    );
    says(parts, "header words", &packet.header_words);
    says(parts, "total length", &packet.length);
    says(
        parts,
        "checksum",
        &packet.checksum.map(|sum| format!("{sum:#06x}")),
    );
    says(
        parts,
        "time to live",
        &Some(packet.ttl).filter(|ttl| *ttl != 64),
    );
    if !packet.options.is_empty() {
        parts.push(format!("options {}", hex(&packet.options)));
    }
    if packet.dont_fragment {
        parts.push("don't fragment".to_owned());
    }
    let (reserved, offset) = (
        packet.fragment_offset & 0x8000,
        packet.fragment_offset & 0x1fff,
    );
    if reserved != 0 {
        parts.push("reserved flag".to_owned());
    }
    if packet.more_fragments || offset != 0 {
        parts.push(fragment(
            offset,
            packet.more_fragments,
            packet.identification.into(),
        ));
    }
    let whole = offset == 0;
    upper(&packet.upper, whole, parts);
    says(parts, "protocol", &packet.protocol);
}

fn ipv6(packet: &Ipv6, parts: &mut Vec<String>) {
    let (source, destination) = (named(packet.source), named(packet.destination));
    parts.push(format!("IPv6 {source} → {destination}"));
    says(
        parts,
        "version",
        &Some(packet.version).filter(|version| *version != 6),
    );
    says(parts, "payload length", &packet.length);
    let limit = Some(packet.hop_limit).filter(|limit| !matches!(limit, 64 | 255));
    says(parts, "hop limit", &limit);
    let mut whole = true;
    for header in &packet.extensions {
        whole &= extension(header, parts);
    }
    upper(&packet.upper, whole, parts);
    says(parts, "next header", &packet.next_header);
}

/// Describes an extension header; false for a fragment that is not the first.
fn extension(header: &Extension, parts: &mut Vec<String>) -> bool {
    let body = &header.body;
    parts.push(match (header.number, body.as_slice()) {
        (0, [_, options @ ..]) => format!("hop-by-hop options {}", hex(options)),
        (60, [_, options @ ..]) => format!("destination options {}", hex(options)),
        (43, [_, kind, left, ..]) => format!("routing header of type {kind}, {left} segments left"),
        (44, [reserved, high, low, identification @ ..]) => {
            let field = u16::from_be_bytes([*high, *low]);
            let number = identification
                .iter()
                .fold(0u32, |n, byte| n << 8 | u32::from(*byte));
            parts.push(fragment(field >> 3, field & 1 == 1, number));
            if *reserved != 0 {
                parts.push(format!("its reserved byte {reserved}"));
            }
            return field >> 3 == 0;
        }
        (51, [length, ..]) => format!("authentication header of length {length}"),
        (number, _) => format!("extension header {number}: {}", hex(body)),
    });
    true
}

fn fragment(offset: u16, more: bool, identification: u32) -> String {
    let at = u32::from(offset) * 8;
    let mut text = match (offset, more) {
        (0, false) => "atomic fragment".to_owned(),
        (_, true) => format!("fragment from byte {at}, more follow"),
        (_, false) => format!("fragment from byte {at}, the last"),
    };
    // The packet is named only when it is not the usual one.
    if !matches!(identification, USUAL | USUAL_6) {
        let _ = write!(text, ", of another packet");
    }
    text
}

/// The identification that fragments here have unless they say otherwise.
const USUAL: u32 = 0x5744;
const USUAL_6: u32 = 0x5744_6172;

/// What IP carries; of a later fragment only how much.
fn upper(upper: &Upper, whole: bool, parts: &mut Vec<String>) {
    match upper {
        Upper::Tcp(segment) => tcp(segment, parts),
        Upper::Udp(datagram) => udp(datagram, parts),
        Upper::Icmp(message) => parts.push(icmp("ICMP", message)),
        Upper::Icmpv6(message) => parts.push(icmp("ICMPv6", message)),
        Upper::Bytes(number, bytes) => {
            let length = bytes.len();
            let ports = matches!(number, 6 | 17) && whole && length >= 4;
            let mut text = match number {
                6 => "TCP".to_owned(),
                17 => "UDP".to_owned(),
                1 => "ICMP".to_owned(),
                58 => "ICMPv6".to_owned(),
                2 => "IGMP".to_owned(),
                other => format!("protocol {other}"),
            };
            if ports {
                let port = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
                let _ = write!(text, " {} → {}", port(0), port(2));
            } else if matches!(number, 1 | 2 | 58) && whole && !bytes.is_empty() {
                let _ = write!(text, " type {}", bytes[0]);
            }
            let _ = write!(text, ", {length} bytes");
            parts.push(text);
        }
    }
}

fn tcp(segment: &Tcp, parts: &mut Vec<String>) {
    let Tcp {
        source_port,
        destination_port,
        ..
    } = segment;
    let flags = flags(segment.flags);
    let mut text = format!("TCP {source_port} → {destination_port} {flags}");
    if !segment.data.is_empty() {
        let _ = write!(text, " with {} bytes", segment.data.len());
    }
    parts.push(text);
    if !segment.options.is_empty() {
        parts.push(format!("TCP options {}", hex(&segment.options)));
    }
    says(parts, "TCP header words", &segment.header_words);
    says(parts, "TCP checksum", &segment.checksum);
}

fn flags(flags: u8) -> String {
    const NAMES: [(u8, &str); 8] = [
        (SYN, "SYN"),
        (FIN, "FIN"),
        (RST, "RST"),
        (PSH, "PSH"),
        (ACK, "ACK"),
        (URG, "URG"),
        (0x40, "ECE"),
        (0x80, "CWR"),
    ];
    let set: Vec<&str> = NAMES
        .iter()
        .filter(|(bit, _)| flags & bit != 0)
        .map(|(_, name)| *name)
        .collect();
    if set.is_empty() {
        "without flags".to_owned()
    } else {
        set.join(" ")
    }
}

fn udp(datagram: &Udp, parts: &mut Vec<String>) {
    let Udp {
        source_port,
        destination_port,
        ..
    } = datagram;
    let length = datagram.data.len();
    parts.push(format!(
        "UDP {source_port} → {destination_port}, {length} bytes"
    ));
    says(parts, "UDP length", &datagram.length);
    says(parts, "UDP checksum", &datagram.checksum);
}

fn icmp(family: &str, message: &Icmp) -> String {
    let Icmp { kind, code, .. } = message;
    let name = match (family, kind) {
        ("ICMP", 0) | ("ICMPv6", 129) => "echo reply",
        ("ICMP", 8) | ("ICMPv6", 128) => "echo request",
        ("ICMP", 3) | ("ICMPv6", 1) => "unreachable",
        ("ICMP", 5) | ("ICMPv6", 137) => "redirect",
        ("ICMP", 11) | ("ICMPv6", 3) => "time exceeded",
        ("ICMPv6", 2) => "packet too big",
        ("ICMP", 9) | ("ICMPv6", 134) => "router advertisement",
        ("ICMPv6", 133) => "router solicitation",
        ("ICMPv6", 135) => "neighbour solicitation",
        ("ICMPv6", 136) => "neighbour advertisement",
        ("ICMPv6", 130) => "listener query",
        ("ICMPv6", 131 | 143) => "listener report",
        ("ICMPv6", 132) => "listener done",
        _ => "",
    };
    let mut text = format!("{family} {name}");
    if name.is_empty() {
        let _ = write!(text, "type {kind}");
    }
    if *code != 0 {
        let _ = write!(text, " code {code}");
    }
    text
}

/// A field that is set explicitly, not computed.
fn says(parts: &mut Vec<String>, field: &str, value: &Option<impl fmt::Display>) {
    if let Some(value) = value {
        parts.push(format!("{field} {value}"));
    }
}

fn hex(bytes: &[u8]) -> String {
    const SHOWN: usize = 12;
    let mut text: Vec<String> = bytes
        .iter()
        .take(SHOWN)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    if bytes.len() > SHOWN {
        text.push(format!("… {} bytes", bytes.len()));
    }
    text.join(" ")
}
