//! Earlier documents and revisions, as the API returns them.

use std::sync::Arc;

use wardline_policy::document::diff;
use wardline_proto::v1;

use super::{convert::revision, view::View};
use crate::{engine::refusal::Refusal, memory::give_back};

impl View {
    /// The document of a revision, or what it changed; 0: the one in force.
    ///
    /// # Errors
    ///
    /// When there is no such revision, or the history can't be read.
    pub(super) fn policy(
        &self,
        revision: u64,
        diff: bool,
    ) -> Result<v1::GetPolicyResponse, Refusal> {
        let read = self.read_policy(revision, diff);
        give_back();
        read
    }

    fn read_policy(&self, revision: u64, diff: bool) -> Result<v1::GetPolicyResponse, Refusal> {
        let current = self.state().snapshot;
        let document = |revision: u64| -> Result<Arc<v1::Policy>, Refusal> {
            if revision == 0 || revision == current.revision {
                return Ok(Arc::clone(&current.policy));
            }
            let stored = self.history.get(revision)?;
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
        let before = match self.history.parent(revision)? {
            0 => Arc::default(),
            parent => document(parent)?,
        };
        Ok(v1::GetPolicyResponse {
            revision,
            policy: None,
            changes: diff::in_full(&before, &policy),
        })
    }

    /// The accepted changes, newest first, at most `limit`.
    ///
    /// # Errors
    ///
    /// When the history can't be read.
    pub(super) fn revisions(&self, limit: u32) -> Result<Vec<v1::Revision>, Refusal> {
        Ok(self
            .history
            .list(limit)?
            .into_iter()
            .map(revision)
            .collect())
    }
}
