//! Keeps what is known of MACs in a database of its own, off the engine's thread. Losing it loses no policy.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use prost::Message as _;
use rusqlite::{Connection, params};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use tracing::warn;
use wardline_policy::words::mac::Mac;

use super::{known::Known, seen::Seen};

/// How often what has changed is written.
const EVERY: Duration = Duration::from_secs(10);

/// Adds what was kept from before, then writes what changes until told to stop.
pub async fn remember(known: Known, state_dir: PathBuf, stop: CancellationToken) {
    let mut database = None;
    loop {
        let (known_now, path, held) = (known.clone(), state_dir.clone(), database.take());
        let written = spawn_blocking(move || write(&known_now, &path, held)).await;
        match written {
            Ok(Ok(held)) => database = Some(held),
            Ok(Err(error)) => warn!(%error, "what is known of devices is not written"),
            Err(error) => warn!(%error, "what is known of devices is not written"),
        }
        if stop.is_cancelled() {
            return;
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

/// Writes what has changed; opens the database first, if it is not open.
fn write(
    known: &Known,
    state_dir: &Path,
    held: Option<Connection>,
) -> rusqlite::Result<Connection> {
    let mut connection = match held {
        Some(connection) => connection,
        None => {
            let connection = open(&state_dir.join("facts.db"))?;
            known.add(read(&connection)?);
            connection
        }
    };
    let changed = known.changed();
    if changed.is_empty() {
        return Ok(connection);
    }
    let macs: Vec<Mac> = changed.iter().map(|(mac, _)| *mac).collect();
    let written = put(&mut connection, &changed);
    if let Err(error) = written {
        known.not_written(macs.into_iter());
        return Err(error);
    }
    Ok(connection)
}

fn open(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.execute_batch(
        "CREATE TABLE IF NOT EXISTS seen (mac TEXT PRIMARY KEY, seen BLOB NOT NULL)
         STRICT, WITHOUT ROWID;",
    )?;
    Ok(connection)
}

fn read(connection: &Connection) -> rusqlite::Result<Vec<(Mac, Seen)>> {
    let mut statement = connection.prepare("SELECT mac, seen FROM seen LIMIT 200000")?;
    let rows = statement.query_map([], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, Vec<u8>>(1)?))
    })?;
    let mut kept = Vec::new();
    for row in rows {
        let (mac, seen) = row?;
        if let (Ok(mac), Ok(seen)) = (mac.parse(), Seen::decode(seen.as_slice())) {
            kept.push((mac, seen));
        }
    }
    Ok(kept)
}

fn put(connection: &mut Connection, changed: &[(Mac, Option<Seen>)]) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    for (mac, seen) in changed {
        let mac = mac.to_string();
        match seen {
            Some(seen) => transaction.execute(
                "INSERT OR REPLACE INTO seen VALUES (?1, ?2)",
                params![mac, seen.encode_to_vec()],
            )?,
            None => transaction.execute("DELETE FROM seen WHERE mac = ?1", [mac])?,
        };
    }
    transaction.commit()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_there_after_a_restart() {
        let directory = std::env::temp_dir().join(format!("wardline-facts-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory");
        let mac = Mac([2, 0, 0, 0, 1, 0x11]);
        let known = Known::default();
        known.change(mac, |_| true, |seen| seen.hostname = "pump".to_owned());
        drop(write(&known, &directory, None).expect("written"));
        let again = Known::default();
        drop(write(&again, &directory, None).expect("read"));
        let seen = again.get(&mac).expect("known");
        std::fs::remove_dir_all(&directory).expect("removed");
        assert_eq!(seen.hostname, "pump");
        assert!(again.changed().is_empty());
    }
}
