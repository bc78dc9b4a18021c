//! What is recorded of changes: in the store, and in memory while the store can't be written.
//!
//! The facts beside the document (quarantine, grants) are here, so that nothing that enforces has to
//! read them.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tracing::info;
use wardline_policy::{document::diff::Extent, numbers::Ids, quarantine::Quarantine};

use super::{pending::Pending, terms::Author};
use crate::{
    parts::{BackOff, Part, Parts},
    store::{
        Store, add_grant,
        enforced::Enforced,
        error::StoreError,
        held,
        history::History,
        owed::{Counts, Cut, Owed},
        revision::{Document, Fact, NewRevision},
    },
};

/// A change as it is recorded.
pub(super) struct Change<'a> {
    pub(super) document: Document<'a>,
    pub(super) extent: Extent,
    /// What holds beside the document.
    pub(super) facts: &'a [Fact<'a>],
    /// What holds again if the kernel refuses the change.
    pub(super) undo: &'a [Fact<'a>],
    pub(super) ids: &'a Arc<Ids>,
    pub(super) author: &'a Author,
}

/// Rules that are grants, with their ends.
pub(super) type Grants = BTreeSet<(String, Timestamp)>;

/// What is recorded, and what is not yet.
pub(super) struct Records {
    store: Option<Store>,
    history: History,
    parts: Parts,
    /// The number of the next revision.
    next: u64,
    quarantined: Quarantine,
    grants: Arc<Grants>,
    owed: Vec<Owed>,
    wait: BackOff,
    again: Option<Instant>,
}

/// Most changes that wait for the database. Beyond that the oldest are told in the log only.
const MOST_OWED: usize = 10_000;

impl Records {
    /// Nothing, until something is taken over.
    pub(super) fn new(history: History, parts: Parts) -> Self {
        Self {
            store: None,
            history,
            parts,
            next: 1,
            quarantined: Quarantine::default(),
            grants: Arc::default(),
            owed: Vec::new(),
            wait: BackOff::default(),
            again: None,
        }
    }

    /// Goes on from what a copy or the database says.
    pub(super) fn go_on_from(&mut self, enforced: &Enforced) {
        self.next = enforced.revision + 1;
        self.quarantined = enforced.quarantined.clone();
        self.grants = Arc::new(enforced.grants.clone());
        self.owed.clone_from(&enforced.owed);
    }

    /// Goes on with the number after this one.
    pub(super) fn go_on_after(&mut self, revision: u64) {
        self.next = revision + 1;
    }

    /// Writes to this store from now on.
    pub(super) fn write_to(&mut self, store: Store) {
        self.store = Some(store);
    }

    pub(super) fn history(&self) -> &History {
        &self.history
    }

    /// The number that the next revision has.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    pub(super) fn quarantined(&self) -> &Quarantine {
        &self.quarantined
    }

    pub(super) fn set_quarantined(&mut self, quarantined: Quarantine) {
        self.quarantined = quarantined;
    }

    pub(super) fn grants(&self) -> &Arc<Grants> {
        &self.grants
    }

    /// Grants that the database knows, and not the copy.
    pub(super) fn add_grants(&mut self, grants: &Grants) {
        if !grants.is_subset(&self.grants) {
            Arc::make_mut(&mut self.grants).extend(grants.iter().cloned());
        }
    }

    /// Whether a grant ever made a rule with this name and end.
    pub(super) fn is_grant(&self, rule: &str, expires: Timestamp) -> bool {
        self.grants.contains(&(rule.to_owned(), expires))
    }

    /// What is in force and not recorded, oldest first.
    pub(super) fn owed(&self) -> &[Owed] {
        &self.owed
    }

    pub(super) fn forget_owed(&mut self, is_recorded: impl Fn(&Owed) -> bool) {
        self.owed.retain(|owed| !is_recorded(owed));
    }

    /// Records a change, on disk when this returns.
    ///
    /// # Errors
    /// When it could not be recorded, or earlier ones could not; then nothing of it is.
    pub(super) fn append(&mut self, parent: u64, change: &Change<'_>) -> Result<u64, StoreError> {
        self.settle(change.ids)?;
        let new = NewRevision {
            number: None,
            parent,
            time: Timestamp::now(),
            actor: &change.author.actor,
            reason: &change.author.reason,
            kind: change.author.kind,
            request_id: &change.author.request_id,
            document: change.document,
            extent: change.extent,
            facts: change.facts,
        };
        let appended = self.write(|store| store.append(&new, change.ids))?;
        self.next = appended + 1;
        self.remember(change.facts);
        Ok(appended)
    }

    /// Records a change that is in force already when it can be written; the number that it has.
    pub(super) fn owe(&mut self, parent: u64, change: &Change<'_>) -> u64 {
        let revision = self.next;
        let (of, edit) = match change.document {
            Document::Whole(_) => (0, Vec::new()),
            Document::Of(revision) => (revision, Vec::new()),
            Document::Edited { edit, .. } => (parent, edit.encode()),
        };
        let cut = change.facts.iter().find_map(|fact| match *fact {
            Fact::Held(held) if !held.subject.is_empty() => Some(Cut::new(held)),
            _ => None,
        });
        let ends_pending = change.facts.iter();
        let ends_pending = ends_pending
            .filter(|fact| matches!(fact, Fact::Meta(Pending::KEY, None)))
            .count()
            != 0;
        let Extent {
            added,
            changed,
            removed,
        } = change.extent;
        let Author {
            actor,
            reason,
            request_id,
            kind,
        } = change.author;
        self.owed.push(Owed {
            revision,
            parent,
            time: Timestamp::now().to_string(),
            actor: actor.clone(),
            reason: reason.clone(),
            kind: (*kind).to_owned(),
            request_id: request_id.clone(),
            of,
            edit,
            extent: Counts {
                added,
                changed,
                removed,
            },
            cut,
            ends_pending,
        });
        if self.owed.len() > MOST_OWED {
            let lost = self.owed.remove(0);
            tracing::error!(?lost, "too many changes wait for the database");
        }
        self.next = revision + 1;
        self.remember(change.facts);
        revision
    }

    /// The last change did not take force after all.
    pub(super) fn disown(&mut self, undo: &[Fact<'_>]) {
        self.owed.pop();
        self.next -= 1;
        self.remember(undo);
    }

    /// Sets or deletes a value beside the history; on disk when this returns.
    ///
    /// # Errors
    /// When it could not be written.
    pub(super) fn set_meta(&mut self, key: &str, value: Option<&str>) -> Result<(), StoreError> {
        self.write(|store| store.set_meta(key, value))
    }

    /// Tries again what could not be recorded, when it is time for that.
    pub(super) fn try_again(&mut self, ids: &Arc<Ids>) {
        let is_time = self.again.is_none_or(|again| again <= Instant::now());
        let is_needed = !self.owed.is_empty() || !self.parts.has(Part::Database);
        if self.store.is_none() || !is_time || !is_needed {
            return;
        }
        // Something is written even if nothing waits, because only that shows that it can be.
        let now = Timestamp::now().to_string();
        let tried = self.settle(ids);
        let tried = tried.and_then(|()| self.set_meta("written", Some(&now)));
        if tried.is_ok() {
            info!("the database can be written");
        }
    }

    /// Records what is owed.
    ///
    /// # Errors
    /// When it can't be; what was not recorded is still owed.
    pub(super) fn settle(&mut self, ids: &Arc<Ids>) -> Result<(), StoreError> {
        while let Some(owed) = self.owed.first().cloned() {
            self.write(|store| owed.record(store, ids))?;
            self.owed.remove(0);
            info!(
                revision = owed.revision,
                kind = owed.kind,
                "recorded what was in force already"
            );
        }
        Ok(())
    }

    /// Writes to the store, and tells whether that works.
    fn write<T>(
        &mut self,
        write: impl FnOnce(&mut Store) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let Some(store) = &mut self.store else {
            return Err(self.history.is_away());
        };
        let written = write(store);
        match &written {
            Ok(_) => {
                self.parts.works(Part::Database);
                self.wait = BackOff::default();
                self.again = None;
            }
            Err(error) => {
                let wait: Duration = self.wait.next_wait();
                self.parts.breaks(Part::Database, error, Some(wait));
                self.again = Some(Instant::now() + wait);
            }
        }
        written
    }

    fn remember(&mut self, facts: &[Fact<'_>]) {
        for fact in facts {
            match *fact {
                Fact::Meta(..) => {}
                Fact::Held(it) => held::remember(&mut self.quarantined, it),
                Fact::Grant(rule, expires) => {
                    add_grant(Arc::make_mut(&mut self.grants), rule, expires);
                }
            }
        }
    }
}
