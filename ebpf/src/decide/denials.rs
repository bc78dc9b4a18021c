//! Denials: for one second, a packet that policy has denied is denied again without asking policy.

use super::{
    ask::may_open_flow,
    named::is_open,
    work::{Verdict, Work},
};
use crate::{
    abi::{Address, DENIAL_WAYS, Denial, End, NEVER, Reason, Settings, TICK_SHIFT, zone},
    events, flows,
    lookup::Lookup,
    packet::Packet,
    policy::Decision,
};

/// The denial of a packet just like this one, if policy has denied one within the last second.
#[inline(always)]
pub(super) fn denied_before<T: Lookup + ?Sized>(
    tables: &T,
    settings: &Settings,
    work: &mut Work,
    way: u32,
) -> Option<Verdict> {
    if !may_open_flow(&work.packet) {
        return None;
    }
    let set = work.sought.denials();
    work.generation = tables.generation(work.slot)?;
    let opened = tables.flows_opened(set)?.load();
    let denial = tables.denial(set, way)?;
    let left = denial.until.load().wrapping_sub(work.tick);
    // A denial with no ticks left has expired too. Subtracting one turns that case, like a time in
    // the past, into a large number.
    let expired = left.wrapping_sub(1) >= ticks_per_second(settings);
    if expired || denial.opened.load() != opened || !matches(denial, work) {
        return None;
    }
    denial
        .suppressed
        .store(denial.suppressed.load().wrapping_add(1));
    work.device = denial.device.load();
    let reason = match denial.reason.load() as u8 {
        DENIED_BY_RULE => Reason::DeniedByRule,
        QUARANTINED => Reason::Quarantined,
        _ => Reason::NoRule,
    };
    Some(Verdict {
        makes_event: false,
        rule: denial.rule.load(),
        ..Verdict::of(reason)
    })
}

const DENIED_BY_RULE: u8 = Reason::DeniedByRule as u8;
pub(super) const QUARANTINED: u8 = Reason::Quarantined as u8;

/// How many ticks a second has, which is how long a denial lasts.
#[inline(always)]
fn ticks_per_second(settings: &Settings) -> u32 {
    settings.jiffies_per_second >> TICK_SHIFT
}

/// Whether a denial is of a packet just like this one.
#[inline(always)]
fn matches(denial: &Denial, work: &Work) -> bool {
    let (source, destination) = (work.packet.source.0, work.packet.destination.0);
    let words = [source[0], source[1], destination[0], destination[1]];
    let mut difference = denial.bind.load() ^ work.bind();
    for (cell, word) in denial.addresses.iter().zip(words) {
        difference |= cell.load() ^ word;
    }
    difference |= denial.ports.load() ^ denial_ports(&work.packet);
    difference |= denial.generation.load() ^ denial_generation(work);
    difference == 0
}

#[inline(always)]
fn denial_ports(packet: &Packet) -> u64 {
    let ports = (packet.source_port as u64) << 16 | packet.destination_port as u64;
    ports << 32 | packet.service() as u64
}

#[inline(always)]
fn denial_generation(work: &Work) -> u64 {
    work.generation << 16 | work.packet.vlan as u64
}

/// The last step for a packet that is dropped: keeps policy's denial of it.
#[inline(always)]
pub fn note_denial<T: Lookup + ?Sized>(tables: &T, work: &Work, verdict: &Verdict) {
    let set = work.sought.denials();
    let (Some(settings), Some(opened), Some(tags)) = (
        tables.settings(),
        tables.flows_opened(set),
        tables.denial_tags(set),
    ) else {
        return;
    };
    // Read before the flow is searched once more: if another processor opens the flow after that,
    // the count differs, and the denial does not apply.
    let opened = opened.load();
    if flows::find(tables, settings, &work.sought, work.tick).is_some() {
        return;
    }
    let tag = work.sought.denial_tag();
    let (own, free) = (
        matching_lanes(tags.load(), tag),
        matching_lanes(tags.load(), 0),
    );
    let way = if own != 0 {
        first_way(own)
    } else if free != 0 {
        first_way(free)
    } else {
        work.tick & (DENIAL_WAYS - 1)
    };
    let Some(denial) = tables.denial(set, way) else {
        return;
    };
    // An earlier denial in this place is overwritten; its packets that no event has counted are
    // kept.
    tables.add_suppressed(denial, denial.suppressed.load());
    let (source, destination) = (work.packet.source.0, work.packet.destination.0);
    let words = [source[0], source[1], destination[0], destination[1]];
    for (cell, word) in denial.addresses.iter().zip(words) {
        cell.store(word);
    }
    denial.bind.store(work.bind());
    denial.ports.store(denial_ports(&work.packet));
    denial.generation.store(denial_generation(work));
    denial
        .until
        .store(work.tick.wrapping_add(ticks_per_second(settings)));
    denial.device.store(work.device);
    denial.rule.store(verdict.rule);
    denial.reason.store(verdict.reason as u32);
    denial.suppressed.store(0);
    denial.opened.store(opened);
    let peer = events::peer(&work.destination, &work.packet.destination);
    denial.peer.store(peer);
    let lane = way * 16;
    tags.store(tags.load() & !(0xffff << lane) | tag << lane);
}

/// The ways of a set of denials that have a tag, as the highest bit of each 16-bit lane. The lowest
/// bit that is set is always right; a borrow may set wrong ones above it.
#[inline(always)]
pub(super) fn matching_lanes(tags: u64, tag: u64) -> u64 {
    const ONES: u64 = 0x0001_0001_0001_0001;
    let difference = tags ^ tag.wrapping_mul(ONES);
    difference.wrapping_sub(ONES) & !difference & (ONES << 15)
}

/// The number of the first of [`matching_lanes`], computed without branches, because the verifier
/// would follow each of them.
#[inline(always)]
pub(super) fn first_way(lanes: u64) -> u32 {
    let lane = lanes & lanes.wrapping_neg();
    let bit = |at: u32| lane >> at & 1;
    (bit(31) + bit(47) * 2 + bit(63) * 3) as u32
}

/// Whether policy would deny this packet again for as long as its generation lasts: nothing that
/// the decision depends on can change without a new generation.
#[inline(always)]
pub(super) fn is_lasting(work: &Work) -> bool {
    let Decision { reason, until, .. } = work.decision;
    let (source, destination) = (&work.source, &work.destination);
    let lasts = match reason {
        Reason::NoRule | Reason::Quarantined => true,
        Reason::DeniedByRule => until == NEVER,
        _ => false,
    };
    // Learned addresses change without a new generation. A listed address, or one in no zone, is
    // never learned; one in a prefix that zones share is in no zone until somebody learns it.
    let listed = |end: &End, of: &Address| end.device != 0 && end.flags & End::learns(of) == 0;
    let (from, to) = (&work.packet.source, &work.packet.destination);
    lasts
        && work.settings & zone::ANSWERS == 0
        // A name may have the address in the next moment.
        && !is_open(work)
        && !from.is_link_local()
        && !to.is_link_local()
        && work.is_ingress()
        && work.device != 0
        && listed(source, from)
        && (listed(destination, to)
            || destination.zone == 0
                && destination.device == 0
                && destination.flags & End::SHARED == 0)
        && !work.packet.is_to_group()
        && !work.packet.fragment.is_first()
        && may_open_flow(&work.packet)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_way_with_a_tag_is_found_and_no_other() {
        const OTHERS: [u64; 6] = [0, 1, 0x7fff, 0x8001, 0xfffd, 0xffff];
        for wanted in [0, 1, 3, 0x8001, 0xffff] {
            for other in OTHERS.into_iter().filter(|it| *it != wanted) {
                for has in 0..1u32 << DENIAL_WAYS {
                    let ways = 0..DENIAL_WAYS;
                    let tag = |way| if has >> way & 1 != 0 { wanted } else { other };
                    let tags = ways.map(|way| tag(way) << (way * 16)).sum();
                    let found = matching_lanes(tags, wanted);
                    assert_eq!(found != 0, has != 0, "{wanted:x} in {tags:x}");
                    if has != 0 {
                        assert_eq!(
                            first_way(found),
                            has.trailing_zeros(),
                            "{wanted:x} in {tags:x}"
                        );
                    }
                }
            }
        }
    }
}
