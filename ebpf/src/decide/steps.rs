//! The order of the steps, for the host and for the kernel alike.

use super::{
    answers::{answers, asks, may_answer},
    apply::retry_reversed,
    control::{is_charged, is_dhcp},
    inquire::inquires,
    learn::claims,
    lease::{LEASES, may_give_lease, settles},
    named::may_be_named,
    observe::observes,
    options::has_options,
    resolve::resolves,
    rewritten::is_to_be_noted,
    work::{Verdict, Work},
};
use crate::abi::Reason;

/// The answer of a step: the number of a reason, or that the next step has to go on.
///
/// A number, because a function that the verifier checks separately may return nothing else.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Answer(u32);

impl Answer {
    /// There is no verdict yet.
    const GO_ON: Self = Self(u32::MAX);
    /// The packet is control.
    const CONTROL: Self = Self(Reason::Control as u32);
    /// A drop without a reason: the kernel gave the program no memory to work in.
    pub const NO_MEMORY: Self = Self(0);

    /// The answer with this number, as [`Answer::number`] gave it.
    #[inline(always)]
    pub fn from_number(number: u32) -> Self {
        Self(number)
    }

    /// The number of the reason.
    #[inline(always)]
    pub fn number(self) -> u32 {
        self.0
    }

    #[inline(always)]
    fn goes_on(self) -> bool {
        self == Self::GO_ON
    }

    /// Whether the packet passes. The verifier knows nothing of a number that a step's function has
    /// returned, so both bounds are compared: the reason's number is an index.
    #[inline(always)]
    fn passes(self) -> bool {
        self.0 >= Reason::Rule as u32 && self.0 < Reason::COUNT
    }

    /// What happens to the packet.
    #[inline(always)]
    pub fn fate(self) -> Fate {
        if !self.passes() {
            Fate::Dropped
        } else if self.0 == Reason::Established as u32 {
            Fate::Established
        } else {
            Fate::Passed
        }
    }
}

/// What happens to a packet: each entry point turns it into its hook's return code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Fate {
    /// It is dropped.
    Dropped,
    /// It goes up the stack, or out of the interface.
    Passed,
    /// As [`Fate::Passed`], but as part of a flow, so it may be forwarded in the driver instead.
    Established,
}

/// Stores the verdict of a step, if it has reached one.
#[inline(always)]
pub fn note(place: &mut Verdict, verdict: Option<Verdict>) -> Answer {
    match verdict {
        Some(verdict) => {
            *place = verdict;
            Answer(verdict.reason as u32)
        }
        None => Answer::GO_ON,
    }
}

/// Runs the steps that follow the first.
///
/// The host calls each step. The kernel calls a function for each, which its verifier checks once
/// and separately, instead of for every path through the steps before.
pub trait Steps {
    /// What is known of the packet.
    fn work(&mut self) -> Option<&mut Work>;

    /// Runs [`read_options`](super::read_options).
    fn read_options(&mut self) -> Answer;
    /// Runs [`enter`](super::enter()), [`leave`](super::leave()) or
    /// [`leave_hosted`](super::leave_hosted).
    fn place(&mut self) -> Answer;
    /// Runs [`learn`](super::learn()).
    fn learn(&mut self) -> Answer;
    /// Runs [`read_dhcp`](super::read_dhcp).
    fn read_dhcp(&mut self) -> Answer;
    /// Runs [`charge_control`](super::charge_control).
    fn charge_control(&mut self) -> Answer;
    /// Runs [`admit`](super::admit()).
    fn admit(&mut self) -> Answer;
    /// Runs [`ask_policy`](super::ask_policy).
    fn ask_policy(&mut self);
    /// Runs [`ask_names`](super::ask_names).
    fn ask_names(&mut self);
    /// Runs [`find_question`](super::find_question).
    fn find_question(&mut self);
    /// Runs [`note_question`](super::note_question).
    fn note_question(&mut self);
    /// Runs [`apply_policy`](super::apply_policy).
    fn apply_policy(&mut self) -> Answer;
    /// Runs [`open_flow`](super::open_flow).
    fn open_flow(&mut self) -> Answer;
    /// Answers [`has_failsafe`](super::has_failsafe).
    fn has_failsafe(&self) -> bool;
    /// Runs [`apply_failsafe`](super::apply_failsafe).
    fn apply_failsafe(&mut self) -> Answer;
    /// Runs [`note_first`](super::note_first).
    fn note_first(&mut self) -> Answer;
    /// Runs [`note_admission`](super::note_admission).
    fn note_admission(&mut self);
    /// Runs [`note_inquiry`](super::note_inquiry).
    fn note_inquiry(&mut self);
    /// Runs [`read_resolution`](super::read_resolution).
    fn read_resolution(&mut self);
    /// Runs [`read_lease`](super::read_lease).
    fn read_lease(&mut self);
    /// Runs [`settle_lease`](super::settle_lease) for one address.
    fn settle_lease(&mut self, n: u32);
    /// Runs [`apply_observe`](super::apply_observe).
    fn apply_observe(&mut self) -> Answer;
    /// Runs [`note_denial`](super::note_denial).
    fn note_denial(&mut self);
}

/// Whether the packet is judged as one that enters.
#[inline(always)]
fn enters(work: &mut Work) -> bool {
    work.is_ingress()
}

/// The step for a packet that enters, after its place was found right: it may claim an address.
#[inline(always)]
fn check_claim<S: Steps>(steps: &mut S, placed: Answer) -> Answer {
    if !placed.goes_on() && placed != Answer::CONTROL || !steps.work().is_some_and(claims) {
        return placed;
    }
    let answer = steps.learn();
    if answer.goes_on() { placed } else { answer }
}

/// The steps for control that enters, after its place was found right.
#[inline(always)]
fn check_control<S: Steps>(steps: &mut S) -> Answer {
    let mut answer = Answer::GO_ON;
    if steps.work().is_some_and(is_dhcp) {
        answer = steps.read_dhcp();
    }
    if answer.goes_on() && steps.work().is_some_and(is_charged) {
        answer = steps.charge_control();
    }
    if answer.goes_on() {
        Answer::CONTROL
    } else {
        answer
    }
}

/// The last steps for control that passes: addresses that a DHCP client gets or gives back.
#[inline(always)]
fn settle_leases<S: Steps>(steps: &mut S) {
    if steps.work().is_some_and(may_give_lease) {
        steps.read_lease();
    }
    let count = steps.work().map_or(0, settles);
    for n in 0..LEASES {
        if n >= count {
            break;
        }
        steps.settle_lease(n);
    }
}

/// The steps that ask policy about a flow as its ends are.
#[inline(always)]
fn ask<S: Steps>(steps: &mut S) {
    steps.ask_policy();
    if steps.work().is_some_and(may_be_named) {
        steps.ask_names();
    }
}

/// Judges a packet: runs the steps that follow the first, whose answer was `started`.
#[inline(always)]
pub fn finish<S: Steps>(steps: &mut S, started: Answer) -> Answer {
    let mut answer = started;
    if answer.goes_on() && steps.work().is_some_and(has_options) {
        answer = steps.read_options();
    }
    if answer.goes_on() {
        answer = steps.place();
        // For packets that leave, no control is charged.
        if steps.work().is_some_and(enters) {
            answer = check_claim(steps, answer);
            if answer == Answer::CONTROL {
                answer = check_control(steps);
            }
        }
    }
    if answer.goes_on() {
        answer = steps.admit();
    }
    if answer.goes_on() {
        ask(steps);
        if steps.work().is_some_and(retry_reversed) {
            ask(steps);
        }
        if steps.work().is_some_and(may_answer) {
            steps.find_question();
            if steps.work().is_some_and(answers) {
                steps.ask_policy();
            }
        }
        answer = steps.apply_policy();
    }
    if answer.goes_on() {
        answer = steps.open_flow();
    }
    if !answer.passes() && steps.has_failsafe() {
        answer = steps.apply_failsafe();
    }
    let Some(work) = steps.work() else {
        return Answer::NO_MEMORY;
    };
    let denied = work.lasting_denial != 0;
    let (inquires, resolves) = (inquires(work), resolves(work));
    if answer.passes() && work.packet.fragment.is_first() {
        answer = steps.note_first();
    }
    if answer.passes() && steps.work().is_some_and(is_to_be_noted) {
        steps.note_admission();
    }
    if answer.passes() && steps.work().is_some_and(asks) {
        steps.note_question();
    }
    if answer.passes() && inquires {
        steps.note_inquiry();
    }
    if answer.passes() && resolves {
        steps.read_resolution();
    }
    if answer == Answer::CONTROL {
        settle_leases(steps);
    }
    if !answer.passes() && steps.work().is_some_and(observes) {
        answer = steps.apply_observe();
    }
    if !answer.passes() && denied {
        steps.note_denial();
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        abi::{Address, Port},
        decide::work::{CHARGED, DHCP_CLIENT, INGRESS},
        packet::Shape,
    };

    /// Gives the answers that a test prescribes, and notes which steps ran.
    #[derive(Default)]
    struct Recorded {
        work: Work,
        ran: Vec<&'static str>,
        /// The step that reaches a verdict, and which verdict.
        verdict: Option<(&'static str, Reason)>,
        failsafe: Option<Reason>,
    }

    impl Recorded {
        fn step(&mut self, name: &'static str) -> Answer {
            self.ran.push(name);
            match self.verdict {
                Some((step, reason)) if step == name => Answer(reason as u32),
                _ => Answer::GO_ON,
            }
        }
    }

    impl Steps for Recorded {
        fn work(&mut self) -> Option<&mut Work> {
            Some(&mut self.work)
        }

        fn read_options(&mut self) -> Answer {
            self.step("read_options")
        }

        fn place(&mut self) -> Answer {
            self.step("place")
        }

        fn learn(&mut self) -> Answer {
            self.step("learn")
        }

        fn read_dhcp(&mut self) -> Answer {
            self.step("read_dhcp")
        }

        fn charge_control(&mut self) -> Answer {
            self.step("charge_control")
        }

        fn admit(&mut self) -> Answer {
            self.step("admit")
        }

        fn ask_policy(&mut self) {
            self.step("ask_policy");
        }

        fn ask_names(&mut self) {
            self.step("ask_names");
        }

        fn read_lease(&mut self) {
            self.ran.push("read_lease");
            self.work.options.settles.store(2);
        }

        fn settle_lease(&mut self, _n: u32) {
            self.ran.push("settle_lease");
        }

        fn find_question(&mut self) {
            self.step("find_question");
        }

        fn note_question(&mut self) {
            self.step("note_question");
        }

        fn apply_policy(&mut self) -> Answer {
            self.step("apply_policy")
        }

        fn open_flow(&mut self) -> Answer {
            self.step("open_flow")
        }

        fn has_failsafe(&self) -> bool {
            self.failsafe.is_some()
        }

        fn apply_failsafe(&mut self) -> Answer {
            self.step("apply_failsafe");
            Answer(self.failsafe.map_or(0, |reason| reason as u32))
        }

        fn note_first(&mut self) -> Answer {
            self.step("note_first");
            Answer(Reason::Fragment as u32)
        }

        fn note_admission(&mut self) {
            self.step("note_admission");
        }

        fn note_inquiry(&mut self) {
            self.step("note_inquiry");
        }

        fn read_resolution(&mut self) {
            self.step("read_resolution");
        }

        fn apply_observe(&mut self) -> Answer {
            self.step("apply_observe");
            Answer(Reason::Observed as u32)
        }

        fn note_denial(&mut self) {
            self.step("note_denial");
        }
    }

    fn ran(mut steps: Recorded, started: Option<Reason>) -> (Vec<&'static str>, Fate) {
        let started = started.map_or(Answer::GO_ON, |reason| Answer(reason as u32));
        steps.work.path |= INGRESS;
        let fate = finish(&mut steps, started).fate();
        (steps.ran, fate)
    }

    #[test]
    fn steps_run_in_order_until_one_comes_to_a_verdict() {
        const ORDER: [&str; 5] = ["place", "admit", "ask_policy", "apply_policy", "open_flow"];
        for (last, step) in ORDER
            .into_iter()
            .enumerate()
            .filter(|(_, it)| *it != "ask_policy")
        {
            for (reason, fate) in [
                (Reason::NoRule, Fate::Dropped),
                (Reason::Rule, Fate::Passed),
                (Reason::Established, Fate::Established),
            ] {
                let verdict = Some((step, reason));
                let steps = Recorded {
                    verdict,
                    ..Recorded::default()
                };
                assert_eq!(ran(steps, None), (ORDER[..=last].to_vec(), fate));
            }
        }
        let none = ran(Recorded::default(), Some(Reason::Established));
        assert_eq!(none, (vec![], Fate::Established));
    }

    #[test]
    fn only_neighbour_discovery_has_options_to_read() {
        for (source, shape, reads) in [
            (Address::v6(&[1; 16]), Shape::Discovery, true),
            (Address::v4([1; 4]), Shape::Discovery, false),
            (Address::v6(&[1; 16]), Shape::Membership, false),
        ] {
            let mut steps = Recorded {
                verdict: Some(("read_options", Reason::Malformed)),
                ..Recorded::default()
            };
            (steps.work.packet.source, steps.work.packet.shape) = (source, shape);
            let (ran, fate) = ran(steps, None);
            assert_eq!(ran == ["read_options"], reads, "{shape:?}");
            assert_eq!(fate, Fate::Dropped);
        }
    }

    #[test]
    fn only_control_that_passes_settles_leases() {
        let answer = |reason, (source, destination)| {
            let mut steps = Recorded::default();
            steps.work.packet.source = Address::v4([10, 0, 0, 1]);
            steps.work.packet.shape = Shape::Udp;
            steps.work.packet.source_port = source;
            steps.work.packet.destination_port = destination;
            let _ = finish(&mut steps, Answer(reason as u32));
            steps.ran
        };
        let settled = ["read_lease", "settle_lease", "settle_lease"];
        assert_eq!(answer(Reason::Control, (67, 68)), settled);
        assert!(answer(Reason::Control, (67, 67)).is_empty());
        assert!(answer(Reason::Rule, (67, 68)).is_empty());
        assert!(answer(Reason::RogueDhcp, (67, 68)).is_empty());
    }

    #[test]
    fn control_that_enters_is_charged_and_only_dhcp_is_read() {
        for (control, verdict, expected) in [
            (0, Reason::Control, vec!["place"]),
            (CHARGED, Reason::Control, vec!["place", "charge_control"]),
            (
                CHARGED | DHCP_CLIENT,
                Reason::Control,
                vec!["place", "read_dhcp", "charge_control"],
            ),
            (CHARGED | DHCP_CLIENT, Reason::ArpSpoof, vec!["place"]),
        ] {
            let mut steps = Recorded {
                verdict: Some(("place", verdict)),
                ..Recorded::default()
            };
            steps.work.control = control;
            assert_eq!(ran(steps, None).0, expected);
        }
    }

    #[test]
    fn policy_is_asked_again_about_a_running_flow_that_nobody_saw_open() {
        let mut steps = Recorded {
            verdict: Some(("apply_policy", Reason::Rule)),
            ..Recorded::default()
        };
        steps.work.adopts = 1;
        let (steps, _) = ran(steps, None);
        assert_eq!(
            steps,
            ["place", "admit", "ask_policy", "ask_policy", "apply_policy"]
        );
    }

    #[test]
    fn a_claim_is_decided_before_what_it_is_for() {
        let claiming = |placed| {
            let mut steps = Recorded {
                verdict: Some(("place", placed)),
                ..Recorded::default()
            };
            steps.work.claim = Address::v4([10, 1, 0, 1]);
            ran(steps, None)
        };
        let learned = (vec!["place", "learn"], Fate::Passed);
        assert_eq!(claiming(Reason::Control), learned);
        let refused = (vec!["place"], Fate::Dropped);
        assert_eq!(claiming(Reason::NdSpoof), refused);
        let mut steps = Recorded {
            verdict: Some(("learn", Reason::SpoofedSource)),
            ..Recorded::default()
        };
        steps.work.claim = Address::v4([10, 1, 0, 1]);
        assert_eq!(ran(steps, None), (vec!["place", "learn"], Fate::Dropped));
    }

    #[test]
    fn only_a_drop_meets_the_failsafe_and_what_that_spares_is_no_denial() {
        for (failsafe, expected) in [
            (None, vec!["note_denial"]),
            (Some(Reason::NoRule), vec!["apply_failsafe", "note_denial"]),
            (Some(Reason::Control), vec!["apply_failsafe"]),
        ] {
            let mut steps = Recorded {
                failsafe,
                ..Recorded::default()
            };
            steps.work.lasting_denial = 1;
            assert_eq!(ran(steps, Some(Reason::NoRule)).0, expected);
        }
        let steps = Recorded {
            failsafe: Some(Reason::Control),
            ..Recorded::default()
        };
        assert!(ran(steps, Some(Reason::Rule)).0.is_empty());
    }

    #[test]
    fn where_a_port_observes_a_drop_is_looked_at_last_and_a_pass_never() {
        let observing = || {
            let mut steps = Recorded::default();
            steps.work.port = Port::OBSERVES;
            steps
        };
        let observed = (vec!["apply_observe"], Fate::Passed);
        assert_eq!(ran(observing(), Some(Reason::WrongVlan)), observed);
        assert_eq!(
            ran(observing(), Some(Reason::Control)),
            (vec![], Fate::Passed)
        );
        // Not before it is sure that later parts of the packet can follow.
        let mut steps = observing();
        steps.work.packet.fragment.more = true;
        let expected = (vec!["note_first", "apply_observe"], Fate::Passed);
        assert_eq!(ran(steps, Some(Reason::Rule)), expected);
    }

    #[test]
    fn a_first_part_that_can_not_be_noted_is_dropped() {
        let mut steps = Recorded::default();
        steps.work.packet.fragment.more = true;
        let expected = (vec!["note_first"], Fate::Dropped);
        assert_eq!(ran(steps, Some(Reason::Rule)), expected);
    }

    #[test]
    fn what_is_no_reason_is_dropped() {
        for number in [0, Reason::COUNT, u32::MAX] {
            assert_eq!(Answer::from_number(number).fate(), Fate::Dropped);
        }
    }
}
