//! Reads what can be read of a database, whatever its state, and changes nothing of it.

use std::{collections::BTreeSet, fs, path::Path, sync::Arc, time::Duration};

use prost::Message as _;
use rusqlite::{Connection, ErrorCode, OpenFlags, config::DbConfig};
use wardline_policy::document::{Document as Policy, edit::Edit};
use wardline_proto::backup::Row;

use super::{Store, enforced::Enforced, error::StoreError, history::History, read_facts, rows};

/// The state of a database.
pub enum Database {
    /// There is no file.
    Gone,
    /// There is a file without content.
    Empty,
    /// Nothing of it can be read.
    Unreadable(String),
    /// Something can be read.
    There(Salvage),
}

impl Database {
    /// Whether there is nothing in it, and nothing wrong with it.
    pub fn is_new(&self) -> bool {
        match self {
            Self::Gone | Self::Empty => true,
            Self::Unreadable(_) => false,
            Self::There(salvage) => salvage.is_new(),
        }
    }
}

/// What can be read of a database.
pub struct Salvage {
    history: History,
    /// The numbers of the rows that can be reached.
    numbers: Vec<u64>,
    /// What is wrong with it; none: it is whole.
    pub damage: Option<String>,
    /// The revisions whose documents can be read, too.
    pub readable: BTreeSet<u64>,
    /// How many rows were found and can't be used.
    pub lost: usize,
}

/// Most numbers that are tried one by one, where pages between are damaged.
const MOST: u64 = 1_000_000;
/// How long a daemon that ends may hold the file.
const PATIENCE: Duration = Duration::from_secs(2);

/// Looks at the database of a directory.
///
/// # Errors
/// When a daemon uses it.
pub fn look(state_dir: &Path) -> Result<Database, StoreError> {
    let history = History::away(state_dir);
    match fs::metadata(history.path()) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Database::Gone),
        Err(error) => return Ok(Database::Unreadable(error.to_string())),
        Ok(file) if file.len() == 0 => return Ok(Database::Empty),
        Ok(_) => {}
    }
    let opened = open(history.path());
    match opened {
        Ok((connection, damage)) => Ok(Database::There(Salvage::of(history, connection, damage))),
        Err(error) => match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                Err(StoreError::InUse(history.path().to_owned()))
            }
            _ => Ok(Database::Unreadable(error.to_string())),
        },
    }
}

/// Opens a database for reading, and says what is wrong with it. SQLite writes nothing into it, not
/// even what waits in its log.
fn open(path: &Path) -> rusqlite::Result<(Connection, Option<String>)> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.busy_timeout(PATIENCE)?;
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    connection.pragma_update(None, "query_only", true)?;
    let check = "PRAGMA quick_check(1)";
    let damage = match connection.query_row(check, [], |row| row.get::<_, String>(0)) {
        Ok(found) if found == "ok" => None,
        Ok(found) => Some(found.replace('\n', " ")),
        Err(error) => match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt) => Some(error.to_string()),
            _ => return Err(error),
        },
    };
    Ok((connection, damage))
}

impl Salvage {
    fn of(history: History, connection: Connection, damage: Option<String>) -> Self {
        let numbers = numbers(&connection);
        history.open(connection);
        let mut salvage = Self {
            history,
            numbers,
            damage,
            readable: BTreeSet::new(),
            lost: 0,
        };
        let mut readable = BTreeSet::new();
        // Reading never fails here: what can't be read is not among them.
        let _ = salvage.rows(|row| {
            readable.insert(row.revision);
            Ok(())
        });
        salvage.lost = salvage.numbers.len() - readable.len();
        if salvage.lost != 0 && salvage.damage.is_none() {
            salvage.damage = Some(format!("{} revisions can't be read", salvage.lost));
        }
        salvage.readable = readable;
        salvage
    }

    /// Whether it is the database of a router that never had a policy.
    pub fn is_new(&self) -> bool {
        self.numbers.is_empty() && self.damage.is_none()
    }

    /// Hands over each revision whose document can be read, oldest first.
    ///
    /// # Errors
    /// Those of `take`.
    pub fn rows(
        &self,
        mut take: impl FnMut(Row) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut readable = BTreeSet::new();
        for number in &self.numbers {
            let row = self
                .history
                .with(|connection| rows::next(connection, number - 1, *number));
            let Ok(Some(row)) = row else { continue };
            if is_whole(&row, &readable) {
                readable.insert(row.revision);
                take(row)?;
            }
        }
        Ok(())
    }

    /// The newest revision that can be read, and whether what holds beside its document can be.
    pub fn in_force(&self) -> Option<(Enforced, bool)> {
        let newest = *self.readable.last()?;
        let facts = self.history.with(|connection| read_facts(connection)).ok();
        let known = facts.is_some();
        let (ids, quarantined, grants) = facts.unwrap_or_default();
        let grants = grants.into_iter();
        let store = Store {
            history: self.history.clone(),
            ids: Arc::new(ids),
            quarantined,
            grants: grants
                .filter_map(|(rule, expires)| Some((rule, expires.parse().ok()?)))
                .collect(),
        };
        match store.enforced() {
            Ok(Some(enforced)) if enforced.revision == newest => Some((enforced, known)),
            Ok(None) => None,
            // The row after it is damaged, or what returns.
            _ => {
                let stored = self.history.get(newest).ok()??;
                Some((
                    Enforced {
                        revision: newest,
                        policy: Arc::new(stored.policy),
                        ids: Arc::clone(&store.ids),
                        quarantined: store.quarantined,
                        grants: store.grants,
                        ..Enforced::default()
                    },
                    known,
                ))
            }
        }
    }
}

impl Drop for Salvage {
    /// SQLite makes a log even for reading. It is removed while the file is still locked, because a
    /// daemon that opens the database has one of the same name.
    fn drop(&mut self) {
        let log = self.history.path().with_extension("db-wal");
        if fs::metadata(&log).is_ok_and(|it| it.len() == 0) {
            let _ = fs::remove_file(log);
        }
        self.history.close();
    }
}

/// Whether a row's document can be read, alone or from those before it.
fn is_whole(row: &Row, readable: &BTreeSet<u64>) -> bool {
    let document = row.document.as_slice();
    let time: Result<jiff::Timestamp, _> = row.time.parse();
    time.is_ok()
        && match (row.base, document.is_empty()) {
            (0, _) => Policy::decode(document).is_ok(),
            (base, true) => readable.contains(&base),
            (base, false) => readable.contains(&base) && Edit::decode(document).is_ok(),
        }
}

/// The numbers of the rows that can be reached: from the first on, from the last back, and between
/// one by one.
fn numbers(connection: &Connection) -> Vec<u64> {
    let reach = |order: &str| -> Vec<u64> {
        let query = format!("SELECT revision FROM revisions ORDER BY revision {order}");
        let Ok(mut statement) = connection.prepare(&query) else {
            return Vec::new();
        };
        let Ok(rows) = statement.query_map([], |row| row.get::<_, i64>(0)) else {
            return Vec::new();
        };
        rows.map_while(Result::ok)
            .filter_map(|number| u64::try_from(number).ok())
            .filter(|number| *number != 0)
            .collect()
    };
    let (up, down) = (reach("ASC"), reach("DESC"));
    let mut numbers: BTreeSet<u64> = up.iter().chain(&down).copied().collect();
    let low = up.last().copied().unwrap_or_default();
    let high = down.last().copied().unwrap_or(low);
    for number in (low + 1..high).rev().take(MOST as usize) {
        let query = "SELECT revision FROM revisions WHERE revision = ?1";
        let found = connection.query_row(query, [rows::signed(number)], |row| row.get::<_, i64>(0));
        if found.is_ok() {
            numbers.insert(number);
        }
    }
    numbers.into_iter().collect()
}

#[cfg(test)]
mod tests;
