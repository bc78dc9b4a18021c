//! Temporary access: a grant is an allow rule of the document with an end, and is deleted then.
//!
//! The kernel enforces the end, with or without a daemon. The store remembers which rules are
//! grants, by name and end, because a rule that an author has given an end stays in the document.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use wardline_policy::{
    document::{Document, EndingRule, edit::Edit},
    words::problem::Problem,
};

use super::{refusal::Refusal, terms::Applied};

/// A grant as it is requested.
#[derive(Clone, Debug, Default)]
pub struct GrantRequest {
    /// The rule's name; empty: one is generated.
    pub name: String,
    /// One end, as documents write it.
    pub from: Vec<String>,
    /// The other end.
    pub to: Vec<String>,
    /// The services that the rule allows.
    pub services: Vec<String>,
    /// For how long.
    pub lifetime: Duration,
    /// Whether it holds for a device in quarantine.
    pub keep_in_quarantine: bool,
}

/// A grant that took force.
#[derive(Clone, Debug)]
pub struct Granted {
    /// The change.
    pub applied: Applied,
    /// The rule.
    pub name: String,
    /// When it ends.
    pub expires: Timestamp,
}

/// Seconds of a hundred years: longer than any router.
const LONGEST: u64 = 100 * 365 * 86_400;

/// Makes the rule of a grant that is requested now. `name` generates a name if the request has
/// none.
pub(super) fn rule(
    request: GrantRequest,
    name: impl FnOnce() -> Result<String, Refusal>,
    document: &Document,
    now: Timestamp,
) -> Result<EndingRule, Refusal> {
    let seconds = request.lifetime.as_secs();
    if !(1..=LONGEST).contains(&seconds) {
        let message = format!("{seconds} is no lifetime of 1 s to {LONGEST} s");
        return Err(invalid("for_s", message));
    }
    let ends = now + SignedDuration::from_secs(seconds as i64);
    let name = match request.name.as_str() {
        "" => name()?,
        name => name.to_owned(),
    };
    if document.rules.iter().any(|rule| rule.name == name) {
        let message = format!("there is a rule {name:?} already; revoke it, or name this another");
        return Err(invalid("name", message));
    }
    Ok(EndingRule {
        name,
        from: request.from,
        to: request.to,
        services: request.services,
        // Only to the millisecond, because people read it in the document.
        expires: Timestamp::from_millisecond(ends.as_millisecond()).unwrap_or(ends),
        keep_in_quarantine: request.keep_in_quarantine,
    })
}

/// The edit that deletes rules.
pub(super) fn delete(names: Vec<String>) -> Edit {
    let delete = names.into_iter().map(|name| format!("rule/{name}"));
    Edit {
        put: None,
        delete: delete.collect(),
    }
}

fn invalid(path: &str, message: String) -> Refusal {
    Refusal::Invalid(vec![Problem {
        path: path.to_owned(),
        message,
    }])
}

/// Turns problems of the rule into problems of the request.
pub(super) fn in_request(refusal: Refusal) -> Refusal {
    match refusal {
        Refusal::Invalid(mut problems) => {
            for problem in &mut problems {
                if let Some(field) = problem.path.strip_prefix("rules[0].") {
                    problem.path = field.to_owned();
                }
            }
            Refusal::Invalid(problems)
        }
        other => other,
    }
}
