//! Errors of the kernel, of programs and of maps.

use std::{
    io,
    path::{Path, PathBuf},
};

use aya::{maps::MapError, programs::ProgramError};

/// Why a program is not attached as it should be.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// Another program is where ours would be.
    #[error("{0}")]
    Taken(String),
    /// The interface, or one above it, does not allow the program.
    #[error("{0}")]
    Barred(String),
    /// The kernel refused.
    #[error("program {program}: {source}")]
    Refused {
        /// The program.
        program: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A pinned link.
    #[error("{}: {source}", path.display())]
    Pin {
        /// The pin.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The filters of interfaces.
    #[error("filters of interface {ifindex}: {source}")]
    Filters {
        /// The interface; 0: any.
        ifindex: u32,
        /// Why.
        source: io::Error,
    },
    /// Whether the interface is up.
    #[error("interface {ifindex} can't be taken down or up: {source}")]
    State {
        /// The interface.
        ifindex: u32,
        /// Why.
        source: io::Error,
    },
    /// The program is not there.
    #[error(transparent)]
    Program(#[from] DatapathError),
}

/// Why the kernel did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum DatapathError {
    /// The object could not be loaded.
    #[error("could not load the programs: {0}")]
    Load(#[from] aya::EbpfError),
    /// The object can't be parsed.
    #[error("could not read the programs: {0}")]
    Parse(#[from] aya_obj::ParseError),
    /// A program could not be loaded or run.
    #[error("program {name}: {source}")]
    Program {
        /// The program.
        name: &'static str,
        /// Why.
        source: Box<ProgramError>,
    },
    /// A program could not be run.
    #[error("program {name}: {source}")]
    Run {
        /// The program.
        name: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A map could not be read or written.
    #[error("table {name}: {source}")]
    Map {
        /// The map.
        name: &'static str,
        /// Why.
        source: MapError,
    },
    /// A map or program is not in the object.
    #[error("the object has no {0}")]
    Missing(&'static str),
    /// A pinned map has another form.
    #[error("{} has another form than this version's; wardlined --detach removes it", .0.display())]
    Incompatible(PathBuf),
    /// A table has no room.
    #[error("table {name} would hold {wanted} entries, of at most {max}")]
    Full {
        /// The table.
        name: &'static str,
        /// The entries that it would need.
        wanted: usize,
        /// The entries that it has room for.
        max: usize,
    },
    /// A path below the pin directory.
    #[error("{}: {source}", path.display())]
    Pin {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

pub(crate) type Result<T> = std::result::Result<T, DatapathError>;

pub(crate) fn program_error(name: &'static str) -> impl Fn(ProgramError) -> DatapathError {
    move |source| DatapathError::Program {
        name,
        source: Box::new(source),
    }
}

pub(crate) fn map_error(name: &'static str) -> impl Fn(MapError) -> DatapathError {
    move |source| DatapathError::Map { name, source }
}

pub(crate) fn pin_error(path: &Path) -> impl Fn(io::Error) -> DatapathError + use<> {
    let path = path.to_owned();
    move |source| DatapathError::Pin {
        path: path.clone(),
        source,
    }
}
