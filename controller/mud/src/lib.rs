//! Manufacturer usage descriptions (RFC 8520): from a vendor's file to rules of a document, with a reason for
//! each entry that makes none.
//!
//! Everything is an argument: the file's bytes, a signature over them, whom the site trusts, the time, and
//! the document in force. Nothing is fetched and nothing is put in force here: what comes out is an edit of the document,
//! which goes the way of every other edit.

#![forbid(unsafe_code)]

mod anchors;
mod answers;
mod draft;
mod entry;
mod file;
mod import;
mod json;
mod keys;
mod profile;
mod services;
mod signature;
mod site;
mod words;

#[cfg(test)]
mod tests;

pub use self::{
    anchors::Anchors,
    draft::{Other, Seen, draft},
    file::LARGEST_FILE,
    import::{Imported, Refused, Request, Subject, Trust, import},
    profile::{Default, Outcome, Told},
    signature::{LARGEST_SIGNATURE, Signer},
    site::is_rule_of,
};
