//! The accepted revisions with their documents, and the numbers that names keep across revisions.
//!
//! One SQLite file. A revision, the numbers that it needs and its facts about the daemon's state
//! are one transaction, on disk before [`Store::append`] returns. What a revision says never changes;
//! old ones are dropped ([`retention`]). The file stays locked while it is open, because a daemon does not notice
//! what another one writes.
//!
//! A document of a hundred thousand devices is written once: a small change stores only its edit,
//! and the revision whose document it edits.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use jiff::Timestamp;
use prost::Message as _;
use rusqlite::{Connection, Transaction, params};
use wardline_policy::{
    numbers::Ids,
    quarantine::{Identity, Quarantine},
};

pub mod backup;
pub mod enforced;
pub mod error;
pub mod folder;
pub(crate) mod held;
pub mod history;
pub mod names;
pub mod owed;
pub mod rebuild;
pub mod restore;
pub mod retention;
pub mod revision;
mod rows;
pub mod salvage;
pub(crate) mod schema;
pub mod vendors;

use self::{
    enforced::Enforced,
    error::{StoreError, database_error},
    history::{History, number},
    revision::{Document, Fact, Held, NewRevision},
    rows::signed,
    schema::{create, prepare, write_meta},
};

/// The history of a router, for writing.
#[derive(Debug)]
pub struct Store {
    history: History,
    /// The numbers in the database.
    ids: Arc<Ids>,
    quarantined: Quarantine,
    grants: BTreeSet<(String, Timestamp)>,
}

/// The key of the change that waits for its confirmation: its number, the number of the revision
/// that returns, and more.
pub const PENDING: &str = "pending";

/// The kind of a revision that stands for a document that is lost: it only keeps the numbers going.
pub const LOST: &str = "lost";

/// Most edits that are applied one after the other to read a document.
const LONGEST_CHAIN: usize = 64;

impl Store {
    /// Opens the history in a directory; creates both if they do not exist.
    ///
    /// # Errors
    /// When the file can't be read, is in use, is damaged, or was written by a newer daemon.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        Self::open_as(&History::away(directory))
    }

    /// Opens a history that readers know already, unless it is empty and something tells that it must
    /// not be.
    ///
    /// # Errors
    /// As [`open`](Self::open), and when the file is empty or gone against the evidence.
    pub fn open_known(history: &History, evidence: Option<&str>) -> Result<Self, StoreError> {
        match evidence {
            Some(evidence) if !history.has_file() => Err(StoreError::Lost {
                path: history.path().to_owned(),
                evidence: evidence.to_owned(),
            }),
            _ => Self::open_as(history),
        }
    }

    /// Opens a history that readers know already; they find it from then on.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_as(history: &History) -> Result<Self, StoreError> {
        let path = history.path().to_owned();
        create(&path)?;
        let failed = |source| database_error(&path, source);
        let mut connection = Connection::open(&path).map_err(failed)?;
        prepare(&mut connection, &path)?;
        let (ids, quarantined, grants) = read_facts(&connection).map_err(failed)?;
        let parsed = grants.into_iter().map(|(rule, expires)| {
            let expires = expires.parse().map_err(|_| StoreError::Damaged {
                path: path.clone(),
                why: format!("the grant {rule} has no end"),
            })?;
            Ok((rule, expires))
        });
        let grants = parsed.collect::<Result<_, StoreError>>()?;
        history.open(connection);
        let mut store = Self {
            history: history.clone(),
            ids: Arc::new(ids),
            quarantined,
            grants,
        };
        store.resolve_names()?;
        Ok(store)
    }

    /// Earlier versions kept the names of what is in quarantine: the newest document tells whose they are.
    fn resolve_names(&mut self) -> Result<(), StoreError> {
        let is_name = |(identity, _): (&Identity, _)| matches!(identity, Identity::Device(_));
        if !self.quarantined.iter().any(is_name) {
            return Ok(());
        }
        let Some(latest) = self.history.latest()? else {
            return Ok(());
        };
        let mut resolved = self.quarantined.clone();
        if !resolved.resolve(held::identities(&latest.policy)) {
            return Ok(());
        }
        self.history.with(|connection| {
            let transaction = connection.transaction()?;
            transaction.execute("DELETE FROM held", [])?;
            for (identity, hold) in resolved.iter() {
                held::write(&transaction, identity, Some(hold))?;
            }
            transaction.commit()
        })?;
        self.quarantined = resolved;
        Ok(())
    }

    /// Stores a change, with the numbers that are valid from then on; on disk when this returns.
    ///
    /// # Errors
    /// When it could not be stored; then nothing of it is.
    pub fn append(&mut self, new: &NewRevision<'_>, ids: &Arc<Ids>) -> Result<u64, StoreError> {
        let (base, document) = match new.document {
            Document::Whole(policy) => (0, policy.encode_to_vec()),
            // Says why, if it is no longer there.
            Document::Of(revision) => (self.history.origin(revision)?, Vec::new()),
            Document::Edited { edit, whole } => {
                if (1..LONGEST_CHAIN).contains(&self.history.chain(new.parent)?.len()) {
                    (new.parent, edit.encode())
                } else {
                    (0, whole.encode_to_vec())
                }
            }
        };
        let revision = self.history.with(|connection| {
            let transaction = connection.transaction()?;
            // Whoever drops old revisions may have given the document another place meanwhile.
            let base = match new.document {
                Document::Of(revision) => origin(&transaction, revision)?,
                Document::Whole(_) | Document::Edited { .. } => base,
            };
            let revision = write(&transaction, new, base, &document)?;
            // There are as many numbers as names, and most changes leave them as they are.
            if !Arc::ptr_eq(&self.ids, ids) {
                write_ids(&transaction, &self.ids, ids)?;
            }
            transaction.commit()?;
            Ok(revision)
        })?;
        self.ids = Arc::clone(ids);
        for fact in new.facts {
            match *fact {
                Fact::Meta(..) => {}
                Fact::Held(it) => held::remember(&mut self.quarantined, it),
                Fact::Grant(rule, expires) => add_grant(&mut self.grants, rule, expires),
            }
        }
        number(revision).ok_or_else(|| self.history.damaged("a revision's number is negative"))
    }

    /// The history, for reading on any thread.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// The numbers that are valid.
    pub fn ids(&self) -> &Arc<Ids> {
        &self.ids
    }

    /// What is in quarantine, even if no document has it.
    pub fn quarantined(&self) -> &Quarantine {
        &self.quarantined
    }

    /// The rules that a grant ever made, with their ends.
    pub fn grants(&self) -> &BTreeSet<(String, Timestamp)> {
        &self.grants
    }

    /// What the newest revision says is in force; none: there is no revision, or its document is lost.
    ///
    /// # Errors
    /// When the history can't be read, or is damaged.
    pub fn enforced(&self) -> Result<Option<Enforced>, StoreError> {
        let Some(latest) = self.history.latest()? else {
            return Ok(None);
        };
        if latest.revision.kind == LOST {
            return Ok(None);
        }
        let pending = self.history.meta(PENDING)?;
        let returns = pending
            .as_deref()
            .and_then(|it| it.split(' ').nth(1)?.parse().ok());
        let previous = match returns {
            None | Some(0) => None,
            Some(returns) => self.history.get(returns)?,
        };
        Ok(Some(Enforced {
            revision: latest.revision.revision,
            policy: Arc::new(latest.policy),
            ids: Arc::clone(&self.ids),
            quarantined: self.quarantined.clone(),
            grants: self.grants.clone(),
            pending,
            previous: previous.map(|it| Arc::new(it.policy)),
            guarded: BTreeSet::new(),
            owed: Vec::new(),
        }))
    }

    /// Sets or deletes a value outside the history; on disk when this returns.
    ///
    /// # Errors
    /// When it could not be stored.
    pub fn set_meta(&mut self, key: &str, value: Option<&str>) -> Result<(), StoreError> {
        self.history
            .with(|connection| write_meta(connection, key, value))
    }
}

type Facts = (Ids, Quarantine, Vec<(String, String)>);

fn read_facts(connection: &Connection) -> rusqlite::Result<Facts> {
    let mut statement = connection.prepare("SELECT kind, name, id FROM ids")?;
    let rows = statement.query_map([], |row| Ok(((row.get(0)?, row.get(1)?), row.get(2)?)))?;
    let ids = rows.collect::<rusqlite::Result<Ids>>()?;
    let quarantined = held::read(connection)?;
    let mut statement = connection.prepare("SELECT rule, expires FROM grants")?;
    let grants = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok((ids, quarantined, grants.collect::<rusqlite::Result<_>>()?))
}

/// The revision that stores a revision's document, whole or as an edit.
fn origin(transaction: &Transaction<'_>, revision: u64) -> rusqlite::Result<u64> {
    let origin = "SELECT iif(base != 0 AND length(document) = 0, base, revision)
                  FROM revisions WHERE revision = ?1";
    let revision = i64::try_from(revision).unwrap_or(-1);
    let origin: i64 = transaction.query_row(origin, [revision], |row| row.get(0))?;
    Ok(number(origin).unwrap_or_default())
}

fn write(
    transaction: &Transaction<'_>,
    new: &NewRevision<'_>,
    base: u64,
    document: &[u8],
) -> rusqlite::Result<i64> {
    transaction.execute(
        "INSERT INTO revisions (parent, time, actor, reason, kind, request_id, document, base,
                                added, changed, removed, revision)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
        params![
            signed(new.parent),
            new.time.to_string(),
            new.actor,
            new.reason,
            new.kind,
            new.request_id,
            document,
            signed(base),
            new.extent.added,
            new.extent.changed,
            new.extent.removed,
            new.number.map(signed),
        ],
    )?;
    let revision = transaction.last_insert_rowid();
    for fact in new.facts {
        match *fact {
            Fact::Meta(key, value) => write_meta(transaction, key, value)?,
            Fact::Held(Held {
                subject,
                identities,
                hold,
            }) => {
                for identity in identities {
                    held::write(transaction, identity, hold)?;
                }
                if !subject.is_empty() {
                    let forget = "DELETE FROM subjects WHERE revision <= ?1";
                    transaction.execute(forget, [revision - MOST_SUBJECTS])?;
                    let put = "INSERT OR REPLACE INTO subjects VALUES (?1, ?2)";
                    transaction.execute(put, params![revision, subject])?;
                }
            }
            Fact::Grant(rule, expires) => {
                let forget = format!(
                    "DELETE FROM grants WHERE (rule, expires) IN (SELECT rule, expires FROM grants \
                     ORDER BY expires DESC LIMIT -1 OFFSET {})",
                    MOST_GRANTS - 1
                );
                transaction.execute(&forget, [])?;
                let put = "INSERT OR REPLACE INTO grants VALUES (?1, ?2)";
                transaction.execute(put, params![rule, expires.to_string()])?;
            }
        }
    }
    Ok(revision)
}

fn write_ids(transaction: &Transaction<'_>, old: &Ids, new: &Ids) -> rusqlite::Result<()> {
    let mut delete = transaction.prepare("DELETE FROM ids WHERE kind = ?1 AND name = ?2")?;
    for (kind, name) in old.keys().filter(|key| !new.contains_key(key)) {
        delete.execute(params![kind, name])?;
    }
    let mut put = transaction.prepare("INSERT OR REPLACE INTO ids VALUES (?1, ?2, ?3)")?;
    for (key, id) in new.iter().filter(|(key, id)| old.get(key) != Some(id)) {
        put.execute(params![key.0, key.1, id])?;
    }
    Ok(())
}

/// Of so many of the newest revisions the history says whom they put into quarantine or released.
const MOST_SUBJECTS: i64 = 100_000;

/// Most grants that are remembered. A rule whose grant was forgotten is like one that a person wrote with
/// its end.
const MOST_GRANTS: usize = 4096;

/// Remembers a grant, and forgets the one that ended first when there are too many.
pub(crate) fn add_grant(
    grants: &mut BTreeSet<(String, Timestamp)>,
    rule: &str,
    expires: Timestamp,
) {
    while grants.len() >= MOST_GRANTS
        && let Some(first) = grants.iter().min_by_key(|(_, expires)| *expires).cloned()
    {
        grants.remove(&first);
    }
    grants.insert((rule.to_owned(), expires));
}

#[cfg(test)]
mod tests;
