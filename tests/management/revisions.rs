//! Changes as their users see them: edits, history, rollback, grants.

use serde_json::{Value, json};
use wardline_tests::{
    Answer, Ctl, Outcome, TIMEOUT, eventually,
    ward::{FAR, Guard, PATIENCE, Ward, policy, v4, zone},
};

/// Writes a fragment to a file and puts it.
fn put(ward: &Ward, ctl: &Ctl, fragment: &str, more: &[&str]) -> Answer {
    let file = ward.lab.dir().join("fragment.yaml");
    std::fs::write(&file, fragment).unwrap();
    let arguments = ["-o", "json", "put", "-f", file.to_str().unwrap()];
    ctl.run(&[&arguments, more].concat()).unwrap()
}

fn revision(answer: Answer) -> u64 {
    let text = answer.ok().unwrap();
    let value: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["confirm_by"], Value::Null);
    value["revision"].as_u64().unwrap()
}

fn refused(answer: Answer, line: &str) {
    assert_eq!(answer.code, 4, "{answer:?}");
    assert!(answer.stderr.contains(line), "{answer:?}");
}

/// The names of the rules of a revision.
fn rules(ctl: &Ctl, of: &[&str]) -> Vec<String> {
    let policy = ctl.json(&[&["get"], of].concat()).unwrap();
    let rules = policy["rules"].as_array().cloned().unwrap_or_default();
    let name = |rule: &Value| rule["name"].as_str().unwrap().to_owned();
    rules.iter().map(name).collect()
}

#[test]
fn an_edit_changes_a_few_objects_and_can_be_taken_back() {
    let ward = Ward::new("edit");
    let device = ward.device(1);
    ward.lab.settle().unwrap();
    let (_seven, _nine) = (
        ward.far.tcp_serve(7).unwrap(),
        ward.far.tcp_serve(9).unwrap(),
    );
    let guard = Guard::start(&ward.lab, "");
    let ctl = &guard.ctl;
    guard.apply(&policy(&[zone(1, "", "")], "tcp/7"));
    let opens = |port| device.tcp_connect(FAR[0], port, TIMEOUT) == Outcome::Connected;
    assert!(opens(7) && !opens(9));

    let nine = "rules: [{name: nine, from: [zone:zone-1], to: ['cidr:198.51.100.0/24'], \
                services: [tcp/9], action: allow}]\n";
    assert_eq!(
        revision(put(
            &ward,
            ctl,
            nine,
            &["--reason", "need it", "--base", "1"]
        )),
        2
    );
    assert!(opens(7) && opens(9));
    refused(
        put(&ward, ctl, nine, &["--base", "1"]),
        "revision 2 is in force",
    );

    // A live connection is cut when a rollback removes its rule.
    let mut session = device.session(FAR[0], 9).unwrap();
    assert!(session.echo(b"x"));
    let answer = ctl
        .run(&["-o", "json", "rollback", "--reason", "not needed"])
        .unwrap();
    assert_eq!(revision(answer), 3);
    assert!(!session.echo(b"x") && opens(7) && !opens(9));
    // Revision 2 was in force before revision 3, so its policy comes back.
    assert_eq!(revision(ctl.run(&["-o", "json", "rollback"]).unwrap()), 4);
    assert!(opens(9));
    assert_eq!(
        revision(ctl.run(&["-o", "json", "delete", "rule/nine"]).unwrap()),
        5
    );
    assert!(opens(7) && !opens(9));

    // An edit is made as a whole or not at all, and every refusal says why.
    let cases = [
        (
            vec!["delete", "zone/zone-1"],
            "zone/zone-1: is used by device/device-1, port/lan1",
        ),
        (
            vec!["delete", "rule/nine", "rule/needed"],
            "rule/nine: is not there",
        ),
        (vec!["rollback", "99"], "no revision 99"),
        (vec!["get", "99"], "no revision 99"),
        (vec!["confirm"], "no change waits"),
        (vec!["confirm", "5"], "no change waits"),
        (vec!["revoke", "needed"], "is no grant"),
        (vec!["revoke", "x"], "rule/x: is not there"),
    ];
    for (arguments, line) in cases {
        refused(ctl.run(&arguments).unwrap(), line);
    }
    let bad = "devices: [{name: new, zone: nowhere, addresses: [10.20.1.12]}]\n";
    refused(put(&ward, ctl, bad, &[]), "devices[0].zone: ");
    let taken = format!(
        "devices: [{{name: new, zone: zone-1, addresses: [{}]}}]\n",
        v4(1)
    );
    refused(put(&ward, ctl, &taken, &[]), "devices[0].addresses[0]: ");
    assert_eq!(rules(ctl, &[]), ["needed"]);
    assert!(opens(7));

    // The history is complete, also after a crash.
    let mut guard = guard;
    guard.daemon.kill9().unwrap();
    guard.daemon.restart().unwrap();
    let ctl = &guard.ctl;
    let history = ctl.json(&["history"]).unwrap();
    let entries: Vec<_> = history["revisions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| {
            json!([
                it["revision"],
                it["parent"],
                it["kind"],
                it["reason"],
                it["added"],
                it["removed"]
            ])
        })
        .collect();
    assert_eq!(
        Value::from(entries),
        json!([
            [5, 4, "edit", "", 0, 1],
            [4, 3, "rollback", "", 1, 0],
            [3, 2, "rollback", "not needed", 0, 1],
            [2, 1, "edit", "need it", 1, 0],
            [1, 0, "apply", "", 4, 0],
        ])
    );
    assert_eq!(rules(ctl, &["4"]), ["needed", "nine"]);
    assert_eq!(rules(ctl, &["3"]), ["needed"]);
    let changes = ctl.json(&["diff", "4"]).unwrap();
    let change = json!([{"change": "add", "kind": "rule", "name": "nine", "fields": []}]);
    assert_eq!(changes["changes"], change);
    assert_eq!(
        ctl.json(&["history", "--limit", "1"]).unwrap()["revisions"][0]["revision"],
        5
    );
    assert!(opens(7) && !opens(9));
}

#[test]
fn a_grant_ends_by_itself_and_leaves_the_document() {
    let ward = Ward::new("grant");
    let device = ward.device(1);
    ward.lab.settle().unwrap();
    let _nine = ward.far.tcp_serve(9).unwrap();
    let mut guard = Guard::start(&ward.lab, "");
    guard.apply(&policy(&[zone(1, "", "")], "tcp/7"));
    let opens = || device.tcp_connect(FAR[0], 9, TIMEOUT) == Outcome::Connected;
    let far = format!("cidr:{}/32", FAR[0]);
    let grant = |ctl: &Ctl, lifetime: &str, name: &str| -> Value {
        ctl.json(&[
            "grant",
            "--from",
            "device:device-1",
            "--to",
            &far,
            "--service",
            "tcp/9",
            "--for",
            lifetime,
            "--reason",
            "repair",
            "--name",
            name,
        ])
        .unwrap()
    };
    let answer = grant(&guard.ctl, "1h", "long");
    assert_eq!(answer["name"], "long");
    assert!(answer["expires"].is_string() && opens());
    assert_eq!(
        guard.ctl.json(&["status"]).unwrap()["grants"][0]["name"],
        "long"
    );
    let taken = [
        "grant",
        "--from",
        "any",
        "--to",
        "any",
        "--service",
        "tcp/9",
        "--for",
        "1h",
        "--reason",
        "x",
        "--name",
        "long",
    ];
    refused(
        guard.ctl.run(&taken).unwrap(),
        "name: there is a rule \"long\"",
    );
    guard.ctl.run(&["revoke", "long"]).unwrap().ok().unwrap();
    assert!(!opens());

    // A live connection is cut by the kernel, with the daemon dead.
    grant(&guard.ctl, "4s", "short");
    let mut session = device.session(FAR[0], 9).unwrap();
    assert!(session.echo(b"x"));
    guard.daemon.kill9().unwrap();
    assert!(
        eventually(PATIENCE, || !session.echo(b"x")),
        "the grant goes on"
    );
    assert!(!opens());
    guard.daemon.restart().unwrap();
    assert_eq!(rules(&guard.ctl, &[]), ["needed"]);
    let history = guard.ctl.json(&["history"]).unwrap();
    assert_eq!(history["revisions"][0]["kind"], "expire");
    // The daemon removed the grant, and reports it.
    let told = guard.ctl.events().unwrap();
    let told = told
        .iter()
        .any(|it| it["message"] == "the grants short have ended");
    assert!(told);
    // A rollback brings the grant back into the document, but not for long, and never into force.
    let with_it = history["revisions"][1]["revision"].to_string();
    guard
        .ctl
        .run(&["rollback", &with_it])
        .unwrap()
        .ok()
        .unwrap();
    assert!(!opens());
    assert!(eventually(PATIENCE, || rules(&guard.ctl, &[]) == ["needed"]));

    // While the daemon lives, within a second or two.
    grant(&guard.ctl, "1s", "brief");
    assert!(eventually(PATIENCE, || rules(&guard.ctl, &[]) == ["needed"]));
    assert!(!opens());
}
