//! Parses YAML or JSON to a tree of values, before their meaning is read.

use std::{cell::Cell, fmt};

use serde::{
    Deserializer,
    de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor},
};

/// A value of a document. A mapping keeps its entries as written, so that duplicate keys can be
/// reported.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Node {
    Nothing,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Mapping(Vec<(Node, Node)>),
}

/// Reads a text: JSON if it begins with `{` and is JSON, else YAML.
///
/// # Errors
/// What is wrong with the text, with line and column where the parser knows them.
pub(crate) fn read(text: &str) -> Result<Node, String> {
    let text = text.trim_start_matches('\u{feff}');
    if !text.trim_start().starts_with('{') {
        return yaml(text).map_err(|error| format!("not YAML: {error}"));
    }
    // A flow mapping of YAML begins like JSON; if the text is neither, the error is that of JSON.
    json(text).or_else(|error| yaml(text).map_err(|_| format!("not JSON: {error}")))
}

fn json(text: &str) -> Result<Node, serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let node = Value { room: &room(text) }.deserialize(&mut reader)?;
    reader.end()?;
    Ok(node)
}

fn yaml(text: &str) -> Result<Node, serde_yaml_ng::Error> {
    if too_deep(text) {
        return Err(serde_yaml_ng::Error::custom("nested too deeply"));
    }
    let mut documents = serde_yaml_ng::Deserializer::from_str(text);
    let Some(first) = documents.next() else {
        return Ok(Node::Nothing);
    };
    let node = Value { room: &room(text) }.deserialize(first)?;
    match documents.next() {
        None => Ok(node),
        Some(_) => Err(serde_yaml_ng::Error::custom("more than one document")),
    }
}

/// Whether brackets are nested deeper than any document needs. The scanner examines every open
/// bracket for every token, so a text of open brackets would keep it busy for hours.
fn too_deep(text: &str) -> bool {
    const MOST: u32 = 256;
    let mut depth = 0_u32;
    text.bytes().any(|byte| {
        match byte {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth > MOST
    })
}

/// The limit on the cost of a text's tree: one for each value and for each byte of text. Without
/// aliases a tree costs less than two for each byte, so only aliases that multiply reach the limit,
/// and the tree stays within a constant factor of the text.
fn room(text: &str) -> Cell<usize> {
    Cell::new(text.len().saturating_mul(8).saturating_add(4096))
}

#[derive(Clone, Copy)]
struct Value<'a> {
    room: &'a Cell<usize>,
}

impl Value<'_> {
    fn charge<E: Error>(self, bytes: usize) -> Result<(), E> {
        let left = self.room.get().checked_sub(bytes.saturating_add(1));
        self.room
            .set(left.ok_or_else(|| E::custom("aliases multiply the document"))?);
        Ok(())
    }

    fn scalar<E: Error>(self, node: Node) -> Result<Node, E> {
        self.charge(0)?;
        Ok(node)
    }
}

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a value without a tag")
    }

    fn visit_unit<E: Error>(self) -> Result<Node, E> {
        self.scalar(Node::Nothing)
    }

    fn visit_none<E: Error>(self) -> Result<Node, E> {
        self.scalar(Node::Nothing)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Node, E> {
        self.scalar(Node::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Node, E> {
        self.scalar(Node::Integer(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Node, E> {
        self.scalar(Node::Integer(value.into()))
    }

    fn visit_i128<E: Error>(self, value: i128) -> Result<Node, E> {
        self.scalar(Node::Integer(value))
    }

    fn visit_u128<E: Error>(self, value: u128) -> Result<Node, E> {
        self.scalar(i128::try_from(value).map_or(Node::Float(value as f64), Node::Integer))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Node, E> {
        self.scalar(Node::Float(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Node, E> {
        self.charge(value.len())?;
        Ok(Node::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
        self.charge(0)?;
        let mut nodes = Vec::new();
        while let Some(node) = list.next_element_seed(self)? {
            nodes.push(node);
        }
        Ok(Node::List(nodes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut mapping: A) -> Result<Node, A::Error> {
        self.charge(0)?;
        let mut entries = Vec::new();
        while let Some(key) = mapping.next_key_seed(self)? {
            entries.push((key, mapping.next_value_seed(self)?));
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

    #[test]
    fn yaml_and_json_give_the_same_tree() {
        let tree = Node::Mapping(vec![
            (
                text("a"),
                Node::List(vec![Node::Integer(-1), Node::Float(1.5), Node::Nothing]),
            ),
            (text("b"), Node::Bool(true)),
        ]);
        for same in [
            "a: [-1, 1.5, null]\nb: true\n",
            r#"{"a": [-1, 1.5, null], "b": true}"#,
            "\u{feff}\n{a: [-1, 1.5, ~], b: true}",
        ] {
            assert_eq!(read(same).as_ref(), Ok(&tree), "{same}");
        }
    }

    #[test]
    fn plain_scalars_are_of_yaml_1_2() {
        for (written, node) in [
            ("0x8892", Node::Integer(0x8892)),
            ("yes", text("yes")),
            ("\"02:00:00:00:01:01\"", text("02:00:00:00:01:01")),
            ("2026-12-01T00:00:00Z", text("2026-12-01T00:00:00Z")),
            (
                "99999999999999999999999",
                Node::Integer(99_999_999_999_999_999_999_999),
            ),
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
            ("version: 1\nzones: [", "line 3 column 1"),
            ("a: b: c\n", "line 1 column 5"),
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
                .contains("more than one document")
        );
    }

    #[test]
    fn aliases_may_repeat_a_value() {
        let tree = read("a: &x [1, 2]\nb: *x\n").expect("an alias");
        assert_eq!(read("a: [1, 2]\nb: [1, 2]\n"), Ok(tree));
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
        for hostile in [bomb, long, deep, dashes, braces] {
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
