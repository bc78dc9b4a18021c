//! Messages of DHCP clients, copied for the daemon: what a device says of itself, also one that is dropped
//! because nobody knows it.

use aya_ebpf::bindings::{__sk_buff, xdp_md};
use wardline_ebpf::{
    abi::{ClientMessage, MESSAGE, Reason},
    guards,
    packet::{Bytes, Shape},
};

use super::{
    desk::{ENTERING, desk},
    event::takes_message,
    frame::{tc_frame, tc_pull, xdp_frame},
    maps::CLIENT_MESSAGES,
};

/// Whether the packet that has entered is a DHCP client's message that could be read.
#[inline(always)]
pub(super) fn is_clients() -> bool {
    desk(ENTERING).is_some_and(|desk| {
        let packet = &desk.work.packet;
        packet.shape == Shape::Udp
            && guards::asks_dhcp(packet)
            && !matches!(desk.verdict.would, Reason::Malformed | Reason::Fragment)
    })
}

/// Copies the message that has entered at XDP.
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn xdp_copy_message(context: *mut xdp_md) -> u32 {
    copy(&xdp_frame(context))
}

/// Copies the message that has entered at TC.
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn tc_copy_message(context: *mut __sk_buff) -> u32 {
    if let Some(desk) = desk(ENTERING) {
        tc_pull(context, desk.work.packet.end);
    }
    copy(&tc_frame(context))
}

/// Returns whether it did, because a global function has to return a number.
#[inline(always)]
fn copy<B: Bytes>(bytes: &B) -> u32 {
    let Some(desk) = desk(ENTERING) else { return 0 };
    let (work, packet) = (&desk.work, &desk.work.packet);
    if !takes_message(work.interface) {
        return 0;
    }
    let Some(mut entry) = CLIENT_MESSAGES.reserve(0) else {
        return 0;
    };
    let message = entry.as_mut_ptr();
    let start = packet.payload as usize + 8;
    let end = packet.end as usize;
    let mut length = 0;
    for n in 0..MESSAGE {
        if start + n >= end {
            break;
        }
        let Some([byte]) = bytes.read::<1>(start + n) else {
            break;
        };
        // SAFETY: the entry has as many bytes as the loop has rounds, and they are written only.
        unsafe { (&raw mut (*message).bytes).cast::<u8>().add(n).write(*byte) };
        length = n as u16 + 1;
    }
    let v4 = if packet.source.is_v4() {
        ClientMessage::V4
    } else {
        0
    };
    let passed = if desk.verdict.reason.passes() {
        ClientMessage::PASSED
    } else {
        0
    };
    // SAFETY: as above, for the fields before the bytes.
    unsafe {
        (&raw mut (*message).mac).write(packet.source_mac);
        (&raw mut (*message).interface).write(work.interface);
        (&raw mut (*message).flags).write(v4 | passed);
        (&raw mut (*message).vlan).write(packet.vlan);
        (&raw mut (*message).zone).write(work.zone);
        (&raw mut (*message).length).write(length);
        (&raw mut (*message).reserved).write(0);
    }
    entry.submit(0);
    1
}
