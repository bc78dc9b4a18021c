//! `wardlined`: reads its configuration, joins the parts, waits for a signal.

use std::{
    io::{self, ErrorKind, Write as _},
    process::ExitCode,
};

use anyhow::{Context as _, anyhow};
use clap::{CommandFactory as _, Parser as _};
use wardline_daemon::{
    access::tls::Certificates,
    config,
    config::Config,
    daemon::{self, recover::recover, restore::restore},
    server::serve,
    telemetry::output::Log,
};
use wardline_datapath::{Datapath, links, load::Size};

fn main() -> ExitCode {
    let flags = config::Flags::parse();
    if flags.man {
        return manual();
    }
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
    let level = flags.log.unwrap_or(config.log.level);
    let format = flags.log_format.unwrap_or(config.log.format);
    let log = Log::start(level, format);
    if let Some(file) = &flags.restore {
        return say(&restore(&config, file, flags.replace, flags.check).await?);
    }
    if flags.recover {
        return say(&recover(&config, flags.check).await?);
    }
    if flags.check {
        if let Some(tls) = &config.api.tls {
            Certificates::load(tls)?;
        }
        return say(&config.to_string());
    }
    if flags.detach {
        return detach(&config).await;
    }
    if flags.programs {
        return programs(&config);
    }
    daemon::guard(config, flags, log).await
}

/// Prints the manual page, as packages install it.
fn manual() -> ExitCode {
    let page = clap_mangen::Man::new(config::Flags::command()).section("8");
    match page.render(&mut io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_closed) => ExitCode::FAILURE,
    }
}

/// Prints the size of each program, and how many instructions the verifier looked at. Nothing is
/// pinned or attached.
fn programs(config: &Config) -> anyhow::Result<()> {
    let mut datapath = Datapath::open(None, &config.limits, &config.timeouts)?;
    let mut text = format!(
        "{:<12} {:>12} {:>9}\n",
        "program", "instructions", "verified"
    );
    for Size {
        name,
        instructions,
        verified,
    } in datapath.sizes()?
    {
        text += &format!("{name:<12} {instructions:>12} {verified:>9}\n");
    }
    say(&text)
}

/// Writes to standard output. Whoever reads it may have seen enough, as `head` does.
fn say(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(error).context("standard output can't be written")
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Removes everything that was ever attached or pinned.
async fn detach(config: &Config) -> anyhow::Result<()> {
    if serve::is_served(&config.api.socket).await {
        return Err(anyhow!(
            "a daemon answers on {}; stop it first, or it would attach again",
            config.api.socket.display()
        ));
    }
    let errors = links::detach(&config.pin_dir);
    if errors.is_empty() {
        return say("nothing is attached or pinned any more; traffic is not judged\n");
    }
    let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
    Err(anyhow!(
        "not everything could be removed: {}",
        errors.join("; ")
    ))
}
