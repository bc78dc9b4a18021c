//! Names of the policy, the addresses that they have, and what devices have asked resolvers for.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::Address;
use crate::cell::Cell32;

/// Bytes of a name in tables. The longest name has one less (RFC 1035 section 3.1).
pub const NAME_BYTES: usize = 256;

/// A name in lower case, as a question has it on the wire: each label behind its length, a zero behind
/// the last. What is behind that is zero, too.
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
pub struct NameText(pub [u8; NAME_BYTES]);

/// The selectors that a name stands in, by number; 0: none.
#[repr(C)]
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, Immutable, IntoBytes, KnownLayout,
)]
pub struct Watched {
    /// The selector of this name alone.
    pub exact: u32,
    /// The selector of every name below it.
    pub below: u32,
}

/// Selectors that one name may be of: its own, and those of names around it.
pub const SELECTORS: usize = 4;

/// What a device has asked a resolver for. Its key is a seeded hash of who asks whom, from which port,
/// with which identifier, and of the question byte by byte.
#[repr(C)]
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, Immutable, IntoBytes, KnownLayout,
)]
pub struct Inquiry {
    /// The selectors that the name is of; 0: no more.
    pub selectors: [u32; SELECTORS],
    /// Tick of the question.
    pub asked: u32,
    /// Zero.
    pub reserved: u32,
}

/// Cells in which questions are counted; a power of two.
pub const INQUIRERS: u32 = 4_096;

/// Selectors that one address may be known for at a time.
pub const KNOWN_FOR: usize = 16;

/// The selectors that an address is known for.
#[repr(C)]
#[derive(Debug, Default, FromBytes, IntoBytes, KnownLayout)]
pub struct Resolved {
    /// The number of each; 0: the place is free.
    pub selectors: [Cell32; KNOWN_FOR],
    /// Tick at which each ends. A flow that is open by then goes on.
    pub until: [Cell32; KNOWN_FOR],
}

/// Addresses of one selector that share a set of places. The limit is a multiple of this.
pub const NAMED_WAYS: u32 = 16;

/// An address of a selector, by [`named_key`].
#[repr(C)]
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, Immutable, IntoBytes, KnownLayout,
)]
pub struct Named {
    /// The address.
    pub address: Address,
    /// The resolver that has said so last.
    pub resolver: Address,
    /// Who asked it.
    pub asker: Address,
    /// Tick at which it ends.
    pub until: u32,
    /// Zero.
    pub reserved: u32,
}

/// Key of a place for an address of a selector.
#[inline(always)]
pub fn named_key(selector: u32, place: u32) -> u64 {
    (selector as u64) << 32 | place as u64
}

/// The first place of the set in which a selector keeps an address. A selector has `most` places.
#[inline(always)]
pub fn named_set(address: &Address, most: u32) -> u32 {
    let [high, low] = address.0;
    let mixed = (high ^ low.rotate_left(23)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let sets = most / NAMED_WAYS;
    if sets == 0 {
        return 0;
    }
    (mixed >> 32) as u32 % sets * NAMED_WAYS
}

/// Whether an address may be one that a name stands for: of a single host, which is no link's own, and
/// which no translator leads to another address.
#[inline(always)]
pub fn may_be_named(address: &Address) -> bool {
    let [high, low] = address.number();
    let translated = high >> 32 == 0x0064_ff9b || high >> 48 == 0x2002;
    // Site-local addresses are of the time before RFC 3879.
    let own = high >> 54 == 0x3fa || high >> 54 == 0x3fb;
    let first = (low >> 24) as u8;
    let special = if address.is_v4() {
        first == 0 || first == 127 || first >= 224 || low as u32 >> 16 == 0xa9fe
    } else {
        translated || own || high >> 56 == 0xff || high == 0
    };
    !special
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use core::net::IpAddr;

    use super::*;

    #[test]
    fn names_stand_for_addresses_of_single_hosts_only() {
        let may = |text: &str| may_be_named(&Address::from(text.parse::<IpAddr>().unwrap()));
        for good in ["192.0.2.1", "10.1.2.3", "2001:db8::1", "fd00::1"] {
            assert!(may(good), "{good}");
        }
        for bad in [
            "0.0.0.0",
            "127.0.0.1",
            "169.254.1.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "64:ff9b::a00:1",
            "2002:a00:1::1",
        ] {
            assert!(!may(bad), "{bad}");
        }
    }

    #[test]
    fn addresses_spread_over_the_sets() {
        let address = |n: u16| Address::v4([198, 51, n.to_be_bytes()[0], n.to_be_bytes()[1]]);
        let mut filled = [0; 64];
        for n in 0..512 {
            filled[(named_set(&address(n), 1024) / NAMED_WAYS) as usize] += 1;
        }
        assert!(filled.iter().all(|count| *count < NAMED_WAYS), "{filled:?}");
    }
}
