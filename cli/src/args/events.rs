//! Which events are wanted: the arguments of `events` and `why`, and moments as people type them.

use jiff::{SignedDuration, Timestamp, civil::DateTime, tz::TimeZone};
use wardline_proto::v1::{Reason, Verdict};

use crate::duration;

/// `events`.
#[derive(Debug, clap::Args)]
pub(crate) struct Events {
    /// The first moment: how long ago, such as 10m or 7d, or a time such as 2026-11-30T08:00
    /// [default: the newest 10,000 events].
    #[arg(long, value_parser = moment, value_name = "DURATION|TIME")]
    pub(crate) since: Option<Moment>,
    /// The last moment, the same way.
    #[arg(long, value_parser = moment, value_name = "DURATION|TIME", conflicts_with = "follow")]
    pub(crate) until: Option<Moment>,
    /// Then show new events as they happen, until interrupted.
    #[arg(short = 'F', long)]
    pub(crate) follow: bool,
    /// Only events with this device at one of the two ends: a name, an address or a MAC. This and the
    /// following may be repeated: one of the values is enough. Different conditions hold together.
    #[arg(long = "device", value_name = "DEVICE")]
    pub(crate) devices: Vec<String>,
    /// Only events with this zone at one of the two ends.
    #[arg(long = "zone", value_name = "ZONE")]
    pub(crate) zones: Vec<String>,
    /// Only events with this reason, such as no_rule.
    #[arg(long = "reason", value_parser = reason, value_name = "REASON")]
    pub(crate) reasons: Vec<Reason>,
    /// Only events that this rule decided.
    #[arg(long = "rule", value_name = "RULE")]
    pub(crate) rules: Vec<String>,
    /// Only events about this service: a name, or a protocol and ports such as tcp/443 or udp/5000-5100.
    #[arg(long = "service", value_name = "SERVICE")]
    pub(crate) services: Vec<String>,
    /// Only events with this device or address as the other end.
    #[arg(long = "peer", value_name = "DEVICE|ADDRESS")]
    pub(crate) peers: Vec<String>,
    /// Only events at this interface.
    #[arg(long = "interface", value_name = "INTERFACE")]
    pub(crate) interfaces: Vec<String>,
    /// Only events with this verdict: drop, pass, or none for what is not about a packet.
    #[arg(long = "verdict", value_parser = verdict, value_name = "VERDICT")]
    pub(crate) verdicts: Vec<Verdict>,
    /// The newest so many of those that are kept.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: Option<u32>,
}

/// `why`.
#[derive(Debug, clap::Args)]
pub(crate) struct Dropped {
    /// The device: its name, or an address or a MAC.
    pub(crate) device: String,
    /// Only what was between it and this device or address.
    pub(crate) peer: Option<String>,
    /// How far back to look [default: a day].
    #[arg(long, value_parser = duration::seconds::<u64>, value_name = "DURATION")]
    pub(crate) since: Option<u64>,
    /// The most kinds of drops to show, the newest [default: 20].
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: Option<u32>,
}

/// A moment as people type it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Moment {
    /// So many seconds ago.
    Ago(u64),
    /// A time.
    At(Timestamp),
}

impl Moment {
    /// The time that is meant, seen from another.
    pub(crate) fn seen_from(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(time) => time,
            Self::Ago(seconds) => {
                let ago = SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX));
                now.checked_sub(ago).unwrap_or(Timestamp::MIN)
            }
        }
    }
}

/// Reads a duration, a time of RFC 3339, or a time of this machine's zone.
fn moment(text: &str) -> Result<Moment, String> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(Moment::At(time));
    }
    if let Ok(local) = text.parse::<DateTime>()
        && let Ok(time) = TimeZone::system().to_timestamp(local)
    {
        return Ok(Moment::At(time));
    }
    let ago = duration::seconds(text).map(Moment::Ago);
    ago.map_err(|_| {
        "expected how long ago, as 10m or 7d, or a time, as 2026-11-30T08:00".to_owned()
    })
}

/// Reads the word of a reason.
fn reason(text: &str) -> Result<Reason, String> {
    let name = format!("REASON_{}", text.to_ascii_uppercase());
    match Reason::from_str_name(&name) {
        Some(Reason::Unspecified) | None => {
            Err("is no reason; docs/reasons.md lists them, such as no_rule".to_owned())
        }
        Some(reason) => Ok(reason),
    }
}

/// Reads the word of a verdict.
fn verdict(text: &str) -> Result<Verdict, String> {
    match text {
        "pass" => Ok(Verdict::Pass),
        "drop" => Ok(Verdict::Drop),
        "none" => Ok(Verdict::None),
        _ => Err("expected drop, pass or none".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_durations_or_times() {
        let time = |text: &str| text.parse().map(Moment::At);
        assert_eq!(moment("10m"), Ok(Moment::Ago(600)));
        assert_eq!(
            moment("2026-11-30T08:00:00+01:00").ok(),
            time("2026-11-30T07:00:00Z").ok()
        );
        assert!(matches!(moment("2026-11-30T08:00"), Ok(Moment::At(_))));
        assert!(matches!(moment("2026-11-30"), Ok(Moment::At(_))));
        assert!(moment("yesterday").is_err());
        let now = Timestamp::constant(1000, 0);
        assert_eq!(Moment::Ago(60).seen_from(now), Timestamp::constant(940, 0));
    }
}
