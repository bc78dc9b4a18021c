//! Quarantine and state: what a packet may be that policy is not asked about.

use super::{
    ask::{find_destination, has_flow, is_current, opens, refused, runs},
    work::{Verdict, Work},
};
use crate::{
    abi::{End, Port, Reason},
    flows,
    packet::{self, Bytes, Shape},
    policy,
    tables::Tables,
};

/// Quarantine and state, for a packet whose source is what it says; nothing when [`judge`](super::judge) and
/// [`settle`](super::settle()) have to go on.
#[inline(always)]
pub fn admit<B: Bytes + ?Sized, T: Tables + ?Sized>(
    bytes: &B,
    tables: &T,
    work: &mut Work,
) -> Option<Verdict> {
    find_destination(tables, work);
    if work.fans() {
        fan(work);
    } else if !work.enters() {
        work.device = work.destination.device;
    }
    // Between two devices in quarantine nothing passes; with one, what rules keep.
    if work.source.flags & work.destination.flags & End::QUARANTINED != 0 {
        return Some(Verdict::of(Reason::Quarantined));
    }
    // No rule can name a link-local address.
    if work.packet.source.is_link_local() || work.packet.destination.is_link_local() {
        return Some(refused(tables, work, Reason::NoRule));
    }
    if work.packet.shape == Shape::Error {
        let quoted = packet::quoted(bytes, &work.packet);
        return Some(match quoted {
            Some(quoted) if is_related(tables, work, &quoted) => Verdict {
                counts: !work.inner(),
                ..Verdict::of(Reason::Related)
            },
            _ => refused(tables, work, Reason::MidFlow),
        });
    }
    if !has_flow(&work.packet) {
        // Membership and discovery that no guard has passed.
        return Some(refused(tables, work, Reason::NoRule));
    }
    // Policy speaks of who opened the flow, whoever sent this packet.
    work.reversed = 0;
    if work.fans() {
        return if opens(&work.packet) {
            None
        } else {
            Some(refused(tables, work, Reason::MidFlow))
        };
    }
    match flows::again(tables, &work.sought, work.at) {
        Some(found) if !flows::reopens(found.state, &work.packet) => {
            work.reversed = u32::from(flows::opener(found.state) != work.leg as usize);
            None
        }
        _ if opens(&work.packet) => None,
        _ if runs(&work.packet) && work.tick < tables.adopts_until(work.ifindex) => {
            work.adopts = 1;
            work.reversed = u32::from(work.packet.shape == Shape::Answer);
            None
        }
        _ => Some(refused(tables, work, Reason::MidFlow)),
    }
}

/// What receives a packet to a group behind this port: for a sender of the port's zone, or one
/// that is not behind a guarded port, the group and the zone; for another, the zone alone, which a
/// rule must name.
#[inline(always)]
fn fan(work: &mut Work) {
    if work.inner() && work.source.zone != work.zone {
        work.destination = End::default();
    }
    work.device = work.source.device;
    work.destination.zone = work.zone;
    // Nobody has worked out which pairs exist with this end.
    work.destination.to = u16::MAX;
}

/// Whether an ICMP error is about a packet of a live flow, sent to whom it is sent to, by somebody
/// who can have met that packet.
#[inline(always)]
fn is_related<T: Tables + ?Sized>(tables: &T, work: &mut Work, quoted: &packet::Quoted) -> bool {
    if quoted.source != work.packet.destination {
        return false;
    }
    let Some(settings) = tables.settings() else {
        return false;
    };
    work.sought.set(flows::quoted_key(quoted), settings.seed);
    match flows::find(tables, settings, &work.sought, work.tick) {
        Some(found) if is_current(tables, work, &found) => met(tables, work, quoted),
        _ => false,
    }
}

/// Whether the sender of an error can have met the packet that it quotes: any hop of the path may
/// have. But no path leads through a guarded port, unless a router is there; so from one only the
/// device that the packet was for tells of it, and nobody upsets the flows of its neighbours.
#[inline(always)]
fn met<T: Tables + ?Sized>(tables: &T, work: &mut Work, quoted: &packet::Quoted) -> bool {
    if !work.enters() || work.port & Port::ROUTER != 0 || work.packet.source == quoted.destination {
        return true;
    }
    // It may speak by another address of its own.
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
