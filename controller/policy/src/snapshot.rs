//! One revision in force, with everything that readers need. Never changed, only replaced; large
//! parts are shared with the snapshot before.

use std::{collections::BTreeMap, sync::Arc};

use wardline_ebpf::abi::{Address, End, Failsafe};

use crate::{
    clock::Clock,
    document::Document,
    intent::Intent,
    inventory::Inventory,
    numbers::{Ids, numbered},
    quarantine::Quarantine,
    tables::{Amendment, Tables},
};

/// One revision in force, on the interfaces that exist.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The revision; 0: none.
    pub revision: u64,
    /// Its document.
    pub policy: Arc<Document>,
    /// The document after it was read.
    pub intent: Arc<Intent>,
    /// The interfaces and addresses that exist.
    pub inventory: Arc<Inventory>,
    /// What is in quarantine.
    pub quarantined: Quarantine,
    /// Numbers of everything that has one.
    pub ids: Arc<Ids>,
    /// The compiled tables.
    pub tables: Arc<Tables>,
    /// Entries of the maps that were amended since.
    pub amended: Amendment,
    /// The kernel's time.
    pub clock: Clock,
    /// Hosts that may always reach the router; none unless it is set.
    pub failsafe: Arc<[Failsafe]>,
    names: Arc<BTreeMap<(&'static str, u32), String>>,
}

impl Snapshot {
    /// A snapshot, with names for the numbers; `before` has them already when the numbers are the
    /// same.
    #[expect(clippy::too_many_arguments, reason = "each is a field")]
    pub fn new(
        revision: u64,
        policy: impl Into<Arc<Document>>,
        intent: impl Into<Arc<Intent>>,
        inventory: impl Into<Arc<Inventory>>,
        quarantined: Quarantine,
        ids: impl Into<Arc<Ids>>,
        tables: impl Into<Arc<Tables>>,
        clock: Clock,
        before: Option<&Self>,
    ) -> Self {
        let ids = ids.into();
        let names = match before.filter(|before| Arc::ptr_eq(&before.ids, &ids)) {
            Some(before) => Arc::clone(&before.names),
            None => Arc::new(names(&ids)),
        };
        Self {
            revision,
            policy: policy.into(),
            intent: intent.into(),
            inventory: inventory.into(),
            quarantined,
            ids,
            tables: tables.into(),
            amended: Amendment::default(),
            clock,
            failsafe: Arc::default(),
            names,
        }
    }

    /// The name for a number, even if only an earlier revision had it; empty: none.
    pub fn name(&self, kind: &'static str, number: u32) -> &str {
        self.names.get(&(kind, number)).map_or("", String::as_str)
    }

    /// What the tables say of an address: its device, and its zone; none: they do not know it. What the
    /// kernel has learned is not in them.
    pub fn end(&self, address: Address) -> Option<End> {
        let amended = self.amended.addresses.get(&address);
        let exact = amended.or_else(|| self.tables.addresses.get(&address));
        exact.or_else(|| self.prefix(address)).copied()
    }

    /// The longest prefix that has an address.
    fn prefix(&self, address: Address) -> Option<&End> {
        let number = u128::from_be_bytes(address.octets());
        (0..=128u32).rev().find_map(|length| {
            let mask = u128::MAX.checked_shl(128 - length).unwrap_or(0);
            let network = Address::v6(&(number & mask).to_be_bytes());
            self.tables.prefixes.get(&(network, length as u8))
        })
    }

    /// The name of an interface; empty when it is gone.
    pub fn interface(&self, index: u32) -> &str {
        self.inventory
            .links
            .get(&index)
            .map_or("", |link| link.name.as_str())
    }
}

/// The names that numbers stand for.
fn names(ids: &Ids) -> BTreeMap<(&'static str, u32), String> {
    let kinds = [
        numbered::ZONE,
        numbered::DEVICE,
        numbered::RULE,
        numbered::NAME,
    ];
    let names = ids.iter().filter_map(|((kind, name), number)| {
        let kind = kinds.into_iter().find(|known| known == kind)?;
        Some(((kind, *number), name.clone()))
    });
    names.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ward::{LAN1, Ward};

    fn snapshot(ward: Ward, ids: &Arc<Ids>, before: Option<&Snapshot>) -> Snapshot {
        let quarantined = Quarantine::default();
        Snapshot::new(
            7,
            ward.policy,
            ward.intent,
            ward.inventory,
            quarantined,
            Arc::clone(ids),
            ward.tables,
            ward.clock,
            before,
        )
    }

    #[test]
    fn numbers_have_names_also_of_what_is_gone() {
        let ward = Ward::new(|_| (), &[]);
        let (pump, web, pumps) = (ward.device("pump"), ward.rule("web"), ward.zone("pumps"));
        let ids = Arc::new(ward.ids.clone());
        let first = snapshot(ward, &ids, None);
        let fewer = Ward::new(|policy| policy.rules.clear(), &[]);
        let next = snapshot(fewer, &ids, Some(&first));
        for snapshot in [&first, &next] {
            assert_eq!(snapshot.name(numbered::DEVICE, pump), "pump");
            assert_eq!(snapshot.name(numbered::RULE, web), "web");
            assert_eq!(snapshot.name(numbered::ZONE, pumps), "pumps");
            assert_eq!(snapshot.name(numbered::RULE, 99), "");
            assert_eq!(snapshot.interface(LAN1), "lan1");
            assert_eq!(snapshot.interface(99), "");
        }
        assert!(Arc::ptr_eq(&first.names, &next.names));
    }

    #[test]
    fn other_numbers_have_names_of_their_own() {
        let ward = Ward::new(|_| (), &[]);
        let first = snapshot(ward, &Arc::default(), None);
        assert_eq!(first.name(numbered::DEVICE, 2), "");
        let ward = Ward::new(|_| (), &[]);
        let (number, ids) = (ward.device("pump"), Arc::new(ward.ids.clone()));
        let next = snapshot(ward, &ids, Some(&first));
        assert_eq!(next.name(numbered::DEVICE, number), "pump");
    }
}
