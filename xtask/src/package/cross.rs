//! Programs for arm64, built on a machine of another kind with Debian's compilers.
//!
//! They are run here with QEMU, which takes one program and no whole machine: the package's pages are what
//! they say themselves.

use std::{path::Path, process::Command};

use anyhow::{Context as _, ensure};

use super::output;
use crate::{
    build::{self, Programs},
    setup,
};

/// What Rust calls it.
const TARGET: &str = "aarch64-unknown-linux-gnu";

/// The compiler for C and its tools, the library of C and of Rust for arm64, and QEMU.
const PACKAGES: [&str; 4] = [
    "gcc-aarch64-linux-gnu",
    "libc6:arm64",
    "libstd-rust-web-dev:arm64",
    "qemu-user",
];

/// Tells cargo and the crates with C in them what to compile and link with. Debian's Rust, because its
/// library for arm64 is a package.
const TOOLS: [(&str, &str); 4] = [
    ("RUSTC", "/usr/bin/rustc"),
    (
        "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER",
        "aarch64-linux-gnu-gcc",
    ),
    ("CC_aarch64_unknown_linux_gnu", "aarch64-linux-gnu-gcc"),
    ("AR_aarch64_unknown_linux_gnu", "aarch64-linux-gnu-ar"),
];

/// Builds the programs for arm64.
///
/// # Errors
/// When this is not Debian, or the source does not compile.
pub(super) fn arm64(root: &Path) -> anyhow::Result<Programs> {
    ensure!(
        setup::is_debian(),
        "programs for arm64 are built on Debian, or on arm64 itself without --arm64"
    );
    setup::run(root)?;
    let known = output(Command::new("dpkg").arg("--print-foreign-architectures"))?;
    if !known.lines().any(|it| it == "arm64") {
        output(Command::new("dpkg").args(["--add-architecture", "arm64"]))
            .context("letting dpkg install libraries for arm64")?;
    }
    setup::install_packages(&PACKAGES)?;
    // A folder of its own, because another compiler's crates are of no use here.
    let target = build::target_dir(root).join("arm64");
    let target = target.to_str().context("the target folder's name")?;
    let packages = ["--package", "wardline-daemon", "--package", "wardline-cli"];
    let options = ["--release", "--target", TARGET, "--target-dir", target];
    build::build_with(
        root,
        "build for release, for arm64",
        &[&options[..], &packages].concat(),
        &TOOLS,
    )
}

/// Debian's name of the kind of machine that a program is for.
///
/// # Errors
/// When it is no program, or there is no package for such machines.
pub(super) fn architecture(program: &Path) -> anyhow::Result<&'static str> {
    let bytes = std::fs::read(program).with_context(|| format!("reading {}", program.display()))?;
    // `e_machine` of the ELF header.
    match bytes.get(18..20) {
        Some([0x3e, 0]) => Ok("amd64"),
        Some([0xb7, 0]) => Ok("arm64"),
        _ => anyhow::bail!("there is no package for {}", program.display()),
    }
}

/// A tool of binutils for an architecture.
pub(super) fn tool(name: &str, architecture: &str) -> Command {
    Command::new(match architecture {
        "arm64" if !is_native(architecture) => format!("aarch64-linux-gnu-{name}"),
        _ => name.to_owned(),
    })
}

/// Runs a program of an architecture.
pub(super) fn run(program: &Path, architecture: &str) -> Command {
    if is_native(architecture) {
        return Command::new(program);
    }
    let mut qemu = Command::new("qemu-aarch64");
    qemu.arg(program);
    qemu
}

/// Whether this machine is of that kind.
fn is_native(architecture: &str) -> bool {
    architecture == "arm64" && cfg!(target_arch = "aarch64")
        || architecture == "amd64" && cfg!(target_arch = "x86_64")
}
