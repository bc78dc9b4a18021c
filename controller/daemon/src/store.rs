//! What was accepted: every revision's document, and the numbers that names keep across revisions.
//!
//! One SQLite file. A revision, the numbers that it needs and what it says about the daemon's state
//! are one transaction, on disk before [`Store::append`] returns. Nothing is ever changed or
//! deleted in the history. The file stays locked while it is open: two daemons on one history
//! would both be wrong.
//!
//! A document of a hundred thousand devices is written once: a small change keeps only itself, and
//! the revision whose document it edits.

use std::{
    collections::BTreeSet,
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::Timestamp;
use prost::Message as _;
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params};
use wardline_policy::{
    document::{
        Document as Policy,
        diff::Extent,
        edit::{self, Edit},
    },
    numbers::Ids,
};

pub mod error;
pub mod revision;
mod schema;

use self::{
    error::{StoreError, database_error},
    revision::{Document, Fact, NewRevision, Revision, StoredRevision},
    schema::{create, prepare, write_meta},
};

/// The history of a router.
#[derive(Debug)]
pub struct Store {
    connection: Connection,
    path: PathBuf,
    /// What the table of numbers holds.
    ids: Arc<Ids>,
    quarantined: BTreeSet<String>,
    grants: BTreeSet<(String, Timestamp)>,
}

const COLUMNS: &str =
    "revision, parent, time, actor, reason, kind, request_id, added, changed, removed";

/// Edits that are read one after the other, at most, to know a document.
const LONGEST_CHAIN: usize = 64;

impl Store {
    /// Opens the history in a directory; makes both when they are not there.
    ///
    /// # Errors
    /// When the file can't be reached, is in use, damaged, or of a newer daemon.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        let path = directory.join("wardline.db");
        create(directory, &path)?;
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
        Ok(Self {
            connection,
            path,
            ids: Arc::new(ids),
            quarantined,
            grants,
        })
    }

    /// Keeps a change, with the numbers that hold from it on; on disk when this returns.
    ///
    /// # Errors
    /// When it could not be kept; then nothing of it is.
    pub fn append(&mut self, new: &NewRevision<'_>, ids: &Arc<Ids>) -> Result<u64, StoreError> {
        let (base, document) = match new.document {
            Document::Whole(policy) => (0, policy.encode_to_vec()),
            Document::Of(revision) => (self.origin(revision)?, Vec::new()),
            Document::Edited { edit, whole } => {
                if (1..LONGEST_CHAIN).contains(&self.chain(new.parent)?.len()) {
                    (new.parent, edit.encode())
                } else {
                    (0, whole.encode_to_vec())
                }
            }
        };
        let path = &self.path;
        let failed = |source| database_error(path, source);
        let transaction = self.connection.transaction().map_err(failed)?;
        let revision = write(&transaction, new, base, &document).map_err(failed)?;
        // The numbers are as many as the names; most changes leave them alone.
        if !Arc::ptr_eq(&self.ids, ids) {
            write_ids(&transaction, &self.ids, ids).map_err(failed)?;
        }
        transaction.commit().map_err(failed)?;
        self.ids = Arc::clone(ids);
        for fact in new.facts {
            match *fact {
                Fact::Meta(..) => {}
                Fact::Quarantined(device, true) => {
                    self.quarantined.insert(device.to_owned());
                }
                Fact::Quarantined(device, false) => {
                    self.quarantined.remove(device);
                }
                Fact::Grant(rule, expires) => {
                    self.grants.insert((rule.to_owned(), expires));
                }
            }
        }
        number(revision).ok_or_else(|| self.damaged("a revision's number is negative"))
    }

    /// The number that the next revision will have.
    ///
    /// # Errors
    /// When the history can't be read.
    pub fn next(&self) -> Result<u64, StoreError> {
        let newest = self.list(1)?.pop().map_or(0, |it| it.revision);
        Ok(newest + 1)
    }

    /// The newest revision.
    ///
    /// # Errors
    /// When the history can't be read.
    pub fn latest(&self) -> Result<Option<StoredRevision>, StoreError> {
        self.list(1)?
            .pop()
            .map(|it| self.with_document(it))
            .transpose()
    }

    /// One revision.
    ///
    /// # Errors
    /// When the history can't be read.
    pub fn get(&self, revision: u64) -> Result<Option<StoredRevision>, StoreError> {
        self.row(revision)?
            .map(|it| self.with_document(it))
            .transpose()
    }

    /// The revision that one changed; 0: none.
    ///
    /// # Errors
    /// When the history can't be read.
    pub fn parent(&self, revision: u64) -> Result<u64, StoreError> {
        Ok(self.row(revision)?.map_or(0, |row| row.parent))
    }

    /// The revision before one: the parent of the first that has its document. A change that left
    /// the document alone, as a quarantine does, is passed over. 0: there is none.
    ///
    /// # Errors
    /// When the history can't be read.
    pub fn previous_document(&self, revision: u64) -> Result<u64, StoreError> {
        let mut at = revision;
        while let Some(row) = self.row(at)? {
            at = row.parent;
            if at == 0 || self.origin(at)? != self.origin(row.revision)? {
                break;
            }
        }
        Ok(at)
    }

    /// The newest revisions, newest first, at most so many.
    ///
    /// # Errors
    /// When the history can't be read.
    pub fn list(&self, limit: u32) -> Result<Vec<Revision>, StoreError> {
        let query = format!("SELECT {COLUMNS} FROM revisions ORDER BY revision DESC LIMIT ?1");
        let mut statement = self
            .connection
            .prepare_cached(&query)
            .map_err(|e| self.failed(e))?;
        let rows = statement
            .query_map([limit], read_row)
            .map_err(|e| self.failed(e))?;
        rows.map(|row| self.revision(row.map_err(|e| self.failed(e))?))
            .collect()
    }

    /// The newest revisions after one, at most a thousand, oldest first.
    ///
    /// # Errors
    ///
    /// When they can't be read.
    pub fn after(&self, revision: u64) -> Result<Vec<Revision>, StoreError> {
        const MOST: u32 = 1000;
        let mut revisions = self.list(MOST)?;
        revisions.retain(|known| known.revision > revision);
        revisions.reverse();
        Ok(revisions)
    }

    /// The numbers that hold.
    pub fn ids(&self) -> &Arc<Ids> {
        &self.ids
    }

    /// The devices in quarantine, by name, whether a document has them or not.
    pub fn quarantined(&self) -> &BTreeSet<String> {
        &self.quarantined
    }

    /// Whether a rule with this end was made by a grant, at any time.
    pub fn is_grant(&self, rule: &str, expires: Timestamp) -> bool {
        self.grants.contains(&(rule.to_owned(), expires))
    }

    /// What is kept under a key beside the history.
    ///
    /// # Errors
    /// When the history can't be read.
    pub fn meta(&self, key: &str) -> Result<Option<String>, StoreError> {
        let query = "SELECT value FROM meta WHERE key = ?1";
        let mut statement = self
            .connection
            .prepare_cached(query)
            .map_err(|e| self.failed(e))?;
        statement
            .query_row([key], |row| row.get(0))
            .optional()
            .map_err(|e| self.failed(e))
    }

    /// Keeps a value under a key beside the history, or nothing; on disk when this returns.
    ///
    /// # Errors
    /// When it could not be kept.
    pub fn set_meta(&mut self, key: &str, value: Option<&str>) -> Result<(), StoreError> {
        write_meta(&self.connection, key, value).map_err(|e| self.failed(e))
    }

    fn row(&self, revision: u64) -> Result<Option<Revision>, StoreError> {
        let query = format!("SELECT {COLUMNS} FROM revisions WHERE revision = ?1");
        let mut statement = self
            .connection
            .prepare_cached(&query)
            .map_err(|e| self.failed(e))?;
        let row = statement
            .query_row([i64::try_from(revision).unwrap_or(-1)], read_row)
            .optional()
            .map_err(|e| self.failed(e))?;
        row.map(|row| self.revision(row)).transpose()
    }

    /// The revision that has a revision's document itself, whole or as an edit.
    fn origin(&self, revision: u64) -> Result<u64, StoreError> {
        match self.base(revision)? {
            (0, _) | (_, false) => Ok(revision),
            (base, true) => Ok(base),
        }
    }

    /// The revisions that a document is made of, the whole one last.
    fn chain(&self, revision: u64) -> Result<Vec<u64>, StoreError> {
        let mut chain = Vec::new();
        let mut at = revision;
        while at != 0 {
            chain.push(at);
            let (base, _) = self.base(at)?;
            // What edits a later one would be read for ever.
            if base >= at {
                return Err(self.damaged(&format!("revision {at} edits revision {base}")));
            }
            at = base;
        }
        Ok(chain)
    }

    /// The revision whose document a revision edits, and whether it is the same.
    fn base(&self, revision: u64) -> Result<(u64, bool), StoreError> {
        let (base, same) = self.query_revision(revision, "base, length(document) = 0", |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
        let base = number(base).ok_or_else(|| self.damaged("a revision's base is negative"))?;
        Ok((base, same))
    }

    /// What a revision keeps as its document, as `decode` reads it.
    fn decode_document<T, E: fmt::Display>(
        &self,
        revision: u64,
        decode: impl FnOnce(&[u8]) -> Result<T, E>,
    ) -> Result<T, StoreError> {
        let document: Vec<u8> = self.query_revision(revision, "document", |row| row.get(0))?;
        decode(&document)
            .map_err(|error| self.damaged(&format!("the document of revision {revision}: {error}")))
    }

    fn query_revision<T>(
        &self,
        revision: u64,
        columns: &str,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let query = format!("SELECT {columns} FROM revisions WHERE revision = ?1");
        let mut statement = self
            .connection
            .prepare_cached(&query)
            .map_err(|e| self.failed(e))?;
        statement
            .query_row([i64::try_from(revision).unwrap_or(-1)], read)
            .map_err(|e| self.failed(e))
    }

    fn with_document(&self, revision: Revision) -> Result<StoredRevision, StoreError> {
        let mut chain = self.chain(revision.revision)?;
        let mut policy = match chain.pop() {
            None => Policy::default(),
            Some(whole) => self.decode_document(whole, |bytes| Policy::decode(bytes))?,
        };
        while let Some(at) = chain.pop() {
            edit::change(&mut policy, &self.decode_document(at, Edit::decode)?)
                .map_err(|_| self.damaged(&format!("revision {at} edits what is not there")))?;
        }
        Ok(StoredRevision { revision, policy })
    }

    fn revision(&self, row: RevisionRow) -> Result<Revision, StoreError> {
        let RevisionRow {
            revision,
            parent,
            time,
            actor,
            reason,
            kind,
            request_id,
            extent,
        } = row;
        let (Some(revision), Some(parent), Ok(time)) =
            (number(revision), number(parent), time.parse())
        else {
            return Err(self.damaged(&format!("revision {revision} has no time or number")));
        };
        Ok(Revision {
            revision,
            parent,
            time,
            actor,
            reason,
            kind,
            request_id,
            extent,
        })
    }

    /// An error of this file.
    pub(crate) fn damaged(&self, why: &str) -> StoreError {
        StoreError::Damaged {
            path: self.path.clone(),
            why: why.to_owned(),
        }
    }

    fn failed(&self, source: rusqlite::Error) -> StoreError {
        database_error(&self.path, source)
    }
}

type Facts = (Ids, BTreeSet<String>, Vec<(String, String)>);

fn read_facts(connection: &Connection) -> rusqlite::Result<Facts> {
    let mut statement = connection.prepare("SELECT kind, name, id FROM ids")?;
    let rows = statement.query_map([], |row| Ok(((row.get(0)?, row.get(1)?), row.get(2)?)))?;
    let ids = rows.collect::<rusqlite::Result<Ids>>()?;
    let mut statement = connection.prepare("SELECT device FROM quarantined")?;
    let quarantined = statement.query_map([], |row| row.get(0))?;
    let quarantined = quarantined.collect::<rusqlite::Result<_>>()?;
    let mut statement = connection.prepare("SELECT rule, expires FROM grants")?;
    let grants = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok((ids, quarantined, grants.collect::<rusqlite::Result<_>>()?))
}

fn write(
    transaction: &Transaction<'_>,
    new: &NewRevision<'_>,
    base: u64,
    document: &[u8],
) -> rusqlite::Result<i64> {
    let signed = |revision: u64| i64::try_from(revision).unwrap_or(i64::MAX);
    transaction.execute(
        "INSERT INTO revisions (parent, time, actor, reason, kind, request_id, document, base,
                                added, changed, removed)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
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
        ],
    )?;
    let revision = transaction.last_insert_rowid();
    for fact in new.facts {
        match *fact {
            Fact::Meta(key, value) => write_meta(transaction, key, value)?,
            Fact::Quarantined(device, true) => {
                let put = "INSERT OR REPLACE INTO quarantined VALUES (?1, ?2)";
                transaction.execute(put, params![device, revision])?;
            }
            Fact::Quarantined(device, false) => {
                transaction.execute("DELETE FROM quarantined WHERE device = ?1", [device])?;
            }
            Fact::Grant(rule, expires) => {
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

/// A row before its texts and numbers are checked.
struct RevisionRow {
    revision: i64,
    parent: i64,
    time: String,
    actor: String,
    reason: String,
    kind: String,
    request_id: String,
    extent: Extent,
}

fn read_row(row: &Row<'_>) -> rusqlite::Result<RevisionRow> {
    Ok(RevisionRow {
        revision: row.get(0)?,
        parent: row.get(1)?,
        time: row.get(2)?,
        actor: row.get(3)?,
        reason: row.get(4)?,
        kind: row.get(5)?,
        request_id: row.get(6)?,
        extent: Extent {
            added: row.get(7)?,
            changed: row.get(8)?,
            removed: row.get(9)?,
        },
    })
}

fn number(value: i64) -> Option<u64> {
    u64::try_from(value).ok()
}

#[cfg(test)]
mod tests;
