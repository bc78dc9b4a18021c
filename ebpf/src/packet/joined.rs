//! TCP segments that the stack has joined to one frame longer than an IP packet can be (BIG TCP).
//!
//! Only the stack makes such frames, and it cuts them into segments before they are on a wire. Their
//! length is that of the frame. The length in the IP header is zero, and before IPv6's header of TCP
//! there may be the option of RFC 2675, which the stack takes out again.

use super::{Bytes, Packet, number};
use crate::abi::Reason;

/// Bytes of the IP header and what follows that its length can't say.
const LONGEST: usize = 0xffff;

/// Whether an IP header at an offset, whose length is zero, is that of joined segments.
#[inline(always)]
pub(super) fn is_joined<B: Bytes + ?Sized>(bytes: &B, at: usize) -> bool {
    bytes.is_joined() && bytes.len() - at > LONGEST
}

/// IPv4 behind the header's fixed part. The stack joins no fragments and no other protocol.
#[inline(always)]
pub(super) fn is_segment(packet: &Packet, part: u16) -> bool {
    packet.protocol == number::TCP && part == 0
}

/// IPv6 behind the header's fixed part, which names the header at `at`.
///
/// # Errors
///
/// [`Reason::Malformed`] for what the stack does not join.
#[inline(always)]
pub(super) fn ipv6<B: Bytes + ?Sized>(
    bytes: &B,
    packet: &mut Packet,
    next: u8,
    at: usize,
) -> Result<(), Reason> {
    packet.end = u16::MAX;
    packet.protocol = number::TCP;
    packet.payload = at as u16;
    if next == number::TCP {
        return Ok(());
    }
    // A header of hop-by-hop options with nothing but the jumbo payload option, of four bytes.
    match bytes.read::<4>(at) {
        Some([number::TCP, 0, 0xc2, 4]) if next == 0 => {
            packet.payload = at as u16 + 8;
            Ok(())
        }
        _ => Err(Reason::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cell::Cell32,
        packet::{Shape, ethernet, network},
    };

    /// A frame of any length, of which the first bytes are known.
    struct Long<'a> {
        start: &'a [u8],
        length: usize,
        joined: bool,
    }

    impl Bytes for Long<'_> {
        fn read<const N: usize>(&self, at: usize) -> Option<&[u8; N]> {
            self.start.read(at)
        }

        fn len(&self) -> usize {
            self.length
        }

        fn is_joined(&self) -> bool {
            self.joined
        }
    }

    fn parsed(start: &[u8], length: usize, joined: bool) -> Result<Packet, Reason> {
        let bytes = Long {
            start,
            length,
            joined,
        };
        let mut packet = Packet::default();
        ethernet(&bytes, None, &mut packet)?;
        network(&bytes, &mut packet, 0, &Cell32::default())?;
        Ok(packet)
    }

    fn frame(ethertype: u16, ip: &[u8], behind: &[u8]) -> Vec<u8> {
        let mut tcp = [0; 20];
        (tcp[1], tcp[3], tcp[12], tcp[13]) = (80, 90, 5 << 4, 16);
        let link = [
            &[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2][..],
            &ethertype.to_be_bytes(),
        ];
        [&link.concat(), ip, behind, &tcp].concat()
    }

    fn v4(length: u16, part: u16, protocol: u8) -> Vec<u8> {
        let mut ip = [0; 20];
        (ip[0], ip[8], ip[9]) = (0x45, 64, protocol);
        ip[2..4].copy_from_slice(&length.to_be_bytes());
        ip[6..8].copy_from_slice(&part.to_be_bytes());
        ip[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        frame(number::IPV4, &ip, &[])
    }

    fn v6(length: u16, next: u8, behind: &[u8]) -> Vec<u8> {
        let mut ip = [0; 40];
        (ip[0], ip[6], ip[7], ip[8], ip[23], ip[24], ip[39]) = (0x60, next, 64, 0xfd, 1, 0xfd, 2);
        ip[4..6].copy_from_slice(&length.to_be_bytes());
        frame(number::IPV6, &ip, behind)
    }

    const JUMBO: [u8; 8] = [6, 0, 0xc2, 4, 0, 2, 0, 0];

    #[test]
    fn segments_that_the_stack_has_joined_are_tcp() {
        for bytes in [
            v4(0, 0, 6),
            v4(0, 0x4000, 6),
            v6(0, 6, &[]),
            v6(0, 0, &JUMBO),
        ] {
            let Ok(packet) = parsed(&bytes, 180_000, true) else {
                panic!("{bytes:?}");
            };
            assert_eq!(packet.shape, Shape::Tcp);
            assert_eq!((packet.source_port, packet.destination_port), (80, 90));
            assert_eq!((packet.length, packet.flags), (180_000, 16));
            // From a wire, or short enough to say how long it is.
            for (length, joined) in [(180_000, false), (60_000, true), (65_549, true)] {
                assert_eq!(parsed(&bytes, length, joined), Err(Reason::Malformed));
            }
        }
    }

    #[test]
    fn nothing_else_may_leave_out_its_length() {
        for bytes in [
            v4(0, 0, 17),
            v4(0, 0x2000, 6),
            v4(0, 1, 6),
            v6(0, 17, &[]),
            v6(0, 60, &JUMBO),
            v6(0, 0, &[17, 0, 0xc2, 4, 0, 2, 0, 0]),
            v6(0, 0, &[6, 1, 0xc2, 4, 0, 2, 0, 0]),
            v6(0, 0, &[6, 0, 1, 4, 0, 0, 0, 0]),
            v6(0, 0, &[6, 0, 0xc2, 2, 0, 0, 1, 0]),
        ] {
            assert_eq!(parsed(&bytes, 180_000, true), Err(Reason::Malformed));
        }
    }
}
