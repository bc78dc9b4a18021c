//! Control as devices and attackers send it, and packets in fragments.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{FAR_MAC, ROUTER_MAC, STRANGER, Spot, Step, Stream, echo, tagged};
use crate::{
    frames::{
        Arp, BROADCAST, Dhcp, Ethernet, Extension, Icmp, Ipv4, Ipv6, Mac, Packet, ROUTER_ALERT,
        SYN, Tcp, Udp, Upper, dhcpv6, group_mac, icmpv6, igmp_report, ip, solicited_node,
    },
    oracle::Asks,
    random,
    sequence::{From, Where},
};

impl Stream {
    /// The MAC of somebody behind a port.
    fn client(&mut self) -> Option<Mac> {
        let spots = self.stations.iter().map(|it| &it.spot);
        let macs: Vec<Mac> = spots
            .filter_map(|spot| match spot {
                Spot::Port { mac, .. } => Some(*mac),
                _ => None,
            })
            .collect();
        (!macs.is_empty()).then(|| self.dice.pick(&macs))
    }

    /// A link-local address that a host with a MAC may have, or not.
    fn link_local(&mut self, mac: Mac) -> Ipv6Addr {
        let own = random::made_of(mac[4], mac[5]);
        let address = if self.dice.percent(40) {
            own
        } else {
            self.dice.pick(&random::LINK_LOCAL)
        };
        match address {
            IpAddr::V6(address) => address,
            IpAddr::V4(_) => Ipv6Addr::UNSPECIFIED,
        }
    }

    /// A control message, as a device or an attacker sends it.
    pub(super) fn control(&mut self) -> Option<Step> {
        let (station, address) = self.sender();
        let own = match &station.spot {
            Spot::Port { mac, .. } => *mac,
            Spot::Uplink => FAR_MAC,
            Spot::Router | Spot::Through(_) => ROUTER_MAC,
        };
        let claimed = if self.dice.percent(85) {
            own
        } else {
            self.dice.pick(&[STRANGER, ROUTER_MAC, [0; 6]])
        };
        let any = self.dice.pick(&self.addresses);
        let mut destination = BROADCAST;
        let packet = match self.dice.below(22) {
            0 => Packet::Bytes(0x888e, vec![1, 1, 0, 0]),
            1 => Packet::Bytes(
                self.dice.pick(&[0x8892, 0x88cc, 0x88e1, 0x9000, 0x0600]),
                vec![0; 46],
            ),
            2 => Packet::Bytes(self.dice.pick(&[38, 3, 0x05ff, 0]), vec![0x42, 0x42, 3]),
            3..9 => {
                let (IpAddr::V4(sender), IpAddr::V4(target)) = (address, any) else {
                    return None;
                };
                let mut arp = Arp::request(claimed, sender, target);
                match self.dice.below(10) {
                    0..4 => {}
                    4..7 => arp.operation = 2,
                    7 => arp.sender = Ipv4Addr::UNSPECIFIED,
                    8 => arp.target = sender,
                    _ => arp.operation = self.dice.below(12) as u16,
                }
                match self.dice.below(30) {
                    0 => arp.hardware = 6,
                    1 => arp.protocol = 0x86dd,
                    2 => arp.hardware_length = 8,
                    _ => {}
                }
                arp.into()
            }
            9..16 => {
                let IpAddr::V6(address) = address else {
                    return None;
                };
                let IpAddr::V6(any) = any else { return None };
                let link = self.link_local(own);
                let source = match self.dice.below(10) {
                    0..5 => link,
                    5..8 => address,
                    8 => Ipv6Addr::UNSPECIFIED,
                    _ => any,
                };
                let target = match self.dice.below(10) {
                    0..6 => address,
                    6..8 => self.link_local(own),
                    _ => any,
                };
                let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
                let mut own_link = self.dice.pick(&[
                    vec![],
                    vec![icmpv6::source_link(claimed)],
                    vec![icmpv6::target_link(claimed)],
                    vec![icmpv6::target_link(claimed), icmpv6::source_link(own)],
                ]);
                // Other options, as many as a router may announce, and more.
                if self.dice.percent(20) {
                    let others = self.dice.pick(&[1, 5, 6, 7, 40, 150, 181, 190]);
                    let at = self.dice.below(own_link.len() + 1);
                    own_link.splice(
                        at..at,
                        (0..others).map(|it| [24, 1, it as u8, 0, 0, 0, 0, 0]),
                    );
                }
                let upper = match self.dice.below(9) {
                    0..2 => icmpv6::neighbour_solicitation(target, &own_link),
                    2..4 => icmpv6::neighbour_advertisement(target, 0x60, &own_link),
                    4 => icmpv6::router_solicitation(&own_link),
                    5 => icmpv6::router_advertisement(&own_link),
                    6 => icmpv6::redirect(target, any),
                    7 => icmpv6::listener_query(solicited_node(any)),
                    _ => icmpv6::listener_report(solicited_node(any)),
                };
                let is_membership =
                    matches!(&upper, Upper::Icmpv6(icmp) if matches!(icmp.kind, 130 | 143));
                let to = if self.dice.percent(70) {
                    all_nodes
                } else {
                    solicited_node(target)
                };
                let mut packet = Ipv6::new(source, to, upper);
                if !self.dice.percent(10) {
                    packet.hop_limit = 255;
                }
                if self.dice.percent(95) {
                    destination = group_mac(to);
                }
                if is_membership {
                    packet.hop_limit = self.dice.pick(&[1, 1, 1, 1, 1, 2]);
                    if self.dice.percent(80) {
                        packet = packet.with(Extension::router_alert());
                    }
                }
                packet.into()
            }
            16..18 => {
                let kind = self.dice.pick(&[1, 3, 4, 7, 8]);
                let mut message = Dhcp::client(kind, claimed);
                // Sometimes one identifier of too many, and options that hide others.
                if self.dice.percent(50) {
                    let number = self.dice.below(7) as u8;
                    message.options.push((61, vec![0, number]));
                }
                if let (IpAddr::V4(any), true) = (any, self.dice.percent(50)) {
                    let requested = if self.dice.percent(40) {
                        any
                    } else {
                        Ipv4Addr::UNSPECIFIED
                    };
                    let requested = match address {
                        IpAddr::V4(own) if requested.is_unspecified() => own,
                        _ => requested,
                    };
                    message.options.push((50, requested.octets().to_vec()));
                }
                if self.dice.percent(10) {
                    let odd = self.dice.pick(&[
                        (52, vec![1]),
                        (53, vec![1]),
                        (61, vec![]),
                        (55, vec![1; 200]),
                        (50, vec![1, 2]),
                        (0, vec![0; 3]),
                    ]);
                    message.options.push(odd);
                }
                if let (IpAddr::V4(any), true) = (any, self.dice.percent(20)) {
                    let field = if self.dice.percent(50) {
                        &mut message.relay
                    } else {
                        &mut message.client
                    };
                    *field = any;
                }
                let mut source = Ipv4Addr::UNSPECIFIED;
                let mut to = Ipv4Addr::BROADCAST;
                if let (IpAddr::V4(address), true) = (address, self.dice.percent(40)) {
                    (source, message.client) = (address, address);
                    if let (IpAddr::V4(any), true) = (any, self.dice.percent(50)) {
                        to = any;
                    }
                }
                Ipv4::new(source, to, message.udp()).into()
            }
            18 => {
                let IpAddr::V4(source) = address else {
                    return None;
                };
                let client = self.client().unwrap_or(own);
                let given = match any {
                    IpAddr::V4(any) if self.dice.percent(80) => any,
                    _ => source,
                };
                let message = Dhcp::server(self.dice.pick(&[2, 5, 5, 5, 6]), source, client, given);
                let mut udp = message.udp();
                let mut to = Ipv4Addr::BROADCAST;
                // To a relay.
                if let (IpAddr::V4(any), true) = (any, self.dice.percent(50)) {
                    (udp.destination_port, to) = (67, any);
                }
                Ipv4::new(source, to, udp).into()
            }
            19 => {
                let kind = self.dice.pick(&[1, 3, 7, 8, 8, 9]);
                let link = self.link_local(claimed);
                let to = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
                destination = group_mac(to);
                let mut udp = dhcpv6(kind, claimed);
                if self.dice.percent(70) {
                    let given = if self.dice.percent(50) { address } else { any };
                    udp.data.extend(self.association(given));
                }
                // A server's answer, to a client.
                let mut to = to;
                if let (Some(client), true) = (self.client(), self.dice.percent(30)) {
                    let ports = (udp.source_port, udp.destination_port);
                    (udp.destination_port, udp.source_port) = ports;
                    udp.data[0] = 7;
                    to = self.link_local(client);
                    destination = client;
                }
                Ipv6::new(link, to, udp).into()
            }
            _ => {
                let IpAddr::V4(source) = address else {
                    return None;
                };
                let group = Ipv4Addr::new(224, 0, 0, 251);
                let mut packet = Ipv4::new(source, group, igmp_report(group));
                packet.ttl = self.dice.pick(&[1, 1, 1, 1, 1, 2]);
                if self.dice.percent(95) {
                    destination = group_mac(group);
                }
                if self.dice.percent(70) {
                    packet.options = ROUTER_ALERT.to_vec();
                }
                if let (Upper::Bytes(_, bytes), true) = (&mut packet.upper, self.dice.percent(30)) {
                    bytes[0] = self.dice.pick(&[0x11, 0x12, 0x17, 0x22, 0x30]);
                }
                packet.into()
            }
        };
        let step = match &station.spot {
            Spot::Port {
                interface, vlan, ..
            } => Step {
                at: Where::Entering {
                    interface: interface.clone(),
                },
                tag: None,
                frame: tagged(Ethernet::new(destination, own, packet), *vlan).bytes(),
            },
            spot => {
                let (interface, vlans) = self.dice.pick(&self.interfaces);
                let vlan = if vlans.is_empty() {
                    0
                } else {
                    self.dice.pick(&vlans)
                };
                let from = if *spot == Spot::Uplink {
                    From::Uplink
                } else {
                    From::Router
                };
                Step {
                    at: Where::Leaving { interface, from },
                    tag: None,
                    frame: tagged(Ethernet::new(destination, own, packet), vlan).bytes(),
                }
            }
        };
        Some(step)
    }

    /// An association of DHCPv6 with an address, mostly well-formed.
    fn association(&mut self, address: IpAddr) -> Vec<u8> {
        let IpAddr::V6(address) = address else {
            return Vec::new();
        };
        let mut given = [&[0, 5, 0, 24][..], &address.octets(), &[0; 8]].concat();
        if self.dice.percent(15) {
            given[3] = self.dice.pick(&[0, 16, 23, 25, 60]);
        }
        let (code, fixed) = self
            .dice
            .pick(&[(3, 12), (3, 12), (4, 4), (25, 12), (6, 12), (1, 1)]);
        let mut length = fixed + given.len();
        if self.dice.percent(15) {
            length = self.dice.pick(&[0, 3, 12, 20, 39, 41, 90]);
        }
        [&[0, code, 0, length as u8][..], &vec![0; fixed], &given].concat()
    }

    /// A packet in pieces, mostly in order.
    pub(super) fn fragments(&mut self) -> Option<Step> {
        let (from, source) = self.sender();
        let (to, destination) = self.peer(source)?;
        let port = self.port_number();
        let asks = self.dice.pick(&self.wanted);
        let data: Vec<u8> = (0..self.dice.pick(&[16, 24, 40, 64])).collect();
        let upper: Upper = match asks {
            Asks::Tcp(to) => Tcp {
                data,
                ..Tcp::new(port, to, SYN)
            }
            .into(),
            Asks::Udp(to) => Udp::new(port, to, data).into(),
            Asks::Protocol(protocol) => Upper::Bytes(protocol, data),
            Asks::Icmp { .. } | Asks::Icmpv6 { .. } if source.is_ipv4() => {
                Upper::Icmp(Icmp::new(8, 0, echo(port, &data)))
            }
            Asks::Icmp { .. } | Asks::Icmpv6 { .. } => {
                Upper::Icmpv6(Icmp::new(128, 0, echo(port, &data)))
            }
        };
        let whole = ip(source, destination, upper).encode().1;
        let (protocol, payload) = match source {
            IpAddr::V4(_) => (whole[9], &whole[20..]),
            IpAddr::V6(_) => (whole[6], &whole[40..]),
        };
        let identification = self.dice.below(3) as u16;
        let size = self.dice.pick(&[8, 16, 24, 24, 32]);
        let mut pieces: Vec<(usize, Vec<u8>, bool)> = Vec::new();
        let count = payload.chunks(size).count();
        for (i, piece) in payload.chunks(size).enumerate() {
            pieces.push((i * size / 8, piece.to_vec(), i + 1 < count));
        }
        if self.dice.percent(40) {
            let at = self.dice.below(pieces.len());
            match self.dice.below(6) {
                0 => drop(pieces.remove(at)),
                1 => pieces.push(pieces[at].clone()),
                2 => pieces.insert(at, pieces[at].clone()),
                3 => pieces.swap(0, at),
                4 => pieces[at].0 = self.dice.pick(&[0, 1, 2, 3, 8190]),
                _ => drop(pieces[at].1.pop()),
            }
        }
        let mut steps = Vec::new();
        for (offset, piece, more) in pieces {
            let upper = Upper::Bytes(protocol, piece);
            let packet = match ip(source, destination, upper) {
                Packet::Ipv4(packet) => Packet::Ipv4(Ipv4 {
                    identification,
                    fragment_offset: offset as u16,
                    more_fragments: more,
                    ..packet
                }),
                Packet::Ipv6(packet) => {
                    let header = Extension::fragment(offset as u16, more, identification.into());
                    packet.with(header).into()
                }
                other => other,
            };
            // Pieces of other packets come between.
            let step = self.send(&from, &to, packet);
            steps.push(self.tag_outside(step));
        }
        steps.reverse();
        let first = steps.pop()?;
        self.pending.extend(steps);
        Some(first)
    }
}
