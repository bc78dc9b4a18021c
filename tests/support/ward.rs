//! Shared by the tests of live traffic: a ward to run it in, a daemon that guards the ward, and the
//! counters, events and flows that the daemon reports.
#![expect(
    missing_docs,
    reason = "only tests call it, by names that say what they are"
)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    net::{IpAddr, UdpSocket},
    path::PathBuf,
    time::Duration,
};

use serde_json::Value;

use crate::{Ctl, Daemon, End, Host, Lab, Settings, TIMEOUT, eventually};

/// How long an expected event may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// The far host.
pub const FAR: [&str; 2] = ["198.51.100.7", "2001:db8:100::7"];

/// A router with devices on guarded ports, and a host behind its uplink.
pub struct Ward {
    pub far: Host,
    pub lab: Lab,
}

impl Ward {
    pub fn new(name: &str) -> Self {
        let lab = Lab::new(name).unwrap();
        let far = lab.host("far").unwrap();
        lab.wire(
            &End::new(&far, "eth0")
                .address("198.51.100.7/24")
                .address("2001:db8:100::7/64")
                .gateway("198.51.100.1")
                .gateway("2001:db8:100::1"),
            &End::new(lab.router(), "uplink")
                .address("198.51.100.1/24")
                .address("2001:db8:100::1/64"),
        )
        .unwrap();
        Self { far, lab }
    }

    /// A device in a network of its own, on a port of its own.
    pub fn device(&self, net: u8) -> Host {
        let host = self.lab.host(&format!("device-{net}")).unwrap();
        self.plug_in(&host, net, &self.port(net));
        host
    }

    /// Wires a device to a port.
    pub fn plug_in(&self, host: &Host, net: u8, port: &End) {
        let end = End::new(host, "eth0")
            .mac(&mac(net))
            .address(&format!("{}/24", v4(net)))
            .address(&format!("{}/64", v6(net)))
            .gateway(&format!("10.20.{net}.1"))
            .gateway(&format!("fd20:0:0:{net}::1"));
        // The first end's index is as asked for.
        self.lab.wire(port, &end).unwrap();
    }

    /// The same on a port of a bridge; the network is the bridge's.
    pub fn bridged(&self, net: u8, bridge: &str) -> Host {
        let host = self.lab.host(&format!("device-{net}")).unwrap();
        self.lab
            .wire(
                &End::new(&host, "eth0")
                    .mac(&mac(net))
                    .address(&format!("10.20.0.{net}/16"))
                    .address(&format!("fd20::{net}/32")),
                &End::new(self.lab.router(), &format!("lan{net}")).master(bridge),
            )
            .unwrap();
        host
    }

    /// The device of a zone as [`zone`] lists it, on a port of a bridge whose network is wide enough for
    /// all zones: `10.20.0.1/16` and `fd20::1/32`.
    pub fn beside(&self, net: u8, bridge: &str) -> Host {
        let host = self.lab.host(&format!("device-{net}")).unwrap();
        self.lab
            .wire(
                &End::new(&host, "eth0")
                    .mac(&mac(net))
                    .address(&format!("{}/16", v4(net)))
                    .address(&format!("{}/32", v6(net)))
                    .gateway("10.20.0.1")
                    .gateway("fd20::1"),
                &End::new(self.lab.router(), &format!("lan{net}")).master(bridge),
            )
            .unwrap();
        host
    }

    /// Two devices on one switch behind a port of the router: the first is that of [`Ward::device`], the
    /// second has the MAC of the next network, and `.12`.
    pub fn switched(&self, net: u8) -> [Host; 2] {
        let switch = self.lab.host("switch").unwrap();
        self.lab.bridge(&switch, "br0", &[]).unwrap();
        let port = |name: &str| End::new(&switch, name).master("br0");
        self.lab.wire(&self.port(net), &port("trunk")).unwrap();
        [0, 1].map(|at| {
            let host = self.lab.host(&format!("device-{}", net + at)).unwrap();
            let end = End::new(&host, "eth0")
                .mac(&mac(net + at))
                .address(&format!("10.20.{net}.{}/24", 11 + at))
                .address(&format!("fd20:0:0:{net}::{}/64", 11 + at))
                .gateway(&format!("10.20.{net}.1"))
                .gateway(&format!("fd20:0:0:{net}::1"));
            self.lab.wire(&end, &port(&format!("p{at}"))).unwrap();
            host
        })
    }

    /// A device without addresses.
    pub fn bare(&self, net: u8, port: &End) -> Host {
        let host = self.lab.host(&format!("device-{net}")).unwrap();
        let end = End::new(&host, "eth0").mac(&mac(net));
        self.lab.wire(port, &end).unwrap();
        host
    }

    pub fn port(&self, net: u8) -> End {
        End::new(self.lab.router(), &format!("lan{net}"))
            .address(&format!("10.20.{net}.1/24"))
            .address(&format!("fd20:0:0:{net}::1/64"))
    }
}

pub fn mac(net: u8) -> String {
    format!("02:00:00:00:{net:02x}:11")
}

pub fn v4(net: u8) -> String {
    format!("10.20.{net}.11")
}

pub fn v6(net: u8) -> String {
    format!("fd20:0:0:{net}::11")
}

/// A zone with one port and one device, as lines of the three lists.
pub fn zone(net: u8, zone: &str, port: &str) -> [String; 3] {
    [
        format!(
            "  - {{name: zone-{net}, subnets: [10.20.{net}.0/24, \"fd20:0:0:{net}::/64\"]{zone}}}\n"
        ),
        format!("  - {{interface: lan{net}, zone: zone-{net}{port}}}\n"),
        format!(
            "  - {{name: device-{net}, zone: zone-{net}, macs: [\"{}\"], \
             addresses: [{}, \"{}\"]}}\n",
            mac(net),
            v4(net),
            v6(net)
        ),
    ]
}

/// A policy of such zones, in which every device may use these services of the far host.
pub fn policy(zones: &[[String; 3]], services: &str) -> String {
    let list = |index: usize| -> String { zones.iter().map(|lines| &*lines[index]).collect() };
    format!(
        "version: 1\nzones:\n{}ports:\n{}devices:\n{}rules:\n  - {{name: needed, \
         from: [any], to: [\"cidr:198.51.100.0/24\", \"cidr:2001:db8:100::/64\"], \
         services: [{services}], action: allow}}\n",
        list(0),
        list(1),
        list(2)
    )
}

/// In a frame that may not arrive.
pub const TRIED: &[u8] = b"what somebody tries";
/// In a frame that always arrives.
pub const ALWAYS: &[u8] = b"what always arrives";

/// Whether a host hears a frame with [`TRIED`] in it before one with [`ALWAYS`]; `send` sends both, in
/// this order.
///
/// # Panics
/// When it hears neither.
pub fn arrives(at: &Host, send: impl FnOnce()) -> bool {
    let sniffer = at.sniff("eth0").unwrap();
    send();
    let has = |frame: &[u8], mark: &[u8]| frame.windows(mark.len()).any(|part| part == mark);
    let either = |frame: &[u8]| has(frame, TRIED) || has(frame, ALWAYS);
    let first = sniffer.wait_for(PATIENCE, either);
    has(&first.expect("what always arrives"), TRIED)
}

/// Whether a datagram to udp/2575 arrives from this address of one host at that address of another.
///
/// # Panics
/// When an address is not the host's.
pub fn receives((from, source): (&Host, IpAddr), (to, destination): (&Host, IpAddr)) -> bool {
    let bind = |host: &Host, at: (IpAddr, u16)| {
        let mut socket = None;
        // A program that another test starts may hold the last socket for a moment.
        eventually(PATIENCE, || {
            socket = host.run(|| UdpSocket::bind(at)).unwrap().ok();
            socket.is_some()
        });
        socket.expect("a socket with this address")
    };
    let receiver = bind(to, (destination, 2575));
    receiver.set_read_timeout(Some(TIMEOUT)).unwrap();
    let sender = bind(from, (source, 0));
    sender.send_to(b"pressure", (destination, 2575)).unwrap();
    receiver.recv(&mut [0; 16]).is_ok()
}

/// The path of the program that an environment variable names.
///
/// # Panics
/// When it names none.
pub fn program(variable: &str) -> PathBuf {
    std::env::var_os(variable)
        .map(PathBuf::from)
        .unwrap_or_else(|| panic!("{variable} names the program; `cargo xtask test` sets it"))
}

/// A daemon, and the client that asks it.
pub struct Guard {
    pub daemon: Daemon,
    pub ctl: Ctl,
}

impl Guard {
    /// Starts a daemon in the lab's router; `more` are further tables of its configuration.
    pub fn start(lab: &Lab, more: &str) -> Self {
        let settings = Settings {
            more: more.to_owned(),
            ..Settings::default()
        };
        let daemon = Daemon::start(lab, &program("WARDLINE_WARDLINED"), &settings).unwrap();
        let ctl = Ctl::new(&program("WARDLINE_WARDCTL"), &daemon).unwrap();
        Self { daemon, ctl }
    }

    /// Puts a document in force.
    pub fn apply(&self, document: &str) {
        self.ctl.apply(document).unwrap().ok().unwrap();
    }

    /// How ports are attached, by interface.
    pub fn attached(&self) -> BTreeMap<String, String> {
        let status = self.ctl.json(&["status"]).unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        status["ports"]
            .as_array()
            .unwrap()
            .iter()
            .map(|port| (text(&port["interface"]), text(&port["attached"])))
            .collect()
    }

    /// Waits for a port to be judged.
    pub fn wait_until_guarded(&self, interface: &str) {
        self.wait_for_guard(interface, true);
    }

    /// Waits for a port to be judged no longer, say because its interface is gone.
    pub fn wait_until_unguarded(&self, interface: &str) {
        self.wait_for_guard(interface, false);
    }

    fn wait_for_guard(&self, interface: &str, wanted: bool) {
        let guarded = || {
            self.attached()
                .get(interface)
                .is_some_and(|hook| hook != "none")
        };
        let seen = eventually(PATIENCE, || guarded() == wanted);
        assert!(seen, "{:?}", self.attached());
    }

    /// Packets by reason, without reasons that no packet has met.
    pub fn reasons(&self) -> BTreeMap<String, u64> {
        let counters = self.ctl.json(&["counters"]).unwrap();
        counters["reasons"]
            .as_array()
            .unwrap()
            .iter()
            .map(|counter| {
                let reason = counter["reason"].as_str().unwrap().to_owned();
                (reason, counter["packets"].as_u64().unwrap())
            })
            .filter(|(_, packets)| *packets != 0)
            .collect()
    }

    /// Packets that met one reason.
    pub fn packets(&self, reason: &str) -> u64 {
        self.reasons().get(reason).copied().unwrap_or(0)
    }

    /// Packets that were dropped, by reason.
    pub fn drops(&self) -> BTreeMap<String, u64> {
        let mut reasons = self.reasons();
        for passes in ["rule", "established", "related", "control", "observed"] {
            reasons.remove(passes);
        }
        reasons
    }

    /// Does what passes only because it is observed: no more packets are dropped than before, and what
    /// would be dropped is told with its reason. Events of one kind are a second apart, so the work is
    /// done again until one is its own.
    pub fn observes(&self, reason: &str, mut work: impl FnMut()) {
        let (drops, observed) = (self.drops(), self.packets("observed"));
        let is_one = |event: &Value| event["reason"] == reason && event["verdict"] == "pass";
        let told = eventually(PATIENCE, || {
            work();
            self.ctl.events().unwrap().iter().any(is_one)
        });
        assert_eq!(self.drops(), drops, "nothing more is dropped");
        assert!(self.packets("observed") > observed, "{:?}", self.reasons());
        assert!(told, "{reason} is not told: {:#?}", self.ctl.events());
    }

    /// Waits for an event that has all of these fields.
    pub fn told(&self, fields: &[(&str, &str)]) {
        let has = |event: &Value| fields.iter().all(|(name, value)| event[*name] == *value);
        let told = eventually(PATIENCE, || self.ctl.events().unwrap().iter().any(has));
        assert!(told, "no event {fields:?}: {:#?}", self.ctl.events());
    }

    /// The flows from one address to another.
    pub fn flows(&self, source: &str, destination: &str) -> Vec<Value> {
        let flows = self.ctl.json(&["flows"]).unwrap();
        let wanted = |flow: &&Value| flow["source"] == source && flow["destination"] == destination;
        let flows = flows["flows"].as_array().unwrap();
        flows.iter().filter(wanted).cloned().collect()
    }
}

/// Reports a test that can't run on this machine; the caller then returns. Written past the test
/// harness, which hides the output of tests that pass.
pub fn skip(name: &str, why: &str) {
    let line = format!("skipped: {name}: {why}\n");
    io::stdout().write_all(line.as_bytes()).unwrap();
}
