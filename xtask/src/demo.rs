//! `cargo xtask demo`: a clinic in network namespaces, before and after its first policy.
//!
//! Every claim that is printed is checked with real packets; the demo fails if one does not hold.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anstream::{eprintln, println};
use anstyle::Style;
use anyhow::{Context, Result, ensure};
use indicatif::ProgressBar;
use serde_json::Value;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use wardline_tests::clinic::{Clinic, Expected, HL7, HTTPS, INTERNET, PORTS, RTSP};
use wardline_tests::{Answer, Ctl, Daemon, Lab, Outcome, Session, Settings, TIMEOUT, eventually};

use crate::ledger::{Ledger, expected, legend, show_matrix};

const DOCUMENT: &str = "examples/clinic.yaml";
/// The rule that part 4 takes out of the document.
const REVOKED: &str = "pumps-to-records";
const PATIENCE: Duration = Duration::from_secs(5);

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();

/// Shows Wardline at work, in a clinic made of namespaces.
///
/// # Errors
/// When a part of the demo could not be run, or an expectation did not hold.
pub(crate) fn run(wardlined: &Path, wardctl: &Path, keep: bool) -> Result<()> {
    let start = Instant::now();
    // A lab is removed when it is dropped, but an interrupt drops nothing.
    let mut signals = Signals::new([SIGINT, SIGTERM]).context("handling interrupts")?;
    thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            wardline_tests::remove_all();
            std::process::exit(128 + signal);
        }
    });

    let mut ledger = Ledger::default();
    let clinic = build()?;
    part("1", "Before: no policy, and everything reaches everything");
    before(&clinic, &mut ledger)?;

    part("2", "After: the clinic's policy is in force");
    let mut daemon = Daemon::start(&clinic.lab, wardlined, &Settings::default())?;
    let ctl = Ctl::new(wardctl, &daemon)?;
    let shown = story(&clinic, &mut daemon, &ctl, &mut ledger);
    if shown.is_err() || ledger.any_failed() {
        eprintln!("\n{BOLD}The daemon's log{BOLD:#}\n{}", daemon.log());
    }
    shown?;

    if keep {
        show_around(clinic.lab, daemon, &ctl)?;
    } else {
        part("6", "Clean-up");
        clean_up(clinic, daemon, &mut ledger)?;
    }
    ledger.close(start.elapsed())
}

fn build() -> Result<Clinic> {
    let spinner = ProgressBar::new_spinner();
    spinner.enable_steady_tick(Duration::from_millis(80));
    let clinic = Clinic::build(|step| spinner.set_message(format!("building the clinic: {step}")));
    spinner.finish_and_clear();
    clinic.context("building the clinic")
}

fn before(clinic: &Clinic, ledger: &mut Ledger) -> Result<()> {
    let matrix = clinic.matrix()?;
    let open = |row, column| match expected(row, column) {
        Expected::Itself => Expected::Itself,
        _ => Expected::Allow,
    };
    show_matrix(&matrix, open);
    legend();
    ledger.check_matrix("without a policy", &matrix, open);
    Ok(())
}

/// The parts of the demo during which the daemon runs.
fn story(clinic: &Clinic, daemon: &mut Daemon, ctl: &Ctl, ledger: &mut Ledger) -> Result<()> {
    after(clinic, ctl, ledger)?;
    part("3", "Why was it dropped?");
    explain(clinic, ctl, ledger)?;
    part(
        "4",
        "Taking a rule away cuts the sessions it allowed, and no others",
    );
    revoke(clinic, ctl, ledger)?;
    part("5", "Killing the daemon changes no verdict");
    crash(clinic, daemon, ctl, ledger)
}

fn after(clinic: &Clinic, ctl: &Ctl, ledger: &mut Ledger) -> Result<()> {
    let document = document();
    let shown = ["apply", "-f", DOCUMENT, "--reason", "first policy"];
    let path = document.to_string_lossy();
    let answer = tell(
        ctl,
        &shown,
        &["apply", "-f", &path, "--reason", "first policy"],
    )?;
    ensure!(answer.code == 0, "the policy was refused");
    let guarded = eventually(PATIENCE, || guarded(ctl).unwrap_or_default());
    tell(ctl, &["status"], &["status"])?;
    ledger.check(guarded, &format!("{} ports are guarded", PORTS.len()));

    println!();
    let matrix = clinic.matrix()?;
    show_matrix(&matrix, expected);
    legend();
    ledger.check_matrix("with the policy", &matrix, expected);
    Ok(())
}

fn explain(clinic: &Clinic, ctl: &Ctl, ledger: &mut Ledger) -> Result<()> {
    println!("  camera-1 calls its vendor: one rule allows that to anybody, another denies it.\n");
    let address = "198.51.100.80";
    let outcome = clinic.camera1.tcp_connect(address, HTTPS, TIMEOUT);
    ledger.check(
        outcome == Outcome::Dropped,
        &format!("camera-1 to {address}, https: dropped"),
    );

    let mut event = None;
    eventually(PATIENCE, || {
        let events = ctl.events().unwrap_or_default();
        event = events
            .into_iter()
            .rfind(|event| event["device"] == "camera-1" && event["reason"] == "denied_by_rule");
        event.is_some()
    });
    let Some(event) = event else {
        ledger.check(false, "the drop makes an event");
        return Ok(());
    };
    command("wardctl -o json events");
    println!("    {event}");
    let rule = text(&event, "rule");
    ledger.check(
        rule == "cameras-stay-inside",
        "the event names the rule that denies",
    );

    let (to, service) = (text(&event, "destination"), text(&event, "service"));
    let arguments = ["explain", "--from", "device:camera-1", "--to", to, service];
    let answer = tell(ctl, &arguments, &arguments)?;
    ledger.check(
        answer.code == 3,
        "explain says by its exit code that it would be dropped",
    );
    let json = ctl.run(&[&["-o", "json"], &arguments[..]].concat())?;
    let told: Value = serde_json::from_str(&json.stdout).context("reading what explain printed")?;
    let same = ["reason", "rule"]
        .iter()
        .all(|field| told[field] == event[field]);
    ledger.check(
        same,
        "explain gives the reason and the rule that the kernel gave",
    );
    Ok(())
}

fn revoke(clinic: &Clinic, ctl: &Ctl, ledger: &mut Ledger) -> Result<()> {
    let mut pump = clinic.pump1.session("10.20.9.10", HL7)?;
    let nurse = clinic.nurse.session("10.20.2.21", RTSP)?;
    ledger.check(
        pump.echo(b"dose"),
        "pump-1 talks HL7 with the record server",
    );

    println!("  the same document without the rule {REVOKED}:");
    let document = fs::read_to_string(document()).context("reading the example")?;
    let without = without_rule(&document, REVOKED)?;
    let file = clinic.lab.dir().join("clinic-without.yaml");
    fs::write(&file, without).context("writing the document without the rule")?;
    let path = file.to_string_lossy();
    let (watch, answer) = watched(nurse, || {
        tell(
            ctl,
            &["apply", "-f", "clinic-without.yaml"],
            &["apply", "-f", &path],
        )
    });
    ensure!(
        answer?.code == 0,
        "the document without the rule was refused"
    );

    ledger.check(!pump.echo(b"dose"), "pump-1's live session is cut");
    ledger.check(watch.unharmed(), &watch.claim("nurse-1's video session"));
    let again = clinic.pump1.tcp_connect("10.20.9.10", HL7, TIMEOUT);
    ledger.check(again == Outcome::Dropped, "pump-1 can't connect again");

    let answer = tell(
        ctl,
        &["apply", "-f", DOCUMENT],
        &["apply", "-f", &self::document().to_string_lossy()],
    )?;
    ensure!(answer.code == 0, "the policy was refused");
    let again = clinic.pump1.tcp_connect("10.20.9.10", HL7, TIMEOUT);
    ledger.check(
        again == Outcome::Connected,
        "with the rule back, pump-1 connects",
    );
    Ok(())
}

fn crash(clinic: &Clinic, daemon: &mut Daemon, ctl: &Ctl, ledger: &mut Ledger) -> Result<()> {
    let revision = revision(ctl)?;
    let session = clinic.nurse.session("10.20.2.21", RTSP)?;
    let (watch, shown) = watched(session, || -> Result<()> {
        command(&format!("kill -9 {}", daemon.pid().unwrap_or_default()));
        daemon.kill9()?;
        ledger.check_matrix("with the daemon dead", &clinic.matrix()?, expected);
        command("wardlined --config …/wardlined.toml");
        daemon.restart()?;
        let same = eventually(PATIENCE, || {
            self::revision(ctl).is_ok_and(|now| now == revision)
        });
        ledger.check(
            same,
            &format!("the daemon takes over with revision {revision} in force"),
        );
        ledger.check_matrix("after it took over", &clinic.matrix()?, expected);
        Ok(())
    });
    shown?;
    ledger.check(watch.unharmed(), &watch.claim("a session opened before"));
    Ok(())
}

fn clean_up(clinic: Clinic, mut daemon: Daemon, ledger: &mut Ledger) -> Result<()> {
    command("wardlined --config …/wardlined.toml --detach");
    daemon.terminate()?;
    daemon.detach()?;
    let free = clinic.camera1.tcp_connect(INTERNET, HTTPS, TIMEOUT);
    ledger.check(
        free == Outcome::Connected,
        "detached: traffic is unjudged again",
    );
    let pins = fs::read_dir(daemon.pins())
        .map(Iterator::count)
        .unwrap_or_default();
    ledger.check(pins == 0, "nothing stays pinned");
    drop(daemon);

    let namespaces: Vec<PathBuf> = clinic
        .lab
        .hosts()
        .iter()
        .map(wardline_tests::Host::netns_path)
        .collect();
    clinic.close()?;
    ledger.check(
        !namespaces.iter().any(|path| path.exists()),
        "the namespaces are gone",
    );
    Ok(())
}

fn show_around(lab: Lab, daemon: Daemon, ctl: &Ctl) -> Result<()> {
    part(
        "6",
        "Yours to look around (the servers ended with this program; ping goes on)",
    );
    let client = format!("{} --server {}", ctl.binary().display(), ctl.server());
    for (title, commands) in [
        (
            "ask the daemon",
            vec![
                format!("{client} status"),
                format!("{client} events --follow"),
                format!("{client} explain --from device:camera-1 --to internet https"),
                format!("{client} flows"),
            ],
        ),
        (
            "enter a host, the router, and look at what is pinned",
            vec![
                enter(&lab, "nurse-1") + " ping -c 3 -W 1 10.20.1.11",
                enter(&lab, "camera-1") + " ping -c 3 -W 1 10.20.2.22",
                enter(&lab, "router") + " ip -brief address",
                format!("find {}", daemon.pins().display()),
            ],
        ),
        (
            "take it all down",
            vec![format!("sh {}/remove", lab.dir().display())],
        ),
    ] {
        println!("  {BOLD}{title}{BOLD:#}");
        for line in commands {
            println!("    {line}");
        }
        println!();
    }
    daemon.keep()?;
    lab.keep()?;
    Ok(())
}

fn enter(lab: &Lab, name: &str) -> String {
    let hosts = lab.hosts();
    let host = hosts
        .iter()
        .find(|host| host.name() == name)
        .unwrap_or(lab.router());
    format!("nsenter --net={}", host.netns_path().display())
}

// ── sessions that are watched ──────────────────────────────────────────────────────────────────

/// What a session observed while something else happened.
struct Watch {
    echoes: u64,
    lost: bool,
}

impl Watch {
    fn unharmed(&self) -> bool {
        !self.lost && self.echoes > 0
    }

    fn claim(&self, session: &str) -> String {
        format!(
            "{session} goes on: {} echoes in that time, none lost",
            self.echoes
        )
    }
}

/// Keeps a session sending while `work` runs.
fn watched<T>(mut session: Session, work: impl FnOnce() -> T) -> (Watch, T) {
    let (stop, echoes, lost) = (
        AtomicBool::new(false),
        AtomicU64::new(0),
        AtomicBool::new(false),
    );
    let result = thread::scope(|scope| {
        scope.spawn(|| {
            // Once more after the stop, so that effects of `work` are noticed too.
            let mut last = false;
            while !last && !lost.load(Ordering::Relaxed) {
                last = stop.load(Ordering::Relaxed);
                match session.echo(b"frame") {
                    true => echoes.fetch_add(1, Ordering::Relaxed),
                    false => lost.fetch_or(true, Ordering::Relaxed).into(),
                };
                // The pace of a video leaves the processor to other tasks.
                thread::sleep(Duration::from_millis(5));
            }
        });
        let result = work();
        stop.store(true, Ordering::Relaxed);
        result
    });
    (
        Watch {
            echoes: echoes.into_inner(),
            lost: lost.into_inner(),
        },
        result,
    )
}

// ── commands ───────────────────────────────────────────────────────────────────────────────────

/// Runs the client, and prints the command as `shown` and its whole answer.
fn tell(ctl: &Ctl, shown: &[&str], arguments: &[&str]) -> Result<Answer> {
    command(&format!("wardctl {}", shown.join(" ")));
    let answer = ctl.run(arguments)?;
    for line in answer.stdout.lines().chain(answer.stderr.lines()) {
        println!("    {line}");
    }
    Ok(answer)
}

fn guarded(ctl: &Ctl) -> Result<bool> {
    let status = ctl.json(&["status"])?;
    let ports = status["ports"].as_array().context("status without ports")?;
    Ok(PORTS.iter().all(|name| {
        let attached = ports.iter().find(|port| port["interface"] == *name);
        attached.is_some_and(|port| port["attached"] == "xdp" || port["attached"] == "tc")
    }))
}

fn revision(ctl: &Ctl) -> Result<u64> {
    ctl.json(&["status"])?["revision"]
        .as_u64()
        .context("status without a revision")
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

fn document() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .join(DOCUMENT)
}

/// The document without one rule; the example has each rule on separate lines.
fn without_rule(document: &str, rule: &str) -> Result<String> {
    let head = format!("  - name: {rule}\n");
    let (before, after) = document
        .split_once(&head)
        .context("the example lacks the rule")?;
    let rest = after.find("\n  - name: ").map_or("", |at| &after[at + 1..]);
    Ok(format!("{before}{rest}"))
}

// ── output ─────────────────────────────────────────────────────────────────────────────────────

fn part(number: &str, title: &str) {
    println!("\n{BOLD}{number}  {title}{BOLD:#}\n");
}

fn command(line: &str) {
    println!("  {DIM}${DIM:#} {BOLD}{line}{BOLD:#}");
}
