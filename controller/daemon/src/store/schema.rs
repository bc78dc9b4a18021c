//! The schema of the database: creates it, checks it, and upgrades earlier ones.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
    time::Duration,
};

use rusqlite::{Connection, OptionalExtension as _};

use super::{
    error::{StoreError, database_error},
    folder,
};

/// The layout of the tables; written into the file.
pub(super) const SCHEMA: u32 = 4;

pub(super) const TABLES: &str = "
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
pub(super) const EDITS: &str = "
    ALTER TABLE revisions ADD COLUMN base    INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE revisions ADD COLUMN added   INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE revisions ADD COLUMN changed INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE revisions ADD COLUMN removed INTEGER NOT NULL DEFAULT 0;
    CREATE TABLE quarantined (device TEXT PRIMARY KEY, revision INTEGER NOT NULL)
        STRICT, WITHOUT ROWID;
    CREATE TABLE grants (rule TEXT NOT NULL, expires TEXT NOT NULL, PRIMARY KEY (rule, expires))
        STRICT, WITHOUT ROWID;
";

/// From schema 2 to 3.
pub(super) const PORTS: &str = "
    CREATE TABLE quarantined_ports (port TEXT PRIMARY KEY, revision INTEGER NOT NULL)
        STRICT, WITHOUT ROWID;
";

/// From schema 3 to 4: who is in quarantine, by identity. Names are all that earlier versions knew.
const HELD: &str = "
    CREATE TABLE held (
        identity TEXT PRIMARY KEY,
        name     TEXT NOT NULL,
        actor    TEXT NOT NULL,
        reason   TEXT NOT NULL,
        since    TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
    INSERT INTO held
        SELECT 'device:' || device, device, coalesce(actor, ''), coalesce(reason, ''),
               coalesce(time, '1970-01-01T00:00:00Z')
        FROM quarantined LEFT JOIN revisions USING (revision);
    INSERT INTO held
        SELECT 'port:' || port, port, coalesce(actor, ''), coalesce(reason, ''),
               coalesce(time, '1970-01-01T00:00:00Z')
        FROM quarantined_ports LEFT JOIN revisions USING (revision);
    DROP TABLE quarantined;
    DROP TABLE quarantined_ports;
    CREATE TABLE subjects (revision INTEGER PRIMARY KEY, subject TEXT NOT NULL) STRICT;
";

/// Long enough for an earlier daemon to release the file.
const PATIENCE: Duration = Duration::from_secs(2);

/// Makes directory and file accessible to their owner only, before SQLite writes anything.
pub(crate) fn create(path: &Path) -> Result<(), StoreError> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| StoreError::File { path, source }
    };
    folder::check(directory)?;
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
    // The entry in the directory must survive a power cut, too.
    File::open(directory)
        .and_then(|open| open.sync_all())
        .map_err(failed(directory))
}

pub(super) fn prepare(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
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
            transaction.execute_batch(PORTS).map_err(failed)?;
            transaction.execute_batch(HELD).map_err(failed)?;
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
                Some(Ok(found @ 1..SCHEMA)) => {
                    if found == 1 {
                        transaction.execute_batch(EDITS).map_err(failed)?;
                    }
                    if found <= 2 {
                        transaction.execute_batch(PORTS).map_err(failed)?;
                    }
                    transaction.execute_batch(HELD).map_err(failed)?;
                    let schema = Some(SCHEMA.to_string());
                    write_meta(&transaction, "schema", schema.as_deref()).map_err(failed)?;
                }
                Some(Ok(found)) if found > SCHEMA => {
                    return Err(StoreError::Newer {
                        path: path.to_owned(),
                        found,
                        known: SCHEMA,
                    });
                }
                Some(Ok(_) | Err(_)) | None => {
                    return Err(damaged("unknown schema version".to_owned()));
                }
            }
        }
    }
    transaction.commit().map_err(failed)
}

pub(super) fn write_meta(
    connection: &Connection,
    key: &str,
    value: Option<&str>,
) -> rusqlite::Result<()> {
    match value {
        Some(value) => {
            connection.execute("INSERT OR REPLACE INTO meta VALUES (?1, ?2)", [key, value])
        }
        None => connection.execute("DELETE FROM meta WHERE key = ?1", [key]),
    }?;
    Ok(())
}
