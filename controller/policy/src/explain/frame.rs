//! The frame that would open the flow in question.

use std::net::IpAddr;

use wardline_ebpf::{
    abi::Address,
    packet::{number, tcp},
};

use super::place::is_discovery;
use crate::words::mac::Mac;

/// The first dynamic port (RFC 6335 section 6).
pub(super) const EPHEMERAL: u16 = 49152;

/// The packet that opens a flow.
pub(super) struct Packet {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) source_mac: Mac,
    pub(super) destination_mac: Mac,
    pub(super) vlan: u16,
    /// As a service key.
    pub(super) service: u32,
    pub(super) source_port: u16,
}

impl Packet {
    pub(super) fn protocol(&self) -> u8 {
        (self.service >> 16) as u8
    }

    /// The frame. Checksums are left out: no verdict reads them.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let transport = self.transport();
        let membership = self.is_membership();
        let hop_limit = if membership {
            // RFC 3376 section 4, RFC 3810 section 5: to this link only, with the router alert.
            1
        } else if is_discovery(self.service) {
            // RFC 4861 section 7.1: only from neighbours.
            255
        } else {
            HOP_LIMIT
        };
        let mut bytes = [self.destination_mac.0, self.source_mac.0].concat();
        if self.vlan != 0 {
            bytes.extend(number::VLAN.to_be_bytes());
            bytes.extend(self.vlan.to_be_bytes());
        }
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                bytes.extend(number::IPV4.to_be_bytes());
                let options: &[u8] = if membership { &[0x94, 4, 0, 0] } else { &[] };
                let header = 20 + options.len();
                bytes.extend([0x40 | (header / 4) as u8, 0]);
                bytes.extend(((header + transport.len()) as u16).to_be_bytes());
                bytes.extend([0, 0, 0x40, 0, hop_limit, self.protocol(), 0, 0]);
                bytes.extend(source.octets());
                bytes.extend(destination.octets());
                bytes.extend(options);
            }
            (source, destination) => {
                let protocol = self.protocol();
                let options: &[u8] = if membership {
                    &[protocol, 0, 5, 2, 0, 0, 1, 0]
                } else {
                    &[]
                };
                bytes.extend(number::IPV6.to_be_bytes());
                bytes.extend([0x60, 0, 0, 0]);
                bytes.extend(((options.len() + transport.len()) as u16).to_be_bytes());
                bytes.extend([if membership { 0 } else { protocol }, hop_limit]);
                bytes.extend(Address::from(source).octets());
                bytes.extend(Address::from(destination).octets());
                bytes.extend(options);
            }
        }
        bytes.extend(transport);
        bytes
    }

    /// Whether it is a message of IGMP or MLD about who is in which group.
    pub(super) fn is_membership(&self) -> bool {
        match self.protocol() {
            number::IGMP => matches!(self.source, IpAddr::V4(_)),
            number::ICMPV6 => matches!(self.kind(), 130..=132 | 143),
            _ => false,
        }
    }

    /// Type of the ICMP message.
    pub(super) fn kind(&self) -> u8 {
        (self.service >> 8) as u8
    }

    pub(super) fn transport(&self) -> Vec<u8> {
        let low = (self.service as u16).to_be_bytes();
        let port = self.source_port.to_be_bytes();
        match self.protocol() {
            number::TCP => {
                let mut header = [port, low].concat();
                header.extend([0; 8]);
                header.extend([0x50, tcp::SYN, 0xff, 0xff, 0, 0, 0, 0]);
                header
            }
            number::UDP => {
                let body = self.dhcp();
                let mut datagram =
                    [port, low, (8 + body.len() as u16).to_be_bytes(), [0; 2]].concat();
                datagram.extend(body);
                datagram
            }
            number::ICMP | number::ICMPV6 => {
                let mut message = [low, [0; 2], port, [0; 2]].concat();
                if self.protocol() == number::ICMPV6 {
                    // RFC 4861 sections 4.3 and 4.4: the target, which is the address asked for or
                    // the sender's own.
                    match self.kind() {
                        135 => message.extend(Address::from(self.destination).octets()),
                        136 => message.extend(Address::from(self.source).octets()),
                        // RFC 2710 section 3: the group.
                        130..=132 => message.extend(Address::from(self.destination).octets()),
                        _ => {}
                    }
                }
                message
            }
            number::IGMP => match self.destination {
                // RFC 2236 section 2: a report, with the group.
                IpAddr::V4(group) => [&[0x16, 0, 0, 0][..], &group.octets()].concat(),
                IpAddr::V6(_) => vec![0; 8],
            },
            _ => vec![0; 8],
        }
    }

    /// The message of a DHCP client; empty for other packets.
    pub(super) fn dhcp(&self) -> Vec<u8> {
        match (self.source_port, self.service as u16, self.source) {
            (68, 67, IpAddr::V4(_)) => {
                // RFC 2131 section 2: a request, hardware type Ethernet, from this MAC.
                let mut body = vec![0; 240];
                body[..3].copy_from_slice(&[1, 1, 6]);
                body[28..34].copy_from_slice(&self.source_mac.0);
                // RFC 2132: the magic cookie, and a discover.
                body[236..].copy_from_slice(&[99, 130, 83, 99]);
                body.extend([53, 1, 1, 255]);
                body
            }
            // RFC 8415 section 8: solicit.
            (546, 547, IpAddr::V6(_)) => vec![1, 0, 0, 1],
            _ => Vec::new(),
        }
    }
}

/// The hop limit that hosts usually send with.
pub(super) const HOP_LIMIT: u8 = 64;
