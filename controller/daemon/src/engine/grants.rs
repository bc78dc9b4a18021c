//! Temporary access: a grant is an allow rule of the document with an end, and is deleted then.
//!
//! The kernel enforces the end, with or without a daemon. The store remembers which rules are
//! grants, by name and end, because a rule that an author has given an end stays in the document.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

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

/// When grants end that were made since the start, by a clock that can't be set.
///
/// A grant is for a time from now: it neither lasts longer nor ends earlier when somebody sets the
/// wall clock. Of a grant from before the start only the end by the wall clock is known.
#[derive(Debug, Default)]
pub(super) struct Running(BTreeMap<String, Instant>);

impl Running {
    /// A grant that takes force now.
    pub(super) fn begin(&mut self, name: &str, lifetime: Duration) {
        if let Some(deadline) = Instant::now().checked_add(lifetime) {
            self.0.insert(name.to_owned(), deadline);
        }
    }

    /// A grant has another name from now on.
    pub(super) fn rename(&mut self, old: &str, new: &str) {
        if let Some(deadline) = self.0.remove(old) {
            self.0.insert(new.to_owned(), deadline);
        }
    }

    /// The grants whose ends are wrong since the wall clock was set, each with its right end.
    /// Forgets those that are not in force any more.
    pub(super) fn moved(
        &mut self,
        grants: &[EndingRule],
        now: Timestamp,
    ) -> BTreeMap<String, Timestamp> {
        let mut moved = BTreeMap::new();
        self.0.retain(|name, deadline| {
            let Some(grant) = grants.iter().find(|it| it.name == *name) else {
                return false;
            };
            let left = deadline.saturating_duration_since(Instant::now());
            let left = SignedDuration::try_from(left).unwrap_or(SignedDuration::MAX);
            if let Ok(ends) = now.checked_add(left)
                && grant.expires.duration_since(ends).abs() > STEP
            {
                moved.insert(name.clone(), to_millisecond(ends));
            }
            true
        });
        moved
    }
}

/// A difference between two clocks that is no step.
const STEP: SignedDuration = SignedDuration::from_secs(1);

/// Only to the millisecond, because people read it in the document.
fn to_millisecond(time: Timestamp) -> Timestamp {
    Timestamp::from_millisecond(time.as_millisecond()).unwrap_or(time)
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
        expires: to_millisecond(ends),
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

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::constant(1_790_000_000, 0);
    const HOUR: SignedDuration = SignedDuration::from_hours(1);

    #[test]
    fn a_grant_lasts_as_long_as_it_was_given_for_however_the_clock_is_set() {
        let mut running = Running::default();
        running.begin("g", Duration::from_secs(3600));
        let grant = EndingRule {
            name: "g".to_owned(),
            from: Vec::new(),
            to: Vec::new(),
            services: Vec::new(),
            expires: NOW + HOUR,
            keep_in_quarantine: false,
        };
        let grants = [grant];
        assert_eq!(running.moved(&grants, NOW), BTreeMap::new());
        for step in [-1000 * HOUR, 1000 * HOUR] {
            let moved = running.moved(&grants, NOW + step);
            let ends = moved["g"];
            let off = ends.duration_since(NOW + step + HOUR);
            assert!(off.abs() < SignedDuration::from_secs(1), "{step}: {ends}");
        }
        // Revoked: nothing is known of one that may have its name later.
        assert_eq!(running.moved(&[], NOW + HOUR), BTreeMap::new());
        assert_eq!(running.moved(&grants, NOW + HOUR), BTreeMap::new());
    }
}
