//! Points in a change where a test can kill the daemon, as a power cut would, or make the kernel
//! refuse.

use std::{
    io,
    sync::atomic::{AtomicBool, Ordering},
};

use rustix::process::{Signal, getpid, kill_process};

/// Set once the daemon has taken over what was in force. Until then points do nothing, because
/// taking over passes the same ones as a change.
static STARTED: AtomicBool = AtomicBool::new(false);

/// From now on points belong to changes, and may fail.
pub fn started() {
    STARTED.store(true, Ordering::Relaxed);
}

/// Whether the refusal has happened already; it happens only once.
static REFUSED: AtomicBool = AtomicBool::new(false);

/// Fails here once, as a kernel without memory would, when a test has asked for it. Does nothing in
/// a release.
pub(crate) fn refuse(name: &str) -> io::Result<()> {
    if is_asked_for("WARDLINE_REFUSE", name) && !REFUSED.swap(true, Ordering::Relaxed) {
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    Ok(())
}

/// Dies here when a test has asked for it. Does nothing in a release.
pub fn point(name: &str) {
    if is_asked_for("WARDLINE_FAULT", name) {
        die();
    }
}

/// The same for a step of taking over from another version, which belongs to the start.
pub(crate) fn step(name: &str) {
    if is_named("WARDLINE_FAULT", name) {
        die();
    }
}

/// As with a power cut, nothing is cleaned up, and no later code runs.
fn die() {
    let _killed = kill_process(getpid(), Signal::KILL);
}

fn is_asked_for(fault: &str, name: &str) -> bool {
    STARTED.load(Ordering::Relaxed) && is_named(fault, name)
}

fn is_named(fault: &str, name: &str) -> bool {
    cfg!(debug_assertions) && std::env::var_os(fault).is_some_and(|at| at == name)
}
