//! Networks as people have them: each works without Wardline, and works guarded and observed.

mod above_bridge;
mod announced;
mod big;
mod container;
mod discovery;
mod far;
mod flat;
mod guests;
mod leases;
mod link_local;
mod machine;
mod macvlan;
mod names;
mod nat;
mod rollout;
mod search;
mod tunnel;
mod unknown;
mod vrrp;
