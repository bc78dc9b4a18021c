//! The suite: packet tables, properties against the oracle, hosts in a lab. Needs root.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod agreement;
mod change;
mod dissect;
mod frames;
mod fuzz;
mod judges;
mod lab_self;
mod oracle;
mod packets;
mod random;
mod regressions;
mod sequence;
mod spine;
mod streams;
