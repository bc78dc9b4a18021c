//! How the payload of IP is written: TCP, UDP, ICMP, or bytes.

use std::net::IpAddr;

use super::{ACK, checksum, padded, pseudo_header};

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
    pub(super) fn encode(&self, source: IpAddr, destination: IpAddr) -> (u8, Vec<u8>) {
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

    pub(super) fn bytes(&self) -> Vec<u8> {
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

    pub(super) fn bytes(&self) -> Vec<u8> {
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

    pub(super) fn bytes(&self) -> Vec<u8> {
        [&[self.kind, self.code, 0, 0], self.body.as_slice()].concat()
    }
}
