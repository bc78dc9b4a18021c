//! The notes of which interfaces have a qdisc that was made for filters in whose place there are links.
//!
//! An interface that is up loses packets when a qdisc goes. So it stays until the interface is no port
//! any more: a directory of the interface's index is kept beside the pins, as the qdisc itself can't
//! say who made it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

fn notes(pins: &Path) -> PathBuf {
    pins.join("clsact")
}

fn note_of(pins: &Path, ifindex: u32) -> PathBuf {
    notes(pins).join(ifindex.to_string())
}

pub(crate) fn note(pins: &Path, ifindex: u32) -> io::Result<()> {
    fs::create_dir_all(note_of(pins, ifindex))
}

pub(crate) fn is_noted(pins: &Path, ifindex: u32) -> bool {
    note_of(pins, ifindex).is_dir()
}

pub(crate) fn forget(pins: &Path, ifindex: u32) -> io::Result<()> {
    gone(fs::remove_dir(note_of(pins, ifindex)))
}

/// The interfaces that are noted; some may be gone.
pub(crate) fn all(pins: &Path) -> Vec<u32> {
    let entries = fs::read_dir(notes(pins)).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter_map(|name| name.parse().ok()).collect()
}

/// Removes the directory of the notes, which has none any more.
pub(crate) fn close(pins: &Path) -> io::Result<()> {
    gone(fs::remove_dir(notes(pins)))
}

fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}
