//! Random policies and packets: the host gives the oracle's verdicts.

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use wardline_ebpf::abi::Reason;
use wardline_oracle::{
    oracle::Oracle,
    random::{self, CONNECTED, NOW, ROUTER, ROUTER_MAC, TOLD},
};
use wardline_proto::v1;

use crate::{
    bench::INTERFACES,
    judge::{self, Compiled},
};

fn reason(reason: Reason) -> v1::Reason {
    v1::Reason::try_from(i32::from(reason as u8)).unwrap()
}

#[test]
fn host_agrees_with_the_oracle() {
    let mut inventory = judge::connected(judge::inventory(&INTERFACES, &ROUTER));
    judge::part(&mut inventory);
    let mut runner = TestRunner::new(Config {
        cases: 10_000,
        failure_persistence: None,
        ..Config::default()
    });
    let cases = random::scenario(4..=12);
    let done = runner.run(&cases, |(policy, probes)| {
        let compiled = Compiled::new(&policy, &inventory, judge::clock(NOW));
        let mut oracle = Oracle::new(&policy, &ROUTER);
        oracle.own(ROUTER_MAC);
        for (name, address) in TOLD {
            oracle.tell(name, address);
        }
        for (interface, network) in CONNECTED {
            oracle.connect(interface, network);
        }
        if let Some(exit) = compiled.some_port() {
            oracle.send_out_of(&inventory.links[&exit].name);
        }
        for (number, probe) in (20_000..).zip(&probes) {
            let Some((at, frame)) = judge::shown(&compiled, probe, number) else {
                continue;
            };
            let model = judge::model(&compiled);
            for (selector, address) in compiled.told() {
                assert!(model.name(address, selector, u32::MAX));
            }
            let said = judge::host(&model, at, &frame);
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
