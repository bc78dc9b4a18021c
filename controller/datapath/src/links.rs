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
    bpf::{Link, LinkInfo},
    down::{self, Down},
    error::AttachError,
    netlink::{self, CLSACT, Filter, Place, Side},
    qdisc,
};

type Result<T> = std::result::Result<T, AttachError>;

/// Where attached programs are found.
#[derive(Debug)]
pub(crate) struct Links {
    /// Where links are pinned; none: they last as long as this value.
    pin_dir: Option<PathBuf>,
    held: BTreeMap<(u32, Hook), Arc<Link>>,
    pub(crate) down: Down,
    /// The text behind the `@` in the names of our filters.
    owner: String,
    /// The directories of pinned links of other versions.
    elsewhere: Vec<PathBuf>,
    /// The interfaces that may have filters; none: each is asked.
    with_qdisc: Option<BTreeSet<u32>>,
    /// The interfaces with filters of ours in whose place there could be links.
    pub(crate) filtered: BTreeSet<u32>,
    /// Whether the kernel may have links for TC.
    pub(crate) may_link: bool,
}

/// A link of ours, where it is pinned, and what the kernel says of it.
#[derive(Debug)]
struct Found {
    hook: Hook,
    link: Arc<Link>,
    pin: Option<PathBuf>,
    info: LinkInfo,
}

/// What is attached to an interface: our links, and all filters.
#[derive(Debug)]
pub(crate) struct On {
    pub(crate) ifindex: u32,
    /// This version's first. The interface of a link may have been deleted.
    links: Vec<Found>,
    filters: Vec<(Side, Filter)>,
    owner: String,
}

impl On {
    /// Whether a hook judges the interface.
    pub(crate) fn has(&self, hook: Hook) -> bool {
        self.has_link(hook) || self.filter(hook).is_some()
    }

    pub(crate) fn has_link(&self, hook: Hook) -> bool {
        let mut links = self.links.iter();
        links.any(|found| found.hook == hook && found.info.ifindex == self.ifindex)
    }

    /// The filter of a hook.
    pub(crate) fn filter(&self, hook: Hook) -> Option<&Filter> {
        let (side, place) = hook.place()?;
        let mut filters = self.filters.iter();
        let found = filters.find(|(on, filter)| {
            let mark = self.mark(filter);
            *on == side
                && filter.place == place
                && mark.is_some_and(|mark| mark.program == hook.program())
        })?;
        Some(&found.1)
    }

    /// What the name of a filter says, if it is ours.
    fn mark<'a>(&self, filter: &'a Filter) -> Option<Mark<'a>> {
        Mark::read(&filter.name).filter(|mark| mark.owner == self.owner)
    }
}

impl Links {
    pub(crate) fn new(pin_dir: Option<&Path>) -> Self {
        let own = pin_dir.map(own_links);
        let versions = pin_dir.into_iter().flat_map(children);
        let elsewhere = versions.map(|version| version.join("links"));
        Self {
            elsewhere: elsewhere.filter(|it| Some(it) != own.as_ref()).collect(),
            pin_dir: pin_dir.map(Path::to_owned),
            held: BTreeMap::new(),
            down: Down::new(pin_dir),
            owner: pin_dir.map(owner).unwrap_or_default(),
            with_qdisc: None,
            filtered: BTreeSet::new(),
            may_link: true,
        }
    }

    /// Finds out with one request which interfaces may have filters.
    pub(crate) fn look(&mut self) {
        // Where the kernel does not tell, each interface is asked, and tells why.
        let qdiscs = netlink::qdiscs().ok();
        self.with_qdisc = qdiscs.map(|qdiscs| qdiscs.into_keys().collect());
    }

    /// What is attached to an interface.
    pub(crate) fn on(&self, ifindex: u32) -> Result<On> {
        let mut links = Vec::new();
        for hook in Hook::ALL {
            let mut add = |link: Arc<Link>, pin| -> Result<()> {
                let info = link.info().map_err(refused(hook))?;
                links.push(Found {
                    hook,
                    link,
                    pin,
                    info,
                });
                Ok(())
            };
            if let Some(link) = self.held.get(&(ifindex, hook)) {
                add(Arc::clone(link), None)?;
            }
            let own = self.pin(ifindex, hook);
            let elsewhere = self.elsewhere.iter();
            let elsewhere = elsewhere.map(|links| links.join(pin_name(ifindex, hook)));
            for pin in own.into_iter().chain(elsewhere) {
                match Link::open(&pin) {
                    Ok(link) => add(Arc::new(link), Some(pin))?,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(pinned(&pin)(error)),
                }
            }
        }
        let with_qdisc = self.with_qdisc.as_ref();
        let filters = match with_qdisc.is_none_or(|all| all.contains(&ifindex)) {
            true => filters(ifindex)?,
            false => Vec::new(),
        };
        Ok(On {
            ifindex,
            links,
            filters,
            owner: self.owner.clone(),
        })
    }

    /// Puts a program behind the link of a hook, and removes further links. Returns whether there is
    /// one.
    pub(crate) fn update_links(
        &mut self,
        on: &mut On,
        hook: Hook,
        id: u32,
        program: BorrowedFd<'_>,
    ) -> Result<bool> {
        let mut is_on = false;
        let (of_hook, others) = on.links.drain(..).partition(|found| found.hook == hook);
        on.links = others;
        let of_hook: Vec<Found> = of_hook;
        for mut found in of_hook {
            // The link's interface was deleted and another has its number, or there are two links.
            if found.info.ifindex != on.ifindex || is_on {
                self.release(on.ifindex, &found)?;
                continue;
            }
            if found.info.program != id {
                found.link.update(program).map_err(refused(hook))?;
                found.info.program = id;
            }
            // An earlier version's pin is moved to this version's directory.
            if let (Some(pin), Some(own)) = (&found.pin, self.pin(on.ifindex, hook))
                && *pin != own
            {
                fs::rename(pin, &own).map_err(pinned(pin))?;
                found.pin = Some(own);
            }
            on.links.push(found);
            is_on = true;
        }
        Ok(is_on)
    }

    /// Puts a program into the filter of a hook. Returns whether there is one.
    pub(crate) fn update_filter(
        &self,
        on: &mut On,
        hook: Hook,
        id: u32,
        program: BorrowedFd<'_>,
    ) -> Result<bool> {
        let (Some(filter), Some((side, place))) = (on.filter(hook), hook.place()) else {
            return Ok(false);
        };
        if filter.program != id {
            netlink::set_filter(on.ifindex, side, place, program, &filter.name)
                .map_err(refused(hook))?;
        }
        Ok(true)
    }

    /// Pins a link, or keeps it open if nothing is pinned.
    pub(crate) fn keep(&mut self, on: &mut On, hook: Hook, link: Link, program: u32) -> Result<()> {
        let (link, ifindex) = (Arc::new(link), on.ifindex);
        let pin = self.pin(ifindex, hook);
        match &pin {
            None => drop(self.held.insert((ifindex, hook), Arc::clone(&link))),
            Some(pin) => link.pin(pin).map_err(|error| {
                // Taken off now, because the kernel would do it only some time after this descriptor
                // is closed.
                let _ = link.detach();
                pinned(pin)(error)
            })?,
        }
        on.links.push(Found {
            hook,
            link,
            pin,
            info: LinkInfo { program, ifindex },
        });
        Ok(())
    }

    /// Puts a filter on clsact, and makes that qdisc first if it is missing.
    pub(crate) fn add_filter(
        &mut self,
        on: &mut On,
        hook: Hook,
        side: Side,
        place: Place,
        program: BorrowedFd<'_>,
        id: u32,
    ) -> Result<()> {
        let fresh = match netlink::add_clsact(on.ifindex) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
            Err(error) => return Err(refused(hook)(error)),
        };
        if let Some(with_qdisc) = &mut self.with_qdisc {
            with_qdisc.insert(on.ifindex);
        }
        // One that links have taken the place of filters on is ours as well.
        let pins = self.pin_dir.as_ref();
        let made = fresh || pins.is_some_and(|pins| qdisc::is_noted(pins, on.ifindex));
        if !fresh {
            look_at_qdisc(on)?;
        }
        let added = add_filter_on_clsact(on, hook, side, place, program, id, made);
        if added.is_err() && fresh {
            remove_unused_clsact(on.ifindex)?;
        }
        added
    }

    /// Remembers whether an interface has filters of ours that could be links.
    pub(crate) fn note_filters(&mut self, on: &On) {
        let has_filter = Hook::ALL.iter().any(|hook| on.filter(*hook).is_some());
        if has_filter && self.may_link {
            self.filtered.insert(on.ifindex);
        } else {
            self.filtered.remove(&on.ifindex);
        }
    }

    /// Takes a hook off, if it is on.
    pub(crate) fn take_off(&mut self, on: &mut On, hook: Hook) -> Result<()> {
        let (of_hook, others) = on.links.drain(..).partition(|found| found.hook == hook);
        on.links = others;
        let of_hook: Vec<Found> = of_hook;
        for found in of_hook {
            self.release(on.ifindex, &found)?;
        }
        if let (Some(filter), Some((side, _))) = (on.filter(hook).cloned(), hook.place()) {
            remove_filter(on.ifindex, side, &filter)?;
            on.filters.retain(|(at, it)| *at != side || *it != filter);
        }
        Ok(())
    }

    /// Removes a filter of ours in whose place there is a link. Its qdisc stays.
    pub(crate) fn remove_replaced(&self, on: &mut On, side: Side, filter: &Filter) -> Result<()> {
        if let Some(pins) = &self.pin_dir
            && on.mark(filter).is_some_and(|mark| mark.made_clsact)
        {
            qdisc::note(pins, on.ifindex).map_err(pinned(pins))?;
        }
        remove_only_filter(on.ifindex, side, filter)?;
        on.filters.retain(|(at, it)| *at != side || it != filter);
        Ok(())
    }

    /// Removes a qdisc that has stayed without filters, from an interface that is no port any more.
    pub(crate) fn drop_qdisc(&self, ifindex: u32) -> Result<()> {
        let pins = self.pin_dir.as_ref();
        let Some(pins) = pins.filter(|pins| qdisc::is_noted(pins, ifindex)) else {
            return Ok(());
        };
        remove_unused_clsact(ifindex)?;
        qdisc::forget(pins, ifindex).map_err(pinned(pins))
    }

    fn release(&mut self, ifindex: u32, found: &Found) -> Result<()> {
        found.link.detach().map_err(refused(found.hook))?;
        match &found.pin {
            Some(pin) => fs::remove_file(pin).map_err(pinned(pin))?,
            None => drop(self.held.remove(&(ifindex, found.hook))),
        }
        Ok(())
    }

    /// The interfaces that may have a hook of ours, of those that `counts` names.
    pub(crate) fn attached(&self, counts: impl Fn(u32) -> bool) -> Result<BTreeSet<u32>> {
        let held = self.held.keys().map(|(index, _)| *index);
        let own = self.pin_dir.as_deref().map(own_links);
        let pins = own.iter().chain(&self.elsewhere);
        let pins = pins.flat_map(|links| children(links)).filter_map(|pin| {
            let name = pin.file_name()?.to_str()?;
            name.split('-').next()?.parse::<u32>().ok()
        });
        let mut indexes: BTreeSet<u32> = held.chain(pins).filter(|it| counts(*it)).collect();
        for ifindex in with_clsact()?.into_iter().filter(|it| counts(*it)) {
            if !ours(ifindex, &self.owner)?.is_empty() {
                indexes.insert(ifindex);
            }
        }
        Ok(indexes)
    }

    /// Where this version pins a hook's link.
    fn pin(&self, ifindex: u32, hook: Hook) -> Option<PathBuf> {
        let links = own_links(self.pin_dir.as_ref()?);
        Some(links.join(pin_name(ifindex, hook)))
    }
}

/// Where this version pins links.
fn own_links(pin_dir: &Path) -> PathBuf {
    pin_dir.join(format!("v{ABI_VERSION}")).join("links")
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
    for ifindex in qdisc::all(pin_dir) {
        errors.extend(remove_unused_clsact(ifindex).err());
        errors.extend(
            qdisc::forget(pin_dir, ifindex)
                .map_err(pinned(pin_dir))
                .err(),
        );
    }
    errors.extend(qdisc::close(pin_dir).map_err(pinned(pin_dir)).err());
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

/// The filters of an interface.
fn filters(ifindex: u32) -> Result<Vec<(Side, Filter)>> {
    let mut all = Vec::new();
    for side in Side::BOTH {
        let filters = netlink::filters(ifindex, side).map_err(unread(ifindex))?;
        all.extend(filters.into_iter().map(|filter| (side, filter)));
    }
    Ok(all)
}

/// Reads the filters on a qdisc that was there before; refuses one that has only one side: there a
/// filter for packets that leave would judge packets that enter.
fn look_at_qdisc(on: &mut On) -> Result<()> {
    // Where there are filters of ours, this was done when the first was added.
    if on.filters.iter().any(|(_, it)| on.mark(it).is_some()) {
        return Ok(());
    }
    let qdiscs = netlink::qdiscs().map_err(unread(on.ifindex))?;
    if let Some(kind) = qdiscs.get(&on.ifindex).filter(|kind| *kind != CLSACT) {
        return Err(AttachError::Taken(format!(
            "a qdisc of kind {kind} is where clsact would be; tc qdisc del dev … {kind} makes room"
        )));
    }
    on.filters = filters(on.ifindex)?;
    Ok(())
}

/// Puts a filter on clsact; `made` says whether that qdisc was made for our filters.
fn add_filter_on_clsact(
    on: &mut On,
    hook: Hook,
    side: Side,
    place: Place,
    program: BorrowedFd<'_>,
    id: u32,
    made: bool,
) -> Result<()> {
    // Filters of one priority must be of one kind.
    let in_the_way = |(at, filter): &&(Side, Filter)| {
        *at == side
            && (filter.place == place
                || filter.place.priority == place.priority
                    && (filter.kind != "bpf" || filter.protocol != libc::ETH_P_ALL as u16))
    };
    if let Some((_, filter)) = on.filters.iter().find(in_the_way) {
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
    let mut marks = on.filters.iter().filter_map(|(_, it)| on.mark(it));
    let mark = Mark {
        program: hook.program(),
        owner: &on.owner,
        made_clsact: made || marks.any(|mark| mark.made_clsact),
    };
    let name = mark.name();
    netlink::set_filter(on.ifindex, side, place, program, &name).map_err(refused(hook))?;
    let filter = Filter {
        place,
        protocol: libc::ETH_P_ALL as u16,
        kind: "bpf".to_owned(),
        name,
        program: id,
    };
    on.filters.push((side, filter));
    Ok(())
}

/// The filters that an owner has on an interface, of those that are on it.
fn ours(ifindex: u32, owner: &str) -> Result<Vec<(Side, Filter)>> {
    let is_ours = |filter: &Filter| Mark::read(&filter.name).is_some_and(|it| it.owner == owner);
    let mut filters = filters(ifindex)?;
    filters.retain(|(_, filter)| is_ours(filter));
    Ok(filters)
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
                    .filter_map(|(side, filter)| remove_filter(ifindex, *side, filter).err()),
            ),
            Err(error) => errors.push(error),
        }
    }
    errors
}

fn remove_only_filter(ifindex: u32, side: Side, filter: &Filter) -> Result<()> {
    if let Err(error) = netlink::remove_filter(ifindex, side, filter.place) {
        // The filter may have been deleted with its interface.
        let left = netlink::filters(ifindex, side).map_err(unread(ifindex))?;
        if left.contains(filter) {
            return Err(unread(ifindex)(error));
        }
    }
    Ok(())
}

/// Removes a filter of ours, and the qdisc when it was made for our filters and has no other.
fn remove_filter(ifindex: u32, side: Side, filter: &Filter) -> Result<()> {
    remove_only_filter(ifindex, side, filter)?;
    if Mark::read(&filter.name).is_some_and(|mark| mark.made_clsact) {
        remove_unused_clsact(ifindex)?;
    }
    Ok(())
}

/// Removes the qdisc if it has no filter. A filter that another program adds in the same instant is
/// lost: the kernel can't be asked to remove only an empty qdisc.
fn remove_unused_clsact(ifindex: u32) -> Result<()> {
    if !filters(ifindex)?.is_empty() {
        return Ok(());
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
