//! How long silent flows live.

use std::time::Duration;

/// How long a silent flow lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP before the answer.
    pub tcp_unanswered: Duration,
    /// TCP after the handshake.
    pub tcp_established: Duration,
    /// TCP after a FIN or RST.
    pub tcp_closing: Duration,
    /// UDP, and what has no time-out of its own, before the answer.
    pub udp: Duration,
    /// The same after the answer.
    pub udp_answered: Duration,
    /// ICMP.
    pub icmp: Duration,
    /// How long after a port is first guarded flows that were running are adopted; zero: not at all.
    pub adoption: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            tcp_unanswered: Duration::from_secs(30),
            tcp_established: Duration::from_secs(7440),
            tcp_closing: Duration::from_secs(10),
            udp: Duration::from_secs(30),
            udp_answered: Duration::from_secs(180),
            icmp: Duration::from_secs(30),
            adoption: Duration::from_secs(10),
        }
    }
}
