//! The policy document as people write it: its meaning, its edits, and the differences between two
//! documents.
//!
//! Only this part of the crate knows the messages of the API. Everything else works on what was
//! read from them.

pub use wardline_proto::v1::Policy as Document;

pub mod closed;
pub mod diff;
pub mod edit;
mod ending;
mod excess;
mod read;
pub mod rename;
mod warnings;

pub use self::{
    ending::{EndingRule, end_at, ending_rules},
    excess::excess,
};

#[cfg(test)]
mod tests;
