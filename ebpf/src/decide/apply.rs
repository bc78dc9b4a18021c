//! Policy: asks it, then opens, renews or ends the flow accordingly.

use super::{
    answers::{answered, take_question},
    ask::{asked_service, drop_by_policy, epoch, is_current},
    denials::is_lasting,
    observe::{has_no_enforcing_end, observes},
    rewritten::{opens, take_admission},
    work::{Verdict, Work},
};
use crate::{
    abi::{MAX_ZONES, NEVER, ROUTER, Reason, mac_key, state, zone},
    cell::bit,
    flows,
    lookup::Lookup,
    policy::{self, Decision},
};

/// Asks policy about the flow that a packet belongs to or would open.
#[inline(always)]
pub fn ask_policy<T: Lookup + ?Sized>(tables: &T, work: &mut Work) {
    work.decision = if work.reversed == 0 {
        let service = answered(work, work.packet.service());
        let (from, to) = (&work.source, &work.destination);
        policy::judge(
            tables,
            work.slot,
            from,
            to,
            service,
            work.tick,
            &work.scratch,
        )
    } else {
        let service = answered(work, asked_service(&work.packet));
        let (from, to) = (&work.destination, &work.source);
        policy::judge(
            tables,
            work.slot,
            from,
            to,
            service,
            work.tick,
            &work.scratch,
        )
    };
    work.decision.until = work.decision.until.min(work.answers_end);
    take_question(tables, work);
    take_admission(work);
}

/// Whether policy has to be asked once more, with the destination as the opener: an adopted flow
/// was opened before its port was guarded, so it is not known by which end.
#[inline(always)]
pub(super) fn retry_reversed(work: &mut Work) -> bool {
    let retries = work.adopts != 0 && work.reversed == 0 && work.decision.reason != Reason::Rule;
    if retries {
        work.reversed = 1;
    }
    retries
}

/// Applies the decision to a flow that exists; no verdict when [`open_flow`] has to make one.
#[inline(always)]
pub fn apply_policy<T: Lookup + ?Sized>(tables: &T, work: &mut Work) -> Option<Verdict> {
    let Some(settings) = tables.settings() else {
        return Some(Verdict::of(Reason::NotReady));
    };
    let Decision {
        reason,
        rule,
        until,
    } = work.decision;
    let allowed = reason == Reason::Rule;
    if work.leaves_no_flow() {
        return Some(verdict_alone(work));
    }
    if work.adopts != 0 && !allowed {
        return Some(drop_by_policy(work, Reason::MidFlow));
    }
    let leg = work.leg as usize;
    // Keeps the position of the flow, not the flow itself: before 6.3 the verifier does not let a
    // program read a part of the stack that is written only when there is a flow.
    let (mut at, mut there, mut current) = (0, 0, false);
    if let Some(found) = flows::find_again(tables, &work.sought, work.at)
        && !flows::reopens(found.state, &work.packet)
    {
        at = work.at;
        there = found.flow.bind[bit(leg ^ 1)].load();
        current = is_current(tables, work, &found);
    }
    let goes_on = allowed || observes(work) && has_no_enforcing_end(tables, work);
    if !goes_on {
        match flows::find_again(tables, &work.sought, at) {
            Some(found) => flows::end(tables, &found, &work.sought),
            None => work.lasting_denial = u32::from(work.at == 0 && is_lasting(work)),
        }
        return Some(Verdict::by_rule(reason, rule));
    }
    if !current && !other_end_still_owns_address(tables, work, there) {
        return Some(drop_by_policy(work, Reason::MidFlow));
    }
    let bind = work.bind();
    let device = flows::account(settings, work.source.device, bind);
    let other = flows::account(settings, work.destination.device, there);
    let (Some(mine), Some(theirs)) = (
        tables.epoch(epoch(work.slot, device)),
        tables.epoch(epoch(work.slot, other)),
    ) else {
        return Some(Verdict::of(Reason::NotReady));
    };
    // Field by field: for a whole structure the compiler makes a copy on the stack.
    let opening = &mut work.opening;
    opening.leg = leg as u32;
    opening.opener = (leg as u32 ^ work.reversed) & 1;
    opening.bind = bind;
    opening.vlan = work.packet.vlan as u32;
    opening.device = device;
    opening.other = other;
    opening.adopts = work.adopts;
    opening.bits = if work.adopts == 0 {
        0
    } else {
        flows::adopted(work.packet.protocol, work.reversed != 0)
    };
    opening.rule = rule;
    opening.until = if allowed { until } else { NEVER };
    opening.stamp = mine.wrapping_add(theirs);
    opening.length = work.packet.length;
    opening.would = if allowed { 0 } else { reason as u32 };
    let found = flows::find_again(tables, &work.sought, at)?;
    let next = flows::follow(found.state, &work.packet, leg);
    if next == flows::NO_STATE {
        return Some(drop_by_policy(work, Reason::MidFlow));
    }
    // A flow that is observed was told of when it opened, as its opener asked.
    let is_told = found.state & state::OBSERVED != 0 && work.reversed != 0;
    let next = flows::with_vlan(next & !state::OBSERVED, leg, work.packet.vlan);
    let next = next | if allowed { 0 } else { state::OBSERVED };
    flows::renew(tables, &found, &work.sought, &work.opening, next, current);
    flows::count_packet(&found, leg, next, work.packet.length, work.tick);
    work.counted_by_flow = 1;
    work.opens = u32::from(work.is_ingress()) & opens(next, leg);
    Some(if work.rewritten != 0 && !work.is_ingress() {
        Verdict::already_counted(Reason::Established)
    } else if allowed {
        Verdict::of(Reason::Established)
    } else {
        Verdict {
            makes_event: !is_told,
            ..Verdict::observed(reason, rule)
        }
    })
}

/// Whether the destination's address still belongs to the device that sent from it through a
/// guarded port, as far as that can be known without a packet from there. `there` is that end's
/// [`Flow::bind`](crate::abi::Flow::bind).
#[inline(always)]
fn other_end_still_owns_address<T: Lookup + ?Sized>(tables: &T, work: &Work, there: u64) -> bool {
    if there >> 16 == 0 {
        return true;
    }
    if let Some(mac) = tables.mac(mac_key(work.slot, there >> 16)) {
        return mac.device != ROUTER && mac.device == work.destination.device;
    }
    let zone = work.destination.zone as u32 & (MAX_ZONES - 1);
    let settings = tables.zone(work.slot * MAX_ZONES + zone).unwrap_or(0);
    work.destination.device == 0 && settings & zone::ADMIT_ANY != 0
}

/// The verdict for a packet that opens no flow here: one to a group, at one of the ports that it
/// leaves through, or one that leaves into quarantine.
#[inline(always)]
fn verdict_alone(work: &Work) -> Verdict {
    let Decision { reason, rule, .. } = work.decision;
    let counts = !work.is_from_guarded() || work.is_hosted();
    if reason == Reason::Rule {
        Verdict {
            counts,
            ..Verdict::by_rule(reason, rule)
        }
    } else {
        Verdict::by_rule(reason, rule)
    }
}

/// Opens the flow that policy allows, or that mode observe lets pass.
#[inline(always)]
pub fn open_flow<T: Lookup + ?Sized>(tables: &T, work: &mut Work) -> Verdict {
    let Some(settings) = tables.settings() else {
        return Verdict::of(Reason::NotReady);
    };
    let Decision { reason, rule, .. } = work.decision;
    let room = flows::open(
        tables,
        settings,
        &work.sought,
        &work.opening,
        &work.candidate,
        work.tick,
    );
    work.counted_by_flow = u32::from(room.is_ok());
    if reason != Reason::Rule {
        return Verdict::observed(reason, rule);
    }
    match room {
        Ok(()) if work.rewritten != 0 => Verdict::already_counted(Reason::Established),
        Ok(()) => {
            work.opens = u32::from(work.is_ingress() && work.reversed == 0);
            Verdict::by_rule(Reason::Rule, rule)
        }
        Err(reason) => Verdict::of(reason),
    }
}
