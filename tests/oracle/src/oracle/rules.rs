//! What do the rules say between two ends, whichever packet asks?

use std::{collections::BTreeSet, net::IpAddr};

use jiff::Timestamp;
use wardline_proto::v1::{Action, Device, Reason, Rule};

use super::{Asks, Drop, End, Oracle, prefix_length, registry};
use crate::link::plain;

impl Oracle<'_> {
    /// What policy says of a packet that opens a flow between two ends.
    pub fn admitted(
        &self,
        now: Timestamp,
        source: End<'_>,
        destination: End<'_>,
        asks: Asks,
        ends: (IpAddr, IpAddr),
    ) -> Result<BTreeSet<String>, Drop> {
        if self.is_reserved(ends.0) || self.is_reserved(ends.1) {
            return Err(Drop::because(Reason::NoRule));
        }
        let is_kept = self.keeps(source, destination);
        let matches = |rule: &Rule| {
            is_kept(rule)
                && self.names_any(&rule.from, source)
                && self.names_any(&rule.to, destination)
        };
        self.decided(now, asks, matches, matches)
    }

    /// Whether a rule holds between two ends: with one of them in quarantine, only a deny or a rule
    /// that is kept; with both, none.
    fn keeps(&self, source: End<'_>, destination: End<'_>) -> impl Fn(&Rule) -> bool + Copy {
        let cut = [source, destination].map(|end| self.is_quarantined(end));
        let only_kept = self.only_kept;
        move |rule: &Rule| match cut {
            [false, false] if !only_kept => true,
            [true, true] => false,
            _ => rule.action() == Action::Deny || rule.keep_in_quarantine,
        }
    }

    /// Whether a rule lets others answer.
    pub fn lets_answer(&self, rule: &str) -> bool {
        let rule = self.policy.rules.iter().find(|it| it.name == rule);
        rule.is_some_and(|rule| !rule.answers_from.is_empty())
    }

    /// Whether a rule lets one end answer what the other has asked.
    pub fn may_answer(&self, rule: &str, opener: End<'_>, asker: End<'_>) -> bool {
        let is_kept = self.keeps(opener, asker);
        let rule = self.policy.rules.iter().find(|it| it.name == rule);
        rule.is_some_and(|rule| {
            is_kept(rule)
                && self.names_any(&rule.answers_from, opener)
                && self.names_any(&rule.from, asker)
        })
    }

    /// What policy says of a frame to a group that leaves through a port of a zone. From another
    /// zone it is allowed only by a rule that names the port's zone, not just the group.
    pub fn admitted_to_group(
        &self,
        now: Timestamp,
        source: End<'_>,
        group: IpAddr,
        zone: &str,
        is_near: bool,
        asks: Asks,
    ) -> Result<BTreeSet<String>, Drop> {
        // Receivers of the group behind the port count as members of the port's zone. The router is
        // not behind it, so there its address is like any that no device has.
        let is_listed = !self.router.contains(&group);
        let many = End::Other {
            address: group,
            device: self.device_of(group).filter(|_| is_listed),
            zone: Some(zone),
        };
        let names_group = |rule: &Rule| self.names_any(&rule.to, many);
        let names_zone = |rule: &Rule| {
            let is_zone = |to: &String| to == "any" || to.strip_prefix("zone:") == Some(zone);
            rule.to.iter().any(is_zone)
        };
        let is_kept = self.keeps(source, self.end(group));
        let is_from = |rule: &Rule| is_kept(rule) && self.names_any(&rule.from, source);
        self.decided(
            now,
            asks,
            // What the router takes for its own was not judged as a group where it entered.
            |rule| {
                is_from(rule) && ((is_near || is_listed) && names_group(rule) || names_zone(rule))
            },
            |rule| is_from(rule) && (is_near && names_group(rule) || names_zone(rule)),
        )
    }

    /// Any matching deny wins, else any matching allow, else deny.
    fn decided(
        &self,
        now: Timestamp,
        asks: Asks,
        denies: impl Fn(&Rule) -> bool,
        allows: impl Fn(&Rule) -> bool,
    ) -> Result<BTreeSet<String>, Drop> {
        let matching = |action: Action, expired: bool| -> BTreeSet<String> {
            let rules = self.policy.rules.iter();
            rules
                .filter(|rule| rule.action() == action && has_expired(rule, now) == expired)
                .filter(|rule| match action {
                    Action::Deny => denies(rule),
                    Action::Allow | Action::Unspecified => allows(rule),
                })
                .filter(|rule| self.is_for(rule, asks))
                .map(|rule| rule.name.clone())
                .collect()
        };
        let denies = matching(Action::Deny, false);
        if !denies.is_empty() {
            return Err(Drop {
                reason: Reason::DeniedByRule,
                rules: denies,
            });
        }
        let allows = matching(Action::Allow, false);
        if !allows.is_empty() {
            return Ok(allows);
        }
        let expired = matching(Action::Allow, true);
        if !expired.is_empty() {
            return Err(Drop {
                reason: Reason::Expired,
                rules: expired,
            });
        }
        Err(Drop::because(Reason::NoRule))
    }

    fn names_any(&self, selectors: &[String], end: End<'_>) -> bool {
        selectors.iter().any(|selector| match end {
            End::Router => selector == "router",
            End::Other {
                address,
                device,
                zone,
            } => match selector.split_once(':') {
                None if selector == "internet" => self.is_internet(address),
                None => selector == "any",
                Some(("zone", name)) => zone == Some(name),
                Some(("device", name)) => device.is_some_and(|device| device.name == name),
                Some(("label", label)) => {
                    device.is_some_and(|device| self.has_label(device, label))
                }
                Some(("name", name)) => {
                    let inside = device.is_some() || self.is_inside(address);
                    !inside && !self.is_connected(address) && self.is_told(name, address)
                }
                Some(("cidr", prefix)) => prefix_length(prefix, plain(address)).is_some(),
                Some(_) => false,
            },
        })
    }

    /// Whether an address is in a zone other than one that has all addresses and no port.
    fn is_inside(&self, address: IpAddr) -> bool {
        let zones = self.policy.zones.iter();
        let lengths = zones.filter_map(|zone| {
            let subnets = zone.subnets.iter();
            let length = subnets.filter_map(|it| prefix_length(it, address)).max()?;
            let ports = &self.policy.ports;
            let tagged = |name: &String| {
                ports
                    .iter()
                    .flat_map(|it| &it.vlans)
                    .any(|it| it.zone == *name)
            };
            let has_ports = ports.iter().any(|it| it.zone == zone.name) || tagged(&zone.name);
            Some((length, has_ports))
        });
        lengths
            .max()
            .is_some_and(|(length, has_ports)| length > 0 || has_ports)
    }

    /// Whether a resolver has given an address for a name, or for one below it.
    fn is_told(&self, selector: &str, address: IpAddr) -> bool {
        self.told.iter().any(|(name, told)| {
            let is_it = match selector.strip_prefix("*.") {
                Some(above) => name.strip_suffix(above).is_some_and(|it| it.ends_with('.')),
                None => name == selector,
            };
            *told == address && is_it
        })
    }

    /// Whether a device has a label, or its zone has it.
    fn has_label(&self, device: &Device, label: &str) -> bool {
        let zones = self.policy.zones.iter();
        let zone = zones.filter(|zone| zone.name == device.zone);
        let labels = zone.map(|zone| &zone.labels).chain([&device.labels]);
        let (key, value) = label.split_once('=').expect("a label has a value");
        { labels }.any(|labels| labels.get(key).is_some_and(|it| it == value))
    }

    /// Whether an address is globally reachable and in no zone. What a NAT64 makes an IPv4 address
    /// of is what that one is.
    fn is_internet(&self, address: IpAddr) -> bool {
        // An end that is not the router, although the address is the router's, is a group's.
        let is_free = |it: IpAddr| match self.end(it) {
            End::Router => it == address && !self.is_in_a_zone(it),
            End::Other { zone, .. } => zone.is_none() && !self.is_in_a_zone(it),
        };
        let behind = match address {
            IpAddr::V6(it) if prefix_length("64:ff9b::/96", address).is_some() => {
                Some(IpAddr::V4((it.to_bits() as u32).into()))
            }
            _ => None,
        };
        [Some(address), behind]
            .into_iter()
            .flatten()
            .all(|it| is_free(it) && registry::is_globally_reachable(it))
    }

    fn is_for(&self, rule: &Rule, asks: Asks) -> bool {
        let named = |text: &String| self.policy.services.iter().find(|it| it.name == *text);
        // An allow rule covers a tunnel only if it names it.
        let implied = rule.action() == Action::Deny || !is_tunnel(asks);
        let covers = |port: &String| {
            covers(port, asks) && (implied || !matches!(port.as_str(), "udp/*" | "proto/17"))
        };
        rule.services.is_empty() && implied
            || rule.services.iter().any(|text| match named(text) {
                Some(service) => service.ports.iter().any(covers),
                None => match known(text) {
                    [] => covers(text),
                    ports => ports.iter().any(|port| covers(&(*port).to_owned())),
                },
            })
    }
}

/// Services that rules may name although no document declares them, some of them.
fn known(name: &str) -> &'static [&'static str] {
    match name {
        "dns" => &["udp/53", "tcp/53"],
        "http" => &["tcp/80"],
        "https" => &["tcp/443"],
        "ping" => &["icmp/8", "icmpv6/128"],
        _ => &[],
    }
}

/// IP in IP, IPv6 in IP, GRE, and the like; VXLAN, Geneve and the older port of VXLAN.
fn is_tunnel(asks: Asks) -> bool {
    match asks {
        Asks::Protocol(number) => matches!(number, 4 | 41 | 47 | 94 | 97 | 115 | 137),
        Asks::Udp(port) => matches!(port, 4789 | 6081 | 8472),
        Asks::Tcp(_) | Asks::Icmp { .. } | Asks::Icmpv6 { .. } => false,
    }
}

fn has_expired(rule: &Rule, now: Timestamp) -> bool {
    rule.expires.is_some_and(|expires| {
        (expires.seconds, expires.nanos) <= (now.as_second(), now.subsec_nanosecond())
    })
}

/// Whether `tcp/443`, `udp/5000-5100`, `tcp/*`, `icmp/8`, `icmpv6/128` or `proto/47` covers it.
pub fn covers(port: &str, asks: Asks) -> bool {
    let (protocol, numbers) = port.split_once('/').expect("a service has a slash");
    let (first, last) = match numbers.split_once('-') {
        _ if numbers == "*" => (0, u16::MAX),
        Some((first, last)) => (
            first.parse().expect("a first port"),
            last.parse().expect("a last port"),
        ),
        None => {
            let number = numbers.parse().expect("a number");
            (number, number)
        }
    };
    let (name, number, protocol_number) = match asks {
        Asks::Tcp(port) => ("tcp", port, 6),
        Asks::Udp(port) => ("udp", port, 17),
        Asks::Icmp { kind, .. } => ("icmp", kind.into(), 1),
        Asks::Icmpv6 { kind, .. } => ("icmpv6", kind.into(), 58),
        Asks::Protocol(number) => ("proto", number.into(), number),
    };
    let number = if protocol == "proto" {
        protocol_number.into()
    } else {
        number
    };
    (protocol == name || protocol == "proto") && (first..=last).contains(&number)
}
