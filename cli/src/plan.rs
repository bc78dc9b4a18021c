//! What a document would change: the router's plan, with the dangers first.

use wardline_proto::{
    parts::Parts,
    v1::{CutFlow, IdleRule, ObservedDrop, PlanRequest, PlanResponse, Reach},
};

use crate::{
    args::Plan,
    ask::{DANGER, counts_text},
    document::{fragment, send, whole},
    exit::{Exit, Failure},
    humane::{printable, word},
    inspect, output,
    policy::changes_text,
    session::Session,
    table::{cell, filled, judged, table},
};

/// Shows what a document would change.
///
/// # Errors
/// The document has problems, or the router does not answer.
pub(crate) async fn plan(session: &Session, args: Plan) -> Result<Exit, Failure> {
    let is_edit = args.edit || !args.delete.is_empty();
    if is_edit && !args.edit && !args.files.is_empty() {
        return Err(Failure::usage(
            "with --delete, --edit says that the files hold a few objects",
        ));
    }
    let parts = match (is_edit, args.files.is_empty()) {
        (true, true) => Parts::default(),
        (true, false) => fragment(&args.files)?,
        (false, _) => whole(session, &args.files).await?,
    };
    let policy = Some(parts.policy.clone());
    let request = if is_edit {
        PlanRequest {
            put: policy,
            delete: args.delete,
            ..PlanRequest::default()
        }
    } else {
        PlanRequest {
            policy,
            ..PlanRequest::default()
        }
    };
    let plan = send(session, &parts, request, async |mut client, it| {
        client.plan(it).await
    })
    .await?;
    tell(session, &plan)
}

/// Prints a plan.
///
/// # Errors
/// Standard output can't be written.
pub(crate) fn tell(session: &Session, plan: &PlanResponse) -> Result<Exit, Failure> {
    output::warn(&plan.warnings);
    output::answer(session.format, plan, plan_text)
}

pub(crate) fn plan_text(plan: &PlanResponse) -> String {
    let mut text = counts_text(plan);
    // The dangers first, because the rest may be long.
    for danger in &plan.dangers {
        text += &format!("{DANGER}!{DANGER:#} {}\n", printable(danger));
    }
    text += &inspect::failsafe_text(&plan.failsafe);
    if !plan.reach.is_empty() {
        text += "\n";
        text += &reach_text(&plan.reach);
    }
    if plan.more_reach != 0 {
        text += &format!("and {} more pairs\n", plan.more_reach);
    }
    if !plan.cut.is_empty() {
        text += "\n";
        text += &cut_text(&plan.cut, plan.flows_cut);
    }
    if !plan.observed.is_empty() {
        text += "\n";
        text += &observed_text(&plan.observed);
    }
    if plan.more_observed != 0 {
        text += &format!(
            "and {} more kinds of observed traffic\n",
            plan.more_observed
        );
    }
    if !plan.idle.is_empty() {
        text += "\n";
        text += &idle_text(&plan.idle);
    }
    if !plan.empty_zones.is_empty() {
        let zones = printable(&plan.empty_zones.join(", "));
        text += &format!("\nnobody is in: {zones}\n");
    }
    if !plan.changes.is_empty() {
        text += "\n";
        text += &changes_text(&plan.changes);
    }
    if !plan.tables.is_empty() {
        text += "\n";
        text += &inspect::tables_text(&plan.tables);
    }
    text
}

fn reach_text(reach: &[Reach]) -> String {
    let rows = reach.iter().map(|it| {
        let verdict = if it.reachable {
            judged("opens", true)
        } else {
            judged("closes", false)
        };
        let who = |end: &str| match it.alike {
            0 | 1 => end.to_owned(),
            alike if end.starts_with("device:") => format!("{end} and {} alike", alike - 1),
            _ => end.to_owned(),
        };
        let mut by = it.rules.join(", ");
        if !it.except.is_empty() {
            by += &format!(", except by {}", it.except.join(", "));
        }
        let only = if it.answers { " in answer" } else { "" };
        vec![
            verdict,
            cell(who(&it.from)),
            cell(who(&it.to)),
            cell(it.services.join(", ") + only),
            cell(by),
        ]
    });
    filled(
        table(&["REACH", "FROM", "TO", "SERVICES", "RULES"]),
        rows,
        "pairs",
    )
}

fn cut_text(cut: &[CutFlow], all: u64) -> String {
    let rows = cut.iter().filter_map(|it| {
        let flow = it.flow.as_ref()?;
        Some(vec![
            judged("cut", false),
            cell(format!("{}:{}", flow.source, flow.source_port)),
            cell(format!("{}:{}", flow.destination, flow.destination_port)),
            cell(&flow.protocol),
            cell(word(it.reason().as_str_name(), "REASON_")),
            cell(&flow.rule),
        ])
    });
    let headings = [
        "FLOW",
        "SOURCE",
        "DESTINATION",
        "PROTOCOL",
        "REASON",
        "RULE BEFORE",
    ];
    let mut text = filled(table(&headings), rows, "flows");
    let more = all.saturating_sub(cut.len() as u64);
    if more != 0 {
        text += &format!("and {more} more flows\n");
    }
    text
}

fn observed_text(observed: &[ObservedDrop]) -> String {
    let rows = observed.iter().map(|it| {
        vec![
            judged("drops", false),
            cell(&it.device),
            cell(&it.source),
            cell(&it.destination),
            cell(&it.service),
            cell(word(it.reason().as_str_name(), "REASON_")),
            cell(it.packets.to_string()),
        ]
    });
    let headings = [
        "OBSERVED",
        "DEVICE",
        "SOURCE",
        "DESTINATION",
        "SERVICE",
        "REASON",
        "PACKETS>",
    ];
    filled(table(&headings), rows, "observed drops")
}

fn idle_text(idle: &[IdleRule]) -> String {
    let rows = idle.iter().map(|it| {
        let does = if it.matches {
            "never matters"
        } else {
            "never matches"
        };
        vec![
            cell(&it.rule),
            cell(does),
            cell(it.covered_by.join(", ")),
            cell(&it.why),
        ]
    });
    filled(
        table(&["RULE", "DOES", "COVERED BY", "WHY"]),
        rows,
        "idle rules",
    )
}

#[cfg(test)]
mod tests {
    use wardline_proto::v1::{ChangeKind, ObjectChange, Reason, TableStatus};

    use super::*;
    use crate::table::uncoloured;

    #[test]
    fn a_plan_lists_what_changes() {
        let change = |change: ChangeKind, kind: &str, name: &str| ObjectChange {
            change: change.into(),
            kind: kind.to_owned(),
            name: name.to_owned(),
            ..ObjectChange::default()
        };
        let plan = PlanResponse {
            base: 7,
            changes: vec![
                change(ChangeKind::Add, "device", "pump-3"),
                change(ChangeKind::Remove, "rule", "old"),
            ],
            warnings: vec![],
            tables: vec![TableStatus {
                name: "devices".to_owned(),
                used: 3,
                max: 100,
            }],
            dangers: vec!["cuts 1 live flow with the router itself".to_owned()],
            reach: vec![Reach {
                reachable: false,
                from: "device:pump-1".to_owned(),
                to: "router".to_owned(),
                services: vec!["tcp/22".to_owned()],
                rules: vec!["old".to_owned()],
                except: vec!["no".to_owned()],
                alike: 3,
                answers: false,
            }],
            more_reach: 7,
            observed: vec![ObservedDrop {
                device: "pump-1".to_owned(),
                source: "10.20.1.11".to_owned(),
                destination: "198.51.100.7".to_owned(),
                service: "tcp/443".to_owned(),
                packets: 11,
                reason: Reason::NoRule.into(),
                ..ObservedDrop::default()
            }],
            more_observed: 3,
            idle: vec![IdleRule {
                rule: "narrow".to_owned(),
                matches: true,
                why: "others decide the same".to_owned(),
                covered_by: vec!["wide".to_owned()],
            }],
            empty_zones: vec!["void".to_owned()],
            ..PlanResponse::default()
        };
        assert_eq!(
            uncoloured(&plan_text(&plan)),
            "against revision 7: 1 to add, 0 to change, 1 to remove\n\
             ! cuts 1 live flow with the router itself\n\n\
             REACH   FROM                       TO      SERVICES  RULES\n\
             closes  device:pump-1 and 2 alike  router  tcp/22    old, except by no\n\
             and 7 more pairs\n\n\
             OBSERVED  DEVICE  SOURCE      DESTINATION   SERVICE  REASON   PACKETS\n\
             drops     pump-1  10.20.1.11  198.51.100.7  tcp/443  no_rule       11\n\
             and 3 more kinds of observed traffic\n\n\
             RULE    DOES           COVERED BY  WHY\n\
             narrow  never matters  wide        others decide the same\n\n\
             nobody is in: void\n\n\
             CHANGE  KIND    NAME\n\
             add     device  pump-3\n\
             remove  rule    old\n\n\
             TABLE    USED  MAX  FILL\n\
             devices     3  100    3%\n"
        );
    }
}
