//! Traffic over time: echo servers, sessions, transfers, and sniffers.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use socket2::Socket;

use crate::sys;
use crate::wait::{TIMEOUT, eventually, lock};

/// An echo server on threads of its own; stops when dropped.
#[derive(Debug)]
pub struct Server {
    served: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    listener: Option<Socket>,
    connections: Connections,
    thread: Option<JoinHandle<()>>,
}

/// How long a UDP server may take to notice that it is dropped.
const UDP_TURN: Duration = Duration::from_millis(20);

type Connections = Arc<Mutex<BTreeMap<u64, TcpStream>>>;

impl Server {
    /// Connections accepted, or datagrams received: what really arrived.
    #[must_use]
    pub fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }

    pub(crate) fn tcp(listener: TcpListener) -> Result<Self> {
        let mut server = Self::idle(Some(listener.try_clone()?.into()));
        let (served, stop) = (server.served.clone(), server.stop.clone());
        let connections = server.connections.clone();
        let accept = move || {
            while let Ok((stream, _)) = listener.accept() {
                let number = served.fetch_add(1, Ordering::Relaxed);
                let Ok(handle) = stream.try_clone() else {
                    continue;
                };
                lock(&connections).insert(number, handle);
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let connections = connections.clone();
                thread::spawn(move || {
                    echo(stream);
                    lock(&connections).remove(&number);
                });
            }
        };
        server.thread = Some(thread::Builder::new().spawn(accept)?);
        Ok(server)
    }

    pub(crate) fn udp(socket: UdpSocket) -> Result<Self> {
        // Nothing wakes a reader of an unconnected socket but a datagram or its time-out.
        socket.set_read_timeout(Some(UDP_TURN))?;
        let mut server = Self::idle(None);
        let (served, stop) = (server.served.clone(), server.stop.clone());
        let answer = move || {
            let mut buffer = vec![0; 65536];
            while !stop.load(Ordering::Relaxed) {
                // An error is a time-out, or an ICMP error about an earlier answer.
                let Ok((length, peer)) = socket.recv_from(&mut buffer) else {
                    continue;
                };
                served.fetch_add(1, Ordering::Relaxed);
                let _ = socket.send_to(&buffer[..length], peer);
            }
        };
        server.thread = Some(thread::Builder::new().spawn(answer)?);
        Ok(server)
    }

    fn idle(listener: Option<Socket>) -> Self {
        Self {
            served: Arc::default(),
            stop: Arc::default(),
            listener,
            connections: Connections::default(),
            thread: None,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(listener) = &self.listener {
            // Wakes the thread from `accept`.
            let _ = listener.shutdown(Shutdown::Both);
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        for stream in lock(&self.connections).values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn echo(mut stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let mut buffer = vec![0; 65536];
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
}

/// An open TCP connection to an echo server.
#[derive(Debug)]
pub struct Session {
    stream: TcpStream,
    /// Bytes sent that have not come back: after a gap the stream goes on where it was.
    awaited: Vec<u8>,
}

impl Session {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            awaited: Vec::new(),
        }
    }

    /// Whether `bytes`, and all that was still under way, come back within [`TIMEOUT`].
    pub fn echo(&mut self, bytes: &[u8]) -> bool {
        self.echo_within(bytes, TIMEOUT)
    }

    /// The same with a deadline: TCP needs one to recover from packets that were dropped.
    pub fn echo_within(&mut self, bytes: &[u8], timeout: Duration) -> bool {
        self.try_echo(bytes, timeout).is_ok()
    }

    /// Makes it a transfer that goes on until it is told to finish, with a pause after each
    /// 16 KiB.
    ///
    /// # Errors
    /// When the machine has no room for its threads.
    pub fn transfer(self, pause: Duration) -> Result<Transfer> {
        Transfer::start(self.stream, pause).context("starting a transfer")
    }

    /// The connection's own end.
    ///
    /// # Errors
    /// When the socket has no address any more.
    pub fn local(&self) -> Result<SocketAddr> {
        Ok(self.stream.local_addr()?)
    }

    fn try_echo(&mut self, bytes: &[u8], timeout: Duration) -> io::Result<()> {
        self.awaited.extend(bytes);
        self.stream.write_all(bytes)?;
        let until = Instant::now() + timeout;
        let mut buffer = [0; 4096];
        while !self.awaited.is_empty() {
            self.stream.set_read_timeout(Some(left(until)?))?;
            let length = self.stream.read(&mut buffer)?;
            if length == 0 || !self.awaited.starts_with(&buffer[..length]) {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            self.awaited.drain(..length);
        }
        Ok(())
    }
}

/// What transfers send, again and again. The length is prime, so that a segment that is lost,
/// doubled or out of place is never like the one that should be there.
static PATTERN: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut state = 0x5743_6172_646c_696e_u64;
    (0..1_048_573)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect()
});

/// Bytes that a transfer sends at once.
const CHUNK: usize = 16 * 1024;

/// A connection to an echo server on which data goes both ways until it is told to finish. Every
/// byte that comes back is compared. Ends when dropped.
#[derive(Debug)]
pub struct Transfer {
    stream: TcpStream,
    echoed: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    writer: Option<JoinHandle<io::Result<u64>>>,
    reader: Option<JoinHandle<io::Result<u64>>>,
}

impl Transfer {
    fn start(stream: TcpStream, pause: Duration) -> io::Result<Self> {
        let (echoed, stop) = <(Arc<AtomicU64>, Arc<AtomicBool>)>::default();
        stream.set_read_timeout(None)?;
        let (mut sink, mut source) = (stream.try_clone()?, stream.try_clone()?);
        let told = stop.clone();
        let write = move || {
            let mut sent = 0;
            while !told.load(Ordering::Relaxed) {
                let at = (sent % PATTERN.len() as u64) as usize;
                let chunk = &PATTERN[at..PATTERN.len().min(at + CHUNK)];
                sink.write_all(chunk)?;
                sent += chunk.len() as u64;
                thread::sleep(pause);
            }
            sink.shutdown(Shutdown::Write)?;
            Ok(sent)
        };
        let count = echoed.clone();
        let read = move || {
            let mut buffer = vec![0; 65536];
            let mut seen = 0;
            loop {
                let length = source.read(&mut buffer)?;
                if length == 0 {
                    return Ok(seen);
                }
                let mut rest = &buffer[..length];
                while !rest.is_empty() {
                    let at = (seen % PATTERN.len() as u64) as usize;
                    let wanted = &PATTERN[at..PATTERN.len().min(at + rest.len())];
                    let (part, more) = rest.split_at(wanted.len());
                    if part != wanted {
                        let what = format!("other bytes than were sent, from {seen} on");
                        return Err(io::Error::new(ErrorKind::InvalidData, what));
                    }
                    seen += part.len() as u64;
                    rest = more;
                }
                count.store(seen, Ordering::Relaxed);
            }
        };
        Ok(Self {
            stream,
            echoed,
            stop,
            writer: Some(thread::Builder::new().spawn(write)?),
            reader: Some(thread::Builder::new().spawn(read)?),
        })
    }

    /// Bytes that have come back so far.
    #[must_use]
    pub fn echoed(&self) -> u64 {
        self.echoed.load(Ordering::Relaxed)
    }

    /// Sends no more, and waits for all that is under way and for the other end's close.
    ///
    /// # Errors
    /// When a byte is missing or wrong, when the connection broke, or when it takes longer.
    pub fn finish(mut self, deadline: Duration) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        let threads = [self.writer.take(), self.reader.take()];
        eventually(deadline, || {
            threads.iter().flatten().all(JoinHandle::is_finished)
        });
        // Gives threads that still run an error, so that they end.
        let _ = self.stream.shutdown(Shutdown::Both);
        let mut ends = Vec::new();
        for (thread, what) in threads.into_iter().flatten().zip(["sending", "receiving"]) {
            let end = thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            ends.push(end.with_context(|| format!("{what} after {} bytes", self.echoed()))?);
        }
        ensure!(
            ends[0] == ends[1],
            "{} bytes sent, {} came back",
            ends[0],
            ends[1]
        );
        Ok(ends[0])
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.stream.shutdown(Shutdown::Both);
        for thread in [self.writer.take(), self.reader.take()]
            .into_iter()
            .flatten()
        {
            let _ = thread.join();
        }
    }
}

/// A packet socket on one interface.
#[derive(Debug)]
pub struct Sniffer {
    socket: Socket,
}

impl Sniffer {
    pub(crate) fn new(socket: Socket) -> Self {
        Self { socket }
    }

    /// The next frame, VLAN tag in place; none when nothing comes in time.
    #[must_use]
    pub fn next(&self, timeout: Duration) -> Option<Vec<u8>> {
        self.wait_for(timeout, |_| true)
    }

    /// The next frame for which `wanted` holds; none when no such frame comes in time.
    pub fn wait_for(
        &self,
        timeout: Duration,
        mut wanted: impl FnMut(&[u8]) -> bool,
    ) -> Option<Vec<u8>> {
        let until = Instant::now() + timeout;
        let mut buffer = vec![0; 65536 + 14];
        loop {
            self.socket.set_read_timeout(Some(left(until).ok()?)).ok()?;
            // An error is a time-out, which the next iteration notices, or a link that went down.
            let Ok((length, tag)) = sys::receive_frame(&self.socket, &mut buffer) else {
                continue;
            };
            let mut frame = buffer[..length].to_vec();
            if let Some((protocol, tci)) = tag {
                let [a, b] = protocol.to_be_bytes();
                let [c, d] = tci.to_be_bytes();
                frame.splice(12..12, [a, b, c, d]);
            }
            if wanted(&frame) {
                return Some(frame);
            }
        }
    }

    /// Sends a frame on the interface.
    ///
    /// # Errors
    /// When the interface is down or the frame too long for it.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        self.socket.send(frame).context("sending a frame")?;
        Ok(())
    }
}

/// The time left, as a socket takes it.
///
/// # Errors
/// When it has passed.
pub(crate) fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    // A socket takes a time-out of zero as none at all.
    if left < Duration::from_millis(1) {
        Err(ErrorKind::TimedOut.into())
    } else {
        Ok(left)
    }
}
