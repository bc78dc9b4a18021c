//! The suite: packet tables, properties against the oracle, hosts in a lab. Needs root.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod access;
mod adoption;
mod agreement;
mod attach;
mod authority;
mod bridge;
mod change;
mod confirm;
mod crash;
mod cutoff;
mod denied;
mod dissect;
mod failsafe;
mod flood;
mod foreign;
mod forward;
mod frames;
mod fuzz;
mod hammer;
mod judges;
mod kernel;
mod lab_self;
mod legitimate;
mod live;
mod matrix;
mod oracle;
mod outlook;
mod packets;
mod random;
mod regressions;
mod revisions;
mod sequence;
mod spine;
mod streams;
mod sweep;
