//! The file of the configuration: its keys, and how they become a [`Config`] with every bound checked.
//!
//! `docs/configuration.md` is made from what is said here of each key.

use std::{
    collections::BTreeMap,
    fmt, fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use toml::Spanned;
use tracing::Level;
use wardline_datapath::timeouts::Timeouts;
use wardline_ebpf::abi::FAILSAFES;
use wardline_policy::{failsafe::Failsafe, limits::Limits};

use super::{
    Api, Bounds, Config, ConfigError, Kept, Log, LogFormat, Metrics, OnFailure, Role, RoleMatch,
    Segments, Tls, identity::PatternError, mud::Mud,
};

/// The whole file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
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
    /// What becomes of a port that can't be guarded, and of all that were guarded when the policy in force is
    /// lost: neither the copy of it, nor the database, nor the kernel has it. `closed`: it drops all but the
    /// failsafe, and where that can't be done it is taken down. `open`: it is not guarded.
    ///
    /// Example: `on_failure = "closed"`
    #[serde(default)]
    on_failure: OnFailure,
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
    /// What is logged, and how. Flags of the command line come first.
    #[serde(default)]
    log: FileLog,
    /// How much of the audit is kept.
    #[serde(default)]
    audit: FileAudit,
    /// How much of the history is kept. A revision stays while it is one of the newest or young enough. What
    /// is in force, and what `rollback` returns to, always stays.
    #[serde(default)]
    history: FileHistory,
    /// Vendors' descriptions of devices (MUD, RFC 8520): who may sign them, and what the router is for devices.
    #[serde(default)]
    mud: FileMud,
    /// How much of the journal of events is kept. When there is no room, those that make the most noise lose
    /// their oldest events first.
    #[serde(default)]
    journal: FileJournal,
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
    /// Example: `api.roles = [{ match = "uri:spiffe://clinic/netops/*", role = "operator" }, { match = "email:*@clinic.example", role = "admin" }]`
    #[serde(default)]
    roles: Vec<FileRole>,
}

/// Which clients have which role.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileRole {
    /// A pattern of the client's names: `uri:`, `dns:`, `email:`, `ip:` or `cn:`, then a name in which
    /// `*` stands for letters of one label or segment.
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

/// What is logged, and how.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileLog {
    /// Lines from this level on: `error`, `warn`, `info`, `debug` or `trace`. Read again at SIGHUP.
    ///
    /// Example: `log.level = "debug"`
    level: Option<Spanned<String>>,
    /// `text`, or `json` with one object a line, both on standard error; or `journald`, with fields.
    ///
    /// Example: `log.format = "json"`
    #[serde(default)]
    format: LogFormat,
}

/// How much of the audit is kept.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileAudit {
    /// How many bytes a segment has before the next begins.
    ///
    /// Example: `audit.segment_bytes = 16777216`
    segment_bytes: Option<Spanned<i64>>,
    /// How many segments are kept, with the one that grows; the oldest go.
    ///
    /// Example: `audit.keep_segments = 32`
    keep_segments: Option<Spanned<i64>>,
}

/// How much of the history is kept.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileHistory {
    /// The newest so many revisions stay.
    ///
    /// Example: `history.keep_revisions = 2000`
    keep_revisions: Option<Spanned<i64>>,
    /// Revisions of so many days stay, also beyond that number.
    ///
    /// Example: `history.keep_days = 800`
    keep_days: Option<Spanned<i64>>,
    /// What all revisions may take together, in bytes; the oldest go before their time when that is reached.
    ///
    /// Example: `history.keep_bytes = 268435456`
    keep_bytes: Option<Spanned<i64>>,
}

/// Vendors' descriptions of devices.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileMud {
    /// The certificates of whom the site trusts to sign MUD files, in PEM. Without it no signature holds, and
    /// each file needs somebody's approval. Read again for each file.
    ///
    /// Example: `mud.trust = "/etc/wardline/mud-trust.pem"`
    trust: Option<Spanned<PathBuf>>,
    /// The classes of controllers that the router itself is in. At most 32.
    ///
    /// Example: `mud.router_is = ["urn:ietf:params:mud:dns", "urn:ietf:params:mud:ntp"]`
    #[serde(default)]
    router_is: Vec<Spanned<String>>,
}

/// How much of the journal of events is kept.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileJournal {
    /// What it may take on the disk: a whole number of `KiB`, `MiB` or `GiB`, from 8 MiB to 1024 GiB. A million
    /// events take about 200 MiB.
    ///
    /// Example: `journal.size = "1GiB"`
    size: Option<Spanned<String>>,
    /// Events of so many days are kept.
    ///
    /// Example: `journal.days = 90`
    days: Option<Spanned<i64>>,
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
    /// Packets of control (ARP, neighbour discovery, DHCP and the like) that one device may send in
    /// a second.
    ///
    /// Example: `limits.control = 300`
    Control,
    /// The same for a device in quarantine.
    ///
    /// Example: `limits.control_in_quarantine = 10`
    ControlInQuarantine,
    /// Learned addresses that one device may have, for each of IPv4 and IPv6.
    ///
    /// Example: `limits.learned_per_device = 8`
    LearnedPerDevice,
    /// Learned addresses that all devices at one port may have, for each of IPv4 and IPv6.
    ///
    /// Example: `limits.learned_per_port = 4096`
    LearnedPerPort,
    /// Names in the rules of a policy.
    ///
    /// Example: `limits.names = 4096`
    Names,
    /// Addresses that one of these names may have at a time; rounded up to sixteens. A further one takes the place
    /// of the one that ends first.
    ///
    /// Example: `limits.addresses_per_name = 256`
    AddressesPerName,
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
    /// How long after a change makes an interface a port running flows that a rule allows are adopted; 0: not at all.
    ///
    /// Example: `timeouts.adoption = 10`
    Adoption,
    /// How long an address counts at least that a resolver has given for a name, and half of that beyond the time that the
    /// resolver has set.
    ///
    /// Example: `timeouts.names = 60`
    Names,
}

impl File {
    pub(super) fn into_config(self, place: &Place<'_>) -> Result<Config, ConfigError> {
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
            on_failure: self.on_failure,
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
            log: self.log.into_log(place)?,
            audit: self.audit.into_segments(place)?,
            history: self.history.into_kept(place)?,
            mud: self.mud.into_mud(place)?,
            journal: self.journal.into_bounds(place)?,
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
            let names = pattern.get_ref().parse();
            let names = names.map_err(|error: PatternError| place.wrong(&pattern, error))?;
            roles.push(RoleMatch { names, role });
        }
        Ok(Api {
            socket,
            listen,
            tls,
            roles,
        })
    }
}

impl FileLog {
    fn into_log(self, place: &Place<'_>) -> Result<Log, ConfigError> {
        let Log { mut level, .. } = Log::default();
        if let Some(value) = self.level {
            level = match value.get_ref().as_str() {
                "error" => Level::ERROR,
                "warn" => Level::WARN,
                "info" => Level::INFO,
                "debug" => Level::DEBUG,
                "trace" => Level::TRACE,
                _ => return Err(place.wrong(&value, "not error, warn, info, debug or trace")),
            };
        }
        let format = self.format;
        Ok(Log { level, format })
    }
}

impl FileAudit {
    fn into_segments(self, place: &Place<'_>) -> Result<Segments, ConfigError> {
        let Segments { bytes, count } = Segments::default();
        Ok(Segments {
            bytes: place.or(self.segment_bytes, 4096..=1 << 30, bytes)?,
            // The one before the one that grows proves where the chain begins.
            count: place.or(self.keep_segments, 2..=1000, count)?,
        })
    }
}

impl FileHistory {
    fn into_kept(self, place: &Place<'_>) -> Result<Kept, ConfigError> {
        let Kept {
            revisions,
            days,
            bytes,
        } = Kept::default();
        Ok(Kept {
            revisions: place.or(self.keep_revisions, 1..=1 << 20, revisions)?,
            days: place.or(self.keep_days, 0..=36_500, days)?,
            bytes: place.or(self.keep_bytes, 1 << 16..=u32::MAX, bytes)?,
        })
    }
}

/// Most classes that the router is in, and most bytes of one.
const MOST_CLASSES: usize = 32;
const LONGEST_CLASS: usize = 200;

impl FileMud {
    fn into_mud(self, place: &Place<'_>) -> Result<Mud, ConfigError> {
        let trust = match self.trust {
            Some(trust) if !trust.get_ref().is_absolute() => {
                return Err(place.wrong(&trust, "not an absolute path"));
            }
            trust => trust.map(Spanned::into_inner),
        };
        for (at, class) in self.router_is.iter().enumerate() {
            let name = class.get_ref();
            let fits = name.len() <= LONGEST_CLASS && name.bytes().all(|it| it.is_ascii_graphic());
            if !fits || !name.contains(':') {
                return Err(place.wrong(class, "not a URI, as urn:ietf:params:mud:dns"));
            }
            if at >= MOST_CLASSES {
                return Err(place.wrong(class, format_args!("more than {MOST_CLASSES} classes")));
            }
        }
        Ok(Mud {
            trust,
            router_is: self
                .router_is
                .into_iter()
                .map(Spanned::into_inner)
                .collect(),
        })
    }
}

impl FileJournal {
    fn into_bounds(self, place: &Place<'_>) -> Result<Bounds, ConfigError> {
        let Bounds { bytes, days } = Bounds::default();
        let bytes = match self.size {
            None => bytes,
            Some(size) => size_of_text(size.get_ref()).ok_or_else(|| {
                place.wrong(&size, "not a size from 8MiB to 1024GiB, as 256MiB or 1GiB")
            })?,
        };
        Ok(Bounds {
            bytes,
            days: place.or(self.days, 1..=3650, days)?,
        })
    }
}

/// The bytes that a text means, if they are enough for a journal and not too many.
fn size_of_text(text: &str) -> Option<u64> {
    let (number, shift) = [("KiB", 10), ("MiB", 20), ("GiB", 30)]
        .into_iter()
        .find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, shift)))?;
    let number: u64 = number.trim_end().parse().ok()?;
    let bytes = number.checked_mul(1 << shift)?;
    (8 << 20..=1 << 40).contains(&bytes).then_some(bytes)
}

fn limits(file: &BTreeMap<Limit, Spanned<i64>>, place: &Place<'_>) -> Result<Limits, ConfigError> {
    let mut limits = Limits::default();
    for (limit, value) in file {
        let (field, bounds) = match limit {
            Limit::Devices => (&mut limits.devices, 1..=1 << 20),
            Limit::Flows => (&mut limits.flows, 64..=1 << 24),
            Limit::FlowsPerDevice => (&mut limits.flows_per_device, 1..=1 << 24),
            Limit::Control => (&mut limits.control, 10..=1 << 20),
            Limit::ControlInQuarantine => (&mut limits.control_in_quarantine, 1..=1 << 20),
            Limit::LearnedPerDevice => (&mut limits.learned_per_device, 1..=64),
            Limit::LearnedPerPort => (&mut limits.learned_per_port, 1..=1 << 24),
            Limit::Names => (&mut limits.names, 1..=1 << 20),
            Limit::AddressesPerName => (&mut limits.addresses_per_name, 16..=1 << 16),
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
            Timeout::Names => &mut timeouts.names,
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

pub(super) struct Place<'a> {
    pub(super) text: &'a str,
    pub(super) path: &'a Path,
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

    /// A number of the file, or the default.
    fn or<T: From<u32>>(
        &self,
        value: Option<Spanned<i64>>,
        bounds: RangeInclusive<u32>,
        default: T,
    ) -> Result<T, ConfigError> {
        match value {
            Some(value) => self.number(&value, bounds).map(T::from),
            None => Ok(default),
        }
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

    pub(super) fn refused(&self, error: &toml::de::Error) -> ConfigError {
        self.at(error.span().map_or(0, |span| span.start), error.message())
    }

    /// Converts the parser's byte offset to a line and a key, which people expect: the header of
    /// the table above it and the word before the equals sign.
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
        // The parser's message may have a hint on a second line.
        let message = message.to_string().trim().replace('\n', "; ");
        ConfigError::Value {
            path: self.path.to_owned(),
            line,
            key,
            message,
        }
    }
}
