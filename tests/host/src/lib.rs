//! The decision on the host: what `compile` and `decide` make of policies and frames, against the
//! oracle and the rows of the packet matrix. Nothing here needs root.
//!
//! The suite asks the programs in the kernel about the same cases and rows.
#![expect(
    missing_docs,
    reason = "only tests call it, by names that say what they are"
)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

pub mod bench;
pub mod case;
pub mod judge;
pub mod matrix;
pub mod regressions;
pub mod run;
mod shrink;
pub mod tally;

#[cfg(test)]
mod agreement;
#[cfg(test)]
mod bare;
#[cfg(test)]
mod carry;
#[cfg(test)]
mod charge;
#[cfg(test)]
mod internet;
#[cfg(test)]
mod learning;
#[cfg(test)]
mod sweep;
