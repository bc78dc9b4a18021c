//! Copies that were cut, changed, or written half, and what is believed of them.

use std::sync::atomic::{AtomicU32, Ordering};

use super::{
    super::{owed::Cut, revision::Held},
    *,
};

struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = format!("wardline-enforced-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).expect("a directory");
        Self(path)
    }

    fn found(&self) -> Found {
        Copies::read(&self.0).1
    }

    /// Writes these revisions, one after the other.
    fn write(&self, revisions: &[u64]) {
        let (mut copies, _) = Copies::read(&self.0);
        for revision in revisions {
            copies.write(&of(*revision)).expect("a copy");
        }
    }

    /// The path of the copy of a revision, when revisions began with 1.
    fn copy(&self, revision: u64) -> PathBuf {
        self.0.join("enforced").join((revision % 2).to_string())
    }

    fn revision(&self) -> Option<u64> {
        self.found().enforced.map(|it| it.revision)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn of(revision: u64) -> Enforced {
    let policy = Policy {
        version: 1,
        ..Policy::default()
    };
    let names = |names: &[&str]| names.iter().map(|it| (*it).to_owned()).collect();
    let ids: Ids = [(("device".to_owned(), "pump".to_owned()), 7)].into();
    let lan2 = [Identity::Port("lan2".to_owned())];
    let pump: Identity = "mac:02:00:00:00:01:01".parse().expect("an identity");
    let hold = Hold {
        actor: "uid:0".to_owned(),
        reason: "odd".to_owned(),
        ..Hold::named("pump")
    };
    Enforced {
        revision,
        policy: Arc::new(policy.clone()),
        ids: Arc::new(ids),
        quarantined: [(pump, hold.clone()), (lan2[0].clone(), hold.clone())]
            .into_iter()
            .collect(),
        grants: [("fix".to_owned(), Timestamp::UNIX_EPOCH)].into(),
        pending: Some(format!("{revision} 1 2026-01-01T00:00:00Z 60")),
        previous: Some(Arc::new(policy)),
        guarded: names(&["lan1", "lan2"]),
        owed: vec![Owed {
            revision,
            cut: Some(Cut::new(Held {
                subject: "port/lan2",
                identities: &lan2,
                hold: Some(&hold),
            })),
            ..Owed::default()
        }],
    }
}

#[test]
fn what_was_written_is_read_and_the_newest_counts() {
    let scratch = Scratch::new();
    assert_eq!(scratch.revision(), None);
    for revision in 1..=5 {
        scratch.write(&[revision]);
        assert_eq!(scratch.found().enforced, Some(of(revision)));
    }
    assert!(scratch.found().problems.is_empty());
    let whom = scratch.found().enforced.map(|it| it.owed[0].cut.clone());
    let whom = whom.flatten();
    let whom = whom.map(|cut| (cut.subject(), cut.identities()));
    let lan2 = Identity::Port("lan2".to_owned());
    assert_eq!(whom, Some(("port/lan2".to_owned(), vec![lan2])));
}

#[test]
fn a_copy_of_an_earlier_version_has_names_and_the_document_tells_whose_they_are() {
    let device = wardline_proto::v1::Device {
        name: "pump".to_owned(),
        macs: vec!["02:00:00:00:01:01".to_owned()],
        ..Default::default()
    };
    let policy = Policy {
        version: 1,
        devices: vec![device],
        ..Policy::default()
    };
    let earlier = Message {
        revision: 7,
        policy: policy.encode_to_vec(),
        devices: vec!["pump".to_owned(), "gone".to_owned()],
        ports: vec!["lan2".to_owned()],
        ..Message::default()
    };
    let read = earlier.into_enforced().expect("a copy");
    let held = read.quarantined.iter();
    let held: Vec<String> = held.map(|(it, _)| it.to_string()).collect();
    assert_eq!(held, ["mac:02:00:00:00:01:01", "device:gone", "port:lan2"]);
    // An earlier version that reads the copy of this one finds the names.
    let message = Message::of(&read);
    assert_eq!(message.devices, ["pump", "gone"]);
    assert_eq!(message.ports, ["lan2"]);
}

#[test]
fn the_same_is_not_written_twice() {
    let scratch = Scratch::new();
    scratch.write(&[1, 2]);
    let before = fs::read(scratch.copy(1)).expect("a copy");
    scratch.write(&[2, 2]);
    assert_eq!(fs::read(scratch.copy(1)).expect("a copy"), before);
}

#[test]
fn a_torn_copy_gives_way_to_the_one_before() {
    let scratch = Scratch::new();
    scratch.write(&[1, 2]);
    let whole = fs::read(scratch.copy(2)).expect("a copy");
    for length in 0..whole.len() {
        fs::write(scratch.copy(2), &whole[..length]).expect("a shorter copy");
        let found = scratch.found();
        assert_eq!(found.enforced, Some(of(1)), "{length} bytes");
        assert_eq!(found.problems.len(), 1, "{length} bytes");
    }
    // What follows is not believed either.
    fs::write(scratch.copy(2), [&whole[..], b"x"].concat()).expect("a longer copy");
    assert_eq!(scratch.revision(), Some(1));
}

#[test]
fn a_flipped_bit_anywhere_is_noticed() {
    let scratch = Scratch::new();
    scratch.write(&[1, 2]);
    let whole = fs::read(scratch.copy(2)).expect("a copy");
    for bit in 0..whole.len() * 8 {
        let mut flipped = whole.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        fs::write(scratch.copy(2), &flipped).expect("a damaged copy");
        assert_eq!(scratch.revision(), Some(1), "bit {bit}");
    }
}

#[test]
fn another_version_is_told_and_not_read() {
    let scratch = Scratch::new();
    scratch.write(&[1]);
    let mut newer = fs::read(scratch.copy(1)).expect("a copy");
    newer[7] = b'2';
    fs::write(scratch.copy(1), &newer).expect("a newer copy");
    let found = scratch.found();
    assert_eq!(found.enforced, None);
    let told = found.problems[0].to_string();
    assert!(
        told.contains("has format 002, this wardlined knows 001"),
        "{told}"
    );
    // The names of the ports are known all the same.
    assert!(found.guarded.contains("lan1") && found.guarded.contains("lan2"));
}

#[test]
fn what_was_left_of_a_write_is_no_copy() {
    let scratch = Scratch::new();
    scratch.write(&[1, 2]);
    fs::write(scratch.0.join("enforced/1.next"), b"half").expect("a left-over");
    assert_eq!(scratch.revision(), Some(2));
    scratch.write(&[3]);
    assert_eq!(scratch.revision(), Some(3));
    assert!(!scratch.0.join("enforced/1.next").exists());
}

#[test]
fn after_a_write_that_failed_both_generations_are_there() {
    let scratch = Scratch::new();
    scratch.write(&[1, 2]);
    // A folder in place of the file that is written first.
    fs::create_dir(scratch.0.join("enforced/1.next")).expect("a folder");
    let (mut copies, _) = Copies::read(&scratch.0);
    assert!(copies.write(&of(3)).is_err());
    assert_eq!(scratch.revision(), Some(2));
    fs::remove_dir(scratch.0.join("enforced/1.next")).expect("gone");
    copies.write(&of(3)).expect("a copy");
    assert_eq!(scratch.revision(), Some(3));
}

#[test]
fn a_damaged_list_of_ports_closes_no_others() {
    let names = names_of(b"lan1\n\nlan/2\na name of more than 15\n\xff\xfe\nlan 3\nlan4");
    let expected: BTreeSet<String> = ["lan1", "lan4"].map(str::to_owned).into();
    assert_eq!(names, expected);
}
