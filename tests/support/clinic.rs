//! The clinic of `examples/clinic.yaml` as hosts, so that its policy is tried on real stacks.
//!
//! ```text
//!  pump-1 ── pump1 ┐
//!  pump-2 ── pump2 ┴ br-pumps  10.20.1.1  ┐
//!  camera-1 ─ cam1 ┐                      │
//!  camera-2 ─ cam2 ┴ br-cams   10.20.2.1  ┤ router ── uplink ── core ─┬─ ehr        10.20.9.10
//!  nurse-1 ─ nurse1            10.20.3.1  ┘                           └─ internet   192.31.196.7
//!                                                                         (vendor)   198.51.100.80
//! ```

use std::thread;

use anyhow::{Context, Result};

use crate::{End, Host, Lab, Outcome, Server, TIMEOUT};

/// Port of the cameras' video service.
pub const RTSP: u16 = 554;
/// Port of the record server's HL7 service.
pub const HL7: u16 = 2575;
/// Port of web servers.
pub const HTTPS: u16 = 443;
/// Port of remote shells; nothing in the clinic's policy allows it.
pub const SSH: u16 = 22;
/// Port of name servers.
pub const DNS: u16 = 53;
/// Port of time servers.
pub const NTP: u16 = 123;

/// The address at which the router serves.
pub const ROUTER: &str = "10.20.0.1";

/// The address of the host that stands for the internet. It has to be a public one; in this block
/// there are only name servers that answer that nothing exists (RFC 7535).
pub const INTERNET: &str = "192.31.196.7";

/// The device-facing interfaces of the router.
pub const PORTS: [&str; 5] = ["pump1", "pump2", "cam1", "cam2", "nurse1"];

/// The hosts that probes start from.
pub const SOURCES: [&str; 7] = [
    "pump-1", "pump-2", "camera-1", "camera-2", "nurse-1", "ehr", "internet",
];

/// What each of them tries to reach; a service that ends in 6 is tried over IPv6.
pub const TARGETS: [Target; 10] = [
    target("pump-1", "ping", "10.20.1.11", Probe::Ping),
    target("pump-2", "ping6", "fd20:0:0:1::12", Probe::Ping),
    target("camera-1", "rtsp", "10.20.2.21", Probe::Tcp(RTSP)),
    target("camera-2", "rtsp6", "fd20:0:0:2::22", Probe::Tcp(RTSP)),
    target("nurse-1", "ssh", "10.20.3.31", Probe::Tcp(SSH)),
    target("ehr", "hl7", "10.20.9.10", Probe::Tcp(HL7)),
    target("ehr", "https6", "fd20:0:0:9::10", Probe::Tcp(HTTPS)),
    target("vendor", "https", "198.51.100.80", Probe::Tcp(HTTPS)),
    target("internet", "https", INTERNET, Probe::Tcp(HTTPS)),
    target("router", "dns", ROUTER, Probe::Udp(DNS)),
];

/// What `examples/clinic.yaml` allows, read from the document by a person: source, targets.
const ALLOWED: [(&str, &[(&str, &str)]); 5] = [
    (
        "pump-1",
        &[("ehr", "hl7"), ("vendor", "https"), ("router", "dns")],
    ),
    (
        "pump-2",
        &[("ehr", "hl7"), ("vendor", "https"), ("router", "dns")],
    ),
    ("camera-1", &[("router", "dns")]),
    ("camera-2", &[("router", "dns")]),
    (
        "nurse-1",
        &[
            ("pump-1", "ping"),
            ("pump-2", "ping6"),
            ("camera-1", "rtsp"),
            ("camera-2", "rtsp6"),
            ("ehr", "https6"),
            ("vendor", "https"),
            ("internet", "https"),
            ("router", "dns"),
        ],
    ),
];

/// Hosts that reach each other, and the router, past every guarded port.
const BEHIND_UPLINK: [&str; 4] = ["ehr", "vendor", "internet", "router"];

/// A target, and the probe that tries to reach it.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// The device, as the document calls it; or the router.
    pub host: &'static str,
    /// The service, as the document calls it.
    pub service: &'static str,
    /// The address that is tried.
    pub address: &'static str,
    /// What is sent.
    pub probe: Probe,
}

/// What a probe sends.
#[derive(Debug, Clone, Copy)]
pub enum Probe {
    /// An ICMP echo.
    Ping,
    /// A TCP handshake.
    Tcp(u16),
    /// A datagram that the server sends back.
    Udp(u16),
}

/// What the clinic's policy makes of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// The target is the source itself: nothing leaves the host.
    Itself,
    /// It passes no guarded port, so nothing judges it: it arrives.
    Unjudged,
    /// A rule allows it: it arrives.
    Allow,
    /// Nothing comes back.
    Drop,
}

impl Target {
    /// What becomes of a probe from `source` when `examples/clinic.yaml` is in force.
    #[must_use]
    pub fn expected(&self, source: &str) -> Expected {
        let allowed = |(from, targets): &(&str, &[(&str, &str)])| {
            *from == source && targets.contains(&(self.host, self.service))
        };
        if self.host == source || (source, self.host) == ("internet", "vendor") {
            Expected::Itself
        } else if BEHIND_UPLINK.contains(&source) && BEHIND_UPLINK.contains(&self.host) {
            Expected::Unjudged
        } else if ALLOWED.iter().any(allowed) {
            Expected::Allow
        } else {
            Expected::Drop
        }
    }
}

const fn target(
    host: &'static str,
    service: &'static str,
    address: &'static str,
    probe: Probe,
) -> Target {
    Target {
        host,
        service,
        address,
        probe,
    }
}

/// The clinic's hosts, with the servers that each of them runs.
#[derive(Debug)]
pub struct Clinic {
    /// Echo servers on all the ports above; dropped before the lab.
    servers: Vec<Server>,
    /// Infusion pump, on a bridge port.
    pub pump1: Host,
    /// Infusion pump, on the same bridge.
    pub pump2: Host,
    /// Camera, on a bridge port.
    pub camera1: Host,
    /// Camera, on the same bridge.
    pub camera2: Host,
    /// A nurse's workstation, on a routed port.
    pub nurse: Host,
    /// The record server, behind the uplink.
    pub ehr: Host,
    /// A web server and the vendors' update server, far behind the uplink.
    pub internet: Host,
    /// The namespaces.
    pub lab: Lab,
}

/// A device of the clinic and where it is plugged in.
struct Device {
    name: &'static str,
    port: &'static str,
    mac: &'static str,
    /// Third number of its IPv4 prefix, fourth group of its IPv6 prefix.
    net: u8,
    /// The rest of both addresses.
    number: u8,
    bridge: Option<&'static str>,
}

const PUMP_1: Device = Device {
    name: "pump-1",
    port: "pump1",
    mac: "02:00:00:00:01:11",
    net: 1,
    number: 11,
    bridge: Some("br-pumps"),
};
const PUMP_2: Device = Device {
    name: "pump-2",
    port: "pump2",
    mac: "02:00:00:00:01:12",
    number: 12,
    ..PUMP_1
};
const CAMERA_1: Device = Device {
    name: "camera-1",
    port: "cam1",
    mac: "02:00:00:00:02:21",
    net: 2,
    number: 21,
    bridge: Some("br-cams"),
};
const CAMERA_2: Device = Device {
    name: "camera-2",
    port: "cam2",
    mac: "02:00:00:00:02:22",
    number: 22,
    ..CAMERA_1
};
const NURSE_1: Device = Device {
    name: "nurse-1",
    port: "nurse1",
    mac: "02:00:00:00:03:31",
    net: 3,
    number: 31,
    bridge: None,
};

impl Probe {
    fn send(self, from: &Host, address: &str) -> Outcome {
        match self {
            Self::Ping => from.ping_within(address, TIMEOUT),
            Self::Tcp(port) => from.tcp_connect(address, port, TIMEOUT),
            Self::Udp(port) => from.udp_exchange(address, port, TIMEOUT),
        }
    }
}

impl Clinic {
    /// Builds the clinic and waits until all links and servers are up. `progress` is told before
    /// each step.
    ///
    /// # Errors
    /// When the machine refuses a part of it.
    pub fn build(mut progress: impl FnMut(&str)) -> Result<Self> {
        progress("router");
        let lab = Lab::new("clinic")?;
        for (bridge, net) in [("br-pumps", 1), ("br-cams", 2)] {
            let [v4, v6] = gateways(net);
            lab.bridge(
                lab.router(),
                bridge,
                &[&format!("{v4}/24"), &format!("{v6}/64")],
            )?;
        }
        let mut device = |device: &Device| {
            progress(device.name);
            plug_in(&lab, device)
        };
        let pump1 = device(&PUMP_1)?;
        let pump2 = device(&PUMP_2)?;
        let camera1 = device(&CAMERA_1)?;
        let camera2 = device(&CAMERA_2)?;
        let nurse = device(&NURSE_1)?;
        progress("uplink, record server, internet");
        let (ehr, internet) = uplink(&lab)?;
        progress("links");
        lab.settle()?;

        progress("servers");
        let mut servers = Vec::new();
        for host in [
            &pump1,
            &pump2,
            &camera1,
            &camera2,
            &nurse,
            &ehr,
            &internet,
            lab.router(),
        ] {
            servers.push(host.tcp_serve(SSH)?);
        }
        for (host, port) in [
            (&camera1, RTSP),
            (&camera2, RTSP),
            (&ehr, HL7),
            (&ehr, HTTPS),
            (&internet, HTTPS),
        ] {
            servers.push(host.tcp_serve(port)?);
        }
        for port in [DNS, NTP] {
            servers.push(lab.router().udp_serve_at(ROUTER, port)?);
        }
        Ok(Self {
            servers,
            pump1,
            pump2,
            camera1,
            camera2,
            nurse,
            ehr,
            internet,
            lab,
        })
    }

    /// Tries every target from every source, all at once: one row for each of [`SOURCES`], one
    /// column for each of [`TARGETS`].
    ///
    /// # Errors
    /// When the machine has no room for that many threads.
    pub fn matrix(&self) -> Result<Vec<Vec<Outcome>>> {
        thread::scope(|scope| {
            let mut rows = Vec::new();
            for source in SOURCES {
                let host = self.host(source)?;
                let mut row = Vec::new();
                for target in &TARGETS {
                    let work = move || target.probe.send(host, target.address);
                    row.push(thread::Builder::new().spawn_scoped(scope, work)?);
                }
                rows.push(row);
            }
            let outcome = |probe: thread::ScopedJoinHandle<'_, _>| {
                probe
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            Ok(rows
                .into_iter()
                .map(|row| row.into_iter().map(outcome).collect())
                .collect())
        })
    }

    fn host(&self, name: &str) -> Result<&Host> {
        [
            &self.pump1,
            &self.pump2,
            &self.camera1,
            &self.camera2,
            &self.nurse,
            &self.ehr,
            &self.internet,
        ]
        .into_iter()
        .find(|host| host.name() == name)
        .with_context(|| format!("the clinic has no {name}"))
    }

    /// Ends the servers and removes everything, saying what could not be removed.
    ///
    /// # Errors
    /// Every failure, together.
    pub fn close(self) -> Result<()> {
        drop(self.servers);
        self.lab.close()
    }
}

fn plug_in(lab: &Lab, device: &Device) -> Result<Host> {
    let Device {
        name,
        port,
        mac,
        net,
        number,
        bridge,
    } = *device;
    let host = lab.host(name)?;
    let [v4, v6] = gateways(net);
    let end = End::new(&host, "eth0")
        .mac(mac)
        .address(&format!("10.20.{net}.{number}/24"))
        .address(&format!("fd20:0:0:{net}::{number}/64"))
        .gateway(&v4)
        .gateway(&v6);
    let port = End::new(lab.router(), port);
    let port = match bridge {
        Some(bridge) => port.master(bridge),
        None => port
            .address(&format!("{v4}/24"))
            .address(&format!("{v6}/64")),
    };
    lab.wire(&end, &port)?;
    Ok(host)
}

/// The router's addresses in one of the clinic's networks.
fn gateways(net: u8) -> [String; 2] {
    [format!("10.20.{net}.1"), format!("fd20:0:0:{net}::1")]
}

fn uplink(lab: &Lab) -> Result<(Host, Host)> {
    let core = lab.host("core")?;
    for key in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        core.sysctl(key, "1")?;
    }
    lab.wire(
        &End::new(&core, "router")
            .address("10.20.0.2/30")
            .address("fd20::2/64"),
        &End::new(lab.router(), "uplink")
            .address("10.20.0.1/30")
            .address("fd20::1/64")
            .gateway("10.20.0.2")
            .gateway("fd20::2"),
    )?;
    core.ip("route add 10.20.0.0/16 via 10.20.0.1")?;
    core.ip("route add fd20::/48 via fd20::1")?;

    let ehr = lab.host("ehr")?;
    lab.wire(
        &End::new(&ehr, "eth0")
            .address("10.20.9.10/24")
            .address("fd20:0:0:9::10/64")
            .gateway("10.20.9.1")
            .gateway("fd20:0:0:9::1"),
        &End::new(&core, "records")
            .address("10.20.9.1/24")
            .address("fd20:0:0:9::1/64"),
    )?;
    let internet = lab.host("internet")?;
    lab.wire(
        &End::new(&internet, "eth0")
            .address(&format!("{INTERNET}/24"))
            .address("198.51.100.80/24")
            .address("2001:4:112::7/64")
            .address("2001:db8:100::80/64")
            .gateway("192.31.196.1")
            .gateway("2001:4:112::1"),
        &End::new(&core, "internet")
            .address("192.31.196.1/24")
            .address("198.51.100.1/24")
            .address("2001:4:112::1/64")
            .address("2001:db8:100::1/64"),
    )?;
    Ok((ehr, internet))
}
