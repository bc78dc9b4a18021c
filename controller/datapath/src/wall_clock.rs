//! The router's wall clock: when it is set, and whether anything keeps it right.

#![expect(
    unsafe_code,
    reason = "adjtimex(2) has no safe binding, and tokio can't know who owns a descriptor"
)]

use std::{io, os::fd::OwnedFd};

use rustix::{
    io::Errno,
    time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    },
};
use tokio::io::{Interest, unix::AsyncFd};

/// Tells when the wall clock is set, by a person, by NTP, or when the machine has slept. Small
/// corrections by which the clock runs faster or slower for a while are none.
pub struct Steps(AsyncFd<OwnedFd>);

impl Steps {
    /// Watches from now on.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn watch() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Realtime, flags)?;
        // The timer itself is for a time that does not come: only its being cancelled is of
        // interest.
        let never = Itimerspec {
            it_interval: Timespec::default(),
            it_value: Timespec {
                tv_sec: i64::MAX,
                tv_nsec: 0,
            },
        };
        let flags = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
        timerfd_settime(&timer, flags, &never)?;
        // SAFETY: the descriptor is the timer's only one, and lives as long as the `AsyncFd` that
        // owns it.
        let registered = unsafe { AsyncFd::register_with_interest(timer, Interest::READABLE) };
        Ok(Self(registered?))
    }

    /// Waits until the clock is set; several steps at once are one.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub async fn next(&mut self) -> io::Result<()> {
        loop {
            let mut ready = self.0.readable().await?;
            let read = ready.try_io(|timer| {
                let mut count = [0; 8];
                Ok(rustix::io::read(timer, &mut count)?)
            });
            match read {
                // The timer goes on to tell after it was cancelled.
                Ok(Err(error)) if error.raw_os_error() == Some(Errno::CANCELED.raw_os_error()) => {
                    return Ok(());
                }
                Ok(Err(error)) => return Err(error),
                Ok(Ok(_)) | Err(_) => {}
            }
        }
    }
}

/// Whether the kernel counts the wall clock as kept right, by NTP or the like; adjtimex(2).
///
/// # Errors
/// When the kernel refuses to tell.
pub fn is_synchronized() -> io::Result<bool> {
    // SAFETY: all zeros is a valid value: `modes` 0 changes nothing.
    let mut clock: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a value of the right type, which lives until the call has returned.
    let state = unsafe { libc::adjtimex(&raw mut clock) };
    if state < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(state != libc::TIME_ERROR && clock.status & libc::STA_UNSYNC == 0)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_clock_that_is_left_alone_makes_no_steps() {
        let mut steps = Steps::watch().expect("a timer");
        let step = tokio::time::timeout(Duration::from_millis(50), steps.next()).await;
        assert!(step.is_err(), "{step:?}");
    }
}
