//! Writes events into the journal, and takes out those that have to go.
//!
//! When there is no room, the oldest events of the device with the most go, of the port with the most, as
//! in memory (`telemetry::kept`): noise takes the place of its own maker's events only, also in a month.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Transaction, params};

use super::{super::event::Event, Fill};

/// Words whose numbers are remembered.
const WORDS: usize = 10_000;
/// Words from which on it is looked which of them no event has any more.
const MANY_WORDS: i64 = 100_000;
/// Events that go at once.
const BATCH: i64 = 2000;
/// How often so many go before an event is written, at most.
const BATCHES: usize = 20;

/// Who has made events: interface and device, by the numbers of their words.
type Maker = (Option<i64>, Option<i64>);

/// The open journal.
pub(super) struct Writer {
    connection: Connection,
    words: HashMap<String, i64>,
    /// How many events each maker has.
    makers: BTreeMap<Maker, u64>,
    forgotten: u64,
}

impl Writer {
    pub(super) fn new(connection: Connection) -> rusqlite::Result<Self> {
        let mut statement = connection
            .prepare("SELECT interface, device, count(*) FROM events GROUP BY interface, device")?;
        let rows = statement.query_map([], |row| {
            Ok(((row.get(0)?, row.get(1)?), row.get::<_, u32>(2)?.into()))
        })?;
        let makers = rows.collect::<rusqlite::Result<_>>()?;
        drop(statement);
        let writer = Self {
            connection,
            words: HashMap::new(),
            makers,
            forgotten: 0,
        };
        writer.drop_words()?;
        Ok(writer)
    }

    /// Writes events in one transaction, which is on the disk when this returns.
    pub(super) fn add(&mut self, events: &[Arc<Event>]) -> rusqlite::Result<()> {
        if events.is_empty() {
            return Ok(());
        }
        if self.words.len() > WORDS {
            self.words.clear();
        }
        let transaction = self.connection.transaction()?;
        let mut made = Vec::with_capacity(events.len());
        let added = events.iter().try_for_each(|event| {
            made.push(add(&transaction, &mut self.words, event)?);
            Ok(())
        });
        if let Err(error) = added.and_then(|()| transaction.commit()) {
            // Their numbers were given in the transaction.
            self.words.clear();
            return Err(error);
        }
        for maker in made {
            *self.makers.entry(maker).or_default() += 1;
        }
        Ok(())
    }

    /// Takes out events until the file is well below its bound.
    pub(super) fn make_room(&mut self, bytes: u64) -> rusqlite::Result<()> {
        // The rest is for what is not in the file yet.
        let most = bytes / 8 * 7;
        if self.used()? <= most {
            return Ok(());
        }
        for _ in 0..BATCHES {
            if self.used()? <= most / 100 * 98 {
                break;
            }
            let Some(maker) = self.fullest() else {
                break;
            };
            let taken = self.connection.execute(
                "DELETE FROM events WHERE id IN (
                     SELECT id FROM events WHERE interface IS ?1 AND device IS ?2
                     ORDER BY id LIMIT ?3)",
                params![maker.0, maker.1, BATCH],
            )?;
            self.forgotten += taken as u64;
            self.take(maker, taken as u64);
        }
        Ok(())
    }

    /// The device with the most, of the port with the most.
    fn fullest(&self) -> Option<Maker> {
        let mut ports: BTreeMap<Option<i64>, u64> = BTreeMap::new();
        for ((port, _), count) in &self.makers {
            *ports.entry(*port).or_default() += count;
        }
        let (port, _) = ports.into_iter().max_by_key(|(_, count)| *count)?;
        let of_port = self
            .makers
            .range((port, None)..)
            .take_while(|(it, _)| it.0 == port);
        of_port
            .max_by_key(|(_, count)| **count)
            .map(|(maker, _)| *maker)
    }

    fn take(&mut self, maker: Maker, count: u64) {
        if let Some(left) = self.makers.get_mut(&maker) {
            *left = left.saturating_sub(count);
            // One that has none left could be chosen again and again.
            if *left == 0 || count == 0 {
                self.makers.remove(&maker);
            }
        }
    }

    /// Takes out events with smaller numbers, so many at a time.
    pub(super) fn forget_before(&mut self, id: i64) -> rusqlite::Result<()> {
        for _ in 0..BATCHES {
            let mut statement = self.connection.prepare_cached(
                "DELETE FROM events WHERE id IN (
                     SELECT id FROM events WHERE id < ?1 ORDER BY id LIMIT ?2)
                 RETURNING interface, device",
            )?;
            let gone =
                statement.query_map(params![id, BATCH], |row| Ok((row.get(0)?, row.get(1)?)))?;
            let gone = gone.collect::<rusqlite::Result<Vec<Maker>>>()?;
            drop(statement);
            let is_last = gone.len() < BATCH as usize;
            gone.into_iter().for_each(|maker| self.take(maker, 1));
            if is_last {
                break;
            }
        }
        Ok(())
    }

    /// Forgets words that no event has, when there are many.
    fn drop_words(&self) -> rusqlite::Result<()> {
        let count = "SELECT count(*) FROM words";
        let words: i64 = self.connection.query_row(count, [], |row| row.get(0))?;
        if words > MANY_WORDS {
            let columns = [
                "rule",
                "device",
                "zone",
                "peer",
                "peer_zone",
                "interface",
                "service_name",
            ];
            let used = columns.map(|it| format!("SELECT {it} FROM events WHERE {it} IS NOT NULL"));
            let used = used.join(" UNION ");
            let unused = format!("DELETE FROM words WHERE id NOT IN ({used})");
            self.connection.execute(&unused, [])?;
        }
        Ok(())
    }

    /// Bytes of the pages that are in use.
    fn used(&self) -> rusqlite::Result<u64> {
        let number = |name| {
            self.connection
                .pragma_query_value(None, name, |row| row.get::<_, u32>(0))
                .map(u64::from)
        };
        Ok((number("page_count")? - number("freelist_count")?) * number("page_size")?)
    }

    pub(super) fn fill(&self) -> rusqlite::Result<Fill> {
        let oldest = "SELECT min(id) FROM events";
        let oldest: Option<i64> = self
            .connection
            .query_row(oldest, [], |row| row.get(0))
            .optional()?
            .flatten();
        Ok(Fill {
            events: self.makers.values().sum(),
            oldest: oldest.and_then(|id| Timestamp::from_microsecond(id).ok()),
            bytes: self.used()?,
            forgotten: self.forgotten,
        })
    }
}

/// Writes one event; returns whose it is.
fn add(
    transaction: &Transaction<'_>,
    words: &mut HashMap<String, i64>,
    event: &Event,
) -> rusqlite::Result<Maker> {
    let mut word = |text: &str| word(transaction, words, text);
    let maker = (word(&event.interface)?, word(&event.device)?);
    // An address is in the event anyway, and would be a word for ever.
    let peer = match event.peer == event.peer_address() {
        true => None,
        false => word(&event.peer)?,
    };
    let (rule, zone, peer_zone) = (
        word(&event.rule)?,
        word(&event.zone)?,
        word(&event.peer_zone)?,
    );
    let service_name = word(&event.service_name)?;
    let mut put = transaction.prepare_cached(
        "INSERT OR IGNORE INTO events VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12,
             ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24)",
    )?;
    let mut id = event.id;
    // A number is taken where the clock was set back. Events are far fewer than microseconds.
    while put.execute(params![
        id,
        event.time.as_microsecond(),
        event.verdict as u8,
        event.reason.map(|it| it as u8),
        rule,
        maker.1,
        zone,
        peer,
        peer_zone,
        maker.0,
        event.vlan,
        event.towards,
        event.observed,
        event.source,
        event.destination,
        event.service,
        event.asked,
        service_name,
        i64::try_from(event.count).unwrap_or(i64::MAX),
        event.destinations,
        i64::try_from(event.revision).unwrap_or(i64::MAX),
        event.source_mac,
        event.source_port,
        event.message,
    ])? == 0
    {
        id += 1;
    }
    Ok(maker)
}

/// The number of a word, which is given now if it has none; none: the word is empty.
fn word(
    transaction: &Transaction<'_>,
    words: &mut HashMap<String, i64>,
    text: &str,
) -> rusqlite::Result<Option<i64>> {
    if text.is_empty() {
        return Ok(None);
    }
    if let Some(known) = words.get(text) {
        return Ok(Some(*known));
    }
    let mut find = transaction.prepare_cached("SELECT id FROM words WHERE text = ?1")?;
    let known = find.query_row([text], |row| row.get(0)).optional()?;
    let number = match known {
        Some(known) => known,
        None => {
            let mut put = transaction.prepare_cached("INSERT INTO words (text) VALUES (?1)")?;
            put.insert([text])?
        }
    };
    words.insert(text.to_owned(), number);
    Ok(Some(number))
}
