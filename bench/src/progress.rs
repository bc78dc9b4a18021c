//! Progress of the bench, on standard error.

use std::{sync::LazyLock, time::Instant};

/// Says what comes next, and how long the bench has run so far.
pub(crate) fn say(what: &str) {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    eprintln!("==> {:3} s  {what}", START.elapsed().as_secs());
}
