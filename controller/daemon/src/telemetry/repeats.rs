//! Holds back log lines that repeat, counts them, and tells the count once a minute.
//!
//! The same line as just before, from the same place in the program, is held back for a minute, and
//! so is whatever a place says beyond a burst and then one line a second. The first line of a place
//! always passes. Events of packets have bounds of their own, and are let through.

use std::{
    collections::HashMap,
    fmt::{self, Write as _},
    hash::{DefaultHasher, Hasher as _},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tracing::{
    Event, Level, Metadata,
    callsite::Identifier,
    field::{Field, Visit},
};
use tracing_subscriber::layer::{Context, Filter};

/// What each place in the program has said lately. There are only so many places.
#[derive(Debug, Default)]
pub(super) struct Repeats(Mutex<HashMap<Identifier, Said>>);

/// What one place in the program has said lately.
#[derive(Debug)]
struct Said {
    level: Level,
    message: String,
    /// The last line that passed.
    last: u64,
    passed: Instant,
    /// When the lines of before have been paid for, one second each.
    paid: Instant,
    /// Lines held back since then.
    held: Option<(u64, Instant)>,
}

/// Lines that a place may say at once.
const BURST: u32 = 200;
/// How long a place may take to say one more.
const EACH: Duration = Duration::from_secs(1);
/// How long the same line is held back.
const SAME: Duration = Duration::from_secs(60);
/// Lines of these targets pass: events, and what is said here.
const OWN: &str = "wardline::";
/// The target of counts.
const TARGET: &str = "wardline::repeats";
/// Most bytes of a message that are remembered.
const LONGEST_MESSAGE: usize = 200;

impl Repeats {
    /// Tells of the lines that were held back, each place once.
    pub(super) fn tell(&self, now: Instant) {
        let mut told = Vec::new();
        for said in self.lock().values_mut() {
            if let Some((count, since)) = said.held.take() {
                told.push((said.level, said.message.clone(), count, now - since));
            }
        }
        // Logging takes the lock again.
        for (level, line, count, time) in told {
            let seconds = time.as_secs().max(1);
            macro_rules! tell {
                ($level:ident) => {
                    tracing::$level!(target: TARGET, line, "repeated {count} times in {seconds} s")
                };
            }
            match level {
                Level::ERROR => tell!(error),
                Level::WARN => tell!(warn),
                Level::INFO => tell!(info),
                Level::DEBUG => tell!(debug),
                _ => tell!(trace),
            }
        }
    }

    /// Whether a line passes.
    fn passes(
        &self,
        place: Identifier,
        level: Level,
        (line, message): (u64, String),
        now: Instant,
    ) -> bool {
        let mut places = self.lock();
        let Some(said) = places.get_mut(&place) else {
            let said = Said {
                level,
                message,
                last: line,
                passed: now,
                paid: now + EACH,
                held: None,
            };
            places.insert(place, said);
            return true;
        };
        let same = said.last == line && now.duration_since(said.passed) < SAME;
        let owed = said.paid.saturating_duration_since(now);
        if same || owed + EACH > EACH * BURST {
            said.message = message;
            let (count, since) = said.held.unwrap_or((0, now));
            said.held = Some((count + 1, since));
            return false;
        }
        (said.last, said.passed, said.paid) = (line, now, now + owed + EACH);
        true
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Identifier, Said>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S> Filter<S> for &'static Repeats {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        let about = event.metadata();
        if about.target().starts_with(OWN) {
            return true;
        }
        let mut line = Line::default();
        event.record(&mut line);
        let Line { hasher, message } = line;
        let line = (hasher.finish(), message);
        self.passes(about.callsite(), *about.level(), line, Instant::now())
    }
}

/// Reads a line: all of it as a number, and its message.
#[derive(Default)]
struct Line {
    hasher: DefaultHasher,
    message: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = String::new();
        // Writing to a text does not fail, unless a value refuses to be written.
        let _ = write!(text, "{value:?}");
        self.hasher.write(field.name().as_bytes());
        self.hasher.write(text.as_bytes());
        if field.name() == "message" {
            text.truncate(text.floor_char_boundary(LONGEST_MESSAGE));
            self.message = text;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, LazyLock};

    use tracing_subscriber::{Layer, layer::SubscriberExt as _};

    use super::*;

    /// Lines that pass, as a layer behind the filter sees them.
    #[derive(Clone, Default)]
    struct Seen(Arc<Mutex<Vec<String>>>);

    impl<S: tracing::Subscriber> Layer<S> for Seen {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            let mut line = Line::default();
            event.record(&mut line);
            self.0.lock().expect("not poisoned").push(line.message);
        }
    }

    /// What passes of what `work` logs.
    fn seen(repeats: &'static Repeats, work: impl FnOnce()) -> Vec<String> {
        let seen = Seen::default();
        let layer = seen.clone().with_filter(repeats);
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, work);
        std::mem::take(&mut *seen.0.lock().expect("not poisoned"))
    }

    #[test]
    fn the_same_line_passes_once_and_is_counted() {
        static REPEATS: LazyLock<Repeats> = LazyLock::new(Repeats::default);
        let lines = seen(&REPEATS, || {
            for _ in 0..1000 {
                tracing::info!(address = "10.0.0.9", "a client was turned away");
            }
            tracing::info!("another line");
            REPEATS.tell(Instant::now() + Duration::from_secs(60));
            REPEATS.tell(Instant::now());
        });
        assert_eq!(
            lines,
            [
                "a client was turned away",
                "another line",
                "repeated 999 times in 60 s"
            ]
        );
    }

    #[test]
    fn a_place_that_says_something_else_each_time_has_a_bound() {
        static REPEATS: LazyLock<Repeats> = LazyLock::new(Repeats::default);
        let lines = seen(&REPEATS, || {
            for port in 0..50_000 {
                tracing::info!(port, "a client did not say who it is");
            }
            for number in 0..500 {
                tracing::info!(target: "wardline::events", number, "drop");
            }
        });
        let count = |what: &str| lines.iter().filter(|line| *line == what).count();
        let others = count("a client did not say who it is");
        assert!((200..260).contains(&others), "{others}");
        assert_eq!(count("drop"), 500, "events pass");
        let held = REPEATS.lock().values().find_map(|said| said.held);
        assert_eq!(held.map(|(count, _)| count), Some(50_000 - others as u64));
    }

    #[test]
    fn a_place_may_speak_again_after_a_while() {
        let repeats = Repeats::default();
        let place = Identifier(&PLACE);
        let start = Instant::now();
        let mut number = 0;
        let mut passes = |after: u64, line: Option<u64>| {
            number += 1;
            let line = (line.unwrap_or(1000 + number), "m".to_owned());
            repeats.passes(
                place.clone(),
                Level::INFO,
                line,
                start + Duration::from_secs(after),
            )
        };
        assert!(passes(0, Some(7)) && !passes(59, Some(7)) && passes(60, Some(7)));
        assert!(!passes(61, Some(7)) && passes(61, Some(8)) && passes(61, Some(7)));
        let burst = (0..300).filter(|_| passes(100, None)).count();
        assert_eq!(burst, 200);
        assert!(passes(101, None) && !passes(101, None));
        assert_eq!((0..300).filter(|_| passes(1000, None)).count(), 200);
    }

    struct Place;

    static PLACE: Place = Place;

    impl tracing::Callsite for Place {
        fn set_interest(&self, _: tracing::subscriber::Interest) {}

        fn metadata(&self) -> &Metadata<'_> {
            unreachable!("only its identity is used")
        }
    }
}
