//! What a router needs to begin: an authority, and certificates for the router and for one person.
//!
//! ```text
//! ca.pem ca.key              signs the two others
//! router.pem router.key      the daemon shows it
//! PERSON.pem PERSON.key      wardctl shows it
//! ```

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    io::{self, Write as _},
    net::Ipv6Addr,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, chown},
    path::{Path, PathBuf, absolute},
};

use jiff::{Span, Timestamp, civil::Date, tz::TimeZone};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};
use serde_json::json;

use crate::{
    args::{Format, Tls},
    exit::{Exit, Failure},
    output,
};

/// How long the authority is good for.
const AUTHORITY_DAYS: u16 = 3650;

/// Names that reach the router from itself.
const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Makes the files, and says what to do with them.
///
/// # Errors
/// A file is there already, or can't be written; or a name can't stand in a certificate.
pub(crate) fn tls(format: Format, asked: &Tls) -> Result<Exit, Failure> {
    let directory = absolute(&asked.directory)
        .map_err(|error| Failure::failed(format!("{}: {error}", asked.directory.display())))?;
    let today = TimeZone::UTC.to_datetime(Timestamp::now()).date();
    let made = Made::new(asked, host()?, today)?;
    let files = made.files(&asked.person);
    if !asked.overwrite {
        refuse_to_replace(&directory, &files)?;
    }
    write(&directory, &files, &asked.owner)?;
    match format {
        Format::Table => output::text(&told(&directory, asked, &made)),
        Format::Json | Format::Yaml | Format::Csv => {
            let names = files.iter().map(|file| directory.join(&file.name));
            let value = json!({
                "files": names.collect::<Vec<PathBuf>>(),
                "configuration": configuration(&directory, asked, &made),
                "ends": made.ends.to_string(),
                "authority_ends": made.authority_ends.to_string(),
            });
            output::value(format, &value)
        }
    }
}

/// A certificate and its key, PEM.
struct Signed {
    cert: String,
    key: String,
}

struct Made {
    ca: Signed,
    router: Signed,
    person: Signed,
    /// The name of this machine.
    host: String,
    /// By what the router knows the person.
    identity: String,
    /// By what clients may reach the router.
    names: Vec<String>,
    ends: Date,
    authority_ends: Date,
}

/// A file to write.
struct File<'a> {
    name: String,
    text: &'a str,
    /// Whether only its owner may read it.
    secret: bool,
    /// Whether the daemon must be able to read it.
    daemon: bool,
}

impl Made {
    fn new(asked: &Tls, host: String, today: Date) -> Result<Self, Failure> {
        let failed = |error: rcgen::Error| Failure::failed(format!("a certificate: {error}"));
        let end = |days: u16| {
            today
                .checked_add(Span::new().days(days))
                .map_err(|error| Failure::failed(format!("--days {days}: {error}")))
        };
        let midnight = |date: Date| {
            let part = |part: i8| u8::try_from(part).unwrap_or(1);
            date_time_ymd(date.year().into(), part(date.month()), part(date.day()))
        };
        // The clocks of two machines differ.
        let begin = today.yesterday().unwrap_or(today);
        let (ends, authority_ends) = (end(asked.days)?, end(AUTHORITY_DAYS)?);

        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params
            .distinguished_name
            .push(DnType::CommonName, format!("Wardline {host} first day"));
        (params.not_before, params.not_after) = (midnight(begin), midnight(authority_ends));
        let key = KeyPair::generate().map_err(failed)?;
        let ca = Signed {
            cert: params.self_signed(&key).map_err(failed)?.pem(),
            key: key.serialize_pem(),
        };
        let issuer = Issuer::new(params, key);

        let sign = |common: &str, names: Vec<SanType>, purpose| {
            let mut params = CertificateParams::default();
            params.distinguished_name.push(DnType::CommonName, common);
            params.subject_alt_names = names;
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            params.extended_key_usages = vec![purpose];
            params.use_authority_key_identifier_extension = true;
            (params.not_before, params.not_after) = (midnight(begin), midnight(ends));
            let key = KeyPair::generate()?;
            Ok(Signed {
                cert: params.signed_by(&key, &issuer)?.pem(),
                key: key.serialize_pem(),
            })
        };
        let mut names: Vec<String> = asked.names.clone();
        names.extend(LOOPBACK.map(str::to_owned));
        names.push(host.clone());
        let mut seen = BTreeSet::new();
        names.retain(|name| seen.insert(name.clone()));
        let subjects = names
            .iter()
            .map(|name| subject(name))
            .collect::<Result<_, _>>()?;
        let identity = format!("spiffe://wardline/{}/{}", asked.role, asked.person);
        let uri = identity.as_str().try_into().map_err(failed)?;
        Ok(Self {
            router: sign(&host, subjects, ExtendedKeyUsagePurpose::ServerAuth).map_err(failed)?,
            person: sign(
                &asked.person,
                vec![SanType::URI(uri)],
                ExtendedKeyUsagePurpose::ClientAuth,
            )
            .map_err(failed)?,
            ca,
            host,
            identity,
            names,
            ends,
            authority_ends,
        })
    }

    fn files(&self, person: &str) -> Vec<File<'_>> {
        let signed = [
            ("ca", &self.ca),
            ("router", &self.router),
            (person, &self.person),
        ];
        let file = |name: &str, end: &str, text| File {
            name: format!("{name}.{end}"),
            text,
            secret: end == "key",
            daemon: name == "router",
        };
        signed
            .into_iter()
            .flat_map(|(name, it)| [file(name, "pem", &it.cert), file(name, "key", &it.key)])
            .collect()
    }
}

/// A name or an address as a certificate has it.
fn subject(name: &str) -> Result<SanType, Failure> {
    if let Ok(address) = name.parse() {
        return Ok(SanType::IpAddress(address));
    }
    let fits = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
    if name.is_empty() || !name.chars().all(fits) {
        return Err(Failure::usage(format!(
            "--name {name:?} is neither a host's name nor an address"
        )));
    }
    name.try_into()
        .map(SanType::DnsName)
        .map_err(|error| Failure::usage(format!("--name {name:?}: {error}")))
}

/// The name of this machine.
fn host() -> Result<String, Failure> {
    const FILE: &str = "/proc/sys/kernel/hostname";
    let name = fs::read_to_string(FILE)
        .map_err(|error| Failure::failed(format!("can't read {FILE}: {error}")))?;
    Ok(name.trim().to_owned())
}

fn refuse_to_replace(directory: &Path, files: &[File<'_>]) -> Result<(), Failure> {
    let there: Vec<String> = files
        .iter()
        .map(|file| directory.join(&file.name))
        .filter(|path| path.symlink_metadata().is_ok())
        .map(|path| path.display().to_string())
        .collect();
    if there.is_empty() {
        return Ok(());
    }
    Err(Failure::refused(format!(
        "there already: {}; --overwrite replaces the authority and all certificates",
        there.join(", ")
    )))
}

/// Writes every file beside its place first, so that an interruption leaves what was there.
fn write(directory: &Path, files: &[File<'_>], owner: &str) -> Result<(), Failure> {
    let failed = |path: &Path, error: &io::Error| {
        Failure::failed(format!("can't write {}: {error}", path.display()))
    };
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(directory)
        .map_err(|error| failed(directory, &error))?;
    let next = |file: &File<'_>| directory.join(format!("{}.next", file.name));
    for file in files {
        let path = next(file);
        write_one(&path, file, owner).map_err(|error| failed(&path, &error))?;
    }
    for file in files {
        let path = directory.join(&file.name);
        fs::rename(next(file), &path).map_err(|error| failed(&path, &error))?;
    }
    Ok(())
}

fn write_one(path: &Path, file: &File<'_>, owner: &str) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    options.mode(if file.secret { 0o600 } else { 0o644 });
    let mut open = options.open(path)?;
    open.write_all(file.text.as_bytes())?;
    open.sync_all()?;
    // Only root may give a file away; on a machine without that user the daemon is root.
    if file.daemon
        && uzers::get_effective_uid() == 0
        && let Some(user) = uzers::get_user_by_name(owner)
    {
        chown(path, Some(user.uid()), Some(user.primary_group_id()))?;
    }
    Ok(())
}

/// The lines of the daemon's configuration.
fn configuration(directory: &Path, asked: &Tls, made: &Made) -> String {
    let path = |name: &str| directory.join(name).display().to_string();
    // A machine may lack IPv6 altogether: it is used where somebody asks for it.
    let listen = match asked
        .names
        .iter()
        .any(|name| name.parse::<Ipv6Addr>().is_ok())
    {
        true => "[::]",
        false => "0.0.0.0",
    };
    format!(
        "[api]\n\
         listen = \"{listen}:7443\"\n\
         tls    = {{ cert = {:?}, key = {:?}, client_ca = {:?} }}\n\
         roles  = [{{ match = \"uri:{}\", role = {:?} }}]\n",
        path("router.pem"),
        path("router.key"),
        path("ca.pem"),
        made.identity,
        asked.role,
    )
}

fn told(directory: &Path, asked: &Tls, made: &Made) -> String {
    let path = |name: &str| directory.join(name).display().to_string();
    let (ca, person) = (path("ca.pem"), asked.person.as_str());
    let mut text = format!(
        "# Put this into /etc/wardline/wardlined.toml, and restart wardlined:\n{}",
        configuration(directory, asked, made)
    );
    // Writing to a string can't fail.
    let _ = write!(
        text,
        "\n# Give {person} these three files, and then:\n\
         wardctl context set {host} --server https://{reached}:7443 --ca {ca} --cert {cert} --key {key}\n\
         \n\
         # Clients reach the router as {names}.\n\
         # The certificates of router and {person} end on {ends}, the authority on {authority_ends}.\n\
         # Replace this by your own authority when you have one. Until then move {ca_key} off\n\
         # this router: who has it can make a certificate for anybody.\n",
        host = made.host,
        reached = reached(made),
        cert = path(&format!("{person}.pem")),
        key = path(&format!("{person}.key")),
        names = made.names.join(", "),
        ends = made.ends,
        authority_ends = made.authority_ends,
        ca_key = path("ca.key"),
    );
    text
}

/// The first name, as an address of the web has it.
fn reached(made: &Made) -> String {
    let first = made.names.first().map_or("localhost", String::as_str);
    match first.parse() {
        Ok(std::net::IpAddr::V6(address)) => format!("[{address}]"),
        _ => first.to_owned(),
    }
}
