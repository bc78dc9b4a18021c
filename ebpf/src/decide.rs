//! The decision: a packet and the tables give a verdict.
//!
//! Reasons have an order: form, place, quarantine, state, policy, room. The first that applies is
//! the packet's reason. Where zones only observe, the packet passes all the same.
//!
//! A judgement has steps. The first parses the packet, and passes it if it belongs to a flow that
//! the current policy admits. Every other packet goes through more steps, in the order that
//! [`finish`] gives. Between steps everything known is in [`Work`], which the kernel keeps outside
//! its stack. The verifier can't track values there, so it checks each step once instead of once
//! for every path through the steps before.

mod admit;
mod answers;
mod apply;
mod ask;
mod bare;
mod control;
mod denials;
mod dhcp;
mod enter;
mod failsafe;
mod hosted;
mod inquire;
mod learn;
mod lease;
mod leave;
mod named;
mod observe;
mod options;
mod parts;
mod resolve;
mod rewritten;
mod start;
mod steps;
mod work;

pub use self::{
    admit::admit,
    answers::{find_question, note_question},
    apply::{apply_policy, ask_policy, open_flow},
    control::charge_control,
    denials::note_denial,
    dhcp::read_dhcp,
    enter::enter,
    failsafe::{apply_failsafe, has_failsafe},
    hosted::leave_hosted,
    inquire::note_inquiry,
    learn::learn,
    lease::{read_lease, settle_lease},
    leave::leave,
    named::{ask_names, judge_name},
    observe::apply_observe,
    options::read_options,
    parts::note_first,
    resolve::{note_address, read_resolution, take_address},
    rewritten::note_admission,
    start::{start_egress, start_ingress, start_unreadable},
    steps::{Answer, Fate, Steps, finish, note},
    work::{Verdict, Work},
};
use crate::{abi::Reason, lookup::Lookup, packet::Bytes};

/// Judges a packet that enters through an interface: all steps.
///
/// `tag` is the VLAN tag that the kernel took out of the frame.
pub fn ingress<B: Bytes + ?Sized, T: Lookup + ?Sized>(
    bytes: &B,
    tag: Option<u16>,
    interface: u32,
    tables: &T,
    work: &mut Work,
) -> Verdict {
    let started = start_ingress(bytes, tag, interface, tables, work);
    Host::judge(bytes, tables, work, started, enter)
}

/// Judges a packet that leaves through an interface: all steps.
///
/// `from` is the index of the interface that it came from; 0: the router sent it.
pub fn egress<B: Bytes + ?Sized, T: Lookup + ?Sized>(
    bytes: &B,
    tag: Option<u16>,
    interface: u32,
    from: u32,
    tables: &T,
    work: &mut Work,
) -> Verdict {
    let started = start_egress(bytes, tag, interface, from, tables, work);
    Host::judge(bytes, tables, work, started, hosted::leave_of_any)
}

/// The steps on the host: plain calls.
struct Host<'a, B: ?Sized, T: ?Sized> {
    bytes: &'a B,
    tables: &'a T,
    work: &'a mut Work,
    verdict: Verdict,
    place: fn(&B, &T, &mut Work) -> Option<Verdict>,
}

impl<'a, B: Bytes + ?Sized, T: Lookup + ?Sized> Host<'a, B, T> {
    fn judge(
        bytes: &'a B,
        tables: &'a T,
        work: &'a mut Work,
        started: Option<Verdict>,
        place: fn(&B, &T, &mut Work) -> Option<Verdict>,
    ) -> Verdict {
        // Stands until a step reaches another verdict.
        let mut verdict = Verdict::of(Reason::NotReady);
        let started = note(&mut verdict, started);
        let mut steps = Host {
            bytes,
            tables,
            work,
            verdict,
            place,
        };
        finish(&mut steps, started);
        steps.verdict
    }
}

impl<B: Bytes + ?Sized, T: Lookup + ?Sized> Steps for Host<'_, B, T> {
    fn work(&mut self) -> Option<&mut Work> {
        Some(self.work)
    }

    fn read_options(&mut self) -> Answer {
        let verdict = read_options(self.bytes, self.work);
        note(&mut self.verdict, verdict)
    }

    fn place(&mut self) -> Answer {
        let verdict = (self.place)(self.bytes, self.tables, self.work);
        note(&mut self.verdict, verdict)
    }

    fn learn(&mut self) -> Answer {
        let verdict = learn(self.tables, self.work);
        note(&mut self.verdict, verdict)
    }

    fn read_dhcp(&mut self) -> Answer {
        let verdict = read_dhcp(self.bytes, self.tables, self.work);
        note(&mut self.verdict, verdict)
    }

    fn charge_control(&mut self) -> Answer {
        let verdict = charge_control(self.tables, self.work);
        note(&mut self.verdict, verdict)
    }

    fn admit(&mut self) -> Answer {
        let verdict = admit(self.bytes, self.tables, self.work);
        note(&mut self.verdict, verdict)
    }

    fn ask_policy(&mut self) {
        ask_policy(self.tables, self.work);
    }

    fn ask_names(&mut self) {
        ask_names(self.tables, self.work, |work, selector| {
            judge_name(self.tables, work, selector);
        });
    }

    fn note_inquiry(&mut self) {
        note_inquiry(self.bytes, self.tables, self.work);
    }

    fn read_resolution(&mut self) {
        let (bytes, tables) = (self.bytes, self.tables);
        let take = |work: &Work, at| {
            take_address(bytes, at, work, |selector| {
                note_address(tables, work, selector);
            });
        };
        read_resolution(self.bytes, self.tables, self.work, take);
    }

    fn read_lease(&mut self) {
        read_lease(self.bytes, self.tables, self.work);
    }

    fn settle_lease(&mut self, n: u32) {
        settle_lease(self.bytes, self.tables, self.work, n);
    }

    fn find_question(&mut self) {
        find_question(self.tables, self.work);
    }

    fn note_question(&mut self) {
        note_question(self.tables, self.work);
    }

    fn apply_policy(&mut self) -> Answer {
        let verdict = apply_policy(self.tables, self.work);
        note(&mut self.verdict, verdict)
    }

    fn open_flow(&mut self) -> Answer {
        let verdict = open_flow(self.tables, self.work);
        note(&mut self.verdict, Some(verdict))
    }

    fn has_failsafe(&self) -> bool {
        has_failsafe(self.tables)
    }

    fn apply_failsafe(&mut self) -> Answer {
        let verdict = apply_failsafe(self.bytes, self.tables, self.work, self.verdict);
        note(&mut self.verdict, Some(verdict))
    }

    fn note_first(&mut self) -> Answer {
        let verdict = note_first(self.tables, self.work, self.verdict);
        note(&mut self.verdict, Some(verdict))
    }

    fn note_admission(&mut self) {
        note_admission(self.tables, self.work);
    }

    fn apply_observe(&mut self) -> Answer {
        let verdict = apply_observe(self.tables, self.work, self.verdict);
        note(&mut self.verdict, Some(verdict))
    }

    fn note_denial(&mut self) {
        note_denial(self.tables, self.work, &self.verdict);
    }
}
