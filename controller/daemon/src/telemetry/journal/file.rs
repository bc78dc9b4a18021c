//! The journal while it is written: opened when it is needed, put aside when it is damaged, kept within its
//! bounds.

use std::{path::Path, sync::Arc};

use jiff::Timestamp;

use super::{
    super::event::Event,
    Fill,
    schema::{self, JournalError, is_damage, put_aside},
    write::Writer,
};
use crate::config::Bounds;

/// The open journal.
pub(super) struct File(Writer);

/// Writes events; with a time, forgets what is too old by then. When there is too much, those that have
/// most of it lose their oldest events.
pub(super) fn write(
    file: &mut Option<File>,
    path: &Path,
    bounds: Bounds,
    events: &[Arc<Event>],
    now: Option<Timestamp>,
) -> Result<Fill, JournalError> {
    match try_to_write(file, path, bounds, events, now) {
        Err(JournalError::Database(error)) if is_damage(&error) => {
            *file = None;
            put_aside(path, "damaged", &error.to_string()).map_err(JournalError::Aside)?;
            try_to_write(file, path, bounds, events, now)
        }
        Err(error) => {
            // The next try begins with a look at what is there.
            *file = None;
            Err(error)
        }
        written => written,
    }
}

fn try_to_write(
    file: &mut Option<File>,
    path: &Path,
    bounds: Bounds,
    events: &[Arc<Event>],
    now: Option<Timestamp>,
) -> Result<Fill, JournalError> {
    // Somebody may have moved the file away; what is written to it then is lost to readers.
    let is_there = path.exists();
    let File(writer) = match file.take_if(|_| is_there) {
        Some(open) => file.insert(open),
        None => file.insert(File(Writer::new(schema::open(path)?)?)),
    };
    writer.make_room(bounds.bytes)?;
    writer.add(events)?;
    if let Some(now) = now {
        writer.forget_before(now.as_microsecond() - i64::from(bounds.days) * DAY)?;
    }
    Ok(writer.fill()?)
}

/// In microseconds.
const DAY: i64 = 24 * 60 * 60 * 1_000_000;
