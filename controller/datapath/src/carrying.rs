//! What is known of another version while its tables are taken over.

use std::collections::HashMap;

use wardline_ebpf::abi::{Carried, FlowKey};

use crate::{layout::Layout, other::Other};

/// Another version, while what it has is taken over.
pub(crate) struct Carrying {
    pub(crate) other: Other,
    /// The form of its tables; none: nothing of them is taken over.
    pub(crate) layout: Option<Layout>,
    /// What its flows had counted when they were carried.
    pub(crate) known: HashMap<FlowKey, Known>,
}

/// What a flow had when it was carried.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) packets: [u32; 2],
    pub(crate) bytes: [u64; 2],
    pub(crate) state: u32,
}

impl Known {
    pub(crate) fn of(flow: &Carried) -> Self {
        Self {
            packets: flow.packets,
            bytes: flow.bytes,
            state: flow.state,
        }
    }

    /// What has been counted since, of a flow that is the same or has begun anew.
    pub(crate) fn since(self, flow: &Carried) -> Carried {
        let begun_anew = (0..2).any(|leg| flow.packets[leg] < self.packets[leg]);
        let before = match begun_anew {
            true => ([0; 2], [0; 2]),
            false => (self.packets, self.bytes),
        };
        Carried {
            packets: [0, 1].map(|leg| flow.packets[leg] - before.0[leg]),
            bytes: [0, 1].map(|leg| flow.bytes[leg].saturating_sub(before.1[leg])),
            counted_packets: 0,
            counted_bytes: 0,
            what: Carried::SINCE,
            ..*flow
        }
    }
}
