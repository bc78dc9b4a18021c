//! Names as DNS has them on the wire: reads the question of a message and the addresses of an answer.
//!
//! The question of a message is never compressed, and it is the only name that is read. The owners of
//! the records behind it are skipped: what a resolver answers counts for the name that it was asked for.

use crate::{
    abi::{Address, SELECTORS, may_be_named},
    cell::{Cell32, Cell64},
    flows::folded,
    name_buffer::NameBuffer,
    packet::Bytes,
};

/// What is known of a message while it is read.
#[derive(Debug, Default)]
pub struct Message {
    /// The name in the question, in lower case.
    pub name: NameBuffer,
    /// The selectors that the name is of.
    pub selectors: [Cell32; SELECTORS],
    /// How many those are.
    pub count: Cell32,
    /// Where it is read.
    pub at: Cell32,
    /// Bytes that are left of a label; records that are left.
    pub left: Cell32,
    /// Not 0 when a label is longer than labels are.
    long: Cell32,
    /// A hash of the question, and of who asks whom.
    pub hash: Cell64,
    /// Where the question ends; 0: it can't be read. Then where the message ends.
    pub end: Cell32,
    /// An address of the answer, as [`Message::address`] gives it.
    words: [Cell64; 2],
    /// Seconds for which it is one.
    pub seconds: Cell32,
}

impl Message {
    /// The address of the answer that was read last.
    #[inline(always)]
    pub fn address(&self) -> Address {
        Address([self.words[0].load(), self.words[1].load()])
    }
}

/// The port of resolvers.
pub const PORT: u16 = 53;
/// Records of an answer, and labels of the names before them, that are read.
const STEPS: usize = 96;
/// Records of an answer that are read.
const RECORDS: u32 = 64;
/// A header, without which there is no message.
const HEADER: usize = 12;

/// Reads the question of a message that begins at `start` and ends before `end`. With `answer` the
/// message has to be an answer without an error, else a question. The hash begins with what is in
/// [`Message::hash`] already. False when it is something else.
#[inline(always)]
pub fn read_question<B: Bytes + ?Sized>(
    bytes: &B,
    start: usize,
    end: usize,
    answer: bool,
    message: &Message,
) -> bool {
    let Some(header) = bytes.read::<HEADER>(start) else {
        return false;
    };
    // Question or answer, and a plain query.
    let kind = if answer { 0x80 } else { 0 };
    if header[2] & 0xf8 != kind || header[3] & 0xf != 0 && answer {
        return false;
    }
    if header[4] != 0 || header[5] != 1 {
        return false;
    }
    let identifier = u16::from_be_bytes([header[0], header[1]]);
    message.name.clear();
    let hash = folded(message.hash.load(), identifier as u64);
    message.hash.store(hash);
    message.left.store(0);
    message.end.store(0);
    message.long.store(0);
    // Positions are kept where the verifier does not track them: it would learn something about them
    // from each comparison, and follow every step once for all that it may have learned before.
    message.at.store((start + HEADER) as u32);
    for place in 0..255 {
        let at = message.at.load() as usize;
        message.at.store(at as u32 + 1);
        let Some([byte]) = bytes.read::<1>(at) else {
            return false;
        };
        let byte = *byte as u32;
        message.hash.store(folded(message.hash.load(), byte as u64));
        // The length of a label is below all letters. Computed without branches, because the verifier
        // would follow each for every byte.
        let [below, to_z] = [b'A', b'Z' + 1].map(|it| byte.wrapping_sub(it as u32) >> 31);
        let upper = to_z & !below;
        message.name.put(place, (byte | upper << 5) as u8);
        let left = message.left.load();
        let begins = left.wrapping_sub(1) >> 31;
        let next = begins * byte + (1 - begins) * left.wrapping_sub(1);
        message.left.store(next);
        // A label has at most 63 bytes; what says more is a pointer.
        message.long.store(message.long.load() | next >> 6);
        if begins * (byte + 1) == 1 {
            message.end.store(at as u32 + 1);
            break;
        }
    }
    let after = message.end.load() as usize;
    if after == 0 || after + 4 > end || message.long.load() != 0 {
        return false;
    }
    let Some(kind) = bytes.read::<4>(after) else {
        return false;
    };
    let kind = u32::from_be_bytes(*kind);
    message.hash.store(folded(message.hash.load(), kind as u64));
    message.end.store(after as u32 + 4);
    true
}

/// Finds the records of addresses behind the question of an answer, in the section of answers, and tells
/// where each is. Whatever can't be read ends it.
#[inline(always)]
pub fn find_addresses<B: Bytes + ?Sized>(
    bytes: &B,
    start: usize,
    end: usize,
    message: &Message,
    mut found: impl FnMut(u32),
) {
    let Some(header) = bytes.read::<HEADER>(start) else {
        return;
    };
    let records = u16::from_be_bytes([header[6], header[7]]) as u32;
    message.left.store(records.min(RECORDS));
    message.at.store(message.end.load());
    message.end.store(end as u32);
    for _ in 0..STEPS {
        let at = message.at.load() as usize;
        let end = message.end.load() as usize;
        if message.left.load() == 0 || at >= end {
            break;
        }
        let Some([length]) = bytes.read::<1>(at) else {
            break;
        };
        let length = *length as usize;
        if length != 0 && length < 64 {
            message.at.store((at + 1 + length) as u32);
            continue;
        }
        // A pointer has two bytes and ends the name, as the root's zero does.
        if length != 0 && length < 0xc0 {
            break;
        }
        let at = at + 1 + (length >> 7);
        let Some(head) = bytes.read::<10>(at) else {
            break;
        };
        let kind = u16::from_be_bytes([head[0], head[1]]);
        let class = u16::from_be_bytes([head[2], head[3]]);
        let size = u16::from_be_bytes([head[8], head[9]]);
        let next = at + 10 + size as usize;
        if next > end {
            break;
        }
        message.at.store(next as u32);
        message.left.store(message.left.load() - 1);
        let what = (class as u64) << 32 | (kind as u64) << 16 | size as u64;
        if what == ADDRESS_V4 || what == ADDRESS_V6 {
            found(at as u32);
        }
    }
}

/// Class, type and size of the records of addresses.
const ADDRESS_V4: u64 = 1 << 32 | 1 << 16 | 4;
const ADDRESS_V6: u64 = 1 << 32 | 28 << 16 | 16;

/// Reads a record of an address that was found; false when it says nothing.
#[inline(always)]
pub fn read_address<B: Bytes + ?Sized>(bytes: &B, at: usize, message: &Message) -> bool {
    let Some(head) = bytes.read::<10>(at) else {
        return false;
    };
    let seconds = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
    let address = if head[9] == 4 {
        match bytes.read::<4>(at + 10) {
            Some(address) => Address::v4(*address),
            None => return false,
        }
    } else {
        match bytes.read::<16>(at + 10) {
            Some(address) => Address::v6(address),
            None => return false,
        }
    };
    // An IPv4 address in disguise has a record of its own kind.
    if head[9] != 4 && address.is_v4() || !may_be_named(&address) {
        return false;
    }
    message.words[0].store(address.0[0]);
    message.words[1].store(address.0[1]);
    // A number with the highest bit counts as zero (RFC 2181 section 8).
    message
        .seconds
        .store(if seconds >> 31 == 0 { seconds } else { 0 });
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A question and an answer to it, with an alias and two addresses.
    const QUESTION: &[u8] = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03wWw\x07Example\0\0\x01\0\x01";
    const RECORDS: &[u8] = b"\xc0\x0c\0\x05\0\x01\0\0\0\x3c\0\x02\xc0\x10\
                             \x03cdn\xc0\x10\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x01\
                             \0\0\x01\0\x01\x80\0\0\x01\0\x04\xc0\0\x02\x02";

    fn answer() -> Vec<u8> {
        let mut bytes = [QUESTION, RECORDS].concat();
        (bytes[2], bytes[7]) = (0x81, 3);
        bytes
    }

    /// The addresses of an answer and their seconds; none when its question can't be read.
    fn read(bytes: &[u8]) -> Option<Vec<(Address, u32)>> {
        let message = Message::default();
        let end = bytes.len();
        if !read_question(bytes, 0, end, true, &message) {
            return None;
        }
        let mut read = Vec::new();
        find_addresses(bytes, 0, end, &message, |at| {
            if read_address(bytes, at as usize, &message) {
                read.push((message.address(), message.seconds.load()));
            }
        });
        Some(read)
    }

    #[test]
    fn the_name_is_read_in_lower_case_and_counts_as_it_was_written() {
        let [one, other] = [Message::default(), Message::default()];
        assert!(read_question(QUESTION, 0, QUESTION.len(), false, &one));
        let name: Vec<u8> = (0..13).map(|at| one.name.byte(at)).collect();
        assert_eq!(name, b"\x03www\x07example\0");
        assert_eq!(one.name.byte(255), 0);
        let answer = answer();
        assert!(read_question(&answer[..], 0, answer.len(), true, &other));
        assert_eq!(one.hash.load(), other.hash.load());
        let mut mixed = answer;
        mixed[13] = b'w' ^ 0x20;
        let third = Message::default();
        assert!(read_question(&mixed[..], 0, mixed.len(), true, &third));
        assert_eq!(third.name.byte(1), b'w');
        mixed[14] ^= 0x20;
        assert!(read_question(&mixed[..], 0, mixed.len(), true, &third));
        assert_ne!(one.hash.load(), third.hash.load());
    }

    #[test]
    fn every_address_is_found_behind_any_owner() {
        let address = |last| Address::v4([192, 0, 2, last]);
        assert_eq!(
            read(&answer()),
            Some(vec![(address(1), 60), (address(2), 0)])
        );
    }

    #[test]
    fn a_message_that_is_cut_or_changed_anywhere_gives_no_address_that_it_does_not_have() {
        let whole = answer();
        for length in 0..whole.len() {
            let read = read(&whole[..length]).unwrap_or_default();
            assert!(read.len() < 2, "{length}: {read:?}");
        }
        // Whatever a byte says, reading ends and stays inside.
        for at in 0..whole.len() {
            for byte in 0..=255 {
                let mut changed = whole.clone();
                changed[at] = byte;
                assert!(read(&changed).unwrap_or_default().len() <= 3);
            }
        }
    }

    #[test]
    fn questions_are_no_answers_and_errors_neither() {
        assert_eq!(read(QUESTION), None);
        for (at, byte) in [(3, 3), (2, 0x91), (5, 0), (5, 2), (12, 64), (12, 0xc0)] {
            let mut bytes = answer();
            bytes[at] = byte;
            assert_eq!(read(&bytes), None, "{at}: {byte}");
        }
    }
}
