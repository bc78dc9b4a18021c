//! The failsafe: hosts that may always reach the router.

use super::{
    ask::{asked_service, has_flow},
    work::{Verdict, Work},
};
use crate::{
    abi::{Address, FAILSAFES, Reason},
    guards,
    lookup::Lookup,
    packet::{Bytes, Shape, number},
};

/// Whether any host may always reach the router.
#[inline(always)]
pub fn has_failsafe<T: Lookup + ?Sized>(tables: &T) -> bool {
    match tables.settings() {
        Some(settings) => settings.failsafe != 0,
        None => false,
    }
}

/// A second look at a drop by place, quarantine, state, policy or room. A packet between the router
/// and a failsafe host passes as control, and so do ARP and neighbour discovery between them. No
/// flow is opened, so this works however full the tables are.
///
/// Policy is not consulted, so it does not matter either which device it takes the sender for.
#[inline(always)]
pub fn apply_failsafe<B: Bytes + ?Sized, T: Lookup + ?Sized>(
    bytes: &B,
    tables: &T,
    work: &mut Work,
    verdict: Verdict,
) -> Verdict {
    let count = match tables.settings() {
        Some(settings) => settings.failsafe,
        None => 0,
    };
    let by_form = matches!(
        verdict.reason,
        Reason::Malformed
            | Reason::UnknownEthertype
            | Reason::IpOptions
            | Reason::Fragment
            | Reason::ExtensionHeader
            | Reason::BadTcpFlags
            | Reason::NotReady
    );
    let aside = !work.is_ingress() && !work.is_from_router() || work.packet.fragment.is_first();
    if count == 0 || verdict.reason.passes() || by_form || aside {
        return verdict;
    }
    let (source, destination) = (work.packet.source, work.packet.destination);
    let (mut other, mut router) = if work.is_ingress() {
        (source, destination)
    } else {
        (destination, source)
    };
    let service = if work.packet.ethertype == number::ARP {
        if guards::arp_claim(bytes, &work.packet).is_err() {
            return verdict;
        }
        None
    } else if work.packet.shape == Shape::Discovery {
        // Without a link header there are no neighbours to find.
        if work.is_bare() {
            return verdict;
        }
        let Some(target) = bytes.read::<16>(work.packet.payload as usize + 8) else {
            return verdict;
        };
        let target = Address::v6(target).on_link(work.link);
        let asks = match work.packet.icmp >> 8 {
            135 => true,
            136 => false,
            _ => return verdict,
        };
        if work.packet.hop_limit != 255 || source.is_v4() {
            return verdict;
        }
        if asks == work.is_ingress() {
            // A solicitation for the router's address, or the router's advertisement: the target is
            // the router's address.
            router = target;
        } else if asks {
            // The router's solicitation for another host's address, sent to a group.
            other = target;
        } else if target != source {
            return verdict;
        }
        None
    } else if has_flow(&work.packet) {
        Some(if work.is_ingress() {
            work.packet.service()
        } else {
            asked_service(&work.packet)
        })
    } else {
        return verdict;
    };
    let is_router = work.is_from_router()
        || guards::is_the_routers(tables, work.slot, &router, &mut work.destination);
    // A host without an address may probe whether an address is free. The failsafe must not let it
    // claim the router's.
    if !is_router || other.is_martian_source() || other.is_unspecified() {
        return verdict;
    }
    for index in 0..FAILSAFES {
        if index >= count {
            break;
        }
        if let Some(entry) = tables.failsafe(index)
            && entry.has(&other.without_link())
            && service.is_none_or(|service| (entry.first..=entry.last).contains(&service))
        {
            return Verdict::of(Reason::Control);
        }
    }
    verdict
}
