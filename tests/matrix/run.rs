//! Asks the judges about every row: the programs in the kernel, and `decide` on the host.

use std::collections::BTreeSet;

use wardline_controller::{
    compile::{self, Clock},
    datapath::{Datapath, Hook},
    intent::Intent,
    inventory::{Inventory, Link},
    store::Ids,
};
use wardline_ebpf::abi::{Reason, TICK_SHIFT};
use wardline_proto::{document, v1};

use super::{
    case::{Case, Origin, Place, Says, Setting, Step, word},
    network::{GUARDED, LAN3, POLICY, ROUTER, ROUTER_2},
};
use crate::judges::{self, At, Compiled};

/// What came of asking.
#[derive(Default)]
pub(super) struct Outcome {
    /// Frames that a judge was asked about.
    pub(super) asked: usize,
    /// What a judge said otherwise than its row.
    pub(super) wrong: Vec<String>,
    /// Rows that could not be asked about, and why.
    pub(super) skipped: BTreeSet<String>,
}

/// Where the rows are judged.
#[derive(Clone, Copy)]
pub(super) enum Bench {
    /// On interfaces that are there; all rows.
    Live,
    /// On the loopback, which plays one guarded port; rows that need no other.
    Loopback(&'static str),
}

/// Asks about every row that a bench can hold.
pub(super) fn ask(
    bench: Bench,
    inventory: &Inventory,
    cases: &[Case],
    datapath: &mut Datapath,
    outcome: &mut Outcome,
) {
    let (written, problems) = document::parse(POLICY);
    assert!(problems.is_empty(), "{problems:?}");
    let clock = datapath.clock().unwrap();
    for (revision, setting) in (1..).zip(Setting::ALL) {
        let mut policy = written.clone();
        setting.change(&mut policy);
        let compiled = compiled(&policy, inventory, setting, clock);
        datapath.put(revision, &compiled.tables).unwrap();
        datapath.forget().unwrap();
        for case in cases.iter().filter(|case| bench.holds(case)) {
            let said = case.said.iter().filter(|(of, _)| *of == setting);
            for (_, said) in said {
                let mut asker = Asker {
                    case,
                    said,
                    setting,
                    compiled: &compiled,
                    outcome,
                };
                asker.host();
                asker.kernel(bench, datapath);
            }
        }
    }
}

fn compiled(
    policy: &v1::Policy,
    inventory: &Inventory,
    setting: Setting,
    clock: Clock,
) -> Compiled {
    let limits = judges::limits();
    let intent = Intent::from_policy(policy, &limits)
        .unwrap_or_else(|problems| panic!("{setting:?}: {problems:#?}"));
    let ids = compile::number(&intent, &Ids::new(), &limits).unwrap();
    let quarantined = setting.quarantined().iter().map(|name| (*name).to_owned());
    let tables = compile::compile(&intent, inventory, &ids, &quarantined.collect(), &clock);
    let inventory = inventory.clone();
    Compiled {
        ids,
        tables,
        inventory,
        clock,
    }
}

/// One row under one setting, and who wants to know.
struct Asker<'a> {
    case: &'a Case,
    said: &'a [Says],
    setting: Setting,
    compiled: &'a Compiled,
    outcome: &'a mut Outcome,
}

impl<'a> Asker<'a> {
    fn steps(&self) -> impl Iterator<Item = (usize, &'a Step, Says)> + use<'a> {
        let said = self.said.iter().copied();
        (1..)
            .zip(&self.case.steps)
            .zip(said)
            .map(|((number, step), says)| (number, step, says))
    }

    /// Asks `decide` on the host; tagged frames also as TC may have them, with the tag outside.
    fn host(&mut self) {
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
            let model = judges::model(self.compiled);
            let mut tick = (self.compiled.clock.jiffies >> TICK_SHIFT) as u32;
            let mut notes = Vec::new();
            for (number, step, says) in self.steps() {
                tick += judges::ticks(step.after);
                model.set_tick(tick);
                let frame = step.frame.bytes();
                let (tag, frame) = match taken_out(&frame) {
                    Some((tag, rest)) if outside => (Some(tag), rest),
                    _ => (None, frame),
                };
                let said = judges::host_with_tag(&model, self.at(step), tag, &frame);
                let said = Says {
                    reason: said.reason,
                    would: said.would,
                    counted: said.counts,
                };
                if said != says {
                    notes.push((number, told(said), says));
                }
            }
            self.note(judge, notes);
        }
    }

    /// Asks the programs in the kernel, what enters once at XDP and once at TC.
    fn kernel(&mut self, bench: Bench, datapath: &mut Datapath) {
        // The kernel's clock can't be moved.
        if self.case.steps.iter().any(|step| step.after != 0) {
            return;
        }
        let enters = self
            .case
            .steps
            .iter()
            .any(|step| matches!(step.at, Place::Enters(_)));
        let hooks: &[Hook] = if enters {
            &[Hook::Xdp, Hook::TcIngress]
        } else {
            &[Hook::TcEgress]
        };
        for entry in hooks {
            let mut notes = Vec::new();
            let mut left_nothing = true;
            for (number, step, says) in self.steps() {
                let (frame, at) = (step.frame.bytes(), self.at(step));
                let hook = match at {
                    At::Entering { .. } => *entry,
                    At::Leaving { .. } => Hook::TcEgress,
                };
                if makes_no_packet(hook, &frame) {
                    break;
                }
                let expected = (says.reason.passes(), says.counted.then_some(says.reason));
                let said = judges::try_kernel(datapath, hook, at, &frame);
                left_nothing &= said
                    .as_ref()
                    .is_ok_and(|(_, reason)| leaves_nothing(*reason));
                match said {
                    Ok(said) if said == expected => {}
                    Ok((passed, reason)) => {
                        let verdict = if passed { "pass" } else { "drop" };
                        let reason = reason.map_or("nothing".to_owned(), word);
                        notes.push((number, format!("{verdict}, counted as {reason}"), says));
                    }
                    Err(_) if bench.needs_context(step) => {
                        let name = format!("{}: the kernel takes no context at TC", self.case);
                        self.outcome.skipped.insert(name);
                        break;
                    }
                    Err(error) => notes.push((number, error, says)),
                }
            }
            self.note(&format!("{entry:?}"), notes);
            // It takes far longer than to judge a row.
            if !left_nothing {
                datapath.forget().unwrap();
            }
        }
    }

    fn at(&self, step: &Step) -> At {
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

    fn note(&mut self, judge: &str, notes: Vec<(usize, String, Says)>) {
        self.outcome.asked += self.case.steps.len();
        for (number, said, says) in notes {
            let (name, setting, says) = (self.case, self.setting, told(says));
            self.outcome.wrong.push(format!(
                "{name} [{setting:?}] {number}: {judge} says {said}; the row says {says}"
            ));
        }
    }
}

/// Whether a packet that was dropped for a reason can't have left anything behind: it was dropped
/// before its source was looked up.
fn leaves_nothing(reason: Option<Reason>) -> bool {
    use Reason::{
        BadTcpFlags, ExtensionHeader, Fragment, IpOptions, Malformed, UnknownDevice,
        UnknownEthertype, WrongPort, WrongVlan,
    };
    matches!(
        reason,
        Some(
            BadTcpFlags
                | ExtensionHeader
                | Fragment
                | IpOptions
                | Malformed
                | UnknownDevice
                | UnknownEthertype
                | WrongPort
                | WrongVlan
        )
    )
}

fn told(says: Says) -> String {
    let verdict = if says.reason.passes() { "pass" } else { "drop" };
    let again = if says.counted { "" } else { ", not counted" };
    format!("{verdict}, {says}{again}")
}

impl Bench {
    /// Whether all that a row needs is on the bench.
    fn holds(self, case: &Case) -> bool {
        case.steps.iter().all(|step| match (self, step.at) {
            (Self::Live, _) => true,
            (Self::Loopback(port), Place::Enters(at) | Place::Leaves(at, _)) => at == port,
        })
    }

    /// Whether a step can only be asked about with a context, which old kernels do not take.
    fn needs_context(self, step: &Step) -> bool {
        matches!(self, Self::Loopback(_))
            && matches!(step.at, Place::Leaves(_, Origin::Interface(_)))
    }
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

/// Whether the kernel itself refuses to make a packet of a frame: one without an Ethernet header,
/// and at TC one of an EtherType for IP without an IP header.
fn makes_no_packet(hook: Hook, frame: &[u8]) -> bool {
    let header = match frame.get(12..14) {
        Some([0x08, 0x00]) => 20,
        Some([0x86, 0xdd]) => 40,
        _ => 0,
    };
    frame.len() < 14 || hook != Hook::Xdp && frame.len() < 14 + header
}

/// The interfaces as a bench with nothing but a loopback has them: one guarded port is its index.
pub(super) fn loopback(port: &str) -> Inventory {
    let mut inventory = Inventory::default();
    let names = GUARDED.into_iter().chain(["uplink", "br0"]);
    for (number, name) in (10..).zip(names) {
        let index = if name == port { 1 } else { number };
        let link = Link {
            index,
            name: name.to_owned(),
            mac: None,
            up: true,
            controller: None,
            parent: None,
            vlan: None,
            kind: None,
        };
        inventory.links.insert(index, link);
    }
    let bridge = inventory.link("br0").map(|link| link.index);
    for link in inventory
        .links
        .values_mut()
        .filter(|link| link.name == LAN3)
    {
        link.controller = bridge;
    }
    for router in [ROUTER, ROUTER_2] {
        inventory
            .addresses
            .extend([router.v4.into(), router.v6.into()] as [std::net::IpAddr; 2]);
    }
    inventory
}
