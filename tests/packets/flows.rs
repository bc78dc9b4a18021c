//! What rows of the matrix can't express: what a change does to flows, and a device's quota.

use std::net::Ipv4Addr;

use wardline_datapath::{Datapath, Hook};
use wardline_ebpf::abi::Reason;
use wardline_host_tests::judge::{At, Compiled, limits, parsed};
use wardline_oracle::frames::{ACK, Ethernet, Ipv4, Mac, PSH, SYN, Tcp, icmp};
use wardline_proto::v1;

use super::judge;

const POLICY: &str = r#"
version: 1
zones:
  - {name: pumps, subnets: [10.20.1.0/24]}
ports:
  - {interface: lan1, zone: pumps}
  - {interface: lan2, zone: pumps}
devices:
  - {name: pump, zone: pumps, macs: ["02:00:00:00:01:01"], addresses: [10.20.1.11]}
  - {name: pinned, zone: pumps, macs: ["02:00:00:00:01:02"], addresses: [10.20.1.12], port: lan1}
rules:
  - {name: pumps-to-records, from: [zone:pumps], to: ["cidr:10.20.9.0/24"], services: [tcp/2575], action: allow}
  - {name: ping, from: [zone:pumps], to: [any], services: [icmp/8], action: allow}
"#;

const PUMP: Mac = [2, 0, 0, 0, 1, 1];
const PINNED: Mac = [2, 0, 0, 0, 1, 2];
const ROUTER: Mac = [2, 0, 0, 0, 0xff, 1];

const PUMP_4: Ipv4Addr = Ipv4Addr::new(10, 20, 1, 11);
const PINNED_4: Ipv4Addr = Ipv4Addr::new(10, 20, 1, 12);
const RECORDS: Ipv4Addr = Ipv4Addr::new(10, 20, 9, 10);
const FAR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

#[test]
fn a_flow_lives_as_long_as_its_rule() {
    on_ports(|ports| {
        assert_eq!(ports.enters(to_records(1000, SYN)), Some(Reason::Rule));
        assert_eq!(
            ports.leaves(from_records(1000, SYN | ACK)),
            Some(Reason::Established)
        );
        assert_eq!(
            ports.enters(to_records(1000, ACK)),
            Some(Reason::Established)
        );
        let ping = from_pump(Ipv4::new(PUMP_4, FAR, icmp::request(3, 1)));
        assert_eq!(ports.enters(ping), Some(Reason::Rule));

        // Without its rule the TCP flow is cut at its next packet; the ping's flow goes on.
        ports.change(|policy| policy.rules.retain(|rule| rule.name != "pumps-to-records"));
        assert_eq!(
            ports.leaves(from_records(1000, ACK | PSH)),
            Some(Reason::NoRule)
        );
        assert_eq!(ports.enters(to_records(1000, ACK)), Some(Reason::MidFlow));
        let pong = to_pump(Ipv4::new(FAR, PUMP_4, icmp::reply(3, 1)));
        assert_eq!(ports.leaves(pong), Some(Reason::Established));
    });
}

#[test]
fn after_a_change_both_ends_are_judged_anew_whichever_is_heard_first() {
    type Change = fn(&mut v1::Policy);
    let changes: [(&str, Change, Reason, Reason); 5] = [
        (
            "its address has moved",
            |policy| policy.devices[0].addresses = vec!["10.20.1.13".to_owned()],
            Reason::SpoofedSource,
            Reason::MidFlow,
        ),
        (
            "its address is another's",
            |policy| {
                policy.devices[0].addresses = vec!["10.20.1.13".to_owned()];
                policy.devices[1].addresses.push("10.20.1.11".to_owned());
            },
            Reason::SpoofedSource,
            Reason::Misdirected,
        ),
        (
            "it is gone",
            |policy| drop(policy.devices.remove(0)),
            Reason::UnknownDevice,
            Reason::MidFlow,
        ),
        (
            "it belongs elsewhere",
            |policy| policy.devices[0].port = "lan2".to_owned(),
            Reason::WrongPort,
            Reason::Established,
        ),
        (
            "it may still do the same",
            |policy| policy.rules[0].name = "another".to_owned(),
            Reason::Established,
            Reason::Established,
        ),
    ];
    for (name, change, device, server) in changes {
        for device_first in [true, false] {
            on_ports(|ports| {
                assert_eq!(ports.enters(to_records(1000, SYN)), Some(Reason::Rule));
                let answered = ports.leaves(from_records(1000, SYN | ACK));
                assert_eq!(answered, Some(Reason::Established));
                let goes_on = ports.enters(to_records(1000, ACK));
                assert_eq!(goes_on, Some(Reason::Established));
                ports.change(change);
                for turn in 0..4 {
                    let (said, must) = if (turn % 2 == 0) == device_first {
                        (ports.enters(to_records(1000, ACK | PSH)), device)
                    } else {
                        (ports.leaves(from_records(1000, ACK | PSH)), server)
                    };
                    assert_eq!(said, Some(must), "{name}, turn {turn}, {device_first}");
                }
            });
        }
    }
}

#[test]
fn a_device_has_so_many_flows_and_no_more() {
    on_ports(|ports| {
        let quota = limits().flows_per_device;
        for port in 0..quota as u16 {
            let opened = ports.enters(to_records(2000 + port, SYN));
            assert_eq!(opened, Some(Reason::Rule), "flow {port} of {quota}");
        }
        for port in 0..4 {
            let refused = ports.enters(to_records(9000 + port, SYN));
            assert_eq!(refused, Some(Reason::DeviceQuota));
        }
        // Another device opens flows all the same.
        let segment = Ipv4::new(PINNED_4, RECORDS, Tcp::new(2000, 2575, SYN));
        let other = Ethernet::new(ROUTER, PINNED, segment);
        assert_eq!(ports.enters(other), Some(Reason::Rule));
    });
}

/// A guarded port, an uplink, and the kernel's programs under a policy.
struct Ports {
    compiled: Compiled,
    datapath: Datapath,
    policy: v1::Policy,
}

/// Runs work in a namespace that has the interfaces, with a datapath of its own.
fn on_ports<T: Send>(work: impl FnOnce(&mut Ports) -> T + Send) -> T {
    judge::in_namespace("flows", &["lan1", "lan2", "uplink"], || {
        let policy = parsed(POLICY);
        let mut datapath = judge::datapath();
        let inventory = judge::observed(&["10.20.1.1".parse().unwrap()]);
        let compiled = Compiled::new(&policy, &inventory, datapath.reader().clock().unwrap());
        datapath.put(1, &compiled.tables).unwrap();
        work(&mut Ports {
            compiled,
            datapath,
            policy,
        })
    })
}

impl Ports {
    fn enters(&mut self, frame: Ethernet) -> Option<Reason> {
        let ifindex = self.compiled.ifindex("lan1");
        self.judged(Hook::Xdp, At::Entering { ifindex }, &frame)
    }

    fn leaves(&mut self, frame: Ethernet) -> Option<Reason> {
        let at = At::Leaving {
            ifindex: self.compiled.ifindex("lan1"),
            from: self.compiled.ifindex("uplink"),
        };
        self.judged(Hook::TcEgress, at, &frame)
    }

    fn judged(&mut self, hook: Hook, at: At, frame: &Ethernet) -> Option<Reason> {
        let (passed, reason) = judge::kernel(&mut self.datapath, hook, at, &frame.bytes());
        assert_eq!(reason.map(Reason::passes), Some(passed));
        reason
    }

    /// Puts a changed policy in force.
    fn change(&mut self, change: impl FnOnce(&mut v1::Policy)) {
        change(&mut self.policy);
        self.compiled = self.compiled.next(&self.policy);
        self.datapath.put(2, &self.compiled.tables).unwrap();
    }
}

fn to_records(port: u16, flags: u8) -> Ethernet {
    from_pump(Ipv4::new(PUMP_4, RECORDS, Tcp::new(port, 2575, flags)))
}

fn from_records(port: u16, flags: u8) -> Ethernet {
    to_pump(Ipv4::new(RECORDS, PUMP_4, Tcp::new(2575, port, flags)))
}

fn from_pump(packet: Ipv4) -> Ethernet {
    Ethernet::new(ROUTER, PUMP, packet)
}

fn to_pump(packet: Ipv4) -> Ethernet {
    Ethernet::new(PUMP, ROUTER, packet)
}
