//! A virtual machine has a macvtap on a guarded port: does it work as the device that it is, and does
//! what it forges stay off the link?

use std::{
    cell::Cell,
    fs::{File, OpenOptions},
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv6Addr},
    os::unix::fs::OpenOptionsExt as _,
    process::{Command, Stdio},
    time::Duration,
};

use wardline_oracle::frames::{
    Arp, BROADCAST, Ethernet, Ipv6, Mac, Udp, group_mac, icmpv6, ip, solicited_node,
};
use wardline_tests::{
    Host, Lab, TIMEOUT, eventually,
    ward::{Guard, PATIENCE, skip},
};

use super::container::{BROKER, BROKER_MAC, From, PLC, POLICY, above_lan1, device, forged};

/// `struct virtio_net_hdr` before each frame: with zeroes, nothing is left to the other end.
const HEADER: usize = 10;

const OWN: [&str; 2] = ["10.20.1.50", "fd20:1::50"];
const PLCS: [&str; 2] = ["10.20.1.11", "fd20:1::11"];

/// A virtual machine, which the test plays at the far end of a macvtap.
struct Machine {
    tap: File,
    /// Of its last datagram.
    port: Cell<u16>,
}

impl Machine {
    /// Opens the far end of a namespace's eth0.
    fn new(lab: &Lab, namespace: &Host) -> Self {
        let run = |program: &str, arguments: &[&str]| {
            let command = Command::new(program)
                .args(arguments)
                .stdin(Stdio::null())
                .output();
            let output = command.unwrap();
            assert!(
                output.status.success(),
                "{program} {arguments:?}: {output:?}"
            );
            String::from_utf8(output.stdout).unwrap()
        };
        namespace
            .sysctl("ipv6/conf/eth0/disable_ipv6", "1")
            .unwrap();
        namespace.ip("link set eth0 up").unwrap();
        // The name of its file in /dev is not unique on the machine.
        let inside = ["netns", "exec", namespace.netns(), "sh", "-c"];
        let number = [&inside[..], &["cat /sys/class/net/eth0/tap*/dev"]].concat();
        let number = run("ip", &number);
        let (major, minor) = number.trim().split_once(':').unwrap();
        let path = lab.dir().join("tap");
        run("mknod", &[path.to_str().unwrap(), "c", major, minor]);
        let opens = || {
            let mut options = OpenOptions::new();
            options
                .read(true)
                .write(true)
                .custom_flags(libc::O_NONBLOCK);
            options.open(&path).unwrap()
        };
        Self {
            tap: namespace.run(opens).unwrap(),
            port: Cell::new(4000),
        }
    }

    fn send(&self, frame: &[u8]) {
        let frame = [&[0; HEADER], frame].concat();
        // The kernel tells it at once when the port drops it.
        let _ = (&self.tap).write(&frame);
    }

    /// The first frame that comes in this time, and is wanted.
    fn hears(&self, within: Duration, wanted: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
        let (mut buffer, mut heard) = (vec![0; 65_536], None);
        eventually(within, || {
            while let Ok(length) = (&self.tap).read(&mut buffer) {
                let frame = &buffer[HEADER..length];
                if wanted(frame) {
                    heard = Some(frame.to_vec());
                    return true;
                }
            }
            false
        });
        heard
    }

    /// Asks for the PLC's MAC, as the first packet of a stack does.
    fn finds(&self, family: usize) -> Option<Mac> {
        let plc: Ipv6Addr = PLCS[1].parse().unwrap();
        if family == 0 {
            let asks = Arp::request(BROKER_MAC, BROKER, PLC);
            self.send(&Ethernet::new(BROADCAST, BROKER_MAC, asks).bytes());
        } else {
            let to = solicited_node(plc);
            let option = icmpv6::source_link(BROKER_MAC);
            let asks = icmpv6::neighbour_solicitation(plc, &[option]);
            let asks = Ipv6 {
                hop_limit: 255,
                ..Ipv6::new(OWN[1].parse().unwrap(), to, asks)
            };
            self.send(&Ethernet::new(group_mac(to), BROKER_MAC, asks).bytes());
        }
        let answers = |frame: &[u8]| {
            let arp = frame[12..14] == [8, 6] && frame[21] == 2 && frame[28..32] == PLC.octets();
            let nd = frame[12..14] == [0x86, 0xdd] && frame[20] == 58 && frame[54] == 136;
            if family == 0 {
                arp
            } else {
                nd && frame[62..78] == plc.octets()
            }
        };
        let answer = self.hears(TIMEOUT, answers)?;
        answer[6..12].try_into().ok()
    }

    /// Whether the PLC echoes a datagram.
    fn asks(&self, family: usize) -> bool {
        let Some(plc) = self.finds(family) else {
            return false;
        };
        self.port.set(self.port.get() + 1);
        let word = format!("from port {}", self.port.get());
        let udp = Udp::new(self.port.get(), 502, word.as_bytes());
        let [own, to]: [IpAddr; 2] = [OWN[family], PLCS[family]].map(|it| it.parse().unwrap());
        self.send(&Ethernet::new(plc, BROKER_MAC, ip(own, to, udp)).bytes());
        let echo = |frame: &[u8]| frame[6..12] == plc && frame.ends_with(word.as_bytes());
        self.hears(TIMEOUT, echo).is_some()
    }

    /// Whether a datagram of the PLC arrives at this port.
    fn is_told(&self, plc: &Host, family: usize, port: u16) -> bool {
        // So that the PLC knows its MAC.
        if self.finds(family).is_none() {
            return false;
        }
        let word = format!("to port {port}");
        plc.udp_send(OWN[family], port, word.as_bytes()).unwrap();
        let wanted = |frame: &[u8]| frame.ends_with(word.as_bytes());
        self.hears(TIMEOUT, wanted).is_some()
    }

    /// Whether a frame arrives at the PLC, before one that always does.
    fn forges(&self, plc: &Host, frame: &[u8]) -> bool {
        let nobody = [10, 20, 1, 99].into();
        let always = Arp::request(BROKER_MAC, BROKER, nobody);
        let always = Ethernet::new(BROADCAST, BROKER_MAC, always).bytes();
        let sniffer = plc.sniff("eth0").unwrap();
        self.send(frame);
        self.send(&always);
        let is_either = |it: &[u8]| it.starts_with(frame) || it.starts_with(&always);
        let first = sniffer.wait_for(PATIENCE, is_either);
        first.expect("the frame after it").starts_with(frame)
    }
}

#[test]
fn a_virtual_machine_above_a_port_is_a_device_and_not_the_router_at_xdp() {
    machine("machine-xdp", "xdp", "bridge");
}

#[test]
fn a_virtual_machine_above_a_port_is_a_device_and_not_the_router_at_tc() {
    machine("machine-tc", "tc", "private");
}

fn machine(name: &str, hook: &str, mode: &str) {
    let lab = Lab::new(name).unwrap();
    let [plc, _desk] = [(1, 0x11), (2, 0x21)].map(|(net, host)| device(&lab, net, host));
    let kind = format!("macvtap mode {mode}");
    let Some(namespace) = above_lan1(&lab, "machine", &BROKER_MAC, &kind) else {
        return skip(name, "no macvtap in this kernel");
    };
    lab.settle().unwrap();
    let machine = Machine::new(&lab, &namespace);
    let _udp = plc.udp_serve(502).unwrap();
    // What the rules allow, both ways and in both families; its IPv6 address is learned.
    let works = || {
        for family in [0, 1] {
            assert!(machine.asks(family), "{hook} {family}");
            assert!(machine.is_told(&plc, family, 1883), "{hook} {family}");
        }
    };
    let told = |port: u16| [0, 1].map(|family| machine.is_told(&plc, family, port));
    let forged: Vec<_> = forged(&plc)
        .into_iter()
        .filter(|(_, sender, ..)| *sender == From::Broker)
        .collect();

    // Without Wardline everything arrives.
    works();
    assert_eq!(told(23), [true; 2]);
    for (what, _, frame, _) in &forged {
        assert!(machine.forges(&plc, frame), "{what}");
    }
    // The forged claims have taken effect.
    for family in ["-4", "-6"] {
        let flush = format!("{family} neighbour flush dev eth0");
        plc.ip(&flush).unwrap();
    }

    let guard = Guard::start(&lab, "");
    let policy = POLICY.replace("HOOK", hook);
    guard.apply(&policy.replace("MODE", "enforce"));
    assert_eq!(guard.attached()["lan1"], hook);
    works();
    assert_eq!(guard.drops(), [].into(), "{hook}");
    assert_eq!(told(23), [false; 2], "{hook}");
    for (what, _, frame, reason) in &forged {
        let before = guard.packets(reason);
        assert!(!machine.forges(&plc, frame), "{what}");
        let counted = || guard.packets(reason) > before;
        assert!(eventually(PATIENCE, counted), "{what}: {:?}", guard.drops());
    }
    guard.told(&[("reason", "arp_spoof"), ("device", "broker")]);
    let quarantine = ["quarantine", "broker", "--reason", "odd"];
    guard.ctl.run(&quarantine).unwrap().ok().unwrap();
    assert!(!machine.asks(0) && !machine.asks(1), "{hook}");
    guard.ctl.run(&["release", "broker"]).unwrap().ok().unwrap();
    works();

    // Observed, everything arrives again, and is told.
    guard.apply(&policy.replace("MODE", "observe"));
    guard.observes("spoofed_source", || {
        works();
        assert_eq!(told(23), [true; 2], "{hook}");
        for (what, _, frame, _) in &forged {
            assert!(machine.forges(&plc, frame), "{what}");
        }
    });
    lab.close().unwrap();
}
