//! A port between two hosts, for tests that attach programs by hand and check what passes.

use std::{
    collections::BTreeSet,
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use aya::programs::{ProgramInfo, SchedClassifier, TcAttachType};
use wardline_datapath::{Datapath, Hook, attach::Way, error::AttachError};
use wardline_host_tests::judge::{Compiled, limits, parsed};
use wardline_oracle::frames::{Ethernet, Ipv4, Mac, Udp};
use wardline_tests::{End, Host, Lab, Sniffer, eventually};

use crate::{
    live::foreign::{self, Does, Kind},
    packets::judge,
};

pub(super) const POLICY: &str = r#"
version: 1
zones: [{name: pumps, subnets: [10.1.0.0/24]}]
ports: [{interface: lan1, zone: pumps}]
devices: [{name: pump, zone: pumps, macs: ["02:00:00:00:01:01"], addresses: [10.1.0.11]}]
rules: [{name: echo, from: [zone:pumps], to: [any], services: [udp/7], action: allow}]
"#;

pub(super) const PUMP_MAC: Mac = [2, 0, 0, 0, 1, 1];
pub(super) const PUMP: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 11);
pub(super) const FAR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);

/// The service that the pump may use, and one that it may not.
pub(super) const ALLOWED: u16 = 7;
pub(super) const FORBIDDEN: u16 = 9;
pub(super) const OWN_PORT: u16 = 4000;

pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// Long enough for a frame to cross the lab many times over.
pub(super) const QUIET: Duration = Duration::from_millis(200);

/// A pump at `lan1` of the router, and a far host behind its uplink.
pub(super) struct Bench {
    pub(super) lab: Lab,
    pub(super) pump: Host,
    pub(super) far: Host,
    pub(super) pins: PathBuf,
    pub(super) lan1: u32,
}

impl Bench {
    pub(super) fn new(name: &str) -> Self {
        let lab = Lab::new(name).unwrap();
        let (pump, far) = (lab.host("pump").unwrap(), lab.host("far").unwrap());
        lab.wire(
            &End::new(&pump, "eth0")
                .mac("02:00:00:00:01:01")
                .address("10.1.0.11/24")
                .gateway("10.1.0.1"),
            &End::new(lab.router(), "lan1").address("10.1.0.1/24"),
        )
        .unwrap();
        lab.wire(
            &End::new(&far, "eth0")
                .address("192.0.2.7/24")
                .gateway("192.0.2.1"),
            &End::new(lab.router(), "uplink").address("192.0.2.1/24"),
        )
        .unwrap();
        lab.settle().unwrap();
        let pins = PathBuf::from(format!("/sys/fs/bpf/wardline-{}-bench", lab.id()));
        let lan1 = index(lab.router(), "lan1");
        Self {
            lab,
            pump,
            far,
            pins,
            lan1,
        }
    }

    /// A daemon's datapath, with the policy in force.
    pub(super) fn datapath(&self) -> Datapath {
        self.in_router(|| {
            let (limits, timeouts) = (limits(), judge::timeouts());
            let mut datapath = Datapath::open(Some(&self.pins), &limits, &timeouts).unwrap();
            let policy = parsed(POLICY);
            // With its own MACs: what leaves with another is not the router's.
            let inventory = judge::seen();
            let compiled = Compiled::new(&policy, &inventory, datapath.reader().clock().unwrap());
            datapath.put(1, &compiled.tables).unwrap();
            datapath
        })
    }

    pub(super) fn in_router<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.lab.router().run(work).unwrap()
    }

    pub(super) fn attach(
        &self,
        datapath: &mut Datapath,
        way: Way,
        hooks: &[Hook],
    ) -> Result<(), AttachError> {
        self.in_router(|| datapath.hooks().attach(way, self.lan1, hooks))
    }

    /// The hooks that judge `lan1`.
    pub(super) fn attached(&self, datapath: &Datapath) -> BTreeSet<Hook> {
        self.in_router(|| datapath.hooks().on(self.lan1).unwrap())
    }

    pub(super) fn pump_sends(&self, port: u16, payload: &[u8]) -> Vec<u8> {
        let router = self.lab.router().mac("lan1").unwrap();
        let udp = Udp::new(OWN_PORT, port, payload.to_vec());
        Ethernet::new(router, PUMP_MAC, Ipv4::new(PUMP, FAR, udp)).bytes()
    }

    pub(super) fn far_sends(&self, port: u16, payload: &[u8]) -> Vec<u8> {
        let router = self.lab.router().mac("uplink").unwrap();
        let own = self.far.mac("eth0").unwrap();
        let udp = Udp::new(port, OWN_PORT, payload.to_vec());
        Ethernet::new(router, own, Ipv4::new(FAR, PUMP, udp)).bytes()
    }

    /// Whether the pump reaches the far host at a port.
    pub(super) fn arrives(&self, port: u16) -> bool {
        let heard = self.far.sniff("eth0").unwrap();
        let frame = self.pump_sends(port, b"once");
        self.pump.send_frame("eth0", &frame).unwrap();
        let until = if port == ALLOWED { PATIENCE } else { QUIET };
        heard
            .wait_for(until, |frame| ports(frame).1 == port)
            .is_some()
    }

    /// Asserts that the allowed service is reached and the forbidden one is not.
    #[track_caller]
    pub(super) fn assert_judged(&self) {
        assert!(self.arrives(ALLOWED), "an allowed packet was lost");
        assert!(!self.arrives(FORBIDDEN), "a forbidden packet arrived");
    }

    #[track_caller]
    pub(super) fn assert_unjudged(&self) {
        let arrived = eventually(PATIENCE, || self.arrives(FORBIDDEN));
        assert!(arrived, "the port is still judged");
    }

    /// Runs `work` while allowed and forbidden packets go both ways: no allowed one may be lost,
    /// and no forbidden one may arrive.
    #[track_caller]
    pub(super) fn under_traffic(&self, work: impl FnOnce()) {
        // First opens the flow and lets the router resolve its neighbours.
        assert!(self.arrives(ALLOWED));
        let back = self.pump.sniff("eth0").unwrap();
        let answer = self.far_sends(ALLOWED, b"once");
        let answered = eventually(PATIENCE, || {
            self.far.send_frame("eth0", &answer).unwrap();
            back.wait_for(QUIET, |frame| ports(frame).0 == ALLOWED)
                .is_some()
        });
        assert!(answered, "no answer arrived");

        let flow = Flow::default();
        let (out, back) = thread::scope(|scope| {
            let flow = &flow;
            let out = scope.spawn(move || {
                let make = |port, payload: &[u8]| self.pump_sends(port, payload);
                stream(&self.pump, &self.far, make, |frame| ports(frame).1, flow)
            });
            let back = scope.spawn(move || {
                let make = |port, payload: &[u8]| self.far_sends(port, payload);
                stream(&self.far, &self.pump, make, |frame| ports(frame).0, flow)
            });
            let flowing = || flow.streams.load(Ordering::Relaxed) == 2;
            let flows = eventually(PATIENCE, flowing);
            if flows {
                work();
            }
            flow.stop.store(true, Ordering::Relaxed);
            assert!(flows, "the streams did not start");
            (out.join().unwrap(), back.join().unwrap())
        });
        for (way, stream) in [("out", out), ("back", back)] {
            let Stream { sent, lost, leaked } = stream;
            assert_eq!(
                (lost, leaked),
                (0, 0),
                "{way}: lost and leaked of {sent} each"
            );
        }
    }

    /// Pins a foreign program where `tc` finds it.
    pub(super) fn foreign(&self, name: &str, answer: i32) -> PathBuf {
        let directory = format!("/sys/fs/bpf/wardline-{}-foreign", self.lab.id());
        fs::create_dir_all(&directory).unwrap();
        let pin = Path::new(&directory).join(name);
        let program = foreign::load(Kind::Tc, Does::Answers(answer), name).unwrap();
        program.pin(&pin).unwrap();
        pin
    }

    pub(super) fn tc(&self, arguments: &str) -> String {
        tool(self.lab.router(), "tc", arguments)
    }

    pub(super) fn filters(&self) -> String {
        self.tc("filter show dev lan1 ingress") + &self.tc("filter show dev lan1 egress")
    }

    /// Ids of all programs on `lan1`, whoever attached them.
    pub(super) fn programs(&self) -> BTreeSet<u32> {
        let xdp = tool(self.lab.router(), "ip", "-details link show dev lan1");
        let told = xdp + &self.filters();
        let words: Vec<&str> = told.split_whitespace().collect();
        let ids = words.windows(2).filter(|pair| pair[0] == "id");
        let mut ids: BTreeSet<u32> = ids.filter_map(|pair| pair[1].parse().ok()).collect();
        let sides = [TcAttachType::Ingress, TcAttachType::Egress];
        for side in sides.into_iter().filter(|_| self.has_tcx()) {
            let query = || SchedClassifier::query_tcx("lan1", side).unwrap();
            let (_, programs) = self.in_router(query);
            ids.extend(programs.iter().map(ProgramInfo::id));
        }
        ids
    }

    /// Whether the kernel has TCX; without it, TC programs are attached as filters in any case.
    pub(super) fn has_tcx(&self) -> bool {
        let program = foreign::load(Kind::Tc, Does::Answers(-1), "probe").unwrap();
        let link = self.in_router(|| program.link(self.lan1, foreign::Hook::TcxEgress));
        link.is_ok()
    }

    pub(super) fn has_qdisc(&self) -> bool {
        self.tc("qdisc show dev lan1").contains("clsact")
    }
}

/// State shared by the two streams.
#[derive(Default)]
pub(super) struct Flow {
    /// Streams that have started.
    pub(super) streams: AtomicUsize,
    pub(super) stop: AtomicBool,
}

/// What became of a stream of packets.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) sent: usize,
    pub(super) lost: usize,
    pub(super) leaked: usize,
}

/// Sends an allowed and a forbidden packet by turns until told to stop; `port` tells them apart.
pub(super) fn stream(
    from: &Host,
    to: &Host,
    make: impl Fn(u16, &[u8]) -> Vec<u8>,
    port: impl Fn(&[u8]) -> u16 + Sync,
    flow: &Flow,
) -> Stream {
    /// Least number of packets before and after `work`.
    const SOME: u32 = 50;
    let (allowed, forbidden) = (make(ALLOWED, &[0; 4]), make(FORBIDDEN, &[0; 4]));
    let sender = from.sniff("eth0").unwrap();
    let heard = to.sniff("eth0").unwrap();
    let send = |frame: &[u8], number: u32| {
        // Nothing on the way checks the UDP checksum, so it need not be right.
        let mut frame = frame.to_vec();
        let at = frame.len() - 4;
        frame[at..].copy_from_slice(&number.to_be_bytes());
        sender.send(&frame).unwrap();
    };
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let _over = wardline_tests::AtTheEnd(&done);
        let (done, port, heard) = (&done, &port, &heard);
        let listener = scope.spawn(move || {
            let (mut numbers, mut leaked) = (BTreeSet::new(), 0);
            loop {
                let ended = done.load(Ordering::Relaxed);
                // Once the sender is done, silence means that every frame has arrived.
                let Some(frame) = next(heard) else {
                    if ended {
                        return (numbers, leaked);
                    }
                    continue;
                };
                let number = || u32::from_be_bytes(*frame.last_chunk().unwrap());
                match port(&frame) {
                    ALLOWED => drop(numbers.insert(number())),
                    FORBIDDEN => leaked += 1,
                    _ => {}
                }
            }
        });
        let mut sent = 0;
        while sent < 2 * SOME || !flow.stop.load(Ordering::Relaxed) {
            send(&allowed, sent);
            send(&forbidden, sent);
            sent += 1;
            if sent == SOME {
                flow.streams.fetch_add(1, Ordering::Relaxed);
            }
            // A pace that the listener keeps up with on a busy machine.
            thread::sleep(Duration::from_micros(500));
        }
        done.store(true, Ordering::Relaxed);
        let (numbers, leaked) = listener.join().unwrap();
        let sent = sent as usize;
        Stream {
            sent,
            lost: sent - numbers.len(),
            leaked,
        }
    })
}

pub(super) fn next(heard: &Sniffer) -> Option<Vec<u8>> {
    heard.next(QUIET)
}

/// Source and destination port of an untagged UDP packet over IPv4; zeros for all else.
pub(super) fn ports(frame: &[u8]) -> (u16, u16) {
    if frame.len() < 42 || frame[12..14] != [8, 0] || frame[23] != 17 {
        return (0, 0);
    }
    let port = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
    (port(34), port(36))
}

pub(crate) fn index(host: &Host, interface: &str) -> u32 {
    let text = tool(host, "ip", &format!("-o link show dev {interface}"));
    let number = text.split(':').next().unwrap().trim().parse();
    number.unwrap_or_else(|_| panic!("{text}"))
}

/// Runs a program inside a host's namespace, where the machine's BPF file system is seen.
pub(super) fn tool(host: &Host, program: &str, arguments: &str) -> String {
    let (ok, said) = try_tool(host, program, arguments);
    assert!(ok, "{program} {arguments}: {said}");
    said
}

pub(super) fn try_tool(host: &Host, program: &str, arguments: &str) -> (bool, String) {
    let mut command = Command::new(program);
    command.args(arguments.split_whitespace());
    let output = host.run(|| command.output()).unwrap().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}
