//! Which addresses have been learned? Reads them, and keeps what the kernel knows of them true.
//!
//! The kernel sees an address only when policy or a guard judges a packet, so a flow that runs for an
//! hour could look like silence. And counts that the kernel keeps can go wrong by one when two
//! processors meet.

use std::{
    cell::RefCell,
    collections::{BTreeSet, HashMap, HashSet},
    net::IpAddr,
};

use aya::{
    Pod,
    maps::{Array, MapData, MapError},
};
use wardline_ebpf::{
    abi::{
        Address, Named, TICK_SHIFT, gauge, held_by, held_key, holder, holding_device, learned_index,
    },
    learning::PLACES,
};
use wardline_policy::explain::Learned;

use crate::{
    Reader,
    error::{DatapathError, Result, map_error},
    maps::{duplicate, remove_if_there},
    names::{Places, selectors},
};

/// The call `bpf_map_update_elem` changes only an entry that exists.
const EXISTS: u64 = 2;

type BpfHashMap<K, V> = aya::maps::HashMap<MapData, K, V>;

/// How long what the daemon has kept true is relied on, in seconds. It has to be longer than the time
/// between two calls of [`Reader::keep_learned`], and shorter than any address may be idle.
const RELIED_ON: u32 = 100;

/// A [`Learned`](wardline_ebpf::abi::Learned), read.
#[derive(Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) holder: u64,
    pub(crate) last: u32,
    interface: u32,
    /// The zone, and whether a DHCP server has given it.
    rest: u64,
}

/// An address that an unlisted MAC has learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stranger {
    /// The MAC.
    pub mac: u64,
    /// The address.
    pub address: IpAddr,
    /// The number of the interface where it was learned.
    pub interface: u32,
    /// The number of the zone.
    pub zone: u32,
    /// The tick of its last use.
    pub last: u32,
}

/// An entry as its words.
type Words = [u64; 3];

impl From<Words> for Entry {
    fn from([holder, times, rest]: Words) -> Self {
        let [a, b, c, d, e, f, g, h] = times.to_ne_bytes();
        Self {
            holder,
            last: u32::from_ne_bytes([a, b, c, d]),
            interface: u32::from_ne_bytes([e, f, g, h]),
            rest,
        }
    }
}

impl From<Entry> for Words {
    fn from(entry: Entry) -> Self {
        let [[a, b, c, d], [e, f, g, h]] = [entry.last, entry.interface].map(u32::to_ne_bytes);
        let times = u64::from_ne_bytes([a, b, c, d, e, f, g, h]);
        [entry.holder, times, entry.rest]
    }
}

/// Learned addresses as they are now: each question reads only what it asks for.
pub struct LearnedNow {
    table: BpfHashMap<Address, Words>,
    places: BpfHashMap<u64, Address>,
    /// Tick and interface where each device was last seen.
    seen: Array<MapData, [u32; 2]>,
    per_device: u32,
    resolved: BpfHashMap<Address, Places>,
    named: BpfHashMap<u64, Named>,
    failed: RefCell<Option<DatapathError>>,
}

impl LearnedNow {
    /// Tells whether every answer was complete.
    ///
    /// # Errors
    ///
    /// The first that the kernel gave.
    pub fn whole(self) -> Result<()> {
        self.failed.into_inner().map_or(Ok(()), Err)
    }

    /// What a map has under a key; none also when the kernel refuses, which is noted.
    fn get<K: Pod, V: Pod>(
        &self,
        name: &'static str,
        map: &BpfHashMap<K, V>,
        key: &K,
    ) -> Option<V> {
        self.noted(name, map.get(key, 0))
    }

    /// What was read; none also when the kernel has refused, which is noted.
    fn noted<V>(&self, name: &'static str, read: std::result::Result<V, MapError>) -> Option<V> {
        match read {
            Ok(value) => Some(value),
            Err(MapError::KeyNotFound) => None,
            Err(source) => {
                let mut failed = self.failed.borrow_mut();
                failed.get_or_insert(map_error(name)(source));
                None
            }
        }
    }
}

impl Learned for LearnedNow {
    fn device(&self, address: Address) -> Option<u32> {
        let words = self.get("LEARNED", &self.table, &address)?;
        let device = holding_device(Entry::from(words).holder);
        (device != 0).then_some(device)
    }

    fn addresses(&self, device: u32) -> Vec<IpAddr> {
        let keys = [true, false].into_iter().flat_map(|v4| {
            (0..self.per_device).map(move |place| held_key(holder(device, 0), v4, place))
        });
        let held = keys.filter_map(|key| self.get("HELD", &self.places, &key));
        let own = held.filter(|address| self.device(*address) == Some(device));
        own.map(IpAddr::from).collect()
    }

    fn seen(&self, device: u32) -> Option<u32> {
        let [_, interface] = self.noted("SEEN", self.seen.get(&device, 0))?;
        (interface != 0).then_some(interface)
    }

    fn learned_at(&self, address: Address) -> Option<u32> {
        let words = self.get("LEARNED", &self.table, &address)?;
        Some(Entry::from(words).interface)
    }

    fn names(&self, address: Address) -> Vec<(u32, u32)> {
        let places = self.get("RESOLVED", &self.resolved, &address);
        places.map(|it| selectors(&it)).unwrap_or_default()
    }

    fn named(&self, selector: u32) -> Vec<(IpAddr, u32)> {
        let entries = self.named.iter();
        let entries = entries.filter_map(|entry| self.noted("NAMED", entry));
        let own = entries.filter(|(key, _)| (key >> 32) as u32 == selector);
        own.map(|(_, it)| (it.address.into(), it.until)).collect()
    }
}

impl Reader {
    /// Learned addresses: the address, the device's number (0: an unlisted MAC), the tick of its last
    /// use.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn learned(&self) -> Result<Vec<(Address, u32, u32)>> {
        let map = self.owned::<Address, Words>("LEARNED")?;
        let mut learned = Vec::new();
        for entry in map.iter() {
            match entry {
                Ok((address, words)) => {
                    let Entry { holder, last, .. } = words.into();
                    learned.push((address, holding_device(holder), last));
                }
                // The entry was removed while the table was read.
                Err(MapError::KeyNotFound) => {}
                Err(source) => {
                    return Err(DatapathError::Map {
                        name: "LEARNED",
                        source,
                    });
                }
            }
        }
        Ok(learned)
    }

    /// The addresses that unlisted MACs have learned.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn learned_by_strangers(&self) -> Result<Vec<Stranger>> {
        let map = self.owned::<Address, Words>("LEARNED")?;
        let mut strangers = Vec::new();
        for entry in map.iter() {
            match entry {
                Ok((address, words)) => {
                    let Entry {
                        holder,
                        last,
                        interface,
                        rest,
                    } = words.into();
                    if holding_device(holder) == 0 {
                        let [a, b, c, d, ..] = rest.to_ne_bytes();
                        strangers.push(Stranger {
                            mac: holder,
                            address: IpAddr::from(address.without_link()),
                            interface,
                            zone: u32::from_ne_bytes([a, b, c, d]),
                            last,
                        });
                    }
                }
                // The entry was removed while the table was read.
                Err(MapError::KeyNotFound) => {}
                Err(source) => {
                    return Err(DatapathError::Map {
                        name: "LEARNED",
                        source,
                    });
                }
            }
        }
        Ok(strangers)
    }

    /// Learned addresses, to ask for some.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn learned_now(&self) -> Result<LearnedNow> {
        Ok(LearnedNow {
            table: self.owned("LEARNED")?,
            places: self.owned("HELD")?,
            seen: self.owned_array("SEEN")?,
            per_device: self.settings()?.learned_per_device.min(PLACES),
            resolved: self.owned("RESOLVED")?,
            named: self.owned("NAMED")?,
            failed: RefCell::default(),
        })
    }

    /// The device that has learned an address; a link-local one comes with its link.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn holder(&self, address: Address) -> Result<Option<u32>> {
        match self.owned::<Address, Words>("LEARNED")?.get(&address, 0) {
            Ok(words) => {
                let device = holding_device(Entry::from(words).holder);
                Ok((device != 0).then_some(device))
            }
            Err(MapError::KeyNotFound) => Ok(None),
            Err(source) => Err(map_error("LEARNED")(source)),
        }
    }

    /// Keeps addresses of live flows recent, forgets those that are idle for long, and corrects the
    /// counts; `ports` are the guarded interfaces. Has to be called every thirty seconds.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn keep_learned(&self, ports: impl IntoIterator<Item = u32>) -> Result<()> {
        let settings = self.settings()?;
        // In this order an address in a place that nobody has learned is an old one.
        let mut places = self.owned::<u64, Address>("HELD")?;
        let held: Vec<(u64, Address)> = places.iter().flatten().collect();
        let mut table = self.owned::<Address, Words>("LEARNED")?;
        let entries = table.iter().flatten();
        let mut learned: HashMap<Address, Entry> = entries
            .map(|(address, words)| (address, words.into()))
            .collect();
        let now = self.tick()?;
        let mut used = HashSet::new();
        if !learned.is_empty() {
            self.flows(|flow| {
                if flow.is_live(&settings, now) {
                    let ends = [flow.key.low, flow.key.high];
                    used.extend(ends.into_iter().filter(|end| learned.contains_key(end)));
                }
            })?;
        }
        for address in used {
            if let Some(entry) = learned.get_mut(&address) {
                entry.last = now;
                // The kernel may have forgotten it meanwhile.
                remove_if_there(table.insert(address, Words::from(*entry), EXISTS))
                    .map_err(map_error("LEARNED"))?;
            }
        }
        let is_idle = |last: u32| now.wrapping_sub(last) as i32 > settings.learned as i32;
        for (address, _) in learned.extract_if(|_, entry| is_idle(entry.last)) {
            remove_if_there(table.remove(&address)).map_err(map_error("LEARNED"))?;
        }
        for (key, address) in held {
            let holder = learned.get(&address).map(|entry| entry.holder);
            if holder != Some(held_by(key)) {
                remove_if_there(places.remove(&key)).map_err(map_error("HELD"))?;
            }
        }
        self.count_learned(&learned, ports)?;
        let mut gauges = self.owned_array("GAUGES")?;
        let until = now.wrapping_add((RELIED_ON * self.per_second) >> TICK_SHIFT);
        for (cell, value) in [
            (gauge::LEARNED, learned.len() as u32),
            (gauge::LEARNED_KEPT, until),
        ] {
            gauges.set(cell, value, 0).map_err(map_error("GAUGES"))?;
        }
        Ok(())
    }

    /// Forgets every address that was learned at interfaces with these numbers, or on a link with one
    /// of them.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub(crate) fn forget_learned_at(&self, numbers: &BTreeSet<u32>) -> Result<()> {
        let mut table = self.owned::<Address, Words>("LEARNED")?;
        let is_there = |address: Address, words: Words| {
            let link = address.link().is_some_and(|link| numbers.contains(&link));
            link || numbers.contains(&Entry::from(words).interface)
        };
        let entries = table.iter().flatten();
        let gone: HashSet<Address> = entries
            .filter(|(address, words)| is_there(*address, *words))
            .map(|(address, _)| address)
            .collect();
        for address in &gone {
            remove_if_there(table.remove(address)).map_err(map_error("LEARNED"))?;
        }
        let mut places = self.owned::<u64, Address>("HELD")?;
        let held: Vec<u64> = places
            .iter()
            .flatten()
            .filter(|(_, address)| gone.contains(address))
            .map(|(key, _)| key)
            .collect();
        for key in held {
            remove_if_there(places.remove(&key)).map_err(map_error("HELD"))?;
        }
        self.count_learned(&HashMap::new(), numbers.iter().copied())
    }

    /// Where learned addresses are counted, by [`learned_index`].
    pub(crate) fn counted_learned(&self) -> Result<HashSet<u32>> {
        let table = self.owned::<Address, Words>("LEARNED")?;
        let entries = table.iter().flatten();
        let indexes = entries
            .map(|(address, words)| learned_index(Entry::from(words).interface, address.is_v4()));
        Ok(indexes.collect())
    }

    /// Corrects the count of each port.
    fn count_learned(
        &self,
        learned: &HashMap<Address, Entry>,
        ports: impl IntoIterator<Item = u32>,
    ) -> Result<()> {
        let mut counts: HashMap<u32, u32> = HashMap::new();
        for (address, entry) in learned {
            let index = learned_index(entry.interface, address.is_v4());
            *counts.entry(index).or_default() += 1;
        }
        let mut cells = self.owned_array("LEARNED_AT")?;
        for index in ports
            .into_iter()
            .flat_map(|port| [true, false].map(|v4| learned_index(port, v4)))
        {
            let count = counts.get(&index).copied().unwrap_or(0);
            if cells.get(&index, 0).map_err(map_error("LEARNED_AT"))? != count {
                cells
                    .set(index, count, 0)
                    .map_err(map_error("LEARNED_AT"))?;
            }
        }
        Ok(())
    }

    /// A hash, to write to.
    pub(crate) fn owned<K: Pod, V: Pod>(&self, name: &'static str) -> Result<BpfHashMap<K, V>> {
        let map = duplicate(name, self.map(name)?)?;
        map.try_into().map_err(map_error(name))
    }

    /// An array, to write to.
    pub(crate) fn owned_array<V: Pod>(&self, name: &'static str) -> Result<Array<MapData, V>> {
        let map = duplicate(name, self.map(name)?)?;
        map.try_into().map_err(map_error(name))
    }
}
