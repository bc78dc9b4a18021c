//! Reads what the kernel has counted, learned and seen.

use std::{
    collections::{BTreeMap, HashMap},
    os::fd::AsFd as _,
};

use aya::maps::{MapError, PerCpuArray};
use wardline_ebpf::abi::{Address, Counter, Reason, gauge};
use wardline_policy::{live::Live, tables::Tables};

use crate::{
    Datapath,
    error::{DatapathError, Result, map_error},
    flow_table,
    maps::{all_at_once, data, get, total, view},
};

/// How full a table is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fill {
    /// The table.
    pub name: &'static str,
    /// Entries in use; of tables with two revisions, those of the one in force.
    pub used: u64,
    /// Entries that it can hold, counted the same way.
    pub max: u64,
}

impl Datapath {
    /// Packets and bytes by reason.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn reasons(&self) -> Result<BTreeMap<Reason, Counter>> {
        let map: PerCpuArray<_, Counter> = view(&self.ebpf, "REASONS")?;
        let at_once = all_at_once(&self.ebpf, "REASONS", Reason::COUNT as usize);
        let mut reasons = BTreeMap::new();
        for reason in Reason::ALL {
            let counter = match &at_once {
                Some(counters) => counters[reason as usize],
                None => total(&map, "REASONS", reason as u32)?,
            };
            reasons.insert(reason, counter);
        }
        Ok(reasons)
    }

    /// Packets by reason that one processor has counted.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn reasons_on(&self, processor: usize) -> Result<BTreeMap<Reason, u64>> {
        let map: PerCpuArray<_, Counter> = view(&self.ebpf, "REASONS")?;
        let mut reasons = BTreeMap::new();
        for reason in Reason::ALL {
            let counters = map.get(&(reason as u32), 0).map_err(map_error("REASONS"))?;
            let counter = counters.get(processor);
            reasons.insert(reason, counter.map_or(0, |counter| counter.packets));
        }
        Ok(reasons)
    }

    /// Packets and bytes of a rule.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    ///
    /// What belongs to a live flow is counted by the flow, until it ends.
    pub fn rules(&self, numbers: impl Iterator<Item = u32>) -> Result<Vec<Counter>> {
        let mut live: HashMap<u32, Counter> = HashMap::new();
        self.flows(|flow| {
            let (rule, due) = flow.due();
            let counter = live.entry(rule).or_default();
            counter.packets += due.packets;
            counter.bytes += due.bytes;
        })?;
        let map: PerCpuArray<_, Counter> = view(&self.ebpf, "RULES")?;
        let sum = |number| {
            let ended = total(&map, "RULES", number)?;
            let live = live.get(&number).copied().unwrap_or_default();
            Ok(Counter {
                packets: ended.packets + live.packets,
                bytes: ended.bytes + live.bytes,
            })
        };
        numbers.map(sum).collect()
    }

    /// Sets a rule's counters to zero: its number was another's before.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn reset_rule(&mut self, number: u32) -> Result<()> {
        let map = self
            .ebpf
            .map_mut("RULES")
            .ok_or(DatapathError::Missing("RULES"))?;
        let mut map: PerCpuArray<_, Counter> = map.try_into().map_err(map_error("RULES"))?;
        let zero = map.get(&number, 0).map_err(map_error("RULES"))?;
        let zero = vec![Counter::default(); zero.len()];
        let zero =
            aya::maps::PerCpuValues::try_from(zero).map_err(|source| DatapathError::Map {
                name: "RULES",
                source: source.into(),
            })?;
        map.set(number, zero, 0).map_err(map_error("RULES"))
    }

    /// A cell of [`gauge`].
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn gauge(&self, cell: u32) -> Result<u32> {
        get(&self.ebpf, "GAUGES", cell)
    }

    /// Calls with every flow in the table, timed out or not.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn flows(&self, visit: impl FnMut(&Live)) -> Result<()> {
        let map = self
            .ebpf
            .map("FLOWS")
            .ok_or(DatapathError::Missing("FLOWS"))?;
        flow_table::each(data("FLOWS", map)?.fd().as_fd(), self.buckets(), visit)
            .map_err(|source| map_error("FLOWS")(MapError::IoError(source)))
    }

    /// Learned addresses: the address, the device's number, the tick of its last use.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn learned(&self) -> Result<Vec<(Address, u32, u32)>> {
        let map: aya::maps::HashMap<_, Address, [u32; 2]> = view(&self.ebpf, "LEARNED")?;
        let mut learned = Vec::new();
        for entry in map.iter() {
            match entry {
                Ok((address, [device, last])) => learned.push((address, device, last)),
                // It was put out while the table was walked.
                Err(MapError::KeyNotFound) => {}
                Err(source) => {
                    return Err(DatapathError::Map {
                        name: "LEARNED",
                        source,
                    });
                }
            }
        }
        Ok(learned)
    }

    /// Where a device was last seen: tick and interface; none: not yet.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn seen(&self, device: u32) -> Result<Option<(u32, u32)>> {
        let [last, ifindex]: [u32; 2] = get(&self.ebpf, "SEEN", device)?;
        Ok((ifindex != 0).then_some((last, ifindex)))
    }

    /// How full the tables are.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn fill(&self) -> Result<Vec<Fill>> {
        let tables = self
            .active
            .and_then(|active| self.slots[active].tables.as_ref());
        let mut fill = self.needs(tables.unwrap_or(&Tables::default()));
        let settings = self.settings()?;
        // Processors that open at the same instant may pass the limit by one each.
        let used = u64::from(self.gauge(gauge::FLOWS)?.min(settings.flows));
        let max = u64::from(settings.flows);
        fill.push(Fill {
            name: "flows",
            used,
            max,
        });
        // They make room for others, and are counted among the flows.
        let used = u64::from(self.gauge(gauge::UNANSWERED)?.min(settings.flows));
        fill.push(Fill {
            name: "unanswered",
            used,
            max,
        });
        let learned: aya::maps::HashMap<_, Address, [u32; 2]> = view(&self.ebpf, "LEARNED")?;
        let used = learned.keys().count() as u64;
        fill.push(Fill {
            name: "learned",
            used,
            max: self.size("LEARNED"),
        });
        Ok(fill)
    }

    /// Packets that were forwarded in the driver.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn forwarded(&self) -> Result<Counter> {
        let map: PerCpuArray<_, Counter> = view(&self.ebpf, "FORWARDED")?;
        total(&map, "FORWARDED", 0)
    }
}
