//! What developers and CI run: `cargo xtask setup`, `build`, `demo`, `test`, `matrix`, `fuzz`,
//! `kernels`, `package`, `bench` and `ci`.

mod bench;
mod build;
mod ci;
mod demo;
mod fuzz;
mod kernels;
mod layers;
mod ledger;
mod matrix;
mod mud_corpus;
mod package;
mod pages;
mod setup;
mod step;
mod test;
mod toolchain;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::Parser;

/// Builds, shows and checks Wardline. Every command sets up what it needs first.
#[derive(Parser)]
#[command(bin_name = "cargo xtask", version)]
enum Command {
    /// Installs what building the BPF object needs; does nothing where all of it is there.
    Setup,
    /// Builds the daemon and the client for release.
    Build,
    /// Shows a small hospital network being segmented, in network namespaces of this machine.
    Demo {
        /// Leave the network and the daemon running, to look around.
        #[arg(long)]
        keep: bool,
    },
    /// Runs all tests, or those whose name contains one of the given words.
    Test {
        /// Parts of test names.
        names: Vec<String>,
    },
    /// Runs the tests of ports that come and go with as many rounds as a promise is made for, and prints
    /// what they measured.
    Long,
    /// Writes docs/packet-matrix.md from the rows that the tests check.
    Matrix,
    /// Writes the other pages of docs/ that are made from the source.
    Pages,
    /// Judges random frames by the oracle, the host and the kernel, which must agree.
    ///
    /// A disagreement is made small and written below `target/fuzz`.
    Fuzz {
        /// How many frames, at least; several hundred for each policy.
        #[arg(long, default_value_t = 1_000_000)]
        cases: u64,
        /// The first policy's seed; each policy after it has the next.
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Boots Debian's kernels, old and new, and says what works on each.
    Kernels {
        /// Only this series, such as 6.1, or `newest`.
        #[arg(long = "kernel", value_name = "SERIES")]
        series: Vec<String>,
        /// Also run the tests of the suite whose name contains this.
        #[arg(long = "test", value_name = "NAME")]
        tests: Vec<String>,
    },
    /// Makes the Debian package and the tarball that users install.
    Package(package::Wanted),
    /// Measures what packets and changes cost, beside other firewalls on this machine.
    Bench {
        /// `packets` or `control`, `--quick`, `--out DIRECTORY`; see `cargo xtask bench -- --help`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Checks that no crate or module depends on what its layer may not have.
    Layers,
    /// Imports every MUD file of a folder into a site of its own, and prints what became of each entry.
    MudCorpus {
        /// The folder; signatures (.p7s) and certificates (.pem) are beside the files.
        folder: PathBuf,
    },
    /// Runs every check that a change must pass, then says what failed.
    Ci,
}

fn main() -> ExitCode {
    match root().and_then(|root| run(&root, Command::parse())) {
        Ok(code) => code,
        Err(error) => {
            step::fail(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(root: &Path, command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Setup => setup::run(root)?,
        Command::Build => drop(build::release(root)?),
        Command::Demo { keep } => {
            let programs = build::release(root)?;
            demo::run(&programs.wardlined, &programs.wardctl, keep)?;
        }
        Command::Package(wanted) => package::run(root, &wanted)?,
        Command::Layers => layers::check::run(root)?,
        Command::Pages => pages::run(root)?,
        Command::Matrix => matrix::run(root)?,
        Command::MudCorpus { folder } => mud_corpus::run(&folder)?,
        // These end with their own summary, and return its exit code.
        Command::Test { names } => return test::run(root, &names),
        Command::Long => return test::run_long(root),
        Command::Fuzz { cases, seed } => return fuzz::run(root, cases, seed),
        Command::Kernels { series, tests } => return kernels::run(root, &series, &tests),
        Command::Bench { arguments } => return bench::run(root, &arguments),
        Command::Ci => return ci::run(root),
    }
    Ok(ExitCode::SUCCESS)
}

/// The root of the workspace in which cargo built this program.
fn root() -> anyhow::Result<PathBuf> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    Ok(manifest
        .parent()
        .context("xtask is not in a workspace")?
        .to_owned())
}
