//! Routers that announce much, and bridges that ask who listens: do advertisements and queries
//! arrive, and only from those that may send them?

use std::{collections::BTreeMap, time::Duration};

use wardline_oracle::frames::{
    Ethernet, Extension, Ipv4, Ipv6, ROUTER_ALERT, group_mac, icmpv6, igmp_query, mac as parsed,
};
use wardline_tests::{
    Host, Outcome, TIMEOUT, eventually,
    ward::{FAR, Guard, PATIENCE, Ward, mac, policy, v4, v6, zone},
};

use crate::live::servers::{dnsmasq, has_dnsmasq};

/// Prefixes that the router announces; with its other options ten and more.
const PREFIXES: u8 = 7;

#[test]
fn a_host_configures_itself_from_many_prefixes() {
    if !has_dnsmasq("many prefixes") {
        return;
    }
    let ward = Ward::new("prefixes");
    let router = ward.lab.router();
    let device = ward.bare(1, &ward.port(1));
    device.sysctl("ipv6/conf/eth0/accept_ra", "1").unwrap();
    ward.lab.settle().unwrap();
    let mut arguments = vec!["--interface=lan1".to_owned(), "--enable-ra".to_owned()];
    for at in 0..PREFIXES {
        if at != 0 {
            let address = format!("fd20:0:{at}:1::1/64");
            router
                .ip(&format!("address add {address} dev lan1 nodad"))
                .unwrap();
        }
        arguments.push(format!("--dhcp-range=fd20:0:{at}:1::,ra-only"));
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let _dnsmasq = dnsmasq(&ward.lab, router, &arguments);
    let configures = || {
        device.ip("link set eth0 down").unwrap();
        device.ip("link set eth0 up").unwrap();
        let prefix = |at: u8| format!("fd20:0:{at}:1:").replace(":0:0:", "::");
        eventually(Duration::from_secs(20), || {
            let own = device
                .ip("address show eth0")
                .unwrap()
                .replace(":0:0:", "::");
            (0..PREFIXES).all(|at| own.contains(&prefix(at)))
        })
    };
    // Without Wardline the network works.
    assert!(configures(), "{}", device.ip("address show eth0").unwrap());

    let guard = Guard::start(&ward.lab, "");
    for (hook, mode) in [("xdp", ""), ("tc", ""), ("xdp", ", mode: observe")] {
        let [zones, ports, devices] = zone(1, mode, &format!(", attach: {hook}"));
        let zones = zones.replace("fd20:0:0:1::/64", "fd20::/32");
        let devices = devices.replace(&format!(", addresses: [{}, \"{}\"]", v4(1), v6(1)), "");
        guard.apply(&format!(
            "version: 1\nzones:\n{zones}ports:\n{ports}devices:\n{devices}rules: []\n"
        ));
        assert_eq!(guard.attached()["lan1"], hook);
        assert!(configures(), "{}", device.ip("address show eth0").unwrap());
        assert_eq!(guard.drops(), BTreeMap::new(), "{hook}{mode}");
        assert_eq!(guard.packets("observed"), 0, "{hook}{mode}");
    }
}

#[test]
fn slaac_beside_listed_ipv4() {
    if !has_dnsmasq("privacy addresses") {
        return;
    }
    let ward = Ward::new("privacy");
    let router = ward.lab.router();
    let device = ward.bare(1, &ward.port(1));
    for (key, value) in [("accept_ra", "1"), ("use_tempaddr", "2")] {
        device
            .sysctl(&format!("ipv6/conf/eth0/{key}"), value)
            .unwrap();
    }
    device
        .ip(&format!("address add {}/24 dev eth0", v4(1)))
        .unwrap();
    device.ip("route add default via 10.20.1.1").unwrap();
    ward.lab.settle().unwrap();
    let ranges = ["--enable-ra", "--dhcp-range=fd20:0:0:1::,ra-only"];
    let _dnsmasq = dnsmasq(
        &ward.lab,
        router,
        &["--interface=lan1", ranges[0], ranges[1]],
    );
    let _server = ward.far.tcp_serve(7).unwrap();
    // With new addresses, of which one is temporary.
    let configures = || {
        device.ip("link set eth0 down").unwrap();
        device.ip("link set eth0 up").unwrap();
        device.ip("route replace default via 10.20.1.1").unwrap();
        eventually(Duration::from_secs(20), || {
            device
                .ip("address show eth0 temporary -tentative")
                .unwrap()
                .replace(":0:0:", "::")
                .contains("fd20::1:")
        })
    };
    let outcomes = || FAR.map(|address| device.tcp_connect(address, 7, TIMEOUT));
    assert!(configures(), "{}", device.ip("address show eth0").unwrap());
    assert_eq!(outcomes(), [Outcome::Connected; 2]);

    for hook in ["xdp", "tc"] {
        let guard = Guard::start(&ward.lab, "");
        let document = |mode: &str, learn: &str| {
            let mut lines = zone(1, mode, &format!(", attach: {hook}"));
            lines[2] = lines[2].replace(&format!(", \"{}\"]", v6(1)), &format!("]{learn}"));
            policy(&[lines], "tcp/7")
        };
        guard.apply(&document("", ""));
        assert!(configures(), "{}", device.ip("address show eth0").unwrap());
        assert_eq!(outcomes(), [Outcome::Connected; 2]);
        assert_eq!(guard.drops(), BTreeMap::new());
        guard.apply(&document("", ", learn: false"));
        assert_eq!(outcomes(), [Outcome::Connected, Outcome::Dropped]);
        assert!(guard.packets("spoofed_source") > 0, "{:?}", guard.drops());
        guard.apply(&document(", mode: observe", ", learn: false"));
        guard.observes("spoofed_source", || {
            assert_eq!(outcomes(), [Outcome::Connected; 2], "{hook}");
        });
    }
}

#[test]
fn a_bridge_asks_its_members_who_listens() {
    let ward = Ward::new("querier");
    let router = ward.lab.router();
    ward.lab
        .bridge(router, "br0", &["10.20.0.1/16", "fd20::1/32"])
        .unwrap();
    let (one, two) = (ward.bridged(21, "br0"), ward.bridged(22, "br0"));
    // Hundredths of a second.
    router
        .ip(
            "link set br0 type bridge mcast_snooping 1 mcast_querier 1 mcast_query_interval 50 \
             mcast_startup_query_interval 50",
        )
        .unwrap();
    ward.lab.settle().unwrap();
    let hears_after = |host: &Host, asks: &dyn Fn()| {
        let sniffer = host.sniff("eth0").unwrap();
        asks();
        let igmp = |frame: &[u8]| frame[12..14] == [8, 0] && frame[23] == 2 && frame[38] == 0x11;
        let mld = |frame: &[u8]| frame[12..14] == [0x86, 0xdd] && frame[62] == 130;
        let mut heard = [false; 2];
        eventually(PATIENCE, || {
            if let Some(frame) = sniffer.next(TIMEOUT) {
                heard[0] |= frame.len() > 38 && igmp(&frame);
                heard[1] |= frame.len() > 62 && mld(&frame);
            }
            heard == [true; 2]
        })
    };
    let hears = |host: &Host| hears_after(host, &|| ());
    // Without Wardline the network works.
    assert!(hears(&one) && hears(&two));

    let guard = Guard::start(&ward.lab, "");
    let policy = |mode: &str, port: &str| {
        let device = |name: &str, net: u8| {
            let addresses = format!("[10.20.0.{net}, \"fd20::{net}\"]");
            let mac = mac(net);
            format!(
                "  - {{name: {name}, zone: video, macs: [\"{mac}\"], addresses: {addresses}}}\n"
            )
        };
        format!(
            "version: 1\nzones:\n  - {{name: video, subnets: [10.20.0.0/16, \"fd20::/32\"]{mode}}}\n\
             ports:\n  - {{interface: lan21, zone: video{port}}}\n  \
             - {{interface: lan22, zone: video, attach: tc}}\ndevices:\n{}{}rules: []\n",
            device("one", 21),
            device("two", 22)
        )
    };
    guard.apply(&policy("", ""));
    assert!(hears(&one) && hears(&two), "{:?}", guard.drops());
    assert_eq!(guard.drops(), BTreeMap::new());

    // A device is no querier. The bridge would send it all that its neighbours report, and would not
    // ask any more itself.
    let queries = [
        Ethernet::new(
            group_mac([224, 0, 0, 1]),
            parsed(&mac(21)),
            Ipv4 {
                ttl: 1,
                options: ROUTER_ALERT.to_vec(),
                ..Ipv4::new(
                    [10, 20, 0, 21].into(),
                    [224, 0, 0, 1].into(),
                    igmp_query([0; 4].into()),
                )
            },
        ),
        Ethernet::new(
            group_mac([0xff02, 0, 0, 0, 0, 0, 0, 1]),
            parsed(&mac(21)),
            Ipv6 {
                hop_limit: 1,
                ..Ipv6::new(
                    "fe80::11".parse().unwrap(),
                    "ff02::1".parse().unwrap(),
                    icmpv6::listener_query("::".parse().unwrap()),
                )
                .with(Extension::router_alert())
            },
        ),
    ];
    let asks = || {
        for query in &queries {
            one.send_frame("eth0", &query.bytes()).unwrap();
        }
    };
    asks();
    assert!(eventually(PATIENCE, || guard.packets("rogue_ra") == 2));
    guard.told(&[("reason", "rogue_ra"), ("device", "one")]);
    // Observed, its queries arrive.
    guard.apply(&policy(", mode: observe", ""));
    guard.observes("rogue_ra", || assert!(hears_after(&two, &asks)));
    guard.apply(&policy("", ", router: true"));
    // The bridge then leaves the asking to that port's querier.
    assert!(hears_after(&two, &asks));
    assert_eq!(guard.drops(), BTreeMap::from([("rogue_ra".to_owned(), 2)]));
}
