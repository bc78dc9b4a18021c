//! How much the tables hold, and what of a document exceeds it.

use wardline_proto::v1;

use crate::words::problem::Problem;

/// Tells what of a document exceeds the limits: one problem for each kind, with the numbers.
pub fn excess(policy: &v1::Policy, limits: &Limits) -> Vec<Problem> {
    let counts = [
        ("devices", policy.devices.len(), limits.devices),
        ("rules", policy.rules.len(), limits.rules),
    ];
    let over = counts
        .into_iter()
        .filter(|&(_, count, limit)| count as u64 > u64::from(limit));
    over.map(|(kind, count, limit)| Problem {
        path: kind.to_owned(),
        message: format!("{count} {kind}, but limits.{kind} is {limit}"),
    })
    .collect()
}

/// How much the tables hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Devices of a policy.
    pub devices: u32,
    /// Live flows.
    pub flows: u32,
    /// Live flows that one device may have opened.
    pub flows_per_device: u32,
    /// Rules of a policy.
    pub rules: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            devices: 131_072,
            flows: 262_144,
            flows_per_device: 4096,
            rules: 131_072,
        }
    }
}
