//! The backup of a router, into a file or onto standard output; and whether a file is one.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufReader, IsTerminal as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};
use wardline_proto::{
    backup::{Contents, Summary, check},
    v1::GetBackupRequest,
};

use crate::{
    args::{Backup, Format},
    exit::{Exit, Failure},
    humane::{Clock, bytes, printable},
    output,
    session::Session,
};

/// Fetches a backup.
///
/// # Errors
/// The router refuses or does not answer, or the file is there already or can't be written.
pub(crate) async fn backup(session: &Session, args: Backup) -> Result<Exit, Failure> {
    let Some(path) = args.file else {
        return Ok(Exit::Done);
    };
    if path.as_os_str() == "-" {
        if io::stdout().is_terminal() {
            return Err(Failure::usage("a backup is nothing for a terminal"));
        }
        fetch(session, &mut io::stdout().lock()).await?;
        return Ok(Exit::Done);
    }
    if !args.overwrite && path.symlink_metadata().is_ok() {
        return Err(Failure::refused(format!(
            "there already: {}; --overwrite replaces it",
            path.display()
        )));
    }
    let part = Part::create(&path)?;
    fetch(session, &mut &part.file).await?;
    // What is kept is read back, because a backup that can't be read is none.
    let contents = read(&part.path)?;
    part.keep(&path)?;
    tell(session.format, &path, &contents)
}

/// Says what a file is a backup of, if it is whole.
///
/// # Errors
/// It is not, or can't be read.
pub(crate) fn look(format: Format, path: &Path) -> Result<Exit, Failure> {
    tell(format, path, &read(path)?)
}

async fn fetch(session: &Session, to: &mut impl io::Write) -> Result<(), Failure> {
    let unwritten = |error: io::Error| Failure::failed(format!("can't write: {error}"));
    session
        .within(async {
            let mut pieces = session
                .watch(GetBackupRequest {}, async |mut client, it| {
                    client.get_backup(it).await
                })
                .await?;
            while let Some(piece) = pieces.message().await? {
                to.write_all(&piece.data).map_err(unwritten)?;
            }
            to.flush().map_err(unwritten)
        })
        .await
}

/// A file that is not complete yet, beside its place. Dropped, it is removed.
struct Part {
    path: PathBuf,
    file: File,
}

impl Part {
    fn create(place: &Path) -> Result<Self, Failure> {
        let mut name = place.as_os_str().to_owned();
        name.push(".part");
        let path = PathBuf::from(name);
        let created = match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path),
        };
        let file = created.map_err(|error| unwritable(&path, &error))?;
        Ok(Self { path, file })
    }

    fn keep(self, place: &Path) -> Result<(), Failure> {
        let kept = self.file.sync_all();
        kept.and_then(|()| fs::rename(&self.path, place))
            .map_err(|error| unwritable(place, &error))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // It is not there any more when it was kept.
        let _ = fs::remove_file(&self.path);
    }
}

fn unwritable(path: &Path, error: &io::Error) -> Failure {
    Failure::failed(format!("can't write {}: {error}", path.display()))
}

fn read(path: &Path) -> Result<Contents, Failure> {
    let refused = |why: String| Failure::refused(format!("{}: {why}", path.display()));
    let file = File::open(path).map_err(|error| refused(format!("can't be read: {error}")))?;
    check(BufReader::new(file)).map_err(|error| refused(error.to_string()))
}

fn tell(format: Format, path: &Path, contents: &Contents) -> Result<Exit, Failure> {
    match format {
        Format::Table => output::text(&text(path, contents, &Clock::system())),
        Format::Json | Format::Yaml | Format::Csv => output::value(format, &value(path, contents)),
    }
}

fn value(path: &Path, contents: &Contents) -> Value {
    let summary = &contents.summary;
    json!({
        "file": path,
        "router": summary.router,
        "version": summary.version,
        "time": summary.time,
        "revision": summary.revision,
        "revisions": contents.revisions,
        "quarantined": {
            "devices": summary.quarantined_devices,
            "ports": summary.quarantined_ports,
        },
        "pending": summary.pending,
        "audit_head": summary.audit_head,
        "bytes": contents.bytes,
    })
}

fn text(path: &Path, contents: &Contents, clock: &Clock) -> String {
    let Contents {
        summary:
            Summary {
                router,
                version,
                time,
                revision,
                audit_head,
                quarantined_devices,
                quarantined_ports,
                pending,
            },
        revisions,
        bytes: size,
    } = contents;
    let time = match time.parse() {
        Ok(time) => format!("{}, {}", clock.local(time), clock.distance(time)),
        Err(_) => printable(time),
    };
    let ports = quarantined_ports.iter().map(|port| format!("port {port}"));
    let cut: Vec<String> = quarantined_devices.iter().cloned().chain(ports).collect();
    let quarantine = match cut.as_slice() {
        [] => "nobody".to_owned(),
        cut => cut.join(", "),
    };
    let head = match audit_head.as_str() {
        "" => "not known",
        head => head,
    };
    let waits = if *pending {
        "\npending     a change waited for its confirmation; a restore takes it back"
    } else {
        ""
    };
    format!(
        "file        {}, {}\nrouter      {}, version {}\nmade        {time}\n\
         revision    {revision}, and {revisions} in the history\nquarantine  {}{waits}\n\
         audit head  {}\n",
        printable(&path.display().to_string()),
        bytes(*size),
        printable(router),
        printable(version),
        printable(&quarantine),
        printable(head),
    )
}

#[cfg(test)]
mod tests {
    use jiff::{Timestamp, tz::TimeZone};

    use super::*;

    #[test]
    fn it_says_what_is_in_the_file() {
        let clock = Clock {
            now: Timestamp::from_second(7300).expect("a time"),
            zone: TimeZone::UTC,
        };
        let contents = Contents {
            summary: Summary {
                router: "edge".to_owned(),
                version: "0.1.0".to_owned(),
                time: "1970-01-01T00:01:40.5Z".to_owned(),
                revision: 7,
                quarantined_devices: vec!["camera".to_owned()],
                quarantined_ports: vec!["lan3".to_owned()],
                pending: true,
                ..Summary::default()
            },
            revisions: 6,
            bytes: 2048,
        };
        assert_eq!(
            text(Path::new("b.wlb"), &contents, &clock),
            "file        b.wlb, 2.0 KiB\nrouter      edge, version 0.1.0\n\
             made        1970-01-01 00:01:40, 2h ago\nrevision    7, and 6 in the history\n\
             quarantine  camera, port lan3\n\
             pending     a change waited for its confirmation; a restore takes it back\n\
             audit head  not known\n"
        );
        let json = value(Path::new("b.wlb"), &contents);
        assert_eq!(json["quarantined"]["ports"][0], "lan3");
    }
}
