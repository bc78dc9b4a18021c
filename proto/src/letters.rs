//! Which letters of a text are written escaped, because they change how what is around them is read.

use serde_json::Value;

/// Whether a letter could steer a terminal, or show a text in another order than it has: control
/// characters (C0 and C1), the bidirectional controls of Unicode (UAX #9, section 2), further line
/// ends, and the byte order mark.
pub fn steers(letter: char) -> bool {
    letter.is_control()
        || matches!(
            letter,
            '\u{61c}'
                | '\u{200e}'
                | '\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2066}'..='\u{2069}'
                | '\u{feff}'
        )
}

/// A value as JSON, on one line or indented, with such letters escaped. It reads back as the same
/// value.
pub fn to_json(value: &Value, indented: bool) -> String {
    escaped(&if indented {
        format!("{value:#}")
    } else {
        value.to_string()
    })
}

/// JSON text with such letters escaped.
pub(crate) fn escaped(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for letter in json.chars() {
        // All below are escaped already, but for the line ends between values.
        if letter > '\u{7e}' && steers(letter) {
            out.push_str(&format!("\\u{:04x}", u32::from(letter)));
        } else {
            out.push(letter);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn json_shows_no_letter_that_steers_and_reads_back() {
        let text: String = ('\0'..='\u{2fff}')
            .chain(['\u{feff}', '\u{1f600}'])
            .collect();
        let value = json!({ "reason": text, "list": [1, "a\u{202e}b"] });
        for indented in [false, true] {
            let shown = to_json(&value, indented);
            assert!(
                !shown.contains(|letter| letter != '\n' && steers(letter)),
                "{shown}"
            );
            assert_eq!(
                serde_json::from_str::<Value>(&shown).ok(),
                Some(value.clone())
            );
        }
        assert_eq!(
            to_json(&json!("a\u{9b}\u{202e}→é"), false),
            r#""a\u009b\u202e→é""#
        );
    }
}
