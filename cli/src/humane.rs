//! Numbers, times, enum values and texts as people read them.

use std::fmt::Write as _;

use jiff::{Timestamp, tz::TimeZone};
use wardline_proto::{letters::steers, time::from_proto};

/// The time and the time zone of the reader.
#[derive(Debug, Clone)]
pub(crate) struct Clock {
    pub(crate) now: Timestamp,
    pub(crate) zone: TimeZone,
}

impl Clock {
    /// The time and time zone of this machine.
    pub(crate) fn system() -> Self {
        Self {
            now: Timestamp::now(),
            zone: TimeZone::system(),
        }
    }

    /// How long ago, or how far ahead, a time is.
    pub(crate) fn distance(&self, time: Timestamp) -> String {
        let seconds = time.as_second() - self.now.as_second();
        let text = span(seconds.unsigned_abs());
        if seconds > 0 {
            format!("in {text}")
        } else {
            format!("{text} ago")
        }
    }

    /// A time in the reader's time zone, to the second.
    pub(crate) fn local(&self, time: Timestamp) -> String {
        time.to_zoned_datetime(self.zone.clone())
            .strftime("%F %T")
            .to_string()
    }
}

/// The time that a message holds, if it holds one.
pub(crate) fn time(time: Option<&prost_types::Timestamp>) -> Option<Timestamp> {
    time.and_then(from_proto)
}

/// Seconds in their largest unit, and the next one if the number is small: `45s`, `3m`, `2h5m`,
/// `6d`.
pub(crate) fn span(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m"),
        (0, 1..10, _) if minutes % 60 > 0 => format!("{hours}h{}m", minutes % 60),
        (0, _, _) => format!("{hours}h"),
        (1..10, _, _) if hours % 24 > 0 => format!("{days}d{}h", hours % 24),
        _ => format!("{days}d"),
    }
}

/// Bytes in a unit that keeps the number short: `999 B`, `1.2 MiB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1024.0;
    let mut unit = UNITS[0];
    for next in &UNITS[1..] {
        // A value that would be printed as 1024.0 belongs to the next unit.
        if value < 1023.95 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    format!("{value:.1} {unit}")
}

/// The word of an enum's value: its proto name without the enum's prefix, in lower case.
pub(crate) fn word(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix)
        .unwrap_or(name)
        .to_ascii_lowercase()
}

/// How much of a table is used, in percent; never 0 % if it has entries.
pub(crate) fn fill(used: u64, max: u64) -> String {
    match (u128::from(used) * 100).checked_div(u128::from(max)) {
        None => "-".to_owned(),
        Some(0) if used > 0 => "<1%".to_owned(),
        Some(percent) => format!("{percent}%"),
    }
}

/// Escapes what could steer the terminal or change the order of a text from elsewhere.
pub(crate) fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if steers(c) {
            // Writing to a string can't fail.
            let _ = write!(out, "{}", c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_short() {
        for (count, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_258_291, "1.2 MiB"),
            (1_048_575, "1.0 MiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn spans_are_short() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (180, "3m"),
            (3600, "1h"),
            (7500, "2h5m"),
            (36_060, "10h"),
            (90_000, "1d1h"),
            (864_000, "10d"),
        ] {
            assert_eq!(span(seconds), text);
        }
    }

    #[test]
    fn times_are_seen_from_now() {
        let clock = Clock {
            now: Timestamp::constant(1000, 0),
            zone: TimeZone::UTC,
        };
        assert_eq!(clock.distance(Timestamp::constant(820, 0)), "3m ago");
        assert_eq!(clock.distance(Timestamp::constant(1045, 0)), "in 45s");
        assert_eq!(
            clock.local(Timestamp::constant(1000, 5)),
            "1970-01-01 00:16:40"
        );
    }

    #[test]
    fn fill_tells_little_from_none() {
        assert_eq!(
            [fill(0, 9), fill(1, 1000), fill(9, 9), fill(0, 0)],
            ["0%", "<1%", "100%", "-"]
        );
    }

    #[test]
    fn what_steers_a_terminal_is_escaped() {
        assert_eq!(printable("a\u{1b}[2Jb\n→"), "a\\u{1b}[2Jb\\n→");
        assert_eq!(printable("a\u{9b}b\u{202e}c"), "a\\u{9b}b\\u{202e}c");
    }
}
