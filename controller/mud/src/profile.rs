//! The rules that come of a file's entries, and what became of each entry.
//!
//! Entries only ever allow here: what no rule allows is dropped anyway. A document has no order, so an entry
//! that an earlier one takes something away from makes no rule, instead of one that is too wide.

use std::collections::{BTreeMap, BTreeSet};

use wardline_proto::v1::{Action, Rule};

use crate::{
    answers::{Part, part},
    entry::{Direction, Entry, Family, Match, Peer, Ports},
    file::File,
    services::{Asked, asked},
    site::{DIRECTION, FILE, Nobody, Site},
    words::{label_value, plain, rule_name},
};

/// What became of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is as the file says: by a rule, or without one.
    Imported,
    /// It makes no rule now; the reason says what it waits for.
    Held,
    /// It can't make a rule.
    Dropped,
}

/// What became of one entry of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// The entry's name.
    pub name: String,
    /// Whether it is about packets from the device; otherwise to it.
    pub from_device: bool,
    /// What became of it.
    pub outcome: Outcome,
    /// Why.
    pub reason: String,
    /// The rules that it is in.
    pub rules: Vec<String>,
}

/// What became of something that every device may, unless its file drops it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Default {
    /// `dns` or `ntp`.
    pub name: &'static str,
    /// What became of it.
    pub outcome: Outcome,
    /// Why.
    pub reason: String,
    /// The rules that it is in.
    pub rules: Vec<String>,
}

/// What came of a file.
#[derive(Debug, std::default::Default)]
pub(crate) struct Profile {
    pub(crate) aces: Vec<Told>,
    pub(crate) defaults: Vec<Default>,
    pub(crate) unresolved: BTreeSet<String>,
    pub(crate) rules: Vec<Rule>,
    /// The rules by what they say, so that two entries that say the same share one.
    by_content: BTreeMap<[Vec<String>; 3], String>,
}

/// What became of an entry, before it is told.
struct Became(Outcome, String, Vec<String>);

/// DNS over TCP is for answers that do not fit a datagram.
const DEFAULTS: [(&str, &str, &[&str], u16); 2] = [
    ("dns", "urn:ietf:params:mud:dns", &["udp/53", "tcp/53"], 53),
    ("ntp", "urn:ietf:params:mud:ntp", &["udp/123"], 123),
];

impl Profile {
    pub(crate) fn of(file: &File, site: &Site<'_>) -> Self {
        let mut profile = Self::default();
        let entries = &file.entries;
        let mut became: Vec<Option<Became>> = Vec::new();
        for at in 0..entries.len() {
            became.push(profile.entry(entries, at, site));
        }
        for (at, entry) in entries.iter().enumerate() {
            let Became(outcome, reason, rules) = match became[at].take() {
                Some(it) => it,
                None => answer(entries, at, &profile.aces, &became),
            };
            profile.aces.push(Told {
                name: entry.name.clone(),
                from_device: entry.direction == Direction::FromDevice,
                outcome,
                reason,
                rules,
            });
        }
        profile.add_defaults(entries, site);
        profile
    }

    /// What becomes of an entry; none: it is about answers, and that depends on another.
    fn entry(&mut self, entries: &[Entry], at: usize, site: &Site<'_>) -> Option<Became> {
        use Outcome::{Dropped, Held, Imported};
        let became = |outcome, reason: &str| Some(Became(outcome, reason.to_owned(), Vec::new()));
        let entry = &entries[at];
        let own = match &entry.matches {
            Ok(own) => own,
            Err(why) => return became(Dropped, why),
        };
        if !entry.accepts {
            return became(Imported, "what no rule allows is dropped anyway");
        }
        let before = entries[..at].iter();
        for drop in before.filter(|it| !it.accepts && it.direction == entry.direction) {
            let name = &drop.name;
            match &drop.matches {
                Ok(it) if covers(it, own) => {
                    return became(
                        Dropped,
                        &format!("the entry {name} before it drops all of it"),
                    );
                }
                Ok(it) if !meets(it, own) => {}
                _ => {
                    let why = "may drop a part of it, and rules have no order by which to say so";
                    return became(Held, &format!("the entry {name} before it {why}"));
                }
            }
        }
        let open = part(entries, at, own);
        if let Part::Answers(_) = open {
            return None;
        }
        let services = match asked(own) {
            Asked::Services(services) => services,
            Asked::Nothing(why) => return became(Imported, why),
            Asked::Unsayable(why) => return became(Dropped, why),
        };
        let peers = match site.selectors(&own.peer, own.family, entry.direction) {
            Ok(peers) => peers,
            Err(nobody) => return became(Held, &self.note(nobody)),
        };
        let mut reason = String::new();
        if open == Part::MayOpen {
            if !site.is_approved {
                let why = "it lets others open connections to the device, and does not say with \
                           direction-initiated that this is meant; a person has to approve of that with \
                           --approve REASON";
                return became(Held, why);
            }
            reason = "as was approved, others may open connections to the device".to_owned();
        }
        let rule = self.rule(site, (&entry.name, at), entry.direction, peers, services);
        Some(Became(Imported, reason, vec![rule]))
    }

    fn note(&mut self, nobody: Nobody) -> String {
        self.unresolved.extend(nobody.class);
        nobody.why
    }

    /// Adds a rule, unless there is one that says the same; returns its name.
    fn rule(
        &mut self,
        site: &Site<'_>,
        (entry, at): (&str, usize),
        direction: Direction,
        peers: Vec<String>,
        services: Vec<String>,
    ) -> String {
        let subject = vec![site.subject.to_owned()];
        let (word, from, to) = match direction {
            Direction::FromDevice => ("from-device", subject, peers),
            Direction::ToDevice => ("to-device", peers, subject),
        };
        let content = [from.clone(), to.clone(), services.clone()];
        if let Some(name) = self.by_content.get(&content) {
            return name.clone();
        }
        let mut name = rule_name(site.url, entry, at);
        if self.rules.iter().any(|it| it.name == name) {
            // A name with a blank is another, so it gets the number of the entry.
            name = rule_name(site.url, &format!("{entry} "), at);
        }
        self.by_content.insert(content, name.clone());
        let labels = [
            (FILE, label_value(&site.url.whole)),
            (DIRECTION, word.to_owned()),
        ];
        self.rules.push(Rule {
            name: name.clone(),
            from,
            to,
            services,
            action: Action::Allow.into(),
            description: format!("{} of {}", plain(entry, 100), site.url.whole),
            ticket: site.url.whole.clone(),
            labels: labels.map(|(key, value)| (key.to_owned(), value)).into(),
            ..Rule::default()
        });
        name
    }

    fn add_defaults(&mut self, entries: &[Entry], site: &Site<'_>) {
        for (name, class, services, port) in DEFAULTS {
            let question = |family| Match {
                family,
                peer: Peer::Controller(class.to_owned()),
                protocol: Some(17),
                source: None,
                destination: Some(Ports(vec![(port, port)])),
                icmp: None,
                initiated: None,
            };
            let drops = |it: &&Entry| {
                let may = |family| match &it.matches {
                    Ok(matches) => meets(matches, &question(family)),
                    Err(_) => true,
                };
                !it.accepts && (may(Family::V4) || may(Family::V6))
            };
            let dropped = entries.iter().find(drops);
            let Became(outcome, reason, rules) = match (dropped, site.controllers(class)) {
                (Some(drop), _) => {
                    let reason = format!("the entry {} drops it, or may", drop.name);
                    Became(Outcome::Dropped, reason, Vec::new())
                }
                (None, Err(nobody)) => Became(Outcome::Held, self.note(nobody), Vec::new()),
                (None, Ok(peers)) => {
                    let services = services.iter().map(|it| (*it).to_owned()).collect();
                    let entry = format!("default-{name}");
                    let entry = (entry.as_str(), entries.len());
                    let rule = self.rule(site, entry, Direction::FromDevice, peers, services);
                    let reason = "every device may, unless its file drops it".to_owned();
                    Became(Outcome::Imported, reason, vec![rule])
                }
            };
            self.defaults.push(Default {
                name,
                outcome,
                reason,
                rules,
            });
        }
    }
}

/// What becomes of an entry about answers: the same as of the one that it answers.
fn answer(entries: &[Entry], at: usize, told: &[Told], became: &[Option<Became>]) -> Became {
    let own = entries[at].matches.as_ref().ok();
    let Some(Part::Answers(Some(other))) = own.map(|own| part(entries, at, own)) else {
        let why = "it is only about answers, and no entry opens what they would answer";
        return Became(Outcome::Dropped, why.to_owned(), Vec::new());
    };
    let name = &entries[other].name;
    // Those before it have been told already.
    let of_other = match (told.get(other), &became[other]) {
        (Some(it), _) => Some((it.outcome, &it.rules)),
        (None, Some(Became(outcome, _, rules))) => Some((*outcome, rules)),
        (None, None) => None,
    };
    match of_other {
        Some((Outcome::Imported, rules)) => {
            let reason = format!("the answers to {name}, which pass with the flow");
            Became(Outcome::Imported, reason, rules.clone())
        }
        Some((outcome, _)) => Became(
            outcome,
            format!("the answers to {name}; see there"),
            Vec::new(),
        ),
        None => {
            let reason = format!("it and {name} are each about the answers to the other");
            Became(Outcome::Dropped, reason, Vec::new())
        }
    }
}

/// Whether some packet may match both.
fn meets(one: &Match, other: &Match) -> bool {
    let ports = |one: &Option<Ports>, other: &Option<Ports>| match (one, other) {
        (Some(one), Some(other)) => one.meets(other),
        _ => true,
    };
    let peers = match (&one.peer, &other.peer) {
        (Peer::At(one), Peer::At(other)) => one.contains(other) || other.contains(one),
        _ => true,
    };
    let protocols = match (one.protocol, other.protocol) {
        (Some(one), Some(other)) => one == other,
        _ => true,
    };
    let kinds = match (one.icmp, other.icmp) {
        (Some((one, _)), Some((other, _))) => one == other,
        _ => true,
    };
    one.family == other.family
        && peers
        && protocols
        && kinds
        && ports(&one.source, &other.source)
        && ports(&one.destination, &other.destination)
}

/// Whether each packet that matches the other matches this one.
fn covers(it: &Match, other: &Match) -> bool {
    let ports = |it: &Option<Ports>, other: &Option<Ports>| match (it, other) {
        (None, _) => true,
        (Some(it), Some(other)) => it.covers(other),
        (Some(_), None) => false,
    };
    it.family == other.family
        && (it.peer == Peer::Anybody || it.peer == other.peer)
        && (it.protocol.is_none() || it.protocol == other.protocol)
        && (it.icmp.is_none() || it.icmp == other.icmp)
        && it.initiated.is_none()
        && ports(&it.source, &other.source)
        && ports(&it.destination, &other.destination)
}
