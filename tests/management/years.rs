//! What years of changes leave behind: history, audit, memory and descriptors stay within bounds, and
//! what is asked for after its time has a clear answer.

use std::{fs, path::PathBuf, process::Command};

use serde_json::{Value, json};
use wardline_tests::{
    Answer, eventually,
    ward::{Guard, PATIENCE, Ward, policy, zone},
};

/// Small numbers, so that a few changes are years.
const FEW: &str = "[audit]\nsegment_bytes = 4096\nkeep_segments = 3\n\
                   [history]\nkeep_revisions = 5\nkeep_days = 0\n";

struct Router {
    guard: Guard,
    documents: [String; 2],
    ward: Ward,
}

impl Router {
    fn new(name: &str, more: &str) -> Self {
        let ward = Ward::new(name);
        let _device = ward.device(1);
        ward.lab.settle().unwrap();
        let guard = Guard::start(&ward.lab, more);
        let documents = ["tcp/7", "tcp/9"].map(|it| policy(&[zone(1, "", "")], it));
        Self {
            guard,
            documents,
            ward,
        }
    }

    /// Applies one of two documents in turns.
    fn change(&self, number: usize) {
        self.guard.apply(&self.documents[number % 2]);
    }

    fn run(&self, arguments: &[&str]) -> Answer {
        self.guard.ctl.run(arguments).unwrap()
    }

    fn state(&self, name: &str) -> PathBuf {
        self.guard
            .daemon
            .config()
            .with_file_name("state")
            .join(name)
    }

    /// The revisions that the history has, oldest first.
    fn kept(&self) -> Vec<u64> {
        let history = self
            .guard
            .ctl
            .json(&["history", "--limit", "1000"])
            .unwrap();
        let revisions = history["revisions"].as_array().unwrap();
        let numbers = revisions.iter().map(|it| it["revision"].as_u64().unwrap());
        numbers.rev().collect()
    }

    fn waits_for_kept(&self, expected: &[u64]) {
        let kept = eventually(PATIENCE * 2, || self.kept() == expected);
        assert!(kept, "{:?}, not {expected:?}", self.kept());
    }

    /// The segments that do not grow any more, oldest first.
    fn segments(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.state("")).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        let mut segments: Vec<_> = paths
            .filter(|path| {
                let name = path.file_name().unwrap().to_string_lossy();
                name.starts_with("audit-")
            })
            .collect();
        segments.sort();
        segments
    }

    /// What `audit --verify` says of an audit that nobody touched.
    fn verified(&self) -> Value {
        self.guard.ctl.json(&["audit", "--verify"]).unwrap()
    }

    fn tampered(&self) -> String {
        let answer = self.run(&["audit", "--verify"]);
        assert_eq!(answer.code, 4, "{answer:?}");
        answer.stderr
    }
}

#[test]
fn old_revisions_go_and_what_something_returns_to_stays() {
    let router = Router::new("retention", FEW);
    for number in 0..20 {
        router.change(number);
    }
    router.waits_for_kept(&[16, 17, 18, 19, 20]);
    for old in ["get", "diff", "rollback"] {
        let answer = router.run(&[old, "12"]);
        assert_eq!(answer.code, 4, "{answer:?}");
        assert_eq!(
            answer.stderr,
            "error: revision 12 is no longer kept (kept: 16 to 20)\n"
        );
    }
    assert!(router.run(&["get", "99"]).stderr.contains("no revision 99"));
    // Quarantines leave the document alone: what was in force before them stays, however old.
    for _ in 0..6 {
        let cut = ["quarantine", "device-1", "--reason", "odd"];
        router.run(&cut).ok().unwrap();
        router.run(&["release", "device-1"]).ok().unwrap();
    }
    router.waits_for_kept(&[19, 28, 29, 30, 31, 32]);
    router.run(&["rollback"]).ok().unwrap();
    let current = router.guard.ctl.json(&["get"]).unwrap();
    assert_eq!(current["rules"][0]["services"], json!(["tcp/7"]));
    // The same after a restart, also what a change returns to that waits.
    let mut router = router;
    router.guard.daemon.restart().unwrap();
    let file = router.ward.lab.dir().join("pending.yaml");
    fs::write(&file, &router.documents[1]).unwrap();
    let pending = [
        "apply",
        "-f",
        file.to_str().unwrap(),
        "--confirm-within",
        "30s",
    ];
    router.run(&pending).ok().unwrap();
    for _ in 0..4 {
        let cut = ["quarantine", "device-1", "--reason", "odd"];
        router.run(&cut).ok().unwrap();
        router.run(&["release", "device-1"]).ok().unwrap();
    }
    router.waits_for_kept(&[32, 33, 38, 39, 40, 41, 42]);
    let returned = eventually(PATIENCE * 4, || {
        let current = router.guard.ctl.json(&["get"]);
        // Who asks all the time is told to wait.
        current.is_ok_and(|it| it["rules"][0]["services"] == json!(["tcp/7"]))
    });
    assert!(returned, "the change is taken back");
}

#[test]
fn the_audit_goes_on_over_segments_and_each_tampering_is_told() {
    let mut router = Router::new("segments", FEW);
    let mut number = 0;
    while router.segments().len() < 2 || router.verified()["begins_after"].is_null() {
        router.change(number);
        number += 1;
        assert!(number < 200);
    }
    let verified = router.verified();
    assert_eq!(verified["segments"], 3);
    let told = router.run(&["audit", "--verify"]).ok().unwrap();
    assert!(told.contains("in 3 segments, nothing missing"), "{told}");
    assert!(
        told.contains("older ones were removed by retention"),
        "{told}"
    );
    assert!(
        router
            .run(&["audit"])
            .ok()
            .unwrap()
            .contains("begins a segment")
    );
    // The files themselves verify as well, without the router.
    let [older, newer] = &router.segments()[..] else {
        panic!("two segments");
    };
    let mut files = vec!["audit", "--verify"];
    let current = router.state("audit.jsonl");
    for path in [older, newer, &current] {
        files.extend(["--file", path.to_str().unwrap()]);
    }
    router.run(&files).ok().unwrap();

    // Words that were changed in an old segment, and the segment gone.
    let text = fs::read_to_string(older).unwrap();
    fs::write(older, text.replacen("uid:0", "uid:7", 1)).unwrap();
    assert!(router.tampered().contains("was changed"));
    fs::remove_file(older).unwrap();
    assert!(router.tampered().contains("are missing"));
    fs::write(older, &text).unwrap();
    router.verified();
    let text = fs::read_to_string(newer).unwrap();
    fs::remove_file(newer).unwrap();
    assert!(router.tampered().contains("are missing"));
    router.guard.daemon.restart().unwrap();
    let log = router.guard.daemon.log();
    assert!(log.contains("the audit was tampered with"), "{log}");
    fs::write(newer, text).unwrap();

    // What logrotate does to a file of another program: it is moved away, or emptied.
    router.change(number);
    router.verified();
    let aside = current.with_extension("jsonl.1");
    fs::rename(&current, &aside).unwrap();
    router.change(number + 1);
    assert!(router.tampered().contains("missing"));
    let log = router.guard.daemon.log();
    assert!(log.contains("its file was replaced"), "{log}");
    fs::write(&current, "").unwrap();
    router.change(number + 2);
    assert!(router.tampered().contains("missing"));
    assert!(router.guard.daemon.log().contains("its file was changed"));
}

#[test]
fn a_crash_at_each_step_of_a_segment_keeps_the_chain_whole() {
    let mut router = Router::new("rotation", FEW);
    for (round, point) in [
        "audit-closed",
        "audit-empty",
        "audit-begun",
        "audit-removed",
    ]
    .into_iter()
    .enumerate()
    {
        router
            .guard
            .daemon
            .set_environment("WARDLINE_FAULT", Some(point));
        router.guard.daemon.restart().unwrap();
        let file = router.ward.lab.dir().join("next.yaml");
        let mut crashed = false;
        for number in 0..100 {
            fs::write(&file, &router.documents[number % 2]).unwrap();
            let change = ["apply", "-f", file.to_str().unwrap(), "--reason", point];
            if router.run(&change).code == 1 {
                crashed = true;
                break;
            }
        }
        assert!(crashed, "{point}");
        router.guard.daemon.await_death().unwrap();
        router.guard.daemon.set_environment("WARDLINE_FAULT", None);
        router.guard.daemon.restart().unwrap();
        let verified = router.verified();
        assert_eq!(
            verified["begins_after"].is_null(),
            round < 2,
            "{point}: {verified}"
        );
        // Every revision has its record: the one whose client heard nothing, too.
        let revision = router.guard.ctl.json(&["status"]).unwrap()["revision"].clone();
        let records = router.run(&["-o", "json", "audit"]).ok().unwrap();
        let newest = records.lines().rev().find_map(|line| {
            let record: Value = serde_json::from_str(line).unwrap();
            record["after"].as_u64()
        });
        assert_eq!(newest, revision.as_u64(), "{point}");
        assert!(router.segments().len() < 3, "{point}");
    }
}

#[test]
fn a_reason_that_is_too_long_is_refused_in_every_call() {
    let router = Router::new("reasons", "");
    router.change(0);
    let longest = "ä".repeat(512);
    let longer = format!("{longest}x");
    let file = router.ward.lab.dir().join("next.yaml");
    fs::write(&file, &router.documents[1]).unwrap();
    let file = file.to_str().unwrap();
    let calls: [&[&str]; 8] = [
        &["apply", "-f", file],
        &["put", "-f", file],
        &["delete", "rule/needed"],
        &["rollback"],
        &["quarantine", "device-1"],
        &["release", "device-1"],
        &[
            "grant",
            "--from",
            "any",
            "--to",
            "device:device-1",
            "--service",
            "tcp/22",
            "--for",
            "1h",
        ],
        &["revoke", "needed"],
    ];
    for call in calls {
        let answer = router.run(&[call, &["--reason", &longer]].concat());
        assert_eq!(answer.code, 4, "{call:?}: {answer:?}");
        assert_eq!(
            answer.stderr, "reason: has 1025 bytes; at most 1024\n",
            "{call:?}"
        );
    }
    assert_eq!(router.kept(), [1]);
    let cut = ["quarantine", "device-1", "--reason", &longest];
    router.run(&cut).ok().unwrap();
}

/// What a process uses.
#[derive(Debug)]
struct Use {
    memory: u64,
    descriptors: usize,
    disk: u64,
}

impl Router {
    fn uses(&self) -> Use {
        let process = PathBuf::from(format!("/proc/{}", self.guard.daemon.pid().unwrap()));
        let status = fs::read_to_string(process.join("status")).unwrap();
        let memory = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .unwrap();
        let disk = Command::new("du")
            .arg("-sk")
            .arg(self.state(""))
            .output()
            .unwrap()
            .stdout;
        let number = |text: &str| {
            text.split_whitespace()
                .next()
                .unwrap()
                .parse::<u64>()
                .unwrap()
        };
        Use {
            memory: number(memory),
            descriptors: fs::read_dir(process.join("fd")).unwrap().count(),
            disk: number(&String::from_utf8(disk).unwrap()),
        }
    }
}

/// Each change puts a device or takes it away, with reads in between. `WARDLINE_CHANGES=10000 cargo
/// xtask test years_of_changes` is the long form.
#[test]
fn years_of_changes_use_no_more_than_the_first() {
    let count = std::env::var("WARDLINE_CHANGES").map_or(300, |it| it.parse().unwrap());
    let router = Router::new("years", FEW);
    router.change(0);
    let file = router.ward.lab.dir().join("device.yaml");
    let mut half = None;
    // Who calls all the time is told to wait.
    let run = |arguments: &[&str]| {
        let mut answer = router.run(arguments);
        eventually(PATIENCE, || {
            let waits = answer.stderr.contains("calls too fast");
            if waits {
                answer = router.run(arguments);
            }
            !waits
        });
        answer.ok().unwrap();
    };
    for number in 0..count {
        let address = number % 200 + 20;
        let device =
            format!("devices: [{{name: d, zone: zone-1, addresses: [10.20.1.{address}]}}]\n");
        fs::write(&file, device).unwrap();
        run(&["put", "-f", file.to_str().unwrap()]);
        if number % 10 == 0 {
            run(&["history"]);
            run(&["audit", "--verify"]);
        }
        if number == count / 2 {
            half = Some(router.uses());
        }
    }
    let (half, end) = (half.unwrap(), router.uses());
    println!(
        "after {} changes {half:?}, after {count} {end:?} (KiB)",
        count / 2
    );
    assert!(
        end.memory < half.memory + half.memory / 10 + 2048,
        "{half:?} {end:?}"
    );
    assert!(end.descriptors <= half.descriptors + 4, "{half:?} {end:?}");
    assert!(
        end.disk < half.disk + half.disk / 10 + 1024,
        "{half:?} {end:?}"
    );
}
