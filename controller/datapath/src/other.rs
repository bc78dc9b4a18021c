//! The tables that another version of the daemon has left pinned, an earlier or a later one.

use std::{
    fs, io,
    os::fd::{AsFd as _, BorrowedFd},
    path::{Path, PathBuf},
};

use aya::maps::{MapData, MapType};
use wardline_ebpf::abi::ABI_VERSION;

use crate::{
    bpf,
    error::{Result, map_error, pin_error},
    layout::{Conversion, Layout},
};

/// Another version's folder of pins.
#[derive(Clone, Debug)]
pub(crate) struct Other {
    directory: PathBuf,
}

/// A map that another version has pinned.
pub(crate) struct Table {
    name: &'static str,
    data: MapData,
    kind: MapType,
    pub(crate) key: usize,
    pub(crate) value: usize,
    pub(crate) entries: u32,
}

/// The versions whose tables are pinned, but for this one.
pub(crate) fn others(pin_dir: &Path) -> Vec<Other> {
    let own = format!("v{ABI_VERSION}");
    let versions = children(pin_dir).into_iter();
    let others = versions.filter(|path| path.file_name().is_some_and(|name| name != &*own));
    others
        .map(|directory| Other { directory })
        .filter(|it| !children(&it.maps()).is_empty())
        .collect()
}

/// What is in a folder; nothing where there is none.
fn children(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    entries.flatten().map(|entry| entry.path()).collect()
}

impl Other {
    /// The version, as its folder is called.
    pub(crate) fn version(&self) -> String {
        let name = self.directory.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    /// Where its tables are pinned.
    pub(crate) fn maps(&self) -> PathBuf {
        self.directory.join("maps")
    }

    /// Where a table is pinned.
    pub(crate) fn pin(&self, name: &str) -> PathBuf {
        self.maps().join(name)
    }

    /// Whether its links still hold programs, which may be its own.
    pub(crate) fn has_links(&self) -> bool {
        !children(&self.directory.join("links")).is_empty()
    }

    /// A table of this name, if it has one.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub(crate) fn table(&self, name: &'static str) -> Result<Option<Table>> {
        let path = self.pin(name);
        if !path.exists() {
            return Ok(None);
        }
        let data = MapData::from_pin(path).map_err(map_error(name))?;
        let info = data.info().map_err(map_error(name))?;
        Ok(Some(Table {
            name,
            kind: info.map_type().map_err(map_error(name))?,
            key: info.key_size() as usize,
            value: info.value_size() as usize,
            entries: info.max_entries(),
            data,
        }))
    }

    /// The form of its tables; none: it has not said it.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub(crate) fn layout(&self) -> Result<Option<Layout>> {
        let Some(table) = self.table("LAYOUT")? else {
            return Ok(None);
        };
        let text = table.lookup(&0u32.to_ne_bytes())?.unwrap_or_default();
        Ok(Some(Layout::parse(&text)))
    }

    /// Removes the pin of a table. What is open stays readable.
    ///
    /// # Errors
    ///
    /// When it is there and can't be removed.
    pub(crate) fn remove(&self, name: &str) -> Result<()> {
        let path = self.pin(name);
        absent(fs::remove_file(&path)).map_err(pin_error(&path))
    }

    /// Removes all pins and the folder.
    ///
    /// # Errors
    ///
    /// When something can't be removed; the rest is.
    pub(crate) fn remove_all(&self) -> Result<()> {
        let mut done = Ok(());
        let mut note = |path: &Path, removed: io::Result<()>| {
            if let Err(error) = absent(removed) {
                done = Err(pin_error(path)(error));
            }
        };
        for pin in children(&self.maps()) {
            note(&pin, fs::remove_file(&pin));
        }
        for directory in [
            self.maps(),
            self.directory.join("links"),
            self.directory.clone(),
        ] {
            note(&directory, fs::remove_dir(&directory));
        }
        done
    }
}

/// Nothing is wrong when there was nothing to remove.
fn absent(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

impl Table {
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.data.fd().as_fd()
    }

    /// Whether values are kept for each processor.
    fn is_per_processor(&self) -> bool {
        matches!(self.kind, MapType::PerCpuArray)
    }

    /// The value under a key, if there is one.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub(crate) fn lookup(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let processors = match self.is_per_processor() {
            true => aya::util::nr_cpus().map_err(|(_, error)| failed(self.name)(error))?,
            false => 1,
        };
        // Each processor's value begins at a multiple of eight.
        let mut value = vec![0; self.value.next_multiple_of(8) * processors];
        match bpf::lookup(self.fd(), key, &mut value) {
            Ok(true) => {
                if processors == 1 {
                    value.truncate(self.value);
                }
                Ok(Some(value))
            }
            Ok(false) => Ok(None),
            Err(error) => Err(failed(self.name)(error)),
        }
    }

    /// All entries of a hash. Those that change meanwhile may be missing.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub(crate) fn all(&self) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut entries = Vec::new();
        let mut key: Option<Vec<u8>> = None;
        // When the key that was read last is gone, the kernel begins anew: so there is a bound.
        for _ in 0..self.entries.saturating_mul(2) {
            let mut next = vec![0; self.key];
            let found = bpf::next_key(self.fd(), key.as_deref(), &mut next);
            if !found.map_err(failed(self.name))? {
                break;
            }
            if let Some(value) = self.lookup(&next)? {
                entries.push((next.clone(), value));
            }
            key = Some(next);
        }
        Ok(entries)
    }

    /// Entries of an array from an index on; at most `count`.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub(crate) fn some(&self, from: u32, count: u32) -> Result<Vec<u8>> {
        let mut values = vec![0u8; self.value * count as usize];
        bpf::read_array(self.fd(), from, self.value, &mut values).map_err(failed(self.name))?;
        Ok(values)
    }

    /// Whether keys and values have the sizes from which conversions begin.
    pub(crate) fn fits(&self, key: &Conversion, value: &Conversion) -> bool {
        (self.key, self.value) == (key.sizes().0, value.sizes().0)
    }
}

/// An error of a call that the loader does not have.
pub(crate) fn failed(name: &'static str) -> impl Fn(io::Error) -> crate::error::DatapathError {
    move |error| map_error(name)(aya::maps::MapError::IoError(error))
}
