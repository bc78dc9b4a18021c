//! Compares the demo's claims with what really happened.

use std::time::Duration;

use anstream::{print, println};
use anstyle::{AnsiColor, Style};
use anyhow::Result;
use wardline_tests::Outcome;
use wardline_tests::clinic::{Expected, SOURCES, TARGETS};

const GREEN: Style = AnsiColor::Green.on_default();
const RED: Style = AnsiColor::Red.on_default();
const WRONG: Style = AnsiColor::Yellow.on_default().bold();
const DIM: Style = Style::new().dimmed();

const LABEL: usize = 10;
const CELL: usize = 7;

/// The claims that were checked, and those that did not hold.
#[derive(Default)]
pub(crate) struct Ledger {
    checked: usize,
    failed: Vec<String>,
}

impl Ledger {
    /// Prints a claim and whether it holds.
    pub(crate) fn check(&mut self, holds: bool, claim: &str) {
        self.checked += 1;
        if holds {
            println!("  {GREEN}✓{GREEN:#} {claim}");
        } else {
            println!("  {WRONG}✗ {claim}: this does not hold{WRONG:#}");
            self.failed.push(claim.to_owned());
        }
    }

    /// Compares every cell of a matrix with its expected outcome.
    pub(crate) fn check_matrix(
        &mut self,
        when: &str,
        matrix: &[Vec<Outcome>],
        expected: impl Fn(usize, usize) -> Expected,
    ) {
        let (mut judged, mut reached) = (0, 0);
        let mut wrong = Vec::new();
        for (row, outcomes) in matrix.iter().enumerate() {
            for (column, outcome) in outcomes.iter().enumerate() {
                let expected = expected(row, column);
                if expected == Expected::Itself {
                    continue;
                }
                judged += 1;
                reached += usize::from(*outcome == Outcome::Connected);
                if !as_expected(expected, *outcome) {
                    let target = &TARGETS[column];
                    let should = if expected == Expected::Drop {
                        "dropped"
                    } else {
                        "connected"
                    };
                    wrong.push(format!(
                        "{when}: {} to {}, {}: should be {should}, was {outcome}",
                        SOURCES[row], target.host, target.service
                    ));
                }
            }
        }
        self.checked += judged;
        if wrong.is_empty() {
            let dropped = judged - reached;
            println!(
                "  {GREEN}✓{GREEN:#} {when}: {reached} attempts arrive, {dropped} are dropped, \
                 all as they should"
            );
        } else {
            println!(
                "  {WRONG}✗ {} of {judged} attempts went wrong{WRONG:#}",
                wrong.len()
            );
        }
        self.failed.extend(wrong);
    }

    pub(crate) fn any_failed(&self) -> bool {
        !self.failed.is_empty()
    }

    /// Prints the result.
    ///
    /// # Errors
    /// With every claim that did not hold.
    pub(crate) fn close(self, took: Duration) -> Result<()> {
        let Self { checked, failed } = self;
        let seconds = took.as_secs_f32();
        if failed.is_empty() {
            println!("\n{GREEN}All {checked} expectations held{GREEN:#}, in {seconds:.0} s.");
            return Ok(());
        }
        let list = failed.join("\n  ");
        anyhow::bail!(
            "{} of {checked} expectations did not hold:\n  {list}",
            failed.len()
        )
    }
}

fn as_expected(expected: Expected, outcome: Outcome) -> bool {
    match expected {
        Expected::Itself => true,
        Expected::Unjudged | Expected::Allow => outcome == Outcome::Connected,
        Expected::Drop => outcome == Outcome::Dropped,
    }
}

/// The expected outcome of a matrix's cell when the clinic's policy is in force.
pub(crate) fn expected(row: usize, column: usize) -> Expected {
    TARGETS[column].expected(SOURCES[row])
}

/// Prints a row for each source and a column for each target.
pub(crate) fn show_matrix(matrix: &[Vec<Outcome>], expected: impl Fn(usize, usize) -> Expected) {
    let heads = TARGETS.map(|target| heading(target.host));
    for (label, line) in [
        ("  to", heads.map(|(kind, _)| kind)),
        ("", heads.map(|(_, number)| number)),
        ("from", TARGETS.map(|target| target.service)),
    ] {
        print!("{label:<LABEL$}");
        for word in line {
            print!("{word:>CELL$}");
        }
        println!();
    }
    for (row, outcomes) in matrix.iter().enumerate() {
        print!("{:<LABEL$}", SOURCES[row]);
        for (column, outcome) in outcomes.iter().enumerate() {
            let itself = SOURCES[row] == TARGETS[column].host;
            show_cell(
                if itself {
                    Expected::Itself
                } else {
                    expected(row, column)
                },
                *outcome,
            );
        }
        println!();
    }
}

/// A name in two lines, so that ten columns fit a terminal.
fn heading(host: &str) -> (&str, &str) {
    match host.split_once('-') {
        Some((kind, number)) => (kind, number),
        None if host.len() < CELL => (host, ""),
        None => host.split_at(CELL - 2),
    }
}

fn show_cell(expected: Expected, outcome: Outcome) {
    let (style, mark) = match (expected, outcome) {
        (Expected::Itself, _) => (DIM, "–"),
        _ if !as_expected(expected, outcome) => match outcome {
            Outcome::Connected => (WRONG, "✓!"),
            _ => (WRONG, "✗!"),
        },
        (Expected::Unjudged, _) => (DIM, "·"),
        (_, Outcome::Connected) => (GREEN, "✓"),
        _ => (RED, "✗"),
    };
    print!("{style}{mark:>CELL$}{style:#}");
}

/// Prints the meaning of the marks and the columns of a matrix.
pub(crate) fn legend() {
    println!(
        "\n  {GREEN}✓{GREEN:#} arrived   {RED}✗{RED:#} dropped, nothing came back   \
         {DIM}·{DIM:#} arrived, past every guarded port\n\n  \
         {DIM}ping: ICMP echo   dns: a datagram and its answer, udp/53\n  \
         ssh tcp/22, rtsp tcp/554, hl7 tcp/2575, https tcp/443: a handshake\n  \
         …6: the same over IPv6   ehr, vendor and internet are behind the uplink{DIM:#}\n"
    );
}
