//! A device claims the link-local addresses of a neighbour and of routers.

use std::net::Ipv6Addr;

use wardline_oracle::frames::{
    Ethernet, Ipv6, Mac, Upper, group_mac, icmpv6, mac as parsed, solicited_node,
};
use wardline_tests::{
    Host, eventually,
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

/// An address that somebody has, and who asks for it.
struct Owned<'a> {
    address: Ipv6Addr,
    owner: Mac,
    asker: &'a Host,
    interface: &'a str,
}

impl Owned<'_> {
    /// Whether who asks believes the address to be at this MAC.
    fn is_at(&self, mac: Mac) -> bool {
        let Self {
            address, interface, ..
        } = self;
        let shown = format!("-6 neighbour show {address} dev {interface}");
        let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
        self.asker.ip(&shown).unwrap().contains(&mac)
    }

    /// Forgets, and asks anew; whether the owner's answer is believed.
    fn asks(&self) -> bool {
        let Self {
            address, interface, ..
        } = self;
        let flush = format!("-6 neighbour flush dev {interface} nud all");
        self.asker.ip(&flush).unwrap();
        // Where no rule allows it, only the owner's MAC becomes known.
        let _ = self.asker.ping(&format!("{address}%{interface}"));
        eventually(PATIENCE, || self.is_at(self.owner))
    }
}

/// Without Wardline the camera takes each of these, until the owner objects.
fn takes_each(camera: &Host, camera_mac: Mac, all: &[Owned<'_>]) {
    for owned in all {
        assert!(owned.asks(), "{}", owned.address);
        let [takes, ..] = claims(camera_mac, owned.address);
        camera.send_frame("eth0", &takes).unwrap();
        let taken = || owned.is_at(camera_mac);
        assert!(eventually(PATIENCE, taken), "{}", owned.address);
    }
}

/// Drops of what claims an address that is another's.
fn spoofs(guard: &Guard) -> u64 {
    guard.packets("nd_spoof") + guard.packets("spoofed_source")
}

/// With Wardline each stays its owner's, and every claim is dropped.
fn takes_none(guard: &Guard, hook: &str, camera: &Host, camera_mac: Mac, all: &[Owned<'_>]) {
    for owned in all {
        let what = format!("{hook} {}", owned.address);
        assert!(owned.asks(), "{what}: {:?}", guard.drops());
        let before = spoofs(guard);
        let frames = claims(camera_mac, owned.address);
        camera.flood("eth0", &frames).unwrap();
        let dropped = || spoofs(guard) == before + frames.len() as u64;
        assert!(eventually(PATIENCE, dropped), "{what}: {:?}", guard.drops());
        assert!(owned.is_at(owned.owner), "{what}");
    }
}

/// A host shows that it has an address, as it would by detecting duplicates.
fn shows(host: &Host, mac: Mac, address: Ipv6Addr) {
    let says = icmpv6::neighbour_advertisement(address, 0x20, &[icmpv6::target_link(mac)]);
    let says = discovery(mac, address, "ff02::1".parse().unwrap(), says);
    host.send_frame("eth0", &says).unwrap();
}

#[test]
fn a_neighbour_on_a_bridge_takes_no_link_local_address() {
    let ward = Ward::new("neighbours");
    let router = ward.lab.router();
    let addresses = ["10.20.0.1/16", "fd20::1/32"];
    ward.lab.bridge(router, "br0", &addresses).unwrap();
    let [pump, camera, second] = [1, 2, 3].map(|net| ward.bridged(net, "br0"));
    // Another router, on a port that may have one.
    second.sysctl("ipv6/conf/all/forwarding", "1").unwrap();
    ward.lab.settle().unwrap();
    let add = format!("address add {RANDOM}/64 dev eth0 nodad");
    pump.ip(&add).unwrap();
    let [pumps, cameras, seconds] = [1, 2, 3].map(|net| parsed(&mac(net)));
    let routers = router.mac("br0").unwrap();
    let (random, gateway) = (RANDOM.parse().unwrap(), router.link_local("br0").unwrap());
    let owned = |address, owner, asker, interface| Owned {
        address,
        owner,
        asker,
        interface,
    };
    let all = [
        owned(made_of(pumps), pumps, router, "br0"),
        owned(random, pumps, router, "br0"),
        owned(gateway, routers, &pump, "eth0"),
        owned(made_of(seconds), seconds, &pump, "eth0"),
    ];
    takes_each(&camera, cameras, &all);

    for hook in ["xdp", "tc"] {
        let guard = Guard::start(&ward.lab, "");
        let zones = [1, 2, 3].map(|net| {
            let may = if net == 3 { ", router: true" } else { "" };
            zone(net, "", &format!(", attach: {hook}{may}"))
        });
        guard.apply(&policy(&zones, "tcp/7"));
        for port in ["lan1", "lan2", "lan3"] {
            assert_eq!(guard.attached()[port], hook);
        }
        shows(&pump, pumps, random);
        takes_none(&guard, hook, &camera, cameras, &all);
        guard.told(&[("reason", "nd_spoof"), ("device", "device-2")]);
        // Nor one that the router may still take.
        let (frames, before) = (claims(cameras, made_of(routers)), spoofs(&guard));
        camera.flood("eth0", &frames).unwrap();
        let dropped = || spoofs(&guard) == before + frames.len() as u64;
        assert!(eventually(PATIENCE, dropped), "{hook}: {:?}", guard.drops());
        // The camera's own address is its own.
        let control = guard.packets("control");
        shows(&camera, cameras, made_of(cameras));
        let passes = || guard.packets("control") > control;
        assert!(eventually(PATIENCE, passes), "{hook}: {:?}", guard.drops());
    }
}

#[test]
fn a_neighbour_behind_the_same_routed_port_takes_no_link_local_address() {
    let ward = Ward::new("neighbours-routed");
    let router = ward.lab.router();
    let [pump, camera] = ward.switched(1);
    let elsewhere = ward.device(3);
    ward.lab.settle().unwrap();
    pump.ip(&format!("address add {RANDOM}/64 dev eth0 nodad"))
        .unwrap();
    let [pumps, cameras, others] = [1, 2, 3].map(|net| parsed(&mac(net)));
    let random = RANDOM.parse().unwrap();
    // What the switch passes on beside the router is not judged, but what the router believes is.
    let all = [made_of(pumps), random].map(|address| Owned {
        address,
        owner: pumps,
        asker: router,
        interface: "lan1",
    });
    takes_each(&camera, cameras, &all);
    for hook in ["xdp", "tc"] {
        let guard = Guard::start(&ward.lab, "");
        let mut zones = [1, 3].map(|net| zone(net, "", &format!(", attach: {hook}")));
        let second = format!(
            "  - {{name: device-2, zone: zone-1, macs: [\"{}\"], addresses: [10.20.1.12, \
             \"fd20:0:0:1::12\"]}}\n",
            mac(2)
        );
        zones[0][2] += &second;
        guard.apply(&policy(&zones, "tcp/7"));
        assert_eq!(guard.attached()["lan1"], hook);
        shows(&pump, pumps, random);
        takes_none(&guard, hook, &camera, cameras, &all);
        guard.told(&[("reason", "nd_spoof"), ("device", "device-2")]);
        // Nor does a device behind another port, where the address would be another host's.
        takes_none(&guard, hook, &elsewhere, others, &all[..1]);
        guard.told(&[("reason", "nd_spoof"), ("interface", "lan3")]);
        let control = guard.packets("control");
        shows(&camera, cameras, made_of(cameras));
        let passes = || guard.packets("control") > control;
        assert!(eventually(PATIENCE, passes), "{hook}: {:?}", guard.drops());
    }
}
