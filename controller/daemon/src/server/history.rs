//! Documents and revisions of the past, as the API tells them.

use std::sync::Arc;

use wardline_policy::document::diff;
use wardline_proto::v1;

use super::convert::revision;
use crate::{
    engine::{Engine, refusal::Refusal},
    store,
};

impl Engine {
    /// The document of a revision, or what it changed; 0: the one in force.
    ///
    /// # Errors
    ///
    /// When it is not there.
    pub fn policy(&self, revision: u64, diff: bool) -> Result<v1::GetPolicyResponse, Refusal> {
        let current = self.snapshot();
        let document = |revision: u64| -> Result<Arc<v1::Policy>, Refusal> {
            if revision == 0 || revision == current.revision {
                return Ok(Arc::clone(&current.policy));
            }
            let stored = self.store.get(revision)?;
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
        let before = match self.store.parent(revision)? {
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
    ///
    /// # Errors
    ///
    /// When they can't be read.
    pub fn history(&self, limit: u32) -> Result<Vec<v1::Revision>, Refusal> {
        Ok(self.store.list(limit)?.into_iter().map(revision).collect())
    }

    /// The newest revisions after one, oldest first.
    ///
    /// # Errors
    ///
    /// When the history can't be read.
    pub fn revisions_after(
        &self,
        revision: u64,
    ) -> Result<Vec<store::revision::Revision>, Refusal> {
        const MOST: u32 = 1000;
        let mut revisions = self.store.list(MOST)?;
        revisions.retain(|known| known.revision > revision);
        revisions.reverse();
        Ok(revisions)
    }
}
