//! Attaches to an interface exactly the hooks that are asked for.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::fd::{AsFd as _, BorrowedFd},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use aya::{
    Ebpf,
    maps::{Array, MapData},
    programs::ProgramFd,
};
use wardline_ebpf::abi::{INTERFACES, TICK_SHIFT};

use crate::{
    Hook, Reader,
    bpf::Link,
    error::{AttachError, DatapathError, map_error, pin_error, program_error},
    far::Numbers,
    fault,
    links::{Links, On, refusal},
    maps::duplicate,
};

type Result<T> = std::result::Result<T, AttachError>;

/// How TC programs are attached that are not attached yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// By a link if the kernel supports it, else by a filter. The kernel waits for a grace period of
    /// RCU for each such link, so many of them take long.
    Best,
    /// By a filter, as on kernels before 6.6. This takes no time.
    Clsact,
}

/// Attaches the programs to interfaces. Any thread may use it, so that a port can be guarded while
/// another thread fills tables. Each call is done before the next begins.
#[derive(Clone)]
pub struct Hooks(Arc<Mutex<Held>>);

/// What attaching needs.
pub(crate) struct Held {
    programs: BTreeMap<Hook, Program>,
    pub(crate) links: Links,
    /// Of far interfaces.
    pub(crate) numbers: Numbers,
    /// Until when an interface adopts flows, in the kernel.
    adoption: Array<MapData, u32>,
    pub(crate) adopts_for: Duration,
    /// Interfaces that adopt running flows once they are guarded, by number.
    adopting: BTreeSet<u32>,
    reader: Arc<Reader>,
    /// When a filter was added last.
    filtered: Option<Instant>,
}

/// How long no filter is added before links take the place of filters.
const CALM: Duration = Duration::from_secs(1);

struct Program {
    id: u32,
    fd: ProgramFd,
}

impl Hooks {
    pub(crate) fn new(
        ebpf: &mut Ebpf,
        pin_dir: Option<&Path>,
        numbers: Numbers,
        adopts_for: Duration,
        reader: Arc<Reader>,
    ) -> std::result::Result<Self, DatapathError> {
        let mut programs = BTreeMap::new();
        for hook in Hook::ALL {
            let name = hook.program();
            let program = ebpf.program(name).ok_or(DatapathError::Missing(name))?;
            let id = program.info().map_err(program_error(name))?.id();
            let fd = program.fd().map_err(program_error(name))?.try_clone();
            let fd = fd.map_err(pin_error(Path::new(name)))?;
            programs.insert(hook, Program { id, fd });
        }
        const MAP: &str = "ADOPTION";
        let map = ebpf.map(MAP).ok_or(DatapathError::Missing(MAP))?;
        let adoption = duplicate(MAP, map)?.try_into().map_err(map_error(MAP))?;
        Ok(Self(Arc::new(Mutex::new(Held {
            programs,
            links: Links::new(pin_dir),
            numbers,
            adoption,
            adopts_for,
            adopting: BTreeSet::new(),
            reader,
            filtered: None,
        }))))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks once at which interfaces may have filters, for the calls that follow. Without it each
    /// call asks for its interface.
    pub fn look(&self) {
        self.lock().links.look();
    }

    /// Attaches exactly these hooks to an interface. The program of a hook that is already attached
    /// is replaced in place by this version's, without changing how it is attached.
    ///
    /// # Errors
    ///
    /// When a hook could not be attached; then the interface has the hooks that it had before. Or
    /// when one that is not asked for could not be taken off.
    pub fn attach(&self, way: Way, ifindex: u32, hooks: &[Hook]) -> Result<()> {
        let held = &mut *self.lock();
        let mut on = held.links.on(ifindex)?;
        let interface = held.numbers.of(ifindex);
        let adopts = held.adopting.contains(&interface);
        if !hooks.is_empty() && (adopts || Hook::ALL.iter().all(|hook| !on.has(*hook))) {
            held.set_adoption(interface, adopts)?;
        }
        let mut fresh = Vec::new();
        for hook in hooks {
            match held.put_on(way, &mut on, *hook) {
                Ok(true) => fresh.push(*hook),
                Ok(false) => {}
                Err(error) => {
                    for hook in fresh {
                        // A hook that can't be taken off here goes with the next call that does not
                        // ask for it.
                        let _ = held.links.take_off(&mut on, hook);
                    }
                    return Err(error);
                }
            }
        }
        if !hooks.is_empty() {
            held.adopting.remove(&interface);
        }
        fault::step("one-replaced");
        // The old hooks are taken off only after the new ones judge.
        let mut taken_off = Ok(());
        for hook in Hook::ALL.into_iter().filter(|hook| !hooks.contains(hook)) {
            taken_off = taken_off.and(held.links.take_off(&mut on, hook));
        }
        held.links.note_filters(&on);
        if hooks.is_empty() {
            taken_off = taken_off.and_then(|()| held.links.drop_qdisc(ifindex));
        }
        taken_off
    }

    /// Holds by links what is held by filters on one interface, if there is such an interface and no
    /// other has been given filters for a second: links would keep those waiting that come next.
    /// Between two steps both judge. Returns whether it did something, and the interface when the
    /// kernel refuses a link.
    pub fn exchange(&self) -> std::result::Result<bool, (u32, AttachError)> {
        let held = &mut *self.lock();
        let is_calm = held.filtered.is_none_or(|last| last.elapsed() >= CALM);
        let Some(ifindex) = is_calm.then(|| held.links.filtered.pop_first()).flatten() else {
            return Ok(false);
        };
        held.exchange(ifindex)
            .map_err(|error| (ifindex, error))
            .map(|()| true)
    }

    /// Interfaces that may have any of our hooks.
    ///
    /// # Errors
    ///
    /// When the kernel does not tell.
    pub fn attached(&self) -> Result<BTreeSet<u32>> {
        self.lock().links.attached(|_| true)
    }

    /// The same, of interfaces other than these.
    ///
    /// # Errors
    ///
    /// When the kernel does not tell.
    pub fn attached_beside(&self, ports: &BTreeSet<u32>) -> Result<BTreeSet<u32>> {
        self.lock()
            .links
            .attached(|ifindex| !ports.contains(&ifindex))
    }

    /// The hooks that judge an interface.
    ///
    /// # Errors
    ///
    /// When the kernel does not tell.
    pub fn on(&self, ifindex: u32) -> Result<BTreeSet<Hook>> {
        let on = self.lock().links.on(ifindex)?;
        Ok(Hook::ALL.into_iter().filter(|hook| on.has(*hook)).collect())
    }

    /// Says which interfaces adopt the flows that run through them, from when they are guarded. No
    /// other interface does: not one that has reappeared, nor one that an earlier daemon guarded.
    pub fn adopt(&self, interfaces: impl IntoIterator<Item = u32>) {
        self.lock().adopting.extend(interfaces);
    }

    /// Forgets that interfaces would adopt flows which are not there any more.
    pub fn keep_adopting(&self, exists: impl Fn(u32) -> bool) {
        self.lock().adopting.retain(|interface| exists(*interface));
    }

    pub(crate) fn set_adoption(
        &self,
        interface: u32,
        adopts: bool,
    ) -> std::result::Result<(), DatapathError> {
        self.lock().set_adoption(interface, adopts)
    }
}

impl Held {
    /// Lets flows continue that already run through an interface which is about to be guarded, or
    /// ends what an interface of the same number was allowed.
    fn set_adoption(
        &mut self,
        interface: u32,
        adopts: bool,
    ) -> std::result::Result<(), DatapathError> {
        let until = match self.adopts_for.as_secs() {
            _ if interface >= INTERFACES => return Ok(()),
            0 => 0,
            _ if !adopts => 0,
            seconds => {
                let jiffies = self.reader.jiffies()? + seconds * u64::from(self.reader.per_second);
                (jiffies >> TICK_SHIFT) as u32
            }
        };
        let set = self.adoption.set(interface, until, 0);
        set.map_err(map_error("ADOPTION"))
    }

    /// Attaches a hook, or replaces the program of an attached one by this version's. Returns
    /// whether it was not attached before.
    fn put_on(&mut self, way: Way, on: &mut On, hook: Hook) -> Result<bool> {
        let (id, program) = program(&self.programs, hook)?;
        if self.links.update_links(on, hook, id, program)?
            || self.links.update_filter(on, hook, id, program)?
        {
            return Ok(false);
        }
        let link = match (way, hook.place()) {
            (Way::Clsact, Some(_)) => None,
            _ => link(on.ifindex, hook, program)?,
        };
        match (link, hook.place()) {
            (Some(link), _) => self.links.keep(on, hook, link, id)?,
            (None, Some((side, place))) => {
                self.links.add_filter(on, hook, side, place, program, id)?;
                self.filtered = Some(Instant::now());
            }
            (None, None) => {}
        }
        Ok(true)
    }

    fn exchange(&mut self, ifindex: u32) -> Result<()> {
        let mut on = self.links.on(ifindex)?;
        for hook in Hook::ALL {
            let (Some(filter), Some((side, _))) = (on.filter(hook).cloned(), hook.place()) else {
                continue;
            };
            if !on.has_link(hook) {
                let (id, program) = program(&self.programs, hook)?;
                match link(ifindex, hook, program)? {
                    Some(link) => self.links.keep(&mut on, hook, link, id)?,
                    // The kernel has no such links, and is asked no more.
                    None => {
                        self.links.may_link = false;
                        self.links.filtered.clear();
                        return Ok(());
                    }
                }
            }
            self.links.remove_replaced(&mut on, side, &filter)?;
        }
        Ok(())
    }
}

fn program(programs: &BTreeMap<Hook, Program>, hook: Hook) -> Result<(u32, BorrowedFd<'_>)> {
    let name = hook.program();
    let program = programs.get(&hook).ok_or(DatapathError::Missing(name))?;
    Ok((program.id, program.fd.as_fd()))
}

/// Makes a link; none where the kernel has none for TC.
fn link(ifindex: u32, hook: Hook, program: BorrowedFd<'_>) -> Result<Option<Link>> {
    let is_unknown =
        |error: &io::Error| hook.place().is_some() && error.raw_os_error() == Some(libc::EINVAL);
    match Link::create(program, ifindex, hook.hold()) {
        Ok(link) => Ok(Some(link)),
        Err(error) if is_unknown(&error) => Ok(None),
        Err(error) => Err(refusal(ifindex, hook, error)),
    }
}
