//! Tells when routes or neighbours have changed: what the next hops that flows remember hang on.

use std::{collections::HashMap, io, net::IpAddr, pin::pin, time::Duration};

use futures::StreamExt as _;
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    RouteNetlinkMessage,
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
};
use rtnetlink::{MulticastGroup, sys::AsyncSocket as _};
use tokio::{sync::watch, time::interval};

use crate::reconcile::{Engine, Handle};

/// How often the kernel is told that no change goes unseen; it believes that for a second.
const VOUCH: Duration = Duration::from_millis(300);

/// What the kernel may announce between two turns of the task.
const RECEIVE_BUFFER: u32 = 1 << 20;

const GROUPS: [MulticastGroup; 7] = [
    MulticastGroup::Link,
    MulticastGroup::Neigh,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Ipv6Rule,
    MulticastGroup::Nexthop,
];

/// Tells the engine of changes until it is to stop, and meanwhile that there are no others.
///
/// # Errors
/// When the kernel's announcements can't be heard. Then next hops are looked up more often.
pub async fn follow(engine: Handle, mut stop: watch::Receiver<bool>) -> io::Result<()> {
    let (mut connection, _, mut news) = rtnetlink::new_multicast_connection(&GROUPS)?;
    let socket = connection.socket_mut().socket_mut();
    socket.set_rx_buf_sz(RECEIVE_BUFFER)?;
    let mut connection = pin!(connection);
    let mut known = Known::default();
    let mut vouch = interval(VOUCH);
    // What happened before now was not heard.
    let mut changed = true;
    loop {
        let told = if changed {
            engine.call(Engine::routes_changed).await
        } else {
            engine.call(Engine::vouch).await
        };
        match told {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "next hops are looked up more often"),
            Err(_stopped) => return Ok(()),
        }
        changed = loop {
            tokio::select! {
                // A change that has been announced comes before the word that there is none.
                biased;
                _ = stop.wait_for(|stop| *stop) => return Ok(()),
                () = &mut connection => return Err(io::ErrorKind::BrokenPipe.into()),
                message = news.next() => match message {
                    Some((message, _)) => if known.is_news(message) { break true },
                    None => return Err(io::ErrorKind::BrokenPipe.into()),
                },
                _ = vouch.tick() => break false,
            }
        };
    }
}

/// The neighbours that can be sent to, and where: they are announced again whenever they are asked
/// for or answer.
#[derive(Default)]
struct Known(HashMap<(u32, IpAddr), Vec<u8>>);

impl Known {
    fn is_news(&mut self, message: NetlinkMessage<RouteNetlinkMessage>) -> bool {
        match message.payload {
            NetlinkPayload::InnerMessage(
                RouteNetlinkMessage::NewNeighbour(neighbour)
                | RouteNetlinkMessage::DelNeighbour(neighbour),
            ) => self.is_new(neighbour),
            NetlinkPayload::InnerMessage(_) => true,
            NetlinkPayload::Overrun(_) => {
                self.0.clear();
                true
            }
            _ => false,
        }
    }

    fn is_new(&mut self, neighbour: NeighbourMessage) -> bool {
        let (mut address, mut mac) = (None, None);
        for attribute in neighbour.attributes {
            match attribute {
                NeighbourAttribute::Destination(NeighbourAddress::Inet(it)) => {
                    address = Some(IpAddr::V4(it));
                }
                NeighbourAttribute::Destination(NeighbourAddress::Inet6(it)) => {
                    address = Some(IpAddr::V6(it));
                }
                NeighbourAttribute::LinkLayerAddress(it) => mac = Some(it),
                _ => {}
            }
        }
        let Some(address) = address else {
            return false;
        };
        let key = (neighbour.header.ifindex, address);
        let gone = matches!(
            neighbour.header.state,
            NeighbourState::Failed | NeighbourState::Incomplete | NeighbourState::None
        );
        match mac.filter(|_| !gone) {
            Some(mac) => self.0.insert(key, mac.clone()) != Some(mac),
            None => self.0.remove(&key).is_some(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn neighbour(state: NeighbourState, mac: u8) -> NetlinkMessage<RouteNetlinkMessage> {
        let mut message = NeighbourMessage::default();
        message.header.ifindex = 3;
        message.header.state = state;
        message.attributes = vec![
            NeighbourAttribute::Destination(NeighbourAddress::Inet(Ipv4Addr::new(10, 0, 0, 2))),
            NeighbourAttribute::LinkLayerAddress(vec![2, 0, 0, 0, 0, mac]),
        ];
        RouteNetlinkMessage::NewNeighbour(message).into()
    }

    #[test]
    fn a_neighbour_is_news_when_packets_go_elsewhere() {
        let mut known = Known::default();
        let news = [
            neighbour(NeighbourState::Reachable, 1),
            neighbour(NeighbourState::Stale, 1),
            neighbour(NeighbourState::Delay, 1),
            neighbour(NeighbourState::Reachable, 2),
            neighbour(NeighbourState::Failed, 2),
            neighbour(NeighbourState::Failed, 2),
        ]
        .map(|message| known.is_news(message));
        assert_eq!(news, [true, false, false, true, true, false]);
    }
}
