//! Which keys and algorithms of signatures are good enough: ECDSA on P-256 and P-384, RSA of 2048 bits and
//! more, with SHA-256 and more.

use der::{asn1::Any, oid::ObjectIdentifier};
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA384_ASN1, ECDSA_P384_SHA256_ASN1, ECDSA_P384_SHA384_ASN1,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512,
    UnparsedPublicKey, VerificationAlgorithm,
};
use x509_cert::spki::SubjectPublicKeyInfoOwned;

const fn oid(text: &str) -> ObjectIdentifier {
    ObjectIdentifier::new_unwrap(text)
}

const EC: ObjectIdentifier = oid("1.2.840.10045.2.1");
const P256: ObjectIdentifier = oid("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = oid("1.3.132.0.34");
const RSA: ObjectIdentifier = oid("1.2.840.113549.1.1.1");

/// The hash that is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

impl Hash {
    /// By the identifier of a digest.
    pub(crate) fn of_digest(id: ObjectIdentifier) -> Option<Self> {
        Some(match id {
            _ if id == oid("2.16.840.1.101.3.4.2.1") => Self::Sha256,
            _ if id == oid("2.16.840.1.101.3.4.2.2") => Self::Sha384,
            _ if id == oid("2.16.840.1.101.3.4.2.3") => Self::Sha512,
            _ => return None,
        })
    }

    /// By the identifier of a signature with the hash: ECDSA, or RSA (PKCS #1 v1.5).
    fn of_signature(id: ObjectIdentifier) -> Option<(ObjectIdentifier, Self)> {
        Some(match id {
            _ if id == oid("1.2.840.10045.4.3.2") => (EC, Self::Sha256),
            _ if id == oid("1.2.840.10045.4.3.3") => (EC, Self::Sha384),
            _ if id == oid("1.2.840.10045.4.3.4") => (EC, Self::Sha512),
            _ if id == oid("1.2.840.113549.1.1.11") => (RSA, Self::Sha256),
            _ if id == oid("1.2.840.113549.1.1.12") => (RSA, Self::Sha384),
            _ if id == oid("1.2.840.113549.1.1.13") => (RSA, Self::Sha512),
            _ => return None,
        })
    }
}

/// How a signature by this key is verified. Where a message names its hash beside, as CMS does, the two
/// must agree; there the signature may be named by the kind of the key alone.
///
/// # Errors
/// Why it is not good enough.
pub(crate) fn scheme(
    key: &SubjectPublicKeyInfoOwned,
    signature: ObjectIdentifier,
    beside: Option<Hash>,
) -> Result<&'static dyn VerificationAlgorithm, String> {
    let (kind, hash) = match (Hash::of_signature(signature), beside) {
        (Some((kind, hash)), None) => (kind, hash),
        (Some((kind, hash)), Some(beside)) if hash == beside => (kind, hash),
        (Some(_), Some(_)) => return Err("it names two hashes".to_owned()),
        (None, Some(hash)) if signature == RSA || signature == EC => (signature, hash),
        (None, _) => return Err(format!("the kind of signature {signature} is not accepted")),
    };
    if key.algorithm.oid != kind {
        return Err("the key is not of the signature's kind".to_owned());
    }
    let curve = key.algorithm.parameters.as_ref();
    let curve = curve.and_then(|it: &Any| it.decode_as::<ObjectIdentifier>().ok());
    Ok(match (kind == RSA, curve, hash) {
        (true, _, Hash::Sha256) => &RSA_PKCS1_2048_8192_SHA256,
        (true, _, Hash::Sha384) => &RSA_PKCS1_2048_8192_SHA384,
        (true, _, Hash::Sha512) => &RSA_PKCS1_2048_8192_SHA512,
        (false, Some(P256), Hash::Sha256) => &ECDSA_P256_SHA256_ASN1,
        (false, Some(P256), Hash::Sha384) => &ECDSA_P256_SHA384_ASN1,
        (false, Some(P384), Hash::Sha256) => &ECDSA_P384_SHA256_ASN1,
        (false, Some(P384), Hash::Sha384) => &ECDSA_P384_SHA384_ASN1,
        _ => {
            return Err(
                "the key is neither on P-256 or P-384 with SHA-256 or SHA-384, nor RSA".to_owned(),
            );
        }
    })
}

/// Verifies a signature. An RSA key of less than 2048 bits does not verify.
pub(crate) fn verify(
    key: &SubjectPublicKeyInfoOwned,
    scheme: &'static dyn VerificationAlgorithm,
    over: &[u8],
    signature: &[u8],
) -> Result<(), ()> {
    let bytes = key.subject_public_key.as_bytes().ok_or(())?;
    let key = UnparsedPublicKey::new(scheme, bytes);
    key.verify(over, signature).map_err(drop)
}
