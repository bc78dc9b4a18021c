//! Clean-up of labs whose process is gone, however it ended.
//!
//! A lab's name tells which process made it: namespaces, pins and its directory carry the name, and
//! the directory notes the programs that were started. So a lab can be removed by its name alone:
//! when it is dropped, when its process panics or is interrupted, or by the next lab's process.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, Once};

use anyhow::{Context, Result, ensure};

use crate::namespace::run_ip;
use crate::sys;
use crate::wait::{SETTLE, eventually, lock};

/// Where labs keep their records, configurations, sockets and logs.
pub(crate) const ROOT: &str = "/run/wardline-lab";
pub(crate) const BPFFS: &str = "/sys/fs/bpf";

/// The labs of this process that must go with it.
static LIVE: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Removes every lab of this process: for a program that ends without unwinding.
pub fn remove_all() {
    let ids: Vec<String> = live().clone();
    for id in ids {
        for problem in remove(&id) {
            eprintln!("lab {id}: {problem:#}");
        }
    }
}

/// Waits for a lock on the machine's BPF file system, mounting it when it is not mounted. Two
/// mounts on one place would hide each other's pins.
pub(crate) fn ensure_bpffs() -> Result<()> {
    let guard = File::create(Path::new(ROOT).join(".bpffs"))?;
    guard
        .lock()
        .context("waiting for the lock on the BPF file system")?;
    let path = Path::new(BPFFS);
    if !sys::is_bpffs(path).with_context(|| format!("looking at {BPFFS}"))? {
        sys::mount_bpffs(path).with_context(|| format!("mounting a BPF file system at {BPFFS}"))?;
    }
    Ok(())
}

/// Notes a process as the lab's, so that it ends with the lab whatever happens.
pub(crate) fn record_process(dir: &Path, pid: u32) -> Result<()> {
    // A process that has already ended needs no record.
    let Some(start) = start_time(pid) else {
        return Ok(());
    };
    let mut file = File::options()
        .create(true)
        .append(true)
        .open(dir.join("processes"))?;
    writeln!(file, "{pid} {start:x}").context("noting a child")
}

/// The pin directory of a lab's daemon.
pub(crate) fn pin_dir(id: &str, daemon: u32) -> PathBuf {
    Path::new(BPFFS).join(format!("wardline-{id}-{daemon}"))
}

/// Removes a directory with all in it; one that is not there is fine.
pub(crate) fn remove_tree(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    }
}

pub(crate) fn netns_prefix(id: &str) -> String {
    format!("wl-{id}-")
}

/// The prefix of the names of this process's labs: a process id is reused, but not with the same
/// start time.
pub(crate) fn owner_prefix() -> Result<String> {
    let pid = std::process::id();
    let start = start_time(pid).context("reading this process's start time")?;
    Ok(format!("{pid}-{start:x}"))
}

/// When a process started, in clock ticks since boot; none when it is gone or a zombie.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command's name, in parentheses, may hold anything; the state is the field after it.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    match fields.next()? {
        "Z" | "X" => None,
        _ => fields.nth(18)?.parse().ok(),
    }
}

pub(crate) fn sweep() -> Vec<anyhow::Error> {
    let Ok(labs) = fs::read_dir(ROOT) else {
        return Vec::new();
    };
    labs.flatten()
        .filter(|lab| lab.path().is_dir() && !lab.path().join("keep").exists())
        .filter_map(|lab| lab.file_name().into_string().ok())
        .filter(|id| !owner_lives(id))
        .flat_map(|id| remove(&id))
        .collect()
}

fn owner_lives(id: &str) -> bool {
    let mut parts = id.split('-');
    let pid = parts.next().and_then(|pid| pid.parse().ok());
    let start = parts
        .next()
        .and_then(|start| u64::from_str_radix(start, 16).ok());
    match (pid, start) {
        (Some(pid), Some(start)) => start_time(pid) == Some(start),
        // Not the name of a lab: leave it alone.
        _ => true,
    }
}

/// Removes a lab by its records; goes on after a failure and gives all of them.
pub(crate) fn remove(id: &str) -> Vec<anyhow::Error> {
    let dir = Path::new(ROOT).join(id);
    let mut problems = Vec::new();
    problems.extend(end_processes(id, &dir).err());
    for pins in entries(Path::new(BPFFS), &format!("wardline-{id}-")) {
        problems.extend(remove_tree(&Path::new(BPFFS).join(pins)).err());
    }
    for netns in entries(Path::new("/run/netns"), &netns_prefix(id)) {
        problems.extend(run_ip(&["netns", "delete", &netns], "").err());
    }
    problems.extend(remove_tree(&dir).err());
    live().retain(|live| live != id);
    problems
}

/// Ends the processes that the lab started, and whatever else runs in its namespaces.
fn end_processes(id: &str, dir: &Path) -> Result<()> {
    let recorded = fs::read_to_string(dir.join("processes")).unwrap_or_default();
    let mut doomed: Vec<u32> = recorded
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(pid, start)| Some((pid.parse().ok()?, u64::from_str_radix(start, 16).ok()?)))
        .filter(|(pid, start)| start_time(*pid) == Some(*start))
        .map(|(pid, _)| pid)
        .collect();
    for netns in entries(Path::new("/run/netns"), &netns_prefix(id)) {
        let inside = run_ip(&["netns", "pids", &netns], "")?;
        doomed.extend(
            inside
                .lines()
                .filter_map(|pid| pid.trim().parse::<u32>().ok()),
        );
    }
    doomed.retain(|pid| *pid != std::process::id());
    for pid in &doomed {
        match sys::signal(*pid, libc::SIGKILL) {
            Err(error) if error.raw_os_error() != Some(libc::ESRCH) => {
                return Err(error).with_context(|| format!("ending process {pid}"));
            }
            _ => {}
        }
    }
    let gone = eventually(SETTLE, || {
        doomed.iter().all(|pid| start_time(*pid).is_none())
    });
    ensure!(gone, "processes {doomed:?} did not end");
    Ok(())
}

fn entries(dir: &Path, prefix: &str) -> Vec<String> {
    let Ok(found) = fs::read_dir(dir) else {
        return Vec::new();
    };
    found
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with(prefix))
        .collect()
}

/// Where a panic ends the process without unwinding, nothing is dropped; so the labs are removed
/// first.
pub(crate) fn remove_on_abort() {
    static HOOK: Once = Once::new();
    if cfg!(panic = "abort") {
        HOOK.call_once(|| {
            let tell = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                tell(panic);
                remove_all();
            }));
        });
    }
}

pub(crate) fn live() -> MutexGuard<'static, Vec<String>> {
    lock(&LIVE)
}
