//! How a packet belongs to a flow: to which one, from which end, and whether its state allows it.

use std::{collections::BTreeSet, net::IpAddr};

use super::{From, Where};
use crate::{
    dissect::{self, Frame, Ip, Mac, QuotedUpper, Upper},
    oracle::{Asks, Drop},
};

pub(super) const FIN: u8 = 1;
pub(super) const SYN: u8 = 2;
pub(super) const RST: u8 = 4;
pub(super) const ACK: u8 = 16;

/// A flow that policy admitted.
#[derive(Clone, Debug)]
pub(super) struct Flow {
    pub(super) protocol: u8,
    pub(super) opener: (IpAddr, u16),
    pub(super) other: (IpAddr, u16),
    pub(super) asks: Asks,
    /// The kind of query, for what is asked and answered by ICMP.
    pub(super) query: Option<u8>,
    pub(super) answered: bool,
    /// The opener has gone on after the answer.
    pub(super) confirmed: bool,
    pub(super) reset: Option<Reset>,
    pub(super) finished: [bool; 2],
    /// Where packets of the opener and of the other end come from, once they have sent any.
    pub(super) ways: [Option<Way>; 2],
    pub(super) rules: BTreeSet<String>,
    /// Why it would be refused, if its zones enforced.
    pub(super) observed: Option<Drop>,
}

/// What has happened since an end sent RST.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reset {
    /// There was no connection that could go on.
    Unopened,
    /// Whether the other end and the opener have spoken since.
    Open([bool; 2]),
}

impl Flow {
    pub(super) fn opened(
        ip: &Ip,
        way: Way,
        rules: BTreeSet<String>,
        observed: Option<Drop>,
    ) -> Self {
        let (from, to) = numbers(ip);
        Self {
            protocol: ip.protocol,
            opener: (ip.source, from),
            other: (ip.destination, to),
            asks: asks(ip),
            query: query(ip).map(|(kind, _)| kind),
            answered: false,
            confirmed: false,
            reset: None,
            finished: [false; 2],
            ways: [Some(way), None],
            rules,
            observed,
        }
    }

    /// Whether the packet is of this flow: true when the opener sent it.
    pub(super) fn side(&self, ip: &Ip) -> Option<bool> {
        if ip.protocol != self.protocol {
            return None;
        }
        let (from, to) = numbers(ip);
        let forth = (ip.source, from) == self.opener && (ip.destination, to) == self.other;
        let back = (ip.source, from) == self.other && (ip.destination, to) == self.opener;
        match (query(ip), self.query) {
            (None, None) if forth => Some(true),
            (None, None) if back => Some(false),
            (Some((kind, asks)), Some(own)) if kind == own => {
                (if asks { forth } else { back }).then_some(asks)
            }
            _ => None,
        }
    }

    pub(super) fn is_quoted(&self, quoted: &dissect::Quoted) -> bool {
        let (source, destination) = (quoted.source, quoted.destination);
        let forth = source == self.opener.0 && destination == self.other.0;
        let back = source == self.other.0 && destination == self.opener.0;
        let ports = |from, to| {
            forth && (from, to) == (self.opener.1, self.other.1)
                || back && (from, to) == (self.other.1, self.opener.1)
        };
        self.protocol == quoted.protocol
            && match quoted.asks {
                QuotedUpper::Ports(from, to) => ports(from, to),
                QuotedUpper::Icmp {
                    kind,
                    code,
                    identifier,
                } => {
                    match (query_of(self.protocol, kind, code), self.query) {
                        (Some((kind, asks)), Some(own)) => {
                            kind == own
                                && (if asks { forth } else { back })
                                && ports(identifier, identifier)
                        }
                        // An error about ICMP that is not a query belongs to no flow.
                        _ => false,
                    }
                }
                QuotedUpper::Other => ports(0, 0),
            }
    }

    /// Both ends have finished, or one has reset it.
    pub(super) fn is_closing(&self) -> bool {
        self.reset.is_some() || self.finished == [true; 2]
    }

    /// Whether the packet fits the state of the flow, which it then changes.
    pub(super) fn follow(&mut self, ip: &Ip, from_opener: bool) -> bool {
        let Upper::Tcp { flags, data, .. } = ip.upper else {
            self.answered |= !from_opener;
            return true;
        };
        let has = |flag| flags & flag != 0;
        if has(SYN) {
            // A SYN that the opener repeats, or a SYN-ACK of the other end.
            self.answered |= has(ACK) && !from_opener;
            return has(ACK) != from_opener;
        }
        if has(RST) {
            let open = self.answered && self.confirmed;
            let reset = if open {
                Reset::Open([false; 2])
            } else {
                Reset::Unopened
            };
            self.reset.get_or_insert(reset);
            self.answered |= !from_opener;
            return true;
        }
        if !self.answered {
            // A challenge to a stale SYN (RFC 5961, 4.2); the opener may send nothing else yet.
            return !from_opener;
        }
        self.confirmed |= from_opener;
        self.finished[usize::from(from_opener)] |= has(FIN);
        // A reset is not believed once both ends have gone on, and one has sent data.
        if let Some(Reset::Open(since)) = &mut self.reset {
            since[usize::from(from_opener)] = true;
            if data && *since == [true; 2] {
                self.reset = None;
            }
        }
        true
    }
}

/// The way that an end's packets come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Guarded {
        interface: String,
        vlan: u16,
        mac: Mac,
    },
    Router,
    /// A guarded port had admitted the packet before NAT made it this one.
    Rewritten,
    Elsewhere,
}

impl Way {
    /// The guarded port that it enters, if it does.
    pub(super) fn interface(&self) -> Option<&str> {
        match self {
            Self::Guarded { interface, .. } => Some(interface),
            Self::Router | Self::Rewritten | Self::Elsewhere => None,
        }
    }

    pub(super) fn of(at: &Where, frame: &Frame) -> Self {
        match at {
            Where::Entering { interface } => Self::Guarded {
                interface: interface.clone(),
                vlan: frame.vlan,
                mac: frame.source,
            },
            Where::Leaving {
                from: From::Router, ..
            } => Self::Router,
            Where::Leaving { .. } => Self::Elsewhere,
        }
    }
}

/// How a packet is judged where there is no flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Message {
    Opens,
    Follows,
    Error,
}

impl Message {
    pub(super) fn of(ip: &Ip) -> Self {
        match (&ip.upper, ip.protocol) {
            (Upper::Tcp { flags, .. }, _) => match flags & (SYN | ACK) {
                SYN => Self::Opens,
                _ => Self::Follows,
            },
            (
                Upper::Icmp {
                    kind: 3 | 4 | 11 | 12,
                    ..
                },
                1,
            ) => Self::Error,
            (Upper::Icmp { kind: 1..=4, .. }, 58) => Self::Error,
            (Upper::Icmp { kind, code, .. }, protocol) => match query_of(protocol, *kind, *code) {
                Some((_, false)) => Self::Follows,
                _ => Self::Opens,
            },
            _ => Self::Opens,
        }
    }
}

/// The kind of query that an ICMP message is of, and whether it asks.
pub(super) fn query_of(protocol: u8, kind: u8, code: u8) -> Option<(u8, bool)> {
    // They have one code (RFC 792, RFC 4443, 4).
    match (protocol, kind) {
        _ if code != 0 => None,
        (1, 8 | 13 | 15 | 17) | (58, 128) => Some((kind, true)),
        (1, 0) => Some((8, false)),
        (1, 14 | 16 | 18) | (58, 129) => Some((kind - 1, false)),
        _ => None,
    }
}

pub(super) fn query(ip: &Ip) -> Option<(u8, bool)> {
    match &ip.upper {
        Upper::Icmp { kind, code, .. } => query_of(ip.protocol, *kind, *code),
        _ => None,
    }
}

/// What tells flows between the same addresses apart: ports, or a query's identifier.
pub(super) fn numbers(ip: &Ip) -> (u16, u16) {
    match &ip.upper {
        Upper::Tcp { from, to, .. } | Upper::Udp { from, to, .. } => (*from, *to),
        // ICMP that is not a query is told apart by its type and code.
        Upper::Icmp { kind, code, .. } if query(ip).is_none() => {
            let what = u16::from_be_bytes([*kind, *code]);
            (what, what)
        }
        Upper::Icmp { body, .. } => {
            let identifier = u16::from_be_bytes([body[0], body[1]]);
            (identifier, identifier)
        }
        _ => (0, 0),
    }
}

pub(super) fn asks(ip: &Ip) -> Asks {
    match (&ip.upper, ip.protocol) {
        (Upper::Tcp { to, .. }, _) => Asks::Tcp(*to),
        (Upper::Udp { to, .. }, _) => Asks::Udp(*to),
        (Upper::Icmp { kind, code, .. }, 1) => Asks::Icmp {
            kind: *kind,
            code: *code,
        },
        (Upper::Icmp { kind, code, .. }, _) => Asks::Icmpv6 {
            kind: *kind,
            code: *code,
        },
        (_, protocol) => Asks::Protocol(protocol),
    }
}
