//! A device claims thousands of addresses, and then its neighbour's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

use serde_json::Value;
use wardline_oracle::frames::{
    Arp, BROADCAST, Ethernet, Ipv6, group_mac, icmpv6, mac as parsed, solicited_node,
};
use wardline_tests::{
    End, Host, eventually,
    ward::{Guard, PATIENCE, Ward, mac, receives},
};

/// Addresses that the attacker claims.
const CLAIMS: u16 = 20_000;
/// Learned addresses that a device may have for each family.
const LEARNED: u64 = 16;

const POLICY: &str = "
version: 1
zones:
  - {name: guests, admit: ADMIT, subnets: [10.20.0.0/16, \"fd20::/32\"]}
ports:
  - {interface: lan*, zone: guests, attach: HOOK}
rules:
  - {name: talk, from: [zone:guests], to: [zone:guests], services: [udp/2575], action: allow}
  - {name: ask, from: [zone:guests], to: [router], services: [icmp/8, icmpv6/128], action: allow}
devices:
";

/// The n-th address that the attacker claims.
fn claimed(v4: bool, n: u16) -> IpAddr {
    let [high, low] = (n + 0x8000).to_be_bytes();
    if v4 {
        Ipv4Addr::new(10, 20, high, low).into()
    } else {
        Ipv6Addr::new(0xfd20, 0, 0x77, 0, 0, 0, 0, n).into()
    }
}

/// Three hosts on one bridge, of which the second may send from the first's address and thousands more.
fn bridged(name: &str) -> (Ward, [Host; 3]) {
    let ward = Ward::new(name);
    ward.lab.router().ip("link add br0 type bridge").unwrap();
    ward.lab.router().ip("link set br0 up").unwrap();
    let hosts = [1, 2, 3].map(|net| ward.bridged(net, "br0"));
    // What the second may send from.
    hosts[1].sysctl("ipv6/ip_nonlocal_bind", "1").unwrap();
    for mine in ["10.20.128.0/17", "10.20.0.1"] {
        hosts[1]
            .ip(&format!("route add local {mine} dev lo"))
            .unwrap();
    }
    ward.lab.settle().unwrap();
    (ward, hosts)
}

/// The address of the n-th host.
fn own(v4: bool, net: u16) -> IpAddr {
    if v4 {
        Ipv4Addr::new(10, 20, 0, net as u8).into()
    } else {
        Ipv6Addr::new(0xfd20, 0, 0, 0, 0, 0, 0, net).into()
    }
}

/// The policy of devices that are listed with a MAC only.
fn listed(hook: &str) -> String {
    let devices = [1, 2, 3].map(|net| {
        let mac = mac(net);
        format!("  - {{name: device-{net}, zone: guests, macs: [\"{mac}\"]}}\n")
    });
    POLICY.replace("HOOK", hook).replace("ADMIT", "listed") + &devices.concat()
}

#[test]
fn a_flood_of_claims_takes_no_address_from_a_neighbour() {
    let (ward, [victim, attacker, other]) = bridged("learn-flood");
    for hook in ["xdp", "tc"] {
        let guard = Guard::start(&ward.lab, "");
        guard.apply(&listed(hook));
        for v4 in [true, false] {
            let [own1, own2, own3] = [1, 2, 3].map(|net| own(v4, net));
            assert!(receives((&victim, own1), (&other, own3)), "{hook}");
            assert!(receives((&attacker, own2), (&other, own3)), "{hook}");
            let before = guard.packets("spoofed_source");
            attacker
                .run(|| {
                    for n in 1..=CLAIMS {
                        let sender = UdpSocket::bind((claimed(v4, n), 0)).unwrap();
                        sender.send_to(b"claim", (own3, 2575)).unwrap();
                    }
                })
                .unwrap();
            assert!(guard.packets("spoofed_source") > before + u64::from(CLAIMS) / 2);
            // The neighbour's address is still its own, and it works.
            assert!(!receives((&attacker, own1), (&other, own3)), "{hook}");
            assert!(receives((&victim, own1), (&other, own3)), "{hook}");
            assert!(receives((&attacker, own2), (&other, own3)), "{hook}");
        }
        let status = guard.ctl.json(&["status"]).unwrap();
        let tables = status["tables"].as_array().unwrap();
        let learned = tables
            .iter()
            .find(|table| table["name"] == "learned")
            .unwrap();
        let used = learned["used"].as_u64().unwrap();
        assert!(
            (2 * LEARNED..=2 * (LEARNED + 2) + 2).contains(&used),
            "{used}"
        );
        let drops: Vec<String> = guard.drops().into_keys().collect();
        assert_eq!(drops, ["spoofed_source"], "{:?}", guard.drops());
    }
}

#[test]
fn a_guest_can_not_use_the_address_of_another() {
    let (ward, [victim, attacker, other]) = bridged("guest-address");
    for hook in ["xdp", "tc"] {
        let guard = Guard::start(&ward.lab, "");
        guard.apply(&(POLICY.replace("HOOK", hook).replace("ADMIT", "any") + "  []\n"));
        for v4 in [true, false] {
            let [own1, own2, own3] = [1, 2, 3].map(|net| own(v4, net));
            assert!(receives((&victim, own1), (&other, own3)), "{hook}");
            // From its own address first: so its host knows the neighbour when it attacks.
            assert!(receives((&attacker, own2), (&other, own3)), "{hook}");
            assert!(!receives((&attacker, own1), (&other, own3)), "{hook}");
            assert!(receives((&victim, own1), (&other, own3)), "{hook}");
            assert!(receives((&attacker, own2), (&other, own3)), "{hook}");
        }
        assert!(guard.packets("spoofed_source") >= 2, "{:?}", guard.drops());
    }
}

/// Addresses that the router learns without Wardline: few, because all hosts of the machine share the
/// table of neighbours.
const NEIGHBOURS: u16 = 100;

/// The router's addresses.
const ROUTER: (Ipv4Addr, Ipv6Addr) = (
    Ipv4Addr::new(10, 20, 0, 254),
    Ipv6Addr::new(0xfd20, 0, 0, 0, 0, 0, 0, 0xfe),
);

/// The first device asks for the router from as many addresses, by ARP and by neighbour discovery.
fn questions() -> Vec<Vec<u8>> {
    let own = parsed(&mac(1));
    let asks = |address: IpAddr| match address {
        IpAddr::V4(address) => {
            Ethernet::new(BROADCAST, own, Arp::request(own, address, ROUTER.0)).bytes()
        }
        IpAddr::V6(address) => {
            let option = icmpv6::source_link(own);
            let asks = icmpv6::neighbour_solicitation(ROUTER.1, &[option]);
            let to = solicited_node(ROUTER.1);
            let packet = Ipv6 {
                hop_limit: 255,
                ..Ipv6::new(address, to, asks)
            };
            Ethernet::new(group_mac(to), own, packet).bytes()
        }
    };
    let both = |n| [true, false].map(|v4| asks(claimed(v4, n)));
    (1..=NEIGHBOURS).flat_map(both).collect()
}

fn spares_neighbours(name: &str, on_bridge: bool) {
    let ward = Ward::new(name);
    let router = ward.lab.router();
    let addresses = ["10.20.0.254/16", "fd20::fe/32"];
    let (interface, attacker, late) = if on_bridge {
        ward.lab.bridge(router, "br0", &addresses).unwrap();
        let late = ward.bare(2, &End::new(router, "lan2").master("br0"));
        ("br0", ward.bridged(1, "br0"), Some(late))
    } else {
        let port = End::new(router, "lan1");
        let port = addresses.iter().fold(port, |port, it| port.address(it));
        let host = ward.bare(1, &port);
        for own in ["10.20.0.1/16", "fd20::1/32 nodad"] {
            host.ip(&format!("address add {own} dev eth0")).unwrap();
        }
        ("lan1", host, None)
    };
    ward.lab.settle().unwrap();
    // Addresses that the router believes to be the attacker's, of each family.
    let believed = || {
        ["-4", "-6"].map(|family| {
            let shown = router.ip(&format!("-json {family} neighbour show dev {interface}"));
            let shown: Vec<Value> = serde_json::from_str(&shown.unwrap()).unwrap();
            shown.iter().filter(|it| it["lladdr"] == mac(1)).count() as u64
        })
    };
    let forgets = || {
        for family in ["-4", "-6"] {
            let flush = format!("{family} neighbour flush dev {interface} nud all");
            router.ip(&flush).unwrap();
        }
        believed() == [0; 2]
    };
    let pings = |host: &Host| host.ping(&ROUTER.0.to_string()) && host.ping(&ROUTER.1.to_string());
    let frames = questions();
    // Without Wardline the router believes all of them.
    assert!(pings(&attacker));
    attacker.flood("eth0", &frames).unwrap();
    let all = || believed().iter().all(|it| *it >= u64::from(NEIGHBOURS));
    assert!(eventually(PATIENCE, all), "{:?}", believed());
    for hook in ["xdp", "tc"] {
        assert!(eventually(PATIENCE, forgets), "{:?}", believed());
        let guard = Guard::start(&ward.lab, "");
        guard.apply(&listed(hook));
        assert_eq!(guard.attached()["lan1"], hook);
        assert!(pings(&attacker), "{hook}");
        attacker.flood("eth0", &frames).unwrap();
        let refused = || {
            let drops = guard.packets("arp_spoof") + guard.packets("spoofed_source");
            drops >= 2 * (u64::from(NEIGHBOURS) - LEARNED)
        };
        assert!(eventually(PATIENCE, refused), "{hook} {:?}", guard.drops());
        // And the one that is its own, and the link-local one.
        let bound = believed().iter().all(|it| *it <= LEARNED + 2);
        assert!(bound, "{hook}: {:?}", believed());
        assert!(pings(&attacker), "{hook}");
        // Who comes later takes one of those that were refused.
        if let Some(late) = &late {
            for v4 in [true, false] {
                let (own, rest) = (
                    claimed(v4, NEIGHBOURS),
                    if v4 { "/16" } else { "/32 nodad" },
                );
                late.ip(&format!("address replace {own}{rest} dev eth0"))
                    .unwrap();
            }
            assert!(pings(late), "{hook} {:?}", guard.drops());
        }
    }
}

#[test]
fn claims_beyond_the_bound_do_not_reach_the_router() {
    spares_neighbours("claims-routed", false);
}

#[test]
fn claims_beyond_the_bound_do_not_reach_the_router_of_a_bridge() {
    spares_neighbours("claims-bridged", true);
}

/// Learned addresses that all devices at one port may have, for each family.
const OF_PORT: usize = 1024;
/// Unlisted MACs behind one port, which claim as many addresses as each may have: more than the port may.
const MANY: u16 = 80;

/// The claims of one MAC of many, by ARP and by neighbour discovery.
fn claims_of(n: u16) -> [Vec<Vec<u8>>; 2] {
    let [high, low] = n.to_be_bytes();
    let own = [2, 0, 0, 9, high, low];
    let claims = (0..LEARNED as u16).map(|at| n * LEARNED as u16 + at);
    [true, false].map(|v4| {
        let frame = |at: u16| match claimed(v4, at) {
            IpAddr::V4(address) => {
                Ethernet::new(BROADCAST, own, Arp::request(own, address, address)).bytes()
            }
            IpAddr::V6(address) => {
                let says =
                    icmpv6::neighbour_advertisement(address, 0x20, &[icmpv6::target_link(own)]);
                let to = "ff02::1".parse().unwrap();
                let packet = Ipv6 {
                    hop_limit: 255,
                    ..Ipv6::new(address, to, says)
                };
                Ethernet::new(group_mac(to), own, packet).bytes()
            }
        };
        claims.clone().map(frame).collect()
    })
}

#[test]
fn many_macs_behind_one_port_take_no_address_from_other_ports() {
    let ward = Ward::new("port-bound");
    ward.lab.router().ip("link add br0 type bridge").unwrap();
    ward.lab.router().ip("link set br0 up").unwrap();
    let [attacker, early] = [2, 3].map(|net| ward.bridged(net, "br0"));
    let late = ward.bridged(4, "br0");
    ward.lab.settle().unwrap();
    let claims: Vec<_> = (0..MANY).map(claims_of).collect();
    for hook in ["xdp", "tc"] {
        let guard = Guard::start(&ward.lab, "");
        guard.apply(&(POLICY.replace("HOOK", hook).replace("ADMIT", "any") + "  []\n"));
        assert_eq!(guard.attached()["lan2"], hook);
        for v4 in [true, false] {
            let [own2, own3, own4] = [2, 3, 4].map(|net| own(v4, net));
            // The attacker has an address of its own before it claims others.
            assert!(receives((&attacker, own2), (&early, own3)), "{hook}");
            let spoofs = || {
                let all = ["arp_spoof", "nd_spoof", "spoofed_source"];
                all.map(|reason| guard.packets(reason)).iter().sum::<u64>()
            };
            let before = spoofs();
            for frames in &claims {
                attacker.flood("eth0", &frames[usize::from(!v4)]).unwrap();
            }
            // One address of the port, or a few, was learned before.
            let beyond = usize::from(MANY) * LEARNED as usize - OF_PORT;
            let refused = || spoofs() - before >= beyond as u64;
            assert!(eventually(PATIENCE, refused), "{hook} {:?}", guard.drops());
            let refused = spoofs() - before;
            assert!(refused <= beyond as u64 + 4, "{hook} {refused}");
            // Nobody lost an address, and who comes later at another port gets one.
            assert!(receives((&attacker, own2), (&early, own3)), "{hook}");
            assert!(receives((&early, own3), (&attacker, own2)), "{hook}");
            assert!(
                receives((&late, own4), (&early, own3)),
                "{hook} {:?}",
                guard.drops()
            );
        }
        let status = guard.ctl.json(&["status"]).unwrap();
        let tables = status["tables"].as_array().unwrap();
        let learned = tables.iter().find(|it| it["name"] == "learned").unwrap();
        let used = learned["used"].as_u64().unwrap() as usize;
        // Those of the port, and of the two others.
        assert!((2 * OF_PORT..=2 * OF_PORT + 12).contains(&used), "{used}");
    }
}
