//! Why a change was refused.

use std::sync::Arc;

use jiff::Timestamp;
use wardline_datapath::error::DatapathError;
use wardline_policy::{
    document::{
        Document as Policy,
        edit::{self, Edit, Edited},
    },
    quarantine::Whom,
    words::problem::Problem,
};

use crate::store::error::StoreError;

/// Why a change was refused. What was in force stays in force.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The document has problems.
    #[error("the document has problems")]
    Invalid(Vec<Problem>),
    /// The document exceeds limits; one problem with numbers for each.
    #[error("the policy does not fit the tables")]
    TooLarge(Vec<Problem>),
    /// The change was based on another revision than the one in force.
    #[error("the change was made from revision {base}, but revision {current} is in force")]
    Stale {
        /// The revision that the caller knew.
        base: u64,
        /// The revision in force.
        current: u64,
    },
    /// The revision does not exist.
    #[error("there is no revision {0}")]
    NoRevision(u64),
    /// The revision was dropped, because it is old.
    #[error(transparent)]
    NotKept(StoreError),
    /// There is no earlier revision to return to.
    #[error("no policy was in force before revision {0}")]
    NothingBefore(u64),
    /// Objects that do not exist.
    #[error("not there: {}", .0.iter().map(|it| it.path.as_str()).collect::<Vec<_>>().join(", "))]
    Missing(Vec<Problem>),
    /// Objects that can't be deleted, because others refer to them.
    #[error("objects that others refer to can't be deleted")]
    Used(Vec<Problem>),
    /// Another change waits for its confirmation.
    #[error(
        "revision {revision} waits for its confirmation until {confirm_by}: confirm it, or wait; \
         quarantine and release work meanwhile"
    )]
    Pending {
        /// The revision that waits.
        revision: u64,
        /// When it is taken back.
        confirm_by: Timestamp,
    },
    /// No change waits.
    #[error("no change waits for a confirmation")]
    NothingPending,
    /// Another change waits than the one that was confirmed.
    #[error("revision {pending} waits for its confirmation, not revision {revision}")]
    OtherPending {
        /// The revision that was named.
        revision: u64,
        /// The one that waits.
        pending: u64,
    },
    /// The confirmation came over a connection from before the change, so it proves nothing.
    #[error(
        "this connection was made before revision {0} took force; confirm over one that is made \
         after it, so that it shows that the router can still be reached"
    )]
    OldConnection(u64),
    /// The rule to revoke is not a grant.
    #[error("rule {0:?} is no grant; delete it")]
    NoGrant(String),
    /// What is to be released is not in quarantine.
    #[error("{0} is not in quarantine")]
    NotInQuarantine(Whom),
    /// There is no room in quarantine.
    #[error("{0} MACs, addresses and ports are in quarantine, which is all it holds; release some")]
    QuarantineFull(usize),
    /// The interface is not a guarded port.
    #[error("{name:?} is not a guarded port; guarded are: {}", if .guarded.is_empty() {
        "none".to_owned()
    } else {
        .guarded.join(", ")
    })]
    NotGuarded {
        /// The interface.
        name: String,
        /// Those that are.
        guarded: Vec<String>,
    },
    /// What is in force is only a makeshift, which can't be edited, returned to, or recorded.
    #[error("only a whole document can be applied, without a time to confirm: {0}")]
    NoPolicy(Arc<str>),
    /// The client has left, so nobody waits for the answer.
    #[error("the call was ended, because its client has left")]
    Unwanted,
    /// The store could not store the change.
    #[error("the change could not be kept: {0}")]
    Store(StoreError),
    /// The kernel did not accept the change.
    #[error(transparent)]
    Datapath(#[from] DatapathError),
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Dropped { .. } => Self::NotKept(error),
            _ => Self::Store(error),
        }
    }
}

impl Refusal {
    /// Why, with each problem of a document.
    pub(super) fn in_full(&self) -> String {
        let (Self::Invalid(problems) | Self::TooLarge(problems)) = self else {
            return self.to_string();
        };
        let problems: Vec<String> = problems.iter().take(5).map(ToString::to_string).collect();
        format!("{self}: {}", problems.join("; "))
    }

    /// The document that an edit makes of another, and where its objects are.
    pub(crate) fn or_edited(policy: &Policy, edit: &Edit) -> Result<(Arc<Policy>, Edited), Self> {
        let mut policy = Policy::clone(policy);
        let edited = edit::change(&mut policy, edit).map_err(Self::of_edit)?;
        // A service's name may be of the catalogue, too: a rule would go on with other ports.
        let mut used = edit::used(&policy, edit);
        used.retain(|it| it.path.starts_with("service/"));
        if !used.is_empty() {
            return Err(Self::Used(used));
        }
        Ok((Arc::new(policy), edited))
    }

    /// Why an edited document is refused, as the author of the edit knows it.
    pub(crate) fn in_edit(self, policy: &Policy, edit: &Edit, edited: &Edited) -> Self {
        let Self::Invalid(problems) = self else {
            return self;
        };
        let used = edit::used(policy, edit);
        if used.is_empty() {
            Self::Invalid(edit::placed(policy, edited, problems))
        } else {
            Self::Used(used)
        }
    }

    /// An edit that can't be made.
    fn of_edit(problems: Vec<Problem>) -> Self {
        let missing = |problem: &Problem| problem.message == edit::MISSING;
        if problems.iter().all(missing) {
            Self::Missing(problems)
        } else {
            Self::Invalid(problems)
        }
    }

    /// One object that does not exist.
    pub(crate) fn missing(kind: &str, name: &str) -> Self {
        Self::Missing(vec![Problem {
            path: format!("{kind}/{name}"),
            message: edit::MISSING.to_owned(),
        }])
    }
}
