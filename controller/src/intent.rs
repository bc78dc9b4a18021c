//! What is wanted: a policy document, read once into values that can't be wrong, or every problem
//! that it has.
//!
//! The values come first, then the reading of each kind in the document's order, then the small
//! languages (names, prefixes, services) and the collecting of problems. Everything is sorted by
//! name, so that the order of a document reaches nothing behind this module. References become
//! indexes here: the compiler never meets a name that does not exist.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fmt,
    net::IpAddr,
    str::FromStr,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use jiff::Timestamp;
use wardline_proto::v1;

use crate::config::Limits;

/// A policy that holds together: every reference exists, no address is in two zones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Intent {
    /// By name.
    pub zones: Vec<Zone>,
    /// By pattern.
    pub ports: Vec<Port>,
    /// By name.
    pub devices: Vec<Device>,
    /// By name.
    pub rules: Vec<Rule>,
    /// What is accepted but deserves a look; sorted.
    pub warnings: Vec<String>,
}

/// A position in [`Intent::zones`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ZoneIndex(pub usize);

/// A position in [`Intent::devices`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceIndex(pub usize);

/// A group of devices and addresses that are treated alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone {
    /// Unique among zones.
    pub name: String,
    /// Whether what policy or state would drop passes and is reported.
    pub observe: bool,
    /// Whether unlisted MACs may speak on a port of this zone.
    pub admit_any: bool,
    /// Sorted; none is another zone's too.
    pub subnets: Vec<IpNet>,
    /// Whether fragments are judged by policy; otherwise they are dropped.
    pub fragments: bool,
    /// Whether IPv4 options and IPv6 extension headers are judged by policy.
    pub ip_options: bool,
    /// Further protocols that pass; sorted.
    pub ethertypes: Vec<u16>,
}

/// A guarded interface, or a pattern of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Which interfaces.
    pub pattern: Pattern,
    /// Zone of untagged frames; none: they are dropped.
    pub zone: Option<ZoneIndex>,
    /// Zones of tagged frames, by VLAN id; never id 0, which is [`Port::zone`].
    pub vlans: BTreeMap<u16, ZoneIndex>,
    /// Which hook judges what enters.
    pub attach: Attach,
    /// Whether DHCP server messages may enter.
    pub dhcp_server: bool,
    /// Whether router advertisements and redirects may enter.
    pub router: bool,
    /// Whether packets of answered flows may be forwarded in the driver.
    pub fast_forward: bool,
}

/// Which hook judges what enters a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Attach {
    /// XDP where the port can and shows it every tag, else TC.
    #[default]
    Auto,
    /// XDP or nothing.
    Xdp,
    /// TC ingress.
    Tc,
}

/// An interface's name, or a glob with `*` and `?`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pattern(String);

/// One device, or a server that rules name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Unique among devices.
    pub name: String,
    /// The zone that it is in.
    pub zone: ZoneIndex,
    /// Its own MACs, sorted; empty for what is not on a guarded port.
    pub macs: Vec<Mac>,
    /// Its addresses, sorted; empty: learned, inside the zone's subnets.
    pub addresses: Vec<IpAddr>,
    /// The only interface that it may appear on.
    pub port: Option<String>,
}

/// An Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

/// Who may, or may not, open flows to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Unique among rules.
    pub name: String,
    /// One end; sorted, never empty.
    pub from: Vec<Selector>,
    /// The other end; sorted, never empty.
    pub to: Vec<Selector>,
    /// What may be asked for; sorted, disjoint and not adjacent, never empty.
    pub services: Vec<Service>,
    /// What the rule does.
    pub action: Action,
    /// Whether each new flow makes an event.
    pub log: bool,
    /// When the rule ends.
    pub expires: Option<Timestamp>,
    /// Whether it holds in quarantine, too: any deny rule, and the allow rules that say so.
    pub kept: bool,
}

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Lets matching flows open.
    Allow,
    /// Keeps matching flows from opening, whatever else allows them.
    Deny,
}

/// One end of a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Selector {
    /// Every device and address of a zone.
    Zone(ZoneIndex),
    /// One device.
    Device(DeviceIndex),
    /// Addresses, whoever has them; never the router's.
    Cidr(IpNet),
    /// The router itself.
    Router,
    /// Every device and address except the router.
    Any,
}

/// An inclusive interval of service keys: protocol << 16 | port, and for ICMP
/// protocol << 16 | type << 8 | code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Service {
    /// The lowest key.
    pub first: u32,
    /// The highest key.
    pub last: u32,
}

/// What is wrong with a document, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The place in the document, as `devices[1].zone`.
    pub path: String,
    /// What is wrong, and what would be right.
    pub message: String,
}

/// A text that is not six bytes in hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a MAC address; write it as 02:00:00:00:01:01")]
pub struct MacError;

/// A text that names no protocol and port.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ServiceError(String);

impl Intent {
    /// Reads a document.
    ///
    /// # Errors
    /// Every problem of the document, in its order, up to a thousand and one more that says so.
    pub fn from_policy(policy: &v1::Policy, limits: &Limits) -> Result<Self, Vec<Problem>> {
        Self::from_policy_at(policy, limits, Timestamp::now())
    }

    /// Reads a document at a given time, which only tells what to warn of.
    ///
    /// # Errors
    /// As [`Intent::from_policy`].
    pub fn from_policy_at(
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

    /// Finds the port that an interface is: an exact name before a glob, more literal characters
    /// before fewer. A glob never takes the loopback.
    pub fn port_for(&self, interface: &str) -> Option<&Port> {
        port_for(&self.ports, interface).map(|at| &self.ports[at])
    }
}

/// Tells what of a document exceeds the limits: one problem for each kind, with the numbers.
pub fn excess(policy: &v1::Policy, limits: &Limits) -> Vec<Problem> {
    let counts = [
        ("devices", policy.devices.len(), limits.devices),
        ("rules", policy.rules.len(), limits.rules),
    ];
    let over = counts
        .into_iter()
        .filter(|&(_, count, limit)| count as u64 > u64::from(limit));
    over.map(|(kind, count, limit)| Problem {
        path: kind.to_owned(),
        message: format!("{count} {kind}, but limits.{kind} is {limit}"),
    })
    .collect()
}

impl Port {
    /// Tells whether frames of a zone may enter here, with or without a tag.
    pub fn carries(&self, zone: ZoneIndex) -> bool {
        self.zone == Some(zone) || self.vlans.values().any(|&tagged| tagged == zone)
    }
}

impl Pattern {
    /// The text of the pattern.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Tells whether it is one interface's name.
    pub fn is_exact(&self) -> bool {
        !self.0.contains(['*', '?'])
    }

    /// The number of characters that stand for themselves.
    pub fn literals(&self) -> usize {
        self.0.bytes().filter(|c| !matches!(c, b'*' | b'?')).count()
    }

    /// Tells whether an interface's name fits.
    pub fn matches(&self, interface: &str) -> bool {
        let (glob, name) = (self.0.as_bytes(), interface.as_bytes());
        let (mut g, mut n) = (0, 0);
        // Where to go on when the last star has to swallow one more byte.
        let mut retry = None;
        while n < name.len() {
            match glob.get(g) {
                Some(b'*') => {
                    retry = Some((g + 1, n + 1));
                    g += 1;
                }
                Some(&c) if c == b'?' || c == name[n] => (g, n) = (g + 1, n + 1),
                Some(_) | None => {
                    let Some((after_star, next)) = retry else {
                        return false;
                    };
                    (g, n) = (after_star, next);
                    retry = Some((after_star, next + 1));
                }
            }
        }
        glob[g..].iter().all(|&c| c == b'*')
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for Mac {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        let separator = if text.contains('-') { '-' } else { ':' };
        let mut bytes = [0; 6];
        let mut parts = text.split(separator);
        for byte in &mut bytes {
            let part = parts.next().ok_or(MacError)?;
            if part.len() != 2 || !part.bytes().all(|c| c.is_ascii_hexdigit()) {
                return Err(MacError);
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| MacError)?;
        }
        parts
            .next()
            .is_none()
            .then_some(Self(bytes))
            .ok_or(MacError)
    }
}

const ICMP: u32 = 1;
const TCP: u32 = 6;
const UDP: u32 = 17;
const ICMPV6: u32 = 58;

impl Service {
    /// Every protocol and port.
    pub const ALL: Self = Self {
        first: 0,
        last: 0x00ff_ffff,
    };

    const fn of(protocol: u32, first: u32, last: u32) -> Self {
        Self {
            first: protocol << 16 | first,
            last: protocol << 16 | last,
        }
    }

    /// What carries other packets inside, which nobody judges: IP in IP, 6in4, GRE, IP within IP,
    /// EtherIP, L2TP and MPLS in IP, VXLAN (both ports) and Geneve. In order.
    const TUNNELS: [Self; 10] = [
        Self::of(4, 0, 0xffff),
        Self::of(UDP, 4789, 4789),
        Self::of(UDP, 6081, 6081),
        Self::of(UDP, 8472, 8472),
        Self::of(41, 0, 0xffff),
        Self::of(47, 0, 0xffff),
        Self::of(94, 0, 0xffff),
        Self::of(97, 0, 0xffff),
        Self::of(115, 0, 0xffff),
        Self::of(137, 0, 0xffff),
    ];

    /// What an allow rule means by it: everything, and all of UDP, name no tunnel.
    fn without_tunnels(self) -> Vec<Self> {
        if self != Self::ALL && self != Self::of(UDP, 0, 0xffff) {
            return vec![self];
        }
        let mut parts = Vec::new();
        let mut first = self.first;
        let inside = |tunnel: &&Self| self.first <= tunnel.first && tunnel.last <= self.last;
        for tunnel in Self::TUNNELS.iter().filter(inside) {
            parts.push(Self {
                first,
                last: tunnel.first - 1,
            });
            first = tunnel.last + 1;
        }
        parts.push(Self { first, ..self });
        parts
    }
}

impl FromStr for Service {
    type Err = ServiceError;

    /// Reads `tcp/443`, `udp/5000-5100`, `tcp/*`, `icmp/8`, `icmp/3/4`, `icmpv6/*` or `proto/47`.
    fn from_str(text: &str) -> Result<Self, ServiceError> {
        let quoted = Quoted(text);
        let fail = |why: &str| ServiceError(format!("{quoted} {why}"));
        let (protocol, rest) = text.split_once('/').ok_or_else(|| {
            fail("is not a protocol and port; write it as tcp/443, udp/5000-5100, icmp/8 or proto/47")
        })?;
        let number = |text: &str, most: u32| -> Option<u32> {
            let digits = (1..=5).contains(&text.len()) && text.bytes().all(|c| c.is_ascii_digit());
            text.parse().ok().filter(|&number| digits && number <= most)
        };
        let port = |text: &str| {
            number(text, 0xffff).ok_or_else(|| {
                fail("has no port from 0 to 65535; write one, a range as 5000-5100, or * for all")
            })
        };
        let kind = |text: &str| {
            number(text, 0xff).ok_or_else(|| {
                fail("has no type from 0 to 255; write type, type/code, or * for all")
            })
        };
        match protocol {
            "tcp" | "udp" => {
                let protocol = if protocol == "tcp" { TCP } else { UDP };
                if rest == "*" {
                    return Ok(Self::of(protocol, 0, 0xffff));
                }
                let (first, last) = rest.split_once('-').unwrap_or((rest, rest));
                let (first, last) = (port(first)?, port(last)?);
                if first > last {
                    return Err(fail(&format!(
                        "is a range from high to low; write {last}-{first}"
                    )));
                }
                Ok(Self::of(protocol, first, last))
            }
            "icmp" | "icmpv6" => {
                let protocol = if protocol == "icmp" { ICMP } else { ICMPV6 };
                if rest == "*" {
                    return Ok(Self::of(protocol, 0, 0xffff));
                }
                match rest.split_once('/') {
                    Some((of, code)) => {
                        let key = kind(of)? << 8 | kind(code)?;
                        Ok(Self::of(protocol, key, key))
                    }
                    None => {
                        let key = kind(rest)? << 8;
                        Ok(Self::of(protocol, key, key | 0xff))
                    }
                }
            }
            "proto" => {
                let protocol = number(rest, 0xff)
                    .ok_or_else(|| fail("has no protocol number from 0 to 255; write proto/47"))?;
                Ok(Self::of(protocol, 0, 0xffff))
            }
            _ => Err(fail(
                "names no known protocol; one of tcp, udp, icmp, icmpv6, proto",
            )),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

// ── reading a document ─────────────────────────────────────────────────────────────────────────

/// The format that this module reads.
const VERSION: u32 = 1;

fn read(
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

fn port_for(ports: &[Port], interface: &str) -> Option<usize> {
    let fits = |port: &Port| {
        let exact = port.pattern.is_exact();
        (exact || interface != "lo") && port.pattern.matches(interface)
    };
    (0..ports.len())
        .filter(|&at| fits(&ports[at]))
        .min_by_key(|&at| {
            let pattern = &ports[at].pattern;
            (!pattern.is_exact(), Reverse(pattern.literals()), pattern)
        })
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
            expires = Timestamp::new(time.seconds, time.nanos).ok();
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

/// Joins what overlaps or touches, so that equal sets of keys are equal lists.
fn merge(mut services: Vec<Service>) -> Vec<Service> {
    services.sort_unstable();
    services.dedup_by(|next, kept| {
        let joined = next.first <= kept.last.saturating_add(1);
        if joined {
            kept.last = kept.last.max(next.last);
        }
        joined
    });
    services
}

// ── what is accepted but deserves a look ───────────────────────────────────────────────────────

const MAX_WARNINGS: usize = 1000;

fn warnings(intent: &Intent, now: Timestamp) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut devices = vec![0_usize; intent.zones.len()];
    let mut with_macs = vec![Vec::new(); intent.zones.len()];
    for device in &intent.devices {
        devices[device.zone.0] += 1;
        if !device.macs.is_empty() {
            with_macs[device.zone.0].push(device.name.as_str());
        } else if let Some(port) = &device.port {
            let name = &device.name;
            warnings.push(format!(
                "device {name:?}: has port {port:?} but no MAC to appear there with"
            ));
        }
    }
    let carried: HashSet<ZoneIndex> = intent
        .ports
        .iter()
        .flat_map(|port| port.zone.iter().chain(port.vlans.values()))
        .copied()
        .collect();
    let named: HashSet<ZoneIndex> = intent
        .rules
        .iter()
        .flat_map(|rule| rule.from.iter().chain(&rule.to))
        .filter_map(|selector| match selector {
            Selector::Zone(zone) => Some(*zone),
            Selector::Device(device) => Some(intent.devices[device.0].zone),
            Selector::Cidr(_) | Selector::Router | Selector::Any => None,
        })
        .collect();
    for (at, zone) in intent.zones.iter().enumerate() {
        let name = &zone.name;
        if devices[at] == 0 && zone.subnets.is_empty() {
            warnings.push(format!("zone {name:?}: is empty: no device and no subnet"));
        }
        let zone = ZoneIndex(at);
        if !carried.contains(&zone) && !named.contains(&zone) {
            warnings.push(format!(
                "zone {name:?}: is unused: no port carries it and no rule names it"
            ));
        }
        if let (false, [device, others @ ..]) = (carried.contains(&zone), &with_macs[at][..]) {
            let others = match others.len() {
                0 => String::new(),
                count => format!(" and {count} more"),
            };
            warnings.push(format!(
                "zone {name:?}: no port carries it, where device {device:?}{others} could appear"
            ));
        }
    }
    for port in &intent.ports {
        if port.zone.is_none() && port.vlans.is_empty() {
            let pattern = port.pattern.as_str();
            warnings.push(format!(
                "port {pattern:?}: has no zone: every frame is dropped"
            ));
        }
    }
    for rule in &intent.rules {
        if let Some(expires) = rule.expires.filter(|&expires| expires <= now) {
            let (name, action) = (
                &rule.name,
                match rule.action {
                    Action::Allow => "allows",
                    Action::Deny => "denies",
                },
            );
            warnings.push(format!(
                "rule {name:?}: expired at {expires} and {action} nothing"
            ));
        }
    }
    warnings.sort_unstable();
    if warnings.len() > MAX_WARNINGS {
        let more = warnings.len() - MAX_WARNINGS;
        warnings.truncate(MAX_WARNINGS);
        warnings.push(format!("{more} more warnings"));
    }
    warnings
}

// ── prefixes, addresses, interfaces ────────────────────────────────────────────────────────────

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

fn parse_prefix(text: &str) -> Result<IpNet, String> {
    let quoted = Quoted(text);
    if let Ok(address) = text.parse::<IpAddr>() {
        let prefix = IpNet::from(address);
        return Err(format!("{quoted} has no prefix length; write {prefix}"));
    }
    let prefix: IpNet = text.parse().map_err(|_| {
        format!("{quoted} is not a prefix; write it as 10.20.0.0/16 or 2001:db8::/32")
    })?;
    let right = prefix.trunc();
    if prefix != right {
        return Err(format!("{quoted} has host bits set; the prefix is {right}"));
    }
    if let IpNet::V6(v6) = prefix
        && let (Some(mapped), Some(length)) =
            (v6.addr().to_ipv4_mapped(), v6.prefix_len().checked_sub(96))
    {
        return Err(format!("{quoted} is IPv4 in IPv6; write {mapped}/{length}"));
    }
    Ok(prefix)
}

/// Refuses what no zone can own: groups, the loopback, and IPv6 link-local.
fn ordinary_prefix(prefix: IpNet) -> Result<IpNet, String> {
    let inside = |outer: IpNet| outer.contains(&prefix);
    let [v4_group, v4_loop] = [([224, 0, 0, 0], 4), ([127, 0, 0, 0], 8)]
        .map(|(address, length)| IpNet::V4(Ipv4Net::new_assert(address.into(), length)));
    let [v6_group, v6_loop, v6_link] = [
        ([0xff00, 0, 0, 0, 0, 0, 0, 0], 8),
        ([0, 0, 0, 0, 0, 0, 0, 1], 128),
        ([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10),
    ]
    .map(|(address, length)| IpNet::V6(Ipv6Net::new_assert(address.into(), length)));
    if inside(v4_group) || inside(v6_group) {
        return Err(format!("{prefix} is multicast, which is in no zone"));
    }
    if inside(v4_loop) || inside(v6_loop) {
        return Err(format!("{prefix} is loopback, which is in no zone"));
    }
    if inside(v6_link) {
        return Err(format!(
            "{prefix} is link-local, which is every device's own and never listed"
        ));
    }
    Ok(prefix)
}

fn parse_address(text: &str) -> Result<IpAddr, String> {
    let quoted = Quoted(text);
    let address: IpAddr = text.parse().map_err(|_| match text.parse::<IpNet>() {
        Ok(prefix) => format!(
            "{quoted} is a prefix; write the address, as {}",
            prefix.addr()
        ),
        Err(_) => format!("{quoted} is not an address; write it as 10.20.1.11 or 2001:db8::11"),
    })?;
    let refuse = |what: &str| {
        Err(format!(
            "{address} is {what}; write the device's own address"
        ))
    };
    if address.is_unspecified() {
        return refuse("the unspecified address");
    }
    if address.is_loopback() {
        return refuse("loopback");
    }
    if address.is_multicast() {
        return refuse("multicast");
    }
    match address {
        IpAddr::V4(v4) if v4.is_broadcast() => refuse("the broadcast address"),
        IpAddr::V4(v4) if v4.is_link_local() => refuse("link-local"),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Err(format!(
            "{address} is link-local, which is the device's own and never listed; leave it out"
        )),
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => Err(format!("{address} is IPv4 in IPv6; write {v4}")),
            None => Ok(address),
        },
        IpAddr::V4(_) => Ok(address),
    }
}

/// The kernel's IFNAMSIZ without its terminator.
const MAX_INTERFACE: usize = 15;

fn check_pattern(pattern: &str) -> Result<(), String> {
    let stars = pattern.bytes().filter(|&c| c == b'*').count();
    if stars == 0 && !pattern.contains('?') {
        return check_interface(pattern);
    }
    check_characters(pattern)?;
    // A star may stand for nothing, everything else takes one character of the name.
    if pattern.len() - stars > MAX_INTERFACE {
        let quoted = Quoted(pattern);
        return Err(format!(
            "{quoted} matches nothing; an interface has at most {MAX_INTERFACE} characters"
        ));
    }
    // Each further star makes matching slower and says nothing more.
    if stars > MAX_INTERFACE + 1 {
        let quoted = Quoted(pattern);
        return Err(format!("{quoted} has {stars} stars; one does"));
    }
    Ok(())
}

fn check_interface(interface: &str) -> Result<(), String> {
    check_characters(interface)?;
    let quoted = Quoted(interface);
    if interface.contains(['*', '?']) {
        return Err(format!("{quoted} is a glob; name one interface"));
    }
    if interface.len() > MAX_INTERFACE {
        return Err(format!(
            "{quoted} is too long; an interface has at most {MAX_INTERFACE} characters"
        ));
    }
    if matches!(interface, "." | "..") {
        return Err(format!("{quoted} is no interface's name"));
    }
    Ok(())
}

fn check_characters(interface: &str) -> Result<(), String> {
    if interface.is_empty() {
        return Err("missing; name an interface, or a glob as lan*".to_owned());
    }
    if interface.contains(|c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control()) {
        let quoted = Quoted(interface);
        return Err(format!(
            "{quoted} is no interface's name; it has no `/`, `:` or spaces"
        ));
    }
    Ok(())
}

// ── names ──────────────────────────────────────────────────────────────────────────────────────

const MAX_NAME: usize = 63;

/// The names of one kind of object.
struct Names<'a> {
    kind: &'static str,
    sorted: Vec<&'a str>,
    /// By name: the position among the sorted ones, and the first in the document.
    places: HashMap<&'a str, (usize, usize)>,
}

impl<'a> Names<'a> {
    fn new(kind: &'static str, names: impl Iterator<Item = &'a str>) -> Self {
        let mut places = HashMap::with_capacity(names.size_hint().0);
        for (position, name) in names.enumerate() {
            if !name.is_empty() {
                places.entry(name).or_insert((0, position));
            }
        }
        let mut sorted: Vec<_> = places.keys().copied().collect();
        sorted.sort_unstable();
        for (at, name) in sorted.iter().enumerate() {
            if let Some(place) = places.get_mut(name) {
                place.0 = at;
            }
        }
        Self {
            kind,
            sorted,
            places,
        }
    }

    fn find(&self, name: &str) -> Option<usize> {
        self.places.get(name).map(|place| place.0)
    }

    fn position(&self, name: &str) -> Option<usize> {
        self.places.get(name).map(|place| place.1)
    }

    /// Checks the name of an object itself.
    fn check(&self, position: usize, name: &str, problems: &mut Problems) -> Result<(), Full> {
        let kind = self.kind;
        let path = format_args!("{kind}s[{position}].name");
        let quoted = Quoted(name);
        let allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-');
        if name.is_empty() {
            problems.add(path, format_args!("missing; give the {kind} a name"))?;
        } else if name.len() > MAX_NAME {
            let length = name.len();
            problems.add(
                path,
                format_args!("{quoted} has {length} characters; at most {MAX_NAME}"),
            )?;
        } else if !name.bytes().all(allowed) {
            problems.add(
                path,
                format_args!("{quoted} has more than letters, digits, `.`, `_` and `-`"),
            )?;
        }
        match self.position(name) {
            Some(first) if first != position => problems.add(
                path,
                format_args!("{quoted} is the name of {kind}s[{first}] already"),
            ),
            Some(_) | None => Ok(()),
        }
    }

    /// Reads a reference to an object of this kind.
    fn read(
        &self,
        name: &str,
        path: impl fmt::Display,
        problems: &mut Problems,
    ) -> Result<Option<usize>, Full> {
        let found = self.find(name);
        if found.is_none() {
            let message = self.missing(name, problems);
            problems.add(path, message)?;
        }
        Ok(found)
    }

    fn missing(&self, name: &str, problems: &mut Problems) -> String {
        let (kind, quoted) = (self.kind, Quoted(name));
        let limit = (name.len() / 3).clamp(1, 3);
        let mut nearest: Option<(usize, &str)> = None;
        if problems.comparisons < MAX_COMPARISONS && name.len() <= MAX_NAME {
            problems.comparisons += self.sorted.len();
            for &candidate in &self.sorted {
                if candidate.len().abs_diff(name.len()) > limit || candidate.len() > MAX_NAME {
                    continue;
                }
                let distance = distance(name.as_bytes(), candidate.as_bytes());
                if distance <= limit && nearest.is_none_or(|(least, _)| distance < least) {
                    nearest = Some((distance, candidate));
                }
            }
        }
        if let Some((_, candidate)) = nearest {
            return format!("no {kind} {quoted}; did you mean \"{candidate}\"?");
        }
        match &self.sorted[..] {
            [] => format!("no {kind} {quoted}; the document has none"),
            few if few.len() <= 6 => {
                let list: Vec<_> = few.iter().map(|name| Quoted(name).to_string()).collect();
                format!("no {kind} {quoted}; there is {}", list.join(", "))
            }
            many => format!(
                "no {kind} {quoted} among {}; add it or correct the name",
                many.len()
            ),
        }
    }
}

/// The number of insertions, deletions, changes and swaps of neighbours between two words, without
/// regard to case.
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut before = [0; MAX_NAME + 1];
    let mut last: [usize; MAX_NAME + 1] = std::array::from_fn(|j| j);
    let mut row = [0; MAX_NAME + 1];
    let same = |i: usize, j: usize| a[i].eq_ignore_ascii_case(&b[j]);
    for i in 0..a.len() {
        row[0] = i + 1;
        for j in 0..b.len() {
            let change = last[j] + usize::from(!same(i, j));
            let mut least = change.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && same(i, j - 1) && same(i - 1, j) {
                least = least.min(before[j - 1] + 1);
            }
            row[j + 1] = least;
        }
        (before, last, row) = (last, row, before);
    }
    last[b.len()]
}

/// A text of the document as it may stand in a message: quoted, escaped, not too long.
#[derive(Clone, Copy)]
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.char_indices().nth(MAX_NAME + 1) {
            None => write!(f, "{:?}", self.0),
            Some((end, _)) => write!(f, "{:?}…", &self.0[..end]),
        }
    }
}

// ── collecting problems ────────────────────────────────────────────────────────────────────────

/// After so many problems reading stops.
const MAX_PROBLEMS: usize = 1000;

/// After so many names compared, unknown names get no suggestion.
const MAX_COMPARISONS: usize = 1_000_000;

/// Reading has stopped.
struct Full;

#[derive(Default)]
struct Problems {
    found: Vec<Problem>,
    comparisons: usize,
}

impl Problems {
    fn add(&mut self, path: impl fmt::Display, message: impl fmt::Display) -> Result<(), Full> {
        let full = self.found.len() >= MAX_PROBLEMS;
        let message = if full {
            format!("reading stopped here, after {MAX_PROBLEMS} problems; correct those first")
        } else {
            message.to_string()
        };
        self.found.push(Problem {
            path: path.to_string(),
            message,
        });
        if full { Err(Full) } else { Ok(()) }
    }

    fn extend<'p>(&mut self, problems: impl Iterator<Item = &'p Problem>) -> Result<(), Full> {
        for problem in problems {
            self.add(&problem.path, &problem.message)?;
        }
        Ok(())
    }

    /// Checks that a number of the document is one of its enum's.
    fn known<T, E>(
        &mut self,
        read: &Result<T, E>,
        value: i32,
        path: impl fmt::Display,
        words: &str,
    ) -> Result<(), Full> {
        match read {
            Ok(_) => Ok(()),
            Err(_) => self.add(path, format_args!("{value} is not known; one of {words}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits {
        devices: 1000,
        flows: 1024,
        flows_per_device: 64,
        rules: 1000,
    };

    #[test]
    fn reads_a_whole_document() {
        let intent = read(&clinic());
        let [cameras, pumps, servers] = [0, 1, 2].map(ZoneIndex);
        assert_eq!(
            names(&intent.zones, |zone| &zone.name),
            ["cameras", "pumps", "servers"]
        );
        assert!(intent.zones[0].observe && intent.zones[0].admit_any);
        assert!(!intent.zones[1].observe && !intent.zones[1].fragments);
        assert_eq!(
            intent.zones[1].subnets,
            [net("10.20.1.0/24"), net("2001:db8:1::/64")]
        );
        assert_eq!(intent.zones[0].ethertypes, [0x8892]);
        assert_eq!(intent.ports[1].zone, Some(pumps));
        assert_eq!(intent.ports[1].vlans, BTreeMap::from([(20, cameras)]));
        assert_eq!(intent.ports[1].attach, Attach::Tc);
        let ehr = &intent.devices[0];
        assert_eq!(
            (ehr.name.as_str(), ehr.zone, &ehr.macs[..]),
            ("ehr", servers, &[][..])
        );
        let pump = &intent.devices[1];
        assert_eq!(pump.macs, [Mac([2, 0, 0, 0, 1, 1])]);
        assert_eq!(pump.port.as_deref(), Some("lan1"));
        let rule = &intent.rules[0];
        assert_eq!(rule.name, "pumps-to-ehr");
        assert_eq!(rule.from, [Selector::Zone(pumps)]);
        assert_eq!(
            rule.to,
            [
                Selector::Device(DeviceIndex(0)),
                Selector::Cidr(net("0.0.0.0/0"))
            ]
        );
        assert_eq!(
            rule.services,
            [Service::of(6, 443, 443), Service::of(6, 2575, 2575)]
        );
        assert_eq!(intent.rules[1].services, [Service::ALL]);
        assert_eq!(intent.warnings, Vec::<String>::new());
    }

    #[test]
    fn names_what_is_wrong_and_what_would_be_right() {
        for (spoil, expected) in refusals() {
            let mut policy = clinic();
            spoil(&mut policy);
            assert_eq!(problems(&policy), [expected], "{expected}");
        }
    }

    type Spoil = fn(&mut v1::Policy);

    fn refusals() -> Vec<(Spoil, &'static str)> {
        vec![
            (|p| p.version = 2, "version: 2 is not known; write 1"),
            // Names.
            (
                |p| p.zones[1].name.clear(),
                r#"zones[1].name: missing; give the zone a name
ports[0].vlans[0].zone: no zone "cameras"; there is "pumps", "servers"
ports[1].zone: no zone "cameras"; there is "pumps", "servers""#,
            ),
            (
                |p| p.rules[0].name = "a b".to_owned(),
                r#"rules[0].name: "a b" has more than letters, digits, `.`, `_` and `-`"#,
            ),
            (
                |p| p.services[0].name = "x".repeat(64),
                r#"services[0].name: "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx" has 64 characters; at most 63
rules[0].services[0]: no service "hl7"; there is "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx""#,
            ),
            (
                |p| p.devices.extend_from_within(1..),
                r#"devices[2].name: "ehr" is the name of devices[1] already
devices[2].addresses[0]: 10.9.0.5 is already of devices[1], "ehr""#,
            ),
            // Zones.
            (
                |p| p.zones[0].mode = 7,
                "zones[0].mode: 7 is not known; one of enforce, observe",
            ),
            (
                |p| p.zones[0].fragments = 9,
                "zones[0].fragments: 9 is not known; one of drop, allow",
            ),
            (
                |p| p.zones[0].subnets[0] = "10.20.1.9/24".to_owned(),
                r#"zones[0].subnets[0]: "10.20.1.9/24" has host bits set; the prefix is 10.20.1.0/24"#,
            ),
            (
                |p| p.zones[0].subnets.push("10.1.2.3".to_owned()),
                r#"zones[0].subnets[2]: "10.1.2.3" has no prefix length; write 10.1.2.3/32"#,
            ),
            (
                |p| p.zones[0].subnets.push("10.0.0.0/33".to_owned()),
                r#"zones[0].subnets[2]: "10.0.0.0/33" is not a prefix; write it as 10.20.0.0/16 or 2001:db8::/32"#,
            ),
            (
                |p| p.zones[2].subnets.push("10.20.1.0/24".to_owned()),
                "zones[2].subnets[1]: 10.20.1.0/24 is listed at zones[0].subnets[0]; a prefix has one zone",
            ),
            (
                |p| p.zones[0].subnets.push("::ffff:10.0.0.0/104".to_owned()),
                r#"zones[0].subnets[2]: "::ffff:10.0.0.0/104" is IPv4 in IPv6; write 10.0.0.0/8"#,
            ),
            (
                |p| p.zones[0].subnets.push("fe80::/64".to_owned()),
                "zones[0].subnets[2]: fe80::/64 is link-local, which is every device's own and never listed",
            ),
            (
                |p| p.zones[0].subnets.push("239.1.0.0/16".to_owned()),
                "zones[0].subnets[2]: 239.1.0.0/16 is multicast, which is in no zone",
            ),
            (
                |p| p.zones[0].ethertypes = vec![0x05ff],
                "zones[0].ethertypes[0]: 0x05ff is no EtherType; they go from 0x0600 to 0xffff",
            ),
            (
                |p| p.zones[0].ethertypes = vec![0x1_0000],
                "zones[0].ethertypes[0]: 0x10000 is no EtherType; they go from 0x0600 to 0xffff",
            ),
            (
                |p| p.zones[0].ethertypes = vec![0x86dd],
                "zones[0].ethertypes[0]: 0x86dd is IP, ARP or a VLAN tag, which rules and ports decide",
            ),
            (
                |p| p.zones[0].ethertypes = (0x9000..0x9041).collect(),
                "zones[0].ethertypes: 65 ethertypes; a zone has at most 64",
            ),
            // Ports.
            (
                |p| p.ports[1].interface = "a-name-of-16-byt".to_owned(),
                r#"ports[1].interface: "a-name-of-16-byt" is too long; an interface has at most 15 characters"#,
            ),
            (
                |p| p.ports[1].interface = "lan 2".to_owned(),
                r#"ports[1].interface: "lan 2" is no interface's name; it has no `/`, `:` or spaces"#,
            ),
            (
                |p| p.ports[1].interface = "lan1".to_owned(),
                r#"ports[1].interface: "lan1" is listed at ports[0]"#,
            ),
            (
                |p| p.ports[0].zone = "pmps".to_owned(),
                r#"ports[0].zone: no zone "pmps"; did you mean "pumps"?"#,
            ),
            (
                |p| p.ports[0].vlans[0].id = 4095,
                "ports[0].vlans[0].id: 4095 is no VLAN id; they go from 0 to 4094",
            ),
            (
                |p| p.ports[0].vlans[0].id = 0,
                "ports[0].vlans[0].id: 0 is untagged, as ports[0].zone is; leave one of them out",
            ),
            (
                |p| p.ports[0].vlans = vec![p.ports[0].vlans[0].clone(); 2],
                "ports[0].vlans[1].id: 20 is listed at ports[0].vlans[0]",
            ),
            (
                |p| p.ports[0].vlans[0].zone.clear(),
                "ports[0].vlans[0].zone: missing; name the zone of this VLAN",
            ),
            (
                |p| p.ports[0].attach = 5,
                "ports[0].attach: 5 is not known; one of auto, xdp, tc",
            ),
            // Devices.
            (
                |p| p.devices[0].zone = "Pumsp".to_owned(),
                r#"devices[0].zone: no zone "Pumsp"; did you mean "pumps"?"#,
            ),
            (
                |p| p.devices[0].zone.clear(),
                "devices[0].zone: missing; name the device's zone",
            ),
            (
                |p| p.devices[0].macs[0] = "02:00:00:00:01".to_owned(),
                r#"devices[0].macs[0]: "02:00:00:00:01" is not a MAC address; write it as 02:00:00:00:01:01"#,
            ),
            (
                |p| p.devices[0].macs.push("ff:ff:ff:ff:ff:ff".to_owned()),
                r#"devices[0].macs[1]: "ff:ff:ff:ff:ff:ff" is a group's MAC; write the device's own"#,
            ),
            (
                |p| p.devices[0].macs.push("00:00:00:00:00:00".to_owned()),
                "devices[0].macs[1]: the zero MAC is nobody's; write the device's own",
            ),
            (
                |p| p.devices[1].macs.push("02-00-00-00-01-01".to_owned()),
                r#"devices[1].macs[0]: 02:00:00:00:01:01 is already of devices[0], "pump-1""#,
            ),
            (
                |p| p.devices[1].addresses.push("10.20.1.11".to_owned()),
                r#"devices[1].addresses[1]: 10.20.1.11 is already of devices[0], "pump-1"
devices[1].addresses[1]: 10.20.1.11 is in 10.20.1.0/24 of zone "pumps", the device in zone "servers"; move one of them"#,
            ),
            (
                |p| p.devices[0].addresses[0] = "10.20.1.130".to_owned(),
                r#"devices[0].addresses[0]: 10.20.1.130 is in 10.20.1.128/25 of zone "cameras", the device in zone "pumps"; move one of them"#,
            ),
            (
                |p| p.devices[0].addresses[0] = "10.20.1.11/24".to_owned(),
                r#"devices[0].addresses[0]: "10.20.1.11/24" is a prefix; write the address, as 10.20.1.11"#,
            ),
            (
                |p| p.devices[0].addresses.push("fe80::1".to_owned()),
                "devices[0].addresses[1]: fe80::1 is link-local, which is the device's own and never listed; leave it out",
            ),
            (
                |p| p.devices[0].addresses.push("::ffff:10.20.1.12".to_owned()),
                "devices[0].addresses[1]: ::ffff:10.20.1.12 is IPv4 in IPv6; write 10.20.1.12",
            ),
            (
                |p| p.devices[0].addresses.push("224.0.0.1".to_owned()),
                "devices[0].addresses[1]: 224.0.0.1 is multicast; write the device's own address",
            ),
            (
                |p| p.devices[1].addresses.clear(),
                "devices[1].addresses: missing, and so are macs; a device has addresses, a MAC, or both",
            ),
            (
                |p| {
                    p.devices[0].addresses.clear();
                    p.zones[0].subnets.clear();
                },
                r#"devices[0].addresses: missing, and none can be learned: zone "pumps" has no subnets; list the addresses or give the zone a subnet"#,
            ),
            (
                |p| p.devices[0].port = "wan0".to_owned(),
                r#"devices[0].port: no port matches "wan0"; list it under ports or leave it out here"#,
            ),
            (
                |p| p.devices[0].port = "lan9".to_owned(),
                r#"devices[0].port: "lan9" is ports[1], which does not carry zone "pumps""#,
            ),
            (
                |p| p.devices[0].port = "lan*".to_owned(),
                r#"devices[0].port: "lan*" is a glob; name one interface"#,
            ),
            // Services.
            (
                |p| p.services[0].ports.clear(),
                "services[0].ports: missing; list at least one, as tcp/443",
            ),
            (
                |p| p.services[0].ports[0] = "tcp/5100-5000".to_owned(),
                r#"services[0].ports[0]: "tcp/5100-5000" is a range from high to low; write 5000-5100"#,
            ),
            (
                |p| p.services[0].ports[0] = "sctp/5".to_owned(),
                r#"services[0].ports[0]: "sctp/5" names no known protocol; one of tcp, udp, icmp, icmpv6, proto"#,
            ),
            // Rules.
            (
                |p| p.rules[0].from.clear(),
                "rules[0].from: missing; list at least one end, or `any` for everything but the router",
            ),
            (
                |p| p.rules[0].to[0] = "pumps".to_owned(),
                r#"rules[0].to[0]: "pumps" is no selector; did you mean "zone:pumps"?"#,
            ),
            (
                |p| p.rules[0].to[0] = "10.0.0.1".to_owned(),
                r#"rules[0].to[0]: "10.0.0.1" is no selector; did you mean "cidr:10.0.0.1/32"?"#,
            ),
            (
                |p| p.rules[0].to[0] = "everyone".to_owned(),
                r#"rules[0].to[0]: "everyone" is no selector; one of zone:NAME, device:NAME, cidr:PREFIX, router, any"#,
            ),
            (
                |p| p.rules[0].to[0] = "device:er".to_owned(),
                r#"rules[0].to[0]: no device "er"; did you mean "ehr"?"#,
            ),
            (
                |p| p.rules[0].to[0] = "cidr:10.0.0.1/8".to_owned(),
                r#"rules[0].to[0]: "10.0.0.1/8" has host bits set; the prefix is 10.0.0.0/8"#,
            ),
            (
                |p| p.rules[0].services[1] = "https".to_owned(),
                r#"rules[0].services[1]: no service "https"; there is "hl7""#,
            ),
            (
                |p| p.rules[0].services[1] = "tcp/65536".to_owned(),
                r#"rules[0].services[1]: "tcp/65536" has no port from 0 to 65535; write one, a range as 5000-5100, or * for all"#,
            ),
            (
                |p| p.rules[0].action = 0,
                "rules[0].action: missing; one of allow, deny",
            ),
            (
                |p| p.rules[0].action = 3,
                "rules[0].action: 3 is not known; one of allow, deny",
            ),
            (
                |p| {
                    p.rules[0].expires = Some(prost_types::Timestamp {
                        seconds: i64::MAX,
                        nanos: 0,
                    })
                },
                "rules[0].expires: not a time; write it as 2026-12-01T00:00:00Z",
            ),
            // Limits.
            (
                |p| {
                    let device = |i: u32| v1::Device {
                        name: format!("many-{i}"),
                        zone: "servers".to_owned(),
                        addresses: vec![std::net::Ipv4Addr::from(0x0b00_0000 + i).to_string()],
                        ..Default::default()
                    };
                    p.devices.extend((0..999).map(device));
                },
                "devices: 1001 devices, but limits.devices is 1000",
            ),
        ]
    }

    #[test]
    fn tells_every_problem_in_the_order_of_the_document() {
        let mut policy = clinic();
        policy.rules[1].action = 0;
        policy.rules[0].to = vec!["zone:nowhere".to_owned()];
        policy.devices[1].zone = "nowhere".to_owned();
        policy.zones[2].mode = 9;
        policy.ports[0].zone = "nowhere".to_owned();
        let found = problems(&policy).join("\n");
        let paths: Vec<_> = found
            .lines()
            .filter_map(|line| line.split(": ").next())
            .collect();
        let expected = [
            "zones[2].mode",
            "ports[0].zone",
            "devices[1].zone",
            "rules[0].to[0]",
            "rules[1].action",
        ];
        assert_eq!(paths, expected);
    }

    #[test]
    fn stops_after_a_thousand_problems() {
        let mut policy = clinic();
        policy.rules[0].to = vec!["zone:nowhere".to_owned(); 5000];
        let found = Intent::from_policy(&policy, &LIMITS).expect_err("must be refused");
        assert_eq!(found.len(), 1001);
        assert_eq!(found[1000].path, "rules[0].to[1000]");
        assert!(found[1000].message.contains("after 1000 problems"));
    }

    #[test]
    fn warns_of_what_is_accepted_but_useless() {
        let mut policy = clinic();
        policy.zones.push(v1::Zone {
            name: "attic".to_owned(),
            ..Default::default()
        });
        policy.devices[1].macs = vec!["02:00:00:00:01:09".to_owned()];
        policy.ports.push(v1::Port {
            interface: "wan0".to_owned(),
            ..Default::default()
        });
        policy.rules[1].expires = Some(prost_types::Timestamp {
            seconds: 0,
            nanos: 0,
        });
        let expected = [
            r#"port "wan0": has no zone: every frame is dropped"#,
            r#"rule "replies": expired at 1970-01-01T00:00:00Z and denies nothing"#,
            r#"zone "attic": is empty: no device and no subnet"#,
            r#"zone "attic": is unused: no port carries it and no rule names it"#,
            r#"zone "servers": no port carries it, where device "ehr" could appear"#,
        ];
        assert_eq!(read(&policy).warnings, expected);
    }

    #[test]
    fn learns_the_addresses_of_a_device_in_a_zone_with_a_subnet() {
        let mut policy = clinic();
        policy.devices[0].addresses.clear();
        assert!(read(&policy).devices[1].addresses.is_empty());
    }

    #[test]
    fn takes_vlan_0_for_untagged() {
        let mut policy = clinic();
        let untagged = read(&policy);
        let zone = std::mem::take(&mut policy.ports[0].zone);
        policy.ports[0].vlans.push(v1::PortVlan { id: 0, zone });
        assert_eq!(read(&policy), untagged);
    }

    #[test]
    fn only_a_service_that_names_a_tunnel_allows_it() {
        let covers = |action: v1::Action, services: &[&str], key: u32| {
            let mut policy = clinic();
            policy.rules[0].action = action.into();
            policy.rules[0].services = services.iter().map(|it| (*it).to_owned()).collect();
            let intent = read(&policy);
            let named = |rule: &&Rule| rule.name == policy.rules[0].name;
            let rules = intent.rules.iter().filter(named);
            let mut services = rules.flat_map(|rule| &rule.services);
            services.any(|service| (service.first..=service.last).contains(&key))
        };
        let (gre, vxlan, ntp) = (47 << 16, 17 << 16 | 4789, 17 << 16 | 123);
        let allow = |services: &[&str], key| covers(v1::Action::Allow, services, key);
        assert!(!allow(&[], gre) && !allow(&[], vxlan) && allow(&[], ntp));
        assert!(!allow(&["udp/*"], vxlan) && allow(&["udp/*"], ntp));
        assert!(allow(&["udp/*", "udp/4789"], vxlan) && allow(&["udp/4000-5000"], vxlan));
        assert!(allow(&["proto/47"], gre));
        assert!(covers(v1::Action::Deny, &[], gre) && covers(v1::Action::Deny, &["udp/*"], vxlan));
    }

    #[test]
    fn reads_services() {
        let key = |text: &str| text.parse::<Service>().map(|s| (s.first, s.last)).ok();
        assert_eq!(key("tcp/443"), Some((0x06_01bb, 0x06_01bb)));
        assert_eq!(key("udp/5000-5100"), Some((0x11_1388, 0x11_13ec)));
        assert_eq!(key("tcp/*"), Some((0x06_0000, 0x06_ffff)));
        assert_eq!(key("tcp/0-65535"), Some((0x06_0000, 0x06_ffff)));
        assert_eq!(key("icmp/8"), Some((0x01_0800, 0x01_08ff)));
        assert_eq!(key("icmp/8/0"), Some((0x01_0800, 0x01_0800)));
        assert_eq!(key("icmpv6/128"), Some((0x3a_8000, 0x3a_80ff)));
        assert_eq!(key("icmpv6/*"), Some((0x3a_0000, 0x3a_ffff)));
        assert_eq!(key("proto/47"), Some((0x2f_0000, 0x2f_ffff)));
        for text in [
            "",
            "/",
            "tcp",
            "tcp/",
            "tcp/-",
            "tcp/1-",
            "tcp/+1",
            "tcp/ 1",
            "TCP/1",
            "icmp/256",
            "icmp/8/",
            "proto/256",
            "proto/*",
            "tcp/443/1",
            "udp/000001",
        ] {
            assert_eq!(key(text), None, "{text:?}");
        }
    }

    #[test]
    fn joins_services_that_touch() {
        let tcp = |first, last| Service::of(TCP, first, last);
        let joined = merge(vec![
            tcp(30, 40),
            tcp(1, 5),
            tcp(6, 9),
            tcp(2, 3),
            tcp(11, 12),
            tcp(35, 50),
        ]);
        assert_eq!(joined, [tcp(1, 9), tcp(11, 12), tcp(30, 50)]);
        assert_eq!(merge(vec![Service::ALL, tcp(1, 2)]), [Service::ALL]);
    }

    #[test]
    fn prefers_the_exact_port_then_the_longer_glob() {
        let port = |pattern: &str| Port {
            pattern: Pattern(pattern.to_owned()),
            zone: None,
            vlans: BTreeMap::new(),
            attach: Attach::Auto,
            dhcp_server: false,
            router: false,
            fast_forward: false,
        };
        let ports = ["*", "lan*", "lan1", "lan1*", "l?n*", "*n22"]
            .map(port)
            .to_vec();
        let intent = Intent {
            ports,
            ..Default::default()
        };
        let chosen = |interface| intent.port_for(interface).map(|port| port.pattern.as_str());
        assert_eq!(chosen("lan1"), Some("lan1"));
        assert_eq!(chosen("lan12"), Some("lan1*"));
        assert_eq!(
            chosen("lan22"),
            Some("*n22"),
            "equal numbers: the first by name"
        );
        assert_eq!(chosen("lin2"), Some("l?n*"));
        assert_eq!(chosen("eth0"), Some("*"));
        assert_eq!(chosen("lo"), None, "a glob never takes the loopback");
    }

    #[test]
    fn matches_globs() {
        let matches = |pattern: &str, name| Pattern(pattern.to_owned()).matches(name);
        assert!(matches("lan*", "lan") && matches("lan*", "lan10") && !matches("lan*", "wlan0"));
        assert!(matches("*an?", "lan1") && !matches("*an?", "lan"));
        assert!(matches("a*b*c", "aXbYbZc") && !matches("a*b*c", "aXbYbZ"));
        assert!(matches("**", "x") && !matches("?", "") && !matches("eth0", "eth01"));
        assert!(matches("e[0]*", "e[0]1") && !matches("e[0]*", "e01"));
    }

    #[test]
    fn writes_macs_as_it_reads_them() {
        let mac: Mac = "02-00-0A-00-01-fF".parse().expect("a MAC");
        assert_eq!(mac.to_string(), "02:00:0a:00:01:ff");
        assert_eq!(mac.to_string().parse(), Ok(mac));
        for text in [
            "",
            "02:00:00:00:01:01:02",
            "2:0:0:0:1:1",
            "02-00:00:00:01:01",
            "02:00:00:00:01:+1",
        ] {
            assert_eq!(text.parse::<Mac>(), Err(MacError), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn order_means_nothing(policy in Just(clinic()).prop_flat_map(|policy| {
            let v1::Policy { version, zones, ports, devices, services, rules } = policy;
            (
                Just(zones).prop_shuffle(),
                Just(ports).prop_shuffle(),
                Just(devices).prop_shuffle(),
                Just(services).prop_shuffle(),
                Just(rules).prop_shuffle(),
                any::<bool>(),
            ).prop_map(move |(mut zones, ports, devices, services, mut rules, reverse)| {
                if reverse {
                    zones.iter_mut().for_each(|zone| zone.subnets.reverse());
                    rules.iter_mut().for_each(|rule| {
                        rule.to.reverse();
                        rule.services.reverse();
                    });
                }
                v1::Policy { version, zones, ports, devices, services, rules }
            })
        })) {
            prop_assert_eq!(read(&policy), read(&clinic()));
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,20}") {
            let mut policy = clinic();
            policy.zones[0].subnets.push(text.clone());
            policy.devices[0].macs.push(text.clone());
            policy.devices[0].addresses.push(text.clone());
            policy.devices[0].port = text.clone();
            policy.rules[0].from.push(text.clone());
            policy.rules[0].services.push(text);
            prop_assert!(Intent::from_policy(&policy, &LIMITS).is_err());
        }

        #[test]
        fn distance_is_symmetric_and_zero_only_for_equal(a in "[a-d]{0,8}", b in "[a-d]{0,8}") {
            let there = distance(a.as_bytes(), b.as_bytes());
            prop_assert_eq!(there, distance(b.as_bytes(), a.as_bytes()));
            prop_assert_eq!(there == 0, a == b);
            prop_assert!(there <= a.len().max(b.len()));
        }
    }

    fn clinic() -> v1::Policy {
        let texts = |texts: &[&str]| {
            texts
                .iter()
                .map(|&text| text.to_owned())
                .collect::<Vec<_>>()
        };
        v1::Policy {
            version: 1,
            zones: vec![
                v1::Zone {
                    name: "pumps".to_owned(),
                    subnets: texts(&["10.20.1.0/24", "2001:db8:1::/64"]),
                    ..Default::default()
                },
                v1::Zone {
                    name: "cameras".to_owned(),
                    mode: v1::ZoneMode::Observe.into(),
                    admit: v1::ZoneAdmit::Any.into(),
                    subnets: texts(&["10.20.1.128/25"]),
                    ethertypes: vec![0x8892],
                    ..Default::default()
                },
                v1::Zone {
                    name: "servers".to_owned(),
                    subnets: texts(&["10.9.0.0/16"]),
                    ..Default::default()
                },
            ],
            ports: vec![
                v1::Port {
                    interface: "lan1".to_owned(),
                    zone: "pumps".to_owned(),
                    vlans: vec![v1::PortVlan {
                        id: 20,
                        zone: "cameras".to_owned(),
                    }],
                    attach: v1::Attach::Tc.into(),
                    ..Default::default()
                },
                v1::Port {
                    interface: "lan*".to_owned(),
                    zone: "cameras".to_owned(),
                    ..Default::default()
                },
            ],
            devices: vec![
                v1::Device {
                    name: "pump-1".to_owned(),
                    zone: "pumps".to_owned(),
                    macs: texts(&["02:00:00:00:01:01"]),
                    addresses: texts(&["10.20.1.11"]),
                    port: "lan1".to_owned(),
                },
                v1::Device {
                    name: "ehr".to_owned(),
                    zone: "servers".to_owned(),
                    addresses: texts(&["10.9.0.5"]),
                    ..Default::default()
                },
            ],
            services: vec![v1::Service {
                name: "hl7".to_owned(),
                ports: texts(&["tcp/2575"]),
            }],
            rules: vec![
                v1::Rule {
                    name: "pumps-to-ehr".to_owned(),
                    from: texts(&["zone:pumps", "zone:pumps"]),
                    to: texts(&["cidr:0.0.0.0/0", "device:ehr"]),
                    services: texts(&["hl7", "tcp/443"]),
                    action: v1::Action::Allow.into(),
                    ..Default::default()
                },
                v1::Rule {
                    name: "replies".to_owned(),
                    from: texts(&["any"]),
                    to: texts(&["router"]),
                    action: v1::Action::Deny.into(),
                    ..Default::default()
                },
            ],
        }
    }

    fn read(policy: &v1::Policy) -> Intent {
        Intent::from_policy(policy, &LIMITS).expect("the document is right")
    }

    /// All problems as one text, or none.
    fn problems(policy: &v1::Policy) -> Vec<String> {
        let found = Intent::from_policy(policy, &LIMITS)
            .err()
            .unwrap_or_default();
        if found.is_empty() {
            return Vec::new();
        }
        vec![
            found
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("\n"),
        ]
    }

    fn net(text: &str) -> IpNet {
        text.parse().expect("a prefix")
    }

    fn names<T>(items: &[T], name: impl Fn(&T) -> &str) -> Vec<&str> {
        items.iter().map(name).collect()
    }
}
