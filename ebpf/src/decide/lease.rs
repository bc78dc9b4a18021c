//! Leases: an address that a DHCP server gives to a client is the client's at once, and one that it
//! gives back or is refused is nobody's.
//!
//! A server's answer counts when it passes as control on its way to a client that has asked for it
//! through the same port, a moment ago, in the same transaction. It takes an address from another only
//! when that one had it by a lease as well, or was silent for long: a lease says that the server gave
//! the address, not that nobody else uses it.

use super::{
    dhcp::{self, ADDRESSES},
    learn::claim_of,
    work::{DHCP_CLIENT, Work},
};
use crate::{
    abi::{Address, Mac, ROUTER, holder, mac_key, zone},
    guards::{self, Sender},
    learning,
    lookup::Lookup,
    packet::{Bytes, Packet, Shape, mac},
};

/// Addresses that one message settles at most.
pub(super) const LEASES: u32 = 4;
/// Seconds for which a client's answer is waited for. Clients ask anew after a few (RFC 2131 section
/// 4.1: at most 64).
const WAITS: u32 = 64;

/// Whether [`read_lease`] has to run for control that passes.
#[inline(always)]
pub(super) fn may_give_lease(work: &mut Work) -> bool {
    !work.is_ingress() && is_answer(&work.packet)
}

/// How many addresses a client's message or a server's answer settles, after it was read.
#[inline(always)]
pub(super) fn settles(work: &mut Work) -> u32 {
    let reads = work.control & DHCP_CLIENT != 0 || may_give_lease(work);
    if reads {
        work.options.settles.load()
    } else {
        0
    }
}

/// Whether a datagram is from a DHCP server's port to a client's, for its family.
#[inline(always)]
fn is_answer(packet: &Packet) -> bool {
    let ports = if packet.source.is_v4() {
        (67, 68)
    } else {
        (547, 546)
    };
    packet.shape == Shape::Udp && (packet.source_port, packet.destination_port) == ports
}

/// Reads a DHCP server's answer that passes on its way to a client: which addresses it settles, and for
/// whom.
#[inline(always)]
pub fn read_lease<B: Bytes + ?Sized, T: Lookup + ?Sized>(bytes: &B, tables: &T, work: &mut Work) {
    dhcp::forget_options(work);
    let Some((client, transaction)) = find_client(bytes, work) else {
        return;
    };
    work.sender = Sender {
        slot: work.slot,
        zone: work.zone,
        mac: client,
        link: work.link,
        tick: work.tick,
        ..Sender::default()
    };
    match tables.mac(mac_key(work.slot, client)) {
        Some(known) => {
            let of_router = known.device == ROUTER || known.flags & Mac::ROUTERS != 0;
            if known.device == 0 || of_router || known.zone != work.zone {
                return;
            }
            work.sender.device = known.device;
            work.sender.flags = known.flags;
        }
        None if work.settings & zone::ADMIT_ANY == 0 => return,
        None => {}
    }
    let Some(settings) = tables.settings() else {
        return;
    };
    let Some(clients) = tables.clients(work.sender.device, client) else {
        return;
    };
    let age = work.tick.wrapping_sub(clients.asked_at.load());
    if clients.transaction.load() != transaction
        || clients.asked_on.load() != work.interface
        || age > settings.second() * WAITS
    {
        return;
    }
    if work.packet.source.is_v4() {
        read_answer(bytes, work, clients.wanted.load());
    } else {
        read_reply(bytes, work);
    }
}

/// The MAC of the client that an answer is for, and the transaction.
#[inline(always)]
fn find_client<B: Bytes + ?Sized>(bytes: &B, work: &Work) -> Option<(u64, u32)> {
    let at = work.packet.payload as usize + 8;
    let client = if work.packet.source.is_v4() {
        let start = bytes.read::<34>(at)?;
        if start[0] != 2 || start[1] != 1 || start[2] != 6 {
            return None;
        }
        mac(&[
            start[28], start[29], start[30], start[31], start[32], start[33],
        ])
    } else {
        // The identifier of a client need not hold its MAC, but the frame goes there.
        work.packet.destination_mac
    };
    Some((client, dhcp::transaction(bytes, work)?))
}

/// Reads the kind of an answer of DHCPv4 (RFC 2131 section 4.3): an acknowledgement settles the address
/// that it gives, a refusal the one that the client wanted.
#[inline(always)]
fn read_answer<B: Bytes + ?Sized>(bytes: &B, work: &Work, wanted: u32) {
    let yours = work.packet.payload as u32 + 8 + 16;
    match dhcp::read_kind(bytes, work) {
        Some(5) => {
            dhcp::settle_one(work, yours);
        }
        Some(6) if wanted != 0 => {
            work.options.refused.store(wanted);
            work.options.settles.store(1);
        }
        _ => {}
    }
}

/// Reads a reply of DHCPv6 (RFC 8415 section 18.3): the addresses in its associations. Of a prefix
/// nothing is learned: routes say where it is.
#[inline(always)]
fn read_reply<B: Bytes + ?Sized>(bytes: &B, work: &Work) {
    let at = work.packet.payload as usize + 8;
    if bytes.read::<1>(at) == Some(&[7]) && dhcp::read_v6(bytes, work) {
        let addresses = work.options.addresses.load();
        if addresses <= LEASES {
            work.options.settles.store(addresses);
        }
    }
}

/// Settles one address: gives it to the client, or takes it from who gives it back or was refused.
#[inline(always)]
pub fn settle_lease<B: Bytes + ?Sized, T: Lookup + ?Sized>(
    bytes: &B,
    tables: &T,
    work: &mut Work,
    n: u32,
) {
    let v4 = work.packet.source.is_v4();
    let refused = work.options.refused.load();
    let (at, _) = dhcp::place(work, ADDRESSES + (n & (LEASES - 1)));
    let mut gives = !work.is_ingress() && refused == 0;
    let address = if refused != 0 {
        Address::v4(refused.to_ne_bytes())
    } else if v4 {
        match bytes.read::<4>(at as usize) {
            Some(address) => Address::v4(*address),
            None => return,
        }
    } else {
        // An address, then for how long it is preferred and valid (RFC 8415 section 21.6).
        match bytes.read::<24>(at as usize) {
            Some(value) => {
                gives &= value[20] | value[21] | value[22] | value[23] != 0;
                let Some(address) = bytes.read::<16>(at as usize) else {
                    return;
                };
                Address::v6(address)
            }
            None => return,
        }
    };
    work.claim = address;
    let holder = holder(work.sender.device, work.sender.mac);
    if !gives {
        learning::give_back(tables, &address, holder);
    } else if may_lease(tables, work) {
        learning::learn(tables, &claim_of(work, holder, true));
    }
    work.claim = Address::default();
}

/// Whether the client may have the address in `claim` by a lease: nobody lists it, and it is one that
/// the client may learn. One that is already its own is noted as leased.
#[inline(always)]
fn may_lease<T: Lookup + ?Sized>(tables: &T, work: &mut Work) -> bool {
    let (sender, end) = (&work.sender, &mut work.destination);
    if !guards::may_learn(tables, sender, &work.claim, end) {
        return false;
    }
    let learned = tables.learned(&work.claim);
    if let Some(learned) = learned
        && learned.holder.load() == holder(sender.device, sender.mac)
    {
        learned.last.store(sender.tick);
        learned.leased.store(1);
        return false;
    }
    end.device == 0 || learned.is_some()
}
