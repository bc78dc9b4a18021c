//! What is in quarantine, besides what a document says.

use std::{collections::BTreeSet, fmt};

/// Devices and ports that are cut off, whether or not a document has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quarantine {
    /// Names of devices.
    pub devices: BTreeSet<String>,
    /// Names of interfaces.
    pub ports: BTreeSet<String>,
}

/// Whom a call puts into quarantine, or releases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whom {
    /// A device, by name.
    Device(String),
    /// The port of an interface, by name.
    Port(String),
}

impl Quarantine {
    /// Whether it has somebody.
    pub fn has(&self, whom: &Whom) -> bool {
        match whom {
            Whom::Device(name) => self.devices.contains(name),
            Whom::Port(name) => self.ports.contains(name),
        }
    }

    /// Takes somebody in, or lets them go.
    pub fn set(&mut self, whom: &Whom, quarantined: bool) {
        let (set, name) = match whom {
            Whom::Device(name) => (&mut self.devices, name),
            Whom::Port(name) => (&mut self.ports, name),
        };
        if quarantined {
            set.insert(name.clone());
        } else {
            set.remove(name);
        }
    }
}

impl fmt::Display for Whom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(name) => write!(f, "device {name:?}"),
            Self::Port(name) => write!(f, "port {name:?}"),
        }
    }
}

impl From<BTreeSet<String>> for Quarantine {
    fn from(devices: BTreeSet<String>) -> Self {
        Self {
            devices,
            ports: BTreeSet::new(),
        }
    }
}
