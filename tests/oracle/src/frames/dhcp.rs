//! How messages of DHCP and DHCPv6 are written.

use std::net::Ipv4Addr;

use super::{Mac, Udp};

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
    /// The relay that the server answers; unspecified: none.
    pub relay: Ipv4Addr,
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
            relay: Ipv4Addr::UNSPECIFIED,
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
        message.extend([0; 4]);
        message.extend(self.relay.octets());
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
