//! A host behind the uplink sends what looks like control of the devices' link.

use std::{
    collections::BTreeMap,
    net::{IpAddr, UdpSocket},
};

use wardline_tests::{
    Host, TIMEOUT,
    ward::{FAR, Guard, Ward, policy, v4, v6, zone},
};

/// Ports of DHCP: source, destination.
const DHCP: [(u16, u16, usize); 4] = [(67, 68, 0), (68, 67, 0), (67, 67, 0), (547, 546, 1)];

#[test]
fn dhcp_that_the_router_has_forwarded_is_judged_by_policy() {
    let ward = Ward::new("uplink-dhcp");
    let device = ward.device(1);
    ward.lab.settle().unwrap();
    let own = [v4(1), v6(1)];
    let arrives = |(from, to, family): (u16, u16, usize)| {
        let bind = |host: &Host, address: &str, port: u16| {
            let at = (address.parse::<IpAddr>().unwrap(), port);
            host.run(|| UdpSocket::bind(at).unwrap()).unwrap()
        };
        let receiver = bind(&device, &own[family], to);
        receiver.set_read_timeout(Some(TIMEOUT)).unwrap();
        let sender = bind(&ward.far, FAR[family], from);
        let target = (own[family].parse::<IpAddr>().unwrap(), to);
        sender.send_to(b"a lease", target).unwrap();
        receiver.recv(&mut [0; 16]).is_ok()
    };
    // Without Wardline all of it arrives.
    for ports in DHCP {
        assert!(arrives(ports), "{ports:?}");
    }

    for hook in ["xdp", "tc"] {
        let guard = Guard::start(&ward.lab, "");
        let zones = [zone(1, "", &format!(", attach: {hook}"))];
        guard.apply(&policy(&zones, "tcp/7"));
        for ports in DHCP {
            assert!(!arrives(ports), "{hook} {ports:?}");
        }
        assert_eq!(
            guard.drops(),
            BTreeMap::from([("no_rule".to_owned(), DHCP.len() as u64)])
        );
        guard.told(&[("reason", "no_rule"), ("source", FAR[0])]);
        // A rule may allow it, as any other service.
        let rule = format!(
            "  - {{name: leases, from: [\"cidr:{}/32\"], to: [zone:zone-1], services: [udp/68], \
             action: allow}}\n",
            FAR[0]
        );
        guard.apply(&(policy(&zones, "tcp/7") + &rule));
        assert!(arrives(DHCP[0]) && !arrives(DHCP[1]), "{hook}");
        let quarantine = ["quarantine", "device-1", "--reason", "odd"];
        guard.ctl.run(&quarantine).unwrap().ok().unwrap();
        for ports in DHCP {
            assert!(!arrives(ports), "{hook} {ports:?}");
        }
        assert_eq!(guard.packets("quarantined"), DHCP.len() as u64);
    }
}
