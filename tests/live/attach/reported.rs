//! How the daemon attaches ports, and what it reports when it can't attach as asked.

use std::{
    fs::{self, File},
    io::Write as _,
    path::Path,
};

use wardline_oracle::frames::{BROADCAST, Ethernet, FIN, Ipv4, SYN, Tcp, Udp};
use wardline_tests::{Ctl, Daemon, Host, Lab, eventually, ward::skip};

use super::{
    bench::{ALLOWED, Bench, FAR, OWN_PORT, PATIENCE, POLICY, PUMP, PUMP_MAC, index, tool},
    tagged_frames,
};
use crate::live::{
    foreign::{self, Does, Kind},
    spine,
};

/// A router with `lan1` and a daemon; no hosts.
fn with_daemon(name: &str, work: impl FnOnce(&Lab, &Daemon, &Ctl)) {
    let lab = Lab::new(name).unwrap();
    lab.router()
        .ip("link add lan1 type veth peer name far1")
        .unwrap();
    let (daemon, ctl) = spine::start(&lab);
    work(&lab, &daemon, &ctl);
    drop(daemon);
    lab.close().unwrap();
}

/// A policy with one port.
fn port(interface: &str, settings: &str) -> String {
    format!(
        "version: 1\nzones: [{{name: a, subnets: [10.1.0.0/24]}}, {{name: b, subnets: \
         [10.2.0.0/24]}}]\nports: [{{interface: {interface}, zone: a{settings}}}]\n"
    )
}

/// How the only port is attached, and why.
fn only_port(ctl: &Ctl) -> (String, String) {
    let status = ctl.json(&["status"]).unwrap();
    let port = &status["ports"][0];
    let text = |field: &str| port[field].as_str().unwrap_or_default().to_owned();
    (text("attached"), text("reason"))
}

const VLANS: &str = ", vlans: [{id: 20, zone: b}]";

#[test]
fn whose_xdp_program_is_in_the_way_is_said() {
    with_daemon("taken", |lab, _, ctl| {
        let router = lab.router();
        let program = foreign::load(Kind::Xdp, Does::Answers(2), "their_filter").unwrap();
        let id = program.id().unwrap();
        let lan1 = index(router, "lan1");
        let link = router.run(|| program.link(lan1, foreign::Hook::Xdp));
        let link = link.unwrap().unwrap();
        for attach in ["auto", "xdp"] {
            let document = port("lan1", &format!(", attach: {attach}"));
            let answer = ctl.apply(&document).unwrap();
            assert_eq!(answer.code, 0, "{answer:?}");
            let (attached, reason) = only_port(ctl);
            assert_eq!(attached, "none", "{reason}");
            for part in [
                &format!("id {id},"),
                "\"their_filter\"",
                "xdp",
                "attach: tc",
            ] {
                assert!(reason.contains(part), "{part}: {reason}");
                assert!(answer.stderr.contains(part), "{part}: {answer:?}");
            }
            let warned = answer
                .stderr
                .lines()
                .any(|line| line.starts_with("warning: "));
            assert!(warned, "{answer:?}");
            // None of our programs is attached either.
            let details = tool(router, "ip", "-details link show dev lan1");
            assert!(!details.contains("xdp_ingress"), "{details}");
        }
        // With `attach: tc`, the port is judged at TC, behind the foreign XDP program.
        ctl.apply(&port("lan1", ", attach: tc"))
            .unwrap()
            .ok()
            .unwrap();
        assert_eq!(only_port(ctl).0, "tc");
        // With `auto` it stays at TC, as the XDP hook is still taken.
        ctl.apply(&port("lan1", "")).unwrap().ok().unwrap();
        let (attached, reason) = only_port(ctl);
        assert_eq!(attached, "tc", "{reason}");
        assert!(reason.contains("their_filter"), "{reason}");
        // Once the foreign program is gone, the next check finds the hook free.
        drop((link, program));
        router
            .ip("link add other type veth peer name other1")
            .unwrap();
        let free = eventually(PATIENCE, || only_port(ctl).0 == "xdp");
        assert!(free, "{:?}", only_port(ctl));
    });
}

/// Without XDP, `auto` takes TC, and `xdp` leaves the port unguarded; the reason has these parts.
fn assert_xdp_is_refused(ctl: &Ctl, parts: [&str; 3]) {
    for (attach, expected) in [("auto", "tc"), ("xdp", "none")] {
        let document = port("lan1", &format!(", attach: {attach}"));
        ctl.apply(&document).unwrap().ok().unwrap();
        let (attached, reason) = only_port(ctl);
        assert_eq!(attached, expected, "{reason}");
        for part in parts {
            assert!(reason.contains(part), "{part}: {reason}");
        }
    }
}

#[test]
fn xdp_above_or_generic_is_said_with_its_cure() {
    with_daemon("above", |lab, _, ctl| {
        let router = lab.router();
        router.ip("link add br0 type bridge").unwrap();
        router.ip("link set lan1 master br0").unwrap();
        let directory = format!("/sys/fs/bpf/wardline-{}-foreign", lab.id());
        fs::create_dir_all(&directory).unwrap();
        let pin = Path::new(&directory).join("watch");
        let program = foreign::load(Kind::Xdp, Does::Answers(2), "watch").unwrap();
        program.pin(&pin).unwrap();
        let set = format!("link set dev br0 xdpgeneric pinned {}", pin.display());
        tool(router, "ip", &set);
        assert_xdp_is_refused(ctl, ["br0", "\"watch\"", "ip link set dev br0 xdp off"]);
        tool(router, "ip", "link set dev br0 xdp off");

        let set = format!("link set dev lan1 xdpgeneric pinned {}", pin.display());
        tool(router, "ip", &set);
        let cure = "ip link set dev lan1 xdpgeneric off";
        assert_xdp_is_refused(ctl, ["generic", "\"watch\"", cure]);
        tool(router, "ip", "link set dev lan1 xdpgeneric off");
        // The command that the reason names frees the hook.
        ctl.apply(&port("lan1", "")).unwrap().ok().unwrap();
        assert_eq!(only_port(ctl), ("xdp".to_owned(), String::new()));
    });
}

#[test]
fn why_there_is_no_xdp_is_said() {
    with_daemon("no-xdp", |lab, _, ctl| {
        let router = lab.router();
        router.ip("link add br0 type bridge").unwrap();
        ctl.apply(&port("br0", "")).unwrap().ok().unwrap();
        let expected = "no XDP: its driver has no XDP".to_owned();
        assert_eq!(only_port(ctl), ("tc".to_owned(), expected));
        for end in ["lan1", "far1"] {
            router.ip(&format!("link set {end} mtu 9000")).unwrap();
        }
        ctl.apply(&port("lan1", "")).unwrap().ok().unwrap();
        let expected = "no XDP: its MTU is too large for XDP".to_owned();
        assert_eq!(only_port(ctl), ("tc".to_owned(), expected));
        ctl.apply(&port("lan1", ", attach: tc"))
            .unwrap()
            .ok()
            .unwrap();
        assert_eq!(only_port(ctl), ("tc".to_owned(), "asked for".to_owned()));
    });
}

#[test]
fn a_port_with_vlans_has_xdp_only_where_tags_are_seen() {
    with_daemon("vlans", |lab, _, ctl| {
        ctl.apply(&port("lan1", VLANS)).unwrap().ok().unwrap();
        let (attached, reason) = only_port(ctl);
        assert_eq!(attached, "tc");
        assert!(
            reason.contains("veth") && reason.contains("outside the frame"),
            "{reason}"
        );
        let asked = format!("{VLANS}, attach: xdp");
        ctl.apply(&port("lan1", &asked)).unwrap().ok().unwrap();
        let (attached, reason) = only_port(ctl);
        assert_eq!(attached, "none");
        assert!(reason.contains("outside the frame"), "{reason}");

        let Ok(mut tap) = tap(lab.router(), "tap1", false) else {
            skip("tap device", "no /dev/net/tun");
            return;
        };
        ctl.apply(&port("tap1", &asked)).unwrap().ok().unwrap();
        assert_eq!(only_port(ctl), ("xdp".to_owned(), "asked for".to_owned()));
        // Tags in the frame: of VLAN 20, and of one that the port does not have.
        for (tag, reason) in [(20, "unknown_device"), (21, "wrong_vlan")] {
            let udp = Udp::new(OWN_PORT, ALLOWED, *b"tagged");
            let frame = Ethernet::new(BROADCAST, PUMP_MAC, Ipv4::new(PUMP, FAR, udp)).tagged(tag);
            tap.write_all(&frame.bytes()).unwrap();
            let told = eventually(PATIENCE, || {
                ctl.events().unwrap().iter().any(|event| {
                    event["interface"] == "tap1"
                        && event["vlan"] == tag
                        && event["reason"] == reason
                })
            });
            assert!(told, "{reason}: {:#?}", ctl.events());
        }
    });
}

#[test]
fn an_unseen_tag_makes_an_event_like_others() {
    let bench = Bench::new("tag-event");
    if !bench.has_tcx() {
        skip("TCX", "a kernel before 6.6");
        return;
    }
    let (daemon, ctl) = spine::start(&bench.lab);
    ctl.apply(POLICY).unwrap().ok().unwrap();
    assert_eq!(only_port(&ctl), ("xdp".to_owned(), String::new()));
    bench.assert_judged();
    let told = eventually(PATIENCE, || {
        assert_eq!(tagged_frames(&bench, 20, 1), 0);
        ctl.events().unwrap().iter().any(|event| {
            event["reason"] == "wrong_vlan"
                && event["device"] == "pump"
                && event["verdict"] == "drop"
                && event["vlan"] == 20
                && event["interface"] == "lan1"
                && event["source"]
                    .as_str()
                    .is_some_and(|source| source.contains("10.1.0.11"))
        })
    });
    assert!(told, "{:#?}", ctl.events());
    // An event for a fault of form names the device too, though the verdict did not need it.
    let nonsense = Tcp::new(OWN_PORT, ALLOWED, SYN | FIN);
    let frame = Ethernet::new(BROADCAST, PUMP_MAC, Ipv4::new(PUMP, FAR, nonsense));
    bench.pump.send_frame("eth0", &frame.bytes()).unwrap();
    let told = eventually(PATIENCE, || {
        ctl.events().unwrap().iter().any(|event| {
            event["reason"] == "bad_tcp_flags"
                && event["device"] == "pump"
                && event["zone"] == "pumps"
        })
    });
    assert!(told, "{:#?}", ctl.events());
    drop(daemon);
    bench.lab.close().unwrap();
}

#[test]
fn a_port_that_is_none_any_more_is_let_go() {
    with_daemon("let-go", |lab, daemon, ctl| {
        for settings in ["", ", attach: tc"] {
            ctl.apply(&port("lan1", settings)).unwrap().ok().unwrap();
            assert_ne!(only_port(ctl).0, "none");
            let pins = || {
                let versions = fs::read_dir(daemon.pins()).unwrap().flatten();
                let links = versions.map(|version| version.path().join("links"));
                links.flat_map(|links| fs::read_dir(links).unwrap()).count()
            };
            assert!(pins() > 0);
            ctl.apply(&port("lan9", settings)).unwrap().ok().unwrap();
            assert_eq!(pins(), 0);
            let details = tool(lab.router(), "ip", "-details link show dev lan1");
            assert!(!details.contains("prog/"), "{details}");
        }
    });
}

#[test]
fn what_the_far_end_of_a_virtual_port_may_do_is_said() {
    with_daemon("far-ends", |lab, _, ctl| {
        let router = lab.router();
        let said = |interface: &str, settings: &str| {
            ctl.apply(&port(interface, settings)).unwrap().ok().unwrap();
            let status = ctl.json(&["status"]).unwrap();
            let warnings = status["ports"][0]["warnings"].as_array().unwrap();
            let texts = warnings.iter().map(|it| it.as_str().unwrap().to_owned());
            texts.collect::<Vec<_>>()
        };
        let told = said("lan1", "");
        assert!(
            told.len() == 1 && told[0].ends_with("ethtool -K far1 tx off"),
            "{told:?}"
        );
        let table = ctl.run(&["status"]).unwrap();
        let line = format!("\n\nlan1: {}\n\n", told[0]);
        assert!(table.stdout.contains(&line), "{table:?}");
        assert!(!table.stderr.contains(&told[0]), "{table:?}");
        // A port that is not guarded has a worse problem.
        let unguarded = format!("{VLANS}, attach: xdp");
        assert_eq!(said("lan1", &unguarded), [""; 0]);
        // The command that is named cures it.
        router.meet_xdp("far1").unwrap();
        assert_eq!(said("lan1", ""), [""; 0]);
        // What a far end in another namespace does can't be known.
        let elsewhere = lab.host("elsewhere").unwrap();
        let away = format!("link set far1 netns {}", elsewhere.netns());
        router.ip(&away).unwrap();
        let told = said("lan1", "");
        assert!(
            told.len() == 1 && told[0].ends_with("ethtool -K INTERFACE tx off"),
            "{told:?}"
        );

        for (virtio, warnings) in [(false, 0), (true, 1)] {
            let Ok(_tap) = tap(router, "tap1", virtio) else {
                skip("tap device", "no /dev/net/tun");
                return;
            };
            let told = said("tap1", "");
            assert_eq!(told.len(), warnings, "{told:?}");
            assert!(
                told.iter().all(|it| it.contains("vnet_hdr=off")),
                "{told:?}"
            );
        }
    });
}

/// A tap device on a host, up; frames written to it enter the host. Gone when dropped.
fn tap(host: &Host, name: &str, virtio: bool) -> std::io::Result<File> {
    let file = host.run(|| foreign::tap(name, virtio)).unwrap()?;
    host.ip(&format!("link set {name} up")).unwrap();
    Ok(file)
}
