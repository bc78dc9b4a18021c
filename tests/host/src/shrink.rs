//! Shrinks a case that the judges disagree about, so that what is left shows why.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use wardline_oracle::{
    random,
    sequence::{From, Where},
};
use wardline_proto::v1::Policy;

use crate::{
    bench::{Bench, Mismatch},
    case::Case,
    tally::Tally,
};

/// The smallest case that still has a mismatch of the kind, and that mismatch.
pub(crate) fn shrink(bench: &mut Bench, case: &Case, mismatch: Mismatch) -> (Case, Mismatch) {
    let mut best = case.clone();
    best.steps.truncate(mismatch.at + 1);
    let mut found = mismatch;
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let before = weight(&best);
        for candidate in simpler(&best) {
            if Instant::now() > until {
                return (best, found);
            }
            let still = bench.run(&candidate, &mut Tally::default());
            if let Err(again) = still
                && again.kind == found.kind
                && weight(&candidate) < weight(&best)
            {
                best = candidate;
                best.steps.truncate(again.at + 1);
                found = *again;
                break;
            }
        }
        if weight(&best) == before {
            return (best, found);
        }
    }
}

fn weight(case: &Case) -> usize {
    let Policy {
        zones,
        ports,
        devices,
        services,
        rules,
        ..
    } = &case.policy;
    let rules: usize = rules
        .iter()
        .map(|rule| 100 + rule.from.len() + rule.to.len() + rule.services.len())
        .sum();
    let devices: usize = devices
        .iter()
        .map(|it| 100 + it.macs.len() + it.addresses.len())
        .sum();
    let zones: usize = zones.iter().map(|zone| 100 + zone.subnets.len()).sum();
    let ports: usize = ports.iter().map(|port| 100 + port.vlans.len()).sum();
    let frames: usize = case.steps.iter().map(|step| 1000 + step.frame.len()).sum();
    let quarantined = case.quarantined.len() + case.ports_cut.len() + case.failsafe.len();
    quarantined + frames + rules + devices + zones + ports + 100 * services.len()
}

/// Cases with a little less of everything, those with much less first.
fn simpler(case: &Case) -> Vec<Case> {
    let mut all = Vec::new();
    let count = case.steps.len().saturating_sub(1);
    let mut size = count;
    while size > 0 {
        for from in (0..count).step_by(size) {
            let mut steps = case.steps.clone();
            steps.drain(from..(from + size).min(count));
            all.push(Case {
                steps,
                ..case.clone()
            });
        }
        size /= 2;
    }
    for name in &case.quarantined {
        let mut case = case.clone();
        case.quarantined.remove(name);
        all.push(case);
    }
    for name in &case.ports_cut {
        let mut case = case.clone();
        case.ports_cut.remove(name);
        all.push(case);
    }
    for index in 0..case.failsafe.len() {
        let mut case = case.clone();
        case.failsafe.remove(index);
        all.push(case);
    }
    let mut policy = |change: &dyn Fn(&mut Policy)| {
        let mut case = case.clone();
        change(&mut case.policy);
        all.push(case);
    };
    let whole = &case.policy;
    for i in 0..whole.rules.len() {
        policy(&|policy| drop(policy.rules.remove(i)));
        for j in 0..whole.rules[i].from.len() {
            policy(&|policy| drop(policy.rules[i].from.remove(j)));
        }
        for j in 0..whole.rules[i].to.len() {
            policy(&|policy| drop(policy.rules[i].to.remove(j)));
        }
        for j in 0..whole.rules[i].services.len() {
            policy(&|policy| drop(policy.rules[i].services.remove(j)));
        }
    }
    for i in 0..whole.devices.len() {
        policy(&|policy| drop(policy.devices.remove(i)));
        for j in 0..whole.devices[i].macs.len() {
            policy(&|policy| drop(policy.devices[i].macs.remove(j)));
        }
        for j in 0..whole.devices[i].addresses.len() {
            policy(&|policy| drop(policy.devices[i].addresses.remove(j)));
        }
    }
    for i in 0..whole.services.len() {
        policy(&|policy| drop(policy.services.remove(i)));
    }
    for i in 0..whole.ports.len() {
        policy(&|policy| drop(policy.ports.remove(i)));
        for j in 0..whole.ports[i].vlans.len() {
            policy(&|policy| drop(policy.ports[i].vlans.remove(j)));
        }
    }
    for i in 0..whole.zones.len() {
        policy(&|policy| drop(policy.zones.remove(i)));
        for j in 0..whole.zones[i].subnets.len() {
            policy(&|policy| drop(policy.zones[i].subnets.remove(j)));
        }
    }
    // No frame may be at a port that the policy no longer guards: nothing judges it.
    all.retain(|case| {
        let guarded: BTreeSet<&str> = random::interfaces(&case.policy)
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        case.steps.iter().all(|step| match &step.at {
            Where::Entering { interface } => guarded.contains(interface.as_str()),
            Where::Leaving { interface, from } => {
                guarded.contains(interface.as_str())
                    && match from {
                        From::Guarded(from) => guarded.contains(from.as_str()),
                        From::Router | From::Uplink => true,
                    }
            }
        })
    });
    for i in 0..case.steps.len() {
        let length = case.steps[i].frame.len();
        for shorter in [
            length / 2,
            length.saturating_sub(8),
            length.saturating_sub(1),
        ] {
            if shorter >= 14 {
                let mut case = case.clone();
                case.steps[i].frame.truncate(shorter);
                all.push(case);
            }
        }
    }
    all
}
