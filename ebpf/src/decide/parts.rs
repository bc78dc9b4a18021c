//! Fragmented packets: the first part is judged and noted, later parts follow it.

use super::{
    ask::{established_verdict, is_current},
    work::{Verdict, Work},
};
use crate::{
    abi::{Fragment, FragmentKey, Reason},
    cell::{Cell32, Cell64, bit},
    flows,
    lookup::Lookup,
    packet::number,
    policy,
};

/// The key that all parts of a packet share at one port.
#[inline(always)]
fn fragment_key(work: &Work) -> FragmentKey {
    let leaves_through = if work.is_ingress() { 0 } else { work.interface };
    FragmentKey {
        source: work.packet.source,
        destination: work.packet.destination,
        bind: work.bind() | (leaves_through as u64) << 16,
        identification: work.packet.fragment.identification,
        vlan: work.packet.vlan,
        protocol: work.packet.fragment.protocol as u16,
    }
}

/// Whether a first part arrives while later parts may still follow an earlier first part of the
/// same packet. The receiver could reassemble them into a packet that was never judged, so the
/// earlier one is forgotten and no further part passes.
#[inline(always)]
pub(super) fn repeats_first_part<T: Lookup + ?Sized>(tables: &T, work: &Work) -> bool {
    let key = fragment_key(work);
    let (Some(settings), Some(noted)) = (tables.settings(), tables.fragment(&key)) else {
        return false;
    };
    let age = work.tick.wrapping_sub(noted.first.load());
    tables.forget_fragment(&key);
    age <= settings.fragment
}

/// The last step for a first part that passes: notes it, so that later parts may follow.
#[inline(always)]
pub fn note_first<T: Lookup + ?Sized>(tables: &T, work: &Work, verdict: Verdict) -> Verdict {
    if work.is_from_guarded() || work.is_multicast() {
        return verdict;
    }
    let (flow, _) = flows::key(&work.packet);
    let noted = Fragment {
        ports: Cell64::new(flow.ports),
        next: Cell32::new(work.packet.fragment.next),
        first: Cell32::new(work.tick),
    };
    if tables.note_fragment(&fragment_key(work), &noted) {
        verdict
    } else {
        Verdict::of(Reason::Fragment)
    }
}

/// Judges a later part of a packet: it must begin exactly where the part before it ended, and its
/// flow must be current.
#[inline(always)]
pub(super) fn follow_part<T: Lookup + ?Sized>(tables: &T, work: &mut Work) -> Verdict {
    let dropped = Verdict::of(Reason::Fragment);
    let Some(settings) = tables.settings() else {
        return Verdict::of(Reason::NotReady);
    };
    let key = fragment_key(work);
    let Some(noted) = tables.fragment(&key) else {
        return dropped;
    };
    let part = &work.packet.fragment;
    let age = work.tick.wrapping_sub(noted.first.load());
    if age > settings.fragment || noted.next.load() != part.offset {
        return dropped;
    }
    let (flow_key, leg) = flows::part_key(&work.packet, noted.ports.load());
    if part.more {
        noted.next.store(part.next);
    } else {
        tables.forget_fragment(&key);
    }
    work.sought.set(flow_key, settings.seed);
    let Some(found) = flows::find(tables, settings, &work.sought, work.tick) else {
        return dropped;
    };
    if found.flow.bind[bit(leg)].load() != work.bind() || !is_current(tables, work, &found) {
        return dropped;
    }
    flows::count_packet(&found, leg, found.state, work.packet.length, work.tick);
    established_verdict(&found)
}

/// Judges a later part that entered through a guarded port. It was judged there and may leave
/// through any port; but if it is for a group, only into the sender's own zone, because its flow is
/// not known here.
#[inline(always)]
pub(super) fn part_from_guarded<T: Lookup + ?Sized>(tables: &T, work: &mut Work) -> Verdict {
    let source = work.packet.source;
    if work.packet.ethertype == number::IPV6 && source.is_v4() {
        return Verdict::of(Reason::SpoofedSource);
    }
    let own_zone = !work.packet.is_to_group()
        || policy::end(tables, work.slot, &source, &mut work.source)
            && work.source.zone == work.zone;
    if own_zone {
        Verdict::already_counted(Reason::Established)
    } else {
        Verdict::of(Reason::Fragment)
    }
}
