//! Writes `docs/wardctl.md` from the definition of the command line.

use std::fmt::Write as _;

use clap::{Arg, ArgAction, Command, CommandFactory as _};

use crate::{args::Args, exit::Exit};

const HEAD: &str = "\
# wardctl

<!-- Made from the program's own definition by `cargo xtask pages`. Change cli/src/args.rs or cli/src/manual.rs. -->

`wardctl` does over the router's API what an operator does: it shows, plans and changes the policy, asks for verdicts, and
cuts devices off. It runs on the router itself, or on any machine with a client certificate.

## Which router

Without options `wardctl` asks the daemon on this machine, over the Unix socket `/run/wardline/api.sock`. Who you are is then
your user id. Another router is asked over TCP with mutual TLS; who you are is the name in your certificate.

`wardctl` takes the first of these that is given:

1. `--server`, with `--ca`, `--cert` and `--key` for an `https://` address;
2. `--context NAME`;
3. the environment: `WARDLINE_SERVER`, `WARDLINE_CA`, `WARDLINE_CERT`, `WARDLINE_KEY`;
4. the current context of `~/.config/wardline/contexts.yaml` (see [`wardctl context`](#wardctl-context));
5. the socket of this machine.

## Output

`-o table` is for people, and its layout may change. For scripts use `-o json` or `-o yaml`: they print the answer's fields as
the API has them, every field present. `-o csv` prints a line for each object of a list, with the same names as heading; cells that a
spreadsheet would take for formulas begin with an apostrophe. Answers go to standard output, warnings and errors to standard error, one problem a line.
";

/// The meaning of each exit code.
const EXITS: [(Exit, &str); 5] = [
    (Exit::Done, "Done. For `explain`: the packet would pass."),
    (
        Exit::Failed,
        "Could not: no connection, no answer in time, an error inside the router. Nothing is known about the outcome.",
    ),
    (Exit::Usage, "The command line is wrong."),
    (
        Exit::Dropped,
        "`explain` only: the packet would be dropped.",
    ),
    (
        Exit::Refused,
        "Refused: the document has problems, a name is not known, the base revision is stale, you may not. \
         For `audit --verify`: a record was changed. Nothing was changed by the command.",
    ),
];

/// A line to type after `wardctl`, and its purpose.
type Example = (&'static str, &'static str);

/// A command and its examples.
type Shown = (&'static str, &'static [Example]);

/// The commands, by purpose.
const COMMANDS: [(&str, &[Shown]); 7] = [
    (
        "See what runs",
        &[
            (
                "status",
                &[
                    (
                        "status",
                        "Revision, ports, grants, quarantined devices and tables.",
                    ),
                    ("status -o json", "The same for a script."),
                ],
            ),
            (
                "interfaces",
                &[(
                    "interfaces",
                    "Which interfaces are guarded, and what follows where none is?",
                )],
            ),
            (
                "services",
                &[(
                    "services",
                    "Which services may rules name, and where are their ports laid down?",
                )],
            ),
            (
                "names",
                &[(
                    "names",
                    "Which addresses do the names in rules have, from whom, and until when?",
                )],
            ),
            (
                "devices",
                &[
                    (
                        "devices",
                        "Where is each device, and when was it last heard?",
                    ),
                    (
                        "devices --unknown",
                        "Who was seen and is not known? What does it say of itself, and what was dropped?",
                    ),
                    (
                        "devices --unknown -o csv",
                        "The same for a spreadsheet, to be named there and imported.",
                    ),
                ],
            ),
            (
                "flows",
                &[("flows --limit 50", "The first fifty live flows.")],
            ),
            (
                "counters",
                &[(
                    "counters",
                    "What is dropped most, and which rules are used?",
                )],
            ),
            (
                "why",
                &[
                    (
                        "why pump-1",
                        "Pump 1 does not work: what of it was dropped since yesterday, and what would allow it?",
                    ),
                    (
                        "why pump-1 ehr --since 1h",
                        "The same, only between the pump and the server, in the last hour.",
                    ),
                ],
            ),
            (
                "events",
                &[
                    (
                        "events --since 10m",
                        "What was dropped in the last ten minutes, and why.",
                    ),
                    (
                        "events --since 1s --follow",
                        "What is dropped now, until you interrupt it.",
                    ),
                    (
                        "events --device pump-1 --since 1d --verdict drop",
                        "What was dropped from and to a pump since yesterday.",
                    ),
                    (
                        "events -F -o json",
                        "One JSON object a line, for a log collector.",
                    ),
                ],
            ),
        ],
    ),
    (
        "Ask before you change",
        &[
            (
                "explain",
                &[
                    (
                        "explain --from device:pump-1 --to device:ehr hl7",
                        "May the pump open a connection to the record server?",
                    ),
                    (
                        "explain --from 10.20.1.11 --to 198.51.100.7 tcp/443",
                        "The same, by address and port.",
                    ),
                ],
            ),
            (
                "plan",
                &[(
                    "plan -f policy.yaml",
                    "Who could reach whom afterwards, and which live flows would be cut.",
                )],
            ),
        ],
    ),
    (
        "Change the policy",
        &[
            (
                "apply",
                &[
                    (
                        "apply -f policy.yaml --reason \"ward 3 moves in\"",
                        "Puts the whole document in force, or nothing of it.",
                    ),
                    (
                        "apply -f policy.yaml --confirm-within 2m",
                        "Is taken back after two minutes unless you confirm it: for changes that may cut you off.",
                    ),
                    (
                        "apply -f policy.yaml --base 41",
                        "Is refused if somebody has changed the policy since revision 41.",
                    ),
                ],
            ),
            (
                "put",
                &[(
                    "put -f pump-7.yaml --reason \"new pump\"",
                    "Adds the objects in the file, or replaces those of the same name.",
                )],
            ),
            (
                "adopt",
                &[(
                    "adopt 02:00:00:00:01:07 --name pump-7 --zone pumps",
                    "Makes a device of a MAC that was seen.",
                )],
            ),
            (
                "import",
                &[
                    (
                        "import -f devices.csv --map name=asset_tag --plan",
                        "What would the devices of an inventory change?",
                    ),
                    (
                        "import -f devices.csv --map name=asset_tag --reason \"inventory\"",
                        "Puts them all as one change, or none: every bad line is named.",
                    ),
                ],
            ),
            (
                "rename",
                &[(
                    "rename device/pump-1 pump-17",
                    "In every rule, too; flows, counters and a quarantine go on.",
                )],
            ),
            (
                "delete",
                &[(
                    "delete device/pump-7 rule/pump-7-to-ehr",
                    "Both go in one change.",
                )],
            ),
            (
                "mud",
                &[
                    (
                        "mud check bulb.json",
                        "What the vendor's file would allow here, and why not the rest.",
                    ),
                    (
                        "mud import bulb.json --signature bulb.p7s --device bulb-1",
                        "Makes rules of it; the device gets the labels that they name.",
                    ),
                    (
                        "mud import bulb.json --label model=b7 --approve \"read it, NET-7\" --plan",
                        "What the file would change, if you approved of it without a signature.",
                    ),
                    (
                        "mud assess bulb-1",
                        "What the bulb did that its file does not say, and what of the file it never uses.",
                    ),
                    (
                        "mud draft bulb-1",
                        "A file of what the bulb did, to correct by hand.",
                    ),
                ],
            ),
            ("confirm", &[("confirm", "Keeps the change that waits.")]),
            (
                "rollback",
                &[
                    (
                        "rollback --reason \"pumps offline\"",
                        "Back to the document before.",
                    ),
                    (
                        "rollback 38",
                        "Back to the document of revision 38, as a new revision.",
                    ),
                ],
            ),
            (
                "history",
                &[(
                    "history --limit 10",
                    "The last ten changes: who, when, why.",
                )],
            ),
            (
                "get",
                &[
                    ("get", "The document in force, ready for `apply`."),
                    ("get 38", "That of an earlier revision."),
                ],
            ),
            ("diff", &[("diff 42", "What revision 42 changed.")]),
        ],
    ),
    (
        "Act on one device",
        &[
            (
                "quarantine",
                &[
                    (
                        "quarantine camera-1 --reason \"scans the network\"",
                        "Cut off at once, its live flows too, by its MACs: whatever it is called later.",
                    ),
                    (
                        "quarantine --port lan3 --reason \"a guest floods\"",
                        "Everybody behind the port, whatever MAC they take next.",
                    ),
                ],
            ),
            (
                "release",
                &[(
                    "release camera-1 --reason \"firmware replaced\"",
                    "Ends it; `--port lan3` that of a port. A MAC will do, also when no device has it any more.",
                )],
            ),
            (
                "grant",
                &[(
                    "grant --from cidr:192.0.2.10/32 --to device:ehr --service ssh --for 2h --reason \"vendor, ticket 4711\" --name vendor",
                    "Ends by itself after two hours, with or without a daemon.",
                )],
            ),
            ("revoke", &[("revoke vendor", "Ends it before its time.")]),
        ],
    ),
    (
        "Who did what",
        &[(
            "audit",
            &[
                (
                    "audit --limit 20",
                    "The last twenty calls that changed something or were refused.",
                ),
                (
                    "audit --verify",
                    "Was a record changed, removed or inserted? Prints the head to note elsewhere.",
                ),
                ("audit -o json", "Exports all records."),
                (
                    "audit --verify --file exported.jsonl",
                    "Checks exported records without asking a router.",
                ),
            ],
        )],
    ),
    (
        "Backup",
        &[(
            "backup",
            &[
                (
                    "backup -f edge-ward-3.wlb",
                    "Policy, revisions, quarantine, grants and the head of the audit, as one file.",
                ),
                (
                    "backup -f edge-ward-3.wlb --overwrite",
                    "The same every night.",
                ),
                (
                    "backup --check edge-ward-3.wlb",
                    "Is the file whole, and what is in it? Asks no router.",
                ),
            ],
        )],
    ),
    (
        "wardctl itself",
        &[
            (
                "context",
                &[
                    (
                        "context set ward-3 --server https://ward-3.example:7443 --ca ca.pem --cert ada.pem --key ada.key",
                        "Remembers a router and what to show it.",
                    ),
                    ("context use ward-3", "Makes it the one that commands ask."),
                    (
                        "context list",
                        "Which there are; the current one has a star.",
                    ),
                ],
            ),
            (
                "setup",
                &[
                    (
                        "setup tls --name ward-3.example --name 10.20.0.1",
                        "Writes certificates below `/etc/wardline/tls`, and prints what to put into the configuration.",
                    ),
                    (
                        "setup tls --person ada --role admin --directory ./tls",
                        "For another person, with another role, elsewhere.",
                    ),
                ],
            ),
            (
                "completions",
                &[(
                    "completions bash",
                    "For bash: save it as `/etc/bash_completion.d/wardctl`. The package has it already.",
                )],
            ),
            (
                "man",
                &[(
                    "man /usr/local/share/man/man1",
                    "One page for each command. The package has them already.",
                )],
            ),
        ],
    ),
];

fn page() -> String {
    let mut program = Args::command();
    program.build();
    let mut page = HEAD.to_owned();

    page += "\n## Exit codes\n\n| code | meaning |\n|---:|---|\n";
    for (exit, meaning) in EXITS {
        let _ = writeln!(page, "| {} | {meaning} |", exit as u8);
    }

    page += "\n## Options of every command\n\n";
    page += &options(program.get_arguments());

    page += "\n## Commands\n";
    for (group, commands) in COMMANDS {
        let _ = write!(
            page,
            "\n{group}:\n\n| command | what it does |\n|---|---|\n"
        );
        for (name, _) in commands {
            let command = program.find_subcommand(name).expect(name);
            let about = about(command);
            let _ = writeln!(page, "| [`{name}`](#wardctl-{name}) | {about} |");
        }
    }
    for (name, examples) in COMMANDS.iter().flat_map(|(_, commands)| *commands) {
        let command = program.find_subcommand(name).expect(name);
        let _ = write!(page, "\n### wardctl {name}\n\n{}.\n", about(command));
        page += &usage(command);
        for inner in command
            .get_subcommands()
            .filter(|it| it.get_name() != "help")
        {
            let (name, about) = (inner.get_name(), about(inner));
            let _ = write!(page, "\n`{name}`: {about}.\n{}", usage(inner));
        }
        page += "\n```sh\n";
        for (line, purpose) in *examples {
            let _ = writeln!(page, "# {purpose}\nwardctl {line}");
        }
        page += "```\n";
    }
    page
}

/// The usage of a command, and its own arguments.
fn usage(command: &Command) -> String {
    let line = command.clone().render_usage().to_string();
    let line = line.trim_start_matches("Usage: ");
    let own = command.get_arguments().filter(|it| !it.is_global_set());
    let options = options(own);
    if command.has_subcommands() {
        return format!("\n```text\n{line}\n```\n");
    }
    format!("\n```text\n{line}\n```\n\n{options}")
        .trim_end()
        .to_owned()
        + "\n"
}

fn options<'a>(arguments: impl Iterator<Item = &'a Arg>) -> String {
    let rows: Vec<String> = arguments
        .filter(|it| !it.is_hide_set() && !matches!(it.get_id().as_str(), "help" | "version"))
        .map(|it| format!("| {} | {} |\n", spelled(it), described(it)))
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    format!("| argument | what it is |\n|---|---|\n{}", rows.concat())
}

/// An argument as it is typed.
fn spelled(argument: &Arg) -> String {
    let takes_value = matches!(argument.get_action(), ArgAction::Set | ArgAction::Append);
    let value = argument
        .get_value_names()
        .filter(|_| takes_value)
        .map(|names| names.join(" "))
        .unwrap_or_default();
    let short = argument.get_short().map(|it| format!("-{it}"));
    let long = argument.get_long().map(|it| format!("--{it}"));
    let names: Vec<String> = short.into_iter().chain(long).collect();
    let text = match names.as_slice() {
        [] => value,
        names => format!("{} {value}", names.join(", "))
            .trim_end()
            .to_owned(),
    };
    // A bar would end the cell of the table.
    format!("`{}`", text.replace('|', "\\|"))
}

fn described(argument: &Arg) -> String {
    let mut text = sentence(
        &argument
            .get_help()
            .map(ToString::to_string)
            .unwrap_or_default(),
    );
    let values = argument.get_possible_values();
    let takes_value = matches!(argument.get_action(), ArgAction::Set | ArgAction::Append);
    if takes_value && !values.is_empty() {
        let words: Vec<String> = values
            .iter()
            .map(|it| format!("`{}`", it.get_name()))
            .collect();
        let _ = write!(text, " One of {}.", words.join(", "));
    }
    let defaults: Vec<_> = argument
        .get_default_values()
        .iter()
        .map(|it| it.to_string_lossy().into_owned())
        .collect();
    if takes_value && !argument.is_hide_default_value_set() && !defaults.is_empty() {
        let _ = write!(text, " Default: `{}`.", defaults.join(" "));
    }
    if let Some(variable) = argument.get_env() {
        let _ = write!(text, " Environment: `{}`.", variable.to_string_lossy());
    }
    text.replace('|', "\\|")
}

/// A help text with its default in a separate sentence.
fn sentence(help: &str) -> String {
    match help.split_once(" [default: ") {
        Some((text, default)) => {
            let default = default.trim_end_matches('.').trim_end_matches(']');
            format!("{}. Default: {default}.", text.trim_end_matches('.'))
        }
        None => format!("{}.", help.trim_end_matches('.')),
    }
}

fn about(command: &Command) -> String {
    command
        .get_about()
        .map(ToString::to_string)
        .unwrap_or_default()
}

/// Splits a line as a shell does, as far as examples need it.
fn words(line: &str) -> Vec<String> {
    let quoted = line.split('"').enumerate();
    let words = quoted.flat_map(|(i, part)| match i % 2 {
        0 => part.split_whitespace().map(str::to_owned).collect(),
        _ => vec![part.to_owned()],
    });
    words.collect()
}

#[test]
fn the_page_of_commands_is_up_to_date() {
    wardline_pages::check("wardctl.md", &page());
}

#[test]
fn every_command_has_a_place_and_examples_that_parse() {
    let listed = COMMANDS.iter().flat_map(|(_, commands)| *commands);
    let mut listed: Vec<&str> = listed
        .map(|(name, examples)| {
            assert!(!examples.is_empty(), "{name} has no example");
            for (line, _) in *examples {
                let words = std::iter::once("wardctl".to_owned()).chain(words(line));
                let parsed = Args::command().try_get_matches_from(words);
                let parsed = parsed.unwrap_or_else(|error| panic!("{line}: {error}"));
                assert_eq!(parsed.subcommand_name(), Some(*name), "{line}");
            }
            *name
        })
        .collect();
    listed.sort_unstable();
    let program = Args::command();
    let mut commands: Vec<&str> = program.get_subcommands().map(Command::get_name).collect();
    commands.sort_unstable();
    assert_eq!(listed, commands);
}
