//! What a shell offers to complete: commands, arguments, and the names that the router knows.
//!
//! The script that a shell loads calls `wardctl` again with what was typed. Names are asked of the
//! router that the typed line would ask. If it does not answer soon, none are offered.

use std::{collections::BTreeSet, env, time::Duration};

use clap::{Command, CommandFactory as _, FromArgMatches as _};
use clap_complete::{
    CompleteEnv, Shell,
    engine::{ArgValueCandidates, CompletionCandidate},
    env::Shells,
};
use wardline_proto::v1::{GetPolicyRequest, ListServicesRequest, Policy};

use crate::{
    args::{Args, Connection, Format},
    connect::Client,
    contexts,
    exit::{Exit, Failure},
    output,
    session::Session,
};

/// The variable by which the script says which shell asks.
const VARIABLE: &str = "COMPLETE";

/// How long a person waits for names.
const PATIENCE: Duration = Duration::from_secs(2);

/// Words that are selectors by themselves.
const SELECTORS: [&str; 3] = ["any", "internet", "router"];

/// What makes the words for an argument.
type Names = fn() -> Vec<CompletionCandidate>;

/// Arguments of a command, and what makes the words for each.
type Offers = &'static [(&'static str, Names)];

/// A command, or one within another, and the names that its arguments take.
const OFFERED: [(&[&str], Offers); 16] = [
    (&["why"], &[("device", devices), ("peer", devices)]),
    (
        &["events"],
        &[
            ("devices", devices),
            ("zones", zones),
            ("rules", rules),
            ("services", services),
            ("peers", devices),
            ("interfaces", ports),
        ],
    ),
    (
        &["explain"],
        &[
            ("from", selectors),
            ("to", selectors),
            ("service", services),
            ("port", ports),
        ],
    ),
    (
        &["grant"],
        &[
            ("from", selectors),
            ("to", selectors),
            ("services", services),
        ],
    ),
    (&["quarantine"], &[("device", devices), ("port", ports)]),
    (&["release"], &[("device", devices), ("port", ports)]),
    (&["adopt"], &[("zone", zones), ("port", ports)]),
    (&["delete"], &[("objects", objects)]),
    (&["rename"], &[("object", objects)]),
    (&["revoke"], &[("name", rules)]),
    (&["mud", "check"], &[("device", devices)]),
    (&["mud", "import"], &[("device", devices)]),
    (&["mud", "assess"], &[("device", devices)]),
    (&["mud", "draft"], &[("device", devices)]),
    (&["context", "use"], &[("name", contexts)]),
    (&["context", "delete"], &[("name", contexts)]),
];

/// The command line, with the names that its arguments take.
fn command() -> Command {
    let program = Args::command().mut_arg("context", |it| {
        it.add(ArgValueCandidates::new(contexts as Names))
    });
    OFFERED
        .into_iter()
        .fold(program, |program, (path, arguments)| {
            offering(program, path, arguments)
        })
}

fn offering(command: Command, path: &[&str], arguments: Offers) -> Command {
    match path {
        [first, rest @ ..] => {
            command.mut_subcommand(first, |inner| offering(inner, rest, arguments))
        }
        [] => arguments.iter().fold(command, |command, (name, names)| {
            command.mut_arg(*name, |it| it.add(ArgValueCandidates::new(*names)))
        }),
    }
}

/// Answers a shell that asks what may come next, and ends the process; does nothing otherwise.
pub(crate) fn answer() {
    CompleteEnv::with_factory(command).var(VARIABLE).complete();
}

/// Prints the script that a shell loads.
///
/// # Errors
/// There is none for this shell, or standard output can't be written.
pub(crate) fn script(shell: Shell) -> Result<Exit, Failure> {
    output::text(&script_of(shell)?)
}

fn script_of(shell: Shell) -> Result<String, Failure> {
    let shells = Shells::builtins();
    let name = shell.to_string();
    let writer = shells
        .completer(&name)
        .ok_or_else(|| Failure::failed(format!("there is no script for {name}")))?;
    let mut script = Vec::new();
    writer
        .write_registration(VARIABLE, "wardctl", "wardctl", "wardctl", &mut script)
        .map_err(|error| Failure::failed(error.to_string()))?;
    let script = String::from_utf8_lossy(&script).into_owned();
    Ok(match shell {
        // For bash a colon ends a word otherwise, and `device:pump-1` would be three.
        Shell::Bash => format!("COMP_WORDBREAKS=${{COMP_WORDBREAKS//:}}\n{script}"),
        _ => script,
    })
}

// ── names ──────────────────────────────────────────────────────────────────────────────────────

/// Devices.
fn devices() -> Vec<CompletionCandidate> {
    offered(|policy| policy.devices.iter().map(|it| it.name.clone()).collect())
}

/// Zones.
fn zones() -> Vec<CompletionCandidate> {
    offered(|policy| policy.zones.iter().map(|it| it.name.clone()).collect())
}

/// Interfaces of guarded ports.
fn ports() -> Vec<CompletionCandidate> {
    offered(|policy| policy.ports.iter().map(|it| it.interface.clone()).collect())
}

/// Services, of the document and of the catalogue.
fn services() -> Vec<CompletionCandidate> {
    let asked = ask(async |session: &Session| {
        let request = ListServicesRequest {};
        let call = async |mut client: Client, it| client.list_services(it).await;
        session.ask(request, call).await
    });
    let services = asked.map(|it| it.services).unwrap_or_default();
    let names = services.into_iter().map(|it| it.name);
    names.map(CompletionCandidate::new).collect()
}

/// Rules, which grants are too.
fn rules() -> Vec<CompletionCandidate> {
    offered(|policy| policy.rules.iter().map(|it| it.name.clone()).collect())
}

/// Objects, as `KIND/NAME`.
fn objects() -> Vec<CompletionCandidate> {
    offered(|policy| {
        let zones = policy.zones.iter().map(|it| ("zone", &it.name));
        let ports = policy.ports.iter().map(|it| ("port", &it.interface));
        let devices = policy.devices.iter().map(|it| ("device", &it.name));
        let services = policy.services.iter().map(|it| ("service", &it.name));
        let rules = policy.rules.iter().map(|it| ("rule", &it.name));
        zones
            .chain(ports)
            .chain(devices)
            .chain(services)
            .chain(rules)
            .map(|(kind, name)| format!("{kind}/{name}"))
            .collect()
    })
}

/// Selectors: zones, devices, labels, and words.
fn selectors() -> Vec<CompletionCandidate> {
    let mut all = offered(|policy| {
        let zones = policy.zones.iter().map(|it| format!("zone:{}", it.name));
        let devices = policy
            .devices
            .iter()
            .map(|it| format!("device:{}", it.name));
        let own = policy.devices.iter().map(|it| &it.labels);
        let labels = own
            .chain(policy.zones.iter().map(|it| &it.labels))
            .flatten();
        let labels: BTreeSet<_> = labels
            .map(|(key, value)| format!("label:{key}={value}"))
            .collect();
        zones.chain(devices).chain(labels).collect()
    });
    all.extend(SELECTORS.map(CompletionCandidate::new));
    all
}

/// Contexts of this person.
fn contexts() -> Vec<CompletionCandidate> {
    let names = connection().map(|it| contexts::names(&it));
    let names = names.unwrap_or_default().into_iter();
    names.map(CompletionCandidate::new).collect()
}

/// Names out of the document in force; none if the router does not tell it.
fn offered(names: impl Fn(&Policy) -> Vec<String>) -> Vec<CompletionCandidate> {
    let policy = policy().unwrap_or_default();
    let names = names(&policy).into_iter();
    names.map(CompletionCandidate::new).collect()
}

fn policy() -> Option<Policy> {
    let asked = ask(async |session: &Session| {
        let request = GetPolicyRequest::default();
        let call = async |mut client: Client, it| client.get_policy(it).await;
        session.ask(request, call).await
    });
    asked?.policy
}

/// Asks the router that the typed line would ask; none if it does not answer.
fn ask<A>(question: impl AsyncFnOnce(&Session) -> Result<A, Failure>) -> Option<A> {
    let session = Session {
        target: contexts::target(&connection()?).ok()?,
        format: Format::Table,
        limit: PATIENCE,
        changes: false,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .ok()?;
    runtime.block_on(question(&session)).ok()
}

/// Which router the line that is being typed is for.
fn connection() -> Option<Connection> {
    let typed = env::args_os().skip_while(|word| word != "--").skip(1);
    let matches = Args::command()
        .ignore_errors(true)
        .try_get_matches_from(typed)
        .ok()?;
    Connection::from_arg_matches(&matches).ok()
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn every_name_is_of_an_argument_that_there_is() {
        command().debug_assert();
    }

    #[test]
    fn every_shell_has_a_script() {
        for shell in Shell::value_variants() {
            let script = script_of(*shell).expect("a script");
            assert!(script.contains("wardctl"), "{shell}");
        }
    }
}
