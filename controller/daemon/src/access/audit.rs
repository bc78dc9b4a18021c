//! The audit of changes and refused calls: an append-only file in which each record is chained to
//! the one before (`wardline_proto::audit`), and on disk before the caller has its answer.
//!
//! `audit.jsonl` has the newest records, older segments have the others, and `audit.head` has the last
//! one's number and hash. The chain continues from the stored head, not from the last record in the
//! file, so records that were cut off leave a gap for ever.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use wardline_proto::audit::{Head, Record};

mod log;
mod segments;

use self::log::Log;
use super::throttle::Rate;
use crate::{config::Segments, store::revision::Revision};

/// An item of the audit as it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A record, as it stands in the file.
    Record(String),
    /// The hash of the last record; this is the last item.
    Head(String),
}

/// The audit of a router. A handle: clones are the same audit.
#[derive(Clone, Debug)]
pub struct Audit(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    log: Mutex<Log>,
    /// Limits how fast one actor's refused calls get records of their own, because a client that is
    /// refused all the time must not fill the disk.
    refusals: Rate,
}

/// Why the audit can't be opened.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
pub struct AuditError {
    path: PathBuf,
    source: io::Error,
}

/// The message for a revision that no call's record names.
const FOUND: &str = "found in the history: made by the router itself, or it ended before the \
                     record was written";
/// Most records that wait until the disk accepts them; beyond that refused calls are only counted.
const MOST_WAITING: usize = 1000;

impl Audit {
    /// The audit in a directory, before it is opened: records wait.
    pub fn closed(directory: &Path, keep: Segments) -> Self {
        Self(Arc::new(Shared {
            log: Mutex::new(Log::closed(directory.to_owned(), keep)),
            refusals: Rate::new(100, 1),
        }))
    }

    /// Opens the audit, if it is not open, and checks it. Problems of the chain are logged, and the
    /// audit goes on. Blocks.
    ///
    /// # Errors
    /// When it can't be read or written.
    pub fn open(&self) -> Result<(), AuditError> {
        let mut log = self.lock();
        if log.is_open() {
            return Ok(());
        }
        let path = log.path();
        log.open().map_err(|source| AuditError { path, source })?;
        log.write();
        Ok(())
    }

    /// The newest revision that an audit in a directory tells of, without opening it; none: it tells
    /// of none, or there is no audit.
    pub fn tells_of(directory: &Path) -> Option<u64> {
        let newest = segments::newest_revision(directory).ok();
        newest.filter(|revision| *revision != 0)
    }

    /// Whether it is open.
    pub fn is_open(&self) -> bool {
        self.lock().is_open()
    }

    /// Whether a record may wait in memory for the disk.
    pub fn has_room(&self) -> bool {
        self.lock().waiting.len() < MOST_WAITING
    }

    /// The newest revision that a record names; 0: none.
    pub fn revision(&self) -> u64 {
        self.lock().revision
    }

    /// The newest record's number and hash; none: the audit is not open.
    pub fn head(&self) -> Option<Head> {
        let log = self.lock();
        log.is_open().then(|| log.head.clone())
    }

    /// Adds records for revisions that have none because of a crash. Blocks.
    pub fn catch_up(&self, revisions: Vec<Revision>) {
        let mut log = self.lock();
        for revision in revisions {
            log.put(Record {
                actor: revision.actor,
                call: revision.kind,
                reason: revision.reason,
                request_id: revision.request_id,
                outcome: OK.to_owned(),
                message: FOUND.to_owned(),
                before: Some(revision.parent),
                after: Some(revision.revision),
                ..Record::default()
            });
        }
        log.write();
    }

    /// Whether all records so far are on disk; those that could not be written are tried again.
    ///
    /// # Errors
    /// Why they are not. Then nothing may change.
    pub fn ready(&self) -> io::Result<()> {
        self.lock().write_waiting()
    }

    /// Adds a record; it is on disk when this returns, if the disk accepts it. Blocks.
    pub fn keep(&self, mut record: Record) {
        let refused = record.outcome != OK;
        let mut log = self.lock();
        let actor = &record.actor;
        if refused && (log.waiting.len() >= MOST_WAITING || self.0.refusals.take(actor, 1).is_err())
        {
            let more = log.more.get(actor).map_or(0, |record| record.more) + 1;
            log.more.insert(actor.clone(), Record { more, ..record });
            return;
        }
        // Earlier refused calls of this actor that had no records.
        record.more = log.more.remove(actor).map_or(0, |record| record.more);
        log.put(record);
        log.write();
    }

    /// Writes records for refused calls that were only counted. Blocks.
    pub fn record_refusals(&self) {
        let mut log = self.lock();
        // The last call of each actor represents those before it.
        let more: Vec<Record> = log.more.drain().map(|(_, record)| record).collect();
        for record in more {
            log.put(Record {
                more: record.more - 1,
                ..record
            });
        }
        log.write();
    }

    /// Reads the newest records, at most `limit` (0: all), oldest first, and then the head; stops
    /// when `listens` returns false. Blocks.
    ///
    /// # Errors
    /// When a file can't be read.
    pub fn tell(&self, limit: u32, mut listens: impl FnMut(Entry) -> bool) -> io::Result<()> {
        // Records written from now on are left out, because the head must match the last record
        // read.
        let (older, newest, length, head) = {
            let log = self.lock();
            let older = segments::list(log.directory())?;
            let newest = segments::open(&log.path())?;
            let length = newest.as_ref().map(File::metadata).transpose()?;
            let length = length.map_or(0, |there| there.len());
            (older, newest, length, log.head.clone())
        };
        let files = older.len() + usize::from(newest.is_some());
        let lines = |number: usize| {
            let file = match (older.get(number), &newest) {
                (Some(segment), _) => Some(File::open(&segment.path)?.take(u64::MAX)),
                (None, Some(newest)) => {
                    let mut file = newest.try_clone()?;
                    file.rewind()?;
                    Some(file.take(length))
                }
                (None, None) => None,
            };
            Ok::<_, io::Error>(file.into_iter().flat_map(segments::lines))
        };
        let (mut from, mut skipped, mut wanted) = (0, 0, limit as usize);
        if limit != 0 {
            from = files;
        }
        while from > 0 && wanted > 0 {
            from -= 1;
            let count = lines(from)?.count();
            skipped = count.saturating_sub(wanted);
            wanted = wanted.saturating_sub(count);
        }
        for number in from..files {
            for line in lines(number)?.skip(std::mem::take(&mut skipped)) {
                if !listens(Entry::Record(line?)) {
                    return Ok(());
                }
            }
        }
        listens(Entry::Head(head.to_string()));
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        self.0.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The outcome of a call that succeeded.
pub const OK: &str = "ok";

#[cfg(test)]
mod tests;
