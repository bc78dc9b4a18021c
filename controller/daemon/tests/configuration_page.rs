//! `docs/configuration.md` describes what the daemon reads: it is made from the doc comments of the
//! keys, and from the daemon's own messages about defaults and bounds.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use syn::{Attribute, Expr, Fields, GenericArgument, Item, Lit, Meta, PathArguments, Type};
use toml::{Table, Value};
use wardline_daemon::config::Config;

/// The files that declare the keys.
const SOURCES: [&str; 2] = ["src/config.rs", "src/config/file.rs"];

const INTRO: &str = "\
# Configuration

<!-- Made by `cargo xtask pages` from the doc comments of the daemon's configuration; a test fails when this page is not what they say. -->

This page lists every key of `wardlined.toml`. It is for the person who runs the router.

`wardlined --config FILE` reads FILE; without the flag `/etc/wardline/wardlined.toml` is read if it is there. Every key is optional. A key
that is not known, and a value out of its bounds, are refused with the line that they stand in. Paths are absolute. After a change of
the file restart the daemon; guarding goes on meanwhile. A signal (`kill -HUP`) is enough for `log.level`; it names keys that need more.

```sh
wardlined --check              # prints the whole configuration, defaults too, or what is wrong
wardlined --log debug          # error, warn, info (the default), debug or trace
wardlined --log-format json    # text (the default), json or journald
```
";

/// A key, as the page describes it.
struct Key {
    name: String,
    kind: String,
    about: String,
    example: Option<String>,
}

/// A heading and its keys.
struct Section {
    title: String,
    about: String,
    keys: Vec<Key>,
}

#[test]
fn the_page_of_the_configuration_is_what_the_doc_comments_say() {
    wardline_pages::check("configuration.md", &page());
}

#[test]
fn the_examples_are_a_configuration() {
    let examples = examples();
    let config = Config::parse(&examples, Path::new("examples.toml")).expect("a configuration");
    let table: Table = config.to_string().parse().expect("what it says is TOML");
    assert_eq!(table["limits"]["flows"].as_integer(), Some(65536));
}

fn page() -> String {
    let mut page = INTRO.to_owned();
    let defaults: Table = default_text().parse().expect("what it says is TOML");
    for Section { title, about, keys } in sections() {
        let _ = write!(page, "\n## {title}\n\n{about}\n\n");
        page += "| key | type | default | what it does | example |\n|---|---|---|---|---|\n";
        for key in keys {
            let _ = writeln!(
                page,
                "| `{}` | {} | {} | {} | {} |",
                key.name,
                kind(&key),
                default(&key, &defaults),
                key.about,
                key.example.map_or(String::new(), |it| format!("`{it}`"))
            );
        }
    }
    let _ = write!(
        page,
        "\n## A whole file\n\nEvery key once, with the examples from above.\n\n```toml\n{}```\n",
        examples()
    );
    page
}

/// All examples, as one file.
fn examples() -> String {
    let keys = sections().into_iter().flat_map(|section| section.keys);
    let mut text = String::new();
    for example in keys.filter_map(|key| key.example) {
        text += &example;
        text.push('\n');
    }
    text
}

/// The configuration that the daemon prints for an empty file.
fn default_text() -> String {
    let config = Config::parse("", Path::new("empty.toml")).expect("the defaults");
    config.to_string()
}

fn default(key: &Key, defaults: &Table) -> String {
    if key.name == "router" {
        return "the host's name".to_owned();
    }
    if key.name.contains("[]") || key.name.starts_with("api.tls.") {
        return "required".to_owned();
    }
    let mut names = key.name.split('.');
    let top = names.next().and_then(|name| defaults.get(name));
    let value = names.fold(top, |value, name| value?.get(name));
    match value {
        None => "off".to_owned(),
        Some(Value::Array(all)) if all.is_empty() => "none".to_owned(),
        Some(value) => format!("`{value}`"),
    }
}

/// The type, with the bounds that the daemon's message for an invalid number gives.
fn kind(key: &Key) -> String {
    if key.kind != NUMBER {
        return key.kind.clone();
    }
    let text = format!("{} = -1", key.name);
    let refused = Config::parse(&text, Path::new("x")).expect_err("out of bounds");
    let refused = refused.to_string();
    let (_, bounds) = refused.split_once("is not from ").expect("bounds");
    let unit = match key.name.starts_with("timeouts.") {
        true => "seconds",
        false => NUMBER,
    };
    format!("{unit}, {bounds}")
}

// ── the source ─────────────────────────────────────────────────────────────────────────────────

const NUMBER: &str = "number";

/// The keys in the order of the source: those of the file itself, then those of each table.
fn sections() -> Vec<Section> {
    let mut declared = BTreeMap::new();
    for source in SOURCES {
        let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(source);
        let source = fs::read_to_string(source).expect("the source");
        declared.extend(items(&syn::parse_file(&source).expect("Rust")));
    }
    let items = declared;
    let mut top = Section {
        title: "The router".to_owned(),
        about: "What is not in a table.".to_owned(),
        keys: Vec::new(),
    };
    let mut tables = Vec::new();
    for field in &items["File"] {
        let (about, example) = told(&field.docs);
        match items.get(&field.kind) {
            // A table with its own heading, not a list of tables or an inline table.
            Some(_) if example.is_none() => {
                let mut keys = Vec::new();
                collect(&items, &field.kind, &field.name, &mut keys);
                tables.push(Section {
                    title: format!("`[{}]`", field.name),
                    about,
                    keys,
                });
            }
            _ => one(&items, field, "", &mut top.keys),
        }
    }
    tables.insert(0, top);
    tables
}

fn collect(items: &BTreeMap<String, Vec<Field>>, item: &str, prefix: &str, keys: &mut Vec<Key>) {
    for field in &items[item] {
        one(items, field, &format!("{prefix}."), keys);
    }
}

/// A key, and the keys of the table that it holds.
fn one(items: &BTreeMap<String, Vec<Field>>, field: &Field, prefix: &str, keys: &mut Vec<Key>) {
    let (about, example) = told(&field.docs);
    let name = format!("{prefix}{}", field.name);
    let inner = items.contains_key(&field.kind).then_some(&field.kind);
    let kind = match (field.list, inner) {
        (true, Some(_)) => "list of tables".to_owned(),
        (true, None) => "list of texts".to_owned(),
        (false, Some(_)) => "table".to_owned(),
        (false, None) => spelled(&field.kind).to_owned(),
    };
    keys.push(Key {
        name: name.clone(),
        kind,
        about,
        example,
    });
    if let Some(inner) = inner {
        let list = if field.list { "[]" } else { "" };
        collect(items, inner, &format!("{name}{list}"), keys);
    }
}

/// The usual name of a type.
fn spelled(kind: &str) -> &str {
    match kind {
        "PathBuf" => "path",
        "String" => "text",
        "Role" => "role",
        "OnFailure" => "`closed` or `open`",
        "LogFormat" => "`text`, `json` or `journald`",
        "i64" => NUMBER,
        other => panic!("what is a {other} to people?"),
    }
}

/// A key as it is declared.
struct Field {
    name: String,
    /// The innermost type.
    kind: String,
    /// Whether it may have several values.
    list: bool,
    docs: String,
}

/// The structs and enums of the file; an enum lists the keys of a table of numbers.
fn items(file: &syn::File) -> BTreeMap<String, Vec<Field>> {
    let mut items = BTreeMap::new();
    for item in &file.items {
        match item {
            Item::Struct(item) if item.ident != "Flags" => {
                let Fields::Named(fields) = &item.fields else {
                    continue;
                };
                let fields = fields.named.iter().map(|field| {
                    let name = field.ident.as_ref().expect("a name").to_string();
                    let (kind, list) = innermost(&field.ty);
                    Field {
                        name: name.trim_start_matches("r#").to_owned(),
                        kind,
                        list,
                        docs: docs(&field.attrs),
                    }
                });
                items.insert(item.ident.to_string(), fields.collect());
            }
            Item::Enum(item) if ["Limit", "Timeout"].iter().any(|name| item.ident == name) => {
                let variants = item.variants.iter().map(|variant| Field {
                    name: snake_case(&variant.ident.to_string()),
                    kind: "i64".to_owned(),
                    list: false,
                    docs: docs(&variant.attrs),
                });
                items.insert(item.ident.to_string(), variants.collect());
            }
            _ => {}
        }
    }
    items
}

/// The type inside options, lists and spans, and for a map the type of its keys; and whether there
/// is a list.
fn innermost(kind: &Type) -> (String, bool) {
    let Type::Path(path) = kind else {
        return (String::new(), false);
    };
    let last = path.path.segments.last().expect("a segment");
    let name = last.ident.to_string();
    let PathArguments::AngleBracketed(arguments) = &last.arguments else {
        return (name, false);
    };
    let Some(GenericArgument::Type(inner)) = arguments.args.first() else {
        return (name, false);
    };
    let (inner, list) = innermost(inner);
    (inner, list || name == "Vec")
}

fn docs(attributes: &[Attribute]) -> String {
    let mut lines = Vec::new();
    for attribute in attributes {
        if let Meta::NameValue(meta) = &attribute.meta
            && meta.path.is_ident("doc")
            && let Expr::Lit(text) = &meta.value
            && let Lit::Str(text) = &text.lit
        {
            lines.push(text.value().trim().to_owned());
        }
    }
    lines.join("\n")
}

/// The description in a doc comment, in one line, and its example.
fn told(docs: &str) -> (String, Option<String>) {
    let (about, example) = match docs.split_once("\n\nExample: ") {
        Some((about, example)) => (about, Some(example.trim_matches('`').to_owned())),
        None => (docs, None),
    };
    assert!(!about.is_empty(), "a key without a doc comment");
    (about.replace('\n', " "), example)
}

fn snake_case(name: &str) -> String {
    let mut text = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !text.is_empty() {
            text.push('_');
        }
        text.push(letter.to_ascii_lowercase());
    }
    text
}
