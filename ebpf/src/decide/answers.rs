//! Answers to what went to a group: a device that has asked a group by a rule with `answers_from` gets
//! UDP from those, to the address and port that asked, for a while.
//!
//! A question is noted when policy admits it, and looked up only when policy has denied a packet that
//! may be an answer. Then policy is asked once more, with a service key that only answers to that rule
//! have. So who may answer whom, quarantine and the end of the rule are decided as for any rule.

use super::work::Work;
use crate::{
    abi::{ASKINGS, ASKS, Address, Reason, answer_key, holding_device, zone},
    lookup::Lookup,
    packet::Shape,
    policy,
};

/// Seconds for which a question may be answered. Searches by SSDP give hosts up to five seconds.
const SECONDS: u32 = 10;

/// Notes, after policy was asked, whether the packet asks a group by a rule that lets others answer.
#[inline(always)]
pub(super) fn take_question<T: Lookup + ?Sized>(tables: &T, work: &mut Work) {
    let rule = work.decision.rule;
    let asks = work.decision.reason == Reason::Rule
        && rule & ASKS != 0
        && work.packet.shape == Shape::Udp
        && work.packet.is_to_group()
        && !work.is_from_guarded();
    if !asks {
        return;
    }
    work.asks = policy::rule_number(rule);
    // So that policy sees a question that goes on, and the time to answer begins anew.
    if let Some(settings) = tables.settings() {
        let soon = work.tick.wrapping_add(settings.second());
        work.decision.until = work.decision.until.min(soon);
    }
}

/// Whether [`note_question`] has to run.
#[inline(always)]
pub(super) fn asks(work: &mut Work) -> bool {
    work.asks != 0
}

/// Whether [`find_question`] has to run: policy has denied what may be an answer.
#[inline(always)]
pub(super) fn may_answer(work: &mut Work) -> bool {
    work.settings & zone::ANSWERS != 0
        && work.packet.shape == Shape::Udp
        && !work.packet.is_to_group()
        && matches!(work.decision.reason, Reason::NoRule | Reason::Expired)
}

/// The service key to ask policy with: the packet's own, or that of answers. Computed without a
/// branch, because the verifier would follow the search of policy twice.
#[inline(always)]
pub(super) fn answered(work: &Work, service: u32) -> u32 {
    let answers = work.answers;
    let all = ((answers as u64).wrapping_neg() as i64 >> 63) as u32;
    service & !all | answer_key(answers) & all
}

/// Whether policy has to be asked again, because the packet answers a question.
#[inline(always)]
pub(super) fn answers(work: &mut Work) -> bool {
    work.answers != 0
}

/// Where a question's answer goes, as [`Askings::places`](crate::abi::Askings::places) has it.
#[inline(always)]
fn place(address: &Address, port: u16) -> u64 {
    let [high, low] = address.number();
    (high ^ low).wrapping_mul(0x9e37_79b9_7f4a_7c15) << 16 | port as u64
}

/// Notes a question: where it was noted before, else where none is open, else in place of the one
/// that ends first.
#[inline(always)]
pub fn note_question<T: Lookup + ?Sized>(tables: &T, work: &Work) {
    let (Some(settings), Some(askings)) = (
        tables.settings(),
        tables.askings(work.source.device, work.packet.source_mac, true),
    ) else {
        return;
    };
    let own = place(&work.packet.source, work.packet.source_port);
    // `rank << 3 | place` of the best so far, kept where the verifier does not track it. The place of
    // the same question ranks lowest, then a free one, then the least time that is left.
    work.candidate.store(u64::MAX);
    for at in 0..ASKINGS {
        let left = askings.until[at].load().wrapping_sub(work.tick) as i32;
        let rank = if askings.places[at].load() == own {
            0
        } else if askings.rules[at].load() == 0 || left <= 0 {
            1
        } else {
            left as u64 + 1
        };
        let rank = rank << 3 | at as u64;
        if rank < work.candidate.load() {
            work.candidate.store(rank);
        }
    }
    let at = work.candidate.load() as usize & (ASKINGS - 1);
    askings.rules[at].store(0);
    askings.places[at].store(own);
    let until = work.tick.wrapping_add(settings.second() * SECONDS);
    askings.until[at].store(until);
    askings.rules[at].store(work.asks);
}

/// Finds the question that a packet may answer, or that the flow of such an answer belongs to.
#[inline(always)]
pub fn find_question<T: Lookup + ?Sized>(tables: &T, work: &mut Work) {
    let packet = &work.packet;
    let (end, address, port) = if work.reversed == 0 {
        (
            &work.destination,
            &packet.destination,
            packet.destination_port,
        )
    } else {
        (&work.source, &packet.source, packet.source_port)
    };
    let (device, mac) = if end.device == 0 {
        let Some(learned) = tables.learned(address) else {
            return;
        };
        let holder = learned.holder.load();
        if holding_device(holder) != 0 {
            return;
        }
        (0, holder)
    } else {
        (end.device, 0)
    };
    let Some(askings) = tables.askings(device, mac, false) else {
        return;
    };
    let asked = place(address, port);
    for at in 0..ASKINGS {
        let until = askings.until[at].load();
        if askings.places[at].load() == asked && work.tick < until {
            work.answers = askings.rules[at].load();
            work.answers_end = until;
        }
    }
}
