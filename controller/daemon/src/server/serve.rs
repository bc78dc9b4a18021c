//! How clients connect: the Unix socket, TCP with mutual TLS, and the server behind both.
//!
//! On the Unix socket the kernel identifies the peer, over TCP a certificate does. A connection
//! reaches the server only when the peer is known and has begun to speak HTTP/2. Until then it
//! holds one of the few places of its address, for seconds; afterwards one of its actor's.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::{Notify, mpsc},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Server, server::Connected};
use tonic_health::{ServingStatus, server::HealthReporter};
use tracing::{info, warn};
use wardline_proto::{DESCRIPTOR_SET, v1::segmentation_server::SegmentationServer};

use super::{authority::Authorities, calls::Service};
use crate::{
    access::{
        gate::{self, Keeper},
        roles::{LARGEST_MESSAGE, Peer},
        throttle::{Place, Places},
        tls::{Certificates, Client},
    },
    config::{Api, Role},
    parts::{Broken, Part, Parts},
};

/// How long a client may take to prove its identity and to begin HTTP/2.
const GREETING: Duration = Duration::from_secs(10);
/// How long a call may take, whatever the client's deadline; for streams, only until they begin.
const LONGEST_CALL: Duration = Duration::from_secs(300);
/// How long the Unix socket waits for the TCP address.
const HEAD_START: Duration = Duration::from_millis(500);
/// After this silence a peer is pinged, and it then has `PATIENCE` to answer.
const SILENCE: Duration = Duration::from_secs(20);
const PATIENCE: Duration = Duration::from_secs(10);
/// Most calls that one connection may have open.
const STREAMS: u32 = 64;
/// Most bytes of a request's headers.
const HEADERS: u32 = 16 << 10;

/// Why the API is not served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The socket could not be made.
    #[error("{path}: {source}")]
    Socket {
        /// The socket.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The TCP address can't be used.
    #[error("api.listen {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Reflection has no descriptors.
    #[error("reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The server ended.
    #[error("the server ended: {0}")]
    Server(#[from] tonic::transport::Error),
}

/// The ways in to the API.
pub struct Doors {
    /// Where and for whom.
    pub api: Api,
    /// The certificates, once they could be read.
    pub certificates: Arc<OnceLock<Certificates>>,
    /// Where it is told what does not work.
    pub parts: Parts,
}

/// Serves until told to stop. Each way in is tried again until it can be opened, by itself.
///
/// # Errors
///
/// When the server ends by itself.
pub async fn serve(
    service: Service,
    doors: Doors,
    keeper: Arc<Keeper>,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    let Doors {
        api,
        certificates,
        parts,
    } = doors;
    let socket = api.socket.clone();
    let (sender, connections) = mpsc::channel(16);
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<SegmentationServer<Service>>().await;
    // Before anybody can ask.
    tell_health(&health, &parts.broken()).await;
    // All of these tasks are stopped when this function ends.
    let mut tasks = JoinSet::new();
    tasks.spawn(follow_health(health, parts.clone()));
    let listens = Arc::new(Notify::new());
    tasks.spawn({
        let (parts, stop, listens) = (parts.clone(), stop.clone(), listens.clone());
        open_tls(api, certificates, sender.clone(), parts, stop, listens)
    });
    tasks.spawn({
        let (socket, parts, stop) = (socket.clone(), parts.clone(), stop.clone());
        async move {
            // Who finds the socket finds the TCP address, too, unless something is wrong with it.
            let _ = timeout(HEAD_START, listens.notified()).await;
            open_unix(socket, sender, parts, stop).await;
        }
    });

    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let segmentation = SegmentationServer::new(service)
        .max_decoding_message_size(LARGEST_MESSAGE)
        .max_encoding_message_size(LARGEST_MESSAGE);
    Server::builder()
        .timeout(LONGEST_CALL)
        .http2_keepalive_interval(Some(SILENCE))
        .http2_keepalive_timeout(Some(PATIENCE))
        .http2_max_header_list_size(HEADERS)
        .max_concurrent_streams(STREAMS)
        .layer(gate::layer(keeper))
        .add_service(health_service)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?)
        .add_service(segmentation)
        .serve_with_incoming_shutdown(
            ReceiverStream::new(connections).map(Ok::<_, Infallible>),
            stop.cancelled_owned(),
        )
        .await?;
    // The next daemon may have made its own socket there already.
    let _ = std::fs::remove_file(&socket);
    Ok(())
}

/// Whether a daemon answers on a socket.
pub async fn is_served(socket: &Path) -> bool {
    UnixStream::connect(socket).await.is_ok()
}

/// Tells the health service of each part, as `wardline.database`.
async fn tell_health(health: &HealthReporter, broken: &BTreeMap<Part, Broken>) {
    for part in Part::ALL {
        let status = if broken.contains_key(&part) {
            ServingStatus::NotServing
        } else {
            ServingStatus::Serving
        };
        health
            .set_service_status(format!("wardline.{part}"), status)
            .await;
    }
}

/// Tells the health service what changes.
async fn follow_health(health: HealthReporter, parts: Parts) {
    let mut changes = parts.changes();
    // Parts are told of for as long as the server runs.
    loop {
        let broken = changes.borrow_and_update().clone();
        tell_health(&health, &broken).await;
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// Makes the Unix socket, and accepts there.
async fn open_unix(
    socket: PathBuf,
    server: mpsc::Sender<Connection>,
    parts: Parts,
    stop: CancellationToken,
) {
    let listen = || async {
        listen(&socket).await.map_err(|source| ServeError::Socket {
            path: socket.display().to_string(),
            source,
        })
    };
    if let Some(listener) = parts.insist(Part::Socket, &stop, listen).await {
        info!(socket = %socket.display(), "ready");
        accept_unix(listener, server).await;
    }
}

/// Reads the certificates and takes the TCP address, and accepts there.
async fn open_tls(
    api: Api,
    slot: Arc<OnceLock<Certificates>>,
    server: mpsc::Sender<Connection>,
    parts: Parts,
    stop: CancellationToken,
    listens: Arc<Notify>,
) {
    let Some(tls) = &api.tls else {
        return listens.notify_one();
    };
    let load = || async { Certificates::load(tls) };
    let Some(certificates) = parts.insist(Part::Certificates, &stop, load).await else {
        return;
    };
    let certificates = slot.get_or_init(|| certificates).clone();
    let follow = certificates.clone().follow(stop.clone());
    let Some(address) = api.listen else {
        listens.notify_one();
        return follow.await;
    };
    let accept = async {
        let listen = || async {
            let listener = TcpListener::bind(address).await;
            listener.map_err(|source| ServeError::Listen { address, source })
        };
        if let Some(listener) = parts.insist(Part::Listener, &stop, listen).await {
            info!(%address, "serves TCP");
            listens.notify_one();
            accept_tls(listener, certificates, api.clone(), server).await;
        }
    };
    tokio::join!(follow, accept);
}

async fn listen(socket: &Path) -> io::Result<UnixListener> {
    if is_served(socket).await {
        return Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "another daemon answers on it",
        ));
    }
    if let Some(directory) = socket.parent() {
        std::fs::create_dir_all(directory)?;
    }
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(socket)?;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

// ── accepting connections ──────────────────────────────────────────────────────────────────────

async fn accept_unix(listener: UnixListener, server: mpsc::Sender<Connection>) {
    let places = Arc::new(Places::new(256, 128));
    let mut greetings = JoinSet::new();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    back_off(&error).await;
                    continue;
                }
            },
            Some(_) = greetings.join_next() => continue,
        };
        // Without credentials the peer can't be given a role.
        let Ok(credentials) = stream.peer_cred() else {
            continue;
        };
        let peer = Peer {
            actor: format!("uid:{}", credentials.uid()),
            role: (credentials.uid() == 0).then_some(Role::Admin),
            address: credentials
                .pid()
                .map_or_else(|| "unix".to_owned(), |pid| format!("unix:{pid}")),
            since: Instant::now(),
        };
        let Some(place) = places.take(&peer.actor) else {
            continue;
        };
        let server = server.clone();
        greetings.spawn(async move {
            let ends = std::future::pending();
            let stream = Authorities::after(PREFACE.len(), stream);
            let connection = Connection::begin(stream, peer, place, ends);
            if let Ok(Ok(connection)) = timeout(GREETING, connection).await {
                // The server accepts no more connections while it stops.
                let _ = server.send(connection).await;
            }
        });
    }
}

async fn accept_tls(
    listener: TcpListener,
    certificates: Certificates,
    api: Api,
    server: mpsc::Sender<Connection>,
) {
    // It takes more than a hundred addresses to keep others out, and each of their connections ends
    // in seconds.
    let strangers = Places::new(2048, 16);
    let places = Arc::new(Places::new(512, 32));
    let api = Arc::new(api);
    let mut greetings = JoinSet::new();
    loop {
        let (stream, address) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    back_off(&error).await;
                    continue;
                }
            },
            Some(_) = greetings.join_next() => continue,
        };
        let Some(stranger) = strangers.take(&client_network(address.ip())) else {
            continue;
        };
        let server = server.clone();
        let (certificates, api) = (certificates.clone(), api.clone());
        let places = places.clone();
        greetings.spawn(async move {
            let greeting = authenticate(stream, address, &certificates, &api, &places);
            match timeout(GREETING, greeting).await {
                Ok(Ok(connection)) => {
                    drop(stranger);
                    let _ = server.send(connection).await;
                }
                Ok(Err(error)) => info!(%address, %error, "a client was turned away"),
                Err(_) => info!(%address, "a client did not say who it is"),
            }
        });
    }
}

/// Performs the TLS handshake, which identifies the client.
async fn authenticate(
    stream: TcpStream,
    address: SocketAddr,
    certificates: &Certificates,
    api: &Api,
    places: &Places<String>,
) -> io::Result<Connection> {
    let since = Instant::now();
    stream.set_nodelay(true)?;
    let Client {
        stream,
        names,
        mut believed,
    } = certificates.accept(stream).await?;
    let (role, name) = match api.role(&names.all) {
        Some((role, identity)) => (Some(role), identity.name.as_str()),
        None => (None, names.all.first().map_or("", |it| it.name.as_str())),
    };
    let peer = Peer {
        actor: format!("cert:{name}"),
        role,
        address: address.to_string(),
        since,
    };
    let place = places
        .take(&peer.actor)
        .ok_or_else(|| io::Error::other(format!("{} has too many connections", peer.actor)))?;
    let left = names.ends.duration_since(Timestamp::now());
    let left = Duration::try_from(left).unwrap_or_default();
    let ends = async move {
        tokio::select! {
            () = sleep(left) => {}
            _ = believed.changed() => {}
        }
    };
    Connection::begin(stream, peer, place, ends).await
}

/// The key by which unauthenticated clients share limits: an IPv4 address, or the /64 network of an
/// IPv6 address, because a host there can use any number of addresses.
fn client_network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into()
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// Waits after descriptors or memory have run out, so that open connections can end.
async fn back_off(error: &io::Error) {
    warn!(%error, "can't accept a connection");
    sleep(Duration::from_millis(100)).await;
}

// ── a connection ───────────────────────────────────────────────────────────────────────────────

/// The first bytes of an HTTP/2 client (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A connection, its peer, and the time at which the peer's identity expires.
struct Connection {
    stream: Pin<Box<dyn Stream>>,
    peer: Peer,
    /// Bytes that were read already and the server has not seen.
    unread: &'static [u8],
    ends: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    _place: Place<String>,
}

trait Stream: AsyncRead + AsyncWrite + Send {}

impl<S: AsyncRead + AsyncWrite + Send> Stream for S {}

impl Connection {
    /// Waits until the client begins to speak, because the server itself would wait without a
    /// limit.
    async fn begin(
        mut stream: impl Stream + Unpin + 'static,
        peer: Peer,
        place: Place<String>,
        ends: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<Self> {
        let mut preface = [0; PREFACE.len()];
        stream.read_exact(&mut preface).await?;
        if preface != PREFACE {
            return Err(io::Error::other("it does not speak HTTP/2"));
        }
        Ok(Self {
            stream: Box::pin(stream),
            peer,
            unread: PREFACE,
            ends: Some(Box::pin(ends)),
            _place: place,
        })
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let over = self
            .ends
            .as_mut()
            .is_none_or(|ends| ends.as_mut().poll(cx).is_ready());
        if over {
            self.ends = None;
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        if !self.unread.is_empty() {
            let count = self.unread.len().min(buffer.remaining());
            let (first, rest) = self.unread.split_at(count);
            buffer.put_slice(first);
            self.unread = rest;
            return Poll::Ready(Ok(()));
        }
        self.stream.as_mut().poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.stream.as_mut().poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_shutdown(cx)
    }
}
