//! Renders messages as documents: to a value, and from there to YAML and JSON that people read.

use std::{collections::BTreeMap, fmt::Write as _, net::Ipv4Addr};

use jiff::Timestamp;
use prost::{Message, Name};
use prost_reflect::{DynamicMessage, Kind, MapKey, ReflectMessage as _, Value};
use serde_json::{Map, Value as Json};

use crate::{
    document::{POOL, word},
    letters::{steers, to_json},
    time, v1,
};

/// A message as a value: every field present, named as in the proto file and in its order; an
/// unset message or time is null, an enum its lower-case word, a time RFC 3339 text, and a 64-bit
/// number a number.
pub fn to_value<M: Message + Name>(message: &M) -> Json {
    object(&dynamic(message), Fields::All)
}

/// A policy as the YAML document that a person would write, without fields at their default. It
/// parses back to the same policy.
pub fn policy_to_yaml(policy: &v1::Policy) -> String {
    value_to_yaml(&object(&dynamic(policy), Fields::Set))
}

/// A policy as an indented JSON document, without fields at their default. It parses back to the
/// same policy.
pub fn policy_to_json(policy: &v1::Policy) -> String {
    to_json(&object(&dynamic(policy), Fields::Set), true) + "\n"
}

/// The fields in which two messages differ: name, old and new value as YAML on one line, empty for a
/// default.
pub fn differing<M: Message + Name>(old: &M, new: &M) -> Vec<(String, String, String)> {
    let fields = |message: &M| match object(&dynamic(message), Fields::Set) {
        Json::Object(fields) => fields,
        _ => Map::new(),
    };
    let (old, new) = (fields(old), fields(new));
    let written = |value: Option<&Json>| {
        let mut text = String::new();
        if let Some(value) = value {
            flow(value, Place::Block, &mut text);
        }
        text
    };
    let names = old
        .keys()
        .chain(new.keys().filter(|it| !old.contains_key(*it)));
    let names = names.filter(|it| old.get(*it) != new.get(*it));
    names
        .map(|it| (it.clone(), written(old.get(it)), written(new.get(it))))
        .collect()
}

/// A value as YAML: lists of scalars on one line, lists of objects one below the other.
pub fn value_to_yaml(value: &Json) -> String {
    let mut out = String::new();
    match value {
        Json::Object(fields) if !fields.is_empty() => mapping(fields, 0, &mut out),
        _ => {
            flow(value, Place::Block, &mut out);
            out.push('\n');
        }
    }
    out
}

#[derive(Clone, Copy, PartialEq)]
enum Fields {
    /// All fields, even at their default.
    All,
    /// Only fields that are not at their default.
    Set,
}

fn dynamic<M: Message + Name>(message: &M) -> DynamicMessage {
    let descriptor = POOL.get_message_by_name(&M::full_name());
    let mut dynamic = DynamicMessage::new(descriptor.expect("the set holds every message"));
    dynamic
        .transcode_from(message)
        .expect("both sides are of one descriptor");
    dynamic
}

fn object(message: &DynamicMessage, fields: Fields) -> Json {
    let descriptor = message.descriptor();
    if descriptor.full_name() == time::NAME {
        return timestamp(message);
    }
    let mut map = Map::new();
    for field in descriptor.fields() {
        let set = message.has_field(&field);
        let value = match fields {
            Fields::Set if !set => continue,
            Fields::All if !set && field.supports_presence() => Json::Null,
            Fields::Set | Fields::All => json(&message.get_field(&field), &field.kind(), fields),
        };
        map.insert(field.name().to_owned(), value);
    }
    Json::Object(map)
}

fn json(value: &Value, kind: &Kind, fields: Fields) -> Json {
    match value {
        Value::Bool(value) => (*value).into(),
        Value::I32(value) => (*value).into(),
        Value::I64(value) => (*value).into(),
        Value::U32(value) => (*value).into(),
        Value::U64(value) => (*value).into(),
        Value::F32(value) => (*value).into(),
        Value::F64(value) => (*value).into(),
        Value::String(value) => value.as_str().into(),
        Value::Bytes(value) => value.iter().copied().collect(),
        Value::EnumNumber(number) => match kind {
            Kind::Enum(descriptor) => descriptor.get_value(*number).map_or_else(
                || (*number).into(),
                |value| word(descriptor, value.name()).into(),
            ),
            // Can't happen: the message was decoded by its own descriptor, so the field is an enum.
            _ => (*number).into(),
        },
        Value::Message(message) => object(message, fields),
        Value::List(values) => values
            .iter()
            .map(|value| json(value, kind, fields))
            .collect(),
        Value::Map(entries) => {
            let entry = |(key, value): (&MapKey, &Value)| {
                // The text of a key that is text has quotes around it.
                let name = match key {
                    MapKey::String(name) => name.clone(),
                    other => Value::from(other.clone()).to_string(),
                };
                (name, json(value, kind, fields))
            };
            // By name, whatever order the map keeps.
            let entries: BTreeMap<String, Json> = entries.iter().map(entry).collect();
            Json::Object(entries.into_iter().collect())
        }
    }
}

/// A time as text; null for a number that is not a valid time.
fn timestamp(message: &DynamicMessage) -> Json {
    message
        .transcode_to::<prost_types::Timestamp>()
        .ok()
        .filter(|time| time::SECONDS.contains(&time.seconds))
        .filter(|time| (0..1_000_000_000).contains(&time.nanos))
        .and_then(|time| time::from_proto(&time))
        .map_or(Json::Null, |time| time.to_string().into())
}

// ── YAML ────────────────────────────────────────────────────────────────────────────────────────

/// Lines are kept below this width where a line can be broken.
const WIDTH: usize = 100;

/// The position of a scalar: a comma ends it only within brackets.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Block,
    Flow,
}

fn mapping(fields: &Map<String, Json>, indent: usize, out: &mut String) {
    for (i, (name, value)) in fields.iter().enumerate() {
        // The first field is on the line of its list's dash, which has indented it.
        if i > 0 {
            push_spaces(indent, out);
        }
        scalar(name, Place::Block, out);
        out.push(':');
        entry(value, indent + 2, out);
    }
}

fn entry(value: &Json, indent: usize, out: &mut String) {
    match value {
        Json::Object(fields) if !fields.is_empty() => {
            out.push('\n');
            push_spaces(indent, out);
            mapping(fields, indent, out);
        }
        Json::Array(items) if !fits_on_a_line(value, items, indent) => {
            out.push('\n');
            for item in items {
                push_spaces(indent, out);
                out.push('-');
                list_item(item, indent + 2, out);
            }
        }
        _ => {
            out.push(' ');
            flow(value, Place::Block, out);
            out.push('\n');
        }
    }
}

fn list_item(item: &Json, indent: usize, out: &mut String) {
    out.push(' ');
    match item {
        Json::Object(fields) if !fields.is_empty() => mapping(fields, indent, out),
        _ => {
            flow(item, Place::Block, out);
            out.push('\n');
        }
    }
}

/// Scalars share a line; small objects do too, except in the document's own lists.
fn fits_on_a_line(list: &Json, items: &[Json], indent: usize) -> bool {
    let scalar = |value: &Json| !value.is_object() && !value.is_array();
    let small = |item: &Json| match item {
        Json::Object(fields) => indent > 2 && fields.values().all(scalar),
        other => scalar(other),
    };
    // Most lists that are too long are recognised without being written.
    if items.len() > WIDTH / 2 || !items.iter().all(small) {
        return items.is_empty();
    }
    let mut line = String::new();
    flow(list, Place::Block, &mut line);
    indent + line.len() <= WIDTH
}

fn flow(value: &Json, place: Place, out: &mut String) {
    match value {
        Json::String(text) => scalar(text, place, out),
        Json::Null | Json::Bool(_) | Json::Number(_) => {
            // Writing to a string can't fail.
            let _ = write!(out, "{value}");
        }
        Json::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                out.push_str(if i > 0 { ", " } else { "" });
                flow(item, Place::Flow, out);
            }
            out.push(']');
        }
        Json::Object(fields) => {
            out.push('{');
            for (i, (name, value)) in fields.iter().enumerate() {
                out.push_str(if i > 0 { ", " } else { "" });
                scalar(name, Place::Flow, out);
                out.push_str(": ");
                flow(value, Place::Flow, out);
            }
            out.push('}');
        }
    }
}

fn scalar(text: &str, place: Place, out: &mut String) {
    if plain(text, place) {
        out.push_str(text);
        return;
    }
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            // Characters that YAML does not consider printable.
            '\u{a0}' | '\u{fffe}' | '\u{ffff}' => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            _ if steers(c) => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            _ => out.push(c),
        }
    }
    out.push('"');
}

/// Whether every YAML parser, including old ones, reads the unquoted text as this same text.
fn plain(text: &str, place: Place) -> bool {
    const WORDS: &[&str] = &[
        "true", "false", "null", "yes", "no", "on", "off", "y", "n", "nan", "inf", "infinity",
    ];
    let Some(first) = text.chars().next() else {
        return false;
    };
    if first.is_ascii_digit() {
        let address = text.split_once('/').map_or(text, |(address, _)| address);
        let prefix = text[address.len()..]
            .bytes()
            .skip(1)
            .all(|byte| byte.is_ascii_digit());
        let time = text.len() == "2026-12-01T00:00:00Z".len()
            && text.ends_with('Z')
            && text.parse::<Timestamp>().is_ok();
        return time || (prefix && !text.ends_with('/') && address.parse::<Ipv4Addr>().is_ok());
    }
    let harmless = |c: char| c.is_alphanumeric() || "._-/*: ,'()".contains(c);
    // MACs and IPv6 addresses: YAML 1.1 reads some of them as numbers of base 60.
    let hexadecimal = || {
        text.chars()
            .all(|c| c.is_ascii_hexdigit() || ":./".contains(c))
    };
    first.is_alphabetic()
        && text.chars().all(harmless)
        && !text.ends_with([' ', ':'])
        && !text.contains(": ")
        && !(text.contains(':') && hexadecimal())
        && !(place == Place::Flow && text.contains(','))
        && !WORDS.iter().any(|word| word.eq_ignore_ascii_case(text))
}

fn push_spaces(count: usize, out: &mut String) {
    out.extend(std::iter::repeat_n(' ', count));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_present_by_its_proto_name() {
        let change = v1::ChangeResponse {
            revision: u64::MAX,
            ..Default::default()
        };
        assert_eq!(
            to_value(&change).to_string(),
            r#"{"revision":18446744073709551615,"confirm_by":null,"warnings":[],"name":"","expires":null,"unchanged":false}"#
        );
    }

    #[test]
    fn enums_are_words_and_times_are_text() {
        let event = v1::Event {
            time: Some(prost_types::Timestamp {
                seconds: 1_796_083_200,
                nanos: 1_000_000,
            }),
            verdict: v1::Verdict::Drop.into(),
            reason: v1::Reason::BadTcpFlags.into(),
            ..Default::default()
        };
        let value = to_value(&event);
        assert_eq!(value["time"], "2026-12-01T00:00:00.001Z");
        assert_eq!(value["verdict"], "drop");
        assert_eq!(value["reason"], "bad_tcp_flags");
        assert_eq!(value["count"], 0);
    }

    #[test]
    fn an_enum_number_without_a_word_stays_a_number() {
        let change = v1::ObjectChange {
            change: 77,
            ..Default::default()
        };
        assert_eq!(to_value(&change)["change"], 77);
    }

    #[test]
    fn nested_messages_are_objects_or_null() {
        let mut status = v1::GetStatusResponse::default();
        assert_eq!(to_value(&status)["pending"], Json::Null);
        status.pending = Some(v1::Pending {
            revision: 7,
            confirm_by: None,
        });
        assert_eq!(to_value(&status)["pending"]["revision"], 7);
        assert_eq!(to_value(&status)["pending"]["confirm_by"], Json::Null);
    }

    #[test]
    fn yaml_is_what_a_person_would_write() {
        let words = |words: &[&str]| words.iter().copied().map(str::to_owned).collect();
        let policy = v1::Policy {
            version: 1,
            zones: vec![v1::Zone {
                name: "pumps".to_owned(),
                description: "Infusion pumps, ward 3".to_owned(),
                mode: v1::ZoneMode::Observe.into(),
                subnets: words(&["10.20.1.0/24", "fd00::/64"]),
                ..Default::default()
            }],
            ports: vec![v1::Port {
                interface: "lan*".to_owned(),
                vlans: vec![v1::PortVlan {
                    id: 20,
                    zone: "pumps".to_owned(),
                }],
                router: true,
                ..Default::default()
            }],
            devices: vec![v1::Device {
                name: "no".to_owned(),
                labels: [("ward", "3"), ("model", "p7")]
                    .map(|(key, value)| (key.to_owned(), value.to_owned()))
                    .into(),
                macs: words(&["02:00:00:00:01:01", "aa:bb:cc:dd:ee:ff"]),
                addresses: (0..9).map(|i| format!("10.20.1.{i}")).collect(),
                ..Default::default()
            }],
            services: vec![],
            rules: vec![v1::Rule {
                name: "r".to_owned(),
                from: words(&["zone:pumps", "cidr:fd00::/8"]),
                to: words(&["any"]),
                services: words(&["tcp/*", "udp/5000-5100"]),
                action: v1::Action::Allow.into(),
                expires: Some(prost_types::Timestamp {
                    seconds: 1_796_083_200,
                    nanos: 0,
                }),
                ..Default::default()
            }],
            resolvers: Vec::new(),
        };
        assert_eq!(
            policy_to_yaml(&policy),
            r#"version: 1
zones:
  - name: pumps
    description: Infusion pumps, ward 3
    mode: observe
    subnets: [10.20.1.0/24, "fd00::/64"]
ports:
  - interface: lan*
    vlans: [{id: 20, zone: pumps}]
    router: true
devices:
  - name: "no"
    macs: ["02:00:00:00:01:01", "aa:bb:cc:dd:ee:ff"]
    addresses:
      - 10.20.1.0
      - 10.20.1.1
      - 10.20.1.2
      - 10.20.1.3
      - 10.20.1.4
      - 10.20.1.5
      - 10.20.1.6
      - 10.20.1.7
      - 10.20.1.8
    labels:
      model: p7
      ward: "3"
rules:
  - name: r
    from: [zone:pumps, cidr:fd00::/8]
    to: [any]
    services: [tcp/*, udp/5000-5100]
    action: allow
    expires: 2026-12-01T00:00:00Z
"#
        );
    }

    #[test]
    fn what_differs_is_told_field_by_field() {
        let service = |ports: &[&str], owner: &str| v1::Service {
            name: "hl7".to_owned(),
            ports: ports.iter().map(|it| (*it).to_owned()).collect(),
            owner: owner.to_owned(),
            ..Default::default()
        };
        let (old, new) = (
            service(&["tcp/2575"], ""),
            service(&["tcp/2575", "tcp/*"], "netops"),
        );
        let told = differing(&old, &new);
        let told: Vec<_> = told.iter().map(|(a, b, c)| [a.as_str(), b, c]).collect();
        assert_eq!(
            told,
            [
                ["ports", "[tcp/2575]", "[tcp/2575, tcp/*]"],
                ["owner", "", "netops"]
            ]
        );
        assert_eq!(differing(&old, &old), []);
    }

    #[test]
    fn an_empty_policy_is_an_empty_mapping() {
        assert_eq!(policy_to_yaml(&v1::Policy::default()), "{}\n");
        assert_eq!(policy_to_json(&v1::Policy::default()), "{}\n");
    }
}
