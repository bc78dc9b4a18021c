//! The policy document: apply, put, delete, get and diff.

use serde_json::json;
use wardline_proto::{
    document::{policy_to_json, policy_to_yaml, to_value},
    parts::Parts,
    v1::{
        ApplyRequest, ChangeKind, ChangeResponse, EditRequest, FieldChange, GetPolicyRequest,
        ObjectChange, PlanRequest, PlanResponse, RenameRequest,
    },
};

use crate::{
    args::{Apply, Change, Delete, Format, Get, Rename},
    ask::agreed,
    document::{fragment, send, whole},
    exit::{Exit, Failure},
    humane::{Clock, printable, time},
    output,
    session::Session,
    table::{cell, filled, judged, table},
};

/// Puts a whole document in force.
///
/// # Errors
/// The document has problems, or the router refuses or does not answer.
pub(crate) async fn apply(session: &Session, args: Apply) -> Result<Exit, Failure> {
    let parts = whole(session, &args.files.files).await?;
    let Change { terms, yes } = args.change;
    let plan = PlanRequest {
        policy: Some(parts.policy.clone()),
        ..PlanRequest::default()
    };
    let asked = agreed(plan_of(session, &parts, plan), yes).await?;
    let request = ApplyRequest {
        policy: Some(parts.policy.clone()),
        base: terms.base_or(asked),
        reason: terms.why.reason,
        confirm_within_s: terms.confirm_within.unwrap_or_default(),
    };
    let change = send(session, &parts, request, async |mut client, it| {
        client.apply(it).await
    })
    .await?;
    changed(session, &change)
}

/// Adds or replaces a few objects.
///
/// # Errors
/// The fragment has problems, or the router refuses or does not answer.
pub(crate) async fn put(session: &Session, args: Apply) -> Result<Exit, Failure> {
    let parts = fragment(&args.files.files)?;
    edit(session, &parts, Vec::new(), args.change).await
}

/// Deletes a few objects.
///
/// # Errors
/// The router refuses or does not answer.
pub(crate) async fn delete(session: &Session, args: Delete) -> Result<Exit, Failure> {
    edit(session, &Parts::default(), args.objects, args.change).await
}

/// What a change would do; its problems are at their places in the files.
///
/// # Errors
/// The router refuses or does not answer.
pub(crate) async fn plan_of(
    session: &Session,
    parts: &Parts,
    request: PlanRequest,
) -> Result<PlanResponse, Failure> {
    send(session, parts, request, async |mut client, it| {
        client.plan(it).await
    })
    .await
}

/// Gives an object another name. Nobody is asked: it changes no verdict.
///
/// # Errors
/// The router refuses or does not answer.
pub(crate) async fn rename(session: &Session, args: Rename) -> Result<Exit, Failure> {
    let Rename {
        object,
        new_name,
        terms,
    } = args;
    let request = RenameRequest {
        object,
        new_name,
        reason: terms.why.reason,
        base: terms.base,
        confirm_within_s: terms.confirm_within.unwrap_or_default(),
    };
    let change = session
        .ask(request, async |mut client, it| client.rename(it).await)
        .await?;
    changed(session, &change)
}

/// Prints a document.
///
/// # Errors
/// The revision does not exist, or the router does not answer.
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
        Format::Csv => {
            return Err(Failure::usage(
                "a document is no list; -o yaml and -o json print it whole",
            ));
        }
    })
}

/// Shows what a revision changed.
///
/// # Errors
/// The revision does not exist, or the router does not answer.
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

/// Reports a change that took force.
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
    put: &Parts,
    delete: Vec<String>,
    change: Change,
) -> Result<Exit, Failure> {
    let Change { terms, yes } = change;
    let plan = PlanRequest {
        put: Some(put.policy.clone()),
        delete: delete.clone(),
        ..PlanRequest::default()
    };
    let asked = agreed(plan_of(session, put, plan), yes).await?;
    let request = EditRequest {
        put: Some(put.policy.clone()),
        delete,
        base: terms.base_or(asked),
        reason: terms.why.reason,
        confirm_within_s: terms.confirm_within.unwrap_or_default(),
    };
    let change = send(session, put, request, async |mut client, it| {
        client.edit(it).await
    })
    .await?;
    changed(session, &change)
}

fn change_text(change: &ChangeResponse, clock: &Clock) -> String {
    let revision = change.revision;
    let mut text = match time(change.confirm_by.as_ref()) {
        None if change.unchanged => {
            format!("revision {revision} stays in force: there is nothing to change\n")
        }
        None => format!("revision {revision}\n"),
        Some(by) => format!(
            "revision {revision}, taken back {} ({}) unless confirmed: wardctl confirm {revision}\n",
            clock.distance(by),
            clock.local(by),
        ),
    };
    if let Some(expires) = time(change.expires.as_ref()) {
        let name = printable(&change.name);
        let (ends, at) = (clock.distance(expires), clock.local(expires));
        text += &format!("grant {name}, ends {ends} ({at})\n");
    }
    text
}

/// Objects that are added, changed or removed, as a table.
pub(crate) fn changes_text(changes: &[ObjectChange]) -> String {
    let rows = changes.iter().map(|it| {
        let change = match it.change() {
            ChangeKind::Add => judged("add", true),
            ChangeKind::Change => cell("change"),
            ChangeKind::Remove => judged("remove", false),
            ChangeKind::Unspecified => cell("?"),
        };
        vec![change, cell(&it.kind), cell(&it.name)]
    });
    let mut text = filled(table(&["CHANGE", "KIND", "NAME"]), rows, "changes");
    for change in changes.iter().filter(|it| !it.fields.is_empty()) {
        let (kind, name) = (&change.kind, printable(&change.name));
        text += &format!("\n{kind} {name}:\n");
        for FieldChange { field, old, new } in &change.fields {
            let or_none = |text: &str| match text {
                "" => "nothing".to_owned(),
                text => printable(text),
            };
            text += &format!("  {field}: {} → {}\n", or_none(old), or_none(new));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use crate::table::uncoloured;
    use jiff::{Timestamp, tz::TimeZone};

    use super::*;

    #[test]
    fn what_an_altered_object_was_and_is_follows_the_list() {
        let field = |field: &str, old: &str, new: &str| FieldChange {
            field: field.to_owned(),
            old: old.to_owned(),
            new: new.to_owned(),
        };
        let change = ObjectChange {
            change: ChangeKind::Change.into(),
            kind: "rule".to_owned(),
            name: "web".to_owned(),
            fields: vec![
                field("services", "[tcp/80]", "[tcp/443]"),
                field("log", "", "true"),
            ],
        };
        assert_eq!(
            uncoloured(&changes_text(&[change])),
            "CHANGE  KIND  NAME\nchange  rule  web\n\n\
             rule web:\n  services: [tcp/80] → [tcp/443]\n  log: nothing → true\n"
        );
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
        change.unchanged = true;
        let stays = "revision 8 stays in force: there is nothing to change\n";
        assert_eq!(change_text(&change, &clock), stays);
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
}
