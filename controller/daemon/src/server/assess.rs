//! What devices did, beside what their vendors' files say: used, unused, undeclared; and a draft of a file.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use jiff::Timestamp;
use wardline_ebpf::abi::{ROUTER, Reason};
use wardline_mud::{Other, Seen, draft, is_rule_of};
use wardline_policy::{
    intent::Intent,
    numbers::{number_of, numbered},
    replay,
    snapshot::Snapshot,
    words::{problem::Problem, service::Service, service::service_text},
};
use wardline_proto::{time::to_proto, v1};

use super::{convert::reason_number, view::View};
use crate::{
    engine::refusal::Refusal,
    telemetry::{event::Verdict, filter::Filter},
};

/// Most undeclared deeds of one device that are listed.
const LISTED: usize = 500;

/// One kind of what a device did.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Deed {
    /// Whether the device opened it.
    from_device: bool,
    /// The address at the other end.
    address: IpAddr,
    /// The device there, the router, or nobody.
    device: u32,
    /// As policies write it.
    service: String,
    /// The rule that let it pass; empty: none.
    rule: String,
    /// Why it was dropped, or would have been; none: a flow lives.
    reason: Option<u8>,
}

/// How often a device did something.
#[derive(Clone, Copy, Debug, Default)]
struct Often {
    count: u64,
    last: Option<Timestamp>,
    dropped: bool,
}

impl View {
    /// What a device did beside what its file says; an empty name: each device that has a file.
    ///
    /// # Errors
    ///
    /// There is no such device, or the kernel refuses.
    pub(super) fn assess(&self, name: &str) -> Result<v1::AssessMudResponse, Refusal> {
        let snapshot = self.state().snapshot;
        let has_file = |it: &&v1::Device| {
            snapshot
                .policy
                .rules
                .iter()
                .any(|rule| rules(rule, it, &snapshot))
        };
        let devices: Vec<&v1::Device> = match name {
            "" => snapshot.policy.devices.iter().filter(has_file).collect(),
            name => vec![device(&snapshot, name)?],
        };
        let mut response = v1::AssessMudResponse {
            revision: snapshot.revision,
            ..v1::AssessMudResponse::default()
        };
        let counters = self.counters()?.rules;
        let packets: BTreeMap<&str, u64> = counters
            .iter()
            .map(|it| (it.rule.as_str(), it.packets))
            .collect();
        for device in devices {
            let deeds = self.deeds(&snapshot, device)?;
            let own = snapshot
                .policy
                .rules
                .iter()
                .filter(|it| rules(it, device, &snapshot));
            let own: Vec<&v1::Rule> = own.collect();
            if own.is_empty() {
                response.without.push(device.name.clone());
            }
            let names: BTreeSet<&str> = own.iter().map(|it| it.name.as_str()).collect();
            for rule in own {
                let flows = deeds.iter().filter(|it| it.0.rule == rule.name);
                let flows: u64 = flows.map(|it| it.1.count).sum();
                let packets = packets.get(rule.name.as_str()).copied().unwrap_or_default();
                let list = if packets == 0 && flows == 0 {
                    &mut response.unused
                } else {
                    &mut response.used
                };
                list.push(v1::MudUse {
                    device: device.name.clone(),
                    rule: rule.name.clone(),
                    from: rule.from.clone(),
                    to: rule.to.clone(),
                    services: rule.services.clone(),
                    packets,
                    flows,
                });
            }
            let others = deeds
                .iter()
                .filter(|it| !names.contains(it.0.rule.as_str()));
            response.more += others.clone().count().saturating_sub(LISTED) as u64;
            let told = others
                .take(LISTED)
                .map(|(deed, often)| undeclared(&snapshot, device, deed, often));
            response.undeclared.extend(told);
        }
        Ok(response)
    }

    /// A file of what a device did.
    ///
    /// # Errors
    ///
    /// There is no such device, it did too much, or the kernel refuses.
    pub(super) fn draft_mud(&self, name: &str, url: &str) -> Result<v1::DraftMudResponse, Refusal> {
        let snapshot = self.state().snapshot;
        let device = device(&snapshot, name)?;
        let deeds = self.deeds(&snapshot, device)?;
        let seen = deeds.keys().filter_map(|deed| {
            let service: Service = deed.service.parse().ok()?;
            let other = match deed.device {
                ROUTER => Other::Router,
                0 if !is_local(&snapshot.intent, deed.address) => Other::At(deed.address),
                _ => Other::Local,
            };
            Some(Seen {
                from_device: deed.from_device,
                other,
                is_v6: deed.address.is_ipv6(),
                protocol: (service.first >> 16) as u8,
                service: service.first as u16,
            })
        });
        let url = match url {
            "" => format!("https://draft.invalid/{name}"),
            url => url.to_owned(),
        };
        let file = draft(&url, name, &seen.collect(), Timestamp::now());
        let file = file.map_err(|message| problem("url", message))?;
        Ok(v1::DraftMudResponse { file })
    }

    /// What a device did, by the flows that live and the events that are kept.
    fn deeds(
        &self,
        snapshot: &Snapshot,
        device: &v1::Device,
    ) -> Result<BTreeMap<Deed, Often>, Refusal> {
        let number = number_of(&snapshot.ids, numbered::DEVICE, &device.name);
        let mut deeds: BTreeMap<Deed, Often> = BTreeMap::new();
        self.reader.flows(|flow| {
            let asked = replay::asked(flow);
            let Some(leg) = asked.devices.iter().position(|it| *it == number) else {
                return;
            };
            let deed = Deed {
                from_device: leg == 0,
                address: asked.addresses[1 - leg],
                device: asked.devices[1 - leg],
                service: service_text((asked.service >> 16) as u8, asked.service as u16),
                rule: snapshot.name(numbered::RULE, flow.rule).to_owned(),
                reason: None,
            };
            deeds.entry(deed).or_default().count += 1;
        })?;
        let mut own: BTreeSet<IpAddr> = BTreeSet::new();
        let intent = snapshot
            .intent
            .devices
            .iter()
            .find(|it| it.name == device.name);
        own.extend(intent.into_iter().flat_map(|it| &it.addresses));
        let learned = self.reader.learned()?.into_iter();
        own.extend(
            learned
                .filter(|it| it.1 == number)
                .map(|it| IpAddr::from(it.0)),
        );
        for event in self.events.kept(&Filter::default()) {
            let (Ok(source), Ok(destination)) = (event.source.parse(), event.destination.parse())
            else {
                continue;
            };
            let (from_device, address) = match (own.contains(&source), own.contains(&destination)) {
                (true, _) => (true, destination),
                (false, true) => (false, source),
                (false, false) => continue,
            };
            // What an address says of itself is not what the device did.
            let claimed = [Reason::SpoofedSource, Reason::UnknownDevice].map(Some);
            if claimed.contains(&event.reason) {
                continue;
            }
            let deed = Deed {
                from_device,
                address,
                device: owner(snapshot, address),
                service: event.service.clone(),
                rule: event.rule.clone(),
                reason: event.reason.map(|it| it as u8),
            };
            let often = deeds.entry(deed).or_default();
            often.count += event.count;
            often.last = often.last.max(Some(event.time));
            often.dropped |= event.verdict == Verdict::Drop;
        }
        Ok(deeds)
    }
}

fn problem(path: &str, message: String) -> Refusal {
    Refusal::Invalid(vec![Problem {
        path: path.to_owned(),
        message,
    }])
}

fn device<'a>(snapshot: &'a Snapshot, name: &str) -> Result<&'a v1::Device, Refusal> {
    let mut devices = snapshot.policy.devices.iter();
    let device = devices.find(|it| it.name == name);
    device.ok_or_else(|| Refusal::missing("device", name))
}

/// Whether a rule came of the file that a device has.
fn rules(rule: &v1::Rule, device: &v1::Device, snapshot: &Snapshot) -> bool {
    let zone = snapshot
        .policy
        .zones
        .iter()
        .find(|it| it.name == device.zone);
    let labels = zone
        .into_iter()
        .flat_map(|it| &it.labels)
        .chain(&device.labels);
    is_rule_of(rule, labels)
}

/// The device that lists an address; the router has its own number.
fn owner(snapshot: &Snapshot, address: IpAddr) -> u32 {
    let mut devices = snapshot.intent.devices.iter();
    match devices.find(|it| it.addresses.contains(&address)) {
        Some(device) => number_of(&snapshot.ids, numbered::DEVICE, &device.name),
        None => 0,
    }
}

fn is_local(intent: &Intent, address: IpAddr) -> bool {
    let mut subnets = intent.zones.iter().flat_map(|it| &it.subnets);
    subnets.any(|it| it.prefix_len() != 0 && it.contains(&address))
}

fn undeclared(
    snapshot: &Snapshot,
    device: &v1::Device,
    deed: &Deed,
    often: &Often,
) -> v1::MudUndeclared {
    let peer = match deed.device {
        ROUTER => "router".to_owned(),
        0 => deed.address.to_string(),
        other => format!("device:{}", snapshot.name(numbered::DEVICE, other)),
    };
    let direction = if deed.from_device {
        v1::MudDirection::FromDevice
    } else {
        v1::MudDirection::ToDevice
    };
    let verdict = if often.dropped {
        v1::Verdict::Drop
    } else {
        v1::Verdict::Pass
    };
    let reason = deed
        .reason
        .and_then(|it| Reason::ALL.into_iter().find(|known| *known as u8 == it));
    v1::MudUndeclared {
        device: device.name.clone(),
        direction: direction.into(),
        peer,
        address: deed.address.to_string(),
        service: deed.service.clone(),
        verdict: verdict.into(),
        reason: reason.map_or(v1::Reason::Rule.into(), reason_number),
        rule: deed.rule.clone(),
        count: often.count,
        last: often.last.map(to_proto),
    }
}
