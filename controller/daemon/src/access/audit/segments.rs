//! The files of the audit: which there are, in which order, and how their lines are read.
//!
//! `audit.jsonl` is the segment that grows. An older one is named by its first record, as
//! `audit-000000000042.jsonl`, so that names sort as records do.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

use wardline_proto::audit::{self, Head};

/// A segment that does not grow any more.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Closed {
    /// Its first record.
    pub(super) first: u64,
    pub(super) path: PathBuf,
}

/// The segment that grows.
pub(super) fn current(directory: &Path) -> PathBuf {
    directory.join("audit.jsonl")
}

/// The name of a segment that begins with a record, once it does not grow any more.
pub(super) fn closed(directory: &Path, first: u64) -> Closed {
    let path = directory.join(format!("audit-{first:012}.jsonl"));
    Closed { first, path }
}

/// The segments that do not grow any more, oldest first.
pub(super) fn list(directory: &Path) -> io::Result<Vec<Closed>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| {
            let number = name.strip_prefix("audit-")?.strip_suffix(".jsonl")?;
            number.parse().ok()
        });
        // Whoever names a file otherwise does not mean a segment.
        let segment = number.map(|first| closed(directory, first));
        found.extend(segment.filter(|segment| segment.path.file_name() == Some(&name)));
    }
    found.sort_unstable();
    Ok(found)
}

/// The newest revision that the records in a directory tell of; 0: none.
pub(super) fn newest_revision(directory: &Path) -> io::Result<u64> {
    let mut paths: Vec<_> = list(directory)?.into_iter().map(|it| it.path).collect();
    paths.push(current(directory));
    for path in paths.iter().rev() {
        let mut newest = 0;
        if let Some(file) = open(path)? {
            for line in lines(file) {
                let revision = audit::read(&line?).map(|(record, _)| record.revision());
                newest = revision.unwrap_or_default().max(newest);
            }
        }
        // The first record of a segment tells it of all before.
        if newest != 0 {
            return Ok(newest);
        }
    }
    Ok(0)
}

/// Opens a file; none: there is none.
pub(super) fn open(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The longest line that is read as one. Texts in a record are cut so that it is shorter.
const LONGEST_LINE: u64 = 64 << 10;

/// The lines of a file, without their ends. What is too long for a record comes in pieces.
pub(super) fn lines(file: impl io::Read) -> impl Iterator<Item = io::Result<String>> {
    let mut file = BufReader::new(file);
    std::iter::from_fn(move || {
        let mut line = Vec::new();
        let read = (&mut file).take(LONGEST_LINE).read_until(b'\n', &mut line);
        match read {
            Ok(0) => None,
            Ok(_) => {
                line.pop_if(|last| *last == b'\n');
                Some(Ok(String::from_utf8_lossy(&line).into_owned()))
            }
            Err(error) => Some(Err(error)),
        }
    })
}

/// The first line of a file; none: it is empty.
pub(super) fn first_line(path: &Path) -> io::Result<Option<String>> {
    lines(File::open(path)?).next().transpose()
}

/// What the last line of a file states; none: it is no record.
pub(super) fn last_head(path: &Path) -> io::Result<Option<Head>> {
    let mut file = File::open(path)?;
    let length = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(length.saturating_sub(LONGEST_LINE)))?;
    let last = lines(file).last().transpose()?;
    Ok(last
        .and_then(|line| audit::read(&line))
        .map(|(_, head)| head))
}
