//! The notes of which interfaces were taken down.
//!
//! What was taken down is brought up again by nobody else, so that has to be known after a restart
//! too: a directory of the interface's index and name is kept beside the pins, and goes with a
//! reboot, as the state of the interface does.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use crate::{error::AttachError, netlink};

type Result<T> = std::result::Result<T, AttachError>;

/// The interfaces that were taken down, by index and name.
#[derive(Debug)]
pub(crate) struct Down {
    /// Where notes are; none: they last as long as this value.
    notes: Option<PathBuf>,
    held: BTreeSet<(u32, String)>,
}

impl Down {
    pub(crate) fn new(pins: Option<&Path>) -> Self {
        Self {
            notes: pins.map(notes),
            held: BTreeSet::new(),
        }
    }

    pub(crate) fn note(&mut self, ifindex: u32, name: &str) -> Result<()> {
        let Some(note) = self.path(ifindex, name) else {
            self.held.insert((ifindex, name.to_owned()));
            return Ok(());
        };
        fs::create_dir_all(&note).map_err(refused(&note))
    }

    pub(crate) fn has(&self, ifindex: u32, name: &str) -> bool {
        match self.path(ifindex, name) {
            Some(note) => note.is_dir(),
            None => self.held.contains(&(ifindex, name.to_owned())),
        }
    }

    pub(crate) fn forget(&mut self, ifindex: u32, name: &str) -> Result<()> {
        let Some(note) = self.path(ifindex, name) else {
            self.held.remove(&(ifindex, name.to_owned()));
            return Ok(());
        };
        match fs::remove_dir(&note) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(refused(&note)(error)),
            _ => Ok(()),
        }
    }

    pub(crate) fn all(&self) -> Vec<(u32, String)> {
        match &self.notes {
            None => self.held.iter().cloned().collect(),
            Some(notes) => noted(notes).map(|(of, _)| of).collect(),
        }
    }

    fn path(&self, ifindex: u32, name: &str) -> Option<PathBuf> {
        // A name in the file system of pins may have no dot, which those of VLANs have.
        let name: String = name.bytes().map(|byte| format!("{byte:02x}")).collect();
        Some(self.notes.as_ref()?.join(format!("{ifindex}-{name}")))
    }
}

fn notes(pins: &Path) -> PathBuf {
    pins.join("down")
}

fn refused(note: &Path) -> impl Fn(io::Error) -> AttachError + use<> {
    let path = note.to_owned();
    move |source| AttachError::Pin {
        path: path.clone(),
        source,
    }
}

/// The interfaces that notes name, and the notes.
fn noted(notes: &Path) -> impl Iterator<Item = ((u32, String), PathBuf)> + use<> {
    let entries = fs::read_dir(notes).into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let file = entry.file_name();
        let (ifindex, name) = file.to_str()?.split_once('-')?;
        let bytes: Option<Vec<u8>> = (0..name.len() / 2)
            .map(|at| u8::from_str_radix(name.get(at * 2..at * 2 + 2)?, 16).ok())
            .collect();
        let name = String::from_utf8(bytes?).ok()?;
        Some(((ifindex.parse().ok()?, name), entry.path()))
    })
}

/// Brings up again whatever was taken down, and removes the notes.
pub(crate) fn open_all(pins: &Path) -> Vec<AttachError> {
    let mut errors = Vec::new();
    let notes = notes(pins);
    for ((ifindex, _), note) in noted(&notes) {
        // The interface may be gone.
        match netlink::set_up(ifindex, true) {
            Err(error) if error.raw_os_error() != Some(libc::ENODEV) => {
                errors.push(AttachError::State {
                    ifindex,
                    source: error,
                });
            }
            _ => errors.extend(fs::remove_dir(&note).map_err(refused(&note)).err()),
        }
    }
    match fs::remove_dir(&notes) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            errors.push(refused(&notes)(error))
        }
        _ => {}
    }
    errors
}
