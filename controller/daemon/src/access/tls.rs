//! Mutual TLS: the router's certificate, the authorities of clients, and the names of a client.
//!
//! The three files are read again every few seconds. A valid set replaces the one in use; an
//! invalid one (a key that does not belong to the certificate, half a file) is logged and tried
//! again.

use std::{io, net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy, sink},
    net::TcpStream,
    sync::watch,
    time::timeout,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self, RootCertStore, ServerConfig,
        crypto::ring,
        pki_types::{
            CertificateDer, PrivateKeyDer,
            pem::{self, PemObject as _},
        },
        server::{VerifierBuilderError, WebPkiClientVerifier},
        version,
    },
    server::TlsStream,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use x509_parser::prelude::{FromDer as _, GeneralName, ParsedExtension, X509Certificate};

use wardline_proto::letters::steers;

use crate::config::{
    ConfigError, Tls, TlsFiles,
    identity::{Identity, Kind},
};

/// How often the files are read.
const LOOK: Duration = Duration::from_secs(2);

/// Why certificates can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be read.
    #[error(transparent)]
    Read(#[from] ConfigError),
    /// A file does not hold what it should.
    #[error("{}: {why}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

/// The router's certificate and the authorities of clients, as its files have them.
#[derive(Clone, Debug)]
pub struct Certificates {
    places: Tls,
    in_use: watch::Sender<Loaded>,
}

#[derive(Clone, Debug)]
struct Loaded {
    files: TlsFiles,
    config: Arc<ServerConfig>,
    /// When the router's own certificate ends.
    ends: Timestamp,
    /// Signals to connections that another set of authorities has replaced this one.
    believed: watch::Sender<()>,
}

/// The names in a client's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// Subject alternative names, then common names.
    pub all: Vec<Identity>,
    /// When the certificate ends.
    pub ends: Timestamp,
}

/// A client whose certificate was accepted.
pub struct Client {
    /// The connection.
    pub stream: TlsStream<TcpStream>,
    /// The names in its certificate.
    pub names: Names,
    /// Changes when the authorities have been replaced since the handshake.
    pub believed: watch::Receiver<()>,
}

impl Certificates {
    /// Reads the files.
    ///
    /// # Errors
    /// When one can't be read, or they do not fit each other.
    pub fn load(places: &Tls) -> Result<Self, TlsError> {
        let loaded = Loaded::new(places, places.read()?, watch::Sender::default())?;
        Ok(Self {
            places: places.clone(),
            in_use: watch::Sender::new(loaded),
        })
    }

    /// Performs the TLS handshake, in which both sides show their certificates.
    ///
    /// # Errors
    /// When the handshake fails, or the client shows no certificate that is accepted.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<Client> {
        let (config, believed) = {
            let loaded = self.in_use.borrow();
            (loaded.config.clone(), loaded.believed.subscribe())
        };
        let accepted = TlsAcceptor::from(config).accept(stream).into_fallible();
        let stream = match accepted.await {
            Ok(stream) => stream,
            Err((error, stream)) => {
                say_why(stream).await;
                return Err(error);
            }
        };
        let certificate = stream
            .get_ref()
            .1
            .peer_certificates()
            .and_then(<[_]>::first);
        let names = certificate.and_then(|certificate| Names::of(certificate));
        let names = names.ok_or_else(|| io::Error::other("the certificate can't be read"))?;
        Ok(Client {
            stream,
            names,
            believed,
        })
    }

    /// When the router's own certificate ends.
    pub fn end(&self) -> Timestamp {
        self.in_use.borrow().ends
    }

    /// Reads the files again and again until told to stop.
    pub async fn follow(self, stop: CancellationToken) {
        let mut told = String::new();
        let mut clock = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = clock.tick() => {}
            }
            let complaint = match self.look() {
                Ok(()) => String::new(),
                Err(error) => error.to_string(),
            };
            if !complaint.is_empty() && complaint != told {
                complain(&complaint);
            }
            told = complaint;
        }
    }

    /// Reads the files again now.
    pub fn reload(&self) {
        if let Err(error) = self.look() {
            complain(&error.to_string());
        }
    }

    /// Uses the files if they have changed.
    fn look(&self) -> Result<(), TlsError> {
        let files = self.places.read()?;
        let before = self.in_use.borrow().clone();
        if files == before.files {
            return Ok(());
        }
        let same_clients = files.client_ca == before.files.client_ca;
        let believed = if same_clients {
            before.believed.clone()
        } else {
            watch::Sender::default()
        };
        self.in_use
            .send_replace(Loaded::new(&self.places, files, believed)?);
        if !same_clients {
            // Clients that are connected must prove their identity again.
            before.believed.send_replace(());
        }
        info!(clients = !same_clients, "certificates are read anew");
        Ok(())
    }
}

fn complain(error: &str) {
    warn!(error, "new certificates are no good; those before stay");
}

impl Loaded {
    fn new(places: &Tls, files: TlsFiles, believed: watch::Sender<()>) -> Result<Self, TlsError> {
        let wrong = |path: &PathBuf, why: String| TlsError::Content {
            path: path.clone(),
            why,
        };
        let certificates = |path, bytes| {
            let read: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(bytes).collect();
            match read {
                Ok(none) if none.is_empty() => Err(wrong(path, "holds no certificate".to_owned())),
                Ok(certificates) => Ok(certificates),
                Err(error) => Err(wrong(path, format!("not PEM: {error}"))),
            }
        };
        let chain = certificates(&places.cert, &files.cert)?;
        let ends = chain.first().and_then(Names::of).map(|names| names.ends);
        let ends = ends.ok_or_else(|| wrong(&places.cert, "not a certificate".to_owned()))?;
        let key = PrivateKeyDer::from_pem_slice(&files.key)
            .map_err(|error| wrong(&places.key, format!("holds no private key: {error}")))?;
        let mut roots = RootCertStore::empty();
        for root in certificates(&places.client_ca, &files.client_ca)? {
            roots
                .add(root)
                .map_err(|error| wrong(&places.client_ca, error.to_string()))?;
        }
        let provider = Arc::new(ring::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                .build()
                .map_err(|error: VerifierBuilderError| {
                    wrong(&places.client_ca, error.to_string())
                })?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&version::TLS13])
            .map_err(|error| wrong(&places.cert, error.to_string()))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .map_err(|error| wrong(&places.key, unfit(&error)))?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        // A client would not show its certificate again in a resumed session.
        config.send_tls13_tickets = 0;
        Ok(Self {
            files,
            config: Arc::new(config),
            ends,
            believed,
        })
    }
}

/// Waits so that the alert arrives: closing a socket with unread data discards what was sent, and
/// the client would not learn why its certificate was refused.
async fn say_why(mut stream: TcpStream) {
    const LONGEST: Duration = Duration::from_secs(1);
    const MOST: u64 = 64 << 10;
    let _ = stream.shutdown().await;
    let mut rest = stream.take(MOST);
    let _ = timeout(LONGEST, copy(&mut rest, &mut sink())).await;
}

fn unfit(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InconsistentKeys(_) => "not the key of api.tls.cert".to_owned(),
        other => other.to_string(),
    }
}

impl Names {
    /// The names in a certificate that is well-formed.
    fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        let common = certificate.subject().iter_common_name();
        let common = common.filter_map(|name| Some(identity(Kind::Cn, name.as_str().ok()?)));
        let alternative = certificate
            .iter_extensions()
            .filter_map(|extension| match extension.parsed_extension() {
                ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
                _ => None,
            })
            .flatten()
            .filter_map(alternative_name);
        // Ignored are names that could steer a terminal or hide their end, and names that stand for
        // many, because a client is one.
        let odd = |letter: char| steers(letter) || letter == '*';
        let whole = |it: &Identity| !it.name.is_empty() && !it.name.contains(odd);
        Some(Self {
            all: alternative.chain(common).filter(whole).collect(),
            ends: Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()?,
        })
    }
}

/// Names of other kinds can't be given a role.
fn alternative_name(name: &GeneralName<'_>) -> Option<Identity> {
    let (kind, name) = match name {
        GeneralName::URI(name) => (Kind::Uri, *name),
        GeneralName::DNSName(name) => (Kind::Dns, *name),
        GeneralName::RFC822Name(name) => (Kind::Email, *name),
        GeneralName::IPAddress(bytes) => {
            let address = match bytes.len() {
                4 => IpAddr::from(<[u8; 4]>::try_from(*bytes).ok()?),
                16 => IpAddr::from(<[u8; 16]>::try_from(*bytes).ok()?),
                _ => return None,
            };
            return Some(identity(Kind::Ip, &address.to_string()));
        }
        _ => return None,
    };
    Some(identity(kind, name))
}

fn identity(kind: Kind, name: &str) -> Identity {
    let name = name.to_owned();
    Identity { kind, name }
}
