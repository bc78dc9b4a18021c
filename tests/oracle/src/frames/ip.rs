//! How IPv4 and IPv6 are written: headers, options, extension headers, fragments.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{Upper, checksum, padded};

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

    pub(super) fn payload(&self) -> (u8, Vec<u8>) {
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

    pub(super) fn payload(&self) -> (u8, Vec<u8>) {
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

    /// The router alert that MLD reports carry.
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

fn in_eights(bytes: usize) -> u16 {
    assert_eq!(
        bytes % 8,
        0,
        "fragments are cut at multiples of eight bytes"
    );
    (bytes / 8) as u16
}
