//! Memory that the allocator keeps for more of the same, given back to the system.

/// Gives back what large documents have left: one is taken apart once, and what it was made into
/// stands for months.
#[cfg_attr(
    target_env = "gnu",
    expect(unsafe_code, reason = "the C library's call for it")
)]
pub(crate) fn give_back() {
    // SAFETY: takes no pointer.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0)
    };
}
