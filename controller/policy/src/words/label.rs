//! Labels: words with a key and a value that people give to objects, and how they may be written.

use std::{collections::BTreeMap, fmt, str::FromStr};

use super::problem::Quoted;

/// Most labels of one object.
pub(crate) const MAX_LABELS: usize = 32;

/// Most characters of a key, and of a value.
const MAX_WORD: usize = 63;

/// A label, as a rule names it: `ward=3`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label {
    /// What it says something about.
    pub key: String,
    /// What it says.
    pub value: String,
}

impl Label {
    /// Tells whether it is one of an object's labels.
    pub fn is_in(&self, labels: &BTreeMap<String, String>) -> bool {
        labels.get(&self.key) == Some(&self.value)
    }
}

impl FromStr for Label {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((key, value)) = text.split_once('=') else {
            let quoted = Quoted(text);
            return Err(format!("{quoted} has no value; write label:KEY=VALUE"));
        };
        check_key(key)?;
        check_value(value)?;
        Ok(Self {
            key: key.to_owned(),
            value: value.to_owned(),
        })
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.key, self.value)
    }
}

/// Checks the key of a label.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn check_key(key: &str) -> Result<(), String> {
    let quoted = Quoted(key);
    let allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-' | b'/');
    if key.is_empty() {
        return Err("a label without a key; write KEY: VALUE".to_owned());
    }
    if key.len() > MAX_WORD {
        let length = key.len();
        return Err(format!(
            "the key {quoted} has {length} characters; at most {MAX_WORD}"
        ));
    }
    if !key.bytes().all(allowed) {
        return Err(format!(
            "the key {quoted} has more than letters, digits, `.`, `_`, `-` and `/`"
        ));
    }
    Ok(())
}

/// Checks the value of a label.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn check_value(value: &str) -> Result<(), String> {
    let quoted = Quoted(value);
    let length = value.chars().count();
    if value.is_empty() {
        return Err("a label without a value; write KEY: VALUE".to_owned());
    }
    if length > MAX_WORD {
        return Err(format!(
            "the value {quoted} has {length} characters; at most {MAX_WORD}"
        ));
    }
    if value.chars().any(char::is_control) || value.trim() != value {
        return Err(format!(
            "the value {quoted} has control characters, or blanks around it"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Label, String> {
        text.parse()
    }

    #[test]
    fn what_is_written_reads_back() {
        for text in ["ward=3", "wardline.io/model=P7 (2019)", "a=b=c", "ort=Süd"] {
            assert_eq!(read(text).map(|it| it.to_string()).as_deref(), Ok(text));
        }
    }

    #[test]
    fn names_what_is_wrong() {
        let long = "x".repeat(64);
        for (text, says) in [
            ("ward", "has no value"),
            ("=3", "without a key"),
            ("ward=", "without a value"),
            ("wa rd=3", "has more than letters"),
            ("ward= 3", "blanks around it"),
            ("ward=a\nb", "control characters"),
            (&format!("{long}=1"), "has 64 characters"),
            (&format!("a={long}"), "has 64 characters"),
        ] {
            let told = read(text);
            assert!(told.as_ref().is_err_and(|it| it.contains(says)), "{told:?}");
        }
    }
}
