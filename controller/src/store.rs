//! What was accepted: every revision's document, and the numbers that names keep across revisions.
//!
//! One SQLite file. A revision, the numbers that it needs and what it says about the daemon's state
//! are one transaction, on disk before [`Store::append`] returns. Nothing is ever changed or
//! deleted in the history. The file stays locked while it is open: two daemons on one history
//! would both be wrong.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::Timestamp;
use prost::Message as _;
use rusqlite::{Connection, ErrorCode, OptionalExtension as _, Row, Transaction, params};
use wardline_proto::v1;

/// The history of a router.
#[derive(Debug)]
pub struct Store {
    connection: Connection,
    path: PathBuf,
    /// What the table of numbers holds.
    ids: Ids,
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
    /// The document.
    pub policy: &'a v1::Policy,
    /// What else is true from this revision on, in the same transaction; none: no longer.
    pub meta: &'a [(&'a str, Option<&'a str>)],
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
const SCHEMA: u32 = 1;

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

const COLUMNS: &str = "revision, parent, time, actor, reason, kind, request_id";

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
        let ids = prepare(&mut connection, &path)?;
        Ok(Self {
            connection,
            path,
            ids,
        })
    }

    /// Keeps a change, with the numbers that hold from it on; on disk when this returns.
    ///
    /// # Errors
    /// When it could not be kept; then nothing of it is.
    pub fn append(&mut self, new: &NewRevision<'_>, ids: &Ids) -> Result<u64, StoreError> {
        let path = &self.path;
        let failed = |source| database_error(path, source);
        let transaction = self.connection.transaction().map_err(failed)?;
        let revision = write(&transaction, new, &self.ids, ids).map_err(failed)?;
        transaction.commit().map_err(failed)?;
        self.ids.clone_from(ids);
        number(revision).ok_or_else(|| self.damaged("a revision's number is negative"))
    }

    /// The newest revision.
    ///
    /// # Errors
    /// When the history can't be read.
    pub fn latest(&self) -> Result<Option<StoredRevision>, StoreError> {
        self.one("ORDER BY revision DESC LIMIT ?1", 1)
    }

    /// One revision.
    ///
    /// # Errors
    /// When the history can't be read.
    pub fn get(&self, revision: u64) -> Result<Option<StoredRevision>, StoreError> {
        match i64::try_from(revision) {
            Ok(revision) => self.one("WHERE revision = ?1", revision),
            Err(_) => Ok(None),
        }
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
    pub fn ids(&self) -> &Ids {
        &self.ids
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

    fn one(&self, which: &str, parameter: i64) -> Result<Option<StoredRevision>, StoreError> {
        let query = format!("SELECT {COLUMNS}, document FROM revisions {which}");
        let mut statement = self
            .connection
            .prepare_cached(&query)
            .map_err(|e| self.failed(e))?;
        let row = statement
            .query_row([parameter], |row| {
                Ok((read_row(row)?, row.get::<_, Vec<u8>>(7)?))
            })
            .optional()
            .map_err(|e| self.failed(e))?;
        let Some((row, document)) = row else {
            return Ok(None);
        };
        let revision = self.revision(row)?;
        let policy = v1::Policy::decode(&document[..]).map_err(|error| {
            self.damaged(&format!(
                "the document of revision {}: {error}",
                revision.revision
            ))
        })?;
        Ok(Some(StoredRevision { revision, policy }))
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
        })
    }

    fn damaged(&self, why: &str) -> StoreError {
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

fn prepare(connection: &mut Connection, path: &Path) -> Result<Ids, StoreError> {
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
    let ids = read_ids(&transaction).map_err(failed)?;
    transaction.commit().map_err(failed)?;
    Ok(ids)
}

fn read_ids(transaction: &Transaction<'_>) -> rusqlite::Result<Ids> {
    let mut statement = transaction.prepare("SELECT kind, name, id FROM ids")?;
    let rows = statement.query_map([], |row| Ok(((row.get(0)?, row.get(1)?), row.get(2)?)))?;
    rows.collect()
}

fn write(
    transaction: &Transaction<'_>,
    new: &NewRevision<'_>,
    old_ids: &Ids,
    ids: &Ids,
) -> rusqlite::Result<i64> {
    let NewRevision {
        parent,
        time,
        actor,
        reason,
        kind,
        request_id,
        policy,
        meta,
    } = new;
    let parent = i64::try_from(*parent).unwrap_or(i64::MAX);
    transaction.execute(
        "INSERT INTO revisions (parent, time, actor, reason, kind, request_id, document)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![
            parent,
            time.to_string(),
            actor,
            reason,
            kind,
            request_id,
            policy.encode_to_vec()
        ],
    )?;
    let revision = transaction.last_insert_rowid();
    let mut delete = transaction.prepare("DELETE FROM ids WHERE kind = ?1 AND name = ?2")?;
    for (kind, name) in old_ids.keys().filter(|key| !ids.contains_key(key)) {
        delete.execute(params![kind, name])?;
    }
    let mut put = transaction.prepare("INSERT OR REPLACE INTO ids VALUES (?1, ?2, ?3)")?;
    for (key, id) in ids.iter().filter(|(key, id)| old_ids.get(key) != Some(id)) {
        put.execute(params![key.0, key.1, id])?;
    }
    for (key, value) in *meta {
        write_meta(transaction, key, *value)?;
    }
    Ok(revision)
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
        let ids = Ids::from([(key("zone", "pumps"), 1), (key("rule", "a"), 7)]);
        let fewer = Ids::from([(key("zone", "pumps"), 2)]);
        let mut store = scratch.open();
        assert_eq!(store.latest().expect("read"), None);
        assert_eq!(
            append(&mut store, "first", &ids, &[("quarantine", Some("pump-1"))]),
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
        assert_eq!(
            store.meta("quarantine").expect("read").as_deref(),
            Some("pump-1")
        );
        store.set_meta("quarantine", None).expect("write");
        assert_eq!(store.meta("quarantine").expect("read"), None);
        assert_eq!(append(&mut store, "third", &fewer, &[]), 3);
    }

    #[test]
    fn only_its_owner_may_read_it() {
        let scratch = Scratch::new();
        let mut store = scratch.open();
        append(&mut store, "first", &Ids::new(), &[]);
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
        scratch.open().set_meta("schema", Some("2")).expect("write");
        let error = Store::open(&scratch.0).expect_err("must be refused");
        assert!(
            matches!(error, StoreError::Newer { found: 2, .. }),
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
            append(&mut store, &format!("{n}"), &Ids::new(), &[]);
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
        append(&mut store, "first", &Ids::new(), &[]);
        store
            .connection
            .execute_batch("DROP TABLE ids")
            .expect("dropped");
        let ids = Ids::from([(key("zone", "pumps"), 1)]);
        let policy = policy("second");
        let new = new("second", &policy, &[]);
        assert!(store.append(&new, &ids).is_err());
        assert_eq!(store.list(10).expect("read").len(), 1);
        assert_eq!(store.ids(), &Ids::new());
    }

    const TIME: Timestamp = Timestamp::constant(1_790_000_000, 5);

    fn append(store: &mut Store, name: &str, ids: &Ids, meta: &[(&str, Option<&str>)]) -> u64 {
        let parent = store
            .latest()
            .expect("read")
            .map_or(0, |latest| latest.revision.revision);
        let policy = policy(name);
        let new = NewRevision {
            parent,
            ..new(name, &policy, meta)
        };
        store.append(&new, ids).expect("kept")
    }

    fn new<'a>(
        reason: &'a str,
        policy: &'a v1::Policy,
        meta: &'a [(&'a str, Option<&'a str>)],
    ) -> NewRevision<'a> {
        NewRevision {
            parent: 0,
            time: TIME,
            actor: "uid 0",
            reason,
            kind: "apply",
            request_id: "r-1",
            policy,
            meta,
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
