//! NAT in the router: containers that poll devices and are published to them, devices without a
//! gateway, a resolver in the place of another. Does what works without Wardline work with it, and is
//! nothing else let through?

use std::{process::Command, time::Duration};

use wardline_tests::{
    End, Host, Lab, Outcome, TIMEOUT, eventually,
    ward::{Guard, PATIENCE, skip},
};

/// What the router's kernel rewrites, as Docker has it, and towards the port `lan1` as for devices
/// without a gateway.
const RULES: &str = r#"
table inet nat {
    chain out {
        type nat hook postrouting priority 100;
        oifname "lan1" masquerade
    }
    chain in {
        type nat hook prerouting priority -100;
        iifname "lan*" meta nfproto ipv4 fib daddr type local tcp dport 8080 dnat ip to 172.17.0.2:80
        iifname "lan*" meta nfproto ipv6 fib daddr type local tcp dport 8080 dnat ip6 to [fd17::2]:80
        iifname "lan*" meta nfproto ipv4 fib daddr type local udp dport 8080-8081 dnat ip to 172.17.0.2
        iifname "lan*" meta nfproto ipv6 fib daddr type local udp dport 8080-8081 dnat ip6 to fd17::2
        iifname "lan1" meta nfproto ipv4 udp dport 53 ip daddr 192.0.2.53 redirect to :5353
        iifname "lan1" meta nfproto ipv6 udp dport 53 ip6 daddr 2001:db8::53 redirect to :5353
        iifname "lan1" meta nfproto ipv4 udp dport 53 ip daddr 192.0.2.54 dnat ip to 10.20.2.11:5353
        iifname "lan1" meta nfproto ipv6 udp dport 53 ip6 daddr 2001:db8::54 dnat ip6 to [fd20:2::11]:5353
    }
}
"#;

/// A router with two guarded ports, an uplink and a bridge of containers.
struct Site {
    lab: Lab,
    plc: Host,
    desk: Host,
    container: Host,
    far: Host,
}

impl Site {
    fn new(name: &str) -> Self {
        let lab = Lab::new(name).unwrap();
        let host = |name: &str| lab.host(name).unwrap();
        let [plc, desk, container, far] = ["plc", "desk", "container", "far"].map(host);
        for (net, device) in [(1, &plc), (2, &desk)] {
            lab.wire(
                &End::new(device, "eth0")
                    .mac(&format!("02:00:00:00:{net:02x}:11"))
                    .address(&format!("10.20.{net}.11/24"))
                    .address(&format!("fd20:{net}::11/64"))
                    .gateway(&format!("10.20.{net}.1"))
                    .gateway(&format!("fd20:{net}::1")),
                &End::new(lab.router(), &format!("lan{net}"))
                    .address(&format!("10.20.{net}.1/24"))
                    .address(&format!("fd20:{net}::1/64")),
            )
            .unwrap();
        }
        lab.bridge(lab.router(), "docker0", &["172.17.0.1/16", "fd17::1/64"])
            .unwrap();
        lab.wire(
            &End::new(&container, "eth0")
                .address("172.17.0.2/16")
                .address("fd17::2/64")
                .gateway("172.17.0.1")
                .gateway("fd17::1"),
            &End::new(lab.router(), "vethc").master("docker0"),
        )
        .unwrap();
        lab.wire(
            &End::new(&far, "eth0")
                .mac("02:00:00:00:09:10")
                .address("10.20.9.10/24")
                .address("fd20:9::10/64")
                .gateway("10.20.9.1")
                .gateway("fd20:9::1"),
            &End::new(lab.router(), "wan0")
                .address("10.20.9.1/24")
                .address("fd20:9::1/64"),
        )
        .unwrap();
        lab.settle().unwrap();
        Self {
            lab,
            plc,
            desk,
            container,
            far,
        }
    }
}

/// Runs a program of netfilter in the router; false when it is not installed.
fn netfilter(lab: &Lab, program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments);
    match lab.router().spawn(&mut command) {
        Ok(mut child) => {
            assert!(child.wait().unwrap().success(), "{program} {arguments:?}");
            true
        }
        Err(_) => false,
    }
}

fn document(attach: &str, mode: &str, rules: &str) -> String {
    format!(
        r#"version: 1
zones:
  - {{name: plcs, mode: {mode}, subnets: [10.20.1.0/24, "fd20:1::/64"]}}
  - {{name: desks, mode: {mode}, subnets: [10.20.2.0/24, "fd20:2::/64"]}}
  - {{name: apps, subnets: [172.17.0.0/16, "fd17::/64"]}}
  - {{name: servers, subnets: [10.20.9.0/24, "fd20:9::/64"]}}
ports:
  - {{interface: lan1, zone: plcs, attach: {attach}}}
  - {{interface: lan2, zone: desks, attach: {attach}}}
devices:
  - {{name: plc, zone: plcs, macs: ["02:00:00:00:01:11"], addresses: [10.20.1.11, "fd20:1::11"]}}
  - {{name: desk, zone: desks, macs: ["02:00:00:00:02:11"], addresses: [10.20.2.11, "fd20:2::11"]}}
  - {{name: far, zone: servers, addresses: [10.20.9.10, "fd20:9::10"]}}
rules:
{rules}"#
    )
}

/// What the sites' rules admit: nothing is said of the other ends that NAT gives the packets.
const ADMITTED: &str = r#"
  - {name: polls, from: [router], to: [zone:plcs], services: [tcp/502, udp/502-503, icmp/8, icmpv6/128], action: allow}
  - {name: published, from: [zone:plcs, zone:desks], to: [router], services: [tcp/8080, udp/8080-8081], action: allow}
  - {name: names, from: [zone:plcs], to: ["cidr:192.0.2.0/24", "cidr:2001:db8::/64"], services: [udp/53], action: allow}
  - {name: report, from: [device:desk], to: [device:plc], services: [tcp/104, udp/104-105, icmp/8, icmpv6/128], action: allow}
"#;

fn works(site: &Site) {
    let Site {
        lab,
        plc,
        desk,
        container,
        far,
    } = site;
    let servers = [
        plc.tcp_serve(502),
        plc.udp_serve(502),
        plc.tcp_serve(104),
        plc.udp_serve(104),
        container.tcp_serve(80),
        container.udp_serve(8080),
        lab.router().udp_serve(5353),
        desk.udp_serve(5353),
    ]
    .map(Result::unwrap);
    for (to, router, others) in [
        ("10.20.1.11", "10.20.1.1", ["192.0.2.53", "192.0.2.54"]),
        ("fd20:1::11", "fd20:1::1", ["2001:db8::53", "2001:db8::54"]),
    ] {
        // Masqueraded, from where it is not guarded and from where it is.
        for from in [container, far] {
            assert_eq!(
                from.tcp_connect(to, 502, TIMEOUT),
                Outcome::Connected,
                "{from} {to}"
            );
            assert_eq!(
                from.udp_exchange(to, 502, TIMEOUT),
                Outcome::Connected,
                "{from} {to}"
            );
            assert_eq!(
                from.ping_within(to, TIMEOUT),
                Outcome::Connected,
                "{from} {to}"
            );
            assert_eq!(
                from.udp_exchange(to, 503, TIMEOUT),
                Outcome::Refused,
                "{from} {to}"
            );
        }
        assert_eq!(
            desk.tcp_connect(to, 104, TIMEOUT),
            Outcome::Connected,
            "{to}"
        );
        assert_eq!(
            desk.udp_exchange(to, 104, TIMEOUT),
            Outcome::Connected,
            "{to}"
        );
        assert_eq!(desk.ping_within(to, TIMEOUT), Outcome::Connected, "{to}");
        assert_eq!(
            desk.udp_exchange(to, 105, TIMEOUT),
            Outcome::Refused,
            "{to}"
        );
        // Published.
        for from in [plc, desk] {
            assert_eq!(
                from.tcp_connect(router, 8080, TIMEOUT),
                Outcome::Connected,
                "{from}"
            );
            assert_eq!(
                from.udp_exchange(router, 8080, TIMEOUT),
                Outcome::Connected,
                "{from}"
            );
            assert_eq!(
                from.udp_exchange(router, 8081, TIMEOUT),
                Outcome::Refused,
                "{from}"
            );
        }
        // Answered by the router itself, and by a guarded resolver.
        for resolver in others {
            assert_eq!(
                plc.udp_exchange(resolver, 53, TIMEOUT),
                Outcome::Connected,
                "{resolver}"
            );
        }
    }
    drop(servers);
}

/// Waits until the daemon has seen rules of netfilter appear or go.
fn until(what: impl FnMut() -> bool) -> bool {
    eventually(PATIENCE, what)
}

fn rewritten(name: &str, attach: &str) {
    let site = Site::new(name);
    if !netfilter(&site.lab, "nft", &[RULES]) {
        return skip(name, "there is no nft");
    }
    works(&site);
    let guard = Guard::start(&site.lab, "");
    for mode in ["enforce", "observe"] {
        guard.apply(&document(attach, mode, ADMITTED));
        for port in ["lan1", "lan2"] {
            guard.wait_until_guarded(port);
        }
        works(&site);
        assert_eq!(guard.drops(), [].into(), "{mode}");
        assert_eq!(guard.packets("observed"), 0, "{mode}");
    }
    // Without rules nothing of it works: NAT is no way around them.
    guard.apply(&document(attach, "enforce", "  []\n"));
    let servers = [502, 104].map(|port| site.plc.tcp_serve(port).unwrap());
    let published = site.container.tcp_serve(80).unwrap();
    for (from, to, port) in [
        (&site.container, "10.20.1.11", 502),
        (&site.container, "fd20:1::11", 502),
        (&site.desk, "10.20.1.11", 104),
        (&site.desk, "fd20:1::11", 104),
        (&site.plc, "10.20.1.1", 8080),
        (&site.plc, "fd20:1::1", 8080),
    ] {
        let outcome = from.tcp_connect(to, port, TIMEOUT);
        assert_eq!(outcome, Outcome::Dropped, "{from} {to}");
    }
    let drops = guard.drops();
    assert_eq!(drops.keys().collect::<Vec<_>>(), ["no_rule"], "{drops:?}");
    drop((servers, published));
    // Observed, all of it works again.
    guard.apply(&document(attach, "observe", "  []\n"));
    guard.observes("no_rule", || works(&site));
    site.lab.close().unwrap();
}

#[test]
fn what_nat_has_rewritten_works_at_tc() {
    rewritten("nat-tc", "tc");
}

#[test]
fn what_nat_has_rewritten_works_at_xdp() {
    rewritten("nat-xdp", "xdp");
}

/// Long enough for a conversation to be cut, and short enough to try often.
const SOON: Duration = Duration::from_millis(500);

#[test]
fn a_masqueraded_conversation_outlives_changes_that_admit_it_and_no_other() {
    let site = Site::new("nat-change");
    if !netfilter(&site.lab, "nft", &[RULES]) {
        return skip("nat-change", "there is no nft");
    }
    let Site { plc, desk, .. } = &site;
    let _servers = plc.tcp_serve(104).unwrap();
    let guard = Guard::start(&site.lab, "");
    let other = "  - {name: other, from: [router, device:desk], to: [device:plc], services: [tcp/105], action: allow}\n";
    for to in ["10.20.1.11", "fd20:1::11"] {
        guard.apply(&document("auto", "enforce", ADMITTED));
        let mut session = desk.session(to, 104).unwrap();
        assert!(session.echo(b"before"), "{to}");
        guard.apply(&document("auto", "enforce", &format!("{ADMITTED}{other}")));
        assert!(session.echo(b"after"), "{to}");
        // The rule goes, and with it the conversation.
        guard.apply(&document("auto", "enforce", other));
        assert!(!session.echo_within(b"more", SOON), "{to}");
        guard.apply(&document("auto", "enforce", ADMITTED));
        let mut session = desk.session(to, 104).unwrap();
        assert!(session.echo(b"before"), "{to}");
        // Quarantine cuts what NAT has made, too.
        let quarantine = ["quarantine", "plc", "--reason", "odd"];
        guard.ctl.run(&quarantine).unwrap().ok().unwrap();
        assert!(!session.echo_within(b"more", SOON), "{to}");
        let release = ["release", "plc", "--reason", "well"];
        guard.ctl.run(&release).unwrap().ok().unwrap();
    }
    site.lab.close().unwrap();
}

#[test]
fn nat_that_appears_is_noticed_and_so_is_its_end() {
    let site = Site::new("nat-appears");
    let Site { lab, plc, far, .. } = &site;
    let guard = Guard::start(lab, "");
    guard.apply(&document("auto", "enforce", ADMITTED));
    guard.wait_until_guarded("lan1");
    let _server = plc.udp_serve(502).unwrap();
    let reaches = |to: &str| far.udp_exchange(to, 502, SOON) == Outcome::Connected;
    let nft = [
        ["add table ip nat"],
        ["add chain ip nat out { type nat hook postrouting priority 100 ; }"],
        ["add rule ip nat out oifname lan1 masquerade"],
    ];
    // The server has no rule; as the router, it has one.
    assert!(!reaches("10.20.1.11"));
    if nft.iter().all(|rule| netfilter(lab, "nft", rule)) {
        assert!(until(|| reaches("10.20.1.11")));
        // Not of the other family: there the router's address is nobody else's.
        let before = guard.packets("spoofed_source");
        forge(&site, "wan0", "fd20:1::1");
        assert!(until(|| guard.packets("spoofed_source") > before));
        netfilter(lab, "nft", &["delete table ip nat"]);
        assert!(until(|| !reaches("10.20.1.11")));
    } else {
        skip("nat-appears", "there is no nft");
    }
    let legacy = [
        "-t",
        "nat",
        "-A",
        "POSTROUTING",
        "-o",
        "lan1",
        "-j",
        "MASQUERADE",
    ];
    if netfilter(lab, "iptables-legacy", &legacy) {
        assert!(until(|| reaches("10.20.1.11")));
    } else {
        skip("nat-appears", "there is no iptables-legacy");
    }
    guard.told(&[("reason", "no_rule"), ("source", "10.20.9.10")]);
    site.lab.close().unwrap();
}

/// A host behind an interface of the router sends the PLC a datagram from an address.
fn forge(site: &Site, through: &str, source: &str) {
    use wardline_oracle::frames::{Ethernet, Udp, ip, mac};
    let router = site.lab.router().mac(through).unwrap();
    let packet = ip(
        source.parse().unwrap(),
        "fd20:1::11".parse().unwrap(),
        Udp::new(9, 502, *b"forged"),
    );
    let frame = Ethernet::new(router, mac("02:00:00:00:09:10"), packet);
    site.far.send_frame("eth0", &frame.bytes()).unwrap();
}

#[test]
fn the_routers_address_is_believed_from_no_port_and_from_no_bridged_host() {
    let site = Site::new("nat-forged");
    let Site { lab, plc, .. } = &site;
    let router = lab.router();
    lab.bridge(router, "br0", &["10.20.3.1/24"]).unwrap();
    let [inside, beside] =
        [("inside", "lan3", 3), ("beside", "spare", 4)].map(|(name, port, n)| {
            let host = lab.host(name).unwrap();
            lab.wire(
                &End::new(&host, "eth0")
                    .mac(&format!("02:00:00:00:03:{n:02}"))
                    .address(&format!("10.20.3.{n}/24")),
                &End::new(router, port).master("br0"),
            )
            .unwrap();
            host
        });
    lab.settle().unwrap();
    if !netfilter(lab, "nft", &[RULES]) {
        return skip("nat-forged", "there is no nft");
    }
    let guard = Guard::start(lab, "");
    let more = r#"  - {interface: lan3, zone: plcs}
devices:
  - {name: inside, zone: plcs, macs: ["02:00:00:00:03:03"], addresses: [10.20.3.3]}
"#;
    guard.apply(&document("auto", "enforce", ADMITTED).replace("devices:\n", more));
    guard.wait_until_guarded("lan3");
    use wardline_oracle::frames::{Ethernet, Udp, ip, mac};
    let frame = |to: &str, from: &str, source: &str, destination: &str| {
        let packet = ip(
            source.parse().unwrap(),
            destination.parse().unwrap(),
            Udp::new(9, 502, *b"forged"),
        );
        Ethernet::new(mac(to), mac(from), packet).bytes()
    };
    let sniffer = inside.sniff("eth0").unwrap();
    let forged = frame(
        "02:00:00:00:03:03",
        "02:00:00:00:03:04",
        "10.20.3.1",
        "10.20.3.3",
    );
    beside.send_frame("eth0", &forged).unwrap();
    guard.told(&[("reason", "spoofed_source"), ("source", "10.20.3.1")]);
    // From a device, through its own port.
    let own = router
        .mac("lan1")
        .unwrap()
        .map(|byte| format!("{byte:02x}"))
        .join(":");
    let forged = frame(&own, "02:00:00:00:01:11", "10.20.1.1", "10.20.3.3");
    plc.send_frame("eth0", &forged).unwrap();
    guard.told(&[("reason", "spoofed_source"), ("source", "10.20.1.1")]);
    let arrived = sniffer.wait_for(SOON, |frame| frame.ends_with(b"forged"));
    assert_eq!(arrived, None);
    site.lab.close().unwrap();
}
