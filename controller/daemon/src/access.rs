//! Access to the API: certificates, roles, limits for each client, and the audit of calls.

pub mod audit;
pub mod gate;
pub mod roles;
pub mod throttle;
pub mod tls;
