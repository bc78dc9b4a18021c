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
        let mut changes = diff::in_full(&before, &policy);
        changes.extend(self.cut_off(revision)?);
        Ok(v1::GetPolicyResponse {
            revision,
            policy: None,
            changes,
        })
    }

    /// Whom a revision put into quarantine or released, as a change of that object.
    fn cut_off(&self, revision: u64) -> Result<Option<v1::ObjectChange>, Refusal> {
        let Some(subject) = self.history.subject(revision)? else {
            return Ok(None);
        };
        let Some(change) = self.history.change(revision)? else {
            return Ok(None);
        };
        let (kind, name) = subject.split_once('/').unwrap_or(("device", &subject));
        let reason = match change.reason.as_str() {
            "" => String::new(),
            reason => format!(": {reason}"),
        };
        let told = format!("by {}{reason}", change.actor);
        let (old, new) = if change.kind == "release" {
            ("true".to_owned(), format!("released {told}"))
        } else {
            (String::new(), format!("true, {told}"))
        };
        Ok(Some(v1::ObjectChange {
            change: v1::ChangeKind::Change.into(),
            kind: kind.to_owned(),
            name: name.to_owned(),
            fields: vec![v1::FieldChange {
                field: "quarantined".to_owned(),
                old,
                new,
            }],
        }))
    }

    /// The accepted changes, newest first, at most `limit`.
    ///
    /// # Errors
    ///
    /// When the history can't be read.
    pub(super) fn revisions(&self, limit: u32) -> Result<Vec<v1::Revision>, Refusal> {
        let mut revisions = Vec::new();
        for kept in self.history.list(limit)? {
            let subject = match kept.kind.as_str() {
                "quarantine" | "release" => self.history.subject(kept.revision)?,
                _ => None,
            };
            revisions.push(v1::Revision {
                subject: subject.unwrap_or_default(),
                ..revision(kept)
            });
        }
        Ok(revisions)
    }
}
