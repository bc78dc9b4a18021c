//! A host of the lab and what it can do on the network: real sockets, and raw frames.

use std::fmt;
use std::fs;
use std::io::{self, ErrorKind, Read};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpListener, TcpStream};
use std::net::{Ipv4Addr, UdpSocket};
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use socket2::{Domain, Protocol, Socket, Type};

use crate::namespace::{open_netns, run_ip};
use crate::sys;
use crate::traffic::{Server, Session, Sniffer, left};
use crate::wait::{TIMEOUT, eventually};

/// A network namespace with a name; clones are the same host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    name: String,
    netns: String,
}

/// The result of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// TCP: the handshake was completed. UDP: the datagram came back. Ping: the echo did.
    Connected,
    /// The other end's stack refused: a reset, or a port unreachable.
    Refused,
    /// Nothing came back in time.
    Dropped,
    /// A hop on the way, or the host's own stack, reported that there is no route.
    Unreachable,
    /// An error that says nothing about the network.
    Other(ErrorKind),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connected => f.write_str("connected"),
            Self::Refused => f.write_str("refused"),
            Self::Dropped => f.write_str("dropped"),
            Self::Unreachable => f.write_str("unreachable"),
            Self::Other(kind) => write!(f, "failed: {kind}"),
        }
    }
}

/// A program that runs on a host until it is dropped.
#[derive(Debug)]
pub struct Program(Child);

impl Program {
    /// How it has ended, if it has.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.0.try_wait().context("looking at a program")
    }

    /// Asks it to end, and waits until it has.
    ///
    /// # Errors
    /// When it goes on.
    pub fn terminate(mut self) -> Result<()> {
        sys::signal(self.0.id(), libc::SIGTERM).context("signalling a program")?;
        let ended = eventually(STOP, || matches!(self.0.try_wait(), Ok(Some(_))));
        ensure!(ended, "the program runs on");
        Ok(())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // A program that has already ended is only waited for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How long a program may take to end.
const STOP: Duration = Duration::from_secs(10);

/// How long [`Host::path_mtu`] waits for one datagram: the first ones are too long to arrive.
const PATH_TURN: Duration = Duration::from_millis(100);

impl From<io::Error> for Outcome {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset => Self::Refused,
            ErrorKind::TimedOut | ErrorKind::WouldBlock => Self::Dropped,
            ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => Self::Unreachable,
            kind => Self::Other(kind),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Host {
    pub(crate) fn new(name: &str, netns: &str) -> Self {
        Self {
            name: name.to_owned(),
            netns: netns.to_owned(),
        }
    }

    /// The host's name in its lab.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The namespace's name, unique on the machine, as `ip -netns` takes it.
    #[must_use]
    pub fn netns(&self) -> &str {
        &self.netns
    }

    /// The namespace's file, as `nsenter --net=` takes it.
    #[must_use]
    pub fn netns_path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.netns)
    }

    /// Runs `work` on a thread inside the namespace. Sockets made there stay there.
    ///
    /// # Errors
    /// When the namespace can't be entered.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let inside = || -> Result<T> {
            let netns = open_netns(&self.netns).with_context(|| format!("opening {self}"))?;
            sys::enter(&netns).with_context(|| format!("entering {self}"))?;
            Ok(work())
        };
        thread::scope(|scope| {
            let thread = thread::Builder::new().spawn_scoped(scope, inside)?;
            thread.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    /// Starts a program inside the namespace; the file systems stay the machine's.
    ///
    /// # Errors
    /// When the program can't be started.
    pub fn spawn(&self, command: &mut Command) -> Result<Child> {
        let told = format!("starting {:?} in {self}", command.get_program());
        // A child is in the namespace of the thread that starts it.
        self.run(|| command.spawn())?.context(told)
    }

    /// Starts a program inside the namespace that ends when it is dropped.
    ///
    /// # Errors
    /// When the program can't be started.
    pub fn start(&self, command: &mut Command) -> Result<Program> {
        Ok(Program(self.spawn(command)?))
    }

    /// Runs `ip` inside the namespace with arguments parted by spaces; gives what it printed.
    ///
    /// # Errors
    /// When `ip` fails, with what it said.
    pub fn ip(&self, arguments: &str) -> Result<String> {
        let mut all = vec!["-netns", &self.netns];
        all.extend(arguments.split_whitespace());
        run_ip(&all, "").with_context(|| format!("on {self}"))
    }

    pub(crate) fn ip_batch(&self, lines: &str) -> Result<()> {
        if !lines.is_empty() {
            run_ip(&["-netns", &self.netns, "-batch", "-"], lines)
                .with_context(|| format!("on {self}"))?;
        }
        Ok(())
    }

    /// The MAC of an interface.
    ///
    /// # Errors
    /// When the interface is not there.
    pub fn mac(&self, interface: &str) -> Result<[u8; 6]> {
        let links: Value =
            serde_json::from_str(&self.ip(&format!("-json link show dev {interface}"))?)?;
        let text = links[0]["address"]
            .as_str()
            .context("an interface without a MAC")?;
        let bytes: Vec<u8> = text
            .split(':')
            .map(|byte| u8::from_str_radix(byte, 16))
            .collect::<Result<_, _>>()
            .with_context(|| format!("reading the MAC {text}"))?;
        bytes
            .try_into()
            .ok()
            .with_context(|| format!("{text} is not a MAC"))
    }

    /// The link-local address of an interface.
    ///
    /// # Errors
    /// When the interface is not there, or has none.
    pub fn link_local(&self, interface: &str) -> Result<Ipv6Addr> {
        let shown = self.ip(&format!("-json address show dev {interface}"))?;
        let links: Value = serde_json::from_str(&shown)?;
        let mut addresses = links[0]["addr_info"].as_array().into_iter().flatten();
        let own = addresses.find(|it| it["family"] == "inet6" && it["scope"] == "link");
        let own = own.and_then(|it| it["local"].as_str());
        let own = own.with_context(|| format!("{self} has none on {interface}"))?;
        Ok(own.parse()?)
    }

    /// Sets a value under `/proc/sys/net`, such as `ipv4/ip_forward`.
    ///
    /// # Errors
    /// When the kernel has no such value or refuses it.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = format!("/proc/sys/net/{key}");
        self.run(|| fs::write(&path, value))?
            .with_context(|| format!("setting {key} to {value} on {self}"))
    }

    /// Tries to connect. An address may carry its interface: `fe80::1%eth0`.
    #[must_use]
    pub fn tcp_connect(&self, address: &str, port: u16, timeout: Duration) -> Outcome {
        self.attempt(|| TcpStream::connect_timeout(&resolve(address, port)?, timeout).map(|_| ()))
    }

    /// Sends a datagram and waits for it to come back.
    #[must_use]
    pub fn udp_exchange(&self, address: &str, port: u16, timeout: Duration) -> Outcome {
        self.udp_exchange_of(16, address, port, timeout)
    }

    /// The same with a payload of so many bytes, at least 16, each of which must come back.
    #[must_use]
    pub fn udp_exchange_of(
        &self,
        length: usize,
        address: &str,
        port: u16,
        timeout: Duration,
    ) -> Outcome {
        self.attempt(|| {
            let target = resolve(address, port)?;
            let socket = UdpSocket::bind(unspecified(&target))?;
            socket.connect(target)?;
            exchange(&socket, &payload(length), timeout)
        })
    }

    /// Discovers the MTU of the path to a UDP echo server by RFC 1191 and RFC 8201: with datagrams
    /// that must not be fragmented, and the errors that hops send about those that are too long. A
    /// datagram of the returned size has come back.
    ///
    /// # Errors
    /// When none comes back in time.
    pub fn path_mtu(&self, address: &str, port: u16, timeout: Duration) -> Result<usize> {
        let found = self.run(|| -> io::Result<usize> {
            let target = resolve(address, port)?;
            let socket = UdpSocket::bind(unspecified(&target))?;
            socket.connect(target)?;
            sys::send_whole(&socket, target.is_ipv6())?;
            let headers = if target.is_ipv6() { 48 } else { 28 };
            let until = Instant::now() + timeout;
            loop {
                let mtu = sys::path_mtu(&socket, target.is_ipv6())?;
                let turn = left(until)?.min(PATH_TURN);
                match exchange(&socket, &payload(mtu - headers), turn) {
                    Ok(()) => return Ok(mtu),
                    // Too long for what the kernel has just learned, or lost on the way.
                    Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => {}
                    Err(error)
                        if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                    Err(error) => return Err(error),
                }
            }
        })?;
        found.with_context(|| format!("looking for the path from {self} to {address}"))
    }

    /// Sends a datagram and waits for nothing.
    ///
    /// # Errors
    /// When the stack can't send it.
    pub fn udp_send(&self, address: &str, port: u16, payload: &[u8]) -> Result<()> {
        self.run(|| -> io::Result<()> {
            let target = resolve(address, port)?;
            UdpSocket::bind(unspecified(&target))?
                .send_to(payload, target)
                .map(|_| ())
        })?
        .with_context(|| format!("sending from {self} to {address}, udp/{port}"))
    }

    /// Whether an ICMP echo comes back within [`TIMEOUT`].
    #[must_use]
    pub fn ping(&self, address: &str) -> bool {
        self.ping_within(address, TIMEOUT) == Outcome::Connected
    }

    /// Sends an ICMP or ICMPv6 echo and waits for it to come back.
    #[must_use]
    pub fn ping_within(&self, address: &str, timeout: Duration) -> Outcome {
        self.ping_of(16, address, timeout)
    }

    /// The same with a payload of so many bytes, at least 16, each of which must come back.
    #[must_use]
    pub fn ping_of(&self, length: usize, address: &str, timeout: Duration) -> Outcome {
        self.attempt(|| {
            let target = resolve(address, 0)?;
            let (domain, protocol, request) = match target {
                SocketAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4, 8),
                SocketAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6, 128),
            };
            // A ping socket: the kernel sets identifier and checksum, and hands over only replies.
            let socket = Socket::new(domain, Type::DGRAM, Some(protocol))?;
            socket.connect(&target.into())?;
            let payload = payload(length);
            let mut packet = vec![request, 0, 0, 0, 0, 0, 0, 1];
            packet.extend(&payload);
            socket.send(&packet)?;
            await_payload(timeout, &payload, |buffer, left| {
                socket.set_read_timeout(Some(left))?;
                (&socket).read(buffer)
            })
        })
    }

    fn attempt(&self, work: impl FnOnce() -> io::Result<()> + Send) -> Outcome {
        match self.run(work) {
            Ok(Ok(())) => Outcome::Connected,
            Ok(Err(error)) => error.into(),
            Err(_) => Outcome::Other(ErrorKind::NotFound),
        }
    }

    /// Serves TCP echo on a port of every address. Stops when dropped.
    ///
    /// # Errors
    /// When the port is taken.
    pub fn tcp_serve(&self, port: u16) -> Result<Server> {
        let listener = self
            .run(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)))?
            .with_context(|| format!("listening on {self}, tcp/{port}"))?;
        Server::tcp(listener)
    }

    /// Serves UDP echo on a port of every address. Stops when dropped. A host with several
    /// addresses answers from the one that faces the client.
    ///
    /// # Errors
    /// When the port is taken.
    pub fn udp_serve(&self, port: u16) -> Result<Server> {
        self.udp_serve_at("::", port)
    }

    /// The same on one address, which is also the one that answers.
    ///
    /// # Errors
    /// When the port is taken, or the address is not the host's.
    pub fn udp_serve_at(&self, address: &str, port: u16) -> Result<Server> {
        let socket = self
            .run(|| UdpSocket::bind(resolve(address, port)?))?
            .with_context(|| format!("listening on {self}, {address}, udp/{port}"))?;
        Server::udp(socket)
    }

    /// Sets up an end of a wire so that it takes frames that the other end sends from XDP, and
    /// fills in the checksums of what it sends, as on a real wire.
    ///
    /// # Errors
    /// When there is no such interface.
    pub fn meet_xdp(&self, interface: &str) -> Result<()> {
        let set = || {
            sys::set_device_value(interface, sys::SET_GRO, 1)?;
            sys::set_device_value(interface, sys::SET_TX_CHECKSUM, 0)
        };
        self.run(set)?
            .with_context(|| format!("offloads of {interface} on {self}"))
    }

    /// Has an interface put VLAN tags into the frames that it sends, as `ethtool -K IF txvlan off`
    /// does.
    ///
    /// # Errors
    /// When there is no such interface.
    pub fn keep_tags_inside(&self, interface: &str) -> Result<()> {
        self.run(|| sys::set_device_flag(interface, sys::FLAG_TX_VLAN, false))?
            .with_context(|| format!("switching txvlan off on {interface} of {self}"))
    }

    /// Opens a TCP connection to an echo server, to be watched over time.
    ///
    /// # Errors
    /// When it can't be opened within [`TIMEOUT`].
    pub fn session(&self, address: &str, port: u16) -> Result<Session> {
        self.session_from(0, address, port)
    }

    /// The same from a source port; 0: any.
    ///
    /// # Errors
    /// When it can't be opened within [`TIMEOUT`].
    pub fn session_from(&self, source: u16, address: &str, port: u16) -> Result<Session> {
        let stream = self
            .run(|| -> io::Result<TcpStream> {
                let target = resolve(address, port)?;
                let socket = Socket::new(Domain::for_address(target), Type::STREAM, None)?;
                if source != 0 {
                    socket.set_reuse_address(true)?;
                    let mut own = unspecified(&target);
                    own.set_port(source);
                    socket.bind(&own.into())?;
                }
                socket.connect_timeout(&target.into(), TIMEOUT)?;
                socket.set_tcp_nodelay(true)?;
                Ok(socket.into())
            })?
            .with_context(|| format!("connecting {self} to {address}, tcp/{port}"))?;
        Ok(Session::new(stream))
    }

    /// Sends one raw frame, Ethernet header first.
    ///
    /// # Errors
    /// When the interface is not there, down, or the frame too long for it.
    pub fn send_frame(&self, interface: &str, frame: &[u8]) -> Result<()> {
        self.run(|| sys::packet_socket(interface, false, false)?.send(frame))?
            .with_context(|| format!("sending a frame from {self}, {interface}"))?;
        Ok(())
    }

    /// Sends frames as fast as the interface takes them, all of them; answers how long it took.
    ///
    /// # Errors
    /// When the interface is not there, down, or a frame too long for it.
    pub fn flood(&self, interface: &str, frames: &[Vec<u8>]) -> Result<Duration> {
        self.run(|| -> io::Result<Duration> {
            let socket = sys::packet_socket(interface, false, false)?;
            let start = Instant::now();
            let mut rest = frames;
            while !rest.is_empty() {
                match sys::send_frames(&socket, rest) {
                    Ok(sent) => rest = &rest[sent..],
                    // The far end is still busy with those before.
                    Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                        thread::yield_now();
                    }
                    Err(error) => return Err(error),
                }
            }
            Ok(start.elapsed())
        })?
        .with_context(|| format!("flooding from {self}, {interface}"))
    }

    /// Hears every frame that comes in on an interface, from this call on.
    ///
    /// # Errors
    /// When the interface is not there.
    pub fn sniff(&self, interface: &str) -> Result<Sniffer> {
        self.sniffer(interface, false)
    }

    /// Hears every frame that comes in or goes out.
    ///
    /// # Errors
    /// When the interface is not there.
    pub fn sniff_both_ways(&self, interface: &str) -> Result<Sniffer> {
        self.sniffer(interface, true)
    }

    fn sniffer(&self, interface: &str, outgoing: bool) -> Result<Sniffer> {
        let socket = self
            .run(|| sys::packet_socket(interface, true, outgoing))?
            .with_context(|| format!("listening on {self}, {interface}"))?;
        Ok(Sniffer::new(socket))
    }
}

/// Reads an address as text, in the calling thread's namespace.
fn resolve(address: &str, port: u16) -> io::Result<SocketAddr> {
    let invalid = || {
        io::Error::new(
            ErrorKind::InvalidInput,
            format!("not an address: {address}"),
        )
    };
    if let Some((address, interface)) = address.split_once('%') {
        let address: Ipv6Addr = address.parse().map_err(|_| invalid())?;
        let scope = sys::interface_index(interface)?;
        return Ok(SocketAddrV6::new(address, port, 0, scope).into());
    }
    let address: IpAddr = address.parse().map_err(|_| invalid())?;
    Ok(SocketAddr::new(address, port))
}

fn unspecified(like: &SocketAddr) -> SocketAddr {
    match like {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

/// Bytes that no other probe of this process has sent.
fn token() -> [u8; 16] {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let mut token = *b"wardline\0\0\0\0\0\0\0\0";
    token[8..].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    token
}

/// So many bytes that end with a token.
fn payload(length: usize) -> Vec<u8> {
    let token = token();
    let mut payload = vec![0x57; length.saturating_sub(token.len())];
    payload.extend(token);
    payload
}

/// Sends on a connected socket and waits until the payload comes back.
fn exchange(socket: &UdpSocket, payload: &[u8], timeout: Duration) -> io::Result<()> {
    socket.send(payload)?;
    await_payload(timeout, payload, |buffer, left| {
        socket.set_read_timeout(Some(left))?;
        socket.recv(buffer)
    })
}

/// Receives until something ends with `payload`.
fn await_payload(
    timeout: Duration,
    payload: &[u8],
    mut receive: impl FnMut(&mut [u8], Duration) -> io::Result<usize>,
) -> io::Result<()> {
    let until = Instant::now() + timeout;
    let mut buffer = vec![0; 65536];
    loop {
        let length = receive(&mut buffer, left(until)?)?;
        if buffer[..length].ends_with(payload) {
            return Ok(());
        }
    }
}
