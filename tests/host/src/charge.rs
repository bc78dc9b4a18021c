//! Who is charged for a flow, and is every charge given back?

use wardline_ebpf::{
    abi::{Reason, Settings, TICK_SHIFT, gauge},
    flows,
    lookup::Lookup as _,
};
use wardline_oracle::frames::{ACK, Ethernet, FIN, Mac, PSH, RST, SYN, Tcp, icmp, icmpv6, ip};
use wardline_policy::{
    model::Model,
    numbers::{number_of, numbered},
};

use crate::judge::{self, At, Compiled, clock, inventory, parsed};

const POLICY: &str = r#"
version: 1
zones:
  - {name: pumps, subnets: [10.20.1.0/24, "fd20:1::/64"]}
  - {name: cameras, subnets: [10.20.2.0/24, "fd20:2::/64"]}
ports:
  - {interface: lan1, zone: pumps}
  - {interface: lan2, zone: cameras}
devices:
  - {name: pump, zone: pumps, macs: ["02:00:00:00:01:01"], addresses: [10.20.1.11, "fd20:1::11"]}
  - {name: camera, zone: cameras, macs: ["02:00:00:00:02:01"], addresses: [10.20.2.11, "fd20:2::11"]}
rules:
  - {name: watch, from: [zone:pumps], to: [zone:cameras], services: [tcp/554, icmp/8, icmpv6/128], action: allow}
"#;

const ROUTER: Mac = [2, 0, 0, 0, 0xff, 1];
const ADDRESSES: [[&str; 2]; 2] = [["10.20.1.11", "fd20:1::11"], ["10.20.2.11", "fd20:2::11"]];
/// Flows that a device may have.
const QUOTA: u32 = 16;

/// The pump on the first port and the camera on the second, which may adopt flows.
struct Bench<'a> {
    compiled: &'a Compiled,
    model: Model<'a>,
    family: usize,
    tick: u32,
}

/// Runs a test for both families.
fn both(test: impl Fn(&mut Bench<'_>)) {
    let now = jiff::Timestamp::UNIX_EPOCH;
    let compiled = Compiled::new(
        &parsed(POLICY),
        &inventory(&["lan1", "lan2"], &[]),
        clock(now),
    );
    for family in [0, 1] {
        let settings = Settings {
            flows_per_device: QUOTA,
            ..Settings::for_flows(1024)
        };
        let mut bench = Bench {
            compiled: &compiled,
            model: judge::model_for(&compiled, settings),
            family,
            tick: (compiled.clock.jiffies >> TICK_SHIFT) as u32,
        };
        bench.model.adopt_until(bench.tick + judge::ticks(3600));
        test(&mut bench);
        bench.ends();
    }
}

impl Bench<'_> {
    /// What a segment meets that the pump (0) or the camera (1) sends; `port` is the pump's.
    fn sends(&self, end: usize, port: u16, flags: u8) -> Reason {
        self.sends_segment(
            end,
            if end == 0 {
                Tcp::new(port, 554, flags)
            } else {
                Tcp::new(554, port, flags)
            },
        )
    }

    fn sends_segment(
        &self,
        end: usize,
        upper: impl Into<wardline_oracle::frames::Upper>,
    ) -> Reason {
        let address = |end: usize| ADDRESSES[end][self.family].parse().unwrap();
        let packet = ip(address(end), address(1 - end), upper);
        let mac = [2, 0, 0, 0, 1 + end as u8, 1];
        let frame = Ethernet::new(ROUTER, mac, packet).bytes();
        let ifindex = self.compiled.ifindex(["lan1", "lan2"][end]);
        judge::host(&self.model, At::Entering { ifindex }, &frame).reason
    }

    /// How many flows the pump and the camera are charged for, without and with an answer.
    fn charged(&self) -> [(u32, u32); 2] {
        ["pump", "camera"].map(|name| {
            let device = number_of(&self.compiled.ids, numbered::DEVICE, name);
            let quota = self.model.quota(device).unwrap();
            (quota.unanswered.load(), quota.answered.load())
        })
    }

    fn passes(&mut self, seconds: u32) {
        self.tick += judge::ticks(seconds);
        self.model.set_tick(self.tick);
    }

    /// Long after, nobody is charged for anything.
    fn ends(&mut self) {
        self.passes(100_000);
        let settings = self.model.settings().unwrap();
        for _ in 0..settings.buckets {
            flows::sweep(&self.model, settings, self.tick);
        }
        assert_eq!(self.charged(), [(0, 0); 2]);
        for cell in [gauge::FLOWS, gauge::UNANSWERED] {
            assert_eq!(self.model.gauge(cell).unwrap().load(), 0);
        }
    }
}

#[test]
fn who_is_adopted_first_pays_and_the_other_end_opens_what_it_likes() {
    both(|bench| {
        for port in 0..200 {
            let expected = if port < QUOTA as u16 / 2 {
                Reason::Rule
            } else {
                Reason::DeviceQuota
            };
            assert_eq!(bench.sends(1, 1000 + port, ACK), expected, "{port}");
        }
        assert_eq!(bench.charged(), [(0, 0), (QUOTA / 2, 0)]);
        for port in 0..QUOTA as u16 {
            assert_eq!(bench.sends(0, 5000 + port, SYN), Reason::Rule);
        }
        assert_eq!(bench.sends(0, 6000, SYN), Reason::DeviceQuota);
        assert_eq!(bench.charged(), [(QUOTA, 0), (QUOTA / 2, 0)]);
    });
}

#[test]
fn a_flow_stays_with_who_pays_for_it_through_its_life() {
    both(|bench| {
        // Adopted from either end; both become open connections.
        assert_eq!(bench.sends(0, 1000, ACK), Reason::Rule);
        assert_eq!(bench.sends(1, 1001, ACK), Reason::Rule);
        assert_eq!(bench.charged(), [(1, 0), (1, 0)]);
        assert_eq!(bench.sends(1, 1000, ACK | PSH), Reason::Established);
        assert_eq!(bench.sends(0, 1001, ACK | PSH), Reason::Established);
        assert_eq!(bench.charged(), [(0, 1), (0, 1)]);
        // A reset makes room for others; connections that go on are as before.
        assert_eq!(bench.sends(1, 1001, RST), Reason::Established);
        assert_eq!(bench.charged(), [(0, 1), (1, 0)]);
        let data = |source, destination| Tcp {
            data: b"data".to_vec(),
            ..Tcp::new(source, destination, ACK)
        };
        assert_eq!(bench.sends_segment(1, data(554, 1001)), Reason::Established);
        assert_eq!(bench.sends_segment(0, data(1001, 554)), Reason::Established);
        assert_eq!(bench.charged(), [(0, 1), (0, 1)]);
        // Opened anew, the pump pays for what the camera was charged for.
        for end in [0, 1] {
            assert_eq!(bench.sends(end, 1001, FIN | ACK), Reason::Established);
        }
        assert_eq!(bench.sends(0, 1001, SYN), Reason::Rule);
        assert_eq!(bench.charged(), [(1, 1), (0, 0)]);
    });
}

#[test]
fn what_only_one_end_has_shown_is_soon_forgotten() {
    both(|bench| {
        assert_eq!(bench.sends(1, 1000, ACK), Reason::Rule);
        bench.model.adopt_until(0);
        for _ in 0..3 {
            assert_eq!(bench.sends(1, 1000, ACK), Reason::Established);
            bench.passes(10);
        }
        bench.passes(1);
        assert_eq!(bench.sends(1, 1000, ACK), Reason::MidFlow);
        assert_eq!(bench.sends(0, 1000, ACK), Reason::MidFlow);
    });
}

#[test]
fn an_adopted_flow_that_is_reset_is_no_connection() {
    both(|bench| {
        for (adopter, other) in [(0, 1), (1, 0)] {
            assert_eq!(bench.sends(adopter, 1000, ACK), Reason::Rule);
            assert_eq!(bench.sends(other, 1000, RST), Reason::Established);
            let before = bench.charged()[adopter];
            assert_eq!(before, (1, 0), "{adopter}");
            bench.passes(6);
            assert_eq!(bench.sends(adopter, 1000, ACK), Reason::Established);
            bench.passes(6);
            bench.model.adopt_until(0);
            assert_eq!(bench.sends(adopter, 1000, ACK), Reason::MidFlow);
            bench.ends();
            bench.model.adopt_until(bench.tick + judge::ticks(3600));
        }
    });
}

#[test]
fn a_reply_is_charged_to_who_sends_it() {
    both(|bench| {
        let v4 = bench.family == 0;
        let reply = if v4 {
            icmp::reply(7, 1)
        } else {
            icmpv6::reply(7, 1)
        };
        let request = if v4 {
            icmp::request(7, 2)
        } else {
            icmpv6::request(7, 2)
        };
        assert_eq!(bench.sends_segment(1, reply.clone()), Reason::Rule);
        assert_eq!(bench.sends_segment(1, reply), Reason::Established);
        assert_eq!(bench.charged(), [(0, 0), (1, 0)]);
        assert_eq!(bench.sends_segment(0, request), Reason::Established);
        assert_eq!(bench.charged(), [(0, 0), (0, 1)]);
    });
}
