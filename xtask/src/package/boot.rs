//! The package on a router that boots: systemd starts the daemon, and a device sends before, while
//! and after the network comes up.
//!
//! The policy is put in force before, in the same Debian, as on a router that is switched off and on.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};
use wardline_tests::Lab;

use super::{Package, home, output, router::Router};
use crate::{kernels, setup, step};

/// What that Debian has beyond the smallest.
const PACKAGES: &str = "adduser,busybox,iproute2,systemd,systemd-sysv";

/// The device may open one port of the router.
const POLICY: &str = "\
version: 1
zones: [{name: a, subnets: [10.20.1.0/24]}]
ports: [{interface: lan1, zone: a}]
devices: [{name: d, zone: a, macs: ['02:00:00:00:01:11'], addresses: [10.20.1.11]}]
rules: [{name: one, from: [device:d], to: [router], services: [tcp/7], action: allow}]
";

/// Runs before the daemon: a router with a port that is down, and a device that tries both ports of
/// the router all the time.
const EARLY: &str = r#"#!/bin/sh
for module in /modules/*; do busybox insmod "$module"; done
ip netns add device
ip link add lan1 type veth peer name eth0 netns device
ip address add 10.20.1.1/24 dev lan1
ip -n device link set eth0 address 02:00:00:00:01:11
ip -n device address add 10.20.1.11/24 dev eth0
ip -n device link set eth0 up
for port in 7 8; do
    (while :; do busybox nc -l -p $port </dev/null >/dev/null 2>&1; done) &
done
ip netns exec device sh -c '
    while :; do
        busybox nc -w 1 10.20.1.1 8 </dev/null >/dev/null 2>&1 && touch /run/denied
        busybox nc -w 1 10.20.1.1 7 </dev/null >/dev/null 2>&1 && touch /run/allowed
        touch /run/tried
    done' &
while [ ! -e /run/tried ]; do sleep 0.1; done
"#;

/// Runs after the network is up.
const LATE: &str = r#"#!/bin/sh
exec >/dev/console 2>&1
say() { echo "@@ $*"; }
passed() {
    rm -f /run/allowed
    for _ in $(seq 60); do [ -e /run/allowed ] && break; sleep 1; done
    [ -e /run/allowed ] && say "$1: allowed passes"
    [ -e /run/denied ] || say "$1: denied does not"
}
say "before the network: $(cat /run/before)"
passed boot
say "user: $(stat -c %U "/proc/$(systemctl show --property MainPID --value wardlined)")"
say "folder: $(stat -c '%a %U' /sys/fs/bpf/wardline)"
systemctl kill --signal KILL wardlined
for _ in $(seq 120); do wardctl status >/dev/null 2>&1 && break; sleep 1; done
say "restarts: $(systemctl show --property NRestarts --value wardlined)"
passed "killed"
dpkg --purge wardline >/dev/null
say "purged: $(systemctl is-active wardlined) $(ip link show lan1 | grep -c xdp)"
rm -f /run/denied
for _ in $(seq 60); do [ -e /run/denied ] && break; sleep 1; done
[ -e /run/denied ] && say "purged: everything passes"
systemctl list-units --failed --plain --no-legend wardlined.service
say end
systemctl poweroff --force --force
"#;

/// The units of the router: what runs before the daemon, what the network is, and what asks.
const UNITS: [(&str, &str); 3] = [
    (
        "early.service",
        "[Unit]\nDefaultDependencies=no\nAfter=local-fs.target\nBefore=wardlined.service\n\
         [Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/srv/early\n\
         [Install]\nWantedBy=sysinit.target\n",
    ),
    (
        "net.service",
        "[Unit]\nDefaultDependencies=no\nAfter=network-pre.target\nBefore=network.target\n\
         [Service]\nType=oneshot\nRemainAfterExit=yes\n\
         ExecStart=/bin/sh -c 'systemctl is-active wardlined >/run/before; ip link set lan1 up'\n\
         [Install]\nWantedBy=multi-user.target\n",
    ),
    (
        "late.service",
        "[Unit]\nAfter=multi-user.target\n\
         [Service]\nType=oneshot\nTimeoutStartSec=900\nExecStart=/srv/late\n\
         [Install]\nWantedBy=graphical.target\n",
    ),
];

/// What the router must say.
const EXPECTED: [&str; 10] = [
    "before the network: active",
    "boot: allowed passes",
    "boot: denied does not",
    "user: wardline",
    "folder: 700 wardline",
    "restarts: 1",
    "killed: allowed passes",
    "killed: denied does not",
    "purged: inactive 0",
    "purged: everything passes",
];

/// What a boot does not need, which would only make the image large.
const UNNEEDED: [&str; 5] = [
    "usr/share/doc",
    "usr/share/locale",
    "usr/share/zoneinfo",
    "var/cache/apt",
    "var/lib/apt/lists",
];

/// Boots the router.
///
/// # Errors
/// When it can't be made, or does not say what it must.
pub(super) fn run(root: &Path, package: &Package) -> anyhow::Result<()> {
    ensure!(setup::is_root(), "a router to boot takes root");
    setup::install_packages(&["cpio"])?;
    let told = kernels::console(root, |modules| image(&home(root), package, modules))?;
    let Some(told) = told else {
        return Ok(());
    };
    let said: Vec<&str> = told
        .iter()
        .filter_map(|it| it.strip_prefix("@@ "))
        .collect();
    for line in &said {
        step::title(line);
    }
    let missing: Vec<_> = EXPECTED.iter().filter(|it| !said.contains(it)).collect();
    ensure!(missing.is_empty(), "not said: {missing:?}");
    Ok(())
}

/// The router as an image to boot from.
fn image(home: &Path, package: &Package, modules: &[PathBuf]) -> anyhow::Result<PathBuf> {
    let lab = Lab::new("package-boot")?;
    let router = Router::new(home, PACKAGES, lab.router().clone())?;
    router.install(&package.deb)?;
    fs::write(router.tree.join("srv/policy.yaml"), POLICY)?;
    let daemon = router.start()?;
    router.run("wardctl", &["apply", "-f", "/srv/policy.yaml"])?;
    daemon.end()?;

    for (name, script) in [("early", EARLY), ("late", LATE)] {
        let at = router.tree.join("srv").join(name);
        fs::write(&at, script)?;
        fs::set_permissions(&at, fs::Permissions::from_mode(0o755))?;
    }
    for (name, unit) in UNITS {
        fs::write(router.tree.join("etc/systemd/system").join(name), unit)?;
        router.run("systemctl", &["enable", name])?;
    }
    router.run("systemctl", &["set-default", "graphical.target"])?;
    fs::create_dir_all(router.tree.join("modules"))?;
    for (number, module) in modules.iter().enumerate() {
        // They are loaded in this order.
        fs::copy(module, router.tree.join(format!("modules/{number}.ko")))?;
    }
    for unneeded in UNNEEDED {
        fs::remove_dir_all(router.tree.join(unneeded)).with_context(|| unneeded.to_owned())?;
    }
    symlink("/usr/lib/systemd/systemd", router.tree.join("init"))?;
    let image = home.join("router.cpio.gz");
    let mut pack = Command::new("sh");
    pack.args([
        "-c",
        "find . -xdev | cpio --quiet --create --format=newc | gzip -1 >\"$0\"",
    ]);
    output(pack.arg(&image).current_dir(&router.tree))?;
    drop(router);
    lab.close()?;
    Ok(image)
}
