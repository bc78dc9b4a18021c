//! Reads the kernel's state: flows, counters and time.
//!
//! A reader has its own descriptors. Any number of threads may use it at the same time, and readers
//! and the thread that changes the maps never wait for each other.

use std::{
    collections::{BTreeMap, HashMap},
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
    time::{Duration, Instant},
};

use aya::{
    Ebpf, Pod,
    maps::{Array, Map, MapError, PerCpuArray},
    programs::SchedClassifier,
};
use jiff::Timestamp;
use wardline_ebpf::abi::{Counter, Interval, Reason, Settings, TICK_SHIFT, gauge};
use wardline_policy::{clock::Clock, live::Live, tables::Tables};

use crate::{
    bpf,
    error::{DatapathError, Result, map_error, pin_error, program_error},
    flow_table,
    maps::{data, duplicate, program, total},
};

/// How full a table is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fill {
    /// The table.
    pub name: &'static str,
    /// Entries in use; for tables with two revisions, those of the one in force.
    pub used: u64,
    /// Entries that it can hold, counted the same way.
    pub max: u64,
}

/// The only maps that a reader opens.
const READ: [&str; 13] = [
    "CLOCK",
    "FLOWS",
    "FORWARDED",
    "GAUGES",
    "HELD",
    "LEARNED",
    "LEARNED_AT",
    "NAMED",
    "REASONS",
    "RESOLVED",
    "RULES",
    "SEEN",
    "SETTINGS",
];

/// Reads the kernel's maps.
pub struct Reader {
    maps: BTreeMap<&'static str, Map>,
    /// The program that returns the kernel's time.
    clock: OwnedFd,
    /// How many entries each map can hold.
    sizes: HashMap<String, u32>,
    pub(crate) per_second: u32,
}

impl Reader {
    /// Makes a reader of the loaded maps; `sizes` says how many entries each can hold.
    pub(crate) fn new(ebpf: &mut Ebpf, sizes: HashMap<String, u32>) -> Result<Self> {
        let duplicate = |name: &'static str| {
            let map = ebpf.map(name).ok_or(DatapathError::Missing(name))?;
            Ok((name, duplicate(name, map)?))
        };
        let maps = READ.into_iter().map(duplicate).collect::<Result<_>>()?;
        let clock = program::<SchedClassifier>(ebpf, "clock")?;
        let clock = clock.fd().map_err(program_error("clock"))?;
        let clock = clock.as_fd().try_clone_to_owned();
        let mut reader = Self {
            maps,
            clock: clock.map_err(pin_error(Path::new("clock")))?,
            sizes,
            per_second: 0,
        };
        reader.per_second = reader.measure_jiffies()?;
        Ok(reader)
    }

    /// The kernel's time.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn clock(&self) -> Result<Clock> {
        let jiffies = self.jiffies()?;
        Ok(Clock {
            now: Timestamp::now(),
            jiffies,
            per_second: self.per_second,
        })
    }

    /// The current tick.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn tick(&self) -> Result<u32> {
        Ok((self.jiffies()? >> TICK_SHIFT) as u32)
    }

    /// The settings that hold for every packet.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn settings(&self) -> Result<Settings> {
        self.get("SETTINGS", 0)
    }

    /// Buckets of the flow table.
    pub fn buckets(&self) -> u32 {
        self.size("FLOWS") as u32
    }

    /// Entries that the table of places can hold for one revision.
    pub fn places(&self) -> usize {
        self.size("PLACES") as usize / 2
    }

    pub(crate) fn size(&self, name: &str) -> u64 {
        u64::from(self.sizes.get(name).copied().unwrap_or(0))
    }

    /// Packets and bytes by reason.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn reasons(&self) -> Result<BTreeMap<Reason, Counter>> {
        let map: PerCpuArray<_, Counter> = self.view("REASONS")?;
        let at_once = self.all_at_once("REASONS", Reason::COUNT as usize);
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
        let map: PerCpuArray<_, Counter> = self.view("REASONS")?;
        let mut reasons = BTreeMap::new();
        for reason in Reason::ALL {
            let counters = map.get(&(reason as u32), 0).map_err(map_error("REASONS"))?;
            let counter = counters.get(processor);
            reasons.insert(reason, counter.map_or(0, |counter| counter.packets));
        }
        Ok(reasons)
    }

    /// Packets and bytes of each of these rules. Packets of a live flow are read from the flow,
    /// which counts them for its rule until it ends.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn rules(&self, numbers: impl Iterator<Item = u32>) -> Result<Vec<Counter>> {
        let mut live: HashMap<u32, Counter> = HashMap::new();
        self.flows(|flow| {
            let (rule, due) = flow.due();
            let counter = live.entry(rule).or_default();
            counter.packets += due.packets;
            counter.bytes += due.bytes;
        })?;
        let map: PerCpuArray<_, Counter> = self.view("RULES")?;
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

    /// A cell of [`gauge`].
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn gauge(&self, cell: u32) -> Result<u32> {
        self.get("GAUGES", cell)
    }

    /// Calls a function with every flow in the table, even if it has timed out.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn flows(&self, visit: impl FnMut(&Live)) -> Result<()> {
        let map = data("FLOWS", self.map("FLOWS")?)?;
        flow_table::each(map.fd().as_fd(), self.buckets(), visit)
            .map_err(|source| map_error("FLOWS")(MapError::IoError(source)))
    }

    /// Where a device was last seen: tick and interface; none: never.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn seen(&self, device: u32) -> Result<Option<(u32, u32)>> {
        let [last, ifindex]: [u32; 2] = self.get("SEEN", device)?;
        Ok((ifindex != 0).then_some((last, ifindex)))
    }

    /// How full the tables are; `tables` are those in force.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn fill(&self, tables: &Tables) -> Result<Vec<Fill>> {
        let mut fill = self.needs(tables);
        let settings = self.settings()?;
        // Processors that open flows at the same instant may exceed the limit by one each.
        let used = u64::from(self.gauge(gauge::FLOWS)?.min(settings.flows));
        let max = u64::from(settings.flows);
        fill.push(Fill {
            name: "flows",
            used,
            max,
        });
        // Unanswered flows can be evicted, and are also counted among the flows.
        let used = u64::from(self.gauge(gauge::UNANSWERED)?.min(settings.flows));
        fill.push(Fill {
            name: "unanswered",
            used,
            max,
        });
        let max = self.size("LEARNED");
        fill.push(Fill {
            name: "learned",
            used: u64::from(self.gauge(gauge::LEARNED)?).min(max),
            max,
        });
        let max = self.size("NAMED");
        fill.push(Fill {
            name: "name_addresses",
            used: u64::from(self.gauge(gauge::NAMED)?).min(max),
            max,
        });
        Ok(fill)
    }

    /// Packets that were forwarded in the driver.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn forwarded(&self) -> Result<Counter> {
        let map: PerCpuArray<_, Counter> = self.view("FORWARDED")?;
        total(&map, "FORWARDED", 0)
    }

    /// How full tables would be, and how much each can hold for one revision.
    pub fn needs(&self, tables: &Tables) -> Vec<Fill> {
        let one = |name: &str| self.size(name) / 2;
        let intervals: BTreeMap<*const Interval, usize> = tables
            .pairs
            .values()
            .map(|list| (list.as_ptr(), list.len()))
            .collect();
        let fill = |name, used: usize, max| Fill {
            name,
            used: used as u64,
            max,
        };
        vec![
            fill("macs", tables.macs.len(), one("MACS")),
            fill("addresses", tables.addresses.len(), one("ADDRESSES")),
            fill(
                "prefixes",
                tables.prefixes.len() + tables.shares.len(),
                one("PREFIXES"),
            ),
            fill("names", tables.names.len(), self.size("NAMES")),
            fill("places", tables.places.len(), one("PLACES")),
            fill("pairs", tables.pairs.len(), one("PAIRS")),
            fill("intervals", intervals.values().sum(), one("INTERVALS")),
        ]
    }

    /// The kernel's time, in jiffies.
    pub(crate) fn jiffies(&self) -> Result<u64> {
        bpf::run(self.clock.as_fd(), &[0; 14]).map_err(|source| DatapathError::Run {
            name: "clock",
            source,
        })?;
        self.get("CLOCK", 0)
    }

    /// Measures the jiffies in a second; kernels are built with one of a few values.
    fn measure_jiffies(&self) -> Result<u32> {
        const BUILT_WITH: [u32; 4] = [100, 250, 300, 1000];
        let (start, from) = (Instant::now(), self.jiffies()?);
        std::thread::sleep(Duration::from_millis(150));
        let (to, elapsed) = (self.jiffies()?, start.elapsed());
        let measured = (to - from) as f64 / elapsed.as_secs_f64();
        let nearest = |rate: &u32| (f64::from(*rate) / measured).ln().abs();
        let by_distance = |a: &u32, b: &u32| nearest(a).total_cmp(&nearest(b));
        Ok(BUILT_WITH.into_iter().min_by(by_distance).unwrap_or(250))
    }

    pub(crate) fn map(&self, name: &'static str) -> Result<&Map> {
        self.maps.get(name).ok_or(DatapathError::Missing(name))
    }

    fn view<'a, M>(&'a self, name: &'static str) -> Result<M>
    where
        M: TryFrom<&'a Map, Error = MapError>,
    {
        self.map(name)?.try_into().map_err(map_error(name))
    }

    fn get<V: Pod>(&self, name: &'static str, index: u32) -> Result<V> {
        let map: Array<_, V> = self.view(name)?;
        map.get(&index, 0).map_err(map_error(name))
    }

    /// All counters of an array in one call; none where the kernel lacks that call for it, before
    /// 5.13.
    fn all_at_once(&self, name: &'static str, count: usize) -> Option<Vec<Counter>> {
        let map = data(name, self.map(name).ok()?).ok()?;
        let processors = aya::util::nr_cpus().ok()?;
        let words = size_of::<Counter>() / 8;
        let mut values = vec![0u64; count * processors * words];
        bpf::read_array(map.fd().as_fd(), 0, processors * words * 8, &mut values).ok()?;
        let counters = values.chunks(processors * words).map(|parts| Counter {
            packets: parts.iter().step_by(words).sum(),
            bytes: parts.iter().skip(1).step_by(words).sum(),
        });
        Some(counters.collect())
    }
}
