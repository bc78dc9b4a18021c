//! Waiting for conditions, and how long they may take.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long a probe waits before it counts as dropped: far more than a round trip in one machine,
/// less than TCP's first retransmission.
pub const TIMEOUT: Duration = Duration::from_millis(600);

/// How long interfaces may take to come up, and processes to go.
pub(crate) const SETTLE: Duration = Duration::from_secs(10);

/// Asks again and again until `condition` holds; false when `deadline` has passed first.
pub fn eventually(deadline: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + deadline;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= until {
            return false;
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// Says at its end that something is over. The threads of a scope that wait for it would otherwise never
/// end when the test fails meanwhile, and neither would the test.
pub struct AtTheEnd<'a>(pub &'a AtomicBool);

impl Drop for AtTheEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What the mutexes here guard is valid after every statement, so a panic elsewhere spoils nothing.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
