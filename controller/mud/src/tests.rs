//! What comes of files, as a site sees it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod drafts;
mod meaning;
mod random;
mod signed;
mod strange;

use jiff::Timestamp;
use serde_json::{Value, json};
use wardline_proto::v1::{Device, Policy, Rule, Zone};

use crate::{Anchors, Imported, Outcome, Refused, Request, Subject, import};

const URL: &str = "https://lights.example/bulb";

/// A zone of bulbs, one of servers, and one that is no local network.
fn site() -> Policy {
    let labels = |labels: &[(&str, &str)]| {
        let pairs = labels
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        pairs.collect()
    };
    let zone = |name: &str, subnet: &str, of: &[(&str, &str)]| Zone {
        name: name.to_owned(),
        subnets: vec![subnet.to_owned()],
        labels: labels(of),
        ..Zone::default()
    };
    let device = |name: &str, zone: &str, of: &[(&str, &str)]| Device {
        name: name.to_owned(),
        zone: zone.to_owned(),
        labels: labels(of),
        ..Device::default()
    };
    Policy {
        version: 1,
        zones: vec![
            zone("bulbs", "10.1.0.0/16", &[]),
            zone("servers", "10.2.0.0/16", &[]),
            zone("guests", "10.3.0.0/16", &[("mud-local", "no")]),
            zone("world", "0.0.0.0/0", &[]),
        ],
        devices: vec![
            device("bulb-1", "bulbs", &[]),
            device(
                "resolver",
                "servers",
                &[("mud-controller/1", "urn:ietf:params:mud:dns")],
            ),
            device("hub", "servers", &[("mud-controller", URL)]),
            device("desk", "servers", &[("mud-controller", "urn:example:desk")]),
            device(
                "lamp",
                "bulbs",
                &[
                    ("mud", "https://other.example/lamp"),
                    ("mud-maker", "other.example"),
                ],
            ),
        ],
        ..Policy::default()
    }
}

/// A file with these entries from the device and to it.
fn file(from: &[Value], to: &[Value]) -> Value {
    json!({
        "ietf-mud:mud": {
            "mud-version": 1, "mud-url": URL, "last-update": "2026-01-01T00:00:00Z",
            "is-supported": true, "systeminfo": "A bulb",
            "from-device-policy": {"access-lists": {"access-list": [{"name": "from"}]}},
            "to-device-policy": {"access-lists": {"access-list": [{"name": "to"}]}},
        },
        "ietf-access-control-list:acls": {"acl": [
            {"name": "from", "type": "ipv4-acl-type", "aces": {"ace": from}},
            {"name": "to", "type": "ipv4-acl-type", "aces": {"ace": to}},
        ]},
    })
}

/// An entry that accepts.
fn ace(name: &str, matches: Value) -> Value {
    json!({"name": name, "matches": matches, "actions": {"forwarding": "accept"}})
}

fn drops(name: &str, matches: Value) -> Value {
    json!({"name": name, "matches": matches, "actions": {"forwarding": "drop"}})
}

/// TCP to a port of somebody.
fn tcp(mud: Value, port: u16) -> Value {
    json!({"ietf-mud:mud": mud, "ipv4": {"protocol": 6},
        "tcp": {"ietf-mud:direction-initiated": "from-device", "destination-port": {"operator": "eq", "port": port}}})
}

fn imported_as(file: &Value, approved: bool) -> Result<Imported, Refused> {
    let subject = Subject::Device("bulb-1".to_owned());
    let anchors = Anchors::default();
    import(&Request {
        file: file.to_string().as_bytes(),
        signature: &[],
        anchors: &anchors,
        now: Timestamp::UNIX_EPOCH,
        subject: Some(&subject),
        is_approved: approved,
        document: &site(),
        router_is: &["urn:ietf:params:mud:ntp".to_owned()],
    })
}

fn imported(from: &[Value], to: &[Value]) -> Imported {
    imported_as(&file(from, to), true).unwrap()
}

/// What became of an entry, with its reason.
fn became<'a>(imported: &'a Imported, name: &str) -> (Outcome, &'a str) {
    let ace = imported.aces.iter().find(|it| it.name == name).unwrap();
    (ace.outcome, &ace.reason)
}

/// The rule of an entry.
fn rule<'a>(imported: &'a Imported, name: &str) -> &'a Rule {
    let ace = imported.aces.iter().find(|it| it.name == name).unwrap();
    let [rule] = &ace.rules[..] else {
        panic!("{ace:?}")
    };
    imported
        .put
        .rules
        .iter()
        .find(|it| it.name == *rule)
        .unwrap()
}
