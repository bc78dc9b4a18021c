//! The budget of a device's control: how much of it passes in a second.

use super::work::{CHARGED, CUT_OFF, DHCP_CLIENT, Verdict, Work};
use crate::{abi::Reason, flows, lookup::Lookup};

/// Whether [`charge_control`] has to run.
#[inline(always)]
pub(super) fn is_charged(work: &mut Work) -> bool {
    work.control & CHARGED != 0
}

/// Whether [`read_dhcp`](super::read_dhcp) has to run.
#[inline(always)]
pub(super) fn is_dhcp(work: &mut Work) -> bool {
    work.control & DHCP_CLIENT != 0
}

/// Counts a packet of control against its sender's budget; no verdict when there is room.
///
/// A second begins with the first packet after the second before. What is dropped is not counted.
#[inline(always)]
pub fn charge_control<T: Lookup + ?Sized>(tables: &T, work: &mut Work) -> Option<Verdict> {
    let Some(settings) = tables.settings() else {
        return Some(Verdict::of(Reason::NotReady));
    };
    let sender = work.packet.source_mac << 16;
    // A bridge sends a copy of what a host above it has sent through each of its ports, so there each
    // port has a budget for it.
    let account = if work.is_above_ports() {
        let copy = work.interface as u64;
        flows::account(settings, 0, sender ^ copy << 32)
    } else {
        flows::account(settings, work.device, sender)
    };
    let Some(quota) = tables.quota(account) else {
        return Some(Verdict::of(Reason::DeviceQuota));
    };
    let budget = if work.control & CUT_OFF != 0 {
        settings.control_in_quarantine
    } else {
        settings.control
    };
    if work.tick.wrapping_sub(quota.since.load()) >= settings.second() {
        quota.since.store(work.tick);
        quota.control.store(0);
    }
    if quota.control.load() < budget {
        quota.control.add(1);
        return None;
    }
    Some(Verdict::of(Reason::DeviceQuota))
}
