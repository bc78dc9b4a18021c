//! The command line: its commands and arguments.

use std::{path::PathBuf, str::FromStr, time::Duration};

use clap::{
    ArgMatches, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum,
    error::ErrorKind, parser::ValueSource::CommandLine,
};
use clap_complete::Shell;
use serde::{Deserialize, Serialize};
use tonic::transport::Uri;
use wardline_proto::audit::Head;

use crate::duration;

mod events;

pub(crate) use self::events::{Dropped, Events, Moment};

/// Control a Wardline router: zones, devices, and what may talk to what.
#[derive(Debug, Parser)]
#[command(
    name = "wardctl",
    version,
    propagate_version = true,
    after_help = "Exit codes: 0 done (explain: allowed), 1 could not, 2 usage, 3 explain: dropped, \
                  4 refused."
)]
pub(crate) struct Args {
    /// How answers are printed.
    #[arg(
        short,
        long,
        global = true,
        value_enum,
        default_value_t,
        value_name = "FORMAT"
    )]
    pub(crate) output: Format,
    /// How long to wait for the answer [default: 30s; 120s where a document is sent, 30m for a backup].
    #[arg(long, global = true, value_parser = duration::positive, value_name = "DURATION")]
    pub(crate) timeout: Option<Duration>,
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Args {
    /// Parses the process's arguments; on a mistake, prints it and exits with 2.
    pub(crate) fn from_command_line() -> Self {
        let matches = Self::command().get_matches();
        Self::from_matches(&matches).unwrap_or_else(|error| error.exit())
    }

    /// Takes the arguments, and checks what spans several global ones, which clap can't express.
    fn from_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut args = Self::from_arg_matches(matches)?;
        let connection = &mut args.connection;
        // A context on the command line overrides the environment, which applies to all commands.
        let named = connection.context.is_some();
        let said = |name: &str| !named || matches.value_source(name) == Some(CommandLine);
        connection.server.take_if(|_| !said("server"));
        connection.ca.take_if(|_| !said("ca"));
        connection.cert.take_if(|_| !said("cert"));
        connection.key.take_if(|_| !said("key"));
        let Connection {
            server,
            ca,
            cert,
            key,
            ..
        } = connection;
        let whole = [ca, cert, key].iter().all(|file| file.is_some());
        let sets = matches!(args.command, Command::Context(_));
        let complaint = match server {
            Some(_) if named => "--context says which server; leave out --server",
            Some(Server::Tls(_)) if !whole && !sets => {
                "an https:// server needs --ca, --cert and --key"
            }
            _ => return Ok(args),
        };
        Err(Self::command().error(ErrorKind::ArgumentConflict, complaint))
    }
}

/// Which router, and how to get there.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct Connection {
    /// The router's socket, unix:///PATH, or https://HOST:PORT [default: the current context's, or
    /// unix:///run/wardline/api.sock].
    #[arg(long, global = true, env = "WARDLINE_SERVER")]
    pub(crate) server: Option<Server>,
    /// The context to use instead of the current one.
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// The file that remembers contexts [default: ~/.config/wardline/contexts.yaml].
    #[arg(long, global = true, env = "WARDLINE_CONTEXTS", value_name = "FILE")]
    pub(crate) contexts: Option<PathBuf>,
    /// The certificate of the authority that signed the router's (PEM).
    #[arg(long, global = true, env = "WARDLINE_CA", value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// Your certificate (PEM).
    #[arg(long, global = true, env = "WARDLINE_CERT", value_name = "FILE")]
    pub(crate) cert: Option<PathBuf>,
    /// Your certificate's private key (PEM).
    #[arg(long, global = true, env = "WARDLINE_KEY", value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
}

/// Where a router listens.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) enum Server {
    /// On a Unix socket.
    Unix(PathBuf),
    /// On TCP, with mutual TLS.
    Tls(Uri),
}

impl Default for Server {
    /// The socket of a daemon on this machine.
    fn default() -> Self {
        Self::Unix("/run/wardline/api.sock".into())
    }
}

impl From<Server> for String {
    fn from(server: Server) -> Self {
        match server {
            Server::Unix(path) => format!("unix://{}", path.display()),
            Server::Tls(uri) => uri.to_string(),
        }
    }
}

impl TryFrom<String> for Server {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl FromStr for Server {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return match path {
                "" => Err("a socket's path is missing".to_owned()),
                path => Ok(Self::Unix(path.into())),
            };
        }
        match text.parse::<Uri>() {
            Ok(uri) if uri.scheme_str() == Some("https") => Ok(Self::Tls(uri)),
            Ok(_) => Err("expected unix:///PATH or https://HOST:PORT".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// How answers are printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// One JSON document; for events, one a line.
    Json,
    /// The same in YAML; for events, a document each.
    Yaml,
    /// Lists for spreadsheets, a line for each object.
    Csv,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show what runs: revision, ports and how each is attached, tables and their fill
    Status,
    /// Show what a document would change; changes nothing
    Plan(Plan),
    /// Put a whole document in force, atomically
    Apply(Apply),
    /// Add or replace a few objects as one atomic change
    Put(Apply),
    /// Delete a few objects as one atomic change
    Delete(Delete),
    /// Give an object another name, with every reference to it, as one atomic change
    Rename(Rename),
    /// Keep the change that waits for its confirmation
    Confirm(Confirm),
    /// Return to an earlier revision
    Rollback(Rollback),
    /// List the accepted changes, newest first
    History(Limit),
    /// Print the policy document, ready for apply
    Get(Get),
    /// Show what a revision changed
    Diff(Get),
    /// Ask for the verdict on a packet that would open a flow; exit code 3 if it is dropped
    Explain(Explain),
    /// Say what was dropped lately of a device, why, and what would allow it
    Why(Dropped),
    /// Cut a device or a port off, both directions, until it is released
    Quarantine(Quarantine),
    /// End a quarantine
    Release(Release),
    /// Allow something for a while
    Grant(Grant),
    /// End a grant before its time
    Revoke(Revoke),
    /// List every interface of the router: guarded how, or not and what follows
    Interfaces,
    /// List the services that rules may name: those of the document, and those that are known anyway
    Services,
    /// List the names in rules, with the addresses that resolvers have given for them
    Names,
    /// List the devices and where each was last seen; or who was seen and is not known
    Devices(Devices),
    /// Make a device of a MAC that was seen, as one atomic change
    Adopt(Adopt),
    /// Put the devices of a table in CSV, as one atomic change
    Import(Import),
    /// List the live flows
    Flows(Limit),
    /// Show packets and bytes by reason and by rule
    Counters,
    /// Show drops with their reason, and the passes that a rule logs
    Events(Events),
    /// Show who changed what and who was refused; with --verify, check that no record was tampered with
    Audit(Audit),
    /// Take over what a vendor says that a device needs (MUD, RFC 8520)
    #[command(subcommand)]
    Mud(Mud),
    /// Save all that a new router needs to go on from; wardlined --restore takes it
    Backup(Backup),
    /// Remember several routers and how to reach them, and choose one
    #[command(subcommand)]
    Context(Context),
    /// Make what a router needs to begin
    #[command(subcommand)]
    Setup(Setup),
    /// Print the script by which a shell completes commands and names that the router knows
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Write the manual pages
    Man {
        /// The folder to write them into.
        directory: PathBuf,
    },
}

impl Command {
    /// Whether it changes what is in force.
    pub(crate) fn changes(&self) -> bool {
        matches!(
            self,
            Self::Apply(_)
                | Self::Put(_)
                | Self::Delete(_)
                | Self::Rename(_)
                | Self::Adopt(_)
                | Self::Confirm(_)
                | Self::Rollback(_)
                | Self::Quarantine(_)
                | Self::Release(_)
                | Self::Grant(_)
                | Self::Revoke(_)
                | Self::Mud(Mud::Import(MudImport { plan: false, .. }))
                | Self::Import(Import { plan: false, .. })
        )
    }

    /// How long an answer may take unless `--timeout` says so.
    pub(crate) fn default_timeout(&self) -> Duration {
        match self {
            Self::Plan(_)
            | Self::Apply(_)
            | Self::Put(_)
            | Self::Import(_)
            | Self::Audit(_)
            | Self::Mud(_) => Duration::from_secs(120),
            // The history of a large policy, over a slow line.
            Self::Backup(_) => Duration::from_secs(1800),
            Self::Status
            | Self::Interfaces
            | Self::Delete(_)
            | Self::Rename(_)
            | Self::Confirm(_)
            | Self::Rollback(_)
            | Self::History(_)
            | Self::Get(_)
            | Self::Diff(_)
            | Self::Explain(_)
            | Self::Why(_)
            | Self::Quarantine(_)
            | Self::Release(_)
            | Self::Grant(_)
            | Self::Revoke(_)
            | Self::Services
            | Self::Names
            | Self::Devices(_)
            | Self::Adopt(_)
            | Self::Flows(_)
            | Self::Counters
            | Self::Events(_)
            | Self::Context(_)
            | Self::Setup(_)
            | Self::Completions { .. }
            | Self::Man { .. } => Duration::from_secs(30),
        }
    }
}

/// `plan`.
#[derive(Debug, clap::Args)]
pub(crate) struct Plan {
    /// The document, YAML or JSON; - for standard input. May be repeated for a document in parts; a
    /// folder is the .yaml, .yml and .json files in it and in its folders.
    #[arg(
        short,
        long = "file",
        required_unless_present = "delete",
        value_name = "FILE"
    )]
    pub(crate) files: Vec<PathBuf>,
    /// The files hold a few objects to add or replace, as for put.
    #[arg(long, requires = "files")]
    pub(crate) edit: bool,
    /// Objects to delete, as for delete; may go with --edit.
    #[arg(long, num_args = 1.., value_name = "KIND/NAME", value_parser = object)]
    pub(crate) delete: Vec<String>,
}

/// The files of a document.
#[derive(Debug, clap::Args)]
pub(crate) struct Files {
    /// The document, YAML or JSON; - for standard input. May be repeated for a document in parts; a
    /// folder is the .yaml, .yml and .json files in it and in its folders.
    #[arg(short, long = "file", required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
}

/// `apply` and `put`.
#[derive(Debug, clap::Args)]
pub(crate) struct Apply {
    #[command(flatten)]
    pub(crate) files: Files,
    #[command(flatten)]
    pub(crate) change: Change,
}

/// `delete`.
#[derive(Debug, clap::Args)]
pub(crate) struct Delete {
    /// What to delete; KIND is zone, port, device, service or rule, a port's NAME its interface.
    #[arg(
        required = true,
        value_name = "KIND/NAME",
        value_parser = object
    )]
    pub(crate) objects: Vec<String>,
    #[command(flatten)]
    pub(crate) change: Change,
}

/// `rename`.
#[derive(Debug, clap::Args)]
pub(crate) struct Rename {
    /// What to rename; KIND is zone, port, device, service or rule, a port's NAME its interface.
    #[arg(value_name = "KIND/OLD", value_parser = object)]
    pub(crate) object: String,
    /// The new name.
    #[arg(value_name = "NEW")]
    pub(crate) new_name: String,
    #[command(flatten)]
    pub(crate) terms: Within,
}

/// `devices`.
#[derive(Debug, clap::Args)]
pub(crate) struct Devices {
    /// Who was seen at guarded ports and is no device of the policy, with what it says of itself and what
    /// was dropped of it.
    #[arg(long)]
    pub(crate) unknown: bool,
}

/// `adopt`.
#[derive(Debug, clap::Args)]
pub(crate) struct Adopt {
    /// The MAC, as `devices --unknown` lists it.
    pub(crate) mac: String,
    /// The device's name, which no device has yet.
    #[arg(long)]
    pub(crate) name: String,
    /// Its zone.
    #[arg(long)]
    pub(crate) zone: String,
    /// The only interface that it may appear on [default: any of its zone].
    #[arg(
        long,
        default_value = "",
        hide_default_value = true,
        value_name = "INTERFACE"
    )]
    pub(crate) port: String,
    #[command(flatten)]
    pub(crate) change: Change,
}

/// When a change is taken back, why it is made, and from what.
#[derive(Debug, clap::Args)]
pub(crate) struct Within {
    /// Take the change back by itself unless it is confirmed within this time.
    #[arg(long, value_parser = duration::seconds::<u32>, value_name = "DURATION")]
    pub(crate) confirm_within: Option<u32>,
    #[command(flatten)]
    pub(crate) why: Why,
    /// The revision that the change was made from; refused if another is in force.
    #[arg(
        long,
        default_value_t = 0,
        hide_default_value = true,
        value_name = "REV"
    )]
    pub(crate) base: u64,
}

impl Within {
    /// The revision that the change is made from: as given, else the one that it was told of. What was told is
    /// true of that one only.
    pub(crate) fn base_or(&self, told: u64) -> u64 {
        if self.base == 0 { told } else { self.base }
    }
}

/// `import`.
#[derive(Debug, clap::Args)]
pub(crate) struct Import {
    /// The table in CSV, with a heading; - for standard input.
    #[arg(short, long, value_name = "CSV")]
    pub(crate) file: PathBuf,
    /// Which column a field is taken from, such as name=asset_tag. Fields are name, zone, macs, addresses, port,
    /// description, owner, ticket, labels and labels.KEY; a column of the same name is found anyway.
    #[arg(long, value_delimiter = ',', value_name = "FIELD=COLUMN", value_parser = mapped)]
    pub(crate) map: Vec<(String, String)>,
    /// The character between cells [default: what the heading has most of , ; | and tab].
    #[arg(
        long,
        default_value = "",
        hide_default_value = true,
        value_name = "CHARACTER"
    )]
    pub(crate) delimiter: String,
    /// Show what the table would change, and change nothing.
    #[arg(long)]
    pub(crate) plan: bool,
    #[command(flatten)]
    pub(crate) change: Change,
}

/// What goes with every change of the document.
#[derive(Debug, clap::Args)]
pub(crate) struct Change {
    #[command(flatten)]
    pub(crate) terms: Within,
    /// Make the change without a question. A terminal is told what the change does, and asked; a script never is.
    #[arg(long)]
    pub(crate) yes: bool,
}

/// `mud`.
#[derive(Debug, Subcommand)]
pub(crate) enum Mud {
    /// Show what a file would allow here, and why not the rest; changes nothing
    Check(MudCheck),
    /// Put the rules of a file in force; a later version of the file replaces them
    Import(MudImport),
    /// Show what a device did beside what its file says: used, unused, undeclared
    Assess(MudAssess),
    /// Write a file of what a device did, to correct and to ask its vendor about
    Draft(MudDraft),
}

/// `mud assess`.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub(crate) struct MudAssess {
    /// The device.
    pub(crate) device: Option<String>,
    /// Each device that has a file.
    #[arg(long)]
    pub(crate) all: bool,
}

/// `mud draft`.
#[derive(Debug, clap::Args)]
pub(crate) struct MudDraft {
    /// The device.
    pub(crate) device: String,
    /// The URL that the file is to have [default: DEVICE below the host draft.invalid].
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) url: String,
}

/// A MUD file and its signature.
#[derive(Debug, clap::Args)]
pub(crate) struct MudFile {
    /// The file, as the vendor publishes it.
    pub(crate) file: PathBuf,
    /// The signature over it: CMS in DER, which vendors publish as .p7s.
    #[arg(long, value_name = "FILE")]
    pub(crate) signature: Option<PathBuf>,
}

/// Whom a MUD file is for.
#[derive(Debug, clap::Args)]
#[group(multiple = false)]
pub(crate) struct MudSubject {
    /// A device; it gets the labels mud and mud-maker, which the rules name.
    #[arg(long, value_name = "NAME")]
    pub(crate) device: Option<String>,
    /// The devices that have this label instead.
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) label: Option<String>,
}

/// `mud check`.
#[derive(Debug, clap::Args)]
pub(crate) struct MudCheck {
    #[command(flatten)]
    pub(crate) file: MudFile,
    #[command(flatten)]
    pub(crate) subject: MudSubject,
    /// Show what it would allow if somebody approved of it.
    #[arg(long)]
    pub(crate) approved: bool,
}

/// `mud import`.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("whom").args(["device", "label"]).required(true))]
pub(crate) struct MudImport {
    #[command(flatten)]
    pub(crate) file: MudFile,
    #[command(flatten)]
    pub(crate) subject: MudSubject,
    /// Why you approve of a file without a signature, or of the addresses in a file; for the history and the
    /// audit.
    #[arg(long, value_name = "REASON", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub(crate) approve: Option<String>,
    /// Show what the import would change, as plan does; changes nothing.
    #[arg(long)]
    pub(crate) plan: bool,
    #[command(flatten)]
    pub(crate) change: Change,
}

/// Why something is done; it may be left out.
#[derive(Debug, clap::Args)]
pub(crate) struct Why {
    /// Why, for the history and the audit.
    #[arg(
        long,
        default_value = "",
        hide_default_value = true,
        value_name = "TEXT"
    )]
    pub(crate) reason: String,
}

/// `confirm`.
#[derive(Debug, clap::Args)]
pub(crate) struct Confirm {
    /// The revision to confirm [default: the one that waits].
    #[arg(value_name = "REV", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) revision: Option<u64>,
}

/// `rollback`.
#[derive(Debug, clap::Args)]
pub(crate) struct Rollback {
    /// The revision to return to [default: the one before the one in force].
    #[arg(value_name = "REV", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) revision: Option<u64>,
    #[command(flatten)]
    pub(crate) why: Why,
}

/// `history` and `flows`.
#[derive(Debug, clap::Args)]
pub(crate) struct Limit {
    /// The most entries to show.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: Option<u32>,
}

/// `get` and `diff`.
#[derive(Debug, clap::Args)]
pub(crate) struct Get {
    /// The revision [default: the one in force].
    #[arg(value_name = "REV", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) revision: Option<u64>,
}

/// `explain`.
#[derive(Debug, clap::Args)]
pub(crate) struct Explain {
    /// Who opens: device:NAME, zone:NAME, label:KEY=VALUE, cidr:PREFIX, internet, router, any, or an
    /// address.
    #[arg(long, value_name = "SELECTOR")]
    pub(crate) from: String,
    /// To whom: an address, or the same.
    #[arg(long, value_name = "ADDRESS|SELECTOR")]
    pub(crate) to: String,
    /// A service's name, or a protocol and port such as tcp/443.
    pub(crate) service: String,
    /// The interface that the packet enters; for what the router sends to a group, the port that it
    /// leaves through [default: one where the source belongs].
    #[arg(
        long,
        default_value = "",
        hide_default_value = true,
        value_name = "INTERFACE"
    )]
    pub(crate) port: String,
    /// The packet's source port [default: an ephemeral one].
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    pub(crate) source_port: u16,
    /// The MAC that the packet comes from [default: the source's, or one that no device has].
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) mac: String,
}

/// A device, or a port.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Whom {
    /// The device's name, or one of its MACs.
    pub(crate) device: Option<String>,
    /// A guarded interface instead, with everybody behind it.
    #[arg(long, value_name = "INTERFACE")]
    pub(crate) port: Option<String>,
}

/// `quarantine`.
#[derive(Debug, clap::Args)]
pub(crate) struct Quarantine {
    #[command(flatten)]
    pub(crate) whom: Whom,
    /// Why, for the history and the audit.
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: String,
}

/// `release`.
#[derive(Debug, clap::Args)]
pub(crate) struct Release {
    #[command(flatten)]
    pub(crate) whom: Whom,
    #[command(flatten)]
    pub(crate) why: Why,
}

/// `grant`.
#[derive(Debug, clap::Args)]
pub(crate) struct Grant {
    /// Who may open: zone:NAME, device:NAME, label:KEY=VALUE, cidr:PREFIX, internet, router or any; may
    /// be repeated.
    #[arg(long, required = true, value_name = "SELECTOR")]
    pub(crate) from: Vec<String>,
    /// To whom, the same way; may be repeated.
    #[arg(long, required = true, value_name = "SELECTOR")]
    pub(crate) to: Vec<String>,
    /// A service's name, or a protocol and port such as tcp/443; may be repeated.
    #[arg(long = "service", required = true, value_name = "SERVICE")]
    pub(crate) services: Vec<String>,
    /// How long, such as 2h, 1h30m or 1d.
    #[arg(long = "for", value_parser = duration::seconds::<u64>, value_name = "DURATION")]
    pub(crate) lifetime: u64,
    /// Why, for the history and the audit.
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: String,
    /// The grant's name [default: one is made].
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) name: String,
    /// Holds for a device in quarantine as well.
    #[arg(long)]
    pub(crate) keep_in_quarantine: bool,
}

/// `revoke`.
#[derive(Debug, clap::Args)]
pub(crate) struct Revoke {
    /// The grant's name.
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) why: Why,
}

/// `audit`.
#[derive(Debug, clap::Args)]
pub(crate) struct Audit {
    /// The most records to show, the newest.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..), conflicts_with_all = ["verify", "file"])]
    pub(crate) limit: Option<u32>,
    /// Check that no record was changed, removed or inserted; exit code 4 if one was.
    #[arg(long)]
    pub(crate) verify: bool,
    /// The head that an earlier --verify printed: shows also whether the end was cut off or rewritten.
    #[arg(long, value_name = "NUMBER:HASH", requires = "verify")]
    pub(crate) head: Option<Head>,
    /// Read records that were exported with -o json, or a copy of segments, instead of asking the router; may be
    /// repeated, oldest first.
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Vec<PathBuf>,
}

/// `backup`.
#[derive(Debug, clap::Args)]
pub(crate) struct Backup {
    /// The file to write; - for standard output.
    #[arg(short, long, required_unless_present = "check")]
    pub(crate) file: Option<PathBuf>,
    /// Replace the file if it is there.
    #[arg(long, conflicts_with = "check")]
    pub(crate) overwrite: bool,
    /// Say what a file is a backup of and whether it is whole, instead of asking the router; exit code
    /// 4 if it is not.
    #[arg(long, value_name = "FILE", conflicts_with = "file")]
    pub(crate) check: Option<PathBuf>,
}

/// `context`.
#[derive(Debug, Clone, PartialEq, Subcommand)]
pub(crate) enum Context {
    /// List the contexts; the current one has a star
    List,
    /// Make a context the current one
    Use {
        /// Its name.
        name: String,
    },
    /// Add a context, or change it, with --server, --ca, --cert and --key
    Set {
        /// Its name.
        name: String,
    },
    /// Delete a context
    Delete {
        /// Its name.
        name: String,
    },
}

/// `setup`.
#[derive(Debug, Subcommand)]
pub(crate) enum Setup {
    /// Make an authority and the certificates of the router and of one person, for a first day
    Tls(Tls),
}

/// `setup tls`.
#[derive(Debug, clap::Args)]
pub(crate) struct Tls {
    /// The folder to write into; it is made if it is not there.
    #[arg(long, default_value = "/etc/wardline/tls", value_name = "DIRECTORY")]
    pub(crate) directory: PathBuf,
    /// A name or an address by which clients reach the router; may be repeated. The host's name and
    /// those of the loopback are there anyway.
    #[arg(long = "name", value_name = "NAME|ADDRESS")]
    pub(crate) names: Vec<String>,
    /// Who gets the person's certificate.
    #[arg(long, default_value = "operator", value_parser = word, value_name = "NAME")]
    pub(crate) person: String,
    /// What that person may: viewer, operator or admin.
    #[arg(long, default_value = "operator", value_parser = ["viewer", "operator", "admin"])]
    pub(crate) role: String,
    /// How many days the two certificates are good for; the authority is for ten years.
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u16).range(1..=3650))]
    pub(crate) days: u16,
    /// Whose the router's key is: the user that the daemon runs as, if there is one.
    #[arg(long, default_value = "wardline", value_name = "USER")]
    pub(crate) owner: String,
    /// Replace files that are there: everybody then needs new ones.
    #[arg(long)]
    pub(crate) overwrite: bool,
}

/// Checks that a text is one word, which can be part of a name in a certificate.
fn word(text: &str) -> Result<String, String> {
    let fits = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
    if text.is_empty() || text.starts_with('.') || !text.chars().all(fits) {
        return Err("expected letters, digits, `.`, `_` and `-`".to_owned());
    }
    // The files of the two others have these names.
    if ["ca", "router"].contains(&text) {
        return Err(format!("{text} is the name of another file"));
    }
    Ok(text.to_owned())
}

/// Takes a field and its column apart.
fn mapped(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((field, column)) if !field.is_empty() && !column.is_empty() => {
            Ok((field.to_owned(), column.to_owned()))
        }
        _ => Err("expected FIELD=COLUMN".to_owned()),
    }
}

/// Checks the form `KIND/NAME`; only the router knows whether the object exists.
fn object(text: &str) -> Result<String, String> {
    const KINDS: [&str; 6] = ["zone", "port", "device", "service", "rule", "resolver"];
    match text.split_once('/') {
        Some((kind, name)) if KINDS.contains(&kind) && !name.is_empty() => Ok(text.to_owned()),
        _ => Err(format!(
            "expected KIND/NAME, where KIND is {}",
            KINDS.join(", ")
        )),
    }
}

#[cfg(test)]
mod tests;
