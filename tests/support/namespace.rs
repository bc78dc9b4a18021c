//! Network namespaces by name, and iproute2, which makes them.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Runs `ip`; returns its standard output, or an error with its message.
pub(crate) fn run_ip(arguments: &[&str], input: &str) -> Result<String> {
    let told = || format!("ip {}\n{input}", arguments.join(" "));
    let mut child = Command::new("ip")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("running ip (package iproute2)")?;
    if let Some(mut stdin) = child.stdin.take() {
        // If `ip` stops reading, its output says why.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().with_context(told)?;
    if !output.status.success() {
        bail!(
            "{}: {}",
            told().trim_end(),
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Opens a namespace by name.
pub(crate) fn open_netns(name: &str) -> io::Result<File> {
    File::open(Path::new("/run/netns").join(name))
}
