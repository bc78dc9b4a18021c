//! Where a test can have the daemon die, as by a power cut, or the kernel refuse: at one point of a change.

use std::{
    io,
    sync::atomic::{AtomicBool, Ordering},
};

use rustix::process::{Signal, getpid, kill_process};

/// Whether the daemon has taken over what was: that goes by the same points as a change.
static STARTED: AtomicBool = AtomicBool::new(false);

/// From now on points are those of changes.
pub fn started() {
    STARTED.store(true, Ordering::Relaxed);
}

/// Whether the kernel has refused already: it does so once.
static REFUSED: AtomicBool = AtomicBool::new(false);

/// Fails here once, as a kernel without memory does, when a test has asked for it. Does nothing in a
/// release.
pub(crate) fn refuse(name: &str) -> io::Result<()> {
    if is_asked_for("WARDLINE_REFUSE", name) && !REFUSED.swap(true, Ordering::Relaxed) {
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    Ok(())
}

/// Dies here when a test has asked for it. Does nothing in a release.
pub fn point(name: &str) {
    if is_asked_for("WARDLINE_FAULT", name) {
        // As by a power cut: nothing is cleaned up, and nothing after it runs.
        let _killed = kill_process(getpid(), Signal::KILL);
    }
}

fn is_asked_for(fault: &str, name: &str) -> bool {
    cfg!(debug_assertions)
        && STARTED.load(Ordering::Relaxed)
        && std::env::var_os(fault).is_some_and(|at| at == name)
}
