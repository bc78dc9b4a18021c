//! Entry points: programs that the kernel runs for a packet, and programs that the daemon runs.
#![expect(
    unsafe_code,
    reason = "packet memory, map values and helpers are raw pointers here"
)]

mod carry;
mod client;
mod desk;
mod event;
mod forward;
mod frame;
mod maps;
mod steps;

use aya_ebpf::{
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC, xdp_action},
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};
use wardline_ebpf::{
    abi::{Address, Port, Reason},
    decide::{Answer, Fate, Verdict, finish, note},
    flows, forward as fast,
    lookup::Lookup as _,
    packet::{self, Bytes as _, number},
};

use self::{
    client::{is_clients, tc_copy_message, xdp_copy_message},
    desk::{ENTERING, LEAVING, desk},
    event::send_event,
    forward::xdp_forward,
    frame::{tc_frame, xdp_frame},
    maps::{CLOCK, Maps, REASONS, RULES, count, jiffies, number_of},
    steps::{TcEgress, TcIngress, Xdp, tc_enter_start, tc_leave_start, xdp_enter_start},
};

/// Judges packets that enter, as soon as the driver has them.
#[xdp]
#[inline(always)]
fn xdp_ingress(context: XdpContext) -> u32 {
    let started = xdp_enter_start(context.ctx);
    let answer = finish(&mut Xdp(context.ctx), started);
    report(ENTERING, answer);
    if answer.fate() != Fate::Established && is_clients() {
        xdp_copy_message(context.ctx);
    }
    #[cfg(feature = "log")]
    aya_log_ebpf::debug!(
        &context,
        "interface {}: reason {}",
        // SAFETY: the context is the kernel's.
        unsafe { (*context.ctx).ingress_ifindex },
        answer.number()
    );
    let forwards = || {
        desk(ENTERING)
            .is_some_and(|desk| fast::may_forward(&xdp_frame(context.ctx), &Maps, &desk.work))
    };
    match answer.fate() {
        Fate::Dropped => xdp_action::XDP_DROP,
        Fate::Established if forwards() => xdp_forward(context.ctx),
        Fate::Established | Fate::Passed => xdp_action::XDP_PASS,
    }
}

/// Judges packets that enter, on ports where XDP can't be used.
#[classifier]
#[inline(always)]
fn tc_ingress(context: TcContext) -> i32 {
    let started = tc_enter_start(context.skb.skb);
    let answer = finish(&mut TcIngress(context.skb.skb), started);
    if answer.fate() != Fate::Established && is_clients() {
        tc_copy_message(context.skb.skb);
    }
    judged(&context, ENTERING, answer)
}

/// Judges packets that leave.
#[classifier]
#[inline(always)]
fn tc_egress(context: TcContext) -> i32 {
    let started = tc_leave_start(context.skb.skb);
    let answer = finish(&mut TcEgress(context.skb.skb), started);
    judged(&context, LEAVING, answer)
}

/// Reports an answer at TC, and turns it into what the kernel does.
#[inline(always)]
fn judged(context: &TcContext, index: u32, answer: Answer) -> i32 {
    report(index, answer);
    #[cfg(feature = "log")]
    aya_log_ebpf::debug!(
        context,
        "interface {}: reason {}",
        // SAFETY: the context is the kernel's.
        unsafe { (*context.skb.skb).ifindex },
        answer.number()
    );
    #[cfg(not(feature = "log"))]
    let _ = context;
    match answer.fate() {
        Fate::Dropped => TC_ACT_SHOT,
        Fate::Established | Fate::Passed => TC_ACT_UNSPEC,
    }
}

/// Counts a verdict, and sends its event.
#[inline(always)]
fn report(index: u32, answer: Answer) {
    let Some(desk) = desk(index) else { return };
    if desk.verdict.counts {
        let length = desk.work.packet.length as u64;
        count(REASONS.get_ptr_mut(answer.number()), length);
        if desk.verdict.rule != 0 && desk.work.counted_by_flow == 0 {
            count(RULES.get_ptr_mut(desk.verdict.rule), length);
        }
        if desk.verdict.makes_event {
            send_event(index);
        }
    }
}

/// Tells the daemon the time in jiffies. Run by `BPF_PROG_TEST_RUN`.
#[classifier]
fn clock(_context: TcContext) -> i32 {
    if let Some(clock) = CLOCK.get_ptr_mut(0) {
        // SAFETY: a whole, aligned value, which only this program writes.
        unsafe { *clock = jiffies() };
    }
    0
}

/// Ends flows that have timed out, in the next bucket. Run by `BPF_PROG_TEST_RUN`.
#[classifier]
fn sweep(_context: TcContext) -> i32 {
    if let Some(settings) = Maps.settings() {
        flows::sweep(&Maps, settings, Maps.tick());
    }
    0
}

/// Drops packets that carry a VLAN tag outside the frame, on a port without VLANs where XDP judges:
/// XDP does not see that tag, and has judged the packets as untagged. On a port that only observes
/// they pass.
#[classifier]
fn tag_ingress(context: TcContext) -> i32 {
    let skb = context.skb.skb;
    // SAFETY: the context is the kernel's.
    let (present, tag, protocol) =
        unsafe { ((*skb).vlan_present, (*skb).vlan_tci, (*skb).vlan_proto) };
    // A priority tag (VLAN 0) counts as no tag, if it is 802.1Q.
    if present == 0 || tag & 0xfff == 0 && protocol == u32::from(0x8100u16.to_be()) {
        return TC_ACT_UNSPEC;
    }
    let Some(desk) = desk(ENTERING) else {
        return TC_ACT_SHOT;
    };
    let work = &mut desk.work;
    work.slot = Maps.active().unwrap_or(0) & 1;
    // SAFETY: the context is the kernel's.
    work.interface = number_of(unsafe { (*skb).ifindex });
    (work.device, work.zone) = (0, 0);
    (work.source.device, work.destination.device) = (0, 0);
    // What it is does not matter. It is parsed only for the event.
    let (frame, packet) = (tc_frame(context.skb.skb), &mut work.packet);
    let _ = packet::ethernet(&frame, Some(tag as u16), packet);
    let (v4, v6) = (
        packet.ethertype == number::IPV4,
        packet.ethertype == number::IPV6,
    );
    if v4 && let Some(source) = frame.read::<4>(14 + 12) {
        packet.source = Address::v4(*source);
    }
    if v4 && let Some(destination) = frame.read::<4>(14 + 16) {
        packet.destination = Address::v4(*destination);
    }
    if v6 && let Some(source) = frame.read::<16>(14 + 8) {
        packet.source = Address::v6(source);
    }
    if v6 && let Some(destination) = frame.read::<16>(14 + 24) {
        packet.destination = Address::v6(destination);
    }
    let observes = match Maps.port(Port::index(work.interface, work.slot)) {
        Some(port) => port.flags & Port::OBSERVES != 0,
        None => false,
    };
    let reason = if observes {
        Reason::Observed
    } else {
        Reason::WrongVlan
    };
    let verdict = Verdict {
        reason,
        would: Reason::WrongVlan,
        counts: true,
        makes_event: true,
        rule: 0,
    };
    let answer = note(&mut desk.verdict, Some(verdict));
    report(ENTERING, answer);
    if observes { TC_ACT_UNSPEC } else { TC_ACT_SHOT }
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
