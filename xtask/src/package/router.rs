//! A Debian in a folder, in which a package is installed and its daemon is started.
//!
//! There is no systemd that runs in it. The daemon is started as the unit says: what runs before it
//! as root, then itself, as the unit's user with the unit's capabilities.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use wardline_tests::{Host, eventually};

use super::output;
use crate::{setup, step};

/// The release that the package is installed on.
const RELEASE: &str = "bookworm";

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

/// A Debian in a folder, whose network is that of a lab's router.
pub(super) struct Router {
    pub(super) tree: PathBuf,
    host: Host,
}

impl Router {
    /// Makes it with some packages beyond the smallest Debian, parted by commas.
    ///
    /// # Errors
    /// When no mirror is reachable, or it can't be set up.
    pub(super) fn new(home: &Path, packages: &str, host: Host) -> anyhow::Result<Self> {
        setup::install_packages(&["debootstrap"])?;
        let base = home.join(format!("{RELEASE}-{}", packages.replace(',', "-")));
        let tree = home.join("router");
        if !base.join("etc/debian_version").exists() {
            let mut bootstrap = Command::new("debootstrap");
            bootstrap
                .arg("--variant=minbase")
                .arg(format!("--include={packages}"))
                .arg(RELEASE)
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
    pub(super) fn run(&self, program: &str, arguments: &[&str]) -> anyhow::Result<String> {
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

    /// Installs a package.
    pub(super) fn install(&self, deb: &Path) -> anyhow::Result<()> {
        fs::copy(deb, self.tree.join("srv/wardline.deb"))?;
        self.run("dpkg", &["--install", "/srv/wardline.deb"])?;
        fs::remove_file(self.tree.join("srv/wardline.deb"))?;
        Ok(())
    }

    /// Starts the daemon as the unit does.
    pub(super) fn start(&self) -> anyhow::Result<Running> {
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

    /// Whether XDP judges at an interface.
    pub(super) fn has_hooks(&self) -> anyhow::Result<bool> {
        Ok(self.host.ip("link show")?.contains("xdp"))
    }

    /// Every file of that Debian, but what dpkg keeps for itself.
    pub(super) fn files(&self) -> anyhow::Result<BTreeSet<String>> {
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
pub(super) struct Running(Child);

impl Running {
    /// Ends it as systemd does.
    pub(super) fn end(mut self) -> anyhow::Result<()> {
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
