//! How the daemon runs: flags, the file, and the files that it names.

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use globset::{Glob, GlobMatcher};
use serde::Deserialize;
use toml::Spanned;
use wardline_datapath::timeouts::Timeouts;
use wardline_ebpf::abi::FAILSAFES;
use wardline_policy::{failsafe::Failsafe, limits::Limits};

/// Guards the ports of this router as the policy in force says.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "wardlined", version)]
pub struct Flags {
    /// The configuration; without this flag a file that is not there means the defaults
    /// [default: /etc/wardline/wardlined.toml]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Check the configuration, say what it is, and exit
    #[arg(long)]
    pub check: bool,
    /// Remove everything that was ever attached or pinned, and exit; the daemon must be stopped
    #[arg(long, conflicts_with = "check")]
    pub detach: bool,
    /// Load the programs into the kernel, print how large they are, and exit
    #[arg(long, conflicts_with_all = ["check", "detach"])]
    pub programs: bool,
    /// What to log: error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub log: tracing::Level,
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
    /// Where and for whom the API is.
    pub api: Api,
    /// Where metrics are.
    pub metrics: Metrics,
    /// How much the tables hold.
    pub limits: Limits,
    /// How long a silent flow lives.
    pub timeouts: Timeouts,
    /// Who may always reach the router.
    pub failsafe: Vec<Failsafe>,
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
    /// Who may what over TCP.
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
    /// Who signs clients.
    pub client_ca: Vec<u8>,
}

/// A role for the clients whose certificate has a name that fits.
#[derive(Clone, Debug)]
pub struct RoleMatch {
    names: GlobMatcher,
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

/// Why there is no configuration.
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

/// Read unless the command line names another.
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
}

impl Api {
    /// The most that a client may, by the names of its certificate, and the name that says so;
    /// none: nothing.
    pub fn role<'n>(&self, names: impl IntoIterator<Item = &'n str>) -> Option<(Role, &'n str)> {
        let fits = |name: &'n str| {
            let fitting = self.roles.iter().filter(|entry| entry.names.is_match(name));
            Some((fitting.map(|entry| entry.role).max()?, name))
        };
        names
            .into_iter()
            .filter_map(fits)
            .max_by_key(|(role, _)| *role)
    }
}

impl RoleMatch {
    /// The pattern of the certificates' names.
    pub fn names(&self) -> &str {
        self.names.glob().glob()
    }
}

impl PartialEq for RoleMatch {
    fn eq(&self, other: &Self) -> bool {
        self.names() == other.names() && self.role == other.role
    }
}

impl Eq for RoleMatch {}

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

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        })
    }
}

/// Says what is configured, defaults too, as a file that would say the same.
impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            router,
            state_dir,
            pin_dir,
            api,
            metrics,
            limits,
            timeouts,
            failsafe,
        } = self;
        writeln!(
            f,
            "router    = {router:?}\nstate_dir = {state_dir:?}\npin_dir   = {pin_dir:?}"
        )?;
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
                entry.names(),
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
            rules,
        } = limits;
        writeln!(f, "[limits]\ndevices = {devices}\nflows = {flows}")?;
        writeln!(f, "flows_per_device = {flows_per_device}\nrules = {rules}")?;
        writeln!(f, "[timeouts]")?;
        for (key, time) in [
            ("tcp_unanswered", timeouts.tcp_unanswered),
            ("tcp_established", timeouts.tcp_established),
            ("tcp_closing", timeouts.tcp_closing),
            ("udp", timeouts.udp),
            ("udp_answered", timeouts.udp_answered),
            ("icmp", timeouts.icmp),
            ("adoption", timeouts.adoption),
        ] {
            writeln!(f, "{key} = {}", time.as_secs())?;
        }
        Ok(())
    }
}

// ── the file ───────────────────────────────────────────────────────────────────────────────────

// `docs/configuration.md` is made from what is said here of each key.

/// The whole file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// The router's name, as `wardctl status` and metrics show it.
    ///
    /// Example: `router = "edge-ward-3"`
    router: Option<Spanned<String>>,
    /// Where the history of revisions and the audit are kept. Only root may read it. A backup is a copy of it.
    ///
    /// Example: `state_dir = "/var/lib/wardline"`
    state_dir: Option<Spanned<PathBuf>>,
    /// Where maps and hooks are pinned. It must be below a BPF file system, which is mounted if it is
    /// missing. Two daemons on one machine need two folders.
    ///
    /// Example: `pin_dir = "/sys/fs/bpf/wardline"`
    pin_dir: Option<Spanned<PathBuf>>,
    /// Who may always reach the router, whatever a policy says, also in quarantine. At most 32 pairs of
    /// a prefix and a service, in all entries together.
    ///
    /// Example: `failsafe = [{ from = ["10.20.0.5", "fd20::5"], services = ["tcp/22", "tcp/7443"] }]`
    #[serde(default)]
    failsafe: Vec<Spanned<FileFailsafe>>,
    /// Where and for whom the API is served.
    #[serde(default)]
    api: FileApi,
    /// Where metrics are served.
    #[serde(default)]
    metrics: FileMetrics,
    /// How much the tables hold. Tables keep the size that they were made with; for larger ones stop the
    /// daemon, run `wardlined --detach`, and start it.
    #[serde(default)]
    limits: BTreeMap<Limit, Spanned<i64>>,
    /// How long a flow lives without a packet, in seconds.
    #[serde(default)]
    timeouts: BTreeMap<Timeout, Spanned<i64>>,
}

/// Who may always reach the router.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileFailsafe {
    /// Addresses or prefixes. List single addresses: any device may use an address that is listed here.
    from: Vec<String>,
    /// What they may reach: `tcp/22`, `udp/161`, `icmp/8`, as in a policy.
    services: Vec<String>,
}

/// Where and for whom the API is served.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileApi {
    /// The Unix socket; its path has at most 107 bytes. Only root may use it, as admin.
    ///
    /// Example: `api.socket = "/run/wardline/api.sock"`
    socket: Option<Spanned<PathBuf>>,
    /// The TCP address. It needs `api.tls`: there is no plaintext TCP.
    ///
    /// Example: `api.listen = "0.0.0.0:7443"`
    listen: Option<Spanned<String>>,
    /// The files of mutual TLS, in PEM. They are read again when they change.
    ///
    /// Example: `api.tls = { cert = "/etc/wardline/router.pem", key = "/etc/wardline/router.key", client_ca = "/etc/wardline/clients.pem" }`
    tls: Option<Spanned<Tls>>,
    /// Which clients have which role over TCP. The highest role of all that match counts; who matches
    /// none is refused.
    ///
    /// Example: `api.roles = [{ match = "spiffe://clinic/netops/*", role = "operator" }, { match = "*@clinic.example", role = "admin" }]`
    #[serde(default)]
    roles: Vec<FileRole>,
}

/// Which clients have which role.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileRole {
    /// A glob on the names of the client's certificate: URI, DNS, e-mail and IP alternative names, and
    /// common names.
    r#match: Spanned<String>,
    /// `viewer`, `operator` or `admin`.
    role: Role,
}

/// Where metrics are served.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileMetrics {
    /// The TCP address of OpenMetrics over HTTP; an empty text turns them off.
    ///
    /// Example: `metrics.listen = "127.0.0.1:9643"`
    listen: Option<Spanned<String>>,
}

/// How much the tables hold.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Limit {
    /// Devices of a policy.
    ///
    /// Example: `limits.devices = 20000`
    Devices,
    /// Live flows. Each takes about 400 bytes of the kernel's memory, allocated at the start.
    ///
    /// Example: `limits.flows = 65536`
    Flows,
    /// Live flows that one device may have opened.
    ///
    /// Example: `limits.flows_per_device = 1000`
    FlowsPerDevice,
    /// Rules of a policy.
    ///
    /// Example: `limits.rules = 20000`
    Rules,
}

/// How long a silent flow lives.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Timeout {
    /// TCP before the answer.
    ///
    /// Example: `timeouts.tcp_unanswered = 30`
    TcpUnanswered,
    /// TCP after the handshake.
    ///
    /// Example: `timeouts.tcp_established = 86400`
    TcpEstablished,
    /// TCP after both ends have sent a FIN, or one a RST.
    ///
    /// Example: `timeouts.tcp_closing = 10`
    TcpClosing,
    /// UDP before the answer, and what has no time-out of its own.
    ///
    /// Example: `timeouts.udp = 30`
    Udp,
    /// The same after the answer.
    ///
    /// Example: `timeouts.udp_answered = 300`
    UdpAnswered,
    /// ICMP.
    ///
    /// Example: `timeouts.icmp = 30`
    Icmp,
    /// How long after a port is first guarded running flows that a rule allows are adopted; 0: not at all.
    ///
    /// Example: `timeouts.adoption = 10`
    Adoption,
}

impl File {
    fn into_config(self, place: &Place<'_>) -> Result<Config, ConfigError> {
        let path = |value: Option<Spanned<PathBuf>>, default: &str| match value {
            None => Ok(PathBuf::from(default)),
            Some(value) if value.get_ref().is_absolute() => Ok(value.into_inner()),
            Some(value) => Err(place.wrong(&value, "not an absolute path")),
        };
        let router = match self.router {
            None => host_name()?,
            Some(router) => {
                let name = router.get_ref();
                if !(1..=253).contains(&name.len()) || name.contains(char::is_control) {
                    return Err(place.wrong(&router, "not a name of 1 to 253 characters"));
                }
                router.into_inner()
            }
        };
        Ok(Config {
            router,
            state_dir: path(self.state_dir, "/var/lib/wardline")?,
            pin_dir: path(self.pin_dir, "/sys/fs/bpf/wardline")?,
            api: self.api.into_api(place)?,
            metrics: Metrics {
                listen: match self.metrics.listen {
                    None => Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9643)),
                    Some(off) if off.get_ref().is_empty() => None,
                    Some(listen) => Some(place.socket(&listen)?),
                },
            },
            limits: limits(&self.limits, place)?,
            timeouts: timeouts(&self.timeouts, place)?,
            failsafe: failsafes(self.failsafe, place)?,
        })
    }
}

/// The kernel's sun_path, without its terminator.
const MAX_SOCKET_PATH: usize = 107;

impl FileApi {
    fn into_api(self, place: &Place<'_>) -> Result<Api, ConfigError> {
        let socket = match self.socket {
            None => PathBuf::from("/run/wardline/api.sock"),
            Some(socket) => {
                let path = socket.get_ref();
                if !path.is_absolute() || path.as_os_str().len() > MAX_SOCKET_PATH {
                    let message =
                        format!("not an absolute path of at most {MAX_SOCKET_PATH} bytes");
                    return Err(place.wrong(&socket, message));
                }
                socket.into_inner()
            }
        };
        let listen = match &self.listen {
            Some(listen) if self.tls.is_none() => {
                return Err(place.wrong(listen, "needs api.tls; there is no plaintext TCP"));
            }
            Some(listen) => Some(place.socket(listen)?),
            None => None,
        };
        let tls = match self.tls {
            Some(tls) => {
                let Tls {
                    cert,
                    key,
                    client_ca,
                } = tls.get_ref();
                if ![cert, key, client_ca].iter().all(|path| path.is_absolute()) {
                    return Err(place.wrong(&tls, "cert, key and client_ca must be absolute paths"));
                }
                Some(tls.into_inner())
            }
            None => None,
        };
        let mut roles = Vec::with_capacity(self.roles.len());
        for FileRole {
            r#match: pattern,
            role,
        } in self.roles
        {
            if pattern.get_ref().is_empty() {
                return Err(place.wrong(&pattern, "empty; write a name or a glob"));
            }
            let glob =
                Glob::new(pattern.get_ref()).map_err(|error| place.wrong(&pattern, error))?;
            roles.push(RoleMatch {
                names: glob.compile_matcher(),
                role,
            });
        }
        Ok(Api {
            socket,
            listen,
            tls,
            roles,
        })
    }
}

fn limits(file: &BTreeMap<Limit, Spanned<i64>>, place: &Place<'_>) -> Result<Limits, ConfigError> {
    let mut limits = Limits::default();
    for (limit, value) in file {
        let (field, bounds) = match limit {
            Limit::Devices => (&mut limits.devices, 1..=1 << 20),
            Limit::Flows => (&mut limits.flows, 64..=1 << 24),
            Limit::FlowsPerDevice => (&mut limits.flows_per_device, 1..=1 << 24),
            Limit::Rules => (&mut limits.rules, 1..=1 << 20),
        };
        *field = place.number(value, bounds)?;
    }
    Ok(limits)
}

fn timeouts(
    file: &BTreeMap<Timeout, Spanned<i64>>,
    place: &Place<'_>,
) -> Result<Timeouts, ConfigError> {
    const WEEK: u32 = 7 * 24 * 60 * 60;
    let mut timeouts = Timeouts::default();
    for (timeout, value) in file {
        let field = match timeout {
            Timeout::TcpUnanswered => &mut timeouts.tcp_unanswered,
            Timeout::TcpEstablished => &mut timeouts.tcp_established,
            Timeout::TcpClosing => &mut timeouts.tcp_closing,
            Timeout::Udp => &mut timeouts.udp,
            Timeout::UdpAnswered => &mut timeouts.udp_answered,
            Timeout::Icmp => &mut timeouts.icmp,
            Timeout::Adoption => &mut timeouts.adoption,
        };
        let least = u32::from(*timeout != Timeout::Adoption);
        *field = Duration::from_secs(place.number(value, least..=WEEK)?.into());
    }
    Ok(timeouts)
}

fn failsafes(
    file: Vec<Spanned<FileFailsafe>>,
    place: &Place<'_>,
) -> Result<Vec<Failsafe>, ConfigError> {
    let mut failsafes = Vec::new();
    let mut entries = 0;
    for value in file {
        let FileFailsafe { from, services } = value.get_ref();
        let failsafe =
            Failsafe::read(from, services.clone()).map_err(|error| place.wrong(&value, error))?;
        entries += failsafe.entries().count();
        if entries > FAILSAFES as usize {
            let message = format!(
                "with this there are {entries} pairs of a prefix and a service, the table holds \
                 {FAILSAFES}"
            );
            return Err(place.wrong(&value, message));
        }
        failsafes.push(failsafe);
    }
    Ok(failsafes)
}

fn host_name() -> Result<String, ConfigError> {
    let path = Path::new("/proc/sys/kernel/hostname");
    let name = fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })?;
    Ok(name.trim().to_owned())
}

// ── where in the file ──────────────────────────────────────────────────────────────────────────

struct Place<'a> {
    text: &'a str,
    path: &'a Path,
}

impl Place<'_> {
    fn number(
        &self,
        value: &Spanned<i64>,
        bounds: RangeInclusive<u32>,
    ) -> Result<u32, ConfigError> {
        u32::try_from(*value.get_ref())
            .ok()
            .filter(|number| bounds.contains(number))
            .ok_or_else(|| {
                let (number, low, high) = (value.get_ref(), bounds.start(), bounds.end());
                self.wrong(value, format!("{number} is not from {low} to {high}"))
            })
    }

    fn socket(&self, value: &Spanned<String>) -> Result<SocketAddr, ConfigError> {
        let text = value.get_ref();
        text.parse().map_err(|_| {
            self.wrong(
                value,
                format!("{text:?} is not an address and port, as 127.0.0.1:7443"),
            )
        })
    }

    fn wrong<T>(&self, value: &Spanned<T>, message: impl fmt::Display) -> ConfigError {
        self.at(value.span().start, message)
    }

    fn refused(&self, error: &toml::de::Error) -> ConfigError {
        self.at(error.span().map_or(0, |span| span.start), error.message())
    }

    /// The parser tells bytes, people want line and key: the table's header above and the word
    /// before the equals sign.
    fn at(&self, byte: usize, message: impl fmt::Display) -> ConfigError {
        let before = &self.text[..self.text.floor_char_boundary(byte)];
        let line = before.matches('\n').count() + 1;
        let lines = || self.text.lines().take(line).map(str::trim);
        let header = |line: &str| {
            let name = line
                .strip_prefix('[')?
                .split(']')
                .next()?
                .trim_matches(['[', ' ']);
            (!line.contains('=')).then(|| name.to_owned())
        };
        let table = lines().filter_map(header).last();
        let assigned = |line: &str| Some(line.split_once('=')?.0.trim().to_owned());
        let word = lines().last().and_then(assigned);
        let key: Vec<_> = table
            .into_iter()
            .chain(word)
            .filter(|key| !key.is_empty())
            .collect();
        let key = if key.is_empty() {
            "syntax".to_owned()
        } else {
            key.join(".")
        };
        // The parser's message may go on with a hint on a line of its own.
        let message = message.to_string().trim().replace('\n', "; ");
        ConfigError::Value {
            path: self.path.to_owned(),
            line,
            key,
            message,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[test]
    fn an_empty_file_means_the_defaults() {
        let config = parse("").expect("the defaults");
        assert!(!config.router.is_empty());
        assert_eq!(config.state_dir, Path::new("/var/lib/wardline"));
        assert_eq!(config.pin_dir, Path::new("/sys/fs/bpf/wardline"));
        assert_eq!(config.api.socket, Path::new("/run/wardline/api.sock"));
        assert_eq!(
            (config.api.listen, &config.api.tls, config.api.roles.len()),
            (None, &None, 0)
        );
        assert_eq!(config.metrics.listen, "127.0.0.1:9643".parse().ok());
        assert_eq!(config.limits, Limits::default());
        assert_eq!(config.timeouts, Timeouts::default());
    }

    const WHOLE: &str = r#"
router    = "edge-ward-3"
state_dir = "/tmp/state"
pin_dir   = "/sys/fs/bpf/other"
failsafe  = [{ from = ["10.0.9.5", "fd00::/64"], services = ["tcp/22"] }]
[api]
socket = "/tmp/api.sock"
listen = "0.0.0.0:7443"
tls    = { cert = "/a", key = "/b", client_ca = "/c" }
roles  = [{ match = "spiffe://clinic/netops/*", role = "operator" }, { match = "root", role = "admin" }]
[metrics]
listen = ""
[limits]
devices = 10
flows = 64
flows_per_device = 1
rules = 20
[timeouts]
tcp_unanswered = 1
tcp_established = 2
tcp_closing = 3
udp = 4
udp_answered = 5
icmp = 6
"#;

    #[test]
    fn reads_every_key() {
        let config = parse(WHOLE).expect("a configuration");
        assert_eq!(config.router, "edge-ward-3");
        assert_eq!(config.api.listen, "0.0.0.0:7443".parse().ok());
        assert_eq!(
            config.api.tls.as_ref().map(|tls| tls.key.as_path()),
            Some(Path::new("/b"))
        );
        assert_eq!(config.metrics.listen, None);
        assert_eq!(config.failsafe[0].from.len(), 2);
        let limits = Limits {
            devices: 10,
            flows: 64,
            flows_per_device: 1,
            rules: 20,
        };
        assert_eq!(config.limits, limits);
        assert_eq!(config.timeouts.udp_answered, Duration::from_secs(5));
    }

    #[test]
    fn says_what_it_read_in_its_own_format() {
        for text in ["", WHOLE] {
            let config = parse(text).expect("a configuration");
            assert_eq!(parse(&config.to_string()).expect("the same"), config);
        }
    }

    #[test]
    fn refuses_with_file_line_and_key() {
        for (text, expected) in [
            (
                "rooter = 'x'",
                "f.toml:1: rooter: unknown field `rooter`, expected one of",
            ),
            ("router = ''", "f.toml:1: router: not a name"),
            (
                "router = 'x'\nstate_dir = 'a'",
                "f.toml:2: state_dir: not an absolute path",
            ),
            (
                "\n[api]\n\nlisten = '0.0.0.0:1'",
                "f.toml:4: api.listen: needs api.tls",
            ),
            (
                "[api]\nlissen = ''",
                "f.toml:2: api.lissen: unknown field `lissen`, expected one of",
            ),
            (
                "[api]\ntls = { cert = '/a' }",
                "f.toml:2: api.tls: missing field `key`",
            ),
            (
                "[api]\nsocket = 'x'",
                "f.toml:2: api.socket: not an absolute path",
            ),
            (
                "[api]\nroles = [{ match = '', role = 'viewer' }]",
                "f.toml:2: api.roles: empty",
            ),
            (
                "[api]\nroles = [{ match = '[', role = 'viewer' }]",
                "f.toml:2: api.roles: error parsing glob",
            ),
            (
                "[api]\nroles = [{ match = 'x', role = 'root' }]",
                "f.toml:2: api.roles: unknown variant `root`",
            ),
            (
                "failsafe = [{ from = ['x'], services = ['tcp/22'] }]",
                "f.toml:1: failsafe: \"x\" is no address or prefix",
            ),
            (
                "[[failsafe]]\nfrom = ['10.0.0.1']",
                "f.toml:1: failsafe: missing field `services`",
            ),
            (
                "[metrics]\nlisten = 'here'",
                "f.toml:2: metrics.listen: \"here\" is not an address",
            ),
            (
                "[limits]\nflows = 63",
                "f.toml:2: limits.flows: 63 is not from 64 to 16777216",
            ),
            (
                "[limits]\nflows = 16777217",
                "f.toml:2: limits.flows: 16777217 is not from",
            ),
            (
                "[limits]\nflows_per_device = 0",
                "f.toml:2: limits.flows_per_device: 0 is not from 1",
            ),
            (
                "[limits]\ndevices = -1",
                "f.toml:2: limits.devices: -1 is not from 1",
            ),
            (
                "[limits]\ndevices = 'x'",
                "f.toml:2: limits.devices: invalid type: string",
            ),
            (
                "[limits]\nzones = 1",
                "f.toml:2: limits.zones: unknown variant `zones`",
            ),
            (
                "[timeouts]\nudp = 0",
                "f.toml:2: timeouts.udp: 0 is not from 1 to 604800",
            ),
            (
                "router = 'a'\nrouter = 'b'",
                "f.toml:2: router: duplicate key",
            ),
            ("# é\nrouter", "f.toml:2: "),
        ] {
            let error = parse(text).expect_err("must be refused").to_string();
            assert!(error.starts_with(expected), "{error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_an_error_only_when_named() {
        let flags = Flags::try_parse_from(["wardlined", "--config", "/nowhere/x.toml"]);
        let error = Config::load(&flags.expect("flags"))
            .expect_err("no such file")
            .to_string();
        assert!(
            error.starts_with("/nowhere/x.toml: No such file"),
            "{error}"
        );
        assert!(Flags::try_parse_from(["wardlined", "--check", "--detach"]).is_err());
        assert!(Flags::try_parse_from(["wardlined", "--log", "loud"]).is_err());
        let flags = Flags::try_parse_from(["wardlined"]).expect("no flags");
        assert_eq!((flags.config, flags.log), (None, tracing::Level::INFO));
    }

    #[test]
    fn a_client_has_the_highest_role_of_its_names() {
        let api = parse(WHOLE).expect("a configuration").api;
        assert_eq!(
            api.role(["spiffe://clinic/netops/ada"]),
            Some((Role::Operator, "spiffe://clinic/netops/ada"))
        );
        assert_eq!(
            api.role(["spiffe://clinic/netops/ada", "root"]),
            Some((Role::Admin, "root"))
        );
        assert_eq!(api.role(["spiffe://clinic/ward/ada", "Root", ""]), None);
        assert_eq!(api.role([]), None);
    }

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(text, Path::new("f.toml"))
    }
}
