//! Hosts in network namespaces with real stacks and servers, and the daemon between them.

mod adoption;
mod attach;
mod attacks;
mod bridge;
mod clock;
mod explained;
mod flood;
mod foreign;
mod forward;
mod lab;
mod legitimate;
mod networks;
mod ports;
mod servers;
pub(crate) mod spine;
mod upgrade;
