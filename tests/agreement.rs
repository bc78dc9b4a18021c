//! Random policies and packets: the oracle, the host and the kernel say the same.

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use wardline_controller::datapath::Hook;
use wardline_ebpf::abi::Reason;
use wardline_proto::v1;
use wardline_tests::Lab;

use crate::{
    judges::{self, At, Compiled},
    oracle::{Entry, Oracle, Probe},
    random::{self, NOW, ROUTER},
};

const INTERFACES: [&str; 5] = ["lan1", "lan2", "lan3", "wifi1", "uplink"];
const HOST: [u8; 6] = [2, 0, 0, 0, 9, 1];
const ELSEWHERE: [u8; 6] = [2, 0, 0, 0, 9, 2];

/// Where a probe is judged; none where nothing judges it.
fn place(compiled: &Compiled, probe: &Probe) -> Option<At> {
    let uplink = compiled.ifindex("uplink");
    Some(match &probe.entry {
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
    })
}

/// Whether a packet gets as far as being judged: one to oneself is malformed, which is not for the
/// oracle.
fn has_form(probe: &Probe) -> bool {
    probe.source != probe.destination
}

fn reason(reason: Reason) -> v1::Reason {
    v1::Reason::try_from(i32::from(reason as u8)).unwrap()
}

#[test]
fn host_agrees_with_the_oracle() {
    let inventory = judges::inventory(&INTERFACES, &ROUTER);
    let mut runner = TestRunner::new(Config {
        cases: 10_000,
        failure_persistence: None,
        ..Config::default()
    });
    let cases = random::scenario(4..=12);
    let done = runner.run(&cases, |(policy, probes)| {
        let compiled = Compiled::new(&policy, &inventory, judges::clock(NOW));
        let oracle = Oracle::new(&policy, &ROUTER);
        for (number, probe) in (20_000..).zip(&probes) {
            let Some(at) = place(&compiled, probe).filter(|_| has_form(probe)) else {
                continue;
            };
            let frame = random::frame(probe, number, ELSEWHERE, HOST);
            let said = judges::host(&judges::model(&compiled), at, &frame);
            let expected = oracle.judge(probe);
            let rule = compiled.rule(said.rule);
            prop_assert!(
                expected.accepts(said.passed, reason(said.would), rule)
                    || expected.accepts(said.passed, reason(said.reason), rule),
                "{probe:?}\nexpected {expected:?}\nthe host said {said:?} by {rule:?}\n{}",
                wardline_proto::document::policy_to_yaml(&policy),
            );
        }
        Ok(())
    });
    if let Err(error) = done {
        panic!("{error}");
    }
}

#[test]
fn kernel_agrees_with_the_host() {
    let lab = Lab::new("agreement").unwrap();
    let router = lab.router().clone();
    for interface in INTERFACES {
        router
            .ip(&format!(
                "link add {interface} type veth peer name {interface}-far"
            ))
            .unwrap();
    }
    router
        .run(|| {
            let inventory = judges::observed(&ROUTER);
            let mut datapath = judges::datapath();
            let clock = datapath.clock().unwrap();
            let datapath = std::cell::RefCell::new(datapath);
            let mut runner = TestRunner::new(Config {
                cases: 250,
                failure_persistence: None,
                ..Config::default()
            });
            let done = runner.run(&random::scenario(8..=24), |(policy, probes)| {
                let compiled = Compiled::new(&policy, &inventory, clock);
                let datapath = &mut *datapath.borrow_mut();
                datapath.put(1, &compiled.tables).unwrap();
                datapath.forget().unwrap();
                let model = judges::model(&compiled);
                for (number, probe) in (20_000..).zip(&probes) {
                    let Some(at) = place(&compiled, probe).filter(|_| has_form(probe)) else {
                        continue;
                    };
                    let frame = random::frame(probe, number, ELSEWHERE, HOST);
                    let hook = match at {
                        At::Leaving { .. } => Hook::TcEgress,
                        At::Entering { .. } if number % 2 == 0 => Hook::Xdp,
                        At::Entering { .. } => Hook::TcIngress,
                    };
                    let said = judges::host(&model, at, &frame);
                    let (passed, reason) = judges::kernel(datapath, hook, at, &frame);
                    prop_assert!(
                        (passed, reason) == (said.passed, Some(said.reason)),
                        "{hook:?} {probe:?}\nthe host said {said:?}\n\
                         the kernel {passed} {reason:?}\n{}",
                        wardline_proto::document::policy_to_yaml(&policy),
                    );
                }
                Ok(())
            });
            if let Err(error) = done {
                panic!("{error}");
            }
        })
        .unwrap();
}
