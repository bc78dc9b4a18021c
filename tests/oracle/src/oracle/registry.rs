//! IANA's registries of special-purpose addresses, line by line, and what they say of an address.

use std::net::IpAddr;

use super::prefix_length;

/// What the registry's column "Globally Reachable" says.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reach {
    Global,
    NotGlobal,
    /// "N/A"
    Unsaid,
}

use Reach::{Global, NotGlobal, Unsaid};

/// Whether the registries call an address globally reachable, and it is one of unicast.
pub fn is_globally_reachable(address: IpAddr) -> bool {
    if address.is_multicast() {
        return false;
    }
    let entries = REGISTRY.iter();
    let inside =
        entries.filter_map(|(prefix, reach)| Some((prefix_length(prefix, address)?, *reach)));
    match inside.max_by_key(|(length, _)| *length) {
        Some((_, reach)) => reach == Global,
        // What is not special is reachable where it is allocated as unicast at all.
        None => match address {
            IpAddr::V4(_) => true,
            IpAddr::V6(address) => address.segments()[0] >> 13 == 0b001,
        },
    }
}

/// Both registries in their own order.
const REGISTRY: [(&str, Reach); 51] = [
    ("0.0.0.0/8", NotGlobal),
    ("0.0.0.0/32", NotGlobal),
    ("10.0.0.0/8", NotGlobal),
    ("100.64.0.0/10", NotGlobal),
    ("127.0.0.0/8", NotGlobal),
    ("169.254.0.0/16", NotGlobal),
    ("172.16.0.0/12", NotGlobal),
    ("192.0.0.0/24", NotGlobal),
    ("192.0.0.0/29", NotGlobal),
    ("192.0.0.8/32", NotGlobal),
    ("192.0.0.9/32", Global),
    ("192.0.0.10/32", Global),
    ("192.0.0.170/32", NotGlobal),
    ("192.0.0.171/32", NotGlobal),
    ("192.0.2.0/24", NotGlobal),
    ("192.31.196.0/24", Global),
    ("192.52.193.0/24", Global),
    ("192.88.99.0/24", Unsaid),
    ("192.88.99.2/32", NotGlobal),
    ("192.168.0.0/16", NotGlobal),
    ("192.175.48.0/24", Global),
    ("198.18.0.0/15", NotGlobal),
    ("198.51.100.0/24", NotGlobal),
    ("203.0.113.0/24", NotGlobal),
    ("240.0.0.0/4", NotGlobal),
    ("255.255.255.255/32", NotGlobal),
    ("::1/128", NotGlobal),
    ("::/128", NotGlobal),
    ("::ffff:0:0/96", NotGlobal),
    ("64:ff9b::/96", Global),
    ("64:ff9b:1::/48", NotGlobal),
    ("100::/64", NotGlobal),
    ("100:0:0:1::/64", NotGlobal),
    ("2001::/23", NotGlobal),
    ("2001::/32", Unsaid),
    ("2001:1::1/128", Global),
    ("2001:1::2/128", Global),
    ("2001:1::3/128", Global),
    ("2001:2::/48", NotGlobal),
    ("2001:3::/32", Global),
    ("2001:4:112::/48", Global),
    ("2001:10::/28", Unsaid),
    ("2001:20::/28", Global),
    ("2001:30::/28", Global),
    ("2001:db8::/32", NotGlobal),
    ("2002::/16", Unsaid),
    ("2620:4f:8000::/48", Global),
    ("3fff::/20", NotGlobal),
    ("5f00::/16", NotGlobal),
    ("fc00::/7", NotGlobal),
    ("fe80::/10", NotGlobal),
];

/// Every address at which the registries may change their mind, and the one before it.
pub fn edges() -> Vec<IpAddr> {
    let mut edges = Vec::new();
    for (prefix, _) in REGISTRY {
        let (network, length) = prefix.split_once('/').expect("a length");
        let length: u32 = length.parse().expect("a number");
        match network.parse().expect("an address") {
            IpAddr::V4(first) => {
                let (first, size) = (first.to_bits(), 1_u64 << (32 - length));
                let last = first.wrapping_add((size - 1) as u32);
                let near = [first.wrapping_sub(1), first, last, last.wrapping_add(1)];
                edges.extend(near.map(|it| IpAddr::V4(it.into())));
            }
            IpAddr::V6(first) => {
                let first = first.to_bits();
                let last = first | u128::MAX.checked_shr(length).unwrap_or(0);
                let near = [first.wrapping_sub(1), first, last, last.wrapping_add(1)];
                edges.extend(near.map(|it| IpAddr::V6(it.into())));
            }
        }
    }
    edges
}
