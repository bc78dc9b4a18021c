//! Takes over everything but flows: learned addresses, counters, and what is remembered for a moment.

use std::{mem::offset_of, os::fd::AsFd as _};

use wardline_ebpf::abi::{Address, Carried, Learned, TICK_SHIFT, held_by, held_key};

use crate::{
    Datapath, bpf,
    error::{DatapathError, Result},
    far,
    layout::{Conversion, Layout, Structure},
    maps::data,
    other::{Other, Table, failed},
};

/// What the keys of a hash are.
enum Key {
    Structure(&'static str),
    /// A number of so many bytes.
    Number(usize),
}

/// Hashes whose entries are copied: name, keys, structure of the values.
const HASHES: [(&str, Key, &str); 6] = [
    ("FRAGMENTS", Key::Structure("FragmentKey"), "Fragment"),
    ("UNLISTED_CLIENTS", Key::Number(8), "Clients"),
    ("ASKINGS", Key::Number(4), "Askings"),
    ("UNLISTED_ASKINGS", Key::Number(8), "Askings"),
    ("RESOLVED", Key::Structure("Address"), "Resolved"),
    ("NAMED", Key::Number(8), "Named"),
];
/// Arrays by device, and the structure of their values.
const ARRAYS: [(&str, &str); 2] = [("SEEN", "Seen"), ("CLIENTS", "Clients")];
/// Entries of an array that are read with one call.
const AT_ONCE: u32 = 4096;

impl Datapath {
    /// Copies learned addresses and their places, and returns how many there are.
    pub(super) fn copy_learned(&mut self, other: &Other, layout: &Layout) -> Result<usize> {
        let (Some(learned), Some(held)) = (other.table("LEARNED")?, other.table("HELD")?) else {
            return Ok(0);
        };
        let key = Conversion::same(size_of::<Address>());
        // Without one of these it is not known whose an address is, or for how long.
        let whole = layout.structure("Learned").is_some_and(|it| {
            let fields = [("holder", 8), ("last", 4), ("interface", 4)];
            fields
                .into_iter()
                .all(|(name, size)| it.field(name, size).is_some())
        });
        let value = conversion(layout, "Learned");
        let value = value.filter(|value| whole && learned.fits(&key, value));
        let Some(value) = value else {
            return Err(DatapathError::Incompatible(other.pin("LEARNED")));
        };
        let place = Conversion::same(8);
        if !held.fits(&place, &key) {
            return Err(DatapathError::Incompatible(other.pin("HELD")));
        }
        let entries = learned.all()?;
        for (address, entry) in &entries {
            self.insert("LEARNED", address, &value.of(entry))?;
        }
        for (key, address) in held.all()? {
            self.hold(&key, &address)?;
        }
        Ok(entries.len())
    }

    /// Gives a learned address a place of its holder, the one that it had if that is free.
    fn hold(&mut self, key: &[u8], address: &[u8]) -> Result<()> {
        let Ok(key) = key.try_into().map(u64::from_ne_bytes) else {
            return Ok(());
        };
        let entry = self.own("LEARNED", address, size_of::<Learned>())?;
        let holder = entry.and_then(|it| {
            let at = offset_of!(Learned, holder);
            Some(u64::from_ne_bytes(it.get(at..at + 8)?.try_into().ok()?))
        });
        if holder != Some(held_by(key)) {
            return Ok(());
        }
        let (v4, places) = (
            key >> 8 & 1 != 0,
            self.reader.settings()?.learned_per_device,
        );
        let more = (0..places).map(|place| held_key(held_by(key), v4, place));
        for place in std::iter::once(key).chain(more) {
            let place = place.to_ne_bytes();
            let there = self.own("HELD", &place, address.len())?;
            if there.as_deref() == Some(address) || self.insert("HELD", &place, address)? {
                break;
            }
        }
        Ok(())
    }

    /// Counts learned addresses anew, and keeps those of live flows.
    pub(super) fn count_learned_anew(&mut self) -> Result<()> {
        let counted = self.reader.counted_learned()?;
        self.reader
            .keep_learned(counted.into_iter().map(|it| it >> 1))
    }

    /// Copies what is remembered of devices, or for a moment.
    pub(super) fn copy_tables(&mut self, other: &Other, layout: &Layout) -> Result<()> {
        for (name, key, value) in HASHES {
            let Some(table) = other.table(name)? else {
                continue;
            };
            let key = match key {
                Key::Structure(name) => conversion(layout, name),
                Key::Number(size) => Some(Conversion::same(size)),
            };
            let (Some(key), Some(value)) = (key, conversion(layout, value)) else {
                continue;
            };
            // Of another form, it begins again: nothing in these is kept for long.
            if !table.fits(&key, &value) {
                continue;
            }
            for (at, entry) in table.all()? {
                self.insert(name, &key.of(&at), &value.of(&entry))?;
            }
        }
        for (name, value) in ARRAYS {
            let (Some(table), Some(value)) = (other.table(name)?, conversion(layout, value)) else {
                continue;
            };
            if table.fits(&Conversion::same(4), &value) {
                self.copy_array(name, &table, &value)?;
            }
        }
        Ok(())
    }

    /// Copies entries of an array that are empty here.
    fn copy_array(&mut self, name: &'static str, from: &Table, value: &Conversion) -> Result<()> {
        let count = from.entries.min(self.reader.size(name) as u32);
        let empty = |entry: &[u8]| entry.iter().all(|byte| *byte == 0);
        for first in (0..count).step_by(AT_ONCE as usize) {
            let entries = from.some(first, AT_ONCE.min(count - first))?;
            for (at, entry) in (first..).zip(entries.chunks(from.value)) {
                let key = at.to_ne_bytes();
                if empty(entry)
                    || !self
                        .own(name, &key, value.sizes().1)?
                        .is_some_and(|it| empty(&it))
                {
                    continue;
                }
                let map = self.ebpf.map(name).ok_or(DatapathError::Missing(name))?;
                let map = data(name, map)?.fd().as_fd();
                bpf::replace(map, &key, &value.of(entry)).map_err(failed(name))?;
            }
        }
        Ok(())
    }

    /// Moves what is counted by reason and by rule. The pins there go first: should the daemon die now,
    /// counters begin again, which their readers know from restarts, and nothing is counted twice.
    pub(super) fn move_counters(&mut self, other: &Other, layout: &Layout) -> Result<()> {
        let Some(counter) = layout.structure("Counter") else {
            return Ok(());
        };
        let own = Layout::own();
        let mut counted = Vec::new();
        let mut count = |table: &Table, there: u32, here: u32, what: u32| -> Result<()> {
            let value = table.lookup(&there.to_ne_bytes())?.unwrap_or_default();
            let bytes = total(&value, counter);
            if table.value == counter.size && bytes != [0; 2] {
                counted.push(Carried {
                    rule: here,
                    bytes,
                    what,
                    ..Carried::default()
                });
            }
            Ok(())
        };
        if let Some(table) = other.table("REASONS")? {
            other.remove("REASONS")?;
            for (name, there) in &layout.reasons {
                if let Some(here) = own.reasons.get(name) {
                    count(&table, *there, *here, Carried::REASON)?;
                }
            }
        }
        if let Some(table) = other.table("RULES")? {
            other.remove("RULES")?;
            for rule in 0..table.entries.min(self.reader.size("RULES") as u32) {
                count(&table, rule, rule, Carried::RULE)?;
            }
        }
        if let Some(table) = other.table("FORWARDED")? {
            other.remove("FORWARDED")?;
            count(&table, 0, 0, Carried::FORWARDED)?;
        }
        self.carry(&counted)
    }

    /// Takes over which interface has which number, before any is given.
    pub(crate) fn take_numbers(&mut self) -> Result<()> {
        for other in &self.others {
            let Some(table) = other.table(far::MAP)? else {
                continue;
            };
            let number = Conversion::same(4);
            if !table.fits(&number, &number) {
                continue;
            }
            for (ifindex, number) in table.all()? {
                self.insert(far::MAP, &ifindex, &number)?;
            }
        }
        Ok(())
    }

    /// Lets the other version's programs adopt flows that are opened while some hooks have its programs
    /// and others have this version's.
    pub(super) fn adopt_there(&mut self, other: &Other) -> Result<()> {
        let Some(table) = other.table("ADOPTION")? else {
            return Ok(());
        };
        let number = Conversion::same(4);
        let Ok(attached) = self.hooks.attached() else {
            return Ok(());
        };
        let held = self.hooks.lock();
        if !table.fits(&number, &number) || held.adopts_for.is_zero() {
            return Ok(());
        }
        let seconds = held.adopts_for.as_secs() as u32;
        let ticks = seconds.saturating_mul(self.reader.per_second) >> TICK_SHIFT;
        let until = self.reader.tick()?.wrapping_add(ticks).to_ne_bytes();
        for ifindex in attached {
            let number = held.numbers.of(ifindex);
            if number < table.entries {
                bpf::replace(table.fd(), &number.to_ne_bytes(), &until)
                    .map_err(failed("ADOPTION"))?;
            }
        }
        Ok(())
    }

    /// What this version's map has under a key, of values of a size.
    fn own(&self, name: &'static str, key: &[u8], size: usize) -> Result<Option<Vec<u8>>> {
        let map = self.ebpf.map(name).ok_or(DatapathError::Missing(name))?;
        let map = data(name, map)?.fd().as_fd();
        let mut value = vec![0; size];
        let there = bpf::lookup(map, key, &mut value).map_err(failed(name))?;
        Ok(there.then_some(value))
    }

    /// Puts an entry into this version's map unless there is one; false then. Without room it is left
    /// out, as it would be for a packet.
    fn insert(&self, name: &'static str, key: &[u8], value: &[u8]) -> Result<bool> {
        let map = self.ebpf.map(name).ok_or(DatapathError::Missing(name))?;
        let map = data(name, map)?.fd().as_fd();
        match bpf::insert(map, key, value) {
            Err(error) if error.raw_os_error() == Some(libc::E2BIG) => Ok(false),
            done => done.map_err(failed(name)),
        }
    }
}

/// From a structure there to the same here.
fn conversion(layout: &Layout, structure: &str) -> Option<Conversion> {
    let own = Layout::own();
    let (there, here) = (layout.structure(structure)?, own.structure(structure)?);
    Some(Conversion::between(there, here))
}

/// The sum over all processors: packets and bytes.
fn total(value: &[u8], counter: &Structure) -> [u64; 2] {
    ["packets", "bytes"].map(|name| {
        let Some(at) = counter.field(name, 8) else {
            return 0;
        };
        let parts = value.chunks(counter.size.next_multiple_of(8).max(1));
        let parts = parts
            .filter_map(|part| Some(u64::from_ne_bytes(part.get(at..at + 8)?.try_into().ok()?)));
        parts.fold(0, u64::wrapping_add)
    })
}
