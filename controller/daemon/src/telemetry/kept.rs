//! The events that are kept for later requests: a bounded number, shared by who makes them.
//!
//! When there is no room, the oldest event of the device with the most goes, of the port with the
//! most. So noise takes the place of its own maker's events only. The port comes first because a
//! sender can take the MACs of many devices, but not the place of another port. Senders that are no
//! device share one place on their port: a MAC is theirs to choose.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use jiff::Timestamp;

use super::{event::Event, filter::Filter};

/// Most events that are kept.
pub(super) const KEPT: usize = 10_000;

/// Events in the order in which they were kept.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// By number, which is never given twice.
    events: BTreeMap<u64, Arc<Event>>,
    next: u64,
    /// The [`Event::id`] of the last one.
    last_id: i64,
    /// By interface.
    ports: BTreeMap<String, Port>,
    /// The ports, by how many events each has.
    fullest: BTreeSet<(usize, String)>,
}

/// The events of one port.
#[derive(Debug, Default)]
struct Port {
    count: usize,
    /// The numbers of each device's events, oldest first.
    devices: BTreeMap<String, VecDeque<u64>>,
    /// The devices, by how many events each has; of two with as many, the one with the older event
    /// is last.
    fullest: BTreeSet<(usize, Reverse<u64>, String)>,
}

impl Kept {
    /// Keeps an event; when that is one too many, another one goes.
    pub(super) fn keep(&mut self, event: Arc<Event>) {
        let number = self.next;
        self.next += 1;
        let name = event.interface.clone();
        let port = self.ports.entry(name.clone()).or_default();
        let before = port.count;
        port.add(&event.device, number);
        self.fullest.insert((port.count, name.clone()));
        self.fullest.remove(&(before, name));
        self.events.insert(number, event);
        if self.events.len() > KEPT {
            self.forget_one();
        }
    }

    /// The number of an event that happens now: the microsecond, or the next one that is free. When the
    /// clock is set back, numbers go back with it.
    pub(super) fn next_id(&mut self, time: Timestamp) -> i64 {
        /// Events that are read in one go have the time of the first, and may run ahead of the clock.
        const AHEAD: i64 = 1_000_000;
        let now = time.as_microsecond();
        self.last_id = if now <= self.last_id && self.last_id - now < AHEAD {
            self.last_id + 1
        } else {
            now
        };
        self.last_id
    }

    /// A number that all events before now have at most, also those of before the start, and all that
    /// follow exceed.
    pub(super) fn mark(&mut self, now: Timestamp) -> i64 {
        self.last_id = self.last_id.max(now.as_microsecond());
        self.last_id
    }

    /// The events that pass a filter, oldest first.
    pub(super) fn passing(&self, filter: &Filter) -> Vec<Arc<Event>> {
        let all = self.events.values();
        all.filter(|event| filter.passes(event)).cloned().collect()
    }

    fn forget_one(&mut self) {
        let Some((_, name)) = self.fullest.pop_last() else {
            return;
        };
        let Some(port) = self.ports.get_mut(&name) else {
            return;
        };
        if let Some(number) = port.take() {
            self.events.remove(&number);
        }
        if port.count == 0 {
            self.ports.remove(&name);
        } else {
            self.fullest.insert((port.count, name));
        }
    }
}

impl Port {
    fn add(&mut self, device: &str, number: u64) {
        let numbers = self.devices.entry(device.to_owned()).or_default();
        let before = rank(device, numbers);
        numbers.push_back(number);
        let after = rank(device, numbers);
        before.map(|rank| self.fullest.remove(&rank));
        self.fullest.extend(after);
        self.count += 1;
    }

    /// Takes out the oldest event of the device with the most.
    fn take(&mut self) -> Option<u64> {
        let (_, _, device) = self.fullest.pop_last()?;
        let numbers = self.devices.get_mut(&device)?;
        let number = numbers.pop_front()?;
        let after = rank(&device, numbers);
        if after.is_none() {
            self.devices.remove(&device);
        }
        self.fullest.extend(after);
        self.count -= 1;
        Some(number)
    }
}

/// The place of a device among those of its port; none without events.
fn rank(device: &str, numbers: &VecDeque<u64>) -> Option<(usize, Reverse<u64>, String)> {
    let oldest = numbers.front()?;
    Some((numbers.len(), Reverse(*oldest), device.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keeps so many events, each a second after the one before.
    fn make(kept: &mut Kept, count: usize, interface: &str, device: impl Fn(usize) -> String) {
        for each in 0..count {
            let event = Event {
                interface: interface.to_owned(),
                device: device(each),
                ..Event::default()
            };
            kept.keep(Arc::new(event));
            kept.assert_whole();
        }
    }

    fn named(device: &str) -> impl Fn(usize) -> String {
        let device = device.to_owned();
        move |_| device.clone()
    }

    impl Kept {
        fn of(&self, interface: &str, device: &str) -> usize {
            let all = self.passing(&Filter::default());
            let is = |event: &&Arc<Event>| event.interface == interface && event.device == device;
            all.iter().filter(is).count()
        }

        fn assert_whole(&self) {
            assert!(self.events.len() <= KEPT);
            assert_eq!(self.ports.len(), self.fullest.len());
            for port in self.ports.values() {
                assert_eq!(port.devices.len(), port.fullest.len());
            }
        }
    }

    #[test]
    fn noise_takes_the_place_of_its_own() {
        let mut kept = Kept::default();
        make(&mut kept, 20, "lan1", named("pump"));
        make(&mut kept, 30, "lan2", named("printer"));
        make(&mut kept, 3 * KEPT, "lan2", named("camera"));
        assert_eq!(
            [("lan1", "pump"), ("lan2", "printer"), ("lan2", "camera")]
                .map(|(interface, device)| kept.of(interface, device)),
            [20, 30, KEPT - 50]
        );
        // The camera's newest, and in the order of time.
        let first = kept.next - (KEPT as u64 - 50);
        let expected = (0..50).chain(first..kept.next);
        assert!(kept.events.keys().copied().eq(expected));
    }

    #[test]
    fn a_sender_with_many_names_takes_only_from_its_port() {
        // The MACs of many devices at one port: each has fewer events than the pump.
        let mut kept = Kept::default();
        make(&mut kept, 500, "lan1", named("pump"));
        make(&mut kept, 2 * KEPT, "lan2", |each| {
            format!("device-{}", each % 5000)
        });
        assert_eq!(kept.of("lan1", "pump"), 500);
        assert_eq!(kept.passing(&Filter::default()).len(), KEPT);
    }

    #[test]
    fn two_that_make_noise_have_half_each() {
        let mut kept = Kept::default();
        make(&mut kept, KEPT, "lan1", named("camera"));
        make(&mut kept, KEPT, "lan2", named("printer"));
        assert_eq!(kept.of("lan1", "camera"), KEPT / 2);
        assert_eq!(kept.of("lan2", "printer"), KEPT / 2);
        make(&mut kept, KEPT, "lan2", named("scanner"));
        assert_eq!(
            ["printer", "scanner"].map(|device| kept.of("lan2", device)),
            [KEPT / 4; 2]
        );
    }

    #[test]
    fn of_those_with_as_many_the_oldest_goes() {
        let mut kept = Kept::default();
        make(&mut kept, KEPT + 3, "lan1", |each| format!("device-{each}"));
        assert!(kept.events.keys().copied().eq(3..KEPT as u64 + 3));
        assert_eq!(kept.ports["lan1"].devices.len(), KEPT);
    }
}
