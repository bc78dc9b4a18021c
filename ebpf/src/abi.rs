//! Every byte that crosses between the kernel's programs and the daemon.
//!
//! Integers are in the machine's order. Addresses are in network order, an IPv4 address as
//! `::ffff:a.b.c.d`. A MAC is the number that its six bytes make, first byte highest. No type has
//! padding, whose bytes the compiler could leave unset. Any change here must raise [`ABI_VERSION`],
//! which names the pin directory, so that pinned maps of another version are never read as this
//! one's.
//!
//! Tables of a revision hold two revisions at once, told apart by a **slot** (0 or 1) in each key.
//! A packet reads the active slot once and looks up everything with it.

mod address;
mod event;
mod flow;
#[cfg(test)]
mod layout;
mod names;
mod policy;
mod reason;
mod settings;

pub use self::{address::*, event::*, flow::*, names::*, policy::*, reason::*, settings::*};

/// The version of everything in this module.
pub const ABI_VERSION: u32 = 22;

/// Interfaces are known by **number**, because arrays hold what is known of them. The number of an
/// interface with an index below this is its index. One with a larger index is far, and the daemon
/// gives it a number from here up.
pub const FAR: u32 = 16_384;
/// Numbers of interfaces are below this.
pub const INTERFACES: u32 = FAR + 4_096;
/// Zones are numbered from 1 to below this.
pub const MAX_ZONES: u32 = 4_096;
/// Cells of the epoch table; a device's cell is its number modulo this.
pub const EPOCH_CELLS: u32 = 4_096;
/// Flows in one bucket of the flow table.
pub const WAYS: usize = 7;
/// Accounts that unlisted MACs share by hash, behind those of devices; a power of two.
pub const UNLISTED: u32 = 4_096;
/// Entries of [`Failsafe`].
pub const FAILSAFES: u32 = 32;
/// Ticks are this many bits coarser than jiffies: 64 ms at 1000 Hz, 0.64 s at 100 Hz.
pub const TICK_SHIFT: u32 = 6;
/// Places for notes of flows that were opened a moment ago, where the router has NAT; a power of two.
pub const ADMISSIONS: u32 = 8_192;
/// A deadline that never comes.
pub const NEVER: u32 = u32::MAX;
/// The device number of the router itself; policy numbers devices from 2.
pub const ROUTER: u32 = 1;

macro_rules! sizes {
    ($($type:ty = $size:literal),* $(,)?) => {
        $(const _: () = assert!(size_of::<$type>() == $size);)*

        /// The size of each structure.
        #[cfg(test)]
        const SIZES: &[(&str, usize)] = &[$((stringify!($type), size_of::<$type>())),*];
    };
}

sizes! {
    Address = 16, AddressKey = 24, PrefixKey = 20,
    Port = 16, Mac = 48, End = 20, Set = 8, Interval = 20,
    Settings = 88, Failsafe = 40, Forwarding = 16, Routes = 8,
    FlowKey = 40, Flow = 64, FlowEnds = 64, FlowEntry = 128, FlowHops = 32, bpf_spin_lock = 4, Carried = 128,
    Bucket = 1216, Quota = 16, Clients = 48, Askings = 128, Denial = 88, FragmentKey = 48, Fragment = 16, Learned = 24, Seen = 8,
    NameText = 256, Watched = 8, Inquiry = 24, Resolved = 128, Named = 56,
    Counter = 16, EventKey = 20, EventLimit = 48, EventBudget = 24, Event = 96, ClientMessage = 1048,
}
