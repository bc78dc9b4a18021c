//! Rules as pairs of names, each with the intervals of services that it may use.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use wardline_ebpf::{
    abi::{ASKS, End, Interval, KEPT, NEVER, ROUTER, answer_key, kind, name, pair_bit, zone},
    policy,
};

use super::networks::Networks;
use crate::{
    clock::Clock,
    intent::{self, Action, Intent, Selector, ZoneIndex},
    numbers::{Ids, number_of, numbered, rule_number},
    tables::Intervals,
    words::service::Service,
};

/// The class of each device: devices that the same rules name on the same side, and that have the same
/// of the labels that rules name, share one, and its number is the lowest of theirs. 0: no rule names
/// the device.
pub(super) fn classes(intent: &Intent, numbers: &[u32]) -> Vec<u32> {
    let mut named: Vec<Vec<u32>> = vec![Vec::new(); intent.devices.len()];
    for (index, rule) in intent.rules.iter().enumerate() {
        let sides = [&rule.from, &rule.to, &rule.answers];
        for (side, selectors) in sides.into_iter().enumerate() {
            for selector in selectors {
                if let Selector::Device(device) = selector {
                    named[device.0].push((index * sides.len() + side) as u32);
                }
            }
        }
    }
    // A label counts once, in how many rules ever it stands.
    let sides = intent.rules.len() * 3;
    for (at, label) in intent.labels.iter().enumerate() {
        for device in &label.devices {
            named[device.0].push((sides + at) as u32);
        }
    }
    let mut lowest: HashMap<&[u32], u32> = HashMap::new();
    for (device, sides) in named
        .iter()
        .enumerate()
        .filter(|(_, sides)| !sides.is_empty())
    {
        let class = lowest.entry(sides).or_insert(numbers[device]);
        *class = (*class).min(numbers[device]);
    }
    named
        .iter()
        .map(|sides| lowest.get(sides.as_slice()).copied().unwrap_or(0))
        .collect()
}

/// Most pairs of names that all rules together may name, counted for each rule: eight times what the table of
/// pairs holds. Few rules can name more than memory has.
pub(super) const MOST_NAMED: usize = 8 << 20;

/// What each pair of names may do; none when rules name too many.
pub(super) fn pairs(
    intent: &Intent,
    ids: &Ids,
    classes: &[u32],
    networks: &Networks,
    zone_of: &impl Fn(ZoneIndex) -> u16,
    clock: &Clock,
) -> Option<BTreeMap<(u32, u32), Intervals>> {
    let labels = intent.labels.iter();
    let labels: Vec<BTreeSet<u32>> = labels
        .map(|label| label.devices.iter().map(|it| classes[it.0]).collect())
        .collect();
    let names = |selectors: &[Selector]| -> BTreeSet<u32> {
        let mut names = BTreeSet::new();
        for selector in selectors {
            match selector {
                Selector::Any => drop(names.insert(name(kind::ANY, 1))),
                Selector::Router => drop(names.insert(name(kind::CLASS, ROUTER))),
                Selector::Zone(zone) => {
                    names.insert(name(kind::ZONE, u32::from(zone_of(*zone))));
                }
                Selector::Device(device) => {
                    names.insert(name(kind::CLASS, classes[device.0]));
                }
                Selector::Label(label) => {
                    let classes = labels[label.0].iter();
                    names.extend(classes.map(|class| name(kind::CLASS, *class)));
                }
                Selector::Internet => {
                    let regions = networks.internet.iter();
                    names.extend(regions.map(|region| name(kind::REGION, *region)));
                }
                Selector::Name(domain) => {
                    let number = number_of(ids, numbered::NAME, &domain.to_string());
                    names.insert(name(kind::DOMAIN, number));
                }
                Selector::Cidr(net) => {
                    let inside = networks.inside.get(net).into_iter().flatten();
                    names.extend(inside.map(|region| name(kind::REGION, *region)));
                }
            }
        }
        names
    };
    let answers: Vec<intent::Rule> = intent
        .rules
        .iter()
        .filter_map(|it| answers(it, ids))
        .collect();
    let all: Vec<&intent::Rule> = intent.rules.iter().chain(&answers).collect();
    let mut rules: BTreeMap<(u32, u32), Vec<usize>> = BTreeMap::new();
    // Deny rules are kept in quarantine only if an allow rule is, because otherwise there is
    // nothing to deny.
    let keeps = |rule: &intent::Rule| rule.kept && rule.action == Action::Allow;
    let kept = intent.rules.iter().any(keeps);
    let mut named = 0_usize;
    for (index, rule) in all.iter().enumerate() {
        let (from, to) = (names(&rule.from), names(&rule.to));
        named = named.saturating_add(from.len().saturating_mul(to.len()));
        if named > MOST_NAMED {
            return None;
        }
        for from in from {
            for to in &to {
                rules.entry((from, *to)).or_default().push(index);
                if kept && rule.kept {
                    rules.entry((from | KEPT, *to)).or_default().push(index);
                }
            }
        }
    }
    let judged: Vec<Judged<'_>> = all
        .iter()
        .map(|rule| Judged {
            rule,
            number: rule_number(rule, ids),
            until: rule.expires.map_or(NEVER, |expires| clock.tick(expires)),
        })
        .collect();
    let mut shared: HashMap<Vec<usize>, Intervals> = HashMap::new();
    let mut pairs = BTreeMap::new();
    for (pair, rules) in rules {
        let intervals = shared.entry(rules).or_insert_with_key(|rules| {
            intervals(
                &rules
                    .iter()
                    .map(|index| &judged[*index])
                    .collect::<Vec<_>>(),
            )
            .into()
        });
        pairs.insert(pair, Arc::clone(intervals));
    }
    Some(pairs)
}

/// The rule by which a rule's questions are answered: from who may answer, to who may ask.
fn answers(rule: &intent::Rule, ids: &Ids) -> Option<intent::Rule> {
    let key = answer_key(number_of(ids, numbered::RULE, &rule.name));
    (!rule.answers.is_empty()).then(|| intent::Rule {
        from: rule.answers.clone(),
        to: rule.from.clone(),
        services: vec![Service {
            first: key,
            last: key,
        }],
        answers: Vec::new(),
        ..rule.clone()
    })
}

/// A rule and its number in the tables.
pub(super) struct Judged<'a> {
    pub(super) rule: &'a intent::Rule,
    pub(super) number: u32,
    pub(super) until: u32,
}

/// The intervals of some rules: where several match, each interval has the deny and the allow that
/// last longest, and of equals the one with the lowest number.
pub(super) fn intervals(rules: &[&Judged<'_>]) -> Vec<Interval> {
    // At each key, the rules whose services begin or have ended.
    let mut changes: BTreeMap<u32, Vec<(bool, usize)>> = BTreeMap::from([(0, Vec::new())]);
    for (index, judged) in rules.iter().enumerate() {
        for service in &judged.rule.services {
            changes
                .entry(service.first)
                .or_default()
                .push((true, index));
            changes
                .entry(service.last.saturating_add(1))
                .or_default()
                .push((false, index));
        }
    }
    let rank = |index: usize| {
        let judged = rules[index];
        let number = policy::rule_number(judged.number);
        // Of equals, one that lets others answer comes first.
        let asks = judged.number & ASKS == 0;
        (std::cmp::Reverse(judged.until), asks, number, index)
    };
    let (mut denies, mut allows) = (BTreeSet::new(), BTreeSet::new());
    let mut intervals: Vec<Interval> = Vec::new();
    for (start, changes) in changes {
        // Ends first: intervals of one rule do not overlap, but one may end where another begins.
        for (begins, index) in changes
            .iter()
            .filter(|(begins, _)| !begins)
            .chain(changes.iter().filter(|(begins, _)| *begins))
        {
            let active = match rules[*index].rule.action {
                Action::Deny => &mut denies,
                Action::Allow => &mut allows,
            };
            if *begins {
                active.insert(rank(*index));
            } else {
                active.remove(&rank(*index));
            }
        }
        let best = |active: &BTreeSet<(std::cmp::Reverse<u32>, bool, u32, usize)>| {
            let first = active.first();
            first.map_or((0, 0), |(until, .., index)| (rules[*index].number, until.0))
        };
        let ((deny, deny_until), (allow, allow_until)) = (best(&denies), best(&allows));
        let interval = Interval {
            start,
            deny,
            deny_until,
            allow,
            allow_until,
        };
        let same = |last: &Interval| Interval { start, ..*last } == interval;
        if !intervals.last().is_some_and(same) {
            intervals.push(interval);
        }
    }
    intervals
}

/// Which kinds of pairs exist with a name on either side.
pub(super) struct Kinds {
    pub(super) from: HashMap<u32, u16>,
    pub(super) to: HashMap<u32, u16>,
    /// The names of those who may reach others by their names.
    by_name: HashSet<u32>,
}

impl Kinds {
    pub(super) fn of(pairs: &BTreeMap<(u32, u32), Intervals>) -> Self {
        let (mut from, mut to) = (HashMap::new(), HashMap::new());
        let mut by_name = HashSet::new();
        // Every kept pair also exists without the mark.
        for (opener, other) in pairs.keys().filter(|(opener, _)| opener & KEPT == 0) {
            if other >> 28 == kind::DOMAIN {
                by_name.insert(*opener);
                continue;
            }
            let bit = pair_bit(opener >> 28, other >> 28);
            *from.entry(*opener).or_default() |= bit;
            *to.entry(*other).or_default() |= bit;
        }
        Self { from, to, by_name }
    }

    /// Which pairs there are with `any` on either side: stored once, not in each end, so that a
    /// rule with `any` does not change every end.
    pub(super) fn any(&self) -> u32 {
        let name = name(kind::ANY, 1);
        let bits = |kinds: &HashMap<u32, u16>| kinds.get(&name).copied().unwrap_or(0);
        zone::pairs_of_any(bits(&self.from), bits(&self.to))
    }

    /// Whether rules let everything but the router reach others by their names.
    pub(super) fn any_reaches_names(&self) -> bool {
        self.by_name.contains(&name(kind::ANY, 1))
    }

    /// Marks an end with the pairs that exist with its own names.
    pub(super) fn mark(&self, end: End) -> End {
        let (mut from, mut to, mut flags) = (0, 0, end.flags);
        for kind in [kind::CLASS, kind::ZONE, kind::REGION] {
            let name = end.name(kind);
            from |= self.from.get(&name).copied().unwrap_or(0);
            to |= self.to.get(&name).copied().unwrap_or(0);
            if self.by_name.contains(&name) {
                flags |= End::NAMES;
            }
        }
        End {
            from,
            to,
            flags,
            ..end
        }
    }
}
