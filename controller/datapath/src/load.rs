//! Loads the programs, with pinned maps or with new ones.
//!
//! Everything is pinned below `pin_dir/vN`, N being the version of the shared bytes: maps under
//! `maps`, links under `links` as `IFINDEX-HOOK`. Pinned programs and maps keep working without a
//! daemon, and the next daemon finds them there.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::Path,
    sync::Arc,
    time::Duration,
};

use aya::{
    EbpfLoader,
    programs::{ProgramError, SchedClassifier, Xdp},
};
use rustix::rand::{GetRandomFlags, getrandom};
use wardline_ebpf::abi::{ABI_VERSION, NAMED_WAYS, Set, Settings, TICK_SHIFT, UNLISTED};
use wardline_policy::limits::Limits;

use crate::{
    Datapath, Hook, Reader,
    attach::Hooks,
    datapath::Slot,
    error::{DatapathError, Result, map_error, pin_error, program_error},
    far::{self, Numbers},
    layout::{Layout, ROOM},
    maps::{data, get, program, set, view},
    object,
    other::others,
    pins,
    timeouts::Timeouts,
};

pub use crate::object::OBJECT;

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

/// A random number that is not 0.
fn random() -> Result<u64> {
    let mut bytes = [0u8; 8];
    // A request of up to 256 bytes is answered completely or not at all.
    getrandom(&mut bytes, GetRandomFlags::empty())
        .map_err(|error| pin_error(Path::new("/dev/random"))(error.into()))?;
    Ok(u64::from_ne_bytes(bytes) | 1)
}

/// Retries, because the verifier gives up when the thread is interrupted.
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

impl Datapath {
    /// Loads the programs, with maps that are pinned below a directory, or with unpinned ones.
    ///
    /// Pinned maps are used as they are, with the sizes that they were created with.
    ///
    /// # Errors
    ///
    /// When the kernel refuses, or a pinned map has another form.
    pub fn open(pin_dir: Option<&Path>, limits: &Limits, timeouts: &Timeouts) -> Result<Self> {
        let pins = pin_dir.map(|directory| directory.join(format!("v{ABI_VERSION}")));
        let mut loader = EbpfLoader::new();
        if let (Some(pin_dir), Some(pins)) = (pin_dir, &pins) {
            pins::prepare(pin_dir, pins)?;
        }
        let pinned = object::pinned()?;
        for (name, entries) in object::entries(limits) {
            if !pinned.contains_key(name) {
                return Err(DatapathError::Missing(name));
            }
            loader.map_max_entries(name, entries);
        }
        if let Some(pins) = &pins {
            let directory = pins.join("maps");
            object::check(&directory, &pinned)?;
            for name in pinned.keys() {
                loader.map_pin_path(name, directory.join(name));
            }
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
        for name in ["clock", "sweep", "carry"] {
            let program = program::<SchedClassifier>(&mut ebpf, name)?;
            insist(|| program.load()).map_err(program_error(name))?;
        }
        #[cfg(feature = "log")]
        print_kernel_log(&mut ebpf)?;
        let mut sizes = HashMap::new();
        for (name, map) in ebpf.maps() {
            // Maps of other kinds have no number of entries to report.
            if let Ok(map) = data("any", map) {
                let info = map.info().map_err(map_error("any"))?;
                sizes.insert(name.to_owned(), info.max_entries());
            }
        }
        let reader = Arc::new(Reader::new(&mut ebpf, sizes)?);
        let numbers = Numbers::default();
        let adopts_for = timeouts.adoption;
        let hooks = Hooks::new(&mut ebpf, pin_dir, numbers, adopts_for, Arc::clone(&reader))?;
        let mut datapath = Self {
            hooks,
            ebpf,
            reader,
            slots: Default::default(),
            active: None,
            settling: false,
            amended: BTreeSet::new(),
            is_first: false,
            others: pin_dir.map(others).unwrap_or_default(),
            carrying: Vec::new(),
            distrusts_numbers: false,
            forwarding: None,
        };
        datapath.take_numbers()?;
        datapath.hooks.lock().numbers = far::given(&datapath.ebpf)?;
        datapath.set_up(limits, timeouts)?;
        datapath.recover()?;
        Ok(datapath)
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
            "carry",
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

    pub(crate) fn set_up(&mut self, limits: &Limits, timeouts: &Timeouts) -> Result<()> {
        let old: Settings = get(&self.ebpf, "SETTINGS", 0)?;
        self.is_first = old.seed == 0;
        let ticks = |time: Duration| {
            let jiffies = time
                .as_secs()
                .saturating_mul(u64::from(self.reader.per_second));
            ((jiffies >> TICK_SHIFT) as u32).max(1)
        };
        let seed = match old.seed {
            0 => random()?,
            seed => seed,
        };
        let settings = Settings {
            buckets: self.reader.buckets(),
            flows: limits
                .flows
                .min(self.reader.buckets() * Settings::IN_BUCKET),
            flows_per_device: limits.flows_per_device,
            unlisted: self.reader.size("QUOTAS") as u32 - UNLISTED,
            jiffies_per_second: self.reader.per_second,
            tcp_unanswered: ticks(timeouts.tcp_unanswered),
            tcp_established: ticks(timeouts.tcp_established),
            tcp_closing: ticks(timeouts.tcp_closing),
            udp: ticks(timeouts.udp),
            udp_answered: ticks(timeouts.udp_answered),
            icmp: ticks(timeouts.icmp),
            learned: ticks(Duration::from_secs(3600)),
            fragment: ticks(Duration::from_secs(5)),
            failsafe: old.failsafe,
            control: limits.control,
            control_in_quarantine: limits.control_in_quarantine,
            learned_per_device: limits.learned_per_device,
            learned_per_port: limits.learned_per_port,
            addresses_per_name: limits.addresses_per_name.next_multiple_of(NAMED_WAYS),
            name_least: ticks(timeouts.names),
            seed,
        };
        let mut layout = [0u8; ROOM];
        let text = Layout::own().to_text();
        for (to, byte) in layout.iter_mut().zip(text.bytes()) {
            *to = byte;
        }
        set(&mut self.ebpf, "LAYOUT", 0, layout)?;
        set(&mut self.ebpf, "SETTINGS", 0, settings)
    }

    /// Finds out what the pinned maps hold, as far as the next change must know it.
    pub(crate) fn recover(&mut self) -> Result<()> {
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
}
