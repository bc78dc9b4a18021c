//! Random policies and whole frames in sequence: the oracle, `decide` on the host and the programs
//! in the kernel give the same verdicts, each with its own state.
//!
//! `cargo xtask fuzz` makes the run longer.

use std::{collections::BTreeMap, net::IpAddr, num::NonZero, thread};

use wardline_datapath::{Datapath, Hook};
use wardline_ebpf::abi::{Counter, Failsafe, Reason};
use wardline_host_tests::{
    bench::{self, Bench, INTERFACES},
    case::Ingress,
    judge::{At, Compiled},
    run::{self, number},
};
use wardline_oracle::random::{NOW, ROUTER};
use wardline_policy::{clock::Clock, limits::Limits};

use super::judge;

/// Cases of a run, unless the environment says otherwise.
const CASES: usize = 20_000;

struct Kernel {
    datapath: Datapath,
    /// The counters as last read.
    counted: BTreeMap<Reason, Counter>,
}

impl bench::Kernel for Kernel {
    fn start(&mut self, compiled: &Compiled, failsafe: &[Failsafe]) {
        self.datapath.put(1, &compiled.tables).unwrap();
        self.datapath.forget().unwrap();
        self.counted = self.datapath.reader().reasons().unwrap();
        self.datapath.set_failsafe(failsafe).unwrap();
    }

    fn judge(&mut self, ingress: Ingress, at: At, frame: &[u8]) -> Option<(bool, Option<Reason>)> {
        let hook = match (at, ingress) {
            (At::Leaving { .. }, _) => Hook::TcEgress,
            (At::Entering { .. }, Ingress::Xdp) => Hook::Xdp,
            (At::Entering { .. }, Ingress::Tc) => Hook::TcIngress,
        };
        if judge::makes_no_packet(hook, frame) {
            return None;
        }
        let said = judge::counting(&mut self.datapath, &mut self.counted, hook, at, frame);
        Some(said.unwrap_or_else(|error| panic!("{error}")))
    }
}

/// A bench in a namespace that has the interfaces.
pub(super) fn bench(router: &[IpAddr]) -> Bench {
    let datapath = judge::datapath_of(&Limits {
        devices: 256,
        flows: 4096,
        flows_per_device: 4096,
        control: u32::MAX,
        control_in_quarantine: u32::MAX,
        learned_per_device: 16,
        learned_per_port: 1024,
        rules: 256,
        ..Limits::default()
    });
    let clock = Clock {
        now: NOW,
        ..datapath.reader().clock().unwrap()
    };
    let kernel = Kernel {
        datapath,
        counted: BTreeMap::new(),
    };
    Bench::with_kernel(router, judge::observed(router), clock, Box::new(kernel))
}

#[test]
fn judges_agree_on_frames() {
    let cases = number("WARDLINE_FUZZ_CASES").map_or(CASES, |cases| cases as usize);
    let seed = number("WARDLINE_FUZZ_SEED").unwrap_or(1);
    let tally = judge::in_namespace("fuzz", &INTERFACES, || {
        let threads = thread::available_parallelism()
            .map_or(1, NonZero::get)
            .min(4);
        let mut benches: Vec<Bench> = (0..threads).map(|_| bench(&ROUTER)).collect();
        run::run(&mut benches, cases, seed)
    });
    assert!(tally.mismatches.is_empty(), "the judges disagree");
}
