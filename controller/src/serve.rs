//! How clients get in: the Unix socket, and the server behind it.
//!
//! The Unix socket is for local clients; the kernel says who they are.

use std::{
    convert::Infallible,
    io,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{UnixListener, UnixStream},
    sync::watch,
};
use tokio_stream::{StreamExt as _, wrappers::UnixListenerStream};
use tonic::transport::{Server, server::Connected};
use wardline_proto::{DESCRIPTOR_SET, v1::segmentation_server::SegmentationServer};

use crate::{api::Service, config::Role, gate, roles::Peer};

/// Bytes that one message may have: a policy of a hundred thousand devices has about 20 MB.
pub const LARGEST_MESSAGE: usize = 64 << 20;

/// Why there is no API.
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
    /// Reflection has no descriptors.
    #[error("reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The server ended.
    #[error("the server ended: {0}")]
    Server(#[from] tonic::transport::Error),
}

/// Serves on a Unix socket until told to stop.
///
/// # Errors
///
/// When the socket can't be made, or another daemon answers on it.
pub async fn serve(
    service: Service,
    socket: &Path,
    mut stop: watch::Receiver<bool>,
) -> Result<(), ServeError> {
    let listener = listen(socket).await.map_err(|source| ServeError::Socket {
        path: socket.display().to_string(),
        source,
    })?;
    let incoming = UnixListenerStream::new(listener)
        .filter_map(Result::ok)
        .map(|stream| Ok::<_, Infallible>(Connection::local(stream)));
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<SegmentationServer<Service>>().await;
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let segmentation = SegmentationServer::new(service)
        .max_decoding_message_size(LARGEST_MESSAGE)
        .max_encoding_message_size(LARGEST_MESSAGE);
    Server::builder()
        .layer(gate::layer())
        .add_service(health_service)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?)
        .add_service(segmentation)
        .serve_with_incoming_shutdown(incoming, async move {
            // An error means that who would stop us is gone.
            let _ = stop.wait_for(|stop| *stop).await;
        })
        .await?;
    // The next daemon may have made it again.
    let _ = std::fs::remove_file(socket);
    Ok(())
}

/// Whether a daemon answers on a socket.
pub async fn is_served(socket: &Path) -> bool {
    UnixStream::connect(socket).await.is_ok()
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

/// A connection and who is at its other end.
struct Connection {
    stream: UnixStream,
    peer: Option<Peer>,
}

impl Connection {
    /// Of the Unix socket: the kernel says whose process it was that connected.
    fn local(stream: UnixStream) -> Self {
        let peer = stream.peer_cred().ok().map(|peer| Peer {
            actor: format!("uid:{}", peer.uid()),
            role: (peer.uid() == 0).then_some(Role::Admin),
            address: peer
                .pid()
                .map_or_else(|| "unix".to_owned(), |pid| format!("unix:{pid}")),
            since: Instant::now(),
        });
        Self { stream, peer }
    }
}

impl Connected for Connection {
    type ConnectInfo = Option<Peer>;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
