//! Warnings: what a document may say but deserves a look.

use std::collections::HashSet;

use ipnet::IpNet;
use jiff::Timestamp;

use crate::intent::{Action, Intent, Rule, Selector, Zone, ZoneIndex};

const MAX_WARNINGS: usize = 1000;

pub(super) fn warnings(intent: &Intent, now: Timestamp) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut devices = vec![0_usize; intent.zones.len()];
    let mut with_macs = vec![Vec::new(); intent.zones.len()];
    for device in &intent.devices {
        devices[device.zone.0] += 1;
        if !device.macs.is_empty() {
            with_macs[device.zone.0].push(device.name.as_str());
        }
    }
    let carried: HashSet<ZoneIndex> = intent
        .ports
        .iter()
        .flat_map(|port| port.zone.iter().chain(port.vlans.values()))
        .copied()
        .collect();
    let mut named: HashSet<ZoneIndex> = intent
        .rules
        .iter()
        .flat_map(Rule::selectors)
        .filter_map(|selector| match selector {
            Selector::Zone(zone) => Some(*zone),
            Selector::Device(device) => Some(intent.devices[device.0].zone),
            Selector::Label(_)
            | Selector::Cidr(_)
            | Selector::Internet
            | Selector::Name(_)
            | Selector::Router
            | Selector::Any => None,
        })
        .collect();
    let labelled = intent.labels.iter().flat_map(|it| &it.devices);
    named.extend(labelled.map(|device| intent.devices[device.0].zone));
    let mut ends = intent.rules.iter().flat_map(Rule::selectors);
    let names_internet = ends.any(|selector| *selector == Selector::Internet);
    for (at, zone) in intent.zones.iter().enumerate() {
        let name = &zone.name;
        if names_internet {
            for (family, v4) in [("IPv4", true), ("IPv6", false)] {
                if has_all(zone, v4) {
                    warnings.push(format!(
                        "zone {name:?}: has all of {family}, so `internet` in a rule means none of \
                         it"
                    ));
                }
            }
            if name == "internet" {
                warnings.push(format!(
                    "zone {name:?}: `internet` in a rule is not this zone but what is in no zone"
                ));
            }
        }
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

/// Whether a subnet of a zone has everything of a family that is allocated as unicast.
fn has_all(zone: &Zone, v4: bool) -> bool {
    zone.subnets.iter().any(|subnet| match subnet {
        IpNet::V4(net) => v4 && net.prefix_len() == 0,
        // Nothing outside `2000::/3` is allocated.
        IpNet::V6(net) => {
            let first = net.addr().segments()[0];
            !v4 && (net.prefix_len() == 0 || net.prefix_len() <= 3 && first & 0xe000 == 0x2000)
        }
    })
}
