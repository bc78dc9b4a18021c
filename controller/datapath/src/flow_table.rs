//! Reads the kernel's flow table.

use std::{io, os::fd::BorrowedFd};

use wardline_ebpf::abi::{Bucket, WAYS};
use wardline_policy::live::Live;

use crate::bpf;

/// Buckets that one call reads.
const AT_ONCE: u32 = 1024;

/// Calls a function with every flow of a table.
pub(crate) fn each(
    table: BorrowedFd<'_>,
    buckets: u32,
    mut visit: impl FnMut(&Live),
) -> io::Result<()> {
    let mut read = Vec::new();
    for first in (0..buckets).step_by(AT_ONCE as usize) {
        let count = (buckets - first).min(AT_ONCE) as usize;
        read.resize_with(count, Bucket::default);
        bpf::read_array(table, first, size_of::<Bucket>(), &mut read)?;
        for bucket in &read {
            for way in 0..WAYS {
                if bucket.tags[way].load() != 0 {
                    visit(&Live::of(bucket, way));
                }
            }
        }
    }
    Ok(())
}
