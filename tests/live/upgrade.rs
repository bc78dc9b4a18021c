//! What goes on when a daemon with other tables takes over: flows, learned addresses, quarantine, counters.
//!
//! The folder of the first daemon's tables gets the name of another version. The next daemon never uses
//! such tables as its own, so it has to take over what is in them, as after an upgrade or a downgrade.
//! That fields are found by name in tables of another form is tested where they are read
//! (`controller/datapath/src/carry/records.rs`).

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::UdpSocket,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use serde_json::Value;
use wardline_oracle::frames::{Ethernet, Ipv4, Mac, Udp};
use wardline_tests::{
    Host, Outcome, eventually,
    ward::{FAR, Guard, PATIENCE, Ward, policy, v4, v6, zone},
};

/// Flows besides those of the sessions.
const FLOWS: u16 = 3000;
/// Pause between datagrams, and between chunks of a transfer.
const PAUSE: Duration = Duration::from_millis(1);
/// No flow is adopted, so that only what is carried goes on; none times out during a test, and there is
/// room for all.
const SETTINGS: &str = "[timeouts]\nadoption = 0\nudp = 600\nudp_answered = 600\n\
                        [limits]\nflows_per_device = 60000\n";
/// The steps of taking over at which a daemon may die.
const STEPS: [&str; 5] = [
    "learned-carried",
    "flows-carried",
    "one-replaced",
    "all-replaced",
    "counters-carried",
];

/// A ward of three devices. The second learns its addresses, the third is in quarantine.
struct Bench {
    ward: Ward,
    devices: [Host; 3],
    guard: Guard,
}

impl Bench {
    fn new(name: &str) -> Self {
        let ward = Ward::new(name);
        let devices = [1, 2, 3].map(|net| ward.device(net));
        ward.lab.settle().unwrap();
        let guard = Guard::start(&ward.lab, SETTINGS);
        let listed = format!(", addresses: [{}, \"{}\"]", v4(2), v6(2));
        let mut document = policy(
            &[1, 2, 3].map(|net| zone(net, "", "")),
            "tcp/7, udp/7, udp/10",
        )
        .replace(&listed, "");
        document.push_str(
            "  - {name: in, from: [\"cidr:198.51.100.0/24\"], to: [device:device-1], \
             services: [tcp/8], action: allow}\n",
        );
        guard.apply(&document);
        let cut = ["quarantine", "device-3", "--reason", "test"];
        guard.ctl.run(&cut).unwrap().ok().unwrap();
        for net in [1, 2, 3] {
            guard.wait_until_guarded(&format!("lan{net}"));
        }
        Self {
            ward,
            devices,
            guard,
        }
    }

    /// Ends the daemon as a crash would, and gives its tables to another version.
    fn age(&mut self) -> PathBuf {
        self.guard.daemon.kill9().unwrap();
        let pins = self.guard.daemon.pins();
        let other = pins.join("v0");
        fs::rename(only_folder(pins), &other).unwrap();
        other
    }

    /// The source ports of the first device's UDP flows.
    fn ports(&self) -> BTreeSet<u64> {
        let flows = self.guard.flows(&v4(1), FAR[0]);
        let udp = flows.iter().filter(|flow| flow["protocol"] == "udp");
        udp.map(|flow| flow["source_port"].as_u64().unwrap())
            .collect()
    }

    /// Packets of each rule.
    fn rules(&self) -> BTreeMap<String, u64> {
        let counters = self.guard.ctl.json(&["counters"]).unwrap();
        let rules = counters["rules"].as_array().unwrap().iter();
        rules
            .map(|it| {
                let name = it["rule"].as_str().unwrap().to_owned();
                (name, it["packets"].as_u64().unwrap())
            })
            .collect()
    }

    /// The addresses of the device that learns them.
    fn learned(&self) -> Value {
        let devices = self.guard.ctl.json(&["devices"]).unwrap();
        let devices = devices["devices"].as_array().unwrap();
        let device = devices.iter().find(|it| it["name"] == "device-2").unwrap();
        device["addresses"].clone()
    }

    /// Opens many flows of the first device.
    fn open_flows(&self) {
        let gateway = self.ward.lab.router().mac("lan1").unwrap();
        let own: Mac = [2, 0, 0, 0, 1, 0x11];
        let frames: Vec<Vec<u8>> = (0..FLOWS)
            .map(|n| {
                let udp = Udp::new(10_000 + n, 7, b"one of many".to_vec());
                let ip = Ipv4::new(v4(1).parse().unwrap(), FAR[0].parse().unwrap(), udp);
                Ethernet::new(gateway, own, ip).bytes()
            })
            .collect();
        self.devices[0].flood("eth0", &frames).unwrap();
        let all = eventually(PATIENCE, || self.ports().len() >= usize::from(FLOWS));
        assert!(all, "{} flows", self.ports().len());
    }
}

fn only_folder(pins: &Path) -> PathBuf {
    let mut folders = fs::read_dir(pins).unwrap();
    let folder = folders.next().unwrap().unwrap().path();
    assert!(folders.next().is_none(), "{pins:?} has one version only");
    folder
}

/// Sends a datagram every millisecond until told to stop; returns how many were sent and came back.
fn exchanges(host: &Host, port: u16, stop: &AtomicBool) -> (u32, u32) {
    let socket = host.run(|| UdpSocket::bind("0.0.0.0:0")).unwrap().unwrap();
    socket.connect((FAR[0], port)).unwrap();
    socket.set_nonblocking(true).unwrap();
    let (mut sent, mut back) = (0, 0);
    let mut buffer = [0; 64];
    while !stop.load(Ordering::Relaxed) {
        socket.send(b"again and again").unwrap();
        sent += 1;
        thread::sleep(PAUSE);
        while socket.recv(&mut buffer).is_ok() {
            back += 1;
        }
    }
    let all = || {
        while socket.recv(&mut buffer).is_ok() {
            back += 1;
        }
        back == sent
    };
    eventually(Duration::from_secs(1), all);
    (sent, back)
}

/// The same with a flow of its own for each datagram. The answer to a question that opens a flow while
/// programs are replaced may be lost: the program that sees it may not know of the flow yet.
fn questions(host: &Host, stop: &AtomicBool) -> (u32, u32) {
    let (mut asked, mut answered) = (0, 0);
    while !stop.load(Ordering::Relaxed) {
        let outcome = host.udp_exchange(FAR[0], 7, Duration::from_millis(200));
        asked += 1;
        answered += u32::from(outcome == Outcome::Connected);
        thread::sleep(PAUSE);
    }
    (asked, answered)
}

#[test]
fn an_upgrade_under_traffic_loses_nothing_and_lets_nothing_through() {
    let mut bench = Bench::new("upgrade");
    let far = bench.ward.far.clone();
    let _servers = [
        far.tcp_serve(7).unwrap(),
        bench.devices[0].tcp_serve(8).unwrap(),
    ];
    let _echo = far.udp_serve(7).unwrap();
    let denied = far.udp_serve(9).unwrap();
    let cut_off = far.udp_serve(10).unwrap();
    let transfers: Vec<_> = [
        bench.devices[0].session(FAR[0], 7),
        bench.devices[0].session(FAR[1], 7),
        bench.devices[1].session(FAR[0], 7),
        bench.devices[1].session(FAR[1], 7),
        far.session(&v4(1), 8),
    ]
    .map(|session| session.unwrap().transfer(PAUSE).unwrap())
    .into();
    bench.open_flows();
    let learned = bench.learned();
    assert!(learned.to_string().contains(&v4(2)), "{learned}");
    let stop = AtomicBool::new(false);
    let exchanged = thread::scope(|scope| {
        let _over = wardline_tests::AtTheEnd(&stop);
        let run = |host: usize, port| {
            let (host, stop) = (bench.devices[host].clone(), &stop);
            scope.spawn(move || exchanges(&host, port, stop))
        };
        let allowed = [run(0, 7), run(1, 7)];
        let (device, told) = (bench.devices[0].clone(), &stop);
        let asks = scope.spawn(move || questions(&device, told));
        let refused = [run(0, 9), run(1, 9), run(2, 7), run(2, 10)];
        let moved = |by: u64| {
            let marks: Vec<u64> = transfers.iter().map(|it| it.echoed()).collect();
            eventually(Duration::from_secs(30), || {
                transfers
                    .iter()
                    .zip(&marks)
                    .all(|(it, mark)| it.echoed() > mark + by)
            })
        };
        let before = moved(1 << 20);
        let (ports, rules, reasons) = (bench.ports(), bench.rules(), bench.guard.reasons());
        let other = bench.age();
        bench.guard.daemon.restart().unwrap();
        let after = moved(4 << 20);
        stop.store(true, Ordering::Relaxed);
        let log = bench.guard.daemon.log();
        assert!(before && after, "{:?}\n{log}", bench.guard.drops());
        let missing: Vec<_> = ports.difference(&bench.ports()).copied().collect();
        assert!(
            missing.is_empty(),
            "{} flows are gone: {missing:?}\n{log}",
            missing.len()
        );
        // Counters go on from where they were.
        for (rule, packets) in &rules {
            assert!(
                bench.rules()[rule] >= *packets,
                "{rule}: {packets}, {:?}",
                bench.rules()
            );
        }
        for (reason, packets) in &reasons {
            assert!(
                bench.guard.packets(reason) >= *packets,
                "{reason}: {packets}"
            );
        }
        assert!(!other.exists(), "the other version's tables are removed");
        let refused = refused.map(|it| it.join().unwrap());
        assert!(
            refused.iter().all(|(sent, back)| *sent > 100 && *back == 0),
            "{refused:?}"
        );
        let (asked, answered) = asks.join().unwrap();
        println!(
            "{} of {asked} questions without an answer",
            asked - answered
        );
        assert!(answered > 100);
        allowed.map(|it| it.join().unwrap())
    });
    for (sent, back) in exchanged {
        println!("{sent} datagrams of one flow, {} lost", sent - back);
        assert!(
            sent > 100 && back == sent,
            "{back} of {sent}: {:?}",
            bench.guard.drops()
        );
    }
    assert_eq!((denied.served(), cut_off.served()), (0, 0));
    assert_eq!(bench.learned(), learned);
    for transfer in transfers {
        transfer.finish(PATIENCE).unwrap();
    }
    // Besides what is denied, only answers to questions of that moment.
    let mut drops = bench.guard.drops();
    let denied = ["mid_flow", "no_rule", "quarantined"].map(|reason| drops.remove(reason));
    assert!(denied[1].is_some() && denied[2].is_some(), "{denied:?}");
    assert_eq!(drops, BTreeMap::new());
}

#[test]
fn counters_go_on_exactly() {
    let mut bench = Bench::new("upgrade-counts");
    let echo = bench.ward.far.udp_serve(7).unwrap();
    let rules = |bench: &Bench| bench.rules()["needed"];
    let device = bench.devices[0].clone();
    let socket = device
        .run(|| UdpSocket::bind("0.0.0.0:0"))
        .unwrap()
        .unwrap();
    socket.connect((FAR[0], 7)).unwrap();
    let exchange = |times: usize| {
        for _ in 0..times {
            socket.send(b"counted").unwrap();
            socket.recv(&mut [0; 16]).unwrap();
        }
    };
    exchange(10);
    assert_eq!(rules(&bench), 20);
    bench.age();
    // While no daemon runs, the other version counts.
    exchange(5);
    bench.guard.daemon.restart().unwrap();
    assert_eq!(rules(&bench), 30);
    exchange(1);
    assert_eq!(rules(&bench), 32);
    assert_eq!(echo.served(), 16);
}

#[test]
fn a_daemon_that_dies_while_it_takes_over_leaves_one_that_judges() {
    let mut bench = Bench::new("upgrade-crash");
    let far = bench.ward.far.clone();
    let (_tcp, _udp) = (far.tcp_serve(7).unwrap(), far.udp_serve(7).unwrap());
    let denied = far.udp_serve(9).unwrap();
    let cut_off = far.udp_serve(10).unwrap();
    let mut sessions = [0, 1].map(|at: usize| bench.devices[at].session(FAR[0], 7).unwrap());
    assert!(sessions.iter_mut().all(|it| it.echo(b"before")));
    bench.open_flows();
    let ports = bench.ports();
    let learned = bench.learned();
    for step in STEPS {
        let other = bench.age();
        bench
            .guard
            .daemon
            .set_environment("WARDLINE_FAULT", Some(step));
        let died = bench.guard.daemon.restart();
        assert!(died.is_err(), "{step}: it died");
        for try_again in [true, false] {
            for session in &mut sessions {
                assert!(session.echo(step.as_bytes()), "{step}, {try_again}");
            }
            bench.devices[0].udp_send(FAR[0], 9, b"denied").unwrap();
            bench.devices[2].udp_send(FAR[0], 10, b"cut off").unwrap();
            if try_again {
                bench.guard.daemon.set_environment("WARDLINE_FAULT", None);
                bench.guard.daemon.restart().unwrap();
            }
        }
        assert!(!other.exists(), "{step}");
        let missing = ports.difference(&bench.ports()).count();
        assert_eq!(
            missing,
            0,
            "{step}: flows are gone\n{}",
            bench.guard.daemon.log()
        );
        assert_eq!(bench.learned(), learned, "{step}");
    }
    assert_eq!((denied.served(), cut_off.served()), (0, 0));
}
