//! Quarantine goes by identity: it holds under any name, without a name, and in any zone. Renaming an
//! object keeps what was known of it.

use wardline_tests::{
    Host, Outcome, TIMEOUT, eventually,
    ward::{FAR, Guard, PATIENCE, Ward, mac, policy, v4, zone},
};

fn opens(from: &Host, to: &str) -> bool {
    from.tcp_connect(to, 7, TIMEOUT) == Outcome::Connected
}

fn run(guard: &Guard, line: &str) {
    let arguments: Vec<&str> = line.split(' ').collect();
    guard.ctl.run(&arguments).unwrap().ok().unwrap();
}

#[test]
fn who_is_cut_off_stays_so_under_any_name_and_without_one() {
    let ward = Ward::new("identity");
    let (one, two) = (ward.device(1), ward.device(2));
    ward.lab.settle().unwrap();
    let _far = ward.far.tcp_serve(7).unwrap();
    let (_one, _two) = (one.tcp_serve(7).unwrap(), two.tcp_serve(7).unwrap());
    let mut guard = Guard::start(&ward.lab, "");
    // A zone that admits any would let a MAC that no device lists speak.
    let zones = [zone(1, ", admit: any", ""), zone(2, "", "")];
    let document = policy(&zones, "tcp/7")
        + "  - {name: peers, from: [any], to: [any], services: [tcp/7], action: allow}\n";
    guard.apply(&document);
    let mut other = two.session(FAR[0], 7).unwrap();
    assert!(other.echo(b"x") && opens(&one, FAR[0]));
    run(&guard, "quarantine device-1 --reason scans");
    let is_cut = |what: &str| {
        assert!(!opens(&one, FAR[0]) && !opens(&two, &v4(1)), "{what}");
    };
    is_cut("at once");

    // Under another name: by rename, and by deleting and adding again.
    run(&guard, "rename device/device-1 pump-9 --reason ticket-7");
    is_cut("renamed");
    let device = |guard: &Guard, name: &str| {
        let devices = guard.ctl.json(&["devices"]).unwrap();
        let devices = devices["devices"].as_array().unwrap().clone();
        devices.into_iter().find(|it| it["name"] == name)
    };
    let pump = device(&guard, "pump-9").expect("the device");
    assert_eq!(pump["quarantined"], true, "{pump:#}");
    assert_eq!(pump["quarantine"]["reason"], "scans");
    assert_eq!(pump["quarantine"]["actor"], "uid:0");
    run(&guard, "delete device/pump-9");
    is_cut("deleted");
    guard.told(&[("reason", "quarantined"), ("source_mac", &mac(1))]);
    let status = guard.ctl.json(&["status"]).unwrap();
    assert_eq!(status["held"][0]["macs"][0], *mac(1), "{status:#}");
    assert_eq!(status["held"][0]["quarantine"]["reason"], "scans");
    assert_eq!(status["quarantined"][0], "pump-9");
    guard.daemon.kill9().unwrap();
    guard.daemon.restart().unwrap();
    is_cut("after a crash");
    // The whole document again, in which it has its first name, and then in another zone.
    guard.apply(&document);
    is_cut("added again");
    assert_eq!(device(&guard, "device-1").unwrap()["quarantined"], true);
    guard.apply(
        &document
            .replace(
                &format!("name: device-1, zone: zone-1, macs: [\"{}\"]", mac(1)),
                &format!("name: moved, zone: zone-2, macs: [\"{}\"]", mac(1)),
            )
            .replace(
                &format!("addresses: [{}, \"fd20:0:0:1::11\"]}}", v4(1)),
                "addresses: []}",
            ),
    );
    assert_eq!(device(&guard, "moved").unwrap()["quarantined"], true);
    is_cut("in another zone");
    run(&guard, "rollback");

    // Other devices notice nothing of all that.
    assert!(other.echo(b"x"));
    let history = guard.ctl.json(&["history"]).unwrap();
    let cut = history["revisions"].as_array().unwrap().iter();
    let cut = cut.rev().find(|it| it["kind"] == "quarantine").unwrap();
    assert_eq!(
        (&cut["subject"], &cut["reason"], &cut["actor"]),
        (&"device/device-1".into(), &"scans".into(), &"uid:0".into())
    );
    let number = cut["revision"].to_string();
    let diff = guard.ctl.json(&["diff", &number]).unwrap();
    assert_eq!(diff["changes"][0]["name"], "device-1", "{diff:#}");
    let told = &diff["changes"][0]["fields"][0]["new"];
    assert_eq!(told, "true, by uid:0: scans");

    // Released by its MAC, while no document has it; and by its name, and that of another.
    run(&guard, "delete device/device-1");
    let refused = guard.ctl.run(&["release", "02:00:00:00:77:77"]).unwrap();
    assert_eq!(refused.code, 4, "{refused:?}");
    run(&guard, &format!("release {}", mac(1)));
    let free = || opens(&one, FAR[0]) && opens(&two, &v4(1));
    assert!(eventually(PATIENCE, free), "{:?}", guard.drops());
    guard.apply(&document);
    run(&guard, "quarantine device-1 --reason again");
    run(&guard, "delete device/device-1");
    is_cut("again");
    run(&guard, "release device-1");
    assert!(eventually(PATIENCE, free));
    let status = guard.ctl.json(&["status"]).unwrap();
    assert_eq!(status["held"].as_array().unwrap().len(), 0, "{status:#}");
}

#[test]
fn a_renamed_object_goes_on_with_its_flows_counters_and_grants() {
    let ward = Ward::new("rename");
    let one = ward.device(1);
    ward.lab.settle().unwrap();
    let _far = ward.far.tcp_serve(7).unwrap();
    let guard = Guard::start(&ward.lab, "");
    let document = policy(&[zone(1, "", "")], "tcp/9")
        + "  - {name: web, from: [device:device-1], to: [\"cidr:198.51.100.0/24\"], services: [tcp/7], \
           action: allow}\n";
    guard.apply(&document);
    let mut session = one.session(FAR[0], 7).unwrap();
    assert!(session.echo(b"x"));
    let packets = |rule: &str| {
        let counters = guard.ctl.json(&["counters"]).unwrap();
        let rules = counters["rules"].as_array().unwrap().clone();
        let rule = rules.into_iter().find(|it| it["rule"] == rule);
        rule.and_then(|it| it["packets"].as_u64())
    };
    let before = packets("web").unwrap();
    assert!(before > 0);
    run(&guard, "rename rule/web web-2");
    run(&guard, "rename device/device-1 pump-1");
    run(&guard, "rename zone/zone-1 pumps");
    run(&guard, "rename port/lan1 lan?");
    assert!(session.echo(b"y"));
    assert!(packets("web").is_none() && packets("web-2").unwrap() > before);
    let policy = guard.ctl.json(&["get"]).unwrap();
    assert_eq!(policy["devices"][0]["zone"], "pumps", "{policy:#}");
    assert_eq!(policy["ports"][0]["zone"], "pumps");
    let mut rules = policy["rules"].as_array().unwrap().iter();
    assert!(rules.any(|it| it["from"][0] == "device:pump-1"));

    let grant =
        "grant --from device:pump-1 --to any --service tcp/1 --for 1h --reason x --name fix";
    run(&guard, grant);
    run(&guard, "rename rule/fix vendor");
    let status = guard.ctl.json(&["status"]).unwrap();
    assert_eq!(status["grants"][0]["name"], "vendor", "{status:#}");
    run(&guard, "revoke vendor");
    for (line, told) in [
        ("rename device/nobody x", "device/nobody: is not there"),
        ("rename device/pump-1 a/b", "name"),
        (
            "rename rule/needed web-2",
            "new_name: there is a rule \"web-2\" already",
        ),
    ] {
        let arguments: Vec<&str> = line.split(' ').collect();
        let refused = guard.ctl.run(&arguments).unwrap();
        assert!(
            refused.code == 4 && refused.stderr.contains(told),
            "{refused:?}"
        );
    }
}
