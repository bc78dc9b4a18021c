//! The life of the package on a router: installed, upgraded, removed and purged in a fresh Debian,
//! while devices send what they may and what they may not.

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
    time::Duration,
};

use anyhow::{bail, ensure};
use wardline_tests::{
    Host, Outcome,
    ward::{FAR, Ward, policy, zone},
};

use super::{Package, Stage, archive, home, router::Router, stage, time};
use crate::{build::Programs, setup, step};

/// The version that is upgraded; it has the same programs, since nothing was released before.
const BEFORE: &str = "0.0.1";

/// What the policy lets through, and what it does not.
const ALLOWED: u16 = 7;
const DENIED: u16 = 8;

/// How long a connection that is let through may take.
const SOON: Duration = Duration::from_millis(500);

/// Runs the whole life.
///
/// # Errors
/// When a step fails, or a claim does not hold.
pub(super) fn run(root: &Path, programs: &Programs, package: &Package) -> anyhow::Result<()> {
    ensure!(setup::is_root(), "the life of a package takes root");
    let home = home(root);
    let before = home.join("before");
    stage::folder(&before)?;
    let old = Stage::fill(root, &before.join("stage"), programs, BEFORE, time(root)?)?;
    let old = archive::write(root, &old, &before)?;
    let ward = Ward::new("package");
    let device = ward.device(1);
    let _servers = [ALLOWED, DENIED]
        .map(|port| ward.far.tcp_serve(port))
        .into_iter()
        .collect::<anyhow::Result<Vec<_>>>()?;
    ward.lab.settle()?;
    let router = Router::new(&home, "adduser", ward.lab.router().clone())?;
    live(&router, &device, &old, package)?;
    drop(router);
    ward.lab.close()
}

fn live(router: &Router, device: &Host, old: &Package, new: &Package) -> anyhow::Result<()> {
    let opens = |port| device.tcp_connect(FAR[0], port, SOON) == Outcome::Connected;
    let both = |what: &str, allowed: bool, denied: bool| {
        let seen = (opens(ALLOWED), opens(DENIED));
        ensure!(seen == (allowed, denied), "{what}: {seen:?}");
        step::title(what);
        Ok(())
    };
    let empty = router.files()?;
    both("before: everything passes", true, true)?;

    router.install(&old.deb)?;
    router.run("getent", &["passwd", "wardline"])?;
    both("installed: nothing is closed", true, true)?;
    let daemon = router.start()?;
    both(
        "started: nothing is closed before the first policy",
        true,
        true,
    )?;
    let document = policy(&[zone(1, "", "")], "tcp/7");
    fs::write(router.tree.join("srv/policy.yaml"), document)?;
    router.run("wardctl", &["apply", "-f", "/srv/policy.yaml"])?;
    both("a policy: what it does not allow is closed", true, false)?;
    ensure!(
        router.has_hooks()?,
        "no hook is seen where there must be one"
    );

    let config = router.tree.join("etc/wardline/wardlined.toml");
    let changed = fs::read_to_string(&config)? + "router = \"ward-3\"\n";
    fs::write(&config, &changed)?;
    let daemon = under_traffic(device, || {
        router.install(&new.deb)?;
        daemon.end()?;
        router.start()
    })?;
    ensure!(fs::read_to_string(&config)? == changed, "the configuration");
    let status = router.run("wardctl", &["status"])?;
    ensure!(status.contains("ward-3"), "{status}");
    both(
        "upgraded: judged throughout, no allowed packet lost",
        true,
        false,
    )?;

    let refused = router.run("dpkg", &["--remove", "wardline"]);
    ensure!(refused.is_err(), "removed beside a daemon that runs");
    both(
        "a removal beside a daemon is refused, and changes nothing",
        true,
        false,
    )?;
    daemon.end()?;
    both("stopped: judged as before", true, false)?;
    router.run("dpkg", &["--remove", "wardline"])?;
    both("removed: nothing is attached", true, true)?;
    ensure!(!router.has_hooks()?, "hooks after a removal");
    ensure!(
        !router.tree.join("usr/sbin/wardlined").exists(),
        "a program"
    );
    for kept in [
        "var/lib/wardline/wardline.db",
        "etc/wardline/wardlined.toml",
    ] {
        ensure!(router.tree.join(kept).exists(), "{kept} is not kept");
    }
    router.run("dpkg", &["--purge", "wardline"])?;
    fs::remove_file(router.tree.join("srv/policy.yaml"))?;
    let files = router.files()?;
    let left: Vec<&String> = files.difference(&empty).collect();
    ensure!(left.is_empty(), "left after a purge: {left:?}");
    let user = router.run("getent", &["passwd", "wardline"]);
    ensure!(user.is_err(), "the user is left");
    step::title("purged: nothing is left");
    Ok(())
}

/// Does something while a device tries what it may and what it may not, all the time.
fn under_traffic<T>(device: &Host, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let (over, tries) = (AtomicBool::new(false), AtomicU32::new(0));
    thread::scope(|scope| {
        let sender = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let allowed = device.tcp_connect(FAR[0], ALLOWED, SOON);
                ensure!(
                    allowed == Outcome::Connected,
                    "a packet was lost: {allowed:?}"
                );
                let denied = device.tcp_connect(FAR[0], DENIED, Duration::from_millis(50));
                ensure!(denied != Outcome::Connected, "a packet passed unjudged");
                tries.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        });
        let done = work();
        over.store(true, Ordering::Relaxed);
        match sender.join() {
            Ok(sent) => sent?,
            Err(_) => bail!("the device's thread panicked"),
        }
        step::title(format!("{} tries meanwhile", tries.load(Ordering::Relaxed)));
        done
    })
}
