//! A small ward and its tables, for the unit tests of this crate.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use jiff::Timestamp;
use wardline_proto::{document, v1::Policy};

use crate::{
    clock::Clock,
    compile::compile,
    intent::Intent,
    inventory::{Inventory, Link},
    limits::Limits,
    numbers::{Ids, number, number_of, numbered},
    quarantine::Quarantine,
    tables::Tables,
};

/// Two zones, of which one observes; a device with addresses in each, and one that learns its own.
const DOCUMENT: &str = r#"
version: 1
zones:
  - {name: pumps, subnets: [10.1.0.0/16]}
  - {name: cameras, subnets: [10.2.0.0/16], mode: observe}
ports:
  - {interface: lan1, zone: pumps}
  - {interface: lan2, zone: cameras}
devices:
  - {name: pump, zone: pumps, macs: ["02:00:00:00:01:01"], addresses: [10.1.0.11, 10.1.0.12]}
  - {name: visitor, zone: pumps, macs: ["02:00:00:00:01:02"]}
  - {name: camera, zone: cameras, macs: ["02:00:00:00:02:01"], addresses: [10.2.0.11]}
rules:
  - {name: web, from: [zone:pumps], to: ["cidr:192.0.2.0/24"], services: [tcp/443], action: allow}
"#;

pub(crate) const LAN1: u32 = 11;
pub(crate) const LAN2: u32 = 12;
/// A bridge above `lan1`.
pub(crate) const BRIDGE: u32 = 13;
/// An interface that no port names.
pub(crate) const UPLINK: u32 = 14;

/// A document, and everything made from it.
pub(crate) struct Ward {
    pub(crate) policy: Policy,
    pub(crate) intent: Intent,
    pub(crate) inventory: Inventory,
    pub(crate) ids: Ids,
    pub(crate) clock: Clock,
    pub(crate) tables: Tables,
}

impl Ward {
    /// The ward with a change to its document, and devices in quarantine.
    pub(crate) fn new(change: impl FnOnce(&mut Policy), quarantined: &[&str]) -> Self {
        let (mut policy, problems) = document::parse(DOCUMENT);
        assert!(problems.is_empty(), "{problems:?}");
        change(&mut policy);
        let limits = Limits::default();
        let intent = Intent::from_policy(&policy, &limits, Timestamp::UNIX_EPOCH).unwrap();
        let ids = number(&intent, &Ids::new(), &limits).unwrap();
        let link = |(number, name, controller): (u32, &str, Option<u32>)| Link {
            number,
            ifindex: number,
            name: name.to_owned(),
            mac: None,
            permanent: None,
            up: true,
            controller,
            parent: None,
            vlan: None,
            kind: None,
            header: Default::default(),
        };
        let links = [
            (LAN1, "lan1", Some(BRIDGE)),
            (LAN2, "lan2", None),
            (BRIDGE, "br0", None),
            (UPLINK, "uplink", None),
        ];
        let inventory = Inventory {
            links: links.map(|of| (of.0, link(of))).into(),
            addresses: ["10.1.0.1".parse().unwrap()].into(),
            ..Inventory::default()
        };
        let clock = Clock {
            now: Timestamp::UNIX_EPOCH,
            jiffies: 1 << 32,
            per_second: 250,
        };
        let quarantined: BTreeSet<String> =
            quarantined.iter().map(|name| (*name).to_owned()).collect();
        let quarantined = quarantined.into();
        let tables = compile(&intent, &inventory, &ids, &quarantined, &clock);
        Self {
            policy,
            intent,
            inventory,
            ids,
            clock,
            tables,
        }
    }

    /// The tables for other interfaces, with nothing in quarantine.
    pub(crate) fn compiled(&self, inventory: &Inventory) -> Tables {
        compile(
            &self.intent,
            inventory,
            &self.ids,
            &Quarantine::default(),
            &self.clock,
        )
    }

    pub(crate) fn zone(&self, name: &str) -> u32 {
        number_of(&self.ids, numbered::ZONE, name)
    }

    pub(crate) fn device(&self, name: &str) -> u32 {
        number_of(&self.ids, numbered::DEVICE, name)
    }

    pub(crate) fn rule(&self, name: &str) -> u32 {
        number_of(&self.ids, numbered::RULE, name)
    }
}
