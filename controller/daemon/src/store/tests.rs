//! Stored data is complete again after every way to close and open the store.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

use wardline_policy::{
    document::{Document as Policy, diff::Extent, edit::Edit},
    quarantine::{Hold, Identity, Quarantine},
};
use wardline_proto::v1;

use super::*;

#[test]
fn keeps_revisions_and_numbers_across_opening() {
    let scratch = Scratch::new();
    let ids = Arc::new(Ids::from([
        (key("zone", "pumps"), 1),
        (key("rule", "a"), 7),
    ]));
    let fewer = Arc::new(Ids::from([(key("zone", "pumps"), 2)]));
    let mut store = scratch.open();
    assert_eq!(store.history().latest().expect("read"), None);
    assert_eq!(
        append(
            &mut store,
            "first",
            &ids,
            &[Fact::Meta("pending", Some("1"))]
        ),
        1
    );
    assert_eq!(append(&mut store, "second", &fewer, &[]), 2);
    assert_eq!(store.ids(), &fewer);
    drop(store);

    let mut store = scratch.open();
    assert_eq!(store.ids(), &fewer);
    let latest = store.history().latest().expect("read").expect("a revision");
    assert_eq!((latest.revision.revision, latest.revision.parent), (2, 1));
    assert_eq!(
        (latest.revision.time, latest.revision.actor.as_str()),
        (TIME, "uid 0")
    );
    assert_eq!(latest.policy, policy("second"));
    let first = store.history().get(1).expect("read").expect("a revision");
    assert_eq!(
        (first.policy, first.revision.reason.as_str()),
        (policy("first"), "first")
    );
    assert_eq!(store.history().get(3).expect("read"), None);
    assert_eq!(store.history().get(u64::MAX).expect("read"), None);
    let listed = |limit| {
        store
            .history()
            .list(limit)
            .expect("read")
            .iter()
            .map(|r| r.revision)
            .collect()
    };
    assert_eq!((listed(10), listed(1)), (vec![2, 1], vec![2]));
    assert_eq!(
        store.history().meta("pending").expect("read").as_deref(),
        Some("1")
    );
    store.set_meta("pending", None).expect("write");
    assert_eq!(store.history().meta("pending").expect("read"), None);
    assert_eq!(append(&mut store, "third", &fewer, &[]), 3);
}

#[test]
fn an_edit_keeps_only_itself_and_is_read_whole() {
    let scratch = Scratch::new();
    let mut store = scratch.open();
    let ids = Arc::default();
    append(&mut store, "first", &ids, &[]);
    let mut whole = policy("first");
    // More edits than a chain may have.
    for n in 0..LONGEST_CHAIN + 3 {
        let zone = v1::Zone {
            name: format!("zone-{n}"),
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
        whole.zones.push(zone);
        let edited = Document::Edited {
            edit: &edit,
            whole: &whole,
        };
        let parent = n as u64 + 1;
        let new = NewRevision {
            parent,
            document: edited,
            ..new("edit", &whole, &[])
        };
        assert_eq!(store.append(&new, &ids).expect("kept"), parent + 1);
        assert!(store.history().chain(parent + 1).expect("read").len() <= LONGEST_CHAIN);
    }
    drop(store);
    let store = scratch.open();
    assert_eq!(
        store.history().latest().expect("read").map(|it| it.policy),
        Some(whole)
    );
    let third = store
        .history()
        .get(3)
        .expect("read")
        .expect("a revision")
        .policy;
    assert_eq!(third.zones.len(), 3);
    assert_eq!(store.history().base(3).expect("read"), (2, false));
}

#[test]
fn what_was_in_force_before_is_another_document() {
    let scratch = Scratch::new();
    let mut store = scratch.open();
    let ids = Arc::default();
    append(&mut store, "first", &ids, &[]);
    append(&mut store, "second", &ids, &[]);
    let mut same = |of, parent, fact| {
        let whole = policy("unused");
        let facts = [fact];
        let new = NewRevision {
            parent,
            document: Document::Of(of),
            ..new("quarantine", &whole, &facts)
        };
        store.append(&new, &ids).expect("kept")
    };
    let identity = |text: &str| text.parse::<Identity>().expect("an identity");
    let camera = ["mac:02:00:00:00:02:01", "mac:02:00:00:00:02:02"].map(identity);
    let [pump, lan1, lan3] = ["address:10.1.0.11", "port:lan1", "port:lan3"].map(identity);
    let [pump, lan1, lan3] = [[pump], [lan1], [lan3]];
    let hold = Hold {
        name: "pump".to_owned(),
        actor: "uid:0".to_owned(),
        reason: "odd".to_owned(),
        since: TIME,
    };
    let cut = |identities| held(identities, Some(&hold));
    let freed = |identities| held(identities, None);
    assert_eq!(same(2, 2, cut(&camera)), 3);
    assert_eq!(same(3, 3, cut(&pump)), 4);
    assert_eq!(same(4, 4, freed(&camera)), 5);
    assert_eq!(same(1, 5, Fact::Grant("fix", TIME)), 6);
    for (revision, fact) in [(7, cut(&lan1)), (8, cut(&lan3)), (9, freed(&lan1))] {
        assert_eq!(same(1, revision - 1, fact), revision);
    }
    for (of, before) in [(1, 0), (2, 1), (3, 1), (5, 1), (6, 5)] {
        assert_eq!(
            store.history().previous_document(of).expect("read"),
            before,
            "{of}"
        );
    }
    drop(store);
    let store = scratch.open();
    let [[pump], [lan3]] = [pump, lan3];
    let kept: Quarantine = [(pump, hold.clone()), (lan3, hold)].into_iter().collect();
    assert_eq!(*store.quarantined(), kept);
    let subject = |revision| store.history().subject(revision).expect("read");
    assert_eq!(subject(4).as_deref(), Some("device/x"));
    assert_eq!((subject(2), subject(6)), (None, None));
    assert!(store.grants().contains(&("fix".to_owned(), TIME)) && store.grants().len() == 1);
    let documents = |revision| {
        store
            .history()
            .get(revision)
            .expect("read")
            .map(|it| it.policy)
    };
    assert_eq!(documents(5), Some(policy("second")));
    assert_eq!(documents(6), Some(policy("first")));
}

#[test]
fn reads_beside_changes() {
    let scratch = Scratch::new();
    let mut store = scratch.open();
    append(&mut store, "first", &Arc::default(), &[]);
    let history = store.history().clone();
    let reading = std::thread::spawn(move || {
        let mut seen = 0;
        // Ends after the last revision; there are more than one statement reads.
        while seen < 600 {
            let listed = history.list(u32::MAX).expect("read");
            let numbers: Vec<u64> = listed.iter().map(|it| it.revision).collect();
            assert!(numbers.len() >= seen, "{numbers:?}");
            seen = numbers.len();
            assert_eq!(numbers, (1..=seen as u64).rev().collect::<Vec<_>>());
            let some = history.list(300).expect("read").len();
            assert!((seen.min(300)..=300).contains(&some), "{some} of {seen}");
            let newest = history.get(numbers[0]).expect("read").expect("kept");
            assert_eq!(newest.policy.version, 1);
        }
    });
    for n in 1..600 {
        append(&mut store, &n.to_string(), &Arc::default(), &[]);
    }
    reading.join().expect("read");
}

#[test]
fn takes_over_a_history_of_the_first_schema() {
    let scratch = Scratch::new();
    fs::create_dir(&scratch.0).expect("a directory");
    let old = Connection::open(scratch.file()).expect("a database");
    old.execute_batch(schema::TABLES).expect("tables");
    old.execute("INSERT INTO meta VALUES ('schema', '1')", [])
        .expect("a schema");
    let document = policy("old").encode_to_vec();
    old.execute(
        "INSERT INTO revisions VALUES (1, 0, ?1, 'uid:0', '', 'apply', '', ?2)",
        params![TIME.to_string(), document],
    )
    .expect("a revision");
    drop(old);
    let mut store = scratch.open();
    assert_eq!(
        store.history().get(1).expect("read").expect("kept").policy,
        policy("old")
    );
    assert_eq!(append(&mut store, "new", &Arc::default(), &[]), 2);
    drop(store);
    assert_eq!(scratch.open().history().list(10).expect("read").len(), 2);
}

#[test]
fn who_was_in_quarantine_by_name_stays_so_by_mac() {
    for schema in [2, 3] {
        let scratch = Scratch::new();
        fs::create_dir(&scratch.0).expect("a directory");
        let old = Connection::open(scratch.file()).expect("a database");
        old.execute_batch(schema::TABLES).expect("tables");
        old.execute_batch(schema::EDITS).expect("tables");
        let mut document = policy("old");
        document.devices = vec![v1::Device {
            name: "pump".to_owned(),
            macs: vec!["02-00-00-00-01-0A".to_owned()],
            ..Default::default()
        }];
        old.execute(
            "INSERT INTO revisions VALUES (1, 0, ?1, 'uid:7', 'odd', 'apply', '', ?2, 0, 0, 0, 0)",
            params![TIME.to_string(), document.encode_to_vec()],
        )
        .expect("a revision");
        let schema = schema.to_string();
        old.execute("INSERT INTO meta VALUES ('schema', ?1)", [&schema])
            .expect("a schema");
        old.execute(
            "INSERT INTO quarantined VALUES ('pump', 1), ('gone', 1)",
            [],
        )
        .expect("a quarantine");
        if schema == "3" {
            old.execute_batch(schema::PORTS).expect("tables");
            old.execute("INSERT INTO quarantined_ports VALUES ('lan9', 1)", [])
                .expect("a quarantine");
        }
        drop(old);
        let mut store = scratch.open();
        let lan3 = ["port:lan3".parse::<Identity>().expect("an identity")];
        let hold = Hold::named("lan3");
        append(
            &mut store,
            "new",
            &Arc::default(),
            &[held(&lan3, Some(&hold))],
        );
        drop(store);
        let store = scratch.open();
        let held = store.quarantined().iter();
        let held: Vec<String> = held.map(|(it, _)| it.to_string()).collect();
        let mut expected = vec!["mac:02:00:00:00:01:0a", "device:gone", "port:lan3"];
        if schema == "3" {
            expected.push("port:lan9");
        }
        assert_eq!(held, expected, "schema {schema}");
        let mac = "mac:02:00:00:00:01:0a".parse().expect("an identity");
        let hold = store.quarantined().get(&mac).expect("a hold");
        assert_eq!(
            (hold.actor.as_str(), hold.reason.as_str(), hold.since),
            ("uid:7", "odd", TIME)
        );
    }
}

fn held<'a>(identities: &'a [Identity], hold: Option<&'a Hold>) -> Fact<'a> {
    Fact::Held(Held {
        subject: "device/x",
        identities,
        hold,
    })
}

#[test]
fn only_its_owner_may_read_it() {
    let scratch = Scratch::new();
    let mut store = scratch.open();
    append(&mut store, "first", &Arc::default(), &[]);
    let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(&scratch.0), 0o700);
    for entry in fs::read_dir(&scratch.0).expect("there") {
        assert_eq!(mode(&entry.expect("there").path()), 0o600);
    }
}

#[test]
fn refuses_a_second_daemon() {
    let scratch = Scratch::new();
    let _store = scratch.open();
    assert!(matches!(Store::open(&scratch.0), Err(StoreError::InUse(_))));
}

#[test]
fn refuses_a_newer_schema() {
    let scratch = Scratch::new();
    scratch.open().set_meta("schema", Some("5")).expect("write");
    let error = Store::open(&scratch.0).expect_err("must be refused");
    assert!(
        matches!(error, StoreError::Newer { found: 5, .. }),
        "{error}"
    );
}

#[test]
fn refuses_the_database_of_another_program() {
    let scratch = Scratch::new();
    fs::create_dir(&scratch.0).expect("a directory");
    let other = Connection::open(scratch.file()).expect("a database");
    other
        .execute_batch("CREATE TABLE shoes (size INTEGER)")
        .expect("a table");
    drop(other);
    assert_damaged(Store::open(&scratch.0));
}

#[test]
fn tells_of_a_damaged_file() {
    let scratch = Scratch::new();
    let mut store = scratch.open();
    for n in 0..200 {
        append(&mut store, &format!("{n}"), &Arc::default(), &[]);
    }
    drop(store);
    let whole = fs::read(scratch.file()).expect("the file");
    assert!(whole.len() > 16 * 4096);

    fs::write(scratch.file(), &whole[..whole.len() / 2]).expect("written");
    assert_damaged(Store::open(&scratch.0));
    fs::write(
        scratch.file(),
        "no database, but long enough for one ".repeat(200),
    )
    .expect("written");
    assert_damaged(Store::open(&scratch.0));
    let mut spoilt = whole.clone();
    spoilt[3 * 4096..5 * 4096].fill(0xa5);
    fs::write(scratch.file(), &spoilt).expect("written");
    assert_damaged(Store::open(&scratch.0));
    fs::write(scratch.file(), &whole).expect("written");
    assert_eq!(
        scratch.open().history().list(1000).expect("read").len(),
        200
    );
}

#[test]
fn a_failed_append_leaves_nothing() {
    let scratch = Scratch::new();
    let mut store = scratch.open();
    append(&mut store, "first", &Arc::default(), &[]);
    store
        .history
        .with(|connection| connection.execute_batch("DROP TABLE ids"))
        .expect("dropped");
    let ids = Arc::new(Ids::from([(key("zone", "pumps"), 1)]));
    let policy = policy("second");
    let new = new("second", &policy, &[]);
    assert!(store.append(&new, &ids).is_err());
    assert_eq!(store.history().list(10).expect("read").len(), 1);
    assert_eq!(store.ids(), &Arc::default());
}

#[test]
fn an_empty_file_is_damage_when_something_tells_of_a_history() {
    let scratch = Scratch::new();
    fs::create_dir(&scratch.0).expect("a directory");
    let history = History::away(&scratch.0);
    assert!(matches!(history.list(1), Err(StoreError::Away(_))));
    for _ in 0..2 {
        let opened = Store::open_known(&history, Some("the audit tells of revision 7"));
        let error = opened.expect_err("must be refused").to_string();
        assert!(
            error.contains("and the audit tells of revision 7"),
            "{error}"
        );
        fs::write(scratch.0.join("wardline.db"), "").expect("an empty file");
    }
    let store = Store::open_known(&history, None).expect("a history");
    assert_eq!(history.list(1).expect("read"), []);
    drop(store);
    assert!(
        history.list(1).is_ok(),
        "open for as long as somebody reads"
    );
    history.close();
    assert!(matches!(history.list(1), Err(StoreError::Away(_))));
    assert!(Store::open_known(&history, Some("the audit")).is_ok());
}

#[test]
fn a_change_that_has_a_number_keeps_it_and_later_ones_follow() {
    let scratch = Scratch::new();
    let mut store = scratch.open();
    let policy = policy("kept");
    let mut append = |number, parent| {
        let new = NewRevision {
            number,
            parent,
            ..new("late", &policy, &[])
        };
        store.append(&new, &Arc::default())
    };
    assert_eq!(append(Some(7), 0).expect("kept"), 7);
    assert_eq!(append(None, 7).expect("kept"), 8);
    assert!(append(Some(7), 8).is_err(), "a revision is never changed");
    let enforced = store.enforced().expect("read").expect("a revision");
    assert_eq!((enforced.revision, &*enforced.policy), (8, &policy));
}

pub(super) const TIME: Timestamp = Timestamp::constant(1_790_000_000, 5);

pub(super) fn append(store: &mut Store, name: &str, ids: &Arc<Ids>, facts: &[Fact<'_>]) -> u64 {
    let parent = store
        .history()
        .latest()
        .expect("read")
        .map_or(0, |latest| latest.revision.revision);
    let policy = policy(name);
    let new = NewRevision {
        parent,
        ..new(name, &policy, facts)
    };
    store.append(&new, ids).expect("kept")
}

pub(super) fn new<'a>(
    reason: &'a str,
    policy: &'a Policy,
    facts: &'a [Fact<'a>],
) -> NewRevision<'a> {
    NewRevision {
        number: None,
        parent: 0,
        time: TIME,
        actor: "uid 0",
        reason,
        kind: "apply",
        request_id: "r-1",
        document: Document::Whole(policy),
        extent: Extent::default(),
        facts,
    }
}

pub(super) fn policy(name: &str) -> Policy {
    let zone = v1::Zone {
        name: name.to_owned(),
        description: "of some length, so that pages fill. ".repeat(20),
        ..Default::default()
    };
    Policy {
        version: 1,
        zones: vec![zone],
        ..Default::default()
    }
}

fn key(kind: &str, name: &str) -> (String, String) {
    (kind.to_owned(), name.to_owned())
}

fn assert_damaged(opened: Result<Store, StoreError>) {
    let error = opened.expect_err("must be refused");
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    assert!(
        error
            .to_string()
            .contains("wardline.db: damaged or not a history"),
        "{error}"
    );
}

/// A directory of one test.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    pub(super) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("wardline-store-{}-{count}", std::process::id());
        Self(env::temp_dir().join(name))
    }

    pub(super) fn open(&self) -> Store {
        Store::open(&self.0).expect("a history")
    }

    pub(super) fn file(&self) -> PathBuf {
        self.0.join("wardline.db")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).expect("removed");
    }
}

#[test]
fn grants_that_ended_first_are_forgotten_first() {
    let end = |at: usize| TIME + jiff::SignedDuration::from_secs(at as i64);
    let mut grants = BTreeSet::new();
    for at in 0..MOST_GRANTS + 2 {
        add_grant(&mut grants, &format!("g{}", at % 7), end(at));
    }
    assert_eq!(grants.len(), MOST_GRANTS);
    let first = grants.iter().map(|(_, expires)| *expires).min();
    assert_eq!(first, Some(end(2)));
}
