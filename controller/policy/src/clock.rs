//! Converts between the kernel's time and wall-clock time.

use jiff::{SignedDuration, Timestamp};
use wardline_ebpf::abi::{NEVER, TICK_SHIFT};

/// The kernel's time and the wall-clock time at the same instant.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clock {
    /// Wall-clock time.
    pub now: Timestamp,
    /// The kernel's time, in jiffies.
    pub jiffies: u64,
    /// Jiffies in a second.
    pub per_second: u32,
}

impl Clock {
    /// The first tick that is not before a time; [`NEVER`] when that is further off than ticks
    /// count.
    pub fn tick(&self, time: Timestamp) -> u32 {
        let milliseconds = i128::from(time.as_millisecond() - self.now.as_millisecond());
        let jiffies = i128::from(self.jiffies) + milliseconds * i128::from(self.per_second) / 1000;
        let ticks = (jiffies + (1 << TICK_SHIFT) - 1) >> TICK_SHIFT;
        ticks.clamp(1, i128::from(NEVER)) as u32
    }

    /// How far the wall clock is ahead of where it would be if nobody had set it since `earlier`.
    pub fn ahead_of(&self, earlier: &Self) -> SignedDuration {
        let jiffies = i128::from(self.jiffies) - i128::from(earlier.jiffies);
        let milliseconds = jiffies * 1000 / i128::from(self.per_second.max(1));
        let passed = SignedDuration::from_millis(milliseconds as i64);
        self.now.duration_since(earlier.now) - passed
    }

    /// How long before tick `now` a tick was, in seconds.
    pub fn seconds_since(&self, tick: u32, now: u32) -> u64 {
        // The tick may be one ahead of `now` when `now` was read earlier.
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
        // A jiffy later is within the same tick, so the first tick that is not too early is the
        // next.
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
    fn a_clock_that_was_set_is_ahead_or_behind() {
        let before = clock(1000);
        let passed = |seconds: i64, jiffies| Clock {
            now: before.now + seconds.seconds(),
            ..clock(jiffies)
        };
        for (seconds, jiffies, ahead) in [
            (60, 16_000, 0),
            (3660, 16_000, 3600),
            (-3540, 16_000, -3600),
            (0, 1000, 0),
        ] {
            let ahead = SignedDuration::from_secs(ahead);
            assert_eq!(passed(seconds, jiffies).ahead_of(&before), ahead);
        }
    }

    #[test]
    fn a_tick_that_is_ahead_was_just_now() {
        let clock = clock(0);
        assert_eq!(clock.seconds_since(100, 100 + 250), TICK);
        assert_eq!(clock.seconds_since(101, 100), 0);
        // The tick counter wraps around.
        assert_eq!(clock.seconds_since(u32::MAX, 249), TICK);
    }
}
