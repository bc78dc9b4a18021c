//! Documents in parts: files and folders are one, and each problem names its place.

use std::{
    fs,
    io::Write as _,
    process::{Command, Stdio},
};

use serde_json::{Value, json};
use wardline_tests::{
    Answer, Outcome, TIMEOUT,
    ward::{FAR, Guard, Ward, policy, zone},
};

#[test]
fn a_plan_of_an_edit_is_what_the_edit_does_and_nothing_changes_twice() {
    let ward = Ward::new("edits");
    let guard = Guard::start(&ward.lab, "");
    let ctl = &guard.ctl;
    let document = policy(&[zone(1, "", "")], "tcp/7");
    guard.apply(&document);
    // The same again makes no revision.
    let file = ward.lab.dir().join("fragment.yaml");
    let path = file.to_str().unwrap();
    fs::write(&file, &document).unwrap();
    let again = ctl
        .run(&["apply", "-f", path, "--confirm-within", "60s"])
        .unwrap()
        .ok()
        .unwrap();
    assert_eq!(
        again,
        "revision 1 stays in force: there is nothing to change\n"
    );
    assert_eq!(ctl.json(&["apply", "-f", path]).unwrap()["unchanged"], true);
    assert_eq!(ctl.json(&["status"]).unwrap()["pending"], Value::Null);
    assert_eq!(
        ctl.json(&["history"]).unwrap()["revisions"]
            .as_array()
            .unwrap()
            .len(),
        1
    );

    let nine = "rules: [{name: needed, from: [any], to: ['cidr:198.51.100.0/24'], services: [tcp/9], action: allow}]\n\
                devices: [{name: printer, zone: zone-1, addresses: [10.20.1.30]}]\n";
    fs::write(&file, nine).unwrap();
    let plan = ctl.json(&["plan", "--edit", "-f", path]).unwrap();
    assert_eq!(ctl.json(&["status"]).unwrap()["revision"], 1);
    let changes = plan["changes"].clone();
    assert_eq!(changes[0]["name"], "printer", "{plan:#}");
    let fields = json!([
        {"field": "to", "old": "[cidr:198.51.100.0/24, cidr:2001:db8:100::/64]", "new": "[cidr:198.51.100.0/24]"},
        {"field": "services", "old": "[tcp/7]", "new": "[tcp/9]"},
    ]);
    assert_eq!(changes[1]["fields"], fields, "{plan:#}");
    ctl.run(&["put", "-f", path]).unwrap().ok().unwrap();
    assert_eq!(ctl.json(&["diff"]).unwrap()["changes"], changes);
    assert_eq!(ctl.json(&["put", "-f", path]).unwrap()["unchanged"], true);

    let plan = ctl
        .json(&["plan", "--delete", "rule/needed", "device/printer"])
        .unwrap();
    let gone: Vec<_> = plan["changes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["change"].clone())
        .collect();
    assert_eq!(gone, [json!("remove"), json!("remove")]);
    // A plan is refused as the edit would be.
    for (arguments, line) in [
        (
            vec!["plan", "--delete", "zone/zone-1"],
            "zone/zone-1: is used by device/device-1, device/printer, port/lan1",
        ),
        (
            vec!["plan", "--delete", "rule/nobody"],
            "rule/nobody: is not there",
        ),
    ] {
        let answer = ctl.run(&arguments).unwrap();
        assert_eq!(answer.code, 4, "{answer:?}");
        assert!(answer.stderr.contains(line), "{answer:?}");
    }
    let mixed = ctl
        .run(&["plan", "-f", path, "--delete", "rule/needed"])
        .unwrap();
    assert_eq!(mixed.code, 2, "{mixed:?}");
}

#[test]
fn a_service_of_the_catalogue_is_known_by_name_and_stays_a_name() {
    let ward = Ward::new("services");
    let device = ward.device(1);
    ward.lab.settle().unwrap();
    let (_hl7, _other) = (
        ward.far.tcp_serve(2575).unwrap(),
        ward.far.tcp_serve(7777).unwrap(),
    );
    let guard = Guard::start(&ward.lab, "");
    let ctl = &guard.ctl;
    let opens = |port| device.tcp_connect(FAR[0], port, TIMEOUT) == Outcome::Connected;
    let document = policy(&[zone(1, "", "")], "hl7");
    guard.apply(&document);
    assert!(opens(2575) && !opens(7777));
    assert_eq!(
        ctl.json(&["get"]).unwrap()["rules"][0]["services"],
        json!(["hl7"])
    );
    let of = |name: &str| -> Value {
        let all = ctl.json(&["services"]).unwrap();
        let all = all["services"].as_array().unwrap().clone();
        all.into_iter().find(|it| it["name"] == name).unwrap()
    };
    let hl7 = of("hl7");
    assert_eq!(hl7["ports"], json!(["tcp/2575"]));
    assert!(
        hl7["source"].as_str().unwrap().starts_with("IANA hl7"),
        "{hl7}"
    );

    // The document's own name comes first, and can't be taken from under a rule that uses it.
    guard.apply(&(document + "services: [{name: hl7, ports: [tcp/7777]}]\n"));
    assert!(!opens(2575) && opens(7777));
    assert_eq!(of("hl7")["source"], "document");
    for command in [
        &["delete", "service/hl7"][..],
        &["plan", "--delete", "service/hl7"],
    ] {
        let answer = ctl.run(command).unwrap();
        assert_eq!(answer.code, 4, "{answer:?}");
        assert!(
            answer
                .stderr
                .contains("service/hl7: is used by rule/needed"),
            "{answer:?}"
        );
    }
}

#[test]
fn a_folder_is_one_document_and_problems_name_file_line_and_object() {
    let ward = Ward::new("parts");
    let guard = Guard::start(&ward.lab, "");
    let ctl = &guard.ctl;
    let folder = ward.lab.dir().join("policy.d");
    fs::create_dir_all(folder.join("ward-3")).unwrap();
    let write = |name: &str, text: &str| fs::write(folder.join(name), text).unwrap();
    let whole = policy(&[zone(1, "", "")], "tcp/7");
    let (zones, rest) = whole.split_at(whole.find("ports:").unwrap());
    let devices = rest.find("devices:").unwrap();
    write("10-zones.yaml", zones);
    write("20-rest.yml", rest);
    write("README.md", "not a part");
    write("30-empty.yaml", "# nothing yet\n");
    let more = "version: 1\ndevices:\n  - &camera {name: camera-1, zone: zone-1, labels: {kind: eye}, \
                addresses: [10.20.1.21]}\n  - {<<: *camera, name: camera-2, addresses: [10.20.1.22]}\n";
    write("ward-3/devices.yaml", more);
    let file = |name: &str| folder.join(name).display().to_string();
    let folder_name = folder.to_str().unwrap();

    ctl.run(&["apply", "-f", folder_name])
        .unwrap()
        .ok()
        .unwrap();
    let got = ctl.json(&["get"]).unwrap();
    assert_eq!(got["devices"][2]["name"], "camera-2", "{got:#}");
    assert_eq!(got["devices"][2]["labels"]["kind"], "eye");
    // The same from files, in whatever order.
    let [zones_file, rest_file] = [file("10-zones.yaml"), file("20-rest.yml")];
    let same = [
        "apply",
        "-f",
        &file("ward-3"),
        "-f",
        &rest_file,
        "-f",
        &zones_file,
    ];
    ctl.run(&same).unwrap().ok().unwrap();

    let refused = |answer: Answer| -> Vec<String> {
        assert_eq!(answer.code, 4, "{answer:?}");
        answer.stderr.lines().map(str::to_owned).collect()
    };
    let apply = || refused(ctl.run(&["apply", "-f", folder_name]).unwrap());
    // What only the router can know is placed as well, and a duplicate names both places.
    write(
        "ward-3/devices.yaml",
        &format!("{more}  - name: device-1\n    zone: zone-9\n    addresses: [10.20.1.23]\n"),
    );
    let line = rest[..devices].lines().count() + 2;
    let here = file("ward-3/devices.yaml");
    assert_eq!(
        apply(),
        [
            format!(
                "devices[2].name: \"device-1\" is the name of devices[0] ({}:{line}) already \
                 (device device-1, {here}:5)",
                rest_file
            ),
            format!(
                "devices[2].zone: no zone \"zone-9\"; did you mean \"zone-1\"? \
                 (device device-1, {here}:6)"
            ),
        ]
    );
    // What can't be read, too, beside what the router says of the rest.
    write(
        "ward-3/devices.yaml",
        &format!(
            "{more}  - {{name: camera-3, zone: 3}}\nrules:\n  - name: all\n    from: [any]\n    to: [router]\n    action: ACTION_ALLOW\n"
        ),
    );
    assert_eq!(
        apply(),
        [
            format!(
                "devices[2].zone: expected text, found 3; put it in quotes (device camera-3, {here}:5)"
            ),
            format!(
                "devices[2].addresses: missing, and so are macs; a device has addresses, a MAC, or both (device camera-3, {here}:5)"
            ),
            format!(
                "rules[0].services: missing; an allow rule lists what it allows, as a service's name or tcp/443; everything is tcp/*, udp/*, icmp/* and icmpv6/* (rule all, {here}:7)"
            ),
        ]
    );
    write("ward-3/devices.yaml", "devices: [");
    let lines = apply();
    assert!(
        lines[0].starts_with("error: not YAML: ") && lines[0].ends_with(&format!("({here})")),
        "{lines:?}"
    );
    assert_eq!(
        refused(ctl.run(&["put", "-f", &file("nowhere")]).unwrap()).len(),
        1
    );
    assert_eq!(
        ctl.json(&["get"]).unwrap()["devices"]
            .as_array()
            .unwrap()
            .len(),
        3
    );
}

/// Runs `wardctl` at a terminal of its own, where somebody types this.
fn at_a_terminal(guard: &Guard, arguments: &str, typed: &str) -> String {
    let command = format!(
        "{} --server {} {arguments}",
        guard.ctl.binary().display(),
        guard.ctl.server()
    );
    let mut script = Command::new("script")
        .args(["-qec", &command, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    script
        .stdin
        .take()
        .unwrap()
        .write_all(typed.as_bytes())
        .unwrap();
    let output = script.wait_with_output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_terminal_is_told_of_dangers_and_asked() {
    let ward = Ward::new("asked");
    ward.lab.settle().unwrap();
    let guard = Guard::start(&ward.lab, "");
    let revision = || {
        guard.ctl.json(&["status"]).unwrap()["revision"]
            .as_u64()
            .unwrap()
    };
    guard.apply(&policy(&[zone(1, "", "")], "tcp/7"));
    let file = ward.lab.dir().join("next.yaml");
    let wide =
        "  - {name: wide, from: [zone:zone-1], to: [router], services: [tcp/22], action: allow}\n";
    fs::write(&file, policy(&[zone(1, "", "")], "tcp/7") + wide).unwrap();
    let apply = format!("apply -f {}", file.display());

    let said = at_a_terminal(&guard, &apply, "n\n");
    assert!(
        said.contains("1 to add") && said.contains("make this change? [y/N]"),
        "{said}"
    );
    assert!(said.contains("nothing was changed"), "{said}");
    assert_eq!(revision(), 1);
    let said = at_a_terminal(&guard, &apply, "y\n");
    assert!(said.contains("revision 2"), "{said}");
    assert_eq!(revision(), 2);
    let said = at_a_terminal(&guard, "delete rule/wide --yes", "");
    assert!(
        !said.contains("[y/N]") && said.contains("revision 3"),
        "{said}"
    );
    let adopt = "adopt 02-00-00-00-77-01 --name new --zone zone-1";
    let said = at_a_terminal(&guard, adopt, "n\n");
    assert!(
        said.contains("1 to add") && said.contains("nothing was changed"),
        "{said}"
    );
    let table = ward.lab.dir().join("devices.csv");
    fs::write(&table, "name,zone,macs\nnew,zone-1,0200.0000.7701\n").unwrap();
    let said = at_a_terminal(&guard, &format!("import -f {}", table.display()), "n\n");
    assert!(
        said.contains("1 to add") && said.contains("nothing was changed"),
        "{said}"
    );
    assert_eq!(revision(), 3);
    // What changes nothing needs no question.
    guard
        .ctl
        .run(&["apply", "-f", file.to_str().unwrap()])
        .unwrap()
        .ok()
        .unwrap();
    let said = at_a_terminal(&guard, &apply, "");
    assert!(said.contains("there is nothing to change"), "{said}");
}

#[test]
fn lists_are_printed_as_csv() {
    let ward = Ward::new("csv");
    ward.lab.settle().unwrap();
    let guard = Guard::start(&ward.lab, "");
    guard.apply(&policy(&[zone(1, "", "")], "tcp/7"));
    let csv = |arguments: &[&str]| {
        let arguments = [&["-o", "csv"], arguments].concat();
        guard.ctl.run(&arguments).unwrap()
    };
    let devices = csv(&["devices"]).ok().unwrap();
    let mut lines = devices.lines();
    let heading = lines.next().unwrap();
    assert!(
        heading.starts_with("name,zone,macs,addresses,port,last_seen"),
        "{heading}"
    );
    assert!(
        lines.next().unwrap().starts_with("device-1,zone-1,"),
        "{devices}"
    );
    let history = csv(&["history"]).ok().unwrap();
    assert_eq!(history.lines().count(), 2, "{history}");
    let audit = csv(&["audit"]).ok().unwrap();
    assert!(audit.starts_with("sequence,time,actor,"), "{audit}");
    let counters = csv(&["counters"]).ok().unwrap();
    assert!(counters.contains("\nrules,needed,"), "{counters}");
    let refused = csv(&["get"]);
    assert_eq!(refused.code, 2, "{refused:?}");
}
