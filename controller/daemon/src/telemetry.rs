//! Events on the router: those of the kernel get names, then are logged, kept and streamed. And the
//! log itself.

pub mod event;
pub mod events;
pub mod filter;
pub mod journal;
mod kept;
mod log;
mod named;
pub mod observed;
pub mod output;
mod repeats;
mod service_names;
