//! An event in words: a verdict of the kernel with names for its numbers, or a note of the daemon.

use jiff::Timestamp;
use wardline_ebpf::abi::Reason;

/// An event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// When.
    pub time: Timestamp,
    /// What happened to the packet.
    pub verdict: Verdict,
    /// Why; none: the event is not about a packet.
    pub reason: Option<Reason>,
    /// The rule that decided; empty: none did.
    pub rule: String,
    /// The device that sent the packet; empty: unknown.
    pub device: String,
    /// The device's zone, or the port's.
    pub zone: String,
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verdict {
    /// The event is not about a packet.
    #[default]
    None,
    /// It passed.
    Pass,
    /// It was dropped.
    Drop,
}
