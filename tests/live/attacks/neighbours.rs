//! A device claims the link-local addresses of a neighbour and of the router.

use std::net::Ipv6Addr;

use wardline_oracle::frames::{
    Ethernet, Ipv6, Mac, Upper, group_mac, icmpv6, mac as parsed, solicited_node,
};
use wardline_tests::{
    Host, Lab, Outcome, TIMEOUT, eventually,
    ward::{Guard, PATIENCE, Ward, mac, policy, zone},
};

/// One that is made of no MAC.
const RANDOM: &str = "fe80::77";

fn discovery(from: Mac, source: Ipv6Addr, to: Ipv6Addr, upper: Upper) -> Vec<u8> {
    let packet = Ipv6 {
        hop_limit: 255,
        ..Ipv6::new(source, to, upper)
    };
    Ethernet::new(group_mac(to), from, packet).bytes()
}

fn made_of(mac: Mac) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac;
    let half = [a ^ 2, b, c, 0xff, 0xfe, d, e, f];
    Ipv6Addr::from_bits(0xfe80 << 112 | u128::from(u64::from_be_bytes(half)))
}

/// The MAC that a host believes an address to be at.
fn believes(host: &Host, interface: &str, address: &str) -> String {
    host.ip(&format!("-6 neighbour show {address} dev {interface}"))
        .unwrap()
}

/// Everything by which the camera could take an address of the pump or of the router.
fn claims(camera: Mac, victim: Ipv6Addr) -> [Vec<u8>; 4] {
    let all = "ff02::1".parse().unwrap();
    let own = made_of(camera);
    let advertises =
        || icmpv6::neighbour_advertisement(victim, 0x20, &[icmpv6::target_link(camera)]);
    let asks = icmpv6::neighbour_solicitation(
        "fd20:0:0:1::1".parse().unwrap(),
        &[icmpv6::source_link(camera)],
    );
    let probes = icmpv6::neighbour_solicitation(victim, &[]);
    [
        discovery(camera, victim, all, advertises()),
        discovery(camera, own, all, advertises()),
        discovery(camera, victim, all, asks),
        discovery(
            camera,
            Ipv6Addr::UNSPECIFIED,
            solicited_node(victim),
            probes,
        ),
    ]
}

fn attacked(lab: &Lab, hook: &str, [pump, camera]: &[Host; 2], gateway: &str, ports: [&str; 2]) {
    let guard = Guard::start(lab, "");
    let zones = [1, 2].map(|net| zone(net, "", &format!(", attach: {hook}")));
    guard.apply(&policy(&zones, "tcp/7"));
    for port in ports {
        guard.wait_until_guarded(port);
    }
    // The pump shows that it has the address, as it would by detecting duplicates.
    let pumps = parsed(&mac(1));
    let random: Ipv6Addr = RANDOM.parse().unwrap();
    let shows = icmpv6::neighbour_advertisement(random, 0x20, &[icmpv6::target_link(pumps)]);
    let shows = discovery(pumps, random, "ff02::1".parse().unwrap(), shows);
    pump.send_frame("eth0", &shows).unwrap();
    let spoofs = || guard.packets("nd_spoof") + guard.packets("spoofed_source");
    let router = lab.router();
    let owners = [made_of(parsed(&mac(1))), RANDOM.parse().unwrap()];
    for owner in owners {
        let address = owner.to_string();
        // The router asks, and the pump answers.
        let reached = router.ping_within(&format!("{address}%{gateway}"), TIMEOUT);
        assert_eq!(reached, Outcome::Dropped, "no rule allows it");
        let own = || believes(router, gateway, &address).contains(&mac(1));
        assert!(eventually(PATIENCE, own), "{hook} {address}");
        let before = spoofs();
        let frames = claims(parsed(&mac(2)), owner);
        for frame in &frames {
            camera.send_frame("eth0", frame).unwrap();
        }
        let dropped = || spoofs() == before + frames.len() as u64;
        assert!(eventually(PATIENCE, dropped), "{hook}: {:?}", guard.drops());
        assert!(own(), "{hook} {address}");
    }
    let routers = router.mac(gateway).unwrap();
    for frame in claims(parsed(&mac(2)), made_of(routers)) {
        camera.send_frame("eth0", &frame).unwrap();
    }
    let dropped = || spoofs() == 12;
    assert!(eventually(PATIENCE, dropped), "{hook}: {:?}", guard.drops());
    // The camera's own address is its own.
    let own = made_of(parsed(&mac(2)));
    let frame = discovery(
        parsed(&mac(2)),
        own,
        "ff02::1".parse().unwrap(),
        icmpv6::neighbour_advertisement(own, 0x20, &[icmpv6::target_link(parsed(&mac(2)))]),
    );
    let control = guard.packets("control");
    camera.send_frame("eth0", &frame).unwrap();
    let passes = || guard.packets("control") > control;
    assert!(eventually(PATIENCE, passes), "{hook}: {:?}", guard.drops());
}

#[test]
fn a_neighbour_on_a_bridge_takes_no_link_local_address() {
    let ward = Ward::new("neighbours");
    let addresses = ["10.20.0.1/16", "fd20::1/32"];
    ward.lab
        .bridge(ward.lab.router(), "br0", &addresses)
        .unwrap();
    let devices = [1, 2].map(|net| ward.bridged(net, "br0"));
    ward.lab.settle().unwrap();
    let add = format!("address add {RANDOM}/64 dev eth0 nodad");
    devices[0].ip(&add).unwrap();
    for hook in ["xdp", "tc"] {
        attacked(&ward.lab, hook, &devices, "br0", ["lan1", "lan2"]);
    }
}
