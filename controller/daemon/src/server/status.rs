//! The state of the router, as the API returns it: status, counters, flows, devices, explanations.

use std::{collections::BTreeMap, net::IpAddr};

use jiff::Timestamp;
use wardline_ebpf::abi::{self, Counter, gauge};
use wardline_policy::{
    absent::absent_ports,
    explain::{self, Answer, Question},
    intent::Port,
    numbers::{number_of, numbered},
    words::problem::Problem,
};
use wardline_proto::{time::to_proto, v1};

use super::{
    convert::{
        broken, described, failsafe, grant, held, journal, pending, port, quarantine,
        reason_number, table_status,
    },
    view::View,
};
use crate::engine::refusal::Refusal;

impl View {
    /// Version, revision, ports, tables, warnings, grants and quarantines; without the interfaces.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub(super) fn status(&self) -> Result<v1::GetStatusResponse, Refusal> {
        let state = self.state();
        let current = &state.snapshot;
        let mut warnings = state.notices.to_vec();
        warnings.extend(current.intent.warnings.iter().cloned());
        let lost = self.reader.gauge(gauge::LOST_EVENTS)?;
        if lost != 0 {
            warnings.push(format!("{lost} events were lost: the ring was full"));
        }
        warnings.extend(self.name_warnings()?);
        let unwritten = self.events.journal().lost();
        if unwritten != 0 {
            warnings.push(format!(
                "{unwritten} events are not in the journal: it could not be written in time"
            ));
        }
        warnings.extend(state.unguarded());
        let tables = self.reader.fill(&current.tables)?;
        for fill in tables.iter().filter(|it| it.used * 10 >= it.max * 9) {
            warnings.push(format!(
                "table {} is nearly full: {} of {}",
                fill.name, fill.used, fill.max
            ));
        }
        Ok(v1::GetStatusResponse {
            router: self.router.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            revision: current.revision,
            pending: state.pending.as_ref().map(pending),
            ports: state
                .ports
                .iter()
                .map(|it| port(it, current.quarantined.port(&it.interface).is_some()))
                .collect(),
            tables: tables.into_iter().map(table_status).collect(),
            warnings,
            grants: state.grants.iter().map(grant).collect(),
            quarantined: current
                .quarantined
                .device_names(&current.intent)
                .into_iter()
                .collect(),
            quarantined_ports: current.quarantined.ports().cloned().collect(),
            held: held(current),
            failsafe: self.failsafe.iter().map(failsafe).collect(),
            broken: self.parts.broken().iter().map(broken).collect(),
            interfaces: Vec::new(),
            journal: Some(journal(self.events.journal())),
            unrecorded: state.owed.iter().map(|it| it.revision).collect(),
            clock_doubt: state.clock_doubt.as_deref().unwrap_or_default().to_owned(),
        })
    }

    /// The ports that no interface has, as the document names them, each with its zone.
    pub(super) fn absent_ports(&self) -> Vec<(String, String)> {
        let current = self.state().snapshot;
        let zone = |port: &Port| {
            let zone = port.zone.map(|zone| &current.intent.zones[zone.0].name);
            zone.cloned().unwrap_or_default()
        };
        absent_ports(&current.intent, &current.inventory)
            .map(|port| (port.pattern.as_str().to_owned(), zone(port)))
            .collect()
    }

    /// Packets and bytes by reason and rule.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub(super) fn counters(&self) -> Result<v1::GetCountersResponse, Refusal> {
        let current = self.state().snapshot;
        let reasons = self.reader.reasons()?;
        let names: Vec<&String> = current.intent.rules.iter().map(|rule| &rule.name).collect();
        let numbers = names
            .iter()
            .map(|name| number_of(&current.ids, numbered::RULE, name));
        let rules = self.reader.rules(numbers)?;
        Ok(v1::GetCountersResponse {
            reasons: reasons
                .into_iter()
                .filter(|(_, counter)| *counter != Counter::default())
                .map(|(reason, counter)| v1::ReasonCounter {
                    reason: reason_number(reason),
                    packets: counter.packets,
                    bytes: counter.bytes,
                })
                .collect(),
            rules: names
                .into_iter()
                .zip(rules)
                .map(|(name, counter)| v1::RuleCounter {
                    rule: name.clone(),
                    packets: counter.packets,
                    bytes: counter.bytes,
                })
                .collect(),
            lost_events: u64::from(self.reader.gauge(gauge::LOST_EVENTS)?),
            forwarded: self.reader.forwarded()?.packets,
        })
    }

    /// The live flows, at most `limit`; 0: all.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub(super) fn flows(&self, limit: u32) -> Result<Vec<v1::Flow>, Refusal> {
        let limit = if limit == 0 {
            usize::MAX
        } else {
            limit as usize
        };
        let current = self.state().snapshot;
        let now = self.reader.tick()?;
        let settings = self.reader.settings()?;
        let mut found = Vec::new();
        self.reader.flows(|flow| {
            if flow.is_live(&settings, now) && found.len() < limit {
                found.push(described(flow, &current, now));
            }
        })?;
        Ok(found)
    }

    /// The devices and where each was last seen.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub(super) fn devices(&self) -> Result<Vec<v1::DeviceStatus>, Refusal> {
        let current = self.state().snapshot;
        let tick = self.reader.tick()?;
        let now = Timestamp::now();
        let mut latest: BTreeMap<u32, (u32, u32)> = BTreeMap::new();
        self.reader.flows(|flow| {
            for leg in [0, 1] {
                let (device, bind) = (flow.devices[leg], flow.bind[leg]);
                let (last, ifindex) = (flow.last, bind as u16);
                if device > abi::ROUTER && bind >> 16 != 0 && flow.packets[leg] != 0 {
                    let seen = latest.entry(device).or_insert((last, u32::from(ifindex)));
                    if (last.wrapping_sub(seen.0) as i32) > 0 {
                        *seen = (last, u32::from(ifindex));
                    }
                }
            }
        })?;
        let mut learned: BTreeMap<u32, Vec<String>> = BTreeMap::new();
        for (address, device, _) in self.reader.learned()? {
            learned
                .entry(device)
                .or_default()
                .push(IpAddr::from(address).to_string());
        }
        let mut devices = Vec::new();
        for device in &current.intent.devices {
            let number = number_of(&current.ids, numbered::DEVICE, &device.name);
            let by_flow = latest.get(&number).copied();
            let seen = match (self.reader.seen(number)?, by_flow) {
                (Some(a), Some(b)) if (b.0.wrapping_sub(a.0) as i32) > 0 => Some(b),
                (Some(a), _) => Some(a),
                (None, by_flow) => by_flow,
            };
            let last_seen = seen.map(|(last, _)| {
                let ago = current.clock.seconds_since(last, tick);
                to_proto(now - jiff::SignedDuration::from_secs(ago as i64))
            });
            let mut addresses: Vec<String> =
                device.addresses.iter().map(ToString::to_string).collect();
            let mut more = learned.remove(&number).unwrap_or_default();
            more.sort();
            addresses.extend(more);
            let hold = current.quarantined.device(device);
            devices.push(v1::DeviceStatus {
                name: device.name.clone(),
                zone: current.intent.zones[device.zone.0].name.clone(),
                macs: device.macs.iter().map(ToString::to_string).collect(),
                addresses,
                port: seen.map_or_else(String::new, |(_, ifindex)| {
                    current.interface(ifindex).to_owned()
                }),
                last_seen,
                quarantined: hold.is_some(),
                quarantine: hold.map(quarantine),
                facts: Some(self.facts(device)),
                labels: device.labels.clone(),
            });
        }
        Ok(devices)
    }

    /// Judges the packet that a question describes: returns an answer, or the question's problem.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub(super) fn explain(
        &self,
        question: &Question,
    ) -> Result<Result<Answer, Vec<Problem>>, Refusal> {
        let learned = self.reader.learned_now()?;
        let snapshot = self.state().snapshot;
        let tick = self.reader.tick()?;
        let answer = explain::explain(&snapshot, question, &learned, tick);
        learned.whole()?;
        Ok(answer)
    }
}
