//! Mode observe: which packets pass although they would be dropped.

use std::net::IpAddr;

use wardline_proto::v1::{Device, Port, Zone, ZoneMode};

use super::{End, Entry, Oracle, Probe, zone_on};

impl Oracle<'_> {
    /// Says through which interface packets leave that do not enter through a guarded port.
    pub fn send_out_of(&mut self, interface: &str) {
        self.exit = Some(interface.to_owned());
    }

    /// Whether a packet passes that is dropped for another reason than quarantine.
    pub(super) fn is_observed(&self, probe: &Probe) -> bool {
        let ends = [self.end(probe.source), self.end(probe.destination)];
        let here = match &probe.entry {
            Entry::Guarded {
                interface, vlan, ..
            } => self.observes(interface, *vlan),
            Entry::Uplink | Entry::Router => match &self.exit {
                Some(interface) => self.observes(interface, 0),
                None => ends.iter().any(|end| self.is_in_observing_zone(*end)),
            },
        };
        let sender = match probe.entry {
            Entry::Guarded { mac, .. } => self.spares_mac(mac),
            Entry::Uplink | Entry::Router => true,
        };
        here && sender && ends.into_iter().all(|end| self.spares(end))
    }

    /// Whether the zone of a VLAN on an interface observes. A VLAN that has no zone counts as in
    /// every zone of the port.
    pub fn observes(&self, interface: &str, vlan: u16) -> bool {
        let port = self.port_of(interface);
        match zone_on(port, vlan) {
            Some(zone) => self.zone(zone).is_some_and(is_observing),
            None => self.observes_wholly(interface),
        }
    }

    /// Whether every zone on an interface observes.
    pub fn observes_wholly(&self, interface: &str) -> bool {
        zones_on(self.port_of(interface)).all(|zone| self.zone(zone).is_some_and(is_observing))
    }

    /// Whether every zone observes that is on another port of the same bridge.
    pub fn neighbours_observe(&self, interface: &str) -> bool {
        let is_near = |name: &&String| name.as_str() != interface && self.has_port(name);
        let near = self.joined.iter().filter(is_near);
        !self.joined.contains(interface) || near.into_iter().all(|name| self.observes_wholly(name))
    }

    /// Whether a MAC is a device's or the router's.
    pub fn knows_mac(&self, mac: [u8; 6]) -> bool {
        self.is_own_mac(mac) || self.with_mac(mac).is_some()
    }

    /// Whether some zone on an interface observes.
    pub fn observes_in_part(&self, interface: &str) -> bool {
        zones_on(self.port_of(interface)).any(|zone| self.zone(zone).is_some_and(is_observing))
    }

    /// Whether the device with a MAC, if there is one, is neither in quarantine nor in a zone that
    /// enforces.
    pub fn spares_mac(&self, mac: [u8; 6]) -> bool {
        let device = self.with_mac(mac);
        device.is_none_or(|device| !self.is_cut_off(device) && self.spares_zone(&device.zone))
    }

    /// The same for what an address stands for. One that is mapped to IPv6 stands for the IPv4
    /// address.
    pub fn spares_address(&self, address: IpAddr) -> bool {
        self.spares(self.end(address.to_canonical()))
    }

    /// The same for an end.
    pub fn spares(&self, end: End<'_>) -> bool {
        let End::Other { device, zone, .. } = end else {
            return true;
        };
        let cut = |device: &Device| self.is_cut_off(device);
        !device.is_some_and(cut) && zone.is_none_or(|zone| self.spares_zone(zone))
    }

    fn spares_zone(&self, name: &str) -> bool {
        let has_port = self
            .policy
            .ports
            .iter()
            .any(|port| zones_on(port).any(|zone| zone == name));
        !has_port || self.zone(name).is_some_and(is_observing)
    }

    fn is_in_observing_zone(&self, end: End<'_>) -> bool {
        match end {
            End::Router | End::Other { zone: None, .. } => false,
            End::Other {
                zone: Some(zone), ..
            } => self.zone(zone).is_some_and(is_observing),
        }
    }
}

fn is_observing(zone: &Zone) -> bool {
    zone.mode() == ZoneMode::Observe
}

pub(super) fn zones_on(port: &Port) -> impl Iterator<Item = &str> {
    let tagged = port.vlans.iter().map(|vlan| vlan.zone.as_str());
    let untagged = Some(port.zone.as_str()).filter(|zone| !zone.is_empty());
    untagged.into_iter().chain(tagged)
}
