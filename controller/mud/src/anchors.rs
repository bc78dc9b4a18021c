//! Whom the site trusts to sign MUD files, and whether a certificate goes back to one of them.
//!
//! It is a store of its own: who may vouch for a web site may not by that open a network.

use der::{Decode as _, Encode as _, oid::ObjectIdentifier};
use jiff::Timestamp;
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use x509_cert::{
    Certificate,
    ext::pkix::{BasicConstraints, KeyUsage},
};

use crate::keys;

/// Most certificates of a trust store.
const MOST_ANCHORS: usize = 256;
/// Most certificates between a signer and an anchor.
const LONGEST_CHAIN: usize = 3;

/// What a certificate may say and must then be understood: basic constraints, key usage, names, key
/// identifiers, extended key usage, policies.
const UNDERSTOOD: [ObjectIdentifier; 7] = [
    ObjectIdentifier::new_unwrap("2.5.29.19"),
    ObjectIdentifier::new_unwrap("2.5.29.15"),
    ObjectIdentifier::new_unwrap("2.5.29.17"),
    ObjectIdentifier::new_unwrap("2.5.29.14"),
    ObjectIdentifier::new_unwrap("2.5.29.35"),
    ObjectIdentifier::new_unwrap("2.5.29.37"),
    ObjectIdentifier::new_unwrap("2.5.29.32"),
];
/// Restricts which names an authority may vouch for; not understood, so it is never passed over.
const NAME_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.30");

/// Certificates that are trusted.
#[derive(Clone, Debug, Default)]
pub struct Anchors(Vec<Certificate>);

impl Anchors {
    /// Reads certificates in PEM.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn from_pem(text: &[u8]) -> Result<Self, String> {
        let mut certificates = Vec::new();
        for read in CertificateDer::pem_slice_iter(text) {
            let bytes = read.map_err(|error| format!("no certificates in PEM: {error}"))?;
            let certificate = Certificate::from_der(&bytes);
            certificates.push(certificate.map_err(|error| format!("no certificate: {error}"))?);
        }
        if certificates.is_empty() {
            return Err(
                "it has no certificate; put those of the makers into it, in PEM".to_owned(),
            );
        }
        if certificates.len() > MOST_ANCHORS {
            return Err(format!("it has more than {MOST_ANCHORS} certificates"));
        }
        Ok(Self(certificates))
    }

    /// When the last of them begins to be good; none: there are none.
    pub fn begins(&self) -> Option<Timestamp> {
        let begins = self.0.iter().map(|it| {
            let seconds = it
                .tbs_certificate
                .validity
                .not_before
                .to_unix_duration()
                .as_secs();
            Timestamp::from_second(i64::try_from(seconds).unwrap_or(i64::MAX))
                .unwrap_or(Timestamp::MAX)
        });
        begins.max()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn certificates(&self) -> impl Iterator<Item = &Certificate> {
        self.0.iter()
    }

    /// Checks that a certificate is one of these or goes back to one, by others that are at hand, and that
    /// each on the way is good at a time.
    ///
    /// # Errors
    /// Why not, of the way that goes furthest.
    pub(crate) fn verify(
        &self,
        certificate: &Certificate,
        others: &[Certificate],
        now: Timestamp,
    ) -> Result<(), String> {
        self.verify_from(certificate, others, now, 0)
    }

    fn verify_from(
        &self,
        certificate: &Certificate,
        others: &[Certificate],
        now: Timestamp,
        below: usize,
    ) -> Result<(), String> {
        is_good(certificate, now)?;
        if self.0.contains(certificate) {
            return Ok(());
        }
        if below > LONGEST_CHAIN {
            return Err(format!(
                "more than {LONGEST_CHAIN} authorities between signer and trust store"
            ));
        }
        let name = &certificate.tbs_certificate.issuer;
        let is_issuer = |it: &&Certificate| it.tbs_certificate.subject == *name;
        let mut why = format!("{name} is not in the trust store");
        for issuer in self.0.iter().chain(others).filter(is_issuer) {
            if issuer == certificate {
                continue;
            }
            let led = may_issue(issuer, below)
                .and_then(|()| has_signed(issuer, certificate))
                .and_then(|()| self.verify_from(issuer, others, now, below + 1));
            match led {
                Ok(()) => return Ok(()),
                Err(reason) => why = reason,
            }
        }
        Err(why)
    }
}

/// Checks what a certificate says of itself: when it is good, and that all of it is understood.
fn is_good(certificate: &Certificate, now: Timestamp) -> Result<(), String> {
    let body = &certificate.tbs_certificate;
    let subject = &body.subject;
    let now = u64::try_from(now.as_second()).unwrap_or_default();
    let begins = body.validity.not_before.to_unix_duration().as_secs();
    let ends = body.validity.not_after.to_unix_duration().as_secs();
    let (first, last) = (body.validity.not_before, body.validity.not_after);
    if now < begins {
        return Err(format!(
            "the certificate of {subject} is good only from {first} on"
        ));
    }
    if now > ends {
        return Err(format!("the certificate of {subject} has ended on {last}"));
    }
    for extension in body.extensions.iter().flatten() {
        let id = extension.extn_id;
        if id == NAME_CONSTRAINTS || extension.critical && !UNDERSTOOD.contains(&id) {
            return Err(format!(
                "the certificate of {subject} has a condition that is not understood: {id}"
            ));
        }
    }
    Ok(())
}

/// Checks that a certificate is an authority's, with so many authorities below it.
fn may_issue(issuer: &Certificate, below: usize) -> Result<(), String> {
    let body = &issuer.tbs_certificate;
    let subject = &body.subject;
    let no_authority = || Err(format!("the certificate of {subject} is no authority's"));
    match body.get::<BasicConstraints>() {
        Ok(Some((_, it))) if it.ca => {
            let most = it.path_len_constraint;
            if most.is_some_and(|most| below > usize::from(most)) {
                return Err(format!(
                    "{subject} may not have as many authorities below it"
                ));
            }
        }
        _ => return no_authority(),
    }
    match body.get::<KeyUsage>() {
        Ok(None) => Ok(()),
        Ok(Some((_, usage))) if usage.key_cert_sign() => Ok(()),
        _ => no_authority(),
    }
}

fn has_signed(issuer: &Certificate, certificate: &Certificate) -> Result<(), String> {
    let subject = &certificate.tbs_certificate.subject;
    let wrong = |why: &str| Err(format!("the certificate of {subject}: {why}"));
    if certificate.signature_algorithm != certificate.tbs_certificate.signature {
        return wrong("it names two kinds of signature");
    }
    let key = &issuer.tbs_certificate.subject_public_key_info;
    let scheme = match keys::scheme(key, certificate.signature_algorithm.oid, None) {
        Ok(scheme) => scheme,
        Err(why) => return wrong(&why),
    };
    let (Ok(over), Some(signature)) = (
        certificate.tbs_certificate.to_der(),
        certificate.signature.as_bytes(),
    ) else {
        return wrong("it can't be read");
    };
    match keys::verify(key, scheme, &over, signature) {
        Ok(()) => Ok(()),
        Err(()) => wrong("its signature is not by the authority that it names"),
    }
}
