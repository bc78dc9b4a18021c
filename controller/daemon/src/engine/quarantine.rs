//! What can be put into quarantine, and what it may still do there.

use wardline_ebpf::abi;
use wardline_policy::{
    failsafe::Failsafe,
    intent::{Action, Device, Intent, Port, Rule, Selector},
    quarantine::Whom,
    snapshot::Snapshot,
};

use super::refusal::Refusal;

/// What is there of somebody who is put into quarantine or released.
pub(super) enum Known<'a> {
    /// The device, if the document has it.
    Device(Option<&'a Device>),
    /// The number of the interface, if it exists.
    Port(Option<u32>),
}

impl<'a> Known<'a> {
    /// What a snapshot has of somebody.
    pub(super) fn of(current: &'a Snapshot, whom: &Whom) -> Self {
        match whom {
            Whom::Device(name) => {
                let devices = &current.intent.devices;
                let known = devices.binary_search_by(|known| known.name.as_str().cmp(name));
                Self::Device(known.ok().map(|at| &devices[at]))
            }
            Whom::Port(name) => Self::Port(current.inventory.link(name).map(|link| link.number)),
        }
    }
}

/// Refuses to cut off what is not there, and to release what is not cut off. What has gone since it
/// was cut off may be released.
pub(super) fn may_change(
    current: &Snapshot,
    whom: &Whom,
    known: &Known<'_>,
    quarantined: bool,
) -> Result<(), Refusal> {
    let is_cut_off = current.quarantined.has(whom);
    if !quarantined && is_cut_off {
        return Ok(());
    }
    match (whom, known) {
        (Whom::Device(name), Known::Device(None)) => {
            return Err(Refusal::missing("device", name));
        }
        (Whom::Device(_), _) => {}
        (Whom::Port(name), _) => is_guarded(current, name)?,
    }
    if quarantined {
        Ok(())
    } else {
        Err(Refusal::NotInQuarantine(whom.clone()))
    }
}

/// What somebody in quarantine may still do. `seen` is the interface where the device was last seen.
pub(super) fn warnings(
    current: &Snapshot,
    whom: &Whom,
    known: &Known<'_>,
    seen: &str,
    failsafe: &[Failsafe],
) -> Vec<String> {
    match (whom, known) {
        (_, Known::Device(Some(device))) => {
            let goes_on = goes_on(&current.intent, device, failsafe);
            let returns = may_return(current, device, seen);
            goes_on.into_iter().chain(returns).collect()
        }
        (Whom::Port(name), _) => goes_on_at(&current.intent, name, failsafe),
        (Whom::Device(_), _) => Vec::new(),
    }
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
