//! Events: verdicts from the kernel, with names from the newest snapshot, logged, kept and
//! streamed.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use jiff::Timestamp;
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;
use wardline_datapath::{
    Reader,
    ring::{EventsError, NotAnEvent, Ring},
};
use wardline_ebpf::abi::{self, Address, Reason};
use wardline_policy::replay::{Asked, Fault};

use super::{
    event::Event,
    filter::Filter,
    journal::Journal,
    kept::Kept,
    log::log,
    named::{Names, named},
    observed::{Faulty, Observed},
    service_names::ServiceNames,
};
use crate::engine::state::State;

/// Most kinds of observed traffic that are kept.
const KINDS: usize = 10_000;

/// How many events a stream may lag behind before it misses some.
const BEHIND: usize = 4096;

/// Most records that are read before other tasks get their turn.
const BATCH: usize = 256;

/// The events since this daemon started, and those to come. A handle: clones are the same events.
///
/// The kernel sends at most one event a second for each (device, reason, rule, other end); `count` says how
/// many packets it stands for. Packets after the last event of a burst are reported by the next
/// event of their kind, which may be much later; counters include them at once.
#[derive(Clone, Debug)]
pub struct Events(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    states: watch::Receiver<State>,
    /// Never locked across an await.
    kept: Mutex<Kept>,
    /// Traffic that mode observe has let pass since this daemon started. Never locked across an
    /// await.
    observed: Mutex<BTreeMap<Asked, Observed>>,
    /// Faults of form and place that it has let pass. As above.
    faults: Mutex<BTreeMap<Fault, Faulty>>,
    stream: broadcast::Sender<Arc<Event>>,
    /// Where all of them are recorded.
    journal: Journal,
    /// Never locked across an await.
    services: Mutex<ServiceNames>,
    unreadable: AtomicU64,
}

impl Events {
    /// Starts without events. Names come from the newest state; all events go into the journal.
    pub fn new(states: watch::Receiver<State>, journal: Journal) -> Self {
        Self(Arc::new(Shared {
            states,
            kept: Mutex::default(),
            observed: Mutex::default(),
            faults: Mutex::default(),
            stream: broadcast::Sender::new(BEHIND),
            journal,
            services: Mutex::default(),
            unreadable: AtomicU64::new(0),
        }))
    }

    /// Where all events are recorded.
    pub fn journal(&self) -> &Journal {
        &self.0.journal
    }

    /// Logs an event, keeps it, records it and passes it to the streams. One whose reason has an unknown
    /// number is only counted, in [`Events::unreadable`]. `learned` tells the number of the device that has
    /// learned an address.
    pub fn publish(
        &self,
        raw: &abi::Event,
        time: Timestamp,
        learned: &dyn Fn(Address) -> Option<u32>,
    ) {
        let snapshot = Arc::clone(&self.0.states.borrow().snapshot);
        let services = self.0.services.lock();
        let named = named(
            raw,
            &snapshot,
            time,
            Names {
                services: &mut services.unwrap_or_else(PoisonError::into_inner),
                learned,
            },
        );
        let Some(event) = named else {
            self.0.unreadable.fetch_add(1, Ordering::Relaxed);
            return;
        };
        log(&event);
        let event = self.keep(event, time);
        match event.reason.filter(|_| event.observed) {
            Some(reason) if reason.is_of_policy() => self.note_observed(raw, time),
            Some(reason) => self.note_fault(raw, reason, event, time),
            None => {}
        }
    }

    /// Faults of form and place that mode observe has let pass.
    pub fn faults(&self) -> BTreeMap<Fault, Faulty> {
        self.lock_faults().clone()
    }

    fn note_fault(&self, raw: &abi::Event, reason: Reason, event: Arc<Event>, time: Timestamp) {
        let fault = Fault {
            reason,
            interface: raw.interface,
            zone: raw.zone,
            mac: raw.source_mac,
        };
        let mut faults = self.lock_faults();
        if faults.len() < KINDS || faults.contains_key(&fault) {
            let faulty = faults.entry(fault).or_insert_with(|| Faulty {
                seen: Observed::default(),
                source: IpAddr::from(raw.source),
                event,
            });
            faulty.seen.packets += raw.count;
            faulty.seen.last = Some(time);
        }
    }

    fn lock_faults(&self) -> MutexGuard<'_, BTreeMap<Fault, Faulty>> {
        self.0.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Traffic that mode observe has let pass, by packet as policy sees it.
    pub fn observed(&self) -> BTreeMap<Asked, Observed> {
        self.lock_observed().clone()
    }

    fn note_observed(&self, raw: &abi::Event, time: Timestamp) {
        let asked = Asked {
            addresses: [IpAddr::from(raw.source), IpAddr::from(raw.destination)],
            // An event has only one device, so it stands for either end when a learned address is
            // looked up.
            devices: [raw.device; 2],
            service: u32::from(raw.protocol) << 16 | u32::from(raw.destination_port),
        };
        let mut observed = self.lock_observed();
        if observed.len() < KINDS || observed.contains_key(&asked) {
            let seen = observed.entry(asked).or_default();
            seen.packets += raw.count;
            seen.last = Some(time);
        }
    }

    fn lock_observed(&self) -> MutexGuard<'_, BTreeMap<Asked, Observed>> {
        self.0
            .observed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes an event about something that the daemon did on its own.
    pub fn note(&self, revision: u64, message: String, time: Timestamp) {
        let event = Event {
            time,
            revision,
            message,
            ..Event::default()
        };
        self.keep(event, time);
    }

    fn keep(&self, mut event: Event, time: Timestamp) -> Arc<Event> {
        let mut kept = self.lock();
        event.id = kept.next_id(time);
        // As the journal has it, so that both say the same of an event.
        event.time = Timestamp::from_microsecond(time.as_microsecond()).unwrap_or(time);
        let event = Arc::new(event);
        kept.keep(Arc::clone(&event));
        // Under the lock as well, so that the journal has them in the order of their numbers.
        self.0.journal.record(Arc::clone(&event));
        // Sent under the lock, so that a client which subscribes under it misses nothing. The error
        // without a stream does not matter.
        let _ = self.0.stream.send(Arc::clone(&event));
        event
    }

    /// The events that are kept in memory and pass a filter, oldest first.
    pub fn kept(&self, filter: &Filter) -> Vec<Arc<Event>> {
        self.lock().passing(filter)
    }

    /// A stream of all events that follow, and a number that those before them have at most.
    pub fn follow(&self) -> (i64, broadcast::Receiver<Arc<Event>>) {
        let mut kept = self.lock();
        (kept.mark(Timestamp::now()), self.0.stream.subscribe())
    }

    /// Records of the kernel that could not be read: of another length, or with an unknown reason.
    pub fn unreadable(&self) -> u64 {
        self.0.unreadable.load(Ordering::Relaxed)
    }

    /// Publishes events from the kernel until told to stop, then those that are left in the ring.
    ///
    /// # Errors
    ///
    /// When the ring can't be waited for.
    pub async fn drain(
        self,
        ring: Ring,
        reader: Arc<Reader>,
        stop: CancellationToken,
    ) -> Result<(), EventsError> {
        // Without the kernel's answer the other end is named by its address.
        let learned = |address| reader.holder(address).ok().flatten();
        let mut ring = ring.listen()?;
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                read = ring.wait(BATCH, |event| self.take(event, &learned)) => read?,
            }
            tokio::task::yield_now().await;
        }
        while ring.read(BATCH, |event| self.take(event, &learned)) {
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    fn take(
        &self,
        event: Result<abi::Event, NotAnEvent>,
        learned: &dyn Fn(Address) -> Option<u32>,
    ) {
        match event {
            Ok(event) => self.publish(&event, Timestamp::now(), learned),
            Err(NotAnEvent) => drop(self.0.unreadable.fetch_add(1, Ordering::Relaxed)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // Nothing panics while this lock is held.
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
mod tests {
    use std::path::Path;

    use wardline_ebpf::{abi::Reason, packet::number};
    use wardline_policy::{
        clock::Clock,
        compile,
        intent::Intent,
        inventory::{Inventory, Link},
        limits::Limits,
        numbers::{self, Ids, number_of, numbered},
        quarantine::Quarantine,
        snapshot::Snapshot,
    };
    use wardline_proto::document;

    use super::*;
    use crate::{
        config::Bounds,
        telemetry::{event::Verdict, kept::KEPT, named::service},
    };

    const POLICY: &str = r#"
version: 1
zones: [{name: pumps, subnets: [10.20.1.0/24]}, {name: cameras}]
ports: [{interface: lan1, zone: pumps}]
devices: [{name: pump-1, zone: pumps, macs: ["02:00:00:00:01:11"], addresses: [10.20.1.11]}]
rules: [{name: web, from: [zone:pumps], to: [any], services: [tcp/443], action: deny}]
"#;

    #[test]
    fn a_drop_has_names_for_its_numbers() {
        let (events, snapshot) = events();
        let time: Timestamp = "2026-03-01T10:00:00.5Z".parse().unwrap();
        events.publish(&drop_of(&snapshot), time, &nobody);
        let expected = Event {
            id: time.as_microsecond(),
            time,
            verdict: Verdict::Drop,
            reason: Some(Reason::DeniedByRule),
            rule: "web".into(),
            device: "pump-1".into(),
            zone: "pumps".into(),
            peer: "192.0.2.80".into(),
            peer_zone: String::new(),
            towards: false,
            interface: "lan1".into(),
            vlan: 20,
            source: "10.20.1.11".into(),
            destination: "192.0.2.80".into(),
            service: "tcp/443".into(),
            asked: Some(6 << 16 | 443),
            service_name: "https".into(),
            count: 3,
            destinations: 2,
            revision: 5,
            source_mac: "02:00:00:00:01:11".into(),
            source_port: 49152,
            observed: false,
            message: String::new(),
        };
        assert_eq!(events.kept(&Filter::default()), [Arc::new(expected)]);
    }

    #[test]
    fn passes_are_told_apart_from_drops() {
        let (events, snapshot) = events();
        let raw = drop_of(&snapshot);
        events.publish(
            &abi::Event {
                flags: abi::Event::OBSERVED,
                ..raw
            },
            at(1),
            &nobody,
        );
        events.publish(
            &abi::Event {
                reason: Reason::Rule as u8,
                ..raw
            },
            at(2),
            &nobody,
        );
        let kept = events.kept(&Filter::default());
        let seen: Vec<_> = kept
            .iter()
            .map(|event| (event.verdict, event.reason, event.observed))
            .collect();
        assert_eq!(
            seen,
            [
                (Verdict::Pass, Some(Reason::DeniedByRule), true),
                (Verdict::Pass, Some(Reason::Rule), false),
            ]
        );
    }

    #[test]
    fn the_zone_is_the_devices_else_the_ports() {
        let (events, snapshot) = events();
        let zone = number_of(&snapshot.ids, numbered::ZONE, "cameras") as u16;
        let raw = abi::Event {
            zone,
            ..drop_of(&snapshot)
        };
        events.publish(&raw, at(1), &nobody);
        events.publish(&abi::Event { device: 0, ..raw }, at(1), &nobody);
        events.publish(
            &abi::Event {
                device: 0,
                zone: 0,
                ..raw
            },
            at(1),
            &nobody,
        );
        let zones: Vec<_> = events
            .kept(&Filter::default())
            .into_iter()
            .map(|event| event.zone.clone())
            .collect();
        assert_eq!(zones, ["pumps", "cameras", ""]);
    }

    #[test]
    fn services_are_written_as_policies_write_them() {
        let (_, snapshot) = events();
        let raw = drop_of(&snapshot);
        let of = |protocol, destination_port| {
            service(
                &abi::Event {
                    protocol,
                    destination_port,
                    ..raw
                },
                Reason::NoRule,
            )
            .0
        };
        assert_eq!(of(number::UDP, 53), "udp/53");
        assert_eq!(of(number::ICMP, 8 << 8), "icmp/8");
        assert_eq!(of(number::ICMP, 3 << 8 | 4), "icmp/3/4");
        assert_eq!(of(number::ICMPV6, 128 << 8), "icmpv6/128");
        assert_eq!(of(47, 0), "proto/47");
        assert_eq!(of(number::TCP, 0), "tcp/0");
        let fragment = abi::Event {
            source_port: 0,
            destination_port: 0,
            ..raw
        };
        assert_eq!(service(&fragment, Reason::Fragment).0, "tcp/*");
        let chain = abi::Event {
            protocol: 0,
            ethertype: number::IPV6,
            ..fragment
        };
        assert_eq!(service(&chain, Reason::ExtensionHeader).0, "0x86dd");
    }

    #[test]
    fn frames_without_addresses_show_their_macs() {
        let (events, snapshot) = events();
        let frame = abi::Event {
            source: Address::UNSPECIFIED,
            destination: Address::UNSPECIFIED,
            destination_mac: 0x0180_c200_000e,
            ethertype: 0x88cc,
            ..drop_of(&snapshot)
        };
        events.publish(&frame, at(1), &nobody);
        let arp = abi::Event {
            source: Address::v4([0; 4]),
            destination: Address::v4([10, 20, 1, 1]),
            ethertype: number::ARP,
            ..frame
        };
        events.publish(&arp, at(1), &nobody);
        events.publish(
            &abi::Event {
                ethertype: number::IPV4,
                ..frame
            },
            at(1),
            &nobody,
        );
        let seen: Vec<_> = events
            .kept(&Filter::default())
            .into_iter()
            .map(|event| [&event.source, &event.destination, &event.service].map(String::clone))
            .collect();
        assert_eq!(
            seen,
            [
                ["02:00:00:00:01:11", "01:80:c2:00:00:0e", "0x88cc"],
                ["0.0.0.0", "10.20.1.1", "arp"],
                ["02:00:00:00:01:11", "01:80:c2:00:00:0e", "0x0800"],
            ]
        );
    }

    #[test]
    fn keeps_the_last_and_tells_from_when() {
        let (events, snapshot) = events();
        let raw = drop_of(&snapshot);
        for count in 0..KEPT as u64 + 5 {
            events.publish(&abi::Event { count, ..raw }, at(count as i64), &nobody);
        }
        let kept = events.kept(&Filter::default());
        assert_eq!((kept.len(), kept[0].count), (KEPT, 5));
        let since = events.kept(&Filter {
            since: Some(at(KEPT as i64 + 3)),
            ..Filter::default()
        });
        assert_eq!(
            since.iter().map(|event| event.count).collect::<Vec<_>>(),
            [10_003, 10_004]
        );
    }

    #[test]
    fn a_stream_has_what_follows_and_nothing_twice() {
        let (events, snapshot) = events();
        let raw = drop_of(&snapshot);
        let publisher = events.clone();
        let thread = std::thread::spawn(move || {
            for count in 0..2000 {
                publisher.publish(&abi::Event { count, ..raw }, Timestamp::now(), &nobody);
            }
        });
        while events.kept(&Filter::default()).is_empty() {
            std::thread::yield_now();
        }
        let (last, mut stream) = events.follow();
        thread.join().unwrap();
        let kept = events.kept(&Filter::default());
        let before = kept.iter().filter(|event| event.id <= last);
        let mut counts: Vec<u64> = before.map(|event| event.count).collect();
        while let Ok(event) = stream.try_recv() {
            counts.push(event.count);
        }
        assert_eq!(counts, (0..2000).collect::<Vec<_>>());
    }

    #[test]
    fn unknown_reasons_are_only_counted() {
        let (events, snapshot) = events();
        events.publish(
            &abi::Event {
                reason: 99,
                ..drop_of(&snapshot)
            },
            at(1),
            &nobody,
        );
        assert!(events.kept(&Filter::default()).is_empty());
        assert_eq!(events.unreadable(), 1);
    }

    fn nobody(_: Address) -> Option<u32> {
        None
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn drop_of(snapshot: &Snapshot) -> abi::Event {
        let zone = number_of(&snapshot.ids, numbered::ZONE, "pumps") as u16;
        abi::Event {
            revision: 5,
            count: 3,
            source: Address::v4([10, 20, 1, 11]),
            destination: Address::v4([192, 0, 2, 80]),
            source_mac: 0x0200_0000_0111,
            destination_mac: 0x0200_0000_ff01,
            rule: number_of(&snapshot.ids, numbered::RULE, "web"),
            device: number_of(&snapshot.ids, numbered::DEVICE, "pump-1"),
            interface: 2,
            source_port: 49152,
            destination_port: 443,
            vlan: 20,
            zone,
            ethertype: number::IPV4,
            protocol: number::TCP,
            reason: Reason::DeniedByRule as u8,
            flags: 0,
            destinations: 2,
        }
    }

    fn events() -> (Events, Arc<Snapshot>) {
        let limits = Limits::default();
        let (policy, problems) = document::parse(POLICY);
        assert_eq!(problems, []);
        let intent = Intent::from_policy(&policy, &limits, at(0)).unwrap();
        let ids = numbers::number(&intent, &Ids::new(), &limits).unwrap();
        let link = Link {
            number: 2,
            ifindex: 2,
            name: "lan1".to_owned(),
            mac: None,
            permanent: None,
            up: true,
            controller: None,
            parent: None,
            vlan: None,
            kind: None,
            header: Default::default(),
        };
        let inventory = Inventory {
            links: [(2, link)].into(),
            ..Inventory::default()
        };
        let clock = Clock {
            now: at(0),
            jiffies: 1,
            per_second: 250,
        };
        let none = Quarantine::default();
        let tables = compile::compile(&intent, &inventory, &ids, &none, &clock);
        let snapshot = Arc::new(Snapshot::new(
            5, policy, intent, inventory, none, ids, tables, clock, None,
        ));
        // The receiver keeps the last snapshot after its sender is dropped.
        let (_, states) = watch::channel(State::of(Arc::clone(&snapshot)));
        (
            Events::new(states, Journal::new(Path::new("/"), Bounds::default())),
            snapshot,
        )
    }
}
