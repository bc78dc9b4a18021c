//! What the daemon tells the service manager: that ports are guarded, that the engine lives, and
//! that it stops. Without a service manager nothing is told.

use std::{io, time::Duration};

use sd_notify::NotifyState;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::thread::{Handle, Stopped};

/// How many signs of life are given within the time after which the service manager ends a daemon
/// that gives none.
const SIGNS: u32 = 4;

/// Tells that what was last in force is enforced; the network may come up.
pub(crate) fn ready() {
    tell(NotifyState::Ready);
}

/// Tells that the daemon is about to end. What is attached stays.
pub(crate) fn stopping() {
    tell(NotifyState::Stopping);
}

/// Gives signs of life for as long as the engine does its jobs, if the service manager wants them.
pub(crate) async fn watch(engine: Handle, stop: CancellationToken) {
    let Some(limit) = sd_notify::watchdog_enabled() else {
        return;
    };
    let alive = || {
        let engine = engine.clone();
        async move { engine.call(|_| ()).await }
    };
    keep_alive(limit, alive, || tell(NotifyState::Watchdog), &stop).await;
}

/// Gives a sign each time that the engine has done a job. A job that never ends is the last: the
/// signs end with it, and the service manager ends the daemon.
async fn keep_alive<A: Future<Output = Result<(), Stopped>>>(
    limit: Duration,
    alive: impl Fn() -> A,
    sign: impl Fn(),
    stop: &CancellationToken,
) {
    let mut due = tokio::time::interval(limit / SIGNS);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let signs = async {
        loop {
            due.tick().await;
            if let Err(Stopped) = alive().await {
                return;
            }
            sign();
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = signs => {}
    }
}

fn tell(state: NotifyState<'_>) {
    let told: io::Result<()> = sd_notify::notify(&[state]);
    if let Err(error) = told {
        warn!(%error, "the service manager can't be told");
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    /// How many signs are given in ten minutes by an engine that does so many jobs and then hangs.
    async fn signs(jobs: u32) -> u32 {
        let (left, given) = (Cell::new(jobs), Cell::new(0));
        let alive = || async {
            match left.get().checked_sub(1) {
                Some(fewer) => left.set(fewer),
                None => std::future::pending().await,
            }
            Ok(())
        };
        let stop = CancellationToken::new();
        let signs = keep_alive(LIMIT, alive, || given.set(given.get() + 1), &stop);
        let ended = tokio::time::timeout(10 * LIMIT, signs).await;
        assert!(ended.is_err(), "nobody said stop");
        given.get()
    }

    #[tokio::test(start_paused = true)]
    async fn an_engine_that_hangs_gives_no_sign_of_life() {
        assert_eq!(signs(3).await, 3);
        assert_eq!(signs(0).await, 0);
        assert!(signs(u32::MAX).await >= 10 * SIGNS);
    }

    #[tokio::test(start_paused = true)]
    async fn signs_end_with_the_engine_and_with_the_daemon() {
        let (stop, stopped) = (CancellationToken::new(), CancellationToken::new());
        keep_alive(LIMIT, || async { Err(Stopped) }, || panic!("a sign"), &stop).await;
        stopped.cancel();
        let hangs = std::future::pending;
        keep_alive(LIMIT, hangs, || panic!("a sign"), &stopped).await;
    }
}
