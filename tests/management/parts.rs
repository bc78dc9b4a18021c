//! Parts that fail by themselves: the guard and the other parts go on, and each part heals when its
//! cause has gone.

use std::fs;

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
