//! Packets of interfaces without a link header (WireGuard, PPP, tun), read as if they had one of
//! Ethernet: so all offsets are those of a frame.

use super::{Bytes, Packet};
use crate::abi::Reason;

/// Length of an Ethernet header.
const HEADER: u32 = 14;

/// A frame, or a packet without its header.
pub struct Framed<'a, B: ?Sized> {
    bytes: &'a B,
    missing: u32,
}

impl<'a, B: Bytes + ?Sized> Framed<'a, B> {
    /// `is_bare` is 1 when the header is missing, else 0: a number, because the verifier would follow
    /// a branch twice.
    #[inline(always)]
    pub fn new(bytes: &'a B, is_bare: u32) -> Self {
        let missing = is_bare * HEADER;
        Self { bytes, missing }
    }

    #[inline(always)]
    fn missing(&self) -> usize {
        if B::MAY_BE_BARE {
            self.missing as usize
        } else {
            0
        }
    }
}

impl<B: Bytes + ?Sized> Bytes for Framed<'_, B> {
    const MAY_BE_BARE: bool = B::MAY_BE_BARE;

    #[inline(always)]
    fn read<const N: usize>(&self, at: usize) -> Option<&[u8; N]> {
        // What is before the packet wraps around, out of reach.
        self.bytes.read(at.wrapping_sub(self.missing()))
    }

    #[inline(always)]
    fn len(&self) -> usize {
        self.bytes.len() + self.missing()
    }

    #[inline(always)]
    fn is_joined(&self) -> bool {
        self.bytes.is_joined()
    }

    #[inline(always)]
    fn protocol(&self) -> u16 {
        self.bytes.protocol()
    }
}

/// A frame that has its header.
pub struct Linked<'a, B: ?Sized>(pub &'a B);

impl<B: Bytes + ?Sized> Bytes for Linked<'_, B> {
    const MAY_BE_BARE: bool = false;

    #[inline(always)]
    fn read<const N: usize>(&self, at: usize) -> Option<&[u8; N]> {
        self.0.read(at)
    }

    #[inline(always)]
    fn len(&self) -> usize {
        self.0.len()
    }
}

/// What stands in the place of [`ethernet`](super::ethernet) for a packet without a link header:
/// both MACs are zero.
///
/// # Errors
///
/// None; the result is that of its counterpart.
#[inline(always)]
pub fn bare<B: Bytes + ?Sized>(
    bytes: &B,
    tag: Option<u16>,
    packet: &mut Packet,
) -> Result<(), Reason> {
    *packet = Packet {
        length: (bytes.len() as u32).wrapping_sub(HEADER),
        ethertype: bytes.protocol(),
        vlan: tag.unwrap_or(0) & 0xfff,
        payload: HEADER as u16,
        ..Packet::default()
    };
    Ok(())
}
