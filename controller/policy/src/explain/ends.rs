//! Resolves the words of a question to the ends of the flow.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;
use wardline_ebpf::{
    abi::{self, Address, End, PrefixKey, ROUTER, Settings, behind_key, holder, mac_key},
    learning::Claim,
    lookup::Lookup as _,
    policy,
};

use super::{
    Learned,
    addresses::{documentation, hosts_of, is_usable, is_v4, past, public},
};
use crate::{
    intent::{Device, ZoneIndex},
    internet,
    inventory::Inventory,
    model::Model,
    numbers::{cidrs, domains, number_of, numbered},
    snapshot::Snapshot,
    words::{domain::Domain, label::Label, problem::Problem},
};

pub(super) fn problem(path: &str, message: impl Into<String>) -> Problem {
    Problem {
        path: path.to_owned(),
        message: message.into(),
    }
}

/// An address that may stand for one end of the packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate<'a> {
    pub(super) address: IpAddr,
    pub(super) owner: Owner<'a>,
}

/// The owner of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner<'a> {
    Router,
    Device(&'a Device),
    /// An address that no device has.
    Nobody,
}

/// Resolves the words of a question in a snapshot.
pub(super) struct Resolver<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) model: Model<'a>,
    pub(super) tick: u32,
    learned: &'a dyn Learned,
}

impl<'a> Resolver<'a> {
    pub(super) fn new(snapshot: &'a Snapshot, learned: &'a dyn Learned, tick: u32) -> Self {
        let mut model = Model::new(&snapshot.tables, Settings::for_flows(64));
        model.amend(&snapshot.amended);
        model.spare(snapshot.failsafe.iter().copied());
        model.set_tick(tick);
        Self {
            snapshot,
            model,
            tick,
            learned,
        }
    }

    /// The device that has learned an address, as far as the tables accept it.
    fn learned_by(&self, address: IpAddr) -> Option<u32> {
        if is_link_local(address) {
            return self.neighbour(address.into());
        }
        let device = self.learned.device(address.into())?;
        self.accepts(device, address).then_some(device)
    }

    /// The device of a link-local address: whose MAC it is made of, or who has it on any link.
    fn neighbour(&self, address: Address) -> Option<u32> {
        let tables = &self.snapshot.tables;
        if let Some(mac) = tables.macs.get(&mac_key(0, address.made_of_mac())) {
            return Some(mac.device);
        }
        let links: BTreeSet<u32> = tables.ports.values().map(|port| port.link).collect();
        let mut links = links.into_iter();
        links.find_map(|link| self.learned.device(address.on_link(link)))
    }

    /// The number of the interface where an end was last seen.
    pub(super) fn seen_at(&self, candidate: &Candidate<'_>) -> Option<u32> {
        match candidate.owner {
            Owner::Device(device) => self.learned.seen(self.device_number(device)),
            Owner::Nobody => self.learned.learned_at(candidate.address.into()),
            Owner::Router => None,
        }
    }

    fn accepts(&self, device: u32, address: IpAddr) -> bool {
        // One that is link-local does not represent its device: it is on one link only.
        if is_link_local(address) {
            return false;
        }
        let end = self.snapshot.tables.devices.get(&device);
        end.is_some_and(|end| self.is_in(end.zone, address))
    }

    /// Reads `from` or `to`. Addresses that are made up are not in `taken`, and are added to it.
    pub(super) fn ends(
        &self,
        path: &str,
        text: &str,
        taken: &mut BTreeSet<IpAddr>,
    ) -> Result<Vec<Candidate<'a>>, Problem> {
        let intent = &self.snapshot.intent;
        let none = |what: String| problem(path, format!("{what} has no address to explain with"));
        let (found, what) = match text.split_once(':') {
            None if text == "router" => (self.router(), "the router".to_owned()),
            None if text == "any" => (self.any(taken), "what nothing names".to_owned()),
            None if text == "internet" => (self.internet(taken), "the internet".to_owned()),
            Some(("zone", name)) => {
                let at = intent.zones.iter().position(|zone| zone.name == name);
                let at = at.ok_or_else(|| problem(path, format!("no zone {name:?}")))?;
                (self.zone(ZoneIndex(at), taken), format!("zone {name:?}"))
            }
            Some(("device", name)) => {
                let device = self.device(name);
                let device = device.ok_or_else(|| problem(path, format!("no device {name:?}")))?;
                (self.addresses(device, taken), format!("device {name:?}"))
            }
            Some(("label", label)) => {
                let label: Label = label
                    .parse()
                    .map_err(|message: String| problem(path, message))?;
                let what = format!("a device with label {label}");
                (self.labelled(&label, taken), what)
            }
            Some(("cidr", prefix)) => {
                let net: IpNet = prefix.parse().map_err(|_| {
                    let right = "write a prefix as cidr:10.20.0.0/16";
                    problem(path, format!("{prefix:?} is not a prefix; {right}"))
                })?;
                (self.inside(net), format!("{net}"))
            }
            Some(("name", name)) => (self.named(path, name, taken)?, String::new()),
            None if text.contains('.') && text.parse::<IpAddr>().is_err() => {
                (self.named(path, text, taken)?, String::new())
            }
            None | Some(_) => {
                let address: IpAddr = text.parse().map_err(|_| {
                    let right = "write an address, zone:NAME, device:NAME, label:KEY=VALUE, \
                                 cidr:PREFIX, name:NAME, internet, router or any";
                    problem(path, format!("{text:?} is no end of a packet; {right}"))
                })?;
                taken.insert(address);
                (
                    vec![Candidate {
                        address,
                        owner: self.owner(address),
                    }],
                    String::new(),
                )
            }
        };
        if found.is_empty() {
            Err(none(what))
        } else {
            Ok(found)
        }
    }

    /// The addresses that a name of the policy has.
    fn named(
        &self,
        path: &str,
        text: &str,
        taken: &mut BTreeSet<IpAddr>,
    ) -> Result<Vec<Candidate<'a>>, Problem> {
        let name: Domain = text
            .parse()
            .map_err(|message: String| problem(path, message))?;
        let name = name.to_string();
        let number = number_of(&self.snapshot.ids, numbered::NAME, &name);
        let mut names = domains(&self.snapshot.intent).into_iter();
        if number == 0 || !names.any(|it| it.to_string() == name) {
            let message =
                format!("no rule has name:{name}; `wardctl names` lists those that rules have");
            return Err(problem(path, message));
        }
        let mut known = self.learned.named(number);
        known.retain(|(_, until)| self.tick < *until);
        known.sort_unstable();
        if known.is_empty() {
            let message = format!(
                "no answer for name:{name} was seen yet, or all are over; a device has to ask its resolver"
            );
            return Err(problem(path, message));
        }
        let candidates = known.into_iter().map(|(address, _)| {
            taken.insert(address);
            Candidate {
                address,
                owner: self.owner(address),
            }
        });
        Ok(candidates.collect())
    }

    pub(super) fn router(&self) -> Vec<Candidate<'a>> {
        // One that is link-local is on one link only, so it comes last.
        let mut addresses: Vec<IpAddr> =
            self.snapshot.inventory.addresses.iter().copied().collect();
        addresses.sort_by_key(|address| is_link_local(*address));
        let candidates = addresses.into_iter().map(|address| Candidate {
            address,
            owner: Owner::Router,
        });
        candidates.collect()
    }

    /// A documentation address of each family that is in no prefix but the one for all addresses.
    pub(super) fn any(&self, taken: &mut BTreeSet<IpAddr>) -> Vec<Candidate<'a>> {
        let mut found = Vec::new();
        for (v4, everything) in [
            (true, IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            (false, IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
        ] {
            let around = self.around(everything);
            let hosts = documentation()
                .into_iter()
                .filter(|net| is_v4(net.addr()) == v4);
            let free = hosts
                .flat_map(hosts_of)
                .find(|address| self.is_free(*address, taken) && self.around(*address) == around);
            if let Some(address) = free {
                taken.insert(address);
                found.push(Candidate {
                    address,
                    owner: Owner::Nobody,
                });
            }
        }
        found
    }

    /// A public address of each family that is in no zone and nobody's, in no `cidr:` of a rule if
    /// there is one.
    pub(super) fn internet(&self, taken: &mut BTreeSet<IpAddr>) -> Vec<Candidate<'a>> {
        let cidrs = cidrs(&self.snapshot.intent);
        let is_named = |address: &IpAddr| cidrs.iter().any(|net| net.contains(address));
        let mut found = Vec::new();
        for v4 in [true, false] {
            let hosts = public().filter(|net| is_v4(net.addr()) == v4);
            let free: Vec<IpAddr> = hosts
                .flat_map(|net| hosts_of(net).take(2))
                .filter(|address| {
                    internet::is_public(*address)
                        && self.around(*address).zone == 0
                        && self.is_free(*address, taken)
                })
                .collect();
            let chosen = free.iter().find(|address| !is_named(address));
            if let Some(address) = chosen.or(free.first()).copied() {
                taken.insert(address);
                found.push(Candidate {
                    address,
                    owner: Owner::Nobody,
                });
            }
        }
        found
    }

    /// A few candidates of each family, the best first: devices with an address, devices that could
    /// take one, an address that no device has. Several, because both ends may be in the same zone.
    pub(super) fn zone(&self, zone: ZoneIndex, taken: &mut BTreeSet<IpAddr>) -> Vec<Candidate<'a>> {
        let intent = &self.snapshot.intent;
        let is_cut_off = |device: &Device| self.snapshot.quarantined.device(device).is_some();
        let mut devices: Vec<&'a Device> = intent
            .devices
            .iter()
            .filter(|device| device.zone == zone)
            .collect();
        // Devices in quarantine come last, because they do not represent their zone.
        devices.sort_by_key(|device| is_cut_off(device));
        let mut found = Vec::new();
        for v4 in [true, false] {
            let known = devices.iter().filter_map(|device| {
                let address = self.known(device).find(|address| is_v4(*address) == v4)?;
                Some(Candidate {
                    address,
                    owner: Owner::Device(device),
                })
            });
            found.extend(known.take(2));
            let learners = devices.iter().filter(|device| {
                device.learns(v4) && !self.known(device).any(|address| is_v4(address) == v4)
            });
            let learners = learners.map(|device| Owner::Device(device)).take(2);
            for owner in learners.chain([Owner::Nobody]) {
                found.extend(self.made_up(zone, v4, owner, taken));
            }
        }
        found
    }

    /// A few candidates of each family: devices that have a label, of which those in quarantine come
    /// last. Several, because both ends may have it.
    fn labelled(&self, label: &Label, taken: &mut BTreeSet<IpAddr>) -> Vec<Candidate<'a>> {
        let intent = &self.snapshot.intent;
        let is_cut_off = |device: &Device| self.snapshot.quarantined.device(device).is_some();
        let devices = intent.devices.iter();
        let mut devices: Vec<&'a Device> = devices
            .filter(|device| intent.is_labelled(device, label))
            .collect();
        devices.sort_by_key(|device| is_cut_off(device));
        let mut found: Vec<Candidate<'a>> = Vec::new();
        for v4 in [true, false] {
            let mut left = 2;
            for device in &devices {
                if left == 0 {
                    break;
                }
                let known = self.known(device).find(|address| is_v4(*address) == v4);
                let owner = Owner::Device(device);
                let candidate = match known {
                    Some(address) => Some(Candidate { address, owner }),
                    None if device.learns(v4) => self.made_up(device.zone, v4, owner, taken),
                    None => None,
                };
                left -= usize::from(candidate.is_some());
                found.extend(candidate);
            }
        }
        found
    }

    /// A device's addresses: listed, or learned, or one that it could take.
    pub(super) fn addresses(
        &self,
        device: &'a Device,
        taken: &mut BTreeSet<IpAddr>,
    ) -> Vec<Candidate<'a>> {
        let owner = Owner::Device(device);
        let mut found: Vec<Candidate<'a>> = self
            .known(device)
            .map(|address| Candidate { address, owner })
            .collect();
        for v4 in [true, false] {
            if device.learns(v4) && !found.iter().any(|known| is_v4(known.address) == v4) {
                found.extend(self.made_up(device.zone, v4, owner, taken));
            }
        }
        found
    }

    /// The addresses that a device has, listed or learned.
    pub(super) fn known(&self, device: &'a Device) -> impl Iterator<Item = IpAddr> + '_ {
        let number = self.device_number(device);
        let learned = self.learned.addresses(number).into_iter();
        let accepted = learned.filter(move |address| self.accepts(number, *address));
        device.addresses.iter().copied().chain(accepted)
    }

    /// The first addresses of a prefix that can be one end of a packet; never the router's, which
    /// no prefix selects.
    pub(super) fn inside(&self, net: IpNet) -> Vec<Candidate<'a>> {
        let nets = [net]
            .into_iter()
            .chain(documentation().into_iter().filter(|of| net.contains(of)));
        let usable = nets
            .flat_map(hosts_of)
            .filter(|address| is_usable(*address));
        let candidates = usable.map(|address| Candidate {
            address,
            owner: self.owner(address),
        });
        candidates
            .filter(|candidate| candidate.owner != Owner::Router)
            .take(2)
            .collect()
    }

    /// The first address of a zone's subnets that no host is known to have.
    pub(super) fn made_up(
        &self,
        zone: ZoneIndex,
        v4: bool,
        owner: Owner<'a>,
        taken: &mut BTreeSet<IpAddr>,
    ) -> Option<Candidate<'a>> {
        let zones = &self.snapshot.intent.zones;
        let wanted = self.zone_number(zone);
        let subnets = zones[zone.0]
            .subnets
            .iter()
            .filter(|net| is_v4(net.addr()) == v4);
        let address = subnets
            .flat_map(|subnet| {
                let others = zones.iter().flat_map(|zone| &zone.subnets);
                // Also the addresses after each subnet of another zone inside this one.
                let nested =
                    others.filter(move |other| subnet.contains(*other) && *other != subnet);
                let known = documentation()
                    .into_iter()
                    .filter(|net| subnet.contains(net));
                let past = nested.flat_map(move |nested| past(*nested, *subnet));
                hosts_of(*subnet)
                    .chain(known.flat_map(hosts_of))
                    .chain(past)
            })
            .find(|address| {
                self.is_free(*address, taken)
                    && is_usable(*address)
                    && match owner {
                        // Who is in a prefix that zones share is known by its device only.
                        Owner::Device(_) => self.is_in(wanted, *address),
                        _ => self.around(*address).zone == wanted,
                    }
            })?;
        taken.insert(address);
        Some(Candidate { address, owner })
    }

    pub(super) fn is_free(&self, address: IpAddr, taken: &BTreeSet<IpAddr>) -> bool {
        !taken.contains(&address)
            && self.learned_by(address).is_none()
            && !self
                .snapshot
                .tables
                .addresses
                .contains_key(&Address::from(address))
    }

    pub(super) fn owner(&self, address: IpAddr) -> Owner<'a> {
        let named = self.snapshot.tables.addresses.get(&Address::from(address));
        let number = named
            .map(|end| end.device)
            .or_else(|| self.learned_by(address));
        match number {
            Some(ROUTER) => Owner::Router,
            Some(number) => {
                let device = self.device(self.snapshot.name(numbered::DEVICE, number));
                device.map_or(Owner::Nobody, Owner::Device)
            }
            None => Owner::Nobody,
        }
    }

    pub(super) fn device(&self, name: &str) -> Option<&'a Device> {
        let devices = &self.snapshot.intent.devices;
        let at = devices
            .binary_search_by(|device| device.name.as_str().cmp(name))
            .ok()?;
        devices.get(at)
    }

    pub(super) fn device_number(&self, device: &Device) -> u32 {
        number_of(&self.snapshot.ids, numbered::DEVICE, &device.name)
    }

    pub(super) fn zone_number(&self, zone: ZoneIndex) -> u16 {
        let name = &self.snapshot.intent.zones[zone.0].name;
        number_of(&self.snapshot.ids, numbered::ZONE, name) as u16
    }

    /// What an address is by prefix alone.
    pub(super) fn around(&self, address: IpAddr) -> End {
        let key = PrefixKey::new(0, 0, &address.into());
        self.model.prefix(&key).copied().unwrap_or_default()
    }

    /// Whether an address is in a zone's subnets.
    fn is_in(&self, zone: u16, address: IpAddr) -> bool {
        let around = self.around(address);
        policy::is_in(&self.model, 0, &around, zone, &address.into())
    }

    /// Lets a device that learns its addresses claim this one; any other address has its names.
    pub(super) fn presume(&self, candidate: &Candidate<'_>) {
        let address = Address::from(candidate.address);
        for (selector, until) in self.learned.names(address) {
            // There is room, because no address has more names.
            let _there = self.model.name(address, selector, until);
        }
        if let Owner::Device(device) = candidate.owner
            && (device.learns(is_v4(candidate.address)) || is_link_local(candidate.address))
        {
            let port = self.port_of(candidate).map_or(0, |link| link.number);
            let link = self.snapshot.tables.ports.get(&port);
            let link = link.map_or(0, |port| port.link);
            let address = Address::from(candidate.address).on_link(link);
            // There is room, because no other address is claimed.
            let claim = Claim {
                slot: 0,
                address: &address,
                holder: holder(self.device_number(device), 0),
                zone: self.zone_number(device.zone),
                interface: 0,
                tick: self.tick,
                leased: false,
            };
            let _ = self.model.note_learned(&address, claim.granted());
        }
    }

    /// The names of the policy that an address has now, as rules select them.
    pub(super) fn names_of(&self, address: IpAddr) -> Vec<String> {
        let known = self.learned.names(address.into()).into_iter();
        let known = known.filter(|(_, until)| self.tick < *until);
        let names = known.map(|(selector, _)| self.snapshot.name(numbered::NAME, selector));
        let mut names: Vec<String> = names
            .filter(|name| !name.is_empty())
            .map(|name| format!("name:{name}"))
            .collect();
        names.sort();
        names
    }

    /// What the tables say that an address stands for.
    pub(super) fn end(&self, address: IpAddr) -> End {
        let mut end = End::default();
        if policy::end(&self.model, 0, &Address::from(address), &mut end) {
            end
        } else {
            End::default()
        }
    }

    /// The address that the router's NAT may give a packet from there: its own.
    pub(super) fn masquerades(&self, from: &Candidate<'_>) -> Option<IpAddr> {
        let v4 = is_v4(from.address);
        let Inventory { addresses, nat, .. } = &*self.snapshot.inventory;
        let has_nat = if v4 { nat.v4 } else { nat.v6 };
        let mut own = addresses.iter().copied();
        own.find(|own| has_nat && is_v4(*own) == v4 && !is_link_local(*own))
    }

    pub(super) fn zone_name(&self, candidate: &Candidate<'_>) -> String {
        let zone = match candidate.owner {
            Owner::Device(_) if is_link_local(candidate.address) => self.home(candidate),
            _ => self.end(candidate.address).zone,
        };
        self.snapshot
            .name(numbered::ZONE, u32::from(zone))
            .to_owned()
    }

    /// The zone on whose ports an end is: the zone of its device, or of its address.
    pub(super) fn home(&self, candidate: &Candidate<'_>) -> u16 {
        match candidate.owner {
            Owner::Device(device) => self.zone_number(device.zone),
            Owner::Router | Owner::Nobody => self.end(candidate.address).zone,
        }
    }

    /// Whether an end is behind guarded ports, according to the policy.
    pub(super) fn is_guarded(&self, candidate: &Candidate<'_>) -> bool {
        match candidate.owner {
            Owner::Router => false,
            Owner::Device(device) => !device.macs.is_empty() || self.is_behind_bare(device),
            Owner::Nobody => {
                let zone = self.home(candidate);
                let settings = self.snapshot.tables.zones.get(&u32::from(zone));
                settings.is_some_and(|settings| settings & abi::zone::HAS_PORTS != 0)
            }
        }
    }

    /// Whether a device is behind an interface without a link header, and known by its address.
    fn is_behind_bare(&self, device: &Device) -> bool {
        let link = device.port.as_ref();
        let link = link.and_then(|port| self.snapshot.inventory.link(port));
        link.is_some_and(|link| {
            let key = behind_key(0, link.number, self.device_number(device));
            self.snapshot.tables.places.contains_key(&key)
        })
    }
}

fn is_link_local(address: IpAddr) -> bool {
    Address::from(address).is_link_local()
}
