//! Events: reports of verdicts to the daemon, at most one a second for each kind, and so many for each
//! device.

use aya_ebpf::bindings::BPF_NOEXIST;
use wardline_ebpf::{
    abi::{AddressKey, Event, EventBudget, EventKey, EventLimit, ROUTER, Reason, gauge, mac_key},
    cell::Cell64,
    decide::Work,
    events,
    lookup::Lookup as _,
    packet::Shape,
};

use super::{
    desk::{LEAVING, desk},
    maps::{EVENT_BUDGETS, EVENT_LIMITS, EVENTS, Maps, REVISIONS, found, jiffies},
};

/// Events of one device in a second about other ends that are no device.
const ELSEWHERE: u32 = 16;
/// The same about devices. A device that scans all others soon has told of each.
const AGAIN: u32 = 32;
/// The same about devices that it has not told of lately: however many it makes noise towards, what
/// it does next is told at once.
const FIRST: u32 = 16;
/// Seconds after which a kind counts as one that has not been told lately.
const LONG: u64 = 10;
/// In [`EventKey::interface`]: the other end is one destination, as [`events::destination`].
const OF_DESTINATION: u32 = 1 << 31;
/// In the key of a budget: it is that of an interface.
const OF_INTERFACE: u64 = 1 << 32;
/// The same for what DHCP clients at an interface say.
const OF_CLIENTS: u64 = 1 << 33;

/// What an event counts as.
enum Share {
    Elsewhere,
    Again,
    First,
}

/// The other end of a packet, for the event. What was dropped by form or place was dropped before
/// its destination was looked up.
#[inline(always)]
fn peer(work: &Work, reason: Reason, index: u32) -> u32 {
    let packet = &work.packet;
    if index == LEAVING {
        return events::peer(&work.source, &packet.source);
    }
    if work.destination.device == 0
        && !reason.is_of_policy()
        && let Some(end) = Maps.address(&AddressKey {
            address: packet.destination,
            slot: work.slot as u64,
        })
    {
        return events::peer(end, &packet.destination);
    }
    events::peer(&work.destination, &packet.destination)
}

/// When an event of a kind was last sent. When the table is full, the kind that was used least
/// recently is forgotten: its next packet makes an event at once, within the device's budget.
#[inline(always)]
fn limit_of(key: &EventKey, long_ago: u64) -> Option<&'static EventLimit> {
    if let Some(limit) = found!(EVENT_LIMITS.get_ptr(key)) {
        return Some(limit);
    }
    let limit = EventLimit {
        last: Cell64::new(long_ago),
        ..EventLimit::default()
    };
    // Another processor may have just done the same.
    let _ = EVENT_LIMITS.insert(key, &limit, BPF_NOEXIST as u64);
    found!(EVENT_LIMITS.get_ptr(key))
}

/// Takes one event from a device's budget; false when it has none left in this second.
#[inline(always)]
fn takes_share(whose: u64, share: Share, now: u64, second: u64) -> bool {
    let found = match found!(EVENT_BUDGETS.get_ptr(whose)) {
        Some(budget) => Some(budget),
        None => {
            let budget = EventBudget {
                since: Cell64::new(now),
                ..EventBudget::default()
            };
            let _ = EVENT_BUDGETS.insert(whose, &budget, BPF_NOEXIST as u64);
            found!(EVENT_BUDGETS.get_ptr(whose))
        }
    };
    let Some(budget) = found else { return false };
    if now.wrapping_sub(budget.since.load()) >= second {
        budget.since.store(now);
        budget.elsewhere.store(0);
        budget.again.store(0);
        budget.first.store(0);
    }
    let (used, most) = match share {
        Share::Elsewhere => (&budget.elsewhere, ELSEWHERE),
        Share::Again => (&budget.again, AGAIN),
        Share::First => (&budget.first, FIRST),
    };
    if used.load() >= most {
        return false;
    }
    used.add(1);
    true
}

/// Takes one message of a DHCP client from the budget of an interface: 16 a second.
#[inline(always)]
pub(super) fn takes_message(interface: u32) -> bool {
    let second = match Maps.settings() {
        Some(settings) => settings.jiffies_per_second as u64,
        None => 1000,
    };
    takes_share(
        OF_CLIENTS | interface as u64,
        Share::First,
        jiffies(),
        second,
    )
}

/// Counts an event that can't be sent.
#[inline(always)]
fn lose() {
    if let Some(lost) = Maps.gauge(gauge::LOST_EVENTS) {
        lost.add(1);
    }
}

/// Sends the daemon an event, at most one a second for each (device, reason, rule, other end). What is
/// only observed has one more for each destination and service that was not told of lately: of an
/// observed flow only the first packet comes here, and who writes rules for what was observed has to
/// learn of it. Returns whether it did, because a global function has to return a number.
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
        interface: if device == 0 { work.interface } else { 0 },
        peer: peer(work, verdict.would, index),
    };
    let now = jiffies();
    let second = match Maps.settings() {
        Some(settings) => settings.jiffies_per_second as u64,
        None => 1000,
    };
    let long_ago = now.wrapping_sub(LONG * second);
    let Some(limit) = limit_of(&key, long_ago) else {
        lose();
        return 0;
    };
    events::mark(limit, packet);
    let observed = verdict.reason == Reason::Observed;
    // Who is no device is known by its MAC only, and has to be told of whoever else is on the port.
    let stranger = device == 0 && index != LEAVING;
    let own = if observed || stranger {
        let destination = if observed {
            events::destination(packet)
        } else {
            0
        };
        let sender = if stranger { events::sender(packet) } else { 0 };
        let key = EventKey {
            interface: key.interface | OF_DESTINATION,
            peer: destination ^ sender,
            ..key
        };
        limit_of(&key, long_ago)
    } else {
        None
    };
    let age = now.wrapping_sub(limit.last.load());
    let is_news = match own {
        Some(own) => now.wrapping_sub(own.last.load()) >= LONG * second,
        None => false,
    };
    // The share of a kind comes first: one that has had its event takes nothing from the budget.
    let told = (age >= second || is_news) && {
        let whose = match device {
            0 => OF_INTERFACE | work.interface as u64,
            device => device as u64,
        };
        let share = match key.peer & EventKey::ADDRESS {
            0 if age >= LONG * second => Share::First,
            0 => Share::Again,
            _ => Share::Elsewhere,
        };
        takes_share(whose, share, now, second)
    };
    if !told {
        limit.suppressed.add(1);
        return 0;
    }
    let packets = 1 + limit.suppressed.load();
    let destinations = events::take_marks(limit);
    limit.suppressed.store(0);
    limit.last.store(now);
    if let Some(own) = own {
        own.last.store(now);
    }
    let revision = found!(REVISIONS.get_ptr(work.slot)).copied().unwrap_or(0);
    let Some(mut entry) = EVENTS.reserve(0) else {
        lose();
        return 0;
    };
    let observed = if observed { Event::OBSERVED } else { 0 };
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
        interface: work.interface,
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
        destinations,
    });
    entry.submit(0);
    1
}
