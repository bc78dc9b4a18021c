//! Returns memory to the system that the allocator keeps for later use.

/// Returns the memory of large documents: it is needed once, to read the document, and then not for
/// months.
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
