//! Labels: what is put comes back, and rules, plans, grants and explanations know who has them.

use serde_json::{Value, json};
use wardline_tests::{
    Outcome, TIMEOUT,
    ward::{FAR, Guard, Ward, policy, zone},
};

#[test]
fn a_label_is_a_selector_everywhere() {
    let ward = Ward::new("labels");
    let (one, two) = (ward.device(1), ward.device(2));
    ward.lab.settle().unwrap();
    let (_seven, _nine) = (
        ward.far.tcp_serve(7).unwrap(),
        ward.far.tcp_serve(9).unwrap(),
    );
    let guard = Guard::start(&ward.lab, "");
    let ctl = &guard.ctl;
    let zones = [
        zone(1, "", "").map(|it| it.replace("addresses:", "labels: {ward: \"3\"}, addresses:")),
        zone(2, ", labels: {site: north}", ""),
    ];
    let notes = "description: Ward 3 asks, owner: netops, ticket: NET-7, labels: {review: '2027'}";
    let document = policy(&zones, "tcp/7")
        .replace("from: [any]", "from: ['label:ward=3']")
        .replace("{name: needed,", &format!("{{name: needed, {notes},"));
    guard.apply(&document);
    let opens = |host: &wardline_tests::Host, port| {
        host.tcp_connect(FAR[0], port, TIMEOUT) == Outcome::Connected
    };
    assert!(opens(&one, 7) && !opens(&two, 7));

    // What was put comes back, as it was.
    let got = ctl.json(&["get"]).unwrap();
    let rule = &got["rules"][0];
    assert_eq!(rule["description"], "Ward 3 asks");
    assert_eq!(
        (&rule["owner"], &rule["ticket"]),
        (&json!("netops"), &json!("NET-7"))
    );
    assert_eq!(rule["labels"], json!({"review": "2027"}));
    assert_eq!(got["zones"][1]["labels"], json!({"site": "north"}));
    let file = ward.lab.dir().join("again.yaml");
    std::fs::write(&file, ctl.run(&["get"]).unwrap().ok().unwrap()).unwrap();
    let file = file.to_str().unwrap();
    assert_eq!(
        ctl.json(&["plan", "-f", file]).unwrap()["changes"],
        json!([])
    );
    let devices = ctl.json(&["devices"]).unwrap();
    assert_eq!(devices["devices"][0]["labels"], json!({"ward": "3"}));

    let explains = |from: &str| {
        let to = format!("cidr:{}/32", FAR[0]);
        let asked = ctl.run(&[
            "-o", "json", "explain", "--from", from, "--to", &to, "tcp/7",
        ]);
        let asked: Value = serde_json::from_str(&asked.unwrap().stdout).unwrap();
        asked["reason"].clone()
    };
    assert_eq!(explains("label:ward=3"), "rule");
    assert_eq!(explains("label:site=north"), "no_rule");

    // A device that gets the label is a change of what it may do, and the plan says so.
    let labelled = document.replace("labels: {site: north}", "labels: {ward: \"3\"}");
    std::fs::write(file, &labelled).unwrap();
    let plan = ctl.json(&["plan", "-f", file]).unwrap();
    let opened = &plan["reach"][0];
    assert_eq!(opened["from"], "device:device-2", "{plan:#}");
    assert_eq!(opened["rules"], json!(["needed"]));
    guard.apply(&labelled);
    assert!(opens(&one, 7) && opens(&two, 7));
    let told = ctl.json(&["diff"]).unwrap();
    assert_eq!(told["changes"][0]["name"], "zone-2", "{told:#}");
    guard.apply(&document);
    assert!(opens(&one, 7) && !opens(&two, 7));

    // A grant to a label, and one that nobody has.
    let grant = |label: &str| {
        let from = format!("label:{label}");
        let to = format!("cidr:{}/32", FAR[0]);
        let (service, name) = ("tcp/9", "for-a-while");
        ctl.run(&[
            "grant",
            "--from",
            &from,
            "--to",
            &to,
            "--service",
            service,
            "--for",
            "1h",
            "--reason",
            "x",
            "--name",
            name,
        ])
        .unwrap()
    };
    let refused = grant("site=south");
    assert_eq!(refused.code, 4, "{refused:?}");
    let line = "no device and no zone has the label \"site=south\"; of site there is \"north\"";
    assert!(refused.stderr.contains(line), "{refused:?}");
    grant("site=north").ok().unwrap();
    assert!(!opens(&one, 9) && opens(&two, 9));
}
