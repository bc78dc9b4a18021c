//! The audit of changes and refused calls, and the check of whether it was tampered with.

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use anstyle::AnsiColor;
use serde_json::{Value, json};
use tonic::Streaming;
use wardline_proto::{
    audit::{Check, Head, Record, read},
    document::value_to_yaml,
    v1::{AuditEntry, ReadAuditRequest},
};

use crate::{
    args::{Audit, Format},
    csv,
    exit::{Exit, Failure},
    humane::{Clock, printable},
    output,
    session::Session,
};

/// Prints the records, or checks their chain.
///
/// # Errors
/// The router refuses or does not answer, the file can't be read, or the audit was tampered with.
pub(crate) async fn audit(session: &Session, args: Audit) -> Result<Exit, Failure> {
    session
        .within(async {
            let lines = Lines::open(session, &args).await?;
            if args.verify {
                verify(session.format, lines, args.head).await
            } else {
                print(session.format, lines).await
            }
        })
        .await
}

async fn print(format: Format, mut lines: Lines) -> Result<Exit, Failure> {
    let clock = Clock::system();
    let mut is_first = true;
    while let Some(line) = lines.next().await? {
        let text = match (format, read(&line)) {
            (Format::Table, Some((record, _))) => record_text(&record, &clock),
            (Format::Table, None) => format!("not a record: {}\n", printable(&line)),
            (Format::Json, _) => format!("{line}\n"),
            (Format::Yaml, _) => {
                let value = serde_json::from_str(&line).unwrap_or(Value::String(line));
                format!("---\n{}", value_to_yaml(&value))
            }
            (Format::Csv, Some((record, _))) => {
                // Few records have one, and all lines have the same columns.
                let record = Record {
                    segment: None,
                    ..record
                };
                csv::entry(&json!(record), std::mem::take(&mut is_first))?
            }
            (Format::Csv, None) => continue,
        };
        let done = match format {
            Format::Table => output::piece(&text)?,
            // An export has the same bytes as the stored records.
            Format::Json | Format::Yaml | Format::Csv => output::plain(&text)?,
        };
        if done == ControlFlow::Break(()) {
            break;
        }
    }
    Ok(Exit::Done)
}

async fn verify(format: Format, mut lines: Lines, noted: Option<Head>) -> Result<Exit, Failure> {
    let mut check = Check::with(noted);
    while let Some(line) = lines.next().await? {
        check.line(&line);
    }
    if let Lines::Router { head, .. } = lines {
        check.remembered(head);
    }
    let last = check.last().clone();
    let begins = check.begins();
    let segments = check.segments();
    let findings = check.end();
    let count = last.sequence - begins.sequence.min(last.sequence);
    match format {
        Format::Table if findings.is_empty() => {
            output::text(&whole(count, segments, &begins, &last))?;
        }
        Format::Table => {}
        Format::Json | Format::Yaml | Format::Csv => {
            let value = json!({
                "records": count,
                "segments": segments,
                "begins_after": (begins.sequence != 0).then(|| begins.to_string()),
                "head": last.to_string(),
                "findings": findings,
            });
            output::value(format, &value)?;
        }
    }
    if findings.is_empty() {
        Ok(Exit::Done)
    } else {
        Err(Failure::tampered(findings))
    }
}

/// What is said of records that are as they were written.
fn whole(count: u64, segments: u64, begins: &Head, last: &Head) -> String {
    let mut text = format!("{count} records");
    if segments > 1 {
        text += &format!(" in {segments} segments");
    }
    text += ", nothing missing or changed\n";
    if begins.sequence != 0 {
        text += &format!(
            "records {} to {}; older ones were removed by retention\nbegins after {begins}\n",
            begins.sequence + 1,
            last.sequence,
        );
    }
    text + &format!("head {last}\n")
}

/// The source of the records.
enum Lines {
    Router {
        stream: Box<Streaming<AuditEntry>>,
        head: Head,
    },
    Files(Box<dyn Iterator<Item = Result<String, Failure>>>),
}

impl Lines {
    async fn open(session: &Session, args: &Audit) -> Result<Self, Failure> {
        if !args.file.is_empty() {
            let mut files = Vec::new();
            for path in &args.file {
                let file = File::open(path).map_err(|error| unreadable(path, &error))?;
                files.push(lines(file, path.clone()));
            }
            return Ok(Self::Files(Box::new(files.into_iter().flatten())));
        }
        let request = ReadAuditRequest {
            limit: args.limit.unwrap_or_default(),
        };
        let stream = session
            .watch(request, async |mut client, it| client.read_audit(it).await)
            .await?;
        let (stream, head) = (Box::new(stream), Head::default());
        Ok(Self::Router { stream, head })
    }

    async fn next(&mut self) -> Result<Option<String>, Failure> {
        match self {
            Self::Files(lines) => lines.next().transpose(),
            Self::Router { stream, head } => {
                let short = || Failure::failed("the router ended the audit before its head");
                let entry = stream.message().await?.ok_or_else(short)?;
                if entry.head.is_empty() {
                    return Ok(Some(entry.line));
                }
                *head = entry.head.parse().map_err(Failure::failed)?;
                Ok(None)
            }
        }
    }
}

fn lines(file: File, path: PathBuf) -> impl Iterator<Item = Result<String, Failure>> {
    BufReader::new(file).split(b'\n').map(move |line| {
        let line = line.map_err(|error| unreadable(&path, &error))?;
        Ok(String::from_utf8_lossy(&line).into_owned())
    })
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::refused(format!("can't read {}: {error}", path.display()))
}

fn record_text(record: &Record, clock: &Clock) -> String {
    let (colour, outcome) = match record.outcome.as_str() {
        "ok" => (AnsiColor::Green, "ok"),
        other => (AnsiColor::Red, other),
    };
    let style = colour.on_default();
    let time = record.time.parse().map(|time| clock.local(time));
    let revisions = match (record.before, record.after) {
        (Some(before), Some(after)) => format!("  {before} → {after}"),
        _ => String::new(),
    };
    let role = match record.role.as_str() {
        "" => "no role",
        role => role,
    };
    let mut text = format!(
        "{}  {}  {style}{}{style:#}  {} ({}) from {}{revisions}",
        time.unwrap_or_else(|_| printable(&record.time)),
        printable(&record.call),
        printable(outcome),
        printable(&record.actor),
        printable(role),
        printable(&record.address),
    );
    for words in [&record.reason, &record.message] {
        if !words.is_empty() {
            text += &format!("  {}", printable(words));
        }
    }
    if record.more > 0 {
        text += &format!("  and {} more", record.more);
    }
    text + "\n"
}

#[cfg(test)]
mod tests {
    use jiff::{Timestamp, tz::TimeZone};

    use super::*;
    use crate::table::uncoloured;

    #[test]
    fn what_is_whole_is_said_with_where_it_begins() {
        let head = |sequence| Head {
            sequence,
            ..Head::default()
        };
        let zeros = "0".repeat(64);
        assert_eq!(
            whole(5, 1, &head(0), &head(5)),
            format!("5 records, nothing missing or changed\nhead 5:{zeros}\n")
        );
        assert_eq!(
            whole(64, 3, &head(120), &head(184)),
            format!(
                "64 records in 3 segments, nothing missing or changed\nrecords 121 to 184; older \
                 ones were removed by retention\nbegins after 120:{zeros}\nhead 184:{zeros}\n"
            )
        );
    }

    #[test]
    fn a_record_is_a_line() {
        let clock = Clock {
            now: Timestamp::UNIX_EPOCH,
            zone: TimeZone::UTC,
        };
        let record = Record {
            sequence: 4,
            time: "1970-01-01T00:01:40.5Z".to_owned(),
            actor: "cert:ada".to_owned(),
            address: "10.0.0.9:5000".to_owned(),
            role: "operator".to_owned(),
            call: "Quarantine".to_owned(),
            reason: "odd\ntraffic".to_owned(),
            outcome: "ok".to_owned(),
            before: Some(6),
            after: Some(7),
            ..Record::default()
        };
        assert_eq!(
            uncoloured(&record_text(&record, &clock)),
            "1970-01-01 00:01:40  Quarantine  ok  cert:ada (operator) from 10.0.0.9:5000  6 → 7  \
             odd\\ntraffic\n"
        );
        let refused = Record {
            role: String::new(),
            outcome: "permission_denied".to_owned(),
            message: "cert:ada has no role".to_owned(),
            before: None,
            after: None,
            reason: String::new(),
            more: 3,
            ..record
        };
        assert_eq!(
            uncoloured(&record_text(&refused, &clock)),
            "1970-01-01 00:01:40  Quarantine  permission_denied  cert:ada (no role) from \
             10.0.0.9:5000  cert:ada has no role  and 3 more\n"
        );
    }
}
