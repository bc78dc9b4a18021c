//! Hosts in network namespaces: what the tests and `cargo xtask demo` run traffic between.
//!
//! A [`Lab`] is a router namespace and any number of hosts, wired with veth pairs. Everything has a
//! name of its own (process, start time, counter), so labs live side by side, and everything goes
//! when the lab is dropped. What a killed process left behind goes when the next lab is made.
//!
//! ```no_run
//! use wardline_tests::{End, Lab, Outcome, TIMEOUT};
//!
//! # fn main() -> anyhow::Result<()> {
//! let lab = Lab::new("two-ends")?;
//! let camera = lab.host("camera-1")?;
//! lab.wire(
//!     &End::new(&camera, "eth0")
//!         .mac("02:00:00:00:02:01")
//!         .address("10.20.2.11/24")
//!         .gateway("10.20.2.1"),
//!     &End::new(lab.router(), "cam1").address("10.20.2.1/24"),
//! )?;
//! lab.settle()?;
//! let _rtsp = camera.tcp_serve(554)?;
//! assert_eq!(lab.router().tcp_connect("10.20.2.11", 554, TIMEOUT), Outcome::Connected);
//! # Ok(())
//! # }
//! ```
//!
//! Nothing here knows the controller or its tables: a test that uses the lab sees what a device
//! sees, and the daemon and the client ([`Daemon`], [`Ctl`]) are programs that are run.

use std::fs::{self, File};
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

pub mod clinic;
mod daemon;
mod host;
mod namespace;
mod records;
mod sys;
mod traffic;
mod wait;
pub mod ward;
mod wire;

use namespace::run_ip;
use records::{BPFFS, ROOT, live, netns_prefix, owner_prefix, remove, remove_on_abort, sweep};
use wait::{SETTLE, lock};
use wire::add_address;

pub use daemon::{Answer, Ctl, Daemon, Settings};
pub use host::{Host, Outcome, Program};
pub use records::remove_all;
pub use traffic::{Server, Session, Sniffer, Transfer};
pub use wait::{AtTheEnd, TIMEOUT, eventually};
pub use wire::End;

/// A router and hosts around it, in network namespaces of their own; gone when dropped.
#[derive(Debug)]
pub struct Lab {
    id: String,
    dir: PathBuf,
    router: Host,
    hosts: Mutex<Vec<Host>>,
    /// Namespace and name of each interface that must come up before traffic flows.
    links: Mutex<Vec<(Host, String)>>,
    closed: bool,
}

impl Lab {
    /// Makes a lab with its router, forwarding IPv4 and IPv6, and removes what labs of dead
    /// processes left behind.
    ///
    /// # Errors
    /// When not root, or when iproute2 is missing.
    pub fn new(name: &str) -> Result<Self> {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        fs::create_dir_all(ROOT).with_context(|| format!("making {ROOT}: the lab needs root"))?;
        remove_on_abort();
        for problem in sweep() {
            eprintln!("lab: removing what a dead lab left: {problem:#}");
        }

        let count = COUNTER.fetch_add(1, Ordering::Relaxed);
        let id = format!("{}-{count}", owner_prefix()?);
        let dir = Path::new(ROOT).join(&id);
        fs::create_dir(&dir).with_context(|| format!("making {}", dir.display()))?;
        live().push(id.clone());
        fs::write(dir.join("name"), name).context("naming the lab")?;
        let router = Host::new("router", &format!("{}router", netns_prefix(&id)));
        let lab = Self {
            id,
            dir,
            router,
            hosts: Mutex::default(),
            links: Mutex::default(),
            closed: false,
        };
        lab.add(&lab.router)?;
        for key in [
            "ipv4/ip_forward",
            "ipv6/conf/all/forwarding",
            "ipv6/conf/default/forwarding",
        ] {
            lab.router.sysctl(key, "1")?;
        }
        Ok(lab)
    }

    /// The router; the daemon under test runs here.
    #[must_use]
    pub fn router(&self) -> &Host {
        &self.router
    }

    /// The lab's unique name, part of every namespace and pin of it.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// A directory for files of this lab; removed with it.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// All hosts, the router first.
    #[must_use]
    pub fn hosts(&self) -> Vec<Host> {
        lock(&self.hosts).clone()
    }

    /// Makes a host: a namespace with nothing but loopback.
    ///
    /// # Errors
    /// When the name is taken, or the namespace can't be made.
    pub fn host(&self, name: &str) -> Result<Host> {
        let host = Host::new(name, &format!("{}{name}", netns_prefix(&self.id)));
        self.add(&host)?;
        Ok(host)
    }

    fn add(&self, host: &Host) -> Result<()> {
        run_ip(&["netns", "add", host.netns()], "")?;
        lock(&self.hosts).push(host.clone());
        // Before any interface exists, so that all of them start with these values. Duplicate
        // address detection would hold back every IPv6 address for a second or more.
        for (key, value) in [
            ("ipv6/conf/all/accept_dad", "0"),
            ("ipv6/conf/default/accept_dad", "0"),
            ("ipv6/conf/default/dad_transmits", "0"),
            ("ipv6/conf/default/accept_ra", "0"),
            ("ipv4/conf/all/rp_filter", "0"),
            ("ipv4/conf/default/rp_filter", "0"),
            ("ipv4/icmp_ratelimit", "0"),
            ("ipv6/icmp/ratelimit", "0"),
            ("ipv4/ping_group_range", "0 0"),
        ] {
            host.sysctl(key, value)?;
        }
        host.ip("link set lo up")?;
        Ok(())
    }

    /// Makes a bridge with addresses of its own.
    ///
    /// # Errors
    /// When the kernel refuses the name or an address.
    pub fn bridge(&self, host: &Host, name: &str, addresses: &[&str]) -> Result<()> {
        let mut batch = format!(
            "link add {name} type bridge forward_delay 0 mcast_snooping 0\nlink set {name} up\n"
        );
        for address in addresses {
            add_address(&mut batch, name, address);
        }
        host.ip_batch(&batch)?;
        lock(&self.links).push((host.clone(), name.to_owned()));
        Ok(())
    }

    /// Joins two hosts by a veth pair and configures both ends.
    ///
    /// # Errors
    /// When the kernel refuses a name, an address, a route or an option.
    pub fn wire(&self, one: &End, other: &End) -> Result<()> {
        one.host.ip_batch(&format!(
            "link add {} {} type veth peer name {} {} netns {}\n{}",
            one.interface,
            one.link_options(),
            other.interface,
            other.link_options(),
            other.host.netns(),
            one.batch(),
        ))?;
        other.host.ip_batch(&other.batch())?;
        for (end, far) in [(one, other), (other, one)] {
            end.set_offloads()?;
            // A default route needs the link up, which needs both ends up.
            far.host.ip_batch(&far.routes())?;
            lock(&self.links).push((end.host.clone(), end.interface.clone()));
        }
        Ok(())
    }

    /// Waits until every link is up and every IPv6 address usable.
    ///
    /// # Errors
    /// When that has not happened within ten seconds; says what is missing.
    pub fn settle(&self) -> Result<()> {
        let hosts = self.hosts();
        let links = lock(&self.links).clone();
        let mut missing = String::new();
        let settled = eventually(SETTLE, || {
            missing.clear();
            for host in &hosts {
                let names: Vec<&str> = links
                    .iter()
                    .filter(|(of, _)| of == host)
                    .map(|(_, name)| name.as_str())
                    .collect();
                if let Err(problem) = settled(host, &names) {
                    missing = format!("{host}: {problem:#}");
                    return false;
                }
            }
            true
        });
        ensure!(settled, "the lab's links did not come up: {missing}");
        Ok(())
    }

    /// Removes everything, and says what could not be removed.
    ///
    /// # Errors
    /// Every failure, together; all steps are tried.
    pub fn close(mut self) -> Result<()> {
        self.closed = true;
        let problems = remove(&self.id);
        ensure!(problems.is_empty(), "{}", join(&problems));
        Ok(())
    }

    /// Leaves the lab standing after this process, and gives its directory. The directory holds
    /// `remove`, a shell script that takes it down.
    ///
    /// # Errors
    /// When the script can't be written.
    pub fn keep(mut self) -> Result<PathBuf> {
        let mut script = String::from("#!/bin/sh\n# Takes down a lab that was kept.\n");
        let commands = fs::read_to_string(self.dir.join("teardown")).unwrap_or_default();
        script.push_str(&commands);
        for host in self.hosts() {
            script.push_str(&format!("ip netns delete {}\n", host.netns()));
        }
        script.push_str(&format!("rm -rf {BPFFS}/wardline-{}-*\n", self.id));
        script.push_str(&format!("rm -rf {}\n", self.dir.display()));
        fs::write(self.dir.join("remove"), script).context("writing the removal script")?;
        File::create(self.dir.join("keep")).context("marking the lab as kept")?;
        self.closed = true;
        live().retain(|id| *id != self.id);
        Ok(self.dir.clone())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.closed {
            return;
        }
        for problem in remove(&self.id) {
            eprintln!("lab {}: {problem:#}", self.id);
        }
    }
}

/// Runs `work` as another user, on a thread of its own.
///
/// # Errors
/// When not root.
pub fn as_user<T: Send>(uid: u32, work: impl FnOnce() -> T + Send) -> Result<T> {
    thread::scope(|scope| {
        let there = || {
            sys::become_user(uid).with_context(|| format!("becoming uid {uid}"))?;
            Ok(work())
        };
        let thread = thread::Builder::new().spawn_scoped(scope, there)?;
        thread.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

/// The processors that the calling thread may run on.
///
/// # Errors
/// When the kernel does not say.
pub fn processors() -> Result<Vec<usize>> {
    sys::processors().context("asking for the processors")
}

/// Makes an open `/dev/net/tun` the far end of a tun interface in the calling thread's namespace.
///
/// # Errors
/// When there is no such interface, or somebody has its far end.
pub fn join_tun(file: &File, name: &str) -> Result<()> {
    sys::join_tun(file, name).with_context(|| format!("joining {name}"))
}

/// Keeps the calling thread on one processor.
///
/// # Errors
/// When it is not one of [`processors`].
pub fn stay_on(processor: usize) -> Result<()> {
    sys::stay_on(processor).with_context(|| format!("staying on processor {processor}"))
}

fn settled(host: &Host, interfaces: &[&str]) -> Result<()> {
    if interfaces.is_empty() {
        return Ok(());
    }
    let links: Vec<Value> = serde_json::from_str(&host.ip("-json address show")?)?;
    for name in interfaces {
        let link = links
            .iter()
            .find(|link| link["ifname"] == **name)
            .with_context(|| format!("{name} is not there"))?;
        ensure!(link["operstate"] == "UP", "{name} is {}", link["operstate"]);
        let addresses = link["addr_info"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        let tentative = addresses
            .iter()
            .find(|address| address["tentative"] == true);
        ensure!(tentative.is_none(), "{name} has a tentative address");
        let own = addresses
            .iter()
            .any(|address| address["family"] == "inet6" && address["scope"] == "link");
        ensure!(
            own || link.get("master").is_some(),
            "{name} has no link-local address"
        );
    }
    Ok(())
}

fn join(problems: &[anyhow::Error]) -> String {
    problems
        .iter()
        .map(|problem| format!("{problem:#}"))
        .collect::<Vec<_>>()
        .join("\n")
}
