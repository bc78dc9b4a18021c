//! Names of DNS: how a rule may write them, and how a question has them on the wire.

use std::{fmt, net::IpAddr, str::FromStr};

use wardline_ebpf::abi::{NAME_BYTES, NameText};

use super::problem::Quoted;

/// Most characters of a name, and of one of its labels (RFC 1035 section 2.3.4).
const MAX_NAME: usize = 253;
const MAX_LABEL: usize = 63;

/// A name of DNS, or all names below one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Domain {
    /// The name, in lower case and without a dot at its end.
    name: String,
    /// Whether it means the names below this one, with one more label or several, and not this one.
    below: bool,
}

impl Domain {
    /// The name; without `*.` if it means the names below it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it means all names below the name.
    pub fn is_below(&self) -> bool {
        self.below
    }

    /// The name as tables have it.
    pub fn text(&self) -> NameText {
        let mut text = [0; NAME_BYTES];
        let mut at = 0;
        for label in self.name.split('.') {
            let bytes = std::iter::once(label.len() as u8).chain(label.bytes());
            for byte in bytes {
                if let Some(place) = text.get_mut(at) {
                    *place = byte;
                }
                at += 1;
            }
        }
        NameText(text)
    }

    /// The names around it, from the longest.
    pub fn around(&self) -> impl Iterator<Item = &str> {
        let dots = self.name.match_indices('.');
        dots.map(|(at, _)| &self.name[at + 1..])
    }

    /// Whether every name that the other means is one that this one means, too.
    pub fn covers(&self, other: &Self) -> bool {
        if self == other {
            return true;
        }
        let inside = other.name.strip_suffix(self.name.as_str());
        self.below
            && inside.is_some_and(|rest| rest.ends_with('.') || rest.is_empty() && other.below)
    }
}

impl FromStr for Domain {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let quoted = Quoted(text);
        if let Ok(address) = text.parse::<IpAddr>() {
            let length = if address.is_ipv4() { 32 } else { 128 };
            return Err(format!(
                "{quoted} is an address; did you mean \"cidr:{address}/{length}\"?"
            ));
        }
        if !text.is_ascii() {
            return Err(format!(
                "{quoted} has more than ASCII; write the name as DNS has it, which begins with xn--"
            ));
        }
        let lower = text.to_ascii_lowercase();
        let (below, name) = match lower.strip_prefix("*.") {
            Some(name) => (true, name),
            None => (false, lower.as_str()),
        };
        let name = name.strip_suffix('.').unwrap_or(name);
        if name.is_empty() || name == "*" {
            return Err(format!(
                "{quoted} is no name; write it as name:updates.vendor.example or \
                 name:*.vendor.example"
            ));
        }
        if name.len() > MAX_NAME {
            return Err(format!(
                "{quoted} has {} characters; a name has at most {MAX_NAME}",
                name.len()
            ));
        }
        for label in name.split('.') {
            let allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_');
            if label.is_empty() {
                return Err(format!("{quoted} has a label without characters"));
            }
            if label.len() > MAX_LABEL {
                return Err(format!(
                    "{quoted} has a label of {} characters; a label has at most {MAX_LABEL}",
                    label.len()
                ));
            }
            if label.contains('*') {
                return Err(format!(
                    "{quoted} has `*` in the middle; it may only stand first, as in \
                     name:*.vendor.example"
                ));
            }
            if !label.bytes().all(allowed) {
                return Err(format!(
                    "{quoted} has more than letters, digits, `-` and `_`"
                ));
            }
        }
        Ok(Self {
            name: name.to_owned(),
            below,
        })
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let star = if self.below { "*." } else { "" };
        write!(f, "{star}{}", self.name)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn names_are_read_as_dns_has_them() {
        for (text, read) in [
            ("Updates.Vendor.EXAMPLE", "updates.vendor.example"),
            ("updates.vendor.example.", "updates.vendor.example"),
            ("*.vendor.example", "*.vendor.example"),
            ("_sip.printer", "_sip.printer"),
        ] {
            assert_eq!(text.parse::<Domain>().unwrap().to_string(), read);
        }
        let text = "ab.c".parse::<Domain>().unwrap().text();
        assert_eq!(&text.0[..7], b"\x02ab\x01c\0\0");
    }

    #[test]
    fn what_is_no_name_is_refused_with_the_cure() {
        for (text, told) in [
            ("", "is no name"),
            ("*", "is no name"),
            ("*.", "is no name"),
            ("a..b", "without characters"),
            ("a.*.b", "may only stand first"),
            ("a*.b", "may only stand first"),
            ("a b.c", "more than letters"),
            ("bücher.example", "xn--"),
            ("10.0.0.1", "cidr:10.0.0.1/32"),
            ("2001:db8::1", "cidr:2001:db8::1/128"),
        ] {
            let refused = text.parse::<Domain>().unwrap_err();
            assert!(refused.contains(told), "{text}: {refused}");
        }
        let long = "a".repeat(64);
        assert!(long.parse::<Domain>().unwrap_err().contains("64"));
        let long = vec!["abcdefg"; 40].join(".");
        assert!(long.parse::<Domain>().unwrap_err().contains("at most 253"));
    }

    #[test]
    fn a_star_covers_the_names_below_and_not_its_own() {
        let covers = |one: &str, other: &str| {
            let [one, other] = [one, other].map(|it| it.parse::<Domain>().unwrap());
            one.covers(&other)
        };
        assert!(covers("*.a.b", "x.a.b") && covers("*.a.b", "y.x.a.b"));
        assert!(covers("*.a.b", "*.x.a.b") && covers("*.a.b", "*.a.b"));
        assert!(!covers("*.a.b", "a.b") && !covers("*.a.b", "xa.b") && !covers("a.b", "x.a.b"));
    }
}
