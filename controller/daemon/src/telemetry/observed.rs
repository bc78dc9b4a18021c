//! The record of traffic that mode observe has let pass.

use std::{net::IpAddr, sync::Arc};

use jiff::Timestamp;

use super::event::Event;

/// The record of one kind of traffic that mode observe has let pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Packets, as far as events report them.
    pub packets: u64,
    /// Time of the last event; none: there was no event.
    pub last: Option<Timestamp>,
}

/// The record of one fault of form or place that mode observe has let pass.
#[derive(Clone, Debug)]
pub struct Faulty {
    /// How often, and when.
    pub seen: Observed,
    /// Where the first such packet came from.
    pub source: IpAddr,
    /// The event of the first such packet.
    pub event: Arc<Event>,
}
