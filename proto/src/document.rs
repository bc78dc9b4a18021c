//! Documents in YAML or JSON, in the shape of the proto messages.
//!
//! Everything here walks message descriptors, so a field of the proto file is a field of the
//! document without further code. A text is read as far as possible: every problem is collected
//! with its path, and the rest is still returned, so that the router can check it too.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    fmt,
    fmt::Write as _,
    sync::LazyLock,
};

use prost_reflect::{
    DescriptorPool, DynamicMessage, EnumDescriptor, FieldDescriptor, Kind, MapKey,
    MessageDescriptor, Value,
};

use crate::{
    DESCRIPTOR_SET, time,
    tree::{self, Node, Placed},
    v1,
};

pub use crate::render::{differing, policy_to_json, policy_to_yaml, to_value, value_to_yaml};

/// One thing that is wrong with a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where, such as `devices[1].zone`; empty for the document as a whole.
    pub path: String,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.path.as_str() {
            "" => f.write_str(&self.message),
            path => write!(f, "{path}: {}", self.message),
        }
    }
}

/// Reads a policy document, YAML or JSON.
///
/// Returns the parts that could be read, and a problem for each of the others. The router checks
/// whether names resolve, addresses parse and a version is given.
pub fn parse(text: &str) -> (v1::Policy, Vec<Problem>) {
    let (_, policy, problems) = read_part(text);
    (policy, problems)
}

/// The descriptors of the whole API.
pub(crate) static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    DescriptorPool::decode(DESCRIPTOR_SET).expect("the build wrote the descriptor set")
});

/// The word of an enum's value: its name in lower case without the enum's prefix.
pub(crate) fn word(descriptor: &EnumDescriptor, name: &str) -> String {
    let zero = descriptor.default_value();
    let prefix = zero.name().strip_suffix("UNSPECIFIED").unwrap_or_default();
    name.strip_prefix(prefix)
        .unwrap_or(name)
        .to_ascii_lowercase()
}

/// Reads a text that is a document or a part of one, and keeps the tree, which knows where things are.
pub(crate) fn read_part(text: &str) -> (Placed, v1::Policy, Vec<Problem>) {
    let mut walk = Walk {
        path: String::new(),
        problems: Vec::new(),
    };
    let root = tree::read(text).unwrap_or_else(|error| {
        walk.problem(error);
        Placed {
            node: Node::Mapping(Vec::new()),
            line: 0,
        }
    });
    if root.node == Node::Nothing {
        walk.problem(EMPTY.to_owned());
        return (root, v1::Policy::default(), walk.problems);
    }
    let descriptor = POOL
        .get_message_by_name("wardline.v1.Policy")
        .expect("the proto file defines Policy");
    let message = walk.message(&root.node, &descriptor);
    let policy = message
        .transcode_to()
        .expect("both sides are of one descriptor");
    (root, policy, walk.problems)
}

/// The problem of a text that says nothing.
pub(crate) const EMPTY: &str = "the document is empty";

struct Walk {
    path: String,
    problems: Vec<Problem>,
}

impl Walk {
    fn problem(&mut self, message: String) {
        self.problems.push(Problem {
            path: self.path.clone(),
            message,
        });
    }

    /// Runs `f` with `step` at the end of the path.
    fn at<T>(&mut self, step: fmt::Arguments, f: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.path.len();
        // Writing to a string can't fail.
        let _ = self.path.write_fmt(step);
        let result = f(self);
        self.path.truncate(length);
        result
    }

    fn at_field<T>(&mut self, name: &str, f: impl FnOnce(&mut Self) -> T) -> T {
        let dot = if self.path.is_empty() { "" } else { "." };
        self.at(format_args!("{dot}{name}"), f)
    }

    fn message(&mut self, node: &Node, descriptor: &MessageDescriptor) -> DynamicMessage {
        let mut message = DynamicMessage::new(descriptor.clone());
        let Node::Mapping(entries) = node else {
            self.problem(format!(
                "expected a mapping with {}, found {}",
                field_names(descriptor),
                described(node)
            ));
            return message;
        };
        let mut seen = HashSet::with_capacity(entries.len());
        for (key, value) in entries {
            let Node::Text(name) = key else {
                self.problem(format!(
                    "expected the name of a field, found {}",
                    described(key)
                ));
                continue;
            };
            // Protobuf's JSON writes `dhcpServer` for `dhcp_server`.
            let by_json = || descriptor.get_field_by_json_name(name);
            let Some(field) = descriptor.get_field_by_name(name).or_else(by_json) else {
                let message = unknown_field(name, descriptor);
                self.at_field(&printable(name), |walk| walk.problem(message));
                continue;
            };
            self.at_field(name, |walk| {
                if !seen.insert(field.number()) {
                    walk.problem("given twice; the first one counts".to_owned());
                } else if value.node != Node::Nothing
                    && let Some(value) = walk.field(&value.node, &field)
                {
                    message.set_field(&field, value);
                }
            });
        }
        message
    }

    fn field(&mut self, node: &Node, field: &FieldDescriptor) -> Option<Value> {
        let kind = field.kind();
        if let Kind::Message(entry) = &kind
            && field.is_map()
        {
            return self.map(node, &entry.map_entry_value_field().kind());
        }
        if !field.is_list() {
            return self.value(node, &kind);
        }
        let Node::List(nodes) = node else {
            self.problem(format!("expected a list, found {}", described(node)));
            return None;
        };
        // A value that can't be read keeps its place, so that paths match the document.
        let value = |(i, node): (usize, &Placed)| {
            self.at(format_args!("[{i}]"), |walk| walk.value(&node.node, &kind))
                .unwrap_or_else(|| Value::default_value(&kind))
        };
        Some(Value::List(nodes.iter().enumerate().map(value).collect()))
    }

    /// Reads a mapping whose keys are the author's own words.
    fn map(&mut self, node: &Node, kind: &Kind) -> Option<Value> {
        let Node::Mapping(entries) = node else {
            self.problem(format!("expected KEY: VALUE, found {}", described(node)));
            return None;
        };
        let mut map = HashMap::with_capacity(entries.len());
        for (key, value) in entries {
            let Node::Text(key) = key else {
                self.problem(format!(
                    "expected text as the key, found {}; put it in quotes",
                    described(key)
                ));
                continue;
            };
            self.at_field(&printable(key), |walk| {
                match map.entry(MapKey::String(key.clone())) {
                    Entry::Occupied(_) => {
                        walk.problem("given twice; the first one counts".to_owned());
                    }
                    Entry::Vacant(free) => {
                        if let Some(value) = walk.value(&value.node, kind) {
                            free.insert(value);
                        }
                    }
                }
            });
        }
        Some(Value::Map(map))
    }

    fn value(&mut self, node: &Node, kind: &Kind) -> Option<Value> {
        match kind {
            Kind::Bool => match node {
                Node::Bool(value) => Some(Value::Bool(*value)),
                _ => self.unexpected("true or false", node),
            },
            Kind::String => match node {
                Node::Text(text) => Some(Value::String(text.clone())),
                Node::Bool(_) | Node::Integer(_) | Node::Float(_) => {
                    self.problem(format!(
                        "expected text, found {}; put it in quotes",
                        described(node)
                    ));
                    None
                }
                Node::Nothing | Node::List(_) | Node::Mapping(_) => self.unexpected("text", node),
            },
            Kind::Uint32 | Kind::Fixed32 => self.integer(node, u32::MIN, u32::MAX).map(Value::U32),
            Kind::Uint64 | Kind::Fixed64 => self.integer(node, u64::MIN, u64::MAX).map(Value::U64),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => {
                self.integer(node, i32::MIN, i32::MAX).map(Value::I32)
            }
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => {
                self.integer(node, i64::MIN, i64::MAX).map(Value::I64)
            }
            Kind::Float => self.float(node).map(|value| Value::F32(value as f32)),
            Kind::Double => self.float(node).map(Value::F64),
            Kind::Enum(descriptor) => self.enumeration(node, descriptor),
            Kind::Message(descriptor) if descriptor.full_name() == time::NAME => {
                self.timestamp(node, descriptor)
            }
            Kind::Message(descriptor) => Some(Value::Message(self.message(node, descriptor))),
            Kind::Bytes => self.unexpected("nothing: bytes have no form in a document", node),
        }
    }

    fn integer<T>(&mut self, node: &Node, min: T, max: T) -> Option<T>
    where
        T: TryFrom<i128> + fmt::Display,
    {
        let number = match node {
            Node::Integer(number) => Some(*number),
            // JSON has no hexadecimal numbers.
            Node::Text(text) => text
                .strip_prefix("0x")
                .and_then(|digits| u64::from_str_radix(digits, 16).ok())
                .map(i128::from),
            Node::Nothing | Node::Bool(_) | Node::Float(_) | Node::List(_) | Node::Mapping(_) => {
                None
            }
        };
        let value = number.and_then(|number| T::try_from(number).ok());
        if value.is_none() {
            return self.unexpected(&format!("a whole number from {min} to {max}"), node);
        }
        value
    }

    fn float(&mut self, node: &Node) -> Option<f64> {
        match node {
            Node::Float(number) => Some(*number),
            Node::Integer(number) => Some(*number as f64),
            Node::Nothing | Node::Bool(_) | Node::Text(_) | Node::List(_) | Node::Mapping(_) => {
                self.unexpected("a number", node)
            }
        }
    }

    fn enumeration(&mut self, node: &Node, descriptor: &EnumDescriptor) -> Option<Value> {
        // Zero means that the field is left out; it has no word.
        let words = || {
            let named = descriptor.values().filter(|value| value.number() != 0);
            named.map(|value| (word(descriptor, value.name()), value.number()))
        };
        // Protobuf's JSON writes `ACTION_ALLOW` for `allow`.
        let by_name = |text: &String| descriptor.get_value_by_name(text).map(|it| it.number());
        let by_name = |text: &String| by_name(text).filter(|number| *number != 0);
        if let Node::Text(text) = node
            && let Some(number) = words()
                .find(|(word, _)| word == text)
                .map(|(_, number)| number)
                .or_else(|| by_name(text))
        {
            return Some(Value::EnumNumber(number));
        }
        let words: Vec<_> = words().map(|(word, _)| word).collect();
        self.unexpected(&words.join(" or "), node)
    }

    fn timestamp(&mut self, node: &Node, descriptor: &MessageDescriptor) -> Option<Value> {
        let time = match node {
            Node::Text(text) => text.parse().ok().map(time::to_proto),
            _ => None,
        };
        let Some(time) = time.filter(|time| time::SECONDS.contains(&time.seconds)) else {
            return self.unexpected("an RFC 3339 time such as 2026-12-01T00:00:00Z", node);
        };
        let mut message = DynamicMessage::new(descriptor.clone());
        message.set_field_by_name("seconds", Value::I64(time.seconds));
        message.set_field_by_name("nanos", Value::I32(time.nanos));
        Some(Value::Message(message))
    }

    fn unexpected<T>(&mut self, expected: &str, node: &Node) -> Option<T> {
        self.problem(format!("expected {expected}, found {}", described(node)));
        None
    }
}

fn unknown_field(name: &str, descriptor: &MessageDescriptor) -> String {
    // A name that is much longer than any field is not similar to any.
    let near = |field: &FieldDescriptor| strsim::damerau_levenshtein(name, field.name());
    let nearest = descriptor
        .fields()
        .filter(|_| name.len() <= 64)
        .map(|field| (near(&field), field))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, field)| *distance <= field.name().len().max(3) / 3 + 1);
    match nearest {
        Some((_, field)) => format!("unknown field; did you mean {}?", field.name()),
        None => format!("unknown field; known are {}", field_names(descriptor)),
    }
}

fn field_names(descriptor: &MessageDescriptor) -> String {
    let names: Vec<_> = descriptor
        .fields()
        .map(|field| field.name().to_owned())
        .collect();
    names.join(", ")
}

/// A value as a message describes it, short and without control characters.
fn described(node: &Node) -> String {
    match node {
        Node::Nothing => "nothing".to_owned(),
        Node::Bool(value) => value.to_string(),
        Node::Integer(number) => number.to_string(),
        Node::Float(number) => number.to_string(),
        Node::Text(text) => format!("the text {:?}", shortened(text)),
        Node::List(_) => "a list".to_owned(),
        Node::Mapping(_) => "a mapping".to_owned(),
    }
}

/// A key in a path: unquoted when it looks like a field's name.
fn printable(key: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    match shortened(key) {
        key if !key.is_empty() && key.chars().all(plain) => key,
        key => format!("{key:?}"),
    }
}

fn shortened(text: &str) -> String {
    const MOST: usize = 60;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// The sample document.
    const SAMPLE: &str = "
version: 1
zones:
  - name: pumps
    description: Infusion pumps, ward 3
    mode: enforce                # enforce | observe
    admit: listed
    subnets: [10.20.1.0/24]
    fragments: drop
    ip_options: allow
    ethertypes: [0x8892, \"0x88cc\", 35045]
ports:
  - interface: lan1
    zone: pumps
    vlans: [{id: 20, zone: cameras}]
    attach: auto
    dhcp_server: false
    router: true
devices:
  - name: pump-1
    zone: pumps
    macs: [\"02:00:00:00:01:01\"]
    addresses: [10.20.1.11, fd00::11]
    port: lan1
services:
  - name: hl7
    ports: [tcp/2575]
rules:
  - name: pumps-to-ehr
    from: [zone:pumps]
    to: [device:ehr, any]
    services: [hl7, tcp/*]
    action: allow
    log: true
    expires: 2026-12-01T00:00:00Z
";

    fn problems(text: &str) -> Vec<String> {
        parse(text).1.iter().map(Problem::to_string).collect()
    }

    #[test]
    fn reads_every_field() {
        let (policy, problems) = parse(SAMPLE);

        assert_eq!(problems, []);
        assert_eq!(policy.version, 1);
        let zone = &policy.zones[0];
        assert_eq!(zone.description, "Infusion pumps, ward 3");
        assert_eq!(zone.mode(), v1::ZoneMode::Enforce);
        assert_eq!(zone.ip_options(), v1::DropOrAllow::Allow);
        assert_eq!(zone.ethertypes, [0x8892, 0x88cc, 0x88e5]);
        let port = &policy.ports[0];
        assert_eq!(
            port.vlans,
            [v1::PortVlan {
                id: 20,
                zone: "cameras".to_owned()
            }]
        );
        assert!(port.router && !port.dhcp_server);
        assert_eq!(policy.devices[0].macs, ["02:00:00:00:01:01"]);
        assert_eq!(policy.devices[0].addresses, ["10.20.1.11", "fd00::11"]);
        assert_eq!(policy.services[0].ports, ["tcp/2575"]);
        let rule = &policy.rules[0];
        assert_eq!(rule.action(), v1::Action::Allow);
        let expires = prost_types::Timestamp {
            seconds: 1_796_083_200,
            nanos: 0,
        };
        assert_eq!(rule.expires, Some(expires));
    }

    #[test]
    fn json_reads_like_yaml() {
        let (policy, _) = parse(SAMPLE);
        assert_eq!(parse(&policy_to_json(&policy)), (policy, vec![]));
    }

    #[test]
    fn collects_every_problem_and_reads_the_rest() {
        let text = r#"
version: "1"
zonnes: []
zones:
  - {name: a, mode: observed, ethertypes: [-1, 0x8892, 5000000000]}
  -
devices:
  - name: 17
    zone: a
    zone: b
    macs: "02:00:00:00:01:01"
    port: [lan1]
    quarantined: true
  - camera
  - {labels: {ward: 3, 4: x, a: "1", a: "2", b: }}
  - {labels: [a]}
rules:
  - {name: r, action: Allow, log: "yes", expires: tomorrow, 5: x}
  - {name: s, action: deny, expires: 2026-12-01T00:00:00}
services:
"#;
        let (policy, problems) = parse(text);

        let told: Vec<_> = problems.iter().map(Problem::to_string).collect();
        assert_eq!(
            told,
            [
                "version: expected a whole number from 0 to 4294967295, found the text \"1\"",
                "zonnes: unknown field; did you mean zones?",
                "zones[0].mode: expected enforce or observe, found the text \"observed\"",
                "zones[0].ethertypes[0]: expected a whole number from 0 to 4294967295, found -1",
                "zones[0].ethertypes[2]: expected a whole number from 0 to 4294967295, \
                 found 5000000000",
                "zones[1]: expected a mapping with name, description, mode, admit, subnets, \
                 fragments, ip_options, ethertypes, owner, ticket, labels, found nothing",
                "devices[0].name: expected text, found 17; put it in quotes",
                "devices[0].zone: given twice; the first one counts",
                "devices[0].macs: expected a list, found the text \"02:00:00:00:01:01\"",
                "devices[0].port: expected text, found a list",
                "devices[0].quarantined: unknown field; \
                 known are name, zone, macs, addresses, port, learn, description, owner, ticket, labels",
                "devices[1]: expected a mapping with name, zone, macs, addresses, port, learn, \
                 description, owner, ticket, labels, found the text \"camera\"",
                "devices[2].labels.ward: expected text, found 3; put it in quotes",
                "devices[2].labels: expected text as the key, found 4; put it in quotes",
                "devices[2].labels.a: given twice; the first one counts",
                "devices[2].labels.b: expected text, found nothing",
                "devices[3].labels: expected KEY: VALUE, found a list",
                "rules[0].action: expected allow or deny, found the text \"Allow\"",
                "rules[0].log: expected true or false, found the text \"yes\"",
                "rules[0].expires: expected an RFC 3339 time such as 2026-12-01T00:00:00Z, \
                 found the text \"tomorrow\"",
                "rules[0]: expected the name of a field, found 5",
                "rules[1].expires: expected an RFC 3339 time such as 2026-12-01T00:00:00Z, \
                 found the text \"2026-12-01T00:00:00\"",
            ]
        );
        assert_eq!(policy.zones[0].name, "a");
        assert_eq!(policy.zones[0].ethertypes, [0, 0x8892, 0]);
        assert_eq!(
            policy.devices.len(),
            4,
            "what can't be read keeps its place"
        );
        assert_eq!(policy.devices[0].zone, "a");
        let kept = BTreeMap::from([("a".to_owned(), "1".to_owned())]);
        assert_eq!(policy.devices[2].labels, kept);
        assert_eq!(policy.rules[1].action(), v1::Action::Deny);
    }

    #[test]
    fn suggests_the_nearest_field() {
        for (written, meant) in [
            ("zone", "zones"),
            ("devises", "devices"),
            ("prots", "ports"),
            ("rule", "rules"),
        ] {
            let expected = format!("{written}: unknown field; did you mean {meant}?");
            assert_eq!(problems(&format!("{written}: []")), [expected]);
        }
        let all = "known are version, zones, ports, devices, services, rules, resolvers";
        assert_eq!(problems("x: 1"), [format!("x: unknown field; {all}")]);
        assert_eq!(
            problems("\"a\\nb\": 1"),
            [format!("\"a\\nb\": unknown field; {all}")]
        );
    }

    #[test]
    fn a_text_that_is_no_document_is_one_problem_without_a_path() {
        for (text, message) in [
            ("", "the document is empty"),
            ("# nothing\n", "the document is empty"),
            ("version: 1\n  zones: []\n", "line 2, column 8"),
            ("{\"version\": 1,, }", "line 1 column 15"),
            ("- version", "expected a mapping with version, zones,"),
        ] {
            let (policy, problems) = parse(text);
            let [problem] = &problems[..] else {
                panic!("{problems:?}")
            };
            assert_eq!(problem.path, "");
            assert!(problem.message.contains(message), "{problem}");
            assert_eq!(policy, v1::Policy::default());
        }
    }

    #[test]
    fn null_is_absent() {
        let text = "version: 1\nzones:\nrules: [{name: r, from: null, log: ~, expires: null}]";
        let (policy, problems) = parse(text);
        assert_eq!(problems, []);
        assert_eq!(
            policy.rules,
            [v1::Rule {
                name: "r".to_owned(),
                ..Default::default()
            }]
        );
    }

    #[test]
    fn a_time_keeps_its_offset_and_fraction() {
        let expires = |text: &str| {
            let (policy, problems) = parse(&format!("rules: [{{expires: \"{text}\"}}]"));
            policy.rules[0].expires.ok_or(problems)
        };
        let time = |seconds, nanos| Ok(prost_types::Timestamp { seconds, nanos });
        assert_eq!(expires("1970-01-01T02:00:00.5+02:00"), time(0, 500_000_000));
        assert_eq!(expires("1969-12-31T23:59:59.25Z"), time(-1, 250_000_000));
        assert!(expires("-000001-01-01T00:00:00Z").is_err());
        assert!(expires("2026-13-01T00:00:00Z").is_err());
    }

    #[test]
    fn the_names_of_protobufs_json_are_read_too() {
        let (ours, wrong) = parse(
            "ports: [{interface: a, dhcp_server: true, attach: tc}]\n\
             rules: [{name: r, action: allow, answers_from: [any]}]",
        );
        assert_eq!(wrong, []);
        let theirs = r#"{"ports": [{"interface": "a", "dhcpServer": true, "attach": "ATTACH_TC"}],
            "rules": [{"name": "r", "action": "ACTION_ALLOW", "answersFrom": ["any"]}]}"#;
        assert_eq!(parse(theirs), (ours, vec![]));
        assert_eq!(
            problems("ports: [{dhcp_server: true, dhcpServer: true, attach: ATTACH_UNSPECIFIED}]"),
            [
                "ports[0].dhcpServer: given twice; the first one counts",
                "ports[0].attach: expected auto or xdp or tc, found the text \"ATTACH_UNSPECIFIED\""
            ]
        );
    }

    #[test]
    fn merge_keys_spare_words() {
        let text = "
devices:
  - &pump {name: pump-1, zone: pumps, labels: {model: p7}, port: lan1}
  - {<<: *pump, name: pump-2, port: lan2}
  - <<: [*pump]
    name: pump-3
";
        let (policy, problems) = parse(text);
        assert_eq!(problems, []);
        let of = |at: usize| {
            let it: &v1::Device = &policy.devices[at];
            (
                it.name.as_str(),
                it.zone.as_str(),
                it.port.as_str(),
                it.labels.len(),
            )
        };
        assert_eq!(of(1), ("pump-2", "pumps", "lan2", 1));
        assert_eq!(of(2), ("pump-3", "pumps", "lan1", 1));
    }

    #[test]
    fn reads_a_hundred_thousand_devices() {
        let mut text = "version: 1\ndevices:\n".to_owned();
        for i in 0..100_000 {
            let (a, b, c) = (i >> 16, i >> 8 & 255, i & 255);
            text += &format!(
                "  - name: device-{i}\n    zone: z\n    macs: [\"02:00:00:{a:02x}:{b:02x}:{c:02x}\"]\n    \
                 addresses: [10.{a}.{b}.{c}]\n"
            );
        }
        let (policy, problems) = parse(&text);
        assert_eq!((policy.devices.len(), problems.len()), (100_000, 0));
    }

    fn text() -> impl Strategy<Value = String> {
        prop_oneof![
            Just(String::new()),
            "[a-z0-9._-]{1,12}",
            "[0-9a-f:./]{1,12}",
            "(zone|device|cidr):[a-z0-9:./]{1,8}",
            "(true|null|no|~|-|0x1f|1e3|1_000|\\.inf|<<|=|2026-12-01)",
            "[ -~]{0,12}",
            any::<String>(),
        ]
    }

    fn labels() -> impl Strategy<Value = BTreeMap<String, String>> {
        prop::collection::btree_map(text(), text(), 0..3)
    }

    fn texts() -> impl Strategy<Value = Vec<String>> {
        prop::collection::vec(text(), 0..4)
    }

    prop_compose! {
        fn zone()(
            name in text(), description in text(), mode in 0..3, admit in 0..3, subnets in texts(),
            fragments in 0..3, ip_options in 0..3,
            ethertypes in prop::collection::vec(any::<u32>(), 0..3), owner in text(),
            ticket in text(), labels in labels(),
        ) -> v1::Zone {
            v1::Zone {
                name, description, mode, admit, subnets, fragments, ip_options, ethertypes, owner,
                ticket, labels,
            }
        }
    }

    prop_compose! {
        fn port()(
            interface in text(), zone in text(),
            vlans in prop::collection::vec((any::<u32>(), text()), 0..3),
            attach in 0..4, dhcp_server: bool, router: bool, fast_forward: bool,
        ) -> v1::Port {
            let vlans = vlans.into_iter().map(|(id, zone)| v1::PortVlan { id, zone }).collect();
            v1::Port {
                interface, zone, vlans, attach, dhcp_server, router, fast_forward,
                ..Default::default()
            }
        }
    }

    prop_compose! {
        fn device()(
            name in text(), zone in text(), macs in texts(), addresses in texts(), port in text(),
            learn: Option<bool>, description in text(), labels in labels(),
        ) -> v1::Device {
            v1::Device {
                name, zone, macs, addresses, port, learn, description, labels,
                ..Default::default()
            }
        }
    }

    prop_compose! {
        fn rule()(
            name in text(), from in texts(), to in texts(), services in texts(), action in 0..3,
            log: bool, expires in prop::option::of((time::SECONDS, 0..1_000_000_000)),
            keep_in_quarantine: bool, answers_from in texts(),
        ) -> v1::Rule {
            let expires =
                expires.map(|(seconds, nanos)| prost_types::Timestamp { seconds, nanos });
            v1::Rule {
                name, from, to, services, action, log, expires, keep_in_quarantine, answers_from,
                ..Default::default()
            }
        }
    }

    prop_compose! {
        fn any_policy()(
            version: u32,
            zones in prop::collection::vec(zone(), 0..3),
            ports in prop::collection::vec(port(), 0..3),
            devices in prop::collection::vec(device(), 0..3),
            services in prop::collection::vec((text(), texts()), 0..3),
            rules in prop::collection::vec(rule(), 0..3),
            resolvers in prop::collection::vec((text(), text()), 0..3),
        ) -> v1::Policy {
            let resolvers = resolvers.into_iter();
            let resolvers = resolvers
                .map(|(address, description)| v1::Resolver { address, description })
                .collect();
            let services =
                services.into_iter().map(|(name, ports)| v1::Service {
                    name, ports, ..Default::default()
                }).collect();
            v1::Policy { version, zones, ports, devices, services, rules, resolvers }
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(policy in any_policy()) {
            for text in [policy_to_yaml(&policy), policy_to_json(&policy)] {
                let (read, problems) = parse(&text);
                prop_assert_eq!(&problems, &[], "{}", text);
                prop_assert_eq!(&read, &policy, "{}", text);
            }
        }

        #[test]
        fn any_text_is_answered(text: String, yaml in "[a-c:\\[\\]{}&*!|>'\"%@, \n-]{0,40}") {
            parse(&text);
            parse(&yaml);
        }
    }
}
