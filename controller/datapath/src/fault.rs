//! Where a test can have the daemon die: at one point of a change, as by a power cut.

use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::{Signal, getpid, kill_process};

/// Whether the daemon has taken over what was: that goes by the same points as a change.
static STARTED: AtomicBool = AtomicBool::new(false);

/// From now on points are those of changes.
pub fn started() {
    STARTED.store(true, Ordering::Relaxed);
}

/// Dies here when a test has asked for it. Does nothing in a release.
pub fn point(name: &str) {
    if cfg!(debug_assertions)
        && STARTED.load(Ordering::Relaxed)
        && std::env::var_os("WARDLINE_FAULT").is_some_and(|at| at == name)
    {
        // As by a power cut: nothing is cleaned up, and nothing after it runs.
        let _killed = kill_process(getpid(), Signal::KILL);
    }
}
