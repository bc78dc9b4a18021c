//! A revision: as it is given to the store, and as the store gives it back.

use jiff::Timestamp;
use wardline_policy::document::{Document as Policy, diff::Extent, edit::Edit};

/// A change that was accepted and is to be kept.
#[derive(Clone, Debug)]
pub struct NewRevision<'a> {
    /// The revision that it changes; 0: none.
    pub parent: u64,
    /// When it was accepted.
    pub time: Timestamp,
    /// Who made it.
    pub actor: &'a str,
    /// Why, in the actor's words.
    pub reason: &'a str,
    /// The call that made it: apply, edit, rollback, quarantine …
    pub kind: &'a str,
    /// The request's id.
    pub request_id: &'a str,
    /// Its document.
    pub document: Document<'a>,
    /// What it adds to, alters in and removes from its parent's document.
    pub extent: Extent,
    /// What else is true from this revision on, in the same transaction.
    pub facts: &'a [Fact<'a>],
}

/// What the document of a revision is.
#[derive(Clone, Copy, Debug)]
pub enum Document<'a> {
    /// This one.
    Whole(&'a Policy),
    /// That of an earlier revision.
    Of(u64),
    /// That of the parent after an edit.
    Edited {
        /// What is put and deleted.
        edit: &'a Edit,
        /// What comes of it; kept instead where too many edits would have to be read.
        whole: &'a Policy,
    },
}

/// Something that is true beside the document.
#[derive(Clone, Copy, Debug)]
pub enum Fact<'a> {
    /// What is kept under a key; none: nothing any more.
    Meta(&'a str, Option<&'a str>),
    /// Whether a device is in quarantine.
    Quarantined(&'a str, bool),
    /// A rule is a grant: it goes when it ends. Never taken back, so that a document of old that
    /// comes into force again does not bring it along.
    Grant(&'a str, Timestamp),
}

/// A kept change, without its document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revision {
    /// Its number; they only grow.
    pub revision: u64,
    /// The revision that it changed; 0: none.
    pub parent: u64,
    /// When it was accepted.
    pub time: Timestamp,
    /// Who made it.
    pub actor: String,
    /// Why, in the actor's words.
    pub reason: String,
    /// The call that made it.
    pub kind: String,
    /// The request's id.
    pub request_id: String,
    /// What it changed.
    pub extent: Extent,
}

/// A kept change and its document.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredRevision {
    /// The change.
    pub revision: Revision,
    /// The document.
    pub policy: Policy,
}
