//! Desks: memory outside the stack for the work on one packet.

use aya_ebpf::{btf_maps::PerCpuArray, macros::btf_map};
use wardline_ebpf::decide::{Verdict, Work};

/// One packet's work: everything known about it, and the verdict.
#[repr(C)]
pub(super) struct Desk {
    pub(super) work: Work,
    pub(super) verdict: Verdict,
}

/// The desk for packets that enter. Each processor has its own.
pub(super) const ENTERING: u32 = 0;
/// The desk for packets that leave. It is separate, because a packet may leave while this processor
/// still works on one that enters.
pub(super) const LEAVING: u32 = 1;

#[btf_map]
static DESKS: PerCpuArray<Desk, 2> = PerCpuArray::new();

/// This processor's desk.
#[inline(always)]
pub(super) fn desk(index: u32) -> Option<&'static mut Desk> {
    let desk = DESKS.get_ptr_mut(index)?;
    // SAFETY: this processor's own value, and a program is not interrupted by another of its kind.
    Some(unsafe { &mut *desk })
}
