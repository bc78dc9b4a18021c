//! How programs are attached to interfaces, outlive the daemon, and are taken off.
//!
//! XDP is attached by a link, TC by a link where the kernel has TCX (6.6). Links are pinned below
//! `pin_dir/vN/links` as `IFINDEX-HOOK`; one that an earlier version has pinned is taken over.
//! Before TCX a TC program is a filter on the qdisc clsact, which lasts as long as its interface.
//! The filter's name says whose it is: `wardline/PROGRAM@pin_dir`, with `wardline+clsact` when we
//! made the qdisc too.
//!
//! So everything that is attached can be found in the kernel, and nothing relies on memory: a link
//! reports its interface, or none once the interface has been deleted, and a filter is deleted with
//! its interface. Programs of others on an interface stay as they are.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::fd::BorrowedFd,
    path::{Path, PathBuf},
    sync::Arc,
};

use aya::programs::loaded_programs;
use wardline_ebpf::abi::ABI_VERSION;

use crate::{
    Hook,
    bpf::Link,
    down::{self, Down},
    error::AttachError,
    netlink::{self, CLSACT, Filter, Place, Side},
};

type Result<T> = std::result::Result<T, AttachError>;

/// Where attached programs are found.
#[derive(Debug)]
pub(crate) struct Links {
    /// Where links are pinned; none: they last as long as this value.
    pub(crate) pin_dir: Option<PathBuf>,
    pub(crate) held: BTreeMap<(u32, Hook), Arc<Link>>,
    pub(crate) down: Down,
    /// The text behind the `@` in the names of our filters.
    pub(crate) owner: String,
}

/// A link of ours, and where it is pinned.
pub(crate) struct Found {
    pub(crate) link: Arc<Link>,
    pub(crate) pin: Option<PathBuf>,
}

impl Links {
    pub(crate) fn new(pin_dir: Option<&Path>) -> Self {
        Self {
            pin_dir: pin_dir.map(Path::to_owned),
            held: BTreeMap::new(),
            down: Down::new(pin_dir),
            owner: pin_dir.map(owner).unwrap_or_default(),
        }
    }

    /// The links of a hook, this version's first; their interfaces may have been deleted.
    pub(crate) fn found(&self, ifindex: u32, hook: Hook) -> Result<Vec<Found>> {
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
    pub(crate) fn filter(&self, ifindex: u32, hook: Hook) -> Result<Option<Filter>> {
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

    /// Pins a link, or keeps it open if nothing is pinned.
    pub(crate) fn keep(&mut self, ifindex: u32, hook: Hook, link: Link) -> Result<()> {
        let Some(pin) = self.pin(ifindex, hook) else {
            self.held.insert((ifindex, hook), Arc::new(link));
            return Ok(());
        };
        link.pin(&pin).map_err(|error| {
            // Taken off now, because the kernel would do it only some time after this descriptor is
            // closed.
            let _ = link.detach();
            pinned(&pin)(error)
        })
    }

    /// Puts a filter on clsact, and makes that qdisc first if it is missing.
    pub(crate) fn add_filter(
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

    pub(crate) fn add_filter_on_clsact(
        &self,
        ifindex: u32,
        hook: Hook,
        side: Side,
        place: Place,
        program: BorrowedFd<'_>,
        fresh: bool,
    ) -> Result<()> {
        let qdiscs = netlink::qdiscs().map_err(unread(ifindex))?;
        // On a qdisc that has only one side, a filter for packets that leave would judge packets
        // that enter.
        if let Some(kind) = qdiscs.get(&ifindex).filter(|kind| *kind != CLSACT) {
            return Err(AttachError::Taken(format!(
                "a qdisc of kind {kind} is where clsact would be; tc qdisc del dev … {kind} makes \
                 room"
            )));
        }
        let filters = netlink::filters(ifindex, side).map_err(unread(ifindex))?;
        // Filters of one priority must be of one kind.
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

    /// Moves an earlier version's pin to this version's directory.
    pub(crate) fn bring_home(&self, ifindex: u32, hook: Hook, found: &Found) -> Result<()> {
        match (&found.pin, self.pin(ifindex, hook)) {
            (Some(pin), Some(own)) if *pin != own => fs::rename(pin, own).map_err(pinned(pin)),
            _ => Ok(()),
        }
    }

    /// Takes a hook off, if it is on.
    pub(crate) fn take_off(&mut self, ifindex: u32, hook: Hook) -> Result<()> {
        for found in self.found(ifindex, hook)? {
            self.release(ifindex, hook, &found)?;
        }
        if let (Some(filter), Some((side, _))) = (self.filter(ifindex, hook)?, hook.place()) {
            remove_filter(ifindex, side, &filter)?;
        }
        Ok(())
    }

    pub(crate) fn release(&mut self, ifindex: u32, hook: Hook, found: &Found) -> Result<()> {
        found.link.detach().map_err(refused(hook))?;
        match &found.pin {
            Some(pin) => fs::remove_file(pin).map_err(pinned(pin))?,
            None => drop(self.held.remove(&(ifindex, hook))),
        }
        Ok(())
    }

    pub(crate) fn attached(&self) -> Result<BTreeSet<u32>> {
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
    pub(crate) fn directories(&self) -> Vec<PathBuf> {
        let versions = self.pin_dir.iter().flat_map(|pin_dir| children(pin_dir));
        versions.map(|version| version.join("links")).collect()
    }

    /// Where this version pins a hook's link.
    pub(crate) fn pin(&self, ifindex: u32, hook: Hook) -> Option<PathBuf> {
        let version = self.pin_dir.as_ref()?.join(format!("v{ABI_VERSION}"));
        Some(version.join("links").join(pin_name(ifindex, hook)))
    }
}

fn pin_name(ifindex: u32, hook: Hook) -> String {
    format!("{ifindex}-{}", hook.pin())
}

/// Removes everything that was ever attached or pinned. The programs go first, so that none judges
/// with incomplete maps. Goes on after a failure and returns all errors.
pub fn detach(pin_dir: &Path) -> Vec<AttachError> {
    let mut errors = Vec::new();
    for version in children(pin_dir) {
        for pin in children(&version.join("links")) {
            errors.extend(release(&pin).map_err(pinned(&pin)).err());
        }
    }
    errors.extend(remove_filters(&owner(pin_dir)));
    errors.extend(down::open_all(pin_dir));
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

/// Takes a pinned link off its hook, and removes the pin.
fn release(pin: &Path) -> io::Result<()> {
    Link::open(pin)?.detach()?;
    fs::remove_file(pin)
}

/// The parts of a filter's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark<'a> {
    program: &'a str,
    owner: &'a str,
    /// Whether the qdisc was made for it.
    made_clsact: bool,
}

impl<'a> Mark<'a> {
    pub(crate) const PLAIN: &'static str = "wardline";
    pub(crate) const MADE: &'static str = "wardline+clsact";

    pub(crate) fn name(&self) -> String {
        let who = if self.made_clsact {
            Self::MADE
        } else {
            Self::PLAIN
        };
        format!("{who}/{}@{}", self.program, self.owner)
    }

    pub(crate) fn read(name: &'a str) -> Option<Self> {
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

/// A pin directory as filters name it, independent of how the path is written.
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
        // The filter may have been deleted with its interface.
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

/// Removes the qdisc if it has no filter. A filter that another program adds in the same instant is
/// lost: the kernel can't be asked to remove only an empty qdisc.
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

/// Explains why the kernel made no link, and what would help.
pub(crate) fn refusal(ifindex: u32, hook: Hook, error: io::Error) -> AttachError {
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

/// The XDP program that keeps ours off an interface.
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
    // The kernel only says that there is one; it may be in another namespace.
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

/// A program, as far as the kernel describes it: id, name and type.
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

pub(crate) fn refused(hook: Hook) -> impl Fn(io::Error) -> AttachError {
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
