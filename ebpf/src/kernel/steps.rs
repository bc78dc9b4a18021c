//! The steps of a judgement: the first as a part of its program, the others as global functions, each
//! of which the verifier checks once, separately.

use aya_ebpf::bindings::{__sk_buff, xdp_md};
use wardline_ebpf::decide::{self, Answer, Steps, Verdict, Work, note};

use super::{
    desk::{ENTERING, LEAVING, desk},
    frame::{pull, tc_frame, tc_pull, xdp_frame, xdp_pull},
    maps::{Maps, number_of},
};

/// Makes a step a global function. Such a function may take a context or a number and has to return
/// a number, here that of its [`Answer`].
macro_rules! step {
    ($(#[$doc:meta])* $name:ident($argument:ident: $type:ty), $index:expr, |$desk:ident| $verdict:expr) => {
        $(#[$doc])*
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub(super) extern "C" fn $name($argument: $type) -> u32 {
            let Some($desk) = desk($index) else {
                return Answer::NO_MEMORY.number();
            };
            let verdict = $verdict;
            note(&mut $desk.verdict, verdict).number()
        }
    };
}

/// Makes the steps of a hook: those that read the packet are its own, the others are shared.
macro_rules! hook {
    (
        $(#[$doc:meta])*
        $hook:ident of $context:ty, $frame:ident, $index:ident,
        pull: $pull:ident, read_options: $read_options:ident,
        read_dhcp: $read_dhcp:ident,
        names: {$(note_inquiry: $note_inquiry:ident)? $(read_resolution: $read_resolution:ident)?},
        leases: {$(read_lease: $read_lease:ident,)? settle_lease: $settle_lease:ident},
        $place:ident: $place_step:ident, $(hosted: $hosted:ident,)?
        admit: $admit:ident, apply_failsafe: $apply_failsafe:ident
    ) => {
        step! {
            /// The options of neighbour discovery.
            $read_options(context: *mut $context), $index, |desk| {
                $pull(context, desk.work.packet.end);
                decide::read_options(&$frame(context), &mut desk.work)
            }
        }
        step! {
            /// The options of a DHCP client's message.
            $read_dhcp(context: *mut $context), $index, |desk| {
                $pull(context, desk.work.packet.end);
                decide::read_dhcp(&$frame(context), &Maps, &mut desk.work)
            }
        }
        $(step! {
            /// A question to a resolver.
            $note_inquiry(context: *mut $context), $index, |desk| {
                $pull(context, desk.work.packet.end);
                decide::note_inquiry(&$frame(context), &Maps, &mut desk.work);
                None
            }
        })?
        $(step! {
            /// An answer of a resolver.
            $read_resolution(context: *mut $context), $index, |desk| {
                $pull(context, desk.work.packet.end);
                decide::read_resolution(&$frame(context), &Maps, &desk.work, |_, at| {
                    take_address(context, at);
                });
                None
            }
        })?
        $(step! {
            /// The answer of a DHCP server.
            $read_lease(context: *mut $context), $index, |desk| {
                $pull(context, desk.work.packet.end);
                decide::read_lease(&$frame(context), &Maps, &mut desk.work);
                None
            }
        })?
        /// Gives or frees one address.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub(super) extern "C" fn $settle_lease(context: *mut $context, n: u32) -> u32 {
            match desk($index) {
                Some(desk) => {
                    decide::settle_lease(&$frame(context), &Maps, &mut desk.work, n);
                    1
                }
                None => 0,
            }
        }
        step! {
            /// Place and control.
            $place_step(context: *mut $context), $index,
            |desk| decide::$place(&$frame(context), &Maps, &mut desk.work)
        }
        $(step! {
            /// Place and control of a hosted machine's frame.
            $hosted(context: *mut $context), $index,
            |desk| decide::leave_hosted(&$frame(context), &Maps, &mut desk.work)
        })?
        step! {
            /// Quarantine and state.
            $admit(context: *mut $context), $index,
            |desk| decide::admit(&$frame(context), &Maps, &mut desk.work)
        }
        step! {
            /// A second look at a drop.
            $apply_failsafe(context: *mut $context), $index,
            |desk| {
                let frame = $frame(context);
                Some(decide::apply_failsafe(&frame, &Maps, &mut desk.work, desk.verdict))
            }
        }

        $(#[$doc])*
        pub(super) struct $hook(pub(super) *mut $context);

        impl Steps for $hook {
            #[inline(always)]
            fn work(&mut self) -> Option<&mut Work> {
                desk($index).map(|desk| &mut desk.work)
            }

            #[inline(always)]
            fn read_options(&mut self) -> Answer {
                Answer::from_number($read_options(self.0))
            }

            #[inline(always)]
            fn place(&mut self) -> Answer {
                $(if self.work().is_some_and(|work| work.is_hosted()) {
                    return Answer::from_number($hosted(self.0));
                })?
                Answer::from_number($place_step(self.0))
            }

            #[inline(always)]
            fn learn(&mut self) -> Answer {
                Answer::from_number(learn($index))
            }

            #[inline(always)]
            fn read_dhcp(&mut self) -> Answer {
                Answer::from_number($read_dhcp(self.0))
            }

            #[inline(always)]
            fn charge_control(&mut self) -> Answer {
                Answer::from_number(charge_control($index))
            }

            #[inline(always)]
            fn admit(&mut self) -> Answer {
                Answer::from_number($admit(self.0))
            }

            #[inline(always)]
            fn ask_policy(&mut self) {
                ask_policy($index);
            }

            #[inline(always)]
            fn ask_names(&mut self) {
                ask_names($index);
            }

            #[inline(always)]
            fn note_inquiry(&mut self) {
                // Questions are noted where they enter.
                $($note_inquiry(self.0);)?
            }

            #[inline(always)]
            fn read_resolution(&mut self) {
                // Answers are read where they leave.
                $($read_resolution(self.0);)?
            }

            #[inline(always)]
            fn read_lease(&mut self) {
                // Answers are read where they leave.
                $($read_lease(self.0);)?
            }

            #[inline(always)]
            fn settle_lease(&mut self, n: u32) {
                $settle_lease(self.0, n);
            }

            #[inline(always)]
            fn find_question(&mut self) {
                find_question($index);
            }

            #[inline(always)]
            fn note_question(&mut self) {
                note_question($index);
            }

            #[inline(always)]
            fn apply_policy(&mut self) -> Answer {
                Answer::from_number(apply_policy($index))
            }

            #[inline(always)]
            fn open_flow(&mut self) -> Answer {
                Answer::from_number(open_flow($index))
            }

            #[inline(always)]
            fn has_failsafe(&self) -> bool {
                decide::has_failsafe(&Maps)
            }

            #[inline(always)]
            fn apply_failsafe(&mut self) -> Answer {
                Answer::from_number($apply_failsafe(self.0))
            }

            #[inline(always)]
            fn note_first(&mut self) -> Answer {
                Answer::from_number(note_first($index))
            }

            #[inline(always)]
            fn note_admission(&mut self) {
                note_admission($index);
            }

            #[inline(always)]
            fn apply_observe(&mut self) -> Answer {
                Answer::from_number(apply_observe($index))
            }

            #[inline(always)]
            fn note_denial(&mut self) {
                note_denial($index);
            }
        }
    };
}

hook! {
    /// Packets that enter, at XDP.
    Xdp of xdp_md, xdp_frame, ENTERING,
    pull: xdp_pull, read_options: xdp_read_options, read_dhcp: xdp_read_dhcp,
    names: {note_inquiry: xdp_note_inquiry},
    leases: {settle_lease: xdp_settle_lease},
    enter: xdp_enter, admit: xdp_admit, apply_failsafe: xdp_apply_failsafe
}

hook! {
    /// Packets that enter, at TC.
    TcIngress of __sk_buff, tc_frame, ENTERING,
    pull: tc_pull, read_options: tc_enter_read_options, read_dhcp: tc_enter_read_dhcp,
    names: {note_inquiry: tc_enter_note_inquiry},
    leases: {settle_lease: tc_enter_settle_lease},
    enter: tc_enter, admit: tc_enter_admit, apply_failsafe: tc_enter_apply_failsafe
}

hook! {
    /// Packets that leave, at TC.
    TcEgress of __sk_buff, tc_frame, LEAVING,
    pull: tc_pull, read_options: tc_leave_read_options, read_dhcp: tc_leave_read_dhcp,
    names: {read_resolution: tc_leave_read_resolution},
    leases: {read_lease: tc_leave_read_lease, settle_lease: tc_leave_settle_lease},
    leave: tc_leave, hosted: tc_leave_hosted, admit: tc_leave_admit, apply_failsafe: tc_leave_apply_failsafe
}

/// Runs a first step. It is a part of its program, no function of its own: most packets need no other
/// step, and calls cost them up to 15 ns.
#[inline(always)]
fn first(index: u32, step: impl FnOnce(&mut Work) -> Option<Verdict>) -> Answer {
    match desk(index) {
        Some(desk) => {
            let verdict = step(&mut desk.work);
            note(&mut desk.verdict, verdict)
        }
        None => Answer::NO_MEMORY,
    }
}

/// The first step of a packet that enters at XDP.
#[inline(always)]
pub(super) fn xdp_enter_start(context: *mut xdp_md) -> Answer {
    // SAFETY: the context is the kernel's.
    let interface = number_of(unsafe { (*context).ingress_ifindex });
    first(ENTERING, |work| {
        decide::start_ingress(&xdp_frame(context), None, interface, &Maps, work)
    })
}

/// The first step of a packet that enters at TC.
#[inline(always)]
pub(super) fn tc_enter_start(context: *mut __sk_buff) -> Answer {
    // SAFETY: the context is the kernel's.
    let interface = number_of(unsafe { (*context).ifindex });
    first(ENTERING, |work| match pull(context) {
        Ok(tag) => decide::start_ingress(&tc_frame(context), tag, interface, &Maps, work),
        Err(reason) => Some(decide::start_unreadable(interface, reason, &Maps, work)),
    })
}

/// The first step of a packet that leaves.
#[inline(always)]
pub(super) fn tc_leave_start(context: *mut __sk_buff) -> Answer {
    // SAFETY: the context is the kernel's.
    let (ifindex, from) = unsafe { ((*context).ifindex, (*context).ingress_ifindex) };
    let (interface, from) = (number_of(ifindex), number_of(from));
    first(LEAVING, |work| match pull(context) {
        Ok(tag) => decide::start_egress(&tc_frame(context), tag, interface, from, &Maps, work),
        Err(reason) => Some(decide::start_unreadable(interface, reason, &Maps, work)),
    })
}

step! {
    /// Gives its sender an address that it claims.
    learn(index: u32), index, |desk| decide::learn(&Maps, &mut desk.work)
}

step! {
    /// Counts control against its sender's budget.
    charge_control(index: u32), index, |desk| decide::charge_control(&Maps, &mut desk.work)
}

step! {
    /// Asks policy.
    ask_policy(index: u32), index, |desk| {
        decide::ask_policy(&Maps, &mut desk.work);
        None
    }
}

step! {
    /// Asks policy about the names of the other end.
    ask_names(index: u32), index, |desk| {
        decide::ask_names(&Maps, &mut desk.work, |_, selector| {
            judge_name(index, selector);
        });
        None
    }
}

/// Asks policy about one name of the other end. A function of its own, because the verifier would
/// follow the search for each name.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn judge_name(index: u32, selector: u32) -> u32 {
    match desk(index) {
        Some(desk) => {
            decide::judge_name(&Maps, &mut desk.work, selector);
            1
        }
        None => 0,
    }
}

/// Takes the address in a record of an answer. A function of its own for the same reason.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn take_address(context: *mut __sk_buff, at: u32) -> u32 {
    match desk(LEAVING) {
        Some(desk) => {
            let frame = tc_frame(context);
            decide::take_address(&frame, at, &desk.work, |selector| {
                note_address(selector);
            });
            1
        }
        None => 0,
    }
}

/// Notes an address of a selector. A function of its own for the same reason.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn note_address(selector: u32) -> u32 {
    match desk(LEAVING) {
        Some(desk) => {
            decide::note_address(&Maps, &desk.work, selector);
            1
        }
        None => 0,
    }
}

step! {
    /// Finds the question that a packet may answer.
    find_question(index: u32), index, |desk| {
        decide::find_question(&Maps, &mut desk.work);
        None
    }
}

step! {
    /// Notes a question to a group.
    note_question(index: u32), index, |desk| {
        decide::note_question(&Maps, &desk.work);
        None
    }
}

step! {
    /// Applies the decision to a flow that exists.
    apply_policy(index: u32), index, |desk| decide::apply_policy(&Maps, &mut desk.work)
}

step! {
    /// Opens a flow.
    open_flow(index: u32), index, |desk| Some(decide::open_flow(&Maps, &mut desk.work))
}

step! {
    /// Notes the first part of a packet that passes, for later parts.
    note_first(index: u32), index,
    |desk| Some(decide::note_first(&Maps, &desk.work, desk.verdict))
}

step! {
    /// Notes a packet that has opened a flow, for where it leaves rewritten.
    note_admission(index: u32), index, |desk| {
        decide::note_admission(&Maps, &desk.work);
        None
    }
}

step! {
    /// Passes a drop where zones only observe.
    apply_observe(index: u32), index,
    |desk| Some(decide::apply_observe(&Maps, &mut desk.work, desk.verdict))
}

step! {
    /// Notes a denial, so that policy need not be asked again.
    note_denial(index: u32), index, |desk| {
        decide::note_denial(&Maps, &desk.work, &desk.verdict);
        None
    }
}
