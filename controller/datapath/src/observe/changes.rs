//! Tells when links, the router's addresses or its NAT change, and which links have appeared.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until},
};
use wardline_policy::inventory::Link;

use super::{
    InventoryError,
    read::{read_address, read_link, read_taken},
};
use crate::{
    announcements::{Announcements, Heard},
    nat,
};

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

/// The groups of what is looked at.
const GROUPS: [u32; 5] = [
    libc::RTNLGRP_LINK,
    libc::RTNLGRP_IPV4_IFADDR,
    libc::RTNLGRP_IPV6_IFADDR,
    libc::RTNLGRP_IPV4_ROUTE,
    libc::RTNLGRP_IPV6_ROUTE,
];

fn subscribe() -> Result<Announcements, InventoryError> {
    Announcements::of(&GROUPS).map_err(InventoryError::Socket)
}

async fn follow(mut subscription: Announcements, told: Told) {
    loop {
        follow_one(subscription, &told).await;
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
async fn follow_one(mut announcements: Announcements, told: &Told) {
    let mut seen = Seen::default();
    let mut rules = nat::Changes::default();
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut pace = Pace::default();
    loop {
        let due = pace.due;
        tokio::select! {
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
            heard = announcements.next() => {
                let Ok(heard) = heard else { return };
                match seen.look_at(heard) {
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
    fn look_at(&mut self, heard: Heard) -> News {
        let message = match heard {
            Heard::Message(message) => message,
            Heard::Lost => {
                *self = Self::default();
                return News::Some;
            }
            Heard::Other => return News::Some,
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

#[cfg(test)]
mod tests {
    use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
    use rtnetlink::{LinkUnspec, LinkVeth};
    use tokio::time::timeout;

    use super::{
        super::tests::{LONG, in_a_namespace, quiet},
        *,
    };

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
            Heard::Message(RouteNetlinkMessage::NewLink(message))
        };
        let mut seen = Seen::default();
        let news = [
            link(false),
            link(false),
            link(true),
            link(true),
            Heard::Lost,
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
            assert_eq!(
                super::super::observe().await.expect("a list").links.len(),
                101
            );
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
}
