//! The connection to a router: its Unix socket, or TCP with mutual TLS.

use std::{fs, path::PathBuf, time::Duration};

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity, Uri};
use tower::service_fn;
use wardline_proto::v1::segmentation_client::SegmentationClient;

use crate::{
    args::Server,
    contexts::Target,
    exit::{Failure, cause},
};

/// The generated client on either kind of connection.
pub(crate) type Client = SegmentationClient<Channel>;

/// The largest message in either direction; a policy with the most devices is far smaller.
pub(crate) const LARGEST_MESSAGE: usize = 256 << 20;

/// Connects to a router.
///
/// # Errors
/// It can't be reached, or the certificates can't be read.
pub(crate) async fn connect(target: &Target) -> Result<Client, Failure> {
    let channel = match &target.server {
        Server::Unix(path) => unix(path.clone()).await.map_err(|error| {
            Failure::failed(format!(
                "can't reach unix://{}: {}",
                path.display(),
                cause(&error)
            ))
        })?,
        Server::Tls(uri) => {
            let endpoint = tls(uri, target)?;
            endpoint
                .connect()
                .await
                .map_err(|error| Failure::failed(format!("can't reach {uri}: {}", cause(&error))))?
        }
    };
    Ok(Client::new(channel)
        .max_decoding_message_size(LARGEST_MESSAGE)
        .max_encoding_message_size(LARGEST_MESSAGE))
}

async fn unix(path: PathBuf) -> Result<Channel, tonic::transport::Error> {
    // The connector has the socket's path; this address only provides the authority.
    let connector = service_fn(move |_: Uri| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    roomy(Endpoint::from_static("http://localhost"))
        .connect_with_connector(connector)
        .await
}

fn tls(uri: &Uri, target: &Target) -> Result<Endpoint, Failure> {
    let ca = Certificate::from_pem(pem(target.ca.as_ref())?);
    let cert = pem(target.cert.as_ref())?;
    let identity = Identity::from_pem(cert, pem(target.key.as_ref())?);
    let config = ClientTlsConfig::new().ca_certificate(ca).identity(identity);
    roomy(Endpoint::from(uri.clone()))
        .tls_config(config)
        .map_err(|error| Failure::failed(format!("can't use the certificates: {}", cause(&error))))
}

/// Allows for large headers, because a refusal lists every problem of a document there, and notices
/// a router that is gone even when no call is open.
fn roomy(endpoint: Endpoint) -> Endpoint {
    const LARGEST_HEADERS: u32 = 16 << 20;
    endpoint
        .http2_max_header_list_size(LARGEST_HEADERS)
        .http2_keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20))
}

fn pem(file: Option<&PathBuf>) -> Result<String, Failure> {
    let file = file.ok_or_else(|| Failure::failed("--ca, --cert and --key are needed"))?;
    fs::read_to_string(file)
        .map_err(|error| Failure::failed(format!("can't read {}: {error}", file.display())))
}
