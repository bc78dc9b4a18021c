//! The API and the metrics: reads requests, asks the engine, and tells what it answers.

pub mod calls;
mod convert;
mod history;
pub mod metrics;
mod plan;
pub mod serve;
mod status;
pub mod view;
