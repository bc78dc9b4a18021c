//! Durations as people type them: 60s, 5m, 2h, 1d, 1h30m.

use std::time::Duration;

use jiff::{Span, SpanRelativeTo};

/// Parses a duration greater than zero; a day has 24 hours.
///
/// # Errors
/// What is wrong with the text.
pub(crate) fn positive(text: &str) -> Result<Duration, String> {
    let span: Span = text
        .parse()
        .map_err(|error: jiff::Error| error.to_string())?;
    let duration = span
        .to_duration(SpanRelativeTo::days_are_24_hours())
        .map_err(|_| "months and years have no fixed length".to_owned())?;
    match Duration::try_from(duration) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err("expected a time longer than nothing, such as 90s, 5m, 2h or 1h30m".to_owned()),
    }
}

/// Parses a duration to whole seconds, rounded up.
///
/// # Errors
/// What is wrong with the text.
pub(crate) fn seconds<T: TryFrom<u64>>(text: &str) -> Result<T, String> {
    let duration = positive(text)?;
    let seconds = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    T::try_from(seconds).map_err(|_| "too long".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_people_type() {
        for (text, expected) in [
            ("60s", 60),
            ("5m", 300),
            ("2h", 7200),
            ("1d", 86_400),
            ("1h30m", 5400),
            ("1h 30m", 5400),
            ("1w", 604_800),
            ("1500ms", 2),
        ] {
            assert_eq!(seconds::<u64>(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn refuses_the_rest() {
        for text in [
            "",
            "60",
            "0s",
            "-5m",
            "5m ago",
            "soon",
            "1mo",
            "1y",
            "99999999999999h",
        ] {
            assert!(seconds::<u64>(text).is_err(), "{text}");
        }
        assert!(seconds::<u32>("50000d").is_err());
    }
}
