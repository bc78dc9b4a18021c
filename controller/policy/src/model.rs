//! The tables on the host: the same lookups as the kernel's maps, for `explain` and for tests.

use std::{
    cell::{Cell, OnceCell},
    collections::HashMap,
};

use wardline_ebpf::{
    abi::{
        ADMISSIONS, Address, AddressKey, Askings, Bucket, Clients, Denial, End, Failsafe,
        Forwarding, Fragment, FragmentKey, INQUIRERS, Inquiry, Interval, Learned, Mac, NAME_BYTES,
        NameText, Named, Port, PrefixKey, Quota, Resolved, Routes, Seen, Set, Settings, UNLISTED,
        Watched, gauge, learned_index,
    },
    cell::{Cell32, Cell64},
    learning,
    lookup::Lookup,
    name_buffer::NameBuffer,
    policy::{self, Question},
};

use crate::tables::{Amendment, Tables};

/// Compiled tables with flow state of their own. There is one slot: 0.
pub struct Model<'a> {
    tables: &'a Tables,
    amended: Option<&'a Amendment>,
    settings: Settings,
    failsafe: Vec<Failsafe>,
    intervals: Vec<Interval>,
    sets: HashMap<(u32, u32), Set>,
    buckets: Vec<Bucket>,
    quotas: HashMap<u32, Quota>,
    unlisted: Vec<Quota>,
    clients: Vec<OnceCell<(u64, Clients)>>,
    askings: Room<u64, Askings>,
    gauges: [Cell32; gauge::COUNT as usize],
    learned: Room<Address, Learned>,
    held: Room<u64, Address>,
    learned_at: HashMap<u32, Cell32>,
    fragments: Vec<OnceCell<Noted>>,
    admissions: Vec<Cell64>,
    inquirers: Vec<Cell64>,
    inquiries: Room<u64, Inquiry>,
    resolved: Room<Address, Resolved>,
    named: Room<u64, Named>,
    seen: Seen,
    tick: Cell<u32>,
    adopts_until: Cell<u32>,
}

/// A fragmented packet; a forgotten one leaves its place to the next with the same key.
struct Noted {
    key: FragmentKey,
    fragment: Fragment,
    forgotten: Cell<bool>,
}

/// A few entries, which can be added and removed while others are borrowed.
struct Room<K, V>(Vec<OnceCell<Entry<K, V>>>);

struct Entry<K, V> {
    key: K,
    value: V,
    removed: Cell<bool>,
}

impl<K: PartialEq, V> Room<K, V> {
    fn new() -> Self {
        Self((0..ROOM).map(|_| OnceCell::new()).collect())
    }

    fn entry(&self, key: &K) -> Option<&Entry<K, V>> {
        let mut entries = self.0.iter().map_while(OnceCell::get);
        entries.find(|it| it.key == *key && !it.removed.get())
    }

    fn find(&self, key: &K) -> Option<&V> {
        Some(&self.entry(key)?.value)
    }

    /// Adds an entry; false when there is one with this key, or no room.
    fn add(&self, key: K, value: V) -> bool {
        let entry = Entry {
            key,
            value,
            removed: Cell::new(false),
        };
        let free = || self.0.iter().find(|it| it.get().is_none());
        self.entry(&entry.key).is_none() && free().is_some_and(|at| at.set(entry).is_ok())
    }

    fn remove(&self, key: &K) -> bool {
        let entry = self.entry(key);
        entry.is_some_and(|entry| !entry.removed.replace(true))
    }
}

/// Learned addresses, fragmented packets, and DHCP clients, for which a model has room.
const ROOM: usize = 512;

impl<'a> Model<'a> {
    /// A model with room for some flows.
    pub fn new(tables: &'a Tables, settings: Settings) -> Self {
        let mut intervals = Vec::new();
        let mut known: HashMap<*const Interval, Set> = HashMap::new();
        let mut sets = HashMap::new();
        for (pair, list) in tables.pairs.iter() {
            let set = *known.entry(list.as_ptr()).or_insert_with(|| {
                let first = intervals.len() as u32;
                intervals.extend_from_slice(list);
                Set {
                    first,
                    count: list.len() as u32,
                }
            });
            sets.insert(*pair, set);
        }
        let devices = tables.macs.values().map(|mac| mac.device);
        let named = tables.addresses.values().map(|end| end.device);
        let quotas = devices
            .chain(named)
            .chain([0])
            .map(|device| (device, Quota::default()));
        let families = |interface: &u32| [true, false].map(|v4| learned_index(*interface, v4));
        let learned_at = tables.ports.keys().flat_map(families);
        let learned_at = learned_at.map(|index| (index, Cell32::default()));
        let gauges = <[Cell32; gauge::COUNT as usize]>::default();
        // On the host nothing has to be kept recent.
        gauges[gauge::LEARNED_KEPT as usize].store(u32::MAX / 2);
        Self {
            tables,
            amended: None,
            settings,
            failsafe: Vec::new(),
            intervals,
            sets,
            buckets: (0..settings.buckets).map(|_| Bucket::default()).collect(),
            quotas: quotas.collect(),
            gauges,
            unlisted: (0..UNLISTED).map(|_| Quota::default()).collect(),
            clients: (0..ROOM).map(|_| OnceCell::new()).collect(),
            askings: Room::new(),
            learned: Room::new(),
            held: Room::new(),
            learned_at: learned_at.collect(),
            fragments: (0..ROOM).map(|_| OnceCell::new()).collect(),
            admissions: (0..ADMISSIONS).map(|_| Cell64::default()).collect(),
            inquirers: (0..INQUIRERS).map(|_| Cell64::default()).collect(),
            inquiries: Room::new(),
            resolved: Room::new(),
            named: Room::new(),
            seen: Seen::default(),
            tick: Cell::new(1),
            adopts_until: Cell::new(0),
        }
    }

    /// Replaces compiled entries by amended ones.
    pub fn amend(&mut self, amended: &'a Amendment) {
        self.amended = Some(amended);
    }

    /// Sets the hosts that may always reach the router.
    pub fn spare(&mut self, failsafe: impl IntoIterator<Item = Failsafe>) {
        self.failsafe = failsafe.into_iter().collect();
        self.settings.failsafe = self.failsafe.len() as u32;
    }

    /// Sets the current tick.
    pub fn set_tick(&self, tick: u32) {
        self.tick.set(tick);
    }

    /// Adopts running flows until a tick, on every port.
    pub fn adopt_until(&self, tick: u32) {
        self.adopts_until.set(tick);
    }

    /// Lets an address be one of a selector until a tick; false when there is no room.
    pub fn name(&self, address: Address, selector: u32, until: u32) -> bool {
        let Some(resolved) = self.resolved(&address, true) else {
            return false;
        };
        let mut places = resolved.selectors.iter().zip(&resolved.until);
        let free = places.find(|(there, _)| [0, selector].contains(&there.load()));
        if let Some((there, end)) = free {
            there.store(selector);
            end.store(until);
        }
        free.is_some()
    }

    fn noted(&self, key: &FragmentKey) -> Option<&Noted> {
        let mut noted = self.fragments.iter().filter_map(OnceCell::get);
        noted.find(|noted| noted.key == *key)
    }
}

impl Lookup for Model<'_> {
    fn active(&self) -> Option<u32> {
        Some(0)
    }

    fn settings(&self) -> Option<&Settings> {
        Some(&self.settings)
    }

    fn failsafe(&self, index: u32) -> Option<&Failsafe> {
        self.failsafe.get(index as usize)
    }

    fn tick(&self) -> u32 {
        self.tick.get()
    }

    fn port(&self, index: u32) -> Option<&Port> {
        let index = index / 2;
        let amended = self.amended.and_then(|it| it.ports.get(&index));
        amended.or_else(|| self.tables.ports.get(&index))
    }

    /// On the host nothing is forwarded.
    fn forwarding(&self, _interface: u32) -> Option<&Forwarding> {
        None
    }

    fn routes(&self) -> Option<&Routes> {
        None
    }

    fn place(&self, key: u64) -> Option<u32> {
        self.tables.places.get(&key).copied()
    }

    fn zone(&self, index: u32) -> Option<u32> {
        self.tables.zones.get(&index).copied()
    }

    fn mac(&self, key: u64) -> Option<&Mac> {
        let amended = self.amended.and_then(|it| it.macs.get(&key));
        amended.or_else(|| self.tables.macs.get(&key))
    }

    fn address(&self, key: &AddressKey) -> Option<&End> {
        let amended = self.amended.and_then(|it| it.addresses.get(&key.address));
        amended.or_else(|| self.tables.addresses.get(&key.address))
    }

    fn prefix(&self, key: &PrefixKey) -> Option<&End> {
        let number = u128::from_be_bytes(key.address);
        let zone = (u32::from_be_bytes(key.slot) >> 1) as u16;
        (0..=128u32).rev().find_map(|length| {
            let mask = u128::MAX.checked_shl(128 - length).unwrap_or(0);
            let prefix = (Address::v6(&(number & mask).to_be_bytes()), length as u8);
            if zone == 0 {
                self.tables.prefixes.get(&prefix)
            } else {
                self.tables.shares.get(&(zone, prefix))
            }
        })
    }

    fn end(&self, slot: u32, address: &Address, end: &mut End) -> bool {
        policy::find_end(self, slot, &Question::new(slot, address), end)
    }

    fn device(&self, key: u32) -> Option<&End> {
        let amended = self.amended.and_then(|it| it.devices.get(&(key >> 1)));
        amended.or_else(|| self.tables.devices.get(&(key >> 1)))
    }

    fn pair(&self, key: u64) -> Option<&Set> {
        self.sets.get(&((key >> 32) as u32, key as u32))
    }

    fn interval(&self, index: u32) -> Option<&Interval> {
        self.intervals.get(index as usize)
    }

    fn epoch(&self, _index: u32) -> Option<u32> {
        Some(1)
    }

    fn bucket(&self, index: u32) -> Option<&Bucket> {
        self.buckets.get(index as usize)
    }

    fn generation(&self, _slot: u32) -> Option<u64> {
        Some(1)
    }

    /// The host keeps no denials: the verdict must be the same without them.
    fn denial(&self, _set: u32, _way: u32) -> Option<&Denial> {
        None
    }

    fn denial_tags(&self, _set: u32) -> Option<&Cell64> {
        None
    }

    fn flows_opened(&self, _set: u32) -> Option<&Cell32> {
        None
    }

    fn add_suppressed(&self, _denial: &Denial, _packets: u32) {}

    /// The host does not count for rules.
    fn credit(&self, _rule: u32, _packets: u32, _bytes: u64) {}

    fn lock(&self, _bucket: &Bucket) {}

    fn unlock(&self, _bucket: &Bucket) {}

    fn quota(&self, account: u32) -> Option<&Quota> {
        match account.checked_sub(self.settings.unlisted) {
            Some(unlisted) => self.unlisted.get(unlisted as usize),
            None => self.quotas.get(&account),
        }
    }

    fn clients(&self, device: u32, mac: u64) -> Option<&Clients> {
        let key = if device == 0 {
            mac
        } else {
            u64::from(device) << 48
        };
        let place = self.clients.iter().find(|place| match place.get() {
            Some((known, _)) => *known == key,
            None => true,
        })?;
        Some(&place.get_or_init(|| (key, Clients::default())).1)
    }

    fn askings(&self, device: u32, mac: u64, makes: bool) -> Option<&Askings> {
        let key = if device == 0 {
            mac
        } else {
            u64::from(device) << 48
        };
        if makes {
            self.askings.add(key, Askings::default());
        }
        self.askings.find(&key)
    }

    fn gauge(&self, cell: u32) -> Option<&Cell32> {
        self.gauges.get(cell as usize)
    }

    fn learned(&self, address: &Address) -> Option<&Learned> {
        self.learned.find(address)
    }

    fn find_place(&self, holder: u64, v4: bool) -> u32 {
        learning::find_place(self, holder, v4)
    }

    fn note_learned(&self, address: &Address, learned: Learned) -> bool {
        self.learned.add(*address, learned)
    }

    fn forget_learned(&self, address: &Address) -> bool {
        self.learned.remove(address)
    }

    fn held(&self, key: u64) -> Option<&Address> {
        self.held.find(&key)
    }

    fn hold(&self, key: u64, address: &Address) -> bool {
        self.held.add(key, *address)
    }

    fn release(&self, key: u64) -> bool {
        self.held.remove(&key)
    }

    fn learned_at(&self, index: u32) -> Option<&Cell32> {
        self.learned_at.get(&index)
    }

    fn fragment(&self, key: &FragmentKey) -> Option<&Fragment> {
        let noted = self.noted(key)?;
        (!noted.forgotten.get()).then_some(&noted.fragment)
    }

    fn note_fragment(&self, key: &FragmentKey, fragment: &Fragment) -> bool {
        let (ports, next) = (fragment.ports.load(), fragment.next.load());
        let first = fragment.first.load();
        if let Some(noted) = self.noted(key) {
            noted.fragment.ports.store(ports);
            noted.fragment.next.store(next);
            noted.fragment.first.store(first);
            noted.forgotten.set(false);
            return true;
        }
        let noted = Noted {
            key: *key,
            fragment: Fragment {
                ports: Cell64::new(ports),
                next: Cell32::new(next),
                first: Cell32::new(first),
            },
            forgotten: Cell::new(false),
        };
        match self.fragments.iter().find(|slot| slot.get().is_none()) {
            Some(slot) => slot.set(noted).is_ok(),
            None => false,
        }
    }

    fn forget_fragment(&self, key: &FragmentKey) {
        if let Some(noted) = self.noted(key) {
            noted.forgotten.set(true);
        }
    }

    fn adopts_until(&self, _interface: u32) -> u32 {
        self.adopts_until.get()
    }

    fn admission(&self, index: u32) -> Option<&Cell64> {
        self.admissions.get(index as usize)
    }

    fn is_resolver(&self, key: &AddressKey) -> bool {
        self.tables.resolvers.contains_key(&key.address)
    }

    fn watched(&self, _slot: u32, name: &NameBuffer, at: usize) -> Option<&Watched> {
        let mut text = [0; NAME_BYTES];
        for (to, from) in text.iter_mut().zip(at..NAME_BYTES) {
            *to = name.byte(from);
        }
        self.tables.names.get(&NameText(text))
    }

    fn inquirer(&self, cell: u32) -> Option<&Cell64> {
        self.inquirers.get(cell as usize)
    }

    fn note_inquiry(&self, hash: u64, inquiry: &Inquiry) -> bool {
        self.inquiries.remove(&hash);
        self.inquiries.add(hash, *inquiry)
    }

    fn inquiry(&self, hash: u64) -> Option<&Inquiry> {
        self.inquiries.find(&hash)
    }

    fn forget_inquiry(&self, hash: u64) {
        self.inquiries.remove(&hash);
    }

    fn resolved(&self, address: &Address, makes: bool) -> Option<&Resolved> {
        if makes {
            self.resolved.add(*address, Resolved::default());
        }
        self.resolved.find(address)
    }

    fn forget_resolved(&self, address: &Address) {
        self.resolved.remove(address);
    }

    fn named(&self, key: u64) -> Option<&Named> {
        self.named.find(&key)
    }

    fn name_address(&self, key: u64, named: &Named) -> bool {
        self.named.remove(&key);
        self.named.add(key, *named)
    }

    fn seen(&self, _device: u32) -> Option<&Seen> {
        Some(&self.seen)
    }
}

#[cfg(test)]
mod tests {
    use wardline_ebpf::abi::mac_key;

    use super::*;
    use crate::ward::Ward;

    fn settings() -> Settings {
        Settings::for_flows(64)
    }

    #[test]
    fn the_longest_prefix_that_holds_an_address_is_found() {
        let ward = Ward::new(
            |policy| policy.zones[1].subnets = vec!["10.1.7.0/24".to_owned()],
            &[],
        );
        let model = Model::new(&ward.tables, settings());
        let zone_of = |address: [u8; 4]| {
            let key = PrefixKey {
                slot: [0; 4],
                address: Address::v4(address).octets(),
            };
            model.prefix(&key).map(|end| u32::from(end.zone))
        };
        assert_eq!(zone_of([10, 1, 6, 255]), Some(ward.zone("pumps")));
        assert_eq!(zone_of([10, 1, 7, 0]), Some(ward.zone("cameras")));
        // In no zone.
        assert_eq!(zone_of([10, 3, 0, 1]), Some(0));
    }

    #[test]
    fn what_is_amended_stands_in_place_of_what_was_compiled() {
        let ward = Ward::new(|_| (), &[]);
        let mut devices = ward.intent.devices.iter();
        let pump = devices.find(|device| device.name == "pump");
        let pump = pump.expect("a device of the ward");
        let amended = Amendment::quarantine(&ward.tables, pump, ward.device("pump"), true);
        let mut model = Model::new(&ward.tables, settings());
        let key = mac_key(0, 0x02_00_00_00_01_01);
        let flags = |model: &Model<'_>| model.mac(key).map(|mac| mac.flags & End::QUARANTINED);
        assert_eq!(flags(&model), Some(0));
        model.amend(&amended);
        assert_eq!(flags(&model), Some(End::QUARANTINED));
    }

    #[test]
    fn room_is_bounded_and_an_entry_can_be_removed_and_added_again() {
        let room = Room::new();
        for n in 0..ROOM - 1 {
            assert!(room.add(n, 1));
        }
        assert!(!room.add(0, 2));
        assert!(room.remove(&0) && !room.remove(&0));
        assert!(room.find(&0).is_none());
        assert!(room.add(0, 2) && !room.add(ROOM, 1));
        assert_eq!(room.find(&0), Some(&2));
    }

    #[test]
    fn a_fragment_is_known_until_it_is_forgotten() {
        let ward = Ward::new(|_| (), &[]);
        let model = Model::new(&ward.tables, settings());
        let key = FragmentKey {
            identification: 9,
            ..FragmentKey::default()
        };
        let next = |next| Fragment {
            next: Cell32::new(next),
            ..Fragment::default()
        };
        let known = || model.fragment(&key).map(|it| it.next.load());
        assert_eq!(known(), None);
        assert!(model.note_fragment(&key, &next(24)));
        assert_eq!(known(), Some(24));
        model.forget_fragment(&key);
        assert_eq!(known(), None);
        assert!(model.note_fragment(&key, &next(48)));
        assert_eq!(known(), Some(48));
    }
}
