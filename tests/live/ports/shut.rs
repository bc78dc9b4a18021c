//! A port that can't be guarded is shut, unless such ports are to be open, and opened again when it can.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use wardline_oracle::frames::{Ethernet, Ipv4, Udp};
use wardline_tests::{
    Host, Outcome, TIMEOUT, eventually,
    ward::{FAR, Guard, PATIENCE, Ward, policy, skip, v4, zone},
};

use crate::live::{
    attach::index,
    foreign::{self, Does, Foreign, Kind},
};

/// How a port is guarded: `attached`, `shut`, `reason`; empty when there is none.
fn port(guard: &Guard, interface: &str) -> [String; 3] {
    let status = guard.ctl.json(&["status"]).unwrap();
    let mut ports = status["ports"].as_array().unwrap().iter();
    let Some(port) = ports.find(|it| it["interface"] == interface) else {
        return Default::default();
    };
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
    let told = "port lan1 is not guarded: another program is on its XDP hook";
    is_told(&guard, told);
    assert!(guard.daemon.log().contains("port is not guarded"));
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
    is_told(&guard, "port lan1 is guarded again");
    assert_eq!(one.tcp_connect(FAR[0], 7, TIMEOUT), Outcome::Connected);
    assert_ne!(one.tcp_connect(FAR[0], 22, TIMEOUT), Outcome::Connected);
}

/// Waits for an event whose message begins like this.
fn is_told(guard: &Guard, message: &str) {
    let has = || {
        let events = guard.ctl.events().unwrap();
        let mut messages = events.iter().filter_map(|it| it["message"].as_str());
        messages.any(|it| it.starts_with(message))
    };
    assert!(
        eventually(PATIENCE, has),
        "{message}: {:#?}",
        guard.ctl.events()
    );
}

#[test]
fn a_shut_port_is_not_open_while_the_daemon_starts_again() {
    let ward = Ward::new("shut-restart");
    let one = ward.device(1);
    ward.lab.settle().unwrap();
    let router = ward.lab.router();
    let program = foreign::load(Kind::Xdp, Does::Answers(2), "their_filter").unwrap();
    let lan1 = index(router, "lan1");
    let link = router
        .run(|| program.link(lan1, foreign::Hook::Xdp))
        .unwrap()
        .unwrap();
    let mut guard = Guard::start(&ward.lab, "");
    guard.apply(&policy(&[zone(1, "", "")], "udp/7"));
    becomes(&guard, "lan1", ["none", "dropped"]);
    // The zone of the port would admit it.
    let (device, far) = ([10, 20, 1, 11].into(), [198, 51, 100, 7].into());
    let packet = Ipv4::new(device, far, Udp::new(4000, 7, b"admitted".to_vec()));
    let frame = Ethernet::new(router.mac("lan1").unwrap(), [2, 0, 0, 0, 1, 0x11], packet).bytes();
    let is_ours = |frame: &[u8]| frame.windows(8).any(|part| part == b"admitted");
    let heard = ward.far.sniff("eth0").unwrap();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let _over = wardline_tests::AtTheEnd(&over);
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                one.send_frame("eth0", &frame).unwrap();
            }
        });
        for _ in 0..3 {
            guard.daemon.kill9().unwrap();
            guard.daemon.restart().unwrap();
            becomes(&guard, "lan1", ["none", "dropped"]);
        }
        over.store(true, Ordering::Relaxed);
    });
    let passed = std::iter::from_fn(|| heard.next(Duration::ZERO));
    assert_eq!(passed.filter(|it| is_ours(it)).count(), 0);
    drop((link, program));
    nudge(&ward);
    becomes(&guard, "lan1", ["xdp", "none"]);
    one.send_frame("eth0", &frame).unwrap();
    assert!(heard.wait_for(PATIENCE, is_ours).is_some());
}

/// As many programs as the kernel takes on one hook of an interface; none before 6.6.
fn crowd(router: &Host, interface: u32) -> Vec<(Foreign, Foreign)> {
    let fill = || {
        std::iter::from_fn(|| {
            let next = foreign::load(Kind::Tc, Does::Answers(-1), "crowd").unwrap();
            let link = next.link(interface, foreign::Hook::TcxEgress).ok()?;
            Some((next, link))
        })
        .collect()
    };
    router.run(fill).unwrap()
}

#[test]
fn a_port_that_was_taken_down_is_brought_up_under_another_name() {
    let ward = Ward::new("shut-renamed");
    let _one = ward.device(1);
    ward.lab.settle().unwrap();
    let router = ward.lab.router();
    let full = crowd(router, index(router, "lan1"));
    if full.is_empty() {
        skip("TCX", "a kernel before 6.6");
        return;
    }
    let guard = Guard::start(&ward.lab, "");
    guard.apply(&policy(&[zone(1, "", ""), zone(2, "", "")], "tcp/7"));
    becomes(&guard, "lan1", ["none", "down"]);
    let is_up = |name: &str| {
        let link = router.ip(&format!("link show {name}")).unwrap();
        link.contains(",UP")
    };
    // Its new name is no port's.
    router.ip("link set lan1 name spare").unwrap();
    assert!(eventually(PATIENCE, || is_up("spare")));
    for command in ["set spare down", "set spare name lan1", "set lan1 up"] {
        router.ip(&format!("link {command}")).unwrap();
    }
    becomes(&guard, "lan1", ["none", "down"]);
    // Its new name is another port's.
    router.ip("link set lan1 name lan2").unwrap();
    becomes(&guard, "lan2", ["none", "down"]);
    drop(full);
    nudge(&ward);
    becomes(&guard, "lan2", ["xdp", "none"]);
    assert!(is_up("lan2"));
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
    let full = crowd(router, lan1);
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
    let full = crowd(router, lan1);
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
        crowd(router, lan1)
    };
    guard.apply(&policy(&[zone(1, "", "")], "tcp/7"));
    becomes(&guard, "lan1", ["none", "down"]);
    guard.apply(&policy(&[zone(2, "", "")], "tcp/7"));
    assert!(eventually(PATIENCE, is_up));
    drop(full);
}
