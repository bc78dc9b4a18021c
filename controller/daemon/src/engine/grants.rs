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

use super::{
    Engine,
    change::{Applied, Author, Terms},
    refusal::Refusal,
};
use crate::store::revision::Fact;

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

impl Engine {
    /// Adds an allow rule with a lifetime.
    ///
    /// # Errors
    ///
    /// Why it was refused.
    pub fn grant(
        &mut self,
        request: v1::GrantRequest,
        author: &Author,
    ) -> Result<Granted, Refusal> {
        if !(1..=LONGEST).contains(&request.for_s) {
            let message = format!("{} is no lifetime of 1 s to {LONGEST} s", request.for_s);
            return Err(invalid("for_s", message));
        }
        let ends = Timestamp::now() + SignedDuration::from_secs(request.for_s as i64);
        // People read it in the document.
        let expires = Timestamp::from_millisecond(ends.as_millisecond()).unwrap_or(ends);
        let rules = &self.snapshot().policy.rules;
        let name = match request.name.as_str() {
            "" => format!("grant-{}", self.store.next()?),
            name => name.to_owned(),
        };
        if rules.iter().any(|rule| rule.name == name) {
            let message =
                format!("there is a rule {name:?} already; revoke it, or name this another");
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
        let facts = [Fact::Grant(&name, expires)];
        let applied = self
            .edit_with(edit, &facts, &Terms::default(), author)
            .map_err(in_request)?;
        Ok(Granted {
            applied,
            name,
            expires,
        })
    }

    /// Ends a grant before its time.
    ///
    /// # Errors
    ///
    /// Why it was refused.
    pub fn revoke(&mut self, name: &str, author: &Author) -> Result<Applied, Refusal> {
        let current = self.snapshot();
        match current.policy.rules.iter().find(|rule| rule.name == name) {
            None => Err(Refusal::missing("rule", name)),
            Some(rule) if self.grant_end(rule).is_none() => Err(Refusal::NoGrant(name.to_owned())),
            Some(_) => self.delete_rules(vec![name.to_owned()], author),
        }
    }

    /// Takes grants that have ended out of the document.
    pub(crate) fn forget_ended_grants(&mut self, now: Timestamp) -> Result<(), Refusal> {
        let current = self.snapshot();
        let ended = current.policy.rules.iter().filter(|rule| {
            let expires = rule
                .expires
                .as_ref()
                .is_some_and(|at| at.seconds <= now.as_second());
            expires && self.grant_end(rule).is_some_and(|end| end <= now)
        });
        let ended: Vec<String> = ended.map(|rule| rule.name.clone()).collect();
        if ended.is_empty() {
            return Ok(());
        }
        let reason = format!("the grants {} have ended", ended.join(", "));
        let author = Author::daemon("expire", reason);
        let applied = self.delete_rules(ended, &author)?;
        self.events.note(applied.revision, author.reason, now);
        Ok(())
    }

    /// The grants of the document in force.
    pub(crate) fn grants(&self) -> Vec<v1::GrantStatus> {
        let current = self.snapshot();
        let grants = current.policy.rules.iter().filter_map(|rule| {
            let expires = self.grant_end(rule)?;
            Some(v1::GrantStatus {
                name: rule.name.clone(),
                from: rule.from.clone(),
                to: rule.to.clone(),
                services: rule.services.clone(),
                expires: Some(to_proto(expires)),
            })
        });
        grants.collect()
    }

    fn delete_rules(&mut self, names: Vec<String>, author: &Author) -> Result<Applied, Refusal> {
        let edit = v1::EditRequest {
            delete: names
                .into_iter()
                .map(|name| format!("rule/{name}"))
                .collect(),
            ..v1::EditRequest::default()
        };
        self.edit_with(edit, &[], &Terms::default(), author)
    }

    /// When a rule ends that is a grant.
    fn grant_end(&self, rule: &v1::Rule) -> Option<Timestamp> {
        let expires = rule.expires.as_ref().and_then(from_proto)?;
        self.store.is_grant(&rule.name, expires).then_some(expires)
    }
}

fn invalid(path: &str, message: String) -> Refusal {
    Refusal::Invalid(vec![Problem {
        path: path.to_owned(),
        message,
    }])
}

/// Problems of the rule, as problems of the request that asked for it.
fn in_request(refusal: Refusal) -> Refusal {
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
