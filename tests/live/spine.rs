//! The daemon as its users see it: the API over its socket, `wardctl` as a person types it, and
//! real hosts in the clinic.

use std::time::Duration;

use wardline_proto::v1::{self, segmentation_client::SegmentationClient};
use wardline_tests::{
    Ctl, Daemon, Lab, Outcome, Settings, TIMEOUT,
    clinic::{Clinic, Expected, RTSP, SOURCES, SSH, TARGETS},
    eventually,
    ward::program,
};

const CLINIC: &str = include_str!("../../examples/clinic.yaml");
const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) fn start(lab: &Lab) -> (Daemon, Ctl) {
    let daemon = Daemon::start(lab, &program("WARDLINE_WARDLINED"), &Settings::default()).unwrap();
    let ctl = Ctl::new(&program("WARDLINE_WARDCTL"), &daemon).unwrap();
    (daemon, ctl)
}

/// Where the clinic's hosts reach more or less than its policy says.
fn differences(clinic: &Clinic) -> Vec<String> {
    let matrix = clinic.matrix().unwrap();
    let mut wrong = Vec::new();
    for (source, row) in SOURCES.iter().zip(matrix) {
        for (target, outcome) in TARGETS.iter().zip(row) {
            let arrives = match target.expected(source) {
                Expected::Itself => continue,
                Expected::Allow | Expected::Unjudged => true,
                Expected::Drop => false,
            };
            if (outcome == Outcome::Connected) != arrives {
                wrong.push(format!(
                    "{source} to {} {}: {outcome:?}",
                    target.host, target.service
                ));
            }
        }
    }
    wrong
}

#[test]
fn the_clinic_is_what_its_policy_says() {
    let clinic = Clinic::build(|_| {}).unwrap();
    let (mut daemon, ctl) = start(&clinic.lab);
    ctl.apply(CLINIC).unwrap().ok().unwrap();
    let status = ctl.json(&["status"]).unwrap();
    assert!(
        status["ports"]
            .as_array()
            .unwrap()
            .iter()
            .all(|port| port["attached"] != "none")
    );
    assert_eq!(differences(&clinic), [""; 0]);

    // Event and explanation agree with what happened to a real packet.
    let told = eventually(PATIENCE, || {
        // Events are limited to one a second: another drop of this camera may have used it.
        let outcome = clinic.camera1.tcp_connect("10.20.2.22", SSH, TIMEOUT);
        assert_eq!(outcome, Outcome::Dropped);
        ctl.events().unwrap().iter().any(|event| {
            event["device"] == "camera-1"
                && event["destination"] == "10.20.2.22"
                && event["reason"] == "no_rule"
                && event["verdict"] == "drop"
        })
    });
    assert!(told, "{:#?}", ctl.events());
    let explain = [
        "-o",
        "json",
        "explain",
        "--from",
        "device:camera-1",
        "--to",
        "10.20.2.22",
        "tcp/22",
    ];
    let answer = ctl.run(&explain).unwrap();
    assert_eq!(answer.code, 3, "{answer:?}");
    assert!(answer.stdout.contains("no_rule"), "{answer:?}");

    // Without a daemon the verdicts stay, and a restarted daemon takes them over.
    let mut session = clinic.nurse.session("10.20.2.21", RTSP).unwrap();
    assert!(session.echo(b"before"));
    daemon.kill9().unwrap();
    assert!(session.echo(b"without"));
    assert_eq!(differences(&clinic), [""; 0]);
    daemon.restart().unwrap();
    assert!(session.echo(b"after"));
    assert_eq!(ctl.json(&["status"]).unwrap()["revision"], 1);
    let flows = ctl.json(&["flows"]).unwrap();
    let flow = flows["flows"].as_array().unwrap().iter().find(|flow| {
        flow["destination"] == "10.20.2.21"
            && flow["destination_port"] == 554
            && flow["state"] == "established"
    });
    assert!(
        flow.is_some_and(|flow| flow["packets"][0].as_u64() > Some(3)),
        "{flows:#}"
    );

    // Removing a session's rule cuts that session, and no other.
    let (mut policy, _) = wardline_proto::document::parse(CLINIC);
    policy
        .rules
        .retain(|rule| !rule.services.iter().any(|service| service == "rtsp"));
    let mut other = clinic
        .nurse
        .session("10.20.9.10", 443)
        .or_else(|_| clinic.nurse.session("fd20:0:0:9::10", 443))
        .unwrap();
    assert!(other.echo(b"other"));
    ctl.apply(&wardline_proto::document::policy_to_yaml(&policy))
        .unwrap()
        .ok()
        .unwrap();
    assert!(!session.echo(b"cut"));
    assert!(other.echo(b"still"));

    daemon.terminate().unwrap();
    assert_eq!(
        clinic.camera1.tcp_connect("10.20.2.22", SSH, TIMEOUT),
        Outcome::Dropped
    );
    daemon.detach().unwrap();
    assert!(!daemon.pins().exists());
    assert_eq!(
        clinic.camera1.tcp_connect("10.20.2.22", SSH, TIMEOUT),
        Outcome::Connected
    );
    drop((session, other, daemon));
    clinic.close().unwrap();
}

#[test]
fn a_malformed_document_is_refused_whole() {
    let lab = Lab::new("refused").unwrap();
    let (daemon, ctl) = start(&lab);
    let good = "version: 1\nzones: [{name: a, subnets: [10.1.0.0/16]}]\n";
    assert_eq!(ctl.apply(good).unwrap().code, 0);
    let bad = r#"
version: 1
colour: red
zones:
  - {name: a, subnets: [10.1.0.0/16]}
devices:
  - {name: x, zone: nowhere, macs: ["02:00:00:00:00:01"], addresses: [10.1.0.1]}
  - {name: x, zone: a, macs: ["02:00:00:00:00:zz"], addresses: [10.1.0.2]}
rules:
  - {name: r, from: [zone:a], to: [any], services: [tcp/90-80], action: allow}
"#;
    let answer = ctl.apply(bad).unwrap();
    assert_eq!(answer.code, 4, "{answer:?}");
    for path in [
        "colour: ",
        "devices[0].zone: ",
        "devices[1].name: ",
        "devices[1].macs[0]: ",
        "rules[0].services[0]: ",
    ] {
        assert!(
            answer.stderr.lines().any(|line| line.starts_with(path)),
            "{path} {answer:?}"
        );
    }
    let status = ctl.json(&["status"]).unwrap();
    assert_eq!(status["revision"], 1);
    let kept = ctl.run(&["get"]).unwrap();
    assert!(kept.stdout.contains("10.1.0.0/16") && !kept.stdout.contains("nowhere"));
    // A plan says what would change, and changes nothing.
    let plan = "version: 1\nzones: [{name: b}]\n";
    let file = lab.dir().join("plan.yaml");
    std::fs::write(&file, plan).unwrap();
    let answer = ctl
        .run(&["-o", "json", "plan", "-f", file.to_str().unwrap()])
        .unwrap();
    assert_eq!(answer.code, 0, "{answer:?}");
    assert!(
        answer.stdout.contains("remove") && answer.stdout.contains("add"),
        "{answer:?}"
    );
    assert_eq!(ctl.json(&["status"]).unwrap()["revision"], 1);
    // Exit codes: stale base, wrong usage, no such file, no server.
    let answer = ctl
        .run(&["apply", "-f", file.to_str().unwrap(), "--base", "7"])
        .unwrap();
    assert_eq!(answer.code, 4, "{answer:?}");
    assert_eq!(ctl.run(&["aply"]).unwrap().code, 2);
    assert_eq!(
        ctl.run(&["apply", "-f", "no-such-file.yaml"]).unwrap().code,
        4
    );
    let nowhere = std::process::Command::new(ctl.binary())
        .args(["--server", "unix:///nowhere.sock", "status"])
        .output()
        .unwrap();
    assert_eq!(nowhere.status.code(), Some(1));
    drop(daemon);
    lab.close().unwrap();
}

#[test]
fn a_thousand_devices_take_force() {
    use std::fmt::Write as _;
    let lab = Lab::new("thousand").unwrap();
    let (daemon, ctl) = start(&lab);
    let mut text = String::from("version: 1\nzones:\n");
    for zone in 0..20 {
        writeln!(text, "  - {{name: z{zone}, subnets: [10.{zone}.0.0/16]}}").unwrap();
    }
    text.push_str("ports: [{interface: lan0, zone: z0}]\ndevices:\n");
    for device in 0..1000 {
        let (zone, host) = (device % 20, device / 20 + 1);
        writeln!(
            text,
            "  - {{name: d{device}, zone: z{zone}, \
             macs: [\"02:00:00:00:{:02x}:{:02x}\"], addresses: [10.{zone}.0.{host}]}}",
            device >> 8,
            device & 255
        )
        .unwrap();
    }
    text.push_str("rules:\n");
    for rule in 0..5000 {
        let (from, to, port) = (rule % 1000, (rule * 7) % 20, 1000 + rule % 3000);
        writeln!(
            text,
            "  - {{name: r{rule}, from: [device:d{from}], to: [zone:z{to}], \
             services: [tcp/{port}], action: allow}}"
        )
        .unwrap();
    }
    let started = std::time::Instant::now();
    ctl.apply(&text).unwrap().ok().unwrap();
    println!(
        "1,000 devices and 5,000 rules in force after {:?}",
        started.elapsed()
    );
    let counters = ctl.json(&["counters"]).unwrap();
    assert_eq!(counters["rules"].as_array().unwrap().len(), 5000);
    assert_eq!(
        ctl.json(&["devices"]).unwrap()["devices"]
            .as_array()
            .unwrap()
            .len(),
        1000
    );
    drop(daemon);
    lab.close().unwrap();
}

#[test]
fn the_api_tells_what_it_is() {
    let lab = Lab::new("api").unwrap();
    let (daemon, _) = start(&lab);
    let socket = daemon.socket().to_owned();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let connector = tower::service_fn(move |_: tonic::transport::Uri| {
            let socket = socket.clone();
            async move {
                let stream = tokio::net::UnixStream::connect(socket).await?;
                Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(stream))
            }
        });
        let channel = tonic::transport::Endpoint::from_static("http://local")
            .connect_with_connector(connector)
            .await
            .unwrap();
        let mut health = tonic_health::pb::health_client::HealthClient::new(channel.clone());
        let request = tonic_health::pb::HealthCheckRequest {
            service: "wardline.v1.Segmentation".to_owned(),
        };
        let answer = health.check(request).await.unwrap().into_inner();
        assert_eq!(
            answer.status(),
            tonic_health::pb::health_check_response::ServingStatus::Serving
        );

        use tonic_reflection::pb::v1::{
            ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
            server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
        };
        let mut reflection = ServerReflectionClient::new(channel.clone());
        let request = ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::ListServices(String::new())),
        };
        let mut answers = reflection
            .server_reflection_info(tokio_stream::iter([request]))
            .await
            .unwrap()
            .into_inner();
        let answer = answers
            .message()
            .await
            .unwrap()
            .unwrap()
            .message_response
            .unwrap();
        let MessageResponse::ListServicesResponse(services) = answer else {
            panic!("{answer:?}")
        };
        let names: Vec<_> = services
            .service
            .into_iter()
            .map(|service| service.name)
            .collect();
        assert!(
            names.contains(&"wardline.v1.Segmentation".to_owned()),
            "{names:?}"
        );

        let mut client = SegmentationClient::new(channel);
        let refused = client
            .apply(v1::ApplyRequest {
                policy: Some(v1::Policy::default()),
                ..Default::default()
            })
            .await
            .unwrap_err();
        assert_eq!(refused.code(), tonic::Code::InvalidArgument);
        let refused = client
            .quarantine(v1::QuarantineRequest::default())
            .await
            .unwrap_err();
        assert_eq!(refused.code(), tonic::Code::NotFound);
        let refused = client
            .quarantine(v1::QuarantineRequest {
                port: "lan1".to_owned(),
                ..v1::QuarantineRequest::default()
            })
            .await
            .unwrap_err();
        assert_eq!(refused.code(), tonic::Code::NotFound);
        let refused = client
            .release(v1::ReleaseRequest {
                device: "device-1".to_owned(),
                port: "lan1".to_owned(),
                ..v1::ReleaseRequest::default()
            })
            .await
            .unwrap_err();
        assert_eq!(refused.code(), tonic::Code::InvalidArgument);
        let refused = client
            .confirm(v1::ConfirmRequest::default())
            .await
            .unwrap_err();
        assert_eq!(refused.code(), tonic::Code::InvalidArgument);
        let status = client
            .get_status(v1::GetStatusRequest {})
            .await
            .unwrap()
            .into_inner();
        assert_eq!((status.revision, status.ports.len()), (0, 0));
    });
    drop(daemon);
    lab.close().unwrap();
}

#[test]
fn an_interface_that_appears_is_guarded() {
    let lab = Lab::new("appears").unwrap();
    let (daemon, ctl) = start(&lab);
    let text = "version: 1\nzones: [{name: a, subnets: [10.1.0.0/16]}]\n\
                ports: [{interface: \"lan*\", zone: a}]\n";
    ctl.apply(text).unwrap().ok().unwrap();
    assert_eq!(
        ctl.json(&["status"]).unwrap()["ports"],
        serde_json::json!([])
    );
    lab.router()
        .ip("link add lan7 type veth peer name far")
        .unwrap();
    let guarded = eventually(PATIENCE, || {
        ctl.json(&["status"]).unwrap()["ports"][0]["attached"] == "xdp"
    });
    assert!(guarded, "{:#}", ctl.json(&["status"]).unwrap());
    lab.router().ip("link del lan7").unwrap();
    let gone = eventually(PATIENCE, || {
        ctl.json(&["status"]).unwrap()["ports"]
            .as_array()
            .unwrap()
            .is_empty()
    });
    assert!(gone);
    drop(daemon);
    lab.close().unwrap();
}
