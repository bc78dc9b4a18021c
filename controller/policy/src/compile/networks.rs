//! Networks that zones and rules name: which zone and region an address is in.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;
use wardline_ebpf::abi::Address;

use crate::{
    intent::{Intent, ZoneIndex},
    numbers::{Ids, cidrs, number_of, numbered},
};

/// Every prefix that zones and rules name, with the zone and region of an address in it.
pub(super) struct Networks {
    /// By prefix: zone, region. Two prefixes never overlap in part: they are disjoint, or one is
    /// inside the other.
    pub(super) prefixes: BTreeMap<(Address, u8), (u16, u32)>,
    /// Regions inside a `cidr:`, its own included.
    pub(super) inside: BTreeMap<IpNet, Vec<u32>>,
}

impl Networks {
    pub(super) fn of(intent: &Intent, ids: &Ids, zone_of: &impl Fn(ZoneIndex) -> u16) -> Self {
        let mut zones: BTreeMap<(Address, u8), u16> = BTreeMap::new();
        for (index, zone) in intent.zones.iter().enumerate() {
            for subnet in &zone.subnets {
                zones.insert(prefix_of(*subnet), zone_of(ZoneIndex(index)));
            }
        }
        let cidrs = cidrs(intent);
        let regions: BTreeMap<(Address, u8), (IpNet, u32)> = cidrs
            .iter()
            .map(|net| {
                (
                    prefix_of(*net),
                    (*net, number_of(ids, numbered::CIDR, &net.to_string())),
                )
            })
            .collect();
        // Addresses that no zone or rule names need an entry too.
        let everywhere = [
            (Address::from(IpAddr::from([0u8; 4])), 96),
            (Address::UNSPECIFIED, 0),
        ];
        let mut prefixes = BTreeMap::new();
        let mut inside: BTreeMap<IpNet, Vec<u32>> = BTreeMap::new();
        let all: BTreeSet<(Address, u8)> = zones
            .keys()
            .chain(regions.keys())
            .copied()
            .chain(everywhere)
            .collect();
        for prefix in all {
            let zone = around(prefix, |outer| zones.get(&outer).copied()).unwrap_or(0);
            let region = around(prefix, |outer| {
                regions.get(&outer).map(|(_, number)| *number)
            });
            prefixes.insert(prefix, (zone, region.unwrap_or(0)));
        }
        for (prefix, (_, number)) in &regions {
            each_around(*prefix, |outer| {
                if let Some((net, _)) = regions.get(&outer) {
                    inside.entry(*net).or_default().push(*number);
                }
            });
        }
        Self { prefixes, inside }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (((Address, u8), u16), u32)> {
        self.prefixes
            .iter()
            .map(|(prefix, (zone, region))| ((*prefix, *zone), *region))
    }

    /// The region of an address.
    pub(super) fn region(&self, address: Address) -> u32 {
        around((address, 128), |outer| self.prefixes.get(&outer)).map_or(0, |(_, region)| *region)
    }
}

/// The entry of the longest prefix around one, which may be the prefix itself.
pub(super) fn around<T>(
    prefix: (Address, u8),
    get: impl Fn((Address, u8)) -> Option<T>,
) -> Option<T> {
    let family = if prefix.0.is_v4() && prefix.1 >= 96 {
        96
    } else {
        0
    };
    (family..=prefix.1)
        .rev()
        .find_map(|length| get((cut(prefix.0, length), length)))
}

pub(super) fn each_around(prefix: (Address, u8), mut visit: impl FnMut((Address, u8))) {
    let family = if prefix.0.is_v4() && prefix.1 >= 96 {
        96
    } else {
        0
    };
    (family..=prefix.1).for_each(|length| visit((cut(prefix.0, length), length)));
}

/// The first bits of an address.
pub(super) fn cut(address: Address, length: u8) -> Address {
    let number = u128::from_be_bytes(address.octets());
    let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
    Address::v6(&(number & mask).to_be_bytes())
}

/// A prefix as the tables hold it.
pub(super) fn prefix_of(net: IpNet) -> (Address, u8) {
    match net {
        IpNet::V4(net) => (Address::v4(net.network().octets()), 96 + net.prefix_len()),
        IpNet::V6(net) => (Address::v6(&net.network().octets()), net.prefix_len()),
    }
}
