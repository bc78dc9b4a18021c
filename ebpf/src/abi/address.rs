//! Addresses, and the keys of the tables that are looked up by address.

use core::net::{IpAddr, Ipv6Addr};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// An address of either family, in network order.
#[repr(C)]
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Debug,
    Default,
    FromBytes,
    Immutable,
    IntoBytes,
    KnownLayout,
)]
pub struct Address(pub [u64; 2]);

/// The first half of every link-local address.
const LINK_LOCAL: u64 = 0xfe80 << 48;

impl Address {
    /// `::`, which is also what a packet without an address carries.
    pub const UNSPECIFIED: Self = Self([0; 2]);

    /// The IPv4 address with these four bytes.
    #[inline(always)]
    pub fn v4(a: [u8; 4]) -> Self {
        Self([
            0,
            u64::from_ne_bytes([0, 0, 0xff, 0xff, a[0], a[1], a[2], a[3]]),
        ])
    }

    /// The IPv6 address with these sixteen bytes.
    #[inline(always)]
    pub fn v6(a: &[u8; 16]) -> Self {
        Self([
            u64::from_ne_bytes([a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7]]),
            u64::from_ne_bytes([a[8], a[9], a[10], a[11], a[12], a[13], a[14], a[15]]),
        ])
    }

    /// The sixteen bytes.
    #[inline(always)]
    pub fn octets(self) -> [u8; 16] {
        let (a, b) = (self.0[0].to_ne_bytes(), self.0[1].to_ne_bytes());
        [
            a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], b[0], b[1], b[2], b[3], b[4], b[5],
            b[6], b[7],
        ]
    }

    /// The address as two numbers, most significant first.
    #[inline(always)]
    pub fn number(self) -> [u64; 2] {
        [u64::from_be(self.0[0]), u64::from_be(self.0[1])]
    }

    /// Whether this stands for an IPv4 address.
    #[inline(always)]
    pub fn is_v4(self) -> bool {
        let [high, low] = self.number();
        high == 0 && low >> 32 == 0xffff
    }

    /// Whether no host may use it as a source: multicast, broadcast, loopback, "this network" or
    /// reserved (RFC 6890). For `0.0.0.0` and `::` callers also ask [`Address::is_unspecified`].
    #[inline(always)]
    pub fn is_martian_source(self) -> bool {
        let [high, low] = self.number();
        if self.is_v4() {
            let first = (low >> 24) as u8;
            return first == 127 || first >= 224 || first == 0;
        }
        // Loopback and the IPv4-compatible addresses (RFC 4291 section 2.5.5.1), not `::` itself.
        high >> 56 == 0xff || (high == 0 && low != 0 && low >> 32 == 0)
    }

    /// Whether no packet on a wire may be sent to it: unspecified or loopback (RFC 6890).
    #[inline(always)]
    pub fn is_martian_destination(self) -> bool {
        let [high, low] = self.number();
        let loopback = if self.is_v4() {
            (low >> 24) as u8 == 127
        } else {
            high == 0 && low == 1
        };
        loopback || self.is_unspecified()
    }

    /// `0.0.0.0` or `::`.
    #[inline(always)]
    pub fn is_unspecified(self) -> bool {
        let [high, low] = self.number();
        high == 0 && (low == 0 || low == 0xffff_0000_0000)
    }

    /// Whether this is an IPv6 link-local unicast address (RFC 4291 section 2.5.6), with its link or
    /// without.
    #[inline(always)]
    pub fn is_link_local(self) -> bool {
        self.number()[0] >> 54 == 0x3fa
    }

    /// Whether this is a link-local address that no host has: all of them begin with `fe80::/64`
    /// (RFC 4291 section 2.5.6). Those 54 bits are where [`Address::on_link`] puts the link.
    #[inline(always)]
    pub fn is_odd_link_local(self) -> bool {
        self.is_link_local() && self.number()[0] != LINK_LOCAL
    }

    /// The address as tables have it: a link-local one means another host on each link, so the link
    /// becomes a part of it.
    #[inline(always)]
    pub fn on_link(self, link: u32) -> Self {
        if self.is_link_local() {
            Self([(LINK_LOCAL | link as u64).to_be(), self.0[1]])
        } else {
            self
        }
    }

    /// The link of a link-local address; none when it is no such address.
    #[inline(always)]
    pub fn link(self) -> Option<u32> {
        self.is_link_local()
            .then_some(u64::from_be(self.0[0]) as u32)
    }

    /// The address as packets have it.
    #[inline(always)]
    pub fn without_link(self) -> Self {
        self.on_link(0)
    }

    /// The MAC that a host makes this address of (RFC 4291 appendix A); 0 when it is not made of one.
    #[inline(always)]
    pub fn made_of_mac(self) -> u64 {
        let low = self.number()[1];
        if low >> 24 & 0xffff != 0xfffe {
            return 0;
        }
        (low >> 40 << 24 | low & 0xff_ffff) ^ 0x0200_0000_0000
    }

    /// Whether this is a multicast group, or the IPv4 broadcast address.
    #[inline(always)]
    pub fn is_group(self) -> bool {
        let [high, low] = self.number();
        if self.is_v4() {
            return (low >> 28) & 0xf == 0xe || low as u32 == u32::MAX;
        }
        high >> 56 == 0xff
    }

    /// Whether this is an IPv6 group of link scope or less (RFC 4291 section 2.7), or an IPv4
    /// group of the local network block (RFC 5771 section 4).
    #[inline(always)]
    pub fn is_link_scope_group(self) -> bool {
        let [high, low] = self.number();
        if self.is_v4() {
            return low as u32 >> 8 == 0xe0_0000;
        }
        high >> 56 == 0xff && (high >> 48) & 0xf <= 2
    }
}

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::v4(address.octets()),
            IpAddr::V6(address) => Self::v6(&address.octets()),
        }
    }
}

/// An IPv4-mapped address becomes the IPv4 address that it stands for, and a link-local one loses its
/// link.
impl From<Address> for IpAddr {
    fn from(address: Address) -> Self {
        Ipv6Addr::from(address.without_link().octets()).to_canonical()
    }
}

/// Key of an exact address.
#[repr(C)]
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Debug,
    FromBytes,
    Immutable,
    IntoBytes,
    KnownLayout,
)]
pub struct AddressKey {
    /// The address.
    pub address: Address,
    /// The slot.
    pub slot: u64,
}

/// Key of a prefix: the slot, big-endian, then the address, as the trie compares bytes. The
/// prefix length counts the slot's 32 bits.
#[repr(C)]
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Debug,
    FromBytes,
    Immutable,
    IntoBytes,
    KnownLayout,
)]
pub struct PrefixKey {
    /// The slot, big-endian; above its bit the number of a zone, when the question is whether that
    /// zone shares the prefix.
    pub slot: [u8; 4],
    /// The address.
    pub address: [u8; 16],
}

impl PrefixKey {
    /// The key of an address; of zone 0: in the prefixes that tell what it stands for.
    #[inline(always)]
    pub fn new(slot: u32, zone: u16, address: &Address) -> Self {
        Self {
            slot: ((zone as u32) << 1 | slot).to_be_bytes(),
            address: address.octets(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn v6(text: &str) -> Address {
        Address::v6(&text.parse::<Ipv6Addr>().unwrap().octets())
    }

    #[test]
    fn an_address_becomes_what_the_tables_hold_and_back() {
        for text in ["10.0.0.1", "0.0.0.0", "2001:db8::1", "::", "::10.0.0.1"] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(IpAddr::from(Address::from(address)), address, "{text}");
        }
        let v4: IpAddr = "10.0.0.1".parse().unwrap();
        assert_eq!(Address::from(v4), Address::v4([10, 0, 0, 1]));
        let mapped: IpAddr = "::ffff:10.0.0.1".parse().unwrap();
        assert_eq!(IpAddr::from(Address::from(mapped)), v4);
    }

    #[test]
    fn a_link_local_address_is_another_on_each_link() {
        let (own, other) = (v6("fe80::5054:ff:fe12:3456"), v6("2001:db8::1"));
        assert_ne!(own.on_link(7), own.on_link(8));
        assert!(own.on_link(7).is_link_local());
        assert_eq!(own.on_link(7).without_link(), own);
        assert_eq!(IpAddr::from(own.on_link(7)), IpAddr::from(own));
        assert_eq!(own.on_link(7).made_of_mac(), 0x5254_0012_3456);
        assert_eq!(v6("fe80::1").made_of_mac(), 0);
        assert_eq!((other.on_link(7), other.without_link()), (other, other));
        assert!(v6("fe80:0:0:1::1").is_odd_link_local() && v6("febf::1").is_odd_link_local());
        assert!(!own.is_odd_link_local() && !other.is_odd_link_local());
    }

    #[test]
    fn addresses_are_told_apart() {
        let v4 = Address::v4([10, 0, 0, 1]);
        assert!(v4.is_v4() && !v4.is_group() && !v4.is_martian_source());
        assert_eq!(v4, v6("::ffff:10.0.0.1"));
        assert!(Address::v4([224, 0, 0, 251]).is_group());
        assert!(Address::v4([224, 0, 0, 251]).is_link_scope_group());
        assert!(!Address::v4([239, 1, 1, 1]).is_link_scope_group());
        assert!(Address::v4([255; 4]).is_group());
        assert!(Address::v4([127, 0, 0, 1]).is_martian_source());
        assert!(Address::v4([0; 4]).is_unspecified());
        assert!(v6("::").is_unspecified() && !v6("::2").is_unspecified());
        assert!(v6("fe80::1").is_link_local() && v6("febf::1").is_link_local());
        assert!(!v6("fec0::1").is_link_local() && !v6("2001:db8::1").is_link_local());
        assert!(v6("ff02::1").is_group() && v6("ff02::1").is_link_scope_group());
        assert!(!v6("ff05::1").is_link_scope_group());
        assert!(v6("::1").is_martian_source() && v6("ff02::1").is_martian_source());
        assert!(v6("::10.0.0.1").is_martian_source() && !v6("::1:0:0:1").is_martian_source());
        assert!(v6("::1").is_martian_destination() && v6("::").is_martian_destination());
        assert!(Address::v4([127, 0, 0, 1]).is_martian_destination());
        assert!(!v4.is_martian_destination() && !v6("ff02::1").is_martian_destination());
    }
}
