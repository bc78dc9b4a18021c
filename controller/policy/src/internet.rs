//! Which addresses are the internet: what IANA's registries call globally reachable unicast.
//!
//! The selector `internet` means those of them that are in no zone. The list is the registries of
//! special-purpose addresses (RFC 6890) as of November 2026, without what says the same as the
//! prefix around it. Only `2000::/3` of IPv6 is allocated as global unicast (RFC 4291 section 4).
//!
//! <https://www.iana.org/assignments/iana-ipv4-special-registry>,
//! <https://www.iana.org/assignments/iana-ipv6-special-registry>

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Whether an address is globally reachable unicast.
pub(crate) fn is_public(address: IpAddr) -> bool {
    around(IpNet::from(address))
}

/// Whether a prefix has an address that is globally reachable unicast.
pub(crate) fn meets(net: IpNet) -> bool {
    around(net) || borders().any(|(border, public)| public && net.contains(&border))
}

/// Whether every address of a prefix is globally reachable unicast.
pub(crate) fn covers(net: IpNet) -> bool {
    around(net) && !borders().any(|(border, public)| !public && net.contains(&border))
}

/// What the longest of the prefixes around one says of it.
fn around(net: IpNet) -> bool {
    borders()
        .filter(|(border, _)| border.contains(&net))
        .max_by_key(|(border, _)| border.prefix_len())
        .is_some_and(|(_, public)| public)
}

/// The prefixes that decide, the longest first: whether an address in one is globally reachable
/// unicast. An IPv6 address that stands for an IPv4 address is what that one is.
pub(crate) fn borders() -> impl Iterator<Item = (IpNet, bool)> {
    let v4 = V4.map(|(address, length, public)| {
        let net = Ipv4Net::new_assert(Ipv4Addr::from(address), length);
        (net, public)
    });
    let v6 = V6.into_iter().map(|(address, length, public)| {
        let net = Ipv6Net::new_assert(Ipv6Addr::from(address), length);
        (IpNet::V6(net), public)
    });
    let inside = v4.map(|(net, public)| (IpNet::V6(translated(net)), public));
    v4.map(|(net, public)| (IpNet::V4(net), public))
        .into_iter()
        .chain(v6)
        .chain(inside)
}

/// The well-known prefix of NAT64 (RFC 6052).
const NAT64: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96);

/// The IPv6 prefix by which a NAT64 reaches an IPv4 prefix.
pub(crate) fn translated(net: Ipv4Net) -> Ipv6Net {
    let address = NAT64.addr().to_bits() | u128::from(net.addr().to_bits());
    Ipv6Net::new_assert(Ipv6Addr::from_bits(address), 96 + net.prefix_len())
}

/// The IPv4 prefix that a NAT64 reaches by an IPv6 prefix; none for others.
pub(crate) fn untranslated(net: IpNet) -> Option<Ipv4Net> {
    let IpNet::V6(net) = net else {
        return None;
    };
    let address = Ipv4Addr::from_bits(net.addr().to_bits() as u32);
    NAT64
        .contains(&net)
        .then(|| Ipv4Net::new_assert(address, net.prefix_len() - 96))
}

/// IPv4: all but what is reserved.
const V4: [([u8; 4], u8, bool); 17] = [
    ([0, 0, 0, 0], 0, true),
    // "This network"
    ([0, 0, 0, 0], 8, false),
    // private
    ([10, 0, 0, 0], 8, false),
    // shared, for carrier-grade NAT
    ([100, 64, 0, 0], 10, false),
    // loopback
    ([127, 0, 0, 0], 8, false),
    // link-local
    ([169, 254, 0, 0], 16, false),
    // private
    ([172, 16, 0, 0], 12, false),
    // protocol assignments; in it the anycast addresses of PCP and of TURN
    ([192, 0, 0, 0], 24, false),
    ([192, 0, 0, 9], 32, true),
    ([192, 0, 0, 10], 32, true),
    // documentation
    ([192, 0, 2, 0], 24, false),
    // 6to4 relays, deprecated
    ([192, 88, 99, 0], 24, false),
    // private
    ([192, 168, 0, 0], 16, false),
    // benchmarking
    ([198, 18, 0, 0], 15, false),
    // documentation
    ([198, 51, 100, 0], 24, false),
    ([203, 0, 113, 0], 24, false),
    // multicast, and reserved up to the broadcast address
    ([224, 0, 0, 0], 3, false),
];

/// IPv6: of what is allocated as global unicast, all but what is reserved.
const V6: [([u16; 8], u8, bool); 10] = [
    ([0x2000, 0, 0, 0, 0, 0, 0, 0], 3, true),
    // protocol assignments, Teredo, benchmarking and the first ORCHID among them
    ([0x2001, 0, 0, 0, 0, 0, 0, 0], 23, false),
    // the anycast addresses of PCP, of TURN, and of service registration
    ([0x2001, 1, 0, 0, 0, 0, 0, 1], 128, true),
    ([0x2001, 1, 0, 0, 0, 0, 0, 2], 127, true),
    // automatic multicast tunnels
    ([0x2001, 3, 0, 0, 0, 0, 0, 0], 32, true),
    // AS112
    ([0x2001, 4, 0x112, 0, 0, 0, 0, 0], 48, true),
    // ORCHIDv2, and the tags of drones
    ([0x2001, 0x20, 0, 0, 0, 0, 0, 0], 27, true),
    // documentation
    ([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32, false),
    // 6to4
    ([0x2002, 0, 0, 0, 0, 0, 0, 0], 16, false),
    // documentation
    ([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20, false),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().expect(text)
    }

    #[test]
    fn an_address_is_what_the_narrowest_entry_of_the_registries_says() {
        for text in [
            "1.1.1.1",
            "100.63.255.255",
            "100.128.0.0",
            "172.32.0.0",
            "192.0.0.9",
            "192.31.196.1",
            "223.255.255.255",
            "2001:1::1",
            "2001:1::3",
            "2001:20::1",
            "2001:3f:ffff::",
            "2001:200::",
            "2606:4700::1111",
            "3fff:1000::",
            "64:ff9b::101:101",
        ] {
            assert!(is_public(text.parse().expect(text)), "{text}");
        }
        for text in [
            "0.1.2.3",
            "10.255.255.255",
            "100.64.0.0",
            "192.0.0.8",
            "192.0.0.11",
            "192.88.99.1",
            "198.19.255.255",
            "224.0.0.0",
            "255.255.255.255",
            "::1",
            "64:ff9b::a00:1",
            "64:ff9b::c0a8:101",
            "64:ff9b:1::1",
            "100::1",
            "1fff::1",
            "2001::1",
            "2001:1::",
            "2001:1::4",
            "2001:2::1",
            "2001:10::1",
            "2001:40::1",
            "2001:db8::1",
            "2002:101:101::1",
            "3fff:fff::1",
            "4000::1",
            "5f00::1",
            "fd00::1",
            "fe80::1",
            "ff0e::1",
        ] {
            assert!(!is_public(text.parse().expect(text)), "{text}");
        }
    }

    #[test]
    fn a_prefix_meets_the_internet_or_is_all_of_it() {
        for (text, some, all) in [
            ("0.0.0.0/0", true, false),
            ("1.0.0.0/8", true, true),
            ("10.0.0.0/8", false, false),
            ("10.1.0.0/16", false, false),
            ("192.0.0.0/24", true, false),
            ("192.0.0.8/31", true, false),
            ("192.0.0.10/32", true, true),
            ("::/0", true, false),
            ("64:ff9b::/96", true, false),
            ("64:ff9b::100:0/104", true, true),
            ("2001::/23", true, false),
            ("2400::/12", true, true),
            ("fc00::/7", false, false),
        ] {
            let net = net(text);
            assert_eq!((meets(net), covers(net)), (some, all), "{text}");
        }
    }

    #[test]
    fn no_prefix_is_listed_that_says_the_same_as_the_one_around_it() {
        for (net, public) in borders() {
            let wider = borders()
                .filter(|(other, _)| other.contains(&net) && *other != net)
                .max_by_key(|(other, _)| other.prefix_len());
            assert_ne!(wider.is_some_and(|(_, public)| public), public, "{net}");
        }
    }

    #[test]
    fn a_nat64_prefix_is_translated_there_and_back() {
        for (v4, v6) in [
            ("0.0.0.0/0", "64:ff9b::/96"),
            ("192.0.2.0/24", "64:ff9b::c000:200/120"),
        ] {
            let IpNet::V4(of) = net(v4) else {
                panic!("{v4}");
            };
            assert_eq!(IpNet::V6(translated(of)), net(v6));
            assert_eq!(untranslated(net(v6)), Some(of));
        }
        assert_eq!(untranslated(net("64:ff9b::/95")), None);
        assert_eq!(untranslated(net("2001:db8::/96")), None);
        assert_eq!(untranslated(net("1.0.0.0/8")), None);
    }
}
