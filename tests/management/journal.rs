//! The journal of events: it outlives kills and power cuts, is found by its filters, and says why something
//! does not work.

use std::{
    collections::BTreeSet,
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use serde_json::Value;
use wardline_oracle::frames::{Ethernet, Mac, SYN, Tcp, Udp, Upper, ip, mac as parsed};
use wardline_tests::{
    Host, eventually,
    ward::{FAR, Guard, PATIENCE, Ward, mac, v4},
};

use super::damage::Clinic;

/// The events that a command shows.
fn events(guard: &Guard, filters: &[&str]) -> Vec<Value> {
    let mut arguments = vec!["-o", "json", "events"];
    arguments.extend(filters);
    let text = guard.ctl.run(&arguments).unwrap().ok().unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Sends a packet from a host to an address.
fn send(from: &Host, macs: [Mac; 2], source: &str, to: &str, upper: impl Into<Upper>) {
    let [source, to]: [IpAddr; 2] = [source, to].map(|it| it.parse().unwrap());
    let frame = Ethernet::new(macs[0], macs[1], ip(source, to, upper)).bytes();
    from.send_frame("eth0", &frame).unwrap();
}

/// The MACs of a frame that a device sends to the router.
fn to_router(ward: &Ward, host: &Host, port: &str) -> [Mac; 2] {
    [
        ward.lab.router().mac(port).unwrap(),
        host.mac("eth0").unwrap(),
    ]
}

/// Sends until there is an event about a service: those of one kind are a second apart.
fn is_told(guard: &Guard, service: &str, send: impl Fn()) {
    let mut next = Instant::now();
    let told = eventually(PATIENCE, || {
        if next <= Instant::now() {
            send();
            next = Instant::now() + Duration::from_millis(1200);
        }
        !events(guard, &["--service", service, "--verdict", "drop"]).is_empty()
    });
    assert!(told, "{service} {:#?}", guard.ctl.events());
}

fn syn(port: u16) -> Tcp {
    Tcp::new(40_000, port, SYN)
}

#[test]
fn events_outlive_a_kill_and_are_found_by_their_filters() {
    let mut clinic = Clinic::new("journal", "");
    clinic.guard.apply(&Clinic::document());
    let macs = to_router(&clinic.ward, &clinic.one, "lan1");
    let far = [
        clinic.ward.lab.router().mac("uplink").unwrap(),
        clinic.ward.far.mac("eth0").unwrap(),
    ];
    let (one, ctl) = (&clinic.one, &clinic.guard);
    is_told(ctl, "tcp/443", || {
        send(one, macs, &v4(1), FAR[0], syn(443));
    });
    is_told(ctl, "tcp/22", || send(one, macs, &v4(1), &v4(2), syn(22)));
    is_told(ctl, "udp/5005", || {
        send(one, macs, &v4(1), &v4(2), Udp::new(5, 5005, *b"x"));
    });
    is_told(ctl, "tcp/80", || {
        send(&clinic.ward.far, far, FAR[0], &v4(2), syn(80));
    });
    let all = ["--verdict", "drop", "--reason", "no_rule"];
    let before = events(&clinic.guard, &all);
    // At most a second later it is on disk, whoever asks; this is what a kill may cost.
    clinic.guard.daemon.kill9().unwrap();
    clinic.guard.daemon.restart().unwrap();
    assert_eq!(events(&clinic.guard, &all), before);

    let guard = &clinic.guard;
    let of = |filters: &[&str]| -> Vec<Value> {
        let mut arguments = all.to_vec();
        arguments.extend(filters);
        events(guard, &arguments)
    };
    let [web] = &of(&["--service", "https"])[..] else {
        panic!("{:#?}", of(&[]));
    };
    for (field, expected) in [
        ("device", "device-1"),
        ("zone", "zone-1"),
        ("peer", FAR[0]),
        ("interface", "lan1"),
        ("service", "tcp/443"),
        ("service_name", "https"),
        ("source_mac", &mac(1)),
    ] {
        assert_eq!(web[field], expected, "{web:#}");
    }
    assert_eq!(web["towards"], false);
    // What another device or the far host sends to a device names who has sent it.
    let [from_far] = &of(&["--peer", FAR[0], "--device", "device-2"])[..] else {
        panic!("{:#?}", of(&[]));
    };
    assert_eq!(
        (&from_far["device"], &from_far["peer"], &from_far["towards"]),
        (&"device-2".into(), &FAR[0].into(), &true.into())
    );
    let between = of(&[
        "--device", "device-2", "--device", "nobody", "--peer", "device-2",
    ]);
    let services: BTreeSet<&str> = between
        .iter()
        .map(|it| it["service"].as_str().unwrap())
        .collect();
    assert_eq!(services, BTreeSet::from(["tcp/22", "udp/5005"]));
    for event in &between {
        assert_eq!(
            (&event["peer"], &event["peer_zone"]),
            (&"device-2".into(), &"zone-2".into())
        );
    }
    for (filters, expected) in [
        (&["--zone", "zone-2"][..], 3),
        (&["--device", "device-1"], 3),
        (&["--device", &mac(1)], 3),
        (&["--interface", "lan2"], 1),
        (&["--service", "tcp/1-100"], 2),
        (&["--service", "ssh", "--zone", "zone-1"], 1),
        (&["--rule", "nothing"], 0),
        (&["--since", "1h"], 4),
        (&["--until", "1h"], 0),
        (&["--since", "2001-01-01T00:00:00Z", "--limit", "2"], 2),
        (&["--reason", "malformed"], 4),
    ] {
        assert_eq!(of(filters).len(), expected, "{filters:?} {:#?}", of(&[]));
    }
    let refused = guard.ctl.run(&["events", "--service", "htps"]).unwrap();
    assert!(
        refused.code == 4 && refused.stderr.contains("services[0]: no service"),
        "{refused:?}"
    );
    let csv = guard
        .ctl
        .run(&["-o", "csv", "events", "--device", "device-1"]);
    let csv = csv.unwrap().ok().unwrap();
    assert!(csv.lines().next().unwrap().contains("peer_zone"), "{csv}");
    let journal = &clinic.status()["journal"];
    assert!(journal["events"].as_u64().unwrap() >= 4, "{journal}");
    assert_eq!(
        (&journal["lost"], &journal["max_bytes"]),
        (&0.into(), &(256u64 << 20).into())
    );
}

#[test]
fn why_says_what_was_dropped_and_what_would_allow_it() {
    let clinic = Clinic::new("why", "");
    let guard = &clinic.guard;
    guard.apply(&Clinic::document());
    let macs = to_router(&clinic.ward, &clinic.one, "lan1");
    let one = &clinic.one;
    is_told(guard, "tcp/22", || send(one, macs, &v4(1), &v4(2), syn(22)));
    is_told(guard, "tcp/443", || {
        send(one, macs, &v4(1), FAR[0], syn(443));
    });
    let stranger = parsed("02:00:00:00:77:01");
    is_told(guard, "tcp/23", || {
        send(one, [macs[0], stranger], &v4(1), &v4(2), syn(23));
    });

    let why = guard.ctl.json(&["why", "device-1", "device-2"]).unwrap();
    let drops = why["drops"].as_array().unwrap();
    let [drop] = &drops
        .iter()
        .filter(|it| it["reason"] == "no_rule")
        .collect::<Vec<_>>()[..]
    else {
        panic!("{why:#}");
    };
    for (field, expected) in [
        ("sender", "device-1"),
        ("sender_zone", "zone-1"),
        ("receiver", "device-2"),
        ("service", "tcp/22"),
        ("service_name", "ssh"),
        ("now", "drop"),
        ("now_reason", "no_rule"),
    ] {
        assert_eq!(drop[field], expected, "{drop:#}");
    }
    // What it says would allow it does.
    let fragment = guard.daemon.config().with_file_name("fragment.json");
    fs::write(&fragment, drop["fragment"].to_string()).unwrap();
    let put = ["put", "-f", fragment.to_str().unwrap()];
    guard.ctl.run(&put).unwrap().ok().unwrap();
    let text = guard.ctl.run(&["why", "device-1"]).unwrap().ok().unwrap();
    for part in [
        "device-1 (zone zone-1, 10.20.1.11) asked device-2 (zone zone-2, 10.20.2.11) for ssh (tcp/22)",
        "Why: No rule allows it. (no_rule)",
        "Now: it is allowed (rule, rule device-1-to-device-2-ssh).",
        "for https (tcp/443) at lan1.",
        "cidr:198.51.100.7/32",
    ] {
        assert!(text.contains(part), "{part}:\n{text}");
    }
    let why = guard.ctl.json(&["why", "02:00:00:00:77:01"]).unwrap();
    let drop = &why["drops"][0];
    assert_eq!(
        (&drop["reason"], &drop["fragment"]["devices"][0]["macs"][0]),
        (&"unknown_device".into(), &"02:00:00:00:77:01".into()),
        "{why:#}"
    );
    let nothing = guard.ctl.run(&["why", "device-2", "router"]).unwrap();
    let nothing = nothing.ok().unwrap();
    assert!(
        nothing.starts_with("Nothing between device-2 and router was dropped"),
        "{nothing}"
    );
    let unknown = guard.ctl.run(&["why", "pump-77"]).unwrap();
    assert!(
        unknown.code == 4 && unknown.stderr.contains("no device"),
        "{unknown:?}"
    );
}

#[test]
fn a_damaged_journal_is_put_aside_and_nothing_else_minds() {
    let mut clinic = Clinic::new("journal-damaged", "");
    clinic.guard.apply(&Clinic::document());
    let macs = to_router(&clinic.ward, &clinic.one, "lan1");
    send(&clinic.one, macs, &v4(1), &v4(2), syn(22));
    let told = |guard: &Guard| {
        eventually(PATIENCE, || {
            !events(guard, &["--device", "device-2"]).is_empty()
        })
    };
    assert!(told(&clinic.guard));
    clinic.reboot(|clinic| {
        fs::write(clinic.state("journal.db"), "no journal ".repeat(999)).unwrap();
        let _ = fs::remove_file(clinic.state("journal.db-wal"));
    });
    clinic.is_enforced();
    assert!(clinic.broken("journal").is_null());
    let aside = || {
        let names = fs::read_dir(clinic.state("")).unwrap();
        let mut names = names.map(|it| it.unwrap().file_name().into_string().unwrap());
        names.any(|it| it.starts_with("journal.db.damaged-"))
    };
    assert!(eventually(PATIENCE, aside));
    assert!(
        clinic
            .guard
            .daemon
            .log()
            .contains("the journal can't be used and was put aside")
    );
    // What is denied above is in the new one.
    assert!(told(&clinic.guard) || !events(&clinic.guard, &["--device", "device-1"]).is_empty());
}

/// A file system in a file, mounted until it is dropped.
struct Disk(PathBuf);

impl Disk {
    fn mount(image: &Path, at: &Path) -> Self {
        fs::create_dir_all(at).unwrap();
        let mounted = Command::new("mount")
            .args(["-o", "loop"])
            .arg(image)
            .arg(at)
            .status();
        assert!(mounted.unwrap().success());
        Self(at.to_owned())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// How often the power is cut.
const CUTS: usize = 3;
/// What a power cut may cost.
const MAY_BE_LOST: Duration = Duration::from_secs(2);

#[test]
fn a_power_cut_costs_at_most_two_seconds_and_leaves_no_half_record() {
    let mut clinic = Clinic::new("journal-power", "");
    clinic.guard.apply(&Clinic::document());
    let image = clinic.guard.daemon.config().with_file_name("disk.img");
    fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
    let made = Command::new("mkfs.ext4").arg("-q").arg(&image).status();
    assert!(made.unwrap().success());
    let state = clinic.state("");
    let mut disk = None;
    clinic.guard.daemon.terminate().unwrap();
    {
        let filled = Disk::mount(&image, &image.with_file_name("filled"));
        let copied = Command::new("cp")
            .arg("-a")
            .arg(state.join("."))
            .arg(&filled.0)
            .status();
        assert!(copied.unwrap().success());
        let opened = Command::new("rm")
            .args(["-rf"])
            .arg(filled.0.join("lost+found"))
            .status();
        assert!(opened.unwrap().success());
    }
    disk.replace(Disk::mount(&image, &state));
    clinic.guard.daemon.restart().unwrap();
    let macs = to_router(&clinic.ward, &clinic.one, "lan1");
    let mut sent: Vec<(u16, Timestamp)> = Vec::new();
    for cut in 0..CUTS {
        // Each drop is an event of its own: no two have the same address and a second between them.
        let stop = AtomicBool::new(false);
        let (at, more) = thread::scope(|scope| {
            let _over = wardline_tests::AtTheEnd(&stop);
            let sending = scope.spawn(|| {
                let mut sent = Vec::new();
                for number in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        return sent;
                    }
                    let port = u16::try_from(1000 + cut * 1000 + number).unwrap();
                    send(&clinic.one, macs, &v4(1), &v4(2), syn(port));
                    sent.push((port, Timestamp::now()));
                    thread::sleep(Duration::from_millis(1100));
                }
                unreachable!()
            });
            let began = Instant::now();
            // A moment that has nothing to do with the second in which the journal is written.
            let moment = Duration::from_millis(4100 + 377 * cut as u64);
            assert!(eventually(2 * PATIENCE, || began.elapsed() > moment));
            // What has reached the disk is in the file; what has not is in the memory of the file system.
            let at = Timestamp::now();
            fs::copy(&image, image.with_extension("cut")).unwrap();
            stop.store(true, Ordering::Relaxed);
            (at, sending.join().unwrap())
        });
        sent.extend(more);
        clinic.guard.daemon.kill9().unwrap();
        disk.take();
        fs::rename(image.with_extension("cut"), &image).unwrap();
        disk.replace(Disk::mount(&image, &state));
        clinic.guard.daemon.restart().unwrap();
        assert!(clinic.broken("journal").is_null(), "{:#}", clinic.status());
        let found = events(&clinic.guard, &["--device", "device-1", "--since", "1h"]);
        let ports: BTreeSet<String> = found
            .iter()
            .map(|it| it["service"].as_str().unwrap().to_owned())
            .collect();
        let safe = at - MAY_BE_LOST;
        let missing: Vec<_> = sent
            .iter()
            .filter(|(port, when)| *when < safe && !ports.contains(&format!("tcp/{port}")))
            .collect();
        assert!(
            missing.is_empty(),
            "cut {cut} at {at}: {missing:?} of {sent:?}"
        );
        assert!(sent.iter().filter(|(_, when)| *when < safe).count() > 2 * cut);
        for event in &found {
            let whole = event["device"] == "device-1"
                && event["source_mac"] == mac(1).as_str()
                && event["count"] == 1;
            assert!(whole, "{event:#}");
        }
        // What came after the cut never was.
        sent.retain(|(port, _)| ports.contains(&format!("tcp/{port}")));
    }
    clinic.guard.daemon.terminate().unwrap();
    drop(disk);
}
