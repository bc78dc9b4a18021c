//! Who has which learned address, and how many a device, an unlisted MAC and a port may have.
//!
//! Each holder has a few places for each family, and nothing but silence makes a place or an address
//! free. So a device that claims many addresses takes none from another. No count says how many
//! places are used: an entry of a place counts only while the address is known as this holder's, so
//! nothing can leak when two processors meet or a daemon dies.

use crate::{
    abi::{Address, End, Learned, gauge, held_key, holding_device, learned_index, mac_key},
    cell::{Cell32, Cell64, opaque},
    lookup::Lookup,
};

/// The most places that a holder may have for each family, whatever the settings say.
pub const PLACES: u32 = 64;

/// A claim: someone at an interface uses an address of the zone that nobody has listed.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// The slot of the revision that judges.
    pub slot: u32,
    /// The address.
    pub address: &'a Address,
    /// Who claims it, as [`holder`](crate::abi::holder()).
    pub holder: u64,
    /// The zone.
    pub zone: u16,
    /// The interface.
    pub interface: u32,
    /// The current tick.
    pub tick: u32,
    /// Whether a DHCP server gives it the address.
    pub leased: bool,
}

impl Claim<'_> {
    /// What is noted when the claim is granted.
    #[inline(always)]
    pub fn granted(&self) -> Learned {
        Learned {
            holder: Cell64::new(self.holder),
            last: Cell32::new(self.tick),
            interface: Cell32::new(self.interface),
            zone: Cell32::new(self.zone as u32),
            leased: Cell32::new(self.leased as u32),
        }
    }
}

/// Gives a claimed address to who claims it; false when it may not have it.
///
/// Of what another has learned, only an address that is idle for long is free, and a leased one for who
/// has a new lease. A holder whose places
/// are all taken gives up one of its own addresses that is idle for a quarter of that time.
#[inline(always)]
pub fn learn<T: Lookup + ?Sized>(tables: &T, claim: &Claim<'_>) -> bool {
    let Some(settings) = tables.settings() else {
        return false;
    };
    let Claim {
        address,
        holder,
        interface,
        ..
    } = *claim;
    let mut taken = false;
    if let Some(learned) = tables.learned(address) {
        // Another processor was faster.
        if learned.holder.load() == holder {
            return true;
        }
        if !is_free(tables, claim, learned) {
            return false;
        }
        taken = true;
    }
    let v4 = address.is_v4();
    let place = tables.find_place(holder, v4);
    if place >= PLACES {
        return false;
    }
    let key = held_key(holder, v4, place);
    // Of several processors that choose this place, the one goes on that empties it.
    if let Some(old) = tables.held(key) {
        if let Some(learned) = tables.learned(old)
            && learned.holder.load() == holder
        {
            forget(tables, old, learned);
        }
        if !tables.release(key) {
            return false;
        }
    }
    let Some(count) = tables.learned_at(learned_index(interface, v4)) else {
        return false;
    };
    if count.load() >= settings.learned_per_port {
        return false;
    }
    if taken && let Some(learned) = tables.learned(address) {
        forget(tables, address, learned);
    }
    // In this order, an address in a place that nobody has learned is an old one.
    if !tables.note_learned(address, claim.granted()) {
        return false;
    }
    if !tables.hold(key, address) {
        tables.forget_learned(address);
        return false;
    }
    count.add(1);
    if let Some(all) = tables.gauge(gauge::LEARNED) {
        all.add(1);
    }
    true
}

/// A place of a holder that is free, else one whose address is idle; [`PLACES`]: none.
#[inline(always)]
pub fn find_place<T: Lookup + ?Sized>(tables: &T, holder: u64, v4: bool) -> u32 {
    let mut idle = PLACES;
    let Some(settings) = tables.settings() else {
        return idle;
    };
    // Without branches that depend on the place, because the verifier would go through the rest of
    // the places for each.
    let tick = tables.tick();
    let limit = limit(tables, tick, settings.learned / 4);
    let places = settings.learned_per_device;
    for place in 0..PLACES {
        if place >= places {
            break;
        }
        let Some(held) = tables.held(held_key(holder, v4, place)) else {
            return place;
        };
        let Some(learned) = tables.learned(held) else {
            return place;
        };
        // It was given to another.
        if learned.holder.load() != holder {
            return place;
        }
        let silence = tick.wrapping_sub(learned.last.load()) as i32;
        // All bits when it is longer than the limit, else none.
        let is_idle = opaque(((i64::from(limit) - i64::from(silence)) >> 63) as usize) as u32;
        idle = place & is_idle | idle & !is_idle;
    }
    idle
}

/// Whether another's learned address is free: it is idle for long, or its holder may no longer have
/// it. Unlisted MACs come and go, so theirs are free after a quarter of the time.
#[inline(always)]
fn is_free<T: Lookup + ?Sized>(tables: &T, claim: &Claim<'_>, learned: &Learned) -> bool {
    let Some(settings) = tables.settings() else {
        return false;
    };
    if claim.leased && learned.leased.load() != 0 {
        return true;
    }
    let holder = learned.holder.load();
    let device = holding_device(holder);
    let mut ticks = settings.learned;
    let keeps = if device == 0 {
        ticks /= 4;
        tables.mac(mac_key(claim.slot, holder)).is_none()
    } else {
        let is_anywhere = claim.address.is_link_local();
        tables.device(device << 1 | claim.slot).is_some_and(|it| {
            is_anywhere || it.flags & End::learns(claim.address) != 0 && it.zone == claim.zone
        })
    };
    let silence = claim.tick.wrapping_sub(learned.last.load()) as i32;
    !keeps || silence > limit(tables, claim.tick, ticks)
}

/// Ticks after which an address is idle. While the daemon does not run, none is: a flow may be live
/// that nobody has asked about.
#[inline(always)]
fn limit<T: Lookup + ?Sized>(tables: &T, tick: u32, ticks: u32) -> i32 {
    match tables.gauge(gauge::LEARNED_KEPT) {
        Some(kept) if kept.load().wrapping_sub(tick) as i32 > 0 => ticks as i32,
        _ => i32::MAX,
    }
}

/// Frees an address that its holder wants no more, or may not have.
#[inline(always)]
pub fn give_back<T: Lookup + ?Sized>(tables: &T, address: &Address, holder: u64) {
    if let Some(learned) = tables.learned(address)
        && learned.holder.load() == holder
    {
        forget(tables, address, learned);
    }
}

/// Forgets an address, and counts it no more.
#[inline(always)]
fn forget<T: Lookup + ?Sized>(tables: &T, address: &Address, learned: &Learned) {
    let index = learned_index(learned.interface.load(), address.is_v4());
    if !tables.forget_learned(address) {
        return;
    }
    // The daemon corrects the counts now and then, so they may be lower than what is there.
    if let Some(count) = tables.learned_at(index)
        && count.load() != 0
    {
        count.add(u32::MAX);
    }
    if let Some(all) = tables.gauge(gauge::LEARNED)
        && all.load() != 0
    {
        all.add(u32::MAX);
    }
}
