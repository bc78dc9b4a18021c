//! A port that can't be guarded is shut, unless such ports are to be open, and opened again when it can.

use wardline_tests::{
    Outcome, TIMEOUT, eventually,
    ward::{FAR, Guard, PATIENCE, Ward, policy, skip, v4, zone},
};

use crate::live::{
    attach::index,
    foreign::{self, Does, Foreign, Kind},
};

/// How a port is guarded: `attached`, `shut`, `reason`.
fn port(guard: &Guard, interface: &str) -> [String; 3] {
    let status = guard.ctl.json(&["status"]).unwrap();
    let mut ports = status["ports"].as_array().unwrap().iter();
    let port = ports.find(|it| it["interface"] == interface).unwrap();
    ["attached", "shut", "reason"].map(|it| port[it].as_str().unwrap().to_owned())
}

/// Waits until a port is attached and shut like this.
fn becomes(guard: &Guard, interface: &str, wanted: [&str; 2]) -> String {
    let is = || port(guard, interface)[..2] == wanted;
    assert!(eventually(PATIENCE, is), "{:?}", port(guard, interface));
    let [_, _, reason] = port(guard, interface);
    reason
}

/// Has the daemon look at the ports again: something about links has changed.
fn nudge(ward: &Ward) {
    let router = ward.lab.router();
    router
        .ip("link add nudge type veth peer name nudged")
        .unwrap();
    router.ip("link del nudge").unwrap();
}

const FAILSAFE: &str = "[[failsafe]]\nfrom = [\"10.20.1.11\"]\nservices = [\"tcp/22\"]\n";

#[test]
fn a_port_whose_xdp_hook_is_taken_is_dropped_at_tc_until_it_is_free() {
    let ward = Ward::new("shut-taken");
    let (one, two) = (ward.device(1), ward.device(2));
    ward.lab.settle().unwrap();
    let router = ward.lab.router();
    let _servers = [7, 22].map(|port| [router, &ward.far].map(|it| it.tcp_serve(port).unwrap()));
    let program = foreign::load(Kind::Xdp, Does::Answers(2), "their_filter").unwrap();
    let lan1 = index(router, "lan1");
    let link = router
        .run(|| program.link(lan1, foreign::Hook::Xdp))
        .unwrap()
        .unwrap();
    let mut guard = Guard::start(&ward.lab, FAILSAFE);
    let document = |mode: &str| policy(&[1, 2].map(|net| zone(net, mode, "")), "tcp/7");
    guard.apply(&document(""));
    let told = [
        "their_filter",
        "attach: tc",
        "shut until then: all but the failsafe is dropped",
    ];
    let is_shut = |guard: &Guard| {
        let reason = becomes(guard, "lan1", ["none", "dropped"]);
        assert!(told.iter().all(|part| reason.contains(part)), "{reason}");
        assert_ne!(one.tcp_connect(FAR[0], 7, TIMEOUT), Outcome::Connected);
        assert_ne!(router.tcp_connect(&v4(1), 7, TIMEOUT), Outcome::Connected);
        // The failsafe holds, and so does the guard of the other port.
        assert_eq!(
            one.tcp_connect("10.20.1.1", 22, TIMEOUT),
            Outcome::Connected
        );
        assert_eq!(two.tcp_connect(FAR[0], 7, TIMEOUT), Outcome::Connected);
        assert_ne!(
            two.tcp_connect("10.20.2.1", 22, TIMEOUT),
            Outcome::Connected
        );
    };
    is_shut(&guard);
    guard.daemon.kill9().unwrap();
    assert_ne!(one.tcp_connect(FAR[0], 7, TIMEOUT), Outcome::Connected);
    guard.daemon.restart().unwrap();
    is_shut(&guard);

    // What is only observed is not shut, but open, and that is told.
    guard.apply(&document(", mode: observe"));
    becomes(&guard, "lan1", ["none", "none"]);
    assert_eq!(one.tcp_connect(FAR[0], 22, TIMEOUT), Outcome::Connected);
    guard.apply(&document(""));
    is_shut(&guard);
    // With the cure that the reason names, it is judged.
    drop((link, program));
    nudge(&ward);
    becomes(&guard, "lan1", ["xdp", "none"]);
    assert_eq!(one.tcp_connect(FAR[0], 7, TIMEOUT), Outcome::Connected);
    assert_ne!(one.tcp_connect(FAR[0], 22, TIMEOUT), Outcome::Connected);
}

#[test]
fn who_prefers_an_open_port_says_so() {
    let ward = Ward::new("shut-open");
    let one = ward.device(1);
    ward.lab.settle().unwrap();
    let _far = ward.far.tcp_serve(8).unwrap();
    let mut guard = Guard::start(&ward.lab, "");
    // A veth's tags are outside the frame.
    let port = ", vlans: [{id: 20, zone: zone-2}], attach: xdp";
    let document = policy(&[zone(1, "", port), zone(2, "", "")], "tcp/7");
    guard.apply(&document);
    becomes(&guard, "lan1", ["none", "dropped"]);
    assert_ne!(one.tcp_connect(FAR[0], 8, TIMEOUT), Outcome::Connected);
    let config = guard.daemon.config().to_owned();
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("on_failure = \"open\"\n{text}")).unwrap();
    guard.daemon.terminate().unwrap();
    guard.daemon.restart().unwrap();
    becomes(&guard, "lan1", ["none", "none"]);
    // The device has asked for the router in vain, and asks again after a while.
    let connects = || one.tcp_connect(FAR[0], 8, TIMEOUT) == Outcome::Connected;
    assert!(eventually(PATIENCE, connects));
}

#[test]
fn a_port_that_takes_no_program_is_taken_down_and_brought_up_again() {
    let ward = Ward::new("shut-down");
    let one = ward.device(1);
    ward.lab.settle().unwrap();
    let router = ward.lab.router();
    let _far = ward.far.tcp_serve(7).unwrap();
    let lan1 = index(router, "lan1");
    // As many programs as the kernel takes on one hook.
    let crowd = || -> Vec<(Foreign, Foreign)> {
        std::iter::from_fn(|| {
            let next = foreign::load(Kind::Tc, Does::Answers(-1), "crowd").unwrap();
            let link = next.link(lan1, foreign::Hook::TcxEgress).ok()?;
            Some((next, link))
        })
        .collect()
    };
    let full = router.run(crowd).unwrap();
    if full.is_empty() {
        skip("TCX", "a kernel before 6.6");
        return;
    }
    let mut guard = Guard::start(&ward.lab, "");
    guard.apply(&policy(&[zone(1, "", "")], "tcp/7"));
    let is_up = || router.ip("link show lan1").unwrap().contains(",UP");
    let reason = becomes(&guard, "lan1", ["none", "down"]);
    assert!(
        reason.contains("as many programs") && reason.ends_with("taken down"),
        "{reason}"
    );
    assert!(!is_up());
    // Somebody who brings it up does not open it; that is known to the next daemon, too.
    router.ip("link set lan1 up").unwrap();
    assert!(eventually(PATIENCE, || !is_up()));
    guard.daemon.kill9().unwrap();
    guard.daemon.restart().unwrap();
    becomes(&guard, "lan1", ["none", "down"]);
    drop(full);
    nudge(&ward);
    becomes(&guard, "lan1", ["xdp", "none"]);
    assert!(is_up());
    assert!(eventually(PATIENCE, || {
        // IPv6 addresses of the port went with it.
        one.tcp_connect(FAR[0], 7, TIMEOUT) == Outcome::Connected
    }));
    // What somebody else took down stays so.
    router.ip("link set lan1 down").unwrap();
    let full = router.run(crowd).unwrap();
    guard.daemon.restart().unwrap();
    drop(full);
    nudge(&ward);
    becomes(&guard, "lan1", ["xdp", "none"]);
    assert!(!is_up());
    // Once it is no port any more, it is brought up as well.
    router.ip("link set lan1 up").unwrap();
    let full = {
        // Without its hooks there is room for others.
        guard.apply(&policy(&[zone(2, "", "")], "tcp/7"));
        router.run(crowd).unwrap()
    };
    guard.apply(&policy(&[zone(1, "", "")], "tcp/7"));
    becomes(&guard, "lan1", ["none", "down"]);
    guard.apply(&policy(&[zone(2, "", "")], "tcp/7"));
    assert!(eventually(PATIENCE, is_up));
    drop(full);
}
