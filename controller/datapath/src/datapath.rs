//! The daemon's programs and maps in the kernel, with what is known of their contents.
//!
//! Loading is in [`load`](crate::load), changing what is in force in [`slots`](crate::slots),
//! reading in [`reader`](crate::reader), attaching in [`attach`](crate::attach).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use aya::{
    Ebpf,
    maps::RingBuf,
    programs::{SchedClassifier, TestRun as _, TestRunOptions},
};
use wardline_ebpf::abi::{
    self, FAILSAFES, Forwarding, INTERFACES, Routes, Set, Settings, TICK_SHIFT,
};
use wardline_policy::tables::Tables;

use crate::{
    attach::Hooks,
    carrying::Carrying,
    error::{DatapathError, Result, map_error, program_error},
    maps::{get, program, set},
    other::Other,
    reader::Reader,
    ring::{Clients, Ring},
};

/// Programs and maps in the kernel.
pub struct Datapath {
    pub(crate) ebpf: Ebpf,
    pub(crate) hooks: Hooks,
    pub(crate) reader: Arc<Reader>,
    pub(crate) slots: [Slot; 2],
    pub(crate) active: Option<usize>,
    /// Whether a packet may still be reading the slot that is not in force.
    pub(crate) settling: bool,
    /// Devices whose entries were amended while packets read them.
    pub(crate) amended: BTreeSet<u32>,
    /// Whether no earlier daemon of this version has left tables.
    pub(crate) is_first: bool,
    /// Other versions that have left tables.
    pub(crate) others: Vec<Other>,
    /// Those of which a part is taken over.
    pub(crate) carrying: Vec<Carrying>,
    /// Whether numbers in their tables may mean something else here.
    pub(crate) distrusts_numbers: bool,
    /// The entries that this daemon has written for fast-forward; none: not written yet.
    pub(crate) forwarding: Option<BTreeMap<u32, Forwarding>>,
}

/// The contents of one slot.
#[derive(Clone, Debug, Default)]
pub(crate) struct Slot {
    /// None when an earlier daemon filled the slot; then only the kernel knows the contents.
    pub(crate) tables: Option<Tables>,
    pub(crate) sets: BTreeMap<(u32, u32), Set>,
    /// By cell; empty when an earlier daemon wrote them.
    pub(crate) epochs: Vec<u32>,
}

impl Datapath {
    /// Reads the maps on any thread, independently of changes.
    pub fn reader(&self) -> &Arc<Reader> {
        &self.reader
    }

    /// Whether no earlier daemon has left tables that know all flows.
    pub fn is_first(&self) -> bool {
        self.is_first || self.carries()
    }

    /// The revision by which packets are judged; none: no tables are in force.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn judged_by(&self) -> Result<Option<u64>> {
        let slot = self.active.map(|active| active as u32);
        slot.map(|slot| get(&self.ebpf, "REVISIONS", slot))
            .transpose()
    }

    /// Attaches the programs to interfaces, on any thread, independently of changes.
    pub fn hooks(&self) -> &Hooks {
        &self.hooks
    }

    /// Takes the ring of events; possible once.
    ///
    /// # Errors
    ///
    /// When it was taken before.
    pub fn events(&mut self) -> Result<Ring> {
        let map = self
            .ebpf
            .take_map("EVENTS")
            .ok_or(DatapathError::Missing("EVENTS"))?;
        RingBuf::try_from(map)
            .map(Ring::new)
            .map_err(map_error("EVENTS"))
    }

    /// Takes the ring of what DHCP clients say; possible once.
    ///
    /// # Errors
    ///
    /// When it was taken before.
    pub fn clients(&mut self) -> Result<Clients> {
        let map = self
            .ebpf
            .take_map("CLIENT_MESSAGES")
            .ok_or(DatapathError::Missing("CLIENT_MESSAGES"))?;
        RingBuf::try_from(map)
            .map(Clients::new)
            .map_err(map_error("CLIENT_MESSAGES"))
    }

    /// Ends flows that have timed out, in the next `buckets` buckets.
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

    /// Tells the kernel which hosts may always reach the router; only the first [`FAILSAFES`] are
    /// used.
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
        // Last: an entry is used only once it is written.
        let settings = Settings {
            failsafe: count,
            ..self.reader.settings()?
        };
        set(&mut self.ebpf, "SETTINGS", 0, settings)
    }

    /// Lets packets be forwarded in the driver through these interfaces, and through no others.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn set_forwarding(&mut self, open: &BTreeMap<u32, Forwarding>) -> Result<()> {
        if self.forwarding.as_ref() == Some(open) {
            return Ok(());
        }
        let known = self.forwarding.take();
        for index in 0..INTERFACES {
            let entry = open.get(&index).copied().unwrap_or_default();
            let was = match &known {
                Some(known) => known.get(&index).copied().unwrap_or_default(),
                // An earlier daemon may have written other entries.
                None => get(&self.ebpf, "FORWARDING", index)?,
            };
            if was != entry {
                set(&mut self.ebpf, "FORWARDING", index, entry)?;
            }
        }
        self.forwarding = Some(open.clone());
        Ok(())
    }

    /// Makes the kernel ask the routing table again for every flow.
    pub fn routes_changed(&mut self) -> Result<()> {
        let routes: Routes = get(&self.ebpf, "ROUTES", 0)?;
        let version = routes.version.wrapping_add(1);
        set(&mut self.ebpf, "ROUTES", 0, Routes { version, ..routes })
    }

    /// Lets flows use the next hops that they keep for one more second: the daemon still reports
    /// every change of routes and neighbours through [`routes_changed`](Self::routes_changed).
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn extend_route_lease(&mut self) -> Result<()> {
        if self.forwarding.as_ref().is_none_or(BTreeMap::is_empty) {
            return Ok(());
        }
        let routes: Routes = get(&self.ebpf, "ROUTES", 0)?;
        let until = self
            .reader
            .tick()?
            .wrapping_add(self.reader.per_second >> TICK_SHIFT);
        set(&mut self.ebpf, "ROUTES", 0, Routes { until, ..routes })
    }
}
