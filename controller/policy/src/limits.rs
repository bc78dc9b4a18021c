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
    /// Packets of control that one device may send in a second.
    pub control: u32,
    /// The same for a device in quarantine.
    pub control_in_quarantine: u32,
    /// Learned addresses that one device may have in each family.
    pub learned_per_device: u32,
    /// Learned addresses that all devices at one port may have in each family.
    pub learned_per_port: u32,
    /// Names of a policy.
    pub names: u32,
    /// Addresses that one name may have.
    pub addresses_per_name: u32,
    /// Rules of a policy.
    pub rules: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            devices: 131_072,
            flows: 262_144,
            flows_per_device: 4096,
            control: 300,
            control_in_quarantine: 10,
            learned_per_device: 16,
            learned_per_port: 1024,
            names: 16_384,
            addresses_per_name: 1024,
            rules: 131_072,
        }
    }
}
