//! The policy document: plan, apply, put, delete and get.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use anstyle::{AnsiColor, Style};
use serde_json::json;
use tonic::{Code, Status};
use wardline_proto::{
    document::{self, Problem, policy_to_json, policy_to_yaml, to_value},
    v1::{
        ApplyRequest, ChangeKind, ChangeResponse, CutFlow, EditRequest, GetPolicyRequest, IdleRule,
        ObjectChange, ObservedDrop, PlanRequest, PlanResponse, Policy, Reach,
    },
};

use crate::{
    args::{Apply, Change, Delete, Format, Get, Plan},
    connect::{LARGEST_MESSAGE, connect},
    exit::{Exit, Failure, violations},
    humane::{self, Clock, time, word},
    inspect, output,
    session::Session,
    table::{cell, filled, judged, table},
};

/// Shows what a document would change.
///
/// # Errors
/// The document has problems, or the router does not answer.
pub(crate) async fn plan(session: &Session, args: Plan) -> Result<Exit, Failure> {
    let policy = Some(whole(session, &args.file).await?);
    let request = PlanRequest { policy };
    let plan = session
        .ask(request, async |mut client, it| client.plan(it).await)
        .await?;
    output::warn(&plan.warnings);
    output::answer(session.format, &plan, plan_text)
}

/// Puts a whole document in force.
///
/// # Errors
/// The document has problems, or the router refuses or does not answer.
pub(crate) async fn apply(session: &Session, args: Apply) -> Result<Exit, Failure> {
    let policy = Some(whole(session, &args.file).await?);
    let Change {
        confirm_within,
        why,
        base,
    } = args.change;
    let confirm_within_s = confirm_within.unwrap_or_default();
    let request = ApplyRequest {
        policy,
        reason: why.reason,
        base,
        confirm_within_s,
    };
    let change = session
        .ask(request, async |mut client, it| client.apply(it).await)
        .await?;
    changed(session, &change)
}

/// Adds or replaces a few objects.
///
/// # Errors
/// The fragment has problems, or the router refuses or does not answer.
pub(crate) async fn put(session: &Session, args: Apply) -> Result<Exit, Failure> {
    let (policy, problems) = document::parse_fragment(&text(&args.file)?);
    if !problems.is_empty() {
        return Err(Failure::problems(&problems));
    }
    edit(session, Some(policy), Vec::new(), args.change).await
}

/// Deletes a few objects.
///
/// # Errors
/// The router refuses or does not answer.
pub(crate) async fn delete(session: &Session, args: Delete) -> Result<Exit, Failure> {
    edit(session, None, args.objects, args.change).await
}

/// Prints a document.
///
/// # Errors
/// There is none, or the router does not answer.
pub(crate) async fn get(session: &Session, args: Get) -> Result<Exit, Failure> {
    let request = GetPolicyRequest {
        revision: args.revision.unwrap_or_default(),
        diff: false,
    };
    let answer = session
        .ask(request, async |mut client, it| client.get_policy(it).await)
        .await?;
    let policy = answer
        .policy
        .ok_or_else(|| Failure::refused("no policy was applied yet"))?;
    output::text(&match session.format {
        Format::Json => policy_to_json(&policy),
        Format::Table | Format::Yaml => policy_to_yaml(&policy),
    })
}

/// Shows what a revision changed.
///
/// # Errors
/// There is none, or the router does not answer.
pub(crate) async fn diff(session: &Session, args: Get) -> Result<Exit, Failure> {
    let request = GetPolicyRequest {
        revision: args.revision.unwrap_or_default(),
        diff: true,
    };
    let answer = session
        .ask(request, async |mut client, it| client.get_policy(it).await)
        .await?;
    if session.format == Format::Table {
        return output::styled(&changes_text(&answer.changes));
    }
    let changes: Vec<_> = answer.changes.iter().map(to_value).collect();
    let value = json!({"revision": answer.revision, "changes": changes});
    output::value(session.format, &value)
}

/// Tells about a change that took force.
///
/// # Errors
/// Standard output can't be written.
pub(crate) fn changed(session: &Session, change: &ChangeResponse) -> Result<Exit, Failure> {
    output::warn(&change.warnings);
    if session.format == Format::Table {
        return output::styled(&change_text(change, &Clock::system()));
    }
    let mut value = to_value(change);
    if change.name.is_empty()
        && let Some(fields) = value.as_object_mut()
    {
        // Only a grant has these.
        fields.retain(|name, _| name != "name" && name != "expires");
    }
    output::value(session.format, &value)
}

async fn edit(
    session: &Session,
    put: Option<Policy>,
    delete: Vec<String>,
    change: Change,
) -> Result<Exit, Failure> {
    let Change {
        confirm_within,
        why,
        base,
    } = change;
    let confirm_within_s = confirm_within.unwrap_or_default();
    let request = EditRequest {
        put,
        delete,
        reason: why.reason,
        base,
        confirm_within_s,
    };
    let change = session
        .ask(request, async |mut client, it| client.edit(it).await)
        .await?;
    changed(session, &change)
}

/// Reads a whole document. If anything is wrong with it, asks the router what else is.
async fn whole(session: &Session, file: &Path) -> Result<Policy, Failure> {
    let (policy, problems) = document::parse(&text(file)?);
    if problems.is_empty() {
        return Ok(policy);
    }
    // What could not be read at all leaves nothing to ask about.
    let readable = problems.iter().all(|problem| !problem.path.is_empty());
    let further = if readable {
        objections(session, policy).await
    } else {
        Vec::new()
    };
    Err(Failure::problems(&merged(problems, further)))
}

/// What the router has against a policy; nothing if it can't be asked.
async fn objections(session: &Session, policy: Policy) -> Vec<Problem> {
    let refusal = session.within(async {
        let client = connect(&session.target).await?;
        let request = PlanRequest {
            policy: Some(policy),
        };
        Ok(session
            .call(client, request, async |mut client, it| {
                client.plan(it).await
            })
            .await
            .err())
    });
    match refusal.await {
        Ok(Some(status)) if refers_to_document(&status) => violations(&status),
        Ok(_) | Err(_) => Vec::new(),
    }
}

fn refers_to_document(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::InvalidArgument | Code::ResourceExhausted
    )
}

/// The problems of both. What the router says about a place that could not be read only follows
/// from that.
fn merged(mut local: Vec<Problem>, router: Vec<Problem>) -> Vec<Problem> {
    let follows = |problem: &Problem| {
        local
            .iter()
            .any(|unread| match problem.path.strip_prefix(&unread.path) {
                Some(rest) => rest.is_empty() || rest.starts_with(['.', '[']),
                None => false,
            })
    };
    let further: Vec<_> = router
        .into_iter()
        .filter(|problem| !follows(problem))
        .collect();
    local.extend(further);
    local
}

fn text(file: &Path) -> Result<String, Failure> {
    if file == Path::new("-") {
        return read("standard input", io::stdin().lock(), LARGEST_MESSAGE);
    }
    let name = file.display().to_string();
    let opened = File::open(file).map_err(|error| Failure::refused(format!("{name}: {error}")))?;
    read(&name, opened, LARGEST_MESSAGE)
}

fn read(name: &str, reader: impl Read, most: usize) -> Result<String, Failure> {
    let refused = |why: String| Failure::refused(format!("{name}: {why}"));
    let mut bytes = Vec::new();
    let mut reader = reader.take((most as u64).saturating_add(1));
    reader
        .read_to_end(&mut bytes)
        .map_err(|error| refused(error.to_string()))?;
    if bytes.len() > most {
        return Err(refused(format!(
            "larger than {}",
            humane::bytes(most as u64)
        )));
    }
    String::from_utf8(bytes).map_err(|error| {
        refused(format!(
            "not UTF-8 at byte {}",
            error.utf8_error().valid_up_to()
        ))
    })
}

fn change_text(change: &ChangeResponse, clock: &Clock) -> String {
    let revision = change.revision;
    let mut text = match time(change.confirm_by.as_ref()) {
        None => format!("revision {revision}\n"),
        Some(by) => format!(
            "revision {revision}, taken back {} ({}) unless confirmed: wardctl confirm {revision}\n",
            clock.distance(by),
            clock.local(by),
        ),
    };
    if let Some(expires) = time(change.expires.as_ref()) {
        let name = humane::printable(&change.name);
        let (ends, at) = (clock.distance(expires), clock.local(expires));
        text += &format!("grant {name}, ends {ends} ({at})\n");
    }
    text
}

fn plan_text(plan: &PlanResponse) -> String {
    let count = |kind| plan.changes.iter().filter(|it| it.change() == kind).count();
    let mut text = format!(
        "against revision {}: {} to add, {} to change, {} to remove\n",
        plan.base,
        count(ChangeKind::Add),
        count(ChangeKind::Change),
        count(ChangeKind::Remove),
    );
    // The dangerous lines first: what follows may be long.
    for danger in &plan.dangers {
        text += &format!("{DANGER}!{DANGER:#} {}\n", humane::printable(danger));
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
    if !plan.idle.is_empty() {
        text += "\n";
        text += &idle_text(&plan.idle);
    }
    if !plan.empty_zones.is_empty() {
        let zones = humane::printable(&plan.empty_zones.join(", "));
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

const DANGER: Style = AnsiColor::Red.on_default().bold();

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
        vec![
            verdict,
            cell(who(&it.from)),
            cell(who(&it.to)),
            cell(it.services.join(", ")),
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

fn changes_text(changes: &[ObjectChange]) -> String {
    let rows = changes.iter().map(|it| {
        let change = match it.change() {
            ChangeKind::Add => judged("add", true),
            ChangeKind::Change => cell("change"),
            ChangeKind::Remove => judged("remove", false),
            ChangeKind::Unspecified => cell("?"),
        };
        vec![change, cell(&it.kind), cell(&it.name)]
    });
    filled(table(&["CHANGE", "KIND", "NAME"]), rows, "changes")
}

#[cfg(test)]
mod tests {
    use jiff::{Timestamp, tz::TimeZone};
    use wardline_proto::v1::TableStatus;

    use super::*;
    use crate::table::uncoloured;

    fn problem(path: &str, message: &str) -> Problem {
        Problem {
            path: path.to_owned(),
            message: message.to_owned(),
        }
    }

    #[test]
    fn what_follows_from_an_unread_place_is_left_out() {
        let local = vec![
            problem("devices[1]", "not a mapping"),
            problem("version", "not a number"),
        ];
        let router = vec![
            problem("version", "must be 1"),
            problem("devices[1].name", "missing"),
            problem("devices[10].zone", "no such zone"),
            problem("rules[0].to[1]", "no such device"),
        ];
        let paths = |problems: Vec<Problem>| {
            problems
                .into_iter()
                .map(|problem| problem.path)
                .collect::<Vec<_>>()
        };
        assert_eq!(
            paths(merged(local, router)),
            [
                "devices[1]",
                "version",
                "devices[10].zone",
                "rules[0].to[1]"
            ]
        );
    }

    #[test]
    fn an_unreadable_document_is_refused() {
        assert!(text(Path::new("/nonexistent/policy.yaml")).is_err());
        assert!(text(Path::new("/")).is_err());
        let read = |bytes: &[u8]| read("x", bytes, 10);
        assert_eq!(
            read(b"\xff"),
            Err(Failure::refused("x: not UTF-8 at byte 0"))
        );
        assert_eq!(
            read(b"version: 01"),
            Err(Failure::refused("x: larger than 10 B"))
        );
        assert_eq!(read(b"version: 1").as_deref(), Ok("version: 1"));
    }

    #[test]
    fn a_change_tells_its_revision_first() {
        let clock = Clock {
            now: Timestamp::UNIX_EPOCH,
            zone: TimeZone::UTC,
        };
        let at = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
        let mut change = ChangeResponse {
            revision: 8,
            ..Default::default()
        };
        assert_eq!(change_text(&change, &clock), "revision 8\n");
        change.confirm_by = at(60);
        assert_eq!(
            change_text(&change, &clock),
            "revision 8, taken back in 1m (1970-01-01 00:01:00) unless confirmed: \
             wardctl confirm 8\n"
        );
        let name = "ssh".to_owned();
        let grant = ChangeResponse {
            revision: 9,
            name,
            expires: at(7200),
            ..Default::default()
        };
        assert_eq!(
            change_text(&grant, &clock),
            "revision 9\ngrant ssh, ends in 2h (1970-01-01 02:00:00)\n"
        );
    }

    #[test]
    fn a_plan_lists_what_changes() {
        let change = |change: ChangeKind, kind: &str, name: &str| ObjectChange {
            change: change.into(),
            kind: kind.to_owned(),
            name: name.to_owned(),
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
            }],
            more_reach: 7,
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
