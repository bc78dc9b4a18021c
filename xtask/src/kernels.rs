//! Boots the kernels of Debian's releases, and reports on which of them Wardline works.
//!
//! ```text
//! packages   apt ─▶ target/kernels/VERSION    a kernel, and the modules that a lab needs
//! image      suite, wardlined, wardctl, ip ─▶ initramfs, with the steps as its /init
//! guest      QEMU without KVM ─▶ the serial console's lines
//! report     lines ─▶ a table
//! ```
//!
//! In each guest the suite loads every program and reports what the kernel lacks
//! (`packets::programs::takes_every_program`), judges the packet matrix by `BPF_PROG_TEST_RUN`, and
//! runs hosts in namespaces with the daemon between them. Nothing is concluded from a version: a
//! kernel lacks a feature only if it refused a call.
//!
//! The machine's apt state is not changed. Its sources name Debian's mirror; suites that they lack
//! are read with a separate apt state below `target/kernels/apt`. Kernels and modules are kept
//! between runs, and so is each guest's console.

mod guest;
mod image;
mod packages;
mod report;

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};

use self::{
    packages::{Apt, Kernel},
    report::Report,
};
use crate::{
    build::{self, Programs},
    setup, step,
};

/// The oldest kernel that Wardline supports; it and every newer one that is booted must pass all.
/// README names it.
const MINIMUM: [u32; 2] = [5, 10];

/// Series of kernels of Debian's stable releases; the newest backport comes last.
const SERIES: [&str; 4] = ["5.10", "6.1", "6.12", NEWEST];

const NEWEST: &str = "newest";

/// The live tests that every kernel runs: hooks of all kinds, a daemon that is killed and restarted,
/// and what only a machine of its own may have done to it.
const LIVE: [&str; 2] = [
    "live::spine::the_clinic_is_what_its_policy_says",
    "live::clock::a_clock_that_is_set_ends_rules_and_neither_grants_nor_confirms",
];

/// How long one guest may take. Verification takes most of it: a minute for all programs.
const BOOT: Duration = Duration::from_secs(900);

/// How long all guests may take together.
const BUDGET: Duration = Duration::from_secs(40 * 60);

/// Boots the kernels of some series, or all, and prints what works on each.
///
/// # Errors
/// When the image could not be made or a guest not be started.
pub(crate) fn run(root: &Path, series: &[String], tests: &[String]) -> anyhow::Result<ExitCode> {
    setup::run(root)?;
    let known = |one: &String| SERIES.contains(&one.as_str());
    if let Some(unknown) = series.iter().find(|one| !known(one)) {
        bail!("no kernel {unknown}: there are {}", SERIES.join(", "));
    }
    let wanted = SERIES
        .into_iter()
        .filter(|one| series.is_empty() || series.iter().any(|word| word == one));
    let result = boot_all(root, &wanted.collect::<Vec<_>>(), tests);
    Ok(match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            step::fail(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    })
}

/// Boots all kernels that are available.
///
/// # Errors
/// When a supported kernel does not pass.
pub(crate) fn check(root: &Path) -> anyhow::Result<()> {
    boot_all(root, &SERIES, &[])
}

fn boot_all(root: &Path, series: &[&str], tests: &[String]) -> anyhow::Result<()> {
    let until = Instant::now() + BUDGET;
    let home = build::target_dir(root).join("kernels");
    if let Err(why) = guest::prepare(&home.join("apt")) {
        println!("skipped: kernels: {why:#}");
        return Ok(());
    }
    let kernels = kernels(&home, series)?;
    if kernels.is_empty() {
        return Ok(());
    }
    let programs = build::build(root, "build", &["--workspace", "--all-targets"])?;
    let reports = kernels
        .iter()
        .map(|kernel| boot(kernel, &programs, tests, until))
        .collect::<anyhow::Result<Vec<Report>>>()?;
    print!("{}", report::table(&reports));
    verdict(&reports)
}

/// Boots the oldest supported kernel with an image, which is made for its folder of modules, and
/// returns what was on the console; none if the kernel is not available here.
///
/// # Errors
/// When the image can't be made or the guest not be started, or it does not come to its end.
pub(crate) fn console(
    root: &Path,
    image: impl FnOnce(&[PathBuf]) -> anyhow::Result<PathBuf>,
) -> anyhow::Result<Option<Vec<String>>> {
    let home = build::target_dir(root).join("kernels");
    if let Err(why) = guest::prepare(&home.join("apt")) {
        println!("skipped: kernels: {why:#}");
        return Ok(None);
    }
    let Some(kernel) = kernels(&home, &SERIES[..1])?.pop() else {
        return Ok(None);
    };
    let console = guest::run(&kernel, &image(&kernel.modules())?, BOOT)?;
    ensure!(console.ended, "no end: {}", console.lines.join("\n"));
    Ok(Some(console.lines))
}

/// The kernels that are available; each other one is a skip.
fn kernels(home: &Path, series: &[&str]) -> anyhow::Result<Vec<Kernel>> {
    let apt = match Apt::open(&home.join("apt")) {
        Ok(apt) => apt,
        Err(why) => {
            println!("skipped: kernels: {why:#}");
            return Ok(Vec::new());
        }
    };
    let mut kernels: Vec<Kernel> = Vec::new();
    for one in series {
        let package = match apt.newest((*one != NEWEST).then_some(one)) {
            Ok(package) => package,
            Err(why) => {
                println!("skipped: kernels: {one}: {why:#}");
                continue;
            }
        };
        if kernels.iter().any(|kernel| kernel.package == package) {
            continue;
        }
        match apt.kernel(home, &package) {
            Ok(kernel) => kernels.push(kernel),
            Err(why) => println!("skipped: kernels: {one}: {why:#}"),
        }
    }
    Ok(kernels)
}

fn boot(
    kernel: &Kernel,
    programs: &Programs,
    tests: &[String],
    until: Instant,
) -> anyhow::Result<Report> {
    let time = BOOT.min(until.saturating_duration_since(Instant::now()));
    let mut live = LIVE.to_vec();
    live.extend(tests.iter().map(String::as_str));
    let image = kernel.home.join("initramfs");
    image::write(&image, kernel, programs, &guest::init(kernel, &live))
        .with_context(|| format!("the initramfs of {}", kernel.version))?;
    step::title(format!("kernel {}", kernel.version));
    let mut report = Report::new(&kernel.version);
    let start = Instant::now();
    let console = guest::run(kernel, &image, time)?;
    console.lines.iter().for_each(|line| report.read(line));
    report.took = start.elapsed();
    if console.cut {
        report.cut = Some(time);
    } else if !console.ended {
        report.died = true;
    }
    std::fs::write(kernel.home.join("console"), console.lines.join("\n"))?;
    Ok(report)
}

/// # Errors
/// With every supported kernel that does not pass, and why.
fn verdict(reports: &[Report]) -> anyhow::Result<()> {
    let mut failed = String::new();
    for report in reports {
        let problems = report.problems();
        if packages::numbers(&report.version) >= MINIMUM.to_vec() && !problems.is_empty() {
            write!(failed, "\n  {}: {}", report.version, problems.join("; "))?;
        }
    }
    if !failed.is_empty() {
        bail!("supported kernels that do not pass:{failed}");
    }
    Ok(())
}
