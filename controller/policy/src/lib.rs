//! Policy, pure: compiles a document to the tables that enforce it, and predicts their effect.
//!
//! ```text
//!  document ─▶ intent ─▶ compile ─▶ tables ─▶ explain, replay (the kernel's own decision, on the host)
//!                          ▲   ▲
//!                 inventory   numbers
//! ```
//!
//! Nothing here does I/O, reads a clock, takes a lock or runs a task: time, interfaces and numbers
//! are arguments. Equal arguments give equal answers, byte for byte.

pub mod absent;
pub mod catalogue;
pub mod clock;
pub mod compile;
pub mod document;
pub mod explain;
pub mod failsafe;
pub mod intent;
mod internet;
pub mod inventory;
pub mod limits;
pub mod live;
pub mod model;
pub mod numbers;
pub mod quarantine;
pub mod reach;
pub mod replay;
pub mod snapshot;
pub mod tables;
pub mod touched;
#[cfg(test)]
mod ward;
pub mod words;
