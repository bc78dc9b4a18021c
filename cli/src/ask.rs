//! The question before a change: a person at a terminal is told in short what it does.

use std::io::{self, IsTerminal as _, Write as _};

use anstyle::{AnsiColor, Style};
use wardline_proto::v1::{ChangeKind, PlanResponse};

use crate::{exit::Failure, humane::printable, output};

/// How dangers are marked.
pub(crate) const DANGER: Style = AnsiColor::Red.on_default().bold();

/// Most dangers that are told before a question.
const TOLD: usize = 5;

/// Tells a person at a terminal what a change would do, and asks whether to make it. Returns the revision that
/// the answer is about; 0: nobody was asked. A script is not asked, and for it no plan is made.
///
/// # Errors
/// The change would be refused, the router does not answer, or the answer is no.
pub(crate) async fn agreed(
    plan: impl Future<Output = Result<PlanResponse, Failure>>,
    yes: bool,
) -> Result<u64, Failure> {
    let at_terminal = io::stdin().is_terminal() && io::stderr().is_terminal();
    if yes || !at_terminal {
        return Ok(0);
    }
    let plan = plan.await?;
    if plan.changes.is_empty() {
        return Ok(plan.base);
    }
    output::warn(&plan.warnings);
    let asked = format!("{}make this change? [y/N] ", in_short(&plan));
    let failed = |error: io::Error| Failure::failed(format!("can't ask: {error}"));
    let mut out = anstream::stderr().lock();
    out.write_all(asked.as_bytes())
        .and_then(|()| out.flush())
        .map_err(failed)?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).map_err(failed)?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(plan.base),
        _ => Err(Failure::refused("nothing was changed")),
    }
}

/// What a person should know before the answer: how much changes, and the first dangers.
fn in_short(plan: &PlanResponse) -> String {
    let mut text = counts_text(plan);
    for danger in plan.dangers.iter().take(TOLD) {
        text += &format!("{DANGER}!{DANGER:#} {}\n", printable(danger));
    }
    let more = plan.dangers.len().saturating_sub(TOLD);
    if more != 0 {
        text += &format!("and {more} more; `wardctl plan` tells all\n");
    }
    text
}

/// How much is added, changed and removed.
pub(crate) fn counts_text(plan: &PlanResponse) -> String {
    let count = |kind| plan.changes.iter().filter(|it| it.change() == kind).count();
    format!(
        "against revision {}: {} to add, {} to change, {} to remove\n",
        plan.base,
        count(ChangeKind::Add),
        count(ChangeKind::Change),
        count(ChangeKind::Remove),
    )
}
