//! The links, the router's own addresses, what else it takes packets by, and whether it has NAT,
//! listed and watched.
//!
//! [`observe`] and [`watch`] use separate sockets: the kernel answers a request on its own socket
//! and does not announce the result there too, so one socket for both would miss the daemon's own
//! changes. A socket belongs to the network namespace that its thread was in when it was made.

mod read;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{StreamExt as _, TryStreamExt as _};
use ipnet::IpNet;
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{RouteAttribute, RouteMessage, RouteType},
};
use rtnetlink::{Handle, MulticastGroup, sys::AsyncSocket as _};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until},
};

use wardline_policy::inventory::{Inventory, Link};

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

/// What is announced from now on. Runs until this is dropped.
///
/// # Errors
/// When the first socket can't be made; later ones are tried again.
pub fn watch() -> Result<Changes, InventoryError> {
    let (tick, ticks) = mpsc::channel(1);
    let (word, words) = mpsc::channel(1);
    let fresh = Fresh::default();
    let subscription = subscribe()?;
    let told = Told {
        tick,
        word,
        fresh: Arc::clone(&fresh),
    };
    tokio::spawn(follow(subscription, told));
    Ok(Changes {
        ticks,
        appeared: Appeared { words, fresh },
    })
}

/// What has changed.
pub struct Changes {
    /// Ticks when links, addresses, local routes or rules of netfilter have changed, and when changes may have
    /// been missed. The first change is told at once, and further ones in quick succession together.
    pub ticks: mpsc::Receiver<()>,
    /// The links that have appeared, before the tick for them.
    pub appeared: Appeared,
}

/// The links that have appeared.
pub struct Appeared {
    words: mpsc::Receiver<()>,
    fresh: Fresh,
}

/// Links that have appeared or have another name, by index. No more than exist.
type Fresh = Arc<Mutex<BTreeMap<u32, Link>>>;

impl Appeared {
    /// Those that have appeared since this was asked last, as soon as there are any; none when
    /// watching has ended. A link has its index as its number.
    pub async fn recv(&mut self) -> Option<Vec<Link>> {
        loop {
            self.words.recv().await?;
            let fresh = std::mem::take(&mut *lock(&self.fresh));
            if !fresh.is_empty() {
                return Some(fresh.into_values().collect());
            }
        }
    }
}

fn lock(fresh: &Fresh) -> MutexGuard<'_, BTreeMap<u32, Link>> {
    fresh.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where announcements go.
struct Told {
    tick: mpsc::Sender<()>,
    word: mpsc::Sender<()>,
    fresh: Fresh,
}

/// Time between two ticks.
const SETTLE: Duration = Duration::from_millis(50);

/// Time until the tick for a link that changes again and again.
const CALM: Duration = Duration::from_secs(1);

/// Changes of a link within [`CALM`] before it has to wait so long.
const RESTLESS: u32 = 20;

/// Time between attempts to subscribe again.
const RETRY: Duration = Duration::from_secs(1);

/// How often rules of netfilter are looked at: not all changes of them are announced.
const LOOK: Duration = Duration::from_millis(250);

/// Room for announcements between two turns of the task: some thousand links.
const RECEIVE_BUFFER: u32 = 1 << 20;

type Connection = rtnetlink::proto::Connection<RouteNetlinkMessage>;
type Message = NetlinkMessage<RouteNetlinkMessage>;
type Events = futures::channel::mpsc::UnboundedReceiver<(Message, rtnetlink::sys::SocketAddr)>;

fn subscribe() -> Result<(Connection, Events), InventoryError> {
    let groups = [
        MulticastGroup::Link,
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv6Ifaddr,
        MulticastGroup::Ipv4Route,
        MulticastGroup::Ipv6Route,
    ];
    let (mut connection, _, events) =
        rtnetlink::new_multicast_connection(&groups).map_err(InventoryError::Socket)?;
    let socket = connection.socket_mut().socket_mut();
    socket
        .set_rx_buf_sz(RECEIVE_BUFFER)
        .map_err(InventoryError::Socket)?;
    Ok((connection, events))
}

async fn follow(mut subscription: (Connection, Events), told: Told) {
    loop {
        let (connection, events) = subscription;
        follow_one(connection, events, &told).await;
        subscription = loop {
            if told.tick.is_closed() {
                return;
            }
            match subscribe() {
                Ok(subscription) => break subscription,
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "changes of links go unseen"
                    );
                    tokio::select! {
                        () = sleep(RETRY) => {}
                        () = told.tick.closed() => return,
                    }
                }
            }
        };
        tick(&told.tick);
    }
}

/// Follows one subscription until it or the receiver ends.
async fn follow_one(connection: Connection, mut events: Events, told: &Told) {
    let mut connection = pin!(connection);
    let mut seen = Seen::default();
    let mut rules = nat::Changes::default();
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut pace = Pace::default();
    loop {
        let due = pace.due;
        tokio::select! {
            () = &mut connection => return,
            () = told.tick.closed() => return,
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                pace.ticked();
                tick(&told.tick);
            }
            _ = look.tick() => {
                if rules.any() {
                    pace.changed(None);
                }
            }
            event = events.next() => {
                let Some((message, _)) = event else { return };
                match seen.look_at(message) {
                    News::None => {}
                    News::Some => pace.changed(None),
                    News::Gone(ifindex, name) => {
                        lock(&told.fresh).remove(&ifindex);
                        pace.changed(name);
                    }
                    News::Link(link, appeared) => {
                        pace.changed(Some(link.name.clone()));
                        if appeared {
                            lock(&told.fresh).insert(link.ifindex, link);
                            tick(&told.word);
                        }
                    }
                }
            }
        }
    }
}

/// When the next tick is due.
#[derive(Default)]
struct Pace {
    due: Option<Instant>,
    last: Option<Instant>,
    /// How often each link has changed, by name, and since when that is counted.
    counted: BTreeMap<String, u32>,
    since: Option<Instant>,
}

impl Pace {
    fn ticked(&mut self) {
        self.due = None;
        self.last = Some(Instant::now());
    }

    /// A link has changed, or something else.
    fn changed(&mut self, link: Option<String>) {
        let now = Instant::now();
        let is_over = |since: Instant| now.duration_since(since) >= CALM;
        if self.since.is_none_or(is_over) {
            self.counted.clear();
            self.since = Some(now);
        }
        let changes = link.map_or(0, |name| {
            let count = self.counted.entry(name).or_default();
            *count += 1;
            *count
        });
        let wait = if changes > RESTLESS { CALM } else { SETTLE };
        let due = self.last.map_or(now, |last| now.max(last + wait));
        self.due = Some(self.due.map_or(due, |before| before.min(due)));
    }
}

/// What an announcement tells.
enum News {
    /// Nothing that was not known.
    None,
    /// Something has changed.
    Some,
    /// A link is gone, by index; its name, if that was known.
    Gone(u32, Option<String>),
    /// A link, and whether it has appeared or has another name.
    Link(Link, bool),
}

fn tick(ticks: &mpsc::Sender<()>) {
    // When it is full, a tick is waiting already, and its receiver will list this change too.
    if let Err(mpsc::error::TrySendError::Full(()) | mpsc::error::TrySendError::Closed(())) =
        ticks.try_send(())
    {}
}

/// The last announcement of each link and address. The kernel repeats a link for every change of
/// its statistics, flags and programs, and an address for every renewal.
#[derive(Default)]
struct Seen {
    links: BTreeMap<u32, Link>,
    addresses: BTreeSet<(u32, IpAddr)>,
}

impl Seen {
    fn look_at(&mut self, message: Message) -> News {
        let message = match message.payload {
            NetlinkPayload::InnerMessage(message) => message,
            NetlinkPayload::Overrun(_) => {
                *self = Self::default();
                return News::Some;
            }
            _ => return News::None,
        };
        let is_new = match message {
            // A bridge announces its ports in messages of its own family, which lack most fields.
            RouteNetlinkMessage::NewLink(message) | RouteNetlinkMessage::DelLink(message)
                if message.header.interface_family != AddressFamily::Unspec =>
            {
                true
            }
            RouteNetlinkMessage::NewLink(message) => match read_link(message) {
                Some(link) => {
                    let was = self.links.insert(link.ifindex, link.clone());
                    if was.as_ref() == Some(&link) {
                        return News::None;
                    }
                    let appeared = was.is_none_or(|was| was.name != link.name);
                    return News::Link(link, appeared);
                }
                None => true,
            },
            RouteNetlinkMessage::DelLink(message) => {
                let was = self.links.remove(&message.header.index);
                return News::Gone(message.header.index, was.map(|it| it.name));
            }
            RouteNetlinkMessage::NewAddress(message) => match read_address(&message) {
                Some(address) => self.addresses.insert((message.header.index, address)),
                None => false,
            },
            RouteNetlinkMessage::DelAddress(message) => match read_address(&message) {
                Some(address) => {
                    self.addresses.remove(&(message.header.index, address));
                    true
                }
                None => false,
            },
            // An anycast address comes and goes with forwarding, while no address changes.
            RouteNetlinkMessage::NewRoute(message) | RouteNetlinkMessage::DelRoute(message) => {
                read_taken(&message).is_some()
            }
            _ => false,
        };
        if is_new { News::Some } else { News::None }
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
    use netlink_packet_route::{
        link::{LinkAttribute, LinkFlags, LinkMessage},
        route::RouteScope,
    };
    use rtnetlink::{LinkUnspec, LinkVeth, RouteMessageBuilder};
    use tokio::time::timeout;
    use wardline_policy::words::mac::Mac;

    use super::*;

    const LONG: Duration = Duration::from_secs(5);

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

    #[test]
    fn changes_in_quick_succession_are_few_ticks() {
        in_a_namespace(async {
            let mut ticks = watch().expect("a subscription").ticks;
            let (connection, handle, _events) = rtnetlink::new_connection().expect("a socket");
            let task = tokio::spawn(connection);
            for n in 0..50 {
                let (a, b) = (format!("a{n}"), format!("b{n}"));
                handle
                    .link()
                    .add(LinkVeth::new(&a, &b).build())
                    .execute()
                    .await
                    .expect("veth");
            }
            let count = quiet(&mut ticks).await;
            assert!((1..25).contains(&count), "{count} ticks for 100 links");
            assert_eq!(observe().await.expect("a list").links.len(), 101);
            task.abort();
        });
    }

    #[test]
    fn stops_when_nobody_listens() {
        in_a_namespace(async {
            let ((tick, ticks), (word, _words)) = (mpsc::channel(1), mpsc::channel(1));
            let fresh = Fresh::default();
            let told = Told { tick, word, fresh };
            let task = tokio::spawn(follow(subscribe().expect("a subscription"), told));
            drop(ticks);
            timeout(LONG, task)
                .await
                .expect("an end in time")
                .expect("no panic");
        });
    }

    #[test]
    fn repeats_are_not_new() {
        let link = |up| {
            let mut message = LinkMessage::default();
            message.header.index = 3;
            message.header.flags = if up {
                LinkFlags::Up
            } else {
                LinkFlags::empty()
            };
            message
                .attributes
                .push(LinkAttribute::IfName("lan1".to_owned()));
            Message::from(RouteNetlinkMessage::NewLink(message))
        };
        let overrun = Message::new(Default::default(), NetlinkPayload::Overrun(Vec::new()));
        let mut seen = Seen::default();
        let news = [
            link(false),
            link(false),
            link(true),
            link(true),
            overrun,
            link(true),
        ]
        .map(|message| match seen.look_at(message) {
            News::None => "none",
            News::Link(_, true) => "appeared",
            News::Link(_, false) => "changed",
            News::Some | News::Gone(..) => "some",
        });
        let expected = ["appeared", "none", "changed", "none", "some", "appeared"];
        assert_eq!(news, expected);
    }

    #[test]
    fn a_restless_link_waits_and_others_do_not() {
        let mut pace = Pace::default();
        let now = Instant::now;
        let in_turn = |pace: &mut Pace, name: &str| {
            let before = now();
            pace.changed(Some(name.to_owned()));
            pace.due.map(|due| due.saturating_duration_since(before))
        };
        // The first change is told at once.
        assert!(in_turn(&mut pace, "lan1").is_some_and(|wait| wait < SETTLE));
        for _ in 1..RESTLESS {
            pace.ticked();
            assert!(in_turn(&mut pace, "lan1").is_some_and(|wait| wait <= SETTLE));
        }
        pace.ticked();
        assert!(in_turn(&mut pace, "lan1").is_some_and(|wait| wait > SETTLE));
        assert!(in_turn(&mut pace, "lan2").is_some_and(|wait| wait <= SETTLE));
    }

    #[test]
    fn a_link_that_appears_is_told_by_name() {
        in_a_namespace(async {
            let Changes {
                ticks: _ticks,
                mut appeared,
            } = watch().expect("a subscription");
            let (connection, handle, _events) = rtnetlink::new_connection().expect("a socket");
            let task = tokio::spawn(connection);
            let names = async |appeared: &mut Appeared| {
                let links = timeout(LONG, appeared.recv()).await.expect("in time");
                let links = links.expect("watching goes on").into_iter();
                links
                    .map(|link| (link.name, link.ifindex))
                    .collect::<BTreeMap<_, _>>()
            };
            let veth = LinkVeth::new("lan1", "dev1").build();
            handle.link().add(veth).execute().await.expect("veth");
            let mut told = names(&mut appeared).await;
            while !told.contains_key("lan1") {
                told.extend(names(&mut appeared).await);
            }
            let renamed = LinkUnspec::new_with_index(told["lan1"]).name("lan2".to_owned());
            handle
                .link()
                .set(renamed.build())
                .execute()
                .await
                .expect("a name");
            while !told.contains_key("lan2") {
                told.extend(names(&mut appeared).await);
            }
            assert_eq!(told["lan1"], told["lan2"]);
            task.abort();
        });
    }

    /// Waits until no more ticks come, and counts them.
    async fn quiet(ticks: &mut mpsc::Receiver<()>) -> usize {
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
