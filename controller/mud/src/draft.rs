//! A MUD file made of what a device was seen to do: something to correct, and to ask the vendor about.

use std::{collections::BTreeSet, net::IpAddr};

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::words::{MudUrl, plain};

/// Most entries of a draft.
const MOST_ENTRIES: usize = 500;

/// Who was at the other end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Other {
    /// A device, or an address of a zone.
    Local,
    /// The router.
    Router,
    /// An address that is in no zone, or a group.
    At(IpAddr),
}

/// What a device was seen to do: a flow that was opened, or tried to be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seen {
    /// Whether the device opened it; otherwise the other end did.
    pub from_device: bool,
    /// The other end.
    pub other: Other,
    /// Whether it was IPv6.
    pub is_v6: bool,
    /// The protocol of IP.
    pub protocol: u8,
    /// The port that was asked for, or for ICMP type and code.
    pub service: u16,
}

/// Writes a file of what was seen.
///
/// # Errors
/// The URL is none of a MUD file, or there was more than a file holds.
pub fn draft(
    url: &str,
    about: &str,
    seen: &BTreeSet<Seen>,
    now: Timestamp,
) -> Result<String, String> {
    let url = MudUrl::read(url)?;
    if seen.len() > MOST_ENTRIES {
        return Err(format!(
            "it did more than {MOST_ENTRIES} different things; that is no description of a device"
        ));
    }
    let mut lists = Vec::new();
    let mut policies = Map::new();
    for (from_device, word) in [(true, "from"), (false, "to")] {
        let mut names = Vec::new();
        for (is_v6, family) in [(false, "ipv4"), (true, "ipv6")] {
            let of = |it: &&Seen| it.is_v6 == is_v6 && it.from_device == from_device;
            let entries = seen.iter().filter(of).enumerate();
            let entries: Vec<Value> = entries
                .map(|(at, it)| entry(it, &format!("{word}-{family}-{at}")))
                .collect();
            if entries.is_empty() {
                continue;
            }
            let name = format!("{word}-{family}");
            names.push(json!({"name": name}));
            lists.push(json!({"name": name, "type": format!("{family}-acl-type"), "aces": {"ace": entries}}));
        }
        policies.insert(
            format!("{word}-device-policy"),
            json!({"access-lists": {"access-list": names}}),
        );
    }
    let mut mud = json!({
        "mud-version": 1,
        "mud-url": url.whole,
        "last-update": now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        "cache-validity": 48,
        "is-supported": true,
        "systeminfo": plain(about, 60),
    });
    if let Some(fields) = mud.as_object_mut() {
        fields.extend(policies);
    }
    let file = json!({"ietf-mud:mud": mud, "ietf-access-control-list:acls": {"acl": lists}});
    serde_json::to_string_pretty(&file)
        .map(|text| text + "\n")
        .map_err(|error| error.to_string())
}

fn entry(seen: &Seen, name: &str) -> Value {
    let family = if seen.is_v6 { "ipv6" } else { "ipv4" };
    let mut ip = json!({"protocol": seen.protocol});
    let mut matches = Map::new();
    match &seen.other {
        Other::Local => {
            drop(matches.insert("ietf-mud:mud".to_owned(), json!({"local-networks": [null]})))
        }
        Other::Router => {
            let class = json!({"controller": "urn:ietf:params:mud:gateway"});
            matches.insert("ietf-mud:mud".to_owned(), class);
        }
        Other::At(address) => {
            let end = if seen.from_device {
                "destination"
            } else {
                "source"
            };
            let length = if seen.is_v6 { 128 } else { 32 };
            ip[format!("{end}-{family}-network")] = json!(format!("{address}/{length}"));
        }
    }
    matches.insert(family.to_owned(), ip);
    let port = json!({"operator": "eq", "port": seen.service});
    let direction = if seen.from_device {
        "from-device"
    } else {
        "to-device"
    };
    let [kind, code] = seen.service.to_be_bytes();
    match seen.protocol {
        6 => {
            let tcp = json!({"ietf-mud:direction-initiated": direction, "destination-port": port});
            matches.insert("tcp".to_owned(), tcp);
        }
        17 => drop(matches.insert("udp".to_owned(), json!({"destination-port": port}))),
        1 | 58 => drop(matches.insert("icmp".to_owned(), json!({"type": kind, "code": code}))),
        _ => {}
    }
    json!({"name": name, "matches": matches, "actions": {"forwarding": "accept"}})
}
