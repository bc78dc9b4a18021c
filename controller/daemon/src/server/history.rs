//! Documents and revisions of the past, as the API tells them.

use std::sync::Arc;

use wardline_policy::{document::diff, snapshot::Snapshot};
use wardline_proto::v1;

use super::convert::revision;
use crate::{engine::refusal::Refusal, store::Store};

/// The document of a revision, or what it changed; 0: the one in force.
pub(super) fn policy(
    store: &Store,
    current: &Snapshot,
    revision: u64,
    diff: bool,
) -> Result<v1::GetPolicyResponse, Refusal> {
    let document = |revision: u64| -> Result<Arc<v1::Policy>, Refusal> {
        if revision == 0 || revision == current.revision {
            return Ok(Arc::clone(&current.policy));
        }
        let stored = store.get(revision)?;
        let stored = stored.ok_or(Refusal::NoRevision(revision))?;
        Ok(Arc::new(stored.policy))
    };
    let revision = if revision == 0 {
        current.revision
    } else {
        revision
    };
    let policy = document(revision)?;
    if !diff {
        return Ok(v1::GetPolicyResponse {
            revision,
            policy: (policy.version != 0).then(|| v1::Policy::clone(&policy)),
            changes: Vec::new(),
        });
    }
    let before = match store.parent(revision)? {
        0 => Arc::default(),
        parent => document(parent)?,
    };
    Ok(v1::GetPolicyResponse {
        revision,
        policy: None,
        changes: diff::changes(&before, &policy),
    })
}

/// The accepted changes, newest first, at most so many.
pub(super) fn history(store: &Store, limit: u32) -> Result<Vec<v1::Revision>, Refusal> {
    Ok(store.list(limit)?.into_iter().map(revision).collect())
}
