//! Checks what people write beside an object: description, owner, ticket and labels.

use std::{collections::BTreeMap, fmt};

use wardline_proto::v1;

use crate::words::{
    label::{MAX_LABELS, check_key, check_value},
    problem::{Full, Problems},
};

const MAX_DESCRIPTION: usize = 1000;
/// Most characters of an owner, and of a ticket.
const MAX_LINE: usize = 200;

/// What people write beside an object.
pub(super) struct Notes<'a> {
    description: &'a str,
    owner: &'a str,
    ticket: &'a str,
    labels: &'a BTreeMap<String, String>,
}

macro_rules! notes {
    ($($kind:ident),*) => {
        $(impl<'a> From<&'a v1::$kind> for Notes<'a> {
            fn from(object: &'a v1::$kind) -> Self {
                Self {
                    description: &object.description,
                    owner: &object.owner,
                    ticket: &object.ticket,
                    labels: &object.labels,
                }
            }
        })*
    };
}

notes!(Zone, Port, Device, Service, Rule);

/// Checks the notes of the object at a path.
pub(super) fn check_notes(
    path: impl fmt::Display,
    notes: &Notes<'_>,
    problems: &mut Problems,
) -> Result<(), Full> {
    let texts = [
        ("description", notes.description, MAX_DESCRIPTION),
        ("owner", notes.owner, MAX_LINE),
        ("ticket", notes.ticket, MAX_LINE),
    ];
    for (field, text, most) in texts {
        let path = format_args!("{path}.{field}");
        let length = text.chars().count();
        if length > most {
            problems.demand(path, format_args!("{length} characters; at most {most}"))?;
        }
        let may_have = |c: char| field == "description" && (c == '\n' || c == '\t');
        if text.chars().any(|c| c.is_control() && !may_have(c)) {
            problems.demand(path, "has control characters; leave them out")?;
        }
    }
    let count = notes.labels.len();
    if count > MAX_LABELS {
        let message = format_args!("{count} labels; at most {MAX_LABELS}");
        problems.add(format_args!("{path}.labels"), message)?;
    }
    for (key, value) in notes.labels {
        if let Err(message) = check_key(key) {
            problems.add(format_args!("{path}.labels"), message)?;
        } else if let Err(message) = check_value(value) {
            problems.add(format_args!("{path}.labels.{key}"), message)?;
        }
    }
    Ok(())
}
