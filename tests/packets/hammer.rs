//! Is each packet judged by one revision, while revisions change as fast as they can?
//!
//! Two policies take turns. They are one policy with names swapped: what is called `red` in one is
//! `blue` in the other, and the same for devices and rules. So each alone gives every packet the
//! same verdict. If numbers of one were looked up in tables of the other, a packet would get
//! another: zones, devices and networks that fit in neither, a deny that is for the other zone.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    net::Ipv4Addr,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use wardline_datapath::{Datapath, Hook};
use wardline_ebpf::abi::Reason;
use wardline_host_tests::judge::{Compiled, limits, parsed};
use wardline_oracle::frames::{ACK, BROADCAST, Ethernet, Ipv4, Mac, Packet, SYN, Tcp};
use wardline_policy::limits::Limits;
use wardline_tests::{Lab, processors, stay_on};

use super::judge;

const VERDICTS: u64 = 10_000_000;
const TURNS: u64 = 200;
/// Far more than it takes on an idle machine.
const BOUND: Duration = Duration::from_secs(300);

const ROUTER: Mac = [2, 0, 0, 0, 0xff, 1];
const STRANGER: Mac = [2, 0, 0, 0, 0xee, 1];
/// A device of the zone that is red, then blue; and one of the zone that is blue, then red.
const ONE: (Mac, Ipv4Addr) = ([2, 0, 0, 0, 1, 1], Ipv4Addr::new(10, 1, 0, 1));
const TWO: (Mac, Ipv4Addr) = ([2, 0, 0, 0, 2, 1], Ipv4Addr::new(10, 2, 0, 1));
/// Another of each, with a flow that goes on.
const THREE: (Mac, Ipv4Addr) = ([2, 0, 0, 0, 1, 2], Ipv4Addr::new(10, 1, 0, 2));
const FOUR: (Mac, Ipv4Addr) = ([2, 0, 0, 0, 2, 2], Ipv4Addr::new(10, 2, 0, 2));
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 9);

/// The policy with the names of a turn.
///
/// Every device may have one flow, and has it, idle. So a packet that policy allows is dropped for
/// `device_quota`, each time after a full lookup of the policy, and opens no flow that would
/// short-cut the next.
fn policy(turn: usize) -> String {
    let names = |pair: [&'static str; 2]| [pair[turn], pair[1 - turn]];
    let [a, b] = names(["red", "blue"]);
    let [open, closed] = names(["green", "yellow"]);
    let [one, two] = names(["first", "second"]);
    let [three, four] = names(["third", "fourth"]);
    let mut text = format!(
        r#"
version: 1
zones:
  - {{name: {a}, subnets: [10.1.0.0/16], ip_options: allow, ethertypes: [0x8892]}}
  - {{name: {b}, subnets: [10.2.0.0/16]}}
  - {{name: {open}, subnets: [10.3.0.0/16], admit: any}}
  - {{name: {closed}, subnets: [10.4.0.0/16]}}
  - {{name: servers, subnets: [10.9.0.0/16]}}
ports:
  - {{interface: lan1, zone: {a}, vlans: [{{id: 20, zone: {b}}}]}}
  - {{interface: lan2, zone: {b}, vlans: [{{id: 20, zone: {a}}}]}}
  - {{interface: lan3, zone: {open}}}
  - {{interface: lan4, zone: {closed}}}
devices:
  - {{name: {one}, zone: {a}, macs: ["02:00:00:00:01:01"], addresses: [10.1.0.1]}}
  - {{name: {two}, zone: {b}, macs: ["02:00:00:00:02:01"], addresses: [10.2.0.1]}}
  - {{name: {three}, zone: {a}, macs: ["02:00:00:00:01:02"], addresses: [10.1.0.2]}}
  - {{name: {four}, zone: {b}, macs: ["02:00:00:00:02:02"], addresses: [10.2.0.2]}}
  - {{name: server, zone: servers, addresses: [10.9.0.9]}}
rules:
"#
    );
    let mut rule = |name: &str, from: &str, to: &str, port: u16, action: &str| {
        let whose = if from.ends_with(a) || from.ends_with(one) || to.ends_with(a) {
            ["x", "y"][turn]
        } else {
            ["y", "x"][turn]
        };
        writeln!(
            text,
            "  - {{name: {name}-{whose}, from: [\"{from}\"], to: [\"{to}\"], \
             services: [tcp/{port}], action: {action}}}"
        )
        .unwrap();
    };
    let (zone_a, zone_b) = (format!("zone:{a}"), format!("zone:{b}"));
    // What the other zone is denied or allowed.
    rule("denied", &zone_b, "zone:servers", 1000, "deny");
    rule("mine", &zone_a, "zone:servers", 1000, "allow");
    rule("theirs", &zone_b, "zone:servers", 2000, "allow");
    rule("flow", &zone_a, "zone:servers", 2500, "allow");
    rule("flow", &zone_b, "zone:servers", 2500, "allow");
    rule(
        "device",
        &format!("device:{one}"),
        "device:server",
        3000,
        "allow",
    );
    rule("region", &zone_a, "cidr:10.9.1.0/24", 4000, "allow");
    rule("other-region", &zone_b, "cidr:10.9.2.0/24", 4000, "allow");
    rule(
        "closed",
        &format!("zone:{closed}"),
        "zone:servers",
        5000,
        "allow",
    );
    rule("to-mine", "device:server", &zone_a, 6000, "allow");
    rule("denied-to", "device:server", &zone_b, 6000, "deny");
    rule("to-theirs", "device:server", &zone_b, 7000, "allow");
    text
}

/// A packet and the verdict that both policies give it.
struct Blow {
    name: &'static str,
    hooks: &'static [Hook],
    ifindex: u32,
    from: u32,
    frame: Vec<u8>,
    reason: Reason,
}

const ENTERS: &[Hook] = &[Hook::Xdp, Hook::TcIngress];
const LEAVES: &[Hook] = &[Hook::TcEgress];

#[rustfmt::skip]
fn blows(compiled: &Compiled) -> Vec<Blow> {
    let syn = |from: Ipv4Addr, to: Ipv4Addr, port| Ipv4::new(from, to, Tcp::new(40_000, port, SYN));
    let from = |(mac, address): (Mac, Ipv4Addr), port| Ethernet::new(ROUTER, mac, syn(address, SERVER, port));
    let to = |(mac, address): (Mac, Ipv4Addr), port| Ethernet::new(mac, ROUTER, syn(SERVER, address, port));
    let region = |(mac, address): (Mac, Ipv4Addr), third| Ethernet::new(ROUTER, mac, syn(address, Ipv4Addr::new(10, 9, third, 1), 4000));
    let goes_on = |(mac, address): (Mac, Ipv4Addr)| Ethernet::new(ROUTER, mac, Ipv4::new(address, SERVER, Tcp::new(41_000, 2500, ACK)));
    let options = |(mac, address): (Mac, Ipv4Addr)| Ethernet::new(ROUTER, mac, Ipv4 { options: vec![1; 4], ..syn(address, SERVER, 2500) });
    let profinet = |(mac, _): (Mac, Ipv4Addr)| Ethernet::new(BROADCAST, mac, Packet::Bytes(0x8892, vec![0; 46]));
    let stranger = |address: [u8; 4], port| Ethernet::new(ROUTER, STRANGER, syn(address.into(), SERVER, port));
    let uplink = compiled.ifindex("uplink");
    let blow = |name, port: &str, frame: Ethernet, reason| Blow {
        name, hooks: ENTERS, ifindex: compiled.ifindex(port), from: 0, frame: frame.bytes(), reason,
    };
    let leaves = |name, port: &str, frame: Ethernet, reason| Blow {
        hooks: LEAVES, from: uplink, ..blow(name, port, frame, reason)
    };
    use Reason::{Control, DeviceQuota, DeniedByRule, Established, IpOptions, NoRule, SpoofedSource, UnknownDevice, UnknownEthertype, WrongVlan};
    vec![
        blow("allowed, and denied to the other zone", "lan1", from(ONE, 1000), DeviceQuota),
        blow("denied, and allowed to the other zone", "lan2", from(TWO, 1000), DeniedByRule),
        blow("allowed to the other zone only", "lan1", from(ONE, 2000), NoRule),
        blow("allowed to this zone only", "lan2", from(TWO, 2000), DeviceQuota),
        blow("of a flow", "lan1", goes_on(THREE), Established),
        blow("of the other zone's flow", "lan2", goes_on(FOUR), Established),
        blow("a rule for the device", "lan1", from(ONE, 3000), DeviceQuota),
        blow("a rule for the other device", "lan2", from(TWO, 3000), NoRule),
        blow("a rule for this region", "lan1", region(ONE, 1), DeviceQuota),
        blow("a rule for the other region", "lan1", region(ONE, 2), NoRule),
        blow("the other's region", "lan2", region(TWO, 2), DeviceQuota),
        blow("not the other's region", "lan2", region(TWO, 1), NoRule),
        blow("the other device's address", "lan1", Ethernet::new(ROUTER, ONE.0, syn(TWO.1, SERVER, 2500)), SpoofedSource),
        blow("the other zone's VLAN", "lan1", from(ONE, 1000).tagged(20), WrongVlan),
        blow("the other on its VLAN", "lan1", from(TWO, 2000).tagged(20), DeviceQuota),
        blow("on the other zone's port", "lan2", from(ONE, 1000), WrongVlan),
        blow("on its VLAN", "lan2", from(ONE, 1000).tagged(20), DeviceQuota),
        blow("options where they may be", "lan1", options(ONE), DeviceQuota),
        blow("options where they may not", "lan2", options(TWO), IpOptions),
        blow("a protocol of the zone", "lan1", profinet(ONE), Control),
        blow("a protocol of the other zone", "lan2", profinet(TWO), UnknownEthertype),
        blow("a stranger where any may be", "lan3", stranger([10, 3, 7, 7], 5000), NoRule),
        blow("a stranger with the other zone's address", "lan3", stranger([10, 4, 7, 7], 5000), SpoofedSource),
        blow("a stranger where it may not", "lan4", stranger([10, 4, 7, 7], 5000), UnknownDevice),
        leaves("to it, and denied to the other zone", "lan1", to(ONE, 6000), DeviceQuota),
        leaves("denied, and allowed to the other zone", "lan2", to(TWO, 6000), DeniedByRule),
        leaves("to the other zone only", "lan1", to(ONE, 7000), NoRule),
        leaves("to this zone only", "lan2", to(TWO, 7000), DeviceQuota),
    ]
}

/// Gives every device the one flow that it may have, answered.
fn fill_quotas(compiled: &Compiled, datapath: &mut Datapath) {
    let uplink = compiled.ifindex("uplink");
    let mut run = |hook, port, from, frame: Ethernet| {
        let ifindex = compiled.ifindex(port);
        assert!(datapath.run(hook, ifindex, from, &frame.bytes()).unwrap());
    };
    for (port, (mac, address)) in [
        ("lan1", ONE),
        ("lan2", TWO),
        ("lan1", THREE),
        ("lan2", FOUR),
    ] {
        let there = |flags| {
            let packet = Ipv4::new(address, SERVER, Tcp::new(41_000, 2500, flags));
            Ethernet::new(ROUTER, mac, packet)
        };
        let back = Ipv4::new(SERVER, address, Tcp::new(2500, 41_000, SYN | ACK));
        run(Hook::Xdp, port, 0, there(SYN));
        run(
            Hook::TcEgress,
            port,
            uplink,
            Ethernet::new(mac, ROUTER, back),
        );
        run(Hook::Xdp, port, 0, there(ACK));
    }
    let asks = |flags| {
        Ethernet::new(
            ONE.0,
            ROUTER,
            Ipv4::new(SERVER, ONE.1, Tcp::new(41_001, 6000, flags)),
        )
    };
    let answers = Ipv4::new(ONE.1, SERVER, Tcp::new(6000, 41_001, SYN | ACK));
    run(Hook::TcEgress, "lan1", uplink, asks(SYN));
    run(Hook::Xdp, "lan1", 0, Ethernet::new(ROUTER, ONE.0, answers));
    run(Hook::TcEgress, "lan1", uplink, asks(ACK));
}

/// Times that a frame is judged with one call. Not too often: a change of revision waits for it.
fn times(hook: Hook) -> u32 {
    match hook {
        // Around each run of XDP, the kernel takes longer than the program itself.
        Hook::Xdp => 1000,
        Hook::TcIngress | Hook::TcEgress | Hook::Tags => 4000,
    }
}

/// Verdicts that neither policy gives, and how often each was seen.
type Mixtures = Mutex<BTreeMap<(&'static str, String), u64>>;

/// Judges every packet again and again until it is told to stop.
fn hammer(
    datapath: &mut Datapath,
    processor: usize,
    blows: &[Blow],
    stop: &AtomicBool,
    verdicts: &AtomicU64,
    mixtures: &Mixtures,
) {
    stay_on(processor).unwrap();
    // Nothing else runs these programs on this processor, so its counters move for this packet
    // alone.
    let mut before = datapath.reader().reasons_on(processor).unwrap();
    while !stop.load(Ordering::Relaxed) {
        for blow in blows {
            for hook in blow.hooks {
                let times = times(*hook);
                datapath
                    .run_often(*hook, blow.ifindex, blow.from, &blow.frame, times)
                    .unwrap();
                let after = datapath.reader().reasons_on(processor).unwrap();
                let moved: BTreeMap<Reason, u64> = after
                    .iter()
                    .map(|(reason, packets)| (*reason, packets - before[reason]))
                    .filter(|(_, packets)| *packets != 0)
                    .collect();
                let counted: u64 = moved.values().sum();
                verdicts.fetch_add(counted, Ordering::Relaxed);
                if moved != BTreeMap::from([(blow.reason, u64::from(times))]) {
                    let told = format!("{hook:?}: {moved:?}, not {:?}", blow.reason);
                    let mut mixtures = mixtures.lock().unwrap();
                    *mixtures.entry((blow.name, told)).or_default() += 1;
                }
                before = after;
            }
        }
    }
}

#[test]
fn no_packet_is_judged_by_a_mixture() {
    let lab = Lab::new("hammer").unwrap();
    let router = lab.router().clone();
    for interface in ["lan1", "lan2", "lan3", "lan4", "uplink"] {
        router
            .ip(&format!(
                "link add {interface} type veth peer name {interface}-far"
            ))
            .unwrap();
    }
    // Each processor has programs of its own, on maps that all of them share.
    let pins = format!("/sys/fs/bpf/wardline-{}-hammer", lab.id());
    let limits = Limits {
        flows_per_device: 1,
        // One of the packets is control, and comes more often than that.
        control: u32::MAX,
        learned_per_device: 16,
        learned_per_port: 1024,
        ..limits()
    };
    let open = || Datapath::open(Some(Path::new(&pins)), &limits, &judge::timeouts()).unwrap();
    router
        .run(|| {
            let mut datapath = open();
            let inventory = judge::observed(&[]);
            let clock = datapath.reader().clock().unwrap();
            let policies = [0, 1].map(|turn| parsed(&policy(turn)));
            let first = Compiled::new(&policies[0], &inventory, clock);
            let second = first.next(&policies[1]);
            let first = second.next(&policies[0]);
            let blows = blows(&first);

            // Each policy alone gives the expected verdicts.
            for (revision, compiled) in [(1, &first), (2, &second)] {
                datapath.put(revision, &compiled.tables).unwrap();
                if revision == 1 {
                    fill_quotas(compiled, &mut datapath);
                }
                for blow in &blows {
                    for hook in blow.hooks {
                        let before = datapath.reader().reasons().unwrap();
                        datapath
                            .run(*hook, blow.ifindex, blow.from, &blow.frame)
                            .unwrap();
                        let after = datapath.reader().reasons().unwrap();
                        let moved: Vec<Reason> = Reason::ALL
                            .into_iter()
                            .filter(|reason| after[reason].packets != before[reason].packets)
                            .collect();
                        assert_eq!(moved, [blow.reason], "{revision}: {}, {hook:?}", blow.name);
                    }
                }
            }

            let (stop, verdicts, mixtures) = (
                AtomicBool::new(false),
                AtomicU64::new(0),
                Mixtures::default(),
            );
            let mut hammers: Vec<(usize, Datapath)> = processors()
                .unwrap()
                .into_iter()
                .take(2)
                .map(|processor| (processor, open()))
                .collect();
            let start = Instant::now();
            let mut turns = 0;
            thread::scope(|scope| {
                let _over = wardline_tests::AtTheEnd(&stop);
                for (processor, own) in &mut hammers {
                    let (blows, stop) = (&blows, &stop);
                    let (verdicts, mixtures) = (&verdicts, &mixtures);
                    scope.spawn(move || hammer(own, *processor, blows, stop, verdicts, mixtures));
                }
                while start.elapsed() < BOUND
                    && (turns < TURNS || verdicts.load(Ordering::Relaxed) < VERDICTS)
                {
                    turns += 1;
                    // Each twice: a slot that has the policy already would not be written.
                    let next = if turns / 2 % 2 == 0 { &second } else { &first };
                    datapath.put(2 + turns, &next.tables).unwrap();
                }
                stop.store(true, Ordering::Relaxed);
            });
            let verdicts = verdicts.into_inner();
            println!(
                "{verdicts} verdicts on {} processors during {turns} changes in {:?}",
                hammers.len(),
                start.elapsed()
            );
            let mixtures = mixtures.into_inner().unwrap();
            assert!(mixtures.is_empty(), "{mixtures:#?}");
            assert!(
                verdicts >= VERDICTS && turns >= TURNS,
                "only {verdicts} verdicts and {turns} changes in {BOUND:?}"
            );
        })
        .unwrap();
    lab.close().unwrap();
}
