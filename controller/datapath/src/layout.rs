//! The form of tables as text: what another version needs to read them.
//!
//! A line is `STRUCTURE SIZE`, `STRUCTURE.FIELD OFFSET SIZE` or `reason NAME NUMBER`. What a reader does not
//! know it skips, so a later version may add lines.
//!
//! The kernel has the types of each map, too, but tells them to `CAP_SYS_ADMIN` alone, which the daemon
//! does not have.

use std::{collections::BTreeMap, fmt::Write as _};

use wardline_ebpf::{abi::Reason, described::STRUCTURES};

/// Room for the text, in the map `LAYOUT`.
pub(crate) const ROOM: usize = 8192;

/// The form of the tables of one version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Layout {
    structures: BTreeMap<String, Structure>,
    /// Numbers of reasons, by name.
    pub(crate) reasons: BTreeMap<String, u32>,
}

/// A structure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Structure {
    pub(crate) size: usize,
    /// Offset and size of each field.
    fields: BTreeMap<String, (usize, usize)>,
}

impl Structure {
    /// Where a field of this size is.
    pub(crate) fn field(&self, name: &str, size: usize) -> Option<usize> {
        let (offset, found) = *self.fields.get(name)?;
        (found == size && offset + size <= self.size).then_some(offset)
    }

    /// The offset and size of a field.
    pub(crate) fn place(&self, name: &str) -> Option<(usize, usize)> {
        let (_, size) = *self.fields.get(name)?;
        Some((self.field(name, size)?, size))
    }
}

impl Layout {
    /// This version's.
    pub(crate) fn own() -> Self {
        let structures = STRUCTURES.iter().map(|it| {
            let fields = it.fields.iter();
            let fields = fields.map(|field| (field.name.to_owned(), (field.offset, field.size)));
            let structure = Structure {
                size: it.size,
                fields: fields.collect(),
            };
            (it.name.to_owned(), structure)
        });
        let reasons = Reason::ALL
            .into_iter()
            .map(|it| (format!("{it:?}"), it as u32));
        Self {
            structures: structures.collect(),
            reasons: reasons.collect(),
        }
    }

    /// Reads the text; zeros may follow it.
    pub(crate) fn parse(text: &[u8]) -> Self {
        let end = text.iter().position(|byte| *byte == 0);
        let text = String::from_utf8_lossy(&text[..end.unwrap_or(text.len())]);
        let mut layout = Self::default();
        for line in text.lines() {
            layout.read(line);
        }
        layout
    }

    /// Reads one line, if it is one that this version knows.
    fn read(&mut self, line: &str) -> Option<()> {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["reason", name, number] => {
                self.reasons.insert(name.to_owned(), number.parse().ok()?);
            }
            [name, size] => self.structure_mut(name).size = size.parse().ok()?,
            [name, offset, size] => {
                let (structure, field) = name.split_once('.')?;
                let place = (offset.parse().ok()?, size.parse().ok()?);
                let fields = &mut self.structure_mut(structure).fields;
                fields.insert(field.to_owned(), place);
            }
            _ => {}
        }
        Some(())
    }

    fn structure_mut(&mut self, name: &str) -> &mut Structure {
        self.structures.entry(name.to_owned()).or_default()
    }

    /// The structure of a name.
    pub(crate) fn structure(&self, name: &str) -> Option<&Structure> {
        self.structures.get(name)
    }

    /// As text.
    pub(crate) fn to_text(&self) -> String {
        let mut text = String::new();
        // Writing to a string can't fail.
        for (name, structure) in &self.structures {
            let _ = writeln!(text, "{name} {}", structure.size);
            for (field, (offset, size)) in &structure.fields {
                let _ = writeln!(text, "{name}.{field} {offset} {size}");
            }
        }
        for (name, number) in &self.reasons {
            let _ = writeln!(text, "reason {name} {number}");
        }
        text
    }
}

/// How values of one form become values of another: fields of the same name and size are copied, the
/// others are zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Conversion {
    from: usize,
    to: usize,
    /// Where a piece is, where it goes, and its size.
    pieces: Vec<(usize, usize, usize)>,
}

impl Conversion {
    /// From one structure to another.
    pub(crate) fn between(from: &Structure, to: &Structure) -> Self {
        let pieces = to.fields.iter().filter_map(|(name, (offset, size))| {
            let there = from.field(name, *size)?;
            Some((there, *offset, *size))
        });
        Self {
            from: from.size,
            to: to.size,
            pieces: pieces.collect(),
        }
    }

    /// Of bytes that are the same in both.
    pub(crate) fn same(size: usize) -> Self {
        Self {
            from: size,
            to: size,
            pieces: vec![(0, 0, size)],
        }
    }

    /// The sizes before and after.
    pub(crate) fn sizes(&self) -> (usize, usize) {
        (self.from, self.to)
    }

    /// The value in its other form.
    pub(crate) fn of(&self, value: &[u8]) -> Vec<u8> {
        let mut converted = vec![0; self.to];
        for (from, to, size) in &self.pieces {
            if let (Some(from), Some(to)) = (
                value.get(*from..from + size),
                converted.get_mut(*to..to + size),
            ) {
                to.copy_from_slice(from);
            }
        }
        converted
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
mod tests {
    use super::*;

    #[test]
    fn a_layout_is_read_as_it_was_written() {
        let own = Layout::own();
        let text = own.to_text();
        assert!(text.len() <= ROOM, "{} bytes", text.len());
        assert!(text.contains("\nFlow.state 60 4\n"), "{text}");
        let mut padded = text.into_bytes();
        padded.resize(ROOM, 0);
        assert_eq!(Layout::parse(&padded), own);
    }

    #[test]
    fn lines_of_a_later_version_are_skipped() {
        let read =
            Layout::parse(b"what is this\nSeen 12\nSeen.last 4 4\nSeen.more x y\nmap A B C D\n");
        let seen = read.structure("Seen").unwrap();
        assert_eq!((seen.size, seen.field("last", 4)), (12, Some(4)));
        assert_eq!(seen.field("more", 4), None);
        assert_eq!(Layout::parse(&[0; 8]), Layout::default());
    }

    #[test]
    fn fields_are_found_by_name_and_size_wherever_they_are() {
        let there = Layout::parse(
            b"Learned 24\nLearned.zone 0 4\nLearned.last 4 4\nLearned.holder 8 8\n\
              Learned.interface 16 2\nLearned.new 20 4\n",
        );
        let here = Layout::own();
        let (there, here) = (
            there.structure("Learned").unwrap(),
            here.structure("Learned").unwrap(),
        );
        let mut value = Vec::new();
        value.extend(7u32.to_ne_bytes());
        value.extend(1000u32.to_ne_bytes());
        value.extend(0xabcdu64.to_ne_bytes());
        // Of another size: not the same field.
        value.extend([9; 4]);
        value.extend([0xff; 4]);
        let converted = Conversion::between(there, here).of(&value);
        let word = |at: usize| u32::from_ne_bytes(converted[at..at + 4].try_into().unwrap());
        assert_eq!(converted.len(), 24);
        assert_eq!(converted[..8], 0xabcdu64.to_ne_bytes());
        assert_eq!([word(8), word(12), word(16), word(20)], [1000, 0, 7, 0]);
        // A field that ends behind its structure is none.
        let broken = Layout::parse(b"Seen 4\nSeen.last 2 4\n");
        assert_eq!(broken.structure("Seen").unwrap().field("last", 4), None);
    }
}
