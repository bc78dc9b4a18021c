//! The API and the metrics: reads requests, calls the engine, and returns its answers.

mod assess;
mod authority;
mod backup;
pub mod calls;
mod convert;
mod events;
mod history;
mod interfaces;
pub mod metrics;
mod mud;
mod names;
mod plan;
pub mod serve;
mod services;
mod sheet;
mod status;
mod unknown;
pub mod view;
mod why;
