//! Attaches to an interface exactly the hooks that are asked for.

use std::{collections::BTreeSet, os::fd::AsFd as _};

use crate::{
    Datapath, Hook,
    bpf::Link,
    error::{AttachError, DatapathError, program_error},
    links::{refusal, refused},
    netlink,
};

type Result<T> = std::result::Result<T, AttachError>;

/// How TC programs are attached that are not attached yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// By a link if the kernel supports it, else by a filter.
    Best,
    /// By a filter, as on kernels before 6.6.
    Clsact,
}

impl Datapath {
    /// Attaches exactly these hooks to an interface. The program of a hook that is already attached
    /// is replaced in place by this version's, without changing how it is attached.
    ///
    /// # Errors
    ///
    /// When a hook could not be attached; then the interface has the hooks that it had before. Or
    /// when one that is not asked for could not be taken off.
    pub fn attach(&mut self, ifindex: u32, hooks: &[Hook]) -> Result<()> {
        self.attach_by(Way::Best, ifindex, hooks)
    }

    /// As [`Datapath::attach`], with a choice of how TC programs are attached.
    ///
    /// # Errors
    ///
    /// As [`Datapath::attach`].
    pub fn attach_by(&mut self, way: Way, ifindex: u32, hooks: &[Hook]) -> Result<()> {
        let interface = self.numbers.of(ifindex);
        let adopts = self.adopting.contains(&interface);
        if !hooks.is_empty() && (adopts || !self.is_guarded(ifindex)?) {
            self.set_adoption(interface, adopts)?;
        }
        let mut fresh = Vec::new();
        for hook in hooks {
            match self.put_on(way, ifindex, *hook) {
                Ok(true) => fresh.push(*hook),
                Ok(false) => {}
                Err(error) => {
                    for hook in fresh {
                        // A hook that can't be taken off here goes with the next call that does not
                        // ask for it.
                        let _ = self.links.take_off(ifindex, hook);
                    }
                    return Err(error);
                }
            }
        }
        if !hooks.is_empty() {
            self.adopting.remove(&interface);
        }
        // The old hooks are taken off only after the new ones judge.
        let mut taken_off = Ok(());
        for hook in Hook::ALL.into_iter().filter(|hook| !hooks.contains(hook)) {
            taken_off = taken_off.and(self.links.take_off(ifindex, hook));
        }
        taken_off
    }

    /// Interfaces that may have any of our hooks.
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

    /// Attaches a hook, or replaces the program of an attached one by this version's. Returns
    /// whether it was not attached before.
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
            // The link's interface was deleted and another has its number, or there are two links.
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
                // A kernel without TCX does not support such a link.
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
