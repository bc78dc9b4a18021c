//! An event in words: a verdict of the kernel with names for its numbers, or a note of the daemon.

use jiff::Timestamp;
use wardline_ebpf::abi::Reason;

/// What the router itself is called as the other end of a packet.
pub const ROUTER_NAME: &str = "router";

/// An event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// Its place among all events: the microsecond, or the next one that is free.
    pub id: i64,
    /// When.
    pub time: Timestamp,
    /// What happened to the packet.
    pub verdict: Verdict,
    /// Why; none: the event is not about a packet.
    pub reason: Option<Reason>,
    /// The rule that decided; empty: none did.
    pub rule: String,
    /// The device that sent the packet, or for a packet towards a device from elsewhere that device;
    /// empty: unknown.
    pub device: String,
    /// The device's zone, or the port's.
    pub zone: String,
    /// The other end: its device, else its address, else its MAC.
    pub peer: String,
    /// The zone of the other end; empty: it is in none.
    pub peer_zone: String,
    /// Whether the packet goes towards `device`; then `peer` has sent it.
    pub towards: bool,
    /// Where the packet entered or left.
    pub interface: String,
    /// The VLAN id; 0: untagged.
    pub vlan: u16,
    /// An address, or a MAC where the frame has no address that could be read.
    pub source: String,
    /// The same for the other end.
    pub destination: String,
    /// The service that the packet asks for, as a policy writes it.
    pub service: String,
    /// The key of that service; none: the packet's ports could not be read, or it has none.
    pub asked: Option<u32>,
    /// The name of that service: the document's, else the catalogue's; empty: it has none.
    pub service_name: String,
    /// Packets that this event stands for.
    pub count: u64,
    /// How many destinations those packets had: address and service; more than a few are an estimate.
    pub destinations: u32,
    /// The revision that judged it.
    pub revision: u64,
    /// The sender's MAC.
    pub source_mac: String,
    /// The sender's port; 0: none.
    pub source_port: u16,
    /// Whether it passed only because of mode observe.
    pub observed: bool,
    /// What the daemon did on its own; empty for a packet.
    pub message: String,
}

/// What happened to a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// The event is not about a packet.
    #[default]
    None = 0,
    /// It passed.
    Pass = 1,
    /// It was dropped.
    Drop = 2,
}
