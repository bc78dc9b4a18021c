//! Where a test can have the daemon die: at one point of a change, as by a power cut.

/// Dies here when a test has asked for it. Does nothing in a release.
pub(crate) fn point(name: &str) {
    if cfg!(debug_assertions) && std::env::var_os("WARDLINE_FAULT").is_some_and(|at| at == name) {
        die();
    }
}

#[expect(
    unsafe_code,
    reason = "kill(2) has no safe wrapper in the standard library"
)]
fn die() {
    // SAFETY: no pointers; the signal ends this very process, and nothing after it runs.
    unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
}
