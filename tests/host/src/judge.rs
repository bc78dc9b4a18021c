//! What `compile` and `decide` make of a policy and a frame, on the host: no kernel, no root.

use std::net::IpAddr;

use jiff::Timestamp;
use wardline_ebpf::{
    abi::{Address, Reason, Settings, TICK_SHIFT},
    decide::{self, Work},
};
use wardline_oracle::{
    oracle::{Entry, Probe},
    random::{self, CONNECTED, ROUTER_MAC, TOLD},
    sequence::{From, Where},
};
use wardline_policy::{
    clock::Clock,
    compile,
    intent::Intent,
    inventory::{Inventory, Link},
    limits::Limits,
    model::Model,
    numbers::{self, Ids, numbered},
    quarantine::Quarantine,
    tables::Tables,
    words::{domain::Domain, mac::Mac},
};
use wardline_proto::{document, v1};

/// A policy, compiled for interfaces that exist.
pub struct Compiled {
    pub ids: Ids,
    pub tables: Tables,
    pub inventory: Inventory,
    pub clock: Clock,
}

impl Compiled {
    /// Compiles a document that is known to be valid.
    pub fn new(policy: &v1::Policy, inventory: &Inventory, clock: Clock) -> Self {
        Self::with_numbers(policy, inventory, clock, &Ids::new())
    }

    /// Compiles with numbers that an earlier revision gave.
    pub fn with_numbers(
        policy: &v1::Policy,
        inventory: &Inventory,
        clock: Clock,
        ids: &Ids,
    ) -> Self {
        let limits = limits();
        let intent = Intent::from_accepted(policy, &limits, clock.now).unwrap_or_else(|problems| {
            panic!("{problems:#?}\n{}", document::policy_to_yaml(policy))
        });
        Self::intended(&intent, &Quarantine::default(), inventory, clock, ids)
    }

    /// Compiles the document that comes after this one.
    pub fn next(&self, policy: &v1::Policy) -> Self {
        Self::with_numbers(policy, &self.inventory, self.clock, &self.ids)
    }

    /// Compiles a document that may be refused.
    pub fn of_valid(
        policy: &v1::Policy,
        quarantined: &Quarantine,
        inventory: &Inventory,
        clock: Clock,
    ) -> Option<Self> {
        let intent = Intent::from_accepted(policy, &limits(), clock.now).ok()?;
        Some(Self::intended(
            &intent,
            quarantined,
            inventory,
            clock,
            &Ids::new(),
        ))
    }

    fn intended(
        intent: &Intent,
        quarantined: &Quarantine,
        inventory: &Inventory,
        clock: Clock,
        ids: &Ids,
    ) -> Self {
        let limits = limits();
        let ids = numbers::number(intent, ids, &limits).unwrap();
        let tables = compile::compile(intent, inventory, &ids, quarantined, &clock);
        Self {
            ids,
            tables,
            inventory: inventory.clone(),
            clock,
        }
    }

    pub fn ifindex(&self, interface: &str) -> u32 {
        self.inventory.link(interface).map_or(0, |link| link.number)
    }

    /// The name of a rule's number; none for 0.
    pub fn rule(&self, number: u32) -> Option<&str> {
        let mut rules = self
            .ids
            .iter()
            .filter(|((kind, _), _)| kind == numbered::RULE);
        rules
            .find(|(_, known)| **known == number)
            .map(|((_, name), _)| name.as_str())
    }

    /// What resolvers have told of the names that the policy has: the number of a selector, and an
    /// address.
    pub fn told(&self) -> Vec<(u32, Address)> {
        let names = self
            .ids
            .iter()
            .filter(|((kind, _), _)| kind == numbered::NAME);
        let told = names.flat_map(|((_, selector), number)| {
            let selector: Domain = selector.parse().unwrap();
            let own = TOLD.into_iter();
            let own = own.filter(move |(name, _)| selector.covers(&name.parse().unwrap()));
            own.map(|(_, address)| (*number, Address::from(address)))
        });
        told.collect()
    }

    /// The oracle's place, with interfaces by index.
    pub fn place(&self, at: &Where) -> At {
        match at {
            Where::Entering { interface } => At::Entering {
                ifindex: self.ifindex(interface),
            },
            Where::Leaving { interface, from } => At::Leaving {
                ifindex: self.ifindex(interface),
                from: match from {
                    From::Router => 0,
                    From::Uplink => self.ifindex("uplink"),
                    From::Guarded(interface) => self.ifindex(interface),
                },
            },
        }
    }

    /// The index of some guarded interface that a packet may leave through.
    pub fn some_port(&self) -> Option<u32> {
        self.tables
            .ports
            .iter()
            .find(|(_, port)| port.zone != 0)
            .map(|(index, _)| *index)
    }
}

/// A document that has no problems.
pub fn parsed(text: &str) -> v1::Policy {
    let (policy, problems) = document::parse(text);
    assert!(problems.is_empty(), "{problems:?}");
    policy
}

/// Where a frame is judged.
#[derive(Clone, Copy, Debug)]
pub enum At {
    Entering { ifindex: u32 },
    Leaving { ifindex: u32, from: u32 },
}

/// The verdict of a judge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Said {
    pub passed: bool,
    pub reason: Reason,
    pub would: Reason,
    pub rule: u32,
    /// Whether it is counted here.
    pub counts: bool,
    /// Whether it makes an event.
    pub tells: bool,
}

/// What `decide` says on the host, with the flows that a model has.
pub fn host(model: &Model<'_>, at: At, frame: &[u8]) -> Said {
    host_with_tag(model, at, None, frame)
}

/// The same for a frame whose VLAN tag the kernel has taken out of it.
pub fn host_with_tag(model: &Model<'_>, at: At, tag: Option<u16>, frame: &[u8]) -> Said {
    let mut work = Work::default();
    let verdict = match at {
        At::Entering { ifindex } => decide::ingress(frame, tag, ifindex, model, &mut work),
        At::Leaving { ifindex, from } => {
            decide::egress(frame, tag, ifindex, from, model, &mut work)
        }
    };
    Said {
        passed: verdict.reason.passes(),
        reason: verdict.reason,
        would: verdict.would,
        rule: verdict.rule,
        counts: verdict.counts,
        tells: verdict.makes_event,
    }
}

/// A model at the time of the clock.
pub fn model<'a>(compiled: &'a Compiled) -> Model<'a> {
    model_for(compiled, Settings::for_flows(64))
}

/// The same with room for as many flows as the settings say.
pub fn model_for<'a>(compiled: &'a Compiled, settings: Settings) -> Model<'a> {
    let model = Model::new(&compiled.tables, settings);
    model.set_tick((compiled.clock.jiffies >> TICK_SHIFT) as u32);
    model
}

/// Small tables: they are made anew for every test.
pub fn limits() -> Limits {
    Limits {
        devices: 256,
        flows: 1024,
        flows_per_device: 48,
        learned_per_device: 16,
        learned_per_port: 1024,
        rules: 256,
        ..Limits::default()
    }
}

/// How many of a model's ticks are in so many seconds.
pub fn ticks(seconds: u32) -> u32 {
    (seconds * Settings::for_flows(64).jiffies_per_second) >> TICK_SHIFT
}

/// A clock that need not be the kernel's.
pub fn clock(now: Timestamp) -> Clock {
    Clock {
        now,
        jiffies: 1 << 32,
        per_second: 250,
    }
}

/// Interfaces that do not exist, for the host.
pub fn inventory(interfaces: &[&str], addresses: &[IpAddr]) -> Inventory {
    let mut inventory = inventory_of((10..).zip(interfaces.iter().copied()), addresses);
    join_ports(&mut inventory);
    inventory
}

/// Ports that are not joined: no bridge or the like passes on frames through them.
pub const APART: [&str; 2] = ["flat1", "wifi1"];
/// Interfaces that no policy guards.
const UNGUARDED: [&str; 6] = ["lo", "uplink", "wild", "side", "br0", "br2"];

/// Ports of the fuzzer that a bridge joins.
pub const JOINED: [&str; 2] = ["lan2", "lan3"];

const RING: u32 = 4_000;

/// Joins ports in a ring (HSR), which may send the frames of others through each of them but makes
/// no link of them: a packet in a test may then have any MAC where it leaves.
///
/// The ports of [`JOINED`] are in a bridge inside it, and so on one link.
pub fn join_ports(inventory: &mut Inventory) {
    let Some(any) = inventory.links.values().next().cloned() else {
        return;
    };
    let number = RING;
    let ring = Link {
        number,
        ifindex: number,
        name: "ring".to_owned(),
        kind: Some("hsr".to_owned()),
        ..any
    };
    let bridge = Link {
        number: number + 1,
        ifindex: number + 1,
        name: "joined".to_owned(),
        kind: Some("bridge".to_owned()),
        controller: Some(number),
        ..ring.clone()
    };
    for link in inventory.links.values_mut() {
        let name = link.name.as_str();
        if JOINED.contains(&name) {
            link.controller.get_or_insert(number + 1);
        } else if !APART.contains(&name) && !UNGUARDED.contains(&name) {
            link.controller.get_or_insert(number);
        }
    }
    for over in [ring, bridge] {
        inventory.links.insert(over.number, over);
    }
}

/// Gives the ports of [`JOINED`] links of their own: a single packet does not tell what a bridge would
/// do with it.
#[cfg(test)]
pub(crate) fn part(inventory: &mut Inventory) {
    for link in inventory.links.values_mut() {
        if JOINED.contains(&link.name.as_str()) {
            link.controller = Some(RING);
        }
    }
}

/// The same, with indices.
pub fn inventory_of<'a>(
    interfaces: impl IntoIterator<Item = (u32, &'a str)>,
    addresses: &[IpAddr],
) -> Inventory {
    let mut inventory = Inventory::default();
    for (index, name) in interfaces {
        let link = Link {
            number: index,
            ifindex: index,
            name: name.to_owned(),
            mac: Some(Mac(ROUTER_MAC)),
            permanent: None,
            up: true,
            controller: None,
            parent: None,
            vlan: None,
            kind: None,
            header: Default::default(),
        };
        inventory.links.insert(index, link);
    }
    inventory.addresses.extend(addresses);
    inventory
}

/// The same as [`inventory`], with the networks that random packets are made for.
pub fn connected(mut inventory: Inventory) -> Inventory {
    let connected = CONNECTED.iter().filter_map(|(interface, network)| {
        Some((inventory.link(interface)?.number, network.parse().ok()?))
    });
    inventory.connected = connected.collect();
    inventory
}

/// The frame of a probe with this number, and where it is judged. None for a probe that nothing
/// judges, and for a packet to its own sender: it is malformed, which the oracle does not cover.
pub fn shown(compiled: &Compiled, probe: &Probe, number: u16) -> Option<(At, Vec<u8>)> {
    const HOST: [u8; 6] = [2, 0, 0, 0, 9, 1];
    const ELSEWHERE: [u8; 6] = [2, 0, 0, 0, 9, 2];
    let sender = match &probe.entry {
        Entry::Router | Entry::Uplink => ROUTER_MAC,
        Entry::Guarded { .. } => ELSEWHERE,
    };
    let uplink = compiled.ifindex("uplink");
    let at = match &probe.entry {
        Entry::Guarded { interface, .. } => At::Entering {
            ifindex: compiled.ifindex(interface),
        },
        Entry::Uplink => At::Leaving {
            ifindex: compiled.some_port()?,
            from: uplink,
        },
        Entry::Router => At::Leaving {
            ifindex: compiled.some_port()?,
            from: 0,
        },
    };
    let has_form = probe.source != probe.destination;
    has_form.then(|| (at, random::frame(probe, number, sender, HOST)))
}
