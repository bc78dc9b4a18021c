//! What years bring: thousands of ports of one glob, and a daemon that is killed at any moment.

use std::{
    fmt::Write as _,
    fs,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use wardline_tests::{
    eventually,
    ward::{Guard, PATIENCE, Ward, policy, zone},
};

use super::{GUESTS, Passing, denied, guarded, ip_batch, rounds, sent};

#[test]
fn each_of_thousands_of_interfaces_costs_the_same() {
    let (batches, in_batch) = (4, rounds(50, 1000));
    let ward = Ward::new("ports-thousands");
    let guard = Guard::start(&ward.lab, "");
    guard.apply(GUESTS);
    let router = ward.lab.router();
    router.ip("link add trunk type veth peer name far").unwrap();
    let mut times = Vec::new();
    for batch in 0..batches {
        let mut lines = String::new();
        for n in 0..in_batch {
            let n = batch * in_batch + n;
            // Every second one with an index that is no number of its own.
            let index = if n % 2 == 0 { 3000 + n } else { 1_000_000 + n };
            writeln!(
                lines,
                "link add lan{n} link trunk index {index} type macvlan mode bridge"
            )
            .unwrap();
        }
        let began = Instant::now();
        ip_batch(&ward.lab, router, &lines);
        let made = began.elapsed();
        let all = ((batch + 1) * in_batch) as usize;
        assert!(eventually(12 * PATIENCE, || guarded(&guard).len() == all));
        let all_guarded = began.elapsed() - made;
        let asked = Instant::now();
        guard.ctl.json(&["status"]).unwrap();
        let status = asked.elapsed();
        let asked = Instant::now();
        guard.ctl.json(&["interfaces"]).unwrap();
        let interfaces = asked.elapsed();
        println!(
            "{all} interfaces of one glob: the last {in_batch} made in {made:?}, all guarded \
             {all_guarded:?} later; status takes {status:?}, interfaces {interfaces:?}"
        );
        times.push((made + all_guarded, status + interfaces));
    }
    // Four times as many interfaces take four times as long to be looked at, on a machine that others use
    // as well; if each was compared with every other, it would be sixteen times as long.
    let (first, last) = (times[0], times[times.len() - 1]);
    let slack = Duration::from_secs(1);
    let most = batches * 3;
    assert!(last.0 < first.0 * most + slack, "{times:?}");
    assert!(last.1 < first.1 * most + slack, "{times:?}");
}

#[test]
fn a_daemon_that_is_killed_at_any_moment_lets_nothing_denied_through() {
    let kills = rounds(12, 1000);
    let passing = Passing::new("ports-kills");
    let (ward, device, mut guard) = (&passing.ward, &passing.device, passing.guard);
    let router = ward.lab.router();
    let documents = [7, 8].map(|port| policy(&[zone(1, "", "")], &format!("tcp/{port}")));
    let file = guard.daemon.config().with_file_name("next.yaml");
    guard.wait_until_guarded("lan1");
    let began = Instant::now();
    let (over, heard) = (AtomicBool::new(false), ward.far.sniff("eth0").unwrap());
    let mut passed = Vec::new();
    thread::scope(|scope| {
        let _over = wardline_tests::AtTheEnd(&over);
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                device.send_frame("eth0", &denied(began)).unwrap();
                // A pace at which a router with two processors does something else as well.
                thread::sleep(Duration::from_millis(1));
            }
        });
        for kill in 0..kills {
            // Not a wait for anything: the kills fall on all moments of what goes on.
            let moment = Duration::from_millis(u64::from(kill * 37 % 211));
            match kill % 3 {
                0 => {
                    guard.daemon.kill9().unwrap();
                    guard.daemon.begin().unwrap();
                    thread::sleep(2 * moment);
                }
                1 => {
                    let document = &documents[(kill / 3 % 2) as usize];
                    fs::write(&file, document).unwrap();
                    let mut client = Command::new(guard.ctl.binary());
                    client.args(["--server", guard.ctl.server(), "apply", "-f"]);
                    client
                        .arg(&file)
                        .stdout(Stdio::null())
                        .stderr(Stdio::null());
                    let mut client = client.spawn().unwrap();
                    thread::sleep(moment / 4);
                    guard.daemon.kill9().unwrap();
                    client.wait().unwrap();
                    guard.daemon.begin().unwrap();
                }
                _ => {
                    let name = format!("lan{}", 100 + kill);
                    let add = format!("link add {name} type veth peer name far{kill}");
                    router.ip(&add).unwrap();
                    thread::sleep(moment / 4);
                    router.ip(&format!("link del {name}")).unwrap();
                }
            }
            guard.daemon.kill9().unwrap();
            guard.daemon.restart().unwrap();
            let frames = std::iter::from_fn(|| heard.next(Duration::ZERO));
            passed.extend(frames.filter_map(|it| sent(&it)));
            if (kill + 1) % 50 == 0 || kill + 1 == kills {
                let (kills, passed) = (kill + 1, passed.len());
                let took = began.elapsed();
                println!("{kills} kills in {took:?}: {passed} denied packets passed");
            }
        }
        over.store(true, Ordering::Relaxed);
    });
    assert!(passed.is_empty(), "{passed:?}");
    assert!(guard.packets("no_rule") > 0);
}
