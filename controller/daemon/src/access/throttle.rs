//! Limits on what one client may use, so that others are still served.

use std::{
    collections::HashMap,
    hash::Hash,
    num::NonZeroU32,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tonic::Status;

use governor::{
    Quota, RateLimiter,
    clock::{Clock, MonotonicClock},
    middleware::NoOpMiddleware,
    state::keyed::HashMapStateStore,
};

/// A limited number of places, in all and for each holder.
#[derive(Debug)]
pub struct Places<K: Eq + Hash> {
    most: usize,
    most_each: usize,
    held: Arc<Mutex<HashMap<K, usize>>>,
}

/// A place that is held; it is freed when dropped.
#[derive(Debug)]
pub struct Place<K: Eq + Hash> {
    holder: K,
    held: Arc<Mutex<HashMap<K, usize>>>,
}

impl<K: Clone + Eq + Hash> Places<K> {
    /// All places are free at first.
    pub fn new(most: usize, most_each: usize) -> Self {
        Self {
            most,
            most_each,
            held: Arc::default(),
        }
    }

    /// A place, if there is one left for this holder.
    pub fn take(&self, holder: &K) -> Option<Place<K>> {
        let mut held = lock(&self.held);
        let own = held.get(holder).copied().unwrap_or_default();
        if own >= self.most_each || held.values().sum::<usize>() >= self.most {
            return None;
        }
        held.insert(holder.clone(), own + 1);
        Some(Place {
            holder: holder.clone(),
            held: self.held.clone(),
        })
    }

    /// The number of places that are held.
    pub fn held(&self) -> usize {
        lock(&self.held).values().sum()
    }
}

impl<K: Eq + Hash> Drop for Place<K> {
    fn drop(&mut self) {
        let mut held = lock(&self.held);
        if let Some(count) = held.get_mut(&self.holder) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.holder);
            }
        }
    }
}

/// A limited amount of memory.
#[derive(Debug)]
pub struct Budget {
    most: u64,
    taken: Arc<AtomicU64>,
}

/// A part of a budget; it is given back when dropped.
#[derive(Debug)]
pub struct Share {
    most: u64,
    all: Arc<AtomicU64>,
    own: AtomicU64,
}

impl Budget {
    /// So many bytes, all free.
    pub fn new(most: u64) -> Self {
        Self {
            most,
            taken: Arc::default(),
        }
    }

    /// A share, empty at first.
    pub fn share(&self) -> Arc<Share> {
        Arc::new(Share {
            most: self.most,
            all: self.taken.clone(),
            own: AtomicU64::default(),
        })
    }
}

impl Share {
    /// Makes the share as large as this; it never gets smaller.
    ///
    /// # Errors
    /// When there is no room.
    pub fn grow(&self, bytes: u64) -> Result<(), Status> {
        let own = self.own.load(Ordering::Relaxed);
        let more = bytes.saturating_sub(own);
        let taken = self.all.fetch_add(more, Ordering::Relaxed) + more;
        if taken > self.most {
            self.all.fetch_sub(more, Ordering::Relaxed);
            let message = if bytes > self.most {
                format!("the document takes more than {} bytes of memory", self.most)
            } else {
                "the documents of other calls take the memory that there is; try again".to_owned()
            };
            return Err(Status::resource_exhausted(message));
        }
        self.own.fetch_add(more, Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.all.fetch_sub(*self.own.get_mut(), Ordering::Relaxed);
    }
}

/// A limit on rates: each client has a bucket of tokens, which allows a burst.
#[derive(Debug)]
pub struct Rate<C: Clock = MonotonicClock> {
    buckets: RateLimiter<String, HashMapStateStore<String>, C, NoOpMiddleware<C::Instant>>,
}

/// From this many buckets on, full ones are dropped: they hold no information, and buckets of
/// clients that never return would accumulate.
const MANY: usize = 1024;

impl Rate {
    /// Every bucket starts full, with as many tokens as a burst, and gains `per_second` tokens each
    /// second.
    pub fn new(burst: u32, per_second: u32) -> Self {
        Self::by(MonotonicClock, burst, per_second)
    }
}

impl<C: Clock> Rate<C> {
    fn by(clock: C, burst: u32, per_second: u32) -> Self {
        let quota = Quota::per_second(at_least_one(per_second)).allow_burst(at_least_one(burst));
        Self {
            buckets: RateLimiter::new(quota, HashMapStateStore::default(), clock),
        }
    }

    /// Takes tokens. If there are too few, takes none and returns how long it takes until there are
    /// enough.
    pub fn take(&self, who: &str, tokens: u32) -> Result<(), Duration> {
        if self.buckets.len() >= MANY {
            self.buckets.retain_recent();
        }
        match self
            .buckets
            .check_key_n(&who.to_owned(), at_least_one(tokens))
        {
            Ok(Ok(())) => Ok(()),
            Ok(Err(later)) => Err(later.wait_time_from(self.buckets.clock().now())),
            Err(_more_than_a_burst) => Err(Duration::MAX),
        }
    }
}

fn at_least_one(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN)
}

/// A panic while one of these locks is held leaves nothing half changed, so poisoning is ignored.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;

    use super::*;

    #[test]
    fn who_takes_all_of_its_places_leaves_those_of_others() {
        let places = Places::new(5, 2);
        let held = [1, 1, 2].map(|who| places.take(&who));
        assert!(held.iter().all(Option::is_some));
        assert!(places.take(&1).is_none());
        let mut more = vec![places.take(&2), places.take(&3)];
        assert!(more.iter().all(Option::is_some));
        assert!(places.take(&3).is_none(), "five in all");
        more.pop();
        assert!(places.take(&3).is_some());
        drop((held, more));
        assert_eq!(places.held(), 0);
        assert!(lock(&places.held).is_empty());
    }

    #[test]
    fn a_burst_then_a_rate_for_each_alone() {
        let clock = FakeRelativeClock::default();
        let rate = Rate::by(clock.clone(), 3, 2);
        for _ in 0..3 {
            assert_eq!(rate.take("a", 1), Ok(()));
        }
        assert_eq!(rate.take("a", 1), Err(Duration::from_millis(500)));
        assert_eq!(rate.take("b", 3), Ok(()));
        clock.advance(Duration::from_secs(1));
        assert_eq!(rate.take("a", 2), Ok(()));
        assert!(rate.take("a", 1).is_err());
        clock.advance(Duration::from_secs(60));
        assert_eq!(rate.take("a", 3), Ok(()));
        assert_eq!(rate.take("a", 4), Err(Duration::MAX));
    }

    #[test]
    fn shares_of_a_budget_grow_while_there_is_room_and_are_given_back() {
        let budget = Budget::new(100);
        let (one, other) = (budget.share(), budget.share());
        assert!(one.grow(60).is_ok() && one.grow(40).is_ok() && other.grow(40).is_ok());
        let refused = one.grow(61).expect_err("no room");
        assert!(refused.message().contains("other calls"), "{refused}");
        let refused = one.grow(101).expect_err("too large");
        assert!(
            refused.message().contains("more than 100 bytes"),
            "{refused}"
        );
        drop(other);
        assert!(one.grow(100).is_ok());
        drop(one);
        assert!(budget.share().grow(100).is_ok());
    }

    #[test]
    fn names_that_never_come_back_are_forgotten() {
        let clock = FakeRelativeClock::default();
        let rate = Rate::by(clock.clone(), 1, 1);
        for n in 0..10_000_u32 {
            clock.advance(Duration::from_millis(10));
            assert_eq!(rate.take(&n.to_string(), 1), Ok(()));
        }
        assert!(rate.buckets.len() <= MANY);
    }
}
