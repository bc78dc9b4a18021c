//! Quarantine and state: the checks that come before policy.

use super::{
    ask::{
        drop_by_policy, find_destination, has_flow, is_current, may_open_flow, shows_running_flow,
    },
    rewritten::{answers_until, goes_on_rewritten, recall_admission},
    work::{FROM_GUARDED, HOSTED, MULTICAST, Verdict, Work},
};
use crate::{
    abi::{End, Port, Reason},
    flows,
    lookup::Lookup,
    packet::{self, Bytes, Shape},
    policy,
};

/// Quarantine and state, for a packet from a sender that owns its source address; no verdict when
/// [`ask_policy`](super::ask_policy) and [`apply_policy`](super::apply_policy) have to go on.
#[inline(always)]
pub fn admit<B: Bytes + ?Sized, T: Lookup + ?Sized>(
    bytes: &B,
    tables: &T,
    work: &mut Work,
) -> Option<Verdict> {
    find_destination(tables, work);
    // A group's packet of a host above a bridge leaves into another zone, like that of a device there.
    if work.beside != 0 && work.packet.is_to_group() {
        work.path = HOSTED | FROM_GUARDED | MULTICAST;
        work.zone = work.beside;
    }
    if work.is_multicast() {
        make_multicast_receiver(tables, work);
    } else if !work.is_ingress() {
        work.device = work.destination.device;
    }
    if work.is_cut_off() {
        if work.is_ingress() {
            work.source.flags |= End::QUARANTINED;
        } else {
            work.destination.flags |= End::QUARANTINED;
        }
    }
    // Between two devices in quarantine nothing passes. With one, rules that are kept in quarantine
    // still count.
    if work.source.flags & work.destination.flags & End::QUARANTINED != 0 {
        return Some(Verdict::of(Reason::Quarantined));
    }
    if work.packet.shape == Shape::Error {
        // The flow that it quotes may be one that only the rest of the network still has.
        if work.is_cut_off() {
            return Some(Verdict::of(Reason::Quarantined));
        }
        let quoted = packet::quoted(&work.framed(bytes), &work.packet);
        let quoted = quoted.map(|it| it.on_link(work.link));
        return Some(match quoted {
            Some(quoted) if is_related(tables, work, &quoted) => Verdict {
                counts: !work.is_from_guarded(),
                ..Verdict::of(Reason::Related)
            },
            _ => drop_by_policy(work, Reason::MidFlow),
        });
    }
    if !has_flow(&work.packet) {
        // A membership report or a discovery message that no guard has passed.
        return Some(drop_by_policy(work, Reason::NoRule));
    }
    // Rules name the end that opened the flow, whichever end sent this packet.
    work.reversed = 0;
    if work.is_multicast() {
        return if may_open_flow(&work.packet) {
            None
        } else {
            Some(drop_by_policy(work, Reason::MidFlow))
        };
    }
    match flows::find_again(tables, &work.sought, work.at) {
        Some(found) if !flows::reopens(found.state, &work.packet) => {
            work.reversed = u32::from(flows::opener(found.state) != work.leg as usize);
            work.rewritten = u32::from(goes_on_rewritten(work, &found));
            if work.rewritten != 0 {
                work.answers_until = answers_until(tables, work, &found);
            }
            None
        }
        _ if may_open_flow(&work.packet) => {
            if recall_admission(tables, work) {
                None
            } else {
                Some(drop_by_policy(work, Reason::NoRule))
            }
        }
        _ if shows_running_flow(&work.packet)
            && work.tick < tables.adopts_until(work.interface) =>
        {
            work.adopts = 1;
            work.reversed = u32::from(work.packet.shape == Shape::Answer);
            if work.reversed != 0 || recall_admission(tables, work) {
                None
            } else {
                Some(drop_by_policy(work, Reason::MidFlow))
            }
        }
        _ => Some(drop_by_policy(work, Reason::MidFlow)),
    }
}

/// Sets the destination to the receiver of a packet to a group behind this port. If the sender is
/// in the port's zone, or not behind a guarded port, the receiver is the group and the zone. For
/// any other sender it is the zone alone, which a rule must then name.
#[inline(always)]
fn make_multicast_receiver<T: Lookup + ?Sized>(tables: &T, work: &mut Work) {
    if work.destination.is_router() {
        // The router's sockets are not behind this port, so here the address is that of any host.
        if !policy::end_around(
            tables,
            work.slot,
            &work.packet.destination,
            &mut work.destination,
        ) || work.destination.is_router()
        {
            work.destination = End::default();
        }
    }
    if work.is_from_guarded() && work.source.zone != work.zone {
        work.destination = End {
            flags: work.destination.flags & End::QUARANTINED,
            ..End::default()
        };
    }
    work.device = work.source.device;
    work.destination.zone = work.zone;
    // The compiler has not worked out which pairs exist with this end, so every kind is looked up.
    work.destination.to = u16::MAX;
}

/// Whether an ICMP error quotes a packet of a current flow, goes to the sender of that packet, and
/// comes from somewhere on that packet's path.
#[inline(always)]
fn is_related<T: Lookup + ?Sized>(tables: &T, work: &mut Work, quoted: &packet::Quoted) -> bool {
    if quoted.source != work.packet.destination {
        return false;
    }
    let Some(settings) = tables.settings() else {
        return false;
    };
    work.sought.set(flows::quoted_key(quoted), settings.seed);
    match flows::find(tables, settings, &work.sought, work.tick) {
        Some(found) if is_current(tables, work, &found) => sender_was_on_path(tables, work, quoted),
        _ => false,
    }
}

/// Whether the sender of an error can have been on the path of the packet that it quotes. Behind a
/// guarded port only the packet's destination can, unless the port may have routers. So no device
/// can disturb the flows of its neighbours.
#[inline(always)]
fn sender_was_on_path<T: Lookup + ?Sized>(
    tables: &T,
    work: &mut Work,
    quoted: &packet::Quoted,
) -> bool {
    if !work.is_ingress()
        || work.port & Port::ROUTER != 0
        || work.packet.source == quoted.destination
    {
        return true;
    }
    // The destination may answer from another of its own addresses.
    let own = work.source.device != 0
        && policy::end(
            tables,
            work.slot,
            &quoted.destination,
            &mut work.destination,
        )
        && work.destination.device == work.source.device;
    find_destination(tables, work);
    own
}
