//! Every check that a change must pass. All of them run, then the failed ones are listed.

use std::{env, path::Path, process::ExitCode};

use crate::{build, kernels, layers, package, setup, step, test, toolchain::Toolchain};

/// Runs the checks; the tests' summary is the last line of the output.
///
/// # Errors
/// When nothing can be checked.
pub(crate) fn run(root: &Path) -> anyhow::Result<ExitCode> {
    setup::run(root)?;
    let mut outcome = None;
    let checks = [
        format(root),
        layers::check::run(root),
        lint(root),
        lint_bpf(root),
        document(root),
        test::outcome(root, &[], false).and_then(|all| outcome.insert(all).verdict()),
        package(root),
        kernels::check(root),
    ];

    let mut code = ExitCode::SUCCESS;
    for error in checks.into_iter().filter_map(Result::err) {
        step::fail(&format!("{error:#}"));
        code = ExitCode::FAILURE;
    }
    if let Some(outcome) = outcome {
        println!("{outcome}");
    }
    Ok(code)
}

fn format(root: &Path) -> anyhow::Result<()> {
    // The fuzz targets are a workspace of their own.
    for (title, folder) in [
        ("format", root.to_owned()),
        ("format of fuzz targets", root.join("tests/fuzz")),
    ] {
        let mut fmt = step::cargo("fmt");
        step::show(title, fmt.args(["--all", "--check"]).current_dir(folder))?;
    }
    Ok(())
}

fn lint(root: &Path) -> anyhow::Result<()> {
    let mut clippy = step::cargo("clippy");
    clippy.args(["--workspace", "--all-targets", "--", "-D", "warnings"]);
    step::show("lint", clippy.current_dir(root))
}

/// Lints the code that is compiled only for the kernel, which clippy for the host does not see.
fn lint_bpf(root: &Path) -> anyhow::Result<()> {
    let target_dir = build::target_dir(root).join("bpf-lint");
    let toolchain = Toolchain::find(root)?;
    let programs = [
        ("wardline-ebpf", "datapath"),
        ("wardline-bench-kernel", "load"),
    ];
    programs.into_iter().try_for_each(|(package, binary)| {
        let mut clippy = toolchain.cargo("clippy", package, binary, env::consts::ARCH, &target_dir);
        clippy.args(["--", "-D", "warnings"]);
        step::show(&format!("lint for BPF: {binary}"), clippy.current_dir(root))
    })
}

/// Checks the package of the programs that the tests were run with: a release takes minutes to build.
fn package(root: &Path) -> anyhow::Result<()> {
    let programs = build::build(root, "build", &["--workspace", "--all-targets"])?;
    package::check(root, &programs)
}

fn document(root: &Path) -> anyhow::Result<()> {
    let mut doc = step::cargo("doc");
    doc.args(["--workspace", "--no-deps"])
        .env("RUSTDOCFLAGS", "-D warnings");
    step::show("documentation", doc.current_dir(root))
}
