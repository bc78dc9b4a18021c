//! Events: reports of verdicts to the daemon, at most one a second for each kind.

use aya_ebpf::bindings::BPF_NOEXIST;
use wardline_ebpf::{
    abi::{Event, EventKey, EventLimit, ROUTER, Reason, gauge, mac_key},
    cell::Cell64,
    lookup::Lookup as _,
    packet::Shape,
};

use super::{
    desk::{LEAVING, desk},
    maps::{EVENT_LIMITS, EVENTS, Maps, REVISIONS, found, jiffies},
};

/// Sends the daemon an event, at most once a second for each (device, reason, rule). Returns
/// whether it did, because a global function has to return a number.
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn send_event(index: u32) -> u32 {
    let Some(desk) = desk(index) else { return 0 };
    let (work, packet, verdict) = (&desk.work, &desk.work.packet, &desk.verdict);
    let mut device = work.device;
    // A packet that fails by form is dropped before its sender is looked up.
    if device == 0
        && (index != LEAVING || work.is_hosted())
        && let Some(mac) = Maps.mac(mac_key(work.slot, packet.source_mac))
        && mac.device != ROUTER
    {
        device = mac.device;
    }
    let key = EventKey {
        device,
        rule: verdict.rule,
        reason: verdict.would as u32,
        ifindex: if device == 0 { work.ifindex } else { 0 },
    };
    let now = jiffies();
    let mut packets = 1;
    if let Some(limit) = found!(EVENT_LIMITS.get_ptr(key)) {
        let second = match Maps.settings() {
            Some(settings) => settings.jiffies_per_second as u64,
            None => 1000,
        };
        if now.wrapping_sub(limit.last.load()) < second {
            limit.suppressed.add(1);
            return 0;
        }
        packets += limit.suppressed.load();
        limit.suppressed.store(0);
        limit.last.store(now);
    } else {
        let limit = EventLimit {
            last: Cell64::new(now),
            suppressed: Cell64::new(0),
        };
        // Another processor has just sent the same event.
        if EVENT_LIMITS
            .insert(key, &limit, BPF_NOEXIST as u64)
            .is_err()
        {
            return 0;
        }
    }
    let revision = found!(REVISIONS.get_ptr(work.slot)).copied().unwrap_or(0);
    let Some(mut entry) = EVENTS.reserve(0) else {
        if let Some(lost) = Maps.gauge(gauge::LOST_EVENTS) {
            lost.add(1);
        }
        return 0;
    };
    let observed = if verdict.reason == Reason::Observed {
        Event::OBSERVED
    } else {
        0
    };
    let egress = if index == LEAVING { Event::EGRESS } else { 0 };
    let ports = matches!(packet.shape, Shape::Tcp | Shape::Udp);
    entry.write(Event {
        revision,
        count: packets,
        source: packet.source.without_link(),
        destination: packet.destination.without_link(),
        source_mac: packet.source_mac,
        destination_mac: packet.destination_mac,
        rule: verdict.rule,
        device,
        ifindex: work.ifindex,
        source_port: packet.source_port,
        destination_port: if ports {
            packet.destination_port
        } else {
            packet.icmp
        },
        vlan: packet.vlan,
        zone: work.zone,
        ethertype: packet.ethertype,
        protocol: packet.protocol,
        reason: verdict.would as u8,
        flags: egress | observed,
        reserved: 0,
    });
    entry.submit(0);
    1
}
