//! Words of strangers: how host names and URLs may be written, how long words fit into labels and names of
//! rules, and how any text is shown.

use ring::digest::{SHA256, digest};

/// Most bytes of a URL; it is kept in a field of each rule.
const LONGEST_URL: usize = 200;
/// Most characters of a label's value, and of a rule's name.
const LONGEST_WORD: usize = 63;

/// A text in quotes, without control characters, and shortened.
pub(crate) fn shown(text: &str) -> String {
    const MOST: usize = 80;
    let end = text.char_indices().nth(MOST).map(|it| it.0);
    match end {
        Some(end) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// A text on one line, without control characters, and shortened.
pub(crate) fn plain(text: &str, most: usize) -> String {
    let harmless = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().take(most).map(harmless).collect()
}

/// A host name in lower case.
///
/// # Errors
/// What is wrong with it. Letters beyond ASCII are refused, because many look like others; DNS has its own
/// form for them (`xn--…`), which shows what they are.
pub(crate) fn host(text: &str) -> Result<String, String> {
    let name = text.strip_suffix('.').unwrap_or(text);
    let label = |label: &str| {
        let fits = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'_';
        (1..=63).contains(&label.len()) && label.bytes().all(fits) && !label.starts_with('-')
    };
    if name.len() > 253 || !name.split('.').all(label) {
        return Err(format!("{} is no host name", shown(text)));
    }
    Ok(name.to_ascii_lowercase())
}

/// A URI that is only a name: it is never fetched.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn uri(text: &str) -> Result<String, String> {
    let fits = text.bytes().all(|c| c.is_ascii_graphic());
    if text.is_empty() || text.len() > LONGEST_URL || !fits || !text.contains(':') {
        return Err(format!(
            "{} is no URI of at most {LONGEST_URL} letters of ASCII",
            shown(text)
        ));
    }
    Ok(text.to_owned())
}

/// The URL of a MUD file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MudUrl {
    /// As the file has it.
    pub(crate) whole: String,
    /// Who is responsible for it, in lower case; a port is part of it.
    pub(crate) authority: String,
}

impl MudUrl {
    /// Reads a URL.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let whole = uri(text)?;
        let wrong = |why: &str| format!("{} {why}", shown(text));
        let scheme = whole.get(..8);
        if !scheme.is_some_and(|it| it.eq_ignore_ascii_case("https://")) {
            return Err(wrong("does not begin with https://"));
        }
        let rest = &whole[8..];
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        if authority.contains('@') {
            return Err(wrong("has a user name, which no MUD URL needs"));
        }
        if rest.contains('#') {
            return Err(wrong("has a fragment, which no MUD URL needs"));
        }
        let (name, port) = match authority.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (authority, None),
        };
        if port.is_some_and(|it| it.parse::<u16>().is_err()) {
            return Err(wrong("has a port that is none"));
        }
        host(name)?;
        Ok(Self {
            authority: authority.to_ascii_lowercase(),
            whole,
        })
    }
}

/// A word as the value of a label: itself if it fits, else its beginning and a hash of it.
pub(crate) fn label_value(text: &str) -> String {
    fitted(text, LONGEST_WORD, "~", 16)
}

/// The name of a rule for an entry of a file.
pub(crate) fn rule_name(url: &MudUrl, entry: &str, index: usize) -> String {
    let profile = fitted(&rule_letters(&url.whole[8..]), 20, "", 0);
    let hash = hash(&url.whole, 6);
    let letters = rule_letters(entry);
    let entry = match letters.len() {
        0 => format!("entry-{index}"),
        1..=31 if letters == entry => letters,
        _ => format!("{}-{index}", fitted(&letters, 24, "", 0)),
    };
    format!("mud.{profile}-{hash}.{entry}")
}

/// What names of rules may have of a text.
fn rule_letters(text: &str) -> String {
    let letter = |c: char| match c {
        c if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') => c,
        _ => '-',
    };
    let letters: String = text.chars().take(200).map(letter).collect();
    letters.trim_matches('-').to_owned()
}

/// A text that is cut where it is longer than `most`, and then ends with a hash of the whole.
fn fitted(text: &str, most: usize, mark: &str, digits: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(most - digits - mark.len());
    format!("{}{mark}{}", &text[..end], hash(text, digits))
}

/// The first digits of a text's SHA-256.
fn hash(text: &str, digits: usize) -> String {
    let mut all = hex(digest(&SHA256, text.as_bytes()).as_ref());
    all.truncate(digits);
    all
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn a_mud_url_is_https_and_of_one_host() {
        let url = MudUrl::read("https://Lights.Example.com:8443/a?b").unwrap();
        assert_eq!(url.authority, "lights.example.com:8443");
        for (text, says) in [
            ("http://a.example/", "begin with https"),
            ("https://b.example@a.example/", "user name"),
            ("https://a.example/#b.example", "fragment"),
            ("https:///x", "no host name"),
            ("https://a.example:99999/", "port"),
            // A Cyrillic letter that looks like an a.
            ("https://\u{430}.example/", "letters of ASCII"),
            ("https://a.example/ b", "letters of ASCII"),
            ("https://a.example\\b.example/", "no host name"),
        ] {
            let told = MudUrl::read(text);
            assert!(told.as_ref().is_err_and(|it| it.contains(says)), "{told:?}");
        }
    }

    #[test]
    fn what_is_cut_stays_different() {
        let long = |end: &str| format!("https://a.example/{}{end}", "x".repeat(80));
        let (one, two) = (label_value(&long("1")), label_value(&long("2")));
        assert_eq!(one.len(), 63);
        assert_ne!(one, two);
        assert_eq!(label_value("https://a.example/b"), "https://a.example/b");
        let url = MudUrl::read(&long("")).unwrap();
        for entry in ["from-0", "", "a b", "\u{1b}[2J", &"y".repeat(300)] {
            let name = rule_name(&url, entry, 7);
            let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
            assert!(name.len() <= 63 && name.chars().all(fits), "{name}");
        }
        assert_ne!(rule_name(&url, "a b", 1), rule_name(&url, "a-b", 2));
    }
}
