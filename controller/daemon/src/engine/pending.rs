//! A change that waits for its confirmation: when it expires, and what proves that the router can
//! still be reached.

use std::{
    fmt,
    str::FromStr,
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};

/// A change that is taken back unless it is confirmed.
///
/// Wall-clock time carries the deadline over a restart. While the process lives, the monotonic
/// clock counts, which can't be set; if the wall clock were set back, a locked-out operator would
/// have to wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// The revision that waits.
    pub revision: u64,
    /// The revision that returns; 0: none was in force.
    pub previous: u64,
    /// When it is taken back.
    pub confirm_by: Timestamp,
    within: Duration,
    /// When it took force, as far as this process knows.
    since: Option<Instant>,
    deadline: Instant,
}

/// The text is no pending change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a pending change")]
pub struct PendingError;

impl Pending {
    /// The store's key for it.
    pub const KEY: &str = crate::store::PENDING;

    /// A change that is about to take force.
    pub fn new(revision: u64, previous: u64, within: Duration, now: Timestamp) -> Self {
        let wait = SignedDuration::try_from(within).unwrap_or(SignedDuration::MAX);
        Self {
            revision,
            previous,
            confirm_by: now.saturating_add(wait).unwrap_or(Timestamp::MAX),
            within,
            since: None,
            deadline: Instant::now() + within,
        }
    }

    /// The same change, from the moment when it is in force.
    pub fn in_force(self) -> Self {
        Self {
            since: Some(Instant::now()),
            ..self
        }
    }

    /// The change as an earlier process stored it. However the clock was set meanwhile, it waits no
    /// longer than was requested.
    pub fn taken_over(self, now: Timestamp) -> Self {
        let left = Duration::try_from(self.confirm_by.duration_since(now)).unwrap_or_default();
        Self {
            deadline: Instant::now() + left.min(self.within),
            ..self
        }
    }

    /// Whether the time to confirm is over.
    pub fn is_over(&self, now: Instant) -> bool {
        now >= self.deadline
    }

    /// Whether a connection of this age proves that the router can be reached under the change.
    pub fn is_proved_by(&self, arrived: Instant) -> bool {
        self.since.is_none_or(|since| arrived > since)
    }
}

impl fmt::Display for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            revision,
            previous,
            confirm_by,
            within,
            ..
        } = self;
        write!(f, "{revision} {previous} {confirm_by} {}", within.as_secs())
    }
}

impl FromStr for Pending {
    type Err = PendingError;

    fn from_str(text: &str) -> Result<Self, PendingError> {
        let mut words = text.split(' ');
        let mut word = || words.next().ok_or(PendingError);
        let number = |text: &str| text.parse::<u64>().map_err(|_| PendingError);
        Ok(Self {
            revision: number(word()?)?,
            previous: number(word()?)?,
            confirm_by: word()?.parse().map_err(|_| PendingError)?,
            within: Duration::from_secs(number(word()?)?),
            since: None,
            deadline: Instant::now(),
        })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    const NOW: Timestamp = Timestamp::constant(1_790_000_000, 0);
    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn is_kept_as_text_and_waits_on_after_a_restart() {
        let pending = Pending::new(5, 4, MINUTE, NOW);
        let now = Instant::now();
        assert!(!pending.is_over(now) && pending.is_over(now + MINUTE));
        let kept: Pending = pending.to_string().parse().unwrap();
        assert_eq!(kept.to_string(), pending.to_string());
        let after = |seconds| {
            let pending = kept.clone();
            pending.taken_over(NOW + SignedDuration::from_secs(seconds))
        };
        assert!(after(60).is_over(Instant::now()));
        assert!(!after(30).is_over(now) && after(30).is_over(Instant::now() + MINUTE / 2));
        // It waits no longer than a minute, even if the clock has been set back a day.
        assert!(after(-86_400).is_over(Instant::now() + MINUTE));
        for text in ["", "5", "5 4 soon 60", "5 4 2026-01-01T00:00:00Z"] {
            assert_eq!(text.parse::<Pending>(), Err(PendingError), "{text}");
        }
    }

    #[test]
    fn only_a_connection_that_was_made_after_it_proves_anything() {
        let before = Instant::now();
        let pending = Pending::new(5, 4, MINUTE, NOW);
        // No connection to this process is older than the process, so any proves it.
        assert!(pending.is_proved_by(before));
        let pending = pending.in_force();
        assert!(!pending.is_proved_by(before));
        assert!(pending.is_proved_by(Instant::now() + Duration::from_nanos(1)));
    }
}
