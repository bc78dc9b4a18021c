//! Two routers that share an address: does keepalived elect one master for each family, by a rule for
//! VRRP, and another when that one goes?

use std::{
    fs,
    process::{Command, Stdio},
};

use wardline_tests::{
    End, Host, Lab, Program, eventually,
    ward::{Guard, PATIENCE},
};

use crate::live::servers::has;

const SHARED: [&str; 2] = ["10.20.1.9", "fd20:1::9"];

fn document(hook: &str, mode: &str, rule: &str) -> String {
    format!(
        r#"
version: 1
zones:
  - {{name: tabs, mode: {mode}, subnets: [10.20.1.0/24, "fd20:1::/64"]}}
ports:
  - {{interface: lan1, zone: tabs, router: true, attach: {hook}}}
devices:
  - {{name: router-b, zone: tabs, macs: ["02:00:00:00:f0:0b"], addresses: [10.20.1.3, "fd20:1::3", 10.20.1.9, "fd20:1::9"]}}
rules: [{rule}]
"#
    )
}

const VRRP: &str = r#"{name: vrrp, from: [router, device:router-b], to: ["cidr:224.0.0.18/32", "cidr:ff02::12/128"], services: [proto/112], action: allow}"#;

/// A router on a link with another.
struct Pair {
    lab: Lab,
    other: Host,
}

impl Pair {
    fn new() -> Self {
        let lab = Lab::new("vrrp-pair").unwrap();
        let other = lab.host("router-b").unwrap();
        lab.wire(
            &End::new(&other, "lan1")
                .mac("02:00:00:00:f0:0b")
                .address("10.20.1.3/24")
                .address("fd20:1::3/64"),
            &End::new(lab.router(), "lan1")
                .address("10.20.1.2/24")
                .address("fd20:1::2/64"),
        )
        .unwrap();
        lab.settle().unwrap();
        Self { lab, other }
    }

    fn keepalived(&self, host: &Host, priority: u8) -> Program {
        let file = |end: &str| {
            self.lab
                .dir()
                .join(format!("{}-{priority}.{end}", host.name()))
        };
        let instance = |number: u8, address: &str| {
            format!(
                "vrrp_instance v{number} {{\n state BACKUP\n interface lan1\n virtual_router_id \
                 {number}\n priority {priority}\n advert_int 0.2\n version 3\n \
                 virtual_ipaddress {{\n  {address} dev lan1\n }}\n}}\n"
            )
        };
        let own = [instance(1, SHARED[0]), instance(2, SHARED[1])].concat();
        let global = "global_defs {\n vrrp_garp_master_delay 0\n script_user root\n}\n";
        fs::write(file("conf"), format!("{global}{own}")).unwrap();
        let log = fs::File::create(file("log")).unwrap();
        let mut keepalived = Command::new("keepalived");
        keepalived
            .args(["--dont-fork", "--log-console", "--no-syslog", "--vrrp"])
            .args(["-f".into(), file("conf"), "-p".into(), file("pid")])
            .args(["-r".into(), file("vrrp.pid")])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        host.start(&mut keepalived).unwrap()
    }

    /// Which of the two has each shared address: ours, the other.
    fn masters(&self) -> [[bool; 2]; 2] {
        SHARED.map(|shared| {
            [self.lab.router(), &self.other].map(|host| {
                let addresses = host.ip("address show dev lan1").unwrap();
                addresses.contains(&format!(" {shared}/"))
            })
        })
    }

    fn becomes(&self, masters: [[bool; 2]; 2]) -> bool {
        eventually(PATIENCE, || self.masters() == masters)
    }

    /// Ours is the master, the other one follows when ours goes, and gives way when it returns.
    fn elects(&self) -> Result<(), [[bool; 2]; 2]> {
        let told = |masters| {
            if self.becomes(masters) {
                Ok(())
            } else {
                Err(self.masters())
            }
        };
        let other = self.keepalived(&self.other, 100);
        told([[false, true]; 2])?;
        let ours = self.keepalived(self.lab.router(), 150);
        told([[true, false]; 2])?;
        ours.terminate().unwrap();
        told([[false, true]; 2])?;
        other.terminate().unwrap();
        told([[false; 2]; 2])
    }
}

#[test]
fn two_routers_elect_one_master_for_each_family() {
    if !has("vrrp-pair", "keepalived", "--version") {
        return;
    }
    let pair = Pair::new();
    // Without Wardline the network works.
    assert_eq!(pair.elects(), Ok(()));

    let guard = Guard::start(&pair.lab, "");
    for (hook, mode) in [("xdp", "enforce"), ("tc", "enforce"), ("xdp", "observe")] {
        guard.apply(&document(hook, mode, VRRP));
        assert_eq!(guard.attached()["lan1"], hook);
        assert_eq!(pair.elects(), Ok(()), "{hook} {mode}: {:?}", guard.drops());
        assert_eq!(guard.drops(), [].into(), "{hook} {mode}");
    }
    // Without the rule they elect one while it is only observed.
    for hook in ["xdp", "tc"] {
        guard.apply(&document(hook, "observe", ""));
        guard.observes("no_rule", || assert_eq!(pair.elects(), Ok(()), "{hook}"));
    }
    // Then neither hears the other.
    guard.apply(&document("auto", "enforce", ""));
    let both = [
        pair.keepalived(&pair.other, 100),
        pair.keepalived(pair.lab.router(), 150),
    ];
    assert!(pair.becomes([[true; 2]; 2]), "{:?}", pair.masters());
    assert_ne!(guard.packets("no_rule"), 0);
    for keepalived in both {
        keepalived.terminate().unwrap();
    }
}
