//! What random policies and packets are like.

use std::collections::BTreeMap;

use proptest::{strategy::ValueTree as _, test_runner::TestRunner};
use wardline_proto::v1::Reason;

use super::*;
use crate::oracle::{Expected, Oracle};

/// Draws scenarios from a fixed seed.
fn draw(count: usize) -> Vec<(Policy, Vec<Probe>)> {
    let mut runner = TestRunner::deterministic();
    let strategy = scenario(1..=20);
    let mut draw = || {
        strategy
            .new_tree(&mut runner)
            .expect("a scenario")
            .current()
    };
    (0..count).map(|_| draw()).collect()
}

#[test]
fn every_outcome_is_met_often() {
    let mut met = BTreeMap::new();
    for (policy, probes) in draw(300) {
        let oracle = Oracle::new(&policy, &ROUTER);
        for probe in probes {
            let outcome = match oracle.judge(&probe) {
                Expected::Allowed(_) => Reason::Rule,
                Expected::Dropped(drop) => drop.reason,
                Expected::Observed(_) => Reason::Observed,
            };
            *met.entry(outcome).or_insert(0) += 1;
        }
    }
    for outcome in [
        Reason::Rule,
        Reason::NoRule,
        Reason::DeniedByRule,
        Reason::Expired,
        Reason::UnknownDevice,
        Reason::SpoofedSource,
        Reason::WrongPort,
        Reason::WrongVlan,
        Reason::Observed,
    ] {
        assert!(
            met.get(&outcome).is_some_and(|&count| count > 20),
            "{outcome:?}: {met:?}"
        );
    }
}

#[test]
fn documents_name_nothing_that_is_not_there() {
    for (policy, _) in draw(100) {
        let zones = policy.zones.iter().map(|zone| zone.name.as_str());
        let zones: BTreeSet<&str> = zones.collect();
        assert!(
            policy
                .ports
                .iter()
                .flat_map(places)
                .all(|(_, zone)| zones.contains(zone))
        );
        let mut addresses = BTreeSet::new();
        for device in &policy.devices {
            assert!(zones.contains(device.zone.as_str()));
            assert!(!device.macs.is_empty() || !device.addresses.is_empty());
            for address in &device.addresses {
                assert!(addresses.insert(address), "{address} is of two devices");
                let address = address.parse().expect("an address");
                let owners = owners(&policy.zones, address);
                assert!(owners.is_empty() || owners.contains(&&device.zone));
            }
        }
        let names = zones.iter().map(|name| format!("zone:{name}"));
        let names = names.chain(
            policy
                .devices
                .iter()
                .map(|it| format!("device:{}", it.name)),
        );
        let names: BTreeSet<String> = names.collect();
        let ends = policy
            .rules
            .iter()
            .flat_map(|rule| rule.from.iter().chain(&rule.to));
        let dangling = |end: &&String| {
            (end.starts_with("zone:") || end.starts_with("device:")) && !names.contains(*end)
        };
        assert_eq!(ends.clone().find(dangling), None);
    }
}

#[test]
fn frames_carry_what_the_probe_says() {
    let [router, host] = ["02:00:00:00:00:fe", "02:00:00:00:00:fd"].map(frames::mac);
    for (_, probes) in draw(50) {
        for probe in probes {
            let frame = frame(&probe, 40_000, host, router);
            let (mac, tag) = match probe.entry {
                Entry::Guarded { vlan, mac, .. } => (mac, vlan),
                Entry::Uplink | Entry::Router => (host, 0),
            };
            assert_eq!(
                (&frame[..6], &frame[6..12]),
                (router.as_slice(), mac.as_slice())
            );
            let packet = packet(&probe, 40_000).encode().1;
            let header = if tag == 0 { 14 } else { 18 };
            assert_eq!(frame[header..], packet[..]);
        }
    }
}
