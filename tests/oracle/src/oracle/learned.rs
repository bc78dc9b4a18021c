//! Who has which learned address, and who may learn one more.

use std::{collections::BTreeMap, net::IpAddr};

use wardline_proto::v1::Device;

use super::{Oracle, has_address, is_link_local};

/// Learned addresses of one family that a sender may have, by default.
const LEARNED: usize = 16;

/// Who sends: a device, or an unlisted MAC.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sender {
    Device(String),
    Mac([u8; 6]),
}

impl Sender {
    /// The device, or else who has this MAC.
    pub fn new(device: Option<&Device>, mac: [u8; 6]) -> Self {
        match device {
            Some(device) => Self::Device(device.name.clone()),
            None => Self::Mac(mac),
        }
    }

    fn is(&self, device: &Device) -> bool {
        matches!(self, Self::Device(name) if *name == device.name)
    }
}

/// Learned addresses, and who has them.
#[derive(Clone, Debug, Default)]
pub(super) struct Learned(BTreeMap<IpAddr, Sender>);

impl Learned {
    /// Whether a device has learned an address.
    pub(super) fn is_of(&self, device: &Device, address: IpAddr) -> bool {
        self.0.get(&address).is_some_and(|it| it.is(device))
    }

    fn has_room(&self, sender: &Sender, address: IpAddr) -> bool {
        let own = self.0.iter().filter(|(_, of)| *of == sender);
        let family = own.filter(|(it, _)| it.is_ipv4() == address.is_ipv4());
        family.count() < LEARNED
    }
}

/// Whether a device takes free addresses of the family that this one is of: it lists none of that
/// family, and nothing forbids it.
pub fn learns(device: &Device, address: IpAddr) -> bool {
    let mut listed = device.addresses.iter().filter_map(|it| it.parse().ok());
    device.learn != Some(false) && !listed.any(|it: IpAddr| it.is_ipv4() == address.is_ipv4())
}

impl Oracle<'_> {
    /// Binds an address to a sender that uses it.
    pub fn learn(&mut self, address: IpAddr, sender: Sender) {
        self.learned.0.insert(address, sender);
    }

    /// Whether a packet's sender must learn an address that it uses, which it may send from.
    pub fn is_new(&self, device: Option<&Device>, sender: &Sender, address: IpAddr) -> bool {
        let listed = device.is_some_and(|device| has_address(device, address));
        let known = self.learned.0.get(&address) == Some(sender);
        !(listed || known || address.is_unspecified() || is_link_local(address))
    }

    /// Whether a sender may learn an address that it claims: nobody else has, and there is room for
    /// one more of the family.
    pub fn may_learn(&self, sender: &Sender, address: IpAddr) -> bool {
        self.is_free_for(sender, address) && self.learned.has_room(sender, address)
    }

    /// Whether nobody but this sender has learned an address.
    pub fn is_free_for(&self, sender: &Sender, address: IpAddr) -> bool {
        self.learned.0.get(&address).is_none_or(|it| it == sender)
    }
}
