//! A draft is a file that this crate reads as what was seen.

use std::collections::BTreeSet;

use super::*;
use crate::{Other, Seen, draft};

#[test]
fn a_draft_is_read_as_what_was_seen() {
    let seen = |from_device, other, protocol, service| Seen {
        from_device,
        other,
        is_v6: false,
        protocol,
        service,
    };
    let far = Other::At("192.0.2.7".parse().unwrap());
    let all = BTreeSet::from([
        seen(true, Other::Local, 6, 443),
        seen(true, far, 17, 123),
        seen(true, Other::Router, 17, 53),
        seen(true, Other::Local, 1, 0x0800),
        seen(false, Other::Local, 6, 22),
        seen(false, Other::Local, 47, 0),
    ]);
    let text = draft(URL, "bulb-1\u{1b}[2J", &all, Timestamp::UNIX_EPOCH).unwrap();
    let told = imported_as(&serde_json::from_str(&text).unwrap(), true).unwrap();
    assert!(
        told.aces.iter().all(|it| it.outcome == Outcome::Imported),
        "{:#?}",
        told.aces
    );
    let of = |direction: &str| -> BTreeSet<(String, String)> {
        let rules = told
            .put
            .rules
            .iter()
            .filter(|it| it.labels["mud-direction"] == direction);
        let rules = rules.filter(|it| !it.name.contains("default"));
        let end = |it: &Rule| {
            if direction == "from-device" {
                it.to[0].clone()
            } else {
                it.from[0].clone()
            }
        };
        rules.map(|it| (end(it), it.services[0].clone())).collect()
    };
    let pairs = |pairs: &[(&str, &str)]| -> BTreeSet<(String, String)> {
        pairs
            .iter()
            .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
            .collect()
    };
    assert_eq!(
        of("from-device"),
        pairs(&[
            ("zone:bulbs", "tcp/443"),
            ("cidr:192.0.2.7/32", "udp/123"),
            ("router", "udp/53"),
            ("zone:bulbs", "icmp/8/0")
        ])
    );
    assert_eq!(
        of("to-device"),
        pairs(&[("zone:bulbs", "tcp/22"), ("zone:bulbs", "proto/47")])
    );
    assert!(draft("http://x.example/", "", &all, Timestamp::UNIX_EPOCH).is_err());
}
