//! Builds the programs.

use std::{
    env,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::Context as _;
use serde_json::Value;

use crate::{setup, step};

/// The paths of the built programs.
pub(crate) struct Programs {
    /// The daemon.
    pub(crate) wardlined: PathBuf,
    /// The client.
    pub(crate) wardctl: PathBuf,
    /// The tests that need root, if they were built too.
    pub(crate) suite: Option<PathBuf>,
}

/// The folder in which cargo puts what it builds.
pub(crate) fn target_dir(root: &Path) -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR").map_or("target".into(), PathBuf::from);
    root.join(target)
}

/// Builds the daemon and the client as they are installed.
///
/// # Errors
/// When the machine lacks a tool or the source does not compile.
pub(crate) fn release(root: &Path) -> anyhow::Result<Programs> {
    setup::run(root)?;
    let packages = ["--package", "wardline-daemon", "--package", "wardline-cli"];
    let programs = build(
        root,
        "build for release",
        &[&["--release"], &packages[..]].concat(),
    )?;
    show_sizes(&programs.wardlined)?;
    step::title(format!(
        "{} {}",
        programs.wardlined.display(),
        programs.wardctl.display()
    ));
    Ok(programs)
}

/// Shows the size of the kernel's programs, and how many instructions the verifier looked at; a
/// test holds them to a budget.
fn show_sizes(wardlined: &Path) -> anyhow::Result<()> {
    if !setup::is_root() {
        println!("how large the kernel's programs are: only root may load them");
        return Ok(());
    }
    let status = Command::new(wardlined).arg("--programs").status();
    step::succeeded(
        "loading the programs",
        status.context("starting wardlined")?,
    )
}

/// Builds what the arguments select, which must include the two programs, and shows cargo's own
/// progress.
///
/// # Errors
/// When the source does not compile.
pub(crate) fn build(root: &Path, what: &str, arguments: &[&str]) -> anyhow::Result<Programs> {
    build_with(root, what, arguments, &[])
}

/// The same, with variables in cargo's environment.
///
/// # Errors
/// When the source does not compile.
pub(crate) fn build_with(
    root: &Path,
    what: &str,
    arguments: &[&str],
    variables: &[(&str, &str)],
) -> anyhow::Result<Programs> {
    step::title(what);
    let mut cargo = step::cargo("build");
    cargo
        .args(arguments)
        .envs(variables.iter().copied())
        .arg("--message-format=json-render-diagnostics")
        .current_dir(root);
    let mut child = cargo
        .stdout(Stdio::piped())
        .spawn()
        .context("starting cargo")?;
    let (mut wardlined, mut wardctl, mut suite) = (None, None, None);
    for line in child
        .stdout
        .take()
        .map(BufReader::new)
        .into_iter()
        .flat_map(BufReader::lines)
    {
        match program(&line?) {
            Some((name, false, path)) if name == "wardlined" => wardlined = Some(path),
            Some((name, false, path)) if name == "wardctl" => wardctl = Some(path),
            Some((name, true, path)) if name == "suite" => suite = Some(path),
            _ => {}
        }
    }
    step::succeeded(what, child.wait()?)?;
    Ok(Programs {
        wardlined: wardlined.context("cargo built no wardlined")?,
        wardctl: wardctl.context("cargo built no wardctl")?,
        suite,
    })
}

/// The name and path of the program that one of cargo's messages reports, and whether it is a test
/// harness, which may have the same name as the program that it tests.
fn program(message: &str) -> Option<(String, bool, PathBuf)> {
    let message: Value = serde_json::from_str(message).ok()?;
    let name = message["target"]["name"].as_str()?;
    let is_test = message["profile"]["test"] == true;
    Some((
        name.to_owned(),
        is_test,
        message["executable"].as_str()?.into(),
    ))
}
