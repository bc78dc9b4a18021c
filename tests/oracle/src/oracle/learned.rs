//! Who has which learned address, and who may learn one more.

use std::{collections::BTreeMap, net::IpAddr};

use wardline_proto::v1::Device;

use super::{Oracle, has_address};
use crate::link::{is_link_local, made_of};

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
pub(super) struct Learned(BTreeMap<IpAddr, Holder>);

/// Who has an address, and the zone where that was seen last.
#[derive(Clone, Debug)]
struct Holder {
    sender: Sender,
    zone: String,
    /// Whether a DHCP server has given it.
    leased: bool,
}

impl Learned {
    /// Whether a device has learned an address.
    pub(super) fn is_of(&self, device: &Device, address: IpAddr) -> bool {
        self.0.get(&address).is_some_and(|it| it.sender.is(device))
    }

    fn has_room(&self, sender: &Sender, address: IpAddr) -> bool {
        let own = self.0.iter().filter(|(_, of)| of.sender == *sender);
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

impl<'a> Oracle<'a> {
    /// Binds an address to a sender that uses it in a zone.
    pub fn learn(&mut self, address: IpAddr, sender: Sender, zone: &str) {
        let zone = zone.to_owned();
        let leased = false;
        let holder = Holder {
            sender,
            zone,
            leased,
        };
        self.learned.0.insert(address, holder);
    }

    /// A DHCP server gives an address to a sender, or renews its lease: unless it is not the sender's to
    /// learn, or another uses it without a lease.
    pub fn lease(&mut self, device: Option<&Device>, sender: &Sender, address: IpAddr, zone: &str) {
        let holder = self.learned.0.get_mut(&address);
        if let Some(holder) = holder
            && holder.sender == *sender
        {
            holder.leased = true;
            return;
        }
        let taken = self.learned.0.get(&address).is_some_and(|it| !it.leased);
        let listed = device.is_some_and(|device| has_address(device, address));
        let may = !is_link_local(address) && !listed && self.may_send(device, zone, address);
        if may && !taken && self.learned.has_room(sender, address) {
            self.learn(address, sender.clone(), zone);
            if let Some(holder) = self.learned.0.get_mut(&address) {
                holder.leased = true;
            }
        }
    }

    /// A sender has an address no more.
    pub fn give_back(&mut self, address: IpAddr, sender: &Sender) {
        if self
            .learned
            .0
            .get(&address)
            .is_some_and(|it| it.sender == *sender)
        {
            self.learned.0.remove(&address);
        }
    }

    /// Notes where a sender of a link-local address is now.
    pub fn see(&mut self, address: IpAddr, sender: &Sender, zone: &str) {
        if let Some(holder) = self.learned.0.get_mut(&address)
            && holder.sender == *sender
        {
            zone.clone_into(&mut holder.zone);
        }
    }

    /// Whether somebody behind a port has claimed a link-local address that is of no device.
    pub(super) fn is_guests(&self, address: IpAddr) -> bool {
        let free = made_of(address).is_none_or(|mac| self.with_mac(mac).is_none());
        is_link_local(address) && free && self.learned.0.contains_key(&address)
    }

    /// The zone of who has claimed a link-local address, if that zone admits unlisted MACs.
    pub(super) fn guests_zone(&self, address: IpAddr) -> Option<&'a str> {
        let holder = self.learned.0.get(&address)?;
        let zone = self.zone(&holder.zone)?;
        self.admits_any(&zone.name).then_some(zone.name.as_str())
    }

    /// Whether a packet's sender must learn an address that it uses, which it may send from.
    pub fn is_new(&self, device: Option<&Device>, sender: &Sender, address: IpAddr) -> bool {
        let listed = device.is_some_and(|device| has_address(device, address));
        let known = self.learned.0.get(&address);
        let known = known.is_some_and(|it| it.sender == *sender);
        let made = made_of(address).and_then(|mac| self.with_mac(mac));
        let made = made.is_some_and(|it| device.is_some_and(|device| device.name == it.name));
        !(listed || known || made || address.is_unspecified())
    }

    /// Whether a sender may learn an address that it claims: nobody else has, and there is room for
    /// one more of the family.
    pub fn may_learn(&self, sender: &Sender, address: IpAddr) -> bool {
        self.is_free_for(sender, address) && self.learned.has_room(sender, address)
    }

    /// The unlisted MAC that has learned an address.
    pub fn guest_of(&self, address: IpAddr) -> Option<Sender> {
        let sender = &self.learned.0.get(&address)?.sender;
        matches!(sender, Sender::Mac(_)).then(|| sender.clone())
    }

    /// Whether nobody but this sender has learned an address.
    pub fn is_free_for(&self, sender: &Sender, address: IpAddr) -> bool {
        let holder = self.learned.0.get(&address);
        holder.is_none_or(|it| it.sender == *sender)
    }
}
