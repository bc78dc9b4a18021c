//! Parses YAML or JSON to a tree of values, before their meaning is read.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, SeqAccess, Visitor},
};
use serde_saphyr::{Spanned, options::DuplicateKeyPolicy};

/// A value of a document. A mapping keeps its entries as written, so that duplicate keys can be
/// reported.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Node {
    Nothing,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(String),
    List(Vec<Placed>),
    Mapping(Vec<(Node, Placed)>),
}

/// A value, and the line where it begins; 0: not known, as for all of JSON.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Placed {
    pub(crate) node: Node,
    pub(crate) line: u64,
}

/// Most brackets and blocks within each other.
const DEEPEST: usize = 64;
/// Most aliases, and most merge keys.
const MOST_ALIASES: usize = 100_000;

/// Reads a text: JSON if it begins with `{` and is JSON, else YAML.
///
/// # Errors
/// What is wrong with the text, with line and column where the parser knows them.
pub(crate) fn read(text: &str) -> Result<Placed, String> {
    let text = text.trim_start_matches('\u{feff}');
    if !text.trim_start().starts_with('{') {
        return yaml(text).map_err(|error| format!("not YAML: {error}"));
    }
    // A flow mapping of YAML begins like JSON; if the text is neither, the error is that of JSON.
    json(text).or_else(|error| yaml(text).map_err(|_| format!("not JSON: {error}")))
}

fn json(text: &str) -> Result<Placed, serde_json::Error> {
    let node = serde_json::from_str(text)?;
    Ok(Placed { node, line: 0 })
}

fn yaml(text: &str) -> Result<Placed, serde_saphyr::Error> {
    // A text has fewer values than bytes. Only aliases and merge keys make more of them, and those may
    // make a few times as much as is written.
    let written = text.len().saturating_add(16);
    let room = text.len().saturating_mul(8).saturating_add(4096);
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: room,
            max_nodes: room,
            max_depth: DEEPEST,
            max_aliases: MOST_ALIASES,
            max_merge_keys: MOST_ALIASES,
            max_anchors: MOST_ALIASES,
            max_total_scalar_bytes: room,
            max_recorded_anchor_events: written,
            max_recorded_anchor_bytes: room,
        },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: room },
        // The walk that reads the meaning reports them, each with its path.
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        // Plain words are read as YAML 1.2 has them.
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        reject_unsupported_tags: true,
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options(text, options)
}

impl<'de> Deserialize<'de> for Placed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Node>::deserialize(deserializer)?;
        Ok(Self {
            node: spanned.value,
            line: spanned.defined.line(),
        })
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Value)
    }
}

struct Value;

impl<'de> Visitor<'de> for Value {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: Error>(self) -> Result<Node, E> {
        Ok(Node::Nothing)
    }

    fn visit_none<E: Error>(self) -> Result<Node, E> {
        Ok(Node::Nothing)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Integer(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Integer(value.into()))
    }

    fn visit_i128<E: Error>(self, value: i128) -> Result<Node, E> {
        Ok(Node::Integer(value))
    }

    fn visit_u128<E: Error>(self, value: u128) -> Result<Node, E> {
        Ok(i128::try_from(value).map_or(Node::Float(value as f64), Node::Integer))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Float(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
        let mut nodes = Vec::new();
        while let Some(node) = list.next_element()? {
            nodes.push(node);
        }
        Ok(Node::List(nodes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut mapping: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = mapping.next_entry()? {
            entries.push(entry);
        }
        Ok(Node::Mapping(entries))
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn text(value: &str) -> Node {
        Node::Text(value.to_owned())
    }

    /// The value of a text, and an error.
    fn read(text: &str) -> Result<Node, String> {
        super::read(text).map(|it| it.node)
    }

    fn list(nodes: impl IntoIterator<Item = Node>) -> Node {
        let placed = nodes.into_iter().map(|node| Placed { node, line: 0 });
        Node::List(placed.collect())
    }

    /// A value without its lines.
    fn bare(node: Node) -> Node {
        let placed = |it: Placed| Placed {
            node: bare(it.node),
            line: 0,
        };
        match node {
            Node::List(nodes) => Node::List(nodes.into_iter().map(placed).collect()),
            Node::Mapping(entries) => {
                let entries = entries.into_iter();
                Node::Mapping(
                    entries
                        .map(|(key, value)| (bare(key), placed(value)))
                        .collect(),
                )
            }
            other => other,
        }
    }

    #[test]
    fn yaml_and_json_give_the_same_tree() {
        let placed = |node| Placed { node, line: 0 };
        let items = list([Node::Integer(-1), Node::Float(1.5), Node::Nothing]);
        let tree = Node::Mapping(vec![
            (text("a"), placed(items)),
            (text("b"), placed(Node::Bool(true))),
        ]);
        for same in [
            "a: [-1, 1.5, null]\nb: true\n",
            r#"{"a": [-1, 1.5, null], "b": true}"#,
            "\u{feff}\n{a: [-1, 1.5, ~], b: true}",
        ] {
            assert_eq!(read(same).map(bare).as_ref(), Ok(&tree), "{same}");
        }
    }

    #[test]
    fn plain_scalars_are_of_yaml_1_2() {
        for (written, node) in [
            ("0x8892", Node::Integer(0x8892)),
            ("yes", text("yes")),
            ("\"02:00:00:00:01:01\"", text("02:00:00:00:01:01")),
            ("2026-12-01T00:00:00Z", text("2026-12-01T00:00:00Z")),
            ("017", text("017")),
            ("1_000", text("1_000")),
            ("off", text("off")),
            ("02:00:00:00:01:01", text("02:00:00:00:01:01")),
            ("!!str 3", text("3")),
        ] {
            assert_eq!(read(written), Ok(node), "{written}");
        }
    }

    #[test]
    fn a_text_without_a_value_is_nothing() {
        for empty in ["", "  \n", "# only a comment\n", "---\n", "null"] {
            assert_eq!(read(empty), Ok(Node::Nothing), "{empty:?}");
        }
    }

    #[test]
    fn tells_line_and_column() {
        for (broken, place) in [
            ("version: 1\nzones: [", "line 2, column 8"),
            ("a: b: c\n", "line 1, column 5"),
            ("a: !foo 1\n", "line 1, column 9"),
            ("{\"version\": 1,\n \"zones\": [}", "line 2 column 12"),
        ] {
            let error = read(broken).expect_err(broken);
            assert!(error.contains(place), "{broken:?}: {error}");
        }
    }

    #[test]
    fn refuses_a_second_document() {
        assert!(
            read("a: 1\n---\nb: 2\n")
                .expect_err("two documents")
                .contains("multiple YAML documents")
        );
    }

    #[test]
    fn aliases_may_repeat_a_value() {
        let tree = read("a: &x [1, 2]\nb: *x\n").expect("an alias");
        assert_eq!(read("a: [1, 2]\nb: [1, 2]\n").map(bare), Ok(bare(tree)));
    }

    #[test]
    fn a_value_has_its_line_also_where_an_alias_or_a_merge_brings_it() {
        let lines = |text: &str| -> Vec<u64> {
            let Ok(Node::Mapping(entries)) = read(text) else {
                panic!("no mapping")
            };
            entries.into_iter().map(|(_, value)| value.line).collect()
        };
        assert_eq!(lines("a: 1\n\nb:\n  - x\n"), [1, 4]);
        assert_eq!(lines("a: &x\n  c: 1\nb: *x\n"), [2, 2]);
        assert_eq!(lines("{\"a\": 1}"), [0], "JSON");
    }

    #[test]
    fn hostile_texts_end_soon() {
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for i in 1..40 {
            let alias = format!("*a{}, ", i - 1).repeat(10);
            bomb += &format!("a{i}: &a{i} [{alias}]\n");
        }
        let long = format!(
            "a: &a \"{}\"\nb: [{}]\n",
            "x".repeat(100_000),
            "*a, ".repeat(100_000)
        );
        let deep = "[".repeat(200_000);
        let dashes = "- ".repeat(200_000);
        let braces = "{\"a\":".repeat(200_000);
        let keys = "a: 1, ".repeat(1000).replace('a', "aaaaaaaaaa");
        let merges = format!("a: &a {{{keys}}}\nb: [{}]\n", "{<<: *a}, ".repeat(10_000));
        for hostile in [bomb, long, deep, dashes, braces, merges] {
            let begin = Instant::now();
            assert!(read(&hostile).is_err());
            assert!(
                begin.elapsed() < Duration::from_secs(5),
                "{}",
                &hostile[..40]
            );
        }
    }
}
