//! MUD files and signatures of somebody who means harm.

use wardline_mud::{Anchors, Request, import};
use wardline_proto::v1::{Policy, Zone};

const SIGNED: &[u8] = include_bytes!("../../management/mud/lamp.json");
const SIGNATURE: &[u8] = include_bytes!("../../management/mud/lamp.p7s");
const MAKERS: &[u8] = include_bytes!("../../management/mud/makers.pem");

/// Imports what is in the input: the length of a signature, the signature, the file.
///
/// # Panics
/// When what comes of it is nothing that a document may have.
pub fn mud(data: &[u8]) {
    let [high, low, rest @ ..] = data else {
        return;
    };
    let length = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
    let (signature, file) = rest.split_at(length);
    let anchors = Anchors::from_pem(MAKERS).expect("certificates");
    let document = Policy {
        version: 1,
        zones: vec![Zone {
            name: "bulbs".to_owned(),
            subnets: vec!["10.1.0.0/16".to_owned(), "fd00::/64".to_owned()],
            ..Zone::default()
        }],
        ..Policy::default()
    };
    let imported = import(&Request {
        file,
        signature,
        anchors: &anchors,
        now: "2030-01-01T00:00:00Z".parse().expect("a time"),
        subject: None,
        is_approved: true,
        document: &document,
        router_is: &["urn:ietf:params:mud:dns".to_owned()],
    });
    let Ok(imported) = imported else {
        return;
    };
    assert!(imported.trust.suffices() || imported.put.rules.is_empty());
    if !signature.is_empty() && imported.trust.suffices() {
        assert!(file == SIGNED, "another file than the one that was signed");
    }
    for rule in &imported.put.rules {
        let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        assert!(
            rule.name.len() <= 63 && rule.name.chars().all(fits),
            "{rule:?}"
        );
        assert!(
            rule.description.chars().all(|c| !c.is_control()),
            "{rule:?}"
        );
        assert!(rule.labels.values().all(|it| it.len() <= 63), "{rule:?}");
        assert!(!rule.services.is_empty() && !rule.from.is_empty() && !rule.to.is_empty());
    }
    for ace in &imported.aces {
        assert!(!ace.rules.is_empty() || !ace.reason.is_empty(), "{ace:?}");
    }
}

/// The inputs to begin with.
pub fn mud_seeds() -> Vec<Vec<u8>> {
    let with = |signature: &[u8]| {
        let length = u16::try_from(signature.len()).expect("a short signature");
        [&length.to_be_bytes(), signature, SIGNED].concat()
    };
    vec![with(&[]), with(SIGNATURE)]
}
