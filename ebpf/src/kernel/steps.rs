//! The steps of a judgement, each a global function: the verifier checks it once, by itself.

use aya_ebpf::{
    bindings::{__sk_buff, xdp_md},
    programs::{TcContext, XdpContext},
};
use wardline_ebpf::decide;

use super::{
    desk::{ENTERING, LEAVING, desk, note},
    frame::{tc_frame, xdp_frame},
    maps::Maps,
};

/// Place and control at XDP; answers a reason's number, or [`GO_ON`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn xdp_enter(context: *mut xdp_md) -> u32 {
    let Some(desk) = desk(ENTERING) else { return 0 };
    note(
        &mut desk.verdict,
        decide::enter(&xdp_frame(&XdpContext::new(context)), &Maps, &mut desk.work),
    )
}

/// Quarantine and state at XDP; answers a reason's number, or [`GO_ON`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn xdp_admit(context: *mut xdp_md) -> u32 {
    let Some(desk) = desk(ENTERING) else { return 0 };
    note(
        &mut desk.verdict,
        decide::admit(&xdp_frame(&XdpContext::new(context)), &Maps, &mut desk.work),
    )
}

/// Place and control at TC ingress; answers a reason's number, or [`GO_ON`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn tc_enter(context: *mut __sk_buff) -> u32 {
    let Some(desk) = desk(ENTERING) else { return 0 };
    note(
        &mut desk.verdict,
        decide::enter(&tc_frame(&TcContext::new(context)), &Maps, &mut desk.work),
    )
}

/// Quarantine and state at TC ingress; answers a reason's number, or [`GO_ON`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn tc_admit(context: *mut __sk_buff) -> u32 {
    let Some(desk) = desk(ENTERING) else { return 0 };
    note(
        &mut desk.verdict,
        decide::admit(&tc_frame(&TcContext::new(context)), &Maps, &mut desk.work),
    )
}

/// Place and control at TC egress; answers a reason's number, or [`GO_ON`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn tc_leave(context: *mut __sk_buff) -> u32 {
    let Some(desk) = desk(LEAVING) else { return 0 };
    note(
        &mut desk.verdict,
        decide::leave(&tc_frame(&TcContext::new(context)), &Maps, &mut desk.work),
    )
}

/// Quarantine and state at TC egress; answers a reason's number, or [`GO_ON`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn tc_leave_admit(context: *mut __sk_buff) -> u32 {
    let Some(desk) = desk(LEAVING) else { return 0 };
    note(
        &mut desk.verdict,
        decide::admit(&tc_frame(&TcContext::new(context)), &Maps, &mut desk.work),
    )
}

/// A second look at a drop at XDP; answers a reason's number.
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn xdp_spare(context: *mut xdp_md) -> u32 {
    let Some(desk) = desk(ENTERING) else { return 0 };
    let frame = xdp_frame(&XdpContext::new(context));
    let verdict = decide::spare(&frame, &Maps, &mut desk.work, desk.verdict);
    note(&mut desk.verdict, Some(verdict))
}

/// A second look at a drop at TC ingress; answers a reason's number.
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn tc_spare(context: *mut __sk_buff) -> u32 {
    let Some(desk) = desk(ENTERING) else { return 0 };
    let frame = tc_frame(&TcContext::new(context));
    let verdict = decide::spare(&frame, &Maps, &mut desk.work, desk.verdict);
    note(&mut desk.verdict, Some(verdict))
}

/// A second look at a drop at TC egress; answers a reason's number.
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn tc_leave_spare(context: *mut __sk_buff) -> u32 {
    let Some(desk) = desk(LEAVING) else { return 0 };
    let frame = tc_frame(&TcContext::new(context));
    let verdict = decide::spare(&frame, &Maps, &mut desk.work, desk.verdict);
    note(&mut desk.verdict, Some(verdict))
}

/// Policy; answers the desk that it was asked for.
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn judge(index: u32) -> u32 {
    if let Some(desk) = desk(index) {
        decide::judge(&Maps, &mut desk.work);
    }
    index
}

/// Notes the first part of a packet that passes; answers a reason's number.
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn note_first(index: u32) -> u32 {
    let Some(desk) = desk(index) else { return 0 };
    let verdict = decide::note_first(&Maps, &desk.work, desk.verdict);
    note(&mut desk.verdict, Some(verdict))
}

/// Remembers what policy has refused; answers the desk that it was asked for.
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn note_denial(index: u32) -> u32 {
    if let Some(desk) = desk(index) {
        decide::remember(&Maps, &desk.work, &desk.verdict);
    }
    index
}

/// Does what policy says to a flow that exists; answers a reason's number, or [`GO_ON`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn settle(index: u32) -> u32 {
    let Some(desk) = desk(index) else { return 0 };
    note(&mut desk.verdict, decide::settle(&Maps, &mut desk.work))
}

/// Opens a flow; answers a reason's number.
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn open(index: u32) -> u32 {
    let Some(desk) = desk(index) else { return 0 };
    note(&mut desk.verdict, Some(decide::open(&Maps, &mut desk.work)))
}
