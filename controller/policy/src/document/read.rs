//! Reads a document, kind by kind in the document's order, and collects every problem.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use ipnet::IpNet;
use jiff::Timestamp;
use wardline_proto::v1;

mod devices;
mod labels;
mod names;
mod notes;
mod rules;

use self::{
    devices::{Context, read_devices},
    labels::Labels,
    names::{check_nesting, read_resolvers},
    notes::check_notes,
    rules::{Ends, read_rules, read_services},
};
use super::{Document, excess, warnings::warnings};
use crate::{
    intent::{Attach, Intent, Port, Zone, ZoneIndex},
    limits::Limits,
    words::{
        interface::{Pattern, check_pattern},
        name::Names,
        prefix::{ordinary_prefix, parse_prefix},
        problem::{Full, Problem, Problems, Quoted},
    },
};

impl Intent {
    /// Reads a document. The time decides only on warnings.
    ///
    /// # Errors
    /// Every problem of the document, in its order, up to a thousand, and then one that says so.
    pub fn from_policy(
        document: &Document,
        limits: &Limits,
        now: Timestamp,
    ) -> Result<Self, Vec<Problem>> {
        Self::read(document, limits, now, Problems::default())
    }

    /// Reads a document that was accepted before, when less may have been demanded of one.
    ///
    /// # Errors
    /// As [`from_policy`](Self::from_policy).
    pub fn from_accepted(
        document: &Document,
        limits: &Limits,
        now: Timestamp,
    ) -> Result<Self, Vec<Problem>> {
        let problems = Problems {
            accepted: true,
            ..Problems::default()
        };
        Self::read(document, limits, now, problems)
    }

    fn read(
        document: &Document,
        limits: &Limits,
        now: Timestamp,
        mut problems: Problems,
    ) -> Result<Self, Vec<Problem>> {
        match read(document, limits, now, &mut problems) {
            Ok(intent) if problems.found.is_empty() => Ok(intent),
            Ok(_) | Err(Full) => Err(problems.found),
        }
    }
}

/// The format that this module reads.
const VERSION: u32 = 1;

pub(super) fn read(
    document: &Document,
    limits: &Limits,
    now: Timestamp,
    problems: &mut Problems,
) -> Result<Intent, Full> {
    if document.version != VERSION {
        let version = document.version;
        problems.add(
            "version",
            format_args!("{version} is not known; write {VERSION}"),
        )?;
    }
    let zone_names = Names::new("zone", document.zones.iter().map(|zone| zone.name.as_str()));
    let device_names = Names::new(
        "device",
        document.devices.iter().map(|device| device.name.as_str()),
    );
    let excess = excess(document, limits);

    let (mut zones, subnets) = read_zones(document, &zone_names, problems)?;
    let ports = read_ports(document, &zone_names, problems)?;
    problems.extend(excess.iter().filter(|problem| problem.path == "devices"))?;
    let context = Context {
        document,
        zones: &zone_names,
        subnets: &subnets,
        ports: &ports,
    };
    let mut devices = read_devices(&context, &device_names, problems)?;
    let services = read_services(document, problems)?;
    let labels = Labels::of(document, &device_names);
    problems.extend(excess.iter().filter(|problem| problem.path == "rules"))?;
    let resolvers = read_resolvers(document, problems)?;
    let ends = Ends {
        zones: &zone_names,
        devices: &device_names,
        services: &services,
        labels: &labels,
    };
    let mut rules = read_rules(document, &ends, problems)?;
    check_nesting(&rules, problems)?;

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
        labels: labels.named,
        resolvers,
        warnings: Vec::new(),
    };
    if problems.found.is_empty() {
        intent.warnings = warnings(&intent, now);
    }
    Ok(intent)
}

const MAX_ETHERTYPES: usize = 64;

fn read_zones(
    document: &Document,
    names: &Names<'_>,
    problems: &mut Problems,
) -> Result<(Vec<Zone>, Subnets), Full> {
    let mut zones = Vec::with_capacity(document.zones.len());
    let mut subnets = Subnets::default();
    for (i, zone) in document.zones.iter().enumerate() {
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
        let own = read_subnets(i, document, names, &mut subnets, problems)?;
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
        check_notes(format_args!("zones[{i}]"), &zone.into(), problems)?;
        zones.push(Zone {
            name: zone.name.clone(),
            observe: mode == Ok(v1::ZoneMode::Observe),
            admit_any: admit == Ok(v1::ZoneAdmit::Any),
            subnets: own,
            fragments,
            ip_options,
            ethertypes,
            labels: zone.labels.clone(),
        });
    }
    Ok((zones, subnets))
}

fn read_subnets(
    i: usize,
    document: &Document,
    names: &Names<'_>,
    all: &mut Subnets,
    problems: &mut Problems,
) -> Result<Vec<IpNet>, Full> {
    let zone = &document.zones[i];
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
        let own_zone = names.find(&zone.name).map(ZoneIndex);
        let sharers = all.zones.get(&subnet).map_or(&[][..], Vec::as_slice);
        if let Some(other) = sharers.iter().find(|other| other.position.0 == i) {
            let (a, b) = other.position;
            problems.add(
                path,
                format_args!("{subnet} is already listed at zones[{a}].subnets[{b}]"),
            )?;
            continue;
        }
        // Who is in a shared prefix is known by its device, and an unlisted MAC has none.
        let sharer = sharers.first().map(|other| other.position);
        let positions = sharers.iter().map(|other| other.position.0).chain([i]);
        let mut admits = positions.map(|at| &document.zones[at]);
        if let Some((a, b)) = sharer
            && let Some(open) = admits.find(|it| it.admit == v1::ZoneAdmit::Any as i32)
        {
            let open = Quoted(&open.name);
            problems.add(
                path,
                format_args!(
                    "{subnet} is listed at zones[{a}].subnets[{b}] too, and zone {open} has \
                     admit: any; who admits any needs a prefix of its own"
                ),
            )?;
            continue;
        }
        all.add(
            subnet,
            Owner {
                zone: own_zone,
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

/// The ports in the document's order, and how far later checks may rely on them.
struct Ports {
    ports: Vec<Port>,
    /// By position: whether the zones of the port are all known.
    complete: Vec<bool>,
    /// Whether every pattern could be read.
    all_patterns: bool,
}

const MAX_VLAN: u32 = 4094;

fn read_ports(
    document: &Document,
    zones: &Names<'_>,
    problems: &mut Problems,
) -> Result<Ports, Full> {
    let mut read = Ports {
        ports: Vec::new(),
        complete: Vec::new(),
        all_patterns: true,
    };
    let mut seen = HashMap::new();
    for (i, port) in document.ports.iter().enumerate() {
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
        check_notes(format_args!("ports[{i}]"), &port.into(), problems)?;
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

/// The subnets of all zones, for the longest prefix of an address.
#[derive(Default)]
struct Subnets {
    zones: HashMap<IpNet, Vec<Owner>>,
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
        self.zones.entry(subnet).or_default().push(owner);
    }

    /// The longest prefix around an address, and who has it.
    fn find(&self, address: IpAddr) -> Option<(IpNet, &[Owner])> {
        let lengths = if address.is_ipv4() {
            &self.v4_lengths
        } else {
            &self.v6_lengths
        };
        lengths.iter().rev().find_map(|&length| {
            let subnet = IpNet::new(address, length).ok()?.trunc();
            Some((subnet, self.zones.get(&subnet)?.as_slice()))
        })
    }
}
