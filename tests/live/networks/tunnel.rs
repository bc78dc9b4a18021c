//! A port without Ethernet headers (WireGuard, PPP, tun): do devices there work by port and address, and
//! are forged sources dropped?

use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Write as _},
    sync::Arc,
    thread,
};

use wardline_oracle::frames::{Ipv4, Ipv6, Udp};
use wardline_tests::{
    End, Host, Lab, Outcome, TIMEOUT, eventually,
    ward::{Guard, PATIENCE, skip},
};

const POLICY: &str = r#"version: 1
zones:
  - {name: pumps, mode: MODE, subnets: [10.20.1.0/24, "fd20:1::/64"]}
  - {name: far, mode: MODE, admit: ADMIT, subnets: [10.99.0.0/24, "fd99::/64"]}
ports:
  - {interface: lan1, zone: pumps}
  - {interface: wg0, zone: far, attach: ATTACH}
devices:
  - {name: pump-1, zone: pumps, macs: ["02:00:00:00:01:11"], addresses: [10.20.1.11, "fd20:1::11"]}
LISTED
rules:
  - {name: out, from: [zone:pumps], to: [zone:far], services: [tcp/2575, udp/2575, icmp/8, icmpv6/128], action: allow}
  - {name: in, from: [zone:far], to: [zone:pumps], services: [tcp/22], action: allow}
"#;

/// The host behind the tunnel, as a device; and one that its port can't know without a MAC.
const LISTED: &str = r#"  - {name: clinic, zone: far, port: wg0, addresses: [10.99.0.7, "fd99::7"]}
  - {name: printer, zone: pumps, port: lan1, addresses: [10.20.1.99]}"#;

/// Makes a tun interface, and gives what is read from it and written to it.
fn tun(host: &Host, name: &str) -> Option<File> {
    host.ip(&format!("tuntap add dev {name} mode tun")).ok()?;
    let file = host
        .run(|| -> anyhow::Result<File> {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .open("/dev/net/tun")?;
            wardline_tests::join_tun(&file, name)?;
            Ok(file)
        })
        .unwrap();
    match file {
        Ok(file) => Some(file),
        Err(error) => panic!("{error:#}"),
    }
}

/// Passes packets from one tunnel's end to the other's, until they go.
fn pump(from: &Arc<File>, to: &Arc<File>) {
    let (from, to) = (Arc::clone(from), Arc::clone(to));
    thread::spawn(move || {
        let mut buffer = vec![0; 65_536];
        while let Ok(length) = (&*from).read(&mut buffer) {
            // A packet that the other end refuses is lost, as on any tunnel.
            let _ = (&*to).write(&buffer[..length]);
        }
    });
}

#[test]
fn devices_behind_a_tunnel_are_known_by_port_and_address() {
    const NAME: &str = "tunnel";
    let lab = Lab::new(NAME).unwrap();
    let pump_1 = lab.host("pump-1").unwrap();
    lab.wire(
        &End::new(&pump_1, "eth0")
            .mac("02:00:00:00:01:11")
            .address("10.20.1.11/24")
            .address("fd20:1::11/64")
            .gateway("10.20.1.1")
            .gateway("fd20:1::1"),
        &End::new(lab.router(), "lan1")
            .address("10.20.1.1/24")
            .address("fd20:1::1/64"),
    )
    .unwrap();
    lab.settle().unwrap();
    let clinic = lab.host("clinic").unwrap();
    let router = lab.router();
    let (Some(near), Some(far)) = (tun(router, "wg0"), tun(&clinic, "wg0")) else {
        return skip(NAME, "no tun in this kernel");
    };
    let (near, far) = (Arc::new(near), Arc::new(far));
    pump(&near, &far);
    pump(&far, &near);
    for (host, address) in [(router, 1), (&clinic, 7)] {
        host.ip("link set wg0 up").unwrap();
        host.ip(&format!("addr add 10.99.0.{address}/24 dev wg0"))
            .unwrap();
        host.ip(&format!("addr add fd99::{address}/64 dev wg0 nodad"))
            .unwrap();
    }
    clinic.ip("route add default via 10.99.0.1").unwrap();
    clinic.ip("-6 route add default via fd99::1").unwrap();
    let _servers = [
        clinic.tcp_serve(2575).unwrap(),
        pump_1.tcp_serve(22).unwrap(),
        pump_1.tcp_serve(23).unwrap(),
    ];
    let _udp = clinic.udp_serve(2575).unwrap();
    let works = || {
        for to in ["10.99.0.7", "fd99::7"] {
            assert_eq!(pump_1.tcp_connect(to, 2575, TIMEOUT), Outcome::Connected);
            assert_eq!(pump_1.udp_exchange(to, 2575, TIMEOUT), Outcome::Connected);
            assert!(pump_1.ping(to), "{to}");
        }
        for to in ["10.20.1.11", "fd20:1::11"] {
            assert_eq!(clinic.tcp_connect(to, 22, TIMEOUT), Outcome::Connected);
        }
    };
    let forbidden = |outcome: Outcome| {
        for to in ["10.20.1.11", "fd20:1::11"] {
            assert_eq!(clinic.tcp_connect(to, 23, TIMEOUT), outcome, "{to}");
        }
    };
    // Packets to the pump from an address that is not the tunnel's; what it hears of them.
    let udp = || Udp::new(9, 2575, *b"forged");
    let v4 = |source: &str| {
        let packet = Ipv4::new(source.parse().unwrap(), [10, 20, 1, 11].into(), udp());
        packet.bytes()
    };
    let v6 = |source: &str| {
        let pump: std::net::Ipv6Addr = "fd20:1::11".parse().unwrap();
        Ipv6::new(source.parse().unwrap(), pump, udp()).bytes()
    };
    let forged = [
        v4("10.20.1.12"),
        v4("198.51.100.1"),
        v6("fd20:1::12"),
        v6("2001:db8::1"),
    ];
    let arrives = |packet: &[u8]| {
        let sniffer = pump_1.sniff("eth0").unwrap();
        (&*near).write_all(packet).unwrap();
        // A packet after it that always arrives: the SYN, since a FIN may be of the connection before.
        assert_eq!(
            clinic.tcp_connect("10.20.1.11", 22, TIMEOUT),
            Outcome::Connected
        );
        let is_either = |it: &[u8]| {
            let is_syn = it.len() > 47 && it[36..38] == [0, 22] && it[47] == 2;
            is_syn || it.windows(6).any(|part| part == b"forged")
        };
        let first = sniffer.wait_for(PATIENCE, is_either).expect("a packet");
        first.windows(6).any(|part| part == b"forged")
    };

    // Without Wardline.
    works();
    forbidden(Outcome::Connected);
    for packet in &forged {
        assert!(arrives(packet));
    }

    let guard = Guard::start(&lab, "");
    let document = |mode: &str, admit: &str, attach: &str, listed: &str| {
        POLICY
            .replace("MODE", mode)
            .replace("ADMIT", admit)
            .replace("ATTACH", attach)
            .replace("LISTED", listed)
    };
    for (admit, attach, listed) in [
        ("any", "auto", ""),
        ("any", "tc", ""),
        ("listed", "auto", LISTED),
    ] {
        guard.apply(&document("enforce", admit, attach, listed));
        assert_eq!(guard.attached()["wg0"], "tc");
        let before = guard.drops();
        works();
        assert_eq!(guard.drops(), before, "{admit} {attach}");
        forbidden(Outcome::Dropped);
        for packet in &forged {
            let before = guard.packets("spoofed_source");
            assert!(!arrives(packet), "{admit}");
            let counted = || guard.packets("spoofed_source") > before;
            assert!(eventually(PATIENCE, counted), "{:?}", guard.drops());
        }
        let drops = guard.drops();
        let mut reasons: Vec<&str> = drops.keys().map(String::as_str).collect();
        reasons.retain(|reason| *reason != "no_rule" && *reason != "spoofed_source");
        assert!(reasons.is_empty(), "{admit}: {drops:?}");
    }
    guard.told(&[("reason", "no_rule"), ("device", "clinic")]);
    let status = guard.ctl.json(&["status"]).unwrap();
    assert_eq!(
        status["warnings"],
        serde_json::json!([
            "device \"printer\": has port \"lan1\" but no MAC to appear there with"
        ])
    );
    for (from, service, reason) in [
        ("device:clinic", "tcp/22", "rule"),
        ("device:clinic", "tcp/23", "no_rule"),
        ("10.99.0.66", "tcp/22", "unknown_device"),
        ("zone:pumps", "tcp/2575", "rule"),
    ] {
        let to = if from == "zone:pumps" {
            "10.99.0.7"
        } else {
            "10.20.1.11"
        };
        let asked = ["-o", "json", "explain", "--from", from, "--to", to, service];
        let answer = guard.ctl.run(&asked).unwrap();
        let answer: serde_json::Value = serde_json::from_str(&answer.stdout).unwrap();
        assert_eq!(answer["reason"], reason, "{from} {service}: {answer}");
    }
    // Another host there is nobody, where only listed ones may speak.
    clinic.ip("addr add 10.99.0.8/24 dev wg0").unwrap();
    (&*near)
        .write_all(&Ipv4::new([10, 99, 0, 8].into(), [10, 20, 1, 11].into(), udp()).bytes())
        .unwrap();
    let counted = || guard.packets("unknown_device") > 0;
    assert!(eventually(PATIENCE, counted), "{:?}", guard.drops());

    // Quarantine, of the device and of the port.
    for target in [
        &["quarantine", "clinic"][..],
        &["quarantine", "--port", "wg0"],
    ] {
        let asked = [target, &["--reason", "odd"]].concat();
        guard.ctl.run(&asked).unwrap().ok().unwrap();
        let reaches = || pump_1.tcp_connect("10.99.0.7", 2575, TIMEOUT);
        assert_eq!(reaches(), Outcome::Dropped, "{target:?}");
        assert_eq!(
            clinic.tcp_connect("10.20.1.11", 22, TIMEOUT),
            Outcome::Dropped
        );
        let release = [&["release"], &target[1..]].concat();
        guard.ctl.run(&release).unwrap().ok().unwrap();
        assert_eq!(reaches(), Outcome::Connected, "{target:?}");
    }

    // Observed, everything arrives again.
    guard.apply(&document("observe", "listed", "auto", LISTED));
    let drops = guard.drops();
    works();
    forbidden(Outcome::Connected);
    for packet in &forged {
        assert!(arrives(packet));
    }
    assert_eq!(guard.drops(), drops);

    // XDP can't read such packets.
    guard.apply(&document("enforce", "any", "xdp", ""));
    assert_eq!(guard.attached()["wg0"], "none");
    let status = guard.ctl.json(&["status"]).unwrap();
    let ports = status["ports"].as_array().unwrap();
    let port = ports
        .iter()
        .find(|port| port["interface"] == "wg0")
        .unwrap();
    let cure = "no XDP: its packets have no Ethernet header; leave out `attach: xdp`, and it is judged at TC";
    let reason = port["reason"].as_str().unwrap();
    assert!(reason.starts_with(cure), "{reason}");
    assert_eq!(port["shut"], "dropped");
    lab.close().unwrap();
}
