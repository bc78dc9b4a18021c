//! A database made anew beside the one that is there, and put in its place in one step. What was
//! there is set aside first, and nothing is deleted.

use std::{
    collections::BTreeSet,
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, chown},
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::Timestamp;
use tracing::warn;
use wardline_policy::document::diff::Extent;
use wardline_proto::backup::Row;

use super::{
    PENDING, Store,
    enforced::Enforced,
    error::StoreError,
    revision::{Document, Fact, Held, NewRevision},
    rows,
};

/// A database in the making.
pub struct Rebuild {
    store: Store,
    state_dir: PathBuf,
    directory: PathBuf,
    kept: BTreeSet<u64>,
}

/// The revision that ends a rebuilt history.
pub struct Last<'a> {
    /// Its number: beyond all that were seen anywhere.
    pub number: u64,
    /// What made it.
    pub kind: &'a str,
    /// Who.
    pub actor: &'a str,
    /// Why.
    pub reason: &'a str,
}

/// What is set aside.
const FILES: [&str; 5] = [
    "wardline.db",
    "wardline.db-wal",
    "enforced/0",
    "enforced/1",
    "guarded",
];

impl Rebuild {
    /// Begins. What an earlier one left is removed.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn begin(state_dir: &Path) -> Result<Self, StoreError> {
        let directory = state_dir.join("rebuild");
        let failed = |source| StoreError::File {
            path: directory.clone(),
            source,
        };
        remove(&directory).map_err(failed)?;
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(&directory).map_err(failed)?;
        let store = Store::open(&directory)?;
        store
            .history
            .with(|connection| connection.execute_batch("BEGIN"))?;
        Ok(Self {
            store,
            state_dir: state_dir.to_owned(),
            directory,
            kept: BTreeSet::new(),
        })
    }

    /// Adds a revision, after those before it. One whose own parent is not there follows the one
    /// before, so that nothing leads to what is lost.
    ///
    /// # Errors
    /// When it can't be written, or the document that it edits is not there.
    pub fn keep(&mut self, mut row: Row) -> Result<(), StoreError> {
        if row.base != 0 && !self.kept.contains(&row.base) {
            let why = format!("revision {} edits what is missing", row.revision);
            return Err(self.store.history.damaged(&why));
        }
        if row.parent != 0 && !self.kept.contains(&row.parent) {
            row.parent = self.kept.last().copied().unwrap_or_default();
        }
        self.store
            .history
            .with(|connection| rows::insert(connection, &row))?;
        self.kept.insert(row.revision);
        Ok(())
    }

    /// Ends the history with what is in force, and puts it in its place. Returns what is in force
    /// then, and where the old files are, if there were any.
    ///
    /// # Errors
    /// When it can't be written. Then what was there is still there.
    pub fn finish(
        mut self,
        mut in_force: Enforced,
        last: &Last<'_>,
    ) -> Result<(Enforced, Option<PathBuf>), StoreError> {
        let history = self.store.history.clone();
        history.with(|connection| connection.execute_batch("COMMIT"))?;
        for owed in std::mem::take(&mut in_force.owed) {
            if history.change(owed.revision)?.is_none()
                && let Err(error) = owed.record(&mut self.store, &in_force.ids)
            {
                warn!(%error, revision = owed.revision, "is not in the history");
            }
        }
        self.end(&in_force, last)?;
        in_force.revision = last.number;
        history.close();
        let Self {
            state_dir,
            directory,
            ..
        } = self;
        let failed = |source| StoreError::File {
            path: state_dir.clone(),
            source,
        };
        let aside = put_in_place(&state_dir, &directory).map_err(failed)?;
        Ok((in_force, aside))
    }

    /// Writes the last revision, and what holds beside its document.
    fn end(&mut self, in_force: &Enforced, last: &Last<'_>) -> Result<(), StoreError> {
        let newest = self.store.history.list(1)?.pop();
        let parent = newest.map_or(0, |it| it.revision);
        let document = if parent == in_force.revision && parent != 0 {
            Document::Of(parent)
        } else {
            Document::Whole(&in_force.policy)
        };
        let cut = in_force.quarantined.iter().map(|(identity, hold)| {
            Fact::Held(Held {
                subject: "",
                identities: std::slice::from_ref(identity),
                hold: Some(hold),
            })
        });
        let grants = in_force.grants.iter();
        let grants = grants.map(|(rule, expires)| Fact::Grant(rule, *expires));
        let facts: Vec<Fact<'_>> = [Fact::Meta(PENDING, in_force.pending.as_deref())]
            .into_iter()
            .chain(cut)
            .chain(grants)
            .collect();
        let new = NewRevision {
            number: Some(last.number),
            parent,
            time: Timestamp::now(),
            actor: last.actor,
            reason: last.reason,
            kind: last.kind,
            request_id: "",
            document,
            extent: Extent::default(),
            facts: &facts,
        };
        let ids = Arc::clone(&in_force.ids);
        self.store.append(&new, &ids).map(drop)
    }
}

/// Replaces the database. Until the rename, the old one counts; from then on, the new one. A copy of
/// an earlier revision gives way to it at the next start.
fn put_in_place(state_dir: &Path, directory: &Path) -> io::Result<Option<PathBuf>> {
    let new = directory.join("wardline.db");
    File::open(&new)?.sync_all()?;
    let aside = set_aside(state_dir)?;
    // What belongs to the old database must not be read into the new one.
    for old in ["wardline.db-wal", "wardline.db-shm"] {
        remove(&state_dir.join(old))?;
    }
    fs::rename(&new, state_dir.join("wardline.db"))?;
    File::open(state_dir)?.sync_all()?;
    remove(directory)?;
    Ok(aside)
}

/// Keeps what is there under another name, too; none: nothing is there.
///
/// # Errors
/// When that can't be done.
pub fn set_aside(state_dir: &Path) -> io::Result<Option<PathBuf>> {
    let is_there = |name: &&str| fs::metadata(state_dir.join(name)).is_ok_and(|it| it.len() != 0);
    let there: Vec<&str> = FILES.into_iter().filter(is_there).collect();
    if there.is_empty() {
        return Ok(None);
    }
    let time = Timestamp::now().strftime("%Y-%m-%dT%H-%M-%S%.3fZ");
    let aside = state_dir.join(format!("aside-{time}"));
    let mut builder = DirBuilder::new();
    builder.mode(0o700);
    builder.create(&aside)?;
    for name in there {
        let (from, to) = (state_dir.join(name), aside.join(name));
        if let Some(folder) = to.parent().filter(|folder| !folder.exists()) {
            builder.create(folder)?;
        }
        // A second name takes no room; some file systems have none.
        if fs::hard_link(&from, &to).is_err() {
            fs::copy(&from, &to)?;
        }
    }
    File::open(&aside)?.sync_all()?;
    Ok(Some(aside))
}

/// Removes a file or a folder, if it is there.
///
/// # Errors
/// When it can't be removed.
pub fn remove(path: &Path) -> io::Result<()> {
    let removed = if path.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Gives everything in a directory to whom the directory belongs: the daemon runs as a user of its
/// own, and who restores is root.
///
/// # Errors
/// When that can't be done.
pub fn hand_over(directory: &Path) -> io::Result<()> {
    let owner = fs::metadata(directory)?;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let there = entry.metadata()?;
        if (there.uid(), there.gid()) != (owner.uid(), owner.gid()) {
            chown(entry.path(), Some(owner.uid()), Some(owner.gid()))?;
        }
        if there.is_dir() {
            hand_over(&entry.path())?;
        }
    }
    Ok(())
}

/// Who runs this program, as the audit names callers of the socket.
pub fn actor() -> String {
    let uid = fs::metadata("/proc/self").map(|it| it.uid());
    uid.map_or_else(|_| "local".to_owned(), |uid| format!("uid:{uid}"))
}
