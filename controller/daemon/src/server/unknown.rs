//! Who speaks and is not known, and what is known of the devices: facts, as the API returns them.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use wardline_ebpf::abi::mac_key;
use wardline_policy::{
    intent::Device,
    numbers::numbered,
    snapshot::Snapshot,
    words::mac::{Mac, mac_number},
};
use wardline_proto::{time::to_proto, v1};

use super::view::View;
use crate::{engine::refusal::Refusal, facts::Seen};

impl View {
    /// The MACs that were seen at guarded ports and that no device lists, those seen last first.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub(super) fn unknown(&self) -> Result<Vec<v1::UnknownDevice>, Refusal> {
        let current = self.state().snapshot;
        let is_listed = |mac: &Mac| {
            let entry = current.tables.macs.get(&mac_key(0, mac_number(mac)));
            entry.is_some_and(|entry| entry.device != 0)
        };
        let known = self.known.all().into_iter();
        let mut unknown: BTreeMap<Mac, Seen> = known.filter(|(mac, _)| !is_listed(mac)).collect();
        self.add_learners(&current, &mut unknown)?;
        unknown.retain(|mac, _| !is_listed(mac));
        let mut unknown: Vec<(Mac, Seen)> = unknown.into_iter().collect();
        unknown.sort_by_key(|(mac, seen)| (std::cmp::Reverse(seen.last), *mac));
        let told = unknown.into_iter().map(|(mac, seen)| {
            let drops = seen.drops.into_iter();
            let drops = drops.map(|it| v1::UnknownDrop {
                reason: it.reason,
                destination: it.destination,
                service: it.service,
                packets: it.packets,
            });
            v1::UnknownDevice {
                mac: mac.to_string(),
                vendor: self.vendors.of(&mac),
                hostname: seen.hostname,
                vendor_class: seen.vendor_class,
                port: seen.port,
                zone: seen.zone,
                vlan: seen.vlan,
                addresses: seen.addresses,
                first_seen: at(seen.first),
                last_seen: at(seen.last),
                dropped: seen.dropped,
                mud_url: seen.mud_url,
                drops: drops.collect(),
            }
        });
        Ok(told.collect())
    }

    /// Adds the MACs that speak where any is admitted: they have learned addresses.
    fn add_learners(
        &self,
        current: &Snapshot,
        unknown: &mut BTreeMap<Mac, Seen>,
    ) -> Result<(), Refusal> {
        let (tick, now) = (self.reader.tick()?, Timestamp::now());
        for learner in self.reader.learned_by_strangers()? {
            let [_, _, a, b, c, d, e, f] = learner.mac.to_be_bytes();
            let seen = unknown.entry(Mac([a, b, c, d, e, f])).or_default();
            let ago = current.clock.seconds_since(learner.last, tick);
            let ago = SignedDuration::from_secs(i64::try_from(ago).unwrap_or(i64::MAX));
            let last = now.checked_sub(ago).unwrap_or(now).as_millisecond();
            if seen.first == 0 {
                seen.first = last;
            }
            if seen.last <= last || seen.port.is_empty() {
                seen.last = last;
                current
                    .interface(learner.interface)
                    .clone_into(&mut seen.port);
                let zone = current.name(numbered::ZONE, learner.zone);
                zone.clone_into(&mut seen.zone);
            }
            let address = learner.address.to_string();
            if !seen.addresses.contains(&address) {
                seen.addresses.push(address);
            }
        }
        Ok(())
    }

    /// What is known of a device by its MACs: what the one says that was heard last.
    pub(super) fn facts(&self, device: &Device) -> v1::Facts {
        let seen = device.macs.iter().filter_map(|mac| self.known.get(mac));
        let seen = seen.max_by_key(|seen| seen.last).unwrap_or_default();
        let mut vendors = device.macs.iter().map(|mac| self.vendors.of(mac));
        v1::Facts {
            hostname: seen.hostname,
            vendor: vendors.find(|it| !it.is_empty()).unwrap_or_default(),
            vendor_class: seen.vendor_class,
            mud_url: seen.mud_url,
            parameters: seen.parameters,
        }
    }
}

fn at(millisecond: i64) -> Option<prost_types::Timestamp> {
    let time = Timestamp::from_millisecond(millisecond).ok();
    time.filter(|_| millisecond != 0).map(to_proto)
}
