//! Reads the history, on any thread.
//!
//! The history has a single connection, because the file stays locked by it. A reader holds the
//! connection for one statement at a time and decodes documents afterwards, so a change waits for
//! one statement at most. What a stored revision says never changes; but between two statements
//! retention may drop it, or store its document in another place, which readers notice.

use std::{
    fmt, fs,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use prost::Message as _;
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use wardline_policy::document::{
    Document as Policy,
    diff::Extent,
    edit::{self, Edit},
};

use super::{
    error::{StoreError, database_error},
    revision::{Revision, StoredRevision},
};

/// The history of a router, for reading.
#[derive(Clone, Debug)]
pub struct History {
    /// None while the database can't be opened.
    connection: Arc<Mutex<Option<Connection>>>,
    path: Arc<Path>,
}

const COLUMNS: &str =
    "revision, parent, time, actor, reason, kind, request_id, added, changed, removed";

/// The key of the oldest revision that is kept for being new enough.
pub(super) const KEPT_FROM: &str = "kept_from";

/// The key of the older revisions that are kept because something returns to them; a list in JSON.
pub(super) const SPARED: &str = "spared";

/// How often a document is read that gets another place meanwhile.
const TRIES: u32 = 10;

/// A revision of a chain of edits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) revision: u64,
    /// The revision whose document it edits; 0: it has a whole document.
    pub(super) base: u64,
}

/// Most revisions that one statement reads.
const AT_ONCE: u32 = 256;

impl History {
    /// The directory that it is in.
    pub fn directory(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/"))
    }

    /// The history in a directory, before its database is opened.
    pub fn away(directory: &Path) -> Self {
        Self {
            connection: Arc::default(),
            path: directory.join("wardline.db").into(),
        }
    }

    /// Whether there is a database, and something in it.
    pub fn has_file(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|file| file.len() != 0)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The error of whoever needs the database before it is open.
    pub fn is_away(&self) -> StoreError {
        StoreError::Away(self.path.to_path_buf())
    }

    /// Closes the database, so that it can be opened again.
    pub(crate) fn close(&self) {
        *self.lock() = None;
    }

    /// Readers find the history from now on.
    pub(super) fn open(&self, connection: Connection) {
        *self.lock() = Some(connection);
    }

    /// The number that the next revision will have.
    ///
    /// # Errors
    /// When the history can't be read.
    pub fn next(&self) -> Result<u64, StoreError> {
        let newest = self.list(1)?.pop().map_or(0, |it| it.revision);
        Ok(newest + 1)
    }

    /// One revision without its document.
    ///
    /// # Errors
    /// When the history can't be read.
    pub fn change(&self, revision: u64) -> Result<Option<Revision>, StoreError> {
        self.row(revision)
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

    /// One revision; none: there never was one with this number.
    ///
    /// # Errors
    /// When it is no longer kept, or the history can't be read.
    pub fn get(&self, revision: u64) -> Result<Option<StoredRevision>, StoreError> {
        match self.row(revision)? {
            Some(row) => self.with_document(row).map(Some),
            None => self.dropped(revision)?.map_or(Ok(None), Err),
        }
    }

    /// The error of who asks for a revision that is no longer kept; none: it never was there.
    fn dropped(&self, revision: u64) -> Result<Option<StoreError>, StoreError> {
        let first = self.meta(KEPT_FROM)?.and_then(|first| first.parse().ok());
        Ok(match first {
            Some(first) if (1..first).contains(&revision) => Some(StoreError::Dropped {
                revision,
                first,
                last: self.next()? - 1,
            }),
            _ => None,
        })
    }

    /// The parent of a revision; 0: none.
    ///
    /// # Errors
    /// When the history can't be read.
    pub fn parent(&self, revision: u64) -> Result<u64, StoreError> {
        Ok(self.row(revision)?.map_or(0, |row| row.parent))
    }

    /// The newest revision before this one with another document. Changes that left the document alone, such as a quarantine, are skipped; those that
    /// are no longer kept did so, because this revision is kept whatever its age. 0: there is none.
    ///
    /// # Errors
    /// When the history can't be read.
    pub fn previous_document(&self, revision: u64) -> Result<u64, StoreError> {
        // At once, because retention may give a document another place; and without those that it is
        // about to drop, because they keep the old one.
        let previous = "WITH places AS (
                SELECT revision, iif(base != 0 AND length(document) = 0, base, revision) AS place
                FROM revisions)
            SELECT revision FROM places
            WHERE revision < ?1 AND place != (SELECT place FROM places WHERE revision = ?1)
              AND (revision >= coalesce(
                      (SELECT CAST(value AS INTEGER) FROM meta WHERE key = ?2), 0)
                   OR revision IN (
                      SELECT value FROM json_each((SELECT value FROM meta WHERE key = ?3))))
            ORDER BY revision DESC LIMIT 1";
        let revision = i64::try_from(revision).unwrap_or(-1);
        let previous: Option<i64> = self.query(|connection| {
            let mut statement = connection.prepare_cached(previous)?;
            statement
                .query_row(params![revision, KEPT_FROM, SPARED], |row| row.get(0))
                .optional()
        })?;
        Ok(previous.and_then(number).unwrap_or_default())
    }

    /// The newest revisions, newest first, at most `limit`.
    ///
    /// # Errors
    /// When the history can't be read.
    pub fn list(&self, limit: u32) -> Result<Vec<Revision>, StoreError> {
        let query = format!(
            "SELECT {COLUMNS} FROM revisions WHERE revision < ?1 ORDER BY revision DESC LIMIT ?2"
        );
        let mut before = i64::MAX;
        let mut revisions = Vec::new();
        loop {
            let left = limit.saturating_sub(u32::try_from(revisions.len()).unwrap_or(u32::MAX));
            let piece = left.min(AT_ONCE);
            let rows = self.query(|connection| {
                let mut statement = connection.prepare_cached(&query)?;
                let rows = statement.query_map([before, piece.into()], read_row)?;
                rows.collect::<rusqlite::Result<Vec<_>>>()
            })?;
            let last = rows.len() < piece as usize || piece == left;
            before = rows.last().map_or(0, |row| row.revision);
            for row in rows {
                revisions.push(self.revision(row)?);
            }
            if last {
                return Ok(revisions);
            }
        }
    }

    /// The revisions after this one, among the thousand newest, oldest first.
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

    /// The value of a key outside the history.
    ///
    /// # Errors
    /// When the history can't be read.
    pub fn meta(&self, key: &str) -> Result<Option<String>, StoreError> {
        self.query(|connection| {
            connection
                .prepare_cached("SELECT value FROM meta WHERE key = ?1")?
                .query_row([key], |row| row.get(0))
                .optional()
        })
    }

    /// Whom a revision put into quarantine or released, as `device/pump-1`; none: it is about something
    /// else.
    ///
    /// # Errors
    /// When the history can't be read.
    pub fn subject(&self, revision: u64) -> Result<Option<String>, StoreError> {
        let revision = i64::try_from(revision).unwrap_or(-1);
        self.query(|connection| {
            connection
                .prepare_cached("SELECT subject FROM subjects WHERE revision = ?1")?
                .query_row([revision], |row| row.get(0))
                .optional()
        })
    }

    fn row(&self, revision: u64) -> Result<Option<Revision>, StoreError> {
        let row = self.query_revision(revision, COLUMNS, read_row)?;
        row.map(|row| self.revision(row)).transpose()
    }

    /// The revision that stores a revision's document, whole or as an edit.
    pub(super) fn origin(&self, revision: u64) -> Result<u64, StoreError> {
        match self.base(revision)? {
            (0, _) | (_, false) => Ok(revision),
            (base, true) => Ok(base),
        }
    }

    /// The revisions from which a document is built, each with the one that it edits; the whole one is
    /// last. Read at once, because retention may give a document another place; and only what is part of
    /// it, because another page may be damaged.
    pub(super) fn chain(&self, revision: u64) -> Result<Vec<Link>, StoreError> {
        let links = "WITH RECURSIVE chain (revision, base) AS (
                         SELECT revision, base FROM revisions WHERE revision = ?1
                         UNION ALL
                         SELECT next.revision, next.base
                         FROM chain CROSS JOIN revisions AS next ON next.revision = chain.base
                         WHERE chain.base BETWEEN 1 AND chain.revision - 1)
                     SELECT revision, base FROM chain";
        let start = i64::try_from(revision).unwrap_or(-1);
        let rows = self.query(|connection| {
            let mut statement = connection.prepare_cached(links)?;
            let rows = statement.query_map([start], |row| Ok((row.get(0)?, row.get(1)?)))?;
            rows.collect::<rusqlite::Result<Vec<(i64, i64)>>>()
        })?;
        let mut chain = Vec::with_capacity(rows.len());
        for (revision, base) in rows {
            let (Some(revision), Some(base)) = (number(revision), number(base)) else {
                return Err(self.damaged("a revision's number or base is negative"));
            };
            chain.push(Link { revision, base });
        }
        match chain.last() {
            // An edit of a later revision would make an endless chain.
            Some(Link { revision, base }) if base >= revision => {
                Err(self.damaged(&format!("revision {revision} edits revision {base}")))
            }
            Some(Link { base: 1.., .. }) => {
                Err(self.damaged(&format!("what revision {revision} edits is missing")))
            }
            _ => Ok(chain),
        }
    }

    /// The revision whose document a revision edits, and whether it leaves the document unchanged.
    pub(super) fn base(&self, revision: u64) -> Result<(u64, bool), StoreError> {
        let row = self.query_revision(revision, "base, length(document) = 0", |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
        let Some((base, same)) = row else {
            return Err(self.lost(revision)?);
        };
        let base = number(base).ok_or_else(|| self.damaged("a revision's base is negative"))?;
        Ok((base, same))
    }

    /// Reads the document column of a revision with `decode`; none: it has another base by now.
    fn decode_document<T, E: fmt::Display>(
        &self,
        Link { revision, base }: Link,
        decode: impl FnOnce(&[u8]) -> Result<T, E>,
    ) -> Result<Option<T>, StoreError> {
        let read = self.query_revision(revision, "base, document", |row| {
            Ok((row.get(0)?, row.get::<_, Vec<u8>>(1)?))
        })?;
        let document = read.filter(|(found, _)| number(*found) == Some(base));
        let Some((_, document)) = document else {
            return Ok(None);
        };
        decode(&document)
            .map(Some)
            .map_err(|error| self.damaged(&format!("the document of revision {revision}: {error}")))
    }

    /// Reads columns of a revision's row, if there is one.
    fn query_revision<T>(
        &self,
        revision: u64,
        columns: &str,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, StoreError> {
        let query = format!("SELECT {columns} FROM revisions WHERE revision = ?1");
        let revision = i64::try_from(revision).unwrap_or(-1);
        self.query(|connection| {
            let mut statement = connection.prepare_cached(&query)?;
            statement.query_row([revision], read).optional()
        })
    }

    /// Runs a statement, while no other is running.
    fn query<T>(
        &self,
        run: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        self.with(|connection| run(connection))
    }

    /// Uses the connection, while nobody else does.
    pub(super) fn with<T>(
        &self,
        run: impl FnOnce(&mut Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        match self.lock().as_mut() {
            Some(connection) => run(connection).map_err(|source| self.failed(source)),
            None => Err(self.is_away()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Connection>> {
        // A statement that panicked has changed nothing, because transactions are rolled back when
        // dropped.
        self.connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn with_document(&self, revision: Revision) -> Result<StoredRevision, StoreError> {
        // Retention stores a document anew at most once each time.
        for _ in 0..TRIES {
            if let Some(policy) = self.document(revision.revision)? {
                return Ok(StoredRevision { revision, policy });
            }
        }
        Err(self.damaged(&format!(
            "the document of revision {} changes all the time",
            revision.revision
        )))
    }

    /// The document of a revision; none: it was given another place while it was read.
    fn document(&self, revision: u64) -> Result<Option<Policy>, StoreError> {
        let mut chain = self.chain(revision)?;
        let Some(whole) = chain.pop() else {
            return Err(self.lost(revision)?);
        };
        let decoded = self.decode_document(whole, |bytes| Policy::decode(bytes))?;
        let Some(mut policy) = decoded else {
            return Ok(None);
        };
        while let Some(link) = chain.pop() {
            let Some(edit) = self.decode_document(link, Edit::decode)? else {
                return Ok(None);
            };
            edit::change(&mut policy, &edit).map_err(|_| {
                let at = link.revision;
                self.damaged(&format!("revision {at} edits what is not there"))
            })?;
        }
        Ok(Some(policy))
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

    /// An error that says how this file is damaged.
    pub(crate) fn damaged(&self, why: &str) -> StoreError {
        StoreError::Damaged {
            path: self.path.to_path_buf(),
            why: why.to_owned(),
        }
    }

    /// The error of who needs a revision that is not there.
    fn lost(&self, revision: u64) -> Result<StoreError, StoreError> {
        let damaged = || self.damaged(&format!("revision {revision} is missing"));
        Ok(self.dropped(revision)?.unwrap_or_else(damaged))
    }

    pub(super) fn failed(&self, source: rusqlite::Error) -> StoreError {
        database_error(&self.path, source)
    }
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

pub(super) fn number(value: i64) -> Option<u64> {
    u64::try_from(value).ok()
}
