//! A vendor's file from check to packets: each abstraction, both directions, and who may vouch for it.

use std::{fs, path::PathBuf};

use serde_json::{Value, json};
use wardline_tests::{
    Host, Outcome, TIMEOUT, eventually,
    ward::{FAR, Guard, PATIENCE, Ward, policy, v4, zone},
};

const SIGNED: &[u8] = include_bytes!("mud/lamp.json");
const SIGNATURE: &[u8] = include_bytes!("mud/lamp.p7s");
const MAKERS: &[u8] = include_bytes!("mud/makers.pem");

/// A file below the folder of a test.
fn put(ward: &Ward, name: &str, bytes: &[u8]) -> String {
    let path: PathBuf = ward.lab.dir().join(name);
    fs::write(&path, bytes).unwrap();
    path.to_str().unwrap().to_owned()
}

fn outcomes(answer: &Value) -> Vec<(&str, &str)> {
    let aces = answer["aces"].as_array().unwrap().iter();
    let text = |it: &Value| -> &'static str { it.as_str().unwrap().to_owned().leak() };
    aces.map(|it| (text(&it["name"]), text(&it["outcome"])))
        .collect()
}

/// A lamp, its hub with other labels, and another lamp, which nothing allows to meet.
fn document() -> String {
    let labels = "labels: {mud-controller: \"https://lights.example/lamp\", mud-controller/logs: \"urn:example:logs\", \
                  mud-maker: hubs.example, mud: \"https://hubs.example/hub\"}, addresses:";
    policy(
        &[
            zone(1, "", ""),
            zone(2, "", "").map(|it| it.replace("addresses:", labels)),
            zone(3, "", "").map(|it| {
                it.replace(
                    "addresses:",
                    "labels: {mud-maker: lights.example}, addresses:",
                )
            }),
        ],
        "tcp/7",
    )
}

#[test]
fn each_abstraction_of_a_file_passes_both_ways_and_nothing_more() {
    let ward = Ward::new("mud");
    let (lamp, hub, other) = (ward.device(1), ward.device(2), ward.device(3));
    ward.lab.settle().unwrap();
    let trust = put(&ward, "makers.pem", MAKERS);
    let guard = Guard::start(&ward.lab, &format!("[mud]\ntrust = {trust:?}\n"));
    let ctl = &guard.ctl;
    guard.apply(&document());
    let file = put(&ward, "lamp.json", SIGNED);
    let signature = put(&ward, "lamp.p7s", SIGNATURE);
    let all = [
        "mud",
        "import",
        &file,
        "--signature",
        &signature,
        "--device",
        "device-1",
    ];
    // A plan changes nothing, and tells what would open.
    let plan = ctl.json(&[&all[..], &["--plan"]].concat()).unwrap();
    assert!(plan["changes"].as_array().unwrap().len() > 5, "{plan:#}");
    assert_eq!(ctl.json(&["status"]).unwrap()["revision"], 1);
    // Verified, but nobody has approved of the address in it.
    let told = ctl.json(&all).unwrap();
    assert_eq!(
        (&told["trust"], &told["revision"]),
        (&json!("verified"), &json!(2))
    );
    let expected = [
        ("hub", "imported"),
        ("logs", "imported"),
        ("makers", "imported"),
        ("model", "imported"),
        ("mesh", "imported"),
        ("ping", "imported"),
        ("cloud", "held"),
        ("strange", "dropped"),
        ("hub-answers", "imported"),
        ("service", "imported"),
        ("colour", "imported"),
    ];
    assert_eq!(outcomes(&told), expected);
    assert_eq!(
        told["unresolved"],
        json!([
            "controller urn:ietf:params:mud:dns",
            "controller urn:ietf:params:mud:ntp"
        ])
    );
    let opens = |from: &Host, to: String, port: u16| {
        from.tcp_connect(&to, port, TIMEOUT) == Outcome::Connected
    };
    let _hub: Vec<_> = [8080, 8081, 8082, 8083, 8084, 8085]
        .map(|port| hub.tcp_serve(port).unwrap())
        .into();
    let _lamp: Vec<_> = [2222, 8080]
        .map(|port| lamp.tcp_serve(port).unwrap())
        .into();
    let _far = ward.far.tcp_serve(8443).unwrap();
    for port in [8080, 8081, 8082, 8083, 8084] {
        assert!(opens(&lamp, v4(2), port), "{port}");
    }
    assert!(!opens(&lamp, v4(2), 8085), "no entry has this port");
    // The hub may open what its entry says, and not what is only answered.
    assert!(opens(&hub, v4(1), 2222));
    assert!(
        !opens(&hub, v4(1), 8080),
        "its answers may, a connection may not"
    );
    assert!(!opens(&other, v4(1), 2222), "only the hub may");
    assert!(
        !opens(&lamp, FAR[0].to_owned(), 8443),
        "nobody has approved of the address"
    );
    let answers = |from: &Host, to: String, port: u16| {
        from.udp_exchange(&to, port, TIMEOUT) == Outcome::Connected
    };
    let _other = other.udp_serve(5000).unwrap();
    let _hub_mesh = hub.udp_serve(5000).unwrap();
    let _colour = lamp.udp_serve(6000).unwrap();
    assert!(answers(&lamp, v4(3), 5000));
    assert!(!answers(&lamp, v4(2), 5000), "the hub has another maker");
    assert!(answers(&hub, v4(1), 6000) && answers(&other, v4(1), 6000));
    assert!(
        !answers(&ward.far, v4(1), 6000),
        "the far host is on no local network"
    );
    assert!(lamp.ping(&v4(3)));
    assert!(other.ping_within(&v4(1), TIMEOUT) != Outcome::Connected);

    // What the lamp did beside its file: what it used, what not, and what it was refused.
    let dropped = |told: &Value| {
        let mut all = told["undeclared"].as_array().unwrap().iter();
        let wanted = |it: &&Value| it["service"] == "tcp/8085" && it["verdict"] == "drop";
        all.find(wanted).cloned()
    };
    let mut assessed = Value::Null;
    let told_of = eventually(PATIENCE, || {
        assessed = ctl.json(&["mud", "assess", "device-1"]).unwrap();
        dropped(&assessed).is_some()
    });
    assert!(told_of, "{assessed:#}");
    let undeclared = dropped(&assessed).unwrap();
    assert_eq!(
        (&undeclared["peer"], &undeclared["direction"]),
        (&json!("device:device-2"), &json!("from_device"))
    );
    assert_eq!(undeclared["reason"], "no_rule");
    let rules = |list: &str| -> Vec<String> {
        let list = assessed[list].as_array().unwrap().iter();
        list.map(|it| {
            it["rule"]
                .as_str()
                .unwrap()
                .rsplit('.')
                .next()
                .unwrap()
                .to_owned()
        })
        .collect()
    };
    for used in ["hub", "logs", "mesh", "service", "colour", "ping"] {
        assert!(rules("used").iter().any(|it| it == used), "{assessed:#}");
    }
    assert!(rules("unused").is_empty(), "{assessed:#}");
    assert_eq!(
        ctl.json(&["mud", "assess", "--all"]).unwrap()["used"],
        assessed["used"]
    );
    // A file of what it did is one that can be checked.
    let draft = ctl
        .run(&["mud", "draft", "device-1"])
        .unwrap()
        .ok()
        .unwrap();
    let draft = put(&ward, "draft.json", draft.as_bytes());
    let checked = ctl.json(&["mud", "check", &draft, "--approved"]).unwrap();
    assert!(checked["aces"].as_array().unwrap().len() > 3, "{checked:#}");
    assert!(
        outcomes(&checked).iter().all(|it| it.1 == "imported"),
        "{checked:#}"
    );

    // Who approves, and why, is in the history and in the audit; then the address counts.
    let told = ctl
        .json(&[&all[..], &["--approve", "their cloud, NET-7"]].concat())
        .unwrap();
    assert_eq!(told["trust"], "verified");
    assert!(opens(&lamp, FAR[0].to_owned(), 8443));
    let history = ctl.json(&["history"]).unwrap();
    let newest = &history["revisions"][0];
    assert_eq!(
        (&newest["kind"], &newest["actor"]),
        (&json!("mud"), &json!("uid:0"))
    );
    let reason = newest["reason"].as_str().unwrap();
    assert!(
        reason.contains("approved: their cloud, NET-7")
            && reason.contains("https://lights.example/lamp"),
        "{reason}"
    );
    let audit = ctl.run(&["-o", "json", "audit"]).unwrap().ok().unwrap();
    assert!(
        audit.contains("ImportMud") && audit.contains("approved: their cloud, NET-7"),
        "{audit}"
    );
    // The same again changes nothing. With less in it, what is gone is deleted.
    let again = ctl
        .json(&[&all[..], &["--approve", "again"]].concat())
        .unwrap();
    assert_eq!(again["unchanged"], true);
    let less = String::from_utf8(SIGNED.to_vec())
        .unwrap()
        .replace("\"port\": 8081", "\"port\": 9081");
    let less = put(&ward, "less.json", less.as_bytes());
    let told = ctl
        .json(&[
            "mud",
            "import",
            &less,
            "--device",
            "device-1",
            "--approve",
            "x",
            "--confirm-within",
            "60s",
        ])
        .unwrap();
    assert_eq!(told["trust"], "approved");
    assert!(!told["confirm_by"].is_null());
    assert!(!opens(&lamp, v4(2), 8081));
    ctl.run(&["confirm"]).unwrap().ok().unwrap();
    ctl.run(&["rollback"]).unwrap().ok().unwrap();
    assert!(opens(&lamp, v4(2), 8081));
}

#[test]
fn a_file_that_nobody_vouches_for_is_refused() {
    let ward = Ward::new("mud-trust");
    let trust = put(&ward, "makers.pem", MAKERS);
    let guard = Guard::start(&ward.lab, &format!("[mud]\ntrust = {trust:?}\n"));
    let ctl = &guard.ctl;
    guard.apply(&document());
    let file = put(&ward, "lamp.json", SIGNED);
    let signature = put(&ward, "lamp.p7s", SIGNATURE);
    let changed = put(&ward, "changed.json", &[SIGNED, b"\n"].concat());
    let broken = put(
        &ward,
        "broken.json",
        b"{\"ietf-mud:mud\": {}, \"ietf-mud:mud\": {}}",
    );
    let device = ["--device", "device-1"];
    for (arguments, trust, says) in [
        (vec![file.as_str()], "unsigned", "there is no signature"),
        (
            vec![&changed, "--signature", &signature],
            "refused",
            "not the one that was signed",
        ),
        (
            vec![&changed, "--signature", &signature, "--approve", "x"],
            "refused",
            "not the one that was signed",
        ),
    ] {
        let command = [&["-o", "json", "mud", "import"], &arguments[..], &device].concat();
        let answer = ctl.run(&command).unwrap();
        assert_eq!(answer.code, 4, "{answer:?}");
        assert!(answer.stderr.contains(says), "{answer:?}");
        let told: Value = serde_json::from_str(&answer.stdout).unwrap();
        assert_eq!(told["trust"], trust);
    }
    let answer = ctl.run(&["mud", "check", &broken]).unwrap();
    assert_eq!(answer.code, 4, "{answer:?}");
    assert!(
        answer
            .stderr
            .contains("file: \"ietf-mud:mud\" is given twice"),
        "{answer:?}"
    );
    let checked = ctl
        .json(&["mud", "check", &file, "--signature", &signature])
        .unwrap();
    assert_eq!(checked["trust"], "verified");
    let unknown = ctl
        .run(&[
            "mud",
            "import",
            &file,
            "--device",
            "lamp-9",
            "--approve",
            "x",
        ])
        .unwrap();
    assert_eq!(unknown.code, 4, "{unknown:?}");
    assert!(
        unknown.stderr.contains("device: no device \"lamp-9\""),
        "{unknown:?}"
    );
    assert_eq!(
        ctl.run(&["mud", "import", &file, "--approve", "x"])
            .unwrap()
            .code,
        2
    );
    // Whoever is trusted is read anew for each file.
    fs::write(&trust, "").unwrap();
    let answer = ctl
        .run(&["mud", "check", &file, "--signature", &signature])
        .unwrap();
    assert_eq!(answer.code, 4, "{answer:?}");
    assert!(answer.stderr.contains("has no certificate"), "{answer:?}");
    assert_eq!(ctl.json(&["status"]).unwrap()["revision"], 1);
}
