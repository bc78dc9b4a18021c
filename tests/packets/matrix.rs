//! The packet matrix in the kernel: XDP and TC give the verdicts of the rows.

use std::{
    env,
    time::{Duration, Instant},
};

use wardline_datapath::{Datapath, Hook};
use wardline_ebpf::abi::Reason;
use wardline_host_tests::{
    judge::At,
    matrix::{
        self,
        case::{Case, Origin, Place, Setting, Step, word},
        network::{GUARDED, LAN3, LAN4, TRUNK},
        run::{self, Asker, Outcome},
    },
};
use wardline_policy::inventory::Inventory;
use wardline_tests::Lab;

use super::judge;

/// Where the rows are judged.
#[derive(Clone, Copy)]
enum Bench {
    /// On interfaces that exist; all rows.
    Live,
    /// On the loopback, which plays one guarded port; rows that need no other.
    Loopback(&'static str),
}

#[test]
fn the_kernel_says_what_the_rows_say() {
    let cases = matrix::cases();
    let mut outcome = Outcome::default();
    match env::var("WARDLINE_MATRIX_AT").as_deref() {
        Ok("lo") => {
            let datapath = &mut judge::datapath();
            for port in GUARDED {
                let bench = Bench::Loopback(port);
                let inventory = run::interfaces(port);
                ask(bench, &inventory, &cases, datapath, &mut outcome);
            }
        }
        Ok(other) => panic!("WARDLINE_MATRIX_AT={other} is not known; lo, or unset"),
        Err(_) => live(&cases, &mut outcome),
    }
    for skipped in &outcome.skipped {
        println!("skipped: {skipped}");
    }
    println!(
        "{} rows, {} frames judged, {} otherwise",
        cases.len(),
        outcome.asked,
        outcome.wrong.len()
    );
    outcome.insist();
}

/// Checks the rows on interfaces of a namespace.
fn live(cases: &[Case], outcome: &mut Outcome) {
    let lab = Lab::new("matrix").unwrap();
    let router = lab.router();
    for interface in GUARDED.into_iter().chain(["uplink", "wild", "side"]) {
        router
            .ip(&format!(
                "link add {interface} type veth peer name {interface}-far"
            ))
            .unwrap();
    }
    for bridge in ["br0", "br1", "br2"] {
        router
            .ip(&format!("link add {bridge} type bridge"))
            .unwrap();
    }
    for (port, bridge) in [
        (LAN3, "br0"),
        (LAN4, "br0"),
        ("wild", "br1"),
        (TRUNK, "br2"),
        ("side", "br2"),
    ] {
        router
            .ip(&format!("link set {port} master {bridge}"))
            .unwrap();
    }
    router
        .run(|| {
            let mut inventory = judge::observed(&run::own());
            inventory.taken = run::taken();
            run::connect(&mut inventory);
            let datapath = &mut judge::datapath();
            ask(Bench::Live, &inventory, cases, datapath, outcome);
        })
        .unwrap();
}

/// Checks every row whose interfaces the bench has.
fn ask(
    bench: Bench,
    inventory: &Inventory,
    cases: &[Case],
    datapath: &mut Datapath,
    outcome: &mut Outcome,
) {
    let clock = datapath.reader().clock().unwrap();
    for (revision, setting) in (1..).zip(Setting::ALL) {
        let compiled = run::compiled(inventory, setting, clock);
        datapath.put(revision, &compiled.tables).unwrap();
        datapath.forget().unwrap();
        for case in cases.iter().filter(|case| bench.holds(case)) {
            for asker in Asker::all(case, setting, &compiled) {
                bench.ask(&asker, datapath, outcome);
            }
        }
    }
}

impl Bench {
    /// Checks one row: at XDP, and again at TC, if frames of it enter.
    fn ask(self, asker: &Asker<'_>, datapath: &mut Datapath, outcome: &mut Outcome) {
        let steps = &asker.case.steps;
        // The kernel's clock can't be moved.
        if steps.iter().any(|step| step.after != 0) {
            return;
        }
        let enters = steps.iter().any(|step| matches!(step.at, Place::Enters(_)));
        let hooks: &[Hook] = if enters {
            &[Hook::Xdp, Hook::TcIngress]
        } else {
            &[Hook::TcEgress]
        };
        for entry in hooks {
            let mut notes = Vec::new();
            let mut left_nothing = true;
            let began = Instant::now();
            for (number, step, says) in asker.steps() {
                let (frame, at) = (step.frame.bytes(), asker.at(step));
                let hook = match at {
                    At::Entering { .. } => *entry,
                    At::Leaving { .. } => Hook::TcEgress,
                };
                if judge::makes_no_packet(hook, &frame) {
                    break;
                }
                let expected = (says.reason.passes(), says.counted.then_some(says.reason));
                let said = judge::try_kernel(datapath, hook, at, &frame);
                left_nothing &= said
                    .as_ref()
                    .is_ok_and(|(_, reason)| leaves_nothing(*reason));
                match said {
                    Ok(said) if said == expected => {}
                    Ok(_) if says.would == Reason::DeviceQuota && began.elapsed() >= SECOND => {
                        let name = format!("{}: the kernel takes over a second", asker.case);
                        outcome.skipped.insert(name);
                        break;
                    }
                    Ok((passed, reason)) => {
                        let verdict = if passed { "pass" } else { "drop" };
                        let reason = reason.map_or("nothing".to_owned(), word);
                        notes.push((number, format!("{verdict}, counted as {reason}"), says));
                    }
                    Err(_) if self.needs_context(step) => {
                        let name = format!("{}: the kernel takes no context at TC", asker.case);
                        outcome.skipped.insert(name);
                        break;
                    }
                    Err(error) => notes.push((number, error, says)),
                }
            }
            asker.note(&format!("{entry:?}"), notes, outcome);
            // Clearing the datapath takes far longer than judging a row.
            if !left_nothing {
                datapath.forget().unwrap();
            }
        }
    }

    /// Whether the bench has all that a row needs.
    fn holds(self, case: &Case) -> bool {
        case.steps.iter().all(|step| match (self, step.at) {
            (Self::Live, _) => true,
            (Self::Loopback(port), Place::Enters(at) | Place::Leaves(at, _)) => at == port,
        })
    }

    /// Whether a test run of the step needs a context, which old kernels do not take.
    fn needs_context(self, step: &Step) -> bool {
        matches!(self, Self::Loopback(_))
            && matches!(step.at, Place::Leaves(_, Origin::Interface(_)))
    }
}

/// The shortest time after which a budget of control begins anew: a second, less a tick at 100
/// jiffies a second. An emulated processor may take longer for a row.
const SECOND: Duration = Duration::from_millis(600);

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
