//! `wardlined`: reads its configuration, joins the parts, waits for a signal.

use std::{io::IsTerminal as _, process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context as _, anyhow};
use clap::Parser as _;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use tracing::{info, warn};
use wardline_controller::{
    api,
    audit::Audit,
    config,
    config::Config,
    datapath::{self, Datapath, Size},
    gate::Keeper,
    inventory, metrics,
    metrics::Metrics,
    reconcile::{self, Engine, Handle},
    routes, serve,
    tls::Certificates,
};

fn main() -> ExitCode {
    let flags = config::Flags::parse();
    tracing_subscriber::fmt()
        .with_max_level(flags.log)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    let done = tokio::runtime::Runtime::new()
        .context("the runtime does not start")
        .and_then(|runtime| runtime.block_on(run(&flags)));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("wardlined: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(flags: &config::Flags) -> anyhow::Result<()> {
    let config = Config::load(flags)?;
    if flags.check {
        if let Some(tls) = &config.api.tls {
            Certificates::load(tls)?;
        }
        print!("{config}");
        return Ok(());
    }
    if flags.detach {
        return detach(&config).await;
    }
    if flags.programs {
        return programs(&config);
    }
    guard(config).await
}

/// Prints what the kernel's verifier says of the programs. Nothing is pinned or attached.
fn programs(config: &Config) -> anyhow::Result<()> {
    let mut datapath = Datapath::open(None, &config.limits, &config.timeouts)?;
    println!("{:<12} {:>12} {:>9}", "program", "instructions", "verified");
    for Size {
        name,
        instructions,
        verified,
    } in datapath.sizes()?
    {
        println!("{name:<12} {instructions:>12} {verified:>9}");
    }
    Ok(())
}

/// Removes everything that was ever attached or pinned.
async fn detach(config: &Config) -> anyhow::Result<()> {
    if serve::is_served(&config.api.socket).await {
        return Err(anyhow!(
            "a daemon answers on {}; stop it first, or it would attach again",
            config.api.socket.display()
        ));
    }
    let errors = datapath::detach(&config.pin_dir);
    if errors.is_empty() {
        println!("nothing is attached or pinned any more; traffic is not judged");
        return Ok(());
    }
    let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
    Err(anyhow!(
        "not everything could be removed: {}",
        errors.join("; ")
    ))
}

/// Runs until a signal says to stop. What is attached stays.
async fn guard(config: Config) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let api = config.api.clone();
    let metrics_at = config.metrics.listen;
    let certificates = api.tls.as_ref().map(Certificates::load).transpose()?;
    let state_dir = config.state_dir.clone();
    // Before the first look, so that no change is missed between.
    let changes = inventory::watch()?;
    let inventory = inventory::observe().await?;
    let (ready, loaded) = tokio::sync::oneshot::channel();
    // Loading blocks for as long as the kernel verifies.
    tokio::task::spawn_blocking(move || {
        let _ = ready.send(Engine::start(config, inventory).map(|mut engine| {
            let ring = engine.datapath().events();
            (engine, ring)
        }));
    });
    let (engine, ring) = loaded.await.context("the datapath did not load")??;
    let ring = ring?;
    let snapshots = engine.snapshots();
    let events = engine.events();
    // The store has made the folder, and holds its lock.
    let audit = Audit::open(&state_dir)?;
    audit.catch_up(engine.revisions_after(audit.revision())?);
    let (handle, thread) = reconcile::run(engine)?;
    let (stop, stopped) = watch::channel(false);
    let keeper = Arc::new(Keeper::new(audit.clone()));

    let service = api::Service {
        engine: handle.clone(),
        snapshots,
        audit,
        events: events.clone(),
    };
    let metrics = Metrics {
        engine: handle.clone(),
        keeper: keeper.clone(),
        certificates: certificates.clone(),
    };
    let measuring = metrics_at.map(|at| tokio::spawn(metrics::serve(metrics, at, stopped.clone())));
    let serving = tokio::spawn({
        let (api, keeper, stopped) = (api.clone(), keeper.clone(), stopped.clone());
        async move { serve::serve(service, &api, certificates, keeper, stopped).await }
    });
    let (served, ended) = watch::channel(false);
    let recording = tokio::spawn(keeper.keep(ended));
    let draining = tokio::spawn(events.drain(ring, stopped.clone()));
    let following = tokio::spawn(follow_routes(handle.clone(), stopped.clone()));
    let keeping = tokio::spawn(keep_up(handle, changes, stopped));
    info!(socket = %api.socket.display(), "ready");

    let mut serving = serving;
    let failed = tokio::select! {
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        ended = &mut serving => Some(ended),
    };
    info!("stopping; what is attached stays");
    stop.send_replace(true);
    let ended = match failed {
        Some(ended) => ended,
        // Streams that clients follow do not end by themselves.
        None => match tokio::time::timeout(Duration::from_secs(2), &mut serving).await {
            Ok(ended) => ended,
            Err(_) => {
                serving.abort();
                let _ = std::fs::remove_file(&api.socket);
                Ok(Ok(()))
            }
        },
    };
    served.send_replace(true);
    let recorded = tokio::time::timeout(Duration::from_secs(10), recording).await;
    keeping.await?;
    following.await?;
    if let Some(measuring) = measuring {
        measuring.await?;
    }
    draining.await??;
    ended??;
    recorded.context("a change did not end")???;
    // Ends when the last handle is gone; calls that were cut off may still hold one.
    let joined = tokio::task::spawn_blocking(move || thread.join());
    let _ = tokio::time::timeout(Duration::from_secs(5), joined).await;
    Ok(())
}

/// Tells the datapath of routes and neighbours that change. It does without, more slowly.
async fn follow_routes(engine: Handle, mut stop: watch::Receiver<bool>) {
    while let Err(error) = routes::follow(engine.clone(), stop.clone()).await {
        warn!(%error, "changes of routes go unseen");
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
    }
}

/// Keeps the datapath in step with interfaces and addresses, and forgets flows that have ended.
async fn keep_up(
    engine: Handle,
    mut changes: tokio::sync::mpsc::Receiver<()>,
    mut stop: watch::Receiver<bool>,
) {
    let mut second = tokio::time::interval(Duration::from_secs(1));
    // Notifications can be lost; what is there can be looked at.
    let mut minute = tokio::time::interval(Duration::from_secs(30));
    loop {
        let look = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            changed = changes.recv() => changed.is_some(),
            _ = minute.tick() => true,
            _ = second.tick() => false,
        };
        let done = if look {
            match inventory::observe().await {
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
