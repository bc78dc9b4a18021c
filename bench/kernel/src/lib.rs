//! What the bench and its programs in the kernel share.
#![cfg_attr(not(test), no_std)]

pub mod traffic;

#[cfg(not(target_arch = "bpf"))]
#[expect(
    unsafe_code,
    reason = "aya's marker for what may be copied to and from the kernel"
)]
// SAFETY: `repr(C)`, integers only, no padding: the fields fill 40 bytes.
unsafe impl aya::Pod for traffic::Traffic {}

const _: () = assert!(size_of::<traffic::Traffic>() == 40);
