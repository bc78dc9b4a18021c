//! Random policies and packets: the programs in the kernel give the verdicts of the host.

use std::cell::RefCell;

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use wardline_datapath::{Hook, names::Known};
use wardline_ebpf::abi::Named;
use wardline_host_tests::{
    bench::INTERFACES,
    judge::{At, Compiled, host, model, shown},
};
use wardline_oracle::random::{self, ROUTER};
use wardline_proto::document;

use super::judge;

#[test]
fn kernel_agrees_with_the_host() {
    judge::in_namespace("agreement", &INTERFACES, || {
        let inventory = judge::observed(&ROUTER);
        let datapath = judge::datapath();
        let clock = datapath.reader().clock().unwrap();
        let datapath = RefCell::new(datapath);
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
            let model = model(&compiled);
            let told = compiled.told().into_iter();
            let known: Vec<Known> = told
                .map(|(selector, address)| {
                    assert!(model.name(address, selector, u32::MAX));
                    let until = u32::MAX;
                    let named = Named {
                        address,
                        until,
                        ..Named::default()
                    };
                    Known { selector, named }
                })
                .collect();
            datapath.reader().restore_names(&known).unwrap();
            for (number, probe) in (20_000..).zip(&probes) {
                let Some((at, frame)) = shown(&compiled, probe, number) else {
                    continue;
                };
                let hook = match at {
                    At::Leaving { .. } => Hook::TcEgress,
                    At::Entering { .. } if number % 2 == 0 => Hook::Xdp,
                    At::Entering { .. } => Hook::TcIngress,
                };
                let said = host(&model, at, &frame);
                let (passed, reason) = judge::kernel(datapath, hook, at, &frame);
                prop_assert!(
                    (passed, reason) == (said.passed, Some(said.reason)),
                    "{hook:?} {probe:?}\nthe host said {said:?}\n\
                     the kernel {passed} {reason:?}\n{}",
                    document::policy_to_yaml(&policy),
                );
            }
            Ok(())
        });
        if let Err(error) = done {
            panic!("{error}");
        }
    });
}
