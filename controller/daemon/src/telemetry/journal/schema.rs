//! The file of the journal: makes it, opens it, and puts aside one that can't be used.

use std::{fs, io, path::Path, time::Duration};

use jiff::Timestamp;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use tracing::warn;

use crate::store::{error::StoreError, schema::create};

/// The layout of the tables; written into the file.
const SCHEMA: i64 = 1;
/// What tells a journal from other databases.
const APPLICATION: i64 = 0x57_4c_4a_6e;

/// `id` is the microsecond of the event, or the next one that is free: so it is the order of time, and no
/// index is needed for it. Names are in `words`, because the same few come again and again; what hostile
/// senders choose is in the event itself and goes with it.
const TABLES: &str = "
    CREATE TABLE words (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE) STRICT;
    CREATE TABLE events (
        id           INTEGER PRIMARY KEY,
        time         INTEGER NOT NULL,
        verdict      INTEGER NOT NULL,
        reason       INTEGER,
        rule         INTEGER,
        device       INTEGER,
        zone         INTEGER,
        peer         INTEGER,
        peer_zone    INTEGER,
        interface    INTEGER,
        vlan         INTEGER NOT NULL,
        towards      INTEGER NOT NULL,
        observed     INTEGER NOT NULL,
        source       TEXT NOT NULL,
        destination  TEXT NOT NULL,
        service      TEXT NOT NULL,
        asked        INTEGER,
        service_name INTEGER,
        count        INTEGER NOT NULL,
        destinations INTEGER NOT NULL,
        revision     INTEGER NOT NULL,
        source_mac   TEXT NOT NULL,
        source_port  INTEGER NOT NULL,
        message      TEXT NOT NULL
    ) STRICT;
    CREATE INDEX by_maker ON events (interface, device);
    CREATE INDEX by_device ON events (device) WHERE device IS NOT NULL;
    CREATE INDEX by_peer ON events (peer) WHERE peer IS NOT NULL;
";

/// How long a writer waits for a reader.
const PATIENCE: Duration = Duration::from_secs(2);

/// The journal can't be written.
#[derive(Debug, thiserror::Error)]
pub(super) enum JournalError {
    /// The file can't be made.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// SQLite refuses.
    #[error("journal.db: {0}")]
    Database(#[from] rusqlite::Error),
    /// What is there can't be moved away.
    #[error("journal.db can't be used and can't be put aside: {0}")]
    Aside(#[source] io::Error),
}

/// Whether an error means that the file is damaged, not that the disk is full or slow.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
    )
}

/// Opens the journal for writing; what can't be used is put aside first.
pub(super) fn open(path: &Path) -> Result<Connection, JournalError> {
    match try_to_open(path)? {
        Ok(connection) => Ok(connection),
        Err((why, word)) => {
            put_aside(path, word, &why).map_err(JournalError::Aside)?;
            try_to_open(path)?.map_err(|(why, _)| {
                JournalError::Aside(io::Error::other(format!("a new one is no better: {why}")))
            })
        }
    }
}

/// Opens the journal, or says why what is there can't be used, and what it is called then.
fn try_to_open(path: &Path) -> Result<Result<Connection, (String, &'static str)>, JournalError> {
    create(path)?;
    let connection = Connection::open(path)?;
    match prepare(&connection) {
        Ok(Ok(())) => Ok(Ok(connection)),
        Ok(Err(unusable)) => Ok(Err(unusable)),
        Err(error) if is_damage(&error) => Ok(Err((error.to_string(), "damaged"))),
        Err(error) => Err(error.into()),
    }
}

type Unusable = (String, &'static str);

fn prepare(connection: &Connection) -> rusqlite::Result<Result<(), Unusable>> {
    connection.busy_timeout(PATIENCE)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // A transaction that has ended is on the disk.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "journal_size_limit", 8 << 20)?;
    let number = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    match (tables, number("application_id")?, number("user_version")?) {
        (0, ..) => {
            connection.execute_batch(&format!(
                "BEGIN; {TABLES}
                 PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {SCHEMA}; COMMIT"
            ))?;
            Ok(Ok(()))
        }
        (_, APPLICATION, SCHEMA) => Ok(Ok(())),
        (_, APPLICATION, found @ SCHEMA..) => {
            let why = format!("it has layout {found}, and this daemon knows layout {SCHEMA}");
            Ok(Err((why, "newer")))
        }
        (_, APPLICATION, found) => Ok(Err((format!("there is no layout {found}"), "damaged"))),
        _ => Ok(Err((
            "its tables are of another program".to_owned(),
            "damaged",
        ))),
    }
}

/// Moves the file away, with what belongs to it. Only the newest of each kind stays.
pub(super) fn put_aside(path: &Path, word: &str, why: &str) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let beginning = format!("journal.db.{word}-");
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(&beginning) {
            fs::remove_file(entry.path())?;
        }
    }
    let aside = format!("{beginning}{}", Timestamp::now().as_second());
    // The file last: while it is there, this is done again.
    for (of, to) in [("-shm", None), ("-wal", Some("-wal")), ("", Some(""))] {
        let from = directory.join(format!("journal.db{of}"));
        let moved = match to {
            Some(to) => fs::rename(&from, directory.join(format!("{aside}{to}"))),
            None => fs::remove_file(&from),
        };
        match moved {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    warn!(
        aside,
        why, "the journal can't be used and was put aside; a new one begins"
    );
    Ok(())
}

/// Opens the journal for reading.
pub(super) fn open_to_read(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(PATIENCE)?;
    Ok(connection)
}
