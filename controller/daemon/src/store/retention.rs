//! Drops old revisions from the history, beside changes and without their waiting for it.
//!
//! What goes is everything before one revision, but for those that something returns to. A kept
//! revision whose document is an edit of one that goes is stored whole first. Every step is a
//! statement or a small transaction of its own, and after each of them all that is there can be
//! read: so it may stop anywhere, and the next time goes on.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use prost::Message as _;
use rusqlite::params;

use super::{
    PENDING,
    error::StoreError,
    history::{History, KEPT_FROM, SPARED, number},
    schema::write_meta,
};
use crate::config::Kept;

/// What went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// How many revisions.
    pub count: u64,
    /// The oldest that is kept.
    pub first: u64,
}

/// Most revisions that one statement reads.
const AT_ONCE: i64 = 1000;
/// Most revisions that one transaction deletes; each may have a document of many megabytes.
const MOST_DELETED: i64 = 16;
/// What a revision takes beside its document and texts.
const ROW: u64 = 100;
/// The part of what is kept that may be there in excess, so that a chain of edits is not made anew
/// with each change.
const SLACK: u64 = 10;

/// Drops what need not be kept; none: nothing is due. Blocks.
///
/// # Errors
/// When the database can't be read or written, or is damaged.
pub fn drop_old(
    history: &History,
    keep: &Kept,
    now: Timestamp,
) -> Result<Option<Dropped>, StoreError> {
    let Some(newest) = history.list(1)?.pop().map(|it| it.revision) else {
        return Ok(None);
    };
    let spared = spared(history, newest)?;
    let Some(first) = look(history, keep, now, newest, &spared)? else {
        return Ok(None);
    };
    mark(history, first, &spared)?;
    rebase(history, first, newest, &spared)?;
    let count = delete(history, first, newest, &spared)?;
    Ok(Some(Dropped { count, first }))
}

/// Finds the oldest revision that is new enough; none: not enough is older than it.
fn look(
    history: &History,
    keep: &Kept,
    now: Timestamp,
    newest: u64,
    spared: &BTreeSet<u64>,
) -> Result<Option<u64>, StoreError> {
    let days = SignedDuration::from_hours(24 * i64::from(keep.days));
    let since = now.saturating_sub(days).unwrap_or(Timestamp::MIN);
    let (mut first, mut kept, mut size, mut excess, mut excess_size) = (0, 0, 0, 0, 0);
    let mut before = signed(newest).saturating_add(1);
    loop {
        let rows = history.with(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT revision, time, length(document) + length(reason) FROM revisions
                 WHERE revision < ?1 ORDER BY revision DESC LIMIT ?2",
            )?;
            let rows = statement.query_map([before, AT_ONCE], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })?;
            rows.collect::<rusqlite::Result<Vec<(i64, String, i64)>>>()
        })?;
        for (revision, time, length) in &rows {
            let takes = number(*length).unwrap_or_default() + ROW;
            let is_young = || time.parse().is_ok_and(|time: Timestamp| time >= since);
            let stays = kept == 0
                || (excess == 0
                    && (kept < u64::from(keep.revisions) || is_young())
                    && size + takes <= keep.bytes);
            let revision = number(*revision).unwrap_or_default();
            if stays {
                first = revision;
                kept += 1;
                size += takes;
            } else if !spared.contains(&revision) {
                excess += 1;
                excess_size += takes;
            }
        }
        match rows.last() {
            Some((last, ..)) => before = *last,
            None => break,
        }
    }
    let due = excess * SLACK >= kept || excess_size * SLACK >= keep.bytes;
    Ok((excess > 0 && due).then_some(first))
}

/// Revisions that stay whatever their age: those that something returns to.
fn spared(history: &History, newest: u64) -> Result<BTreeSet<u64>, StoreError> {
    let pending = history.meta(PENDING)?;
    let returns = pending
        .as_deref()
        .and_then(|it| it.split(' ').nth(1)?.parse().ok());
    let mut spared = BTreeSet::new();
    for target in [Some(newest), returns].into_iter().flatten() {
        spared.extend([target, history.previous_document(target)?]);
    }
    Ok(spared)
}

/// Says what stays, before anything moves or goes.
fn mark(history: &History, first: u64, spared: &BTreeSet<u64>) -> Result<(), StoreError> {
    let list = format!("[{}]", listed(spared));
    history.with(|connection| {
        let transaction = connection.transaction()?;
        write_meta(&transaction, KEPT_FROM, Some(&first.to_string()))?;
        write_meta(&transaction, SPARED, Some(&list))?;
        transaction.commit()
    })
}

fn listed(revisions: &BTreeSet<u64>) -> String {
    let numbers: Vec<String> = revisions.iter().map(u64::to_string).collect();
    numbers.join(", ")
}

/// Stores documents whole whose origins go.
fn rebase(
    history: &History,
    first: u64,
    newest: u64,
    spared: &BTreeSet<u64>,
) -> Result<(), StoreError> {
    // Documents that have another place now.
    let mut moved = BTreeSet::new();
    let old = spared.iter().copied().filter(|it| *it < first);
    let mut ranges: Vec<_> = old.map(|it| (it, it)).collect();
    ranges.push((first, newest));
    for (from, to) in ranges {
        for (revision, base, same) in edits(history, from, to, first)? {
            if spared.contains(&base) || (same && moved.contains(&base)) {
                continue;
            }
            let Some(stored) = history.get(revision)? else {
                continue;
            };
            let document = stored.policy.encode_to_vec();
            history.with(|connection| {
                let transaction = connection.transaction()?;
                let whole = "UPDATE revisions SET base = 0, document = ?2 WHERE revision = ?1";
                transaction.execute(whole, params![signed(revision), document])?;
                if same {
                    // All that have this very document, also one that came a moment ago: by that
                    // they are told from those with another document.
                    let others = "UPDATE revisions SET base = ?1
                                  WHERE revision > ?1 AND base = ?2 AND length(document) = 0";
                    transaction.execute(others, [signed(revision), signed(base)])?;
                }
                transaction.commit()
            })?;
            if same {
                moved.insert(base);
            }
        }
    }
    Ok(())
}

/// The revisions in a range whose documents are edits of ones before `first`, with those, and whether
/// they are just the same.
fn edits(
    history: &History,
    from: u64,
    to: u64,
    first: u64,
) -> Result<Vec<(u64, u64, bool)>, StoreError> {
    let mut found = Vec::new();
    let mut from = signed(from);
    while from <= signed(to) {
        let until = signed(to).min(from + AT_ONCE - 1);
        let rows = history.with(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT revision, base, length(document) = 0 FROM revisions
                 WHERE revision BETWEEN ?1 AND ?2 AND base BETWEEN 1 AND ?3 ORDER BY revision",
            )?;
            let rows = statement.query_map([from, until, signed(first) - 1], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })?;
            rows.collect::<rusqlite::Result<Vec<(i64, i64, bool)>>>()
        })?;
        for (revision, base, same) in rows {
            found.extend(
                number(revision)
                    .zip(number(base))
                    .map(|(it, of)| (it, of, same)),
            );
        }
        from = until + 1;
    }
    Ok(found)
}

/// Deletes what is before `first`, the newest of it first, so that no document loses its origin.
fn delete(
    history: &History,
    first: u64,
    newest: u64,
    spared: &BTreeSet<u64>,
) -> Result<u64, StoreError> {
    let delete = format!(
        "DELETE FROM revisions WHERE revision IN (
             SELECT revision FROM revisions WHERE revision < ?1 AND revision NOT IN ({})
             ORDER BY revision DESC LIMIT ?2)",
        listed(spared)
    );
    let mut count = 0;
    loop {
        let deleted = history.with(|connection| {
            let transaction = connection.transaction()?;
            // A change that was made meanwhile may have the document of one that goes.
            let used: bool = transaction.query_row(
                "SELECT EXISTS (SELECT 1 FROM revisions WHERE revision > ?1 AND base BETWEEN 1 AND ?2)",
                [signed(newest), signed(first) - 1],
                |row| row.get(0),
            )?;
            if used {
                return Ok(0);
            }
            let deleted = transaction.execute(&delete, [signed(first), MOST_DELETED])?;
            transaction.commit()?;
            Ok(deleted)
        })?;
        if deleted == 0 {
            return Ok(count);
        }
        count += deleted as u64;
    }
}

fn signed(revision: u64) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
