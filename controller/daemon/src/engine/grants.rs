//! Access by the hour: a grant is an allow rule of the document that ends, and then goes.
//!
//! The kernel keeps the end, with or without a daemon. The store remembers which rules are grants,
//! by name and end: a rule that somebody wrote with an end of its own stays in the document.

use jiff::{SignedDuration, Timestamp};
use wardline_policy::words::problem::Problem;
use wardline_proto::{
    time::{from_proto, to_proto},
    v1,
};

use super::{refusal::Refusal, state::Grant, terms::Applied};

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

/// A hundred years: longer than any router.
const LONGEST: u64 = 100 * 365 * 86_400;

/// The edit that adds the rule of a grant, and when the rule ends. `name` is taken unless the request
/// names the grant.
pub(super) fn edit(
    request: v1::GrantRequest,
    name: impl FnOnce() -> Result<String, Refusal>,
    policy: &v1::Policy,
    now: Timestamp,
) -> Result<(v1::EditRequest, String, Timestamp), Refusal> {
    if !(1..=LONGEST).contains(&request.for_s) {
        let message = format!("{} is no lifetime of 1 s to {LONGEST} s", request.for_s);
        return Err(invalid("for_s", message));
    }
    let ends = now + SignedDuration::from_secs(request.for_s as i64);
    // People read it in the document.
    let expires = Timestamp::from_millisecond(ends.as_millisecond()).unwrap_or(ends);
    let name = match request.name.as_str() {
        "" => name()?,
        name => name.to_owned(),
    };
    if policy.rules.iter().any(|rule| rule.name == name) {
        let message = format!("there is a rule {name:?} already; revoke it, or name this another");
        return Err(invalid("name", message));
    }
    let rule = v1::Rule {
        name: name.clone(),
        from: request.from,
        to: request.to,
        services: request.services,
        action: v1::Action::Allow.into(),
        log: false,
        expires: Some(to_proto(expires)),
        keep_in_quarantine: request.keep_in_quarantine,
    };
    let edit = v1::EditRequest {
        put: Some(v1::Policy {
            version: 1,
            rules: vec![rule],
            ..v1::Policy::default()
        }),
        ..v1::EditRequest::default()
    };
    Ok((edit, name, expires))
}

/// The edit that takes rules away.
pub(super) fn delete(names: Vec<String>) -> v1::EditRequest {
    let delete = names.into_iter().map(|name| format!("rule/{name}"));
    v1::EditRequest {
        delete: delete.collect(),
        ..v1::EditRequest::default()
    }
}

/// The grants of a document. `is_grant` knows rules that are grants, by name and end.
pub(super) fn of(policy: &v1::Policy, is_grant: impl Fn(&str, Timestamp) -> bool) -> Vec<Grant> {
    let grants = policy.rules.iter().filter_map(|rule| {
        let expires = from_proto(rule.expires.as_ref()?)?;
        is_grant(&rule.name, expires).then(|| Grant {
            name: rule.name.clone(),
            from: rule.from.clone(),
            to: rule.to.clone(),
            services: rule.services.clone(),
            expires,
        })
    });
    grants.collect()
}

fn invalid(path: &str, message: String) -> Refusal {
    Refusal::Invalid(vec![Problem {
        path: path.to_owned(),
        message,
    }])
}

/// Problems of the rule, as problems of the request that asked for it.
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
