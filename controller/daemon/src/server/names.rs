//! The names in rules, and the addresses that resolvers have given for them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::Path,
};

use jiff::{SignedDuration, Timestamp};
use tracing::warn;
use wardline_datapath::{error::DatapathError, names::Known};
use wardline_ebpf::abi::{Address, TICK_SHIFT, gauge};
use wardline_policy::{clock::Clock, intent::Selector, numbers::numbered};
use wardline_proto::{time::to_proto, v1};

use super::view::View;
use crate::{
    engine::refusal::Refusal,
    store::names::{self, Remembered},
};

/// When a tick comes.
fn time_of(tick: u32, clock: &Clock) -> Timestamp {
    let now = (clock.jiffies >> TICK_SHIFT) as u32;
    let ticks = i64::from(tick.wrapping_sub(now) as i32);
    let milliseconds = (ticks << TICK_SHIFT) * 1000 / i64::from(clock.per_second.max(1));
    let left = SignedDuration::from_millis(milliseconds);
    clock.now.checked_add(left).unwrap_or(Timestamp::MAX)
}

impl View {
    /// Every name of a rule, with its addresses that count.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub(super) fn names(&self) -> Result<Vec<v1::KnownName>, Refusal> {
        let current = self.state().snapshot;
        let clock = self.reader.clock()?;
        let mut addresses: BTreeMap<u32, Vec<v1::NameAddress>> = BTreeMap::new();
        let owner = |address: IpAddr| {
            let end = current.tables.addresses.get(&Address::from(address));
            let device = end.map_or(0, |end| end.device);
            match current.name(numbered::DEVICE, device) {
                "" => address.to_string(),
                name => name.to_owned(),
            }
        };
        for Known { selector, named } in self.reader.known_names()? {
            let until = time_of(named.until, &clock);
            if until <= clock.now {
                continue;
            }
            addresses
                .entry(selector)
                .or_default()
                .push(v1::NameAddress {
                    address: IpAddr::from(named.address).to_string(),
                    until: Some(to_proto(until)),
                    resolver: IpAddr::from(named.resolver).to_string(),
                    asker: owner(IpAddr::from(named.asker)),
                });
        }
        let mut rules: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
        for rule in &current.intent.rules {
            for selector in &rule.to {
                if let Selector::Name(name) = selector {
                    rules
                        .entry(name.to_string())
                        .or_default()
                        .insert(&rule.name);
                }
            }
        }
        let number = |name: &String| {
            let key = (numbered::NAME.to_owned(), name.clone());
            current.ids.get(&key).copied().unwrap_or(0)
        };
        let known = rules.into_iter().map(|(name, rules)| {
            let mut own = addresses.remove(&number(&name)).unwrap_or_default();
            own.sort_by(|a, b| a.address.cmp(&b.address));
            v1::KnownName {
                name,
                addresses: own,
                rules: rules.into_iter().map(ToOwned::to_owned).collect(),
            }
        });
        Ok(known.collect())
    }

    /// What there was no room for, as warnings.
    pub(super) fn name_warnings(&self) -> Result<Vec<String>, DatapathError> {
        let told = [
            (
                gauge::NAMES_NO_ROOM,
                "addresses of names found no room in the table of all names",
            ),
            (
                gauge::NAMES_CUT_SHORT,
                "addresses of names gave way to others before their end: a name has more than \
                 limits.addresses_per_name, or an address more names than fit",
            ),
        ];
        let mut warnings = Vec::new();
        for (cell, what) in told {
            let count = self.reader.gauge(cell)?;
            if count != 0 {
                warnings.push(format!("{count} {what}"));
            }
        }
        Ok(warnings)
    }

    /// Forgets addresses of names that are long over, and remembers the others for the time after a reboot.
    /// Blocks.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn keep_names(
        &self,
        state_dir: &Path,
        before: &mut Vec<Remembered>,
    ) -> Result<(), DatapathError> {
        self.reader.keep_names()?;
        let current = self.state().snapshot;
        let clock = self.reader.clock()?;
        let known = self.reader.known_names()?.into_iter();
        let mut known: Vec<Remembered> = known
            .filter_map(|Known { selector, named }| {
                let until = time_of(named.until, &clock);
                let name = current.name(numbered::NAME, selector);
                (until > clock.now && !name.is_empty()).then(|| Remembered {
                    name: name.to_owned(),
                    address: named.address.into(),
                    resolver: named.resolver.into(),
                    asker: named.asker.into(),
                    until: until.round(jiff::Unit::Second).unwrap_or(until),
                })
            })
            .collect();
        known.sort_by(|a, b| (&a.name, a.address).cmp(&(&b.name, b.address)));
        if known != *before {
            match names::write(state_dir, &known) {
                Ok(()) => *before = known,
                Err(error) => {
                    warn!(%error, "names that are known can't be kept for the next start")
                }
            }
        }
        Ok(())
    }
}
