//! What of a document exceeds the limits.

use super::Document;
use crate::{limits::Limits, words::problem::Problem};

/// Tells what of a document exceeds the limits: one problem for each kind, with the numbers.
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
