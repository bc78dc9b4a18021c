//! Reports when routes, rules, neighbours or the switches of forwarding have changed, because flows
//! keep next hops that depend on them.

use std::{collections::HashMap, io, net::IpAddr};

use netlink_packet_route::{
    RouteNetlinkMessage,
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
};
use tokio::sync::mpsc;

use crate::announcements::{Announcements, Heard};

/// The groups of what next hops depend on. The last two are of switches of forwarding, as a whole or
/// for an interface.
const GROUPS: [u32; 9] = [
    libc::RTNLGRP_LINK,
    libc::RTNLGRP_NEIGH,
    libc::RTNLGRP_IPV4_ROUTE,
    libc::RTNLGRP_IPV6_ROUTE,
    libc::RTNLGRP_IPV4_RULE,
    libc::RTNLGRP_IPV6_RULE,
    libc::RTNLGRP_NEXTHOP,
    libc::RTNLGRP_IPV4_NETCONF,
    libc::RTNLGRP_IPV6_NETCONF,
];

/// Ticks when routes, rules, neighbours or the switches of forwarding have changed; changes before
/// the receiver takes a tick give one. Ends when the kernel's announcements can't be read any more.
///
/// # Errors
/// When there is no socket.
pub fn watch() -> io::Result<mpsc::Receiver<()>> {
    let announcements = Announcements::of(&GROUPS)?;
    let (ticks, receiver) = mpsc::channel(1);
    tokio::spawn(follow(announcements, ticks));
    Ok(receiver)
}

async fn follow(mut announcements: Announcements, ticks: mpsc::Sender<()>) {
    let mut known = Known::default();
    loop {
        let heard = tokio::select! {
            () = ticks.closed() => return,
            heard = announcements.next() => heard,
        };
        let Ok(heard) = heard else { return };
        if known.is_news(heard) {
            // When it is full, a tick is waiting already.
            let _ = ticks.try_send(());
        }
    }
}

/// Most neighbours that are known; each change of any other is news.
const MOST: usize = 65_536;

/// The MACs of reachable neighbours, because the kernel announces a neighbour again whenever it is
/// looked up or answers.
#[derive(Default)]
struct Known(HashMap<(u32, IpAddr), Vec<u8>>);

impl Known {
    fn is_news(&mut self, heard: Heard) -> bool {
        match heard {
            Heard::Message(
                RouteNetlinkMessage::NewNeighbour(neighbour)
                | RouteNetlinkMessage::DelNeighbour(neighbour),
            ) => self.is_new(neighbour),
            // What the message says does not matter: the kernel is asked again anyway.
            Heard::Message(_) | Heard::Other => true,
            Heard::Lost => {
                self.0.clear();
                true
            }
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
            // The kernel's own table has a bound below this one's, unless it is set very high.
            Some(_) if self.0.len() >= MOST && !self.0.contains_key(&key) => true,
            Some(mac) => self.0.insert(key, mac.clone()) != Some(mac),
            None => self.0.remove(&key).is_some(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, net::Ipv4Addr, time::Duration};

    use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage};
    use netlink_packet_route::AddressFamily;
    use rtnetlink::{
        LinkVeth,
        sys::{Socket, protocols::NETLINK_ROUTE},
    };
    use tokio::time::timeout;

    use super::*;
    use crate::observe::tests::in_a_namespace;

    /// The memory of this process, in bytes.
    fn memory() -> usize {
        let statm = fs::read_to_string("/proc/self/statm").expect("statm");
        let pages = statm
            .split(' ')
            .nth(1)
            .and_then(|pages| pages.parse::<usize>().ok());
        pages.expect("pages") * 4096
    }

    /// Has the kernel announce a neighbour many times, from one MAC to another and back.
    fn flip(ifindex: u32, times: usize) {
        let mut batch = Vec::new();
        for mac in [1, 2].into_iter().cycle().take(500) {
            let mut message =
                NetlinkMessage::from(neighbour(ifindex, NeighbourState::Permanent, mac));
            message.header.flags = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_REPLACE;
            message.finalize();
            let mut bytes = vec![0; message.buffer_len()];
            message.serialize(&mut bytes);
            batch.extend(bytes);
        }
        let socket = Socket::new(NETLINK_ROUTE).expect("a socket");
        let kernel = rtnetlink::sys::SocketAddr::new(0, 0);
        for _ in 0..times / 500 {
            socket.send_to(&batch, &kernel, 0).expect("neighbours");
        }
    }

    #[test]
    fn a_neighbour_that_flips_takes_no_memory() {
        in_a_namespace(async {
            let (connection, handle, _events) = rtnetlink::new_connection().expect("a socket");
            let task = tokio::spawn(connection);
            let veth = LinkVeth::new("lan1", "dev1").build();
            handle.link().add(veth).execute().await.expect("veth");
            task.abort();
            let inventory = crate::observe::observe().await.expect("a list");
            let ifindex = inventory.link("lan1").expect("it").ifindex;
            let mut ticks = watch().expect("a subscription");
            flip(ifindex, 10_000);
            timeout(Duration::from_secs(5), ticks.recv())
                .await
                .expect("a tick");
            let before = memory();
            let flips = tokio::task::spawn_blocking(move || flip(ifindex, 2_000_000));
            let mut seen = 0;
            while !flips.is_finished() {
                if let Ok(Some(())) = timeout(Duration::from_millis(10), ticks.recv()).await {
                    seen += 1;
                }
            }
            flips.await.expect("flips");
            let grown = memory().saturating_sub(before);
            println!("2,000,000 flips: {seen} ticks, {grown} bytes more");
            assert!(
                seen > 0 && grown < 5 << 19,
                "{seen} ticks, {grown} bytes more"
            );
        });
    }

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

    fn neighbour(ifindex: u32, state: NeighbourState, mac: u8) -> RouteNetlinkMessage {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.ifindex = ifindex;
        message.header.state = state;
        message.attributes = vec![
            NeighbourAttribute::Destination(NeighbourAddress::Inet(Ipv4Addr::new(10, 0, 0, 2))),
            NeighbourAttribute::LinkLayerAddress(vec![2, 0, 0, 0, 0, mac]),
        ];
        RouteNetlinkMessage::NewNeighbour(message)
    }

    #[test]
    fn a_neighbour_is_news_when_packets_go_elsewhere() {
        let mut known = Known::default();
        let news = [
            (NeighbourState::Reachable, 1),
            (NeighbourState::Stale, 1),
            (NeighbourState::Delay, 1),
            (NeighbourState::Reachable, 2),
            (NeighbourState::Failed, 2),
            (NeighbourState::Failed, 2),
        ]
        .map(|(state, mac)| known.is_news(Heard::Message(neighbour(3, state, mac))));
        assert_eq!(news, [true, false, false, true, true, false]);
    }
}
