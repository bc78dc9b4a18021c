//! A packet that policy has refused is refused again from a cache. Is it counted, is it reported,
//! and does the cache end with the policy that refused it?

use std::{net::Ipv4Addr, time::Duration};

use wardline_datapath::{Datapath, Hook};
use wardline_ebpf::abi::{Counter, Reason};
use wardline_host_tests::judge::{At, Compiled, parsed};
use wardline_oracle::frames::{Ethernet, Ipv4, Mac, Udp};
use wardline_policy::numbers::{number_of, numbered};
use wardline_proto::v1;
use wardline_tests::{eventually, processors, stay_on};

use super::judge;

const POLICY: &str = r#"
version: 1
zones: [{name: pumps, subnets: [10.1.0.0/24]}]
ports: [{interface: lan1, zone: pumps}]
devices:
  - {name: one, zone: pumps, macs: ["02:00:00:00:01:01"], addresses: [10.1.0.1]}
  - {name: two, zone: pumps, macs: ["02:00:00:00:01:02"], addresses: [10.1.0.2]}
rules:
  - {name: back, from: [device:two], to: [device:one], services: [udp/5000], action: allow}
  - {name: never, from: [device:one], to: [device:two], services: [udp/23], action: deny}
"#;

const ONE: u8 = 1;
const TWO: u8 = 2;

fn frame(from: u8, to: u8, ports: (u16, u16)) -> Vec<u8> {
    let mac = |n: u8| -> Mac { [2, 0, 0, 0, 1, n] };
    let address = |n: u8| Ipv4Addr::new(10, 1, 0, n);
    let udp = Udp::new(ports.0, ports.1, *b"x");
    Ethernet::new(
        mac(to),
        mac(from),
        Ipv4::new(address(from), address(to), udp),
    )
    .bytes()
}

struct Guarded<'a> {
    datapath: &'a mut Datapath,
    compiled: Compiled,
    policy: v1::Policy,
    revision: u64,
}

impl Guarded<'_> {
    fn judge(&mut self, hook: Hook, frame: &[u8]) -> (bool, Option<Reason>) {
        let at = At::Entering {
            ifindex: self.compiled.ifindex("lan1"),
        };
        judge::kernel(self.datapath, hook, at, frame)
    }

    fn change(&mut self, change: impl FnOnce(&mut v1::Policy)) {
        change(&mut self.policy);
        self.compiled = self.compiled.next(&self.policy);
        self.revision += 1;
        self.datapath
            .put(self.revision, &self.compiled.tables)
            .unwrap();
    }

    fn rule(&self, name: &str) -> Counter {
        let number = number_of(&self.compiled.ids, numbered::RULE, name);
        self.datapath.reader().rules([number].into_iter()).unwrap()[0]
    }
}

fn guarded(work: impl FnOnce(&mut Guarded<'_>) + Send) {
    judge::in_namespace("denied", &["lan1"], || {
        let policy = parsed(POLICY);
        let mut datapath = judge::datapath();
        let inventory = judge::observed(&[]);
        let compiled = Compiled::new(&policy, &inventory, datapath.reader().clock().unwrap());
        datapath.put(1, &compiled.tables).unwrap();
        work(&mut Guarded {
            datapath: &mut datapath,
            compiled,
            policy,
            revision: 1,
        });
    });
}

const DENIED: (bool, Option<Reason>) = (false, Some(Reason::NoRule));

#[test]
fn every_packet_is_counted_and_told_of() {
    guarded(|guarded| {
        // Each processor keeps its own count of the events that it has not sent yet.
        let one = processors().unwrap()[0];
        stay_on(one).unwrap();
        let mut ring = guarded.datapath.events().unwrap();
        let (refused, by_rule) = (frame(ONE, TWO, (5000, 9)), frame(ONE, TWO, (5000, 23)));
        let mut sent = 0u64;
        let mut told = Vec::new();
        // One event at once, and one more a second later, which counts the packets between.
        let again = eventually(Duration::from_secs(5), || {
            assert_eq!(guarded.judge(Hook::Xdp, &refused), DENIED);
            sent += 1;
            for event in ring.by_ref() {
                let event = event.unwrap();
                assert_eq!(event.reason, Reason::NoRule as u8);
                told.push(event.count);
            }
            told.len() == 2
        });
        assert!(again, "{told:?} told of {sent}");
        assert_eq!(told.iter().sum::<u64>(), sent, "{told:?}");
        assert_eq!(
            guarded.datapath.reader().reasons().unwrap()[&Reason::NoRule].packets,
            sent
        );

        for _ in 0..3 {
            let said = guarded.judge(Hook::TcIngress, &by_rule);
            assert_eq!(said, (false, Some(Reason::DeniedByRule)));
        }
        let length = by_rule.len() as u64;
        let counted = Counter {
            packets: 3,
            bytes: 3 * length,
        };
        assert_eq!(guarded.rule("never"), counted);
    });
}

#[test]
fn a_change_holds_for_the_next_packet() {
    guarded(|guarded| {
        let (web, log) = (frame(ONE, TWO, (5000, 443)), frame(ONE, TWO, (5000, 514)));
        for hook in [Hook::Xdp, Hook::TcIngress] {
            for frame in [&web, &web, &log, &log] {
                assert_eq!(guarded.judge(hook, frame), DENIED);
            }
        }
        guarded.change(|policy| {
            policy.rules.push(v1::Rule {
                name: "web".to_owned(),
                from: vec!["zone:pumps".to_owned()],
                to: vec!["device:two".to_owned()],
                services: vec!["udp/443".to_owned()],
                action: v1::Action::Allow.into(),
                ..v1::Rule::default()
            });
        });
        assert_eq!(guarded.judge(Hook::Xdp, &web), (true, Some(Reason::Rule)));
        assert_eq!(guarded.judge(Hook::Xdp, &log), DENIED);
        guarded.change(|policy| drop(policy.rules.pop()));
        for _ in 0..2 {
            assert_eq!(guarded.judge(Hook::Xdp, &web), DENIED);
        }
    });
}

#[test]
fn an_answer_to_who_may_ask_is_not_refused() {
    guarded(|guarded| {
        let answer = frame(ONE, TWO, (5000, 6000));
        for _ in 0..2 {
            assert_eq!(guarded.judge(Hook::Xdp, &answer), DENIED);
        }
        let question = frame(TWO, ONE, (6000, 5000));
        let asked = guarded.judge(Hook::Xdp, &question);
        assert_eq!(asked, (true, Some(Reason::Rule)));
        let answered = guarded.judge(Hook::Xdp, &answer);
        assert_eq!(answered, (true, Some(Reason::Established)));

        // Both packets count for the rule: while the flow lives, and after it has been cut.
        let counted = Counter {
            packets: 2,
            bytes: (answer.len() + question.len()) as u64,
        };
        assert_eq!(guarded.rule("back"), counted);
        guarded.change(|policy| {
            policy.rules.retain(|rule| rule.name != "back");
        });
        let cut = guarded.judge(Hook::Xdp, &question);
        assert_eq!(cut, DENIED);
        assert_eq!(guarded.rule("back"), counted);
        // The flow is gone: nothing is counted twice.
        let mut flows = 0;
        guarded.datapath.reader().flows(|_| flows += 1).unwrap();
        assert_eq!(flows, 0);
    });
}

#[test]
fn who_takes_an_address_of_a_shared_prefix_is_reached_at_once() {
    const THREE: u8 = 3;
    guarded(|guarded| {
        let more = parsed(
            r#"
version: 1
zones: [{name: cameras, subnets: [10.1.0.0/24]}]
devices: [{name: three, zone: pumps, macs: ["02:00:00:00:01:03"]}]
rules: [{name: near, from: [device:one], to: [zone:pumps], services: [udp/7], action: allow}]
"#,
        );
        guarded.change(|policy| {
            policy.zones.extend(more.zones);
            policy.devices.extend(more.devices);
            policy.rules.extend(more.rules);
        });
        let asks = frame(ONE, THREE, (9, 7));
        for _ in 0..2 {
            assert_eq!(guarded.judge(Hook::Xdp, &asks), DENIED, "nobody has it");
        }
        let says = frame(THREE, ONE, (8, 8));
        assert_eq!(guarded.judge(Hook::Xdp, &says), DENIED, "it is heard");
        let admitted = (true, Some(Reason::Rule));
        assert_eq!(guarded.judge(Hook::Xdp, &asks), admitted);
    });
}
