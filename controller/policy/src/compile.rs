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
    Address, End, Mac, Port, ROUTER, behind_key, ethertype_key, mac_key, zone,
};

mod networks;
mod pairs;
mod ports;

use self::{
    networks::{Networks, cut, prefix_of},
    pairs::{Kinds, classes, pairs},
    ports::{Behind, connected, ports},
};
use crate::{
    clock::Clock,
    intent::{Device, Intent, ZoneIndex},
    inventory::{Header, Inventory, Link},
    numbers::{Ids, number_of, numbered},
    quarantine::Quarantine,
    tables::{Amendment, NoRoom, Tables},
    words::mac::mac_number,
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
        zones(intent, &zone_of, &mut tables);
        let networks = Networks::of(intent, ids, &zone_of);
        let classes = classes(intent, &device_numbers);
        tables.pairs = Arc::new(pairs(intent, ids, &classes, &networks, &zone_of, clock));
        let kinds = Kinds::of(&tables.pairs);
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
        for name in &quarantined.devices {
            let found = intent.devices.binary_search_by(|it| it.name.cmp(name));
            if let Ok(at) = found {
                let (device, number) = (&intent.devices[at], self.devices[at]);
                let cut_off = Amendment::quarantine(&tables, device, number, true);
                tables.macs.extend(cut_off.macs);
                tables.addresses.extend(cut_off.addresses);
                tables.devices.extend(cut_off.devices);
            }
        }
        tables
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

fn zones(intent: &Intent, zone_of: &impl Fn(ZoneIndex) -> u16, tables: &mut Tables) {
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
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::collections::BTreeSet;

    use wardline_ebpf::abi::Address;
    use wardline_proto::v1::{Action, Device, Policy, Rule};

    use super::*;
    use crate::{
        ward::{BRIDGE, LAN1, LAN2, UPLINK, Ward},
        words::mac::Mac as Owner,
    };

    #[test]
    fn a_rule_between_a_zone_and_a_network_is_one_pair_however_many_devices() {
        let without = Ward::new(|policy| policy.rules.clear(), &[]);
        let with = Ward::new(|_| (), &[]);
        assert_eq!(with.tables.pairs.len(), without.tables.pairs.len() + 1);
        let web = 6 << 16 | 443;
        let allows = |rule: u32| {
            let mut intervals = with.tables.pairs.values().flat_map(|list| list.iter());
            intervals.any(|it| it.start == web && it.allow == rule)
        };
        assert!(allows(with.rule("web")), "{:?}", with.tables.pairs);
    }

    #[test]
    fn what_rules_have_in_common_is_kept_once() {
        let rule = |name: &str, from: Vec<String>, to: Vec<String>| Rule {
            name: name.to_owned(),
            from,
            to,
            services: vec!["udp/123".to_owned(), "tcp/1000-2000".to_owned()],
            action: Action::Allow.into(),
            ..Rule::default()
        };
        let of = |selector: &str| vec![selector.to_owned()];
        // A hundred devices with a rule of their own each, so that no two share a class.
        let with = |more: Option<Rule>| {
            let change = |policy: &mut Policy| {
                for n in 1..=100 {
                    policy.devices.push(Device {
                        name: format!("pump-{n}"),
                        zone: "pumps".to_owned(),
                        addresses: vec![format!("10.1.1.{n}")],
                        ..Device::default()
                    });
                    let (name, own) = (format!("own-{n}"), format!("device:pump-{n}"));
                    let services = vec![format!("udp/{}", 1000 + n)];
                    policy.rules.push(Rule {
                        services,
                        ..rule(&name, of(&own), of("cidr:192.0.2.0/24"))
                    });
                }
                policy.rules.extend(more);
            };
            Ward::new(change, &[]).tables.pairs
        };
        let before = with(None);

        // A rule with `any` is one pair, however many devices there are.
        for (from, to) in [("any", "any"), ("zone:pumps", "any"), ("any", "zone:pumps")] {
            let after = with(Some(rule("wide", of(from), of(to))));
            assert_eq!(after.len(), before.len() + 1);
        }

        // A rule that names many devices is one pair for each, but all share one set.
        let devices = (1..=100).map(|n| format!("device:pump-{n}")).collect();
        let networks = (0..8).map(|n| format!("cidr:198.51.{}.0/24", 100 + n));
        let after = with(Some(rule("many", devices, networks.collect())));
        let new = after.iter().filter(|(pair, _)| !before.contains_key(pair));
        let sets: Vec<_> = new.map(|(_, set)| set.as_ptr()).collect();
        assert_eq!(sets.len(), 800);
        assert_eq!(BTreeSet::from_iter(sets).len(), 1);
    }

    /// A ward with a rule to the internet, its zones and devices changed.
    fn online(change: impl FnOnce(&mut Policy)) -> Ward {
        let change = |policy: &mut Policy| {
            policy.rules[0].to.push("internet".to_owned());
            change(policy);
        };
        Ward::new(change, &[])
    }

    /// The region of an address that nothing lists.
    fn region(ward: &Ward, address: &str) -> u32 {
        let address = Address::from(address.parse::<std::net::IpAddr>().expect("an address"));
        if let Some(end) = ward.tables.addresses.get(&address) {
            return end.region;
        }
        let end = networks::around((address, 128), |outer| ward.tables.prefixes.get(&outer));
        end.expect("everything has an end").region
    }

    #[test]
    fn the_internet_takes_43_prefixes_and_one_pair_and_nothing_where_no_rule_names_it() {
        let (without, with) = (Ward::new(|_| (), &[]), online(|_| ()));
        let sizes = |ward: &Ward| {
            let tables = &ward.tables;
            [
                tables.prefixes.len(),
                tables.addresses.len(),
                tables.pairs.len(),
            ]
        };
        // Two families, two zones, one network of a rule; two pumps' addresses, a camera's, the
        // router's.
        assert_eq!(sizes(&without), [5, 4, 1]);
        // One of the 43, documentation, is the network of the rule.
        assert_eq!(sizes(&with), [5 + 43 - 1, 4, 2]);
        let region = |address| region(&with, address);
        assert_ne!(region("9.9.9.9"), 0);
        assert_eq!(region("10.9.9.9"), 0);
        assert_eq!(region("9.9.9.9"), region("64:ff9b::909:909"));
    }

    #[test]
    fn zones_that_have_everything_leave_no_prefix_of_the_internet() {
        let everything = |policy: &mut Policy| {
            let subnets = ["0.0.0.0/0", "::/0"].map(str::to_owned);
            policy.zones[1].subnets.extend(subnets);
        };
        let ward = online(everything);
        let same = Ward::new(everything, &[]);
        assert_eq!(ward.tables.prefixes, same.tables.prefixes);
        assert_eq!(ward.tables.pairs, same.tables.pairs);
    }

    #[test]
    fn what_a_zone_a_device_or_the_router_has_is_not_the_internet_through_a_nat64_either() {
        let ward = online(|policy| {
            policy.zones[0].subnets.push("9.9.9.0/24".to_owned());
            policy.devices.push(Device {
                name: "server".to_owned(),
                zone: "cameras".to_owned(),
                addresses: vec!["8.8.8.8".to_owned()],
                ..Device::default()
            });
        });
        let region = |address| region(&ward, address);
        let internet = region("9.9.8.8");
        assert_ne!(internet, 0);
        for address in ["8.8.8.9", "64:ff9b::808:809", "64:ff9b::909:808"] {
            assert_eq!(region(address), internet, "{address}");
        }
        for address in ["9.9.9.9", "64:ff9b::909:909", "8.8.8.8", "64:ff9b::808:808"] {
            assert_eq!(region(address), 0, "{address}");
        }
        // The entry beside the server's own is nobody's.
        let inventory = Inventory {
            addresses: ["7.7.7.7".parse().expect("an address")].into(),
            ..ward.inventory.clone()
        };
        let tables = ward.compiled(&inventory);
        for address in ["64:ff9b::707:707", "64:ff9b::808:808"] {
            let address: std::net::IpAddr = address.parse().expect("an address");
            let end = tables.addresses[&Address::from(address)];
            assert_eq!(end, End::default(), "{address}");
        }
    }

    #[test]
    fn a_network_of_a_rule_is_in_part_of_the_internet() {
        let rule = |to: &str| Rule {
            name: "part".to_owned(),
            from: vec!["zone:pumps".to_owned()],
            to: vec![to.to_owned()],
            services: vec!["udp/53".to_owned()],
            action: Action::Allow.into(),
            ..Rule::default()
        };
        let pairs = |to: &str| online(|policy| policy.rules.push(rule(to))).tables.pairs;
        // The network of documentation, the internet, and this network.
        assert_eq!(pairs("cidr:10.9.9.0/24").len(), 3);
        // This one twice: an address in it is of the internet, unless a device has it.
        assert_eq!(pairs("cidr:9.9.9.0/24").len(), 4);
        assert_eq!(pairs("cidr:192.0.0.0/24").len(), 4);
    }

    #[test]
    fn the_routers_addresses_are_the_routers_whoever_else_lists_the_subnet() {
        let ward = Ward::new(|_| (), &[]);
        let router = &ward.tables.addresses[&Address::v4([10, 1, 0, 1])];
        assert!(router.is_router());
        assert_eq!(router.zone, 0);
    }

    #[test]
    fn all_by_which_the_router_takes_packets_is_the_routers() {
        let list = |policy: &mut Policy| {
            policy.devices.push(Device {
                name: "inside".to_owned(),
                zone: "pumps".to_owned(),
                addresses: vec!["10.1.9.9".to_owned(), "10.1.0.255".to_owned()],
                macs: vec!["02:00:00:00:09:09".to_owned()],
                ..Device::default()
            });
            policy.rules[0].to.push("cidr:10.1.9.128/25".to_owned());
        };
        let ward = Ward::new(list, &[]);
        let taken = ["10.1.0.255/32", "10.1.9.0/24", "2001:db8::/128"];
        let mut inventory = ward.inventory.clone();
        inventory.taken = taken.map(|net| net.parse().unwrap()).into();
        let tables = ward.compiled(&inventory);
        let end = |address: &str| {
            let address = Address::from(address.parse::<std::net::IpAddr>().unwrap());
            let around = || networks::around((address, 128), |it| tables.prefixes.get(&it));
            tables.addresses.get(&address).or_else(around).copied()
        };
        let router = end("10.1.0.1");
        assert!(router.is_some_and(|it| it.is_router()));
        for address in [
            "10.1.0.255",
            "10.1.9.1",
            "10.1.9.9",
            "10.1.9.200",
            "2001:db8::",
        ] {
            assert_eq!(end(address), router, "{address}");
        }
        for address in ["10.1.0.254", "10.1.10.1", "2001:db8::1"] {
            assert_ne!(end(address), router, "{address}");
        }
        // The device keeps its MAC, and no address of the router's with it.
        let mac = tables.macs[&mac_key(0, 0x0200_0000_0909)];
        assert_eq!(mac.address, Address::default());
    }

    #[test]
    fn a_network_is_connected_where_the_router_reaches_it_through_guarded_ports() {
        let ward = Ward::new(|_| (), &[]);
        let mut inventory = ward.inventory.clone();
        inventory.connected = [
            (LAN1, "10.1.7.0/24"),
            (BRIDGE, "10.1.8.0/24"),
            (UPLINK, "10.1.9.0/24"),
            (LAN1, "10.1.0.0/16"),
            (LAN2, "198.51.100.0/24"),
        ]
        .map(|(index, net)| (index, net.parse().unwrap()))
        .into();
        let connected = |address: [u8; 4]| {
            let tables = ward.compiled(&inventory);
            let address = Address::v4(address);
            let end =
                networks::around((address, 128), |outer| tables.prefixes.get(&outer).copied());
            end.map(|end| (end.zone, end.flags & End::CONNECTED != 0))
        };
        let pumps = ward.zone("pumps") as u16;
        assert_eq!(connected([10, 1, 7, 9]), Some((pumps, true)));
        assert_eq!(connected([10, 1, 8, 9]), Some((pumps, true)));
        assert_eq!(connected([198, 51, 100, 9]), Some((0, true)));
        assert!(connected([203, 0, 113, 9]).is_none_or(|(_, connected)| !connected));
        // A network inside another may be somewhere else.
        assert_eq!(connected([10, 1, 9, 9]), Some((pumps, false)));
    }

    #[test]
    fn the_macs_of_interfaces_are_the_routers_unless_a_device_lists_them() {
        let ward = Ward::new(|_| (), &[]);
        let mut inventory = ward.inventory.clone();
        let (own, permanent) = (Owner([2, 0, 0, 0, 0xff, 1]), Owner([2, 0, 0, 0, 0xff, 2]));
        let (shared, group) = (Owner([2, 0, 0, 0, 1, 1]), Owner([3, 0, 0, 0, 0, 1]));
        for (index, mac) in [
            (LAN1, own),
            (LAN2, shared),
            (BRIDGE, group),
            (UPLINK, Owner([0; 6])),
        ] {
            inventory.links.get_mut(&index).unwrap().mac = Some(mac);
        }
        inventory.links.get_mut(&UPLINK).unwrap().permanent = Some(permanent);
        // The MAC of a macvtap is that of the virtual machine behind it.
        let guests = Link {
            number: 30,
            ifindex: 30,
            name: "macvtap0".to_owned(),
            mac: Some(Owner([2, 0, 0, 0, 0xff, 3])),
            kind: Some("macvtap".to_owned()),
            ..inventory.links[&LAN1].clone()
        };
        inventory.links.insert(guests.number, guests);
        let tables = ward.compiled(&inventory);
        let entry = |mac: &Owner| tables.macs.get(&mac_key(0, mac_number(mac)));
        for mac in [own, permanent] {
            assert!(entry(&mac).is_some_and(|it| it.device == ROUTER));
        }
        let listed = entry(&shared).unwrap();
        assert_eq!(listed.device, ward.device("pump"));
        let flags = End::GUARDED | End::LEARNS_V6 | Mac::ROUTERS;
        assert_eq!(listed.flags, flags);
        assert_eq!(tables.macs.len(), ward.tables.macs.len() + 2);
    }

    #[test]
    fn macs_beyond_the_room_are_not_the_routers_but_those_of_ports_are() {
        let ward = Ward::new(|_| (), &[]);
        let mut inventory = ward.inventory.clone();
        let numbered = |n: u32| {
            let [_, a, b, c] = n.to_be_bytes();
            Owner([2, 1, 0, a, b, c])
        };
        let link = inventory.links[&UPLINK].clone();
        for index in 0..5000 {
            // Indices on both sides of the ports'.
            let index = if index < 10 { index + 1 } else { index + 1000 };
            let (name, mac) = (format!("veth{index}"), Some(numbered(index)));
            inventory.links.insert(
                index,
                Link {
                    number: index,
                    ifindex: index,
                    name,
                    mac,
                    ..link.clone()
                },
            );
        }
        let port = Owner([2, 0, 0, 0, 0xff, 1]);
        inventory.links.get_mut(&LAN2).unwrap().mac = Some(port);
        let tables = ward.compiled(&inventory);
        assert_eq!(tables.macs.len(), ward.tables.macs.len() + ROUTER_MACS);
        assert!(tables.macs.contains_key(&mac_key(0, mac_number(&port))));
    }

    #[test]
    fn who_lists_no_address_of_a_family_is_found_by_number_and_learns() {
        let learns = |learn: Option<bool>| {
            let ward = Ward::new(|policy| policy.devices[0].learn = learn, &[]);
            ["pump", "visitor"].map(|name| {
                let number = ward.device(name);
                let known = ward.tables.devices.get(&number);
                let mut macs = ward.tables.macs.values();
                let mac = macs.find(|mac| mac.device == number);
                let flags = mac.map_or(0, |mac| mac.flags & End::LEARNS);
                assert_eq!(known.map_or(0, |it| it.flags & End::LEARNS), flags);
                flags
            })
        };
        assert_eq!(learns(None), [End::LEARNS_V6, End::LEARNS]);
        assert_eq!(learns(Some(false)), [0, End::LEARNS]);
    }

    #[test]
    fn the_order_of_the_document_means_nothing() {
        let ward = Ward::new(|_| (), &[]);
        let turned = Ward::new(
            |policy| {
                policy.zones.reverse();
                policy.ports.reverse();
                policy.devices.reverse();
            },
            &[],
        );
        let again = compile(
            &turned.intent,
            &ward.inventory,
            &ward.ids,
            &Quarantine::default(),
            &ward.clock,
        );
        assert_eq!(again, ward.tables);
    }
}
