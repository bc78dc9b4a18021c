//! A router that moves its network to another prefix: do hosts take the new one and give up the old
//! one, with radvd on the router, and behind a port that may have a router?

use std::{
    fs,
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::Value;
use wardline_tests::{
    End, Host, Program, eventually,
    ward::{Guard, PATIENCE, Ward, mac},
};

use crate::live::servers::has;

/// Before, and after.
const PREFIXES: [&str; 3] = ["fd20:1:1::", "fd20:1:2::", "fd20:1:3::"];

/// Starts a router that announces these prefixes: not at all, as used no more, or as in use.
fn radvd(ward: &Ward, host: &Host, interface: &str, uses: [Option<bool>; 3]) -> Program {
    let prefixes: String = PREFIXES
        .iter()
        .zip(uses)
        .filter_map(|(prefix, used)| {
            let preferred = if used? { 1800 } else { 0 };
            Some(format!(
                " prefix {prefix}/64 {{ AdvValidLifetime 3600; AdvPreferredLifetime {preferred}; }};\n"
            ))
        })
        .collect();
    let text = format!(
        "interface {interface} {{\n AdvSendAdvert on;\n MinRtrAdvInterval 3;\n MaxRtrAdvInterval 4;\n \
         AdvLinkMTU 1400;\n{prefixes} route fd20:9::/48 {{ }};\n RDNSS fd20:1:1::53 {{ }};\n \
         DNSSL ward.example {{ }};\n}};\n"
    );
    let file = |end: &str| ward.lab.dir().join(format!("radvd-{}.{end}", host.name()));
    fs::write(file("conf"), text).unwrap();
    let log = fs::File::create(file("log")).unwrap();
    let mut radvd = Command::new("radvd");
    radvd
        .args(["--nodaemon", "--logmethod", "stderr", "--config"])
        .arg(file("conf"))
        .arg("--pidfile")
        .arg(file("pid"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    host.start(&mut radvd).unwrap()
}

/// For each prefix: none, or whether an address of it may be used for what is new.
fn addresses(host: &Host) -> [Option<bool>; 3] {
    let shown = host.ip("-json -6 address show dev eth0").unwrap();
    let links: Value = serde_json::from_str(&shown).unwrap();
    let addresses = links[0]["addr_info"].as_array();
    PREFIXES.map(|prefix| {
        let own = addresses?.iter().find(|address| {
            let local = address["local"].as_str().unwrap();
            local.starts_with(prefix.trim_end_matches(':'))
        })?;
        Some(own["deprecated"] != true)
    })
}

#[test]
fn a_host_follows_the_prefixes_of_the_router() {
    renumbered("renumber-router", false);
}

#[test]
fn a_host_follows_the_prefixes_of_a_router_behind_a_port() {
    renumbered("renumber-port", true);
}

fn renumbered(name: &str, behind_port: bool) {
    if !has(name, "radvd", "--version") {
        return;
    }
    let ward = Ward::new(name);
    let own = ward.lab.router();
    ward.lab.bridge(own, "br0", &["fd20:1:1::1/64"]).unwrap();
    let device = ward.bare(1, &End::new(own, "lan1").master("br0"));
    let other = ward.bare(2, &End::new(own, "lan2").master("br0"));
    device.sysctl("ipv6/conf/eth0/accept_ra", "1").unwrap();
    other.sysctl("ipv6/conf/all/forwarding", "1").unwrap();
    ward.lab.settle().unwrap();
    let (router, interface) = if behind_port {
        (&other, "eth0")
    } else {
        (own, "br0")
    };
    // The host is plugged in, and then its network is renumbered; what it has in the end.
    let follows = || {
        device.ip("link set eth0 down").unwrap();
        device.ip("link set eth0 up").unwrap();
        [
            [Some(true), Some(true), None],
            [Some(false), Some(true), Some(true)],
        ]
        .iter()
        .all(|says| {
            let radvd = radvd(&ward, router, interface, *says);
            let follows = eventually(Duration::from_secs(15), || addresses(&device) == *says);
            radvd.terminate().unwrap();
            follows
        })
    };
    // Without Wardline the network works.
    assert!(follows(), "{:?}", addresses(&device));

    let guard = Guard::start(&ward.lab, "");
    let document = |mode: &str, hook: &str, may: bool| {
        let port = format!("zone: tabs, attach: {hook}");
        let routers = if behind_port && may {
            ", router: true"
        } else {
            ""
        };
        format!(
            "version: 1\nzones:\n  - {{name: tabs, mode: {mode}, subnets: [\"fd20:1::/32\"]}}\n\
             ports:\n  - {{interface: lan1, {port}}}\n  - {{interface: lan2, {port}{routers}}}\n\
             devices:\n  - {{name: tab, zone: tabs, macs: [\"{}\"]}}\n  \
             - {{name: other, zone: tabs, macs: [\"{}\"]}}\nrules: []\n",
            mac(1),
            mac(2)
        )
    };
    for (mode, hook) in [("enforce", "xdp"), ("enforce", "tc"), ("observe", "xdp")] {
        guard.apply(&document(mode, hook, true));
        assert_eq!(guard.attached()["lan1"], hook);
        assert!(
            follows(),
            "{mode} {hook}: {:?} {:?}",
            addresses(&device),
            guard.drops()
        );
        assert_eq!(guard.drops(), [].into(), "{mode} {hook}");
        assert_eq!(guard.packets("observed"), 0, "{mode} {hook}");
    }
    if behind_port {
        // From a port that is not named as a router's.
        guard.apply(&document("enforce", "xdp", false));
        device.ip("link set eth0 down").unwrap();
        device.ip("link set eth0 up").unwrap();
        let _radvd = radvd(&ward, router, interface, [Some(true); 3]);
        let dropped = || guard.packets("rogue_ra") > 1;
        assert!(eventually(PATIENCE, dropped), "{:?}", guard.drops());
        assert_eq!(addresses(&device), [None; 3]);
        guard.told(&[("reason", "rogue_ra"), ("device", "other")]);
    }
}
