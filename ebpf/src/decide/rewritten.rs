//! Packets that the router's NAT has rewritten: what a guarded port has admitted needs no second
//! permission where it leaves with another source or for another destination.
//!
//! Nothing in such a packet says what it was when it entered. But of its two ends NAT has left one
//! as it was, most often. So a packet that opens a flow by a rule leaves two notes where it enters,
//! one for each end, which are good for a second; where a packet leaves that would open a flow,
//! either note shows that it is the same one. The flow is then marked with [`Flow::NAT`], and later
//! packets need no notes.
//!
//! Answers leave no notes. So they can't open the flow of their own conversation again in the other
//! direction, after its rule has been withdrawn.

use super::{
    ask::{has_quarantined_end, is_current},
    work::Work,
};
use crate::{
    abi::{ADMISSIONS, Address, Flow, NEVER, Port, Reason, state, zone},
    cell::bit,
    flows::{self, Found},
    lookup::Lookup,
    packet::Packet,
    policy::Decision,
};

/// The flag of a port that stands for NAT of the packet's family.
#[inline(always)]
fn nat(packet: &Packet) -> u16 {
    if packet.source.is_v4() {
        Port::NAT_V4
    } else {
        Port::NAT_V6
    }
}

/// Whether a packet that leaves was routed from an interface where the router has NAT of its family,
/// and did not come through a mixed bridge.
#[inline(always)]
pub(super) fn may_be_rewritten(work: &Work) -> bool {
    work.origin & nat(&work.packet) != 0
}

/// Whether a packet that leaves came through a guarded port before NAT may have rewritten it.
#[inline(always)]
fn came_through_nat(work: &Work) -> bool {
    !work.is_ingress() && work.is_from_guarded() && may_be_rewritten(work)
}

/// Whether what a guarded port passed counts here. While its zone observes, a port also passes what
/// no rule admits, and NAT may make such a packet one for a zone that enforces. So that counts only
/// towards a zone that observes as well.
#[inline(always)]
fn trusts_port(work: &Work) -> bool {
    work.origin & Port::ADMITTED != 0 || work.settings & zone::OBSERVE != 0
}

/// Whether a packet of the opener of a marked flow may go on without a further look. Where answers
/// have an end, policy has changed since the opener's last packet, and all steps note that it goes
/// on.
#[inline(always)]
pub(super) fn is_admitted_again(work: &Work, found: &Found<'_>) -> bool {
    found.state & state::ENDS == 0 && came_through_nat(work) && trusts_port(work)
}

/// Finds out whether a packet that would open a flow was admitted where it entered. False when policy
/// must not judge it by its new source: it has the router's, and no rule has admitted it as it was.
#[inline(always)]
pub(super) fn recall_admission<T: Lookup + ?Sized>(tables: &T, work: &mut Work) -> bool {
    work.answers_until = NEVER;
    if !came_through_nat(work) || has_quarantined_end(work) {
        return true;
    }
    let noted = is_noted(tables, work);
    if trusts_port(work) {
        work.rewritten = u32::from(noted);
        return true;
    }
    noted || !work.source.is_router()
}

/// Whether there is a fresh note of an end of a packet.
#[inline(always)]
fn is_noted<T: Lookup + ?Sized>(tables: &T, work: &Work) -> bool {
    let Some(settings) = tables.settings() else {
        return false;
    };
    let fresh = |note: u64| {
        let Some(cell) = tables.admission(note as u32 & (ADMISSIONS - 1)) else {
            return false;
        };
        let noted = cell.load();
        (noted ^ note) >> 32 == 0 && work.tick.wrapping_sub(noted as u32) <= settings.second()
    };
    let [source, destination] = notes(&work.packet, settings.seed);
    fresh(source) || fresh(destination)
}

/// Whether a packet goes on with a flow that was opened by one that NAT had rewritten: from the
/// opener, again one that a guarded port has admitted; from the other end, an answer that enters.
///
/// When policy has changed, only the opener's packets show that it still admits them. Until one of
/// them comes, answers pass for as long as a UDP flow lives without one.
#[inline(always)]
pub(super) fn goes_on_rewritten(work: &Work, found: &Found<'_>) -> bool {
    let opener = flows::opener(found.state);
    if found.flow.bind[bit(opener)].load() != Flow::NAT || has_quarantined_end(work) {
        return false;
    }
    if work.reversed == 0 {
        came_through_nat(work) && trusts_port(work)
    } else {
        work.is_ingress() && !flows::rule_has_ended(found, work.tick)
    }
}

/// The tick at which answers end that pass although policy has changed; [`NEVER`] as long as it has
/// not.
#[inline(always)]
pub(super) fn answers_until<T: Lookup + ?Sized>(tables: &T, work: &Work, found: &Found<'_>) -> u32 {
    if work.reversed == 0 {
        return NEVER;
    }
    if found.state & state::ENDS != 0 {
        return flows::rule_ends(found);
    }
    if is_current(tables, work, found) {
        return NEVER;
    }
    let wait = match tables.settings() {
        Some(settings) => settings.udp,
        None => 0,
    };
    work.tick.wrapping_add(wait)
}

/// Puts in the place of what policy says about a flow what was said where it was admitted. A rule
/// that denies it by its ends stays in force, but not one for the router, which did not open it.
#[inline(always)]
pub(super) fn take_admission(work: &mut Work) {
    if work.rewritten == 0 {
        return;
    }
    let opener = if work.reversed == 0 {
        &work.source
    } else {
        &work.destination
    };
    let decided = matches!(work.decision.reason, Reason::Rule | Reason::DeniedByRule);
    if opener.is_router() || !decided {
        work.decision = Decision {
            reason: Reason::Rule,
            rule: 0,
            until: work.answers_until,
        };
    }
}

/// Whether [`note_admission`] has to run.
#[inline(always)]
pub(super) fn is_to_be_noted(work: &mut Work) -> bool {
    work.opens != 0 && work.port & (Port::NAT_V4 | Port::NAT_V6) != 0
}

/// Whether a packet of a flow is still the first of its opener: no answer has come, and a rule
/// admits it.
#[inline(always)]
pub(super) fn opens(bits: u32, leg: usize) -> u32 {
    const LATER: u32 = state::ANSWERED | state::CONFIRMED | state::RESET | state::OBSERVED;
    u32::from(flows::opener(bits) == leg & 1 && bits & LATER == 0)
}

/// The last step for a packet that has opened a flow by a rule where it entered: leaves the notes.
#[inline(always)]
pub fn note_admission<T: Lookup + ?Sized>(tables: &T, work: &Work) {
    let Some(settings) = tables.settings() else {
        return;
    };
    let [source, destination] = notes(&work.packet, settings.seed);
    for note in [source, destination] {
        if let Some(cell) = tables.admission(note as u32 & (ADMISSIONS - 1)) {
            cell.store(note & !0xffff_ffff | work.tick as u64);
        }
    }
}

/// The notes of a packet: one for its source and the port that it comes from, one for its
/// destination and the service that it asks for. The high half is what is stored, beside the tick;
/// the low half chooses the place.
#[inline(always)]
fn notes(packet: &Packet, seed: u64) -> [u64; 2] {
    // Above a service's 24 bits, and low enough to change the place: a device may ask from the port
    // that it serves.
    const SOURCE: u64 = 1 << 24;
    let from = (packet.protocol as u64) << 16 | packet.source_port as u64;
    [
        note(seed, &packet.source, SOURCE | from),
        note(seed, &packet.destination, packet.service() as u64),
    ]
}

#[inline(always)]
fn note(seed: u64, address: &Address, what: u64) -> u64 {
    let words = [address.0[0], address.0[1], what];
    words.into_iter().fold(seed, flows::folded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Shape;

    #[test]
    fn the_same_port_as_a_source_and_as_a_service_has_two_places() {
        let places = (1..=1000u16).filter(|port| {
            let address = Address::v4([10, 1, 0, 1]);
            let packet = Packet {
                source: address,
                destination: address,
                shape: Shape::Udp,
                protocol: 17,
                source_port: *port,
                destination_port: *port,
                ..Packet::default()
            };
            let [source, destination] = notes(&packet, 7).map(|it| it as u32 & (ADMISSIONS - 1));
            source == destination
        });
        assert!(places.count() < 10);
    }
}
