//! Intent and inventory to [`Tables`]: what the kernel's maps have to hold. Pure and deterministic.
//!
//! Rules become pairs of names (see [`End`]): a zone, a class of devices that rules name alike, a
//! region of addresses inside the same `cidr:` selectors, the router, or `any`. So a rule between
//! two zones is one pair, however many devices they have, and the number of lookups for a packet
//! does not grow with the number of rules.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;
use jiff::Timestamp;
use wardline_ebpf::abi::{
    Address, End, Interval, KEPT, LOG, MAX_IFINDEX, MAX_ZONES, Mac, NEVER, Port, ROUTER,
    TICK_SHIFT, carries_key, ethertype_key, kind, mac_key, name, pair_bit, vlan_key, zone,
};

use crate::{
    config::Limits,
    intent::{self, Action, Intent, Problem, Selector, ZoneIndex},
    inventory::Inventory,
    store::Ids,
};

/// What the maps of one revision hold. Keys that have a slot in the kernel have slot 0 here.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tables {
    /// Interfaces, by index.
    pub ports: BTreeMap<u32, Port>,
    /// What is on which VLAN, and what else passes.
    pub places: BTreeMap<u64, u32>,
    /// Settings, by zone number; 0: [`zone::pairs_of_any`].
    pub zones: BTreeMap<u32, u32>,
    /// Devices, by MAC.
    pub macs: BTreeMap<u64, Mac>,
    /// Ends with an exact address.
    pub addresses: BTreeMap<Address, End>,
    /// Ends by prefix: the address and its length, of 128 bits.
    pub prefixes: BTreeMap<(Address, u8), End>,
    /// Devices that learn their addresses, by number.
    pub devices: BTreeMap<u32, End>,
    /// What pairs of names may do; the opener's has [`KEPT`] where an end is in quarantine.
    pub pairs: BTreeMap<(u32, u32), Intervals>,
}

/// Entries that stand in the maps otherwise than they were compiled.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Amendment {
    /// As [`Tables::macs`].
    pub macs: BTreeMap<u64, Mac>,
    /// As [`Tables::addresses`].
    pub addresses: BTreeMap<Address, End>,
    /// As [`Tables::devices`].
    pub devices: BTreeMap<u32, End>,
}

impl Amendment {
    /// Every entry of a device, as it is when the device is cut off, or is not.
    pub fn quarantine(
        tables: &Tables,
        device: &intent::Device,
        number: u32,
        quarantined: bool,
    ) -> Self {
        let flagged = |flags: u16| {
            if quarantined {
                flags | End::QUARANTINED
            } else {
                flags & !End::QUARANTINED
            }
        };
        let end = |end: &End| End {
            flags: flagged(end.flags),
            ..*end
        };
        let macs = device.macs.iter().filter_map(|mac| {
            let key = mac_key(0, mac_number(mac));
            let mut entry = *tables.macs.get(&key)?;
            entry.flags = flagged(entry.flags);
            if entry.end.device != 0 {
                entry.end = end(&entry.end);
            }
            Some((key, entry))
        });
        let addresses = device.addresses.iter().filter_map(|address| {
            let address = address_of(*address);
            Some((address, end(tables.addresses.get(&address)?)))
        });
        let own = tables.devices.get(&number);
        Self {
            macs: macs.collect(),
            addresses: addresses.collect(),
            devices: own.map(|own| (number, end(own))).into_iter().collect(),
        }
    }

    /// Takes another's entries over, in place of its own.
    pub fn extend(&mut self, later: Self) {
        self.macs.extend(later.macs);
        self.addresses.extend(later.addresses);
        self.devices.extend(later.devices);
    }
}

/// What a pair may do: sorted, from 0 on, never empty. Equal ones are the same allocation.
pub type Intervals = Arc<[Interval]>;

/// The kernel's time against the world's, at one instant.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clock {
    /// The world's.
    pub now: Timestamp,
    /// The kernel's, in jiffies.
    pub jiffies: u64,
    /// Jiffies in a second.
    pub per_second: u32,
}

impl Clock {
    /// The tick at which a time has come; [`NEVER`] when it is further off than ticks count.
    pub fn tick(&self, time: Timestamp) -> u32 {
        let milliseconds = i128::from(time.as_millisecond() - self.now.as_millisecond());
        let jiffies = i128::from(self.jiffies) + milliseconds * i128::from(self.per_second) / 1000;
        let ticks = (jiffies + (1 << TICK_SHIFT) - 1) >> TICK_SHIFT;
        ticks.clamp(1, i128::from(NEVER)) as u32
    }

    /// How long ago a tick was, in seconds, when it is `now` ticks.
    pub fn seconds_since(&self, tick: u32, now: u32) -> u64 {
        // It may be a tick ahead of a present that was read before it.
        let ticks = (now.wrapping_sub(tick) as i32).max(0) as u64;
        (ticks << TICK_SHIFT) / u64::from(self.per_second.max(1))
    }
}

/// Kinds of numbers in [`Ids`].
pub mod numbered {
    #![expect(missing_docs, reason = "each is its own description")]
    pub const ZONE: &str = "zone";
    pub const DEVICE: &str = "device";
    pub const RULE: &str = "rule";
    pub const CIDR: &str = "cidr";
}

/// Numbers for everything that the tables name by number.
///
/// What has a number keeps it, also while it is gone: flows and counters refer to it. Only when
/// the numbers run out, those of what is gone are given away again.
///
/// # Errors
///
/// When there are more zones or networks than numbers.
pub fn number(intent: &Intent, ids: &Ids, limits: &Limits) -> Result<Ids, Vec<Problem>> {
    let names = |kind: &'static str| -> Vec<String> {
        match kind {
            numbered::ZONE => intent.zones.iter().map(|zone| zone.name.clone()).collect(),
            numbered::DEVICE => intent
                .devices
                .iter()
                .map(|device| device.name.clone())
                .collect(),
            numbered::RULE => intent.rules.iter().map(|rule| rule.name.clone()).collect(),
            _ => cidrs(intent).iter().map(ToString::to_string).collect(),
        }
    };
    let kinds = [
        (numbered::ZONE, 1, MAX_ZONES - 1),
        (numbered::DEVICE, ROUTER + 1, limits.devices),
        (numbered::RULE, 1, limits.rules),
        (numbered::CIDR, 1, 1 << 24),
    ];
    let mut problems = Vec::new();
    let mut numbered = Ids::new();
    for (kind, first, count) in kinds {
        let wanted = names(kind);
        if wanted.len() > count as usize {
            problems.push(Problem {
                path: format!("{kind}s"),
                message: format!("{} {kind}s, but the tables hold {count}", wanted.len()),
            });
            continue;
        }
        let mut old: BTreeMap<&str, u32> = ids
            .iter()
            .filter(|((of, _), _)| of == kind)
            .map(|((_, name), number)| (name.as_str(), *number))
            .collect();
        let fresh = wanted
            .iter()
            .filter(|name| !old.contains_key(name.as_str()))
            .count();
        if old.len() + fresh > count as usize {
            let wanted: BTreeSet<&str> = wanted.iter().map(String::as_str).collect();
            old.retain(|name, _| wanted.contains(name));
        }
        let taken: BTreeSet<u32> = old.values().copied().collect();
        let mut free = (first..).filter(|number| !taken.contains(number));
        for name in &wanted {
            if !old.contains_key(name.as_str())
                && let Some(number) = free.next()
            {
                numbered.insert((kind.to_owned(), name.clone()), number);
            }
        }
        for (name, number) in old {
            numbered.insert((kind.to_owned(), name.to_owned()), number);
        }
    }
    if problems.is_empty() {
        Ok(numbered)
    } else {
        Err(problems)
    }
}

/// Whether everything has a number already, so that [`number`] would change none.
pub fn is_numbered(intent: &Intent, ids: &Ids, limits: &Limits) -> bool {
    let mut known: HashMap<&str, HashSet<&str>> = HashMap::new();
    for (kind, name) in ids.keys() {
        known.entry(kind).or_default().insert(name);
    }
    let has = |kind: &str, name: &str| known.get(kind).is_some_and(|names| names.contains(name));
    let fits = |kind: &str, count: u32| {
        let names = known.get(kind).map_or(0, HashSet::len);
        names <= count as usize
    };
    let (mut zones, mut devices) = (intent.zones.iter(), intent.devices.iter());
    zones.all(|zone| has(numbered::ZONE, &zone.name))
        && devices.all(|device| has(numbered::DEVICE, &device.name))
        && intent
            .rules
            .iter()
            .all(|rule| has(numbered::RULE, &rule.name))
        && cidrs(intent)
            .iter()
            .all(|net| has(numbered::CIDR, &net.to_string()))
        && fits(numbered::DEVICE, limits.devices)
        && fits(numbered::RULE, limits.rules)
}

/// The `cidr:` selectors, once each.
fn cidrs(intent: &Intent) -> BTreeSet<IpNet> {
    let selectors = intent
        .rules
        .iter()
        .flat_map(|rule| rule.from.iter().chain(&rule.to));
    selectors
        .filter_map(|selector| match selector {
            Selector::Cidr(net) => Some(*net),
            _ => None,
        })
        .collect()
}

/// The number of a rule, with whether its flows are logged.
fn rule_number(rule: &intent::Rule, ids: &Ids) -> u32 {
    let number = number_of(ids, numbered::RULE, &rule.name);
    if rule.log { number | LOG } else { number }
}

/// A number that [`number`] has given; 0, which nothing has, for what it has not.
pub fn number_of(ids: &Ids, kind: &str, name: &str) -> u32 {
    ids.get(&(kind.to_owned(), name.to_owned()))
        .copied()
        .unwrap_or(0)
}

/// The tables that make the kernel do what the intent says, on the interfaces that exist.
///
/// `quarantined` are names of devices that are cut off.
pub fn compile(
    intent: &Intent,
    inventory: &Inventory,
    ids: &Ids,
    quarantined: &BTreeSet<String>,
    clock: &Clock,
) -> Tables {
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

    ports(intent, inventory, &zone_of, &mut tables);
    zones(intent, &zone_of, &mut tables);

    let networks = Networks::of(intent, ids, &zone_of);
    let classes = classes(intent, &device_numbers);
    pairs(
        intent,
        ids,
        &classes,
        &networks,
        &zone_of,
        clock,
        &mut tables,
    );
    let kinds = Kinds::of(&tables.pairs);
    tables.zones.insert(0, kinds.any());

    for ((net, zone), region) in networks.all() {
        let end = kinds.mark(End {
            zone,
            region,
            ..End::default()
        });
        tables.prefixes.insert(net, end);
    }
    for (index, device) in intent.devices.iter().enumerate() {
        let mut flags = 0;
        if quarantined.contains(&device.name) {
            flags |= End::QUARANTINED;
        }
        if !device.macs.is_empty() {
            flags |= End::GUARDED;
        }
        if device.addresses.is_empty() {
            flags |= End::LEARNS;
        }
        let number = device_numbers[index];
        let end = End {
            device: number,
            class: classes[index],
            zone: zone_of(device.zone),
            flags,
            ..End::default()
        };
        for address in &device.addresses {
            let address = address_of(*address);
            let end = End {
                region: networks.region(address),
                ..end
            };
            tables.addresses.insert(address, kinds.mark(end));
        }
        if device.addresses.is_empty() {
            tables.devices.insert(number, kinds.mark(end));
        }
        let ifindex = match &device.port {
            // A port that does not exist is not a port where it may be.
            Some(port) => inventory.link(port).map_or(u32::MAX, |link| link.index),
            None => 0,
        };
        for mac in &device.macs {
            let entry = Mac {
                device: number,
                ifindex,
                zone: zone_of(device.zone),
                flags,
                ..Mac::default()
            };
            tables.macs.insert(mac_key(0, mac_number(mac)), entry);
        }
    }
    for address in &inventory.addresses {
        let end = End {
            device: ROUTER,
            class: ROUTER,
            ..End::default()
        };
        tables
            .addresses
            .insert(address_of(*address), kinds.mark(end));
    }
    // Last, when every address is what it is.
    for device in &intent.devices {
        let Some(address) = device.addresses.first().map(|it| address_of(*it)) else {
            continue;
        };
        for mac in &device.macs {
            let key = mac_key(0, mac_number(mac));
            if let (Some(entry), Some(end)) =
                (tables.macs.get_mut(&key), tables.addresses.get(&address))
                && end.device == entry.device
            {
                (entry.address, entry.end) = (address, *end);
            }
        }
    }
    tables
}

/// A MAC as the number that the tables hold.
pub fn mac_number(mac: &intent::Mac) -> u64 {
    wardline_ebpf::packet::mac(&mac.0)
}

/// An address as the tables hold it.
pub fn address_of(address: IpAddr) -> Address {
    match address {
        IpAddr::V4(address) => Address::v4(address.octets()),
        IpAddr::V6(address) => Address::v6(&address.octets()),
    }
}

/// Guarded interfaces, what they carry, and what is above them.
fn ports(
    intent: &Intent,
    inventory: &Inventory,
    zone_of: &impl Fn(ZoneIndex) -> u16,
    tables: &mut Tables,
) {
    for link in inventory
        .links
        .values()
        .filter(|link| link.index < MAX_IFINDEX)
    {
        let Some(port) = intent.port_for(&link.name) else {
            continue;
        };
        let mut flags = Port::GUARDED;
        if port.dhcp_server {
            flags |= Port::DHCP_SERVER;
        }
        if port.router {
            flags |= Port::ROUTER;
        }
        let untagged = port.zone.map_or(0, zone_of);
        tables.ports.insert(
            link.index,
            Port {
                zone: untagged,
                flags,
            },
        );
        let tagged = port
            .vlans
            .iter()
            .map(|(vlan, zone)| (*vlan, zone_of(*zone)));
        for (vlan, zone) in tagged.chain([(0, untagged)]).filter(|(_, zone)| *zone != 0) {
            if vlan != 0 {
                tables
                    .places
                    .insert(vlan_key(0, link.index, vlan), u32::from(zone));
            }
            tables.places.insert(carries_key(0, link.index, zone), 1);
        }
    }
    // What a bridge or a VLAN interface hands on may have entered through a port below it.
    let mut below: Vec<u32> = tables.ports.keys().copied().collect();
    while let Some(index) = below.pop() {
        let Some(link) = inventory.links.get(&index) else {
            continue;
        };
        let upper = inventory
            .links
            .values()
            .filter(|other| other.parent == Some(index));
        let above = upper.map(|other| other.index).chain(link.controller);
        for index in above.filter(|index| *index < MAX_IFINDEX) {
            let entry = tables.ports.entry(index).or_default();
            if entry.flags & Port::ABOVE == 0 {
                entry.flags |= Port::ABOVE;
                below.push(index);
            }
        }
    }
}

fn zones(intent: &Intent, zone_of: &impl Fn(ZoneIndex) -> u16, tables: &mut Tables) {
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

/// Every prefix that zones and rules name, with what an address in it belongs to.
struct Networks {
    /// By prefix: zone, region. Laminar: two prefixes are apart, or one is inside the other.
    prefixes: BTreeMap<(Address, u8), (u16, u32)>,
    /// Regions inside a `cidr:`, its own among them.
    inside: BTreeMap<IpNet, Vec<u32>>,
}

impl Networks {
    fn of(intent: &Intent, ids: &Ids, zone_of: &impl Fn(ZoneIndex) -> u16) -> Self {
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
        // Whatever nothing names is somewhere too.
        let everywhere = [
            (address_of(IpAddr::from([0u8; 4])), 96),
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

    fn all(&self) -> impl Iterator<Item = (((Address, u8), u16), u32)> {
        self.prefixes
            .iter()
            .map(|(prefix, (zone, region))| ((*prefix, *zone), *region))
    }

    /// The region of an address.
    fn region(&self, address: Address) -> u32 {
        around((address, 128), |outer| self.prefixes.get(&outer)).map_or(0, |(_, region)| *region)
    }
}

/// What the longest of the prefixes around one has, itself among them.
fn around<T>(prefix: (Address, u8), get: impl Fn((Address, u8)) -> Option<T>) -> Option<T> {
    let family = if prefix.0.is_v4() && prefix.1 >= 96 {
        96
    } else {
        0
    };
    (family..=prefix.1)
        .rev()
        .find_map(|length| get((cut(prefix.0, length), length)))
}

fn each_around(prefix: (Address, u8), mut visit: impl FnMut((Address, u8))) {
    let family = if prefix.0.is_v4() && prefix.1 >= 96 {
        96
    } else {
        0
    };
    (family..=prefix.1).for_each(|length| visit((cut(prefix.0, length), length)));
}

/// The first bits of an address.
fn cut(address: Address, length: u8) -> Address {
    let number = u128::from_be_bytes(address.octets());
    let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
    Address::v6(&(number & mask).to_be_bytes())
}

/// A prefix as the tables hold it.
fn prefix_of(net: IpNet) -> (Address, u8) {
    match net {
        IpNet::V4(net) => (Address::v4(net.network().octets()), 96 + net.prefix_len()),
        IpNet::V6(net) => (Address::v6(&net.network().octets()), net.prefix_len()),
    }
}

/// The class of each device: those that the same rules name on the same side share one, which has
/// the lowest of their numbers. 0: no rule names the device.
fn classes(intent: &Intent, numbers: &[u32]) -> Vec<u32> {
    let mut named: Vec<Vec<u32>> = vec![Vec::new(); intent.devices.len()];
    for (index, rule) in intent.rules.iter().enumerate() {
        for (side, selectors) in [&rule.from, &rule.to].into_iter().enumerate() {
            for selector in selectors {
                if let Selector::Device(device) = selector {
                    named[device.0].push((index * 2 + side) as u32);
                }
            }
        }
    }
    let mut lowest: HashMap<&[u32], u32> = HashMap::new();
    for (device, sides) in named
        .iter()
        .enumerate()
        .filter(|(_, sides)| !sides.is_empty())
    {
        let class = lowest.entry(sides).or_insert(numbers[device]);
        *class = (*class).min(numbers[device]);
    }
    named
        .iter()
        .map(|sides| lowest.get(sides.as_slice()).copied().unwrap_or(0))
        .collect()
}

/// What each pair of names may do.
fn pairs(
    intent: &Intent,
    ids: &Ids,
    classes: &[u32],
    networks: &Networks,
    zone_of: &impl Fn(ZoneIndex) -> u16,
    clock: &Clock,
    tables: &mut Tables,
) {
    let names = |selectors: &[Selector]| -> BTreeSet<u32> {
        let mut names = BTreeSet::new();
        for selector in selectors {
            match selector {
                Selector::Any => drop(names.insert(name(kind::ANY, 1))),
                Selector::Router => drop(names.insert(name(kind::CLASS, ROUTER))),
                Selector::Zone(zone) => {
                    names.insert(name(kind::ZONE, u32::from(zone_of(*zone))));
                }
                Selector::Device(device) => {
                    names.insert(name(kind::CLASS, classes[device.0]));
                }
                Selector::Cidr(net) => {
                    let inside = networks.inside.get(net).into_iter().flatten();
                    names.extend(inside.map(|region| name(kind::REGION, *region)));
                }
            }
        }
        names
    };
    let mut rules: BTreeMap<(u32, u32), Vec<usize>> = BTreeMap::new();
    // What denies is kept only where there is something to deny.
    let keeps = |rule: &intent::Rule| rule.kept && rule.action == Action::Allow;
    let kept = intent.rules.iter().any(keeps);
    for (index, rule) in intent.rules.iter().enumerate() {
        let to = names(&rule.to);
        for from in names(&rule.from) {
            for to in &to {
                rules.entry((from, *to)).or_default().push(index);
                if kept && rule.kept {
                    rules.entry((from | KEPT, *to)).or_default().push(index);
                }
            }
        }
    }
    let judged: Vec<Judged<'_>> = intent
        .rules
        .iter()
        .map(|rule| Judged {
            rule,
            number: rule_number(rule, ids),
            until: rule.expires.map_or(NEVER, |expires| clock.tick(expires)),
        })
        .collect();
    let mut shared: HashMap<Vec<usize>, Intervals> = HashMap::new();
    for (pair, rules) in rules {
        let intervals = shared.entry(rules).or_insert_with_key(|rules| {
            intervals(
                &rules
                    .iter()
                    .map(|index| &judged[*index])
                    .collect::<Vec<_>>(),
            )
            .into()
        });
        tables.pairs.insert(pair, Arc::clone(intervals));
    }
}

/// A rule and what the tables call it.
struct Judged<'a> {
    rule: &'a intent::Rule,
    number: u32,
    until: u32,
}

/// The intervals that rules make: wherever several match, the deny and the allow that last longest,
/// and of those the one with the lowest number.
fn intervals(rules: &[&Judged<'_>]) -> Vec<Interval> {
    // At each key, what begins and what has ended.
    let mut changes: BTreeMap<u32, Vec<(bool, usize)>> = BTreeMap::from([(0, Vec::new())]);
    for (index, judged) in rules.iter().enumerate() {
        for service in &judged.rule.services {
            changes
                .entry(service.first)
                .or_default()
                .push((true, index));
            changes
                .entry(service.last.saturating_add(1))
                .or_default()
                .push((false, index));
        }
    }
    let rank = |index: usize| {
        let judged = rules[index];
        (std::cmp::Reverse(judged.until), judged.number & !LOG, index)
    };
    let (mut denies, mut allows) = (BTreeSet::new(), BTreeSet::new());
    let mut intervals: Vec<Interval> = Vec::new();
    for (start, changes) in changes {
        // Ends first: a rule's intervals do not overlap, but one may end where another begins.
        for (begins, index) in changes
            .iter()
            .filter(|(begins, _)| !begins)
            .chain(changes.iter().filter(|(begins, _)| *begins))
        {
            let active = match rules[*index].rule.action {
                Action::Deny => &mut denies,
                Action::Allow => &mut allows,
            };
            if *begins {
                active.insert(rank(*index));
            } else {
                active.remove(&rank(*index));
            }
        }
        let best = |active: &BTreeSet<(std::cmp::Reverse<u32>, u32, usize)>| {
            active
                .first()
                .map_or((0, 0), |(until, _, index)| (rules[*index].number, until.0))
        };
        let ((deny, deny_until), (allow, allow_until)) = (best(&denies), best(&allows));
        let interval = Interval {
            start,
            deny,
            deny_until,
            allow,
            allow_until,
        };
        let same = |last: &Interval| Interval { start, ..*last } == interval;
        if !intervals.last().is_some_and(same) {
            intervals.push(interval);
        }
    }
    intervals
}

/// Which kinds of pairs exist with a name on either side.
struct Kinds {
    from: HashMap<u32, u16>,
    to: HashMap<u32, u16>,
}

impl Kinds {
    fn of(pairs: &BTreeMap<(u32, u32), Intervals>) -> Self {
        let (mut from, mut to) = (HashMap::new(), HashMap::new());
        // What is kept exists without that, too.
        for (opener, other) in pairs.keys().filter(|(opener, _)| opener & KEPT == 0) {
            let bit = pair_bit(opener >> 28, other >> 28);
            *from.entry(*opener).or_default() |= bit;
            *to.entry(*other).or_default() |= bit;
        }
        Self { from, to }
    }

    /// Which pairs there are with `any` on either side: kept once, not in each end, so that a rule
    /// which says `any` does not change every end.
    fn any(&self) -> u32 {
        let name = name(kind::ANY, 1);
        let bits = |kinds: &HashMap<u32, u16>| kinds.get(&name).copied().unwrap_or(0);
        zone::pairs_of_any(bits(&self.from), bits(&self.to))
    }

    /// An end that knows which pairs there are with its own names.
    fn mark(&self, end: End) -> End {
        let (mut from, mut to) = (0, 0);
        for kind in [kind::CLASS, kind::ZONE, kind::REGION] {
            let name = end.name(kind);
            from |= self.from.get(&name).copied().unwrap_or(0);
            to |= self.to.get(&name).copied().unwrap_or(0);
        }
        End { from, to, ..end }
    }
}

/// An address of the tables, as the standard library has it.
pub fn ip_of(address: Address) -> IpAddr {
    std::net::Ipv6Addr::from(address.octets()).to_canonical()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn intent(devices: &[&str]) -> Intent {
        let mut text = "version: 1\nzones: [{name: pumps, subnets: [10.0.0.0/24]}]\n".to_owned();
        text += "rules: [{name: web, from: [zone:pumps], to: ['cidr:192.0.2.0/24'], action: allow}]\ndevices:\n";
        for (n, name) in (1..).zip(devices) {
            text += &format!("  - {{name: {name}, zone: pumps, addresses: [10.0.0.{n}]}}\n");
        }
        let (policy, problems) = wardline_proto::document::parse(&text);
        assert!(problems.is_empty(), "{problems:?}");
        Intent::from_policy(&policy, &Limits::default()).unwrap()
    }

    #[test]
    fn what_has_a_number_keeps_it() {
        let limits = Limits::default();
        let both = number(&intent(&["one", "two"]), &Ids::new(), &limits).unwrap();
        for fewer in [&["one", "two"][..], &["two"], &[]] {
            assert!(is_numbered(&intent(fewer), &both, &limits));
            assert_eq!(number(&intent(fewer), &both, &limits).unwrap(), both);
        }
        let other = intent(&["two", "three"]);
        assert!(!is_numbered(&other, &both, &limits));
        let numbers = number(&other, &both, &limits).unwrap();
        assert!(both.iter().all(|(key, number)| numbers[key] == *number));
        assert_eq!(numbers.len(), both.len() + 1);

        // With room for two, the one that is gone gives its number away.
        let few = Limits {
            devices: 2,
            ..limits
        };
        assert!(!is_numbered(&intent(&["two"]), &numbers, &few));
        let numbers = number(&other, &both, &few).unwrap();
        assert_eq!(number_of(&numbers, numbered::DEVICE, "one"), 0);
        let freed = number_of(&both, numbered::DEVICE, "one");
        assert_eq!(number_of(&numbers, numbered::DEVICE, "three"), freed);
    }
}
