//! TCP, UDP, ICMP and IGMP headers.

use super::{Bytes, Packet, Shape, number, tcp};
use crate::abi::Reason;

/// In [`Packet::flags`] between `ipv6` and `transport`.
pub(super) const MEMBERSHIP_ONLY: u8 = 1;

/// The transport header, which must be complete.
#[inline(always)]
pub(super) fn transport<B: Bytes + ?Sized>(bytes: &B, packet: &mut Packet) -> Result<(), Reason> {
    let at = packet.payload as usize;
    let length = packet.end as usize - at;
    let v4 = packet.ethertype == number::IPV4;
    let first = packet.fragment.is_first();
    // A first part must hold the whole header, or a later part could complete it unchecked (RFC
    // 7112).
    let short = if first {
        Reason::Fragment
    } else {
        Reason::Malformed
    };
    let membership_only = packet.flags == MEMBERSHIP_ONLY;
    packet.flags = 0;
    match packet.protocol {
        number::TCP => {
            let Some(header) = bytes.read::<20>(at) else {
                return packet.fault(short);
            };
            if length < 20 {
                return packet.fault(short);
            }
            let header_length = ((header[12] >> 4) as usize) << 2;
            if header_length < 20 {
                return Err(Reason::Malformed);
            }
            if header_length > length {
                return packet.fault(short);
            }
            packet.shape = Shape::Tcp;
            ports(packet, [header[0], header[1], header[2], header[3]]);
            packet.flags = header[13];
            packet.data = length > header_length;
            if !valid_tcp_flags(packet.flags) {
                return packet.fault(Reason::BadTcpFlags);
            }
        }
        number::UDP => {
            let Some(header) = bytes.read::<8>(at) else {
                return packet.fault(short);
            };
            if length < 8 {
                return packet.fault(short);
            }
            let whole = u16::from_be_bytes([header[4], header[5]]) as usize;
            if if first {
                whole < length
            } else {
                whole != length
            } {
                return Err(Reason::Malformed);
            }
            packet.shape = Shape::Udp;
            ports(packet, [header[0], header[1], header[2], header[3]]);
        }
        number::ICMP | number::ICMPV6 if v4 != (packet.protocol == number::ICMP) => {
            return Err(Reason::Malformed);
        }
        number::ICMP | number::ICMPV6 => {
            let Some(header) = bytes.read::<8>(at) else {
                return packet.fault(short);
            };
            if length < 8 {
                return packet.fault(short);
            }
            packet.icmp = u16::from_be_bytes([header[0], header[1]]);
            packet.shape = if v4 {
                icmpv4_shape(header[0], header[1])
            } else {
                icmpv6_shape(header[0], header[1])
            };
            match packet.shape {
                Shape::Query | Shape::Answer => {
                    ports(packet, [header[4], header[5], header[4], header[5]]);
                }
                // Without an identifier, flows are told apart by type and code.
                Shape::Other => {
                    packet.source_port = packet.icmp;
                    packet.destination_port = packet.icmp;
                }
                _ => {}
            }
            let membership = matches!(packet.shape, Shape::Membership | Shape::MembershipQuery);
            if membership_only && !membership {
                packet.fault(Reason::ExtensionHeader)?;
            }
        }
        number::IGMP if v4 => {
            let Some(header) = bytes.read::<8>(at) else {
                return packet.fault(short);
            };
            if length < 8 {
                return packet.fault(short);
            }
            // Query; reports of versions 1, 2 and 3, and leave (RFC 3376 section 4).
            packet.shape = match header[0] {
                0x11 => Shape::MembershipQuery,
                0x12 | 0x16 | 0x17 | 0x22 => Shape::Membership,
                _ => Shape::Other,
            };
        }
        _ => packet.shape = Shape::Other,
    }
    // Discovery must not be fragmented (RFC 6980), and errors and reports are too small to need it.
    let whole = matches!(
        packet.shape,
        Shape::Error | Shape::Discovery | Shape::Membership | Shape::MembershipQuery
    );
    if whole && first {
        packet.fault(Reason::Fragment)?;
    }
    Ok(())
}

/// Where a message of neighbour discovery ends and its options begin, from the start of its ICMPv6
/// header (RFC 4861 section 4).
#[inline(always)]
pub fn discovery_length(kind: u8) -> usize {
    match kind {
        133 => 8,
        134 => 16,
        137 => 40,
        _ => 24,
    }
}

/// RFC 792, RFC 1256, RFC 950.
#[inline(always)]
pub(super) fn icmpv4_shape(kind: u8, code: u8) -> Shape {
    match kind {
        8 | 13 | 15 | 17 if code == 0 => Shape::Query,
        0 | 14 | 16 | 18 if code == 0 => Shape::Answer,
        3 | 4 | 11 | 12 => Shape::Error,
        5 | 9 => Shape::Discovery,
        _ => Shape::Other,
    }
}

/// RFC 4443, RFC 4861, RFC 2710, RFC 3810.
#[inline(always)]
pub(super) fn icmpv6_shape(kind: u8, code: u8) -> Shape {
    match kind {
        128 if code == 0 => Shape::Query,
        129 if code == 0 => Shape::Answer,
        1..=4 => Shape::Error,
        133..=137 => Shape::Discovery,
        130 => Shape::MembershipQuery,
        131 | 132 | 143 => Shape::Membership,
        _ => Shape::Other,
    }
}

/// The kind that tells apart flows of queries with the same identifier: the request's type.
#[inline(always)]
pub fn query_kind(packet: &Packet) -> u8 {
    request(packet.shape, (packet.icmp >> 8) as u8)
}

/// The type of the request: a query's own type, or for an answer one less, except for echo.
#[inline(always)]
pub(super) fn request(shape: Shape, kind: u8) -> u8 {
    match shape {
        Shape::Query => kind,
        Shape::Answer if kind == 0 => 8,
        Shape::Answer => kind.wrapping_sub(1),
        _ => 0,
    }
}

/// The flag combinations that a TCP stack sends, ignoring PSH, ECE and CWR.
#[inline(always)]
fn valid_tcp_flags(flags: u8) -> bool {
    use tcp::{ACK, FIN, RST, SYN, URG};
    const SYN_ACK: u8 = SYN | ACK;
    const SYN_URG: u8 = SYN | URG;
    const RST_ACK: u8 = RST | ACK;
    const FIN_ACK: u8 = FIN | ACK;
    const FIN_ACK_URG: u8 = FIN | ACK | URG;
    const ACK_URG: u8 = ACK | URG;
    matches!(
        flags & (FIN | SYN | RST | ACK | URG),
        SYN | SYN_URG | SYN_ACK | RST | RST_ACK | FIN_ACK | FIN_ACK_URG | ACK | ACK_URG
    )
}

#[inline(always)]
fn ports(packet: &mut Packet, bytes: [u8; 4]) {
    packet.source_port = u16::from_be_bytes([bytes[0], bytes[1]]);
    packet.destination_port = u16::from_be_bytes([bytes[2], bytes[3]]);
}
