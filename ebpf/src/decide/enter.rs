//! Place and control, for a packet that enters.

use super::{
    bare::enter_bare,
    leave::is_misdirected,
    work::{CHARGED, CUT_OFF, DHCP_CLIENT, Verdict, Work},
};
use crate::{
    abi::{
        Address, End, INTERFACES, Port, ROUTER, Reason, carries_key, ethertype_key, link_key,
        mac_key, zone,
    },
    guards,
    lookup::Lookup,
    packet::{Bytes, Shape, number},
};

/// Place and control, for a packet that enters; no verdict when [`admit`](super::admit()) has to go
/// on.
#[inline(always)]
pub fn enter<B: Bytes + ?Sized, T: Lookup + ?Sized>(
    bytes: &B,
    tables: &T,
    work: &mut Work,
) -> Option<Verdict> {
    if B::MAY_BE_BARE && work.is_bare() {
        return enter_bare(tables, work);
    }
    // Field by field: for a whole structure the compiler makes a copy on the stack.
    work.sender.slot = work.slot;
    work.sender.device = 0;
    work.sender.zone = work.zone;
    work.sender.flags = 0;
    work.sender.owns = false;
    work.sender.port = work.port;
    work.sender.mac = work.packet.source_mac;
    work.sender.link = work.link;
    work.sender.tick = work.tick;
    work.claim = Address::UNSPECIFIED;
    if let Err(reason) = check_place(tables, work) {
        return Some(Verdict::of(reason));
    }
    if work.is_cut_off() {
        // Only a listed device may ask for its address, to be found again. Whoever is unlisted may
        // have another MAC next time.
        if work.sender.device == 0 {
            return Some(Verdict::of(Reason::Quarantined));
        }
        work.sender.flags |= End::QUARANTINED;
    }
    if let Some(seen) = tables.seen(work.sender.device) {
        seen.last.store(work.tick);
        seen.interface.store(work.interface);
    }
    let quarantined = work.sender.flags & End::QUARANTINED != 0;
    if work.packet.shape == Shape::Frame {
        if work.packet.ethertype != number::ARP {
            // A device in quarantine may send only ARP, neighbour discovery and DHCP.
            note_control(work);
            let key = ethertype_key(work.slot, work.zone, work.packet.ethertype);
            return Some(Verdict::of(if quarantined {
                Reason::Quarantined
            } else if work.beside != 0 && tables.place(key).is_none() {
                // The zone of the port lets it pass, but not the sender's.
                Reason::UnknownEthertype
            } else {
                Reason::Control
            }));
        }
        let control = guards::arp(
            bytes,
            tables,
            &work.packet,
            &work.sender,
            &mut work.source,
            &mut work.claim,
        );
        note_control(work);
        return Some(control.into());
    }
    let source = work.packet.source;
    if work.packet.shape == Shape::Mapped {
        return Some(Verdict::of(Reason::SpoofedSource));
    }
    if !source.is_unspecified()
        && (source.is_martian_source()
            || !work.sender.owns
                && !guards::owns(
                    tables,
                    &work.sender,
                    &source,
                    &mut work.source,
                    &mut work.claim,
                ))
    {
        return Some(Verdict::of(Reason::SpoofedSource));
    }
    let control = guards::control(
        bytes,
        tables,
        &work.packet,
        &work.sender,
        &mut work.destination,
        &mut work.claim,
    );
    if let Some(verdict) = control {
        // Control messages are small; a fragmented one hides something.
        let verdict = verdict.and(if work.packet.fragment.is_first() {
            Err(Reason::Fragment)
        } else if quarantined && guards::is_membership(&work.packet) {
            Err(Reason::Quarantined)
        } else {
            Ok(())
        });
        note_control(work);
        return Some(verdict.into());
    }
    if source.is_unspecified() {
        return Some(Verdict::of(Reason::SpoofedSource));
    }
    if work.may_end_here()
        && work.packet.destination_mac != work.own
        && !work.packet.is_to_group()
        && is_misdirected(tables, work, 0)
    {
        return Some(Verdict::of(Reason::Misdirected));
    }
    None
}

/// Notes what the steps for control that enters need. They run if its verdict is control.
#[inline(always)]
fn note_control(work: &mut Work) {
    work.control = CHARGED
        | if work.packet.shape == Shape::Udp && guards::asks_dhcp(&work.packet) {
            DHCP_CLIENT
        } else {
            0
        }
        | if work.sender.flags & End::QUARANTINED != 0 {
            CUT_OFF
        } else {
            0
        };
}

/// Whether an interface is on the link where a packet is judged.
#[inline(always)]
fn is_on_link<T: Lookup + ?Sized>(tables: &T, work: &Work, interface: u32) -> bool {
    interface < INTERFACES
        && match tables.port(Port::index(interface, work.slot)) {
            Some(port) => port.link == work.link,
            None => false,
        }
}

/// Place: finds the device of the sender's MAC, and checks that it may be at this port and VLAN.
#[inline(always)]
pub(super) fn check_place<T: Lookup + ?Sized>(tables: &T, work: &mut Work) -> Result<(), Reason> {
    if work.zone == 0 {
        return Err(Reason::WrongVlan);
    }
    let Some(mac) = tables.mac(mac_key(work.slot, work.packet.source_mac)) else {
        let admitted = work.settings & zone::ADMIT_ANY != 0;
        return if admitted {
            Ok(())
        } else {
            Err(Reason::UnknownDevice)
        };
    };
    // No device behind a port has the router's MAC, even where the zone admits unlisted ones.
    if mac.device == ROUTER {
        return Err(Reason::UnknownDevice);
    }
    // In quarantine, and no device of the policy has it any more.
    if mac.device == 0 {
        return Err(if work.settings & zone::ADMIT_ANY != 0 {
            Reason::Quarantined
        } else {
            Reason::UnknownDevice
        });
    }
    work.device = mac.device;
    work.sender.device = mac.device;
    work.sender.flags = mac.flags;
    if mac.zone != work.zone {
        if tables
            .place(carries_key(work.slot, work.interface, mac.zone))
            .is_some()
        {
            return Err(Reason::WrongVlan);
        }
        let beside = work.is_above_ports() && work.link < INTERFACES;
        let key = link_key(work.slot, work.link, mac.zone);
        if !beside || tables.place(key).is_none() {
            return Err(Reason::WrongPort);
        }
        work.beside = work.zone;
        work.zone = mac.zone;
        work.sender.zone = mac.zone;
    }
    if mac.interface != 0
        && mac.interface != work.interface
        && !(work.is_above_ports() && is_on_link(tables, work, mac.interface))
    {
        return Err(Reason::WrongPort);
    }
    if mac.end.device != 0 && mac.address == work.packet.source {
        work.source.take(&mac.end);
        work.sender.owns = true;
    }
    Ok(())
}
