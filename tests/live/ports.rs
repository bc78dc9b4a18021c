//! Ports that come and go, many at once, that do not fit and that can't be guarded: each by itself, and
//! none is open.
//!
//! `cargo xtask long` runs these tests with as many rounds as a promise is made for.

mod shut;
mod years;

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use wardline_oracle::frames::{Ethernet, Ipv4, Udp};
use wardline_tests::{
    Host, Lab, eventually,
    ward::{Guard, PATIENCE, Ward, policy, skip, zone},
};

use crate::live::{
    attach::index,
    foreign::{self, Does, Foreign, Kind},
};

/// How long a port may be up before nothing that is denied passes.
const OPEN: Duration = Duration::from_millis(100);

/// A number of rounds: few in the suite, more in the long form.
fn rounds(few: u32, many: u32) -> u32 {
    match std::env::var_os("WARDLINE_LONG") {
        Some(_) => many,
        None => few,
    }
}

/// How long it may take until a port that has appeared is guarded. The suite runs many tests at once, on
/// machines that others use too; the promise is checked by the long form.
fn soon() -> Duration {
    match std::env::var_os("WARDLINE_LONG") {
        Some(_) => Duration::from_secs(1),
        None => PATIENCE,
    }
}

/// Runs commands of `ip` on a host, all with one call.
fn ip_batch(lab: &Lab, host: &Host, lines: &str) {
    let path = lab.dir().join("batch");
    fs::write(&path, lines).unwrap();
    let run = || Command::new("ip").arg("-batch").arg(&path).output();
    let output = host.run(run).unwrap().unwrap();
    assert!(output.status.success(), "{output:?}");
}

const DENIED: &[u8] = b"denied";
const LAN1: [u8; 6] = [2, 0, 0, 0, 1, 1];

/// A datagram of the first device that no rule allows, with the time at which it is sent.
fn denied(began: Instant) -> Vec<u8> {
    let micros = began.elapsed().as_micros() as u64;
    let payload = [DENIED, &micros.to_be_bytes()].concat();
    let (device, far) = ([10, 20, 1, 11].into(), [198, 51, 100, 7].into());
    let packet = Ipv4::new(device, far, Udp::new(7, 9, payload));
    Ethernet::new(LAN1, [2, 0, 0, 0, 1, 0x11], packet).bytes()
}

/// When a frame was sent, if it is one of [`denied`].
fn sent(frame: &[u8]) -> Option<Duration> {
    let at = frame.windows(DENIED.len()).position(|it| it == DENIED)?;
    let time = frame.get(at + DENIED.len()..)?.first_chunk()?;
    Some(Duration::from_micros(u64::from_be_bytes(*time)))
}

/// The first device and its port, while the device sends what is denied.
struct Passing {
    ward: Ward,
    device: Host,
    guard: Guard,
}

impl Passing {
    fn new(name: &str) -> Self {
        let ward = Ward::new(name);
        let device = ward.lab.host("device-1").unwrap();
        ward.plug_in(&device, 1, &ward.port(1).mac("02:00:00:00:01:01"));
        ward.lab.settle().unwrap();
        // Without Wardline it arrives.
        let heard = ward.far.sniff("eth0").unwrap();
        let arrives = eventually(PATIENCE, || {
            device.send_frame("eth0", &denied(Instant::now())).unwrap();
            let wait = Duration::from_millis(50);
            heard.wait_for(wait, |it| sent(it).is_some()).is_some()
        });
        assert!(arrives);
        let guard = Guard::start(&ward.lab, "");
        guard.apply(&policy(&[zone(1, "", "")], "tcp/7"));
        Self {
            ward,
            device,
            guard,
        }
    }

    /// How long the port was open after `make` had begun, in each round. `make` joins the device to a
    /// port `lan1` that is up, in whichever way; `unmake` ends that.
    fn windows(
        &self,
        rounds: u32,
        unmake: impl Fn(&Ward, &Host),
        make: impl Fn(&Ward, &Host),
    ) -> Vec<Duration> {
        let (began, over) = (Instant::now(), AtomicBool::new(false));
        let heard = self.ward.far.sniff("eth0").unwrap();
        thread::scope(|scope| {
            let _over = wardline_tests::AtTheEnd(&over);
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    // There is no interface in between.
                    let _ = self.device.send_frame("eth0", &denied(began));
                }
            });
            let mut windows = Vec::new();
            for round in 0..rounds {
                unmake(&self.ward, &self.device);
                let from = began.elapsed();
                make(&self.ward, &self.device);
                let up = began.elapsed();
                let until = up + 2 * OPEN;
                thread::sleep(until.saturating_sub(began.elapsed()));
                let passed = std::iter::from_fn(|| heard.next(Duration::ZERO));
                let passed: Vec<Duration> = passed.filter_map(|it| sent(&it)).collect();
                let last = passed.iter().max().copied().unwrap_or_default();
                assert!(
                    last < up + OPEN,
                    "round {round}: passed {:?} late",
                    last - up
                );
                windows.push(last.saturating_sub(from));
            }
            over.store(true, Ordering::Relaxed);
            windows
        })
    }
}

/// Prints how long ports were open.
fn report(what: &str, mut windows: Vec<Duration>) {
    windows.sort();
    let (median, max) = (windows[windows.len() / 2], windows[windows.len() - 1]);
    println!(
        "{what}: {} times, open {median:?} (median), {max:?} (most)",
        windows.len()
    );
}

fn plug_in(ward: &Ward, device: &Host) {
    ward.plug_in(device, 1, &ward.port(1).mac("02:00:00:00:01:01"));
}

#[test]
fn an_interface_that_is_made_again_under_traffic_is_not_open() {
    let passing = Passing::new("ports-again");
    let windows = passing.windows(
        rounds(5, 100),
        |ward, _| drop(ward.lab.router().ip("link del lan1").unwrap()),
        plug_in,
    );
    report("deleted and made again", windows);
    passing.guard.wait_until_guarded("lan1");
    assert!(passing.guard.packets("no_rule") > 0);
}

#[test]
fn an_interface_that_is_renamed_moved_or_bridged_is_not_open() {
    let passing = Passing::new("ports-moved");
    let router = passing.ward.lab.router().clone();
    let renamed = passing.windows(
        rounds(3, 30),
        |ward, _| {
            let commands = "link set lan1 down\nlink set lan1 name other\nlink set other up\n";
            ip_batch(&ward.lab, ward.lab.router(), commands);
            passing.guard.wait_until_unguarded("lan1");
        },
        |ward, _| {
            let commands = "link set other down\nlink set other name lan1\nlink set lan1 up\n";
            ip_batch(&ward.lab, ward.lab.router(), commands);
        },
    );
    report("renamed", renamed);
    let elsewhere = passing.ward.lab.host("elsewhere").unwrap();
    let moved = passing.windows(
        rounds(3, 30),
        |_, _| {
            let away = format!("link set lan1 netns {}", elsewhere.netns());
            router.ip(&away).unwrap();
            passing.guard.wait_until_unguarded("lan1");
        },
        |ward, _| {
            let back = format!("link set lan1 netns {}", router.netns());
            elsewhere.ip(&back).unwrap();
            let commands = "link set lan1 up\naddress add 10.20.1.1/24 dev lan1\n";
            ip_batch(&ward.lab, &router, commands);
        },
    );
    report("moved between namespaces", moved);
    let bridge = "link add br0 type bridge forward_delay 0\nlink set br0 address 02:00:00:00:01:01 \
                  up\naddress add 10.20.1.1/24 dev br0\n";
    ip_batch(&passing.ward.lab, &router, bridge);
    let bridged = passing.windows(
        rounds(3, 30),
        |ward, _| ip_batch(&ward.lab, ward.lab.router(), "link set lan1 nomaster\n"),
        |ward, _| ip_batch(&ward.lab, ward.lab.router(), "link set lan1 master br0\n"),
    );
    report("moved to a bridge", bridged);
}

const GUESTS: &str = "version: 1\nzones:\n  - {name: guests, admit: any, subnets: [10.20.0.0/16]}\n\
                      ports:\n  - {interface: \"lan*\", zone: guests}\n";

/// The interfaces that are guarded.
fn guarded(guard: &Guard) -> BTreeSet<String> {
    let attached = guard.attached().into_iter();
    attached
        .filter(|it| it.1 != "none")
        .map(|it| it.0)
        .collect()
}

#[test]
fn two_hundred_interfaces_at_once_are_guarded_soon() {
    let ward = Ward::new("ports-200");
    let guard = Guard::start(&ward.lab, "");
    guard.apply(GUESTS);
    let router = ward.lab.router();
    let mut lines = String::new();
    for n in 0..200 {
        // Every second one with an index that is no number of its own.
        let index = if n % 2 == 0 { 3000 + n } else { 1_000_000 + n };
        writeln!(
            lines,
            "link add lan{n} index {index} type veth peer name far{n}"
        )
        .unwrap();
        writeln!(lines, "link set lan{n} up").unwrap();
    }
    let began = Instant::now();
    ip_batch(&ward.lab, router, &lines);
    let made = began.elapsed();
    assert!(eventually(PATIENCE, || guarded(&guard).len() == 200));
    let all = began.elapsed() - made;
    println!("200 interfaces made in {made:?}; all guarded {all:?} later");
    assert!(all < soon(), "{all:?}");
    // Filters take no time; links follow, because they come before other people's programs.
    let indexes: Vec<u32> = [0, 199].map(|n| index(router, &format!("lan{n}"))).into();
    let pins = guard.daemon.pins().to_owned();
    let is_linked = || {
        let versions = fs::read_dir(&pins).unwrap().flatten();
        let links: Vec<_> = versions.map(|it| it.path().join("links")).collect();
        let has = |name: &String| links.iter().any(|links| links.join(name).exists());
        let mut names = indexes.iter().map(|it| format!("{it}-egress"));
        names.all(|name| has(&name))
    };
    if has_tcx(router, indexes[0]) {
        assert!(eventually(6 * PATIENCE, is_linked));
    }
    println!("all held by links {:?} later", began.elapsed() - made);
}

/// Whether the kernel has links for TC.
fn has_tcx(router: &Host, ifindex: u32) -> bool {
    let program = foreign::load(Kind::Tc, Does::Answers(-1), "probe").unwrap();
    let link = || program.link(ifindex, foreign::Hook::TcxEgress).is_ok();
    router.run(link).unwrap()
}

/// What the kernel itself needs for the hooks of so many interfaces, when each has links: this is why
/// many ports have filters first.
#[test]
fn the_cost_of_links_is_the_kernels() {
    let interfaces = rounds(3, 200);
    let ward = Ward::new("ports-floor");
    let router = ward.lab.router();
    let mut lines = String::new();
    for n in 0..interfaces {
        writeln!(lines, "link add floor{n} type veth peer name far{n}").unwrap();
        writeln!(lines, "link set floor{n} up").unwrap();
    }
    ip_batch(&ward.lab, router, &lines);
    if !has_tcx(router, index(router, "floor0")) {
        skip("TCX", "a kernel before 6.6");
        return;
    }
    let indexes: Vec<u32> = (0..interfaces)
        .map(|n| index(router, &format!("floor{n}")))
        .collect();
    let mut links = Vec::new();
    for (kind, hook, answer) in [
        (Kind::Xdp, foreign::Hook::Xdp, 2),
        (Kind::Tc, foreign::Hook::TcxIngress, -1),
        (Kind::Tc, foreign::Hook::TcxEgress, -1),
    ] {
        let program = foreign::load(kind, Does::Answers(answer), "floor").unwrap();
        let began = Instant::now();
        let link = |ifindex: &u32| program.link(*ifindex, hook).unwrap();
        let made: Vec<Foreign> = router.run(|| indexes.iter().map(link).collect()).unwrap();
        println!("{interfaces} bare links, {hook:?}: {:?}", began.elapsed());
        links.push((program, made));
    }
    assert!(links.iter().all(|(_, made)| made.len() == indexes.len()));
}

#[test]
fn a_port_that_does_not_fit_is_refused_by_itself() {
    let ward = Ward::new("ports-trunks");
    let guard = Guard::start(&ward.lab, "");
    let router = ward.lab.router();
    let vlans: Vec<String> = (1..=4000)
        .map(|id| format!("{{id: {id}, zone: guests}}"))
        .collect();
    let document = format!(
        "{GUESTS}  - {{interface: \"trunk*\", vlans: [{}]}}\n",
        vlans.join(", ")
    );
    let add = |name: &str| {
        let veth = format!("link add {name} type veth peer name far-{name}");
        router.ip(&veth).unwrap();
        router.ip(&format!("link set {name} up")).unwrap();
    };
    guard.apply(&document);
    add("lan1");
    // Each takes a place for each VLAN, and one for the zone.
    for n in 1..=8 {
        add(&format!("trunk{n}"));
    }
    let most = |guard: &Guard| guarded(guard).len() == 9;
    assert!(
        eventually(PATIENCE, || most(&guard)),
        "{:?}",
        guard.attached()
    );
    add("trunk9");
    let reason = || {
        let status = guard.ctl.json(&["status"]).unwrap();
        let ports = status["ports"].as_array().unwrap().iter();
        let mut ports = ports.filter(|it| it["interface"] == "trunk9");
        ports
            .next()
            .map(|it| (it["reason"].to_string(), it["shut"].to_string()))
    };
    let told = "it needs 4001 places, and 759 of 32768 are left; shut";
    let is_told = || reason().is_some_and(|it| it.0.contains(told) && it.1.contains("dropped"));
    assert!(eventually(PATIENCE, is_told), "{:?}", reason());
    // Others are guarded all the same, before and after, and changes can be made.
    add("lan2");
    guard.wait_until_guarded("lan2");
    assert!(most(&guard) || guarded(&guard).len() == 10);
    guard.apply(&document.replace("10.20.0.0/16", "10.21.0.0/16"));
    assert_eq!(guarded(&guard).len(), 10, "{:?}", guard.attached());
    // When there is room again, it is guarded.
    router.ip("link del trunk1").unwrap();
    guard.wait_until_guarded("trunk9");
    // A document that makes ports for which there is no room is refused.
    add("trunk10");
    assert!(eventually(PATIENCE, || guard
        .attached()
        .get("trunk10")
        .is_some_and(|it| it == "none")));
    add("more1");
    let refused = guard
        .ctl
        .apply(&document.replace("\"trunk*\"", "\"*r*\""))
        .unwrap();
    let told = refused
        .stderr
        .contains("no room for port more1: it needs 4001 places");
    assert!(refused.code == 4 && told, "{refused:?}");
}

/// A figure of a process in `/proc`, in its file `status`.
fn memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    kib.and_then(|kib| kib.parse().ok()).unwrap()
}

fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

#[test]
fn a_flapping_link_costs_neither_memory_nor_others_their_guard() {
    let ward = Ward::new("ports-flap");
    let guard = Guard::start(&ward.lab, "");
    guard.apply(GUESTS);
    let router = ward.lab.router();
    router.ip("link add lan1 type veth peer name far1").unwrap();
    guard.wait_until_guarded("lan1");
    let pid = guard.daemon.pid().unwrap();
    // About 490 events, and 10,000 in 21 rounds. Half are those of a link that is deleted, with an index of its own each time.
    let flap = "link set lan1 up\nlink set lan1 down\n".repeat(125);
    let churn = "link add lan2 type veth peer name far2\nlink del lan2\n".repeat(60);
    let some = [flap, churn].concat();
    ip_batch(&ward.lab, router, &some);
    let mut fds = 0;
    eventually(PATIENCE, || {
        let before = std::mem::replace(&mut fds, descriptors(pid));
        fds == before
    });
    let before = memory(pid);
    let began = Instant::now();
    thread::scope(|scope| {
        let flapping = scope.spawn(|| {
            for _ in 0..rounds(2, 25) {
                ip_batch(&ward.lab, router, &some);
            }
        });
        // Others are guarded meanwhile, and soon.
        router.ip("link add lan3 type veth peer name far3").unwrap();
        let made = Instant::now();
        guard.wait_until_guarded("lan3");
        println!(
            "beside a flapping link, another was guarded after {:?}",
            made.elapsed()
        );
        assert!(made.elapsed() < soon());
        flapping.join().unwrap();
    });
    println!("flapped for {:?}", began.elapsed());
    assert!(
        eventually(PATIENCE, || descriptors(pid) <= fds),
        "{fds} {}",
        descriptors(pid)
    );
    let after = memory(pid);
    let fds_after = descriptors(pid);
    println!("{before} KiB and {fds} descriptors before, {after} KiB and {fds_after} after");
    assert!(after < before + 8 * 1024, "{before} KiB, then {after} KiB");
}

/// A document with so many devices, all of the guests.
fn many(devices: u32) -> String {
    let mut document = format!("{GUESTS}devices:\n");
    for n in 0..devices {
        let [_, a, b, c] = n.to_be_bytes();
        let mac = format!("02:00:01:{a:02x}:{b:02x}:{c:02x}");
        let address = format!("10.20.{b}.{c}");
        let address = if n < 65_000 {
            format!("[{address}]")
        } else {
            "[]".to_owned()
        };
        writeln!(
            document,
            "  - {{name: d{n}, zone: guests, macs: [\"{mac}\"], addresses: {address}}}"
        )
        .unwrap();
    }
    document
}

/// Whether an interface has a program in the driver.
fn has_xdp(router: &Host, interface: &str) -> bool {
    let links = router.ip(&format!("link show {interface}")).unwrap();
    links.contains("prog/xdp")
}

#[test]
fn a_port_that_appears_while_a_document_is_compiled_has_hooks_at_once() {
    let devices = rounds(20_000, 100_000);
    let ward = Ward::new("ports-meanwhile");
    let more = format!("[limits]\ndevices = {}\n", devices + 10);
    let guard = Guard::start(&ward.lab, &more);
    guard.apply(GUESTS);
    let document = many(devices);
    let router = ward.lab.router();
    let (began, over) = (Instant::now(), AtomicBool::new(false));
    let (applied, mut times) = thread::scope(|scope| {
        let _over = wardline_tests::AtTheEnd(&over);
        let applying = scope.spawn(|| {
            guard.apply(&document);
            over.store(true, Ordering::Relaxed);
            began.elapsed()
        });
        let mut times = Vec::new();
        for n in 0.. {
            let name = format!("lan{n}");
            router
                .ip(&format!("link add {name} type veth peer name far{n}"))
                .unwrap();
            let made = Instant::now();
            assert!(eventually(PATIENCE, || has_xdp(router, &name)));
            let hooked = made.elapsed();
            if over.load(Ordering::Relaxed) {
                break;
            }
            times.push(hooked);
            router.ip(&format!("link del {name}")).unwrap();
        }
        (applying.join().unwrap(), times)
    });
    times.sort();
    let most = times.last().copied().expect("a port while it was applied");
    println!(
        "{} ports while {devices} devices were applied in {applied:?}: hooks after {:?} (median), \
         {most:?} (most)",
        times.len(),
        times[times.len() / 2]
    );
    // Without hooks until the end, the longest would be nearly as long as the change.
    assert!(most < applied / 4, "{times:?}, {applied:?}");
}

#[test]
fn a_quarantine_does_not_wait_until_a_document_is_compiled() {
    let devices = rounds(20_000, 100_000);
    let ward = Ward::new("ports-quarantine");
    let more = format!("[limits]\ndevices = {}\n", devices + 10);
    let guard = Guard::start(&ward.lab, &more);
    guard.apply(&many(1));
    let document = many(devices);
    let (began, over) = (Instant::now(), AtomicBool::new(false));
    let (applied, mut times) = thread::scope(|scope| {
        let _over = wardline_tests::AtTheEnd(&over);
        let applying = scope.spawn(|| {
            guard.apply(&document);
            over.store(true, Ordering::Relaxed);
            began.elapsed()
        });
        let mut times = Vec::new();
        while !over.load(Ordering::Relaxed) {
            for arguments in [
                vec!["quarantine", "d0", "--reason", "test"],
                vec!["release", "d0"],
            ] {
                let asked = Instant::now();
                guard.ctl.run(&arguments).unwrap().ok().unwrap();
                times.push(asked.elapsed());
            }
        }
        (applying.join().unwrap(), times)
    });
    times.sort();
    let most = times[times.len() - 1];
    println!(
        "{} quarantines and releases while {devices} devices were applied in {applied:?}: {:?} \
         (median), {most:?} (most)",
        times.len(),
        times[times.len() / 2]
    );
    assert!(most < applied * 3 / 4, "{times:?}, {applied:?}");
}

#[test]
fn a_new_port_is_guarded_soon_beside_many_devices() {
    let devices = rounds(5_000, 100_000);
    let ward = Ward::new("ports-many");
    let more = format!("[limits]\ndevices = {}\n", devices + 10);
    let guard = Guard::start(&ward.lab, &more);
    guard.apply(&many(devices));
    let router = ward.lab.router();
    let mut times = Vec::new();
    for n in 0..rounds(5, 20) {
        // Of status, which takes long with many devices: when the hooks were on is in `attached`.
        let began = Instant::now();
        router
            .ip(&format!("link add lan{n} type veth peer name far{n}"))
            .unwrap();
        assert!(eventually(PATIENCE, || has_xdp(router, &format!("lan{n}"))));
        let hooked = began.elapsed();
        guard.wait_until_guarded(&format!("lan{n}"));
        times.push((hooked, began.elapsed()));
    }
    times.sort();
    let hooked = times[times.len() / 2].0;
    times.sort_by_key(|it| it.1);
    let (median, most) = (times[times.len() / 2].1, times[times.len() - 1].1);
    println!(
        "beside {devices} devices: hooks after {hooked:?} (median), guarded after {median:?} \
         (median), {most:?} (most)"
    );
    assert!(most < soon(), "{times:?}");
}
