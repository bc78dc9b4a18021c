//! Every interface of the router: guarded how, or why not and what follows from that.

use std::collections::BTreeMap;

use wardline_datapath::listening;
use wardline_policy::inventory::Link;
use wardline_proto::v1;

use super::{convert::attached, view::View};
use crate::engine::state::{Attached, PortState, State};

/// The index of the loopback in every network namespace.
const LOOPBACK: u32 = 1;
/// Most interfaces between one and what judges its packets.
const DEPTH: u32 = 8;
/// Most names in one sentence.
const NAMED: usize = 16;

impl View {
    /// Every interface of the router.
    pub(super) fn interfaces(&self) -> Vec<v1::InterfaceStatus> {
        let state = self.state();
        interfaces(&state, &listening::services())
    }
}

/// Every interface, by name; `listening` is what the router's own services listen on, in words.
fn interfaces(state: &State, listening: &[String]) -> Vec<v1::InterfaceStatus> {
    let router = Router::new(state, listening);
    let links = state.snapshot.inventory.links.values();
    let mut told: Vec<_> = links.map(|link| router.interface(link)).collect();
    told.sort_by(|a, b| a.name.cmp(&b.name));
    told
}

/// What is known of all interfaces together.
struct Router<'a> {
    state: &'a State,
    ports: BTreeMap<u32, &'a PortState>,
    members: BTreeMap<u32, Vec<&'a Link>>,
    alternatives: BTreeMap<u32, &'a str>,
    listening: String,
}

impl<'a> Router<'a> {
    fn new(state: &'a State, listening: &[String]) -> Self {
        let mut members: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for link in state.snapshot.inventory.links.values() {
            if let Some(controller) = link.controller {
                members.entry(controller).or_default().push(link);
            }
        }
        // Those that a port of the document would be, if ports went by such names.
        let alternatives = state.snapshot.inventory.alternatives.iter();
        let alternatives = alternatives
            .filter(|(name, _)| state.snapshot.intent.port_for(name).is_some())
            .map(|(name, number)| (*number, name.as_str()));
        Self {
            ports: state.ports.iter().map(|it| (it.number, it)).collect(),
            members,
            alternatives: alternatives.collect(),
            listening: listed(listening.iter().map(String::as_str)),
            state,
        }
    }

    fn interface(&self, link: &Link) -> v1::InterfaceStatus {
        let port = self.ports.get(&link.number);
        let pattern = self.state.snapshot.intent.port_for(&link.name);
        let hook = port.map_or(Attached::None, |port| port.attached);
        let elsewhere = self.judged_elsewhere(link);
        let mut reason = match (port, &elsewhere) {
            (Some(port), _) => port.reason.clone(),
            (None, Some(where_)) => where_.clone(),
            (None, None) => self.why_not(link),
        };
        let exposes = match (hook, elsewhere) {
            (Attached::None, None) if link.ifindex != LOOPBACK && link.up => self.exposes(link),
            _ => Vec::new(),
        };
        if !link.up {
            let and = if reason.is_empty() { "" } else { "; " };
            reason += &format!("{and}it is down");
        }
        v1::InterfaceStatus {
            name: link.name.clone(),
            index: link.ifindex,
            kind: kind(link).to_owned(),
            guarded: attached(hook).into(),
            port: pattern.map_or_else(String::new, |port| port.pattern.as_str().to_owned()),
            zone: port.map_or_else(String::new, |port| port.zone.clone()),
            reason,
            exposes,
        }
    }

    fn is_guarded(&self, link: &Link) -> bool {
        let port = self.ports.get(&link.number);
        port.is_some_and(|port| port.attached != Attached::None)
    }

    /// Whether everything that goes through an interface is judged, there or at others.
    fn is_judged(&self, link: &Link, depth: u32) -> bool {
        self.is_guarded(link) || (depth > 0 && self.where_else(link, depth - 1).is_some())
    }

    fn judged_elsewhere(&self, link: &Link) -> Option<String> {
        self.where_else(link, DEPTH)
    }

    /// At which other interfaces all packets of this one are judged, in words.
    fn where_else(&self, link: &Link, depth: u32) -> Option<String> {
        let links = &self.state.snapshot.inventory.links;
        let below = link.parent.and_then(|parent| links.get(&parent));
        if let Some(below) = below.filter(|below| self.is_judged(below, depth)) {
            return Some(format!(
                "its packets are judged below it, at {}",
                below.name
            ));
        }
        let above = link.controller.and_then(|above| links.get(&above));
        if let Some(above) = above.filter(|it| is_bond(it) && self.is_guarded(it)) {
            return Some(format!(
                "its packets are judged above it, at {}",
                above.name
            ));
        }
        let members = self.members.get(&link.number)?;
        let all = (is_bond(link) || is_bridge(link))
            && members.iter().all(|it| self.is_judged(it, depth));
        all.then(|| {
            let names = listed(members.iter().map(|it| it.name.as_str()));
            format!("its packets are judged at its members: {names}")
        })
    }

    /// Why no port is this interface.
    fn why_not(&self, link: &Link) -> String {
        if link.ifindex == LOOPBACK {
            return "the router's own loopback".to_owned();
        }
        if self.state.snapshot.revision == 0 && self.state.ports.is_empty() {
            return "no policy is in force".to_owned();
        }
        match self.alternatives.get(&link.number) {
            Some(name) => format!(
                "a port of the document has {name}, an alternative name of it, and ports go by the \
                 name: write {}",
                link.name
            ),
            None => "no port of the document has it".to_owned(),
        }
    }

    /// What follows from an interface whose packets nothing judges.
    fn exposes(&self, link: &Link) -> Vec<String> {
        let inventory = &self.state.snapshot.inventory;
        let mut told = Vec::new();
        let port = self.ports.get(&link.number);
        if port.is_some() {
            told.push("nothing that its devices send or receive is judged here".to_owned());
        }
        let bridge = link
            .controller
            .and_then(|above| inventory.links.get(&above));
        let bridge = bridge.filter(|above| is_bridge(above));
        // Where the router's own stack takes what enters here.
        let mut stack = link;
        if let Some(bridge) = bridge {
            let siblings = self.members.get(&bridge.number).into_iter().flatten();
            let guarded = siblings.filter(|it| self.is_judged(it, DEPTH));
            let guarded: Vec<_> = guarded.map(|it| it.name.as_str()).collect();
            if self.is_guarded(bridge) {
                told.push(format!(
                    "frames between it and other members of bridge {} are not judged, only what goes \
                     through the bridge itself",
                    bridge.name
                ));
            } else if !guarded.is_empty() {
                told.push(format!(
                    "frames between its hosts and the guarded ports {} of bridge {} are judged at \
                     those ports only; what its hosts send to the router, or to what else is not \
                     guarded, is not judged",
                    listed(guarded.into_iter()),
                    bridge.name
                ));
                stack = bridge;
            }
        }
        // Of a bridge with guarded members only the other members are open.
        let members = self.members.get(&link.number).into_iter().flatten();
        let mixed = is_bridge(link) && members.into_iter().any(|it| self.is_judged(it, DEPTH));
        let hosts = if mixed {
            "hosts at its members that are not guarded"
        } else {
            "hosts there"
        };
        for net in self.addresses(link) {
            if let Some(zone) = self.guarded_zone(net.addr()) {
                told.push(format!(
                    "has {net}, an address of guarded zone {zone}: what {hosts} send to the router is \
                     not judged"
                ));
            }
        }
        let takes = self.addresses(stack).next().is_some();
        if takes && !mixed && !self.listening.is_empty() {
            told.push(format!(
                "the router's own services are open there, as far as Wardline goes: {}",
                self.listening
            ));
        }
        told
    }

    fn addresses(&self, link: &Link) -> impl Iterator<Item = ipnet::IpNet> {
        let own = self.state.snapshot.inventory.own.iter();
        let number = link.number;
        own.filter(move |(of, _)| *of == number)
            .map(|(_, net)| *net)
    }

    /// The zone of an address by its subnets, if it has a port.
    fn guarded_zone(&self, address: std::net::IpAddr) -> Option<&str> {
        let intent = &self.state.snapshot.intent;
        let zones = intent.zones.iter().enumerate();
        let nets = zones.flat_map(|(at, zone)| zone.subnets.iter().map(move |net| (net, at, zone)));
        let (_, at, zone) = nets
            .filter(|(net, ..)| net.contains(&address))
            .max_by_key(|(net, ..)| net.prefix_len())?;
        let mut ports = intent.ports.iter();
        let has_port = ports.any(|port| port.carries(wardline_policy::intent::ZoneIndex(at)));
        has_port.then_some(zone.name.as_str())
    }
}

fn is_bridge(link: &Link) -> bool {
    link.kind.as_deref() == Some("bridge")
}

fn is_bond(link: &Link) -> bool {
    matches!(link.kind.as_deref(), Some("bond" | "team"))
}

fn kind(link: &Link) -> &str {
    match &link.kind {
        _ if link.ifindex == LOOPBACK => "loopback",
        Some(kind) => kind,
        None => "hardware",
    }
}

/// Names, at most so many.
fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<_> = names.collect();
    let shown = names[..names.len().min(NAMED)].join(", ");
    match names.len().saturating_sub(NAMED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
