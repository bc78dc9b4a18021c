//! Reads the kernel's flow table.

use std::{io, os::fd::BorrowedFd};

use wardline_ebpf::abi::{Bucket, WAYS};
use wardline_policy::live::Live;

use crate::bpf;

/// Buckets that are read at once.
const AT_ONCE: u32 = 1024;

/// Calls with every flow of a table.
pub(crate) fn each(
    table: BorrowedFd<'_>,
    buckets: u32,
    mut visit: impl FnMut(&Live),
) -> io::Result<()> {
    const WORDS: usize = size_of::<Bucket>() / 8;
    let mut words = Vec::new();
    for first in (0..buckets).step_by(AT_ONCE as usize) {
        let count = (buckets - first).min(AT_ONCE) as usize;
        words.resize(count * WORDS, 0);
        bpf::read_array(table, first, size_of::<Bucket>(), &mut words)?;
        for bucket in of_words(&words) {
            for way in 0..WAYS {
                if bucket.tags[way].load() != 0 {
                    visit(&Live::of(bucket, way));
                }
            }
        }
    }
    Ok(())
}

#[expect(
    unsafe_code,
    reason = "the same bytes, as the type that the kernel's programs use"
)]
pub(crate) fn of_words(words: &[u64]) -> &[Bucket] {
    let count = size_of_val(words) / size_of::<Bucket>();
    // SAFETY: so many fit, aligned as words are, and every bit pattern is a value.
    unsafe { std::slice::from_raw_parts(words.as_ptr().cast(), count) }
}
