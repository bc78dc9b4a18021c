//! Whatever goes, what is kept reads as before.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use wardline_policy::document::{Document as Policy, edit::Edit};
use wardline_proto::v1;

use super::*;
use crate::store::{
    Document, NewRevision, Store,
    tests::{Scratch, TIME, append, new, policy},
};

/// After all changes.
const LATER: Timestamp = Timestamp::constant(1_900_000_000, 0);

/// Everything but the newest five, whatever their age.
const FIVE: Kept = Kept {
    revisions: 5,
    days: 0,
    bytes: 1 << 30,
};

/// A history and what must be read from it: for each revision its document, and a number that it has
/// in common with those that have the very same.
struct Model {
    store: Store,
    known: Vec<(Policy, u64)>,
}

impl Model {
    fn newest(&self) -> u64 {
        self.known.len() as u64
    }

    fn of(&self, revision: u64) -> &(Policy, u64) {
        &self.known[revision as usize - 1]
    }

    fn add(&mut self, document: Document<'_>, whole: Policy, same: Option<u64>) {
        let revision = self.newest() + 1;
        let new = NewRevision {
            parent: revision - 1,
            document,
            ..new("some", &whole, &[])
        };
        let added = self.store.append(&new, &Arc::default()).expect("kept");
        assert_eq!(added, revision);
        self.known.push((whole, same.unwrap_or(revision)));
    }

    fn whole(&mut self) {
        let whole = policy(&format!("whole-{}", self.newest() + 1));
        self.add(Document::Whole(&whole), whole.clone(), None);
    }

    fn edit(&mut self) {
        let zone = v1::Zone {
            name: format!("zone-{}", self.newest() + 1),
            ..v1::Zone::default()
        };
        let edit = Edit {
            put: Some(Policy {
                version: 1,
                zones: vec![zone.clone()],
                ..Policy::default()
            }),
            delete: Vec::new(),
        };
        let mut whole = self.of(self.newest()).0.clone();
        whole.zones.push(zone);
        let document = Document::Edited {
            edit: &edit,
            whole: &whole,
        };
        self.add(document, whole.clone(), None);
    }

    fn return_to(&mut self, revision: u64) {
        let (whole, same) = self.of(revision).clone();
        self.add(Document::Of(revision), whole, Some(same));
    }

    /// The revision before the newest with another document.
    fn previous(&self) -> u64 {
        let current = self.of(self.newest()).1;
        let other = (1..self.newest())
            .rev()
            .find(|it| self.of(*it).1 != current);
        other.unwrap_or_default()
    }

    /// Drops, and checks all that is left. Returns the revisions that are there.
    fn drop_old(&self, keep: &Kept, now: Timestamp) -> Vec<u64> {
        let history = self.store.history();
        drop_old(history, keep, now).expect("dropped");
        let kept: Vec<u64> = history
            .list(u32::MAX)
            .expect("read")
            .iter()
            .rev()
            .map(|it| it.revision)
            .collect();
        for revision in 1..=self.newest() {
            let read = history.get(revision);
            if kept.contains(&revision) {
                let stored = read.expect("read").expect("kept");
                assert_eq!(stored.policy, self.of(revision).0, "{revision} of {kept:?}");
            } else {
                let error = read.expect_err("gone").to_string();
                assert!(error.starts_with(&format!("revision {revision} is no longer kept")));
            }
        }
        let previous = history.previous_document(self.newest()).expect("read");
        assert_eq!(previous, self.previous(), "{kept:?}");
        assert!(
            previous == 0 || kept.contains(&previous),
            "{previous} of {kept:?}"
        );
        kept
    }
}

#[test]
fn what_is_kept_reads_as_before_whatever_went() {
    let scratch = Scratch::new();
    let mut model = Model {
        store: scratch.open(),
        known: Vec::new(),
    };
    model.whole();
    let mut dice = 12_345_u64;
    let mut roll = |sides: u64| {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (dice >> 33) % sides
    };
    let mut kept = vec![1];
    for _ in 0..600 {
        match roll(8) {
            0 => model.whole(),
            1..4 => model.edit(),
            4..7 => model.return_to(model.newest()),
            _ => model.return_to(kept[roll(kept.len() as u64) as usize]),
        }
        kept.push(model.newest());
        if roll(3) == 0 {
            kept = model.drop_old(&FIVE, LATER);
            assert!(
                (1..=6).contains(&kept.len()) || model.newest() <= 6,
                "{kept:?}"
            );
        }
    }
    // Nothing is due, and nothing is lost by opening.
    let Model { store, known } = model;
    drop(store);
    let store = scratch.open();
    let model = Model { store, known };
    assert_eq!(model.drop_old(&FIVE, LATER), model.drop_old(&FIVE, LATER));
}

#[test]
fn dropping_beside_changes_strands_no_document() {
    let scratch = Scratch::new();
    let mut model = Model {
        store: scratch.open(),
        known: Vec::new(),
    };
    model.whole();
    let history = model.store.history().clone();
    let over = Arc::new(AtomicBool::new(false));
    let dropping = std::thread::spawn({
        let over = Arc::clone(&over);
        move || {
            let one = Kept {
                revisions: 1,
                ..FIVE
            };
            while !over.load(Ordering::Relaxed) {
                drop_old(&history, &one, LATER).expect("dropped");
            }
        }
    });
    for number in 0..400 {
        match number % 4 {
            0 => model.edit(),
            1 if number % 3 == 0 => model.whole(),
            _ => model.return_to(model.newest()),
        }
        let (newest, history) = (model.newest(), model.store.history());
        let read = history.get(newest).expect("read").expect("kept");
        assert_eq!(read.policy, model.of(newest).0, "{newest}");
        let previous = history.previous_document(newest).expect("read");
        assert_eq!(previous, model.previous(), "{newest}");
    }
    over.store(true, Ordering::Relaxed);
    dropping.join().expect("dropped");
    model.drop_old(&FIVE, LATER);
}

#[test]
fn age_number_and_size_say_what_goes() {
    let scratch = Scratch::new();
    let mut model = Model {
        store: scratch.open(),
        known: Vec::new(),
    };
    for _ in 0..30 {
        model.whole();
    }
    let later = |days: i64| TIME + SignedDuration::from_hours(24 * days);
    let month = Kept { days: 30, ..FIVE };
    assert_eq!(model.drop_old(&month, later(29)).len(), 30, "young");
    let small = Kept {
        revisions: 100,
        bytes: 20 << 10,
        ..month
    };
    let kept = model.drop_old(&small, later(0));
    assert!((20..30).contains(&kept.len()), "{kept:?}");
    assert_eq!(model.drop_old(&month, later(31)), [26, 27, 28, 29, 30]);
    // What a pending change returns to stays, and what was before that.
    let mut store = model.store;
    store.set_meta(PENDING, Some("30 27 x")).expect("kept");
    let one = Kept {
        revisions: 1,
        ..FIVE
    };
    let model = Model { store, ..model };
    assert_eq!(model.drop_old(&one, later(1)), [26, 27, 29, 30]);
    let mut store = model.store;
    store.set_meta(PENDING, None).expect("kept");
    let model = Model { store, ..model };
    assert_eq!(model.drop_old(&one, later(1)), [29, 30]);
}

#[test]
fn the_file_is_bounded_over_ten_thousand_changes() {
    let scratch = Scratch::new();
    let mut store = scratch.open();
    let mut largest = [0; 2];
    for n in 0..10_000_u32 {
        append(&mut store, &n.to_string(), &Arc::default(), &[]);
        if n % 50 == 0 {
            drop_old(store.history(), &FIVE, LATER).expect("dropped");
            let length = fs::metadata(scratch.file()).expect("a file").len();
            let half = usize::from(n >= 5000);
            largest[half] = length.max(largest[half]);
        }
    }
    assert!(
        largest[1] <= largest[0] && largest[0] < 1 << 20,
        "{largest:?}"
    );
}
