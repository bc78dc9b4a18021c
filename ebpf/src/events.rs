//! Which packets share an event, and how many destinations those have that share one.
//!
//! An event stands for packets of one kind: of a device, with a reason, by a rule, to or from one
//! other end. So a device that makes noise towards one end hides nothing that it does to another.

use crate::{
    abi::{Address, End, EventKey, EventLimit, MARKS},
    cell::opaque,
    flows::folded,
    packet::Packet,
};

/// The other end of a packet, as [`EventKey::peer`].
#[inline(always)]
pub fn peer(end: &End, address: &Address) -> u32 {
    if end.device != 0 {
        end.device
    } else {
        EventKey::ADDRESS | hash(address, 0) as u32 & (EventKey::SHARES - 1)
    }
}

/// The destination of a packet, its address and the service that it is asked for, as
/// [`EventKey::peer`] of a kind of its own.
#[inline(always)]
pub fn destination(packet: &Packet) -> u32 {
    EventKey::ADDRESS | hash(&packet.destination, packet.service()) as u32
}

/// The sender of a packet that is no device, by its MAC, as a part of [`EventKey::peer`].
#[inline(always)]
pub fn sender(packet: &Packet) -> u32 {
    folded(0x5743_6172_646c_696e, packet.source_mac) as u32 & !EventKey::ADDRESS | 1
}

/// Marks the destination of a packet: its address and the service that it is asked for.
#[inline(always)]
pub fn mark(limit: &EventLimit, packet: &Packet) {
    let hash = hash(&packet.destination, packet.service()) as usize;
    if let Some(marks) = limit.marks.get(opaque(hash >> 6 & (MARKS - 1))) {
        // Two processors may lose a mark of each other; the number is an estimate anyway.
        marks.store(marks.load() | 1 << (hash & 63));
    }
}

/// Takes the marks of all destinations since the last event; how many there were.
#[inline(always)]
pub fn take_marks(limit: &EventLimit) -> u32 {
    let mut count = 0;
    for marks in &limit.marks {
        count += ones(marks.load());
        marks.store(0);
    }
    count
}

/// The bits that are set. The BPF target has no instruction for it.
#[inline(always)]
fn ones(bits: u64) -> u32 {
    let pairs = bits - (bits >> 1 & 0x5555_5555_5555_5555);
    let nibbles = (pairs & 0x3333_3333_3333_3333) + (pairs >> 2 & 0x3333_3333_3333_3333);
    let bytes = (nibbles + (nibbles >> 4)) & 0x0f0f_0f0f_0f0f_0f0f;
    (bytes.wrapping_mul(0x0101_0101_0101_0101) >> 56) as u32
}

/// Not secret: who makes it come out the same for all destinations hides how many there are, not
/// that there are packets.
#[inline(always)]
fn hash(address: &Address, service: u32) -> u64 {
    let words = [address.0[0], address.0[1], service as u64];
    words.into_iter().fold(0x5743_6172_646c_696e, folded) >> 16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(host: u8, port: u16) -> Packet {
        Packet {
            destination: Address::v4([10, 20, 1, host]),
            destination_port: port,
            shape: crate::packet::Shape::Tcp,
            protocol: 6,
            ..Packet::default()
        }
    }

    #[test]
    fn as_many_destinations_are_marked_as_there_are() {
        let limit = EventLimit::default();
        for _ in 0..5 {
            mark(&limit, &packet(1, 80));
        }
        assert_eq!(take_marks(&limit), 1);
        assert_eq!(take_marks(&limit), 0);
        // Few of 256 places are taken by two.
        for port in 1..=60 {
            mark(&limit, &packet(1, port));
        }
        assert!((45..=60).contains(&take_marks(&limit)));
    }

    #[test]
    fn destinations_are_told_apart_by_address_and_service() {
        let some = [packet(1, 80), packet(1, 443), packet(2, 80), packet(2, 443)];
        let mut kinds = some.map(|it| destination(&it)).to_vec();
        kinds.dedup();
        assert_eq!(kinds.len(), some.len());
        assert_eq!(destination(&packet(1, 80)), kinds[0]);
    }

    #[test]
    fn bits_are_counted() {
        for bits in [0, 1, u64::MAX, 0x8000_0000_0000_0001, 0x1234_5678_9abc_def0] {
            assert_eq!(ones(bits), bits.count_ones());
        }
    }

    #[test]
    fn a_device_is_a_share_and_addresses_have_a_few() {
        let end = |device| End {
            device,
            ..End::default()
        };
        assert_eq!(peer(&end(7), &Address::v4([10, 0, 0, 1])), 7);
        let mut shares: Vec<u32> = (0..=255)
            .map(|host| peer(&end(0), &Address::v4([192, 0, 2, host])))
            .collect();
        shares.sort_unstable();
        shares.dedup();
        assert_eq!(shares.len(), EventKey::SHARES as usize);
        assert!(shares.iter().all(|it| it & EventKey::ADDRESS != 0));
    }
}
