//! What is in force: one revision with everything that reading it needs. Never changed, only
//! replaced.

use std::collections::{BTreeMap, BTreeSet};

use wardline_proto::v1;

use crate::{
    compile::{Clock, Tables, numbered},
    intent::Intent,
    inventory::Inventory,
    store::Ids,
};

/// One revision in force, on the interfaces that exist.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The revision; 0: none.
    pub revision: u64,
    /// Its document.
    pub policy: v1::Policy,
    /// What it wants.
    pub intent: Intent,
    /// What there is.
    pub inventory: Inventory,
    /// Devices that are cut off, by name.
    pub quarantined: BTreeSet<String>,
    /// Numbers of everything that has one.
    pub ids: Ids,
    /// What the maps hold.
    pub tables: Tables,
    /// The kernel's time.
    pub clock: Clock,
    names: BTreeMap<(&'static str, u32), String>,
}

impl Snapshot {
    /// A snapshot, with names for the numbers.
    #[expect(clippy::too_many_arguments, reason = "each is a field")]
    pub fn new(
        revision: u64,
        policy: v1::Policy,
        intent: Intent,
        inventory: Inventory,
        quarantined: BTreeSet<String>,
        ids: Ids,
        tables: Tables,
        clock: Clock,
    ) -> Self {
        let kinds = [numbered::ZONE, numbered::DEVICE, numbered::RULE];
        let names = ids.iter().filter_map(|((kind, name), number)| {
            let kind = kinds.into_iter().find(|known| known == kind)?;
            Some(((kind, *number), name.clone()))
        });
        let names = names.collect();
        Self {
            revision,
            policy,
            intent,
            inventory,
            quarantined,
            ids,
            tables,
            clock,
            names,
        }
    }

    /// The name that a number stands for, also of what an earlier revision had; empty: none.
    pub fn name(&self, kind: &'static str, number: u32) -> &str {
        self.names.get(&(kind, number)).map_or("", String::as_str)
    }

    /// The name of an interface; empty when it is gone.
    pub fn interface(&self, index: u32) -> &str {
        self.inventory
            .links
            .get(&index)
            .map_or("", |link| link.name.as_str())
    }
}
