//! How much the tables hold.

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

#[cfg(test)]
mod tests {
    use wardline_proto::v1::{Device, Rule};

    use super::*;

    #[test]
    fn what_fits_is_no_excess_and_each_kind_that_does_not_is_told_once() {
        let limits = Limits {
            devices: 2,
            rules: 1,
            ..Limits::default()
        };
        let with = |devices, rules| v1::Policy {
            devices: vec![Device::default(); devices],
            rules: vec![Rule::default(); rules],
            ..v1::Policy::default()
        };
        assert_eq!(excess(&with(2, 1), &limits), []);
        let told = excess(&with(3, 5), &limits);
        let told: Vec<&str> = told.iter().map(|it| it.message.as_str()).collect();
        let expected = [
            "3 devices, but limits.devices is 2",
            "5 rules, but limits.rules is 1",
        ];
        assert_eq!(told, expected);
    }
}
