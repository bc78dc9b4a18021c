//! A policy and the frames that go through its router: drawn from a seed, or written by hand.

use std::collections::BTreeSet;

use wardline_oracle::{
    random,
    streams::{self, Dice, Step},
};
use wardline_proto::v1::Policy;

/// A policy and the frames that go through its router.
#[derive(Clone)]
pub struct Case {
    pub(crate) seed: u64,
    pub(crate) policy: Policy,
    /// Devices in quarantine.
    pub(crate) quarantined: BTreeSet<String>,
    /// Ports in quarantine.
    pub(crate) ports_cut: BTreeSet<String>,
    /// Prefixes that may always reach the router, each with a service.
    pub(crate) failsafe: Vec<(String, String)>,
    /// Whether the router has NAT of IPv4, and of IPv6.
    pub(crate) nat: [bool; 2],
    pub(crate) steps: Vec<Step>,
    /// The kernel's program for frames that enter; none when the kernel can't be shown these
    /// frames.
    pub(crate) ingress: Option<Ingress>,
}

/// The program that judges what enters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ingress {
    Xdp,
    Tc,
}

impl Case {
    /// The case of a seed.
    pub(crate) fn of(seed: u64, frames: usize) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let policy = random::policy_of(&bytes);
        let tags_outside = seed % 16 == 7;
        let ingress = [Ingress::Xdp, Ingress::Tc];
        let steps = streams::steps(&policy, seed, frames, tags_outside);
        let mut dice = Dice::new(!seed);
        let quarantined = policy.devices.iter().filter(|_| dice.percent(4));
        // In one policy of five some ports are in quarantine.
        let mut cuts = Dice::new(seed ^ 0x0ff_1a05);
        let some = cuts.percent(20);
        let ports_cut = random::interfaces(&policy).into_iter();
        let ports_cut = ports_cut.filter(|_| some && cuts.percent(50));
        let ports_cut = ports_cut
            .map(|(interface, _)| interface.to_owned())
            .collect();
        // One policy in four is for a router that has a failsafe.
        let mut other = Dice::new(seed ^ 0xfa11_5afe);
        let pairs = [
            ("0.0.0.0/0", "tcp/22"),
            ("::/0", "icmpv6/128"),
            ("10.1.0.0/16", "icmp/8"),
            ("10.1.0.0/16", "tcp/*"),
            ("fd00::/8", "udp/1000-6000"),
            ("::/0", "tcp/443"),
        ];
        let spares = other.percent(25);
        let failsafe = pairs.into_iter().filter(|_| spares && other.percent(50));
        let failsafe = failsafe.map(|(from, service)| (from.to_owned(), service.to_owned()));
        // One router in two has NAT, of one family or of both.
        let mut third = Dice::new(seed ^ 0x7ea5_1a7e);
        let nat = [(); 2].map(|()| third.percent(30));
        Self {
            seed,
            nat,
            failsafe: failsafe.collect(),
            ports_cut,
            quarantined: quarantined.map(|device| device.name.clone()).collect(),
            policy,
            steps,
            ingress: (!tags_outside).then_some(ingress[(seed % 2) as usize]),
        }
    }

    /// A case written by hand.
    pub fn written(policy: Policy, steps: Vec<Step>, ingress: Ingress) -> Self {
        Self {
            seed: 0,
            policy,
            quarantined: BTreeSet::new(),
            ports_cut: BTreeSet::new(),
            failsafe: Vec::new(),
            nat: [false; 2],
            steps,
            ingress: Some(ingress),
        }
    }

    /// The same with one entry in the router's failsafe.
    pub fn sparing(self, from: &str, service: &str) -> Self {
        Self {
            failsafe: vec![(from.to_owned(), service.to_owned())],
            ..self
        }
    }
}
