//! Does a flood from one port hurt devices on others, and what is reported when the table is full?
//!
//! A flood is ten times as many flows as the table holds, as fast as the interface takes them. The
//! other devices' flows must live, they must open new ones, and the table must not overflow.

use std::{
    net::{Ipv4Addr, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use wardline_oracle::frames::{Ethernet, Ipv4, Mac, SYN, Tcp, Udp, mac};
use wardline_tests::{
    Host,
    Outcome::Connected,
    Session, TIMEOUT, processors,
    ward::{self, FAR, Guard, PATIENCE, Ward, v4, zone},
};

const FLOWS: usize = 16_384;
const PER_DEVICE: usize = 2_048;
/// Flows of each kind that each of the other devices has before the flood.
const HELD: usize = 32;
/// Flows of each kind that each of them opens: at least `NEW` during the flood and after it, at
/// most `MOST` during it, as they have quotas too.
const NEW: usize = 50;
const MOST: usize = 400;

/// Devices that must not be affected, and what they have open.
struct Others<'a> {
    devices: &'a [Host],
    sessions: Vec<Session>,
    sockets: Vec<UdpSocket>,
}

impl<'a> Others<'a> {
    fn new(devices: &'a [Host]) -> Self {
        let (mut sessions, mut sockets) = (Vec::new(), Vec::new());
        for device in devices {
            for number in 0..HELD {
                let address = FAR[number % FAR.len()];
                sessions.push(device.session(address, 7).unwrap());
                let socket = device
                    .run(|| {
                        let any = if address.contains(':') {
                            "::"
                        } else {
                            "0.0.0.0"
                        };
                        let socket = UdpSocket::bind((any, 0)).unwrap();
                        socket.connect((address, 7)).unwrap();
                        socket
                    })
                    .unwrap();
                sockets.push(socket);
            }
        }
        let mut others = Self {
            devices,
            sessions,
            sockets,
        };
        others.all_answer("before");
        others
    }

    /// Asserts that every flow that they hold still works.
    fn all_answer(&mut self, when: &str) {
        let mut buffer = [0; 16];
        for (number, session) in self.sessions.iter_mut().enumerate() {
            assert!(
                session.echo_within(b"there?", PATIENCE),
                "{when}: tcp {number}"
            );
        }
        for (number, socket) in self.sockets.iter().enumerate() {
            socket
                .set_read_timeout(Some(Duration::from_secs(1)))
                .unwrap();
            // A busy machine may lose a datagram; a flow that is gone loses all of them.
            let answers = (0..5).any(|_| {
                socket.send(b"there?").unwrap();
                socket.recv(&mut buffer).is_ok()
            });
            assert!(answers, "{when}: udp {number}");
        }
    }

    /// Opens flows until `goes_on` is cleared, at least [`NEW`]. Returns how many of each kind each
    /// device opened, and how many attempts failed.
    fn open_new(&self, goes_on: &AtomicBool) -> (usize, usize) {
        // Long enough for TCP's first retransmission: a busy interface loses a frame.
        let once = Duration::from_millis(1500);
        let (mut opened, mut refused) = (0, 0);
        while opened < NEW || opened < MOST && goes_on.load(Ordering::Relaxed) {
            for device in self.devices {
                let address = FAR[opened % FAR.len()];
                let tcp = device.tcp_connect(address, 7, once) == Connected;
                refused += usize::from(!tcp);
                let udp = (0..3).any(|_| device.udp_exchange(address, 7, TIMEOUT) == Connected);
                refused += usize::from(!udp);
            }
            opened += 1;
        }
        (opened, refused)
    }
}

/// A ward after a flood from its first port.
struct Flood {
    guard: Guard,
    /// Attempts of the others to open a flow, and how many of them failed.
    attempts: usize,
    refused: usize,
    _ward: Ward,
}

/// Runs a flood against a ward with two other devices.
fn flood(name: &str, flooder_zone: &str, frames: impl FnOnce(Mac) -> Vec<Vec<u8>>) -> Flood {
    let ward = Ward::new(name);
    let flooder = ward.device(1);
    let others = [ward.device(2), ward.device(3)];
    // The flood's destination, from where neither answers nor ICMP errors come.
    ward.lab
        .router()
        .ip("route add blackhole 203.0.113.0/24")
        .unwrap();
    ward.lab.settle().unwrap();
    let limits = format!("[limits]\nflows = {FLOWS}\nflows_per_device = {PER_DEVICE}\n");
    let guard = Guard::start(&ward.lab, &limits);
    let mut policy = ward::policy(
        &[
            zone(1, flooder_zone, ", attach: xdp"),
            zone(2, "", ", attach: xdp"),
            zone(3, "", ", attach: tc"),
        ],
        "tcp/7, udp/7",
    );
    policy.push_str(
        "  - {name: far-off, from: [any], to: [\"cidr:203.0.113.0/24\"], \
         services: [tcp/*, udp/*], action: allow}\n",
    );
    guard.apply(&policy);
    let _tcp = ward.far.tcp_serve(7).unwrap();
    let _udp = ward.far.udp_serve(7).unwrap();
    let mut held = Others::new(&others);

    let frames = frames(ward.lab.router().mac("lan1").unwrap());
    assert!(frames.len() >= 10 * FLOWS);
    // Processors that open flows at the same instant may each exceed the limit by one.
    let spare = processors().unwrap().len() as u64;
    let goes_on = AtomicBool::new(true);
    let (mut sent, mut took) = (0, Duration::ZERO);
    let (mut opened, mut refused) = thread::scope(|scope| {
        let status = scope.spawn(|| {
            let (mut most, mut looks) = (0, 0);
            while goes_on.load(Ordering::Relaxed) {
                let (used, max) = fill(&guard);
                assert_eq!(max, FLOWS as u64);
                assert!(used <= max + spare, "{used} flows of at most {max}");
                most = used.max(most);
                looks += 1;
            }
            (most, looks)
        });
        let opener = scope.spawn(|| held.open_new(&goes_on));
        // Whole rounds for three seconds, so that the others have time to open flows.
        let start = Instant::now();
        while sent == 0 || start.elapsed() < Duration::from_secs(3) {
            took += flooder.flood("eth0", &frames).unwrap();
            sent += frames.len() as u64;
        }
        goes_on.store(false, Ordering::Relaxed);
        let (opened, refused) = opener.join().unwrap();
        let (most, looks) = status.join().unwrap();
        println!(
            "{name}: {sent} frames at {:.0}/s; the others opened {opened} flows of each kind each, \
             {refused} attempts in vain; at most {most} of {FLOWS} flows in {looks} looks",
            sent as f64 / took.as_secs_f64()
        );
        (opened, refused)
    });
    held.all_answer("after");
    let after = held.open_new(&AtomicBool::new(false));
    opened += after.0;
    refused += after.1;
    held.all_answer("in the end");
    let (used, max) = fill(&guard);
    assert!(used <= max + spare, "{used} flows of at most {max}");
    // The flood reached the programs, except for frames that the interface's queue dropped.
    let judged: u64 = guard.reasons().values().sum();
    assert!(judged >= 10 * FLOWS as u64, "{:?}", guard.reasons());
    Flood {
        guard,
        attempts: 2 * others.len() * opened,
        refused,
        _ward: ward,
    }
}

/// Flows in the table, and how many it may hold.
fn fill(guard: &Guard) -> (u64, u64) {
    let status = guard.ctl.json(&["status"]).unwrap();
    let tables = status["tables"].as_array().unwrap();
    let flows = tables
        .iter()
        .find(|table| table["name"] == "flows")
        .unwrap();
    (
        flows["used"].as_u64().unwrap(),
        flows["max"].as_u64().unwrap(),
    )
}

/// A SYN and a datagram, each of a flow that no other frame belongs to.
fn pair(gateway: Mac, source: (Mac, Ipv4Addr), number: usize) -> [Vec<u8>; 2] {
    let far = Ipv4Addr::new(203, 0, 113, (number % 250) as u8 + 1);
    let port = 1024 + (number / 250) as u16;
    let (mac, address) = source;
    let frame = |packet| Ethernet::new(gateway, mac, packet).bytes();
    [
        frame(Ipv4::new(address, far, Tcp::new(port, 443, SYN))),
        frame(Ipv4::new(address, far, Udp::new(port, 443, *b"flood"))),
    ]
}

#[test]
fn a_device_that_floods_hurts_itself() {
    let flood = flood("flood", "", |gateway| {
        let own = (mac("02:00:00:00:01:11"), v4(1).parse().unwrap());
        (0..5 * FLOWS)
            .flat_map(|number| pair(gateway, own, number))
            .collect()
    });
    let guard = &flood.guard;
    assert_eq!(flood.refused, 0, "{:?}", guard.drops());
    let drops = guard.drops();
    assert_eq!(
        drops.keys().collect::<Vec<_>>(),
        ["device_quota"],
        "{drops:?}"
    );
    assert!(
        drops["device_quota"] >= (10 * FLOWS - PER_DEVICE) as u64,
        "{drops:?}"
    );
    guard.told(&[
        ("device", "device-1"),
        ("reason", "device_quota"),
        ("interface", "lan1"),
    ]);
    let events = guard.ctl.events().unwrap();
    assert!(
        events.iter().all(|event| event["device"] == "device-1"),
        "{events:#?}"
    );
}

#[test]
fn strangers_that_flood_hurt_each_other() {
    let zone = ", admit: any";
    let flood = flood("strangers", zone, |gateway| {
        (0..5 * FLOWS)
            .flat_map(|number| {
                // An address belongs to the MAC that used it first.
                let host = 20 + (number % 200) as u8;
                let source = ([2, 0xaa, 0, 0, 0, host], Ipv4Addr::new(10, 20, 1, host));
                pair(gateway, source, number)
            })
            .collect()
    });
    let Flood {
        guard,
        attempts,
        refused,
        ..
    } = &flood;
    println!(
        "{attempts} attempts, {refused} in vain: {:?}",
        guard.drops()
    );
    // While the table is full, a flow is refused when its bucket has none to evict.
    assert!(refused * 20 <= *attempts, "{refused} of {attempts}");
    let drops = guard.drops();
    // The answer to a flow that was evicted before it came is `no_rule` or `mid_flow`.
    let room = ["device_quota", "flow_table_full", "mid_flow", "no_rule"];
    let reasons: Vec<&str> = drops.keys().map(String::as_str).collect();
    assert!(reasons.iter().all(|it| room.contains(it)), "{drops:?}");
}

#[test]
fn a_full_table_shows_before_it_is_full_and_drops_with_its_reason() {
    const ROOM: u64 = 64;
    let ward = Ward::new("full");
    let devices = [ward.device(1), ward.device(2)];
    ward.lab.settle().unwrap();
    // The table is full before either device reaches its quota.
    let limits = format!("[limits]\nflows = {ROOM}\nflows_per_device = 48\n");
    let guard = Guard::start(&ward.lab, &limits);
    let zones = [zone(1, "", ""), zone(2, "", "")];
    guard.apply(&ward::policy(&zones, "tcp/7, udp/7"));
    let _tcp = ward.far.tcp_serve(7).unwrap();
    let _udp = ward.far.udp_serve(7).unwrap();
    let mut held = devices[0].session(FAR[0], 7).unwrap();
    let opens = |device: &Host| device.udp_exchange(FAR[0], 7, TIMEOUT) == Connected;

    // The status shows the fill level while there is still room.
    let mut seen = Vec::new();
    for device in devices.iter().cycle().take(48) {
        assert!(opens(device), "{:?}", guard.drops());
        seen.push(fill(&guard));
    }
    assert!(seen.is_sorted(), "{seen:?}");
    let (used, max) = fill(&guard);
    assert_eq!(max, ROOM);
    assert!((48..ROOM).contains(&used), "{used} flows");
    assert!(guard.drops().is_empty(), "{:?}", guard.drops());

    // Answered flows are never evicted.
    let more = devices.iter().cycle().take_while(|device| opens(device));
    assert!(more.take(48).count() < 48, "{:?}", fill(&guard));
    assert_eq!(fill(&guard), (ROOM, ROOM));
    let drops = guard.drops();
    assert_eq!(
        drops.keys().collect::<Vec<_>>(),
        ["flow_table_full"],
        "{drops:?}"
    );
    guard.told(&[("reason", "flow_table_full")]);
    assert!(held.echo(b"still there"));
}
