//! How ARP is written: requests, replies, and malformed packets.

use std::net::Ipv4Addr;

use super::Mac;

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

    pub(super) fn bytes(&self) -> Vec<u8> {
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
