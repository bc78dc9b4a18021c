//! `wardlined`, the daemon on the router.
//!
//! ```text
//!  operator ──gRPC─▶ api ─▶ intent ──┐
//!                                    ├─▶ compile ─▶ plan ─▶ datapath ══ maps ══▶ decide ─▶ verdict
//!  kernel ─netlink─▶ inventory ──────┘    pure      pure     (aya)              in the kernel │
//!  log · metrics · stream ◀── events ◀══════════════ ring buffer ◀═════════════════════════════┘
//!                              explain ── the same decide, on the same tables, no kernel needed
//! ```
//!
//! Invariants:
//! 1. `compile`, `plan`, `explain`, `decide` do no I/O, read no clock, take no lock.
//! 2. aya only in `datapath` and `links` (and the ring handed to `events`); netlink only in
//!    `inventory` and `routes`, which see what there is, and `netlink`, which attaches; tonic only in
//!    `api`, which answers, and `serve` and `gate`, which let in; files and environment only in `config`,
//!    `store` and `audit`, and what `/proc` says of forwarding in `forward`.
//! 3. A packet no rule admits is dropped, with a reason; passing is always a decision.
//! 4. Stopping, crashing or upgrading the daemon changes no verdict.
//! 5. A refused document leaves what is in force untouched; no packet is ever judged by parts of
//!    two revisions.
//! 6. Bytes in `abi` change only with `ABI_VERSION`; pinned maps of another version are never read
//!    as this one's.

pub mod api;
pub mod audit;
mod bpf;
pub mod change;
pub mod compile;
pub mod config;
pub mod datapath;
pub mod edit;
pub mod events;
pub mod explain;
pub mod failsafe;
mod fault;
mod forward;
pub mod gate;
pub mod grants;
pub mod intent;
pub mod inventory;
pub mod limits;
pub mod links;
pub mod live;
pub mod metrics;
pub mod model;
mod netlink;
mod offload;
mod outlook;
pub mod pending;
pub mod plan;
pub mod reach;
pub mod reconcile;
pub mod replay;
pub mod report;
pub mod roles;
pub mod routes;
pub mod serve;
pub mod snapshot;
pub mod store;
pub mod tls;
pub mod touched;
