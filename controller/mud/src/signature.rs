//! Whether a detached CMS signature (RFC 5652) is of a file's very bytes, by somebody whom the site trusts.
//!
//! It is judged before anything of the file is read. Every step has to hold; there is no switch to skip one.

use cms::{
    cert::CertificateChoices,
    content_info::ContentInfo,
    signed_data::{SignedData, SignerIdentifier, SignerInfo},
};
use der::{Decode as _, Encode as _, asn1::OctetString, oid::ObjectIdentifier};
use jiff::Timestamp;
use ring::digest::{Algorithm, SHA256, SHA384, SHA512, digest};
use x509_cert::{
    Certificate,
    ext::pkix::{KeyUsage, SubjectKeyIdentifier},
};

use crate::{
    anchors::Anchors,
    keys::{self, Hash},
    words::hex,
};

/// Most bytes of a signature.
pub const LARGEST_SIGNATURE: usize = 64 << 10;
/// Most certificates that a signature brings along.
const MOST_CERTIFICATES: usize = 8;

const SIGNED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.2");
const DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.1");
const CONTENT_TYPE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.3");
const MESSAGE_DIGEST: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.4");

/// Who has signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signer {
    /// The subject of the certificate.
    pub subject: String,
    /// The beginning of the SHA-256 of its public key, by which a change is noticed.
    pub key: String,
}

/// Verifies a signature over bytes at a time.
///
/// # Errors
/// Why it does not hold.
pub(crate) fn verify(
    bytes: &[u8],
    signature: &[u8],
    anchors: &Anchors,
    now: Timestamp,
) -> Result<Signer, String> {
    if anchors.is_empty() {
        return Err(
            "there is no trust store; name one in the configuration as mud.trust".to_owned(),
        );
    }
    let signed = read(signature)?;
    let mut certificates = Vec::new();
    for choice in signed.certificates.iter().flat_map(|it| it.0.iter()) {
        if let CertificateChoices::Certificate(certificate) = choice {
            certificates.push(certificate.clone());
        }
    }
    if certificates.len() > MOST_CERTIFICATES {
        return Err(format!("it has more than {MOST_CERTIFICATES} certificates"));
    }
    let [info] = signed.signer_infos.0.as_slice() else {
        let count = signed.signer_infos.0.len();
        return Err(format!("it has {count} signers; one is expected"));
    };
    let known = certificates.iter().chain(anchors.certificates());
    let mut signers = known.filter(|it| is_named(&info.sid, it));
    let signer = signers
        .next()
        .ok_or("the certificate of its signer is neither in it nor in the trust store")?;
    verify_bytes(bytes, info, signer)?;
    let usage = signer.tbs_certificate.get::<KeyUsage>();
    match usage {
        Ok(Some((_, usage))) if usage.digital_signature() => {}
        Ok(Some(_)) => return Err("its signer's key is not for signatures".to_owned()),
        Ok(None) | Err(_) => {
            return Err(
                "its signer's certificate does not say that its key is for signatures".to_owned(),
            );
        }
    }
    anchors.verify(signer, &certificates, now)?;
    let key = signer
        .tbs_certificate
        .subject_public_key_info
        .to_der()
        .map_err(|error| error.to_string())?;
    Ok(Signer {
        subject: signer.tbs_certificate.subject.to_string(),
        key: hex(&digest(&SHA256, &key).as_ref()[..16]),
    })
}

fn read(signature: &[u8]) -> Result<SignedData, String> {
    if signature.len() > LARGEST_SIGNATURE {
        return Err(format!("it has more than {LARGEST_SIGNATURE} bytes"));
    }
    let unreadable = |error: der::Error| {
        format!("it is no signature in the form CMS, DER (application/pkcs7-signature): {error}")
    };
    let info = ContentInfo::from_der(signature).map_err(unreadable)?;
    if info.content_type != SIGNED_DATA {
        return Err("it is CMS, but not signed data".to_owned());
    }
    let signed: SignedData = info.content.decode_as().map_err(unreadable)?;
    if signed.encap_content_info.econtent.is_some() {
        return Err("it carries a content of its own; a detached one is expected".to_owned());
    }
    if signed.encap_content_info.econtent_type != DATA {
        return Err("it is of something that is no plain data".to_owned());
    }
    Ok(signed)
}

fn is_named(sid: &SignerIdentifier, certificate: &Certificate) -> bool {
    let body = &certificate.tbs_certificate;
    match sid {
        SignerIdentifier::IssuerAndSerialNumber(it) => {
            it.issuer == body.issuer && it.serial_number == body.serial_number
        }
        SignerIdentifier::SubjectKeyIdentifier(it) => {
            let own = body.get::<SubjectKeyIdentifier>();
            own.is_ok_and(|own| own.is_some_and(|(_, own)| own == *it))
        }
    }
}

/// Verifies that the signer's key has signed these bytes.
fn verify_bytes(bytes: &[u8], info: &SignerInfo, signer: &Certificate) -> Result<(), String> {
    let hash = Hash::of_digest(info.digest_alg.oid).ok_or_else(|| {
        let oid = info.digest_alg.oid;
        format!("its digest {oid} is none of SHA-256, SHA-384 and SHA-512")
    })?;
    let algorithm: &Algorithm = match hash {
        Hash::Sha256 => &SHA256,
        Hash::Sha384 => &SHA384,
        Hash::Sha512 => &SHA512,
    };
    let over = match &info.signed_attrs {
        None => bytes.to_vec(),
        Some(attributes) => {
            let single = |oid: ObjectIdentifier| {
                let mut all = attributes.iter().filter(|it| it.oid == oid);
                match (all.next().map(|it| it.values.as_slice()), all.next()) {
                    (Some([value]), None) => Some(value),
                    _ => None,
                }
            };
            let content = single(CONTENT_TYPE).and_then(|it| it.decode_as().ok());
            if content != Some(DATA) {
                return Err("it does not say that plain data is signed".to_owned());
            }
            let told = single(MESSAGE_DIGEST).and_then(|it| it.decode_as::<OctetString>().ok());
            let own = digest(algorithm, bytes);
            if told.as_ref().map(OctetString::as_bytes) != Some(own.as_ref()) {
                return Err("the file is not the one that was signed".to_owned());
            }
            attributes.to_der().map_err(|error| error.to_string())?
        }
    };
    let key = &signer.tbs_certificate.subject_public_key_info;
    let scheme = keys::scheme(key, info.signature_algorithm.oid, Some(hash))?;
    keys::verify(key, scheme, &over, info.signature.as_bytes())
        .map_err(|()| "the file is not the one that was signed, or not by this key".to_owned())
}
