//! The failsafe: who may always reach the router.

use super::{
    ask::{asked_service, has_flow},
    work::{Verdict, Work},
};
use crate::{
    abi::{Address, FAILSAFES, Reason},
    guards,
    packet::{Bytes, Shape, number},
    tables::Tables,
};

/// Whether there is anybody who may always reach the router.
#[inline(always)]
pub fn has_failsafe<T: Tables + ?Sized>(tables: &T) -> bool {
    match tables.settings() {
        Some(settings) => settings.failsafe != 0,
        None => false,
    }
}

/// A second look at what is dropped by place, quarantine, state, policy or room: between the router
/// and those who may always reach it, it passes as control. So may what they need for it, ARP and
/// neighbour discovery. No flow is opened: it holds however full the tables are.
///
/// No policy has a say in this, so neither has the device that a policy takes a sender for.
#[inline(always)]
pub fn apply_failsafe<B: Bytes + ?Sized, T: Tables + ?Sized>(
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
    let aside = !work.enters() && !work.own() || work.packet.fragment.is_first();
    if count == 0 || verdict.reason.passes() || by_form || aside {
        return verdict;
    }
    let (source, destination) = (work.packet.source, work.packet.destination);
    let (mut other, mut router) = if work.enters() {
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
        let Some(target) = bytes.read::<16>(work.packet.payload as usize + 8) else {
            return verdict;
        };
        let target = Address::v6(target);
        let asks = match work.packet.icmp >> 8 {
            135 => true,
            136 => false,
            _ => return verdict,
        };
        if work.packet.hop_limit != 255 || source.is_v4() {
            return verdict;
        }
        if asks == work.enters() {
            // Who asks for the router, or whom the router tells of itself: of both it is the
            // router's address that is spoken of.
            router = target;
        } else if asks {
            // The router asks for somebody, through a group.
            other = target;
        } else if target != source {
            return verdict;
        }
        None
    } else if has_flow(&work.packet) {
        Some(if work.enters() {
            work.packet.service()
        } else {
            asked_service(&work.packet)
        })
    } else {
        return verdict;
    };
    let is_router =
        work.own() || guards::is_the_routers(tables, work.slot, &router, &mut work.destination);
    // Who has no address yet asks whether one is free: that the router's is not, it may not say.
    if !is_router || other.is_martian_source() || other.is_unspecified() {
        return verdict;
    }
    for index in 0..FAILSAFES {
        if index >= count {
            break;
        }
        if let Some(entry) = tables.failsafe(index)
            && entry.has(&other)
            && service.is_none_or(|service| (entry.first..=entry.last).contains(&service))
        {
            return Verdict::of(Reason::Control);
        }
    }
    verdict
}
