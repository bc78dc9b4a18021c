//! How ICMP is written: echo, errors, neighbour discovery, reports of groups.

use std::net::Ipv4Addr;

use super::{Icmp, Mac, Packet, Upper, checksum};

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

    /// The option that names the link-layer address of the sender.
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

    /// An MLDv2 report of joining one group; it goes with [`Extension::router_alert`](crate::frames::Extension::router_alert).
    pub fn listener_report(group: Ipv6Addr) -> Upper {
        let record = [&[4, 0, 0, 0], group.octets().as_slice()].concat();
        discovery(143, &[&[0, 0, 0, 1], record.as_slice()].concat(), &[])
    }

    /// An MLDv2 query for one group, or for all; it goes with
    /// [`Extension::router_alert`](crate::frames::Extension::router_alert).
    pub fn listener_query(group: Ipv6Addr) -> Upper {
        let body = [&[0, 100, 0, 0], group.octets().as_slice(), &[2, 125, 0, 0]].concat();
        Upper::Icmpv6(Icmp::new(130, 0, body))
    }

    fn discovery(kind: u8, body: &[u8], options: Options<'_>) -> Upper {
        Upper::Icmpv6(Icmp::new(kind, 0, [body, options.as_flattened()].concat()))
    }

    fn link(kind: u8, mac: Mac) -> [u8; 8] {
        let [a, b, c, d, e, f] = mac;
        [kind, 1, a, b, c, d, e, f]
    }
}

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

/// An IGMPv2 report of joining a group; it goes with [`ROUTER_ALERT`].
pub fn igmp_report(group: Ipv4Addr) -> Upper {
    let mut report = [&[0x16, 0, 0, 0], group.octets().as_slice()].concat();
    let sum = checksum(&[&report]);
    report[2..4].copy_from_slice(&sum.to_be_bytes());
    Upper::Bytes(2, report)
}

/// An IGMPv2 query for one group, or for all; it goes with [`ROUTER_ALERT`].
pub fn igmp_query(group: Ipv4Addr) -> Upper {
    let mut query = [&[0x11, 100, 0, 0], group.octets().as_slice()].concat();
    let sum = checksum(&[&query]);
    query[2..4].copy_from_slice(&sum.to_be_bytes());
    Upper::Bytes(2, query)
}

/// The IPv4 option of IGMP reports.
pub const ROUTER_ALERT: [u8; 4] = [0x94, 4, 0, 0];
