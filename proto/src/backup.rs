//! The backup of a router: a file, or a stream of the same bytes.
//!
//! ```text
//! WLBAK001                         the last three digits are the version of the format
//! length (4 bytes, big end first)  and a `Part` of so many bytes; first the summary, then what is
//! …                                in force, then each revision in order, last the end
//! ```
//!
//! The end has the number of parts before it, and the SHA-256 of every byte before it. A backup that
//! was cut off has no end; one that was changed has another sum.

use std::io::{self, Read};

use prost::Message as _;
use ring::digest::{Context, SHA256};

/// The first bytes of a backup.
const MAGIC: &[u8; 8] = b"WLBAK001";
/// The largest part: what is in force, as the router's own copy of it.
const LARGEST: u32 = 256 << 20;

/// What a backup is of.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Summary {
    /// The router's name.
    #[prost(string, tag = "1")]
    pub router: String,
    /// The version of its daemon.
    #[prost(string, tag = "2")]
    pub version: String,
    /// When it was made, RFC 3339.
    #[prost(string, tag = "3")]
    pub time: String,
    /// The revision in force.
    #[prost(uint64, tag = "4")]
    pub revision: u64,
    /// The number and hash of the newest record of the audit; empty: the audit could not be read.
    #[prost(string, tag = "5")]
    pub audit_head: String,
    /// The devices in quarantine.
    #[prost(string, repeated, tag = "6")]
    pub quarantined_devices: Vec<String>,
    /// The ports in quarantine.
    #[prost(string, repeated, tag = "7")]
    pub quarantined_ports: Vec<String>,
    /// Whether a change waited for its confirmation.
    #[prost(bool, tag = "8")]
    pub pending: bool,
}

/// A stored revision, as the router's history has it.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Row {
    /// Its number.
    #[prost(uint64, tag = "1")]
    pub revision: u64,
    /// The revision that it changed; 0: none.
    #[prost(uint64, tag = "2")]
    pub parent: u64,
    /// When it was accepted, RFC 3339.
    #[prost(string, tag = "3")]
    pub time: String,
    /// Who made it.
    #[prost(string, tag = "4")]
    pub actor: String,
    /// Why, in the actor's words.
    #[prost(string, tag = "5")]
    pub reason: String,
    /// The call that made it.
    #[prost(string, tag = "6")]
    pub kind: String,
    /// The request's id.
    #[prost(string, tag = "7")]
    pub request_id: String,
    /// Its document, or the edit of another's, or nothing: the other's document.
    #[prost(bytes = "vec", tag = "8")]
    pub document: Vec<u8>,
    /// The revision whose document that changes; 0: the document is whole.
    #[prost(uint64, tag = "9")]
    pub base: u64,
    /// Objects that it added.
    #[prost(uint32, tag = "10")]
    pub added: u32,
    /// Objects that it altered.
    #[prost(uint32, tag = "11")]
    pub changed: u32,
    /// Objects that it removed.
    #[prost(uint32, tag = "12")]
    pub removed: u32,
}

/// The last part.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct End {
    /// How many parts are before it.
    #[prost(uint64, tag = "1")]
    pub parts: u64,
    /// The SHA-256 of all bytes before its length.
    #[prost(bytes = "vec", tag = "2")]
    pub sum: Vec<u8>,
}

/// A part of a backup.
#[derive(Clone, PartialEq, Eq, prost::Oneof)]
pub enum Part {
    /// What it is of.
    #[prost(message, tag = "1")]
    Summary(Summary),
    /// What is in force, as the router's own copy has it, with its own header and checksum.
    #[prost(bytes, tag = "2")]
    InForce(Vec<u8>),
    /// A revision.
    #[prost(message, tag = "3")]
    Row(Row),
    /// Nothing follows.
    #[prost(message, tag = "4")]
    End(End),
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
struct Item {
    #[prost(oneof = "Part", tags = "1, 2, 3, 4")]
    part: Option<Part>,
}

/// Why a backup can't be used.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// It can't be read.
    #[error("can't be read: {0}")]
    Read(#[from] io::Error),
    /// It is something else.
    #[error("not a backup of a Wardline router")]
    Other,
    /// Its format is not known here.
    #[error("has format {0}, and this program knows 001; use a newer one")]
    Newer(String),
    /// It is not complete.
    #[error("is cut off after {0} bytes")]
    CutOff(u64),
    /// It was changed.
    #[error("is damaged: {0}")]
    Damaged(String),
}

/// Makes the bytes of a backup, piece by piece.
pub struct Writer {
    sum: Context,
    parts: u64,
}

impl Writer {
    /// Begins; the bytes that come first.
    pub fn begin() -> (Self, Vec<u8>) {
        let mut sum = Context::new(&SHA256);
        sum.update(MAGIC);
        (Self { sum, parts: 0 }, MAGIC.to_vec())
    }

    /// The bytes of the next part.
    pub fn part(&mut self, part: Part) -> Vec<u8> {
        let bytes = framed(part);
        self.sum.update(&bytes);
        self.parts += 1;
        bytes
    }

    /// The bytes that come last.
    pub fn end(self) -> Vec<u8> {
        framed(Part::End(End {
            parts: self.parts,
            sum: self.sum.finish().as_ref().to_vec(),
        }))
    }
}

fn framed(part: Part) -> Vec<u8> {
    let item = Item { part: Some(part) };
    let length = item.encoded_len();
    let mut bytes = Vec::with_capacity(4 + length);
    // A part that is too large to be read is told by whoever reads it.
    bytes.extend(u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    bytes.extend(item.encode_to_vec());
    bytes
}

/// Reads a backup, part by part.
///
/// What it returns can be believed only once it has returned that nothing follows.
pub struct Reader<R> {
    from: R,
    sum: Context,
    bytes: u64,
    parts: u64,
}

impl<R: Read> Reader<R> {
    /// Begins, and reads what it is of.
    ///
    /// # Errors
    /// When it is no backup, or of a newer format.
    pub fn open(from: R) -> Result<(Self, Summary), BackupError> {
        let mut reader = Self {
            from,
            sum: Context::new(&SHA256),
            bytes: 0,
            parts: 0,
        };
        let magic = reader.take(MAGIC.len() as u64)?;
        if magic != MAGIC {
            let name = &MAGIC[..5];
            return Err(match magic.strip_prefix(name) {
                Some(format) if format.iter().all(u8::is_ascii_digit) => {
                    BackupError::Newer(String::from_utf8_lossy(format).into_owned())
                }
                _ => BackupError::Other,
            });
        }
        reader.sum.update(&magic);
        match reader.part()? {
            Some(Part::Summary(summary)) => Ok((reader, summary)),
            _ => Err(BackupError::Damaged("it does not say of what".to_owned())),
        }
    }

    /// The next part; none: that was all, and nothing of it was changed.
    ///
    /// # Errors
    /// When it can't be read, is cut off or was changed.
    pub fn part(&mut self) -> Result<Option<Part>, BackupError> {
        let damaged = |why: String| BackupError::Damaged(why);
        let length = self.take(4)?;
        let number: [u8; 4] = length.as_slice().try_into().unwrap_or_default();
        let wanted = u32::from_be_bytes(number);
        if wanted > LARGEST {
            return Err(damaged(format!("a part of {wanted} bytes")));
        }
        let before = self.sum.clone();
        let bytes = self.take(wanted.into())?;
        self.sum.update(&length);
        self.sum.update(&bytes);
        let item = Item::decode(bytes.as_slice()).map_err(|error| damaged(error.to_string()))?;
        let part = item
            .part
            .ok_or_else(|| damaged("a part of an unknown kind".to_owned()))?;
        let Part::End(End { parts, sum }) = part else {
            self.parts += 1;
            return Ok(Some(part));
        };
        if parts != self.parts || before.finish().as_ref() != sum {
            return Err(damaged("its checksum is wrong".to_owned()));
        }
        let mut more = [0];
        if self.from.read(&mut more)? != 0 {
            return Err(damaged("something follows its end".to_owned()));
        }
        Ok(None)
    }

    fn take(&mut self, length: u64) -> Result<Vec<u8>, BackupError> {
        let mut bytes = Vec::new();
        // Memory is taken for what is there, whatever a damaged length says.
        let read = self.from.by_ref().take(length).read_to_end(&mut bytes)? as u64;
        self.bytes += read;
        if read < length {
            return Err(match self.bytes {
                0..8 => BackupError::Other,
                bytes => BackupError::CutOff(bytes),
            });
        }
        Ok(bytes)
    }
}

/// What a whole backup has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// What it is of.
    pub summary: Summary,
    /// How many revisions it has.
    pub revisions: u64,
    /// Its size in bytes.
    pub bytes: u64,
}

/// Reads a backup to its end.
///
/// # Errors
/// When it is not whole.
pub fn check(from: impl Read) -> Result<Contents, BackupError> {
    let (mut reader, summary) = Reader::open(from)?;
    let mut revisions = 0;
    while let Some(part) = reader.part()? {
        revisions += u64::from(matches!(part, Part::Row(_)));
    }
    Ok(Contents {
        summary,
        revisions,
        bytes: reader.bytes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backup() -> Vec<u8> {
        let (mut writer, mut bytes) = Writer::begin();
        bytes.extend(writer.part(Part::Summary(Summary {
            router: "edge".to_owned(),
            revision: 2,
            ..Summary::default()
        })));
        bytes.extend(writer.part(Part::InForce(vec![7; 300])));
        for revision in 1..=2 {
            bytes.extend(writer.part(Part::Row(Row {
                revision,
                document: vec![1; 50],
                ..Row::default()
            })));
        }
        bytes.extend(writer.end());
        bytes
    }

    #[test]
    fn what_was_written_is_read() {
        let bytes = backup();
        let contents = check(bytes.as_slice()).expect("a backup");
        assert_eq!(contents.summary.router, "edge");
        assert_eq!(
            (contents.revisions, contents.bytes),
            (2, bytes.len() as u64)
        );
    }

    #[test]
    fn a_changed_byte_anywhere_and_every_cut_is_found() {
        let whole = backup();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            assert!(check(bytes.as_slice()).is_err(), "byte {at}");
            assert!(check(&whole[..at]).is_err(), "cut at {at}");
        }
        let longer = [whole.as_slice(), b"x"].concat();
        let error = check(longer.as_slice()).expect_err("too long");
        assert!(error.to_string().contains("follows its end"), "{error}");
    }

    #[test]
    fn an_error_says_what_it_is() {
        let told = |bytes: &[u8]| check(bytes).expect_err("no backup").to_string();
        assert!(told(b"").contains("not a backup"));
        assert!(told(b"version: 1\nzones: []\n").contains("not a backup"));
        assert!(told(b"WLBAK002....").contains("has format 002"));
        assert!(told(&backup()[..200]).contains("is cut off after 200 bytes"));
        let mut huge = backup();
        huge[8..12].fill(0xff);
        assert!(told(&huge).contains("a part of 4294967295 bytes"));
    }
}
