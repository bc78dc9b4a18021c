//! Place and control, for a packet that enters.

use super::{
    bare::enter_bare,
    work::{CHARGED, CUT_OFF, DHCP_CLIENT, Verdict, Work},
};
use crate::{
    abi::{Address, End, ROUTER, Reason, carries_key, mac_key, zone},
    guards::{self, Sender},
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
    let mut sender = Sender {
        slot: work.slot,
        device: 0,
        zone: work.zone,
        flags: 0,
        owns: false,
        port: work.port,
        mac: work.packet.source_mac,
        link: work.link,
        tick: work.tick,
    };
    work.claim = Address::UNSPECIFIED;
    if let Err(reason) = check_place(tables, work, &mut sender) {
        return Some(Verdict::of(reason));
    }
    if work.is_cut_off() {
        // Only a listed device may ask for its address, to be found again. Whoever is unlisted may
        // have another MAC next time.
        if sender.device == 0 {
            return Some(Verdict::of(Reason::Quarantined));
        }
        sender.flags |= End::QUARANTINED;
    }
    if let Some(seen) = tables.seen(sender.device) {
        seen.last.store(work.tick);
        seen.interface.store(work.interface);
    }
    let quarantined = sender.flags & End::QUARANTINED != 0;
    if work.packet.shape == Shape::Frame {
        if work.packet.ethertype != number::ARP {
            // A device in quarantine may send only ARP, neighbour discovery and DHCP.
            note_control(work, &sender);
            return Some(Verdict::of(if quarantined {
                Reason::Quarantined
            } else {
                Reason::Control
            }));
        }
        let control = guards::arp(
            bytes,
            tables,
            &work.packet,
            &sender,
            &mut work.source,
            &mut work.claim,
        );
        note_control(work, &sender);
        return Some(control.into());
    }
    let source = work.packet.source;
    if work.packet.shape == Shape::Mapped {
        return Some(Verdict::of(Reason::SpoofedSource));
    }
    if !source.is_unspecified()
        && (source.is_martian_source()
            || !sender.owns
                && !guards::owns(tables, &sender, &source, &mut work.source, &mut work.claim))
    {
        return Some(Verdict::of(Reason::SpoofedSource));
    }
    let control = guards::control(
        bytes,
        tables,
        &work.packet,
        &sender,
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
        note_control(work, &sender);
        return Some(verdict.into());
    }
    if source.is_unspecified() {
        return Some(Verdict::of(Reason::SpoofedSource));
    }
    None
}

/// Notes what the steps for control that enters need. They run if its verdict is control.
#[inline(always)]
fn note_control(work: &mut Work, sender: &Sender) {
    work.sender = sender.flags;
    work.control = CHARGED
        | if work.packet.shape == Shape::Udp && guards::asks_dhcp(&work.packet) {
            DHCP_CLIENT
        } else {
            0
        }
        | if sender.flags & End::QUARANTINED != 0 {
            CUT_OFF
        } else {
            0
        };
}

/// Place: finds the device of the sender's MAC, and checks that it may be at this port and VLAN.
#[inline(always)]
pub(super) fn check_place<T: Lookup + ?Sized>(
    tables: &T,
    work: &mut Work,
    sender: &mut Sender,
) -> Result<(), Reason> {
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
    work.device = mac.device;
    sender.device = mac.device;
    sender.flags = mac.flags;
    if mac.zone != work.zone {
        let elsewhere = tables
            .place(carries_key(work.slot, work.interface, mac.zone))
            .is_some();
        return Err(if elsewhere {
            Reason::WrongVlan
        } else {
            Reason::WrongPort
        });
    }
    if mac.interface != 0 && mac.interface != work.interface {
        return Err(Reason::WrongPort);
    }
    if mac.end.device != 0 && mac.address == work.packet.source {
        work.source.take(&mac.end);
        sender.owns = true;
    }
    Ok(())
}
