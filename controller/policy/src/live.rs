//! The flows that are in the kernel's table, as the daemon reads them.

use wardline_ebpf::{
    abi::{Address, Bucket, Counter, FlowEntry, FlowKey, RULE_FLAGS, Settings},
    flows,
};

/// A flow, as it was when it was read. Index 0 is the key's low end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Live {
    /// Its key in the table.
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
    /// The rule that admitted it, without its flags; 0: none.
    pub rule: u32,
    /// Packets and bytes that are already credited to rules that admitted it before.
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
            rule: ends.rule.load() & !RULE_FLAGS,
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

    /// Its rule, and what the rule will be credited with when the flow ends.
    pub fn due(&self) -> (u32, Counter) {
        let packets = self.packets[0].wrapping_add(self.packets[1]);
        let due = Counter {
            packets: packets.wrapping_sub(self.counted.packets as u32).into(),
            bytes: (self.bytes[0] + self.bytes[1]).saturating_sub(self.counted.bytes),
        };
        (self.rule, due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UDP: u64 = 17;

    /// A flow of UDP over IPv6 with four packets, of which three are counted already.
    fn live() -> Live {
        let bucket = Bucket::default();
        let FlowEntry { flow, ends } = &bucket.ways[2];
        flow.key[1].store(4000 << 48 | 53 << 32 | FlowKey::V6 | UDP);
        flow.packets[0].store(3);
        flow.packets[1].store(1);
        // The number of the epoch's cell does not count as bytes.
        flow.counts[0].store(7 << 52 | 300);
        flow.counts[1].store(100);
        ends.addresses[1].store(1);
        ends.addresses[3].store(2);
        ends.rule.store(5 | RULE_FLAGS);
        ends.packets.store(3);
        ends.bytes.store(260);
        bucket.last[2].store(1000);
        Live::of(&bucket, 2)
    }

    #[test]
    fn a_flow_is_read_without_what_the_table_keeps_beside_it() {
        let live = live();
        assert_eq!(live.key.ports, 4000 << 48 | 53 << 32 | UDP);
        assert_eq!(live.protocol(), 17);
        assert_eq!((live.key.low.0, live.key.high.0), ([0, 1], [0, 2]));
        assert_eq!(live.rule, 5);
        assert_eq!(live.bytes, [300, 100]);
    }

    #[test]
    fn a_rule_is_due_what_no_rule_has_been_given_yet() {
        let due = Counter {
            packets: 1,
            bytes: 140,
        };
        assert_eq!(live().due(), (5, due));
    }

    #[test]
    fn a_flow_lives_as_long_as_it_may_be_silent() {
        let settings = Settings::for_flows(64);
        let live = live();
        assert!(live.is_live(&settings, 1000 + settings.udp));
        assert!(!live.is_live(&settings, 1001 + settings.udp));
        // Its last packet may be later than the tick that was read before.
        assert!(live.is_live(&settings, 999));
    }
}
