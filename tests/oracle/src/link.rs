//! Link-local addresses: on each link, one stands for another host.

use std::net::{IpAddr, Ipv6Addr};

/// Whether an address is an IPv6 link-local one (RFC 4291, 2.5.6).
pub fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.segments()[0] & 0xffc0 == 0xfe80)
}

/// Whether it is one that no host has: the 54 bits after the prefix are zero.
pub fn is_odd(address: IpAddr) -> bool {
    is_link_local(address) && plain(address) != address
}

/// The address with the link in those bits, so that it is another on each link.
pub fn linked(address: IpAddr, link: u32) -> IpAddr {
    let IpAddr::V6(v6) = address else {
        return address;
    };
    if !is_link_local(address) {
        return address;
    }
    let [.., e, f, g, h] = v6.segments();
    let (high, low) = ((link >> 16) as u16, link as u16);
    Ipv6Addr::new(0xfe80, 0, high, low, e, f, g, h).into()
}

/// The address as packets have it.
pub fn plain(address: IpAddr) -> IpAddr {
    linked(address, 0)
}

/// The MAC that a host makes such an address of (RFC 4291, appendix A).
pub fn made_of(address: IpAddr) -> Option<[u8; 6]> {
    let IpAddr::V6(v6) = address else {
        return None;
    };
    match v6.octets() {
        [0xfe, 0x80, .., a, b, c, 0xff, 0xfe, d, e, f] => Some([a ^ 2, b, c, d, e, f]),
        _ => None,
    }
}
