//! Commit-confirm: a change that cuts the operator off is reverted by itself.

use std::{
    io,
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use wardline_tests::{
    Answer, Ctl, Host, Outcome, TIMEOUT, eventually,
    ward::{Guard, PATIENCE, Ward, zone},
};

const ROUTER: &str = "10.20.1.1";
const API: u16 = 7443;

/// A document with device 1, where the operator is, and these rules.
fn document(rules: &str) -> String {
    let [zones, ports, devices] = zone(1, "", "");
    format!("version: 1\nzones:\n{zones}ports:\n{ports}devices:\n{devices}rules:\n{rules}")
}

fn reachable() -> String {
    document(&format!(
        "  - {{name: operator, from: [device:device-1], to: [router], services: [tcp/{API}], \
         action: allow}}\n"
    ))
}

/// The same policy without the rule that the operator's own connection depends on.
fn cut_off() -> String {
    document(
        "  - {name: other, from: [device:device-1], to: [router], services: [tcp/1], action: allow}\n",
    )
}

/// The API over the network: connections to a socket on the operator's side go to the router's
/// port, through the guarded link, and from there to the daemon's socket.
fn bridge(ward: &Ward, operator: &Host, daemon: &Path) -> PathBuf {
    let listener = ward
        .lab
        .router()
        .run(|| TcpListener::bind((ROUTER, API)))
        .unwrap()
        .unwrap();
    let socket = daemon.to_owned();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            if let Ok(daemon) = UnixStream::connect(&socket) {
                join(stream, daemon);
            }
        }
    });
    let path = ward.lab.dir().join("operator.sock");
    let local = UnixListener::bind(&path).unwrap();
    let operator = operator.clone();
    thread::spawn(move || {
        for stream in local.incoming().map_while(Result::ok) {
            let address: SocketAddr = format!("{ROUTER}:{API}").parse().unwrap();
            let connect = || TcpStream::connect_timeout(&address, TIMEOUT);
            if let Ok(Ok(router)) = operator.run(connect) {
                join(router, stream);
            }
        }
    });
    path
}

/// Copies both ways until either side ends.
fn join(network: TcpStream, local: UnixStream) {
    let (mut from_network, mut to_network) = (network.try_clone().unwrap(), network);
    let (mut from_local, mut to_local) = (local.try_clone().unwrap(), local);
    thread::spawn(move || {
        let _ = io::copy(&mut from_network, &mut to_local);
        let _ = to_local.shutdown(Shutdown::Both);
    });
    thread::spawn(move || {
        let _ = io::copy(&mut from_local, &mut to_network);
        let _ = to_network.shutdown(Shutdown::Both);
    });
}

/// The client as the operator runs it, over the network.
fn remotely(ctl: &Ctl, socket: &Path, arguments: &[&str]) -> std::process::Output {
    let server = format!("unix://{}", socket.display());
    Command::new(ctl.binary())
        .args(["--server", &server, "--timeout", "2s"])
        .args(arguments)
        .output()
        .unwrap()
}

fn apply(ward: &Ward, ctl: &Ctl, document: &str, within: &str) -> Answer {
    let file = ward.lab.dir().join("pending.yaml");
    std::fs::write(&file, document).unwrap();
    let file = file.to_str().unwrap();
    ctl.run(&[
        "-o",
        "json",
        "apply",
        "-f",
        file,
        "--confirm-within",
        within,
    ])
    .unwrap()
}

fn revision(ctl: &Ctl) -> u64 {
    ctl.json(&["status"]).unwrap()["revision"].as_u64().unwrap()
}

fn newest(ctl: &Ctl) -> Value {
    ctl.json(&["history"]).unwrap()["revisions"][0].clone()
}

#[test]
fn what_cuts_the_operator_off_is_taken_back() {
    let ward = Ward::new("confirm");
    let operator = ward.device(1);
    ward.lab.settle().unwrap();
    let guard = Guard::start(&ward.lab, "");
    guard.apply(&reachable());
    let socket = bridge(&ward, &operator, guard.daemon.socket());
    let asks = |arguments: &[&str]| remotely(&guard.ctl, &socket, arguments);
    assert!(asks(&["status"]).status.success());

    // The answer to the apply that cuts the link may be lost with it: its effect is checked here.
    let file = ward.lab.dir().join("cut-off.yaml");
    std::fs::write(&file, cut_off()).unwrap();
    let started = Instant::now();
    let _ = asks(&[
        "apply",
        "-f",
        file.to_str().unwrap(),
        "--confirm-within",
        "6s",
    ]);
    let status = guard.ctl.json(&["status"]).unwrap();
    assert_eq!(
        (&status["revision"], &status["pending"]["revision"]),
        (&2.into(), &2.into())
    );
    assert!(
        !asks(&["confirm", "2"]).status.success(),
        "the link is not lost"
    );

    // Only quarantine and release are accepted meanwhile.
    for refused in [
        &["rollback"][..],
        &["delete", "rule/other"],
        &["apply", "-f", file.to_str().unwrap()],
    ] {
        let answer = guard.ctl.run(refused).unwrap();
        assert_eq!(answer.code, 4, "{answer:?}");
        assert!(answer.stderr.contains("revision 2 waits"), "{answer:?}");
    }
    guard
        .ctl
        .run(&["quarantine", "device-1", "--reason", "x"])
        .unwrap()
        .ok()
        .unwrap();
    guard
        .ctl
        .run(&["release", "device-1"])
        .unwrap()
        .ok()
        .unwrap();

    assert!(
        eventually(PATIENCE, || asks(&["status"]).status.success()),
        "the link does not return"
    );
    assert!(started.elapsed() >= Duration::from_secs(6));
    let newest = newest(&guard.ctl);
    assert_eq!(
        (&newest["revision"], &newest["kind"]),
        (&5.into(), &"revert".into())
    );
    assert_eq!(newest["reason"], "revision 2 was not confirmed in time");
    assert_eq!(newest["actor"], "wardlined");
    guard.told(&[
        ("verdict", "none"),
        ("message", "revision 2 was not confirmed in time: what revision 1 says is in force again, as revision 5"),
    ]);
    let answer = guard.ctl.run(&["confirm", "2"]).unwrap();
    assert_eq!(answer.code, 4, "{answer:?}");

    // A change that leaves the link alone is kept, once it is confirmed by its revision.
    let answer = apply(
        &ward,
        &guard.ctl,
        &format!(
            "{}  - {{name: more, from: [any], to: [any], services: [tcp/2], action: deny}}\n",
            reachable()
        ),
        "3s",
    );
    let answer: Value = serde_json::from_str(&answer.ok().unwrap()).unwrap();
    assert!(answer["confirm_by"].is_string());
    let wrong = asks(&["confirm", "5"]);
    assert_eq!(wrong.status.code(), Some(4), "{wrong:?}");
    assert!(asks(&["confirm", "6"]).status.success());
    assert_eq!(guard.ctl.json(&["status"]).unwrap()["pending"], Value::Null);
    let over = Instant::now() + Duration::from_secs(4);
    while Instant::now() < over {
        assert_eq!(revision(&guard.ctl), 6);
        thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn the_deadline_outlives_the_daemon_and_the_machine() {
    let ward = Ward::new("deadline");
    let operator = ward.device(1);
    ward.lab.settle().unwrap();
    let mut guard = Guard::start(&ward.lab, "");
    guard.apply(&reachable());
    let listener = ward.lab.router().tcp_serve(API).unwrap();
    let connects = || operator.tcp_connect(ROUTER, API, TIMEOUT) == Outcome::Connected;
    assert!(connects());

    // Killed, and restarted before the deadline: the daemon waits on, and then reverts.
    apply(&ward, &guard.ctl, &cut_off(), "8s").ok().unwrap();
    guard.daemon.kill9().unwrap();
    assert!(!connects(), "a dead daemon changes no verdict");
    guard.daemon.restart().unwrap();
    let pending = guard.ctl.json(&["status"]).unwrap()["pending"]["revision"].clone();
    assert!(
        pending == 2 || newest(&guard.ctl)["kind"] == "revert",
        "{pending}"
    );
    assert!(eventually(PATIENCE, connects), "the link does not return");
    assert_eq!(revision(&guard.ctl), 3);

    // Killed, and restarted after the deadline with nothing left in the kernel, as after a reboot:
    // the previous policy is in force from the first packet on.
    apply(&ward, &guard.ctl, &cut_off(), "1s").ok().unwrap();
    guard.daemon.kill9().unwrap();
    guard.daemon.detach().unwrap();
    let over = Instant::now() + Duration::from_millis(1100);
    assert!(eventually(PATIENCE, || Instant::now() > over));
    guard.daemon.restart().unwrap();
    assert_eq!(revision(&guard.ctl), 5);
    assert_eq!(newest(&guard.ctl)["kind"], "revert");
    assert!(connects());
    drop(listener);
}

#[test]
fn a_first_policy_that_is_not_confirmed_leaves_nothing() {
    let ward = Ward::new("first");
    let operator = ward.device(1);
    ward.lab.settle().unwrap();
    let guard = Guard::start(&ward.lab, "");
    let _listener = ward.lab.router().tcp_serve(API).unwrap();
    let connects = || operator.tcp_connect(ROUTER, API, TIMEOUT) == Outcome::Connected;
    apply(&ward, &guard.ctl, &cut_off(), "2s").ok().unwrap();
    assert!(!connects());
    assert!(eventually(PATIENCE, connects));
    let status = guard.ctl.json(&["status"]).unwrap();
    assert_eq!(
        (&status["pending"], &status["ports"]),
        (&Value::Null, &Value::Array(vec![]))
    );
    // And then a policy can be applied.
    guard.apply(&reachable());
    assert!(connects());
}
