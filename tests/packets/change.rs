//! What a change of policy costs, and which flows it affects: entries written, flows judged anew.

use std::{collections::BTreeMap, net::Ipv4Addr};

use wardline_datapath::{Datapath, Hook};
use wardline_ebpf::abi::Reason;
use wardline_host_tests::judge::{At, Compiled, parsed};
use wardline_oracle::frames::{Ethernet, Ipv4, Mac, Udp};
use wardline_proto::v1;

use super::judge;

const ROUTER: Mac = [2, 0, 0, 0, 0xff, 1];
const FAR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const DEVICES: u8 = 200;

/// A zone of devices on lan1, each with a rule of its own.
fn ward() -> v1::Policy {
    let mut text = "version: 1\n\
        zones: [{name: pumps, subnets: [10.1.0.0/24]}]\n\
        ports: [{interface: lan1, zone: pumps}]\n"
        .to_owned();
    let (mut devices, mut rules) = (String::new(), String::new());
    for n in 1..=DEVICES {
        devices += &device(n);
        rules += &format!(
            "  - {{name: rule-{n}, from: [device:pump-{n}], to: ['cidr:192.0.2.0/24'], \
             services: [udp/{}], action: allow}}\n",
            1000 + u16::from(n),
        );
    }
    text += &format!("devices:\n{devices}rules:\n{rules}");
    parsed(&text)
}

fn device(n: u8) -> String {
    format!(
        "  - {{name: pump-{n}, zone: pumps, macs: ['02:00:00:00:01:{n:02x}'], addresses: [10.1.0.{n}]}}\n"
    )
}

/// A datagram from a device to the far host, which the device's own rule allows.
fn asks(n: u8) -> Vec<u8> {
    let udp = Udp::new(5000, 1000 + u16::from(n), *b"x");
    let packet = Ipv4::new(Ipv4Addr::new(10, 1, 0, n), FAR, udp);
    Ethernet::new(ROUTER, [2, 0, 0, 0, 1, n], packet).bytes()
}

/// Runs work in a namespace with `lan1`, under the ward's policy.
fn in_ward(work: impl FnOnce(&v1::Policy, &Compiled, &mut Datapath) + Send) {
    judge::in_namespace("change", &["lan1"], || {
        let policy = ward();
        let mut datapath = judge::datapath();
        let inventory = judge::observed(&[]);
        let compiled = Compiled::new(&policy, &inventory, datapath.reader().clock().unwrap());
        datapath.put(1, &compiled.tables).unwrap();
        // Put twice, so that both slots hold it.
        datapath.put(2, &compiled.tables).unwrap();
        work(&policy, &compiled, &mut datapath);
    });
}

/// The stamps of all flows, by the other end's port.
fn stamps(datapath: &Datapath) -> BTreeMap<u16, u32> {
    let mut stamps = BTreeMap::new();
    let note = |flow: &wardline_policy::live::Live| {
        let ports = flow.key.ports;
        let (low, high) = ((ports >> 48) as u16, (ports >> 32) as u16);
        stamps.insert(low.min(high), flow.stamp);
    };
    datapath.reader().flows(note).unwrap();
    stamps
}

#[test]
fn a_change_of_one_device_writes_a_few_entries() {
    in_ward(|policy, compiled, datapath| {
        let unchanged = datapath.put(3, &compiled.tables).unwrap();
        assert!(unchanged <= 2, "{unchanged} entries for no change");

        let mut policy = policy.clone();
        policy.devices[7].addresses = vec!["10.1.0.250".to_owned()];
        let moved = compiled.next(&policy);
        let written = datapath.put(4, &moved.tables).unwrap();
        assert!(written <= 8, "{written} entries for a changed address");

        // A rule to `any` is one more pair, not one for each device.
        let rule = v1::Rule {
            name: "time".to_owned(),
            from: vec!["device:pump-8".to_owned()],
            to: vec!["any".to_owned()],
            services: vec!["udp/123".to_owned()],
            action: v1::Action::Allow.into(),
            ..v1::Rule::default()
        };
        policy.rules.push(rule);
        let written = datapath.put(5, &moved.next(&policy).tables).unwrap();
        assert!(written <= 24, "{written} entries for a rule of one device");
    });
}

#[test]
fn flows_that_a_change_does_not_concern_do_not_notice() {
    in_ward(|policy, compiled, datapath| {
        let at = At::Entering {
            ifindex: compiled.ifindex("lan1"),
        };
        for n in [1, 2] {
            let said = judge::kernel(datapath, Hook::Xdp, at, &asks(n));
            assert_eq!(said, (true, Some(Reason::Rule)));
        }
        let before = stamps(datapath);

        let mut policy = policy.clone();
        policy.rules[1].log = true;
        let changed = compiled.next(&policy);
        datapath.put(3, &changed.tables).unwrap();
        for n in [1, 2] {
            let said = judge::kernel(datapath, Hook::Xdp, at, &asks(n));
            assert_eq!(said, (true, Some(Reason::Established)));
        }
        let after = stamps(datapath);
        assert_eq!(before[&1001], after[&1001], "judged anew without need");
        assert_ne!(before[&1002], after[&1002], "not judged by the new rule");

        // The flow whose rule is removed is cut, the other is not.
        policy.rules.remove(1);
        datapath.put(4, &changed.next(&policy).tables).unwrap();
        let said = |datapath: &mut _, n| judge::kernel(datapath, Hook::Xdp, at, &asks(n)).1;
        assert_eq!(said(datapath, 1), Some(Reason::Established));
        assert_eq!(said(datapath, 2), Some(Reason::NoRule));
        assert_eq!(stamps(datapath)[&1001], after[&1001]);
    });
}
