//! Makes a report of a guest's output, and a table of reports.

use std::{fmt::Write as _, time::Duration};

/// The prefix of the guest's own lines.
pub(crate) const MARK: &str = "@@";

/// How many lines of a failed step are shown.
const TAIL: usize = 25;

/// The results of one kernel.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) version: String,
    pub(crate) took: Duration,
    /// The time after which it was stopped, if it had not ended.
    pub(crate) cut: Option<Duration>,
    /// Whether it ended early by itself.
    pub(crate) died: bool,
    /// The kernel's message when it panicked.
    panic: Option<String>,
    programs: Vec<Program>,
    lacks: Vec<String>,
    matrix: Option<Matrix>,
    /// Rows of the matrix that can't be run on this kernel.
    unasked: usize,
    tests: Vec<(String, bool)>,
    steps: Vec<Step>,
}

/// The kernel's answer about a program: its size, or why it refused it.
#[derive(Debug, PartialEq, Eq)]
struct Program {
    name: String,
    size: Result<Size, String>,
}

#[derive(Debug, PartialEq, Eq)]
struct Size {
    instructions: u64,
    /// Old kernels don't report it.
    verified: Option<u64>,
}

#[derive(Debug, PartialEq, Eq)]
struct Matrix {
    rows: u64,
    frames: u64,
    wrong: u64,
}

#[derive(Debug)]
struct Step {
    name: String,
    lines: Vec<String>,
    code: Option<i32>,
}

impl Report {
    pub(crate) fn new(version: &str) -> Self {
        Self {
            version: version.to_owned(),
            ..Self::default()
        }
    }

    /// Reads one line of the console.
    pub(crate) fn read(&mut self, line: &str) {
        if let Some(told) = line.strip_prefix(MARK) {
            self.mark(told.trim());
            return;
        }
        if let Some((_, why)) = line.split_once("Kernel panic - ") {
            self.panic.get_or_insert_with(|| why.to_owned());
        }
        let Some(step) = self.steps.last_mut().filter(|step| step.code.is_none()) else {
            return;
        };
        step.lines.push(line.to_owned());
        let in_matrix = step.name == "matrix";
        if let Some(program) = line.strip_prefix("program ") {
            self.programs.extend(program_line(program));
        } else if let Some(skipped) = line.strip_prefix("skipped: ") {
            if in_matrix {
                self.unasked += 1;
            } else {
                self.lacks.push(skipped.to_owned());
            }
        } else if let Some(test) = test_line(line) {
            self.tests.push(test);
        } else if in_matrix && let Some(matrix) = matrix_line(line) {
            self.matrix = Some(matrix);
        }
    }

    fn mark(&mut self, told: &str) {
        let words: Vec<&str> = told.split(' ').collect();
        match words[..] {
            ["step", name] => self.steps.push(Step {
                name: name.to_owned(),
                lines: Vec::new(),
                code: None,
            }),
            ["done", name, code, ..] => {
                if let Some(step) = self.steps.last_mut().filter(|step| step.name == name) {
                    step.code = code.parse().ok();
                }
            }
            _ => {}
        }
    }

    /// Why this kernel does not pass; empty when it does.
    pub(crate) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for program in &self.programs {
            if program.size.is_err() {
                problems.push(format!("{} is refused", program.name));
            }
        }
        for (name, passed) in &self.tests {
            if !passed {
                problems.push(format!("{name} failed"));
            }
        }
        for step in &self.steps {
            let told = step.lines.iter().any(|line| test_line(line).is_some());
            match step.code {
                Some(0) if told => {}
                Some(0) => problems.push(format!("{}: no test has run", step.name)),
                Some(code) if !told => problems.push(format!("{}: ended with {code}", step.name)),
                Some(_) => {}
                None => problems.push(format!("{}: did not end", step.name)),
            }
        }
        if self.programs.is_empty() {
            problems.push("no program was loaded".to_owned());
        }
        if self.matrix.is_none() {
            problems.push("the matrix has not said how it went".to_owned());
        }
        if let Some(time) = self.cut {
            problems.push(format!(
                "it did not come to its end in {} s",
                time.as_secs()
            ));
        }
        if self.died {
            let why = self.panic.as_deref().unwrap_or("nobody knows why");
            problems.push(format!("it died: {why}"));
        }
        problems
    }
}

/// Reads `xdp_ingress: 10549 instructions, 312832 verified`, or `xdp_ingress: refused: why`.
fn program_line(line: &str) -> Option<Program> {
    let (name, told) = line.split_once(": ")?;
    let size = match told.strip_prefix("refused: ") {
        Some(why) => Err(why.to_owned()),
        None => {
            let (instructions, verified) = told.split_once(" instructions, ")?;
            Ok(Size {
                instructions: instructions.parse().ok()?,
                verified: verified
                    .strip_suffix(" verified")
                    .and_then(|count| count.parse().ok()),
            })
        }
    };
    Some(Program {
        name: name.to_owned(),
        size,
    })
}

/// Reads `test live::spine::name ... ok`.
fn test_line(line: &str) -> Option<(String, bool)> {
    let (name, outcome) = line.strip_prefix("test ")?.split_once(" ... ")?;
    Some((name.to_owned(), outcome == "ok"))
}

/// Reads `371 rows, 2310 frames judged, 0 otherwise`.
fn matrix_line(line: &str) -> Option<Matrix> {
    let (rows, rest) = line.split_once(" rows, ")?;
    let (frames, rest) = rest.split_once(" frames judged, ")?;
    let wrong = rest.strip_suffix(" otherwise")?;
    Some(Matrix {
        rows: rows.parse().ok()?,
        frames: frames.parse().ok()?,
        wrong: wrong.parse().ok()?,
    })
}

/// The features that work on each kernel, and the last lines of failed steps.
pub(crate) fn table(reports: &[Report]) -> String {
    let mut table = String::new();
    for report in reports {
        // Writing to a string can't fail.
        let _ = write_report(&mut table, report);
    }
    let passing = reports.iter().filter(|report| report.problems().is_empty());
    let passing: Vec<&str> = passing.map(|report| report.version.as_str()).collect();
    let _ = writeln!(
        table,
        "\n{} of {} kernels pass: {}",
        passing.len(),
        reports.len(),
        passing.join(", ")
    );
    table
}

fn write_report(table: &mut String, report: &Report) -> std::fmt::Result {
    writeln!(
        table,
        "\nkernel {}, {} s",
        report.version,
        report.took.as_secs()
    )?;
    writeln!(
        table,
        "  {:<14} {:>12} {:>9}",
        "program", "instructions", "verified"
    )?;
    for Program { name, size } in &report.programs {
        match size {
            Ok(Size {
                instructions,
                verified,
            }) => {
                let verified = verified.map_or("?".to_owned(), |count| count.to_string());
                writeln!(table, "  {name:<14} {instructions:>12} {verified:>9}")?;
            }
            Err(why) => writeln!(table, "  {name:<14} refused: {why}")?,
        }
    }
    if let Some(Matrix {
        rows,
        frames,
        wrong,
    }) = &report.matrix
    {
        let right = frames.saturating_sub(*wrong);
        write!(
            table,
            "  matrix: {rows} rows, {right} frames judged as they say, {wrong} not"
        )?;
        match report.unasked {
            0 => writeln!(table)?,
            rows => writeln!(table, ", {rows} rows not asked")?,
        }
    }
    for (name, passed) in &report.tests {
        writeln!(
            table,
            "  {} {name}",
            if *passed { "ok    " } else { "FAILED" }
        )?;
    }
    for lacks in &report.lacks {
        writeln!(table, "  lacks {lacks}")?;
    }
    for problem in report.problems() {
        writeln!(table, "  does not pass: {problem}")?;
    }
    for step in report.steps.iter().filter(|step| step.code != Some(0)) {
        writeln!(table, "  the end of {}:", step.name)?;
        let skip = step.lines.len().saturating_sub(TAIL);
        for line in &step.lines[skip..] {
            writeln!(table, "    {line}")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    const GOOD: &str = "Booting from ROM...\n\
        @@ kernel 6.1.0-50-amd64\n\
        program outside: 1 instructions, 1 verified\n\
        @@ step programs\n\
        test packets::programs::takes_every_program ... ok\n\
        program xdp_ingress: 10549 instructions, 312832 verified\n\
        program clock: 21 instructions, ? verified\n\
        skipped: TCX: Invalid argument (os error 22)\n\
        @@ done programs 0 51\n\
        @@ step matrix\n\
        test packets::matrix::the_kernel_says_what_the_rows_say ... ok\n\
        skipped: a row: the kernel takes no context at TC\n\
        371 rows, 2310 frames judged, 0 otherwise\n\
        @@ done matrix 0 90\n\
        @@ end\n";

    fn report(console: &str) -> Report {
        let mut report = Report::new("6.1.0-50-amd64");
        console.lines().for_each(|line| report.read(line));
        report
    }

    #[test]
    fn a_console_becomes_a_report() {
        let report = report(GOOD);
        assert_eq!(report.problems(), [""; 0]);
        let size = |instructions, verified| {
            Ok(Size {
                instructions,
                verified,
            })
        };
        let program = |name: &str, size| Program {
            name: name.to_owned(),
            size,
        };
        assert_eq!(
            report.programs,
            [
                program("xdp_ingress", size(10_549, Some(312_832))),
                program("clock", size(21, None)),
            ]
        );
        assert_eq!(report.lacks, ["TCX: Invalid argument (os error 22)"]);
        assert_eq!(
            report.matrix,
            Some(Matrix {
                rows: 371,
                frames: 2310,
                wrong: 0
            })
        );
        assert_eq!(report.unasked, 1);
        let table = table(&[report]);
        assert!(
            table.contains("clock                    21         ?"),
            "{table}"
        );
        assert!(
            table.ends_with("1 of 1 kernels pass: 6.1.0-50-amd64\n"),
            "{table}"
        );
    }

    #[test]
    fn what_fails_is_said_with_the_end_of_its_output() {
        let console = GOOD
            .replace(
                "10549 instructions, 312832 verified",
                "refused: combined stack size",
            )
            .replace("program ... ok", "program ... FAILED")
            .replace("done programs 0", "done programs 101");
        let report = report(&console);
        assert_eq!(
            report.problems(),
            [
                "xdp_ingress is refused",
                "packets::programs::takes_every_program failed"
            ]
        );
        let table = table(&[report]);
        assert!(table.contains("refused: combined stack size"), "{table}");
        assert!(table.contains("the end of programs:"), "{table}");
    }

    #[test]
    fn a_guest_that_dies_does_not_pass() {
        let (before, _) = GOOD.split_once("@@ done matrix").unwrap();
        let (before, _) = before.split_once("371 rows").unwrap();
        assert_eq!(
            report(before).problems(),
            ["matrix: did not end", "the matrix has not said how it went"]
        );
        let mut early = report("[    0.1] Kernel panic - not syncing: no timer\n");
        early.died = true;
        let problems = early.problems();
        assert_eq!(
            problems.last().map(String::as_str),
            Some("it died: not syncing: no timer")
        );
    }

    #[test]
    fn a_step_without_a_test_does_not_pass() {
        let console = GOOD.replace(
            "test packets::matrix::the_kernel_says_what_the_rows_say ... ok\n",
            "",
        );
        assert_eq!(report(&console).problems(), ["matrix: no test has run"]);
    }
}
