//! Networks as people have them: each works without Wardline, and works guarded and observed.

mod discovery;
mod flat;
mod guests;
mod leases;
mod macvlan;
mod nat;
mod rollout;
