//! What goes into a change, and what comes out of one that took force.

use std::time::Duration;

use jiff::Timestamp;

/// Who makes a change, and why.
#[derive(Clone, Debug, Default)]
pub struct Author {
    /// Who.
    pub actor: String,
    /// Why, in the actor's words.
    pub reason: String,
    /// The request's id.
    pub request_id: String,
    /// The call: apply, edit, rollback …
    pub kind: &'static str,
}

impl Author {
    /// The daemon itself.
    pub(crate) fn daemon(kind: &'static str, reason: String) -> Self {
        Self {
            actor: "wardlined".to_owned(),
            reason,
            request_id: String::new(),
            kind,
        }
    }
}

/// A change that took force.
#[derive(Clone, Debug, Default)]
pub struct Applied {
    /// Its revision.
    pub revision: u64,
    /// The revision that was in force before.
    pub parent: u64,
    /// When it is taken back unless confirmed.
    pub confirm_by: Option<Timestamp>,
    /// What deserves a look.
    pub warnings: Vec<String>,
}

/// What goes with a change of the document.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// The revision that it was made from; 0: whatever is in force.
    pub base: u64,
    /// How long it waits for its confirmation; none: it needs none.
    pub confirm_within: Option<Duration>,
}
