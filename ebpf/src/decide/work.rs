//! What is known of a packet while it is judged, and the verdict.

use crate::{
    abi::{End, Flow, LOG, Reason},
    cell::{Cell32, Cell64},
    flows::{Opening, Sought},
    packet::Packet,
    policy::{self, Decision},
};

/// What happens to a packet, and why.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub struct Verdict {
    /// The reason, which also says whether it passes.
    pub reason: Reason,
    /// For [`Reason::Observed`], what it would have been dropped for; else the reason.
    pub would: Reason,
    /// Whether it is counted and told here; what entered through a guarded port was, there.
    pub counts: bool,
    /// Whether it makes an event.
    pub tells: bool,
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
            tells: !reason.passes(),
        }
    }

    #[inline(always)]
    pub(super) fn by_rule(reason: Reason, rule: u32) -> Self {
        let tells = !reason.passes() || rule & LOG != 0;
        Self {
            rule: policy::rule_number(rule),
            tells,
            ..Self::of(reason)
        }
    }

    /// A pass that another hook has already counted.
    #[inline(always)]
    pub(super) fn again(reason: Reason) -> Self {
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
            tells: true,
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
    pub ifindex: u32,
    /// The device that it is about: the sender, or for what comes from elsewhere the receiver.
    pub device: u32,
    /// Settings of the zone.
    pub(super) settings: u32,
    /// Zone of the port's VLAN; 0: none.
    pub zone: u16,
    /// Flags of the port.
    pub(super) port: u16,
    /// [`ENTERS`], [`INNER`], [`OWN`], [`FANS`].
    pub(super) way: u16,
    /// What policy says of the flow.
    pub(super) decision: Decision,
    /// 1 when the destination opened the flow, else 0.
    pub(super) reversed: u32,
    /// 1 when the flow ran before the port was guarded and may be adopted, else 0.
    pub(super) adopts: u32,
    /// What its flow is looked for by.
    pub sought: Sought,
    /// The sender's end of that.
    pub leg: u32,
    /// One more than where the flow is; 0: there is none.
    pub at: u32,
    /// 1 when the first step has passed it as part of that flow, else 0.
    pub fast: u32,
    /// 1 when its flow counts it for the rule, else 0.
    pub held: u32,
    /// Of what may be forwarded in the driver, the next hop that its flow remembers, as
    /// [`Flow::bind`](crate::abi::Flow::bind); 0: none.
    pub hop: u64,
    /// When that was asked, as [`FlowHops::looked`](crate::abi::FlowHops::looked).
    pub looked: u64,
    /// The generation of what it is judged by.
    pub(super) generation: u64,
    /// 1 when policy has refused it, and would again within that generation, else 0.
    pub denied: u32,
    /// The flow to open.
    pub(super) opening: Opening,
    /// Room for [`policy::judge`] and [`packet::network`](crate::packet::network).
    pub(super) place: Cell32,
    /// Room for [`flows::open`](crate::flows::open()).
    pub(super) best: Cell64,
}

/// It enters through a guarded port; else it leaves through one.
pub(super) const ENTERS: u16 = 1;
/// It leaves, and came from an interface behind which there are guarded ports.
pub(super) const INNER: u16 = 2;
/// It leaves, and the router itself sent it.
pub(super) const OWN: u16 = 4;
/// It leaves to a group, so through several ports, for each of which it is judged.
pub(super) const FANS: u16 = 8;

impl Work {
    #[inline(always)]
    pub(super) fn enters(&self) -> bool {
        self.way & ENTERS != 0
    }

    #[inline(always)]
    pub(super) fn inner(&self) -> bool {
        self.way & INNER != 0
    }

    #[inline(always)]
    pub(super) fn own(&self) -> bool {
        self.way & OWN != 0
    }

    #[inline(always)]
    pub(super) fn fans(&self) -> bool {
        self.way & FANS != 0
    }

    /// Where a packet comes from, as a flow remembers it.
    #[inline(always)]
    pub(super) fn bind(&self) -> u64 {
        if self.enters() {
            self.packet.source_mac << 16 | self.ifindex as u64
        } else if self.own() {
            Flow::OWN
        } else {
            Flow::OUTSIDE
        }
    }
}
