//! The kernel's side seen from here: loads, pins, fills and reads. With [`links`](crate::links),
//! which attaches, the only user of aya.
//!
//! Tables of policy hold two revisions at once. [`Datapath::put`] makes the slot that is not in
//! force equal to the new tables by the fewest writes, then writes `ACTIVE` once: every packet is
//! judged by one revision. The old slot is touched again only after a grace period, when no packet
//! can still be reading it.
//!
//! Everything is pinned below `pin_dir/vN`, N being the version of the bytes: maps under `maps`,
//! links under `links` as `IFINDEX-HOOK`. What is pinned goes on without a daemon; the next one
//! finds it there.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ffi::CString,
    fs, io,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use aya::{
    Ebpf, EbpfLoader, Pod,
    maps::{Array, MapData, MapError, PerCpuArray, RingBuf, lpm_trie::Key},
    programs::{ProgramError, SchedClassifier, TestRun as _, TestRunOptions, Xdp},
};
use jiff::Timestamp;
use wardline_ebpf::abi::{
    self, ABI_VERSION, Address, AddressKey, Bucket, Counter, DENIAL_SETS, DENIALS_AT, Denial,
    EPOCH_CELLS, End, EventKey, FAILSAFES, Forwarding, FragmentKey, Interval, MAX_IFINDEX,
    MAX_ZONES, Mac, Port, PrefixKey, Reason, Routes, Set, Settings, TICK_SHIFT, UNLISTED, gauge,
};

use crate::{
    bpf,
    compile::{Amendment, Clock, Intervals, Tables},
    config::{Limits, Timeouts},
    fault,
    live::{self, Live},
    touched::{Touched, touched},
};

use crate::links::Links;
pub use crate::links::{Hook, detach};

/// The programs and map definitions, as built for the kernel.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("WARDLINE_OBJECT"));

/// Why the kernel did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum DatapathError {
    /// The object could not be loaded.
    #[error("could not load the programs: {0}")]
    Load(#[from] aya::EbpfError),
    /// A program could not be loaded or run.
    #[error("program {name}: {source}")]
    Program {
        /// The program.
        name: &'static str,
        /// Why.
        source: Box<ProgramError>,
    },
    /// A map could not be read or written.
    #[error("table {name}: {source}")]
    Map {
        /// The map.
        name: &'static str,
        /// Why.
        source: MapError,
    },
    /// A map or program is not in the object.
    #[error("the object has no {0}")]
    Missing(&'static str),
    /// A pinned map has another form.
    #[error("{} has another form than this version's; wardlined --detach removes it", .0.display())]
    Incompatible(PathBuf),
    /// A table has no room.
    #[error("table {name} would hold {wanted} entries, of at most {max}")]
    Full {
        /// The table.
        name: &'static str,
        /// What it would hold.
        wanted: usize,
        /// What it can hold.
        max: usize,
    },
    /// A path below the pin directory.
    #[error("{}: {source}", path.display())]
    Pin {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

pub(crate) type Result<T> = std::result::Result<T, DatapathError>;

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

/// A program's size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Size {
    /// The program.
    pub name: &'static str,
    /// Instructions.
    pub instructions: u32,
    /// Instructions that the verifier looked at.
    pub verified: u32,
}

/// Programs and maps in the kernel.
pub struct Datapath {
    pub(crate) ebpf: Ebpf,
    pub(crate) links: Links,
    sizes: HashMap<&'static str, u32>,
    per_second: u32,
    slots: [Slot; 2],
    active: Option<usize>,
    /// Whether a packet may still be reading the slot that is not in force.
    settling: bool,
    /// Devices whose entries were amended while packets read them.
    amended: BTreeSet<u32>,
    adoption: Duration,
    /// What may be forwarded, as this daemon has written it.
    forwarding: Option<BTreeMap<u32, Forwarding>>,
}

/// What one slot holds.
#[derive(Clone, Debug, Default)]
struct Slot {
    /// Nothing when an earlier daemon filled it: then only the kernel knows.
    tables: Option<Tables>,
    sets: BTreeMap<(u32, u32), Set>,
    /// By cell; empty when an earlier daemon wrote them.
    epochs: Vec<u32>,
}

/// Every map, with how its size follows from the limits; none: as declared.
fn maps(limits: &Limits) -> [(&'static str, Option<u32>); 33] {
    let both = |entries: u32| Some(entries.saturating_mul(2));
    // Routers and rules name addresses too.
    let addresses = limits.devices.saturating_mul(4).saturating_add(4096);
    let settings = Settings::for_flows(limits.flows);
    [
        ("ACTIVE", None),
        ("REVISIONS", None),
        ("GENERATIONS", None),
        ("SETTINGS", None),
        ("FAILSAFE", None),
        ("FORWARDING", None),
        ("ROUTES", None),
        ("FORWARDED", None),
        ("PORTS", None),
        ("ZONES", None),
        ("PLACES", None),
        ("MACS", both(limits.devices.saturating_mul(2))),
        ("ADDRESSES", both(addresses)),
        ("PREFIXES", both(65_536)),
        ("DEVICES", both(limits.devices)),
        ("PAIRS", both(1 << 20)),
        ("INTERVALS", Some(1 << 20)),
        ("EPOCHS", None),
        ("FLOWS", Some(settings.buckets)),
        ("DENIED", None),
        ("REFUSED", None),
        ("OPENED", None),
        ("QUOTAS", Some(limits.devices + 2 + UNLISTED)),
        ("GAUGES", None),
        ("FRAGMENTS", None),
        ("ADOPTION", None),
        ("LEARNED", Some(limits.devices.saturating_mul(2))),
        ("SEEN", Some(limits.devices + 2)),
        ("REASONS", None),
        ("RULES", Some(limits.rules + 1)),
        ("EVENTS", None),
        ("EVENT_LIMITS", None),
        ("CLOCK", None),
    ]
}

impl Datapath {
    /// Loads the programs, with maps that are pinned below a directory, or with maps of their own.
    ///
    /// Pinned maps are taken as they are, with the sizes that they were made with.
    ///
    /// # Errors
    ///
    /// When the kernel refuses, or what is pinned has another form.
    pub fn open(pin_dir: Option<&Path>, limits: &Limits, timeouts: &Timeouts) -> Result<Self> {
        let pins = pin_dir.map(|directory| directory.join(format!("v{ABI_VERSION}")));
        let mut loader = EbpfLoader::new();
        if let Some(pins) = &pins {
            mount(pins)?;
            for directory in [pins.join("maps"), pins.join("links")] {
                fs::create_dir_all(&directory).map_err(pin_error(&directory))?;
            }
        }
        for (name, entries) in maps(limits) {
            if let Some(entries) = entries {
                loader.map_max_entries(name, entries);
            }
            if let Some(pins) = &pins {
                loader.map_pin_path(name, pins.join("maps").join(name));
            }
        }
        if let Some(pins) = &pins {
            check(&pins.join("maps"))?;
        }
        let mut ebpf = loader.load(OBJECT)?;
        for hook in Hook::ALL {
            let name = hook.program();
            match hook {
                Hook::Xdp => {
                    let program = program::<Xdp>(&mut ebpf, name)?;
                    insist(|| program.load())
                }
                _ => {
                    let program = program::<SchedClassifier>(&mut ebpf, name)?;
                    insist(|| program.load())
                }
            }
            .map_err(program_error(name))?;
        }
        for name in ["clock", "sweep"] {
            let program = program::<SchedClassifier>(&mut ebpf, name)?;
            insist(|| program.load()).map_err(program_error(name))?;
        }
        #[cfg(feature = "log")]
        print_kernel_log(&mut ebpf)?;
        let mut sizes = HashMap::new();
        for (name, _) in maps(limits) {
            let map = ebpf.map(name).ok_or(DatapathError::Missing(name))?;
            sizes.insert(name, max_entries(name, map)?);
        }
        let mut datapath = Self {
            ebpf,
            links: Links::new(pin_dir),
            sizes,
            per_second: 0,
            slots: Default::default(),
            active: None,
            settling: false,
            amended: BTreeSet::new(),
            adoption: timeouts.adoption,
            forwarding: None,
        };
        datapath.per_second = datapath.measure_jiffies()?;
        datapath.set_up(limits, timeouts)?;
        datapath.recover()?;
        Ok(datapath)
    }

    /// The kernel's time.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn clock(&mut self) -> Result<Clock> {
        let jiffies = self.jiffies()?;
        Ok(Clock {
            now: Timestamp::now(),
            jiffies,
            per_second: self.per_second,
        })
    }

    /// The present, in ticks.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn tick(&mut self) -> Result<u32> {
        Ok((self.jiffies()? >> TICK_SHIFT) as u32)
    }

    /// Puts tables in force, as one revision. Nothing changes when it fails. Answers how many
    /// entries it wrote or took out.
    ///
    /// # Errors
    ///
    /// When a table has no room, or the kernel refuses.
    pub fn put(&mut self, revision: u64, tables: &Tables) -> Result<usize> {
        let mut written = 0;
        let standby = self.active.map_or(0, |active| 1 - active);
        self.settle()?;
        self.fits(tables)?;
        let sets = self.allot(tables, &mut written)?;
        let epochs = self.epochs(tables);
        // Until it is whole again, what stands in this slot is not known.
        let old = std::mem::take(&mut self.slots[standby]);
        let known = old.tables.is_some();
        if !known {
            self.clear(standby as u32)?;
        }
        let old_tables = old.tables.unwrap_or_default();
        let old_sets = if known { old.sets } else { BTreeMap::new() };
        written += self.write_slot(standby as u32, &old_tables, &old_sets, tables, &sets)?;
        for (cell, epoch) in (0..).zip(&epochs) {
            if old.epochs.get(cell as usize) != Some(epoch) {
                let index = standby as u32 * EPOCH_CELLS + cell;
                set(&mut self.ebpf, "EPOCHS", index, *epoch)?;
                written += 1;
            }
        }
        fault::point("filled");
        set(&mut self.ebpf, "REVISIONS", standby as u32, revision)?;
        self.new_generation(standby as u32)?;
        set(&mut self.ebpf, "ACTIVE", 0, standby as u32 + 1)?;
        self.slots[standby] = Slot {
            tables: Some(tables.clone()),
            sets,
            epochs,
        };
        self.active = Some(standby);
        self.settling = true;
        Ok(written + 2)
    }

    /// The epochs for new tables: of those whose flows they concern, one more than now.
    fn epochs(&self, tables: &Tables) -> Vec<u32> {
        let active = self.active.map(|active| &self.slots[active]);
        let Some(Slot {
            tables: Some(old),
            epochs,
            ..
        }) = active
        else {
            // Whatever flows there are, they were admitted by tables that nobody knows any more.
            let now = Timestamp::now().as_millisecond() as u32;
            return vec![now; EPOCH_CELLS as usize];
        };
        let mut epochs = epochs.clone();
        match touched(old, tables) {
            Touched::All => epochs
                .iter_mut()
                .for_each(|epoch| *epoch = epoch.wrapping_add(1)),
            Touched::Devices(devices) => {
                let cells: BTreeSet<u32> = devices.iter().map(|it| it % EPOCH_CELLS).collect();
                for cell in cells {
                    let epoch = &mut epochs[cell as usize];
                    *epoch = epoch.wrapping_add(1);
                }
            }
        }
        epochs
    }

    /// Changes entries of one device where they stand, in the slot that is in force: for what can't
    /// wait for a slot to be filled. A packet sees each entry as it was or as it is.
    ///
    /// # Errors
    ///
    /// When the kernel refuses; some entries may have been changed then.
    pub fn amend(&mut self, revision: u64, device: u32, amendment: &Amendment) -> Result<()> {
        let Some(active) = self.active else {
            return Ok(());
        };
        // Until all is written, what stands in this slot is not known.
        let known = self.slots[active].tables.take();
        let slot = active as u32;
        let (top, ebpf) = (u64::from(slot) << 63, &mut self.ebpf);
        hash(ebpf, "MACS", &BTreeMap::new(), &amendment.macs, |key| {
            top | key
        })?;
        hash(
            ebpf,
            "DEVICES",
            &BTreeMap::new(),
            &amendment.devices,
            |it| it << 1 | slot,
        )?;
        let key = |address: &Address| AddressKey {
            address: *address,
            slot: u64::from(slot),
        };
        hash(
            ebpf,
            "ADDRESSES",
            &BTreeMap::new(),
            &amendment.addresses,
            key,
        )?;
        self.slots[active].tables = known.map(|mut tables| {
            tables.macs.extend(&amendment.macs);
            tables.devices.extend(&amendment.devices);
            tables.addresses.extend(&amendment.addresses);
            tables
        });
        set(&mut self.ebpf, "REVISIONS", slot, revision)?;
        self.new_generation(slot)?;
        self.amended.insert(device);
        self.judge_anew(device)
    }

    /// Has packets that were refused before be judged anew by a slot.
    fn new_generation(&mut self, slot: u32) -> Result<()> {
        let [one, other] = [0, 1].map(|slot| get::<u64>(&self.ebpf, "GENERATIONS", slot));
        let next = one?.max(other?) + 1;
        set(&mut self.ebpf, "GENERATIONS", slot, next)
    }

    /// Has the flows of a device judged anew, by the slot that is in force.
    fn judge_anew(&mut self, device: u32) -> Result<()> {
        let Some(active) = self.active else {
            return Ok(());
        };
        let cell = device % EPOCH_CELLS;
        let index = active as u32 * EPOCH_CELLS + cell;
        let epoch = get::<u32>(&self.ebpf, "EPOCHS", index)?.wrapping_add(1);
        set(&mut self.ebpf, "EPOCHS", index, epoch)?;
        if let Some(known) = self.slots[active].epochs.get_mut(cell as usize) {
            *known = epoch;
        }
        Ok(())
    }

    /// Waits until no packet reads what was in force before the last change, so that the next
    /// change need not.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn settle(&mut self) -> Result<()> {
        if self.settling || !self.amended.is_empty() {
            grace();
            self.settling = false;
        }
        // A packet that read an entry before it was amended may have renewed its flow after.
        while let Some(device) = self.amended.first().copied() {
            self.judge_anew(device)?;
            self.amended.remove(&device);
        }
        Ok(())
    }

    /// Lets flows go on that run through an interface which is guarded from now on.
    pub(crate) fn adopt(&mut self, ifindex: u32) -> Result<()> {
        let until = match self.adoption.as_secs() {
            _ if ifindex >= MAX_IFINDEX => return Ok(()),
            0 => 0,
            seconds => {
                let jiffies = self.jiffies()? + seconds * u64::from(self.per_second);
                (jiffies >> TICK_SHIFT) as u32
            }
        };
        set(&mut self.ebpf, "ADOPTION", ifindex, until)
    }

    /// Takes the ring of events out, once.
    ///
    /// # Errors
    ///
    /// When it was taken before.
    pub fn events(&mut self) -> Result<RingBuf<MapData>> {
        let map = self
            .ebpf
            .take_map("EVENTS")
            .ok_or(DatapathError::Missing("EVENTS"))?;
        RingBuf::try_from(map).map_err(map_error("EVENTS"))
    }

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
        live::each(data("FLOWS", map)?.fd().as_fd(), self.buckets(), visit)
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

    /// What holds for every packet.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn settings(&self) -> Result<Settings> {
        get(&self.ebpf, "SETTINGS", 0)
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

    /// How full tables would be, each with what it can hold for one revision.
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
            fill("prefixes", tables.prefixes.len(), one("PREFIXES")),
            fill("places", tables.places.len(), one("PLACES")),
            fill("pairs", tables.pairs.len(), one("PAIRS")),
            fill("intervals", intervals.values().sum(), one("INTERVALS")),
        ]
    }

    /// Ends flows that have timed out, in so many buckets.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn sweep(&mut self, buckets: u32) -> Result<()> {
        let frame = [0; 14];
        let options = TestRunOptions {
            data_in: Some(&frame),
            repeat: buckets,
            ..TestRunOptions::default()
        };
        let program = program::<SchedClassifier>(&mut self.ebpf, "sweep")?;
        program
            .test_run(options)
            .map(drop)
            .map_err(program_error("sweep"))
    }

    /// Buckets of the flow table.
    pub fn buckets(&self) -> u32 {
        self.size("FLOWS") as u32
    }

    /// Runs a hook's program on a frame, as if it were on an interface; answers whether it passed.
    ///
    /// `from` is where a frame that leaves came from; 0: the router sent it. On the loopback, whose
    /// index is 1, no context is handed over: the kernel takes that interface by itself, also one
    /// that is too old to be told another.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn run(&mut self, hook: Hook, ifindex: u32, from: u32, frame: &[u8]) -> Result<bool> {
        self.run_often(hook, ifindex, from, frame, 1)
    }

    /// The same so many times with one call; answers whether it passed the last time.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn run_often(
        &mut self,
        hook: Hook,
        ifindex: u32,
        from: u32,
        frame: &[u8],
        times: u32,
    ) -> Result<bool> {
        const LOOPBACK: u32 = 1;
        let name = hook.program();
        let mut out = vec![0; frame.len() + 512];
        let mut context = vec![0; if hook == Hook::Xdp { 24 } else { 192 }];
        let mut field = |at: usize, value: u32| {
            context[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        };
        match hook {
            Hook::Xdp => {
                // struct xdp_md: data, data_end, data_meta, ingress_ifindex.
                field(4, frame.len() as u32);
                field(12, ifindex);
            }
            Hook::TcIngress | Hook::TcEgress | Hook::Tags => {
                // struct __sk_buff: ingress_ifindex, ifindex.
                field(36, from);
                field(40, ifindex);
            }
        }
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ctx_in: (ifindex != LOOPBACK || from != 0).then_some(context.as_slice()),
            repeat: times,
            ..TestRunOptions::default()
        };
        let answer = match hook {
            Hook::Xdp => program::<Xdp>(&mut self.ebpf, name)?.test_run(options),
            _ => program::<SchedClassifier>(&mut self.ebpf, name)?.test_run(options),
        };
        let value = answer.map_err(program_error(name))?.return_value;
        // XDP_PASS; TC_ACT_UNSPEC. Anything else is a drop.
        Ok(value == if hook == Hook::Xdp { 2 } else { u32::MAX })
    }

    /// How large the programs are.
    ///
    /// # Errors
    ///
    /// When the kernel does not say.
    pub fn sizes(&mut self) -> Result<Vec<Size>> {
        let mut sizes = Vec::new();
        for name in [
            "xdp_ingress",
            "tc_ingress",
            "tc_egress",
            "tag_ingress",
            "sweep",
            "clock",
        ] {
            let info = match name {
                "xdp_ingress" => program::<Xdp>(&mut self.ebpf, name)?.info(),
                _ => program::<SchedClassifier>(&mut self.ebpf, name)?.info(),
            }
            .map_err(program_error(name))?;
            sizes.push(Size {
                name,
                instructions: info.size_translated().unwrap_or(0) / 8,
                verified: info.verified_instruction_count().unwrap_or(0),
            });
        }
        Ok(sizes)
    }

    /// Forgets what packets have left behind: flows, learned addresses, limits of events.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn forget(&mut self) -> Result<()> {
        const WORDS: usize = size_of::<Bucket>() / 8;
        let (buckets, accounts) = (self.buckets(), self.size("QUOTAS") as u32);
        clear_array(&mut self.ebpf, "FLOWS", buckets, [0u64; WORDS])?;
        clear_array(&mut self.ebpf, "GAUGES", gauge::COUNT, 0u32)?;
        clear_array(&mut self.ebpf, "QUOTAS", accounts, [0u32; 2])?;
        clear_hash::<FragmentKey, [u64; 2]>(&mut self.ebpf, "FRAGMENTS", |_| true)?;
        clear_hash::<Address, [u32; 2]>(&mut self.ebpf, "LEARNED", |_| true)?;
        clear_hash::<EventKey, [u64; 2]>(&mut self.ebpf, "EVENT_LIMITS", |_| true)
    }

    fn size(&self, name: &str) -> u64 {
        u64::from(self.sizes.get(name).copied().unwrap_or(0))
    }

    fn jiffies(&mut self) -> Result<u64> {
        let frame = [0; 14];
        let options = TestRunOptions {
            data_in: Some(&frame),
            ..TestRunOptions::default()
        };
        let program = program::<SchedClassifier>(&mut self.ebpf, "clock")?;
        program.test_run(options).map_err(program_error("clock"))?;
        get(&self.ebpf, "CLOCK", 0)
    }

    /// Jiffies in a second: the kernel is built with one of a few.
    fn measure_jiffies(&mut self) -> Result<u32> {
        const BUILT_WITH: [u32; 4] = [100, 250, 300, 1000];
        let (start, from) = (Instant::now(), self.jiffies()?);
        std::thread::sleep(Duration::from_millis(150));
        let (to, elapsed) = (self.jiffies()?, start.elapsed());
        let measured = (to - from) as f64 / elapsed.as_secs_f64();
        let nearest = |rate: &u32| (f64::from(*rate) / measured).ln().abs();
        let by_distance = |a: &u32, b: &u32| nearest(a).total_cmp(&nearest(b));
        Ok(BUILT_WITH.into_iter().min_by(by_distance).unwrap_or(250))
    }

    fn set_up(&mut self, limits: &Limits, timeouts: &Timeouts) -> Result<()> {
        let old: Settings = get(&self.ebpf, "SETTINGS", 0)?;
        let ticks = |time: Duration| {
            let jiffies = time.as_secs().saturating_mul(u64::from(self.per_second));
            ((jiffies >> TICK_SHIFT) as u32).max(1)
        };
        let seed = match old.seed {
            0 => random()?,
            seed => seed,
        };
        let settings = Settings {
            buckets: self.buckets(),
            flows: limits.flows.min(self.buckets() * Settings::IN_BUCKET),
            flows_per_device: limits.flows_per_device,
            unlisted: self.size("QUOTAS") as u32 - UNLISTED,
            jiffies_per_second: self.per_second,
            tcp_unanswered: ticks(timeouts.tcp_unanswered),
            tcp_established: ticks(timeouts.tcp_established),
            tcp_closing: ticks(timeouts.tcp_closing),
            udp: ticks(timeouts.udp),
            udp_answered: ticks(timeouts.udp_answered),
            icmp: ticks(timeouts.icmp),
            learned: ticks(Duration::from_secs(3600)),
            fragment: ticks(Duration::from_secs(5)),
            failsafe: old.failsafe,
            seed,
        };
        set(&mut self.ebpf, "SETTINGS", 0, settings)
    }

    /// Has the kernel know who may always reach the router; the first [`FAILSAFES`] count.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn set_failsafe(&mut self, failsafe: &[abi::Failsafe]) -> Result<()> {
        let mut count = 0;
        for (index, entry) in (0..FAILSAFES).zip(failsafe) {
            set(&mut self.ebpf, "FAILSAFE", index, *entry)?;
            count = index + 1;
        }
        // Last: an entry counts only when it is written.
        let settings = Settings {
            failsafe: count,
            ..self.settings()?
        };
        set(&mut self.ebpf, "SETTINGS", 0, settings)
    }

    /// Has packets be forwarded in the driver through these interfaces, and no others.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub(crate) fn set_forwarding(&mut self, open: &BTreeMap<u32, Forwarding>) -> Result<()> {
        if self.forwarding.as_ref() == Some(open) {
            return Ok(());
        }
        let known = self.forwarding.take();
        for index in 0..MAX_IFINDEX {
            let entry = open.get(&index).copied().unwrap_or_default();
            let was = match &known {
                Some(known) => known.get(&index).copied().unwrap_or_default(),
                // An earlier daemon wrote them.
                None => get(&self.ebpf, "FORWARDING", index)?,
            };
            if was != entry {
                set(&mut self.ebpf, "FORWARDING", index, entry)?;
            }
        }
        self.forwarding = Some(open.clone());
        Ok(())
    }

    /// Has the routing table be asked again for every flow.
    pub(crate) fn routes_changed(&mut self) -> Result<()> {
        let routes: Routes = get(&self.ebpf, "ROUTES", 0)?;
        let version = routes.version.wrapping_add(1);
        set(&mut self.ebpf, "ROUTES", 0, Routes { version, ..routes })
    }

    /// Says for a second that every change of routes and neighbours is told.
    pub(crate) fn vouch(&mut self) -> Result<()> {
        if self.forwarding.as_ref().is_none_or(BTreeMap::is_empty) {
            return Ok(());
        }
        let routes: Routes = get(&self.ebpf, "ROUTES", 0)?;
        let until = self.tick()?.wrapping_add(self.per_second >> TICK_SHIFT);
        set(&mut self.ebpf, "ROUTES", 0, Routes { until, ..routes })
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

    /// Finds out what the pinned maps hold, as far as the next revision must know it.
    fn recover(&mut self) -> Result<()> {
        let active: u32 = get(&self.ebpf, "ACTIVE", 0)?;
        if active != 0 {
            self.active = Some((active as usize - 1) & 1);
            self.settling = true;
        }
        let pairs: aya::maps::HashMap<_, u64, Set> = view(&self.ebpf, "PAIRS")?;
        let mut sets: [BTreeMap<(u32, u32), Set>; 2] = Default::default();
        for entry in pairs.iter() {
            let (key, set) = entry.map_err(map_error("PAIRS"))?;
            let pair = ((key >> 32) as u32 & 0x7fff_ffff, key as u32);
            sets[(key >> 63) as usize].insert(pair, set);
        }
        self.slots = sets.map(|sets| Slot {
            tables: None,
            sets,
            epochs: Vec::new(),
        });
        Ok(())
    }

    /// Takes every entry of a slot out.
    fn clear(&mut self, slot: u32) -> Result<()> {
        let of_slot = |key: u64| key >> 63 == u64::from(slot);
        clear_hash::<u64, u32>(&mut self.ebpf, "PLACES", |key| of_slot(*key))?;
        clear_hash::<u64, Mac>(&mut self.ebpf, "MACS", |key| of_slot(*key))?;
        clear_hash::<u64, Set>(&mut self.ebpf, "PAIRS", |key| of_slot(*key))?;
        clear_hash::<u32, End>(&mut self.ebpf, "DEVICES", |key| key & 1 == slot)?;
        let of_slot = |key: &AddressKey| key.slot == u64::from(slot);
        clear_hash::<AddressKey, End>(&mut self.ebpf, "ADDRESSES", of_slot)?;
        let map = self
            .ebpf
            .map_mut("PREFIXES")
            .ok_or(DatapathError::Missing("PREFIXES"))?;
        let mut map: aya::maps::LpmTrie<_, PrefixKey, End> =
            map.try_into().map_err(map_error("PREFIXES"))?;
        let keys: Vec<Key<PrefixKey>> = map
            .keys()
            .flatten()
            .filter(|key| { key.data() }.slot == slot.to_be_bytes())
            .collect();
        for key in keys {
            remove_if_there(map.remove(&key)).map_err(map_error("PREFIXES"))?;
        }
        for index in 0..MAX_IFINDEX {
            set(
                &mut self.ebpf,
                "PORTS",
                Port::index(index, slot),
                Port::default(),
            )?;
        }
        for zone in 0..MAX_ZONES {
            set(&mut self.ebpf, "ZONES", slot * MAX_ZONES + zone, 0u32)?;
        }
        Ok(())
    }

    /// Places every set of intervals, those of the slot in force where they are.
    fn allot(&mut self, tables: &Tables, written: &mut usize) -> Result<BTreeMap<(u32, u32), Set>> {
        let mut known: HashMap<Intervals, Set> = HashMap::new();
        let mut taken: BTreeMap<u32, u32> = BTreeMap::new();
        if let Some(active) = self.active {
            let slot = &self.slots[active];
            for (pair, set) in &slot.sets {
                let tables = slot.tables.as_ref();
                if let Some(intervals) = tables.and_then(|tables| tables.pairs.get(pair)) {
                    known.insert(intervals.clone(), *set);
                }
                taken.insert(set.first, set.count);
            }
        }
        let (mut next, end) = (0, self.size("INTERVALS") as u32);
        let mut gaps = taken.into_iter().peekable();
        let mut sets = BTreeMap::new();
        let (mut places, mut fresh) = (Vec::new(), Vec::new());
        for (pair, intervals) in &tables.pairs {
            let set = match known.get(intervals) {
                Some(set) => *set,
                None => {
                    let count = intervals.len() as u32;
                    while let Some((first, length)) = gaps.peek()
                        && *first < next + count
                    {
                        next = next.max(first + length);
                        gaps.next();
                    }
                    if next + count > end {
                        let wanted = (next + count) as usize;
                        let max = end as usize;
                        return Err(DatapathError::Full {
                            name: "intervals",
                            wanted,
                            max,
                        });
                    }
                    let set = Set { first: next, count };
                    places.extend(next..next + count);
                    fresh.extend(intervals.iter().copied());
                    next += count;
                    known.insert(intervals.clone(), set);
                    set
                }
            };
            sets.insert(*pair, set);
        }
        write(
            &mut self.ebpf,
            "INTERVALS",
            &places,
            &fresh,
            |ebpf, index, interval| set(ebpf, "INTERVALS", index, interval),
        )?;
        *written += fresh.len();
        Ok(sets)
    }

    fn fits(&self, tables: &Tables) -> Result<()> {
        for Fill { name, used, max } in self.needs(tables) {
            if used > max {
                let (wanted, max) = (used as usize, max as usize);
                return Err(DatapathError::Full { name, wanted, max });
            }
        }
        Ok(())
    }

    /// Makes a slot that is not in force hold these tables.
    fn write_slot(
        &mut self,
        slot: u32,
        old: &Tables,
        old_sets: &BTreeMap<(u32, u32), Set>,
        tables: &Tables,
        sets: &BTreeMap<(u32, u32), Set>,
    ) -> Result<usize> {
        let mut written = 0;
        let top = u64::from(slot) << 63;
        let ebpf = &mut self.ebpf;
        written += array(ebpf, "PORTS", &old.ports, &tables.ports, |index| {
            Port::index(index, slot)
        })?;
        written += array(ebpf, "ZONES", &old.zones, &tables.zones, |zone| {
            slot * MAX_ZONES + zone
        })?;
        written += hash(ebpf, "PLACES", &old.places, &tables.places, |key| top | key)?;
        written += hash(ebpf, "MACS", &old.macs, &tables.macs, |key| top | key)?;
        written += hash(ebpf, "DEVICES", &old.devices, &tables.devices, |device| {
            device << 1 | slot
        })?;
        written += hash(
            ebpf,
            "ADDRESSES",
            &old.addresses,
            &tables.addresses,
            |address| AddressKey {
                address: *address,
                slot: u64::from(slot),
            },
        )?;
        fault::point("half-filled");
        written += hash(ebpf, "PAIRS", old_sets, sets, |(from, to)| {
            top | u64::from(*from) << 32 | u64::from(*to)
        })?;
        let map = ebpf
            .map_mut("PREFIXES")
            .ok_or(DatapathError::Missing("PREFIXES"))?;
        let mut map: aya::maps::LpmTrie<_, PrefixKey, End> =
            map.try_into().map_err(map_error("PREFIXES"))?;
        let key = |(address, length): &(Address, u8)| {
            let data = PrefixKey {
                slot: slot.to_be_bytes(),
                address: address.octets(),
            };
            Key::new(32 + u32::from(*length), data)
        };
        for prefix in old.prefixes.keys() {
            if !tables.prefixes.contains_key(prefix) {
                remove_if_there(map.remove(&key(prefix))).map_err(map_error("PREFIXES"))?;
                written += 1;
            }
        }
        for (prefix, end) in &tables.prefixes {
            if old.prefixes.get(prefix) != Some(end) {
                retry(|| map.insert(&key(prefix), end, 0)).map_err(map_error("PREFIXES"))?;
                written += 1;
            }
        }
        Ok(written)
    }
}

/// Prints what the programs log, for as long as the process lives.
#[cfg(feature = "log")]
fn print_kernel_log(ebpf: &mut Ebpf) -> Result<()> {
    let mut logger = aya_log::EbpfLogger::init(ebpf)
        .map_err(|error| pin_error(Path::new("AYA_LOGS"))(io::Error::other(error)))?;
    std::thread::spawn(move || {
        loop {
            logger.flush();
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    Ok(())
}

/// Mounts the BPF file system where pins are to be, when it is not.
#[expect(
    unsafe_code,
    reason = "statfs(2) and mount(2) have no safe wrapper in the standard library"
)]
fn mount(pins: &Path) -> Result<()> {
    const ROOT: &str = "/sys/fs/bpf";
    if !pins.starts_with(ROOT) {
        return Ok(());
    }
    let failed = || pin_error(Path::new(ROOT))(io::Error::last_os_error());
    let root = CString::new(ROOT).map_err(|error| pin_error(pins)(error.into()))?;
    // SAFETY: the path is terminated, and the buffer is the kernel's to fill.
    let magic = unsafe {
        let mut stat: libc::statfs = std::mem::zeroed();
        if libc::statfs(root.as_ptr(), &mut stat) != 0 {
            return Err(failed());
        }
        stat.f_type
    };
    if magic == libc::BPF_FS_MAGIC {
        return Ok(());
    }
    // SAFETY: all strings are terminated.
    let mounted = unsafe {
        libc::mount(
            c"bpf".as_ptr(),
            root.as_ptr(),
            c"bpf".as_ptr(),
            0,
            std::ptr::null(),
        )
    };
    if mounted == 0 { Ok(()) } else { Err(failed()) }
}

/// Waits until no program runs that started before: what it could still see may be changed then.
#[expect(unsafe_code, reason = "membarrier(2) has no safe wrapper")]
fn grace() {
    // SAFETY: MEMBARRIER_CMD_GLOBAL takes no pointer. In the kernel it is synchronize_rcu, and
    // programs at XDP and TC run inside one RCU read section.
    unsafe { libc::syscall(libc::SYS_membarrier, 1, 0, 0) };
}

#[expect(
    unsafe_code,
    reason = "getrandom(2) has no safe wrapper in the standard library"
)]
fn random() -> Result<u64> {
    let mut bytes = [0u8; 8];
    // SAFETY: the buffer is as long as said.
    let read = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    if read == 8 {
        return Ok(u64::from_ne_bytes(bytes) | 1);
    }
    Err(pin_error(Path::new("/dev/random"))(
        io::Error::last_os_error(),
    ))
}

/// Pinned maps must have the form that the object declares: the loader does not look.
fn check(maps: &Path) -> Result<()> {
    let expected: [(&str, u32, u32); 33] = [
        ("ACTIVE", 4, 4),
        ("REVISIONS", 4, 8),
        ("GENERATIONS", 4, 8),
        ("SETTINGS", 4, size_of::<Settings>() as u32),
        ("FAILSAFE", 4, size_of::<abi::Failsafe>() as u32),
        ("FORWARDING", 4, size_of::<Forwarding>() as u32),
        ("ROUTES", 4, size_of::<Routes>() as u32),
        ("FORWARDED", 4, size_of::<Counter>() as u32),
        ("PORTS", 4, size_of::<Port>() as u32),
        ("ZONES", 4, 4),
        ("PLACES", 8, 4),
        ("MACS", 8, size_of::<Mac>() as u32),
        (
            "ADDRESSES",
            size_of::<AddressKey>() as u32,
            size_of::<End>() as u32,
        ),
        (
            "PREFIXES",
            size_of::<PrefixKey>() as u32 + 4,
            size_of::<End>() as u32,
        ),
        ("DEVICES", 4, size_of::<End>() as u32),
        ("PAIRS", 8, size_of::<Set>() as u32),
        ("INTERVALS", 4, size_of::<Interval>() as u32),
        ("EPOCHS", 4, 4),
        ("FLOWS", 4, size_of::<Bucket>() as u32),
        ("DENIED", 4, size_of::<[Denial; DENIALS_AT]>() as u32),
        ("REFUSED", 4, DENIAL_SETS * 8),
        ("OPENED", 4, DENIAL_SETS * 4),
        ("QUOTAS", 4, 8),
        ("GAUGES", 4, 4),
        ("FRAGMENTS", 48, 16),
        ("ADOPTION", 4, 4),
        ("LEARNED", 16, 8),
        ("SEEN", 4, 8),
        ("REASONS", 4, 16),
        ("RULES", 4, 16),
        ("EVENTS", 0, 0),
        ("EVENT_LIMITS", 16, 16),
        ("CLOCK", 4, 8),
    ];
    for (name, key, value) in expected {
        let path = maps.join(name);
        if !path.exists() {
            continue;
        }
        let info = MapData::from_pin(&path)
            .and_then(|map| map.info())
            .map_err(map_error("pinned"))?;
        if (info.key_size(), info.value_size()) != (key, value) {
            return Err(DatapathError::Incompatible(path));
        }
    }
    Ok(())
}

fn max_entries(name: &'static str, map: &aya::maps::Map) -> Result<u32> {
    let info = data(name, map)?.info().map_err(map_error(name))?;
    Ok(info.max_entries())
}

fn data<'a>(name: &'static str, map: &'a aya::maps::Map) -> Result<&'a MapData> {
    use aya::maps::Map;
    match map {
        Map::Array(data)
        | Map::PerCpuArray(data)
        | Map::HashMap(data)
        | Map::LruHashMap(data)
        | Map::LpmTrie(data)
        | Map::RingBuf(data) => Ok(data),
        _ => Err(DatapathError::Missing(name)),
    }
}

pub(crate) fn program<'a, P>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut P>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program, Error = ProgramError>,
{
    let program = ebpf.program_mut(name).ok_or(DatapathError::Missing(name))?;
    program.try_into().map_err(program_error(name))
}

/// A map, to read.
fn view<'a, M>(ebpf: &'a Ebpf, name: &'static str) -> Result<M>
where
    M: TryFrom<&'a aya::maps::Map, Error = MapError>,
{
    ebpf.map(name)
        .ok_or(DatapathError::Missing(name))?
        .try_into()
        .map_err(map_error(name))
}

fn get<V: Pod>(ebpf: &Ebpf, name: &'static str, index: u32) -> Result<V> {
    let map: Array<_, V> = view(ebpf, name)?;
    map.get(&index, 0).map_err(map_error(name))
}

fn set<V: Pod>(ebpf: &mut Ebpf, name: &'static str, index: u32, value: V) -> Result<()> {
    let map = ebpf.map_mut(name).ok_or(DatapathError::Missing(name))?;
    let mut map: Array<_, V> = map.try_into().map_err(map_error(name))?;
    map.set(index, value, 0).map_err(map_error(name))
}

/// Makes an array hold what it should instead of what it does, at indexes that a key has. Answers how
/// many entries it wrote.
fn array<V: Pod + Default + PartialEq>(
    ebpf: &mut Ebpf,
    name: &'static str,
    old: &BTreeMap<u32, V>,
    new: &BTreeMap<u32, V>,
    index: impl Fn(u32) -> u32,
) -> Result<usize> {
    let mut written = 0;
    for key in old.keys().filter(|key| !new.contains_key(key)) {
        set(ebpf, name, index(*key), V::default())?;
        written += 1;
    }
    for (key, value) in new
        .iter()
        .filter(|(key, value)| old.get(key) != Some(value))
    {
        set(ebpf, name, index(*key), *value)?;
        written += 1;
    }
    Ok(written)
}

/// Makes a hash hold what it should instead of what it does, under the kernel's keys. Answers how
/// many entries it wrote or took out.
fn hash<L: Ord, K: Pod, V: Pod + PartialEq>(
    ebpf: &mut Ebpf,
    name: &'static str,
    old: &BTreeMap<L, V>,
    new: &BTreeMap<L, V>,
    key: impl Fn(&L) -> K,
) -> Result<usize> {
    let mut gone = 0;
    let map = ebpf.map_mut(name).ok_or(DatapathError::Missing(name))?;
    let mut map: aya::maps::HashMap<_, K, V> = map.try_into().map_err(map_error(name))?;
    for at in old.keys().filter(|at| !new.contains_key(at)) {
        remove_if_there(map.remove(&key(at))).map_err(map_error(name))?;
        gone += 1;
    }
    let changed = new.iter().filter(|(at, value)| old.get(at) != Some(value));
    let (keys, values): (Vec<K>, Vec<V>) = changed.map(|(at, value)| (key(at), *value)).unzip();
    write(ebpf, name, &keys, &values, |ebpf, key, value| {
        let map = ebpf.map_mut(name).ok_or(DatapathError::Missing(name))?;
        let mut map: aya::maps::HashMap<_, K, V> = map.try_into().map_err(map_error(name))?;
        retry(|| map.insert(key, value, 0)).map_err(map_error(name))
    })?;
    Ok(gone + keys.len())
}

/// Entries that are written with one call.
const AT_ONCE: usize = 4096;

/// Writes entries, many with one call; `one` writes a single one, where that does not do: because the
/// kernel has no such call for the map, or lacks memory for a moment.
fn write<K: Pod, V: Pod>(
    ebpf: &mut Ebpf,
    name: &'static str,
    keys: &[K],
    values: &[V],
    mut one: impl FnMut(&mut Ebpf, K, V) -> Result<()>,
) -> Result<()> {
    let mut done = 0;
    while done < keys.len() {
        let end = keys.len().min(done + AT_ONCE);
        let map = ebpf.map(name).ok_or(DatapathError::Missing(name))?;
        let map = data(name, map)?.fd().as_fd();
        let (written, result) = bpf::write_many(map, &keys[done..end], &values[done..end]);
        done += written;
        if result.is_err() {
            // The next entry says what is wrong, if something is.
            let until = if written == 0 { end } else { done + 1 };
            for at in done..until.min(end) {
                one(ebpf, keys[at], values[at])?;
            }
            done = until.min(end);
        }
    }
    Ok(())
}

fn clear_hash<K: Pod, V: Pod>(
    ebpf: &mut Ebpf,
    name: &'static str,
    of_slot: impl Fn(&K) -> bool,
) -> Result<()> {
    let map = ebpf.map_mut(name).ok_or(DatapathError::Missing(name))?;
    let mut map: aya::maps::HashMap<_, K, V> = map.try_into().map_err(map_error(name))?;
    let keys: Vec<K> = map.keys().flatten().filter(of_slot).collect();
    for key in keys {
        remove_if_there(map.remove(&key)).map_err(map_error(name))?;
    }
    Ok(())
}

/// Tables that grow take memory from caches that refill in the background: a burst can find them
/// empty although memory is free.
fn retry(
    mut insert: impl FnMut() -> std::result::Result<(), MapError>,
) -> std::result::Result<(), MapError> {
    for _ in 0..50 {
        match insert() {
            Err(MapError::SyscallError(error))
                if error.io_error.raw_os_error() == Some(libc::ENOMEM) =>
            {
                std::thread::sleep(Duration::from_millis(2));
            }
            done => return done,
        }
    }
    insert()
}

/// The verifier gives up when something else wants the thread, and may be asked again.
fn insist(
    mut load: impl FnMut() -> std::result::Result<(), ProgramError>,
) -> std::result::Result<(), ProgramError> {
    for _ in 0..4 {
        match load() {
            Err(ProgramError::LoadError { io_error, .. })
                if io_error.raw_os_error() == Some(libc::EAGAIN) => {}
            done => return done,
        }
    }
    load()
}

fn remove_if_there(
    removed: std::result::Result<(), MapError>,
) -> std::result::Result<(), MapError> {
    match removed {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error))
            if error.io_error.raw_os_error() == Some(libc::ENOENT) =>
        {
            Ok(())
        }
        other => other,
    }
}

/// All counters of an array in one call; none where the kernel has no such call for it, before 5.13.
fn all_at_once(ebpf: &Ebpf, name: &'static str, count: usize) -> Option<Vec<Counter>> {
    let map = data(name, ebpf.map(name)?).ok()?;
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

/// Puts zero into each place of an array.
fn clear_array<V: Pod>(ebpf: &mut Ebpf, name: &'static str, count: u32, zero: V) -> Result<()> {
    let keys: Vec<u32> = (0..count).collect();
    let values = vec![zero; keys.len()];
    write(ebpf, name, &keys, &values, |ebpf, index, zero| {
        set(ebpf, name, index, zero)
    })
}

fn total(map: &PerCpuArray<&MapData, Counter>, name: &'static str, index: u32) -> Result<Counter> {
    let values = map.get(&index, 0).map_err(map_error(name))?;
    Ok(values.iter().fold(Counter::default(), |sum, one| Counter {
        packets: sum.packets + one.packets,
        bytes: sum.bytes + one.bytes,
    }))
}

pub(crate) fn program_error(name: &'static str) -> impl Fn(ProgramError) -> DatapathError {
    move |source| DatapathError::Program {
        name,
        source: Box::new(source),
    }
}

fn map_error(name: &'static str) -> impl Fn(MapError) -> DatapathError {
    move |source| DatapathError::Map { name, source }
}

pub(crate) fn pin_error(path: &Path) -> impl Fn(io::Error) -> DatapathError + use<> {
    let path = path.to_owned();
    move |source| DatapathError::Pin {
        path: path.clone(),
        source,
    }
}
