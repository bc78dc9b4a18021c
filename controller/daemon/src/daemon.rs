//! Joins the parts of the daemon and runs them until a signal says to stop.
//!
//! Guard first, manage second: what was in force is enforced before anything that can fail. The
//! database, the audit, the API and the metrics come afterwards, each by itself.

mod afterwards;
mod before;
mod clock;
mod offline;
pub mod recover;
pub mod restore;

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Duration,
};

use anyhow::{Context as _, bail};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, oneshot},
    task::{JoinError, JoinHandle, spawn_blocking},
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use wardline_datapath::{
    observe,
    ring::{Clients, EventsError, Ring},
    routes,
};

use self::{
    afterwards::{
        Database, begin, keep_copy, keep_history, keep_journal, open_audit, open_database,
    },
    before::Look,
};
use crate::{
    access::{audit::Audit, gate::Keeper, tls::Certificates},
    config::{Config, Flags},
    engine::{Engine, hooks_first::HooksFirst, start::Before},
    facts::{Known, notice, remember},
    parts::Parts,
    server::{
        calls::Service,
        metrics::{self, Metrics},
        serve::{self, Doors, ServeError},
        view::{Places, View},
    },
    service,
    store::{error::StoreError, vendors::Vendors},
    telemetry::output::Log,
    thread::{self, Handle},
};

/// Runs until a signal says to stop. What is attached stays.
///
/// # Errors
///
/// When a part that the daemon can't do without does not start, or ends.
pub async fn guard(config: Config, flags: &Flags, log: Log) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let mut user_1 = signal(SignalKind::user_defined1())?;
    let mut user_2 = signal(SignalKind::user_defined2())?;
    let socket = config.api.socket.clone();
    if serve::is_served(&socket).await {
        bail!("{}: another daemon answers on it", socket.display());
    }
    let started_with = config.clone();
    let mut running = Running::start(config).await?;
    service::ready();
    let mut minute = tokio::time::interval(Duration::from_secs(60));
    let ended = loop {
        tokio::select! {
            _ = terminate.recv() => break None,
            _ = interrupt.recv() => break None,
            _ = hang_up.recv() => {
                info!("SIGHUP: certificates and configuration are read again");
                reread(flags, &started_with, &log);
                if let Some(certificates) = running.certificates.get() {
                    certificates.reload();
                }
            }
            _ = minute.tick() => log.tell_repeats(),
            // Their default is to end the process.
            _ = user_1.recv() => {}
            _ = user_2.recv() => {}
            ended = &mut running.serving => break Some(ended),
        }
    };
    info!("stopping; what is attached stays");
    service::stopping();
    let stopped = running.stop(ended, &socket).await;
    log.tell_repeats();
    stopped
}

/// Does what a changed configuration says, as far as that can be done while ports are guarded, and
/// tells what needs a restart. One that can't be read changes nothing.
fn reread(flags: &Flags, started_with: &Config, log: &Log) {
    let config = match Config::load(flags) {
        Ok(config) => config,
        Err(error) => return error!(%error, "the configuration can't be used; nothing is changed"),
    };
    log.set_level(flags.log.unwrap_or(config.log.level));
    let changed = started_with.differences(&config);
    let later = changed.iter().filter(|key| *key != "log.level");
    for key in later {
        warn!(key, "a changed key of the configuration needs a restart");
    }
}

/// Loads the datapath and enforces what was in force before.
async fn load(
    config: Config,
    before: Before,
    parts: Parts,
) -> anyhow::Result<(Engine, (Ring, Clients), observe::Changes)> {
    // Before the first look, so that no change is missed between.
    let changes = observe::watch()?;
    let inventory = observe::observe().await?;
    let (ready, loaded) = oneshot::channel();
    // Loading blocks for as long as the kernel verifies.
    spawn_blocking(move || {
        let _ = ready.send(
            Engine::start(config, inventory, before, parts).map(|mut engine| {
                let rings = (engine.ring(), engine.clients());
                (engine, rings)
            }),
        );
    });
    let (engine, (events, clients)) = loaded.await.context("the datapath did not load")??;
    Ok((engine, (events?, clients?), changes))
}

/// What runs beside each other, and how each part is told to end.
struct Running {
    /// Ends everything but the record of calls.
    stop: CancellationToken,
    /// Ends that record: no call is served any more.
    served: CancellationToken,
    serving: JoinHandle<Result<(), ServeError>>,
    recording: JoinHandle<io::Result<()>>,
    measuring: Option<JoinHandle<()>>,
    draining: JoinHandle<Result<(), EventsError>>,
    following: JoinHandle<()>,
    keeping: JoinHandle<()>,
    meeting: JoinHandle<()>,
    exchanging: JoinHandle<()>,
    watching: JoinHandle<()>,
    learning: JoinHandle<()>,
    naming: JoinHandle<()>,
    noticing: JoinHandle<()>,
    remembering: JoinHandle<()>,
    copying: JoinHandle<()>,
    timing: JoinHandle<()>,
    /// Ends the journal: no event is recorded any more.
    drained: CancellationToken,
    journaling: JoinHandle<()>,
    dropping: JoinHandle<()>,
    opening: Opening,
    certificates: Arc<OnceLock<Certificates>>,
    engine: std::thread::JoinHandle<()>,
}

impl Running {
    async fn start(config: Config) -> anyhow::Result<Self> {
        let parts = Parts::default();
        let (config, look) = spawn_blocking(move || {
            let look = before::look(&config);
            (config, look)
        })
        .await?;
        let Look {
            before,
            copies,
            store,
            evidence,
        } = look?;
        let api = config.api.clone();
        let metrics_at = config.metrics.listen;
        let audit = Audit::closed(&config.state_dir, config.audit);
        let router = config.router.clone();
        let keep = config.history;
        let mud = Arc::new(config.mud.clone());
        let failsafe = config.failsafe.as_slice().into();
        let history = before.history.clone();
        let state_dir = config.state_dir.clone();
        let (engine, (ring, clients), changes) = load(config, before, parts.clone()).await?;
        let events = engine.events();
        let first = engine.hooks_first();
        let view = View {
            router,
            limits: *engine.limits(),
            failsafe,
            mud,
            states: engine.states(),
            reader: engine.reader(),
            parts: parts.clone(),
            events: events.clone(),
            history: history.clone(),
            known: Known::default(),
            vendors: Vendors::default(),
            changes: Places::default(),
            plans: Places::default(),
            documents: Places::default(),
            journals: Places::default(),
            backups: Places::default(),
        };
        let (handle, engine) = thread::run(engine)?;
        let [stop, served, drained] = [(); 3].map(|()| CancellationToken::new());
        let copying = keep_copy(copies, view.states.clone(), parts.clone(), stop.clone());
        let copying = tokio::spawn(copying);
        let database = Database {
            history: history.clone(),
            evidence,
            store,
        };
        let opening = Opening::start(database, &handle, &audit, &parts, &stop).await?;
        begin(&handle).await;
        let dropping = keep_history(history.clone(), keep, view.states.clone(), stop.clone());
        let dropping = tokio::spawn(dropping);

        let keeper = Arc::new(Keeper::new(audit.clone()));
        let service = Service {
            engine: handle.clone(),
            view: view.clone(),
            audit,
        };
        let learned = view.clone();
        let (states, reader) = (view.states.clone(), Arc::clone(&view.reader));
        let journal_parts = parts.clone();
        let events_of = events.clone();
        let certificates = Arc::new(OnceLock::new());
        let metrics = Metrics {
            view,
            keeper: keeper.clone(),
            certificates: certificates.clone(),
        };
        let doors = Doors {
            api,
            certificates: certificates.clone(),
            parts,
        };
        Ok(Self {
            measuring: metrics_at.map(|at| tokio::spawn(metrics::serve(metrics, at, stop.clone()))),
            serving: tokio::spawn({
                let (keeper, stop) = (keeper.clone(), stop.clone());
                async move { serve::serve(service, doors, keeper, stop).await }
            }),
            recording: tokio::spawn(keeper.keep(served.clone())),
            journaling: tokio::spawn(keep_journal(
                events.journal().clone(),
                states.clone(),
                journal_parts,
                drained.clone(),
            )),
            draining: tokio::spawn(events.drain(ring, reader, stop.clone())),
            following: tokio::spawn(follow_routes(handle.clone(), stop.clone())),
            noticing: tokio::spawn(notice(
                learned.known.clone(),
                events_of.clone(),
                clients,
                learned.states.clone(),
                stop.clone(),
            )),
            remembering: tokio::spawn(remember(
                learned.known.clone(),
                state_dir.clone(),
                stop.clone(),
            )),
            learning: tokio::spawn(keep_learned(learned.clone(), stop.clone())),
            naming: tokio::spawn(keep_names(learned, state_dir, stop.clone())),
            watching: tokio::spawn(service::watch(handle.clone(), stop.clone())),
            timing: tokio::spawn(clock::follow(handle.clone(), history, stop.clone())),
            meeting: tokio::spawn(meet(first.clone(), changes.appeared, stop.clone())),
            exchanging: tokio::spawn(exchange(first, stop.clone())),
            keeping: tokio::spawn(keep_up(handle, changes.ticks, stop.clone())),
            copying,
            dropping,
            opening,
            certificates,
            drained,
            stop,
            served,
            engine,
        })
    }

    /// Ends all parts; `ended` is how serving ended, if it did by itself.
    async fn stop(
        mut self,
        ended: Option<Result<Result<(), ServeError>, JoinError>>,
        socket: &Path,
    ) -> anyhow::Result<()> {
        self.stop.cancel();
        let ended = match ended {
            Some(ended) => ended,
            // Streams that clients follow do not end by themselves.
            None => match timeout(Duration::from_secs(2), &mut self.serving).await {
                Ok(ended) => ended,
                Err(_) => {
                    self.serving.abort();
                    let _ = std::fs::remove_file(socket);
                    Ok(Ok(()))
                }
            },
        };
        self.served.cancel();
        let recorded = timeout(Duration::from_secs(10), self.recording).await;
        self.keeping.await?;
        self.meeting.await?;
        self.exchanging.await?;
        self.following.await?;
        self.learning.await?;
        self.noticing.await?;
        self.watching.await?;
        self.timing.await?;
        // A disk that hangs does not keep the daemon from ending.
        let _ = timeout(Duration::from_secs(5), self.opening.database).await;
        let _ = timeout(Duration::from_secs(5), self.opening.audit).await;
        let _ = timeout(Duration::from_secs(5), self.dropping).await;
        let _ = timeout(Duration::from_secs(5), self.naming).await;
        let _ = timeout(Duration::from_secs(5), self.remembering).await;
        if let Some(measuring) = self.measuring {
            measuring.await?;
        }
        self.draining.await??;
        self.drained.cancel();
        let _ = timeout(Duration::from_secs(5), self.journaling).await;
        // After the last change.
        let _ = timeout(Duration::from_secs(5), self.copying).await;
        ended??;
        recorded.context("a change did not end")???;
        // Ends when the last handle is gone; calls that were cut off may still hold one.
        let joined = spawn_blocking(move || self.engine.join());
        let _ = timeout(Duration::from_secs(5), joined).await;
        Ok(())
    }
}

/// The tasks that open the database and the audit.
struct Opening {
    database: JoinHandle<()>,
    audit: JoinHandle<()>,
}

/// How long the API waits for the first try at the database and at the audit.
const FIRST_TRY: Duration = Duration::from_secs(5);

impl Opening {
    /// Starts both, and waits until each was tried once, but not for long.
    ///
    /// # Errors
    ///
    /// When another daemon uses the database.
    async fn start(
        database: Database,
        engine: &Handle,
        audit: &Audit,
        parts: &Parts,
        stop: &CancellationToken,
    ) -> anyhow::Result<Self> {
        let history = database.history.clone();
        let (tried, first) = oneshot::channel();
        let opening = open_database(
            database,
            engine.clone(),
            parts.clone(),
            audit.clone(),
            tried,
            stop.clone(),
        );
        let database = tokio::spawn(opening);
        if let Ok(Ok(Err(in_use @ StoreError::InUse(_)))) = timeout(FIRST_TRY, first).await {
            stop.cancel();
            return Err(in_use.into());
        }
        let (tried, first) = oneshot::channel();
        let opening = open_audit(audit.clone(), history, parts.clone(), tried, stop.clone());
        let audit = tokio::spawn(opening);
        let _ = timeout(FIRST_TRY, first).await;
        Ok(Self { database, audit })
    }
}

/// How often the kernel is told that no change of a route goes unseen; it believes that for a second.
const LEASE: Duration = Duration::from_millis(300);

/// Tells the datapath of routes and neighbours that change, and renews its trust in the next hops
/// that flows remember. Without this they are looked up more often.
async fn follow_routes(engine: Handle, stop: CancellationToken) {
    let mut lease = tokio::time::interval(LEASE);
    loop {
        match routes::watch() {
            Ok(mut changes) => {
                // What happened before now was not heard.
                let mut changed = true;
                loop {
                    let told = if changed {
                        engine.call(Engine::routes_changed).await
                    } else {
                        engine.call(Engine::extend_route_lease).await
                    };
                    match told {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => warn!(%error, "next hops are looked up more often"),
                        Err(_stopped) => return,
                    }
                    changed = tokio::select! {
                        // A change that has been announced comes before the word that there is none.
                        biased;
                        () = stop.cancelled() => return,
                        change = changes.recv() => match change {
                            Some(()) => true,
                            None => break,
                        },
                        _ = lease.tick() => false,
                    };
                }
                warn!("the kernel's announcements of routes have ended");
            }
            Err(error) => warn!(%error, "changes of routes go unseen"),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
    }
}

/// Guards interfaces as soon as they appear, whatever the engine is doing.
async fn meet(first: HooksFirst, mut appeared: observe::Appeared, stop: CancellationToken) {
    loop {
        let links = tokio::select! {
            () = stop.cancelled() => return,
            links = appeared.recv() => links,
        };
        let Some(links) = links else { return };
        let first = first.clone();
        // Fails only when the runtime shuts down.
        let _ = spawn_blocking(move || first.meet(&links)).await;
    }
}

/// How often it is looked whether filters are to be replaced by links.
const EXCHANGE: Duration = Duration::from_secs(1);

/// Replaces filters, which many ports that appear at once get because they take no time, by links, which
/// come before all other programs. One port at a time, because the kernel lets nobody change interfaces
/// while it waits for a grace period.
async fn exchange(first: HooksFirst, stop: CancellationToken) {
    let mut rest = EXCHANGE;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(rest) => {}
        }
        let (hooks, began) = (first.hooks().clone(), Instant::now());
        rest = match spawn_blocking(move || hooks.exchange()).await {
            Ok(Ok(true)) => began.elapsed(),
            Ok(Ok(false)) => EXCHANGE,
            Ok(Err((ifindex, error))) => {
                warn!(ifindex, %error, "a port is guarded by filters, which come after links of others");
                EXCHANGE
            }
            Err(_stopped) => return,
        };
    }
}

/// Keeps the datapath in step with interfaces and addresses, and forgets flows that have ended.
async fn keep_up(engine: Handle, mut changes: mpsc::Receiver<()>, stop: CancellationToken) {
    let mut second = tokio::time::interval(Duration::from_secs(1));
    // Notifications can be lost; what is there can be looked at.
    let mut minute = tokio::time::interval(Duration::from_secs(30));
    let mut rest = Instant::now();
    loop {
        let look = tokio::select! {
            () = stop.cancelled() => return,
            // Changes that never end take no more than half of the engine's time.
            changed = async { sleep_until(rest).await; changes.recv().await } => changed.is_some(),
            _ = minute.tick() => true,
            _ = second.tick() => false,
        };
        let began = Instant::now();
        let done = if look {
            match observe::observe().await {
                Ok(inventory) => engine.call(|engine| engine.set_inventory(inventory)).await,
                Err(error) => {
                    warn!(%error, "can't see what interfaces there are");
                    continue;
                }
            }
        } else {
            engine.call(Engine::sweep).await
        };
        match done {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(%error, "the datapath is not in step"),
            Err(_) => return,
        }
        if look {
            rest = Instant::now() + began.elapsed();
        }
    }
}

/// How often learned addresses are gone through. Only for a while after that the kernel gives away
/// addresses that are idle.
const LEARNED: Duration = Duration::from_secs(30);

/// Keeps what the kernel knows of learned addresses true.
async fn keep_learned(view: View, stop: CancellationToken) {
    let mut due = tokio::time::interval(LEARNED);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = due.tick() => {}
        }
        let view = view.clone();
        let kept = spawn_blocking(move || view.keep_learned()).await;
        match kept {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(%error, "learned addresses are not gone through"),
            Err(error) => warn!(%error, "learned addresses are not gone through"),
        }
    }
}

/// How often names are gone through, and what is known of them kept for the time after a reboot.
const NAMES: Duration = Duration::from_secs(10);

/// Goes through names now and then, and at the end.
async fn keep_names(view: View, state_dir: PathBuf, stop: CancellationToken) {
    let mut due = tokio::time::interval(NAMES);
    let mut before = Vec::new();
    loop {
        let ends = tokio::select! {
            () = stop.cancelled() => true,
            _ = due.tick() => false,
        };
        let (view, state_dir) = (view.clone(), state_dir.clone());
        let work = move || {
            let kept = view.keep_names(&state_dir, &mut before);
            (kept, before)
        };
        match spawn_blocking(work).await {
            Ok((kept, now)) => {
                if let Err(error) = kept {
                    warn!(%error, "names are not gone through");
                }
                before = now;
            }
            Err(error) => {
                warn!(%error, "names are not gone through");
                before = Vec::new();
            }
        }
        if ends {
            return;
        }
    }
}
