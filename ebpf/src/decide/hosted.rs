//! Frames of containers and virtual machines that have a MAC of their own above a port (macvlan,
//! macvtap): they leave through the port, and no hook has seen them enter.
//!
//! Such a frame comes from no interface of the router's, as the router's own frames do, but its
//! source MAC is not one of the router's. Where it leaves it is judged as if it entered there, like
//! the frames of everybody else who is on that port's link. Above a bridge a host is behind none of its
//! ports: it may belong to any zone that one of them carries.

use super::{
    enter::enter,
    leave::leave,
    start::established,
    work::{Verdict, Work},
};
use crate::{
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
    enter(&Linked(bytes), tables, work)
}
