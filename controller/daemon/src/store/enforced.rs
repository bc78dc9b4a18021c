//! The copy of what is in force: all that the daemon needs to put exactly the same in force again
//! without the database.
//!
//! `state_dir/enforced` has two generations, `0` and `1`; the older one is replaced, whole. So
//! whatever happens while one is written, the other stays. Each begins with a header that has the
//! format's version, the length and a SHA-256 of the rest; what does not fit it is not believed.
//!
//! `state_dir/guarded` has the names of the guarded ports, one a line, for the day when neither copy
//! nor database can be read.

use std::{
    collections::BTreeSet,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::Timestamp;
use prost::Message as _;
use ring::digest::{Context, Digest, SHA256, SHA256_OUTPUT_LEN};
use wardline_policy::{
    document::Document as Policy,
    numbers::Ids,
    quarantine::{Hold, Identity, Quarantine},
};

use super::{folder, held::identities, owed::Owed};

/// What is in force, as the copy has it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Enforced {
    /// The revision in force.
    pub revision: u64,
    /// Its document; without a version: no policy is in force.
    pub policy: Arc<Policy>,
    /// The numbers of names.
    pub ids: Arc<Ids>,
    /// What is in quarantine.
    pub quarantined: Quarantine,
    /// Rules that are grants, with their ends.
    pub grants: BTreeSet<(String, Timestamp)>,
    /// The change that waits for its confirmation, as the store has it.
    pub pending: Option<String>,
    /// The document that returns when that change is not confirmed.
    pub previous: Option<Arc<Policy>>,
    /// The names of the interfaces that are guarded, also of those that are not there at present.
    pub guarded: BTreeSet<String>,
    /// What is in force and not in the database yet, oldest first.
    pub owed: Vec<Owed>,
}

impl Enforced {
    /// The bytes of a copy that is kept elsewhere, with header and checksum.
    pub fn to_bytes(&self) -> Vec<u8> {
        seal(1, &Message::of(self).encode_to_vec())
    }

    /// Reads such a copy.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        open(bytes).map(|(_, enforced)| enforced)
    }
}

/// Why a copy can't be used, or not be written.
#[derive(Debug, thiserror::Error)]
#[error("{}: {why}", path.display())]
pub struct CopyError {
    path: PathBuf,
    why: String,
}

impl CopyError {
    /// The copy.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The copies of a router.
#[derive(Debug)]
pub struct Copies {
    directory: PathBuf,
    names: PathBuf,
    /// The newest generation on the disk.
    generation: u64,
    written: Option<Enforced>,
    /// The names that are in the file, when that is known.
    guarded: Option<BTreeSet<String>>,
}

/// What was found on the disk.
#[derive(Debug, Default)]
pub struct Found {
    /// The newest copy that can be used.
    pub enforced: Option<Enforced>,
    /// What is wrong with the others.
    pub problems: Vec<CopyError>,
    /// The names of guarded ports.
    pub guarded: BTreeSet<String>,
}

/// The first bytes of a copy; the digits are the version of the format.
const MAGIC: &[u8; 8] = b"WLENF001";
/// Magic, generation, length, digest.
const HEADER: usize = MAGIC.len() + 8 + 8 + SHA256_OUTPUT_LEN;
/// The largest copy: four times the largest document that a client can send.
const LARGEST: u64 = 256 << 20;
/// The largest list of names.
const LARGEST_NAMES: u64 = 1 << 20;
/// The longest name of an interface.
const LONGEST_NAME: usize = 15;

impl Copies {
    /// Reads what is there. Never fails: what can't be read is a problem of that generation.
    pub fn read(state_dir: &Path) -> (Self, Found) {
        let mut copies = Self {
            directory: state_dir.join("enforced"),
            names: state_dir.join("guarded"),
            generation: 0,
            written: None,
            guarded: None,
        };
        let mut found = Found::default();
        for slot in 0..2 {
            let path = copies.slot(slot);
            match read(&path) {
                Ok(None) => {}
                Ok(Some((generation, enforced))) if generation > copies.generation => {
                    copies.generation = generation;
                    found.enforced = Some(enforced);
                }
                Ok(Some(_)) => {}
                Err(why) => found.problems.push(CopyError { path, why }),
            }
        }
        copies.written.clone_from(&found.enforced);
        if let Ok(names) = read_bounded(&copies.names, LARGEST_NAMES) {
            found.guarded = names_of(&names);
            copies.guarded = Some(found.guarded.clone());
        }
        if let Some(enforced) = &found.enforced {
            found.guarded.extend(enforced.guarded.iter().cloned());
        }
        (copies, found)
    }

    /// Writes a copy, unless the newest one is the same; on disk when this returns.
    ///
    /// # Errors
    ///
    /// When it could not be written; then the generations that were there are still there.
    pub fn write(&mut self, enforced: &Enforced) -> Result<(), CopyError> {
        if self.written.as_ref() != Some(enforced) {
            self.write_copy(enforced)?;
        }
        if self.guarded.as_ref() != Some(&enforced.guarded) {
            let names: String = enforced
                .guarded
                .iter()
                .map(|it| format!("{it}\n"))
                .collect();
            replace(&self.names, names.as_bytes()).map_err(|error| CopyError {
                path: self.names.clone(),
                why: error.to_string(),
            })?;
            self.guarded = Some(enforced.guarded.clone());
        }
        Ok(())
    }

    fn write_copy(&mut self, enforced: &Enforced) -> Result<(), CopyError> {
        let generation = self.generation + 1;
        let path = self.slot(generation);
        let failed = |why: String| CopyError {
            path: path.clone(),
            why,
        };
        let bytes = seal(generation, &Message::of(enforced).encode_to_vec());
        if bytes.len() as u64 > LARGEST {
            return Err(failed(format!(
                "{} bytes, and a copy has at most {LARGEST}",
                bytes.len()
            )));
        }
        if let Some(state_dir) = self.names.parent() {
            folder::check(state_dir).map_err(|error| failed(error.to_string()))?;
        }
        make(&self.directory)
            .and_then(|()| replace(&path, &bytes))
            .map_err(|error| failed(error.to_string()))?;
        self.generation = generation;
        self.written = Some(enforced.clone());
        Ok(())
    }

    fn slot(&self, generation: u64) -> PathBuf {
        self.directory.join((generation % 2).to_string())
    }
}

fn make(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    DirBuilder::new().mode(0o700).create(directory)
}

/// Replaces a file as a whole: there is the old one or the new one, after a power cut too.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let next = path.with_extension("next");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&next)?;
    let written = file
        .write_all(bytes)
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&next, path));
    if written.is_err() {
        // Its room may be what is missing.
        let _ = fs::remove_file(&next);
    }
    written?;
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

fn seal(generation: u64, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + body.len());
    bytes.extend(MAGIC);
    bytes.extend(generation.to_be_bytes());
    bytes.extend((body.len() as u64).to_be_bytes());
    let sum = checksum(&bytes, body);
    bytes.extend(sum.as_ref());
    bytes.extend(body);
    bytes
}

/// Covers the header, too: the generation decides which copy is believed.
fn checksum(header: &[u8], body: &[u8]) -> Digest {
    let mut sum = Context::new(&SHA256);
    sum.update(header);
    sum.update(body);
    sum.finish()
}

/// Reads one generation; none: there is no such file.
fn read(path: &Path) -> Result<Option<(u64, Enforced)>, String> {
    match read_bounded(path, LARGEST) {
        Ok(bytes) => open(&bytes).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

fn open(bytes: &[u8]) -> Result<(u64, Enforced), String> {
    let Some((header, body)) = bytes.split_at_checked(HEADER) else {
        return Err(format!("{} bytes are no copy", bytes.len()));
    };
    let (covered, sum) = header.split_at(HEADER - SHA256_OUTPUT_LEN);
    let (magic, numbers) = covered.split_at(MAGIC.len());
    let (name, version) = MAGIC.split_at(5);
    if magic != MAGIC {
        return Err(match magic.strip_prefix(name) {
            Some(other) => format!(
                "has format {}, this wardlined knows {}",
                String::from_utf8_lossy(other),
                String::from_utf8_lossy(version)
            ),
            None => "not a copy of what is in force".to_owned(),
        });
    }
    let number = |at: usize| {
        let bytes = numbers.get(at..at + 8)?;
        Some(u64::from_be_bytes(bytes.try_into().ok()?))
    };
    let (Some(generation), Some(length)) = (number(0), number(8)) else {
        return Err("its header is too short".to_owned());
    };
    if length != body.len() as u64 {
        return Err(format!("has {} bytes of {length}", body.len()));
    }
    if checksum(covered, body).as_ref() != sum {
        return Err("its checksum is wrong".to_owned());
    }
    let message = Message::decode(body).map_err(|error| error.to_string())?;
    Ok((generation, message.into_enforced()?))
}

fn read_bounded(path: &Path, largest: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(path)?;
    if file.take(largest + 1).read_to_end(&mut bytes)? as u64 > largest {
        let message = format!("larger than {largest} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    Ok(bytes)
}

/// The lines that can be names of interfaces: a damaged one closes no other port.
fn names_of(bytes: &[u8]) -> BTreeSet<String> {
    let text = String::from_utf8_lossy(bytes);
    let is_name = |line: &&str| {
        let odd = |c: char| c == '/' || c.is_whitespace() || c.is_control() || c == '\u{fffd}';
        (1..=LONGEST_NAME).contains(&line.len()) && !line.contains(odd)
    };
    text.lines().filter(is_name).map(str::to_owned).collect()
}

/// What a copy holds, as it is encoded.
#[derive(Clone, PartialEq, prost::Message)]
struct Message {
    #[prost(uint64, tag = "1")]
    revision: u64,
    /// Encoded, because documents are large and need not be cloned for it.
    #[prost(bytes = "vec", tag = "2")]
    policy: Vec<u8>,
    #[prost(message, repeated, tag = "3")]
    ids: Vec<Number>,
    #[prost(string, repeated, tag = "4")]
    devices: Vec<String>,
    #[prost(string, repeated, tag = "5")]
    ports: Vec<String>,
    #[prost(message, repeated, tag = "6")]
    grants: Vec<Grant>,
    #[prost(string, optional, tag = "7")]
    pending: Option<String>,
    #[prost(bytes = "vec", optional, tag = "8")]
    previous: Option<Vec<u8>>,
    #[prost(string, repeated, tag = "9")]
    guarded: Vec<String>,
    #[prost(message, repeated, tag = "10")]
    owed: Vec<Owed>,
    /// Who is in quarantine. Tags 4 and 5 have the names, which is all that earlier versions know.
    #[prost(message, repeated, tag = "11")]
    held: Vec<Held>,
}

/// Somebody in quarantine.
#[derive(Clone, PartialEq, prost::Message)]
struct Held {
    #[prost(string, tag = "1")]
    identity: String,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(string, tag = "3")]
    actor: String,
    #[prost(string, tag = "4")]
    reason: String,
    #[prost(string, tag = "5")]
    since: String,
}

/// The number of a name.
#[derive(Clone, PartialEq, prost::Message)]
struct Number {
    #[prost(string, tag = "1")]
    kind: String,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(uint32, tag = "3")]
    number: u32,
}

/// A rule that is a grant.
#[derive(Clone, PartialEq, prost::Message)]
struct Grant {
    #[prost(string, tag = "1")]
    rule: String,
    #[prost(string, tag = "2")]
    expires: String,
}

impl Message {
    fn of(enforced: &Enforced) -> Self {
        let Enforced {
            revision,
            policy,
            ids,
            quarantined,
            grants,
            pending,
            previous,
            guarded,
            owed,
        } = enforced;
        let number = |((kind, name), number): (&(String, String), &u32)| Number {
            kind: kind.clone(),
            name: name.clone(),
            number: *number,
        };
        let held = |(identity, hold): (&Identity, &Hold)| Held {
            identity: identity.to_string(),
            name: hold.name.clone(),
            actor: hold.actor.clone(),
            reason: hold.reason.clone(),
            since: hold.since.to_string(),
        };
        let grant = |(rule, expires): &(String, Timestamp)| Grant {
            rule: rule.clone(),
            expires: expires.to_string(),
        };
        Self {
            revision: *revision,
            policy: policy.encode_to_vec(),
            ids: ids.iter().map(number).collect(),
            devices: named(policy, quarantined),
            ports: quarantined.ports().cloned().collect(),
            grants: grants.iter().map(grant).collect(),
            pending: pending.clone(),
            previous: previous.as_ref().map(|it| it.encode_to_vec()),
            guarded: guarded.iter().cloned().collect(),
            owed: owed.clone(),
            held: quarantined.iter().map(held).collect(),
        }
    }

    fn into_enforced(self) -> Result<Enforced, String> {
        let number = |it: Number| ((it.kind, it.name), it.number);
        let grant = |it: Grant| {
            let expires = it.expires.parse();
            expires
                .map(|expires| (it.rule, expires))
                .map_err(|_| "a grant has no end".to_owned())
        };
        let document = |bytes: &[u8]| {
            let policy = Policy::decode(bytes).map(Arc::new);
            policy.map_err(|error| error.to_string())
        };
        let grants: Result<_, String> = self.grants.into_iter().map(grant).collect();
        let policy = document(&self.policy)?;
        let quarantined = if self.held.is_empty() {
            let mut named = Quarantine::of_names(self.devices, self.ports);
            named.resolve(identities(&policy));
            named
        } else {
            let held = self.held.into_iter().map(|it| {
                let identity = it.identity.parse::<Identity>();
                let identity = identity.map_err(|error| error.to_string())?;
                let hold = Hold {
                    name: it.name,
                    actor: it.actor,
                    reason: it.reason,
                    since: it.since.parse().unwrap_or(Timestamp::UNIX_EPOCH),
                };
                Ok((identity, hold))
            });
            held.collect::<Result<Quarantine, String>>()?
        };
        Ok(Enforced {
            revision: self.revision,
            policy,
            ids: Arc::new(self.ids.into_iter().map(number).collect()),
            quarantined,
            grants: grants?,
            pending: self.pending,
            previous: self.previous.as_deref().map(document).transpose()?,
            guarded: self.guarded.into_iter().collect(),
            owed: self.owed,
        })
    }
}

/// The names of devices in quarantine, for an earlier version that reads the copy.
fn named(policy: &Policy, quarantined: &Quarantine) -> Vec<String> {
    if quarantined.is_empty() {
        return Vec::new();
    }
    let is_cut = |own: &[Identity]| own.iter().any(|it| quarantined.get(it).is_some());
    let devices = identities(policy).filter(|(_, own)| is_cut(own));
    let devices = devices.map(|(name, _)| name.to_owned());
    let names = quarantined
        .iter()
        .filter_map(|(identity, _)| match identity {
            Identity::Device(name) => Some(name.clone()),
            _ => None,
        });
    devices.chain(names).collect()
}

#[cfg(test)]
mod tests;
