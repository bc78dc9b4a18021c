//! The links of the router and its own addresses, as they are at present.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;

use crate::words::mac::Mac;

/// The links and addresses of the network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// By number.
    pub links: BTreeMap<u32, Link>,
    /// The router's own, IPv6 link-local ones too, but not the loopback's.
    pub addresses: BTreeSet<IpAddr>,
    /// What else the router takes packets by: the broadcasts of its subnets, anycast addresses, and
    /// prefixes that are local to it as a whole.
    pub taken: BTreeSet<IpNet>,
    /// The networks that it reaches directly, by the number of the interface: those of its addresses,
    /// but not link-local ones.
    pub connected: BTreeSet<(u32, IpNet)>,
    /// Its addresses with the lengths of their networks, by the number of the interface that has each.
    pub own: BTreeSet<(u32, IpNet)>,
    /// Alternative names of interfaces, with the number of the interface. Ports do not go by them.
    pub alternatives: BTreeMap<String, u32>,
    /// Whether the router rewrites packets.
    pub nat: Nat,
}

/// Whether the router has rules that change addresses of packets, by family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Nat {
    /// Of IPv4.
    pub v4: bool,
    /// Of IPv6.
    pub v6: bool,
}

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its number in Wardline's tables, as [`FAR`](wardline_ebpf::abi::FAR) says; one that has none
    /// there has a number that no table holds.
    pub number: u32,
    /// Its index in the kernel.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
    /// Its Ethernet address.
    pub mac: Option<Mac>,
    /// The address that the hardware came with, which a port of a bond sends LACP from.
    pub permanent: Option<Mac>,
    /// Whether it is administratively up.
    pub up: bool,
    /// The number of the interface that it is a member of: a bridge, a bond, a VRF.
    pub controller: Option<u32>,
    /// The number of the interface below, whose frames it takes as they are, when that is in the same namespace:
    /// of a VLAN interface, a macvlan, an ipvlan.
    pub parent: Option<u32>,
    /// The id of a VLAN interface.
    pub vlan: Option<u16>,
    /// `vlan`, `bridge`, `veth` …; none for hardware.
    pub kind: Option<String>,
    /// What its packets begin with.
    pub header: Header,
}

/// What the packets of an interface begin with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Header {
    /// An Ethernet header.
    #[default]
    Ethernet,
    /// Nothing: IP comes first (WireGuard, PPP, tun).
    Bare,
    /// Something else, by the kernel's number of the type (`ARPHRD_…`).
    Other(u16),
}

impl Link {
    /// The Ethernet addresses that the router may send from through it. That of a macvtap is the
    /// virtual machine's.
    pub fn macs(&self) -> impl Iterator<Item = Mac> + use<> {
        let is_guests = self.kind.as_deref() == Some("macvtap");
        let macs = self.mac.into_iter().chain(self.permanent);
        macs.filter(move |_| !is_guests)
    }
}

impl Inventory {
    /// Gives interfaces their numbers: until then each has its index as its number.
    pub fn number(&mut self, number_of: impl Fn(u32) -> u32) {
        let links = std::mem::take(&mut self.links).into_values();
        let links = links.map(|link| Link {
            number: number_of(link.ifindex),
            controller: link.controller.map(&number_of),
            parent: link.parent.map(&number_of),
            ..link
        });
        self.links = links.map(|link| (link.number, link)).collect();
        for networks in [&mut self.connected, &mut self.own] {
            let indexed = std::mem::take(networks).into_iter();
            *networks = indexed
                .map(|(ifindex, net)| (number_of(ifindex), net))
                .collect();
        }
        for ifindex in self.alternatives.values_mut() {
            *ifindex = number_of(*ifindex);
        }
    }

    /// The name of the link with a number.
    pub fn link_at(&self, number: u32) -> Option<&String> {
        self.links.get(&number).map(|link| &link.name)
    }

    /// Finds a link by its name.
    pub fn link(&self, name: &str) -> Option<&Link> {
        self.links.values().find(|link| link.name == name)
    }
}
