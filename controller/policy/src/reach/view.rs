//! What the rules of one policy say of a pair of ends: which cover it, which deny a part of it, which are
//! never asked.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
};

use ipnet::IpNet;
use jiff::Timestamp;

use super::{Idle, Who};
use crate::{
    intent::{Action, Device, Intent, Rule, Selector},
    internet,
    words::{
        domain::Domain,
        label::Label,
        service::{Service, covers, meets, merge, without},
    },
};

/// A policy with indexes for these lookups.
pub(super) struct View<'a> {
    pub(super) intent: &'a Intent,
    now: Timestamp,
    /// The rules in effect, by each pair that they name.
    pub(super) by_pair: HashMap<(Who<'a>, Who<'a>), Vec<&'a Rule>>,
    /// The lengths of the prefixes that rules name.
    lengths: BTreeSet<(bool, u8)>,
    nets: BTreeSet<IpNet>,
    /// The names below which rules name all others.
    below: HashMap<&'a str, &'a Domain>,
    /// The addresses of devices; none when no rule in effect names the internet.
    owned: Option<BTreeSet<IpAddr>>,
    /// The deny rules in effect.
    denies: Vec<&'a Rule>,
}

/// The services of a pair, and the rules that allow them.
#[derive(Default)]
pub(super) struct Allowed<'a> {
    pub(super) services: Vec<Service>,
    pub(super) by: Vec<&'a Rule>,
}

impl<'a> View<'a> {
    pub(super) fn new(
        intent: &'a Intent,
        now: Timestamp,
        wanted: &dyn Fn() -> bool,
    ) -> Option<Self> {
        let mut view = Self {
            intent,
            now,
            by_pair: HashMap::new(),
            lengths: BTreeSet::new(),
            nets: BTreeSet::new(),
            below: HashMap::new(),
            owned: None,
            denies: Vec::new(),
        };
        for rule in &intent.rules {
            if !wanted() {
                return None;
            }
            if !view.holds(rule) {
                continue;
            }
            if rule.action == Action::Deny {
                view.denies.push(rule);
            }
            for pair in view.pairs_of(rule) {
                view.by_pair.entry(pair).or_default().push(rule);
            }
            for selector in rule.selectors() {
                match selector {
                    Selector::Cidr(net) => {
                        view.lengths
                            .insert((net.addr().is_ipv4(), net.prefix_len()));
                        view.nets.insert(*net);
                    }
                    Selector::Name(domain) if domain.is_below() => {
                        view.below.insert(domain.name(), domain);
                    }
                    Selector::Internet if view.owned.is_none() => {
                        let addresses = intent.devices.iter().flat_map(|it| &it.addresses);
                        view.owned = Some(addresses.copied().collect());
                    }
                    Selector::Internet
                    | Selector::Any
                    | Selector::Router
                    | Selector::Zone(_)
                    | Selector::Label(_)
                    | Selector::Name(_)
                    | Selector::Device(_) => {}
                }
            }
        }
        Some(view)
    }

    pub(super) fn holds(&self, rule: &Rule) -> bool {
        rule.expires.is_none_or(|expires| expires > self.now)
    }

    pub(super) fn rule(&self, name: &str) -> Option<&'a Rule> {
        let rules = &self.intent.rules;
        let at = rules
            .binary_search_by(|rule| rule.name.as_str().cmp(name))
            .ok()?;
        Some(&rules[at])
    }

    pub(super) fn device(&self, name: &str) -> Option<&'a Device> {
        let devices = &self.intent.devices;
        let at = devices
            .binary_search_by(|device| device.name.as_str().cmp(name))
            .ok()?;
        Some(&devices[at])
    }

    /// The devices that have a label, also one that only rules of the other policy name.
    fn labelled(&self, label: &Label) -> Vec<&'a Device> {
        let (labels, all) = (&self.intent.labels, &self.intent.devices);
        match labels.binary_search_by(|it| it.label.cmp(label)) {
            Ok(at) => labels[at].devices.iter().map(|at| &all[at.0]).collect(),
            Err(_) => {
                let all = all.iter();
                all.filter(|it| self.intent.is_labelled(it, label))
                    .collect()
            }
        }
    }

    pub(super) fn names_label(&self, label: &Label) -> bool {
        let labels = &self.intent.labels;
        labels.binary_search_by(|it| it.label.cmp(label)).is_ok()
    }

    /// The parts of a rule that affect decisions, in names that both policies know.
    pub(super) fn says(&self, rule: &'a Rule) -> ([Vec<Who<'a>>; 3], &'a [Service], Action, bool) {
        let ends = |selectors: &'a [Selector]| selectors.iter().map(|it| self.who(it)).collect();
        (
            [&rule.from, &rule.to, &rule.answers].map(|it| ends(it)),
            &rule.services,
            rule.action,
            self.holds(rule),
        )
    }

    pub(super) fn who(&self, selector: &'a Selector) -> Who<'a> {
        match selector {
            Selector::Any => Who::Any,
            Selector::Router => Who::Router,
            Selector::Internet => Who::Internet,
            Selector::Zone(zone) => Who::Zone(&self.intent.zones[zone.0].name),
            Selector::Device(device) => Who::Device(&self.intent.devices[device.0].name),
            Selector::Label(label) => Who::Label(&self.intent.labels[label.0].label),
            Selector::Cidr(net) => Who::Cidr(*net),
            Selector::Name(name) => Who::Name(name),
        }
    }

    pub(super) fn pairs_of(&self, rule: &'a Rule) -> Vec<(Who<'a>, Who<'a>)> {
        let to: Vec<Who<'a>> = rule.to.iter().map(|it| self.who(it)).collect();
        let pairs = rule.from.iter().flat_map(|from| {
            let from = self.who(from);
            to.iter().map(move |to| (from, *to))
        });
        pairs.collect()
    }

    /// The intersections of denied pairs with pairs that rules allow, where one end is inside the
    /// other; none when they are no longer `wanted`.
    pub(super) fn parts(
        &self,
        denied: &BTreeSet<(Who<'a>, Who<'a>)>,
        wanted: &dyn Fn() -> bool,
    ) -> Option<BTreeSet<(Who<'a>, Who<'a>)>> {
        let allowed: BTreeSet<(Who<'a>, Who<'a>)> = self
            .by_pair
            .iter()
            .filter(|(_, rules)| rules.iter().any(|rule| rule.action == Action::Allow))
            .map(|(pair, _)| *pair)
            .collect();
        let nested = [
            self.nested(denied.iter().chain(&allowed).map(|(from, _)| *from)),
            self.nested(denied.iter().chain(&allowed).map(|(_, to)| *to)),
        ];
        let mut parts = BTreeSet::new();
        for (from, to) in denied {
            if !wanted() {
                return None;
            }
            let (others, to_others) = (&nested[0][from], &nested[1][to]);
            for (other_from, from) in others {
                // `Any` is the first of all ends.
                let pairs = allowed.range((*other_from, Who::Any)..);
                let pairs = pairs.take_while(|(from, _)| from == other_from);
                parts.extend(pairs.filter_map(|(_, to)| Some((*from, *to_others.get(to)?))));
            }
        }
        Some(parts)
    }

    /// For each of some ends, the others of them that contain it or that it contains, and itself; with the
    /// narrower of the two.
    fn nested(
        &self,
        ends: impl Iterator<Item = Who<'a>>,
    ) -> HashMap<Who<'a>, HashMap<Who<'a>, Who<'a>>> {
        let ends: BTreeSet<Who<'a>> = ends.collect();
        let mut nested: HashMap<_, HashMap<_, _>> = HashMap::new();
        for end in &ends {
            for wider in self.around(*end) {
                if ends.contains(&wider) {
                    nested.entry(*end).or_default().insert(wider, *end);
                    nested.entry(wider).or_default().insert(*end, *end);
                }
            }
        }
        nested
    }

    /// Every end that contains the whole of this one, itself first.
    pub(super) fn around(&self, who: Who<'a>) -> Vec<Who<'a>> {
        let mut around = vec![who];
        match who {
            Who::Any | Who::Router => return around,
            Who::Internet => {}
            Who::Zone(name) => {
                if let Some(zone) = self.intent.zones.iter().find(|zone| zone.name == name)
                    && let [first, rest @ ..] = &zone.subnets[..]
                {
                    let all = self.nets_around(*first);
                    let all = all.filter(|net| rest.iter().all(|other| net.contains(other)));
                    around.extend(all.map(Who::Cidr));
                }
            }
            Who::Cidr(net) => {
                let wider = self.nets_around(net).filter(|wider| *wider != net);
                around.extend(wider.map(Who::Cidr));
                around.extend(self.zone_around(net).map(Who::Zone));
                if self.is_internet(net) {
                    around.push(Who::Internet);
                }
            }
            Who::Name(domain) => {
                let wider = domain.around().filter_map(|name| self.below.get(name));
                around.extend(wider.map(|domain| Who::Name(domain)));
            }
            Who::Label(label) => {
                let devices = self.labelled(label);
                if let [first, rest @ ..] = &devices[..] {
                    let labels = self.intent.labels.iter().map(|it| &it.label);
                    let has = |other: &Label| {
                        let mut devices = devices.iter();
                        other != label && devices.all(|it| self.intent.is_labelled(it, other))
                    };
                    around.extend(labels.filter(|other| has(other)).map(Who::Label));
                    if rest.iter().all(|device| device.zone == first.zone) {
                        around.push(Who::Zone(&self.intent.zones[first.zone.0].name));
                    }
                }
            }
            Who::Device(name) => {
                if let Some(device) = self.device(name) {
                    let labels = self.intent.labels.iter().map(|it| &it.label);
                    let labels = labels.filter(|label| self.intent.is_labelled(device, label));
                    around.extend(labels.map(Who::Label));
                    around.push(Who::Zone(&self.intent.zones[device.zone.0].name));
                    if let [first, rest @ ..] = &device.addresses[..] {
                        let all = self.nets_around(IpNet::from(*first));
                        let all = all.filter(|net| rest.iter().all(|other| net.contains(other)));
                        around.extend(all.map(Who::Cidr));
                    }
                }
            }
        }
        around.push(Who::Any);
        around
    }

    /// The prefixes of rules that contain this one.
    fn nets_around(&self, net: IpNet) -> impl Iterator<Item = IpNet> {
        let v4 = net.addr().is_ipv4();
        self.lengths
            .iter()
            .filter(move |(of_v4, length)| *of_v4 == v4 && *length <= net.prefix_len())
            .filter_map(move |(_, length)| IpNet::new(net.addr(), *length).ok())
            .map(|net| net.trunc())
            .filter(|net| self.nets.contains(net))
    }

    /// The zone that contains all addresses of a prefix.
    fn zone_around(&self, net: IpNet) -> Option<&'a str> {
        let subnets = self.intent.zones.iter().flat_map(|zone| {
            zone.subnets
                .iter()
                .map(move |subnet| (subnet, zone.name.as_str()))
        });
        let mut best: Option<(u8, Option<&'a str>)> = None;
        for (subnet, zone) in subnets {
            if subnet.contains(&net) {
                match best {
                    Some((length, _)) if length > subnet.prefix_len() => {}
                    // Several zones share it.
                    Some((length, _)) if length == subnet.prefix_len() => {
                        best = Some((length, None));
                    }
                    _ => best = Some((subnet.prefix_len(), Some(zone))),
                }
            } else if net.contains(subnet) {
                return None;
            }
        }
        best.and_then(|(_, zone)| zone)
    }

    /// Whether a rule in effect names the internet, and all addresses of a prefix are of it.
    fn is_internet(&self, net: IpNet) -> bool {
        let Some(owned) = &self.owned else {
            return false;
        };
        let is_free = |net: IpNet| {
            let mut subnets = self.intent.zones.iter().flat_map(|zone| &zone.subnets);
            let meets = |subnet: &IpNet| subnet.contains(&net) || net.contains(subnet);
            owned
                .range(net.network()..=net.broadcast())
                .next()
                .is_none()
                && !subnets.any(meets)
        };
        let translated = internet::untranslated(net).map(IpNet::V4);
        internet::covers(net) && is_free(net) && translated.is_none_or(is_free)
    }

    /// The rules that cover the whole of a pair.
    fn covering(&self, from: Who<'a>, to: Who<'a>) -> Vec<&'a Rule> {
        let to = self.around(to);
        let mut rules = Vec::new();
        for from in self.around(from) {
            for to in &to {
                rules.extend(
                    self.by_pair
                        .get(&(from, *to))
                        .into_iter()
                        .flatten()
                        .copied(),
                );
            }
        }
        rules
    }

    pub(super) fn allowed(&self, from: Who<'a>, to: Who<'a>) -> Allowed<'a> {
        if self.is_gone(from) || self.is_gone(to) {
            return Allowed::default();
        }
        let (mut allows, mut denies, mut by) = (Vec::new(), Vec::new(), Vec::new());
        for rule in self.covering(from, to) {
            match rule.action {
                Action::Allow => {
                    allows.extend_from_slice(&rule.services);
                    by.push(rule);
                }
                Action::Deny => denies.extend_from_slice(&rule.services),
            }
        }
        by.sort_by(|a, b| a.name.cmp(&b.name));
        by.dedup_by(|a, b| a.name == b.name);
        Allowed {
            services: without(merge(allows), &merge(denies)),
            by,
        }
    }

    fn is_gone(&self, who: Who<'a>) -> bool {
        match who {
            Who::Device(name) => self.device(name).is_none(),
            Who::Zone(name) => !self.intent.zones.iter().any(|zone| zone.name == name),
            Who::Label(label) => self.labelled(label).is_empty(),
            Who::Any | Who::Router | Who::Internet | Who::Name(_) | Who::Cidr(_) => false,
        }
    }

    /// The deny rules that concern a part of this opener.
    pub(super) fn denies_from(&self, from: Who<'a>) -> Vec<&'a Rule> {
        let denies = self.denies.iter().copied();
        denies
            .filter(|it| self.names_part_of(&it.from, from))
            .collect()
    }

    /// Those of some deny rules that concern a part of this other end, for any of these services.
    pub(super) fn exceptions(
        &self,
        denies: &[&'a Rule],
        to: Who<'a>,
        services: &[Service],
    ) -> Vec<&'a str> {
        let denies = denies
            .iter()
            .filter(|rule| meets(&rule.services, services) && self.names_part_of(&rule.to, to));
        denies.map(|rule| rule.name.as_str()).collect()
    }

    fn names_part_of(&self, selectors: &'a [Selector], whole: Who<'a>) -> bool {
        let mut ends = selectors.iter().map(|it| self.who(it));
        ends.any(|who| self.overlap(whole, who))
    }

    /// Whether two ends may have an address in common.
    fn overlap(&self, one: Who<'a>, other: Who<'a>) -> bool {
        let inside = |device: &str, zone: &str| {
            self.device(device)
                .is_some_and(|it| self.intent.zones[it.zone.0].name == zone)
        };
        let at = |device: &str, net: IpNet| {
            let has = |it: &Device| {
                let inside = |address: &IpAddr| net.contains(address);
                it.learns(net.addr().is_ipv4()) || it.addresses.iter().any(inside)
            };
            self.device(device).is_some_and(has)
        };
        let crosses = |zone: &str, net: IpNet| {
            let zone = self.intent.zones.iter().find(|it| it.name == zone);
            let meets = |subnet: &IpNet| subnet.contains(&net) || net.contains(subnet);
            zone.is_some_and(|zone| zone.subnets.iter().any(meets))
        };
        // A label means its devices.
        let of_label = |label: &Label, other: Who<'a>| {
            let mut devices = self.labelled(label).into_iter();
            devices.any(|device| self.overlap(Who::Device(&device.name), other))
        };
        match (one, other) {
            (Who::Router, other) => other == Who::Router,
            (one, Who::Router) => one == Who::Router,
            (Who::Any, _) | (_, Who::Any) | (Who::Internet, Who::Internet) => true,
            // A name stands for no device and nothing in a zone.
            (Who::Name(_), Who::Label(_) | Who::Zone(_) | Who::Device(_))
            | (Who::Label(_) | Who::Zone(_) | Who::Device(_), Who::Name(_)) => false,
            (Who::Name(a), Who::Name(b)) => a.covers(b) || b.covers(a),
            // It may stand for any other address.
            (Who::Name(_), Who::Internet | Who::Cidr(_))
            | (Who::Internet | Who::Cidr(_), Who::Name(_)) => true,
            (Who::Label(label), other) | (other, Who::Label(label)) => of_label(label, other),
            (Who::Internet, Who::Cidr(net)) | (Who::Cidr(net), Who::Internet) => {
                internet::meets(net) && self.zone_around(net).is_none()
            }
            (Who::Internet, Who::Zone(_) | Who::Device(_))
            | (Who::Zone(_) | Who::Device(_), Who::Internet) => false,
            (Who::Zone(a), Who::Zone(b)) | (Who::Device(a), Who::Device(b)) => a == b,
            (Who::Device(device), Who::Zone(zone)) | (Who::Zone(zone), Who::Device(device)) => {
                inside(device, zone)
            }
            (Who::Device(device), Who::Cidr(net)) | (Who::Cidr(net), Who::Device(device)) => {
                at(device, net)
            }
            (Who::Zone(zone), Who::Cidr(net)) | (Who::Cidr(net), Who::Zone(zone)) => {
                crosses(zone, net)
            }
            (Who::Cidr(a), Who::Cidr(b)) => a.contains(&b) || b.contains(&a),
        }
    }

    /// Why a rule has no effect; none if it has one.
    pub(super) fn idle(&self, rule: &'a Rule) -> Option<Idle<'a>> {
        let never = |why: String| {
            Some(Idle {
                rule: &rule.name,
                matches: false,
                why,
                covered_by: Vec::new(),
            })
        };
        if let Some(expires) = rule.expires.filter(|expires| *expires <= self.now) {
            return never(format!("it expired at {expires}"));
        }
        let pairs = self.pairs_of(rule);
        if pairs
            .iter()
            .all(|(from, to)| *from == Who::Router && *to == Who::Router)
        {
            return never("the router's packets to itself are not judged".to_owned());
        }
        let nobody = |who: &Who<'a>| match who {
            Who::Zone(name) => self.is_empty(name),
            Who::Label(label) => self.labelled(label).is_empty(),
            Who::Any
            | Who::Router
            | Who::Internet
            | Who::Name(_)
            | Who::Cidr(_)
            | Who::Device(_) => false,
        };
        if pairs.iter().all(|(from, to)| nobody(from) || nobody(to)) {
            return never("nobody is in its zones, or has its labels".to_owned());
        }
        let mut covered_by = BTreeSet::new();
        let mut denied = true;
        for (from, to) in pairs
            .iter()
            .filter(|(from, to)| !nobody(from) && !nobody(to))
        {
            let cover = self
                .covering(*from, *to)
                .into_iter()
                .filter(|other| self.replaces(other, rule))
                // A deny rule always decides; among equals the first by name does.
                .min_by_key(|other| (other.action == Action::Allow, &other.name))?;
            denied &= cover.action == Action::Deny && rule.action == Action::Allow;
            covered_by.insert(cover.name.as_str());
        }
        let why = if denied {
            "all that it allows is denied"
        } else {
            "others decide the same, or deny it"
        };
        Some(Idle {
            rule: &rule.name,
            matches: true,
            why: why.to_owned(),
            covered_by: covered_by.into_iter().collect(),
        })
    }

    pub(super) fn is_empty(&self, zone: &str) -> bool {
        let zones = &self.intent.zones;
        let Some(at) = zones.iter().position(|it| it.name == zone) else {
            return false;
        };
        zones[at].subnets.is_empty() && !self.intent.devices.iter().any(|it| it.zone.0 == at)
    }

    /// Whether another rule decides wherever this one would, on a pair that both cover.
    fn replaces(&self, other: &Rule, rule: &Rule) -> bool {
        let lasts = match (other.expires, rule.expires) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(other), Some(rule)) => other >= rule,
        };
        if other.name == rule.name || !lasts || !covers(&other.services, &rule.services) {
            return false;
        }
        match (other.action, rule.action) {
            (Action::Deny, Action::Allow) => true,
            (Action::Allow, Action::Deny) => false,
            // Only this one may let others answer.
            (Action::Allow, Action::Allow) if !rule.answers.is_empty() => false,
            // Logged flows make events, which would be missing with a rule that does not log.
            (Action::Allow, Action::Allow) if rule.log && !other.log => false,
            // The other rule may not hold in quarantine.
            (Action::Allow, Action::Allow) if rule.kept && !other.kept => false,
            _ => {
                let same = other.expires == rule.expires
                    && other.services == rule.services
                    && other.from == rule.from
                    && other.to == rule.to
                    && other.answers == rule.answers
                    && other.log == rule.log;
                !same || other.name < rule.name
            }
        }
    }
}
