//! Where the work on a packet lies, outside the stack.

use wardline_ebpf::decide::{Verdict, Work};

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
