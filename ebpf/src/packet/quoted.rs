//! The packet that an ICMP error quotes.

use super::{
    Bytes, Packet, Shape,
    ipv6::word,
    number,
    transport::{icmpv4_shape, icmpv6_shape, request},
};
use crate::abi::Address;

/// The packet that an ICMP error quotes, with what is needed to find its flow: both addresses and
/// eight bytes of the transport header (RFC 792, RFC 4443 section 3.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Quoted {
    /// Its source address.
    pub source: Address,
    /// Its destination address.
    pub destination: Address,
    /// Its protocol.
    pub protocol: u8,
    /// Its source port, or a query's identifier.
    pub source_port: u16,
    /// Its destination port, or a query's identifier.
    pub destination_port: u16,
    /// [`query_kind`](super::query_kind).
    pub kind: u8,
    /// Whether it is the answer to a query.
    pub answers: bool,
}

impl Quoted {
    /// With its addresses as tables have them.
    #[inline(always)]
    pub fn on_link(self, link: u32) -> Self {
        Self {
            source: self.source.on_link(link),
            destination: self.destination.on_link(link),
            ..self
        }
    }
}

/// Reads the packet that an ICMP error quotes; none when it can't be matched to a flow with
/// certainty.
#[inline(always)]
pub fn quoted<B: Bytes + ?Sized>(bytes: &B, packet: &Packet) -> Option<Quoted> {
    let at = packet.payload as usize + 8;
    let v4 = packet.ethertype == number::IPV4;
    let (source, destination, protocol, payload) = if v4 {
        let header = bytes.read::<20>(at)?;
        let header_length = ((header[0] & 0xf) as usize) << 2;
        let fragment = u16::from_be_bytes([header[6], header[7]]) & 0x1fff;
        if header[0] >> 4 != 4 || header_length < 20 || fragment != 0 {
            return None;
        }
        let source = Address::v4([header[12], header[13], header[14], header[15]]);
        let destination = Address::v4([header[16], header[17], header[18], header[19]]);
        (source, destination, header[9], at + header_length)
    } else {
        let header = bytes.read::<40>(at)?;
        if header[0] >> 4 != 6 {
            return None;
        }
        let source = Address([word(header, 8), word(header, 16)]);
        let destination = Address([word(header, 24), word(header, 32)]);
        (source, destination, header[6], at + 40)
    };
    let transport = bytes.read::<8>(payload)?;
    if payload + 8 > packet.end as usize {
        return None;
    }
    let pair = |i: usize| u16::from_be_bytes([transport[i], transport[i + 1]]);
    let mut quoted = Quoted {
        source,
        destination,
        protocol,
        source_port: 0,
        destination_port: 0,
        kind: 0,
        answers: false,
    };
    match protocol {
        number::TCP | number::UDP => {
            quoted.source_port = pair(0);
            quoted.destination_port = pair(2);
        }
        number::ICMP | number::ICMPV6 => {
            let (kind, code) = (transport[0], transport[1]);
            let shape = if v4 {
                icmpv4_shape(kind, code)
            } else {
                icmpv6_shape(kind, code)
            };
            if !matches!(shape, Shape::Query | Shape::Answer) {
                return None;
            }
            quoted.source_port = pair(4);
            quoted.destination_port = pair(4);
            quoted.kind = request(shape, kind);
            quoted.answers = shape == Shape::Answer;
        }
        _ => {}
    }
    Some(quoted)
}
