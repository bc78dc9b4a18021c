//! The interfaces of the router: `wardctl interfaces`.

use wardline_proto::v1::{Attached, InterfaceStatus, ListInterfacesRequest};

use crate::{
    exit::{Exit, Failure},
    humane::{printable, word},
    output,
    session::Session,
    table::{cell, filled, judged, table},
};

/// Lists every interface.
///
/// # Errors
/// The router refuses or does not answer.
pub(crate) async fn interfaces(session: &Session) -> Result<Exit, Failure> {
    let list = session
        .ask(ListInterfacesRequest {}, async |mut client, it| {
            client.list_interfaces(it).await
        })
        .await?;
    output::answer(session.format, &list, |list| text(&list.interfaces))
}

fn text(interfaces: &[InterfaceStatus]) -> String {
    let or_dash = |text: &str| if text.is_empty() { "-" } else { text }.to_owned();
    let rows = interfaces.iter().map(|it| {
        let guarded = word(it.guarded().as_str_name(), "ATTACHED_");
        let good = it.guarded() != Attached::None || it.exposes.is_empty();
        vec![
            cell(&it.name),
            cell(it.index.to_string()),
            cell(&it.kind),
            judged(guarded, good),
            cell(or_dash(&it.port)),
            cell(or_dash(&it.zone)),
            cell(&it.reason),
        ]
    });
    let columns = table(&[
        "INTERFACE",
        "INDEX>",
        "KIND",
        "GUARDED",
        "PORT",
        "ZONE",
        "REASON",
    ]);
    let mut text = filled(columns, rows, "interfaces");
    for it in interfaces.iter().filter(|it| !it.exposes.is_empty()) {
        text += &format!("\n{}:\n", printable(&it.name));
        let lines = it.exposes.iter();
        let lines = lines.map(|exposed| format!("  {}\n", printable(exposed)));
        text.extend(lines);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::uncoloured;

    #[test]
    fn what_an_interface_exposes_is_below_the_table() {
        let lan1 = InterfaceStatus {
            name: "lan1".to_owned(),
            index: 3,
            kind: "veth".to_owned(),
            guarded: Attached::Xdp.into(),
            port: "lan*".to_owned(),
            zone: "pumps".to_owned(),
            ..Default::default()
        };
        let wan0 = InterfaceStatus {
            name: "wan0".to_owned(),
            index: 12,
            kind: "hardware".to_owned(),
            guarded: Attached::None.into(),
            reason: "no port of the document has it".to_owned(),
            exposes: vec!["the router's services are open: tcp/22".to_owned()],
            ..Default::default()
        };
        assert_eq!(
            uncoloured(&text(&[lan1, wan0])),
            "INTERFACE  INDEX  KIND      GUARDED  PORT  ZONE   REASON\n\
             lan1           3  veth      xdp      lan*  pumps\n\
             wan0          12  hardware  none     -     -      no port of the document has it\n\n\
             wan0:\n  \
             the router's services are open: tcp/22\n"
        );
    }
}
