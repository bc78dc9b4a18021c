//! The parts of the daemon beside the guard: which of them do not work, since when, why, and when
//! each is tried again.

use std::{collections::BTreeMap, fmt, time::Duration};

use jiff::{SignedDuration, Timestamp};
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// A part that can fail without another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The policy that was in force before the start.
    Policy,
    /// The copy of what is in force.
    Copy,
    /// The database of revisions.
    Database,
    /// The audit.
    Audit,
    /// The journal of events.
    Journal,
    /// The Unix socket of the API.
    Socket,
    /// The certificates of the API.
    Certificates,
    /// The TCP address of the API.
    Listener,
    /// The address of the metrics.
    Metrics,
}

/// A part that does not work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Since when.
    pub since: Timestamp,
    /// Why.
    pub error: String,
    /// When it is tried again; none: not before something is changed.
    pub next_try: Option<Timestamp>,
}

/// The parts that do not work. A handle: clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Parts {
    broken: watch::Sender<BTreeMap<Part, Broken>>,
}

impl Part {
    /// All parts.
    pub const ALL: [Self; 9] = [
        Self::Policy,
        Self::Copy,
        Self::Database,
        Self::Audit,
        Self::Journal,
        Self::Socket,
        Self::Certificates,
        Self::Listener,
        Self::Metrics,
    ];
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Policy => "policy",
            Self::Copy => "copy",
            Self::Database => "database",
            Self::Audit => "audit",
            Self::Journal => "journal",
            Self::Socket => "socket",
            Self::Certificates => "certificates",
            Self::Listener => "listener",
            Self::Metrics => "metrics",
        })
    }
}

impl Parts {
    /// A part does not work. The same error is logged once.
    pub fn breaks(&self, part: Part, error: &impl fmt::Display, again: Option<Duration>) {
        let error = format!("{error:#}");
        let now = Timestamp::now();
        let next_try = again.and_then(|again| now.checked_add(signed(again)).ok());
        let mut told = false;
        self.broken.send_modify(|broken| {
            let known = broken.get(&part);
            told = known.is_some_and(|known| known.error == error);
            let since = known.map_or(now, |known| known.since);
            let entry = Broken {
                since,
                error: error.clone(),
                next_try,
            };
            broken.insert(part, entry);
        });
        if !told {
            warn!(%part, error, "a part does not work; ports stay guarded");
        }
    }

    /// A part works.
    pub fn works(&self, part: Part) {
        let changed = self
            .broken
            .send_if_modified(|broken| broken.remove(&part).is_some());
        if changed {
            info!(%part, "works again");
        }
    }

    /// Whether a part works, as far as is known.
    pub fn has(&self, part: Part) -> bool {
        !self.broken.borrow().contains_key(&part)
    }

    /// The parts that do not work.
    pub fn broken(&self) -> BTreeMap<Part, Broken> {
        self.broken.borrow().clone()
    }

    /// What changes of that.
    pub fn changes(&self) -> watch::Receiver<BTreeMap<Part, Broken>> {
        self.broken.subscribe()
    }

    /// The tries at a part, until it works or the daemon stops.
    pub fn tries<'a>(&'a self, part: Part, stop: &'a CancellationToken) -> Tries<'a> {
        Tries {
            parts: self,
            part,
            stop,
            wait: BackOff::default(),
        }
    }

    /// Tries until it succeeds; none: the daemon stops.
    pub async fn insist<T, E: fmt::Display, F: Future<Output = Result<T, E>>>(
        &self,
        part: Part,
        stop: &CancellationToken,
        attempt: impl Fn() -> F,
    ) -> Option<T> {
        let mut tries = self.tries(part, stop);
        loop {
            match attempt().await {
                Ok(done) => {
                    self.works(part);
                    return Some(done);
                }
                Err(error) if tries.goes_on_after(&error).await => {}
                Err(_) => return None,
            }
        }
    }
}

/// The tries at a part.
pub struct Tries<'a> {
    parts: &'a Parts,
    part: Part,
    stop: &'a CancellationToken,
    wait: BackOff,
}

impl Tries<'_> {
    /// Tells why a try failed, and waits until the next; false: the daemon stops.
    pub async fn goes_on_after(&mut self, error: &impl fmt::Display) -> bool {
        let again = self.wait.next_wait();
        self.parts.breaks(self.part, error, Some(again));
        tokio::select! {
            () = self.stop.cancelled() => false,
            () = sleep(again) => true,
        }
    }
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

/// How long to wait before each further try: a second, then twice as long, to half a minute.
#[derive(Clone, Copy, Debug, Default)]
pub struct BackOff(u32);

impl BackOff {
    const LONGEST: Duration = Duration::from_secs(30);

    /// How long to wait now.
    pub fn next_wait(&mut self) -> Duration {
        let wait = Duration::from_secs(1 << self.0.min(5)).min(Self::LONGEST);
        self.0 = self.0.saturating_add(1);
        wait
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, future::ready};

    use super::*;

    #[test]
    fn a_part_is_broken_since_its_first_failure_until_it_works() {
        let parts = Parts::default();
        assert!(parts.has(Part::Audit) && parts.broken().is_empty());
        parts.breaks(Part::Audit, &"no room", Some(Duration::from_secs(1)));
        let first = parts.broken()[&Part::Audit].clone();
        parts.breaks(Part::Audit, &"read-only", None);
        let second = parts.broken()[&Part::Audit].clone();
        assert_eq!((second.since, &*second.error), (first.since, "read-only"));
        assert!(first.next_try > Some(first.since) && second.next_try.is_none());
        assert!(!parts.has(Part::Audit) && parts.has(Part::Database));
        parts.works(Part::Audit);
        assert!(parts.has(Part::Audit));
    }

    #[test]
    fn waits_grow_to_a_bound() {
        let mut wait = BackOff::default();
        let waits: Vec<u64> = (0..8).map(|_| wait.next_wait().as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30, 30]);
    }

    #[tokio::test]
    async fn it_is_tried_until_it_succeeds_or_the_daemon_stops() {
        let (parts, stop) = (Parts::default(), CancellationToken::new());
        let tries = Cell::new(0);
        let done = parts.insist(Part::Metrics, &stop, || {
            tries.set(tries.get() + 1);
            ready(if tries.get() < 2 {
                Err("not yet")
            } else {
                Ok(tries.get())
            })
        });
        assert_eq!(done.await, Some(2));
        assert!(parts.has(Part::Metrics));
        stop.cancel();
        let never = parts.insist(Part::Metrics, &stop, || ready(Err::<(), _>("no")));
        assert_eq!(never.await, None);
    }
}
