//! The judges that must agree: the oracle, `decide` on the host and the programs in the kernel.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use jiff::Timestamp;
use wardline_controller::{
    compile::{self, Clock, Tables, numbered},
    config::{Limits, Timeouts},
    datapath::{Datapath, Hook},
    intent::Intent,
    inventory::{self, Inventory},
    model::Model,
    store::Ids,
};
use wardline_ebpf::{
    abi::{Reason, Settings, TICK_SHIFT},
    decide::{self, Work},
};
use wardline_proto::v1;

/// A policy, compiled for interfaces that exist.
pub(crate) struct Compiled {
    pub(crate) ids: Ids,
    pub(crate) tables: Tables,
    pub(crate) inventory: Inventory,
    pub(crate) clock: Clock,
}

impl Compiled {
    /// Compiles a document that is known to be valid.
    pub(crate) fn new(policy: &v1::Policy, inventory: &Inventory, clock: Clock) -> Self {
        Self::with_numbers(policy, inventory, clock, &Ids::new())
    }

    /// Compiles with numbers that an earlier revision gave.
    pub(crate) fn with_numbers(
        policy: &v1::Policy,
        inventory: &Inventory,
        clock: Clock,
        ids: &Ids,
    ) -> Self {
        let limits = limits();
        let intent = Intent::from_policy(policy, &limits).unwrap_or_else(|problems| {
            panic!(
                "{problems:#?}\n{}",
                wardline_proto::document::policy_to_yaml(policy)
            )
        });
        Self::intended(&intent, &BTreeSet::new(), inventory, clock, ids)
    }

    /// Compiles a document that may be refused.
    pub(crate) fn of_valid(
        policy: &v1::Policy,
        quarantined: &BTreeSet<String>,
        inventory: &Inventory,
        clock: Clock,
    ) -> Option<Self> {
        let intent = Intent::from_policy(policy, &limits()).ok()?;
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
        quarantined: &BTreeSet<String>,
        inventory: &Inventory,
        clock: Clock,
        ids: &Ids,
    ) -> Self {
        let limits = limits();
        let ids = compile::number(intent, ids, &limits).unwrap();
        let tables = compile::compile(intent, inventory, &ids, quarantined, &clock);
        Self {
            ids,
            tables,
            inventory: inventory.clone(),
            clock,
        }
    }

    pub(crate) fn ifindex(&self, interface: &str) -> u32 {
        self.inventory.link(interface).map_or(0, |link| link.index)
    }

    /// The name of a rule's number; none for 0.
    pub(crate) fn rule(&self, number: u32) -> Option<&str> {
        let mut rules = self
            .ids
            .iter()
            .filter(|((kind, _), _)| kind == numbered::RULE);
        rules
            .find(|(_, known)| **known == number)
            .map(|((_, name), _)| name.as_str())
    }

    /// Guarded interfaces that a packet may leave through, any.
    pub(crate) fn some_port(&self) -> Option<u32> {
        self.tables
            .ports
            .iter()
            .find(|(_, port)| port.zone != 0)
            .map(|(index, _)| *index)
    }
}

/// Where a frame is judged.
#[derive(Clone, Copy, Debug)]
pub(crate) enum At {
    Entering { ifindex: u32 },
    Leaving { ifindex: u32, from: u32 },
}

/// What a judge said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) passed: bool,
    pub(crate) reason: Reason,
    pub(crate) would: Reason,
    pub(crate) rule: u32,
    /// Whether it is counted here.
    pub(crate) counts: bool,
    /// Whether it makes an event.
    pub(crate) tells: bool,
}

/// What `decide` says on the host, with the flows that a model has.
pub(crate) fn host(model: &Model<'_>, at: At, frame: &[u8]) -> Said {
    host_with_tag(model, at, None, frame)
}

/// The same for a frame whose VLAN tag the kernel has taken out of it.
pub(crate) fn host_with_tag(model: &Model<'_>, at: At, tag: Option<u16>, frame: &[u8]) -> Said {
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
        tells: verdict.tells,
    }
}

/// A model whose present is the clock's.
pub(crate) fn model<'a>(compiled: &'a Compiled) -> Model<'a> {
    model_for(compiled, Settings::for_flows(64))
}

/// The same with room for as many flows as the settings say.
pub(crate) fn model_for<'a>(compiled: &'a Compiled, settings: Settings) -> Model<'a> {
    let model = Model::new(&compiled.tables, settings);
    model.set_tick((compiled.clock.jiffies >> TICK_SHIFT) as u32);
    model
}

/// What a program says in the kernel: whether it passed, and the reason whose counter moved; none
/// for a pass that another hook has counted.
pub(crate) fn kernel(
    datapath: &mut Datapath,
    hook: Hook,
    at: At,
    frame: &[u8],
) -> (bool, Option<Reason>) {
    try_kernel(datapath, hook, at, frame).unwrap_or_else(|error| panic!("{error}"))
}

/// The same, for what a kernel may refuse to run.
pub(crate) fn try_kernel(
    datapath: &mut Datapath,
    hook: Hook,
    at: At,
    frame: &[u8],
) -> Result<(bool, Option<Reason>), String> {
    let (ifindex, from) = match at {
        At::Entering { ifindex } => (ifindex, 0),
        At::Leaving { ifindex, from } => (ifindex, from),
    };
    let before = datapath.reasons().unwrap();
    let passed = datapath
        .run(hook, ifindex, from, frame)
        .map_err(|error| format!("{error:?}"))?;
    let after = datapath.reasons().unwrap();
    let moved: Vec<Reason> = after
        .iter()
        .filter(|(reason, counter)| counter.packets != before[reason].packets)
        .map(|(reason, _)| *reason)
        .collect();
    match moved.as_slice() {
        [] => Ok((passed, None)),
        [reason] => Ok((passed, Some(*reason))),
        _ => Err(format!("one packet, several reasons: {moved:?}")),
    }
}

/// A datapath of its own, with nothing pinned.
pub(crate) fn datapath() -> Datapath {
    datapath_of(&limits())
}

/// The same, of some size.
pub(crate) fn datapath_of(limits: &Limits) -> Datapath {
    Datapath::open(None, limits, &timeouts()).unwrap()
}

/// Small tables: they are made anew for every test.
pub(crate) fn limits() -> Limits {
    Limits {
        devices: 256,
        flows: 1024,
        flows_per_device: 48,
        rules: 256,
    }
}

pub(crate) fn timeouts() -> Timeouts {
    let second = Duration::from_secs;
    Timeouts {
        tcp_unanswered: second(30),
        tcp_established: second(7440),
        tcp_closing: second(10),
        udp: second(30),
        udp_answered: second(180),
        icmp: second(30),
        adoption: second(10),
    }
}

/// How many of a model's ticks are in so many seconds.
pub(crate) fn ticks(seconds: u32) -> u32 {
    (seconds * Settings::for_flows(64).jiffies_per_second) >> TICK_SHIFT
}

/// A clock that need not be the kernel's.
pub(crate) fn clock(now: Timestamp) -> Clock {
    Clock {
        now,
        jiffies: 1 << 32,
        per_second: 250,
    }
}

/// Interfaces that are not there, for the host.
pub(crate) fn inventory(interfaces: &[&str], addresses: &[IpAddr]) -> Inventory {
    let mut inventory = Inventory::default();
    for (index, name) in (10..).zip(interfaces) {
        inventory.links.insert(
            index,
            inventory::Link {
                index,
                name: (*name).to_owned(),
                mac: None,
                up: true,
                controller: None,
                parent: None,
                vlan: None,
                kind: None,
            },
        );
    }
    inventory.addresses.extend(addresses);
    inventory
}

/// The interfaces of the namespace that the thread is in, with these addresses.
pub(crate) fn observed(addresses: &[IpAddr]) -> Inventory {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut inventory = runtime.block_on(inventory::observe()).unwrap();
    inventory.addresses = addresses.iter().copied().collect();
    inventory
}
