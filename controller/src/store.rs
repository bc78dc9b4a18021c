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
    collections::{BTreeMap, BTreeSet},
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use prost::Message as _;
use rusqlite::{Connection, ErrorCode, OptionalExtension as _, Row, Transaction, params};
use wardline_proto::v1;

use crate::edit;

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

/// The number of each name, by kind: a number is not given to another name while this one is here.
pub type Ids = BTreeMap<(String, String), u32>;

/// A change that was accepted and is to be kept.
#[derive(Clone, Debug)]
pub struct NewRevision<'a> {
    /// The revision that it changes; 0: none.
    pub parent: u64,
    /// When it was accepted.
    pub time: Timestamp,
    /// Who made it.
    pub actor: &'a str,
    /// Why, in the actor's words.
    pub reason: &'a str,
    /// The call that made it: apply, edit, rollback, quarantine …
    pub kind: &'a str,
    /// The request's id.
    pub request_id: &'a str,
    /// Its document.
    pub document: Document<'a>,
    /// What it adds to, alters in and removes from its parent's document.
    pub extent: Extent,
    /// What else is true from this revision on, in the same transaction.
    pub facts: &'a [Fact<'a>],
}

/// What the document of a revision is.
#[derive(Clone, Copy, Debug)]
pub enum Document<'a> {
    /// This one.
    Whole(&'a v1::Policy),
    /// That of an earlier revision.
    Of(u64),
    /// That of the parent after an edit.
    Edited {
        /// What is put and deleted.
        edit: &'a v1::EditRequest,
        /// What comes of it; kept instead where too many edits would have to be read.
        whole: &'a v1::Policy,
    },
}

/// How many objects a change concerns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// Objects that are new.
    pub added: u32,
    /// Objects that stay, with other settings.
    pub changed: u32,
    /// Objects that go.
    pub removed: u32,
}

/// Something that is true beside the document.
#[derive(Clone, Copy, Debug)]
pub enum Fact<'a> {
    /// What is kept under a key; none: nothing any more.
    Meta(&'a str, Option<&'a str>),
    /// Whether a device is in quarantine.
    Quarantined(&'a str, bool),
    /// A rule is a grant: it goes when it ends. Never taken back, so that a document of old that
    /// comes into force again does not bring it along.
    Grant(&'a str, Timestamp),
}

/// A kept change, without its document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revision {
    /// Its number; they only grow.
    pub revision: u64,
    /// The revision that it changed; 0: none.
    pub parent: u64,
    /// When it was accepted.
    pub time: Timestamp,
    /// Who made it.
    pub actor: String,
    /// Why, in the actor's words.
    pub reason: String,
    /// The call that made it.
    pub kind: String,
    /// The request's id.
    pub request_id: String,
    /// What it changed.
    pub extent: Extent,
}

/// A kept change and its document.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredRevision {
    /// The change.
    pub revision: Revision,
    /// The document.
    pub policy: v1::Policy,
}

/// Why the history can't be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory or the file could not be made or reached.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process has it open.
    #[error("{}: in use by another wardlined", .0.display())]
    InUse(PathBuf),
    /// The file is damaged, or no history.
    #[error("{}: damaged or not a history: {why}; restore it, or move it away to start anew", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A newer daemon wrote it.
    #[error("{}: has schema {found}, this wardlined knows up to {SCHEMA}; run the newer one", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: u32,
    },
    /// SQLite failed.
    #[error("{}: {source}", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
}

/// The layout of the tables; written into the file.
const SCHEMA: u32 = 2;

const TABLES: &str = "
    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE revisions (
        revision   INTEGER PRIMARY KEY,
        parent     INTEGER NOT NULL,
        time       TEXT NOT NULL,
        actor      TEXT NOT NULL,
        reason     TEXT NOT NULL,
        kind       TEXT NOT NULL,
        request_id TEXT NOT NULL,
        document   BLOB NOT NULL
    ) STRICT;
    CREATE TABLE ids (
        kind TEXT NOT NULL,
        name TEXT NOT NULL,
        id   INTEGER NOT NULL,
        PRIMARY KEY (kind, name)
    ) STRICT, WITHOUT ROWID;
";

/// From schema 1 to 2. `base` is the revision whose document `document` edits; 0: it is whole.
const EDITS: &str = "
    ALTER TABLE revisions ADD COLUMN base    INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE revisions ADD COLUMN added   INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE revisions ADD COLUMN changed INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE revisions ADD COLUMN removed INTEGER NOT NULL DEFAULT 0;
    CREATE TABLE quarantined (device TEXT PRIMARY KEY, revision INTEGER NOT NULL)
        STRICT, WITHOUT ROWID;
    CREATE TABLE grants (rule TEXT NOT NULL, expires TEXT NOT NULL, PRIMARY KEY (rule, expires))
        STRICT, WITHOUT ROWID;
";

const COLUMNS: &str =
    "revision, parent, time, actor, reason, kind, request_id, added, changed, removed";

/// Edits that are read one after the other, at most, to know a document.
const LONGEST_CHAIN: usize = 64;

/// Long enough for a predecessor to let go of the file.
const PATIENCE: Duration = Duration::from_secs(2);

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
                    (new.parent, edit.encode_to_vec())
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
    pub fn before(&self, revision: u64) -> Result<u64, StoreError> {
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
        let (base, same) = self.of(revision, "base, length(document) = 0", |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
        let base = number(base).ok_or_else(|| self.damaged("a revision's base is negative"))?;
        Ok((base, same))
    }

    /// A message that a revision keeps as its document.
    fn kept<M: prost::Message + Default>(&self, revision: u64) -> Result<M, StoreError> {
        let document: Vec<u8> = self.of(revision, "document", |row| row.get(0))?;
        M::decode(&document[..])
            .map_err(|error| self.damaged(&format!("the document of revision {revision}: {error}")))
    }

    fn of<T>(
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
            None => v1::Policy::default(),
            Some(whole) => self.kept(whole)?,
        };
        while let Some(at) = chain.pop() {
            edit::change(&mut policy, &self.kept(at)?)
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

/// Makes directory and file readable for their owner only, before SQLite writes anything.
fn create(directory: &Path, path: &Path) -> Result<(), StoreError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| StoreError::File { path, source }
    };
    if !directory.is_dir() {
        if let Some(parent) = directory.parent() {
            fs::create_dir_all(parent).map_err(failed(parent))?;
        }
        DirBuilder::new()
            .mode(0o700)
            .create(directory)
            .map_err(failed(directory))?;
    }
    let file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path);
    let file = file.map_err(failed(path))?;
    file.set_permissions(Permissions::from_mode(0o600))
        .map_err(failed(path))?;
    // The file's name must survive a power cut, too.
    File::open(directory)
        .and_then(|open| open.sync_all())
        .map_err(failed(directory))
}

fn prepare(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let failed = |source| database_error(path, source);
    let damaged = |why: String| StoreError::Damaged {
        path: path.to_owned(),
        why,
    };
    connection.busy_timeout(PATIENCE).map_err(failed)?;
    for (pragma, value) in [
        ("locking_mode", "EXCLUSIVE"),
        ("journal_mode", "WAL"),
        ("synchronous", "FULL"),
    ] {
        connection
            .pragma_update(None, pragma, value)
            .map_err(failed)?;
    }
    let check: String = connection
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(failed)?;
    if check != "ok" {
        return Err(damaged(check));
    }
    let transaction = connection.transaction().map_err(failed)?;
    let tables = "SELECT count(*), count(*) FILTER (WHERE name = 'meta') FROM sqlite_schema";
    let (tables, meta): (u32, u32) = transaction
        .query_row(tables, [], |row| Ok((row.get(0)?, row.get(1)?)))
        .map_err(failed)?;
    match (tables, meta) {
        (0, _) => {
            transaction.execute_batch(TABLES).map_err(failed)?;
            transaction.execute_batch(EDITS).map_err(failed)?;
            write_meta(&transaction, "schema", Some(&SCHEMA.to_string())).map_err(failed)?;
        }
        (_, 0) => return Err(damaged("its tables are of another program".to_owned())),
        (_, _) => {
            let query = "SELECT value FROM meta WHERE key = 'schema'";
            let schema: Option<String> = transaction
                .query_row(query, [], |row| row.get(0))
                .optional()
                .map_err(failed)?;
            match schema.as_deref().map(str::parse::<u32>) {
                Some(Ok(SCHEMA)) => {}
                Some(Ok(1)) => {
                    transaction.execute_batch(EDITS).map_err(failed)?;
                    let schema = Some(SCHEMA.to_string());
                    write_meta(&transaction, "schema", schema.as_deref()).map_err(failed)?;
                }
                Some(Ok(found)) if found > SCHEMA => {
                    return Err(StoreError::Newer {
                        path: path.to_owned(),
                        found,
                    });
                }
                Some(Ok(_) | Err(_)) | None => {
                    return Err(damaged("it tells no schema that ever was".to_owned()));
                }
            }
        }
    }
    transaction.commit().map_err(failed)
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

fn write_meta(connection: &Connection, key: &str, value: Option<&str>) -> rusqlite::Result<()> {
    match value {
        Some(value) => {
            connection.execute("INSERT OR REPLACE INTO meta VALUES (?1, ?2)", [key, value])
        }
        None => connection.execute("DELETE FROM meta WHERE key = ?1", [key]),
    }?;
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

fn database_error(path: &Path, source: rusqlite::Error) -> StoreError {
    let path = path.to_owned();
    match source.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreError::InUse(path),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => StoreError::Damaged {
            path,
            why: source.to_string(),
        },
        _ => StoreError::Database { path, source },
    }
}

#[cfg(test)]
mod tests {
    use std::{
        env,
        sync::atomic::{AtomicU32, Ordering},
    };

    use super::*;

    #[test]
    fn keeps_revisions_and_numbers_across_opening() {
        let scratch = Scratch::new();
        let ids = Arc::new(Ids::from([
            (key("zone", "pumps"), 1),
            (key("rule", "a"), 7),
        ]));
        let fewer = Arc::new(Ids::from([(key("zone", "pumps"), 2)]));
        let mut store = scratch.open();
        assert_eq!(store.latest().expect("read"), None);
        assert_eq!(
            append(
                &mut store,
                "first",
                &ids,
                &[Fact::Meta("pending", Some("1"))]
            ),
            1
        );
        assert_eq!(append(&mut store, "second", &fewer, &[]), 2);
        assert_eq!(store.ids(), &fewer);
        drop(store);

        let mut store = scratch.open();
        assert_eq!(store.ids(), &fewer);
        let latest = store.latest().expect("read").expect("a revision");
        assert_eq!((latest.revision.revision, latest.revision.parent), (2, 1));
        assert_eq!(
            (latest.revision.time, latest.revision.actor.as_str()),
            (TIME, "uid 0")
        );
        assert_eq!(latest.policy, policy("second"));
        let first = store.get(1).expect("read").expect("a revision");
        assert_eq!(
            (first.policy, first.revision.reason.as_str()),
            (policy("first"), "first")
        );
        assert_eq!(store.get(3).expect("read"), None);
        assert_eq!(store.get(u64::MAX).expect("read"), None);
        let listed = |limit| {
            store
                .list(limit)
                .expect("read")
                .iter()
                .map(|r| r.revision)
                .collect()
        };
        assert_eq!((listed(10), listed(1)), (vec![2, 1], vec![2]));
        assert_eq!(store.meta("pending").expect("read").as_deref(), Some("1"));
        store.set_meta("pending", None).expect("write");
        assert_eq!(store.meta("pending").expect("read"), None);
        assert_eq!(append(&mut store, "third", &fewer, &[]), 3);
    }

    #[test]
    fn an_edit_keeps_only_itself_and_is_read_whole() {
        let scratch = Scratch::new();
        let mut store = scratch.open();
        let ids = Arc::default();
        append(&mut store, "first", &ids, &[]);
        let mut whole = policy("first");
        // Longer than a chain may be.
        for n in 0..LONGEST_CHAIN + 3 {
            let zone = v1::Zone {
                name: format!("zone-{n}"),
                ..v1::Zone::default()
            };
            let edit = v1::EditRequest {
                put: Some(v1::Policy {
                    version: 1,
                    zones: vec![zone.clone()],
                    ..v1::Policy::default()
                }),
                ..v1::EditRequest::default()
            };
            whole.zones.push(zone);
            let edited = Document::Edited {
                edit: &edit,
                whole: &whole,
            };
            let parent = n as u64 + 1;
            let new = NewRevision {
                parent,
                document: edited,
                ..new("edit", &whole, &[])
            };
            assert_eq!(store.append(&new, &ids).expect("kept"), parent + 1);
            assert!(store.chain(parent + 1).expect("read").len() <= LONGEST_CHAIN);
        }
        drop(store);
        let store = scratch.open();
        assert_eq!(
            store.latest().expect("read").map(|it| it.policy),
            Some(whole)
        );
        let third = store.get(3).expect("read").expect("a revision").policy;
        assert_eq!(third.zones.len(), 3);
        assert_eq!(store.base(3).expect("read"), (2, false));
    }

    #[test]
    fn what_was_in_force_before_is_another_document() {
        let scratch = Scratch::new();
        let mut store = scratch.open();
        let ids = Arc::default();
        append(&mut store, "first", &ids, &[]);
        append(&mut store, "second", &ids, &[]);
        let mut same = |of, parent, fact| {
            let whole = policy("unused");
            let facts = [fact];
            let new = NewRevision {
                parent,
                document: Document::Of(of),
                ..new("quarantine", &whole, &facts)
            };
            store.append(&new, &ids).expect("kept")
        };
        assert_eq!(same(2, 2, Fact::Quarantined("camera", true)), 3);
        assert_eq!(same(3, 3, Fact::Quarantined("pump", true)), 4);
        assert_eq!(same(4, 4, Fact::Quarantined("camera", false)), 5);
        assert_eq!(same(1, 5, Fact::Grant("fix", TIME)), 6);
        for (of, before) in [(1, 0), (2, 1), (3, 1), (5, 1), (6, 5)] {
            assert_eq!(store.before(of).expect("read"), before, "{of}");
        }
        drop(store);
        let store = scratch.open();
        assert_eq!(store.quarantined().iter().collect::<Vec<_>>(), ["pump"]);
        assert!(store.is_grant("fix", TIME) && !store.is_grant("fix", Timestamp::UNIX_EPOCH));
        let documents = |revision| store.get(revision).expect("read").map(|it| it.policy);
        assert_eq!(documents(5), Some(policy("second")));
        assert_eq!(documents(6), Some(policy("first")));
    }

    #[test]
    fn takes_over_a_history_of_the_first_schema() {
        let scratch = Scratch::new();
        fs::create_dir(&scratch.0).expect("a directory");
        let old = Connection::open(scratch.file()).expect("a database");
        old.execute_batch(TABLES).expect("tables");
        old.execute("INSERT INTO meta VALUES ('schema', '1')", [])
            .expect("a schema");
        let document = policy("old").encode_to_vec();
        old.execute(
            "INSERT INTO revisions VALUES (1, 0, ?1, 'uid:0', '', 'apply', '', ?2)",
            params![TIME.to_string(), document],
        )
        .expect("a revision");
        drop(old);
        let mut store = scratch.open();
        assert_eq!(
            store.get(1).expect("read").expect("kept").policy,
            policy("old")
        );
        assert_eq!(append(&mut store, "new", &Arc::default(), &[]), 2);
        drop(store);
        assert_eq!(scratch.open().list(10).expect("read").len(), 2);
    }

    #[test]
    fn only_its_owner_may_read_it() {
        let scratch = Scratch::new();
        let mut store = scratch.open();
        append(&mut store, "first", &Arc::default(), &[]);
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(&scratch.0), 0o700);
        for entry in fs::read_dir(&scratch.0).expect("there") {
            assert_eq!(mode(&entry.expect("there").path()), 0o600);
        }
    }

    #[test]
    fn refuses_a_second_daemon() {
        let scratch = Scratch::new();
        let _store = scratch.open();
        assert!(matches!(Store::open(&scratch.0), Err(StoreError::InUse(_))));
    }

    #[test]
    fn refuses_a_newer_schema() {
        let scratch = Scratch::new();
        scratch.open().set_meta("schema", Some("3")).expect("write");
        let error = Store::open(&scratch.0).expect_err("must be refused");
        assert!(
            matches!(error, StoreError::Newer { found: 3, .. }),
            "{error}"
        );
    }

    #[test]
    fn refuses_the_database_of_another_program() {
        let scratch = Scratch::new();
        fs::create_dir(&scratch.0).expect("a directory");
        let other = Connection::open(scratch.file()).expect("a database");
        other
            .execute_batch("CREATE TABLE shoes (size INTEGER)")
            .expect("a table");
        drop(other);
        assert_damaged(Store::open(&scratch.0));
    }

    #[test]
    fn tells_of_a_damaged_file() {
        let scratch = Scratch::new();
        let mut store = scratch.open();
        for n in 0..200 {
            append(&mut store, &format!("{n}"), &Arc::default(), &[]);
        }
        drop(store);
        let whole = fs::read(scratch.file()).expect("the file");
        assert!(whole.len() > 16 * 4096);

        fs::write(scratch.file(), &whole[..whole.len() / 2]).expect("written");
        assert_damaged(Store::open(&scratch.0));
        fs::write(
            scratch.file(),
            "no database, but long enough for one ".repeat(200),
        )
        .expect("written");
        assert_damaged(Store::open(&scratch.0));
        let mut spoilt = whole.clone();
        spoilt[3 * 4096..5 * 4096].fill(0xa5);
        fs::write(scratch.file(), &spoilt).expect("written");
        assert_damaged(Store::open(&scratch.0));
        fs::write(scratch.file(), &whole).expect("written");
        assert_eq!(scratch.open().list(1000).expect("read").len(), 200);
    }

    #[test]
    fn a_failed_append_leaves_nothing() {
        let scratch = Scratch::new();
        let mut store = scratch.open();
        append(&mut store, "first", &Arc::default(), &[]);
        store
            .connection
            .execute_batch("DROP TABLE ids")
            .expect("dropped");
        let ids = Arc::new(Ids::from([(key("zone", "pumps"), 1)]));
        let policy = policy("second");
        let new = new("second", &policy, &[]);
        assert!(store.append(&new, &ids).is_err());
        assert_eq!(store.list(10).expect("read").len(), 1);
        assert_eq!(store.ids(), &Arc::default());
    }

    const TIME: Timestamp = Timestamp::constant(1_790_000_000, 5);

    fn append(store: &mut Store, name: &str, ids: &Arc<Ids>, facts: &[Fact<'_>]) -> u64 {
        let parent = store
            .latest()
            .expect("read")
            .map_or(0, |latest| latest.revision.revision);
        let policy = policy(name);
        let new = NewRevision {
            parent,
            ..new(name, &policy, facts)
        };
        store.append(&new, ids).expect("kept")
    }

    fn new<'a>(reason: &'a str, policy: &'a v1::Policy, facts: &'a [Fact<'a>]) -> NewRevision<'a> {
        NewRevision {
            parent: 0,
            time: TIME,
            actor: "uid 0",
            reason,
            kind: "apply",
            request_id: "r-1",
            document: Document::Whole(policy),
            extent: Extent::default(),
            facts,
        }
    }

    fn policy(name: &str) -> v1::Policy {
        let zone = v1::Zone {
            name: name.to_owned(),
            description: "of some length, so that pages fill. ".repeat(20),
            ..Default::default()
        };
        v1::Policy {
            version: 1,
            zones: vec![zone],
            ..Default::default()
        }
    }

    fn key(kind: &str, name: &str) -> (String, String) {
        (kind.to_owned(), name.to_owned())
    }

    fn assert_damaged(opened: Result<Store, StoreError>) {
        let error = opened.expect_err("must be refused");
        assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
        assert!(
            error
                .to_string()
                .contains("wardline.db: damaged or not a history"),
            "{error}"
        );
    }

    /// A directory of one test.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new() -> Self {
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            let name = format!("wardline-store-{}-{count}", std::process::id());
            Self(env::temp_dir().join(name))
        }

        fn open(&self) -> Store {
            Store::open(&self.0).expect("a history")
        }

        fn file(&self) -> PathBuf {
            self.0.join("wardline.db")
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).expect("removed");
        }
    }
}
