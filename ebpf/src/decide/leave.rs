//! Place and control, for a packet that leaves.

use super::{
    ask::{drop_by_policy, find_destination, go_on, has_flow, is_current},
    rewritten::{is_admitted_again, may_be_rewritten},
    work::{ASKED_TWICE, MULTICAST, Verdict, Work},
};
use crate::{
    abi::{Address, End, Flow, Mac, Port, ROUTER, Reason, Settings, mac_key},
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
    if work.is_cut_off() {
        if guards::is_control(&work.packet) && !answers_the_cut_off(tables, work) {
            return Some(Verdict::of(Reason::Quarantined));
        }
        if work.is_from_guarded() {
            work.path |= ASKED_TWICE;
        }
    }
    // Control from outside is control of this link: reports and queries as their RFCs have them, and
    // DHCP that the router has not forwarded. Policy judges everything else.
    let from_outside = !work.is_from_guarded() && !work.is_from_router();
    if guards::is_control(&work.packet)
        && (!from_outside || !work.is_bare() && is_of_this_link(tables, work))
    {
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
            if bind >> 16 != 0 && !work.is_from_guarded() {
                // The sender's address is behind a guarded port, and the packet did not come through
                // one: its sender uses an address which is not its own.
                work.device = flows::account_of(&found, leg ^ 1);
                return Some(Verdict::of(Reason::SpoofedSource));
            }
            // Most often the other end has sent from this MAC before.
            let other = flows::account_of(&found, leg ^ 1);
            let elsewhere =
                found.flow.bind[bit(leg ^ 1)].load() >> 16 != work.packet.destination_mac;
            let astray = elsewhere && is_misdirected(tables, work, other);
            // What came through a guarded port was judged there.
            let judged = bind >> 16 != 0;
            let rewritten = bind == Flow::NAT && is_admitted_again(work, &found);
            let next = if !judged
                && !work.is_cut_off()
                && (bind == work.bind() || rewritten)
                && is_current(tables, work, &found)
                && !flows::reopens(found.state, &work.packet)
            {
                flows::follow(found.state, &work.packet, leg)
            } else {
                flows::NO_STATE
            };
            if astray && (judged || next != flows::NO_STATE) {
                work.device = flows::account_of(&found, leg);
                return Some(Verdict::of(Reason::Misdirected));
            }
            if elsewhere && !astray && has_moved(tables, settings, work, other) {
                return Some(drop_by_policy(work, Reason::MidFlow));
            }
            if judged && !work.is_cut_off() {
                return Some(Verdict::already_counted(Reason::Established));
            }
            if next != flows::NO_STATE {
                let counts = !rewritten;
                let verdict = go_on(tables, work, &found, leg, next);
                return Some(Verdict { counts, ..verdict });
            }
        }
    }
    let source = work.packet.source;
    let mapped = work.packet.shape == Shape::Mapped;
    if mapped || source.is_martian_source() || source.is_unspecified() {
        return Some(Verdict::of(Reason::SpoofedSource));
    }
    let named = policy::end(tables, work.slot, &source, &mut work.source);
    if !named {
        work.source = End::default();
    }
    // A device behind a guarded port sends only through that port, and a host of a network behind
    // one only from there. Only the router sends from the router's addresses; that NAT gives a packet
    // such a source is the router's word, too.
    let connected = work.source.flags & End::CONNECTED != 0 && work.origin & Port::BESIDE == 0;
    let elsewhere = work.source.flags & End::GUARDED != 0
        || connected
        || work.source.is_router() && !work.is_from_router() && !may_be_rewritten(work);
    if elsewhere && !work.is_from_guarded() {
        return Some(Verdict::of(Reason::SpoofedSource));
    }
    if !work.is_multicast() && is_misdirected(tables, work, 0) {
        work.device = work.source.device;
        return Some(Verdict::of(Reason::Misdirected));
    }
    if !named {
        find_destination(tables, work);
        return Some(drop_by_policy(work, Reason::NoRule));
    }
    None
}

/// Whether a packet to a single host goes to the MAC of a device that its address does not belong
/// to. `owner` is the device of the address, as far as it is known; 0: it is looked up.
///
/// A device receives packets for addresses of no device with MACs as well, when it is the next hop:
/// the router sends those, or the port says that routers may be behind it.
#[inline(always)]
pub(super) fn is_misdirected<T: Lookup + ?Sized>(tables: &T, work: &mut Work, owner: u32) -> bool {
    let Some(mac) = tables.mac(mac_key(work.slot, work.packet.destination_mac)) else {
        return false;
    };
    // In quarantine, and no device of the policy has it any more: no address belongs to it.
    if mac.device == 0 {
        return true;
    }
    let is_routers = mac.device == ROUTER || mac.flags & Mac::ROUTERS != 0;
    if is_routers || mac.device == owner {
        return false;
    }
    find_destination(tables, work);
    let end = &work.destination;
    // A device that learns its addresses may not have spoken yet.
    let destination = &work.packet.destination;
    let learns = end.device == 0
        && if destination.is_link_local() {
            end.flags & End::GUARDED == 0
        } else {
            mac.flags & End::learns(destination) != 0
                && policy::is_in(tables, work.slot, end, mac.zone, destination)
        };
    if end.device == mac.device || learns {
        return false;
    }
    end.flags & End::GUARDED != 0
        || end.is_router()
        || work.port & Port::ROUTER == 0
            && !guards::is_routers_mac(tables, work.slot, work.packet.source_mac)
}

/// Whether the destination's address was that of a device when its flow was judged, and is not any
/// more: a DHCP server has given it to another. The flow is none of the new holder's.
#[inline(always)]
fn has_moved<T: Lookup + ?Sized>(
    tables: &T,
    settings: &Settings,
    work: &mut Work,
    owner: u32,
) -> bool {
    if owner <= ROUTER || owner >= settings.unlisted {
        return false;
    }
    find_destination(tables, work);
    work.destination.device != owner
}

/// Whether control may leave through a port in quarantine: ARP, neighbour discovery and DHCP, to
/// everybody or to a listed device.
#[inline(always)]
fn answers_the_cut_off<T: Lookup + ?Sized>(tables: &T, work: &Work) -> bool {
    let packet = &work.packet;
    let kind = match packet.shape {
        Shape::Frame => packet.ethertype == number::ARP,
        _ => !guards::is_membership(packet),
    };
    let group = packet.destination_mac >> 40 & 1 != 0;
    kind && (group
        || tables
            .mac(mac_key(work.slot, packet.destination_mac))
            .is_some())
}

/// Whether control from an interface that is not guarded is of this link, not forwarded by the
/// router.
#[inline(always)]
fn is_of_this_link<T: Lookup + ?Sized>(tables: &T, work: &Work) -> bool {
    if guards::is_membership(&work.packet) {
        return work.packet.is_membership_on_link();
    }
    work.packet.shape != Shape::Udp
        || !guards::is_routers_mac(tables, work.slot, work.packet.source_mac)
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
        let odd = target.is_odd_link_local();
        if odd || is_guarded_address(tables, work, &target.on_link(work.link)) {
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
