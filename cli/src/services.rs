//! The services that rules may name: `wardctl services`.

use wardline_proto::v1::{ListServicesRequest, NamedService};

use crate::{
    exit::{Exit, Failure},
    output,
    session::Session,
    table::{cell, filled, table},
};

/// Lists the services.
///
/// # Errors
/// The router refuses or does not answer.
pub(crate) async fn services(session: &Session) -> Result<Exit, Failure> {
    let list = session
        .ask(ListServicesRequest {}, async |mut client, it| {
            client.list_services(it).await
        })
        .await?;
    output::answer(session.format, &list, |list| text(&list.services))
}

fn text(services: &[NamedService]) -> String {
    let rows = services.iter().map(|it| {
        vec![
            cell(&it.name),
            cell(it.ports.join(" ")),
            cell(&it.description),
            cell(&it.source),
        ]
    });
    filled(
        table(&["SERVICE", "PORTS", "WHAT", "SOURCE"]),
        rows,
        "services",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::uncoloured;

    #[test]
    fn a_service_is_a_line() {
        let ntp = NamedService {
            name: "ntp".to_owned(),
            ports: vec!["udp/123".to_owned()],
            description: "Time".to_owned(),
            source: "IANA ntp; RFC 5905".to_owned(),
        };
        assert_eq!(
            uncoloured(&text(&[ntp])),
            "SERVICE  PORTS    WHAT  SOURCE\nntp      udp/123  Time  IANA ntp; RFC 5905\n"
        );
    }
}
