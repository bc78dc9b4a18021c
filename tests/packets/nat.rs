//! What a change of policy does to flows that NAT has rewritten.

use std::net::IpAddr;

use wardline_datapath::{Datapath, Hook};
use wardline_ebpf::abi::Reason;
use wardline_host_tests::judge::{At, Compiled, parsed};
use wardline_oracle::frames::{Ethernet, Mac, Udp, ip};
use wardline_policy::inventory::Nat;

use super::judge;

const ROUTER: Mac = [2, 0, 0, 0, 0xff, 1];

/// A device: where it is, and its addresses.
struct Party {
    port: &'static str,
    mac: Mac,
    addresses: [&'static str; 2],
}

const DESK: Party = Party {
    port: "lan2",
    mac: [2, 0, 0, 0, 2, 1],
    addresses: ["10.2.0.1", "fd20:2::1"],
};
const PLC: Party = Party {
    port: "lan1",
    mac: [2, 0, 0, 0, 1, 1],
    addresses: ["10.1.0.1", "fd20:1::1"],
};
/// The router's own addresses, by which the PLC knows the desk.
const OWN: [&str; 2] = ["10.1.0.9", "fd20:1::9"];

const POLICY: &str = r#"version: 1
zones:
  - {name: plcs, subnets: [10.1.0.0/24, "fd20:1::/64"]}
  - {name: desks, subnets: [10.2.0.0/24, "fd20:2::/64"]}
ports:
  - {interface: lan1, zone: plcs}
  - {interface: lan2, zone: desks}
devices:
  - {name: plc, zone: plcs, macs: ["02:00:00:00:01:01"], addresses: [10.1.0.1, "fd20:1::1"]}
  - {name: desk, zone: desks, macs: ["02:00:00:00:02:01"], addresses: [10.2.0.1, "fd20:2::1"]}
rules:
  - {name: time, from: [device:plc], to: [router], services: [udp/123], action: allow}
"#;

const RULE: &str =
    "  - {name: ask, from: [device:desk], to: [device:plc], services: [udp/161], action: allow}\n";
const OTHER: &str = "  - {name: other, from: [device:desk], to: [device:plc], services: [udp/162], action: allow}\n";

/// A bench for one family: the judges' answers to what is sent back and forth.
struct Bench<'a> {
    datapath: &'a mut Datapath,
    compiled: Compiled,
    family: usize,
}

impl Bench<'_> {
    fn put(&mut self, revision: u64, rules: &str) {
        self.compiled = self.compiled.next(&parsed(&format!("{POLICY}{rules}")));
        self.datapath.put(revision, &self.compiled.tables).unwrap();
    }

    fn enters(&mut self, from: &Party, to: &str, udp: Udp) -> (bool, Option<Reason>) {
        let packet = ip(self.own(from), to.parse().unwrap(), udp);
        let frame = Ethernet::new(ROUTER, from.mac, packet).bytes();
        let ifindex = self.compiled.ifindex(from.port);
        judge::kernel(self.datapath, Hook::Xdp, At::Entering { ifindex }, &frame)
    }

    fn leaves(
        &mut self,
        source: &str,
        from: &Party,
        to: &Party,
        udp: Udp,
    ) -> (bool, Option<Reason>) {
        let packet = ip(source.parse().unwrap(), self.own(to), udp);
        let frame = Ethernet::new(to.mac, ROUTER, packet).bytes();
        let at = At::Leaving {
            ifindex: self.compiled.ifindex(to.port),
            from: self.compiled.ifindex(from.port),
        };
        judge::kernel(self.datapath, Hook::TcEgress, at, &frame)
    }

    fn own(&self, party: &Party) -> IpAddr {
        party.addresses[self.family].parse().unwrap()
    }

    /// The desk asks the PLC, whichever way NAT goes.
    fn asks(&mut self) -> [(bool, Option<Reason>); 2] {
        let (plc, own) = (PLC.addresses[self.family], OWN[self.family]);
        let udp = || Udp::new(5000, 161, *b"ask");
        [
            self.enters(&DESK, plc, udp()),
            self.leaves(own, &DESK, &PLC, udp()),
        ]
    }

    /// The PLC answers the router, and NAT gives it to the desk.
    fn answers(&mut self) -> [(bool, Option<Reason>); 2] {
        let (plc, own) = (PLC.addresses[self.family], OWN[self.family]);
        let udp = || Udp::new(161, 5000, *b"answer");
        [
            self.enters(&PLC, own, udp()),
            self.leaves(plc, &PLC, &DESK, udp()),
        ]
    }
}

const ESTABLISHED: (bool, Option<Reason>) = (true, Some(Reason::Established));
/// Passed without a count: it was counted where it entered.
const AGAIN: (bool, Option<Reason>) = (true, None);

fn each_family(name: &str, work: impl Fn(&mut Bench<'_>) + Send + Sync) {
    judge::in_namespace(name, &["lan1", "lan2"], || {
        for family in 0..2 {
            let mut datapath = judge::datapath();
            let mut inventory = judge::observed(&OWN.map(|own| own.parse().unwrap()));
            inventory.nat = Nat { v4: true, v6: true };
            let clock = datapath.reader().clock().unwrap();
            let policy = parsed(&format!("{POLICY}{RULE}"));
            let compiled = Compiled::new(&policy, &inventory, clock);
            datapath.put(1, &compiled.tables).unwrap();
            work(&mut Bench {
                datapath: &mut datapath,
                compiled,
                family,
            });
        }
    });
}

#[test]
fn a_change_that_still_admits_a_masqueraded_flow_does_not_cut_it() {
    each_family("nat-kept", |bench| {
        assert_eq!(bench.asks(), [(true, Some(Reason::Rule)), AGAIN]);
        assert_eq!(bench.answers(), [ESTABLISHED; 2]);
        bench.put(2, &format!("{RULE}{OTHER}"));
        // Whoever sends first.
        assert_eq!(bench.answers(), [ESTABLISHED; 2]);
        assert_eq!(bench.asks(), [ESTABLISHED, AGAIN]);
        bench.put(3, RULE);
        assert_eq!(bench.asks(), [ESTABLISHED, AGAIN]);
        assert_eq!(bench.answers(), [ESTABLISHED; 2]);
    });
}

#[test]
fn a_masqueraded_flow_ends_with_its_rule_and_its_answers_do_not_open_it_again() {
    each_family("nat-cut", |bench| {
        assert_eq!(bench.asks(), [(true, Some(Reason::Rule)), AGAIN]);
        assert_eq!(bench.answers(), [ESTABLISHED; 2]);
        bench.put(2, OTHER);
        // Connection tracking still knows the conversation. The other end may go on for a while
        // where it enters, but reaches nobody.
        for _ in 0..3 {
            let [enters, leaves] = bench.answers();
            assert_eq!(enters, ESTABLISHED);
            assert_eq!(leaves, (false, Some(Reason::NoRule)));
        }
        assert_eq!(bench.asks()[0], (false, Some(Reason::NoRule)));
        assert_eq!(bench.answers()[1], (false, Some(Reason::NoRule)));
    });
}
