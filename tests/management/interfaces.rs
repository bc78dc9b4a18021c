//! What is absent is told: ports without an interface, interfaces without a guard, short-lived pins.

use std::process::Command;

use serde_json::{Value, json};
use wardline_tests::{Ctl, Daemon, Lab, Settings, eventually, ward::program};

use crate::live::spine;

const POLICY: &str = "version: 1
zones: [{name: pumps, subnets: [10.20.1.0/24]}]
ports:
  - {interface: lan1, zone: pumps}
  - {interface: enp9s0, zone: pumps}
  - {interface: lna2, zone: pumps}
";

/// What is said of one interface.
fn told(list: &Value, name: &str) -> Value {
    let list = list["interfaces"].as_array().unwrap();
    let found = list.iter().find(|it| it["name"] == name);
    found.unwrap_or_else(|| panic!("{name}: {list:#?}")).clone()
}

fn exposes(interface: &Value, part: &str) -> bool {
    let sentences = interface["exposes"].as_array().unwrap();
    sentences
        .iter()
        .any(|it| it.as_str().unwrap().contains(part))
}

#[test]
fn every_interface_and_what_follows_is_listed() {
    let lab = Lab::new("interfaces").unwrap();
    let router = lab.router();
    for command in [
        "link add br0 type bridge",
        "link add lan1 type veth peer name far1",
        "link add lan2 type veth peer name far2",
        "link set lan1 master br0",
        "link set lan2 master br0",
        "link add wan0 type veth peer name far0",
        "link property add dev wan0 altname enp9s0",
        "address add 10.20.1.1/24 dev br0",
        "address add 192.0.2.1/24 dev wan0",
        "link set lo up",
        "link set br0 up",
        "link set lan1 up",
        "link set lan2 up",
        "link set wan0 up",
    ] {
        router.ip(command).unwrap();
    }
    let _listener = router
        .run(|| std::net::TcpListener::bind("0.0.0.0:2222"))
        .unwrap()
        .unwrap();
    let more = "[metrics]\nlisten = \"127.0.0.1:9643\"";
    let settings = Settings {
        more: more.to_owned(),
        ..Settings::default()
    };
    let daemon = Daemon::start(&lab, &program("WARDLINE_WARDLINED"), &settings).unwrap();
    let ctl = Ctl::new(&program("WARDLINE_WARDCTL"), &daemon).unwrap();
    let answer = ctl.apply(POLICY).unwrap();
    for warning in [
        "warning: port enp9s0: enp9s0 is an alternative name of interface wan0",
        "warning: port lna2: no such interface yet; did you mean lan2?",
    ] {
        assert!(answer.stderr.contains(warning), "{answer:?}");
    }
    let list = ctl.json(&["interfaces"]).unwrap();
    assert_eq!(told(&list, "lan1")["port"], "lan1");
    assert_ne!(told(&list, "lan1")["guarded"], "none");
    assert_eq!(told(&list, "lan1")["exposes"], json!([]));
    assert_eq!(told(&list, "lo")["exposes"], json!([]));
    let lan2 = told(&list, "lan2");
    assert_eq!(lan2["guarded"], "none");
    assert!(exposes(&lan2, "guarded ports lan1 of bridge br0"), "{lan2}");
    assert!(exposes(&lan2, "tcp/2222"), "{lan2}");
    let br0 = told(&list, "br0");
    assert!(
        exposes(&br0, "has 10.20.1.1/24, an address of guarded zone pumps"),
        "{br0}"
    );
    let wan0 = told(&list, "wan0");
    assert!(
        exposes(&wan0, "tcp/2222") && !exposes(&wan0, "tcp/9643"),
        "{wan0}"
    );
    assert!(
        wan0["reason"]
            .as_str()
            .unwrap()
            .contains("alternative name"),
        "{wan0}"
    );
    let status = ctl.json(&["status"]).unwrap();
    assert_eq!(status["interfaces"], list["interfaces"]);
    let table = ctl.run(&["status"]).unwrap().ok().unwrap();
    assert!(
        table.contains("exposed   br0, lan2, wan0; see wardctl interfaces"),
        "{table}"
    );
    let scrape = || {
        use std::io::{Read as _, Write as _};
        let mut stream = std::net::TcpStream::connect("127.0.0.1:9643").unwrap();
        stream
            .write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    };
    let line = "wardline_port_guarded{interface=\"lna2\",zone=\"pumps\"} 0";
    let zero = eventually(std::time::Duration::from_secs(5), || {
        let text = router.run(scrape).unwrap();
        text.lines().any(|it| it == line)
    });
    assert!(zero);
    drop(daemon);
    lab.close().unwrap();
}

#[test]
fn pins_that_end_with_a_mount_namespace_are_told() {
    let lab = Lab::new("mounts").unwrap();
    let (mut daemon, ctl) = spine::start(&lab);
    let warned = |ctl: &Ctl| {
        let status = ctl.json(&["status"]).unwrap();
        status["warnings"].to_string().contains("mount namespace")
    };
    assert!(!warned(&ctl), "in the router's own");
    daemon.terminate().unwrap();
    let mut command = Command::new("unshare");
    command.args(["-m", "--propagation", "private", "sh", "-c"]);
    command.arg("mount -t bpf bpf /sys/fs/bpf && exec \"$0\" --config \"$1\"");
    command
        .arg(program("WARDLINE_WARDLINED"))
        .arg(daemon.config());
    let private = lab.router().start(&mut command).unwrap();
    let serves = eventually(std::time::Duration::from_secs(180), || {
        std::os::unix::net::UnixStream::connect(daemon.socket()).is_ok()
    });
    assert!(serves);
    assert!(warned(&ctl));
    drop(private);
    drop(daemon);
    lab.close().unwrap();
}
