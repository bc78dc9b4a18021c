//! Frames of containers and virtual machines that have a MAC of their own above a port (macvlan,
//! macvtap): they leave through the port, and no hook has seen them enter.
//!
//! Such a frame comes from no interface of the router's, as the router's own frames do, but its
//! source MAC is not one of the router's. Where it leaves it is judged as if it entered there, like
//! the frames of everybody else who is on that port's link.

use super::{
    enter::enter,
    leave::{is_misdirected, leave},
    start::established,
    work::{Verdict, Work},
};
use crate::{
    abi::Reason,
    lookup::Lookup,
    packet::{Bytes, Linked},
};

/// Place and control, for a packet that leaves; no verdict when [`admit`](super::admit()) has to go
/// on.
#[inline(always)]
pub(super) fn leave_of_any<B: Bytes + ?Sized, T: Lookup + ?Sized>(
    bytes: &B,
    tables: &T,
    work: &mut Work,
) -> Option<Verdict> {
    if work.is_hosted() {
        leave_hosted(bytes, tables, work)
    } else {
        leave(bytes, tables, work)
    }
}

/// Place and control, for a frame of a container or a virtual machine; no verdict when
/// [`admit`](super::admit()) has to go on. A packet of a flow is done here.
#[inline(always)]
pub fn leave_hosted<B: Bytes + ?Sized, T: Lookup + ?Sized>(
    bytes: &B,
    tables: &T,
    work: &mut Work,
) -> Option<Verdict> {
    let verdict = established(tables, work);
    if verdict.is_some() {
        return verdict;
    }
    let verdict = enter(&Linked(bytes), tables, work);
    // A bridge asks this where a frame leaves that has entered elsewhere. This one is leaving.
    if verdict.is_none() && !work.packet.is_to_group() && is_misdirected(tables, work, 0) {
        return Some(Verdict::of(Reason::Misdirected));
    }
    verdict
}
