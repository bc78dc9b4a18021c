//! Names of objects: how they may be written, and suggestions for unknown ones.

use std::{collections::HashMap, fmt};

use super::problem::{Full, Problems, Quoted};

pub(crate) const MAX_NAME: usize = 63;

/// The names of one kind of object.
pub(crate) struct Names<'a> {
    kind: &'static str,
    pub(crate) sorted: Vec<&'a str>,
    /// By name: the position among the sorted ones, and the first in the document.
    places: HashMap<&'a str, (usize, usize)>,
}

impl<'a> Names<'a> {
    pub(crate) fn new(kind: &'static str, names: impl Iterator<Item = &'a str>) -> Self {
        let mut places = HashMap::with_capacity(names.size_hint().0);
        for (position, name) in names.enumerate() {
            if !name.is_empty() {
                places.entry(name).or_insert((0, position));
            }
        }
        let mut sorted: Vec<_> = places.keys().copied().collect();
        sorted.sort_unstable();
        for (at, name) in sorted.iter().enumerate() {
            if let Some(place) = places.get_mut(name) {
                place.0 = at;
            }
        }
        Self {
            kind,
            sorted,
            places,
        }
    }

    pub(crate) fn find(&self, name: &str) -> Option<usize> {
        self.places.get(name).map(|place| place.0)
    }

    pub(crate) fn position(&self, name: &str) -> Option<usize> {
        self.places.get(name).map(|place| place.1)
    }

    /// Checks the name of an object itself.
    pub(crate) fn check(
        &self,
        position: usize,
        name: &str,
        problems: &mut Problems,
    ) -> Result<(), Full> {
        let kind = self.kind;
        let path = format_args!("{kind}s[{position}].name");
        let quoted = Quoted(name);
        let allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-');
        if name.is_empty() {
            problems.add(path, format_args!("missing; give the {kind} a name"))?;
        } else if name.len() > MAX_NAME {
            let length = name.len();
            problems.add(
                path,
                format_args!("{quoted} has {length} characters; at most {MAX_NAME}"),
            )?;
        } else if !name.bytes().all(allowed) {
            problems.add(
                path,
                format_args!("{quoted} has more than letters, digits, `.`, `_` and `-`"),
            )?;
        }
        match self.position(name) {
            Some(first) if first != position => problems.add(
                path,
                format_args!("{quoted} is the name of {kind}s[{first}] already"),
            ),
            Some(_) | None => Ok(()),
        }
    }

    /// Reads a reference to an object of this kind.
    pub(crate) fn read(
        &self,
        name: &str,
        path: impl fmt::Display,
        problems: &mut Problems,
    ) -> Result<Option<usize>, Full> {
        let found = self.find(name);
        if found.is_none() {
            let message = self.missing(name, problems);
            problems.add(path, message)?;
        }
        Ok(found)
    }

    pub(crate) fn missing(&self, name: &str, problems: &mut Problems) -> String {
        let (kind, quoted) = (self.kind, Quoted(name));
        let limit = (name.len() / 3).clamp(1, 3);
        let mut nearest: Option<(usize, &str)> = None;
        if problems.comparisons < MAX_COMPARISONS && name.len() <= MAX_NAME {
            problems.comparisons += self.sorted.len();
            for &candidate in &self.sorted {
                if candidate.len().abs_diff(name.len()) > limit || candidate.len() > MAX_NAME {
                    continue;
                }
                let distance = distance(name, candidate);
                if distance <= limit && nearest.is_none_or(|(least, _)| distance < least) {
                    nearest = Some((distance, candidate));
                }
            }
        }
        if let Some((_, candidate)) = nearest {
            return format!("no {kind} {quoted}; did you mean \"{candidate}\"?");
        }
        match &self.sorted[..] {
            [] => format!("no {kind} {quoted}; the document has none"),
            few if few.len() <= 6 => {
                let list: Vec<_> = few.iter().map(|name| Quoted(name).to_string()).collect();
                format!("no {kind} {quoted}; there is {}", list.join(", "))
            }
            many => format!(
                "no {kind} {quoted} among {}; add it or correct the name",
                many.len()
            ),
        }
    }
}

/// The number of insertions, deletions, changes and swaps of neighbours between two words, without
/// regard to case.
pub(crate) fn distance(a: &str, b: &str) -> usize {
    strsim::osa_distance(&a.to_ascii_lowercase(), &b.to_ascii_lowercase())
}

/// After this many comparisons, unknown names get no suggestion.
const MAX_COMPARISONS: usize = 1_000_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn distance_is_symmetric_and_zero_only_for_equal(a in "[a-d]{0,8}", b in "[a-d]{0,8}") {
            let there = distance(&a, &b);
            prop_assert_eq!(there, distance(&b, &a));
            prop_assert_eq!(there == 0, a == b);
            prop_assert!(there <= a.len().max(b.len()));
        }
    }
}
