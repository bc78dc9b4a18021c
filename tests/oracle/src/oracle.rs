//! What a policy document means, worked out the slow way: every rule, every subnet, every device is
//! looked at for every packet.
//!
//! This judge shares no code with the controller or the data path. It knows the first packet of a
//! flow, unicast and well-formed, that is not control traffic; where the contract lists reasons,
//! it gives the first that holds.

mod learned;
mod observe;
pub mod registry;
mod rules;
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, net::IpAddr};

use self::{learned::Learned, observe::zones_on};
pub use self::{
    learned::{Sender, learns},
    rules::covers,
};
use crate::link::{is_link_local, linked, made_of, plain};
use jiff::Timestamp;
use wardline_proto::v1::{Device, Policy, Port, Reason, Zone, ZoneAdmit};

/// The first packet of a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Where the packet comes from.
    pub entry: Entry,
    pub source: IpAddr,
    pub destination: IpAddr,
    pub asks: Asks,
    pub now: Timestamp,
}

/// Where a packet comes from. From a guarded port it is judged as it enters; else, as it leaves
/// through one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    Guarded {
        interface: String,
        vlan: u16,
        mac: [u8; 6],
    },
    Uplink,
    Router,
}

/// What a packet asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asks {
    Tcp(u16),
    Udp(u16),
    Icmp { kind: u8, code: u8 },
    Icmpv6 { kind: u8, code: u8 },
    Protocol(u8),
}

/// The expected verdict on a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// It passes; the rules that match and allow, any of which may be named.
    Allowed(BTreeSet<String>),
    /// It is dropped.
    Dropped(Drop),
    /// It would be dropped, and passes because the zones are in observe.
    Observed(Drop),
}

/// Why a packet is dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drop {
    pub reason: Reason,
    /// The rules that match and decided, any of which may be named; empty: no rule did.
    pub rules: BTreeSet<String>,
}

impl Expected {
    /// Whether a judge's answer is right: passed or not, its reason, and the rule it names, if any.
    /// An observed packet may be reported with the reason it passed or the one it would be dropped
    /// for. An expired rule need not be named.
    pub fn accepts(&self, passed: bool, reason: Reason, rule: Option<&str>) -> bool {
        let is_one_of = |rules: &BTreeSet<String>| match rule {
            Some(rule) => rules.contains(rule),
            None => rules.is_empty(),
        };
        match self {
            Self::Allowed(rules) => passed && reason == Reason::Rule && is_one_of(rules),
            Self::Dropped(drop) => !passed && drop.accepts(reason, rule),
            Self::Observed(drop) => {
                let reason = if reason == Reason::Observed {
                    drop.reason
                } else {
                    reason
                };
                passed && (drop.accepts(reason, rule) || rule.is_none() && reason == drop.reason)
            }
        }
    }
}

impl Drop {
    pub fn because(reason: Reason) -> Self {
        Self {
            reason,
            rules: BTreeSet::new(),
        }
    }

    fn accepts(&self, reason: Reason, rule: Option<&str>) -> bool {
        let optional = self.reason == Reason::Expired || self.rules.is_empty();
        self.reason == reason
            && match rule {
                Some(rule) => self.rules.contains(rule),
                None => optional,
            }
    }
}

/// A policy, and what is known beside it.
#[derive(Clone, Debug)]
pub struct Oracle<'a> {
    policy: &'a Policy,
    router: BTreeSet<IpAddr>,
    /// The MACs of the router's interfaces.
    macs: BTreeSet<[u8; 6]>,
    learned: Learned,
    /// Networks that the router reaches directly, and through which interface.
    connected: Vec<(String, String)>,
    /// Interfaces through which no bridge or the like passes on frames.
    apart: BTreeSet<String>,
    /// Interfaces that a bridge joins to one link.
    joined: BTreeSet<String>,
    /// Addresses that resolvers have given for names.
    told: Vec<(String, IpAddr)>,
    quarantined: BTreeSet<String>,
    /// Ports in quarantine.
    ports_cut: BTreeSet<String>,
    /// Whether only what is kept in quarantine holds, because a port on the way is in it.
    only_kept: bool,
    /// The interface through which packets leave that are judged as they leave.
    exit: Option<String>,
}

/// One end of a packet.
#[derive(Clone, Copy, Debug)]
pub enum End<'a> {
    Router,
    Other {
        address: IpAddr,
        device: Option<&'a Device>,
        zone: Option<&'a str>,
    },
}

impl<'a> Oracle<'a> {
    /// A judge of packets at a router with these addresses.
    pub fn new(policy: &'a Policy, router_addresses: &[IpAddr]) -> Self {
        let router = router_addresses.iter().copied().collect();
        Self {
            policy,
            router,
            macs: BTreeSet::new(),
            learned: Learned::default(),
            connected: Vec::new(),
            apart: BTreeSet::new(),
            joined: BTreeSet::new(),
            told: Vec::new(),
            quarantined: BTreeSet::new(),
            ports_cut: BTreeSet::new(),
            only_kept: false,
            exit: None,
        }
    }

    /// The number of the link that an interface is on.
    pub fn link_of(&self, interface: &str) -> u32 {
        // No other interfaces of the tests share a link.
        let interface = match self.joined.first() {
            Some(first) if self.joined.contains(interface) => first,
            _ => interface,
        };
        let mix = |sum, byte| sum * 31 % 1_000_003 + u32::from(byte);
        interface.bytes().fold(1, mix)
    }

    /// Gives the router's interfaces a MAC.
    pub fn own(&mut self, mac: [u8; 6]) {
        self.macs.insert(mac);
    }

    /// Says that the router reaches a network directly through an interface.
    pub fn connect(&mut self, interface: &str, network: &str) {
        let connected = (interface.to_owned(), network.to_owned());
        self.connected.push(connected);
    }

    /// Says that a resolver has given an address for a name.
    pub fn tell(&mut self, name: &str, address: IpAddr) {
        self.told.push((name.to_owned(), address));
    }

    /// Says that no bridge or the like passes on frames through an interface.
    pub fn set_apart(&mut self, interface: &str) {
        self.apart.insert(interface.to_owned());
    }

    /// Joins interfaces to one link.
    pub fn join(&mut self, interfaces: &[&str]) {
        self.joined = interfaces.iter().map(|name| (*name).to_owned()).collect();
    }

    /// The zone of a device that is above a bridge, seen where it sends through a port of it: its
    /// own, when some port of the bridge has that, but not this one.
    pub fn zone_above(&self, interface: &str, mac: [u8; 6]) -> Option<&'a str> {
        let device = self.with_mac(mac)?;
        let has = |interface: &String| {
            self.has_port(interface)
                && zones_on(self.port_of(interface)).any(|zone| zone == device.zone)
        };
        let interface = interface.to_owned();
        let is_beside = self.joined.contains(&interface) && !has(&interface);
        (is_beside && self.joined.iter().any(has)).then_some(&device.zone)
    }

    /// Whether a device that is above a bridge belongs to one of its ports.
    fn is_of_link(&self, device: &Device, interface: &str) -> bool {
        self.joined.contains(interface) && self.joined.contains(&device.port)
    }

    /// Whether only the router itself and hosts above an interface send through it.
    pub fn is_apart(&self, interface: &str) -> bool {
        self.apart.contains(interface)
    }

    /// Whether an interface of the router has a MAC.
    pub fn is_own_mac(&self, mac: [u8; 6]) -> bool {
        self.macs.contains(&mac)
    }

    /// The device that lists a MAC.
    pub fn with_mac(&self, mac: [u8; 6]) -> Option<&'a Device> {
        self.policy.devices.iter().find(|it| has_mac(it, mac))
    }

    /// Puts a device in quarantine.
    pub fn quarantine(&mut self, device: &str) {
        self.quarantined.insert(device.to_owned());
    }

    /// Puts a port in quarantine.
    pub fn cut_port(&mut self, interface: &str) {
        self.ports_cut.insert(interface.to_owned());
    }

    /// Whether a port is in quarantine.
    pub fn is_cut_port(&self, interface: &str) -> bool {
        self.ports_cut.contains(interface)
    }

    /// Says whether packets go through a port in quarantine from now on.
    pub fn only_kept(&mut self, only: bool) {
        self.only_kept = only;
    }

    /// The expected verdict on the packet.
    ///
    /// # Panics
    /// When it enters at an interface that no port matches: nothing judges it.
    pub fn judge(&self, probe: &Probe) -> Expected {
        let interface = match &probe.entry {
            Entry::Guarded { interface, .. } => Some(interface),
            Entry::Uplink | Entry::Router => self.exit.as_ref(),
        };
        let link = interface.map_or(0, |interface| self.link_of(interface));
        let probe = &Probe {
            source: linked(probe.source, link),
            destination: linked(probe.destination, link),
            ..probe.clone()
        };
        let drop = match self.allowed(probe) {
            Ok(rules) => return Expected::Allowed(rules),
            Err(drop) => drop,
        };
        if drop.reason != Reason::Quarantined && self.is_observed(probe) {
            Expected::Observed(drop)
        } else {
            Expected::Dropped(drop)
        }
    }

    fn allowed(&self, probe: &Probe) -> Result<BTreeSet<String>, Drop> {
        let source = self.place(probe).map_err(Drop::because)?;
        let destination = self.end(probe.destination);
        let admitted = self.admit(probe, source, destination);
        if admitted.is_err() && self.is_cut(source, destination) {
            return Err(Drop::because(Reason::Quarantined));
        }
        admitted
    }

    /// The sender, if it may send from there with that address.
    fn place(&self, probe: &Probe) -> Result<End<'a>, Reason> {
        let source = probe.source;
        match &probe.entry {
            Entry::Router => Ok(End::Router),
            Entry::Uplink if self.may_come_up(source) => Ok(self.end(source)),
            Entry::Uplink => Err(Reason::SpoofedSource),
            Entry::Guarded {
                interface,
                vlan,
                mac,
            } => {
                let zone = zone_on(self.port_of(interface), *vlan).ok_or(Reason::WrongVlan)?;
                let device = self
                    .stands(interface, zone, *mac, false)
                    .map_err(|drop| drop.reason)?;
                let sender = Sender::new(device, *mac);
                let new = self.is_new(device, &sender, source);
                if !self.may_send(device, zone, source) || new && !self.may_learn(&sender, source) {
                    return Err(Reason::SpoofedSource);
                }
                Ok(End::Other {
                    address: source,
                    device,
                    zone: Some(zone),
                })
            }
        }
    }

    /// The device of a MAC in a zone of a port; none for an unlisted MAC that the zone admits.
    pub fn stands(
        &self,
        interface: &str,
        zone: &str,
        mac: [u8; 6],
        is_above: bool,
    ) -> Result<Option<&'a Device>, Drop> {
        let port = self.port_of(interface);
        let device = self.with_mac(mac);
        match device {
            Some(device)
                if is_above && self.is_of_link(device, interface) && device.zone == zone => {}
            Some(device) => stands_right(device, port, interface, zone).map_err(Drop::because)?,
            // A MAC that no device lists may be the router's; then nobody behind a port has it.
            None if self.macs.contains(&mac) || !self.admits_any(zone) => {
                return Err(Drop::because(Reason::UnknownDevice));
            }
            None => {}
        }
        Ok(device)
    }

    /// Whether an address may be the source of what comes from an uplink: it is neither reserved,
    /// nor the router's, nor a guarded device's, nor a free one of a network behind guarded ports.
    pub fn may_come_up(&self, source: IpAddr) -> bool {
        self.may_come_from_beside(source) && !self.is_connected(source)
    }

    /// The same for what arrives on a link, where a free address may be.
    pub fn may_come_from_beside(&self, source: IpAddr) -> bool {
        !is_martian(source) && !self.is_ours(source)
    }

    /// Whether an address that no device lists is in a network behind guarded ports.
    fn is_connected(&self, address: IpAddr) -> bool {
        let mut connected = self.connected.iter();
        !is_link_local(address)
            && self.device_of(address).is_none()
            && connected.any(|(interface, network)| {
                self.has_port(interface) && prefix_length(network, address).is_some()
            })
    }

    /// Whether an address is the router's.
    pub fn is_the_routers(&self, address: IpAddr) -> bool {
        self.router.contains(&plain(address)) || self.is_reserved(address)
    }

    /// Whether the router could have made a link-local address of one of its MACs. If it has not,
    /// nobody has it.
    pub fn is_reserved(&self, address: IpAddr) -> bool {
        let own = |mac| self.is_own_mac(mac) && self.with_mac(mac).is_none();
        !self.router.contains(&plain(address)) && made_of(address).is_some_and(own)
    }

    /// Whether an address is the router's, or of who is on a guarded port.
    pub fn is_ours(&self, address: IpAddr) -> bool {
        let on_a_port = self
            .device_of(address)
            .is_some_and(|it| !it.macs.is_empty());
        on_a_port || self.is_the_routers(address) || self.is_guests(address)
    }

    /// Whether two addresses are of one device.
    pub fn are_of_one(&self, one: IpAddr, other: IpAddr) -> bool {
        let device = |address| match self.end(address) {
            End::Other { device, .. } => device.map(|device| &device.name),
            End::Router => None,
        };
        device(one).is_some() && device(one) == device(other)
    }

    /// Whether the router may send from an address: its own, or one that no guarded device has.
    pub fn may_be_sent_by_router(&self, source: IpAddr) -> bool {
        self.is_the_routers(source) || self.may_come_up(source)
    }

    /// Whether a device, or an unlisted MAC, in `zone` may send from `source`, if it
    /// [may learn](Self::may_learn) what it has to.
    pub fn may_send(&self, device: Option<&Device>, zone: &str, source: IpAddr) -> bool {
        !is_martian(source) && self.may_use(device, zone, source)
    }

    /// The same, without the check for reserved addresses.
    fn may_use(&self, device: Option<&Device>, zone: &str, source: IpAddr) -> bool {
        if is_link_local(source) {
            // It is the device's whose MAC it is made of, and else the first comer's.
            let owner = made_of(source).and_then(|mac| self.with_mac(mac));
            return !self.is_the_routers(source)
                && owner.is_none_or(|owner| device.is_some_and(|it| it.name == owner.name));
        }
        if device.is_some_and(|device| has_address(device, source)) {
            return true;
        }
        let listed = self.policy.devices.iter().any(|it| has_address(it, source));
        !listed
            && device.is_none_or(|device| learns(device, source))
            && !self.is_the_routers(source)
            // What a device of another zone has learned, in a prefix that both share, is not free.
            && self.device_of(source).is_none_or(|it| it.zone == zone)
            && self.is_in(zone, source)
    }

    /// The rules that admit the packet, or why it is to be dropped.
    fn admit(
        &self,
        probe: &Probe,
        source: End<'_>,
        destination: End<'_>,
    ) -> Result<BTreeSet<String>, Drop> {
        match probe.asks {
            // Echo replies and errors belong to a flow, and none is there.
            Asks::Icmp {
                kind: 0 | 3 | 4 | 11 | 12,
                ..
            }
            | Asks::Icmpv6 {
                kind: 1..=4 | 129, ..
            } => return Err(Drop::because(Reason::MidFlow)),
            _ => {}
        }
        let ends = (probe.source, probe.destination);
        self.admitted(probe.now, source, destination, probe.asks, ends)
    }

    /// The end that an address belongs to.
    pub fn end(&self, address: IpAddr) -> End<'a> {
        if self.is_the_routers(address) {
            return End::Router;
        }
        let device = self.device_of(address);
        let zone = match device {
            Some(device) => Some(device.zone.as_str()),
            None if is_link_local(address) => self.guests_zone(address),
            None => self.subnet_zone(address),
        };
        End::Other {
            address,
            device,
            zone,
        }
    }

    fn device_of(&self, address: IpAddr) -> Option<&'a Device> {
        if let Some(mac) = made_of(address)
            && (self.with_mac(mac).is_some() || self.is_own_mac(mac))
        {
            return self.with_mac(mac);
        }
        let is_of =
            |device: &Device| has_address(device, address) || self.learned.is_of(device, address);
        self.policy.devices.iter().find(|device| is_of(device))
    }

    /// The zone of an address by subnets; none where several zones share the closest.
    fn subnet_zone(&self, address: IpAddr) -> Option<&'a str> {
        match self.closest(address)[..] {
            [zone] => Some(zone),
            _ => None,
        }
    }

    /// Whether an address is in a zone's subnets, and in no closer one of another.
    pub fn is_in(&self, zone: &str, address: IpAddr) -> bool {
        self.closest(address).contains(&zone)
    }

    /// Whether an address is in any zone's subnets.
    pub fn is_in_a_zone(&self, address: IpAddr) -> bool {
        !self.closest(address).is_empty()
    }

    /// The zones that have the longest prefix around an address.
    fn closest(&self, address: IpAddr) -> Vec<&'a str> {
        // No prefix tells the zone of a link-local address.
        if is_link_local(address) {
            return Vec::new();
        }
        let subnets = self.policy.zones.iter().flat_map(|zone| {
            let lengths = zone.subnets.iter();
            lengths.filter_map(|it| Some((prefix_length(it, address)?, zone.name.as_str())))
        });
        let subnets: Vec<(u32, &str)> = subnets.collect();
        let longest = subnets.iter().map(|(length, _)| *length).max();
        let closest = subnets.into_iter();
        closest
            .filter(|(length, _)| Some(*length) == longest)
            .map(|(_, zone)| zone)
            .collect()
    }

    /// Whether an interface is guarded.
    pub fn has_port(&self, interface: &str) -> bool {
        let mut ports = self.policy.ports.iter();
        ports.any(|port| matches_glob(&port.interface, interface))
    }

    /// The port whose settings hold at the interface.
    pub fn port_of(&self, interface: &str) -> &'a Port {
        let rank = |port: &&Port| {
            let literals = port.interface.chars().filter(|&c| c != '*').count();
            (port.interface == interface, literals)
        };
        let ports = self.policy.ports.iter();
        ports
            .filter(|port| matches_glob(&port.interface, interface))
            .max_by_key(rank)
            .unwrap_or_else(|| panic!("no port matches {interface}"))
    }

    pub fn zone(&self, name: &str) -> Option<&'a Zone> {
        self.policy.zones.iter().find(|zone| zone.name == name)
    }

    /// Whether a zone lets a protocol pass that is not IP.
    pub fn lets_pass(&self, zone: &str, ethertype: u16) -> bool {
        let ethertype = u32::from(ethertype);
        self.zone(zone)
            .is_some_and(|zone| zone.ethertypes.contains(&ethertype))
    }

    pub(crate) fn admits_any(&self, zone: &str) -> bool {
        self.zone(zone)
            .is_some_and(|zone| zone.admit() == ZoneAdmit::Any)
    }

    /// Whether a device is in quarantine.
    pub fn is_cut_off(&self, device: &Device) -> bool {
        self.quarantined.contains(&device.name)
    }

    /// Whether one of two ends is in quarantine.
    pub fn is_cut(&self, one: End<'_>, other: End<'_>) -> bool {
        self.is_quarantined(one) || self.is_quarantined(other)
    }

    pub fn is_quarantined(&self, end: End<'_>) -> bool {
        match end {
            End::Router | End::Other { device: None, .. } => false,
            End::Other {
                device: Some(device),
                ..
            } => self.is_cut_off(device),
        }
    }
}

/// The zone of a VLAN on a port; 0 is untagged.
pub fn zone_on(port: &Port, vlan: u16) -> Option<&str> {
    if vlan == 0 && !port.zone.is_empty() {
        return Some(&port.zone);
    }
    let mut vlans = port.vlans.iter();
    vlans
        .find(|it| it.id == u32::from(vlan))
        .map(|it| it.zone.as_str())
}

/// Whether a device may be where it was seen.
fn stands_right(device: &Device, port: &Port, interface: &str, zone: &str) -> Result<(), Reason> {
    if device.zone != zone {
        let is_beside =
            port.zone == device.zone || port.vlans.iter().any(|vlan| vlan.zone == device.zone);
        return Err(if is_beside {
            Reason::WrongVlan
        } else {
            Reason::WrongPort
        });
    }
    if !device.port.is_empty() && device.port != interface {
        return Err(Reason::WrongPort);
    }
    Ok(())
}

fn has_mac(device: &Device, mac: [u8; 6]) -> bool {
    let is_mac = |text: &String| {
        let bytes = text.split([':', '-']);
        let bytes = bytes.map(|byte| u8::from_str_radix(byte, 16).expect("a byte of a MAC"));
        bytes.eq(mac)
    };
    device.macs.iter().any(is_mac)
}

fn has_address(device: &Device, address: IpAddr) -> bool {
    device
        .addresses
        .iter()
        .any(|own| own.parse() == Ok(address))
}

/// Addresses that no packet may come from.
pub fn is_martian(address: IpAddr) -> bool {
    let reserved = match address {
        // "This" network (RFC 1122, 3.2.1.3) and class E (RFC 1112, 4).
        IpAddr::V4(it) => it.octets()[0] == 0 || it.octets()[0] >= 240,
        // IPv4 embedded in IPv6, mapped or compatible (RFC 4291, 2.5.5).
        IpAddr::V6(it) => it.to_ipv4().is_some(),
    };
    reserved || address.is_multicast() || address.is_loopback() || address.is_unspecified()
}

/// A multicast group, or the broadcast address.
pub fn is_group(address: IpAddr) -> bool {
    address.is_multicast() || matches!(address, IpAddr::V4(it) if it.is_broadcast())
}

/// The length of a prefix that the address is in.
pub fn prefix_length(prefix: &str, address: IpAddr) -> Option<u32> {
    let (network, length) = prefix.split_once('/').expect("a prefix has a length");
    let network: IpAddr = network.parse().expect("a prefix has an address");
    let length: u32 = length.parse().expect("a prefix has a number as length");
    let ends_equal = |a: u128, b: u128, bits: u32| length == 0 || (a ^ b) >> (bits - length) == 0;
    let inside = match (network, address) {
        (IpAddr::V4(a), IpAddr::V4(b)) => ends_equal(a.to_bits().into(), b.to_bits().into(), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => ends_equal(a.to_bits(), b.to_bits(), 128),
        _ => false,
    };
    inside.then_some(length)
}

/// Whether `*` in the pattern can stand for something that makes it the name.
fn matches_glob(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((start, rest)) => name.strip_prefix(start).is_some_and(|name| {
            (0..=name.len()).any(|at| name.is_char_boundary(at) && matches_glob(rest, &name[at..]))
        }),
    }
}
