//! Quarantine, live: a device that is cut off reaches nothing, at once and for as long as it is.

use wardline_tests::{Host, Outcome, TIMEOUT, eventually};

use crate::live::{FAR, Guard, PATIENCE, Ward, policy, v4, v6, zone};

#[test]
fn a_device_is_cut_off_at_once_until_it_is_released() {
    let ward = Ward::new("quarantine");
    let (one, two) = (ward.device(1), ward.device(2));
    ward.lab.settle().unwrap();
    let _far = ward.far.tcp_serve(7).unwrap();
    let (_one, _two) = (one.tcp_serve(7).unwrap(), two.tcp_serve(7).unwrap());
    let mut guard = Guard::start(&ward.lab, "");
    let zones = [zone(1, "", ""), zone(2, "", "")];
    let document = policy(&zones, "tcp/7")
        + "  - {name: peers, from: [any], to: [any], services: [tcp/7], action: allow}\n";
    guard.apply(&document);
    let opens = |from: &Host, to: &str| from.tcp_connect(to, 7, TIMEOUT) == Outcome::Connected;
    // Neither family is forgotten, nor either direction.
    let reach = || {
        [
            opens(&one, FAR[0]),
            opens(&one, FAR[1]),
            opens(&one, &v4(2)),
            opens(&two, &v4(1)),
            opens(&two, &v6(1)),
            opens(&ward.far, &v4(1)),
            opens(&two, FAR[0]),
        ]
    };
    assert_eq!(reach(), [true; 7]);
    let mut out = one.session(FAR[0], 7).unwrap();
    let mut inward = two.session(&v6(1), 7).unwrap();
    let mut other = two.session(FAR[0], 7).unwrap();
    assert!(out.echo(b"x") && inward.echo(b"x") && other.echo(b"x"));

    let answer = guard
        .ctl
        .json(&["quarantine", "device-1", "--reason", "odd"])
        .unwrap();
    assert_eq!(answer["revision"], 2);
    // Live flows are cut with the answer; those of others are not touched.
    assert!(!out.echo(b"x") && !inward.echo(b"x") && other.echo(b"x"));
    let cut_off = [false, false, false, false, false, false, true];
    assert_eq!(reach(), cut_off);
    guard.told(&[
        ("device", "device-1"),
        ("reason", "quarantined"),
        ("verdict", "drop"),
    ]);
    let devices = guard.ctl.json(&["devices"]).unwrap();
    assert_eq!(devices["devices"][0]["quarantined"], true);
    assert_eq!(devices["devices"][1]["quarantined"], false);
    let explained = guard.ctl.run(&[
        "explain",
        "--from",
        "device:device-1",
        "--to",
        FAR[0],
        "tcp/7",
    ]);
    let explained = explained.unwrap();
    assert!(
        explained.code == 3 && explained.stdout.contains("quarantined"),
        "{explained:?}"
    );
    assert_eq!(
        guard.ctl.json(&["status"]).unwrap()["quarantined"][0],
        "device-1"
    );

    // Peers in quarantine can't reach each other.
    guard
        .ctl
        .run(&["quarantine", "device-2", "--reason", "odd"])
        .unwrap()
        .ok()
        .unwrap();
    assert!(!opens(&one, &v4(2)) && !opens(&two, &v4(1)) && !other.echo(b"x"));
    guard
        .ctl
        .run(&["release", "device-2"])
        .unwrap()
        .ok()
        .unwrap();

    // It outlives another policy, a rollback, a crash and what a reboot takes.
    guard.apply(&document.replace("peers", "peers-2"));
    assert_eq!(reach(), cut_off);
    guard.ctl.run(&["rollback"]).unwrap().ok().unwrap();
    assert_eq!(reach(), cut_off);
    guard.daemon.kill9().unwrap();
    assert_eq!(reach(), cut_off);
    guard.daemon.restart().unwrap();
    assert_eq!(reach(), cut_off);
    guard.daemon.terminate().unwrap();
    guard.daemon.detach().unwrap();
    guard.daemon.restart().unwrap();
    assert_eq!(reach(), cut_off);

    for (arguments, line) in [
        (
            vec!["quarantine", "nobody", "--reason", "x"],
            "device/nobody: is not there",
        ),
        (vec!["release", "nobody"], "device/nobody: is not there"),
        (vec!["release", "device-2"], "not in quarantine"),
    ] {
        let answer = guard.ctl.run(&arguments).unwrap();
        assert_eq!(answer.code, 4, "{answer:?}");
        assert!(answer.stderr.contains(line), "{answer:?}");
    }
    guard
        .ctl
        .run(&["release", "device-1", "--reason", "fixed"])
        .unwrap()
        .ok()
        .unwrap();
    assert!(
        eventually(PATIENCE, || reach() == [true; 7]),
        "{:?}",
        reach()
    );
    let history = guard.ctl.json(&["history"]).unwrap();
    assert_eq!(
        (
            &history["revisions"][0]["kind"],
            &history["revisions"][0]["reason"]
        ),
        (&"release".into(), &"fixed".into())
    );
}
