//! Who is in quarantine, besides what a document says: by identity, with the reason and who gave it.
//!
//! A name is not an identity: a document may give it to another device, or to nobody. So a call that names a
//! device cuts off the MACs that the device has at that moment, or its addresses if it has no MAC. They
//! stay cut off whatever the device is called later, and also when no document has them any more.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    str::FromStr,
};

use jiff::Timestamp;

use crate::{
    intent::{Device, Intent},
    words::mac::Mac,
};

/// What is cut off.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Identity {
    /// Whoever has this MAC.
    Mac(Mac),
    /// Whoever has this address: of a device without MACs.
    Address(IpAddr),
    /// The device of this name. Only earlier versions recorded names; they stay for devices whose MACs are
    /// not known.
    Device(String),
    /// The port of an interface, by name.
    Port(String),
}

/// A text that is no identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not who is in quarantine")]
pub struct IdentityError;

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mac(mac) => write!(f, "mac:{mac}"),
            Self::Address(address) => write!(f, "address:{address}"),
            Self::Device(name) => write!(f, "device:{name}"),
            Self::Port(name) => write!(f, "port:{name}"),
        }
    }
}

impl FromStr for Identity {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let (kind, rest) = text.split_once(':').ok_or(IdentityError)?;
        match kind {
            "mac" => rest.parse().map(Self::Mac).map_err(|_| IdentityError),
            "address" => rest.parse().map(Self::Address).map_err(|_| IdentityError),
            "device" => Ok(Self::Device(rest.to_owned())),
            "port" => Ok(Self::Port(rest.to_owned())),
            _ => Err(IdentityError),
        }
    }
}

/// Why somebody is in quarantine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// What the device was called when it was cut off; the interface of a port.
    pub name: String,
    /// Who did it.
    pub actor: String,
    /// Why, in the actor's words.
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
}

impl Hold {
    /// A hold of which only the name is known.
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            actor: String::new(),
            reason: String::new(),
            since: Timestamp::UNIX_EPOCH,
        }
    }
}

/// Whom a call puts into quarantine, or releases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whom {
    /// A device, by its name or one of its MACs.
    Device(String),
    /// The port of an interface, by name.
    Port(String),
}

impl fmt::Display for Whom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(name) => write!(f, "device {name:?}"),
            Self::Port(name) => write!(f, "port {name:?}"),
        }
    }
}

/// Who is cut off, whether or not a document has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quarantine {
    held: BTreeMap<Identity, Hold>,
}

impl Quarantine {
    /// Devices and ports of which only the names are known.
    pub fn of_names(
        devices: impl IntoIterator<Item = String>,
        ports: impl IntoIterator<Item = String>,
    ) -> Self {
        let hold = |name: &String| Hold::named(name);
        let devices = devices.into_iter();
        let devices = devices.map(|name| (hold(&name), Identity::Device(name)));
        let ports = ports.into_iter();
        let ports = ports.map(|name| (hold(&name), Identity::Port(name)));
        let held = devices.chain(ports);
        held.map(|(hold, identity)| (identity, hold)).collect()
    }

    /// All that is cut off.
    pub fn iter(&self) -> impl Iterator<Item = (&Identity, &Hold)> {
        self.held.iter()
    }

    /// How much is cut off.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether nobody is cut off.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Why this is cut off, if it is.
    pub fn get(&self, identity: &Identity) -> Option<&Hold> {
        self.held.get(identity)
    }

    /// Cuts something off, or lets it go.
    pub fn set(&mut self, identity: &Identity, hold: Option<&Hold>) {
        match hold {
            Some(hold) => {
                self.held.insert(identity.clone(), hold.clone());
            }
            None => {
                self.held.remove(identity);
            }
        }
    }

    /// Why a port is cut off, if it is.
    pub fn port(&self, interface: &str) -> Option<&Hold> {
        self.held.get(&Identity::Port(interface.to_owned()))
    }

    /// The names of the ports that are cut off.
    pub fn ports(&self) -> impl Iterator<Item = &String> {
        self.held.keys().filter_map(|identity| match identity {
            Identity::Port(name) => Some(name),
            _ => None,
        })
    }

    /// Why a device is cut off, if one of its MACs, one of its addresses, or its name is.
    pub fn device(&self, device: &Device) -> Option<&Hold> {
        if self.held.is_empty() {
            return None;
        }
        identities(device).find_map(|identity| self.held.get(&identity))
    }

    /// The MACs and addresses that are cut off and that no device of a document has.
    pub fn strangers<'a>(&'a self, intent: &Intent) -> Vec<(&'a Identity, &'a Hold)> {
        if self.held.is_empty() {
            return Vec::new();
        }
        let listed: BTreeSet<Identity> = intent.devices.iter().flat_map(identities).collect();
        let strangers = self.held.iter();
        strangers
            .filter(|(identity, _)| {
                !matches!(identity, Identity::Port(_)) && !listed.contains(identity)
            })
            .collect()
    }

    /// The names of the devices that are cut off: as a document calls them now, or for those that it does
    /// not have, as they were called then.
    pub fn device_names(&self, intent: &Intent) -> BTreeSet<String> {
        let devices = intent.devices.iter();
        let devices = devices.filter(|device| self.device(device).is_some());
        let strangers = self.strangers(intent).into_iter();
        devices
            .map(|device| device.name.clone())
            .chain(strangers.map(|(_, hold)| hold.name.clone()))
            .collect()
    }

    /// Puts identities in the place of names, where a document tells whose they are. Returns whether
    /// something has changed.
    pub fn resolve<'a>(&mut self, devices: impl Iterator<Item = (&'a str, Vec<Identity>)>) -> bool {
        let mut held = self.held.keys();
        if !held.any(|it| matches!(it, Identity::Device(_))) {
            return false;
        }
        let mut resolved = false;
        for (name, identities) in devices {
            let by_name = Identity::Device(name.to_owned());
            if identities.is_empty() || !self.held.contains_key(&by_name) {
                continue;
            }
            if let Some(hold) = self.held.remove(&by_name) {
                for identity in identities {
                    self.held.entry(identity).or_insert_with(|| hold.clone());
                }
                resolved = true;
            }
        }
        resolved
    }
}

/// What a device is cut off by: its MACs, or its addresses when it has none.
pub fn own(device: &Device) -> Vec<Identity> {
    if device.macs.is_empty() {
        let addresses = device.addresses.iter();
        addresses.map(|it| Identity::Address(*it)).collect()
    } else {
        device.macs.iter().map(|it| Identity::Mac(*it)).collect()
    }
}

/// Everything by which a device may be cut off.
fn identities(device: &Device) -> impl Iterator<Item = Identity> {
    let macs = device.macs.iter().map(|it| Identity::Mac(*it));
    let addresses = device.addresses.iter().map(|it| Identity::Address(*it));
    let name = Identity::Device(device.name.clone());
    macs.chain(addresses).chain([name])
}

impl FromIterator<(Identity, Hold)> for Quarantine {
    fn from_iter<T: IntoIterator<Item = (Identity, Hold)>>(held: T) -> Self {
        Self {
            held: held.into_iter().collect(),
        }
    }
}

impl From<BTreeSet<String>> for Quarantine {
    fn from(devices: BTreeSet<String>) -> Self {
        Self::of_names(devices, [])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ward::Ward;

    fn mac(text: &str) -> Identity {
        Identity::Mac(text.parse().expect("a MAC"))
    }

    #[test]
    fn an_identity_is_written_as_it_is_read() {
        for text in [
            "mac:02:00:00:00:01:01",
            "address:10.1.0.11",
            "address:fd00::1",
            "device:pump",
            "port:lan1",
        ] {
            let read: Identity = text.parse().expect("an identity");
            assert_eq!(read.to_string(), text);
        }
        for text in ["", "pump", "mac:02", "address:x", "rule:web"] {
            assert_eq!(text.parse::<Identity>(), Err(IdentityError), "{text}");
        }
    }

    #[test]
    fn what_is_cut_off_stays_so_under_any_name() {
        let ward = Ward::new(|_| (), &[]);
        let pump = ward.intent.devices.iter().find(|it| it.name == "pump");
        let pump = pump.expect("the ward's pump").clone();
        let mut quarantine = Quarantine::default();
        for identity in own(&pump) {
            quarantine.set(&identity, Some(&Hold::named("pump")));
        }
        assert_eq!(own(&pump), [mac("02:00:00:00:01:01")]);
        let renamed = Device {
            name: "pump-7".to_owned(),
            ..pump.clone()
        };
        assert!(quarantine.device(&renamed).is_some());
        let other = Device {
            macs: Vec::new(),
            addresses: Vec::new(),
            ..pump
        };
        assert!(
            quarantine.device(&other).is_none(),
            "the name alone is nobody"
        );
        assert_eq!(
            quarantine.device_names(&ward.intent),
            ["pump".to_owned()].into()
        );
        let without = Intent::default();
        assert_eq!(quarantine.strangers(&without).len(), 1);
        assert_eq!(
            quarantine.device_names(&without),
            ["pump".to_owned()].into()
        );
    }

    #[test]
    fn names_of_earlier_versions_become_macs_once_a_document_tells_them() {
        let names: BTreeSet<String> = ["pump", "gone"].map(str::to_owned).into();
        let mut quarantine = Quarantine::from(names);
        let devices = [("pump", vec![mac("02:00:00:00:01:01")])];
        assert!(quarantine.resolve(devices.clone().into_iter()));
        assert!(!quarantine.resolve(devices.into_iter()));
        let held: Vec<String> = quarantine.iter().map(|(it, _)| it.to_string()).collect();
        assert_eq!(held, ["mac:02:00:00:00:01:01", "device:gone"]);
    }
}
