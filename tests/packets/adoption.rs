//! What the kernel adopts while a port is new, and whom it charges for it.

use wardline_datapath::{Datapath, Hook};
use wardline_ebpf::abi::Reason;
use wardline_host_tests::judge::{At, Compiled, limits, parsed};
use wardline_oracle::frames::{ACK, Ethernet, Mac, PSH, SYN, Tcp, ip};

use super::judge;

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
  - {name: watch, from: [zone:pumps], to: [zone:cameras], services: [tcp/554], action: allow}
"#;

const ROUTER: Mac = [2, 0, 0, 0, 0xff, 1];
/// By family, the pump's and the camera's.
const ADDRESSES: [[&str; 2]; 2] = [["10.20.1.11", "10.20.2.11"], ["fd20:1::11", "fd20:2::11"]];

/// The frame that the pump (0) or the camera (1) sends; `port` is the pump's.
fn sent(end: usize, family: usize, port: u16, flags: u8) -> Vec<u8> {
    let address = |end: usize| ADDRESSES[family][end].parse().unwrap();
    let segment = match end {
        0 => Tcp::new(port, 554, flags),
        _ => Tcp::new(554, port, flags),
    };
    let mac = [2, 0, 0, 0, 1 + end as u8, 1];
    Ethernet::new(ROUTER, mac, ip(address(end), address(1 - end), segment)).bytes()
}

#[test]
fn who_is_adopted_first_pays_and_the_other_end_opens_what_it_likes() {
    judge::in_namespace("adopted", &["lan1", "lan2"], || {
        let mut datapath = judge::datapath();
        let inventory = judge::observed(&["10.20.1.1".parse().unwrap()]);
        let clock = datapath.reader().clock().unwrap();
        let compiled = Compiled::new(&parsed(POLICY), &inventory, clock);
        datapath.put(1, &compiled.tables).unwrap();
        let lan = ["lan1", "lan2"].map(|name| compiled.ifindex(name));
        let quota = limits().flows_per_device as u16;
        for (hook, family) in [
            (Hook::Xdp, 0),
            (Hook::Xdp, 1),
            (Hook::TcIngress, 0),
            (Hook::TcIngress, 1),
        ] {
            datapath.forget().unwrap();
            let enters = |datapath: &mut Datapath, end: usize, port, flags| {
                let (ifindex, frame) = (lan[end], sent(end, family, port, flags));
                let (_, reason) = judge::kernel(datapath, hook, At::Entering { ifindex }, &frame);
                reason.unwrap()
            };
            assert_eq!(enters(&mut datapath, 1, 1000, ACK), Reason::MidFlow);
            datapath.adopt_now(lan[1], true).unwrap();
            for number in 0..quota {
                let expected = if number < quota / 2 {
                    Reason::Rule
                } else {
                    Reason::DeviceQuota
                };
                let said = enters(&mut datapath, 1, 1000 + number, ACK);
                assert_eq!(said, expected, "{hook:?} {family} {number}");
            }
            // The pump's own port adopts nothing, but what it was first heard of by the camera goes on.
            assert_eq!(enters(&mut datapath, 0, 7000, ACK), Reason::MidFlow);
            let goes_on = enters(&mut datapath, 0, 1000, ACK | PSH);
            assert_eq!(goes_on, Reason::Established, "{hook:?} {family}");
            for number in 0..quota {
                let said = enters(&mut datapath, 0, 5000 + number, SYN);
                assert_eq!(said, Reason::Rule, "{hook:?} {family} {number}");
            }
            let beyond = enters(&mut datapath, 0, 6000, SYN);
            assert_eq!(beyond, Reason::DeviceQuota, "{hook:?} {family}");
            datapath.adopt_now(lan[1], false).unwrap();
        }
    });
}
