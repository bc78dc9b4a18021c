//! Why the history can't be read or written.

use std::{
    io,
    path::{Path, PathBuf},
};

use rusqlite::ErrorCode;

/// Why the history can't be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory or the file could not be made or reached.
    #[error("{}: {source}", path.display())]
    File {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process has opened the file.
    #[error("{}: in use by another wardlined", .0.display())]
    InUse(PathBuf),
    /// The file is damaged, or is not a history.
    #[error("{}: damaged or not a history: {why}; stop wardlined and run wardlined --recover", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The file is empty or gone, and something tells that there was a history.
    #[error("{}: empty or gone, and {evidence}; stop wardlined and run wardlined --recover, or --restore a backup", path.display())]
    Lost {
        /// The file.
        path: PathBuf,
        /// What tells of a history.
        evidence: String,
    },
    /// The file has not been opened.
    #[error("{}: not open; `wardctl status` says why", .0.display())]
    Away(PathBuf),
    /// The oldest revisions were let go while they were read.
    #[error("{}: its oldest revisions were let go meanwhile; try again", .0.display())]
    Changed(PathBuf),
    /// The revision was dropped, because it is old.
    #[error("revision {revision} is no longer kept (kept: {first} to {last})")]
    Dropped {
        /// The revision.
        revision: u64,
        /// The oldest that is kept.
        first: u64,
        /// The newest.
        last: u64,
    },
    /// A newer daemon wrote it.
    #[error("{}: has schema {found}, this wardlined knows up to {known}; run the newer one", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: u32,
        /// The newest schema that this daemon knows.
        known: u32,
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

pub(super) fn database_error(path: &Path, source: rusqlite::Error) -> StoreError {
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
