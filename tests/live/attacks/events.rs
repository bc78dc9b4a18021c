//! A camera makes noise, so that nobody sees what it does besides.

use std::{
    net::IpAddr,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use wardline_oracle::frames::{Ethernet, Mac, SYN, Tcp, Udp, Upper, ip};
use wardline_tests::{
    eventually,
    ward::{FAR, Guard, PATIENCE, Ward, policy, v4, v6, zone},
};

/// Ports of the pump that the camera tries, half of them by each family.
const SCANNED: u16 = 60;
/// Time in which it does so.
const SCAN: Duration = Duration::from_secs(2);

/// The frame of a packet from the camera, in the family of what it is for; `macs` are the router's and
/// the camera's.
fn from_camera(macs: [Mac; 2], to: &str, upper: impl Into<Upper>) -> Vec<u8> {
    let to: IpAddr = to.parse().unwrap();
    let from = if to.is_ipv4() { v4(2) } else { v6(2) };
    let packet = ip(from.parse().unwrap(), to, upper);
    Ethernet::new(macs[0], macs[1], packet).bytes()
}

/// What the events that pass a filter say of packets and of destinations.
fn told(events: &[Value], of: impl Fn(&Value) -> bool) -> [u64; 2] {
    ["count", "destinations"].map(|field| {
        let events = events
            .iter()
            .filter(|event| event["reason"] == "no_rule" && of(event));
        events.map(|event| event[field].as_u64().unwrap()).sum()
    })
}

#[test]
fn a_scan_shows_beside_thousands_of_other_drops() {
    for hook in ["xdp", "tc"] {
        let ward = Ward::new("noise");
        let [_pump, camera] = [1, 2].map(|net| ward.device(net));
        ward.lab.settle().unwrap();
        let guard = Guard::start(&ward.lab, "");
        let attach = format!(", attach: {hook}");
        guard.apply(&policy(
            &[zone(1, "", &attach), zone(2, "", &attach)],
            "tcp/7",
        ));
        let router = ward.lab.router().mac("lan2").unwrap();
        let macs = [router, camera.mac("eth0").unwrap()];
        // Each packet of the noise is another, so that no denial is remembered.
        let noise: Vec<Vec<u8>> = (0..60_000)
            .map(|number| {
                let far = FAR[usize::from(number % 2)];
                from_camera(macs, far, Udp::new(1000 + number, 9, *b"noise"))
            })
            .collect();
        let scan: Vec<Vec<u8>> = (0..SCANNED)
            .map(|port| {
                let pump = [v4(1), v6(1)][usize::from(port % 2)].clone();
                from_camera(macs, &pump, Tcp::new(40_000, 1 + port, SYN))
            })
            .collect();
        let stop = AtomicBool::new(false);
        let (began, noisy) = thread::scope(|scope| {
            let _over = wardline_tests::AtTheEnd(&stop);
            let flood = scope.spawn(|| {
                let mut sent = 0;
                for frames in noise.chunks(64).cycle() {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    camera.flood("eth0", frames).unwrap();
                    sent += frames.len() as u64;
                    thread::sleep(Duration::from_millis(4));
                }
                sent
            });
            // First there is nothing but noise.
            let before = || guard.packets("no_rule") > 5_000;
            assert!(eventually(PATIENCE, before), "{hook}");
            let began = Instant::now();
            for frame in &scan {
                camera.send_frame("eth0", frame).unwrap();
                thread::sleep(SCAN / u32::from(SCANNED));
            }
            let names_pump = |event: &Value| event["destination"] == v4(1);
            let shows = || guard.ctl.events().unwrap().iter().any(names_pump);
            assert!(eventually(PATIENCE, shows), "{hook}");
            stop.store(true, Ordering::Relaxed);
            (began, flood.join().unwrap())
        });
        println!(
            "{hook}: {noisy} packets of noise, scan in {:?}",
            began.elapsed()
        );
        assert!(noisy > 10_000, "{noisy}");
        // A second later one more packet of each kind tells what is not told yet.
        let second = Instant::now() + Duration::from_millis(1100);
        let over = || Instant::now() > second;
        assert!(eventually(PATIENCE, over));
        for frame in [&noise[0], &noise[1], &scan[0]] {
            camera.send_frame("eth0", frame).unwrap();
        }
        let dropped = noisy + 3 + u64::from(SCANNED);
        let all = || guard.packets("no_rule") == dropped;
        assert!(eventually(PATIENCE, all), "{hook} {:?}", guard.drops());
        let pumps = |event: &Value| {
            let to = event["destination"].as_str().unwrap();
            event["device"] == "device-2" && (to == v4(1) || to == v6(1))
        };
        let add_up = || {
            let events = guard.ctl.events().unwrap();
            let [scanned, _] = told(&events, pumps);
            let [all, _] = told(&events, |_| true);
            (scanned, all) == (u64::from(SCANNED) + 1, dropped)
        };
        assert!(
            eventually(PATIENCE, add_up),
            "{hook} {:#?}",
            guard.ctl.events()
        );
        let events = guard.ctl.events().unwrap();
        let [_, destinations] = told(&events, pumps);
        assert!((50..=70).contains(&destinations), "{hook} {destinations}");
        // The noise itself takes no more than its share.
        let seconds = began.elapsed().as_secs() + PATIENCE.as_secs();
        assert!(
            (events.len() as u64) < 8 * seconds,
            "{hook} {}",
            events.len()
        );
        ward.lab.close().unwrap();
    }
}
