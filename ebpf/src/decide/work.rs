//! What is known of a packet while it is judged, and the verdict.

use crate::{
    abi::{Address, End, Flow, LOG, Port, Reason},
    cell::{Cell32, Cell64},
    flows::{self, Opening, Sought},
    guards::Sender,
    names::Message,
    packet::{Bytes, Framed, Packet},
    policy::{self, Decision},
};

/// What happens to a packet, and why.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub struct Verdict {
    /// The reason, which also says whether it passes.
    pub reason: Reason,
    /// For [`Reason::Observed`], the reason for which it would have been dropped; else the reason.
    pub would: Reason,
    /// Whether it is counted and reported here. A packet that entered through a guarded port was
    /// counted there.
    pub counts: bool,
    /// Whether it makes an event.
    pub makes_event: bool,
    /// The rule that decided; 0: none.
    pub rule: u32,
}

impl Verdict {
    #[inline(always)]
    pub(super) fn of(reason: Reason) -> Self {
        Self {
            reason,
            would: reason,
            rule: 0,
            counts: true,
            makes_event: !reason.passes(),
        }
    }

    #[inline(always)]
    pub(super) fn by_rule(reason: Reason, rule: u32) -> Self {
        let makes_event = !reason.passes() || rule & LOG != 0;
        Self {
            rule: policy::rule_number(rule),
            makes_event,
            ..Self::of(reason)
        }
    }

    /// A pass that another hook has already counted.
    #[inline(always)]
    pub(super) fn already_counted(reason: Reason) -> Self {
        Self {
            counts: false,
            ..Self::of(reason)
        }
    }

    /// A pass that would be a drop if the zones enforced.
    #[inline(always)]
    pub(super) fn observed(would: Reason, rule: u32) -> Self {
        let rule = policy::rule_number(rule);
        Self {
            reason: Reason::Observed,
            would,
            rule,
            counts: true,
            makes_event: true,
        }
    }
}

impl From<Result<(), Reason>> for Verdict {
    #[inline(always)]
    fn from(control: Result<(), Reason>) -> Self {
        match control {
            Ok(()) => Self::of(Reason::Control),
            Err(reason) => Self::of(reason),
        }
    }
}

/// Everything known about a packet while it is judged. Starts as zeros.
#[derive(Debug, Default)]
pub struct Work {
    /// The packet, as far as it could be parsed.
    pub packet: Packet,
    /// What the source address is.
    pub source: End,
    /// What the destination address is.
    pub destination: End,
    /// The slot of the revision that judges.
    pub slot: u32,
    /// The present.
    pub tick: u32,
    /// The interface where it is judged.
    pub interface: u32,
    /// The device that the packet is counted for: the sender, or, when that is not behind a guarded
    /// port, the receiver.
    pub device: u32,
    /// Settings of the zone.
    pub(super) settings: u32,
    /// Zone of the port's VLAN; 0: none.
    pub zone: u16,
    /// The link that the port is on, as [`Port::link`](crate::abi::Port::link).
    pub(super) link: u32,
    /// MAC of the port's interface; 0: none.
    pub(super) own: u64,
    /// Flags of the port.
    pub(super) port: u16,
    /// Flags of the interface that a packet came from that leaves.
    pub(super) origin: u16,
    /// Zone of the port, when a host above a bridge sends through it that belongs to another zone;
    /// else 0.
    pub(super) beside: u16,
    /// [`INGRESS`], [`FROM_GUARDED`], [`FROM_ROUTER`], [`MULTICAST`], [`ASKED_TWICE`], [`HOSTED`].
    pub(super) path: u16,
    /// What policy says about the flow.
    pub(super) decision: Decision,
    /// 1 when the destination opened the flow, else 0.
    pub(super) reversed: u32,
    /// 1 when the flow ran before the port was guarded and may be adopted, else 0.
    pub(super) adopts: u32,
    /// 1 when it is what NAT has made of a packet that a guarded port admitted, or the answer to
    /// one, else 0.
    pub(super) rewritten: u32,
    /// When [`Work::rewritten`], the tick at which its flow has to be admitted anew.
    pub(super) answers_until: u32,
    /// 1 when it has opened a flow by a rule where it entered, or does so again, else 0.
    pub(super) opens: u32,
    /// The rule by which it asks a group and others may answer; 0: none.
    pub(super) asks: u32,
    /// The rule whose question it may answer; 0: none.
    pub(super) answers: u32,
    /// Tick until which that may be answered; [`NEVER`](crate::abi::NEVER) when there is none.
    pub(super) answers_end: u32,
    /// The search for its flow.
    pub sought: Sought,
    /// The sender's end of the key: 0 low, 1 high.
    pub leg: u32,
    /// One more than where the flow is, as [`Found::at`](crate::flows::Found::at); 0: no flow was
    /// found.
    pub at: u32,
    /// 1 when the first step has passed the packet as part of that flow, else 0.
    pub established: u32,
    /// 1 when the flow counts the packet for its rule, so that it must not be counted again; else
    /// 0.
    pub counted_by_flow: u32,
    /// The next hop that the flow knows, as [`Flow::bind`](crate::abi::Flow::bind), when the packet
    /// may be forwarded in the driver; 0: none.
    pub hop: u64,
    /// When the routing table was asked, as [`FlowHops::looked`](crate::abi::FlowHops::looked).
    pub looked: u64,
    /// The generation of the policy that judges it.
    pub(super) generation: u64,
    /// 1 when policy has denied it and would deny it again as long as the generation lasts, so that
    /// the denial may be kept; else 0.
    pub lasting_denial: u32,
    /// The flow to open.
    pub(super) opening: Opening,
    /// Scratch memory for [`policy::judge`] and [`packet::network`](crate::packet::network).
    pub(super) scratch: Cell32,
    /// Scratch memory for [`flows::open`](crate::flows::open()), and for the hash of a client
    /// identifier.
    pub(super) candidate: Cell64,
    /// For control that enters, [`CHARGED`], [`DHCP_CLIENT`] and [`CUT_OFF`]; else 0.
    pub(super) control: u32,
    /// Who sent it, as far as MAC, port and VLAN tell; only of what enters.
    pub(super) sender: Sender,
    /// The address that its sender claims without having it yet; unspecified: none.
    pub(super) claim: Address,
    /// Where the options of a DHCP message are that matter; see [`dhcp`](super::dhcp).
    pub(super) options: Options,
    /// A question to a resolver, or its answer.
    pub(super) message: Message,
}

/// What is known of the options of a DHCP message while they are read.
#[derive(Debug, Default)]
pub(super) struct Options {
    /// `offset << 16 | length` of the values that matter, each at its own place.
    pub places: [Cell32; 8],
    /// One bit for each place that has been filled; 8 bits higher, for each that was filled twice.
    pub filled: Cell32,
    /// DHCPv6: where the association ends that the option is in.
    pub inner: Cell32,
    /// DHCPv6: how many addresses there are.
    pub addresses: Cell32,
    /// How many addresses a message gives or gives back, at most four, if it passes.
    pub settles: Cell32,
    /// DHCPv4: the address that a server refuses, as its bytes are; 0: none.
    pub refused: Cell32,
}

/// In [`Work::control`]: it counts against its sender's budget.
pub(super) const CHARGED: u32 = 1;
/// In [`Work::control`]: it is a DHCP client's message.
pub(super) const DHCP_CLIENT: u32 = 2;
/// In [`Work::control`]: its sender is in quarantine.
pub(super) const CUT_OFF: u32 = 4;

/// In [`Work::path`]: the packet enters through a guarded port. Otherwise it leaves through one.
pub(super) const INGRESS: u16 = 1;
/// In [`Work::path`]: it leaves, and came in through a guarded port or an interface above one.
pub(super) const FROM_GUARDED: u16 = 2;
/// In [`Work::path`]: it leaves, and the router itself sent it.
pub(super) const FROM_ROUTER: u16 = 4;
/// In [`Work::path`]: it leaves to a group. A bridge sends a copy through each of several ports,
/// and each copy is judged.
pub(super) const MULTICAST: u16 = 8;
/// In [`Work::path`]: it leaves through a port in quarantine, and entered through a guarded port.
/// Policy is asked about it here as well, but its flow is not this port's to change.
pub(super) const ASKED_TWICE: u16 = 16;

/// In [`Work::path`], beside [`INGRESS`]: it leaves, and a container or a virtual machine with a MAC
/// of its own above the port has sent it. See [`hosted`](super::hosted).
pub(super) const HOSTED: u16 = 32;

impl Work {
    /// Whether it leaves and is judged as if it entered.
    #[inline(always)]
    pub fn is_hosted(&self) -> bool {
        self.path & HOSTED != 0
    }

    /// Whether a host above a bridge or a bond has sent it: one that is behind no port, but beside all
    /// of them. A copy may leave through each.
    #[inline(always)]
    pub(super) fn is_above_ports(&self) -> bool {
        self.is_hosted() && self.port & Port::MEMBER != 0
    }

    /// Whether the receiver may be above the port where it is judged, so that no hook sees it leave.
    /// What a bridge passes on to another port is looked at there.
    #[inline(always)]
    pub(super) fn may_end_here(&self) -> bool {
        self.is_hosted() || self.is_ingress() && self.port & Port::MEMBER == 0
    }

    #[inline(always)]
    pub(super) fn is_ingress(&self) -> bool {
        self.path & INGRESS != 0
    }

    #[inline(always)]
    pub(super) fn is_from_guarded(&self) -> bool {
        self.path & FROM_GUARDED != 0
    }

    #[inline(always)]
    pub(super) fn is_from_router(&self) -> bool {
        self.path & FROM_ROUTER != 0
    }

    #[inline(always)]
    pub(super) fn is_multicast(&self) -> bool {
        self.path & MULTICAST != 0
    }

    /// Whether only policy decides, and no flow is opened or renewed.
    #[inline(always)]
    pub(super) fn leaves_no_flow(&self) -> bool {
        self.path & (MULTICAST | ASKED_TWICE) != 0
    }

    /// Whether the port is in quarantine.
    #[inline(always)]
    pub(super) fn is_cut_off(&self) -> bool {
        self.port & Port::QUARANTINED != 0
    }

    /// Whether packets of the port have no link header.
    #[inline(always)]
    pub(super) fn is_bare(&self) -> bool {
        self.port & Port::BARE != 0
    }

    /// The packet's bytes, at the offsets of a frame.
    #[inline(always)]
    pub(super) fn framed<'a, B: Bytes + ?Sized>(&self, bytes: &'a B) -> Framed<'a, B> {
        Framed::new(bytes, (self.port / Port::BARE) as u32 & 1)
    }

    /// Who sent a packet that enters, as far as the link tells: its MAC. Without a link header it is
    /// the address, made like the MAC of a group, which sends nothing.
    #[inline(always)]
    fn sent_by(&self) -> u64 {
        if self.is_bare() {
            let [high, low] = self.packet.source.0;
            let mixed = flows::folded(high, low) & 0xffff_ffff_ffff;
            mixed | 1 << 40
        } else {
            self.packet.source_mac
        }
    }

    /// Where the packet comes from, as [`Flow::bind`] has it.
    #[inline(always)]
    pub(super) fn bind(&self) -> u64 {
        if self.is_ingress() {
            self.sent_by() << 16 | self.interface as u64
        } else if self.is_from_router() {
            Flow::OWN
        } else if self.rewritten != 0 {
            Flow::NAT
        } else {
            Flow::OUTSIDE
        }
    }
}
