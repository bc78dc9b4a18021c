//! Control traffic, which the network itself needs: which packets are control, and whether they
//! claim only what is their sender's.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::{
    dissect::{self, Frame, Ip, Mac, Upper},
    frames::group_mac,
    oracle::is_group,
};

/// Control traffic, which the network itself needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Control {
    Solicitation {
        target: Ipv6Addr,
    },
    Advertisement {
        target: Ipv6Addr,
    },
    RouterSolicitation,
    RouterAdvertisement,
    Redirect,
    DhcpClient,
    DhcpServer,
    /// What servers and relays say to each other.
    DhcpRelay,
    Membership,
    MembershipQuery,
}

pub(super) fn control(ip: &Ip) -> Option<Control> {
    if is_report(ip) {
        return Some(Control::Membership);
    }
    if is_query(ip) {
        return Some(Control::MembershipQuery);
    }
    match (&ip.upper, ip.protocol) {
        (Upper::Icmp { kind: 5, .. }, 1) => Some(Control::Redirect),
        // RFC 1256.
        (Upper::Icmp { kind: 9, .. }, 1) => Some(Control::RouterAdvertisement),
        (Upper::Icmp { kind, body, .. }, 58) => {
            let target = || {
                let octets: [u8; 16] = body[4..20].try_into().expect("a whole target");
                Ipv6Addr::from(octets)
            };
            match kind {
                // Too short for a target; form drops it before it matters which it is.
                135 | 136 if body.len() < 20 => Some(Control::RouterSolicitation),
                133 => Some(Control::RouterSolicitation),
                134 => Some(Control::RouterAdvertisement),
                135 => Some(Control::Solicitation { target: target() }),
                136 => Some(Control::Advertisement { target: target() }),
                137 => Some(Control::Redirect),
                _ => None,
            }
        }
        // Only servers send to the ports of clients, from whatever port.
        (Upper::Udp { to: 68, .. }, _) if ip.source.is_ipv4() => Some(Control::DhcpServer),
        (Upper::Udp { to: 546, .. }, _) if ip.source.is_ipv6() => Some(Control::DhcpServer),
        (
            Upper::Udp {
                from: 67, to: 67, ..
            },
            _,
        ) if ip.source.is_ipv4() => Some(Control::DhcpRelay),
        (
            Upper::Udp {
                from: 547, to: 547, ..
            },
            _,
        ) if ip.source.is_ipv6() => Some(Control::DhcpRelay),
        (Upper::Udp { from, to, data }, _) => match (from, to, data.as_slice()) {
            // A request of an Ethernet client, with its hardware address (RFC 2131, 2).
            (68, 67, [1, 1, 6, rest @ ..]) if ip.source.is_ipv4() && rest.len() >= 31 => {
                Some(Control::DhcpClient)
            }
            // Message types of clients (RFC 8415, 7.3).
            (546, 547, [1 | 3 | 4 | 5 | 6 | 8 | 9 | 11, _, _, _, ..]) if ip.source.is_ipv6() => {
                Some(Control::DhcpClient)
            }
            _ => None,
        },
        _ => None,
    }
}

/// Whether a packet passes at egress without a rule: it was judged where it entered, is the
/// router's, or comes from an uplink, which is trusted for it.
pub(super) fn leaves_as_control(ip: &Ip) -> bool {
    match (&ip.upper, ip.protocol) {
        (Upper::Udp { from, to, .. }, _) => [67..=68, 546..=547]
            .iter()
            .any(|ports| ports.contains(from) && ports.contains(to)),
        _ => is_report(ip) || is_query(ip) || is_discovery(ip),
    }
}

/// Whether it is a report of IGMP or MLD, or a leave.
pub(super) fn is_report(ip: &Ip) -> bool {
    match (&ip.upper, ip.protocol) {
        (Upper::Icmp { kind, .. }, 58) => matches!(kind, 131 | 132 | 143),
        (Upper::Opaque(bytes), 2) if ip.source.is_ipv4() => {
            matches!(bytes.first(), Some(0x12 | 0x16 | 0x17 | 0x22))
        }
        _ => false,
    }
}

/// Whether it is a query of IGMP or MLD.
pub(super) fn is_query(ip: &Ip) -> bool {
    match (&ip.upper, ip.protocol) {
        (Upper::Icmp { kind, .. }, 58) => *kind == 130,
        (Upper::Opaque(bytes), 2) if ip.source.is_ipv4() => bytes.first() == Some(&0x11),
        _ => false,
    }
}

/// Whether a report or query stays on its link: it goes to a group, by the group's own MAC, and no
/// router may forward it.
pub(super) fn stays_on_link(frame: &Frame, ip: &Ip) -> bool {
    is_group(ip.destination) && frame.destination == group_mac(ip.destination) && ip.hop_limit == 1
}

/// Whether it is neighbour discovery, or its counterpart in IPv4.
pub(super) fn is_discovery(ip: &Ip) -> bool {
    match (&ip.upper, ip.protocol) {
        (Upper::Icmp { kind, .. }, 58) => matches!(kind, 133..=137),
        (Upper::Icmp { kind, .. }, 1) => matches!(kind, 5 | 9),
        _ => false,
    }
}

/// The length of the fixed part before the options, without the first four bytes of ICMP.
pub(super) fn discovery_length(kind: u8) -> Option<usize> {
    match kind {
        133 => Some(4),
        134 => Some(12),
        135 | 136 => Some(20),
        137 => Some(36),
        _ => None,
    }
}

/// Whether a packet may have no source: a host without an address asks for one, or if one is free.
pub(super) fn may_be_nobody(ip: &Ip, control: Option<Control>) -> bool {
    ip.source.is_unspecified()
        && match control {
            Some(Control::DhcpClient) => ip.source.is_ipv4(),
            Some(Control::Solicitation { .. } | Control::RouterSolicitation) => true,
            Some(Control::Membership | Control::MembershipQuery) => true,
            _ => false,
        }
}

/// Whether the link-layer addresses that discovery names are the sender's own.
pub(super) fn links_are(ip: &Ip, mac: Mac) -> bool {
    let Upper::Icmp { kind, body, .. } = &ip.upper else {
        return true;
    };
    let Some(fixed) = discovery_length(*kind) else {
        return true;
    };
    // A redirect's target option names another host.
    let own = if *kind == 137 { 1 } else { 2 };
    let options = body.get(fixed..).and_then(dissect::discovery_options);
    options.is_some_and(|options| {
        options
            .iter()
            .filter(|(kind, _)| *kind == 1 || *kind == own)
            .all(|(_, link)| link[..6] == mac)
    })
}

/// Whether a DHCPv4 client asks for its own MAC, and not as a relay; a DHCPv6 client's identity
/// can't be checked.
pub(super) fn dhcp_is_own(ip: &Ip, mac: Mac) -> bool {
    match &ip.upper {
        Upper::Udp { data, .. } if ip.source.is_ipv4() => {
            data.get(28..34) == Some(&mac) && data.get(24..28) == Some(&[0; 4])
        }
        _ => true,
    }
}

/// The address that a DHCPv4 client says it has, if it is not the one that it sends from.
pub(super) fn dhcp_address(ip: &Ip) -> Option<Ipv4Addr> {
    let Upper::Udp { data, .. } = &ip.upper else {
        return None;
    };
    let octets: [u8; 4] = data.get(12..16)?.try_into().ok()?;
    let address = Ipv4Addr::from(octets);
    (ip.source.is_ipv4() && !address.is_unspecified() && ip.source != address).then_some(address)
}
