//! Place and control, for a packet that leaves.

use super::{
    ask::{drop_by_policy, find_destination, has_flow, is_current, pass_established},
    work::{MULTICAST, Verdict, Work},
};
use crate::{
    abi::{Address, End, Reason},
    cell::bit,
    flows, guards,
    lookup::Lookup,
    packet::{Bytes, Shape, number},
    policy,
};

/// Place and control, for a packet that leaves; no verdict when [`admit`](super::admit()) has to go
/// on.
#[inline(always)]
pub fn leave<B: Bytes + ?Sized, T: Lookup + ?Sized>(
    bytes: &B,
    tables: &T,
    work: &mut Work,
) -> Option<Verdict> {
    if work.zone == 0 {
        return Some(Verdict::of(Reason::WrongVlan));
    }
    // Control from outside is control of this link: reports and queries as their RFCs have them, and
    // DHCP that the router has not forwarded. Policy judges everything else.
    let from_outside = !work.is_from_guarded() && !work.is_from_router();
    let on_link = if guards::is_membership(&work.packet) {
        work.packet.is_membership_on_link()
    } else {
        work.packet.shape != Shape::Udp
            || !guards::is_routers_mac(tables, work.slot, work.packet.source_mac)
    };
    let aside = from_outside && !on_link;
    if guards::is_control(&work.packet) && !aside {
        if work.is_from_guarded() {
            // Neighbour discovery that the router has forwarded has a lower hop limit.
            let forwarded = work.packet.shape == Shape::Discovery
                && !work.packet.source.is_v4()
                && work.packet.hop_limit != 255;
            return Some(if forwarded {
                Verdict::of(Reason::NdSpoof)
            } else {
                Verdict::already_counted(Reason::Control)
            });
        }
        if work.is_from_router() {
            return Some(Verdict::of(Reason::Control));
        }
        return Some(control_from_outside(bytes, tables, work).into());
    }
    if work.packet.is_to_group() {
        work.path |= MULTICAST;
    } else if has_flow(&work.packet)
        && let Some(settings) = tables.settings()
    {
        let (key, leg) = flows::key(&work.packet);
        work.sought.set(key, settings.seed);
        work.leg = leg as u32;
        if let Some(found) = flows::find(tables, settings, &work.sought, work.tick) {
            work.at = found.at.wrapping_add(1);
            let bind = found.flow.bind[bit(leg)].load();
            if bind >> 16 != 0 {
                // The sender's address is behind a guarded port. A packet that came through that
                // port was judged there. Any other comes from a host that uses an address which is
                // not its own.
                return Some(if work.is_from_guarded() {
                    Verdict::already_counted(Reason::Established)
                } else {
                    work.device = flows::account_of(&found, leg ^ 1);
                    Verdict::of(Reason::SpoofedSource)
                });
            }
            if bind == work.bind()
                && is_current(tables, work, &found)
                && !flows::reopens(found.state, &work.packet)
                && let Some(verdict) = pass_established(tables, work, &found, leg)
            {
                return Some(verdict);
            }
        }
    }
    let source = work.packet.source;
    let mapped = work.packet.shape == Shape::Mapped;
    if mapped || source.is_martian_source() || source.is_unspecified() {
        return Some(Verdict::of(Reason::SpoofedSource));
    }
    if source.is_link_local() || !policy::end(tables, work.slot, &source, &mut work.source) {
        work.source = End::default();
        find_destination(tables, work);
        return Some(drop_by_policy(work, Reason::NoRule));
    }
    // A device behind a guarded port sends only through that port, and only the router sends from
    // the router's addresses.
    let elsewhere =
        work.source.flags & End::GUARDED != 0 || work.source.is_router() && !work.is_from_router();
    if elsewhere && !work.is_from_guarded() {
        return Some(Verdict::of(Reason::SpoofedSource));
    }
    None
}

/// Control from an interface that is not guarded, such as a bridged uplink: any host there may send
/// it, but not in the name of a guarded device or of the router.
#[inline(always)]
fn control_from_outside<B: Bytes + ?Sized, T: Lookup + ?Sized>(
    bytes: &B,
    tables: &T,
    work: &mut Work,
) -> Result<(), Reason> {
    if work.packet.ethertype == number::ARP {
        guards::arp_claim(bytes, &work.packet)?;
        let claim = work.packet.source;
        let nobodys = claim.is_martian_source() && !claim.is_unspecified();
        return if nobodys || is_guarded_address(tables, work, &claim) {
            Err(Reason::ArpSpoof)
        } else {
            Ok(())
        };
    }
    if work.packet.shape == Shape::Frame {
        return Ok(());
    }
    let source = work.packet.source;
    if is_guarded_address(tables, work, &source) {
        return Err(Reason::SpoofedSource);
    }
    if work.packet.shape != Shape::Discovery {
        return Ok(());
    }
    let kind = work.packet.icmp >> 8;
    if source.is_v4() || kind == 137 {
        return Err(Reason::RogueRa);
    }
    if work.packet.hop_limit != 255 {
        return Err(Reason::NdSpoof);
    }
    if kind == 136 || kind == 135 && source.is_unspecified() {
        let Some(target) = bytes.read::<16>(work.packet.payload as usize + 8) else {
            return Err(Reason::Malformed);
        };
        let target = Address::v6(target);
        if is_guarded_address(tables, work, &target) {
            return Err(Reason::NdSpoof);
        }
    }
    Ok(())
}

/// Whether an address belongs to a guarded device or to the router.
#[inline(always)]
fn is_guarded_address<T: Lookup + ?Sized>(tables: &T, work: &mut Work, address: &Address) -> bool {
    policy::end(tables, work.slot, address, &mut work.source)
        && (work.source.flags & End::GUARDED != 0 || work.source.is_router())
}
