//! Quarantine: a device that is cut off reaches nothing, at once and until it is released.

use wardline_tests::{
    Host, Outcome, TIMEOUT, eventually,
    ward::{FAR, Guard, PATIENCE, Ward, policy, v4, v6, zone},
};

#[test]
fn a_quarantine_that_the_kernel_refuses_is_not_kept() {
    let ward = Ward::new("refused");
    let (one, two) = (ward.device(1), ward.device(2));
    ward.lab.settle().unwrap();
    let _two = two.tcp_serve(7).unwrap();
    let mut guard = Guard::start(&ward.lab, "");
    guard.apply(
        &(policy(&[zone(1, "", ""), zone(2, "", "")], "tcp/7")
            + "  - {name: peers, from: [any], to: [any], services: [tcp/7], action: allow}\n"),
    );
    guard
        .daemon
        .set_environment("WARDLINE_REFUSE", Some("amend"));
    guard.daemon.kill9().unwrap();
    guard.daemon.restart().unwrap();
    let opens = || one.tcp_connect(&v4(2), 7, TIMEOUT) == Outcome::Connected;
    let quarantined =
        |guard: &Guard| guard.ctl.json(&["devices"]).unwrap()["devices"][0]["quarantined"].clone();
    let quarantine = ["quarantine", "device-1", "--reason", "odd"];

    let refused = guard.ctl.run(&quarantine).unwrap();
    assert!(
        refused.code == 1 && refused.stderr.contains("table DEVICES"),
        "{refused:?}"
    );
    // It is recorded only after the kernel has taken it, so there is nothing of it.
    assert!(opens() && quarantined(&guard) == false);
    let history = guard.ctl.json(&["history"]).unwrap();
    assert_eq!(history["revisions"][0]["kind"], "apply", "{history:#}");
    guard.daemon.set_environment("WARDLINE_REFUSE", None);
    guard.daemon.kill9().unwrap();
    guard.daemon.restart().unwrap();
    assert!(opens() && quarantined(&guard) == false);

    guard.ctl.run(&quarantine).unwrap().ok().unwrap();
    assert!(!opens() && quarantined(&guard) == true);
}

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
    // Both families, and both directions.
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

    // It outlives another policy, a rollback, a crash, and a reboot.
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

#[test]
fn what_is_kept_goes_on_in_quarantine() {
    let ward = Ward::new("kept");
    let (one, two) = (ward.device(1), ward.device(2));
    ward.lab.settle().unwrap();
    let _far = [7, 8].map(|port| ward.far.tcp_serve(port).unwrap());
    let _one = [7, 8].map(|port| one.tcp_serve(port).unwrap());
    let _two = two.tcp_serve(8).unwrap();
    let mut guard = Guard::start(&ward.lab, "");
    let zones = [zone(1, "", ""), zone(2, "", "")];
    let kept = "  - {name: mends, from: [any], to: [any], services: [tcp/8], action: allow, \
                keep_in_quarantine: true}\n";
    let document = policy(&zones, "tcp/7") + kept;
    guard.apply(&document);
    let opens = |from: &Host, to: &str, port: u16| {
        from.tcp_connect(to, port, TIMEOUT) == Outcome::Connected
    };
    let mut mends = one.session(FAR[0], 8).unwrap();
    let mut other = one.session(FAR[0], 7).unwrap();
    assert!(mends.echo(b"x") && other.echo(b"x"));

    let quarantine = |device: &str| {
        let arguments = ["quarantine", device, "--reason", "odd"];
        guard.ctl.json(&arguments).unwrap()
    };
    let warning = "rule mends holds in quarantine, too";
    assert_eq!(quarantine("device-1")["warnings"][0], warning);
    // The flow of the kept rule goes on, the other is cut.
    assert!(mends.echo(b"x") && !other.echo(b"x"));
    let reach = || {
        [
            opens(&one, FAR[0], 8),
            opens(&one, FAR[1], 8),
            opens(&ward.far, &v4(1), 8),
            opens(&two, &v4(1), 8),
            opens(&one, FAR[0], 7),
            opens(&two, &v4(1), 7),
        ]
    };
    let only_kept = [true, true, true, true, false, false];
    assert_eq!(reach(), only_kept);

    // Two devices in quarantine never reach each other, and deny rules still deny.
    quarantine("device-2");
    assert!(!opens(&two, &v4(1), 8) && !opens(&one, &v4(2), 8) && opens(&two, FAR[0], 8));
    let denies = "  - {name: no, from: [device:device-1], to: [any], services: [tcp/8], \
                  action: deny}\n";
    guard.apply(&(document.clone() + denies));
    assert!(!opens(&one, FAR[0], 8) && opens(&two, FAR[0], 8) && !mends.echo(b"x"));
    guard.told(&[("device", "device-1"), ("reason", "quarantined")]);

    // When a rule is no longer kept, its flows in quarantine are cut.
    guard.apply(&document);
    let mut mends = two.session(FAR[0], 8).unwrap();
    guard.apply(&document.replace(", keep_in_quarantine: true", ""));
    assert!(!mends.echo(b"x") && !opens(&two, FAR[0], 8));
    // A grant may be kept as well, also while no daemon runs.
    let far = format!("cidr:{}/32", FAR[0]);
    let grant = "grant --from device:device-2 --service tcp/7 --for 1h --reason mend";
    let mut grant: Vec<&str> = grant.split(' ').collect();
    grant.extend(["--to", &far, "--keep-in-quarantine"]);
    guard.ctl.run(&grant).unwrap().ok().unwrap();
    guard.daemon.kill9().unwrap();
    assert!(opens(&two, FAR[0], 7) && !opens(&one, FAR[0], 7));
}
