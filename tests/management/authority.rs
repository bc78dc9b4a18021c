//! Certificates for tests: the authorities that sign them, and what each certificate says.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

/// An authority that signs certificates.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate, PEM.
    pub(crate) pem: String,
}

/// A certificate and its key, PEM.
#[derive(Clone)]
pub(crate) struct Signed {
    pub(crate) cert: String,
    pub(crate) key: String,
}

/// What a certificate is good for.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    Server,
    Client,
    Expired,
    NotYet,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        Self { issuer, pem }
    }

    /// A certificate with a common name and alternative names: `spiffe://…`, `a@b`, or a host.
    pub(crate) fn sign(&self, kind: Kind, common: &str, names: &[&str]) -> Signed {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, common);
        let text = |name: &str| name.try_into().unwrap();
        let alternative = |name: &&str| match name.parse() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) if name.contains("://") => SanType::URI(text(name)),
            Err(_) if name.contains('@') => SanType::Rfc822Name(text(name)),
            Err(_) => SanType::DnsName(text(name)),
        };
        params.subject_alt_names = names.iter().map(alternative).collect();
        params.extended_key_usages = vec![match kind {
            Kind::Server => ExtendedKeyUsagePurpose::ServerAuth,
            Kind::Client | Kind::Expired | Kind::NotYet => ExtendedKeyUsagePurpose::ClientAuth,
        }];
        let (from, to) = match kind {
            Kind::Server | Kind::Client => (2020, 2120),
            Kind::Expired => (2020, 2021),
            Kind::NotYet => (2119, 2120),
        };
        params.not_before = date_time_ymd(from, 1, 1);
        params.not_after = date_time_ymd(to, 1, 1);
        let key = KeyPair::generate().unwrap();
        Signed {
            cert: params.signed_by(&key, &self.issuer).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }
}

impl Signed {
    /// The TLS settings of a client that trusts `authority` and shows this certificate.
    pub(crate) fn shown_to(&self, authority: &Authority) -> ClientTlsConfig {
        believing(authority).identity(Identity::from_pem(&self.cert, &self.key))
    }

    /// Writes both files, each atomically.
    pub(crate) fn write(&self, cert: &Path, key: &Path) {
        replace(cert, &self.cert);
        replace(key, &self.key);
    }
}

/// The TLS settings of a client without a certificate.
pub(crate) fn believing(authority: &Authority) -> ClientTlsConfig {
    ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&authority.pem))
}

/// Replaces a file atomically.
pub(crate) fn replace(path: &Path, text: &str) {
    let next: PathBuf = path.with_extension("next");
    fs::write(&next, text).unwrap();
    fs::rename(next, path).unwrap();
}
