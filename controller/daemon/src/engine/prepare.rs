//! Makes all checks that can refuse a revision, before anything changes.
//!
//! It needs neither the engine nor its thread, so plans and changes are prepared by the same code.

use std::sync::Arc;

use wardline_datapath::{Reader, error::DatapathError, reader::Fill};
use wardline_policy::{
    clock::Clock,
    compile,
    document::{Document as Policy, excess},
    intent::Intent,
    inventory::{Header, Inventory},
    limits::Limits,
    numbers::{self, Ids},
    quarantine::Quarantine,
    snapshot::Snapshot,
    tables::Tables,
    words::problem::Problem,
};

use super::refusal::Refusal;

/// Everything that a revision needs, checked.
pub(crate) struct Prepared {
    pub(crate) policy: Arc<Policy>,
    pub(crate) intent: Arc<Intent>,
    pub(crate) ids: Arc<Ids>,
    pub(crate) tables: Arc<Tables>,
    pub(crate) clock: Clock,
}

/// Prepares a document to follow what is in force now.
pub(crate) fn prepare(
    policy: Arc<Policy>,
    current: &Snapshot,
    limits: &Limits,
    reader: &Reader,
) -> Result<Prepared, Refusal> {
    let excess = excess(&policy, limits);
    if !excess.is_empty() {
        return Err(Refusal::TooLarge(excess));
    }
    let clock = reader.clock()?;
    let mut intent = Intent::from_policy(&policy, limits, clock.now).map_err(Refusal::Invalid)?;
    let more =
        missing(&intent, &current.quarantined).chain(without_mac(&intent, &current.inventory));
    let more: Vec<String> = more.collect();
    intent.warnings.extend(more);
    let ids = if numbers::is_numbered(&intent, &current.ids, limits) {
        Arc::clone(&current.ids)
    } else {
        let ids = numbers::number(&intent, &current.ids, limits);
        Arc::new(ids.map_err(Refusal::TooLarge)?)
    };
    let inventory = &current.inventory;
    let tables = compile::compile(&intent, inventory, &ids, &current.quarantined, &clock);
    let full: Vec<Problem> = reader
        .needs(&tables)
        .into_iter()
        .filter(|fill| fill.used > fill.max)
        .map(|Fill { name, used, max }| Problem {
            path: name.to_owned(),
            message: format!("the policy needs {used} {name}, but the table holds {max}"),
        })
        .collect();
    if !full.is_empty() {
        return Err(Refusal::TooLarge(full));
    }
    Ok(Prepared {
        policy,
        intent: Arc::new(intent),
        ids,
        tables: Arc::new(tables),
        clock,
    })
}

/// Prepares the state before the first document: no policy.
pub(crate) fn nothing(current: &Snapshot, reader: &Reader) -> Result<Prepared, DatapathError> {
    Ok(Prepared {
        policy: Arc::default(),
        intent: Arc::default(),
        ids: Arc::clone(&current.ids),
        tables: Arc::default(),
        clock: reader.clock()?,
    })
}

/// Prepares the document in force again, for other interfaces.
pub(crate) fn recompile(current: &Snapshot) -> Prepared {
    let tables = compile::compile(
        &current.intent,
        &current.inventory,
        &current.ids,
        &current.quarantined,
        &current.clock,
    );
    Prepared {
        policy: Arc::clone(&current.policy),
        intent: Arc::clone(&current.intent),
        ids: Arc::clone(&current.ids),
        tables: Arc::new(tables),
        clock: current.clock,
    }
}

/// Warnings about what is in quarantine and not in a document.
fn missing(intent: &Intent, quarantined: &Quarantine) -> impl Iterator<Item = String> {
    let has = move |name: &String| {
        let devices = &intent.devices;
        devices
            .binary_search_by(|device| device.name.cmp(name))
            .is_ok()
    };
    let devices = quarantined.devices.iter().filter(move |name| !has(name));
    let devices =
        devices.map(|name| format!("device {name} is in quarantine, but not in the document"));
    let ports = quarantined.ports.iter();
    let ports = ports.filter(|name| intent.port_for(name).is_none());
    let ports = ports.map(|name| {
        format!(
            "port {name} is in quarantine, but no port of the document has it: it is not guarded"
        )
    });
    devices.chain(ports)
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
