//! The links, the router's own addresses, what else it takes packets by, and whether it has NAT.
//! When they change is the business of `changes`.
//!
//! [`observe`] and [`watch`] use separate sockets: the kernel answers a request on its own socket
//! and does not announce the result there too, so one socket for both would miss the daemon's own
//! changes. A socket belongs to the network namespace that its thread was in when it was made.

mod changes;
mod read;

use std::{io, pin::pin};

use futures::TryStreamExt as _;
use ipnet::IpNet;
use netlink_packet_route::{
    AddressFamily,
    route::{RouteAttribute, RouteMessage, RouteType},
};
use rtnetlink::Handle;
use wardline_policy::inventory::Inventory;

pub use self::changes::{Appeared, Changes, watch};
use self::read::{
    TAKEN, read_address, read_alternatives, read_broadcast, read_link, read_network, read_own,
    read_taken, vrf_table,
};
use crate::nat;

/// Why the kernel could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum InventoryError {
    /// No socket.
    #[error("open a netlink socket")]
    Socket(#[source] io::Error),
    /// The kernel refused.
    #[error("list {what}")]
    Dump {
        /// What was asked for.
        what: &'static str,
        /// The kernel's answer.
        source: rtnetlink::Error,
    },
    /// The socket ended before the answer did.
    #[error("the netlink socket closed before the kernel's answer was complete")]
    Closed,
}

/// Lists the links and addresses that exist.
///
/// # Errors
/// Those of the socket and of the kernel. An incomplete list is an error, not a short list.
pub async fn observe() -> Result<Inventory, InventoryError> {
    let (connection, handle, _events) =
        rtnetlink::new_connection_with_strict_check().map_err(InventoryError::Socket)?;
    // The connection is polled first, because a list that ends with it is not complete.
    tokio::select! {
        biased;
        () = connection => Err(InventoryError::Closed),
        inventory = dump(&handle) => Ok(Inventory {
            nat: nat::found(),
            ..inventory?
        }),
    }
}

async fn dump(handle: &Handle) -> Result<Inventory, InventoryError> {
    let failed = |what| move |source| InventoryError::Dump { what, source };
    let mut inventory = Inventory::default();
    // Each VRF has local routes of its own.
    let mut tables = vec![LOCAL_TABLE];
    let mut links = pin!(handle.link().get().execute());
    while let Some(message) = links.try_next().await.map_err(failed("links"))? {
        tables.extend(vrf_table(&message));
        let index = message.header.index;
        let names = read_alternatives(&message).map(|name| (name, index));
        inventory.alternatives.extend(names);
        if let Some(link) = read_link(message) {
            inventory.links.insert(link.number, link);
        }
    }
    let mut addresses = pin!(handle.address().get().execute());
    while let Some(message) = addresses.try_next().await.map_err(failed("addresses"))? {
        let index = message.header.index;
        inventory.addresses.extend(read_address(&message));
        inventory
            .own
            .extend(read_own(&message).map(|net| (index, net)));
        // The route is there only while the link is up.
        inventory.taken.extend(read_broadcast(&message));
        inventory
            .connected
            .extend(read_network(&message).map(|net| (index, net)));
    }
    for table in tables {
        for (family, kind) in TAKEN {
            let mut routes = pin!(
                handle
                    .route()
                    .get(local_routes(table, family, kind))
                    .execute()
            );
            loop {
                match routes.try_next().await {
                    Ok(Some(message)) => inventory.taken.extend(read_taken(&message)),
                    Ok(None) => break,
                    // A table exists once it has had a route.
                    Err(rtnetlink::Error::NetlinkError(error))
                        if error.to_io().kind() == io::ErrorKind::NotFound =>
                    {
                        break;
                    }
                    Err(error) => return Err(failed("local routes")(error)),
                }
            }
        }
    }
    let addresses = &inventory.addresses;
    let is_own = |net: &IpNet| addresses.contains(&net.addr());
    inventory
        .taken
        .retain(|net| net.prefix_len() < net.max_prefix_len() || !is_own(net));
    Ok(inventory)
}

/// The table that the kernel asks before all others.
const LOCAL_TABLE: u32 = libc::RT_TABLE_LOCAL as u32;

/// Asks for routes of one kind in one table, so that no list of all routes is made.
fn local_routes(table: u32, family: AddressFamily, kind: RouteType) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family;
    message.header.kind = kind;
    message.attributes.push(RouteAttribute::Table(table));
    message
}

#[cfg(test)]
pub(crate) mod tests {
    use std::{collections::BTreeSet, net::IpAddr, time::Duration};

    use netlink_packet_route::route::RouteScope;
    use rtnetlink::{LinkUnspec, LinkVeth, RouteMessageBuilder};
    use tokio::{sync::mpsc, time::timeout};
    use wardline_policy::words::mac::Mac;

    use super::*;

    pub(crate) const LONG: Duration = Duration::from_secs(5);

    #[test]
    fn sees_what_appears_and_ticks() {
        in_a_namespace(async {
            let lo = Mac([0; 6]);
            let empty = observe().await.expect("a list");
            assert_eq!(
                empty.link("lo").map(|link| (link.up, link.mac)),
                Some((false, Some(lo)))
            );
            assert_eq!(empty.addresses, BTreeSet::new());

            let mut ticks = watch().expect("a subscription").ticks;
            let (connection, handle, _events) = rtnetlink::new_connection().expect("a socket");
            let task = tokio::spawn(connection);
            handle
                .link()
                .add(LinkVeth::new("lan1", "dev1").build())
                .execute()
                .await
                .expect("veth");
            timeout(LONG, ticks.recv())
                .await
                .expect("a tick in time")
                .expect("watching goes on");
            let inventory = observe().await.expect("a list");
            let lan1 = inventory.link("lan1").expect("the veth").clone();
            assert_eq!(
                (lan1.up, lan1.kind.as_deref(), lan1.parent),
                (false, Some("veth"), None)
            );
            assert!(lan1.mac.is_some() && inventory.link("dev1").is_some());

            quiet(&mut ticks).await;
            let up = LinkUnspec::new_with_index(lan1.ifindex).up().build();
            handle.link().set(up).execute().await.expect("up");
            let own = [
                IpAddr::from([10, 20, 1, 1]),
                "2001:db8::1".parse().expect("an address"),
            ];
            handle
                .address()
                .add(lan1.ifindex, own[0], 24)
                .execute()
                .await
                .expect("an IPv4 address");
            handle
                .address()
                .add(lan1.ifindex, own[1], 64)
                .execute()
                .await
                .expect("an IPv6 address");
            timeout(LONG, ticks.recv())
                .await
                .expect("a tick in time")
                .expect("watching goes on");
            let inventory = observe().await.expect("a list");
            assert!(inventory.links[&lan1.number].up);
            assert!(
                own.iter()
                    .all(|address| inventory.addresses.contains(address))
            );
            // But for the link-local address, which the kernel gave it.
            let connected = ["10.20.1.0/24", "2001:db8::/64"];
            let connected = connected.map(|net| (lan1.number, net.parse().expect("a network")));
            assert_eq!(inventory.connected, connected.into());

            quiet(&mut ticks).await;
            handle
                .link()
                .del(lan1.ifindex)
                .execute()
                .await
                .expect("deleted");
            timeout(LONG, ticks.recv())
                .await
                .expect("a tick in time")
                .expect("watching goes on");
            assert_eq!(observe().await.expect("a list"), empty);
            task.abort();
        });
    }

    #[test]
    fn sees_by_which_other_addresses_the_router_takes_packets() {
        in_a_namespace(async {
            let ticks = watch().expect("a subscription").ticks;
            let (connection, handle, _events) = rtnetlink::new_connection().expect("a socket");
            let task = tokio::spawn(connection);
            let veth = LinkVeth::new("lan1", "dev1").build();
            handle.link().add(veth).execute().await.expect("veth");
            let inventory = observe().await.expect("a list");
            assert_eq!(inventory.taken, BTreeSet::new());
            let [lan1, dev1] =
                ["lan1", "dev1"].map(|name| inventory.link(name).expect("it").ifindex);
            let own: [(IpAddr, u8); 2] = [
                ([10, 20, 1, 1].into(), 25),
                ("2001:db8::1".parse().expect("an address"), 64),
            ];
            for (address, length) in own {
                let request = handle.address().add(lan1, address, length);
                request.execute().await.expect("an address");
            }
            let mut taken = Taken { ticks, inventory };
            // The link is down, and the kernel has no route to the broadcast yet.
            taken.becomes("10.20.1.127/32", true).await;
            for (index, name) in [(lan1, "lan1"), (dev1, "dev1")] {
                // The kernel would look for duplicates for a second, and add routes only then.
                let detection = format!("/proc/sys/net/ipv6/conf/{name}/accept_dad");
                std::fs::write(detection, "0").expect("no detection");
                let up = LinkUnspec::new_with_index(index).up().build();
                handle.link().set(up).execute().await.expect("up");
            }
            // Only a link that forwards has the anycast address of its subnet.
            taken.becomes("10.20.1.127/32", true).await;
            for (on, has) in [("1", true), ("0", false)] {
                let forwarding = "/proc/sys/net/ipv6/conf/lan1/forwarding";
                std::fs::write(forwarding, on).expect("forwarding");
                taken.becomes("2001:db8::/128", has).await;
            }
            let local = RouteMessageBuilder::<std::net::Ipv4Addr>::new()
                .destination_prefix([192, 0, 2, 0].into(), 24)
                .output_interface(lan1)
                .table_id(LOCAL_TABLE)
                .kind(RouteType::Local)
                .scope(RouteScope::Host)
                .build();
            let request = handle.route().add(local.clone());
            request.execute().await.expect("a local prefix");
            taken.becomes("192.0.2.0/24", true).await;
            let other = RouteMessageBuilder::<std::net::Ipv4Addr>::new()
                .destination_prefix([198, 51, 100, 0].into(), 24)
                .output_interface(lan1)
                .build();
            quiet(&mut taken.ticks).await;
            let request = handle.route().add(other);
            request.execute().await.expect("a route");
            assert_eq!(
                quiet(&mut taken.ticks).await,
                0,
                "other routes do not matter"
            );
            handle.route().del(local).execute().await.expect("deleted");
            taken.becomes("192.0.2.0/24", false).await;
            let own = own.map(|(address, _)| IpNet::from(address));
            assert!(own.iter().all(|it| !taken.inventory.taken.contains(it)));
            task.abort();
        });
    }

    /// What is listed, looked at again after each tick.
    struct Taken {
        ticks: mpsc::Receiver<()>,
        inventory: Inventory,
    }

    impl Taken {
        /// Waits for the tick after which a prefix is listed, or is not.
        async fn becomes(&mut self, net: &str, listed: bool) {
            let net = net.parse().expect("a prefix");
            loop {
                self.inventory = observe().await.expect("a list");
                if self.inventory.taken.contains(&net) == listed {
                    return;
                }
                let tick = timeout(LONG, self.ticks.recv()).await;
                let list = &self.inventory.taken;
                assert!(tick.is_ok(), "{net} listed: {}, in {list:?}", !listed);
            }
        }
    }

    /// Waits until no more ticks come, and counts them.
    pub(super) async fn quiet(ticks: &mut mpsc::Receiver<()>) -> usize {
        let mut count = 0;
        while let Ok(Some(())) = timeout(Duration::from_millis(400), ticks.recv()).await {
            count += 1;
        }
        count
    }

    /// Runs a test in a network namespace of its own, which ends with the test's thread.
    pub(crate) fn in_a_namespace(test: impl Future<Output = ()> + Send + 'static) {
        let thread = std::thread::spawn(|| {
            if let Err(error) = unshare() {
                eprintln!("skipped: no network namespace of its own: {error}");
                return;
            }
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.expect("a runtime").block_on(test);
        });
        thread.join().expect("the test");
    }

    #[expect(unsafe_code, reason = "the standard library has no unshare")]
    fn unshare() -> io::Result<()> {
        // SAFETY: the call takes no pointer, and changes only the calling thread, which is the
        // test's own.
        match unsafe { libc::unshare(libc::CLONE_NEWNET) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}
