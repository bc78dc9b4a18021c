//! Where log lines go, in which form, and from which level on.

use std::{
    io::{self, IsTerminal as _},
    sync::LazyLock,
    time::Instant,
};

use tracing::{Level, level_filters::LevelFilter, warn};
use tracing_subscriber::{
    Layer as _, fmt, layer::SubscriberExt as _, registry, reload, util::SubscriberInitExt as _,
};

use super::repeats::Repeats;
use crate::config::LogFormat;

/// The log of this process.
pub struct Log {
    set_level: Box<dyn Fn(Level) + Send>,
}

/// A process has one log.
static REPEATS: LazyLock<Repeats> = LazyLock::new(Repeats::default);

impl Log {
    /// Logs from now on. Where there is no journal, as text: guarding must not wait for it.
    pub fn start(level: Level, format: LogFormat) -> Self {
        let text = || {
            fmt::layer()
                .with_ansi(io::stderr().is_terminal())
                .with_writer(io::stderr)
                .boxed()
        };
        let mut problem = None;
        let lines = match format {
            LogFormat::Text => text(),
            LogFormat::Json => fmt::layer()
                .json()
                .flatten_event(true)
                .with_current_span(false)
                .with_span_list(false)
                .with_writer(io::stderr)
                .boxed(),
            LogFormat::Journald => match tracing_journald::layer() {
                Ok(journal) => journal
                    .with_field_prefix(Some("WARDLINE".to_owned()))
                    .with_syslog_identifier("wardlined".to_owned())
                    .boxed(),
                Err(error) => {
                    problem = Some(error);
                    text()
                }
            },
        };
        let repeats: &'static Repeats = &REPEATS;
        let (from, handle) = reload::Layer::new(LevelFilter::from_level(level));
        registry()
            .with(lines.with_filter(repeats))
            .with(from)
            .init();
        if let Some(error) = problem {
            warn!(%error, "journald can't be reached; this is logged as text");
        }
        let set_level = move |level| {
            // Fails only when there is no log any more.
            let _ = handle.reload(LevelFilter::from_level(level));
        };
        Self {
            set_level: Box::new(set_level),
        }
    }

    /// Logs from another level on.
    pub fn set_level(&self, level: Level) {
        (self.set_level)(level);
    }

    /// Tells how many lines were held back because they repeat.
    pub fn tell_repeats(&self) {
        REPEATS.tell(Instant::now());
    }
}
