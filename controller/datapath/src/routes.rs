//! Reports when routes, rules, neighbours or the switches of forwarding have changed, because flows
//! keep next hops that depend on them.

use std::{collections::HashMap, io, net::IpAddr, pin::pin};

use futures::StreamExt as _;
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    RouteNetlinkMessage,
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
};
use rtnetlink::{
    MulticastGroup,
    sys::{AsyncSocket as _, AsyncSocketExt as _, TokioSocket, protocols::NETLINK_ROUTE},
};
use tokio::sync::mpsc;

type Message = NetlinkMessage<RouteNetlinkMessage>;
type Connection = rtnetlink::proto::Connection<RouteNetlinkMessage>;
type Announcements =
    futures::channel::mpsc::UnboundedReceiver<(Message, rtnetlink::sys::SocketAddr)>;

/// Room for announcements between two turns of the task.
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

/// The groups in which the kernel announces that forwarding was switched on or off, as a whole or
/// for an interface: `RTNLGRP_IPV4_NETCONF` and `RTNLGRP_IPV6_NETCONF`.
const SWITCHES: [u32; 2] = [24, 25];

/// Ticks when routes, rules, neighbours or the switches of forwarding have changed; changes before
/// the receiver takes a tick give one. Ends when the kernel's announcements can't be read any more.
///
/// # Errors
/// When there is no socket.
pub fn watch() -> io::Result<mpsc::Receiver<()>> {
    let (mut connection, _, news) = rtnetlink::new_multicast_connection(&GROUPS)?;
    let socket = connection.socket_mut().socket_mut();
    socket.set_rx_buf_sz(RECEIVE_BUFFER)?;
    let switches = switches()?;
    let (ticks, receiver) = mpsc::channel(1);
    tokio::spawn(follow(connection, news, switches, ticks));
    Ok(receiver)
}

/// A socket that hears of switches of forwarding. It is one of its own because `rtnetlink` drops
/// messages of a kind that it does not know, and logs each as an error.
fn switches() -> io::Result<TokioSocket> {
    let mut switches = TokioSocket::new(NETLINK_ROUTE)?;
    let socket = switches.socket_mut();
    socket.bind_auto()?;
    for group in SWITCHES {
        socket.add_membership(group)?;
    }
    Ok(switches)
}

async fn follow(
    connection: Connection,
    mut news: Announcements,
    switches: TokioSocket,
    ticks: mpsc::Sender<()>,
) {
    let mut connection = pin!(connection);
    let mut known = Known::default();
    loop {
        let is_news = tokio::select! {
            biased;
            () = &mut connection => return,
            () = ticks.closed() => return,
            message = news.next() => match message {
                Some((message, _)) => known.is_news(message),
                None => return,
            },
            heard = switches.recv_from_full() => match heard {
                // What the message says does not matter: the kernel is asked again anyway.
                Ok(_) => true,
                // Some were lost.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => true,
                Err(_) => return,
            },
        };
        if is_news {
            // When it is full, a tick is waiting already.
            let _ = ticks.try_send(());
        }
    }
}

/// The MACs of reachable neighbours, because the kernel announces a neighbour again whenever it is
/// looked up or answers.
#[derive(Default)]
struct Known(HashMap<(u32, IpAddr), Vec<u8>>);

impl Known {
    fn is_news(&mut self, message: Message) -> bool {
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
    use std::{fs, net::Ipv4Addr, time::Duration};

    use tokio::time::timeout;

    use super::*;
    use crate::observe::tests::in_a_namespace;

    #[test]
    fn a_switch_of_forwarding_is_news() {
        in_a_namespace(async {
            let mut ticks = watch().expect("a subscription");
            for switch in [
                "ipv4/ip_forward",
                "ipv4/conf/lo/forwarding",
                "ipv6/conf/all/forwarding",
                "ipv6/conf/lo/forwarding",
            ] {
                let file = format!("/proc/sys/net/{switch}");
                let was = fs::read_to_string(&file).expect("a switch");
                let other = if was.trim() == "0" { "1" } else { "0" };
                for value in [other, was.trim()] {
                    fs::write(&file, value).expect("a switch that can be set");
                    let tick = timeout(Duration::from_secs(1), ticks.recv()).await;
                    assert_eq!(tick, Ok(Some(())), "{switch} = {value}");
                    // One write may be several announcements.
                    let quiet = Duration::from_millis(100);
                    while timeout(quiet, ticks.recv()).await.is_ok() {}
                }
            }
        });
    }

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
