//! Parts that fail by themselves: the guard and the other parts go on, and each part heals when its
//! cause has gone.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::PathBuf,
    process::Command,
};

use tonic::transport::{Endpoint, Uri};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use wardline_tests::ward::{Guard, Ward, policy, program, zone};
use wardline_tests::{Ctl, Daemon, Settings, eventually, ward::PATIENCE};

use super::authority::{Authority, Kind};

/// An address that the router does not have at first.
const LATE: &str = "10.77.0.1";

#[test]
fn certificates_and_addresses_that_are_not_there_yet_hold_up_nothing_else() {
    let ward = Ward::new("late");
    let _device = ward.device(1);
    ward.lab.settle().unwrap();
    let file = |name: &str| ward.lab.dir().join(name);
    for name in ["late.pem", "late.key", "late-ca.pem"] {
        fs::write(file(name), "no certificate").unwrap();
    }
    let settings = Settings {
        api: format!(
            "listen = \"{LATE}:7443\"\ntls = {{ cert = {:?}, key = {:?}, client_ca = {:?} }}",
            file("late.pem"),
            file("late.key"),
            file("late-ca.pem"),
        ),
        more: format!("[metrics]\nlisten = \"{LATE}:9643\"\n"),
        ..Settings::default()
    };
    let daemon = Daemon::start(&ward.lab, &program("WARDLINE_WARDLINED"), &settings).unwrap();
    let ctl = Ctl::new(&program("WARDLINE_WARDCTL"), &daemon).unwrap();
    let guard = Guard { daemon, ctl };
    let broken = || -> Vec<String> {
        let status = guard.ctl.json(&["status"]).unwrap();
        let broken = status["broken"].as_array().unwrap().iter();
        broken
            .map(|it| it["name"].as_str().unwrap().to_owned())
            .collect()
    };
    assert!(
        eventually(PATIENCE, || broken() == ["certificates", "metrics"]),
        "{:?}",
        broken()
    );
    guard.apply(&policy(&[zone(1, "", "")], "tcp/7"));
    guard.wait_until_guarded("lan1");

    let authority = Authority::new("the clinic");
    authority
        .sign(Kind::Server, "router", &[LATE])
        .write(&file("late.pem"), &file("late.key"));
    fs::write(file("late-ca.pem"), &authority.pem).unwrap();
    assert!(
        eventually(3 * PATIENCE, || broken() == ["listener", "metrics"]),
        "{:?}",
        broken()
    );
    ward.lab
        .router()
        .ip(&format!("address add {LATE}/32 dev lo"))
        .unwrap();
    assert!(
        eventually(3 * PATIENCE, || broken().is_empty()),
        "{:?}",
        broken()
    );
    // Each cause is told once, however often it was tried.
    let log = guard.daemon.log();
    let told = log
        .lines()
        .filter(|line| line.contains("a part does not work"));
    assert_eq!(told.count(), 3, "{log}");
}

/// What the metrics say of a part.
fn metric(ward: &Ward, part: &str) -> Option<String> {
    let text = ward.lab.router().run(|| {
        let mut stream = TcpStream::connect("127.0.0.1:9643").unwrap();
        stream
            .write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    });
    let begin = format!("wardline_part_works{{part=\"{part}\"}} ");
    let text = text.unwrap();
    let found = text.lines().find_map(|line| line.strip_prefix(&begin));
    found.map(str::to_owned)
}

/// What the health service says of a part: 1 serves, 2 does not.
fn health(socket: PathBuf, part: &str) -> i32 {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let service = format!("wardline.{part}");
    runtime.block_on(async {
        let connector = tower::service_fn(move |_: Uri| {
            let socket = socket.clone();
            async move {
                let stream = tokio::net::UnixStream::connect(socket).await?;
                Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(stream))
            }
        });
        let endpoint = Endpoint::from_static("http://router");
        let channel = endpoint.connect_with_connector(connector).await.unwrap();
        let answer = HealthClient::new(channel)
            .check(HealthCheckRequest { service })
            .await;
        answer.unwrap().into_inner().status
    })
}

#[test]
fn metrics_and_the_health_service_tell_what_does_not_work() {
    let ward = Ward::new("told-parts");
    let mut guard = Guard::start(&ward.lab, "");
    let socket = guard.daemon.socket().to_owned();
    assert_eq!(health(socket.clone(), "audit"), 1);
    assert_eq!(metric(&ward, "audit").as_deref(), Some("1"));
    guard.daemon.terminate().unwrap();
    let audit = guard.daemon.config().with_file_name("state/audit.jsonl");
    let aside = audit.with_file_name("aside");
    fs::rename(&audit, &aside).unwrap();
    fs::create_dir(&audit).unwrap();
    guard.daemon.restart().unwrap();
    assert_eq!(health(socket.clone(), "audit"), 2);
    assert_eq!(health(socket.clone(), "database"), 1);
    assert_eq!(metric(&ward, "audit").as_deref(), Some("0"));
    fs::remove_dir(&audit).unwrap();
    fs::rename(&aside, &audit).unwrap();
    let heals = eventually(PATIENCE, || health(socket.clone(), "audit") == 1);
    assert!(heals);
    let counts = eventually(PATIENCE, || metric(&ward, "audit").as_deref() == Some("1"));
    assert!(counts);
}

#[test]
fn signals_that_are_not_for_ending_end_nothing() {
    let ward = Ward::new("signals");
    let guard = Guard::start(&ward.lab, "");
    let pid = guard.daemon.pid().unwrap().to_string();
    for signal in ["-HUP", "-USR1", "-USR2"] {
        let sent = Command::new("kill").args([signal, &pid]).status().unwrap();
        assert!(sent.success());
    }
    let heard = || {
        guard
            .daemon
            .log()
            .contains("certificates and configuration are read again")
    };
    assert!(eventually(PATIENCE, heard), "{}", guard.daemon.log());
    assert!(guard.ctl.json(&["status"]).is_ok());
}
