//! What the daemon keeps trying once ports are guarded: the copy, the database, the audit, the journal.

use std::time::Duration;

use jiff::Timestamp;
use tokio::{
    sync::{oneshot, watch},
    task::spawn_blocking,
    time::sleep,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    access::audit::Audit,
    config::Kept,
    engine::{Engine, state::State},
    memory::give_back,
    parts::{BackOff, Part, Parts},
    store::{
        Store,
        enforced::Copies,
        error::StoreError,
        folder,
        history::History,
        retention::{Dropped, drop_old},
    },
    telemetry::journal::Journal,
    thread::Handle,
};

/// Writes a copy of what is in force after each change, on a thread of its own, so that no change
/// waits for it. When several come at once, the last of them is written.
pub(super) async fn keep_copy(
    mut copies: Copies,
    mut states: watch::Receiver<State>,
    parts: Parts,
    stop: CancellationToken,
) {
    let mut wait = BackOff::default();
    loop {
        let stops = stop.is_cancelled();
        let enforced = states.borrow_and_update().enforced();
        let mut again = None;
        if let Some(enforced) = enforced {
            let written = spawn_blocking(move || {
                let written = copies.write(&enforced);
                (copies, written)
            });
            let Ok((back, written)) = written.await else {
                return;
            };
            copies = back;
            match written {
                Ok(()) => {
                    parts.works(Part::Copy);
                    wait = BackOff::default();
                }
                Err(error) => {
                    let next = wait.next_wait();
                    parts.breaks(Part::Copy, &error, Some(next));
                    again = Some(next);
                }
            }
        }
        if stops {
            return;
        }
        tokio::select! {
            () = stop.cancelled() => {}
            changed = states.changed() => if changed.is_err() { return },
            () = sleep(again.unwrap_or_default()), if again.is_some() => {}
        }
    }
}

/// Where the database is, and what must be known to open it.
pub(super) struct Database {
    pub(super) history: History,
    /// What tells that there was a history.
    pub(super) evidence: Option<String>,
    /// The database, if it is open already.
    pub(super) store: Option<Store>,
}

/// Opens the database, again and again until that succeeds, and hands it to the engine. `first` hears
/// how the first try ended.
pub(super) async fn open_database(
    mut database: Database,
    engine: Handle,
    parts: Parts,
    audit: Audit,
    first: oneshot::Sender<Result<(), StoreError>>,
    stop: CancellationToken,
) {
    let mut first = Some(first);
    let history = database.history.clone();
    let mut tries = parts.tries(Part::Database, &stop);
    loop {
        let opened = match database.store.take() {
            Some(store) => Ok(store),
            None => {
                let (history, evidence) = (history.clone(), database.evidence.clone());
                let opened =
                    spawn_blocking(move || Store::open_known(&history, evidence.as_deref()));
                // Fails only when the runtime shuts down.
                opened
                    .await
                    .unwrap_or_else(|_| Err(database.history.is_away()))
            }
        };
        let told = match opened {
            Ok(store) => match engine.call(|engine| engine.attach(store)).await {
                Ok(Ok(())) => break,
                Ok(Err(refusal)) => refusal.to_string(),
                Err(_stopped) => return,
            },
            Err(error) => {
                let told = error.to_string();
                if let Some(first) = first.take() {
                    let _ = first.send(Err(error));
                }
                told
            }
        };
        if !tries.goes_on_after(&told).await {
            return;
        }
    }
    parts.works(Part::Database);
    if let Some(first) = first.take() {
        let _ = first.send(Ok(()));
    }
    // An audit that opens later does this then.
    if audit.is_open() {
        catch_up(&audit, &history).await;
    }
}

/// Opens the audit, again and again until that succeeds, and tries again to write what waits.
/// `first` hears that the first try has ended.
pub(super) async fn open_audit(
    audit: Audit,
    history: History,
    parts: Parts,
    first: oneshot::Sender<()>,
    stop: CancellationToken,
) {
    let mut first = Some(first);
    let mut tries = parts.tries(Part::Audit, &stop);
    loop {
        let opening = audit.clone();
        let directory = history.directory().to_owned();
        let opened = spawn_blocking(move || {
            folder::check(&directory).map_err(|error| error.to_string())?;
            opening.open().map_err(|error| error.to_string())
        });
        let opened = opened.await.unwrap_or_else(|error| Err(error.to_string()));
        if opened.is_ok() {
            catch_up(&audit, &history).await;
        }
        if let Some(first) = first.take() {
            let _ = first.send(());
        }
        match opened {
            Ok(()) => break,
            Err(error) if tries.goes_on_after(&error).await => {}
            Err(_) => return,
        }
    }
    parts.works(Part::Audit);
    let mut second = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = second.tick() => {}
        }
        let waiting = audit.clone();
        match spawn_blocking(move || waiting.ready()).await {
            Ok(Ok(())) => parts.works(Part::Audit),
            Ok(Err(error)) => {
                let error = format!("it can't be written: {error}");
                parts.breaks(Part::Audit, &error, Some(Duration::from_secs(1)));
            }
            Err(_) => return,
        }
    }
}

/// How long after a change it is seen whether old revisions are dropped: a burst of changes is one.
const SETTLED: Duration = Duration::from_secs(5);
/// How often revisions are dropped that are too old, if nothing changes.
const DAILY: Duration = Duration::from_secs(24 * 60 * 60);

/// Drops old revisions: at the start, after changes, and daily.
pub(super) async fn keep_history(
    history: History,
    keep: Kept,
    mut states: watch::Receiver<State>,
    stop: CancellationToken,
) {
    loop {
        let owed = states.borrow_and_update().owed.len();
        // What is not recorded yet may refer to any revision.
        if owed == 0 {
            let history = history.clone();
            let dropped = spawn_blocking(move || {
                let dropped = drop_old(&history, &keep, Timestamp::now());
                give_back();
                dropped
            });
            match dropped.await {
                Ok(Ok(Some(Dropped { count, first }))) => {
                    info!(count, first, "old revisions were dropped");
                }
                Ok(Ok(None) | Err(StoreError::Away(_))) => {}
                Ok(Err(error)) => warn!(%error, "old revisions are not dropped"),
                Err(_stopped) => return,
            }
        }
        let changed = async {
            // The last state stays when the engine has ended.
            if states.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            sleep(SETTLED).await;
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = changed => {}
            () = sleep(DAILY) => {}
        }
    }
}

/// Writes the journal of events. While the wall clock is not believed, no event is old.
pub(super) async fn keep_journal(
    journal: Journal,
    states: watch::Receiver<State>,
    parts: Parts,
    stop: CancellationToken,
) {
    let trusts_clock = move || states.borrow().clock_doubt.is_none();
    journal.keep(parts, trusts_clock, stop).await;
}

/// Adds records for revisions that have none because of a crash.
async fn catch_up(audit: &Audit, history: &History) {
    let (audit, history) = (audit.clone(), history.clone());
    let done = spawn_blocking(move || match history.after(audit.revision()) {
        Ok(revisions) => audit.catch_up(revisions),
        Err(StoreError::Away(_)) => {}
        Err(error) => warn!(%error, "the audit may miss revisions of before the start"),
    });
    // Fails only when the runtime shuts down.
    let _ = done.await;
}

/// Does what became due while no daemon ran. From then on it is done once a second.
pub(super) async fn begin(engine: &Handle) {
    match engine.call(Engine::begin).await {
        Ok(Ok(())) | Err(_) => {}
        Ok(Err(error)) => warn!(%error, "what is due is tried again"),
    }
}
