//! A revision that has been checked and can take force.

use std::{collections::BTreeSet, sync::Arc};

use wardline_policy::{clock::Clock, intent::Intent, numbers::Ids, tables::Tables};
use wardline_proto::v1;

/// Everything that a revision needs, checked.
pub(crate) struct Prepared {
    pub(crate) policy: Arc<v1::Policy>,
    pub(crate) intent: Arc<Intent>,
    pub(crate) ids: Arc<Ids>,
    pub(crate) tables: Arc<Tables>,
    pub(crate) clock: Clock,
}

/// What to say of devices in quarantine that a document does not have.
pub(super) fn missing(intent: &Intent, quarantined: &BTreeSet<String>) -> Vec<String> {
    let has = |name: &String| {
        let devices = &intent.devices;
        devices
            .binary_search_by(|device| device.name.cmp(name))
            .is_ok()
    };
    quarantined
        .iter()
        .filter(|name| !has(name))
        .map(|name| format!("device {name} is in quarantine, but not in the document"))
        .collect()
}
