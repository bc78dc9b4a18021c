//! The names in a client's certificate, and the patterns that give them roles.
//!
//! A pattern has a kind and fits names of that kind only. Alternative names count (RFC 9525, section
//! 2), because name constraints of an authority hold for them; the common name counts only for a
//! pattern of kind `cn`.

use std::{fmt, net::IpAddr, str::FromStr};

use ipnet::IpNet;
use regex::{Regex, RegexBuilder};

/// The kind of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A URI.
    Uri,
    /// A host's name.
    Dns,
    /// A mail address.
    Email,
    /// An IP address.
    Ip,
    /// The common name of the subject.
    Cn,
}

/// A name in a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its kind.
    pub kind: Kind,
    /// The name.
    pub name: String,
}

/// A pattern of names.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: String,
    kind: Kind,
    fits: Fits,
}

#[derive(Clone, Debug)]
enum Fits {
    Text(Regex),
    Addresses(IpNet),
}

/// Why a text is no pattern.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PatternError {
    /// There is no name.
    #[error("empty; write a name, such as uri:spiffe://clinic/netops/*")]
    Empty,
    /// The kind is `ip`, and the name is something else.
    #[error("{0:?} is no address and no prefix; write ip:10.9.0.2 or ip:10.9.0.0/24")]
    NoAddress(String),
    /// Two stars beside each other.
    #[error("** is not known; one * stands for one or more letters within a label or a segment")]
    Stars,
    /// The name is too long.
    #[error("too long: {0}")]
    TooLong(regex::Error),
}

impl Kind {
    const ALL: [(&'static str, Self); 5] = [
        ("uri:", Self::Uri),
        ("dns:", Self::Dns),
        ("email:", Self::Email),
        ("ip:", Self::Ip),
        ("cn:", Self::Cn),
    ];

    /// The kind that a name without one looks like. It is never `cn`.
    fn of(name: &str) -> Self {
        if name.contains("://") {
            Self::Uri
        } else if name.contains('@') {
            Self::Email
        } else if name.parse::<IpAddr>().is_ok() || name.parse::<IpNet>().is_ok() {
            Self::Ip
        } else {
            Self::Dns
        }
    }
}

impl Pattern {
    /// Whether a name fits.
    pub fn fits(&self, identity: &Identity) -> bool {
        self.kind == identity.kind
            && match &self.fits {
                Fits::Text(pattern) => pattern.is_match(&identity.name),
                Fits::Addresses(net) => {
                    let address: Result<IpAddr, _> = identity.name.parse();
                    address.is_ok_and(|address| net.contains(&address))
                }
            }
    }
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let typed = Kind::ALL.into_iter().find_map(|(prefix, kind)| {
            let name = text.strip_prefix(prefix)?;
            Some((kind, name))
        });
        let (kind, name) = typed.unwrap_or_else(|| (Kind::of(text), text));
        if name.is_empty() {
            return Err(PatternError::Empty);
        }
        let fits = match kind {
            Kind::Ip => {
                let net = name
                    .parse()
                    .or_else(|_| name.parse::<IpAddr>().map(IpNet::from));
                let net = net.map_err(|_| PatternError::NoAddress(name.to_owned()))?;
                Fits::Addresses(net)
            }
            _ if name.contains("**") => return Err(PatternError::Stars),
            kind => Fits::Text(pattern(kind, name).map_err(PatternError::TooLong)?),
        };
        Ok(Self {
            text: text.to_owned(),
            kind,
            fits,
        })
    }
}

/// The expression for a name in which a star stands for one or more letters that end no label and no
/// segment.
fn pattern(kind: Kind, name: &str) -> Result<Regex, regex::Error> {
    // Of a mail address only the domain has labels (RFC 5321).
    let star = |before: &str| match kind {
        Kind::Email if !before.contains('@') => "[^@]+",
        Kind::Email | Kind::Dns => "[^.@]+",
        Kind::Uri => "[^/?#]+",
        Kind::Cn | Kind::Ip => "[^./@]+",
    };
    let mut expression = String::from(r"\A");
    for (at, part) in name.split('*').enumerate() {
        if at > 0 {
            let before = name.split('*').take(at).collect::<String>();
            expression.push_str(star(&before));
        }
        expression.push_str(&regex::escape(part));
    }
    expression.push_str(r"\z");
    RegexBuilder::new(&expression)
        // Host names do not depend on case (RFC 4343), and mailboxes that differ in nothing else
        // belong to one person.
        .case_insensitive(matches!(kind, Kind::Dns | Kind::Email))
        .build()
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [Kind; 5] = [Kind::Uri, Kind::Dns, Kind::Email, Kind::Ip, Kind::Cn];

    /// The kinds of name that a pattern fits.
    fn fits(pattern: &str, name: &str) -> Vec<Kind> {
        let pattern: Pattern = pattern.parse().expect("a pattern");
        let fits = |kind: &Kind| {
            pattern.fits(&Identity {
                kind: *kind,
                name: name.to_owned(),
            })
        };
        KINDS.into_iter().filter(fits).collect()
    }

    #[test]
    fn a_pattern_fits_names_of_its_kind_only() {
        for (pattern, name, kind) in [
            (
                "uri:spiffe://clinic/netops/*",
                "spiffe://clinic/netops/ada",
                Kind::Uri,
            ),
            ("dns:ada", "ada", Kind::Dns),
            ("dns:*.clinic.example", "Laptop.clinic.example", Kind::Dns),
            (
                "email:*@clinic.example",
                "ada.l@clinic.example",
                Kind::Email,
            ),
            ("email:ada@*.example", "ada@clinic.example", Kind::Email),
            ("ip:10.9.0.0/24", "10.9.0.7", Kind::Ip),
            ("ip:2001:db8::7", "2001:db8::7", Kind::Ip),
            ("cn:ada", "ada", Kind::Cn),
            // Without a kind it is the one that the name looks like.
            (
                "spiffe://clinic/netops/*",
                "spiffe://clinic/netops/ada",
                Kind::Uri,
            ),
            ("*@clinic.example", "ada@clinic.example", Kind::Email),
            ("10.9.0.7", "10.9.0.7", Kind::Ip),
            ("ada", "ada", Kind::Dns),
        ] {
            assert_eq!(fits(pattern, name), [kind], "{pattern}");
        }
    }

    #[test]
    fn a_star_stays_within_a_label_or_a_segment() {
        for (pattern, name) in [
            (
                "uri:spiffe://clinic/netops/*",
                "spiffe://clinic/netops/ada/root",
            ),
            ("uri:spiffe://clinic/netops/*", "spiffe://clinic/netops/"),
            ("uri:spiffe://*/netops/ada", "spiffe://evil/x/netops/ada"),
            ("uri:spiffe://clinic/*", "spiffe://clinic/a?b"),
            ("dns:*.clinic.example", "a.b.clinic.example"),
            ("dns:*.clinic.example", ".clinic.example"),
            ("dns:*.clinic.example", "a.clinic.example.evil"),
            ("email:*@clinic.example", "a@evil@clinic.example"),
            ("email:ada@*.example", "ada@a.b.example"),
            ("cn:ada*", "ada.root"),
            ("dns:a.c", "abc"),
            ("ip:10.9.0.0/24", "10.9.1.7"),
            ("uri:SPIFFE://clinic/x", "spiffe://clinic/x"),
        ] {
            assert_eq!(fits(pattern, name), [], "{pattern} and {name}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused_with_the_cure() {
        for (text, says) in [
            ("", "empty"),
            ("uri:", "empty"),
            ("ip:clinic", "ip:10.9.0.0/24"),
            ("ip:10.9.*", "no address"),
            ("uri:spiffe://clinic/**", "**"),
        ] {
            let error = text.parse::<Pattern>().expect_err(text).to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
