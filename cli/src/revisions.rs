//! The history: confirm, rollback and history.

use wardline_proto::v1::{
    ConfirmRequest, GetStatusRequest, ListRevisionsRequest, ListRevisionsResponse, RollbackRequest,
};

use crate::{
    args::{Confirm, Limit, Rollback},
    exit::{Exit, Failure},
    humane::{Clock, time},
    output,
    policy::changed,
    session::Session,
    table::{cell, filled, table},
};

/// Keeps a pending change.
///
/// # Errors
/// Nothing is pending, or the router refuses or does not answer.
pub(crate) async fn confirm(session: &Session, args: Confirm) -> Result<Exit, Failure> {
    let revision = match args.revision {
        Some(revision) => revision,
        None => pending(session).await?,
    };
    let request = ConfirmRequest { revision };
    let change = session
        .ask(request, async |mut client, it| client.confirm(it).await)
        .await?;
    changed(session, &change)
}

/// The revision that waits for its confirmation.
async fn pending(session: &Session) -> Result<u64, Failure> {
    let request = GetStatusRequest {};
    let status = session
        .ask(request, async |mut client, it| client.get_status(it).await)
        .await?;
    let none = || Failure::refused("no change waits for a confirmation");
    status.pending.map(|it| it.revision).ok_or_else(none)
}

/// Returns to an earlier revision.
///
/// # Errors
/// The revision does not exist, or the router refuses or does not answer.
pub(crate) async fn rollback(session: &Session, args: Rollback) -> Result<Exit, Failure> {
    let revision = args.revision.unwrap_or_default();
    let request = RollbackRequest {
        revision,
        reason: args.why.reason,
    };
    let change = session
        .ask(request, async |mut client, it| client.rollback(it).await)
        .await?;
    changed(session, &change)
}

/// Lists the accepted changes.
///
/// # Errors
/// The router refuses or does not answer.
pub(crate) async fn history(session: &Session, args: Limit) -> Result<Exit, Failure> {
    let request = ListRevisionsRequest {
        limit: args.limit.unwrap_or_default(),
    };
    let list = session
        .ask(request, async |mut client, it| {
            client.list_revisions(it).await
        })
        .await?;
    output::answer(session.format, &list, |list| {
        history_text(list, &Clock::system())
    })
}

fn history_text(list: &ListRevisionsResponse, clock: &Clock) -> String {
    let rows = list.revisions.iter().map(|it| {
        let time = time(it.time.as_ref());
        vec![
            cell(it.revision.to_string()),
            cell(time.map(|time| clock.local(time)).unwrap_or_default()),
            cell(time.map(|time| clock.distance(time)).unwrap_or_default()),
            cell(&it.kind),
            cell(format!("+{} ~{} -{}", it.added, it.changed, it.removed)),
            cell(&it.actor),
            cell(&it.subject),
            cell(&it.reason),
        ]
    });
    let columns = table(&[
        "REVISION>",
        "TIME",
        "AGE",
        "KIND",
        "CHANGES",
        "ACTOR",
        "WHOM",
        "REASON",
    ]);
    filled(columns, rows, "revisions")
}

#[cfg(test)]
mod tests {
    use jiff::{Timestamp, tz::TimeZone};
    use wardline_proto::v1::Revision;

    use super::*;
    use crate::table::uncoloured;

    #[test]
    fn history_is_one_line_a_revision() {
        let clock = Clock {
            now: Timestamp::constant(400, 0),
            zone: TimeZone::UTC,
        };
        let revision = Revision {
            revision: 12,
            parent: 11,
            time: Some(prost_types::Timestamp {
                seconds: 100,
                nanos: 0,
            }),
            actor: "uid:0".to_owned(),
            reason: "ward\n3".to_owned(),
            kind: "apply".to_owned(),
            request_id: String::new(),
            added: 1,
            changed: 0,
            removed: 2,
            subject: "device/pump-1".to_owned(),
        };
        let list = ListRevisionsResponse {
            revisions: vec![revision],
        };
        assert_eq!(
            uncoloured(&history_text(&list, &clock)),
            "REVISION  TIME                 AGE     KIND   CHANGES   ACTOR  WHOM           REASON\n      \
             12  1970-01-01 00:01:40  5m ago  apply  +1 ~0 -2  uid:0  device/pump-1  ward\\n3\n"
        );
    }
}
