//! What is had back of databases with damaged pages, and of backups.

use std::{
    env, fs,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

use jiff::Timestamp;
use wardline_policy::{
    document::diff::Extent,
    quarantine::{Hold, Identity},
};
use wardline_proto::{backup::Summary, v1};

use super::*;
use crate::store::{
    backup,
    rebuild::{Last, Rebuild},
    restore,
    revision::{Document, Fact, Held, NewRevision},
};

struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = format!("wardline-salvage-{}-{number}", std::process::id());
        let path = env::temp_dir().join(name);
        fs::create_dir(&path).expect("a directory");
        Self(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("wardline.db")
    }

    /// A database of so many revisions, each with a document of its own; the last one cuts a device
    /// off.
    fn filled(revisions: u64) -> Self {
        let scratch = Self::new();
        let mut store = Store::open(&scratch.0).expect("a store");
        let camera = [Identity::Device("camera".to_owned())];
        let hold = Hold::named("camera");
        for revision in 1..=revisions {
            let policy = policy(revision);
            let cut = [Fact::Held(Held {
                subject: "device/camera",
                identities: &camera,
                hold: Some(&hold),
            })];
            let new = NewRevision {
                number: None,
                parent: revision - 1,
                time: Timestamp::UNIX_EPOCH,
                actor: "uid:0",
                reason: "",
                kind: "apply",
                request_id: "",
                document: Document::Whole(&policy),
                extent: Extent::default(),
                facts: if revision == revisions { &cut } else { &[] },
            };
            store.append(&new, &Arc::default()).expect("kept");
        }
        scratch
    }

    fn salvage(&self) -> Salvage {
        match look(&self.0).expect("no daemon") {
            Database::There(salvage) => salvage,
            _ => panic!("there is a database"),
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn policy(revision: u64) -> Policy {
    Policy {
        version: 1,
        zones: vec![v1::Zone {
            name: format!("zone-{revision}"),
            description: "x".repeat(500),
            ..v1::Zone::default()
        }],
        ..Policy::default()
    }
}

fn last(number: u64) -> Last<'static> {
    Last {
        number,
        kind: "recover",
        actor: "uid:0",
        reason: "a test",
    }
}

#[test]
fn a_whole_database_is_left_as_it_is() {
    let scratch = Scratch::filled(3);
    let before = fs::read(scratch.file()).expect("a file");
    let salvage = scratch.salvage();
    assert_eq!((salvage.damage.as_deref(), salvage.lost), (None, 0));
    assert_eq!(salvage.readable, [1, 2, 3].into());
    let (in_force, known) = salvage.in_force().expect("a policy");
    assert!(known && in_force.quarantined.len() == 1);
    assert_eq!((in_force.revision, &*in_force.policy), (3, &policy(3)));
    drop(salvage);
    assert_eq!(fs::read(scratch.file()).expect("a file"), before);
}

#[test]
fn what_is_damaged_is_told_and_the_rest_is_had_back() {
    let scratch = Scratch::filled(200);
    let whole = fs::read(scratch.file()).expect("a file");
    let pages = whole.len() / 4096;
    for page in 3..pages {
        let mut spoilt = whole.clone();
        spoilt[page * 4096..(page + 1) * 4096].fill(0xa5);
        fs::write(scratch.file(), &spoilt).expect("written");
        let salvage = scratch.salvage();
        let read = salvage.readable.len();
        assert!(read >= 150, "page {page} of {pages}: {read}");
        let in_force = salvage.in_force();
        let mut rebuild = Rebuild::begin(&scratch.0).expect("a beginning");
        salvage.rows(|row| rebuild.keep(row)).expect("kept");
        drop(salvage);
        let (in_force, _) = in_force.expect("a policy");
        let (in_force, aside) = rebuild.finish(in_force, &last(201)).expect("an end");
        assert_eq!(in_force.revision, 201);
        let aside = aside.expect("the old file");
        assert_eq!(fs::read(aside.join("wardline.db")).expect("there"), spoilt);
        let store = Store::open(&scratch.0).expect("a whole database");
        let listed = store.history().list(1000).expect("read");
        assert_eq!(listed.len(), read + 1);
        for revision in listed {
            let stored = store.history().get(revision.revision).expect("read");
            assert!(stored.is_some());
            store
                .history()
                .previous_document(revision.revision)
                .expect("no way leads to what is lost");
        }
        fs::remove_dir_all(aside).expect("removed");
    }
}

#[test]
fn what_is_no_database_is_told() {
    let scratch = Scratch::new();
    assert!(matches!(look(&scratch.0), Ok(Database::Gone)));
    fs::write(scratch.file(), "").expect("written");
    assert!(matches!(look(&scratch.0), Ok(Database::Empty)));
    fs::write(scratch.file(), "no database at all ".repeat(500)).expect("written");
    assert!(matches!(look(&scratch.0), Ok(Database::Unreadable(_))));
    fs::remove_file(scratch.file()).expect("removed");
    let store = Store::open(&scratch.0).expect("a store");
    assert!(matches!(look(&scratch.0), Err(StoreError::InUse(_))));
    drop(store);
    assert!(scratch.salvage().is_new());
}

#[test]
fn a_backup_is_restored_whole_or_not_at_all() {
    let scratch = Scratch::filled(5);
    let store = Store::open(&scratch.0).expect("a store");
    let in_force = store.enforced().expect("read").expect("a policy");
    let mut bytes = Vec::new();
    let listens = |piece: Vec<u8>| {
        bytes.extend(piece);
        true
    };
    backup::make(store.history(), Summary::default(), &in_force, listens).expect("a backup");
    let target = Scratch::new();
    let file = target.0.join("backup");
    let mut wrong = bytes.clone();
    wrong[1500] ^= 1;
    fs::write(&file, &wrong).expect("written");
    let mut rebuild = Rebuild::begin(&target.0).expect("a beginning");
    assert!(restore::fill(&mut rebuild, &file).is_err());
    assert!(matches!(look(&target.0), Ok(Database::Gone)));

    fs::write(&file, &bytes).expect("written");
    let mut rebuild = Rebuild::begin(&target.0).expect("a beginning again");
    let (_, read) = restore::fill(&mut rebuild, &file).expect("filled");
    assert_eq!(read, in_force);
    let (_, aside) = rebuild.finish(read, &last(9)).expect("an end");
    assert_eq!(aside, None);
    let restored = Store::open(&target.0).expect("a store");
    let numbers: Vec<u64> = restored
        .history()
        .list(100)
        .expect("read")
        .iter()
        .map(|it| it.revision)
        .collect();
    assert_eq!(numbers, [9, 5, 4, 3, 2, 1]);
    let enforced = restored.enforced().expect("read").expect("a policy");
    assert_eq!(
        enforced,
        Enforced {
            revision: 9,
            ..in_force
        }
    );
    assert_eq!(restored.history().next().expect("read"), 10);
}

#[test]
fn a_backup_notices_that_the_oldest_revisions_go() {
    let scratch = Scratch::filled(5);
    let store = Store::open(&scratch.0).expect("a store");
    let in_force = store.enforced().expect("read").expect("a policy");
    let history = store.history().clone();
    let made = backup::make(&history, Summary::default(), &in_force, |_| {
        let gone = "DELETE FROM revisions WHERE revision = 1";
        history
            .with(|connection| connection.execute_batch(gone))
            .expect("gone");
        true
    });
    assert!(matches!(made, Err(StoreError::Changed(_))), "{made:?}");
}
