//! What is known of one MAC, as it is kept.

use jiff::Timestamp;

/// What is known of a MAC.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Seen {
    /// When it was first seen, in milliseconds since 1970.
    #[prost(int64, tag = "1")]
    pub first: i64,
    /// When it was last seen.
    #[prost(int64, tag = "2")]
    pub last: i64,
    /// The interface where it was last seen.
    #[prost(string, tag = "3")]
    pub port: String,
    /// The zone there.
    #[prost(string, tag = "4")]
    pub zone: String,
    /// The VLAN there; 0: untagged.
    #[prost(uint32, tag = "5")]
    pub vlan: u32,
    /// Addresses that it has used, the newest last; at most `MOST_ADDRESSES`.
    #[prost(string, repeated, tag = "6")]
    pub addresses: Vec<String>,
    /// Packets of it that were dropped, or would have been in mode observe.
    #[prost(uint64, tag = "7")]
    pub dropped: u64,
    /// What it tried last; at most `MOST_DROPS`.
    #[prost(message, repeated, tag = "8")]
    pub drops: Vec<Dropped>,
    /// Its host name, in its own words.
    #[prost(string, tag = "9")]
    pub hostname: String,
    /// Its vendor class.
    #[prost(string, tag = "10")]
    pub vendor_class: String,
    /// The options that it asks a DHCP server for, in its order: kinds of systems differ in it.
    #[prost(uint32, repeated, tag = "11")]
    pub parameters: Vec<u32>,
    /// The address of its description by its manufacturer (RFC 8520).
    #[prost(string, tag = "12")]
    pub mud_url: String,
}

/// Something that was dropped.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Dropped {
    /// Why.
    #[prost(string, tag = "1")]
    pub reason: String,
    /// To whom.
    #[prost(string, tag = "2")]
    pub destination: String,
    /// What was asked for.
    #[prost(string, tag = "3")]
    pub service: String,
    /// Packets.
    #[prost(uint64, tag = "4")]
    pub packets: u64,
}

/// Most addresses that are kept of a MAC.
const MOST_ADDRESSES: usize = 8;
/// Most kinds of drops that are kept of a MAC.
const MOST_DROPS: usize = 8;

impl Seen {
    /// Notes when and where it was seen.
    pub(super) fn at(&mut self, time: Timestamp, port: &str, zone: &str, vlan: u16) {
        let now = time.as_millisecond();
        if self.first == 0 {
            self.first = now;
        }
        self.last = self.last.max(now);
        port.clone_into(&mut self.port);
        zone.clone_into(&mut self.zone);
        self.vlan = vlan.into();
    }

    /// Notes an address that it has used.
    pub(super) fn uses(&mut self, address: String) {
        self.addresses.retain(|it| *it != address);
        self.addresses.push(address);
        let more = self.addresses.len().saturating_sub(MOST_ADDRESSES);
        self.addresses.drain(..more);
    }

    /// Notes what was dropped of it.
    pub(super) fn tried(&mut self, what: Dropped) {
        self.dropped = self.dropped.saturating_add(what.packets);
        let same = |it: &Dropped| {
            it.reason == what.reason
                && it.destination == what.destination
                && it.service == what.service
        };
        let before = self.drops.iter().position(same);
        let before = before.map_or(0, |at| self.drops.remove(at).packets);
        self.drops.push(Dropped {
            packets: before.saturating_add(what.packets),
            ..what
        });
        let more = self.drops.len().saturating_sub(MOST_DROPS);
        self.drops.drain(..more);
    }
}
