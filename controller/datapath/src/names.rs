//! Which addresses do names have? Reads them, forgets those that are long over, and puts back what was
//! known before a reboot.
//!
//! The kernel fills the tables as devices get their answers, and needs no daemon for it. It forgets an
//! address only when a name has too many; the daemon forgets it some time after its end, and not while a
//! flow to it is open: such a flow goes on, also when policy is asked about it again.

use std::collections::{BTreeMap, HashSet};

use aya::maps::MapError;
use wardline_ebpf::abi::{
    Address, KNOWN_FOR, NAMED_WAYS, Named, TICK_SHIFT, gauge, named_key, named_set,
};

use crate::{
    Reader,
    error::{Result, map_error},
    maps::remove_if_there,
};

/// Seconds after its end for which an address is kept.
const KEPT: u32 = 600;

/// A [`Resolved`](wardline_ebpf::abi::Resolved), read: selectors, then their ends.
pub(crate) type Places = [u32; 2 * KNOWN_FOR];

/// The selectors that an address is known for, and the tick at which each ends.
pub(crate) fn selectors(places: &Places) -> Vec<(u32, u32)> {
    let (selectors, ends) = places.split_at(KNOWN_FOR);
    let both = selectors.iter().copied().zip(ends.iter().copied());
    both.filter(|(selector, _)| *selector != 0).collect()
}

/// An address of a selector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// The number of the selector.
    pub selector: u32,
    /// The address, by whom it was told to whom, and until when it counts.
    pub named: Named,
}

impl Reader {
    /// The addresses of all names, in no order; also those that are over.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn known_names(&self) -> Result<Vec<Known>> {
        let map = self.owned::<u64, Named>("NAMED")?;
        let mut known = Vec::new();
        for entry in map.iter() {
            match entry {
                Ok((key, named)) => known.push(Known {
                    selector: (key >> 32) as u32,
                    named,
                }),
                // The entry was replaced while the table was read.
                Err(MapError::KeyNotFound) => {}
                Err(source) => return Err(map_error("NAMED")(source)),
            }
        }
        Ok(known)
    }

    /// Forgets addresses that are over for long, unless a flow to them is open. Has to be called now and
    /// then. An address that the kernel learns again in this very moment may be forgotten with its end of
    /// before; the device's next question brings it back.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn keep_names(&self) -> Result<()> {
        let (settings, now) = (self.settings()?, self.tick()?);
        let mut named = self.owned::<u64, Named>("NAMED")?;
        let kept = (KEPT * self.per_second) >> TICK_SHIFT;
        let is_over = |until: u32| now.wrapping_sub(until) as i32 > kept as i32;
        let entries: Vec<(u64, Named)> = named.iter().flatten().collect();
        let mut count = entries.len() as u32;
        let over: Vec<(u64, Address)> = entries
            .into_iter()
            .filter(|(_, it)| is_over(it.until))
            .map(|(key, it)| (key, it.address))
            .collect();
        let mut used = HashSet::new();
        if !over.is_empty() {
            let addresses: HashSet<Address> = over.iter().map(|(_, address)| *address).collect();
            self.flows(|flow| {
                if flow.is_live(&settings, now) {
                    let ends = [flow.key.low, flow.key.high];
                    used.extend(ends.into_iter().filter(|end| addresses.contains(end)));
                }
            })?;
        }
        let mut resolved = self.owned::<Address, Places>("RESOLVED")?;
        for (key, address) in over {
            let is_still = |read: std::result::Result<Named, MapError>| {
                read.is_ok_and(|it| it.address == address && is_over(it.until))
            };
            if used.contains(&address) || !is_still(named.get(&key, 0)) {
                continue;
            }
            remove_if_there(named.remove(&key)).map_err(map_error("NAMED"))?;
            count = count.saturating_sub(1);
            let Ok(places) = resolved.get(&address, 0) else {
                continue;
            };
            let (selectors, ends) = places.split_at(KNOWN_FOR);
            let mut both = selectors.iter().zip(ends);
            if both.all(|(selector, until)| *selector == 0 || is_over(*until)) {
                remove_if_there(resolved.remove(&address)).map_err(map_error("RESOLVED"))?;
            }
        }
        let mut gauges = self.owned_array::<u32>("GAUGES")?;
        gauges
            .set(gauge::NAMED, count, 0)
            .map_err(map_error("GAUGES"))
    }

    /// Puts back addresses that were known before a reboot. To be called before packets are judged.
    /// Those for which there is no room are left out.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn restore_names(&self, known: &[Known]) -> Result<()> {
        let most = self.settings()?.addresses_per_name;
        let mut named = self.owned::<u64, Named>("NAMED")?;
        let mut taken = HashSet::new();
        let mut places: BTreeMap<Address, Places> = BTreeMap::new();
        for Known {
            selector,
            named: it,
        } in known
        {
            let first = named_set(&it.address, most);
            let keys = (0..NAMED_WAYS).map(|way| named_key(*selector, first + way));
            let Some(key) = keys.into_iter().find(|key| !taken.contains(key)) else {
                continue;
            };
            let of = places.entry(it.address).or_insert([0; 2 * KNOWN_FOR]);
            let (selectors, ends) = of.split_at_mut(KNOWN_FOR);
            let Some(at) = selectors.iter().position(|there| *there == 0) else {
                continue;
            };
            (selectors[at], ends[at]) = (*selector, it.until);
            taken.insert(key);
            named.insert(key, *it, 0).map_err(map_error("NAMED"))?;
        }
        let mut resolved = self.owned::<Address, Places>("RESOLVED")?;
        for (address, places) in places {
            resolved
                .insert(address, places, 0)
                .map_err(map_error("RESOLVED"))?;
        }
        Ok(())
    }
}
