//! Who may call: certificates, roles, limits of each client, and the audit of what they did.

pub mod audit;
pub mod gate;
pub mod roles;
pub mod throttle;
pub mod tls;
