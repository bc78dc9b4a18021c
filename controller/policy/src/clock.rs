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

#[cfg(test)]
mod tests {
    use jiff::ToSpan as _;

    use super::*;

    const TICK: u64 = 1 << TICK_SHIFT;

    fn clock(jiffies: u64) -> Clock {
        Clock {
            now: Timestamp::UNIX_EPOCH,
            jiffies,
            per_second: 250,
        }
    }

    #[test]
    fn a_time_has_come_at_its_tick_and_not_before() {
        let clock = clock(1000 * TICK);
        assert_eq!(clock.tick(clock.now), 1000);
        // A jiffy later is within the next tick, which is the first that is not too early.
        assert_eq!(clock.tick(clock.now + 4.milliseconds()), 1001);
        let ticks = u64::from(clock.tick(clock.now + 1.hour()));
        assert!(ticks * TICK >= clock.jiffies + 3600 * 250);
        assert!((ticks - 1) * TICK < clock.jiffies + 3600 * 250);
    }

    #[test]
    fn what_is_long_past_or_far_off_has_a_tick_too() {
        let clock = clock(1000 * TICK);
        assert_eq!(clock.tick(Timestamp::MIN), 1);
        assert_eq!(clock.tick(Timestamp::MAX), NEVER);
    }

    #[test]
    fn a_tick_that_is_ahead_was_just_now() {
        let clock = clock(0);
        assert_eq!(clock.seconds_since(100, 100 + 250), TICK);
        assert_eq!(clock.seconds_since(101, 100), 0);
        // Ticks begin again.
        assert_eq!(clock.seconds_since(u32::MAX, 249), TICK);
    }
}
