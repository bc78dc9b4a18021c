//! Which certificates are accepted, how they are replaced, and how contexts of `wardctl` name them.

use std::fs;

use serde_json::Value;
use tonic::{Code, Status, transport::Endpoint};
use wardline_proto::v1::{self, segmentation_client::SegmentationClient};
use wardline_tests::eventually;

use super::{PATIENCE, POLICY, PORT, Ward, ask, connect, server};
use crate::management::authority::{Authority, Kind, believing, replace};

#[test]
fn only_a_certificate_that_is_good_gets_in() {
    let ward = Ward::new("certificates");
    let other = Authority::new("somebody else");
    let signed = |authority: &Authority, kind| authority.sign(kind, "Ada", &["ada@clinic"]);
    assert_eq!(
        ward.status_for(ward.admin().shown_to(&ward.authority))
            .unwrap(),
        0
    );
    let before = ward.records().len();
    for (what, tls) in [
        ("none", believing(&ward.authority)),
        (
            "expired",
            signed(&ward.authority, Kind::Expired).shown_to(&ward.authority),
        ),
        (
            "not yet valid",
            signed(&ward.authority, Kind::NotYet).shown_to(&ward.authority),
        ),
        (
            "a server's",
            signed(&ward.authority, Kind::Server).shown_to(&ward.authority),
        ),
        (
            "of another authority",
            signed(&other, Kind::Client).shown_to(&ward.authority),
        ),
    ] {
        let answer = ward.status_for(tls);
        assert!(answer.is_err(), "{what}: {answer:?}");
    }
    // A client that trusts another authority does not even show its own certificate.
    assert!(ward.status_for(ward.admin().shown_to(&other)).is_err());
    // There is no plaintext.
    let plain = ward.there(async || {
        let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{PORT}")).unwrap();
        let channel = endpoint.timeout(PATIENCE).connect().await;
        match channel {
            Ok(channel) => ask(&channel, "/wardline.v1.Segmentation/GetStatus").await,
            Err(error) => Status::unavailable(error.to_string()),
        }
    });
    assert_ne!(plain.code(), Code::Ok);
    // Refused handshakes are logged but not audited: they could fill the disk.
    assert_eq!(ward.records().len(), before);
    assert!(
        ward.daemon.log().contains("turned away"),
        "{}",
        ward.daemon.log()
    );

    // wardctl says why it was refused.
    let file = |name: &str| ward.files.join(name).display().to_string();
    let ca = file("clients.pem");
    let expired = signed(&ward.authority, Kind::Expired);
    expired.write(&ward.files.join("old.pem"), &ward.files.join("old.key"));
    let server = format!("https://127.0.0.1:{PORT}");
    let words = ["--server", &server, "--ca", &ca, "--cert", &file("old.pem")];
    let (code, _, told) = ward.wardctl(
        &[&words[..], &["--key", &file("old.key"), "status"]].concat(),
        &[],
    );
    assert_eq!(code, 1, "{told}");
    assert!(told.to_lowercase().contains("expired"), "{told}");
    ward.close();
}

#[test]
fn a_name_counts_as_what_the_certificate_says_it_is() {
    let ward = Ward::new("names");
    // Roles are for cn:vera, uri:spiffe://clinic/netops/* and email:*@clinic.
    for (common, name, has_role) in [
        ("x", "ada@clinic", true),
        ("x", "spiffe://clinic/netops/ada", true),
        ("vera", "x.example", true),
        // A common name is no mail address and no URI, and nor is a host or a longer path.
        ("ada@clinic", "x.example", false),
        ("spiffe://clinic/netops/ada", "x.example", false),
        ("x", "vera", false),
        ("x", "spiffe://clinic/netops/ada/root", false),
        ("x", "spiffe://clinic/ada@clinic", false),
        ("x", "ada@clinic.example", false),
    ] {
        let answer = ward.status_for(ward.client(common, &[name]).shown_to(&ward.authority));
        match answer {
            Ok(_) => assert!(has_role, "{common}, {name}"),
            Err(status) => {
                assert!(!has_role, "{common}, {name}: {status:?}");
                assert_eq!(
                    status.code(),
                    Code::PermissionDenied,
                    "{common}, {name}: {status:?}"
                );
            }
        }
    }
    ward.close();
}

#[test]
fn certificates_change_without_a_restart() {
    let ward = Ward::new("reload");
    let file = |name: &str| ward.files.join(name);
    let (old, new) = (ward.admin(), Authority::new("the new one"));
    let fresh = new.sign(Kind::Client, "Ada", &["ada@clinic"]);
    assert!(ward.status_for(fresh.shown_to(&ward.authority)).is_err());

    // A key that does not match is reported, and the old certificate stays in use.
    replace(&file("server.key"), &server(&new).key);
    assert!(
        eventually(PATIENCE, || ward.daemon.log().contains("not the key of")),
        "{}",
        ward.daemon.log()
    );
    assert!(ward.status_for(old.shown_to(&ward.authority)).is_ok());

    // Another certificate for the router: clients that trust the new authority get in.
    server(&new).write(&file("server.pem"), &file("server.key"));
    assert!(eventually(PATIENCE, || ward
        .status_for(old.shown_to(&new))
        .is_ok()));
    assert!(ward.status_for(old.shown_to(&ward.authority)).is_err());

    // Another authority for clients: a client that is no longer trusted is cut off, with its
    // streams.
    let tls = old.shown_to(&new);
    let clients = file("clients.pem");
    let pem = new.pem.clone();
    let cut = ward.there(async || {
        let channel = connect("127.0.0.1", tls).await.unwrap();
        let mut client = SegmentationClient::new(channel);
        let request = v1::WatchEventsRequest {
            follow: true,
            ..Default::default()
        };
        let mut events = client.watch_events(request).await.unwrap().into_inner();
        replace(&clients, &pem);
        let end = tokio::time::timeout(PATIENCE, events.message()).await;
        let again = client.get_status(v1::GetStatusRequest {}).await;
        (end.map(|message| message.is_err()), again.is_err())
    });
    assert_eq!(cut, (Ok(true), true));
    assert!(ward.status_for(old.shown_to(&new)).is_err());
    assert!(ward.status_for(fresh.shown_to(&new)).is_ok());
    ward.close();
}

#[test]
fn a_context_is_the_way_to_a_router() {
    let ward = Ward::new("contexts");
    let admin = ward.admin();
    admin.write(&ward.files.join("ada.pem"), &ward.files.join("ada.key"));
    let contexts = ward.files.join("home/contexts.yaml");
    let home = [("WARDLINE_CONTEXTS", contexts.to_str().unwrap())];
    let run = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        ward.wardctl(&words, &home)
    };
    let ok = |line: &str| {
        let (code, out, err) = run(line);
        assert_eq!((code, err.as_str()), (0, ""), "{line}");
        out
    };
    let fails = |line: &str, expected: i32, word: &str| {
        let (code, out, err) = run(line);
        assert_eq!(code, expected, "{line}: {out}{err}");
        assert!(err.contains(word), "{line}: {err}");
    };
    assert_eq!(ok("context list"), "no contexts\n");
    fails("context use ward-3", 4, "there is none yet");
    fails("status --context ward-3", 4, "there is none yet");
    fails("context set ward-3", 2, "--server");
    fails(
        "context set ward-3 --server https://127.0.0.1:7443 --ca clients.pem",
        2,
        "--cert, --key",
    );
    fails("context set ward-3 --server ftp://x", 2, "unix:///PATH");
    ok(
        "context set ward-3 --server https://127.0.0.1:7443 --ca clients.pem --cert ada.pem --key ada.key",
    );
    // The first is the current one; its files are found from anywhere.
    assert!(ok("status").contains("lab-router"));
    let socket = ward.ctl.server();
    ok(&format!("context set here --server {socket}"));
    assert!(ok("context list").contains("*  ward-3  https://127.0.0.1:7443/"));
    ok("context use here");
    assert!(ok("status").contains("lab-router"));
    let json: Value = serde_json::from_str(&ok("-o json context list")).unwrap();
    assert_eq!(json["current"], "here");
    assert_eq!(json["contexts"][1]["name"], "ward-3");
    assert_eq!(json["contexts"][0]["server"], socket);
    // The audit shows which context was used.
    let file = ward.files.join("p.yaml");
    fs::write(&file, POLICY).unwrap();
    assert_eq!(run("apply -f p.yaml").0, 0);
    assert_eq!(run("apply -f p.yaml --context ward-3").0, 0);
    let records = ward.records();
    assert_eq!(records[0]["actor"], "uid:0");
    assert_eq!(records[1]["actor"], "cert:ada@clinic");
    // The environment beats the current context; `--context` and `--server` beat the environment.
    let environment = [home[0], ("WARDLINE_SERVER", "unix:///nowhere.sock")];
    let status = |words: &[&str]| ward.wardctl(words, &environment).0;
    assert_eq!(status(&["status"]), 1);
    assert_eq!(status(&["status", "--context", "ward-3"]), 0);
    assert_eq!(status(&["status", "--server", socket]), 0);
    fails(
        &format!("status --context here --server {socket}"),
        2,
        "leave out --server",
    );
    // Unknown contexts and missing files.
    fails("context use ward-4", 4, "there are: here, ward-3");
    fails("status --context ward-4", 4, "there are: here, ward-3");
    fails("context delete ward-4", 4, "no context \"ward-4\"");
    fails(
        "status --context ward-3 --cert nowhere.pem",
        1,
        "nowhere.pem",
    );
    let (_, _, warning) = run("context set ward-3 --key nowhere.key");
    assert!(warning.starts_with("warning: can't read"), "{warning}");
    ok("context delete here");
    let list = ok("context list");
    assert!(!list.contains('*') && !list.contains("here"), "{list}");
    fails("status", 1, "/run/wardline/api.sock");
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&contexts).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    fs::write(&contexts, "contexts:\n  a:\n    sever: x\n").unwrap();
    fails("status", 4, "contexts.yaml: ");
    fails("context list", 4, "unknown field `sever`");
    ward.close();
}
