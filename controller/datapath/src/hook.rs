//! The hooks that judge: which program is at which, and how each is held there.

use crate::{
    bpf::Hold,
    netlink::{Place, Side},
};

/// The hooks that judge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hook {
    /// What enters, in the driver.
    Xdp,
    /// What enters, above the driver.
    TcIngress,
    /// What leaves.
    TcEgress,
    /// What enters with a VLAN tag that [`Hook::Xdp`] could not see; drops it.
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

    /// Before all others, on either side: a program that says pass ends the round, so that those
    /// behind it are not asked.
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
        // Unlikely to be taken, and the same for ever: the next daemon replaces what is there.
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
