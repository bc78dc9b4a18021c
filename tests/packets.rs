//! Frames shown to the programs in the kernel, one at a time: no hosts, no daemon.

mod adoption;
mod agreement;
mod change;
mod denied;
mod events;
mod flows;
mod fuzz;
mod hammer;
pub(crate) mod judge;
mod matrix;
mod nat;
mod programs;
mod regressions;
