//! Converts between the type of times in programs and the one in messages.

use std::ops::RangeInclusive;

use jiff::Timestamp;

/// The well-known type that documents write as RFC 3339 text.
pub(crate) const NAME: &str = "google.protobuf.Timestamp";

/// The valid seconds of a message: the years 1 to 9999.
pub(crate) const SECONDS: RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

/// A time as a message carries it.
pub fn to_proto(time: Timestamp) -> prost_types::Timestamp {
    let (seconds, nanos) = (time.as_second(), time.subsec_nanosecond());
    // Before 1970 jiff's fraction is negative; a message always counts it forward.
    if nanos < 0 {
        return prost_types::Timestamp {
            seconds: seconds - 1,
            nanos: nanos + 1_000_000_000,
        };
    }
    prost_types::Timestamp { seconds, nanos }
}

/// The time in a message; none if its numbers are not valid.
pub fn from_proto(time: &prost_types::Timestamp) -> Option<Timestamp> {
    Timestamp::new(time.seconds, time.nanos).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_comes_back_as_it_went() {
        for (text, seconds, nanos) in [
            ("1970-01-01T00:00:00Z", 0, 0),
            ("2026-12-01T00:00:00.25Z", 1_796_083_200, 250_000_000),
            ("1969-12-31T23:59:59.5Z", -1, 500_000_000),
            ("1969-12-31T23:59:58Z", -2, 0),
        ] {
            let time: Timestamp = text.parse().expect(text);
            let message = to_proto(time);
            assert_eq!(message, prost_types::Timestamp { seconds, nanos }, "{text}");
            assert_eq!(from_proto(&message), Some(time), "{text}");
        }
    }

    #[test]
    fn numbers_that_are_no_time_are_none() {
        for (seconds, nanos) in [(i64::MAX, 0), (0, i32::MAX)] {
            let message = prost_types::Timestamp { seconds, nanos };
            assert_eq!(from_proto(&message), None, "{message:?}");
        }
    }
}
