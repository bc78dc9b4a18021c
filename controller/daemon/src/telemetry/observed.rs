//! What is known of traffic that observe has let pass.

use jiff::Timestamp;

/// What is known of one kind of traffic that mode observe has let pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Packets, as far as events stand for them.
    pub packets: u64,
    /// When it was last told of; none: by no event.
    pub last: Option<Timestamp>,
}
