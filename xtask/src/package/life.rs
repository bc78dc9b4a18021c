//! The life of the package on a router: installed, upgraded, removed and purged in a fresh Debian,
//! while devices send what they may and what they may not.
//!
//! There is no systemd in that Debian. The daemon is started as the unit says: what runs before it
//! as root, then itself, as the unit's user with the unit's capabilities.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use wardline_tests::{
    Host, Outcome, eventually,
    ward::{FAR, Ward, policy, zone},
};

use super::{Package, Stage, archive, home, output, stage, time};
use crate::{build::Programs, setup, step};

/// The release that the package is installed on.
const RELEASE: &str = "bookworm";

/// The version that is upgraded; it has the same programs, since nothing was released before.
const BEFORE: &str = "0.0.1";

/// What the policy lets through, and what it does not.
const ALLOWED: u16 = 7;
const DENIED: u16 = 8;

/// How long a connection that is let through may take.
const SOON: Duration = Duration::from_millis(500);

/// The daemon verifies its programs first.
const START: Duration = Duration::from_secs(180);

/// Files that any package leaves behind, or that the user's coming and going leaves.
const LEFT: [&str; 8] = [
    "var/lib/dpkg/",
    "var/log/",
    "var/cache/",
    "etc/passwd",
    "etc/group",
    "etc/shadow",
    "etc/gshadow",
    "run/adduser",
];

/// Runs the whole life.
///
/// # Errors
/// When a step fails, or a claim does not hold.
pub(super) fn run(root: &Path, programs: &Programs, package: &Package) -> anyhow::Result<()> {
    ensure!(setup::is_root(), "the life of a package takes root");
    setup::install_packages(&["debootstrap"])?;
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
    let router = Router::new(&home, ward.lab.router().clone())?;
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
    fs::write(router.tree.join("root/policy.yaml"), document)?;
    router.run("wardctl", &["apply", "-f", "/root/policy.yaml"])?;
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
    fs::remove_file(router.tree.join("root/policy.yaml"))?;
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

/// A Debian in a folder, whose network is that of a lab's router.
struct Router {
    tree: PathBuf,
    host: Host,
}

impl Router {
    fn new(home: &Path, host: Host) -> anyhow::Result<Self> {
        let (base, tree) = (home.join("debian"), home.join("router"));
        if !base.join("etc/debian_version").exists() {
            let mut bootstrap = Command::new("debootstrap");
            bootstrap
                .args(["--variant=minbase", "--include=adduser", RELEASE])
                .arg(&base)
                .arg(mirror()?);
            step::wait(&format!("a fresh {RELEASE}"), &mut bootstrap)?;
        }
        if tree.exists() {
            fs::remove_dir_all(&tree).with_context(|| format!("removing {}", tree.display()))?;
        }
        output(Command::new("cp").arg("-a").arg(&base).arg(&tree))?;
        let router = Self { tree, host };
        for (kind, at, mode) in [
            ("proc", "proc", None),
            ("sysfs", "sys", None),
            // As systemd mounts it: only root gets in.
            ("bpf", "sys/fs/bpf", Some("mode=0700")),
            ("tmpfs", "run", None),
        ] {
            let mut mount = Command::new("mount");
            mount.args(["-t", kind]);
            mount.args(mode.into_iter().flat_map(|mode| ["-o", mode]));
            output(mount.arg(kind).arg(router.tree.join(at)))?;
        }
        Ok(router)
    }

    /// A command in that Debian.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("chroot");
        command
            .arg(&self.tree)
            .arg(program)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LC_ALL", "C")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdin(Stdio::null());
        command
    }

    /// Runs a command in that Debian, which must succeed, and returns what it printed.
    fn run(&self, program: &str, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = self.command(program);
        command
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let done = self.host.spawn(&mut command)?.wait_with_output()?;
        let out = String::from_utf8_lossy(&done.stdout).into_owned();
        if !done.status.success() {
            let err = String::from_utf8_lossy(&done.stderr);
            bail!("{program} {}: {out}{err}", arguments.join(" "));
        }
        Ok(out)
    }

    fn install(&self, deb: &Path) -> anyhow::Result<()> {
        fs::copy(deb, self.tree.join("root/wardline.deb"))?;
        self.run("dpkg", &["--install", "/root/wardline.deb"])?;
        fs::remove_file(self.tree.join("root/wardline.deb"))?;
        Ok(())
    }

    /// Starts the daemon as the unit does.
    fn start(&self) -> anyhow::Result<Running> {
        let unit = self.tree.join("usr/lib/systemd/system/wardlined.service");
        let unit = fs::read_to_string(unit)?;
        let one = |key: &'static str| {
            let mut said = said(&unit, key);
            said.next().with_context(|| format!("no {key}"))
        };
        for line in said(&unit, "ExecStartPre") {
            let mut words = line.trim_start_matches('+').split_whitespace();
            let program = words.next().context("nothing to run")?;
            self.run(program, &words.collect::<Vec<_>>())?;
        }
        let (user, group) = (one("User")?, one("Group")?);
        for (at, bits) in [("/var/lib/wardline", "0700"), ("/run/wardline", "0755")] {
            self.run("install", &["-d", "-m", bits, "-o", user, "-g", group, at])?;
        }
        let capabilities: Vec<String> = one("AmbientCapabilities")?
            .split_whitespace()
            .map(|name| format!("+{}", name.trim_start_matches("CAP_").to_lowercase()))
            .collect();
        let capabilities = format!("-all,{}", capabilities.join(","));
        let log = fs::File::create(self.tree.join("run/log"))?;
        let mut command = self.command("setpriv");
        command
            .arg(format!("--reuid={user}"))
            .arg(format!("--regid={group}"))
            .args(["--clear-groups", "--no-new-privs"])
            .arg(format!("--inh-caps={capabilities}"))
            .arg(format!("--ambient-caps={capabilities}"))
            .arg(format!("--bounding-set={capabilities}"))
            .args(one("ExecStart")?.split_whitespace())
            .stdout(log.try_clone()?)
            .stderr(log);
        let mut child = self.host.spawn(&mut command)?;
        let mut ended = None;
        let serves = eventually(START, || {
            ended = child.try_wait().ok().flatten();
            ended.is_some() || self.run("wardctl", &["status"]).is_ok()
        });
        let log = fs::read_to_string(self.tree.join("run/log"))?;
        ensure!(
            serves && ended.is_none(),
            "the daemon does not serve: {log}"
        );
        Ok(Running(child))
    }

    fn has_hooks(&self) -> anyhow::Result<bool> {
        Ok(self.host.ip("link show")?.contains("xdp"))
    }

    /// Every file of that Debian, but what dpkg keeps for itself.
    fn files(&self) -> anyhow::Result<BTreeSet<String>> {
        let mut find = Command::new("sh");
        find.args([
            "-c",
            "find . -xdev -printf '%P\\n'; find run sys/fs/bpf -printf '%p\\n'",
        ]);
        let told = output(find.current_dir(&self.tree))?;
        let ours = |file: &&str| !LEFT.iter().any(|left| file.starts_with(left));
        Ok(told
            .lines()
            .filter(ours)
            .filter(|file| *file != "run/log")
            .map(str::to_owned)
            .collect())
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        for at in ["run", "sys/fs/bpf", "sys", "proc"] {
            let mut umount = Command::new("umount");
            let _ = umount.args(["--lazy"]).arg(self.tree.join(at)).status();
        }
    }
}

/// A daemon that runs; dropping it kills it.
struct Running(Child);

impl Running {
    /// Ends it as systemd does.
    fn end(mut self) -> anyhow::Result<()> {
        output(Command::new("kill").arg(self.0.id().to_string()))?;
        let status = self.0.wait()?;
        ensure!(status.success(), "the daemon ended with {status}");
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a unit says for a key.
fn said<'a>(unit: &'a str, key: &'a str) -> impl Iterator<Item = &'a str> {
    let lines = unit.lines();
    lines.filter_map(move |line| line.strip_prefix(key)?.strip_prefix('='))
}

/// The mirror that the machine's own sources name.
fn mirror() -> anyhow::Result<String> {
    let mut ask = Command::new("apt-get");
    ask.args([
        "indextargets",
        "--format",
        "$(ORIGIN) $(REPO_URI) $(RELEASE)",
        "Created-By: Packages",
    ]);
    let told = output(&mut ask)?;
    let mirror = told.lines().find_map(|line| {
        let mut words = line.split(' ');
        let (origin, place, release) = (words.next()?, words.next()?, words.next()?);
        (origin == "Debian" && !release.contains('-')).then(|| place.to_owned())
    });
    mirror.context("the machine's apt sources name no mirror of Debian")
}
