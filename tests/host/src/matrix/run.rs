//! Runs the rows against a judge; here, against `decide` on the host.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;
use wardline_ebpf::abi::TICK_SHIFT;
use wardline_oracle::random::NOW;
use wardline_policy::{clock::Clock, inventory::Inventory, quarantine::Quarantine};

use super::{
    case::{Case, Origin, Place, Says, Setting, Step},
    network::{
        GUARDED, LAN1, LAN2, LAN3, LAN4, POLICY, ROUTER, ROUTER_2, ROUTER_LINK, TAKEN, TRUNK,
    },
};
use crate::judge::{self, At, Compiled, parsed};

/// The result of a run.
#[derive(Default)]
pub struct Outcome {
    /// Frames that a judge was shown.
    pub asked: usize,
    /// Verdicts that differ from the row's.
    pub wrong: Vec<String>,
    /// Rows that could not be run, and why.
    pub skipped: BTreeSet<String>,
}

impl Outcome {
    /// # Panics
    /// When a verdict differed from its row.
    pub fn insist(&self) {
        let (asked, wrong) = (self.asked, &self.wrong);
        assert!(
            wrong.is_empty(),
            "{} of {asked}:\n{}",
            wrong.len(),
            wrong.join("\n")
        );
    }
}

/// Runs every row against `decide` on the host.
pub fn ask(cases: &[Case]) -> Outcome {
    let mut outcome = Outcome::default();
    for setting in Setting::ALL {
        let compiled = compiled(&interfaces(""), setting, judge::clock(NOW));
        for case in cases {
            for asker in Asker::all(case, setting, &compiled) {
                asker.host(&mut outcome);
            }
        }
    }
    outcome
}

/// The policy of the matrix, changed as a setting says.
pub fn compiled(inventory: &Inventory, setting: Setting, clock: Clock) -> Compiled {
    let mut policy = parsed(POLICY);
    setting.change(&mut policy);
    let inventory = &Inventory {
        nat: setting.nat(),
        ..inventory.clone()
    };
    let names =
        |names: &[&str]| -> Vec<String> { names.iter().map(|name| (*name).to_owned()).collect() };
    let quarantined =
        Quarantine::of_names(names(setting.quarantined()), names(setting.ports_cut()));
    Compiled::of_valid(&policy, &quarantined, inventory, clock)
        .unwrap_or_else(|| panic!("{setting:?} is no policy"))
}

/// One row under one setting.
pub struct Asker<'a> {
    pub case: &'a Case,
    said: &'a [Says],
    setting: Setting,
    compiled: &'a Compiled,
}

impl<'a> Asker<'a> {
    /// A row under a setting; nothing when the setting does not matter to the row.
    pub fn all(
        case: &'a Case,
        setting: Setting,
        compiled: &'a Compiled,
    ) -> impl Iterator<Item = Self> {
        let said = case.said.iter().filter(move |(of, _)| *of == setting);
        said.map(move |(_, said)| Self {
            case,
            said,
            setting,
            compiled,
        })
    }

    /// Its frames with their numbers, and what the row says of each.
    pub fn steps(&self) -> impl Iterator<Item = (usize, &'a Step, Says)> + use<'a> {
        let said = self.said.iter().copied();
        (1..)
            .zip(&self.case.steps)
            .zip(said)
            .map(|((number, step), says)| (number, step, says))
    }

    /// Runs the row against `decide`; tagged frames also with the tag outside, as TC may have them.
    fn host(&self, outcome: &mut Outcome) {
        let tagged = self
            .case
            .steps
            .iter()
            .any(|step| taken_out(&step.frame.bytes()).is_some());
        for outside in [false, true] {
            if outside && !tagged {
                continue;
            }
            let judge = if outside {
                "host, tag outside the frame"
            } else {
                "host"
            };
            let model = judge::model(self.compiled);
            let mut tick = (self.compiled.clock.jiffies >> TICK_SHIFT) as u32;
            let mut notes = Vec::new();
            for (number, step, says) in self.steps() {
                tick += judge::ticks(step.after);
                model.set_tick(tick);
                let frame = step.frame.bytes();
                let (tag, frame) = match taken_out(&frame) {
                    Some((tag, rest)) if outside => (Some(tag), rest),
                    _ => (None, frame),
                };
                let said = judge::host_with_tag(&model, self.at(step), tag, &frame);
                let said = Says {
                    reason: said.reason,
                    would: said.would,
                    counted: said.counts,
                };
                if said != says {
                    notes.push((number, told(said), says));
                }
            }
            self.note(judge, notes, outcome);
        }
    }

    /// Where a frame is judged.
    pub fn at(&self, step: &Step) -> At {
        let ifindex = |name: &str| self.compiled.ifindex(name);
        match step.at {
            Place::Enters(port) => At::Entering {
                ifindex: ifindex(port),
            },
            Place::Leaves(port, origin) => {
                let from = match origin {
                    Origin::Router => 0,
                    Origin::Interface(name) => ifindex(name),
                };
                At::Leaving {
                    ifindex: ifindex(port),
                    from,
                }
            }
        }
    }

    /// Counts the row's frames, and keeps the verdicts that differ.
    pub fn note(&self, judge: &str, notes: Vec<(usize, String, Says)>, outcome: &mut Outcome) {
        outcome.asked += self.case.steps.len();
        for (number, said, says) in notes {
            let (name, setting, says) = (self.case, self.setting, told(says));
            outcome.wrong.push(format!(
                "{name} [{setting:?}] {number}: {judge} says {said}; the row says {says}"
            ));
        }
    }
}

fn told(says: Says) -> String {
    let verdict = if says.reason.passes() { "pass" } else { "drop" };
    let again = if says.counted { "" } else { ", not counted" };
    format!("{verdict}, {says}{again}")
}

/// A frame's outer 802.1Q tag, and the frame without it.
fn taken_out(frame: &[u8]) -> Option<(u16, Vec<u8>)> {
    let tag = frame.get(12..16)?;
    if tag[..2] != [0x81, 0x00] {
        return None;
    }
    let control = u16::from_be_bytes([tag[2], tag[3]]);
    Some((control, [&frame[..12], &frame[16..]].concat()))
}

/// The interfaces of the matrix, which need not exist; the one that is named has the loopback's
/// index.
pub fn interfaces(loopback: &str) -> Inventory {
    let names = GUARDED
        .into_iter()
        .chain(["uplink", "br0", "wild", "br1", "side", "br2"]);
    let links = (10..).zip(names).map(|(number, name)| {
        let index = if name == loopback { 1 } else { number };
        (index, name)
    });
    let mut inventory = judge::inventory_of(links, &own());
    inventory.taken = taken();
    for (port, bridge) in [
        (LAN3, "br0"),
        (LAN4, "br0"),
        ("wild", "br1"),
        (TRUNK, "br2"),
        ("side", "br2"),
    ] {
        let bridge = inventory.link(bridge).map(|link| link.number);
        let port = inventory.links.values_mut().find(|link| link.name == port);
        if let Some(port) = port {
            port.controller = bridge;
        }
    }
    judge::join_ports(&mut inventory);
    connect(&mut inventory);
    inventory
}

/// The router's addresses.
pub fn own() -> Vec<IpAddr> {
    let addresses = [ROUTER, ROUTER_2].map(|router| [router.v4.into(), router.v6.into()]);
    let addresses = addresses.into_iter().flatten();
    addresses.chain([ROUTER_LINK.into()]).collect()
}

/// What the router takes packets by, besides its addresses.
pub fn taken() -> BTreeSet<IpNet> {
    TAKEN.map(|net| net.parse().expect("a prefix")).into()
}

/// Says what the router reaches directly.
pub fn connect(inventory: &mut Inventory) {
    let networks = [
        (LAN1, "10.20.1.0/24"),
        (LAN1, "fd20:0:0:1::/64"),
        (LAN2, "10.20.2.0/24"),
        (LAN2, "fd20:0:0:2::/64"),
        ("uplink", "192.31.196.128/25"),
    ];
    inventory.connected = networks
        .iter()
        .filter_map(|(name, network)| Some((inventory.link(name)?.number, network.parse().ok()?)))
        .collect();
}
