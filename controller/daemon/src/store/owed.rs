//! A change that is in force and not in the database yet: what is to be recorded of it.

use std::sync::Arc;

use jiff::Timestamp;
use wardline_policy::{
    document::{
        Document as Policy,
        diff::Extent,
        edit::{self, Edit},
    },
    numbers::Ids,
    quarantine::{Hold, Identity},
};

use super::{
    PENDING, Store,
    error::StoreError,
    revision::{Document, Fact, Held, NewRevision, Revision},
};

/// A change that took force while the database could not be written. Kept in the copy of what is in
/// force, so that it is recorded after a restart, too.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Owed {
    /// Its number.
    #[prost(uint64, tag = "1")]
    pub revision: u64,
    /// The revision that it changed; 0: none.
    #[prost(uint64, tag = "2")]
    pub parent: u64,
    /// When it took force.
    #[prost(string, tag = "3")]
    pub time: String,
    /// Who made it.
    #[prost(string, tag = "4")]
    pub actor: String,
    /// Why, in the actor's words.
    #[prost(string, tag = "5")]
    pub reason: String,
    /// The call that made it.
    #[prost(string, tag = "6")]
    pub kind: String,
    /// The request's id.
    #[prost(string, tag = "7")]
    pub request_id: String,
    /// The revision that has its document; 0: no policy.
    #[prost(uint64, tag = "8")]
    pub of: u64,
    /// An edit of that document, encoded; empty: none.
    #[prost(bytes = "vec", tag = "9")]
    pub edit: Vec<u8>,
    /// How many objects it adds, alters and removes.
    #[prost(message, required, tag = "10")]
    pub extent: Counts,
    /// Who was put into quarantine, or released.
    #[prost(message, optional, tag = "11")]
    pub cut: Option<Cut>,
    /// Whether no change waits for its confirmation any more.
    #[prost(bool, tag = "12")]
    pub ends_pending: bool,
}

/// How many objects a change adds, alters and removes.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Counts {
    /// Added.
    #[prost(uint32, tag = "1")]
    pub added: u32,
    /// Altered.
    #[prost(uint32, tag = "2")]
    pub changed: u32,
    /// Removed.
    #[prost(uint32, tag = "3")]
    pub removed: u32,
}

/// Somebody who was put into quarantine, or released.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Cut {
    /// The name of the device or of the interface.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Whether it is an interface.
    #[prost(bool, tag = "2")]
    pub is_port: bool,
    /// Whether it was put into quarantine.
    #[prost(bool, tag = "3")]
    pub quarantined: bool,
    /// What it is known by. Earlier versions knew the name only.
    #[prost(string, repeated, tag = "4")]
    pub identities: Vec<String>,
}

impl Cut {
    /// Somebody who was put into quarantine, or released.
    pub fn new(held: Held<'_>) -> Self {
        let (kind, name) = held.subject.split_once('/').unwrap_or_default();
        Self {
            name: name.to_owned(),
            is_port: kind == "port",
            quarantined: held.hold.is_some(),
            identities: held.identities.iter().map(ToString::to_string).collect(),
        }
    }

    /// Who it is for people.
    pub fn subject(&self) -> String {
        let kind = if self.is_port { "port" } else { "device" };
        format!("{kind}/{}", self.name)
    }

    /// What it is known by.
    pub fn identities(&self) -> Vec<Identity> {
        if !self.identities.is_empty() {
            let known = self.identities.iter();
            return known.filter_map(|it| it.parse().ok()).collect();
        }
        let name = self.name.clone();
        vec![if self.is_port {
            Identity::Port(name)
        } else {
            Identity::Device(name)
        }]
    }
}

impl Owed {
    /// Whether a revision of the database is this change: it was recorded, and the copy does not
    /// know that yet.
    pub fn is(&self, stored: &Revision) -> bool {
        let time = self.time.parse::<Timestamp>();
        stored.revision == self.revision
            && stored.kind == self.kind
            && time.is_ok_and(|time| time == stored.time)
    }

    /// Why somebody was put into quarantine; none: they were released.
    pub fn hold(&self, cut: &Cut) -> Option<Hold> {
        cut.quarantined.then(|| Hold {
            name: cut.name.clone(),
            actor: self.actor.clone(),
            reason: self.reason.clone(),
            since: self.time.parse().unwrap_or(Timestamp::UNIX_EPOCH),
        })
    }

    /// Adds it to the history.
    ///
    /// # Errors
    /// When it can't be written, or the revision that it changed is not there.
    pub fn record(&self, store: &mut Store, ids: &Arc<Ids>) -> Result<u64, StoreError> {
        let newest = store.history().next()?;
        let cut = self.cut.as_ref();
        let known = cut.map(|cut| (cut.subject(), cut.identities(), self.hold(cut)));
        let held = known.as_ref().map(|(subject, identities, hold)| {
            Fact::Held(Held {
                subject,
                identities,
                hold: hold.as_ref(),
            })
        });
        let ended = self.ends_pending.then_some(Fact::Meta(PENDING, None));
        let facts: Vec<Fact<'_>> = held.into_iter().chain(ended).collect();
        let damaged = |why: &str| store.history().damaged(why);
        let edit;
        let mut whole = Policy::default();
        let document = match (self.of, self.edit.is_empty()) {
            (0, _) => Document::Whole(&whole),
            (of, true) => Document::Of(of),
            (of, false) => {
                edit = Edit::decode(&self.edit).map_err(|error| damaged(&error.to_string()))?;
                let stored = store.history().get(of)?;
                whole = stored
                    .ok_or_else(|| damaged(&format!("revision {of} is missing")))?
                    .policy;
                edit::change(&mut whole, &edit).map_err(|_| {
                    damaged(&format!("revision {of} has not what a change removes"))
                })?;
                Document::Edited {
                    edit: &edit,
                    whole: &whole,
                }
            }
        };
        let Counts {
            added,
            changed,
            removed,
        } = self.extent;
        let new = NewRevision {
            number: Some(self.revision.max(newest)),
            parent: self.parent,
            time: self.time.parse().unwrap_or_else(|_| Timestamp::now()),
            actor: &self.actor,
            reason: &self.reason,
            kind: &self.kind,
            request_id: &self.request_id,
            document,
            extent: Extent {
                added,
                changed,
                removed,
            },
            facts: &facts,
        };
        store.append(&new, ids)
    }
}
