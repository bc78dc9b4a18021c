//! Pages of the journal: the events that pass a filter, in the order of time.

use std::{fmt::Write as _, path::Path};

use jiff::Timestamp;
use rusqlite::{Connection, Row, ToSql, params_from_iter};
use wardline_ebpf::abi::Reason;

use super::{
    super::{
        event::{Event, Verdict},
        filter::{Asked, Filter, Who},
    },
    schema::open_to_read,
};

/// Which events of those that pass a filter are wanted.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    /// Only those with a larger number.
    pub after: i64,
    /// Only those with this number or a smaller one.
    pub through: i64,
    /// At most so many.
    pub most: usize,
    /// Which, if there are more. They come in the order of time in any case.
    pub order: Order,
}

/// Which events come when there are more than wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The oldest.
    Oldest,
    /// The newest.
    Newest,
}

/// Reads a page. Each is a read transaction of its own, so that a slow client does not keep the journal
/// from being cleaned up.
pub(super) fn page(path: &Path, filter: &Filter, page: Page) -> rusqlite::Result<Vec<Event>> {
    let connection = open_to_read(path)?;
    let mut question = Question {
        connection: &connection,
        values: Vec::new(),
    };
    let ids = question.ids(filter, page)?;
    let order = match page.order {
        Order::Oldest => "ASC",
        Order::Newest => "DESC",
    };
    let text = |column: &str| format!("(SELECT text FROM words WHERE words.id = {column})");
    let [rule, device, zone, peer, peer_zone, interface, service_name] = [
        "rule",
        "device",
        "zone",
        "peer",
        "peer_zone",
        "interface",
        "service_name",
    ]
    .map(text);
    let query = format!(
        "SELECT id, time, verdict, reason, {rule}, {device}, {zone}, {peer}, {peer_zone},
                {interface}, vlan, towards, observed, source, destination, service, asked,
                {service_name}, count, destinations, revision, source_mac, source_port, message
         FROM events WHERE id IN ({ids}) ORDER BY id {order} LIMIT {}",
        page.most
    );
    let mut statement = connection.prepare(&query)?;
    let rows = statement.query_map(params_from_iter(question.values), event)?;
    let mut events = rows.collect::<rusqlite::Result<Vec<Event>>>()?;
    if page.order == Order::Newest {
        events.reverse();
    }
    Ok(events)
}

/// A question to the database, with the values that its text has places for.
struct Question<'a> {
    connection: &'a Connection,
    values: Vec<Box<dyn ToSql>>,
}

impl Question<'_> {
    /// The query of the numbers that are wanted. Those of devices come from two indexes; for the rest all
    /// events of the time are looked at, which are numbers beside numbers.
    fn ids(&mut self, filter: &Filter, page: Page) -> rusqlite::Result<String> {
        let first = filter.since.map_or(i64::MIN, |it| it.as_microsecond());
        let last = filter.until.map_or(i64::MAX, |it| it.as_microsecond());
        let mut rest = format!(
            "id > {} AND id <= {}",
            page.after.max(first.saturating_sub(1)),
            page.through.min(last)
        );
        if !filter.zones.is_empty() {
            let zones = self.words(&filter.zones)?;
            let _ = write!(rest, " AND (zone IN ({zones}) OR peer_zone IN ({zones}))");
        }
        if !filter.reasons.is_empty() {
            let numbers = filter.reasons.iter().map(|it| i64::from(*it as u8));
            let _ = write!(rest, " AND reason IN ({})", list(numbers));
        }
        if !filter.rules.is_empty() {
            let _ = write!(rest, " AND rule IN ({})", self.words(&filter.rules)?);
        }
        if !filter.interfaces.is_empty() {
            let interfaces = self.words(&filter.interfaces)?;
            // With the plus its index, which is in another order than time, is not used.
            let _ = write!(rest, " AND +interface IN ({interfaces})");
        }
        if !filter.verdicts.is_empty() {
            let numbers = filter.verdicts.iter().map(|it| i64::from(*it as u8));
            let _ = write!(rest, " AND verdict IN ({})", list(numbers));
        }
        if !filter.services.is_empty() {
            let any: Vec<String> = filter.services.iter().map(|it| self.service(it)).collect();
            let _ = write!(rest, " AND ({})", any.join(" OR "));
        }
        if !filter.peers.is_empty() {
            let names = self.words(filter.peers.iter().map(|it| &it.name))?;
            let ends = self.ends(&filter.peers);
            let _ = write!(
                rest,
                " AND (peer IN ({names}) OR iif(towards, source, destination) IN ({ends}))"
            );
        }
        if filter.devices.is_empty() {
            return Ok(ordered(&rest, page));
        }
        let names = self.words(filter.devices.iter().map(|it| &it.name))?;
        let mut ways = vec![format!("device IN ({names})"), format!("peer IN ({names})")];
        if filter.devices.iter().any(|it| it.end.is_some()) {
            let ends = self.ends(&filter.devices);
            ways.push(format!(
                "(source_mac IN ({ends}) OR source IN ({ends}) OR destination IN ({ends}))"
            ));
        }
        let ways = ways.into_iter().map(|way| {
            let ids = ordered(&format!("{way} AND {rest}"), page);
            format!("SELECT id FROM ({ids})")
        });
        Ok(ways.collect::<Vec<_>>().join(" UNION "))
    }

    /// The numbers of words; one that the journal does not have has none.
    fn words<T: AsRef<str>>(&self, texts: impl IntoIterator<Item = T>) -> rusqlite::Result<String> {
        let mut find = self
            .connection
            .prepare_cached("SELECT id FROM words WHERE text = ?1")?;
        let mut numbers = Vec::new();
        for text in texts {
            let found = find.query_map([text.as_ref()], |row| row.get::<_, i64>(0))?;
            numbers.extend(found.collect::<rusqlite::Result<Vec<_>>>()?);
        }
        Ok(list(numbers))
    }

    /// A place for a value, which may stand in the query several times.
    fn place(&mut self, value: &str) -> String {
        self.values.push(Box::new(value.to_owned()));
        format!("?{}", self.values.len())
    }

    fn ends(&mut self, who: &[Who]) -> String {
        let ends: Vec<String> = who
            .iter()
            .filter_map(|it| it.end.as_deref())
            .map(|end| self.place(end))
            .collect();
        ends.join(", ")
    }

    fn service(&mut self, asked: &Asked) -> String {
        let text = self.place(&asked.text);
        let mut any = vec![format!("service = {text}")];
        let ranges = asked.keys.iter();
        any.extend(ranges.map(|it| format!("asked BETWEEN {} AND {}", it.first, it.last)));
        any.join(" OR ")
    }
}

/// The numbers of the first events, in the order of a page, that meet a condition.
fn ordered(condition: &str, page: Page) -> String {
    let order = match page.order {
        Order::Oldest => "ASC",
        Order::Newest => "DESC",
    };
    format!(
        "SELECT id FROM events WHERE {condition} ORDER BY id {order} LIMIT {}",
        page.most
    )
}

fn list(numbers: impl IntoIterator<Item = i64>) -> String {
    let numbers: Vec<String> = numbers.into_iter().map(|it| it.to_string()).collect();
    numbers.join(", ")
}

/// An event as it was written.
fn event(row: &Row<'_>) -> rusqlite::Result<Event> {
    let text = |column: usize| -> rusqlite::Result<String> {
        Ok(row.get::<_, Option<String>>(column)?.unwrap_or_default())
    };
    let verdict = match row.get(2)? {
        1 => Verdict::Pass,
        2 => Verdict::Drop,
        _ => Verdict::None,
    };
    let reason: Option<u8> = row.get(3)?;
    let mut event = Event {
        id: row.get(0)?,
        time: Timestamp::from_microsecond(row.get(1)?).unwrap_or_default(),
        verdict,
        reason: reason.and_then(Reason::from_number),
        rule: text(4)?,
        device: text(5)?,
        zone: text(6)?,
        peer: text(7)?,
        peer_zone: text(8)?,
        interface: text(9)?,
        vlan: row.get(10)?,
        towards: row.get(11)?,
        observed: row.get(12)?,
        source: text(13)?,
        destination: text(14)?,
        service: text(15)?,
        asked: row.get(16)?,
        service_name: text(17)?,
        count: u64::try_from(row.get::<_, i64>(18)?).unwrap_or_default(),
        destinations: row.get(19)?,
        revision: u64::try_from(row.get::<_, i64>(20)?).unwrap_or_default(),
        source_mac: text(21)?,
        source_port: row.get(22)?,
        message: text(23)?,
    };
    if event.peer.is_empty() {
        event.peer = event.peer_address().to_owned();
    }
    Ok(event)
}
