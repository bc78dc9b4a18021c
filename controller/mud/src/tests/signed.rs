//! Signatures: what holds, and each way in which one does not.

use cms::{
    cert::{CertificateChoices, IssuerAndSerialNumber},
    content_info::{CmsVersion, ContentInfo},
    signed_data::{
        CertificateSet, EncapsulatedContentInfo, SignedData, SignerIdentifier, SignerInfo,
        SignerInfos,
    },
};
use der::{
    Decode as _, Encode as _,
    asn1::{Any, OctetString, SetOfVec},
    oid::ObjectIdentifier,
};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose,
    SigningKey as _, date_time_ymd,
};
use ring::digest::{SHA256, digest};
use x509_cert::{Certificate, attr::Attribute, spki::AlgorithmIdentifierOwned};

use super::*;
use crate::Trust;

fn oid(text: &str) -> ObjectIdentifier {
    ObjectIdentifier::new_unwrap(text)
}

fn algorithm(text: &str) -> AlgorithmIdentifierOwned {
    AlgorithmIdentifierOwned {
        oid: oid(text),
        parameters: None,
    }
}

type Authority = CertifiedIssuer<'static, KeyPair>;

/// An authority that is good from 2020 until the end of a year.
fn authority(name: &str, until: i32) -> Authority {
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(until, 12, 31);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

struct Signing {
    certificate: Certificate,
    key: KeyPair,
}

/// A signer that an authority vouches for.
fn signer(authority: &Authority, usages: &[KeyUsagePurpose]) -> Signing {
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, "signer");
    params.key_usages = usages.to_vec();
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2040, 1, 1);
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, authority).unwrap();
    Signing {
        certificate: Certificate::from_der(certificate.der()).unwrap(),
        key,
    }
}

/// A detached signature, as OpenSSL makes it.
fn sign(bytes: &[u8], signing: &Signing) -> Vec<u8> {
    let value = |it: Any| SetOfVec::try_from(vec![it]).unwrap();
    let attribute = |id: &str, it: Any| Attribute {
        oid: oid(id),
        values: value(it),
    };
    let hash = OctetString::new(digest(&SHA256, bytes).as_ref()).unwrap();
    let data = oid("1.2.840.113549.1.7.1");
    let attributes = SetOfVec::try_from(vec![
        attribute("1.2.840.113549.1.9.3", Any::encode_from(&data).unwrap()),
        attribute("1.2.840.113549.1.9.4", Any::encode_from(&hash).unwrap()),
    ])
    .unwrap();
    let signature = signing.key.sign(&attributes.to_der().unwrap()).unwrap();
    let body = &signing.certificate.tbs_certificate;
    let info = SignerInfo {
        version: CmsVersion::V1,
        sid: SignerIdentifier::IssuerAndSerialNumber(IssuerAndSerialNumber {
            issuer: body.issuer.clone(),
            serial_number: body.serial_number.clone(),
        }),
        digest_alg: algorithm("2.16.840.1.101.3.4.2.1"),
        signed_attrs: Some(attributes),
        signature_algorithm: algorithm("1.2.840.10045.4.3.2"),
        signature: OctetString::new(signature).unwrap(),
        unsigned_attrs: None,
    };
    let certificate = CertificateChoices::Certificate(signing.certificate.clone());
    let signed = SignedData {
        version: CmsVersion::V1,
        digest_algorithms: SetOfVec::try_from(vec![algorithm("2.16.840.1.101.3.4.2.1")]).unwrap(),
        encap_content_info: EncapsulatedContentInfo {
            econtent_type: data,
            econtent: None,
        },
        certificates: Some(CertificateSet(
            SetOfVec::try_from(vec![certificate]).unwrap(),
        )),
        crls: None,
        signer_infos: SignerInfos(SetOfVec::try_from(vec![info]).unwrap()),
    };
    let info = ContentInfo {
        content_type: oid("1.2.840.113549.1.7.2"),
        content: Any::encode_from(&signed).unwrap(),
    };
    info.to_der().unwrap()
}

fn judged(
    bytes: &[u8],
    signature: &[u8],
    authorities: &[&Authority],
    year: &str,
    approved: bool,
) -> Imported {
    let pem: String = authorities.iter().map(|it| it.pem()).collect();
    let anchors = match authorities {
        [] => Anchors::default(),
        _ => Anchors::from_pem(pem.as_bytes()).unwrap(),
    };
    let subject = Subject::Device("bulb-1".to_owned());
    import(&Request {
        file: bytes,
        signature,
        anchors: &anchors,
        now: format!("{year}-06-01T00:00:00Z").parse().unwrap(),
        subject: Some(&subject),
        is_approved: approved,
        document: &site(),
        router_is: &[],
    })
    .unwrap()
}

#[test]
fn a_signature_holds_for_these_bytes_at_this_time_by_whom_the_site_trusts() {
    let (ours, other) = (authority("ours", 2030), authority("other", 2030));
    let signing = signer(&ours, &[KeyUsagePurpose::DigitalSignature]);
    let bytes = file(&[ace("x", tcp(json!({"local-networks": [null]}), 80))], &[]).to_string();
    let signature = sign(bytes.as_bytes(), &signing);
    let told = judged(
        bytes.as_bytes(),
        &signature,
        &[&other, &ours],
        "2026",
        false,
    );
    assert_eq!(told.trust, Trust::Verified, "{}", told.why);
    assert_eq!(rule(&told, "x").labels["mud-trust"], "verified");
    assert_eq!(told.signer.as_ref().unwrap().subject, "CN=signer");
    // A byte that changes nothing of what the file means.
    let changed = bytes.clone() + " ";
    for (bytes, authorities, year, says) in [
        (
            &changed,
            &[&ours][..],
            "2026",
            "not the one that was signed",
        ),
        (&bytes, &[&other], "2026", "not in the trust store"),
        (&bytes, &[], "2026", "no trust store"),
        (&bytes, &[&ours], "2031", "has ended"),
        (&bytes, &[&ours], "2019", "good only from"),
    ] {
        // Nobody can approve of a signature that does not hold.
        let told = judged(bytes.as_bytes(), &signature, authorities, year, true);
        assert_eq!(told.trust, Trust::Refused);
        assert!(told.why.contains(says), "{}", told.why);
        assert!(told.put.rules.is_empty() && told.url.is_empty());
    }
}

#[test]
fn a_key_that_is_for_something_else_signs_nothing() {
    let ours = authority("ours", 2030);
    for usages in [&[][..], &[KeyUsagePurpose::KeyEncipherment]] {
        let signing = signer(&ours, usages);
        let signature = sign(b"{}", &signing);
        let told = judged(b"{}", &signature, &[&ours], "2026", false);
        assert_eq!(told.trust, Trust::Refused);
        assert!(told.why.contains("for signatures"), "{}", told.why);
    }
    // Somebody whom the authority has signed is no authority.
    let signing = signer(&ours, &[KeyUsagePurpose::DigitalSignature]);
    let params = signing.certificate.clone();
    let mut pretended = CertificateParams::default();
    pretended
        .distinguished_name
        .push(rcgen::DnType::CommonName, "signer");
    let pretended = CertifiedIssuer::self_signed(pretended, signing.key).unwrap();
    let mut below = signer(&pretended, &[KeyUsagePurpose::DigitalSignature]);
    below.certificate.tbs_certificate.issuer = params.tbs_certificate.subject;
    let told = judged(b"{}", &sign(b"{}", &below), &[&ours], "2026", false);
    assert_eq!(told.trust, Trust::Refused, "{}", told.why);
}

#[test]
fn a_signature_is_refused_in_each_place_where_it_is_changed() {
    let ours = authority("ours", 2030);
    let signing = signer(&ours, &[KeyUsagePurpose::DigitalSignature]);
    let signature = sign(b"{}", &signing);
    let pem = ours.pem();
    let anchors = Anchors::from_pem(pem.as_bytes()).unwrap();
    let now = "2026-06-01T00:00:00Z".parse().unwrap();
    let holds =
        |signature: &[u8]| crate::signature::verify(b"{}", signature, &anchors, now).is_ok();
    assert!(holds(&signature));
    let mut held = Vec::new();
    for at in 0..signature.len() {
        let mut changed = signature.clone();
        changed[at] ^= 1;
        if holds(&changed) {
            held.push(at);
        }
        assert!(!holds(&signature[..at]));
    }
    // What is not covered: the list of digests before the content, which says nothing.
    assert!(held.len() <= 16, "{held:?}");
}

#[test]
fn another_key_than_before_waits_for_a_person() {
    let ours = authority("ours", 2030);
    let bytes = file(&[ace("x", tcp(json!({"local-networks": [null]}), 80))], &[]).to_string();
    let by = |signing: &Signing| sign(bytes.as_bytes(), signing);
    let usages = [KeyUsagePurpose::DigitalSignature];
    let (one, two) = (signer(&ours, &usages), signer(&ours, &usages));
    let first = judged(bytes.as_bytes(), &by(&one), &[&ours], "2026", false);
    let mut document = site();
    document.rules = first.put.rules;
    let anchors = Anchors::from_pem(ours.pem().as_bytes()).unwrap();
    let again = |signing: &Signing, approved: bool| {
        let told = import(&Request {
            file: bytes.as_bytes(),
            signature: &by(signing),
            anchors: &anchors,
            now: "2026-06-01T00:00:00Z".parse().unwrap(),
            subject: None,
            is_approved: approved,
            document: &document,
            router_is: &[],
        });
        told.unwrap().trust
    };
    assert_eq!(again(&one, false), Trust::Verified);
    assert_eq!(again(&two, false), Trust::Unsigned);
    assert_eq!(again(&two, true), Trust::Approved);
}
