//! Reads JSON of strangers: refuses what is read in two ways, what is too deep, and what is too much.
//!
//! A key that is given twice means one thing to one reader and another to the next. So it is refused.

use serde::de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor};

/// Most levels of lists and objects within each other.
const DEEPEST: usize = 24;
/// Most values in a file.
const MOST_VALUES: usize = 100_000;

/// A value of JSON.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Node {
    Null,
    Bool(bool),
    /// A whole number that is not negative.
    Number(u64),
    /// Any other number: no field of a MUD file has one.
    OtherNumber,
    Text(String),
    List(Vec<Node>),
    /// In the file's order; each key once.
    Object(Vec<(String, Node)>),
}

impl Node {
    /// Reads a text.
    ///
    /// # Errors
    /// What is wrong with it, with line and column.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let mut values = MOST_VALUES;
        let mut reader = serde_json::Deserializer::from_str(text);
        let seed = Seed {
            levels: DEEPEST,
            values: &mut values,
        };
        let node = seed
            .deserialize(&mut reader)
            .and_then(|node| reader.end().map(|()| node));
        node.map_err(|error| error.to_string())
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        self.fields().find(|(name, _)| *name == key).map(|it| it.1)
    }

    /// The fields of an object; none of anything else.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (&str, &Self)> {
        let fields: &[(String, Self)] = match self {
            Self::Object(fields) => fields,
            _ => &[],
        };
        fields.iter().map(|(name, node)| (name.as_str(), node))
    }

    /// The entries of a list; none of anything else.
    pub(crate) fn entries(&self) -> &[Self] {
        match self {
            Self::List(entries) => entries,
            _ => &[],
        }
    }

    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn number(&self) -> Option<u64> {
        match self {
            Self::Number(number) => Some(*number),
            _ => None,
        }
    }
}

/// Reads one value, with what is left of the bounds.
struct Seed<'a> {
    levels: usize,
    values: &'a mut usize,
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Node;

    fn deserialize<D: de::Deserializer<'de>>(self, reader: D) -> Result<Node, D::Error> {
        if *self.values == 0 {
            return Err(de::Error::custom(format!(
                "more than {MOST_VALUES} values; no device needs as many"
            )));
        }
        *self.values -= 1;
        reader.deserialize_any(self)
    }
}

impl Seed<'_> {
    fn inside<E: de::Error>(&mut self) -> Result<Seed<'_>, E> {
        let Some(levels) = self.levels.checked_sub(1) else {
            let message = format!("more than {DEEPEST} lists and objects within each other");
            return Err(E::custom(message));
        };
        Ok(Seed {
            levels,
            values: self.values,
        })
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Number(value))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Node, E> {
        Ok(Node::OtherNumber)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
        Ok(Node::OtherNumber)
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = list.next_element_seed(self.inside()?)? {
            entries.push(entry);
        }
        Ok(Node::List(entries))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut object: A) -> Result<Node, A::Error> {
        let mut fields: Vec<(String, Node)> = Vec::new();
        let mut keys = std::collections::BTreeSet::new();
        while let Some(key) = object.next_key::<String>()? {
            if !keys.insert(key.clone()) {
                let key = crate::words::shown(&key);
                return Err(de::Error::custom(format!("{key} is given twice")));
            }
            fields.push((key, object.next_value_seed(self.inside()?)?));
        }
        Ok(Node::Object(fields))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn reads_values() {
        let node = Node::read(r#"{"a": [null, true, 7, -1, 1.5, "x"], "b": {}}"#).unwrap();
        let list = node.get("a").unwrap().entries();
        assert_eq!(list[2].number(), Some(7));
        assert_eq!(
            (&list[3], &list[4]),
            (&Node::OtherNumber, &Node::OtherNumber)
        );
        assert_eq!(list[5].text(), Some("x"));
        assert_eq!(node.fields().count(), 2);
    }

    #[test]
    fn refuses_what_can_be_read_in_two_ways_and_what_is_too_much() {
        for (text, says) in [
            (r#"{"a": 1, "a": 2}"#.to_owned(), "\"a\" is given twice"),
            // The same key, written in two ways.
            (
                r#"{"a": 1, "\u0061": 2}"#.to_owned(),
                "\"a\" is given twice",
            ),
            ("[".repeat(100) + &"]".repeat(100), "within each other"),
            (format!("[{}0]", "0,".repeat(MOST_VALUES)), "values"),
            ("{} {}".to_owned(), "trailing"),
            ("{".to_owned(), "EOF"),
        ] {
            let told = Node::read(&text);
            assert!(told.as_ref().is_err_and(|it| it.contains(says)), "{told:?}");
        }
    }
}
