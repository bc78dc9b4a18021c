//! Allow rules that end: how they are written in a document, and the edit that adds one.

use std::collections::BTreeMap;

use jiff::Timestamp;
use wardline_proto::{
    time::{from_proto, to_proto},
    v1::{Action, Rule},
};

use super::{Document, edit::Edit};

/// An allow rule with an end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndingRule {
    /// The rule.
    pub name: String,
    /// One end, as documents write it.
    pub from: Vec<String>,
    /// The other end.
    pub to: Vec<String>,
    /// The services that the rule allows.
    pub services: Vec<String>,
    /// When it ends.
    pub expires: Timestamp,
    /// Whether it holds for a device in quarantine.
    pub keep_in_quarantine: bool,
}

impl EndingRule {
    /// The edit that adds the rule.
    pub fn put(self) -> Edit {
        let rule = Rule {
            name: self.name,
            from: self.from,
            to: self.to,
            services: self.services,
            action: Action::Allow.into(),
            expires: Some(to_proto(self.expires)),
            keep_in_quarantine: self.keep_in_quarantine,
            ..Rule::default()
        };
        Edit {
            put: Some(Document {
                version: 1,
                rules: vec![rule],
                ..Document::default()
            }),
            delete: Vec::new(),
        }
    }
}

/// The edit by which rules of a document end at other times, by name.
pub fn end_at(document: &Document, ends: &BTreeMap<String, Timestamp>) -> Edit {
    let rules = document.rules.iter().filter_map(|rule| {
        let expires = Some(to_proto(*ends.get(&rule.name)?));
        Some(Rule {
            expires,
            ..rule.clone()
        })
    });
    Edit {
        put: Some(Document {
            version: 1,
            rules: rules.collect(),
            ..Document::default()
        }),
        delete: Vec::new(),
    }
}

/// The allow rules of a document that end.
pub fn ending_rules(document: &Document) -> impl Iterator<Item = EndingRule> {
    let allow = |rule: &&Rule| rule.action() == Action::Allow;
    document.rules.iter().filter(allow).filter_map(|rule| {
        Some(EndingRule {
            expires: from_proto(rule.expires.as_ref()?)?,
            name: rule.name.clone(),
            from: rule.from.clone(),
            to: rule.to.clone(),
            services: rule.services.clone(),
            keep_in_quarantine: rule.keep_in_quarantine,
        })
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::document::edit;

    #[test]
    fn a_rule_that_was_put_is_found_again() {
        let rule = EndingRule {
            name: "fix".to_owned(),
            from: vec!["zone:staff".to_owned()],
            to: vec!["device:pump".to_owned()],
            services: vec!["tcp/22".to_owned()],
            expires: Timestamp::constant(1_790_000_000, 0),
            keep_in_quarantine: true,
        };
        let mut document = Document::default();
        document.rules.push(Rule {
            name: "no-end".to_owned(),
            action: Action::Allow.into(),
            ..Rule::default()
        });
        edit::change(&mut document, &rule.clone().put()).unwrap();
        assert!(ending_rules(&document).eq([rule]));
    }
}
