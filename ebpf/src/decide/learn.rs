//! Learned addresses: what a packet claims that nobody has listed is given to its sender, or not.

use super::work::{Verdict, Work};
use crate::{
    abi::{Reason, holder},
    learning::{self, Claim},
    lookup::Lookup,
    packet::Shape,
    policy,
};

/// Whether [`learn`] has to run: the packet claims an address that is not yet its sender's.
#[inline(always)]
pub(super) fn claims(work: &mut Work) -> bool {
    !work.claim.is_unspecified()
}

/// The claim to the address in [`Work::claim`].
#[inline(always)]
pub(super) fn claim_of(work: &Work, holder: u64, leased: bool) -> Claim<'_> {
    Claim {
        slot: work.slot,
        address: &work.claim,
        holder,
        zone: work.zone,
        interface: work.interface,
        tick: work.tick,
        leased,
    }
}

/// Gives its sender the address that a packet claims; a verdict when it may not have it.
#[inline(always)]
pub fn learn<T: Lookup + ?Sized>(tables: &T, work: &mut Work) -> Option<Verdict> {
    let claim = claim_of(work, holder(work.device, work.packet.source_mac), false);
    // The source stands for its new holder from now on.
    if learning::learn(tables, &claim)
        && policy::end(tables, work.slot, &work.claim, &mut work.source)
        && work.source.device == work.device
    {
        return None;
    }
    Some(Verdict::of(match work.packet.shape {
        Shape::Frame => Reason::ArpSpoof,
        _ if work.claim == work.packet.source => Reason::SpoofedSource,
        Shape::Discovery => Reason::NdSpoof,
        _ => Reason::RogueDhcp,
    }))
}
