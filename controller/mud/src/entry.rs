//! One entry of a MUD file (an ACE): whom it is about and what it matches.
//!
//! An entry whose matches are not all understood has none: to pass over a condition would widen it.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::{
    json::Node,
    words::{host, shown, uri},
};

/// The list that an entry is in, or who opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    FromDevice,
    ToDevice,
}

/// The IP of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

/// An entry.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) direction: Direction,
    /// Whether it lets through; otherwise it drops.
    pub(crate) accepts: bool,
    /// What it matches, or why that is not known.
    pub(crate) matches: Result<Match, String>,
}

/// What an entry matches, all at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Match {
    pub(crate) family: Family,
    pub(crate) peer: Peer,
    /// The IP protocol; none: any.
    pub(crate) protocol: Option<u8>,
    /// The ports that it comes from; none: any.
    pub(crate) source: Option<Ports>,
    /// The ports that it goes to; none: any.
    pub(crate) destination: Option<Ports>,
    pub(crate) icmp: Option<(u8, Option<u8>)>,
    /// Who has to have opened the connection.
    pub(crate) initiated: Option<Direction>,
}

/// Who is at the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    Anybody,
    Local,
    /// Addresses that are on a local network, too.
    LocalAt(IpNet),
    Controller(String),
    MyController,
    Manufacturer(String),
    SameManufacturer,
    Model(String),
    Name(String),
    At(IpNet),
}

/// Ranges of ports, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ports(pub(crate) Vec<(u16, u16)>);

impl Ports {
    pub(crate) fn meets(&self, other: &Self) -> bool {
        let meets = |a: &(u16, u16), b: &(u16, u16)| a.0 <= b.1 && b.0 <= a.1;
        self.0.iter().any(|a| other.0.iter().any(|b| meets(a, b)))
    }

    pub(crate) fn covers(&self, other: &Self) -> bool {
        let within = |a: &(u16, u16)| self.0.iter().any(|b| b.0 <= a.0 && a.1 <= b.1);
        other.0.iter().all(within)
    }
}

/// What is read of the matches before it is put together.
#[derive(Default)]
struct Parts {
    peers: Vec<Peer>,
    protocol: Option<u8>,
    source: Option<Ports>,
    destination: Option<Ports>,
    icmp: Option<(u8, Option<u8>)>,
    initiated: Option<Direction>,
    broadcast: bool,
}

impl Entry {
    /// Reads an entry of a list of IP.
    ///
    /// # Errors
    /// Why the file is refused.
    pub(crate) fn read(direction: Direction, family: Family, ace: &Node) -> Result<Self, String> {
        let container = match family {
            Family::V4 => "ipv4",
            Family::V6 => "ipv6",
        };
        let wrong = match direction {
            Direction::FromDevice => "ietf-acldns:src-dnsname",
            Direction::ToDevice => "ietf-acldns:dst-dnsname",
        };
        let matches = ace.get("matches");
        let has = |name: &str| {
            let it = matches.and_then(|it| it.get(name));
            it.is_some_and(|it| it.get(wrong).is_some())
        };
        if has("ipv4") || has("ipv6") {
            return Err(format!(
                "{wrong} would name the device itself (RFC 8520, section 8.2)"
            ));
        }
        let mut parts = Parts::default();
        let read = parts.read(direction, family, container, ace);
        let matches = read.and_then(|()| parts.together(family));
        Ok(Self {
            matches,
            ..Self::unread(direction, ace, "")
        })
    }

    /// An entry whose matches can't be used.
    pub(crate) fn unread(direction: Direction, ace: &Node, why: &str) -> Self {
        let forwarding = ace.get("actions").and_then(|it| it.get("forwarding"));
        let forwarding = forwarding.and_then(Node::text).map(unqualified);
        Self {
            name: String::new(),
            direction,
            accepts: forwarding == Some("accept"),
            matches: Err(why.to_owned()),
        }
    }
}

fn unqualified(text: &str) -> &str {
    text.strip_prefix("ietf-access-control-list:")
        .unwrap_or(text)
}

fn unknown(place: &str, name: &str) -> String {
    format!("{place} has {}, which is not understood", shown(name))
}

impl Parts {
    fn read(
        &mut self,
        direction: Direction,
        family: Family,
        container: &str,
        ace: &Node,
    ) -> Result<(), String> {
        for (name, _) in ace.fields() {
            if !["name", "matches", "actions", "statistics"].contains(&name) {
                return Err(unknown("the entry", name));
            }
        }
        let actions = ace.get("actions").ok_or("actions: missing")?;
        for (name, node) in actions.fields() {
            match (name, node.text().map(unqualified)) {
                ("forwarding", Some("accept" | "drop" | "reject")) => {}
                ("logging", Some("log-none" | "log-syslog")) => {}
                (name, _) => return Err(unknown("actions", name)),
            }
        }
        if actions.get("forwarding").is_none() {
            return Err("actions.forwarding: missing".to_owned());
        }
        let matches = ace.get("matches").ok_or("matches: missing")?;
        if !matches!(matches, Node::Object(_)) {
            return Err("matches: an object is expected".to_owned());
        }
        for (name, node) in matches.fields() {
            match name {
                "ietf-mud:mud" => self.read_mud(node)?,
                name if name == container => self.read_ip(direction, family, name, node)?,
                "tcp" => self.read_ports(6, name, node)?,
                "udp" => self.read_ports(17, name, node)?,
                "icmp" => self.read_icmp(family, node)?,
                "eth" => self.read_ethernet(family, node)?,
                name => return Err(unknown("matches", name)),
            }
        }
        Ok(())
    }

    fn read_mud(&mut self, node: &Node) -> Result<(), String> {
        for (name, value) in node.fields() {
            let text = || {
                let text = value.text();
                text.ok_or_else(|| format!("ietf-mud:mud.{name}: text is expected"))
            };
            let flag = || match value {
                Node::List(list) if list.iter().all(|it| *it == Node::Null) => Ok(()),
                Node::Null => Ok(()),
                _ => Err(format!("ietf-mud:mud.{name}: [null] is expected")),
            };
            self.peers.push(match name {
                "local-networks" => flag().map(|()| Peer::Local)?,
                "my-controller" => flag().map(|()| Peer::MyController)?,
                "same-manufacturer" => flag().map(|()| Peer::SameManufacturer)?,
                "manufacturer" => Peer::Manufacturer(authority(text()?)?),
                "model" => Peer::Model(uri(text()?)?),
                "controller" => Peer::Controller(uri(text()?)?),
                name => return Err(unknown("ietf-mud:mud", name)),
            });
        }
        Ok(())
    }

    fn read_ip(
        &mut self,
        direction: Direction,
        family: Family,
        place: &str,
        node: &Node,
    ) -> Result<(), String> {
        // Whether a condition is about the other end, and not about the device itself.
        let about_peer = |is_source: bool| is_source == (direction == Direction::ToDevice);
        for (name, value) in node.fields() {
            let own = || {
                format!("{place}.{name} is about the device's own address, which rules do not name")
            };
            match name {
                "protocol" => self.set_protocol(byte(place, name, value)?)?,
                "ietf-acldns:src-dnsname" | "ietf-acldns:dst-dnsname" => {
                    let text = value
                        .text()
                        .ok_or_else(|| format!("{place}.{name}: text is expected"))?;
                    self.peers.push(match text.parse::<IpAddr>() {
                        Ok(address) => Peer::At(of_family(family, address.into())?),
                        Err(_) => Peer::Name(dns_name(text)?),
                    });
                }
                "source-ipv4-network"
                | "destination-ipv4-network"
                | "source-ipv6-network"
                | "destination-ipv6-network" => {
                    if !about_peer(name.starts_with("source")) {
                        return Err(own());
                    }
                    let text = value.text().unwrap_or_default();
                    let net: Result<IpNet, _> = text.parse();
                    let net = net.or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
                    let net =
                        net.map_err(|_| format!("{place}.{name}: {} is no prefix", shown(text)))?;
                    self.peers.push(Peer::At(of_family(family, net.trunc())?));
                }
                name => return Err(unknown(place, name)),
            }
        }
        Ok(())
    }

    fn set_protocol(&mut self, protocol: u8) -> Result<(), String> {
        match self.protocol.replace(protocol) {
            Some(other) if other != protocol => Err(format!(
                "it matches nothing: protocol {other} and {protocol} at once"
            )),
            _ => Ok(()),
        }
    }

    fn read_ports(&mut self, protocol: u8, place: &str, node: &Node) -> Result<(), String> {
        self.set_protocol(protocol)?;
        for (name, value) in node.fields() {
            match name {
                "source-port" => self.source = Some(ports(place, name, value)?),
                "destination-port" => self.destination = Some(ports(place, name, value)?),
                "ietf-mud:direction-initiated" if protocol == 6 => {
                    self.initiated = Some(match value.text() {
                        Some("from-device") => Direction::FromDevice,
                        Some("to-device") => Direction::ToDevice,
                        _ => {
                            return Err(format!(
                                "{place}.{name}: from-device or to-device is expected"
                            ));
                        }
                    });
                }
                name => return Err(unknown(place, name)),
            }
        }
        Ok(())
    }

    fn read_icmp(&mut self, family: Family, node: &Node) -> Result<(), String> {
        self.set_protocol(match family {
            Family::V4 => 1,
            Family::V6 => 58,
        })?;
        let (mut kind, mut code) = (None, None);
        for (name, value) in node.fields() {
            match name {
                "type" => kind = Some(byte("icmp", name, value)?),
                "code" => code = Some(byte("icmp", name, value)?),
                name => return Err(unknown("icmp", name)),
            }
        }
        self.icmp = match (kind, code) {
            (Some(kind), code) => Some((kind, code)),
            (None, None) => None,
            (None, Some(_)) => return Err("icmp.code: without a type".to_owned()),
        };
        Ok(())
    }

    /// What an entry of IP says of frames may only repeat what IP says anyway.
    fn read_ethernet(&mut self, family: Family, node: &Node) -> Result<(), String> {
        let expected = match family {
            Family::V4 => "0x0800",
            Family::V6 => "0x86dd",
        };
        for (name, value) in node.fields() {
            match (name, value.text()) {
                ("ethertype", Some(text)) if text.eq_ignore_ascii_case(expected) => {}
                ("ethertype", Some(text)) => {
                    return Err(format!(
                        "eth.ethertype {} is not this list's IP",
                        shown(text)
                    ));
                }
                ("destination-mac-address", Some(text))
                    if text.eq_ignore_ascii_case("ff:ff:ff:ff:ff:ff") =>
                {
                    self.broadcast = true;
                }
                (name, _) => return Err(unknown("eth", name)),
            }
        }
        Ok(())
    }

    fn together(self, family: Family) -> Result<Match, String> {
        let peer = match &self.peers[..] {
            [] => Peer::Anybody,
            [one] => one.clone(),
            [Peer::Local, Peer::At(net)] | [Peer::At(net), Peer::Local] => Peer::LocalAt(*net),
            _ => {
                return Err(
                    "it has two conditions for the other end at once, which no rule has".to_owned(),
                );
            }
        };
        let everybody = IpNet::from(IpAddr::from([255; 4]));
        let is_broadcast = matches!(&peer, Peer::At(net) | Peer::LocalAt(net) if *net == everybody);
        if self.broadcast && !is_broadcast {
            return Err("it is about broadcast frames to no broadcast address".to_owned());
        }
        Ok(Match {
            family,
            peer,
            protocol: self.protocol,
            source: self.source,
            destination: self.destination,
            icmp: self.icmp,
            initiated: self.initiated,
        })
    }
}

fn of_family(family: Family, net: IpNet) -> Result<IpNet, String> {
    let fits = match net {
        IpNet::V4(_) => family == Family::V4,
        IpNet::V6(_) => family == Family::V6,
    };
    if fits {
        Ok(net)
    } else {
        Err(format!("{net} is not of this list's IP"))
    }
}

/// The authority of URLs: a host, perhaps with a port.
fn authority(text: &str) -> Result<String, String> {
    let (name, port) = match text.split_once(':') {
        Some((name, port)) if port.parse::<u16>().is_ok() => (name, format!(":{port}")),
        _ => (text, String::new()),
    };
    Ok(host(name)? + &port)
}

/// A name that DNS can have an address for: with a dot, so that no search list completes it.
fn dns_name(text: &str) -> Result<String, String> {
    let name = host(text)?;
    if name.contains('.') {
        Ok(name)
    } else {
        Err(format!(
            "{} has no dot; a search list would complete it",
            shown(text)
        ))
    }
}

fn byte(place: &str, name: &str, value: &Node) -> Result<u8, String> {
    let number = value.number().and_then(|it| u8::try_from(it).ok());
    number.ok_or_else(|| format!("{place}.{name}: a number from 0 to 255 is expected"))
}

/// Reads an operator with a port, or a range. Both ends of a range are part of it.
fn ports(place: &str, name: &str, node: &Node) -> Result<Ports, String> {
    let wrong = |why: &str| format!("{place}.{name}: {why}");
    let known = ["operator", "port", "lower-port", "upper-port"];
    if let Some((other, _)) = node.fields().find(|it| !known.contains(&it.0)) {
        return Err(unknown(&format!("{place}.{name}"), other));
    }
    let port = |field: &str| match node.get(field) {
        None => Ok(None),
        Some(value) => {
            let number = value.number().and_then(|it| u16::try_from(it).ok());
            let number = number.ok_or_else(|| wrong("a port from 0 to 65535 is expected"));
            number.map(Some)
        }
    };
    let operator = node.get("operator").map(|it| it.text().unwrap_or_default());
    let ranges = match (port("port")?, port("lower-port")?, port("upper-port")?) {
        (Some(port), None, None) => match operator.unwrap_or("eq") {
            "eq" => vec![(port, port)],
            "lte" => vec![(0, port)],
            "gte" => vec![(port, u16::MAX)],
            "neq" => {
                let below = port.checked_sub(1).map(|last| (0, last));
                let above = port.checked_add(1).map(|first| (first, u16::MAX));
                below.into_iter().chain(above).collect()
            }
            other => {
                return Err(wrong(&format!(
                    "the operator {} is not known",
                    shown(other)
                )));
            }
        },
        (None, Some(lower), Some(upper)) if lower <= upper => match operator {
            None | Some("range" | "eq") => vec![(lower, upper)],
            Some(_) => return Err(wrong("a range and an operator at once")),
        },
        (None, Some(_), Some(_)) => return Err(wrong("a range from high to low matches nothing")),
        _ => {
            return Err(wrong(
                "either operator and port, or lower-port and upper-port",
            ));
        }
    };
    Ok(Ports(ranges))
}
