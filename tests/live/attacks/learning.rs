//! A device claims thousands of addresses, and then its neighbour's.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket},
    time::Duration,
};

use wardline_tests::{
    Host,
    ward::{Guard, Ward, mac},
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

/// Whether a datagram arrives from this address of one host at that address of another.
fn receives((from, source): (&Host, IpAddr), (to, destination): (&Host, IpAddr)) -> bool {
    let receiver = to
        .run(|| UdpSocket::bind((destination, 2575)).unwrap())
        .unwrap();
    receiver
        .set_read_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    let sender = from.run(|| UdpSocket::bind((source, 0)).unwrap()).unwrap();
    sender.send_to(b"pressure", (destination, 2575)).unwrap();
    receiver.recv(&mut [0; 16]).is_ok()
}

#[test]
fn a_flood_of_claims_takes_no_address_from_a_neighbour() {
    let (ward, [victim, attacker, other]) = bridged("learn-flood");
    for hook in ["xdp", "tc"] {
        let guard = Guard::start(&ward.lab, "");
        let devices: String = [1, 2, 3]
            .map(|net| {
                let mac = mac(net);
                format!("  - {{name: device-{net}, zone: guests, macs: [\"{mac}\"]}}\n")
            })
            .concat();
        guard.apply(&(POLICY.replace("HOOK", hook).replace("ADMIT", "listed") + &devices));
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
