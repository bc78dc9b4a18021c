//! The daemon's access to the kernel: loads the programs, fills and reads their maps, attaches them
//! to interfaces, and watches interfaces, addresses, routes and the wall clock.
//!
//! Only this crate uses aya, bpf(2) and netlink. It decides nothing: `wardline-policy` provides the
//! contents of the maps, and the daemon says what to attach where.

mod announcements;
pub mod attach;
mod bpf;
pub mod carry;
mod carrying;
mod datapath;
mod down;
pub mod error;
mod far;
pub mod far_end;
pub mod fast_forward;
pub mod fault;
mod flow_table;
pub mod hook;
mod layout;
pub mod learned;
pub mod links;
pub mod listening;
pub mod load;
mod maps;
pub mod names;
mod nat;
mod netlink;
mod numbering;
mod object;
pub mod observe;
pub mod offload;
mod other;
pub mod pinned;
pub mod pins;
mod qdisc;
pub mod reader;
pub mod ring;
pub mod routes;
mod shut;
pub mod slots;
pub mod timeouts;
mod trial;
pub mod wall_clock;

pub use self::{datapath::Datapath, hook::Hook, reader::Reader};
