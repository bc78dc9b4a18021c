//! The options of a message of neighbour discovery (RFC 4861 section 4.6).
//!
//! A router may announce as many prefixes, routes and resolvers as fit into a packet, so this is a
//! step of its own, which the verifier checks once.

use super::work::{Verdict, Work};
use crate::{
    abi::Reason,
    packet::{Bytes, Shape, discovery_length, mac},
};

/// The longest message: what fits into a packet of 1500 bytes.
const LONGEST: u32 = 1500 - 40;
/// The options of 8 bytes, the shortest, that fit into it.
const OPTIONS: usize = (LONGEST as usize - 8).div_ceil(8);

/// The option types that name a link-layer address.
const SOURCE_LINK: u8 = 1;
const TARGET_LINK: u8 = 2;

/// Whether [`read_options`] has to run. Without a link header there is no neighbour discovery.
#[inline(always)]
pub(super) fn has_options(work: &mut Work) -> bool {
    work.packet.shape == Shape::Discovery && !work.packet.source.is_v4() && !work.is_bare()
}

/// Checks that the options fill the rest of the message exactly, and notes whether one of them
/// names a link-layer address that is not the sender's. Then the form is known, so a fault that
/// was found before counts.
#[inline(always)]
pub fn read_options<B: Bytes + ?Sized>(bytes: &B, work: &mut Work) -> Option<Verdict> {
    let (start, end) = (work.packet.payload as u32, work.packet.end as u32);
    let kind = (work.packet.icmp >> 8) as u8;
    // The target of a redirect is another host.
    let target_link = if kind == 137 {
        SOURCE_LINK
    } else {
        TARGET_LINK
    };
    work.scratch.store(start + discovery_length(kind) as u32);
    for _ in 0..OPTIONS {
        let at = work.scratch.load();
        if at >= end {
            break;
        }
        let Some(option) = bytes.read::<8>(at as usize) else {
            break;
        };
        let [name, length, a, b, c, d, e, f] = *option;
        if length == 0 {
            break;
        }
        if (name == SOURCE_LINK || name == target_link)
            && (length != 1 || mac(&[a, b, c, d, e, f]) != work.packet.source_mac)
        {
            work.packet.names_other_link = true;
        }
        work.scratch.store(at + ((length as u32) << 3));
    }
    // The form of what the router sends is not judged. The form of what entered through a guarded
    // port was judged there.
    let formed = work.is_from_router() || work.is_from_guarded();
    let fits = work.scratch.load() == end && end.wrapping_sub(start) <= LONGEST;
    if !fits && !formed {
        return Some(Verdict::of(Reason::Malformed));
    }
    work.packet.fault_of_form().map(Verdict::of)
}
