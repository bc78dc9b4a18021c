//! Names in rules: a device reaches what its resolver has told it, and nothing else.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use wardline_tests::{
    Host, Outcome, TIMEOUT, eventually,
    ward::{FAR, Guard, PATIENCE, Ward, mac, v4, v6},
};

use crate::live::servers::{dnsmasq, has_dnsmasq};

const NAME: &str = "updates.vendor.example";
const SERVICE: u16 = 443;
const ROUTER: &str = "10.20.1.1";
const A: u16 = 1;
const AAAA: u16 = 28;

/// The policy: a device may ask the router and the far host, and reach names; `more` are further lines.
fn policy(hook: &str, more: &str) -> String {
    let (mac, v4, v6) = (mac(1), v4(1), v6(1));
    let far = FAR.map(|it| format!("\"cidr:{it}\"")).join(", ");
    let far = far.replace("7\"", "7/32\"").replace("::7/32", "::7/128");
    format!(
        "version: 1
zones: [{{name: pumps, subnets: [10.20.1.0/24, \"fd20:0:0:1::/64\"]}}]
ports: [{{interface: lan1, zone: pumps, attach: {hook}}}]
devices: [{{name: pump, zone: pumps, macs: [\"{mac}\"], addresses: [{v4}, \"{v6}\"]}}]
rules:
  - {{name: ask, from: [zone:pumps], to: [router, {far}], services: [udp/53], action: allow}}
  - {{name: updates, from: [zone:pumps], to: [\"name:{NAME}\"], services: [tcp/{SERVICE}], action: allow}}
{more}"
    )
}

/// A question as devices send it.
fn question(id: u16, name: &str, kind: u16) -> Vec<u8> {
    let mut bytes = [id, 0x0100, 1, 0, 0, 0].map(u16::to_be_bytes).concat();
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend([kind, 1].map(u16::to_be_bytes).concat());
    bytes
}

/// An answer to a question, with one address.
fn answer(question: &[u8], address: Ipv4Addr, seconds: u32) -> Vec<u8> {
    let mut bytes = question.to_vec();
    bytes[2..4].copy_from_slice(&[0x81, 0x80]);
    bytes[6..8].copy_from_slice(&[0, 1]);
    bytes.extend([0xc0, 12, 0, 1, 0, 1]);
    bytes.extend(seconds.to_be_bytes());
    bytes.extend([0, 4]);
    bytes.extend(address.octets());
    bytes
}

/// A device that asks.
struct Resolver(UdpSocket, u16);

impl Resolver {
    fn new(host: &Host, server: &str) -> Self {
        let any = if server.contains(':') {
            "[::]:0"
        } else {
            "0.0.0.0:0"
        };
        let socket = host.run(|| {
            let socket = UdpSocket::bind(any).unwrap();
            let server: IpAddr = server.parse().unwrap();
            socket.connect((server, 53)).unwrap();
            socket
        });
        let socket = socket.unwrap();
        socket.set_read_timeout(Some(TIMEOUT)).unwrap();
        Self(socket, 0)
    }

    /// The addresses of a name; asks again when nothing comes.
    fn ask(&mut self, name: &str, kind: u16) -> Vec<IpAddr> {
        for _ in 0..3 {
            self.1 += 1;
            self.0.send(&question(self.1, name, kind)).unwrap();
            let mut bytes = [0; 1500];
            let Ok(length) = self.0.recv(&mut bytes) else {
                continue;
            };
            return addresses(&bytes[..length], kind);
        }
        Vec::new()
    }
}

/// The addresses at the end of an answer; each is behind a compressed name.
fn addresses(bytes: &[u8], kind: u16) -> Vec<IpAddr> {
    let size = if kind == A { 4 } else { 16 };
    let count = u16::from_be_bytes([bytes[6], bytes[7]]) as usize;
    let records = bytes.rchunks(12 + size).take(count);
    records
        .map(|record| match <[u8; 4]>::try_from(&record[12..]) {
            Ok(v4) => IpAddr::from(v4),
            Err(_) => IpAddr::from(<[u8; 16]>::try_from(&record[12..]).unwrap()),
        })
        .collect()
}

/// A server of names in a host's namespace, which runs until it is dropped.
struct Names {
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Names {
    /// `told` gives the address for a question, by how many came before.
    fn serve(
        host: &Host,
        address: &str,
        told: impl Fn(u32) -> (Ipv4Addr, u32) + Send + 'static,
    ) -> Self {
        let socket = host
            .run(|| UdpSocket::bind((address, 53)).unwrap())
            .unwrap();
        let wait = Duration::from_millis(100);
        socket.set_read_timeout(Some(wait)).unwrap();
        let ends = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&ends);
        let thread = thread::spawn(move || {
            let mut count = 0;
            let mut bytes = [0; 512];
            while !ended.load(Ordering::Relaxed) {
                if let Ok((length, from)) = socket.recv_from(&mut bytes) {
                    let (address, seconds) = told(count);
                    count += 1;
                    let sent = socket.send_to(&answer(&bytes[..length], address, seconds), from);
                    sent.unwrap();
                }
            }
        });
        Self {
            ends,
            thread: Some(thread),
        }
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn connects(device: &Host, address: &str) -> Outcome {
    device.tcp_connect(address, SERVICE, TIMEOUT)
}

/// What `wardctl names` says of a name.
fn known(guard: &Guard, name: &str) -> Value {
    let names = guard.ctl.json(&["names"]).unwrap();
    let mut names = names["names"].as_array().unwrap().iter();
    names.find(|it| it["name"] == name).cloned().unwrap()
}

#[test]
fn what_the_routers_resolver_tells_opens_the_way_at_xdp() {
    told_by_the_router("names-xdp", "xdp");
}

#[test]
fn what_the_routers_resolver_tells_opens_the_way_at_tc() {
    told_by_the_router("names-tc", "tc");
}

fn told_by_the_router(name: &str, hook: &str) {
    if !has_dnsmasq(name) {
        return;
    }
    let ward = Ward::new(name);
    let device = ward.device(1);
    ward.lab.settle().unwrap();
    let _server = ward.far.tcp_serve(SERVICE).unwrap();
    let addresses = FAR.map(|it| format!("--address=/{NAME}/{it}"));
    let mut arguments = vec!["--port=53", "--no-resolv", "--no-hosts", "--interface=lan1"];
    arguments.extend(addresses.iter().map(String::as_str));
    let _dnsmasq = dnsmasq(&ward.lab, ward.lab.router(), &arguments);
    let mut guard = Guard::start(&ward.lab, "");
    guard.apply(&policy(hook, ""));
    assert_eq!(guard.attached()["lan1"], hook);
    for far in FAR {
        assert_eq!(
            connects(&device, far),
            Outcome::Dropped,
            "{far}: not asked yet"
        );
    }
    assert_eq!(known(&guard, NAME)["addresses"], json!([]));
    let mut resolver = Resolver::new(&device, ROUTER);
    for (kind, far) in [(A, FAR[0]), (AAAA, FAR[1])] {
        let told = || resolver.ask(NAME, kind);
        let is_far: IpAddr = far.parse().unwrap();
        assert!(
            eventually(PATIENCE, {
                let mut told = told;
                move || told() == [is_far]
            }),
            "{far}"
        );
    }
    // The way is open without the daemon.
    guard.daemon.kill9().unwrap();
    for far in FAR {
        assert_eq!(connects(&device, far), Outcome::Connected, "{far}");
    }
    guard.daemon.restart().unwrap();
    for far in FAR {
        assert_eq!(
            connects(&device, far),
            Outcome::Connected,
            "{far}: after a restart"
        );
    }
    let told = known(&guard, NAME);
    let of = |at: usize| {
        let it = &told["addresses"][at];
        (
            it["address"].clone(),
            it["resolver"].clone(),
            it["asker"].clone(),
        )
    };
    assert_eq!(
        of(0),
        (json!(FAR[0]), json!(ROUTER), json!("pump")),
        "{told}"
    );
    assert_eq!(told["rules"], json!(["updates"]));
    assert!(told["addresses"][0]["until"].is_string(), "{told}");
    // Without the rule a connection that is open ends.
    let mut session = device.session(FAR[0], SERVICE).unwrap();
    assert!(session.echo(b"before"));
    let without = policy(hook, "").replace(NAME, "other.vendor.example");
    guard.apply(&without);
    assert!(!session.echo_within(b"after", Duration::from_millis(500)));
    assert_eq!(connects(&device, FAR[0]), Outcome::Dropped);
    guard.apply(&policy(hook, ""));
    assert_eq!(
        connects(&device, FAR[0]),
        Outcome::Connected,
        "it is still known"
    );
}

#[test]
fn only_resolvers_that_the_policy_names_are_believed() {
    let ward = Ward::new("names-resolvers");
    let device = ward.device(1);
    ward.far.ip("address add 198.51.100.8/24 dev eth0").unwrap();
    ward.lab.settle().unwrap();
    let _server = ward.far.tcp_serve(SERVICE).unwrap();
    let target = Ipv4Addr::new(198, 51, 100, 8);
    let _names = Names::serve(&ward.far, FAR[0], move |_| (target, 60));
    let guard = Guard::start(&ward.lab, "");
    guard.apply(&policy("tc", ""));
    let mut resolver = Resolver::new(&device, FAR[0]);
    assert_eq!(resolver.ask(NAME, A), [IpAddr::from(target)]);
    assert_eq!(
        connects(&device, "198.51.100.8"),
        Outcome::Dropped,
        "not named"
    );
    let named = format!("resolvers: [{{address: {}}}]\n", FAR[0]);
    guard.apply(&policy("tc", &named));
    assert_eq!(
        connects(&device, "198.51.100.8"),
        Outcome::Dropped,
        "asked before"
    );
    assert_eq!(resolver.ask(NAME, A), [IpAddr::from(target)]);
    assert_eq!(connects(&device, "198.51.100.8"), Outcome::Connected);
    // An answer for another name changes nothing.
    assert_eq!(resolver.ask("other.example", A), [IpAddr::from(target)]);
    assert_eq!(
        known(&guard, NAME)["addresses"].as_array().unwrap().len(),
        1
    );
}

#[test]
fn answers_that_change_all_the_time_lose_no_connection() {
    const ADDRESSES: u8 = 100;
    let seconds = std::env::var("WARDLINE_SECONDS").ok();
    let seconds = seconds.and_then(|it| it.parse().ok()).unwrap_or(8);
    let ward = Ward::new("names-rotate");
    let device = ward.device(1);
    let of = |n: u8| Ipv4Addr::new(198, 51, 100, 100 + n);
    for n in 0..ADDRESSES {
        let add = format!("address add {}/24 dev eth0", of(n));
        ward.far.ip(&add).unwrap();
    }
    ward.lab.settle().unwrap();
    let _server = ward.far.tcp_serve(SERVICE).unwrap();
    let _names = Names::serve(ward.lab.router(), ROUTER, move |count| {
        (of((count % u32::from(ADDRESSES)) as u8), 1)
    });
    // Connections that are over count for a while.
    let limits = "[limits]\nflows_per_device = 262144\n";
    let mut guard = Guard::start(&ward.lab, limits);
    guard.apply(&policy("xdp", ""));
    let mut resolver = Resolver::new(&device, ROUTER);
    let (mut seen, mut connected) = (BTreeSet::new(), 0);
    let began = Instant::now();
    let mut is_dead = false;
    while began.elapsed() < Duration::from_secs(seconds) {
        if !is_dead && began.elapsed() > Duration::from_secs(seconds / 2) {
            guard.daemon.kill9().unwrap();
            is_dead = true;
        }
        for address in resolver.ask(NAME, A) {
            // The machine may be busy; that nothing was dropped is asked below.
            let outcome = device.tcp_connect(&address.to_string(), SERVICE, PATIENCE);
            assert_eq!(outcome, Outcome::Connected, "{address} after {connected}");
            connected += 1;
            seen.insert(address);
        }
    }
    println!("{connected} connections to {} addresses", seen.len());
    assert!(seen.len() > 20, "{}", seen.len());
    // Those of before are still good: a device may keep an answer for a while.
    for address in &seen {
        let outcome = device.tcp_connect(&address.to_string(), SERVICE, PATIENCE);
        assert_eq!(outcome, Outcome::Connected);
    }
    guard.daemon.restart().unwrap();
    assert_eq!(guard.drops().get("no_rule"), None, "{:?}", guard.drops());
}

#[test]
fn names_outlive_the_daemon_and_a_reboot() {
    let ward = Ward::new("names-reboot");
    let device = ward.device(1);
    ward.lab.settle().unwrap();
    let _server = ward.far.tcp_serve(SERVICE).unwrap();
    let far: Ipv4Addr = FAR[0].parse().unwrap();
    let _names = Names::serve(ward.lab.router(), ROUTER, move |_| (far, 3600));
    let mut guard = Guard::start(&ward.lab, "");
    guard.apply(&policy("tc", ""));
    let mut resolver = Resolver::new(&device, ROUTER);
    assert_eq!(resolver.ask(NAME, A), [IpAddr::from(far)]);
    guard.daemon.restart().unwrap();
    assert_eq!(connects(&device, FAR[0]), Outcome::Connected);
    let before = known(&guard, NAME);
    // Nothing in the kernel outlives a reboot.
    guard.daemon.terminate().unwrap();
    guard.daemon.detach().unwrap();
    guard.daemon.restart().unwrap();
    guard.wait_until_guarded("lan1");
    let after = known(&guard, NAME);
    assert_eq!(
        after["addresses"][0]["address"],
        before["addresses"][0]["address"]
    );
    assert_eq!(after["addresses"][0]["asker"], json!("pump"));
    assert_eq!(connects(&device, FAR[0]), Outcome::Connected);
}

#[test]
fn ten_thousand_names_are_told_apart() {
    const NAMES: usize = 10_000;
    let ward = Ward::new("names-many");
    let device = ward.device(1);
    let of = |n: u8| Ipv4Addr::new(198, 51, 100, 100 + n);
    for n in 0..2 {
        let add = format!("address add {}/24 dev eth0", of(n));
        ward.far.ip(&add).unwrap();
    }
    ward.lab.settle().unwrap();
    let _server = ward.far.tcp_serve(SERVICE).unwrap();
    let _names = Names::serve(ward.lab.router(), ROUTER, move |count| {
        (of(u8::from(count > 0)), 60)
    });
    let guard = Guard::start(&ward.lab, "");
    let names: Vec<String> = (0..NAMES)
        .map(|n| format!("\"name:host-{n}.vendor.example\""))
        .collect();
    let many = format!(
        "  - {{name: many, from: [zone:pumps], to: [{}], services: [tcp/{SERVICE}], action: allow}}\n",
        names.join(", ")
    );
    guard.apply(&policy("xdp", &many));
    let mut resolver = Resolver::new(&device, ROUTER);
    // The first answer is for a name that no rule has.
    resolver.ask(&format!("host-{NAMES}.vendor.example"), A);
    assert_eq!(connects(&device, &of(0).to_string()), Outcome::Dropped);
    assert_eq!(connects(&device, &of(1).to_string()), Outcome::Dropped);
    for n in [0, 1, 4711, NAMES - 1] {
        let name = format!("host-{n}.vendor.example");
        assert_eq!(resolver.ask(&name, A), [IpAddr::from(of(1))]);
        assert_eq!(connects(&device, &of(1).to_string()), Outcome::Connected);
    }
    let names = guard.ctl.json(&["names"]).unwrap();
    let names = names["names"].as_array().unwrap();
    assert_eq!(names.len(), NAMES + 1);
    let known = names.iter().filter(|it| it["addresses"] != json!([]));
    assert_eq!(known.count(), 4);
}
