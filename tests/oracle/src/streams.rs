//! Random frames for a policy, in the order in which they are seen: openers that are likely to meet
//! a rule, replies to them, errors about them, control, fragments, and all of these mutated.
//!
//! Everything is drawn from one seed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use wardline_proto::v1::Policy;

use crate::{
    frames::{
        self, ACK, Arp, BROADCAST, Dhcp, Ethernet, Extension, FIN, Icmp, Mac, PSH, Packet,
        ROUTER_ALERT, RST, SYN, Tcp, URG, Udp, Upper, dhcpv6, group_mac, icmp, icmpv6, igmp_report,
        solicited_node,
    },
    oracle::Asks,
    random::{self, ROUTER},
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

/// Random numbers from a seed (SplitMix64).
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.roll() % bound as u64) as usize
    }

    /// True this often in a hundred.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.roll() % 100 < percent
    }

    pub fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }
}

/// Where packets with some addresses come from.
#[derive(Clone, Debug)]
struct Station {
    spot: Spot,
    /// Those it may use, or most of them.
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
}

/// A conversation that was begun.
#[derive(Clone, Debug)]
struct Talk {
    ends: [(Station, IpAddr); 2],
    asks: Asks,
    source_port: u16,
    /// The last packet of it, and which end sent it.
    last: (Packet, usize),
    stage: u8,
}

/// What is sent through a router with a policy.
pub struct Stream {
    dice: Dice,
    stations: Vec<Station>,
    addresses: Vec<IpAddr>,
    /// What the services of the policy cover, at their borders and a little beyond.
    wanted: Vec<Asks>,
    interfaces: Vec<(String, Vec<u16>)>,
    talks: Vec<Talk>,
    sent: Vec<Step>,
    /// Tags are held outside the frames.
    tags_outside: bool,
    /// What is to come before anything else.
    pending: Vec<Step>,
}

const ROUTER_MAC: Mac = [2, 0, 0, 0, 0xff, 1];
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
                            addresses: likely(policy, &device.zone, &device.addresses, &addresses),
                        });
                    }
                }
            }
        }
        // A device is mostly at one place.
        while stations.len() > 8 {
            stations.swap_remove(dice.below(stations.len()));
        }
        for (interface, port) in random::interfaces(policy) {
            for (vlan, zone) in random::places(port) {
                if dice.percent(30) {
                    let (interface, mac) = (interface.to_owned(), STRANGER);
                    stations.push(Station {
                        spot: Spot::Port {
                            interface,
                            vlan,
                            mac,
                        },
                        addresses: likely(policy, zone, &[], &addresses),
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
        Some(self.tag_outside(step))
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
        Some(self.send(&from, &to, packet))
    }

    /// The next packet of a conversation, or an error about the last.
    fn go_on(&mut self) -> Option<Step> {
        if self.talks.is_empty() {
            return None;
        }
        // The latest ones, mostly.
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

    /// Another end of the same family, where it is likely to stand.
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
                Spot::Uplink | Spot::Router => {
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
            Spot::Uplink => leaving(self, From::Uplink, FAR_MAC, &packet),
            Spot::Router => leaving(self, From::Router, ROUTER_MAC, &packet),
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

    // ── control ────────────────────────────────────────────────────────────────────────────────

    fn control(&mut self) -> Option<Step> {
        let (station, address) = self.sender();
        let own = match &station.spot {
            Spot::Port { mac, .. } => *mac,
            Spot::Uplink => FAR_MAC,
            Spot::Router => ROUTER_MAC,
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
                let link = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x11);
                let source = match self.dice.below(10) {
                    0..5 => link,
                    5..8 => address,
                    8 => Ipv6Addr::UNSPECIFIED,
                    _ => any,
                };
                let target = if self.dice.percent(60) { address } else { any };
                let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
                let own_link = self.dice.pick(&[
                    vec![],
                    vec![icmpv6::source_link(claimed)],
                    vec![icmpv6::target_link(claimed)],
                    vec![icmpv6::target_link(claimed), icmpv6::source_link(own)],
                ]);
                let upper = match self.dice.below(8) {
                    0..2 => icmpv6::neighbour_solicitation(target, &own_link),
                    2..4 => icmpv6::neighbour_advertisement(target, 0x60, &own_link),
                    4 => icmpv6::router_solicitation(&own_link),
                    5 => icmpv6::router_advertisement(&own_link),
                    6 => icmpv6::redirect(target, any),
                    _ => icmpv6::listener_report(solicited_node(any)),
                };
                let is_report = matches!(&upper, Upper::Icmpv6(icmp) if icmp.kind == 143);
                let to = if self.dice.percent(70) {
                    all_nodes
                } else {
                    solicited_node(target)
                };
                let mut packet = frames::Ipv6::new(source, to, upper);
                if !self.dice.percent(10) {
                    packet.hop_limit = 255;
                }
                destination = group_mac(to);
                if is_report {
                    packet.hop_limit = 1;
                    if self.dice.percent(80) {
                        packet = packet.with(Extension::router_alert());
                    }
                }
                packet.into()
            }
            16..18 => {
                let kind = self.dice.pick(&[1, 3, 4, 7, 8]);
                let mut message = Dhcp::client(kind, claimed);
                let mut source = Ipv4Addr::UNSPECIFIED;
                let mut to = Ipv4Addr::BROADCAST;
                if let (IpAddr::V4(address), true) = (address, self.dice.percent(40)) {
                    (source, message.client) = (address, address);
                    if let (IpAddr::V4(any), true) = (any, self.dice.percent(50)) {
                        to = any;
                    }
                }
                frames::Ipv4::new(source, to, message.udp()).into()
            }
            18 => {
                let IpAddr::V4(source) = address else {
                    return None;
                };
                let message = Dhcp::server(self.dice.pick(&[2, 5, 6]), source, own, source);
                frames::Ipv4::new(source, Ipv4Addr::BROADCAST, message.udp()).into()
            }
            19 => {
                let kind = self.dice.pick(&[1, 3, 7]);
                let link = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x11);
                let to = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
                destination = group_mac(to);
                frames::Ipv6::new(link, to, dhcpv6(kind, claimed)).into()
            }
            _ => {
                let IpAddr::V4(source) = address else {
                    return None;
                };
                let group = Ipv4Addr::new(224, 0, 0, 251);
                let mut packet = frames::Ipv4::new(source, group, igmp_report(group));
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

    // ── fragments ──────────────────────────────────────────────────────────────────────────────

    /// A packet in pieces, mostly in order.
    fn fragments(&mut self) -> Option<Step> {
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
        let whole = frames::ip(source, destination, upper).encode().1;
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
            let packet = match frames::ip(source, destination, upper) {
                Packet::Ipv4(packet) => Packet::Ipv4(frames::Ipv4 {
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

    // ── mutations ──────────────────────────────────────────────────────────────────────────────

    /// Something that was sent before, at the same place or elsewhere.
    fn again(&mut self) -> Option<Step> {
        if self.sent.is_empty() {
            return None;
        }
        let mut step = self.dice.pick(&self.sent);
        if self.dice.percent(20) {
            let other = self.dice.pick(&self.sent);
            step.at = other.at;
        }
        Some(self.mutate(step))
    }

    fn mutate(&mut self, mut step: Step) -> Step {
        for _ in 0..self.dice.pick(&[1, 1, 1, 2, 3]) {
            self.mutate_once(&mut step);
        }
        step
    }

    fn mutate_once(&mut self, step: &mut Step) {
        let dice = &mut self.dice;
        let frame = &mut step.frame;
        let length = frame.len();
        // Where the packet begins, its version, and where its payload begins.
        let tagged = length >= 18 && frame[12..14] == [0x81, 0];
        let ip = if tagged { 18 } else { 14 };
        let version = frame.get(ip).map_or(0, |byte| byte >> 4);
        let upper = match version {
            4 => ip + usize::from(frame[ip] & 15) * 4,
            _ => ip + 40,
        };
        let mut put = |at: usize, bytes: &[u8]| {
            if let Some(place) = frame.get_mut(at..at + bytes.len()) {
                place.copy_from_slice(bytes);
            }
        };
        match dice.below(22) {
            0..3 => {
                let at = dice.below(length.min(90));
                frame[at] ^= 1 << dice.below(8);
            }
            3 => {
                let at = dice.below(length.min(90));
                frame[at] = dice.pick(&[0, 1, 0x7f, 0x80, 0xff]);
            }
            4 => frame.truncate(14.max(dice.below(length + 1))),
            5 => frame.resize(length + 1 + dice.below(40), 0),
            6 => {
                // The packet's length.
                let at = if version == 4 { ip + 2 } else { ip + 4 };
                let old = frame
                    .get(at..at + 2)
                    .map_or(0, |it| u16::from_be_bytes([it[0], it[1]]));
                let new = dice.pick(&[
                    old.wrapping_add(1),
                    old.wrapping_sub(1),
                    old.wrapping_sub(8),
                    0,
                    0xffff,
                    20,
                ]);
                if let Some(place) = frame.get_mut(at..at + 2) {
                    place.copy_from_slice(&new.to_be_bytes());
                }
            }
            7 => {
                // UDP's length.
                let at = upper + 4;
                let old = frame
                    .get(at..at + 2)
                    .map_or(0, |it| u16::from_be_bytes([it[0], it[1]]));
                let new = dice.pick(&[old.wrapping_add(1), old.wrapping_sub(1), 0, 7, 8]);
                if let Some(place) = frame.get_mut(at..at + 2) {
                    place.copy_from_slice(&new.to_be_bytes());
                }
            }
            8 => put(
                ip,
                &[dice.pick(&[0x44, 0x45, 0x46, 0x4f, 0x55, 0x60, 0x65, 0x00])],
            ),
            9 => {
                let protocol = dice.pick(&[
                    0, 1, 2, 4, 6, 17, 41, 43, 44, 47, 50, 51, 58, 59, 60, 132, 135, 139,
                ]);
                put(if version == 4 { ip + 9 } else { ip + 6 }, &[protocol]);
            }
            10 => put(upper + 13, &[dice.roll() as u8]),
            11 => put(upper + 12, &[dice.pick(&[0x40, 0x50, 0x60, 0xf0, 0x00])]),
            12 => {
                let tag = [[0x81, 0], [0x88, 0xa8], [0x91, 0]][dice.below(3)];
                let id = dice.pick(&[0_u16, 10, 20, 4094, 4095, 0x2000 | 10, 1]);
                let bytes = [tag, id.to_be_bytes()].concat();
                frame.splice(12..12, bytes);
            }
            13 if tagged => drop(frame.drain(12..16)),
            13 => {}
            14 => {
                // Another's MAC.
                let other = match self.sent.get(dice.below(self.sent.len() + 1)) {
                    Some(other) => other.frame[6..12].to_vec(),
                    None => STRANGER.to_vec(),
                };
                put(6, &other);
            }
            15 => {
                // Another's address, as source or destination.
                let address = dice.pick(&self.addresses);
                match (address, version, dice.below(2)) {
                    (IpAddr::V4(it), 4, 0) => put(ip + 12, &it.octets()),
                    (IpAddr::V4(it), 4, _) => put(ip + 16, &it.octets()),
                    (IpAddr::V6(it), 6, 0) => put(ip + 8, &it.octets()),
                    (IpAddr::V6(it), 6, _) => put(ip + 24, &it.octets()),
                    _ => {}
                }
            }
            16 => {
                // Addresses that no one has.
                let odd: [Ipv4Addr; 6] = [
                    Ipv4Addr::UNSPECIFIED,
                    Ipv4Addr::LOCALHOST,
                    Ipv4Addr::BROADCAST,
                    Ipv4Addr::new(224, 0, 0, 1),
                    Ipv4Addr::new(169, 254, 1, 1),
                    Ipv4Addr::new(0, 1, 2, 3),
                ];
                let odd_6: [Ipv6Addr; 7] = [
                    Ipv6Addr::UNSPECIFIED,
                    Ipv6Addr::LOCALHOST,
                    Ipv4Addr::new(10, 1, 1, 10).to_ipv6_mapped(),
                    "::10.1.1.10".parse().expect("an address"),
                    "ff02::1".parse().expect("an address"),
                    "ff05::1:3".parse().expect("an address"),
                    "fe80::1".parse().expect("an address"),
                ];
                let place = dice.below(2);
                match version {
                    4 => put(ip + 12 + 4 * place, &dice.pick(&odd).octets()),
                    6 => put(ip + 8 + 16 * place, &dice.pick(&odd_6).octets()),
                    _ => {}
                }
            }
            17 => {
                // The fragment fields.
                let field = dice.pick(&[0x2000_u16, 0x4000, 0x8000, 1, 2, 0x2001, 0x1fff]);
                put(ip + 6, &field.to_be_bytes());
            }
            18 => put(
                ip + if version == 4 { 8 } else { 7 },
                &[dice.pick(&[0, 1, 254, 255])],
            ),
            19 => {
                // ICMP's type and code.
                put(
                    upper,
                    &[
                        dice.pick(&[
                            0, 3, 5, 8, 9, 10, 11, 13, 14, 17, 30, 40, 128, 129, 130, 131, 133,
                            134, 135, 136, 137, 138, 139, 143, 200,
                        ]),
                        dice.pick(&[0, 0, 0, 1, 4]),
                    ],
                );
            }
            20 => {
                // The head of this one, the tail of another.
                let other = match self.sent.get(dice.below(self.sent.len() + 1)) {
                    Some(other) => other.frame.clone(),
                    None => vec![0; 20],
                };
                let at = 14.max(dice.below(length.min(60)));
                let from = dice.below(other.len());
                frame.truncate(at);
                frame.extend(&other[from..]);
            }
            _ => {
                // Ports.
                let port = dice.pick(&[0_u16, 53, 67, 68, 443, 546, 547, 4789, 65535]);
                put(upper + 2 * dice.below(2), &port.to_be_bytes());
            }
        }
    }

    /// A tag as interfaces hold it that take it out of the frame.
    fn tag_outside(&mut self, mut step: Step) -> Step {
        if self.tags_outside {
            let frame = &mut step.frame;
            if frame.len() >= 18 && frame[12..14] == [0x81, 0] && self.dice.percent(60) {
                step.tag = Some(u16::from_be_bytes([frame[14], frame[15]]));
                frame.drain(12..16);
            } else if self.dice.percent(4) {
                step.tag = Some(self.dice.pick(&[0, 10, 20, 0xe00a]));
            }
        }
        step
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
    let inside = |it: &&IpAddr| random::owner(&policy.zones, **it).is_some_and(|it| it == zone);
    anywhere.iter().filter(inside).copied().collect()
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
        Packet::Ipv4(packet) if packet.destination.is_broadcast() => Some(BROADCAST),
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
