//! The decision: a packet and the tables give a verdict.
//!
//! Reasons have an order: form, place, quarantine, state, policy, room. The first that applies is
//! the packet's reason.
//!
//! A judgement has steps. The first parses, and passes what belongs to a flow that is admitted
//! under what holds now; for everything else the others follow: [`enter()`] or [`leave()`], [`admit()`],
//! [`judge`], [`settle()`], [`open`]. Between them all that is known is in [`Work`], which the kernel keeps
//! outside its stack: what the verifier can't see it can't follow, and each step is verified once
//! instead of for every way through the ones before.

mod admit;
mod ask;
mod denials;
mod enter;
mod failsafe;
mod leave;
mod parts;
mod settle;
mod start;
mod work;

pub use self::{
    admit::admit,
    denials::remember,
    enter::enter,
    failsafe::spare,
    leave::leave,
    parts::note_first,
    settle::{judge, open, settle, turns},
    start::{refuse, start_egress, start_ingress},
    work::{Verdict, Work},
};
use crate::{packet::Bytes, tables::Tables};

/// Judges a packet that enters through an interface: all steps.
///
/// `tag` is the VLAN tag that the kernel took out of the frame.
pub fn ingress<B: Bytes + ?Sized, T: Tables + ?Sized>(
    bytes: &B,
    tag: Option<u16>,
    ifindex: u32,
    tables: &T,
    work: &mut Work,
) -> Verdict {
    let verdict = start_ingress(bytes, tag, ifindex, tables, work)
        .or_else(|| enter(bytes, tables, work))
        .unwrap_or_else(|| judged(bytes, tables, work));
    let verdict = spare(bytes, tables, work, verdict);
    finish(tables, work, verdict)
}

/// Judges a packet that leaves through an interface: all steps.
///
/// `from` is the index of the interface that it came from; 0: the router sent it.
pub fn egress<B: Bytes + ?Sized, T: Tables + ?Sized>(
    bytes: &B,
    tag: Option<u16>,
    ifindex: u32,
    from: u32,
    tables: &T,
    work: &mut Work,
) -> Verdict {
    let verdict = start_egress(bytes, tag, ifindex, from, tables, work)
        .or_else(|| leave(bytes, tables, work))
        .unwrap_or_else(|| judged(bytes, tables, work));
    let verdict = spare(bytes, tables, work, verdict);
    finish(tables, work, verdict)
}

fn judged<B: Bytes + ?Sized, T: Tables + ?Sized>(
    bytes: &B,
    tables: &T,
    work: &mut Work,
) -> Verdict {
    admit(bytes, tables, work)
        .or_else(|| {
            judge(tables, work);
            if turns(work) {
                judge(tables, work);
            }
            settle(tables, work)
        })
        .unwrap_or_else(|| open(tables, work))
}

fn finish<T: Tables + ?Sized>(tables: &T, work: &Work, verdict: Verdict) -> Verdict {
    if work.denied != 0 && !verdict.reason.passes() {
        remember(tables, work, &verdict);
    }
    if verdict.reason.passes() && work.packet.fragment.is_first() {
        note_first(tables, work, verdict)
    } else {
        verdict
    }
}
