//! Hears of MACs: of those that no device lists by events, and of all by what their DHCP clients say.

use std::net::IpAddr;

use jiff::Timestamp;
use tokio::sync::{broadcast::error::RecvError, watch};
use tokio_util::sync::CancellationToken;
use tracing::warn;
use wardline_datapath::ring::Clients;
use wardline_ebpf::abi::{ClientMessage, Reason, mac_key};
use wardline_policy::{
    numbers::numbered,
    snapshot::Snapshot,
    words::{
        mac::{Mac, mac_number},
        reason::reason_word,
    },
};

use super::{known::Known, message, seen::Dropped};
use crate::{
    engine::state::State,
    telemetry::{
        event::{Event, Verdict},
        events::Events,
    },
};

/// Most messages that are read before other tasks get their turn.
const BATCH: usize = 64;

/// Notes what is heard until told to stop.
pub async fn notice(
    known: Known,
    events: Events,
    clients: Clients,
    states: watch::Receiver<State>,
    stop: CancellationToken,
) {
    let (_, mut events) = events.follow();
    let mut clients = match clients.listen() {
        Ok(clients) => clients,
        Err(error) => return warn!(%error, "what DHCP clients say is not heard"),
    };
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            event = events.recv() => match event {
                Ok(event) => met(&known, &event, &states.borrow().snapshot),
                // What was missed is met again.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            },
            read = clients.wait(BATCH, |message| {
                heard(&known, &message, &states.borrow().snapshot, Timestamp::now());
            }) => if let Err(error) = read {
                return warn!(%error, "what DHCP clients say is not heard any more");
            },
        }
        tokio::task::yield_now().await;
    }
}

/// Whether a device of the policy lists a MAC, or it is one of the router's.
pub(super) fn is_listed(snapshot: &Snapshot, mac: &Mac) -> bool {
    let key = mac_key(0, mac_number(mac));
    let entry = snapshot.tables.macs.get(&key);
    entry.is_some_and(|entry| entry.device != 0)
}

/// An event tells of a MAC that no device lists. Other reasons than `unknown_device` may be about packets
/// that leave, so they count only for MACs that are known to be there.
fn met(known: &Known, event: &Event, snapshot: &Snapshot) {
    let Ok(mac) = event.source_mac.parse::<Mac>() else {
        return;
    };
    let is_about = event.verdict != Verdict::None
        && event.device.is_empty()
        && !is_listed(snapshot, &mac)
        && (event.reason == Some(Reason::UnknownDevice) || known.has(&mac));
    let Some(reason) = event.reason.filter(|_| is_about) else {
        return;
    };
    known.change(
        mac,
        |mac| is_listed(snapshot, mac),
        |seen| {
            seen.at(event.time, &event.interface, &event.zone, event.vlan);
            if let Ok(address) = event.source.parse::<IpAddr>()
                && !address.is_unspecified()
            {
                seen.uses(address.to_string());
            }
            if event.verdict == Verdict::Drop || event.observed {
                seen.tried(Dropped {
                    reason: reason_word(reason).to_owned(),
                    destination: event.destination.clone(),
                    service: event.service.clone(),
                    packets: event.count,
                });
            }
        },
    );
}

/// A DHCP client says something. Of a listed device only what has passed counts: another may have its MAC,
/// at a port where the device may not be.
fn heard(known: &Known, message: &ClientMessage, snapshot: &Snapshot, time: Timestamp) {
    let [_, _, a, b, c, d, e, f] = message.mac.to_be_bytes();
    let mac = Mac([a, b, c, d, e, f]);
    let passed = message.flags & ClientMessage::PASSED != 0;
    if is_listed(snapshot, &mac) && !passed {
        return;
    }
    let bytes = usize::from(message.length).min(message.bytes.len());
    let bytes = &message.bytes[..bytes];
    known.change(
        mac,
        |mac| is_listed(snapshot, mac),
        |seen| {
            let port = snapshot.interface(message.interface);
            let zone = snapshot.name(numbered::ZONE, u32::from(message.zone));
            seen.at(time, port, zone, message.vlan);
            if message.flags & ClientMessage::V4 != 0 {
                message::read_v4(bytes, seen);
            } else {
                message::read_v6(bytes, seen);
            }
        },
    );
}
