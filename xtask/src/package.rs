//! Makes what a user installs: a Debian package, and a tarball of the same files.
//!
//! ```text
//! stage     programs, unit, configuration, pages ─▶ target/package/stage
//! archive   stage ─▶ wardline_VERSION_ARCHITECTURE.deb, wardline-VERSION-ARCHITECTURE.tar.gz
//! check     the package: its contents, its unit, its pages
//! life      install, upgrade, remove, purge, in a fresh Debian
//! boot      a Debian that has it, booted with systemd in QEMU
//! ```
//!
//! The same programs make the same bytes: every file has the time of the last commit, or of
//! `SOURCE_DATE_EPOCH`.

mod archive;
mod boot;
mod check;
mod cross;
mod licences;
mod life;
mod router;
mod stage;

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};

use self::stage::Stage;
use crate::{
    build::{self, Programs},
    setup, step,
};

/// Debian's packages of what makes and checks ours.
const TOOLS: [&str; 3] = ["binutils", "dpkg-dev", "mandoc"];

/// What is to be done.
#[derive(clap::Args)]
pub(crate) struct Wanted {
    /// Check the package: contents, unit, manual pages, and that it is made the same again.
    #[arg(long)]
    check: bool,
    /// Also install, upgrade, remove and purge it in a fresh Debian, under traffic.
    #[arg(long)]
    life: bool,
    /// Also boot a Debian that has it, with systemd and the oldest kernel, in QEMU.
    #[arg(long)]
    boot: bool,
    /// Make the package for arm64; on another machine, with Debian's compilers for it.
    #[arg(long, conflicts_with_all = ["life", "boot"])]
    arm64: bool,
    /// Take the programs from a folder instead of building them for release.
    #[arg(long, value_name = "DIRECTORY")]
    built: Option<PathBuf>,
}

/// What was made.
pub(crate) struct Package {
    deb: PathBuf,
    tarball: PathBuf,
    /// What Debian calls the machines that it is for.
    architecture: &'static str,
}

/// Makes the package, and checks it if that is wanted.
///
/// # Errors
/// When a tool is missing, the source does not compile, or a check fails.
pub(crate) fn run(root: &Path, wanted: &Wanted) -> anyhow::Result<()> {
    let programs = match &wanted.built {
        Some(directory) => found(directory)?,
        None if wanted.arm64 && !cfg!(target_arch = "aarch64") => cross::arm64(root)?,
        None => build::release(root)?,
    };
    let package = make(root, &programs, version())?;
    for file in [&package.deb, &package.tarball] {
        let size = file.metadata()?.len();
        step::title(format!("{}: {} KiB", file.display(), size.div_ceil(1024)));
    }
    if wanted.check {
        check::thoroughly(root, &programs, &package)?;
    }
    if wanted.life {
        life::run(root, &programs, &package)?;
    }
    if wanted.boot {
        boot::run(root, &package)?;
    }
    Ok(())
}

/// Checks what programs that are built already would be packed as; nothing where there is no dpkg.
///
/// # Errors
/// When the package can't be made, or a check fails.
pub(crate) fn check(root: &Path, programs: &Programs) -> anyhow::Result<()> {
    if !setup::is_debian() {
        println!("skipped: package: this is not Debian");
        return Ok(());
    }
    let package = make(root, programs, version())?;
    check::quickly(root, &package)
}

/// The folder of all that this command makes.
fn home(root: &Path) -> PathBuf {
    build::target_dir(root).join("package")
}

fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

fn make(root: &Path, programs: &Programs, version: &str) -> anyhow::Result<Package> {
    setup::install_packages(&TOOLS)?;
    let stage = Stage::fill(
        root,
        &home(root).join("stage"),
        programs,
        version,
        time(root)?,
    )?;
    archive::write(root, &stage, &home(root))
}

/// Programs that are in a folder.
fn found(directory: &Path) -> anyhow::Result<Programs> {
    let program = |name| {
        let path = directory.join(name);
        path.canonicalize()
            .with_context(|| format!("looking for {}", path.display()))
    };
    Ok(Programs {
        wardlined: program("wardlined")?,
        wardctl: program("wardctl")?,
        suite: None,
    })
}

/// The time of every file, in seconds since 1970.
fn time(root: &Path) -> anyhow::Result<u64> {
    if let Ok(epoch) = env::var("SOURCE_DATE_EPOCH") {
        return epoch.parse().context("SOURCE_DATE_EPOCH is no number");
    }
    let mut git = Command::new("git");
    git.args(["log", "-1", "--format=%ct"]).current_dir(root);
    output(&mut git)?
        .trim()
        .parse()
        .context("the last commit has no time; set SOURCE_DATE_EPOCH")
}

/// Runs a command that must succeed, and returns what it printed.
fn output(command: &mut Command) -> anyhow::Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .with_context(|| format!("starting {name}"))?;
    let out = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let err = String::from_utf8_lossy(&output.stderr);
        bail!("{name}: {}: {out}{err}", output.status);
    }
    Ok(out.into_owned())
}
