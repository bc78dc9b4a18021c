//! Interfaces with a large index, as on a router where containers come and go: are they ports like
//! all others?

use wardline_oracle::frames::{Ethernet, Ipv4, Ipv6, Packet, Udp, group_mac, icmpv6};
use wardline_tests::{
    End, Host, Outcome, TIMEOUT, eventually,
    ward::{FAR, Guard, PATIENCE, Ward, mac, policy, v4, v6, zone},
};

/// The smallest index that is no number of its own in the kernel's tables, and a very large one.
const INDEXES: [(u8, u32); 2] = [(1, 16_384), (2, 2_000_000_000)];

#[test]
fn a_port_may_have_any_index_at_xdp() {
    any_index("far-xdp", "xdp");
}

#[test]
fn a_port_may_have_any_index_at_tc() {
    any_index("far-tc", "tc");
}

fn any_index(name: &str, hook: &str) {
    let ward = Ward::new(name);
    let hosts = INDEXES.map(|(net, index)| {
        let host = ward.lab.host(&format!("device-{net}")).unwrap();
        ward.plug_in(&host, net, &ward.port(net).index(index));
        host
    });
    let near = ward.device(3);
    ward.lab.settle().unwrap();
    let [one, two] = &hosts;
    for host in [one, two, &near, &ward.far] {
        host.meet_xdp("eth0").unwrap();
    }
    let _servers = [7, 8].map(|port| [one, two, &ward.far].map(|it| it.tcp_serve(port).unwrap()));
    let reaches = |from: &Host, to: [&str; 2], port: u16, outcome: Outcome| {
        for to in to {
            assert_eq!(from.tcp_connect(to, port, TIMEOUT), outcome, "{to} {port}");
        }
    };
    let (at_one, at_two) = ((v4(1), v6(1)), (v4(2), v6(2)));
    let (at_one, at_two) = ([&*at_one.0, &*at_one.1], [&*at_two.0, &*at_two.1]);
    let works = || {
        reaches(one, FAR, 7, Outcome::Connected);
        reaches(one, at_two, 7, Outcome::Connected);
        reaches(two, at_one, 7, Outcome::Connected);
        reaches(&near, at_two, 7, Outcome::Connected);
    };
    let forbidden = |outcome: Outcome| {
        reaches(one, at_two, 8, outcome);
        reaches(&ward.far, at_one, 8, outcome);
    };
    // Without Wardline.
    works();
    forbidden(Outcome::Connected);

    let fast = if hook == "xdp" {
        ", fast_forward: true"
    } else {
        ""
    };
    let port = format!(", attach: {hook}{fast}");
    let document = |mode: &str| {
        let zones = [1, 2, 3].map(|net| zone(net, mode, &port));
        // The second device learns its addresses.
        let listed = format!(", addresses: [{}, \"{}\"]}}", v4(2), v6(2));
        let peers = "  - {name: peers, from: [any], to: [any], services: [tcp/7], action: allow}\n";
        let document = policy(&zones, "tcp/7") + peers;
        assert!(document.contains(&listed));
        document.replace(&listed, "}")
    };
    let mut guard = Guard::start(&ward.lab, "");
    guard.apply(&document(""));
    let status = guard.ctl.json(&["status"]).unwrap();
    let ports = status["ports"].as_array().unwrap();
    for (port, (_, index)) in ports.iter().zip(INDEXES) {
        assert_eq!(
            (&port["ifindex"], &port["attached"]),
            (&index.into(), &hook.into())
        );
        // A veth's checksums, as status says.
        assert_ne!(port["warnings"], serde_json::json!([]), "{port:#}");
    }
    works();
    assert_eq!(guard.drops(), [].into());
    forbidden(Outcome::Dropped);
    guard.told(&[
        ("reason", "no_rule"),
        ("interface", "lan1"),
        ("destination", at_two[0]),
    ]);
    // The first device's address, from the other's port.
    let forged = Ipv4::new(
        at_one[0].parse().unwrap(),
        [10, 20, 3, 11].into(),
        Udp::new(7, 7, *b"x"),
    );
    let forged = Ethernet::new(
        ward.lab.router().mac("lan2").unwrap(),
        mac_of(2),
        Packet::from(forged),
    );
    two.send_frame("eth0", &forged.bytes()).unwrap();
    guard.told(&[
        ("reason", "spoofed_source"),
        ("interface", "lan2"),
        ("device", "device-2"),
    ]);
    if hook == "xdp" {
        let forwarded = || {
            guard.ctl.json(&["counters"]).unwrap()["forwarded"]
                .as_u64()
                .unwrap()
        };
        let mut session = one.session(at_two[0], 7).unwrap();
        let before = forwarded();
        let echoes = (0..10).all(|_| session.echo(b"some bytes"));
        assert!(
            echoes && forwarded() >= before + 10,
            "{before} {}",
            forwarded()
        );
    }

    // Numbers outlive the daemon, and another interface gets one of its own.
    let mut session = two.session(at_one[0], 7).unwrap();
    guard.daemon.kill9().unwrap();
    assert!(session.echo(b"without a daemon"));
    works();
    guard.daemon.restart().unwrap();
    assert!(session.echo(b"with the next one"));
    works();
    forbidden(Outcome::Dropped);
    ward.lab.router().ip("link del lan1").unwrap();
    guard.wait_until_unguarded("lan1");
    ward.plug_in(one, 1, &ward.port(1).index(3_000_000));
    ward.lab.settle().unwrap();
    guard.wait_until_guarded("lan1");
    let _again = [7, 8].map(|port| one.tcp_serve(port));
    works();
    forbidden(Outcome::Dropped);

    let run = |arguments: &[&str]| guard.ctl.run(arguments).unwrap().ok().unwrap();
    run(&["quarantine", "--port", "lan2", "--reason", "odd"]);
    reaches(two, at_one, 7, Outcome::Dropped);
    reaches(one, at_two, 7, Outcome::Dropped);
    run(&["release", "--port", "lan2"]);
    works();

    // Observed, everything arrives again.
    guard.apply(&document(", mode: observe"));
    let before = guard.drops();
    works();
    forbidden(Outcome::Connected);
    assert_eq!(guard.drops(), before);
    assert!(eventually(PATIENCE, || guard.packets("observed") > 0));
}

const GUESTS: &str = r#"version: 1
zones:
  - {name: guests, admit: any, subnets: [10.20.1.0/24]}
  - {name: visitors, admit: any, subnets: [10.20.3.0/24]}
ports:
  - {interface: lan1, zone: guests}
  - {interface: lan3, zone: visitors}
"#;

#[test]
fn a_number_that_is_given_again_brings_nothing_along() {
    let ward = Ward::new("far-again");
    let port = |net: u8, index| End::new(ward.lab.router(), &format!("lan{net}")).index(index);
    let one = ward.bare(1, &port(1, 20_001));
    ward.lab.settle().unwrap();
    let mut guard = Guard::start(&ward.lab, "");
    guard.apply(GUESTS);
    // A claim of the same link-local address, by whoever has this MAC.
    let claims = |guard: &Guard, from: &Host, net: u8| {
        let (own, nodes) = (mac_of(net), "ff02::1".parse().unwrap());
        let address = "fe80::abcd:1".parse().unwrap();
        let claim = icmpv6::neighbour_advertisement(address, 0x20, &[icmpv6::target_link(own)]);
        let packet = Ipv6 {
            hop_limit: 255,
            ..Ipv6::new(address, nodes, claim)
        };
        let before = guard.packets("control");
        from.send_frame(
            "eth0",
            &Ethernet::new(group_mac(nodes), own, packet).bytes(),
        )
        .unwrap();
        eventually(PATIENCE, || guard.packets("control") > before)
    };
    assert!(claims(&guard, &one, 1));
    ward.lab.router().ip("link del lan1").unwrap();
    guard.wait_until_unguarded("lan1");
    guard.daemon.restart().unwrap();
    let three = ward.bare(3, &port(3, 20_005));
    guard.wait_until_guarded("lan3");
    // The first port has nothing to do with who is behind this one, on a link of its own.
    assert!(claims(&guard, &three, 3), "{:?}", guard.drops());
    let spoofs = ["spoofed_source", "nd_spoof"].map(|reason| guard.packets(reason));
    assert_eq!(spoofs, [0, 0]);
}

fn mac_of(net: u8) -> [u8; 6] {
    let mac = mac(net);
    let mut bytes = mac.split(':').map(|it| u8::from_str_radix(it, 16).unwrap());
    std::array::from_fn(|_| bytes.next().unwrap())
}
