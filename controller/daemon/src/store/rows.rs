//! Revisions as the database stores them, to be carried whole into a backup or another database.

use rusqlite::{Connection, OptionalExtension as _, params};
use wardline_proto::backup::Row;

/// The first revision after one, up to another.
pub(super) fn next(
    connection: &Connection,
    after: u64,
    last: u64,
) -> rusqlite::Result<Option<Row>> {
    let query = "SELECT revision, parent, time, actor, reason, kind, request_id, document, base,
                        added, changed, removed
                 FROM revisions WHERE revision > ?1 AND revision <= ?2
                 ORDER BY revision LIMIT 1";
    let mut statement = connection.prepare_cached(query)?;
    let row = statement.query_row([signed(after), signed(last)], |row| {
        Ok(Row {
            revision: unsigned(row, 0)?,
            parent: unsigned(row, 1)?,
            time: row.get(2)?,
            actor: row.get(3)?,
            reason: row.get(4)?,
            kind: row.get(5)?,
            request_id: row.get(6)?,
            document: row.get(7)?,
            base: unsigned(row, 8)?,
            added: row.get(9)?,
            changed: row.get(10)?,
            removed: row.get(11)?,
        })
    });
    row.optional()
}

/// Adds a revision as it is.
pub(super) fn insert(connection: &Connection, row: &Row) -> rusqlite::Result<()> {
    let query = "INSERT INTO revisions (revision, parent, time, actor, reason, kind, request_id,
                                        document, base, added, changed, removed)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";
    connection.prepare_cached(query)?.execute(params![
        signed(row.revision),
        signed(row.parent),
        row.time,
        row.actor,
        row.reason,
        row.kind,
        row.request_id,
        row.document,
        signed(row.base),
        row.added,
        row.changed,
        row.removed,
    ])?;
    Ok(())
}

/// A number as SQLite keeps it.
pub(super) fn signed(revision: u64) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}

fn unsigned(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let value: i64 = row.get(column)?;
    u64::try_from(value).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, value))
}
