//! Follows the wall clock: rules end by the new time when it is set, and a clock that can't be right
//! is told.

use std::{future, io, time::Duration};

use jiff::Timestamp;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use wardline_datapath::wall_clock::{Steps, is_synchronized};

use crate::{engine::Engine, store::history::History, thread::Handle};

/// A day on which this version was not made yet. A clock that says an earlier one is wrong.
const BEFORE_THIS_VERSION: Timestamp = Timestamp::constant(1_793_491_200, 0);

/// How often the clock is looked at, whether it was set or not.
const LOOK: Duration = Duration::from_secs(30);

/// Follows the wall clock until told to stop.
pub(super) async fn follow(engine: Handle, history: History, stop: CancellationToken) {
    let mut steps = Steps::watch()
        .inspect_err(|error| warn!(%error, "steps of the clock are noticed late"))
        .ok();
    let mut look = tokio::time::interval(LOOK);
    let mut known = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = step(&mut steps) => {}
            _ = look.tick() => {}
        }
        match engine.call(Engine::clock_was_set).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(%error, "rules end by the time before the clock was set"),
            Err(_stopped) => return,
        }
        let history = history.clone();
        let newest = spawn_blocking(move || history.list(1).ok()?.pop()).await;
        let newest = newest.ok().flatten().map(|it| (it.revision, it.time));
        let doubt = doubt(Timestamp::now(), newest, &is_synchronized());
        if doubt != known {
            match &doubt {
                Some(why) => warn!("the clock is not believed: {why}"),
                None => info!("the clock is believed"),
            }
            known.clone_from(&doubt);
            let told = engine.call(|engine| engine.set_clock_doubt(doubt)).await;
            if told.is_err() {
                return;
            }
        }
    }
}

/// Waits until the clock is set; for ever, when the kernel does not tell.
async fn step(steps: &mut Option<Steps>) {
    if let Some(watched) = steps {
        match watched.next().await {
            Ok(()) => return,
            Err(error) => warn!(%error, "steps of the clock are noticed late"),
        }
        *steps = None;
    }
    future::pending().await
}

/// Why a clock is not believed; none: nothing speaks against it.
fn doubt(
    now: Timestamp,
    newest: Option<(u64, Timestamp)>,
    synchronized: &io::Result<bool>,
) -> Option<String> {
    if now < BEFORE_THIS_VERSION {
        return Some(format!(
            "it says {now:.0}, and this version was made after {BEFORE_THIS_VERSION}"
        ));
    }
    match (newest, synchronized) {
        (Some((revision, made)), _) if now < made => Some(format!(
            "it says {now:.0}, and revision {revision} was made at {made:.0}"
        )),
        (_, Ok(false)) => Some("nothing keeps it right: the kernel has heard of no NTP".to_owned()),
        (_, Ok(true) | Err(_)) => None,
    }
}

#[cfg(test)]
mod tests {
    use jiff::ToSpan as _;

    use super::*;

    #[test]
    fn a_clock_before_this_version_or_before_the_last_change_is_wrong() {
        let now = BEFORE_THIS_VERSION + 48.hours();
        let doubt_of = |now, made| doubt(now, Some((7, made)), &Ok(true));
        assert_eq!(doubt_of(now, now), None);
        let text = doubt_of(Timestamp::UNIX_EPOCH, now).unwrap_or_default();
        assert!(text.starts_with("it says 1970-01-01T00:00:00Z"), "{text}");
        let text = doubt_of(now, now + 1.hour()).unwrap_or_default();
        assert!(text.contains("revision 7 was made at"), "{text}");
        assert_eq!(doubt(now, None, &Ok(true)), None);
    }

    #[test]
    fn a_clock_that_nothing_keeps_right_is_told() {
        let now = BEFORE_THIS_VERSION + 48.hours();
        let text = doubt(now, None, &Ok(false)).unwrap_or_default();
        assert!(text.contains("NTP"), "{text}");
        // A kernel that does not tell gives no reason to doubt.
        let no = Err(io::Error::from_raw_os_error(1));
        assert_eq!(doubt(now, None, &no), None);
    }
}
