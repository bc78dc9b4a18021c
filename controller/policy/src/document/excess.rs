//! Checks a document against the limits.

use super::Document;
use crate::{limits::Limits, words::problem::Problem};

/// Finds what exceeds the limits: one problem for each kind, with the numbers.
pub fn excess(document: &Document, limits: &Limits) -> Vec<Problem> {
    let counts = [
        ("devices", document.devices.len(), limits.devices),
        ("rules", document.rules.len(), limits.rules),
    ];
    let over = counts
        .into_iter()
        .filter(|&(_, count, limit)| count as u64 > u64::from(limit));
    over.map(|(kind, count, limit)| Problem {
        path: kind.to_owned(),
        message: format!("{count} {kind}, but limits.{kind} is {limit}"),
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use wardline_proto::v1::{Device, Rule};

    use super::*;

    #[test]
    fn what_fits_is_no_excess_and_each_kind_that_does_not_is_told_once() {
        let limits = Limits {
            devices: 2,
            rules: 1,
            ..Limits::default()
        };
        let with = |devices, rules| Document {
            devices: vec![Device::default(); devices],
            rules: vec![Rule::default(); rules],
            ..Document::default()
        };
        assert_eq!(excess(&with(2, 1), &limits), []);
        let told = excess(&with(3, 5), &limits);
        let told: Vec<&str> = told.iter().map(|it| it.message.as_str()).collect();
        let expected = [
            "3 devices, but limits.devices is 2",
            "5 rules, but limits.rules is 1",
        ];
        assert_eq!(told, expected);
    }
}
