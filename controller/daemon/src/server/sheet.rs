//! Devices as a table: what NetBox, a CMDB or a spreadsheet exports as CSV. Every bad line is named, and the
//! good ones are one edit of the document.

use std::collections::{BTreeMap, HashMap};

use wardline_policy::{
    document::{Document, edit::Edit},
    words::{mac::Mac, problem::Problem},
};
use wardline_proto::v1::{Device, DevicesCsv};

use crate::engine::refusal::Refusal;

/// Lines of devices.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sheet {
    rows: Vec<Row>,
    /// What was left out.
    pub(super) warnings: Vec<String>,
}

/// One line: what it says of a device.
#[derive(Clone, Debug, PartialEq)]
struct Row {
    line: u64,
    name: String,
    cells: Vec<(Field, String)>,
}

/// What a column is about.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Field {
    Name,
    Zone,
    Macs,
    Addresses,
    Port,
    Description,
    Owner,
    Ticket,
    Labels,
    Label(String),
}

/// The columns that a field is taken from when nothing else is said; the first that there is. Letters are
/// small, and spaces and dashes are underscores.
const COLUMNS: [(&str, &[&str]); 9] = [
    ("name", &["name", "device", "device_name"]),
    ("zone", &["zone"]),
    ("macs", &["macs", "mac", "mac_address", "mac_addresses"]),
    (
        "addresses",
        &["addresses", "address", "ip_address", "primary_ip", "ip"],
    ),
    ("port", &["port"]),
    ("description", &["description"]),
    ("owner", &["owner"]),
    ("ticket", &["ticket"]),
    ("labels", &["labels"]),
];
/// Characters that may stand between cells.
const DELIMITERS: [char; 4] = [',', ';', '\t', '|'];
/// Most lines.
const MOST_ROWS: usize = 200_000;

impl Sheet {
    /// Reads a table.
    ///
    /// # Errors
    ///
    /// Every problem, each with its line.
    pub(super) fn read(sheet: &DevicesCsv) -> Result<Self, Vec<Problem>> {
        let text = sheet.csv.trim_start_matches('\u{feff}');
        let heading = text.lines().next().unwrap_or_default();
        let delimiter = delimiter(&sheet.delimiter, heading)?;
        let mut reader = csv::ReaderBuilder::new()
            .delimiter(delimiter)
            .flexible(true)
            .from_reader(text.as_bytes());
        let columns: Vec<String> = match reader.headers() {
            Ok(headers) => headers.iter().map(|it| it.trim().to_owned()).collect(),
            Err(error) => return Err(vec![problem(1, error.to_string())]),
        };
        let (fields, warnings) = fields(&columns, &sheet.columns)?;
        let (mut rows, mut problems) = (Vec::new(), Vec::new());
        let mut lines: HashMap<String, u64> = HashMap::new();
        let mut counted = Lines::new(text);
        for record in reader.records() {
            let record = match record {
                Ok(record) => record,
                Err(error) => {
                    let line = counted.at(error.position());
                    problems.push(problem(line, error.to_string()));
                    continue;
                }
            };
            let line = counted.at(record.position());
            if record.iter().all(|cell| cell.trim().is_empty()) {
                continue;
            }
            if record.len() != columns.len() {
                let message = format!(
                    "has {} cells, but the heading has {}",
                    record.len(),
                    columns.len()
                );
                problems.push(problem(line, message));
                continue;
            }
            let cells = fields.iter().filter_map(|(field, at)| {
                let cell = plain(record.get(*at)?);
                (!cell.is_empty()).then(|| (field.clone(), cell.to_owned()))
            });
            let cells: Vec<(Field, String)> = cells.collect();
            let name = cells.iter().find(|(field, _)| *field == Field::Name);
            let Some((_, name)) = name.cloned() else {
                problems.push(problem(line, "has no name".to_owned()));
                continue;
            };
            if let Some(before) = lines.insert(name.clone(), line) {
                problems.push(problem(
                    line,
                    format!("{name:?} is in line {before} already"),
                ));
            }
            let row = Row { line, name, cells };
            problems.extend(row.problems());
            rows.push(row);
            if rows.len() > MOST_ROWS {
                problems.push(problem(line, format!("more than {MOST_ROWS} lines")));
                break;
            }
        }
        if rows.is_empty() && problems.is_empty() {
            problems.push(problem(1, "no line has a device".to_owned()));
        }
        if problems.is_empty() {
            Ok(Self { rows, warnings })
        } else {
            Err(problems)
        }
    }

    /// The edit that puts these devices into a document. A device that is there keeps what the table does
    /// not say.
    pub(super) fn edit(&self, policy: &Document) -> Edit {
        let known = policy.devices.iter().map(|it| (it.name.as_str(), it));
        let known: HashMap<&str, &Device> = known.collect();
        let devices = self.rows.iter().map(|row| {
            let known = known.get(row.name.as_str());
            let mut device = known.map_or_else(Device::default, |it| Device::clone(it));
            row.write(&mut device);
            device
        });
        Edit {
            put: Some(Document {
                devices: devices.collect(),
                ..Document::default()
            }),
            delete: Vec::new(),
        }
    }

    /// Why the edit was refused, with problems at their lines.
    pub(super) fn refused(&self, refusal: Refusal) -> Refusal {
        match refusal {
            Refusal::Invalid(problems) => Refusal::Invalid(self.placed(problems)),
            other => other,
        }
    }

    /// Problems of the edit, each at its line.
    fn placed(&self, problems: Vec<Problem>) -> Vec<Problem> {
        let place = |it: &Problem| {
            let (at, rest) = it.path.strip_prefix("devices[")?.split_once(']')?;
            let row = self.rows.get(at.parse::<usize>().ok()?)?;
            let message = match rest.trim_start_matches('.') {
                "" => it.message.clone(),
                field => format!("{field}: {}", it.message),
            };
            Some(problem(row.line, message))
        };
        let problems = problems.into_iter();
        problems.map(|it| place(&it).unwrap_or(it)).collect()
    }
}

/// The edit that takes a device into a document, whose name nobody has yet.
///
/// # Errors
///
/// A device has that name.
pub(super) fn adopted(policy: &Document, device: Device) -> Result<Edit, Refusal> {
    if policy.devices.iter().any(|it| it.name == device.name) {
        let name = &device.name;
        return Err(Refusal::Invalid(vec![Problem {
            path: "name".to_owned(),
            message: format!(
                "there is a device {name:?} already; give this another name, or add the MAC to that one"
            ),
        }]));
    }
    Ok(Edit {
        put: Some(Document {
            devices: vec![device],
            ..Document::default()
        }),
        delete: Vec::new(),
    })
}

impl Row {
    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (field, cell) in &self.cells {
            match field {
                Field::Macs => {
                    let wrong = parts(cell).filter(|it| Mac::of_any(it).is_err());
                    problems.extend(wrong.map(|it| {
                        let message = format!("{it:?} is no MAC; write it as 02:00:00:00:01:01");
                        problem(self.line, message)
                    }));
                }
                Field::Labels => {
                    let wrong = parts(cell).filter(|it| !it.contains('='));
                    problems.extend(wrong.map(|it| {
                        problem(self.line, format!("{it:?} is no label; write KEY=VALUE"))
                    }));
                }
                _ => {}
            }
        }
        problems
    }

    fn write(&self, device: &mut Device) {
        for (field, cell) in &self.cells {
            let text = || cell.clone();
            match field {
                Field::Name => device.name = text(),
                Field::Zone => device.zone = text(),
                Field::Port => device.port = text(),
                Field::Description => device.description = text(),
                Field::Owner => device.owner = text(),
                Field::Ticket => device.ticket = text(),
                Field::Macs => {
                    let macs = parts(cell).filter_map(|it| Mac::of_any(it).ok());
                    device.macs = macs.map(|it| it.to_string()).collect();
                }
                // Address management writes them with the length of the network.
                Field::Addresses => {
                    let addresses = parts(cell).map(|it| it.split('/').next().unwrap_or(it));
                    device.addresses = addresses.map(str::to_owned).collect();
                }
                Field::Labels => {
                    let labels = parts(cell).filter_map(|it| it.split_once('='));
                    let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned()));
                    device.labels.extend(labels);
                }
                Field::Label(key) => {
                    device.labels.insert(key.clone(), text());
                }
            }
        }
    }
}

/// Counts lines as an editor does. The reader's own count is of the end of the line before, where lines end
/// with two characters or are empty.
struct Lines<'a> {
    rest: &'a [u8],
    byte: usize,
    line: u64,
}

impl<'a> Lines<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            rest: text.as_bytes(),
            byte: 0,
            line: 1,
        }
    }

    /// The line at a position, which is not before the last one.
    fn at(&mut self, position: Option<&csv::Position>) -> u64 {
        let byte = position.map_or(self.byte, |it| it.byte() as usize);
        let passed = byte.saturating_sub(self.byte).min(self.rest.len());
        let (before, after) = self.rest.split_at(passed);
        let ends = after.iter().take_while(|it| matches!(it, b'\r' | b'\n'));
        let (ends, after) = after.split_at(ends.count());
        let newlines = before.iter().chain(ends).filter(|it| **it == b'\n');
        self.line += newlines.count() as u64;
        self.byte += passed + ends.len();
        self.rest = after;
        self.line
    }
}

/// The fields of a table, each with its column; and warnings.
type Columns = (Vec<(Field, usize)>, Vec<String>);

/// Which column has which field.
fn fields(columns: &[String], mapped: &BTreeMap<String, String>) -> Result<Columns, Vec<Problem>> {
    let small: Vec<String> = columns.iter().map(|it| normal(it)).collect();
    let (mut fields, mut problems, mut warnings) = (Vec::new(), Vec::new(), Vec::new());
    // What wardctl prints itself says where a device was seen, not where it has to be.
    let is_own = small.iter().any(|it| it == "last_seen");
    for (name, candidates) in COLUMNS {
        let field = field_of(name);
        if let Some(column) = mapped.get(name) {
            match small.iter().position(|it| *it == normal(column)) {
                Some(at) => fields.extend(field.map(|field| (field, at))),
                None => problems.push(problem(
                    1,
                    format!(
                        "there is no column {column:?}; there are {}",
                        columns.join(", ")
                    ),
                )),
            }
            continue;
        }
        let mut there = candidates.iter();
        let Some(at) = there.find_map(|it| small.iter().position(|column| column == it)) else {
            continue;
        };
        if is_own && ["addresses", "port"].contains(&name) {
            warnings.push(format!(
                "{name} are left out: they say where devices were seen; --map {name}={} takes them",
                columns[at]
            ));
            continue;
        }
        fields.extend(field.map(|field| (field, at)));
    }
    for (at, column) in small.iter().enumerate() {
        if let Some(key) = column.strip_prefix("labels.") {
            // Keys of labels may have large letters.
            let key = columns[at].get("labels.".len()..).unwrap_or(key);
            fields.push((Field::Label(key.to_owned()), at));
        }
    }
    let known: BTreeMap<&str, ()> = COLUMNS.iter().map(|(name, _)| (*name, ())).collect();
    for (name, column) in mapped {
        if let Some(key) = name.strip_prefix("labels.") {
            match small.iter().position(|it| *it == normal(column)) {
                Some(at) => fields.push((Field::Label(key.to_owned()), at)),
                None => problems.push(problem(1, format!("there is no column {column:?}"))),
            }
        } else if !known.contains_key(name.as_str()) {
            let fields: Vec<&str> = known.keys().copied().collect();
            let message = format!(
                "{name:?} is no field; there are {} and labels.KEY",
                fields.join(", ")
            );
            problems.push(problem(1, message));
        }
    }
    if !fields.iter().any(|(field, _)| *field == Field::Name) && problems.is_empty() {
        let message = format!(
            "no column is the name; say which with --map name=COLUMN; there are {}",
            columns.join(", ")
        );
        problems.push(problem(1, message));
    }
    if problems.is_empty() {
        Ok((fields, warnings))
    } else {
        Err(problems)
    }
}

fn field_of(name: &str) -> Option<Field> {
    Some(match name {
        "name" => Field::Name,
        "zone" => Field::Zone,
        "macs" => Field::Macs,
        "addresses" => Field::Addresses,
        "port" => Field::Port,
        "description" => Field::Description,
        "owner" => Field::Owner,
        "ticket" => Field::Ticket,
        "labels" => Field::Labels,
        _ => return None,
    })
}

/// What stands between cells: as it is said, or what the heading has most of.
fn delimiter(said: &str, heading: &str) -> Result<u8, Vec<Problem>> {
    let mut letters = said.chars();
    let chosen = match (letters.next(), letters.next()) {
        (None, _) => DELIMITERS
            .into_iter()
            .rev()
            .max_by_key(|it| heading.matches(*it).count())
            .unwrap_or(','),
        (Some(letter), None) if letter.is_ascii() => letter,
        _ => {
            let message = format!("{said:?} is no delimiter; give one character");
            return Err(vec![problem(1, message)]);
        }
    };
    Ok(chosen as u8)
}

/// A column's name, as it is compared.
fn normal(column: &str) -> String {
    let small = column.trim().to_lowercase();
    small.replace([' ', '-'], "_")
}

/// A cell without the apostrophe that keeps a spreadsheet from taking it for a formula.
fn plain(cell: &str) -> &str {
    let cell = cell.trim();
    match cell.strip_prefix('\'') {
        Some(rest) if rest.starts_with(['=', '+', '-', '@']) => rest,
        _ => cell,
    }
}

/// The parts of a cell that has several.
fn parts(cell: &str) -> impl Iterator<Item = &str> {
    let is_between = |it: char| it.is_whitespace() || [',', ';', '|'].contains(&it);
    cell.split(is_between).filter(|it| !it.is_empty())
}

fn problem(line: u64, message: String) -> Problem {
    Problem {
        path: format!("csv:{line}"),
        message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sheet(csv: &str, columns: &[(&str, &str)]) -> Result<Sheet, Vec<String>> {
        let columns = columns.iter();
        let columns = columns.map(|(field, column)| ((*field).to_owned(), (*column).to_owned()));
        let read = Sheet::read(&DevicesCsv {
            csv: csv.to_owned(),
            columns: columns.collect(),
            delimiter: String::new(),
        });
        read.map_err(|problems| problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn what_inventories_export_is_read() {
        let csv = "\u{feff}Asset Tag;MAC Address;Zone;IP Address;Description;labels.ward\r\n\
                   pump-1;0200.0000.0101;pumps;10.1.0.11/24;\"a; \"\"b\"\"\";3\r\n\r\n\
                   pump-2;02-00-00-00-01-02, 020000000103;pumps;;;\r\n";
        let sheet = sheet(csv, &[("name", "asset_tag")]).expect("a sheet");
        let device = Device {
            name: "pump-2".to_owned(),
            zone: "old".to_owned(),
            owner: "ada".to_owned(),
            addresses: vec!["10.1.0.9".to_owned()],
            ..Device::default()
        };
        let policy = Document {
            devices: vec![device],
            ..Document::default()
        };
        let put = sheet.edit(&policy).put.expect("devices").devices;
        assert_eq!(put[0].macs, ["02:00:00:00:01:01"]);
        assert_eq!(put[0].addresses, ["10.1.0.11"]);
        assert_eq!(put[0].description, "a; \"b\"");
        assert_eq!(put[0].labels["ward"], "3");
        // What is there keeps what the table does not say.
        assert_eq!(put[1].macs, ["02:00:00:00:01:02", "02:00:00:00:01:03"]);
        assert_eq!(
            (put[1].zone.as_str(), put[1].owner.as_str()),
            ("pumps", "ada")
        );
        assert_eq!(put[1].addresses, ["10.1.0.9"]);
    }

    #[test]
    fn every_bad_line_is_named() {
        let csv = "name,zone,macs\npump-1,pumps,02:00\n,pumps,02:00:00:00:01:01\n\
                   pump-2,pumps\npump-3,pumps,02:00:00:00:01:03\npump-3,pumps,\n";
        assert_eq!(
            sheet(csv, &[]).expect_err("problems"),
            [
                "csv:2: \"02:00\" is no MAC; write it as 02:00:00:00:01:01",
                "csv:3: has no name",
                "csv:4: has 2 cells, but the heading has 3",
                "csv:6: \"pump-3\" is in line 5 already",
            ]
        );
        // Lines that end as spreadsheets end them, and cells with several lines.
        let csv = "name,description\r\npump-1,\"a\r\nb\"\r\n\r\n,x\r\npump-2\r\n";
        assert_eq!(
            sheet(csv, &[]).expect_err("problems"),
            [
                "csv:5: has no name",
                "csv:6: has 1 cells, but the heading has 2"
            ]
        );
        assert_eq!(
            sheet("a,b\n1,2\n", &[]).expect_err("problems"),
            ["csv:1: no column is the name; say which with --map name=COLUMN; there are a, b"]
        );
        assert_eq!(
            sheet("name\nx\n", &[("zone", "vrf"), ("colour", "name")]).expect_err("problems"),
            [
                "csv:1: there is no column \"vrf\"; there are name",
                "csv:1: \"colour\" is no field; there are addresses, description, labels, macs, name, \
                 owner, port, ticket, zone and labels.KEY",
            ]
        );
    }

    #[test]
    fn where_a_device_was_seen_is_not_where_it_has_to_be() {
        let csv =
            "name,zone,mac,port,addresses,last_seen\np,z,02:00:00:00:01:01,lan1,10.1.0.9,now\n";
        let own = sheet(csv, &[]).expect("a sheet");
        let put = own.edit(&Document::default()).put.expect("devices").devices;
        assert_eq!((put[0].port.as_str(), put[0].addresses.len()), ("", 0));
        assert_eq!(own.warnings.len(), 2);
        let mapped = sheet(csv, &[("port", "port")]).expect("a sheet");
        let put = mapped.edit(&Document::default()).put.expect("devices");
        assert_eq!(put.devices[0].port, "lan1");
    }

    #[test]
    fn a_problem_of_the_document_is_at_its_line() {
        let sheet = sheet("name,zone\n\npump-1,pumps\n", &[]).expect("a sheet");
        let problem = Problem {
            path: "devices[0].zone".to_owned(),
            message: "no such zone".to_owned(),
        };
        let placed = sheet.placed(vec![problem]);
        assert_eq!(placed[0].to_string(), "csv:3: zone: no such zone");
    }
}
