//! The names in rules and their addresses: `wardctl names`.

use wardline_proto::v1::{KnownName, ListNamesRequest};

use crate::{
    exit::{Exit, Failure},
    humane::{Clock, time},
    output,
    session::Session,
    table::{cell, filled, table},
};

/// Lists the names.
///
/// # Errors
/// The router refuses or does not answer.
pub(crate) async fn names(session: &Session) -> Result<Exit, Failure> {
    let list = session
        .ask(ListNamesRequest {}, async |mut client, it| {
            client.list_names(it).await
        })
        .await?;
    output::answer(session.format, &list, |list| text(&list.names))
}

fn text(names: &[KnownName]) -> String {
    let clock = Clock::system();
    let rows = names.iter().flat_map(|it| {
        let rules = it.rules.join(" ");
        let none = it.addresses.is_empty().then(|| {
            let name = cell(&it.name);
            vec![
                name,
                cell("-"),
                cell("-"),
                cell("-"),
                cell("-"),
                cell(&rules),
            ]
        });
        let known = it.addresses.iter().map(|known| {
            vec![
                cell(&it.name),
                cell(&known.address),
                cell(time(known.until.as_ref()).map_or_else(String::new, |it| clock.distance(it))),
                cell(&known.resolver),
                cell(&known.asker),
                cell(&rules),
            ]
        });
        none.into_iter().chain(known).collect::<Vec<_>>()
    });
    filled(
        table(&["NAME", "ADDRESS", "UNTIL", "FROM", "ASKED BY", "RULES"]),
        rows,
        "names in rules",
    )
}
