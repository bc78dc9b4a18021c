//! The record of traffic that mode observe has let pass.

use jiff::Timestamp;

/// The record of one kind of traffic that mode observe has let pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Packets, as far as events report them.
    pub packets: u64,
    /// Time of the last event; none: there was no event.
    pub last: Option<Timestamp>,
}
