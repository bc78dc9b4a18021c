//! A router between two hosts, and packets pushed through it from inside its kernel.
//!
//! `BPF_PROG_TEST_RUN` with live frames hands packets to the stack as a driver would: what passes
//! is forwarded for real and arrives at a sink. The work is done inside the call, so the processor
//! time of the calling thread is the router's cost, whatever else the machine does.

use std::{
    io::Write as _,
    process::{Command, Stdio},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, PerCpuArray, ProgramArray},
    programs::{
        ProgramFd, SchedClassifier, TestRun, TestRunAttrs, TestRunOptions, TestRunResult, Xdp,
        XdpMode,
    },
};
use aya_obj::programs::XdpAttachType;
use wardline_bench_kernel::traffic::{self, LENGTH, Traffic};
use wardline_tests::{End, Host, Lab, eventually};

use crate::kernel;

static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("WARDLINE_LOAD"));

/// Frames that the kernel prepares at once.
const BATCH: u32 = 64;

/// A router with a host on either side.
pub(crate) struct Road {
    pub(crate) lab: Lab,
    /// The devices' side, where packets from servers arrive.
    near: Sink,
    /// The servers' side.
    far: Sink,
}

struct Sink {
    /// The router's interface to it, and its MAC.
    ifindex: u32,
    mac: [u8; 6],
    ebpf: Ebpf,
}

impl Road {
    /// A router without any rules.
    pub(crate) fn new(name: &str) -> Result<Self> {
        let lab = Lab::new(name)?;
        let near = Self::side(&lab, "near", "rin", "10.8.0", "10.0.0.0/14")?;
        let far = Self::side(&lab, "far", "rout", "10.9.0", "10.200.0.0/24")?;
        lab.settle()?;
        Ok(Self { lab, near, far })
    }

    fn side(lab: &Lab, name: &str, port: &str, link: &str, beyond: &str) -> Result<Sink> {
        let (host, router) = (lab.host(name)?, lab.router());
        lab.wire(
            &End::new(&host, "eth0").address(&format!("{link}.2/24")),
            &End::new(router, port).address(&format!("{link}.1/24")),
        )?;
        let [a, b, c, d, e, f] = host.mac("eth0")?;
        let mac = format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}");
        router.ip(&format!(
            "neigh replace {link}.2 lladdr {mac} dev {port} nud permanent"
        ))?;
        router.ip(&format!("route add {beyond} via {link}.2 dev {port}"))?;
        let mut ebpf = load(&["sink"])?;
        host.run(|| -> Result<()> {
            xdp(&mut ebpf, "sink")?.attach("eth0", XdpMode::Driver)?;
            Ok(())
        })??;
        let ifindex = router.run(|| kernel::interface(port))??;
        Ok(Sink {
            ifindex,
            mac: router.mac(port)?,
            ebpf,
        })
    }

    pub(crate) fn router(&self) -> &Host {
        self.lab.router()
    }

    /// The interface where packets of devices enter.
    pub(crate) fn entrance(&self) -> u32 {
        self.near.ifindex
    }

    /// Opens flows, with an answer for each, so that every firewall holds them for established.
    pub(crate) fn establish(
        &self,
        flows: u32,
        devices: u32,
        then: Option<&ProgramFd>,
    ) -> Result<()> {
        for reply in [0, 1] {
            let traffic = Traffic {
                flows,
                devices,
                order: traffic::EACH,
                reply,
                ..Traffic::default()
            };
            // The servers' packets enter where no program judges in the driver.
            let mut generator = Generator::new(self, traffic, then.filter(|_| reply == 0))?;
            let before = self.sunk(reply == 1)?;
            generator.push(self, flows, true)?;
            let sunk = self.arrived(reply == 1, before, flows.into())?;
            ensure!(
                sunk == u64::from(flows),
                "of {flows} packets that open flows {sunk} arrived (reply: {reply})"
            );
        }
        Ok(())
    }

    /// How many packets have arrived at a side.
    pub(crate) fn sunk(&self, near: bool) -> Result<u64> {
        let sink = if near { &self.near } else { &self.far };
        let map = sink.ebpf.map("SUNK").context("the object has no SUNK")?;
        let map: PerCpuArray<_, u64> = map.try_into()?;
        Ok(map.get(&0, 0)?.iter().sum())
    }

    /// How many packets have arrived since `before`; waits a second for those that are awaited.
    pub(crate) fn arrived(&self, near: bool, before: u64, awaited: u64) -> Result<u64> {
        let mut sunk = Ok(0);
        eventually(Duration::from_secs(1), || {
            sunk = self.sunk(near).map(|now| now - before);
            sunk.as_ref().map_or(true, |sunk| *sunk >= awaited)
        });
        sunk
    }

    /// Runs a program in the router, with a text on its standard input.
    pub(crate) fn feed(&self, program: &str, arguments: &[&str], text: &str) -> Result<()> {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = self.router().spawn(&mut command)?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(text.as_bytes())?;
        }
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!(
                "{program} {}: {}",
                arguments.join(" "),
                String::from_utf8_lossy(&output.stderr).trim_end()
            );
        }
        Ok(())
    }
}

/// Makes packets, and hands them to a program or to the stack.
pub(crate) struct Generator {
    ebpf: Ebpf,
    ifindex: u32,
}

/// Generators so far: each has random numbers of its own, or new flows of one would be known from
/// another.
static GENERATORS: AtomicU64 = AtomicU64::new(1);

impl Generator {
    /// `then` judges its packets; without it they pass.
    pub(crate) fn new(road: &Road, traffic: Traffic, then: Option<&ProgramFd>) -> Result<Self> {
        let mut ebpf = load(&["generate"])?;
        let side = if traffic.reply == 0 {
            &road.near
        } else {
            &road.far
        };
        let [a, b, c, d, e, f] = side.mac.map(u16::from);
        let traffic = Traffic {
            state: GENERATORS
                .fetch_add(1, Ordering::Relaxed)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15),
            receiver: [a << 8 | b, c << 8 | d, e << 8 | f, 0],
            ..traffic
        };
        let map = ebpf
            .map_mut("TRAFFIC")
            .context("the object has no TRAFFIC")?;
        Array::<_, Traffic>::try_from(map)?.set(0, traffic, 0)?;
        if let Some(then) = then {
            let map = ebpf.map_mut("THEN").context("the object has no THEN")?;
            ProgramArray::try_from(map)?.set(0, then, 0)?;
        }
        Ok(Self {
            ebpf,
            ifindex: side.ifindex,
        })
    }

    /// Pushes packets; returns the processor time. Live, they go on into the stack; else only the
    /// programs run.
    pub(crate) fn push(&mut self, road: &Road, count: u32, live: bool) -> Result<Cost> {
        let program = xdp(&mut self.ebpf, "generate")?;
        run(
            road,
            &*program,
            &[0; LENGTH],
            xdp_context(self.ifindex),
            count,
            live,
        )
    }
}

/// What a call cost, and the last answer of its program.
pub(crate) struct Cost {
    pub(crate) time: Duration,
    pub(crate) answer: u32,
}

/// A program of the kernel that can be run on a packet.
pub(crate) enum Program {
    Xdp(Xdp),
    Tc(SchedClassifier),
}

impl Program {
    /// Runs it so often on one packet that enters the router; answers the processor time.
    pub(crate) fn run(&self, road: &Road, frame: &[u8], count: u32) -> Result<Cost> {
        match self {
            Self::Xdp(program) => run(
                road,
                program,
                frame,
                xdp_context(road.entrance()),
                count,
                false,
            ),
            Self::Tc(program) => {
                // struct __sk_buff: ifindex.
                let mut context = vec![0; 192];
                context[40..44].copy_from_slice(&road.entrance().to_ne_bytes());
                run(road, program, frame, context, count, false)
            }
        }
    }

    pub(crate) fn fd(&self) -> Result<&ProgramFd> {
        Ok(match self {
            Self::Xdp(program) => program.fd()?,
            Self::Tc(program) => program.fd()?,
        })
    }
}

/// struct xdp_md: data_end and ingress_ifindex.
fn xdp_context(ifindex: u32) -> Vec<u8> {
    let mut context = vec![0; 24];
    context[4..8].copy_from_slice(&(LENGTH as u32).to_ne_bytes());
    context[12..16].copy_from_slice(&ifindex.to_ne_bytes());
    context
}

fn run<P>(
    road: &Road,
    program: &P,
    frame: &[u8],
    context: Vec<u8>,
    repeat: u32,
    live: bool,
) -> Result<Cost>
where
    P: for<'a> TestRun<Opts<'a> = TestRunOptions<'a>, Result = TestRunResult> + Sync,
{
    road.router().run(|| {
        kernel::claim_processor()?;
        let mut attrs = TestRunAttrs::new();
        if live {
            attrs = attrs.xdp_live_frames(BATCH);
        }
        let options = TestRunOptions {
            data_in: Some(frame),
            ctx_in: Some(&context),
            repeat,
            attrs,
            ..TestRunOptions::default()
        };
        let start = kernel::thread_time();
        let result = program.test_run(options)?;
        Ok(Cost {
            time: kernel::thread_time() - start,
            answer: result.return_value,
        })
    })?
}

/// The bench's own programs, those that are named loaded.
pub(crate) fn load(names: &[&str]) -> Result<Ebpf> {
    let mut ebpf = EbpfLoader::new().load(OBJECT)?;
    for name in names {
        xdp(&mut ebpf, name)?.load()?;
    }
    Ok(ebpf)
}

pub(crate) fn xdp<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp> {
    let program = ebpf
        .program_mut(name)
        .with_context(|| format!("the object has no {name}"))?;
    Ok(program.try_into()?)
}

/// Takes a loaded program out of its object.
pub(crate) fn take(ebpf: &mut Ebpf, name: &str) -> Result<Xdp> {
    let info = xdp(ebpf, name)?.info()?;
    Ok(Xdp::from_program_info(
        info,
        name.to_owned().into(),
        XdpAttachType::Interface,
    )?)
}
