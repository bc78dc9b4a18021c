//! The arguments of a change, and the result of one that took force.

use std::time::Duration;

use jiff::Timestamp;

/// The author of a change, and the reason.
#[derive(Clone, Debug, Default)]
pub struct Author {
    /// The author's identity.
    pub actor: String,
    /// Why, in the actor's words.
    pub reason: String,
    /// The request's id.
    pub request_id: String,
    /// The call: apply, edit, rollback …
    pub kind: &'static str,
}

impl Author {
    /// The daemon itself as author.
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
    /// Warnings.
    pub warnings: Vec<String>,
    /// Whether there was nothing to change.
    pub unchanged: bool,
}

/// The conditions of a change of the document.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// The revision that it is based on; 0: whatever is in force.
    pub base: u64,
    /// How long it waits for its confirmation; none: it needs no confirmation.
    pub confirm_within: Option<Duration>,
}
