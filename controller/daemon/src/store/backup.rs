//! Puts a backup together (`wardline_proto::backup`), beside changes: what is in force comes from
//! memory, and the history is read one revision at a time.

use rusqlite::Connection;
use wardline_proto::backup::{Part, Summary, Writer};

use super::{enforced::Enforced, error::StoreError, history::History, rows};

/// Makes a backup, piece by piece, and stops when `listens` returns false. What is in force must be
/// one state; revisions after it are left out. Blocks.
///
/// # Errors
/// When the history can't be read, or its oldest revisions were let go meanwhile.
pub fn make(
    history: &History,
    summary: Summary,
    in_force: &Enforced,
    mut listens: impl FnMut(Vec<u8>) -> bool,
) -> Result<(), StoreError> {
    let oldest = |connection: &mut Connection| {
        let query = "SELECT min(revision) FROM revisions";
        connection.query_row(query, [], |row| row.get::<_, Option<i64>>(0))
    };
    let first = history.with(oldest)?;
    let last = in_force.revision;
    let (mut writer, begin) = Writer::begin();
    let begin = [
        begin,
        writer.part(Part::Summary(summary)),
        writer.part(Part::InForce(in_force.to_bytes())),
    ];
    if !listens(begin.concat()) {
        return Ok(());
    }
    let mut after = 0;
    while let Some(row) = history.with(|connection| rows::next(connection, after, last))? {
        after = row.revision;
        if !listens(writer.part(Part::Row(row))) {
            return Ok(());
        }
    }
    // Edits need the documents that they change, and the first of those may be gone.
    if history.with(oldest)? != first {
        return Err(StoreError::Changed(history.path().to_owned()));
    }
    listens(writer.end());
    Ok(())
}
