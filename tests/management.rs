//! Who may change policy, how changes are made and taken back, and what survives a crash.

mod access;
mod authority;
mod confirm;
mod crash;
mod failsafe;
mod plan;
mod quarantine;
mod revisions;
