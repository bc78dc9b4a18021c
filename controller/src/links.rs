//! How programs are attached to interfaces, stay there without the daemon, and are taken off.
//!
//! Links are pinned under `links` as `IFINDEX-HOOK`.

use std::{
    collections::BTreeSet,
    ffi::CString,
    fs, io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use aya::programs::{
    LinkOrder, SchedClassifier, TcAttachType, Xdp, XdpMode,
    links::{FdLink, LinkError, PinnedLink},
    tc::{SchedClassifierLink, TcAttachOptions},
    xdp::XdpLink,
};

use crate::datapath::{Datapath, DatapathError, Result, pin_error, program, program_error};

/// The hooks that judge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hook {
    /// What enters, in the driver.
    Xdp,
    /// What enters, above the driver.
    TcIngress,
    /// What leaves.
    TcEgress,
}

impl Hook {
    pub(crate) fn program(self) -> &'static str {
        match self {
            Self::Xdp => "xdp_ingress",
            Self::TcIngress => "tc_ingress",
            Self::TcEgress => "tc_egress",
        }
    }

    fn pin(self) -> &'static str {
        match self {
            Self::Xdp => "xdp",
            Self::TcIngress => "ingress",
            Self::TcEgress => "egress",
        }
    }
}

impl Datapath {
    /// Makes exactly these hooks judge an interface. Answers why one could not be attached.
    ///
    /// # Errors
    ///
    /// The kernel's refusal, in words; other hooks that were asked for stay attached.
    pub fn attach(&mut self, ifindex: u32, name: &str, hooks: &[Hook]) -> Result<()> {
        if !hooks.is_empty() && !self.attached().contains(&ifindex) {
            self.adopt(ifindex)?;
        }
        for hook in hooks {
            if !self
                .attached
                .get(&ifindex)
                .is_some_and(|attached| attached.contains(hook))
            {
                self.attach_hook(ifindex, name, *hook)?;
                self.attached.entry(ifindex).or_default().insert(*hook);
            }
        }
        // Only when the new ones judge, the old ones go.
        for hook in [Hook::Xdp, Hook::TcIngress, Hook::TcEgress] {
            if !hooks.contains(&hook) {
                self.detach_hook(ifindex, hook)?;
            }
        }
        Ok(())
    }

    /// Interfaces that any hook of ours may be on.
    pub fn attached(&self) -> BTreeSet<u32> {
        let mut indexes: BTreeSet<u32> = self.attached.keys().copied().collect();
        let links = self
            .pins
            .iter()
            .filter_map(|pins| fs::read_dir(pins.join("links")).ok());
        for entry in links.flatten().flatten() {
            let name = entry.file_name();
            let index = name
                .to_string_lossy()
                .split('-')
                .next()
                .and_then(|text| text.parse::<u32>().ok());
            indexes.extend(index);
        }
        indexes
    }

    /// Whether a hook judges an interface.
    pub fn is_attached(&self, ifindex: u32, hook: Hook) -> bool {
        self.attached
            .get(&ifindex)
            .is_some_and(|hooks| hooks.contains(&hook))
    }

    fn attach_hook(&mut self, ifindex: u32, name: &str, hook: Hook) -> Result<()> {
        let program_name = hook.program();
        let failed = program_error(program_name);
        let broken = link_error(program_name);
        let pin = self.link_pin(ifindex, hook);
        if let Some(pin) = pin.as_ref().filter(|pin| pin.exists()) {
            match self.take_over(hook, pin) {
                Ok(()) => return Ok(()),
                // The interface has been deleted; another has its number.
                Err(error) if is_gone(&error) => fs::remove_file(pin).map_err(pin_error(pin))?,
                Err(error) => return Err(error),
            }
        }
        let link: FdLink = match hook {
            Hook::Xdp => {
                let program = program::<Xdp>(&mut self.ebpf, program_name)?;
                let id = program
                    .attach_to_if_index(ifindex, XdpMode::Driver)
                    .map_err(&failed)?;
                let link = program.take_link(id).map_err(&failed)?;
                // A link that the kernel could not make one is an attachment that dies with us.
                link.try_into().map_err(&broken)?
            }
            Hook::TcIngress | Hook::TcEgress => {
                let program = program::<SchedClassifier>(&mut self.ebpf, program_name)?;
                let (side, order) = match hook {
                    // Before anything else sees a packet, and after everything else has.
                    Hook::TcEgress => (TcAttachType::Egress, LinkOrder::last()),
                    _ => (TcAttachType::Ingress, LinkOrder::first()),
                };
                let order = TcAttachOptions::TcxOrder(order);
                let id = program
                    .attach_with_options(name, side, order)
                    .map_err(&failed)?;
                let link = program.take_link(id).map_err(&failed)?;
                link.try_into().map_err(&broken)?
            }
        };
        match pin {
            Some(pin) => drop(
                link.pin(&pin)
                    .map_err(|error| pin_error(&pin)(io::Error::other(error)))?,
            ),
            // Without pins it lives as long as the process.
            None => std::mem::forget(link),
        }
        Ok(())
    }

    /// Puts this version's program behind a pinned link, without a moment between.
    fn take_over(&mut self, hook: Hook, pin: &Path) -> Result<()> {
        let name = hook.program();
        let failed = program_error(name);
        let broken = link_error(name);
        let link = PinnedLink::from_pin(pin).map_err(&broken)?;
        let link = FdLink::from(link);
        match hook {
            Hook::Xdp => {
                let link = XdpLink::try_from(link).map_err(&broken)?;
                let program = program::<Xdp>(&mut self.ebpf, name)?;
                let id = program.attach_to_link(link).map_err(&failed)?;
                let link = program.take_link(id).map_err(&failed)?;
                let link = FdLink::try_from(link).map_err(&broken)?;
                drop(link);
            }
            Hook::TcIngress | Hook::TcEgress => {
                let link = SchedClassifierLink::try_from(link).map_err(&broken)?;
                let program = program::<SchedClassifier>(&mut self.ebpf, name)?;
                let id = program.attach_to_link(link).map_err(&failed)?;
                let link = program.take_link(id).map_err(&failed)?;
                let link = FdLink::try_from(link).map_err(&broken)?;
                drop(link);
            }
        }
        Ok(())
    }

    fn detach_hook(&mut self, ifindex: u32, hook: Hook) -> Result<()> {
        if let Some(hooks) = self.attached.get_mut(&ifindex) {
            hooks.remove(&hook);
            if hooks.is_empty() {
                self.attached.remove(&ifindex);
            }
        }
        match self.link_pin(ifindex, hook) {
            Some(pin) if pin.exists() => release(&pin).map_err(pin_error(&pin)),
            _ => Ok(()),
        }
    }

    fn link_pin(&self, ifindex: u32, hook: Hook) -> Option<PathBuf> {
        let pins = self.pins.as_ref()?;
        Some(pins.join("links").join(format!("{ifindex}-{}", hook.pin())))
    }
}

/// Removes everything that was ever pinned: links first, so that nothing is judged by half of it.
/// Goes on after a failure and answers all of them.
pub fn detach(pin_dir: &Path) -> Vec<DatapathError> {
    let mut errors = Vec::new();
    let mut note = |path: &Path, removed: io::Result<()>| match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            errors.push(pin_error(path)(error));
        }
        _ => {}
    };
    for version in children(pin_dir) {
        for pin in children(&version.join("links")) {
            note(&pin, release(&pin));
        }
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

/// Takes a pinned link off its hook, and its pin away. When this returns, nothing is judged by it:
/// without being told, the kernel lets go of a link some time after its pin.
#[expect(
    unsafe_code,
    reason = "the loader has no call for BPF_OBJ_GET and BPF_LINK_DETACH on a link"
)]
fn release(pin: &Path) -> io::Result<()> {
    const OBJ_GET: libc::c_int = 7;
    const LINK_DETACH: libc::c_int = 34;
    let path = CString::new(pin.as_os_str().as_encoded_bytes())?;
    // union bpf_attr: for OBJ_GET the address of the path, for LINK_DETACH the descriptor.
    let mut attribute = [path.as_ptr() as u64, 0];
    // SAFETY: the path is terminated and outlives the call; the rest of the attribute is zero.
    let link = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            OBJ_GET,
            attribute.as_mut_ptr(),
            size_of_val(&attribute),
        )
    };
    let link = match i32::try_from(link) {
        // SAFETY: the kernel has just made it, for nobody else.
        Ok(link) if link >= 0 => unsafe { OwnedFd::from_raw_fd(link) },
        _ => return Err(io::Error::last_os_error()),
    };
    attribute = [link.as_raw_fd() as u64, 0];
    // SAFETY: the descriptor is open; the rest of the attribute is zero.
    let detached = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            LINK_DETACH,
            attribute.as_mut_ptr(),
            size_of_val(&attribute),
        )
    };
    let error = io::Error::last_os_error();
    // The interface may be gone already.
    if detached != 0 && error.raw_os_error() != Some(libc::ENOLINK) {
        return Err(error);
    }
    fs::remove_file(pin)
}

fn children(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

/// Whether a link's interface is gone.
fn is_gone(error: &DatapathError) -> bool {
    let mut source: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return matches!(error.raw_os_error(), Some(libc::ENOLINK | libc::ENODEV));
        }
        source = error.source();
    }
    false
}

fn link_error(name: &'static str) -> impl Fn(LinkError) -> DatapathError {
    move |source| DatapathError::Link { name, source }
}
