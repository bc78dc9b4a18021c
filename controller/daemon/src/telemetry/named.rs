//! An event of the kernel with names for its numbers, by the snapshot in force.

use std::net::IpAddr;

use jiff::Timestamp;
use wardline_ebpf::{
    abi::{self, Address, MARKS, ROUTER, Reason, mac_key},
    packet::number,
};
use wardline_policy::{
    numbers::numbered,
    snapshot::Snapshot,
    words::{mac::Mac, service::service_text},
};

use super::{
    event::{Event, ROUTER_NAME, Verdict},
    service_names::ServiceNames,
};

/// What names are looked up in besides the snapshot.
pub(super) struct Names<'a> {
    /// The services.
    pub(super) services: &'a mut ServiceNames,
    /// Tells the number of the device that has learned an address.
    pub(super) learned: &'a dyn Fn(Address) -> Option<u32>,
}

/// The event with names for its numbers; none when its reason is unknown.
pub(super) fn named(
    raw: &abi::Event,
    snapshot: &Snapshot,
    time: Timestamp,
    names: Names<'_>,
) -> Option<Event> {
    let reason = Reason::from_number(raw.reason)?;
    let observed = raw.flags & abi::Event::OBSERVED != 0;
    let passes = observed || reason.passes();
    let device = snapshot.name(numbered::DEVICE, raw.device);
    let (source, destination) = ends(raw);
    let (peer, peer_zone) = peer(raw, snapshot, names.learned);
    let (service, asked) = service(raw, reason);
    let service_name = asked.map(|key| names.services.name(&snapshot.policy, key).to_owned());
    Some(Event {
        id: 0,
        time,
        verdict: if passes { Verdict::Pass } else { Verdict::Drop },
        reason: Some(reason),
        rule: snapshot.name(numbered::RULE, raw.rule).to_owned(),
        device: device.to_owned(),
        zone: zone_of(snapshot, device)
            .unwrap_or_else(|| snapshot.name(numbered::ZONE, u32::from(raw.zone)))
            .to_owned(),
        peer,
        peer_zone,
        towards: raw.flags & abi::Event::EGRESS != 0,
        interface: snapshot.interface(raw.interface).to_owned(),
        vlan: raw.vlan,
        source,
        destination,
        service,
        asked,
        service_name: service_name.unwrap_or_default(),
        count: raw.count,
        destinations: destinations(raw),
        revision: raw.revision,
        source_mac: mac(raw.source_mac).to_string(),
        source_port: raw.source_port,
        observed,
        message: String::new(),
    })
}

/// How many destinations the packets of an event had, from how many of the kernel's marks they have
/// set by hash: some share a mark.
fn destinations(raw: &abi::Event) -> u32 {
    const ALL: u32 = MARKS as u32 * u64::BITS;
    let all = f64::from(ALL);
    // With all marks set there are at least about as many as would leave one.
    let free = all - f64::from(raw.destinations.min(ALL - 1));
    let estimate = (all * (all / free).ln()).round() as u32;
    let count = u32::try_from(raw.count).unwrap_or(u32::MAX);
    estimate.clamp(1, count.max(1))
}

/// The other end of a packet, as the event's device sees it, and that end's zone.
fn peer(
    raw: &abi::Event,
    snapshot: &Snapshot,
    learned: &dyn Fn(Address) -> Option<u32>,
) -> (String, String) {
    let towards = raw.flags & abi::Event::EGRESS != 0;
    let (address, other_mac) = if towards {
        (raw.source, raw.source_mac)
    } else {
        (raw.destination, raw.destination_mac)
    };
    let of_device = |number: u32| match number {
        0 => None,
        ROUTER => Some((ROUTER_NAME.to_owned(), String::new())),
        number => {
            let name = snapshot.name(numbered::DEVICE, number);
            let zone = zone_of(snapshot, name).unwrap_or_default();
            (!name.is_empty()).then(|| (name.to_owned(), zone.to_owned()))
        }
    };
    if !has_addresses(raw) || address == Address::UNSPECIFIED {
        let known = snapshot.tables.macs.get(&mac_key(0, other_mac));
        let device = known.and_then(|it| of_device(it.device));
        return device.unwrap_or_else(|| (mac(other_mac).to_string(), String::new()));
    }
    let address = match address.is_link_local() {
        true => address.on_link(raw.interface),
        false => address,
    };
    let end = snapshot.end(address).unwrap_or_default();
    let number = match end.device {
        0 => learned(address).unwrap_or_default(),
        number => number,
    };
    of_device(number).unwrap_or_else(|| {
        let zone = snapshot.name(numbered::ZONE, u32::from(end.zone));
        (IpAddr::from(address).to_string(), zone.to_owned())
    })
}

/// The zone of a device in the policy in force.
fn zone_of<'a>(snapshot: &'a Snapshot, device: &str) -> Option<&'a str> {
    let intent = &snapshot.intent;
    let at = intent
        .devices
        .binary_search_by(|known| known.name.as_str().cmp(device))
        .ok()?;
    let zone = intent.zones.get(intent.devices.get(at)?.zone.0)?;
    Some(&zone.name)
}

/// Both ends: addresses, or MACs where the frame has none that could be read.
fn ends(raw: &abi::Event) -> (String, String) {
    if has_addresses(raw) {
        return (
            IpAddr::from(raw.source).to_string(),
            IpAddr::from(raw.destination).to_string(),
        );
    }
    (
        mac(raw.source_mac).to_string(),
        mac(raw.destination_mac).to_string(),
    )
}

fn has_addresses(raw: &abi::Event) -> bool {
    raw.source != Address::UNSPECIFIED || raw.destination != Address::UNSPECIFIED
}

fn mac(number: u64) -> Mac {
    let [_, _, a, b, c, d, e, f] = number.to_be_bytes();
    Mac([a, b, c, d, e, f])
}

/// The service that a packet asks for, as a policy writes it, and its key; an EtherType without a key
/// where it is not IP or its protocol could not be read.
pub(super) fn service(raw: &abi::Event, reason: Reason) -> (String, Option<u32>) {
    let ethertype = raw.ethertype;
    if ethertype == number::ARP {
        return ("arp".to_owned(), None);
    }
    if !matches!(ethertype, number::IPV4 | number::IPV6) || !has_addresses(raw) {
        return (format!("{ethertype:#06x}"), None);
    }
    // A packet that was dropped before its ports were read has zeros for them.
    let by_form = matches!(
        reason,
        Reason::Malformed | Reason::IpOptions | Reason::ExtensionHeader | Reason::Fragment
    );
    if by_form && raw.source_port == 0 && raw.destination_port == 0 {
        let text = match raw.protocol {
            0 => format!("{ethertype:#06x}"),
            number::TCP => "tcp/*".to_owned(),
            number::UDP => "udp/*".to_owned(),
            number::ICMP => "icmp/*".to_owned(),
            number::ICMPV6 => "icmpv6/*".to_owned(),
            protocol => service_text(protocol, 0),
        };
        return (text, None);
    }
    let key = u32::from(raw.protocol) << 16 | u32::from(raw.destination_port);
    let text = service_text(raw.protocol, raw.destination_port);
    (text, Some(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_are_as_many_as_their_marks_say() {
        let told = |marks, count| {
            destinations(&abi::Event {
                destinations: marks,
                count,
                ..abi::Event::default()
            })
        };
        assert_eq!(told(1, 9000), 1);
        assert_eq!(told(2, 9000), 2);
        // Of sixty, some six share a mark.
        assert_eq!(told(54, 9000), 61);
        assert_eq!(told(54, 60), 60);
        assert_eq!(told(256, 9000), 1420);
        // Packets whose destinations were not looked at.
        assert_eq!(told(0, 4), 1);
    }
}
