//! A revision, as it is passed to the store and as the store returns it.

use jiff::Timestamp;
use wardline_policy::{
    document::{Document as Policy, diff::Extent, edit::Edit},
    quarantine::{Hold, Identity},
};

/// An accepted change that is to be stored.
#[derive(Clone, Debug)]
pub struct NewRevision<'a> {
    /// Its number, if it has one already; else it gets the next.
    pub number: Option<u64>,
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
    /// Other facts that hold from this revision on, stored in the same transaction.
    pub facts: &'a [Fact<'a>],
}

/// The document of a revision.
#[derive(Clone, Copy, Debug)]
pub enum Document<'a> {
    /// This one.
    Whole(&'a Policy),
    /// The document of an earlier revision.
    Of(u64),
    /// The parent's document after an edit.
    Edited {
        /// What is put and deleted.
        edit: &'a Edit,
        /// The result; stored instead of the edit if the chain of edits would become too long.
        whole: &'a Policy,
    },
}

/// A fact besides the document.
#[derive(Clone, Copy, Debug)]
pub enum Fact<'a> {
    /// The value of a key; none: it is deleted.
    Meta(&'a str, Option<&'a str>),
    /// Somebody is in quarantine, or no longer.
    Held(Held<'a>),
    /// A rule is a grant, so it is deleted when it ends. Never undone, so that an old document that
    /// comes into force again does not bring an ended grant back.
    Grant(&'a str, Timestamp),
}

/// Somebody who is in quarantine, or no longer.
#[derive(Clone, Copy, Debug)]
pub struct Held<'a> {
    /// Who it is for people, as `device/pump-1`; empty: the revision is not about them.
    pub subject: &'a str,
    /// What they are known by.
    pub identities: &'a [Identity],
    /// Why they are in quarantine; none: they are not.
    pub hold: Option<&'a Hold>,
}

/// A stored change, without its document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revision {
    /// Its number; later ones have higher numbers.
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

/// A stored change and its document.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredRevision {
    /// The change.
    pub revision: Revision,
    /// The document.
    pub policy: Policy,
}
