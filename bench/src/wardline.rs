//! Wardline as the bench runs it: the daemon in a router, a large policy, its programs.

use std::{
    env, fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use aya::programs::{
    ProgramInfo, SchedClassifier, Xdp,
    links::{FdLink, PinnedLink},
    loaded_programs,
};
use aya_obj::programs::XdpAttachType;
use hyper_util::rt::TokioIo;
use tokio::{net::UnixStream, runtime::Runtime};
use tonic::transport::{Channel, Endpoint, Uri};
use wardline_bench_kernel::traffic::LENGTH;
use wardline_proto::v1::{self, segmentation_client::SegmentationClient};
use wardline_tests::{Daemon, Settings};

use crate::road::{Program, Road};

/// Far more than the largest policy.
const LARGEST_MESSAGE: usize = 256 << 20;

/// A router with a daemon, and a client of it.
pub(crate) struct Wardline {
    pub(crate) road: Road,
    daemon: Daemon,
    runtime: Runtime,
    client: SegmentationClient<Channel>,
}

impl Wardline {
    /// Starts the daemon in a router of its own; nothing is attached yet.
    pub(crate) fn start(name: &str) -> Result<Self> {
        let road = Road::new(name)?;
        let binary = env::var_os("WARDLINE_WARDLINED")
            .context("WARDLINE_WARDLINED is not set: run cargo xtask bench")?;
        // The timeouts of the peers.
        let more = "[limits]\nflows = 1048576\n[timeouts]\nudp = 4\nudp_answered = 3600\n";
        let settings = Settings {
            more: more.to_owned(),
            ..Settings::default()
        };
        let daemon = Daemon::start(&road.lab, Path::new(&binary), &settings)?;
        let runtime = Runtime::new()?;
        let socket = daemon.socket().to_owned();
        let connector = tower::service_fn(move |_: Uri| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        let endpoint = Endpoint::from_static("http://localhost");
        let channel = runtime.block_on(endpoint.connect_with_connector(connector))?;
        let client = SegmentationClient::new(channel)
            .max_decoding_message_size(LARGEST_MESSAGE)
            .max_encoding_message_size(LARGEST_MESSAGE);
        Ok(Self {
            road,
            daemon,
            runtime,
            client,
        })
    }

    /// Puts a policy in force; answers how long that took, from the request to the answer.
    pub(crate) fn apply(&mut self, policy: v1::Policy) -> Result<Duration> {
        let request = v1::ApplyRequest {
            policy: Some(policy),
            ..v1::ApplyRequest::default()
        };
        let start = Instant::now();
        self.runtime.block_on(self.client.apply(request))?;
        Ok(start.elapsed())
    }

    /// Changes one device; answers how long that took.
    pub(crate) fn put(&mut self, device: v1::Device) -> Result<Duration> {
        let put = v1::Policy {
            version: 1,
            devices: vec![device],
            ..v1::Policy::default()
        };
        let request = v1::EditRequest {
            put: Some(put),
            ..v1::EditRequest::default()
        };
        let start = Instant::now();
        self.runtime.block_on(self.client.edit(request))?;
        Ok(start.elapsed())
    }

    /// A packet by which a device asks its server for what its rule allows.
    pub(crate) fn frame_of(&self, device: &v1::Device) -> Result<Vec<u8>> {
        let number: u32 = device.name.trim_start_matches("device-").parse()?;
        let (server, [_, a, b, c]) = (number & 15, number.to_be_bytes());
        let address: Ipv4Addr = device
            .addresses
            .first()
            .context("a device without an address")?
            .parse()?;
        let port = 1000 + server as u16;
        let mut frame = self.road.router().mac("rin")?.to_vec();
        frame.extend([2, 0, 0, a, b, c, 8, 0]);
        frame.extend([0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17, 0, 0]);
        frame.extend(address.octets());
        frame.extend([10, 200, 0, 16 + server as u8]);
        frame.extend(20_000u16.to_be_bytes());
        frame.extend(port.to_be_bytes());
        frame.extend([0, 26, 0, 0]);
        frame.resize(LENGTH, 0);
        Ok(frame)
    }

    /// Whether a packet of a device passes.
    pub(crate) fn passes(&self, frame: &[u8]) -> Result<bool> {
        const XDP_PASS: u32 = 2;
        Ok(self.xdp()?.run(&self.road, frame, 1)?.answer == XDP_PASS)
    }

    /// Cuts a device off, or releases it; answers how long that took.
    pub(crate) fn quarantine(&mut self, device: &str, on: bool) -> Result<Duration> {
        let (device, reason) = (device.to_owned(), String::new());
        let start = Instant::now();
        if on {
            let request = v1::QuarantineRequest {
                device,
                reason,
                ..v1::QuarantineRequest::default()
            };
            self.runtime.block_on(self.client.quarantine(request))?;
        } else {
            let request = v1::ReleaseRequest {
                device,
                reason,
                ..v1::ReleaseRequest::default()
            };
            self.runtime.block_on(self.client.release(request))?;
        }
        Ok(start.elapsed())
    }

    /// Asks what a policy would do; answers how long that took.
    pub(crate) fn plan(&mut self, policy: v1::Policy) -> Result<Duration> {
        let request = v1::PlanRequest {
            policy: Some(policy),
            ..v1::PlanRequest::default()
        };
        let start = Instant::now();
        self.runtime.block_on(self.client.plan(request))?;
        Ok(start.elapsed())
    }

    /// The daemon's memory: what it holds now, and the most that it ever held, in bytes.
    pub(crate) fn memory(&self) -> Result<(u64, u64)> {
        let pid = self.daemon.pid().context("the daemon does not run")?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let field = |name: &str| -> Option<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
            Some(kilobytes << 10)
        };
        field("VmRSS:")
            .zip(field("VmHWM:"))
            .context("no memory in /proc")
    }

    /// The kernel's memory for all tables, in bytes.
    pub(crate) fn tables(&self) -> Result<u64> {
        let mut sum = 0;
        for pin in fs::read_dir(self.version()?.join("maps"))? {
            let map = aya::maps::MapData::from_pin(pin?.path())?;
            let fd = std::os::fd::AsRawFd::as_raw_fd(&std::os::fd::AsFd::as_fd(map.fd()));
            let info = fs::read_to_string(format!("/proc/self/fdinfo/{fd}"))?;
            let line = info.lines().find_map(|line| line.strip_prefix("memlock:"));
            sum += line
                .context("no memlock in fdinfo")?
                .trim()
                .parse::<u64>()?;
        }
        Ok(sum)
    }

    /// The program that judges packets in the driver.
    pub(crate) fn xdp(&self) -> Result<Program> {
        let info = self.program("xdp")?;
        let program = Xdp::from_program_info(info, "xdp_ingress".into(), XdpAttachType::Interface)?;
        Ok(Program::Xdp(program))
    }

    /// The program that judges packets in the stack.
    pub(crate) fn tc(&self) -> Result<Program> {
        let info = self.program("ingress")?;
        Ok(Program::Tc(SchedClassifier::from_program_info(
            info,
            "tc_ingress".into(),
        )?))
    }

    /// The program that is attached where packets of devices enter.
    fn program(&self, hook: &str) -> Result<ProgramInfo> {
        let pin = self
            .version()?
            .join("links")
            .join(format!("{}-{hook}", self.road.entrance()));
        let link =
            PinnedLink::from_pin(&pin).with_context(|| format!("opening {}", pin.display()))?;
        let id = FdLink::from(link).info()?.program_id();
        loaded_programs()
            .flatten()
            .find(|program| program.id() == id)
            .with_context(|| format!("there is no program {id}"))
    }

    fn version(&self) -> Result<PathBuf> {
        let mut versions = fs::read_dir(self.daemon.pins())?;
        Ok(versions
            .next()
            .context("the daemon has pinned nothing")??
            .path())
    }
}

/// How many rules a policy has.
#[derive(Clone, Copy)]
pub(crate) enum Rules {
    /// One for each device.
    Each,
    /// So many, each for its share of all devices.
    Shared(u32),
}

/// So many devices at `rin`, each of which may reach one server.
pub(crate) fn policy(devices: u32, rules: Rules, attach: v1::Attach) -> v1::Policy {
    policy_of(devices, rules, attach, false)
}

/// The same, with fast-forward.
pub(crate) fn fast(devices: u32) -> v1::Policy {
    policy_of(devices, Rules::Each, v1::Attach::Xdp, true)
}

fn policy_of(devices: u32, rules: Rules, attach: v1::Attach, fast_forward: bool) -> v1::Policy {
    let zone = |name: &str, subnet: &str| v1::Zone {
        name: name.to_owned(),
        subnets: vec![subnet.to_owned()],
        ..v1::Zone::default()
    };
    let port = v1::Port {
        interface: "rin".to_owned(),
        zone: "devices".to_owned(),
        attach: attach.into(),
        fast_forward,
        ..v1::Port::default()
    };
    let servers = (0..16).map(|server| v1::Device {
        name: format!("server-{server}"),
        zone: "servers".to_owned(),
        addresses: vec![format!("10.200.0.{}", 16 + server)],
        ..v1::Device::default()
    });
    let rule = |number: u32, from: Vec<String>, to: Vec<String>, service: String| v1::Rule {
        name: format!("rule-{number:06}"),
        from,
        to,
        services: vec![service],
        action: v1::Action::Allow.into(),
        ..v1::Rule::default()
    };
    let named = |number: u32| format!("device:device-{number:06}");
    let rules = match rules {
        Rules::Each => (0..devices)
            .map(|it| {
                let server = it & 15;
                let to = vec![format!("device:server-{server}")];
                rule(it, vec![named(it)], to, format!("udp/{}", 1000 + server))
            })
            .collect(),
        Rules::Shared(count) => (0..count)
            .map(|it| {
                let from = (it..devices).step_by(count as usize).map(named).collect();
                let to = (0..16)
                    .map(|server| format!("device:server-{server}"))
                    .collect();
                rule(it, from, to, "udp/1000-1015".to_owned())
            })
            .collect(),
    };
    v1::Policy {
        version: 1,
        zones: vec![
            zone("devices", "10.0.0.0/14"),
            zone("servers", "10.200.0.0/24"),
        ],
        ports: vec![port],
        devices: (0..devices).map(device).chain(servers).collect(),
        rules,
        ..v1::Policy::default()
    }
}

/// One of the policy's devices.
pub(crate) fn device(number: u32) -> v1::Device {
    let [_, a, b, c] = number.to_be_bytes();
    let [w, x, y, z] = (0x0a01_0000 + number).to_be_bytes();
    v1::Device {
        name: format!("device-{number:06}"),
        zone: "devices".to_owned(),
        macs: vec![format!("02:00:00:{a:02x}:{b:02x}:{c:02x}")],
        addresses: vec![format!("{w}.{x}.{y}.{z}")],
        ..v1::Device::default()
    }
}

/// Checks of the port's status.
impl Wardline {
    /// Fails when the port is not judged in this way.
    pub(crate) fn expect_attached(&mut self, attached: v1::Attached) -> Result<()> {
        let status = self
            .runtime
            .block_on(self.client.get_status(v1::GetStatusRequest {}))?;
        let ports = status.into_inner().ports;
        let port = ports.first().context("the daemon knows no port")?;
        ensure!(
            port.attached() == attached,
            "the port is not attached as it should be: {}",
            port.reason
        );
        Ok(())
    }

    /// Fails when the port does not forward in its driver.
    pub(crate) fn expect_forwarding(&mut self) -> Result<()> {
        let status = self
            .runtime
            .block_on(self.client.get_status(v1::GetStatusRequest {}))?;
        let ports = status.into_inner().ports;
        let port = ports.first().context("the daemon knows no port")?;
        ensure!(port.fast_forward, "{}", port.reason);
        Ok(())
    }
}
