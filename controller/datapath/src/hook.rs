//! The hooks that judge: which program each has, and where and how it is attached.

use crate::{
    bpf::Hold,
    netlink::{Place, Side},
};

/// The hooks that judge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hook {
    /// Judges packets that enter, in the driver.
    Xdp,
    /// Judges packets that enter, above the driver.
    TcIngress,
    /// Judges packets that leave.
    TcEgress,
    /// Drops packets that enter with a VLAN tag which [`Hook::Xdp`] could not see.
    Tags,
}

impl Hook {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Xdp, Self::TcIngress, Self::TcEgress, Self::Tags];

    pub(crate) fn program(self) -> &'static str {
        match self {
            Self::Xdp => "xdp_ingress",
            Self::TcIngress => "tc_ingress",
            Self::TcEgress => "tc_egress",
            Self::Tags => "tag_ingress",
        }
    }

    pub(crate) fn pin(self) -> &'static str {
        match self {
            Self::Xdp => "xdp",
            Self::TcIngress => "ingress",
            Self::TcEgress => "egress",
            Self::Tags => "tags",
        }
    }

    /// Where its link attaches the program: before all others, because once a program passes a
    /// packet, the programs after it are not asked.
    pub(crate) fn hold(self) -> Hold {
        match self {
            Self::Xdp => Hold::Xdp,
            Self::TcIngress | Self::Tags => Hold::Ingress,
            Self::TcEgress => Hold::Egress,
        }
    }

    /// Its place as a filter; XDP has none.
    pub(crate) fn place(self) -> Option<(Side, Place)> {
        /// The first, for the same reason as in [`Hook::hold`].
        const PRIORITY: u16 = 1;
        // Unlikely to be taken, and never changed, because the next daemon replaces the filter at
        // this place.
        let (side, handle) = match self {
            Self::Xdp => return None,
            Self::TcIngress => (Side::Ingress, 0x776c),
            Self::TcEgress => (Side::Egress, 0x776c),
            Self::Tags => (Side::Ingress, 0x776d),
        };
        let priority = PRIORITY;
        Some((side, Place { priority, handle }))
    }
}
