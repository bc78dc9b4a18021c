//! How programs are attached: by links and by filters, across restarts and upgrades under traffic,
//! beside what others have attached, and with tags that XDP can't see.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::Write as _,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use aya::programs::{ProgramInfo, SchedClassifier, TcAttachType};
use wardline_datapath::{Datapath, Hook, attach::Way, error::AttachError, links};
use wardline_ebpf::abi::Reason;
use wardline_host_tests::judge::{Compiled, limits, parsed};
use wardline_oracle::frames::{BROADCAST, Ethernet, FIN, Ipv4, Mac, SYN, Tcp, Udp};
use wardline_tests::{Ctl, Daemon, End, Host, Lab, Sniffer, eventually, ward::skip};

use super::{
    foreign::{self, Does, Foreign, Kind},
    spine,
};
use crate::packets::judge;

const POLICY: &str = r#"
version: 1
zones: [{name: pumps, subnets: [10.1.0.0/24]}]
ports: [{interface: lan1, zone: pumps}]
devices: [{name: pump, zone: pumps, macs: ["02:00:00:00:01:01"], addresses: [10.1.0.11]}]
rules: [{name: echo, from: [zone:pumps], to: [any], services: [udp/7], action: allow}]
"#;

const PUMP_MAC: Mac = [2, 0, 0, 0, 1, 1];
const PUMP: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 11);
const FAR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
/// The service that the pump may use, and one that it may not.
const ALLOWED: u16 = 7;
const FORBIDDEN: u16 = 9;
const OWN_PORT: u16 = 4000;

const TC: [Hook; 2] = [Hook::TcIngress, Hook::TcEgress];
const XDP: [Hook; 3] = [Hook::Tags, Hook::Xdp, Hook::TcEgress];
const PATIENCE: Duration = Duration::from_secs(5);
/// Long enough for a frame to cross the lab many times over.
const QUIET: Duration = Duration::from_millis(200);

/// A pump at `lan1` of the router, and a far host behind its uplink.
struct Bench {
    lab: Lab,
    pump: Host,
    far: Host,
    pins: PathBuf,
    lan1: u32,
}

impl Bench {
    fn new(name: &str) -> Self {
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
    fn datapath(&self) -> Datapath {
        self.in_router(|| {
            let (limits, timeouts) = (limits(), judge::timeouts());
            let mut datapath = Datapath::open(Some(&self.pins), &limits, &timeouts).unwrap();
            let policy = parsed(POLICY);
            let inventory = judge::observed(&[]);
            let compiled = Compiled::new(&policy, &inventory, datapath.reader().clock().unwrap());
            datapath.put(1, &compiled.tables).unwrap();
            datapath
        })
    }

    fn in_router<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.lab.router().run(work).unwrap()
    }

    fn attach(&self, datapath: &mut Datapath, way: Way, hooks: &[Hook]) -> Result<(), AttachError> {
        self.in_router(|| datapath.attach_by(way, self.lan1, hooks))
    }

    /// The hooks that judge `lan1`.
    fn attached(&self, datapath: &Datapath) -> BTreeSet<Hook> {
        self.in_router(|| {
            let on = |hook: &Hook| datapath.is_attached(self.lan1, *hook).unwrap();
            Hook::ALL.into_iter().filter(on).collect()
        })
    }

    fn pump_sends(&self, port: u16, payload: &[u8]) -> Vec<u8> {
        let router = self.lab.router().mac("lan1").unwrap();
        let udp = Udp::new(OWN_PORT, port, payload.to_vec());
        Ethernet::new(router, PUMP_MAC, Ipv4::new(PUMP, FAR, udp)).bytes()
    }

    fn far_sends(&self, port: u16, payload: &[u8]) -> Vec<u8> {
        let router = self.lab.router().mac("uplink").unwrap();
        let own = self.far.mac("eth0").unwrap();
        let udp = Udp::new(port, OWN_PORT, payload.to_vec());
        Ethernet::new(router, own, Ipv4::new(FAR, PUMP, udp)).bytes()
    }

    /// Whether the pump reaches the far host at a port.
    fn arrives(&self, port: u16) -> bool {
        let heard = self.far.sniff("eth0").unwrap();
        let frame = self.pump_sends(port, b"once");
        self.pump.send_frame("eth0", &frame).unwrap();
        let until = if port == ALLOWED { PATIENCE } else { QUIET };
        heard
            .wait_for(until, |frame| ports(frame).1 == port)
            .is_some()
    }

    /// Whether what the policy says is what happens.
    #[track_caller]
    fn assert_judged(&self) {
        assert!(self.arrives(ALLOWED), "what is allowed was lost");
        assert!(!self.arrives(FORBIDDEN), "what is forbidden arrived");
    }

    #[track_caller]
    fn assert_unjudged(&self) {
        let arrived = eventually(PATIENCE, || self.arrives(FORBIDDEN));
        assert!(arrived, "something still judges");
    }

    /// Does something while allowed and forbidden packets pass both ways: no allowed one may be
    /// lost, and no forbidden one may arrive.
    #[track_caller]
    fn under_traffic(&self, work: impl FnOnce()) {
        // The flow, and the neighbours that the router must know.
        assert!(self.arrives(ALLOWED));
        let back = self.pump.sniff("eth0").unwrap();
        let answer = self.far_sends(ALLOWED, b"once");
        let answered = eventually(PATIENCE, || {
            self.far.send_frame("eth0", &answer).unwrap();
            back.wait_for(QUIET, |frame| ports(frame).0 == ALLOWED)
                .is_some()
        });
        assert!(answered, "no answer comes through");

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
            assert!(flows, "the streams do not begin");
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

    /// Pins a program of somebody else where `tc` finds it.
    fn foreign(&self, name: &str, answer: i32) -> PathBuf {
        let directory = format!("/sys/fs/bpf/wardline-{}-foreign", self.lab.id());
        fs::create_dir_all(&directory).unwrap();
        let pin = Path::new(&directory).join(name);
        let program = foreign::load(Kind::Tc, Does::Answers(answer), name).unwrap();
        program.pin(&pin).unwrap();
        pin
    }

    fn tc(&self, arguments: &str) -> String {
        tool(self.lab.router(), "tc", arguments)
    }

    fn filters(&self) -> String {
        self.tc("filter show dev lan1 ingress") + &self.tc("filter show dev lan1 egress")
    }

    /// Ids of the programs on `lan1`, anybody's.
    fn programs(&self) -> BTreeSet<u32> {
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

    /// Whether the kernel has TCX; without it TC programs are filters whatever is asked for.
    fn has_tcx(&self) -> bool {
        let program = foreign::load(Kind::Tc, Does::Answers(-1), "probe").unwrap();
        let link = self.in_router(|| program.link(self.lan1, foreign::Hook::TcxEgress));
        link.is_ok()
    }

    fn has_qdisc(&self) -> bool {
        self.tc("qdisc show dev lan1").contains("clsact")
    }
}

/// Two streams, and when they end.
#[derive(Default)]
struct Flow {
    /// Streams that run.
    streams: AtomicUsize,
    stop: AtomicBool,
}

/// What became of a stream of packets.
#[derive(Debug)]
struct Stream {
    sent: usize,
    lost: usize,
    leaked: usize,
}

/// Sends an allowed and a forbidden packet by turns until told to stop; `port` tells them apart.
fn stream(
    from: &Host,
    to: &Host,
    make: impl Fn(u16, &[u8]) -> Vec<u8>,
    port: impl Fn(&[u8]) -> u16 + Sync,
    flow: &Flow,
) -> Stream {
    /// Packets before and after which there is something to see.
    const SOME: u32 = 50;
    let (allowed, forbidden) = (make(ALLOWED, &[0; 4]), make(FORBIDDEN, &[0; 4]));
    let sender = from.sniff("eth0").unwrap();
    let heard = to.sniff("eth0").unwrap();
    let send = |frame: &[u8], number: u32| {
        // Nobody on the way looks at the checksum of UDP.
        let mut frame = frame.to_vec();
        let at = frame.len() - 4;
        frame[at..].copy_from_slice(&number.to_be_bytes());
        sender.send(&frame).unwrap();
    };
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let (done, port, heard) = (&done, &port, &heard);
        let listener = scope.spawn(move || {
            let (mut numbers, mut leaked) = (BTreeSet::new(), 0);
            loop {
                let ended = done.load(Ordering::Relaxed);
                // After the end it is quiet for a while before all has come.
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

fn next(heard: &Sniffer) -> Option<Vec<u8>> {
    heard.next(QUIET)
}

/// Source and destination port of an untagged UDP packet over IPv4; zeros for all else.
fn ports(frame: &[u8]) -> (u16, u16) {
    if frame.len() < 42 || frame[12..14] != [8, 0] || frame[23] != 17 {
        return (0, 0);
    }
    let port = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
    (port(34), port(36))
}

fn index(host: &Host, interface: &str) -> u32 {
    let text = tool(host, "ip", &format!("-o link show dev {interface}"));
    let number = text.split(':').next().unwrap().trim().parse();
    number.unwrap_or_else(|_| panic!("{text}"))
}

/// Runs a program inside a host's namespace, where the machine's BPF file system is seen.
fn tool(host: &Host, program: &str, arguments: &str) -> String {
    let (ok, said) = try_tool(host, program, arguments);
    assert!(ok, "{program} {arguments}: {said}");
    said
}

fn try_tool(host: &Host, program: &str, arguments: &str) -> (bool, String) {
    let mut command = Command::new(program);
    command.args(arguments.split_whitespace());
    let output = host.run(|| command.output()).unwrap().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

/// Every way that a port is guarded: by links, by filters, or by both.
const WAYS: [(Way, &[Hook]); 4] = [
    (Way::Best, &TC),
    (Way::Best, &XDP),
    (Way::Clsact, &TC),
    (Way::Clsact, &XDP),
];

#[test]
fn an_upgrade_in_place_loses_nothing_and_lets_nothing_through() {
    for (way, hooks) in WAYS {
        let bench = Bench::new("upgrade");
        let mut first = bench.datapath();
        bench.attach(&mut first, way, hooks).unwrap();
        bench.assert_judged();
        let before = bench.programs();
        assert_eq!(before.len(), hooks.len(), "{way:?} {hooks:?}: {before:?}");
        let mut next = None;
        bench.under_traffic(|| {
            // The daemon ends, and the next finds what it has left.
            drop(first);
            let next = next.insert(bench.datapath());
            let found = bench.in_router(|| next.attached().unwrap());
            assert_eq!(found, BTreeSet::from([bench.lan1]), "{way:?}");
            // Also when it would choose another way by itself.
            bench.attach(next, Way::Best, hooks).unwrap();
        });
        let on = hooks.iter().copied().collect();
        assert_eq!(bench.attached(&next.unwrap()), on, "{way:?}");
        let by_filter = bench.filters().contains("wardline");
        assert_eq!(by_filter, way == Way::Clsact || !bench.has_tcx());
        // Its own programs judge, all of them and no other.
        let after = bench.programs();
        assert_eq!(after.len(), hooks.len(), "{way:?} {hooks:?}: {after:?}");
        assert!(after.is_disjoint(&before), "{before:?} {after:?}");
        bench.lab.close().unwrap();
    }
}

#[test]
fn detach_takes_everything_off_and_leaves_no_qdisc() {
    for (way, hooks) in WAYS {
        let bench = Bench::new("detach");
        let mut datapath = bench.datapath();
        bench.attach(&mut datapath, way, hooks).unwrap();
        drop(datapath);
        bench.assert_judged();
        let errors = bench.in_router(|| links::detach(&bench.pins));
        assert!(errors.is_empty(), "{errors:?}");
        bench.assert_unjudged();
        assert!(!bench.pins.exists());
        assert_eq!(bench.filters(), "");
        assert!(!bench.has_qdisc());
        // It may be repeated.
        let errors = bench.in_router(|| links::detach(&bench.pins));
        assert!(errors.is_empty(), "{errors:?}");
        bench.lab.close().unwrap();
    }
}

#[test]
fn the_links_of_an_earlier_version_are_taken_over() {
    let bench = Bench::new("version");
    let mut earlier = bench.datapath();
    bench.attach(&mut earlier, Way::Best, &XDP).unwrap();
    drop(earlier);
    // As if the bytes had been others: its own maps, which nobody else reads.
    let versions = fs::read_dir(&bench.pins).unwrap();
    let version = versions.last().unwrap().unwrap().path();
    fs::rename(&version, bench.pins.join("v0")).unwrap();
    let mut later = bench.datapath();
    let found = bench.in_router(|| later.attached().unwrap());
    assert_eq!(found, BTreeSet::from([bench.lan1]));
    let before = bench.programs();
    bench.attach(&mut later, Way::Best, &XDP).unwrap();
    let after = bench.programs();
    assert_eq!(after.len(), XDP.len());
    assert!(after.is_disjoint(&before), "{before:?} {after:?}");
    bench.assert_judged();
    drop(later);
    let errors = bench.in_router(|| links::detach(&bench.pins));
    assert!(errors.is_empty(), "{errors:?}");
    assert!(!bench.pins.exists());
    bench.assert_unjudged();
    bench.lab.close().unwrap();
}

#[test]
fn filters_are_found_without_pins() {
    let bench = Bench::new("lost-pins");
    let mut datapath = bench.datapath();
    bench.attach(&mut datapath, Way::Clsact, &TC).unwrap();
    drop(datapath);
    fs::remove_dir_all(&bench.pins).unwrap();
    bench.assert_judged();
    let mut next = bench.datapath();
    assert_eq!(bench.attached(&next), BTreeSet::from(TC));
    bench.attach(&mut next, Way::Best, &[]).unwrap();
    bench.assert_unjudged();
    assert!(!bench.has_qdisc());
    bench.lab.close().unwrap();
}

#[test]
fn what_others_have_attached_stays() {
    let bench = Bench::new("neighbours");
    let pass = bench.foreign("pass", 0);
    let pass = pass.display();
    bench.tc("qdisc add dev lan1 clsact");
    for side in ["ingress", "egress"] {
        bench.tc(&format!(
            "filter add dev lan1 {side} prio 7 protocol all bpf da object-pinned {pass}"
        ));
    }
    let before = bench.filters();
    let mut datapath = bench.datapath();
    bench.attach(&mut datapath, Way::Clsact, &TC).unwrap();
    // A program that says pass ends the round: ours must be asked before it.
    bench.assert_judged();
    bench.under_traffic(|| {
        let mut next = bench.datapath();
        bench.attach(&mut next, Way::Clsact, &TC).unwrap();
    });
    bench.attach(&mut datapath, Way::Clsact, &[]).unwrap();
    bench.assert_unjudged();
    assert_eq!(bench.filters(), before);

    // A qdisc that somebody else has made stays without a filter too.
    for side in ["ingress", "egress"] {
        bench.tc(&format!("filter del dev lan1 {side} prio 7"));
    }
    bench.attach(&mut datapath, Way::Clsact, &TC).unwrap();
    bench.attach(&mut datapath, Way::Clsact, &[]).unwrap();
    assert!(bench.has_qdisc());

    // One that we have made stays while somebody else's filter is on it.
    bench.tc("qdisc del dev lan1 clsact");
    bench.attach(&mut datapath, Way::Clsact, &TC).unwrap();
    bench.tc(&format!(
        "filter add dev lan1 egress prio 7 protocol all bpf da object-pinned {pass}"
    ));
    bench.attach(&mut datapath, Way::Clsact, &[]).unwrap();
    assert!(bench.has_qdisc());
    assert!(bench.filters().contains("pref 7") && !bench.filters().contains("wardline"));
    bench.lab.close().unwrap();
}

#[test]
fn a_program_that_passes_everything_takes_no_packet_past_ours() {
    let bench = Bench::new("pass-all");
    if !bench.has_tcx() {
        skip("TCX", "a kernel before 6.6");
        return;
    }
    let pass = foreign::load(Kind::Tc, Does::Answers(0), "pass_all").unwrap();
    let again = foreign::load(Kind::Tc, Does::Answers(0), "pass_all").unwrap();
    let _links = bench.in_router(|| {
        [
            pass.link(bench.lan1, foreign::Hook::TcxIngress).unwrap(),
            again.link(bench.lan1, foreign::Hook::TcxEgress).unwrap(),
        ]
    });
    let mut datapath = bench.datapath();
    for hooks in [&TC[..], &XDP] {
        bench.attach(&mut datapath, Way::Best, hooks).unwrap();
        bench.under_traffic(|| {});
    }
    bench.lab.close().unwrap();
}

#[test]
fn nothing_of_a_deleted_interface_counts_as_attached() {
    for (way, hooks) in WAYS {
        let bench = Bench::new("deleted");
        let router = bench.lab.router();
        let mut datapath = bench.datapath();
        bench.attach(&mut datapath, way, hooks).unwrap();
        router.ip("link del lan1").unwrap();
        assert_eq!(bench.attached(&datapath), BTreeSet::new(), "{way:?}");
        // Another interface gets its number.
        let number = bench.lan1;
        router
            .ip(&format!(
                "link add lan1 index {number} type veth peer name eth0 netns {}",
                bench.pump.netns()
            ))
            .unwrap();
        assert_eq!(bench.attached(&datapath), BTreeSet::new(), "{way:?}");
        for (end, name) in [(router, "lan1"), (&bench.pump, "eth0")] {
            end.ip(&format!("link set {name} up")).unwrap();
        }
        for command in [
            "link set eth0 address 02:00:00:00:01:01",
            "address add 10.1.0.11/24 dev eth0",
            "route add default via 10.1.0.1",
        ] {
            bench.pump.ip(command).unwrap();
        }
        router.ip("address add 10.1.0.1/24 dev lan1").unwrap();
        bench.assert_unjudged();
        bench.attach(&mut datapath, way, hooks).unwrap();
        bench.assert_judged();
        // And what is left of it can be taken off.
        router.ip("link del lan1").unwrap();
        bench.attach(&mut datapath, way, &[]).unwrap();
        assert_eq!(
            bench.in_router(|| datapath.attached().unwrap()),
            BTreeSet::new()
        );
        bench.lab.close().unwrap();
    }
}

#[test]
fn what_somebody_takes_off_is_put_on_again() {
    let bench = Bench::new("taken-off");
    let mut datapath = bench.datapath();
    bench.attach(&mut datapath, Way::Clsact, &TC).unwrap();
    bench.tc("qdisc del dev lan1 clsact");
    assert_eq!(bench.attached(&datapath), BTreeSet::new());
    bench.attach(&mut datapath, Way::Clsact, &TC).unwrap();
    bench.assert_judged();
    bench.lab.close().unwrap();
}

#[test]
fn a_filter_in_the_way_is_named() {
    let bench = Bench::new("in-the-way");
    let mut datapath = bench.datapath();
    let mut refused =
        |setting: &str, hooks: &[Hook]| match bench.attach(&mut datapath, Way::Clsact, hooks) {
            Err(AttachError::Taken(why)) => why,
            other => panic!("{setting}: {other:?}"),
        };

    bench.tc("qdisc add dev lan1 ingress");
    let why = refused("a qdisc with one side", &[Hook::TcEgress]);
    assert!(why.contains("ingress"), "{why}");
    assert_eq!(bench.filters(), "");
    bench.tc("qdisc del dev lan1 ingress");

    bench.tc("qdisc add dev lan1 clsact");
    bench.tc("filter add dev lan1 egress prio 1 protocol all u32 match u32 0 0 flowid 1:1");
    let why = refused("a filter of another kind", &TC);
    assert!(why.contains("u32"), "{why}");
    bench.tc("filter del dev lan1 egress prio 1");

    let program = bench.foreign("sitting", 0);
    bench.tc(&format!(
        "filter add dev lan1 egress prio 1 handle 0x776c protocol all bpf da object-pinned {}",
        program.display()
    ));
    let why = refused("a filter with our handle", &TC);
    assert!(
        why.contains("sitting") && why.contains("sched_cls"),
        "{why}"
    );
    // Nothing of ours is left where not all could be attached.
    assert_eq!(bench.attached(&datapath), BTreeSet::new());
    assert!(!bench.filters().contains("wardline"));
    bench.assert_unjudged();

    // A filter of the same priority and kind is none in the way.
    bench.tc("filter del dev lan1 egress prio 1");
    bench.tc(&format!(
        "filter add dev lan1 egress prio 1 handle 1 protocol all bpf da object-pinned {}",
        program.display()
    ));
    bench.attach(&mut datapath, Way::Clsact, &TC).unwrap();
    bench.assert_judged();
    bench.lab.close().unwrap();
}

#[test]
fn a_guard_is_whole_or_what_it_was() {
    let bench = Bench::new("half");
    if !bench.has_tcx() {
        skip("TCX", "a kernel before 6.6");
        return;
    }
    let mut datapath = bench.datapath();
    // As many as the kernel takes on one hook.
    let full: Vec<(Foreign, Foreign)> = bench.in_router(|| {
        std::iter::from_fn(|| {
            let next = foreign::load(Kind::Tc, Does::Answers(-1), "crowd").unwrap();
            let link = next.link(bench.lan1, foreign::Hook::TcxEgress).ok()?;
            Some((next, link))
        })
        .collect()
    });
    for hooks in [&TC[..], &XDP] {
        let error = bench.attach(&mut datapath, Way::Best, hooks).unwrap_err();
        assert!(error.to_string().contains("as many programs"), "{error}");
        assert_eq!(bench.attached(&datapath), BTreeSet::new());
        bench.assert_unjudged();
    }
    drop(full);

    // A guard that can't be changed goes on as it is.
    bench.attach(&mut datapath, Way::Best, &TC).unwrap();
    bench.tc("qdisc add dev lan1 ingress");
    bench.under_traffic(|| {
        let changed = [Hook::Xdp, Hook::TcEgress, Hook::Tags];
        bench
            .attach(&mut datapath, Way::Clsact, &changed)
            .unwrap_err();
    });
    assert_eq!(bench.attached(&datapath), BTreeSet::from(TC));
    bench.lab.close().unwrap();
}

#[test]
fn the_way_of_a_port_changes_under_traffic() {
    let bench = Bench::new("switch");
    let mut datapath = bench.datapath();
    bench.attach(&mut datapath, Way::Best, &TC).unwrap();
    bench.under_traffic(|| {
        for hooks in [&XDP[..], &TC, &XDP] {
            bench.attach(&mut datapath, Way::Best, hooks).unwrap();
            assert_eq!(bench.attached(&datapath), hooks.iter().copied().collect());
        }
    });
    bench.lab.close().unwrap();
}

/// A pump and a neighbour on a bridge, and a program of somebody else that puts the pump's frames
/// into a VLAN, beside the frame. Gives how many frames of so many the neighbour hears.
fn tagged_frames(bench: &Bench, tag: u16, frames: usize) -> usize {
    let tags = foreign::load(Kind::Tc, Does::Tags(tag), "tags").unwrap();
    let eth0 = index(&bench.pump, "eth0");
    let link = bench.pump.run(|| tags.link(eth0, foreign::Hook::TcxEgress));
    let _link = link.unwrap().unwrap();
    let heard = bench.far.sniff("eth0").unwrap();
    let payload = tag.to_be_bytes();
    let udp = Udp::new(OWN_PORT, ALLOWED, payload.to_vec());
    let frame = Ethernet::new(BROADCAST, PUMP_MAC, Ipv4::new(PUMP, FAR, udp)).bytes();
    for _ in 0..frames {
        bench.pump.send_frame("eth0", &frame).unwrap();
    }
    let ours = |frame: &[u8]| frame.ends_with(&payload) && frame[6..12] == PUMP_MAC;
    let mut count = 0;
    while count < frames && heard.wait_for(QUIET, ours).is_some() {
        count += 1;
    }
    count
}

#[test]
fn a_tag_that_xdp_cannot_see_is_dropped() {
    for way in [Way::Best, Way::Clsact] {
        let bench = Bench::new("tags");
        if !bench.has_tcx() {
            skip("TCX", "a kernel before 6.6");
            return;
        }
        let router = bench.lab.router();
        bench.lab.bridge(router, "br0", &[]).unwrap();
        router.ip("link set uplink master br0").unwrap();
        router.ip("link set lan1 master br0").unwrap();
        let mut datapath = bench.datapath();
        // XDP alone takes the frame for untagged, and the bridge carries it into VLAN 20.
        bench.attach(&mut datapath, way, &[Hook::Xdp]).unwrap();
        assert_eq!(tagged_frames(&bench, 20, 5), 5, "{way:?}");

        bench
            .attach(&mut datapath, way, &[Hook::Tags, Hook::Xdp])
            .unwrap();
        let before = datapath.reader().reasons().unwrap()[&Reason::WrongVlan].packets;
        assert_eq!(tagged_frames(&bench, 21, 5), 0, "{way:?}");
        let after = datapath.reader().reasons().unwrap()[&Reason::WrongVlan].packets;
        assert_eq!(after - before, 5, "{way:?}");
        // A priority is no VLAN.
        assert_eq!(tagged_frames(&bench, 5 << 13, 5), 5, "{way:?}");
        bench.lab.close().unwrap();
    }
}

/// A router with `lan1` and a daemon; no hosts.
fn with_daemon(name: &str, work: impl FnOnce(&Lab, &Daemon, &Ctl)) {
    let lab = Lab::new(name).unwrap();
    lab.router()
        .ip("link add lan1 type veth peer name far1")
        .unwrap();
    let (daemon, ctl) = spine::start(&lab);
    work(&lab, &daemon, &ctl);
    drop(daemon);
    lab.close().unwrap();
}

/// A policy with one port.
fn port(interface: &str, settings: &str) -> String {
    format!(
        "version: 1\nzones: [{{name: a, subnets: [10.1.0.0/24]}}, {{name: b, subnets: \
         [10.2.0.0/24]}}]\nports: [{{interface: {interface}, zone: a{settings}}}]\n"
    )
}

/// How the only port is attached, and why.
fn only_port(ctl: &Ctl) -> (String, String) {
    let status = ctl.json(&["status"]).unwrap();
    let port = &status["ports"][0];
    let text = |field: &str| port[field].as_str().unwrap_or_default().to_owned();
    (text("attached"), text("reason"))
}

const VLANS: &str = ", vlans: [{id: 20, zone: b}]";

#[test]
fn whose_xdp_program_is_in_the_way_is_said() {
    with_daemon("taken", |lab, _, ctl| {
        let router = lab.router();
        let program = foreign::load(Kind::Xdp, Does::Answers(2), "their_filter").unwrap();
        let id = program.id().unwrap();
        let lan1 = index(router, "lan1");
        let link = router.run(|| program.link(lan1, foreign::Hook::Xdp));
        let link = link.unwrap().unwrap();
        for attach in ["auto", "xdp"] {
            let document = port("lan1", &format!(", attach: {attach}"));
            let answer = ctl.apply(&document).unwrap();
            assert_eq!(answer.code, 0, "{answer:?}");
            let (attached, reason) = only_port(ctl);
            assert_eq!(attached, "none", "{reason}");
            for part in [
                &format!("id {id},"),
                "\"their_filter\"",
                "xdp",
                "attach: tc",
            ] {
                assert!(reason.contains(part), "{part}: {reason}");
                assert!(answer.stderr.contains(part), "{part}: {answer:?}");
            }
            let warned = answer
                .stderr
                .lines()
                .any(|line| line.starts_with("warning: "));
            assert!(warned, "{answer:?}");
            // Not half of it either.
            let details = tool(router, "ip", "-details link show dev lan1");
            assert!(!details.contains("xdp_ingress"), "{details}");
        }
        // Who asks for TC is judged behind it.
        ctl.apply(&port("lan1", ", attach: tc"))
            .unwrap()
            .ok()
            .unwrap();
        assert_eq!(only_port(ctl).0, "tc");
        // And goes on being judged, though XDP would be the choice.
        ctl.apply(&port("lan1", "")).unwrap().ok().unwrap();
        let (attached, reason) = only_port(ctl);
        assert_eq!(attached, "tc", "{reason}");
        assert!(reason.contains("their_filter"), "{reason}");
        // When it is gone, the next look finds the hook free.
        drop((link, program));
        router
            .ip("link add other type veth peer name other1")
            .unwrap();
        let free = eventually(PATIENCE, || only_port(ctl).0 == "xdp");
        assert!(free, "{:?}", only_port(ctl));
    });
}

#[test]
fn xdp_above_or_generic_is_said_with_its_cure() {
    with_daemon("above", |lab, _, ctl| {
        let router = lab.router();
        router.ip("link add br0 type bridge").unwrap();
        router.ip("link set lan1 master br0").unwrap();
        let directory = format!("/sys/fs/bpf/wardline-{}-foreign", lab.id());
        fs::create_dir_all(&directory).unwrap();
        let pin = Path::new(&directory).join("watch");
        let program = foreign::load(Kind::Xdp, Does::Answers(2), "watch").unwrap();
        program.pin(&pin).unwrap();
        let set = format!("link set dev br0 xdpgeneric pinned {}", pin.display());
        tool(router, "ip", &set);
        for (attach, expected) in [("auto", "tc"), ("xdp", "none")] {
            let document = port("lan1", &format!(", attach: {attach}"));
            ctl.apply(&document).unwrap().ok().unwrap();
            let (attached, reason) = only_port(ctl);
            assert_eq!(attached, expected, "{reason}");
            for part in ["br0", "\"watch\"", "ip link set dev br0 xdp off"] {
                assert!(reason.contains(part), "{part}: {reason}");
            }
        }
        tool(router, "ip", "link set dev br0 xdp off");

        let set = format!("link set dev lan1 xdpgeneric pinned {}", pin.display());
        tool(router, "ip", &set);
        for (attach, expected) in [("auto", "tc"), ("xdp", "none")] {
            let document = port("lan1", &format!(", attach: {attach}"));
            ctl.apply(&document).unwrap().ok().unwrap();
            let (attached, reason) = only_port(ctl);
            assert_eq!(attached, expected, "{reason}");
            for part in [
                "generic",
                "\"watch\"",
                "ip link set dev lan1 xdpgeneric off",
            ] {
                assert!(reason.contains(part), "{part}: {reason}");
            }
        }
        tool(router, "ip", "link set dev lan1 xdpgeneric off");
        // The cure helps.
        ctl.apply(&port("lan1", "")).unwrap().ok().unwrap();
        assert_eq!(only_port(ctl), ("xdp".to_owned(), String::new()));
    });
}

#[test]
fn why_there_is_no_xdp_is_said() {
    with_daemon("no-xdp", |lab, _, ctl| {
        let router = lab.router();
        router.ip("link add br0 type bridge").unwrap();
        ctl.apply(&port("br0", "")).unwrap().ok().unwrap();
        let expected = "no XDP: its driver has no XDP".to_owned();
        assert_eq!(only_port(ctl), ("tc".to_owned(), expected));
        for end in ["lan1", "far1"] {
            router.ip(&format!("link set {end} mtu 9000")).unwrap();
        }
        ctl.apply(&port("lan1", "")).unwrap().ok().unwrap();
        let expected = "no XDP: its MTU is too large for XDP".to_owned();
        assert_eq!(only_port(ctl), ("tc".to_owned(), expected));
        ctl.apply(&port("lan1", ", attach: tc"))
            .unwrap()
            .ok()
            .unwrap();
        assert_eq!(only_port(ctl), ("tc".to_owned(), "asked for".to_owned()));
    });
}

#[test]
fn a_port_with_vlans_has_xdp_only_where_tags_are_seen() {
    with_daemon("vlans", |lab, _, ctl| {
        ctl.apply(&port("lan1", VLANS)).unwrap().ok().unwrap();
        let (attached, reason) = only_port(ctl);
        assert_eq!(attached, "tc");
        assert!(
            reason.contains("veth") && reason.contains("outside the frame"),
            "{reason}"
        );
        let asked = format!("{VLANS}, attach: xdp");
        ctl.apply(&port("lan1", &asked)).unwrap().ok().unwrap();
        let (attached, reason) = only_port(ctl);
        assert_eq!(attached, "none");
        assert!(reason.contains("outside the frame"), "{reason}");

        let Ok(mut tap) = tap(lab.router(), "tap1") else {
            skip("tap device", "no /dev/net/tun");
            return;
        };
        ctl.apply(&port("tap1", &asked)).unwrap().ok().unwrap();
        assert_eq!(only_port(ctl), ("xdp".to_owned(), "asked for".to_owned()));
        // The tag is in the frame: of VLAN 20, and of one that the port has not.
        for (tag, reason) in [(20, "unknown_device"), (21, "wrong_vlan")] {
            let udp = Udp::new(OWN_PORT, ALLOWED, *b"tagged");
            let frame = Ethernet::new(BROADCAST, PUMP_MAC, Ipv4::new(PUMP, FAR, udp)).tagged(tag);
            tap.write_all(&frame.bytes()).unwrap();
            let told = eventually(PATIENCE, || {
                ctl.events().unwrap().iter().any(|event| {
                    event["interface"] == "tap1"
                        && event["vlan"] == tag
                        && event["reason"] == reason
                })
            });
            assert!(told, "{reason}: {:#?}", ctl.events());
        }
    });
}

#[test]
fn an_unseen_tag_makes_an_event_like_others() {
    let bench = Bench::new("tag-event");
    if !bench.has_tcx() {
        skip("TCX", "a kernel before 6.6");
        return;
    }
    let (daemon, ctl) = spine::start(&bench.lab);
    ctl.apply(POLICY).unwrap().ok().unwrap();
    assert_eq!(only_port(&ctl), ("xdp".to_owned(), String::new()));
    bench.assert_judged();
    let told = eventually(PATIENCE, || {
        assert_eq!(tagged_frames(&bench, 20, 1), 0);
        ctl.events().unwrap().iter().any(|event| {
            event["reason"] == "wrong_vlan"
                && event["device"] == "pump"
                && event["verdict"] == "drop"
                && event["vlan"] == 20
                && event["interface"] == "lan1"
                && event["source"]
                    .as_str()
                    .is_some_and(|source| source.contains("10.1.0.11"))
        })
    });
    assert!(told, "{:#?}", ctl.events());
    // What fails by form is the sender's too, though nobody had to know it.
    let nonsense = Tcp::new(OWN_PORT, ALLOWED, SYN | FIN);
    let frame = Ethernet::new(BROADCAST, PUMP_MAC, Ipv4::new(PUMP, FAR, nonsense));
    bench.pump.send_frame("eth0", &frame.bytes()).unwrap();
    let told = eventually(PATIENCE, || {
        ctl.events().unwrap().iter().any(|event| {
            event["reason"] == "bad_tcp_flags"
                && event["device"] == "pump"
                && event["zone"] == "pumps"
        })
    });
    assert!(told, "{:#?}", ctl.events());
    drop(daemon);
    bench.lab.close().unwrap();
}

#[test]
fn a_port_that_is_none_any_more_is_let_go() {
    with_daemon("let-go", |lab, daemon, ctl| {
        for settings in ["", ", attach: tc"] {
            ctl.apply(&port("lan1", settings)).unwrap().ok().unwrap();
            assert_ne!(only_port(ctl).0, "none");
            let pins = || {
                let versions = fs::read_dir(daemon.pins()).unwrap().flatten();
                let links = versions.map(|version| version.path().join("links"));
                links.flat_map(|links| fs::read_dir(links).unwrap()).count()
            };
            assert!(pins() > 0);
            ctl.apply(&port("lan9", settings)).unwrap().ok().unwrap();
            assert_eq!(pins(), 0);
            let details = tool(lab.router(), "ip", "-details link show dev lan1");
            assert!(!details.contains("prog/"), "{details}");
        }
    });
}

/// A tap device of a host, up; frames that are written enter through it. Gone when dropped.
fn tap(host: &Host, name: &str) -> std::io::Result<File> {
    let file = host.run(|| foreign::tap(name)).unwrap()?;
    host.ip(&format!("link set {name} up")).unwrap();
    Ok(file)
}
