//! Do devices get their addresses: from advertisements, from a DHCP server on the router, from one
//! behind a port?

use std::{collections::BTreeMap, net::Ipv6Addr, time::Duration};

use wardline_tests::{
    End, Outcome, TIMEOUT, eventually,
    ward::{FAR, Guard, PATIENCE, Ward, mac, policy, v4, v6, zone},
};

use crate::live::servers::{dnsmasq, global_address, has, has_dnsmasq, takes_lease};

#[test]
fn a_host_configures_itself_from_advertisements() {
    if !has_dnsmasq("SLAAC") {
        return;
    }
    let ward = Ward::new("slaac");
    let device = ward.bare(1, &ward.port(1));
    for (key, value) in [
        ("accept_ra", "1"),
        ("accept_dad", "1"),
        ("dad_transmits", "1"),
    ] {
        device
            .sysctl(&format!("ipv6/conf/eth0/{key}"), value)
            .unwrap();
    }
    ward.lab.settle().unwrap();
    let guard = Guard::start(&ward.lab, "");
    guard.apply(&learning(1, "tcp/7, icmpv6/128"));
    let _server = ward.far.tcp_serve(7).unwrap();
    let sniffer = ward.lab.router().sniff("lan1").unwrap();
    let _dnsmasq = dnsmasq(
        &ward.lab,
        ward.lab.router(),
        &[
            "--interface=lan1",
            "--enable-ra",
            "--dhcp-range=fd20:0:0:1::,ra-only",
        ],
    );

    // From here on the host behaves as if it had just been plugged in.
    device.ip("link set eth0 down").unwrap();
    device.ip("link set eth0 up").unwrap();
    let mut own = None;
    let configured = eventually(Duration::from_secs(20), || {
        own = global_address(&device, "inet6");
        own.is_some()
    });
    assert!(configured, "{}", device.ip("address show eth0").unwrap());
    let own: Ipv6Addr = own.unwrap().parse().unwrap();
    assert_eq!(own.segments()[..4], [0xfd20, 0, 0, 1], "{own}");
    // It probed for duplicates: a neighbour solicitation from the unspecified address.
    let asked = sniffer.wait_for(TIMEOUT, |frame| {
        frame[12..14] == [0x86, 0xdd]
            && frame[20] == 58
            && frame[22..38] == [0; 16]
            && frame[54] == 135
            && frame[62..78] == own.octets()
    });
    assert!(asked.is_some());
    assert!(device.ping_within(FAR[1], PATIENCE) == Outcome::Connected);
    assert_eq!(device.tcp_connect(FAR[1], 7, TIMEOUT), Outcome::Connected);
    let devices = guard.ctl.json(&["devices"]).unwrap();
    assert!(
        devices.to_string().contains(&own.to_string()),
        "{devices:#}"
    );
    assert_eq!(guard.drops(), BTreeMap::new());
}

#[test]
fn a_lease_comes_from_the_router() {
    lease(false);
}

#[test]
fn a_lease_comes_through_a_port_that_may() {
    lease(true);
}

/// A client without an address gets one by DHCP; then its traffic passes by a rule.
fn lease(through_port: bool) {
    if !has_dnsmasq("DHCP") || !has("DHCP", "busybox", "--list") {
        return;
    }
    let ward = Ward::new("lease");
    let router = ward.lab.router();
    ward.lab.bridge(router, "br0", &["10.20.1.1/24"]).unwrap();
    let device = ward.bare(1, &End::new(router, "lan1").master("br0"));
    let server = ward.lab.host("server").unwrap();
    ward.lab
        .wire(
            &End::new(&server, "eth0")
                .mac(&mac(9))
                .address("10.20.1.2/24"),
            &End::new(router, "lan9").master("br0"),
        )
        .unwrap();
    ward.lab.settle().unwrap();
    let guard = Guard::start(&ward.lab, "");
    let policy = learning(1, "tcp/7, icmp/8").replace(
        "devices:\n",
        &format!(
            "  - {{interface: lan9, zone: zone-1, dhcp_server: true}}\ndevices:\n  \
                 - {{name: server, zone: zone-1, macs: [\"{}\"], addresses: [10.20.1.2]}}\n",
            mac(9)
        ),
    );
    guard.apply(&policy);
    let _far = ward.far.tcp_serve(7).unwrap();
    let (host, interface) = if through_port {
        (&server, "--interface=eth0")
    } else {
        (router, "--interface=br0")
    };
    let _dnsmasq = dnsmasq(
        &ward.lab,
        host,
        &[
            interface,
            "--dhcp-range=10.20.1.100,10.20.1.150,255.255.255.0,1h",
            "--dhcp-option=option:router,10.20.1.1",
            "--dhcp-authoritative",
            "--no-ping",
        ],
    );

    assert!(
        takes_lease(&ward.lab, &device),
        "no lease: {:?}",
        guard.drops()
    );
    let own = global_address(&device, "inet").unwrap();
    assert!(own.starts_with("10.20.1.1"), "{own}");
    assert!(device.ping(FAR[0]));
    assert_eq!(device.tcp_connect(FAR[0], 7, TIMEOUT), Outcome::Connected);
    let devices = guard.ctl.json(&["devices"]).unwrap();
    assert!(devices.to_string().contains(&own), "{own}: {devices:#}");
    assert_eq!(guard.drops(), BTreeMap::new());
}

/// The policy of one device that is listed with a MAC only and learns its addresses.
fn learning(net: u8, services: &str) -> String {
    let listed = format!(", addresses: [{}, \"{}\"]", v4(net), v6(net));
    policy(&[zone(net, "", "")], services).replace(&listed, "")
}
