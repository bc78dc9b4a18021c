//! Where the first packet of a flow is judged, and which MACs and VLAN it has there.

use std::net::{IpAddr, Ipv4Addr};

use wardline_ebpf::{
    abi::{Port, carries_key, mac_key, vlan_key},
    packet::number,
};

use super::ends::{Candidate, Owner, Resolver, problem};
use crate::{
    inventory::Link,
    numbers::numbered,
    words::{
        mac::{Mac, mac_number},
        problem::Problem,
    },
};

/// Where the packet is judged.
#[derive(Clone, Copy, Debug)]
pub(super) enum Checkpoint {
    /// Where it enters through a guarded port.
    Enters { vlan: u16 },
    /// Where it leaves through a guarded port. `came_from` is as [`decide::egress`] takes it.
    Leaves { vlan: u16, came_from: u32 },
}

impl Checkpoint {
    pub(super) fn vlan(&self) -> u16 {
        match *self {
            Self::Enters { vlan } | Self::Leaves { vlan, .. } => vlan,
        }
    }
}

/// An interface that no table knows, for packets from the other side of the router.
const ELSEWHERE: u32 = u32::MAX;

impl<'a> Resolver<'a> {
    /// Where a packet is judged, and through which interface it comes or goes there; `port` is the
    /// one that the question names.
    pub(super) fn checkpoint(
        &self,
        from: &Candidate<'_>,
        to: &Candidate<'_>,
        port: &str,
    ) -> Result<(Checkpoint, &'a Link), Problem> {
        let is_router = from.owner == Owner::Router;
        if is_router && self.group_mac(to.address).is_some() {
            return self.leaves_to_group(port);
        }
        if port.is_empty() {
            if !self.is_guarded(from) {
                return self.leaves(to, if is_router { 0 } else { ELSEWHERE });
            }
            let link = self
                .port_of(from)
                .map_err(|message| problem("port", message))?;
            return Ok((
                Checkpoint::Enters {
                    vlan: self.vlan(link.number, self.home(from)),
                },
                link,
            ));
        }
        if is_router {
            let message = "what the router sends enters through no port; leave it out";
            return Err(problem("port", message));
        }
        let Some(link) = self.snapshot.inventory.link(port) else {
            return Err(problem("port", format!("no interface {port:?}")));
        };
        match self.snapshot.tables.ports.get(&link.number) {
            Some(entry) if entry.flags & Port::GUARDED != 0 => Ok((
                Checkpoint::Enters {
                    vlan: self.vlan(link.number, self.home(from)),
                },
                link,
            )),
            Some(entry) if entry.flags & Port::ABOVE != 0 => {
                let message = format!("{port} is above guarded ports; name the one below it");
                Err(problem("port", message))
            }
            _ => self.leaves(to, link.number),
        }
    }

    fn leaves(
        &self,
        to: &Candidate<'_>,
        came_from: u32,
    ) -> Result<(Checkpoint, &'a Link), Problem> {
        if !self.is_guarded(to) {
            let message =
                "neither end is behind a guarded port: Wardline does not judge this packet";
            return Err(problem("to", message));
        }
        let link = self.port_of(to).map_err(|message| problem("to", message))?;
        Ok((
            Checkpoint::Leaves {
                vlan: self.vlan(link.number, self.home(to)),
                came_from,
            },
            link,
        ))
    }

    /// What the router sends to a group is judged at each port that it leaves through, by the zone of
    /// that port.
    fn leaves_to_group(&self, port: &str) -> Result<(Checkpoint, &'a Link), Problem> {
        if port.is_empty() {
            let message = "missing: what the router sends to a group is judged at each port that it \
                           leaves through; name one";
            return Err(problem("port", message));
        }
        let link = self.snapshot.inventory.link(port);
        let link = link.filter(|link| self.is_guarded_port(link));
        let link = link.ok_or_else(|| {
            problem(
                "port",
                format!("{port:?} is no guarded interface that exists"),
            )
        })?;
        let no_zone = u16::MAX;
        Ok((
            Checkpoint::Leaves {
                vlan: self.vlan(link.number, no_zone),
                came_from: 0,
            },
            link,
        ))
    }

    fn is_guarded_port(&self, link: &Link) -> bool {
        let entry = self.snapshot.tables.ports.get(&link.number);
        entry.is_some_and(|entry| entry.flags & Port::GUARDED != 0)
    }

    /// The guarded interface of an end: the only one that it may be on, or, of those that carry its
    /// zone, where it was last seen, else the first by name.
    pub(super) fn port_of(&self, candidate: &Candidate<'_>) -> Result<&'a Link, String> {
        let is_guarded = |link: &&Link| self.is_guarded_port(link);
        let inventory = &self.snapshot.inventory;
        if let Owner::Device(device) = candidate.owner
            && let Some(port) = &device.port
        {
            let name = &device.name;
            return inventory.link(port).filter(is_guarded).ok_or_else(|| {
                format!(
                    "device {name:?} may be on {port} only, and there is no such guarded interface"
                )
            });
        }
        let zone = self.home(candidate);
        let places = &self.snapshot.tables.places;
        let carries = |link: &&Link| places.contains_key(&carries_key(0, link.number, zone));
        let links = inventory.links.values().filter(is_guarded).filter(carries);
        let seen = self.seen_at(candidate);
        let first = links.min_by_key(|link| (Some(link.number) != seen, &link.name));
        first.ok_or_else(|| {
            let zone = self.snapshot.name(numbered::ZONE, u32::from(zone));
            format!("no guarded interface that exists carries zone {zone:?}")
        })
    }

    /// The VLAN that a zone has on an interface. For a zone that the interface does not carry:
    /// untagged if untagged frames are in a zone, else the interface's first VLAN.
    fn vlan(&self, interface: u32, zone: u16) -> u16 {
        let tables = &self.snapshot.tables;
        let untagged = tables.ports.get(&interface).map_or(0, |port| port.zone);
        let range = vlan_key(0, interface, 1)..=vlan_key(0, interface, 4094);
        let mut tagged = tables
            .places
            .range(range)
            .map(|(key, zone)| (*key as u16, *zone));
        if untagged == zone {
            return 0;
        }
        let first = tagged.clone().next().filter(|_| untagged == 0);
        let own = tagged.find(|(_, of)| *of == u32::from(zone));
        own.or(first).map_or(0, |(vlan, _)| vlan)
    }

    pub(super) fn source_mac(
        &self,
        from: &Candidate<'_>,
        checkpoint: &Checkpoint,
        link: &Link,
    ) -> Mac {
        match checkpoint {
            Checkpoint::Leaves { .. } => link.mac.unwrap_or(UNLISTED),
            Checkpoint::Enters { .. } => match from.owner {
                Owner::Device(device) if !device.macs.is_empty() => device.macs[0],
                Owner::Device(_) | Owner::Router | Owner::Nobody => self.unlisted(),
            },
        }
    }

    pub(super) fn destination_mac(
        &self,
        to: &Candidate<'_>,
        checkpoint: &Checkpoint,
        link: &Link,
        service: u32,
    ) -> Mac {
        let enters = matches!(checkpoint, Checkpoint::Enters { .. });
        if let Some(group) = self.group_mac(to.address) {
            return group;
        }
        match to.owner {
            // Hosts send every packet to another zone to the router, but neighbour discovery to the
            // neighbour.
            Owner::Router if enters => link.mac.unwrap_or(UNLISTED),
            _ if enters && !is_discovery(service) => link.mac.unwrap_or(UNLISTED),
            Owner::Device(device) if !device.macs.is_empty() => device.macs[0],
            Owner::Device(_) | Owner::Router | Owner::Nobody => self.unlisted(),
        }
    }

    /// The MAC of what goes to a group (RFC 1112 section 6.4, RFC 2464 section 7) or a broadcast
    /// address.
    fn group_mac(&self, address: IpAddr) -> Option<Mac> {
        let nets = self.snapshot.inventory.connected.iter().map(|(_, net)| net);
        let mut v4 = nets.filter(|net| net.addr().is_ipv4() && net.prefix_len() < 31);
        match address {
            IpAddr::V4(group) if group.is_multicast() => {
                let [_, b, c, d] = group.octets();
                Some(Mac([1, 0, 0x5e, b & 0x7f, c, d]))
            }
            IpAddr::V6(group) if group.is_multicast() => {
                let [.., a, b, c, d] = group.octets();
                Some(Mac([0x33, 0x33, a, b, c, d]))
            }
            _ if address == Ipv4Addr::BROADCAST || v4.any(|net| net.broadcast() == address) => {
                Some(Mac([0xff; 6]))
            }
            _ => None,
        }
    }

    /// A locally administered MAC that no device has.
    fn unlisted(&self) -> Mac {
        let mut mac = UNLISTED;
        while self
            .snapshot
            .tables
            .macs
            .contains_key(&mac_key(0, mac_number(&mac)))
        {
            let next = (mac_number(&mac) + 1).to_be_bytes();
            // The first two bytes stay; the other four can count more MACs than there are.
            mac.0[2..].copy_from_slice(&next[4..]);
        }
        mac
    }
}

/// Whether a service key is that of neighbour discovery.
pub(super) fn is_discovery(service: u32) -> bool {
    (service >> 16) as u8 == number::ICMPV6 && matches!((service >> 8) as u8, 133..=137)
}

/// The lowest address in a block that RFC 7042 sets aside for documents, locally administered.
const UNLISTED: Mac = Mac([0x02, 0x00, 0x5e, 0x00, 0x53, 0x00]);
