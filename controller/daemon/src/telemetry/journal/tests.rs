//! The journal on a disk: what goes in comes out, filters mean the same in SQL, bounds hold, damage is put
//! aside.

#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::{
    fs,
    sync::atomic::{AtomicU32, Ordering},
};

use wardline_ebpf::abi::Reason;
use wardline_policy::document::Document;

use super::{
    super::{
        event::Verdict,
        filter::{Asked, Who},
    },
    *,
};

/// A directory of a test's own.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("wardline-journal-{}-{next}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("journal.db")
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const ALL: Page = Page {
    after: i64::MIN,
    through: i64::MAX,
    most: 1_000_000,
    order: Order::Oldest,
};

/// An event with everything that an event can have, different by number.
fn event(number: i64) -> Arc<Event> {
    let pick = |of: &[&str]| of[usize::try_from(number).unwrap() % of.len()].to_owned();
    let towards = number % 3 == 0;
    let (source, destination) = ("10.20.1.11".to_owned(), pick(&["192.0.2.80", "10.20.2.5"]));
    let far_end = if towards {
        source.clone()
    } else {
        destination.clone()
    };
    let port = [443, 80, 5005][usize::try_from(number).unwrap() % 3];
    Arc::new(Event {
        id: number * 1_000_000,
        time: Timestamp::from_second(number).unwrap(),
        verdict: [Verdict::Drop, Verdict::Pass][usize::from(number % 5 == 0)],
        reason: Some([Reason::NoRule, Reason::DeniedByRule][usize::from(number % 7 == 0)]),
        rule: pick(&["", "web", "hl7", ""]),
        device: pick(&["pump-1", "camera", ""]),
        zone: pick(&["pumps", "cameras", ""]),
        peer: match number % 4 {
            0 => "nvr".to_owned(),
            _ => far_end,
        },
        peer_zone: pick(&["", "servers"]),
        towards,
        interface: pick(&["lan1", "lan2"]),
        vlan: u16::try_from(number % 2 * 20).unwrap(),
        source,
        destination,
        service: format!("tcp/{port}"),
        asked: (number % 9 != 0).then_some(6 << 16 | port),
        service_name: pick(&["", "https"]),
        count: u64::try_from(number).unwrap(),
        destinations: 3,
        revision: 5,
        source_mac: pick(&["02:00:00:00:01:11", "02:00:00:00:01:12"]),
        source_port: 49152,
        observed: number % 5 == 0,
        message: String::new(),
    })
}

fn written(scratch: &Scratch, bounds: Bounds, events: &[Arc<Event>]) -> Fill {
    file::write(&mut None, &scratch.file(), bounds, events, None).unwrap()
}

#[test]
fn what_goes_in_comes_out_in_pages() {
    let scratch = Scratch::new();
    let events: Vec<Arc<Event>> = (1..=25).map(event).collect();
    let fill = written(&scratch, Bounds::default(), &events[..20]);
    assert_eq!((fill.events, fill.forgotten), (20, 0));
    assert_eq!(fill.oldest, Some(events[0].time));
    written(&scratch, Bounds::default(), &events[20..]);
    let file = scratch.file();
    let read = |page| read::page(&file, &Filter::default(), page).unwrap();
    let told = |events: &[Event]| events.iter().map(|it| it.count).collect::<Vec<_>>();
    let all = read(ALL);
    assert!(all.iter().eq(events.iter().map(|event| &**event)));
    let first = read(Page { most: 10, ..ALL });
    assert_eq!(told(&first), (1..=10).collect::<Vec<_>>());
    let second = read(Page {
        after: first[9].id,
        most: 10,
        ..ALL
    });
    assert_eq!(told(&second), (11..=20).collect::<Vec<_>>());
    let newest = read(Page {
        through: events[21].id,
        most: 3,
        order: Order::Newest,
        ..ALL
    });
    assert_eq!(told(&newest), [20, 21, 22]);
}

#[test]
fn a_filter_means_the_same_in_memory_and_on_disk() {
    let scratch = Scratch::new();
    let events: Vec<Arc<Event>> = (1..=200).map(event).collect();
    written(&scratch, Bounds::default(), &events);
    let who = |text: &[&str]| text.iter().map(|it| Who::of(it)).collect::<Vec<_>>();
    let texts = |text: &[&str]| text.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
    let asked = |text: &str| Asked::of(text, &Document::default()).unwrap();
    let none = Filter::default;
    let filters = [
        none(),
        Filter {
            since: Some(events[50].time),
            ..none()
        },
        Filter {
            until: Some(events[50].time),
            ..none()
        },
        Filter {
            devices: who(&["pump-1"]),
            ..none()
        },
        Filter {
            devices: who(&["nvr", "camera"]),
            ..none()
        },
        Filter {
            devices: who(&["10.20.1.11"]),
            zones: texts(&["servers"]),
            ..none()
        },
        Filter {
            devices: who(&["02:00:00:00:01:12"]),
            ..none()
        },
        Filter {
            devices: who(&["nobody"]),
            ..none()
        },
        Filter {
            zones: texts(&["servers", "pumps"]),
            ..none()
        },
        Filter {
            reasons: vec![Reason::DeniedByRule],
            ..none()
        },
        Filter {
            rules: texts(&["web", "gone"]),
            ..none()
        },
        Filter {
            services: vec![asked("tcp/443")],
            ..none()
        },
        Filter {
            services: vec![asked("tcp/80-500"), asked("arp")],
            ..none()
        },
        Filter {
            peers: who(&["nvr"]),
            ..none()
        },
        Filter {
            peers: who(&["192.0.2.80"]),
            ..none()
        },
        Filter {
            peers: who(&["10.20.1.11", "nvr"]),
            ..none()
        },
        Filter {
            interfaces: texts(&["lan2"]),
            verdicts: vec![Verdict::Pass],
            ..none()
        },
        Filter {
            devices: who(&["pump-1"]),
            peers: who(&["nvr"]),
            since: Some(events[9].time),
            until: Some(events[150].time),
            reasons: vec![Reason::NoRule],
            ..none()
        },
    ];
    let mut some = 0;
    for filter in &filters {
        let expected: Vec<&Event> = events
            .iter()
            .filter(|event| filter.passes(event))
            .map(|event| &**event)
            .collect();
        let read = read::page(&scratch.file(), filter, ALL).unwrap();
        assert!(read.iter().eq(expected.iter().copied()), "{filter:?}");
        some += usize::from(!expected.is_empty() && expected.len() < events.len());
    }
    assert_eq!(some, filters.len() - 2);
}

#[test]
fn noise_takes_the_place_of_its_own_and_the_file_stays_small() {
    let scratch = Scratch::new();
    let bounds = Bounds {
        bytes: 2 << 20,
        days: 30,
    };
    let mut open = None;
    let made = |from: i64, count: i64, interface: &str, device: &str| -> Vec<Arc<Event>> {
        let with = |number| Event {
            interface: interface.to_owned(),
            device: device.to_owned(),
            ..Event::clone(&event(number))
        };
        (from..from + count)
            .map(|number| Arc::new(with(number)))
            .collect()
    };
    let file = scratch.file();
    let mut write = |events: &[Arc<Event>]| file::write(&mut open, &file, bounds, events, None);
    write(&made(1, 500, "lan1", "pump")).unwrap();
    write(&made(501, 500, "lan2", "printer")).unwrap();
    let mut fill = Fill::default();
    for round in 0..40 {
        fill = write(&made(1001 + round * 1000, 1000, "lan2", "camera")).unwrap();
        let bytes = fs::metadata(scratch.file()).unwrap().len();
        assert!(bytes <= bounds.bytes, "{bytes}");
    }
    assert!(fill.forgotten > 10_000, "{fill:?}");
    let count = |device: &str| {
        let filter = Filter {
            devices: vec![Who::of(device)],
            ..Filter::default()
        };
        read::page(&scratch.file(), &filter, ALL).unwrap().len()
    };
    assert_eq!((count("pump"), count("printer")), (500, 500));
    let camera = count("camera");
    assert_eq!(fill.events, camera as u64 + 1000);
    // What is counted at the next start is what is there.
    assert_eq!(written(&scratch, bounds, &[]).events, fill.events);
}

#[test]
fn old_events_go_when_the_clock_is_believed() {
    let scratch = Scratch::new();
    let day = 24 * 60 * 60;
    let events: Vec<Arc<Event>> = (1..=40).map(|number| event(number * day)).collect();
    let bounds = Bounds::default();
    assert_eq!(written(&scratch, bounds, &events).events, 40);
    let now = Timestamp::from_second(40 * day).unwrap();
    let fill = file::write(&mut None, &scratch.file(), bounds, &[], Some(now)).unwrap();
    assert_eq!((fill.events, fill.oldest), (31, Some(events[9].time)));
}

#[test]
fn a_clock_that_is_set_back_loses_nothing() {
    let scratch = Scratch::new();
    written(&scratch, Bounds::default(), &[event(5), event(6)]);
    let fill = written(&scratch, Bounds::default(), &[event(5), event(5)]);
    assert_eq!(fill.events, 4);
    assert_eq!(
        read::page(&scratch.file(), &Filter::default(), ALL)
            .unwrap()
            .len(),
        4
    );
}

#[test]
fn a_damaged_journal_is_put_aside_and_only_the_newest_of_them_stays() {
    let scratch = Scratch::new();
    for round in 1..=3 {
        written(&scratch, Bounds::default(), &[event(round)]);
        fs::write(scratch.file(), vec![0x5a; 20_000]).unwrap();
        let fill = written(&scratch, Bounds::default(), &[event(round)]);
        assert_eq!(fill.events, 1);
    }
    let names = scratch.names();
    let aside = |it: &&String| it.starts_with("journal.db.damaged-") && !it.ends_with("-wal");
    assert_eq!(names.iter().filter(aside).count(), 1, "{names:?}");
}

#[test]
fn damage_that_shows_while_the_journal_is_open_costs_what_was_in_it() {
    let scratch = Scratch::new();
    let (mut open, file) = (None, scratch.file());
    let many: Vec<Arc<Event>> = (1..=3000).map(event).collect();
    file::write(&mut open, &file, Bounds::default(), &many, None).unwrap();
    drop(open);
    let mut bytes = fs::read(&file).unwrap();
    let end = bytes.len();
    bytes[4096..end].fill(0x5a);
    fs::write(&file, bytes).unwrap();
    let fill = written(&scratch, Bounds::default(), &[event(1)]);
    assert_eq!(fill.events, 1);
    assert!(
        scratch
            .names()
            .iter()
            .any(|it| it.starts_with("journal.db.damaged-"))
    );
}

#[test]
fn a_newer_journal_is_put_aside_whole() {
    let scratch = Scratch::new();
    written(&scratch, Bounds::default(), &[event(1)]);
    let newer = rusqlite::Connection::open(scratch.file()).unwrap();
    newer.pragma_update(None, "user_version", 9).unwrap();
    drop(newer);
    assert_eq!(written(&scratch, Bounds::default(), &[event(2)]).events, 1);
    let names = scratch.names();
    let aside = names.iter().find(|it| it.starts_with("journal.db.newer-"));
    let aside = rusqlite::Connection::open(scratch.0.join(aside.unwrap())).unwrap();
    let kept: u32 = aside
        .query_row("SELECT count(*) FROM events", [], |row| row.get(0))
        .unwrap();
    assert_eq!(kept, 1);
}

#[tokio::test]
async fn what_was_recorded_is_on_disk_when_a_reader_has_waited() {
    let scratch = Scratch::new();
    let journal = Journal::new(&scratch.0, Bounds::default());
    let (parts, stop) = (Parts::default(), CancellationToken::new());
    let keeping = tokio::spawn(journal.clone().keep(parts, || true, stop.clone()));
    while journal.fill().bytes == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let now = Timestamp::now().as_second();
    for number in 0..300 {
        journal.record(event(now + number));
    }
    assert!(journal.is_up_to_date().await);
    assert_eq!(journal.page(&Filter::default(), ALL).unwrap().len(), 300);
    journal.record(event(now + 300));
    stop.cancel();
    keeping.await.unwrap();
    assert_eq!(journal.page(&Filter::default(), ALL).unwrap().len(), 301);
}

#[tokio::test]
async fn what_finds_no_room_is_counted() {
    let scratch = Scratch::new();
    let journal = Journal::new(&scratch.0, Bounds::default());
    for number in 0..QUEUE as i64 + 7 {
        journal.record(event(number));
    }
    assert_eq!(journal.lost(), 7);
}
