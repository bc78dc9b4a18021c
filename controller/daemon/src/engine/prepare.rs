//! Makes all checks that can refuse a revision, before anything changes.
//!
//! It needs neither the engine nor its thread, so plans and changes are prepared by the same code.

use std::sync::Arc;

use wardline_datapath::{Reader, error::DatapathError, reader::Fill};
use wardline_policy::{
    clock::Clock,
    compile::{Base, Room},
    document::{Document as Policy, excess},
    intent::Intent,
    inventory::{Header, Inventory},
    limits::Limits,
    numbers::{self, Ids},
    quarantine::{Hold, Identity, Quarantine},
    snapshot::Snapshot,
    tables::Tables,
    words::problem::Problem,
};

use super::refusal::Refusal;

/// Everything that a revision needs, checked.
pub(crate) struct Prepared {
    pub(crate) base: Arc<Base>,
    pub(crate) policy: Arc<Policy>,
    pub(crate) intent: Arc<Intent>,
    pub(crate) ids: Arc<Ids>,
    pub(crate) tables: Arc<Tables>,
    pub(crate) clock: Clock,
    /// The number of a rule that has another name now, and goes on counting.
    pub(crate) goes_on: Option<u32>,
}

/// What becomes of a document when not all of its ports fit.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fit {
    /// It is refused, unless those that don't fit do not fit now either.
    AllPorts,
    /// It is taken, and the ports are refused that do not fit.
    SomePorts,
}

/// A document, compiled to what does not depend on interfaces: what takes long with many devices. It can
/// be done on any thread, while other changes are made.
pub(crate) struct Compiled {
    base: Base,
    policy: Arc<Policy>,
    intent: Intent,
    ids: Arc<Ids>,
    clock: Clock,
    /// The numbers and the clock of what was in force then.
    after: (Arc<Ids>, Clock),
}

impl Compiled {
    /// Compiles a document to follow what is in force now.
    pub(crate) fn of(
        policy: Arc<Policy>,
        current: &Snapshot,
        limits: &Limits,
        reader: &Reader,
        fit: Fit,
    ) -> Result<Self, Refusal> {
        let excess = excess(&policy, limits);
        if !excess.is_empty() {
            return Err(Refusal::TooLarge(excess));
        }
        let clock = reader.clock()?;
        // What must not wait was accepted before.
        let intent = match fit {
            Fit::AllPorts => Intent::from_policy(&policy, limits, clock.now),
            Fit::SomePorts => Intent::from_accepted(&policy, limits, clock.now),
        };
        let intent = intent.map_err(Refusal::Invalid)?;
        let ids = if numbers::is_numbered(&intent, &current.ids, limits) {
            Arc::clone(&current.ids)
        } else {
            let ids = numbers::number(&intent, &current.ids, limits);
            Arc::new(ids.map_err(Refusal::TooLarge)?)
        };
        let base = Base::of(&intent, &ids, &clock);
        if let Some(excess) = base.excess() {
            return Err(Refusal::TooLarge(vec![excess]));
        }
        Ok(Self {
            base,
            policy,
            intent,
            ids,
            clock,
            after: (Arc::clone(&current.ids), current.clock),
        })
    }

    /// Whether it can follow what is in force now: it was made when that had the same numbers.
    pub(crate) fn follows(&self, current: &Snapshot) -> bool {
        Arc::ptr_eq(&self.after.0, &current.ids) && self.after.1 == current.clock
    }
}

/// Prepares a document to follow what is in force now.
pub(crate) fn prepare(
    policy: Arc<Policy>,
    current: &Snapshot,
    limits: &Limits,
    reader: &Reader,
    fit: Fit,
) -> Result<Prepared, Refusal> {
    let compiled = Compiled::of(policy, current, limits, reader, fit)?;
    on_interfaces(compiled, current, reader, fit)
}

/// Adds what depends on interfaces and on what is in quarantine to a compiled document.
pub(crate) fn on_interfaces(
    compiled: Compiled,
    current: &Snapshot,
    reader: &Reader,
    fit: Fit,
) -> Result<Prepared, Refusal> {
    let Compiled {
        base,
        policy,
        mut intent,
        ids,
        clock,
        after: _,
    } = compiled;
    let more =
        missing(&intent, &current.quarantined).chain(without_mac(&intent, &current.inventory));
    let more: Vec<String> = more.collect();
    intent.warnings.extend(more);
    let room = room(current, reader);
    let tables = base.on(&intent, &current.inventory, &current.quarantined, &room);
    let refused = tables
        .refused
        .iter()
        .filter(|(number, _)| fit == Fit::AllPorts && !current.tables.refused.contains_key(number));
    let refused = refused.map(|(number, why)| {
        let port = current.interface(*number);
        Problem {
            path: "places".to_owned(),
            message: format!("the policy has no room for port {port}: {why}"),
        }
    });
    let mut full: Vec<Problem> = refused.collect();
    let more = reader
        .needs(&tables)
        .into_iter()
        .filter(|fill| fill.used > fill.max)
        .map(|Fill { name, used, max }| Problem {
            path: name.to_owned(),
            message: format!("the policy needs {used} {name}, but the table holds {max}"),
        });
    full.extend(more);
    if !full.is_empty() {
        return Err(Refusal::TooLarge(full));
    }
    Ok(Prepared {
        base: Arc::new(base),
        policy,
        intent: Arc::new(intent),
        ids,
        tables: Arc::new(tables),
        clock,
        goes_on: None,
    })
}

/// Prepares the state before the first document: no policy.
pub(crate) fn nothing(current: &Snapshot, reader: &Reader) -> Result<Prepared, DatapathError> {
    let clock = reader.clock()?;
    Ok(Prepared {
        base: Arc::new(Base::of(&Intent::default(), &current.ids, &clock)),
        policy: Arc::default(),
        intent: Arc::default(),
        ids: Arc::clone(&current.ids),
        tables: Arc::default(),
        clock,
        goes_on: None,
    })
}

/// The room for ports: those that are guarded keep their places, and what is shut stays shut until its
/// hooks are looked at again.
pub(super) fn room<'a>(current: &'a Snapshot, reader: &Reader) -> Room<'a> {
    Room {
        places: Some(reader.places()),
        before: Some(&current.tables),
        shut: Some(&current.tables.shut),
    }
}

/// Prepares the document in force again, for other interfaces; `base` is what it was compiled to.
pub(crate) fn recompile(current: &Snapshot, base: Arc<Base>, reader: &Reader) -> Prepared {
    let tables = base.on(
        &current.intent,
        &current.inventory,
        &current.quarantined,
        &room(current, reader),
    );
    Prepared {
        base,
        policy: Arc::clone(&current.policy),
        intent: Arc::clone(&current.intent),
        ids: Arc::clone(&current.ids),
        tables: Arc::new(tables),
        clock: current.clock,
        goes_on: None,
    }
}

/// Warnings about what is in quarantine and not in a document.
fn missing(intent: &Intent, quarantined: &Quarantine) -> impl Iterator<Item = String> {
    let strangers = quarantined.strangers(intent).into_iter();
    let devices = strangers.map(|(identity, hold)| {
        let Hold { name, .. } = hold;
        match identity {
            Identity::Mac(mac) => format!(
                "device {name} is in quarantine, but not in the document: its MAC {mac} stays cut off"
            ),
            Identity::Address(address) => format!(
                "device {name} is in quarantine, but not in the document: its address {address} stays cut \
                 off"
            ),
            Identity::Device(_) | Identity::Port(_) => {
                format!("device {name} is in quarantine, but not in the document")
            }
        }
    });
    let ports = quarantined.ports();
    let ports = ports.filter(|name| intent.port_for(name).is_none());
    let ports = ports.map(|name| {
        format!(
            "port {name} is in quarantine, but no port of the document has it: it is not guarded"
        )
    });
    devices.chain(ports).collect::<Vec<_>>().into_iter()
}

/// Warnings about devices that their port can't tell by an address alone: its frames have MACs.
fn without_mac(intent: &Intent, inventory: &Inventory) -> impl Iterator<Item = String> {
    let devices = intent.devices.iter();
    let devices = devices.filter(|it| it.macs.is_empty() && !it.addresses.is_empty());
    devices.filter_map(|device| {
        let (name, port) = (&device.name, device.port.as_ref()?);
        let has_macs = inventory.link(port)?.header == Header::Ethernet;
        has_macs
            .then(|| format!("device {name:?}: has port {port:?} but no MAC to appear there with"))
    })
}
