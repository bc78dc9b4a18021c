//! The flows that are in the kernel's table, as the daemon reads them.

use wardline_ebpf::{
    abi::{Address, Bucket, Counter, FlowEntry, FlowKey, LOG, Settings},
    flows,
};

/// A flow, as it was when it was read. Index 0 is the key's low end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Live {
    /// What it was found by.
    pub key: FlowKey,
    /// [`Flow::state`](wardline_ebpf::abi::Flow::state).
    pub state: u32,
    /// [`Flow::stamp`](wardline_ebpf::abi::Flow::stamp).
    pub stamp: u32,
    /// Tick of the last packet.
    pub last: u32,
    /// Packets from each end.
    pub packets: [u32; 2],
    /// Bytes from each end; whole frames.
    pub bytes: [u64; 2],
    /// [`Flow::bind`](wardline_ebpf::abi::Flow::bind).
    pub bind: [u64; 2],
    /// [`FlowEnds::devices`](wardline_ebpf::abi::FlowEnds::devices).
    pub devices: [u32; 2],
    /// The rule that admitted it, without [`LOG`]; 0: none.
    pub rule: u32,
    /// What has been counted for a rule that admitted it before.
    counted: Counter,
}

impl Live {
    /// A flow of a bucket.
    pub fn of(bucket: &Bucket, way: usize) -> Self {
        let FlowEntry { flow, ends } = &bucket.ways[way];
        let [a, b, c, d] = [0, 1, 2, 3].map(|word| ends.addresses[word].load());
        Self {
            key: FlowKey {
                low: Address([a, b]),
                high: Address([c, d]),
                ports: flow.key[1].load() & !FlowKey::V6,
            },
            state: flow.state.load(),
            stamp: flow.stamp.load(),
            last: bucket.last[way].load(),
            packets: [0, 1].map(|leg| flow.packets[leg].load()),
            bytes: [0, 1].map(|leg| flow.bytes(leg)),
            bind: [0, 1].map(|leg| flow.bind[leg].load()),
            devices: [0, 1].map(|leg| ends.devices[leg].load()),
            rule: ends.rule.load() & !LOG,
            counted: Counter {
                packets: ends.packets.load().into(),
                bytes: ends.bytes.load(),
            },
        }
    }

    /// The IP protocol.
    pub fn protocol(&self) -> u8 {
        self.key.ports as u8
    }

    /// Whether it has not timed out.
    pub fn is_live(&self, settings: &Settings, now: u32) -> bool {
        let idle = now.wrapping_sub(self.last) as i32;
        idle <= flows::lifetime(self.protocol(), self.state, settings) as i32
    }

    /// Its rule, and what it will count for that when it ends.
    pub fn due(&self) -> (u32, Counter) {
        let packets = self.packets[0].wrapping_add(self.packets[1]);
        let due = Counter {
            packets: packets.wrapping_sub(self.counted.packets as u32).into(),
            bytes: (self.bytes[0] + self.bytes[1]).saturating_sub(self.counted.bytes),
        };
        (self.rule, due)
    }
}
