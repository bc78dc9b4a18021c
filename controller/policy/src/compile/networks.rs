//! Networks that zones and rules name: which zone and region an address is in.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;
use wardline_ebpf::abi::{Address, End};

use crate::{
    intent::{Intent, Rule, Selector, ZoneIndex},
    internet,
    numbers::{Ids, cidrs, number_of, numbered},
};

/// Set in the region of addresses that the selector `internet` means; above every number of a
/// `cidr:`.
const INTERNET: u32 = 1 << 25;

/// Stands for the zone of a prefix that several zones share; above every zone's number.
pub(super) const SHARED: u16 = u16::MAX;

/// Every prefix that zones and rules name, with the zone and region of an address in it.
pub(super) struct Networks {
    /// By prefix: zone or [`SHARED`], region. Two prefixes never overlap in part: they are disjoint, or one is
    /// inside the other.
    pub(super) prefixes: BTreeMap<(Address, u8), (u16, u32)>,
    /// The subnets of zones.
    subnets: BTreeSet<(Address, u8)>,
    /// As [`Tables::shares`](crate::tables::Tables::shares).
    pub(super) shares: BTreeMap<(u16, (Address, u8)), End>,
    /// Regions inside a `cidr:`, its own included.
    pub(super) inside: BTreeMap<IpNet, Vec<u32>>,
    /// Regions of the internet; none when no rule names it, or zones have all of it.
    pub(super) internet: BTreeSet<u32>,
}

impl Networks {
    pub(super) fn of(intent: &Intent, ids: &Ids, zone_of: &impl Fn(ZoneIndex) -> u16) -> Self {
        let mut zones: BTreeMap<(Address, u8), u16> = BTreeMap::new();
        let mut owners: BTreeMap<(Address, u8), BTreeSet<u16>> = BTreeMap::new();
        for (index, zone) in intent.zones.iter().enumerate() {
            for subnet in &zone.subnets {
                let (prefix, zone) = (prefix_of(*subnet), zone_of(ZoneIndex(index)));
                owners.entry(prefix).or_default().insert(zone);
                let shared = zones.insert(prefix, zone).is_some();
                if shared {
                    zones.insert(prefix, SHARED);
                }
            }
        }
        owners.retain(|_, owners| owners.len() > 1);
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
        let named: BTreeSet<(Address, u8)> = zones
            .keys()
            .chain(regions.keys())
            .copied()
            .chain(everywhere)
            .collect();
        let internet = Internet::of(intent);
        let mut prefixes = BTreeMap::new();
        // In the order of their lengths, so that what is around a prefix is there before it.
        let mut all: Vec<(Address, u8)> = named.union(&internet.splits).copied().collect();
        all.sort_unstable_by_key(|(_, length)| *length);
        for prefix in all {
            let zone = around(prefix, |outer| zones.get(&outer).copied()).unwrap_or(0);
            let region = around(prefix, |outer| {
                regions.get(&outer).map(|(_, number)| *number)
            });
            let mut region = region.unwrap_or(0);
            if internet.has(prefix) {
                region |= INTERNET;
            }
            // A prefix of the internet's own is left out where the one around it says the same.
            let said = |outer| prefixes.get(&outer).copied();
            if named.contains(&prefix) || around(prefix, said) != Some((zone, region)) {
                prefixes.insert(prefix, (zone, region));
            }
        }
        let internet: BTreeSet<u32> = prefixes
            .values()
            .map(|(_, region)| *region)
            .filter(|region| region & INTERNET != 0)
            .collect();
        let mut inside: BTreeMap<IpNet, Vec<u32>> = BTreeMap::new();
        for (prefix, (_, number)) in &regions {
            each_around(*prefix, |outer| {
                if let Some((net, _)) = regions.get(&outer) {
                    let inside = inside.entry(*net).or_default();
                    inside.push(*number);
                    inside.extend(internet.get(&(number | INTERNET)));
                }
            });
        }
        Self {
            prefixes,
            subnets: zones.into_keys().collect(),
            shares: shares(&owners),
            inside,
            internet,
        }
    }

    /// The zone and the region of each prefix, and of more prefixes that may lie anywhere.
    pub(super) fn with<'a>(
        &'a self,
        more: impl Iterator<Item = &'a (Address, u8)>,
    ) -> impl Iterator<Item = (((Address, u8), u16), u32)> {
        let own = self.prefixes.iter().map(|(prefix, said)| (*prefix, *said));
        let more = more.filter(|it| !self.prefixes.contains_key(it));
        let more = more.map(|prefix| {
            let said = around(*prefix, |outer| self.prefixes.get(&outer).copied());
            (*prefix, said.unwrap_or_default())
        });
        own.chain(more)
            .map(|(prefix, (zone, region))| ((prefix, zone), region))
    }

    /// Whether an address of a prefix is in a zone only because that one has all addresses.
    pub(super) fn is_elsewhere(&self, prefix: (Address, u8)) -> bool {
        let closest = around(prefix, |outer| {
            self.subnets.contains(&outer).then_some(outer.1)
        });
        closest.is_some_and(|length| length == 0 || length == 96 && prefix.0.is_v4())
    }

    /// The region of a device's address, which is never of the internet.
    pub(super) fn region(&self, address: Address) -> u32 {
        self.region_around(address) & !INTERNET
    }

    fn region_around(&self, address: Address) -> u32 {
        around((address, 128), |outer| self.prefixes.get(&outer)).map_or(0, |(_, region)| *region)
    }

    /// The address by which a NAT64 reaches a device or the router, and its region, where it would
    /// otherwise be of the internet.
    pub(super) fn translated(&self, address: IpAddr) -> Option<(Address, u32)> {
        let IpAddr::V4(address) = address else {
            return None;
        };
        let address = internet::translated(address.into()).addr().octets();
        let address = Address::v6(&address);
        let region = self.region_around(address);
        (region & INTERNET != 0).then_some((address, region & !INTERNET))
    }
}

/// Which zones share which prefixes; and which share a prefix around one, but not that one.
fn shares(owners: &BTreeMap<(Address, u8), BTreeSet<u16>>) -> BTreeMap<(u16, (Address, u8)), End> {
    let shared = End {
        flags: End::SHARED,
        ..End::default()
    };
    let mut shares = BTreeMap::new();
    for prefix in owners.keys() {
        // The prefix itself comes last.
        each_around(*prefix, |outer| {
            for zone in owners.get(&outer).into_iter().flatten() {
                let end = if outer == *prefix {
                    shared
                } else {
                    End::default()
                };
                shares.insert((*zone, *prefix), end);
            }
        });
    }
    shares
}

/// What the selector `internet` means, by prefix.
#[derive(Default)]
struct Internet {
    /// Whether the addresses of a prefix are globally reachable unicast.
    public: BTreeMap<(Address, u8), bool>,
    /// The subnets of zones, also as a NAT64 reaches them.
    owned: BTreeSet<(Address, u8)>,
    /// Every prefix at which the answer may change.
    splits: BTreeSet<(Address, u8)>,
}

impl Internet {
    /// Empty when no rule names the internet.
    fn of(intent: &Intent) -> Self {
        let rules = intent.rules.iter();
        let mut selectors = rules.flat_map(Rule::selectors);
        if !selectors.any(|selector| *selector == Selector::Internet) {
            return Self::default();
        }
        let public: BTreeMap<(Address, u8), bool> = internet::borders()
            .map(|(net, public)| (prefix_of(net), public))
            .collect();
        let subnets = intent.zones.iter().flat_map(|zone| &zone.subnets);
        let owned: BTreeSet<(Address, u8)> = subnets
            .flat_map(|subnet| {
                let translated = match subnet {
                    IpNet::V4(net) => Some(IpNet::V6(internet::translated(*net))),
                    IpNet::V6(_) => None,
                };
                [Some(*subnet), translated].into_iter().flatten()
            })
            .map(prefix_of)
            .collect();
        let splits = public.keys().chain(&owned).copied().collect();
        Self {
            public,
            owned,
            splits,
        }
    }

    /// Whether a prefix, without the splits inside it, is of the internet.
    fn has(&self, prefix: (Address, u8)) -> bool {
        let is_public = || around(prefix, |outer| self.public.get(&outer).copied());
        let is_owned = || around(prefix, |outer| self.owned.get(&outer)).is_some();
        !self.public.is_empty() && is_public() == Some(true) && !is_owned()
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
