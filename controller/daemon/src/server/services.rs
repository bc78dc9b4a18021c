//! The services that rules may name.

use std::collections::BTreeMap;

use wardline_policy::catalogue::CATALOGUE;
use wardline_proto::v1;

use super::view::View;

/// The source of a service that the document declares.
const DOCUMENT: &str = "document";

impl View {
    /// The services of the document in force, and those of the catalogue whose names it does not have.
    pub(super) fn services(&self) -> Vec<v1::NamedService> {
        let policy = self.state().snapshot.policy.clone();
        let own = policy.services.iter().map(|it| v1::NamedService {
            name: it.name.clone(),
            ports: it.ports.clone(),
            description: it.description.clone(),
            source: DOCUMENT.to_owned(),
        });
        let known = CATALOGUE.iter().map(|it| v1::NamedService {
            name: it.name.to_owned(),
            ports: it.ports.iter().map(|port| (*port).to_owned()).collect(),
            description: it.description.to_owned(),
            source: it.source.to_owned(),
        });
        // The later of two with one name stays: the document's own.
        let all = known.chain(own).map(|it| (it.name.clone(), it));
        all.collect::<BTreeMap<_, _>>().into_values().collect()
    }
}
