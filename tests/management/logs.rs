//! The log: its forms, its level, what a changed configuration does at SIGHUP, and its bound.

use std::{collections::BTreeSet, fs, net::TcpStream, path::Path, process::Command};

use serde_json::Value;
use wardline_tests::{
    eventually,
    ward::{Guard, PATIENCE, Ward, policy, zone},
};

/// The lines of a log in JSON.
fn lines(guard: &Guard) -> Vec<Value> {
    let log = guard.daemon.log();
    let lines = log.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}")))
        .collect()
}

fn says(guard: &Guard, level: &str, message: &str) -> Option<Value> {
    let mut lines = lines(guard).into_iter();
    lines.find(|line| line["level"] == level && line["message"].as_str() == Some(message))
}

#[test]
fn json_lines_and_what_a_changed_file_does_at_a_signal() {
    let ward = Ward::new("log-json");
    let _device = ward.device(1);
    ward.lab.settle().unwrap();
    let guard = Guard::start(&ward.lab, "[log]\nformat = \"json\"\n");
    guard.apply(&policy(&[zone(1, "", "")], "tcp/7"));
    let line = says(&guard, "INFO", "policy in force").unwrap();
    assert_eq!(line["revision"], 1);
    assert_eq!(line["actor"], "uid:0");
    // The page shows such a line.
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operations.md");
    let page = fs::read_to_string(page).unwrap();
    let shown = page
        .lines()
        .find(|line| line.contains("\"message\":\"policy in force\""))
        .unwrap();
    let shown: Value = serde_json::from_str(shown).unwrap();
    let keys = |line: &Value| {
        line.as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect::<BTreeSet<_>>()
    };
    assert_eq!(keys(&shown), keys(&line));

    let file = guard.daemon.config();
    let written = fs::read_to_string(file).unwrap();
    let pid = guard.daemon.pid().unwrap().to_string();
    let change = |text: &str| {
        fs::write(file, text).unwrap();
        assert!(
            Command::new("kill")
                .args(["-HUP", &pid])
                .status()
                .unwrap()
                .success()
        );
    };
    let waits_for = |level: &str, message: &str| {
        let said = eventually(PATIENCE, || says(&guard, level, message).is_some());
        assert!(said, "{message}: {}", guard.daemon.log());
    };
    // Nothing of a file that is broken is used.
    change(&format!(
        "{written}level = \"trace\"\n[limits]\nflows = 1\n"
    ));
    waits_for(
        "ERROR",
        "the configuration can't be used; nothing is changed",
    );
    guard.ctl.json(&["status"]).unwrap();
    assert!(lines(&guard).iter().all(|line| line["level"] != "TRACE"));
    change(&format!(
        "{written}level = \"trace\"\n[limits]\nflows = 128\n"
    ));
    let key = "a changed key of the configuration needs a restart";
    waits_for("WARN", key);
    assert_eq!(says(&guard, "WARN", key).unwrap()["key"], "limits.flows");
    let traces = eventually(PATIENCE, || {
        guard.ctl.json(&["status"]).unwrap();
        lines(&guard).iter().any(|line| line["level"] == "TRACE")
    });
    assert!(traces);
}

#[test]
fn a_client_that_connects_all_the_time_does_not_fill_the_log() {
    let mut ward = super::access::Ward::new("log-flood");
    ward.there(async || {
        for _ in 0..3000 {
            // Garbage is turned away with a line each.
            let mut stream = TcpStream::connect(("127.0.0.1", super::access::PORT)).unwrap();
            let _ = std::io::Write::write_all(&mut stream, b"\x00\xffgarbage\r\n\r\n");
            let _ = std::io::Read::read(&mut stream, &mut [0; 64]);
        }
    });
    let line = "a client was turned away";
    let log = ward.daemon.log();
    let count = log
        .lines()
        .filter(|it| it.contains(line) && it.contains("error="))
        .count();
    assert!((200..400).contains(&count), "{count} lines");
    // The rest is told at the latest when the daemon ends.
    ward.daemon.terminate().unwrap();
    let log = ward.daemon.log();
    let repeated = log
        .lines()
        .find(|it| it.contains("repeated") && it.contains(line));
    assert!(repeated.is_some(), "{log}");
    ward.close();
}
