//! Addresses that may stand for an end that is named by its zone, network or device.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use wardline_ebpf::abi::Address;

pub(super) fn is_v4(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(_))
}

/// The IPv4 address that an IPv4-mapped one stands for (RFC 4291 section 2.5.5.2).
pub(super) fn unmapped(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(_) => None,
        IpAddr::V6(address) => address.to_ipv4_mapped(),
    }
}

/// Whether hosts send from an address and rules apply to it.
pub(super) fn is_usable(address: IpAddr) -> bool {
    let address = Address::from(address);
    let is_reserved = !address.is_v4() && address.number()[0] == 0;
    !address.is_martian_source() && !address.is_link_local() && !is_reserved
}

/// Prefixes that no host uses, reserved for documentation: RFC 5737, RFC 3849, RFC 9637.
pub(super) fn documentation() -> [IpNet; 5] {
    let v4 = |a, b, c| IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, 0), 24));
    let v6 = |a, b, c, d| {
        let address = Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0);
        IpNet::V6(Ipv6Net::new_assert(address, 64))
    };
    [
        v4(203, 0, 113),
        v4(198, 51, 100),
        v4(192, 0, 2),
        v6(0x2001, 0xdb8, 0xffff, 0xffff),
        v6(0x3fff, 0xfff, 0xffff, 0xffff),
    ]
}

/// Prefixes with public addresses: first those where only AS112's name servers are (RFC 7535), then
/// what is allocated.
pub(super) fn public() -> impl Iterator<Item = IpNet> {
    let v4 = |a, b, c, length| {
        let address = Ipv4Addr::new(a, b, c, 0);
        IpNet::V4(Ipv4Net::new_assert(address, length))
    };
    let v6 = |a, b, c, length| {
        let address = Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0);
        IpNet::V6(Ipv6Net::new_assert(address, length))
    };
    let first = [v4(192, 31, 196, 24), v6(0x2001, 4, 0x112, 48)];
    let more = (0x2400..0x2e00).step_by(0x100);
    first
        .into_iter()
        .chain((1..224).map(move |first| v4(first, 0, 0, 8)))
        .chain(more.map(move |first| v6(first, 0, 0, 24)))
}

/// The first addresses of a prefix, without those that name the subnet itself.
pub(super) fn hosts_of(net: IpNet) -> Box<dyn Iterator<Item = IpAddr>> {
    let (first, last) = (
        address_number(net.network()),
        address_number(net.broadcast()),
    );
    // RFC 3021 and RFC 6164: in a subnet of two addresses, both may belong to hosts.
    let inner = u128::from(last - first > 1);
    let last = if is_v4(net.addr()) {
        last - inner
    } else {
        last
    };
    let v4 = is_v4(net.addr());
    let first = first + inner;
    let end = last.min(first.saturating_add(TRIES - 1));
    Box::new((first..=end).map(move |number| address_at(number, v4)))
}

/// The addresses of `outer` that follow a prefix inside it.
pub(super) fn past(inner: IpNet, outer: IpNet) -> impl Iterator<Item = IpAddr> {
    let (first, last) = (
        address_number(inner.broadcast()),
        address_number(outer.broadcast()),
    );
    let v4 = is_v4(inner.addr());
    // Neither the first address, which names the next subnet, nor the last.
    let first = first.saturating_add(2);
    (first..last.min(first.saturating_add(TRIES))).map(move |number| address_at(number, v4))
}

pub(super) fn address_number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

pub(super) fn address_at(number: u128, v4: bool) -> IpAddr {
    if v4 {
        IpAddr::V4(Ipv4Addr::from_bits(number as u32))
    } else {
        IpAddr::V6(Ipv6Addr::from_bits(number))
    }
}

/// Most addresses of a subnet that are tried to find a free one.
pub(super) const TRIES: u128 = 4096;
