//! What can be put into quarantine, and what it may still do there.

use std::collections::BTreeSet;

use wardline_ebpf::abi;
use wardline_policy::{
    failsafe::Failsafe,
    intent::{Action, Device, Intent, Port, Rule, Selector},
    quarantine::{Identity, Whom, own},
    snapshot::Snapshot,
    words::mac::Mac,
};

use super::refusal::Refusal;

/// Whom a call means: what they are known by, and what is there of them.
pub(super) struct Target {
    /// What they are known by in quarantine.
    pub(super) identities: Vec<Identity>,
    /// What they are called: the name of a device, or of an interface.
    pub(super) name: String,
    /// Who they are for people, as `device/pump-1`.
    pub(super) subject: String,
    /// The devices of the document, by position.
    devices: Vec<usize>,
    /// The number of the interface, if it exists.
    pub(super) port: Option<u32>,
    /// Whether something is among them that no device of the document has.
    pub(super) has_strangers: bool,
}

impl Target {
    /// Whom a call means that puts somebody into quarantine, or releases them. What is not there can't be
    /// cut off, and what is not cut off can't be released; what has gone since may be.
    pub(super) fn of(current: &Snapshot, whom: &Whom, quarantined: bool) -> Result<Self, Refusal> {
        let held = &current.quarantined;
        match whom {
            Whom::Port(name) => {
                let identity = Identity::Port(name.clone());
                if quarantined || held.get(&identity).is_none() {
                    is_guarded(current, name)?;
                }
                if !quarantined && held.get(&identity).is_none() {
                    return Err(Refusal::NotInQuarantine(whom.clone()));
                }
                Ok(Self::known(current, vec![identity], name, "port"))
            }
            Whom::Device(name) => {
                let device = device(&current.intent, name);
                let identities = match (device, quarantined) {
                    (None, true) => return Err(Refusal::missing("device", name)),
                    (Some(device), true) => own(device),
                    (device, false) => held_of(current, device, name),
                };
                if identities.is_empty() {
                    return Err(match device {
                        None => Refusal::missing("device", name),
                        Some(_) => Refusal::NotInQuarantine(whom.clone()),
                    });
                }
                let name = device.map_or(name, |device| &device.name);
                Ok(Self::known(current, identities, name, "device"))
            }
        }
    }

    /// What is there of who is known by these identities.
    pub(super) fn known(
        current: &Snapshot,
        identities: Vec<Identity>,
        name: &str,
        kind: &str,
    ) -> Self {
        let wanted: BTreeSet<&Identity> = identities.iter().collect();
        let devices = current.intent.devices.iter().enumerate();
        let devices = devices.filter(|(_, device)| all(device).any(|it| wanted.contains(&it)));
        let devices: Vec<usize> = devices.map(|(at, _)| at).collect();
        let of_devices = devices
            .iter()
            .flat_map(|at| all(&current.intent.devices[*at]));
        let of_devices: BTreeSet<Identity> = of_devices.collect();
        let mut port = None;
        let mut has_strangers = false;
        for identity in &identities {
            match identity {
                Identity::Port(name) => {
                    port = current.inventory.link(name).map(|link| link.number);
                }
                other => has_strangers |= !of_devices.contains(other),
            }
        }
        Self {
            name: name.to_owned(),
            subject: format!("{kind}/{name}"),
            devices,
            port,
            has_strangers,
            identities,
        }
    }

    /// The devices of the document.
    pub(super) fn devices<'a>(&self, current: &'a Snapshot) -> impl Iterator<Item = &'a Device> {
        let devices = self.devices.iter();
        devices.map(|at| &current.intent.devices[*at])
    }
}

/// A device by its name, or else by one of its MACs.
fn device<'a>(intent: &'a Intent, name: &str) -> Option<&'a Device> {
    let devices = &intent.devices;
    if let Ok(at) = devices.binary_search_by(|known| known.name.as_str().cmp(name)) {
        return Some(&devices[at]);
    }
    let mac: Mac = name.parse().ok()?;
    devices.iter().find(|device| device.macs.contains(&mac))
}

/// Everything by which a device may be known in quarantine.
fn all(device: &Device) -> impl Iterator<Item = Identity> {
    let macs = device.macs.iter().map(|it| Identity::Mac(*it));
    let addresses = device.addresses.iter().map(|it| Identity::Address(*it));
    let name = Identity::Device(device.name.clone());
    macs.chain(addresses).chain([name])
}

/// What is cut off of a device, and what was cut off when it was called so and is no other device's now.
/// Without a device: what was cut off when it was called so, or has that MAC.
fn held_of(current: &Snapshot, device: Option<&Device>, name: &str) -> Vec<Identity> {
    let held = &current.quarantined;
    let mut found: BTreeSet<Identity> = device.into_iter().flat_map(all).collect();
    if let Ok(mac) = name.parse() {
        found.insert(Identity::Mac(mac));
    }
    found.retain(|identity| held.get(identity).is_some());
    let strangers: BTreeSet<&Identity> = held
        .strangers(&current.intent)
        .into_iter()
        .map(|(identity, _)| identity)
        .collect();
    let by_name = held.iter().filter(|(identity, hold)| {
        hold.name == name
            && !matches!(identity, Identity::Port(_))
            && (device.is_none() || strangers.contains(identity))
    });
    found.extend(by_name.map(|(identity, _)| identity.clone()));
    found.into_iter().collect()
}

/// What somebody in quarantine may still do. `seen` is the interface where the device was last seen.
pub(super) fn warnings(
    current: &Snapshot,
    target: &Target,
    seen: &str,
    failsafe: &[Failsafe],
) -> Vec<String> {
    let devices = target.devices(current).flat_map(|device| {
        let goes_on = goes_on(&current.intent, device, failsafe);
        let returns = may_return(current, device, seen);
        goes_on.into_iter().chain(returns)
    });
    let ports = target.identities.iter().filter_map(|it| match it {
        Identity::Port(name) => Some(goes_on_at(&current.intent, name, failsafe)),
        _ => None,
    });
    devices.chain(ports.flatten()).collect()
}

/// Refuses an interface that is not a guarded port. One that a port names in full may be missing at
/// present.
fn is_guarded(current: &Snapshot, name: &str) -> Result<(), Refusal> {
    let guarded = current.tables.ports.iter();
    let guarded = guarded.filter(|(_, port)| port.flags & abi::Port::GUARDED != 0);
    let guarded: Vec<String> = guarded
        .map(|(index, _)| current.interface(*index).to_owned())
        .collect();
    let awaited = current.intent.port_for(name);
    if guarded.iter().any(|it| it == name) || awaited.is_some_and(|it| it.pattern.is_exact()) {
        return Ok(());
    }
    Err(Refusal::NotGuarded {
        name: name.to_owned(),
        guarded,
    })
}

/// A warning about a device that may come back from quarantine with another MAC. `seen` is the
/// interface where it was last seen.
fn may_return(current: &Snapshot, device: &Device, seen: &str) -> Option<String> {
    let intent = &current.intent;
    let admits = |port: &&Port| {
        let tagged = port.vlans.values();
        let mut zones = port.zone.iter().chain(tagged);
        zones.any(|zone| intent.zones[zone.0].admit_any)
    };
    let links = current.inventory.links.values();
    let names = links.map(|link| link.name.as_str()).filter(|name| {
        let port = intent
            .port_for(name)
            .filter(|port| port.carries(device.zone));
        let pinned = device.port.as_deref().is_none_or(|pinned| pinned == *name);
        pinned && port.as_ref().is_some_and(admits)
    });
    let mut names: Vec<&str> = names.collect();
    if names.contains(&seen) {
        names = vec![seen];
    }
    let port = match names.as_slice() {
        [] => return None,
        [port] => (*port).to_owned(),
        ports => format!("IF, one of {}", ports.join(", ")),
    };
    Some(format!(
        "it may return with another MAC where a zone admits any: cut its port off by \
         `wardctl quarantine --port {port}`"
    ))
}

/// The rules and the failsafe that hold behind a port in quarantine, as warnings.
fn goes_on_at(intent: &Intent, name: &str, failsafe: &[Failsafe]) -> Vec<String> {
    let port = intent.port_for(name);
    let carries = |zone| port.is_some_and(|port| port.carries(zone));
    let names = |selectors: &[Selector]| {
        selectors.iter().any(|selector| match selector {
            Selector::Any | Selector::Cidr(_) => true,
            Selector::Router | Selector::Internet | Selector::Name(_) => false,
            Selector::Zone(zone) => carries(*zone),
            Selector::Device(at) => carries(intent.devices[at.0].zone),
            Selector::Label(at) => {
                let mut devices = intent.labels[at.0].devices.iter();
                devices.any(|at| carries(intent.devices[at.0].zone))
            }
        })
    };
    let kept = kept(intent, |rule| names(&rule.from) || names(&rule.to));
    let spared = failsafe.iter().map(|failsafe| {
        let (from, services) = (
            failsafe.from_texts().join(", "),
            failsafe.service_texts().join(", "),
        );
        format!("by the router's failsafe {from} may still reach the router: {services}")
    });
    kept.into_iter().chain(spared).collect()
}

/// The allow rules that hold in quarantine, of those that matter, as warnings.
fn kept(intent: &Intent, matters: impl Fn(&Rule) -> bool) -> Vec<String> {
    let rules = intent.rules.iter();
    let kept = rules.filter(|rule| rule.kept && rule.action == Action::Allow && matters(rule));
    kept.map(|rule| format!("rule {} holds in quarantine, too", rule.name))
        .collect()
}

/// The rules and the failsafe that hold for a device in quarantine, as warnings.
fn goes_on(intent: &Intent, device: &Device, failsafe: &[Failsafe]) -> Vec<String> {
    let names = |selectors: &[Selector]| {
        selectors.iter().any(|selector| match selector {
            Selector::Any => true,
            Selector::Router | Selector::Internet | Selector::Name(_) => false,
            Selector::Zone(zone) => *zone == device.zone,
            Selector::Device(at) => intent.devices[at.0].name == device.name,
            Selector::Label(at) => intent.is_labelled(device, &intent.labels[at.0].label),
            Selector::Cidr(net) => device.addresses.iter().any(|it| net.contains(it)),
        })
    };
    let kept = kept(intent, |rule| names(&rule.from) || names(&rule.to));
    let spared = failsafe.iter().filter(|failsafe| {
        let mut addresses = device.addresses.iter();
        addresses.any(|address| failsafe.has(*address))
    });
    let spared = spared.map(|failsafe| {
        let services = failsafe.service_texts().join(", ");
        format!("by the router's failsafe it may still reach the router: {services}")
    });
    kept.into_iter().chain(spared).collect()
}
