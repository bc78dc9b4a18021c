//! The log line of an event.

use wardline_policy::words::reason::reason_word;

use super::event::{Event, Verdict};

pub(super) fn log(event: &Event) {
    macro_rules! line {
        ($level:ident, $what:literal) => {
            tracing::$level!(
                target: "wardline::events",
                reason = event.reason.map(reason_word),
                rule = event.rule,
                device = event.device,
                zone = event.zone,
                peer = event.peer,
                peer_zone = event.peer_zone,
                interface = event.interface,
                vlan = event.vlan,
                source = event.source,
                destination = event.destination,
                service = event.service,
                count = event.count,
                destinations = event.destinations,
                revision = event.revision,
                source_mac = event.source_mac,
                source_port = event.source_port,
                observed = event.observed,
                $what
            )
        };
    }
    if event.verdict == Verdict::Drop {
        line!(info, "drop")
    } else {
        line!(debug, "pass")
    }
}
