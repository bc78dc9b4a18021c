//! Random frames for a policy, in the order in which they are seen: openers that are likely to meet
//! a rule, replies to them, errors about them, control, fragments, and all of these mutated.
//!
//! Everything is drawn from one seed.

mod control;
mod dice;
mod mutations;
mod nat;

use std::net::IpAddr;

use wardline_proto::v1::Policy;

pub use self::dice::Dice;
use crate::{
    frames::{
        self, ACK, BROADCAST, Ethernet, Extension, FIN, Icmp, Mac, PSH, Packet, ROUTER_ALERT, RST,
        SYN, Tcp, URG, Udp, Upper, group_mac, icmp, icmpv6,
    },
    oracle::Asks,
    random::{self, ROUTER, ROUTER_MAC},
    sequence::{From, Where},
};

/// A frame and where it is seen.
#[derive(Clone, Debug)]
pub struct Step {
    pub at: Where,
    /// The tag that the interface took out of the frame.
    pub tag: Option<u16>,
    pub frame: Vec<u8>,
}

/// Where packets with some addresses come from.
#[derive(Clone, Debug)]
struct Station {
    spot: Spot,
    /// Addresses that it may use, or most of them.
    addresses: Vec<IpAddr>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Spot {
    Port {
        interface: String,
        vlan: u16,
        mac: Mac,
    },
    Uplink,
    Router,
    /// A guarded port, through which a packet has come before NAT rewrote it.
    Through(String),
}

/// A flow that was begun.
#[derive(Clone, Debug)]
struct Talk {
    ends: [(Station, IpAddr); 2],
    asks: Asks,
    source_port: u16,
    /// The last packet of it, and which end sent it.
    last: (Packet, usize),
    stage: u8,
}

/// Draws the frames that are sent through a router with a policy.
pub struct Stream {
    dice: Dice,
    stations: Vec<Station>,
    addresses: Vec<IpAddr>,
    /// What the services of the policy cover, at their borders and a little beyond.
    wanted: Vec<Asks>,
    interfaces: Vec<(String, Vec<u16>)>,
    talks: Vec<Talk>,
    sent: Vec<Step>,
    /// Whether tags may be held outside the frames.
    tags_outside: bool,
    /// Frames to send before any other.
    pending: Vec<Step>,
    /// The source MAC of what comes from the uplink: the router's, where it is routed; where a
    /// bridge passes it on, another.
    uplink: Mac,
}

const FAR_MAC: Mac = [2, 0, 0, 0, 9, 1];
const STRANGER: Mac = [2, 0, 0, 0, 0xee, 0xee];

/// The frames of a seed. None when no interface is guarded: there is nothing to judge.
pub fn steps(policy: &Policy, seed: u64, count: usize, tags_outside: bool) -> Vec<Step> {
    let mut stream = Stream::new(policy, seed, tags_outside);
    if stream.interfaces.is_empty() {
        return Vec::new();
    }
    let mut steps = Vec::with_capacity(count);
    while steps.len() < count {
        let step = match stream.pending.pop() {
            Some(step) => step,
            None => match stream.next() {
                Some(step) => step,
                None => continue,
            },
        };
        if step.frame.len() >= 14 {
            stream.sent.push(step.clone());
            steps.push(step);
        }
    }
    steps
}

impl Stream {
    fn new(policy: &Policy, seed: u64, tags_outside: bool) -> Self {
        let mut dice = Dice::new(seed);
        let uplink = if dice.percent(80) {
            ROUTER_MAC
        } else {
            FAR_MAC
        };
        let addresses = random::addresses(policy);
        let interfaces: Vec<(String, Vec<u16>)> = random::interfaces(policy)
            .into_iter()
            .map(|(name, port)| {
                let vlans = random::places(port).map(|(vlan, _)| vlan).collect();
                (name.to_owned(), vlans)
            })
            .collect();
        let mut stations = Vec::new();
        for device in &policy.devices {
            for (interface, port) in random::interfaces(policy) {
                for (vlan, _) in random::places(port).filter(|(_, zone)| *zone == device.zone) {
                    for mac in &device.macs {
                        if !device.port.is_empty() && device.port != interface {
                            continue;
                        }
                        stations.push(Station {
                            spot: Spot::Port {
                                interface: interface.to_owned(),
                                vlan,
                                mac: frames::mac(mac),
                            },
                            addresses: with_link_local(
                                likely(policy, &device.zone, &device.addresses, &addresses),
                                frames::mac(mac),
                            ),
                        });
                    }
                }
            }
        }
        // Keeps eight of them, so that a device is mostly at one place.
        while stations.len() > 8 {
            stations.swap_remove(dice.below(stations.len()));
        }
        for (interface, port) in random::interfaces(policy) {
            for (vlan, zone) in random::places(port) {
                if dice.percent(30) {
                    let interface = interface.to_owned();
                    let mac = if dice.percent(15) {
                        ROUTER_MAC
                    } else {
                        STRANGER
                    };
                    stations.push(Station {
                        spot: Spot::Port {
                            interface,
                            vlan,
                            mac,
                        },
                        addresses: with_link_local(likely(policy, zone, &[], &addresses), mac),
                    });
                }
            }
        }
        let far = |address: &IpAddr| !ROUTER.contains(address) && !address.is_multicast();
        let elsewhere = addresses.iter().copied().filter(far).collect();
        stations.push(Station {
            spot: Spot::Uplink,
            addresses: elsewhere,
        });
        stations.push(Station {
            spot: Spot::Router,
            addresses: ROUTER.to_vec(),
        });
        Self {
            wanted: wanted(policy, &mut dice),
            dice,
            stations,
            addresses,
            interfaces,
            talks: Vec::new(),
            sent: Vec::new(),
            tags_outside,
            pending: Vec::new(),
            uplink,
        }
    }

    fn next(&mut self) -> Option<Step> {
        let step = match self.dice.below(100) {
            0..30 => self.open(),
            30..66 => self.go_on(),
            66..80 => self.control(),
            80..88 => self.fragments(),
            _ => self.again(),
        }?;
        let step = if self.dice.percent(18) {
            self.mutate(step)
        } else {
            step
        };
        let step = self.host(step);
        Some(self.tag_outside(step))
    }

    /// Sometimes a sender is not behind its port but above it, with a MAC of its own: then its frame
    /// only leaves.
    fn host(&mut self, step: Step) -> Step {
        match step.at {
            Where::Entering { interface } if self.dice.percent(12) => Step {
                at: Where::Leaving {
                    interface,
                    from: From::Router,
                },
                ..step
            },
            _ => step,
        }
    }

    // ── conversations ──────────────────────────────────────────────────────────────────────────

    fn open(&mut self) -> Option<Step> {
        let (from, source) = self.sender();
        let (to, destination) = self.peer(source)?;
        let source_port = self.port_number();
        let mut asks = self.dice.pick(&self.wanted);
        if let (Asks::Icmp { .. }, IpAddr::V6(_)) = (asks, source) {
            asks = Asks::Icmpv6 { kind: 128, code: 0 };
        }
        if let (Asks::Icmpv6 { .. }, IpAddr::V4(_)) = (asks, source) {
            asks = Asks::Icmp { kind: 8, code: 0 };
        }
        let upper = match asks {
            Asks::Tcp(port) => Tcp::new(source_port, port, SYN).into(),
            Asks::Udp(port) => Udp::new(source_port, port, self.data()).into(),
            Asks::Icmp { kind, code } => {
                Upper::Icmp(Icmp::new(kind, code, echo(source_port, &self.data())))
            }
            Asks::Icmpv6 { kind, code } => {
                Upper::Icmpv6(Icmp::new(kind, code, echo(source_port, &self.data())))
            }
            Asks::Protocol(protocol) => Upper::Bytes(protocol, self.data()),
        };
        let packet = self.dress(frames::ip(source, destination, upper));
        self.talks.push(Talk {
            ends: [(from.clone(), source), (to.clone(), destination)],
            asks,
            source_port,
            last: (packet.clone(), 0),
            stage: 0,
        });
        let step = self.send(&from, &to, packet);
        if self.dice.percent(15)
            && let Some(next) = self.rewritten()
        {
            self.pending.push(next);
        }
        Some(step)
    }

    /// The next packet of a flow, or an error about the last.
    fn go_on(&mut self) -> Option<Step> {
        if self.talks.is_empty() {
            return None;
        }
        // Mostly one of the latest.
        let count = self.talks.len();
        let recent = if self.dice.percent(70) {
            4.min(count)
        } else {
            count
        };
        let back = self.dice.below(recent);
        let at = count - 1 - back;
        let mut talk = self.talks[at].clone();
        if self.dice.percent(12) {
            return self.error_about(&talk);
        }
        let side = match talk.asks {
            _ if self.dice.percent(25) => self.dice.below(2),
            Asks::Tcp(_) if talk.stage < 2 => usize::from(talk.stage == 0),
            _ => 1 - talk.last.1,
        };
        let (own, other) = (&talk.ends[side], &talk.ends[1 - side]);
        let (source, destination) = (own.1, other.1);
        let (ports, data) = (talk.source_port, self.data());
        let upper: Upper = match talk.asks {
            Asks::Tcp(port) => {
                let flags = match (talk.stage, side) {
                    _ if self.dice.percent(12) => self.flags(),
                    (0, 1) => SYN | ACK,
                    (0, 0) => SYN,
                    _ => {
                        self.dice
                            .pick(&[ACK, ACK, PSH | ACK, PSH | ACK, FIN | ACK, RST, RST | ACK])
                    }
                };
                talk.stage = (talk.stage + 1).min(2);
                let (from, to) = if side == 0 {
                    (ports, port)
                } else {
                    (port, ports)
                };
                Tcp {
                    data,
                    ..Tcp::new(from, to, flags)
                }
                .into()
            }
            Asks::Udp(port) => {
                let (from, to) = if side == 0 {
                    (ports, port)
                } else {
                    (port, ports)
                };
                Udp::new(from, to, data).into()
            }
            Asks::Icmp { kind, code } => {
                let answers = side == 1 && self.dice.percent(90);
                let answer = if kind == 8 { 0 } else { kind.wrapping_add(1) };
                let kind = if answers { answer } else { kind };
                Upper::Icmp(Icmp::new(kind, code, echo(ports, &data)))
            }
            Asks::Icmpv6 { kind, code } => {
                let answers = side == 1 && self.dice.percent(90);
                let kind = if answers { kind.wrapping_add(1) } else { kind };
                Upper::Icmpv6(Icmp::new(kind, code, echo(ports, &data)))
            }
            Asks::Protocol(protocol) => Upper::Bytes(protocol, data),
        };
        let packet = self.dress(frames::ip(source, destination, upper));
        talk.last = (packet.clone(), side);
        let [(own, _), (other, _)] = if side == 0 {
            talk.ends.clone()
        } else {
            let [a, b] = talk.ends.clone();
            [b, a]
        };
        self.talks[at] = talk;
        Some(self.send(&own, &other, packet))
    }

    fn error_about(&mut self, talk: &Talk) -> Option<Step> {
        let (packet, side) = &talk.last;
        let sender = talk.ends[*side].clone();
        // From the other end or from any hop.
        let (station, source) = if self.dice.percent(60) {
            talk.ends[1 - side].clone()
        } else {
            self.sender()
        };
        let destination = if self.dice.percent(85) {
            sender.1
        } else {
            self.dice.pick(&self.addresses)
        };
        if source.is_ipv4() != destination.is_ipv4() || source == destination {
            return None;
        }
        let upper = match source {
            IpAddr::V4(_) => {
                let kind = self.dice.pick(&[3, 3, 3, 4, 5, 11, 12]);
                let code = self.dice.below(16) as u8;
                icmp::error(kind, code, packet)
            }
            IpAddr::V6(_) => icmpv6::error(self.dice.pick(&[1, 2, 3, 4]), 0, packet),
        };
        let packet = frames::ip(source, destination, upper);
        Some(self.send(&station, &sender.0, packet))
    }

    fn sender(&mut self) -> (Station, IpAddr) {
        let station = self.dice.pick(&self.stations);
        let address = if station.addresses.is_empty() || self.dice.percent(8) {
            self.dice.pick(&self.addresses)
        } else {
            self.dice.pick(&station.addresses)
        };
        (station, address)
    }

    /// Another end of the same family, where it is likely to be.
    fn peer(&mut self, of: IpAddr) -> Option<(Station, IpAddr)> {
        for _ in 0..8 {
            let address = if self.dice.percent(85) {
                let station = self.dice.pick(&self.stations);
                if station.addresses.is_empty() {
                    continue;
                }
                self.dice.pick(&station.addresses)
            } else {
                self.dice.pick(&self.addresses)
            };
            if address.is_ipv4() != of.is_ipv4() || address == of && self.dice.percent(95) {
                continue;
            }
            let there = |station: &&Station| station.addresses.contains(&address);
            let uplink = self.stations.len() - 2;
            let station = self.stations[..uplink].iter().find(there);
            let station = station.unwrap_or(&self.stations[uplink]);
            return Some((station.clone(), address));
        }
        None
    }

    /// A packet on its way from one station to another, at the first place that judges it. Where it
    /// enters, it sometimes leaves afterwards.
    fn send(&mut self, from: &Station, to: &Station, packet: Packet) -> Step {
        let leaving = |stream: &mut Self, origin: From, source: Mac, packet: &Packet| {
            let (interface, vlan, mac) = match &to.spot {
                Spot::Port {
                    interface,
                    vlan,
                    mac,
                } => (interface.clone(), *vlan, *mac),
                Spot::Uplink | Spot::Router | Spot::Through(_) => {
                    let (interface, vlans) = stream.dice.pick(&stream.interfaces);
                    let vlan = if vlans.is_empty() {
                        0
                    } else {
                        stream.dice.pick(&vlans)
                    };
                    (interface, vlan, [2, 0, 0, 0, 0, 0])
                }
            };
            let destination = multicast_mac(packet).unwrap_or(mac);
            let at = Where::Leaving {
                interface,
                from: origin,
            };
            let frame = tagged(Ethernet::new(destination, source, packet.clone()), vlan);
            let (tag, frame) = (None, frame.bytes());
            Step { at, tag, frame }
        };
        match &from.spot {
            Spot::Uplink => leaving(self, From::Uplink, self.uplink, &packet),
            Spot::Router => leaving(self, From::Router, ROUTER_MAC, &packet),
            Spot::Through(interface) => {
                leaving(self, From::Guarded(interface.clone()), ROUTER_MAC, &packet)
            }
            Spot::Port {
                interface,
                vlan,
                mac,
            } => {
                if self.dice.percent(12) {
                    let next = leaving(self, From::Guarded(interface.clone()), ROUTER_MAC, &packet);
                    let next = self.tag_outside(next);
                    self.pending.push(next);
                }
                let destination = multicast_mac(&packet).unwrap_or(ROUTER_MAC);
                let frame = tagged(Ethernet::new(destination, *mac, packet), *vlan);
                Step {
                    at: Where::Entering {
                        interface: interface.clone(),
                    },
                    tag: None,
                    frame: Ethernet {
                        padded_to: if self.dice.percent(10) { 60 } else { 0 },
                        ..frame
                    }
                    .bytes(),
                }
            }
        }
    }

    /// Hop limits, options and extension headers as some stacks send them.
    fn dress(&mut self, packet: Packet) -> Packet {
        if self.dice.percent(94) {
            return packet;
        }
        match packet {
            Packet::Ipv4(mut packet) => {
                packet.ttl = self.dice.pick(&[0, 1, 64, 255]);
                packet.dont_fragment = self.dice.percent(50);
                if self.dice.percent(60) {
                    packet.options = self.dice.pick(&[
                        ROUTER_ALERT.to_vec(),
                        vec![1, 1, 1, 0],
                        vec![7, 7, 4, 0, 0, 0, 0, 0],
                        vec![131, 7, 4, 10, 1, 1, 1, 0],
                        vec![1, 137, 7, 4, 10, 1, 1, 1],
                        vec![68, 12, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0],
                        vec![0, 131, 3, 4],
                        vec![7, 200, 4, 0],
                        vec![7, 1, 4, 0],
                        vec![1, 1, 1, 130],
                        vec![1; 40],
                    ]);
                }
                Packet::Ipv4(packet)
            }
            Packet::Ipv6(mut packet) => {
                packet.hop_limit = self.dice.pick(&[0, 1, 64, 255]);
                for _ in 0..self.dice.pick(&[0, 1, 1, 1, 2, 2, 3, 8]) {
                    let extension = self.dice.pick(&[
                        Extension::hop_by_hop(&[1, 4, 0, 0, 0, 0]),
                        Extension::router_alert(),
                        Extension::destination(&[1, 4, 0, 0, 0, 0]),
                        Extension::destination(&[4, 20, 0, 0, 0, 0]),
                        Extension::routing(0, 0, &[0; 20]),
                        Extension::routing(4, 1, &[0; 4]),
                        Extension::authentication(&[0; 12]),
                        Extension::fragment(0, false, 7),
                        Extension::destination(&[0; 70]),
                    ]);
                    packet = packet.with(extension);
                }
                Packet::Ipv6(packet)
            }
            other => other,
        }
    }

    fn flags(&mut self) -> u8 {
        let dice = &mut self.dice;
        if dice.percent(30) {
            return dice.roll() as u8;
        }
        dice.pick(&[
            SYN,
            SYN | ACK,
            ACK,
            RST,
            FIN,
            FIN | ACK,
            SYN | FIN,
            SYN | RST,
            PSH,
            URG,
            0,
            FIN | PSH | URG,
            SYN | 0xc0,
            RST | FIN,
            SYN | ACK | URG,
        ])
    }

    fn port_number(&mut self) -> u16 {
        match self.dice.below(20) {
            0 => self.dice.pick(&[0, 53, 67, 68, 443, 65535]),
            _ => 20_000 + self.dice.below(40) as u16,
        }
    }

    fn data(&mut self) -> Vec<u8> {
        let length = self.dice.pick(&[0, 1, 8, 8, 20, 60]);
        (0..length).map(|_| self.dice.roll() as u8).collect()
    }
}

/// What a device may use: its own addresses, or else those of its zone.
fn likely(policy: &Policy, zone: &str, own: &[String], anywhere: &[IpAddr]) -> Vec<IpAddr> {
    if !own.is_empty() {
        let own = own.iter().map(|it| it.parse().expect("an address"));
        return own.collect();
    }
    let inside = |it: &&IpAddr| {
        random::owners(&policy.zones, **it)
            .iter()
            .any(|it| *it == zone)
    };
    anywhere.iter().filter(inside).copied().collect()
}

/// Adds the link-local addresses that a host with a MAC is likely to have.
fn with_link_local(mut addresses: Vec<IpAddr>, mac: Mac) -> Vec<IpAddr> {
    addresses.extend([random::made_of(mac[4], mac[5]), random::LINK_LOCAL[0]]);
    addresses
}

/// What the policy's services cover, and a little beyond.
fn wanted(policy: &Policy, dice: &mut Dice) -> Vec<Asks> {
    let named = policy.services.iter().flat_map(|service| &service.ports);
    let placed = policy.rules.iter().flat_map(|rule| &rule.services);
    let mut wanted = vec![
        Asks::Tcp(443),
        Asks::Udp(53),
        Asks::Icmp { kind: 8, code: 0 },
        Asks::Udp(4789),
    ];
    for text in named.chain(placed) {
        let Some((protocol, numbers)) = text.split_once('/') else {
            continue;
        };
        let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
        let first: u16 = first.parse().unwrap_or(443);
        let last: u16 = last.parse().unwrap_or(65535);
        let number = dice.pick(&[first, last, last.wrapping_add(1), first.wrapping_sub(1)]);
        wanted.push(match protocol {
            "tcp" => Asks::Tcp(number),
            "udp" => Asks::Udp(number),
            "icmp" => Asks::Icmp {
                kind: first as u8,
                code: dice.pick(&[0, 0, 1]),
            },
            "icmpv6" => Asks::Icmpv6 {
                kind: first as u8,
                code: 0,
            },
            _ => Asks::Protocol(first as u8),
        });
    }
    wanted
}

fn echo(identifier: u16, data: &[u8]) -> Vec<u8> {
    [&identifier.to_be_bytes(), &[0, 1], data].concat()
}

fn tagged(frame: Ethernet, vlan: u16) -> Ethernet {
    if vlan == 0 { frame } else { frame.tagged(vlan) }
}

fn multicast_mac(packet: &Packet) -> Option<Mac> {
    match packet {
        // The broadcast of every link, and of the subnets that have one here.
        Packet::Ipv4(packet) if packet.destination.octets()[3] == 255 => Some(BROADCAST),
        Packet::Ipv4(packet) if packet.destination.is_multicast() => {
            let [_, b, c, d] = packet.destination.octets();
            Some([1, 0, 0x5e, b & 0x7f, c, d])
        }
        Packet::Ipv6(packet) if packet.destination.is_multicast() => {
            Some(group_mac(packet.destination))
        }
        _ => None,
    }
}
