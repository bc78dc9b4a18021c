//! The flows that are in the kernel's table, as the daemon reads them.

use std::{io, os::fd::BorrowedFd};

use wardline_ebpf::{
    abi::{Address, Bucket, Counter, Flow, FlowEnds, FlowKey, FlowTerms, LOG, Settings, WAYS},
    flows,
};

use crate::bpf;

/// A flow, as it was when it was read. Index 0 is the key's low end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Live {
    /// What it was found by.
    pub key: FlowKey,
    /// [`Flow::state`].
    pub state: u32,
    /// [`Flow::stamp`].
    pub stamp: u32,
    /// Tick of the last packet.
    pub last: u32,
    /// Packets from each end.
    pub packets: [u32; 2],
    /// Bytes from each end; whole frames.
    pub bytes: [u64; 2],
    /// [`Flow::bind`].
    pub bind: [u64; 2],
    /// [`FlowTerms::devices`].
    pub devices: [u32; 2],
    /// The rule that admitted it, without [`LOG`]; 0: none.
    pub rule: u32,
    /// What has been counted for a rule that admitted it before.
    counted: Counter,
}

impl Live {
    fn of(flow: &Flow, last: u32, ends: &FlowEnds, terms: &FlowTerms) -> Self {
        let [a, b, c, d] = [0, 1, 2, 3].map(|word| ends.addresses[word].load());
        Self {
            key: FlowKey {
                low: Address([a, b]),
                high: Address([c, d]),
                ports: flow.key[1].load() & !FlowKey::V6,
            },
            state: flow.state.load(),
            stamp: flow.stamp.load(),
            last,
            packets: [0, 1].map(|leg| flow.packets[leg].load()),
            bytes: [0, 1].map(|leg| flow.bytes(leg)),
            bind: [0, 1].map(|leg| flow.bind[leg].load()),
            devices: [0, 1].map(|leg| terms.devices[leg].load()),
            rule: terms.rule.load() & !LOG,
            counted: Counter {
                packets: terms.packets.load().into(),
                bytes: terms.bytes.load(),
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

/// The map that could not be read, and why.
pub(crate) type Refused = (&'static str, io::Error);

/// Buckets that are read at once.
const AT_ONCE: u32 = 1024;

/// Calls with every flow of a table; its maps are the flows and their terms.
pub(crate) fn each(
    maps: [(&'static str, BorrowedFd<'_>); 2],
    buckets: u32,
    mut visit: impl FnMut(&Live),
) -> Result<(), Refused> {
    let [table, terms] = maps;
    for first in (0..buckets).step_by(AT_ONCE as usize) {
        let count = (buckets - first).min(AT_ONCE) as usize;
        let flows = Read::<Bucket>::new(table, first, count)?;
        let taken = |bucket: &Bucket| bucket.tags.iter().any(|tag| tag.load() != 0);
        if !flows.values().iter().any(taken) {
            continue;
        }
        let terms = Read::<[FlowTerms; WAYS]>::new(terms, first, count)?;
        for (bucket, terms) in flows.values().iter().zip(terms.values()) {
            let last = bucket.last.iter().zip(&bucket.tags);
            let ways = bucket.flows.iter().zip(&bucket.ends).zip(terms).zip(last);
            for (((flow, ends), terms), (last, tag)) in ways {
                if tag.load() != 0 {
                    visit(&Live::of(flow, last.load(), ends, terms));
                }
            }
        }
    }
    Ok(())
}

/// What stands in a map that is an array.
struct Read<T> {
    words: Vec<u64>,
    of: std::marker::PhantomData<T>,
}

impl<T: OfWords> Read<T> {
    fn new(
        (name, map): (&'static str, BorrowedFd<'_>),
        first: u32,
        count: usize,
    ) -> Result<Self, Refused> {
        let size = size_of::<T>();
        let mut words = vec![0; count * size / 8];
        let read = bpf::read_array(map, first, size, &mut words);
        read.map_err(|source| (name, source))?;
        Ok(Self {
            words,
            of: std::marker::PhantomData,
        })
    }

    #[expect(
        unsafe_code,
        reason = "the same bytes, as the type that the kernel's programs use"
    )]
    fn values(&self) -> &[T] {
        let count = self.words.len() * 8 / size_of::<T>();
        // SAFETY: so many fit, aligned as words are, and every bit pattern is a value.
        unsafe { std::slice::from_raw_parts(self.words.as_ptr().cast(), count) }
    }
}

/// Types of integers only, that are whole words long and no stricter aligned.
trait OfWords {}
impl OfWords for Bucket {}
impl OfWords for [FlowTerms; WAYS] {}
