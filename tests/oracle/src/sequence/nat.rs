//! What the router's NAT makes of packets: which of them need no permission where they leave.

use std::net::IpAddr;

use super::{
    From, Sequence, Where,
    flow::{Flow, Message, Way, asks, numbers},
};
use crate::{
    dissect::{Frame, Ip},
    oracle::{Asks, Drop, End},
};

/// An end of a packet that has opened a flow by a rule where it entered: NAT leaves one of them as
/// it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    Source(u8, IpAddr, u16),
    Destination(Asks, IpAddr),
}

fn known(ip: &Ip) -> [Known; 2] {
    [
        Known::Source(ip.protocol, ip.source, numbers(ip).0),
        Known::Destination(asks(ip), ip.destination),
    ]
}

impl<'a> Sequence<'a> {
    /// Gives the router NAT of these families, IPv4 first.
    pub fn rewrite(&mut self, nat: [bool; 2]) {
        self.nat = nat;
    }

    /// Whether the router has NAT of an address' family.
    pub(super) fn rewrites(&self, address: IpAddr) -> bool {
        self.nat[usize::from(address.is_ipv6())]
    }

    /// Remembers a packet that has entered as the first of a flow that a rule admits, or as the
    /// first again.
    pub(super) fn remember(&mut self, ip: &Ip) {
        let flow = self.flows.iter().find(|flow| flow.side(ip) == Some(true));
        let opens = |flow: &Flow| !flow.answered && flow.observed.is_none();
        if flow.is_some_and(opens) {
            self.admitted.extend(known(ip));
        }
    }

    /// Whether a packet that leaves may have been rewritten after a guarded port admitted it: no
    /// zone of that port observes, or none here enforces.
    pub(super) fn may_be_rewritten(&self, at: &Where, frame: &Frame, ip: &Ip) -> bool {
        let Where::Leaving {
            interface,
            from: From::Guarded(port),
        } = at
        else {
            return false;
        };
        let strict = !self.oracle.observes_in_part(port);
        self.rewrites(ip.source) && (strict || self.oracle.observes(interface, frame.vlan))
    }

    /// Whether a packet that would open a flow may not be judged as the router's, though it has the
    /// router's address: a port that only observes may have passed it, and no rule is known to.
    pub(super) fn is_smuggled(&self, at: &Where, frame: &Frame, ip: &Ip) -> bool {
        let Where::Leaving {
            from: From::Guarded(_),
            ..
        } = at
        else {
            return false;
        };
        self.oracle.is_the_routers(ip.source)
            && self.rewrites(ip.source)
            && !self.may_be_rewritten(at, frame, ip)
            && !known(ip).iter().any(|end| self.admitted.contains(end))
    }

    /// The way of a packet, which is NAT's when it has rewritten the packet.
    pub(super) fn way(&self, at: &Where, frame: &Frame, ip: &Ip, cut: bool) -> Way {
        let plain = Way::of(at, frame);
        if cut || !self.may_be_rewritten(at, frame, ip) {
            return plain;
        }
        let opens = Message::of(ip) == Message::Opens;
        let rewritten = match self.flows.iter().find(|flow| flow.side(ip).is_some()) {
            Some(flow) if !(opens && flow.is_closing()) => {
                flow.side(ip) == Some(true) && flow.ways[0] == Some(Way::Rewritten)
            }
            _ => opens && known(ip).iter().any(|end| self.admitted.contains(end)),
        };
        if rewritten { Way::Rewritten } else { plain }
    }
}

/// What the rules say of a packet that was admitted before: only a deny between its ends counts.
pub(super) fn excuse<T: Default>(said: Result<T, Drop>, opener: End<'_>) -> Result<T, Drop> {
    use wardline_proto::v1::Reason::DeniedByRule;
    match said {
        _ if matches!(opener, End::Router) => Ok(T::default()),
        Err(drop) if drop.reason != DeniedByRule => Ok(T::default()),
        said => said,
    }
}
