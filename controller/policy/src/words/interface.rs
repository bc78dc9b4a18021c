//! Names of interfaces, and patterns of them.

use std::fmt;

use super::problem::Quoted;

/// An interface's name, or a glob with `*` and `?`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pattern(pub(crate) String);

impl Pattern {
    /// The text of the pattern.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is the name of one interface.
    pub fn is_exact(&self) -> bool {
        !self.0.contains(['*', '?'])
    }

    /// The number of literal characters.
    pub fn literals(&self) -> usize {
        self.0.bytes().filter(|c| !matches!(c, b'*' | b'?')).count()
    }

    /// Whether an interface's name matches.
    ///
    /// Written by hand instead of with `globset`, where `[`, `{` and `\` are special although names
    /// of interfaces may contain them, and where each pattern becomes a regular expression first.
    pub fn matches(&self, interface: &str) -> bool {
        let (glob, name) = (self.0.as_bytes(), interface.as_bytes());
        let (mut g, mut n) = (0, 0);
        // Where to continue when the last star has to match one more byte.
        let mut retry = None;
        while n < name.len() {
            match glob.get(g) {
                Some(b'*') => {
                    retry = Some((g + 1, n + 1));
                    g += 1;
                }
                Some(&c) if c == b'?' || c == name[n] => (g, n) = (g + 1, n + 1),
                Some(_) | None => {
                    let Some((after_star, next)) = retry else {
                        return false;
                    };
                    (g, n) = (after_star, next);
                    retry = Some((after_star, next + 1));
                }
            }
        }
        glob[g..].iter().all(|&c| c == b'*')
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The kernel's IFNAMSIZ without its terminator.
pub(crate) const MAX_INTERFACE: usize = 15;

pub(crate) fn check_pattern(pattern: &str) -> Result<(), String> {
    let stars = pattern.bytes().filter(|&c| c == b'*').count();
    if stars == 0 && !pattern.contains('?') {
        return check_interface(pattern);
    }
    check_characters(pattern)?;
    // A star may match nothing; every other character takes one character of the name.
    if pattern.len() - stars > MAX_INTERFACE {
        let quoted = Quoted(pattern);
        return Err(format!(
            "{quoted} matches nothing; an interface has at most {MAX_INTERFACE} characters"
        ));
    }
    // Further stars make matching slower without matching more.
    if stars > MAX_INTERFACE + 1 {
        let quoted = Quoted(pattern);
        return Err(format!("{quoted} has {stars} stars; one does"));
    }
    Ok(())
}

pub(crate) fn check_interface(interface: &str) -> Result<(), String> {
    check_characters(interface)?;
    let quoted = Quoted(interface);
    if interface.contains(['*', '?']) {
        return Err(format!("{quoted} is a glob; name one interface"));
    }
    if interface.len() > MAX_INTERFACE {
        return Err(format!(
            "{quoted} is too long; an interface has at most {MAX_INTERFACE} characters"
        ));
    }
    if matches!(interface, "." | "..") {
        return Err(format!("{quoted} is no interface's name"));
    }
    Ok(())
}

pub(crate) fn check_characters(interface: &str) -> Result<(), String> {
    if interface.is_empty() {
        return Err("missing; name an interface, or a glob as lan*".to_owned());
    }
    if interface.contains(|c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control()) {
        let quoted = Quoted(interface);
        return Err(format!(
            "{quoted} is no interface's name; it has no `/`, `:` or spaces"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_globs() {
        let matches = |pattern: &str, name| Pattern(pattern.to_owned()).matches(name);
        assert!(matches("lan*", "lan") && matches("lan*", "lan10") && !matches("lan*", "wlan0"));
        assert!(matches("*an?", "lan1") && !matches("*an?", "lan"));
        assert!(matches("a*b*c", "aXbYbZc") && !matches("a*b*c", "aXbYbZ"));
        assert!(matches("**", "x") && !matches("?", "") && !matches("eth0", "eth01"));
        assert!(matches("e[0]*", "e[0]1") && !matches("e[0]*", "e01"));
    }
}
