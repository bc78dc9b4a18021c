//! Compares the judges: the oracle, `decide` on the host and, where there is one, the kernel give
//! the same verdict on each frame of a case, each with its own state.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    time::{Duration, Instant},
};

use wardline_ebpf::abi::{self, Settings};
use wardline_oracle::{
    dissect::{self, Content, Upper},
    oracle::is_group,
    random::{CONNECTED, NOW, ROUTER_MAC},
    sequence::{From, Must, Sequence, Where},
    streams::Step,
};
use wardline_policy::{
    clock::Clock,
    failsafe::Failsafe,
    inventory::{Inventory, Nat},
    quarantine::Quarantine,
};
use wardline_proto::v1::{Policy, Reason};

use crate::{
    case::{Case, Ingress},
    judge::{self, At, Compiled, Said},
    tally::Tally,
};

/// The interfaces that random policies name, and the uplink.
pub const INTERFACES: [&str; 5] = ["lan1", "lan2", "lan3", "wifi1", "uplink"];

/// The control of a device in a run, and of one in quarantine: little, so that some is too much.
const BUDGET: [u32; 2] = [12, 3];

/// How long a packet that opens a flow is believed to have been admitted where it entered: a second,
/// less a tick at 100 jiffies a second.
const BELIEVED: Duration = Duration::from_millis(300);

/// The judges disagree.
#[derive(Clone, Debug)]
pub struct Mismatch {
    /// The step.
    pub(crate) at: usize,
    /// What kind of disagreement it is: those of one kind have one cause, mostly.
    pub(crate) kind: String,
    pub text: String,
}

/// The judges that must agree with the oracle.
pub struct Bench {
    router: Vec<IpAddr>,
    inventory: Inventory,
    clock: Clock,
    kernel: Option<Box<dyn Kernel>>,
}

/// The programs in the kernel, with flows of their own.
pub trait Kernel: Send {
    /// Forgets all flows, and judges by this policy from now on.
    fn start(&mut self, compiled: &Compiled, failsafe: &[abi::Failsafe]);

    /// Whether a frame passed, and the reason it was counted as; none when it can't be shown to a
    /// program.
    fn judge(
        &mut self,
        ingress: Ingress,
        at: At,
        frame: &[u8],
    ) -> Option<(bool, Option<abi::Reason>)>;
}

impl Bench {
    /// The oracle and the host alone.
    pub fn host(router: &[IpAddr]) -> Self {
        Self {
            router: router.to_vec(),
            inventory: judge::connected(judge::inventory(&INTERFACES, router)),
            clock: judge::clock(NOW),
            kernel: None,
        }
    }

    /// The oracle, the host and a kernel, whose clock and interfaces these are.
    pub fn with_kernel(
        router: &[IpAddr],
        inventory: Inventory,
        clock: Clock,
        kernel: Box<dyn Kernel>,
    ) -> Self {
        Self {
            router: router.to_vec(),
            inventory: judge::connected(inventory),
            clock,
            kernel: Some(kernel),
        }
    }

    /// An oracle that has seen no frame yet.
    pub fn oracle<'a>(&self, policy: &'a Policy) -> Sequence<'a> {
        self.oracle_with(policy, &BTreeSet::new())
    }

    fn oracle_with<'a>(&self, policy: &'a Policy, quarantined: &BTreeSet<String>) -> Sequence<'a> {
        let mut oracle = Sequence::new(policy, &self.router, quarantined, NOW);
        oracle.own(ROUTER_MAC);
        for (interface, network) in CONNECTED {
            oracle.connect(interface, network);
        }
        oracle.join(&judge::JOINED);
        for interface in judge::APART {
            oracle.set_apart(interface);
        }
        oracle
    }

    /// Judges the frames of a case.
    pub fn run(&mut self, case: &Case, tally: &mut Tally) -> Result<(), Box<Mismatch>> {
        let quarantined = &case.quarantined;
        let policy = self.kernel.as_ref().map(|_| ends_far_away(&case.policy));
        let policy = policy.as_ref().unwrap_or(&case.policy);
        let cut = Quarantine::of_names(quarantined.clone(), case.ports_cut.clone());
        let began = Instant::now();
        let [v4, v6] = case.nat;
        self.inventory.nat = Nat { v4, v6 };
        let compiled = Compiled::of_valid(policy, &cut, &self.inventory, self.clock);
        let Some(compiled) = compiled else {
            // Shrinking made the policy invalid.
            return Ok(());
        };
        // A kernel's time goes on while it judges, so with one there is no bound.
        let [control, control_in_quarantine] = match self.kernel {
            Some(_) => [u32::MAX; 2],
            None => BUDGET,
        };
        let settings = Settings {
            control,
            control_in_quarantine,
            ..Settings::for_flows(4096)
        };
        let mut model = judge::model_for(&compiled, settings);
        let failsafe = case.failsafe.iter().flat_map(|(from, service)| {
            let read = Failsafe::read(std::slice::from_ref(from), vec![service.clone()]);
            read.unwrap().entries().collect::<Vec<_>>()
        });
        let failsafe: Vec<abi::Failsafe> = failsafe.collect();
        model.spare(failsafe.iter().copied());
        let mut oracle = self.oracle_with(policy, quarantined);
        case.ports_cut.iter().for_each(|port| oracle.cut_port(port));
        oracle.spare(case.failsafe.clone());
        oracle.bound(control, control_in_quarantine);
        oracle.rewrite(case.nat);
        let mut kernel = self.kernel.as_mut().zip(case.ingress);
        if let Some((kernel, _)) = &mut kernel {
            kernel.start(&compiled, &failsafe);
        }
        tally.policies += 1;
        for (at, step) in case.steps.iter().enumerate() {
            // A kernel believes for a second that a packet was admitted, the oracle for ever.
            if kernel.is_some() && v4 | v6 && began.elapsed() > BELIEVED {
                return Ok(());
            }
            let must = oracle.judge(&step.at, step.tag, &step.frame);
            let place = compiled.place(&step.at);
            let said = judge::host_with_tag(&model, place, step.tag, &step.frame);
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
                // If either judge passed the frame, their states may differ from here on.
                if must.passed || said.passed {
                    return Ok(());
                }
            }
            let Some((kernel, ingress)) = &mut kernel else {
                continue;
            };
            let Some((passed, counted)) = kernel.judge(*ingress, place, &step.frame) else {
                continue;
            };
            let counts = said.counts.then_some(said.reason);
            // The kernel and the host choose the places of notes by different seeds.
            let by_note =
                (v4 || v6) && passed && said.passed && counted.is_none() != counts.is_none();
            if by_note && matches!(place, At::Leaving { .. }) && must.reason == Reason::Rule {
                *tally.excluded.entry(REPLACED).or_default() += 1;
                return Ok(());
            }
            if (passed, counted) != (said.passed, counts) {
                let counted = counted.map_or(Reason::Unspecified, reason);
                let program = match (place, ingress) {
                    (At::Leaving { .. }, _) => "tc egress",
                    (At::Entering { .. }, Ingress::Xdp) => "xdp",
                    (At::Entering { .. }, Ingress::Tc) => "tc ingress",
                };
                return Err(Box::new(Mismatch {
                    at,
                    kind: kind(program, &step.at, must.reason, counted),
                    text: format!(
                        "the oracle: {must:?}\nthe host:   {said:?}\nthe kernel: {}, counted as {counted:?} by {program}",
                        if passed { "passed" } else { "dropped" },
                    ),
                }));
            }
        }
        Ok(())
    }
}

/// Moves expiries that are within a second of now further away: the kernel's clock runs on, and is
/// only exact to a second.
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
    // A pass that was counted where the packet entered has no reason here.
    if !said.counts && said.passed {
        return None;
    }
    if must.reason != reason(said.reason) {
        return Some("the reason");
    }
    // Later packets of an observed flow make no event, and carry no further reason.
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

/// The name of a known disagreement that explains this one, if any.
fn excluded(step: &Step, must: &Must, said: &Said) -> Option<&'static str> {
    let frame = dissect::frame(&step.frame, step.tag).ok();
    let ip = frame.as_ref().and_then(|frame| match &frame.content {
        Content::Ip(ip) => Some(ip),
        Content::Arp(_) | Content::Other(_) => None,
    });
    // A subnet's broadcast is to a group by its MAC.
    let fans = frame.as_ref().is_some_and(|it| it.destination[0] & 1 == 1);
    let group = fans || ip.is_some_and(|ip| is_group(ip.destination));
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
    let leaves = matches!(step.at, Where::Leaving { .. });
    let again = must.reason == Reason::Observed && said.reason == abi::Reason::Established;
    if leaves && again {
        return Some(
            "F20: a hosted machine's observed flow to an address that a device has taken since, so \
             that a rule now allows it",
        );
    }
    let is_rewritten = must.reason == Reason::Rule && must.rules.is_empty();
    if leaves && is_rewritten && said.reason == abi::Reason::NoRule {
        return Some(REPLACED);
    }
    let later = ip.is_some_and(|ip| ip.upper == Upper::Hidden);
    let without_flow = matches!(must.reason, Reason::Observed | Reason::Control);
    let no_part = [said.reason, said.would].contains(&abi::Reason::Fragment);
    if later && without_flow && no_part {
        return Some("F14: followers of what passed without a flow");
    }
    None
}

const REPLACED: &str =
    "F21: a rewritten packet whose note another has replaced: two have one place";

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

fn reason(reason: abi::Reason) -> Reason {
    Reason::try_from(i32::from(reason as u8)).unwrap()
}
