//! How the daemon runs: flags, the file, and the files that it names.

use std::{
    collections::BTreeSet,
    fmt, fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use toml::Value;
use wardline_datapath::timeouts::Timeouts;
use wardline_policy::{failsafe::Failsafe, limits::Limits};

mod file;
pub mod identity;
pub mod mud;

use self::{
    file::{File, Place},
    identity::{Identity, Pattern},
    mud::Mud,
};

/// Guards the ports of this router as the policy in force says.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "wardlined", version)]
pub struct Flags {
    /// The configuration; without this flag a file that is not there means the defaults
    /// [default: /etc/wardline/wardlined.toml]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Check the configuration, say what it is, and exit; with --restore or --recover: say what they
    /// would do, and do nothing
    #[arg(long)]
    pub check: bool,
    /// Remove everything that was ever attached or pinned, and exit; the daemon must be stopped
    #[arg(long, conflicts_with = "check")]
    pub detach: bool,
    /// Make the files of this router from a backup of wardctl, and exit; the daemon must be stopped
    #[arg(long, value_name = "FILE", conflicts_with_all = ["detach", "recover"])]
    pub restore: Option<PathBuf>,
    /// With --restore: set a history that is there aside first
    #[arg(long, requires = "restore")]
    pub replace: bool,
    /// Say what can be had back of damaged files and from where, do it, and exit; the daemon must be
    /// stopped. Nothing is deleted
    #[arg(long, conflicts_with = "detach")]
    pub recover: bool,
    /// Load the programs into the kernel, print how large they are, and exit
    #[arg(long, conflicts_with_all = ["check", "detach", "restore", "recover"])]
    pub programs: bool,
    /// Print the manual page, and exit
    #[arg(long, conflicts_with_all = ["check", "detach", "programs"])]
    pub man: bool,
    /// What to log: error, warn, info, debug or trace [default: log.level of the configuration, or info]
    #[arg(long, value_name = "LEVEL")]
    pub log: Option<tracing::Level>,
    /// How to log [default: log.format of the configuration, or text]
    #[arg(long, value_name = "FORMAT", value_enum)]
    pub log_format: Option<LogFormat>,
}

/// What is logged, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    /// Lines from this level on.
    pub level: tracing::Level,
    /// How a line looks.
    pub format: LogFormat,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            level: tracing::Level::INFO,
            format: LogFormat::default(),
        }
    }
}

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// A line for people, on standard error.
    #[default]
    Text,
    /// A line with one JSON object, on standard error.
    Json,
    /// An entry of the journal, with fields.
    Journald,
}

/// The configuration, with every bound checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The router's name.
    pub router: String,
    /// Where revisions are kept.
    pub state_dir: PathBuf,
    /// Where programs and maps are pinned.
    pub pin_dir: PathBuf,
    /// What becomes of guarded ports whose policy is lost.
    pub on_failure: OnFailure,
    /// Where and for whom the API is.
    pub api: Api,
    /// Where metrics are.
    pub metrics: Metrics,
    /// How much the tables hold.
    pub limits: Limits,
    /// How long a silent flow lives.
    pub timeouts: Timeouts,
    /// What is logged, and how.
    pub log: Log,
    /// How much of the audit is kept.
    pub audit: Segments,
    /// How much of the history is kept.
    pub history: Kept,
    /// What the site says about MUD files.
    pub mud: Mud,
    /// How much of the journal of events is kept.
    pub journal: Bounds,
    /// Hosts that may always reach the router.
    pub failsafe: Vec<Failsafe>,
}

/// How much of the journal of events is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// So many bytes on the disk.
    pub bytes: u64,
    /// Events of so many days.
    pub days: u32,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            bytes: 256 << 20,
            days: 30,
        }
    }
}

/// How much of the audit is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segments {
    /// How large a segment is before the next begins.
    pub bytes: u64,
    /// How many segments there are, with the one that grows.
    pub count: u32,
}

impl Default for Segments {
    fn default() -> Self {
        Self {
            bytes: 64 << 20,
            count: 16,
        }
    }
}

/// How much of the history is kept. A revision stays while it is one of the newest or young enough,
/// and all newer ones are not too large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The newest so many revisions.
    pub revisions: u32,
    /// Those of so many days.
    pub days: u32,
    /// So many bytes at most.
    pub bytes: u64,
}

impl Default for Kept {
    fn default() -> Self {
        Self {
            revisions: 1000,
            days: 400,
            bytes: 1 << 30,
        }
    }
}

/// What becomes of ports that can't be guarded, or whose policy is lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// They drop all but the failsafe and the router's own control of the link.
    #[default]
    Closed,
    /// They are not guarded.
    Open,
}

/// Where and for whom the API is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Api {
    /// The Unix socket.
    pub socket: PathBuf,
    /// The TCP address; never without TLS.
    pub listen: Option<SocketAddr>,
    /// Certificates, mutual.
    pub tls: Option<Tls>,
    /// The roles of clients over TCP.
    pub roles: Vec<RoleMatch>,
}

/// The files of mutual TLS, in PEM.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The server's certificate and what leads from it to its root.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Who signs clients.
    pub client_ca: PathBuf,
}

/// What the files of mutual TLS hold.
#[derive(Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server's certificate and what leads from it to its root.
    pub cert: Vec<u8>,
    /// Its private key.
    pub key: Vec<u8>,
    /// The authorities that sign clients.
    pub client_ca: Vec<u8>,
}

/// A role for the clients whose certificate has a name that fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleMatch {
    /// The names.
    pub names: Pattern,
    /// What those clients may.
    pub role: Role,
}

/// What a client may; each also what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Look.
    Viewer,
    /// Quarantine, release, grant, revoke.
    Operator,
    /// Everything.
    Admin,
}

/// Where metrics are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// The TCP address; none: nowhere.
    pub listen: Option<SocketAddr>,
}

/// Why the configuration can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file could not be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A value is not what it must be.
    #[error("{}:{line}: {key}: {message}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The line in it, from 1.
        line: usize,
        /// The key, as `limits.flows`.
        key: String,
        /// What is wrong, and what would be right.
        message: String,
    },
}

/// Read unless the command line names another file.
const DEFAULT_FILE: &str = "/etc/wardline/wardlined.toml";

impl Config {
    /// Reads the file that the flags name, or the usual one if it is there.
    ///
    /// # Errors
    /// When the file can't be read, or anything in it is not known or out of bounds.
    pub fn load(flags: &Flags) -> Result<Self, ConfigError> {
        let path = flags.config.as_deref().unwrap_or(Path::new(DEFAULT_FILE));
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound && flags.config.is_none() => {
                String::new()
            }
            Err(source) => {
                return Err(ConfigError::Read {
                    path: path.to_owned(),
                    source,
                });
            }
        };
        Self::parse(&text, path)
    }

    /// Reads a configuration; the path only names it in errors.
    ///
    /// # Errors
    /// When anything in it is not known or out of bounds.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let place = Place { text, path };
        let file: File = toml::from_str(text).map_err(|error| place.refused(&error))?;
        file.into_config(&place)
    }

    /// The keys whose values are others in another configuration, as `limits.flows`.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let table = |config: &Self| config.to_string().parse().unwrap_or_default();
        let [ours, others] = [self, other].map(table);
        let mut found = Vec::new();
        differences("", &ours, &others, &mut found);
        found
    }
}

fn differences(within: &str, ours: &toml::Table, others: &toml::Table, found: &mut Vec<String>) {
    let keys: BTreeSet<_> = ours.keys().chain(others.keys()).collect();
    for key in keys {
        match (ours.get(key), others.get(key)) {
            (Some(Value::Table(ours)), Some(Value::Table(others))) if within.is_empty() => {
                differences(&format!("{key}."), ours, others, found);
            }
            (ours, others) if ours != others => found.push(format!("{within}{key}")),
            _ => {}
        }
    }
}

impl Api {
    /// The highest role of a client by the names of its certificate, and the name that matched;
    /// none: it may do nothing.
    pub fn role<'n>(&self, names: &'n [Identity]) -> Option<(Role, &'n Identity)> {
        let fits = |name: &'n Identity| {
            let fitting = self.roles.iter().filter(|entry| entry.names.fits(name));
            Some((fitting.map(|entry| entry.role).max()?, name))
        };
        names.iter().filter_map(fits).max_by_key(|(role, _)| *role)
    }
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// When one can't be read.
    pub fn read(&self) -> Result<TlsFiles, ConfigError> {
        let read = |path: &PathBuf| {
            fs::read(path).map_err(|source| ConfigError::Read {
                path: path.clone(),
                source,
            })
        };
        Ok(TlsFiles {
            cert: read(&self.cert)?,
            key: read(&self.key)?,
            client_ca: read(&self.client_ca)?,
        })
    }
}

impl fmt::Debug for TlsFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsFiles").finish_non_exhaustive()
    }
}

impl fmt::Display for OnFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed => "closed",
            Self::Open => "open",
        })
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
            Self::Journald => "journald",
        })
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        })
    }
}

/// Writes the configuration, with its defaults, as a file that has the same meaning.
impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            router,
            state_dir,
            pin_dir,
            on_failure,
            api,
            metrics,
            limits,
            timeouts,
            log,
            audit,
            history,
            mud,
            journal,
            failsafe,
        } = self;
        writeln!(
            f,
            "router    = {router:?}\nstate_dir = {state_dir:?}\npin_dir   = {pin_dir:?}"
        )?;
        writeln!(f, "on_failure = \"{on_failure}\"")?;
        let all: Vec<_> = failsafe.iter().map(ToString::to_string).collect();
        writeln!(f, "failsafe  = [{}]", all.join(", "))?;
        writeln!(f, "[api]\nsocket = {:?}", api.socket)?;
        if let Some(listen) = api.listen {
            writeln!(f, "listen = \"{listen}\"")?;
        }
        if let Some(Tls {
            cert,
            key,
            client_ca,
        }) = &api.tls
        {
            writeln!(
                f,
                "tls    = {{ cert = {cert:?}, key = {key:?}, client_ca = {client_ca:?} }}"
            )?;
        }
        let role = |entry: &RoleMatch| {
            format!(
                "{{ match = {:?}, role = \"{}\" }}",
                entry.names.to_string(),
                entry.role
            )
        };
        let roles: Vec<_> = api.roles.iter().map(role).collect();
        writeln!(f, "roles  = [{}]", roles.join(", "))?;
        let listen = metrics
            .listen
            .map(|listen| listen.to_string())
            .unwrap_or_default();
        writeln!(f, "[metrics]\nlisten = {listen:?}")?;
        let Limits {
            devices,
            flows,
            flows_per_device,
            control,
            control_in_quarantine,
            learned_per_device,
            learned_per_port,
            names,
            addresses_per_name,
            rules,
        } = limits;
        writeln!(f, "[limits]\ndevices = {devices}\nflows = {flows}")?;
        writeln!(f, "flows_per_device = {flows_per_device}\nrules = {rules}")?;
        writeln!(f, "control = {control}")?;
        writeln!(f, "control_in_quarantine = {control_in_quarantine}")?;
        writeln!(f, "learned_per_device = {learned_per_device}")?;
        writeln!(f, "learned_per_port = {learned_per_port}")?;
        writeln!(
            f,
            "names = {names}\naddresses_per_name = {addresses_per_name}"
        )?;
        writeln!(f, "[timeouts]")?;
        for (key, time) in [
            ("tcp_unanswered", timeouts.tcp_unanswered),
            ("tcp_established", timeouts.tcp_established),
            ("tcp_closing", timeouts.tcp_closing),
            ("udp", timeouts.udp),
            ("udp_answered", timeouts.udp_answered),
            ("icmp", timeouts.icmp),
            ("adoption", timeouts.adoption),
            ("names", timeouts.names),
        ] {
            writeln!(f, "{key} = {}", time.as_secs())?;
        }
        let level = log.level.as_str().to_lowercase();
        writeln!(f, "[log]\nlevel = {level:?}\nformat = \"{}\"", log.format)?;
        let Segments { bytes, count } = audit;
        writeln!(
            f,
            "[audit]\nsegment_bytes = {bytes}\nkeep_segments = {count}"
        )?;
        let Kept {
            revisions,
            days,
            bytes,
        } = history;
        writeln!(f, "[history]\nkeep_revisions = {revisions}")?;
        writeln!(f, "keep_days = {days}\nkeep_bytes = {bytes}")?;
        let Mud { trust, router_is } = mud;
        writeln!(f, "[mud]\nrouter_is = {router_is:?}")?;
        if let Some(trust) = trust {
            writeln!(f, "trust = {trust:?}")?;
        }
        let Bounds { bytes, days } = journal;
        let (unit, shift) = [("GiB", 30), ("MiB", 20)]
            .into_iter()
            .find(|(_, shift)| bytes % (1 << shift) == 0)
            .unwrap_or(("KiB", 10));
        writeln!(f, "[journal]\nsize = \"{}{unit}\"", bytes >> shift)?;
        writeln!(f, "days = {days}")
    }
}

#[cfg(test)]
mod tests;
