//! Converts the daemon's values to messages of the API, and requests to the daemon's values.

use std::{net::IpAddr, time::Duration};

use jiff::Timestamp;
use wardline_datapath::reader::Fill;
use wardline_ebpf::{
    abi::{Reason, state},
    flows,
};
use wardline_policy::{
    document::{EndingRule, edit::Edit},
    explain::{Answer, Question},
    failsafe::Failsafe,
    live::Live,
    numbers::numbered,
    quarantine::{Hold, Identity},
    snapshot::Snapshot,
};
use wardline_proto::{time::to_proto, v1};

use crate::{
    access::audit::Entry,
    engine::{
        grants::GrantRequest,
        pending::Pending,
        state::{Attached, PortState, Shut},
    },
    parts::{Broken, Part},
    store::revision::Revision,
    telemetry::{
        event::{Event, Verdict},
        journal::Journal,
    },
};

/// How full a table is, as the proto has it.
pub(crate) fn table_status(fill: Fill) -> v1::TableStatus {
    v1::TableStatus {
        name: fill.name.to_owned(),
        used: fill.used,
        max: fill.max,
    }
}

/// The proto and the kernel use the same numbers for reasons.
pub(crate) fn reason_number(reason: Reason) -> i32 {
    i32::from(reason as u8)
}

/// The question of a request.
pub(crate) fn question(request: v1::ExplainRequest) -> Question {
    let v1::ExplainRequest {
        from,
        to,
        service,
        port,
        source_port,
        mac,
    } = request;
    Question {
        from,
        to,
        service,
        port,
        source_port,
        mac,
    }
}

/// An explanation, as the proto has it.
pub(crate) fn explained(answer: Answer) -> v1::ExplainResponse {
    let verdict = if answer.passes() {
        v1::Answer::Allow
    } else {
        v1::Answer::Drop
    };
    v1::ExplainResponse {
        verdict: verdict.into(),
        reason: reason_number(answer.reason),
        rule: answer.rule,
        source_zone: answer.source_zone,
        destination_zone: answer.destination_zone,
        packet: answer.packet,
        revision: answer.revision,
    }
}

/// Hosts that may always reach the router, as the proto has them.
pub(crate) fn failsafe(failsafe: &Failsafe) -> v1::Failsafe {
    v1::Failsafe {
        from: failsafe.from_texts(),
        services: failsafe.service_texts(),
    }
}

/// A flow, as the proto has it.
pub(crate) fn described(flow: &Live, snapshot: &Snapshot, now: u32) -> v1::Flow {
    let (key, bits) = (flow.key, flow.state);
    let (opener, other) = if flows::opener(bits) == 0 {
        (0, 1)
    } else {
        (1, 0)
    };
    let address = |leg: usize| IpAddr::from(if leg == 0 { key.low } else { key.high }).to_string();
    let port = |leg: usize| (key.ports >> if leg == 0 { 48 } else { 32 }) as u16;
    let protocol = flow.protocol();
    let state = match protocol {
        6 if flows::is_closing(bits) => "closing",
        6 if flows::is_answered(protocol, bits) => "established",
        _ if bits & state::ANSWERED != 0 => "answered",
        _ => "unanswered",
    };
    v1::Flow {
        source: address(opener),
        destination: address(other),
        protocol: protocol_text(protocol),
        source_port: u32::from(port(opener)),
        destination_port: if matches!(protocol, 1 | 58) {
            0
        } else {
            u32::from(port(other))
        },
        rule: snapshot.name(numbered::RULE, flow.rule).to_owned(),
        state: state.to_owned(),
        age_s: snapshot.clock.seconds_since(flow.last, now),
        packets: [opener, other]
            .map(|leg| u64::from(flow.packets[leg]))
            .to_vec(),
        bytes: [opener, other].map(|leg| flow.bytes[leg]).to_vec(),
    }
}

/// The name of an IP protocol, or its number.
pub(crate) fn protocol_text(protocol: u8) -> String {
    match protocol {
        1 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        58 => "icmpv6".to_owned(),
        other => other.to_string(),
    }
}

/// A stored change, as the proto has it.
pub(crate) fn revision(kept: Revision) -> v1::Revision {
    let Revision {
        revision,
        parent,
        time,
        actor,
        reason,
        kind,
        request_id,
        extent,
    } = kept;
    v1::Revision {
        revision,
        parent,
        time: Some(to_proto(time)),
        actor,
        reason,
        kind,
        request_id,
        added: extent.added,
        changed: extent.changed,
        removed: extent.removed,
        subject: String::new(),
    }
}

/// The hook that judges what enters, as the proto has it.
pub(super) fn attached(hook: Attached) -> v1::Attached {
    match hook {
        Attached::Xdp => v1::Attached::Xdp,
        Attached::Tc => v1::Attached::Tc,
        Attached::None => v1::Attached::None,
    }
}

/// A port, as the proto has it.
pub(super) fn port(port: &PortState, quarantined: bool) -> v1::PortStatus {
    v1::PortStatus {
        zone: port.zone.clone(),
        interface: port.interface.clone(),
        attached: attached(port.attached).into(),
        reason: port.reason.clone(),
        ifindex: port.ifindex,
        fast_forward: port.fast_forward,
        quarantined,
        warnings: port.warnings.clone(),
        shut: match port.shut {
            Shut::No => v1::Shut::None,
            Shut::Dropped => v1::Shut::Dropped,
            Shut::Down => v1::Shut::Down,
        }
        .into(),
    }
}

/// Why somebody is in quarantine, as the proto has it.
pub(super) fn quarantine(hold: &Hold) -> v1::Quarantined {
    let Hold {
        name,
        actor,
        reason,
        since,
    } = hold;
    v1::Quarantined {
        actor: actor.clone(),
        reason: reason.clone(),
        // Earlier versions did not keep it.
        since: (*since != Timestamp::UNIX_EPOCH).then(|| to_proto(*since)),
        name: name.clone(),
    }
}

/// Everybody who is in quarantine: devices of the document, then ports, then who is in no document.
pub(super) fn held(current: &Snapshot) -> Vec<v1::Held> {
    let quarantined = &current.quarantined;
    let devices = current.intent.devices.iter().filter_map(|device| {
        let hold = quarantined.device(device)?;
        Some(v1::Held {
            device: device.name.clone(),
            macs: device.macs.iter().map(ToString::to_string).collect(),
            addresses: device.addresses.iter().map(ToString::to_string).collect(),
            quarantine: Some(quarantine(hold)),
            ..v1::Held::default()
        })
    });
    let ports = quarantined.ports().map(|name| v1::Held {
        port: name.clone(),
        quarantine: quarantined.port(name).map(quarantine),
        ..v1::Held::default()
    });
    let strangers = quarantined.strangers(&current.intent).into_iter();
    let strangers = strangers.map(|(identity, hold)| {
        let (mut macs, mut addresses) = (Vec::new(), Vec::new());
        match identity {
            Identity::Mac(mac) => macs.push(mac.to_string()),
            Identity::Address(address) => addresses.push(address.to_string()),
            Identity::Device(_) | Identity::Port(_) => {}
        }
        v1::Held {
            macs,
            addresses,
            quarantine: Some(quarantine(hold)),
            ..v1::Held::default()
        }
    });
    devices.chain(ports).chain(strangers).collect()
}

/// A change that waits, as the proto has it.
pub(super) fn pending(pending: &Pending) -> v1::Pending {
    v1::Pending {
        revision: pending.revision,
        confirm_by: Some(to_proto(pending.confirm_by)),
    }
}

/// A grant, as the proto has it.
pub(super) fn grant(grant: &EndingRule) -> v1::GrantStatus {
    v1::GrantStatus {
        name: grant.name.clone(),
        from: grant.from.clone(),
        to: grant.to.clone(),
        services: grant.services.clone(),
        expires: Some(to_proto(grant.expires)),
    }
}

/// The edit of a request.
pub(super) fn edit(request: v1::EditRequest) -> Edit {
    Edit {
        put: request.put,
        delete: request.delete,
    }
}

impl From<v1::GrantRequest> for GrantRequest {
    fn from(request: v1::GrantRequest) -> Self {
        Self {
            name: request.name,
            from: request.from,
            to: request.to,
            services: request.services,
            lifetime: Duration::from_secs(request.for_s),
            keep_in_quarantine: request.keep_in_quarantine,
        }
    }
}

impl From<&Event> for v1::Event {
    fn from(event: &Event) -> Self {
        let verdict = match event.verdict {
            Verdict::None => v1::Verdict::None,
            Verdict::Pass => v1::Verdict::Pass,
            Verdict::Drop => v1::Verdict::Drop,
        };
        Self {
            time: Some(to_proto(event.time)),
            verdict: verdict.into(),
            reason: event.reason.map_or(0, reason_number),
            rule: event.rule.clone(),
            device: event.device.clone(),
            zone: event.zone.clone(),
            interface: event.interface.clone(),
            vlan: event.vlan.into(),
            source: event.source.clone(),
            destination: event.destination.clone(),
            service: event.service.clone(),
            count: event.count,
            destinations: event.destinations,
            revision: event.revision,
            source_mac: event.source_mac.clone(),
            source_port: event.source_port.into(),
            observed: event.observed,
            message: event.message.clone(),
            peer: event.peer.clone(),
            peer_zone: event.peer_zone.clone(),
            towards: event.towards,
            service_name: event.service_name.clone(),
        }
    }
}

impl From<Entry> for v1::AuditEntry {
    fn from(entry: Entry) -> Self {
        let (line, head) = match entry {
            Entry::Record(line) => (line, String::new()),
            Entry::Head(head) => (String::new(), head),
        };
        Self { line, head }
    }
}

/// How full the journal is.
pub(super) fn journal(journal: &Journal) -> v1::JournalStatus {
    let (fill, bounds) = (journal.fill(), journal.bounds());
    v1::JournalStatus {
        events: fill.events,
        oldest: fill.oldest.map(to_proto),
        bytes: fill.bytes,
        max_bytes: bounds.bytes,
        days: bounds.days,
        lost: journal.lost(),
        forgotten: fill.forgotten,
    }
}

/// A part that does not work.
pub(super) fn broken((part, broken): (&Part, &Broken)) -> v1::BrokenPart {
    v1::BrokenPart {
        name: part.to_string(),
        since: Some(to_proto(broken.since)),
        error: broken.error.clone(),
        next_try: broken.next_try.map(to_proto),
    }
}

#[cfg(test)]
mod tests {
    use wardline_policy::words::reason::reason_word;

    use super::*;

    #[test]
    fn reasons_have_the_numbers_and_the_names_of_the_interface() {
        for reason in Reason::ALL {
            let known = v1::Reason::try_from(reason_number(reason));
            let name = known.map(|known| known.as_str_name());
            let expected = format!("REASON_{}", reason_word(reason).to_uppercase());
            assert_eq!(name, Ok(expected.as_str()));
        }
        let others = (0..1000).filter(|&number| v1::Reason::try_from(number).is_ok());
        // One more, for unspecified.
        assert_eq!(others.count(), Reason::ALL.len() + 1);
    }
}
