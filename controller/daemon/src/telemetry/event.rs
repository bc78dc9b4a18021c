//! What happened, in words: a verdict of the kernel with names for its numbers, or a note of the daemon.

use jiff::Timestamp;
use wardline_ebpf::abi::Reason;

/// Something that happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// When.
    pub time: Timestamp,
    /// What became of the packet.
    pub verdict: Verdict,
    /// Why; none: it is no packet.
    pub reason: Option<Reason>,
    /// The rule that decided; empty: none did.
    pub rule: String,
    /// The device that sent the packet; empty: none that is known.
    pub device: String,
    /// The device's zone, or the port's.
    pub zone: String,
    /// Where the packet entered or left.
    pub interface: String,
    /// The VLAN id; 0: untagged.
    pub vlan: u16,
    /// An address, or a MAC where the frame has no address that could be read.
    pub source: String,
    /// The same of the other end.
    pub destination: String,
    /// What the packet asked for, as a policy writes it.
    pub service: String,
    /// Packets that this stands for.
    pub count: u64,
    /// The revision that judged.
    pub revision: u64,
    /// The sender's MAC.
    pub source_mac: String,
    /// The sender's port; 0: none.
    pub source_port: u16,
    /// Whether only mode observe let it pass.
    pub observed: bool,
    /// What the daemon did by itself; empty for a packet.
    pub message: String,
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verdict {
    /// It is no packet.
    #[default]
    None,
    /// It passed.
    Pass,
    /// It was dropped.
    Drop,
}
