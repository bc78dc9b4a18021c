//! The effects of a document before it is applied: the answer to `plan`.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use wardline_policy::{
    document::{diff, edit::Edit},
    intent::{Intent, Zone},
    numbers::numbered,
    reach::{self, Reach, Who},
    replay::{self, Asked, Outcome, Replay},
    snapshot::Snapshot,
    words::service::{service_text, service_words},
};
use wardline_proto::{time::to_proto, v1};

use super::{
    convert::{described, failsafe, reason_number, table_status},
    sheet::Sheet,
    view::View,
};
use crate::{
    engine::{
        prepare::{Fit, Prepared, prepare},
        refusal::Refusal,
    },
    memory::give_back,
    telemetry::observed::{Faulty, Observed},
};

/// Most flows, observed drops and dangers that are listed.
const LISTED: usize = 100;
/// Most pairs that are listed.
const PAIRS: usize = 2000;

impl View {
    /// The changes in a document, and their effects, as long as they are `wanted`.
    ///
    /// # Errors
    ///
    /// Why it would be refused, or that nobody waits for it any more.
    pub(super) fn plan(
        &self,
        policy: v1::Policy,
        wanted: &dyn Fn() -> bool,
    ) -> Result<v1::PlanResponse, Refusal> {
        let planned = self.planned(policy.into(), wanted);
        give_back();
        planned
    }

    /// What an edit of the document in force would change, and its effects.
    ///
    /// # Errors
    ///
    /// Why it would be refused, or that nobody waits for it any more.
    pub(super) fn plan_edit(
        &self,
        edit: &Edit,
        wanted: &dyn Fn() -> bool,
    ) -> Result<v1::PlanResponse, Refusal> {
        let (policy, edited) = Refusal::or_edited(&self.state().snapshot.policy, edit)?;
        let planned = self.planned(Arc::clone(&policy), wanted);
        give_back();
        planned.map_err(|refusal| refusal.in_edit(&policy, edit, &edited))
    }

    /// What the devices of a table would change, and its effects.
    ///
    /// # Errors
    ///
    /// Why it would be refused, or that nobody waits for it any more.
    pub(super) fn plan_sheet(
        &self,
        sheet: &Sheet,
        wanted: &dyn Fn() -> bool,
    ) -> Result<v1::PlanResponse, Refusal> {
        let edit = sheet.edit(&self.state().snapshot.policy);
        let mut planned = self
            .plan_edit(&edit, wanted)
            .map_err(|refusal| sheet.refused(refusal))?;
        planned.warnings.extend(sheet.warnings.iter().cloned());
        Ok(planned)
    }

    fn planned(
        &self,
        policy: Arc<v1::Policy>,
        wanted: &dyn Fn() -> bool,
    ) -> Result<v1::PlanResponse, Refusal> {
        let state = self.state();
        let current = Arc::clone(&state.snapshot);
        let (limits, reader) = (&self.limits, &self.reader);
        let prepared = prepare(policy, &current, limits, reader, Fit::AllPorts)?;
        let mut warnings = prepared.intent.warnings.clone();
        warnings.extend(state.unguarded_in(&prepared.intent));
        let now = Timestamp::now();
        let tick = self.reader.tick()?;
        let mut next = Replay::new(&prepared.tables, tick);
        // Also what is over, because a flow that is open goes on.
        let known = self.reader.known_names()?.into_iter();
        next.know(known.map(|it| (it.named.address, it.selector)));
        let intents = [&current.intent, &prepared.intent];
        let named = intents.map(|it| reach::pairs_named(it)).into_iter().max();
        let (mut reach, idle) = if named > Some(reach::MOST_PAIRS) {
            warnings.push(format!(
                "the rules name more than {} pairs of ends, so the plan does not say what opens and \
                 closes, and which rules do nothing",
                reach::MOST_PAIRS
            ));
            (Vec::new(), Vec::new())
        } else {
            let reach = reach::changes(&current.intent, &prepared.intent, now, wanted);
            let idle = reach::idle(&prepared.intent, now, wanted);
            (
                reach.ok_or(Refusal::Unwanted)?,
                idle.ok_or(Refusal::Unwanted)?,
            )
        };
        let cut = self.cut(&next, &prepared, &current, tick)?;
        let mut observed = self.observed(&next, &prepared)?;
        let dangers = dangers(&current.intent, &prepared.intent, &cut, &reach, &observed);
        let more_reach = reach.len().saturating_sub(PAIRS) as u64;
        reach.truncate(PAIRS);
        let more_observed = observed.len().saturating_sub(LISTED) as u64;
        observed.truncate(LISTED);
        Ok(v1::PlanResponse {
            base: current.revision,
            changes: diff::in_full(&current.policy, &prepared.policy),
            warnings,
            tables: self
                .reader
                .needs(&prepared.tables)
                .into_iter()
                .map(table_status)
                .collect(),
            dangers,
            reach: reach.into_iter().map(told).collect(),
            more_reach,
            cut: cut.listed,
            flows_cut: cut.flows,
            idle: idle
                .into_iter()
                .map(|idle| v1::IdleRule {
                    rule: idle.rule.to_owned(),
                    matches: idle.matches,
                    why: idle.why,
                    covered_by: idle.covered_by.into_iter().map(str::to_owned).collect(),
                })
                .collect(),
            empty_zones: reach::empty_zones(&prepared.intent)
                .into_iter()
                .map(str::to_owned)
                .collect(),
            observed,
            more_observed,
            failsafe: self.failsafe.iter().map(failsafe).collect(),
        })
    }

    /// The live flows that the change would cut.
    fn cut(
        &self,
        next: &Replay<'_>,
        prepared: &Prepared,
        current: &Snapshot,
        tick: u32,
    ) -> Result<Cut, Refusal> {
        let settings = self.reader.settings()?;
        let names = names(prepared);
        let mut cut = Cut::default();
        let mut others = Vec::new();
        self.reader.flows(|flow| {
            let Outcome {
                reason,
                rule,
                is_the_routers,
            } = next.flow(flow);
            if !flow.is_live(&settings, tick) || reason.passes() {
                return;
            }
            cut.flows += 1;
            cut.of_router += u64::from(is_the_routers);
            let list = if is_the_routers {
                &mut cut.listed
            } else {
                &mut others
            };
            if list.len() < LISTED {
                list.push(v1::CutFlow {
                    flow: Some(described(flow, current, tick)),
                    reason: reason_number(reason),
                    rule: names.get(&rule).copied().unwrap_or_default().to_owned(),
                });
            }
        })?;
        cut.listed.append(&mut others);
        cut.listed.truncate(LISTED);
        Ok(cut)
    }

    /// Traffic that mode observe has let pass and the next tables would drop.
    fn observed(
        &self,
        next: &Replay<'_>,
        prepared: &Prepared,
    ) -> Result<Vec<v1::ObservedDrop>, Refusal> {
        let what = |asked: &Asked| (asked.addresses, asked.service);
        let events = self.events.observed().into_iter();
        let mut tally: BTreeMap<_, (Asked, Observed)> = events
            .map(|(asked, seen)| (what(&asked), (asked, seen)))
            .collect();
        // Also live flows, because a flow makes only one event, perhaps before this daemon started.
        // A flow has the devices of both ends, an event only one.
        self.reader.flows(|flow| {
            if flow.state & wardline_ebpf::abi::state::OBSERVED != 0 {
                let packets = flow.packets.iter().map(|it| u64::from(*it)).sum();
                let asked = replay::asked(flow);
                let unheard = (asked, Observed::default());
                let (known, seen) = tally.entry(what(&asked)).or_insert(unheard);
                *known = asked;
                seen.packets = seen.packets.max(packets);
            }
        })?;
        let devices: BTreeMap<u32, &String> = prepared
            .ids
            .iter()
            .filter(|((kind, _), _)| kind == numbered::DEVICE)
            .map(|((_, name), number)| (*number, name))
            .collect();
        let dropped = tally.into_values().filter_map(|(asked, seen)| {
            let outcome = next.asked(&asked);
            (!outcome.reason.passes()).then_some((asked, seen, outcome.reason))
        });
        let mut dropped: Vec<_> = dropped.collect();
        dropped.sort_by_key(|(asked, seen, _)| (std::cmp::Reverse(seen.packets), *asked));
        let list = dropped.into_iter().map(|(asked, seen, reason)| {
            let Asked {
                addresses: [source, destination],
                devices: [from, to],
                service,
            } = asked;
            let device = devices.get(&from).or_else(|| devices.get(&to));
            v1::ObservedDrop {
                device: device.map(|name| (*name).clone()).unwrap_or_default(),
                source: source.to_string(),
                destination: destination.to_string(),
                service: service_text((service >> 16) as u8, service as u16),
                reason: reason_number(reason),
                packets: seen.packets,
                last: seen.last.map(to_proto),
            }
        });
        let mut list: Vec<_> = list.chain(self.faults(next)).collect();
        list.sort_by_key(|it| std::cmp::Reverse(it.packets));
        Ok(list)
    }

    /// Faults of form and place that mode observe has let pass, and for which the next tables would
    /// drop packets.
    fn faults(&self, next: &Replay<'_>) -> impl Iterator<Item = v1::ObservedDrop> {
        let faults = self.events.faults().into_iter();
        faults.filter_map(
            |(
                fault,
                Faulty {
                    seen,
                    source,
                    event,
                },
            )| {
                // A device that no policy lists is known by its MAC only.
                let device = if event.device.is_empty() {
                    &event.source_mac
                } else {
                    &event.device
                };
                next.drops(&fault, source).then(|| v1::ObservedDrop {
                    device: device.clone(),
                    source: event.source.clone(),
                    destination: event.destination.clone(),
                    service: event.service.clone(),
                    reason: reason_number(fault.reason),
                    packets: seen.packets,
                    last: seen.last.map(to_proto),
                })
            },
        )
    }
}

/// The live flows that a change would cut.
#[derive(Default)]
struct Cut {
    flows: u64,
    of_router: u64,
    listed: Vec<v1::CutFlow>,
}

/// The rules of the next document, by number.
fn names(prepared: &Prepared) -> BTreeMap<u32, &str> {
    let rules = prepared
        .ids
        .iter()
        .filter(|((kind, _), _)| kind == numbered::RULE);
    rules
        .map(|((_, name), number)| (*number, name.as_str()))
        .collect()
}

fn told(reach: Reach<'_>) -> v1::Reach {
    let owned = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect();
    v1::Reach {
        reachable: reach.opens,
        from: reach.from.to_string(),
        to: reach.to.to_string(),
        services: service_words(&reach.services),
        rules: owned(reach.rules),
        except: owned(reach.except),
        alike: reach.alike as u64,
        answers: reach.answers,
    }
}

/// What a person should see first, the worst first: what may lock the operator out, traffic that
/// stops, ports that are no longer guarded, and rules that open a lot.
fn dangers(
    old: &Intent,
    new: &Intent,
    cut: &Cut,
    reach: &[Reach<'_>],
    observed: &[v1::ObservedDrop],
) -> Vec<String> {
    let mut dangers = Vec::new();
    let first = cut.listed.iter().find_map(|it| it.flow.as_ref());
    let example = first.map_or_else(String::new, |flow| {
        let v1::Flow {
            source,
            destination,
            protocol,
            destination_port,
            ..
        } = flow;
        format!(", such as {source} → {destination} {protocol}/{destination_port}")
    });
    if cut.of_router != 0 {
        dangers.push(format!(
            "cuts {} with the router itself{example}: yours may be one of them",
            flows(cut.of_router)
        ));
    }
    let unreached = |it: &&Reach<'_>| !it.opens && !it.answers && it.to == Who::Router;
    for it in reach.iter().filter(unreached) {
        let services = service_words(&it.services).join(", ");
        dangers.push(format!(
            "{} can't reach the router any more: {services}",
            it.from
        ));
    }
    if cut.flows > cut.of_router {
        let example = if cut.of_router == 0 {
            example
        } else {
            String::new()
        };
        dangers.push(format!(
            "cuts {}{example}",
            flows(cut.flows - cut.of_router)
        ));
    }
    let zones = |intent: &Intent, name: &str| -> Option<Zone> {
        intent.zones.iter().find(|zone| zone.name == name).cloned()
    };
    for zone in &new.zones {
        let was = zones(old, &zone.name);
        let (observed_before, admitted) =
            was.map_or((false, false), |it| (it.observe, it.admit_any));
        if zone.observe && !observed_before {
            dangers.push(format!(
                "zone {}: mode observe: nothing is dropped by policy",
                zone.name
            ));
        }
        if zone.admit_any && !admitted {
            dangers.push(format!(
                "zone {}: admit any: devices that are not listed may speak",
                zone.name
            ));
        }
    }
    if !observed.is_empty() {
        let packets: u64 = observed.iter().map(|it| it.packets).sum();
        dangers.push(format!(
            "drops from now on what was observed: {} kinds of traffic, {packets} packets",
            observed.len()
        ));
    }
    for port in &old.ports {
        if !new.ports.iter().any(|it| it.pattern == port.pattern) {
            dangers.push(format!(
                "port {}: is not guarded any more, unless another fits",
                port.pattern
            ));
        }
    }
    let wide = |it: &&Reach<'_>| it.opens && (it.from == Who::Any || it.to == Who::Any);
    for it in reach.iter().filter(wide) {
        let services = service_words(&it.services).join(", ");
        let only = if it.answers { ", only in answer" } else { "" };
        dangers.push(format!("opens {} → {}: {services}{only}", it.from, it.to));
    }
    let more = dangers.len().saturating_sub(LISTED);
    dangers.truncate(LISTED);
    if more != 0 {
        dangers.push(format!("and {more} more"));
    }
    dangers
}

fn flows(count: u64) -> String {
    match count {
        1 => "1 live flow".to_owned(),
        count => format!("{count} live flows"),
    }
}
