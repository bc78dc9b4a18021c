//! The chain over restarts, crashes, tampering and rotation.

use std::sync::atomic::{AtomicU32, Ordering};

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
};

use wardline_proto::audit::{self, Check};

use super::{log::read_head, *};

/// A few records each.
const KEEP: Segments = Segments {
    bytes: 4096,
    count: 3,
};

struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = format!("wardline-audit-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).expect("a directory");
        Self(path)
    }

    fn audit(&self) -> Audit {
        let audit = Audit::closed(&self.0, Segments::default());
        audit.open().expect("an audit");
        audit
    }

    /// An audit with segments of a few records each.
    fn small(&self) -> Audit {
        let audit = Audit::closed(&self.0, KEEP);
        audit.open().expect("an audit");
        audit
    }

    /// The older segments.
    fn older(&self) -> Vec<PathBuf> {
        let older = segments::list(&self.0).expect("the segments");
        older.into_iter().map(|it| it.path).collect()
    }

    /// What is wrong with the records in all segments, and how many there are.
    fn whole(&self) -> (Vec<String>, usize) {
        let mut check = Check::with(read_head(&self.file()).expect("a head"));
        let mut count = 0;
        for path in self.older().into_iter().chain([self.file()]) {
            let text = fs::read_to_string(path).unwrap_or_default();
            text.lines().for_each(|line| check.line(line));
            count += text.lines().count();
        }
        (check.end(), count)
    }

    fn copy(&self) -> Self {
        let copy = Self::new();
        for entry in fs::read_dir(&self.0).expect("the files") {
            let path = entry.expect("a file").path();
            fs::copy(&path, copy.0.join(path.file_name().expect("a name"))).expect("a copy");
        }
        copy
    }

    fn file(&self) -> PathBuf {
        self.0.join("audit.jsonl")
    }

    fn lines(&self) -> Vec<String> {
        let text = fs::read_to_string(self.file()).expect("the records");
        text.lines().map(str::to_owned).collect()
    }

    fn findings(&self) -> Vec<String> {
        let mut check = Check::with(read_head(&self.file()).expect("a head"));
        self.lines().iter().for_each(|line| check.line(line));
        check.end()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn done(n: u64) -> Record {
    Record {
        actor: "uid:0".to_owned(),
        outcome: OK.to_owned(),
        after: Some(n),
        ..Record::default()
    }
}

fn refused(actor: &str) -> Record {
    Record {
        actor: actor.to_owned(),
        outcome: "permission_denied".to_owned(),
        ..Record::default()
    }
}

#[test]
fn the_chain_goes_on_over_restarts() {
    let directory = Directory::new();
    for n in 0..3 {
        directory.audit().keep(done(n));
    }
    assert_eq!(
        (directory.lines().len(), directory.findings().len()),
        (3, 0)
    );
}

#[test]
fn half_a_record_of_a_crash_goes_and_the_rest_stays() {
    let directory = Directory::new();
    let audit = directory.audit();
    audit.keep(done(1));
    audit.keep(done(2));
    drop(audit);
    let mut file = OpenOptions::new()
        .append(true)
        .open(directory.file())
        .expect("a file");
    file.write_all(b"{\"sequence\":3,").expect("a write");
    directory.audit().keep(done(3));
    assert_eq!(
        (directory.lines().len(), directory.findings().len()),
        (3, 0)
    );
}

#[test]
fn a_record_whose_head_was_not_remembered_yet_is_no_tampering() {
    let directory = Directory::new();
    directory.audit().keep(done(1));
    let head = fs::read(directory.0.join("audit.head")).expect("a head");
    directory.audit().keep(done(2));
    fs::write(directory.0.join("audit.head"), head).expect("the head before");
    directory.audit().keep(done(3));
    assert_eq!(
        (directory.lines().len(), directory.findings().len()),
        (3, 0)
    );
}

#[test]
fn what_is_cut_off_stays_missing() {
    for running in [false, true] {
        let directory = Directory::new();
        let mut audit = directory.audit();
        for n in 0..4 {
            audit.keep(done(n));
        }
        let lines = directory.lines();
        // Within the third line.
        let cut = lines[0].len() + lines[1].len() + 2 + 40;
        let file = OpenOptions::new()
            .write(true)
            .open(directory.file())
            .expect("a file");
        file.set_len(cut as u64).expect("a shorter file");
        assert!(directory.findings().iter().any(|it| it.contains("missing")));
        if !running {
            audit = directory.audit();
        }
        audit.keep(done(9));
        let found = directory.findings().join("; ");
        assert!(found.contains("records 3 to 4 are missing"), "{found}");
        audit.keep(done(10));
        assert_eq!(directory.findings().join("; "), found, "nothing new");
    }
}

#[test]
fn a_file_that_is_gone_or_replaced_is_missed() {
    let directory = Directory::new();
    let audit = directory.audit();
    audit.keep(done(1));
    fs::remove_file(directory.file()).expect("gone");
    audit.keep(done(2));
    assert_eq!(directory.findings(), ["line 1: record 1 is missing"]);
    fs::rename(directory.file(), directory.0.join("elsewhere")).expect("moved");
    fs::write(directory.file(), "").expect("another");
    directory.audit().keep(done(3));
    assert_eq!(directory.findings(), ["line 1: records 1 to 2 are missing"]);
}

#[test]
fn who_is_refused_all_the_time_does_not_fill_the_disk() {
    let directory = Directory::new();
    let audit = directory.audit();
    for _ in 0..1000 {
        audit.keep(refused("cert:loud"));
    }
    audit.keep(refused("cert:other"));
    audit.keep(done(1));
    let own = directory.lines().len();
    assert!(own < 120, "{own} records");
    assert!(directory.lines()[own - 2].contains("cert:other"));
    audit.record_refusals();
    let lines = directory.lines();
    let records = lines.iter().filter_map(|line| audit::read(line));
    let loud = records.filter(|(record, _)| record.actor == "cert:loud");
    let told: u64 = loud.map(|(record, _)| 1 + record.more).sum();
    assert_eq!(told, 1000, "none is lost");
    assert_eq!(directory.findings(), [""; 0]);
}

#[test]
fn what_can_not_be_written_waits_and_is_told() {
    let directory = Directory::new();
    let audit = directory.audit();
    // A folder in place of the file, so that nothing can be appended.
    fs::remove_file(directory.file()).expect("gone");
    fs::create_dir(directory.file()).expect("a folder");
    audit.keep(done(1));
    assert!(audit.ready().is_err());
    fs::remove_dir(directory.file()).expect("gone again");
    assert!(audit.ready().is_ok());
    assert_eq!(
        (directory.lines().len(), directory.findings().len()),
        (1, 0)
    );
}

#[test]
fn what_is_kept_before_it_is_open_is_written_then() {
    let directory = Directory::new();
    directory.audit().keep(done(1));
    let audit = Audit::closed(&directory.0, Segments::default());
    audit.keep(done(2));
    assert!(audit.ready().is_err() && audit.has_room());
    assert_eq!(directory.lines().len(), 1);
    audit.open().expect("an audit");
    assert!(audit.ready().is_ok());
    assert_eq!(
        (directory.lines().len(), directory.findings().len()),
        (2, 0)
    );
    assert_eq!(
        (audit.revision(), Audit::tells_of(&directory.0)),
        (2, Some(2))
    );
}

#[test]
fn a_long_reason_is_cut_between_characters() {
    let directory = Directory::new();
    directory.audit().keep(Record {
        reason: "ä".repeat(5000),
        ..done(1)
    });
    assert!(directory.lines()[0].len() < 4000);
    assert_eq!(directory.findings(), [""; 0]);
}

/// Keeps records until a segment is begun that makes the oldest one go; a copy of the files before
/// that, and the number of the last record.
fn rotated(directory: &Directory) -> (Directory, u64) {
    let audit = directory.small();
    for n in 1.. {
        let (copy, older) = (directory.copy(), directory.older());
        audit.keep(done(n));
        if older.len() == 2 && older != directory.older() {
            return (copy, n);
        }
    }
    unreachable!("one of them begins a segment")
}

#[test]
fn segments_are_one_chain_and_the_oldest_go() {
    let directory = Directory::new();
    let audit = directory.small();
    let mut seen = Vec::new();
    for n in 1..=100 {
        audit.keep(done(n));
        seen.extend(directory.lines().last().cloned());
        assert!(directory.older().len() < 3);
        for path in directory.older() {
            let length = fs::metadata(path).expect("a segment").len();
            assert!((4096..5000).contains(&length), "{length}");
        }
    }
    assert_eq!(directory.older().len(), 2);
    let (findings, count) = directory.whole();
    assert_eq!(findings, [""; 0]);
    assert!((20..40).contains(&count), "{count} records");
    // Also over a restart, and the newest revision is known.
    let audit = directory.small();
    assert_eq!(audit.revision(), 100);
    audit.keep(done(101));
    assert_eq!(directory.whole().0, [""; 0]);
    // Reading begins in the segment that has the first of them.
    let told = |limit| {
        let mut told = Vec::new();
        let listens = |entry| {
            told.push(entry);
            true
        };
        audit.tell(limit, listens).expect("the records");
        assert!(matches!(told.pop(), Some(Entry::Head(_))));
        told
    };
    let all = told(0);
    assert_eq!(all.len(), directory.whole().1);
    for limit in [1, 5, 15, all.len() - 1, all.len(), 1000] {
        let newest = &all[all.len().saturating_sub(limit)..];
        assert_eq!(told(limit as u32), newest, "{limit}");
    }
    // A stop in the middle.
    let mut count = 0;
    let stops = |_| {
        count += 1;
        count < 3
    };
    audit.tell(0, stops).expect("the records");
    assert_eq!(count, 3);
}

#[test]
fn a_crash_while_a_segment_begins_loses_nothing() {
    let directory = Directory::new();
    let (before, last) = rotated(&directory);
    let first_line = directory.lines()[0].clone();
    let [oldest, full] = [0, 1].map(|number| {
        let path = &directory.older()[number];
        PathBuf::from(path.file_name().expect("a name"))
    });
    type Crash<'a> = (&'a str, &'a dyn Fn(&Directory));
    let crashes: [Crash<'_>; 5] = [
        ("nothing was done", &|_| {}),
        ("the full file has its name", &|there| {
            fs::rename(there.file(), there.0.join(&full)).expect("a rename");
        }),
        ("an empty file is there", &|there| {
            fs::rename(there.file(), there.0.join(&full)).expect("a rename");
            fs::write(there.file(), "").expect("an empty file");
        }),
        ("half of the first record is there", &|there| {
            fs::rename(there.file(), there.0.join(&full)).expect("a rename");
            fs::write(there.file(), &first_line[..40]).expect("half a record");
        }),
        ("the first record is there", &|there| {
            fs::rename(there.file(), there.0.join(&full)).expect("a rename");
            fs::write(there.file(), format!("{first_line}\n")).expect("a record");
        }),
    ];
    for (what, crash) in crashes {
        let there = before.copy();
        crash(&there);
        let audit = there.small();
        assert_eq!(audit.revision(), last - 1, "{what}");
        audit.keep(done(last));
        let (findings, _) = there.whole();
        assert_eq!(findings, [""; 0], "{what}");
        assert_eq!(
            there.older(),
            [there.0.join(&oldest), there.0.join(&full)],
            "{what}"
        );
    }
}

#[test]
fn a_segment_that_somebody_removes_is_missed() {
    for number in [0, 1] {
        let directory = Directory::new();
        rotated(&directory);
        let gone = directory.older()[number].clone();
        let lines = fs::read_to_string(&gone).expect("a segment");
        fs::remove_file(&gone).expect("gone");
        let missing = |findings: &[String]| {
            let first = audit::read(lines.lines().next().expect("a line"));
            let last = audit::read(lines.lines().last().expect("a line"));
            let [first, last] = [first, last].map(|it| it.expect("a record").0.sequence);
            let told = format!("records {first} to {last} are missing");
            assert!(
                findings.len() == 1 && findings[0].contains(&told),
                "{findings:?}"
            );
        };
        missing(&directory.whole().0);
        // The daemon does not make it good, as long as the segments beside it are kept.
        let audit = directory.small();
        audit.keep(done(1));
        missing(&directory.whole().0);
    }
}

#[test]
fn words_that_change_in_an_old_segment_are_found() {
    let directory = Directory::new();
    rotated(&directory);
    let path = directory.older()[0].clone();
    let text = fs::read_to_string(&path).expect("a segment");
    fs::write(&path, text.replacen("uid:0", "uid:7", 1)).expect("a forgery");
    let (findings, _) = directory.whole();
    assert!(
        findings.len() == 1 && findings[0].contains("was changed"),
        "{findings:?}"
    );
    // A first line that is none does not keep the segment for ever.
    fs::write(&path, "nonsense\n".repeat(500)).expect("a forgery");
    let second = directory.older()[1].clone();
    fs::write(&second, "nonsense\n".repeat(500)).expect("a forgery");
    let audit = directory.small();
    for n in 0..100 {
        audit.keep(done(n));
    }
    assert_eq!(directory.older().len(), 2);
    assert!(!path.exists() && !second.exists());
}

#[test]
fn a_segment_that_can_not_be_begun_grows_to_a_bound() {
    let directory = Directory::new();
    let audit = directory.small();
    // A folder in place of the next file.
    fs::create_dir(directory.0.join("audit.next")).expect("a folder");
    let mut n = 0;
    while audit.ready().is_ok() && n < 1000 {
        n += 1;
        audit.keep(done(n));
    }
    let length = fs::metadata(directory.file()).expect("the file").len();
    assert!((3 * 4096..4 * 4096).contains(&length), "{length}");
    let why = audit.ready().expect_err("full").to_string();
    assert!(why.contains("a new segment can't be begun"), "{why}");
    fs::remove_dir(directory.0.join("audit.next")).expect("gone");
    assert!(audit.ready().is_ok());
    assert_eq!(directory.whole(), (Vec::new(), n as usize + 1));
}

#[test]
fn a_line_without_an_end_does_not_fill_the_memory() {
    let text = vec![b'x'; 1 << 20];
    let lengths: Vec<usize> = segments::lines(&text[..])
        .map(|line| line.expect("a piece").len())
        .collect();
    assert_eq!(lengths, [64 << 10; 16]);
}
