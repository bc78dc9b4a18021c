//! Which drops the kernel tells of when a device makes many.

use std::{collections::BTreeSet, fmt::Write as _, time::Duration};

use wardline_datapath::{Datapath, Hook, ring::Ring};
use wardline_ebpf::abi::{Address, Event};
use wardline_host_tests::judge::{Compiled, parsed};
use wardline_oracle::frames::{Ethernet, Ipv4, Mac, Udp};
use wardline_tests::eventually;

use super::judge;

/// Devices beside the camera.
const OTHERS: u8 = 100;
/// Events of one device in a second about devices that it has not told of lately, and about others.
const FIRST: usize = 16;
const AGAIN: usize = 32;
/// The same about addresses of no device; they have four shares.
const SHARES: usize = 4;

const ROUTER: Mac = [2, 0, 0, 0, 0xff, 1];
const CAMERA: u8 = 200;

/// Devices of one zone, of which none may do anything.
fn document() -> String {
    let mut text = "version: 1\nzones: [{name: ward, subnets: [10.20.1.0/24]}]\nports:\n  \
                    - {interface: lan1, zone: ward}\ndevices:\n"
        .to_owned();
    for host in (1..=OTHERS).chain([CAMERA, CAMERA + 1]) {
        writeln!(
            text,
            "  - {{name: device-{host}, zone: ward, macs: [\"02:00:00:00:01:{host:02x}\"], \
             addresses: [10.20.1.{host}]}}"
        )
        .unwrap();
    }
    text
}

/// A datapath, its events, and the port.
struct Bench {
    datapath: Datapath,
    events: Ring,
    ifindex: u32,
    /// The port of the last packet: each has another, so that no denial is remembered.
    port: u16,
}

impl Bench {
    /// Shows a packet from a device to an address at a hook, which drops it.
    fn sends(&mut self, hook: Hook, from: u8, to: [u8; 4]) {
        assert!(!self.passes(hook, from, to, 9));
    }

    /// The same to a service of the address; whether it passes.
    fn passes(&mut self, hook: Hook, from: u8, to: [u8; 4], service: u16) -> bool {
        self.port += 1;
        let udp = Udp::new(self.port, service, *b"x");
        let packet = Ipv4::new([10, 20, 1, from].into(), to.into(), udp);
        let frame = Ethernet::new(ROUTER, [2, 0, 0, 0, 1, from], packet).bytes();
        self.datapath.run(hook, self.ifindex, 0, &frame).unwrap()
    }

    fn told(&mut self) -> Vec<Event> {
        self.events.by_ref().map(|event| event.unwrap()).collect()
    }

    /// Waits until a second is over for every kind.
    fn wait(&mut self) {
        let clock = || self.datapath.reader().clock().unwrap();
        let began = clock();
        let over = || clock().jiffies > began.jiffies + u64::from(began.per_second);
        assert!(eventually(Duration::from_secs(5), over));
    }
}

/// The devices that events name.
fn named(events: &[Event]) -> BTreeSet<Address> {
    let to = events.iter().map(|event| event.destination);
    to.filter(|to| to.number()[1] as u32 >> 8 == 0x0a_14_01)
        .collect()
}

#[test]
fn noise_towards_many_devices_hides_no_other() {
    judge::in_namespace("noise", &["lan1"], || {
        let mut datapath = judge::datapath();
        let clock = datapath.reader().clock().unwrap();
        let compiled = Compiled::new(&parsed(&document()), &judge::observed(&[]), clock);
        datapath.put(1, &compiled.tables).unwrap();
        let mut bench = Bench {
            events: datapath.events().unwrap(),
            datapath,
            ifindex: compiled.ifindex("lan1"),
            port: 1000,
        };
        for hook in [Hook::Xdp, Hook::TcIngress] {
            bench.datapath.forget().unwrap();
            bench.port = 1000;
            bench.told();
            let noise = |bench: &mut Bench| {
                for host in 1..OTHERS {
                    bench.sends(hook, CAMERA, [10, 20, 1, host]);
                }
                for host in 1..=OTHERS {
                    bench.sends(hook, CAMERA, [192, 0, 2, host]);
                }
            };
            // After some seconds it has told of all of them, and then only so many times a second.
            let mut devices = BTreeSet::new();
            while devices.len() < usize::from(OTHERS) - 1 {
                noise(&mut bench);
                let events = bench.told();
                assert!(events.len() <= FIRST + AGAIN + SHARES, "{}", events.len());
                assert!(events.len() >= FIRST + SHARES, "{}", events.len());
                devices.extend(named(&events));
                bench.wait();
            }
            // What it has never done before is told at once, behind all the noise.
            noise(&mut bench);
            let own = [10, 20, 1, OTHERS];
            for _ in 0..5 {
                bench.sends(hook, CAMERA, own);
            }
            let events = bench.told();
            let about = |event: &&Event| event.destination == Address::v4(own);
            assert_eq!(events.iter().filter(about).count(), 1, "{hook:?}");
            // Nor does it take anything from another device.
            bench.sends(hook, CAMERA + 1, [192, 0, 2, 1]);
            assert_eq!(bench.told().len(), 1, "{hook:?}");
            // The rest is told with the next.
            bench.wait();
            bench.sends(hook, CAMERA, own);
            let events = bench.told();
            let [event] = events.as_slice() else {
                panic!("{events:?}")
            };
            assert_eq!((event.count, event.destinations), (5, 1), "{hook:?}");
        }
    });
}

#[test]
fn each_service_that_is_observed_is_told_though_it_follows_another_at_once() {
    judge::in_namespace("observed-events", &["lan1"], || {
        let mut datapath = judge::datapath();
        let clock = datapath.reader().clock().unwrap();
        let document = document().replace("{name: ward", "{name: ward, mode: observe");
        let compiled = Compiled::new(&parsed(&document), &judge::observed(&[]), clock);
        datapath.put(1, &compiled.tables).unwrap();
        let mut bench = Bench {
            events: datapath.events().unwrap(),
            datapath,
            ifindex: compiled.ifindex("lan1"),
            port: 1000,
        };
        let (pump, far) = ([10, 20, 1, 1], [192, 0, 2, 1]);
        for (hook, camera) in [(Hook::Xdp, CAMERA), (Hook::TcIngress, CAMERA + 1)] {
            bench.datapath.forget().unwrap();
            bench.told();
            let services = [(pump, 53), (pump, 123), (pump, 443), (far, 53), (far, 443)];
            // Each twice: the second has nothing to tell.
            for _ in 0..2 {
                for (to, service) in services {
                    assert!(bench.passes(hook, camera, to, service));
                }
            }
            let events = bench.told();
            let told = events
                .iter()
                .map(|it| (it.destination, it.destination_port));
            let told: Vec<_> = told.collect();
            let all = services.map(|(to, service)| (Address::v4(to), service));
            assert_eq!(told, all, "{hook:?}");
            assert!(events.iter().all(|it| it.flags & Event::OBSERVED != 0));
            // An answer is a part of what was told.
            let answer = Udp::new(443, bench.port - 2, *b"x");
            let answer = Ipv4::new(pump.into(), [10, 20, 1, camera].into(), answer);
            let frame = Ethernet::new(ROUTER, [2, 0, 0, 0, 1, 1], answer).bytes();
            let observed = |bench: &Bench| bench.datapath.reader().reasons().unwrap();
            let before = observed(&bench);
            assert!(bench.datapath.run(hook, bench.ifindex, 0, &frame).unwrap());
            assert_ne!(observed(&bench), before, "{hook:?}");
            assert_eq!(bench.told(), [], "{hook:?}");
            // No device makes more events by it than it may.
            for service in 1000..1100 {
                assert!(bench.passes(hook, camera, pump, service));
            }
            let more = bench.told().len();
            assert!((1..=AGAIN).contains(&more), "{hook:?} {more}");
            // What had no room is told in the next.
            bench.wait();
            assert!(bench.passes(hook, camera, pump, 53));
            let events = bench.told();
            let [event] = events.as_slice() else {
                panic!("{events:?}")
            };
            assert!(event.count as usize > 100 - AGAIN, "{hook:?} {event:?}");
        }
    });
}
