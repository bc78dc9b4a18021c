//! Finds the flows that a change of the tables affects: the devices whose epochs grow. Pure.
//!
//! A flow is judged again when the epoch of either of its ends has grown. So one end is enough: for
//! a changed pair of names, the devices of the narrower name.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use wardline_ebpf::abi::{End, KEPT, ROUTER, kind, zone};

use crate::tables::Tables;

/// The devices whose flows must be judged again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Touched {
    /// All devices and addresses.
    All,
    /// These devices, by number; 0 stands for every address without a device.
    Devices(BTreeSet<u32>),
}

/// The devices whose flows the new tables may judge differently from the old ones.
pub fn touched(old: &Tables, new: &Tables) -> Touched {
    // These tables affect whole zones and change seldom. The entry for zone 0 is no zone; it holds
    // the pairs that exist with `any`.
    let zones = changed_keys(&old.zones, &new.zones);
    if old.ports != new.ports
        || old.places != new.places
        || zones.into_iter().any(|zone| zone != 0)
        || old.prefixes != new.prefixes
        || old.shares != new.shares
    {
        return Touched::All;
    }
    let listed_only = |(number, it): (&u32, &u32)| *number == 0 || it & zone::ADMIT_ANY == 0;
    let unlisted = !new.zones.iter().all(listed_only);
    let mut devices = BTreeSet::new();
    // Set when flows of unlisted addresses or MACs are affected: one becomes listed or unlisted, or
    // the zone of a changed pair may have some.
    let mut strangers = false;
    // Which families such an address is of: a device may have learned it.
    let mut families = 0;
    for (address, was, is) in changes(&old.addresses, &new.addresses) {
        devices.extend([was, is].into_iter().flatten().map(|end| end.device));
        if was.is_none() || is.is_none() {
            strangers = true;
            families |= End::learns(address);
        }
    }
    for (_, was, is) in changes(&old.macs, &new.macs) {
        // No flow of the router's depends on the MACs of its interfaces.
        let owners = [was, is].into_iter().flatten().map(|mac| mac.device);
        devices.extend(owners.filter(|device| *device != ROUTER));
        strangers |= unlisted && (was.is_none() || is.is_none());
    }
    devices.extend(changed_keys(&old.devices, &new.devices));
    let mut names = HashSet::new();
    for (from, to) in changed_keys(&old.pairs, &new.pairs) {
        let of = |wanted| {
            [from & !KEPT, to]
                .into_iter()
                .find(|name| name >> 28 == wanted)
        };
        if let Some(name) = of(kind::CLASS) {
            names.insert(name);
        } else if let Some(name) = of(kind::ZONE) {
            names.insert(name);
            strangers = true;
        } else {
            return Touched::All;
        }
    }
    if !names.is_empty() {
        let ends = [old, new].map(|it| it.addresses.values().chain(it.devices.values()));
        let has_one = |end: &&End| {
            names.contains(&end.name(kind::CLASS)) || names.contains(&end.name(kind::ZONE))
        };
        let ends = ends.into_iter().flatten().filter(has_one);
        devices.extend(ends.map(|end| end.device));
    }
    if strangers {
        if unlisted {
            return Touched::All;
        }
        devices.insert(0);
        let learners = old.devices.iter().chain(&new.devices);
        let learners = learners.filter(|(_, end)| end.flags & families != 0);
        devices.extend(learners.map(|(number, _)| *number));
    }
    Touched::Devices(devices)
}

/// Each key at which the maps differ, with the old and the new value.
fn changes<'a, K: Ord, V: PartialEq>(
    old: &'a BTreeMap<K, V>,
    new: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = (&'a K, Option<&'a V>, Option<&'a V>)> {
    let gone_or_other = old
        .iter()
        .map(|(key, was)| (key, Some(was), new.get(key)))
        .filter(|(_, was, is)| was != is);
    let added = new
        .iter()
        .filter(|(key, _)| !old.contains_key(key))
        .map(|(key, is)| (key, None, Some(is)));
    gone_or_other.chain(added)
}

fn changed_keys<K: Ord + Copy, V: PartialEq>(old: &BTreeMap<K, V>, new: &BTreeMap<K, V>) -> Vec<K> {
    let gone_or_other = old.iter().filter(|(key, was)| new.get(key) != Some(was));
    let added = new.iter().filter(|(key, _)| !old.contains_key(key));
    gone_or_other.chain(added).map(|(key, _)| *key).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use wardline_ebpf::abi::{Address, Interval, Mac, name};

    use super::*;

    const ANY: u32 = 1;

    fn end(device: u32, class: u32, zone: u16) -> End {
        End {
            device,
            class,
            zone,
            ..End::default()
        }
    }

    fn address(last: u8) -> Address {
        Address::v4([10, 0, 0, last])
    }

    /// Two devices of zone 1, one of zone 2.
    fn tables() -> Tables {
        let ends = [end(2, 2, 1), end(3, 3, 1), end(4, 0, 2)];
        Tables {
            addresses: (2..).map(address).zip(ends).collect(),
            zones: [(1, zone::EXISTS), (2, zone::EXISTS)].into(),
            ..Tables::default()
        }
    }

    fn only(devices: &[u32]) -> Touched {
        Touched::Devices(devices.iter().copied().collect())
    }

    #[test]
    fn equal_tables_touch_nobody() {
        assert_eq!(touched(&tables(), &tables()), only(&[]));
    }

    #[test]
    fn a_device_that_changes_touches_itself() {
        let mut new = tables();
        new.addresses.insert(address(3), end(3, 0, 1));
        assert_eq!(touched(&tables(), &new), only(&[3]));
        let mut new = tables();
        let mac = Mac {
            device: 4,
            zone: 2,
            ..Mac::default()
        };
        new.macs.insert(7, mac);
        assert_eq!(touched(&tables(), &new), only(&[4]));
    }

    #[test]
    fn an_interface_that_appears_touches_only_who_may_have_had_its_mac() {
        let own = |zones: &[(u32, u32)]| {
            let (old, mut new) = (tables(), tables());
            let zones: BTreeMap<u32, u32> = zones.iter().copied().collect();
            let mac = Mac {
                device: ROUTER,
                ..Mac::default()
            };
            new.macs.insert(7, mac);
            let [old, new] = [old, new].map(|it| Tables {
                zones: zones.clone(),
                ..it
            });
            touched(&old, &new)
        };
        assert_eq!(own(&[(1, zone::EXISTS)]), only(&[]));
        assert_eq!(own(&[(1, zone::EXISTS | zone::ADMIT_ANY)]), Touched::All);
    }

    #[test]
    fn an_address_that_is_listed_only_now_was_a_strangers() {
        let mut new = tables();
        new.addresses.insert(address(9), end(9, 0, 1));
        assert_eq!(touched(&tables(), &new), only(&[0, 9]));
        assert_eq!(touched(&new, &tables()), only(&[0, 9]));
        new.zones.insert(2, zone::EXISTS | zone::ADMIT_ANY);
        let old = Tables {
            zones: new.zones.clone(),
            ..tables()
        };
        assert_eq!(touched(&old, &new), Touched::All);
    }

    #[test]
    fn a_pair_touches_the_devices_of_its_narrower_name() {
        let with = |from, to| {
            let mut tables = tables();
            let pairs = Arc::make_mut(&mut tables.pairs);
            pairs.insert((from, to), vec![Interval::default()].into());
            tables
        };
        let (class, zone) = (name(kind::CLASS, 3), name(kind::ZONE, 1));
        let (any, region) = (name(kind::ANY, ANY), name(kind::REGION, 5));
        let is = |from, to| touched(&tables(), &with(from, to));
        assert_eq!(is(class, any), only(&[3]));
        assert_eq!(is(zone, class), only(&[3]));
        assert_eq!(is(region, zone), only(&[0, 2, 3]));
        assert_eq!(is(any, region), Touched::All);
        assert_eq!(touched(&with(any, class), &tables()), only(&[3]));
    }

    #[test]
    fn what_reaches_whole_zones_touches_all() {
        let mut new = tables();
        new.zones.insert(1, zone::EXISTS | zone::OBSERVE);
        assert_eq!(touched(&tables(), &new), Touched::All);
    }
}
