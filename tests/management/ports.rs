//! Quarantine of a port: whoever is behind it is cut off, whatever MAC they use.

use wardline_tests::{
    End, Host, Outcome, TIMEOUT, eventually,
    ward::{FAR, Guard, PATIENCE, Ward, mac, policy, v4, v6, zone},
};

/// A MAC and an address that no device has.
const OTHER_MAC: &str = "02:00:00:00:99:99";
const OTHER: &str = "10.20.1.77";

fn opens(from: &Host, to: &str, port: u16) -> bool {
    from.tcp_connect(to, port, TIMEOUT) == Outcome::Connected
}

/// A guest on `lan1`, whose zone admits any MAC, a device on `lan2`, and what they may do.
fn document(attach: &str, mode: &str) -> String {
    let attach = format!(", attach: {attach}");
    let zones = [
        zone(1, &format!(", admit: any{mode}"), &attach),
        zone(2, "", &attach),
    ];
    policy(&zones, "tcp/7")
        + "  - {name: peers, from: [any], to: [any], services: [tcp/7], action: allow}\n  \
           - {name: mends, from: [any], to: [any], services: [tcp/8], action: allow, \
           keep_in_quarantine: true}\n"
}

/// Gives the host on `lan1` another MAC and another address.
fn disguises(host: &Host, mac: &str, address: &str) {
    for command in [
        "link set eth0 down".to_owned(),
        "address flush dev eth0".to_owned(),
        format!("link set eth0 address {mac}"),
        "link set eth0 up".to_owned(),
        format!("address add {address}/24 dev eth0"),
        "route add default via 10.20.1.1".to_owned(),
    ] {
        host.ip(&command).unwrap();
    }
}

#[test]
fn who_is_behind_a_port_in_quarantine_is_cut_off_with_any_mac() {
    for hook in ["xdp", "tc"] {
        let ward = Ward::new("port-quarantine");
        let (one, two) = (ward.device(1), ward.device(2));
        ward.lab.settle().unwrap();
        let _far = [7, 8].map(|port| ward.far.tcp_serve(port).unwrap());
        let _one = [7, 8].map(|port| one.tcp_serve(port).unwrap());
        let _two = [7, 8].map(|port| two.tcp_serve(port).unwrap());
        let mut guard = Guard::start(&ward.lab, "");
        guard.apply(&document(hook, ""));
        // Both families, and both directions.
        let reach = |port: u16| {
            [
                opens(&one, FAR[0], port),
                opens(&one, FAR[1], port),
                opens(&one, &v4(2), port),
                opens(&two, &v4(1), port),
                opens(&two, &v6(1), port),
                opens(&ward.far, &v4(1), port),
                opens(&two, FAR[0], port),
            ]
        };
        const CUT_OFF: [bool; 7] = [false, false, false, false, false, false, true];
        assert_eq!(reach(7), [true; 7], "{hook}");
        let mut out = one.session(FAR[0], 7).unwrap();
        let mut inward = two.session(&v6(1), 7).unwrap();
        let mut kept = two.session(&v4(1), 8).unwrap();
        let mut other = two.session(FAR[0], 7).unwrap();

        let answer = guard
            .ctl
            .json(&["quarantine", "--port", "lan1", "--reason", "odd"]);
        let answer = answer.unwrap();
        assert_eq!(answer["revision"], 2);
        assert_eq!(answer["warnings"][0], "rule mends holds in quarantine, too");
        // Live flows are cut with the answer; those of others and of kept rules are not.
        assert!(!out.echo(b"x") && !inward.echo(b"x"), "{hook}");
        assert!(other.echo(b"x") && kept.echo(b"x"), "{hook}");
        assert_eq!(reach(7), CUT_OFF, "{hook}");
        assert_eq!(reach(8), [true; 7], "{hook}: kept");
        guard.told(&[
            ("interface", "lan1"),
            ("reason", "quarantined"),
            ("verdict", "drop"),
        ]);
        let status = guard.ctl.json(&["status"]).unwrap();
        assert_eq!(status["quarantined_ports"][0], "lan1");
        let ports = [0, 1].map(|at| status["ports"][at]["quarantined"].clone());
        assert_eq!(ports, [true, false]);
        let shown = guard.ctl.run(&["status"]).unwrap().stdout;
        let told = shown
            .lines()
            .find(|it| it.starts_with("cut off   port lan1, "));
        assert!(
            told.is_some_and(|it| it.ends_with(" by uid:0: odd")),
            "{shown}"
        );
        let asked = [
            "explain",
            "--from",
            "device:device-1",
            "--to",
            FAR[0],
            "tcp/7",
        ];
        let explained = guard.ctl.run(&asked).unwrap();
        assert!(
            explained.code == 3 && explained.stdout.contains("quarantined"),
            "{explained:?}"
        );

        // A guest has nothing at all, in mode observe neither.
        disguises(&one, OTHER_MAC, OTHER);
        let guest = || {
            [
                opens(&one, FAR[0], 7),
                opens(&one, FAR[0], 8),
                opens(&two, OTHER, 8),
            ]
        };
        assert_eq!(guest(), [false; 3], "{hook}");
        guard.apply(&document(hook, ", mode: observe"));
        assert_eq!(guest(), [false; 3], "{hook}: observed");
        guard.ctl.run(&["rollback"]).unwrap().ok().unwrap();
        assert_eq!(guest(), [false; 3], "{hook}: rolled back");
        disguises(&one, &mac(1), &v4(1));
        one.ip(&format!("address add {}/64 dev eth0 nodad", v6(1)))
            .unwrap();
        one.ip("route add default via fd20:0:0:1::1").unwrap();

        // It outlives a crash, a restart and a reboot.
        guard.daemon.kill9().unwrap();
        assert_eq!(reach(7), CUT_OFF, "{hook}: killed");
        guard.daemon.restart().unwrap();
        assert_eq!(reach(7), CUT_OFF, "{hook}: restarted");
        guard.daemon.terminate().unwrap();
        guard.daemon.detach().unwrap();
        guard.daemon.restart().unwrap();
        assert_eq!(reach(7), CUT_OFF, "{hook}: rebooted");

        let release = ["release", "--port", "lan1", "--reason", "fixed"];
        guard.ctl.run(&release).unwrap().ok().unwrap();
        assert!(
            eventually(PATIENCE, || reach(7) == [true; 7]),
            "{hook}: {:?}",
            reach(7)
        );
        let history = guard.ctl.json(&["history"]).unwrap();
        let newest = &history["revisions"][0];
        assert_eq!(
            (&newest["kind"], &newest["reason"]),
            (&"release".into(), &"fixed".into())
        );
        let status = guard.ctl.json(&["status"]).unwrap();
        assert_eq!(status["ports"][0]["quarantined"], false);
    }
}

#[test]
fn a_guest_in_quarantine_returns_and_the_answer_said_how_to_prevent_it() {
    let ward = Ward::new("returns");
    let (one, _two) = (ward.device(1), ward.device(2));
    ward.lab.settle().unwrap();
    let _far = ward.far.tcp_serve(7).unwrap();
    let guard = Guard::start(&ward.lab, "");
    guard.apply(&document("xdp", ""));
    assert!(opens(&one, FAR[0], 7));
    let warnings = |device: &str| {
        let quarantine = ["quarantine", device, "--reason", "odd"];
        guard.ctl.json(&quarantine).unwrap()["warnings"].to_string()
    };
    let told = warnings("device-1");
    assert!(told.contains("`wardctl quarantine --port lan1`"), "{told}");
    // The other's zone admits listed MACs only.
    let told = warnings("device-2");
    assert!(!told.contains("--port"), "{told}");
    assert!(!opens(&one, FAR[0], 7));
    disguises(&one, OTHER_MAC, OTHER);
    assert!(opens(&one, FAR[0], 7), "the guest is back");
    let quarantine = ["quarantine", "--port", "lan1", "--reason", "odd"];
    guard.ctl.run(&quarantine).unwrap().ok().unwrap();
    assert!(!opens(&one, FAR[0], 7));
}

#[test]
fn the_name_stays_cut_off_when_the_interface_is_made_again() {
    let ward = Ward::new("made-again");
    let one = ward.device(1);
    ward.lab.settle().unwrap();
    let _far = ward.far.tcp_serve(7).unwrap();
    let guard = Guard::start(&ward.lab, "");
    guard.apply(&policy(&[zone(1, "", "")], "tcp/7"));
    let quarantine = ["quarantine", "--port", "lan1", "--reason", "odd"];
    let release = ["release", "--port", "lan1"];
    guard.ctl.run(&quarantine).unwrap().ok().unwrap();
    assert!(!opens(&one, FAR[0], 7));
    ward.lab.router().ip("link del lan1").unwrap();
    // Only then does "guarded" below mean the new interface.
    guard.wait_until_unguarded("lan1");
    let host = End::new(&one, "eth0")
        .mac(&mac(1))
        .address(&format!("{}/24", v4(1)))
        .gateway("10.20.1.1");
    ward.lab.wire(&host, &ward.port(1)).unwrap();
    ward.lab.settle().unwrap();
    guard.wait_until_guarded("lan1");
    assert!(!opens(&one, FAR[0], 7));
    guard.ctl.run(&release).unwrap().ok().unwrap();
    assert!(opens(&one, FAR[0], 7));

    for (arguments, line) in [
        (
            ["quarantine", "--port", "uplink", "--reason", "x"].as_slice(),
            "\"uplink\" is not a guarded port; guarded are: lan1",
        ),
        (
            &["quarantine", "--port", "lan*", "--reason", "x"],
            "\"lan*\" is not a guarded port; guarded are: lan1",
        ),
        (
            &["release", "--port", "uplink"],
            "\"uplink\" is not a guarded port",
        ),
        (&release, "port \"lan1\" is not in quarantine"),
    ] {
        let answer = guard.ctl.run(arguments).unwrap();
        assert_eq!(answer.code, 4, "{answer:?}");
        assert!(answer.stderr.contains(line), "{answer:?}");
    }
    // A document without the port says that the quarantine has none.
    guard.ctl.run(&quarantine).unwrap().ok().unwrap();
    let document =
        policy(&[zone(1, "", "")], "tcp/7").replace("interface: lan1", "interface: lan9");
    let applied = guard.ctl.apply(&document).unwrap();
    let warning = "port lan1 is in quarantine, but no port of the document has it";
    assert!(applied.stderr.contains(warning), "{applied:?}");
}
