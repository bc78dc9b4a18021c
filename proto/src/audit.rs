//! The audit's records: how each is chained to the one before, and how the chain is checked.
//!
//! A record is one line of JSON. Its last two fields are `previous`, the hash of the record before
//! (zeros for the first), and `hash`, the SHA-256 of the line up to `,"hash"`. Changing, removing,
//! inserting or moving a record breaks the chain there, unless all later records are rewritten too.
//! A rewrite, and records cut off at the end, show only in comparison with a [`Head`] that was kept
//! elsewhere: the router keeps one beside the records, and any earlier one can be compared.
//!
//! The records are kept in segments, files of a bounded size. Each segment but the first begins with
//! a record that says up to where older segments were removed on purpose. Where the chain begins is
//! proved by the newest such record, so that removed records are told from those that were cut off.

use std::{fmt, str::FromStr};

use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use crate::letters::escaped;

/// A call that changed something or was refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its number, from 1, without gaps.
    pub sequence: u64,
    /// When the call was answered, RFC 3339.
    pub time: String,
    /// The caller's identity.
    pub actor: String,
    /// The caller's address.
    pub address: String,
    /// The actor's role; empty: none.
    pub role: String,
    /// The call's name.
    pub call: String,
    /// Why, in the actor's words; empty for a call that was refused before it was read.
    pub reason: String,
    /// The request's id.
    pub request_id: String,
    /// `ok`, or the status in lower case, as `permission_denied`.
    pub outcome: String,
    /// Why it was refused.
    pub message: String,
    /// The revision in force before the change.
    pub before: Option<u64>,
    /// The revision in force after it.
    pub after: Option<u64>,
    /// Refused calls of this actor that came too fast to have records of their own.
    pub more: u64,
    /// Only in the first record of a segment, which is of no call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segment: Option<Segment>,
}

/// What the first record of a segment says of those before it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// The last record that is no longer kept; number 0: all are.
    pub removed: Head,
    /// The newest revision that an earlier record names; 0: none.
    pub revision: u64,
}

impl Record {
    /// The newest revision that is known by this record.
    pub fn revision(&self) -> u64 {
        let segment = self.segment.as_ref().map_or(0, |segment| segment.revision);
        self.after.unwrap_or_default().max(segment)
    }
}

/// The identity of one record in the chain, which also fixes all records before it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Head {
    /// The record's number; 0: before the first.
    pub sequence: u64,
    /// Its hash, 64 hexadecimal digits.
    pub hash: String,
}

impl Default for Head {
    fn default() -> Self {
        Self {
            sequence: 0,
            hash: "0".repeat(64),
        }
    }
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.sequence, self.hash)
    }
}

impl From<Head> for String {
    fn from(head: Head) -> Self {
        head.to_string()
    }
}

impl TryFrom<String> for Head {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl FromStr for Head {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once(':').and_then(|(sequence, hash)| {
            let digits = hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
            Some((sequence.parse().ok()?, hash)).filter(|_| digits)
        });
        let (sequence, hash) =
            parts.ok_or("expected NUMBER:HASH, as `audit --verify` prints it")?;
        Ok(Self {
            sequence,
            hash: hash.to_ascii_lowercase(),
        })
    }
}

/// Makes the line of a record that follows another, without the end of line, and the new head.
pub fn seal(record: &Record, previous: &Head) -> (String, Head) {
    let line = serde_json::to_string(record).expect("text and numbers are always JSON");
    // Escaped here, because an export has the same bytes as the stored line.
    let mut line = escaped(&line);
    line.pop();
    line.push_str(&format!(",\"previous\":\"{}\"", previous.hash));
    let hash = hash(&line);
    line.push_str(&format!(",\"hash\":\"{hash}\"}}"));
    let head = Head {
        sequence: record.sequence,
        hash,
    };
    (line, head)
}

/// The record and the head that a line states; only a [`Check`] finds out whether they are true.
pub fn read(line: &str) -> Option<(Record, Head)> {
    let Sealed { record, hash, .. } = serde_json::from_str(line).ok()?;
    let sequence = record.sequence;
    Some((record, Head { sequence, hash }))
}

/// The head that a line continues, as it states.
pub fn continued(line: &str) -> Option<Head> {
    let sealed: Sealed = serde_json::from_str(line).ok()?;
    Some(sealed.before())
}

#[derive(Deserialize)]
struct Sealed {
    #[serde(flatten)]
    record: Record,
    previous: String,
    hash: String,
}

impl Sealed {
    fn before(&self) -> Head {
        Head {
            sequence: self.record.sequence.saturating_sub(1),
            hash: self.previous.clone(),
        }
    }
}

fn hash(text: &str) -> String {
    let bytes = digest(&SHA256, text.as_bytes());
    bytes
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Checks a chain from its first record, line by line.
#[derive(Clone, Debug, Default)]
pub struct Check {
    lines: u64,
    last: Head,
    /// What the first line continues; none: there was no record yet.
    begins: Option<Head>,
    /// The newest record that was removed on purpose, as records say.
    removed: Head,
    segments: u64,
    noted: Vec<Head>,
    findings: Vec<String>,
}

impl Check {
    /// A check that also looks for records that were noted before.
    pub fn with(noted: impl IntoIterator<Item = Head>) -> Self {
        Self {
            noted: noted.into_iter().collect(),
            ..Self::default()
        }
    }

    /// Checks the next line.
    pub fn line(&mut self, line: &str) {
        self.lines += 1;
        let Ok(sealed) = serde_json::from_str::<Sealed>(line) else {
            self.find("not a record".to_owned());
            return;
        };
        let before = sealed.before();
        let Sealed {
            record,
            previous,
            hash: stated,
        } = sealed;
        let sequence = record.sequence;
        // Whether it may begin there is known when all lines are.
        if self.begins.is_none() {
            self.begins = Some(before.clone());
            self.last = before;
            self.segments = 1;
        } else if record.segment.is_some() {
            self.segments += 1;
        }
        if let Some(Segment { removed, .. }) = record.segment
            && removed.sequence > self.removed.sequence
        {
            self.removed = removed;
        }
        let words = line
            .rsplit_once(",\"hash\":")
            .map_or("", |(words, _)| words);
        if hash(words) != stated {
            self.find(format!(
                "record {sequence} was changed: its hash is not that of its words"
            ));
        }
        let next = self.last.sequence + 1;
        if sequence < next {
            self.find(format!("record {sequence} stands where {next} belongs"));
        } else if sequence > next {
            self.find(missing(next, sequence - 1));
        } else if previous != self.last.hash {
            let before = self.last.sequence;
            self.find(format!(
                "record {sequence} does not continue record {before}: one of them was rewritten"
            ));
        }
        self.last = Head {
            sequence,
            hash: stated,
        };
        for noted in std::mem::take(&mut self.noted) {
            if noted.sequence > sequence {
                self.noted.push(noted);
            } else if noted.sequence == sequence && noted.hash != self.last.hash {
                self.find(format!("record {sequence} is not the one that was noted"));
            } else if noted.sequence < sequence && noted.sequence != 0 && noted != self.begins() {
                // It was removed, or was not found at its place, and that has been reported already.
                self.find(format!(
                    "record {}, which was noted, is not there to be compared",
                    noted.sequence
                ));
            }
        }
    }

    /// Compares the end of the chain with the stored head.
    pub fn remembered(&mut self, head: Head) {
        if head.sequence == self.last.sequence && head != self.last {
            let sequence = head.sequence;
            self.find(format!("record {sequence} is not the one that was noted"));
        } else {
            self.noted.push(head);
        }
    }

    /// Goes on after a later record of the same segment, without a look at those between.
    pub fn skip_to(&mut self, last: Head) {
        self.last = last;
    }

    /// The last record so far, by its own number and hash.
    pub fn last(&self) -> &Head {
        &self.last
    }

    /// The record before the first; number 0: the chain is there from its first record on.
    pub fn begins(&self) -> Head {
        self.begins.clone().unwrap_or_default()
    }

    /// The newest record that was removed on purpose, as the records say; number 0: none was.
    pub fn removed(&self) -> &Head {
        &self.removed
    }

    /// In how many segments the records are.
    pub fn segments(&self) -> u64 {
        self.segments
    }

    /// The findings, each with its line; none: the chain is whole.
    pub fn end(mut self) -> Vec<String> {
        let begins = self.begins();
        let removed = self.removed.sequence;
        if begins.sequence > removed {
            let missing = missing(removed + 1, begins.sequence);
            self.findings.insert(0, format!("line 1: {missing}"));
        } else if begins.sequence == removed && begins != self.removed {
            let first = removed + 1;
            self.findings.insert(
                0,
                format!("line 1: record {first} does not continue the one that was removed last"),
            );
        }
        let last = self.last.sequence;
        let noted = self.noted.iter().map(|noted| noted.sequence);
        if let Some(furthest) = noted.max().filter(|furthest| *furthest > last) {
            let (line, missing) = (self.lines, missing(last + 1, furthest));
            self.findings.push(format!(
                "after line {line}: {missing}, which were there once"
            ));
        }
        self.findings
    }

    fn find(&mut self, what: String) {
        self.findings.push(format!("line {}: {what}", self.lines));
    }
}

fn missing(first: u64, last: u64) -> String {
    if first == last {
        format!("record {first} is missing")
    } else {
        format!("records {first} to {last} are missing")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::letters::steers;

    #[test]
    fn a_line_shows_no_letter_that_steers_and_reads_back() {
        let record = Record {
            sequence: 1,
            reason: "a\u{9b}31m\u{202e}b\u{1b}[2J\nc".to_owned(),
            ..Record::default()
        };
        let (line, head) = seal(&record, &Head::default());
        assert!(!line.contains(steers), "{line:?}");
        assert_eq!(read(&line), Some((record, head)));
        let mut check = Check::with([]);
        check.line(&line);
        assert_eq!(check.end(), [""; 0]);
    }

    fn chain(length: u64) -> (Vec<String>, Head) {
        let mut head = Head::default();
        let mut lines = Vec::new();
        for sequence in 1..=length {
            let record = Record {
                sequence,
                actor: "uid:0".to_owned(),
                reason: format!("why \"{sequence}\",\"hash\":\"no\""),
                after: Some(sequence),
                ..Record::default()
            };
            let (line, next) = seal(&record, &head);
            assert_eq!(read(&line), Some((record, next.clone())));
            lines.push(line);
            head = next;
        }
        (lines, head)
    }

    fn found(lines: &[String], noted: &[&Head]) -> Vec<String> {
        let mut check = Check::with(noted.iter().copied().cloned());
        for line in lines {
            check.line(line);
        }
        check.end()
    }

    #[test]
    fn a_chain_that_nobody_touched_is_whole() {
        let (lines, head) = chain(9);
        assert_eq!(found(&lines, &[&head, &Head::default()]), [""; 0]);
        assert_eq!(found(&[], &[&Head::default()]), [""; 0]);
        let noted = read(&lines[3]).expect("a record").1;
        assert_eq!(found(&lines, &[&noted]), [""; 0]);
    }

    #[test]
    fn each_kind_of_tampering_is_found_in_its_place() {
        let (lines, head) = chain(9);
        let tampered = |change: &dyn Fn(&mut Vec<String>)| {
            let mut lines = lines.clone();
            change(&mut lines);
            found(&lines, &[&head])
        };
        // Changed words, in any field.
        for (from, to) in [
            ("uid:0", "uid:7"),
            ("why", "how"),
            ("\"after\":4", "\"after\":5"),
            ("\"more\":0", "\"more\":0,\"x\":1"),
            ("\"before\":null", "\"before\": null"),
        ] {
            let changed = tampered(&|lines| lines[3] = lines[3].replacen(from, to, 1));
            assert_eq!(changed.len(), 1, "{changed:?}");
            assert!(
                changed[0].starts_with("line 4: record 4 was changed"),
                "{changed:?}"
            );
        }
        let line = |n: usize, what: &str| format!("line {n}: {what}");
        assert_eq!(
            tampered(&|lines| drop(lines.remove(3))),
            [line(4, "record 4 is missing")]
        );
        assert_eq!(
            tampered(&|lines| drop(lines.drain(..3))),
            [line(1, "records 1 to 3 are missing")]
        );
        assert_eq!(
            tampered(&|lines| lines.swap(3, 4)),
            [
                line(4, "record 4 is missing"),
                line(5, "record 4 stands where 6 belongs"),
                line(6, "record 5 is missing"),
            ]
        );
        assert_eq!(
            tampered(&|lines| lines.insert(4, lines[1].clone())),
            [
                line(5, "record 2 stands where 5 belongs"),
                line(6, "records 3 to 4 are missing"),
            ]
        );
        assert_eq!(
            tampered(&|lines| lines.insert(4, "{}".to_owned())),
            [line(5, "not a record")]
        );
        // A rewritten record with a correct hash.
        assert_eq!(
            tampered(&|lines| lines[3] = forged(&lines[3], &lines[2])),
            [line(
                5,
                "record 5 does not continue record 4: one of them was rewritten"
            )]
        );
        // The end, cut off or rewritten, which shows only in comparison with the head.
        assert_eq!(
            tampered(&|lines| lines.truncate(7)),
            ["after line 7: records 8 to 9 are missing, which were there once"]
        );
        assert_eq!(
            tampered(&|lines| lines.clear()),
            ["after line 0: records 1 to 9 are missing, which were there once"]
        );
        assert_eq!(
            tampered(&|lines| lines[8] = forged(&lines[8], &lines[7])),
            [line(9, "record 9 is not the one that was noted")]
        );
        let mut cut = lines.clone();
        cut.truncate(7);
        assert_eq!(found(&cut, &[]), [""; 0], "without a head nothing tells");
    }

    /// Nine records in segments of three; `removed` of them are gone, and the records tell so.
    fn segments(removed: usize) -> (Vec<String>, Head) {
        let mut head = Head::default();
        let mut heads = vec![head.clone()];
        let mut lines = Vec::new();
        for sequence in 1..=9 {
            let begins = sequence > 1 && sequence % 3 == 1;
            let record = Record {
                sequence,
                segment: begins.then(|| Segment {
                    removed: heads[removed.min(lines.len() / 3 * 3)].clone(),
                    revision: 5,
                }),
                ..Record::default()
            };
            assert_eq!(record.revision(), if begins { 5 } else { 0 });
            let (line, next) = seal(&record, &head);
            lines.push(line);
            heads.push(next.clone());
            head = next;
        }
        (lines.split_off(removed), head)
    }

    #[test]
    fn what_was_removed_on_purpose_is_not_missed() {
        for removed in [0, 3, 6] {
            let (lines, head) = segments(removed);
            let mut check = Check::with([head]);
            lines.iter().for_each(|line| check.line(line));
            assert_eq!(check.begins().sequence, removed as u64);
            assert_eq!(check.removed(), &check.begins());
            assert_eq!(check.segments(), 3 - removed as u64 / 3);
            assert_eq!(check.end(), [""; 0]);
        }
        // A crash before the files were removed.
        let (mut lines, head) = segments(3);
        let whole = segments(0).0;
        assert_eq!(found(&lines, &[&head]), [""; 0]);
        // Cut off beyond what the records tell.
        lines.drain(..2);
        assert_eq!(
            found(&lines, &[&head]),
            ["line 1: records 4 to 5 are missing"]
        );
        assert_eq!(
            found(&whole[6..], &[]),
            ["line 1: records 1 to 6 are missing"]
        );
        // Another chain's records.
        let mut other = segments(3).0;
        other[1..].clone_from_slice(&whole[4..]);
        assert!(!found(&other, &[]).is_empty());
        // What was noted of a record that is gone can't be compared, but for the last of them.
        let first = read(&whole[0]).expect("a record").1;
        let (lines, _) = segments(3);
        assert_eq!(
            found(&lines, &[&first]),
            ["line 1: record 1, which was noted, is not there to be compared"]
        );
        let last_removed = continued(&lines[0]).expect("a record");
        assert_eq!(found(&lines, &[&last_removed]), [""; 0]);
    }

    #[test]
    fn segments_that_are_skipped_must_fit_together() {
        let (lines, _) = segments(0);
        let skipped = |left_out: &[usize]| {
            let mut check = Check::default();
            let kept = (0..3).filter(|segment| !left_out.contains(segment));
            for lines in kept.map(|segment| &lines[segment * 3..][..3]) {
                check.line(&lines[0]);
                check.skip_to(read(&lines[2]).expect("a record").1);
            }
            check.end()
        };
        assert_eq!(skipped(&[]), [""; 0]);
        assert_eq!(skipped(&[0]), ["line 1: records 1 to 3 are missing"]);
        assert_eq!(skipped(&[1]), ["line 2: records 4 to 6 are missing"]);
    }

    /// The record with other words and a correct hash.
    fn forged(line: &str, before: &str) -> String {
        let (mut record, _) = read(line).expect("a record");
        record.actor = "uid:7".to_owned();
        seal(&record, &read(before).expect("a record").1).0
    }

    #[test]
    fn a_head_reads_back_and_nothing_else_does() {
        let (_, head) = chain(2);
        assert_eq!(head.to_string().parse(), Ok(head.clone()));
        for text in ["", "2", "2:", "2:abc", ":", "x:00"] {
            assert!(text.parse::<Head>().is_err(), "{text}");
        }
        assert!(format!("-1:{}", head.hash).parse::<Head>().is_err());
    }
}
