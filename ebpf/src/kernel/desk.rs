//! Where the work on a packet lies, outside the stack.

use wardline_ebpf::{
    abi::Reason,
    decide::{self, Verdict, Work},
};

use super::maps::DESKS;

/// One packet's work: what is known of it, and the verdict.
#[repr(C)]
pub(super) struct Desk {
    pub(super) work: Work,
    pub(super) verdict: Verdict,
}

/// Desks: what enters and what leaves has its own, and each processor.
pub(super) const ENTERING: u32 = 0;
pub(super) const LEAVING: u32 = 1;

#[inline(always)]
pub(super) fn desk(index: u32) -> Option<&'static mut Desk> {
    let desk = DESKS.get_ptr_mut(index)?;
    // SAFETY: this processor's own value, and a program is not interrupted by another of its kind.
    Some(unsafe { &mut *desk })
}

/// What a step answers when the next has to go on; no reason's number.
pub(super) const GO_ON: u32 = u32::MAX;

/// Writes a step's verdict down; answers its reason's number, or [`GO_ON`].
#[inline(always)]
pub(super) fn note(place: &mut Verdict, verdict: Option<Verdict>) -> u32 {
    match verdict {
        Some(verdict) => {
            *place = verdict;
            verdict.reason as u32
        }
        None => GO_ON,
    }
}

/// Whether the number of a reason, as the steps hand it on, lets a packet pass.
#[inline(always)]
pub(super) fn is_pass(reason: u32) -> bool {
    reason >= Reason::Rule as u32 && reason < Reason::COUNT
}

/// Whether policy has to be asked once more.
#[inline(always)]
pub(super) fn turns(index: u32) -> bool {
    match desk(index) {
        Some(desk) => decide::turns(&mut desk.work),
        None => false,
    }
}
