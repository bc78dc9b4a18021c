//! The audit: changes and refusals with their actors, also after a crash or a lost client.

use std::{fs, time::Duration};

use tonic::Request;
use wardline_proto::v1::{self, segmentation_client::SegmentationClient};
use wardline_tests::eventually;

use super::{PATIENCE, POLICY, Ward, connect, local};

#[test]
fn the_audit_has_who_changed_what_and_who_was_refused() {
    let mut ward = Ward::new("audit");
    ward.ctl.apply(POLICY).unwrap().ok().unwrap();
    let other = POLICY.replace("name: a", "name: b");
    let file = ward.files.join("other.yaml");
    fs::write(&file, &other).unwrap();
    let reason = [
        "apply",
        "-f",
        file.to_str().unwrap(),
        "--reason",
        "ticket \"17\"\n",
    ];
    ward.ctl.run(&reason).unwrap().ok().unwrap();
    let bad = ward.ctl.apply("version: 1\nrules: [{name: r}]\n").unwrap();
    assert_eq!(bad.code, 4);
    let (viewer, admin) = (ward.viewer(), ward.admin());
    let tls = [viewer, admin].map(|client| client.shown_to(&ward.authority));
    ward.there(async || {
        for tls in tls {
            let channel = connect("127.0.0.1", tls).await.unwrap();
            let mut client = SegmentationClient::new(channel);
            let mut request = Request::new(v1::ApplyRequest {
                policy: Some(wardline_proto::document::parse(POLICY).0),
                reason: "back".to_owned(),
                ..Default::default()
            });
            request
                .metadata_mut()
                .insert("x-request-id", "r-1".parse().unwrap());
            let _ = client.apply(request).await;
            let _ = client.get_status(v1::GetStatusRequest {}).await;
        }
    });
    let records = ward.records();
    let told: Vec<String> = records
        .iter()
        .map(|record| {
            let of = |field: &str| record[field].to_string().replace('"', "");
            let fields = [
                "sequence", "actor", "role", "call", "reason", "outcome", "before", "after",
            ];
            fields.map(of).join(" ")
        })
        .collect();
    assert_eq!(
        told,
        [
            "1 uid:0 admin Apply  ok 0 1",
            "2 uid:0 admin Apply ticket \\17\\\\n ok 1 2",
            "3 uid:0 admin Apply  invalid_argument null null",
            "4 cert:vera viewer Apply  permission_denied null null",
            "5 cert:ada@clinic admin Apply back ok 2 3",
        ]
    );
    assert_eq!(records[4]["request_id"], "r-1");
    assert_ne!(records[0]["request_id"], records[1]["request_id"]);
    assert!(records[0]["address"].as_str().unwrap().starts_with("unix:"));
    assert!(
        records[4]["address"]
            .as_str()
            .unwrap()
            .starts_with("127.0.0.1:")
    );

    // The records verify, and the head stands for all of them; an export has the same head.
    let head = |ward: &Ward| {
        let text = ward.ctl.run(&["audit", "--verify"]).unwrap().ok().unwrap();
        text.rsplit_once("head ").unwrap().1.trim().to_owned()
    };
    let noted = head(&ward);
    assert!(noted.starts_with("5:"), "{noted}");
    let export = ward.files.join("export.jsonl");
    let text = ward.ctl.run(&["-o", "json", "audit"]).unwrap().stdout;
    fs::write(&export, &text).unwrap();
    let exported = ["audit", "--file", export.to_str().unwrap()];
    let verified = [&exported[..], &["--verify", "--head", &noted]].concat();
    assert_eq!(ward.ctl.run(&verified).unwrap().code, 0);
    assert!(
        ward.ctl
            .run(&exported)
            .unwrap()
            .stdout
            .contains("cert:vera")
    );
    let newest = ward
        .ctl
        .run(&["-o", "json", "audit", "--limit", "2"])
        .unwrap()
        .stdout;
    assert_eq!(
        newest.lines().collect::<Vec<_>>(),
        text.lines().skip(3).collect::<Vec<_>>()
    );

    // Tampering of each kind is reported with its line.
    let kept = ward
        .daemon
        .config()
        .with_file_name("state")
        .join("audit.jsonl");
    let findings = |ward: &Ward, arguments: &[&str]| {
        let answer = ward
            .ctl
            .run(&[&["audit", "--verify"], arguments].concat())
            .unwrap();
        assert_eq!(answer.code, 4, "{answer:?}");
        answer.stderr
    };
    let lines: Vec<&str> = text.lines().collect();
    let write = |lines: &[&str]| {
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        fs::write(&kept, text).unwrap();
    };
    let forged = lines[3].replace("cert:vera", "cert:otto");
    write(&[lines[0], lines[1], lines[2], &forged, lines[4]]);
    assert!(findings(&ward, &[]).starts_with("line 4: record 4 was changed"));
    write(&[lines[0], lines[2], lines[3], lines[4]]);
    assert_eq!(findings(&ward, &[]), "line 2: record 2 is missing\n");
    write(&lines[..3]);
    assert_eq!(
        findings(&ward, &[]),
        "after line 3: records 4 to 5 are missing, which were there once\n"
    );
    // The gap is still reported after a restart, and after the next record.
    ward.daemon.restart().unwrap();
    assert!(
        ward.daemon.log().contains("tampered"),
        "{}",
        ward.daemon.log()
    );
    ward.ctl.apply(&other).unwrap().ok().unwrap();
    assert_eq!(findings(&ward, &[]), "line 4: records 4 to 5 are missing\n");
    // Only a head that was noted elsewhere shows that the whole file was replaced.
    ward.daemon.terminate().unwrap();
    fs::remove_file(&kept).unwrap();
    fs::remove_file(kept.with_extension("head")).unwrap();
    ward.daemon.restart().unwrap();
    for _ in 0..7 {
        ward.ctl.apply(POLICY).unwrap().ok().unwrap();
    }
    // Four records made from the history, and seven new ones.
    assert!(head(&ward).starts_with("11:"));
    assert_eq!(
        findings(&ward, &["--head", &noted]),
        "line 5: record 5 is not the one that was noted\n"
    );
    ward.close();
}

#[test]
fn a_change_that_a_crash_kept_from_the_audit_is_found_in_the_history() {
    let mut ward = Ward::new("found");
    ward.ctl.apply(POLICY).unwrap().ok().unwrap();
    let kept = ward.daemon.config().with_file_name("state/audit.jsonl");
    let before = [kept.clone(), kept.with_extension("head")].map(|path| {
        let bytes = fs::read(&path).unwrap();
        (path, bytes)
    });
    let reason = ["--reason", "ticket 17"];
    let file = ward.files.join("p.yaml");
    fs::write(&file, POLICY.replace("name: a", "name: b")).unwrap();
    let apply = [&["apply", "-f", file.to_str().unwrap()], &reason[..]].concat();
    ward.ctl.run(&apply).unwrap().ok().unwrap();
    ward.daemon.kill9().unwrap();
    for (path, bytes) in before {
        fs::write(path, bytes).unwrap();
    }
    for _ in 0..2 {
        ward.daemon.restart().unwrap();
        let records = ward.records();
        assert_eq!(records.len(), 2);
        assert_eq!(records[1]["reason"], "ticket 17");
        assert_eq!(
            (&records[1]["before"], &records[1]["after"]),
            (&1.into(), &2.into())
        );
        assert!(
            records[1]["message"]
                .as_str()
                .unwrap()
                .contains("found in the history")
        );
    }
    assert_eq!(ward.ctl.run(&["audit", "--verify"]).unwrap().code, 0);
    ward.close();
}

#[test]
fn a_change_whose_client_is_gone_has_its_record_all_the_same() {
    let ward = Ward::new("gone");
    let mut policy = wardline_proto::document::parse(POLICY).0;
    for device in 0..2000_u32 {
        policy.devices.push(v1::Device {
            name: format!("d{device}"),
            zone: "a".to_owned(),
            addresses: vec![format!("10.1.{}.{}", device / 250, device % 250 + 1)],
            ..Default::default()
        });
    }
    let socket = ward.daemon.socket().to_owned();
    ward.there(async || {
        for n in 0..20_u64 {
            let mut client = SegmentationClient::new(local(socket.clone()).await);
            // What changes nothing makes no revision.
            policy.zones[0].description = n.to_string();
            let request = v1::ApplyRequest {
                policy: Some(policy.clone()),
                reason: n.to_string(),
                ..Default::default()
            };
            let patience = Duration::from_millis(5 * n);
            let _ = tokio::time::timeout(patience, client.apply(request)).await;
        }
    });
    let agreed = eventually(PATIENCE, || {
        let revision = ward.ctl.json(&["status"]).unwrap()["revision"]
            .as_u64()
            .unwrap();
        let made = ward
            .records()
            .iter()
            .filter(|record| record["outcome"] == "ok")
            .count();
        revision > 0 && made as u64 == revision
    });
    assert!(agreed, "{:#?}", ward.records());
    ward.close();
}
