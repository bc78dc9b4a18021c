//! Renames an object of the document, with every reference to it, as one change. What was known of it under
//! the old name goes on: its number, so its flows and counters; its grant; its quarantine.

use std::sync::Arc;

use wardline_policy::{
    document::{edit, rename::rename},
    numbers::{Ids, numbered},
    quarantine::{Hold, Identity, own},
    snapshot::Snapshot,
};

use super::{
    Engine,
    in_force::{Beside, Haste, Origin},
    prepare::{Fit, prepare},
    refusal::Refusal,
    terms::{Applied, Author, Terms},
};
use crate::store::revision::{Fact, Held};

impl Engine {
    /// Gives an object, written `KIND/OLD`, another name.
    ///
    /// # Errors
    ///
    /// Why it was refused.
    pub fn rename(
        &mut self,
        object: &str,
        new: &str,
        terms: &Terms,
        author: &Author,
    ) -> Result<Applied, Refusal> {
        self.accepts(terms)?;
        self.has_policy()?;
        let current = self.snapshot();
        let edit = rename(&current.policy, object, new).map_err(|problems| {
            if problems.iter().all(|it| it.message == edit::MISSING) {
                Refusal::Missing(problems)
            } else {
                Refusal::Invalid(problems)
            }
        })?;
        let (policy, edited) = Refusal::or_edited(&current.policy, &edit)?;
        let (kind, old) = object.split_once('/').unwrap_or_default();
        let held = holds(&current, kind, old, new);
        let mut after = Snapshot::clone(&current);
        for (identity, hold) in &held {
            after.quarantined.set(identity, Some(hold));
        }
        let number = move_number(&mut after, kind, old, new);
        let (limits, reader) = (&self.config.limits, self.in_force.datapath.reader());
        self.read_a_document = true;
        let prepared = prepare(Arc::clone(&policy), &after, limits, reader, Fit::AllPorts);
        let mut prepared = prepared.map_err(|refusal| refusal.in_edit(&policy, &edit, &edited))?;
        prepared.goes_on = number.filter(|_| kind == "rule");
        let grant = self.in_force.records.grants().iter();
        let grant = grant.filter(|(rule, _)| kind == "rule" && rule == old);
        let grants: Vec<_> = grant.map(|(_, expires)| *expires).collect();
        let facts = held.iter().map(|(identity, hold)| {
            Fact::Held(Held {
                subject: "",
                identities: std::slice::from_ref(identity),
                hold: Some(hold),
            })
        });
        let facts: Vec<Fact<'_>> = facts
            .chain(grants.iter().map(|expires| Fact::Grant(new, *expires)))
            .collect();
        let undo = held.iter().map(|(identity, _)| {
            Fact::Held(Held {
                subject: "",
                identities: std::slice::from_ref(identity),
                hold: current.quarantined.get(identity),
            })
        });
        let beside = Beside {
            facts: &facts,
            undo: &undo.collect::<Vec<_>>(),
        };
        let (origin, haste) = (Origin::Edit(edit), Haste::RecordedFirst);
        let applied = self
            .in_force
            .change(&origin, prepared, beside, terms, author, haste)?;
        if kind == "rule" {
            self.running_grants.rename(old, new);
        }
        Ok(applied)
    }
}

/// What is in quarantine of a renamed object, as it is from now on. The old name of a port stays in
/// quarantine, too: the change may be taken back, and then the port has that name again.
fn holds(current: &Snapshot, kind: &str, old: &str, new: &str) -> Vec<(Identity, Hold)> {
    let quarantined = &current.quarantined;
    let named = |hold: &Hold| Hold {
        name: new.to_owned(),
        ..hold.clone()
    };
    match kind {
        "port" => {
            let hold = quarantined.port(old).map(named);
            let identity = Identity::Port(new.to_owned());
            hold.map(|hold| (identity, hold)).into_iter().collect()
        }
        "device" => {
            let device = current.intent.devices.iter().find(|it| it.name == old);
            let Some((device, hold)) = device.and_then(|it| Some((it, quarantined.device(it)?)))
            else {
                return Vec::new();
            };
            own(device)
                .into_iter()
                .map(|identity| {
                    let hold = named(quarantined.get(&identity).unwrap_or(hold));
                    (identity, hold)
                })
                .collect()
        }
        _ => Vec::new(),
    }
}

/// Gives the number of an object to its new name; returns it.
fn move_number(after: &mut Snapshot, kind: &str, old: &str, new: &str) -> Option<u32> {
    let kinds = [numbered::ZONE, numbered::DEVICE, numbered::RULE];
    if !kinds.contains(&kind) {
        return None;
    }
    let mut ids = Ids::clone(&after.ids);
    let number = ids.remove(&(kind.to_owned(), old.to_owned()))?;
    ids.insert((kind.to_owned(), new.to_owned()), number);
    after.ids = Arc::new(ids);
    Some(number)
}
