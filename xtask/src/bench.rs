//! Builds the bench and the daemon as they are installed, and runs the bench on the daemon.

use std::{path::Path, process::ExitCode};

use anyhow::bail;

use crate::{build, setup, step};

/// The firewalls that Wardline is compared with; the bench leaves out those that don't work here.
const PEERS: [&str; 3] = ["nftables", "iptables", "ipset"];

/// Runs the bench with its own arguments.
///
/// # Errors
/// When it can't be built or started.
pub(crate) fn run(root: &Path, arguments: &[String]) -> anyhow::Result<ExitCode> {
    setup::run(root)?;
    if !setup::is_root() {
        bail!("the bench needs root, for network namespaces and the kernel's programs");
    }
    if let Err(error) = setup::install_packages(&PEERS) {
        step::title(format!("going on with the peers that there are: {error:#}"));
    }
    let packages = ["wardline-daemon", "wardline-cli", "wardline-bench"];
    let packages = packages.iter().flat_map(|it| ["--package", it]);
    let arguments_of_build: Vec<&str> = ["--release"].into_iter().chain(packages).collect();
    let programs = build::build(root, "build for release", &arguments_of_build)?;
    let mut bench = step::cargo("run");
    bench
        .args(["--release", "--quiet", "--package", "wardline-bench", "--"])
        .args(arguments)
        .env("WARDLINE_WARDLINED", programs.wardlined)
        .current_dir(root);
    Ok(if bench.status()?.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
