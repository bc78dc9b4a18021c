//! How programs are attached to interfaces, stay there without the daemon, and are taken off.
//!
//! XDP is held by a link, TC by a link where the kernel has TCX (6.6). Links are pinned below
//! `pin_dir/vN/links` as `IFINDEX-HOOK`; one that an earlier version has pinned is taken over. Before TCX a TC program is a filter on the qdisc clsact,
//! which stays with its interface; its name says whose it is: `wardline/PROGRAM@pin_dir`, with
//! `wardline+clsact` when we made the qdisc too.
//!
//! So all that is attached can be found in the kernel, and nothing is believed from memory: a link
//! tells which interface it is on, none once that has been deleted, and a filter goes with its
//! interface. What others have put on an interface stays as it is.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::fd::{AsFd as _, BorrowedFd},
    path::{Path, PathBuf},
    sync::Arc,
};

use aya::programs::loaded_programs;
use wardline_ebpf::abi::ABI_VERSION;

use crate::{
    bpf::{Hold, Link},
    datapath::{Datapath, DatapathError, program_error},
    netlink::{self, CLSACT, Filter, Place, Side},
};

/// Why a program is not attached as it should be.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// Somebody else's program is where ours would be.
    #[error("{0}")]
    Taken(String),
    /// The interface, or what is above it, keeps the program off.
    #[error("{0}")]
    Barred(String),
    /// The kernel refused.
    #[error("program {program}: {source}")]
    Refused {
        /// The program.
        program: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A pinned link.
    #[error("{}: {source}", path.display())]
    Pin {
        /// The pin.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The filters of interfaces.
    #[error("filters of interface {ifindex}: {source}")]
    Filters {
        /// The interface; 0: any.
        ifindex: u32,
        /// Why.
        source: io::Error,
    },
    /// The program is not there.
    #[error(transparent)]
    Program(#[from] DatapathError),
}

type Result<T> = std::result::Result<T, AttachError>;

/// The hooks that judge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hook {
    /// What enters, in the driver.
    Xdp,
    /// What enters, above the driver.
    TcIngress,
    /// What leaves.
    TcEgress,
    /// What enters with a VLAN tag that [`Hook::Xdp`] could not see; drops it.
    Tags,
}

impl Hook {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Xdp, Self::TcIngress, Self::TcEgress, Self::Tags];

    pub(crate) fn program(self) -> &'static str {
        match self {
            Self::Xdp => "xdp_ingress",
            Self::TcIngress => "tc_ingress",
            Self::TcEgress => "tc_egress",
            Self::Tags => "tag_ingress",
        }
    }

    fn pin(self) -> &'static str {
        match self {
            Self::Xdp => "xdp",
            Self::TcIngress => "ingress",
            Self::TcEgress => "egress",
            Self::Tags => "tags",
        }
    }

    /// Before all others, on either side: a program that says pass ends the round, so that those
    /// behind it are not asked.
    fn hold(self) -> Hold {
        match self {
            Self::Xdp => Hold::Xdp,
            Self::TcIngress | Self::Tags => Hold::Ingress,
            Self::TcEgress => Hold::Egress,
        }
    }

    /// Its place as a filter; XDP has none.
    fn place(self) -> Option<(Side, Place)> {
        /// The first, for the same reason as in [`Hook::hold`].
        const PRIORITY: u16 = 1;
        // Unlikely to be taken, and the same for ever: the next daemon replaces what is there.
        let (side, handle) = match self {
            Self::Xdp => return None,
            Self::TcIngress => (Side::Ingress, 0x776c),
            Self::TcEgress => (Side::Egress, 0x776c),
            Self::Tags => (Side::Ingress, 0x776d),
        };
        let priority = PRIORITY;
        Some((side, Place { priority, handle }))
    }
}

/// How TC programs that are not attached yet are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// By a link if the kernel makes one, else by a filter.
    Best,
    /// By a filter, as on kernels before 6.6.
    Clsact,
}

impl Datapath {
    /// Makes exactly these hooks judge an interface. A hook that is attached gets this version's
    /// program in place, the way it is attached.
    ///
    /// # Errors
    ///
    /// When one could not be attached; then the interface has the hooks that it had before. Or when
    /// one that is not asked for could not be taken off.
    pub fn attach(&mut self, ifindex: u32, hooks: &[Hook]) -> Result<()> {
        self.attach_by(Way::Best, ifindex, hooks)
    }

    /// The same, choosing the way.
    ///
    /// # Errors
    ///
    /// As [`Datapath::attach`].
    pub fn attach_by(&mut self, way: Way, ifindex: u32, hooks: &[Hook]) -> Result<()> {
        if !hooks.is_empty() && !self.is_guarded(ifindex)? {
            self.adopt(ifindex)?;
        }
        let mut fresh = Vec::new();
        for hook in hooks {
            match self.put_on(way, ifindex, *hook) {
                Ok(true) => fresh.push(*hook),
                Ok(false) => {}
                Err(error) => {
                    for hook in fresh {
                        // What stays now goes with the next call, which does not ask for it.
                        let _ = self.links.take_off(ifindex, hook);
                    }
                    return Err(error);
                }
            }
        }
        // Only when the new ones judge, the old ones go.
        let mut taken_off = Ok(());
        for hook in Hook::ALL.into_iter().filter(|hook| !hooks.contains(hook)) {
            taken_off = taken_off.and(self.links.take_off(ifindex, hook));
        }
        taken_off
    }

    /// Interfaces that any hook of ours may be on.
    ///
    /// # Errors
    ///
    /// When the kernel does not tell.
    pub fn attached(&self) -> Result<BTreeSet<u32>> {
        self.links.attached()
    }

    /// Whether a hook judges an interface.
    ///
    /// # Errors
    ///
    /// When the kernel does not tell.
    pub fn is_attached(&self, ifindex: u32, hook: Hook) -> Result<bool> {
        for found in self.links.found(ifindex, hook)? {
            if found.link.info().map_err(refused(hook))?.ifindex == ifindex {
                return Ok(true);
            }
        }
        Ok(self.links.filter(ifindex, hook)?.is_some())
    }

    /// Whether any hook judges an interface.
    fn is_guarded(&self, ifindex: u32) -> Result<bool> {
        for hook in Hook::ALL {
            if self.is_attached(ifindex, hook)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Attaches a hook, or gives one that is attached this version's program; answers whether it
    /// was not attached before.
    fn put_on(&mut self, way: Way, ifindex: u32, hook: Hook) -> Result<bool> {
        let name = hook.program();
        let program = self
            .ebpf
            .program(name)
            .ok_or(DatapathError::Missing(name))?;
        let id = program.info().map_err(program_error(name))?.id();
        let program = program.fd().map_err(program_error(name))?.as_fd();

        let mut is_on = false;
        for found in self.links.found(ifindex, hook)? {
            let info = found.link.info().map_err(refused(hook))?;
            // Its interface has been deleted, and another has the number; or there are two.
            if info.ifindex != ifindex || is_on {
                self.links.release(ifindex, hook, &found)?;
                continue;
            }
            if info.program != id {
                found.link.update(program).map_err(refused(hook))?;
            }
            self.links.bring_home(ifindex, hook, &found)?;
            is_on = true;
        }
        if is_on {
            return Ok(false);
        }
        if let (Some(filter), Some((side, place))) =
            (self.links.filter(ifindex, hook)?, hook.place())
        {
            if filter.program != id {
                netlink::set_filter(ifindex, side, place, program, &filter.name)
                    .map_err(refused(hook))?;
            }
            return Ok(false);
        }
        let link = match (way, hook.place()) {
            (Way::Clsact, Some(_)) => None,
            (_, place) => match Link::create(program, ifindex, hook.hold()) {
                Ok(link) => Some(link),
                // A kernel without TCX knows no such link.
                Err(error) if place.is_some() && error.raw_os_error() == Some(libc::EINVAL) => None,
                Err(error) => return Err(refusal(ifindex, hook, error)),
            },
        };
        match (link, hook.place()) {
            (Some(link), _) => self.links.keep(ifindex, hook, link)?,
            (None, Some((side, place))) => {
                self.links.add_filter(ifindex, hook, side, place, program)?;
            }
            (None, None) => {}
        }
        Ok(true)
    }
}

/// Where to look for what is attached.
#[derive(Debug)]
pub(crate) struct Links {
    /// Where links are pinned; none: links last as long as this does.
    pin_dir: Option<PathBuf>,
    held: BTreeMap<(u32, Hook), Arc<Link>>,
    /// What filters of ours say behind the `@`.
    owner: String,
}

/// A link of ours, and where it is pinned.
struct Found {
    link: Arc<Link>,
    pin: Option<PathBuf>,
}

impl Links {
    pub(crate) fn new(pin_dir: Option<&Path>) -> Self {
        Self {
            pin_dir: pin_dir.map(Path::to_owned),
            held: BTreeMap::new(),
            owner: pin_dir.map(owner).unwrap_or_default(),
        }
    }

    /// The links of a hook, this version's first; their interfaces may be gone.
    fn found(&self, ifindex: u32, hook: Hook) -> Result<Vec<Found>> {
        let held = self.held.get(&(ifindex, hook)).cloned();
        let mut found: Vec<Found> = held
            .map(|link| Found { link, pin: None })
            .into_iter()
            .collect();
        let own = self.pin(ifindex, hook);
        let elsewhere = self
            .directories()
            .into_iter()
            .map(|links| links.join(pin_name(ifindex, hook)));
        let elsewhere = elsewhere.filter(|pin| Some(pin) != own.as_ref());
        for pin in own.iter().cloned().chain(elsewhere) {
            match Link::open(&pin) {
                Ok(link) => found.push(Found {
                    link: Arc::new(link),
                    pin: Some(pin),
                }),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(pinned(&pin)(error)),
            }
        }
        Ok(found)
    }

    /// The filter of a hook.
    fn filter(&self, ifindex: u32, hook: Hook) -> Result<Option<Filter>> {
        let Some((side, place)) = hook.place() else {
            return Ok(None);
        };
        let filters = netlink::filters(ifindex, side).map_err(unread(ifindex))?;
        let mut ours = filters.into_iter().filter(|filter| {
            let mark = Mark::read(&filter.name);
            filter.place == place
                && mark
                    .is_some_and(|mark| mark.program == hook.program() && mark.owner == self.owner)
        });
        Ok(ours.next())
    }

    /// Makes a link stay.
    fn keep(&mut self, ifindex: u32, hook: Hook, link: Link) -> Result<()> {
        let Some(pin) = self.pin(ifindex, hook) else {
            self.held.insert((ifindex, hook), Arc::new(link));
            return Ok(());
        };
        link.pin(&pin).map_err(|error| {
            // At once, not some time after this descriptor is closed.
            let _ = link.detach();
            pinned(&pin)(error)
        })
    }

    /// Puts a filter on clsact, which is made if there is none.
    fn add_filter(
        &self,
        ifindex: u32,
        hook: Hook,
        side: Side,
        place: Place,
        program: BorrowedFd<'_>,
    ) -> Result<()> {
        let fresh = match netlink::add_clsact(ifindex) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
            Err(error) => return Err(refused(hook)(error)),
        };
        let added = self.add_filter_on_clsact(ifindex, hook, side, place, program, fresh);
        if added.is_err() && fresh {
            remove_unused_clsact(ifindex)?;
        }
        added
    }

    fn add_filter_on_clsact(
        &self,
        ifindex: u32,
        hook: Hook,
        side: Side,
        place: Place,
        program: BorrowedFd<'_>,
        fresh: bool,
    ) -> Result<()> {
        let qdiscs = netlink::qdiscs().map_err(unread(ifindex))?;
        // A filter for what leaves would judge what enters on a qdisc that has only one side.
        if let Some(kind) = qdiscs.get(&ifindex).filter(|kind| *kind != CLSACT) {
            return Err(AttachError::Taken(format!(
                "a qdisc of kind {kind} is where clsact would be; tc qdisc del dev … {kind} makes \
                 room"
            )));
        }
        let filters = netlink::filters(ifindex, side).map_err(unread(ifindex))?;
        // The kernel keeps filters of one priority together only when they are of one kind.
        let in_the_way = |filter: &&Filter| {
            filter.place == place
                || filter.place.priority == place.priority
                    && (filter.kind != "bpf" || filter.protocol != libc::ETH_P_ALL as u16)
        };
        if let Some(filter) = filters.iter().find(in_the_way) {
            return Err(AttachError::Taken(format!(
                "another filter is where ours would be: priority {}, kind {}, handle {:#x}{}",
                filter.place.priority,
                filter.kind,
                filter.place.handle,
                match filter.program {
                    0 => String::new(),
                    id => format!(", program {}", described(id)),
                }
            )));
        }
        let ours = ours(ifindex, &self.owner)?;
        let mark = Mark {
            program: hook.program(),
            owner: &self.owner,
            made_clsact: fresh || ours.iter().any(|(_, _, made_clsact)| *made_clsact),
        };
        netlink::set_filter(ifindex, side, place, program, &mark.name()).map_err(refused(hook))
    }

    /// Pins an earlier version's link where this version's are.
    fn bring_home(&self, ifindex: u32, hook: Hook, found: &Found) -> Result<()> {
        match (&found.pin, self.pin(ifindex, hook)) {
            (Some(pin), Some(own)) if *pin != own => fs::rename(pin, own).map_err(pinned(pin)),
            _ => Ok(()),
        }
    }

    /// Takes a hook off, if it is on.
    fn take_off(&mut self, ifindex: u32, hook: Hook) -> Result<()> {
        for found in self.found(ifindex, hook)? {
            self.release(ifindex, hook, &found)?;
        }
        if let (Some(filter), Some((side, _))) = (self.filter(ifindex, hook)?, hook.place()) {
            remove_filter(ifindex, side, &filter)?;
        }
        Ok(())
    }

    fn release(&mut self, ifindex: u32, hook: Hook, found: &Found) -> Result<()> {
        found.link.detach().map_err(refused(hook))?;
        match &found.pin {
            Some(pin) => fs::remove_file(pin).map_err(pinned(pin))?,
            None => drop(self.held.remove(&(ifindex, hook))),
        }
        Ok(())
    }

    fn attached(&self) -> Result<BTreeSet<u32>> {
        let mut indexes: BTreeSet<u32> = self.held.keys().map(|(index, _)| *index).collect();
        let pins = self
            .directories()
            .into_iter()
            .flat_map(|links| children(&links));
        indexes.extend(pins.filter_map(|pin| {
            let name = pin.file_name()?.to_str()?;
            name.split('-').next()?.parse::<u32>().ok()
        }));
        for ifindex in with_clsact()? {
            if !ours(ifindex, &self.owner)?.is_empty() {
                indexes.insert(ifindex);
            }
        }
        Ok(indexes)
    }

    /// The directories of pinned links, of every version.
    fn directories(&self) -> Vec<PathBuf> {
        let versions = self.pin_dir.iter().flat_map(|pin_dir| children(pin_dir));
        versions.map(|version| version.join("links")).collect()
    }

    /// Where this version pins a hook's link.
    fn pin(&self, ifindex: u32, hook: Hook) -> Option<PathBuf> {
        let version = self.pin_dir.as_ref()?.join(format!("v{ABI_VERSION}"));
        Some(version.join("links").join(pin_name(ifindex, hook)))
    }
}

fn pin_name(ifindex: u32, hook: Hook) -> String {
    format!("{ifindex}-{}", hook.pin())
}

/// Removes everything that was ever attached or pinned: first what judges, so that nothing is
/// judged by half of it. Goes on after a failure and answers all of them.
pub fn detach(pin_dir: &Path) -> Vec<AttachError> {
    let mut errors = Vec::new();
    for version in children(pin_dir) {
        for pin in children(&version.join("links")) {
            errors.extend(release(&pin).map_err(pinned(&pin)).err());
        }
    }
    errors.extend(remove_filters(&owner(pin_dir)));
    let mut note = |path: &Path, removed: io::Result<()>| match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            errors.push(pinned(path)(error));
        }
        _ => {}
    };
    for version in children(pin_dir) {
        for pin in children(&version.join("maps")) {
            note(&pin, fs::remove_file(&pin));
        }
        for directory in [version.join("links"), version.join("maps"), version] {
            note(&directory, fs::remove_dir(&directory));
        }
    }
    note(pin_dir, fs::remove_dir(pin_dir));
    errors
}

/// Takes a pinned link off its hook, and its pin away.
fn release(pin: &Path) -> io::Result<()> {
    Link::open(pin)?.detach()?;
    fs::remove_file(pin)
}

/// What the name of a filter says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark<'a> {
    program: &'a str,
    owner: &'a str,
    /// Whether the qdisc was made for it.
    made_clsact: bool,
}

impl<'a> Mark<'a> {
    const PLAIN: &'static str = "wardline";
    const MADE: &'static str = "wardline+clsact";

    fn name(&self) -> String {
        let who = if self.made_clsact {
            Self::MADE
        } else {
            Self::PLAIN
        };
        format!("{who}/{}@{}", self.program, self.owner)
    }

    fn read(name: &'a str) -> Option<Self> {
        let (what, owner) = name.split_once('@')?;
        let (who, program) = what.split_once('/')?;
        let made_clsact = match who {
            Self::PLAIN => false,
            Self::MADE => true,
            _ => return None,
        };
        Some(Self {
            program,
            owner,
            made_clsact,
        })
    }
}

/// A pin directory as filters name it, however it is written.
fn owner(pin_dir: &Path) -> String {
    let plain: PathBuf = pin_dir.components().collect();
    plain.to_string_lossy().into_owned()
}

/// The filters that an owner has on an interface, and whether the qdisc was made for them.
fn ours(ifindex: u32, owner: &str) -> Result<Vec<(Side, Filter, bool)>> {
    let mut ours = Vec::new();
    for side in Side::BOTH {
        for filter in netlink::filters(ifindex, side).map_err(unread(ifindex))? {
            if let Some(mark) = Mark::read(&filter.name)
                && mark.owner == owner
            {
                let made_clsact = mark.made_clsact;
                ours.push((side, filter, made_clsact));
            }
        }
    }
    Ok(ours)
}

/// Removes an owner's filters from all interfaces of the namespace.
fn remove_filters(owner: &str) -> Vec<AttachError> {
    let interfaces = match with_clsact() {
        Ok(interfaces) => interfaces,
        Err(error) => return vec![error],
    };
    let mut errors = Vec::new();
    for ifindex in interfaces {
        match ours(ifindex, owner) {
            Ok(ours) => errors.extend(
                ours.iter()
                    .filter_map(|(side, filter, _)| remove_filter(ifindex, *side, filter).err()),
            ),
            Err(error) => errors.push(error),
        }
    }
    errors
}

/// Removes a filter of ours, and the qdisc when it was made for our filters and has no other.
fn remove_filter(ifindex: u32, side: Side, filter: &Filter) -> Result<()> {
    if let Err(error) = netlink::remove_filter(ifindex, side, filter.place) {
        // It may have gone with its interface.
        let left = netlink::filters(ifindex, side).map_err(unread(ifindex))?;
        if left.contains(filter) {
            return Err(unread(ifindex)(error));
        }
    }
    if Mark::read(&filter.name).is_some_and(|mark| mark.made_clsact) {
        remove_unused_clsact(ifindex)?;
    }
    Ok(())
}

/// Removes the qdisc if there is no filter on it. One that somebody adds in the same instant goes
/// with it: the kernel can't be asked to remove only an empty one.
fn remove_unused_clsact(ifindex: u32) -> Result<()> {
    for side in Side::BOTH {
        if !netlink::filters(ifindex, side)
            .map_err(unread(ifindex))?
            .is_empty()
        {
            return Ok(());
        }
    }
    match netlink::remove_clsact(ifindex) {
        Err(error) if with_clsact()?.contains(&ifindex) => Err(unread(ifindex)(error)),
        _ => Ok(()),
    }
}

/// The interfaces that have the qdisc.
fn with_clsact() -> Result<BTreeSet<u32>> {
    let qdiscs = netlink::qdiscs().map_err(unread(0))?;
    let clsact = qdiscs.into_iter().filter(|(_, kind)| kind == CLSACT);
    Ok(clsact.map(|(ifindex, _)| ifindex).collect())
}

/// Why the kernel made no link, in words that say what would help.
fn refusal(ifindex: u32, hook: Hook, error: io::Error) -> AttachError {
    let code = error.raw_os_error().unwrap_or(0);
    let barred = |words: &str| AttachError::Barred(words.to_owned());
    match (hook, code) {
        (Hook::Xdp, libc::EOPNOTSUPP) => barred("its driver has no XDP"),
        (Hook::Xdp, libc::ERANGE) => barred("its MTU is too large for XDP"),
        (Hook::Xdp, libc::EBUSY | libc::EEXIST) => {
            holder(ifindex, code).unwrap_or_else(|| refused(hook)(error))
        }
        (_, libc::ERANGE) => barred("its TC hook holds as many programs as it can"),
        _ => refused(hook)(error),
    }
}

/// Whose XDP program keeps ours off an interface.
fn holder(ifindex: u32, code: i32) -> Option<AttachError> {
    let devices = netlink::devices().ok()?;
    let own = devices.iter().find(|device| device.index == ifindex)?;
    if code == libc::EBUSY {
        return Some(AttachError::Taken(format!(
            "another program is on its XDP hook: {}; take that off, or let TC judge behind it with \
             attach: tc",
            described(own.native?)
        )));
    }
    let name = &own.name;
    if let Some(id) = own.generic {
        return Some(AttachError::Barred(format!(
            "a generic XDP program, {}, excludes XDP in the driver; ip link set dev {name} \
             xdpgeneric off takes it off",
            described(id)
        )));
    }
    // The kernel says no more than that there is one; it may be in another namespace.
    let above = devices.iter().find_map(|device| {
        let is_above = own.controller == Some(device.index) || device.lower == Some(ifindex);
        let id = device.native.or(device.generic)?;
        is_above.then_some((&device.name, id))
    });
    Some(AttachError::Barred(match above {
        Some((above, id)) => format!(
            "{above} above it has an XDP program, {}, and the kernel allows XDP on one of the two; \
             ip link set dev {above} xdp off takes it off",
            described(id)
        ),
        None => "a device above it has an XDP program, and the kernel allows XDP on one of the two"
            .to_owned(),
    }))
}

/// A program, as far as the kernel tells: id, name and type.
fn described(id: u32) -> String {
    let programs = loaded_programs().flatten();
    let Some(info) = programs.into_iter().find(|info| info.id() == id) else {
        return format!("id {id}");
    };
    let kind = format!("{:?}", info.program_type());
    let kind = kind.trim_start_matches("BPF_PROG_TYPE_").to_lowercase();
    match info.name_as_str() {
        Some(name) if !name.is_empty() => format!("id {id}, {name:?}, {kind}"),
        _ => format!("id {id}, {kind}"),
    }
}

fn children(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

fn refused(hook: Hook) -> impl Fn(io::Error) -> AttachError {
    let program = hook.program();
    move |source| AttachError::Refused { program, source }
}

fn pinned(path: &Path) -> impl Fn(io::Error) -> AttachError + use<> {
    let path = path.to_owned();
    move |source| AttachError::Pin {
        path: path.clone(),
        source,
    }
}

fn unread(ifindex: u32) -> impl Fn(io::Error) -> AttachError {
    move |source| AttachError::Filters { ifindex, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_says_whose_it_is() {
        let owner = owner(Path::new("/sys/fs/bpf/a@b/"));
        for made_clsact in [false, true] {
            let mark = Mark {
                program: "tc_ingress",
                owner: &owner,
                made_clsact,
            };
            let name = mark.name();
            assert_eq!(Mark::read(&name), Some(mark));
            assert!(name.ends_with("/tc_ingress@/sys/fs/bpf/a@b"), "{name}");
        }
        for other in [
            "",
            "tc_ingress",
            "cilium/tc_ingress@/sys/fs/bpf",
            "wardline@/x",
        ] {
            assert_eq!(Mark::read(other), None, "{other}");
        }
    }
}
