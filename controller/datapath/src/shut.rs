//! Shuts an interface that can't be guarded: by dropping at TC what passes it, or by taking it down.

use std::io;

use crate::{
    Hook,
    attach::{Hooks, Way},
    error::AttachError,
    netlink,
};

type Result<T> = std::result::Result<T, AttachError>;

/// The hooks of a port at which nothing is to pass. No guarded port has these, so that the next
/// daemon knows it for what it is.
const HOOKS: &[Hook] = &[Hook::TcIngress, Hook::TcEgress, Hook::Tags];

impl Hooks {
    /// Puts hooks on an interface that drop all while no table admits anything there.
    ///
    /// # Errors
    ///
    /// When a hook could not be attached.
    pub fn shut(&self, way: Way, ifindex: u32) -> Result<()> {
        self.attach(way, ifindex, HOOKS)
    }

    /// Whether an interface has those hooks.
    ///
    /// # Errors
    ///
    /// When the kernel does not tell.
    pub fn is_shut(&self, ifindex: u32) -> Result<bool> {
        let on = self.on(ifindex)?;
        Ok(HOOKS.iter().all(|hook| on.contains(hook)))
    }

    /// Takes an interface down that is up, and remembers that.
    ///
    /// # Errors
    ///
    /// When the kernel refuses, or there is no place to remember it.
    pub fn take_down(&self, ifindex: u32, name: &str) -> Result<()> {
        self.lock().links.down.note(ifindex, name)?;
        netlink::set_up(ifindex, false).map_err(changed(ifindex))
    }

    /// Whether it was this daemon, or an earlier one, that took an interface down.
    pub fn is_taken_down(&self, ifindex: u32, name: &str) -> bool {
        self.lock().links.down.has(ifindex, name)
    }

    /// Goes on remembering that an interface was taken down, by the name that it has now.
    ///
    /// # Errors
    ///
    /// When there is no place to remember it.
    pub fn rename_down(&self, ifindex: u32, was: &str, name: &str) -> Result<()> {
        let down = &mut self.lock().links.down;
        down.note(ifindex, name)?;
        down.forget(ifindex, was)
    }

    /// Brings an interface up that was taken down.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn bring_up(&self, ifindex: u32, name: &str) -> Result<()> {
        netlink::set_up(ifindex, true).map_err(changed(ifindex))?;
        self.lock().links.down.forget(ifindex, name)
    }

    /// The interfaces that were taken down, by index and name; some may be gone.
    pub fn taken_down(&self) -> Vec<(u32, String)> {
        self.lock().links.down.all()
    }

    /// Forgets that an interface was taken down, because it is gone.
    ///
    /// # Errors
    ///
    /// When the note can't be removed.
    pub fn forget_down(&self, ifindex: u32, name: &str) -> Result<()> {
        self.lock().links.down.forget(ifindex, name)
    }
}

fn changed(ifindex: u32) -> impl Fn(io::Error) -> AttachError {
    move |source| AttachError::State { ifindex, source }
}
