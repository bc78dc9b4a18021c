//! Numbers for everything that the tables name by number: zones, devices, rules, networks.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use ipnet::IpNet;
use wardline_ebpf::abi::{ASKS, LOG, MAX_ZONES, ROUTER};

use crate::{
    intent::{self, Intent, Selector},
    limits::Limits,
    words::{domain::Domain, problem::Problem},
};

/// Kinds of numbers in [`Ids`].
pub mod numbered {
    #![expect(missing_docs, reason = "each is its own description")]
    pub const ZONE: &str = "zone";
    pub const DEVICE: &str = "device";
    pub const RULE: &str = "rule";
    pub const CIDR: &str = "cidr";
    pub const NAME: &str = "name";
}

/// Numbers for everything that the tables name by number.
///
/// A name keeps its number even when it is gone from the document, because flows and counters refer
/// to it. Only when the numbers run out, those of missing names are given to others.
///
/// # Errors
///
/// When there are more zones or networks than numbers.
pub fn number(intent: &Intent, ids: &Ids, limits: &Limits) -> Result<Ids, Vec<Problem>> {
    let names = |kind: &'static str| -> Vec<String> {
        match kind {
            numbered::ZONE => intent.zones.iter().map(|zone| zone.name.clone()).collect(),
            numbered::DEVICE => intent
                .devices
                .iter()
                .map(|device| device.name.clone())
                .collect(),
            numbered::RULE => intent.rules.iter().map(|rule| rule.name.clone()).collect(),
            numbered::NAME => domains(intent).iter().map(ToString::to_string).collect(),
            _ => cidrs(intent).iter().map(ToString::to_string).collect(),
        }
    };
    let kinds = [
        (numbered::ZONE, 1, MAX_ZONES - 1),
        (numbered::DEVICE, ROUTER + 1, limits.devices),
        (numbered::RULE, 1, limits.rules),
        (numbered::CIDR, 1, 1 << 24),
        // Far more than there may be at a time: what is known of a name must not become another's.
        (numbered::NAME, 1, 1 << 24),
    ];
    let mut problems = Vec::new();
    let named = domains(intent).len();
    if named > limits.names as usize {
        problems.push(Problem {
            path: "rules".to_owned(),
            message: format!("{named} names, but limits.names is {}", limits.names),
        });
    }
    let mut numbered = Ids::new();
    for (kind, first, count) in kinds {
        let wanted = names(kind);
        if wanted.len() > count as usize {
            problems.push(Problem {
                path: format!("{kind}s"),
                message: format!("{} {kind}s, but the tables hold {count}", wanted.len()),
            });
            continue;
        }
        let mut old: BTreeMap<&str, u32> = ids
            .iter()
            .filter(|((of, _), _)| of == kind)
            .map(|((_, name), number)| (name.as_str(), *number))
            .collect();
        let fresh = wanted
            .iter()
            .filter(|name| !old.contains_key(name.as_str()))
            .count();
        if old.len() + fresh > count as usize {
            let wanted: BTreeSet<&str> = wanted.iter().map(String::as_str).collect();
            old.retain(|name, _| wanted.contains(name));
        }
        let taken: BTreeSet<u32> = old.values().copied().collect();
        let mut free = (first..).filter(|number| !taken.contains(number));
        for name in &wanted {
            if !old.contains_key(name.as_str())
                && let Some(number) = free.next()
            {
                numbered.insert((kind.to_owned(), name.clone()), number);
            }
        }
        for (name, number) in old {
            numbered.insert((kind.to_owned(), name.to_owned()), number);
        }
    }
    if problems.is_empty() {
        Ok(numbered)
    } else {
        Err(problems)
    }
}

/// Whether everything has a number already, so that [`number`] would change none.
pub fn is_numbered(intent: &Intent, ids: &Ids, limits: &Limits) -> bool {
    let mut known: HashMap<&str, HashSet<&str>> = HashMap::new();
    for (kind, name) in ids.keys() {
        known.entry(kind).or_default().insert(name);
    }
    let has = |kind: &str, name: &str| known.get(kind).is_some_and(|names| names.contains(name));
    let fits = |kind: &str, count: u32| {
        let names = known.get(kind).map_or(0, HashSet::len);
        names <= count as usize
    };
    let (mut zones, mut devices) = (intent.zones.iter(), intent.devices.iter());
    zones.all(|zone| has(numbered::ZONE, &zone.name))
        && devices.all(|device| has(numbered::DEVICE, &device.name))
        && intent
            .rules
            .iter()
            .all(|rule| has(numbered::RULE, &rule.name))
        && cidrs(intent)
            .iter()
            .all(|net| has(numbered::CIDR, &net.to_string()))
        && domains(intent)
            .iter()
            .all(|name| has(numbered::NAME, &name.to_string()))
        && domains(intent).len() <= limits.names as usize
        && fits(numbered::DEVICE, limits.devices)
        && fits(numbered::RULE, limits.rules)
}

/// The `cidr:` selectors, once each.
pub(crate) fn cidrs(intent: &Intent) -> BTreeSet<IpNet> {
    let selectors = intent.rules.iter().flat_map(intent::Rule::selectors);
    selectors
        .filter_map(|selector| match selector {
            Selector::Cidr(net) => Some(*net),
            _ => None,
        })
        .collect()
}

/// The `name:` selectors, once each.
pub(crate) fn domains(intent: &Intent) -> BTreeSet<&Domain> {
    let selectors = intent.rules.iter().flat_map(intent::Rule::selectors);
    selectors
        .filter_map(|selector| match selector {
            Selector::Name(name) => Some(name),
            _ => None,
        })
        .collect()
}

/// The number of a rule, with the bits that say whether its flows are logged, and whether it lets
/// others answer.
pub(crate) fn rule_number(rule: &intent::Rule, ids: &Ids) -> u32 {
    let number = number_of(ids, numbered::RULE, &rule.name);
    let log = if rule.log { LOG } else { 0 };
    let asks = if rule.answers.is_empty() { 0 } else { ASKS };
    number | log | asks
}

/// The number that [`number`] gave to a name; 0, which is never given, if it gave none.
pub fn number_of(ids: &Ids, kind: &str, name: &str) -> u32 {
    ids.get(&(kind.to_owned(), name.to_owned()))
        .copied()
        .unwrap_or(0)
}

/// The number of each name, by kind: a number is not given to another name while this one is here.
pub type Ids = BTreeMap<(String, String), u32>;

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use jiff::Timestamp;

    use super::*;

    fn intent(devices: &[&str]) -> Intent {
        let mut text = "version: 1\nzones: [{name: pumps, subnets: [10.0.0.0/24]}]\n".to_owned();
        text += "rules: [{name: web, from: [zone:pumps], to: ['cidr:192.0.2.0/24'], services: [tcp/443], action: allow}]\ndevices:\n";
        for (n, name) in (1..).zip(devices) {
            text += &format!("  - {{name: {name}, zone: pumps, addresses: [10.0.0.{n}]}}\n");
        }
        let (policy, problems) = wardline_proto::document::parse(&text);
        assert!(problems.is_empty(), "{problems:?}");
        Intent::from_policy(&policy, &Limits::default(), Timestamp::UNIX_EPOCH).unwrap()
    }

    #[test]
    fn what_has_a_number_keeps_it() {
        let limits = Limits::default();
        let both = number(&intent(&["one", "two"]), &Ids::new(), &limits).unwrap();
        for fewer in [&["one", "two"][..], &["two"], &[]] {
            assert!(is_numbered(&intent(fewer), &both, &limits));
            assert_eq!(number(&intent(fewer), &both, &limits).unwrap(), both);
        }
        let other = intent(&["two", "three"]);
        assert!(!is_numbered(&other, &both, &limits));
        let numbers = number(&other, &both, &limits).unwrap();
        assert!(both.iter().all(|(key, number)| numbers[key] == *number));
        assert_eq!(numbers.len(), both.len() + 1);

        // With room for two, the missing device loses its number.
        let few = Limits {
            devices: 2,
            ..limits
        };
        assert!(!is_numbered(&intent(&["two"]), &numbers, &few));
        let numbers = number(&other, &both, &few).unwrap();
        assert_eq!(number_of(&numbers, numbered::DEVICE, "one"), 0);
        let freed = number_of(&both, numbered::DEVICE, "one");
        assert_eq!(number_of(&numbers, numbered::DEVICE, "three"), freed);
    }
}
