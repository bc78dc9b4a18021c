//! What happened on the router: events of the kernel with names, logged, kept and streamed.

pub mod event;
pub mod events;
mod log;
mod named;
pub mod observed;
