//! Reads flows from the table of another version, as records, wherever that version keeps their fields.

use wardline_ebpf::abi::{Address, Carried, Flow, FlowKey, NEVER};

use crate::layout::{Layout, Structure};

/// Where the fields of flows are in one bucket.
pub(super) struct Records {
    /// The size of a bucket.
    pub(super) bucket: usize,
    ways: usize,
    tags: usize,
    last: usize,
    entries: usize,
    entry: usize,
    key: usize,
    counts: usize,
    bind: Option<usize>,
    packets: Option<usize>,
    state: usize,
    addresses: usize,
    devices: usize,
    rule: usize,
    until: Option<usize>,
    would: Option<usize>,
    counted_packets: Option<usize>,
    counted_bytes: Option<usize>,
    /// The first account of unlisted MACs, there and here.
    unlisted: [u32; 2],
}

impl Records {
    /// Finds the fields by their names; none where one is missing without which a flow is none.
    pub(super) fn find(layout: &Layout, unlisted: [u32; 2]) -> Option<Self> {
        let bucket = layout.structure("Bucket")?;
        let entry = layout.structure("FlowEntry")?;
        let (flow, ends) = (layout.structure("Flow")?, layout.structure("FlowEnds")?);
        let ways = bucket.place("tags")?.1 / 4;
        let flow_at = entry.field("flow", flow.size)?;
        let ends_at = entry.field("ends", ends.size)?;
        let of_flow = |name, size| Some(flow_at + flow.field(name, size)?);
        let of_ends = |name, size| Some(ends_at + ends.field(name, size)?);
        Some(Self {
            bucket: bucket.size,
            ways,
            tags: bucket.field("tags", 4 * ways)?,
            last: bucket.field("last", 4 * ways)?,
            entries: bucket.field("ways", entry.size * ways)?,
            entry: entry.size,
            key: of_flow("key", 16)?,
            counts: of_flow("counts", 16)?,
            bind: of_flow("bind", 16),
            packets: of_flow("packets", 8),
            state: of_flow("state", 4)?,
            addresses: of_ends("addresses", 32)?,
            devices: of_ends("devices", 8)?,
            rule: of_ends("rule", 4)?,
            until: of_ends("until", 4),
            would: of_ends("would", 4),
            counted_packets: of_ends("packets", 4),
            counted_bytes: of_ends("bytes", 8),
            unlisted,
        })
    }

    /// The first account of unlisted MACs by that version's settings.
    pub(super) fn unlisted(layout: &Layout, settings: &[u8]) -> Option<u32> {
        let structure: &Structure = layout.structure("Settings")?;
        let at = structure.field("unlisted", 4)?;
        (settings.len() == structure.size).then(|| word(settings, at))
    }

    /// The flows of one bucket.
    pub(super) fn of<'a>(&'a self, bucket: &'a [u8]) -> impl Iterator<Item = Carried> + 'a {
        let taken = |way: &usize| word(bucket, self.tags + 4 * way) != 0;
        (0..self.ways)
            .filter(taken)
            .map(|way| self.record(bucket, way))
    }

    fn record(&self, bucket: &[u8], way: usize) -> Carried {
        let last = word(bucket, self.last + 4 * way);
        let begin = self.entries + self.entry * way;
        let entry = bucket.get(begin..begin + self.entry).unwrap_or_default();
        let pair = |at: usize| [word(entry, at), word(entry, at + 4)];
        let longs = |at: usize| [long(entry, at), long(entry, at + 8)];
        let packets = self.packets.map(pair).unwrap_or_default();
        let bytes = longs(self.counts).map(|it| it & ((1 << Flow::CELL) - 1));
        // Where that version does not say what is credited to rules, all of it is.
        let all = packets[0].wrapping_add(packets[1]);
        let counted_packets = self.counted_packets.map_or(all, |at| word(entry, at));
        let counted_bytes = self
            .counted_bytes
            .map_or(bytes[0] + bytes[1], |at| long(entry, at));
        Carried {
            key: FlowKey {
                low: Address(longs(self.addresses)),
                high: Address(longs(self.addresses + 16)),
                ports: long(entry, self.key + 8) & !FlowKey::V6,
            },
            // Without an interface the next packet is judged by all steps, as it is anyway.
            bind: self.bind.map(longs).unwrap_or_default(),
            bytes,
            counted_bytes,
            packets,
            counted_packets,
            devices: pair(self.devices).map(|account| self.account(account)),
            rule: word(entry, self.rule),
            until: self.until.map_or(NEVER, |at| word(entry, at)),
            would: self.would.map_or(0, |at| word(entry, at)),
            state: word(entry, self.state),
            last,
            what: Carried::OPEN,
            reserved: 0,
        }
    }

    /// The account here of an account there. Devices keep their numbers, which the store has by name;
    /// accounts of unlisted MACs are behind those, and there may be room for more devices.
    fn account(&self, account: u32) -> u32 {
        let [there, here] = self.unlisted;
        match account.checked_sub(there) {
            Some(unlisted) => here.wrapping_add(unlisted),
            None => account,
        }
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    let word = bytes.get(at..at + 4).and_then(|it| it.try_into().ok());
    word.map_or(0, u32::from_ne_bytes)
}

fn long(bytes: &[u8], at: usize) -> u64 {
    let long = bytes.get(at..at + 8).and_then(|it| it.try_into().ok());
    long.map_or(0, u64::from_ne_bytes)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
mod tests {
    use wardline_ebpf::abi::{Bucket, FlowEntry};
    use zerocopy::IntoBytes as _;

    use super::*;

    /// A flow of UDP over IPv6 in a bucket of this version.
    fn bucket() -> Bucket {
        let bucket = Bucket::default();
        let FlowEntry { flow, ends } = &bucket.ways[2];
        bucket.tags[2].store(7);
        bucket.last[2].store(1000);
        flow.key[1].store(4000 << 48 | 53 << 32 | FlowKey::V6 | 17);
        flow.counts[0].store(7 << Flow::CELL | 300);
        flow.counts[1].store(100);
        flow.bind[1].store(5 << 16 | 3);
        flow.packets[0].store(3);
        flow.packets[1].store(1);
        flow.state.store(2);
        ends.addresses[1].store(1);
        ends.addresses[3].store(2);
        ends.devices[0].store(4);
        ends.devices[1].store(102);
        ends.rule.store(5);
        ends.until.store(2000);
        ends.would.store(9);
        ends.packets.store(3);
        ends.bytes.store(260);
        bucket
    }

    fn carried() -> Carried {
        Carried {
            key: FlowKey {
                low: Address([0, 1]),
                high: Address([0, 2]),
                ports: 4000 << 48 | 53 << 32 | 17,
            },
            bind: [0, 5 << 16 | 3],
            bytes: [300, 100],
            counted_bytes: 260,
            packets: [3, 1],
            counted_packets: 3,
            devices: [4, 202],
            rule: 5,
            until: 2000,
            would: 9,
            state: 2,
            last: 1000,
            what: Carried::OPEN,
            reserved: 0,
        }
    }

    #[test]
    fn a_flow_of_this_version_is_read_whole() {
        let records = Records::find(&Layout::own(), [100, 200]).unwrap();
        assert_eq!(records.bucket, size_of::<Bucket>());
        let mut bucket = bucket();
        let read: Vec<_> = records.of(bucket.as_mut_bytes()).collect();
        assert_eq!(read, [carried()]);
    }

    #[test]
    fn another_order_another_number_of_ways_and_more_fields_are_read_by_name() {
        let text = "Bucket 240\nBucket.ways 32 208\nBucket.last 0 4\nBucket.tags 8 4\n\
                    FlowEntry 208\nFlowEntry.ends 0 80\nFlowEntry.flow 96 112\n\
                    Flow 112\nFlow.new 0 40\nFlow.state 40 4\nFlow.bind 48 16\nFlow.key 64 16\n\
                    Flow.counts 80 16\nFlow.packets 96 8\n\
                    FlowEnds 80\nFlowEnds.rule 0 4\nFlowEnds.devices 4 8\nFlowEnds.addresses 16 32\n\
                    FlowEnds.bytes 48 8\nFlowEnds.packets 56 4\nFlowEnds.would 60 4\n";
        let records = Records::find(&Layout::parse(text.as_bytes()), [100, 200]).unwrap();
        let mut there = vec![0xffu8; records.bucket];
        let mut put = |at: usize, bytes: &[u8]| there[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &1000u32.to_ne_bytes());
        put(8, &1u32.to_ne_bytes());
        let mut bucket = bucket();
        let own = bucket.ways[2].as_mut_bytes().to_vec();
        let entry = 32;
        for (from, to, size) in [
            // Of the flow: key, counts, bind, packets, state.
            (0, 96 + 64, 16),
            (16, 96 + 80, 16),
            (32, 96 + 48, 16),
            (48, 96 + 96, 8),
            (60, 96 + 40, 4),
            // Of its ends: addresses, devices, rule, would, packets, bytes.
            (64, 16, 32),
            (96, 4, 8),
            (104, 0, 4),
            (112, 60, 4),
            (116, 56, 4),
            (120, 48, 8),
        ] {
            put(entry + to, &own[from..from + size]);
        }
        let read: Vec<_> = records.of(&there).collect();
        // That version does not say when rules end: policy is asked before that matters.
        let expected = Carried {
            until: NEVER,
            ..carried()
        };
        assert_eq!(read, [expected]);
    }

    #[test]
    fn a_table_without_what_makes_a_flow_is_not_read() {
        let text = Layout::own().to_text();
        for line in [
            "Flow.key ",
            "FlowEnds.addresses ",
            "Bucket.tags ",
            "FlowEntry.ends ",
        ] {
            let less: String = text
                .lines()
                .filter(|it| !it.starts_with(line))
                .map(|it| format!("{it}\n"))
                .collect();
            assert!(less.len() < text.len(), "{line}");
            assert!(
                Records::find(&Layout::parse(less.as_bytes()), [0; 2]).is_none(),
                "{line}"
            );
        }
    }
}
