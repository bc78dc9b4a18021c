//! Random policies and whole frames, one after the other: the oracle, `decide` on the host and the
//! programs in the kernel say the same, each with its own memory.
//!
//! Everything about a policy and its frames comes from one seed, and the seeds of a run follow each
//! other: what a mismatch says is repeated by `cargo xtask fuzz --seed N --cases 1`. A mismatch is
//! shrunk and written below `target/fuzz/`.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    fmt::Write as _,
    fs,
    net::IpAddr,
    num::NonZero,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use proptest::{
    strategy::{Strategy as _, ValueTree as _},
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use wardline_controller::{
    compile::Clock,
    config::Limits,
    datapath::{Datapath, Hook},
    failsafe::Failsafe,
    inventory::Inventory,
};
use wardline_ebpf::abi::{self, Counter, Settings};
use wardline_proto::{
    document,
    v1::{Policy, Reason},
};
use wardline_tests::Lab;

use crate::{
    dissect::{self, Content, Upper},
    judges::{self, At, Compiled, Said},
    oracle::is_group,
    random::{self, NOW, ROUTER},
    sequence::{From, Must, Sequence, Where},
    streams::{self, Dice, Step},
};

const INTERFACES: [&str; 5] = ["lan1", "lan2", "lan3", "wifi1", "uplink"];
/// Frames for one policy.
const FRAMES: usize = 300;
/// Cases of a run that nobody asked more of.
const CASES: usize = 20_000;

/// A policy and what goes through its router.
#[derive(Clone)]
pub(crate) struct Case {
    seed: u64,
    policy: Policy,
    /// Devices that are cut off.
    quarantined: BTreeSet<String>,
    /// Prefixes that may always reach the router, each with what for.
    failsafe: Vec<(String, String)>,
    steps: Vec<Step>,
    /// What judges frames that enter; none: the kernel can't be shown these frames.
    hook: Option<Hook>,
}

/// The judges disagree.
#[derive(Clone, Debug)]
pub(crate) struct Mismatch {
    /// The step.
    at: usize,
    /// What kind of disagreement it is: those of one kind have one cause, mostly.
    kind: String,
    pub(crate) text: String,
}

/// How a run went.
#[derive(Default)]
pub(crate) struct Tally {
    cases: usize,
    policies: usize,
    verdicts: BTreeMap<Reason, usize>,
    /// Frames that are known to be judged in two ways.
    excluded: BTreeMap<&'static str, usize>,
    mismatches: BTreeMap<String, usize>,
}

/// What must agree with the oracle.
pub(crate) struct Bench {
    router: Vec<IpAddr>,
    inventory: Inventory,
    clock: Clock,
    kernel: Option<Kernel>,
}

struct Kernel {
    datapath: Datapath,
    /// What the counters said last.
    counted: BTreeMap<abi::Reason, Counter>,
}

impl Case {
    fn of(seed: u64, frames: usize) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        let mut runner = TestRunner::new_with_rng(Config::default(), rng);
        let tree = random::policy().new_tree(&mut runner);
        let policy = tree.expect("a policy").current();
        let tags_outside = seed % 16 == 7;
        let hooks = [Hook::Xdp, Hook::TcIngress];
        let steps = streams::steps(&policy, seed, frames, tags_outside);
        let mut dice = Dice::new(!seed);
        let quarantined = policy.devices.iter().filter(|_| dice.percent(4));
        // One policy in four is for a router that has a failsafe.
        let mut other = Dice::new(seed ^ 0xfa11_5afe);
        let pairs = [
            ("0.0.0.0/0", "tcp/22"),
            ("::/0", "icmpv6/128"),
            ("10.1.0.0/16", "icmp/8"),
            ("10.1.0.0/16", "tcp/*"),
            ("fd00::/8", "udp/1000-6000"),
            ("::/0", "tcp/443"),
        ];
        let spares = other.percent(25);
        let failsafe = pairs.into_iter().filter(|_| spares && other.percent(50));
        let failsafe = failsafe.map(|(from, service)| (from.to_owned(), service.to_owned()));
        Self {
            seed,
            failsafe: failsafe.collect(),
            quarantined: quarantined.map(|device| device.name.clone()).collect(),
            policy,
            steps,
            hook: (!tags_outside).then_some(hooks[(seed % 2) as usize]),
        }
    }
}

impl Case {
    /// A case that nobody has drawn.
    pub(crate) fn written(policy: Policy, steps: Vec<Step>, hook: Hook) -> Self {
        Self {
            seed: 0,
            policy,
            quarantined: BTreeSet::new(),
            failsafe: Vec::new(),
            steps,
            hook: Some(hook),
        }
    }

    /// The same with one pair of the router's failsafe.
    pub(crate) fn sparing(self, from: &str, service: &str) -> Self {
        Self {
            failsafe: vec![(from.to_owned(), service.to_owned())],
            ..self
        }
    }
}

impl Bench {
    /// A bench without a kernel.
    fn host() -> Self {
        Self {
            router: ROUTER.to_vec(),
            inventory: judges::inventory(&INTERFACES, &ROUTER),
            clock: judges::clock(NOW),
            kernel: None,
        }
    }

    /// A bench in a namespace that has the interfaces.
    pub(crate) fn with_kernel(router: &[IpAddr]) -> Self {
        let limits = Limits {
            devices: 256,
            flows: 4096,
            flows_per_device: 4096,
            rules: 256,
        };
        let mut datapath = judges::datapath_of(&limits);
        let clock = Clock {
            now: NOW,
            ..datapath.clock().unwrap()
        };
        Self {
            router: router.to_vec(),
            inventory: judges::observed(router),
            clock,
            kernel: Some(Kernel {
                datapath,
                counted: BTreeMap::new(),
            }),
        }
    }

    /// An oracle without a past.
    pub(crate) fn oracle<'a>(&self, policy: &'a Policy) -> Sequence<'a> {
        Sequence::new(policy, &self.router, &BTreeSet::new(), NOW)
    }

    /// Judges the frames of a case.
    pub(crate) fn run(&mut self, case: &Case, tally: &mut Tally) -> Result<(), Box<Mismatch>> {
        let quarantined = &case.quarantined;
        let policy = self.kernel.as_ref().map(|_| ends_far_away(&case.policy));
        let policy = policy.as_ref().unwrap_or(&case.policy);
        let compiled = Compiled::of_valid(policy, quarantined, &self.inventory, self.clock);
        let Some(compiled) = compiled else {
            // A simpler policy that is none.
            return Ok(());
        };
        let mut model = judges::model_for(&compiled, Settings::for_flows(4096));
        let failsafe = case.failsafe.iter().flat_map(|(from, service)| {
            let read = Failsafe::read(std::slice::from_ref(from), vec![service.clone()]);
            read.unwrap().entries().collect::<Vec<_>>()
        });
        let failsafe: Vec<abi::Failsafe> = failsafe.collect();
        model.spare(failsafe.iter().copied());
        let mut oracle = Sequence::new(policy, &self.router, quarantined, NOW);
        oracle.spare(case.failsafe.clone());
        let mut kernel = self.kernel.as_mut().filter(|_| case.hook.is_some());
        if let Some(kernel) = &mut kernel {
            kernel.start(&compiled);
            kernel.datapath.set_failsafe(&failsafe).unwrap();
        }
        tally.policies += 1;
        for (at, step) in case.steps.iter().enumerate() {
            let must = oracle.judge(&step.at, step.tag, &step.frame);
            let place = place(&compiled, &step.at);
            let said = judges::host_with_tag(&model, place, step.tag, &step.frame);
            tally.cases += 1;
            *tally.verdicts.entry(must.reason).or_default() += 1;
            if let Some(wrong) = differs(&compiled, &must, &said) {
                let Some(name) = excluded(step, &must, &said) else {
                    return Err(Box::new(Mismatch {
                        at,
                        kind: kind("host", &step.at, must.reason, reason(said.reason)),
                        text: format!("the oracle: {must:?}\nthe host:   {said:?}: {wrong}"),
                    }));
                };
                *tally.excluded.entry(name).or_default() += 1;
                // What one lets pass and the other does not leaves them with different pasts.
                if must.passed || said.passed {
                    return Ok(());
                }
            }
            let Some(kernel) = &mut kernel else { continue };
            let hook = match &step.at {
                Where::Entering { .. } => case.hook.unwrap_or(Hook::Xdp),
                Where::Leaving { .. } => Hook::TcEgress,
            };
            let Some((passed, counted)) = kernel.judge(hook, place, &step.frame) else {
                continue;
            };
            if (passed, counted) != (said.passed, said.counts.then_some(said.reason)) {
                let counted = counted.map_or(Reason::Unspecified, reason);
                return Err(Box::new(Mismatch {
                    at,
                    kind: kind(hook_name(hook), &step.at, must.reason, counted),
                    text: format!(
                        "the oracle: {must:?}\nthe host:   {said:?}\nthe kernel: {}, counted as {counted:?} by {hook:?}",
                        if passed { "passed" } else { "dropped" },
                    ),
                }));
            }
        }
        Ok(())
    }
}

impl Kernel {
    fn start(&mut self, compiled: &Compiled) {
        self.datapath.put(1, &compiled.tables).unwrap();
        self.datapath.forget().unwrap();
        self.counted = self.datapath.reasons().unwrap();
    }

    /// Whether a frame passed, and what it was counted as; none when it can't be shown to a program.
    fn judge(&mut self, hook: Hook, at: At, frame: &[u8]) -> Option<(bool, Option<abi::Reason>)> {
        let (ifindex, from) = match at {
            At::Entering { ifindex } => (ifindex, 0),
            At::Leaving { ifindex, from } => (ifindex, from),
        };
        // The kernel makes no packet at TC from less than an IP header; nothing that short passes.
        let short = match frame.get(12..14) {
            Some([0x08, 0x00]) => 14 + 20,
            Some([0x86, 0xdd]) => 14 + 40,
            _ => 0,
        };
        if hook != Hook::Xdp && frame.len() < short {
            return None;
        }
        let passed = self.datapath.run(hook, ifindex, from, frame).unwrap();
        let counted = self.datapath.reasons().unwrap();
        let moved: Vec<abi::Reason> = counted
            .iter()
            .filter(|(reason, counter)| counter.packets != self.counted[reason].packets)
            .map(|(reason, _)| *reason)
            .collect();
        self.counted = counted;
        assert!(moved.len() <= 1, "one packet, several reasons: {moved:?}");
        Some((passed, moved.first().copied()))
    }
}

/// The policy without rules that end within a second: the kernel's clock goes on, and is exact to
/// that.
fn ends_far_away(policy: &Policy) -> Policy {
    let mut policy = policy.clone();
    for expires in policy.rules.iter_mut().filter_map(|it| it.expires.as_mut()) {
        match expires.seconds - NOW.as_second() {
            -1..=0 => expires.seconds -= 60,
            1 => expires.seconds += 86_400,
            _ => {}
        }
    }
    policy
}

/// What is wrong with the host's answer, if anything.
fn differs(compiled: &Compiled, must: &Must, said: &Said) -> Option<&'static str> {
    if must.passed != said.passed {
        return Some("the verdict");
    }
    // What passes and was counted where it entered has no reason of its own here.
    if !said.counts && said.passed {
        return None;
    }
    if must.reason != reason(said.reason) {
        return Some("the reason");
    }
    // Later packets of a flow that observe lets pass are not told, and say nothing more.
    let told = must.reason != Reason::Observed || said.tells;
    if told && must.would != reason(said.would) {
        return Some("what it would be dropped for");
    }
    let rule = compiled.rule(said.rule);
    let named = match must.would {
        _ if !told => true,
        Reason::Rule | Reason::DeniedByRule => rule.is_some_and(|rule| must.rules.contains(rule)),
        Reason::Expired | Reason::Established => rule.is_none_or(|rule| must.rules.contains(rule)),
        _ => true,
    };
    (!named).then_some("the rule")
}

/// Cases that are known to be judged in two ways, with the reason why that is still so.
fn excluded(step: &Step, must: &Must, said: &Said) -> Option<&'static str> {
    let frame = dissect::frame(&step.frame, step.tag).ok();
    let ip = frame.as_ref().and_then(|frame| match &frame.content {
        Content::Ip(ip) => Some(ip),
        Content::Arp(_) | Content::Other(_) => None,
    });
    let group = ip.is_some_and(|ip| is_group(ip.destination));
    if group && must.reason == Reason::DeniedByRule && said.reason == abi::Reason::NoRule {
        return Some("F17: why a group packet that no rule allows does not leave");
    }
    let in_flow = matches!(
        said.reason,
        abi::Reason::Established | abi::Reason::Observed
    );
    if must.reason == Reason::Quarantined && in_flow {
        return Some(
            "F19: a flow to an address that a device in quarantine has taken since it was opened",
        );
    }
    let later = ip.is_some_and(|ip| ip.upper == Upper::Hidden);
    let without_flow = matches!(must.reason, Reason::Observed | Reason::Control);
    if later && without_flow && said.reason == abi::Reason::Fragment {
        return Some("F14: followers of what passed without a flow");
    }
    None
}

fn kind(judge: &str, at: &Where, must: Reason, said: Reason) -> String {
    let way = match at {
        Where::Entering { .. } => "entering",
        Where::Leaving {
            from: From::Router, ..
        } => "from the router",
        Where::Leaving {
            from: From::Uplink, ..
        } => "from the uplink",
        Where::Leaving {
            from: From::Guarded(_),
            ..
        } => "from a guarded port",
    };
    format!("{judge}, {way}: {must:?} but {said:?}")
}

fn hook_name(hook: Hook) -> &'static str {
    match hook {
        Hook::Xdp => "xdp",
        Hook::TcIngress => "tc ingress",
        Hook::TcEgress => "tc egress",
        Hook::Tags => "tags",
    }
}

fn place(compiled: &Compiled, at: &Where) -> At {
    match at {
        Where::Entering { interface } => At::Entering {
            ifindex: compiled.ifindex(interface),
        },
        Where::Leaving { interface, from } => At::Leaving {
            ifindex: compiled.ifindex(interface),
            from: match from {
                From::Router => 0,
                From::Uplink => compiled.ifindex("uplink"),
                From::Guarded(interface) => compiled.ifindex(interface),
            },
        },
    }
}

fn reason(reason: abi::Reason) -> Reason {
    Reason::try_from(i32::from(reason as u8)).unwrap()
}

// ── the smallest case ──────────────────────────────────────────────────────────────────────────

/// The smallest case that still has a mismatch of the kind, and that mismatch.
fn shrink(bench: &mut Bench, case: &Case, mismatch: Mismatch) -> (Case, Mismatch) {
    let mut best = case.clone();
    best.steps.truncate(mismatch.at + 1);
    let mut found = mismatch;
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let before = weight(&best);
        for candidate in simpler(&best) {
            if Instant::now() > until {
                return (best, found);
            }
            let still = bench.run(&candidate, &mut Tally::default());
            if let Err(again) = still
                && again.kind == found.kind
                && weight(&candidate) < weight(&best)
            {
                best = candidate;
                best.steps.truncate(again.at + 1);
                found = *again;
                break;
            }
        }
        if weight(&best) == before {
            return (best, found);
        }
    }
}

fn weight(case: &Case) -> usize {
    let Policy {
        zones,
        ports,
        devices,
        services,
        rules,
        ..
    } = &case.policy;
    let rules: usize = rules
        .iter()
        .map(|rule| 100 + rule.from.len() + rule.to.len() + rule.services.len())
        .sum();
    let devices: usize = devices
        .iter()
        .map(|it| 100 + it.macs.len() + it.addresses.len())
        .sum();
    let zones: usize = zones.iter().map(|zone| 100 + zone.subnets.len()).sum();
    let ports: usize = ports.iter().map(|port| 100 + port.vlans.len()).sum();
    let frames: usize = case.steps.iter().map(|step| 1000 + step.frame.len()).sum();
    let quarantined = case.quarantined.len() + case.failsafe.len();
    quarantined + frames + rules + devices + zones + ports + 100 * services.len()
}

/// Cases with a little less of everything, those with much less first.
fn simpler(case: &Case) -> Vec<Case> {
    let mut all = Vec::new();
    let count = case.steps.len().saturating_sub(1);
    let mut size = count;
    while size > 0 {
        for from in (0..count).step_by(size) {
            let mut steps = case.steps.clone();
            steps.drain(from..(from + size).min(count));
            all.push(Case {
                steps,
                ..case.clone()
            });
        }
        size /= 2;
    }
    for name in &case.quarantined {
        let mut case = case.clone();
        case.quarantined.remove(name);
        all.push(case);
    }
    for index in 0..case.failsafe.len() {
        let mut case = case.clone();
        case.failsafe.remove(index);
        all.push(case);
    }
    let mut policy = |change: &dyn Fn(&mut Policy)| {
        let mut case = case.clone();
        change(&mut case.policy);
        all.push(case);
    };
    let whole = &case.policy;
    for i in 0..whole.rules.len() {
        policy(&|policy| drop(policy.rules.remove(i)));
        for j in 0..whole.rules[i].from.len() {
            policy(&|policy| drop(policy.rules[i].from.remove(j)));
        }
        for j in 0..whole.rules[i].to.len() {
            policy(&|policy| drop(policy.rules[i].to.remove(j)));
        }
        for j in 0..whole.rules[i].services.len() {
            policy(&|policy| drop(policy.rules[i].services.remove(j)));
        }
    }
    for i in 0..whole.devices.len() {
        policy(&|policy| drop(policy.devices.remove(i)));
        for j in 0..whole.devices[i].macs.len() {
            policy(&|policy| drop(policy.devices[i].macs.remove(j)));
        }
        for j in 0..whole.devices[i].addresses.len() {
            policy(&|policy| drop(policy.devices[i].addresses.remove(j)));
        }
    }
    for i in 0..whole.services.len() {
        policy(&|policy| drop(policy.services.remove(i)));
    }
    for i in 0..whole.ports.len() {
        policy(&|policy| drop(policy.ports.remove(i)));
        for j in 0..whole.ports[i].vlans.len() {
            policy(&|policy| drop(policy.ports[i].vlans.remove(j)));
        }
    }
    for i in 0..whole.zones.len() {
        policy(&|policy| drop(policy.zones.remove(i)));
        for j in 0..whole.zones[i].subnets.len() {
            policy(&|policy| drop(policy.zones[i].subnets.remove(j)));
        }
    }
    // Ports that are no longer there judge nothing.
    all.retain(|case| {
        let guarded: BTreeSet<&str> = random::interfaces(&case.policy)
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        case.steps.iter().all(|step| match &step.at {
            Where::Entering { interface } => guarded.contains(interface.as_str()),
            Where::Leaving { interface, from } => {
                guarded.contains(interface.as_str())
                    && match from {
                        From::Guarded(from) => guarded.contains(from.as_str()),
                        From::Router | From::Uplink => true,
                    }
            }
        })
    });
    for i in 0..case.steps.len() {
        let length = case.steps[i].frame.len();
        for shorter in [
            length / 2,
            length.saturating_sub(8),
            length.saturating_sub(1),
        ] {
            if shorter >= 14 {
                let mut case = case.clone();
                case.steps[i].frame.truncate(shorter);
                all.push(case);
            }
        }
    }
    all
}

/// A case for people: the policy, the frames, and what each judge said of the last one.
fn told(case: &Case, mismatch: &Mismatch) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "{}", mismatch.kind);
    let _ = writeln!(
        text,
        "found with: cargo xtask fuzz --seed {} --cases 1\n\n{}",
        case.seed, mismatch.text
    );
    let _ = writeln!(text, "\n{}", document::policy_to_yaml(&case.policy));
    if !case.quarantined.is_empty() {
        let _ = writeln!(text, "in quarantine: {:?}\n", case.quarantined);
    }
    if !case.failsafe.is_empty() {
        let _ = writeln!(text, "failsafe: {:?}\n", case.failsafe);
    }
    for step in &case.steps {
        let _ = writeln!(text, "{:?}", step.at);
        if let Some(tag) = step.tag {
            let _ = writeln!(text, "  tag outside the frame: {tag:#06x}");
        }
        let _ = writeln!(text, "  {}", described(step));
        let hex: Vec<String> = step
            .frame
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let _ = writeln!(text, "  {}", hex.concat());
    }
    text
}

fn described(step: &Step) -> String {
    match dissect::frame(&step.frame, step.tag) {
        Ok(frame) => format!("{frame:02x?}").replace('\n', " "),
        Err(malformed) => format!("{malformed:?}"),
    }
}

// ── runs ───────────────────────────────────────────────────────────────────────────────────────

impl Tally {
    fn add(&mut self, other: Self) {
        self.cases += other.cases;
        self.policies += other.policies;
        for (reason, count) in other.verdicts {
            *self.verdicts.entry(reason).or_default() += count;
        }
        for (name, count) in other.excluded {
            *self.excluded.entry(name).or_default() += count;
        }
    }

    /// Frames that are known to be judged in two ways, by name.
    pub(crate) fn left(&self) -> impl Iterator<Item = &'static str> {
        self.excluded.keys().copied()
    }

    /// Says how the run went.
    fn tell(&self, seed: u64, seconds: u64) {
        eprintln!(
            "seed {seed}: {} cases, {} policies, {seconds} s",
            self.cases, self.policies
        );
        for (reason, count) in &self.verdicts {
            eprintln!("{count:9} {}", reason.as_str_name());
        }
        for (name, count) in &self.excluded {
            eprintln!("{count:9} excluded, {name}");
        }
        for (kind, count) in &self.mismatches {
            eprintln!("{count:9} MISMATCHES: {kind}");
        }
    }
}

/// Judges on all benches at once until there are enough cases; what is wrong is shrunk and written
/// below `target/fuzz`.
fn run(benches: &mut [Bench], cases: usize, first: u64) -> Tally {
    let start = Instant::now();
    let next = AtomicU64::new(first);
    let all = Mutex::new(Tally::default());
    let told_at = Mutex::new(start);
    thread::scope(|scope| {
        for bench in benches {
            scope.spawn(|| {
                while all.lock().unwrap().cases < cases {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let case = Case::of(seed, FRAMES);
                    let mut tally = Tally::default();
                    let mismatch = bench.run(&case, &mut tally).err();
                    all.lock().unwrap().add(tally);
                    if let Some(mismatch) = mismatch {
                        disagree(bench, &case, *mismatch, &all);
                    }
                    let mut told_at = told_at.lock().unwrap();
                    if told_at.elapsed() > Duration::from_secs(5) {
                        *told_at = Instant::now();
                        let all = all.lock().unwrap();
                        eprintln!(
                            "{} cases, {} policies, {} s, {} mismatches",
                            all.cases,
                            all.policies,
                            start.elapsed().as_secs(),
                            all.mismatches.values().sum::<usize>()
                        );
                    }
                }
            });
        }
    });
    let all = all.into_inner().unwrap();
    all.tell(first, start.elapsed().as_secs());
    all
}

/// Counts a disagreement; the first of its kind is made small, written and shown.
fn disagree(bench: &mut Bench, case: &Case, mismatch: Mismatch, all: &Mutex<Tally>) {
    let is_first = {
        let mut all = all.lock().unwrap();
        let count = all.mismatches.entry(mismatch.kind.clone()).or_default();
        *count += 1;
        *count == 1
    };
    if is_first {
        let (case, mismatch) = shrink(bench, case, mismatch);
        let text = told(&case, &mismatch);
        eprintln!("{}:\n{text}", write(case.seed, &text));
    }
}

fn write(seed: u64, text: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/fuzz");
    let path = folder.join(format!("mismatch-{seed}.txt"));
    fs::create_dir_all(&folder).unwrap();
    fs::write(&path, text).unwrap();
    path.display().to_string()
}

/// Does work in a namespace that has the interfaces.
pub(crate) fn in_namespace<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> T {
    let lab = Lab::new(name).unwrap();
    let router = lab.router().clone();
    for interface in INTERFACES {
        router
            .ip(&format!(
                "link add {interface} type veth peer name {interface}-far"
            ))
            .unwrap();
    }
    router.run(work).unwrap()
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap())
}

/// The run that `cargo xtask fuzz` makes longer.
#[test]
fn judges_agree_on_frames() {
    let cases = number("WARDLINE_FUZZ_CASES").map_or(CASES, |cases| cases as usize);
    let seed = number("WARDLINE_FUZZ_SEED").unwrap_or(1);
    let work = || {
        let threads = thread::available_parallelism()
            .map_or(1, NonZero::get)
            .min(4);
        let mut benches: Vec<Bench> = (0..threads).map(|_| Bench::with_kernel(&ROUTER)).collect();
        run(&mut benches, cases, seed)
    };
    let tally = in_namespace("fuzz", work);
    assert!(tally.mismatches.is_empty(), "the judges disagree");
}

/// Without a kernel, whose clock goes on, rules may end at the very second.
#[test]
fn host_agrees_with_the_oracle_on_frames() {
    let cases = number("WARDLINE_FUZZ_HOST_CASES").map_or(100_000, |cases| cases as usize);
    let seed = number("WARDLINE_FUZZ_SEED").unwrap_or(1 << 32);
    let tally = run(&mut [Bench::host()], cases, seed);
    assert!(tally.mismatches.is_empty(), "the judges disagree");
}
