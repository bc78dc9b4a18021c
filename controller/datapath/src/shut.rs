//! Shuts an interface that can't be guarded: by dropping at TC what passes it, or by taking it down.
//!
//! What was taken down is brought up again by nobody else, so that has to be known after a restart
//! too: a directory of the interface's index and name is kept beside the pins, and goes with a
//! reboot, as the state of the interface does.

use std::{fs, io, path::PathBuf};

use crate::{
    Datapath, Hook,
    error::AttachError,
    links::{Links, pinned},
    netlink,
};

type Result<T> = std::result::Result<T, AttachError>;

/// The hooks of a port at which nothing is to pass. No guarded port has these, so that the next
/// daemon knows it for what it is.
const HOOKS: &[Hook] = &[Hook::TcIngress, Hook::TcEgress, Hook::Tags];

impl Datapath {
    /// Puts hooks on an interface that drop all while no table admits anything there.
    ///
    /// # Errors
    ///
    /// When a hook could not be attached.
    pub fn shut(&mut self, ifindex: u32) -> Result<()> {
        self.attach(ifindex, HOOKS)
    }

    /// Whether an interface has those hooks.
    ///
    /// # Errors
    ///
    /// When the kernel does not tell.
    pub fn is_shut(&self, ifindex: u32) -> Result<bool> {
        for hook in HOOKS {
            if !self.is_attached(ifindex, *hook)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Takes an interface down that is up, and remembers that.
    ///
    /// # Errors
    ///
    /// When the kernel refuses, or there is no place to remember it.
    pub fn take_down(&mut self, ifindex: u32, name: &str) -> Result<()> {
        self.links.note_down(ifindex, name)?;
        netlink::set_up(ifindex, false).map_err(changed(ifindex))
    }

    /// Whether it was this daemon, or an earlier one, that took an interface down.
    pub fn is_taken_down(&self, ifindex: u32, name: &str) -> bool {
        self.links.is_noted_down(ifindex, name)
    }

    /// Brings an interface up that was taken down.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn bring_up(&mut self, ifindex: u32, name: &str) -> Result<()> {
        netlink::set_up(ifindex, true).map_err(changed(ifindex))?;
        self.links.forget_down(ifindex, name)
    }

    /// The interfaces that were taken down, by index and name; some may be gone.
    pub fn taken_down(&self) -> Vec<(u32, String)> {
        self.links.down()
    }

    /// Forgets that an interface was taken down, because it is gone.
    ///
    /// # Errors
    ///
    /// When the note can't be removed.
    pub fn forget_down(&mut self, ifindex: u32, name: &str) -> Result<()> {
        self.links.forget_down(ifindex, name)
    }
}

fn changed(ifindex: u32) -> impl Fn(io::Error) -> AttachError {
    move |source| AttachError::State { ifindex, source }
}

impl Links {
    fn note_down(&mut self, ifindex: u32, name: &str) -> Result<()> {
        let Some(note) = self.note(ifindex, name) else {
            self.down.insert((ifindex, name.to_owned()));
            return Ok(());
        };
        fs::create_dir_all(&note).map_err(pinned(&note))
    }

    fn is_noted_down(&self, ifindex: u32, name: &str) -> bool {
        match self.note(ifindex, name) {
            Some(note) => note.is_dir(),
            None => self.down.contains(&(ifindex, name.to_owned())),
        }
    }

    fn forget_down(&mut self, ifindex: u32, name: &str) -> Result<()> {
        let Some(note) = self.note(ifindex, name) else {
            self.down.remove(&(ifindex, name.to_owned()));
            return Ok(());
        };
        match fs::remove_dir(&note) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(pinned(&note)(error)),
            _ => Ok(()),
        }
    }

    /// The interfaces that were taken down.
    fn down(&self) -> Vec<(u32, String)> {
        match &self.pin_dir {
            None => self.down.iter().cloned().collect(),
            Some(pins) => noted(&notes(pins)).map(|(of, _)| of).collect(),
        }
    }

    fn note(&self, ifindex: u32, name: &str) -> Option<PathBuf> {
        // A name in the file system of pins may have no dot, which those of VLANs have.
        let name: String = name.bytes().map(|byte| format!("{byte:02x}")).collect();
        Some(notes(self.pin_dir.as_ref()?).join(format!("{ifindex}-{name}")))
    }
}

fn notes(pins: &std::path::Path) -> PathBuf {
    pins.join("down")
}

/// The interfaces that notes name, and the notes.
fn noted(notes: &std::path::Path) -> impl Iterator<Item = ((u32, String), PathBuf)> + use<> {
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
pub(crate) fn open_all(pins: &std::path::Path) -> Vec<AttachError> {
    let mut errors = Vec::new();
    let notes = notes(pins);
    for ((ifindex, _), note) in noted(&notes) {
        // The interface may be gone.
        match netlink::set_up(ifindex, true) {
            Err(error) if error.raw_os_error() != Some(libc::ENODEV) => {
                errors.push(changed(ifindex)(error));
            }
            _ => errors.extend(fs::remove_dir(&note).map_err(pinned(&note)).err()),
        }
    }
    match fs::remove_dir(&notes) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => errors.push(pinned(&notes)(error)),
        _ => {}
    }
    errors
}
