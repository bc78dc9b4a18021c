//! The kernel's time against the world's.

use jiff::Timestamp;
use wardline_ebpf::abi::{NEVER, TICK_SHIFT};

/// The kernel's time against the world's, at one instant.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clock {
    /// The world's.
    pub now: Timestamp,
    /// The kernel's, in jiffies.
    pub jiffies: u64,
    /// Jiffies in a second.
    pub per_second: u32,
}

impl Clock {
    /// The tick at which a time has come; [`NEVER`] when it is further off than ticks count.
    pub fn tick(&self, time: Timestamp) -> u32 {
        let milliseconds = i128::from(time.as_millisecond() - self.now.as_millisecond());
        let jiffies = i128::from(self.jiffies) + milliseconds * i128::from(self.per_second) / 1000;
        let ticks = (jiffies + (1 << TICK_SHIFT) - 1) >> TICK_SHIFT;
        ticks.clamp(1, i128::from(NEVER)) as u32
    }

    /// How long ago a tick was, in seconds, when it is `now` ticks.
    pub fn seconds_since(&self, tick: u32, now: u32) -> u64 {
        // It may be a tick ahead of a present that was read before it.
        let ticks = (now.wrapping_sub(tick) as i32).max(0) as u64;
        (ticks << TICK_SHIFT) / u64::from(self.per_second.max(1))
    }
}
