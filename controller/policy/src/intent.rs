//! A policy after it was read and checked, in values that can't contradict each other.
//!
//! Everything is sorted by name, so that the order of a document has no effect. References are
//! indexes: the compiler never meets a name that does not exist.

use std::{cmp::Reverse, collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use jiff::Timestamp;

use crate::words::{domain::Domain, interface::Pattern, label::Label, mac::Mac, service::Service};

/// A policy that is consistent: every reference exists, no address is in two zones.
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
    /// The labels that rules name; by key and value.
    pub labels: Vec<Labelled>,
    /// Whose answers are believed besides the router's; sorted.
    pub resolvers: Vec<IpAddr>,
    /// What is accepted but deserves a look; sorted.
    pub warnings: Vec<String>,
}

/// A position in [`Intent::zones`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ZoneIndex(pub usize);

/// A position in [`Intent::devices`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceIndex(pub usize);

/// A position in [`Intent::labels`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LabelIndex(pub usize);

/// A label that a rule names, and who has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labelled {
    /// The label.
    pub label: Label,
    /// The devices that have it, themselves or by their zone; sorted.
    pub devices: Vec<DeviceIndex>,
}

/// A group of devices and addresses that are treated alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone {
    /// Unique among zones.
    pub name: String,
    /// Whether packets that policy or state would drop pass and are reported.
    pub observe: bool,
    /// Whether unlisted MACs may send on a port of this zone.
    pub admit_any: bool,
    /// Sorted; other zones may have some of them, too.
    pub subnets: Vec<IpNet>,
    /// Whether fragments are judged by policy; otherwise they are dropped.
    pub fragments: bool,
    /// Whether IPv4 options and IPv6 extension headers are judged by policy.
    pub ip_options: bool,
    /// Further protocols that pass; sorted.
    pub ethertypes: Vec<u16>,
    /// Labels, which its devices have, too.
    pub labels: BTreeMap<String, String>,
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
    /// XDP if the port supports it and shows it every tag, else TC.
    #[default]
    Auto,
    /// XDP, or the port is not guarded.
    Xdp,
    /// TC ingress.
    Tc,
}

/// One device, or a server that rules name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Unique among devices.
    pub name: String,
    /// The zone that it is in.
    pub zone: ZoneIndex,
    /// Its own MACs, sorted; empty for a device that is not behind a guarded port.
    pub macs: Vec<Mac>,
    /// Its addresses, sorted.
    pub addresses: Vec<IpAddr>,
    /// Whether it may take free addresses of its zone, of a family that it lists none of.
    pub learn: bool,
    /// The only interface that it may appear on.
    pub port: Option<String>,
    /// Its own labels.
    pub labels: BTreeMap<String, String>,
}

/// Which ends may, or may not, open flows to which others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Unique among rules.
    pub name: String,
    /// One end; sorted, never empty.
    pub from: Vec<Selector>,
    /// The other end; sorted, never empty.
    pub to: Vec<Selector>,
    /// The services that it applies to; sorted, disjoint and not adjacent, never empty.
    pub services: Vec<Service>,
    /// What the rule does.
    pub action: Action,
    /// Whether each new flow makes an event.
    pub log: bool,
    /// When the rule ends.
    pub expires: Option<Timestamp>,
    /// Whether it also holds in quarantine: every deny rule, and the allow rules that say so.
    pub kept: bool,
    /// Who may answer what it lets through to a group or broadcast address; sorted.
    pub answers: Vec<Selector>,
}

impl Rule {
    /// Everyone whom it names.
    pub fn selectors(&self) -> impl Iterator<Item = &Selector> {
        self.from.iter().chain(&self.to).chain(&self.answers)
    }
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
    /// The devices that have a label, themselves or by their zone.
    Label(LabelIndex),
    /// Addresses, whichever device has them; never the router's.
    Cidr(IpNet),
    /// Globally reachable unicast addresses that are in no zone; never a device's or the router's.
    Internet,
    /// What a name stands for, by the answers of resolvers; never a device, a zone or the router.
    Name(Domain),
    /// The router itself.
    Router,
    /// Every device and address except the router.
    Any,
}

impl Intent {
    /// Finds the port of an interface: an exact name before a glob, more literal characters before
    /// fewer. A glob never matches the loopback.
    pub fn port_for(&self, interface: &str) -> Option<&Port> {
        port_for(&self.ports, interface).map(|at| &self.ports[at])
    }

    /// Tells whether a device has a label, itself or by its zone.
    pub fn is_labelled(&self, device: &Device, label: &Label) -> bool {
        label.is_in(&device.labels) || label.is_in(&self.zones[device.zone.0].labels)
    }
}

impl Device {
    /// Tells whether it takes free addresses of its zone, of this family: it lists none, and has a
    /// MAC from which they can be learned.
    pub fn learns(&self, v4: bool) -> bool {
        let listed = self.addresses.iter().any(|address| address.is_ipv4() == v4);
        self.learn && !listed && !self.macs.is_empty()
    }
}

impl Port {
    /// Tells whether an interface with this name may be this port. A glob is never the loopback.
    pub fn may_be(&self, interface: &str) -> bool {
        (self.pattern.is_exact() || interface != "lo") && self.pattern.matches(interface)
    }

    /// Tells whether frames of a zone may enter here, with or without a tag.
    pub fn carries(&self, zone: ZoneIndex) -> bool {
        self.zone == Some(zone) || self.vlans.values().any(|&tagged| tagged == zone)
    }
}

/// Finds the port of an interface: its position in any list of ports.
pub(crate) fn port_for(ports: &[Port], interface: &str) -> Option<usize> {
    (0..ports.len())
        .filter(|&at| ports[at].may_be(interface))
        .min_by_key(|&at| {
            let pattern = &ports[at].pattern;
            (!pattern.is_exact(), Reverse(pattern.literals()), pattern)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
