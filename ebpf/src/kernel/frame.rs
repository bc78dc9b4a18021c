//! The packet's bytes, as XDP and TC have them.

use aya_ebpf::{
    bindings::{__sk_buff, xdp_md},
    programs::{TcContext, XdpContext},
};
use wardline_ebpf::{
    abi::Reason,
    packet::{Bytes, REACH},
};

/// The packet's memory, between two addresses from the kernel.
pub(super) struct Frame<const TC: bool> {
    start: usize,
    end: usize,
    length: usize,
    joined: bool,
    protocol: u16,
}

impl<const TC: bool> Bytes for Frame<TC> {
    // The kernel runs XDP on no interface without a link header that a port may be.
    const MAY_BE_BARE: bool = TC;

    #[inline(always)]
    fn read<const N: usize>(&self, at: usize) -> Option<&[u8; N]> {
        let mut at = at;
        // SAFETY: copies a register to itself. Otherwise the compiler may compare another register
        // than the one that it adds, and before 6.10 the verifier does not know that they are
        // related.
        unsafe { core::arch::asm!("{0} = {0}", inout(reg) at) };
        // The verifier has to see that the offset is small.
        if at > REACH {
            return None;
        }
        let mut place = self.start + at;
        // SAFETY: as above, for the sum that is compared and the one that is read from.
        unsafe { core::arch::asm!("{0} = {0}", inout(reg) place) };
        if place + N > self.end {
            return None;
        }
        // SAFETY: the comparison above is the bounds check; bytes have no alignment.
        Some(unsafe { &*(place as *const [u8; N]) })
    }

    #[inline(always)]
    fn len(&self) -> usize {
        self.length
    }

    #[inline(always)]
    fn is_joined(&self) -> bool {
        self.joined
    }

    #[inline(always)]
    fn protocol(&self) -> u16 {
        self.protocol
    }
}

#[inline(always)]
pub(super) fn xdp_frame(context: *mut xdp_md) -> Frame<false> {
    let context = XdpContext::new(context);
    let (start, end) = (context.data(), context.data_end());
    Frame {
        start,
        end,
        length: end - start,
        joined: false,
        protocol: 0,
    }
}

#[inline(always)]
pub(super) fn tc_frame(context: *mut __sk_buff) -> Frame<true> {
    // SAFETY: the context is the kernel's.
    let (length, segment, protocol) =
        unsafe { ((*context).len, (*context).gso_size, (*context).protocol) };
    let context = TcContext::new(context);
    Frame {
        start: context.data(),
        end: context.data_end(),
        length: length as usize,
        joined: segment != 0,
        protocol: u16::from_be(protocol as u16),
    }
}

/// Makes a packet's headers readable at TC, and returns the VLAN tag that the kernel took out of
/// them.
///
/// # Errors
///
/// [`Reason::Malformed`] when the headers can't be made readable, [`Reason::UnknownEthertype`] for
/// a tag that is not 802.1Q, which no policy can name.
#[inline(always)]
pub(super) fn pull(skb: *mut __sk_buff) -> Result<Option<u16>, Reason> {
    let context = TcContext::new(skb);
    // SAFETY: the context is the kernel's.
    let length = unsafe { (*skb).len };
    let wanted = if length < HEADERS { length } else { HEADERS };
    if context.data() + wanted as usize > context.data_end() && context.pull_data(wanted).is_err() {
        return Err(Reason::Malformed);
    }
    // SAFETY: the context is the kernel's.
    let (present, tag, protocol) =
        unsafe { ((*skb).vlan_present, (*skb).vlan_tci, (*skb).vlan_proto) };
    if present == 0 {
        Ok(None)
    } else if protocol == u32::from(0x8100u16.to_be()) {
        Ok(Some(tag as u16))
    } else {
        Err(Reason::UnknownEthertype)
    }
}

/// Makes more of a packet readable at TC, up to an offset. Bytes that can't be made readable are
/// missing when they are read.
#[inline(always)]
pub(super) fn tc_pull(context: *mut __sk_buff, end: u16) {
    let context = TcContext::new(context);
    if context.data() + end as usize > context.data_end() {
        let _ = context.pull_data(end as u32);
    }
}

/// At XDP everything that the driver has is readable.
#[inline(always)]
pub(super) fn xdp_pull(_context: *mut xdp_md, _end: u16) {}

/// Bytes of a packet that are made readable at TC: enough for all headers, including quoted ones.
const HEADERS: u32 = 256;
