//! Who is in quarantine, as the database has them: by identity, with the reason and who gave it.

use rusqlite::{Connection, Transaction, params, types::Type};
use wardline_policy::{
    document::Document as Policy,
    quarantine::{Hold, Identity, Quarantine},
};

use super::revision::Held;

/// All of them. What can't be read is an error: nobody is released by damage.
pub(super) fn read(connection: &Connection) -> rusqlite::Result<Quarantine> {
    // A database that is only looked at may be of an earlier version.
    let tables = "SELECT count(*) FROM sqlite_schema WHERE name = 'held'";
    let is_new: u32 = connection.query_row(tables, [], |row| row.get(0))?;
    let query = if is_new == 0 {
        "SELECT 'device:' || device, device, '', '', '1970-01-01T00:00:00Z' FROM quarantined
         UNION ALL SELECT 'port:' || port, port, '', '', '1970-01-01T00:00:00Z' FROM quarantined_ports"
    } else {
        "SELECT identity, name, actor, reason, since FROM held"
    };
    let mut statement = connection.prepare(query)?;
    let rows = statement.query_map([], |row| {
        let text = |column: usize| row.get::<_, String>(column);
        let wrong = |column: usize, name: &str| {
            rusqlite::Error::InvalidColumnType(column, name.to_owned(), Type::Text)
        };
        let identity: Identity = text(0)?.parse().map_err(|_| wrong(0, "identity"))?;
        let hold = Hold {
            name: text(1)?,
            actor: text(2)?,
            reason: text(3)?,
            since: text(4)?.parse().map_err(|_| wrong(4, "since"))?,
        };
        Ok((identity, hold))
    })?;
    rows.collect()
}

/// Writes one, or deletes it.
pub(super) fn write(
    transaction: &Transaction<'_>,
    identity: &Identity,
    hold: Option<&Hold>,
) -> rusqlite::Result<()> {
    let identity = identity.to_string();
    let Some(hold) = hold else {
        transaction.execute("DELETE FROM held WHERE identity = ?1", [identity])?;
        return Ok(());
    };
    let Hold {
        name,
        actor,
        reason,
        since,
    } = hold;
    transaction.execute(
        "INSERT OR REPLACE INTO held VALUES (?1, ?2, ?3, ?4, ?5)",
        params![identity, name, actor, reason, since.to_string()],
    )?;
    Ok(())
}

/// Remembers who is in quarantine, or no longer.
pub(crate) fn remember(quarantined: &mut Quarantine, held: Held<'_>) {
    for identity in held.identities {
        quarantined.set(identity, held.hold);
    }
}

/// What each device of a document is known by in quarantine, by its name.
pub(crate) fn identities(policy: &Policy) -> impl Iterator<Item = (&str, Vec<Identity>)> {
    policy.devices.iter().map(|device| {
        let macs = device.macs.iter().filter_map(|it| it.parse().ok());
        let mut own: Vec<Identity> = macs.map(Identity::Mac).collect();
        if own.is_empty() {
            let addresses = device.addresses.iter().filter_map(|it| it.parse().ok());
            own.extend(addresses.map(Identity::Address));
        }
        (device.name.as_str(), own)
    })
}
