//! Joins the parts of the daemon and runs them until a signal says to stop.

use std::{io, path::Path, sync::Arc, time::Duration};

use anyhow::Context as _;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    task::{JoinError, JoinHandle},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use wardline_datapath::{
    observe,
    ring::{EventsError, Ring},
    routes,
};

use crate::{
    access::{audit::Audit, gate::Keeper, tls::Certificates},
    config::Config,
    engine::Engine,
    server::{
        calls::Service,
        metrics::{self, Metrics},
        serve::{self, ServeError},
        view::{Places, View},
    },
    service,
    thread::{self, Handle},
};

/// Runs until a signal says to stop. What is attached stays.
///
/// # Errors
///
/// When a part that the daemon can't do without does not start, or ends.
pub async fn guard(config: Config) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let socket = config.api.socket.clone();
    let mut running = Running::start(config).await?;
    info!(socket = %socket.display(), "ready");
    service::ready();
    let ended = tokio::select! {
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        ended = &mut running.serving => Some(ended),
    };
    info!("stopping; what is attached stays");
    service::stopping();
    running.stop(ended, &socket).await
}

/// Loads the datapath and takes over what is in force.
async fn load(config: Config) -> anyhow::Result<(Engine, Ring, mpsc::Receiver<()>)> {
    // Before the first look, so that no change is missed between.
    let changes = observe::watch()?;
    let inventory = observe::observe().await?;
    let (ready, loaded) = tokio::sync::oneshot::channel();
    // Loading blocks for as long as the kernel verifies.
    tokio::task::spawn_blocking(move || {
        let _ = ready.send(Engine::start(config, inventory).map(|mut engine| {
            let ring = engine.ring();
            (engine, ring)
        }));
    });
    let (engine, ring) = loaded.await.context("the datapath did not load")??;
    Ok((engine, ring?, changes))
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
    watching: JoinHandle<()>,
    learning: JoinHandle<()>,
    engine: std::thread::JoinHandle<()>,
}

impl Running {
    async fn start(config: Config) -> anyhow::Result<Self> {
        let api = config.api.clone();
        let metrics_at = config.metrics.listen;
        let certificates = api.tls.as_ref().map(Certificates::load).transpose()?;
        let state_dir = config.state_dir.clone();
        let (router, limits) = (config.router.clone(), config.limits);
        let failsafe = config.failsafe.as_slice().into();
        let (engine, ring, changes) = load(config).await?;
        let events = engine.events();
        let view = View {
            router,
            limits,
            failsafe,
            states: engine.states(),
            reader: engine.reader(),
            events: events.clone(),
            history: engine.history(),
            plans: Places::default(),
            documents: Places::default(),
        };
        // The store has made the folder, and holds its lock.
        let audit = Audit::open(&state_dir)?;
        audit.catch_up(engine.history().after(audit.revision())?);
        let (handle, engine) = thread::run(engine)?;
        let (stop, served) = (CancellationToken::new(), CancellationToken::new());
        let keeper = Arc::new(Keeper::new(audit.clone()));
        let service = Service {
            engine: handle.clone(),
            view: view.clone(),
            audit,
        };
        let learned = view.clone();
        let metrics = Metrics {
            view,
            keeper: keeper.clone(),
            certificates: certificates.clone(),
        };
        Ok(Self {
            measuring: metrics_at.map(|at| tokio::spawn(metrics::serve(metrics, at, stop.clone()))),
            serving: tokio::spawn({
                let (keeper, stop) = (keeper.clone(), stop.clone());
                async move { serve::serve(service, &api, certificates, keeper, stop).await }
            }),
            recording: tokio::spawn(keeper.keep(served.clone())),
            draining: tokio::spawn(events.drain(ring, stop.clone())),
            following: tokio::spawn(follow_routes(handle.clone(), stop.clone())),
            learning: tokio::spawn(keep_learned(learned, stop.clone())),
            watching: tokio::spawn(service::watch(handle.clone(), stop.clone())),
            keeping: tokio::spawn(keep_up(handle, changes, stop.clone())),
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
        self.following.await?;
        self.learning.await?;
        self.watching.await?;
        if let Some(measuring) = self.measuring {
            measuring.await?;
        }
        self.draining.await??;
        ended??;
        recorded.context("a change did not end")???;
        // Ends when the last handle is gone; calls that were cut off may still hold one.
        let joined = tokio::task::spawn_blocking(move || self.engine.join());
        let _ = timeout(Duration::from_secs(5), joined).await;
        Ok(())
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

/// Keeps the datapath in step with interfaces and addresses, and forgets flows that have ended.
async fn keep_up(engine: Handle, mut changes: mpsc::Receiver<()>, stop: CancellationToken) {
    let mut second = tokio::time::interval(Duration::from_secs(1));
    // Notifications can be lost; what is there can be looked at.
    let mut minute = tokio::time::interval(Duration::from_secs(30));
    loop {
        let look = tokio::select! {
            () = stop.cancelled() => return,
            changed = changes.recv() => changed.is_some(),
            _ = minute.tick() => true,
            _ = second.tick() => false,
        };
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
        let kept = tokio::task::spawn_blocking(move || view.keep_learned()).await;
        match kept {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(%error, "learned addresses are not gone through"),
            Err(error) => warn!(%error, "learned addresses are not gone through"),
        }
    }
}
