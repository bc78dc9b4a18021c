//! Puts tables in force.
//!
//! Policy tables hold two revisions at once. [`Datapath::put`] makes the slot that is not in force
//! equal to the new tables with the fewest writes, then writes `ACTIVE` once, so every packet is
//! judged by one revision. The old slot is changed again only after a grace period, when no packet
//! can still be reading it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use aya::maps::{MapError, PerCpuArray, lpm_trie::Key};
use jiff::Timestamp;
use rustix::thread::{MembarrierCommand, membarrier};
use wardline_ebpf::abi::{
    Address, AddressKey, Counter, EPOCH_CELLS, End, INTERFACES, MAX_ZONES, Mac, NameText, Port,
    PrefixKey, Set, Watched,
};
use wardline_policy::{
    tables::{Amendment, Intervals, Tables},
    touched::{Touched, touched},
};

use crate::{
    Datapath,
    datapath::Slot,
    error::{DatapathError, Result, map_error},
    fault,
    maps::{array, clear_hash, get, hash, remove_if_there, retry, set, write},
    reader::Fill,
};

/// The map of the names of a slot.
fn names_of(slot: u32) -> &'static str {
    if slot == 0 { "NAMES" } else { "NAMES_OF_OTHER" }
}

/// Waits until all programs that run now have ended: then entries that they could see may be
/// changed.
pub(crate) fn grace() {
    // In the kernel this is synchronize_rcu, and programs at XDP and TC run inside one RCU read
    // section.
    if let Err(error) = membarrier(MembarrierCommand::Global) {
        tracing::warn!("membarrier: {error}; packets under way may mix two revisions");
    }
}

impl Datapath {
    /// Puts tables in force as one revision. Nothing changes when it fails. Returns how many
    /// entries it wrote or removed.
    ///
    /// # Errors
    ///
    /// When a table has no room, or the kernel refuses.
    pub fn put(&mut self, revision: u64, tables: &Tables) -> Result<usize> {
        let mut written = 0;
        let standby = self.active.map_or(0, |active| 1 - active);
        self.finish_change()?;
        self.fits(tables)?;
        let sets = self.allot(tables, &mut written)?;
        let epochs = self.epochs(tables);
        // The contents of this slot are unknown until all of it is written.
        let old = std::mem::take(&mut self.slots[standby]);
        let known = old.tables.is_some();
        if !known {
            self.clear(standby as u32)?;
        }
        let old_tables = old.tables.unwrap_or_default();
        let old_sets = if known { old.sets } else { BTreeMap::new() };
        written += self.write_slot(standby as u32, &old_tables, &old_sets, tables, &sets)?;
        for (cell, epoch) in (0..).zip(&epochs) {
            if old.epochs.get(cell as usize) != Some(epoch) {
                let index = standby as u32 * EPOCH_CELLS + cell;
                set(&mut self.ebpf, "EPOCHS", index, *epoch)?;
                written += 1;
            }
        }
        fault::point("filled");
        set(&mut self.ebpf, "REVISIONS", standby as u32, revision)?;
        self.new_generation(standby as u32)?;
        set(&mut self.ebpf, "ACTIVE", 0, standby as u32 + 1)?;
        self.slots[standby] = Slot {
            tables: Some(tables.clone()),
            sets,
            epochs,
        };
        self.active = Some(standby);
        self.settling = true;
        Ok(written + 2)
    }

    /// Sets a rule's counters to zero, because another rule had its number before.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn reset_rule(&mut self, number: u32) -> Result<()> {
        let map = self
            .ebpf
            .map_mut("RULES")
            .ok_or(DatapathError::Missing("RULES"))?;
        let mut map: PerCpuArray<_, Counter> = map.try_into().map_err(map_error("RULES"))?;
        let zero = map.get(&number, 0).map_err(map_error("RULES"))?;
        let zero = vec![Counter::default(); zero.len()];
        let zero =
            aya::maps::PerCpuValues::try_from(zero).map_err(|source| DatapathError::Map {
                name: "RULES",
                source: source.into(),
            })?;
        map.set(number, zero, 0).map_err(map_error("RULES"))
    }

    /// The epochs for new tables: one more than now for devices whose flows the change affects.
    pub(crate) fn epochs(&self, tables: &Tables) -> Vec<u32> {
        let active = self.active.map(|active| &self.slots[active]);
        let Some(Slot {
            tables: Some(old),
            epochs,
            ..
        }) = active
        else {
            // An earlier daemon's tables admitted the flows that exist, and this daemon does not
            // know those tables. So every epoch changes.
            let now = Timestamp::now().as_millisecond() as u32;
            return vec![now; EPOCH_CELLS as usize];
        };
        let mut epochs = epochs.clone();
        match touched(old, tables) {
            Touched::All => epochs
                .iter_mut()
                .for_each(|epoch| *epoch = epoch.wrapping_add(1)),
            Touched::Devices(devices) => {
                let cells: BTreeSet<u32> = devices.iter().map(|it| it % EPOCH_CELLS).collect();
                for cell in cells {
                    let epoch = &mut epochs[cell as usize];
                    *epoch = epoch.wrapping_add(1);
                }
            }
        }
        epochs
    }

    /// Changes entries in place, in the slot that is in force, for changes that can't wait until the
    /// other slot is filled. A packet sees each entry either before or after the change. Flows of
    /// the device, if it is one's entries, are judged again.
    ///
    /// # Errors
    ///
    /// When the kernel refuses; some entries may have been changed then.
    pub fn amend(
        &mut self,
        revision: u64,
        device: Option<u32>,
        amendment: &Amendment,
    ) -> Result<()> {
        let Some(active) = self.active else {
            return Ok(());
        };
        // The contents of this slot are unknown until all entries are written.
        let known = self.slots[active].tables.take();
        let slot = active as u32;
        let (top, ebpf) = (u64::from(slot) << 63, &mut self.ebpf);
        hash(ebpf, "MACS", &BTreeMap::new(), &amendment.macs, |key| {
            top | key
        })?;
        fault::refuse("amend").map_err(|source| map_error("DEVICES")(MapError::IoError(source)))?;
        hash(
            ebpf,
            "DEVICES",
            &BTreeMap::new(),
            &amendment.devices,
            |it| it << 1 | slot,
        )?;
        let key = |address: &Address| AddressKey {
            address: *address,
            slot: u64::from(slot),
        };
        hash(
            ebpf,
            "ADDRESSES",
            &BTreeMap::new(),
            &amendment.addresses,
            key,
        )?;
        for (index, port) in &amendment.ports {
            set(ebpf, "PORTS", Port::index(*index, slot), *port)?;
        }
        self.slots[active].tables = known.map(|mut tables| {
            tables.ports.extend(&amendment.ports);
            tables.macs.extend(&amendment.macs);
            tables.devices.extend(&amendment.devices);
            tables.addresses.extend(&amendment.addresses);
            tables
        });
        set(&mut self.ebpf, "REVISIONS", slot, revision)?;
        self.new_generation(slot)?;
        match device {
            Some(device) => {
                self.amended.insert(device);
                self.judge_anew(device)
            }
            None => Ok(()),
        }
    }

    /// Invalidates the kept denials of a slot, so that policy is asked again.
    pub(crate) fn new_generation(&mut self, slot: u32) -> Result<()> {
        let [one, other] = [0, 1].map(|slot| get::<u64>(&self.ebpf, "GENERATIONS", slot));
        let next = one?.max(other?) + 1;
        set(&mut self.ebpf, "GENERATIONS", slot, next)
    }

    /// Makes flows of a device be judged again, in the slot that is in force.
    pub(crate) fn judge_anew(&mut self, device: u32) -> Result<()> {
        let Some(active) = self.active else {
            return Ok(());
        };
        let cell = device % EPOCH_CELLS;
        let index = active as u32 * EPOCH_CELLS + cell;
        let epoch = get::<u32>(&self.ebpf, "EPOCHS", index)?.wrapping_add(1);
        set(&mut self.ebpf, "EPOCHS", index, epoch)?;
        if let Some(known) = self.slots[active].epochs.get_mut(cell as usize) {
            *known = epoch;
        }
        Ok(())
    }

    /// Waits out the grace period of the last change, during which a packet may still read what was
    /// in force before, so that the next change need not wait.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn finish_change(&mut self) -> Result<()> {
        if self.settling || !self.amended.is_empty() {
            grace();
            self.settling = false;
        }
        // A packet that read an entry before it was amended may have renewed its flow afterwards.
        while let Some(device) = self.amended.first().copied() {
            self.judge_anew(device)?;
            self.amended.remove(&device);
        }
        Ok(())
    }

    /// Removes every entry of a slot.
    pub(crate) fn clear(&mut self, slot: u32) -> Result<()> {
        let of_slot = |key: u64| key >> 63 == u64::from(slot);
        clear_hash::<u64, u32>(&mut self.ebpf, "PLACES", |key| of_slot(*key))?;
        clear_hash::<u64, Mac>(&mut self.ebpf, "MACS", |key| of_slot(*key))?;
        clear_hash::<u64, Set>(&mut self.ebpf, "PAIRS", |key| of_slot(*key))?;
        clear_hash::<u32, End>(&mut self.ebpf, "DEVICES", |key| key & 1 == slot)?;
        let of_slot = |key: &AddressKey| key.slot == u64::from(slot);
        clear_hash::<AddressKey, End>(&mut self.ebpf, "ADDRESSES", of_slot)?;
        clear_hash::<AddressKey, u32>(&mut self.ebpf, "RESOLVERS", of_slot)?;
        clear_hash::<NameText, Watched>(&mut self.ebpf, names_of(slot), |_| true)?;
        let map = self
            .ebpf
            .map_mut("PREFIXES")
            .ok_or(DatapathError::Missing("PREFIXES"))?;
        let mut map: aya::maps::LpmTrie<_, PrefixKey, End> =
            map.try_into().map_err(map_error("PREFIXES"))?;
        let keys: Vec<Key<PrefixKey>> = map
            .keys()
            .flatten()
            .filter(|key| { key.data() }.slot == slot.to_be_bytes())
            .collect();
        for key in keys {
            remove_if_there(map.remove(&key)).map_err(map_error("PREFIXES"))?;
        }
        for index in 0..INTERFACES {
            set(
                &mut self.ebpf,
                "PORTS",
                Port::index(index, slot),
                Port::default(),
            )?;
        }
        for zone in 0..MAX_ZONES {
            set(&mut self.ebpf, "ZONES", slot * MAX_ZONES + zone, 0u32)?;
        }
        Ok(())
    }

    /// Finds a place for every set of intervals; sets of the slot in force stay where they are.
    pub(crate) fn allot(
        &mut self,
        tables: &Tables,
        written: &mut usize,
    ) -> Result<BTreeMap<(u32, u32), Set>> {
        // Another interface changes no pair.
        if let Some(Slot {
            tables: Some(old),
            sets,
            ..
        }) = self.active.map(|active| &self.slots[active])
            && Arc::ptr_eq(&old.pairs, &tables.pairs)
        {
            return Ok(sets.clone());
        }
        let mut known: HashMap<Intervals, Set> = HashMap::new();
        let mut taken: BTreeMap<u32, u32> = BTreeMap::new();
        if let Some(active) = self.active {
            let slot = &self.slots[active];
            for (pair, set) in &slot.sets {
                let tables = slot.tables.as_ref();
                if let Some(intervals) = tables.and_then(|tables| tables.pairs.get(pair)) {
                    known.insert(intervals.clone(), *set);
                }
                taken.insert(set.first, set.count);
            }
        }
        let (mut next, end) = (0, self.reader.size("INTERVALS") as u32);
        let mut gaps = taken.into_iter().peekable();
        let mut sets = BTreeMap::new();
        let (mut places, mut fresh) = (Vec::new(), Vec::new());
        for (pair, intervals) in tables.pairs.iter() {
            let set = match known.get(intervals) {
                Some(set) => *set,
                None => {
                    let count = intervals.len() as u32;
                    while let Some((first, length)) = gaps.peek()
                        && *first < next + count
                    {
                        next = next.max(first + length);
                        gaps.next();
                    }
                    if next + count > end {
                        let wanted = (next + count) as usize;
                        let max = end as usize;
                        return Err(DatapathError::Full {
                            name: "intervals",
                            wanted,
                            max,
                        });
                    }
                    let set = Set { first: next, count };
                    places.extend(next..next + count);
                    fresh.extend(intervals.iter().copied());
                    next += count;
                    known.insert(intervals.clone(), set);
                    set
                }
            };
            sets.insert(*pair, set);
        }
        write(
            &mut self.ebpf,
            "INTERVALS",
            &places,
            &fresh,
            |ebpf, index, interval| set(ebpf, "INTERVALS", index, interval),
        )?;
        *written += fresh.len();
        Ok(sets)
    }

    pub(crate) fn fits(&self, tables: &Tables) -> Result<()> {
        for Fill { name, used, max } in self.reader.needs(tables) {
            if used > max {
                let (wanted, max) = (used as usize, max as usize);
                return Err(DatapathError::Full { name, wanted, max });
            }
        }
        Ok(())
    }

    /// Makes a slot that is not in force hold these tables.
    pub(crate) fn write_slot(
        &mut self,
        slot: u32,
        old: &Tables,
        old_sets: &BTreeMap<(u32, u32), Set>,
        tables: &Tables,
        sets: &BTreeMap<(u32, u32), Set>,
    ) -> Result<usize> {
        let mut written = 0;
        let top = u64::from(slot) << 63;
        let ebpf = &mut self.ebpf;
        written += array(ebpf, "PORTS", &old.ports, &tables.ports, |index| {
            Port::index(index, slot)
        })?;
        written += array(ebpf, "ZONES", &old.zones, &tables.zones, |zone| {
            slot * MAX_ZONES + zone
        })?;
        written += hash(ebpf, "PLACES", &old.places, &tables.places, |key| top | key)?;
        written += hash(ebpf, "MACS", &old.macs, &tables.macs, |key| top | key)?;
        written += hash(ebpf, "DEVICES", &old.devices, &tables.devices, |device| {
            device << 1 | slot
        })?;
        let key = |address: &Address| AddressKey {
            address: *address,
            slot: u64::from(slot),
        };
        written += hash(ebpf, "ADDRESSES", &old.addresses, &tables.addresses, key)?;
        written += hash(ebpf, names_of(slot), &old.names, &tables.names, |name| {
            *name
        })?;
        written += hash(ebpf, "RESOLVERS", &old.resolvers, &tables.resolvers, key)?;
        fault::point("half-filled");
        written += hash(ebpf, "PAIRS", old_sets, sets, |(from, to)| {
            top | u64::from(*from) << 32 | u64::from(*to)
        })?;
        let map = ebpf
            .map_mut("PREFIXES")
            .ok_or(DatapathError::Missing("PREFIXES"))?;
        let mut map: aya::maps::LpmTrie<_, PrefixKey, End> =
            map.try_into().map_err(map_error("PREFIXES"))?;
        let key = |zone: u16, (address, length): &(Address, u8)| {
            let data = PrefixKey::new(slot, zone, address);
            Key::new(32 + u32::from(*length), data)
        };
        let all = |tables: &Tables| {
            let prefixes = tables.prefixes.iter();
            let prefixes = prefixes.map(|(prefix, end)| ((0, *prefix), *end));
            let shares = tables.shares.iter().map(|(of, end)| (*of, *end));
            prefixes.chain(shares).collect::<BTreeMap<_, _>>()
        };
        let (old, new) = (all(old), all(tables));
        for (zone, prefix) in old.keys().filter(|it| !new.contains_key(it)) {
            remove_if_there(map.remove(&key(*zone, prefix))).map_err(map_error("PREFIXES"))?;
            written += 1;
        }
        for (of, end) in new.iter().filter(|(of, end)| old.get(of) != Some(end)) {
            retry(|| map.insert(&key(of.0, &of.1), end, 0)).map_err(map_error("PREFIXES"))?;
            written += 1;
        }
        Ok(written)
    }
}
