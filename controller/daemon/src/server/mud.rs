//! MUD files: what one would allow, and an import as an edit of the document in force.

use jiff::Timestamp;
use tonic::Status;
use wardline_mud::{Imported, Outcome, Request, Subject, Trust, import};
use wardline_policy::{document::edit::Edit, words::problem::Problem};
use wardline_proto::v1;

use super::view::View;
use crate::engine::refusal::Refusal;

/// A file and whom it is for, as requests have them.
pub(super) struct Asked {
    pub(super) file: Vec<u8>,
    pub(super) signature: Vec<u8>,
    pub(super) device: String,
    pub(super) label: String,
    pub(super) is_approved: bool,
}

/// What came of a file, and the revision that it is about.
pub(super) struct Checked {
    pub(super) imported: Imported,
    pub(super) base: u64,
}

impl View {
    /// Reads a file for the document in force.
    pub(super) async fn check_mud(&self, asked: Asked) -> Result<Checked, Status> {
        let subject = subject(&asked)?;
        let read = move |view: &Self, _: &dyn Fn() -> bool| {
            let anchors = view.mud.anchors().map_err(|why| invalid("signature", why));
            let anchors = match anchors {
                Err(refusal) if !asked.signature.is_empty() => return Err(refusal),
                anchors => anchors.unwrap_or_default(),
            };
            let snapshot = view.state().snapshot;
            let imported = import(&Request {
                file: &asked.file,
                signature: &asked.signature,
                anchors: &anchors,
                now: Timestamp::now(),
                subject: subject.as_ref(),
                is_approved: asked.is_approved,
                document: &snapshot.policy,
                router_is: &view.mud.router_is,
            });
            let imported = imported.map_err(|it| invalid(&it.path, it.message))?;
            Ok(Checked {
                imported,
                base: snapshot.revision,
            })
        };
        self.read_in(&self.documents, read).await
    }
}

fn invalid(path: &str, message: String) -> Refusal {
    Refusal::Invalid(vec![Problem {
        path: path.to_owned(),
        message,
    }])
}

fn subject(asked: &Asked) -> Result<Option<Subject>, Status> {
    match (asked.device.as_str(), asked.label.as_str()) {
        ("", "") => Ok(None),
        (device, "") => Ok(Some(Subject::Device(device.to_owned()))),
        ("", label) => Ok(Some(Subject::Label(label.to_owned()))),
        _ => Err(Status::invalid_argument(
            "a file is for a device or for a label, one of the two",
        )),
    }
}

impl Checked {
    /// Refuses a file that is not believed.
    ///
    /// # Errors
    /// Why it is not.
    pub(super) fn believed(&self) -> Result<(), Status> {
        let Imported { trust, why, .. } = &self.imported;
        if trust.suffices() {
            return Ok(());
        }
        Err(Status::failed_precondition(format!(
            "trust: {}: {why}",
            trust.word()
        )))
    }

    /// What the history and the audit say of an import.
    pub(super) fn reason(&self, approve: &str, reason: &str) -> String {
        let Imported { url, sha256, .. } = &self.imported;
        let mut text = format!("MUD {url} (SHA-256 {sha256})");
        if !approve.is_empty() {
            text += &format!("; approved: {approve}");
        }
        if !reason.is_empty() {
            text += &format!("; {reason}");
        }
        text
    }

    /// The edit that puts the rules in force.
    pub(super) fn edit(&self) -> Edit {
        Edit {
            put: Some(self.imported.put.clone()),
            delete: self.imported.delete.clone(),
        }
    }
}

impl From<Checked> for v1::CheckMudResponse {
    fn from(checked: Checked) -> Self {
        let Checked { imported, base } = checked;
        let trust = match imported.trust {
            Trust::Verified => v1::MudTrust::Verified,
            Trust::Approved => v1::MudTrust::Approved,
            Trust::Unsigned => v1::MudTrust::Unsigned,
            Trust::Refused => v1::MudTrust::Refused,
        };
        let aces = imported.aces.into_iter().map(|it| {
            let direction = if it.from_device {
                v1::MudDirection::FromDevice
            } else {
                v1::MudDirection::ToDevice
            };
            v1::MudAce {
                name: it.name,
                direction: direction.into(),
                outcome: outcome(it.outcome),
                reason: it.reason,
                rules: it.rules,
            }
        });
        let defaults = imported.defaults.into_iter().map(|it| v1::MudDefault {
            name: it.name.to_owned(),
            outcome: outcome(it.outcome),
            reason: it.reason,
            rules: it.rules,
        });
        Self {
            trust: trust.into(),
            trust_reason: imported.why,
            signer: imported.signer.map(|it| it.subject).unwrap_or_default(),
            sha256: imported.sha256,
            url: imported.url,
            systeminfo: imported.systeminfo,
            profile: imported.profile,
            aces: aces.collect(),
            defaults: defaults.collect(),
            unresolved: imported.unresolved,
            notices: imported.notices,
            put: Some(imported.put),
            delete: imported.delete,
            base,
        }
    }
}

fn outcome(outcome: Outcome) -> i32 {
    i32::from(match outcome {
        Outcome::Imported => v1::MudOutcome::Imported,
        Outcome::Held => v1::MudOutcome::Held,
        Outcome::Dropped => v1::MudOutcome::Dropped,
    })
}
