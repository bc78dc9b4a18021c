//! What the daemon has in the kernel: programs and maps, with what is known of them.
//!
//! Loading is in [`load`](crate::load), changing what is in force in [`slots`](crate::slots), reading
//! in [`reader`](crate::reader), attaching in [`attach`](crate::attach).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use aya::{
    Ebpf,
    maps::RingBuf,
    programs::{SchedClassifier, TestRun as _, TestRunOptions},
};
use wardline_ebpf::abi::{
    self, FAILSAFES, Forwarding, MAX_IFINDEX, Routes, Set, Settings, TICK_SHIFT,
};
use wardline_policy::tables::Tables;

use crate::{
    error::{DatapathError, Result, map_error, program_error},
    links::Links,
    maps::{get, program, set},
    reader::Reader,
    ring::Ring,
};

/// Programs and maps in the kernel.
pub struct Datapath {
    pub(crate) ebpf: Ebpf,
    pub(crate) links: Links,
    pub(crate) reader: Arc<Reader>,
    pub(crate) slots: [Slot; 2],
    pub(crate) active: Option<usize>,
    /// Whether a packet may still be reading the slot that is not in force.
    pub(crate) settling: bool,
    /// Devices whose entries were amended while packets read them.
    pub(crate) amended: BTreeSet<u32>,
    pub(crate) adoption: Duration,
    /// What may be forwarded, as this daemon has written it.
    pub(crate) forwarding: Option<BTreeMap<u32, Forwarding>>,
}

/// What one slot holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Slot {
    /// Nothing when an earlier daemon filled it: then only the kernel knows.
    pub(crate) tables: Option<Tables>,
    pub(crate) sets: BTreeMap<(u32, u32), Set>,
    /// By cell; empty when an earlier daemon wrote them.
    pub(crate) epochs: Vec<u32>,
}

impl Datapath {
    /// Reads beside whoever changes things, on any thread.
    pub fn reader(&self) -> &Arc<Reader> {
        &self.reader
    }

    /// Lets flows go on that run through an interface which is guarded from now on.
    pub fn adopt(&mut self, ifindex: u32) -> Result<()> {
        let until = match self.adoption.as_secs() {
            _ if ifindex >= MAX_IFINDEX => return Ok(()),
            0 => 0,
            seconds => {
                let jiffies = self.reader.jiffies()? + seconds * u64::from(self.reader.per_second);
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
    pub fn events(&mut self) -> Result<Ring> {
        let map = self
            .ebpf
            .take_map("EVENTS")
            .ok_or(DatapathError::Missing("EVENTS"))?;
        RingBuf::try_from(map)
            .map(Ring::new)
            .map_err(map_error("EVENTS"))
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
            ..self.reader.settings()?
        };
        set(&mut self.ebpf, "SETTINGS", 0, settings)
    }

    /// Has packets be forwarded in the driver through these interfaces, and no others.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn set_forwarding(&mut self, open: &BTreeMap<u32, Forwarding>) -> Result<()> {
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
    pub fn routes_changed(&mut self) -> Result<()> {
        let routes: Routes = get(&self.ebpf, "ROUTES", 0)?;
        let version = routes.version.wrapping_add(1);
        set(&mut self.ebpf, "ROUTES", 0, Routes { version, ..routes })
    }

    /// Lets flows trust the next hops that they remember for one more second: every change of routes and
    /// neighbours is reported through [`routes_changed`](Self::routes_changed).
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
