//! Whom the rules of a policy let answer whom (`answers_from`), and what a change of it opens and
//! closes.

use std::collections::BTreeMap;

use super::{Reach, Who, view::View};
use crate::words::service::{Service, UDP};

/// Who may answer whom, and the rules that let them.
type Answers<'a> = BTreeMap<(Who<'a>, Who<'a>), Vec<&'a str>>;

/// The differences between two policies.
pub(super) fn changes<'a>(before: &View<'a>, after: &View<'a>) -> Vec<Reach<'a>> {
    let (was, is) = (answers(before), answers(after));
    let mut found = Vec::new();
    for (gone, kept, opens) in [(&was, &is, false), (&is, &was, true)] {
        let gone = gone.iter().filter(|(pair, _)| !kept.contains_key(pair));
        found.extend(gone.map(|((from, to), rules)| Reach {
            from: *from,
            to: *to,
            alike: 0,
            services: vec![Service::of(UDP, 0, 0xffff)],
            opens,
            answers: true,
            rules: rules.clone(),
            except: Vec::new(),
        }));
    }
    found
}

fn answers<'a>(view: &View<'a>) -> Answers<'a> {
    let mut answers = Answers::new();
    for rule in &view.intent.rules {
        if !view.holds(rule) {
            continue;
        }
        for from in &rule.answers {
            for to in &rule.from {
                let pair = (view.who(from), view.who(to));
                answers.entry(pair).or_default().push(rule.name.as_str());
            }
        }
    }
    answers
}
