//! Two routers that share an address: does keepalived elect one master for each family, by a rule for
//! VRRP, and another when that one goes?

use std::{
    fs,
    process::{Command, Stdio},
};

use wardline_tests::{
    End, Host, Lab, Program, eventually,
    ward::{Guard, PATIENCE, skip},
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
  - {{name: tablet, zone: tabs, macs: ["{TABLET}"], addresses: [10.20.1.11, "fd20:1::11"]}}
rules: [{rule}]
"#
    )
}

/// The MAC of a device that is no router.
const TABLET: &str = "02:00:00:00:01:11";
/// The MACs of the two virtual routers, as RFC 9568 section 7.3 has them.
const VIRTUAL: [&str; 2] = ["00:00:5e:00:01:01", "00:00:5e:00:02:02"];

const VRRP: &str = r#"{name: vrrp, from: [router, device:router-b], to: ["cidr:224.0.0.18/32", "cidr:ff02::12/128"], services: [proto/112], action: allow}"#;

/// A router on a link with another.
struct Pair {
    lab: Lab,
    other: Host,
    /// Whether each virtual router has a MAC of its own, on a macvlan.
    vmac: bool,
}

impl Pair {
    fn new() -> Self {
        let (lab, other) = Self::routers("vrrp-pair");
        let [others, ours] = Self::ends(&lab, &other);
        lab.wire(&others, &ours).unwrap();
        lab.settle().unwrap();
        let vmac = false;
        Self { lab, other, vmac }
    }

    /// The two routers on a switch, with a tablet.
    fn with_tablet() -> (Self, Host) {
        let (lab, other) = Self::routers("vrrp-vmac");
        let [switch, tablet] = ["switch", "tablet"].map(|name| lab.host(name).unwrap());
        lab.bridge(&switch, "br0", &[]).unwrap();
        let [others, ours] = Self::ends(&lab, &other);
        let tablets = End::new(&tablet, "lan1")
            .mac(TABLET)
            .address("10.20.1.11/24")
            .address("fd20:1::11/64");
        for (end, port) in [(others, "p1"), (ours, "p2"), (tablets, "p3")] {
            lab.wire(&end, &End::new(&switch, port).master("br0"))
                .unwrap();
        }
        lab.settle().unwrap();
        let vmac = true;
        (Self { lab, other, vmac }, tablet)
    }

    fn routers(name: &str) -> (Lab, Host) {
        let lab = Lab::new(name).unwrap();
        let other = lab.host("router-b").unwrap();
        (lab, other)
    }

    /// The other's and ours.
    fn ends(lab: &Lab, other: &Host) -> [End; 2] {
        let other = End::new(other, "lan1")
            .mac("02:00:00:00:f0:0b")
            .address("10.20.1.3/24")
            .address("fd20:1::3/64");
        let ours = End::new(lab.router(), "lan1")
            .address("10.20.1.2/24")
            .address("fd20:1::2/64");
        [other, ours]
    }

    fn keepalived(&self, host: &Host, priority: u8) -> Program {
        self.keepalived_by(host, priority, self.vmac)
    }

    /// By virtual MACs, or by the interface's own.
    fn keepalived_by(&self, host: &Host, priority: u8, vmac: bool) -> Program {
        let file = |end: &str| {
            self.lab
                .dir()
                .join(format!("{}-{priority}.{end}", host.name()))
        };
        let (vmac, dev) = if vmac {
            (" use_vmac\n", "")
        } else {
            ("", " dev lan1")
        };
        let instance = |number: u8, address: &str| {
            format!(
                "vrrp_instance v{number} {{\n state BACKUP\n interface lan1\n{vmac} virtual_router_id \
                 {number}\n priority {priority}\n advert_int 0.2\n version 3\n \
                 virtual_ipaddress {{\n  {address}{dev}\n }}\n}}\n"
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
                let addresses = host.ip("address show").unwrap();
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

#[test]
fn two_routers_with_virtual_macs_elect_one_master_and_a_tablet_takes_no_part() {
    let name = "vrrp-vmac";
    if !has(name, "keepalived", "--version") {
        return;
    }
    let (pair, tablet) = Pair::with_tablet();
    let probe = pair
        .lab
        .router()
        .ip("link add probe link lan1 type macvlan");
    if probe.is_err() {
        return skip(name, "no macvlans in this kernel");
    }
    pair.lab.router().ip("link del probe").unwrap();
    // Whether the tablet reaches who has the shared addresses.
    let reaches = || {
        SHARED.map(|shared| {
            let flush = format!("neighbour flush to {shared} dev lan1");
            eventually(PATIENCE, || {
                tablet.ip(&flush).unwrap();
                tablet.ping(shared)
            })
        })
    };
    let elects = |hook: &str| {
        let other = pair.keepalived(&pair.other, 100);
        assert!(
            pair.becomes([[false, true]; 2]),
            "{hook} {:?}",
            pair.masters()
        );
        assert_eq!(reaches(), [true; 2], "{hook}");
        let ours = pair.keepalived(pair.lab.router(), 150);
        assert!(
            pair.becomes([[true, false]; 2]),
            "{hook} {:?}",
            pair.masters()
        );
        assert_eq!(reaches(), [true; 2], "{hook}");
        [ours, other]
    };
    let ends = |routers: [Program; 2]| {
        for keepalived in routers {
            keepalived.terminate().unwrap();
        }
        assert!(pair.becomes([[false; 2]; 2]), "{:?}", pair.masters());
    };
    // Without Wardline they elect one, and the tablet may take its place.
    let routers = elects("none");
    let rogue = pair.keepalived(&tablet, 200);
    assert!(pair.becomes([[false; 2]; 2]), "{:?}", pair.masters());
    rogue.terminate().unwrap();
    ends(routers);

    // The virtual MACs are of whoever is the master. Before the switch knows who that is, the tablet's
    // packets for the other come to ours.
    let own = "macs: [\"02:00:00:00:f0:0b\"";
    let macs = VIRTUAL.map(|mac| format!(", \"{mac}\"")).concat();
    let rules = format!(
        "{VRRP}, {{name: ask, from: [device:tablet], to: [router, device:router-b], services: [icmp/8, icmpv6/128], \
         action: allow}}"
    );
    for hook in ["xdp", "tc"] {
        let guard = Guard::start(&pair.lab, "");
        let policy = document(hook, "enforce", &rules);
        guard.apply(&policy.replace(own, &(own.to_owned() + &macs)));
        assert_eq!(guard.attached()["lan1"], hook);
        let routers = elects(hook);
        // While an address moves to the router a packet may be lost, until the daemon has seen it there.
        let drops = guard.drops();
        assert_eq!(reaches(), [true; 2], "{hook}");
        assert_eq!(guard.drops(), drops, "{hook} {:?}", guard.ctl.events());
        // With the virtual MACs it is the other router, with another address; with its own it has no rule.
        for (vmac, reason, device) in [
            (true, "spoofed_source", "router-b"),
            (false, "no_rule", "tablet"),
        ] {
            let before = guard.packets(reason);
            let rogue = pair.keepalived_by(&tablet, 200, vmac);
            let refused = || guard.packets(reason) >= before + 20;
            assert!(eventually(PATIENCE, refused), "{hook} {:?}", guard.drops());
            guard.told(&[("reason", reason), ("device", device)]);
            assert_eq!(pair.masters(), [[true, false]; 2], "{hook} {vmac}");
            rogue.terminate().unwrap();
        }
        ends(routers);
    }
}
