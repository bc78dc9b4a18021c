//! What NAT makes of packets that enter: they leave with an address of the router as their source, or
//! for another destination, and are answered.

use std::net::IpAddr;

use super::{Spot, Station, Stream, Talk, echo};
use crate::{
    frames::{self, Icmp, SYN, Tcp, Udp, Upper},
    oracle::Asks,
    random::ROUTER,
    streams::Step,
};

impl Stream {
    /// The first packet of the latest conversation as it leaves, when NAT has rewritten it. From
    /// here on that is a conversation of its own.
    pub(super) fn rewritten(&mut self) -> Option<Step> {
        let talk = self.talks.last()?.clone();
        let [(from, mut source), (mut to, mut destination)] = talk.ends;
        let Spot::Port { interface, .. } = from.spot else {
            return None;
        };
        let (mut asks, mut source_port) = (talk.asks, talk.source_port);
        let masquerades = self.dice.percent(60);
        if masquerades {
            let own = |it: &IpAddr| it.is_ipv4() == source.is_ipv4();
            source = ROUTER.into_iter().find(own)?;
        }
        if !masquerades || self.dice.percent(10) {
            (to, destination) = self.peer(source)?;
            asks = if self.dice.percent(50) {
                asks
            } else {
                self.dice.pick(&self.wanted)
            };
        }
        if self.dice.percent(20) {
            source_port = self.port_number();
        }
        let upper = match asks {
            Asks::Tcp(port) => Tcp::new(source_port, port, SYN).into(),
            Asks::Udp(port) => Udp::new(source_port, port, self.data()).into(),
            Asks::Icmp { kind, code } if source.is_ipv4() => {
                Upper::Icmp(Icmp::new(kind, code, echo(source_port, &self.data())))
            }
            Asks::Icmpv6 { kind, code } if source.is_ipv6() => {
                Upper::Icmpv6(Icmp::new(kind, code, echo(source_port, &self.data())))
            }
            Asks::Protocol(protocol) => Upper::Bytes(protocol, self.data()),
            Asks::Icmp { .. } | Asks::Icmpv6 { .. } => return None,
        };
        let packet = frames::ip(source, destination, upper);
        let through = Station {
            spot: Spot::Through(interface),
            addresses: vec![source],
        };
        self.talks.push(Talk {
            ends: [(through.clone(), source), (to.clone(), destination)],
            asks,
            source_port,
            last: (packet.clone(), 0),
            stage: 0,
        });
        Some(self.send(&through, &to, packet))
    }
}
