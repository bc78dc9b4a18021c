//! Which MACs are known: a bounded number, of which those that no device lists go first.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use wardline_policy::words::mac::Mac;

use super::seen::Seen;

/// Most MACs that no device lists. Devices are as many as the policy has.
const MOST_UNLISTED: usize = 16_384;

/// What is known of MACs. A handle: clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Known(Arc<Mutex<All>>);

#[derive(Debug, Default)]
struct All {
    macs: BTreeMap<Mac, Seen>,
    /// What is not on the disk as it is here.
    changed: BTreeSet<Mac>,
}

impl Known {
    /// Changes what is known of a MAC. When it is one too many, that one goes which no device lists and
    /// which was not seen for longest.
    pub(super) fn change(
        &self,
        mac: Mac,
        is_listed: impl Fn(&Mac) -> bool,
        change: impl FnOnce(&mut Seen),
    ) {
        let mut all = self.lock();
        let is_new = !all.macs.contains_key(&mac);
        change(all.macs.entry(mac).or_default());
        all.changed.insert(mac);
        if is_new && all.macs.len() > MOST_UNLISTED {
            let unlisted = all.macs.iter().filter(|(it, _)| !is_listed(it));
            let unlisted: Vec<(i64, Mac)> = unlisted.map(|(it, seen)| (seen.last, *it)).collect();
            if unlisted.len() > MOST_UNLISTED
                && let Some((_, oldest)) = unlisted.into_iter().min()
            {
                all.macs.remove(&oldest);
                all.changed.insert(oldest);
            }
        }
    }

    /// What is known of a MAC.
    pub fn get(&self, mac: &Mac) -> Option<Seen> {
        self.lock().macs.get(mac).cloned()
    }

    /// Whether something is known of a MAC.
    pub(super) fn has(&self, mac: &Mac) -> bool {
        self.lock().macs.contains_key(mac)
    }

    /// Everything that is known.
    pub fn all(&self) -> Vec<(Mac, Seen)> {
        let all = self.lock();
        all.macs
            .iter()
            .map(|(it, seen)| (*it, seen.clone()))
            .collect()
    }

    /// Adds what was kept from before; what is known already counts more.
    pub(super) fn add(&self, kept: Vec<(Mac, Seen)>) {
        let mut all = self.lock();
        for (mac, old) in kept {
            let seen = all.macs.entry(mac).or_default();
            if seen.first == 0 {
                *seen = old;
            } else {
                seen.first = old.first.min(seen.first);
            }
        }
    }

    /// What has changed since this was asked last; none: forgotten.
    pub(super) fn changed(&self) -> Vec<(Mac, Option<Seen>)> {
        let mut all = self.lock();
        let changed = std::mem::take(&mut all.changed).into_iter();
        changed
            .map(|mac| (mac, all.macs.get(&mac).cloned()))
            .collect()
    }

    /// What could not be written is to be written again.
    pub(super) fn not_written(&self, macs: impl Iterator<Item = Mac>) {
        self.lock().changed.extend(macs);
    }

    fn lock(&self) -> MutexGuard<'_, All> {
        // Nothing panics while this lock is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mac(number: u32) -> Mac {
        let [a, b, c, d] = number.to_be_bytes();
        Mac([2, 0, a, b, c, d])
    }

    #[test]
    fn who_is_not_listed_and_was_silent_longest_goes_first() {
        let known = Known::default();
        let is_listed = |it: &Mac| *it == mac(0);
        for number in 0..=MOST_UNLISTED as u32 {
            known.change(mac(number), is_listed, |seen| seen.last = i64::from(number));
        }
        // One of them is listed, so there is room for one more.
        assert_eq!(known.all().len(), MOST_UNLISTED + 1);
        known.changed();
        known.change(mac(900_000), is_listed, |seen| seen.last = 900_000);
        assert!(known.has(&mac(0)) && known.has(&mac(900_000)));
        assert!(!known.has(&mac(1)));
        let changed: Vec<_> = known
            .changed()
            .into_iter()
            .map(|(mac, seen)| (mac, seen.is_some()))
            .collect();
        assert_eq!(changed, [(mac(1), false), (mac(900_000), true)]);
    }

    #[test]
    fn what_was_kept_keeps_its_first_time() {
        let known = Known::default();
        known.change(mac(1), |_| false, |seen| (seen.first, seen.last) = (50, 60));
        let old = |first, last| Seen {
            first,
            last,
            hostname: "pump".to_owned(),
            ..Seen::default()
        };
        known.add(vec![(mac(1), old(10, 20)), (mac(2), old(30, 40))]);
        let times = |number| {
            let seen = known.get(&mac(number)).expect("known");
            (seen.first, seen.last)
        };
        assert_eq!((times(1), times(2)), ((10, 60), (30, 40)));
        known.changed();
        known.not_written([mac(2)].into_iter());
        assert_eq!(known.changed().len(), 1);
    }
}
