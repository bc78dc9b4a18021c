//! Would this packet pass, and why: builds the packet that would open the flow, and judges it with
//! the kernel's own code on the tables in force.
//!
//! There is no other decision here. What is chosen is the packet: which addresses stand for the
//! ends, and where the packet is judged: where it enters a guarded port, else where it leaves
//! towards one. What passes where it enters is not judged again, because the port that it leaves
//! through finds its flow.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use wardline_ebpf::{
    abi::{self, End, Port, PrefixKey, ROUTER, Reason, Settings, carries_key, mac_key, vlan_key},
    decide::{self, Verdict, Work},
    lookup::Lookup as _,
    packet::{number, tcp},
    policy,
};
use wardline_proto::v1;

use crate::{
    compile::{address_of, mac_number, number_of, numbered},
    events::{reason_word, service_text},
    intent::{Device, Mac, Problem, Service, ZoneIndex},
    inventory::Link,
    model::Model,
    snapshot::Snapshot,
};

/// Judges the packet that a request describes. `learned` are the addresses that devices have
/// learned, with the devices' numbers; `tick` is the present.
///
/// # Errors
///
/// What about the request can't be, by its fields; with an empty path when no policy is in force.
pub fn explain(
    snapshot: &Snapshot,
    request: &v1::ExplainRequest,
    learned: &[(IpAddr, u32)],
    tick: u32,
) -> Result<v1::ExplainResponse, Vec<Problem>> {
    if snapshot.revision == 0 {
        return Err(vec![problem("", "no policy is in force")]);
    }
    let view = View::new(snapshot, learned, tick);
    let mut taken = BTreeSet::new();
    let from = view.ends("from", &request.from, &mut taken);
    let to = view.ends("to", &request.to, &mut taken);
    let services = services(snapshot, &request.service);
    let source_port = source_port(request.source_port);
    let (from, to, services, source_port) = match (from, to, services, source_port) {
        (Ok(from), Ok(to), Ok(services), Ok(source_port)) => (from, to, services, source_port),
        (from, to, services, source_port) => {
            let problems = [from.err(), to.err(), services.err(), source_port.err()];
            return Err(problems.into_iter().flatten().collect());
        }
    };
    let (from, to, service) = choose(&from, &to, &services).map_err(|problem| vec![problem])?;
    view.presume(from);
    view.presume(to);
    let (hook, link) = view
        .hook(from, to, &request.port)
        .map_err(|problem| vec![problem])?;
    let packet = Packet {
        source: from.address,
        destination: to.address,
        source_mac: view.source_mac(from, &hook, link),
        destination_mac: view.destination_mac(to, &hook, link),
        vlan: hook.vlan(),
        service,
        source_port,
    };

    let mut work = Work::default();
    let verdict = match hook {
        Hook::Enters { .. } => decide::ingress(
            &packet.bytes()[..],
            None,
            link.index,
            &view.model,
            &mut work,
        ),
        Hook::Leaves { came_from, .. } => {
            let bytes = packet.bytes();
            decide::egress(
                &bytes[..],
                None,
                link.index,
                came_from,
                &view.model,
                &mut work,
            )
        }
    };
    Ok(v1::ExplainResponse {
        verdict: if verdict.reason.passes() {
            v1::Answer::Allow
        } else {
            v1::Answer::Drop
        }
        .into(),
        reason: i32::from(verdict.reason as u8),
        rule: snapshot.name(numbered::RULE, verdict.rule).to_owned(),
        source_zone: view.zone_name(from),
        destination_zone: view.zone_name(to),
        packet: in_words(&packet, &hook, link, &verdict),
        revision: snapshot.revision,
    })
}

fn problem(path: &str, message: impl Into<String>) -> Problem {
    Problem {
        path: path.to_owned(),
        message: message.into(),
    }
}

/// What may stand for one end of the packet.
#[derive(Clone, Copy, Debug)]
struct Candidate<'a> {
    address: IpAddr,
    who: Who<'a>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who<'a> {
    Router,
    Device(&'a Device),
    /// An address that no device has.
    Nobody,
}

/// Where the packet is judged.
#[derive(Clone, Copy, Debug)]
enum Hook {
    /// Where it enters a guarded port.
    Enters { vlan: u16 },
    /// Where it leaves through one. `came_from` is as [`decide::egress`] takes it.
    Leaves { vlan: u16, came_from: u32 },
}

impl Hook {
    fn vlan(&self) -> u16 {
        match *self {
            Self::Enters { vlan } | Self::Leaves { vlan, .. } => vlan,
        }
    }
}

/// An interface that no table knows: the other side of the router.
const ELSEWHERE: u32 = u32::MAX;

/// Addresses of a subnet that are tried until one is free.
const TRIES: u128 = 4096;

/// The snapshot as a request is read against it.
struct View<'a> {
    snapshot: &'a Snapshot,
    model: Model<'a>,
    tick: u32,
    /// Device by learned address, as far as the tables believe it.
    learned: BTreeMap<IpAddr, u32>,
    learned_by: BTreeMap<u32, BTreeSet<IpAddr>>,
}

impl<'a> View<'a> {
    fn new(snapshot: &'a Snapshot, learned: &[(IpAddr, u32)], tick: u32) -> Self {
        let mut model = Model::new(&snapshot.tables, Settings::for_flows(64));
        model.amend(&snapshot.amended);
        model.spare(snapshot.failsafe.iter().copied());
        model.set_tick(tick);
        let mut view = Self {
            snapshot,
            model,
            tick,
            learned: BTreeMap::new(),
            learned_by: BTreeMap::new(),
        };
        for (address, device) in learned {
            let end = snapshot.tables.devices.get(device);
            if end.is_some_and(|end| end.zone == view.around(*address).zone) {
                view.learned.insert(*address, *device);
                view.learned_by.entry(*device).or_default().insert(*address);
            }
        }
        view
    }

    /// Reads `from` or `to`. Addresses that are made up are not in `taken`, and are added to it.
    fn ends(
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
            Some(("cidr", prefix)) => {
                let net: IpNet = prefix.parse().map_err(|_| {
                    let right = "write a prefix as cidr:10.20.0.0/16";
                    problem(path, format!("{prefix:?} is not a prefix; {right}"))
                })?;
                (self.inside(net), format!("{net}"))
            }
            None | Some(_) => {
                let address: IpAddr = text.parse().map_err(|_| {
                    let right =
                        "write an address, zone:NAME, device:NAME, cidr:PREFIX, router or any";
                    problem(path, format!("{text:?} is no end of a packet; {right}"))
                })?;
                let address = address.to_canonical();
                taken.insert(address);
                (
                    vec![Candidate {
                        address,
                        who: self.who(address),
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

    fn router(&self) -> Vec<Candidate<'a>> {
        // Link-local ones are for control; no rule names them.
        let addresses = self.snapshot.inventory.addresses.iter();
        let usable = addresses.filter(|address| !address_of(**address).is_link_local());
        usable
            .map(|address| Candidate {
                address: *address,
                who: Who::Router,
            })
            .collect()
    }

    /// A documentation address of each family that is in no prefix but the one around everything.
    fn any(&self, taken: &mut BTreeSet<IpAddr>) -> Vec<Candidate<'a>> {
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
                    who: Who::Nobody,
                });
            }
        }
        found
    }

    /// A few of each family, the best first: devices with an address, devices that could take one,
    /// an address that no device has. Several, because both ends may be the same zone.
    fn zone(&self, zone: ZoneIndex, taken: &mut BTreeSet<IpAddr>) -> Vec<Candidate<'a>> {
        let intent = &self.snapshot.intent;
        let is_cut_off = |device: &Device| self.snapshot.quarantined.contains(&device.name);
        let mut devices: Vec<&'a Device> = intent
            .devices
            .iter()
            .filter(|device| device.zone == zone)
            .collect();
        // A device that is cut off stands for no other.
        devices.sort_by_key(|device| is_cut_off(device));
        let mut found = Vec::new();
        for v4 in [true, false] {
            let known = devices.iter().filter_map(|device| {
                let address = self.known(device).find(|address| is_v4(*address) == v4)?;
                Some(Candidate {
                    address,
                    who: Who::Device(device),
                })
            });
            found.extend(known.take(2));
            let learners = devices.iter().filter(|device| {
                learns(device) && !self.known(device).any(|address| is_v4(address) == v4)
            });
            let learners = learners.map(|device| Who::Device(device)).take(2);
            for who in learners.chain([Who::Nobody]) {
                found.extend(self.made_up(zone, v4, who, taken));
            }
        }
        found
    }

    /// A device's addresses: listed, or learned, or one that it could take.
    fn addresses(&self, device: &'a Device, taken: &mut BTreeSet<IpAddr>) -> Vec<Candidate<'a>> {
        let who = Who::Device(device);
        let mut found: Vec<Candidate<'a>> = self
            .known(device)
            .map(|address| Candidate { address, who })
            .collect();
        for v4 in [true, false] {
            if learns(device) && !found.iter().any(|known| is_v4(known.address) == v4) {
                found.extend(self.made_up(device.zone, v4, who, taken));
            }
        }
        found
    }

    /// The addresses that are a device's, listed or learned.
    fn known(&self, device: &'a Device) -> impl Iterator<Item = IpAddr> + '_ {
        let number = self.device_number(device);
        let learned = self.learned_by.get(&number).into_iter().flatten();
        device.addresses.iter().chain(learned).copied()
    }

    /// The first addresses of a prefix that can be one end of a packet; never the router's, which
    /// no prefix selects.
    fn inside(&self, net: IpNet) -> Vec<Candidate<'a>> {
        let nets = [net]
            .into_iter()
            .chain(documentation().into_iter().filter(|of| net.contains(of)));
        let usable = nets
            .flat_map(hosts_of)
            .filter(|address| is_usable(*address));
        let candidates = usable.map(|address| Candidate {
            address,
            who: self.who(address),
        });
        candidates
            .filter(|candidate| candidate.who != Who::Router)
            .take(2)
            .collect()
    }

    /// The first address of a zone's subnets that nobody has.
    fn made_up(
        &self,
        zone: ZoneIndex,
        v4: bool,
        who: Who<'a>,
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
                // Past each subnet of another zone that is inside this one.
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
                    && self.around(*address).zone == wanted
            })?;
        taken.insert(address);
        Some(Candidate { address, who })
    }

    fn is_free(&self, address: IpAddr, taken: &BTreeSet<IpAddr>) -> bool {
        !taken.contains(&address)
            && !self.learned.contains_key(&address)
            && !self
                .snapshot
                .tables
                .addresses
                .contains_key(&address_of(address))
    }

    fn who(&self, address: IpAddr) -> Who<'a> {
        let named = self.snapshot.tables.addresses.get(&address_of(address));
        let number = named
            .map(|end| end.device)
            .or_else(|| self.learned.get(&address).copied());
        match number {
            Some(ROUTER) => Who::Router,
            Some(number) => {
                let device = self.device(self.snapshot.name(numbered::DEVICE, number));
                device.map_or(Who::Nobody, Who::Device)
            }
            None => Who::Nobody,
        }
    }

    fn device(&self, name: &str) -> Option<&'a Device> {
        let devices = &self.snapshot.intent.devices;
        let at = devices
            .binary_search_by(|device| device.name.as_str().cmp(name))
            .ok()?;
        devices.get(at)
    }

    fn device_number(&self, device: &Device) -> u32 {
        number_of(&self.snapshot.ids, numbered::DEVICE, &device.name)
    }

    fn zone_number(&self, zone: ZoneIndex) -> u16 {
        let name = &self.snapshot.intent.zones[zone.0].name;
        number_of(&self.snapshot.ids, numbered::ZONE, name) as u16
    }

    /// What an address is by prefix alone.
    fn around(&self, address: IpAddr) -> End {
        let key = PrefixKey {
            slot: [0; 4],
            address: address_of(address).octets(),
        };
        self.model.prefix(&key).copied().unwrap_or_default()
    }

    /// Lets a device that learns its addresses have learned this one.
    fn presume(&self, candidate: &Candidate<'_>) {
        if let Who::Device(device) = candidate.who
            && learns(device)
        {
            let address = address_of(candidate.address);
            // There is room: nothing else is presumed.
            let _ = self
                .model
                .learn(&address, self.device_number(device), self.tick);
        }
    }

    /// What the tables take an address for.
    fn end(&self, address: IpAddr) -> End {
        let mut end = End::default();
        if policy::end(&self.model, 0, &address_of(address), &mut end) {
            end
        } else {
            End::default()
        }
    }

    fn zone_name(&self, candidate: &Candidate<'_>) -> String {
        let zone = self.end(candidate.address).zone;
        self.snapshot
            .name(numbered::ZONE, u32::from(zone))
            .to_owned()
    }

    /// The zone on whose ports an end is: the device's, or the address's.
    fn home(&self, candidate: &Candidate<'_>) -> u16 {
        match candidate.who {
            Who::Device(device) => self.zone_number(device.zone),
            Who::Router | Who::Nobody => self.end(candidate.address).zone,
        }
    }

    /// Whether an end is behind guarded ports, as the policy has it.
    fn is_guarded(&self, candidate: &Candidate<'_>) -> bool {
        match candidate.who {
            Who::Router => false,
            Who::Device(device) => !device.macs.is_empty(),
            Who::Nobody => {
                let zone = self.home(candidate);
                let settings = self.snapshot.tables.zones.get(&u32::from(zone));
                settings.is_some_and(|settings| settings & abi::zone::HAS_PORTS != 0)
            }
        }
    }

    fn hook(
        &self,
        from: &Candidate<'_>,
        to: &Candidate<'_>,
        port: &str,
    ) -> Result<(Hook, &'a Link), Problem> {
        let is_router = from.who == Who::Router;
        if port.is_empty() {
            if !self.is_guarded(from) {
                return self.leaves(to, if is_router { 0 } else { ELSEWHERE });
            }
            let link = self
                .port_of(from)
                .map_err(|message| problem("port", message))?;
            return Ok((
                Hook::Enters {
                    vlan: self.vlan(link.index, self.home(from)),
                },
                link,
            ));
        }
        if is_router {
            let message = "what the router sends enters through no port; leave it out";
            return Err(problem("port", message));
        }
        let Some(link) = self.snapshot.inventory.link(port) else {
            return Err(problem("port", format!("no interface {port:?}")));
        };
        match self.snapshot.tables.ports.get(&link.index) {
            Some(entry) if entry.flags & Port::GUARDED != 0 => Ok((
                Hook::Enters {
                    vlan: self.vlan(link.index, self.home(from)),
                },
                link,
            )),
            Some(_) => {
                let message = format!("{port} is above guarded ports; name the one below it");
                Err(problem("port", message))
            }
            None => self.leaves(to, link.index),
        }
    }

    fn leaves(&self, to: &Candidate<'_>, came_from: u32) -> Result<(Hook, &'a Link), Problem> {
        if !self.is_guarded(to) {
            let message =
                "neither end is behind a guarded port: Wardline does not judge this packet";
            return Err(problem("to", message));
        }
        let link = self.port_of(to).map_err(|message| problem("to", message))?;
        Ok((
            Hook::Leaves {
                vlan: self.vlan(link.index, self.home(to)),
                came_from,
            },
            link,
        ))
    }

    /// The guarded interface where an end is: its own, or the first by name that carries its zone.
    fn port_of(&self, candidate: &Candidate<'_>) -> Result<&'a Link, String> {
        let is_guarded = |link: &&Link| {
            let entry = self.snapshot.tables.ports.get(&link.index);
            entry.is_some_and(|entry| entry.flags & Port::GUARDED != 0)
        };
        let inventory = &self.snapshot.inventory;
        if let Who::Device(device) = candidate.who
            && let Some(port) = &device.port
        {
            let name = &device.name;
            return inventory.link(port).filter(is_guarded).ok_or_else(|| {
                format!(
                    "device {name:?} may be on {port} only, and there is no such guarded interface"
                )
            });
        }
        let zone = self.home(candidate);
        let places = &self.snapshot.tables.places;
        let carries = |link: &&Link| places.contains_key(&carries_key(0, link.index, zone));
        let links = inventory.links.values().filter(is_guarded).filter(carries);
        links.min_by_key(|link| &link.name).ok_or_else(|| {
            let zone = self.snapshot.name(numbered::ZONE, u32::from(zone));
            format!("no guarded interface that exists carries zone {zone:?}")
        })
    }

    /// The VLAN that a zone has on an interface; for a zone that is not there, how one would try:
    /// untagged where that is in a zone, else the interface's first VLAN.
    fn vlan(&self, ifindex: u32, zone: u16) -> u16 {
        let tables = &self.snapshot.tables;
        let untagged = tables.ports.get(&ifindex).map_or(0, |port| port.zone);
        let range = vlan_key(0, ifindex, 1)..=vlan_key(0, ifindex, 4094);
        let mut tagged = tables
            .places
            .range(range)
            .map(|(key, zone)| (*key as u16, *zone));
        if untagged == zone {
            return 0;
        }
        let first = tagged.clone().next().filter(|_| untagged == 0);
        let own = tagged.find(|(_, of)| *of == u32::from(zone));
        own.or(first).map_or(0, |(vlan, _)| vlan)
    }

    fn source_mac(&self, from: &Candidate<'_>, hook: &Hook, link: &Link) -> Mac {
        match hook {
            Hook::Leaves { .. } => link.mac.unwrap_or(UNLISTED),
            Hook::Enters { .. } => match from.who {
                Who::Device(device) if !device.macs.is_empty() => device.macs[0],
                Who::Device(_) | Who::Router | Who::Nobody => self.unlisted(),
            },
        }
    }

    fn destination_mac(&self, to: &Candidate<'_>, hook: &Hook, link: &Link) -> Mac {
        match (hook, to.who) {
            (Hook::Leaves { .. }, Who::Device(device)) if !device.macs.is_empty() => device.macs[0],
            (Hook::Leaves { .. }, _) => self.unlisted(),
            // To the router, which every packet between zones is sent to.
            (Hook::Enters { .. }, _) => link.mac.unwrap_or(UNLISTED),
        }
    }

    /// A locally administered MAC that is no device's.
    fn unlisted(&self) -> Mac {
        let mut mac = UNLISTED;
        while self
            .snapshot
            .tables
            .macs
            .contains_key(&mac_key(0, mac_number(&mac)))
        {
            let next = (mac_number(&mac) + 1).to_be_bytes();
            // The first two bytes stay, and there are fewer devices than the others can count.
            mac.0[2..].copy_from_slice(&next[4..]);
        }
        mac
    }
}

/// The lowest address in a block that RFC 7042 sets aside for documents, locally administered.
const UNLISTED: Mac = Mac([0x02, 0x00, 0x5e, 0x00, 0x53, 0x00]);

/// Whether a device takes addresses by itself. One without MACs sends nothing that it could be
/// learned from.
fn learns(device: &Device) -> bool {
    device.addresses.is_empty() && !device.macs.is_empty()
}

fn is_v4(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(_))
}

/// Whether hosts send from such addresses, and rules speak of them.
fn is_usable(address: IpAddr) -> bool {
    let address = address_of(address);
    let is_reserved = !address.is_v4() && address.number()[0] == 0;
    !address.is_martian_source() && !address.is_link_local() && !is_reserved
}

/// Prefixes that are nobody's: RFC 5737, RFC 3849, RFC 9637.
fn documentation() -> [IpNet; 5] {
    let v4 = |a, b, c| IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, 0), 24));
    let v6 = |a, b, c, d| {
        let address = Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0);
        IpNet::V6(Ipv6Net::new_assert(address, 64))
    };
    [
        v4(203, 0, 113),
        v4(198, 51, 100),
        v4(192, 0, 2),
        v6(0x2001, 0xdb8, 0xffff, 0xffff),
        v6(0x3fff, 0xfff, 0xffff, 0xffff),
    ]
}

/// The first addresses of a prefix, without those that name the subnet itself.
fn hosts_of(net: IpNet) -> Box<dyn Iterator<Item = IpAddr>> {
    let (first, last) = (
        address_number(net.network()),
        address_number(net.broadcast()),
    );
    // RFC 3021 and RFC 6164: of two addresses both are hosts'.
    let inner = u128::from(last - first > 1);
    let last = if is_v4(net.addr()) {
        last - inner
    } else {
        last
    };
    let v4 = is_v4(net.addr());
    let first = first + inner;
    let end = last.min(first.saturating_add(TRIES - 1));
    Box::new((first..=end).map(move |number| address_at(number, v4)))
}

/// The addresses of `outer` that follow a prefix inside it.
fn past(inner: IpNet, outer: IpNet) -> impl Iterator<Item = IpAddr> {
    let (first, last) = (
        address_number(inner.broadcast()),
        address_number(outer.broadcast()),
    );
    let v4 = is_v4(inner.addr());
    // Neither the first, which names the next subnet, nor the last.
    let first = first.saturating_add(2);
    (first..last.min(first.saturating_add(TRIES))).map(move |number| address_at(number, v4))
}

fn address_number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn address_at(number: u128, v4: bool) -> IpAddr {
    if v4 {
        IpAddr::V4(Ipv4Addr::from_bits(number as u32))
    } else {
        IpAddr::V6(Ipv6Addr::from_bits(number))
    }
}

/// Keys of the services that a text asks for, the first of each.
fn services(snapshot: &Snapshot, text: &str) -> Result<Vec<u32>, Problem> {
    if text.contains('/') {
        let service: Service = text
            .parse()
            .map_err(|error| problem("service", format!("{error}")))?;
        return Ok(vec![service.first]);
    }
    let known = snapshot
        .policy
        .services
        .iter()
        .find(|service| service.name == text);
    let Some(service) = known else {
        let message = format!("no service {text:?}; write a service's name, or a port as tcp/443");
        return Err(problem("service", message));
    };
    let ports = service
        .ports
        .iter()
        .filter_map(|port| port.parse::<Service>().ok());
    let keys: Vec<u32> = ports.map(|service| service.first).collect();
    if keys.is_empty() {
        return Err(problem("service", format!("service {text:?} has no ports")));
    }
    Ok(keys)
}

fn source_port(port: u32) -> Result<u16, Problem> {
    match u16::try_from(port) {
        Ok(0) => Ok(EPHEMERAL),
        Ok(port) => Ok(port),
        Err(_) => Err(problem(
            "source_port",
            format!("{port} is no port; they go up to 65535"),
        )),
    }
}

/// The first dynamic port (RFC 6335 section 6).
const EPHEMERAL: u16 = 49152;

/// One candidate of each end, of one family, different if they can be, and a service that this
/// family has; IPv4 first.
fn choose<'a, 'b>(
    from: &'b [Candidate<'a>],
    to: &'b [Candidate<'a>],
    services: &[u32],
) -> Result<(&'b Candidate<'a>, &'b Candidate<'a>, u32), Problem> {
    let mut shared = None;
    for v4 in [true, false] {
        let of = |candidate: &&'b Candidate<'a>| is_v4(candidate.address) == v4;
        let openers: Vec<_> = from.iter().filter(of).collect();
        let others: Vec<_> = to.iter().filter(of).collect();
        let (Some(opener), Some(other)) = (openers.first(), others.first()) else {
            continue;
        };
        shared = Some(if v4 { "IPv4" } else { "IPv6" });
        let Some(service) = services.iter().find(|service| is_of_family(**service, v4)) else {
            continue;
        };
        let pairs = openers
            .iter()
            .flat_map(|a| others.iter().map(move |b| (*a, *b)));
        let apart = |(a, b): &(&Candidate<'_>, &Candidate<'_>)| {
            a.address != b.address && (a.who != b.who || a.who == Who::Nobody)
        };
        let (opener, other) = { pairs }.find(apart).unwrap_or((opener, other));
        return Ok((opener, other, *service));
    }
    Err(match shared {
        None => problem("to", "has no address of the family that `from` has"),
        Some(family) => problem(
            "service",
            format!("not of {family}, which is all that both ends have"),
        ),
    })
}

/// Whether a family has a service: each has an ICMP of its own.
fn is_of_family(service: u32, v4: bool) -> bool {
    match (service >> 16) as u8 {
        number::ICMP => v4,
        number::ICMPV6 => !v4,
        _ => true,
    }
}

/// The packet that opens a flow.
struct Packet {
    source: IpAddr,
    destination: IpAddr,
    source_mac: Mac,
    destination_mac: Mac,
    vlan: u16,
    /// As the interval table calls it.
    service: u32,
    source_port: u16,
}

impl Packet {
    fn protocol(&self) -> u8 {
        (self.service >> 16) as u8
    }

    /// The frame. Checksums are left out: no verdict reads them.
    fn bytes(&self) -> Vec<u8> {
        let transport = self.transport();
        let length = transport.len() as u16;
        let mut bytes = [self.destination_mac.0, self.source_mac.0].concat();
        if self.vlan != 0 {
            bytes.extend(number::VLAN.to_be_bytes());
            bytes.extend(self.vlan.to_be_bytes());
        }
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                bytes.extend(number::IPV4.to_be_bytes());
                bytes.extend([0x45, 0]);
                bytes.extend((20 + length).to_be_bytes());
                bytes.extend([0, 0, 0x40, 0, HOP_LIMIT, self.protocol(), 0, 0]);
                bytes.extend(source.octets());
                bytes.extend(destination.octets());
            }
            (source, destination) => {
                let is_discovery =
                    self.protocol() == number::ICMPV6 && matches!(self.kind(), 133..=137);
                bytes.extend(number::IPV6.to_be_bytes());
                bytes.extend([0x60, 0, 0, 0]);
                bytes.extend(length.to_be_bytes());
                // RFC 4861 section 7.1: neighbours only.
                bytes.extend([self.protocol(), if is_discovery { 255 } else { HOP_LIMIT }]);
                bytes.extend(address_of(source).octets());
                bytes.extend(address_of(destination).octets());
            }
        }
        bytes.extend(transport);
        bytes
    }

    /// Type of the ICMP message.
    fn kind(&self) -> u8 {
        (self.service >> 8) as u8
    }

    fn transport(&self) -> Vec<u8> {
        let low = (self.service as u16).to_be_bytes();
        let port = self.source_port.to_be_bytes();
        match self.protocol() {
            number::TCP => {
                let mut header = [port, low].concat();
                header.extend([0; 8]);
                header.extend([0x50, tcp::SYN, 0xff, 0xff, 0, 0, 0, 0]);
                header
            }
            number::UDP => {
                let body = self.dhcp();
                let mut datagram =
                    [port, low, (8 + body.len() as u16).to_be_bytes(), [0; 2]].concat();
                datagram.extend(body);
                datagram
            }
            number::ICMP | number::ICMPV6 => {
                let mut message = [low, [0; 2], port, [0; 2]].concat();
                if self.protocol() == number::ICMPV6 {
                    // RFC 4861 sections 4.3 and 4.4: who is asked for, or who one is.
                    match self.kind() {
                        135 => message.extend(address_of(self.destination).octets()),
                        136 => message.extend(address_of(self.source).octets()),
                        _ => {}
                    }
                }
                message
            }
            _ => vec![0; 8],
        }
    }

    /// What a DHCP client says; empty for everything else.
    fn dhcp(&self) -> Vec<u8> {
        match (self.source_port, self.service as u16, self.source) {
            (68, 67, IpAddr::V4(_)) => {
                // RFC 2131 section 2: a request, of Ethernet, from this MAC.
                let mut body = vec![0; 240];
                body[..3].copy_from_slice(&[1, 1, 6]);
                body[28..34].copy_from_slice(&self.source_mac.0);
                body
            }
            // RFC 8415 section 8: solicit.
            (546, 547, IpAddr::V6(_)) => vec![1, 0, 0, 1],
            _ => Vec::new(),
        }
    }
}

/// What hosts send with.
const HOP_LIMIT: u8 = 64;

/// `tcp 10.20.2.21:49152 → 10.20.1.11:443 from 02:00:00:00:02:21, entering cam1`.
fn in_words(packet: &Packet, hook: &Hook, link: &Link, verdict: &Verdict) -> String {
    let low = packet.service as u16;
    let (source, destination) = (packet.source, packet.destination);
    let what = match packet.protocol() {
        protocol @ (number::TCP | number::UDP) => {
            let source = SocketAddr::new(source, packet.source_port);
            let destination = SocketAddr::new(destination, low);
            let protocol = if protocol == number::TCP {
                "tcp"
            } else {
                "udp"
            };
            format!("{protocol} {source} → {destination}")
        }
        protocol => format!("{} {source} → {destination}", service_text(protocol, low)),
    };
    let (mac, name) = (packet.source_mac, &link.name);
    let place = match hook {
        Hook::Enters { .. } => format!(" from {mac}, entering {name}"),
        Hook::Leaves { came_from: 0, .. } => format!(" from the router, leaving through {name}"),
        Hook::Leaves { .. } => format!(" from elsewhere, leaving through {name}"),
    };
    let vlan = if packet.vlan == 0 {
        String::new()
    } else {
        format!(" on VLAN {}", packet.vlan)
    };
    let observed = match verdict.reason {
        Reason::Observed => {
            let would = reason_word(verdict.would);
            format!("; its zones only observe, or it would be dropped: {would}")
        }
        _ => String::new(),
    };
    format!("{what}{place}{vlan}{observed}")
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
mod tests {
    use jiff::Timestamp;
    use wardline_proto::document;

    use super::*;
    use crate::{
        compile::{self, Clock},
        config::Limits,
        intent::Intent,
        inventory::Inventory,
        store::Ids,
    };

    const POLICY: &str = r#"
version: 1
zones:
  - {name: pumps, subnets: [10.20.1.0/24, "fd20:0:0:1::/64"]}
  - {name: cameras, subnets: [10.20.2.0/24]}
  - {name: lab, mode: observe, admit: any, subnets: [10.20.3.0/24]}
  - {name: phones, subnets: [10.20.4.0/24]}
  - {name: ghosts, subnets: [10.20.5.0/24]}
  - {name: records, subnets: [10.20.9.0/24, "fd20:0:0:9::/64"]}
  - {name: internet, subnets: [0.0.0.0/0]}
ports:
  - {interface: pump*, zone: pumps}
  - {interface: cam*, zone: cameras}
  - {interface: trunk, vlans: [{id: 20, zone: cameras}, {id: 30, zone: lab}, {id: 40, zone: phones}]}
  - {interface: gone, zone: ghosts}
devices:
  - {name: pump-1, zone: pumps, macs: ["02:00:00:00:01:11"], addresses: [10.20.1.11, "fd20:0:0:1::11"], port: pump1}
  - {name: pump-2, zone: pumps, macs: ["02:00:00:00:01:12"], addresses: [10.20.1.12]}
  - {name: camera-1, zone: cameras, macs: ["02:00:00:00:02:21"], addresses: [10.20.2.21]}
  - {name: camera-2, zone: cameras, macs: ["02:00:00:00:02:22"], addresses: [10.20.2.22]}
  - {name: phone-1, zone: phones, macs: ["02:00:00:00:04:41"]}
  - {name: phone-2, zone: phones, macs: ["02:00:00:00:04:42"]}
  - {name: ehr, zone: records, addresses: [10.20.9.10, "fd20:0:0:9::10"]}
services:
  - {name: hl7, ports: [tcp/2575]}
  - {name: ping, ports: [icmp/8, icmpv6/128]}
  - {name: media, ports: [udp/5000-5100]}
rules:
  - {name: pumps-to-ehr, from: [zone:pumps], to: [device:ehr], services: [hl7, ping], action: allow}
  - {name: any-to-ehr-web, from: [any], to: [device:ehr], services: [tcp/443], action: allow}
  - {name: cameras-stay, from: [zone:cameras], to: [any], services: [tcp/443], action: deny}
  - {name: router-watches, from: [router], to: [zone:cameras], services: [tcp/554], action: allow}
  - {name: ask-router, from: [zone:pumps], to: [router], services: [udp/53], action: allow}
  - {name: ehr-calls, from: [device:ehr], to: [zone:pumps], services: [tcp/22], action: allow}
  - {name: pump-pump, from: [zone:pumps], to: [zone:pumps], services: [ping], action: allow}
  - {name: phone-talk, from: [device:phone-1], to: [device:phone-2], services: [media], action: allow}
  - {name: old, from: [zone:pumps], to: [device:ehr], services: [tcp/80], action: allow, expires: "2020-01-01T00:00:00Z"}
"#;

    #[test]
    fn allows_what_a_rule_allows_and_says_which() {
        let answer = ask("device:pump-1", "device:ehr", "hl7").unwrap();
        assert_eq!(answer.verdict(), v1::Answer::Allow);
        assert_eq!(answer.reason(), v1::Reason::Rule);
        assert_eq!(answer.rule, "pumps-to-ehr");
        assert_eq!(answer.source_zone, "pumps");
        assert_eq!(answer.destination_zone, "records");
        assert_eq!(answer.revision, 7);
        assert_eq!(
            answer.packet,
            "tcp 10.20.1.11:49152 → 10.20.9.10:2575 from 02:00:00:00:01:11, entering pump1"
        );
    }

    #[test]
    fn drops_what_no_rule_allows() {
        drops(
            "device:pump-1",
            "device:ehr",
            "tcp/22",
            v1::Reason::NoRule,
            "",
        );
        drops(
            "device:pump-1",
            "device:camera-1",
            "hl7",
            v1::Reason::NoRule,
            "",
        );
    }

    #[test]
    fn drops_what_a_rule_denies_and_says_which() {
        drops(
            "device:camera-1",
            "device:ehr",
            "tcp/443",
            v1::Reason::DeniedByRule,
            "cameras-stay",
        );
    }

    #[test]
    fn drops_by_a_rule_that_has_expired() {
        drops(
            "device:pump-1",
            "device:ehr",
            "tcp/80",
            v1::Reason::Expired,
            "old",
        );
    }

    #[test]
    fn a_device_on_a_port_that_is_not_its_own_is_dropped_there() {
        let at = |from: &str, port: &str| {
            let answer = ask_at(from, "device:ehr", "hl7", port).unwrap();
            assert_eq!(answer.verdict(), v1::Answer::Drop);
            answer.reason()
        };
        assert_eq!(at("device:pump-1", "pump2"), v1::Reason::WrongPort);
        assert_eq!(at("device:pump-1", "cam1"), v1::Reason::WrongPort);
        assert_eq!(at("device:pump-1", "trunk"), v1::Reason::WrongPort);
        assert_eq!(at("device:camera-1", "cam1"), v1::Reason::NoRule);
        // A guarded device's address can't be on the far side of the router.
        assert_eq!(
            ask_at("device:pump-1", "device:pump-2", "ping", "up")
                .unwrap()
                .reason(),
            { v1::Reason::SpoofedSource }
        );
    }

    #[test]
    fn an_address_of_a_guarded_zone_that_no_device_has_is_an_unknown_device() {
        drops(
            "10.20.1.99",
            "device:ehr",
            "hl7",
            v1::Reason::UnknownDevice,
            "",
        );
        // The lab admits any MAC, but only with the lab's addresses.
        let answer = ask_at("10.20.9.77", "device:ehr", "hl7", "trunk").unwrap();
        assert_eq!(answer.reason(), v1::Reason::UnknownDevice);
        let answer = ask_at("10.20.3.5", "device:ehr", "tcp/443", "trunk").unwrap();
        assert_eq!(
            (answer.reason(), answer.rule.as_str()),
            (v1::Reason::Rule, "any-to-ehr-web")
        );
        assert!(
            answer
                .packet
                .ends_with("from 02:00:5e:00:53:00, entering trunk on VLAN 30")
        );
    }

    #[test]
    fn the_router_is_judged_where_its_packets_leave() {
        let answer = ask("router", "device:camera-1", "tcp/554").unwrap();
        assert_eq!(
            (answer.reason(), answer.rule.as_str()),
            (v1::Reason::Rule, "router-watches")
        );
        assert_eq!(answer.source_zone, "");
        assert_eq!(
            answer.packet,
            "tcp 10.20.1.1:49152 → 10.20.2.21:554 from the router, leaving through cam1"
        );
        drops(
            "router",
            "device:camera-1",
            "tcp/80",
            v1::Reason::NoRule,
            "",
        );
        // By its address it is the router too.
        assert_eq!(
            ask("10.20.2.1", "device:camera-1", "tcp/554").unwrap().rule,
            "router-watches"
        );
        let answer = ask("device:pump-2", "router", "udp/53").unwrap();
        assert_eq!(answer.rule, "ask-router");
        assert_eq!(
            problem_of(ask_at("router", "device:camera-1", "tcp/554", "cam1")).path,
            "port"
        );
    }

    #[test]
    fn what_comes_from_the_uplink_is_judged_where_it_leaves() {
        let answer = ask("device:ehr", "device:pump-1", "tcp/22").unwrap();
        assert_eq!(
            (answer.reason(), answer.rule.as_str()),
            (v1::Reason::Rule, "ehr-calls")
        );
        assert_eq!(
            answer.packet,
            "tcp 10.20.9.10:49152 → 10.20.1.11:22 from elsewhere, leaving through pump1"
        );
        drops("8.8.8.8", "device:pump-1", "tcp/22", v1::Reason::NoRule, "");
        // Through the uplink by name it is the same.
        let answer = ask_at("device:ehr", "device:pump-1", "tcp/22", "up").unwrap();
        assert_eq!(answer.rule, "ehr-calls");
    }

    #[test]
    fn any_is_an_address_that_nothing_names() {
        let answer = ask("device:pump-1", "any", "tcp/443").unwrap();
        assert_eq!((answer.reason(), answer.destination_zone.as_str()), {
            (v1::Reason::NoRule, "internet")
        });
        assert!(
            answer.packet.contains("→ 203.0.113.1:443"),
            "{}",
            answer.packet
        );
        drops(
            "device:camera-1",
            "any",
            "tcp/443",
            v1::Reason::DeniedByRule,
            "cameras-stay",
        );
        drops("any", "zone:pumps", "tcp/443", v1::Reason::NoRule, "");
    }

    #[test]
    fn a_prefix_is_represented_by_its_first_usable_address() {
        let answer = ask("cidr:10.20.9.0/24", "device:pump-1", "tcp/22").unwrap();
        assert!(
            answer.packet.starts_with("tcp 10.20.9.1:49152 →"),
            "{}",
            answer.packet
        );
        let answer = ask("device:pump-1", "cidr:0.0.0.0/0", "tcp/22").unwrap();
        assert!(
            answer.packet.contains("→ 203.0.113.1:22"),
            "{}",
            answer.packet
        );
    }

    #[test]
    fn ends_of_both_families_use_ipv4_and_ends_of_one_use_it() {
        let answer = ask("fd20:0:0:1::11", "device:ehr", "ping").unwrap();
        assert_eq!(
            (answer.reason(), answer.rule.as_str()),
            (v1::Reason::Rule, "pumps-to-ehr")
        );
        assert_eq!(
            answer.packet,
            "icmpv6/128 fd20:0:0:1::11 → fd20:0:0:9::10 from 02:00:00:00:01:11, entering pump1"
        );
        let answer = ask("fd20:0:0:1::11", "device:ehr", "hl7").unwrap();
        assert!(
            answer
                .packet
                .starts_with("tcp [fd20:0:0:1::11]:49152 → [fd20:0:0:9::10]:2575 ")
        );
        assert_eq!(answer.verdict(), v1::Answer::Allow);
        let answer = ask("device:pump-1", "device:ehr", "ping").unwrap();
        assert!(answer.packet.starts_with("icmp/8 10.20.1.11 → 10.20.9.10"));
        assert_eq!(answer.verdict(), v1::Answer::Allow);
        let answer = ask("device:pump-1", "device:ehr", "icmpv6/128").unwrap();
        assert!(answer.packet.starts_with("icmpv6/128 fd20:0:0:1::11"));
        assert_eq!(
            problem_of(ask("fd20:0:0:1::11", "device:pump-2", "hl7")).path,
            "to"
        );
        assert_eq!(
            problem_of(ask("device:pump-2", "device:ehr", "icmpv6/128")).path,
            "service"
        );
    }

    #[test]
    fn messages_that_open_nothing_get_their_true_verdict() {
        drops(
            "device:pump-1",
            "device:ehr",
            "icmp/0",
            v1::Reason::MidFlow,
            "",
        );
        drops(
            "device:pump-1",
            "device:ehr",
            "icmp/3",
            v1::Reason::MidFlow,
            "",
        );
        drops(
            "device:pump-1",
            "device:ehr",
            "icmp/5",
            v1::Reason::RogueRa,
            "",
        );
        drops(
            "device:pump-1",
            "device:pump-2",
            "icmp/5",
            v1::Reason::RogueRa,
            "",
        );
        drops(
            "device:pump-1",
            "device:ehr",
            "proto/47",
            v1::Reason::NoRule,
            "",
        );
        let answer = ask("device:pump-1", "fd20:0:0:1::99", "icmpv6/135").unwrap();
        assert_eq!(answer.reason(), v1::Reason::Control);
        let request = |source_port| v1::ExplainRequest {
            from: "device:pump-1".into(),
            to: "router".into(),
            service: "udp/67".into(),
            source_port,
            ..Default::default()
        };
        let answer = explain(&snapshot(), &request(68), &[], 1).unwrap();
        assert_eq!(answer.reason(), v1::Reason::Control);
        let answer = explain(&snapshot(), &request(0), &[], 1).unwrap();
        assert_eq!(answer.reason(), v1::Reason::NoRule);
        let problems = explain(&snapshot(), &request(65_536), &[], 1).unwrap_err();
        assert_eq!(problems[0].path, "source_port");
    }

    #[test]
    fn a_zone_is_represented_by_its_first_device_else_by_its_first_address() {
        let answer = ask("zone:pumps", "zone:pumps", "ping").unwrap();
        assert_eq!(
            (answer.reason(), answer.rule.as_str()),
            (v1::Reason::Rule, "pump-pump")
        );
        assert!(
            answer.packet.starts_with("icmp/8 10.20.1.11 → 10.20.1.12"),
            "{}",
            answer.packet
        );
        let answer = ask("zone:lab", "device:ehr", "tcp/443").unwrap();
        assert!(
            answer.packet.starts_with("tcp 10.20.3.1:49152 →"),
            "{}",
            answer.packet
        );
        assert_eq!(answer.rule, "any-to-ehr-web");
        let answer = ask("zone:lab", "zone:lab", "tcp/443").unwrap();
        assert!(
            answer
                .packet
                .starts_with("tcp 10.20.3.1:49152 → 10.20.3.2:443")
        );
        let answer = ask("device:camera-1", "zone:cameras", "tcp/1").unwrap();
        assert!(
            answer.packet.contains("→ 10.20.2.22:1"),
            "{}",
            answer.packet
        );
        let answer = ask("zone:internet", "zone:pumps", "tcp/1").unwrap();
        assert!(
            answer.packet.starts_with("tcp 203.0.113.1:49152"),
            "{}",
            answer.packet
        );
    }

    #[test]
    fn what_zones_in_observe_let_pass_says_what_it_would_be_dropped_for() {
        let answer = ask("zone:lab", "zone:lab", "tcp/22").unwrap();
        assert_eq!(
            (answer.verdict(), answer.reason()),
            (v1::Answer::Allow, v1::Reason::Observed)
        );
        assert!(
            answer.packet.ends_with("would be dropped: no_rule"),
            "{}",
            answer.packet
        );
        // The other end is enforcing.
        drops(
            "zone:lab",
            "device:pump-1",
            "tcp/22",
            v1::Reason::NoRule,
            "",
        );
    }

    #[test]
    fn devices_without_listed_addresses_use_learned_ones_or_could_take_one() {
        let answer = ask("device:phone-1", "device:phone-2", "media").unwrap();
        assert_eq!(
            (answer.reason(), answer.rule.as_str()),
            (v1::Reason::Rule, "phone-talk")
        );
        assert!(
            answer
                .packet
                .starts_with("udp 10.20.4.1:49152 → 10.20.4.2:5000")
        );
        assert!(
            answer.packet.ends_with("entering trunk on VLAN 40"),
            "{}",
            answer.packet
        );
        let snapshot = snapshot();
        let number = number_of(&snapshot.ids, numbered::DEVICE, "phone-2");
        let learned: IpAddr = "10.20.4.77".parse().unwrap();
        let request = v1::ExplainRequest {
            from: "device:phone-1".into(),
            to: "device:phone-2".into(),
            service: "media".into(),
            ..Default::default()
        };
        let answer = explain(&snapshot, &request, &[(learned, number)], 1).unwrap();
        assert!(
            answer.packet.contains("→ 10.20.4.77:5000"),
            "{}",
            answer.packet
        );
        // By its address it is the device.
        let request = v1::ExplainRequest {
            to: "10.20.4.77".into(),
            ..request
        };
        let answer = explain(&snapshot, &request, &[(learned, number)], 1).unwrap();
        assert_eq!(answer.rule, "phone-talk");
        assert_eq!(
            explain(&snapshot, &request, &[], 1).unwrap().reason(),
            v1::Reason::NoRule
        );
        // Nobody else may use it.
        let request = v1::ExplainRequest {
            from: "10.20.4.77".into(),
            to: "device:ehr".into(),
            service: "tcp/443".into(),
            port: "cam1".into(),
            ..Default::default()
        };
        let answer = explain(&snapshot, &request, &[(learned, number)], 1).unwrap();
        assert_eq!(answer.reason(), v1::Reason::WrongPort);
    }

    #[test]
    fn quarantine_drops_and_its_device_stands_for_no_zone() {
        let snapshot = snapshot_with(["pump-1".to_owned()].into());
        let ask = |from: &str| {
            let request = v1::ExplainRequest {
                from: from.into(),
                to: "device:ehr".into(),
                service: "hl7".into(),
                ..Default::default()
            };
            explain(&snapshot, &request, &[], 1).unwrap()
        };
        assert_eq!(ask("device:pump-1").reason(), v1::Reason::Quarantined);
        let answer = ask("zone:pumps");
        assert_eq!(answer.reason(), v1::Reason::Rule);
        assert!(answer.packet.starts_with("tcp 10.20.1.12:"));
    }

    #[test]
    fn what_can_not_be_explained_says_why_by_field() {
        let path = |from: &str, to: &str, service: &str, port: &str| {
            problem_of(ask_at(from, to, service, port)).path
        };
        assert_eq!(path("device:nobody", "device:ehr", "hl7", ""), "from");
        assert_eq!(path("zone:nowhere", "device:ehr", "hl7", ""), "from");
        assert_eq!(path("10.20.1.300", "device:ehr", "hl7", ""), "from");
        assert_eq!(path("device:pump-1", "cidr:10.20", "hl7", ""), "to");
        assert_eq!(path("device:pump-1", "", "hl7", ""), "to");
        assert_eq!(path("device:pump-1", "device:ehr", "hl8", ""), "service");
        assert_eq!(path("device:pump-1", "device:ehr", "tcp/x", ""), "service");
        assert_eq!(path("device:pump-1", "device:ehr", "hl7", "eth9"), "port");
        assert_eq!(path("device:pump-1", "device:ehr", "hl7", "br0"), "port");
        assert_eq!(path("zone:ghosts", "device:ehr", "hl7", ""), "port");
        assert_eq!(path("device:ehr", "zone:ghosts", "hl7", ""), "to");
        let neither = problem_of(ask("device:ehr", "8.8.8.8", "hl7"));
        assert_eq!(neither.path, "to");
        assert!(
            neither
                .message
                .starts_with("neither end is behind a guarded port")
        );
        let all = ask("device:nobody", "zone:nowhere", "hl8").unwrap_err();
        assert_eq!(all.len(), 3);
    }

    #[test]
    fn without_a_policy_there_is_nothing_to_explain() {
        let mut snapshot = snapshot();
        snapshot.revision = 0;
        let problems = explain(&snapshot, &v1::ExplainRequest::default(), &[], 1).unwrap_err();
        assert_eq!(problems, [problem("", "no policy is in force")]);
    }

    fn ask(from: &str, to: &str, service: &str) -> Result<v1::ExplainResponse, Vec<Problem>> {
        ask_at(from, to, service, "")
    }

    fn ask_at(
        from: &str,
        to: &str,
        service: &str,
        port: &str,
    ) -> Result<v1::ExplainResponse, Vec<Problem>> {
        let request = v1::ExplainRequest {
            from: from.into(),
            to: to.into(),
            service: service.into(),
            port: port.into(),
            source_port: 0,
        };
        explain(&snapshot(), &request, &[], 1)
    }

    #[track_caller]
    fn drops(from: &str, to: &str, service: &str, reason: v1::Reason, rule: &str) {
        let answer = ask(from, to, service).unwrap();
        assert_eq!(
            (answer.verdict(), answer.reason()),
            (v1::Answer::Drop, reason)
        );
        assert_eq!(answer.rule, rule);
    }

    #[track_caller]
    fn problem_of(answer: Result<v1::ExplainResponse, Vec<Problem>>) -> Problem {
        let problems = answer.unwrap_err();
        assert_eq!(problems.len(), 1, "{problems:?}");
        problems[0].clone()
    }

    fn snapshot() -> Snapshot {
        snapshot_with(BTreeSet::new())
    }

    fn snapshot_with(quarantined: BTreeSet<String>) -> Snapshot {
        let limits = Limits::default();
        let (policy, problems) = document::parse(POLICY);
        assert_eq!(problems, []);
        let intent = Intent::from_policy(&policy, &limits).unwrap();
        let ids = compile::number(&intent, &Ids::new(), &limits).unwrap();
        let names = ["pump1", "pump2", "cam1", "trunk", "up", "br0"];
        let links = names.into_iter().enumerate().map(|(at, name)| {
            let index = at as u32 + 2;
            let link = Link {
                index,
                name: name.to_owned(),
                mac: Some(Mac([2, 0, 0, 0, 0xff, index as u8])),
                up: true,
                controller: (name == "cam1").then_some(7),
                parent: None,
                vlan: None,
                kind: None,
            };
            (index, link)
        });
        let addresses = ["10.20.1.1", "10.20.2.1", "fe80::1"];
        let inventory = Inventory {
            links: links.collect(),
            addresses: addresses
                .into_iter()
                .map(|address| address.parse().unwrap())
                .collect(),
        };
        let clock = Clock {
            now: Timestamp::now(),
            jiffies: 1_000_000,
            per_second: 250,
        };
        let tables = compile::compile(&intent, &inventory, &ids, &quarantined, &clock);
        Snapshot::new(
            7,
            policy,
            intent,
            inventory,
            quarantined,
            ids,
            tables,
            clock,
            None,
        )
    }
}
