//! Memory for a name that is read, in which each of its labels can be looked up where it is.

use crate::cell::{Cell64, opaque};

/// Bytes of a name, and as many zeros behind it. So the name that begins at any label of it can be
/// looked up where it is.
#[repr(C)]
#[derive(Debug, Default)]
pub struct NameBuffer {
    /// The name, eight bytes in each word, the first byte lowest.
    words: [Cell64; WORDS],
    zeros: [Cell64; WORDS],
}

const WORDS: usize = 32;

impl NameBuffer {
    /// Makes it empty.
    #[inline(always)]
    pub fn clear(&self) {
        for word in &self.words {
            word.store(0);
        }
    }

    /// Puts a byte at an offset that has none.
    #[inline(always)]
    pub fn put(&self, at: usize, byte: u8) {
        let word = &self.words[opaque(at >> 3) & (WORDS - 1)];
        word.store(word.load() | (byte as u64) << ((at & 7) << 3));
    }

    /// The byte at an offset.
    #[inline(always)]
    pub fn byte(&self, at: usize) -> u8 {
        (self.words[opaque(at >> 3) & (WORDS - 1)].load() >> ((at & 7) << 3)) as u8
    }
}
