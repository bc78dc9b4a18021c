//! `wardctl`: everything that a Wardline router's API can do, from a shell.
//!
//! A command is parsed (`args`), sends a request over gRPC (`session`) and prints the answer on
//! standard output (`output`): as a table for people, or as JSON or YAML. An error is a `Failure`
//! (`exit`), which has the lines for standard error and the exit code.

#![forbid(unsafe_code)]

mod access;
mod args;
mod ask;
mod audit;
mod backup;
mod complete;
mod connect;
mod contexts;
mod csv;
mod devices;
mod document;
mod duration;
mod events;
mod exit;
mod explain;
mod humane;
mod inspect;
mod interfaces;
mod manpages;
#[cfg(test)]
mod manual;
mod mud;
mod names;
mod output;
mod plan;
mod policy;
mod revisions;
mod services;
mod session;
mod setup;
mod table;
mod why;

use std::process::ExitCode;

use crate::{
    args::{Args, Command},
    exit::{Exit, Failure},
    session::Session,
};

fn main() -> ExitCode {
    // A shell that asks what may come next gets its answer there, and the process ends.
    complete::answer();
    run(Args::from_command_line())
        .unwrap_or_else(Failure::tell)
        .into()
}

fn run(args: Args) -> Result<Exit, Failure> {
    match args.command {
        Command::Completions { shell } => return complete::script(shell),
        Command::Man { directory } => return manpages::write(&directory),
        Command::Backup(args::Backup {
            check: Some(file), ..
        }) => return backup::look(args.output, &file),
        Command::Setup(args::Setup::Tls(tls)) => return setup::tls(args.output, &tls),
        Command::Context(command) => {
            return contexts::contexts(&args.connection, args.output, command);
        }
        _ => {}
    }
    let session = Session {
        target: contexts::target(&args.connection)?,
        format: args.output,
        limit: args
            .timeout
            .unwrap_or_else(|| args.command.default_timeout()),
        changes: args.command.changes(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| Failure::failed(format!("no runtime: {error}")))?;
    runtime.block_on(perform(&session, args.command))
}

async fn perform(session: &Session, command: Command) -> Result<Exit, Failure> {
    match command {
        Command::Status => inspect::status(session).await,
        Command::Plan(args) => plan::plan(session, args).await,
        Command::Apply(args) => policy::apply(session, args).await,
        Command::Put(args) => policy::put(session, args).await,
        Command::Delete(args) => policy::delete(session, args).await,
        Command::Mud(command) => mud::mud(session, command).await,
        Command::Rename(args) => policy::rename(session, args).await,
        Command::Get(args) => policy::get(session, args).await,
        Command::Diff(args) => policy::diff(session, args).await,
        Command::Confirm(args) => revisions::confirm(session, args).await,
        Command::Rollback(args) => revisions::rollback(session, args).await,
        Command::History(args) => revisions::history(session, args).await,
        Command::Explain(args) => explain::explain(session, args).await,
        Command::Why(args) => why::why(session, args).await,
        Command::Quarantine(args) => access::quarantine(session, args).await,
        Command::Release(args) => access::release(session, args).await,
        Command::Grant(args) => access::grant(session, args).await,
        Command::Revoke(args) => access::revoke(session, args).await,
        Command::Interfaces => interfaces::interfaces(session).await,
        Command::Services => services::services(session).await,
        Command::Names => names::names(session).await,
        Command::Devices(args) if args.unknown => devices::unknown(session).await,
        Command::Devices(_) => inspect::devices(session).await,
        Command::Adopt(args) => devices::adopt(session, args).await,
        Command::Import(args) => devices::import(session, args).await,
        Command::Flows(args) => inspect::flows(session, args).await,
        Command::Counters => inspect::counters(session).await,
        Command::Events(args) => events::events(session, args).await,
        Command::Audit(args) => audit::audit(session, args).await,
        Command::Backup(args) => backup::backup(session, args).await,
        Command::Context(_)
        | Command::Setup(_)
        | Command::Completions { .. }
        | Command::Man { .. } => Ok(Exit::Done),
    }
}
