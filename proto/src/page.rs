//! Writes `docs/policy.md`: every field of the policy document, from the comments of the proto
//! file.

use std::fmt::Write as _;

use prost_reflect::{EnumDescriptor, FieldDescriptor, FileDescriptor, Kind, MessageDescriptor};

use crate::{
    document::{POOL, parse, word},
    time,
};

const HEAD: &str = include_str!("../policy.md");

const NOTICE: &str = "\n<!-- Made by `cargo xtask pages` from proto/policy.md, from the comments of \
                      proto/wardline/v1/segmentation.proto, and from the examples in proto/src/page.rs. -->\n";

/// The messages, with their headings and the document around an object of each.
const OBJECTS: [(&str, &str, &str); 8] = [
    ("Policy", "The document", "{}"),
    ("Zone", "zones", "zones: [{}]"),
    ("Port", "ports", "ports: [{}]"),
    ("PortVlan", "vlans of a port", "ports: [{vlans: [{}]}]"),
    ("Device", "devices", "devices: [{}]"),
    ("Service", "services", "services: [{}]"),
    ("Rule", "rules", "rules: [{}]"),
    ("Resolver", "resolvers", "resolvers: [{}]"),
];

/// The fields that a document must have.
const REQUIRED: [&str; 13] = [
    "Policy.version",
    "Zone.name",
    "Port.interface",
    "PortVlan.zone",
    "Device.name",
    "Device.zone",
    "Service.name",
    "Service.ports",
    "Rule.name",
    "Rule.from",
    "Rule.to",
    "Rule.action",
    "Resolver.address",
];

/// An example of each field.
const EXAMPLES: [(&str, &str); 62] = [
    ("Policy.version", "version: 1"),
    ("Policy.zones", "zones: [{name: pumps}]"),
    ("Policy.ports", "ports: [{interface: lan1, zone: pumps}]"),
    ("Policy.devices", "devices: [{name: ehr, zone: records}]"),
    (
        "Policy.services",
        "services: [{name: hl7, ports: [tcp/2575]}]",
    ),
    (
        "Policy.rules",
        "rules: [{name: pumps-to-ehr, from: [zone:pumps], to: [device:ehr], services: [hl7], action: allow}]",
    ),
    ("Policy.resolvers", "resolvers: [{address: 192.0.2.53}]"),
    ("Resolver.address", "address: 192.0.2.53"),
    ("Resolver.description", "description: The clinic's own"),
    ("Zone.name", "name: pumps"),
    ("Zone.description", "description: Infusion pumps"),
    ("Zone.mode", "mode: observe"),
    ("Zone.admit", "admit: any"),
    (
        "Zone.subnets",
        "subnets: [10.20.1.0/24, \"fd20:0:0:1::/64\"]",
    ),
    ("Zone.fragments", "fragments: allow"),
    ("Zone.ip_options", "ip_options: allow"),
    ("Zone.ethertypes", "ethertypes: [0x88cc]"),
    ("Zone.owner", "owner: clinical engineering"),
    ("Zone.ticket", "ticket: NET-1204"),
    ("Zone.labels", "labels: {site: north}"),
    ("Port.interface", "interface: lan1"),
    ("Port.zone", "zone: pumps"),
    ("Port.vlans", "vlans: [{id: 20, zone: cameras}]"),
    ("Port.attach", "attach: tc"),
    ("Port.dhcp_server", "dhcp_server: true"),
    ("Port.router", "router: true"),
    ("Port.fast_forward", "fast_forward: true"),
    ("Port.description", "description: Switch in room 3.14"),
    ("Port.owner", "owner: netops@clinic.example"),
    ("Port.ticket", "ticket: NET-1204"),
    ("Port.labels", "labels: {rack: \"7\"}"),
    ("PortVlan.id", "id: 20"),
    ("PortVlan.zone", "zone: cameras"),
    ("Device.name", "name: pump-1"),
    ("Device.zone", "zone: pumps"),
    ("Device.macs", "macs: [\"02:00:00:00:01:11\"]"),
    ("Device.addresses", "addresses: [10.20.1.11]"),
    ("Device.port", "port: lan1"),
    ("Device.learn", "learn: false"),
    ("Device.description", "description: Bed 12"),
    ("Device.owner", "owner: ward 3"),
    ("Device.ticket", "ticket: NET-1204"),
    ("Device.labels", "labels: {ward: \"3\", model: p7}"),
    ("Service.name", "name: hl7"),
    ("Service.ports", "ports: [tcp/2575, tcp/6661-6670]"),
    (
        "Service.description",
        "description: Results to the record server",
    ),
    ("Service.owner", "owner: interface team"),
    ("Service.ticket", "ticket: NET-1204"),
    ("Service.labels", "labels: {vendor: acme}"),
    ("Rule.name", "name: pumps-to-ehr"),
    ("Rule.from", "from: [zone:pumps, device:nurse-1]"),
    ("Rule.to", "to: [device:ehr]"),
    ("Rule.services", "services: [hl7, tcp/443]"),
    ("Rule.action", "action: allow"),
    ("Rule.log", "log: true"),
    ("Rule.expires", "expires: 2026-12-01T00:00:00Z"),
    ("Rule.keep_in_quarantine", "keep_in_quarantine: true"),
    ("Rule.answers_from", "answers_from: [zone:media]"),
    (
        "Rule.description",
        "description: Pumps report to the record server",
    ),
    ("Rule.owner", "owner: clinical engineering"),
    ("Rule.ticket", "ticket: NET-1204"),
    ("Rule.labels", "labels: {review: 2027-Q1}"),
];

fn page() -> String {
    let (title, rest) = HEAD.split_once('\n').expect("a title");
    let mut page = format!("{title}\n{NOTICE}{rest}");
    for (name, heading, _) in OBJECTS {
        let message = message(name);
        let _ = write!(
            page,
            "\n### {heading}\n\n{}\n\n",
            comment(&message.parent_file(), message.path())
        );
        page += "| field | what it is | type | default | example |\n|---|---|---|---|---|\n";
        for field in message.fields() {
            let full = format!("{name}.{}", field.name());
            let _ = writeln!(
                page,
                "| `{}` | {} | {} | {} | `{}` |",
                field.name(),
                comment(&field.parent_message().parent_file(), field.path()),
                kind(&field),
                default(&full, &field),
                example(&full),
            );
        }
        for field in message.fields() {
            if let Kind::Enum(words) = field.kind() {
                let _ = write!(page, "\n`{}` is one of:\n\n{}", field.name(), list(&words));
            }
        }
    }
    page
}

fn message(name: &str) -> MessageDescriptor {
    let full = format!("wardline.v1.{name}");
    POOL.get_message_by_name(&full).expect(name)
}

/// The comment above something in the proto file, in one line.
fn comment(file: &FileDescriptor, path: &[i32]) -> String {
    let info = file.file_descriptor_proto().source_code_info.as_ref();
    let places = info.map(|it| it.location.as_slice()).unwrap_or_default();
    let place = places.iter().find(|it| it.path == path);
    let text = place.map(|it| it.leading_comments()).unwrap_or_default();
    assert!(!text.is_empty(), "{path:?} has no comment");
    text.split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .replace('|', "\\|")
}

fn kind(field: &FieldDescriptor) -> String {
    let one = match field.kind() {
        Kind::String => "text".to_owned(),
        Kind::Bool => "`true` or `false`".to_owned(),
        Kind::Uint32 => "number".to_owned(),
        Kind::Enum(_) => "word".to_owned(),
        Kind::Message(message) if message.full_name() == time::NAME => "time (RFC 3339)".to_owned(),
        Kind::Message(_) if field.is_map() => "`KEY: VALUE`, both text".to_owned(),
        Kind::Message(_) => "object".to_owned(),
        other => panic!("{} is {other:?}: say how it is written", field.full_name()),
    };
    match field.is_list() {
        true if one == "text" => "list of texts".to_owned(),
        true => format!("list of {one}s"),
        false => one,
    }
}

fn default(full: &str, field: &FieldDescriptor) -> String {
    if REQUIRED.contains(&full) {
        return "required".to_owned();
    }
    match field.kind() {
        _ if field.is_map() => "`{}`".to_owned(),
        _ if field.is_list() => "`[]`".to_owned(),
        Kind::Enum(words) => {
            // The comment of the value for a field that is left out says which word it means.
            let zero = comment(&words.parent_file(), words.default_value().path());
            let stands_for = zero.strip_prefix("As ").and_then(|it| it.strip_suffix('.'));
            format!(
                "`{}`",
                stands_for.unwrap_or_else(|| panic!("{full}: {zero}"))
            )
        }
        Kind::Bool => "`false`".to_owned(),
        Kind::String => "empty".to_owned(),
        Kind::Message(_) => "unset".to_owned(),
        _ => "`0`".to_owned(),
    }
}

fn list(words: &EnumDescriptor) -> String {
    let named = words.values().filter(|it| it.number() != 0);
    let lines = named.map(|it| {
        let meaning = comment(&words.parent_file(), it.path());
        format!("- `{}`: {meaning}\n", word(words, it.name()))
    });
    lines.collect()
}

fn example(full: &str) -> &'static str {
    let found = EXAMPLES.iter().find(|(field, _)| *field == full);
    found.unwrap_or_else(|| panic!("{full} has no example")).1
}

#[test]
fn the_page_of_the_policy_is_up_to_date() {
    wardline_pages::check("policy.md", &page());
}

#[test]
fn every_example_reads_without_a_problem() {
    let (_, rest) = HEAD.split_once("```yaml\n").expect("a policy");
    let (whole, _) = rest.split_once("```").expect("the end of it");
    assert_eq!(parse(whole).1, []);
    for (field, example) in EXAMPLES {
        let (name, _) = field.split_once('.').expect(field);
        let object = OBJECTS.iter().find(|(it, ..)| *it == name).expect(field);
        let (_, _, around) = object;
        let text = around.replace("{}", &format!("{{{example}}}"));
        assert_eq!(parse(&text).1, [], "{field}: {text}");
    }
}
