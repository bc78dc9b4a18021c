//! Reads a document, kind by kind in the document's order, and collects every problem.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use ipnet::IpNet;
use jiff::Timestamp;
use wardline_proto::{time::from_proto, v1};

use super::{
    Action, Attach, Device, DeviceIndex, Intent, Port, Rule, Selector, Zone, ZoneIndex, port_for,
    warnings::warnings,
};
use crate::{
    limits::{Limits, excess},
    words::{
        interface::{Pattern, check_interface, check_pattern},
        mac::Mac,
        name::Names,
        prefix::{ordinary_prefix, parse_address, parse_prefix},
        problem::{Full, Problem, Problems, Quoted},
        service::{Service, ServiceError, merge},
    },
};

impl Intent {
    /// Reads a document. The time tells only what to warn of.
    ///
    /// # Errors
    /// Every problem of the document, in its order, up to a thousand and one more that says so.
    pub fn from_policy(
        policy: &v1::Policy,
        limits: &Limits,
        now: Timestamp,
    ) -> Result<Self, Vec<Problem>> {
        let mut problems = Problems::default();
        match read(policy, limits, now, &mut problems) {
            Ok(intent) if problems.found.is_empty() => Ok(intent),
            Ok(_) | Err(Full) => Err(problems.found),
        }
    }
}

/// The format that this module reads.
const VERSION: u32 = 1;

pub(super) fn read(
    policy: &v1::Policy,
    limits: &Limits,
    now: Timestamp,
    problems: &mut Problems,
) -> Result<Intent, Full> {
    if policy.version != VERSION {
        let version = policy.version;
        problems.add(
            "version",
            format_args!("{version} is not known; write {VERSION}"),
        )?;
    }
    let zone_names = Names::new("zone", policy.zones.iter().map(|zone| zone.name.as_str()));
    let device_names = Names::new(
        "device",
        policy.devices.iter().map(|device| device.name.as_str()),
    );
    let excess = excess(policy, limits);

    let (mut zones, subnets) = read_zones(policy, &zone_names, problems)?;
    let ports = read_ports(policy, &zone_names, problems)?;
    problems.extend(excess.iter().filter(|problem| problem.path == "devices"))?;
    let places = Places {
        policy,
        zones: &zone_names,
        subnets: &subnets,
        ports: &ports,
    };
    let mut devices = read_devices(&places, &device_names, problems)?;
    let services = read_services(policy, problems)?;
    problems.extend(excess.iter().filter(|problem| problem.path == "rules"))?;
    let ends = Ends {
        zones: &zone_names,
        devices: &device_names,
        services: &services,
    };
    let mut rules = read_rules(policy, &ends, problems)?;

    let mut ports = ports.ports;
    zones.sort_by(|a, b| a.name.cmp(&b.name));
    ports.sort_by(|a, b| a.pattern.cmp(&b.pattern));
    devices.sort_by(|a, b| a.name.cmp(&b.name));
    rules.sort_by(|a, b| a.name.cmp(&b.name));
    let mut intent = Intent {
        zones,
        ports,
        devices,
        rules,
        warnings: Vec::new(),
    };
    if problems.found.is_empty() {
        intent.warnings = warnings(&intent, now);
    }
    Ok(intent)
}

const MAX_ETHERTYPES: usize = 64;

fn read_zones(
    policy: &v1::Policy,
    names: &Names<'_>,
    problems: &mut Problems,
) -> Result<(Vec<Zone>, Subnets), Full> {
    let mut zones = Vec::with_capacity(policy.zones.len());
    let mut subnets = Subnets::default();
    for (i, zone) in policy.zones.iter().enumerate() {
        names.check(i, &zone.name, problems)?;
        let mode = v1::ZoneMode::try_from(zone.mode);
        problems.known(
            &mode,
            zone.mode,
            format_args!("zones[{i}].mode"),
            "enforce, observe",
        )?;
        let admit = v1::ZoneAdmit::try_from(zone.admit);
        problems.known(
            &admit,
            zone.admit,
            format_args!("zones[{i}].admit"),
            "listed, any",
        )?;
        let own = read_subnets(i, zone, names, &mut subnets, problems)?;
        let mut drop_or_allow = |value, field| {
            let read = v1::DropOrAllow::try_from(value);
            problems.known(
                &read,
                value,
                format_args!("zones[{i}].{field}"),
                "drop, allow",
            )?;
            Ok(read == Ok(v1::DropOrAllow::Allow))
        };
        let fragments = drop_or_allow(zone.fragments, "fragments")?;
        let ip_options = drop_or_allow(zone.ip_options, "ip_options")?;
        let ethertypes = read_ethertypes(i, zone, problems)?;
        zones.push(Zone {
            name: zone.name.clone(),
            observe: mode == Ok(v1::ZoneMode::Observe),
            admit_any: admit == Ok(v1::ZoneAdmit::Any),
            subnets: own,
            fragments,
            ip_options,
            ethertypes,
        });
    }
    Ok((zones, subnets))
}

fn read_subnets(
    i: usize,
    zone: &v1::Zone,
    names: &Names<'_>,
    all: &mut Subnets,
    problems: &mut Problems,
) -> Result<Vec<IpNet>, Full> {
    let mut own = Vec::with_capacity(zone.subnets.len());
    for (j, text) in zone.subnets.iter().enumerate() {
        let path = format_args!("zones[{i}].subnets[{j}]");
        let subnet = match parse_prefix(text).and_then(ordinary_prefix) {
            Ok(subnet) => subnet,
            Err(message) => {
                problems.add(path, message)?;
                continue;
            }
        };
        if let Some(other) = all.zones.get(&subnet) {
            let (a, b) = other.position;
            problems.add(
                path,
                format_args!(
                    "{subnet} is listed at zones[{a}].subnets[{b}]; a prefix has one zone"
                ),
            )?;
            continue;
        }
        let zone = names.find(&zone.name).map(ZoneIndex);
        all.add(
            subnet,
            Owner {
                zone,
                position: (i, j),
            },
        );
        own.push(subnet);
    }
    own.sort();
    Ok(own)
}

fn read_ethertypes(i: usize, zone: &v1::Zone, problems: &mut Problems) -> Result<Vec<u16>, Full> {
    let mut read = BTreeSet::new();
    for (j, &number) in zone.ethertypes.iter().enumerate() {
        let path = format_args!("zones[{i}].ethertypes[{j}]");
        match u16::try_from(number) {
            Ok(0x0800 | 0x0806 | 0x86dd | 0x8100 | 0x88a8) => problems.add(
                path,
                format_args!(
                    "{number:#06x} is IP, ARP or a VLAN tag, which rules and ports decide"
                ),
            )?,
            Ok(ethertype) if ethertype >= 0x0600 => {
                if !read.insert(ethertype) {
                    problems.add(path, format_args!("{number:#06x} is listed twice"))?;
                }
            }
            Ok(_) | Err(_) => problems.add(
                path,
                format_args!("{number:#06x} is no EtherType; they go from 0x0600 to 0xffff"),
            )?,
        }
    }
    if zone.ethertypes.len() > MAX_ETHERTYPES {
        let count = zone.ethertypes.len();
        problems.add(
            format_args!("zones[{i}].ethertypes"),
            format_args!("{count} ethertypes; a zone has at most {MAX_ETHERTYPES}"),
        )?;
    }
    Ok(read.into_iter().collect())
}

/// The ports in the document's order, and what later checks must not rely on.
struct Ports {
    ports: Vec<Port>,
    /// By position: whether the zones of the port are all known.
    complete: Vec<bool>,
    /// Whether every pattern could be read.
    all_patterns: bool,
}

const MAX_VLAN: u32 = 4094;

fn read_ports(
    policy: &v1::Policy,
    zones: &Names<'_>,
    problems: &mut Problems,
) -> Result<Ports, Full> {
    let mut read = Ports {
        ports: Vec::new(),
        complete: Vec::new(),
        all_patterns: true,
    };
    let mut seen = HashMap::new();
    for (i, port) in policy.ports.iter().enumerate() {
        let path = format_args!("ports[{i}].interface");
        if let Err(message) = check_pattern(&port.interface) {
            problems.add(path, message)?;
            read.all_patterns = false;
        } else if let Some(other) = seen.insert(port.interface.as_str(), i) {
            let interface = Quoted(&port.interface);
            problems.add(
                path,
                format_args!("{interface} is listed at ports[{other}]"),
            )?;
        }
        let mut complete = true;
        let mut zone = None;
        if !port.zone.is_empty() {
            let path = format_args!("ports[{i}].zone");
            zone = zones.read(&port.zone, path, problems)?.map(ZoneIndex);
            complete &= zone.is_some();
        }
        let mut vlans = BTreeMap::new();
        let mut ids = HashMap::new();
        for (j, vlan) in port.vlans.iter().enumerate() {
            let path = format_args!("ports[{i}].vlans[{j}].id");
            let id = vlan.id;
            let mut usable = true;
            if id > MAX_VLAN {
                problems.add(
                    path,
                    format_args!("{id} is no VLAN id; they go from 0 to {MAX_VLAN}"),
                )?;
                usable = false;
            } else if let Some(other) = ids.insert(id, j) {
                problems.add(
                    path,
                    format_args!("{id} is listed at ports[{i}].vlans[{other}]"),
                )?;
                usable = false;
            } else if id == 0 && !port.zone.is_empty() {
                problems.add(
                    path,
                    format_args!("0 is untagged, as ports[{i}].zone is; leave one of them out"),
                )?;
                usable = false;
            }
            let path = format_args!("ports[{i}].vlans[{j}].zone");
            if vlan.zone.is_empty() {
                problems.add(path, "missing; name the zone of this VLAN")?;
                complete = false;
                continue;
            }
            let Some(of) = zones.read(&vlan.zone, path, problems)?.map(ZoneIndex) else {
                complete = false;
                continue;
            };
            match u16::try_from(id) {
                Ok(0) if usable => zone = Some(of),
                Ok(id) if usable => drop(vlans.insert(id, of)),
                Ok(_) | Err(_) => complete = false,
            }
        }
        let attach = v1::Attach::try_from(port.attach);
        problems.known(
            &attach,
            port.attach,
            format_args!("ports[{i}].attach"),
            "auto, xdp, tc",
        )?;
        read.ports.push(Port {
            pattern: Pattern(port.interface.clone()),
            zone,
            vlans,
            attach: match attach {
                Ok(v1::Attach::Xdp) => Attach::Xdp,
                Ok(v1::Attach::Tc) => Attach::Tc,
                Ok(v1::Attach::Unspecified | v1::Attach::Auto) | Err(_) => Attach::Auto,
            },
            dhcp_server: port.dhcp_server,
            router: port.router,
            fast_forward: port.fast_forward,
        });
        read.complete.push(complete);
    }
    Ok(read)
}

/// What devices are checked against.
struct Places<'a> {
    policy: &'a v1::Policy,
    zones: &'a Names<'a>,
    subnets: &'a Subnets,
    ports: &'a Ports,
}

/// Who has what already, by position in the document, while devices are read.
#[derive(Default)]
struct Claims<'a> {
    macs: HashMap<Mac, usize>,
    addresses: HashMap<IpAddr, usize>,
    /// The port of each interface that a device names.
    interfaces: HashMap<&'a str, Option<usize>>,
}

fn read_devices(
    places: &Places<'_>,
    names: &Names<'_>,
    problems: &mut Problems,
) -> Result<Vec<Device>, Full> {
    let mut devices = Vec::with_capacity(places.policy.devices.len());
    let mut claims = Claims::default();
    for (i, device) in places.policy.devices.iter().enumerate() {
        names.check(i, &device.name, problems)?;
        let path = format_args!("devices[{i}].zone");
        let zone = if device.zone.is_empty() {
            problems.add(path, "missing; name the device's zone")?;
            None
        } else {
            places
                .zones
                .read(&device.zone, path, problems)?
                .map(ZoneIndex)
        };
        let macs = read_macs(i, device, places, &mut claims, problems)?;
        let addresses = read_addresses(i, device, zone, places, &mut claims, problems)?;
        if !device.port.is_empty() {
            check_place(i, device, zone, places, &mut claims, problems)?;
        }
        if let Some(zone) = zone {
            let port = Some(device.port.clone()).filter(|port| !port.is_empty());
            devices.push(Device {
                name: device.name.clone(),
                zone,
                macs,
                addresses,
                port,
            });
        }
    }
    Ok(devices)
}

fn read_macs(
    i: usize,
    device: &v1::Device,
    places: &Places<'_>,
    claims: &mut Claims<'_>,
    problems: &mut Problems,
) -> Result<Vec<Mac>, Full> {
    let mut macs = Vec::with_capacity(device.macs.len());
    for (j, text) in device.macs.iter().enumerate() {
        let path = format_args!("devices[{i}].macs[{j}]");
        let mac = match text.parse() {
            Ok(Mac([0, 0, 0, 0, 0, 0])) => {
                problems.add(path, "the zero MAC is nobody's; write the device's own")?;
                continue;
            }
            Ok(Mac([first, ..])) if first & 1 == 1 => {
                let text = Quoted(text);
                problems.add(
                    path,
                    format_args!("{text} is a group's MAC; write the device's own"),
                )?;
                continue;
            }
            Ok(mac) => mac,
            Err(error) => {
                let text = Quoted(text);
                problems.add(path, format_args!("{text} is {error}"))?;
                continue;
            }
        };
        if let Some(other) = claims.macs.insert(mac, i) {
            let of = Quoted(&places.policy.devices[other].name);
            problems.add(
                path,
                format_args!("{mac} is already of devices[{other}], {of}"),
            )?;
        }
        macs.push(mac);
    }
    macs.sort_unstable();
    Ok(macs)
}

fn read_addresses(
    i: usize,
    device: &v1::Device,
    zone: Option<ZoneIndex>,
    places: &Places<'_>,
    claims: &mut Claims<'_>,
    problems: &mut Problems,
) -> Result<Vec<IpAddr>, Full> {
    let mut addresses = Vec::with_capacity(device.addresses.len());
    for (j, text) in device.addresses.iter().enumerate() {
        let path = format_args!("devices[{i}].addresses[{j}]");
        let address = match parse_address(text) {
            Ok(address) => address,
            Err(message) => {
                problems.add(path, message)?;
                continue;
            }
        };
        if let Some(other) = claims.addresses.insert(address, i) {
            let of = Quoted(&places.policy.devices[other].name);
            problems.add(
                path,
                format_args!("{address} is already of devices[{other}], {of}"),
            )?;
        }
        if let (Some(zone), Some((subnet, owner))) = (zone, places.subnets.find(address))
            && owner.zone.is_some_and(|owner| owner != zone)
        {
            let (own, other) = (
                Quoted(&device.zone),
                Quoted(&places.policy.zones[owner.position.0].name),
            );
            problems.add(
                path,
                format_args!(
                    "{address} is in {subnet} of zone {other}, the device in zone {own}; \
                     move one of them"
                ),
            )?;
        }
        addresses.push(address);
    }
    if device.addresses.is_empty() {
        let path = format_args!("devices[{i}].addresses");
        if device.macs.is_empty() {
            problems.add(
                path,
                "missing, and so are macs; a device has addresses, a MAC, or both",
            )?;
        } else if let Some(at) = zone.and_then(|_| places.zones.position(&device.zone))
            && places.policy.zones[at].subnets.is_empty()
        {
            let zone = Quoted(&device.zone);
            problems.add(
                path,
                format_args!(
                    "missing, and none can be learned: zone {zone} has no subnets; \
                     list the addresses or give the zone a subnet"
                ),
            )?;
        }
    }
    addresses.sort_unstable();
    Ok(addresses)
}

fn check_place<'a>(
    i: usize,
    device: &'a v1::Device,
    zone: Option<ZoneIndex>,
    places: &Places<'a>,
    claims: &mut Claims<'a>,
    problems: &mut Problems,
) -> Result<(), Full> {
    let path = format_args!("devices[{i}].port");
    let interface = Quoted(&device.port);
    if let Err(message) = check_interface(&device.port) {
        return problems.add(path, message);
    }
    let find = || port_for(&places.ports.ports, &device.port);
    match *claims.interfaces.entry(&device.port).or_insert_with(find) {
        None if places.ports.all_patterns => problems.add(
            path,
            format_args!("no port matches {interface}; list it under ports or leave it out here"),
        ),
        None => Ok(()),
        Some(at) => match zone {
            Some(zone) if places.ports.complete[at] && !places.ports.ports[at].carries(zone) => {
                let zone = Quoted(&device.zone);
                problems.add(
                    path,
                    format_args!("{interface} is ports[{at}], which does not carry zone {zone}"),
                )
            }
            Some(_) | None => Ok(()),
        },
    }
}

/// The named services; none for one that could not be read, so that its users are not blamed.
struct Services<'a> {
    names: Names<'a>,
    /// By position among the sorted names.
    ports: Vec<Vec<Service>>,
}

fn read_services<'a>(
    policy: &'a v1::Policy,
    problems: &mut Problems,
) -> Result<Services<'a>, Full> {
    let names = Names::new(
        "service",
        policy.services.iter().map(|service| service.name.as_str()),
    );
    let mut ports = vec![Vec::new(); names.sorted.len()];
    for (i, service) in policy.services.iter().enumerate() {
        names.check(i, &service.name, problems)?;
        let mut own = Vec::with_capacity(service.ports.len());
        if service.ports.is_empty() {
            let path = format_args!("services[{i}].ports");
            problems.add(path, "missing; list at least one, as tcp/443")?;
        }
        for (j, text) in service.ports.iter().enumerate() {
            match text.parse() {
                Ok(port) => own.push(port),
                Err(ServiceError(message)) => {
                    problems.add(format_args!("services[{i}].ports[{j}]"), message)?;
                }
            }
        }
        if let Some(at) = names.find(&service.name) {
            ports[at] = own;
        }
    }
    Ok(Services { names, ports })
}

/// What the ends and services of rules may name.
struct Ends<'a> {
    zones: &'a Names<'a>,
    devices: &'a Names<'a>,
    services: &'a Services<'a>,
}

fn read_rules(
    policy: &v1::Policy,
    ends: &Ends<'_>,
    problems: &mut Problems,
) -> Result<Vec<Rule>, Full> {
    let names = Names::new("rule", policy.rules.iter().map(|rule| rule.name.as_str()));
    let mut rules = Vec::with_capacity(policy.rules.len());
    for (i, rule) in policy.rules.iter().enumerate() {
        names.check(i, &rule.name, problems)?;
        let from = read_selectors(i, "from", &rule.from, ends, problems)?;
        let to = read_selectors(i, "to", &rule.to, ends, problems)?;
        let services = read_rule_services(i, rule, ends, problems)?;
        let action = match v1::Action::try_from(rule.action) {
            Ok(v1::Action::Allow) => Action::Allow,
            Ok(v1::Action::Deny) => Action::Deny,
            Ok(v1::Action::Unspecified) => {
                problems.add(
                    format_args!("rules[{i}].action"),
                    "missing; one of allow, deny",
                )?;
                Action::Deny
            }
            Err(_) => {
                let path = format_args!("rules[{i}].action");
                problems.add(
                    path,
                    format_args!("{} is not known; one of allow, deny", rule.action),
                )?;
                Action::Deny
            }
        };
        let mut expires = None;
        if let Some(time) = &rule.expires {
            expires = from_proto(time);
            if expires.is_none() {
                let path = format_args!("rules[{i}].expires");
                problems.add(path, "not a time; write it as 2026-12-01T00:00:00Z")?;
            }
        }
        if rule.keep_in_quarantine && action == Action::Deny {
            problems.add(
                format_args!("rules[{i}].keep_in_quarantine"),
                "is for allow rules; a deny rule holds in quarantine anyway",
            )?;
        }
        rules.push(Rule {
            name: rule.name.clone(),
            from,
            to,
            services,
            action,
            log: rule.log,
            expires,
            kept: rule.keep_in_quarantine || action == Action::Deny,
        });
    }
    Ok(rules)
}

fn read_selectors(
    i: usize,
    end: &str,
    texts: &[String],
    ends: &Ends<'_>,
    problems: &mut Problems,
) -> Result<Vec<Selector>, Full> {
    if texts.is_empty() {
        problems.add(
            format_args!("rules[{i}].{end}"),
            "missing; list at least one end, or `any` for everything but the router",
        )?;
    }
    let mut selectors = Vec::with_capacity(texts.len());
    for (j, text) in texts.iter().enumerate() {
        let path = format_args!("rules[{i}].{end}[{j}]");
        let read = match text.split_once(':') {
            None if text == "any" => Some(Selector::Any),
            None if text == "router" => Some(Selector::Router),
            Some(("zone", name)) => ends
                .zones
                .read(name, path, problems)?
                .map(|at| Selector::Zone(ZoneIndex(at))),
            Some(("device", name)) => ends
                .devices
                .read(name, path, problems)?
                .map(|at| Selector::Device(DeviceIndex(at))),
            Some(("cidr", prefix)) => match parse_prefix(prefix) {
                Ok(prefix) => Some(Selector::Cidr(prefix)),
                Err(message) => {
                    problems.add(path, message)?;
                    None
                }
            },
            None | Some(_) => {
                problems.add(path, no_selector(text, ends))?;
                None
            }
        };
        selectors.extend(read);
    }
    selectors.sort_unstable();
    selectors.dedup();
    Ok(selectors)
}

fn no_selector(text: &str, ends: &Ends<'_>) -> String {
    let quoted = Quoted(text);
    let meant = if ends.zones.find(text).is_some() {
        "zone:"
    } else if ends.devices.find(text).is_some() {
        "device:"
    } else if text.parse::<IpNet>().is_ok() {
        "cidr:"
    } else if let Ok(address) = text.parse::<IpAddr>() {
        let prefix = IpNet::from(address);
        return format!("{quoted} is no selector; did you mean \"cidr:{prefix}\"?");
    } else {
        return format!(
            "{quoted} is no selector; one of zone:NAME, device:NAME, cidr:PREFIX, router, any"
        );
    };
    format!("{quoted} is no selector; did you mean \"{meant}{text}\"?")
}

fn read_rule_services(
    i: usize,
    rule: &v1::Rule,
    ends: &Ends<'_>,
    problems: &mut Problems,
) -> Result<Vec<Service>, Full> {
    let mut services = Vec::with_capacity(rule.services.len());
    if rule.services.is_empty() {
        services.push(Service::ALL);
    }
    for (j, text) in rule.services.iter().enumerate() {
        let path = format_args!("rules[{i}].services[{j}]");
        if text.contains('/') {
            match text.parse() {
                Ok(service) => services.push(service),
                Err(ServiceError(message)) => problems.add(path, message)?,
            }
        } else if let Some(at) = ends.services.names.read(text, path, problems)? {
            services.extend(&ends.services.ports[at]);
        }
    }
    if rule.action == v1::Action::Allow as i32 {
        let named = services.into_iter();
        services = named.flat_map(Service::without_tunnels).collect();
    }
    Ok(merge(services))
}

/// The subnets of all zones, for the longest prefix of an address.
#[derive(Default)]
struct Subnets {
    zones: HashMap<IpNet, Owner>,
    v4_lengths: BTreeSet<u8>,
    v6_lengths: BTreeSet<u8>,
}

struct Owner {
    /// None when the zone has no name.
    zone: Option<ZoneIndex>,
    /// The positions of zone and subnet in the document.
    position: (usize, usize),
}

impl Subnets {
    fn add(&mut self, subnet: IpNet, owner: Owner) {
        let lengths = if subnet.addr().is_ipv4() {
            &mut self.v4_lengths
        } else {
            &mut self.v6_lengths
        };
        lengths.insert(subnet.prefix_len());
        self.zones.insert(subnet, owner);
    }

    fn find(&self, address: IpAddr) -> Option<(IpNet, &Owner)> {
        let lengths = if address.is_ipv4() {
            &self.v4_lengths
        } else {
            &self.v6_lengths
        };
        lengths.iter().rev().find_map(|&length| {
            let subnet = IpNet::new(address, length).ok()?.trunc();
            Some((subnet, self.zones.get(&subnet)?))
        })
    }
}
