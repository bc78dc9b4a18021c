//! What a service is called: by the document first, then by the catalogue.

use std::sync::Arc;

use wardline_policy::{catalogue::CATALOGUE, document::Document, words::service::Service};

/// More keys than this are a range that says nothing of what a packet asks for.
const WIDE: u32 = 1000;

/// The names of one document and of the catalogue.
#[derive(Debug, Default)]
pub(super) struct ServiceNames {
    /// Whose names these are.
    of: Option<Arc<Document>>,
    /// In the order in which they are tried.
    names: Vec<(Service, String)>,
}

impl ServiceNames {
    /// The name of the service with this key; empty: it has none.
    pub(super) fn name(&mut self, policy: &Arc<Document>, key: u32) -> &str {
        if !self
            .of
            .as_ref()
            .is_some_and(|known| Arc::ptr_eq(known, policy))
        {
            self.names = names(policy);
            self.of = Some(Arc::clone(policy));
        }
        let found = self
            .names
            .iter()
            .find(|(service, _)| (service.first..=service.last).contains(&key));
        found.map_or("", |(_, name)| name)
    }
}

/// The names of a document first, then those of the catalogue; of each the narrower first.
fn names(policy: &Document) -> Vec<(Service, String)> {
    let own = policy.services.iter().flat_map(|it| {
        let parsed = it.ports.iter().filter_map(|port| port.parse().ok());
        parsed.map(|service: Service| (0, service, it.name.clone()))
    });
    let known = CATALOGUE.iter().flat_map(|it| {
        it.services()
            .map(|service| (1, service, it.name.to_owned()))
    });
    let mut all: Vec<_> = own.chain(known).collect();
    all.retain(|(_, service, _)| service.last - service.first < WIDE);
    all.sort_by_key(|(source, service, _)| (*source, service.last - service.first));
    all.into_iter()
        .map(|(_, service, name)| (service, name))
        .collect()
}

#[cfg(test)]
mod tests {
    use wardline_proto::document;

    use super::*;

    const SERVICES: &str = r"
version: 1
services:
- {name: all, ports: [tcp/*]}
- {name: records, ports: [tcp/440-450]}
- {name: portal, ports: [tcp/443, tcp/8443]}
";

    #[test]
    fn the_documents_names_come_first_and_narrow_ones_before_wide_ones() {
        let (policy, problems) = document::parse(SERVICES);
        assert_eq!(problems, []);
        let policy = Arc::new(policy);
        let mut names = ServiceNames::default();
        for (key, expected) in [(443, "portal"), (444, "records"), (5672, "amqp"), (9, "")] {
            assert_eq!(names.name(&policy, 6 << 16 | key), expected, "{key}");
        }
        let other = Arc::new(Document::default());
        assert_eq!(names.name(&other, 6 << 16 | 443), "https");
    }
}
