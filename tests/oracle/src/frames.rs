//! Raw frames, right by default and wrong on demand.
//!
//! Each header is a plain struct: a constructor takes what has no default, struct update syntax or
//! assignment overrides the rest. Lengths, checksums, next headers and EtherTypes are computed when
//! the frame is written, unless they are given.

mod arp;
mod dhcp;
mod icmp_messages;
mod ip;
#[cfg(test)]
mod tests;
mod upper;

use std::net::{IpAddr, Ipv6Addr};

pub use self::{
    arp::Arp,
    dhcp::{Dhcp, dhcpv6},
    icmp_messages::{ROUTER_ALERT, icmp, icmpv6, igmp_query, igmp_report},
    ip::{Extension, Ipv4, Ipv6},
    upper::{Icmp, Tcp, Udp, Upper},
};

/// A hardware address.
pub type Mac = [u8; 6];

pub const BROADCAST: Mac = [0xff; 6];

pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const PSH: u8 = 0x08;
pub const ACK: u8 = 0x10;
pub const URG: u8 = 0x20;

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

/// The MAC of a group (RFC 1112 section 6.4, RFC 2464 section 7).
pub fn group_mac(group: impl Into<IpAddr>) -> Mac {
    match group.into() {
        IpAddr::V4(group) => {
            let [_, b, c, d] = group.octets();
            [0x01, 0x00, 0x5e, b & 0x7f, c, d]
        }
        IpAddr::V6(group) => {
            let [.., a, b, c, d] = group.octets();
            [0x33, 0x33, a, b, c, d]
        }
    }
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
