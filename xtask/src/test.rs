//! Runs every test of the workspace in one run, which ends with a summary line.

use std::{fmt, ops::AddAssign, path::Path, process::ExitCode};

use anyhow::bail;

use crate::{build, setup, step};

/// How tests ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    passed: u64,
    failed: u64,
    skipped: u64,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        )
    }
}

impl AddAssign for Outcome {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl Outcome {
    /// # Errors
    /// When a test failed.
    pub(crate) fn verdict(self) -> anyhow::Result<()> {
        if self.failed > 0 {
            bail!(
                "{} of {} tests failed",
                self.failed,
                self.passed + self.failed
            );
        }
        Ok(())
    }
}

/// Runs the tests whose names contain one of `names`, or all; the last line is their summary.
///
/// # Errors
/// When the tests could not be built or started.
pub(crate) fn run(root: &Path, names: &[String]) -> anyhow::Result<ExitCode> {
    setup::run(root)?;
    finish(outcome(root, names, false)?)
}

/// Runs the tests that have a long form in that form, and prints what they measure.
///
/// # Errors
/// When the tests could not be built or started.
pub(crate) fn run_long(root: &Path) -> anyhow::Result<ExitCode> {
    setup::run(root)?;
    let names = ["live::ports::", "many_of_the_worst_plans"].map(str::to_owned);
    finish(outcome(root, &names, true)?)
}

fn finish(outcome: Outcome) -> anyhow::Result<ExitCode> {
    println!("{outcome}");
    Ok(outcome
        .verdict()
        .map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS))
}

/// Runs the tests and counts the results; setup must have run.
///
/// # Errors
/// When the tests could not be built or started.
pub(crate) fn outcome(root: &Path, names: &[String], long: bool) -> anyhow::Result<Outcome> {
    // One build of everything: with fewer packages cargo would choose other features, and build
    // half of the dependencies again for the tests.
    let programs = build::build(root, "build", &["--workspace", "--all-targets"])?;

    step::title("test");
    let mut cargo = step::cargo("test");
    cargo
        .args(["--workspace", "--no-fail-fast", "--", "--color=never"])
        .args(names);
    cargo
        .env("WARDLINE_WARDLINED", programs.wardlined)
        .env("WARDLINE_WARDCTL", programs.wardctl);
    if long {
        // One after the other, so that what is measured is not that of another test.
        cargo.args(["--nocapture", "--test-threads=1"]);
        cargo.env("WARDLINE_LONG", "1");
    }
    let mut count = Count::default();
    let status = step::stream(cargo.current_dir(root), |line| {
        println!("{line}");
        count.read(line);
    })?;
    let mut outcome = count.finish();
    if !status.success() && outcome.failed == 0 {
        outcome.failed = 1;
    }
    Ok(outcome)
}

/// Adds up the results that the test binaries report in cargo's output.
#[derive(Default)]
struct Count {
    outcome: Outcome,
    /// Whether a binary has started and not reported yet; one that crashes never does.
    running: bool,
}

impl Count {
    fn read(&mut self, line: &str) {
        let line = line.trim_start();
        if line.starts_with("Running ") || line.starts_with("Doc-tests ") {
            self.close();
            self.running = true;
        } else if let Some(outcome) = reported(line) {
            self.outcome += outcome;
            self.running = false;
        }
    }

    fn close(&mut self) {
        self.outcome.failed += u64::from(self.running);
        self.running = false;
    }

    fn finish(mut self) -> Outcome {
        self.close();
        self.outcome
    }
}

/// Reads `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; …`.
fn reported(line: &str) -> Option<Outcome> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let mut outcome = Outcome::default();
    for part in counts.split("; ") {
        let Some((count, what)) = part.split_once(' ') else {
            continue;
        };
        match what {
            "passed" => outcome.passed = count.parse().ok()?,
            "failed" => outcome.failed = count.parse().ok()?,
            "ignored" => outcome.skipped = count.parse().ok()?,
            _ => {}
        }
    }
    Some(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(output: &str) -> Outcome {
        let mut count = Count::default();
        output.lines().for_each(|line| count.read(line));
        count.finish()
    }

    #[test]
    fn sums_the_reports_of_all_binaries() {
        let outcome = count(
            "     Running unittests src/lib.rs (target/debug/deps/a-0)\n\
             test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out\n\
             \x20    Running main.rs (target/debug/deps/suite-0)\n\
             test result: FAILED. 5 passed; 2 failed; 0 ignored; 0 measured; 4 filtered out; \
             finished in 1.20s\n",
        );
        assert_eq!(
            outcome,
            Outcome {
                passed: 8,
                failed: 2,
                skipped: 1
            }
        );
        assert_eq!(outcome.to_string(), "8 passed, 2 failed, 1 skipped");
    }

    #[test]
    fn a_binary_that_dies_is_a_failure() {
        let outcome = count(
            "     Running unittests src/lib.rs (target/debug/deps/a-0)\n\
             test judges ... error: test failed\n\
             \x20  Doc-tests wardline_ebpf\n\
             test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n\
             \x20    Running main.rs (target/debug/deps/suite-0)\n",
        );
        assert_eq!(
            outcome,
            Outcome {
                passed: 1,
                failed: 2,
                skipped: 0
            }
        );
    }
}
