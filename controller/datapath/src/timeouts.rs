//! How long flows live without a packet, and what else lasts for a time.

use std::time::Duration;

/// How long flows live without a packet, and what else lasts for a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP before the answer.
    pub tcp_unanswered: Duration,
    /// TCP after the handshake.
    pub tcp_established: Duration,
    /// TCP after a FIN or RST.
    pub tcp_closing: Duration,
    /// UDP, and protocols without a time-out of their own, before the answer.
    pub udp: Duration,
    /// The same after the answer.
    pub udp_answered: Duration,
    /// ICMP.
    pub icmp: Duration,
    /// How long after a port is first guarded it adopts flows that were running; zero: not at all.
    pub adoption: Duration,
    /// How long an address that a resolver has given for a name counts at least.
    pub names: Duration,
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
            names: Duration::from_secs(60),
        }
    }
}
