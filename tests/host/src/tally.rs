//! How a run of random cases went, in numbers.

use std::collections::BTreeMap;

use wardline_proto::v1::Reason;

/// How a run went.
#[derive(Default)]
pub struct Tally {
    pub(crate) cases: usize,
    pub(crate) policies: usize,
    pub(crate) verdicts: BTreeMap<Reason, usize>,
    /// Frames of known disagreements, by name.
    pub(crate) excluded: BTreeMap<&'static str, usize>,
    pub mismatches: BTreeMap<String, usize>,
}

impl Tally {
    pub(crate) fn add(&mut self, other: Self) {
        self.cases += other.cases;
        self.policies += other.policies;
        for (reason, count) in other.verdicts {
            *self.verdicts.entry(reason).or_default() += count;
        }
        for (name, count) in other.excluded {
            *self.excluded.entry(name).or_default() += count;
        }
    }

    /// The names of known disagreements that were seen.
    pub fn left(&self) -> impl Iterator<Item = &'static str> {
        self.excluded.keys().copied()
    }

    /// Says how the run went.
    pub(crate) fn tell(&self, seed: u64, seconds: u64) {
        eprintln!(
            "seed {seed}: {} cases, {} policies, {seconds} s",
            self.cases, self.policies
        );
        for (reason, count) in &self.verdicts {
            eprintln!("{count:9} {}", reason.as_str_name());
        }
        for (name, count) in &self.excluded {
            eprintln!("{count:9} excluded, {name}");
        }
        for (kind, count) in &self.mismatches {
            eprintln!("{count:9} MISMATCHES: {kind}");
        }
    }
}
