//! What the live proofs share: a daemon that guards the lab's router, and what it says of traffic.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use serde_json::Value;
use wardline_tests::{Ctl, Daemon, Lab, Settings, eventually};

/// How long what must happen may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// A daemon, and the client that asks it.
pub(crate) struct Guard {
    pub(crate) daemon: Daemon,
    pub(crate) ctl: Ctl,
}

impl Guard {
    /// Starts a daemon in the lab's router; `more` are further tables of its configuration.
    pub(crate) fn start(lab: &Lab, more: &str) -> Self {
        let program = |variable: &str| {
            std::env::var_os(variable)
                .map(PathBuf::from)
                .unwrap_or_else(|| panic!("{variable} names the program; xtask test sets it"))
        };
        let settings = Settings {
            more: more.to_owned(),
            ..Settings::default()
        };
        let daemon = Daemon::start(lab, &program("WARDLINE_WARDLINED"), &settings).unwrap();
        let ctl = Ctl::new(&program("WARDLINE_WARDCTL"), &daemon).unwrap();
        Self { daemon, ctl }
    }

    /// Puts a document in force.
    pub(crate) fn apply(&self, document: &str) {
        self.ctl.apply(document).unwrap().ok().unwrap();
    }

    /// How ports are attached, by interface.
    pub(crate) fn attached(&self) -> BTreeMap<String, String> {
        let status = self.ctl.json(&["status"]).unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        status["ports"]
            .as_array()
            .unwrap()
            .iter()
            .map(|port| (text(&port["interface"]), text(&port["attached"])))
            .collect()
    }

    /// Packets by reason, without those that no packet has met.
    pub(crate) fn reasons(&self) -> BTreeMap<String, u64> {
        let counters = self.ctl.json(&["counters"]).unwrap();
        counters["reasons"]
            .as_array()
            .unwrap()
            .iter()
            .map(|counter| {
                let reason = counter["reason"].as_str().unwrap().to_owned();
                (reason, counter["packets"].as_u64().unwrap())
            })
            .filter(|(_, packets)| *packets != 0)
            .collect()
    }

    /// Packets that met one reason.
    pub(crate) fn packets(&self, reason: &str) -> u64 {
        self.reasons().get(reason).copied().unwrap_or(0)
    }

    /// Packets that were dropped, by reason.
    pub(crate) fn drops(&self) -> BTreeMap<String, u64> {
        let mut reasons = self.reasons();
        for passes in ["rule", "established", "related", "control", "observed"] {
            reasons.remove(passes);
        }
        reasons
    }

    /// Waits for an event that has all of these fields.
    pub(crate) fn told(&self, fields: &[(&str, &str)]) {
        let has = |event: &Value| fields.iter().all(|(name, value)| event[*name] == *value);
        let told = eventually(PATIENCE, || self.ctl.events().unwrap().iter().any(has));
        assert!(told, "no event {fields:?}: {:#?}", self.ctl.events());
    }

    /// The flows from one address to another.
    pub(crate) fn flows(&self, source: &str, destination: &str) -> Vec<Value> {
        let flows = self.ctl.json(&["flows"]).unwrap();
        let wanted = |flow: &&Value| flow["source"] == source && flow["destination"] == destination;
        let flows = flows["flows"].as_array().unwrap();
        flows.iter().filter(wanted).cloned().collect()
    }
}

/// Says that something could not be proved on this machine; the test then ends.
pub(crate) fn skip(name: &str, why: &str) {
    println!("skipped: {name}: {why}");
}
