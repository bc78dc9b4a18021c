//! Why does it not work: what was dropped lately of a device, what would happen now, and what would allow it.

use std::{collections::BTreeMap, net::IpAddr};

use jiff::{SignedDuration, Timestamp};
use tonic::{Code, Status};
use wardline_ebpf::abi::Reason;
use wardline_policy::{
    explain::Question,
    snapshot::Snapshot,
    words::{
        cure::{cure, meaning},
        problem::Problem,
    },
};
use wardline_proto::{time::to_proto, v1};

use super::{
    calls::violations,
    convert::{explained, reason_number},
    view::View,
};
use crate::{
    engine::refusal::Refusal,
    telemetry::{
        event::{Event, ROUTER_NAME, Verdict},
        filter::{Filter, Who},
    },
};

/// How far back, unless the request says so.
const DAY: u64 = 24 * 60 * 60;
/// Kinds of drops, unless the request says so.
const KINDS: usize = 20;
/// Most kinds of drops: each is judged once more.
const MOST_KINDS: usize = 200;
/// Most events that are looked at in each direction.
const EVENTS: usize = 20_000;

/// What makes two drops one kind: sender, receiver, service, reason, rule, interface.
type Kind = (String, String, String, Option<Reason>, String, String);

/// The drops of one kind.
struct Drops {
    first: Timestamp,
    count: u64,
    newest: Event,
}

impl View {
    /// What was dropped lately of a device, and why.
    ///
    /// # Errors
    ///
    /// When there is no such device and nothing of it, or when the journal or the kernel can't be read.
    pub(super) async fn explain_drops(
        &self,
        request: v1::ExplainDropsRequest,
    ) -> Result<v1::ExplainDropsResponse, Status> {
        let seconds = match request.since_s {
            0 => DAY,
            seconds => seconds,
        };
        let ago = SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX));
        let since = Timestamp::now().checked_sub(ago);
        let since = since.unwrap_or(Timestamp::UNIX_EPOCH);
        let (events, incomplete) = self.drops(&request, since).await?;
        let limit = match request.limit {
            0 => KINDS,
            limit => (limit as usize).min(MOST_KINDS),
        };
        self.read(move |view| {
            let snapshot = view.state().snapshot;
            let mut devices = snapshot.intent.devices.iter();
            let device = devices.find(|it| it.name == request.device);
            let quarantined = device.is_some_and(|it| snapshot.quarantined.device(it).is_some());
            let kinds = kinds(events);
            let more = kinds.len().saturating_sub(limit);
            let drops = kinds.into_iter().take(limit);
            let drops = drops.map(|drops| {
                let question = question(&snapshot, &drops.newest);
                // A question that can't be asked any more (of a device that is gone) has no answer.
                let now = match question {
                    Some(question) => view.explain(&question)?.ok().map(explained),
                    None => None,
                };
                Ok(described(&snapshot, drops, now))
            });
            Ok(v1::ExplainDropsResponse {
                device: request.device,
                since: Some(to_proto(since)),
                drops: drops.collect::<Result<_, Refusal>>()?,
                more: more as u64,
                quarantined,
                incomplete,
            })
        })
        .await
    }

    /// The dropped packets that a request is about, and whether there were more than are looked at.
    async fn drops(
        &self,
        request: &v1::ExplainDropsRequest,
        since: Timestamp,
    ) -> Result<(Vec<Event>, bool), Status> {
        let device = Who::of(&request.device);
        let snapshot = self.state().snapshot;
        let all = Filter {
            since: Some(since),
            devices: vec![device.clone()],
            verdicts: vec![Verdict::Drop],
            ..Filter::default()
        };
        let filters = match request.peer.as_str() {
            "" => vec![all],
            peer => vec![
                Filter {
                    peers: vec![Who::of(peer)],
                    ..all.clone()
                },
                Filter {
                    devices: vec![Who::of(peer)],
                    peers: vec![device.clone()],
                    ..all
                },
            ],
        };
        let (mut events, mut incomplete) = (BTreeMap::new(), false);
        for filter in &filters {
            let found = self.newest(filter, EVENTS).await?;
            incomplete |= found.len() == EVENTS;
            events.extend(found.into_iter().map(|event| (event.id, event)));
        }
        let is_known = snapshot
            .intent
            .devices
            .iter()
            .any(|it| it.name == device.name);
        if events.is_empty() && !is_known && device.end.is_none() {
            let problem = Problem {
                path: "device".to_owned(),
                message: format!(
                    "no device {:?}, and nothing of it is in the journal; write a device's name, an \
                     address or a MAC",
                    request.device
                ),
            };
            let message = problem.to_string();
            return Err(violations(Code::NotFound, message, vec![problem]));
        }
        Ok((events.into_values().collect(), incomplete))
    }
}

/// Drops by kind, those with the newest first. Events come in the order of time.
fn kinds(events: Vec<Event>) -> Vec<Drops> {
    let mut kinds: BTreeMap<Kind, Drops> = BTreeMap::new();
    for event in events {
        let (sender, receiver) = ends(&event);
        let kind = (
            sender.0,
            receiver.0,
            event.service.clone(),
            event.reason,
            event.rule.clone(),
            event.interface.clone(),
        );
        let drops = kinds.entry(kind).or_insert_with(|| Drops {
            first: event.time,
            count: 0,
            newest: Event::default(),
        });
        drops.count += event.count;
        drops.newest = event;
    }
    let mut kinds: Vec<Drops> = kinds.into_values().collect();
    kinds.sort_by_key(|drops| std::cmp::Reverse(drops.newest.id));
    kinds
}

/// Sender and receiver of an event: what each is called, and its zone.
fn ends(event: &Event) -> ((String, String), (String, String)) {
    let own = match (event.device.as_str(), event.towards) {
        ("", false) => event.source.clone(),
        ("", true) => event.destination.clone(),
        (device, _) => device.to_owned(),
    };
    let own = (own, event.zone.clone());
    let other = (event.peer.clone(), event.peer_zone.clone());
    if event.towards {
        (other, own)
    } else {
        (own, other)
    }
}

/// Whether a name is that of a device in force.
fn is_device(snapshot: &Snapshot, name: &str) -> bool {
    snapshot.intent.devices.iter().any(|it| it.name == name)
}

/// What is asked about such a packet now; none: rules and place alone do not decide about it.
fn question(snapshot: &Snapshot, event: &Event) -> Option<Question> {
    let reason = event.reason?;
    let can_be_asked = matches!(
        reason,
        Reason::NoRule
            | Reason::DeniedByRule
            | Reason::Expired
            | Reason::Quarantined
            | Reason::UnknownDevice
            | Reason::SpoofedSource
            | Reason::WrongPort
            | Reason::WrongVlan
    );
    event.asked.filter(|_| can_be_asked)?;
    let (sender, receiver) = ends(event);
    let named = |name: &str, address: &str| {
        if is_device(snapshot, name) {
            format!("device:{name}")
        } else if name == ROUTER_NAME {
            name.to_owned()
        } else {
            address.to_owned()
        }
    };
    let is_of_place = !matches!(
        reason,
        Reason::NoRule | Reason::DeniedByRule | Reason::Expired | Reason::Quarantined
    );
    let enters = !event.towards;
    Some(Question {
        // What is wrong with its place is wrong with this very address.
        from: if is_of_place {
            event.source.clone()
        } else {
            named(&sender.0, &event.source)
        },
        to: named(&receiver.0, &event.destination),
        service: event.service.clone(),
        port: if enters {
            event.interface.clone()
        } else {
            String::new()
        },
        source_port: 0,
        mac: if enters && is_of_place {
            event.source_mac.clone()
        } else {
            String::new()
        },
    })
}

/// Drops of one kind, as the proto has them.
fn described(snapshot: &Snapshot, drops: Drops, now: Option<v1::ExplainResponse>) -> v1::DropKind {
    let Drops {
        first,
        count,
        newest: event,
    } = drops;
    let passes = now
        .as_ref()
        .is_some_and(|it| it.verdict() == v1::Answer::Allow);
    // What helps is what helps now.
    let now_reason = now.as_ref().and_then(|it| u8::try_from(it.reason).ok());
    let reason = now_reason.and_then(Reason::from_number).or(event.reason);
    let helps = reason.filter(|_| !passes);
    let fragment = helps.and_then(|reason| fragment(snapshot, &event, reason));
    let (sender, receiver) = ends(&event);
    let (now, now_reason, now_rule) = match now {
        Some(now) => (now.verdict, now.reason, now.rule),
        None => Default::default(),
    };
    v1::DropKind {
        first: Some(to_proto(first)),
        last: Some(to_proto(event.time)),
        count,
        sender: sender.0,
        sender_zone: sender.1,
        receiver: receiver.0,
        receiver_zone: receiver.1,
        reason: event.reason.map_or(0, reason_number),
        meaning: event.reason.map_or("", meaning).to_owned(),
        now,
        now_reason,
        now_rule,
        cure: helps.map_or("", cure).to_owned(),
        fragment,
        service: event.service,
        service_name: event.service_name,
        interface: event.interface,
        source_mac: event.source_mac,
        source: event.source,
        destination: event.destination,
        rule: event.rule,
    }
}

/// The objects that would allow packets like one that is dropped; none: no object does.
fn fragment(snapshot: &Snapshot, event: &Event, reason: Reason) -> Option<v1::Policy> {
    let policy = v1::Policy {
        version: 1,
        ..v1::Policy::default()
    };
    match reason {
        Reason::NoRule | Reason::Expired => {
            event.asked?;
            let (sender, receiver) = ends(event);
            let from = selector(snapshot, &sender.0, &event.source)?;
            let to = selector(snapshot, &receiver.0, &event.destination)?;
            let service = match event.service_name.as_str() {
                "" => &event.service,
                name => name,
            };
            let name = format!("{}-to-{}-{service}", sender.0, receiver.0);
            let rule = v1::Rule {
                name: free_name(snapshot, &name),
                from: vec![from],
                to: vec![to],
                services: vec![service.to_owned()],
                action: v1::Action::Allow.into(),
                ..v1::Rule::default()
            };
            Some(v1::Policy {
                rules: vec![rule],
                ..policy
            })
        }
        Reason::UnknownDevice if !event.zone.is_empty() => {
            let name = format!("new-{}", event.source_mac.replace(':', ""));
            let device = v1::Device {
                name,
                zone: event.zone.clone(),
                macs: vec![event.source_mac.clone()],
                ..v1::Device::default()
            };
            Some(v1::Policy {
                devices: vec![device],
                ..policy
            })
        }
        _ => None,
    }
}

/// How a rule names an end.
fn selector(snapshot: &Snapshot, name: &str, address: &str) -> Option<String> {
    if is_device(snapshot, name) {
        return Some(format!("device:{name}"));
    }
    if name == ROUTER_NAME {
        return Some(name.to_owned());
    }
    let address: IpAddr = address.parse().ok()?;
    let length = if address.is_ipv4() { 32 } else { 128 };
    Some(format!("cidr:{address}/{length}"))
}

/// A name for a rule that no rule has, made of letters that names may have.
fn free_name(snapshot: &Snapshot, wanted: &str) -> String {
    /// Leaves room for a number.
    const LONGEST: usize = 58;
    let letter = |it: char| match it {
        'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '_' | '-' => it,
        _ => '-',
    };
    let base: String = wanted.chars().map(letter).take(LONGEST).collect();
    let is_taken = |name: &String| snapshot.intent.rules.iter().any(|it| it.name == *name);
    let more = (2..1000).map(|number| format!("{base}-{number}"));
    let mut names = std::iter::once(base.clone()).chain(more);
    names.find(|name| !is_taken(name)).unwrap_or(base)
}
