//! The manual pages, made from the definition of the command line.

use std::path::Path;

use clap::CommandFactory as _;

use crate::{
    args::Args,
    exit::{Exit, Failure},
};

/// Writes one page for the program and one for each command into a folder.
///
/// # Errors
/// The folder can't be written.
pub(crate) fn write(directory: &Path) -> Result<Exit, Failure> {
    let failed = |error| Failure::failed(format!("{}: {error}", directory.display()));
    std::fs::create_dir_all(directory).map_err(failed)?;
    clap_mangen::generate_to(Args::command(), directory).map_err(failed)?;
    Ok(Exit::Done)
}
