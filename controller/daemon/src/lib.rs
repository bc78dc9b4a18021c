//! `wardlined`, the daemon on the router.
//!
//! ```text
//!  operator ──gRPC─▶ server ─▶ engine ─▶ policy (pure) ─▶ datapath ══ maps ══▶ decide ─▶ verdict
//!                       ▲         ▲                                                      │
//!                    access     store                              telemetry ◀═══ ring ══╛
//! ```
//!
//! Only [`engine`] changes what is in force; it owns the store and the datapath and runs on a
//! [`thread`] of its own. [`server`] answers calls, [`access`] decides who may make them,
//! [`telemetry`] reports what happened, [`facts`] what devices say of themselves.
//!
//! tonic is used below [`server`] and [`access`] only. Files and the environment are read by
//! [`config`], [`store`] and the audit only.

pub mod access;
pub mod config;
pub mod daemon;
pub mod engine;
pub mod facts;
mod memory;
pub mod parts;
pub mod server;
mod service;
pub mod store;
pub mod telemetry;
pub mod thread;
