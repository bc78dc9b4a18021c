//! Runs the steps of a command and reports progress: a moving line on a terminal, plain lines
//! elsewhere.

use std::{
    env, fmt,
    io::{self, BufRead as _, BufReader, IsTerminal as _},
    process::{Command, ExitStatus},
    time::{Duration, Instant},
};

use anstyle::{AnsiColor, Style};
use anyhow::{Context as _, bail};
use indicatif::{ProgressBar, ProgressStyle};

const TITLE: Style = AnsiColor::Cyan.on_default().bold();
const FAILURE: Style = AnsiColor::Red.on_default().bold();

/// Announces a step.
pub(crate) fn title(what: impl fmt::Display) {
    anstream::eprintln!("{TITLE}==>{TITLE:#} {what}");
}

/// Says that something failed.
pub(crate) fn fail(what: &str) {
    anstream::eprintln!("{FAILURE}error:{FAILURE:#} {what}");
}

/// A cargo command in the workspace, the same cargo that runs this program.
pub(crate) fn cargo(subcommand: &str) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.arg(subcommand);
    command
}

/// Runs a command that shows its own progress.
///
/// # Errors
/// When it can't be started or fails.
pub(crate) fn show(what: &str, command: &mut Command) -> anyhow::Result<()> {
    title(what);
    let status = command
        .status()
        .with_context(|| format!("starting {}", named(command)))?;
    succeeded(what, status)
}

/// Runs a long command whose output matters only when it fails: a terminal shows its last line.
///
/// # Errors
/// When it can't be started or fails; its output is shown before that.
pub(crate) fn wait(what: &str, command: &mut Command) -> anyhow::Result<()> {
    let start = Instant::now();
    let bar = bar(what);
    let mut printed = Vec::new();
    let result = stream(command, |line| {
        bar.set_message(line.trim().to_owned());
        printed.push(line.to_owned());
    });
    bar.finish_and_clear();
    if result.as_ref().is_ok_and(ExitStatus::success) {
        title(format!("{what}: {} s", start.elapsed().as_secs()));
    } else {
        printed.iter().for_each(|line| eprintln!("{line}"));
    }
    succeeded(what, result?)
}

/// Runs a command and passes on each line of its output and errors, in the order in which they were
/// written.
///
/// # Errors
/// When it can't be started or read.
pub(crate) fn stream(
    command: &mut Command,
    mut each: impl FnMut(&str),
) -> anyhow::Result<ExitStatus> {
    let (reader, writer) = io::pipe()?;
    command.stdout(writer.try_clone()?).stderr(writer);
    let mut child = command
        .spawn()
        .with_context(|| format!("starting {}", named(command)))?;
    // The command holds the writing ends, and the reader would never see the end.
    command.stdout(io::stderr()).stderr(io::stderr());
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line)? > 0 {
        each(String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']));
        line.clear();
    }
    Ok(child.wait()?)
}

/// # Errors
/// When the command did not succeed.
pub(crate) fn succeeded(what: &str, status: ExitStatus) -> anyhow::Result<()> {
    if !status.success() {
        bail!("{what}: {status}");
    }
    Ok(())
}

/// A spinner with the elapsed time; without a terminal, one plain line instead.
fn bar(what: &str) -> ProgressBar {
    if !io::stderr().is_terminal() {
        title(format!("{what} …"));
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{spinner:.cyan} {prefix} {elapsed} {wide_msg:.dim}");
    let bar = ProgressBar::new_spinner().with_prefix(what.to_owned());
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

fn named(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}
