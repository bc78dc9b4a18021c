//! How a flow is found: its key, and the hash of the key.

use crate::{
    abi::{Address, DENIAL_SETS, Flow, FlowEnds, FlowKey, Settings},
    cell::Cell32,
    packet::{Packet, Quoted, Shape, query_kind},
};

/// The key of a packet's flow and the packet's end of it, for packets that can belong to one.
#[inline(always)]
pub fn key(packet: &Packet) -> (FlowKey, usize) {
    let (mut key, leg) = ordered(
        packet.source,
        packet.destination,
        packet.source_port,
        packet.destination_port,
        (query_kind(packet) as u64) << 8 | packet.protocol as u64,
    );
    key.ports |= match packet.shape {
        Shape::Query => asker(leg),
        Shape::Answer => asker(leg ^ 1),
        _ => 0,
    };
    (key, leg)
}

/// The key of the flow that an error is about.
#[inline(always)]
pub fn quoted_key(quoted: &Quoted) -> FlowKey {
    let (mut key, leg) = ordered(
        quoted.source,
        quoted.destination,
        quoted.source_port,
        quoted.destination_port,
        (quoted.kind as u64) << 8 | quoted.protocol as u64,
    );
    if quoted.kind != 0 {
        key.ports |= asker(if quoted.answers { leg ^ 1 } else { leg });
    }
    key
}

/// The key of the flow that a later part of a fragmented packet belongs to, and the sender's end of
/// it; `ports` is [`FlowKey::ports`].
#[inline(always)]
pub fn part_key(packet: &Packet, ports: u64) -> (FlowKey, usize) {
    let (key, leg) = ordered(packet.source, packet.destination, 0, 0, 0);
    (FlowKey { ports, ..key }, leg)
}

/// The end that asks, as part of a query's key: both ends may ask each other with the same
/// identifier.
#[inline(always)]
fn asker(leg: usize) -> u64 {
    (leg as u64 & 1) << 16
}

#[inline(always)]
fn ordered(
    source: Address,
    destination: Address,
    source_port: u16,
    destination_port: u16,
    rest: u64,
) -> (FlowKey, usize) {
    let source_is_low = if source.0[0] != destination.0[0] {
        source.0[0] < destination.0[0]
    } else {
        source.0[1] < destination.0[1]
    };
    let (from, to) = (source_port as u64, destination_port as u64);
    if source_is_low {
        (
            FlowKey {
                low: source,
                high: destination,
                ports: from << 48 | to << 32 | rest,
            },
            0,
        )
    } else {
        (
            FlowKey {
                low: destination,
                high: source,
                ports: to << 48 | from << 32 | rest,
            },
            1,
        )
    }
}

/// The search for a flow. All steps share one, outside the kernel's stack.
#[derive(Debug, Default)]
pub struct Sought {
    /// The key.
    pub key: FlowKey,
    /// [`Flow::key`].
    pub(super) words: [u64; 2],
    /// Their hash: the low half chooses the bucket, the high half is in
    /// [`Bucket::tags`](crate::abi::Bucket::tags).
    pub(super) hash: u64,
    /// Keeps the number of the way where the verifier does not track it, because it would follow
    /// each.
    pub(super) way: Cell32,
}

impl Sought {
    /// Searches for a flow from now on. The seed makes the hash unpredictable to attackers, and
    /// every bit of the key affects every bit of the hash.
    #[inline(always)]
    pub fn set(&mut self, key: FlowKey, seed: u64) {
        self.key = key;
        let [low_high, low] = key.low.number();
        let [high_high, high] = key.high.number();
        let is_v4 = low_high | high_high == 0 && low >> 32 == 0xffff && high >> 32 == 0xffff;
        if is_v4 {
            self.words = [low << 32 | high & 0xffff_ffff, key.ports];
        } else {
            let addresses = [low_high, low, high_high, high];
            let hash = addresses.into_iter().fold(seed, folded);
            self.words = [hash, key.ports | FlowKey::V6];
        }
        let hash = self.words.into_iter().fold(seed, folded);
        let hash = hash.wrapping_mul(0xd6e8_feb8_6659_fd93);
        self.hash = hash ^ hash >> 32;
    }

    /// The set where a denial of this flow is kept.
    #[inline(always)]
    pub fn denials(&self) -> u32 {
        (self.hash >> 20) as u32 & (DENIAL_SETS - 1)
    }

    /// The tag of a denial of this flow in that set; never 0.
    #[inline(always)]
    pub fn denial_tag(&self) -> u64 {
        self.hash >> 48 | 1
    }

    #[inline(always)]
    pub(super) fn bucket(&self, settings: &Settings) -> u32 {
        (((self.hash & 0xffff_ffff) * settings.buckets as u64) >> 32) as u32
    }

    /// The part of the hash that is stored in [`Bucket::tags`](crate::abi::Bucket::tags); never 0.
    #[inline(always)]
    pub(super) fn tag(&self) -> u32 {
        (self.hash >> 32) as u32 | 1
    }

    /// Whether a flow is the one sought; for IPv6, whether it may be.
    #[inline(always)]
    pub(super) fn may_be(&self, flow: &Flow) -> bool {
        (flow.key[0].load() ^ self.words[0]) | (flow.key[1].load() ^ self.words[1]) == 0
    }

    /// Whether a flow is between the addresses.
    #[inline(always)]
    pub(super) fn is_between(&self, ends: &FlowEnds) -> bool {
        let [a, b] = self.key.low.0;
        let [c, d] = self.key.high.0;
        let [e, f, g, h] = [0, 1, 2, 3].map(|word| ends.addresses[word].load());
        (a ^ e) | (b ^ f) | (c ^ g) | (d ^ h) == 0
    }

    /// Whether a flow is the one sought. For IPv4 the addresses need not be compared, but one path
    /// for both families saves the verifier a branch.
    #[inline(always)]
    pub(super) fn is(&self, flow: &Flow, ends: &FlowEnds) -> bool {
        self.may_be(flow) && self.is_between(ends)
    }
}

/// Adds a word to a hash: multiplies and folds.
#[inline(always)]
pub(crate) fn folded(hash: u64, word: u64) -> u64 {
    let hash = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    hash ^ hash >> 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_spread_over_buckets() {
        // Whichever part of the key differs: a port at either end, or an address.
        let address = |n: u8, host: u16| {
            let [high, low] = host.to_be_bytes();
            Address::v4([10, n, high, low])
        };
        let key = |low: u16, high: u16, host: u16| FlowKey {
            low: address(1, host),
            high: address(2, 1),
            ports: u64::from(low) << 48 | u64::from(high) << 32 | 6,
        };
        let spreads: [&dyn Fn(u16) -> FlowKey; 3] =
            [&|n| key(n, 443, 1), &|n| key(443, n, 1), &|n| key(1, 2, n)];
        let settings = Settings {
            buckets: 256,
            ..Settings::for_flows(64)
        };
        for flow in spreads {
            let mut buckets = [0u32; 256];
            for n in 0..1024 {
                let mut sought = Sought::default();
                sought.set(flow(n), 7);
                buckets[sought.bucket(&settings) as usize] += 1;
            }
            let fullest = buckets.into_iter().max().unwrap_or(0);
            assert!(
                fullest <= 14,
                "{fullest} of 1024 flows are in one of 256 buckets"
            );
        }
    }
}
