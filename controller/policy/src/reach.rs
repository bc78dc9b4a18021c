//! Which reachability a change of the policy opens and closes, and which rules have no effect.
//! Pure.
//!
//! Ends are what rules name: `any`, the internet, zones, devices, prefixes, the router. A pair of
//! ends may use the services of the allow rules that cover the whole pair, except those of a deny
//! rule that covers it. A deny rule that covers a part of a pair is reported as its exception. Only
//! pairs that a changed rule or a changed device names are examined, so the cost depends on the size
//! of the change.

mod answers;
mod view;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ipnet::IpNet;
use jiff::Timestamp;

use self::view::View;
use crate::{
    intent::{Action, Device, Intent},
    words::{
        domain::Domain,
        label::Label,
        service::{Service, meets, without},
    },
};

/// One end of a pair, as a rule names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Who<'a> {
    /// Everything but the router.
    Any,
    /// The router.
    Router,
    /// Globally reachable unicast addresses that are in no zone.
    Internet,
    /// A zone.
    Zone(&'a str),
    /// Addresses.
    Cidr(IpNet),
    /// The devices that have a label.
    Label(&'a Label),
    /// A device.
    Device(&'a str),
    /// What a name stands for.
    Name(&'a Domain),
}

/// A difference between two policies: what a pair of ends may do in only one of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reach<'a> {
    /// The opener.
    pub from: Who<'a>,
    /// The other end.
    pub to: Who<'a>,
    /// How many other devices change in the same way, represented by the first; 0: only the ends
    /// named.
    pub alike: usize,
    /// The services; sorted and disjoint.
    pub services: Vec<Service>,
    /// Whether the change opens it; else the change closes it.
    pub opens: bool,
    /// Whether it is only for answers: for ten seconds after a question, at the address and port
    /// that asked.
    pub answers: bool,
    /// The rules that allow it, of the new policy or of the old one.
    pub rules: Vec<&'a str>,
    /// Deny rules that exclude a part of the pair.
    pub except: Vec<&'a str>,
}

/// A rule without effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idle<'a> {
    /// The rule.
    pub rule: &'a str,
    /// Whether it can match at all; if it can, other rules always decide.
    pub matches: bool,
    /// Why, in words.
    pub why: String,
    /// The rules that decide in its place.
    pub covered_by: Vec<&'a str>,
}

/// The differences between two policies at a time: what closes first, then what opens, each with
/// the router's pairs first and then the widest; none when the answer is no longer `wanted`.
///
/// Thousands of changed rules take seconds, so it asks again and again whether anybody waits.
pub fn changes<'a>(
    old: &'a Intent,
    new: &'a Intent,
    now: Timestamp,
    wanted: &dyn Fn() -> bool,
) -> Option<Vec<Reach<'a>>> {
    let (before, after) = (View::new(old, now, wanted)?, View::new(new, now, wanted)?);
    let mut pairs: BTreeMap<(Who<'a>, Who<'a>), usize> = BTreeMap::new();
    for (one, other) in [(&before, &after), (&after, &before)] {
        let mut denied = BTreeSet::new();
        for rule in &one.intent.rules {
            let same = other
                .rule(&rule.name)
                .is_some_and(|it| other.says(it) == one.says(rule));
            if !same {
                pairs.extend(one.pairs_of(rule).into_iter().map(|pair| (pair, 0)));
                if rule.action == Action::Deny {
                    denied.extend(one.pairs_of(rule));
                }
            }
        }
        let parts = one.parts(&denied, wanted)?;
        pairs.extend(parts.into_iter().map(|pair| (pair, 0)));
    }
    moved(&before, &after, &mut pairs);
    let mut found = Vec::new();
    // Pairs come in the order of their openers, so what concerns an opener is looked for once.
    let mut opener = None;
    let mut denies = Vec::new();
    for ((from, to), alike) in pairs {
        if !wanted() {
            return None;
        }
        let (was, is) = (before.allowed(from, to), after.allowed(from, to));
        for (gone, kept, opens, view) in [(&was, &is, false, &before), (&is, &was, true, &after)] {
            let services = without(gone.services.clone(), &kept.services);
            if services.is_empty() {
                continue;
            }
            let rules = gone
                .by
                .iter()
                .filter(|rule| meets(&rule.services, &services));
            found.push(Reach {
                from,
                to,
                alike,
                rules: rules.map(|rule| rule.name.as_str()).collect(),
                except: if opens {
                    if opener.replace(from) != Some(from) {
                        denies = view.denies_from(from);
                    }
                    view.exceptions(&denies, to, &services)
                } else {
                    Vec::new()
                },
                services,
                opens,
                answers: false,
            });
        }
    }
    // A difference that a wider pair reports already is left out.
    let told: BTreeSet<(Who<'a>, Who<'a>, bool, Vec<Service>)> = found
        .iter()
        .map(|it| (it.from, it.to, it.opens, it.services.clone()))
        .collect();
    found.retain(|it| {
        let view = if it.opens { &after } else { &before };
        let wider = |from: Who<'a>, to: Who<'a>| {
            (from, to) != (it.from, it.to)
                && told.contains(&(from, to, it.opens, it.services.clone()))
        };
        let around = view.around(it.from);
        !around
            .iter()
            .any(|from| view.around(it.to).iter().any(|to| wider(*from, *to)))
    });
    found.extend(answers::changes(&before, &after));
    found.sort_by_key(|it| {
        (
            it.opens,
            it.from != Who::Router && it.to != Who::Router,
            it.from,
            it.to,
        )
    });
    Some(found)
}

/// Most pairs of ends that all rules of a policy may name together to be compared: each takes about a hundred
/// bytes.
pub const MOST_PAIRS: usize = 2_000_000;

/// How many pairs of ends all rules of a policy name together.
pub fn pairs_named(intent: &Intent) -> usize {
    let rules = intent.rules.iter();
    rules
        .map(|rule| rule.from.len().saturating_mul(rule.to.len()))
        .fold(0, usize::saturating_add)
}

/// The rules of a policy that have no effect at a time, by name; none when the answer is no longer
/// `wanted`.
pub fn idle<'a>(
    intent: &'a Intent,
    now: Timestamp,
    wanted: &dyn Fn() -> bool,
) -> Option<Vec<Idle<'a>>> {
    let view = View::new(intent, now, wanted)?;
    let mut idle = Vec::new();
    for rule in &intent.rules {
        if !wanted() {
            return None;
        }
        idle.extend(view.idle(rule));
    }
    Some(idle)
}

/// The zones that are empty: no device and no subnet.
pub fn empty_zones(intent: &Intent) -> Vec<&str> {
    let mut inhabited = vec![false; intent.zones.len()];
    for device in &intent.devices {
        inhabited[device.zone.0] = true;
    }
    let zones = intent.zones.iter().zip(inhabited);
    zones
        .filter(|(zone, inhabited)| !inhabited && zone.subnets.is_empty())
        .map(|(zone, _)| zone.name.as_str())
        .collect()
}

/// Adds the pairs of devices that are added, removed, or moved to other zones or addresses. Devices
/// that change in the same way and that no rule names are one pair, for the first of them.
fn moved<'a>(before: &View<'a>, after: &View<'a>, pairs: &mut BTreeMap<(Who<'a>, Who<'a>), usize>) {
    let place = |view: &View<'a>, other: &View<'a>, device: &'a Device| {
        let mut around = view.around(Who::Device(&device.name));
        around.remove(0);
        // A label that rules of one policy name is no other place; those rules tell of it.
        around.retain(|who| !matches!(who, Who::Label(label) if !other.names_label(label)));
        around
    };
    let mut alike: BTreeMap<[Option<Vec<Who<'a>>>; 2], Vec<&'a str>> = BTreeMap::new();
    for (one, other, is_new) in [(before, after, false), (after, before, true)] {
        for device in &one.intent.devices {
            let here = place(one, other, device);
            let there = other
                .device(&device.name)
                .map(|device| place(other, one, device));
            // Unchanged devices are skipped; others in both policies are handled from the old side.
            if there.as_ref() == Some(&here) || (is_new && there.is_some()) {
                continue;
            }
            let key = if is_new {
                [there, Some(here)]
            } else {
                [Some(here), there]
            };
            alike.entry(key).or_default().push(&device.name);
        }
    }
    if alike.is_empty() {
        return;
    }
    let mut ends: HashMap<Who<'a>, BTreeSet<(bool, Who<'a>)>> = HashMap::new();
    for (from, to) in before.by_pair.keys().chain(after.by_pair.keys()) {
        ends.entry(*from).or_default().insert((true, *to));
        ends.entry(*to).or_default().insert((false, *from));
    }
    for ([old, new], devices) in alike {
        let named: Vec<&str> = devices
            .iter()
            .copied()
            .filter(|name| ends.contains_key(&Who::Device(name)))
            .collect();
        let plain = devices
            .iter()
            .copied()
            .find(|name| !ends.contains_key(&Who::Device(name)));
        let count = devices.len() - named.len();
        let representatives = named
            .into_iter()
            .map(|name| (name, 0))
            .chain(plain.map(|name| (name, if count > 1 { count } else { 0 })));
        for (name, count) in representatives {
            let who = Who::Device(name);
            let around = [who];
            let around = around
                .iter()
                .chain(old.iter().flatten())
                .chain(new.iter().flatten());
            for end in around {
                for (opens, other) in ends.get(end).into_iter().flatten() {
                    let pair = if *opens { (who, *other) } else { (*other, who) };
                    pairs.entry(pair).or_insert(count);
                }
            }
        }
    }
}

impl std::fmt::Display for Who<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::Router => f.write_str("router"),
            Self::Internet => f.write_str("internet"),
            Self::Zone(name) => write!(f, "zone:{name}"),
            Self::Label(label) => write!(f, "label:{label}"),
            Self::Device(name) => write!(f, "device:{name}"),
            Self::Cidr(net) => write!(f, "cidr:{net}"),
            Self::Name(name) => write!(f, "name:{name}"),
        }
    }
}

#[cfg(test)]
mod tests;
