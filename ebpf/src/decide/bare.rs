//! Place, for a packet that enters through an interface without a link header (WireGuard, PPP, tun):
//! nothing tells its sender but the interface and the address. There are no guards of ARP, neighbour
//! discovery and DHCP either, so nothing is control.

use super::work::{Verdict, Work};
use crate::{
    abi::{Address, Reason, behind_key, zone},
    lookup::Lookup,
    packet::Shape,
    policy,
};

/// Place; no verdict when [`admit`](super::admit()) has to go on.
#[inline(always)]
pub(super) fn enter_bare<T: Lookup + ?Sized>(tables: &T, work: &mut Work) -> Option<Verdict> {
    work.claim = Address::UNSPECIFIED;
    if work.zone == 0 {
        return Some(Verdict::of(Reason::WrongVlan));
    }
    let source = work.packet.source;
    if work.packet.shape == Shape::Mapped
        || source.is_martian_source()
        || source.is_unspecified()
        || !policy::end(tables, work.slot, &source, &mut work.source)
        || work.source.is_router()
    {
        return Some(Verdict::of(Reason::SpoofedSource));
    }
    let device = work.source.device;
    if device != 0 {
        let key = behind_key(work.slot, work.interface, device);
        if tables.place(key).is_none() {
            return Some(Verdict::of(Reason::SpoofedSource));
        }
        work.device = device;
        if let Some(seen) = tables.seen(device) {
            seen.last.store(work.tick);
            seen.interface.store(work.interface);
        }
        return None;
    }
    // A free address of the zone is that of a host that nobody lists, and so is a link-local one.
    let inside = source.is_link_local()
        || policy::is_in(tables, work.slot, &work.source, work.zone, &source);
    if !inside || tables.learned(&source).is_some() {
        return Some(Verdict::of(Reason::SpoofedSource));
    }
    if work.settings & zone::ADMIT_ANY == 0 {
        return Some(Verdict::of(Reason::UnknownDevice));
    }
    if work.is_cut_off() {
        return Some(Verdict::of(Reason::Quarantined));
    }
    work.source.zone = work.zone;
    None
}
