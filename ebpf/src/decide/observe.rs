//! Mode observe: what would be dropped passes, and is reported with its reason.

use super::work::{Verdict, Work};
use crate::{
    abi::{Address, End, MAX_ZONES, Mac, Port, Reason, mac_key, zone},
    lookup::Lookup,
    policy,
};

/// Whether the zone that judges a packet is in mode observe. When no zone is known, because the
/// frame can't be read or its VLAN is not one of the port's, every zone of the port has to observe.
/// A port in quarantine never does.
#[inline(always)]
pub(super) fn observes(work: &mut Work) -> bool {
    if work.is_cut_off() {
        false
    } else if work.settings == 0 {
        work.port & Port::OBSERVES != 0
    } else {
        work.settings & zone::OBSERVE != 0
    }
}

/// The last look at a drop, in a zone that observes: it passes as observed, unless an end is in
/// quarantine or in another zone, which enforces.
#[inline(always)]
pub fn apply_observe<T: Lookup + ?Sized>(tables: &T, work: &mut Work, verdict: Verdict) -> Verdict {
    let never = matches!(verdict.reason, Reason::Quarantined | Reason::NotReady);
    // Policy judges a packet again where it leaves towards a zone that enforces. Form and place are
    // judged only here, so the whole way of the frame counts.
    let spared = verdict.reason.is_of_policy() || spares_frame(tables, work);
    if verdict.reason.passes()
        || never
        || !spared
        || !spares_addresses(tables, work, verdict.reason)
    {
        return verdict;
    }
    Verdict {
        reason: Reason::Observed,
        would: verdict.reason,
        ..verdict
    }
}

/// Whether every device that sends or receives a frame, as far as MACs tell, is in a zone that does
/// not enforce, and not in quarantine.
#[inline(always)]
fn spares_frame<T: Lookup + ?Sized>(tables: &T, work: &Work) -> bool {
    let (source, destination) = (work.packet.source_mac, work.packet.destination_mac);
    if let Some(mac) = tables.mac(mac_key(work.slot, source))
        && !spares_device(tables, work, mac)
    {
        return false;
    }
    match tables.mac(mac_key(work.slot, destination)) {
        Some(mac) => spares_device(tables, work, mac),
        // A bridge sends what is for a group, or for a MAC that nobody knows, out of all its ports.
        None => !work.is_ingress() || work.is_hosted() || work.port & Port::NEIGHBOURS_OBSERVE != 0,
    }
}

#[inline(always)]
fn spares_device<T: Lookup + ?Sized>(tables: &T, work: &Work, mac: &Mac) -> bool {
    mac.flags & End::QUARANTINED == 0 && spares_zone(tables, work, mac.zone)
}

/// Whether what the two addresses stand for is in no zone that enforces, and not in quarantine.
#[inline(always)]
fn spares_addresses<T: Lookup + ?Sized>(tables: &T, work: &mut Work, reason: Reason) -> bool {
    let (source, destination) = if reason == Reason::Malformed {
        // Its addresses can't be believed, if they could be read at all. Where it leaves towards a
        // zone that enforces, it is dropped for the same reason.
        (Address::UNSPECIFIED, Address::UNSPECIFIED)
    } else {
        (work.packet.source, work.packet.destination)
    };
    if !policy::end(tables, work.slot, &source, &mut work.source) {
        work.source = End::default();
    }
    if !policy::end(tables, work.slot, &destination, &mut work.destination) {
        work.destination = End::default();
    }
    has_no_enforcing_end(tables, work)
}

/// Whether neither end of a packet is in quarantine or in a zone with ports that enforces.
#[inline(always)]
pub(super) fn has_no_enforcing_end<T: Lookup + ?Sized>(tables: &T, work: &Work) -> bool {
    let (source, destination) = (&work.source, &work.destination);
    (source.flags | destination.flags) & End::QUARANTINED == 0
        && spares_zone(tables, work, source.zone)
        && spares_zone(tables, work, destination.zone)
}

/// Whether a zone does not enforce: it observes, or has no ports.
#[inline(always)]
fn spares_zone<T: Lookup + ?Sized>(tables: &T, work: &Work, number: u16) -> bool {
    let index = work.slot * MAX_ZONES + (number as u32 & (MAX_ZONES - 1));
    let settings = if number == 0 {
        None
    } else {
        tables.zone(index)
    };
    settings.is_none_or(|it| it & (zone::HAS_PORTS | zone::OBSERVE) != zone::HAS_PORTS)
}
