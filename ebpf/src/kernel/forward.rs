//! Fast-forward: finds the next hop, and rewrites the frame for it.

use aya_ebpf::{
    bindings::{bpf_fib_lookup, xdp_action, xdp_md},
    helpers,
    programs::XdpContext,
};
use wardline_ebpf::{
    abi::INTERFACES,
    decide::Work,
    forward,
    lookup::Lookup as _,
    packet::{Bytes as _, number},
};

use super::{
    desk::{ENTERING, desk},
    frame::xdp_frame,
    maps::{FORWARDED, Maps, count, number_of},
};

/// Sends a packet that may be forwarded in the driver to its next hop, or up the stack; returns an
/// XDP action.
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn xdp_forward(context: *mut xdp_md) -> u32 {
    let Some(desk) = desk(ENTERING) else {
        return xdp_action::XDP_DROP;
    };
    let work = &desk.work;
    // Read before the routing table is asked, so that the answer counts as old if routes change
    // meanwhile.
    let version = forward::routes_version(&Maps);
    let hop = match forward::known_hop(&Maps, work, version) {
        Some(hop) => hop,
        None => {
            let hop = next_hop(context, work);
            // Only a usable hop is kept. In all other cases (an unresolved neighbour, a packet that
            // is too long) the stack handles each packet.
            if hop == 0 || !forward::leads_to_other_end(&Maps, work, hop) {
                return xdp_action::XDP_PASS;
            }
            forward::note_hop(&Maps, work, hop, version);
            hop
        }
    };
    let Some(exit) = Maps.forwarding(hop as u32 & 0xffff) else {
        return xdp_action::XDP_PASS;
    };
    let (own, ifindex) = (exit.mac, exit.ifindex);
    if !forward::leads_to_other_end(&Maps, work, hop) || !rewrite(context, work, hop >> 16, own) {
        return xdp_action::XDP_PASS;
    }
    count(FORWARDED.get_ptr_mut(0), work.packet.length as u64);
    // SAFETY: takes no pointer.
    unsafe { helpers::generated::bpf_redirect(ifindex, 0) as u32 }
}

/// Asks the routing table for the next hop, as `mac << 16 | interface`; 0: the stack must be asked.
#[inline(always)]
fn next_hop(context: *mut xdp_md, work: &Work) -> u64 {
    let packet = &work.packet;
    let frame = xdp_frame(context);
    let Some(head) = frame.read::<4>(14) else {
        return 0;
    };
    // SAFETY: integers, for which zero is a value.
    let mut asked = Aligned(unsafe { core::mem::zeroed() });
    let asked = &mut asked.0;
    asked.l4_protocol = packet.protocol;
    asked.sport = packet.source_port.to_be();
    asked.dport = packet.destination_port.to_be();
    // SAFETY: the context is the kernel's.
    asked.ifindex = unsafe { (*context).ingress_ifindex };
    asked.__bindgen_anon_1.tot_len = packet.end.wrapping_sub(14);
    let (source, destination) = (packet.source.0, packet.destination.0);
    if packet.ethertype == number::IPV4 {
        asked.family = AF_INET;
        asked.__bindgen_anon_2.tos = head[1];
        asked.__bindgen_anon_3.ipv4_src = (source[1] >> 32) as u32;
        asked.__bindgen_anon_4.ipv4_dst = (destination[1] >> 32) as u32;
    } else {
        asked.family = AF_INET6;
        let flow_info = u32::from_be_bytes(*head) & 0x0fff_ffff;
        asked.__bindgen_anon_2.flowinfo = flow_info.to_be();
        let words = |it: [u64; 2]| {
            [
                it[0] as u32,
                (it[0] >> 32) as u32,
                it[1] as u32,
                (it[1] >> 32) as u32,
            ]
        };
        asked.__bindgen_anon_3.ipv6_src = words(source);
        asked.__bindgen_anon_4.ipv6_dst = words(destination);
    }
    // SAFETY: the context is the kernel's, the structure ours and as long as we say.
    let answer = unsafe {
        helpers::generated::bpf_fib_lookup(
            context.cast(),
            &raw mut *asked,
            size_of::<bpf_fib_lookup>() as i32,
            0,
        )
    };
    let interface = number_of(asked.ifindex);
    if answer != 0 || interface >= INTERFACES {
        return 0;
    }
    // The receiver's MAC is at the end of the structure, and the verifier wants aligned reads.
    // SAFETY: the structure has 64 bytes and is aligned; these are its last eight.
    let last = unsafe { (&raw const *asked).cast::<u64>().add(7).read() };
    u64::from_be(last) << 16 | interface as u64
}

/// A question to the routing table, aligned so that its last eight bytes can be read at once.
#[repr(C, align(8))]
struct Aligned(bpf_fib_lookup);

const _: () = assert!(size_of::<Aligned>() == 64);

/// Rewrites a frame for its next hop: MACs, and a hop limit that is one less; false when it can't
/// be written.
#[inline(always)]
fn rewrite(context: *mut xdp_md, work: &Work, to: u64, from: u64) -> bool {
    let context = XdpContext::new(context);
    let (start, end) = (context.data(), context.data_end());
    if start + 14 + 20 > end {
        return false;
    }
    let [_, _, a, b, c, d, e, f] = to.to_be_bytes();
    let [_, _, g, h, i, j, k, l] = from.to_be_bytes();
    // SAFETY: the frame has at least 34 bytes, as compared above, and bytes have no alignment.
    unsafe {
        (start as *mut [u8; 12]).write([a, b, c, d, e, f, g, h, i, j, k, l]);
        let ip = (start + 14) as *mut u8;
        if work.packet.ethertype == number::IPV4 {
            let hops = ip.add(8);
            hops.write(hops.read().wrapping_sub(1));
            // RFC 1141: the checksum grows by as much as the sum of the header shrinks.
            let check = ip.add(10) as *mut [u8; 2];
            let sum = u16::from_be_bytes(check.read()) as u32 + 0x0100;
            check.write(((sum + (sum >= 0xffff) as u32) as u16).to_be_bytes());
        } else {
            let hops = ip.add(7);
            hops.write(hops.read().wrapping_sub(1));
        }
    }
    true
}

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
