//! What the bench asks of the kernel that `std` can't say: the crate's only unsafe code.
#![expect(
    unsafe_code,
    reason = "clocks, priorities and interface numbers need libc"
)]

use std::{ffi::CString, io, time::Duration};

use anyhow::{Context as _, Result};

use wardline_tests::{processors, stay_on};

/// Processor time of the calling thread; time in interrupts that run on it is part of it.
pub(crate) fn thread_time() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel writes one `timespec`; this clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Keeps the calling thread on the last processor, before others.
pub(crate) fn claim_processor() -> Result<()> {
    let last = processors()?.pop().context("no processor to run on")?;
    stay_on(last)?;
    // SAFETY: takes no pointer; 0 is the calling thread.
    if unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, -20) } != 0 {
        return Err(io::Error::last_os_error()).context("raising the priority");
    }
    Ok(())
}

/// The number of an interface of the calling thread's namespace.
pub(crate) fn interface(name: &str) -> Result<u32> {
    let name = CString::new(name)?;
    // SAFETY: the name ends with a zero byte and outlives the call.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(io::Error::last_os_error()).context("looking for an interface"),
        index => Ok(index),
    }
}
