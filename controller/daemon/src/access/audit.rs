//! The audit of changes and refused calls: an append-only file in which each record is chained to
//! the one before (`wardline_proto::audit`), and on disk before the caller has its answer.
//!
//! `audit.jsonl` has the records, `audit.head` the last one's number and hash. The chain continues
//! from the stored head, not from the last record in the file, so records that were cut off leave a
//! gap for ever.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use tracing::{error, warn};
use wardline_proto::audit::{self, Check, Head, Record};

use super::throttle::Rate;
use crate::store::revision::Revision;

/// An item of the audit as it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A record, as it stands in the file.
    Record(String),
    /// The hash of the last record; this is the last item.
    Head(String),
}

/// The audit of a router. A handle: clones are the same audit.
#[derive(Clone, Debug)]
pub struct Audit(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    log: Mutex<Log>,
    /// Limits how fast one actor's refused calls get records of their own, because a client that is
    /// refused all the time must not fill the disk.
    refusals: Rate,
}

#[derive(Debug)]
struct Log {
    path: PathBuf,
    /// None until it is opened.
    file: Option<File>,
    /// The length of the file as the daemon left it; another length shows tampering.
    length: u64,
    head: Head,
    /// The newest revision that a record names.
    revision: u64,
    /// Records that could not be written yet.
    waiting: Vec<Record>,
    /// Refused calls without records, by actor.
    more: HashMap<String, Record>,
}

/// Why the audit can't be opened.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
pub struct AuditError {
    path: PathBuf,
    source: io::Error,
}

/// The message for a revision that no call's record names.
const FOUND: &str = "found in the history: made by the router itself, or it ended before the \
                     record was written";
/// Most records that wait until the disk accepts them; beyond that refused calls are only counted.
const MOST_WAITING: usize = 1000;
/// Most characters of a text in a record.
const LONGEST_TEXT: usize = 1024;

impl Audit {
    /// The audit in a directory, before it is opened: records wait.
    pub fn closed(directory: &Path) -> Self {
        Self(Arc::new(Shared {
            log: Mutex::new(Log::closed(directory.join("audit.jsonl"))),
            refusals: Rate::new(100, 1),
        }))
    }

    /// Opens the audit, if it is not open, and checks it. Problems of the chain are logged, and the
    /// audit goes on. Blocks.
    ///
    /// # Errors
    /// When it can't be read or written.
    pub fn open(&self) -> Result<(), AuditError> {
        let mut log = self.lock();
        if log.file.is_some() {
            return Ok(());
        }
        let path = log.path.clone();
        log.open().map_err(|source| AuditError { path, source })?;
        log.write();
        Ok(())
    }

    /// The newest revision that an audit in a directory tells of, without opening it; none: it tells
    /// of none, or there is no audit.
    pub fn tells_of(directory: &Path) -> Option<u64> {
        let file = File::open(directory.join("audit.jsonl")).ok()?;
        let lines = BufReader::new(file).split(b'\n').map_while(Result::ok);
        let records = lines.filter_map(|line| audit::read(&String::from_utf8_lossy(&line)));
        records.filter_map(|(record, _)| record.after).max()
    }

    /// Whether it is open.
    pub fn is_open(&self) -> bool {
        self.lock().file.is_some()
    }

    /// Whether a record may wait in memory for the disk.
    pub fn has_room(&self) -> bool {
        self.lock().waiting.len() < MOST_WAITING
    }

    /// The newest revision that a record names; 0: none.
    pub fn revision(&self) -> u64 {
        self.lock().revision
    }

    /// The newest record's number and hash; none: the audit is not open.
    pub fn head(&self) -> Option<Head> {
        let log = self.lock();
        log.file.is_some().then(|| log.head.clone())
    }

    /// Adds records for revisions that have none because of a crash. Blocks.
    pub fn catch_up(&self, revisions: Vec<Revision>) {
        let mut log = self.lock();
        for revision in revisions {
            log.put(Record {
                actor: revision.actor,
                call: revision.kind,
                reason: revision.reason,
                request_id: revision.request_id,
                outcome: OK.to_owned(),
                message: FOUND.to_owned(),
                before: Some(revision.parent),
                after: Some(revision.revision),
                ..Record::default()
            });
        }
        log.write();
    }

    /// Whether all records so far are on disk; those that could not be written are tried again.
    ///
    /// # Errors
    /// Why they are not. Then nothing may change.
    pub fn ready(&self) -> io::Result<()> {
        self.lock().write_waiting()
    }

    /// Adds a record; it is on disk when this returns, if the disk accepts it. Blocks.
    pub fn keep(&self, mut record: Record) {
        let refused = record.outcome != OK;
        let mut log = self.lock();
        let actor = &record.actor;
        if refused && (log.waiting.len() >= MOST_WAITING || self.0.refusals.take(actor, 1).is_err())
        {
            let more = log.more.get(actor).map_or(0, |record| record.more) + 1;
            log.more.insert(actor.clone(), Record { more, ..record });
            return;
        }
        // Earlier refused calls of this actor that had no records.
        record.more = log.more.remove(actor).map_or(0, |record| record.more);
        log.put(record);
        log.write();
    }

    /// Writes records for refused calls that were only counted. Blocks.
    pub fn record_refusals(&self) {
        let mut log = self.lock();
        // The last call of each actor represents those before it.
        let more: Vec<Record> = log.more.drain().map(|(_, record)| record).collect();
        for record in more {
            log.put(Record {
                more: record.more - 1,
                ..record
            });
        }
        log.write();
    }

    /// Reads the newest records, at most `limit` (0: all), oldest first, and then the head; stops
    /// when `listens` returns false. Blocks.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn tell(&self, limit: u32, mut listens: impl FnMut(Entry) -> bool) -> io::Result<()> {
        // Records written from now on are left out, because the head must match the last record
        // read.
        let (path, length, head) = {
            let log = self.lock();
            let length = fs::metadata(&log.path).map_or(0, |there| there.len());
            (log.path.clone(), length, log.head.clone())
        };
        let lines = || match File::open(&path) {
            Ok(file) => Ok(Some(BufReader::new(file.take(length)).split(b'\n'))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        };
        let skipped = match limit {
            0 => 0,
            limit => {
                let all = lines()?.into_iter().flatten().count();
                all.saturating_sub(limit as usize)
            }
        };
        for line in lines()?.into_iter().flatten().skip(skipped) {
            let line = String::from_utf8_lossy(&line?).into_owned();
            if !listens(Entry::Record(line)) {
                return Ok(());
            }
        }
        listens(Entry::Head(head.to_string()));
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        self.0.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The outcome of a call that succeeded.
pub const OK: &str = "ok";

impl Log {
    fn closed(path: PathBuf) -> Self {
        Self {
            path,
            file: None,
            length: 0,
            head: Head::default(),
            revision: 0,
            waiting: Vec::new(),
            more: HashMap::new(),
        }
    }

    fn open(&mut self) -> io::Result<()> {
        let path = &self.path;
        let file = create(path)?;
        let whole = drop_unfinished(&file)?;
        let mut check = Check::default();
        let mut revision = 0;
        for line in BufReader::new(File::open(path)?).split(b'\n') {
            let line = line?;
            let line = String::from_utf8_lossy(&line);
            check.line(&line);
            let after = audit::read(&line).and_then(|(record, _)| record.after);
            revision = after.unwrap_or_default().max(revision);
        }
        let last = check.last().clone();
        for finding in check.end().iter().take(10) {
            error!(path = %path.display(), finding, "the audit was tampered with");
        }
        let head = match read_head(path)? {
            Some(head) if head.sequence > last.sequence => {
                error!(path = %path.display(), last = last.sequence, remembered = head.sequence, "the audit was tampered with: records at its end are missing");
                head
            }
            _ => last,
        };
        self.file = Some(file);
        self.length = whole;
        self.head = head;
        self.revision = self.revision.max(revision);
        Ok(())
    }

    /// Adds a record to those that wait to be written.
    fn put(&mut self, mut record: Record) {
        let Record {
            actor,
            call,
            reason,
            message,
            ..
        } = &mut record;
        for text in [actor, call, reason, message] {
            shorten(text);
        }
        record.time = Timestamp::now().to_string();
        self.revision = record.after.unwrap_or_default().max(self.revision);
        self.waiting.push(record);
    }

    /// Writes the waiting records, if that can be done. Who asks whether the audit is ready hears
    /// why it can't.
    fn write(&mut self) {
        let _ = self.write_waiting();
    }

    fn write_waiting(&mut self) -> io::Result<()> {
        if self.file.is_none() {
            return Err(io::Error::other("not open"));
        }
        if self.waiting.is_empty() {
            return Ok(());
        }
        let mut head = self.head.clone();
        let mut text = self.continuation()?;
        for record in &mut self.waiting {
            record.sequence = head.sequence + 1;
            let (line, next) = audit::seal(record, &head);
            text.push_str(&line);
            text.push('\n');
            head = next;
        }
        let before = self.length;
        let mut file = self.file()?;
        let written = file
            .write_all(text.as_bytes())
            .and_then(|()| file.sync_data());
        if let Err(error) = written {
            // No half-written record may stay.
            let _ = file.set_len(before);
            return Err(error);
        }
        self.length += text.len() as u64;
        self.head = head;
        self.waiting.clear();
        write_head(&self.path, &self.head)
    }

    fn file(&self) -> io::Result<&File> {
        let file = self.file.as_ref();
        file.ok_or_else(|| io::Error::other("not open"))
    }

    /// The text before the next record if another program has changed the file: an end of line
    /// where one was cut. A file that was replaced or removed is opened again, or made.
    fn continuation(&mut self) -> io::Result<String> {
        let ours = self.file()?.metadata()?;
        let there = fs::metadata(&self.path).ok();
        if there.is_none_or(|there| (there.dev(), there.ino()) != (ours.dev(), ours.ino())) {
            error!(path = %self.path.display(), "the audit was tampered with: its file was replaced");
            let file = create(&self.path)?;
            self.length = file.metadata()?.len();
            self.file = Some(file);
        } else if ours.len() != self.length {
            error!(path = %self.path.display(), "the audit was tampered with: its file was changed");
            self.length = ours.len();
        } else {
            return Ok(String::new());
        }
        if self.length == 0 {
            return Ok(String::new());
        }
        let mut last = [0];
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        Ok(if last == *b"\n" { "" } else { "\n" }.to_owned())
    }
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .read(true)
        .create(true)
        .mode(0o600)
        .open(path)
}

/// Removes a record that a crash left half written; its caller had no answer yet. Returns the
/// length that is left.
fn drop_unfinished(mut file: &File) -> io::Result<u64> {
    const PIECE: u64 = 64 << 10;
    let mut end = file.seek(SeekFrom::End(0))?;
    let length = end;
    let mut piece = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(PIECE);
        file.seek(SeekFrom::Start(start))?;
        piece.clear();
        file.take(end - start).read_to_end(&mut piece)?;
        if let Some(at) = piece.iter().rposition(|byte| *byte == b'\n') {
            end = start + at as u64 + 1;
            break;
        }
        end = start;
    }
    if end != length {
        warn!(bytes = length - end, "the audit ended with half a record");
        file.set_len(end)?;
    }
    Ok(end)
}

fn head_path(path: &Path) -> PathBuf {
    path.with_extension("head")
}

fn read_head(path: &Path) -> io::Result<Option<Head>> {
    let path = head_path(path);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let head = text.trim().parse().ok();
    if head.is_none() {
        error!(path = %path.display(), "not a head of an audit; the end of the records can't be checked");
    }
    Ok(head)
}

fn write_head(path: &Path, head: &Head) -> io::Result<()> {
    let path = head_path(path);
    let next = path.with_extension("head.next");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&next)?;
    writeln!(file, "{head}")?;
    file.sync_data()?;
    fs::rename(next, path)
}

fn shorten(text: &mut String) {
    if let Some((end, _)) = text.char_indices().nth(LONGEST_TEXT) {
        text.truncate(end);
        text.push('…');
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

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
            let audit = Audit::closed(&self.0);
            audit.open().expect("an audit");
            audit
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
        let audit = Audit::closed(&directory.0);
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
}
