//! Reads a backup into a database in the making.

use std::{
    fs::File,
    io::BufReader,
    path::{Path, PathBuf},
};

use wardline_proto::backup::{BackupError, Contents, Part, Reader, Summary, check};

use super::{enforced::Enforced, error::StoreError, rebuild::Rebuild};

/// Why a backup can't be restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The backup.
    #[error("{}: {why}", path.display())]
    Backup {
        /// The file.
        path: PathBuf,
        /// Why; a part of the message, so it is no further error behind this one.
        why: BackupError,
    },
    /// The router's own files.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a backup has, once it was read to its end and found whole.
///
/// # Errors
/// When it is not.
pub fn contents(path: &Path) -> Result<Contents, RestoreError> {
    let failed = |why| RestoreError::Backup {
        path: path.to_owned(),
        why,
    };
    let file = File::open(path).map_err(|error| failed(error.into()))?;
    check(BufReader::new(file)).map_err(failed)
}

/// Fills a database from a backup; what was in force. Nothing of it may be used after an error.
///
/// # Errors
/// When the backup is not whole, or the database can't be written.
pub fn fill(rebuild: &mut Rebuild, path: &Path) -> Result<(Summary, Enforced), RestoreError> {
    let failed = |why| RestoreError::Backup {
        path: path.to_owned(),
        why,
    };
    let damaged = |why: String| failed(BackupError::Damaged(why));
    let file = File::open(path).map_err(|error| failed(error.into()))?;
    let (mut reader, summary) = Reader::open(BufReader::new(file)).map_err(failed)?;
    let mut in_force = None;
    while let Some(part) = reader.part().map_err(failed)? {
        match part {
            Part::InForce(bytes) => {
                let read = Enforced::from_bytes(&bytes);
                in_force = Some(read.map_err(|why| damaged(format!("what is in force {why}")))?);
            }
            Part::Row(row) => rebuild.keep(row)?,
            Part::Summary(_) | Part::End(_) => return Err(damaged("two beginnings".to_owned())),
        }
    }
    let in_force = in_force.ok_or_else(|| damaged("nothing is in force by it".to_owned()))?;
    Ok((summary, in_force))
}
