//! Fast-forward: packets leave in the driver as the stack would have forwarded them.

use std::{process::Command, time::Duration};

use serde_json::Value;
use wardline_tests::{
    Host, Outcome, Server, Session, TIMEOUT, eventually,
    ward::{FAR, Guard, PATIENCE, Ward, policy, skip, v4, v6, zone},
};

use super::foreign::{self, Does, Kind};

/// Packets that were forwarded in the driver.
fn forwarded(guard: &Guard) -> u64 {
    let counters = guard.ctl.json(&["counters"]).unwrap();
    counters["forwarded"].as_u64().unwrap()
}

/// Exchanges of a session in one measurement.
const ECHOES: u64 = 10;

/// How many packets are forwarded in the driver during [`ECHOES`] exchanges of a session.
fn ahead(guard: &Guard, session: &mut Session) -> u64 {
    let before = forwarded(guard);
    for _ in 0..ECHOES {
        assert!(session.echo(b"some bytes"));
    }
    forwarded(guard) - before
}

fn goes_ahead(guard: &Guard, session: &mut Session) -> bool {
    ahead(guard, session) >= ECHOES
}

/// Whether the session stays in the stack. Other sessions may still acknowledge something.
fn stays_back(guard: &Guard, session: &mut Session) -> bool {
    ahead(guard, session) < ECHOES / 2
}

fn port(guard: &Guard, name: &str) -> Value {
    let status = guard.ctl.json(&["status"]).unwrap();
    let ports = status["ports"].as_array().unwrap();
    let port = ports.iter().find(|port| port["interface"] == name);
    port.unwrap().clone()
}

fn opens(from: &Host, to: &str, port: u16) -> bool {
    from.tcp_connect(to, port, TIMEOUT) == Outcome::Connected
}

const FAST: &str = ", fast_forward: true";

/// A ward with one device, and the far host as a server, both of which take frames from XDP.
fn one_device(name: &str) -> (Ward, Host, Server, Guard) {
    let ward = Ward::new(name);
    let one = ward.device(1);
    ward.lab.settle().unwrap();
    for host in [&one, &ward.far] {
        host.meet_xdp("eth0").unwrap();
    }
    let server = ward.far.tcp_serve(7).unwrap();
    let guard = Guard::start(&ward.lab, "");
    (ward, one, server, guard)
}

#[test]
fn answered_flows_go_ahead_and_are_judged_all_the_same() {
    let ward = Ward::new("forward");
    let (one, two) = (ward.device(1), ward.device(2));
    ward.lab.settle().unwrap();
    // The far end of a veth pair decides whether it takes frames from XDP.
    for host in [&one, &two, &ward.far] {
        host.meet_xdp("eth0").unwrap();
    }
    let _far = ward.far.tcp_serve(7).unwrap();
    let _udp = ward.far.udp_serve(7).unwrap();
    let _two = two.tcp_serve(7).unwrap();
    let mut guard = Guard::start(&ward.lab, "");
    let peers = "  - {name: peers, from: [any], to: [any], services: [tcp/7], action: allow}\n";
    let document = |one: &str, two: &str| {
        policy(&[zone(1, "", one), zone(2, "", two)], "tcp/7, udp/7") + peers
    };
    // Without `fast_forward`, no packet is forwarded in the driver.
    guard.apply(&document("", ""));
    let mut out = one.session(FAR[0], 7).unwrap();
    assert!(out.echo(b"x"));
    assert_eq!(forwarded(&guard), 0);
    assert_eq!(port(&guard, "lan1")["fast_forward"], false);

    guard.apply(&document(FAST, FAST));
    assert_eq!(
        port(&guard, "lan1")["fast_forward"],
        true,
        "{:#}",
        port(&guard, "lan1")
    );
    // An existing flow is fast-forwarded, in both families, also between two such ports.
    assert!(goes_ahead(&guard, &mut out));
    let mut six = one.session(FAR[1], 7).unwrap();
    assert!(goes_ahead(&guard, &mut six));
    let mut across = one.session(&v4(2), 7).unwrap();
    assert!(goes_ahead(&guard, &mut across));
    let mut across_six = one.session(&v6(2), 7).unwrap();
    assert!(goes_ahead(&guard, &mut across_six));
    for _ in 0..3 {
        let outcome = one.udp_exchange_of(1300, FAR[0], 7, TIMEOUT);
        assert_eq!(outcome, Outcome::Connected);
    }
    assert_eq!(guard.drops().get("spoofed_source"), None);

    // The packets arrive as from the stack: one hop less, the router's MAC, a correct checksum.
    let sniffer = ward.far.sniff("eth0").unwrap();
    assert!(out.echo(b"x"));
    let router = ward.lab.router().mac("uplink").unwrap();
    let seen = sniffer.wait_for(TIMEOUT, |frame| {
        frame.len() > 34 && frame[6..12] == router && frame[22] == 63 && frame[23] == 6
    });
    let seen = seen.expect("a packet with one hop less");
    let words = seen[14..34].chunks(2);
    let sum: u32 = words
        .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]))
        .sum();
    assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);

    // What leaves through a port without `fast_forward` stays in the stack.
    guard.apply(&document(FAST, ""));
    assert!(stays_back(&guard, &mut across));
    guard.apply(&document(FAST, FAST));

    // Killing the daemon cuts nothing, and after its restart fast-forward goes on.
    guard.daemon.kill9().unwrap();
    assert!(across.echo(b"x") && out.echo(b"x"));
    guard.daemon.restart().unwrap();
    assert!(goes_ahead(&guard, &mut out));

    // A flow that policy cuts is cut, whatever next hop it remembers.
    let answer = guard.ctl.run(&["quarantine", "device-2", "--reason", "x"]);
    answer.unwrap().ok().unwrap();
    assert!(!across.echo(b"x") && out.echo(b"x"));
    guard.apply(&document(FAST, FAST).replace("tcp/7", "tcp/8"));
    assert!(!out.echo(b"x") && !opens(&one, FAR[0], 7));
}

#[test]
fn a_route_that_changes_is_followed() {
    let (ward, one, _far, guard) = one_device("reroute");
    guard.apply(&policy(&[zone(1, "", FAST)], "tcp/7"));
    let mut out = one.session(FAR[0], 7).unwrap();
    assert!(goes_ahead(&guard, &mut out));
    // The far host gets another MAC; frames to the old one reach no host.
    let other = "02:00:00:00:fa:02";
    ward.far
        .ip(&format!("link set eth0 address {other}"))
        .unwrap();
    let router = ward.lab.router();
    router
        .ip(&format!(
            "neigh replace {} lladdr {other} dev uplink",
            FAR[0]
        ))
        .unwrap();
    assert!(eventually(PATIENCE, || out.echo(b"x")));
    assert!(eventually(PATIENCE, || goes_ahead(&guard, &mut out)));
    // Without a usable route, nothing is sent to the old next hop.
    router.ip("route add blackhole 198.51.100.7/32").unwrap();
    assert!(eventually(PATIENCE, || !out.echo(b"x")));
    router.ip("route del blackhole 198.51.100.7/32").unwrap();
}

#[test]
fn forwarding_that_is_switched_off_is_followed() {
    /// A flow keeps its next hop for a minute.
    const SOON: Duration = Duration::from_secs(1);
    let ward = Ward::new("switches");
    let (one, two) = (ward.device(1), ward.device(2));
    ward.lab.settle().unwrap();
    for host in [&one, &two] {
        host.meet_xdp("eth0").unwrap();
    }
    let _two = two.tcp_serve(7).unwrap();
    let guard = Guard::start(&ward.lab, "");
    let peers = "  - {name: peers, from: [any], to: [any], services: [tcp/7], action: allow}\n";
    guard.apply(&(policy(&[zone(1, "", FAST), zone(2, "", FAST)], "tcp/8") + peers));
    let router = ward.lab.router();
    for (switch, address) in [
        ("ipv4/ip_forward", v4(2)),
        ("ipv4/conf/lan1/forwarding", v4(2)),
        ("ipv6/conf/all/forwarding", v6(2)),
    ] {
        let mut across = one.session(&address, 7).unwrap();
        assert!(goes_ahead(&guard, &mut across), "{switch}");
        router.sysctl(switch, "0").unwrap();
        let stops = || !across.echo_within(b"x", Duration::from_millis(200));
        assert!(eventually(SOON, stops), "{switch} is not followed");
        router.sysctl(switch, "1").unwrap();
        assert!(eventually(PATIENCE, || across.echo(b"x")), "{switch}");
        let again = eventually(PATIENCE, || goes_ahead(&guard, &mut across));
        assert!(again, "{switch}");
    }
}

#[test]
fn a_tag_that_a_veth_holds_outside_the_frame_is_taken_off_as_status_says() {
    let (_ward, one, _far, guard) = one_device("outside");
    let about_tags = || {
        let port = port(&guard, "lan1");
        let warnings = port["warnings"].as_array().unwrap();
        let about = |it: &Value| it.as_str().unwrap().contains("INTERFACE txvlan off");
        warnings.iter().any(about)
    };
    guard.apply(&policy(&[zone(1, "", "")], "tcp/7"));
    assert!(!about_tags());
    guard.apply(&policy(&[zone(1, "", FAST)], "tcp/7"));
    assert!(about_tags());
    let mut out = one.session(FAR[0], 7).unwrap();
    assert!(goes_ahead(&guard, &mut out));

    let tags = foreign::load(Kind::Tc, Does::Tags(20), "tags").unwrap();
    let links = one.ip("-oneline link show dev eth0").unwrap();
    let eth0 = links.split(':').next().unwrap().trim().parse().unwrap();
    let Ok(_link) = one
        .run(|| tags.link(eth0, foreign::Hook::TcxEgress))
        .unwrap()
    else {
        skip("a tag outside the frame", "a kernel before 6.6 has no TCX");
        return;
    };
    // What arrives has no tag, or the far host would not answer.
    assert!(goes_ahead(&guard, &mut out));
    assert_eq!(guard.drops().get("wrong_vlan"), None);
    // The command that the warning names.
    one.keep_tags_inside("eth0").unwrap();
    assert!(!out.echo(b"x"));
    assert!(guard.packets("wrong_vlan") > 0);
}

#[test]
fn it_is_refused_where_others_have_a_say() {
    let ward = Ward::new("refused");
    let (one, partial) = (ward.device(1), ward.device(2));
    ward.lab.settle().unwrap();
    one.meet_xdp("eth0").unwrap();
    let _far = ward.far.tcp_serve(7).unwrap();
    let guard = Guard::start(&ward.lab, "");
    let document = policy(&[zone(1, "", FAST), zone(2, "", FAST)], "tcp/7");
    // The uplink's far end does not take frames from XDP: they go up the stack, none is lost.
    guard.apply(&document);
    let mut out = one.session(FAR[0], 7).unwrap();
    assert!(stays_back(&guard, &mut out));
    ward.far.meet_xdp("eth0").unwrap();
    guard.apply(&document);
    assert!(goes_ahead(&guard, &mut out));

    // A neighbour on the same machine leaves checksums to the stack, which must complete them.
    let mut partial = partial.session(FAR[0], 7).unwrap();
    assert!(stays_back(&guard, &mut partial));

    let router = ward.lab.router();
    let refused = |why: &str| {
        guard.apply(&document);
        let port = port(&guard, "lan1");
        let reason = port["reason"].as_str().unwrap();
        assert!(reason.contains(why), "{port:#}");
        assert_eq!(
            (&port["fast_forward"], &port["attached"]),
            (&false.into(), &"xdp".into())
        );
    };
    // A qdisc that shapes, on the port itself.
    if router.ip("link show lan1").is_ok() {
        let mut tc = Command::new("tc");
        tc.args("qdisc replace dev lan1 root tbf rate 1gbit burst 1mb latency 10ms".split(' '));
        let mut shaped = router.spawn(&mut tc).unwrap();
        if shaped.wait().unwrap().success() {
            refused("no fast-forward: the qdisc tbf would not see the packets");
            assert!(stays_back(&guard, &mut out));
            let mut tc = Command::new("tc");
            tc.args("qdisc del dev lan1 root".split(' '));
            assert!(router.spawn(&mut tc).unwrap().wait().unwrap().success());
        }
    }
    // nftables rules that see forwarded packets, as NAT does.
    let nft = |text: &str| {
        let mut nft = Command::new("nft");
        nft.args(text.split(' '));
        let ran = router
            .spawn(&mut nft)
            .and_then(|mut child| Ok(child.wait()?));
        ran.is_ok_and(|status| status.success())
    };
    if nft("add table ip nat") {
        let chain = "add chain ip nat out { type nat hook postrouting priority 100 ; }";
        if nft(chain) {
            refused("no fast-forward: the nftables chain nat out would not see the packets");
            assert!(stays_back(&guard, &mut out));
        }
        assert!(nft("delete table ip nat"));
    } else {
        skip("nftables beside fast-forward", "there is no nft");
    }
    // A port that is not judged by XDP.
    guard.apply(&document.replace(FAST, ", attach: tc, fast_forward: true"));
    let tc = port(&guard, "lan1");
    assert_eq!(
        tc["reason"],
        "asked for; no fast-forward: it is not judged by XDP"
    );
    guard.apply(&document);
    assert!(goes_ahead(&guard, &mut out));
}
