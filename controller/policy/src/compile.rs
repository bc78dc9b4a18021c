//! Intent and inventory to [`Tables`]: what the kernel's maps have to hold. Pure and deterministic.
//!
//! Rules become pairs of names (see [`End`]): a zone, a class of devices that rules name alike, a
//! region of addresses inside the same `cidr:` selectors and of the internet or not, the router, or
//! `any`. So a rule between two zones is one pair, however many devices they have, and the number of
//! lookups for a packet does not grow with the number of rules.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use wardline_ebpf::abi::{
    Address, End, Mac, NameText, Port, ROUTER, Watched, behind_key, ethertype_key, mac_key, zone,
};

mod networks;
mod pairs;
mod ports;

use self::{
    networks::{Networks, cut, prefix_of},
    pairs::{Kinds, MOST_NAMED, classes, pairs},
    ports::{Behind, connected, ports},
};
use crate::{
    clock::Clock,
    intent::{Device, Intent, ZoneIndex},
    inventory::{Header, Inventory, Link},
    numbers::{Ids, domains, number_of, numbered},
    quarantine::{Identity, Quarantine},
    tables::{Amendment, NoRoom, Tables},
    words::{mac::mac_number, problem::Problem},
};

/// Compiles the tables that enforce an intent on the interfaces that exist, with room for all of them.
///
/// `quarantined` is what is in quarantine.
pub fn compile(
    intent: &Intent,
    inventory: &Inventory,
    ids: &Ids,
    quarantined: &Quarantine,
    clock: &Clock,
) -> Tables {
    Base::of(intent, ids, clock).on(intent, inventory, quarantined, &Room::default())
}

/// What a compiled intent is on any interfaces. Rules are no part of what [`Base::on`] does again
/// when an interface appears, so that it takes no longer with many of them.
pub struct Base {
    /// The tables of a router without interfaces.
    tables: Tables,
    zones: Vec<u16>,
    devices: Vec<u32>,
    classes: Vec<u32>,
    kinds: Kinds,
    networks: Networks,
    /// The devices that may only appear on one interface, by its name.
    pinned: BTreeMap<String, Vec<usize>>,
    /// Whether rules name too many pairs; then nothing is allowed.
    is_excessive: bool,
}

/// What room the tables have for ports, and which ports get it.
#[derive(Clone, Copy, Default)]
pub struct Room<'a> {
    /// Entries that [`Tables::places`] may have; none: any number.
    pub places: Option<usize>,
    /// The tables in force, whose ports keep their places before others get any.
    pub before: Option<&'a Tables>,
    /// Ports at which nothing is to pass, by number.
    pub shut: Option<&'a BTreeSet<u32>>,
}

impl Room<'_> {
    /// Why there is no room for the places of one more port, if there is none.
    fn refuses(&self, places: &BTreeMap<u64, u32>, tables: &Tables) -> Option<NoRoom> {
        let most = self.places?;
        let fresh = places.keys().filter(|it| !tables.places.contains_key(it));
        let (needed, left) = (fresh.count(), most.saturating_sub(tables.places.len()));
        (needed > left).then_some(NoRoom { needed, left, most })
    }
}

impl Base {
    /// Why the rules can't be compiled, if they can't; the tables allow nothing, then.
    pub fn excess(&self) -> Option<Problem> {
        self.is_excessive.then(|| Problem {
            path: "rules".to_owned(),
            message: format!(
                "name more than {MOST_NAMED} pairs of ends together; name zones in place of many prefixes \
                 or devices"
            ),
        })
    }

    /// Compiles all that does not depend on interfaces.
    pub fn of(intent: &Intent, ids: &Ids, clock: &Clock) -> Self {
        let zone_numbers: Vec<u16> = intent
            .zones
            .iter()
            .map(|z| number_of(ids, numbered::ZONE, &z.name) as u16)
            .collect();
        let device_numbers: Vec<u32> = intent
            .devices
            .iter()
            .map(|d| number_of(ids, numbered::DEVICE, &d.name))
            .collect();
        let zone_of = |index: ZoneIndex| zone_numbers[index.0];
        let mut tables = Tables::default();
        names(intent, ids, &mut tables);
        let networks = Networks::of(intent, ids, &zone_of);
        let classes = classes(intent, &device_numbers);
        let pairs = pairs(intent, ids, &classes, &networks, &zone_of, clock);
        let is_excessive = pairs.is_none();
        tables.pairs = Arc::new(pairs.unwrap_or_default());
        let kinds = Kinds::of(&tables.pairs);
        zones(intent, &zone_of, &kinds, &mut tables);
        tables.zones.insert(0, kinds.any());
        tables.shares = networks.shares.clone();
        let mut base = Self {
            tables: Tables::default(),
            zones: zone_numbers,
            devices: device_numbers,
            classes,
            kinds,
            networks,
            pinned: BTreeMap::new(),
            is_excessive,
        };
        for (index, device) in intent.devices.iter().enumerate() {
            base.add_device(index, device, None, &mut tables);
            if let Some(port) = &device.port {
                base.pinned.entry(port.clone()).or_default().push(index);
            }
        }
        // Through a NAT64, too, devices and the router are not the internet.
        for address in intent.devices.iter().flat_map(|it| &it.addresses) {
            if let Some((address, end)) = base.translated(*address) {
                tables.addresses.entry(address).or_insert(end);
            }
        }
        for device in &intent.devices {
            join_ends(device, &mut tables);
        }
        base.tables = tables;
        base
    }

    /// The tables on the interfaces that exist. The intent is the one that this was made of.
    pub fn on(
        &self,
        intent: &Intent,
        inventory: &Inventory,
        quarantined: &Quarantine,
        room: &Room<'_>,
    ) -> Tables {
        let mut tables = self.tables.clone();
        let zone_of = |index: ZoneIndex| self.zones[index.0];
        let on: Vec<(&Link, &Vec<usize>)> = inventory
            .links
            .values()
            .filter_map(|link| Some((link, self.pinned.get(&link.name)?)))
            .collect();
        let mut behind = Behind::new();
        for (link, devices) in &on {
            for index in *devices {
                if is_behind_bare(&intent.devices[*index], link) {
                    let key = behind_key(0, link.number, self.devices[*index]);
                    behind.entry(link.number).or_default().push(key);
                }
            }
        }
        ports(
            intent,
            inventory,
            quarantined,
            &zone_of,
            room,
            &behind,
            &mut tables,
        );
        self.prefixes(inventory, &mut tables);
        for (link, devices) in &on {
            for index in *devices {
                let device = &intent.devices[*index];
                self.add_device(*index, device, Some(link), &mut tables);
                join_ends(device, &mut tables);
            }
        }
        router_macs(inventory, &mut tables);
        self.router_addresses(intent, inventory, &mut tables);
        // Last, because it changes entries as they are.
        self.cut_off(intent, quarantined, &mut tables);
        tables
    }

    /// Marks what is in quarantine. A MAC or an address that no device has any more gets an entry of its
    /// own, so that it stays cut off.
    fn cut_off(&self, intent: &Intent, quarantined: &Quarantine, tables: &mut Tables) {
        if quarantined.is_empty() {
            return;
        }
        for (device, number) in intent.devices.iter().zip(&self.devices) {
            if quarantined.device(device).is_some() {
                let cut_off = Amendment::quarantine(tables, device, *number, true);
                tables.macs.extend(cut_off.macs);
                tables.addresses.extend(cut_off.addresses);
                tables.devices.extend(cut_off.devices);
            }
        }
        for (identity, _) in quarantined.strangers(intent) {
            match identity {
                Identity::Mac(mac) => {
                    let nobody = Mac {
                        flags: End::QUARANTINED,
                        ..Mac::default()
                    };
                    tables
                        .macs
                        .entry(mac_key(0, mac_number(mac)))
                        .or_insert(nobody);
                }
                Identity::Address(address) => {
                    let address = Address::from(*address);
                    let end = self.end_of_nobody(address, tables);
                    tables.addresses.entry(address).or_insert(end);
                }
                Identity::Device(_) | Identity::Port(_) => {}
            }
        }
    }

    /// What an address in quarantine stands for that no device has: what its prefix does, but cut off.
    fn end_of_nobody(&self, address: Address, tables: &Tables) -> End {
        let prefixes = tables.prefixes.iter();
        let around = prefixes.filter(|((net, length), _)| cut(address, *length) == *net);
        let around = around.max_by_key(|((_, length), _)| *length);
        let end = around.map_or_else(
            || {
                self.kinds.mark(End {
                    region: self.networks.region(address),
                    ..End::default()
                })
            },
            |(_, end)| *end,
        );
        End {
            flags: end.flags | End::QUARANTINED,
            ..end
        }
    }

    /// The entries of a device; `link` is the interface that it is pinned to.
    fn add_device(&self, index: usize, device: &Device, link: Option<&Link>, tables: &mut Tables) {
        let (number, zone) = (self.devices[index], self.zones[device.zone.0]);
        let mut flags = 0;
        let is_behind = link.is_some_and(|link| is_behind_bare(device, link));
        if !device.macs.is_empty() || is_behind {
            flags |= End::GUARDED;
        }
        if device.learns(true) {
            flags |= End::LEARNS_V4;
        }
        if device.learns(false) {
            flags |= End::LEARNS_V6;
        }
        let end = End {
            device: number,
            class: self.classes[index],
            zone,
            flags,
            ..End::default()
        };
        for address in &device.addresses {
            let address = Address::from(*address);
            let region = self.networks.region(address);
            let end = self.kinds.mark(End { region, ..end });
            tables.addresses.insert(address, end);
        }
        // Who is not behind a port has no link-local address that anyone sees.
        if flags & (End::LEARNS | End::GUARDED) != 0 {
            tables.devices.insert(number, self.kinds.mark(end));
        }
        let interface = match (&device.port, link) {
            (_, Some(link)) => link.number,
            // A device on a port that does not exist may appear nowhere.
            (Some(_), None) => u32::MAX,
            (None, None) => 0,
        };
        for mac in &device.macs {
            let entry = Mac {
                device: number,
                interface,
                zone,
                flags,
                ..Mac::default()
            };
            tables.macs.insert(mac_key(0, mac_number(mac)), entry);
        }
    }

    /// The networks that zones and rules name, and those that the router reaches directly.
    fn prefixes(&self, inventory: &Inventory, tables: &mut Tables) {
        let connected = connected(inventory, tables);
        for ((net, zone), region) in self.networks.with(connected.keys()) {
            let is_connected = networks::around(net, |outer| connected.get(&outer).copied());
            let mut flags = 0;
            if is_connected == Some(true) {
                flags |= End::CONNECTED;
            }
            if zone == networks::SHARED {
                flags |= End::SHARED;
            }
            let settings = tables.zones.get(&u32::from(zone)).copied().unwrap_or(0);
            if zone != 0 && settings & zone::HAS_PORTS == 0 && self.networks.is_elsewhere(net) {
                flags |= End::ELSEWHERE;
            }
            let end = self.kinds.mark(End {
                zone: if zone == networks::SHARED { 0 } else { zone },
                region,
                flags,
                ..End::default()
            });
            tables.prefixes.insert(net, end);
        }
    }

    /// What the router takes packets by. The kernel asks for these before all other routes, so they
    /// are the router's whoever else lists them.
    fn router_addresses(&self, intent: &Intent, inventory: &Inventory, tables: &mut Tables) {
        let router = self.kinds.mark(End {
            device: ROUTER,
            class: ROUTER,
            ..End::default()
        });
        let mut taken_from = BTreeSet::new();
        for net in &inventory.taken {
            let around = prefix_of(*net);
            if around.1 == 128 {
                let was = tables.addresses.insert(around.0, router);
                taken_from.extend(was.map(|end| end.device));
                continue;
            }
            let is_inside =
                |prefix: (Address, u8)| prefix.1 >= around.1 && cut(prefix.0, around.1) == around.0;
            let prefixes = tables.prefixes.iter_mut();
            let prefixes = prefixes.filter(|(prefix, _)| is_inside(**prefix));
            prefixes.for_each(|(_, end)| *end = router);
            let addresses = tables.addresses.iter_mut();
            let addresses = addresses.filter(|(address, _)| is_inside((**address, 128)));
            for (_, end) in addresses {
                taken_from.insert(end.device);
                *end = router;
            }
            tables.prefixes.insert(around, router);
        }
        for address in &inventory.addresses {
            let was = tables.addresses.insert(Address::from(*address), router);
            taken_from.extend(was.map(|end| end.device));
        }
        for address in &inventory.addresses {
            if let Some((address, end)) = self.translated(*address) {
                tables.addresses.entry(address).or_insert(end);
            }
        }
        // Seldom: a device lists an address that is the router's.
        if taken_from.iter().any(|device| *device > ROUTER) {
            let devices = intent.devices.iter().zip(&self.devices);
            for (device, _) in devices.filter(|(_, number)| taken_from.contains(number)) {
                join_ends(device, tables);
            }
        }
    }

    /// The address by which a NAT64 reaches a device or the router, where it would otherwise be of
    /// the internet; nobody has it.
    fn translated(&self, address: std::net::IpAddr) -> Option<(Address, End)> {
        let (address, region) = self.networks.translated(address)?;
        let end = End {
            region,
            ..End::default()
        };
        Some((address, self.kinds.mark(end)))
    }
}

/// Keeps the end of a device's first address with each of its MACs, if it has that address.
fn join_ends(device: &Device, tables: &mut Tables) {
    let Some(address) = device.addresses.first().map(|it| Address::from(*it)) else {
        return;
    };
    for mac in &device.macs {
        let key = mac_key(0, mac_number(mac));
        if let Some(entry) = tables.macs.get_mut(&key) {
            let end = tables.addresses.get(&address);
            let own = end.filter(|end| end.device == entry.device);
            (entry.address, entry.end) = own.map_or_else(Default::default, |end| (address, *end));
        }
    }
}

/// Whether a device without MACs is behind this interface, which has no link header.
fn is_behind_bare(device: &Device, link: &Link) -> bool {
    device.macs.is_empty() && link.header == Header::Bare
}

/// Different MACs of the router for which there is room beside those of devices. What leaves a port
/// with any further one is not the router's.
pub const ROUTER_MACS: usize = 4096;

/// The MACs of the router's own interfaces. A device that lists one of them keeps it.
fn router_macs(inventory: &Inventory, tables: &mut Tables) {
    // Guarded ports and what is above them come first, because the router sends from their MACs
    // through guarded ports.
    let sends = |link: &&Link| {
        let entry = tables.ports.get(&link.number);
        entry.is_some_and(|entry| entry.flags & (Port::GUARDED | Port::ABOVE) != 0)
    };
    let links = inventory.links.values();
    let others = links.clone().filter(|link| !sends(link));
    let mut macs = BTreeMap::new();
    for mac in links.filter(sends).chain(others).flat_map(Link::macs) {
        let number = mac_number(&mac);
        // Zero is the MAC of the loopback, and groups send nothing.
        if number != 0 && mac.0[0] & 1 == 0 && macs.len() < ROUTER_MACS {
            macs.insert(
                mac_key(0, number),
                Mac {
                    device: ROUTER,
                    flags: Mac::ROUTERS,
                    ..Mac::default()
                },
            );
        }
    }
    for (key, own) in macs {
        let entry = tables.macs.entry(key);
        entry
            .and_modify(|listed| listed.flags |= Mac::ROUTERS)
            .or_insert(own);
    }
}

/// The names that rules select, and who is believed about them.
fn names(intent: &Intent, ids: &Ids, tables: &mut Tables) {
    let mut names: BTreeMap<NameText, Watched> = BTreeMap::new();
    for domain in domains(intent) {
        let number = number_of(ids, numbered::NAME, &domain.to_string());
        let watched = names.entry(domain.text()).or_default();
        if domain.is_below() {
            watched.below = number;
        } else {
            watched.exact = number;
        }
    }
    tables.names = Arc::new(names);
    let resolvers = intent.resolvers.iter();
    tables.resolvers = resolvers.map(|it| (Address::from(*it), 1)).collect();
}

fn zones(intent: &Intent, zone_of: &impl Fn(ZoneIndex) -> u16, kinds: &Kinds, tables: &mut Tables) {
    let answers = intent.rules.iter().any(|rule| !rule.answers.is_empty());
    for (index, wanted) in intent.zones.iter().enumerate() {
        let number = zone_of(ZoneIndex(index));
        let has_ports = intent
            .ports
            .iter()
            .any(|port| port.carries(ZoneIndex(index)));
        let mut settings = zone::EXISTS;
        for (set, bit) in [
            (wanted.observe, zone::OBSERVE),
            (has_ports, zone::HAS_PORTS),
            (wanted.admit_any, zone::ADMIT_ANY),
            (wanted.fragments, zone::FRAGMENTS),
            (wanted.ip_options, zone::IP_OPTIONS),
            (answers, zone::ANSWERS),
            (!tables.names.is_empty(), zone::NAMES),
            (kinds.any_reaches_names(), zone::ANY_NAMES),
        ] {
            if set {
                settings |= bit;
            }
        }
        tables.zones.insert(u32::from(number), settings);
        for ethertype in &wanted.ethertypes {
            tables
                .places
                .insert(ethertype_key(0, number, *ethertype), 1);
        }
    }
}

#[cfg(test)]
mod tests;
