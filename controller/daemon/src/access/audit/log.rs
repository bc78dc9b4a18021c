//! Writes the audit: appends records to the segment that grows, begins segments, removes old ones,
//! and finds out at the start and before each record whether somebody else has changed the files.
//!
//! A segment is begun in steps, and after a crash between any two of them the next start goes on:
//! the full file gets its name, an empty one takes its place, the first record in it says which
//! segments go, and only then they do.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use tracing::{error, info, warn};
use wardline_datapath::fault;
use wardline_proto::audit::{self, Check, Head, Record, Segment};

use super::{
    OK,
    segments::{self, Closed},
};
use crate::config::Segments;

/// The files, and what waits to be written to them.
#[derive(Debug)]
pub(super) struct Log {
    directory: PathBuf,
    keep: Segments,
    /// The segment that grows; none until it is opened.
    file: Option<File>,
    /// The length of the file as the daemon left it; another length shows tampering.
    length: u64,
    /// The first record of the file.
    first: u64,
    pub(super) head: Head,
    /// The newest record that was removed, as records tell.
    removed: Head,
    /// The newest revision that a record names, also one that waits.
    pub(super) revision: u64,
    /// The newest revision that a record on disk names.
    written: u64,
    /// Records that could not be written yet.
    pub(super) waiting: Vec<Record>,
    /// Refused calls without records, by actor.
    pub(super) more: HashMap<String, Record>,
}

/// Most characters of a text in a record.
const LONGEST_TEXT: usize = 1024;
/// Most findings that are logged.
const MOST_FINDINGS: usize = 10;

impl Log {
    pub(super) fn closed(directory: PathBuf, keep: Segments) -> Self {
        Self {
            directory,
            keep,
            file: None,
            length: 0,
            first: 1,
            head: Head::default(),
            removed: Head::default(),
            revision: 0,
            written: 0,
            waiting: Vec::new(),
            more: HashMap::new(),
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.file.is_some()
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The segment that grows.
    pub(super) fn path(&self) -> PathBuf {
        segments::current(&self.directory)
    }

    /// Opens the newest segment and checks it, and that the older ones fit together. What is within
    /// those is not read: that could be a gigabyte at each start.
    pub(super) fn open(&mut self) -> io::Result<()> {
        let path = self.path();
        let file = create(&path)?;
        let length = drop_unfinished(&file)?;
        let mut check = Check::default();
        for older in segments::list(&self.directory)? {
            if let Some(line) = segments::first_line(&older.path)? {
                check.line(&line);
            }
            if let Some(last) = segments::last_head(&older.path)? {
                check.skip_to(last);
            }
        }
        let mut first = None;
        for line in segments::lines(File::open(&path)?) {
            let line = line?;
            check.line(&line);
            first = first.or_else(|| audit::read(&line).map(|(record, _)| record.sequence));
        }
        let last = check.last().clone();
        self.removed = check.removed().clone();
        for finding in check.end().iter().take(MOST_FINDINGS) {
            error!(path = %path.display(), finding, "the audit was tampered with; `wardctl audit --verify` reads all of it");
        }
        self.head = match read_head(&path)? {
            Some(head) if head.sequence > last.sequence => {
                error!(path = %path.display(), last = last.sequence, remembered = head.sequence, "the audit was tampered with: records at its end are missing");
                head
            }
            _ => last,
        };
        self.first = first.unwrap_or(self.head.sequence + 1);
        self.length = length;
        self.written = segments::newest_revision(&self.directory)?;
        self.revision = self.revision.max(self.written);
        self.file = Some(file);
        // A crash may have come between.
        self.remove_old();
        Ok(())
    }

    /// Adds a record to those that wait to be written.
    pub(super) fn put(&mut self, mut record: Record) {
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
    pub(super) fn write(&mut self) {
        let _ = self.write_waiting();
    }

    pub(super) fn write_waiting(&mut self) -> io::Result<()> {
        if self.file.is_none() {
            return Err(io::Error::other("not open"));
        }
        if self.waiting.is_empty() {
            return Ok(());
        }
        let mut text = self.continuation()?;
        if self.length >= self.keep.bytes {
            self.rotate()?;
        }
        let mut head = self.head.clone();
        let mut begin = None;
        if self.length == 0 {
            text.clear();
            self.first = head.sequence + 1;
            begin = self.begin()?;
        }
        for record in begin.iter_mut().chain(&mut self.waiting) {
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
        self.written = self.revision;
        self.waiting.clear();
        if let Some(segment) = begin.and_then(|record| record.segment) {
            fault::point("audit-begun");
            write_head(&self.path(), &self.head)?;
            self.removed = segment.removed;
            self.remove_old();
            return Ok(());
        }
        write_head(&self.path(), &self.head)
    }

    fn file(&self) -> io::Result<&File> {
        let file = self.file.as_ref();
        file.ok_or_else(|| io::Error::other("not open"))
    }

    // ── segments ───────────────────────────────────────────────────────────────────────────────

    /// Gives the full segment its name, and an empty one takes its place. While that can't be done,
    /// the file grows on, until it is as large as all segments may be together.
    fn rotate(&mut self) -> io::Result<()> {
        let rotated = self.exchange();
        let Err(error) = rotated else {
            info!(path = %self.path().display(), first = self.first, "the audit begins a new segment");
            return Ok(());
        };
        let most = self.keep.bytes.saturating_mul(self.keep.count.into());
        if self.length >= most {
            let why = format!("a new segment can't be begun: {error}");
            return Err(io::Error::new(error.kind(), why));
        }
        error!(path = %self.path().display(), %error, "the audit can't begin a new segment");
        Ok(())
    }

    fn exchange(&mut self) -> io::Result<()> {
        let path = self.path();
        let mut full = segments::closed(&self.directory, self.first);
        while full.path.try_exists()? {
            full = segments::closed(&self.directory, full.first + 1);
        }
        let next = path.with_extension("next");
        let file = create(&next)?;
        file.set_len(0)?;
        fs::rename(&path, &full.path)?;
        fault::point("audit-closed");
        fs::rename(next, &path)?;
        File::open(&self.directory)?.sync_all()?;
        fault::point("audit-empty");
        self.file = Some(file);
        self.length = 0;
        Ok(())
    }

    /// The record that begins a segment; none: it is the first. Says which of those before are
    /// removed.
    fn begin(&self) -> io::Result<Option<Record>> {
        let older = segments::list(&self.directory)?;
        let Some(last) = older.last() else {
            return Ok(None);
        };
        // One of those that are kept is the one that begins.
        let goes = (older.len() + 1).saturating_sub(self.keep.count as usize);
        let removed = match older.get(goes) {
            Some(oldest) if goes > 0 => before(oldest)?,
            _ => self.removed.clone(),
        };
        let last_name = last.path.file_name().unwrap_or_default().display();
        let mut message = format!("begins a segment; the one before is {last_name}");
        if removed.sequence > 0 {
            message += &format!("; records up to {} are no longer kept", removed.sequence);
        }
        Ok(Some(Record {
            time: Timestamp::now().to_string(),
            actor: "wardlined".to_owned(),
            call: "Segment".to_owned(),
            outcome: OK.to_owned(),
            message,
            segment: Some(Segment {
                removed,
                // The records of this very write may be lost.
                revision: self.written,
            }),
            ..Record::default()
        }))
    }

    /// Removes the segments of which a record says so. What can't be removed is tried again with the
    /// next segment.
    fn remove_old(&self) {
        let older = match segments::list(&self.directory) {
            Ok(older) => older,
            Err(error) => return warn!(%error, "old segments of the audit are not removed"),
        };
        let goes = |segment: &&Closed| segment.first <= self.removed.sequence;
        for Closed { path, .. } in older.iter().take_while(goes) {
            match fs::remove_file(path) {
                Ok(()) => info!(path = %path.display(), "an old segment of the audit was removed"),
                Err(error) => {
                    warn!(path = %path.display(), %error, "an old segment of the audit is not removed");
                }
            }
            fault::point("audit-removed");
        }
    }

    // ── tampering ──────────────────────────────────────────────────────────────────────────────

    /// The text before the next record if another program has changed the file: an end of line
    /// where one was cut. A file that was replaced or removed is opened again, or made.
    fn continuation(&mut self) -> io::Result<String> {
        let path = self.path();
        let ours = self.file()?.metadata()?;
        let there = fs::metadata(&path).ok();
        if there.is_none_or(|there| (there.dev(), there.ino()) != (ours.dev(), ours.ino())) {
            error!(path = %path.display(), "the audit was tampered with: its file was replaced");
            let file = create(&path)?;
            self.length = file.metadata()?.len();
            self.file = Some(file);
        } else if ours.len() != self.length {
            error!(path = %path.display(), "the audit was tampered with: its file was changed");
            self.length = ours.len();
        } else {
            return Ok(String::new());
        }
        if self.length == 0 {
            return Ok(String::new());
        }
        let mut last = [0];
        let mut file = File::open(&path)?;
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        Ok(if last == *b"\n" { "" } else { "\n" }.to_owned())
    }
}

/// The record before a segment. One whose first line was tampered with still says which that is, but
/// not its hash, so the chain does not verify.
fn before(segment: &Closed) -> io::Result<Head> {
    let line = segments::first_line(&segment.path)?;
    let stated = line.as_deref().and_then(audit::continued);
    Ok(stated.unwrap_or(Head {
        sequence: segment.first.saturating_sub(1),
        ..Head::default()
    }))
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

pub(super) fn read_head(path: &Path) -> io::Result<Option<Head>> {
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
