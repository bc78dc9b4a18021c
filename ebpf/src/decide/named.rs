//! Asks policy about the names of the other end, when nothing else has allowed or denied a flow.
//!
//! A name never stands for an address that a device, a zone, the router or a network behind a guarded
//! port has: whoever answers for the name could otherwise open the way there.

use super::{ask::asked_service, work::Work};
use crate::{
    abi::{End, KNOWN_FOR, zone},
    flows,
    lookup::Lookup,
    policy,
};

/// Whether [`ask_names`] has to run: no rule has decided, and rules may let the opener reach the other
/// end by a name.
#[inline(always)]
pub(super) fn may_be_named(work: &mut Work) -> bool {
    is_open(work)
}

/// As [`may_be_named`].
#[inline(always)]
pub(super) fn is_open(work: &Work) -> bool {
    if work.settings & zone::NAMES == 0 {
        return false;
    }
    let (opener, other) = if work.reversed == 0 {
        (&work.source, &work.destination)
    } else {
        (&work.destination, &work.source)
    };
    policy::is_undecided(&work.decision)
        && (opener.flags & End::NAMES != 0
            || work.settings & zone::ANY_NAMES != 0 && !opener.is_router())
        && policy::may_have_names(other)
        && !work.packet.is_to_group()
}

/// Asks about each name that the other end's address is known for. `judge` runs [`judge_name`] with a
/// selector. A flow that is open goes on when the time of the address is over.
#[inline(always)]
pub fn ask_names<T: Lookup + ?Sized>(
    tables: &T,
    work: &mut Work,
    mut judge: impl FnMut(&mut Work, u32),
) {
    let address = if work.reversed == 0 {
        work.packet.destination
    } else {
        work.packet.source
    };
    let Some(resolved) = tables.resolved(&address, false) else {
        return;
    };
    let goes_on = match flows::find_again(tables, &work.sought, work.at) {
        Some(found) => !flows::reopens(found.state, &work.packet),
        None => false,
    };
    for at in 0..KNOWN_FOR {
        let selector = resolved.selectors[at].load();
        if selector != 0 && (goes_on || work.tick < resolved.until[at].load()) {
            judge(work, selector);
        }
    }
}

/// Asks policy about one name of the other end.
#[inline(always)]
pub fn judge_name<T: Lookup + ?Sized>(tables: &T, work: &mut Work, selector: u32) {
    let (opener, service) = if work.reversed == 0 {
        (&work.source, work.packet.service())
    } else {
        (&work.destination, asked_service(&work.packet))
    };
    policy::judge_name(
        tables,
        work.slot,
        opener,
        selector,
        service,
        work.tick,
        &work.scratch,
        &mut work.decision,
    );
}
