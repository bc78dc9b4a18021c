//! How much one client may take, so that there is always something left for the others.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Places that are held for a while: so many in all, and so many for each holder.
#[derive(Debug)]
pub struct Places<K: Eq + Hash> {
    most: usize,
    most_each: usize,
    held: Arc<Mutex<HashMap<K, usize>>>,
}

/// A place that is held; free again when dropped.
#[derive(Debug)]
pub struct Place<K: Eq + Hash> {
    holder: K,
    held: Arc<Mutex<HashMap<K, usize>>>,
}

impl<K: Clone + Eq + Hash> Places<K> {
    /// All are free.
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

    /// Places that are held.
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

/// How fast each may go on, after a burst: a bucket of tokens for everybody.
#[derive(Debug)]
pub struct Rate {
    /// Tokens that a full bucket has.
    burst: f64,
    /// Tokens that come each second.
    refill: f64,
    buckets: Mutex<HashMap<String, Bucket>>,
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Rate {
    /// Every bucket is full.
    pub fn new(burst: f64, refill: f64) -> Self {
        Self {
            burst,
            refill,
            buckets: Mutex::default(),
        }
    }

    /// Takes tokens; when there are too few, none, and how long it takes until there are enough.
    pub fn take(&self, who: &str, tokens: f64, now: Instant) -> Result<(), Duration> {
        // A bucket that is full again tells nothing; without this, names that never come back
        // would stay.
        const MANY: usize = 1024;
        let mut buckets = lock(&self.buckets);
        let filled = |bucket: &Bucket| {
            let since = now.saturating_duration_since(bucket.at).as_secs_f64();
            (bucket.tokens + since * self.refill).min(self.burst)
        };
        if buckets.len() >= MANY {
            buckets.retain(|_, bucket| filled(bucket) < self.burst);
        }
        let bucket = buckets.entry(who.to_owned()).or_insert(Bucket {
            tokens: self.burst,
            at: now,
        });
        bucket.tokens = filled(bucket);
        bucket.at = now;
        if bucket.tokens < tokens {
            return Err(Duration::from_secs_f64(
                (tokens - bucket.tokens) / self.refill,
            ));
        }
        bucket.tokens -= tokens;
        Ok(())
    }
}

/// Nothing that holds a lock here leaves things half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
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
        let rate = Rate::new(3.0, 2.0);
        let now = Instant::now();
        for _ in 0..3 {
            assert_eq!(rate.take("a", 1.0, now), Ok(()));
        }
        assert_eq!(rate.take("a", 1.0, now), Err(Duration::from_millis(500)));
        assert_eq!(rate.take("b", 3.0, now), Ok(()));
        let later = now + Duration::from_secs(1);
        assert_eq!(rate.take("a", 2.0, later), Ok(()));
        assert!(rate.take("a", 0.5, later).is_err());
        assert_eq!(rate.take("a", 3.0, now + Duration::from_secs(60)), Ok(()));
    }

    #[test]
    fn names_that_never_come_back_are_forgotten() {
        let rate = Rate::new(1.0, 1.0);
        let now = Instant::now();
        for n in 0..10_000_u32 {
            let at = now + Duration::from_millis(u64::from(n) * 10);
            assert_eq!(rate.take(&n.to_string(), 1.0, at), Ok(()));
        }
        assert!(lock(&rate.buckets).len() <= 1024);
    }
}
