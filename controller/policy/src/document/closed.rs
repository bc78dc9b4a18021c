//! The document that lets nothing pass at some ports: for a router that has lost its policy.

use wardline_proto::v1::{Port, Zone};

use super::Document;

/// The zone of the ports that are closed.
pub const ZONE: &str = "closed";

/// A document by which nothing enters or leaves through these interfaces, but what the router's
/// failsafe admits and the router's own control of the link.
pub fn closed<'a>(interfaces: impl IntoIterator<Item = &'a str>) -> Document {
    let port = |interface: &str| Port {
        interface: interface.to_owned(),
        zone: ZONE.to_owned(),
        ..Port::default()
    };
    Document {
        version: 1,
        zones: vec![Zone {
            name: ZONE.to_owned(),
            ..Zone::default()
        }],
        ports: interfaces.into_iter().map(port).collect(),
        ..Document::default()
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::{intent::Intent, limits::Limits};

    #[test]
    fn it_can_be_read_and_has_each_port_and_no_rule() {
        let document = closed(["lan1", "wg0"]);
        let intent = Intent::from_policy(&document, &Limits::default(), Timestamp::UNIX_EPOCH).ok();
        let intent = intent.expect("a document without problems");
        assert!(intent.port_for("lan1").is_some() && intent.port_for("wg0").is_some());
        assert!(intent.port_for("wan0").is_none());
        assert!(intent.rules.is_empty() && !intent.zones[0].admit_any);
    }
}
